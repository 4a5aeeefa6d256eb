# SPDX-License-Identifier: GPL-2.0-only
"""Files for QEMU's record and replay: an initramfs with more in it, and an empty image.

``argv.RecordReplay`` has the options.
"""

from __future__ import annotations

import struct
from pathlib import Path


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
