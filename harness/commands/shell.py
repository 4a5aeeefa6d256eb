# SPDX-License-Identifier: GPL-2.0-only
"""`invoke shell`: a terminal, a script or one command, connected to a guest; or gdb's socket."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import shlex
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path

import paramiko

from harness import config
from harness.build.module import Module
from harness.commands import guest_files
from harness.commands.guest_files import Baggage
from harness.errors import GuestError, GuestLost, HostError, InputError, MachineError, Status
from harness.examine import loading, symbols
from harness.host import progress
from harness.host.cache import Cache
from harness.host.proc import Deadline
from harness.judge import verdict
from harness.judge.verdict import Evidence, Problem
from harness.machines import saved
from harness.machines.clone import Clone, clone
from harness.machines.guest import has_ended
from harness.machines.saved import SavedMachine
from harness.qemu.debug import private_socket
from harness.runs.ready import Way
from harness.runs.request import Request

log = logging.getLogger(__name__)

MARK_SECONDS = 5.0  # until all that the kernel has logged is on the console
_ROUND_SECONDS = 0.05
# How often it is said that a command goes on which says nothing itself.
_AGAIN_SECONDS = 30.0
# After its exit status is known, how long a command's output may still be on its way.
_GRACE_SECONDS = 1.0
_STDOUT, _STDERR = 1, 2  # their descriptors
_NO_STATUS = 255  # as ssh(1) ends then
NONE = Baggage()
_ENDS = "exit ends the machine, and so does ~. on a line of its own, also where nothing answers"


def run(request: Request, command: str = "", baggage: Baggage = NONE) -> int:
    """Clone a machine, load the module, and hand over, or run one ``command``.

    The module's sources are in the guest as well, and what ``baggage`` says. Returns the exit
    status of the shell or the command. Raises ``GuestError`` with what the kernel has reported if
    the guest dies meanwhile, or does not load the module.
    """
    why = "a shell is opened in one guest"
    with with_module(request, why, sources=True) as (running, module, release):
        if not command:
            log.info("%s with %s loaded; %s", release, module.name, _ENDS)
        return session(running, command, module, baggage)


@contextlib.contextmanager
def with_module(
    request: Request, why: str, observer: Path | None = None, *, sources: bool = False
) -> Iterator[tuple[Clone, Module, str]]:
    """A machine that has the module loaded, the module, and the kernel's release.

    ``why`` says what needs one kernel, for who has asked for several. ``observer``: see
    ``Machine.start``. ``sources``: the module's are put into the guest. Raises as ``run`` does.
    """
    request.check_equipment()
    matrix = config.load()
    spec = request.select_one(matrix, why)
    with Cache() as cache:
        way = Way(spec, matrix, cache, request.source, request.equipment)
        lab, module, template = way.have_kernel(), way.build(), way.boot()
        # Loading takes a fifth of a second. To freeze a machine in which that is done takes longer,
        # which does not pay for one shell.
        if loading.has_loaded_template(lab, template, module):
            template = loading.loaded_template(lab, template, module)
        with (
            cache.scratch("shell") as folder,
            clone(template, folder, observer=observer) as running,
        ):
            if sources:
                guest_files.give_sources(running.guest, module)
            if not template.loaded:
                with _reports_told(running, module, f"loading {module.name}"):
                    loading.load(running.guest, module)
            yield running, module, lab.kernel.release


def resume(folder: Path, *, debugger: bool, command: str = "", baggage: Baggage = NONE) -> int:
    """Open the machine that a red test has left in ``folder``: a prompt in it, or gdb's socket."""
    kept = saved.load(folder)
    with (
        Cache() as cache,
        cache.scratch("resume") as work,
        saved.reopened(kept, work, stopped=debugger) as clone,
    ):
        if debugger:
            with private_socket() as path:
                clone.machine.debugger.listen(path, Deadline(10))
                print("stopped where the test left it; in another terminal:")
                print(f"    {gdb_command(kept, path)}")
                print("Enter ends the machine.", flush=True)
                sys.stdin.readline()
            return 0
        try:
            clone.guest  # noqa: B018  # connects
        except GuestLost as error:
            raise InputError(
                "the guest that was saved does not answer, so there is no prompt in it",
                hint=f"look at it from outside: invoke shell --resume {folder} --debugger",
            ) from error
        if not command:
            log.info("as the test left it; %s", _ENDS)
        return session(clone, command, None, baggage)


