# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's memory as its structures: page tables, slab objects, lists, tasks and their stacks.

Pure but for reading memory that it is handed: it asks no machine and starts nothing. All of it is
for x86-64 with ``nokaslr``, where a kernel is where it was linked to be. What differs from one
kernel to the next is in its ``Layout`` (layouts.py finds that out).
"""

from __future__ import annotations

import bisect
import json
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from harness.qemu.memory import PAGE, Memory, pointers_into

# Documentation/arch/x86/x86_64/mm.rst. The kernel's image is mapped from IMAGE on, so that a
# symbol's physical address is its distance from there. Modules follow it: from MODULES on, or
# 512 MiB later where the kernel could be placed at random (CONFIG_RANDOMIZE_BASE); what is behind
# MODULES_END are mappings at fixed addresses.
IMAGE = 0xFFFFFFFF80000000
MODULES = 0xFFFFFFFFA0000000
MODULES_END = 0xFFFFFFFFFF000000
DIRECT = 0xFFFF888000000000  # all of memory, where CONFIG_RANDOMIZE_MEMORY is off
VMEMMAP = 0xFFFFEA0000000000  # the array of struct page, likewise
VMALLOC = 0xFFFFC90000000000  # likewise
VMALLOC_BYTES = 1 << 45  # how much of it there is with tables of four levels, at least
FIVE_LEVELS = 0xFF11000000000000  # where all of memory is mapped with tables of five levels

# A table entry (Intel's manual, volume 3, 4.5): bit 0 is set where something is mapped, bit 7
# where that is a large page; bits 12 to 51 are its physical address.
_PRESENT, _LARGE, _FRAME = 1, 1 << 7, 0x000FFFFFFFFFF000

PAGE_STRUCT = 64  # bytes of a struct page (linux/mm_types.h), of which eight are a word

# Where a struct mutex (linux/mutex_types.h) has who waits for it, in bytes; and a struct
# rw_semaphore (linux/rwsem.h), from its owner on.
WAITERS = 16


@dataclass(frozen=True)
class SlabCache:
    """A cache of the kernel's allocator.

    ``size`` is an object's, in bytes. ``wiped`` is whether ``init_on_free`` clears an object that
    is freed; that is so but for caches with a constructor or with SLAB_TYPESAFE_BY_RCU
    (slab_want_init_on_free() in mm/slab.h).
    """

    name: str
    size: int
    wiped: bool


@dataclass(frozen=True)
class Layout:
    """Where a kernel keeps what, as found out once, when its template is frozen.

    ``tables`` is the physical address of its page table of the highest level. ``direct``,
    ``vmemmap`` and ``vmalloc`` are virtual addresses: of all memory, of the array of struct page,
    of what vmalloc() maps. ``percpu`` is what is added to a per-CPU variable's address, for each
    CPU. ``slabs`` has each slab cache by its virtual address, and ``slab_word`` which word of a
    struct page points to it (None: it could not be found out). ``cache_size`` is where a struct
    kmem_cache has the size of its objects, and ``link_at`` where it has how far into a free object
    the address of the next one is; 0 where the kernel hides that. ``loader`` are ranges of physical
    addresses: variables of the kernel's in which its module loader and others leave addresses.
    ``variables`` are such ranges too: those with all of the kernel's static variables.
    ``mapped`` are the pages of modules that the template has loaded. ``stack``, ``comm`` and
    ``tasks`` are where a task_struct has the address of its stack, its name and the list of all
    processes, and ``task_size`` is how large it is, in bytes; 0 where that could not be found out.
    ``first_task`` is the virtual address of the first one. ``shrinkers`` is that of the list of
    what the kernel calls to have caches freed. ``readers`` are per-CPU variables: for each lock by
    its name, how many have it as readers, in 32 bits, the sum of all CPUs. ``lists_waiters`` is
    whether a lock has a list of who waits for it. ``keeps_code`` is
    whether a page that had a module's code can stay mapped when the module is gone.
    ``lockdep`` is whether the kernel checks the use of locks, so that a task keeps addresses of
    where it took some, and a lock has another shape. ``kmemleak`` is whether it looks for lost
    objects itself. ``shadow`` is what is added to an eighth of an address to have that of the byte
    in which KASAN says whether there is something, and ``depot`` the physical address of the
    array with the places of the call stacks that it keeps; 0 where there is none.
    """

    tables: int
    direct: int
    vmemmap: int
    vmalloc: int
    percpu: tuple[int, ...]
    slabs: Mapping[int, SlabCache]
    slab_word: int | None
    loader: tuple[tuple[int, int], ...]
    variables: tuple[tuple[int, int], ...] = ()
    mapped: frozenset[int] = frozenset()
    stack: int = 0
    comm: int = 0
    task_size: int = 0
    tasks: int = 0
    first_task: int = 0
    cache_size: int = 0
    link_at: int = 0
    shrinkers: int = 0
    readers: Mapping[str, int] = field(default_factory=dict)
    lists_waiters: bool = False
    keeps_code: bool = True
    lockdep: bool = False
    kmemleak: bool = False
    shadow: int = 0
    depot: int = 0

    def to_json(self) -> str:
        slabs = {hex(at): asdict(slab) for at, slab in self.slabs.items()}
        return json.dumps(asdict(self) | {"slabs": slabs, "mapped": sorted(self.mapped)})

    @classmethod
    def from_json(cls, text: str) -> Layout:
        facts: dict[str, Any] = json.loads(text)
        facts["slabs"] = {int(at, 16): SlabCache(**slab) for at, slab in facts["slabs"].items()}
        facts["percpu"] = tuple(facts["percpu"])
        for name in ("loader", "variables"):
            facts[name] = tuple((start, end) for start, end in facts[name])
        return cls(**facts | {"mapped": frozenset(facts["mapped"])})


class Symbols:
    """The kernel's own symbols, by /proc/kallsyms; a module's are left out."""

    def __init__(self, kallsyms: str) -> None:
        found = []
        for line in kallsyms.splitlines():
            fields = line.split()
            if len(fields) == 3:
                found.append((int(fields[0], 16), fields[2]))
        found.sort()
        self._addresses = [address for address, _ in found]
        self._names = [name for _, name in found]
        self._by_name = {name: address for address, name in found}

    @property
    def names(self) -> Collection[str]:
        return self._by_name.keys()

    def address(self, name: str) -> int | None:
        return self._by_name.get(name)

    def size(self, name: str) -> int:
        """How far it is to the next symbol, in bytes; 0 where there is no such symbol."""
        start = self._by_name.get(name)
        if start is None:
            return 0
        after = bisect.bisect_right(self._addresses, start)
        return self._addresses[after] - start if after < len(self._addresses) else 0

    def functions(self, name: str) -> list[tuple[int, int]]:
        """A function and the parts that gcc has made of it (NAME.part.0 and the like).

        Each with its address and how far it is to the next symbol, in bytes.
        """
        parts = [one for one in self._by_name if one.partition(".")[0] == name]
        return [(self._by_name[one], self.size(one)) for one in sorted(parts)]

    def at(self, address: int) -> tuple[str, int] | None:
        """The symbol that an address is in, and how far from its beginning."""
        place = bisect.bisect_right(self._addresses, address) - 1
        if place < 0:
            return None
        # Of several at one address the first that is no marker of the linker's.
        start = self._addresses[place]
        first = bisect.bisect_left(self._addresses, start)
        names = self._names[first : place + 1]
        name = next((name for name in names if not name.startswith("__")), names[0])
        return name, address - start


# -- page tables -------------------------------------------------------------------


def _entries(memory: Memory, table: int) -> tuple[int, ...]:
    data = memory.read(table, PAGE)
    return struct.unpack("<512Q", data) if len(data) == PAGE else (0,) * 512


def physical(memory: Memory, layout: Layout, address: int) -> int | None:
    """Where in memory a virtual address of the kernel's is; None where nothing is mapped."""
    if IMAGE <= address < MODULES:
        return address - IMAGE
    if layout.direct <= address < layout.direct + (1 << 40):
        return address - layout.direct
    return walk(memory, layout, address)


