# SPDX-License-Identifier: GPL-2.0-only
"""The one place that starts programs on the host.

Programs are argv lists, never shell strings. Each runs in a session of its own, so
that Ctrl-C reaches only the harness, which then ends its children in order; and each
dies with the harness, even when that is killed with SIGKILL.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness.errors import (
    MORE_SPACE,
    CommandError,
    DeadlineError,
    HarnessError,
    MissingToolError,
    NetworkError,
    SpaceError,
)
from harness.host.text import printable

_commands = logging.getLogger(__name__)

TAIL_LINES = 15


class Deadline:
    """A moment that a whole chain of calls shares; each takes what is left of it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.left == 0.0


@dataclass(frozen=True)
class Completed:
    """A host command that has ended; outputs are text, undecodable bytes replaced."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


class Child(subprocess.Popen[bytes]):
    """A program that ``popen`` started. When it has ended, what it started is ended too.

    A child leads a process group of its own, whose number is the child's. Once the child was
    waited for, the system may give that number to others, and a signal to the group would reach
    them. So the group is ended in the moment between the child's end, when its number is still
    taken, and the call that waits for it. After that nothing is sent to that number.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._reaping = threading.Lock()  # nobody waits for it while another sends to its group
        super().__init__(*arguments, **options)

    def poll(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it runs."""
        with self._reaping:
            if self.returncode is None and self._has_ended():
                super().wait()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; ``subprocess.TimeoutExpired`` after ``timeout`` seconds."""
        ended = -1
        with self._reaping, contextlib.suppress(ProcessLookupError):
            # The number is its own here, and the descriptor stays its own.
            if self.returncode is None:
                ended = os.pidfd_open(self.pid)
        if ended >= 0:
            try:
                asked = select.poll()
                asked.register(ended, select.POLLIN)
                if not asked.poll(None if timeout is None else max(0.0, timeout) * 1000):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            finally:
                os.close(ended)
            # Under strace or a debugger a process that has ended is theirs for a moment more.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        status = self.poll()
        assert status is not None
        return status

    def end_group(self) -> None:
        """Send SIGKILL to it and to what it started, unless it was waited for before."""
        with self._reaping:
            if self.returncode is None:
                self._end_group()

    def _has_ended(self) -> bool:
        """Whether it has ended; then what it has started is ended too."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT  # look, but leave it as it is (waitid(2))
        try:
            if os.waitid(os.P_PID, self.pid, flags) is None:
                return False
        except ChildProcessError:  # where SIGCHLD is ignored, the kernel waits for children
            return True
        self._end_group()
        return True

    def _end_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


# What was started and not yet handed to kill().
_alive: set[Child] = set()
# PR_SET_PDEATHSIG fires when the *thread* that forked ends, not the process, so every
# child is forked by one thread that lives as long as the process does.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="harness-spawner")


def popen(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start ``argv`` so that it dies with this process; None for a stream inherits it.

    ``setpriv`` asks the kernel for SIGKILL at the parent's death and ``sh`` checks that
    the parent had not died before that; both then exec, so the pid is the program's.
    """
    if _commands.isEnabledFor(logging.DEBUG):
        _commands.debug("$ %s", printable(shlex.join(argv)))
    guard = 'test "$PPID" = "$0" || exit 125; exec "$@"'
    wrapped = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", guard, str(os.getpid()), *argv]

    def start() -> Child:
        process = Child(
            wrapped,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
        # Here, and not by whoever waits for it, who may be interrupted before.
        _alive.add(process)
        return process

    future = _spawner.submit(start)
    try:
        return future.result()
    except FileNotFoundError as error:
        raise MissingToolError(
            f"cannot start {argv[0]}: {error}", hint="`invoke doctor` says what is missing"
        ) from error
    except BaseException:  # Ctrl-C, or a test's time limit: nobody else knows of it
        with contextlib.suppress(OSError):
            kill(future.result())
        raise


def leave_running(argv: Sequence[str], *, log: Path, deadline: Deadline) -> tuple[int, str]:
    """Start a program that outlives this process, because somebody wants to go on with it.

    Returns its pid and the first line that it says; raises ``DeadlineError`` if it does not
    say one in time. What it says after that goes nowhere, its errors go to ``log``.
    """
    with log.open("wb") as errors:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as stream:
        readable, _, _ = select.select([stream], [], [], deadline.left)
        line = stream.readline().decode(errors="replace").strip() if readable else ""
    if not line:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise DeadlineError(f"{argv[0]} did not start", command=argv, tail=_tail_of(log))
    process.returncode = 0  # it is nobody's child from now on; subprocess need not warn
    return process.pid, line


def kill(process: Child) -> None:
    """End a process that ``popen`` started, with whatever it started in its session."""
    process.end_group()
    process.wait()
    _alive.discard(process)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def end_all() -> None:
    """End all that this process has started: who waits for any of it goes on, with an error."""
    for process in list(_alive):
        process.end_group()


def run(
    argv: Sequence[str],
    *,
    deadline: Deadline,
    stdin: bytes | None = None,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    watch: Callable[[int], None] | None = None,
) -> Completed:
    """Run a host command to its end.

    With ``log`` both of its streams go to that file (appended) and ``stdout`` holds the
    end of it. Raises ``CommandError`` for a status that is not 0 (if ``check``),
    ``NetworkError`` or ``SpaceError`` where the output shows that one of these is the
    cause, ``DeadlineError`` when time is up, ``MissingToolError`` when there is no such
    program. Nothing is left running in any of these cases. ``watch`` is called with the pid, five
    times a second while it runs; what it raises ends the command.
    """
    with contextlib.ExitStack() as stack:
        out: int | IO[bytes] = subprocess.PIPE
        err: int | IO[bytes] = subprocess.PIPE
        if log is not None:
            out = stack.enter_context(log.open("ab"))
            err = subprocess.STDOUT
        process = popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=out,
            stderr=err,
            env=env,
            cwd=cwd,
        )
        stack.callback(kill, process)
        try:
            raw_out, raw_err = _communicate(process, stdin, deadline, watch)
        except subprocess.TimeoutExpired:
            raise DeadlineError(
                f"{argv[0]} did not end within {deadline.seconds:.0f} s",
                command=argv,
                log=log,
                tail=_tail_of(log),
            ) from None
    stdout = (raw_out or b"").decode(errors="replace") if log is None else _tail_of(log, 400)
    stderr = (raw_err or b"").decode(errors="replace")
    done = Completed(tuple(argv), process.returncode, stdout, stderr)
    if check and done.status != 0:
        raise failure(done, log)
    return done


WATCH_SECONDS = 0.2


def _communicate(
    process: subprocess.Popen[bytes],
    stdin: bytes | None,
    deadline: Deadline,
    watch: Callable[[int], None] | None,
) -> tuple[bytes, bytes]:
    """Popen.communicate(), with a look at the process now and then."""
    if watch is None:
        return process.communicate(stdin, timeout=deadline.left)
    while True:
        try:
            return process.communicate(stdin, timeout=min(WATCH_SECONDS, deadline.left))
        except subprocess.TimeoutExpired:
            if deadline.expired:
                raise
            watch(process.pid)
            stdin = None  # it has been given, and goes on being written


_FULL = 16 << 20  # bytes; less than what anything leaves free that did not fit


def no_space(folder: Path, doing: str) -> SpaceError | None:
    """The error for a disk that is full, of which a log on it may say nothing.

    ``doing`` begins the sentence, such as "unpacking failed".
    """
    if shutil.disk_usage(folder).free > _FULL:
        return None
    return SpaceError(
        f"{doing}: no space left in {folder.parent}",
        hint=MORE_SPACE,
    )


def failure(done: Completed, log: Path | None = None, *, doing: str = "") -> HarnessError:
    """The error for a command that failed, of the class that its output shows.

    ``doing`` says what it was for, and begins the sentence instead of the program's name.
    """
    doing = doing or f"{done.argv[0]} failed"
    output = done.stdout + done.stderr
    tail = "\n".join(output.splitlines()[-TAIL_LINES:])
    # So says the shell in popen() of what it was to become.
    if done.status == 127 and f"exec: {done.argv[0]}: not found" in output:
        return MissingToolError(
            f"{done.argv[0]} is not installed", hint="`invoke doctor` says how to install it"
        )
    if any(sign in output for sign in _SPACE_SIGNS):
        return SpaceError(
            f"{doing}: no space left on the device",
            tail=tail,
            log=log,
            hint=MORE_SPACE,
        )
    if unreachable(output):
        return NetworkError(
            f"{doing}: no package mirror could be reached",
            tail=tail,
            log=log,
            hint="check the network; what is cached already works without one",
        )
    return CommandError(doing, command=done.argv, status=done.status, tail=tail, log=log)


def unreachable(output: str) -> bool:
    """Whether a program says that it got no connection."""
    return any(sign in output for sign in _NETWORK_SIGNS)


_SPACE_SIGNS = (
    "No space left on device",
    "Disk quota exceeded",
    "You don't have enough free space",  # apt, before it downloads
)
# What apt says when a mirror cannot be reached (apt-pkg/acquire and its http method).
_NETWORK_SIGNS = (
    "Temporary failure resolving",
    "Could not resolve",
    "Could not connect",
    "Unable to connect",
    "Cannot initiate the connection",
    "Connection failed",
    "Connection timed out",
    "Network is unreachable",
)


def available_memory_mib() -> int:
    """Memory that programs can get without swapping (MemAvailable, proc_meminfo(5)), in MiB."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        facts = dict(line.split(":", 1) for line in stream)
    return int(facts["MemAvailable"].split()[0]) // 1024


def _tail_of(log: Path | None, lines: int = TAIL_LINES) -> str:
    if log is None or not log.exists():
        return ""
    with log.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 256 * lines))
        return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])
