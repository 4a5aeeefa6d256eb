# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/sweep.py: several kernels at once, and nothing that one does harms another."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness import config, lab
from harness.build import archive
from harness.config import GuestSpec, KernelSpec, Matrix
from harness.errors import (
    BootError,
    BuildError,
    CommandError,
    CommandFailed,
    GoneError,
    HarnessError,
    NetworkError,
    NotForKernelError,
    SpaceError,
    Status,
)
from harness.examine import loading
from harness.host import proc
from harness.host.cache import Cache
from harness.judge.problem import KernelProblem
from harness.judge.verdict import Problem, Verdict
from harness.lab import Lab
from harness.report.result import Cell, KernelResult
from harness.runs import store, sweep
from harness.runs.request import Plan, Request
from harness.runs.sweep import Ready, Sweep

SPECS = [KernelSpec(name, "trixie", "amd64", version="1-1") for name in ("a", "b", "c")]
MATRIX = Matrix("a", {spec.name: spec for spec in SPECS}, GuestSpec("trixie", (), ()))
PATIENCE = 20.0

JUNIT = (
    '<testsuites><testsuite><testcase classname="tests.vm.contract.test_contract" '
    'name="test_it" time="1"/></testsuite></testsuites>'
)
# A stand-in for pytest: it is told its kernel and where to write what it found.
PYTEST = """#!/bin/sh
for word; do
    case $word in
    --junitxml=*) junit=${word#*=} ;;
    --kernel=*) kernel=${word#*=} ;;
    --kernel-results=*) results=${word#*=} ;;
    esac
done
# Ends as pytest and the plugin do: with that status, and saying so.
ends() {
    echo '{"running": [], "crashed": [], "status": '${2-$1}', "pytest": '$1', "going_on": []}' \\
        >$results/progress.json
    exit $1
}
echo "$@" >>"$HERE/calls"
"""


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and cache of this test's own."""
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("EUDYPTULA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HERE", str(tmp_path))
    return tmp_path / "results"


@pytest.fixture
def plan() -> Plan:
    """A contract for the module."""
    return Plan(Request(), {"contract": "tests/vm/contract"})


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script in the place of pytest's Python."""

    def becomes(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"{PYTEST}{script}\nends 0\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    becomes(f"echo '{JUNIT}' >$junit")
    return becomes


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], Ready]]:
    """How each kernel becomes ready; by default at once and well."""
    how: dict[str, Callable[[], Ready]] = {}

    def make(spec: KernelSpec, *_: object) -> Ready:
        return how.get(spec.name, lambda: Ready(spec, f"6.1-{spec.name}", {}))()

    monkeypatch.setattr(sweep, "make_ready", make)
    return how


def sweep_of(plan: Plan, jobs: int, minutes: int | None = None) -> Sweep:
    request = replace(plan.request, jobs=jobs, minutes=minutes)
    return Sweep(replace(plan, request=request), MATRIX)


def run(plan: Plan, jobs: int = 2) -> list[KernelResult]:
    return sweep_of(plan, jobs).run(SPECS)


