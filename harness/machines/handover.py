# SPDX-License-Identifier: GPL-2.0-only
"""Takes what a machine is at the end of its test, to go on with it later and in another QEMU.

The other QEMU counts instructions, so that the guest's clock jumps over what it sleeps
(qemu/clock.py); the machine of an ordinary test does not. A state that was saved in the one fits
the other. What is saved is little: the pages of memory that have changed since the template was
frozen, and the devices. Saving takes a hundredth of a second.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness import qemu
from harness.errors import MachineError
from harness.host.proc import Deadline
from harness.machines.clone import CLONE_SECONDS, Clone
from harness.machines.template import Template
from harness.qemu import Machine
from harness.qemu.memory import RunningMemory, restore_written

_DEVICES = "devices"
_PAGES = "pages"
_NICENESS = 10  # of a machine that goes on beside a test; see nice(2)


@dataclass(frozen=True)
class Handover:
    """A machine that waits in ``folder``, of a clone of ``template``.

    ``taint`` are the kernel's taint flags at its last judgement.
    """

    folder: Path
    template: Template
    taint: int


def can_hand_over(clone: Clone) -> bool:
    """Whether ``hand_over`` can take a clone: an emulated one of a frozen template."""
    template = clone.template
    return template is not None and template.spec.accelerator == "tcg" and clone.machine.running


def hand_over(clone: Clone, folder: Path, deadline: Deadline) -> Handover:
    """Stop a clone and save it in ``folder``; the clone is to be closed afterwards.

    Raises ``MachineError`` where QEMU does not save it.
    """
    template = clone.template
    assert template is not None
    clone.machine.snapshot.save_devices(folder / _DEVICES, template.state, deadline)
    with RunningMemory(clone.machine.pid, template.memory) as memory:
        memory.save_written(folder / _PAGES)
    return Handover(folder, template, clone.baseline.taint)


@contextmanager
def taken_over(handover: Handover) -> Iterator[Machine]:
    """The machine, going on with a clock that runs ahead, beside what is more urgent.

    Its console begins empty. Nobody is at the other end of the guest's SSH connection.
    """
    template = handover.template
    with Machine(template.spec, handover.folder) as machine:
        machine.pace = template.pace
        machine.start(
            Deadline(qemu.START_SECONDS), memory=template.memory, incoming=True, ahead=True
        )
        _yield_to_others(machine.pid)
        restore_written(handover.folder / _PAGES, machine.pid, template.memory)
        deadline = machine.patience(CLONE_SECONDS)
        machine.snapshot.load(handover.folder / _DEVICES, deadline, whole=True, counting=True)
        machine.execute("cont", deadline)
        with suppress(MachineError):  # a guest that cannot answer is judged by whoever asks next
            # A machine that ran ahead during its test was kept awake (qemu/clock.py).
            machine.agent.order("doze", "dozing", deadline)
            machine.agent.use_virtual_clock(deadline)
            machine.agent.report_hung_tasks(deadline)
        yield machine


def _yield_to_others(pid: int) -> None:
    """Have a process, with all its threads, run where there is nobody more urgent."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it may be gone, or be nicer already
            os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICENESS)
