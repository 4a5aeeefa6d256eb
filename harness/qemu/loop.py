# SPDX-License-Identifier: GPL-2.0-only
"""The event loop of all machines of this process.

qemu.qmp is asynchronous and everything else in harness/ is not. One thread runs one event loop,
and whoever wants a result from it waits with a deadline.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

from harness.errors import MachineError
from harness.host.proc import Deadline

T = TypeVar("T")


class _Loop:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="harness-qmp", daemon=True)
        thread.start()

    def call(self, work: Coroutine[Any, Any, T], deadline: Deadline, what: str) -> T:
        """The result of ``work``; raises ``MachineError`` when the time is up."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                try:
                    return future.result(deadline.left)
                except TimeoutError:
                    if deadline.expired:  # it may have been put off meanwhile: GuestDeadline
                        break
            raise MachineError(f"{what} took longer than {deadline.seconds:.1f} s")
        finally:
            future.cancel()


# Without it, two threads that come at once would each make a loop, in spite of functools.cache.
_making = threading.Lock()


def loop() -> _Loop:
    """The one loop, made at its first use."""
    with _making:
        return _made()


@cache
def _made() -> _Loop:
    return _Loop()
