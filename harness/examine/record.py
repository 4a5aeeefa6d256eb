# SPDX-License-Identifier: GPL-2.0-only
"""The record of allocations: how a guest begins to keep it, and where it is in a machine's memory.

The kernel's own trace events (Documentation/trace/events-kmem.rst) are switched on when a module is
loaded. Each tells of one allocation, and a second event right after it has the call stack. They are
in a ring buffer of the kernel's that belongs to an instance of tracefs. The buffer is read from the
machine's memory: through the guest it would take seconds, and the guest would have to be well.
``allocations.py`` reads the events.

Like structures.py pure but for reading memory that it is handed, and for x86-64.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from harness.examine import structures
from harness.examine.structures import Layout, Symbols
from harness.qemu.memory import PAGE, Memory

FILE = "record.json"  # of a template: a Record

# The folder in tracefs: an instance has a ring buffer and switches of its own, so that a test can
# use the others as if this one were not there.
INSTANCE = "/sys/kernel/tracing/instances/eudyptula"

# The events by their group. Kernels before 6.1 have the _node forms as well, with the same fields.
_EVENTS = (
    "kmem/kmalloc", "kmem/kmalloc_node", "kmem/kmem_cache_alloc", "kmem/kmem_cache_alloc_node",
    "kmem/mm_page_alloc", "percpu/percpu_alloc_percpu", "percpu/percpu_free_percpu",
)  # fmt: skip

# The trial of the record (trial.py): another instance's ring buffer is made larger. Each page of
# it is one and an object that describes it (kernel/trace/ring_buffer.c). They are few, as all of
# memory is looked through for who has them.
TRIAL_FUNCTION = "ring_buffer_resize"
_TRIAL = f"{INSTANCE}-trial"


def _switch(value: int) -> str:
    """Shell: switch the events on (1) or off (0)."""
    return (
        f"for event in {' '.join(_EVENTS)}; do\n"
        f"if [ -d events/$event ]; then echo {value} >events/$event/enable; fi\ndone"
    )


TRIAL_SCRIPT = f"""set -e
mkdir {_TRIAL}
echo 64 >{_TRIAL}/per_cpu/cpu0/buffer_size_kb
cd {INSTANCE}
{_switch(1)}
echo 72 >{_TRIAL}/per_cpu/cpu0/buffer_size_kb
{_switch(0)}"""
TRIAL_END_SCRIPT = f"rmdir {_TRIAL}"
# Takes the record away. A ring buffer that is gone is zeros: freed memory is cleared.
END_SCRIPT = f"""set -e
if [ -d {_TRIAL} ]; then rmdir {_TRIAL}; fi
if [ -d {INSTANCE} ]; then rmdir {INSTANCE}; fi"""

# Most allocations are a process's: parts of its address space, and the names of files while they
# are looked up. No module makes these by itself, so they are left out, by who allocates.
_OF_PROCESSES = (
    "vm_area_alloc", "vm_area_dup", "anon_vma_fork", "anon_vma_clone", "__anon_vma_prepare",
    "getname_flags", "getname_kernel",
)  # fmt: skip

# Likewise pages that may be moved, which are a process's or a file's: ___GFP_MOVABLE in
# linux/gfp_types.h (linux/gfp.h before 6.0).
_MOVABLE = 0x08


def setup_script(symbols: Symbols, word: str, kib: int) -> str:
    """A shell script for the guest that prepares the record; it prints what ``learn`` wants.

    Nothing is recorded before a module is loaded: the event of that switches on the others. ``kib``
    is how large the ring buffer of each CPU is, and ``word`` is written into each. The script fails
    where the kernel cannot do it or has not been tried, and where each event would be printed as
    well (tp_printk).
    """
    ranges = [
        (at, at + size - 1)
        for name in _OF_PROCESSES
        for at, size in symbols.functions(name)
        if size
    ]
    callers = " && ".join(
        f"(call_site < {low:#x} || call_site > {high:#x})" for low, high in ranges
    )
    filters = {"kmem/mm_page_alloc": f"!(gfp_flags & {_MOVABLE:#x})"}
    if callers:
        filters |= dict.fromkeys(("kmem/kmem_cache_alloc", "kmem/kmem_cache_alloc_node"), callers)
    lines = [
        "set -e",
        "if grep -qx 1 /proc/sys/kernel/tracepoint_printk; then",
        "echo 'the kernel prints all trace events (tp_printk)' >&2",
        "exit 1",
        "fi",
        f"mkdir {INSTANCE}",
        f"cd {INSTANCE}",
        # A clock that counts: it orders the events of all CPUs, and its steps are short.
        "echo counter >trace_clock",
        "echo 0 >options/overwrite",
        "echo 1 >options/stacktrace",
        f"echo {kib} >buffer_size_kb",
    ]
    for event in _EVENTS:
        name = event.replace("/", ":")
        lines.append(f"if [ -d events/{event} ]; then")
        if event in filters:
            lines.append(f"echo '{filters[event]}' >events/{event}/filter")
        lines += [
            f"echo enable_event:{name} >>events/module/module_load/trigger",
            f"grep -v ^print events/{event}/format",
            "fi",
        ]
    lines += [
        "grep -v ^print ../../events/ftrace/kernel_stack/format",
        "for cpu in per_cpu/cpu*; do",
        "n=${cpu##*cpu}",
        # There is a folder also for a CPU that could be plugged in, but is not there.
        "if taskset -c $n true 2>/dev/null; then",
        f'taskset -c $n sh -c "echo {word} >trace_marker"',
        "fi",
        "done",
    ]
    return "\n".join(lines)


Ranges = tuple[tuple[int, int], ...]
Fields = Mapping[str, tuple[int, int]]  # the offset and the size of each, in bytes, by its name


@dataclass(frozen=True)
class Record:
    """Where the record is, and how its events are to be read.

    ``pages`` are the physical addresses of its pages, for each CPU in the order in which they are
    filled. ``events`` has the name and the fields of each event, by its number. ``scratch`` are
    ranges of physical addresses in which the tracer puts an event together. ``skb_caches`` are such
    ranges too: where each CPU keeps packets that are free. ``others`` are ranges of addresses of
    code: what such code calls is not done for what is above it on the stack.
    """

    pages: tuple[tuple[int, ...], ...]
    events: Mapping[int, tuple[str, Fields]]
    scratch: Ranges = ()
    skb_caches: Ranges = ()
    others: Ranges = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"events": list(self.events.items())})

    @classmethod
    def from_json(cls, text: str) -> Record:
        facts: dict[str, Any] = json.loads(text)
        events = {
            number: (name, {one: (at, size) for one, (at, size) in fields.items()})
            for number, (name, fields) in facts["events"]
        }
        scratch, skb_caches, others = (
            tuple((start, end) for start, end in facts[name])
            for name in ("scratch", "skb_caches", "others")
        )
        return cls(tuple(map(tuple, facts["pages"])), events, scratch, skb_caches, others)

    def has(self, at: int) -> bool:
        """Whether an address in memory is the record's own, whose content is no reference."""
        return at & -PAGE in self._own or any(start <= at < end for start, end in self.scratch)

    @cached_property
    def _own(self) -> frozenset[int]:
        return frozenset(page for pages in self.pages for page in pages)

    def works_for_others(self, address: int) -> bool:
        """Whether code at an address does what it does for others than whom it interrupted."""
        return any(start <= address < end for start, end in self.others)