def session(clone: Clone, command: str, module: Module | None, baggage: Baggage = NONE) -> int:
    """The command, or a shell; its exit status. ``baggage`` is carried there and back.

    A shell has a terminal if this process has one. Else it reads its commands from standard
    input, as `ssh` and `bash` do, and ends where that ends.
    """
    source = sys.stdin.fileno()
    terminal = "" if command or not os.isatty(source) else os.environ.get("TERM", "dumb")
    columns, rows = os.get_terminal_size(source) if terminal else (80, 24)
    # Not its last command, so that the shell around it lives, and tells the number of a signal.
    script = f"cd /root\n{command or 'bash -l'}\nexit $?"
    doing = f"`{command}`" if command else "the shell"
    with (
        _reports_told(clone, module, doing),
        baggage.carried(clone),
        clone.guest.shell(script, terminal, columns, rows) as channel,
    ):
        # The terminal's keys are not for a command: Ctrl-C is to end the harness.
        given = None if command and os.isatty(source) else source
        status = attach(channel, given, _STDOUT, _STDERR, terminal=bool(terminal),
                        doing=doing if command else "")  # fmt: skip
        return status if baggage.fetched(clone.guest) else status or Status.RED


# -- what the kernel says of it ----------------------------------------------------


@contextlib.contextmanager
def _reports_told(clone: Clone, module: Module | None, doing: str) -> Iterator[None]:
    """Tell what the kernel reports meanwhile.

    What fails meanwhile gets the report as its reason; if nothing fails, it is a warning.
    """
    try:
        yield
    except (GuestError, MachineError) as error:
        if isinstance(error, HostError):
            raise
        problems = _reports(clone, module, gone=not isinstance(error, GuestError) or _lost(error))
        if not problems:
            raise
        raise GuestError(
            f"{doing}: {'; '.join(str(problem) for problem in problems)}",
            tail="\n".join(problem.detail for problem in problems if problem.detail),
            hint="the kernel has reported this: it is the module's fault, or the kernel's",
        ) from error
    for problem in _reports(clone, module, gone=False):
        log.warning("the kernel has reported meanwhile: %s", problem)


def _lost(error: GuestError) -> bool:
    return isinstance(error, GuestLost)


def _reports(clone: Clone, module: Module | None, *, gone: bool) -> Sequence[Problem]:
    """What the kernel has reported since the clone began to run; ``gone``: it does not answer."""
    machine = clone.machine
    if not gone:
        try:
            machine.agent.mark(machine.patience(MARK_SECONDS))
        except MachineError:
            gone = True
    seen = Evidence(
        console=machine.console_text()[clone.baseline.console_offset :],
        # Nobody asks what taints it; the reports are what matters here.
        taint_before=0,
        taint_after=None if gone else 0,
        panicked=machine.panicked,
        running=machine.running,
        unread=machine.log.unread,
        fault=machine.fault,
        full=machine.log.full,
    )
    problems = verdict.judge(seen)
    return symbols.explain(problems, module) if module else problems


# -- gdb ---------------------------------------------------------------------------


def gdb_command(saved: SavedMachine, path: Path) -> str:
    """The command that attaches gdb, with what symbols there are.

    The module's; and the kernel's if it was compiled here, since Debian's image has none.
    """
    command = ["gdb", "-ex", f"target remote {path}"]
    module, text = saved.about.get("module"), saved.about.get("text")
    if module and text:
        command += ["-ex", f"add-symbol-file {module} {text}"]
    return shlex.join([*command, str(saved.about.get("vmlinux") or saved.spec.kernel)])


# -- between this process and the guest --------------------------------------------


