# SPDX-License-Identifier: GPL-2.0-only
"""Who still points into a module that is gone: from a machine's memory to findings.

A module that is unloaded has no memory any more: its pages are unmapped. A pointer to such a page
that lives on in the kernel is something that the module registered and did not take back: a
notifier, a timer, a hook, a file. The kernel will follow it one day, and crash.

Pure but for reading memory that it is handed: it asks no machine and starts nothing. All of it is
for x86-64 with ``nokaslr``, where a kernel is where it was linked to be.
"""

from __future__ import annotations

import bisect
import json
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.qemu.memory import PAGE, Memory, Pointer, pointers_into

# Documentation/arch/x86/x86_64/mm.rst. The kernel's image is mapped from IMAGE on, so that a
# symbol's physical address is its distance from there. Modules follow it: from _MODULES on, or
# 512 MiB later where the kernel could be placed at random (CONFIG_RANDOMIZE_BASE); what is behind
# _MODULES_END are mappings at fixed addresses.
IMAGE = 0xFFFFFFFF80000000
_MODULES = 0xFFFFFFFFA0000000
_MODULES_END = 0xFFFFFFFFFF000000
_DIRECT = 0xFFFF888000000000  # all of memory, where CONFIG_RANDOMIZE_MEMORY is off
_VMEMMAP = 0xFFFFEA0000000000  # the array of struct page, likewise
_VMALLOC = 0xFFFFC90000000000  # likewise
_VMALLOC_BYTES = 1 << 45  # how much of it there is with tables of four levels, at least
_FIVE_LEVELS = 0xFF11000000000000  # where all of memory is mapped with tables of five levels

# A table entry (Intel's manual, volume 3, 4.5): bit 0 is set where something is mapped, bit 7
# where that is a large page; bits 12 to 51 are its physical address.
_PRESENT, _LARGE, _FRAME = 1, 1 << 7, 0x000FFFFFFFFFF000

PAGE_STRUCT = 64  # bytes of a struct page (linux/mm_types.h), of which eight are a word


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
    kmem_cache has the size of its objects. ``loader`` are ranges of physical addresses: variables
    of the kernel's in which its module loader leaves addresses. ``variables`` are such ranges too:
    those with all of the kernel's static variables.
    ``mapped`` are the pages of modules that the template has loaded. ``stack``, ``comm`` and
    ``tasks`` are where a task_struct has the address of its stack, its name and the list of all
    processes, and ``task_size`` is how large it is, in bytes; 0 where that could not be found out.
    ``first_task`` is the virtual address of the first one. ``shrinkers`` is that of the list of
    what the kernel calls to have caches freed. ``readers`` are per-CPU variables: for each lock by
    its name, how many have it as readers, in 32 bits, the sum of all CPUs. ``keeps_code`` is
    whether a page that had a module's code can stay mapped when the module is gone.
    ``keeps_addresses`` is whether the kernel has records with addresses of what is gone, so that
    only what is in one of the ``REGISTRIES`` is known to be followed.
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
    shrinkers: int = 0
    readers: Mapping[str, int] = field(default_factory=dict)
    keeps_code: bool = True
    keeps_addresses: bool = False

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
    if IMAGE <= address < _MODULES:
        return address - IMAGE
    if layout.direct <= address < layout.direct + (1 << 40):
        return address - layout.direct
    return _walk(memory, layout, address)


def _walk(memory: Memory, layout: Layout, address: int) -> int | None:
    table = layout.tables
    top = 48 if layout.direct == _FIVE_LEVELS else 39
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
    if layout.direct == _FIVE_LEVELS:
        table = memory.word(table + 8 * (_MODULES >> 48 & 511)) & _FRAME
    upper = memory.word(table + 8 * (_MODULES >> 39 & 511)) & _FRAME
    for gigabyte in (IMAGE, IMAGE + (1 << 30)):
        middle = memory.word(upper + 8 * (gigabyte >> 30 & 511))
        if middle & _PRESENT:
            yield gigabyte, middle & _FRAME


def _in_use(memory: Memory, gigabyte: int, table: int) -> Iterator[tuple[int, int]]:
    """Each two MiB of a GiB's module area that are in use: where they begin, and their entry."""
    for number, entry in enumerate(_entries(memory, table)):
        start = gigabyte + (number << 21)
        if entry & _PRESENT and _MODULES <= start < _MODULES_END:
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
    start, end = (min(used), max(used) + (1 << 21)) if used else (_MODULES, _MODULES)
    return ModuleArea(area_tables(memory, layout), frozenset(mapped), start, end)


# -- finding out the layout --------------------------------------------------------

# Where the loader leaves addresses of modules that are gone, none of which is followed:
# kernel/module/tree_lookup.c (the lowest and the highest address of all modules; static in
# kernel/module.c before 5.19), arch/x86/kernel/unwind_orc.c (what it has sorted last).
_LOADER = ("mod_tree", "module_addr_min", "module_addr_max", "cur_orc_table", "cur_orc_ip_table")


# What is in the names of functions of a kernel that keeps pages with modules' code (mm/execmem.c).
_KEEPS_CODE = "execmem_cache"

# Functions that only a debug kernel has: KASAN, lockdep and kmemleak keep call stacks and addresses
# of what is gone, in quarantines and records of their own, which are no references.
_DEBUG = ("kasan_report", "lock_acquire", "kmemleak_alloc")


