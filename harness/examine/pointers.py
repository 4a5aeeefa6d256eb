# SPDX-License-Identifier: GPL-2.0-only
"""Who still points into a module that is gone: the pointers in memory that may be followed.

A module that is unloaded has no memory any more: its pages are unmapped. A pointer to such a page
that lives on in the kernel is something that the module registered and did not take back: a
notifier, a timer, a hook, a file. The kernel will follow it one day, and crash.

Pure but for reading memory that it is handed, as structures.py, which says how that is read;
registries.py says of a pointer what it means.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence

from harness.examine import structures
from harness.examine.structures import (
    IMAGE,
    MODULES,
    VMALLOC,
    VMALLOC_BYTES,
    Layout,
    ModuleArea,
    Scene,
    SlabObject,
    StackAreas,
    as_words,
    is_variable,
    list_nodes,
    of_a_process,
    physical,
    slab_object,
    task_of,
    text_at,
    walk,
)
from harness.qemu.memory import PAGE, Memory, Pointer, pointers_into

# -- what is no reference ----------------------------------------------------------

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
    return before % PAGE == 0 and before in range(VMALLOC, pointer.to)


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
    if len(words) < 6 or not words[0] == words[4] >= MODULES or not words[3]:
        return False
    return is_variable(layout, words[5] - IMAGE)


# A struct kprobe (linux/kprobes.h), in words: two of a hash's list, a list of those at the same
# address, a count, the address, the name that it was given as, a distance, and the first handler.
_PROBE_ADDRESS, _PROBE_LIST, _PROBE_HANDLER = 5, 2, 8


def is_probe_by_others(memory: Memory, layout: Layout, found: SlabObject, at: int) -> bool:
    """Whether it is the address that a kprobe is at, which calls functions of the kernel's.

    Somebody has asked the kernel by tracing to stop in the module, where nothing was registered by
    that. When the module goes the kernel marks the probe so (kprobes_module_callback() in
    kernel/kprobes.c) and keeps it until its owner removes it.
    """
    start = at - 8 * _PROBE_ADDRESS
    words = as_words(memory.read(start, 8 * (_PROBE_HANDLER + 1)))
    if start < found.start or len(words) <= _PROBE_HANDLER:
        return False
    node = layout.direct + start + 8 * _PROBE_LIST
    listed = physical(memory, layout, words[_PROBE_LIST])
    is_linked = listed is not None and memory.word(listed + 8) == node
    return is_linked and IMAGE <= words[_PROBE_HANDLER] < MODULES


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
    if any(walk(memory, layout, page) == pointer.at & -PAGE for page in fresh):
        return True
    found = slab_object(memory, layout, pointer.at)
    start, size = (found.start, found.cache.size) if found else (pointer.at & -PAGE, PAGE)
    words = as_words(memory.read(start, size))
    return any(word & -PAGE in fresh for word in words) or (
        pointer.at - start in _AREA_CALLER and _describes_an_area(layout, words)
    )


# Where a struct vm_struct (linux/vmalloc.h) has the address of who asked for the area, in bytes: on
# new kernels, as 7.3, one word later. Nobody follows it: it is shown in /proc/vmallocinfo.
_AREA_CALLER = (56, 64)


def _describes_an_area(layout: Layout, words: Sequence[int]) -> bool:
    """Whether an object is a struct vm_struct: of an area of vmalloc()'s or ioremap()'s.

    Its second word is the area's address, and its third how large that is.
    """
    start, size = words[1:3]
    there = range(layout.vmalloc, layout.vmalloc + VMALLOC_BYTES, PAGE)
    return start in there and size in range(PAGE, VMALLOC_BYTES, PAGE)


# -- what is one -------------------------------------------------------------------


def dangling(found: Iterable[Pointer], mapped: frozenset[int]) -> list[Pointer]:
    """The pointers to pages that are not mapped."""
    return [pointer for pointer in found if pointer.to & -PAGE not in mapped]


def references(scene: Scene, candidates: Sequence[Pointer]) -> list[Pointer]:
    """Those of the pointers that something in the kernel may follow."""
    left: list[Pointer] = []
    kept: list[tuple[Pointer, SlabObject]] = []
    for pointer in candidates:
        if scene.is_written_down(pointer.at):
            continue
        if is_in_bitmap(scene.memory, pointer.at):
            continue
        found = slab_object(scene.memory, scene.layout, pointer.at)
        if found is None:
            if not of_a_process(scene.memory, scene.layout, pointer.at):
                left.append(pointer)
            continue
        if _is_not_followed(scene, found, pointer):
            continue
        if found.cache.wiped:
            left.append(pointer)
        else:
            kept.append((pointer, found))
    left += _on_live_stacks(scene, left)
    left = _not_traced(scene, left)
    if kept:
        alive = _referenced(scene, {found for _, found in kept})
        left += [pointer for pointer, found in kept if found in alive]
    return sorted(left, key=lambda pointer: pointer.at)


def _is_not_followed(scene: Scene, found: SlabObject, pointer: Pointer) -> bool:
    """Whether an object has a pointer for other reasons than to follow it.

    With lockdep each task has addresses of where it took and gave back locks, or switched
    interrupts off (``held_locks`` and ``irqtrace`` in linux/sched.h). They stay as they are.
    """
    memory, layout, at = scene.memory, scene.layout, pointer.at
    return (
        bounds_an_area(memory, pointer)
        or is_free_area(found, pointer)
        or is_removed_node(memory, found, at)
        or is_removed_entry(memory, layout, found, at)
        or is_worker(memory, layout, found)
        or is_probe_by_others(memory, layout, found, at)
        or (layout.lockdep and found.cache.name == "task_struct")
        or is_observation(found.cache.name)
    )


# The slab caches of what kmemleak and debugobjects (lib/debugobjects.c) have for each object.
_OBSERVED = ("kmemleak_object", "kmemleak_scan_area", "debug_objects_cache")


def is_observation(cache: str) -> bool:
    """Whether a slab cache has what the kernel notes of others' objects."""
    return cache in _OBSERVED


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


