# SPDX-License-Identifier: GPL-2.0-only
"""Files for QEMU's record and replay: an archive that is added to an initramfs, and an empty image.

``argv.Record`` has the options.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

_REGULAR, _FOLDER = 0o100644, 0o040755


def archive(files: Mapping[str, bytes]) -> bytes:
    """Files by their paths, as an archive of the format newc; a path that ends in / is a folder's.

    It may follow another one in an initramfs (initramfs/buffer-format.rst has the fields). The
    kernel makes no folder that is not in it.
    """
    out = bytearray()
    for number, (name, data) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        encoded = name.rstrip("/").encode() + b"\0"
        mode = _FOLDER if name.endswith("/") else _REGULAR
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def joined(initrd: Path, more: bytes, target: Path) -> None:
    """Write an initramfs that has the one archive, and then the other."""
    first = initrd.read_bytes()
    target.write_bytes(first + bytes(-len(first) % 4) + more)


_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_DISK = 1 << 30  # bytes; nothing is ever written to it


def empty_image(path: Path) -> None:
    """Write an image in which QEMU can keep snapshots of a machine: qcow2 without any content.

    Its clusters are the header, the table of reference counts, the counts (one for each of these
    four), and the table of the disk's own (L1). See QEMU's docs/interop/qcow2.txt.
    """
    entries = -(-_DISK // (_CLUSTER * _CLUSTER // 8))
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb", 2, 0, 0, _CLUSTER_BITS, _DISK, 0, entries, 3 * _CLUSTER, _CLUSTER, 1, 0, 0,
    )  # fmt: skip
    counts = struct.pack(">4H", 1, 1, 1, 1)
    clusters = (header, struct.pack(">Q", 2 * _CLUSTER), counts, b"")
    path.write_bytes(b"".join(each.ljust(_CLUSTER, b"\0") for each in clusters))
