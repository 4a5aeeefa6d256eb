# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/result.py: from what pytest wrote to a table that says why a cell is red."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.report import result as report
from harness.report.result import Case, Cell, KernelResult

# As pytest 9 writes it with --junitxml: passed, failed, failed by the kernel, an error in a
# fixture, skipped, and one that failed and whose teardown failed too.
JUNIT = """\
<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest"
errors="1" failures="2" skipped="1" tests="6" time="18.4" hostname="here">
<testcase classname="tests.vm.contract.test_contract" name="test_node" time="1.25" />
<testcase classname="tests.vm.contract.test_contract" name="test_ps" time="0.5"><failure
message="AssertionError: assert 0 == 1&#10;  +  where">guest = &lt;Guest&gt;

    def test_ps(guest):
&gt;       assert ps() == 1
E       AssertionError: assert 0 == 1
E         +  where 0 = ps()

tests/vm/contract/test_contract.py:12: AssertionError</failure></testcase>
<testcase classname="tests.vm.module.test_write" name="test_a[1-2]" time="0.5"><failure
message="x">splat: WARNING in driver_write (5 times)
    [   11.29] ------------[ cut here ]------------</failure></testcase>
<testcase classname="tests.vm.module.test_trace" name="test_b" time="30"><error
message="failed on setup">in the guest, `exec perl -` did not end within 30 s</error></testcase>
<testcase classname="tests.vm.module.test_trace" name="test_c" time="0"><skipped
type="pytest.skip" message="no kmemleak">where</skipped></testcase>
<testcase classname="tests.vm.module.test_log" name="test_d" time="1"><failure
message="y">E   first</failure></testcase>
<testcase classname="tests.vm.module.test_log" name="test_d" time="1"><error
message="z">E   second</error></testcase>
</testsuite></testsuites>
"""


def result(kernel: str, status: int = 0, **cells: Cell) -> KernelResult:
    return KernelResult(kernel, f"6.1-{kernel}", "6.1-1", status, 1.5, 2.0, 3.0, cells)


OK = Cell(False, "ok")


def test_each_test_has_its_suite_its_outcome_and_a_line() -> None:
    """The line is the one that a person would look for."""
    assert report.tests_in(JUNIT) == [
        Case("test_contract::test_node", "contract", "passed", 1.25),
        Case("test_contract::test_ps", "contract", "failed", 0.5, "AssertionError: assert 0 == 1"),
        Case(
            "test_write::test_a[1-2]", "module", "failed", 0.5,
            "splat: WARNING in driver_write (5 times)",
        ),
        Case(
            "test_trace::test_b", "module", "error", 30.0,
            "in the guest, `exec perl -` did not end within 30 s",
        ),
        Case("test_trace::test_c", "module", "skipped", 0.0, "no kmemleak"),
        Case("test_log::test_d", "module", "failed", 1.0, "first"),
    ]  # fmt: skip


@pytest.mark.parametrize("between", ["", '</testcase><testcase classname="a.b" name="c">'])
@pytest.mark.parametrize("red", ["failure", "error"])
def test_what_is_red_counts_more_than_a_skip(red: str, between: str) -> None:
    """A test that skips, and the kernel's report while its fixtures end."""
    junit = f"""<testsuites><testsuite><testcase classname="a.b" name="c">
<skipped message="no kmemleak">where</skipped>{between}
<{red} message="x">splat: WARNING in driver_write</{red}></testcase></testsuite></testsuites>"""
    (case,) = report.tests_in(junit)
    assert case.outcome == {"failure": "failed"}.get(red, red)
    assert case.why == "splat: WARNING in driver_write"


@pytest.mark.parametrize("text", ["", "<testsuites>", "no XML"])
def test_what_is_no_junit_file_is_refused(text: str) -> None:
    """A pytest that was killed while it wrote leaves half a file."""
    with pytest.raises(ValueError, match="not a JUnit file"):
        report.tests_in(text)


