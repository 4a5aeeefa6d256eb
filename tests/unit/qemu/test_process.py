# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/process.py: how a QEMU starts and ends, and whose fault that is."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from harness.errors import BootError, HostError, MachineError, MachineFault, SpaceError
from harness.host.proc import Deadline
from harness.qemu import Machine, process
from tests.unit.qemu.fake import PATIENCE, ignored_leaks


def test_a_machine_that_does_not_start_says_why(machine: Callable[[str], Machine]) -> None:
    """QEMU's own words are in the error."""
    with ignored_leaks(), pytest.raises(MachineFault, match="did not start") as caught:
        machine("refuses")
    assert "invalid accelerator" in str(caught.value)
    assert not isinstance(caught.value, BootError)


def test_a_machine_that_does_not_start_leaves_nothing_open(
    machine: Callable[[str], Machine],
) -> None:
    """A start that fails closes what it opened: processes, sockets, files."""
    with ignored_leaks():
        machine("silent").close()  # what is opened once and kept is open now
        before = sorted(os.listdir("/proc/self/fd"))
        with pytest.raises(MachineError) as caught:
            machine("refuses")
        after = sorted(os.listdir("/proc/self/fd"))
        del caught
    assert after == before


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGBUS, "SIGBUS")]
)
def test_a_qemu_that_is_killed_is_the_hosts_fault(
    machine: Callable[[str], Machine], number: int, name: str
) -> None:
    """Whoever waits for the guest learns the signal, and sees what there is of the guest."""
    waits: list[Callable[[Machine], object]] = [
        lambda running: running.agent.await_answer("ready", Deadline(PATIENCE)),
        lambda running: running.execute("query-status", Deadline(PATIENCE)),
        lambda running: running.agent.order("mark x", "marked", Deadline(PATIENCE)),
        lambda running: running.check_host(Deadline(PATIENCE)),
    ]
    for wait in waits:
        running = machine("silent")
        assert running.host_fault is None
        os.kill(running.pid, number)
        with pytest.raises(MachineFault, match=f"killed by {name}") as caught:
            wait(running)
        assert caught.value.exit_status == HostError.exit_status
        assert "last words" in caught.value.tail
        assert name in running.fault


def test_a_machine_that_is_closed_is_nobodys_fault(machine: Callable[[str], Machine]) -> None:
    """The kill was the harness's own."""
    running = machine("silent")
    running.close()
    assert running.host_fault is None
    assert running.fault == ""


def test_a_guest_that_powers_off_is_no_fault_of_the_hosts(
    machine: Callable[[str], Machine],
) -> None:
    """QEMU ends with status 0 then."""
    running = machine("silent")
    running.quit(Deadline(PATIENCE))
    running.check_host(Deadline(PATIENCE))
    with pytest.raises(BootError, match="stopped before 'ready'"):
        running.agent.await_answer("ready", Deadline(PATIENCE))


def test_a_qemu_that_dies_has_its_last_words_in_the_error(
    machine: Callable[[str], Machine],
) -> None:
    """What it wrote to its standard error is the evidence."""
    with pytest.raises(MachineError) as caught:
        machine("silent").execute("die", Deadline(PATIENCE))
    assert "die" in caught.value.what
    assert "assertion failed" in str(caught.value)


def test_a_machine_whose_disk_is_full_ends_and_says_so(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the guest prints is lost from then on: nobody waits for it until the time is up."""
    running = machine("silent")
    assert process.no_space(tmp_path) is None
    full = SpaceError("no space left in /somewhere", hint="free some")
    monkeypatch.setattr(process, "no_space", lambda *_, **__: full)
    with pytest.raises(MachineFault, match="no space left in /somewhere") as caught:
        running.agent.await_answer("ready", Deadline(PATIENCE))
    assert caught.value.hint == "free some"
    assert caught.value.exit_status == SpaceError.exit_status
    assert running.fault.startswith("no space left in /somewhere")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_is_full_when_a_write_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    """Whatever it says is free: that may be for root only, and quotas show nowhere."""

    def refuse(**_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert process.no_space(tmp_path) is None
    assert process.no_space(tmp_path, quota=True) is not None
    monkeypatch.setattr(process, "_ROOM", 1 << 62)
    found = process.no_space(tmp_path)
    assert found is not None
    assert found.hint
