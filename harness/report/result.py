# SPDX-License-Identifier: GPL-2.0-only
"""What a run found, kernel by kernel: from plain data to a table, to JSON and back. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from xml.etree import ElementTree

# The columns of the table: what it takes to test a module on a kernel, in that order. The
# suites of tests have a column each where they were run.
BEFORE = ("boot", "build", "load")
SUITES = ("contract", "module", "harness")
AFTER = ("warnings",)


@dataclass(frozen=True)
class Cell:
    """How one of these went: ``text`` is what the table shows, ``why`` one line for red."""

    red: bool
    text: str
    why: str = ""


@dataclass(frozen=True)
class Case:
    """One test. ``outcome`` is passed, failed, error or skipped; ``why`` is its first line."""

    name: str
    suite: str
    outcome: str
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class KernelResult:
    """What a run found on one kernel.

    ``status`` is the exit status that this kernel alone would have given, ``finished`` in
    seconds since the epoch, ``ready_s`` and ``tests_s`` how long it took to have the kernel
    ready and to run the tests. ``cells`` are by the names of the columns.
    """

    kernel: str
    release: str
    version: str
    status: int
    finished: float
    ready_s: float
    tests_s: float
    cells: Mapping[str, Cell]
    tests: tuple[Case, ...] = field(default=())
    left_out: bool = False  # no time was left for it: nothing is known, neither green nor red

    @property
    def green(self) -> bool:
        return self.status == 0


def tests_in(junit: str) -> list[Case]:
    """The tests in a JUnit file as pytest writes it; raises ``ValueError`` for another text."""
    root = _root(junit)
    found: dict[tuple[str, str], Case] = {}
    for case in root.iter("testcase"):
        module, name = case.get("classname", ""), case.get("name", "")
        outcome, why = "passed", ""
        # A test that skips and whose teardown fails has both: what is red counts.
        for child in sorted(case, key=lambda child: child.tag == "skipped"):
            if child.tag in ("failure", "error", "skipped"):
                outcome = {"failure": "failed"}.get(child.tag, child.tag)
                text = child.text or child.get("message") or ""
                why = first_line((child.get("message") or "") if outcome == "skipped" else text)
                break
        suite = next((part for part in SUITES if part in module.split(".")), "")
        test = Case(f"{module.rpartition('.')[2]}::{name}", suite, outcome,
                    float(case.get("time", "0")), why)  # fmt: skip
        # A test that failed and whose teardown failed too is there twice.
        before = found.get((module, name))
        if before is None or before.outcome in ("passed", "skipped"):
            found[module, name] = test
    return list(found.values())


def _root(junit: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(junit)  # noqa: S314  # our own pytest's, not a stranger's
    except ElementTree.ParseError as error:
        raise ValueError(f"not a JUnit file: {error}") from error


def failures(junit: str) -> dict[str, str]:
    """What each red test of a JUnit file says in full, by the names that ``tests_in`` gives."""
    found: dict[str, str] = {}
    for case in _root(junit).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
        for child in case:
            if child.tag in ("failure", "error"):
                found.setdefault(name, child.text or child.get("message") or "")
    return found


def first_line(text: str) -> str:
    """The line of an explanation that says most: pytest's own begins with E."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return next(iter(marked or lines), "")


def suite_cells(tests: Iterable[Case], suites: Sequence[str]) -> dict[str, Cell]:
    """A cell for each suite that was asked for and has tests; if all were skipped it is red."""
    cells = {}
    for suite in suites:
        own = [test for test in tests if test.suite == suite]
        red = [test for test in own if test.outcome in ("failed", "error")]
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


def table(results: Sequence[KernelResult]) -> str:
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
        red = sum(outcome in ("failed", "error") for outcome in outcomes)
        passed += outcomes.count("passed")
        failed += red or (0 if result.green else 1)
        skipped += outcomes.count("skipped") + result.left_out
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def left_out(kernel: str, release: str, version: str, why: str) -> KernelResult:
    """The row of a kernel that was not tested, and is neither green nor red for it."""
    cells = {BEFORE[0]: Cell(False, "not run", why)}
    return KernelResult(kernel, release, version, 0, 0.0, 0.0, 0.0, cells, left_out=True)


def _rows_and_reasons(results: Sequence[KernelResult]) -> tuple[list[list[str]], list[str]]:
    asked = [name for name in SUITES if any(name in result.cells for result in results)]
    columns = [*BEFORE, *asked, *AFTER]
    rows = [["kernel", "release", *columns]]
    why = []
    for result in results:
        cells = [result.cells.get(name) for name in columns]
        rows.append([result.kernel, result.release or "?", *(c.text if c else "-" for c in cells)])
        reasons = [
            f"{result.kernel}: {name}: {cell.why}"
            for name, cell in zip(columns, cells, strict=True)
            if cell and cell.why
        ]
        if not reasons and not result.green:
            reasons = [f"{result.kernel}: pytest ended with status {result.status}"]
        why += reasons
    return rows, why


def columns_of(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, each column as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def to_json(result: KernelResult) -> str:
    return json.dumps(asdict(result), indent=2) + "\n"


def from_json(text: str) -> KernelResult:
    """A result that ``to_json`` wrote; raises ``ValueError`` for anything else."""
    try:
        data = json.loads(text)
        data["cells"] = {name: Cell(**cell) for name, cell in data["cells"].items()}
        data["tests"] = tuple(Case(**test) for test in data["tests"])
        return KernelResult(**data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a result: {error}") from error
