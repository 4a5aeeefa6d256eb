# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/replay.py: an initramfs with more in it, and an image for snapshots."""

from __future__ import annotations

import struct
from pathlib import Path

from harness.build.requirements import cpio
from harness.qemu import replay


def test_what_is_added_begins_where_the_kernel_looks(tmp_path: Path) -> None:
    """The one before it may end anywhere."""
    (tmp_path / "first").write_bytes(cpio({"a": b"1"}) + b"\0")
    replay.joined(tmp_path / "first", cpio({"b": b"2"}), tmp_path / "both")
    whole = (tmp_path / "both").read_bytes()
    assert whole.rindex(b"070701", 0, whole.index(b"b\0")) % 4 == 0


def test_an_empty_image_is_one(tmp_path: Path) -> None:
    """Each cluster is counted once, and the table of the disk says that there is nothing."""
    replay.empty_image(tmp_path / "image")
    data = (tmp_path / "image").read_bytes()
    magic, version, bits, size = struct.unpack(">4sI12xIQ", data[:32])
    assert (magic, version, bits, size) == (b"QFI\xfb", 2, 16, 1 << 30)
    table, counts, clusters = struct.unpack(">QQI", data[40:60])
    assert (table, counts, clusters) == (3 << 16, 1 << 16, 1)
    (block,) = struct.unpack(">Q", data[counts : counts + 8])
    assert struct.unpack(">5H", data[block : block + 10]) == (1, 1, 1, 1, 0)
    assert data[table:] == bytes(1 << 16)
