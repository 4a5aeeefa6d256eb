# SPDX-License-Identifier: GPL-2.0-only
"""What a red test leaves can be opened again; and what cannot be frozen is booted."""

from __future__ import annotations

import os
import re
import secrets
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import config
from harness.build.image import Keys
from harness.host.proc import Deadline
from harness.machines import freeze, pool, saved
from harness.qemu import Machine
from harness.qemu.debug import private_socket
from harness.qemu.snapshot import Snapshot
from harness.testing import Clone, Guest, GuestLost, Lab, MachineError

HERE = Path(__file__).parent
SECONDS = 120.0
# They start runs of pytest, which take longer than one test may.
pytestmark = pytest.mark.timeout(1000)


@pytest.fixture
def victim(lab: Lab) -> Iterator[Clone]:
    """A machine that is not this test's own: nobody asks for its verdict."""
    clone = pool.open_clone(lab.template(), lab.cache)
    try:
        yield clone
    finally:
        clone.close()


def test_a_saved_machine_goes_on_where_it_was(lab: Lab, victim: Clone, tmp_path: Path) -> None:
    """Its files and its processes are as they were."""
    victim.guest.check("echo here >/tmp/mark")
    victim.guest.check("sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >/tmp/pid")
    saved.save(victim.machine, lab.image.keys, tmp_path, Deadline(SECONDS), {})
    with saved.reopened(saved.load(tmp_path), tmp_path) as again:
        assert again.guest.check("cat /tmp/mark") == "here\n"
        assert again.guest.check("ps -o args= -p $(cat /tmp/pid)") == "sleep 1000\n"


def test_a_machine_that_cannot_be_saved_runs_on(lab: Lab, victim: Clone, tmp_path: Path) -> None:
    """QEMU finds no place for the state after it has stopped the machine."""
    (tmp_path / saved.STATE).symlink_to(tmp_path / "no such folder" / "state")
    with pytest.raises(MachineError, match="could not save"):
        saved.save(victim.machine, lab.image.keys, tmp_path, Deadline(SECONDS), {})
    victim.machine.snapshot.resume(Deadline(SECONDS))
    assert victim.guest.check("echo here") == "here\n"
    assert list(tmp_path.iterdir()) == []


def test_a_dead_machine_can_be_looked_at(lab: Lab, victim: Clone, tmp_path: Path) -> None:
    """A kernel that has panicked is opened as it died, for a debugger."""
    machine = victim.machine
    with pytest.raises(GuestLost):
        victim.guest.run("echo c >/proc/sysrq-trigger")
    machine.monitor.await_event(
        lambda event: event["event"] == "GUEST_PANICKED", Deadline(SECONDS), "panicking"
    )
    died = machine.registers(Deadline(SECONDS))
    saved.save(machine, lab.image.keys, tmp_path, Deadline(SECONDS), {})
    with saved.reopened(saved.load(tmp_path), tmp_path, stopped=True) as again:
        assert again.machine.registers(Deadline(SECONDS)) == died
        with private_socket() as path:
            again.machine.debugger.listen(path, Deadline(SECONDS))
            # Who gets to QEMU's command line through it can start programs as its user.
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            with socket.socket(socket.AF_UNIX) as gdb:
                gdb.settimeout(SECONDS)
                gdb.connect(str(path))
                gdb.sendall(b"$?#3f")  # why it has stopped (gdb's manual, Packets)
                said = b""
                while b"#" not in said:
                    more = gdb.recv(1 << 12)
                    assert more, said
                    said += more
            assert re.match(rb"\+\$T05thread:.*;#\w*", said)