def walk(memory: Memory, layout: Layout, address: int) -> int | None:
    """Where in memory the page tables say that a virtual address is; None where nothing is."""
    table = layout.tables
    top = 48 if layout.direct == FIVE_LEVELS else 39
    for shift in range(top, 11, -9):
        entry = memory.word(table + 8 * (address >> shift & 511))
        if not entry & _PRESENT:
            return None
        if shift == 12 or entry & _LARGE:
            return (entry & _FRAME & -(1 << shift)) + (address & (1 << shift) - 1)
        table = entry & _FRAME
    return None


@dataclass(frozen=True)
class ModuleArea:
    """The addresses that modules are loaded at.

    ``tables`` are the pages with its page tables, ``mapped`` the pages that are mapped and in use
    (which are those of loaded modules, and code that the kernel generates). Addresses from
    ``start`` to before ``end`` have been in use at some time: a page table stays when what it maps
    goes.
    """

    tables: tuple[int, ...]
    mapped: frozenset[int]
    start: int
    end: int


# Where the area begins on a kernel that could be placed at random.
_MODULES_ELSEWHERE = MODULES + (512 << 20)


def spans(area: ModuleArea) -> list[tuple[int, int]]:
    """What has been used of the area; as long as that is nothing, where modules will come to be.

    The kernel has the address at which the area begins in variables of its own.
    """
    if area.start < area.end:
        return [(area.start, area.end)]
    return [(start, start + (2 << 20)) for start in (MODULES, _MODULES_ELSEWHERE)]


