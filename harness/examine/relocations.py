# SPDX-License-Identifier: GPL-2.0-only
"""Where a module's sections are, by what the module's own memory says.

A debugger has to know the address of each section before the module's first instruction runs, and
of a machine that stands nobody can ask. The kernel has put addresses into the module wherever its
file has a relocation: a place in one section names a place in another. So one section whose address
is known leads to the next, until all are known that can be reached.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.host import sandbox
from harness.host.proc import Deadline

_SECONDS = 60.0
_ASKED = 8  # places that are looked at for one section: code that is patched may hold others

THIS_MODULE = ".gnu.linkonce.this_module"  # the section that is the kernel's struct module
# Where a struct module has its name: behind its state and the links of a list (linux/module.h).
NAME_OFFSET = 24

# A per-CPU variable is somewhere else on each CPU, and its section nowhere in the module's memory.
_NOT_IN_MEMORY = (".data..percpu", ".percpu")

# How many bytes a relocation of x86-64 writes, whether they are a signed number, and whether that
# is counted from where it is (System V ABI, AMD64 supplement, 4.4.1).
_KINDS = {
    "R_X86_64_64": (8, False, False),
    "R_X86_64_PC32": (4, True, True),
    "R_X86_64_PLT32": (4, True, True),
    "R_X86_64_32S": (4, True, False),
    "R_X86_64_PC64": (8, True, True),
}
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Relocation:
    """At ``offset`` of ``section`` the kernel writes where ``addend`` bytes from the beginning of
    ``target`` are, in the way of ``kind``.
    """

    section: str
    offset: int
    kind: str
    target: str
    addend: int

    @property
    def size(self) -> int:
        return _KINDS[self.kind][0]

    def base(self, written: bytes, place: int) -> int:
        """Where ``target`` begins, by what was ``written`` at the address ``place``."""
        _, signed, relative = _KINDS[self.kind]
        value = int.from_bytes(written, "little", signed=signed)
        return (value - self.addend + (place if relative else 0)) & _MASK


_SECTION = re.compile(r"^ *\[ *(\d+)\] (\S+) +\S+ +[0-9a-f]{16} ", re.MULTILINE)
# Number, value, size, type, binding, visibility, and in which section. Of a symbol that stands for
# a section, readelf before 2.36 prints no name.
_SYMBOL = re.compile(r"^ *(\d+): ([0-9a-f]{16})(?: +\S+){4} +(\d+)\b", re.MULTILINE)
_TABLE = re.compile(r"^Relocation section '\.rela?(\S+)' at ")
_ENTRY = re.compile(r"^([0-9a-f]{16})  ([0-9a-f]{16}) (R_X86_64_\w+) .* ([+-]) ([0-9a-f]+)$")


def relocations_in(text: str) -> list[Relocation]:
    """What ``readelf --wide --sections --symbols --relocs`` printed (readelf(1)).

    Only those that name something in the module itself.
    """
    sections = {int(number): name for number, name in _SECTION.findall(text)}
    symbols = {
        int(number): (sections.get(int(index), ""), int(value, 16))
        for number, value, index in _SYMBOL.findall(text)
    }
    found, section = [], ""
    for line in text.splitlines():
        if table := _TABLE.match(line):
            section = table[1]
        elif (entry := _ENTRY.match(line)) and entry[3] in _KINDS:
            # The symbol's number is in the upper half of the second column (ELF64_R_SYM).
            target, value = symbols.get(int(entry[2], 16) >> 32, ("", 0))
            added = int(entry[5], 16) * (-1 if entry[4] == "-" else 1)
            if target and section:
                offset = int(entry[1], 16)
                found.append(Relocation(section, offset, entry[3], target, value + added))
    return found


def relocations(sysroot: Path, ko: Path) -> list[Relocation]:
    """The relocations of a module's file, by the readelf of ``sysroot``."""
    done = sandbox.run(
        sysroot,
        ["readelf", "--wide", "--sections", "--symbols", "--relocs", "/mnt/in/module"],
        deadline=Deadline(_SECONDS),
        read_only={"/mnt/in/module": ko},
    )
    return relocations_in(done.stdout)


def sections(
    found: Iterable[Relocation],
    known: Mapping[str, int],
    read: Callable[[int, int], bytes | None],
) -> dict[str, str]:
    """The addresses (0x...) of all sections that can be reached from those that are ``known``.

    ``read`` takes a virtual address and a number of bytes, and returns None where nothing is.
    """
    between: dict[str, dict[str, list[Relocation]]] = {}
    for one in found:
        if one.target not in _NOT_IN_MEMORY:
            between.setdefault(one.section, {}).setdefault(one.target, []).append(one)
    places = dict(known)
    todo = list(known)
    while todo:
        section = todo.pop()
        for target, ways in between.get(section, {}).items():
            if target in places:
                continue
            bases: Counter[int] = Counter()
            for one in ways[:_ASKED]:
                written = read(places[section] + one.offset, one.size)
                if written is not None:
                    bases[one.base(written, places[section] + one.offset)] += 1
            best = bases.most_common(2)
            if best and (len(best) == 1 or best[0][1] > best[1][1]):
                places[target] = best[0][0]
                todo.append(target)
    return {name: hex(address) for name, address in places.items()}
