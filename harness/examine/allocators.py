# SPDX-License-Identifier: GPL-2.0-only
"""Which memory the kernel's allocators have in use, by what they keep of it themselves.

Pure but for reading memory that it is handed, and for x86-64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from harness.examine import pointers, structures
from harness.examine.allocations import KMALLOC, PAGES, PERCPU, Allocation
from harness.examine.structures import Layout, Scene, SlabCache, SlabObject, Symbols, as_words
from harness.qemu.memory import PAGE, Memory, Pointer, pointers_into

_LARGEST_SLAB = 16 * PAGE  # bytes: more than any slab has (slub_max_order in mm/slub.c)
# kmalloc() has slab caches for up to so many bytes (KMALLOC_MAX_CACHE_SIZE in linux/slab.h), and
# takes pages for more.
_LARGEST_OBJECT = 2 * PAGE


@dataclass(frozen=True)
class Slab:
    """An object of a slab cache, in use or not.

    ``cache`` is the cache's virtual address; ``start`` and ``first`` are physical ones, of the
    object and of the pages that it is in. ``name`` is "" of a cache made since the freeze.
    ``wiped`` is as in ``SlabCache``; False where it is not known.
    """

    cache: int
    name: str
    wiped: bool
    size: int
    start: int
    first: int


@dataclass(frozen=True)
class _Sheaf:
    """A list of free objects: of which cache (a virtual address), how many, and where it has them.

    ``first`` is the physical address of the place of the first one.
    """

    cache: int
    count: int
    first: int


# How many words of a struct slab_sheaf are before its objects at most.
_SHEAF_HEAD = 7


class Allocators:
    """Asks the allocators of a machine that stands still."""

    def __init__(self, scene: Scene, skb_caches: Sequence[tuple[int, int]]) -> None:
        """``skb_caches`` are those of a ``Record``."""
        self._scene = scene
        self._memory = scene.memory
        self._layout = scene.layout
        # The slab objects that are known to be free or not, by where they begin.
        self._free: dict[int, bool] = {}
        self._notes: dict[int, bool] = {}
        for start, end in skb_caches:
            self._find_kept_skbs(start, end)

    def slab(self, at: int) -> Slab | None:
        """The slab object that a physical address is in; also in a cache made since the freeze."""
        layout, memory = self._layout, self._memory
        if layout.slab_word is None:
            return None
        block = structures.block_of(memory, layout, at)
        cache = block.words[layout.slab_word]
        about = self._cache(cache)
        if about is None:
            return None
        start = at - (at - block.start) % about.size
        return Slab(cache, about.name, about.wiped, about.size, start, block.start)

    def _cache(self, address: int) -> SlabCache | None:
        """The slab cache whose description is at a virtual address."""
        memory, layout = self._memory, self._layout
        known = layout.slabs.get(address)
        if known is not None:
            return known
        start = address - layout.direct
        if memory.offset(start) is None:
            return None
        own = structures.slab_object(memory, layout, start)
        if own is None or own.cache.name != "kmem_cache" or own.start != start:
            return None
        size = int.from_bytes(memory.read(start + layout.cache_size, 4), "little")
        return SlabCache("", size, wiped=False) if size else None

    def is_free(self, one: Slab) -> bool:
        """Whether a slab object is in a list of free ones (mm/slub.c), or in KASAN's quarantine.

        Such an object has a link to the next. Where that lies outside of what is used of an object
        it stays when the object is handed out, so that only the lists themselves tell.
        """
        if one.start not in self._free:
            poisoned = structures.is_poisoned(self._memory, self._layout, one.start)
            linked = not poisoned and self._next(one) is not None
            # A link that the kernel hides is nothing else by chance.
            certain = one.wiped and not self._layout.link_at
            free = poisoned or (linked and (certain or self._is_listed(one)))
            self._free[one.start] = free or (not one.wiped and one.start in self._in_sheaves)
        return self._free[one.start]

    def _next(self, one: Slab) -> int | None:
        """The next free object (a virtual address), 0 after the last; None where there is no link.

        Somewhere in a free object is the address of the next one in the same slab, or 0. Most
        kernels combine it with a random number of the cache's and with its own address, with its
        bytes in reverse (CONFIG_SLAB_FREELIST_HARDENED).
        """
        if self._layout.link_at:
            return self._plain_next(one)
        memory, layout = self._memory, self._layout
        cache = structures.slab_object(memory, layout, one.cache - layout.direct)
        if cache is None:
            return None
        about = as_words(memory.read(cache.start, cache.cache.size))
        randoms = {word for word in about if word >> 48}
        for number, word in enumerate(as_words(memory.read(one.start, one.size))):
            at = layout.direct + one.start + 8 * number
            swapped = int.from_bytes(at.to_bytes(8, "little"), "big")
            for random in randoms if word else ():
                after = word ^ random ^ swapped
                if after == 0 or self._is_in_slab(one, after):
                    return after
        return None

    def _plain_next(self, one: Slab) -> int | None:
        """The same where the kernel does not hide it."""
        at = one.cache - self._layout.direct + self._layout.link_at
        inside = int.from_bytes(self._memory.read(at, 4), "little")
        after = self._memory.word(one.start + inside)
        return after if not after or self._is_in_slab(one, after) else None

    def _is_in_slab(self, one: Slab, address: int) -> bool:
        """Whether an object begins at a virtual address, in the same slab as another."""
        inside = address - self._layout.direct - one.first
        return 0 <= inside < _LARGEST_SLAB and inside % one.size == 0

    def _is_listed(self, one: Slab) -> bool:
        """Whether one of the lists of a slab leads to an object.

        One begins in its struct page, one for each CPU in a struct kmem_cache_cpu, whose address
        is the first word of a struct kmem_cache.
        """
        memory, layout = self._memory, self._layout
        cpus = memory.word(one.cache - layout.direct)
        heads = [
            *structures.block_of(memory, layout, one.start).words,
            *(
                structures.word_at(memory, layout, (cpus + cpu) % (1 << 64))
                for cpu in layout.percpu
            ),
        ]
        for head in heads:
            address: int | None = head
            for _ in range(_LARGEST_SLAB // one.size):
                if not address or not self._is_in_slab(one, address):
                    break
                start = address - layout.direct
                if start == one.start:
                    return True
                address = self._next(replace(one, start=start))
        return False

    def is_note(self, pointer: Pointer) -> bool | None:
        """Whether a pointer is an allocator's own note of an object that is free.

        None where it is somebody else's, False where it is an old note. From 6.18 on a cache has
        lists of free objects in objects of their own: a struct slab_sheaf (mm/slub.c) has the
        cache that it is for, the number of the objects, and the objects.
        """
        if pointer.at in self._notes:
            return self._notes[pointer.at]
        holder = self.slab(pointer.at)
        sheaf = self._sheaf(holder) if holder is not None else None
        number = (pointer.at - sheaf.first) // 8 if sheaf is not None else -1
        if sheaf is None or number < 0:
            return None
        if number >= sheaf.count:
            return False  # whatever is there now
        freed = self.slab(pointer.to - self._layout.direct)
        return True if freed is not None and freed.cache == sheaf.cache else None

    def _sheaf(self, one: Slab) -> _Sheaf | None:
        """What an object lists, if it is a struct slab_sheaf.

        Behind its head there is nothing but addresses of memory, and zeros.
        """
        if not one.name.startswith("kmalloc"):
            return None
        words = as_words(self._memory.read(one.start, one.size))
        for number, cache in enumerate(words[:-1][:_SHEAF_HEAD]):
            if self._cache(cache) is None:
                continue
            count, places = words[number + 1] & 0xFFFFFFFF, words[number + 2 :]
            if count <= len(places) and all(map(self._is_place, places)):
                return _Sheaf(cache, count, one.start + 8 * (number + 2))
        return None

    def _is_place(self, word: int) -> bool:
        """Whether it may be the address of an object, or is none."""
        at = word - self._layout.direct
        return not word or (word % 8 == 0 and self._memory.offset(at) is not None)

    @cached_property
    def _in_sheaves(self) -> frozenset[int]:
        """Where objects that stay as they are when they are freed begin, if a sheaf has them."""
        kept = {cache for cache, about in self._layout.slabs.items() if not about.wiped}
        near = {cache >> 16 for cache in kept}  # looked for at once, see pointers.pointing_to()
        found: set[int] = set()
        for block in self._scene.everything():
            for number in near:
                for pointer in pointers_into(iter([block]), number << 16, number + 1 << 16):
                    holder = self.slab(pointer.at) if pointer.to in kept else None
                    sheaf = self._sheaf(holder) if holder is not None else None
                    if sheaf is not None:
                        data = self._memory.read(sheaf.first, 8 * sheaf.count)
                        found.update(one - self._layout.direct for one in as_words(data))
        return frozenset(found)

    def given_back(self, objects: set[SlabObject]) -> set[SlabObject]:
        """Those of the objects that the allocator has back, whatever still points to them.

        Such as stay as they are when they are freed are looked for in its lists of free ones; of
        others the content says that they are in use. kfree_rcu() puts an object into one of the
        lists that ``is_note`` is about, which is not looked at before it is full. So it may stay
        as it was for ever.
        """
        back = set()
        for each in objects:
            own = None if each.cache.wiped else self.slab(each.start)
            if own is not None and self.is_free(own):
                back.add(each)
        noted = {
            one
            for one, pointer in pointers.pointing_to(self._scene, objects)
            if pointer.to == self._layout.direct + one.start and self.is_note(pointer)
        }
        return back | noted

    def in_use(self, one: Allocation) -> bool:
        """Whether an allocation is still in use, as far as the allocator itself says."""
        if one.event == PERCPU:
            return True  # there is an event where one is freed
        at = one.address - self._layout.direct
        if self._memory.offset(at) is None:
            return False
        slab = self.slab(at)
        if one.event != PAGES and slab is not None:
            return slab.start == at and not self.is_free(slab)
        # What the allocator of slabs takes, or a process, is its own. An object of a slab is gone
        # where its pages are somebody else's.
        return (
            slab is None
            and not structures.is_poisoned(self._memory, self._layout, at)
            and (one.event == PAGES or (one.event in KMALLOC and one.size > _LARGEST_OBJECT))
            and at % PAGE == 0
            and self.has_users(at)
            and not structures.of_a_process(self._memory, self._layout, at)
        )

    def block(self, one: Allocation) -> int:
        """The physical address of the block of pages that an allocation is or was in."""
        at = one.address - self._layout.direct
        if one.event == PERCPU or self._memory.offset(at) is None:
            return -1
        return structures.block_of(self._memory, self._layout, at).start

    def has_users(self, at: int) -> bool:
        """Whether somebody uses the block of pages that an address in memory is in.

        There is a count in struct page, ``_refcount``. On new kernels, as 7.3, it stays 0 while
        kmalloc() has a block (alloc_frozen_pages_noprof() in mm/page_alloc.c). Such a block is a
        compound one: each later page has the address of the first, until it is freed
        (free_tail_page_prepare()).
        """
        block = structures.block_of(self._memory, self._layout, at)
        if block.words[6] >> 32:
            return True
        second = structures.block_of(self._memory, self._layout, block.start + PAGE)
        return second.start == block.start

    def was_split(self, at: int) -> bool:
        """Whether pages that were allocated together were taken apart (split_page()).

        Each of them has a count of its users then. Before, only the first one has.
        """
        second = structures.block_of(self._memory, self._layout, at + PAGE)
        return second.start == at + PAGE and second.words[6] >> 32 != 0

    def _find_kept_skbs(self, start: int, end: int) -> None:
        """A CPU keeps some packets' heads that are free, rather than give them back.

        ``napi_alloc_cache`` in net/core/skbuff.c ends with their number and an array of their
        addresses, of which those above that number are old.
        """
        about = as_words(self._memory.read(start, end - start))
        first = next((number for number, word in enumerate(about) if self._is_skb(word)), 0)
        count = about[first - 1] & 0xFFFFFFFF if first else 0
        for number, word in enumerate(about[first:] if first else ()):
            self._notes[start + 8 * (first + number)] = number < count
            if number < count:
                self._free[word - self._layout.direct] = True

    def _is_skb(self, word: int) -> bool:
        slab = self.slab(word - self._layout.direct) if word > self._layout.direct else None
        return slab is not None and slab.name.startswith("skbuff_")


# mm/percpu.c: in the map of a chunk each bit is of so many bytes (PCPU_MIN_ALLOC_SIZE).
_PERCPU_UNIT = 4
_FIRST_CHUNK = 28 << 10  # bytes that the first chunk has at least (PERCPU_DYNAMIC_RESERVE)
_CHUNK = 256  # bytes of a struct pcpu_chunk that have its addresses
_CHUNK_LISTS = 256  # more than there are


class PerCpu:
    """Which per-CPU memory is handed out, by what its allocator keeps of it (mm/percpu.c).

    It comes in chunks. Each has a part for each CPU, which are as far from one another as the CPUs'
    variables are. A struct pcpu_chunk has the address of the first part, and behind that the one of
    a map, in which what is handed out is set.
    """

    def __init__(self, memory: Memory, layout: Layout, symbols: Symbols) -> None:
        self._memory = memory
        self._layout = layout
        self._symbols = symbols
        self._first = self._variable("pcpu_base_addr")
        self._size = self._variable("pcpu_unit_size") & 0xFFFFFFFF
        own = symbols.address("__per_cpu_start") or 0
        self._parts = [(own + offset - self._first) % (1 << 64) for offset in layout.percpu]

    def _variable(self, name: str) -> int:
        address = self._symbols.address(name)
        return 0 if address is None else structures.word_at(self._memory, self._layout, address)

    def is_freed(self, at: int) -> bool:
        """Whether an address in memory is in per-CPU memory that nobody has.

        Such memory is cleared when it is handed out again, and stays as it was until then.
        """
        inside = [
            (offset, bits)
            for base, bits in self._chunks
            for part in self._parts
            if (offset := self._offset(base + part, at)) is not None
        ]
        if not inside:
            return False
        # What is reserved for modules' variables is a small chunk in front of the first one.
        offset, bits = min(inside)
        number = offset // _PERCPU_UNIT
        word = structures.word_at(self._memory, self._layout, bits + number // 64 * 8)
        return not word >> number % 64 & 1

    def _offset(self, start: int, at: int) -> int | None:
        """How far into a CPU's part of a chunk an address in memory is; None where it is not."""
        if start < self._layout.vmalloc:
            offset = at - (start - self._layout.direct)
            return offset if 0 <= offset < _FIRST_CHUNK else None
        for page in range(0, self._size, PAGE):
            if structures.physical(self._memory, self._layout, start + page) == at & -PAGE:
                return page + at % PAGE
        return None

    @cached_property
    def _chunks(self) -> list[tuple[int, int]]:
        """The address of each chunk's first part, and that of its map."""
        found = []
        for chunk in self._descriptions():
            where = structures.physical(self._memory, self._layout, chunk)
            words = as_words(self._memory.read(where, _CHUNK)) if where is not None else ()
            # A chunk is mapped at the end of what vmalloc() maps, its map nearer to the beginning.
            # The first one is where the CPUs' variables are. It begins with a list.
            places = [
                (word, bits) for word, bits in itertools.pairwise(words[2:])
                if word % PAGE == 0 and (
                    self._layout.vmalloc <= word < self._layout.vmemmap
                    or 0 <= word - self._first < self._size
                )
            ]  # fmt: skip
            found += [max(places)] if places else []
        return found

    def _descriptions(self) -> Iterator[int]:
        """The address of each struct pcpu_chunk. They are in lists by how much of each is free."""
        reserved = self._variable("pcpu_reserved_chunk")
        if reserved:
            yield reserved
        lists = self._variable("pcpu_chunk_lists")
        for head in range(lists, lists + 16 * _CHUNK_LISTS, 16):
            first = structures.word_at(self._memory, self._layout, head)
            if not first or structures.word_at(self._memory, self._layout, first + 8) != head:
                break
            yield from structures.list_nodes(self._memory, self._layout, head)
