# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/ktap.py: every test of an output is told, and an output that is not whole."""

from __future__ import annotations

import pytest

from harness.report.ktap import KtapTest, read

# In the form of a file in debugfs of KUnit, of two suites.
KUNIT = """\
    KTAP version 1
    # Subtest: numbers
    1..3
    ok 1 addition
    # division: EXPECTATION FAILED at numbers.c:12
    # 1 is not 2
    not ok 2 division
        KTAP version 1
        # Subtest: roots
        ok 1 of 4
        ok 2 of 9 # SKIP too large
    # roots: pass:1 fail:0 skip:1 total:2
    ok 3 roots
# numbers: pass:2 fail:1 skip:0 total:3
not ok 1 numbers
"""


def outcomes(output: str) -> dict[str, str]:
    return {test.name: test.outcome for test in read(output).tests}


def test_tests_within_tests_have_both_names() -> None:
    """Those that have others in them are told by these."""
    found = read(KUNIT)
    assert outcomes(KUNIT) == {
        "numbers.addition": "passed", "numbers.division": "failed",
        "numbers.roots.of 4": "passed", "numbers.roots.of 9": "skipped",
    }  # fmt: skip
    assert found.problems == ()
    division = found.tests[1]
    assert division.said == "division: EXPECTATION FAILED at numbers.c:12\n1 is not 2"
    assert found.tests[3].why == "too large"


def test_the_kernels_log_is_read_too() -> None:
    """With the stamps that it has."""
    stamped = "".join(f"[   12.345678] {line}\n" for line in KUNIT.splitlines())
    assert read(stamped) == read(KUNIT)


@pytest.mark.parametrize(
    ("line", "outcome", "name", "why"),
    [
        ("ok 1 - name of a test", "passed", "name of a test", ""),
        ("ok 1 selftests: net: a.sh # SKIP", "skipped", "selftests: net: a.sh", ""),
        ("not ok 1 a # TODO later", "xfailed", "a", "later"),
        ("ok 1 a # TODO later", "passed", "a", "later"),
        ("not ok 1 a # XFAIL", "xfailed", "a", ""),
        ("not ok 1 a # TIMEOUT 45 seconds", "failed", "a", "timeout 45 seconds"),
        ("not ok 1 a # exit=1", "failed", "a # exit=1", ""),
        ("ok 1 number \\# SKIP 5", "passed", "number # SKIP 5", ""),
        ("ok", "passed", "test", ""),
        ("not ok 3", "failed", "test 3", ""),
        ("ok 1 # skip it", "skipped", "test 1", "it"),
    ],
)
def test_a_line_says_how_a_test_ended(line: str, outcome: str, name: str, why: str) -> None:
    """With a directive of KTAP or TAP, or without."""
    (test,) = read(f"TAP version 13\n1..1\n{line}\n").tests
    assert test == KtapTest(name, outcome, why)


@pytest.mark.parametrize("line", ["okay", "not okay 1", "1 ok", "oks", "# ok 1 a", "nok 1"])
def test_what_only_looks_like_a_result_is_none(line: str) -> None:
    """Programs print other lines as well."""
    assert read(f"1..1\n{line}\n").tests == ()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", "no test has a result"),
        ("KTAP version 1\n1..2\nok 1 a\n", "2 tests were planned, and 1 have a result"),
        ("KTAP version 1\n1..1\n  1..2\n  ok 1 b\nok 1 a\n",
         "2 tests were planned in a, and 1 have a result"),
        ("1..2\nok 1 a\nBail out! no memory\n", "it gave up: no memory"),
        ("1..0\n", "no test has a result"),
    ],
)  # fmt: skip
def test_an_output_that_is_not_whole_is_told(output: str, said: str) -> None:
    """What was not run has not passed."""
    assert said in read(output).problems


def test_a_suite_that_fails_by_itself_is_a_failure() -> None:
    """As where its own set-up or exit fails, and each test in it has passed."""
    assert outcomes("  ok 1 a\nnot ok 1 suite\n") == {"suite": "failed", "suite.a": "passed"}


def test_a_plan_can_come_last_or_skip_all() -> None:
    """Both are TAP."""
    assert read("ok 1 a\nok 2 b\n1..2\n").problems == ()
    found = read("1..0 # SKIP no such device\n")
    assert (found.tests, found.problems) == ((KtapTest("all", "skipped", "no such device"),), ())


def test_several_outputs_one_after_the_other_are_one() -> None:
    """As where a shell prints the results of several suites."""
    found = read("TAP version 13\n1..1\nok 1 a\nTAP version 13\n1..2\nok 1 b\nnot ok 2 c\n")
    assert [test.outcome for test in found.tests] == ["passed", "passed", "failed"]
    assert found.problems == ()


def test_an_endless_line_takes_no_time() -> None:
    """What a guest prints may be anything."""
    assert read(f"ok 1 {'# ' * 1_000_000}\n").tests[0].outcome == "passed"
