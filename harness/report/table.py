# SPDX-License-Identifier: GPL-2.0-only
"""The table of several kernels: a row for each, for a terminal or as Markdown. Pure.

What a column shows is the cell of that name in ``KernelResult.cells``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.config import SUITES
from harness.errors import Status
from harness.report.result import RED, Case, Cell, KernelResult

OWN = "own"  # the column of tests that are in none of the suites, such as a module's own
# All columns, from left to right. The first ones are what it takes to test a module on a kernel,
# in that order. A suite's column is there only where that suite was run on one of the kernels.
COLUMNS = ("boot", "build", "load", *SUITES, OWN, "warnings")


def suite_cells(tests: Sequence[Case], suites: Iterable[str]) -> dict[str, Cell]:
    """A cell for each suite that was asked for and has tests; if all were skipped it is red.

    ``OWN`` is as a suite.
    """
    cells = {}
    for suite in suites:
        own = [test for test in tests if (test.suite or OWN) == suite]
        red = [test for test in own if test.outcome in RED]
        skipped = sum(test.outcome == "skipped" for test in own)
        also = f", {skipped} skipped" if skipped else ""
        if red:
            why = f"{red[0].name}: {red[0].why}" if red[0].why else red[0].name
            more = f" (and {len(red) - 1} more)" if len(red) > 1 else ""
            cells[suite] = Cell(True, f"{len(red)} of {len(own)} red{also}", f"{why}{more}")
        elif own:
            none = skipped == len(own)
            cells[suite] = Cell(none, f"{len(own) - skipped} ok{also}", "none ran" if none else "")
    return cells


def text(results: Sequence[KernelResult]) -> str:
    """A row for each kernel, and below it one line for each red cell."""
    rows, why = _rows_and_reasons(results)
    return "\n".join([columns_of(rows), *(["", *why] if why else [])])


def markdown(results: Sequence[KernelResult]) -> str:
    """The same table as GitHub and GitLab show it, the reasons as a list."""
    rows, why = _rows_and_reasons(results)
    head, *body = [f"| {' | '.join(escaped(text) for text in row)} |" for row in rows]
    lines = [head, "|---" * len(rows[0]) + "|", *body]
    return "\n".join([*lines, *(["", *(f"- {escaped(line)}" for line in why)] if why else [])])


def escaped(text: str) -> str:
    """A text as Markdown shows it unchanged: an oops has <TASK>, a test has [1-2] and __."""
    return re.sub(r"([\\`*_|<>\[\]~])", r"\\\1", text)


def tally(results: Iterable[KernelResult]) -> str:
    """How many tests, the way that test runners end.

    A red kernel counts as failed if no test of it is, one that was left out as skipped.
    """
    passed = failed = skipped = 0
    for result in results:
        outcomes = [test.outcome for test in result.tests]
        red = sum(outcome in RED for outcome in outcomes)
        passed += outcomes.count("passed")
        failed += red or (0 if result.green else 1)
        skipped += outcomes.count("skipped") + result.left_out
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def verdict(status: int) -> str:
    """The verdict by a task's status; "not known" if the host or the harness is to blame."""
    if status == Status.GREEN:
        return "green"
    return "red" if status == Status.RED else "not known"


def verdict_of(result: KernelResult) -> str:
    """One line: whether a kernel is green, and how many of its tests are."""
    word = "not run" if result.left_out else verdict(result.status)
    return f"{result.kernel}: {word}: {tally([result])}"


def columns(results: Sequence[KernelResult]) -> list[str]:
    """The names of the columns that these results need, from left to right."""
    return [
        name
        for name in COLUMNS
        if name not in (*SUITES, OWN) or any(name in result.cells for result in results)
    ]


def reasons(results: Sequence[KernelResult]) -> list[str]:
    """A line for each cell that says why it is as it is, and for each red kernel at least one."""
    found = []
    for result in results:
        own = [
            f"{result.kernel}: {name}: {result.cells[name].why}"
            for name in columns(results)
            if name in result.cells and result.cells[name].why
        ]
        if not own and not result.green:
            own = [f"{result.kernel}: pytest ended with status {result.status}"]
        found += own
    return found


def _rows_and_reasons(results: Sequence[KernelResult]) -> tuple[list[list[str]], list[str]]:
    names = columns(results)
    rows = [["kernel", "release", *names]]
    for result in results:
        cells = [result.cells.get(name) for name in names]
        rows.append([result.kernel, result.release or "?", *(c.text if c else "-" for c in cells)])
    return rows, reasons(results)


def columns_of(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, each column as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
