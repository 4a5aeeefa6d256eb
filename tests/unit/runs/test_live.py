# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/live.py: what is known of a run that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config
from harness.report.page import Reload
from harness.report.result import Case, Cell, KernelResult
from harness.runs import live, pages, pytest_process, store
from harness.runs.pytest_process import EndedTest, Progress

DONE = KernelResult(
    "trixie", "6.12", "6.12-1", 0, 1e9, 1.0, 2.0, {"boot": Cell(False, "ok")},
    (Case("test_a::test_old", "contract", "passed", 0.1),),
)  # fmt: skip
PASSED = EndedTest("tests/vm/contract/test_a.py::test_b[x::y]", "passed", 0.5)
RED = EndedTest("own/test_c.py::TestMany::TestMore::test_d", "failed", 0.5, "its mode is 0666")


TEST_A = PASSED.test.partition("::")[0]
TEST_C = str(config.PROJECT / "own" / "test_c.py")


pytestmark = pytest.mark.usefixtures("results")


def test_a_run_that_goes_on_shows_what_has_ended(results: Path) -> None:
    """Instead of the result of the run before, and with the names that its result will have."""
    with store.begin("trixie", whole=True) as run:
        store.write(run, DONE, whole=True)
    assert live.running(results) == {}
    with store.begin("trixie", whole=True, given=["--module=/home/ada/notes"]) as run:
        assert live.running(results)["trixie"].result.cells["boot"].text == "being made ready"
        pytest_process.add_ended(run.folder, PASSED)
        pytest_process.add_ended(run.folder, RED)
        Progress(("test_e.py::test_f",)).write(run.folder)
        found = live.running(results)["trixie"]
        assert found.tests == ("test_e.py::test_f",)
        assert found.result.tests == (
            Case("test_a::test_b[x::y]", "contract", "passed", 0.5, file=TEST_A),
            Case("TestMore::test_d", "", "failed", 0.5, "its mode is 0666", file=TEST_C),
        )
        assert found.result.given == ("--module=/home/ada/notes",)
        assert found.result.cells["own"].text == "1 of 1 red"
        assert found.result.status == 1
        shown = pages.live(results, Reload(2))
    assert "Kernel trixie is being tested" in shown
    assert "test_e.py::test_f" in shown
    assert "its mode is 0666" in shown
    assert "test_old" not in shown
    assert "test_old" in pages.live(results, Reload(2))  # since that run has ended


def test_what_is_written_at_this_moment_is_left_for_later(results: Path) -> None:
    """A line counts once it has its end; what is no such line is passed over."""
    with store.begin("trixie", whole=True) as run:
        pytest_process.add_ended(run.folder, PASSED)
        path = run.folder / pytest_process.ENDED
        whole = path.read_text()
        path.write_text(f'{whole}[]\n{{"test": 1}}\n\0\n{"[" * 100_000}\n{whole[:-1]}')
        assert len(live.running(results)["trixie"].result.tests) == 1


def test_a_page_is_only_made_anew_where_it_would_be_another(results: Path) -> None:
    """Each step of a run changes what stands for it: its beginning, its tests, its end."""
    stamps = [live.stamp(results)]
    with store.begin("trixie", whole=True) as run:
        stamps.append(live.stamp(results))
        Progress(("test_a.py::test_b",)).write(run.folder)
        stamps.append(live.stamp(results))
        pytest_process.add_ended(run.folder, PASSED)
        stamps.append(live.stamp(results))
        store.write(run, DONE, whole=True)
        stamps.append(live.stamp(results))
    stamps.append(live.stamp(results))
    assert len(set(stamps)) == len(stamps)
    assert live.stamp(results) == stamps[-1]


@pytest.mark.parametrize(
    "target", ["../../elsewhere", "/", "report.json", "20250101-000000-abcdef"]
)
def test_a_link_that_is_no_run_is_not_followed(results: Path, target: str) -> None:
    """Whoever has put it there."""
    (results / "trixie").mkdir()
    (results / "elsewhere").mkdir()
    (results / "trixie" / "latest").symlink_to(target)
    assert live.newest_run(results / "trixie") is None
    assert live.running(results) == {}


def test_no_results_are_nothing_that_runs(results: Path) -> None:
    """As before the first run."""
    assert live.running(results / "missing") == {}
    assert live.stamp(results / "missing") == ()
