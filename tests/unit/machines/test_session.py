# SPDX-License-Identifier: GPL-2.0-only
"""harness/machines/session.py: a client's half that is written down and made again.

The server is paramiko's own, in this process. It keeps its connection while its client changes, as
the server of a frozen machine does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.packet import Packetizer

from harness.build.image import Keys
from harness.errors import GuestLost
from harness.host.proc import Deadline
from harness.machines import session
from harness.machines.guest import Guest
from harness.machines.session import Session
from tests.unit.machines.test_guest import PATIENCE, Server, make_key


class Line:
    """A connection to a server, for one client after another. A context manager."""

    def __init__(self, port: int) -> None:
        self._far = socket.create_connection(("127.0.0.1", port))
        self._end: socket.socket | None = None
        self._down = threading.Thread(target=self._receive)
        self._up: threading.Thread | None = None

    def plug(self) -> socket.socket:
        """The next client's end."""
        near, end = socket.socketpair()
        self._end = end
        if not self._down.is_alive():
            self._down.start()
        self._up = threading.Thread(target=self._send, args=(end,), daemon=True)
        self._up.start()
        return near

    def cut(self) -> None:
        """The client hears nothing any more; the server learns nothing of it."""
        assert self._end is not None
        with contextlib.suppress(OSError):  # the client has hung up by itself
            self._end.shutdown(socket.SHUT_RDWR)
        # What the client has said still goes to the server, before anything of the next client.
        assert self._up is not None
        self._up.join(PATIENCE)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._far.recv(1 << 15):
                assert self._end is not None
                with contextlib.suppress(OSError):
                    self._end.sendall(data)

    def _send(self, end: socket.socket) -> None:
        with end, contextlib.suppress(OSError):
            while data := end.recv(1 << 15):
                self._far.sendall(data)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        with self._far, contextlib.suppress(OSError):
            self._far.shutdown(socket.SHUT_RDWR)
            self._down.join(PATIENCE)
        self.cut()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, and a `setpriv` that changes no user but runs what follows its options."""
    made = tmp_path_factory.mktemp("ssh")
    setpriv = made / "setpriv"
    setpriv.write_text('#!/bin/sh\nwhile [ "$1" != sh ]; do shift; done\nexec "$@"\n')
    setpriv.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """An SSH server on 127.0.0.1, whose shell is the guest's kind: a /bin/sh."""
    pair = make_key(folder / "host"), make_key(folder / "client")
    with Server(*pair, path=f"{folder}:{os.environ['PATH']}", runs="sh") as made:
        yield made


@pytest.fixture(scope="module")
def keys(server: Server, folder: Path) -> Keys:
    """What gets in."""
    return Keys(folder / "client", server.host_key.get_base64())


@pytest.fixture
def line(server: Server) -> Iterator[Line]:
    """What is between the server and its clients."""
    with Line(server.port) as made:
        yield made


def frozen(guest: Guest, line: Line) -> Session:
    """The session as it is left when the machine is stopped."""
    # What the server says of a channel's end has to have come. Of what is cut off here it would
    # never be known that it was sent, and nothing that comes later would fit.
    transport: Any = guest._transport
    deadline = Deadline(PATIENCE)
    while len(transport._channels) > len(transport.waiting):
        assert not deadline.expired, "the end of a channel has not come"
        time.sleep(0.01)
    line.cut()
    return Session.from_json(guest.session(Deadline(PATIENCE)).as_json())


@pytest.fixture
def state(line: Line, keys: Keys) -> Session:
    """A session that was frozen with its waiting shells."""
    with Guest.over(line.plug(), keys) as guest:
        guest.open_shells()
        return frozen(guest, line)


@pytest.fixture
def guest(line: Line, state: Session) -> Iterator[Guest]:
    """Another client, who goes on with that session."""
    with Guest.resume(line.plug(), state) as resumed:
        yield resumed


def waiting(guest: Guest) -> int:
    return len(guest._transport.waiting)


# What names the processes of the shells that wait, among those of this server.
SHELLS = f"$(pgrep -P {os.getpid()} -f 'IFS= [r]ead -r l')"


# -- the session -------------------------------------------------------------------


