# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/machine.py: the whole, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.host.proc import Deadline
from harness.qemu import Machine, MachineSpec
from harness.qemu.clock import Clock
from tests.unit.qemu.fake import PATIENCE


def test_the_port_is_the_one_that_qemu_chose(machine: Callable[[str], Machine]) -> None:
    """From `info usernet`; without one there, an error."""
    assert machine("silent").ssh_port(Deadline(PATIENCE)) == 34567
    with pytest.raises(MachineError):
        machine("no-port").ssh_port(Deadline(PATIENCE))


def test_quit_waits_for_the_end(machine: Callable[[str], Machine]) -> None:
    """What QEMU writes at its end is written when ``quit`` returns; who stays is told."""
    running = machine("silent")
    running.quit(Deadline(PATIENCE))
    assert not running.running
    with pytest.raises(MachineError, match="does not end"):
        machine("stays").quit(Deadline(0.2))


def test_a_closed_machine_is_gone(machine: Callable[[str], Machine]) -> None:
    """The process has ended when ``close`` returns; closing again does nothing."""
    running = machine("silent")
    running.close()
    assert not running.running
    running.close()
    with pytest.raises(MachineError):
        running.execute("stop", Deadline(PATIENCE))


def test_a_look_at_a_machine_that_stands_still_uses_up_no_patience(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the host that takes so long. The guest could not answer meanwhile."""
    patience = machine("silent").patience(0.0)
    assert patience.expired
    monkeypatch.setattr(Clock, "stood", 1000.0)
    assert not patience.expired


def test_only_what_can_be_recorded_is_called_so(tmp_path: Path) -> None:
    """Whoever reads that a test can be recorded is not turned away then."""
    shape = MachineSpec(tmp_path / "kernel", tmp_path / "initrd")
    assert Machine(shape, tmp_path).recordable
    assert not Machine(replace(shape, cpus=2), tmp_path).recordable
    assert not Machine(replace(shape, devices=("edu",)), tmp_path).recordable
    ahead = Machine(shape, tmp_path)
    ahead.ahead = True
    assert not ahead.recordable
