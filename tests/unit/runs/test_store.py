# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/store.py: each run has a folder of its own, and what it promised stays there."""

from __future__ import annotations

import errno
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from harness import config
from harness.errors import SpaceError
from harness.examine import artifacts
from harness.host import files
from harness.report.result import Cell, KernelResult, from_json
from harness.runs import store
from harness.runs.store import Run


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of this test's own."""
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def result(status: int = 0) -> KernelResult:
    return KernelResult("wee", "r", "1-1", status, 5.0, 1.0, 1.0, {"boot": Cell(False, "ok")})


def test_two_runs_at_once_have_folders_of_their_own(results: Path) -> None:
    """What one writes is not where the other one reads."""
    with store.begin("wee", whole=True) as first, store.begin("wee", whole=True) as second:
        assert first.folder != second.folder
        assert (results / "wee" / "latest").resolve() == second.folder.resolve()
        first.junit.write_text("<first/>")
        second.junit.write_text("<second/>")
        store.write(second, result(1), whole=True)
        store.write(first, result(0), whole=True)
    assert store.last("wee") == result(0)
    assert store.junit_of("wee").read_text() == "<first/>"
    assert from_json((second.folder / "report.json").read_text()) == result(1)
    assert second.junit.read_text() == "<second/>"


def test_results_are_nobodys_sources(results: Path) -> None:
    """They may lie in the folder of the module under test."""
    store.folder_of("trixie")
    assert files.is_tagged(results)


def test_the_last_result_has_no_junit_file_of_another_run() -> None:
    """A kernel that could not be tested is not explained by what an older run found."""
    with store.begin("wee", whole=True) as run:
        run.junit.write_text("<old/>")
        store.write(run, result(), whole=True)
    with store.begin("wee", whole=True) as run:
        store.write(run, result(1), whole=True)
    assert not store.junit_of("wee").exists()


def test_every_run_is_remembered() -> None:
    """Those of some of the tests too, and whichever of two at once ends first."""
    tested = replace(result(), module="m", harness="h")
    with store.begin("wee", whole=True) as first, store.begin("wee", whole=False) as second:
        store.write(second, replace(tested, finished=7.0), whole=False)
        store.write(first, tested, whole=True)
    assert [(one.run, one.whole) for one in store.past("wee")] == [
        (first.folder.name, True), (second.folder.name, False)
    ]  # fmt: skip
    assert store.past("other") == []


def test_a_damaged_memory_is_begun_again(results: Path) -> None:
    """What a full disk has left of it hides no result."""
    (results / "wee").mkdir(parents=True)
    (results / "wee" / "history.jsonl").write_bytes(b"\xff\0{")
    with store.begin("wee", whole=True) as run:
        store.write(run, result(), whole=True)
    assert [one.run for one in store.past("wee")] == [run.folder.name]


def test_runs_that_end_at_once_are_all_remembered() -> None:
    """Each reads what the others have written: none replaces it by what was there before."""
    with ExitStack() as stack:
        runs = [stack.enter_context(store.begin("wee", whole=False)) for _ in range(8)]
        with ThreadPoolExecutor(len(runs)) as writers:
            list(writers.map(lambda run: store.write(run, result(), whole=False), runs))
    assert {one.run for one in store.past("wee")} == {run.folder.name for run in runs}


