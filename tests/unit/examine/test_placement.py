# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/placement.py: where a module was, told from the instructions that ran there."""

from __future__ import annotations

import pytest

from harness.config import PROJECT
from harness.errors import InputError
from harness.examine import placement
from harness.examine.placement import CodeSection
from harness.qemu.counts import Counted

BASE = 0xFFFFFFFFC0201000
TEXT = CodeSection(".text", bytes(range(64)), 16, frozenset(range(20, 24)))
EXIT = CodeSection(".exit.text", bytes(range(100, 130)), 16)
INIT = CodeSection(".init.text", bytes(range(200, 240)), 16)
ALL = (TEXT, INIT, EXIT)


def run(base: int, section: CodeSection, *offsets: int, count: int = 1) -> list[Counted]:
    """Instructions of four bytes each."""
    return [Counted(base + offset, section.code[offset : offset + 4], count) for offset in offsets]


def test_code_is_found_by_its_bytes() -> None:
    ran = run(BASE, TEXT, 0, 4, 8, 12, count=3)
    assert placement.counts(ALL, ran) == {(".text", offset): 3 for offset in (0, 4, 8, 12)}


def test_a_section_is_where_the_kernel_puts_it_behind_another() -> None:
    ran = run(BASE, TEXT, 0, 4, 8, 12) + run(BASE + 64, EXIT, 0)
    assert placement.counts(ALL, ran)[".exit.text", 0] == 1


def test_what_the_kernel_changes_may_be_anything() -> None:
    ran = [*run(BASE, TEXT, 0, 4, 8, 12), Counted(BASE + 20, b"\xff\xff\xff\xff", 1)]
    assert placement.counts(ALL, ran)[".text", 20] == 1


def test_init_is_placed_for_itself() -> None:
    ran = run(BASE, TEXT, 0, 4, 8, 12) + run(BASE + 0x70000, INIT, 0, 4, 8, 12)
    assert placement.counts(ALL, ran)[".init.text", 4] == 1


def test_other_code_at_another_place_counts_for_nothing() -> None:
    ran = [Counted(BASE + 4 * index, b"\x90\x90\x90\x90", 1) for index in range(100)]
    assert placement.counts(ALL, ran) == {}


def test_other_code_that_has_a_little_in_common_is_another() -> None:
    common = run(BASE, TEXT, 0, 4, 8)
    other = [Counted(BASE + 32 + 4 * index, b"\x90\x90\x90\x90", 1) for index in range(8)]
    assert placement.counts(ALL, common + other) == {}


def test_a_short_function_that_is_all_that_ran() -> None:
    """Such as the exit of a module that has nothing to undo, which ran and nothing else of it."""
    assert placement.counts(ALL, run(BASE + 64, EXIT, 0, 4, 8))[".exit.text", 8] == 1


def test_a_short_function_that_is_like_one_of_another_module() -> None:
    """That one has run more, in the same page."""
    ran = [*run(BASE + 64, EXIT, 0, 4), Counted(BASE + 0x800, b"\x90\x90\x90\x90", 1)]
    assert placement.counts(ALL, ran) == {}
    assert placement.counts(ALL, run(BASE + 64, EXIT, 0)) == {}


def test_a_module_that_was_loaded_at_two_places_ran_at_both() -> None:
    ran = run(BASE, TEXT, 0, 4, 8, 12) + run(BASE + 0x5000, TEXT, 0, 4, 8, 12)
    assert placement.counts(ALL, ran)[".text", 8] == 2


@pytest.mark.parametrize("content", [b"", b"\x7fELF", bytes(100), b"\x7fELF\x02\x01" + bytes(58)])
def test_what_is_no_module_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        placement.code_sections(content)


def test_the_plugin_counts_where_modules_are() -> None:
    """The numbers of vm/coverage.c, which nothing else checks."""
    source = (PROJECT / "vm" / "coverage.c").read_text()
    assert "#define ENTRIES (1 << 20)" in source
    assert "#define BYTES 15" in source
