# SPDX-License-Identifier: GPL-2.0-only
"""Tests whose module goes on when they are over; test_late.py runs them and looks.

(Not named test_*.py, so that no other run collects them.)
"""

from __future__ import annotations

import pytest

from harness.testing import Guest

CONTROL = "/sys/kernel/debug/planted_late"


def in_background(guest: Guest, word: str) -> None:
    """A process that writes a word, then begins another one, and waits in the kernel (D)."""
    ask = f"echo {word} >{CONTROL}; (:)"
    waiting = "until grep -q '^State:.D' /proc/$!/status; do sleep 0.1; done"
    guest.check(f"sh -c '{ask}' </dev/null >/dev/null 2>&1 & {waiting}")


def test_oops_2s(loaded: Guest) -> None:
    loaded.check(f"echo oops >{CONTROL}")


def test_warn_90s(loaded: Guest) -> None:
    loaded.check(f"echo warn >{CONTROL}")


def test_hang_120s(loaded: Guest) -> None:
    loaded.check(f"echo hang >{CONTROL}")


def test_hang_that_nobody_reports(loaded: Guest) -> None:
    off = "echo 0 >hung_task_timeout_secs; echo 0 >hung_task_warnings"
    loaded.check(f"cd /proc/sys/kernel; {off}; echo hang >{CONTROL}")


def test_cannot_be_killed(loaded: Guest) -> None:
    in_background(loaded, "lock")


@pytest.mark.machine(cpus=2)
def test_warn_90s_on_two_cpus(loaded: Guest) -> None:
    loaded.check(f"echo warn >{CONTROL}")


def test_fine(loaded: Guest) -> None:
    loaded.check(f"echo work >{CONTROL}")


def test_taken_away_in_time(loaded: Guest) -> None:
    loaded.check(f"echo work >{CONTROL}; rmmod planted_late")


def test_waits(loaded: Guest) -> None:
    loaded.check(f"echo wait >{CONTROL}")


def test_waits_to_be_killed(loaded: Guest) -> None:
    in_background(loaded, "killable")


def test_polls(loaded: Guest) -> None:
    loaded.check(f"echo poll >{CONTROL}")


def test_loads_nothing(guest: Guest) -> None:
    guest.check("true")
