# SPDX-License-Identifier: GPL-2.0-only
"""What a module allocated and nobody has any more, from a machine's memory.

When a module is gone, what it allocated may have been freed, it may have been handed out again, or
something in the kernel may point to it. What is left is lost.

Pure but for reading memory that it is handed, and for x86-64.
"""

from __future__ import annotations

import bisect
import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.examine import pointers, structures
from harness.examine.allocations import KMALLOC, OBJECT, PAGES, PERCPU, Allocation, Gone, Reader
from harness.examine.allocators import Allocators, Slab
from harness.examine.record import Record
from harness.examine.structures import Scene, StackAreas, Symbols, as_words
from harness.qemu.memory import PAGE, Pointer, pointers_into


@dataclass(frozen=True)
class Lost:
    """Memory that a module allocated and that nobody has, or that it left registered.

    ``size`` is in bytes. ``call`` is the function of the kernel's that the module called, and
    ``stack`` the whole call stack, as lines of a kernel log but for the module's own addresses,
    which are bare. ``orders`` tell allocations apart, and ``ranges`` are physical addresses: those
    of this one and of the ``more`` others that only this one has. ``held`` is what of the kernel's
    still has it, and ``undo`` what takes it away there, "" where it is lost.
    """

    size: int
    call: str
    stack: str
    orders: tuple[int, ...]
    ranges: tuple[range, ...]
    more: int = 0
    held: str = ""
    undo: str = ""


# How often what is found is looked at again, after the kernel has been made to do what it has
# put off: freeing memory after a grace period, which may itself put off more.
ROUNDS = 3
_FREELIST = 32  # bytes from the beginning of a struct page

# The slab cache of packets' heads (struct sk_buff). Each CPU keeps some that are free, and hands
# them out without an event: to network drivers, and on new kernels, as 7.3, to whoever wants a
# packet (net/core/skbuff.c). So the record may know of a packet only by its data.
_PACKETS = "skbuff_head_cache"
# What a module calls for an open file of its own, and the slab cache of these.
_OPENS = ("filp_open", "file_open")
_FILES = "filp"
# That of sockets with their inodes (struct socket_alloc, net/socket.c).
_SOCKETS = "sock_inode_cache"
# What the kernel itself loses where it cannot do what a module asked it for: the functions by which
# it was allocated. Before 6.2, class_create() of a name that is taken gave the class back without
# its name (commit 8c3e8a6bdb53 of Linux). A name of a class that is there is not lost.
_THE_KERNELS = ({"kobject_set_name_vargs", "__class_register"},)

# What makes an entry of sysfs and what removes it. A function that only calls another one jumps
# there, so that the other one is all that a stack has of both (fs/sysfs).
_ENTRIES = (
    (r"debugfs_", "debugfs_remove()"),
    (r"sysfs_(do_)?create_link", "sysfs_remove_link()"),
    (r"(sysfs|internal)_create_group", "sysfs_remove_group()"),
    (r"sysfs_(create|add)_|device_create_(bin_)?file", "sysfs_remove_file()"),
    (r"kobject_", "kobject_put()"),
    (r"kset_", "kset_unregister()"),
    (r"_*class_create", "class_destroy()"),
    (r"_*class_register", "class_unregister()"),
    (r"misc_register", "misc_deregister()"),
    (r"cdev_device_add", "cdev_device_del()"),
    (r"device_create", "device_destroy()"),
    (r"device_(add|register)", "device_unregister()"),
)
# What the kernel has in lists of its own: the function that makes one, the variable that the list
# begins with, what it is, which word of it is its name's address (None: the name is in it), and
# what takes it away.
_LISTED = (
    ("alloc_workqueue", "workqueues", "the work queue", None, "destroy_workqueue()"),
    ("trace_array_get_by_name", "ftrace_trace_arrays", "the instance of tracing", 2,
     "trace_array_destroy()"),
)  # fmt: skip
_DEBUGFS = "/sys/kernel/debug"
# The slab caches have theirs here. Of one that was merged with others the kernel leaves a link
# (mm/slub.c); one that is left is known by the list of caches.
_OF_SLABS = "/sys/kernel/slab/"
_LOCK_MAP = 40  # bytes of a struct lockdep_map (linux/lockdep_types.h)
_DEEPEST = 64  # folders of sysfs in one another: more than there are
# What a module calls for a mount of its own. Whoever walks along a path may cause others.
_MOUNTS = ("kern_mount", "vfs_kern_mount", "fc_mount")

