# SPDX-License-Identifier: GPL-2.0-only
"""How long the host kept a machine from running, which no deadline of its guest counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.errors import MachineError, MachineFault
from harness.host.proc import Deadline
from harness.qemu.loop import loop

T = TypeVar("T")


class GuestDeadline(Deadline):
    """A deadline on the time of a guest: what the host kept it waiting for does not count.

    So a busy host makes nobody wait in vain, and a guest that sleeps is given up in time.
    """

    def __init__(self, seconds: float, kept_waiting: Callable[[], float]) -> None:
        super().__init__(seconds)
        self._kept_waiting = kept_waiting
        self._before = kept_waiting()

    @property
    def left(self) -> float:
        put_off = max(0.0, self._kept_waiting() - self._before)
        return max(0.0, self._end + put_off - time.monotonic())


class QuietDeadline(GuestDeadline):
    """The same, which also ends when ``size`` has not changed for ``quiet`` seconds of that time.

    It looks only when it is asked, so up to twice as long may pass.
    """

    def __init__(
        self, seconds: float, quiet: float, size: Callable[[], int],
        kept_waiting: Callable[[], float],
    ) -> None:  # fmt: skip
        super().__init__(seconds, kept_waiting)
        self._quiet = quiet
        self._size = size
        self._seen = size()
        self._since = GuestDeadline(quiet, kept_waiting)

    @property
    def left(self) -> float:
        if (size := self._size()) != self._seen:
            self._seen = size
            self._since = GuestDeadline(self._quiet, self._kept_waiting)
        return min(super().left, self._since.left)


@dataclass(frozen=True)
class Stall:
    """A time in which QEMU stood still because the host did not run it.

    It lasted ``seconds``; the console's file had ``console`` bytes when it began.
    """

    console: int
    seconds: float


class Pulse:
    """Asks QEMU for an answer at intervals, and so knows for how long it stood still.

    QEMU's main loop answers within milliseconds, whatever the guest does. A late answer means
    that nobody ran QEMU (it was stopped, or waits for a disk), or nobody here (the container or
    the whole host was frozen). The guest cannot be blamed for that time. The guest's clock goes
    on meanwhile, so its watchdogs may report it afterwards.

    ``ask`` waits for an answer; ``size`` gives the console's length; ``waited`` gives the seconds
    that virtual CPUs were ready to run and had no processor, which count elsewhere already;
    ``state`` says what the process does while it stands still.
    """

    INTERVAL = 0.5  # seconds
    # A busy host makes an answer late, too. What is below this is not counted.
    TOLERATED = 1.0  # seconds
    # A QEMU that stands still for longer is given up.
    LONGEST = 300.0  # seconds

    def __init__(
        self, ask: Callable[[], Awaitable[object]], size: Callable[[], int],
        waited: Callable[[], float], state: Callable[[], str],
        now: Callable[[int], float] = time.clock_gettime,
    ) -> None:  # fmt: skip
        self._stalls: list[Stall] = []
        self._ask, self._size, self._waited, self._now = ask, size, waited, now
        self._state = state
        self._put_off = 0.0
        # When the next answer is due, and ``waited`` and ``size`` when that was decided.
        self._due: tuple[float, float, int] | None = None

    async def beat(self) -> None:
        """Wait for an interval, then for an answer; note how late that came."""
        size, waited = self._size(), self._waited()
        # The one clock goes on while the host is suspended, and so may a guest's; no deadline's
        # does (clock_gettime(2)).
        suspended = self._suspended()
        self._due = self._now(time.CLOCK_MONOTONIC) + self.INTERVAL, waited, size
        await asyncio.sleep(self.INTERVAL)
        await self._ask()
        late, asleep = self._late(), self._suspended() - suspended
        if late or asleep > self.TOLERATED:
            self._stalls.append(Stall(size, late + asleep))
        self._put_off += late
        self._due = None

    @property
    def stalls(self) -> list[Stall]:
        """All so far. The last may not be over, or its end not have been noticed yet."""
        due, late = self._due, self._late()
        return [*self._stalls, *([Stall(due[2], late)] if due and late else [])]

    @property
    def seconds(self) -> float:
        """For how long QEMU stood still so far, by the clock that deadlines have."""
        return self._put_off + min(self._late(), self.LONGEST)

    def call(self, work: Coroutine[Any, Any, T], deadline: Deadline, what: str) -> T:
        """The result of ``work``; ``MachineError`` when the time is up.

        What QEMU stands still for meanwhile does not count.
        """
        try:
            return loop().call(work, _WithoutStalls(deadline, self), what)
        except MachineError as error:
            if standing := self.standing:
                raise MachineFault(
                    f"QEMU has stood still for {standing:.0f} s ({self._state()})",
                    hint="see what keeps the host from running it; then run this again",
                ) from error
            raise

    @property
    def standing(self) -> float:
        """For how many seconds it has been standing still until now; 0 if it runs."""
        return self._late()

    def _late(self) -> float:
        due = self._due
        if due is None:
            return 0.0
        late = self._now(time.CLOCK_MONOTONIC) - due[0]
        return max(0.0, late - (self._waited() - due[1])) if late > self.TOLERATED else 0.0

    def _suspended(self) -> float:
        return self._now(time.CLOCK_BOOTTIME) - self._now(time.CLOCK_MONOTONIC)


class _WithoutStalls(Deadline):
    """A deadline as another one has it, put off by what a machine stands still from now on."""

    def __init__(self, deadline: Deadline, pulse: Pulse) -> None:
        self.seconds = deadline.seconds
        self._deadline, self._pulse = deadline, pulse
        self._end = time.monotonic() + deadline.left - pulse.seconds

    @property
    def left(self) -> float:
        mine = self._end + self._pulse.seconds - time.monotonic()
        return max(self._deadline.left, mine, 0.0)
