# SPDX-License-Identifier: GPL-2.0-only
"""The SSH session that a template is frozen with: what its clones do with it, and without it."""

from __future__ import annotations

import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import cMSG_CHANNEL_CLOSE, cMSG_CHANNEL_DATA, cMSG_CHANNEL_EOF

from harness.host.proc import Deadline
from harness.machines import freeze, pool, session
from harness.machines import guest as guests
from harness.machines.freeze import derive
from harness.machines.template import SESSION, Template
from harness.testing import Clone, Guest, Lab

# dropbear asks for new keys after eight hours (KEX_REKEY_TIMEOUT in its sysoptions.h).
NINE_HOURS = 9 * 3600.0
COMMANDS = {
    "outputs": "echo out; echo err >&2; exit 3",
    "input": 'read -r one; echo "[$one]"; wc -c; exit $?',
    "closed input": "exec <&-; exit 4",
    "signal": "sh -c 'kill -SEGV $$'",
    "signal to itself": "echo before; kill -KILL $$",
    "lines, quotes": "if true\nthen\n\tprintf %s 'a'\"'\"'b' \"$HOME\" '$HOME' `id`\nfi\n# end",
    "syntax error": "echo first; echo (",
    "what is not there": "no-such-command",
    "shell": "echo $0 $# $-; tr '\\0' ' ' </proc/$$/cmdline; readlink /proc/$$/exe; ls /proc/$$/fd",
    "variables": "env | sort; set | grep -v -e ^PPID; umask; pwd; ulimit -a; id",
    "trace": "set -x; echo one; (echo two)",
    "process": "cat /proc/$$/mountinfo /proc/$$/cgroup; grep -e Shd -e Ign -e Cap /proc/$$/status",
}  # fmt: skip


def waiting(guest: Guest) -> int:
    return len(guest._transport.waiting)


@pytest.fixture
def clone(lab: Lab) -> Iterator[Clone]:
    """A clone with nothing done in it yet."""
    with closing(pool.open_clone(lab.template(), lab.cache)) as made:
        yield made


@pytest.mark.parametrize("user", ["root", "daemon"])
@pytest.mark.parametrize("what", COMMANDS)
def test_the_first_command_is_as_any_other(clone: Clone, what: str, user: str) -> None:
    """Status, both outputs, what it reads and what it can see of itself."""
    given = b"a line\nmore\0\xff\n"
    guest = clone.guest
    assert waiting(guest) == session.SHELLS
    first = guest.run(COMMANDS[what], stdin=given, user=user)
    assert waiting(guest) == session.SHELLS - 1
    with Guest.connect(clone.machine.ssh_port(Deadline(30)), clone._keys) as ordinary:
        other = ordinary.run(COMMANDS[what], stdin=given, user=user)
    # The one thing that tells a session from another are the ports of its connection.
    texts = [
        "\n".join(line for line in result.stdout.splitlines() if not line.startswith("SSH_C"))
        for result in (first, other)
    ]
    assert texts[0] == texts[1]
    assert (first.status, first.stderr) == (other.status, other.stderr)


def test_more_commands_at_once_than_shells_wait(clone: Clone) -> None:
    """The rest get channels of their own, and each its own input."""
    guest = clone.guest
    with ExitStack() as ends:
        running = [
            ends.enter_context(guest.spawn(f"read -r word; echo {number} $word"))
            for number in range(session.SHELLS + 2)
        ]
        for number, process in reversed(list(enumerate(running))):
            process.send(f"word{number}\n".encode())
            assert process.wait().stdout == f"{number} word{number}\n"
    assert waiting(guest) == 0
    assert guest.check("echo well") == "well\n"


def test_shells_that_a_test_has_ended_are_not_missed(clone: Clone) -> None:
    """As `killall sh` does."""
    guest = clone.guest
    assert guest.run("pkill -KILL -x sh").status == -1
    assert guest.check("echo well") == "well\n"
    assert waiting(guest) == 0


