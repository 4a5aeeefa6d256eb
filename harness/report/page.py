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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from harness.report import history, plot, table
from harness.report.coverage import Coverage
from harness.report.history import Flaky, Past
from harness.report.result import RED, Case, Cell, Excerpt, KernelResult

# Of what a red test says, how many characters are shown. Its console is in a file.
_TEXT = 20_000
_SLOWEST = 10  # tests that are named with their time
_SHORT = 0.05  # seconds that are not worth a word
# Steps of getting ready that are shown: the longest, of at least so many seconds.
_STEPS = 12
_STEP = 0.5
_OWN = "module/"  # what is tested where nothing else was asked for
_BAR = 1000  # the width of a bar, in units of its picture
# Tests that are laid out together, and how high a row of them is, in rem.
_TOGETHER = 100
_ROW = 1.9

# The texts of red tests: by kernel, and then by the test's name (report.junit.failures).
Texts = Mapping[str, Mapping[str, str]]
# What is remembered of earlier runs, by kernel; those that ended first at the beginning.
History = Mapping[str, Sequence[Past]]


@dataclass(frozen=True)
class Reload:
    """How often a browser loads the page again by itself; not at all while it is held."""

    seconds: int
    held: bool = False


@dataclass(frozen=True)
class _Kernel:
    name: str
    release: str
    given: str  # what was tested there
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
    left: tuple[str, ...]
    flaky: str


@dataclass(frozen=True)
class _Bar:
    """Pieces of a line of the timeline that are of one kind, as a path of SVG."""

    kind: str  # a class of page.css
    path: str


@dataclass(frozen=True)
class _Span:
    """A line of the timeline. One that is ``part`` of another stands below that."""

    label: str
    text: str
    bars: tuple[_Bar, ...]
    part: bool = False


@dataclass(frozen=True)
class _Past:
    """A kernel's earlier runs: their picture, what it shows, and a line for each flaky test."""

    kernel: str
    picture: Markup
    summary: str
    flaky: tuple[str, ...]


@dataclass(frozen=True)
class _Covered:
    """A source file: how much of it ran, in words, and as units of a bar; what did not."""

    name: str
    text: str
    run: int
    missed: str
    never_called: str


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
    past: tuple[_Past, ...]
    covered: tuple[_Covered, ...]


def html(
    results: Sequence[KernelResult],
    texts: Texts,
    *,
    now: float | None = None,
    about: str = "",
    past: History | None = None,
    running: Mapping[str, Sequence[str]] | None = None,
    reload: Reload | None = None,
    notes: Sequence[str] = (),
    coverage: Coverage | None = None,
) -> str:
    """The page of ``results``, a column for each.

    ``texts`` are what the red tests say in full. ``now``: when it is made, in seconds since the
    epoch (default: this moment). ``about`` is a sentence on what it is of. ``past`` are the
    kernels' earlier runs, with the one that ``results`` is of. ``running``: of the kernels whose
    run goes on, so that their result is what is known so far, the tests that run now.
    ``reload``: the page is shown by a server. ``notes`` are sentences on what is missing.
    ``coverage`` is which lines of the module ran, if that is known.
    """
    when = time.time() if now is None else now
    made = _page(results, texts, when, about, past or {}, coverage or {})
    style = resources.files("harness.report").joinpath("page.css").read_text("utf-8") + _sizes(made)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        page=made,
        running=running or {},
        reload=reload,
        notes=notes,
        style=Markup(style),  # noqa: S704  # a file of this package
        style_hash=f"sha256-{digest}",
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = resources.files("harness.report").joinpath("page.html").read_text("utf-8")
    return environment.from_string(text)


def prepare() -> None:
    """Do what is done once, before there is a page to write."""
    _template()


def _page(
    results: Sequence[KernelResult],
    texts: Texts,
    now: float,
    about: str,
    past: History,
    coverage: Coverage,
) -> _Page:
    columns = table.columns(results)
    empty = Cell(False, "-")
    flaky = {kernel: {one.name: _often(one) for one in history.flaky(runs)}
             for kernel, runs in past.items()}  # fmt: skip
    failures = tuple(_failures(results, texts, flaky))
    return _Page(
        tally=table.tally(results) if results else "no results",
        red=any(not result.green for result in results),
        made=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        about=about,
        columns=tuple(columns),
        kernels=tuple(
            _Kernel(one.kernel, one.release or "?", shlex.join(one.given) or _OWN,
                    tuple(one.cells.get(name, empty) for name in columns))
            for one in results
        ),
        reasons=tuple(table.reasons(results)),
        failures=failures,
        rows=tuple(_groups(results, failures)),
        spans=tuple(_spans(results)),
        past=tuple(
            _Past(kernel, plot.runs(runs), plot.summary(runs),
                  tuple(f"{name}: {often}" for name, often in flaky[kernel].items()))
            for kernel, runs in past.items() if runs
        ),
        covered=tuple(
            _Covered(name, f"{file.run} of {len(file.lines)} lines",
                     round(file.run / len(file.lines) * _BAR), file.missed,
                     ", ".join(file.never_called))
            for name, file in sorted(coverage.items()) if file.lines
        ),
    )  # fmt: skip


def _often(one: Flaky) -> str:
    """How often a flaky test is red."""
    return f"red in {one.red} of {one.runs} runs of the same module, kernel and harness"


