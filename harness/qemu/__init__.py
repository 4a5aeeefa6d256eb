# SPDX-License-Identifier: GPL-2.0-only
"""QEMU: its command line, its process, its monitor, the guest's serial ports.

``argv`` is a pure function of a ``MachineSpec``. A ``Machine`` is one QEMU process with
everything that leads to it. Nothing here knows SSH or tests.
"""

from harness.qemu.accelerator import choose_accelerator, kvm_answer
from harness.qemu.agent import Leftovers
from harness.qemu.argv import QEMU, MachineSpec, RecordReplay, check_version, shape, version_text
from harness.qemu.machine import START_SECONDS, Machine, booted

__all__ = [
    "QEMU",
    "START_SECONDS",
    "Leftovers",
    "Machine",
    "MachineSpec",
    "RecordReplay",
    "booted",
    "check_version",
    "choose_accelerator",
    "kvm_answer",
    "shape",
    "version_text",
]
