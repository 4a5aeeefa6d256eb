# SPDX-License-Identifier: GPL-2.0-only
"""The fixture run_ktap: each test of a program in the guest has a name and an outcome."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from harness.report.junit import cases_in, failures

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest
from harness.machines.guest import CommandResult

class Guest:
    def __init__(self, stdout, status, cut):
        self.result = CommandResult("prog", status, stdout, "", 1.0, cut)
    def run(self, command, **_):
        return self.result

@pytest.fixture
def said():
    return lambda stdout, status=0, cut=False: Guest(stdout, status, cut)
"""


@pytest.fixture(autouse=True)
def conftest(pytester: pytest.Pytester) -> None:
    """A guest that prints what a test wants it to."""
    pytester.makeconftest(CONFTEST)


def run(pytester: pytest.Pytester, arguments: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(f"def test_it(run_ktap, said):\n    run_ktap(said({arguments}), 'prog')\n")
    return pytester.runpytest("-p", "no:cacheprovider", "-rA", *options)


@pytest.mark.parametrize("options", [[], ["-n1"]])
def test_each_has_its_name(pytester: pytest.Pytester, options: list[str]) -> None:
    """The one that failed is red, by what was printed before it."""
    output = "1..3\nok 1 fine\n# 3 is not 4\nnot ok 2 sums\nok 3 x # SKIP no x"
    done = run(pytester, repr(output), "-v", *options)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    text = done.stdout.str()
    assert "sums failed\n3 is not 4" in text
    assert "SUBFAILED[sums]" in text
    assert "SUBSKIPPED[x]" in text
    assert "fine failed" not in text


def test_a_program_whose_tests_pass_is_green(pytester: pytest.Pytester) -> None:
    """With what was expected to fail, too."""
    done = run(pytester, repr("ok 1 fine\nnot ok 2 known # TODO later"))
    assert done.ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("''", "no test has a result"),
        ("'1..2\\nok 1 fine'", "2 tests were planned, and 1 have a result"),
        ("'ok 1 fine', 1", "it ended with status 1, and no test has failed"),
        ("'ok 1 fine', 0, True", "tests may be missing"),
    ],
)
def test_an_output_that_is_not_whole_is_red(
    pytester: pytest.Pytester, arguments: str, said: str
) -> None:
    """A program that ends in the midst of its tests has not passed them."""
    done = run(pytester, arguments)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines([f"*`prog`: *{said}*"])


@pytest.mark.parametrize("options", [[], ["-n1"]], ids=["one process", "xdist"])
def test_each_is_a_test_case_in_the_junit_file(
    pytester: pytest.Pytester, options: list[str]
) -> None:
    """For a CI; the harness itself goes on counting the tests that have run the programs."""
    output = "ok 1 fine\n# 3 is not 4\nnot ok 2 su<m>s \x1b \ufffe\nok 3 x # SKIP no x"
    run(pytester, repr(output), "--junitxml=junit.xml", *options)
    text = (pytester.path / "junit.xml").read_text("utf-8")
    root = ElementTree.fromstring(text)  # noqa: S314  # our own
    found = [(case.get("name"), [one.tag for one in case if one.tag != "properties"])
             for case in root.iter("testcase")]  # fmt: skip
    assert found[1:] == [
        ("test_it: fine", []),
        ("test_it: su<m>s \ufffd \ufffd", ["failure"]),
        ("test_it: x", ["skipped"]),
    ]
    assert found[0][0] == "test_it"
    names = {case.get("classname") for case in root.iter("testcase")}
    assert names == {"test_each_is_a_test_case_in_the_junit_file"}
    suite = root.find("testsuite")
    assert suite is not None
    assert found[0][1] == ["failure", "failure"]  # that of the test within it, and its own
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "3", "errors": "0", "skipped": "1"}
    [case] = cases_in(text)
    assert (case.name.rpartition("::")[2], case.outcome) == ("test_it", "failed")
    assert list(failures(text)) == [case.name]


def test_a_test_passes_although_one_within_it_is_skipped(pytester: pytest.Pytester) -> None:
    """Or was expected to fail; unless it is skipped itself."""
    said = "ok 1 fine\nok 2 x # SKIP no x\nok 3 y # SKIP\nnot ok 4 known # TODO later"
    pytester.makepyfile(
        f"import pytest\ndef test_it(run_ktap, said): run_ktap(said({said!r}), 'prog')\n"
        f"def test_not(run_ktap, said): run_ktap(said({said!r}), 'prog'); pytest.skip('enough')"
    )
    pytester.runpytest("-p", "no:cacheprovider", "--junitxml=junit.xml")
    text = (pytester.path / "junit.xml").read_text("utf-8")
    assert [case.outcome for case in cases_in(text)] == ["passed", "skipped"]
    assert text.count("<testcase") == 10


def test_a_junit_file_without_programs_stays(pytester: pytest.Pytester) -> None:
    """As pytest has written it, and as others know it."""
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest("-p", "no:cacheprovider", "--junitxml=junit.xml")
    text = (pytester.path / "junit.xml").read_text("utf-8")
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests">')
    assert text.count("<testcase") == 1
