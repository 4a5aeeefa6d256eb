# SPDX-License-Identifier: GPL-2.0-only
"""The page of results: one HTML file that needs neither a network nor a script. Pure.

It is read from a disk, so it may hold what a hostile module has printed. Jinja2 escapes all that
is filled in, and the page's own Content-Security-Policy lets no script run and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from harness.report import table
from harness.report.result import Case, Cell, Excerpt, KernelResult

# Of what a red test says, how many characters are shown. Its console is in a file.
_TEXT = 20_000
_SLOWEST = 10  # tests that are named with their time
_BAR = 1000  # the width of a bar, in units of its picture

# The texts of red tests: by kernel, and then by the test's name (report.junit.failures).
Texts = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class _Kernel:
    name: str
    release: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class _Mark:
    """A field of the grid. ``kind`` is p (passed), f (red), s (skipped), or n (not there)."""

    kind: str
    sign: str
    title: str = ""
    anchor: str = ""


_NONE = _Mark("n", "")


@dataclass(frozen=True)
class _Row:
    name: str
    marks: tuple[_Mark, ...]


@dataclass(frozen=True)
class _Group:
    name: str
    tests: tuple[_Row, ...]


@dataclass(frozen=True)
class _Source:
    """Lines of source: those ``before`` the one that is to ``blame``, and those ``after`` it."""

    place: str
    before: str
    blame: str
    after: str


@dataclass(frozen=True)
class _Failure:
    anchor: str
    kernel: str
    test: str
    why: str
    text: str
    again: str
    sources: tuple[_Source, ...]


@dataclass(frozen=True)
class _Span:
    """A bar: how many units of it are for making ready, and how many for tests."""

    label: str
    ready: int
    tests: int
    text: str


@dataclass(frozen=True)
class _Page:
    tally: str
    red: bool
    made: str
    about: str
    columns: tuple[str, ...]
    kernels: tuple[_Kernel, ...]
    reasons: tuple[str, ...]
    failures: tuple[_Failure, ...]
    rows: tuple[_Group, ...]
    spans: tuple[_Span, ...]


def html(
    results: Sequence[KernelResult], texts: Texts, *, now: float | None = None, about: str = ""
) -> str:
    """The page of ``results``, a column for each.

    ``texts`` are what the red tests say in full. ``now``: when it is made, in seconds since the
    epoch (default: this moment). ``about`` is a sentence on what it is of.
    """
    style = resources.files("harness.report").joinpath("page.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        page=_page(results, texts, time.time() if now is None else now, about),
        style=Markup(style),  # noqa: S704  # a file of this package
        style_hash=f"sha256-{digest}",
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = resources.files("harness.report").joinpath("page.html").read_text()
    return environment.from_string(text)


def prepare() -> None:
    """Do what is done once, before there is a page to write."""
    _template()


def _page(results: Sequence[KernelResult], texts: Texts, now: float, about: str) -> _Page:
    columns = table.columns(results)
    empty = Cell(False, "-")
    failures = tuple(_failures(results, texts))
    return _Page(
        tally=table.tally(results) if results else "no results",
        red=any(not result.green for result in results),
        made=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        about=about,
        columns=tuple(columns),
        kernels=tuple(
            _Kernel(one.kernel, one.release or "?",
                    tuple(one.cells.get(name, empty) for name in columns))
            for one in results
        ),
        reasons=tuple(table.reasons(results)),
        failures=failures,
        rows=tuple(_groups(results, failures)),
        spans=tuple(_spans(results)),
    )  # fmt: skip


def _is_red(case: Case) -> bool:
    return case.outcome in ("failed", "error")


def _failures(results: Sequence[KernelResult], texts: Texts) -> list[_Failure]:
    found: list[_Failure] = []
    for result in results:
        said = texts.get(result.kernel, {})
        for case in filter(_is_red, result.tests):
            text = said.get(case.name, "") or case.why or "(nothing was said)"
            if len(text) > _TEXT:
                text = f"{text[:_TEXT]}\n... ({len(text) - _TEXT} more characters)"
            function = case.name.rpartition("::")[2].partition("[")[0]
            again = ["pytest", "--kernel", result.kernel, "-k", function]
            if case.suite:
                again = ["invoke", "test-vm", "--kernel", result.kernel, "--filter", function,
                         "--suite", case.suite]  # fmt: skip
            found.append(
                _Failure(f"f{len(found)}", result.kernel, case.name, case.why, text,
                         shlex.join(again), tuple(map(_source, case.excerpts)))
            )  # fmt: skip
    return found


def _source(excerpt: Excerpt) -> _Source:
    last = excerpt.first + len(excerpt.lines) - 1
    before: list[str] = []
    blame = ""
    after: list[str] = []
    for number, line in enumerate(excerpt.lines, excerpt.first):
        sign = ">" if number == excerpt.line else " "  # for who sees no colours
        shown = f"{sign} {number:{len(str(last))}}  {line}\n"
        if number == excerpt.line:
            blame = shown
        else:
            (before if number < excerpt.line else after).append(shown)
    return _Source(excerpt.place, "".join(before), blame, "".join(after))


def _groups(results: Sequence[KernelResult], failures: Sequence[_Failure]) -> list[_Group]:
    """The grid, in the order of the tests; those of one file are together."""
    anchors = {(one.kernel, one.test): one.anchor for one in failures}
    cases = [{case.name: case for case in result.tests} for result in results]
    groups: dict[str, list[_Row]] = {}
    for name in dict.fromkeys(name for each in cases for name in each):
        file, _, test = name.partition("::")
        first = next(each[name] for each in cases if name in each)
        marks = tuple(
            _mark(each.get(name), anchors.get((result.kernel, name), ""))
            for result, each in zip(results, cases, strict=True)
        )
        group = f"{first.suite}: {file}" if first.suite else file
        groups.setdefault(group, []).append(_Row(test or name, marks))
    return [_Group(name, tuple(rows)) for name, rows in groups.items()]


def _mark(case: Case | None, anchor: str) -> _Mark:
    if case is None:
        return _NONE
    if _is_red(case):
        return _Mark("f", "✗", case.why, anchor)
    if case.outcome == "skipped":
        return _Mark("s", "–", case.why)  # noqa: RUF001  # a dash that is as wide as the others
    return _Mark("p", "✓")


def _spans(results: Sequence[KernelResult]) -> list[_Span]:
    whole = max((one.ready_s + one.tests_s for one in results), default=0.0)
    if not whole:
        return []

    def units(seconds: float) -> int:
        return round(seconds / whole * _BAR)

    spans = [
        _Span(one.kernel, units(one.ready_s), units(one.tests_s),
              f"{one.ready_s:.1f} s + {one.tests_s:.1f} s")
        for one in results if not one.left_out
    ]  # fmt: skip
    cases = [(case, result.kernel) for result in results for case in result.tests]
    slowest = sorted(cases, key=lambda each: each[0].seconds, reverse=True)[:_SLOWEST]
    return spans + [
        _Span(f"{case.name} on {kernel}", 0, units(case.seconds), f"{case.seconds:.1f} s")
        for case, kernel in slowest if case.seconds >= 0.05
    ]  # fmt: skip
