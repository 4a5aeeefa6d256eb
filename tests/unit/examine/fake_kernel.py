# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's memory that is made up: page tables, slab caches, tasks, as far as they are read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from harness.examine import layouts, pointers
from harness.examine.structures import Scene, Symbols
from harness.qemu.memory import PAGE, FrozenMemory, Pointer

IMAGE = 0xFFFFFFFF80000000
DIRECT = 0xFFFF888000000000
VMEMMAP = 0xFFFFEA0000000000
VMALLOC = 0xFFFFC90000000000
MODULES = 0xFFFFFFFFC0000000
SHADOW = 0xDFFFFC0000000000
SIZE = 16 << 20
PERCPU = 0xC00000  # where CPU 0 has its variables
# Bytes: where a struct page has its slab cache; where a struct kmem_cache has the others.
SLAB_CACHE, OBJECT_SIZE, NAME, LIST = 8, 24, 96, 104

# Where the image has what; each is a page, and so a symbol's size.
PLACES = {
    "_text": 0x100000, "init_top_pgt": 0x101000, "filp_cachep": 0x110000,
    "slab_caches": 0x111000, "__per_cpu_offset": 0x112000, "mod_tree": 0x113000,
    "init_task": 0x114000, "module_mutex": 0x116000,
    "init_stack": 0x118000, "reboot_notifier_list": 0x120000,
    "fw_shutdown_nb": 0x121000, "formats": 0x122000, "script_format": 0x123000,
    "cpuhp_hp_states": 0x124000, "somewhere": 0x125000, "__init_begin": 0x128000,
    "__init_end": 0x12A000, "file_systems": 0x12B000, "iomem_resource": 0x12C000,
    "init_net": 0x12D000, "shrinker_list": 0x12E000,
    "dma_pool_create": 0x12F000, "kobject_set_name_vargs": 0x12F400,
    "__class_register": 0x12F800, "__get_vm_area_node": 0x12FC00, "__kernfs_new_node": 0x12FC80,
    "sysfs_create_link": 0x12FD00, "__d_alloc": 0x12FD80, "debugfs_create_dir": 0x12FDC0,
    "alloc_vfsmnt": 0x12FE00,
    "kern_mount": 0x12FE80, "kern_path": 0x12FF00, "filp_open": 0x12FF80,
    "pcpu_base_addr": 0x12FFC0, "pcpu_unit_size": 0x12FFC8, "pcpu_chunk_lists": 0x12FFD0,
    "pcpu_reserved_chunk": 0x12FFD8, "_end": 0x130000,
}  # fmt: skip


