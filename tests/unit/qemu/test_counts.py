# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/counts.py: the file in which QEMU counts."""

from __future__ import annotations

import struct
from pathlib import Path

from harness.qemu import counts
from harness.qemu.counts import Counted


def written(file: Path, *, lost: int = 0) -> None:
    """As vm/coverage.c writes it: an instruction that ran, and one that was only translated."""
    counts.prepare(file)
    with file.open("r+b") as stream:
        stream.write(struct.pack("<QQ16x", 2, lost))
        stream.write(struct.pack("<QQB15s", 0xFFFFFFFFC0000000, 7, 2, b"\x31\xc0"))
        stream.write(struct.pack("<QQB15s", 0xFFFFFFFFC0000002, 0, 1, b"\xc3"))


def test_what_has_run_is_read(tmp_path: Path) -> None:
    written(tmp_path / "counts", lost=3)
    ran, lost = counts.read(tmp_path / "counts")
    assert ran == [Counted(0xFFFFFFFFC0000000, b"\x31\xc0", 7)]
    assert lost == 3


def test_a_file_takes_no_room_before_it_is_used(tmp_path: Path) -> None:
    counts.prepare(tmp_path / "counts")
    assert (tmp_path / "counts").stat().st_blocks == 0
    assert counts.read(tmp_path / "counts") == ([], 0)


def test_only_what_is_used_is_kept(tmp_path: Path) -> None:
    written(tmp_path / "counts")
    counts.keep(tmp_path / "counts", tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_size == 32 + 2 * 32
    assert counts.read(tmp_path / "kept") == counts.read(tmp_path / "counts")
