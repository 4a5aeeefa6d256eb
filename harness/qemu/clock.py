# SPDX-License-Identifier: GPL-2.0-only
"""When the time of a guest passes.

The clock of a machine that runs ahead (``Wiring.ahead``) jumps to the guest's next timer whenever
the guest is idle. Ten minutes take seconds then. But the moment in which a test on the host thinks
may take minutes in the guest, and a timeout there would run out by itself. So such a machine is
stopped but for when somebody wants something of its guest, and its guest is not idle then unless
time is to pass (vm/agent, stay-awake).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from harness.errors import MachineError
from harness.host.proc import Deadline

_SECONDS = 30.0  # to stop or continue a machine, which takes a millisecond


class Clock:
    """Stops and continues one machine, by ``let_run`` (True: let it run, False: stop it)."""

    def __init__(self, let_run: Callable[[bool, Deadline], None]) -> None:
        self._let_run = let_run
        self._lock = threading.Lock()
        self._users = 0  # how many want the guest to run now
        self._held = False
        self._stood = 0.0
        self._since: float | None = None  # when it was stopped, if it stands

    def hold(self) -> None:
        """From now on the guest's time passes within ``running`` only."""
        with self._lock:
            self._held = True
            self._set(self._users > 0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The guest runs within, whoever else wants that too."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    @contextmanager
    def stopped(self, deadline: Deadline) -> Iterator[None]:
        """The machine stands still within, and is afterwards as it was before.

        Raises ``MachineError`` if it cannot be stopped.
        """
        with self._lock:
            self._let_run(False, deadline)
            self._since = time.monotonic()
            try:
                yield
            finally:
                self._stood, self._since = self.stood, None
                if self._users or not self._held:
                    self._let_run(True, deadline)

    @property
    def stood(self) -> float:
        """For how many seconds of the host's the machine has stood still within ``stopped``."""
        since = self._since
        return self._stood + (time.monotonic() - since if since is not None else 0.0)

    def _count(self, change: int) -> None:
        with self._lock:
            before, self._users = self._users, self._users + change
            if self._held and (before == 0 or self._users == 0):
                self._set(self._users > 0)

    def _set(self, run: bool) -> None:
        with suppress(MachineError):  # it is gone: whoever wanted something of it will say so
            self._let_run(run, Deadline(_SECONDS))
