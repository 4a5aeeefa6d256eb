# SPDX-License-Identifier: GPL-2.0-only
"""harness/plugin: what each test has come to is written down as soon as it has ended."""

from __future__ import annotations

import pytest

from harness.runs import pytest_process
from harness.runs.pytest_process import EndedTest

pytest_plugins = ["pytester"]

TESTS = """
import json, os, pathlib, pytest

@pytest.fixture
def broken():
    yield
    raise OSError("left behind")

def test_fine(): pass
def test_red(): assert 0, "its mode is 0666"
@pytest.mark.skip(reason="no such device")
def test_not(): pass
def test_leaves(broken): pass
@pytest.mark.xfail
def test_known(): assert 0
class TestMore:
    @pytest.mark.parametrize("n", ["a::b"])
    def test_it(self, n): pass
def test_many(subtests):
    with subtests.test(msg="x"): pytest.skip("no x")
    with subtests.test(msg="y"): pass
def test_wrong(subtests):
    with subtests.test(msg="x"): pytest.skip("no x")
    with subtests.test(msg="y"): assert 0, "no y"
def test_sees():
    '''When this one runs, all others have ended, and are in the file.'''
    lines = (pathlib.Path(os.environ["RESULTS"]) / "ended.jsonl").read_text().splitlines()
    assert len(lines) == 8
"""


@pytest.mark.parametrize("workers", [[], ["-n1"]], ids=["one process", "xdist"])
def test_each_test_is_written_down(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    """With its outcome, and why it is red; while others run already."""
    pytester.makepyfile(TESTS)
    folder = pytester.path / "run"
    monkeypatch.setenv("RESULTS", str(folder))
    pytester.runpytest("-p", "no:cacheprovider", f"--kernel-results={folder}", *workers)
    found = pytest_process.ended(folder)
    file = "test_each_test_is_written_down.py"
    assert [(one.test.removeprefix(f"{file}::"), one.outcome) for one in found] == [
        ("test_fine", "passed"), ("test_red", "failed"), ("test_not", "skipped"),
        ("test_leaves", "error"), ("test_known", "skipped"), ("TestMore::test_it[a::b]", "passed"),
        ("test_many", "passed"), ("test_wrong", "failed"), ("test_sees", "passed"),
    ]  # fmt: skip
    whys = [one.why for one in found]
    assert "its mode is 0666" in whys[1]
    assert whys[2] == "Skipped: no such device"
    assert "left behind" in whys[3]
    assert "no y" in whys[7]
    assert all(one.seconds >= 0 for one in found)


def test_a_test_that_ends_its_process_is_written_down(pytester: pytest.Pytester) -> None:
    """By the process that has handed it out."""
    pytester.makepyfile("import os\ndef test_dies(): os._exit(1)\n")
    folder = pytester.path / "run"
    pytester.runpytest("-p", "no:cacheprovider", f"--kernel-results={folder}", "-n1")
    name = "test_a_test_that_ends_its_process_is_written_down.py::test_dies"
    assert pytest_process.ended(folder) == [
        EndedTest(name, "error", 0.0, "the process that ran it died")
    ]
