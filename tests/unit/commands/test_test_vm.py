# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/test_vm.py: one kernel or several, and the exit status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from harness import config, lab
from harness.build import archive
from harness.commands import test, test_vm
from harness.config import KernelSpec, Matrix
from harness.errors import GoneError, HarnessError, InputError, NetworkError, Status
from harness.host import progress
from harness.lab import Lab
from harness.report.junit import failures
from harness.report.result import Cell, KernelResult, left_out
from harness.runs import pytest_process, store
from harness.runs.pytest_process import Ended, EndedTest
from harness.runs.request import Plan, Request

from .conftest import MATRIX, Calls


@pytest.mark.parametrize("expression", ["a b (", "and", "a or"])
def test_a_filter_that_is_no_expression_is_bad_input(expression: str) -> None:
    """Before anything is prepared; pytest-xdist would make an internal error of it."""
    with pytest.raises(InputError, match="is no expression"):
        test_vm.run(Request("one", expression=expression))
    with pytest.raises(InputError, match="is no expression"):
        test.run(Request(expression=expression, jobs=1), only_unit=True)
    pytest_process.check_filter("a and not (b or c)")


def test_one_kernel_is_tested_before_a_persons_eyes(calls: Calls) -> None:
    """Its pytest decides what the task's status is, and its result is kept for `invoke kernels`."""
    for ended, status in ((0, 0), (1, 1), (70, 70)):
        calls.statuses = [ended]
        assert test_vm.run(Request("one")) == status
        kept = store.last("one")
        assert kept is not None
        assert (kept.status, kept.release) == (status, "6.12.9")
        assert [test.outcome for test in kept.tests] == ["failed" if status else "passed"]


