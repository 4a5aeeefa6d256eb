# SPDX-License-Identifier: GPL-2.0-only
"""harness/host/proc.py: host commands end, leave nothing behind, and say why they failed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import config
from harness.errors import (
    CommandError,
    DeadlineError,
    HarnessError,
    MissingToolError,
    NetworkError,
    SpaceError,
)
from harness.host import proc
from harness.host.proc import Deadline

PATIENCE = 20.0  # seconds; only the end of patience, nothing here takes so long


def ends(pidfd: int) -> bool:
    """Wait until the process behind ``pidfd`` has ended; False if it goes on living."""
    return bool(select.select([pidfd], [], [], PATIENCE)[0])


class Pipe:
    """A FIFO in the file system, for processes that nobody hands a descriptor to."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def read(self) -> str:
        """What was written to it, once something was."""
        assert select.select([self._fd], [], [], PATIENCE)[0], "nobody wrote to the FIFO"
        return os.read(self._fd, 4096).decode()

    def close(self) -> None:
        os.close(self._fd)


class WhenSaid(Deadline):
    """A deadline that is over once a process has told its pid: no clock is involved."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__(PATIENCE)
        self._pipe = pipe
        self.pidfd = -1

    @property
    def left(self) -> float:
        if self.pidfd < 0:
            self.pidfd = os.pidfd_open(int(self._pipe.read()))
        return 0.0


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    """A FIFO of this test's own."""
    with contextlib.closing(Pipe(tmp_path / "fifo")) as made:
        yield made


def sh(script: str, *arguments: str) -> list[str]:
    return ["sh", "-c", script, "sh", *arguments]


# -- deadlines ---------------------------------------------------------------------


def test_a_deadline_counts_down_to_zero_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left shrinks with the clock, and is never negative."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(proc, "time", SimpleNamespace(monotonic=lambda: clock.now))
    deadline = Deadline(5)
    assert deadline.left == 5.0
    assert not deadline.expired
    clock.now += 2
    assert deadline.left == 3.0
    clock.now += 4
    assert deadline.left == 0.0
    assert deadline.expired


# -- running to the end ------------------------------------------------------------


def test_run_returns_status_and_both_outputs() -> None:
    """Exit status, standard output and standard error arrive apart."""
    done = proc.run(sh("echo out; echo err >&2; exit 3"), deadline=Deadline(PATIENCE), check=False)
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_a_command_is_shown_to_whoever_wants_to_know(caplog: pytest.LogCaptureFixture) -> None:
    """As a shell would take it; what is no sign of any kind does nothing to a terminal."""
    proc.run(sh("exit 0", "a b"), deadline=Deadline(PATIENCE))
    assert caplog.messages == []
    caplog.set_level("DEBUG", "harness")
    proc.run(["true", "a b", "\x1b[2J"], deadline=Deadline(PATIENCE))
    assert caplog.messages == ["$ true 'a b' '\\x1b[2J'"]


@pytest.mark.parametrize("order", [("1", "2"), ("2", "1")], ids=["stdout-first", "stderr-first"])
def test_both_streams_are_drained(order: tuple[str, str]) -> None:
    """A megabyte on each stream, more than any pipe holds, arrives whole in either order."""
    script = 'for fd in "$@"; do head -c 1000000 /dev/zero | tr "\\0" "$fd" >&"$fd"; done'
    done = proc.run(sh(script, *order), deadline=Deadline(PATIENCE))
    assert done.stdout == "1" * 1_000_000
    assert done.stderr == "2" * 1_000_000


def test_stdin_is_written_whole_and_closed() -> None:
    """The command reads all of ``stdin`` and then its end."""
    text = b"eudyptula\n" * 50_000
    done = proc.run(["cat"], deadline=Deadline(PATIENCE), stdin=text)
    assert done.stdout.encode() == text


def test_without_stdin_a_command_reads_nothing() -> None:
    """Nobody's terminal is read: a command without ``stdin`` meets the end at once."""
    reading, writing = os.pipe()
    os.write(writing, b"typed by somebody\n")
    os.close(writing)
    own = os.dup(0)
    os.dup2(reading, 0)
    try:
        done = proc.run(["cat"], deadline=Deadline(PATIENCE))
    finally:
        os.dup2(own, 0)
        os.close(own)
        os.close(reading)
    assert done.stdout == ""


