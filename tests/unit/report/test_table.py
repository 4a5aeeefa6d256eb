# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/table.py: a table that says why a cell is red."""

from __future__ import annotations

from dataclasses import replace

from harness import config
from harness.report import table
from harness.report.junit import cases_in
from harness.report.result import Case, Cell, KernelResult, left_out
from harness.runs.ready import Stage

from .test_junit import JUNIT


def result(kernel: str, status: int = 0, **cells: Cell) -> KernelResult:
    return KernelResult(kernel, f"6.1-{kernel}", "6.1-1", status, 1.5, 2.0, 3.0, cells)


OK = Cell(False, "ok")


OK = Cell(False, "ok")


def test_a_suite_is_a_cell() -> None:
    """Red says how many of how many, and why the first; skipped tests are never hidden."""
    tests = cases_in(JUNIT)
    cells = table.suite_cells(tests, ["contract", "module", "harness"])
    assert cells == {
        "contract": Cell(
            True, "1 of 2 red", "test_contract::test_ps: AssertionError: assert 0 == 1"
        ),
        "module": Cell(
            True, "3 of 4 red, 1 skipped",
            "test_write::test_a[1-2]: splat: WARNING in driver_write (5 times) (and 2 more)",
        ),
    }  # fmt: skip
    green = [test for test in tests if test.outcome in ("passed", "skipped")]
    assert table.suite_cells(green, ["contract", "module"]) == {
        "contract": Cell(False, "1 ok"),
        "module": Cell(True, "0 ok, 1 skipped", "none ran"),
    }
    ran = Case("test_log::test_e", "module", "passed", 1.0)
    assert table.suite_cells([*green, ran], ["module"]) == {
        "module": Cell(False, "1 ok, 1 skipped"),
    }  # fmt: skip


def test_the_table_has_a_row_for_each_kernel_and_a_line_for_each_red_cell() -> None:
    """What was not run is a dash, and a kernel that did not get that far says why."""
    text = table.text(
        [
            result("bullseye", boot=OK, build=OK, load=OK, contract=Cell(False, "10 ok"),
                   warnings=Cell(False, "0")),
            result("sid", 1, boot=OK, build=Cell(True, "red", "waitqueues.c:1: error: x")),
            KernelResult("next", "", "", 3, 1.5, 0.0, 0.0,
                         {"boot": Cell(True, "red", "no mirror")}),
        ]
    )  # fmt: skip
    assert text.splitlines() == [
        "kernel    release       boot  build  load  contract  warnings",
        "bullseye  6.1-bullseye  ok    ok     ok    10 ok     0",
        "sid       6.1-sid       ok    red    -     -         -",
        "next      ?             red   -      -     -         -",
        "",
        "sid: build: waitqueues.c:1: error: x",
        "next: boot: no mirror",
    ]


def test_a_red_kernel_without_a_red_cell_is_still_explained() -> None:
    """pytest can end badly when all of its tests were green."""
    text = table.text([result("sid", 3, contract=Cell(False, "10 ok"))])
    assert text.splitlines()[-1] == "sid: pytest ended with status 3"


def test_markdown_has_the_same_rows_and_shows_a_log_as_it_is() -> None:
    """Nothing that a kernel or a test says becomes a tag, a column or a link."""
    why = "test_a[1-2]: WARNING <TASK> a|b"
    page = table.markdown([result("trixie", 1, contract=Cell(True, "1 of 2 red", why))])
    head, line, row, *reasons = page.splitlines()
    assert head == "| kernel | release | boot | build | load | contract | warnings |"
    assert line == "|---|---|---|---|---|---|---|"
    assert row == "| trixie | 6.1-trixie | - | - | - | 1 of 2 red | - |"
    assert reasons == [
        "", r"- trixie: contract: test\_a\[1-2\]: WARNING \<TASK\> a\|b",
    ]  # fmt: skip


def test_a_kernel_that_was_left_out_is_named() -> None:
    """With the reason, as red ones are."""
    row = left_out("sid", "7.2", "7.2-1", "no time left")
    assert "sid: boot: no time left" in table.text([row])


def test_a_tally_counts_a_red_kernel_without_a_red_test_as_failed() -> None:
    """No line that a test runner's reader takes for green, unless all is."""
    tests = tuple(cases_in(JUNIT))
    assert table.tally([replace(result("a", 1), tests=tests)]) == "1 passed, 4 failed, 1 skipped"
    assert table.tally([result("a", 3), result("b")]) == "0 passed, 1 failed, 0 skipped"
    assert table.tally([left_out("c", "", "", "")]) == "0 passed, 0 failed, 1 skipped"


def test_each_step_and_each_suite_has_a_column() -> None:
    """A cell of another name would be shown nowhere."""
    assert {stage.column for stage in Stage} | set(config.SUITES) <= set(table.COLUMNS)
