# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/loop.py: one event loop for all threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.qemu import loop as loops


def test_threads_that_come_first_at_once_get_the_same_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one of them has opened in a second loop, nobody could use in the first."""
    made: list[object] = []
    another = threading.Event()

    class Loop:
        def __init__(self) -> None:
            made.append(self)
            if len(made) > 1:
                another.set()
            another.wait(0.2)  # there is time for one more to be made, where that can be

    monkeypatch.setattr(loops, "_Loop", Loop)
    loops._made.cache_clear()
    try:
        with ThreadPoolExecutor(max_workers=2) as threads:
            got = list(threads.map(lambda _: loops.loop(), range(2)))
    finally:
        loops._made.cache_clear()
    assert got == [made[0]] * 2