def test_undecodable_output_is_replaced() -> None:
    """Bytes that are no UTF-8 do not raise."""
    done = proc.run(sh(r"printf 'a\377b'"), deadline=Deadline(PATIENCE))
    assert done.stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_cwd_and_env_are_the_commands_own(tmp_path: Path) -> None:
    """A command runs where it is told to, with the variables it is given."""
    done = proc.run(
        sh('pwd; echo "$WORD"'),
        deadline=Deadline(PATIENCE),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "WORD": "wee"},
    )
    assert done.stdout.splitlines() == [str(tmp_path), "wee"]


def test_a_log_takes_both_streams_and_is_appended_to(tmp_path: Path) -> None:
    """The log holds both streams after what it held before; ``stdout`` is its end."""
    log = tmp_path / "log"
    log.write_text("before\n")
    done = proc.run(sh("echo out; echo err >&2"), deadline=Deadline(PATIENCE), log=log)
    assert log.read_text() == "before\nout\nerr\n"
    assert done.stdout.splitlines()[-2:] == ["out", "err"]


def test_a_long_log_is_kept_whole_and_only_its_end_returned(tmp_path: Path) -> None:
    """A log of any length stays in its file; memory gets the last lines."""
    log = tmp_path / "log"
    done = proc.run(sh("seq 100000"), deadline=Deadline(PATIENCE), log=log)
    lines = done.stdout.splitlines()
    assert lines[-1] == "100000"
    assert len(lines) < 10_000
    assert log.read_text().splitlines()[0] == "1"


# -- how it fails ------------------------------------------------------------------


@pytest.mark.parametrize("logged", [False, True])
def test_a_failure_shows_command_status_and_last_lines(tmp_path: Path, logged: bool) -> None:
    """The error's text is enough to see what failed, how, and what it said last."""
    log = tmp_path / "the-log" if logged else None
    command = sh("seq 1000 1100; echo 'went wrong' >&2; exit 42", "a word")
    with pytest.raises(CommandError) as caught:
        proc.run(command, deadline=Deadline(PATIENCE), log=log)
    text = str(caught.value)
    assert "'a word'" in text
    assert "42" in text
    assert "went wrong" in text
    assert "\n1100\n" in text
    assert "\n1000\n" not in text
    assert caught.value.status == 42
    if log is not None:
        assert str(log) in text


@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("E: Temporary failure resolving 'mirror.example'", NetworkError),
        ("Could not resolve 'mirror.example'", NetworkError),
        ("Could not connect to mirror.example:80", NetworkError),
        ("Unable to connect to mirror.example:http:", NetworkError),
        ("Cannot initiate the connection to mirror.example:80", NetworkError),
        ("connect (101: Network is unreachable)", NetworkError),
        ("Connection timed out [IP: 192.0.2.1 80]", NetworkError),
        ("tar: x: Cannot write: No space left on device", SpaceError),
        ("cp: error writing 'x': Disk quota exceeded", SpaceError),
    ],
)
def test_a_failure_of_the_host_is_told_from_the_commands_own(
    tmp_path: Path, words: str, kind: type[HarnessError], logged: bool
) -> None:
    """What apt and the C library say of a host in trouble decides the error's class."""
    log = tmp_path / "log" if logged else None
    with pytest.raises(HarnessError) as caught:
        proc.run(sh('echo "$1" >&2; exit 100', words), deadline=Deadline(PATIENCE), log=log)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert caught.value.hint


def test_such_words_of_a_command_that_succeeds_are_only_words() -> None:
    """An exit status of 0 is success, whatever was printed."""
    done = proc.run(sh("echo No space left on device"), deadline=Deadline(PATIENCE))
    assert done.status == 0


@pytest.mark.parametrize("logged", [False, True])
def test_a_missing_program_is_named(tmp_path: Path, logged: bool) -> None:
    """A program that is not installed is the host's fault, and says which."""
    log = tmp_path / "log" if logged else None
    with pytest.raises(MissingToolError, match="no-such-program"):
        proc.run(["no-such-program"], deadline=Deadline(PATIENCE), log=log)


