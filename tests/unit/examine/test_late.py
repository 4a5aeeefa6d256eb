# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/late.py: what is said of a guest that does not sleep."""

from __future__ import annotations

from harness.examine.late import busy_tasks


def test_who_wakes_up_often_is_named() -> None:
    """The most often first, and not who does so now and then."""
    before = {"init(1)": 10, "poll(7)": 100}
    after = {"init(1)": 20, "poll(7)": 1100, "tick(8)": 2000, "now(9)": 10}
    said = "tick(8) woke up 200 times a second, poll(7) woke up 100 times a second"
    assert busy_tasks(before, after, 10.0, whole=True) == said


def test_who_runs_the_timers_of_others_is_named_last() -> None:
    """Or first where nobody else was woken by them."""
    counts = {"ktimers/0(18)": 1000, "poll(7)": 900}
    said = "poll(7) woke up 90 times a second, ktimers/0(18) woke up 100 times a second"
    assert busy_tasks({}, counts, 10.0, whole=True) == said
    del counts["poll(7)"]
    assert busy_tasks({}, counts, 10.0, whole=True) == "ktimers/0(18) woke up 100 times a second"


def test_where_nobody_is_named_it_is_said_why_time_has_not_passed() -> None:
    """Only if it has not."""
    assert busy_tasks({}, {}, 600.0, whole=True) == ""
    assert "uses a CPU" in busy_tasks({}, {}, 600.0, whole=False)
    assert "uses a CPU" in busy_tasks({}, {"soon(1)": 1}, 0.0, whole=False)
