# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/snapshot.py: a state that is saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import MachineError, MachineFault, StateError
from harness.host.proc import Deadline
from harness.qemu import Machine
from harness.qemu.snapshot import with_configuration, with_counted_time
from tests.unit.qemu.fake import PATIENCE


def test_a_state_that_does_not_fit_is_told_from_a_qemu_that_is_killed(
    machine: Callable[[str], Machine], tmp_path: Path
) -> None:
    """QEMU ends in both cases, and only the one says something of the state."""
    state = tmp_path / "state"
    state.write_bytes(b"")
    with pytest.raises(StateError, match="does not take the saved state"):
        machine("misfits").snapshot.load(state, Deadline(PATIENCE))
    with pytest.raises(MachineFault, match="killed by SIGKILL"):
        machine("is-killed").snapshot.load(state, Deadline(PATIENCE))


def test_a_saved_machine_goes_on_once_qemu_lets_it(machine: Callable[[str], Machine]) -> None:
    """QEMU refuses for a moment after it has said that all is written."""
    machine("silent").snapshot.resume(Deadline(PATIENCE))
    with pytest.raises(MachineError, match="query-status took longer"):
        machine("clings").snapshot.resume(Deadline(0.2))


HEAD = b"QEVM\0\0\0\3"
NAME = b"\7\0\0\0\12pc-q35-7.2"


def test_a_state_of_devices_gets_the_section_that_it_lacks() -> None:
    """QEMU writes it where memory is saved too, and loads nothing without it."""
    assert with_configuration(HEAD + b"devices", HEAD + NAME + b"rest") == HEAD + NAME + b"devices"


@pytest.mark.parametrize(
    "origin", [b"QEVM\0\0\0\4" + NAME, HEAD + b"\1" + NAME[1:], HEAD + b"\7\1\1\1\1", b""]
)
def test_a_state_of_another_format_is_said(origin: bytes) -> None:
    """Rather than load something else."""
    with pytest.raises(StateError, match="format"):
        with_configuration(HEAD + b"devices", origin)


TIMER = b"\4\0\0\0\2\5timer\0\0\0\0\0\0\0\2" + b"counter!" + bytes(8) + b"\0\0\0\6\5\4\3\2"
FOOTER = b"\x7e\0\0\0\2"


def test_the_clock_of_a_state_goes_on_where_instructions_are_counted() -> None:
    """Else the devices' clock starts from zero, and what is set for now comes much later."""
    counted = with_counted_time(HEAD + TIMER + FOOTER + b"rest")
    section = b"\5\x0ctimer/icount\0\0\0\1" + b"\0\0\0\6\5\4\3\2" + bytes(8)
    assert counted == HEAD + TIMER + section + FOOTER + b"rest"
    assert with_counted_time(counted) == counted


def test_a_state_without_a_clock_is_said() -> None:
    """Rather than let time stand still."""
    with pytest.raises(StateError, match="format"):
        with_counted_time(HEAD + b"devices")
