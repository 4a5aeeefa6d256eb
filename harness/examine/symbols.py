# SPDX-License-Identifier: GPL-2.0-only
"""From the addresses in a report to lines of source.

binutils does the work, as it does for the kernel's own scripts/decode_stacktrace.sh: the
kernel's sysroot has it beside the compiler, it applies a module's relocations, and it
knows what was inlined, for which pyelftools leaves the search to its user.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.build import dkms
from harness.build.module import INSIDE, Module
from harness.errors import HarnessError
from harness.host import sandbox
from harness.host.debian import Sysroot
from harness.host.proc import Deadline
from harness.judge.verdict import Problem
from harness.qemu.memory import PAGE

log = logging.getLogger(__name__)

SECONDS = 60.0
_OBJECTS = "/mnt/objects"  # where the sandbox has the files that are looked into


@dataclass(frozen=True)
class Place:
    """A place in code as kallsyms prints it: ``function+0xOFFSET/0xSIZE [MODULE]``, bytes.

    ``size`` goes to the next symbol, and so may be larger than the function. ``exact`` is
    whether the CPU was there; a return address is one after the call.
    """

    function: str
    offset: int
    size: int
    module: str
    exact: bool = False

    @property
    def address(self) -> int:
        """The offset to look up, from the function's beginning."""
        return self.offset if self.exact or not self.offset else self.offset - 1


# A name has 511 characters at most (include/linux/kallsyms.h, KSYM_NAME_LEN), a module's 55; the
# bounds, and that a name begins where a word does, keep the work in proportion to the text.
_PLACE = re.compile(
    r"(?<![\w$.])([A-Za-z_$][\w$.]{0,511})\+0x([0-9a-f]{1,16})/0x([0-9a-f]{1,16})"
    r" \[(\w{1,64})[^\]\n]{0,100}\]"
)
# The frame of an exception repeats what the instruction pointer was.
_EXACT = re.compile(r"\b(?:RIP|IP|pc|WARNING|BUG)\b")


def places(text: str) -> list[tuple[re.Match[str], Place]]:
    """The places in modules that a report names, in their order."""
    found = []
    exact: set[str] = set()
    for line in text.splitlines():
        if _EXACT.search(line):
            exact.update(match[0] for match in _PLACE.finditer(line))
    for match in _PLACE.finditer(text):
        name, offset, size, module = match.groups()
        place = Place(name, int(offset, 16), int(size, 16), module, match[0] in exact)
        found.append((match, place))
    return found


def annotated(text: str, lines: Mapping[Place, Sequence[str]]) -> str:
    """The report with file:line behind each place that is known; inlined code comes first."""
    parts, end = [], 0
    for match, place in places(text):
        parts.append(text[end : match.end()])
        end = match.end()
        if lines.get(place):
            parts.append(f" ({' in '.join(lines[place])})")
    return "".join([*parts, text[end:]])


@dataclass(frozen=True)
class Symbol:
    """A function in an object file: where it begins in which section, in bytes."""

    name: str
    section: str
    value: int
    size: int


def symbols_in(table: str) -> list[Symbol]:
    """The functions in what ``nm --format=sysv`` printed (nm(1)): seven columns, | between."""
    found = []
    for line in table.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 7 and fields[3] == "FUNC":
            name, value, _, _, size, _, section = fields
            found.append(Symbol(name, section, int(value, 16), int(size or "0", 16)))
    return found


def choose(symbols: Iterable[Symbol], place: Place) -> Symbol | None:
    """The function that a place is in; of those with one name the one that fits best."""
    fitting = [one for one in symbols if one.name == place.function and one.size <= place.size]
    return max(fitting, key=lambda one: one.size, default=None)


def lines_in(answer: str) -> dict[int, list[str]]:
    """What ``addr2line --addresses --inlines`` printed: the lines of each address, innermost
    first."""
    found: dict[int, list[str]] = {}
    current: list[str] = []
    for line in answer.splitlines():
        if line.startswith("0x"):
            current = found.setdefault(int(line, 16), [])
        elif "?" not in line:
            current.append(_shown(line))
    return found