# What the kernel fills memory with that is for code and in which there is none (int3).
_NO_CODE = b"\xcc" * PAGE


def _is_free_code(memory: Memory, at: int) -> bool:
    """Whether a page is one that a module's code was in, or may come to be in.

    From 6.13 on such pages can stay mapped when the module goes (mm/execmem.c).
    """
    return memory.read(at, 64) == _NO_CODE[:64] and memory.read(at, PAGE) == _NO_CODE


def _gigabytes(memory: Memory, layout: Layout) -> Iterator[tuple[int, int]]:
    """The two GiB that modules may be in: where each begins, and where its table is, if any."""
    table = layout.tables
    if layout.direct == FIVE_LEVELS:
        table = memory.word(table + 8 * (MODULES >> 48 & 511)) & _FRAME
    upper = memory.word(table + 8 * (MODULES >> 39 & 511)) & _FRAME
    for gigabyte in (IMAGE, IMAGE + (1 << 30)):
        middle = memory.word(upper + 8 * (gigabyte >> 30 & 511))
        if middle & _PRESENT:
            yield gigabyte, middle & _FRAME


def _in_use(memory: Memory, gigabyte: int, table: int) -> Iterator[tuple[int, int]]:
    """Each two MiB of a GiB's module area that are in use: where they begin, and their entry."""
    for number, entry in enumerate(_entries(memory, table)):
        start = gigabyte + (number << 21)
        if entry & _PRESENT and MODULES <= start < MODULES_END:
            yield start, entry


def area_tables(memory: Memory, layout: Layout) -> tuple[int, ...]:
    """``tables`` of the ``ModuleArea`` as it is now, which take less time than all of it."""
    tables: list[int] = []
    for gigabyte, table in _gigabytes(memory, layout):
        tables.append(table)
        entries = (entry for _, entry in _in_use(memory, gigabyte, table))
        tables += [entry & _FRAME for entry in entries if not entry & _LARGE]
    return tuple(tables)


