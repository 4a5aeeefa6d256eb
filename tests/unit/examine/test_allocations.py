# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/allocations.py: what a module allocated, from a ring buffer's pages."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.examine import allocations as module
from harness.examine import record
from harness.examine.allocations import Allocation, Reader
from harness.examine.record import Record
from harness.examine.structures import Layout
from harness.qemu.memory import PAGE, FrozenMemory

DIRECT = 0xFFFF888000000000
MODULE = 0xFFFFFFFFC0001000  # one page of a module that is gone
KERNEL = 0xFFFFFFFF81000000
KMALLOC, PAGES, STACK, FREED, PERCPU = 11, 12, 4, 13, 14

# As a kernel prints them, without their last line.
FORMATS = """\
name: kmalloc
ID: 11
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:const void * ptr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:size_t bytes_req;\toffset:16;\tsize:8;\tsigned:0;
name: mm_page_alloc
ID: 12
format:
\tfield:unsigned long pfn;\toffset:8;\tsize:8;\tsigned:0;
\tfield:unsigned int order;\toffset:16;\tsize:4;\tsigned:0;
name: percpu_free_percpu
ID: 13
format:
\tfield:void * ptr;\toffset:8;\tsize:8;\tsigned:0;
name: percpu_alloc_percpu
ID: 14
format:
\tfield:size_t size;\toffset:8;\tsize:8;\tsigned:0;
\tfield:void * ptr;\toffset:16;\tsize:8;\tsigned:0;
name: kernel_stack
ID: 4
format:
\tfield:int size;\toffset:8;\tsize:4;\tsigned:1;
\tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;
"""


def head(kind: int, flags: int = 0, pid: int = 100) -> bytes:
    return struct.pack("<HBBi", kind, flags, 0, pid)


