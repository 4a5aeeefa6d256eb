# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/test.py: both halves of the tests are run, and both decide."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from harness.commands import test, test_vm
from harness.errors import InputError, Status
from harness.runs import pytest_process
from harness.runs.pytest_process import Ended
from harness.runs.request import Request

from .conftest import Calls


def test_a_run_without_tests_is_not_green(python: Callable[[str], None]) -> None:
    """A --filter that matches nothing is a mistake that is told, not a success."""
    python("ends 5 2")
    with pytest.raises(InputError, match="nothing was tested"):
        test.run(Request(jobs=1), only_unit=True)


def test_a_pytest_that_was_killed_is_not_green(python: Callable[[str], None]) -> None:
    """Nor red: no test has failed."""
    python("kill -9 $$")
    assert test.run(Request(jobs=1), only_unit=True) == Status.OURS


@pytest.mark.parametrize(
    ("unit", "machine", "status"),
    [(0, 0, 0), (70, 0, 70), (2, 0, 2), (0, 3, 3), (1, 3, 1), (1, 70, 1), (0, None, 0),
     (1, None, 1), (5, 0, 0), (5, 1, 1)],
)  # fmt: skip
def test_both_halves_decide(
    monkeypatch: pytest.MonkeyPatch, unit: int, machine: int | None, status: int
) -> None:
    """Where a filter matches in one half only (None and 5 are no tests), that half alone."""

    def ended_as(*_: object, **__: object) -> int:
        if machine is None:
            raise pytest_process.NothingMatches("no test matches")
        return machine

    ended = Ended(Status.INPUT, empty=True) if unit == 5 else Ended(unit)
    monkeypatch.setattr(pytest_process, "run", lambda *_, **__: ended)
    monkeypatch.setattr(test_vm, "run", ended_as)
    assert test.run(Request(expression="wee", jobs=1)) == status


def test_a_filter_that_matches_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither among the tests without a machine nor among the others."""

    def ended_as(*_: object, **__: object) -> int:
        raise pytest_process.NothingMatches("no test matches")

    empty = Ended(Status.INPUT, empty=True)
    monkeypatch.setattr(pytest_process, "run", lambda *_, **__: empty)
    monkeypatch.setattr(test_vm, "run", ended_as)
    with pytest.raises(InputError, match="no test matches"):
        test.run(Request(expression="wee", jobs=1))


@pytest.mark.parametrize(
    ("statuses", "worst"), [([0, 0], 0), ([1, 0], 1), ([0, 1], 1)], ids=["green", "unit", "vm"]
)
def test_all_tests_run_even_if_the_first_are_red(
    calls: Calls, statuses: list[int], worst: int
) -> None:
    """`invoke test` is the unit tests and then the machines, and red if either is."""
    calls.statuses = list(statuses)
    assert test.run(Request("one")) == worst
    assert [call[0] for call in calls.pytest] == ["tests/unit", "tests/vm/contract"]


def test_the_unit_tests_run_alone_where_they_are_asked_for(calls: Calls) -> None:
    """No machine is started; a filter that matches none of them is told."""
    calls.statuses = [1]
    assert test.run(Request("one"), only_unit=True) == 1
    assert [call[:2] for call in calls.pytest] == [["tests/unit", "tests/browser"]]


@pytest.mark.parametrize(("status", "said"), [(0, "green"), (1, "red"), (70, "not known")])
def test_the_verdict_only(
    python: Callable[[str], None], capfd: pytest.CaptureFixture[str], status: int, said: str
) -> None:
    """Nothing of what pytest prints, which is to be had without the option."""
    python(f"echo printed; ends {status}")
    assert test.run(Request(jobs=1, quiet=True), only_unit=True) == status
    assert capfd.readouterr().out == f"tests/unit, tests/browser: {said}\n"


@pytest.mark.parametrize(("jobs", "option"), [(None, "-n3"), (5, "-n5")])
def test_the_unit_tests_use_all_cores(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, jobs: int | None, option: str
) -> None:
    """They do so unless --jobs says otherwise."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    calls.statuses = [0]
    test.run(Request("one", jobs=jobs), only_unit=True)
    assert option in calls.pytest[0]