def module_area(memory: Memory, layout: Layout) -> ModuleArea:
    """The module area as it is now."""
    mapped: set[int] = set()
    used: list[int] = []
    pages: Sequence[int]
    for gigabyte, table in _gigabytes(memory, layout):
        for start, entry in _in_use(memory, gigabyte, table):
            used.append(start)
            if entry & _LARGE:
                first = entry & _FRAME & -(1 << 21)
                pages = range(first | _PRESENT, first + (1 << 21), PAGE)
            else:
                pages = _entries(memory, entry & _FRAME)
            mapped.update(
                start + place * PAGE
                for place, page in enumerate(pages)
                if page & _PRESENT
                and not (layout.keeps_code and _is_free_code(memory, page & _FRAME))
            )
    start, end = (min(used), max(used) + (1 << 21)) if used else (MODULES, MODULES)
    return ModuleArea(area_tables(memory, layout), frozenset(mapped), start, end)


# -- words and lists ----------------------------------------------------------------


def as_words(data: bytes) -> tuple[int, ...]:
    """Bytes of memory as numbers of eight bytes each."""
    return struct.unpack_from(f"<{len(data) // 8}Q", data)


def word_at(memory: Memory, layout: Layout, address: int) -> int:
    """The word at a virtual address; 0 where nothing is mapped."""
    where = physical(memory, layout, address)
    return 0 if where is None else memory.word(where)


def text_at(memory: Memory, layout: Layout, address: int) -> str:
    """The text that begins at a virtual address."""
    where = physical(memory, layout, address) if address else None
    data = b"" if where is None else memory.read(where, 64)
    return data.partition(b"\0")[0].decode("ascii", errors="replace")


def list_nodes(memory: Memory, layout: Layout, head: int) -> Iterator[int]:
    """The nodes of one of the kernel's circular lists (linux/list.h), but for its head."""
    node = word_at(memory, layout, head)
    for _ in range(10_000):  # more than any of those that are looked at has
        if node in (0, head):
            return
        yield node
        node = word_at(memory, layout, node)


def is_variable(layout: Layout, at: int) -> bool:
    """Whether an address in memory is in a static variable of the kernel's."""
    return any(start <= at < end for start, end in layout.variables)


# What a byte of KASAN's shadow says of eight that nobody may use, as they are free or of no object
# (mm/kasan/kasan.h). Others are of stacks and of variables.
_POISON = (0xFA, 0xFB, 0xFC, 0xFE, 0xFF)


def is_poisoned(memory: Memory, layout: Layout, at: int) -> bool:
    """Whether KASAN says of an address in memory that nothing is there: it was freed, perhaps."""
    if not layout.shadow:
        return False
    where = walk(memory, layout, (layout.shadow + (layout.direct + at >> 3)) % (1 << 64))
    return where is not None and memory.read(where, 1)[0] in _POISON


