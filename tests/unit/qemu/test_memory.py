# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/memory.py: which pages are read, and where what they hold is."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.qemu import memory
from harness.qemu.memory import PAGE, FrozenMemory, Memory, Pointer, RunningMemory

# A page that is the process's own, one that is so and swapped out, one of the file's, one that is
# not there (pagemap.rst: bits 63, 62 and 61).
OWN, SWAPPED, FILE, NONE = 1 << 63, 1 << 62, 1 << 63 | 1 << 61, 0


def filled(file: Path, size: int, *words: tuple[int, int]) -> Path:
    """A file of zeros, without blocks on the disk, but for these words (address, value)."""
    with file.open("wb") as out:
        out.truncate(size)
        for at, value in words:
            out.seek(at)
            out.write(struct.pack("<Q", value))
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "memory"


def test_the_pages_of_a_process_are_told_from_those_of_the_file() -> None:
    """What the guest wrote was copied first; what it did not is the template's."""
    entries = [FILE, OWN | 77, SWAPPED, OWN, NONE, FILE, OWN]
    runs = memory.private_pages(struct.pack("<7Q", *entries))
    assert list(runs) == [range(1, 4), range(6, 7)]


def test_the_mapping_is_found_by_its_file_and_its_size(file: Path) -> None:
    """QEMU has more than one mapping, and a file may have been removed meanwhile."""
    maps = (
        f"7f0000000000-7f0000001000 r--p 00000000 fe:00 12 {file}\n"
        f"7f1000000000-7f1000004000 rw-p 00000000 fe:00 12 {file} (deleted)\n"
        "7f2000000000-7f2000004000 rw-p 00000000 00:00 0 \n"
    )
    assert memory.mapping(maps, file, 0x4000) == 0x7F1000000000
    assert memory.mapping(maps, file, 0x8000) is None
    assert memory.mapping(maps, file.with_name("other"), 0x4000) is None


@pytest.fixture
def mapped(file: Path) -> Iterator[mmap.mmap]:
    """Four pages of a file, mapped privately into this process as QEMU maps a template."""
    filled(file, 4 * PAGE, (0, 1), (PAGE, 2), (2 * PAGE, 3))
    with file.open("r+b") as handle:
        private = mmap.mmap(
            handle.fileno(), 4 * PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
        )
        yield private
        private.close()


def test_only_what_was_written_since_has_changed(file: Path, mapped: mmap.mmap) -> None:
    """A page that is only read stays the file's."""
    assert mapped[:8] == struct.pack("<Q", 1)
    mapped[PAGE : PAGE + 8] = struct.pack("<Q", 7)
    mapped[3 * PAGE : 3 * PAGE + 8] = struct.pack("<Q", 8)
    with RunningMemory(os.getpid(), file) as running:
        assert list(running.written()) == [range(1, 2), range(3, 4)]
        assert [running.changed(page * PAGE) for page in range(4)] == [False, True, False, True]
        assert not running.changed(1 << 40)
        assert [running.word(page * PAGE) for page in range(4)] == [1, 7, 3, 8]


def test_what_has_changed_goes_on_in_another_process(file: Path, mapped: mmap.mmap) -> None:
    """Which may have changed pages by itself before: those are the frozen machine's again."""
    saved = file.with_name("saved")
    mapped[PAGE : PAGE + 8] = struct.pack("<Q", 7)
    mapped[3 * PAGE : 3 * PAGE + 8] = struct.pack("<Q", 8)
    with RunningMemory(os.getpid(), file) as running:
        running.save_written(saved)
        mapped[: 4 * PAGE] = b"\xff" * (4 * PAGE)
        memory.restore_written(saved, os.getpid(), file)
        assert [running.word(page * PAGE) for page in range(4)] == [1, 7, 3, 8]
    assert file.read_bytes()[PAGE : PAGE + 8] == struct.pack("<Q", 2)


def test_a_process_without_the_mapping_is_said(file: Path) -> None:
    """As where the file was replaced: a host's fault, not a module's."""
    filled(file, PAGE)
    with pytest.raises(HostError, match="does not have its memory mapped"):
        RunningMemory(os.getpid(), file)


@pytest.mark.parametrize(
    ("mib", "address", "offset"),
    [
        (512, 0, 0),
        (512, (512 << 20) - 8, (512 << 20) - 8),
        (512, 512 << 20, None),
        (2815, (2815 << 20) - 8, (2815 << 20) - 8),  # all of it is below the gap
        (2816, (2048 << 20) - 8, (2048 << 20) - 8),
        (2816, 2048 << 20, None),  # PCI's
        (2816, 4 << 30, 2048 << 20),
        (2816, (4 << 30) + (768 << 20) - 8, (2816 << 20) - 8),
        (2816, (4 << 30) + (768 << 20), None),
    ],
)
def test_where_memory_is_split(file: Path, mib: int, address: int, offset: int | None) -> None:
    """QEMU puts what does not fit below the devices' addresses above 4 GiB."""
    with FrozenMemory(filled(file, mib << 20)) as large:
        assert large.offset(address) == offset
        if offset is not None:
            assert large.address(offset) == address


