# SPDX-License-Identifier: GPL-2.0-only
"""What earlier runs of a kernel found: a line of JSON for each, and which tests are flaky. Pure.

Lines that an older harness has written, or that a full disk or a power cut has damaged, may be
there. So a line of another form is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.report.result import RED, KernelResult

# The version of the form of a line.
FORM = 1
# How many runs are remembered, in how many characters at most; the last run in any case.
RUNS = 30
SIZE = 2_000_000
# No time is later, in seconds since the epoch: the year 5138, for which Python has a date.
_END = 1e11


@dataclass(frozen=True)
class Past:
    """What is remembered of one run of one kernel; what is not explained is as in KernelResult."""

    run: str  # the name of its folder
    whole: bool  # no test was left out
    status: int
    finished: float
    ready_s: float
    tests_s: float
    # What decides how a test goes: the kernel's package, the module as it was built, the harness
    # with its tests. () where one of them is not known.
    made_of: tuple[str, ...]
    passed: tuple[str, ...]  # names of tests
    red: tuple[str, ...]  # names of tests
    skipped: int  # how many
    given: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flaky:
    """A test that was red in ``red`` of ``runs`` runs in which nothing else was different."""

    name: str
    red: int
    runs: int


def past(run: str, result: KernelResult, *, whole: bool) -> Past:
    """What is to be remembered of the run ``run`` and its result."""
    known = (result.release, result.version, result.module, result.harness)
    names: dict[bool, list[str]] = {True: [], False: []}
    for case in result.tests:
        if case.outcome != "skipped":
            names[case.outcome in RED].append(case.name)
    return Past(
        run, whole, result.status, result.finished, result.ready_s, result.tests_s,
        known if result.release and result.module and result.harness else (),
        tuple(names[False]), tuple(names[True]),
        sum(case.outcome == "skipped" for case in result.tests), result.given,
    )  # fmt: skip


def read(text: str) -> list[Past]:
    """The runs that the lines of ``text`` tell of, the one that ended first at the beginning."""
    found = [one for one in map(_parsed, text.splitlines()) if one is not None]
    return sorted(found, key=lambda one: one.finished)


def added(text: str, one: Past) -> str:
    """The lines of ``text`` with one more run; the oldest go where that is too much."""
    kept: list[str] = []
    size = 0
    for each in reversed([*read(text), one]):
        line = json.dumps({"form": FORM, **asdict(each)}) + "\n"
        size += len(line)
        if kept and (len(kept) == RUNS or size > SIZE):
            break
        kept.append(line)
    return "".join(reversed(kept))


def _parsed(line: str) -> Past | None:
    try:
        values: Any = json.loads(line)
        match values:
            case {
                "form": 1, "run": str(run), "whole": bool(whole), "status": int(status),
                "finished": int() | float() as finished, "ready_s": int() | float() as ready,
                "tests_s": int() | float() as tests, "made_of": [*made_of],
                "passed": [*passed], "red": [*red], "skipped": int(skipped),
            } if (
                all(isinstance(one, str) for one in (*made_of, *passed, *red, *_given(values)))
                and all(0 <= number < _END for number in (finished, ready, tests))
            ):  # fmt: skip
                return Past(run, whole, status, float(finished), float(ready), float(tests),
                            tuple(made_of), tuple(passed), tuple(red), skipped,
                            tuple(_given(values)))  # fmt: skip
    except (ValueError, RecursionError):
        pass
    return None


def _given(values: dict[str, Any]) -> list[Any]:
    """Lines of older harnesses do not have it."""
    given = values.get("given", [])
    return given if isinstance(given, list) else [None]


def flaky(runs: Sequence[Past]) -> list[Flaky]:
    """The tests that were red and green although nothing else was different.

    Where that happened with several modules, kernels or harnesses, the last of them counts.
    ``runs`` are one kernel's, as ``read`` has them.
    """
    found: dict[str, Flaky] = {}
    alike: dict[tuple[str, ...], list[Past]] = {}
    for one in runs:
        # One that the host ended says nothing of its tests (Status.HOST).
        if one.made_of and one.status in (0, 1):
            alike.setdefault(one.made_of, []).append(one)
    for group in sorted(alike.values(), key=lambda each: each[-1].finished):
        red = _counted([one.red for one in group])
        passed = _counted([one.passed for one in group], only=red)
        for name, times in red.items():
            if name in passed:
                found[name] = Flaky(name, times, times + passed[name])
    return sorted(found.values(), key=lambda one: (-one.red / one.runs, one.name))


def _counted(names: Sequence[Sequence[str]], only: dict[str, int] | None = None) -> dict[str, int]:
    """In how many of the lists each name is."""
    counts: dict[str, int] = {}
    for each in names:
        for name in set(each):
            if only is None or name in only:
                counts[name] = counts.get(name, 0) + 1
    return counts
