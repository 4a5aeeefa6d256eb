# SPDX-License-Identifier: GPL-2.0-only
"""Tests whose module goes on when they are over; test_late.py runs them and looks.

(Not named test_*.py, so that no other run collects them.)
"""

from __future__ import annotations

import pytest

from harness.testing import Guest

CONTROL = "/sys/kernel/debug/planted_late"


def test_oops_2s(loaded: Guest) -> None:
    loaded.check(f"echo oops >{CONTROL}")


def test_warn_90s(loaded: Guest) -> None:
    loaded.check(f"echo warn >{CONTROL}")


def test_hang_120s(loaded: Guest) -> None:
    loaded.check(f"echo hang >{CONTROL}")


@pytest.mark.machine(cpus=2)
def test_warn_90s_on_two_cpus(loaded: Guest) -> None:
    loaded.check(f"echo warn >{CONTROL}")


def test_fine(loaded: Guest) -> None:
    loaded.check(f"echo work >{CONTROL}")


def test_taken_away_in_time(loaded: Guest) -> None:
    loaded.check(f"echo work >{CONTROL}; rmmod planted_late")


def test_waits(loaded: Guest) -> None:
    loaded.check(f"echo wait >{CONTROL}")


def test_polls(loaded: Guest) -> None:
    loaded.check(f"echo poll >{CONTROL}")


def test_loads_nothing(guest: Guest) -> None:
    guest.check("true")
