# SPDX-License-Identifier: GPL-2.0-only
"""harness/plugin/page.py: who starts pytest has a page of its results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

# Stands in for the fixture `lab`, which makes a kernel ready.
CONFTEST = """
import pytest
from harness.plugin import TESTED, Tested
@pytest.fixture
def machine(pytestconfig):
    pytestconfig.stash[TESTED] = Tested("trixie", "6.12.1-amd64", "6.12.1-1", "m1")
"""
TESTS = """
import pytest
def test_fine(machine): pass
def test_red(machine): assert 0, "its mode is 0666"
"""


def run(pytester: pytest.Pytester, tests: str, *options: str) -> tuple[pytest.RunResult, Path]:
    """The run, and where its results are."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(tests)
    done = pytester.runpytest("-p", "no:cacheprovider", *options)
    return done, pytester.path / "results"


@pytest.mark.parametrize("workers", [[], ["-n1"]], ids=["one process", "xdist"])
def test_a_run_ends_with_its_page(pytester: pytest.Pytester, workers: list[str]) -> None:
    """It has what `invoke test-vm`'s has: all tests, and what the red ones say."""
    done, results = run(pytester, TESTS, *workers)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["the page of results: results/index.html"])
    page = (results / "index.html").read_text()
    assert "test_fine" in page
    assert "its mode is 0666" in page
    name = "test_a_run_ends_with_its_page::test_red"
    assert f"trixie: own: {name}" in (results / "summary.md").read_text().replace("\\", "")
    result = json.loads((results / "trixie" / "partial.json").read_text())
    assert result["release"] == "6.12.1-amd64"
    assert result["status"] == 1
    assert result["module"] == "m1"
    assert result["given"] == []
    assert len(result["harness"]) == 16
    assert (results / "trixie" / "latest" / "junit.xml").exists()


def test_which_module_is_tested_is_said(pytester: pytest.Pytester) -> None:
    """At the beginning, and in the commands on the page."""
    done, _ = run(pytester, TESTS)
    done.stdout.fnmatch_lines(["module under test: */module (the default; --module DIR is *)"])
    pytester.mkdir("mine").joinpath("Kbuild").write_text("obj-m := mine.o\n")
    options = ["--kernel-param=size=3", "--kernel-device=edu"]
    done, results = run(pytester, TESTS, "--module=mine", *options)
    done.stdout.fnmatch_lines(["module under test: mine"])
    result = json.loads((results / "trixie" / "partial.json").read_text())
    given = [f"--module={pytester.path / 'mine'}", "--param=size=3", "--device=edu"]
    assert result["given"] == given
    assert result["cells"]["build"]["text"] == "ok"
    # Wherever it is typed.
    file = pytester.path / "test_which_module_is_tested_is_said.py"
    again = f"pytest {file} {given[0]} {' '.join(options)} --kernel trixie -k test_red"
    assert again in (results / "index.html").read_text()


def test_a_run_without_a_machine_writes_nothing(pytester: pytest.Pytester) -> None:
    """There is nothing to say of a kernel."""
    done, results = run(pytester, "def test_fine(): pass\n")
    assert done.ret == 0
    assert "page of results" not in done.stdout.str()
    assert not results.exists()


def test_who_has_started_it_may_want_to_write_the_page(pytester: pytest.Pytester) -> None:
    """As `invoke test-vm` does, which says where the run's results go."""
    done, results = run(pytester, TESTS, f"--kernel-results={pytester.path / 'run'}")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    assert not results.exists()


def test_what_was_interrupted_is_no_result(pytester: pytest.Pytester) -> None:
    """Tests that have not run would be missing on the page, without a word."""
    _, results = run(pytester, "import pytest\ndef test_it(machine): pytest.exit('enough')\n")
    assert not results.exists()


def test_a_page_that_cannot_be_written_is_said(pytester: pytest.Pytester) -> None:
    """The tests' own result stands."""
    (pytester.path / "results").write_text("a file")
    done, _ = run(pytester, "def test_fine(machine): pass\n")
    assert done.ret == 0
    done.stdout.fnmatch_lines(["there is no page of the results: *"])


def test_results_are_in_the_current_folder_without_an_ini_file(pytester: pytest.Pytester) -> None:
    """Not where that and the tests' folder meet, which may be somebody's home."""
    tests, here = pytester.mkdir("notes"), pytester.mkdir("here")
    (tests / "conftest.py").write_text(CONFTEST)
    (tests / "test_notes.py").write_text(TESTS)
    with pytest.MonkeyPatch.context() as moved:
        moved.chdir(here)
        pytester.runpytest_inprocess("-p", "no:cacheprovider", str(tests))
        assert (here / "results" / "index.html").exists()
        assert not (pytester.path / "results").exists()
        (tests / "pyproject.toml").write_text('[tool.pytest.ini_options]\nkernel_module = "."\n')
        pytester.runpytest_inprocess("-p", "no:cacheprovider", str(tests))
    assert (tests / "results" / "index.html").exists()


STAGES = """
import threading
import pytest
from harness.host import progress
def stage(what):
    with progress.stage(what):
        print("what the test prints")
@pytest.fixture(scope="session")
def lab(): stage("kernel wee: booting once")
def test_first(lab): pass
def test_other():
    other = threading.Thread(target=stage, args=["said by nobody"])
    other.start()
    other.join()
"""


def test_what_takes_long_is_said(pytester: pytest.Pytester) -> None:
    """A person waits for a kernel that is downloaded and booted; a run of invoke's has said it."""
    done, _ = run(pytester, STAGES)
    done.assert_outcomes(passed=2)
    said = done.stdout.lines
    assert "kernel wee: booting once" in said
    assert not any("test prints" in line or "by nobody" in line for line in said)
    done, _ = run(pytester, STAGES, f"--kernel-results={pytester.path / 'run'}")
    assert "kernel wee" not in done.stdout.str()


def test_a_pytest_begins_without_what_makes_the_page() -> None:
    """It is imported while a test waits for its guest: nobody waits for it before the first one."""
    code = "import sys, harness.plugin.page; assert 'harness.report.page' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
