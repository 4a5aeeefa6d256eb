# SPDX-License-Identifier: GPL-2.0-only
"""The guest, over SSH: run a command, put and get a file, read the kernel's log.

One SSH connection serves many commands. No key, agent or configuration of the user's is
used, the guest's host key is pinned, and every wait has a deadline.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import re
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

import paramiko

from harness.build.image import Keys
from harness.errors import CommandFailed, CommandTimeout, GuestBusy, GuestError, GuestLost
from harness.host import text as texts
from harness.host.proc import Deadline
from harness.host.text import taint_mask
from harness.machines.session import SHELLS, Session, Transport

# Makes the deadline for what takes at most so many seconds elsewhere: Machine.patience.
DeadlineFactory = Callable[[float], Deadline]

COMMAND_SECONDS = 30.0
CONNECT_SECONDS = 20.0
# How long, on the host, the guest's own time may take to pass where its clock runs ahead.
PASS_SECONDS = 20.0
_UPTIME_SECONDS = 0.02  # /proc/uptime has hundredths, and cuts off the rest
GET_BYTES = 256 << 20  # of a file that is fetched; a guest has 512 MiB of memory
# After its exit status is known, how long a command's output may still be on its way; a
# process that it left behind may hold the stream open for ever.
_GRACE_SECONDS = 1.0
_ROUND_SECONDS = 0.05
# How many characters of a command's output an error shows.
_TAIL = 8192


# What follows a command in its shell. The shell is to live and tell how the command ended, since
# SSH's word for death by a signal has no number. And it waits for a child, so that it sleeps once
# before it ends: the kernel then reports an RCU read-side section that a call of the shell's has
# not left. The end of a process leaves such sections silently (kernel/rcu/tree_plugin.h,
# exit_rcu()). The child ends only when it sees that its parent sleeps: a parent that was
# interrupted before it waits would find that the child has ended, and not sleep. Where the kernel
# has reported a warning or an oops already (512 and 128 of its taint flags), more of the same
# process may be the end of it, and would say nothing more.
_LAST_WORDS = r"""
_eudyptula_status=$?
read -r _eudyptula_taint 2>/dev/null </proc/sys/kernel/tainted || :
[ $((${_eudyptula_taint:-0} & 640)) -ne 0 ] || (
    _eudyptula_turn=0
    while read -r _eudyptula_state </proc/$$/stat && [ $_eudyptula_turn -lt 100 ]
    do
        case $_eudyptula_state in *") R "*) ;; *) break ;; esac
        _eudyptula_turn=$((_eudyptula_turn + 1))
    done
) 2>/dev/null
exit $_eudyptula_status"""


@dataclass(frozen=True)
class CommandResult:
    """A command that has ended in the guest.

    ``status`` is its exit status as the shell has it in ``$?``: 128 + N if signal N ended
    it; -1 if a signal ended the shell itself. ``seconds`` is how long it took as seen from
    the host. ``cut``: it printed more than is kept of a stream (``Running.KEPT_BYTES``), of which
    the beginning is here.
    """

    command: str
    status: int
    stdout: str
    stderr: str
    seconds: float
    cut: bool = False

    @property
    def ok(self) -> bool:
        return self.status == 0


@dataclass(frozen=True)
class Passed:
    """Time that has passed in a guest: ``seconds`` of its own.

    ``wakeups`` says of each task that woke up meanwhile, as NAME/PID, how often a second it did,
    the busiest first, and the kernel's own timer threads last. A task that polls is among the
    first.
    """

    seconds: float
    wakeups: Mapping[str, float]


# A kernel with PREEMPT_RT lets a thread of each CPU run the timers of all others (ktimerd in
# kernel/softirq.c), and one the rest of what interrupts put off.
_TIMER_THREAD = re.compile(r"(?:ktimers|ksoftirqd)/\d")


def busiest_first(rates: Mapping[str, float]) -> dict[str, float]:
    """Tasks by their names, who woke up the most often first.

    A thread that runs others' timers wakes up before each of them, and comes last: it is named
    where nobody else was woken.
    """
    order = sorted(rates, key=lambda who: (bool(_TIMER_THREAD.match(who)), -rates[who]))
    return {who: rates[who] for who in order}


@contextlib.contextmanager
def _limited(deadline: Deadline, end: Callable[[], object]) -> Iterator[None]:
    """Call ``end`` if what is done here is not done in time.

    paramiko has limits for some of what it waits for, but none that can be put off meanwhile.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(deadline.left):
            if deadline.expired:
                end()
                return

    threading.Thread(target=watch, name="harness-ssh-limit", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def known_host(port: int, keys: Keys) -> str:
    """The guest's key as a line of a known_hosts file, at a port of 127.0.0.1 (sshd(8)).

    A public key begins with the name of its algorithm (RFC 4253, section 6.6).
    """
    kind = paramiko.Message(base64.b64decode(keys.host)).get_text()
    return f"[127.0.0.1]:{port} {kind} {keys.host}\n"


@functools.cache
def _client_key(path: Path) -> paramiko.PKey:
    """A private key. Checking an RSA key takes longer than waking a guest, so it is done once."""
    return paramiko.PKey.from_path(path)


Channel: TypeAlias = paramiko.Channel  # what ``Guest.shell`` returns


class Guest:
    """What runs in a machine, reached over SSH as root.

    ``patience`` makes a deadline for what takes at most so many seconds elsewhere.
    """

    def __init__(self, transport: Transport, patience: DeadlineFactory) -> None:
        self._transport = transport
        self.patience = patience
        self.after: Callable[[], None] | None = None  # is called when a command has ended
        self.commands = 0  # how many were begun
        # Where the guest's clock can run ahead: its time passes within ``during`` only, and within
        # ``leap`` the clock jumps over what the guest sleeps.
        self.during: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        self.leap: Callable[[], AbstractContextManager[None]] | None = None

    @classmethod
    def connect(cls, port: int, keys: Keys, *, patience: DeadlineFactory = Deadline) -> Guest:
        """Open the SSH connection on 127.0.0.1; raises ``GuestLost``."""
        deadline = patience(CONNECT_SECONDS)
        try:
            stream = socket.create_connection(("127.0.0.1", port), timeout=deadline.left)
        except OSError as error:
            raise GuestLost(f"the guest does not answer over SSH: {error}") from error
        return cls.over(stream, keys, patience=patience)

    @classmethod
    def over(
        cls, stream: socket.socket, keys: Keys, *, patience: DeadlineFactory = Deadline
    ) -> Guest:
        """The SSH client's part on a stream to the guest's server; raises ``GuestLost``."""
        deadline = patience(CONNECT_SECONDS)
        transport = None
        try:
            transport = Transport(stream)
            # The deadline is looked at here, since it may be put off meanwhile.
            transport.banner_timeout = transport.handshake_timeout = 10 * CONNECT_SECONDS
            transport.auth_timeout = 10 * CONNECT_SECONDS
            agreed = threading.Event()
            transport.start_client(event=agreed)
            while not agreed.wait(min(1.0, deadline.left)) and transport.is_alive():
                if deadline.expired:
                    raise GuestLost(
                        "the guest does not answer over SSH: no handshake in "
                        f"{deadline.seconds:.0f} s"
                    )
            if not transport.is_active():
                raise transport.get_exception() or paramiko.SSHException("it hung up")
            if transport.get_remote_server_key().get_base64() != keys.host:
                raise GuestLost("the SSH server that answered is not the guest's")
            with _limited(deadline, transport.close):
                transport.auth_publickey("root", _client_key(keys.client))
        except GuestLost:
            if transport is not None:
                transport.close()
            raise
        except (paramiko.SSHException, OSError, EOFError) as error:
            if transport is not None:
                transport.close()
            raise GuestLost(f"the guest does not answer over SSH: {error}") from error
        return cls(transport, patience)

    @classmethod
    def resume(
        cls, stream: socket.socket, session: Session, *, patience: DeadlineFactory = Deadline
    ) -> Guest:
        """Go on with a session that was frozen with the guest; raises ``GuestLost``.

        Nothing is sent yet.
        """
        transport = Transport(stream, session)
        try:
            transport.go_on()
        except (paramiko.SSHException, OSError, EOFError) as error:
            transport.close()
            raise GuestLost(f"the frozen SSH session does not go on: {error}") from error
        return cls(transport, patience)

    def run(
        self,
        command: str,
        *,
        timeout: float = COMMAND_SECONDS,
        stdin: bytes = b"",
        user: str = "root",
    ) -> CommandResult:
        """Run a shell command and say how it ended, whatever its exit status.

        Raises ``CommandTimeout`` when it has not ended after ``timeout`` seconds (longer where
        the guest is seen to be slow), and ``GuestLost`` when the connection breaks.
        """
        __tracebackhide__ = True
        with self.spawn(command, user=user) as process:
            result = process.wait(timeout, stdin)
        if self.after is not None:
            self.after()
        return result

    def check(
        self,
        command: str,
        *,
        timeout: float = COMMAND_SECONDS,
        stdin: bytes = b"",
        user: str = "root",
    ) -> str:
        """Run a shell command that must succeed; its standard output.

        Raises ``CommandFailed`` with what it said on its standard error; also where it printed
        more than is kept, since part of an answer is not the answer.
        """
        __tracebackhide__ = True
        result = self.run(command, timeout=timeout, stdin=stdin, user=user)
        if result.cut:
            raise CommandFailed(
                f"in the guest, `{command}` printed more than the {Running.KEPT_BYTES >> 20} MiB "
                "that are kept",
                hint="Guest.run returns what was kept",
            )
        if not result.ok:
            raise CommandFailed(
                f"in the guest, `{command}` ended with status {result.status}",
                tail=texts.end((result.stdout + result.stderr).strip(), _TAIL),
            )
        return result.stdout

    def spawn(self, command: str, *, user: str = "root") -> Running:
        """Start a shell command and go on; see ``Running``."""
        self.commands += 1
        if user != "root":
            quoted = shlex.quote(f"{command}{_LAST_WORDS}")
            group = f'"$(id -g {user})"'
            command = f"setpriv --reuid {user} --regid {group} --init-groups sh -c {quoted}"
        ends = contextlib.ExitStack()
        ends.enter_context(self.during())
        try:
            with _limited(self.patience(CONNECT_SECONDS), self._transport.close):
                channel = self._transport.begin(f"{command}{_LAST_WORDS}", 10 * CONNECT_SECONDS)
        except (paramiko.SSHException, OSError, EOFError) as error:
            ends.close()
            raise GuestLost(f"the guest does not take the command `{command}`: {error}") from error
        except BaseException:  # such as a test's time limit
            ends.close()
            raise
        return Running(command, channel, self.patience, ends)

    def pass_time(self, seconds: float) -> Passed:
        """Let ``seconds`` of the guest's own time pass; what was going on meanwhile.

        In a machine whose clock runs ahead that takes a moment, as long as the guest sleeps.
        Raises ``GuestBusy`` where it has not passed after ``PASS_SECONDS`` of the host's, and
        ``GuestError`` where the wait ended before.
        """
        __tracebackhide__ = True
        before, started = self._wakeups()
        late = False
        status, said = 0, ""
        leap = self.leap or contextlib.nullcontext
        limit = PASS_SECONDS if self.leap else seconds + PASS_SECONDS
        with self.spawn(f"exec sleep {seconds}") as process, leap():
            try:
                status, _, said = process.finish(limit)
            except CommandTimeout:
                late = True
        after, ended = self._wakeups()
        passed = ended - started
        if not late and (status or passed < seconds - _UPTIME_SECONDS):
            raise GuestError(
                f"in the guest, {passed:.0f} of {seconds:g} s have passed: `sleep` ended before, "
                f"with status {status}",
                tail=texts.beginning(said, 500),
            )
        often = {
            who: (count - before.get(who, 0)) / passed
            for who, count in after.items()
            if count > before.get(who, 0)
        }
        wakeups = busiest_first(often)
        if late:
            worst = ", ".join(f"{who} ({rate:.0f} times a second)" for who, rate in wakeups.items())
            raise GuestBusy(
                f"in the guest, {passed:.0f} of {seconds:g} s have passed in {PASS_SECONDS:.0f} s "
                "of the host's, because it does not sleep",
                tail=texts.beginning(f"what woke up: {worst}", 500),
            )
        return Passed(passed, wakeups)

    def _wakeups(self) -> tuple[dict[str, int], float]:
        """How often each task has gone to sleep by itself, by NAME/PID, and the time now.

        The fields are those of proc_pid_status(5) and proc_uptime(5).
        """
        said = self.check(
            "cat /proc/uptime; grep -s -e ^Name: -e ^Pid: -e ^voluntary /proc/[0-9]*/status; true"
        )
        first, _, rest = said.partition("\n")
        found: dict[str, int] = {}
        facts: dict[str, str] = {}
        for line in rest.splitlines():
            key, _, value = line.partition("status:")[2].partition(":")
            facts[key] = value.strip()
            if key == "voluntary_ctxt_switches":
                found[f"{facts.get('Name')}/{facts.get('Pid')}"] = int(value)
        return found, float(first.split()[0])

    def put(self, source: Path | str | bytes, target: str, *, mode: int = 0o644) -> None:
        """Write a file in the guest from a file of the host, named by a path, or from bytes."""
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        path = shlex.quote(target)
        self.check(f"cat >{path} && chmod {mode:o} {path}", stdin=data)

    def get(self, source: str, *, limit: int = GET_BYTES) -> bytes:
        """The content of a file in the guest.

        Raises ``CommandFailed`` if it cannot be read, or has more than ``limit`` bytes.
        """
        with self.spawn(f"cat -- {shlex.quote(source)}") as process:
            process.kept_bytes = limit
            status, _, stderr = process.finish(COMMAND_SECONDS)
            if status != 0:
                raise CommandFailed(f"cannot get {source} from the guest", tail=stderr)
            if process.cut:
                raise CommandFailed(f"{source} in the guest has more than {limit} bytes")
            return process.raw_output

    def dmesg(self) -> str:
        """The kernel's log, from the start of its buffer."""
        return self.check("dmesg")

    def taint(self) -> int:
        """The kernel's taint flags, a bit mask (Documentation/admin-guide/tainted-kernels)."""
        said = self.check("cat /proc/sys/kernel/tainted")
        taint = taint_mask(said)
        if taint is None:
            raise GuestError("/proc/sys/kernel/tainted holds no taint flags", tail=said)
        return taint

    def shell(self, command: str, terminal: str, columns: int, rows: int) -> paramiko.Channel:
        """A channel that runs ``command``, with a ``terminal`` of that name if there is one."""
        try:
            channel = self._transport.open_session(timeout=CONNECT_SECONDS)
            if terminal:
                channel.get_pty(terminal, columns, rows)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise GuestLost(f"the guest opens no shell: {error}") from error
        return channel

    def open_shells(self, count: int = SHELLS) -> None:
        """Have ``count`` shells in the guest wait for a command each; raises ``GuestLost``."""
        try:
            with _limited(self.patience(CONNECT_SECONDS), self._transport.close):
                for _ in range(count):
                    self._transport.open_shell(10 * CONNECT_SECONDS)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise GuestLost(f"the guest opens no shell that waits: {error}") from error

    def session(self, deadline: Deadline) -> Session:
        """The session with its waiting shells, once the guest has been stopped for good."""
        self._transport.join(deadline.left)
        if self._transport.is_alive():
            raise GuestLost("the connection to a guest that has ended does not end")
        return self._transport.session()

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def has_ended(channel: Channel) -> bool:
    """Whether both streams of a command are read to their end and its exit status is known."""
    # In this order: another thread fills the streams, and nothing comes after their end.
    ended = channel.closed or (channel.eof_received and channel.exit_status_ready())
    return bool(ended) and not (channel.recv_ready() or channel.recv_stderr_ready())


class _Arrival(threading.Event):
    """Wakes up whoever waits for data on one of a channel's two streams.

    paramiko's own means is ``Channel.fileno()``, the end of a pipe. ``Channel.close()`` closes that
    pipe while the thread that receives may be writing to it. The write then fails, and with it the
    whole connection, or it reaches a file that got the same number meanwhile.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        super().__init__()
        channel.in_buffer.set_event(self)
        channel.in_stderr_buffer.set_event(self)

    def clear(self) -> None:
        """Nothing: paramiko calls it when one stream is empty, and the other may not be."""

    def wait_for_data(self, seconds: float) -> bool:
        """Wait until data has come since the last call; False if none has after ``seconds``."""
        came = self.wait(seconds)
        super().clear()
        return came


class Running:
    """A command that runs in the guest while the test goes on.

    A context manager: at its end the channel is closed (the process may live on, and ends
    with the guest).

    Of each stream the first ``KEPT_BYTES`` are kept. What comes beyond that is read, so that the
    command does not wait for a reader, and dropped; ``cut`` says so.
    """

    KEPT_BYTES: ClassVar[int] = 16 << 20

    def __init__(
        self, command: str, channel: paramiko.Channel, patience: DeadlineFactory,
        ends: contextlib.ExitStack | None = None,
    ) -> None:  # fmt: skip
        """``ends`` is closed with the channel."""
        self.command = command
        self._ends = ends or contextlib.ExitStack()
        self._channel = channel
        self._arrival = _Arrival(channel)
        self._patience = patience
        self._output = bytearray()
        self._errors = bytearray()
        self.kept_bytes = self.KEPT_BYTES
        self.cut = False

    @property
    def raw_output(self) -> bytes:
        """What came on its standard output so far."""
        return bytes(self._output)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._channel.exit_status_ready()

    def send(self, data: bytes) -> None:
        """Write to its standard input; ``CommandTimeout`` if it does not read it."""
        __tracebackhide__ = True
        deadline = self._patience(COMMAND_SECONDS)
        left = memoryview(data)
        while left:
            try:
                left = left[self._offer(left) :]
            except OSError:  # it has ended: its status says why
                return
            if deadline.expired:
                self._timeout(deadline)

    def _offer(self, data: memoryview) -> int:
        """Send as much as there is room for; 0 if there is none for a while."""
        self._channel.settimeout(_ROUND_SECONDS)
        try:
            return self._channel.send(bytes(data[: 1 << 16]))
        except TimeoutError:
            return 0
        except EOFError as error:  # paramiko's word for a connection that broke while it sent
            raise ConnectionResetError("the connection to the guest broke") from error

    def end_input(self) -> None:
        """Close its standard input."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def read_line(self, timeout: float = COMMAND_SECONDS) -> str:
        """Its next line of standard output, without the newline; ``CommandTimeout``.

        Raises ``GuestError`` for a line that is longer than what is kept of a stream.
        """
        __tracebackhide__ = True
        deadline = self._patience(timeout)
        while b"\n" not in self._output:
            if has_ended(self._channel):
                raise GuestError(
                    f"in the guest, `{self.command}` ended where a line was expected",
                    tail=self._errors.decode(errors="replace"),
                )
            if len(self._output) >= self.kept_bytes:
                raise GuestError(
                    f"in the guest, `{self.command}` prints {self.kept_bytes} bytes without an "
                    "end of line",
                    tail=bytes(self._output[:_TAIL]).decode(errors="replace"),
                )
            self._pump(deadline)
        line, _, rest = bytes(self._output).partition(b"\n")
        self._output[:] = rest
        return line.decode(errors="replace")

    def wait(self, timeout: float = COMMAND_SECONDS, stdin: bytes | None = None) -> CommandResult:
        """Wait for its end; ``CommandTimeout``. For ``stdin`` see ``finish``."""
        __tracebackhide__ = True
        started = time.monotonic()
        status, stdout, stderr = self.finish(timeout, stdin)
        seconds = time.monotonic() - started
        return CommandResult(self.command, status, stdout, stderr, seconds, self.cut)

    def finish(self, timeout: float, stdin: bytes | None = None) -> tuple[int, str, str]:
        """Read both streams to their end: exit status, output, errors.

        Meanwhile, where ``stdin`` is given, write that to its standard input and close it: a
        command may want to be read before it reads on.
        """
        __tracebackhide__ = True
        deadline = self._patience(timeout)
        left = memoryview(stdin or b"")
        if stdin is not None and not left:
            self.end_input()
        while not has_ended(self._channel):
            if left and not self._channel.recv_ready() and not self._channel.recv_stderr_ready():
                try:
                    left = left[self._offer(left) :]
                except OSError:  # it has ended, or has closed its standard input
                    left = left[:0]
                if deadline.expired:
                    self._timeout(deadline)
                if not left:
                    self.end_input()
                continue
            self._pump(deadline)
        status = self._channel.recv_exit_status()
        if status == -1 and not self._channel.eof_received:
            raise GuestLost(
                f"the connection to the guest broke during `{self.command}`",
                tail=self._errors.decode(errors="replace"),
            )
        return (
            status,
            self._output.decode(errors="replace"),
            self._errors.decode(errors="replace"),
        )

    def close(self) -> None:
        """Close the channel; that the guest is gone already is no error."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()
        self._ends.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pump(self, deadline: Deadline) -> None:
        """Take what has come on either stream, waiting for it if there is nothing."""
        __tracebackhide__ = True
        channel = self._channel
        if deadline.expired:
            self._timeout(deadline)
        if channel.recv_ready():
            self._keep(self._output, channel.recv(1 << 16))
        elif channel.recv_stderr_ready():
            self._keep(self._errors, channel.recv_stderr(1 << 16))
        elif channel.eof_received:
            # Nothing more can come but the exit status; its arrival sets this event.
            channel.status_event.wait(deadline.left)
        elif channel.exit_status_ready():
            # Something that it left behind holds its streams open.
            grace = self._patience(_GRACE_SECONDS)
            while not self._arrival.wait_for_data(min(grace.left, _ROUND_SECONDS)):
                if grace.expired:
                    channel.close()
                    return
        else:
            # Data and the end of a stream wake this up. An exit status that comes while the
            # streams stay open does not; hence the short rounds.
            self._arrival.wait_for_data(min(deadline.left, _ROUND_SECONDS))

    def _keep(self, stream: bytearray, data: bytes) -> None:
        room = self.kept_bytes - len(stream)
        stream += data[:room]
        self.cut = self.cut or len(data) > room

    def _timeout(self, deadline: Deadline) -> None:
        __tracebackhide__ = True
        raise CommandTimeout(
            f"in the guest, `{self.command}` did not end within {deadline.seconds:g} s",
            command=(self.command,),
            tail=texts.end((self._output + self._errors).decode(errors="replace"), _TAIL),
        )
