# SPDX-License-Identifier: GPL-2.0-only
"""harness/machines/serial.py: commands over a serial port; vm/agent is made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from harness.errors import BootError, CommandFailed, GuestLost
from harness.host.proc import Deadline
from harness.machines import serial
from harness.machines.serial import SerialGuest
from harness.qemu import Machine


class FakeAgent:
    """Answers each order; ``says`` is told of them, and returns what the guest says then."""

    def __init__(self, says: Callable[[str], list[str]]) -> None:
        self.on_stream: Callable[[str], None] = lambda _: None
        self.orders: list[str] = []
        self._says = says

    def order(self, text: str, *_: Any) -> str:
        self.orders.append(text)
        for line in self._says(text):
            self.on_stream(line)
        return ""


class FakeMachine:
    patience = Deadline

    def __init__(self, says: Callable[[str], list[str]]) -> None:
        self.agent = self.paced = FakeAgent(says)


def guest(says: Callable[[str], list[str]], **carried: str) -> tuple[SerialGuest, FakeAgent]:
    machine = FakeMachine(says)
    return SerialGuest(cast(Machine, machine), carried), machine.agent


def runs(*lines: str) -> Callable[[str], list[str]]:
    """A guest that says these of the one command as soon as it is started."""
    return lambda order: list(lines) if order.startswith("run ") else []


def test_a_command_is_sent_and_told_of() -> None:
    """White space and % are quoted in both directions; the end comes in any order."""
    made, agent = guest(runs("~1 exit 3", "~1 out a%20b%0a%25", "~1 err %ff", "~1 eof"))
    done = made.run("echo 'a\tb' %")
    assert agent.orders[0].startswith("run 1 echo%20'a%09b'%20%25%0A")
    assert (done.status, done.stdout, done.stderr) == (3, "a b\n%", "\N{REPLACEMENT CHARACTER}")
    assert not any(order.startswith("drop") for order in agent.orders)


def test_input_is_fed_and_ended() -> None:
    """In pieces, for the port is slow."""

    def says(order: str) -> list[str]:
        return ["~1 eof", "~1 exit 0"] if order == "end-input 1" else []

    made, agent = guest(says)
    made.check("cat >/dev/null", stdin=b"x" * 1024 + b" ")
    assert agent.orders[1:] == [f"feed 1 {'x' * 1024}", "feed 1 %20", "end-input 1"]


def test_what_is_not_waited_for_is_dropped() -> None:
    """vm/agent need not keep what nobody reads."""
    made, agent = guest(runs())
    with made.spawn("sleep 1000"):
        pass
    assert agent.orders[-1] == "drop 1"


def test_others_can_write_to_the_port() -> None:
    """A line that says nothing of a command of ours, or that makes no sense, is nothing."""
    made, _ = guest(runs("~", "~9 out x", "~1", "~1 exit x", "~1 what", "~1 exit 0", "~1 eof"))
    assert made.run("true").ok


def test_a_guest_that_panics_is_lost() -> None:
    """Whoever waits for a command knows at once."""
    made, _ = guest(runs())
    with made.spawn("sleep 1000") as process:
        made.close()
        with pytest.raises(GuestLost):
            process.wait()


def test_an_agent_that_does_not_answer_is_a_lost_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it said as the reason."""
    made, agent = guest(runs())

    def order(*_: Any) -> str:
        raise BootError("the guest did not say 'running'")

    monkeypatch.setattr(agent, "order", order)
    with pytest.raises(GuestLost, match="did not say 'running'"):
        made.run("true")


def test_a_file_that_the_guest_carries_is_not_sent() -> None:
    """It is copied where it is wanted; any other is sent."""

    def copies(order: str) -> list[str]:
        if order.startswith("run 1 "):
            return ["~1 exit 0", "~1 eof"]
        return ["~2 exit 1", "~2 eof"] if order.startswith("feed 2") else []

    made, agent = guest(copies, **{serial.digest(b"module"): "/carried"})
    made.put(b"module", "/root/a b")
    assert "cat%20/carried%20>'/root/a%20b'" in agent.orders[0]
    with pytest.raises(CommandFailed):
        made.put(b"another", "/root/c")
    assert agent.orders[-2:] == ["feed 2 another", "end-input 2"]
