# SPDX-License-Identifier: GPL-2.0-only
"""harness/plugin/late.py: no machine that goes on after its test is forgotten."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

# Stands in for the judge of a real machine: of test_judged it has reported when the next begins.
CONFTEST = """
import pytest
from harness.plugin import late

class Judge:
    def __init__(self):
        self.waiting = []
    def goes_on(self):
        return list(self.waiting)
    def report(self, *, wait=False):
        self.waiting = [one for one in self.waiting if "test_judged" not in one and not wait]

@pytest.fixture
def goes_on(request):
    yield
    request.config.stash.setdefault(late._JUDGE, Judge()).waiting.append(request.node.nodeid)
"""
TESTS = """
import os
def test_loads_nothing(): pass
def test_judged(goes_on): pass
def test_waits(goes_on): pass
def test_waits_too(goes_on): pass
def test_last():
    if {dies}:
        os._exit(0)
"""


@pytest.mark.parametrize("dies", [True, False])
def test_what_a_worker_had_still_to_judge_is_not_green(
    pytester: pytest.Pytester, dies: bool
) -> None:
    """It has died in a later test. Where it ends as it should, there is nothing to say."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS.format(dies=dies))
    done = pytester.runpytest("-p", "no:cacheprovider", "-n1", "-rEf")
    if not dies:
        done.assert_outcomes(passed=5)
        return
    done.assert_outcomes(passed=4, failed=1, errors=2)
    for name in ("test_waits", "test_waits_too"):
        done.stdout.fnmatch_lines([f"*_ ERROR at teardown of {name} _*"])
    done.stdout.fnmatch_lines(["The process that ran this test has died in a later one. *"])
