# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/shell.py: what a person's terminal is connected to, without a machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import tempfile
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import paramiko
import pytest

from harness.build.image import Keys
from harness.commands import shell
from harness.errors import GuestLost
from harness.host import progress
from harness.host.proc import Deadline
from harness.machines.guest import Guest
from harness.machines.saved import SavedMachine
from harness.qemu import MachineSpec
from harness.qemu.debug import private_socket
from tests.unit.machines.test_guest import DIES, Server, make_key


@pytest.mark.parametrize("runtime", ["", "run", "nowhere"])
def test_gdbs_socket_is_the_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    """Whoever may connect to it may do what this user may."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / runtime) if runtime else "")
    with private_socket() as path:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (tmp_path / "run" in path.parents) is (runtime == "run")
    assert not path.parent.exists()


def test_gdb_is_told_where_the_machine_is(tmp_path: Path) -> None:
    """The command attaches to the socket, with the symbols that there are."""
    spec = MachineSpec(Path("/k/vmlinuz"), Path("/k/initrd"))
    about = {"module": "/m/wee.ko", "text": "0xffffffffa0000000", "vmlinux": ""}
    saved = SavedMachine(tmp_path, spec, Keys(tmp_path, ""), "QEMU", about)
    assert shell.gdb_command(saved, Path("/run/x/gdb")) == (
        "gdb -ex 'target remote /run/x/gdb' -ex 'add-symbol-file /m/wee.ko 0xffffffffa0000000' "
        "/k/vmlinuz"
    )


# -- between this process and the guest --------------------------------------------


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """Somebody who runs commands on the host."""
    host, client = make_key(tmp_path / "host"), make_key(tmp_path / "client")
    with (
        Server(host, client, path=os.environ["PATH"]) as server,
        Guest.connect(server.port, Keys(tmp_path / "client", host.get_base64())) as connected,
    ):
        yield connected


def attach(
    guest: Guest, command: str, given: bytes | None, doing: str = ""
) -> tuple[int, bytes, bytes]:
    """Run a command as `invoke shell` does: its status, what it printed, and its errors.

    ``given`` is what this process's standard input has before its end; None: it has no end.
    """
    with contextlib.ExitStack() as ends:
        files = [ends.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        source, output, errors = files
        reader, writer = os.pipe()
        ends.callback(os.close, reader)
        ends.callback(os.close, writer)
        if given is not None:
            source.write(given)
            source.seek(0)
            reader = source.fileno()
        channel = ends.enter_context(guest.shell(command, "", 80, 24))
        status = shell.attach(channel, reader, output.fileno(), errors.fileno(), terminal=False,
                              doing=doing)  # fmt: skip
        for file in (output, errors):
            file.seek(0)
        return status, output.read(), errors.read()


def test_a_script_ends_where_its_input_ends(guest: Guest) -> None:
    """As with `echo CMD | ssh`: a shell reads commands up to the end, and its status counts."""
    assert attach(guest, "bash", b"echo one; echo two >&2\nexit 5\n") == (5, b"one\n", b"two\n")
    assert attach(guest, "bash", b"") == (0, b"", b"")
    assert attach(guest, "cat; exit 3", b"") == (3, b"", b"")


def test_a_command_does_not_wait_for_an_input_that_has_no_end(guest: Guest) -> None:
    """A pipeline may hold standard input open for ever."""
    assert attach(guest, "echo done; exit 4", None) == (4, b"done\n", b"")


def test_a_command_that_says_nothing_is_said_to_go_on(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody wonders whether the guest has died."""
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.0)
    said = tmp_path / "said"

    class Saves(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fresh = tmp_path / "fresh"
            fresh.write_text(record.getMessage())
            fresh.replace(said)

    handler = Saves()
    shell.log.addHandler(handler)
    monkeypatch.setattr(shell.log, "level", logging.INFO)
    try:
        waits = f"until [ -e {said} ]; do sleep 0.05; done; cat {said}"
        _, output, _ = attach(guest, waits, b"", "`make`")
    finally:
        shell.log.removeHandler(handler)
    assert output == b"`make` goes on, and says nothing; Ctrl-C ends it"


def test_both_directions_move_at_once(guest: Guest) -> None:
    """Who writes before it has read all must not wait for a reader that waits to write."""
    data = os.urandom(8 << 20)
    status, output, _ = attach(guest, "cat", data)
    assert status == 0
    assert output == data


def test_what_is_left_behind_does_not_hold_the_end_up(guest: Guest) -> None:
    """A process in the background has the streams open; the command's end counts."""
    assert attach(guest, "sleep 1000 & echo done; exit 6", b"") == (6, b"done\n", b"")


def test_a_shell_that_is_killed_is_told(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    """It has no status; whoever asks for one is not told 255 without a word."""
    assert attach(guest, "echo before; kill -KILL $$", b"") == (255, b"before\n", b"")
    assert "was ended by a signal" in caplog.text


def test_a_guest_that_dies_is_told(guest: Guest) -> None:
    """Not a status of 255 and no word."""
    with pytest.raises(GuestLost):
        attach(guest, f"echo before; {DIES}", b"")


@pytest.mark.parametrize(
    ("typed", "given"),
    [(b"ls ~/.ssh\r", b"ls ~/.ssh\r"), (b"cd\r~/x\r", b"cd\r~/x\r"), (b"~~.\r", b"~.\r"),
     (b"a~.\r~", b"a~.\r"), (b"~\r", b"~\r")],
)  # fmt: skip
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
def test_a_tilde_is_the_guests_where_nothing_else_is_meant(
    typed: bytes, given: bytes, at_once: bool
) -> None:
    """A path begins with one, too; ~~ is one where a line begins."""
    keys = shell.Keys()
    pieces = [typed] if at_once else [typed[place : place + 1] for place in range(len(typed))]
    assert b"".join(map(keys.passed_on, pieces)) == given


def test_whoever_waits_for_ever_can_leave(guest: Guest) -> None:
    """The command that runs hears nothing; ~. on a line of its own ends the session."""
    master, terminal = os.openpty()
    try:
        with guest.shell("exec sleep 1000", "", 80, 24) as channel:
            typist = threading.Timer(0.0, lambda: type_when_raw(master, terminal, b"\x03~."))
            typist.start()
            before = termios.tcgetattr(terminal)
            with pytest.raises(KeyboardInterrupt):
                shell.attach(channel, terminal, 1, 2, terminal=True)
            assert termios.tcgetattr(terminal) == before
            typist.join()
    finally:
        os.close(master)
        os.close(terminal)


def type_when_raw(master: int, terminal: int, keys: bytes) -> None:
    """Type, once each key is passed on: setting that up forgets what was typed before."""
    deadline = Deadline(60)
    while termios.tcgetattr(terminal)[3] & termios.ICANON and not deadline.expired:
        os.sched_yield()
    os.write(master, keys)


class Resized:
    """A channel whose window changes its size in the middle of a send.

    paramiko holds a lock then that one thread cannot take twice, and takes it to pass on a size.
    """

    def __init__(self, reader: int, person: int) -> None:
        self.reader = reader
        self.person = person
        self.lock = threading.Lock()
        self.sizes: list[tuple[int, int]] = []
        self.eof_received = self.closed = False
        self.typed = 0

    def fileno(self) -> int:
        if not self.typed:  # not before: setting a terminal up forgets what was typed
            self.typed = os.write(self.person, b"x")
        return self.reader

    def send_ready(self) -> bool:
        return True

    def send(self, data: bytes) -> int:
        with self.lock:
            signal.raise_signal(signal.SIGWINCH)
        return len(data)

    def resize_pty(self, columns: int, rows: int) -> None:
        assert self.lock.acquire(blocking=False), "the lock that send() holds is taken again"
        self.lock.release()
        self.sizes.append((columns, rows))
        self.closed = True

    def recv_ready(self) -> bool:
        return False

    recv_stderr_ready = exit_status_ready = recv_ready

    def recv(self, size: int) -> bytes:
        raise AssertionError(f"there are not {size} bytes")

    recv_stderr = recv

    def recv_exit_status(self) -> int:
        return 0


def test_a_window_may_change_its_size_during_a_send() -> None:
    """The size is passed on afterwards, and the terminal is as before in the end."""
    master, terminal = os.openpty()
    reader, writer = os.pipe()
    try:
        termios.tcsetwinsize(terminal, (50, 132))
        before = termios.tcgetattr(terminal), signal.getsignal(signal.SIGWINCH)
        channel = Resized(reader, master)
        given = cast(paramiko.Channel, channel)
        assert shell.attach(given, terminal, 1, 2, terminal=True) == 0
        assert channel.sizes == [(132, 50)]
        assert (termios.tcgetattr(terminal), signal.getsignal(signal.SIGWINCH)) == before
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        for descriptor in (master, terminal, reader, writer):
            os.close(descriptor)
