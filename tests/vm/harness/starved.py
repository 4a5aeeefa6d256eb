# SPDX-License-Identifier: GPL-2.0-only
"""Tests that run while the disk fills up; test_processes.py runs them and looks.

(Not named test_*.py, so that no other run collects them.)
"""

from __future__ import annotations

from harness.testing import Guest

# A write to /dev/kmsg is one message, of less than 1 KiB.
TALK = "line=$(printf %0900d 0); exec 3>/dev/kmsg; while {}; do echo $line >&3; done"


def test_talks(guest: Guest) -> None:
    """A guest that goes on printing until somebody ends it."""
    guest.check(TALK.format("true"), timeout=600)


def test_is_heard(guest: Guest) -> None:
    """One whose last words do not fit any more."""
    guest.check(f"n=0; {TALK.format('test $((n += 1)) -le 4000')}", timeout=600)
