# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/covered.py: what the processes of a run have found becomes one result."""

from __future__ import annotations

from pathlib import Path

from harness.report import coverage
from harness.report.coverage import File
from harness.runs import covered
from harness.runs.covered import Part


def test_what_all_processes_have_found_is_one(tmp_path: Path) -> None:
    folder = tmp_path / covered.FOLDER
    for name, line in (("one", 3), ("other", 4)):
        (folder / name).mkdir(parents=True)
        covered.write(folder / name, Part({"mine.c": File({3: 0, 4: 0, line: 1})}, str(tmp_path)))
    (tmp_path / "mine.c").write_text("")
    said = covered.settle(folder)
    assert "2 of 2" in said
    assert covered.read(tmp_path) == {"mine.c": File({3: 1, 4: 1})}
    assert f"SF:{tmp_path.resolve()}/mine.c" in (tmp_path / coverage.LCOV).read_text()
    assert not folder.exists()


def test_a_process_that_died_is_told(tmp_path: Path) -> None:
    (tmp_path / covered.FOLDER / "dead").mkdir(parents=True)
    assert "has died" in covered.settle(tmp_path / covered.FOLDER)


def test_what_is_not_known_is_told(tmp_path: Path) -> None:
    folder = tmp_path / covered.FOLDER
    covered.write(folder / "one", Part({}, "", "it is not known"))
    assert "coverage: it is not known" in covered.settle(folder)


def test_a_module_names_no_file_outside_of_its_folder(tmp_path: Path) -> None:
    """Its debug information is somebody else's, and what it names is shown on the card."""
    (tmp_path / "secret").write_text("secret\n")
    own = tmp_path / "own"
    own.mkdir()
    (own / "link.c").symlink_to("../secret")
    for name in ("../secret", str(tmp_path / "secret"), "link.c"):
        covered.write_total(own, {name: File({1: 0})}, str(own))
        assert "secret:1: secret" not in "".join(covered.not_run(own, str(own)))
        assert covered.file_of(name, str(own)) is None


def test_a_card_has_the_lines_that_nothing_reached(tmp_path: Path) -> None:
    (tmp_path / "mine.c").write_text("one\ntwo\n")
    covered.write_total(tmp_path, {"mine.c": File({1: 1, 2: 0})}, str(tmp_path))
    assert covered.not_run(tmp_path, str(tmp_path)) == [
        "1 of 2 lines ran in its tests.", "Not reached: mine.c:2: two",
    ]  # fmt: skip
    assert covered.not_run(tmp_path / "nowhere", "") == []
