# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/stalls.py: a host that keeps a machine from running."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from harness.errors import MachineFault
from harness.host.proc import Deadline
from harness.qemu import Machine
from harness.qemu.stalls import GuestDeadline, Pulse, QuietDeadline, Stall


def test_what_the_host_kept_a_guest_waiting_for_does_not_count() -> None:
    """A deadline is put off by that, and by nothing that was before it."""
    waited = 500.0
    patience = GuestDeadline(0.0, lambda: waited)
    assert patience.expired
    waited += 1000.0
    assert not patience.expired
    assert 900.0 < patience.left <= 1000.0
    waited = 0.0  # QEMU is gone, and nobody knows any more
    assert patience.expired


def test_a_machine_that_prints_nothing_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not while it prints, nor for time in which the host did not run it."""
    now, size, waited = 1000.0, 0, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    patience = QuietDeadline(240.0, 100.0, lambda: size, lambda: waited)
    now += 99.0
    assert patience.left == 1.0
    size = 5
    assert patience.left == 100.0
    now += 101.0
    assert patience.expired
    waited = 11.0
    assert patience.left == 10.0
    size = 6
    assert patience.left == 51.0  # of the 240 and the 11 that the host kept it waiting


class Clocks:
    """Two clocks of a host (clock_gettime(2)); ``later`` lets time pass."""

    def __init__(self) -> None:
        self.monotonic, self.suspended = 1000.0, 0.0

    def now(self, clock: int) -> float:
        boottime = clock == time.CLOCK_BOOTTIME
        return self.monotonic + (self.suspended if boottime else 0.0)


class Beating:
    """A pulse whose QEMU takes ``late`` seconds longer than it should for its next answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clocks = Clocks()
        self.late = self.suspended = self.waited = self.starved = 0.0
        self.seen: list[float] = []
        self.pulse = Pulse(self.answer, lambda: 42, lambda: self.starved, str, self.clocks.now)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.clocks.monotonic += seconds

    async def answer(self) -> None:
        self.clocks.monotonic += self.late
        self.clocks.suspended += self.suspended
        self.starved += self.waited
        self.seen.append(self.pulse.seconds)

    def beat(self, late: float, *, suspended: float = 0.0, waited: float = 0.0) -> None:
        self.late, self.suspended, self.waited = late, suspended, waited
        asyncio.run(self.pulse.beat())


@pytest.fixture
def beating(monkeypatch: pytest.MonkeyPatch) -> Beating:
    return Beating(monkeypatch)


def test_a_qemu_that_answers_in_time_does_not_stand_still(beating: Beating) -> None:
    """Nor does one that a busy host makes a little late."""
    for late in (0.001, 0.9):
        beating.beat(late)
    assert beating.pulse.seconds == 0.0
    assert beating.pulse.stalls == []


def test_what_qemu_stands_still_is_counted_while_it_lasts(beating: Beating) -> None:
    """A deadline must be put off before the answer has come."""
    beating.beat(20.0)
    assert beating.seen == [20.0]
    assert beating.pulse.seconds == 20.0
    assert beating.pulse.standing == 0.0
    beating.beat(5.0)
    assert beating.pulse.seconds == 25.0
    assert beating.pulse.stalls == [Stall(42, 20.0), Stall(42, 5.0)]


def test_what_a_cpu_waited_for_a_processor_is_not_counted_twice(beating: Beating) -> None:
    """``GuestDeadline`` has that already, from the scheduler's own numbers."""
    beating.beat(20.0, waited=15.0)
    assert beating.pulse.seconds == 5.0


def test_a_qemu_that_stands_still_for_ever_is_given_up(beating: Beating) -> None:
    """Nobody waits for it longer than that."""
    beating.beat(10 * Pulse.LONGEST)
    assert beating.seen == [Pulse.LONGEST]


def test_a_host_that_was_suspended_is_known_by_its_clocks(beating: Beating) -> None:
    """No deadline notices, but a guest's clock may have gone on."""
    beating.beat(0.0, suspended=3600.0)
    assert beating.pulse.seconds == 0.0
    assert beating.pulse.stalls == [Stall(42, 3600.0)]


def test_a_deadline_is_put_off_by_what_qemu_stands_still(machine: Callable[[str], Machine]) -> None:
    """Not the guest was late: so it gets the time that it was promised."""
    running = machine("silent")
    done = threading.Event()

    def hold() -> None:
        os.kill(running.pid, signal.SIGSTOP)
        done.wait(3.0)  # as long as it takes until nobody could take it for a busy moment
        os.kill(running.pid, signal.SIGCONT)

    holding = threading.Thread(target=hold)
    deadline = Deadline(2.5)
    holding.start()
    try:
        running.execute("say", deadline, line="well")
    finally:
        done.set()
        holding.join()
    assert deadline.expired
    # A busy host may have let it stand still at other times as well.
    assert max(seconds for _, seconds in running.stalls) > Pulse.TOLERATED


def test_who_gives_up_a_qemu_that_stands_still_blames_the_host(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the state of its process."""
    monkeypatch.setattr(Pulse, "LONGEST", 0.0)
    running = machine("silent")
    os.kill(running.pid, signal.SIGSTOP)
    try:
        with pytest.raises(MachineFault, match=r"stood still for \d+ s \(state T \(stopped\)\)"):
            running.agent.await_answer("ready", Deadline(3.0))
    finally:
        os.kill(running.pid, signal.SIGCONT)
