# SPDX-License-Identifier: GPL-2.0-only
"""harness/plugin/hangs.py: tests that would all wait for the same are not all run."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

HANGS = "assert False, 'unloading: does not come back from `rmmod wee`'"
TESTS = """
def test_fine(): pass
def test_red(): assert False, "its mode is 0666"
def test_hangs(): {hangs}
def test_after(): pass
def test_more(): pass
"""


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    pytester.makepyfile(TESTS.format(hangs=HANGS))
    return pytester.runpytest("-p", "no:cacheprovider", "-rs", *options)


def test_the_rest_is_skipped_once_so_long_was_waited(pytester: pytest.Pytester) -> None:
    """What is red for another reason does not count. The reason names the test that hung."""
    done = run(pytester, "--kernel-hangs=0")
    done.assert_outcomes(passed=1, failed=2, skipped=2)
    done.stdout.fnmatch_lines(["SKIPPED*something hangs, as *::test_hangs has shown"])


def test_all_are_run_until_then(pytester: pytest.Pytester) -> None:
    """The tests that hang have not taken an hour."""
    run(pytester, "--kernel-hangs=3600").assert_outcomes(passed=3, failed=2)


def test_all_are_run_without_the_option(pytester: pytest.Pytester) -> None:
    """Whoever runs tests of their own wants to see each."""
    run(pytester).assert_outcomes(passed=3, failed=2)


def test_workers_of_xdist_do_the_same(pytester: pytest.Pytester) -> None:
    """Each counts for itself; here there is one."""
    done = run(pytester, "--kernel-hangs=0", "-n1")
    done.assert_outcomes(passed=1, failed=2, skipped=2)


def test_the_seconds_are_those_that_hanging_took(pytester: pytest.Pytester) -> None:
    """Of the tests that hang, added up: the second one has had enough."""
    pytester.makepyfile(f"def test_a(): {HANGS}\ndef test_b(): {HANGS}\ndef test_c(): {HANGS}\n")
    pytester.makeconftest(
        "import pytest\n"
        "@pytest.hookimpl(wrapper=True, tryfirst=True)\n"
        "def pytest_runtest_makereport(item, call):\n"
        "    report = yield\n"
        "    report.duration = 30.0 if call.when == 'call' else 0.0\n"
        "    return report\n"
    )
    run_again = pytester.runpytest("-p", "no:cacheprovider", "--kernel-hangs=60")
    run_again.assert_outcomes(failed=2, skipped=1)