def _shown(line: str) -> str:
    """file:line, relative to the module's folder or to the kernel's tree."""
    path = re.sub(r" \(discriminator \d+\)$", "", line)
    if path.startswith(f"{INSIDE}/"):
        return dkms.own_paths(path, INSIDE)
    return re.sub(r"^(?:/.*?/)?(?:\./)?(?=(?:include|arch|kernel|lib|mm|fs|drivers)/)", "", path)


def functions(tree: Sysroot, ko: Path) -> list[Symbol]:
    """The functions in an object file."""
    table = _ask(tree, ko, "nm", "--format=sysv", "--defined-only", f"{_OBJECTS}/{ko.name}")
    return symbols_in(table)


@dataclass(frozen=True)
class Definition:
    """A function or a variable in an object file, and the file:line where it is defined."""

    symbol: Symbol
    location: str | None
    is_function: bool = True


def definitions(tree: Sysroot, ko: Path) -> list[Definition]:
    """The functions and variables in an object file, by their distance from a section's start."""
    table = _ask(
        tree, ko, "nm", "--format=sysv", "--line-numbers", "--defined-only",
        f"{_OBJECTS}/{ko.name}",
    )  # fmt: skip
    headers = _ask(tree, ko, "objdump", "--section-headers", f"{_OBJECTS}/{ko.name}")
    return definitions_in(table, addresses_in(headers))


def addresses_in(headers: str) -> dict[str, int]:
    """The sections' addresses in what ``objdump --section-headers`` printed.

    A module's .data has one although it is placed anew when it is loaded, since the kernel's
    scripts/module.lds.S gives only some sections the address 0; and nm counts from there.
    """
    row = re.compile(r"^ *\d+ (\S+) +[0-9a-f]{8,16}  ([0-9a-f]{16})  ", re.MULTILINE)
    return {found[1]: int(found[2], 16) for found in row.finditer(headers)}


def definitions_in(table: str, addresses: Mapping[str, int]) -> list[Definition]:
    """What ``nm --format=sysv --line-numbers`` printed: a tab and file:line end a line.

    ``addresses`` are those that the object file gives its sections.
    """
    found = []
    for line in table.splitlines():
        columns, _, location = line.partition("\t")
        fields = [field.strip() for field in columns.split("|")]
        # A function's patchable padding has a symbol of its own (__pfx_), beside the true one.
        if len(fields) == 7 and fields[3] in ("FUNC", "OBJECT", "NOTYPE"):
            name, value, _, _, size, _, section = fields
            start = int(value, 16) - addresses.get(section, 0)
            symbol = Symbol(name, section, start, int(size or "0", 16))
            where = _shown(location) if location else None
            found.append(Definition(symbol, where, fields[3] == "FUNC"))
    return found


def defined_at(
    address: int, known: Iterable[Definition], sections: Mapping[str, str]
) -> Definition | None:
    """The symbol at an address of a module; ``sections`` says where each of its sections was."""
    best: tuple[int, Definition] | None = None
    for one in known:
        start = int(sections.get(one.symbol.section, "0"), 16) + one.symbol.value
        inside = one.symbol.section in sections and start <= address < start + one.symbol.size
        if inside and (best is None or start > best[0]):
            best = start, one
    return best[1] if best else None


def imported(tree: Sysroot, ko: Path) -> frozenset[str]:
    """The names of what a module uses of the kernel's and of other modules."""
    table = _ask(
        tree, ko, "nm", "--format=posix", "--undefined-only", f"{_OBJECTS}/{ko.name}"
    )  # fmt: skip
    return frozenset(line.split()[0] for line in table.splitlines() if line.strip())


@dataclass(frozen=True)
class Call:
    """A call of a function that an object file imports: in which of its functions, and where."""

    function: str
    location: str


