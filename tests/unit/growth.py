# SPDX-License-Identifier: GPL-2.0-only
"""How the work of a function grows with the length of its text.

A pattern that backtracks is not slow on short texts: it is slow in a way that grows. So the
tests compare the work for a text with that for one four times as long, never seconds with a
number of ours: four times the work is what there is to read, sixteen times is the square.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_LEAST = 0.005  # seconds; below that a clock's own steps are what is measured


def _work(task: Callable[[], object]) -> float:
    before = time.process_time()
    task()
    return time.process_time() - before


def grows_with_length(task: Callable[[str], object], make: Callable[[int], str], n: int) -> bool:
    """Whether ``task`` needs for ``make(4 * n)`` about four times of what ``make(n)`` takes.

    CPU time of this process, the least of three: what others do on the machine does not count.
    """
    short, long = make(n), make(4 * n)
    once = min(_work(lambda: task(short)) for _ in range(3))
    limit = 10 * max(once, _LEAST)
    return any(_work(lambda: task(long)) < limit for _ in range(3))