_PERCPU_FLAGS = 4  # 1 << __PERCPU_REF_FLAG_BITS (linux/percpu-refcount.h)

Made = Callable[[int, int], bool]  # whether code at an address may have made something, and when

# How many packets that the record does not know may each be found by the one before.
_STEPS = 4


class _Node:
    """An allocation: whether the kernel points to it (``held``), and which others it ``has``.

    ``kept`` is whether a module that is loaded points to it: what is allocated by an init function,
    whose code is gone as soon as it has run, is that module's.

    ``targets`` are the ranges of values that are pointers to it, ``own`` the physical addresses of
    its content. ``area`` are the addresses of vmalloc()'s that it describes, if it does.
    """

    def __init__(
        self, allocation: Allocation, targets: list[tuple[int, int]], own: list[range],
        area: range | None,
    ) -> None:  # fmt: skip
        self.allocation = allocation
        self.targets = targets
        self.own = own
        self.area = area
        self.held = False
        self.kept = False
        self.has: set[_Node] = set()


class Search:
    """Says what became of allocations, by the memory of a machine that stands still."""

    def __init__(
        self, scene: Scene, record: Record, symbols: Callable[[], Symbols], gone: Gone,
        loaded: frozenset[int] = frozenset(), may_be_loaded: Made = lambda *_: False,
    ) -> None:  # fmt: skip
        """``symbols`` are asked for only where something is left.

        ``loaded`` are the physical addresses of the pages of the modules that are loaded.
        ``may_be_loaded`` says of code that is gone, and of when it made something (see
        ``Allocation``), whether the rest of its module may be there, as it is after init.
        """
        self._loaded = loaded
        self._may_be_loaded = may_be_loaded
        self._scene = scene
        self._memory = scene.memory
        self._layout = scene.layout
        self._record = record
        self._symbols = symbols
        self._gone = gone
        self._allocators = Allocators(scene, record.skb_caches)
        self._areas = StackAreas(scene)
        self._bulk: dict[int, int] | None = None  # the pages that kfree_rcu() has, and their ends
        self._rings: dict[int, list[tuple[int, int]]] = {}  # by where their places begin
        # The pages that the array of struct page is in, each with the first page that it describes.
        self._page_structs: dict[int, int] | None = None

    def is_left(self, one: Allocation, reader: Reader) -> bool:
        """Whether it is the module's own, and still in use: by its allocator and by the record."""
        return (
            self.is_the_modules(one)
            and self._allocators.in_use(one)
            and not reader.has_ended(one, self._allocators.block(one))
        )

    def left(self, every: Sequence[Allocation], reader: Reader) -> list[Allocation]:
        """Those that are left: see ``is_left``. Of pages that were taken apart, what is left."""
        return [self._without_end(one, reader) for one in every if self.is_left(one, reader)]

    def _without_end(self, one: Allocation, reader: Reader) -> Allocation:
        """An allocation without the pages at its end that were given back by themselves.

        alloc_pages_exact() does that with those that nobody wants (mm/page_alloc.c).
        """
        at, size = one.address - self._layout.direct, PAGE
        if one.event != PAGES or one.size <= PAGE or not self._allocators.was_split(at):
            return one
        while (
            size < one.size
            and self._allocators.in_use(replace(one, address=one.address + size))
            and not reader.was_handed_out(at + size, one.order)
        ):
            size += PAGE
        return replace(one, size=size)

    def is_the_modules(self, one: Allocation) -> bool:
        """Whether the module asked for it, rather than an interrupt that came while it ran.

        Nor is it what the kernel notes of an object of the module's.
        """
        if one.event != PERCPU:
            slab = self._allocators.slab(one.address - self._layout.direct)
            if slab is not None and pointers.is_observation(slab.name):
                return False
        for address in one.stack:
            if self._gone(address):
                return True
            if self._record.works_for_others(address):
                return False
        return False

    def lost(self, found: Sequence[Allocation]) -> list[Lost]:
        """What is lost of these allocations, all of them left, and what is still registered."""
        # The pages of a large kmalloc() were recorded before it, as pages.
        large = {one.address for one in found if one.event != PAGES}
        nodes = [self._node(one) for one in found if one.event != PAGES or one.address not in large]
        if not nodes:
            return []
        packets = self._find_holders(nodes)
        every = [*nodes, *packets]
        reached = _closure(node for node in every if node.held)
        had = {other for node in every for other in node.has if other is not node}
        unknown = [one for one in nodes if one not in reached and one not in had]
        self._find_page_tables(unknown)
        self._find_mapped(unknown, [node.area for node in nodes if node not in reached])
        reached |= _closure(node for node in every if node.held)
        kept = _closure(node for node in every if node.kept)
        results = list(self._entries([node for node in nodes if node not in kept]))
        for node in nodes:
            registered = self._registered(node, node in reached) if node not in kept else None
            if registered is not None:
                results.append(registered)
                reached |= _closure([node])
        left = [
            node for node in nodes
            if node not in reached and not self._others_tell(node.allocation)
        ]  # fmt: skip
        # A packet itself may be anybody's: it is lost where it has what the module has lost.
        rest = [*(one for one in packets if not _closure([one]).isdisjoint(left)), *left]
        # One that another one has is told with that; of those that have each other, the first.
        had = {other for node in rest for other in node.has if other is not node}
        told: set[_Node] = set()
        for node in [*(one for one in rest if one not in had), *rest]:
            if node not in told:
                below = _closure([node]) - told
                told |= below
                results.append(self._described(node, below - {node}))
        return results

    # -- who has it --

    def _node(self, one: Allocation) -> _Node:
        layout = self._layout
        if one.event == PERCPU:
            starts = [(one.address + offset) % (1 << 64) for offset in layout.percpu]
            places = [structures.physical(self._memory, layout, start) for start in starts]
            # Each CPU's own part is pointed to anywhere in it. What stands for all of them is a
            # small number, which may be anywhere by chance: only its beginning counts, with the
            # flags that a struct percpu_ref has in its two lowest bits.
            targets = [(start, start + one.size) for start in starts]
            targets.append((one.address, one.address + _PERCPU_FLAGS))
            return _Node(one, targets, [range(at, at + one.size) for at in places if at], None)
        at = one.address - layout.direct
        own = [range(at, at + one.size)]
        area = self._area(one)
        if area is not None:
            return _Node(one, [(area.start, area.stop)], own, area)
        slab = self._allocators.slab(at)
        followed = one.size if slab is None else pointers.followed(slab.name, one.size)
        targets = [(one.address, one.address + max(followed, 8))]
        if slab is None:
            start = layout.vmemmap + at // PAGE * structures.PAGE_STRUCT
            # A large kmalloc() has a block, whose size is a power of two.
            pages = -(-one.size // PAGE)
            pages = pages if one.event == PAGES else 1 << (pages - 1).bit_length()
            targets.append((start, start + pages * structures.PAGE_STRUCT))
        return _Node(one, targets, own, None)

    def _area(self, one: Allocation) -> range | None:
        """The addresses of vmalloc()'s that an allocation describes, if it is a struct vm_struct.

        The kernel has one in a list for each area (linux/vmalloc.h): that is nobody who uses it.
        """
        if one.event == PAGES or one.size < 24:
            return None
        _, start, size = as_words(self._memory.read(one.address - self._layout.direct, 24))
        if start % PAGE or not size or start < self._layout.vmalloc:
            return None
        return range(start, start + size) if self._user(one) == "__get_vm_area_node" else None

    def _user(self, one: Allocation) -> str:
        """The function that has called the allocator."""
        names = (self._name(address) for address in one.stack)
        return next((name for name in names if not _OF_THE_ALLOCATOR.match(name)), "")

    def _name(self, address: int) -> str:
        """The kernel's function at an address; "" for what is a module's."""
        if address >= structures.MODULES:
            return ""
        place = self._symbols().at(address)
        return place[0] if place else ""

    def _find_holders(self, nodes: Sequence[_Node]) -> list[_Node]:
        """Find out what points to each of the allocations: others of them, or the kernel.

        Returns the packets that were found to have some of them, and that are not in the record:
        these must be somebody's themselves.
        """
        known, fresh = list(nodes), list(nodes)
        for _ in range(_STEPS):
            fresh = self._find_direct_holders(fresh, known)
            if not fresh:
                break
            known += fresh
        for node in fresh:
            node.held = True  # nobody has looked
        return known[len(nodes) :]

    def _find_direct_holders(self, nodes: Sequence[_Node], known: Sequence[_Node]) -> list[_Node]:
        """Find out what points to each of the nodes; the packets among that which are not known."""
        inside = _Intervals((own.start, own.stop, node) for node in known for own in node.own)
        targets = _Intervals((start, end, node) for node in nodes for start, end in node.targets)
        packets: dict[int, _Node] = {}  # by where they begin
        for pointer in self._pointers(targets):
            node = targets.at(pointer.to)
            if node is None or self._record.has(pointer.at) or self._is_bookkeeping(node, pointer):
                continue
            if self._scene.is_written_down(pointer.at):
                continue
            node.kept = node.kept or pointer.at & -PAGE in self._loaded
            # What a struct page has is a page's: as a link to the next one in a list.
            page = self._page_with(pointer.at)
            holder = inside.at(pointer.at if page is None else page)
            if holder is not None:
                holder.has.add(node)
            elif not node.held and self._is_holder(pointer):
                slab = self._allocators.slab(pointer.at)
                if slab is None or slab.name != _PACKETS:
                    node.held = True
                    continue
                packet = packets.get(slab.start)
                if packet is None or node.allocation.order < packet.allocation.order:
                    packet = self._packet(slab, node, packet.has if packet else ())
                    packets[slab.start] = packet
                packet.has.add(node)
        return list(packets.values())

    def _packet(self, slab: Slab, node: _Node, has: Iterable[_Node]) -> _Node:
        """A packet's head, allocated as far as is known by who allocated what it has first."""
        address = self._layout.direct + slab.start
        allocation = replace(node.allocation, event=OBJECT, address=address, size=slab.size)
        packet = self._node(allocation)
        packet.has.update(has)
        return packet

    def _pointers(self, targets: _Intervals) -> Iterator[Pointer]:
        """What points to the targets. Those near one another are looked for together."""
        # A small number is not looked for by its upper bytes, which are zeros.
        small = [(start, end) for start, end in targets.ranges if start < 1 << 32]
        regions = small + _regions(one for one in targets.ranges if one[0] >= 1 << 32)
        for block in self._scene.everything():
            for start, end in regions:
                yield from pointers_into(iter([block]), start, end)

    def _is_bookkeeping(self, node: _Node, pointer: Pointer) -> bool:
        """Whether it is the allocator's own pointer to what it has handed out."""
        if node.area is not None:
            slab = self._allocators.slab(pointer.at)
            return slab is not None and slab.name == "vmap_area"
        if pointer.to >= self._layout.vmemmap:
            # The struct pages of a block point to its first one.
            return self._describes(node, pointer.at)
        # A struct page has the first free object of a slab (``freelist`` in mm/slab.h), and keeps
        # that address when its page is no slab any more.
        return (
            pointer.at % structures.PAGE_STRUCT == _FREELIST
            and self._page_with(pointer.at) is not None
        )  # fmt: skip

    def _page_with(self, at: int) -> int | None:
        """The page in whose struct page an address in memory is; None where it is in none."""
        if self._page_structs is None:
            memory, layout = self._memory, self._layout
            last = memory.address(memory.size - PAGE) // PAGE * structures.PAGE_STRUCT
            places = range(layout.vmemmap, layout.vmemmap + last + 1, PAGE)
            found = ((structures.physical(memory, layout, address), address) for address in places)
            self._page_structs = {
                page: (address - layout.vmemmap) // structures.PAGE_STRUCT * PAGE
                for page, address in found
                if page is not None
            }
        first = self._page_structs.get(at & -PAGE)
        return None if first is None else first + at % PAGE // structures.PAGE_STRUCT * PAGE

    def _is_used(self, page: int) -> bool:
        """Whether somebody uses a page by itself, or the first one of a block.

        A struct page keeps old links when its page is freed, or becomes a later one of a block.
        """
        block = structures.block_of(self._memory, self._layout, page)
        return block.start == page and self._allocators.has_users(page)

    def _describes(self, node: _Node, at: int) -> bool:
        """Whether an address in memory is in a struct page of the allocation's own pages."""
        for start, end in node.targets:
            if start < self._layout.vmemmap:
                continue
            for page in range(start & -PAGE, end, PAGE):
                where = structures.physical(self._memory, self._layout, page)
                if where is not None and where & -PAGE == at & -PAGE:
                    return start <= page + at % PAGE < end
        return False

    def _is_holder(self, pointer: Pointer) -> bool:
        """Whether somebody may follow a pointer: the kernel, or the allocator if it is free."""
        variables, at = self._layout.variables, pointer.at
        if variables and variables[0][0] <= at < variables[-1][1]:
            return any(start <= at < end for start, end in variables)
        page = self._page_with(at)
        known = self._allocators.is_note(pointer) if page is None else self._is_used(page)
        if known is not None:
            return known
        slab = self._allocators.slab(at)
        if slab is not None:
            return not (
                self._allocators.is_free(slab)
                or self._was_taken_out(slab, at)
                or pointers.is_observation(slab.name)
            )
        used = self._allocators.has_users(at) and not self._was_freed_in_bulk(at)
        if not used or structures.of_a_process(self._memory, self._layout, at):
            return False
        stack = self._areas.of(at)
        if stack is None:
            return True
        task = structures.task_of(self._scene, stack)
        return bool(task and task.pointer <= stack.address(at))

    def _was_freed_in_bulk(self, at: int) -> bool:
        """Whether an address in memory is in a page of kfree_rcu()'s, beyond what waits there.

        It collects what is to be freed in such pages, and keeps them for the next time. Old
        addresses stay in them.
        """
        if self._bulk is None:
            self._bulk = dict(self._bulk_pages())
        end = self._bulk.get(at & -PAGE)
        return end is not None and at >= end

    def _bulk_pages(self) -> Iterator[tuple[int, int]]:
        """The pages that kfree_rcu() has, and where in each of them what waits ends.

        The per-CPU variable krc has them, and each the next (struct kvfree_rcu_bulk_data, in
        kernel/rcu/tree.c, from 6.14 on in mm/slab_common.c). A page begins with the number of what
        waits and the next page; since 6.4 with a list_head, two numbers of grace periods and the
        number. One that is kept for later begins with the address of the next such page, or 0.
        """
        memory, layout, symbols = self._memory, self._layout, self._symbols()
        variable = symbols.address("krc")
        if variable is None:
            return
        fresh: list[int] = []
        for offset in layout.percpu:
            start = structures.physical(memory, layout, (variable + offset) % (1 << 64))
            size = min(symbols.size("krc"), PAGE)
            fresh += as_words(memory.read(start, size)) if start and size else ()
        pages: set[int] = set()
        while fresh:
            address = fresh.pop()
            page = address - layout.direct
            if address % PAGE or page in pages or memory.offset(page) is None:
                continue
            pages.add(page)
            if self._allocators.slab(page) is not None:
                continue  # an object that waits by itself
            count, after, *_ = words = as_words(memory.read(page, 48))
            fresh += words[:2]
            first = 2
            if after and structures.word_at(memory, layout, after) == address:
                count, first = words[4], 5  # in a list: the one before has it as the next
            places = (PAGE - 8 * first) // 8
            yield page, page + 8 * (first + count) if count <= places else page

    def _was_taken_out(self, slab: Slab, at: int) -> bool:
        """Whether an address in memory is in a queue, at a place that was taken out of it.

        What is taken out of a struct ptr_ring (linux/ptr_ring.h) is cleared later, several at a
        time. A network device's queue is one (net/sched/sch_generic.c), and so it has the packets
        that were sent last. Until then they are between consumer_tail and consumer_head.
        """
        if not slab.name.startswith("kmalloc"):
            return False
        number = (at - slab.start) // 8
        return any(tail <= number < head for head, tail in self._queues(slab))

    def _queues(self, slab: Slab) -> list[tuple[int, int]]:
        """The consumer_head and consumer_tail of each struct ptr_ring that has its places there."""
        known = self._rings.get(slab.start)
        if known is None:
            known = self._rings[slab.start] = []
            address = self._layout.direct + slab.start
            for pointer in pointers_into(self._scene.everything(), address, address + 1):
                data = self._memory.read(pointer.at - 72, 72)
                # On a cache line of its own: the first two; on the next one: how many places there
                # are, how many are cleared at a time, and the address of the places.
                if len(data) < 72 or pointer.at % 64 != 8:
                    continue
                head, tail, places, batch = struct.unpack("<ii56xii", data)
                if 0 <= tail <= head <= places <= slab.size // 8 and 0 < batch <= places:
                    known.append((head, tail))
        return known

    def _find_page_tables(self, nodes: Sequence[_Node]) -> None:
        """Pages that a page table is in are the kernel's: another table has their address."""
        direct = self._layout.direct
        pages = [
            node for node in nodes
            if node.allocation.event == PAGES and node.allocation.size == PAGE
        ]  # fmt: skip
        starts = [(node.allocation.address - direct, node) for node in pages]
        physical = _Intervals((start, start + PAGE, node) for start, node in starts)
        regions = _regions(physical.ranges)
        for block in self._scene.everything() if regions else ():
            for start, end in regions:
                for pointer in pointers_into(iter([block]), start, end):
                    node = physical.at(pointer.to)
                    # Present, writable, accessed and dirty: _KERNPG_TABLE, whose pages may be run.
                    if node is not None and pointer.to & 0x63 == 0x63:
                        node.held = True

    def _find_mapped(self, nodes: Sequence[_Node], areas: Sequence[range | None]) -> None:
        """Pages that are mapped where vmalloc() maps, but for lost ``areas``, are the kernel's.

        It keeps some for per-CPU memory (mm/percpu-vm.c), and knows them by that alone.
        """
        direct = self._layout.direct
        pages = {
            node.allocation.address - direct: node for node in nodes
            if node.allocation.event == PAGES and node.allocation.size == PAGE and not node.held
        }  # fmt: skip
        for address, page in structures.mapped_pages(self._memory, self._layout) if pages else ():
            if page in pages and not any(area and address in area for area in areas):
                pages[page].held = True

    # -- in words --

    def shown(self, one: Allocation) -> str:
        """An allocation with its innermost callers, in one line."""
        names = " ".join(self._name(address) or "?" for address in one.stack[:12])
        return f"{one.event} {one.address:#x} ({one.size} bytes): {names}"

    def _registered(self, node: _Node, held: bool) -> Lost | None:
        """An allocation that is in one of the kernel's lists, where only the module can take it
        away. ``held`` is whether something of the kernel's points to it."""
        one = node.allocation
        if one.event == OBJECT:
            kinds = (
                (self._is_own_socket(one), "a socket", "sock_release()"),
                (self._is_own_mount(one), "a mount", "kern_unmount()"),
                (held and self._is_own_file(one), "a file", "filp_close()"),
            )
            found = ((what, undo) for is_one, what, undo in kinds if is_one)
            what, undo = next(found, ("", ""))
            return self._described(node, (), what, undo) if what else None
        if one.event not in KMALLOC:
            return None
        call = self._call(one)
        if call.startswith("dma_pool_create"):
            # One that was freed, and that the allocator points to, was cleared: it has no name.
            name = _name_in(self._content(one))
            pool, undo = f"the DMA pool {name}", "dma_pool_destroy()"
            return self._described(node, (), pool, undo) if name else None
        for made_by, head, what, word, undo in _LISTED:
            if call.removesuffix("_noprof").endswith(made_by) and self._is_in_list(one, head):
                data = self._content(one)
                at = as_words(data)[word] if word is not None else 0
                name = structures.text_at(self._memory, self._layout, at) or _name_in(data)
                return self._described(node, (), f"{what} {name}", undo)
        return None

    def _is_in_list(self, one: Allocation, name: str) -> bool:
        """Whether an allocation is in the list that a variable of the kernel's begins."""
        head = self._symbols().address(name)
        nodes = structures.list_nodes(self._memory, self._layout, head) if head is not None else ()
        return any(one.address <= at < one.address + one.size for at in nodes)

    def _is_own_socket(self, one: Allocation) -> bool:
        """Whether it is a socket that is open, and that no file of a process's is of.

        It is in the list of inodes of its file system, whoever has opened it. The words of struct
        socket (linux/net.h): state and type, flags, file, sk, ops. sock_release() clears the last.
        Where it begins differs: on 7.3 something is before it. Its struct sock points back to it.
        """
        slab = self._allocators.slab(one.address - self._layout.direct)
        if slab is None or slab.name != _SOCKETS:
            return False
        words = as_words(self._content(one))
        for number in range(len(words) - 4):
            _, _, file, sock, ops = words[number : number + 5]
            begins = one.address + 8 * number
            if not file and ops > structures.IMAGE and self._points_back(sock, begins):
                return True
        return False

    def _is_own_file(self, one: Allocation) -> bool:
        """Whether it is a file that the module has opened for itself.

        A file system may have all files that are open in a list, as /proc has (struct pde_opener in
        fs/proc/internal.h). What a module opens for a process comes by other functions.
        """
        slab = self._allocators.slab(one.address - self._layout.direct)
        return slab is not None and slab.name == _FILES and self._call(one).startswith(_OPENS)

    def _is_own_mount(self, one: Allocation) -> bool:
        """Whether it is a mount that the module has made for itself, in no folder.

        One that is gone, and that the allocator points to, was cleared.
        """
        made = self._user(one).startswith("alloc_vfsmnt")
        return made and self._call(one).startswith(_MOUNTS) and any(self._content(one))

    def _entries(self, nodes: Sequence[_Node]) -> Iterator[Lost]:
        """What the module has put into sysfs or debugfs and not taken away, once for each call.

        A call makes a folder before what is in it, and an entry before the links to that. What is
        in a folder that is told goes away with it.
        """
        calls: dict[tuple[int, ...], list[_Node]] = {}
        for node in nodes:
            if self._entry(node.allocation):
                stack = node.allocation.stack
                inside = next(number for number, at in enumerate(stack) if self._gone(at))
                if self._may_be_loaded(stack[inside], node.allocation.order):
                    continue  # then it has its entries with good reason
                calls.setdefault(stack[inside:], []).append(node)
        found: dict[str, list[_Node]] = {}
        groups = [sorted(made, key=lambda node: node.allocation.order) for made in calls.values()]
        for made in sorted(groups, key=lambda made: made[0].allocation.order):
            path = self._entry(made[0].allocation)
            above = next((one for one in found if path.startswith(f"{one}/")), path)
            found.setdefault(above, []).extend(made)
        for path, (first, *others) in found.items():
            call = self._call(first.allocation)
            undo = next((undo for pattern, undo in _ENTRIES if re.match(pattern, call)), "")
            yield self._described(first, others, path, undo or f"what undoes {call}()")

    def _entry(self, one: Allocation) -> str:
        """The path of an entry of sysfs or debugfs that was not removed; "" where it is none."""
        if one.event != OBJECT:
            return ""
        user = self._user(one)
        if user.startswith("__d_alloc") and self._call(one).startswith("debugfs_"):
            return self._path_in_debugfs(one.address)
        if not user.startswith("__kernfs_new_node"):  # struct kernfs_node
            return ""
        at = one.address - self._layout.direct
        found = structures.slab_object(self._memory, self._layout, at)
        removed = found is None or pointers.is_removed_node(self._memory, found, at + 8)
        path = "" if removed else self._path(one.address)
        return "" if path.startswith(_OF_SLABS) else path

    def _path_in_debugfs(self, address: int) -> str:
        """The path of a name in debugfs, "" where nothing is there any more.

        The words of struct dentry (linux/dcache.h): flags, two of the list by which it is looked
        up, the folder, a hash, the name, the inode. What is removed is in that list no more. The
        folder of the uppermost is itself.
        """
        names: list[str] = []
        for _ in range(_DEEPEST):
            start = address - self._layout.direct
            if self._memory.offset(start) is None:
                return ""
            _, _, listed, folder, _, name, inode = as_words(self._memory.read(start, 56))
            if folder == address:
                break
            if not listed or not inode:
                return ""
            names.append(structures.text_at(self._memory, self._layout, name))
            address = folder
        return "/".join([_DEBUGFS, *reversed(names)]) if names and all(names) else ""

    def _path(self, address: int) -> str:
        """Where in /sys an entry is, "" where it cannot be one.

        The words of struct kernfs_node (linux/kernfs.h): two counts, the folder, the name. That of
        all of sysfs is in no folder. With lockdep the counts are seen as a lock, and have a map.
        """
        names: list[str] = []
        above = 8 + (_LOCK_MAP if self._layout.lockdep else 0)
        for _ in range(_DEEPEST):
            start = address - self._layout.direct
            if self._memory.offset(start) is None:
                return ""
            folder, name = as_words(self._memory.read(start + above, 16))
            if not folder:
                break
            names.append(structures.text_at(self._memory, self._layout, name))
            address = folder
        return "/".join(["/sys", *reversed(names)]) if names and all(names) else ""

    def _points_back(self, address: int, to: int) -> bool:
        """Whether an object has a pointer to another one, whose pointer to it is followed."""
        slab = self._allocators.slab(address - self._layout.direct) if address else None
        return slab is not None and to in as_words(self._memory.read(slab.start, slab.size))

    def _content(self, one: Allocation) -> bytes:
        return self._memory.read(one.address - self._layout.direct, one.size)

    def _others_tell(self, one: Allocation) -> bool:
        """Whether it is not told here: kmemleak tells of it, which only does not know of pages.

        Or the kernel itself has lost it, whatever the module does.
        """
        if self._layout.kmemleak and one.event != PAGES:
            return True
        called = {self._name(address) for address in one.stack}
        return any(functions <= called for functions in _THE_KERNELS)

    def _call(self, one: Allocation) -> str:
        """The function of the kernel's that the module called."""
        called = ""
        for address in one.stack:
            if self._gone(address):
                break
            called = self._name(address) or called
        return called

    def _described(
        self, node: _Node, others: Collection[_Node], held: str = "", undo: str = ""
    ) -> Lost:
        """What is said of an allocation; ``held`` is what it still is in the kernel, if it is."""
        one = node.allocation
        lines = []
        for frame in one.stack:
            place = self._symbols().at(frame)
            if self._gone(frame):
                lines.append(f" {frame:#018x}")
            elif frame >= structures.MODULES:
                lines.append(f" {frame:#018x} (of another module)")
            elif place and not _OF_THE_TRACER.match(place[0]):
                lines.append(f" {place[0]}+{place[1]:#x}/{self._symbols().size(place[0]):#x}")
        return Lost(
            # The last page of an area is none: it guards the end.
            size=one.size if node.area is None else len(node.area) - PAGE,
            call=shown_as(self._call(one), one.event),
            stack="\n".join(lines),
            orders=tuple(each.allocation.order for each in (node, *others)),
            ranges=tuple(own for each in (node, *others) for own in each.own),
            # What an area is made of is not counted.
            more=0 if node.area else len(others),
            held=held,
            undo=undo,
        )


# So many searches for 64 KiB take about as long as one for the 16 MiB that they are in.
_SEARCHES = 16
# Where functions are not inlined, as with KCSAN, an event's own is on the stack as well.
_OF_THE_TRACER = re.compile(
    r"trace_event_raw_event_|ftrace_|__traceiter_|trace_event_buffer"
    r"|trace_(?:kmalloc|kmem_cache_alloc|mm_page_alloc|percpu_alloc)"
)
_OF_THE_ALLOCATOR = re.compile(rf"{_OF_THE_TRACER.pattern}|_*k[mzc]alloc|_*kmem_cache_z?alloc")


def shown_as(function: str, event: str) -> str:
    """The name that a programmer knows a function by, of those that allocate.

    What is inline in a header has a name of its own in a stack, which changes from one kernel to
    the next: kzalloc() shows as __kmalloc_cache_noprof().
    """
    name = function.partition(".")[0].removesuffix("_noprof")
    for pattern, shown in (*_OF_PAGES, *_SHOWN) if event == PAGES else _SHOWN:
        if re.match(pattern, name):
            return shown
    return name


_OF_PAGES = ((r"_*(alloc_pages|get_free_pages?|folio_alloc)", "alloc_pages"),)
_SHOWN = (
    (r"_*kmalloc|kmem_cache_alloc_trace|trace_event", "kmalloc"),
    (r"_*kvmalloc", "kvmalloc"),
    (r"krealloc", "krealloc"),
    (r"pcpu_alloc|_*alloc_percpu", "alloc_percpu"),
    (r"_*vmalloc(_node)?$", "vmalloc"),
    # Before 6.2 dma_alloc_attrs() jumps there instead of calling it.
    (r"dma_direct_alloc$", "dma_alloc_attrs"),
)


def _name_in(data: bytes) -> str:
    """The longest text in an object, which is its name."""
    texts = re.findall(rb"[\x21-\x7e]{3,}", data)
    return max(texts, key=len, default=b"").decode("ascii")


def _regions(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Larger ranges that have these in them, few of them, and each soon looked for in memory.

    They are of 64 KiB, whose addresses have six of their eight bytes in common. Each is a search
    through all of memory. Where that would be many, one for 16 MiB finds more, to be sorted out.
    """
    near: dict[int, set[int]] = {}  # the 64 KiB in each 16 MiB, by their numbers
    for start, end in ranges:
        for number in range(start >> 16, (end - 1 >> 16) + 1):
            near.setdefault(number >> 8, set()).add(number)
    found: list[tuple[int, int]] = []
    for area, numbers in near.items():
        if len(numbers) > _SEARCHES:
            found.append((area << 24, (area + 1) << 24))
        else:
            found += [(number << 16, (number + 1) << 16) for number in sorted(numbers)]
    return found


def _closure(nodes: Iterable[_Node]) -> set[_Node]:
    """The nodes, all that they have, and so on."""
    found: set[_Node] = set()
    fresh = list(nodes)
    while fresh:
        node = fresh.pop()
        if node not in found:
            found.add(node)
            fresh += node.has
    return found


class _Intervals:
    """Ranges that do not overlap, each with the node that it is of."""

    def __init__(self, ranges: Iterable[tuple[int, int, _Node]]) -> None:
        self._all = sorted(ranges, key=lambda one: one[:2])
        self._starts = [start for start, _, _ in self._all]

    def at(self, value: int) -> _Node | None:
        place = bisect.bisect_right(self._starts, value) - 1
        if place < 0:
            return None
        start, end, node = self._all[place]
        return node if start <= value < end else None

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [(start, end) for start, end, _ in self._all]
