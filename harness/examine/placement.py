# SPDX-License-Identifier: GPL-2.0-only
"""Where in a guest's memory a module's code was, told from the instructions that ran.

Nobody need be asked for it: the guest may have panicked, the module may be gone, and its init code
always is once it has run. So the code itself is looked for: the bytes that ran, at the distances
that they have in the .ko file. What the kernel changes while it loads a module is left out of that.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.errors import InputError
from harness.qemu.counts import Counted
from harness.qemu.memory import PAGE

# See elf(5) and the processor supplement of the System V ABI for x86-64.
_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_RELA = struct.Struct("<QQq")
_PROGBITS, _SHT_RELA = 1, 4
_ALLOC, _EXECUTED = 2, 4
_WIDE = {1, 24}  # R_X86_64_64 and R_X86_64_PC64; all others in code have four bytes


@dataclass(frozen=True)
class CodeSection:
    """A section with code: its bytes, and of which the kernel makes others when it is loaded."""

    name: str
    code: bytes
    align: int
    changed: frozenset[int] = frozenset()

    @property
    def init(self) -> bool:
        """Whether it is given back when init is over (module_init_section() in the kernel)."""
        return self.name.startswith(".init")


def code_sections(ko: bytes) -> list[CodeSection]:
    """The sections with code of a .ko file; raises ``InputError`` where it cannot be read."""
    try:
        return _sections(ko)
    except (struct.error, IndexError, ValueError) as error:
        raise InputError(f"a module's file cannot be read: {error}") from error


def _sections(ko: bytes) -> list[CodeSection]:
    fields = _HEADER.unpack_from(ko)
    if fields[:3] != (b"\x7fELF", 2, 1):
        raise ValueError("it is no ELF file of 64 bits")
    start, size, count, names_at = fields[8], fields[13], fields[14], fields[15]
    headers = [_SECTION.unpack_from(ko, start + index * size) for index in range(count)]
    names = _content(ko, headers[names_at])
    code = {
        index: _content(ko, header)
        for index, header in enumerate(headers)
        if header[1] == _PROGBITS and header[2] & _ALLOC and header[2] & _EXECUTED and header[5]
    }
    changed: dict[int, set[int]] = {}
    for header in headers:
        if header[1] == _SHT_RELA:
            content = _content(ko, header)
            whole = len(content) // _RELA.size * _RELA.size
            places = changed.setdefault(header[7], set())
            for offset, info, _ in _RELA.iter_unpack(content[:whole]):
                width = 8 if info & 0xFFFFFFFF in _WIDE else 4
                places.update(range(offset, offset + width))
                if (its := code.get(header[7])) is not None:
                    places.update(range(offset - _before(its, offset), offset))
    return [
        CodeSection(
            names[headers[index][0] :].partition(b"\0")[0].decode(errors="replace"),
            content, max(1, headers[index][8]), frozenset(changed.get(index, ())),
        )
        for index, content in code.items()
    ]  # fmt: skip


def _before(code: bytes, offset: int) -> int:
    """How many bytes before what is filled in may become others, too.

    Those of a call or a jump: the kernel may make a return or nothing of it.
    """
    if code[max(0, offset - 1) : offset] in (b"\xe8", b"\xe9"):
        return 1
    conditional = code[max(0, offset - 2) : offset]
    return 2 if len(conditional) == 2 and conditional[0] == 0x0F and conditional[1] >> 4 == 8 else 0


def _content(ko: bytes, header: tuple[int, ...]) -> bytes:
    content = ko[header[4] : header[4] + header[5]]
    if len(content) != header[5]:
        raise ValueError("it is cut off")
    return content


@dataclass
class Group:
    """Sections that the kernel puts one behind the other, beginning with a page.

    That is done in layout_sections() of kernel/module/main.c, for all code but init's, and for
    init's. ``starts`` are where each section begins, from there.
    """

    sections: Sequence[CodeSection]
    starts: list[int] = field(default_factory=list)
    code: bytes = b""
    changed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for section in self.sections:
            start = -(-len(self.code) // section.align) * section.align
            self.starts.append(start)
            self.code = self.code.ljust(start, b"\0") + section.code
            self.changed.update(start + offset for offset in section.changed)

    def same(self, offset: int, code: bytes) -> int:
        """How many of these bytes are in the group at ``offset``; -1 if others are there.

        What the kernel changes counts as the same, and as one byte if it ends where the instruction
        does.
        """
        count = 0
        for index, byte in enumerate(code, offset):
            if index >= len(self.code):
                return -1
            if index in self.changed:
                continue
            if self.code[index] != byte:
                return -1
            count += 1
        end = offset + len(code)
        return count + (end - 1 in self.changed and end not in self.changed)

    def named(self, offset: int) -> tuple[str, int] | None:
        """The section that an offset is in, and how far."""
        for section, start in zip(self.sections, self.starts, strict=True):
            if start <= offset < start + len(section.code):
                return section.name, offset - start
        return None


def groups_of(sections: Sequence[CodeSection]) -> list[Group]:
    core = [each for each in sections if not each.init]
    init = [each for each in sections if each.init]
    return [Group(each) for each in (core, init) if each]


# So many bytes that are the same are no accident. Of the instructions there, some may be others.
# The kernel changes those that it knows better ones for, and other code may have been there before.
_STRONG = 12
_OTHERS = 0.25
# Where less has run, such as only a short exit function, none may be another one, there must be
# several, and nothing else may have run in these pages, which are the module's alone.
_WEAK = 4
_SEVERAL = 2


def places(group: Group, ran: Sequence[Counted]) -> list[int]:
    """The addresses at which the group has been."""
    votes: Counter[int] = Counter()
    pages = -(-len(group.code) // PAGE)
    for each in ran:
        for page in range(pages):
            offset = each.address % PAGE + page * PAGE
            if (same := group.same(offset, each.code)) > 0:
                votes[each.address - offset] += same
    possible = sum(index not in group.changed for index in range(len(group.code)))
    found: list[int] = []
    for base, count in votes.most_common():
        if count < min(_WEAK, max(1, possible // 2)):
            break
        if any(abs(base - other) < pages * PAGE for other in found):
            continue
        inside = [each for each in ran if base <= each.address < base + pages * PAGE]
        others = sum(group.same(each.address - base, each.code) < 0 for each in inside)
        beyond = sum(each.address >= base + len(group.code) for each in inside)
        here = len(inside) - beyond
        if count >= _STRONG:
            fits = others - beyond <= _OTHERS * here
        else:
            fits = not others and here >= _SEVERAL
        if fits:
            found.append(base)
    return found


def counts(sections: Sequence[CodeSection], ran: Sequence[Counted]) -> dict[tuple[str, int], int]:
    """How often each instruction of a module ran, by its section and where it is in that."""
    found: Counter[tuple[str, int]] = Counter()
    for group in groups_of(sections):
        bases = places(group, ran)
        for base, each in _within(bases, len(group.code), ran):
            if (place := group.named(each.address - base)) is not None:
                found[place] += each.count
    return dict(found)


def _within(
    bases: Sequence[int], size: int, ran: Iterable[Counted]
) -> Iterator[tuple[int, Counted]]:
    for each in ran:
        for base in bases:
            if base <= each.address < base + size:
                yield base, each
                break
