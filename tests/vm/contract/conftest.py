# SPDX-License-Identifier: GPL-2.0-only
"""What the contract tests look at: the one kernel thread, as ps and /proc show it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.testing import Guest

NAME = "eudyptula"  # of the device and of the thread
NODE = f"/dev/{NAME}"


@dataclass(frozen=True)
class Task:
    """A task as /proc/PID/stat and /proc/PID/status show it (proc_pid_stat(5)).

    ``ticks`` is the CPU time used, in clock ticks; ``voluntary`` and ``forced`` count
    context switches.
    """

    pid: int
    parent: int
    state: str
    ticks: int
    voluntary: int
    forced: int


class Threads:
    """The kernel threads of one name in a guest."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def pids(self) -> list[int]:
        """Tasks whose name is exactly the module's and which have no address space."""
        # pgrep -x matches the name, and only a kernel thread has an empty command line.
        found = self._guest.run(f"pgrep -x {NAME}").stdout.split()
        return [int(pid) for pid in found if not self._guest.check(f"cat /proc/{pid}/cmdline")]

    def only(self) -> Task:
        """The one thread there is; fails the test if there is none or more than one."""
        pids = self.pids()
        assert len(pids) == 1, f"expected one kernel thread named {NAME}, found {pids}"
        return self.task(pids[0])

    def task(self, pid: int) -> Task:
        """What a task is doing at this moment."""
        text = self._guest.check(f"cat /proc/{pid}/stat; cat /proc/{pid}/status")
        stat, _, status = text.partition("\n")
        # The name is in parentheses and may hold anything; what follows is fields 3 on.
        fields = stat.rpartition(")")[2].split()
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        return Task(
            pid=pid,
            parent=int(fields[1]),
            state=fields[0],
            ticks=int(fields[11]) + int(fields[12]),
            voluntary=int(facts["voluntary_ctxt_switches"]),
            forced=int(facts["nonvoluntary_ctxt_switches"]),
        )


@pytest.fixture
def threads(loaded: Guest) -> Threads:
    """The module's threads in the test's guest, which has the module loaded."""
    return Threads(loaded)