def test_a_suite_is_a_cell() -> None:
    """Red says how many of how many, and why the first; skipped tests are never hidden."""
    tests = report.tests_in(JUNIT)
    cells = report.suite_cells(tests, ["contract", "module", "harness"])
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
    assert report.suite_cells(green, ["contract", "module"]) == {
        "contract": Cell(False, "1 ok"),
        "module": Cell(True, "0 ok, 1 skipped", "none ran"),
    }
    ran = Case("test_log::test_e", "module", "passed", 1.0)
    assert report.suite_cells([*green, ran], ["module"]) == {
        "module": Cell(False, "1 ok, 1 skipped"),
    }  # fmt: skip


def test_the_table_has_a_row_for_each_kernel_and_a_line_for_each_red_cell() -> None:
    """What was not run is a dash, and a kernel that did not get that far says why."""
    text = report.table(
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
    text = report.table([result("sid", 3, contract=Cell(False, "10 ok"))])
    assert text.splitlines()[-1] == "sid: pytest ended with status 3"


def test_a_result_is_read_back_as_it_was_written() -> None:
    """With every cell and every test."""
    tests = tuple(report.tests_in(JUNIT))
    whole = KernelResult(
        "sid", "7.2", "7.2-1", 1, 1.5, 2.0, 3.0, {"load": Cell(True, "red", "w")}, tests
    )
    assert report.from_json(report.to_json(whole)) == whole


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": {}, "tests": []}', '{"cells": 1}'])
def test_what_is_no_result_is_refused(text: str) -> None:
    """An older form, or half a file, is as good as none."""
    with pytest.raises(ValueError, match=r"not a result|Expecting value"):
        report.from_json(text)


def test_what_a_red_test_said_is_there_in_full() -> None:
    """By the names of ``tests_in``; of a failure and a failed teardown the first."""
    said = report.failures(JUNIT)
    red = [test for test in report.tests_in(JUNIT) if test.outcome in ("failed", "error")]
    assert list(said) == [test.name for test in red]
    assert said["test_contract::test_ps"].startswith("guest = <Guest>")
    assert said["test_log::test_d"] == "E   first"
    with pytest.raises(ValueError, match="not a JUnit file"):
        report.failures("<testsuites>")


def test_markdown_has_the_same_rows_and_shows_a_log_as_it_is() -> None:
    """Nothing that a kernel or a test says becomes a tag, a column or a link."""
    why = "test_a[1-2]: WARNING <TASK> a|b"
    page = report.markdown([result("trixie", 1, contract=Cell(True, "1 of 2 red", why))])
    head, line, row, *reasons = page.splitlines()
    assert head == "| kernel | release | boot | build | load | contract | warnings |"
    assert line == "|---|---|---|---|---|---|---|"
    assert row == "| trixie | 6.1-trixie | - | - | - | 1 of 2 red | - |"
    assert reasons == [
        "", r"- trixie: contract: test\_a\[1-2\]: WARNING \<TASK\> a\|b",
    ]  # fmt: skip


def test_a_kernel_that_was_left_out_is_named_and_not_red() -> None:
    """With the reason, as red ones are."""
    row = report.left_out("sid", "7.2", "7.2-1", "no time left")
    assert row.green
    assert "sid: boot: no time left" in report.table([row])
    assert report.from_json(report.to_json(row)) == row


def test_a_tally_counts_a_red_kernel_without_a_red_test_as_failed() -> None:
    """No line that a test runner's reader takes for green, unless all is."""
    tests = tuple(report.tests_in(JUNIT))
    assert report.tally([replace(result("a", 1), tests=tests)]) == "1 passed, 4 failed, 1 skipped"
    assert report.tally([result("a", 3), result("b")]) == "0 passed, 1 failed, 0 skipped"
    assert report.tally([report.left_out("c", "", "", "")]) == "0 passed, 0 failed, 1 skipped"
