# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/relocations.py: one section's address leads to the others'."""

from __future__ import annotations

import re
import struct

import pytest

from harness.examine import relocations
from harness.examine.relocations import THIS_MODULE, Relocation

# Of readelf 2.44 for a module on Debian's 6.12, shortened.
READELF = """\
There are 80 section headers, starting at offset 0x8d5f8:

Section Headers:
  [Nr] Name              Type            Address          Off    Size   ES Flg Lk Inf Al
  [ 0]                   NULL            0000000000000000 000000 000000 00      0   0  0
  [ 1] .text             PROGBITS        0000000000000000 000040 000e28 00  AX  0   0 16
  [ 5] .init.text        PROGBITS        0000000000000000 000e78 00007b 00  AX  0   0 16
  [37] .data             PROGBITS        0000000000000100 002950 0004c0 00  WA  0   0 32
  [55] .gnu.linkonce.this_module PROGBITS        0000000000000000 003038 000500 00  WA  0   0 64
Key to Flags:
  W (write), A (alloc), X (execute)

Relocation section '.rela.text' at offset 0x4b0e8 contains 2 entries:
    Offset             Info             Type               Symbol's Value  Symbol's Name + Addend
0000000000000015  000000a400000004 R_X86_64_PLT32         0000000000000000 __fentry__ - 4
0000000000000023  0000001800000002 R_X86_64_PC32          0000000000000000 .data - 4

Relocation section '.rela.gnu.linkonce.this_module' at offset 0x4eec8 contains 1 entry:
    Offset             Info             Type               Symbol's Value  Symbol's Name + Addend
0000000000000138  000000a700000001 R_X86_64_64            0000000000000010 init_module + 0

Symbol table '.symtab' contains 207 entries:
   Num:    Value          Size Type    Bind   Vis      Ndx Name
     0: 0000000000000000     0 NOTYPE  LOCAL  DEFAULT  UND 
     1: 0000000000000000     0 SECTION LOCAL  DEFAULT    1 .text
    24: 0000000000000000     0 SECTION LOCAL  DEFAULT   37 .data
   164: 0000000000000000     0 NOTYPE  GLOBAL DEFAULT  UND __fentry__
   167: 0000000000000010   107 FUNC    GLOBAL DEFAULT    5 init_module
"""  # noqa: W291  # as it was printed


def test_what_names_the_module_itself_is_found() -> None:
    """A symbol stands for its section and its distance from there; the kernel's are left out."""
    assert relocations.relocations_in(READELF) == [
        Relocation(".text", 0x23, "R_X86_64_PC32", ".data", -4),
        Relocation(THIS_MODULE, 0x138, "R_X86_64_64", ".init.text", 0x10),
    ]


def test_an_older_readelf_is_read_too() -> None:
    """That of Debian 11 gives sections' symbols no name."""
    older = re.sub(r"(SECTION .*\d) \.\w+$", r"\1 ", READELF, flags=re.MULTILINE)
    assert older != READELF
    assert relocations.relocations_in(older) == relocations.relocations_in(READELF)


INIT, TEXT, DATA, THIS = (0xFFFFFFFFC0000000 + offset for offset in (0x9000, 0, 0x5100, 0x7000))


class Loaded:
    """A module's memory, as a kernel fills it in."""

    def __init__(self) -> None:
        self.bytes: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes | None:
        found = self.bytes.get(address)
        assert found is None or len(found) == size
        return found


@pytest.fixture
def loaded() -> Loaded:
    made = Loaded()
    made.bytes[THIS + 0x138] = struct.pack("<Q", INIT + 0x10)
    made.bytes[INIT + 0x30] = struct.pack("<i", TEXT + 0xBC0 - (1 << 64))
    made.bytes[TEXT + 0x23] = struct.pack("<i", DATA - 4 - (TEXT + 0x23))
    return made


WAYS = [
    Relocation(THIS_MODULE, 0x138, "R_X86_64_64", ".init.text", 0x10),
    Relocation(".init.text", 0x30, "R_X86_64_32S", ".text", 0xBC0),
    Relocation(".text", 0x23, "R_X86_64_PC32", ".data", -4),
]


def test_one_section_leads_to_the_next(loaded: Loaded) -> None:
    """By each way in which x86-64 writes an address."""
    assert relocations.sections(WAYS, {THIS_MODULE: THIS}, loaded.read) == {
        THIS_MODULE: hex(THIS),
        ".init.text": hex(INIT),
        ".text": hex(TEXT),
        ".data": hex(DATA),
    }


def test_code_that_was_patched_is_outvoted(loaded: Loaded) -> None:
    """The kernel writes calls anew where it has a better one."""
    others = [Relocation(".text", at, "R_X86_64_PC32", ".data", 8) for at in (0x40, 0x50)]
    loaded.bytes[TEXT + 0x40] = struct.pack("<i", DATA + 8 - (TEXT + 0x40))
    loaded.bytes[TEXT + 0x50] = b"\x0f\x1f\x44\x00"
    found = relocations.sections([*WAYS, *others], {THIS_MODULE: THIS}, loaded.read)
    assert found[".data"] == hex(DATA)


def test_what_cannot_be_told_is_left_out(loaded: Loaded) -> None:
    """Memory that is not there, and two places that say different things."""
    del loaded.bytes[INIT + 0x30]
    assert set(relocations.sections(WAYS, {THIS_MODULE: THIS}, loaded.read)) == {
        THIS_MODULE, ".init.text",
    }  # fmt: skip
    loaded.bytes[TEXT + 0x50] = b"\x0f\x1f\x44\x00"
    torn = [*WAYS, Relocation(".text", 0x50, "R_X86_64_PC32", ".data", 8)]
    assert set(relocations.sections(torn, {".text": TEXT}, loaded.read)) == {".text"}


def test_a_per_cpu_variable_is_nowhere() -> None:
    """Its address is a distance."""
    way = Relocation(".text", 0, "R_X86_64_32S", ".data..percpu", 0)
    found = relocations.sections([way], {".text": TEXT}, lambda _, size: b"\x01" * size)
    assert found == {".text": hex(TEXT)}
