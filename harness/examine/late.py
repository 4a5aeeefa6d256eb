# SPDX-License-Identifier: GPL-2.0-only
"""What a machine's kernel reports when its test is over and time goes by.

A thread may oops seconds after the last command, a timer may warn after a minute, and the kernel
itself says only after two minutes that a task hangs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from harness import klog
from harness.errors import HostError, MachineError
from harness.examine.evidence import patience
from harness.judge.verdict import Evidence
from harness.machines.clone import MARK_SECONDS
from harness.machines.guest import busiest_first
from harness.qemu import Machine

SECONDS = 600.0  # of the guest's time that are waited for
REAL_SECONDS = 20.0  # of this host's, after which nobody waits any more
_FIRST, _MOST = 1.0, 60.0  # seconds of the guest's that are waited for at a time
_NAMED = 3  # tasks that are named where time does not pass
_OFTEN = 8.0  # how often a second a task that is named has woken up


@dataclass(frozen=True)
class Later:
    """What came later: evidence for a verdict, and for how many seconds of the guest's.

    ``busy`` names who woke up often meanwhile, or else kept the guest from sleeping where that was
    less than ``SECONDS``; "" where nobody did.
    """

    evidence: Evidence
    seconds: float
    busy: str = ""


def wait(machine: Machine, taint: int) -> Later:
    """Let time pass in a machine whose clock runs ahead, until its kernel says something.

    ``taint`` are the taint flags from which on it is judged.
    """
    passed, busy, after, fault = 0.0, "", None, ""
    moving: bool | None = None
    limit = machine.patience(REAL_SECONDS)
    step = _FIRST
    try:
        began = machine.agent.sleep(0, patience(machine))
        before = machine.agent.wakeups(patience(machine))
        while passed < SECONDS and not limit.expired:
            step = min(step, SECONDS - passed)
            asked = time.monotonic()
            # Where it is not answered within this, it is no busy guest but one that hangs.
            limited = machine.patience(REAL_SECONDS + MARK_SECONDS)
            passed = machine.agent.sleep(step, limited) - began
            if any(not event.bare for event in klog.events(machine.console_text())):
                break
            # A step of a guest that sleeps takes a moment; one that does not shall not take long.
            step = min(2 * step, _MOST) if time.monotonic() - asked < 1.0 else max(1.0, step / 2)
        busy = busy_tasks(
            before, machine.agent.wakeups(patience(machine)), passed, whole=passed >= SECONDS
        )
        after = machine.agent.mark(patience(machine))
    except MachineError as error:
        if isinstance(error, HostError):
            fault = str(error)
        with suppress(MachineError, OSError):  # QEMU may end meanwhile
            moving = machine.vcpu_is_busy()
    seen = Evidence(
        console=machine.console_text(),
        taint_before=taint,
        taint_after=after,
        panicked=machine.panicked,
        running=machine.running,
        unasked=machine.agent.take_unasked(),
        moving=moving,
        unread=machine.log.unread,
        fault=fault or machine.fault,
        full=machine.log.full,
        stalls=tuple(machine.stalls),
    )
    return Later(seen, passed, busy)


def busy_tasks(
    before: Mapping[str, int], after: Mapping[str, int], seconds: float, *, whole: bool
) -> str:
    """Who has woken up how often a second, by the counts of wake-ups; ``whole``: time has passed.

    "" where nobody did so often, and nothing has kept time from passing.
    """
    rates = {name: (count - before.get(name, 0)) / (seconds or 1) for name, count in after.items()}
    often = busiest_first({name: rate for name, rate in rates.items() if rate >= _OFTEN})
    named = (f"{name} woke up {often[name]:.0f} times a second" for name in list(often)[:_NAMED])
    return ", ".join(named) or ("" if whole else "something in it uses a CPU without a pause")
