# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/junit.py: the tests that pytest says it has run, and why they are red."""

from __future__ import annotations

import json
from xml.sax.saxutils import quoteattr

import pytest

from harness.report.junit import (
    EXCERPTS,
    LEFT,
    RUN,
    cases_in,
    expanded,
    failures,
    failures_of_suites,
    run_value,
)
from harness.report.result import Case, Excerpt

# As pytest 9 writes it with --junitxml: passed, failed, failed by the kernel, an error in a
# fixture, skipped, and one that failed and whose teardown failed too.
JUNIT = """\
<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest"
errors="1" failures="2" skipped="1" tests="6" time="18.4" hostname="here">
<testcase classname="tests.vm.contract.test_contract" name="test_node" time="1.25" />
<testcase classname="tests.vm.contract.test_contract" name="test_ps" time="0.5"><failure
message="AssertionError: assert 0 == 1&#10;  +  where">guest = &lt;Guest&gt;

    def test_ps(guest):
&gt;       assert ps() == 1
E       AssertionError: assert 0 == 1
E         +  where 0 = ps()

tests/vm/contract/test_contract.py:12: AssertionError</failure></testcase>
<testcase classname="tests.vm.module.test_write" name="test_a[1-2]" time="0.5"><failure
message="x">splat: WARNING in driver_write (5 times)
    [   11.29] ------------[ cut here ]------------</failure></testcase>
<testcase classname="tests.vm.module.test_trace" name="test_b" time="30"><error
message="failed on setup">in the guest, `exec perl -` did not end within 30 s</error></testcase>
<testcase classname="tests.vm.module.test_trace" name="test_c" time="0"><skipped
type="pytest.skip" message="no kmemleak">where</skipped></testcase>
<testcase classname="tests.vm.module.test_log" name="test_d" time="1"><failure
message="y">E   first</failure></testcase>
<testcase classname="tests.vm.module.test_log" name="test_d" time="1"><error
message="z">E   second</error></testcase>
</testsuite></testsuites>
"""


def test_each_test_has_its_suite_its_outcome_and_a_line() -> None:
    """The line is the one that a person would look for."""
    assert cases_in(JUNIT) == [
        Case("test_contract::test_node", "contract", "passed", 1.25),
        Case("test_contract::test_ps", "contract", "failed", 0.5, "AssertionError: assert 0 == 1"),
        Case(
            "test_write::test_a[1-2]", "module", "failed", 0.5,
            "splat: WARNING in driver_write (5 times)",
        ),
        Case(
            "test_trace::test_b", "module", "error", 30.0,
            "in the guest, `exec perl -` did not end within 30 s",
        ),
        Case("test_trace::test_c", "module", "skipped", 0.0, "no kmemleak"),
        Case("test_log::test_d", "module", "failed", 1.0, "first"),
    ]  # fmt: skip


@pytest.mark.parametrize("between", ["", '</testcase><testcase classname="a.b" name="c">'])
@pytest.mark.parametrize("red", ["failure", "error"])
def test_what_is_red_counts_more_than_a_skip(red: str, between: str) -> None:
    """A test that skips, and the kernel's report while its fixtures end."""
    junit = f"""<testsuites><testsuite><testcase classname="a.b" name="c">
<skipped message="no kmemleak">where</skipped>{between}
<{red} message="x">splat: WARNING in driver_write</{red}></testcase></testsuite></testsuites>"""
    (case,) = cases_in(junit)
    assert case.outcome == {"failure": "failed"}.get(red, red)
    assert case.why == "splat: WARNING in driver_write"


@pytest.mark.parametrize("text", ["", "<testsuites>", "no XML"])
def test_what_is_no_junit_file_is_refused(text: str) -> None:
    """A pytest that was killed while it wrote leaves half a file."""
    with pytest.raises(ValueError, match="not a JUnit file"):
        cases_in(text)


def test_what_a_red_test_said_is_there_in_full() -> None:
    """By the names of ``cases_in``; what its teardown says comes after what a test says."""
    said = failures(JUNIT)
    red = [test for test in cases_in(JUNIT) if test.outcome in ("failed", "error")]
    assert list(said) == [test.name for test in red]
    assert said["test_contract::test_ps"].startswith("guest = <Guest>")
    assert said["test_log::test_d"] == "E   first"
    by_suite = failures_of_suites(JUNIT)
    assert list(by_suite) == [(test.suite, test.name) for test in red]
    assert [texts[0] for texts in by_suite.values()] == list(said.values())
    assert by_suite["module", "test_log::test_d"] == ("E   first", "E   second")
    with pytest.raises(ValueError, match="not a JUnit file"):
        failures("<testsuites>")


ONE = {"file": "a.c", "line": 2, "first": 1, "lines": ["if (a < b)", '\tc = "d";']}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (json.dumps([ONE]), (Excerpt("a.c", 2, 1, ("if (a < b)", '\tc = "d";')),)),
        ("[1]", ()),
        ("no JSON", ()),
        ("[" * 100_000, ()),
    ],
    ids=["ours", "other", "text", "deep"],
)
def test_a_red_test_has_the_source_that_is_to_blame(said: str, found: tuple[Excerpt, ...]) -> None:
    """As the plugin has left it; what a test has written down under that name does no harm."""
    (case,) = cases_in(
        '<testsuites><testsuite><testcase classname="a" name="b"><properties>'
        f'<property name="x" value="1"/><property name="{EXCERPTS}" value={quoteattr(said)}/>'
        "</properties><failure>why</failure></testcase></testsuite></testsuites>"
    )
    assert (case.why, case.excerpts) == ("why", found)


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (run_value(1e9, 0.25, "gw1", "tests/test_a.py"), (1e9, 0.25, "gw1", "tests/test_a.py")),
        ('{"began": "now", "setup_s": 0, "job": "", "file": ""}', (0.0, 0.0, "", "")),
        ("no JSON", (0.0, 0.0, "", "")),
        ("[" * 100_000, (0.0, 0.0, "", "")),
    ],
    ids=["ours", "other", "text", "deep"],
)
def test_when_and_where_a_test_has_run(said: str, known: tuple[float, float, str, str]) -> None:
    """As the plugin has noted it; where it has not, the test counts all the same."""
    (case,) = cases_in(
        '<testsuite><testcase classname="t" name="n"><properties>'
        f"<property name={quoteattr(RUN)} value={quoteattr(said)}/></properties>"
        "</testcase></testsuite>"
    )
    assert (case.began, case.setup_s, case.job, case.file) == known


def test_what_a_test_has_left_is_in_lines() -> None:
    """Of each of its judgements, as they came."""
    said = "".join(
        f"<property name={quoteattr(LEFT)} value={quoteattr(each)}/>" for each in ("a\nb", "c")
    )
    (case,) = cases_in(
        f'<testsuite><testcase classname="t" name="n"><properties>{said}</properties>'
        "<failure>why</failure></testcase></testsuite>"
    )
    assert case.left == ("a", "b", "c")


def test_what_a_test_writes_down_is_no_program() -> None:
    """Such as a property of that name with anything in it."""
    for said in ("", "[", "{}", "[1]", "[[1]]", "[[1, 2, 3, 4, 5]]", "null", "[" * 100_000):
        properties = f'<properties><property name="eudyptula.ktap" value="{said}"/></properties>'
        text = JUNIT.replace("</testcase>", f"{properties}</testcase>")
        assert [case.name for case in cases_in(expanded(text))] == [
            case.name for case in cases_in(JUNIT)
        ]
        assert expanded(text).count("<testcase") == JUNIT.count("<testcase")