@pytest.mark.parametrize("end", [cMSG_CHANNEL_EOF, cMSG_CHANNEL_CLOSE], ids=["eof", "close"])
def test_what_is_sent_too_late_does_not_end_the_session(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    """A thread may stop between its look at a channel and its sending, and the channel be closed.

    Closing takes two messages. The server ends a session in which data comes after the first, or
    anything after the second. So a line is sent right behind each of them.
    """
    transport = clone.guest._transport
    channel: Any = transport.waiting[0]
    its_end = end[:1] + channel.remote_chanid.to_bytes(4, "big")
    sent_late = threading.Event()
    send = transport._send_message

    def watched(message: paramiko.Message) -> None:
        send(message)
        if message.asbytes() == its_end:
            late: Any = paramiko.Message()
            late.add_byte(cMSG_CHANNEL_DATA)
            late.add_int(channel.remote_chanid)
            late.add_string("echo late\n")
            late.outlet = channel.transport
            send(late)
            sent_late.set()

    monkeypatch.setattr(transport, "_send_message", watched)
    assert clone.guest.run("pkill -KILL -x sh").status == -1
    assert sent_late.wait(60)
    assert clone.guest.check("echo well") == "well\n"


def test_a_guest_without_memory_for_a_command_says_so(clone: Clone) -> None:
    """A shell that waited and cannot start the command is as one that cannot begin."""
    guest = clone.guest
    guest.check("mv /bin/sh /bin/sh.away 2>/dev/null || mv /usr/bin/sh /usr/bin/sh.away")
    result = guest.run("echo well")
    assert result.status == 127
    assert "not found" in result.stderr


def test_clones_do_not_draw_the_same(lab: Lab) -> None:
    """Whatever a first command draws at random: the guest was stirred before it runs."""
    draws = []
    for _ in range(3):
        with closing(pool.open_clone(lab.template(), lab.cache)) as made:
            draws.append(
                made.guest.check(
                    "od -An -N8 -tx8 /dev/urandom; cat /proc/sys/kernel/random/uuid; "
                    "bash -c 'echo $SRANDOM; echo $RANDOM$RANDOM$RANDOM'; "
                    "basename $(mktemp -u XXXXXXXXXXXX)"
                ).split()
            )
    for column in zip(*draws, strict=True):
        assert len(set(column)) == len(draws), draws


def test_the_keys_are_the_owners(lab: Lab) -> None:
    """Nobody else reads them in the cache."""
    made = lab.template()
    assert made.session is not None
    assert stat.S_IMODE((made.entry.path / SESSION).stat().st_mode) == 0o600


def test_a_derived_template_has_a_session_of_its_own(lab: Lab) -> None:
    """Its base's shells were used, and its base's server was ended."""
    base = lab.template()

    def set_up(running: Clone) -> dict[str, object]:
        for number in range(session.SHELLS + 1):
            running.guest.check(f"echo {number} >>/root/numbers")
        return {}

    made = derive(base, "session", {"once": secrets.token_hex(8)}, set_up, lab.cache)
    try:
        assert made.session is not None
        assert base.session is not None
        assert made.session.sent.key != base.session.sent.key
        with closing(pool.open_clone(made, lab.cache)) as running:
            assert waiting(running.guest) == session.SHELLS
            assert running.guest.check("cat numbers").split() == [
                str(number) for number in range(session.SHELLS + 1)
            ]
            # One server for this session, one that listens; the shells of the base are gone.
            assert running.guest.check("pgrep -xc dropbear").strip() == "2"
            assert running.guest.check("pgrep -fc 'IFS= [r]ead -r l'; true").strip() == str(
                session.SHELLS - 3
            )
    finally:
        lab.cache.release(made.entry)
        lab.cache.remove(made.entry)


def test_new_keys_after_hours_are_agreed_upon(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server asks for them, and the client goes on as one that has made the handshake."""
    monkeypatch.setattr(guests, "PASS_SECONDS", 120.0)
    template = lab.template(emulated=True)
    with closing(pool.open_clone(template, lab.cache, ahead=True)) as late:
        guest = late.guest
        before = guest._transport.session().sent.key
        guest.pass_time(NINE_HOURS)
        assert guest.check("echo well") == "well\n"
        assert guest._transport.session().sent.key != before


@pytest.fixture
def ordinary(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Template]:
    """A template frozen with a paramiko that cannot go on with a session."""
    monkeypatch.setattr(session, "fault", lambda: "paramiko 99 is not known")
    made = lab.template(emulated=True, append=(f"eudyptula.ordinary={secrets.token_hex(4)}",))
    yield made
    lab.cache.release(made.entry)
    lab.cache.remove(made.entry)


def test_without_a_session_everything_is_as_before(lab: Lab, ordinary: Template) -> None:
    """Each clone makes its own; also where its clock runs ahead, and where more is derived."""
    assert ordinary.frozen
    assert ordinary.session is None
    assert not (ordinary.entry.path / SESSION).exists()
    with closing(pool.open_clone(ordinary, lab.cache)) as running:
        assert running.guest.check("echo well") == "well\n"
        assert waiting(running.guest) == 0
    with closing(pool.open_clone(ordinary, lab.cache, ahead=True)) as late:
        assert late.guest.pass_time(600.0).seconds >= 600.0
        assert late.guest.check("echo well") == "well\n"
    made = derive(
        ordinary, "ordinary", {}, lambda it: {"said": it.guest.check("uname -n")}, lab.cache
    )
    assert made.facts["said"]
    assert made.facts["no_session"] == "paramiko 99 is not known"
    with closing(pool.open_clone(made, lab.cache)) as running:
        assert running.guest.check("echo well") == "well\n"
    lab.cache.release(made.entry)
    lab.cache.remove(made.entry)


def test_a_session_that_does_not_fit_is_not_frozen(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial clone finds it out, and the machine is frozen all the same."""
    right = session.Transport.session

    def wrong(self: session.Transport) -> session.Session:
        found = right(self)
        return replace(found, sent=replace(found.sent, sequence=0))

    monkeypatch.setattr(session.Transport, "session", wrong)
    template = lab.template()
    freeze._boot_and_freeze(template.spec, lab.image.keys, tmp_path)
    facts = freeze._facts(tmp_path)
    assert "unfrozen" not in facts
    assert facts["no_session"]
    assert not (tmp_path / SESSION).exists()