class Kernel:
    """Some memory of a kernel's, written word by word; ``scene`` is what is looked through."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.data = bytearray(SIZE)
        self._free = 0x200000  # pages for tables and objects are taken from here on
        self._page_of: dict[int, int] = {}
        self._shadow: dict[int, int] = {}  # the physical addresses of its pages
        lines = [f"{IMAGE + at:016x} D {name}" for name, at in PLACES.items()]
        # Per-CPU variables have small addresses (before 6.15).
        lines += ["0000000000000000 A __per_cpu_start", "0000000000001000 A timer_bases",
                  "0000000000001804 A __percpu_rwsem_rc_cpu_hotplug_lock",
                  "0000000000001900 A krc", "0000000000002000 A __per_cpu_end"]  # fmt: skip
        self.kallsyms = "\n".join(lines)
        self.symbols = Symbols(self.kallsyms)
        self.map(IMAGE + PLACES["init_top_pgt"], PLACES["init_top_pgt"])
        for page in range(0, SIZE // PAGE * 64, PAGE):  # the array of struct page
            self.map(VMEMMAP + page, 0x800000 + page)
        self.word(PLACES["__per_cpu_offset"], DIRECT + PERCPU)
        self.caches: dict[str, int] = {}
        self.files: list[str] = []
        for name in ("slab_caches", "shrinker_list"):
            self.wordlist(PLACES[name], IMAGE + PLACES[name])
        mutex = PLACES["module_mutex"]
        self.wordlist(mutex + 16, IMAGE + mutex + 16)
        self.cache("filp", 256, wiped=False)
        self.cache("kmem_cache", 512)
        self.page(self.caches["filp"] - DIRECT & -PAGE, "kmem_cache")
        self.word(PLACES["filp_cachep"], self.caches["filp"])
        self.cache("task_struct", PAGE)
        self.text(PLACES["init_task"] + 128, "swapper/0")
        self.word(PLACES["init_task"] + 32, IMAGE + PLACES["init_stack"])
        self.wordlist(PLACES["init_task"] + 64, IMAGE + PLACES["init_task"] + 64)
        self.map(MODULES, self.take())  # a module of the kernel's own

    def take(self, pages: int = 1) -> int:
        """Pages that nothing is in yet; their physical address."""
        at, self._free = self._free, self._free + pages * PAGE
        return at

    def word(self, at: int, *values: int) -> None:
        struct.pack_into(
            f"<{len(values)}Q", self.data, at, *(value % (1 << 64) for value in values)
        )

    def read(self, at: int) -> int:
        return int(struct.unpack_from("<Q", self.data, at)[0])

    def text(self, at: int, text: str) -> None:
        self.data[at : at + len(text) + 1] = text.encode() + b"\0"

    def map(self, virtual: int, physical: int | None) -> None:
        """Map a page, or unmap it; the tables on the way are there from then on."""
        table = PLACES["init_top_pgt"]
        for shift in (39, 30, 21):
            slot = table + 8 * (virtual >> shift & 511)
            if not self.read(slot):
                self.word(slot, self.take() | 3)
            table = self.read(slot) & ~0xFFF
        self.word(table + 8 * (virtual >> 12 & 511), 0 if physical is None else physical | 3)

    def wordlist(self, head: int, address: int) -> None:
        """An empty list: it points to itself."""
        self.word(head, address, address)

    def append(self, head: int, address: int, node: int, place: int) -> None:
        """Append a node (virtual address, physical one) to a list."""
        last = self.read(head + 8)
        where = last - IMAGE if last >= IMAGE else last - DIRECT
        self.word(place, address, last)
        self.word(where, node)
        self.word(head + 8, node)

    def cache(self, name: str, size: int, *, wiped: bool = True) -> None:
        """A slab cache; its description is an object of the cache kmem_cache."""
        at = self.take()
        text = self.take()
        self.text(text, name)
        self.word(at + OBJECT_SIZE, size)
        self.word(at + NAME, DIRECT + text)
        head = PLACES["slab_caches"]
        self.append(head, IMAGE + head, DIRECT + at + LIST, at + LIST)
        self.caches[name] = DIRECT + at
        self.files += [f"{name}/slab_size:{size}", f"{name}/destroy_by_rcu:{int(not wiped)}",
                       f"{name}/ctor:"]  # fmt: skip

    def page(self, at: int, cache: str = "", *, mapping: int = 0) -> None:
        """Say in its struct page what a page is."""
        words = (0, self.caches.get(cache, 0), 0, mapping)
        self.word(0x800000 + at // PAGE * 64, *words)

    def object(self, cache: str) -> int:
        """A page of a slab cache: its first object's physical address."""
        at = self.take()
        self.page(at, cache)
        return at

    def kasan(self, at: int, *shadow: int) -> None:
        """Have KASAN say this of as many times eight bytes from an address in memory on."""
        if " T kasan_report" not in self.kallsyms:
            self.kallsyms += f"\n{IMAGE + 0x100:x} T kasan_report"
            self.symbols = Symbols(self.kallsyms)
        place = (SHADOW + (DIRECT + at >> 3)) % (1 << 64)
        page = self._shadow.setdefault(place & -PAGE, self.take())
        self.map(place & -PAGE, page)
        self.data[page + place % PAGE : page + place % PAGE + len(shadow)] = bytes(shadow)

    def task(self, name: str, stack: int, pointer: int) -> None:
        """A task that sleeps with its stack in use from ``pointer`` on."""
        at = self.object("task_struct")
        self.word(at + 32, stack)
        self.text(at + 128, name)
        self.word(at + 1024, pointer)
        head = PLACES["init_task"] + 64
        self.append(head, IMAGE + head, DIRECT + at + 64, at + 64)

    def stack(self) -> tuple[int, int]:
        """A stack of four pages: its virtual address, and its last page's physical one."""
        start = VMALLOC + 0x8000 + (self._free & 0xFFFF) * 0x100 & ~0x7FFF
        pages = [self.take() for _ in range(4)]
        for number, page in enumerate(pages):
            self.map(start + number * PAGE, page)
        return start, pages[-1]

    def scene(self) -> Scene:
        """All of it as it is now."""
        self.file.write_bytes(self.data)
        memory = FrozenMemory(self.file)
        layout = layouts.learn(memory, self.symbols, "\n".join(self.files))
        assert layout is not None

        def everything() -> Iterator[tuple[int, bytes]]:
            yield 0, bytes(self.data)

        return Scene(memory, layout, everything)

    def references(self, *places: int) -> list[int]:
        """Which of the pointers at these places, all to a page that is gone, count."""
        candidates = []
        for at in places:
            if not self.read(at):
                self.word(at, GONE)
            candidates.append(Pointer(at, self.read(at)))
        return [one.at for one in pointers.references(self.scene(), candidates)]


GONE = MODULES + 0x5040
