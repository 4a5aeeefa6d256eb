# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/replay.py: whether a replay went the way of its recording."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness.commands import gdb, replay
from harness.commands.replay import Comparison
from harness.errors import InputError, MachineError, MissingToolError
from harness.host.cache import Cache
from harness.host.proc import Deadline
from harness.machines import recorded
from harness.machines.recorded import Recording
from harness.qemu import Machine, MachineSpec

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
        (100, 30_000_000, [0, 100, 25_000_100, 29_500_000]),  # and closer at the end
        (100, 49_000_000, [0, 100, 25_000_100, 44_000_000, 48_500_000]),
        (0, 1_000_000, [0, 500_000]),
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
    assert len(points) <= 15
    assert points[:2] == [0, 10**9]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """A cache of this test's own."""
    with Cache(tmp_path / "cache") as made:
        yield made


def test_snapshots_are_kept_for_the_next_time(
    recording: Recording, cache: Cache, tmp_path: Path
) -> None:
    """As whole as they were left: where nobody has said that they are, they are made again."""
    (recording.folder / recorded.LOG).write_bytes(b"what came")
    with replay.snapshots_of(recording, cache, tmp_path) as snapshots:
        assert snapshots.last == ""
        snapshots.image.write_bytes(b"with snapshots")
        snapshots.keep("back3")
    with replay.snapshots_of(recording, cache, tmp_path) as again:
        assert (again.last, again.image.read_bytes()) == ("back3", b"with snapshots")
        # It ends here without a word, as where QEMU is killed.
    with replay.snapshots_of(recording, cache, tmp_path) as third:
        assert third.last == ""
        assert third.image.read_bytes() != b"with snapshots"
        third.keep("back1")


@pytest.mark.parametrize("other", ["log", "machine"])
def test_snapshots_are_only_those_of_the_same_recording(
    recording: Recording, cache: Cache, tmp_path: Path, other: str
) -> None:
    """Not of one that came to lie in its place, nor of another machine."""
    (recording.folder / recorded.LOG).write_bytes(b"what came")
    with replay.snapshots_of(recording, cache, tmp_path) as snapshots:
        snapshots.keep("back3")
    if other == "log":
        (recording.folder / recorded.LOG).write_bytes(b"what came then")
    else:
        recording = replace(recording, spec=replace(recording.spec, memory_mib=768))
    with replay.snapshots_of(recording, cache, tmp_path) as again:
        assert again.last == ""


def test_two_debuggers_at_once_have_snapshots_of_their_own(
    recording: Recording, cache: Cache, tmp_path: Path
) -> None:
    """The second does not wait for the first, and what it makes is not kept."""
    (recording.folder / recorded.LOG).write_bytes(b"what came")
    with replay.snapshots_of(recording, cache, tmp_path) as first:
        with replay.snapshots_of(recording, cache, tmp_path) as second:
            assert second.image != first.image
            assert second.image.is_relative_to(tmp_path)
            second.keep("back9")
        first.keep("back3")
    with replay.snapshots_of(recording, cache, tmp_path) as again:
        assert again.last == "back3"


class Ends:
    """A machine that ends when it is told to, unless it is gone before or does not."""

    def __init__(self, gone: bool, stays: bool) -> None:
        self.gone, self.stays = gone, stays
        self.process = self

    def execute(self, command: str, _: Deadline) -> None:
        assert command == "quit"
        if self.gone:
            raise MachineError("QEMU ended")

    def wait(self, _: Deadline) -> None:
        if self.stays:
            raise MachineError("QEMU does not end when asked to")


@pytest.mark.parametrize(
    ("gone", "stays", "last"), [(False, False, "back3"), (True, False, ""), (False, True, "")]
)
def test_snapshots_are_whole_where_qemu_has_ended_by_itself(
    recording: Recording, cache: Cache, tmp_path: Path, gone: bool, stays: bool, last: str
) -> None:
    """Else they are made again; whoever has looked into the machine is not told of it."""
    (recording.folder / recorded.LOG).write_bytes(b"what came")
    with replay.snapshots_of(recording, cache, tmp_path) as snapshots:
        replay.end_with_snapshots(cast(Machine, Ends(gone, stays)), snapshots, "back3")
    with replay.snapshots_of(recording, cache, tmp_path) as again:
        assert again.last == last


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
