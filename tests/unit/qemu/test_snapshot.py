# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/snapshot.py: a state that is saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import MachineError, MachineFault, StateError
from harness.host.proc import Deadline
from harness.qemu import Machine
from tests.unit.qemu.fake import PATIENCE


def test_a_state_that_does_not_fit_is_told_from_a_qemu_that_is_killed(
    machine: Callable[[str], Machine], tmp_path: Path
) -> None:
    """QEMU ends in both cases, and only the one says something of the state."""
    state = tmp_path / "state"
    state.write_bytes(b"")
    with pytest.raises(StateError, match="does not take the saved state"):
        machine("misfits").load(state, Deadline(PATIENCE))
    with pytest.raises(MachineFault, match="killed by SIGKILL"):
        machine("is-killed").load(state, Deadline(PATIENCE))


def test_a_saved_machine_goes_on_once_qemu_lets_it(machine: Callable[[str], Machine]) -> None:
    """QEMU refuses for a moment after it has said that all is written."""
    machine("silent").resume(Deadline(PATIENCE))
    with pytest.raises(MachineError, match="query-status took longer"):
        machine("clings").resume(Deadline(0.2))