def attach(
    channel: paramiko.Channel, source: int | None, output: int, errors: int, *, terminal: bool,
    doing: str = "",
) -> int:  # fmt: skip
    """Copy between descriptors of this process and ``channel`` until that ends; the exit status.

    What comes from ``source`` (None: nothing) goes to its standard input, up to its end. With
    ``terminal``, ``source`` is one, and its keys and its size are passed on. While nothing comes
    from the guest it is said now and then that ``doing`` goes on, if there is such a word for it.
    Raises ``GuestLost`` if the connection breaks, and ``Left`` where somebody at a terminal wants
    it to end (``Keys``).
    """
    keys = Keys()
    with contextlib.ExitStack() as ends:
        resized = ends.enter_context(_raw(source)) if terminal and source is not None else None
        pending = b""  # read from the source, and not taken by the guest yet
        grace = Deadline(_GRACE_SECONDS)
        silence = _Silence(doing)
        if source is None:
            channel.shutdown_write()
        while not has_ended(channel):
            reads = source is not None and not pending
            waiting = [channel.fileno()]
            waiting += [resized.fileno()] if resized is not None else []
            waiting += [source] if source is not None and reads else []
            # Nothing tells that the guest takes more again, nor of an exit status that comes
            # while the streams stay open; hence the rounds.
            ready, _, _ = select.select(waiting, [], [], _ROUND_SECONDS)
            if resized is not None and resized.fileno() in ready:
                _drain(resized)
                size = os.get_terminal_size(source or 0)
                # Here, where no send() holds paramiko's lock, as it may while a signal comes.
                channel.resize_pty(size.columns, size.lines)
            if source is not None and source in ready:
                typed = _typed(source)
                pending = keys.passed_on(typed) if terminal else typed
                if not typed:
                    channel.shutdown_write()
                    source = None
            if pending and channel.send_ready():
                try:
                    pending = pending[channel.send(pending) :]
                except OSError:  # it has ended: its status says why
                    pending, source = b"", None
            moved = _copy(channel, output, errors)
            silence.ends(moved)
            if moved or not channel.exit_status_ready():
                grace = Deadline(_GRACE_SECONDS)
                if channel.eof_received:  # nothing more can come but the exit status
                    channel.status_event.wait(_ROUND_SECONDS)
            elif grace.expired:
                break  # something that it left behind holds its streams open
    status = channel.recv_exit_status()
    if status == -1 and not channel.eof_received:
        raise GuestLost("the connection to the guest broke")
    if status == -1:
        log.error("the shell in the guest was ended by a signal, so it has no status to give")
        return _NO_STATUS
    return status


class _Silence:
    """Says now and then that something goes on of which nothing is heard; nothing of nothing."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._bound = Deadline(progress.SILENT_SECONDS)

    def ends(self, heard: bool) -> None:
        """Whether something was heard now."""
        if heard:
            self._bound = Deadline(progress.SILENT_SECONDS)
        elif self._doing and self._bound.expired:
            log.info("%s goes on, and says nothing; Ctrl-C ends it", self._doing)
            self._bound = Deadline(_AGAIN_SECONDS)


class Left(KeyboardInterrupt):
    """Somebody at a terminal wants to leave a guest that does not let go."""

    how = "~."


class Keys:
    """Takes out of what somebody types the keys that are for this program, and not for the guest.

    A command that waits for ever in the kernel hears neither Ctrl-C nor an end of input. As at a
    terminal of ssh (ESCAPE CHARACTERS in ssh(1)), ``~.`` at the beginning of a line ends it all,
    and ``~~`` there is a ``~``.
    """

    def __init__(self) -> None:
        self._begins = True  # whether a line does
        self._held = False  # a ~ of which the next key says what it means

    def passed_on(self, typed: bytes) -> bytes:
        """The part of ``typed`` that is for the guest; raises ``Left`` at ``~.``."""
        given = bytearray()
        for key in (typed[place : place + 1] for place in range(len(typed))):
            if self._held and key == b".":
                raise Left
            if self._begins and not self._held and key == b"~":
                self._held = True
                continue
            if self._held and key != b"~":
                given += b"~"
            self._held = False
            # After Ctrl-C, which is what everybody tries first, one does as well.
            self._begins = key in (b"\r", b"\n", b"\x03")
            given += key
        return bytes(given)


def _typed(source: int) -> bytes:
    try:
        return os.read(source, 1 << 15)
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal that was closed
            return b""
        raise


def _copy(channel: paramiko.Channel, output: int, errors: int) -> bool:
    """Write what has come from the guest; whether there was anything."""
    moved = False
    for is_ready, receive, target in (
        (channel.recv_ready, channel.recv, output),
        (channel.recv_stderr_ready, channel.recv_stderr, errors),
    ):
        if is_ready():
            data = receive(1 << 16)
            moved = moved or bool(data)
            while data:
                data = data[os.write(target, data) :]
    return moved


@contextlib.contextmanager
def _raw(source: int) -> Iterator[socket.socket]:
    """Have a terminal pass on each key; what is yielded becomes readable when its size changes.

    The signal's handler does nothing: it may come in the middle of anything. Python writes the
    signal's number to a socket, which is read where it can be acted on.
    """
    saved = termios.tcgetattr(source)
    with contextlib.ExitStack() as ends:
        near, far = (ends.enter_context(end) for end in socket.socketpair())
        for end in (near, far):
            end.setblocking(False)
        ends.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(far.fileno()))
        ends.callback(
            signal.signal, signal.SIGWINCH, signal.signal(signal.SIGWINCH, lambda *_: None)
        )
        ends.callback(termios.tcsetattr, source, termios.TCSADRAIN, saved)
        tty.setraw(source)
        yield near


def _drain(stream: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while stream.recv(1 << 10):
            pass