def test_a_red_test_is_named_when_it_is_red(
    plan: Plan, ready: dict[str, Callable[[], Ready]], python: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """With its kernel, for what pytest prints goes to a file."""
    caplog.set_level("INFO", "harness")
    python(f"echo \"a.py::test_$kernel: why\" >$results/red.txt; echo '{JUNIT}' >$junit; ends 1")
    run(plan)
    assert "kernel b: red: a.py::test_b: why" in [one.message for one in caplog.records]


# -- one kernel made ready ---------------------------------------------------------


class Stages:
    """A lab whose stages fail as they are told."""

    def __init__(self) -> None:
        self.fails: dict[str, BaseException] = {}
        self.warnings: tuple[str, ...] = ()
        # The locked one is gone from the archive, and a newer was taken.
        newer = replace(SPECS[0], version="1-2")
        self.kernel = SimpleNamespace(release="6.1.0-1-amd64", spec=newer)

    def _stage(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]

    def build(self, _: Path) -> object:
        self._stage("build")
        return SimpleNamespace(warnings=self.warnings, how="by Kbuild", digest="m")

    def template(self) -> None:
        self._stage("boot")

    def load(self, *_: object) -> None:
        self._stage("load")

    def prepare(self, *_: object) -> Lab:
        self._stage("prepare")
        return cast(Lab, self)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    """All that is below a sweep."""
    made = Stages()
    monkeypatch.setattr(lab, "prepare_lab", made.prepare)
    monkeypatch.setattr(loading, "loaded_template", made.load)
    monkeypatch.setattr(archive, "newest", lambda *_, **__: None)
    return made


def make_ready() -> Ready:
    return sweep.make_ready(SPECS[0], MATRIX, cast(Cache, None), Path("module"))


def test_a_kernel_that_becomes_ready_has_a_green_cell_for_each_stage(stages: Stages) -> None:
    """And the number of the compiler's warnings."""
    stages.warnings = ("x.c:1: warning: unused",)
    made = make_ready()
    assert {name: cell.text for name, cell in made.cells.items()} == {
        "boot": "ok", "build": "ok", "load": "ok", "warnings": "1",
    }  # fmt: skip
    assert not any(cell.red for cell in made.cells.values())
    assert made.spec.version == "1-2"
    assert (made.status, made.release) == (0, "6.1.0-1-amd64")


def test_a_module_is_loaded_only_for_tests_that_want_it_loaded(stages: Stages) -> None:
    """Which takes seconds. Others load it themselves, and say more of what is wrong with it."""
    stages.fails["load"] = CommandFailed("insmod: Operation not permitted")
    made = sweep.make_ready(SPECS[0], MATRIX, cast(Cache, None), Path("module"), load=False)
    assert "load" not in made.cells
    assert not any(cell.red for cell in made.cells.values())


COMPILER = """\
make: Entering directory '/usr/src'
  CC [M]  waitqueues.o
waitqueues.c: In function 'driver_write':
waitqueues.c:120:9: error: implicit declaration of function 'kmalloc_obj'
waitqueues.c:130:9: error: another
"""
FAULTS: dict[str, tuple[str, HarnessError, str, int, str]] = {
    "vanished": (
        "prepare", GoneError("kernel a: x is no longer there", hint="update"), "boot", 2,
        "kernel a: x is no longer there; update",
    ),
    "disk full at last": ("load", SpaceError("no space left"), "load", 3, "no space left"),
    "disk full": ("prepare", SpaceError("no space left"), "boot", 3, "no space left"),
    "not explained": (
        "prepare", CommandError("unpacking failed", tail="I: x\nE: first\nE: second\n"), "boot", 1,
        "unpacking failed: E: first",
    ),
    "does not compile": (
        "build", BuildError("module/ does not build for kernel a (6.1)", tail=COMPILER), "build", 1,
        "module/ does not build for kernel a (6.1): waitqueues.c:120:9: error: "
        "implicit declaration of function 'kmalloc_obj'",
    ),
    "does not link": (
        "build", BuildError("no", tail='ERROR: modpost: "x" [y.ko] undefined!\n'), "build", 1,
        'no: ERROR: modpost: "x" [y.ko] undefined!',
    ),
    "no Makefile": (
        "build", BuildError("no", tail="make:\nMakefile:4: *** missing separator.  Stop.\n"),
        "build", 1, "no: Makefile:4: *** missing separator.  Stop.",
    ),
    "no source": (
        "build", BuildError("no", tail="make[2]: *** No rule to make target 'x.o', needed by ''.\n"
                            "make[1]: *** [/usr/src/Makefile:2008: /mnt/module] Error 2\n"),
        "build", 1, "no: make[2]: *** No rule to make target 'x.o', needed by ''.",
    ),
    "script": (
        "build", BuildError("no", tail="get.sh: 3: wget: not found\n"
                            "make: *** No rule to make target 'x.ko'.  Stop.\n"),
        "build", 1, "no: get.sh: 3: wget: not found",
    ),
    "script and compiler": (
        "build", BuildError("no", tail="a.sh: line 3: pkg-config: command not found\n"
                            "x.c:1: error: y"),
        "build", 1, "no: x.c:1: error: y",
    ),
    "configure": (
        "build", BuildError("no", tail="checking for iptables\n! Error: Can not find iptables\n"
                            "Error! Bad return status for module build\n"),
        "build", 1, "no: ! Error: Can not find iptables",
    ),
    "no network card": (
        "boot", BootError("this kernel brought up no network card (virtio_net)"), "boot", 1,
        "this kernel brought up no network card (virtio_net)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_keeps_a_kernel_from_being_tested_is_one_line_in_its_row(
    stages: Stages, fault: str
) -> None:
    """In the cell of its stage, with the status that it alone would have given."""
    stage, error, cell, status, why = FAULTS[fault]
    stages.fails[stage] = error
    made = make_ready()
    assert made.cells[cell] == Cell(True, "red", why)
    assert made.status == status
    assert [name for name, each in made.cells.items() if each.red] == [cell]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KernelProblem([Problem(Verdict.SPLAT, "WARNING in my_init")]), "WARNING in my_init"),
        (CommandFailed("insmod: Operation not permitted"), "insmod: Operation not permitted"),
    ],
)
def test_a_module_that_does_not_load_is_tested_all_the_same(
    stages: Stages, error: Exception, why: str
) -> None:
    """Its row is red, and its tests show more."""
    stages.fails["load"] = error
    made = make_ready()
    assert made.cells["load"].red
    assert why in made.cells["load"].why
    assert made.status == 0


