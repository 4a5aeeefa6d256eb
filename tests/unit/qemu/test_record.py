# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/record.py: an archive for an initramfs, and an image for snapshots."""

from __future__ import annotations

import struct
from pathlib import Path

from harness.qemu import record


def entries(data: bytes) -> list[tuple[str, int, bytes]]:
    """What is in an archive of the format newc, as name, mode and content."""
    found, at = [], 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = -(-(at + 110 + name_size) // 4) * 4
        found.append((name[:-1].decode(), mode, data[start : start + size]))
        at = -(-(start + size) // 4) * 4
    return found


def test_an_archive_has_its_files_and_an_end() -> None:
    """Each is at a multiple of four, whatever the lengths of names and contents are."""
    files = {"etc/a/": b"", "etc/a/b": b"12345", "c": b"", "long name": b"x" * 8}
    assert entries(record.archive(files)) == [
        ("etc/a", 0o040755, b""),
        ("etc/a/b", 0o100644, b"12345"),
        ("c", 0o100644, b""),
        ("long name", 0o100644, b"x" * 8),
        ("TRAILER!!!", 0o100644, b""),
    ]


def test_an_archive_begins_where_the_kernel_looks(tmp_path: Path) -> None:
    """The one before it may end anywhere."""
    (tmp_path / "first").write_bytes(record.archive({"a": b"1"}) + b"\0")
    record.joined(tmp_path / "first", record.archive({"b": b"2"}), tmp_path / "both")
    whole = (tmp_path / "both").read_bytes()
    assert whole.rindex(b"070701", 0, whole.index(b"b\0")) % 4 == 0


def test_an_empty_image_is_one(tmp_path: Path) -> None:
    """Each cluster is counted once, and the table of the disk says that there is nothing."""
    record.empty_image(tmp_path / "image")
    data = (tmp_path / "image").read_bytes()
    magic, version, bits, size = struct.unpack(">4sI12xIQ", data[:32])
    assert (magic, version, bits, size) == (b"QFI\xfb", 2, 16, 1 << 30)
    table, counts, clusters = struct.unpack(">QQI", data[40:60])
    assert (table, counts, clusters) == (3 << 16, 1 << 16, 1)
    (block,) = struct.unpack(">Q", data[counts : counts + 8])
    assert struct.unpack(">5H", data[block : block + 10]) == (1, 1, 1, 1, 0)
    assert data[table:] == bytes(1 << 16)
