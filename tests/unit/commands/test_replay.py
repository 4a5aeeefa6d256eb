# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/replay.py: whether a replay went the way of its recording."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from harness.commands import gdb, replay
from harness.commands.replay import Comparison
from harness.errors import InputError, MissingToolError
from harness.machines import recorded
from harness.machines.recorded import Recording
from harness.qemu import MachineSpec

BEFORE = b"one\ntwo\nthree\n"


@pytest.mark.parametrize("after", [BEFORE, BEFORE[:8]])
def test_the_same_is_the_same(after: bytes) -> None:
    """What was printed after the end need not be there."""
    found = replay.compare(BEFORE, after, len(b"one\ntwo\n"))
    assert (found.line, found.lines) == (0, after.count(b"\n"))


@pytest.mark.parametrize(
    ("after", "line", "was", "now"),
    [
        (b"one\n2\nthree\n", 2, "two", "2"),
        (b"one\ntwo\n", 3, "three", "(nothing)"),
        (BEFORE + b"four\n", 4, "(nothing)", "four"),
        (b"one\ntwo\nthree", 3, "three", "three (without an end)"),
        (b"one\ntw\x1b[31mo\nthree\n", 2, "two", "tw\\x1b[31mo"),
    ],
)
def test_the_first_line_that_differs_is_shown(after: bytes, line: int, was: str, now: str) -> None:
    """As it was and as it is, harmless on a terminal."""
    found = replay.compare(BEFORE, after, len(BEFORE))
    assert found == Comparison(found.lines, line, was, now)


@pytest.mark.parametrize(
    ("began", "end", "points"),
    [
        (0, None, [0]),  # it ended by itself, nobody knows when
        (100, 100, [0]),
        (100, 200, [0, 100]),
        (100, 100 + 50_000_001, [0, 100, 25_000_100, 50_000_100]),
    ],
)
def test_snapshots_are_taken_all_through_the_test(
    began: int, end: int | None, points: list[int]
) -> None:
    """Not while it booted."""
    assert replay.snapshot_points(began, end) == points


def test_a_long_test_has_no_more_snapshots() -> None:
    """Each takes 100 MiB."""
    points = replay.snapshot_points(10**9, 10**12)
    assert len(points) <= 13
    assert points[:2] == [0, 10**9]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """One of a kernel without symbols."""
    spec = MachineSpec(Path("/cache/vmlinux"), Path("/cache/initrd"))
    about = {"source": "/home/me/my module", "vmlinux": ""}
    return Recording(tmp_path, spec, 400, 1000, 10, False, 8.5, about)


def words_of(recording: Recording, symbols: list[Path], script: Path | None) -> list[str]:
    socket = Path("/run/gdb")
    return gdb.arguments(recording.spec.kernel, socket, recording.about, symbols, script)


def test_gdb_knows_the_module_and_its_source(recording: Recording) -> None:
    """And goes to the machine."""
    words = words_of(recording, [Path("/run/mine.symbols")], None)
    assert (words[0], words[-1]) == ("gdb", "/cache/vmlinux")
    assert "-batch" not in words
    # Else a module could have gdb run something.
    assert words[words.index("-iex") + 1] == "set auto-load no"
    commands = [word for before, word in itertools.pairwise(words) if before == "-ex"]
    assert "set substitute-path /mnt/module '/home/me/my module'" in commands
    assert commands[-2:] == ["add-symbol-file /run/mine.symbols", "target remote /run/gdb"]


def test_a_script_is_run_last(recording: Recording) -> None:
    """And gdb then ends."""
    words = words_of(recording, [], Path("script"))
    assert "-batch" in words
    assert words[-3:] == ["-x", "script", "/cache/vmlinux"]


def test_a_host_without_gdb_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything boots."""
    monkeypatch.setattr("harness.commands.gdb.shutil.which", lambda _: None)
    with pytest.raises(MissingToolError, match="apt install gdb"):
        replay.debug(tmp_path)


def test_a_script_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything boots."""
    monkeypatch.setattr("harness.commands.gdb.shutil.which", lambda _: "/usr/bin/gdb")
    with pytest.raises(InputError, match="there is no file"):
        replay.debug(tmp_path, tmp_path / "script")


def test_a_machine_that_is_gone_is_not_looked_into(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its replay would end where gdb is to begin."""
    monkeypatch.setattr("harness.commands.gdb.shutil.which", lambda _: "/usr/bin/gdb")
    monkeypatch.setattr(recorded, "load", lambda _: replace(recording, end=None))
    with pytest.raises(InputError, match="restarted or powered off"):
        replay.debug(tmp_path)