# The heading and a line of ``objdump --reloc``: for which section, where, and what is put there.
_FOR_SECTION = re.compile(r"^RELOCATION RECORDS FOR \[(\S+)\]:$")
_PUT_THERE = re.compile(r"^([0-9a-f]{16}) \S+ +(\w+)(?:[-+]0x[0-9a-f]+)?$")


def uses_in(relocations: str, wanted: re.Pattern[str]) -> dict[str, list[int]]:
    """Where in each section a name of ``wanted`` is used, by what ``objdump --reloc`` printed."""
    found: dict[str, list[int]] = {}
    section = ""
    for line in relocations.splitlines():
        if heading := _FOR_SECTION.match(line):
            section = heading[1]
        elif (entry := _PUT_THERE.match(line)) and wanted.fullmatch(entry[2]):
            found.setdefault(section, []).append(int(entry[1], 16))
    return found


def calls(tree: Sysroot, ko: Path, wanted: re.Pattern[str]) -> list[Call]:
    """Each call of a function whose name is one of ``wanted``, in code of the module's own."""
    uses = uses_in(_ask(tree, ko, "objdump", "--reloc", f"{_OBJECTS}/{ko.name}"), wanted)
    known = _own_names_first(functions(tree, ko)) if uses else []
    found = []
    for section, offsets in uses.items():
        answer = lines_in(
            _ask(tree, ko, "addr2line", "--addresses", "--inlines", f"--section={section}",
                 f"--exe={_OBJECTS}/{ko.name}", *map(hex, offsets))
        )  # fmt: skip
        for offset in offsets:
            where = next(filter(_is_own, answer.get(offset, [])), None)
            holds = (
                one.name for one in known
                if one.section == section and one.value <= offset < one.value + one.size
            )  # fmt: skip
            name = next(holds, None)
            if where and name:
                found.append(Call(name, where))
    return found


def _own_names_first(known: Iterable[Symbol]) -> list[Symbol]:
    """Functions, those last that have a second name by which the kernel knows them."""
    return sorted(known, key=lambda one: one.name in ("init_module", "cleanup_module"))


def _is_own(line: str) -> bool:
    """Whether a line is the module's, and not of a header of the kernel's that is inlined there."""
    return not line.startswith(("include/", "arch/"))


def _ask(tree: Sysroot, ko: Path, *command: str) -> str:
    done = sandbox.run(
        tree.root, command, deadline=Deadline(SECONDS), read_only={_OBJECTS: ko.parent}
    )
    return done.stdout


def look_up(tree: Sysroot, ko: Path, wanted: Iterable[Place]) -> dict[Place, list[str]]:
    """The lines of each place in one object file, innermost first."""

    symbols = functions(tree, ko)
    by_section: dict[str, dict[Place, int]] = {}
    for place in wanted:
        symbol = choose(symbols, place)
        if symbol:
            address = symbol.value + place.address
            by_section.setdefault(symbol.section, {})[place] = address
    found = {}
    for section, addresses in by_section.items():
        answer = lines_in(
            _ask(tree, ko, "addr2line", "--addresses", "--inlines", f"--section={section}",
                 f"--exe={_OBJECTS}/{ko.name}", *(hex(address) for address in addresses.values()))
        )  # fmt: skip
        found.update({place: answer.get(address, []) for place, address in addresses.items()})
    return found


# A line of `objdump --disassemble`: an address, and what is there.
_INSTRUCTION = re.compile(r"^ *([0-9a-f]+):\t(\w+)", re.MULTILINE)
_ON_A_STACK = re.compile(r"^ 0x([0-9a-f]{16})\n(?: (do_one_initcall)\+)?", re.MULTILINE)


def returns_in(disassembly: str) -> list[int]:
    """Where the calls in a section return to, by what ``objdump --disassemble`` printed."""
    found = _INSTRUCTION.findall(disassembly)
    return [
        int(after, 16)
        for (_, instruction), (after, _) in itertools.pairwise(found)
        if instruction.startswith("call")
    ]


