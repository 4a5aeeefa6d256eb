# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/clock.py: when a machine is stopped, and when it runs."""

from __future__ import annotations

import time

import pytest

from harness.errors import MachineError
from harness.host.proc import Deadline
from harness.qemu.clock import Clock

PATIENCE = 20.0


class Machine:
    """Whether it runs, and how often that was changed; ``gone``: nothing can be done to it."""

    def __init__(self) -> None:
        self.runs, self.changes, self.gone = True, 0, False
        self.clock = Clock(self.let_run)

    def let_run(self, run: bool, _: Deadline) -> None:
        if self.gone:
            raise MachineError("QEMU is gone")
        self.runs = run
        self.changes += 1


def test_an_ordinary_machine_always_runs() -> None:
    """Nothing is asked of its QEMU."""
    machine = Machine()
    with machine.clock.running():
        assert machine.runs
    assert machine.runs
    assert machine.changes == 0


def test_a_machine_that_is_held_runs_only_while_somebody_wants_it() -> None:
    """Until the last of them has what it wanted."""
    machine = Machine()
    machine.clock.hold()
    assert not machine.runs
    with machine.clock.running():
        with machine.clock.running():
            assert machine.runs
        assert machine.runs
    assert not machine.runs
    assert machine.changes == 3


def test_who_wants_it_already_is_not_stopped() -> None:
    """It is held from when that has ended."""
    machine = Machine()
    with machine.clock.running():
        machine.clock.hold()
        assert machine.runs
    assert not machine.runs


@pytest.mark.parametrize("held", [True, False])
def test_after_a_look_at_its_memory_it_is_as_before(held: bool) -> None:
    """Whoever reads a machine's memory must neither run into it nor let time pass."""
    machine = Machine()
    if held:
        machine.clock.hold()
    with machine.clock.stopped(Deadline(PATIENCE)):
        assert not machine.runs
    assert machine.runs is not held


def test_a_machine_that_is_gone_is_told_by_whoever_wanted_something_of_it() -> None:
    """Not by its clock, which would hide why; but memory that moves is not looked at."""
    machine = Machine()
    machine.clock.hold()
    machine.gone = True
    with machine.clock.running():
        pass
    with pytest.raises(MachineError), machine.clock.stopped(Deadline(PATIENCE)):
        pass


def test_how_long_it_was_looked_at_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while that goes on: whoever waits for the guest must not count it."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    machine = Machine()
    for seconds in (7.0, 5.0):
        with machine.clock.stopped(Deadline(PATIENCE)):
            now += seconds
            assert machine.clock.stood >= seconds
        now += 100.0
    assert machine.clock.stood == 12.0
