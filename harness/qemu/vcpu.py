# SPDX-License-Identifier: GPL-2.0-only
"""A machine's virtual CPUs, as the host's scheduler sees their threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path


class VirtualCpus:
    """The threads of QEMU that run the guest's code; ``pid`` gives the process that has them."""

    def __init__(self, pid: Callable[[], int]) -> None:
        self.threads: list[int] = []
        self._pid = pid

    def busy(self, seconds: float = 0.5) -> bool:
        """Whether a virtual CPU runs code all the time, rather than sleep now and then.

        A CPU that waits for an interrupt costs its thread nothing on the host. One that runs
        code counts even while it waits for a busy host's processor.
        """

        def wanted() -> list[float]:
            return [sum(self._schedstat(thread)) / 1e9 for thread in self.threads]

        before = wanted()
        threading.Event().wait(seconds)  # what passes in this time is what is measured
        return any(now - then > seconds / 2 for now, then in zip(wanted(), before, strict=True))

    def kept_waiting(self) -> float:
        """Seconds for which a virtual CPU was ready to run and had no processor of the host."""
        with contextlib.suppress(OSError):  # QEMU is gone, which whoever waits will notice
            return max((self._schedstat(cpu)[1] for cpu in self.threads), default=0) / 1e9
        return 0.0

    def seconds(self) -> float:
        """How much of the host's processors the virtual CPUs have used."""
        # One thread may run them all (argv.py).
        return sum(self._schedstat(cpu)[0] for cpu in set(self.threads)) / 1e9

    def _schedstat(self, thread: int) -> tuple[int, int]:
        """Nanoseconds on a processor and ready for one (scheduler/sched-stats.rst)."""
        stat = Path(f"/proc/{self._pid()}/task/{thread}/schedstat").read_text().split()
        return int(stat[0]), int(stat[1])