def test_the_installed_paramiko_is_one_that_this_was_made_for() -> None:
    """Where this fails, sessions are ordinary ones: slower, and nothing else. See Transport."""
    session.fault.cache_clear()
    assert session.fault() == ""


def test_a_session_is_the_same_when_it_was_written_and_read(state: Session) -> None:
    """It lies in a file between a template and its clones."""
    assert Session.from_json(state.as_json()) == state
    assert len(state.shells) == session.SHELLS
    assert len(state.sent.key) == len(state.received.counter) == 16
    assert len(state.sent.mac_key) == 32
    # A service request, an authentication (RFC 4252), and an opening and a request for each shell.
    # The strict key exchange begins to count anew with the new keys.
    assert state.strict
    assert state.sent.sequence == 2 + 2 * session.SHELLS


def test_a_client_goes_on_where_another_was_left(guest: Guest) -> None:
    """In the waiting shells first, and over further channels then."""
    for number in range(session.SHELLS + 2):
        assert guest.check(f"echo {number}") == f"{number}\n"
    assert waiting(guest) == 0


def test_a_session_that_nobody_used_for_long_goes_on(guest: Guest) -> None:
    """A machine may wait for its test: paramiko's limit for a handshake does not end it."""
    transport = guest._transport
    timer = transport.packetizer._Packetizer__timer  # type: ignore[attr-defined]
    timer.join(PATIENCE)  # until it has fired, or no time where it was called off
    assert not transport.packetizer.handshake_timed_out()
    assert guest.check("echo here") == "here\n"


def test_a_session_is_frozen_again_after_new_keys(line: Line, state: Session, guest: Guest) -> None:
    """A side asks for new keys by itself after hours or a gigabyte; dropbear and paramiko do."""
    guest._transport.renegotiate_keys()
    assert guest.check("echo new keys") == "new keys\n"
    again = frozen(guest, line)
    assert again.sent.key != state.sent.key
    assert again.shells == state.shells[1:]
    with Guest.resume(line.plug(), again) as third:
        for _ in range(session.SHELLS):
            assert third.check("echo well") == "well\n"


def test_another_key_is_found_out(line: Line, state: Session) -> None:
    """Each packet has its MAC: what does not fit is a lost guest, and no answer."""
    data = state.as_json().replace(state.received.mac_key.hex(), bytes(32).hex())
    with Guest.resume(line.plug(), Session.from_json(data)) as wrong, pytest.raises(GuestLost):
        wrong.run("true")


@pytest.mark.parametrize(
    ("start", "after"), [("00" * 16, "00" * 15 + "02"), ("ff" * 16, "00" * 15 + "01")]
)
def test_a_counter_counts_blocks_and_begins_again(start: str, after: str) -> None:
    """RFC 4344, section 4."""
    assert session._advanced(bytes.fromhex(start), 32).hex() == after


# -- commands ----------------------------------------------------------------------

COMMANDS = {
    "outputs": "echo out; echo err >&2; exit 3",
    "its input": "read -r one; echo \"[$one]\"; wc -c; exit $?",
    "no input": "exec <&-; exit 4",
    "a signal": "sh -c 'kill -KILL $$'",
    "a signal to itself": "echo before; kill -KILL $$",
    "quotes": "printf '%s\\n' 'a'\"'\"'b' \"$HOME\" '$HOME' `echo x` a\\\nb",
    "lines": "if true\nthen\n\techo one\nfi\n# a comment\n\ncat <<E\n$n text $l\nE",
    "variables": "echo \"${n-unset} ${l-unset}\"; set | grep -c -e ^n= -e ^l=",
    "a wrong one": "echo first; echo (",
    "one that is not there": "no-such-command",
    "its name": "echo $0 $# $-; tr '\\0' ' ' </proc/$$/cmdline",
    "its files": "readlink /proc/$$/exe; ls /proc/$$/fd; pwd; umask",
    "environment": "env | grep -v -e ^_ -e ^PYTEST | sort",
    "a trace": "set -x; echo one; (echo two)",
}  # fmt: skip


