# SPDX-License-Identifier: GPL-2.0-only
"""A machine's memory, read from outside: from a frozen machine's file, or from QEMU's process.

Nothing in the guest takes part in it, so nothing in the guest can hide from it. Addresses are the
guest's physical ones, in bytes.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from harness.errors import HostError

T = TypeVar("T", bound="Memory")

PAGE = 4096
_BLOCK = 4 << 20  # bytes that are held at a time

# Where QEMU's q35 puts memory (pc_q35_init() in hw/i386/pc_q35.c): a machine with less than
# 2.75 GiB has all of it from address 0 on; of a larger one the first 2 GiB are there and the rest
# is above 4 GiB.
_UNSPLIT = 0xB0000000
_LOW = 0x80000000
_HIGH = 0x100000000


class Memory:
    """All of a machine's memory; ``size`` is how much it has, in bytes.

    A context manager: it holds a file open.
    """

    def __init__(self, file: Path, start: int, size: int) -> None:
        """Memory that is ``size`` bytes of ``file`` from ``start`` on, in QEMU's order."""
        self.size = size
        self._start = start
        self._low = size if size < _UNSPLIT else _LOW
        self._fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        """The bytes at a physical address; fewer than ``size``, or none, where memory ends."""
        offset = self.offset(address)
        if offset is None:
            return b""
        end = self._low if offset < self._low else self.size
        return os.pread(self._fd, min(size, end - offset), self._start + offset)

    def word(self, address: int) -> int:
        """The eight bytes at an address as a number; 0 where there is no memory."""
        return int.from_bytes(self.read(address, 8).ljust(8, b"\0"), "little")

    def offset(self, address: int) -> int | None:
        """How far from the beginning of QEMU's memory an address is."""
        if 0 <= address < self._low:
            return address
        if 0 <= address - _HIGH < self.size - self._low:
            return address - _HIGH + self._low
        return None

    def address(self, offset: int) -> int:
        """The other way round."""
        return offset if offset < self._low else offset - self._low + _HIGH

    def position(self, address: int) -> int:
        """Where in the file that is read an address is; it must be one that there is."""
        offset = self.offset(address)
        assert offset is not None
        return self._start + offset

    def blocks(self, pages: Iterator[range]) -> Iterator[tuple[int, bytes]]:
        """The bytes of ranges of pages (numbers in QEMU's order), each with its address."""
        for run in pages:
            at, end = run.start * PAGE, run.stop * PAGE
            while at < end:
                # Not across the gap, behind which addresses are others.
                stop = self._low if at < self._low else self.size
                size = min(_BLOCK, end - at, stop - at)
                data = os.pread(self._fd, size, self._start + at)
                if not data:
                    break
                yield self.address(at), data
                at += len(data)

    def filled(self) -> Iterator[range]:
        """The pages that are not all zeros, of all the memory that there is."""
        zeros = bytes(_BLOCK)
        for address, data in self.blocks(iter([range(self.size // PAGE)])):
            first = at = (self.offset(address) or 0) // PAGE
            for run in _zeros(data, zeros):
                if at < first + run.start:
                    yield range(at, first + run.start)
                at = first + run.stop
            if at < first + len(data) // PAGE:
                yield range(at, first + len(data) // PAGE)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


class FrozenMemory(Memory):
    """The memory of a frozen machine, which is a file with holes where there are zeros."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, 0, file.stat().st_size)

    def used(self) -> Iterator[range]:
        """The pages that are not holes."""
        return _data_in(self._fd)


def _data_in(fd: int) -> Iterator[range]:
    """The pages of a file that are not holes."""
    at = 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
        except OSError:  # ENXIO: there is nothing after that
            return
        yield range(at // PAGE, -(-end // PAGE))
        at = end


class RunningMemory(Memory):
    """The memory of a machine that runs, which QEMU has mapped privately from ``file``.

    What the machine writes to such a mapping is copied first, so its own pages are those that
    changed since the freeze. The machine should stand still while it is looked at.
    """

    def __init__(self, pid: int, file: Path) -> None:
        size = file.stat().st_size
        self._pagemap = Path(f"/proc/{pid}/pagemap")
        maps = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape")
        start = mapping(maps, file, size)
        if start is None:
            raise HostError(f"QEMU (process {pid}) does not have its memory mapped from {file}")
        super().__init__(Path(f"/proc/{pid}/mem"), start, size)

    def written(self) -> Iterator[range]:
        """The pages that changed since the machine was frozen."""
        with self._pagemap.open("rb", buffering=0) as file:
            file.seek(self._start // PAGE * 8)
            entries = b""
            while len(entries) < self.size // PAGE * 8:
                more = file.read(self.size // PAGE * 8 - len(entries))
                if not more:
                    break
                entries += more
        yield from private_pages(entries)

    def changed(self, address: int) -> bool:
        """Whether the page at an address changed since the machine was frozen."""
        offset = self.offset(address)
        if offset is None:
            return False
        with self._pagemap.open("rb", buffering=0) as file:
            file.seek((self._start + offset) // PAGE * 8)
            return any(private_pages(file.read(8)))

    def save_written(self, target: Path) -> None:
        """Write to a file what changed since the machine was frozen, for ``restore_written``."""
        runs = list(self.written())
        with target.open("wb") as file:
            file.write(json.dumps([[run.start, run.stop] for run in runs]).encode() + b"\n")
            size = sum(file.write(data) for _, data in self.blocks(iter(runs)))
        if size != PAGE * sum(map(len, runs)):
            raise HostError("a part of QEMU's memory could not be read")


def restore_written(source: Path, pid: int, memory: Path) -> None:
    """Write what ``RunningMemory.save_written`` has saved into the memory of another process.

    That is a QEMU that has the same file ``memory`` mapped privately, and has not run yet.
    Pages that it has already changed by itself are as in the file afterwards, or as saved.
    """
    with RunningMemory(pid, memory) as target, source.open("rb") as file:
        saved = [range(start, stop) for start, stop in json.loads(file.readline())]
        fd = os.open(f"/proc/{pid}/mem", os.O_WRONLY | os.O_CLOEXEC)
        try:
            with FrozenMemory(memory) as frozen:
                for address, data in frozen.blocks(target.written()):
                    _write_all(fd, data, target.position(address))
            for run in saved:
                data = file.read(len(run) * PAGE)
                _write_all(fd, data, target.position(target.address(run.start * PAGE)))
        finally:
            os.close(fd)


def _write_all(fd: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, position)
        view, position = view[done:], position + done


def mapping(maps: str, file: Path, size: int) -> int | None:
    """Where a process has ``size`` bytes of ``file`` mapped, by its /proc/PID/maps (proc(5))."""
    name = str(file.resolve())
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(bound, 16) for bound in fields[0].split("-"))
        # A file that was removed meanwhile is still mapped.
        if end - start == size and fields[5:] and fields[5].removesuffix(" (deleted)") == name:
            return start
    return None


# Of a pagemap's entry (Documentation/admin-guide/mm/pagemap.rst) the uppermost byte: bit 63 is set
# where the page is present, 62 where it is swapped out, 61 where it is the file's or shared.
_OWN = bytes(bool(top & 0xC0 and not top & 0x20) for top in range(256))


def private_pages(entries: bytes) -> Iterator[range]:
    """The runs of pages that are the process's own copies, by a part of its pagemap."""
    for run in re.finditer(b"\1+", entries[7::8].translate(_OWN)):
        yield range(run.start(), run.end())


@dataclass(frozen=True)
class Pointer:
    """Eight bytes of memory, on a boundary of eight, and the address that they hold."""

    at: int
    to: int


def pointers_into(blocks: Iterator[tuple[int, bytes]], start: int, end: int) -> Iterator[Pointer]:
    """The pointers in blocks of memory to addresses from ``start`` to before ``end``.

    They are searched for by the upper bytes that these addresses have in common. The fewer that
    are, the longer it takes.
    """
    upper = upper_bytes(start, end)
    lower = 8 - len(upper)
    for address, data in blocks:
        place = data.find(upper, lower)
        while place >= 0:
            at = place - lower
            if at % 8 == 0:
                value = int.from_bytes(data[at : at + 8], "little")
                if start <= value < end:
                    yield Pointer(address + at, value)
            # On to the next place where a word's upper bytes can begin.
            place = data.find(upper, (at & -8) + 8 + lower)


def upper_bytes(start: int, end: int) -> bytes:
    """The upper bytes that all addresses from ``start`` to before ``end`` share, little-endian."""
    same = 8
    while start >> 64 - 8 * same != (end - 1) >> 64 - 8 * same:
        same -= 1
    return start.to_bytes(8, "big")[:same][::-1]


# From linux/falloc.h.
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


def dig_holes(file: Path) -> None:
    """Free the disk's blocks under pages of zeros, where the file system can.

    A kernel that clears freed memory (init_on_free) writes zeros to all of it while it boots. What
    is a hole already, as most of a derived machine is, is not read.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    zeros = bytes(_BLOCK)
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        for pages in _data_in(fd):
            at, end = pages.start * PAGE, pages.stop * PAGE
            while data := os.pread(fd, min(_BLOCK, end - at), at):
                for run in _zeros(data, zeros):
                    if libc.fallocate(
                        fd, _PUNCH_HOLE | _KEEP_SIZE, at + run.start * PAGE, len(run) * PAGE
                    ):
                        return  # it only costs space
                at += len(data)
    finally:
        os.close(fd)


def _zeros(data: bytes, zeros: bytes) -> Iterator[range]:
    """The runs of pages of zeros in a block."""
    if data == zeros[: len(data)]:
        yield range(len(data) // PAGE)
        return
    page = zeros[:PAGE]
    flags = bytes(data[at : at + PAGE] == page for at in range(0, len(data), PAGE))
    for run in re.finditer(b"\1+", flags):
        yield range(run.start(), run.end())
