# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/agent.py: orders to a guest, and what becomes of their answers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import pytest

from harness.errors import BootError, MachineError
from harness.host.proc import Deadline
from harness.qemu import Machine, port
from tests.unit.qemu.fake import PATIENCE


def test_a_guest_that_is_ready_is_heard(machine: Callable[[str], Machine]) -> None:
    """The rest of the line comes back."""
    running = machine("ready")
    assert running.agent.await_answer("ready", Deadline(PATIENCE)) == "1.5"
    assert running.running
    assert not running.panicked


@pytest.mark.parametrize(
    ("act", "named"),
    [("fails", "failed no network device"), ("panics", "ready"), ("ends", "ready")],
)
def test_a_guest_that_does_not_come_up_shows_its_console(
    machine: Callable[[str], Machine], act: str, named: str
) -> None:
    """A failed init, a panic and a QEMU that ends are each noticed at once, without a timeout."""
    running = machine(act)
    with contextlib.suppress(MachineError):
        running.execute("stop", Deadline(PATIENCE))  # what ends or panics does so now
    with pytest.raises(BootError) as caught:
        running.agent.await_answer("ready", Deadline(PATIENCE))
    assert named in caught.value.what
    assert "last words" in caught.value.tail
    assert "\x1b" not in str(caught.value)
    assert "vmlinuz" in caught.value.what
    assert "within" not in caught.value.what


@pytest.fixture(autouse=True)
def _words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The orders' words are numbers, so that a test knows which comes next."""
    numbers = (str(number) for number in itertools.count(1))
    monkeypatch.setattr("harness.qemu.agent.secrets.token_hex", lambda _: next(numbers))


def test_an_answer_that_comes_too_late_is_nobody_elses(
    machine: Callable[[str], Machine],
) -> None:
    """The next order gets its own, and nobody wonders about the other."""
    running = machine("silent")
    with pytest.raises(BootError):
        running.agent.order("mark one", "marked", Deadline(0.2))
    for line in ("1 marked 1", "2 marked 2", "3 leftovers thread:x"):
        running.execute("say", Deadline(PATIENCE), line=line)
    assert running.agent.order("mark two", "marked", Deadline(PATIENCE)) == "2"
    assert running.agent.order("leftovers", "leftovers", Deadline(PATIENCE)) == "thread:x"
    assert running.agent.take_unasked() == ()


def test_what_was_not_asked_for_is_no_answer(machine: Callable[[str], Machine]) -> None:
    """Whoever writes to the port in the guest does not know the word of the next order."""
    running = machine("silent")
    for line in ("marked 0", "0 marked 0", *["x" * 1000] * 100, "1 marked 1"):
        running.execute("say", Deadline(PATIENCE), line=line)
    assert running.agent.order("mark one", "marked", Deadline(PATIENCE)) == "1"
    first, second, *others = running.agent.take_unasked()
    assert (first, second) == ("marked 0", "0 marked 0")
    assert 0 < sum(map(len, others)) < 1000
    assert running.agent.take_unasked() == ()


def test_an_answer_may_be_long(machine: Callable[[str], Machine]) -> None:
    """The stacks of some hundred tasks are one line."""
    running = machine("silent")
    running.execute("say", Deadline(PATIENCE), line=f"1 stacks {'x' * (1 << 20)}")
    assert len(running.agent.order("stacks", "stacks", Deadline(PATIENCE))) == 1 << 20


def test_an_answer_without_an_end_is_the_guests_fault(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module can write to the control port; what it floods it with is a sentence."""
    monkeypatch.setattr(port, "LINE_BYTES", 1 << 16)
    running = machine("silent")
    running.execute("say", Deadline(PATIENCE), line="x" * 100_000)
    with pytest.raises(BootError, match="without an end of line") as caught:
        running.agent.order("stacks", "stacks", Deadline(PATIENCE))
    assert "last words" in caught.value.tail


def test_a_guest_that_says_nothing_is_given_up(machine: Callable[[str], Machine]) -> None:
    """At the deadline the error has the console too."""
    with pytest.raises(BootError, match="last words"):
        machine("silent").agent.await_answer("ready", Deadline(0.2))


@pytest.mark.parametrize("said", ["many", "9" * 5000, "-1", ""])
def test_taint_flags_that_are_no_number_are_the_guests_fault(
    machine: Callable[[str], Machine], said: str
) -> None:
    """A module can read the port and answer for the agent; Python bears no number so long."""
    running = machine("silent")
    running.execute("say", Deadline(PATIENCE), line=f"2 marked {said}")
    with pytest.raises(MachineError, match="taint flags"):
        running.agent.mark(Deadline(PATIENCE))
