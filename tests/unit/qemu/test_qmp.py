# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/qmp.py: commands and events."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from harness.errors import MachineError
from harness.host.proc import Deadline
from harness.qemu import Machine
from tests.unit.qemu.fake import PATIENCE


def test_a_panic_is_remembered(machine: Callable[[str], Machine]) -> None:
    """Who asks later still learns of it; the process is kept."""
    running = machine("panics")
    running.execute("stop", Deadline(PATIENCE))
    running.monitor.await_event(
        lambda event: event["event"] == "GUEST_PANICKED", Deadline(PATIENCE), "panicking"
    )
    assert running.panicked
    assert running.running


def test_an_event_of_the_past_is_found(machine: Callable[[str], Machine]) -> None:
    """Nothing is lost between a command and the wait for what it causes."""
    running = machine("silent")
    running.execute("stop", Deadline(PATIENCE))
    for _ in range(2):
        event = running.monitor.await_event(
            lambda e: e["event"] == "STOP", Deadline(PATIENCE), "stopping"
        )
        assert event["event"] == "STOP"


def test_a_wait_ends_with_the_process(machine: Callable[[str], Machine]) -> None:
    """A QEMU that is gone sends no event: the wait says so at once."""
    running = machine("silent")
    os.kill(running.pid, 9)
    with pytest.raises(MachineError, match="ended"):
        running.monitor.await_event(lambda _: False, Deadline(PATIENCE), "waiting for nothing")


def test_a_command_that_qemu_refuses_is_an_error(machine: Callable[[str], Machine]) -> None:
    """QEMU's reason is in it, and the machine goes on."""
    running = machine("silent")
    with pytest.raises(MachineError, match="no nonesuch"):
        running.execute("nonesuch", Deadline(PATIENCE))
    assert running.running
