# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/symbols.py: a report's addresses, what binutils prints, and the two together."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from harness.examine import symbols
from harness.examine.symbols import Definition, Place, Symbol
from harness.host.cache import Entry
from harness.host.debian import Sysroot
from tests.unit.growth import grows_with_length

if TYPE_CHECKING:
    from harness.build.module import Module

REPORT = """\
[    2.1] WARNING: CPU: 0 PID: 77 at /mnt/module/wee.c:42 wee_write+0x1c/0x90 [wee]
[    2.2] RIP: 0010:wee_write+0x1c/0x90 [wee]
[    2.3]  wee_write+0x1c/0x90 [wee]
[    2.4]  wee_ioctl+0x20/0x40 [wee 0123456789abcdef]
[    2.5]  vfs_write+0xf1/0x440
"""
HERE = Place("wee_write", 0x1C, 0x90, "wee", exact=True)
CALLER = Place("wee_ioctl", 0x20, 0x40, "wee")


def test_places_are_those_in_modules() -> None:
    """Functions of the kernel itself are left out; what follows a module's name is its build."""
    assert [place for _, place in symbols.places(REPORT)] == [HERE, HERE, HERE, CALLER]


@pytest.mark.parametrize("unit", ["a", "a.", "a+0x1", "a+0x1/0x2 [b", "a+0x1/0x2 [b " * 9])
def test_the_work_of_finding_places_grows_with_the_text(unit: str) -> None:
    """A word of any length is looked at once."""
    assert grows_with_length(symbols.places, lambda n: unit * n, 10_000)


def test_a_return_address_is_one_after_the_call() -> None:
    """The line of the call is wanted, not the next one; where the CPU was is exact."""
    assert HERE.address == 0x1C
    assert CALLER.address == 0x1F
    assert Place("f", 0, 4, "wee").address == 0


def test_lines_stand_behind_their_places() -> None:
    """What is not known stays as it was."""
    lines = {HERE: ["include/linux/list.h:9", "wee.c:42"]}
    shown = symbols.annotated(REPORT, lines).splitlines()
    assert shown[2].endswith("wee_write+0x1c/0x90 [wee] (include/linux/list.h:9 in wee.c:42)")
    assert shown[3:] == REPORT.splitlines()[3:]


def test_a_stack_that_a_test_shows_has_lines_as_a_report_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the modules that were built; what is said without a stack asks nobody for lines."""
    asked: list[str] = []

    def look_up(_: object, ko: str, wanted: set[Place]) -> dict[Place, list[str]]:
        asked.append(ko)
        return {place: ["wee.c:29"] for place in wanted}

    monkeypatch.setattr(symbols, "look_up", look_up)
    built = [SimpleNamespace(name=name, ko=f"{name}.ko") for name in ("wee", "woo")]
    module = cast("Module", SimpleNamespace(kernel=SimpleNamespace(sysroot=None), objects=built))
    shown = symbols.with_lines(
        "D\n[<0>] wee_write+0x1c/0x90 [wee]\n[<0>] other+0x1/0x2 [other]", module
    )
    assert shown.splitlines()[1] == "[<0>] wee_write+0x1c/0x90 [wee] (wee.c:29)"
    assert shown.endswith("other+0x1/0x2 [other]")
    assert symbols.with_lines("its mode is 0666", module) == "its mode is 0666"
    assert asked == ["wee.ko"]


NM = """\


Symbols from wee.ko:

Name                  Value           Class        Type         Size             Line  Section

__this_module       |0000000000000000|   D  |            OBJECT|0000000000000500|     |.gnu.linkonce
init_module         |0000000000000010|   T  |              FUNC|0000000000000055|     |.init.text
wee_write           |0000000000000040|   t  |              FUNC|0000000000000086|     |.text
wee_write           |0000000000000140|   t  |              FUNC|0000000000000016|     |.text
"""


def test_symbols_are_functions() -> None:
    """nm's columns: name, value, class, type, size, line, section."""
    found = symbols.symbols_in(NM)
    assert found[0] == Symbol("init_module", ".init.text", 0x10, 0x55)
    assert [one.value for one in found[1:]] == [0x40, 0x140]


