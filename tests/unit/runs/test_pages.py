# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/pages.py: which results are on the page, and where their words come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.commands import report
from harness.errors import HostError, InputError
from harness.report import coverage
from harness.report.result import Case, Cell, KernelResult
from harness.runs import covered, pages, store

JUNIT = """<testsuites><testsuite><testcase classname="tests.vm.contract.test_a" name="test_b">
<failure message="m">the whole text</failure></testcase></testsuite></testsuites>"""
RED = KernelResult(
    "trixie", "6.12", "6.12-1", 1, 1e9, 1.0, 2.0, {"contract": Cell(True, "1 of 1 red")},
    (Case("test_a::test_b", "contract", "failed", 0.1, "why"),),
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("results")


def write(result: KernelResult, *, whole: bool, junit: str = JUNIT) -> None:
    with store.begin(result.kernel, whole=whole) as run:
        run.junit.write_text(junit)
        store.write(run, result, whole=whole)


@pytest.mark.parametrize("whole", [True, False])
def test_a_red_tests_words_are_those_of_its_own_run(results: Path, whole: bool) -> None:
    """A result of all tests and one of some have a JUnit file each."""
    write(replace(RED, finished=5.0), whole=not whole, junit=JUNIT.replace("whole text", "other"))
    write(RED, whole=whole)
    page = pages.write([RED]).read_text()
    assert "the whole text" in page
    assert "the other" not in page
    assert (results / "summary.md").read_text().startswith("| kernel | release |")


def test_what_ran_in_the_last_runs_is_on_the_page(results: Path) -> None:
    """The sum of those kernels of which it is known."""
    write(RED, whole=True)
    write(replace(RED, kernel="sid"), whole=True)
    write(replace(RED, kernel="bookworm"), whole=True)
    for kernel, lines in (("trixie", {1: 1, 2: 0, 3: 0}), ("sid", {1: 1, 2: 1, 3: 0})):
        covered.write_total(results / kernel / "latest", {"mine.c": coverage.File(lines)}, "")
    assert "2 of 3 lines" in pages.write(pages.newest(results)).read_text()


def test_the_history_is_of_one_module(results: Path) -> None:
    """How long another one's runs have taken says nothing of it."""
    other = replace(RED, given=("--module=/home/ada/notes",))
    for number, one in enumerate((RED, other, RED, other, RED)):
        write(replace(one, finished=float(number)), whole=True)
    assert "3 runs: 0 green, 3 red" in pages.write([RED]).read_text()
    assert "2 runs: 0 green, 2 red" in pages.write([other]).read_text()


def test_the_newest_result_of_each_kernel_is_shown(results: Path) -> None:
    """Whether it is of all tests or of some; what is no result is passed over."""
    write(RED, whole=True)
    newer = replace(RED, finished=RED.finished + 1, status=0)
    write(newer, whole=False)
    write(replace(RED, kernel="sid"), whole=True)
    (results / "bookworm").mkdir()
    (results / "bookworm" / "report.json").write_text('{"half": ')
    assert pages.newest(results) == [replace(RED, kernel="sid"), newer]


def test_a_page_that_cannot_be_written_is_the_hosts_fault(results: Path) -> None:
    """As a full disk is; here a folder is in its place."""
    (results / "index.html").mkdir()
    with pytest.raises(HostError, match="page of results"):
        pages.write([RED])


def test_no_results_are_bad_input(results: Path) -> None:
    """What is there instead is said, and what makes some."""
    for folder in (None, results / "missing"):
        with pytest.raises(InputError, match="no kernel has a result") as caught:
            report.run(folder)
        assert "invoke test-vm" in str(caught.value)