# -- pages and slab objects ---------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """One page of memory, or several that were allocated together (compound pages).

    ``start`` is its physical address, ``words`` are those of its first struct page; all are 0 where
    there is none.
    """

    start: int
    words: tuple[int, ...]


def block_of(memory: Memory, layout: Layout, at: int) -> Block:
    """The block that an address in memory is in."""
    address = layout.vmemmap + at // PAGE * PAGE_STRUCT
    for _ in range(2):
        where = walk(memory, layout, address)
        data = b"" if where is None else memory.read(where, PAGE_STRUCT)
        if len(data) < PAGE_STRUCT:
            break
        words = struct.unpack("<8Q", data)
        if not words[1] & 1:
            return Block((address - layout.vmemmap) // PAGE_STRUCT * PAGE, words)
        # compound_head in linux/mm_types.h: the address of the first one. On newer kernels it is a
        # mask that makes it of the address of any (compound_info, set_compound_head() in linux/
        # page-flags.h), of which all upper bits are set.
        head = words[1] & ~1
        address = address & head if head >> 32 == 0xFFFFFFFF else head
    return Block(0, (0,) * 8)


@dataclass(frozen=True)
class SlabObject:
    """An object in a slab cache, by its physical address."""

    cache: SlabCache
    start: int


def slab_object(memory: Memory, layout: Layout, at: int) -> SlabObject | None:
    """The object of a slab cache that an address in memory is in, if it is in one.

    Caches that were made since the template was frozen are not known.
    """
    if layout.slab_word is None:
        return None
    block = block_of(memory, layout, at)
    cache = layout.slabs.get(block.words[layout.slab_word])
    if cache is None:
        return None
    return SlabObject(cache, at - (at - block.start) % cache.size)


def of_a_process(memory: Memory, layout: Layout, at: int) -> bool:
    """Whether an address in memory is in a page of a process or of a file, not the kernel's own.

    A program may have written down the addresses that it has read somewhere. ``mapping`` in struct
    page is set there; bit 0 tells a process's page (PAGE_MAPPING_ANON in linux/page-flags.h).
    """
    mapping = block_of(memory, layout, at).words[3]
    return bool(mapping & 1) or mapping >= layout.direct


# -- stacks and tasks ---------------------------------------------------------------


# All of memory, in blocks with their addresses; it is asked for seldom, since it takes a while.
AllMemory = Callable[[], Iterator[tuple[int, bytes]]]


# -- the tracer's pages ------------------------------------------------------------


def trace_descriptors(
    memory: Memory, layout: Layout, blocks: Iterator[tuple[int, bytes]], page: int
) -> Iterator[tuple[int, int]]:
    """What may be the descriptors of a page of a ring buffer of tracing, and where each has it.

    A struct buffer_page (kernel/trace/ring_buffer.c) is an object of a slab cache. Its address is
    a virtual one, and the place, at which it has the address of its page, in bytes from there.
    """
    address = layout.direct + page
    for holder in pointers_into(blocks, address, address + 1):
        found = slab_object(memory, layout, holder.at)
        if found is not None:
            yield layout.direct + found.start, holder.at - found.start


def trace_ring(memory: Memory, layout: Layout, descriptor: int, place: int) -> tuple[int, ...]:
    """The pages of the ring that a descriptor is in, beginning with its own; () if in none.

    It begins with the list of all of them, of whose pointers the two lowest bits are flags.
    """
    node = descriptor
    pages: list[int] = []
    while len(pages) < memory.size // PAGE:
        page = word_at(memory, layout, node + place) - layout.direct
        if page % PAGE or not 0 <= page < memory.size:
            break
        pages.append(page)
        node = word_at(memory, layout, node) & ~3
        if node == descriptor:
            return tuple(pages) if len(pages) > 1 else ()
    return ()


# lib/stackdepot.c: how many bytes a pool of call stacks has (DEPOT_POOL_SIZE).
_POOL = 4 * PAGE


@dataclass(frozen=True)
class Scene:
    """A machine's memory, and what is known of its kernel."""

    memory: Memory
    layout: Layout
    everything: AllMemory

    def is_written_down(self, at: int) -> bool:
        """Whether an address in memory is where there are addresses that nobody follows.

        There the kernel keeps them to tell of them, or what had them was freed.
        """
        return (
            any(start <= at < end for start, end in self.layout.loader)
            or at // _POOL in self._pools
            or is_poisoned(self.memory, self.layout, at)
        )

    @cached_property
    def _pools(self) -> frozenset[int]:
        """The places of the call stacks that the kernel keeps, in units of their size."""
        places: set[int] = set()
        while self.layout.depot:
            word = self.memory.word(self.layout.depot + 8 * len(places))
            place = word - self.layout.direct
            if not 0 <= place < self.memory.size or place // _POOL in places:
                break
            places.add(place // _POOL)
        return frozenset(places)


@dataclass(frozen=True)
class Stack:
    """A kernel stack: its virtual address, its size in bytes, its pages' physical addresses."""

    start: int
    size: int
    pages: tuple[int, ...]

    def address(self, at: int) -> int:
        """The virtual address of one in memory."""
        return self.start + self.pages.index(at & -PAGE) * PAGE + at % PAGE


_STACK = 16384  # bytes of one (THREAD_SIZE); with KASAN it has twice as many


class StackAreas:
    """The stacks of tasks that are or were there (CONFIG_VMAP_STACK).

    A stack is an area of vmalloc()'s of 16 KiB (32 with KASAN) on a multiple of its size, and a
    page that is not mapped follows (THREAD_SIZE, alloc_thread_stack_node() in kernel/fork.c). The
    kernel keeps the stacks of the last few tasks that ended, as they are. On those of
    tasks that are idle there are addresses of what an interrupt has called, which has ended.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._stacks: dict[int, Stack] | None = None

    def of(self, at: int) -> Stack | None:
        """The stack that an address in memory is in."""
        if self._stacks is None:
            self._stacks = {page: stack for stack in self._all() for page in stack.pages}
        return self._stacks.get(at & -PAGE)

    def _first(self) -> Iterator[Stack]:
        """That of the first task, which is idle: it is a static variable of the kernel's."""
        memory, layout = self._scene.memory, self._scene.layout
        start = word_at(memory, layout, layout.first_task + layout.stack)
        if layout.first_task and IMAGE <= start < MODULES:
            places = range(start - IMAGE, start - IMAGE + _STACK, PAGE)
            yield Stack(start, _STACK, tuple(places))

    def _all(self) -> Iterator[Stack]:
        yield from self._first()
        pages = dict(mapped_pages(self._scene.memory, self._scene.layout))
        for start in pages:
            for size in (_STACK, 2 * _STACK):
                inside = [pages.get(start + at) for at in range(0, size, PAGE)]
                if start % size or start - PAGE in pages or start + size in pages:
                    continue
                if None not in inside:
                    yield Stack(start, size, tuple(page for page in inside if page is not None))


def mapped_pages(memory: Memory, layout: Layout) -> Iterator[tuple[int, int]]:
    """What vmalloc() has mapped: virtual addresses of pages with their physical ones."""
    table = layout.tables
    if layout.direct == FIVE_LEVELS:
        table = memory.word(table + 8 * (layout.vmalloc >> 48 & 511)) & _FRAME
    shift = 39

    def walk(table: int, base: int, shift: int) -> Iterator[tuple[int, int]]:
        for number, entry in enumerate(_entries(memory, table)):
            address = base + (number << shift)
            if not entry & _PRESENT or (shift > 12 and entry & _LARGE):
                continue
            if shift == 12:
                yield address, entry & _FRAME
            else:
                yield from walk(entry & _FRAME, address, shift - 9)

    # Per-CPU memory is mapped from the end on (pcpu_get_vm_areas() in mm/vmalloc.c).
    start = layout.vmalloc & -(1 << shift)
    end = min(layout.vmemmap, (start | (1 << 48) - 1) + 1)  # that of a table of five levels' part
    for base in range(start, end, 1 << shift):
        entry = memory.word(table + 8 * (base >> shift & 511))
        if entry & _PRESENT:
            yield from walk(entry & _FRAME, base, shift - 9)


@dataclass(frozen=True)
class Task:
    """A task: its name, and how far down its stack is in use (a virtual address)."""

    name: str
    pointer: int


def task_of(scene: Scene, stack: Stack) -> Task | None:
    """The task whose stack it is; None for the stack of one that has ended.

    The second and later threads of a process are not looked at: none of a module's is one.
    """
    layout, memory = scene.layout, scene.memory
    if not layout.tasks or not layout.first_task:
        return None
    for node in list_nodes(memory, layout, layout.first_task + layout.tasks):
        task = node - layout.tasks
        if word_at(memory, layout, task + layout.stack) != stack.start:
            continue
        where = physical(memory, layout, task)
        data = b"" if where is None else memory.read(where, layout.task_size)
        words = as_words(data)
        # The lowest address that a task_struct has of its own stack is where the task was when it
        # went to sleep (thread.sp); others, as of a plug, are of frames above.
        used = [word for word in words if stack.start < word < stack.start + stack.size]
        return Task(
            text_at(memory, layout, task + layout.comm)[:15],
            min(used, default=stack.start + stack.size),
        )
    return None