def _sizes(page: _Page) -> str:
    """Rules for how wide the groups of the grid are, and how high, before they are laid out."""
    width = f"calc(var(--test) + {len(page.kernels)} * var(--kernel))"
    rules = [f".group {{ width: {width}; contain-intrinsic-width: {width}; }}"]
    rules += [
        f".rows{count} {{ contain-intrinsic-height: auto {(count + 1) * _ROW:.1f}rem; }}"
        for count in sorted({len(group.tests) for group in page.rows})
    ]
    return "\n".join(["", *rules, ""]) if page.rows else ""


def _is_red(case: Case) -> bool:
    return case.outcome in RED


def _failures(
    results: Sequence[KernelResult], texts: Texts, flaky: Mapping[str, Mapping[str, str]]
) -> list[_Failure]:
    found: list[_Failure] = []
    for result in results:
        said = texts.get(result.kernel, {})
        for case in filter(_is_red, result.tests):
            text = said.get(case.name, "") or case.why or "(nothing was said)"
            if len(text) > _TEXT:
                text = f"{text[:_TEXT]}\n... ({len(text) - _TEXT} more characters)"
            found.append(
                _Failure(f"f{len(found)}", result.kernel, case.name, case.why, text,
                         case.again(result.kernel, result.given),
                         tuple(map(_source, case.excerpts)), case.left,
                         flaky.get(result.kernel, {}).get(case.name, ""))
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
    return [
        _Group(name if not first else f"{name} (continued)", tuple(rows[first : first + _TOGETHER]))
        for name, rows in groups.items()
        for first in range(0, len(rows), _TOGETHER)
    ]


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

    spans: list[_Span] = []
    for one in results:
        if not one.left_out:
            bars = (_bar("ready", whole, [(0, one.ready_s)]),
                    _bar("tests", whole, [(one.ready_s, one.tests_s)]))  # fmt: skip
            spans.append(_Span(one.kernel, f"{one.ready_s:.1f} s + {one.tests_s:.1f} s", bars))
            spans += _course(one)
    cases = [(case, result.kernel) for result in results for case in result.tests]
    slowest = sorted(cases, key=lambda each: each[0].seconds, reverse=True)[:_SLOWEST]
    for case, kernel in slowest:
        if case.seconds >= _SHORT:
            setup = f", setup {case.setup_s:.1f} s" if case.setup_s >= _SHORT else ""
            ran = [(case.setup_s, case.seconds - case.setup_s)]
            bars = (_bar("ready", whole, [(0, case.setup_s)]), _bar("tests", whole, ran))
            spans.append(_Span(f"{case.name} on {kernel}", f"{case.seconds:.1f} s{setup}", bars))
    return spans


def _course(result: KernelResult) -> list[_Span]:
    """The timeline of a run: its long steps, and below them the tests of each job."""
    steps = [step for step in result.steps if step.seconds >= _STEP]
    steps = sorted(sorted(steps, key=lambda step: -step.seconds)[:_STEPS], key=lambda s: s.began)
    jobs: dict[str, list[Case]] = {}
    for case in result.tests:
        if case.began:
            jobs.setdefault(case.job, []).append(case)
    times = [(step.began, step.seconds) for step in steps]
    times += [(case.began, case.seconds) for case in chain.from_iterable(jobs.values())]
    if not times:
        return []
    start = min(began for began, _ in times)
    whole = max(began + seconds for began, seconds in times) - start
    course = [
        _Span(step.what, f"{step.seconds:.1f} s",
              (_bar("ready", whole, [(step.began - start, step.seconds)]),), part=True)
        for step in steps
    ]  # fmt: skip
    for job, cases in sorted(jobs.items()):
        waited = sum(case.setup_s for case in cases)
        seconds = sum(case.seconds for case in cases)
        setup = [(case.began - start, case.setup_s) for case in cases]
        ran = [(case.began - start + case.setup_s, case.seconds - case.setup_s, _is_red(case))
               for case in cases]  # fmt: skip
        course.append(
            _Span(f"job {job}" if job else "tests", f"{seconds:.1f} s, setup {waited:.1f} s",
                  (_bar("ready", whole, setup),
                   _bar("tests", whole, [(at, long) for at, long, _ in ran]),
                   _bar("bad", whole, [(at, long) for at, long, red in ran if red])),
                  part=True)
        )  # fmt: skip
    return course


def _bar(kind: str, whole: float, pieces: Iterable[tuple[float, float]]) -> _Bar:
    """Pieces of ``whole`` seconds: where each begins, and how long it is.

    They are drawn as whole units of the line, so that thousands of tests are no more pieces than
    there are units.
    """
    drawn: list[tuple[int, int]] = []
    for at, seconds in sorted(pieces):
        if seconds <= 0:
            continue
        first, last = (round(edge / whole * _BAR) if whole else 0 for edge in (at, at + seconds))
        last = max(last, first + 1)  # what there was is seen
        if drawn and first <= drawn[-1][1]:
            drawn[-1] = (drawn[-1][0], max(drawn[-1][1], last))
        else:
            drawn.append((first, last))
    return _Bar(kind, "".join(f"M{first} 0h{last - first}v10h{first - last}z"
                              for first, last in drawn))  # fmt: skip