@pytest.mark.parametrize(("size", "value"), [(0x90, 0x40), (0x20, 0x140), (0x10, None)])
def test_of_two_functions_with_one_name_the_size_decides(size: int, value: int | None) -> None:
    """kallsyms counts the padding behind a function as a part of it."""
    chosen = symbols.choose(symbols.symbols_in(NM), Place("wee_write", 4, size, "wee"))
    assert (chosen.value if chosen else None) == value


SECTIONS = {".text": "0xffffffffc0201000", ".init.text": "0xffffffffc0205000"}


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("0xffffffffc0201044", "wee_write+0x4/0x86 [wee]"),
        ("0xffffffffc0205065", "init_module+0x55/0x55 [wee]"),  # the last call does not return
        ("0xffffffffc0201040", None),  # nobody returns to a function's beginning
        ("0xffffffff81000044", None),
    ],
)
def test_addresses_in_an_unloaded_module_get_names(address: str, name: str | None) -> None:
    """By where its sections were; an object's own address, and others, stay."""
    head = "unreferenced object 0xffffffffc0201044 (size 64):\n  backtrace (crc 1):\n"
    text = f"{head}    __kmalloc+0x1/0x2\n    {address}\n"
    known = symbols.symbols_in(NM)
    found = symbols.named(text, known, SECTIONS, "wee")
    assert found == f"{head}    __kmalloc+0x1/0x2\n    {name or address}\n"


DEFINED = """\
late_cb             |0000000000000010|   t  |              FUNC|0000000000000010|     |.text\t/mnt/module/late.c:12
__pfx_late_cb       |0000000000000000|   t  |              FUNC|0000000000000010|     |.text
late_nb             |0000000000000880|   d  |            OBJECT|0000000000000018|     |.data\t/mnt/module/late.c:31
.LC0                |0000000000000000|   r  |            NOTYPE|                |     |.rodata.str1.1
late.c              |0000000000000000|   a  |              FILE|                |     |*ABS*
"""  # noqa: E501  # what nm prints

HEADERS = """\
Idx Name          Size      VMA               LMA               File off  Algn
  0 .text         0000077e  0000000000000000  0000000000000000  00000040  2**4
                  CONTENTS, ALLOC, LOAD, RELOC, READONLY, CODE
 18 .data         00000760  0000000000000140  0000000000000140  00001c00  2**5
                  CONTENTS, ALLOC, LOAD, RELOC, DATA
"""


@pytest.mark.parametrize(
    ("address", "name", "location"),
    [
        (0xFFFFFFFFC0246010, "late_cb", "late.c:12"),
        (0xFFFFFFFFC0246008, "__pfx_late_cb", None),
        (0xFFFFFFFFC024A880, "late_nb", "late.c:31"),
        (0xFFFFFFFFC024A897, "late_nb", "late.c:31"),
        (0xFFFFFFFFC024A898, None, None),
        (0xFFFFFFFFC0250000, None, None),
    ],
)
def test_an_address_in_an_unloaded_module_is_a_variable_or_a_function(
    address: int, name: str | None, location: str | None
) -> None:
    """The object file gives .data an address of its own, which does not count when it is loaded."""
    known = symbols.definitions_in(DEFINED, symbols.addresses_in(HEADERS))
    assert [one.symbol.name for one in known if one.is_function] == ["late_cb", "__pfx_late_cb"]
    sections = {".text": "0xffffffffc0246000", ".data": "0xffffffffc024a140"}
    found = symbols.defined_at(address, known, sections)
    assert (found and found.symbol.name, found and found.location) == (name, location)


def test_lines_are_relative_and_innermost_first() -> None:
    """Of each address: inlined code first; what has no line is left out."""
    answer = """\
0x000000000000005c
/usr/src/linux-headers-6.12-common/include/linux/list.h:195 (discriminator 3)
/mnt/module/sub/wee.c:42
0x0000000000000060
??:?
"""
    assert symbols.lines_in(answer) == {
        0x5C: ["include/linux/list.h:195", "sub/wee.c:42"],
        0x60: [],
    }


