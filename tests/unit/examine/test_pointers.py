# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/pointers.py: what points into a module that is gone, and what only seems to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.examine import layouts, locks, pointers, registries, structures
from harness.examine.structures import Layout, Symbols
from harness.qemu.memory import PAGE, FrozenMemory, Pointer
from tests.unit.examine.fake_kernel import (
    DIRECT,
    GONE,
    IMAGE,
    MODULES,
    OBJECT_SIZE,
    PERCPU,
    PLACES,
    SLAB_CACHE,
    VMALLOC,
    VMEMMAP,
    Kernel,
)

# -- the layout --------------------------------------------------------------------


def test_the_layout_is_found_out_and_kept(kernel: Kernel) -> None:
    """Where structures have what is told by what is known to be in them."""
    kernel.task("kthreadd", VMALLOC + 0x10000, VMALLOC + 0x13F00)
    layout = kernel.scene().layout
    assert (layout.slab_word, layout.cache_size) == (SLAB_CACHE // 8, OBJECT_SIZE)
    assert {cache.name: cache.wiped for cache in layout.slabs.values()} == {
        "filp": False, "kmem_cache": True, "task_struct": True,
    }  # fmt: skip
    assert (layout.stack, layout.comm, layout.tasks) == (32, 128, 64)
    assert layout.percpu == (DIRECT + PERCPU,)
    assert layout.mapped == {MODULES}
    assert Layout.from_json(layout.to_json()) == layout


def test_the_slab_caches_are_found_by_another_one_where_files_have_no_variable(
    kernel: Kernel,
) -> None:
    """As from 7.0 on."""
    kernel.page(kernel.caches["task_struct"] - DIRECT & -PAGE, "kmem_cache")
    kernel.word(PLACES["somewhere"], kernel.caches["task_struct"])
    places = {name: at for name, at in PLACES.items() if name not in ("filp_cachep", "somewhere")}
    places["task_struct_cachep"] = PLACES["somewhere"]
    before = kernel.scene().layout
    kernel.symbols = Symbols("\n".join(f"{IMAGE + at:x} D {name}" for name, at in places.items()))
    after = kernel.scene().layout
    assert (after.slabs, after.slab_word) == (before.slabs, before.slab_word)
    assert after.slab_word is not None


def test_a_kernel_that_is_elsewhere_is_not_read(kernel: Kernel) -> None:
    """As one that was not booted with nokaslr: its tables do not map themselves."""
    kernel.map(IMAGE + PLACES["init_top_pgt"], 0x5000)
    kernel.file.write_bytes(kernel.data)
    with FrozenMemory(kernel.file) as memory:
        assert layouts.learn(memory, kernel.symbols, "") is None
        assert layouts.learn(memory, Symbols(""), "") is None


@pytest.mark.parametrize(
    ("links", "plain"),
    [((0x80, 0), True), ((0, 0), False), ((0x12345678, 0), False), ((0x80, 0x12345678), False)],
)
def test_a_kernel_may_not_hide_the_links_between_free_objects(
    kernel: Kernel, links: tuple[int, int], plain: bool
) -> None:
    """The free object that a CPU hands out next tells it: it has the next one's address, or 0."""
    for number, link in enumerate(links):
        kernel.cache(f"cache-{number}", 64)
        about = kernel.caches[f"cache-{number}"] - DIRECT
        free = kernel.object(f"cache-{number}")
        kernel.word(about, 0x5000 + 8 * number)
        kernel.word(about + OBJECT_SIZE + 16, 32)
        kernel.word(PERCPU + 0x5000 + 8 * number, DIRECT + free)
        kernel.word(free + 32, DIRECT + free + link if link == 0x80 else link)
    assert kernel.scene().layout.link_at == (OBJECT_SIZE + 16 if plain else 0)


def test_where_no_module_has_been_yet_its_beginning_is_looked_for(kernel: Kernel) -> None:
    """The kernel has that address in variables, which point to nothing then."""
    scene = kernel.scene()
    area = structures.module_area(scene.memory, scene.layout)
    assert structures.spans(area) == [(MODULES, MODULES + (2 << 20))]
    unused = replace(area, tables=(), mapped=frozenset(), end=area.start)
    assert all(any(start <= one < end for start, end in structures.spans(unused))
               for one in (0xFFFFFFFFA0000000, MODULES))  # fmt: skip


def test_what_is_unmapped_is_gone_and_its_table_stays(kernel: Kernel) -> None:
    """That a module was there is seen even if it came and went unseen."""
    kernel.map(MODULES + (2 << 20), kernel.take())
    kernel.map(MODULES + (2 << 20), None)
    scene = kernel.scene()
    area = structures.module_area(scene.memory, scene.layout)
    assert area.mapped == {MODULES}
    assert (area.start, area.end) == (MODULES, MODULES + (4 << 20))
    assert len(area.tables) == 4  # of each GiB, and of each two MiB
    left = [Pointer(8, MODULES + 16), Pointer(16, GONE)]
    assert pointers.dangling(left, area.mapped) == [Pointer(16, GONE)]


@pytest.mark.parametrize("large", [False, True])
def test_code_that_is_gone_may_stay_mapped(kernel: Kernel, large: bool) -> None:
    """There is nothing but int3 there, from 6.13 on, in a page of two MiB or in one of its own."""
    start, first = MODULES + (2 << 20), 0x400000
    kernel.map(start, first)
    for page in range(1, 512):
        kernel.map(start + page * PAGE, first + page * PAGE)
    if large:
        table = PLACES["init_top_pgt"]
        for shift in (39, 30):
            table = kernel.read(table + 8 * (start >> shift & 511)) & -PAGE
        kernel.word(table + 8 * (start >> 21 & 511), first | 0x83)
    kernel.data[first : first + (2 << 20)] = b"\xcc" * (2 << 20)
    kernel.word(first + 5 * PAGE + 0x800, 0)
    kernel.word(first + 7 * PAGE, 0)
    scene = kernel.scene()
    assert not scene.layout.keeps_code  # or else each page would be read, each time
    area = structures.module_area(scene.memory, scene.layout)
    assert area.mapped == {MODULES, *range(start, start + (2 << 20), PAGE)}
    keeping = Symbols(f"{kernel.kallsyms}\n{IMAGE + 0x100:x} t execmem_cache_add_locked")
    layout = layouts.learn(scene.memory, keeping, "")
    assert layout is not None
    area = structures.module_area(scene.memory, layout)
    assert area.mapped == {MODULES, start + 5 * PAGE, start + 7 * PAGE}
    assert area.tables == structures.area_tables(scene.memory, layout)


# -- what counts -------------------------------------------------------------------


def test_a_pointer_in_static_data_or_in_an_object_counts(kernel: Kernel) -> None:
    """Freed objects are cleared, so what holds a pointer is in use."""
    kernel.cache("kmalloc-64", 64)
    static, inside = PLACES["somewhere"] + 8, kernel.object("kmalloc-64") + 64 + 8
    assert kernel.references(static, inside) == [static, inside]


def test_what_the_module_loader_leaves_does_not(kernel: Kernel) -> None:
    """The limits of all modules are never made smaller."""
    assert kernel.references(PLACES["mod_tree"] + 0x20) == []


@pytest.mark.parametrize(
    ("before", "counts"),
    [
        ([(1 << 64) - 1] * 4, False),
        ([0, *[(1 << 64) - 1] * 3], True),  # as a mask of all CPUs may be
        ([(1 << 64) - 2] * 4, True),
    ],
)
def test_the_end_of_a_run_of_set_bits_does_not(
    kernel: Kernel, before: list[int], counts: bool
) -> None:
    """A bitmap may have any value, and this one begins like an address of a module's."""
    place = PLACES["somewhere"] + 0x40
    kernel.word(place - 32, *before)
    assert kernel.references(place) == ([place] if counts else [])


@pytest.mark.parametrize(
    ("before", "at", "after", "counts"),
    [
        (VMALLOC + 0x3000, MODULES + 0x5000, 0, False),  # where an area ends
        (DIRECT + 0x40, MODULES + 0x5000, MODULES + 0x9000, False),  # where one begins
        (0, MODULES + 0x5000, (1 << 64) - 1, False),  # the last hole
        (DIRECT + 0x1000, MODULES + 0x5000, 0, True),
        (0, MODULES + 0x5000, MODULES + 0x9010, True),
        (0, MODULES + 0x5010, MODULES + 0x9000, True),
    ],
)
def test_an_area_that_ends_or_begins_there_does_not(
    kernel: Kernel, before: int, at: int, after: int, counts: bool
) -> None:
    """Areas and holes between them have neighbours; a registered object is no whole page."""
    kernel.cache("vmap_area", 64)
    place = kernel.object("vmap_area") + 8
    kernel.word(place - 8, before, at, after)
    assert kernel.references(place) == ([place] if counts else [])


@pytest.mark.parametrize(
    ("cache", "at", "counts"),
    [
        ("maple_node", MODULES + 0x5000, False),
        ("maple_node", MODULES + 0x5FFF, False),
        ("maple_node", MODULES + 0x5010, True),
        ("kmalloc-64", MODULES + 0x5000, True),
    ],
)
def test_the_tree_of_free_areas_for_code_does_not(
    kernel: Kernel, cache: str, at: int, counts: bool
) -> None:
    """It has where each begins and ends."""
    kernel.cache(cache, 256)
    place = kernel.object(cache) + 8
    kernel.word(place, at)
    assert kernel.references(place) == ([place] if counts else [])


@pytest.mark.parametrize("cache", ["kmemleak_object", "debug_objects_cache", "kmalloc-64"])
def test_what_the_kernel_notes_of_an_object_does_not(kernel: Kernel, cache: str) -> None:
    """It has the address of each, and follows none."""
    kernel.cache(cache, 64)
    at = kernel.object(cache) + 8
    assert kernel.references(at) == ([at] if cache == "kmalloc-64" else [])


def test_what_kasan_says_is_freed_does_not(kernel: Kernel) -> None:
    """What is freed is not handed out for a while, and stays as it is. A stack is another thing."""
    kernel.cache("kmalloc-64", 64)
    first = kernel.object("kmalloc-64")
    kernel.kasan(first, 0, 0xFB, 0xFA, 0xFC, 0xF2, 0x04)
    freed = kernel.take()
    kernel.kasan(freed, *[0xFF] * 64)
    places = [*range(first, first + 48, 8), freed + 0x100]
    assert kernel.references(*places) == [first, first + 32, first + 40]


def test_the_call_stacks_that_kasan_keeps_do_not(kernel: Kernel) -> None:
    """They are in pools, the places of which are in an array."""
    kernel.symbols = Symbols(
        f"{kernel.kallsyms}\n{IMAGE + PLACES['somewhere'] + 8:x} b stack_pools"
    )
    pools = [0x500000, 0x540000]
    kernel.word(PLACES["somewhere"] + 8, *(DIRECT + pool for pool in pools))
    others = [pool + 0x4000 for pool in pools]
    assert kernel.references(*(place + 0x100 for pool in pools for place in (pool, pool + 0x3000)),
                             *(place + 0x100 for place in others)) == [
        place + 0x100 for place in others
    ]  # fmt: skip


def with_lockdep(kernel: Kernel, variable: str = "stack_trace") -> None:
    """A kernel that has lockdep, and a variable at one of the places."""
    more = f"{IMAGE + 0x100:x} T lock_acquire\n{IMAGE + PLACES['somewhere']:x} b {variable}"
    kernel.symbols = Symbols(f"{kernel.kallsyms}\n{more}")


@pytest.mark.parametrize(
    "variable", ["stack_trace", "lock_classes", "other_infos", "mem_pool", "max_addr", "any_other"]
)
def test_what_lockdep_and_kcsan_keep_does_not(kernel: Kernel, variable: str) -> None:
    """They have seen locks and races in a module's code. What is behind it is another variable."""
    with_lockdep(kernel, variable)
    own, behind = PLACES["somewhere"] + 0x80, PLACES["__init_end"] + 0x80
    assert kernel.references(own, behind) == ([own] if variable == "any_other" else []) + [behind]


def test_what_kcsan_keeps_for_each_cpu_does_not(kernel: Kernel) -> None:
    """In a per-CPU variable, whose own address is small."""
    kernel.symbols = Symbols(f"{kernel.kallsyms}\n0000000000001400 A kcsan_cpu_ctx")
    own, other = PERCPU + 0x1408, PERCPU + 0x1008
    assert kernel.references(own, other) == [other]


@pytest.mark.parametrize("lockdep", [True, False])
def test_where_a_task_took_a_lock_does_not(kernel: Kernel, lockdep: bool) -> None:
    """Each task has that, the first one too. Without lockdep it points to nothing by itself."""
    if lockdep:
        with_lockdep(kernel)
    first, task = PLACES["init_task"] + 0x400, kernel.object("task_struct") + 0x400
    other = kernel.object("kmem_cache") + 8
    assert kernel.references(first, task, other) == [*([] if lockdep else [first, task]), other]


@pytest.mark.parametrize(("active", "counts"), [(0x80000001, False), (0, True), (1, True)])
def test_a_node_of_sysfs_that_was_removed_does_not(
    kernel: Kernel, active: int, counts: bool
) -> None:
    """One that is still there does: its attribute's functions can be called."""
    kernel.cache("kernfs_node_cache", 128)
    node = kernel.object("kernfs_node_cache")
    kernel.word(node, active << 32 | 2)
    assert kernel.references(node + 96) == ([node + 96] if counts else [])


@pytest.mark.parametrize(("in_use", "counts"), [(0x80000000, False), (0, True), (3, True)])
def test_an_entry_of_proc_that_was_removed_while_it_is_open_does_not(
    kernel: Kernel, in_use: int, counts: bool
) -> None:
    """One that is still there does."""
    kernel.cache("proc_dir_entry", 192)
    entry = kernel.object("proc_dir_entry")
    kernel.word(entry, 2 << 32 | in_use)
    assert kernel.references(entry + 40) == ([entry + 40] if counts else [])


@pytest.mark.parametrize(
    ("going", "root", "counts"),
    [(-22 % (1 << 64), "iomem_resource", False), (0, "iomem_resource", True), (1, "_end", True)],
    ids=["taken away", "still there", "something else"],
)
def test_a_table_of_sysctl_that_was_taken_away_while_it_is_open_does_not(
    kernel: Kernel, going: int, root: str, counts: bool
) -> None:
    """Neither where its header nor where a file's inode points to it."""
    kernel.cache("kmalloc-cg-128", 128)
    kernel.cache("proc_inode_cache", 704)
    header, inode = kernel.object("kmalloc-cg-128"), kernel.object("proc_inode_cache")
    kernel.word(header + 24, going)
    kernel.word(header + 40, IMAGE + PLACES[root])
    kernel.word(inode + 32, DIRECT + header)
    places = [header, header + 32, inode + 40]
    assert kernel.references(*places) == (sorted(places) if counts else [])


def traced(kernel: Kernel) -> tuple[list[int], int]:
    """Pages of tracing, two of a ring and the one that a reader was given; and who has them."""
    kernel.cache("kmalloc-64", 64)
    slab, owner = kernel.object("kmalloc-64"), kernel.object("task_struct")
    pages = [kernel.take() for _ in range(3)]
    nodes = [DIRECT + slab + 64 * number for number in range(3)]
    for number, after in ((0, 1), (1, 0), (2, 2)):
        flag = 1 if number else 0
        kernel.word(slab + 64 * number, nodes[after] | flag, nodes[after], 0, 0, 0, 0xFE4)
        kernel.word(slab + 64 * number + 56, DIRECT + pages[number])
        kernel.word(pages[number], 0x2AF2B086B, 0)  # when its first event was; it was emptied
    kernel.word(owner + 512, nodes[0], 5, nodes[0], nodes[0], nodes[0], nodes[2])
    return pages, owner


def test_what_tracing_has_recorded_does_not(kernel: Kernel) -> None:
    """Wherever in its pages, of which one is in no ring."""
    pages, _ = traced(kernel)
    other = kernel.take()
    assert kernel.references(*(page + 56 for page in pages), other + 56) == [other + 56]


@pytest.mark.parametrize("word", [PAGE, GONE, DIRECT + 0x1000])
def test_a_page_that_does_not_begin_as_those_of_tracing_counts(kernel: Kernel, word: int) -> None:
    """A module may have pages in a ring of its own."""
    (first, second, _), _ = traced(kernel)
    kernel.word(first + 8, word)
    kernel.word(second + 8, word)
    assert kernel.references(first + 56, second + 56) == [first + 56, second + 56]


def test_a_page_that_nobody_has_in_a_ring_counts(kernel: Kernel) -> None:
    """The one who has its descriptor has no ring beside that."""
    (*_, alone), owner = traced(kernel)
    assert kernel.references(alone + 56) == []
    kernel.word(owner + 512 + 16, 0)
    assert kernel.references(alone + 56) == [alone + 56]


@pytest.mark.parametrize(("name", "counts"), [("kworker/0:1", False), ("left_behind", True)])
def test_what_a_worker_did_last_does_not(kernel: Kernel, name: str, counts: bool) -> None:
    """The kernel only writes it down; what others keep beside a task's address counts."""
    kernel.cache("kmalloc-192", 192)
    kernel.task(name, VMALLOC + 0x10000, VMALLOC + 0x13F00)
    worker = kernel.object("kmalloc-192")
    kernel.word(worker + 72, kernel.read(PLACES["init_task"] + 64) - 64)
    assert kernel.references(worker + 128) == ([worker + 128] if counts else [])


def test_that_a_loaded_module_points_to_its_own_init_section_does_not(kernel: Kernel) -> None:
    """In its own memory, and in the list of its sections beside those that are there."""
    kernel.cache("kmalloc-192", 192)
    kernel.map(MODULES + 0x9000, kernel.take())
    scene = kernel.scene()
    layout = replace(scene.layout, mapped=frozenset({MODULES}))
    own, sections, other = kernel.take(), kernel.object("kmalloc-192"), PLACES["somewhere"]
    kernel.map(MODULES + 0x9000, own)
    kernel.word(sections + 64, MODULES + 0x9010)
    kernel.file.write_bytes(kernel.data)
    area = structures.module_area(scene.memory, layout)
    told = [
        pointers.of_a_loaded_module(scene.memory, layout, area, Pointer(at, GONE))
        for at in (own + 8, sections + 8, other)
    ]
    assert told == [True, True, False]


@pytest.mark.parametrize(
    ("start", "size", "own"),
    [(VMALLOC + 0x9000, 0x5000, True), (VMALLOC + 0x9008, 0x5000, False),
     (DIRECT + 0x9000, 0x5000, False), (VMALLOC + 0x9000, 0, False)],
)  # fmt: skip
def test_that_an_area_says_which_init_has_asked_for_it_does_not(
    kernel: Kernel, start: int, size: int, own: bool
) -> None:
    """While a module is loaded; the same address elsewhere in an area's description counts."""
    kernel.cache("kmalloc-96", 96)
    kernel.map(MODULES + 0x9000, kernel.take())
    scene = kernel.scene()
    layout = replace(scene.layout, mapped=frozenset({MODULES}))
    described = kernel.object("kmalloc-96")
    kernel.word(described + 8, start)
    kernel.word(described + 16, size)
    kernel.file.write_bytes(kernel.data)
    area = structures.module_area(scene.memory, layout)
    told = [
        pointers.of_a_loaded_module(scene.memory, layout, area, Pointer(described + at, GONE))
        for at in (56, 64, 72)
    ]
    assert told == [own, own, False]


@pytest.mark.parametrize("mapping", [DIRECT + 0x4001, DIRECT + 0x4000], ids=["process", "file"])
def test_what_a_program_has_written_down_does_not(kernel: Kernel, mapping: int) -> None:
    """As one that reads addresses in /proc/kallsyms."""
    page = kernel.take()
    kernel.page(page, mapping=mapping)
    assert kernel.references(page + 8) == []


def test_an_object_that_is_not_cleared_counts_while_something_points_to_it(kernel: Kernel) -> None:
    """As a file that is open, beside one that was closed; the module may be gone in both."""
    closed = kernel.object("filp")
    opened = closed + 256
    assert kernel.references(closed + 176, opened + 176) == []
    kernel.cache("kmalloc-64", 64)
    kernel.word(kernel.object("kmalloc-64"), DIRECT + opened)  # a table of descriptors
    assert kernel.references(closed + 176, opened + 176) == [opened + 176]


def test_objects_that_are_not_cleared_keep_one_another_alive(kernel: Kernel) -> None:
    """As the nodes of a tree, whose root is elsewhere; without the root they are all dead."""
    kernel.cache("radix_tree_node", 512, wiped=False)
    root = kernel.object("radix_tree_node")
    leaf = root + 512
    kernel.word(root + 40, DIRECT + leaf | 2)  # entries are tagged in their lower bits
    assert kernel.references(leaf + 40) == []
    kernel.word(PLACES["somewhere"], DIRECT + root | 2)
    assert kernel.references(leaf + 40) == [leaf + 40]


def test_that_the_allocator_has_it_does_not_make_an_object_alive(kernel: Kernel) -> None:
    """Lists of free objects begin in a struct page and in what each CPU has, or are a sheaf."""
    closed = kernel.object("filp")
    kernel.word(0x800000 + closed // PAGE * 64 + 32, DIRECT + closed)
    kernel.word(kernel.caches["filp"] - DIRECT, 0x1800)  # cpu_slab, a per-CPU address
    kernel.word(PERCPU + 0x1800, DIRECT + closed)
    kernel.cache("kmalloc-256", 256)
    sheaf = kernel.object("kmalloc-256")
    kernel.word(sheaf + 16, kernel.caches["filp"], 1, DIRECT + closed)
    assert kernel.references(closed + 176) == []


def test_old_addresses_that_a_cpu_has_do_not_make_an_object_alive(kernel: Kernel) -> None:
    """A CPU keeps freed objects for the next use, and their addresses stay when they are gone.

    Another slab cache has their memory by then: there is now a closed file (or a part of it).
    """
    closed = kernel.object("filp")
    kernel.word(PERCPU + 0x1F18, DIRECT + closed, DIRECT + closed + 256 + 64)
    assert kernel.references(closed + 176, closed + 256 + 176) == []


def test_an_address_within_a_file_does_not_make_it_alive(kernel: Kernel) -> None:
    """Who holds a file has the address of its beginning, maybe with flags in its lower bits."""
    closed = kernel.object("filp")
    opened = closed + 256
    kernel.cache("kmalloc-64", 64)
    kernel.word(kernel.object("kmalloc-64"), DIRECT + closed + 64, DIRECT + opened | 1)
    assert kernel.references(closed + 176, opened + 176) == [opened + 176]


@pytest.mark.parametrize("place", ["a page", "the init section", "the first task's stack"])
def test_unknown_holders_do_not_make_an_object_alive(kernel: Kernel, place: str) -> None:
    """Memory that is nobody's or anybody's holds old addresses."""
    at = {
        "a page": kernel.take(),
        "the init section": PLACES["__init_begin"],
        "the first task's stack": PLACES["init_stack"],
    }[place]
    closed = kernel.object("filp")
    kernel.word(at + 0x200, DIRECT + closed)
    assert kernel.references(closed + 176) == []


def test_a_stack_counts_where_its_task_uses_it(kernel: Kernel) -> None:
    """Below the stack pointer lies what was there before."""
    start, last = kernel.stack()
    kernel.task("left_behind", start, start + 3 * PAGE + 0x800)
    assert kernel.references(last + 0x7F8, last + 0x800) == [last + 0x800]


def test_the_stack_of_a_task_that_has_ended_does_not_count(kernel: Kernel) -> None:
    """The kernel keeps a few for the next ones, as they are."""
    start, last = kernel.stack()
    kernel.task("another", start + (1 << 20), start + (1 << 20) + 8)
    assert kernel.references(last + 0x800) == []


# -- in words ----------------------------------------------------------------------


def described(kernel: Kernel, at: int) -> tuple[str, str]:
    kernel.word(at, GONE)
    found = registries.describe(kernel.scene(), kernel.symbols, Pointer(at, GONE))
    return found.holder, found.forgotten


def test_a_chain_is_named_by_its_head(kernel: Kernel) -> None:
    """What points to the module is the element before it, which is nobody's fault."""
    head, first = PLACES["reboot_notifier_list"], PLACES["fw_shutdown_nb"]
    kernel.word(head + 0x18, IMAGE + first)
    said = ("reboot_notifier_list", "unregister_reboot_notifier() was not called")
    assert described(kernel, first + 8) == said
    assert described(kernel, head + 0x18) == said


def test_a_list_that_goes_round_ends(kernel: Kernel) -> None:
    """What is not in it is named by itself."""
    head, other = PLACES["formats"], PLACES["script_format"]
    kernel.word(head, IMAGE + other, IMAGE + other)
    kernel.word(other, IMAGE + head)
    assert described(kernel, PLACES["somewhere"] + 8) == ("somewhere", "")


def shrinker(kernel: Kernel) -> int:
    """An object that the kernel has made for who registers a shrinker; its physical address."""
    kernel.cache("kmalloc-128", 128)
    at, head = kernel.object("kmalloc-128"), PLACES["shrinker_list"]
    kernel.append(head, IMAGE + head, DIRECT + at + 64, at + 64)
    return at


def test_an_object_is_named_by_the_list_that_it_is_in(kernel: Kernel) -> None:
    """Wherever in it the module is pointed to."""
    at = shrinker(kernel)
    said = ("shrinker_list", "unregister_shrinker() or shrinker_free() was not called")
    assert described(kernel, at + 8) == said
    assert described(kernel, at + 128 + 8)[0] == "an object of the slab cache kmalloc-128"


def test_who_would_be_called_when_caches_are_freed_is_known(kernel: Kernel) -> None:
    """A function in an object of the list's, or an element of it that was in the module."""
    at = shrinker(kernel)
    assert pointers.would_be_called(kernel.scene(), [Pointer(at, GONE)])
    assert not pointers.would_be_called(kernel.scene(), [Pointer(at + 128, GONE)])
    assert not pointers.would_be_called(kernel.scene(), [Pointer(0x9008, GONE)])
    kernel.word(at + 64, GONE)
    assert pointers.would_be_called(kernel.scene(), [Pointer(at + 64, GONE)])


@pytest.mark.parametrize(
    ("counts", "held"),
    [
        ((0, 0), []),
        ((1, 0), ["cpu_hotplug_lock"]),
        ((-1, 1), []),
        ((-1, 2), ["cpu_hotplug_lock"]),
    ],
)
def test_the_readers_of_a_lock_are_counted_on_all_cpus(
    kernel: Kernel, counts: tuple[int, int], held: list[str]
) -> None:
    """One may begin on one CPU and end on another; the count is of four bytes."""
    kernel.word(PLACES["__per_cpu_offset"] + 8, DIRECT + PERCPU + 0x4000)
    for cpu, count in enumerate(counts):
        kernel.word(PERCPU + 0x4000 * cpu + 0x1800, (count % (1 << 32) << 32) + 7)
    scene = kernel.scene()
    assert locks.held_by_readers(scene.memory, scene.layout) == held


@pytest.mark.parametrize("step", [0, 56])
def test_a_file_system_is_named_by_the_list_of_all(kernel: Kernel, step: int) -> None:
    """The one before it may be a variable of the kernel's; where `next` is differs."""
    first, second = kernel.take(), kernel.take()
    kernel.word(PLACES["file_systems"], DIRECT + first)
    kernel.word(first + step, DIRECT + second)
    said = ("file_systems", "unregister_filesystem() was not called")
    assert described(kernel, second + step) == said
    assert described(kernel, second + step + 8)[0] != "file_systems"


def test_a_region_is_named_wherever_it_is_in_the_tree(kernel: Kernel) -> None:
    """It has the module's name for it. Here it is below the second one."""
    kernel.cache("kmalloc-64", 64)
    first, second, last = (kernel.object("kmalloc-64") for _ in range(3))
    kernel.word(PLACES["iomem_resource"] + 56, DIRECT + first)
    kernel.word(first + 48, DIRECT + second)
    kernel.word(second + 56, DIRECT + last)
    kernel.word(last + 40, DIRECT + second)
    said = ("iomem_resource", "release_mem_region() was not called")
    assert described(kernel, last + 16) == said
    assert described(kernel, last + 64 + 16)[0] == "an object of the slab cache kmalloc-64"


@pytest.mark.parametrize(("count", "known"), [(2, True), (0, False), (3, False), (1 << 20, False)])
def test_hooks_of_netfilter_are_named(kernel: Kernel, count: int, known: bool) -> None:
    """By what an object has that the network namespace points to."""
    kernel.cache("kmalloc-64", 64)
    at = kernel.object("kmalloc-64")
    kernel.word(at, count, IMAGE + 16, 0, GONE, 0, 0)
    kernel.word(PLACES["init_net"] + 0x800, DIRECT + at)
    said = ("init_net's netfilter", "nf_unregister_net_hook() was not called")
    assert (described(kernel, at + 48) == said) == known
    kernel.word(PLACES["init_net"] + 0x800, 0)
    assert described(kernel, at + 48) != said


def test_a_table_is_named_wherever_it_points_from(kernel: Kernel) -> None:
    said = ("cpuhp_hp_states", "cpuhp_remove_state() was not called")
    assert described(kernel, PLACES["cpuhp_hp_states"] + 0xFC0) == said


def test_a_variable_of_a_cpu_is_named(kernel: Kernel) -> None:
    said = ("timer_bases", "timer_delete_sync() or cancel_delayed_work_sync() was not called")
    assert described(kernel, PERCPU + 0x1480) == said


@pytest.mark.parametrize(
    ("cache", "undo"),
    [
        ("proc_dir_entry", "remove_proc_entry() or proc_remove()"),
        ("kmem_cache", "kmem_cache_destroy()"),
    ],
)
def test_an_object_is_named_by_its_cache(kernel: Kernel, cache: str, undo: str) -> None:
    kernel.cache(cache, 256)
    assert described(kernel, kernel.object(cache) + 0x40) == (
        f"an object of the slab cache {cache}", f"{undo} was not called",
    )  # fmt: skip


def test_a_stack_is_named_by_its_task(kernel: Kernel) -> None:
    start, last = kernel.stack()
    kernel.task("left_behind", start, start + 3 * PAGE)
    holder, forgotten = described(kernel, last + 0x800)
    assert (holder, forgotten) == ("the stack of left_behind", "kthread_stop() was not called")


@pytest.mark.parametrize("masked", [False, True])
def test_a_page_is_told_by_the_first_one_of_its_block(kernel: Kernel, masked: bool) -> None:
    """A struct page has the first one's address, or a mask for its own."""
    kernel.cache("kmalloc-8k", 2 * PAGE)
    first = kernel.take(3) + PAGE & -2 * PAGE
    kernel.page(first, "kmalloc-8k")
    head = VMEMMAP + first // PAGE * 64
    kernel.word(0x800000 + first // PAGE * 64 + 64 + 8, (-128 if masked else head) | 1)
    scene = kernel.scene()
    found = structures.slab_object(scene.memory, scene.layout, first + PAGE + 0x40)
    assert found is not None
    assert (found.cache.name, found.start) == ("kmalloc-8k", first)


def test_what_is_below_the_image_has_no_symbol(kernel: Kernel) -> None:
    """What is below it is memory like any other."""
    assert described(kernel, 0x9008) == ("a page of the kernel's (at 0x9008)", "")


@pytest.mark.parametrize("own", [False, True], ids=["by tracing", "by the module"])
def test_a_probe_is_a_reference_by_its_handler(kernel: Kernel, own: bool) -> None:
    """The address that it is at is marked as gone by the kernel; a handler is called."""
    kernel.cache("kmalloc-256", 256)
    at = kernel.object("kmalloc-256") + 32
    node = DIRECT + at + 16
    handler = GONE if own else IMAGE + PLACES["somewhere"]
    kernel.word(at, 0, IMAGE + PLACES["formats"], node, node, 0, GONE, 0, 0, handler)
    found = kernel.references(at + 40, *([at + 64] if own else []))
    assert found == ([at + 40, at + 64] if own else [])
    kernel.word(at + 16, 0, 0)  # it is no probe
    assert at + 40 in kernel.references(at + 40)


def test_what_an_interrupt_has_left_on_the_idle_tasks_stack_is_no_reference(
    kernel: Kernel,
) -> None:
    """That of the first CPU's idle task is in the midst of the kernel's variables."""
    kernel.task("kthreadd", VMALLOC + 0x20000, VMALLOC + 0x23F00)
    stack, variable = PLACES["init_stack"] + 0x3C58, PLACES["somewhere"]
    assert kernel.references(stack, variable) == [variable]
    assert kernel.references(PLACES["init_stack"] + 0x4000) == [PLACES["init_stack"] + 0x4000]