def test_it_is_said_how_far_the_tests_are_where_nobody_sees_them(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest's own words go to a file then."""
    asked: list[Callable[[], object]] = []

    def detail(ask: Callable[[], object]) -> AbstractContextManager[None]:
        asked.append(ask)
        return nullcontext()

    monkeypatch.setattr(progress, "detail", detail)
    with store.begin("one", whole=True) as run, test_vm._testing(run, MATRIX.kernels["one"]):
        for test, outcome in (("a", "passed"), ("b", "failed")):
            pytest_process.add_ended(run.folder, EndedTest(test, outcome, 1.0))
        assert [ask() for ask in asked] == [
            "kernel one: testing, 2 tests have ended, 1 of them red"
        ]


def test_tests_of_ones_own_say_nothing_of_the_kernel(calls: Calls, tmp_path: Path) -> None:
    """They are in a column of their own, and are no kernel's last result."""
    assert test_vm.run(Request("one", suite=str(tmp_path))) == 0
    assert store.last("one") is None


def test_a_run_with_a_filter_is_not_the_kernels_last_result(calls: Calls) -> None:
    """A part says nothing of the whole."""
    test_vm.run(Request("one", expression="some"))
    assert store.last("one") is None
    assert (config.RESULTS / "one" / "partial.json").exists()


@pytest.mark.parametrize("stage", ["boot", "build"])
def test_a_kernel_that_cannot_be_tested_is_told_and_kept(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """So that neither `invoke kernels` nor a pipeline takes an older result for its last."""
    test_vm.run(Request("one"))
    error = HarnessError("it does not come up")

    def fail(*_: object) -> Lab:
        raise error

    broken = cast(Lab, SimpleNamespace(build=fail))
    monkeypatch.setattr(lab, "prepare_lab", fail if stage == "boot" else lambda *_: broken)
    with pytest.raises(HarnessError, match="does not come up"):
        test_vm.run(Request("one"))
    kept = store.last("one")
    assert kept is not None
    red = Cell(True, "red", "it does not come up")
    assert (kept.status, kept.cells) == (1, {stage: red})


@pytest.mark.parametrize("kernels", ["6.99", "one,6.99", "6.99,one"])
def test_a_release_that_is_nowhere_leaves_nothing(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, kernels: str
) -> None:
    """It would be a red row in each later report, and is a misspelt word."""
    asked: list[str] = []

    def search(spec: KernelSpec, *_: object) -> NoReturn:
        asked.append(spec.name)
        raise GoneError("the archive has no kernel 6.99")

    monkeypatch.setattr(archive, "resolve", search)
    monkeypatch.setattr(lab, "prepare_lab", search)
    with pytest.raises(GoneError, match=r"no kernel 6\.99"):
        test_vm.run(Request(kernels))
    assert asked == ["6.99"]
    assert not config.RESULTS.exists()


def test_a_release_that_nobody_could_be_asked_for_is_told_when_it_is_made_ready(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be there: the other kernels of the run are tested meanwhile."""

    def search(*_: object) -> NoReturn:
        raise NetworkError("no mirror answers")

    monkeypatch.setattr(archive, "resolve", search)
    assert test_vm.run(Request("6.1")) == Status.GREEN


def test_a_part_does_not_replace_what_the_whole_said(calls: Calls) -> None:
    """Each has a JUnit file of its own beside its result."""
    for expression in (None, "some"):
        test_vm.run(Request("one", expression=expression))
    folder = config.RESULTS / "one"
    assert {path.name for path in folder.iterdir() if not path.is_dir()} == {
        "history.jsonl", "junit.xml", "report.json", "partial.xml", "partial.json",
    }  # fmt: skip
    assert store.last("one", whole=False) is not None


def test_a_run_that_ends_within_another_takes_nothing_from_it(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of one kernel at once: each has a JUnit file, a result and evidence of its own."""
    ordinary = pytest_process.run
    left: list[Path] = []

    def another_begins(
        arguments: Sequence[str],
        results: Path,
        prepare: Callable[[Callable[[str], None]], str],
        **_: object,
    ) -> Ended:
        ended = ordinary(arguments, results, prepare=prepare)
        folder = results / "contract-test_contract.py-test_it"
        folder.mkdir()
        left.append(folder)
        monkeypatch.setattr(pytest_process, "run", ordinary)
        assert test_vm.run(Request("one")) == 1
        return ended

    monkeypatch.setattr(pytest_process, "run", another_begins)
    calls.statuses = [0, 1]
    assert test_vm.run(Request("one")) == 0
    assert left[0].exists()
    # The one that ended last is the kernel's last.
    kept = store.last("one")
    assert kept is not None
    assert (kept.status, failures(store.junit_of("one").read_text())) == (0, {})


def test_minutes_make_a_sweep_of_one_kernel_too(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its last line is a test runner's; a run that had time for nothing is not green."""
    rows = [KernelResult("one", "r", "v", 0, 0.0, 0.0, 0.0, {})]
    given: list[object] = []

    def fake(*arguments: object) -> object:
        given.extend(arguments)
        return SimpleNamespace(run=lambda _: rows)

    monkeypatch.setattr(test_vm, "Sweep", fake)
    assert test_vm.run(Request("one", jobs=1, minutes=7)) == 0
    assert cast(Plan, given[0]).request.minutes == 7
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 0 failed, 0 skipped"
    rows[0] = left_out("one", "r", "v", "no time left")
    assert test_vm.run(Request("one", jobs=1, minutes=7)) == 1


def test_a_pytest_that_left_no_result_is_not_green(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing evidence is never green, whatever the exit status."""
    ordinary = pytest_process.run

    def run(arguments: Sequence[str], results: Path, **more: Any) -> Ended:
        ended = ordinary(arguments, results, **more)
        (results / "junit.xml").unlink()
        return ended

    monkeypatch.setattr(pytest_process, "run", run)
    assert test_vm.run(Request("one")) == Status.OURS


def test_several_kernels_are_a_sweep_with_a_table(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worst status counts, and what is asked of the module itself is asked by default."""
    asked: list[tuple[list[str], Plan]] = []
    ended = [0, 3]

    class Fake:
        def __init__(self, plan: Plan, _: Matrix) -> None:
            self.plan = plan

        def run(self, specs: Sequence[KernelSpec]) -> list[KernelResult]:
            asked.append(([spec.name for spec in specs], self.plan))
            return [
                KernelResult(spec.name, "r", "v", status, 0.0, 0.0, 0.0, {})
                for spec, status in zip(specs, ended, strict=True)
            ]

    monkeypatch.setattr(test_vm, "Sweep", Fake)
    assert test_vm.run(Request("one,two", expression="x", jobs=5)) == 3
    ((names, plan),) = asked
    assert (names, plan.request.jobs, plan.request.expression) == (["one", "two"], 5, "x")
    assert list(plan.suites) == ["contract", "module"]
    assert "two: pytest ended with status 3" in capsys.readouterr().out
    test_vm.run(Request("all", suite="contract"))
    assert list(asked[1][1].suites) == ["contract"]
    assert asked[1][1].request.jobs is None
    ended[0] = 1  # which is a kernel's or the module's fault, and 3 is nobody's
    assert test_vm.run(Request("one,two")) == 1


def test_options_reach_pytest(calls: Calls) -> None:
    """The filter and the number of jobs, where they are given."""
    test_vm.run(Request("one", expression="a and b", jobs=3))
    (call,) = calls.pytest
    assert call[call.index("-k") + 1] == "a and b"
    assert call[call.index("-n") + 1] == "3"
    assert f"--module={config.MODULE}" in call
    test_vm.run(Request("one", jobs=1))
    assert not {"-k", "-n"} & set(calls.pytest[1])


def test_another_module_gets_the_contract_only(calls: Calls, other_module: Path) -> None:
    """Tests about our own module's device say nothing about somebody else's."""
    for module in (config.MODULE, other_module):
        test_vm.run(Request("one", source=module, suite="contract,module"))
    assert calls.pytest[0][:2] == ["tests/vm/contract", "tests/vm/module"]
    assert calls.pytest[1][0] == "tests/vm/contract"
    assert "tests/vm/module" not in calls.pytest[1]
    assert f"--module={other_module}" in calls.pytest[1]


def test_the_verdict_only(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    """What pytest prints goes to a file then. Several kernels have a line each."""
    calls.statuses = [1]
    assert test_vm.run(Request("one", quiet=True)) == 1
    assert capsys.readouterr().out == "one: red: 0 passed, 1 failed, 0 skipped\n"
    assert (config.RESULTS / "one" / store.LATEST / "pytest.log").exists()


def test_the_verdicts_of_several_kernels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: Calls
) -> None:
    """One that was left out is neither green nor red, and neither is one that nobody could test."""
    rows = [
        KernelResult("one", "r", "v", 0, 0.0, 0.0, 0.0, {}),
        KernelResult("two", "r", "v", 3, 0.0, 0.0, 0.0, {}),
        left_out("three", "r", "v", "no time left"),
    ]
    monkeypatch.setattr(test_vm, "Sweep", lambda *_: SimpleNamespace(run=lambda _: rows))
    assert test_vm.run(Request("one,two", quiet=True)) == 3
    assert capsys.readouterr().out.splitlines() == [
        "one: green: 0 passed, 0 failed, 0 skipped",
        "two: not known: 0 passed, 1 failed, 0 skipped",
        "three: not run: 0 passed, 0 failed, 1 skipped",
    ]


def test_an_unknown_suite_lists_the_known() -> None:
    """A typing error is told before anything is prepared."""
    with pytest.raises(InputError, match="no suite named 'contact'") as caught:
        test_vm.run(Request("one", suite="contact"))
    assert "contract, any, module, harness, all" in caught.value.hint