def test_a_program_that_lacks_another_is_not_called_missing() -> None:
    """`sh` is installed, even where a script of its names a program that is not."""
    with pytest.raises(HarnessError) as caught:
        proc.run(sh("no-such-program"), deadline=Deadline(PATIENCE))
    assert "sh is not installed" not in str(caught.value)


def test_out_of_time_ends_the_whole_process_group(pipe: Pipe) -> None:
    """At the deadline the command dies with what it started, and the error names it."""
    deadline = WhenSaid(pipe)
    with pytest.raises(DeadlineError, match="sh did not end"):
        proc.run(sh('sleep 1000 & echo $! >"$1"; wait', str(pipe.path)), deadline=deadline)
    assert ends(deadline.pidfd)
    os.close(deadline.pidfd)


def test_out_of_time_shows_what_the_log_has(tmp_path: Path, pipe: Pipe) -> None:
    """The error of a command that hangs has the end of its log."""
    script = 'echo "last" "words"; sleep 1000 & echo $! >"$1"; wait'
    deadline = WhenSaid(pipe)
    with pytest.raises(DeadlineError, match="last words"):
        proc.run(sh(script, str(pipe.path)), deadline=deadline, log=tmp_path / "log")
    os.close(deadline.pidfd)


def test_a_failed_command_leaves_nothing_running(pipe: Pipe) -> None:
    """What a command left in the background is ended too, as ``run`` promises."""
    script = 'sleep 1000 >/dev/null 2>&1 & echo $! >"$1"; read -r go; exit 1'
    pidfds: list[int] = []

    class Told(Deadline):
        @property
        def left(self) -> float:
            if not pidfds:
                pidfds.append(os.pidfd_open(int(pipe.read())))
            return PATIENCE

    with pytest.raises(CommandError):
        proc.run(sh(script, str(pipe.path)), deadline=Told(PATIENCE), stdin=b"go\n")
    gone = ends(pidfds[0])
    signal.pidfd_send_signal(pidfds[0], signal.SIGKILL)
    os.close(pidfds[0])
    assert gone


# -- children ----------------------------------------------------------------------


def test_a_child_has_a_session_of_its_own() -> None:
    """Ctrl-C reaches the harness alone, which ends its children in order."""
    process = proc.popen(["cat"], stdin=subprocess.PIPE)
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    finally:
        process.kill()
        process.communicate()


def test_the_pid_is_the_programs_own() -> None:
    """No wrapper stays between the harness and what it started."""
    process = proc.popen(sh("echo $$"), stdout=subprocess.PIPE)
    out, _ = process.communicate()
    assert int(out) == process.pid


def test_kill_is_content_with_a_process_that_has_ended() -> None:
    """Cleaning up twice, or late, raises nothing."""
    process = proc.popen(["true"])
    process.wait()
    proc.kill(process)
    proc.kill(process)
    assert process.returncode == 0


@pytest.mark.parametrize("end", [proc.kill, lambda _: proc.end_all()], ids=["kill", "end_all"])
def test_nothing_is_sent_to_a_process_that_was_waited_for(
    monkeypatch: pytest.MonkeyPatch, end: Callable[[proc.Child], None]
) -> None:
    """Its number, and that of its group, may be another's by then."""
    process = proc.popen(["true"])
    process.wait()
    killed: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _: killed.append(group))
    end(process)
    assert process.pid not in killed
    proc.kill(process)


@pytest.mark.parametrize("by", ["wait", "poll", "communicate"])
def test_what_a_process_has_started_ends_before_its_number_is_free(
    monkeypatch: pytest.MonkeyPatch, pipe: Pipe, by: str
) -> None:
    """The group is ended while the process still is there, as a zombie, and so has its number."""
    killpg = os.killpg
    states = []

    def watched(group: int, number: int) -> None:
        states.append(Path(f"/proc/{group}/stat").read_text().rpartition(")")[2].split()[0])
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", watched)
    process = proc.popen(sh('sleep 1000 & echo $! >"$1"', str(pipe.path)))
    left = os.pidfd_open(int(pipe.read()))
    while getattr(process, by)() is None:
        os.sched_yield()
    assert states == ["Z"]
    assert ends(left)
    os.close(left)
    proc.kill(process)
    assert states == ["Z"]


