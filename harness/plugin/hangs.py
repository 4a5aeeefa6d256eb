# SPDX-License-Identifier: GPL-2.0-only
"""Gives a run up whose tests hang: the rest of them is skipped, and says why.

A module that does not come back from its init makes every test wait for as long as a test can
wait, and each of them finds the same. With ``--kernel-hangs SECONDS`` the seconds are added up that
were taken by tests which ended red because something hung. Once there are that many, each test that
is left is skipped. What passes, or is red for another reason, takes nothing of it, however slow the
host is.

With pytest-xdist each worker counts for itself.
"""

from __future__ import annotations

import pytest

from harness.report import card


class _Hung:
    """The tests that have hung: the first of them, and the seconds that they took together."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._first = ""
        self._seconds = 0.0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and card.kind_of(report.nodeid, report.longreprtext) == "hang":
            self._first = self._first or report.nodeid.rpartition("/")[2]
            self._seconds += report.duration

    @pytest.hookimpl(tryfirst=True)  # before a machine is made for the test
    def pytest_runtest_setup(self) -> None:
        if self._first and self._seconds >= self._limit:
            # No number is in it: all tests that are left have the same reason.
            pytest.skip(f"something hangs, as {self._first} has shown")


def pytest_configure(config: pytest.Config) -> None:
    limit = config.getoption("kernel_hangs")
    if limit is not None:
        config.pluginmanager.register(_Hung(limit))
