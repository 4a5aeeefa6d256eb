# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/pytest_process.py: how pytest is started, and what its end means."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.errors import HostError, Status
from harness.host import proc
from harness.host.proc import Deadline
from harness.runs import pytest_process
from harness.runs.pytest_process import Ended


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
            'says \'"a.py::test_b"\' null null \'"a.py::test_c", "a.py::test_d"\'; exit 0',
            Ended(
                Status.OURS,
                why="pytest ended with status 0 while it ran a.py::test_b, and has not told a "
                "result; nobody knows what came in the ten minutes after a.py::test_c, "
                "a.py::test_d",
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
    monkeypatch.setattr(pytest_process, "SILENT_SECONDS", 3.0)
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
    # A run in the background may have been started with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


NAMED = """\
import pathlib
import time

import pytest

def test_fine():
    pass

def test_first():
    {fails}

def test_then():
    # With pytest-xdist another process prints it, a moment later.
    said = "\\nred: test_two.py::test_first: {why}\\n"
    end = time.monotonic() + 60
    while said not in pathlib.Path("out").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
"""


@pytest.mark.parametrize("jobs", [0, 1])
@pytest.mark.parametrize(
    ("fails", "why"),
    [
        ("raise ValueError('because')", "ValueError: because"),
        # Without a traceback, as the harness explains what a kernel has reported.
        ("pytest.fail('because\\nof that', pytrace=False)", "because"),
    ],
    ids=["traceback", "text"],
)
def test_a_red_test_is_named_while_others_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, fails: str, why: str
) -> None:
    """With why it is red, on a line of its own; pytest itself tells it at the end of all tests."""
    monkeypatch.setattr(config, "PROJECT", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    (tmp_path / "test_two.py").write_text(NAMED.format(fails=fails, why=why))
    with (tmp_path / "out").open("wb") as out:
        pytest_process.run(["test_two.py", f"-n{jobs}"], tmp_path / "results", out=out)
    assert "1 failed, 2 passed" in (tmp_path / "out").read_text()
    assert pytest_process.red(tmp_path / "results") == [f"test_two.py::test_first: {why}"]


def test_whoever_waits_is_told_what_is_red(python: Callable[[str], None], tmp_path: Path) -> None:
    """While pytest runs: this one waits for it. Of a run before, nothing is told."""
    (tmp_path / "red.txt").write_text("a.py::test_old: of another run\n")
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        (tmp_path / "told").touch()

    python(
        f"echo 'a.py::test_b: why' >>$results/red.txt\n"
        f"until [ -e {tmp_path}/told ]; do sleep 0.02; done\n"
        "echo 'a.py::test_c: why' >>$results/red.txt\nprintf half >>$results/red.txt; ends 1"
    )
    process = pytest_process.PytestProcess(["tests"], tmp_path)
    assert process.wait(tell=tell).status == Status.RED
    assert told == ["a.py::test_b: why", "a.py::test_c: why"]


def test_a_red_test_is_one_line_whatever_it_says(tmp_path: Path) -> None:
    """Its name may hold what somebody's module has printed."""
    pytest_process.add_red(tmp_path / "new", "a.py::test_b[\x1b[2J\nred\udc80]: why")
    pytest_process.add_red(tmp_path / "new", "a.py::test_c: why")
    assert pytest_process.red(tmp_path / "new") == [
        "a.py::test_b[\\x1b[2J red\\udc80]: why", "a.py::test_c: why",
    ]  # fmt: skip


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


COLLECTED = """\
import pathlib
here = pathlib.Path(__file__).parent
def pytest_collection_finish(): (here / "collected").touch()
def pytest_runtest_setup(): (here / "tested").touch()
def pytest_unconfigure(): (here / "ended").touch()
"""


def awaited(path: Path) -> None:
    deadline = Deadline(120)
    while not path.exists():
        assert not deadline.expired
        time.sleep(0.01)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_pytest_knows_what_was_checked_and_its_tests_do_not_pass_it_on(
    tmp_path: Path, workers: str
) -> None:
    """Each process that runs tests believes it; what a test starts has to check for itself."""
    test = tmp_path / "test_it.py"
    test.write_text(
        "import os\n"
        "from harness.host import cache\n"
        "def test_it():\n"
        "    assert cache._vouched == {'/entry.json': (1, 2, 3)}\n"
        "    assert 'EUDYPTULA_WAITS' not in os.environ\n"
    )
    given = [str(test), "-p", "no:cacheprovider", "-n", workers, "--rootdir", str(tmp_path)]
    checked = '{"until": 1.5, "manifests": {"/entry.json": [1, 2, 3]}}'
    with (tmp_path / "out").open("wb") as out:
        ended = pytest_process.run(given, tmp_path / "run", out=out, prepare=lambda _: checked)
    assert ended == Ended(Status.GREEN), (tmp_path / "out").read_text()


def test_pytest_begins_before_all_is_ready_and_says_nothing_until_then(tmp_path: Path) -> None:
    """What it needs is imported meanwhile."""
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(
        f"import pathlib; pathlib.Path({str(tmp_path / 'read')!r}).touch()\n"
    )
    printed = tmp_path / "out"

    def prepare(_: object) -> str:
        awaited(tmp_path / "read")
        assert printed.read_text() == ""
        return "{}"

    with printed.open("wb") as out:
        ended = pytest_process.run(
            [str(tmp_path / "test_it.py"), "-p", "no:cacheprovider"], tmp_path / "run", out=out,
            prepare=prepare,
        )  # fmt: skip
    assert ended == Ended(Status.GREEN), printed.read_text()
    assert "1 passed" in printed.read_text()


@pytest.mark.parametrize(
    "error", [HostError("no kernel"), KeyboardInterrupt()], ids=["fault", "^C"]
)
def test_a_pytest_that_has_nothing_to_test_ends_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """What was raised is what is said."""
    started: list[proc.Child] = []
    popen = proc.popen

    def seen(*arguments: Any, **options: Any) -> proc.Child:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(proc, "popen", seen)

    def prepare(_: object) -> str:
        raise error

    with (tmp_path / "out").open("wb") as out, pytest.raises(type(error)):
        pytest_process.run([str(tmp_path)], tmp_path / "run", out=out, prepare=prepare)
    assert started[0].returncode is not None
    assert (tmp_path / "out").read_text() == ""


@pytest.fixture
def collects(tmp_path: Path) -> list[str]:
    """The arguments for a pytest that leaves files when it has collected, tests and ends."""
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(COLLECTED)
    return [str(tmp_path / "test_it.py"), "-p", "no:cacheprovider"]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_tests_are_collected_once_the_kernel_is_there(
    tmp_path: Path, collects: list[str], workers: str
) -> None:
    """And run once the module is."""

    def prepare(know: Callable[[str], None]) -> str:
        know("{}")
        awaited(tmp_path / "collected")
        assert not (tmp_path / "tested").exists()
        return "{}"

    with (tmp_path / "out").open("wb") as out:
        ended = pytest_process.run(
            [*collects, "-n", workers], tmp_path / "run", out=out, prepare=prepare
        )
    assert ended == Ended(Status.GREEN), (tmp_path / "out").read_text()
    assert (tmp_path / "tested").exists()


def test_the_first_machine_is_made_while_the_module_is_built(
    tmp_path: Path, collects: list[str]
) -> None:
    """Of what is tested by this process itself."""
    with (tmp_path / "conftest.py").open("a") as file:
        file.write("from harness.plugin import hooks\n"
                   "hooks.make_first = lambda item: (here / item.name).touch()\n")  # fmt: skip

    def prepare(know: Callable[[str], None]) -> str:
        know("{}")
        awaited(tmp_path / "test_it")
        return "{}"

    with (tmp_path / "out").open("wb") as out:
        ended = pytest_process.run(collects, tmp_path / "run", out=out, prepare=prepare)
    assert ended == Ended(Status.GREEN), (tmp_path / "out").read_text()


def test_where_somebody_sees_it_nothing_is_said_before_all_is_ready(
    tmp_path: Path, collects: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """The module may not be built, and then nothing is tested."""

    def prepare(know: Callable[[str], None]) -> str:
        know("{}")
        raise HostError("no module")

    with pytest.raises(HostError):
        pytest_process.run(collects, tmp_path / "run", prepare=prepare)
    assert capfd.readouterr().out == ""
    assert not (tmp_path / "collected").exists()


def test_a_pytest_that_has_collected_in_vain_ends_by_itself(
    tmp_path: Path, collects: list[str]
) -> None:
    """It may have a machine, which it removes."""

    def prepare(know: Callable[[str], None]) -> str:
        know("{}")
        awaited(tmp_path / "collected")
        raise HostError("no module")

    with (tmp_path / "out").open("wb") as out, pytest.raises(HostError):
        pytest_process.run(collects, tmp_path / "run", out=out, prepare=prepare)
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "tested").exists()


def test_a_pytest_whose_task_ends_before_the_module_is_there_tests_nothing(
    tmp_path: Path, collects: list[str]
) -> None:
    """Whoever has told it of the kernel was killed."""
    with (tmp_path / "out").open("wb") as out:
        process = pytest_process.PytestProcess(collects, tmp_path / "run", out=out, waits=True)
        process.know("{}")
        process._close()
        assert process.wait().status == Status.INPUT
    assert not (tmp_path / "tested").exists()


def test_a_pytest_that_has_ended_before_all_is_ready_is_told(
    python: Callable[[str], None], tmp_path: Path
) -> None:
    """As of arguments that it does not understand, which it says itself."""
    python(f": >{tmp_path}/gone; exit 4")

    def prepare(_: object) -> str:
        awaited(tmp_path / "gone")
        return "{}"

    ended = pytest_process.run(["tests"], tmp_path, prepare=prepare)
    assert ended == Ended(Status.INPUT, why="pytest did not accept its arguments")


def test_a_pytest_whose_task_has_ended_tests_nothing(tmp_path: Path) -> None:
    """It is told nothing at all then."""
    process = pytest_process.PytestProcess([str(tmp_path)], tmp_path / "run", waits=True)
    process._close()
    assert process.wait().status == Status.INPUT


def test_a_name_is_a_filter_without_asking_pytest() -> None:
    """To import pytest takes a tenth of a second, in a process that needs nothing else of it."""
    code = (
        "import sys; from harness.runs.pytest_process import check_filter; "
        "check_filter('test_write'); assert '_pytest' not in sys.modules; "
        "check_filter('write or test_read'); assert '_pytest' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=config.PROJECT)


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


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C does what it does: a run in the background may have been started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_run_lets_pytest_clean_up(
    python: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is passed on and waited for: pytest ends its machines itself."""
    python(
        f"trap 'echo cleaned >{tmp_path}/said; kill $!; exit 130' INT\n"
        f"sleep 1000 &\nuntil [ -e {tmp_path}/started ]; do :; done\nkill -INT $PPID\nwait"
    )
    popen = proc.popen

    def started(*args: Any, **kwargs: Any) -> Any:
        process = popen(*args, **kwargs)
        wait = process.wait

        def waited(seconds: float | None = None) -> int:
            (tmp_path / "started").touch()
            return wait(seconds)

        monkeypatch.setattr(process, "wait", waited)
        return process

    monkeypatch.setattr(proc, "popen", started)
    with pytest.raises(KeyboardInterrupt):
        pytest_process.run(["tests"], tmp_path)
    assert (tmp_path / "said").read_text() == "cleaned\n"


def test_a_pytest_that_does_not_heed_is_killed(
    python: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it gets to know how it ended."""
    monkeypatch.setattr(pytest_process, "CLEANUP_SECONDS", 0.2)
    os.mkfifo(tmp_path / "started")
    python(f"trap '' INT; echo >{tmp_path}/started; sleep 1000 & wait; wait")
    process = pytest_process.PytestProcess(["tests"], tmp_path)
    (tmp_path / "started").read_text()  # until that was reached
    process.end()
    ended = process.wait()
    assert ended.status == Status.OURS
    assert "was ended by SIGKILL" in ended.why


@pytest.mark.usefixtures("ctrl_c")
def test_what_is_done_meanwhile_does_not_outlive_pytest(
    python: Callable[[str], None], tmp_path: Path
) -> None:
    """It is done beside pytest, and an interruption that comes in it ends pytest, too."""
    os.mkfifo(tmp_path / "begun")
    python(
        f"trap 'echo cleaned >{tmp_path}/said; kill $!; exit 130' INT\n"
        f"sleep 1000 &\necho >{tmp_path}/begun\nwait"
    )

    def interrupted() -> None:
        (tmp_path / "begun").read_text()  # until pytest has begun
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pytest_process.run(["tests"], tmp_path, meanwhile=interrupted)
    assert (tmp_path / "said").read_text() == "cleaned\n"


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_run_says_what_was_red(
    python: Callable[[str], None], tmp_path: Path
) -> None:
    """At the end, where a person looks; of very many only some."""
    os.mkfifo(tmp_path / "begun")
    python(
        "for n in $(seq 25); do echo a.py::test_$n: why; done >$results/red.txt\n"
        f"trap 'kill $!; exit 130' INT\nsleep 1000 &\necho >{tmp_path}/begun\nwait"
    )

    def interrupted() -> None:
        (tmp_path / "begun").read_text()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        pytest_process.run(["tests"], tmp_path, meanwhile=interrupted)
    notes = caught.value.__notes__
    assert notes[:2] == ["red: a.py::test_1: why", "red: a.py::test_2: why"]
    assert notes[20:] == ["and 5 more were red"]


@pytest.mark.parametrize(
    ("cores", "memory_mib", "jobs"), [(2, 8192, 2), (16, 8192, 8), (8, 500, 1), (1, 64000, 1)]
)
def test_jobs_are_what_cores_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory_mib: int, jobs: int
) -> None:
    """A machine for each core, if each can have its memory, and always one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(proc, "available_memory_mib", lambda: memory_mib)
    assert pytest_process.default_jobs() == jobs