def test_keep_leaves_the_first_red_machine_running(lab: Lab, tmp_path: Path) -> None:
    """The report has a way in and a way to end it; both work, and nothing else stays."""
    trial = tmp_path / "test_red.py"
    trial.write_text("def test_red(guest):\n    guest.check('echo kept >/tmp/mark; false')\n")
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--keep",
        f"--kernel={lab.kernel.name}", "-c", str(config.PROJECT / "pyproject.toml"),
        f"--rootdir={tmp_path}", str(trial),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=config.PROJECT, capture_output=True, text=True, check=False, timeout=900
    )
    found = re.search(r"runs on: ssh -p (\d+) .*\n *`kill (\d+)`", done.stdout)
    assert found, done.stdout + done.stderr
    port, pid = int(found[1]), int(found[2])
    keeper = os.pidfd_open(pid)
    try:
        with Guest.connect(port, lab.image.keys) as guest:
            assert guest.check("cat /tmp/mark") == "kept\n"
        assert done.returncode == 1
    finally:
        signal.pidfd_send_signal(keeper, signal.SIGTERM)
        # It is not this process's child, so its end is seen by its descriptor.
        assert select.select([keeper], [], [], SECONDS)[0]
    with pytest.raises(GuestLost):
        Guest.connect(port, lab.image.keys)


# -- where freezing is not possible ------------------------------------------------


def test_a_machine_that_cannot_be_frozen_is_booted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Every clone boots, is put through the set-up, and somebody is told why."""

    def lacking(self: Snapshot, deadline: Deadline) -> None:
        raise MachineError("this QEMU lacks x-ignore-shared")

    monkeypatch.setattr(Snapshot, "set_capabilities", lacking)
    # An option that no other test has, so that the template is not one that was frozen.
    base = lab.template(append=("eudyptula.unfrozen",))
    assert not base.frozen
    assert "cannot be frozen" in caplog.text
    assert "lacks x-ignore-shared" in caplog.text
    derived = freeze.derive(base, "marked", {"by": "a test"}, _mark, lab.cache)
    clone = pool.open_clone(derived, lab.cache)
    try:
        assert clone.guest.check("cat /tmp/mark") == "set up\n"
    finally:
        clone.close()


def test_a_freeze_that_takes_too_long_is_tried_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy host does not make a machine one that is booted for ever: nothing is cached."""

    def late(machine: Machine, keys: Keys, folder: Path, deadline: Deadline) -> str:
        monkeypatch.setattr(deadline, "_end", 0.0)
        raise MachineError("it took longer than there was")

    monkeypatch.setattr(freeze, "_save", late)
    # One that no earlier run has made, and that none finds later.
    append = (f"eudyptula.late={secrets.token_hex(4)}",)
    with pytest.raises(MachineError, match="longer than there was"):
        lab.template(append=append)
    monkeypatch.undo()
    made = lab.template(append=append)
    assert made.frozen
    lab.cache.release(made.entry)
    assert lab.cache.remove(made.entry)


def _mark(running: Clone) -> dict[str, object]:
    running.guest.check("echo set up >/tmp/mark")
    return {}


# -- one guest for several tests ---------------------------------------------------


def test_shared_guests(lab: Lab, tmp_path: Path) -> None:
    """Tests that share find what the one before has done, until one was red; each has its own
    verdict.
    """
    trial = tmp_path / "test_sharing.py"
    trial.write_text(
        """
CONTROL = "/sys/kernel/debug/planted"

def test_first(shared):
    shared.check("echo 1 >/tmp/mark")

def test_finds_it(shared):
    shared.check("test -e /tmp/mark")

def test_is_red(shared):
    shared.check(f"echo warn >{CONTROL}")

def test_has_another(shared):
    shared.check("test ! -e /tmp/mark")
"""
    )
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--kernel={lab.kernel.name}",
        f"--module={HERE / 'planted'}", "-c", str(config.PROJECT / "pyproject.toml"),
        f"--rootdir={tmp_path}", "-rA", str(trial),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=config.PROJECT, capture_output=True, text=True, check=False, timeout=900
    )
    named = {name: word for word, name in re.findall(r"^(\w+) \S*::(\w+)", done.stdout, re.M)}
    assert named == {
        "test_first": "PASSED",
        "test_finds_it": "PASSED",
        "test_is_red": "FAILED",
        "test_has_another": "PASSED",
    }, done.stdout