def test_a_range_of_pages_across_the_gap_is_read_in_two(file: Path) -> None:
    """Each block begins at its own address."""
    below, above = (2048 << 20) - PAGE, 2048 << 20
    with FrozenMemory(filled(file, 2816 << 20, (below, 5), (above, 6))) as large:
        blocks = list(large.blocks(iter([range(below // PAGE, above // PAGE + 1)])))
        assert [(at, data[:1]) for at, data in blocks] == [(below, b"\5"), (4 << 30, b"\6")]
        assert large.word(4 << 30) == 6


def test_holes_are_not_read(file: Path) -> None:
    """A frozen machine's file has none of the pages that hold only zeros."""
    where = 40 * PAGE
    with FrozenMemory(filled(file, 100 * PAGE, (where, 9))) as frozen:
        assert where // PAGE in {page for run in frozen.used() for page in run}
        assert sum(len(run) for run in frozen.used()) < 100


@pytest.mark.parametrize("words", [[], [0], [1, 2, 5], [1022, 1023, 1024, 2047], [2047], [1023]])
def test_pages_of_zeros_are_left_out(file: Path, words: list[int]) -> None:
    """Whether they are holes or not, and where the parts begin in which memory is read."""
    with FrozenMemory(filled(file, 2048 * PAGE, *((at * PAGE + 8, 1) for at in words))) as found:
        assert [page for run in found.filled() for page in run] == words


def test_zeros_become_holes_and_nothing_else_changes(file: Path) -> None:
    """A kernel that clears freed memory leaves them all over."""
    data = bytearray(300 * PAGE)
    for page in (0, 7, 8, 299):
        data[page * PAGE + 100] = page + 1 & 0xFF
    file.write_bytes(data)
    memory.dig_holes(file)
    assert file.read_bytes() == bytes(data)
    with FrozenMemory(file) as frozen:
        kept = {page for run in frozen.used() for page in run}
    assert {0, 7, 8, 299} <= kept
    assert file.stat().st_blocks * 512 < len(data)


def test_what_is_a_hole_already_is_not_read_again(file: Path, reads: list[int]) -> None:
    """A copy of a frozen machine has them where that has."""
    filled(file, 4000 * PAGE, (2000 * PAGE, 9))
    reads.clear()
    memory.dig_holes(file)
    assert PAGE <= sum(reads) < 100 * PAGE
    with FrozenMemory(file) as frozen:
        assert [page for run in frozen.filled() for page in run] == [2000]


def in_blocks(*words: int) -> Iterator[tuple[int, bytes]]:
    yield 0x1000, struct.pack(f"<{len(words)}Q", *words)


def test_pointers_into_a_range_are_found() -> None:
    """Its first byte belongs to it, its end does not."""
    start, end = 0xFFFFFFFFC0246000, 0xFFFFFFFFC024B000
    words = (start - 1, start, 7, end - 1, end, (1 << 64) - 1)
    assert list(memory.pointers_into(in_blocks(*words), start, end)) == [
        Pointer(0x1008, start), Pointer(0x1018, end - 1),
    ]  # fmt: skip


def test_what_is_on_no_boundary_of_eight_is_no_pointer() -> None:
    """The same bytes, three further."""
    value = struct.pack("<Q", 0xFFFFFFFFC0246000)
    block = (0x1000, bytes(3) + value + bytes(5))
    assert list(memory.pointers_into(iter([block]), 0xFFFFFFFFC0000000, 0xFFFFFFFFC1000000)) == []


def test_a_range_whose_addresses_have_little_in_common_is_looked_for_as_well() -> None:
    """The fewer bytes are the same, the more are compared one by one."""
    start, end = 0xFFFFFFFFBFF00000, 0xFFFFFFFFC0100000
    words = (start, 0xFFFFFFFFC0000000, 0xFFFFFFFF81000000, end)
    found = memory.pointers_into(in_blocks(*words), start, end)
    assert [pointer.to for pointer in found] == [start, 0xFFFFFFFFC0000000]


def test_there_is_nothing_where_there_is_no_memory(file: Path) -> None:
    """A table that is damaged may lead anywhere."""
    with FrozenMemory(filled(file, 2 * PAGE, (2 * PAGE - 8, 3))) as small:
        assert small.read(2 * PAGE, 8) == b""
        assert small.word(1 << 52) == 0
        assert small.word(-8) == 0
        assert small.read(2 * PAGE - 8, 64) == struct.pack("<Q", 3)
        assert isinstance(small, Memory)