def test_a_run_that_cannot_be_remembered_counts(
    results: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is remembered is the largest file, and of least weight."""
    (results / "wee" / "history.jsonl").mkdir(parents=True)
    with store.begin("wee", whole=True) as run:
        store.write(run, result(1), whole=True)
    assert store.last("wee") == result(1)
    assert "this run is not remembered for the page: Is a directory" in caplog.text
    assert not list((results / "wee").glob(".history*"))


def test_a_part_does_not_replace_the_whole() -> None:
    """Each is kept."""
    for whole, status in ((True, 0), (False, 1)):
        with store.begin("wee", whole=whole) as run:
            store.write(run, result(status), whole=whole)
    assert store.last("wee") == result(0)
    assert store.last("wee", whole=False) == result(1)


def test_old_runs_go_and_running_ones_stay(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    """The last five are kept, and one that is still going on however old it is."""
    names = (f"20250101-0000{number:02}-abcdef" for number in itertools.count())
    monkeypatch.setattr(store, "new_name", lambda: next(names))
    running = store.begin("wee", whole=True)
    ended = []
    for _ in range(store.RUNS + 1):
        with store.begin("wee", whole=False) as run:
            ended.append(run.folder)
    assert running.folder.exists()
    assert [folder for folder in ended if not folder.exists()] == ended[:1]
    running.close()
    store.begin("wee", whole=False).close()
    assert not running.folder.exists()
    assert (results / "wee" / "latest").exists()


def test_what_red_tests_have_left_outlives_runs_without_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As those are that a mistyped option ends: else a few of them take each machine away."""
    names = (f"20250101-0000{number:02}-abcdef" for number in itertools.count())
    monkeypatch.setattr(store, "new_name", lambda: next(names))
    with store.begin("wee", whole=False) as red:
        (red.folder / "test_red").mkdir()
    for _ in range(store.RUNS + 2):
        store.begin("wee", whole=False).close()
    assert red.folder.exists()
    for _ in range(store.RUNS):
        with store.begin("wee", whole=False) as later:
            (later.folder / "test_red").mkdir()
    store.begin("wee", whole=False).close()
    assert not red.folder.exists()


def test_only_runs_are_removed(results: Path) -> None:
    """A kernel's results may have something of a person's beside them."""
    (results / "wee" / "mine").mkdir(parents=True)
    for _ in range(store.RUNS + 2):
        store.begin("wee", whole=False).close()
    assert (results / "wee" / "mine").exists()


@pytest.mark.parametrize(
    ("nodeid", "name"),
    [
        ("tests/vm/contract/test_contract.py::test_it", "contract-test_contract.py-test_it"),
        ("tests/vm/module/test_a.py::test_it[1-2]", "module-test_a.py-test_it[1-2]"),
    ],
)
def test_an_ordinary_test_has_a_plain_name(nodeid: str, name: str) -> None:
    """It can be read, and typed."""
    assert artifacts.folder_name(nodeid) == name


def test_no_two_tests_have_the_same_name() -> None:
    """Whatever is in their parameters, and however long these are."""
    words = ["a/b", "a-b", "a b", "a::b", "a--b", "x" * 300, "x" * 301, "\u00e4", "\u00f6", "", "-"]
    tests = [f"tests/vm/a/b.py::test_c[{word}]" for word in words]
    tests += ["tests/vm/a-b.py::test_c[a-b]", "tests/vm/a/b.py::TestC::test[a-b]"]
    tests += ["tests/vm/a/b-c.py::d", "tests/vm/a/b.py/c.py::d"]
    names = [artifacts.folder_name(test) for test in tests]
    assert len(set(names)) == len(names)
    for name in names:
        assert "/" not in name
        assert len(name.encode()) < 200


def test_what_is_there_is_never_taken_away(tmp_path: Path) -> None:
    """Another process of the run may have promised it."""
    made = [artifacts.make_folder(tmp_path / "run", "loading-wee") for _ in range(3)]
    assert [folder.name for folder in made] == ["loading-wee", "loading-wee-2", "loading-wee-3"]
    assert all(folder.is_dir() for folder in made)


def test_a_run_has_so_many_places_for_machines(tmp_path: Path) -> None:
    """Whoever asks."""
    with Run(tmp_path / "run") as run:
        assert [artifacts.claim(run.folder, 2) for _ in range(4)] == [0, 1, None, None]


def test_a_run_that_was_cut_off_is_known(results: Path) -> None:
    """The last result is then an older one's, until a run has come to its end."""
    assert not store.cut_off("wee")
    with store.begin("wee", whole=True) as run:
        assert not store.cut_off("wee")  # it is going on
        store.write(run, result(), whole=True)
    assert not store.cut_off("wee")
    with store.begin("wee", whole=True):
        pass  # as if killed
    assert store.cut_off("wee")
    assert store.last("wee") == result()
    with store.begin("wee", whole=False) as run:
        store.write(run, result(), whole=False)
    assert store.cut_off("wee")
    with store.begin("wee", whole=True) as run:
        store.write(run, result(1), whole=True)
    assert not store.cut_off("wee")


def test_a_part_that_was_cut_off_says_nothing(results: Path) -> None:
    """It would not have replaced the last result."""
    store.begin("wee", whole=False).close()
    assert not store.cut_off("wee")


@pytest.mark.parametrize("full", ["mkdir", "touch", "write_bytes"])
def test_a_full_disk_is_the_hosts_fault(monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    """The disk of results/ is another one than that of the cache."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, full, fails)

    def write() -> None:
        with store.begin("wee", whole=True) as run:
            store.write(run, result(), whole=True)

    with pytest.raises(SpaceError, match="writing the results failed") as caught:
        write()
    assert "results/" in caught.value.hint
    assert "EUDYPTULA_CACHE" not in str(caught.value)
