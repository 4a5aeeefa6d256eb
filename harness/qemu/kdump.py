# SPDX-License-Identifier: GPL-2.0-only
"""Makes of what QEMU writes for `dump-guest-memory` (kdump-zlib) a file that crash and drgn read.

QEMU writes as if to a pipe, in makedumpfile's flattened format: pieces, each with the offset at
which it belongs. And it does not say which system the memory is of, without which drgn's library
does not know the processor. QEMU's dump/dump.c has both formats (DiskDumpHeader64,
KdumpSubHeader64), and its include/sysemu/dump.h.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

from harness.errors import MachineError

_FLAT = b"makedumpfile".ljust(16, b"\0")
_FLAT_HEADER = 4096  # bytes; the first piece comes after it
_PIECE = struct.Struct(">qq")  # offset and size; the last one has a negative offset
_SIGNATURE = b"KDUMP   "
_BLOCK = 4096  # where the second header is: pages of the guest have this size
_NOTES = struct.Struct("<QQ")  # of the second header: where vmcoreinfo is, and its size
_NOTES_AT = 0x20
# struct new_utsname in the first header: six texts of 65 bytes, from here on.
_UTSNAME, _TEXT = 12, 65
_SYSTEM, _RELEASE, _VERSION = 0, 2, 3


def assemble(flat: Path, target: Path) -> None:
    """Write the dump in ``flat`` to ``target``, whole and with the name of its system.

    Raises ``MachineError`` where it is none, or is cut.
    """
    with flat.open("rb") as pieces, target.open("w+b") as dump:
        if not pieces.read(_FLAT_HEADER).startswith(_FLAT):
            raise MachineError("QEMU has not written a dump in the flattened format")
        while True:
            header = pieces.read(_PIECE.size)
            if len(header) < _PIECE.size:
                raise MachineError("QEMU's dump of the memory ends before its end")
            offset, size = _PIECE.unpack(header)
            if offset < 0:
                break
            data = pieces.read(size)
            if len(data) < size:
                raise MachineError("QEMU's dump of the memory ends before its end")
            dump.seek(offset)
            dump.write(data)
        _name_system(dump)


def _name_system(dump: BinaryIO) -> None:
    """Fill in what QEMU leaves empty: the name of the system, and the release of the kernel."""
    dump.seek(0)
    if dump.read(len(_SIGNATURE)) != _SIGNATURE:
        raise MachineError("QEMU's dump of the memory is no kdump")
    dump.seek(_BLOCK + _NOTES_AT)
    place, size = _NOTES.unpack(dump.read(_NOTES.size))
    dump.seek(place)
    release = re.search(rb"(?m)^OSRELEASE=(\S+)$", dump.read(size) if place else b"")
    if release is None:
        return  # the kernel has not told QEMU where its vmcoreinfo is
    # A library that reads dumps wants a version too, and nobody here knows it.
    for index, text in ((_SYSTEM, b"Linux"), (_RELEASE, release[1]), (_VERSION, b"(not known)")):
        dump.seek(_UTSNAME + index * _TEXT)
        dump.write(text[: _TEXT - 1].ljust(_TEXT, b"\0"))