def test_where_calls_return_to_is_read_from_a_disassembly() -> None:
    """The instruction after each call, whatever the call is."""
    text = (
        "\nDisassembly of section .text:\n\n0000000000000000 <get>:\n"
        "   0:\tcall   5 <get+0x5>\n   5:\tmov    %rax,%rbx\n   8:\tcall   *%rax\n"
        "   a:\tret\n"
    )
    assert symbols.returns_in(text) == [5, 10]


# A section as objdump prints it: a call that returns to 0xe, and another one to 0x2a.
DISASSEMBLED = """\
0000000000000000 <wee>:
       0:\tendbr64
       9:\tcall   e <wee+0xe>
       e:\ttest   %rax,%rax
      25:\tcall   2a <wee+0x2a>
      2a:\tret
"""


@pytest.mark.parametrize(
    ("init", "stack", "base"),
    [
        pytest.param(".init.text", " 0xffffffffc020000e\n do_one_initcall+0x58/0x310\n",
                     ("0xffffffffc0200000", ".init.text"), id="init"),
        pytest.param(".text", " 0xffffffffc020000e\n do_one_initcall+0x58/0x310\n",
                     ("0xffffffffc0200000", ".text"), id="init that is not __init"),
        pytest.param(".init.text", " 0xffffffffc030002a\n vfs_write+0x58/0x310\n",
                     ("0xffffffffc0300000", ".text"), id="another function"),
    ],
)  # fmt: skip
def test_the_code_of_a_module_that_is_gone_is_where_its_calls_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, init: str, stack: str, base: tuple[str, str]
) -> None:
    """One whose init has failed was never there to be asked."""
    monkeypatch.setattr(symbols, "_ask", lambda *_: DISASSEMBLED)
    tree = Sysroot(tmp_path, Entry("sysroot", "", "", tmp_path))
    known = [Definition(Symbol("init_module", init, 0, 0x40), None, is_function=True)]
    found = symbols.find_sections(
        tree, tmp_path / "wee.ko", [f" __kmalloc+0x1/0x2\n{stack}"], known
    )
    assert found == {base[1]: base[0]}


RELOCATIONS = """\

/mnt/objects/wee.ko:     file format elf64-x86-64

RELOCATION RECORDS FOR [.text]:
OFFSET           TYPE              VALUE
0000000000000005 R_X86_64_PLT32    __fentry__-0x0000000000000004
0000000000000031 R_X86_64_PLT32    alloc_chrdev_region-0x0000000000000004


RELOCATION RECORDS FOR [.init.text]:
OFFSET           TYPE              VALUE
000000000000001a R_X86_64_PLT32    alloc_chrdev_region-0x0000000000000004
0000000000000020 R_X86_64_32S      .rodata.str1.1+0x0000000000000010
0000000000000044 R_X86_64_PLT32    unregister_chrdev_region-0x0000000000000004
"""


def test_where_a_module_uses_a_function_is_read_from_its_relocations() -> None:
    """Of each section, and only names that are meant in full."""
    used = symbols.uses_in(RELOCATIONS, re.compile("alloc_chrdev_region|chrdev_region"))
    assert used == {".text": [0x31], ".init.text": [0x1A]}


def test_a_call_has_the_function_and_the_line_that_the_source_gives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a header has inlined there is not the module's line, and init has a second name."""
    nm = "".join(
        f"{name}|{value:016x}|   T  |FUNC|{size:016x}|     |{section}\n"
        for name, value, size, section in [
            ("init_module", 0x10, 0x40, ".init.text"), ("wee_init", 0x10, 0x40, ".init.text"),
            ("wee_open", 0x10, 0x40, ".text"), ("other", 0x60, 0x40, ".text"),
        ]
    )  # fmt: skip
    said = {
        "nm": nm,
        "objdump": RELOCATIONS,
        ".text": "0x0000000000000031\n??:?\n",
        ".init.text": "0x000000000000001a\n./include/linux/fs.h:9\n/mnt/module/wee.c:40\n",
    }

    def ask(_: object, __: object, *command: str) -> str:
        sections = [each.partition("=")[2] for each in command if each.startswith("--section=")]
        return said[sections[0] if sections else command[0]]

    monkeypatch.setattr(symbols, "_ask", ask)
    found = symbols.calls(cast(Sysroot, None), Path("wee.ko"), re.compile("alloc_chrdev_region"))
    assert found == [symbols.Call("wee_init", "wee.c:40")]
