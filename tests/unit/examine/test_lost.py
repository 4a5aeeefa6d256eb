# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/lost.py: what nobody has any more, and how it is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.examine import lost
from harness.examine.allocations import PAGES, PERCPU, Allocation, Reader
from harness.examine.lost import Lost, Made, Search
from harness.examine.record import Record
from harness.examine.structures import Symbols
from harness.qemu.memory import PAGE
from tests.unit.examine.fake_kernel import (
    DIRECT,
    IMAGE,
    MODULES,
    PLACES,
    VMALLOC,
    VMEMMAP,
    Kernel,
)
from tests.unit.examine.fake_kernel import (
    PERCPU as CPU,
)

MODULE = MODULES + 0x5010
STACK = (IMAGE + PLACES["somewhere"], MODULE, IMAGE + PLACES["formats"])


def search(
    kernel: Kernel, *others: tuple[int, int], may_be_loaded: Made = lambda *_: False
) -> Search:
    def gone(address: int) -> bool:
        return MODULES + 0x5000 <= address < MODULES + 0x6000

    record = Record(((0x300000,),), {}, others=others)
    return Search(kernel.scene(), record, lambda: kernel.symbols, gone, may_be_loaded=may_be_loaded)


def taken(kernel: Kernel, size: int = 64, event: str = "kmalloc", order: int = 1) -> Allocation:
    """An object, or pages, that the module has allocated."""
    if event == PAGES:
        at = kernel.take(size // PAGE)
        kernel.word(0x800000 + at // PAGE * 64 + 48, 1 << 32)
    else:
        if "kmalloc-64" not in kernel.caches:
            kernel.cache("kmalloc-64", 64)
        at = kernel.object("kmalloc-64")
    return Allocation(event, DIRECT + at, size, order, STACK)


def lost_of(kernel: Kernel, *found: Allocation) -> list[int]:
    """Which of them are lost, by their order."""
    return [one.orders[0] for one in search(kernel).lost(found)]


def test_what_nobody_points_to_is_lost(kernel: Kernel) -> None:
    """It is told with its size, who allocated it and where it is."""
    one = taken(kernel)
    at = one.address - DIRECT
    assert search(kernel).lost([one]) == [
        Lost(
            64, "somewhere", f" somewhere+0x0/0x3000\n {MODULE:#018x}\n formats+0x0/0x1000", (1,),
            (range(at, at + 64),),
        )
    ]  # fmt: skip


def test_what_the_kernel_loses_by_itself_is_not_the_modules(kernel: Kernel) -> None:
    """The name of a class that could not be made; whatever else has a name is told."""
    name, register = (
        IMAGE + PLACES[function] for function in ("kobject_set_name_vargs", "__class_register")
    )
    refused = replace(taken(kernel), stack=(name, register, MODULE))
    assert lost_of(kernel, refused) == []
    assert lost_of(kernel, replace(taken(kernel, order=2), stack=(name, MODULE))) == [2]
    assert lost_of(kernel, replace(taken(kernel, order=3), stack=(register, MODULE))) == [3]


@pytest.mark.parametrize("inside", [0, 63])
def test_what_a_variable_of_the_kernels_points_to_is_not(kernel: Kernel, inside: int) -> None:
    """Wherever into it."""
    one = taken(kernel)
    kernel.word(PLACES["somewhere"], one.address + inside)
    assert lost_of(kernel, one) == []


def test_where_the_kernel_only_writes_down_addresses_nobody_has_it(kernel: Kernel) -> None:
    """As what two CPUs have raced for, which KCSAN keeps to tell of it."""
    one = taken(kernel)
    kernel.symbols = Symbols(f"{kernel.kallsyms}\n{IMAGE + PLACES['somewhere']:x} b other_infos")
    kernel.word(PLACES["somewhere"], one.address)
    assert lost_of(kernel, one) == [1]


@pytest.mark.parametrize("cache", ["kmemleak_object", "other"])
def test_who_notes_what_is_allocated_does_not_have_it(kernel: Kernel, cache: str) -> None:
    """Such a note is not the module's either, although it was made for what that allocated."""
    kernel.cache(cache, 64)
    note = kernel.object(cache)
    one = taken(kernel, PAGE, PAGES)
    kernel.word(note + 8, one.address)
    assert lost_of(kernel, one) == ([1] if cache == "kmemleak_object" else [])
    made = replace(one, event="kmem_cache_alloc", address=DIRECT + note, size=64)
    reader = Reader(kernel.scene().memory, kernel.scene().layout, Record((), {}))
    assert search(kernel).is_left(made, reader) is (cache == "other")


@pytest.mark.parametrize("kmemleak", [True, False])
def test_where_kmemleak_looks_for_objects_only_pages_are_told(
    kernel: Kernel, kmemleak: bool
) -> None:
    """kmemleak does not know of pages."""
    if kmemleak:
        kernel.symbols = Symbols(f"{kernel.kallsyms}\n{IMAGE + 0x100:x} T kmemleak_alloc")
    found = taken(kernel, order=1), taken(kernel, PAGE, PAGES, order=2)
    assert lost_of(kernel, *found) == ([2] if kmemleak else [1, 2])


def test_a_pointer_behind_it_does_not_keep_it(kernel: Kernel) -> None:
    """That is the next object's."""
    one = taken(kernel)
    kernel.word(PLACES["somewhere"], one.address + 64)
    assert lost_of(kernel, one) == [1]


@pytest.mark.parametrize(("inside", "kept"), [(3, True), (136, False)])
def test_who_has_a_file_knows_where_it_begins(kernel: Kernel, inside: int, kept: bool) -> None:
    """Flags may be in its address. Files that were closed one after another lead elsewhere."""
    one = Allocation("kmem_cache_alloc", DIRECT + kernel.object("filp"), 184, 1, STACK)
    kernel.word(PLACES["somewhere"], one.address + inside)
    assert lost_of(kernel, one) == ([] if kept else [1])


def test_what_only_lost_memory_points_to_is_told_with_that(kernel: Kernel) -> None:
    """Also where they point to each other."""
    outer, inner, last = (taken(kernel, order=number) for number in (1, 2, 3))
    kernel.word(outer.address - DIRECT, inner.address)
    kernel.word(inner.address - DIRECT, last.address)
    kernel.word(last.address - DIRECT, inner.address)
    [told] = search(kernel).lost([inner, outer, last])
    assert (sorted(told.orders), told.more, len(told.ranges)) == ([1, 2, 3], 2, 3)


def test_what_memory_points_to_that_somebody_has_is_not_lost(kernel: Kernel) -> None:
    """However many steps it is away."""
    outer, inner = taken(kernel, order=1), taken(kernel, order=2)
    kernel.word(outer.address - DIRECT, inner.address)
    kernel.word(PLACES["somewhere"], outer.address)
    assert lost_of(kernel, outer, inner) == []


def test_the_record_itself_has_nothing(kernel: Kernel) -> None:
    """Its events are full of addresses."""
    one = taken(kernel)
    kernel.word(0x300000 + 64, one.address)
    kernel.word(0x800000 + 0x300000 // PAGE * 64 + 48, 1 << 32)
    assert lost_of(kernel, one) == [1]


def test_only_the_part_of_a_stack_that_is_in_use_counts(kernel: Kernel) -> None:
    """Behind the stack pointer of a task that sleeps are calls that have returned."""
    start, page = kernel.stack()
    kernel.task("sleeper", start, start + 3 * PAGE + 0x800)
    old, live = taken(kernel, order=1), taken(kernel, order=2)
    kernel.word(page + 0x700, old.address)
    kernel.word(page + 0x900, live.address)
    kernel.word(0x800000 + page // PAGE * 64 + 48, 1 << 32)
    assert lost_of(kernel, old, live) == [1]


def test_pages_may_be_known_by_their_struct_page(kernel: Kernel) -> None:
    """Of several, that of each."""
    kept, one = taken(kernel, 2 * PAGE, PAGES, 1), taken(kernel, PAGE, PAGES, 2)
    kernel.word(PLACES["somewhere"], VMEMMAP + ((kept.address - DIRECT) // PAGE + 1) * 64)
    assert lost_of(kernel, kept, one) == [2]


@pytest.mark.parametrize(("word", "lost"), [(3, []), (4, [1]), (5, [])])
def test_the_free_list_of_a_slab_that_is_gone_has_nothing(
    kernel: Kernel, word: int, lost: list[int]
) -> None:
    """A page's struct page keeps it when the page, or the one behind it, is handed out anew."""
    other = kernel.take()
    one = taken(kernel, PAGE, PAGES)
    struct = 0x800000 + other // PAGE * 64
    kernel.word(struct + 8 * word, one.address + 0x360)
    kernel.word(struct + 48, 1 << 32)  # it is in use
    assert lost_of(kernel, one) == lost


@pytest.mark.parametrize(
    ("users", "head", "lost"), [(1, False, []), (0, False, [1]), (1, True, [1])],
    ids=["in use", "free", "a later one of a block"],
)  # fmt: skip
def test_a_list_of_pages_is_that_of_who_has_them(
    kernel: Kernel, users: int, head: bool, lost: list[int]
) -> None:
    """Of a page that is free, or the part of another, its struct page has old links."""
    block = kernel.take(2)
    one = taken(kernel, PAGE, PAGES)
    other = block + PAGE if head else block
    struct, first = (0x800000 + at // PAGE * 64 for at in (other, block))
    if head:
        kernel.word(struct + 8, VMEMMAP + block // PAGE * 64 | 1)
    kernel.word(struct + 16, VMEMMAP + (one.address - DIRECT) // PAGE * 64 + 8)
    kernel.word(first + 48, users << 32)
    kernel.word(0x800000 + struct // PAGE * 64 + 48, 1 << 32)  # that of the array is always
    assert lost_of(kernel, one) == lost


def test_pages_that_only_have_each_other_are_lost(kernel: Kernel) -> None:
    """As in a list whose head is gone."""
    pages = [taken(kernel, PAGE, PAGES, order) for order in (1, 2)]
    for one, other in (pages, pages[::-1]):
        struct = 0x800000 + (one.address - DIRECT) // PAGE * 64
        kernel.word(struct + 8, VMEMMAP + (other.address - DIRECT) // PAGE * 64 + 8)
        kernel.word(0x800000 + struct // PAGE * 64 + 48, 1 << 32)
    [told] = search(kernel).lost(pages)
    assert sorted(told.orders) == [1, 2]


def packets(kernel: Kernel, *data: Allocation) -> list[int]:
    """Heads of packets that the record does not know, one for each piece of data that they have."""
    kernel.cache("skbuff_head_cache", 256)
    found = [kernel.object("skbuff_head_cache") for _ in data]
    for head, one in zip(found, data, strict=True):
        kernel.word(head + 200, one.address)
    return found


def test_a_packet_without_an_event_must_be_somebodys_itself(kernel: Kernel) -> None:
    """What only its head has is lost with that, and told once."""
    one, frag = taken(kernel, order=1), taken(kernel, order=2)
    kept = taken(kernel, order=3)
    head, head_kept = packets(kernel, one, kept)
    kernel.word(head + 64, frag.address)
    kernel.word(PLACES["somewhere"], DIRECT + head_kept)
    [told] = search(kernel).lost([one, frag, kept])
    assert (told.size, told.more, sorted(set(told.orders))) == (256, 2, [1, 2])
    assert range(head, head + 256) in told.ranges


def test_a_queue_of_packets_that_somebody_has_is_not_lost(kernel: Kernel) -> None:
    """Only the first is pointed to from elsewhere; of a queue that is lost nobody points to one."""
    data = [taken(kernel, order=number) for number in range(6)]
    heads = packets(kernel, *data)
    for queue in (heads[:3], heads[3:]):
        for head, other in zip(queue, [*queue[1:], queue[0]], strict=True):
            kernel.word(head, DIRECT + other)
    kernel.word(PLACES["somewhere"], DIRECT + heads[1])
    [told] = search(kernel).lost(data)
    assert sorted(set(told.orders)) == [3, 4, 5]


@pytest.mark.parametrize(("others", "lost"), [(2, [1]), (3, [])])
def test_packets_that_others_have_are_looked_at_in_a_few_steps(
    kernel: Kernel, others: int, lost: list[int]
) -> None:
    """What is further away is believed: looking through all of memory takes its time."""
    one = taken(kernel)
    kernel.cache("skbuff_head_cache", 256)
    heads = [kernel.object("skbuff_head_cache") for _ in range(others + 1)]
    for head, to in zip(heads, [one.address, *(DIRECT + head for head in heads)], strict=False):
        kernel.word(head, to)
    assert lost_of(kernel, one) == lost


def test_a_packet_that_is_nobodys_takes_nothing_with_it(kernel: Kernel) -> None:
    """Its head may be on its way, and what it has is somebody else's as well."""
    one = taken(kernel)
    other = taken(kernel, order=2)
    kernel.word(other.address - DIRECT, one.address)
    packets(kernel, one)
    kernel.word(PLACES["somewhere"], other.address)
    assert lost_of(kernel, one, other) == []


@pytest.mark.parametrize(("name", "held"), [("wee", ["the DMA pool wee"]), ("", [])])
def test_a_dma_pool_is_still_there_where_it_has_a_name(
    kernel: Kernel, name: str, held: list[str]
) -> None:
    """The allocator's own list of free objects may be who points to one that was freed."""
    one = taken(kernel)
    one.stack = (IMAGE + PLACES["dma_pool_create"], MODULE)
    kernel.text(one.address - DIRECT + 16, name)
    kernel.word(PLACES["somewhere"], one.address)
    assert [each.held for each in search(kernel).lost([one])] == held


@pytest.mark.parametrize("before", [0, 64])
@pytest.mark.parametrize(
    ("file", "ops", "back", "held"),
    [(0, IMAGE + 8, True, ["a socket"]), (1, IMAGE + 8, True, []), (0, 0, True, []),
     (0, IMAGE + 8, False, [])],
    ids=["open", "of a process", "released", "something else"],
)  # fmt: skip
def test_a_socket_is_still_there_where_no_process_has_it(
    kernel: Kernel, before: int, file: int, ops: int, back: bool, held: list[str]
) -> None:
    """Its file system has it in a list, whoever has opened it."""
    kernel.cache("sock_inode_cache", 128)
    kernel.cache("UDP", 128)
    at, sock = kernel.object("sock_inode_cache"), kernel.object("UDP")
    one = Allocation("kmem_cache_alloc", DIRECT + at, 128, 1, STACK)
    kernel.word(at + before, 1, 0, file, DIRECT + sock, ops)
    kernel.word(sock + 24, DIRECT + at + before if back else 0)
    kernel.word(PLACES["somewhere"], one.address)
    assert [each.held for each in search(kernel).lost([one])] == held


@pytest.mark.parametrize(
    ("call", "listed", "told"),
    [("filp_open", True, ["a file"]), ("filp_open", False, [""]), ("kern_path", True, [])],
    ids=["in a list", "lost", "not the module's"],
)
def test_a_file_is_still_there(kernel: Kernel, call: str, listed: bool, told: list[str]) -> None:
    """Its file system may have it in a list, whoever has opened it."""
    at = kernel.object("filp")
    kernel.word(PLACES["somewhere"], DIRECT + at if listed else 0)
    stack = (IMAGE + PLACES[call], MODULE)
    one = Allocation("kmem_cache_alloc", DIRECT + at, 184, 1, stack)
    assert [each.held for each in search(kernel).lost([one])] == told


MADE = ("__kernfs_new_node", "sysfs_create_link")


def entry(
    kernel: Kernel, name: str, order: int = 1, *, folder: int = 0, active: int = 1,
    calls: tuple[str, ...] = MADE, line: int = MODULE,
) -> Allocation:  # fmt: skip
    """An entry of sysfs, somebody's, that a call of the module's at ``line`` has made."""
    if "kernfs_node_cache" not in kernel.caches:
        kernel.cache("kernfs_node_cache", 128)
    at, text = kernel.object("kernfs_node_cache"), kernel.take()
    kernel.text(text, name)
    lock = [1, 2, 3, 4, 5] if kernel.symbols.address("lock_acquire") else []
    kernel.word(at, active << 32 | 1, *lock, folder, DIRECT + text)
    kernel.word(PLACES["somewhere"] + 8 * order, DIRECT + at)
    stack = (*(IMAGE + PLACES[call] for call in calls), line)
    return Allocation("kmem_cache_alloc", DIRECT + at, 128, order, stack)


def top(kernel: Kernel) -> tuple[int, int]:
    """The address of all of sysfs, and of a folder of the kernel's in it."""
    root = entry(kernel, "", 20).address
    return root, entry(kernel, "kernel", 21, folder=root).address


@pytest.mark.parametrize("lockdep", [False, True])
def test_an_entry_of_sysfs_is_still_there(kernel: Kernel, lockdep: bool) -> None:
    """It is told by its path, once for all that a call has made, and by what undoes that."""
    if lockdep:
        kernel.symbols = Symbols(f"{kernel.kallsyms}\n{IMAGE + 0x100:x} T lock_acquire")
    _, folder = top(kernel)
    made = entry(kernel, "wee", 1, folder=folder)
    inside = entry(kernel, "file", 2, folder=made.address)
    other = entry(kernel, "last", 3, folder=folder, line=MODULE + 8)
    told = search(kernel).lost([inside, other, made])
    assert [(one.held, one.undo, one.orders) for one in told] == [
        ("/sys/kernel/wee", "sysfs_remove_link()", (1, 2)),
        ("/sys/kernel/last", "sysfs_remove_link()", (3,)),
    ]


def test_what_is_in_a_folder_that_is_left_goes_with_it(kernel: Kernel) -> None:
    """Another line of the module has put it there, and only its folder is to be taken away."""
    _, folder = top(kernel)
    made = entry(kernel, "wee", 1, folder=folder)
    inside = entry(kernel, "file", 2, folder=made.address, line=MODULE + 8)
    beside = entry(kernel, "weed", 3, folder=folder, line=MODULE + 16)
    told = search(kernel).lost([beside, inside, made])
    assert [(one.held, one.orders) for one in told] == [
        ("/sys/kernel/wee", (1, 2)), ("/sys/kernel/weed", (3,)),
    ]  # fmt: skip


def in_debugfs(
    kernel: Kernel, name: str, order: int, folder: int, *, call: str = "debugfs_create_dir",
    listed: int = 1, inode: int = 1,
) -> Allocation:  # fmt: skip
    """A name in debugfs, in a folder or uppermost (0), that a line of the module's has made."""
    if "dentry" not in kernel.caches:
        kernel.cache("dentry", 128)
    at, text = kernel.object("dentry"), kernel.take()
    kernel.text(text, name)
    kernel.word(at, 1, 0, listed, folder or DIRECT + at, 0, DIRECT + text, inode)
    kernel.word(PLACES["somewhere"] + 8 * order, DIRECT + at)
    stack = (IMAGE + PLACES["__d_alloc"], IMAGE + PLACES[call], MODULE + 8 * order)
    return Allocation("kmem_cache_alloc", DIRECT + at, 128, order, stack)


def test_a_folder_of_debugfs_is_still_there(kernel: Kernel) -> None:
    """It is told by its path and by the line that has made it, and its files with it."""
    root = in_debugfs(kernel, "/", 20, 0).address
    made = in_debugfs(kernel, "wee", 1, root)
    inside = in_debugfs(kernel, "file", 2, made.address)
    (told,) = search(kernel).lost([inside, made])
    assert (told.held, told.undo) == ("/sys/kernel/debug/wee", "debugfs_remove()")
    assert told.orders == (1, 2)
    assert f"{MODULE + 8:#018x}" in told.stack


@pytest.mark.parametrize(
    ("call", "listed", "inode"),
    [("debugfs_create_dir", 0, 1), ("debugfs_create_dir", 1, 0), ("kern_path", 1, 1)],
    ids=["removed", "nothing is there", "on the way along a path"],
)
def test_a_name_that_the_kernel_remembers_is_not_left(
    kernel: Kernel, call: str, listed: int, inode: int
) -> None:
    """Such as that of a file that was looked up, or of one that was removed and is open."""
    root = in_debugfs(kernel, "/", 20, 0).address
    one = in_debugfs(kernel, "wee", 1, root, call=call, listed=listed, inode=inode)
    assert search(kernel).lost([one]) == []


@pytest.mark.parametrize(
    ("active", "calls", "folder"),
    [(0x80000001, MADE, "wee"), (1, MADE, "slab"), (1, MADE[1:], "wee")],
    ids=["removed", "of a merged slab cache", "no entry"],
)
def test_what_is_no_entry_of_the_modules_is_not(
    kernel: Kernel, active: int, calls: tuple[str, ...], folder: str
) -> None:
    """The kernel keeps some for a while, and makes some for itself."""
    _, above = top(kernel)
    place = entry(kernel, folder, 22, folder=above).address
    made = entry(kernel, "wee", folder=place, active=active, calls=calls)
    assert search(kernel).lost([made]) == []


def test_what_a_loaded_module_has_is_its_own(kernel: Kernel) -> None:
    """Its init has made the entry, and is gone although the rest of it is not."""
    _, folder = top(kernel)
    made = [entry(kernel, "mine", 1, folder=folder),
            entry(kernel, "left", 2, folder=folder, line=MODULE + 8)]  # fmt: skip
    told = search(kernel, may_be_loaded=lambda at, order: (at, order) == (MODULE, 1)).lost(made)
    assert [one.held for one in told] == ["/sys/kernel/left"]


def test_a_function_of_another_module_has_no_name_of_the_kernels(kernel: Kernel) -> None:
    """It was called by the module that has lost the memory, and is loaded."""
    one = taken(kernel)
    one.stack = (IMAGE + PLACES["somewhere"], MODULES + 0x8010, MODULE)
    (lost,) = search(kernel).lost([one])
    assert lost.call == "somewhere"
    assert "(of another module)" in lost.stack


def test_an_entry_that_was_cleared_is_not_there(kernel: Kernel) -> None:
    """It is free, and in the allocator's own list."""
    made = entry(kernel, "wee")
    kernel.word(made.address - DIRECT, 0, 0, 0)
    assert search(kernel).lost([made]) == []


@pytest.mark.parametrize(
    ("call", "word", "held"),
    [("kern_mount", 1, ["a mount"]), ("kern_mount", 0, []), ("kern_path", 1, [])],
    ids=["its own", "cleared", "on the way along a path"],
)
def test_a_mount_is_still_there(kernel: Kernel, call: str, word: int, held: list[str]) -> None:
    """Its file system has it in a list, whoever has made it."""
    kernel.cache("mnt_cache", 128)
    at = kernel.object("mnt_cache")
    kernel.word(at + 32, word)
    kernel.word(PLACES["somewhere"], DIRECT + at)
    stack = (IMAGE + PLACES["alloc_vfsmnt"], IMAGE + PLACES[call], MODULE)
    one = Allocation("kmem_cache_alloc", DIRECT + at, 128, 1, stack)
    assert [each.held for each in search(kernel).lost([one])] == held


@pytest.mark.parametrize(("number", "lost"), [(4, []), (5, [1]), (6, [1]), (7, [])])
def test_what_was_taken_out_of_a_queue_is_not_in_it(
    kernel: Kernel, number: int, lost: list[int]
) -> None:
    """Its place is cleared later. Here those from 5 to before 7 were taken out."""
    one = taken(kernel)
    kernel.cache("kmalloc-1k", 1024)
    places, ring = kernel.object("kmalloc-1k"), kernel.object("kmalloc-64")
    kernel.word(places + 8 * number, one.address)
    kernel.word(ring + 64, 5 << 32 | 7)
    kernel.word(ring + 128, 16 << 32 | 100, DIRECT + places)
    assert lost_of(kernel, one) == lost


@pytest.mark.parametrize(("number", "lost"), [(0, []), (1, []), (2, [1])])
@pytest.mark.parametrize("linked", [False, True], ids=["to 6.3", "from 6.4"])
def test_what_was_freed_in_bulk_is_not_in_that_page_any_more(
    kernel: Kernel, linked: bool, number: int, lost: list[int]
) -> None:
    """Two objects wait in the page; what comes after them is from an earlier time."""
    one = taken(kernel)
    page, first = bulk(kernel, linked)
    kernel.word(page + 8 * (first + number), one.address)
    assert lost_of(kernel, one) == lost


@pytest.mark.parametrize("linked", [False, True], ids=["to 6.3", "from 6.4"])
def test_a_page_for_bulk_that_is_kept_for_later_has_nothing(kernel: Kernel, linked: bool) -> None:
    """It begins with the next such page; its number of objects may be an old one."""
    one = taken(kernel)
    page, first = bulk(kernel, linked)
    kernel.word(page, DIRECT + kernel.take())
    kernel.word(page + 8 * first, one.address)
    kernel.word(CPU + 0x1900, 0, DIRECT + page)
    assert lost_of(kernel, one) == [1]


def bulk(kernel: Kernel, linked: bool) -> tuple[int, int]:
    """A page in which kfree_rcu() collects, with two objects, and the number of their first word.

    It is in a list that the variable krc begins, or the first of those to which that points.
    """
    page, head = kernel.take(), DIRECT + CPU + 0x1900
    kernel.word(0x800000 + page // PAGE * 64 + 48, 1 << 32)
    kernel.word(CPU + 0x1900, DIRECT + page)
    if linked:
        kernel.word(page, head, head, 4, 4, 2)
        return page, 5
    kernel.word(page, 2, 0)
    return page, 2


def test_a_page_table_is_known_by_its_physical_address(kernel: Kernel) -> None:
    """To which flags are added."""
    table, one = taken(kernel, PAGE, PAGES, 1), taken(kernel, PAGE, PAGES, 2)
    kernel.word(PLACES["somewhere"], table.address - DIRECT | 0x63)
    kernel.word(PLACES["somewhere"] + 8, one.address - DIRECT)
    assert lost_of(kernel, table, one) == [2]


@pytest.mark.parametrize("at", [VMALLOC + 0x40000, VMEMMAP - 0x10000000000])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_page_that_is_mapped_where_the_kernel_maps_is_its_own(
    kernel: Kernel, at: int, mapped: bool
) -> None:
    """It keeps some for per-CPU memory, at the end of that, and has no other note of them."""
    one = taken(kernel, PAGE, PAGES)
    kernel.map(at, one.address - DIRECT if mapped else kernel.take())
    assert lost_of(kernel, one) == ([] if mapped else [1])


@pytest.mark.parametrize("event", ["", "trace_kmalloc", "trace_event_raw_event_kmalloc"])
def test_a_page_that_is_mapped_in_an_area_that_is_lost_is_lost(kernel: Kernel, event: str) -> None:
    """Nobody can take the area away any more. Of the event some functions may be on the stack."""
    kernel.symbols = Symbols(f"{kernel.kallsyms}\n{IMAGE + 0x100:x} t {event or 'other'}")
    page, area = taken(kernel, PAGE, PAGES), taken(kernel, order=2)
    kernel.map(VMALLOC + 0x40000, page.address - DIRECT)
    kernel.word(area.address - DIRECT, 0, VMALLOC + 0x40000, 2 * PAGE)
    own = (IMAGE + 0x100,) if event else ()
    area.stack = (*own, IMAGE + PLACES["__get_vm_area_node"], MODULE)
    assert lost_of(kernel, page, area) == [1, 2]


def test_per_cpu_memory_may_be_known_by_one_cpus_part(kernel: Kernel) -> None:
    """Or by what is added to for each CPU."""
    found = [Allocation(PERCPU, 0x4000 + 64 * at, 64, at, STACK) for at in range(3)]
    kernel.word(PLACES["somewhere"], 0x4000 + 64)
    kernel.word(PLACES["somewhere"] + 8, DIRECT + CPU + 0x4000 + 128)
    assert lost_of(kernel, *found) == [0]


@pytest.mark.parametrize(
    ("number", "lost"),
    [(0x4000, []), (0x4003, []), (0x4008, [1]), (DIRECT + CPU + 0x4008, [])],
    ids=["begins", "flags", "by chance", "one CPU's"],
)
def test_what_stands_for_per_cpu_memory_is_where_it_begins(
    kernel: Kernel, number: int, lost: list[int]
) -> None:
    """It is a small number, and such are everywhere."""
    kernel.word(PLACES["somewhere"], number)
    assert lost_of(kernel, Allocation(PERCPU, 0x4000, 64, 1, STACK)) == lost


@pytest.mark.parametrize(
    ("counts", "pages"),
    [((1, 0, 0, 0), 4), ((1, 1, 1, 1), 4), ((1, 1, 1, 0), 3)],
    ids=["as allocated", "taken apart", "the last one given back"],
)
def test_of_pages_that_were_taken_apart_the_last_may_be_anybodys(
    kernel: Kernel, counts: tuple[int, ...], pages: int
) -> None:
    """As with alloc_pages_exact(). Who points to what was given back does not have the others."""
    one = taken(kernel, 4 * PAGE, PAGES)
    for number, count in enumerate(counts):
        at = one.address - DIRECT + number * PAGE
        kernel.word(0x800000 + at // PAGE * 64 + 48, count << 32)
    scene = kernel.scene()
    reader = Reader(scene.memory, scene.layout, Record((), {}))
    (left,) = search(kernel).left([one], reader)
    assert left.size == pages * PAGE
    kernel.word(PLACES["somewhere"], one.address + 3 * PAGE)
    kernel.word(PLACES["somewhere"] + 8, VMEMMAP + (one.address - DIRECT) // PAGE * 64 + 192)
    assert lost_of(kernel, left) == ([1] if pages == 3 else [])


def test_what_an_interrupt_asked_for_is_not_the_modules(kernel: Kernel) -> None:
    """Although it has the module on its stack."""
    one = taken(kernel)
    entry = PLACES["somewhere"] + IMAGE
    reader = Reader(kernel.scene().memory, kernel.scene().layout, Record((), {}))
    assert search(kernel).is_left(one, reader)
    assert not search(kernel, (entry, entry + 16)).is_left(one, reader)


@pytest.mark.parametrize(
    ("function", "event", "shown"),
    [
        ("__kmalloc_cache_noprof", "kmalloc", "kmalloc"),
        ("kmem_cache_alloc_trace", "kmalloc", "kmalloc"),
        ("kmem_cache_alloc_noprof", "kmem_cache_alloc", "kmem_cache_alloc"),
        ("kstrdup", "kmalloc", "kstrdup"),
        ("__alloc_pages", "mm_page_alloc", "alloc_pages"),
        ("get_free_pages_noprof", "mm_page_alloc", "alloc_pages"),
        ("__vmalloc_node_range.part.0", "kmalloc", "__vmalloc_node_range"),
        ("__vmalloc_node", "kmalloc", "vmalloc"),
        ("__kvmalloc_node_noprof", "kmalloc", "kvmalloc"),
        ("krealloc_node_align_noprof", "kmalloc", "krealloc"),
        ("dma_direct_alloc", "mm_page_alloc", "dma_alloc_attrs"),
        ("pcpu_alloc_noprof", "percpu_alloc_percpu", "alloc_percpu"),
    ],
)
def test_a_function_is_called_as_its_users_know_it(function: str, event: str, shown: str) -> None:
    """What a header makes of a name differs from one kernel to the next."""
    assert lost.shown_as(function, event) == shown