def keeps_addresses(symbols: Symbols) -> bool:
    """Whether a kernel has records with addresses of what is gone."""
    return any(symbols.address(name) is not None for name in _DEBUG)


def learn(memory: Memory, symbols: Symbols, slab_files: str) -> Layout | None:
    """The layout of a kernel, or None where its memory is not as it is read here.

    ``slab_files`` are lines of FILE:CONTENT, with files of /sys/kernel/slab as in
    ``vmap_area/slab_size``. Where a structure has what is found out from objects that are known,
    as it differs from one kernel to the next.
    """
    root = symbols.address("init_top_pgt") or symbols.address("swapper_pg_dir")
    if root is None:
        return None

    def variable(name: str, otherwise: int) -> int:
        address = symbols.address(name)
        return otherwise if address is None else memory.word(address - IMAGE)

    direct = variable("page_offset_base", _DIRECT)
    # The array has an entry for each CPU that the kernel could have. What it says of one that is
    # not there points to no memory, but to where the variables' initial values were.
    offsets, percpu = symbols.address("__per_cpu_offset"), []
    first = symbols.address("__per_cpu_start") or 0
    for place in range(0, min(symbols.size("__per_cpu_offset"), 8 * 64), 8):
        offset = memory.word((offsets or 0) - IMAGE + place)
        if 0 <= (offset + first) % (1 << 64) - direct < memory.size and offset not in percpu:
            percpu.append(offset)
    ranges = []
    for name in _LOADER:
        start = symbols.address(name)
        if start is not None:
            ranges.append((start - IMAGE, start - IMAGE + max(8, symbols.size(name))))
    layout = Layout(
        tables=root - IMAGE,
        direct=direct,
        vmemmap=variable("vmemmap_base", _VMEMMAP),
        vmalloc=variable("vmalloc_base", _VMALLOC),
        percpu=tuple(percpu),
        slabs={},
        slab_word=None,
        loader=tuple(ranges),
        variables=_variables(symbols),
        shrinkers=symbols.address("shrinker_list") or 0,
        readers=_readers(symbols),
        keeps_code=any(_KEEPS_CODE in name for name in symbols.names),
        keeps_addresses=keeps_addresses(symbols),
    )
    if _walk(memory, layout, root) != layout.tables:
        return None
    facts = asdict(layout) | {"mapped": module_area(memory, layout).mapped}
    facts |= _learn_slabs(memory, layout, symbols, slab_files)
    return Layout(**facts | _learn_tasks(memory, layout, symbols, facts["slabs"]))


# Locks of the kernel's that a module can have as a reader without being in anybody's way: but for
# whoever plugs in a CPU, which nobody does.
_READ = ("cpu_hotplug_lock",)


def _readers(symbols: Symbols) -> dict[str, int]:
    """Where the readers of a static struct percpu_rw_semaphore are counted.

    The names are those of DEFINE_STATIC_PERCPU_RWSEM() in linux/percpu-rwsem.h.
    """
    found = {name: symbols.address(f"__percpu_rwsem_rc_{name}") for name in _READ}
    return {name: address for name, address in found.items() if address is not None}


def is_variable(layout: Layout, at: int) -> bool:
    """Whether an address in memory is in a static variable of the kernel's."""
    return any(start <= at < end for start, end in layout.variables)


def held_by_readers(memory: Memory, layout: Layout) -> list[str]:
    """The names of the locks that somebody has as a reader now."""

    def count(variable: int) -> int:
        places = ((variable + offset) % (1 << 64) - layout.direct for offset in layout.percpu)
        return sum(memory.word(place & -8) >> 8 * (place & 7) for place in places) % (1 << 32)

    return [name for name, variable in layout.readers.items() if count(variable)]


