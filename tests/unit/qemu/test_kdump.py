# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/kdump.py: from what QEMU writes to what crash and drgn read."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.qemu import kdump

NOTES = b"OSRELEASE=6.12.1-test\nBUILD-ID=d01f\nPAGESIZE=4096\n"
HEADER = b"KDUMP   " + struct.pack("<i", 6) + bytes(4 * 65) + b"x86_64".ljust(130, b"\0")


def flat(*pieces: tuple[int, bytes], end: bool = True) -> bytes:
    """The flattened format: a header of 4096 bytes, pieces with offset and size, and an end."""
    head = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
    body = b"".join(struct.pack(">qq", offset, len(data)) + data for offset, data in pieces)
    return head.ljust(4096, b"\0") + body + (struct.pack(">qq", -1, -1) if end else b"")


def second_header(place: int) -> bytes:
    """Where its vmcoreinfo is."""
    return bytes(0x20) + struct.pack("<QQ", place, len(NOTES) if place else 0)


def text(dump: bytes, index: int) -> bytes:
    """One of the texts of struct new_utsname."""
    return dump[12 + 65 * index : 12 + 65 * (index + 1)].rstrip(b"\0")


def assembled(tmp_path: Path, written: bytes) -> bytes:
    (tmp_path / "flat").write_bytes(written)
    kdump.assemble(tmp_path / "flat", tmp_path / "dump")
    return (tmp_path / "dump").read_bytes()


def test_pieces_come_to_their_places(tmp_path: Path) -> None:
    """In whichever order they were written, the later ones over the earlier."""
    found = assembled(
        tmp_path,
        flat((0, HEADER), (8192, b"memory"), (4096, second_header(0)), (8194, b"M")),
    )
    assert found[8192:] == b"meMory"
    assert found[4096:8192].rstrip(b"\0") == b""
    assert found[: len(HEADER)] == HEADER


def test_it_says_which_system_it_is_of(tmp_path: Path) -> None:
    """Which QEMU leaves empty; the release is the one that the kernel has noted."""
    found = assembled(
        tmp_path, flat((0, HEADER), (4096, second_header(6000)), (6000, NOTES), (8192, b"page"))
    )
    assert (text(found, 0), text(found, 2), text(found, 4)) == (b"Linux", b"6.12.1-test", b"x86_64")
    assert text(found, 3) != b""
    assert found[6000 : 6000 + len(NOTES)] == NOTES


@pytest.mark.parametrize(
    "written",
    [
        flat((0, HEADER), (4096, second_header(0)), end=False),
        flat((0, HEADER), (4096, second_header(0)))[:-20],
        flat((0, b"\x7fELF" + bytes(8192))),
        b"KDUMP   ".ljust(8192, b"\0"),
        b"",
    ],
    ids=["no end", "cut", "no kdump", "not flattened", "empty"],
)
def test_what_is_no_dump_is_an_error(tmp_path: Path, written: bytes) -> None:
    """Half a dump is not taken for one."""
    with pytest.raises(MachineError, match="dump"):
        assembled(tmp_path, written)
