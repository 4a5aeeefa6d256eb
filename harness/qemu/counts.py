# SPDX-License-Identifier: GPL-2.0-only
"""The file in which a QEMU counts the instructions that its guest runs of modules.

vm/coverage.c writes it, while the guest runs: four u64 (how many entries there are, how many found
no room), then the entries, each an address, a count, the instruction's length and its bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<QQ16x")
_ENTRY = struct.Struct("<QQB15s")
_ENTRIES = 1 << 20


@dataclass(frozen=True)
class Counted:
    """An instruction that ran: where it was in the guest, what it was, and how often."""

    address: int
    code: bytes
    count: int


@dataclass(frozen=True)
class Counter:
    """How a machine counts: by which plugin, and into which file."""

    plugin: Path
    file: Path


def prepare(file: Path) -> None:
    """Make the file, which takes as much of the disk as is counted in it."""
    with file.open("xb") as stream:
        stream.truncate(_HEADER.size + _ENTRIES * _ENTRY.size)


def read(file: Path) -> tuple[list[Counted], int]:
    """What has run so far, and how many instructions could not be counted.

    The machine may still run.
    """
    with file.open("rb") as stream:
        used, lost = _HEADER.unpack(stream.read(_HEADER.size))
        entries = stream.read(min(used, _ENTRIES) * _ENTRY.size)
    found = _ENTRY.iter_unpack(entries[: len(entries) // _ENTRY.size * _ENTRY.size])
    ran = [
        Counted(address, code[:length], count)
        for address, count, length, code in found
        if count
    ]  # fmt: skip
    return ran, lost


def keep(file: Path, target: Path) -> None:
    """Copy what is used of a file."""
    with file.open("rb") as stream:
        used, _ = _HEADER.unpack(stream.read(_HEADER.size))
        stream.seek(0)
        target.write_bytes(stream.read(_HEADER.size + min(used, _ENTRIES) * _ENTRY.size))
