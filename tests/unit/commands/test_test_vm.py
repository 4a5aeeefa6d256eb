# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/test_vm.py: what the tasks do, and the exit statuses that they end with."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import tasks
from harness import config, lab, qemu
from harness.commands import shell, test_vm
from harness.config import GuestSpec, KernelSpec, Matrix
from harness.errors import HarnessError, InputError, Status
from harness.host import proc
from harness.host.cache import MANIFEST, Cache
from harness.lab import Lab
from harness.report.junit import failures
from harness.report.result import Cell, KernelResult, left_out
from harness.runs import pytest_process, store, sweep
from harness.runs.pytest_process import Ended

# A stand-in for pytest can end as pytest and the plugin do: with a status, and saying so.
ENDS = """\
for word; do
    case $word in
    --results=*) results=${word#*=} ;;
    esac
done
says() { echo "{\\"running\\": [$1], \\"crashed\\": [], \\"status\\": $2, \\"pytest\\": $3}" \\
    >$results/progress.json; }
ends() { says "" ${2-$1} $1; exit $1; }
"""


PATIENCE = 60.0


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script in the place of the Python that runs pytest."""

    def becomes(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{ENDS}{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return becomes


# -- pytest in a process of its own ------------------------------------------------


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        ("ends 0", Ended(Status.GREEN)),
        ("ends 1", Ended(Status.RED)),
        ("ends 5 2", Ended(Status.INPUT, empty=True)),
        ("ends 2 130", Ended(Status.INTERRUPTED)),
        ("ends 3", Ended(Status.HOST)),
        ("exit 4", Ended(Status.INPUT, why="pytest did not accept its arguments")),
        # What pytest says for a fault of its own, and what a test can make of it.
        ("exit 3", Ended(Status.OURS, why="pytest ended with status 3, and has not told a result")),
        (
            "says '\"a.py::test_b\"' null null; exit 0",
            Ended(
                Status.OURS,
                why="pytest ended with status 0 while it ran a.py::test_b, and has not told a "
                "result",
            ),
        ),
        (
            "says '\"a.py::test_b\"' null null; kill -9 $$",
            Ended(
                Status.OURS,
                why="pytest was ended by SIGKILL while it ran a.py::test_b, and has not told a "
                "result",
            ),
        ),
        (
            "says '' 0 0; kill -11 $$",
            Ended(
                Status.OURS,
                why="pytest was ended by SIGSEGV when its tests were over (with status 0)",
            ),
        ),
    ],
)
def test_how_pytest_ended_is_a_tasks_status(
    python: Callable[[str], None], tmp_path: Path, script: str, ended: Ended
) -> None:
    """Whatever is not said to have come to its end is a fault of ours, and never green."""
    python(script)
    assert pytest_process.run(["tests"], tmp_path) == ended


def test_a_pytest_in_which_nothing_happens_is_ended(
    python: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was at is named."""
    monkeypatch.setattr(pytest_process, "SILENT_SECONDS", 0.5)
    python("says '\"a.py::test_b\"' null null; trap 'kill $!; exit 2' INT; sleep 1000 & wait")
    ended = pytest_process.run(["tests"], tmp_path)
    assert ended.status == Status.OURS
    assert "no test has begun or ended; pytest was ended while it ran a.py::test_b" in ended.why


TRIALS = """\
import os, signal
import pytest

def test_fine():
    pass

def test_exit():
    os._exit(0)

def test_red():
    assert False

def test_gives_up():
    pytest.exit("enough", returncode=0)

def test_is_interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
"""


