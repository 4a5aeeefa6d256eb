# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/replay.py: whether a replay went the way of its recording."""

from __future__ import annotations

import pytest

from harness.commands import replay
from harness.commands.replay import Comparison

BEFORE = b"one\ntwo\nthree\n"


@pytest.mark.parametrize("after", [BEFORE, BEFORE[:8]])
def test_the_same_is_the_same(after: bytes) -> None:
    """What was printed after the end need not be there."""
    found = replay.compare(BEFORE, after, len(b"one\ntwo\n"))
    assert (found.line, found.lines) == (0, after.count(b"\n"))


@pytest.mark.parametrize(
    ("after", "line", "was", "now"),
    [
        (b"one\n2\nthree\n", 2, "two", "2"),
        (b"one\ntwo\n", 3, "three", "(nothing)"),
        (BEFORE + b"four\n", 4, "(nothing)", "four"),
        (b"one\ntw\x1b[31mo\nthree\n", 2, "two", "tw\\x1b[31mo"),
    ],
)
def test_the_first_line_that_differs_is_shown(after: bytes, line: int, was: str, now: str) -> None:
    """As it was and as it is, harmless on a terminal."""
    found = replay.compare(BEFORE, after, len(BEFORE))
    assert found == Comparison(found.lines, line, was, now)
