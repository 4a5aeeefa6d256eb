# SPDX-License-Identifier: GPL-2.0-only
"""harness/machines/guest.py against an SSH server in this process, which runs commands here."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_SUCCEEDED,
    cMSG_CHANNEL_REQUEST,
)

from harness.build.image import Keys
from harness.errors import CommandFailed, CommandTimeout, GuestBusy, GuestError, GuestLost
from harness.host.proc import Deadline
from harness.machines import guest as guests
from harness.machines.guest import Guest, Running, busiest_first, has_ended
from harness.qemu.stalls import GuestDeadline

PATIENCE = 20.0
DIES = "# and then the guest dies"


def make_key(path: Path) -> paramiko.Ed25519Key:
    """A new Ed25519 pair; the private key is written to ``path``."""
    private = Ed25519PrivateKey.generate()
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return paramiko.Ed25519Key(filename=str(path))


# What paramiko raises, or the system, where a client does not wait for the end of what it began.
_GONE = (OSError, EOFError, paramiko.SSHException)


@dataclass
class Server:
    """What the guest's SSH server does, as far as a client can tell.

    As dropbear does, it tells a process's death by a signal in a message of its own, and
    tells the end of a process before the end of its streams.
    """

    host_key: paramiko.Ed25519Key
    client_key: paramiko.Ed25519Key
    path: str
    runs: str = "bash"
    port: int = 0
    _ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Server:
        listening = self._ends.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port = listening.getsockname()[1]
        # Waking accept() up: closing a listening socket does not.
        self._ends.callback(listening.shutdown, socket.SHUT_RDWR)
        self.spawn(self._accept, listening)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def spawn(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = listening.accept()
                transport = paramiko.Transport(stream)
                transport.add_server_key(self.host_key)
                self._ends.callback(transport.close)
                # With an event it does not wait: one bad client must not stop the next.
                transport.start_server(threading.Event(), Session(self))

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        """Run one command, then tell how it ended."""
        process = subprocess.Popen(
            # Like the guest's shell, bash becomes a command that is its only one.
            [self.runs, "-c", command], bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env={**os.environ, "PATH": self.path},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None

        def end() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        self._ends.callback(end)
        pumps = [
            self.spawn(self._pump, process.stdout, channel.sendall),
            self.spawn(self._pump, process.stderr, channel.sendall_stderr),
        ]
        self.spawn(self._feed, channel, process.stdin)
        status = process.wait()
        with contextlib.suppress(*_GONE):
            # The thread that reads the client's answer to this has first told it that the command
            # was taken: that must not come after the news of its end.
            channel.get_transport().global_request("keepalive@openssh.com", wait=True)
        if DIES in command:
            for pump in pumps:
                pump.join()
            channel.get_transport().close()
            return
        with contextlib.suppress(*_GONE):
            if status < 0:
                self._tell_signal(channel, signal.Signals(-status).name.removeprefix("SIG"))
            else:
                channel.send_exit_status(status)
        for pump in pumps:
            pump.join()
        with contextlib.suppress(*_GONE):
            channel.close()

    @staticmethod
    def _pump(source: IO[bytes], send: Callable[[bytes], None]) -> None:
        with source, contextlib.suppress(*_GONE):
            while data := source.read(1 << 15):
                send(data)

    @staticmethod
    def _feed(channel: paramiko.Channel, target: IO[bytes]) -> None:
        with target, contextlib.suppress(OSError):
            while data := channel.recv(1 << 15):
                while data:
                    data = data[target.write(data) :]

    @staticmethod
    def _tell_signal(channel: paramiko.Channel, name: str) -> None:
        """RFC 4254, section 6.10."""
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exit-signal")
        message.add_boolean(False)
        message.add_string(name)
        message.add_boolean(False)
        message.add_string("")
        message.add_string("")
        transport: Any = channel.get_transport()
        transport._send_user_message(message)  # paramiko has no call of its own for it


class Session(paramiko.ServerInterface):
    """One connection."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def get_allowed_auths(self, _: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = username == "root" and key == self.server.client_key
        return AUTH_SUCCESSFUL if known else AUTH_FAILED

    def check_channel_request(self, _kind: str, _chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.server.spawn(self.server.execute, channel, command.decode())
        return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, and a `setpriv` that changes no user but runs what follows its options."""
    made = tmp_path_factory.mktemp("ssh")
    setpriv = made / "setpriv"
    setpriv.write_text(
        '#!/bin/sh\necho "$*" >&2\nwhile [ "$1" != sh ]; do shift; done\nexec "$@"\n'
    )
    setpriv.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """An SSH server on 127.0.0.1."""
    keys = make_key(folder / "host"), make_key(folder / "client")
    with Server(*keys, path=f"{folder}:{os.environ['PATH']}") as made:
        yield made


@pytest.fixture(scope="module")
def keys(server: Server, folder: Path) -> Keys:
    """What gets in."""
    return Keys(folder / "client", server.host_key.get_base64())


@pytest.fixture(scope="module")
def guest(server: Server, keys: Keys) -> Iterator[Guest]:
    """A connection, which serves many commands."""
    with Guest.connect(server.port, keys) as connected:
        yield connected


# -- connecting --------------------------------------------------------------------


def test_a_server_that_says_no_more_than_hello_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what was waited for; paramiko's own handshake ends without a word."""
    monkeypatch.setattr(guests, "CONNECT_SECONDS", 0.3)
    make_key(tmp_path / "client")
    near, far = socket.socketpair()
    with far:
        far.sendall(b"SSH-2.0-mute\r\n")
        with pytest.raises(GuestLost, match="no handshake in 0 s"):
            Guest.over(near, Keys(tmp_path / "client", ""))


def test_another_host_key_is_refused(server: Server, folder: Path) -> None:
    """A server that answers in the guest's place is given nothing, not even our key."""
    stranger = make_key(folder / "stranger")
    with pytest.raises(GuestLost, match="not the guest's"):
        Guest.connect(server.port, Keys(folder / "client", stranger.get_base64()))


def test_a_key_that_the_guest_does_not_know_gets_nowhere(server: Server, folder: Path) -> None:
    """An authentication that fails is an error of ours, in time."""
    make_key(folder / "unknown")
    with pytest.raises(GuestLost):
        Guest.connect(server.port, Keys(folder / "unknown", server.host_key.get_base64()))


def test_nobody_there_is_a_lost_guest(keys: Keys) -> None:
    """A port that nobody listens on, and one that hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def hang_up() -> None:
            listening.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(GuestLost):
            Guest.connect(port, keys)
        thread.join()
    with pytest.raises(GuestLost):
        Guest.connect(port, keys)


# -- commands ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_run_returns_status_and_both_outputs(guest: Guest, status: int) -> None:
    """Whatever the exit status is, it is a result and no error."""
    result = guest.run(f"echo out; echo err >&2; exit {status}")
    assert (result.status, result.stdout, result.stderr) == (status, "out\n", "err\n")
    assert result.ok is (status == 0)


def test_a_command_that_a_signal_ended_has_its_number(guest: Guest) -> None:
    """128 + N, as a shell has it: an oops kills the task that provoked it with SIGKILL."""
    # Alone, it is what a shell would become rather than start.
    assert guest.run("sh -c 'kill -KILL $$'").status == 128 + signal.SIGKILL
    result = guest.run("echo before; sh -c 'kill -KILL $$'")
    assert result.status == 128 + signal.SIGKILL
    assert result.stdout == "before\n"


def test_a_shell_that_a_signal_ended_is_not_a_lost_guest(guest: Guest) -> None:
    """SSH does not say which signal it was; the guest is there all the same."""
    assert guest.run("echo before; kill -KILL $$").status == -1
    assert guest.check("echo after") == "after\n"


def test_large_outputs_on_both_streams_arrive_whole(guest: Guest) -> None:
    """More than SSH's window on each stream, in turns: neither may hold up the other."""
    script = "for i in $(seq 36); do head -c 65536 /dev/zero | tr '\\0' {}; {}; done"
    half = "head -c 65536 /dev/zero | tr '\\0' e >&2"
    result = guest.run(script.format("o", half), timeout=PATIENCE)
    assert result.stdout == "o" * (36 << 16)
    assert result.stderr == "e" * (36 << 16)


# -- more than is kept -------------------------------------------------------------


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many bytes of a stream are kept, in these tests."""
    monkeypatch.setattr(Running, "KEPT_BYTES", 1 << 16)
    return 1 << 16


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_of_a_flood_the_beginning_is_kept(guest: Guest, little: int, stream: str) -> None:
    """The rest is read, so that the command ends, and the result says that it was cut."""
    to = "" if stream == "stdout" else ">&2"
    result = guest.run(f"{{ echo first; head -c {8 * little} /dev/zero; }} {to}; exit 3")
    assert result.status == 3
    assert result.cut
    assert getattr(result, stream) == "first\n".ljust(little, "\0")


def test_what_is_just_kept_is_not_cut(guest: Guest, little: int) -> None:
    """Each stream has its own limit."""
    result = guest.run(f"head -c {little} /dev/zero; head -c {little} /dev/zero >&2")
    assert not result.cut
    assert len(result.stdout) == len(result.stderr) == little


def test_an_endless_output_ends_with_its_time(guest: Guest, little: int) -> None:
    """As any command that does not end; what is kept of it meanwhile does not grow."""
    with (
        guest.spawn("cat /dev/zero") as process,
        pytest.raises(CommandTimeout),
    ):
        process.finish(0.5)
    assert len(process.raw_output) == little


def test_a_flood_that_is_given_up_leaves_the_connection(guest: Guest) -> None:
    """Commands are dropped while they print; the next one still gets its answer."""
    for _ in range(40):
        with guest.spawn("echo started; exec cat /dev/zero") as process:
            assert process.read_line(PATIENCE) == "started"
    assert guest.check("echo fine") == "fine\n"


def test_part_of_an_answer_is_none(guest: Guest, little: int, tmp_path: Path) -> None:
    """Who wants an output, a line or a file as a whole gets an error instead of a part."""
    flood = f"head -c {2 * little} /dev/zero"
    with pytest.raises(CommandFailed, match=r"more than the \d+ MiB that are kept"):
        guest.check(flood)
    with guest.spawn(flood) as process, pytest.raises(GuestError, match="without an end of line"):
        process.read_line()
    (tmp_path / "file").write_bytes(bytes(3 * little))
    assert len(guest.get(str(tmp_path / "file"))) == 3 * little
    with pytest.raises(CommandFailed, match="more than 100 bytes"):
        guest.get(str(tmp_path / "file"), limit=100)


@pytest.mark.parametrize("stream", ["1", "2"])
def test_one_stream_may_be_large_alone(guest: Guest, stream: str) -> None:
    """Three megabytes on one stream before anything on the other."""
    result = guest.run(
        f"head -c 3000000 /dev/zero | tr '\\0' x >&{stream}; echo done >&{3 - int(stream)}",
        timeout=PATIENCE,
    )
    assert {len(result.stdout), len(result.stderr)} == {3_000_000, 5}


def test_stdin_is_written_whole_and_closed(guest: Guest) -> None:
    """The command reads all of it and then its end."""
    assert guest.check("wc -c", stdin=b"x" * 300_000).strip() == "300000"
    assert guest.check("cat") == ""


def test_stdin_that_nobody_reads_is_no_error(guest: Guest) -> None:
    """The command's status says why it did not read."""
    assert guest.run("exec <&-; exit 3", stdin=b"x" * 10).status == 3


def test_stdin_and_output_may_both_be_large(guest: Guest) -> None:
    """A command that wants to be read before it reads on is."""
    data = os.urandom(3 << 20).hex().encode()
    assert guest.check("cat", stdin=data, timeout=PATIENCE) == data.decode()


def test_a_command_that_does_not_read_is_given_up(guest: Guest) -> None:
    """Its time does not begin when all has been written."""
    with pytest.raises(CommandTimeout):
        guest.run("sleep 1000", stdin=b"x" * (8 << 20), timeout=0.3)
    with guest.spawn("sleep 1000") as process:
        process._patience = lambda _: Deadline(0.3)
        with pytest.raises(CommandTimeout):
            process.send(b"x" * (8 << 20))


def test_an_error_shows_the_end_of_much_output(guest: Guest) -> None:
    """All of it would fill the report, and then the host's memory."""
    with pytest.raises(CommandFailed) as caught:
        guest.check("head -c 1000000 /dev/zero | tr '\\0' x; echo the end; exit 1")
    assert len(caught.value.tail) < 10_000
    assert caught.value.tail.endswith("the end")


def test_what_comes_between_two_looks_is_not_lost() -> None:
    """Data, their end and the exit status may all come while it is looked whether they have."""

    class Channel:
        closed = False
        looks = 0
        eof_received = property(lambda self: self.looks > 0)

        def exit_status_ready(self) -> bool:
            return self.looks > 0

        def recv_ready(self) -> bool:
            self.looks += 1
            return self.looks > 1

        def recv_stderr_ready(self) -> bool:
            return False

    assert not has_ended(cast(paramiko.Channel, Channel()))


def test_a_server_that_never_takes_a_command_is_given_up(
    server: Server, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paramiko itself would wait for ever."""
    monkeypatch.setattr(Session, "check_channel_exec_request", lambda *_: time.sleep(PATIENCE))
    with Guest.connect(server.port, keys) as guest:
        guest.patience = lambda _: Deadline(0.3)
        with pytest.raises(GuestLost, match="does not take the command"):
            guest.run("true")


def test_a_server_that_is_kept_waiting_is_waited_for(
    server: Server, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is put off while the host has no processor for the guest."""
    takes = Session.check_channel_exec_request

    def late(*given: Any) -> bool:
        time.sleep(0.5)
        return takes(*given)

    monkeypatch.setattr(Session, "check_channel_exec_request", late)
    with Guest.connect(server.port, keys) as guest:
        guest.patience = lambda _: GuestDeadline(0.1, time.monotonic)
        assert guest.check("echo here") == "here\n"


def test_a_connection_that_breaks_while_it_sends_is_a_lost_guest(
    server: Server, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the guest restarts: paramiko raises EOFError out of whatever was about to send."""

    def breaks(_: bytes) -> None:
        raise EOFError

    with Guest.connect(server.port, keys) as guest, guest.spawn("cat") as process:
        monkeypatch.setattr(guest._transport.packetizer, "write_all", breaks)
        process.send(b"nobody reads this")
        process.end_input()
        process.close()
        with pytest.raises(GuestLost):
            guest.run("true")


def test_a_command_that_hangs_is_given_up(guest: Guest) -> None:
    """The error has what it said so far, and the connection still works."""
    with pytest.raises(CommandTimeout) as caught:
        guest.run("echo so far; sleep 1000", timeout=2.0)
    assert "sleep 1000" in caught.value.what
    assert "so far" in caught.value.tail
    assert guest.check("echo still here") == "still here\n"


def test_a_command_that_never_stops_talking_is_given_up(guest: Guest) -> None:
    """Output that goes on does not extend the time that a command has."""
    with pytest.raises(CommandTimeout):
        guest.run("timeout 1.5 yes", timeout=0.2)


def test_what_stays_in_the_background_is_not_waited_for(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that holds the streams open does not keep its parent's result."""
    monkeypatch.setattr(guests, "_GRACE_SECONDS", 0.1)
    result = guest.run("sleep 1000 & echo started", timeout=PATIENCE)
    assert (result.status, result.stdout) == (0, "started\n")


def test_check_shows_what_the_command_said(guest: Guest) -> None:
    """A command that must succeed and does not is an error with its words."""
    assert guest.check("echo fine") == "fine\n"
    with pytest.raises(CommandFailed) as caught:
        guest.check("echo went wrong >&2; exit 7")
    assert "7" in caught.value.what
    assert "went wrong" in caught.value.tail


def test_a_guest_that_dies_is_lost(server: Server, keys: Keys) -> None:
    """A connection that breaks is never a command's status."""
    with Guest.connect(server.port, keys) as guest:
        with pytest.raises(GuestLost, match="last words"):
            guest.run(f"echo 'last' 'words' >&2 {DIES}")
        with pytest.raises(GuestLost):
            guest.run("true")


def test_undecodable_output_is_replaced(guest: Guest) -> None:
    """Bytes that are no UTF-8 do not raise."""
    assert guest.check(r"printf 'a\377b'") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    "text",
    ["plain", "two  spaces", "'\"'\"", "$HOME `id` $(id)", "a\\nb\\\\", "new\nline", "; id #"],
)
def test_another_users_command_is_quoted_once(guest: Guest, text: str) -> None:
    """The shell of another user gets the very words that root's would get."""
    quoted = "'" + text.replace("'", "'\\''") + "'"
    command = f"printf '%s' {quoted}"
    assert guest.run(command).stdout == text
    result = guest.run(command, user="daemon")
    assert result.stdout == text
    assert "--reuid daemon" in result.stderr
    assert "--init-groups" in result.stderr


# -- commands that go on -----------------------------------------------------------


def test_a_running_command_can_be_talked_to(guest: Guest) -> None:
    """Line for line, while it runs; then its end."""
    with guest.spawn('while read -r word; do echo "got $word"; done; exit 5') as process:
        process.send(b"one\ntwo\n")
        assert process.read_line() == "got one"
        assert process.read_line() == "got two"
        assert process.running
        process.end_input()
        result = process.wait(PATIENCE)
    assert (result.status, result.stdout) == (5, "")


def test_a_line_that_does_not_come_is_an_error(guest: Guest) -> None:
    """At the deadline, or at the command's end, whichever is first."""
    with guest.spawn("sleep 1000") as process, pytest.raises(CommandTimeout):
        process.read_line(timeout=0.2)
    with guest.spawn("echo oh >&2; exit 1") as process, pytest.raises(GuestError, match="oh"):
        process.read_line(timeout=PATIENCE)


def test_commands_run_side_by_side(guest: Guest) -> None:
    """One connection serves several at once."""
    with guest.spawn("read -r x; echo first") as first, guest.spawn("echo second") as second:
        assert second.wait(PATIENCE).stdout == "second\n"
        first.send(b"\n")
        assert first.wait(PATIENCE).stdout == "first\n"


# -- files -------------------------------------------------------------------------


def test_files_go_in_and_come_back(guest: Guest, tmp_path: Path) -> None:
    """Any bytes, any name, with the mode asked for; from bytes, a path or its text."""
    data = bytes(range(256)) * 500
    target = tmp_path / "a 'quoted' name; $HOME"
    guest.put(data, str(target), mode=0o750)
    assert target.read_bytes() == data
    assert target.stat().st_mode & 0o777 == 0o750
    assert guest.get(str(target)) == data
    for source in (target, str(target)):
        guest.put(source, str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == data
        (tmp_path / "copy").unlink()


def test_files_that_cannot_be_had_are_errors(guest: Guest, tmp_path: Path) -> None:
    """The guest's own words say why."""
    for action in (
        lambda: guest.get(str(tmp_path / "missing")),
        lambda: guest.put(b"", str(tmp_path / "no" / "folder")),
    ):
        with pytest.raises(CommandFailed) as caught:
            action()
        assert "No such file" in str(caught.value) or "nonexistent" in str(caught.value)


def test_taint_is_a_number(guest: Guest) -> None:
    """As the kernel's file has it."""
    assert guest.taint() == int(Path("/proc/sys/kernel/tainted").read_text())


# -- the guest's own time ----------------------------------------------------------


def test_a_guest_runs_for_as_long_as_somebody_has_a_command_in_it(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From before it begins until its channel is closed, also where it is never taken."""
    seen: list[str] = []

    @contextlib.contextmanager
    def during() -> Iterator[None]:
        seen.append("runs")
        yield
        seen.append("stands still")

    def refuse(**_: object) -> None:
        raise paramiko.SSHException("no channel")

    monkeypatch.setattr(guest, "during", during)
    with guest.spawn("cat"):
        assert seen == ["runs"]
    assert seen == ["runs", "stands still"]
    monkeypatch.setattr(guest._transport, "open_session", refuse)
    with pytest.raises(GuestLost):
        guest.run("true")
    assert seen == ["runs", "stands still"] * 2


def test_time_that_passes_says_who_was_awake(guest: Guest) -> None:
    """How often a second each task went to sleep of its own accord."""
    with guest.spawn("while :; do sleep 0.01; done"):
        passed = guest.pass_time(0.5)
    assert passed.seconds >= 0.4
    assert passed.wakeups
    assert list(busiest_first(passed.wakeups)) == list(passed.wakeups)
    assert all(rate > 0 and "/" in who for who, rate in passed.wakeups.items())


@pytest.mark.parametrize("ends", ["kill -TERM $$", "true"])
def test_a_wait_that_is_ended_has_not_passed(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Otherwise nobody would know that the module had no time to do what it does late."""
    spawn = guest.spawn

    def ended(command: str, **more: Any) -> Running:
        return spawn(ends if command.startswith("exec sleep") else command, **more)

    monkeypatch.setattr(guest, "spawn", ended)
    with pytest.raises(GuestError, match=r"of 999\.5 s have passed: `sleep` ended before"):
        guest.pass_time(999.5)


def test_time_that_does_not_pass_is_told(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who was awake is the finding; nobody waits for ever."""
    monkeypatch.setattr(guests, "PASS_SECONDS", 0.3)
    monkeypatch.setattr(guest, "leap", contextlib.nullcontext)
    with pytest.raises(GuestBusy, match="of 1000 s have passed") as caught:
        guest.pass_time(1000.0)
    assert "what woke up: " in caught.value.tail


def test_a_key_is_checked_once(tmp_path: Path) -> None:
    """Each clone of a template has the same, and checking one takes longer than waking a guest."""
    make_key(tmp_path / "client")
    assert guests._client_key(tmp_path / "client") is guests._client_key(tmp_path / "client")