@pytest.mark.parametrize(
    ("test", "options", "status", "why"),
    [
        ("fine", ["-n0"], Status.GREEN, ""),
        ("red", ["-n0"], Status.RED, ""),
        ("gives_up", ["-n0"], Status.RED, ""),
        ("is_interrupted", ["-n0"], Status.INTERRUPTED, ""),
        ("exit", ["-n0"], Status.OURS, "while it ran test_trials.py::test_exit"),
        ("exit", ["-n1"], Status.OURS, "while it ran test_trials.py::test_exit"),
        ("nothing", ["-n0"], Status.INPUT, ""),
        ("fine", ["-n0", "--no-such-option"], Status.INPUT, "did not accept its arguments"),
        ("fine", ["-n0", "broken.py"], Status.RED, ""),
        ("fine", ["-n0", "-p", "faulty"], Status.OURS, ""),
    ],
)
def test_what_pytest_and_its_plugin_say_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: str, options: list[str],
    status: Status, why: str,
) -> None:  # fmt: skip
    """The real pytest: what one status of it means for several things is told apart."""
    monkeypatch.setattr(config, "PROJECT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    (tmp_path / "test_trials.py").write_text(TRIALS)
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    (tmp_path / "faulty.py").write_text("def pytest_collection_finish():\n    raise ValueError\n")
    with (tmp_path / "out").open("wb") as out:
        ended = pytest_process.run(
            ["test_trials.py", "-k", test, *options], tmp_path / "results", out=out
        )
    said = (tmp_path / "out").read_text()
    assert ended.status == status, said
    assert why in ended.why


@pytest.mark.parametrize("expression", ["a b (", "and", "a or"])
def test_a_filter_that_is_no_expression_is_bad_input(expression: str) -> None:
    """Before anything is prepared; pytest-xdist would make an internal error of it."""
    with pytest.raises(InputError, match="is no expression"):
        test_vm.test_vm("one", config.MODULE, expression, None, verbose=False)
    with pytest.raises(InputError, match="is no expression"):
        test_vm.test(None, config.MODULE, expression, 1, False, only_unit=True)
    pytest_process.check_filter("a and not (b or c)")


def test_a_run_without_tests_is_not_green(python: Callable[[str], None]) -> None:
    """A --filter that matches nothing is a mistake that is told, not a success."""
    python("ends 5 2")
    with pytest.raises(InputError, match="nothing was tested"):
        test_vm.test(None, config.MODULE, None, 1, False, only_unit=True)


def test_a_pytest_that_was_killed_is_not_green(python: Callable[[str], None]) -> None:
    """Nor red: no test has failed."""
    python("kill -9 $$")
    assert test_vm.test(None, config.MODULE, None, 1, False, only_unit=True) == Status.OURS


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
            raise test_vm.NothingMatches("no test matches")
        return machine

    ended = Ended(Status.INPUT, empty=True) if unit == 5 else Ended(unit)
    monkeypatch.setattr(pytest_process, "run", lambda *_, **__: ended)
    monkeypatch.setattr(test_vm, "test_vm", ended_as)
    assert test_vm.test(None, config.MODULE, "wee", 1, False) == status


def test_a_filter_that_matches_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither among the tests without a machine nor among the others."""

    def ended_as(*_: object, **__: object) -> int:
        raise test_vm.NothingMatches("no test matches")

    empty = Ended(Status.INPUT, empty=True)
    monkeypatch.setattr(pytest_process, "run", lambda *_, **__: empty)
    monkeypatch.setattr(test_vm, "test_vm", ended_as)
    with pytest.raises(InputError, match="no test matches"):
        test_vm.test(None, config.MODULE, "wee", 1, False)


def test_pytest_gets_its_arguments_in_the_projects_folder(
    python: Callable[[str], None], tmp_path: Path
) -> None:
    """Wherever the task was called, pytest finds its configuration."""
    python(f'printf "%s\\n" "$PWD" "$@" >{tmp_path}/seen')
    pytest_process.run(["tests/vm", "-k", "a b"], tmp_path, verbose=True)
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen[0] == str(config.PROJECT)
    assert seen[1:3] == ["-m", "pytest"]
    assert [seen.index(word) for word in ("tests/vm", "-k", "a b", "-v")] == [3, 4, 5, 7]


def test_what_pytest_has_left_running_ends_with_it(
    python: Callable[[str], None], tmp_path: Path
) -> None:
    """And its number is forgotten: later it may be another process's."""
    python(f"sleep 1000 >/dev/null 2>&1 & echo $! >{tmp_path}/pid; ends 0")
    before = set(proc._alive)
    assert pytest_process.run(["tests"], tmp_path).status == 0
    assert proc._alive == before
    left = int((tmp_path / "pid").read_text())
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(left)
        gone = bool(select.select([pidfd], [], [], 20.0)[0])
        os.close(pidfd)
        assert gone


def test_an_interrupted_run_lets_pytest_clean_up(
    python: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Ctrl-C is passed on and waited for: pytest ends its machines itself."""
    # A run in the background may have been started with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    python(
        f"trap 'echo cleaned >{tmp_path}/said; kill $!; exit 130' INT\n"
        f"sleep 1000 &\nuntil [ -e {tmp_path}/started ]; do :; done\nkill -INT $PPID\nwait"
    )
    popen = proc.popen

    def started(*args: Any, **kwargs: Any) -> Any:
        process = popen(*args, **kwargs)
        (tmp_path / "started").touch()
        return process

    monkeypatch.setattr(proc, "popen", started)
    with pytest.raises(KeyboardInterrupt):
        pytest_process.run(["tests"], tmp_path)
    assert (tmp_path / "said").read_text() == "cleaned\n"


# -- the tasks ---------------------------------------------------------------------


@dataclass
class Calls:
    """What was asked of the stages, which are not there."""

    pytest: list[list[str]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    built: list[Path] = field(default_factory=list)


MATRIX = Matrix(
    "one",
    {name: KernelSpec(name, "trixie", "amd64") for name in ("one", "two")},
    GuestSpec("trixie", (), ()),
)


def junit(status: int) -> str:
    """What a pytest that ends so leaves, as far as a contract of one test goes."""
    inside = "<failure>E   wrong</failure>" if status else ""
    return (
        '<testsuites><testsuite><testcase classname="tests.vm.contract.test_contract" '
        f'name="test_it" time="1.5">{inside}</testcase></testsuite></testsuites>'
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """Everything below the tasks is replaced by something that remembers."""
    made = Calls()

    def prepare(spec: KernelSpec, *_: object) -> Lab:
        def build(source: Path) -> object:
            made.built.append(source)
            ko = tmp_path / "wee.ko"
            ko.write_text(spec.name)
            return SimpleNamespace(warnings=(), ko=ko)

        return cast(
            Lab,
            SimpleNamespace(
                build=build,
                template=lambda: None,
                kernel=SimpleNamespace(release="6.12.9", spec=spec),
            ),
        )

    def run(arguments: Sequence[str], results: Path, *, verbose: bool = False) -> Ended:
        made.pytest.append(list(arguments))
        status = made.statuses.pop(0) if made.statuses else 0
        for word in arguments:
            if word.startswith("--junitxml="):
                Path(word.removeprefix("--junitxml=")).write_text(junit(status))
        return Ended(status)

    monkeypatch.setenv("EUDYPTULA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "load", lambda: MATRIX)
    monkeypatch.setattr(lab, "prepare_lab", prepare)
    monkeypatch.setattr(qemu, "check_version", lambda: (7, 2))
    monkeypatch.setattr(pytest_process, "run", run)
    monkeypatch.setattr(test_vm, "default_jobs", lambda: 1)
    monkeypatch.setattr(test_vm, "BUILD", tmp_path / "build")
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("harness.examine.loading.loaded_template", lambda *_: None)
    return made


@pytest.fixture
def other_module(tmp_path: Path) -> Path:
    """A module's folder that is not the project's own."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "Kbuild").write_text("obj-m += other.o\n")
    return folder


def test_one_kernel_is_tested_before_a_persons_eyes(calls: Calls) -> None:
    """Its pytest decides what the task's status is, and its result is kept for `invoke kernels`."""
    for ended, status in ((0, 0), (1, 1), (70, 70)):
        calls.statuses = [ended]
        assert test_vm.test_vm("one", config.MODULE, None, None, verbose=False) == status
        kept = store.last("one")
        assert kept is not None
        assert (kept.status, kept.release) == (status, "6.12.9")
        assert [test.outcome for test in kept.tests] == ["failed" if status else "passed"]


def test_a_run_with_a_filter_is_not_the_kernels_last_result(calls: Calls) -> None:
    """A part says nothing of the whole."""
    test_vm.test_vm("one", config.MODULE, "some", None, verbose=False)
    assert store.last("one") is None
    assert (config.RESULTS / "one" / "partial.json").exists()


@pytest.mark.parametrize("stage", ["boot", "build"])
def test_a_kernel_that_cannot_be_tested_is_told_and_kept(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """So that neither `invoke kernels` nor a pipeline takes an older result for its last."""
    test_vm.test_vm("one", config.MODULE, None, None, verbose=False)
    error = HarnessError("it does not come up")

    def fail(*_: object) -> Lab:
        raise error

    broken = cast(Lab, SimpleNamespace(build=fail))
    monkeypatch.setattr(lab, "prepare_lab", fail if stage == "boot" else lambda *_: broken)
    with pytest.raises(HarnessError, match="does not come up"):
        test_vm.test_vm("one", config.MODULE, None, None, verbose=False)
    kept = store.last("one")
    assert kept is not None
    red = Cell(True, "red", "it does not come up")
    assert (kept.status, kept.cells) == (1, {stage: red})


def test_a_part_does_not_replace_what_the_whole_said(calls: Calls) -> None:
    """Each has a JUnit file of its own beside its result."""
    for expression in (None, "some"):
        test_vm.test_vm("one", config.MODULE, expression, None, verbose=False)
    folder = config.RESULTS / "one"
    assert {path.name for path in folder.iterdir() if not path.is_dir()} == {
        "junit.xml", "report.json", "partial.xml", "partial.json",
    }  # fmt: skip
    assert store.last("one", whole=False) is not None


def test_a_run_that_ends_within_another_takes_nothing_from_it(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of one kernel at once: each has a JUnit file, a result and evidence of its own."""
    ordinary = pytest_process.run
    left: list[Path] = []

    def another_begins(arguments: Sequence[str], results: Path, *, verbose: bool) -> Ended:
        ended = ordinary(arguments, results)
        scene = results / "contract-test_contract.py-test_it"
        scene.mkdir()
        left.append(scene)
        monkeypatch.setattr(pytest_process, "run", ordinary)
        assert test_vm.test_vm("one", config.MODULE, None, None, verbose=False) == 1
        return ended

    monkeypatch.setattr(pytest_process, "run", another_begins)
    calls.statuses = [0, 1]
    assert test_vm.test_vm("one", config.MODULE, None, None, verbose=False) == 0
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
    assert test_vm.test_vm("one", config.MODULE, None, 1, verbose=False, minutes=7) == 0
    assert given[-1] == 7
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 0 failed, 0 skipped"
    rows[0] = left_out("one", "r", "v", "no time left")
    assert test_vm.test_vm("one", config.MODULE, None, 1, verbose=False, minutes=7) == 1


def test_a_pytest_that_left_no_result_is_not_green(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing evidence is never green, whatever the exit status."""
    monkeypatch.setattr(pytest_process, "run", lambda *_, **__: Ended(Status.GREEN))
    assert test_vm.test_vm("one", config.MODULE, None, None, verbose=False) == Status.OURS


def test_several_kernels_are_a_sweep_with_a_table(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worst status counts, and what is asked of the module itself is asked by default."""
    asked: list[tuple[list[str], sweep.Plan, int]] = []
    ended = [0, 3]

    class Fake:
        def __init__(self, plan: sweep.Plan, _: Matrix, jobs: int, *__: object) -> None:
            self.plan, self.jobs = plan, jobs

        def run(self, specs: Sequence[KernelSpec]) -> list[KernelResult]:
            asked.append(([spec.name for spec in specs], self.plan, self.jobs))
            return [
                KernelResult(spec.name, "r", "v", status, 0.0, 0.0, 0.0, {})
                for spec, status in zip(specs, ended, strict=True)
            ]

    monkeypatch.setattr(test_vm, "Sweep", Fake)
    assert test_vm.test_vm("one,two", config.MODULE, "x", 5, verbose=False) == 3
    ((names, plan, jobs),) = asked
    assert (names, jobs, plan.expression) == (["one", "two"], 5, "x")
    assert list(plan.suites) == ["contract", "module"]
    assert "two: pytest ended with status 3" in capsys.readouterr().out
    test_vm.test_vm("all", config.MODULE, None, None, verbose=False, suite="contract")
    assert list(asked[1][1].suites) == ["contract"]
    assert asked[1][2] == 1
    ended[0] = 1  # which is a kernel's or the module's fault, and 3 is nobody's
    assert test_vm.test_vm("one,two", config.MODULE, None, None, verbose=False) == 1


def test_options_reach_pytest(calls: Calls) -> None:
    """The filter and the number of jobs, where they are given."""
    test_vm.test_vm("one", config.MODULE, "a and b", 3, verbose=False)
    (call,) = calls.pytest
    assert call[call.index("-k") + 1] == "a and b"
    assert call[call.index("-n") + 1] == "3"
    assert f"--module={config.MODULE}" in call
    test_vm.test_vm("one", config.MODULE, None, 1, verbose=False)
    assert not {"-k", "-n"} & set(calls.pytest[1])


def test_another_module_gets_the_contract_only(calls: Calls, other_module: Path) -> None:
    """Tests about our own module's device say nothing about somebody else's."""
    for module in (config.MODULE, other_module):
        test_vm.test_vm("one", module, None, None, verbose=False, suite="contract,module")
    assert calls.pytest[0][:2] == ["tests/vm/contract", "tests/vm/module"]
    assert calls.pytest[1][0] == "tests/vm/contract"
    assert "tests/vm/module" not in calls.pytest[1]
    assert f"--module={other_module}" in calls.pytest[1]


def test_an_unknown_suite_lists_the_known() -> None:
    """A typing error is told before anything is prepared."""
    with pytest.raises(InputError, match="no suite named 'contact'") as caught:
        test_vm.test_vm("one", config.MODULE, None, None, verbose=False, suite="contact")
    assert "contract, module, harness, all" in caught.value.hint


@pytest.mark.parametrize(
    ("statuses", "worst"), [([0, 0], 0), ([1, 0], 1), ([0, 1], 1)], ids=["green", "unit", "vm"]
)
def test_all_tests_run_even_if_the_first_are_red(
    calls: Calls, statuses: list[int], worst: int
) -> None:
    """`invoke test` is the unit tests and then the machines, and red if either is."""
    calls.statuses = list(statuses)
    assert test_vm.test("one", config.MODULE, None, None, verbose=False) == worst
    assert [call[0] for call in calls.pytest] == ["tests/unit", "tests/vm/contract"]


def test_the_unit_tests_run_alone_where_they_are_asked_for(calls: Calls) -> None:
    """No machine is started; a filter that matches none of them is told."""
    calls.statuses = [1]
    assert test_vm.test("one", config.MODULE, None, None, verbose=False, only_unit=True) == 1
    assert [call[0] for call in calls.pytest] == ["tests/unit"]


@pytest.mark.parametrize(("jobs", "option"), [(None, "-n3"), (5, "-n5")])
def test_the_unit_tests_use_all_cores(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, jobs: int | None, option: str
) -> None:
    """They do so unless --jobs says otherwise."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    calls.statuses = [0]
    test_vm.test("one", config.MODULE, None, jobs, verbose=False, only_unit=True)
    assert option in calls.pytest[0]


def test_a_wrong_folder_is_refused_before_anything_is_downloaded(
    calls: Calls, tmp_path: Path
) -> None:
    """The quickest check comes first."""
    for task in (
        lambda: test_vm.build("one", tmp_path),
        lambda: test_vm.test_vm("one", tmp_path, None, None, verbose=False),
    ):
        with pytest.raises(InputError, match="Kbuild"):
            task()
    assert calls.built == []


def test_each_kernels_module_lands_in_a_folder_of_its_own(
    calls: Calls, other_module: Path, tmp_path: Path
) -> None:
    """build/KERNEL/ has the module and no leftovers; an older one is replaced."""
    (tmp_path / "build" / "one").mkdir(parents=True)
    (tmp_path / "build" / "one" / "wee.ko").write_text("old")
    test_vm.build("one,two", other_module)
    for name in ("one", "two"):
        (built,) = (tmp_path / "build" / name).iterdir()
        assert (built.name, built.read_text()) == ("wee.ko", name)


def test_what_is_for_a_tree_is_refused_without_one(calls: Calls, other_module: Path) -> None:
    """--profile and --config would otherwise be ignored in silence."""
    with pytest.raises(InputError, match="--profile is for a kernel tree"):
        test_vm.build("one", other_module, profile="debug")
    with pytest.raises(InputError, match="--config is for a kernel tree"):
        shell.run("one", other_module, own_config=Path("config"))
    assert calls.built == []


@pytest.mark.parametrize(
    ("cores", "memory_mib", "jobs"), [(2, 8192, 2), (16, 8192, 8), (8, 500, 1), (1, 64000, 1)]
)
def test_jobs_are_what_cores_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory_mib: int, jobs: int
) -> None:
    """A machine for each core, if each can have its memory, and always one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(proc, "available_memory_mib", lambda: memory_mib)
    assert test_vm.default_jobs() == jobs


# -- cleaning ----------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """A cache of this test's own."""
    with closing(Cache(tmp_path / "cache")) as made:
        yield made


def test_clean_removes_what_nobody_uses(cache: Cache, calls: Calls, tmp_path: Path) -> None:
    """Entries, remembered answers and build/ go; what another run uses stays whole."""
    user = Cache(cache.root)
    used = user.get("kind", "used", {}, lambda folder: (folder / "file").touch())
    free = cache.get("kind", "free", {}, lambda folder: (folder / "file").touch())
    cache.close()
    (cache.root / "kvm-of-this-boot").write_text("tcg why")
    with cache.workdir("index-sid") as known:
        (known / "kernels.json").write_text("[]")
    (tmp_path / "build").mkdir()
    (cache.root / "ccache").mkdir()
    test_vm.clean(cache)
    assert (used.path / "file").exists()
    assert not free.path.exists()
    assert not (tmp_path / "build").exists()
    assert list(cache.root.glob("kvm-*")) == []
    assert not known.exists()
    assert not (cache.root / "ccache").exists()
    user.close()
    test_vm.clean(cache)
    assert not used.path.exists()


def test_clean_removes_what_is_damaged_unless_it_is_used(cache: Cache, calls: Calls) -> None:
    """Nobody will ever use it again, except who has taken it before that."""
    user = Cache(cache.root)
    used = user.get("kind", "used", {}, lambda folder: (folder / "file").touch())
    free = cache.get("kind", "free", {}, lambda folder: (folder / "file").touch())
    cache.close()
    for entry in (used, free):
        (entry.path / MANIFEST).write_text("")
    test_vm.clean(cache)
    assert used.path.exists()
    assert not free.path.exists()
    user.close()


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5"])
def test_jobs_that_are_no_number_are_refused(text: str) -> None:
    """invoke hands the option over as text; what is no number gets a sentence."""
    with pytest.raises(InputError, match="--jobs takes a number from 1 on"):
        tasks._number("--jobs", text)


def test_jobs_are_a_number() -> None:
    """Two is two, and nothing is nothing: the default is chosen elsewhere."""
    assert (tasks._number("--jobs", "2"), tasks._number("--jobs", None)) == (2, None)


# -- how a task ends ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, "SpaceError"), (errno.EACCES, "HostError")]
)
def test_what_the_host_refuses_is_a_sentence_and_not_red(
    capsys: pytest.CaptureFixture[str], number: int, kind: str
) -> None:
    """Status 3, not the traceback and 1 that Python ends with."""

    def doing() -> None:
        raise OSError(number, os.strerror(number), "build/x")

    with pytest.raises(SystemExit) as caught:
        tasks._explained(doing)()
    assert caught.value.code == 3
    said = capsys.readouterr().err
    assert f"{kind}: doing failed: " in said
    assert "build/x" in said
    assert ("free some space" in said) is (number == errno.ENOSPC)


def invoke(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `invoke` as a person does."""
    command = [str(Path(sys.executable).parent / "invoke"), *arguments]
    return subprocess.run(
        command, cwd=config.PROJECT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@pytest.mark.parametrize(
    "arguments",
    [["test-wm"], ["test-vm", "--kernl", "x"], ["test-vm", "--kernel"], ["--list", "--no"],
     ["test-vm", "--filter", "a b ("]],
    ids=["task", "option", "no value", "of invoke", "filter"],
)  # fmt: skip
def test_what_is_misspelt_is_bad_input(arguments: list[str]) -> None:
    """Status 2: 1 is for a red test, and invoke itself would end with that."""
    done = invoke(*arguments)
    assert done.returncode == Status.INPUT
    assert "What to do:" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_invoke_is_asked_for_and_does_is_green() -> None:
    """Listing is the end of it, and no error."""
    assert invoke("--list").returncode == Status.GREEN
    assert invoke("build", "--help").returncode == Status.GREEN


def python_as_invoke(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code that takes itself for `invoke`."""
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = 'invoke'; import tasks; {code}"]
    return subprocess.run(
        command, cwd=config.PROJECT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


def test_listing_the_tasks_imports_next_to_nothing() -> None:
    """All of harness/ takes longer than invoke itself, and completion asks for each key."""
    done = python_as_invoke("print(*(name for name in sys.modules if name.startswith('harness')))")
    assert set(done.stdout.split()) == {
        "harness", "harness.errors", "harness.host", "harness.host.text",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_before_the_task_is_said(name: str) -> None:
    """As in its first half second; invoke would say nothing and end with 1, which is red."""
    # A test run in the background may have been started with Ctrl-C ignored.
    code = "import os, signal; signal.signal(signal.SIGINT, tasks._before_the_task); "
    done = python_as_invoke(f"{code}os.kill(os.getpid(), signal.{name}); signal.pause()")
    assert done.returncode == Status.INTERRUPTED
    assert done.stderr == "\ninterrupted before the task began; nothing was left running\n"


def test_a_fault_of_ours_is_told_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Python itself would end with 1, which is what a red test ends with."""

    def doing() -> None:
        raise ZeroDivisionError("planted")

    with pytest.raises(SystemExit) as caught:
        tasks._explained(doing)()
    assert caught.value.code == Status.OURS
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "doing: a fault of the harness (ZeroDivisionError)" in said


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")]
)
def test_what_was_interrupted_is_said(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, number: int, how: str
) -> None:
    """By Ctrl-C and by SIGTERM, in the same words and with the same status."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def doing() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except KeyboardInterrupt as error:
            error.add_note("kernel one was being made ready (boot)")
            raise

    with pytest.raises(SystemExit) as caught:
        tasks._explained(doing)()
    assert caught.value.code == Status.INTERRUPTED
    said = capsys.readouterr().err
    assert f"interrupted by {how}: doing\n    kernel one was being made ready (boot)\n" in said


@pytest.mark.parametrize("lines", [1, 100000])
def test_a_reader_that_has_gone_is_no_fault(lines: int) -> None:
    """As with head(1): no word of it, and the status of who dies of SIGPIPE."""
    code = f"import tasks; tasks._explained(lambda: print('x\\n' * {lines}))()"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, cwd=config.PROJECT,
        check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_another_pipe_that_breaks_is_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody does read what is printed here."""

    def doing() -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with pytest.raises(SystemExit) as caught:
        tasks._explained(doing)()
    assert caught.value.code == 3
    assert "Broken pipe" in capsys.readouterr().err
