# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/again.py: which tests are run again, and what is said where none can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import config
from harness.config import KernelSpec
from harness.errors import InputError
from harness.report.result import Case, Cell, KernelResult
from harness.runs import store
from harness.runs.again import only_red
from harness.runs.request import Plan, Request

GREEN = Case(
    "test_contract::test_opens", "contract", "passed", 1.0, file="../contract/test_contract.py"
)
RED = Case("test_contract::test_closes[a-1]", "contract", "failed", 1.0,
           file="../contract/test_contract.py")  # fmt: skip
IN_CLASS = Case("TestLong::test_it", "module", "error", 1.0, file="test_life.py")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results that has none."""
    monkeypatch.setattr(config, "RESULTS", tmp_path)
    return tmp_path


def ran(
    *tests: Case, finished: float = 1e9, whole: bool = True, given: tuple[str, ...] = ()
) -> None:
    """Have a run on trixie end with these tests."""
    result = KernelResult("trixie", "6.12", "1", 1, finished, 1.0, 1.0,
                          {"contract": Cell(True, "red")}, tests, given=given)  # fmt: skip
    with store.begin("trixie", whole=whole) as run:
        run.junit.write_text("<testsuites/>")
        store.write(run, result, whole=whole)


def plan(suite: str | None = None, **asked: object) -> Plan:
    request = replace(Request(failed=True, suite=suite), **asked)  # type: ignore[arg-type]
    return Plan(request, {name: config.SUITES[name] for name in (suite or "contract").split(",")})


def test_only_what_was_red_is_run_again() -> None:
    """By its full name, in whatever suite it is; so that says nothing of the kernel as a whole."""
    ran(GREEN, RED, IN_CLASS)
    found = only_red(plan(), "trixie")
    assert found.again == (
        "tests/vm/contract/test_contract.py::test_closes[a-1]",
        "tests/vm/module/test_life.py::TestLong::test_it",
    )  # fmt: skip
    assert list(found.suites) == ["contract", "module"]
    assert not found.whole
    spec = KernelSpec("trixie", "trixie", "cloud")
    assert found.arguments(spec, 1, Path("x"))[:3] == [*found.again, "--kernel=trixie"]


def test_the_last_run_counts_be_it_of_some_tests() -> None:
    """What was red before, and is green now, is not run again."""
    ran(RED, IN_CLASS, finished=1e9)
    ran(replace(RED, outcome="passed"), IN_CLASS, finished=2e9, whole=False)
    assert only_red(plan(), "trixie").again == ("tests/vm/module/test_life.py::TestLong::test_it",)


def test_of_a_suite_that_was_asked_for() -> None:
    """And of no other."""
    ran(RED, IN_CLASS)
    assert only_red(plan("contract"), "trixie").again == (
        "tests/vm/contract/test_contract.py::test_closes[a-1]",
    )
    with pytest.raises(InputError, match=r"no test was red .* but of suite contract, module"):
        only_red(plan("any"), "trixie")


def test_where_none_can_be_run_that_is_said() -> None:
    """Each with what to do."""
    with pytest.raises(InputError, match="nothing was tested on trixie here"):
        only_red(plan(), "trixie")
    ran(GREEN, finished=1e9)
    with pytest.raises(InputError, match=r"no test was red in the last run on trixie\n"):
        only_red(plan(), "trixie")
    ran(replace(RED, suite="", file="/home/ada/test_mine.py"), finished=1.5e9, whole=False)
    with pytest.raises(InputError, match="of tests of your own") as caught:
        only_red(plan(), "trixie")
    assert caught.value.hint == "pytest /home/ada/test_mine.py"
    ran(replace(RED, file=""), finished=2e9)
    with pytest.raises(InputError, match="did not note where the tests are"):
        only_red(plan(), "trixie")
    ran(RED, finished=3e9, given=("--module=/home/ada/wee",))
    with pytest.raises(InputError, match="has tested --module=/home/ada/wee, and this is another"):
        only_red(plan(), "trixie")
