# SPDX-License-Identifier: GPL-2.0-only
"""Where a kernel keeps what in its memory: found out once, when its template is frozen.

A structure's fields are where its kernel was configured to have them. Debian's kernels say nothing
of that, so that it is found out from objects that are known.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.examine.structures import (
    DIRECT,
    IMAGE,
    VMALLOC,
    VMEMMAP,
    WAITERS,
    Layout,
    SlabCache,
    Symbols,
    block_of,
    list_nodes,
    module_area,
    text_at,
    walk,
    word_at,
)
from harness.qemu.memory import PAGE, Memory

# Where the loader leaves addresses of modules that are gone, none of which is followed:
# kernel/module/tree_lookup.c (the lowest and the highest address of all modules; static in
# kernel/module.c before 5.19), arch/x86/kernel/unwind_orc.c (what it has sorted last).
_LOADER = ("mod_tree", "module_addr_min", "module_addr_max", "cur_orc_table", "cur_orc_ip_table")

# Where lockdep (kernel/locking/lockdep.c) and KCSAN (kernel/kcsan) keep call stacks, and addresses
# of code that had something to do with a lock or a race, and kmemleak (mm/kmemleak.c) those of what
# was allocated early, and the lowest and the highest of all. They follow none.
_OBSERVERS = (
    "stack_trace", "lock_classes", "other_infos", "report_times", "kcsan_cpu_ctx", "mem_pool",
    "min_addr", "max_addr",
)  # fmt: skip

# What is in the names of functions of a kernel that keeps pages with modules' code (mm/execmem.c).
_KEEPS_CODE = "execmem_cache"

# Functions that only a kernel with each of these has.
_LOCKDEP, _KMEMLEAK, _KASAN = "lock_acquire", "kmemleak_alloc", "kasan_report"
_SHADOW = 0xDFFFFC0000000000  # CONFIG_KASAN_SHADOW_OFFSET (arch/x86/Kconfig)


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

    direct = variable("page_offset_base", DIRECT)
    # The array has an entry for each CPU that the kernel could have. What it says of one that is
    # not there points to no memory, but to where the variables' initial values were.
    offsets, percpu = symbols.address("__per_cpu_offset"), []
    first = symbols.address("__per_cpu_start") or 0
    for place in range(0, min(symbols.size("__per_cpu_offset"), 8 * 64), 8):
        offset = memory.word((offsets or 0) - IMAGE + place)
        if 0 <= (offset + first) % (1 << 64) - direct < memory.size and offset not in percpu:
            percpu.append(offset)
    layout = Layout(
        tables=root - IMAGE,
        direct=direct,
        vmemmap=variable("vmemmap_base", VMEMMAP),
        vmalloc=variable("vmalloc_base", VMALLOC),
        percpu=tuple(percpu),
        slabs={},
        slab_word=None,
        loader=tuple(_not_followed(symbols, [offset - direct for offset in percpu])),
        variables=_variables(symbols),
        shrinkers=symbols.address("shrinker_list") or 0,
        readers=_readers(symbols),
        lists_waiters=_lists_waiters(memory, symbols),
        keeps_code=any(_KEEPS_CODE in name for name in symbols.names),
        lockdep=symbols.address(_LOCKDEP) is not None,
        kmemleak=symbols.address(_KMEMLEAK) is not None,
        shadow=_SHADOW if symbols.address(_KASAN) is not None else 0,
        depot=(symbols.address("stack_pools") or IMAGE) - IMAGE,
    )
    if walk(memory, layout, root) != layout.tables:
        return None
    facts = asdict(layout) | {"mapped": module_area(memory, layout).mapped}
    facts |= _learn_slabs(memory, layout, symbols, slab_files)
    return Layout(**facts | _learn_tasks(memory, layout, symbols, facts["slabs"]))


def _not_followed(symbols: Symbols, parts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The variables in which the loader and lockdep leave addresses: ranges of physical ones.

    ``parts`` are what is added to a per-CPU variable's address for each CPU.
    """
    percpu = range(symbols.address("__per_cpu_start") or 0, symbols.address("__per_cpu_end") or 0)
    # The first task is a variable. With lockdep each has such addresses, see pointers.py.
    tasks = ("init_task",) if symbols.address(_LOCKDEP) is not None else ()
    for name in (*_LOADER, *_OBSERVERS, *tasks):
        start, size = symbols.address(name), max(8, symbols.size(name))
        if start is not None:
            for part in parts if start in percpu else [-IMAGE]:
                at = (start + part) % (1 << 64)
                yield at, at + size


# Locks of the kernel's that a module can have as a reader without being in anybody's way: but for
# whoever plugs in a CPU, which nobody does.
_READ = ("cpu_hotplug_lock",)


def _readers(symbols: Symbols) -> dict[str, int]:
    """Where the readers of a static struct percpu_rw_semaphore are counted.

    The names are those of DEFINE_STATIC_PERCPU_RWSEM() in linux/percpu-rwsem.h.
    """
    found = {name: symbols.address(f"__percpu_rwsem_rc_{name}") for name in _READ}
    return {name: address for name, address in found.items() if address is not None}


# A lock of the kernel's that nobody waits for when a machine is frozen.
_A_MUTEX = "module_mutex"


def _lists_waiters(memory: Memory, symbols: Symbols) -> bool:
    """Whether a struct mutex has a list of who waits for it: one that is empty points to itself."""
    address = symbols.address(_A_MUTEX)
    if address is None:
        return False
    waiters = address + WAITERS
    return memory.word(waiters - IMAGE) == waiters


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
    link = _link_at(memory, layout, slabs, size)
    return {"slabs": slabs, "slab_word": word, "cache_size": size, "link_at": link}


def _size_at(memory: Memory, layout: Layout, slabs: Mapping[int, SlabCache]) -> int:
    """Where a struct kmem_cache has ``size``: what is right for all caches that are known."""
    right = set(range(0, 128, 4))
    for cache, about in slabs.items():
        data = memory.read(cache - layout.direct, 128)
        right &= {at for at in right if data[at : at + 4] == about.size.to_bytes(4, "little")}
    return min(right, default=0) if slabs else 0


# How far behind ``size`` a struct kmem_cache has ``offset`` (mm/slab.h), in bytes.
_OFFSET = 16
_SLAB_BITS = 16  # so many bits of an address change within a slab


def _link_at(memory: Memory, layout: Layout, slabs: Mapping[int, SlabCache], size_at: int) -> int:
    """Where a struct kmem_cache has ``offset``, if the links between free objects are not hidden.

    Then that is what the free objects say which a CPU hands out next: each has the address of the
    next one of its slab, or 0. Their first one is in a struct kmem_cache_cpu, whose per-CPU address
    a struct kmem_cache begins with.
    """
    links = []
    for cache in slabs:
        about = cache - layout.direct
        inside = int.from_bytes(memory.read(about + size_at + _OFFSET, 4), "little")
        for cpu in layout.percpu:
            head = word_at(memory, layout, (memory.word(about) + cpu) % (1 << 64))
            if 0 <= head - layout.direct < memory.size:
                links.append((head, memory.word(head - layout.direct + inside)))
    plain = all(not link or link >> _SLAB_BITS == head >> _SLAB_BITS for head, link in links)
    return size_at + _OFFSET if plain and any(link for _, link in links) else 0


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
    return name.isprintable() and name != "" and start % PAGE == 0 and start >= layout.vmalloc
