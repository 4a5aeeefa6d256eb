# SPDX-License-Identifier: GPL-2.0-only
"""What modules that are gone have allocated, by the record of allocations.

An allocation is a module's if an address of the module is on its call stack. The events are read
as kernel/trace/ring_buffer.c writes them. Pure but for reading memory that it is handed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.examine import record
from harness.examine.record import Fields, Record
from harness.examine.structures import Layout
from harness.qemu.memory import PAGE, Memory, upper_bytes

# The events of which more than the fields has to be known.
PAGES, PERCPU, _PERCPU_FREED = "mm_page_alloc", "percpu_alloc_percpu", "percpu_free_percpu"
_STACK = "kernel_stack"
KMALLOC = ("kmalloc", "kmalloc_node")
OBJECT = "kmem_cache_alloc"

Gone = Callable[[int], bool]  # whether code at an address was a module's that is gone


@dataclass(eq=False)
class Allocation:
    """Something that was allocated: by which event, where, how large, and by whom.

    ``address`` is a virtual one, or a per-CPU variable's; of pages it is that in the kernel's map
    of all memory. ``size`` is in bytes. ``order`` counts all events of the record. ``stack`` are
    return addresses, innermost first.
    """

    event: str
    address: int
    size: int
    order: int
    stack: tuple[int, ...] = ()


# Bits of an event's common_flags (include/linux/trace_events.h): it happened in an interrupt.
_INTERRUPT = 0x08 | 0x10
# How an event begins: 5 bits of type, 27 of time. Types from 1 to 28 are sizes in words of four
# bytes.
_BY_ITSELF, _PADDING, _EXTEND, _STAMP = 0, 29, 30, 31


class Reader:
    """Reads the record from the memory of a machine that stands still."""

    def __init__(self, memory: Memory, layout: Layout, about: Record) -> None:
        self._layout = layout
        self._about = about
        self._pages = [_used(memory, pages) for pages in about.pages]  # of each CPU

    @property
    def full(self) -> bool:
        """Whether a ring was filled to its last page, so that events may be missing."""
        return any(
            len(used) >= len(pages)
            for used, pages in zip(self._pages, self._about.pages, strict=True)
        )

    @property
    def bytes_used(self) -> int:
        return sum(len(page) for used in self._pages for page in used)

    @property
    def last_order(self) -> int:
        """The ``order`` of the last event; -1 where there is none."""
        last = [order for used in self._pages if used for order, _ in _events(used[-1])]
        return max(last, default=-1)

    def continues(self, earlier: Reader) -> bool:
        """Whether all that an ``earlier`` state of the same record had is still in it."""
        return all(
            len(now) >= len(before)
            and all(
                page[record.DATA :].startswith(old[record.DATA :])
                for page, old in zip(now, before, strict=False)
            )
            for now, before in zip(self._pages, earlier._pages, strict=True)
        )

    def allocations(self, start: int, end: int, gone: Gone) -> list[Allocation]:
        """What code that is ``gone``, all of it between two addresses, allocated.

        Of two allocations at one address the later one counts; in the order of their making.
        """
        needle = upper_bytes(start, end)
        found: dict[int, Allocation] = {}
        for pages in self._pages:
            wanted = {number for number, page in enumerate(pages) if needle in page}
            # The event whose stack is first in a page is the last one of the page before.
            wanted |= {number - 1 for number in wanted if number}
            for one in self._with_stacks(pages, sorted(wanted)):
                known = found.get(one.address)
                if any(map(gone, one.stack)) and (known is None or known.order < one.order):
                    found[one.address] = one
        return sorted(found.values(), key=lambda one: one.order)

    def _with_stacks(self, pages: Sequence[bytes], wanted: Sequence[int]) -> Iterator[Allocation]:
        """The allocations in those pages of a CPU's that are ``wanted``, by their numbers.

        A stack belongs to the last event of the same task, in or out of an interrupt.
        """
        waiting: dict[tuple[int, int], Allocation] = {}
        last = -1
        for number in wanted:
            if number > last + 1:
                waiting.clear()  # the pages between are left out
            last = number
            for order, event in _events(pages[number]):
                known = self._about.events.get(_value(event, (0, 2)))
                if known is None:
                    continue
                name, fields = known
                context = _value(event, (4, 4)), event[2] & _INTERRUPT
                if name == _STACK:
                    one = waiting.pop(context, None)
                    if one is not None:
                        one.stack = _stack(event, fields)
                        yield one
                elif name != _PERCPU_FREED:
                    allocation = self._allocation(name, fields, event, order)
                    if allocation is not None:
                        waiting[context] = allocation

    def _allocation(self, name: str, fields: Fields, event: bytes, order: int) -> Allocation | None:
        """What an event tells of; None where there was no memory left."""
        if name == PAGES:
            number = _value(event, fields["pfn"])
            if number >= 1 << 52:
                return None
            size = PAGE << _value(event, fields["order"])
            return Allocation(name, self._layout.direct + number * PAGE, size, order)
        address = _value(event, fields["ptr"])
        if not address:
            return None
        place = fields.get("bytes_req") or fields["size"]
        return Allocation(name, address, _value(event, place), order)

    def has_ended(self, one: Allocation, block: int) -> bool:
        """Whether the record has an end of it: the same memory was handed out again later.

        ``block`` is the physical address of the block of pages that is there now: the pages of an
        object are handed out again after all objects in them were freed. Of per-CPU memory the
        record has that it was freed. The lists of free objects say it of all else.
        """
        pages, objects, percpu = self._latest
        # The pages of an object were handed out before it, and those of a large one as well.
        ends = [(percpu, one.address)] if one.event == PERCPU else [(pages, block)]
        if one.event != PAGES:
            ends.append((objects, one.address))
        return any(known.get(key, -1) > one.order for known, key in ends)

    def was_handed_out(self, page: int, order: int) -> bool:
        """Whether the record has that a page, by its physical address, was handed out later."""
        pages, _, _ = self._latest
        return pages.get(page, -1) > order

    @cached_property
    def _latest(self) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        """When pages were last handed out, by their physical addresses, and objects and per-CPU
        memory, by theirs; and when per-CPU memory was last freed.

        All are read at once: a kernel may keep hundreds of free objects that are looked for here.
        """
        pages: dict[int, int] = {}
        objects: dict[int, int] = {}
        percpu: dict[int, int] = {}
        for used in self._pages:
            for page in used:
                for order, event in _events(page):
                    name, fields = self._about.events.get(_value(event, (0, 2)), (_STACK, {}))
                    if name == _STACK:
                        continue
                    if name == PAGES:
                        known, key = pages, _value(event, fields["pfn"]) * PAGE
                    else:
                        known = percpu if name == _PERCPU_FREED else objects
                        key = _value(event, fields["ptr"])
                    known[key] = max(order, known.get(key, -1))
        return pages, objects, percpu


def _used(memory: Memory, pages: Sequence[int]) -> list[bytes]:
    """The pages of a ring that have events, without what is behind those."""
    found = []
    for page in pages:
        data = memory.read(page, PAGE)
        used = record.committed(data)
        if not used:
            break
        found.append(data[: record.DATA + used])
    return found


def _value(event: bytes, place: tuple[int, int]) -> int:
    at, size = place
    return int.from_bytes(event[at : at + size], "little")


def _stack(event: bytes, fields: Fields) -> tuple[int, ...]:
    at = fields["caller"][0]
    addresses = struct.unpack_from(f"<{(len(event) - at) // 8}Q", event, at)
    return tuple(address for address in addresses if address not in (0, (1 << 64) - 1))


def _events(page: bytes) -> Iterator[tuple[int, bytes]]:
    """The events in a page, each with its time."""
    time = _value(page, (0, 8))
    at = record.DATA
    while at + 4 <= len(page):
        head = _value(page, (at, 4))
        kind, step = head & 31, head >> 5
        extra = _value(page, (at + 4, 4))
        if kind == _PADDING:
            if not step:  # to the end of the page
                return
            time += step
            at += 4 + extra
        elif kind == _EXTEND:
            time += step + (extra << 27)
            at += 8
        elif kind == _STAMP:
            time = step + (extra << 27)
            at += 8
        else:
            time += step
            # The size of a long event is in a word of its own, which it includes.
            start, size = (at + 8, extra - 4) if kind == _BY_ITSELF else (at + 4, 4 * kind)
            if size < 8:
                return
            yield time, page[start : start + size]
            at = start + size