@pytest.mark.parametrize(
    ("newest", "left_out"),
    [(GoneError("Debian wee has no package x"), "Debian wee has no package x now"),
     (NetworkError("no mirror"), ""),
     (None, "")],
    ids=["none now", "not known", "another one"],
)  # fmt: skip
def test_a_suite_that_has_no_such_kernel_now_is_left_out(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, newest: HarnessError | None, left_out: str
) -> None:
    """Debian drops experimental's kernel in each cycle: nobody has broken anything."""

    def ask(*_: object, **__: object) -> object:
        if newest:
            raise newest
        return None

    monkeypatch.setattr(archive, "newest", ask)
    stages.fails["prepare"] = GoneError("kernel a: x is no longer there")
    spec = replace(SPECS[0], version="1-1")
    made = sweep.make_ready(spec, MATRIX, cast(Cache, None), Path("module"))
    assert made.left_out == left_out
    assert made.status == GoneError.exit_status


def test_a_module_that_is_not_for_a_kernel_says_why_and_for_which_it_is(stages: Stages) -> None:
    """In one line, which a card has."""
    stages.fails["build"] = NotForKernelError(
        "wee is not for kernel a: its dkms.conf says so", tail="no I2C\nBUILD_EXCLUSIVE_ARCH=no",
        hint="b has it",
    )  # fmt: skip
    assert make_ready().left_out == (
        "wee is not for kernel a: its dkms.conf says so: no I2C / BUILD_EXCLUSIVE_ARCH=no; b has it"
    )


# -- several -----------------------------------------------------------------------


def test_results_come_in_the_order_asked_for_and_are_kept(
    plan: Plan, ready: dict[str, Callable[[], Ready]], python: Callable[[str], None], results: Path
) -> None:
    """Each with its JUnit file, its log and its JSON."""
    found = run(plan)
    assert [(result.kernel, result.status) for result in found] == [("a", 0), ("b", 0), ("c", 0)]
    for result in found:
        assert result.cells["contract"] == Cell(False, "1 ok")
        assert store.last(result.kernel) == result
        folder = results / result.kernel
        assert {path.name for path in (folder / "latest").iterdir()} == {
            "given.json", "junit.xml", "kcidb.json", "progress.json", "pytest.log", "report.json",
        }  # fmt: skip
        for name in ("junit.xml", "report.json"):
            assert (folder / name).read_text() == (folder / "latest" / name).read_text()


def test_a_kernel_that_fails_is_a_red_row_and_the_others_go_on(
    plan: Plan, ready: dict[str, Callable[[], Ready]], python: Callable[[str], None]
) -> None:
    """Whether it cannot be had, is a bug of ours, or is just red."""

    def bug() -> Ready:
        raise ZeroDivisionError("a bug")

    ready["a"] = lambda: Ready(SPECS[0], "", {"boot": Cell(True, "red", "gone")}, 0.0, 2)
    ready["b"] = bug
    found = run(plan)
    assert [result.status for result in found] == [2, 70, 0]
    assert found[0].cells["boot"].why == "gone"
    assert found[1].cells["boot"].why == "ZeroDivisionError: a bug"