def test_waiting_has_a_limit() -> None:
    """As that of any process of subprocess."""
    process = proc.popen(["cat"], stdin=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(-1)
    assert process.poll() is None
    proc.kill(process)
    assert process.returncode == -signal.SIGKILL


def test_a_child_may_be_a_tracers_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under strace the descriptor says that it has ended before the parent may wait for it."""
    child, look = proc.popen(["true"]), os.waitid
    ready = False

    def later(kind: int, pid: int, flags: int) -> os.waitid_result | None:
        nonlocal ready
        if flags & os.WNOHANG and not ready:
            return None
        ready = True
        return look(kind, pid, flags)

    monkeypatch.setattr(os, "waitid", later)
    assert child.wait(PATIENCE) == 0


def test_children_that_the_kernel_waits_for_have_ended_too() -> None:
    """So it is for a process whose parent ignored SIGCHLD."""
    script = (
        "from harness.host import proc\nprocess = proc.popen(['true'])\nprint(process.wait())\n"
    )
    command = sh('trap \'\' CHLD; exec "$1" -c "$2"', sys.executable, script)
    done = proc.run(command, deadline=Deadline(PATIENCE), cwd=config.PROJECT)
    assert done.stdout == "0\n"


def test_descriptors_are_passed_on() -> None:
    """``pass_fds`` arrive in the program under their own numbers."""
    reading, writing = os.pipe()
    process = proc.popen(sh(f"echo hello >/proc/self/fd/{writing}"), pass_fds=[writing])
    os.close(writing)
    with open(reading) as stream:
        assert stream.read() == "hello\n"
    process.wait()


def test_a_child_dies_with_a_harness_that_is_killed() -> None:
    """Even SIGKILL, which nothing can clean up after, leaves no process behind."""
    script = (
        "import subprocess; from harness.host import proc\n"
        "child = proc.popen(['sh', '-c', 'echo $$; exec sleep 1000'], stdout=None)\n"
        "child.wait()\n"
    )
    harness = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=config.PROJECT
    )
    assert harness.stdout is not None
    pid = int(harness.stdout.readline())
    pidfd = os.pidfd_open(pid)
    harness.kill()
    harness.wait()
    harness.stdout.close()
    gone = ends(pidfd)
    if not gone:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert gone


def test_a_child_outlives_the_thread_that_asked_for_it() -> None:
    """A machine that a worker thread started is still there when the thread has ended."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        process = proc.popen(
            sh("echo ready; exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 100)  # it has become the program
        started.append(process)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    deadline = Deadline(PATIENCE)
    while Path(f"/proc/self/task/{thread.native_id}").exists() and not deadline.expired:
        os.sched_yield()
    out, _ = started[0].communicate(b"still here")
    assert out == b"still here"
    assert started[0].returncode == 0


class Interrupted:
    """A pool whose first answer is Ctrl-C, when the work has been done already."""

    def __init__(self, pool: ThreadPoolExecutor, by: type[BaseException]) -> None:
        self._pool = pool
        self._by = by
        self.work: Future[subprocess.Popen[bytes]] | None = None

    def submit(self, start: Callable[[], subprocess.Popen[bytes]]) -> Interrupted:
        self.work = self._pool.submit(start)
        self._interrupt = True
        return self

    def result(self) -> subprocess.Popen[bytes]:
        assert self.work is not None
        process = self.work.result()
        if self._interrupt:
            self._interrupt = False
            raise self._by
        return process


@pytest.mark.parametrize("by", [KeyboardInterrupt, pytest.fail.Exception])
def test_an_interrupted_start_leaves_no_program(
    monkeypatch: pytest.MonkeyPatch, by: type[BaseException]
) -> None:
    """Whoever asked for it never got it, and so cannot end it; nor does anybody wait for it.

    Ctrl-C is one interruption, a test's time limit another.
    """
    spawner = Interrupted(proc._spawner, by)
    monkeypatch.setattr(proc, "_spawner", spawner)
    with pytest.raises(by):
        proc.popen(["sleep", "1000"])
    assert spawner.work is not None
    assert spawner.work.result().returncode == -signal.SIGKILL


def test_available_memory_is_in_mib() -> None:
    """The number is of the size of this host's memory, not of bytes or pages."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    total = pages >> 20
    assert total >> 10 < proc.available_memory_mib() <= total