def _variables(symbols: Symbols) -> tuple[tuple[int, int], ...]:
    """Where the kernel's image has its static variables (arch/x86/kernel/vmlinux.lds.S).

    They are from ``_sdata`` to ``__bss_stop``, and among what is only read once the kernel is up
    (``__ro_after_init``). The kernel frees the init section in their midst and what is between the
    parts of its image, so that those hold anything. The first task's stack is there as well.
    """

    def first(*names: str) -> int:
        return next((at for at in map(symbols.address, names) if at), IMAGE) - IMAGE

    start, end = first("_sdata", "_text"), first("__bss_stop", "_end")
    ranges = [(first("__start_rodata"), first("__end_rodata")), (start, end)]
    stack = first("init_stack", "init_thread_union")
    # There may be a symbol for where the stack is first used from, just below its end.
    size = symbols.size("init_stack") or symbols.size("init_thread_union")
    size = -(-size // PAGE) * PAGE
    for without in ((first("__init_begin"), first("__init_end")), (stack, stack + size)):
        ranges = [
            part
            for low, high in ranges
            for part in ((low, min(high, without[0])), (max(low, without[1]), high))
        ]
    return tuple((low, high) for low, high in sorted(set(ranges)) if low < high)


# Variables with the address of a slab cache, and its name: one that is known tells where a struct
# kmem_cache has what. 7.x has no such variable for files any more.
_CACHES = (("filp_cachep", "filp"), ("task_struct_cachep", "task_struct"))


def _learn_slabs(
    memory: Memory, layout: Layout, symbols: Symbols, slab_files: str
) -> dict[str, Any]:
    """The slab caches, by walking the kernel's list of them."""
    unknown: dict[str, Any] = {"slabs": {}, "slab_word": None}
    head = symbols.address("slab_caches")
    known, name = next(
        ((at, name) for variable, name in _CACHES if (at := symbols.address(variable))), (None, "")
    )
    if head is None or known is None:
        return unknown
    one = memory.word(known - IMAGE)
    nodes = list(list_nodes(memory, layout, head))
    name_at = next(
        (at for at in range(0, 512, 8)
         if text_at(memory, layout, word_at(memory, layout, one + at)) == name), None,
    )  # fmt: skip
    distances = [node - one for node in nodes if 0 <= node - one < 512]
    if name_at is None or not distances:
        return unknown
    files = dict(line.split(":", 1) for line in slab_files.splitlines() if ":" in line)
    slabs = {}
    for node in nodes:
        cache = node - min(distances)
        name = text_at(memory, layout, word_at(memory, layout, cache + name_at))
        kept = files.get(f"{name}/destroy_by_rcu", "0") == "1" or files.get(f"{name}/ctor")
        size = int(files.get(f"{name}/slab_size", "0"))
        if name and size:
            slabs[cache] = SlabCache(name, size, not kept)
    # A slab cache's own description is an object of a cache: which word of its page says so?
    page = block_of(memory, layout, one - layout.direct).words
    word = next((number for number, value in enumerate(page) if value in slabs), None)
    size = _size_at(memory, layout, slabs)
    return {"slabs": slabs, "slab_word": word, "cache_size": size}


def _size_at(memory: Memory, layout: Layout, slabs: Mapping[int, SlabCache]) -> int:
    """Where a struct kmem_cache has ``size``: what is right for all caches that are known."""
    right = set(range(0, 128, 4))
    for cache, about in slabs.items():
        data = memory.read(cache - layout.direct, 128)
        right &= {at for at in right if data[at : at + 4] == about.size.to_bytes(4, "little")}
    return min(right, default=0) if slabs else 0


def _learn_tasks(
    memory: Memory, layout: Layout, symbols: Symbols, slabs: Mapping[int, SlabCache]
) -> dict[str, int]:
    """Where a task_struct has what, by the first task, which is static."""
    task = symbols.address("init_task")
    stack = symbols.address("init_stack") or symbols.address("init_thread_union")
    size = next((slab.size for slab in slabs.values() if slab.name == "task_struct"), 0)
    if task is None or stack is None or not size:
        return {}
    data = memory.read(task - IMAGE, size)
    at, comm = data.find(struct.pack("<Q", stack)), data.find(b"swapper")
    # Of all the lists that the first task is in, that of all processes is the longest one whose
    # members have the address of a stack and a name where the first task has them.
    lists = {}
    for place in range(0, len(data) - 15, 8):
        node = struct.unpack_from("<Q", data, place)[0]
        if layout.direct <= node < layout.direct + memory.size:
            nodes = list(list_nodes(memory, layout, task + place))
            if all(_is_task(memory, layout, node - place, at, comm) for node in nodes):
                lists[place] = len(nodes)
    if at <= 0 or comm <= 0 or not lists:
        return {}
    tasks = max(lists, key=lambda place: lists[place])
    return {"stack": at, "comm": comm, "task_size": size, "tasks": tasks, "first_task": task}


def _is_task(memory: Memory, layout: Layout, address: int, stack: int, comm: int) -> bool:
    name = text_at(memory, layout, address + comm)
    start = word_at(memory, layout, address + stack)
    return name.isprintable() and name != "" and start % 4096 == 0 and start >= layout.vmalloc


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


# -- what is no reference ----------------------------------------------------------


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
        where = _walk(memory, layout, address)
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


_BITS = 4  # words of a bitmap that are looked at


def is_in_bitmap(memory: Memory, at: int) -> bool:
    """Whether a word is part of a bitmap, where it can have any value.

    An address of a module's begins with 34 bits that are set, so that the end of a long run of set
    bits looks like one. Words in which all bits are set stand in front of it then, and seldom in
    front of a pointer: a mask of CPUs has as many for 256 of them.
    """
    size = min(8 * _BITS, at % PAGE)
    return size == 8 * _BITS and memory.read(at - size, size) == b"\xff" * size


def bounds_an_area(memory: Memory, pointer: Pointer) -> bool:
    """Whether an address is where an area of memory begins or ends, which nobody follows.

    A struct vmap_area begins with those two (linux/vmalloc.h). The kernel keeps one for each area
    in use and for each hole, and joins the one of an area that is gone with its neighbours.
    """
    if pointer.to % PAGE:
        return False
    before, after = memory.word(pointer.at - 8), memory.word(pointer.at + 8)
    if after in range(pointer.to + 1, 1 << 64) and (after % PAGE == 0 or after == (1 << 64) - 1):
        return True
    return before % PAGE == 0 and before in range(_VMALLOC, pointer.to)


def is_free_area(found: SlabObject, pointer: Pointer) -> bool:
    """Whether an address is where an area for code begins or ends, in the tree of those.

    From 6.13 on the kernel has the free ones in a tree (free_areas in mm/execmem.c), whose nodes
    have the first and the last address of each (struct maple_range_64 in linux/maple_tree.h).
    """
    return found.cache.name == "maple_node" and pointer.to % PAGE in (0, PAGE - 1)


# What the kernel sets `active` of a kernfs_node to that is removed (KN_DEACTIVATED_BIAS in
# linux/kernfs.h, which is INT_MIN + 1): the second half of the first word.
_DEACTIVATED = 0x80000001


def is_removed_node(memory: Memory, found: SlabObject, at: int) -> bool:
    """Whether an object is a node of sysfs that has been removed.

    The kernel keeps one while its name is cached, so that its pointer to the module stays; it is
    not followed any more (kernfs_get_active() in fs/kernfs/dir.c).
    """
    data = memory.read(found.start, at - found.start)
    return any(
        struct.unpack_from("<Q", data, place)[0] >> 32 == _DEACTIVATED
        for place in range(0, len(data) - 7, 8)
    )


_REMOVED = 0x80000000  # BIAS in fs/proc/inode.c, which is INT_MIN


def is_removed_entry(memory: Memory, layout: Layout, found: SlabObject, at: int) -> bool:
    """Whether an object is of an entry of /proc that has been removed while somebody has it open.

    The kernel keeps it as long as that, and does not follow its pointer to the module any more:
    use_pde() in fs/proc/inode.c goes by ``in_use``, with which a struct proc_dir_entry begins, and
    use_table() in fs/proc/proc_sysctl.c by ``unregistering`` in a struct ctl_table_header. An open
    file of the latter's has the address of that in front of the one of its table.
    """
    if found.cache.name == "proc_dir_entry":
        return memory.word(found.start) & 0xFFFFFFFF == _REMOVED
    header = found.start
    if found.cache.name == "proc_inode_cache":
        header = physical(memory, layout, memory.word(at - 8)) or 0
    words = as_words(memory.read(header, 48))
    if len(words) < 6 or not words[0] == words[4] >= _MODULES or not words[3]:
        return False
    return is_variable(layout, words[5] - IMAGE)


def is_worker(memory: Memory, layout: Layout, found: SlabObject) -> bool:
    """Whether an object is what the kernel has for one of its workers (struct worker).

    ``last_func`` in it is what the worker did last, which may have been a module's work, and is
    not called again (process_one_work() in kernel/workqueue.c). It has a pointer to its task.
    """
    for word in as_words(memory.read(found.start, found.cache.size)):
        where = word - layout.direct
        if not layout.comm or not 0 <= where < memory.size:
            continue
        task = slab_object(memory, layout, where)
        if task and task.cache.name == "task_struct" and task.start == where:
            return text_at(memory, layout, word + layout.comm).startswith("kworker/")
    return False


def of_a_loaded_module(memory: Memory, layout: Layout, area: ModuleArea, pointer: Pointer) -> bool:
    """Whether it is a module that is loaded now that points to its own init section.

    That section is gone too, and may have been where another module was. The pointer is in the
    module's memory, in the list of its sections, which has those that are there as well
    (module_sect_attrs in kernel/module/sysfs.c), or in a page of ftrace's with the places of all
    its functions (struct dyn_ftrace in linux/ftrace.h). Or it is in the description of an area that
    the module asked for, which tells nothing of the module but who asked.
    """
    fresh = area.mapped - layout.mapped
    if any(_walk(memory, layout, page) == pointer.at & -PAGE for page in fresh):
        return True
    found = slab_object(memory, layout, pointer.at)
    start, size = (found.start, found.cache.size) if found else (pointer.at & -PAGE, PAGE)
    words = as_words(memory.read(start, size))
    return any(word & -PAGE in fresh for word in words) or (
        pointer.at == start + _AREA_CALLER and _describes_an_area(layout, words)
    )


# Where a struct vm_struct (linux/vmalloc.h) has the address of who asked for the area, in bytes.
# Nobody follows it: it is shown in /proc/vmallocinfo.
_AREA_CALLER = 56


def _describes_an_area(layout: Layout, words: Sequence[int]) -> bool:
    """Whether an object is a struct vm_struct: of an area of vmalloc()'s or ioremap()'s.

    Its second word is the area's address, and its third how large that is.
    """
    start, size = words[1:3]
    there = range(layout.vmalloc, layout.vmalloc + _VMALLOC_BYTES, PAGE)
    return start in there and size in range(PAGE, _VMALLOC_BYTES, PAGE)


def as_words(data: bytes) -> tuple[int, ...]:
    """Bytes of memory as numbers of eight bytes each."""
    return struct.unpack_from(f"<{len(data) // 8}Q", data)


# -- findings ----------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """Something that still points into a module that is gone.

    ``pointer`` is where (a physical address) and whereto (a virtual one); ``holder`` what it is
    that points there, in words, and ``forgotten`` what was not done, "" where that cannot be told.
    """

    pointer: Pointer
    holder: str
    forgotten: str = ""


# All of memory, in blocks with their addresses; it is asked for seldom, since it takes a while.
AllMemory = Callable[[], Iterator[tuple[int, bytes]]]


@dataclass(frozen=True)
class Scene:
    """A machine's memory, and what is known of its kernel."""

    memory: Memory
    layout: Layout
    everything: AllMemory


def dangling(found: Iterable[Pointer], mapped: frozenset[int]) -> list[Pointer]:
    """The pointers to pages that are not mapped."""
    return [pointer for pointer in found if pointer.to & -PAGE not in mapped]


def references(scene: Scene, candidates: Sequence[Pointer]) -> list[Pointer]:
    """Those of the pointers that something in the kernel may follow."""
    left: list[Pointer] = []
    kept: list[tuple[Pointer, SlabObject]] = []
    for pointer in candidates:
        if any(start <= pointer.at < end for start, end in scene.layout.loader):
            continue
        if is_in_bitmap(scene.memory, pointer.at):
            continue
        found = slab_object(scene.memory, scene.layout, pointer.at)
        if found is None:
            if not of_a_process(scene.memory, scene.layout, pointer.at):
                left.append(pointer)
            continue
        if bounds_an_area(scene.memory, pointer) or is_free_area(found, pointer):
            continue
        if is_removed_node(scene.memory, found, pointer.at):
            continue
        if is_removed_entry(scene.memory, scene.layout, found, pointer.at):
            continue
        if is_worker(scene.memory, scene.layout, found):
            continue
        if found.cache.wiped:
            left.append(pointer)
        else:
            kept.append((pointer, found))
    left += _on_live_stacks(scene, left)
    if kept:
        alive = _referenced(scene, {found for _, found in kept})
        left += [pointer for pointer, found in kept if found in alive]
    return sorted(left, key=lambda pointer: pointer.at)


def _on_live_stacks(scene: Scene, candidates: list[Pointer]) -> list[Pointer]:
    """Take the pointers on stacks out of ``candidates``; those that are in use there."""
    areas = StackAreas(scene) if candidates else None
    alive = []
    for pointer in [*candidates]:
        stack = areas.of(pointer.at) if areas else None
        if stack is None:
            continue
        candidates.remove(pointer)
        task = task_of(scene, stack)
        if task and task.pointer <= stack.address(pointer.at):
            alive.append(pointer)
    return alive


def _referenced(scene: Scene, objects: set[SlabObject]) -> set[SlabObject]:
    """Those of the objects that something alive points to.

    An object that is freed but not wiped looks as it did, and only so can be told from one in
    use. What another such object says counts if that one is alive.
    """
    alive: set[SlabObject] = set()
    holders: dict[SlabObject, set[SlabObject]] = {}
    asked: set[SlabObject] = set()
    for _ in range(4):  # a tree's nodes hold one another, but not for ever
        wanted = {one for one in {*objects, *holders} if one not in asked and one not in alive}
        if not wanted:
            break
        asked |= wanted
        for one, pointer in pointing_to(scene, wanted):
            if one in alive or not _holds(scene, one, pointer):
                continue
            holder = slab_object(scene.memory, scene.layout, pointer.at)
            if holder and not holder.cache.wiped:
                holders.setdefault(holder, set()).add(one)
            else:
                alive.add(one)
    fresh = [*alive]
    while fresh:
        held = holders.get(fresh.pop(), set()) - alive
        alive |= held
        fresh += held
    return alive & objects


def _holds(scene: Scene, one: SlabObject, pointer: Pointer) -> bool:
    """Whether a pointer to an object is of a kind that is there only while the object is in use.

    A static variable's is, and one in an object of another slab cache. Elsewhere addresses stay
    that nobody follows any more: on stacks, in the allocator's lists of free objects, and in the
    arrays that a CPU keeps objects in for the next one who wants some, where those above a count
    are old (``skb_cache`` in net/core/skbuff.c). By now another object may be at such an address.
    What is not known to hold objects is therefore taken to hold none.
    """
    memory, layout = scene.memory, scene.layout
    to = pointer.to - layout.direct - one.start
    if to not in range(followed(one.cache.name, one.cache.size)):
        return False
    holder = slab_object(memory, layout, pointer.at)
    if holder is None:
        return is_variable(layout, pointer.at)
    # From 6.18 on the allocator has lists of free objects in objects of its own: a struct
    # slab_sheaf (mm/slub.c), in whose first words is the slab cache that it is for.
    head = memory.read(holder.start, min(64, holder.cache.size))
    return not any(word in layout.slabs for word in as_words(head))


def followed(cache: str, size: int) -> int:
    """Up to which byte of an object a pointer into it is one that somebody follows.

    Whoever has a file has the address of its beginning, with flags in it at most (as in struct
    io_fixed_file in io_uring/filetable.h). The list of those that were closed leads to the middle
    of each (``f_task_work`` in linux/fs.h), and stays as it was when they are freed.
    """
    return 8 if cache == "filp" else size


def pointing_to(scene: Scene, objects: set[SlabObject]) -> Iterator[tuple[SlabObject, Pointer]]:
    """The pointers to each of the objects from outside of it, in all of memory.

    Objects that are near one another are looked for together: memory is read once for each 64 KiB
    in which there are some, as addresses there have their upper six bytes in common.
    """
    regions: dict[int, set[SlabObject]] = {}
    for one in objects:
        for at in (one.start, one.start + one.cache.size - 1):
            regions.setdefault(at >> 16, set()).add(one)
    for address, data in scene.everything():
        for number, inside in regions.items():
            start = scene.layout.direct + (number << 16)
            for pointer in pointers_into(iter([(address, data)]), start, start + (1 << 16)):
                to = pointer.to - scene.layout.direct
                for one in inside:
                    own = range(one.start, one.start + one.cache.size)
                    if to in own and pointer.at not in own:
                        yield one, pointer


def would_be_called(scene: Scene, found: Collection[Pointer]) -> bool:
    """Whether a module that is gone would be called if the kernel freed its caches.

    It may have left a static struct shrinker registered. Or one of the pointers that were found is
    in one that the kernel has allocated for it (from 6.7 on, mm/shrinker.c).
    """
    memory, layout = scene.memory, scene.layout
    if not layout.shrinkers:
        return False
    nodes = list_nodes(memory, layout, layout.shrinkers)
    places = [physical(memory, layout, node) for node in nodes]
    objects = [slab_object(memory, layout, one.at) for one in found]
    return None in places or any(
        place in range(one.start, one.start + one.cache.size)
        for one in objects if one is not None
        for place in places
    )  # fmt: skip


# -- stacks ------------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """A kernel stack: its virtual address, its size in bytes, its pages' physical addresses."""

    start: int
    size: int
    pages: tuple[int, ...]

    def address(self, at: int) -> int:
        """The virtual address of one in memory."""
        return self.start + self.pages.index(at & -PAGE) * PAGE + at % PAGE


class StackAreas:
    """The stacks of tasks that are or were there (CONFIG_VMAP_STACK).

    A stack is an area of vmalloc()'s of 16 KiB (32 with KASAN) on a multiple of its size, and a
    page that is not mapped follows (THREAD_SIZE, alloc_thread_stack_node() in kernel/fork.c). The
    kernel keeps the stacks of the last few tasks that ended, as they are.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._stacks: dict[int, Stack] | None = None

    def of(self, at: int) -> Stack | None:
        """The stack that an address in memory is in."""
        if self._stacks is None:
            self._stacks = {page: stack for stack in self._all() for page in stack.pages}
        return self._stacks.get(at & -PAGE)

    def _all(self) -> Iterator[Stack]:
        pages = dict(mapped_pages(self._scene.memory, self._scene.layout))
        for start in pages:
            for size in (16384, 32768):
                inside = [pages.get(start + at) for at in range(0, size, PAGE)]
                if start % size or start - PAGE in pages or start + size in pages:
                    continue
                if None not in inside:
                    yield Stack(start, size, tuple(page for page in inside if page is not None))


def mapped_pages(memory: Memory, layout: Layout) -> Iterator[tuple[int, int]]:
    """What vmalloc() has mapped: virtual addresses of pages with their physical ones."""
    table = layout.tables
    if layout.direct == _FIVE_LEVELS:
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


# -- in words ----------------------------------------------------------------------


@dataclass(frozen=True)
class Registry:
    """A variable of the kernel's in which things are registered.

    ``step`` is how far from an element's beginning the pointer to the next one is, in bytes;
    None where it holds elements itself, as a table does. ``links`` are such places of a tree's
    elements, of which the variable is the first. ``undo`` is what takes one away.
    """

    symbol: str
    undo: str
    step: int | None = None
    links: tuple[int, ...] = ()


_NOTIFIER = 8  # struct notifier_block in linux/notifier.h: the callback, then `next`
_FILE_SYSTEM = 56  # struct file_system_type in linux/fs.h: `next`
_RESOURCE = (48, 56)  # struct resource in linux/ioport.h: `sibling`, `child`
_LIST = 0  # struct list_head and struct hlist_node begin with `next`

REGISTRIES = (
    Registry("reboot_notifier_list", "unregister_reboot_notifier()", _NOTIFIER),
    Registry("restart_handler_list", "unregister_restart_handler()", _NOTIFIER),
    Registry("panic_notifier_list", "atomic_notifier_chain_unregister()", _NOTIFIER),
    Registry("die_chain", "unregister_die_notifier()", _NOTIFIER),
    Registry("netdev_chain", "unregister_netdevice_notifier()", _NOTIFIER),
    Registry("inetaddr_chain", "unregister_inetaddr_notifier()", _NOTIFIER),
    Registry("inet6addr_chain", "unregister_inet6addr_notifier()", _NOTIFIER),
    Registry("inetaddr_validator_chain", "unregister_inetaddr_validator_notifier()", _NOTIFIER),
    Registry("netevent_notif_chain", "unregister_netevent_notifier()", _NOTIFIER),
    Registry("module_notify_list", "unregister_module_notifier()", _NOTIFIER),
    Registry("keyboard_notifier_list", "unregister_keyboard_notifier()", _NOTIFIER),
    Registry("vt_notifier_list", "unregister_vt_notifier()", _NOTIFIER),
    Registry("pm_chain_head", "unregister_pm_notifier()", _NOTIFIER),
    Registry("oom_notify_list", "unregister_oom_notifier()", _NOTIFIER),
    Registry("memory_chain", "unregister_memory_notifier()", _NOTIFIER),
    Registry("acpi_chain_head", "unregister_acpi_notifier()", _NOTIFIER),
    Registry("usb_notifier_list", "usb_unregister_notify()", _NOTIFIER),
    Registry("power_supply_notifier", "power_supply_unreg_notifier()", _NOTIFIER),
    Registry("cpufreq_policy_notifier_list", "cpufreq_unregister_notifier()", _NOTIFIER),
    Registry("fb_notifier_list", "fb_unregister_client()", _NOTIFIER),
    Registry("task_free_notifier", "profile_event_unregister()", _NOTIFIER),
    Registry("formats", "unregister_binfmt()", _LIST),
    Registry("pernet_list", "unregister_pernet_subsys()", _LIST),
    Registry("crypto_alg_list", "crypto_unregister_alg() (or _shash(), _skcipher() and so on)",
             _LIST),
    Registry("crypto_template_list", "crypto_unregister_template()", _LIST),
    Registry("shrinker_list", "unregister_shrinker() or shrinker_free()", _LIST),
    Registry("misc_list", "misc_deregister()", _LIST),
    Registry("input_handler_list", "input_unregister_handler()", _LIST),
    Registry("input_dev_list", "input_unregister_device()", _LIST),
    Registry("syscore_ops_list", "unregister_syscore_ops()", _LIST),
    Registry("event_class_list", "a trace event was not taken away", _LIST),
    Registry("ftrace_events", "the module's trace events were not taken away", _LIST),
    Registry("ftrace_ops_list", "unregister_ftrace_function()", None),
    Registry("file_systems", "unregister_filesystem()", _FILE_SYSTEM),
    Registry("file_systems", "unregister_filesystem()", _LIST),  # on 7.3
    Registry("tcp_cong_list", "tcp_unregister_congestion_control()", _LIST),
    Registry("key_types_list", "unregister_key_type()", _LIST),
    Registry("all_lsm_hooks", "the security hook cannot be taken away", _LIST),
    Registry("console_list", "unregister_console()", _LIST),
    Registry("console_drivers", "unregister_console()", None),
    Registry("tty_drivers", "tty_unregister_driver()", _LIST),
    Registry("tty_ldiscs", "tty_unregister_ldisc()", None),
    Registry("cpuhp_hp_states", "cpuhp_remove_state()", None),
    Registry("kprobe_table", "unregister_kprobe()", None),
    Registry("inet_protos", "inet_del_protocol()", None),
    Registry("inet6_protos", "inet6_del_protocol()", None),
    Registry("inetsw", "inet_unregister_protosw()", _LIST),
    Registry("net_families", "sock_unregister()", None),
    Registry("proto_list", "proto_unregister()", _LIST),
    Registry("ptype_base", "dev_remove_pack()", None),
    Registry("ptype_all", "dev_remove_pack()", _LIST),
    Registry("rtnl_msg_handlers", "rtnl_unregister()", None),
    Registry("link_ops", "rtnl_link_unregister()", _LIST),
    Registry("sysrq_key_table", "unregister_sysrq_key()", None),
    Registry("chrdevs", "unregister_chrdev()", None),
    Registry("major_names", "unregister_blkdev()", None),
    Registry("nf_hooks_lwtunnel", "nf_unregister_net_hook()", None),
    Registry("iomem_resource", "release_mem_region()", links=_RESOURCE),
    Registry("ioport_resource", "release_region()", links=_RESOURCE),
    Registry("timer_bases", "timer_delete_sync() or cancel_delayed_work_sync()", None),
    Registry("hrtimer_bases", "hrtimer_cancel()", None),
    Registry("tasklet_vec", "tasklet_kill()", None),
    Registry("tasklet_hi_vec", "tasklet_kill()", None),
)  # fmt: skip

# What is usually forgotten where an object of a slab cache points to a module.
_BY_CACHE = {
    "proc_dir_entry": "remove_proc_entry() or proc_remove()",
    "filp": "an open file was not closed, or its operations have no .owner",
    "inode_cache": "a file of the module's is still there or open",
    "cdev_cache": "cdev_del()",
    "kmem_cache": "kmem_cache_destroy()",
    "kernfs_node_cache": "the sysfs entry was not removed",
    "task_struct": "kthread_stop()",
    "sock_inode_cache": "a socket is still open",
    "dentry": "the entry of its file system was not removed",
}


def describe(scene: Scene, symbols: Symbols, pointer: Pointer) -> Finding:
    """What holds a pointer, in words, and what would have taken it away."""
    memory, layout = scene.memory, scene.layout
    found = slab_object(memory, layout, pointer.at)
    registry = _registry(memory, layout, symbols, pointer.at)
    if found and not registry:
        registry = _registry_with(memory, layout, symbols, found)
    if registry:
        return Finding(pointer, registry.symbol, _not_called(registry.undo))
    name = _variable(layout, symbols, pointer.at)
    if name:
        return Finding(pointer, name)
    stack = StackAreas(scene).of(pointer.at)
    if stack:
        task = task_of(scene, stack)
        return Finding(pointer, f"the stack of {task.name if task else 'a task'}",
                       _not_called("kthread_stop()"))  # fmt: skip
    if found and _is_netfilter(memory, layout, symbols, found):
        return Finding(pointer, "init_net's netfilter", _not_called("nf_unregister_net_hook()"))
    if found:
        undo = _BY_CACHE.get(found.cache.name, "")
        return Finding(
            pointer, f"an object of the slab cache {found.cache.name}", _not_called(undo)
        )
    return Finding(pointer, f"a page of the kernel's (at {pointer.at:#x})")


def registered(scene: Scene, symbols: Symbols, candidates: Sequence[Pointer]) -> list[Pointer]:
    """Those of the pointers that one of the ``REGISTRIES`` leads to, so that they are followed.

    For kernels of which nothing else that points to a module is known to be followed.
    """
    memory, layout = scene.memory, scene.layout

    def leads_to(pointer: Pointer) -> bool:
        if _registry(memory, layout, symbols, pointer.at):
            return True
        found = slab_object(memory, layout, pointer.at)
        return found is not None and (
            _registry_with(memory, layout, symbols, found) is not None
            or _is_netfilter(memory, layout, symbols, found)
        )

    return [pointer for pointer in candidates if leads_to(pointer)]


def _not_called(undo: str) -> str:
    """What was forgotten, as a sentence's part; words that are no call stay as they are."""
    return f"{undo} was not called" if undo.endswith(")") else undo


def _variable(layout: Layout, symbols: Symbols, at: int) -> str:
    """The variable of the kernel's that an address in memory is in."""
    start, end = symbols.address("_text") or 0, symbols.address("_end") or 0
    freed = range(symbols.address("__init_begin") or 0, symbols.address("__init_end") or 0)
    if start <= IMAGE + at < end and IMAGE + at not in freed:
        place = symbols.at(IMAGE + at)
        return place[0] if place else ""
    cpu = _percpu(layout, symbols, at)
    return f"{cpu[0]} of CPU {cpu[1]}" if cpu else ""


def _percpu(layout: Layout, symbols: Symbols, at: int) -> tuple[str, int] | None:
    """The per-CPU variable that an address in memory is in, and of which CPU it is."""
    start, end = symbols.address("__per_cpu_start"), symbols.address("__per_cpu_end")
    if start is None or end is None:
        return None
    for cpu, offset in enumerate(layout.percpu):
        address = (layout.direct + at - offset) % (1 << 64)
        place = symbols.at(address) if start <= address < end else None
        if place:
            return place[0], cpu
    return None


def _registry(memory: Memory, layout: Layout, symbols: Symbols, at: int) -> Registry | None:
    """Where what is found at an address in memory was registered."""
    cpu = _percpu(layout, symbols, at)
    for registry in REGISTRIES:
        if cpu and registry.symbol == cpu[0]:
            return registry
        start = symbols.address(registry.symbol)
        if start is None or start < IMAGE:
            continue
        size = symbols.size(registry.symbol)
        if start <= IMAGE + at < start + size:
            return registry
        if registry.step is not None and any(
            _leads_to(memory, layout, word_at(memory, layout, start + place), registry.step, at)
            for place in range(0, min(size, 256), 8)
        ):
            return registry
        if registry.links and _grows_to(memory, layout, start, registry.links, at):
            return registry
    return None


def _registry_with(
    memory: Memory, layout: Layout, symbols: Symbols, found: SlabObject
) -> Registry | None:
    """The list that an object is in which the kernel has allocated for who registered something.

    Of such an object any word may point to the module, as the functions of a shrinker do.
    """
    own = range(found.start, found.start + found.cache.size)
    for registry in REGISTRIES:
        head = symbols.address(registry.symbol)
        if registry.step == _LIST and head is not None and head >= IMAGE:
            nodes = list_nodes(memory, layout, head)
            if any(physical(memory, layout, node) in own for node in nodes):
                return registry
    return None


def _grows_to(memory: Memory, layout: Layout, root: int, links: Sequence[int], at: int) -> bool:
    """Whether an address in memory is in one of a tree's elements."""
    seen: set[int] = set()
    fresh = [root]
    while fresh and len(seen) < 1000:
        element = fresh.pop()
        where = physical(memory, layout, element) if element > _FIVE_LEVELS else None
        if where is None or element in seen:
            continue
        seen.add(element)
        if where <= at < where + max(links) + 8:
            return True
        fresh += (memory.word(where + link) for link in links)
    return False


def _is_netfilter(memory: Memory, layout: Layout, symbols: Symbols, found: SlabObject) -> bool:
    """Whether an object has the hooks of the first network namespace for one place.

    A struct nf_hook_entries (linux/netfilter.h) begins with their number, of two bytes. Then come
    a function and a word for each, and one more word for each. A struct net has its address.
    """
    net = symbols.address("init_net")
    if net is None:
        return False
    first, *words = as_words(memory.read(found.start, found.cache.size))
    functions = words[: 2 * first : 2]
    return (
        0 < first <= len(words) // 3
        and all(function > IMAGE for function in functions)
        and layout.direct + found.start
        in as_words(memory.read(net - IMAGE, symbols.size("init_net")))
    )


def _leads_to(memory: Memory, layout: Layout, element: int, step: int, at: int) -> bool:
    """Whether the pointer at an address in memory is that of one of a chain's elements."""
    seen: set[int] = set()
    while element > _FIVE_LEVELS and element not in seen and len(seen) < 1000:
        seen.add(element)
        where = physical(memory, layout, element + step)
        if where is None:
            return False
        if where == at:
            return True
        element = memory.word(where)
    return False