def test_what_the_host_lacks_is_not_a_kernels_last_result(
    plan: Plan, ready: dict[str, Callable[[], Ready]], python: Callable[[str], None]
) -> None:
    """A full disk makes the run red, and says nothing of the kernel."""
    ready["a"] = lambda: Ready(SPECS[0], "", {"boot": Cell(True, "red", "no space")}, 0.0, 3)
    ready["b"] = lambda: Ready(SPECS[1], "", {"boot": Cell(True, "red", "no boot")}, 0.0, 1)
    assert [result.status for result in run(plan)] == [3, 1, 0]
    assert store.last("a") is None
    assert store.last("b") is not None


@pytest.mark.parametrize(
    ("script", "status", "why"),
    [
        ("exit 0", 70, "pytest ended with status 0, and has not told a result"),
        ("ends 1", 70, "pytest left no result"),
        ("kill -9 $$", 70, "pytest was ended by SIGKILL, and has not told a result"),
        (f"echo '{JUNIT[:40]}' >$junit", 70, "not a JUnit file"),
        ("echo '<testsuites/>' >$junit; ends 5 2", 2, "no test matches"),
    ],
)
def test_a_pytest_that_ends_badly_is_never_green(
    plan: Plan,
    ready: dict[str, Callable[[], Ready]],
    python: Callable[[str], None],
    script: str,
    status: int,
    why: str,
) -> None:
    """Missing evidence is failure."""
    python(script)
    for result in run(plan):
        assert result.status == status
        assert not result.green
        assert why in result.cells["contract"].why