def event(data: bytes, delta: int = 1) -> bytes:
    """An event of the ring buffer's: its size is in its first word if it is small."""
    data += bytes(-len(data) % 4)
    if len(data) <= 112:
        return struct.pack("<I", delta << 5 | len(data) // 4) + data
    return struct.pack("<II", delta << 5, len(data) + 4) + data


def kmalloc(address: int, size: int, **about: int) -> bytes:
    return event(head(KMALLOC, **about) + struct.pack("<QQ", address, size))


def pages(number: int, order: int) -> bytes:
    return event(head(PAGES) + struct.pack("<QI", number, order))


def stack(*addresses: int, **about: int) -> bytes:
    data = struct.pack("<i4x", len(addresses)) + struct.pack(f"<{len(addresses)}Q", *addresses)
    return event(head(STACK, **about) + data)


def page(*events: bytes, time: int = 0) -> bytes:
    data = b"".join(events)
    return (struct.pack("<QQ", time, len(data)) + data).ljust(PAGE, b"\0")


def reader(tmp_path: Path, *cpus: Sequence[bytes], free: int = 1) -> Reader:
    """A reader of rings with these pages, and some more of each that were not used."""
    file = tmp_path / "memory"
    places: list[tuple[int, ...]] = []
    content = b""
    for used in cpus:
        count = len(used) + free
        places.append(tuple(len(content) + at * PAGE for at in range(count)))
        content += b"".join(used) + bytes(free * PAGE)
    file.write_bytes(content)
    layout = Layout(0, DIRECT, 0xFFFFEA0000000000, 0xFFFFC90000000000, (), {}, None, ())
    return Reader(FrozenMemory(file), layout, Record(tuple(places), record.formats(FORMATS)))


def allocations(read: Reader) -> list[Allocation]:
    """What the module allocated."""
    return read.allocations(MODULE, MODULE + PAGE, lambda one: MODULE <= one < MODULE + PAGE)


def found(read: Reader) -> list[tuple[int, int]]:
    """The addresses and sizes of that."""
    return [(one.address, one.size) for one in allocations(read)]


OURS, THEIRS = (KERNEL, MODULE + 0x10, KERNEL + 8), (KERNEL, KERNEL + 8)


def test_what_has_the_module_on_its_stack_is_the_modules(tmp_path: Path) -> None:
    """The stack is in the event after it."""
    used = page(
        kmalloc(DIRECT, 32), stack(*THEIRS), kmalloc(DIRECT + 64, 40), stack(*OURS), pages(5, 1),
        stack(*OURS),
    )  # fmt: skip
    read = reader(tmp_path, [used])
    assert found(read) == [(DIRECT + 64, 40), (DIRECT + 5 * PAGE, 2 * PAGE)]
    assert not read.full


def test_an_interrupt_between_an_event_and_its_stack_has_its_own(tmp_path: Path) -> None:
    """Its flags, or its process, tell whose a stack is."""
    used = page(
        kmalloc(DIRECT, 32), kmalloc(DIRECT + 64, 40, flags=8), stack(*THEIRS, flags=8),
        kmalloc(DIRECT + 128, 48, pid=7), stack(*THEIRS, pid=7), stack(*OURS),
    )  # fmt: skip
    assert found(reader(tmp_path, [used])) == [(DIRECT, 32)]


def test_a_stack_may_be_deep_and_in_the_next_page(tmp_path: Path) -> None:
    """A large event has its size in a word of its own."""
    deep = (*[KERNEL] * 40, *OURS)
    used = [page(kmalloc(DIRECT, 1), stack(*THEIRS)), page(kmalloc(DIRECT, 32)), page(stack(*deep))]
    assert found(reader(tmp_path, used)) == [(DIRECT, 32)]


def test_what_was_discarded_and_longer_times_are_skipped(tmp_path: Path) -> None:
    """Padding with a size, an extended time, padding to the end."""
    discarded = struct.pack("<II", 1 << 5 | 29, 12) + bytes(8)
    later = struct.pack("<II", 3 << 5 | 30, 1)
    used = page(discarded, kmalloc(DIRECT, 32), later, stack(*OURS), struct.pack("<I", 29))
    read = reader(tmp_path, [used])
    assert found(read) == [(DIRECT, 32)]


def test_what_was_handed_out_again_later_is_somebody_elses(tmp_path: Path) -> None:
    """On whatever CPU; the clock of the record orders them."""
    ours = page(kmalloc(DIRECT, 32), stack(*OURS), kmalloc(DIRECT + 64, 32), stack(*OURS), time=50)
    early, late = (
        page(kmalloc(DIRECT, 16), stack(*THEIRS), time=10),
        page(kmalloc(DIRECT + 64, 16), stack(*THEIRS), time=90),
    )
    read = reader(tmp_path, [ours], [early, late])
    first, second = allocations(read)
    assert not read.has_ended(first, 0)
    assert read.has_ended(second, 0)


def test_pages_that_were_handed_out_again_have_no_object_of_before(tmp_path: Path) -> None:
    """They were given back after all objects in them; those that came before are the object's."""
    around = pages(7, 3), kmalloc(DIRECT + 9 * PAGE, 104), stack(*OURS), pages(5, 0), pages(9, 0)
    (one,) = allocations(reader(tmp_path, [page(*around)]))
    for block, ended in ((7, False), (9, True), (5, True), (11, False)):
        assert reader(tmp_path, [page(*around)]).has_ended(one, block * PAGE) is ended


def test_pages_end_where_they_are_handed_out_again(tmp_path: Path) -> None:
    """And not where an object of them is, as nobody else can have one there."""
    read = reader(tmp_path, [page(pages(5, 0), stack(*OURS), kmalloc(DIRECT + 5 * PAGE, 9000))])
    assert not read.has_ended(allocations(read)[0], 5 * PAGE)
    read = reader(tmp_path, [page(pages(5, 0), stack(*OURS), pages(5, 0))])
    assert read.has_ended(allocations(read)[0], 5 * PAGE)


def test_the_record_is_read_once_for_all_that_may_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be hundreds: new kernels keep objects that are free in lists of their own."""
    ours = (part for at in range(0, 640, 64) for part in (kmalloc(DIRECT + at, 8), stack(*OURS)))
    read = reader(tmp_path, [page(*ours, kmalloc(DIRECT + 64, 16), stack(*THEIRS))])
    left = allocations(read)
    times: list[bytes] = []
    real = module._events

    def events(page: bytes) -> Iterator[tuple[int, bytes]]:
        times.append(page)
        return real(page)

    monkeypatch.setattr(module, "_events", events)
    assert [read.has_ended(one, 0) for one in left] == [one.address == DIRECT + 64 for one in left]
    assert len(times) == 1


def test_per_cpu_memory_has_an_event_for_its_end(tmp_path: Path) -> None:
    """Its allocator keeps no list of what is free. Anybody may free it, as RCU does."""

    def taken(address: int) -> bytes:
        return event(head(PERCPU) + struct.pack("<QQ", 48, address))

    first = page(taken(DIRECT), stack(*OURS), taken(DIRECT + 64), stack(*OURS))
    end = event(head(FREED, pid=7) + struct.pack("<Q", DIRECT))
    others = page(end, stack(*THEIRS, pid=7), time=50)
    read = reader(tmp_path, [first, others])
    assert [read.has_ended(one, -1) for one in allocations(read)] == [True, False]


def test_a_ring_that_is_used_to_its_last_page_may_lack_something(tmp_path: Path) -> None:
    """No event is overwritten: what comes after is not recorded."""
    assert reader(tmp_path, [page(kmalloc(DIRECT, 1))], free=0).full


def test_the_last_event_of_all_cpus_says_how_far_the_record_is(tmp_path: Path) -> None:
    """Each counts."""
    one = event(head(KMALLOC), delta=3)
    cpus = [page(one, one), page(one, time=90)], [page(one, one, one, time=80)]
    assert reader(tmp_path, *cpus).last_order == 93
    assert reader(tmp_path).last_order == -1


def test_a_record_is_never_emptied_or_written_again(tmp_path: Path) -> None:
    """What was in it at an earlier time still is, and more comes behind it."""
    first, second = kmalloc(DIRECT, 1), kmalloc(DIRECT + 64, 2)
    for name in ("early", "late", "other", "empty"):
        (tmp_path / name).mkdir()
    early = reader(tmp_path / "early", [page(first)])
    assert reader(tmp_path / "late", [page(first, second), page(second)]).continues(early)
    assert not reader(tmp_path / "other", [page(second, first)]).continues(early)
    assert not reader(tmp_path / "empty", []).continues(early)
