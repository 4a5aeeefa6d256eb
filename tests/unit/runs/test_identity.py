# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/identity.py: whether two runs are of the same harness and the same tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runs import identity


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """A package of tests in another."""
    for name in ("all/__init__.py", "all/helper.pl", "all/some/__init__.py", "all/some/test_a.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "all" / "some"


@pytest.mark.parametrize("given", ["", "test_a.py"], ids=["folder", "file"])
@pytest.mark.parametrize("changed", ["test_a.py", "conftest.py", "../helper.pl"])
def test_a_change_of_the_tests_is_seen(tests: Path, given: str, changed: str) -> None:
    """Also of what is beside them, or in the package that they are in."""
    before = identity.of([tests / given])
    assert before == identity.of([tests / given])
    (tests / changed).write_text("another")
    assert identity.of([tests / given]) != before


def test_what_is_no_source_does_not_count(tests: Path) -> None:
    """Such as what Python has compiled, or what a test has left; and nothing of other folders."""
    before = identity.of([tests])
    for name in ("data.bin", "__pycache__/test_a.py", "../other/test_b.py"):
        (tests / name).parent.mkdir(exist_ok=True)
        (tests / name).write_text("x")
    assert identity.of([tests]) == before


def test_options_count(tests: Path) -> None:
    """A test that is recorded runs on another machine."""
    assert identity.of([tests], ["record"]) != identity.of([tests])


def test_what_cannot_be_read_is_not_known(tests: Path) -> None:
    """Then nothing is said to be the same."""
    assert identity.of([tests / "missing"]) == ""