_FIELD = re.compile(r"\tfield:.*?\b(\w+)(?:\[[^]]*\])?;\toffset:(\d+);\tsize:(\d+);")


def formats(text: str) -> dict[int, tuple[str, Fields]]:
    """The fields of each event, from its file ``format`` (Documentation/trace/events.rst)."""
    found: dict[int, tuple[str, Fields]] = {}
    name, fields = "", dict[str, tuple[int, int]]()
    for line in text.splitlines():
        if line.startswith("name: "):
            name = line.removeprefix("name: ")
        elif line.startswith("ID: "):
            fields = {}
            found[int(line.removeprefix("ID: "))] = name, fields
        elif match := _FIELD.match(line):
            fields[match[1]] = int(match[2]), int(match[3])
    return found


def learn(
    memory: Memory, layout: Layout, symbols: Symbols, blocks: Iterable[tuple[int, bytes]],
    said: str, word: str,
) -> Record | None:  # fmt: skip
    """Where the record is in a machine that was frozen, by the ``word`` that was written into it.

    ``said`` is what the script printed. None where it is not found.
    """
    wanted = re.compile(re.escape(word.encode()))
    places = [
        address + found.start() for address, data in blocks for found in wanted.finditer(data)
    ]
    rings = [
        pages
        for page in sorted({place & -PAGE for place in places})
        if committed(memory.read(page, PAGE)) and (pages := _ring(memory, layout, page))
    ]
    if not rings or layout.slab_word is None or not layout.cache_size:
        return None
    return Record(
        tuple(rings), formats(said), tuple(_scratch(memory, layout, symbols)),
        tuple(_percpu(layout, symbols, "napi_alloc_cache")), tuple(_others(symbols)),
    )  # fmt: skip


DATA = 16  # bytes before a page's first event


def committed(page: bytes) -> int:
    """How many bytes of a ring buffer's page are in use, which is in its second word.

    struct buffer_data_page in kernel/trace/ring_buffer.c; flags are above. 0 where it is no such
    page.
    """
    used = int.from_bytes(page[8:16], "little")
    return used if 0 < used <= PAGE - DATA else 0


def _ring(memory: Memory, layout: Layout, first: int) -> tuple[int, ...]:
    """The pages of the ring that a page is in, beginning with that; () where it is in none."""
    blocks = memory.blocks(memory.filled())
    for descriptor, place in structures.trace_descriptors(memory, layout, blocks, first):
        if pages := structures.trace_ring(memory, layout, descriptor, place):
            return pages
    return ()


def _scratch(memory: Memory, layout: Layout, symbols: Symbols) -> Iterator[tuple[int, int]]:
    """Where the tracer puts events together, for each CPU: kernel/trace/trace.c."""
    yield from _percpu(layout, symbols, "ftrace_stacks")
    for at, _ in _percpu(layout, symbols, "trace_buffered_event"):
        page = (memory.word(at) - layout.direct) & -PAGE
        yield page, page + PAGE


def _percpu(layout: Layout, symbols: Symbols, name: str) -> Iterator[tuple[int, int]]:
    """The physical addresses of each CPU's copy of a variable; none where there is no such."""
    address = symbols.address(name)
    if address is not None:
        for offset in layout.percpu:
            at = (address + offset) % (1 << 64) - layout.direct
            yield at, at + symbols.size(name)


def _others(symbols: Symbols) -> Iterator[tuple[int, int]]:
    """Code that works for others than whom it has interrupted or was called by.

    The entries from hardware (arch/x86/include/asm/idtentry.h) begin with asm_. Softirqs are
    processed on whomever's stack. A message about a device is for whoever listens (lib/
    kobject_uevent.c).
    """
    names = ("__do_softirq", "handle_softirqs", "kobject_uevent_env")
    entries = [name for name in symbols.names if name.startswith("asm_")]
    for name in (*entries, *names):
        yield from ((at, at + size) for at, size in symbols.functions(name))
