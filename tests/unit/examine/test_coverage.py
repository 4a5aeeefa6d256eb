# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/coverage.py: from instructions to lines; binutils' answers are recorded."""

from __future__ import annotations

from harness.examine import coverage
from harness.examine.coverage import Source, Statement
from harness.examine.placement import CodeSection
from harness.examine.symbols import Definition, Symbol
from harness.qemu.counts import Counted
from harness.report.coverage import Function

# What objdump 2.44 of Debian 13 prints; older ones print the same columns.
TABLE = """\
CU: /mnt/module/mine.c:
File name                        Line number    Starting address    View    Stmt
mine.c                                    52          0x10000010               x
mine.c                                    53          0x10000019               x
mine.c                                    53          0x10000019       1       x
mine.c                                    52          0x10000019       2
a name with blanks.h                      53          0x1000001a
mine.c                                     -          0x10000057
"""
BASE = 0xFFFFFFFFC0201000
CODE = CodeSection(".text", bytes(range(64)), 16)


def source(*statements: Statement) -> Source:
    called = Definition(Symbol("mine.isra.0", ".text", 0, 8), "./mine.c:3")
    cold = Definition(Symbol("mine.cold", ".text", 8, 8), "mine.c:3")
    other = Definition(Symbol("inlined", ".text", 4, 8), "include/linux/other.h:3")
    return Source((CODE,), statements, (called, cold, other))


def ran(*offsets: int) -> list[Counted]:
    return [Counted(BASE + offset, CODE.code[offset : offset + 4], 2) for offset in offsets]


def test_the_rows_of_the_line_table() -> None:
    every, starts = coverage.rows_in(TABLE)
    assert every == [0x10000010, 0x10000019, 0x1000001A]
    assert starts == {52: [0x10000010], 53: [0x10000019]}


def test_an_instruction_is_of_the_statement_that_began_shortly_before() -> None:
    assert coverage.start_of(0x1A, [0x10, 0x19]) == 0x19
    assert coverage.start_of(0x19, [0x10, 0x19]) == 0x19


def test_an_instruction_that_was_moved_ahead_is_of_no_statement() -> None:
    """It runs whether its line does or not."""
    assert coverage.start_of(0x18, [0x19]) is None
    assert coverage.start_of(0x1000, [0x19]) is None


def test_a_line_ran_if_its_statement_began_and_went_on() -> None:
    known = source(
        Statement(".text", 0, 0, "mine.c", 3),
        Statement(".text", 4, 8, "mine.c", 4),
        Statement(".text", 12, 16, "mine.c", 5),
    )
    found = coverage.lines(known, ran(0, 4, 8, 12))
    assert found["mine.c"].lines == {3: 2, 4: 2, 5: 0}


def test_a_function_is_called_under_its_own_name() -> None:
    known = source(Statement(".text", 0, 0, "mine.c", 3))
    assert coverage.lines(known, ran(0, 4, 8))["mine.c"].functions == {"mine": Function(3, 2)}
    assert coverage.lines(known, ())["mine.c"].functions == {"mine": Function(3, 0)}
