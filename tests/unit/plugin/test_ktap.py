# SPDX-License-Identifier: GPL-2.0-only
"""The fixture run_ktap: each test of a program in the guest has a name and an outcome."""

from __future__ import annotations

import pytest

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
