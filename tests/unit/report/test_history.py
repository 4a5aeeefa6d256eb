# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/history.py: what is remembered of runs, and which tests are flaky."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.report import history
from harness.report.history import Flaky, Past
from harness.report.result import Case, KernelResult

RESULT = KernelResult(
    "trixie", "6.12", "6.12-1", 1, 50.0, 1.0, 2.0, {},
    (Case("a::ok", "", "passed", 1.0), Case("a::bad", "", "failed", 1.0),
     Case("a::worse", "", "error", 1.0), Case("a::not", "", "skipped", 0.0)),
    module="m1", harness="h1",
)  # fmt: skip
PAST = history.past("r1", RESULT, whole=True)


def test_a_run_is_read_back_as_it_was_written() -> None:
    """With the names of what passed and of what was red, and with what it was made of."""
    made_of = ("6.12", "6.12-1", "m1", "h1")
    red = ("a::bad", "a::worse")
    expected = Past("r1", True, 1, 50.0, 1.0, 2.0, made_of, ("a::ok",), red, 1)
    assert expected == PAST
    other = history.past("r2", replace(RESULT, given=("--module=/a b",)), whole=True)
    assert other.given == ("--module=/a b",)
    text = history.added(history.added("", PAST), other)
    assert history.read(text) == [PAST, other]


def test_a_line_of_before_is_of_this_projects_own_module() -> None:
    """It did not say which one, and mostly it was that."""
    line = json.loads(history.added("", PAST))
    del line["given"]
    assert history.read(json.dumps(line)) == [PAST]


@pytest.mark.parametrize(
    "result",
    [replace(RESULT, module=""), replace(RESULT, harness=""), replace(RESULT, release="")],
    ids=["module", "harness", "kernel"],
)
def test_what_is_not_known_is_not_the_same(result: KernelResult) -> None:
    """Two runs of which the module is not known may have tested two modules."""
    assert history.past("r", result, whole=True).made_of == ()


def test_the_oldest_go() -> None:
    """Whichever of two runs is written first, the one that ended first comes first."""
    text = ""
    for number in (1, 0, *range(2, history.RUNS + 5)):
        text = history.added(text, replace(PAST, run=f"r{number}", finished=float(number)))
    kept = [one.run for one in history.read(text)]
    assert kept == [f"r{number}" for number in range(5, history.RUNS + 5)]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In size as well; but the last run is there in any case."""
    line = len(history.added("", PAST))
    monkeypatch.setattr(history, "SIZE", line * 3)
    text = ""
    for _ in range(5):
        text = history.added(text, PAST)
    assert len(text) == line * 3
    large = replace(PAST, finished=60.0, passed=("x" * line * 5,))
    assert history.read(history.added(text, large)) == [large]


@pytest.mark.parametrize(
    "damaged",
    ["", "{", '{"form": 1, "run": ', "[1]", "null", "[" * 100_000, "\0\0\0",
     *(json.dumps(json.loads(history.added("", PAST)) | change)
       for change in ({"form": 2}, {"run": 3}, {"passed": "abc"}, {"red": [1]}, {"status": "1"},
                      {"finished": 1e300}, {"tests_s": -1.0}, {"ready_s": float("nan")},
                      {"given": "--module"}, {"given": [1]}))],
)  # fmt: skip
def test_what_is_damaged_is_passed_over(damaged: str) -> None:
    """The lines beside it are as good as before."""
    good = history.added("", PAST)
    assert history.read(f"{good}{damaged}\n{good}") == [PAST, PAST]
    assert history.added(f"{damaged}\n", PAST) == good


def run(number: int, *, red: bool, made_of: str = "m", status: int | None = None) -> Past:
    names = ("a::one",)
    return Past(
        f"r{number}", True, int(red) if status is None else status, float(number), 1.0, 1.0,
        (made_of,) if made_of else (), () if red else names, names if red else (), 0,
    )  # fmt: skip


def test_a_test_that_was_red_and_green_is_flaky() -> None:
    """With how often; a run of other tests does not count."""
    other = replace(run(4, red=False), passed=("a::other",))
    runs = [run(1, red=False), run(2, red=True), run(3, red=False), other]
    assert history.flaky(runs) == [Flaky("a::one", 1, 3)]


@pytest.mark.parametrize(
    "runs",
    [[run(1, red=True), run(2, red=False, made_of="mended")],
     [run(1, red=True, made_of=""), run(2, red=False, made_of="")],
     [run(1, red=True), run(2, red=True)],
     [run(1, red=False), run(2, red=True, status=3)]],
    ids=["another module", "nothing known", "always red", "the host's fault"],
)  # fmt: skip
def test_what_has_a_reason_is_not_flaky(runs: list[Past]) -> None:
    """Such as a module that was mended in between."""
    assert history.flaky(runs) == []


def test_the_last_of_several_modules_counts() -> None:
    """Of a test that was flaky with both."""
    runs = [run(1, red=True, made_of="old"), run(2, red=False, made_of="old")]
    runs += [run(3, red=True), run(4, red=True), run(5, red=False)]
    assert history.flaky(runs) == [Flaky("a::one", 2, 3)]