def test_a_disk_that_is_full_of_results_is_the_hosts_fault(
    plan: Plan,
    ready: dict[str, Callable[[], Ready]],
    python: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pytest cannot write what it has found, and ends as if the fault was its own."""
    python("exit 3")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    for result in run(plan):
        assert result.status == Status.HOST
        assert "no space left for the results" in result.cells["contract"].why
        assert store.last(result.kernel) is None


def test_somebody_elses_module_says_nothing_of_a_kernel(tmp_path: Path) -> None:
    """It may be red for reasons of its own."""
    suites = {"contract": "tests/vm/contract"}
    assert Plan(Request(), suites).whole
    assert not Plan(Request(expression="some"), suites).whole
    assert not Plan(Request(source=tmp_path / "module"), suites).whole


def test_a_cache_that_cannot_be_had_ends_it(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody waits for kernels that nobody makes ready."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EUDYPTULA_CACHE", str(tmp_path / "file"))
    with pytest.raises(HarnessError, match="cache"):
        run(plan)


def test_a_red_load_makes_a_row_red_even_if_its_tests_are_green(
    plan: Plan, ready: dict[str, Callable[[], Ready]], python: Callable[[str], None]
) -> None:
    """A module whose init warns is not right because a test did not look."""
    ready["a"] = lambda: Ready(SPECS[0], "", {"load": Cell(True, "red", "WARNING")})
    assert [result.status for result in run(plan)] == [1, 0, 0]


def test_one_kernel_is_made_ready_while_another_is_tested(
    plan: Plan, ready: dict[str, Callable[[], Ready]], python: Callable[[str], None], tmp_path: Path
) -> None:
    """The second waits for the first one's test to have begun, which waits for the second."""
    python(
        "touch $HERE/testing-$kernel; "
        f"until [ -e $HERE/ready-b ]; do sleep 0.01; done; echo '{JUNIT}' >$junit"
    )

    def second() -> Ready:
        deadline = proc.Deadline(PATIENCE)
        while not (tmp_path / "testing-a").exists():
            assert not deadline.expired, "the first kernel is not being tested"
        (tmp_path / "ready-b").touch()
        return Ready(SPECS[1], "")

    ready["b"] = second
    assert [result.status for result in run(plan, jobs=1)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("jobs", "left", "each"), [(2, 10, 1), (2, 1, 2), (8, 3, 2), (1, 1, 1), (8, 1, 8), (4, 0, 4)]
)
def test_jobs_are_shared_by_the_kernels_that_are_left(jobs: int, left: int, each: int) -> None:
    """Never more in all than there are, and always one."""
    assert sweep.share(jobs, left) == each


def test_the_last_kernel_gets_the_jobs_that_nobody_needs(
    plan: Plan, ready: dict[str, Callable[[], Ready]], python: Callable[[str], None], tmp_path: Path
) -> None:
    """With one kernel at a time, the last has all of them."""
    found = sweep_of(plan, jobs=1).run(SPECS[:1])
    assert found[0].green
    sweep_of(plan, jobs=3).run(SPECS[:1])
    first, second = (tmp_path / "calls").read_text().splitlines()
    assert " -n " not in first
    assert " -n 3" in second


def test_a_kernel_for_which_no_time_is_left_is_named_and_not_begun(
    plan: Plan, ready: dict[str, Callable[[], Ready]], python: Callable[[str], None], tmp_path: Path
) -> None:
    """Neither made ready nor tested; what was found before is kept, its last result too."""
    with store.begin("c", whole=True) as before:
        sweep.write_result(before, KernelResult("c", "r", "1-1", 1, 5.0, 1.0, 1.0, {}))
    made = sweep_of(plan, jobs=1, minutes=60)

    def last_in_time() -> Ready:
        made._deadline = proc.Deadline(0)
        return Ready(SPECS[1], "", {"boot": Cell(True, "red", "no network card")}, status=1)

    def first() -> Ready:
        return Ready(SPECS[0], "")

    def never() -> Ready:
        raise AssertionError("begun although no time was left")

    python(f"touch $HERE/tested; echo '{JUNIT}' >$junit")

    def second() -> Ready:
        deadline = proc.Deadline(PATIENCE)
        while not (tmp_path / "tested").exists():
            assert not deadline.expired
        return last_in_time()

    ready |= {"a": first, "b": second, "c": never}
    found = made.run(SPECS)
    assert [(result.status, result.left_out) for result in found] == [
        (0, False), (1, False), (0, True),
    ]  # fmt: skip
    assert found[1].cells["boot"].why == "no network card"
    assert found[2].cells["boot"] == Cell(False, "not run", "no time left after 60 minutes")
    last = store.last("c")
    assert last is not None
    assert last.status == 1


@pytest.mark.parametrize("problem", [False, True])
def test_a_kernel_that_became_ready_too_late_is_not_tested(
    plan: Plan,
    ready: dict[str, Callable[[], Ready]],
    python: Callable[[str], None],
    tmp_path: Path,
    problem: bool,
) -> None:
    """Else many would be made ready in time, and their tests would know no end.

    What is known to be red is not hidden by that.
    """
    made = sweep_of(plan, jobs=1, minutes=60)

    def late() -> Ready:
        made._deadline = proc.Deadline(0)
        return Ready(SPECS[0], "", {"load": Cell(True, "red", "WARNING")} if problem else {})

    ready["a"] = late
    found = made.run(SPECS)
    assert [result.left_out for result in found] == [not problem, True, True]
    assert found[0].status == int(problem)
    assert (tmp_path / "calls").exists() == problem


def test_an_interrupted_sweep_leaves_nothing_running(
    plan: Plan,
    ready: dict[str, Callable[[], Ready]],
    python: Callable[[str], None],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Ctrl-C: pytest may clean up, what is being made ready ends, no more is begun."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    python("trap 'echo cleaned >>$HERE/said; exit 130' INT\nkill -INT $PPID\nsleep 1000 & wait")
    ended = threading.Event()

    def second() -> Ready:
        try:
            for _ in range(2):  # what is begun when the end has come ends too
                with contextlib.suppress(HarnessError):
                    proc.run(["sleep", "1000"], deadline=proc.Deadline(1000), check=True)
        finally:
            ended.set()
        raise AssertionError("not reached")

    ready["b"] = second
    made = sweep_of(plan, jobs=1)
    with pytest.raises(KeyboardInterrupt):
        made.run(SPECS)
    assert made.results == {}  # the tests of the first were not over: it is not red
    assert store.last("a") is None
    assert ended.is_set()
    assert (tmp_path / "said").read_text() == "cleaned\n"
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    assert [process.args for process in proc._alive if process.poll() is None] == []