def find_sections(
    tree: Sysroot, ko: Path, stacks: Sequence[str], known: Iterable[Definition]
) -> dict[str, str]:
    """Where a module's code was that was gone before anybody could ask for it.

    Returns name to address, in hexadecimal, for ``.text`` and the section of init. They are found
    by two facts. A section that is the first of its kind begins at a page's boundary
    (layout_sections() in kernel/module/main.c). And a return address follows a call instruction.
    The section is put where the most addresses of ``stacks`` do.

    What do_one_initcall() calls is in the section of init_module(): ``.init.text``, or ``.text``
    where init is not marked __init; ``known`` says which. All else is most probably in ``.text``. A
    section for which two places fit equally well is left out.
    """
    at = (one.symbol.section for one in known if one.symbol.name == "init_module")
    init = next(at, ".init.text")
    wanted: dict[str, set[int]] = {".text": set(), init: set()}
    for stack in stacks:
        for address, caller in _ON_A_STACK.findall(f"{stack}\n"):
            wanted[init if caller else ".text"].add(int(address, 16))
    sections = {}
    for section, addresses in wanted.items():
        if not addresses:
            continue
        text = _ask(tree, ko, "objdump", "--disassemble", f"--section={section}",
                    "--no-show-raw-insn", f"{_OBJECTS}/{ko.name}")  # fmt: skip
        returns = returns_in(text)
        bases = Counter(
            address - one for address in addresses for one in returns
            if (address - one) % PAGE == 0
        )  # fmt: skip
        best = bases.most_common(2)
        if best and (len(best) == 1 or best[0][1] > best[1][1]):
            sections[section] = hex(best[0][0])
    return sections


_BARE = re.compile(r"(?<=\s)0x([0-9a-f]{16})$", re.MULTILINE)


def has_bare(text: str) -> bool:
    """Whether a report has return addresses without names."""
    return _BARE.search(text) is not None


def named(text: str, symbols: Sequence[Symbol], sections: Mapping[str, str], module: str) -> str:
    """A report with names for the return addresses in a module that is not loaded any more.

    ``sections`` says where each of its sections was, as in /sys/module/NAME/sections.
    """

    def name(match: re.Match[str]) -> str:
        address = int(match[1], 16)
        for symbol in symbols:
            start = int(sections.get(symbol.section, "0"), 16) + symbol.value
            # After a call that does not return the function may be at its end.
            if symbol.section in sections and start < address <= start + symbol.size:
                return f"{symbol.name}+{address - start:#x}/{symbol.size:#x} [{module}]"
        return match[0]

    return _BARE.sub(name, text)


def explain(problems: Sequence[Problem], module: Module) -> list[Problem]:
    """The problems with file:line for what is in ``module``, in the report and in the title.

    A report that cannot be decoded stays as it is: it is the evidence, this a convenience.
    """
    lines = _lines_of((problem.detail for problem in problems), module)
    if not lines:
        return list(problems)
    return [
        replace(
            problem,
            detail=annotated(problem.detail, lines),
            location=problem.location or _location(problem, lines),
        )
        for problem in problems
    ]


def with_lines(text: str, module: Module) -> str:
    """A text that may have stacks in it, with file:line for the frames in ``module``."""
    return annotated(text, _lines_of([text], module))


def _lines_of(texts: Iterable[str], module: Module) -> dict[Place, list[str]]:
    named = {place for text in texts for _, place in places(text)}
    lines: dict[Place, list[str]] = {}
    for one in module.objects:
        wanted = {place for place in named if place.module == one.name}
        try:
            lines |= look_up(module.kernel.sysroot, one.ko, wanted) if wanted else {}
        except HarnessError as error:
            log.warning("the report has no lines of source: %s", error)
    return lines


def _location(problem: Problem, lines: Mapping[Place, Sequence[str]]) -> str | None:
    """The line of the guilty function: inlined code of others is not the module's own."""
    for _, place in places(problem.detail):
        own = [line for line in lines.get(place, ()) if not line.startswith(("include/", "arch/"))]
        if place.function.partition(".")[0] == problem.function and own:
            return own[0]
    return None
