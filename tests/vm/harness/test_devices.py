# SPDX-License-Identifier: GPL-2.0-only
"""A driver in a machine that has its device, and in one that has not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import config
from harness.errors import InputError
from harness.examine import loading
from harness.machines import pool
from harness.testing import Guest, Lab, Module

from .test_runs import SECONDS, run

PLANTED = Path(__file__).parent / "planted_edu"
COMPUTE = "echo 5 >/dev/planted_edu && cat /dev/planted_edu"

# Some start runs of pytest, which take longer than one test may.
pytestmark = pytest.mark.timeout(SECONDS)


@pytest.fixture(scope="module")
def driver(lab: Lab) -> Module:
    """The driver of the device that QEMU has for people who learn to write drivers."""
    return lab.build(PLANTED)


@pytest.mark.machine(devices=["edu"])
def test_a_driver_works_with_its_device(guest: Guest, driver: Module) -> None:
    """What is written to its node is computed by the device; unloaded, it leaves nothing."""
    loading.load(guest, driver)
    assert guest.check(COMPUTE) == "120\n"
    guest.check("rmmod planted_edu")


# Booting with a clock that runs ahead was not seen to end on kernels that check their locks.
@pytest.mark.needs(without="CONFIG_PROVE_LOCKING")
@pytest.mark.machine(devices=["edu"], clock="ahead")
def test_time_passes_with_a_device_that_is_not_frozen(guest: Guest, driver: Module) -> None:
    """The machine has booted with a clock that runs ahead, and is as any other one then."""
    loading.load(guest, driver)
    assert guest.pass_time(600).seconds >= 600
    assert guest.check(COMPUTE) == "120\n"
    guest.check("rmmod planted_edu")


def test_the_suite_for_any_module_is_for_drivers_too(lab: Lab, tmp_path: Path) -> None:
    """Without its device a driver is not red, and is not green either."""
    tests = ["tests/vm/any/test_life.py", "-k", "loads_and_unloads", "-rs"]
    without = run(lab, tmp_path, PLANTED, *tests)
    assert not without.failed, without.output
    assert "planted_edu loads only with its hardware" in without.output
    assert "1 skipped" in without.output
    having = run(lab, tmp_path, PLANTED, "--device=edu", *tests)
    assert "1 passed" in having.output, having.output


def test_a_shell_has_the_device(lab: Lab) -> None:
    """`invoke shell --device`; where such machines have to boot it says why."""
    words = [
        sys.executable, "-m", "invoke", "shell", f"--kernel={lab.kernel.spec.asked}",
        f"--module={PLANTED}", "--device=edu", "--", COMPUTE,
    ]  # fmt: skip
    done = subprocess.run(
        words, cwd=config.PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=SECONDS,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "120\n"), done.stderr
    why = "cannot be frozen, so each test boots it"
    assert lab.template(devices=("edu",)).frozen or why in done.stderr


# What a BAR of a PCI device holds, at 0x10 of its configuration space (PCI Local Bus, 6.2.5).
WATCHDOG = """\
for device in /sys/bus/pci/devices/*; do
    if [ "$(cat $device/vendor $device/device)" = "0x8086
0x25ab" ]; then od -A n -t x4 -j 16 -N 4 $device/config; fi
done
"""


def test_a_device_whose_state_is_saved_is_frozen(lab: Lab) -> None:
    """A clone has it where the template had it; a machine without has none of it."""
    template = lab.template(devices=("i6300esb",))
    assert template.frozen
    assert template.entry.digest != lab.template().entry.digest
    clone = pool.open_clone(template, lab.cache)
    try:
        address = clone.guest.check(WATCHDOG).split()
    finally:
        clone.close()
    assert len(address) == 1
    assert int(address[0], 16) > 0
    clone = pool.open_clone(lab.template(), lab.cache)
    try:
        assert clone.guest.check(WATCHDOG) == ""
    finally:
        clone.close()


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("edux", r"(?s)no device named 'edux'.*did you mean edu\?"),
        ("", "no device named ''"),
        ("edu,colour=red", r"(?s)'edu.colour' not found.*edu,help` lists the options"),
        ("edu,help", "edu,help makes no device"),
        ("nvme", "serial property not set"),
    ],
)
def test_what_qemu_does_not_take_is_a_sentence(lab: Lab, device: str, said: str) -> None:
    """Before any machine is booted, with what would be right."""
    with pytest.raises(InputError, match=said):
        lab.template(devices=(device,))