@pytest.mark.parametrize("user", ["root", "daemon"])
@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_is_the_same_in_a_shell_that_waited(
    guest: Guest, server: Server, keys: Keys, what: str, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status, output, errors, input: nothing tells it from one whose channel was opened for it."""
    given = b"a line\nmore\0\xff\n"
    with Guest.connect(server.port, keys) as ordinary:
        expected = ordinary.run(COMMANDS[what], stdin=given, user=user)
    found = guest.run(COMMANDS[what], stdin=given, user=user)
    assert (found.status, found.stdout, found.stderr) == (
        expected.status, expected.stdout, expected.stderr
    )  # fmt: skip
    assert waiting(guest) == session.SHELLS - 1


def test_a_signal_that_ends_a_command_has_its_number(guest: Guest) -> None:
    """128 + N, as over any other channel."""
    assert guest.run("sh -c 'kill -SEGV $$'").status == 128 + signal.SIGSEGV


def test_commands_run_side_by_side(guest: Guest) -> None:
    """As many as there are shells, and one more."""
    with contextlib.ExitStack() as ends:
        running = [
            ends.enter_context(guest.spawn(f"read -r x; echo {number} $x"))
            for number in range(session.SHELLS + 1)
        ]
        for number, process in reversed(list(enumerate(running))):
            process.send(b"go\n")
            assert process.wait(PATIENCE).stdout == f"{number} go\n"


def test_large_streams_go_through_a_shell_that_waited(guest: Guest) -> None:
    """More than the windows hold, in each direction."""
    given = bytes(range(256)) * 20_000
    assert len(guest.check("tee /dev/stderr", stdin=given, timeout=PATIENCE)) > 1 << 20


@pytest.mark.parametrize("command", ["echo \N{SNOWMAN}", "echo \x01", f"echo {'x' * 5000}"])
def test_what_is_not_for_a_waiting_shell_gets_a_channel(guest: Guest, command: str) -> None:
    """Bytes that a shell may read otherwise, and what takes long byte by byte."""
    assert session.line_for(command) is None
    assert guest.check(command).strip() == command.removeprefix("echo ")
    assert waiting(guest) == session.SHELLS


def test_a_shell_that_somebody_has_ended_is_left_out(guest: Guest) -> None:
    """As `pkill sh` does in a test: the next command does not notice."""
    guest.check(f"kill {SHELLS}")
    assert guest.check("echo well") == "well\n"
    assert waiting(guest) == 0


def test_a_shell_that_does_not_take_its_line_is_given_up(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that hangs is told from a command that does."""
    guest.check(f"kill -STOP {SHELLS}")
    monkeypatch.setattr(guest, "patience", lambda _: Deadline(0.3))
    with pytest.raises(GuestLost, match="does not take the command"):
        guest.run("true")


def test_a_guest_that_opens_no_shell_is_lost(
    line: Line, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is not frozen with a session that nobody could use."""
    monkeypatch.setattr(session, "WAIT", "exit 1")
    with (
        Guest.over(line.plug(), keys) as guest,
        pytest.raises(GuestLost, match="opens no shell that waits: it ended at once"),
    ):
        guest.open_shells()


# -- another paramiko --------------------------------------------------------------


def without_banner(self: Any) -> None:
    """A thread of paramiko's that begins in another way."""
    self.active = False


@pytest.mark.parametrize(
    ("of", "name", "other", "said"),
    [
        (paramiko.Channel, "_set_window", None, "AttributeError"),
        (paramiko.Transport, "run", without_banner, "its thread ended at once"),
        (Packetizer, "set_inbound_cipher", lambda *_: None, "what was sent is not what came"),
        (paramiko.Channel, "_check_add_window", lambda *_: 0, "its counters are not"),
    ],
)  # fmt: skip
def test_another_paramiko_is_told(
    monkeypatch: pytest.MonkeyPatch, of: type, name: str, other: Any, said: str
) -> None:
    """A release in which something that is not public has changed: no session is frozen then."""
    if other is None:
        monkeypatch.delattr(of, name)
    else:
        monkeypatch.setattr(of, name, other)
    session.fault.cache_clear()
    try:
        assert said in session.fault()
        assert paramiko.__version__ in session.fault()
    finally:
        session.fault.cache_clear()