# How many pages are looked for in the tracer's rings that are in none. It takes a tenth of a second
# each, and nothing of a module's has the tracer's form in so many.
_PAGES_TRIED = 16


def _not_traced(scene: Scene, found: list[Pointer]) -> list[Pointer]:
    """Those of the pointers that are not in a ring buffer of tracing.

    Who tests may have had events recorded that have addresses of the module's, as a call of one of
    its functions. They are shown, and not followed. Emptying a buffer leaves the bytes in its
    pages.
    """
    memory, layout = scene.memory, scene.layout
    traced: set[int] = set()
    tried = 0
    for page in sorted({pointer.at & -PAGE for pointer in found}):
        if page in traced or tried == _PAGES_TRIED or not _may_be_traced(memory, layout, page):
            continue
        ring = _ring_with(scene, page)
        tried += not ring
        traced.update(ring)
    return [pointer for pointer in found if pointer.at & -PAGE not in traced]


def _may_be_traced(memory: Memory, layout: Layout, page: int) -> bool:
    """Whether a page is no variable and no slab cache's, and may begin as those of tracing do.

    A struct buffer_data_page (kernel/trace/ring_buffer.c) has in its second word how many bytes of
    it are in use, below some flags.
    """
    used = memory.word(page + 8) & (1 << 30) - 1
    return (
        used < PAGE and not is_variable(layout, page) and slab_object(memory, layout, page) is None
    )


# Who has a ring, a struct ring_buffer_per_cpu (kernel/trace/ring_buffer.c), has head_page, which is
# one of it, so many bytes in front of reader_page, which is not.
_HEAD = 24


def _ring_with(scene: Scene, page: int) -> tuple[int, ...]:
    """The page and those of the ring that it belongs to; () where there is none.

    The page that a reader was given is in no ring. Who has the ring has its descriptor as well.
    """
    memory, layout = scene.memory, scene.layout
    descriptors = structures.trace_descriptors(memory, layout, scene.everything(), page)
    for descriptor, place in descriptors:
        if pages := structures.trace_ring(memory, layout, descriptor, place):
            return pages
        for holder in pointers_into(scene.everything(), descriptor, descriptor + 1):
            head = memory.word(holder.at - _HEAD)
            if pages := structures.trace_ring(memory, layout, head, place):
                return (page, *pages)
    return ()


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
