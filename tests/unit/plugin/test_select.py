# SPDX-License-Identifier: GPL-2.0-only
"""Which tests are run, and what is said of those that are not."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

TWO = """
import pytest

@pytest.mark.machine(cpus=2)
def test_two(): pass

def test_one(): pass
"""


@pytest.mark.parametrize(("chosen", "counted"), [("test_one", False), ("test_", True)])
def test_what_was_not_asked_for_is_not_said_to_be_impossible(
    pytester: pytest.Pytester, chosen: str, counted: bool
) -> None:
    """A machine with two CPUs cannot be recorded, which is of interest where one was asked for."""
    pytester.makepyfile(TWO)
    done = pytester.runpytest("-p", "no:cacheprovider", "--kernel-record", "-k", chosen)
    done.assert_outcomes(passed=1, deselected=1)
    said = "not run: 1 test(s) with a machine that cannot be recorded" in done.stdout.str()
    assert said is counted
