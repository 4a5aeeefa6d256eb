# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's log, read where the kernel keeps it: printk's ring buffer in the guest's memory.

A module can take the console away, or silence it, and give it back; what the kernel said meanwhile
is in the ring buffer all the same. The kernel gives the layout of the buffer in a text for crash
dumps, vmcoreinfo (Documentation/admin-guide/kdump/vmcoreinfo.rst); it has this form since 5.10.
How it is read is what kernel/printk/printk_ringbuffer.c and the kernel's own
scripts/gdb/linux/dmesg.py do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.examine.structures import DIRECT, IMAGE, Symbols
from harness.qemu.memory import FrozenMemory, Memory, RunningMemory

FILE = "ring.json"  # of a template

_WORD = 8
_STATE_SHIFT = 62  # DESC_FLAGS_SHIFT: the two uppermost bits of a state are what it is
_ID = (1 << _STATE_SHIFT) - 1
_COMMITTED, _FINALIZED = 1, 2  # enum desc_state
_MOST_TEXT = 1 << 16  # bytes of a record: its length is a u16
MARK = "eudyptula-mark-"  # what the harness itself has vm/agent log: qemu/agent.py


@dataclass(frozen=True)
class Layout:
    """Where a kernel has its ring buffer: physical addresses, and what vmcoreinfo says.

    ``ring`` is that of the struct printk_ringbuffer, ``direct`` the virtual address of all memory.
    """

    ring: int
    direct: int
    numbers: Mapping[str, int]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Layout:
        return cls(**json.loads(text))

    def physical(self, address: int) -> int:
        """The physical address of static data, or of memory."""
        return address - (IMAGE if address >= IMAGE else self.direct)


@dataclass(frozen=True)
class Record:
    """One message: its number, when it was logged (microseconds), and its text."""

    number: int
    time: int
    text: str

    @property
    def stamp(self) -> str:
        """As a console has it before each line (print_time() in kernel/printk/printk.c)."""
        return f"[{self.time // 1_000_000:5}.{self.time % 1_000_000:06}]"


# What is needed of vmcoreinfo, by what it is called there.
_NEEDED = (
    "OFFSET(printk_ringbuffer.desc_ring)", "OFFSET(printk_ringbuffer.text_data_ring)",
    "OFFSET(prb_desc_ring.count_bits)", "OFFSET(prb_desc_ring.descs)",
    "OFFSET(prb_desc_ring.infos)", "OFFSET(prb_desc_ring.head_id)",
    "OFFSET(prb_desc_ring.tail_id)", "SIZE(prb_desc)", "OFFSET(prb_desc.state_var)",
    "OFFSET(prb_desc.text_blk_lpos)", "OFFSET(prb_data_blk_lpos.begin)",
    "OFFSET(prb_data_blk_lpos.next)", "SIZE(printk_info)", "OFFSET(printk_info.ts_nsec)",
    "OFFSET(printk_info.text_len)", "OFFSET(prb_data_ring.size_bits)",
    "OFFSET(prb_data_ring.data)",
)  # fmt: skip


def learn(memory: Memory, symbols: Symbols) -> Layout | None:
    """The layout of a kernel's ring buffer, or None where the kernel does not say it."""
    data, size = symbols.address("vmcoreinfo_data"), symbols.address("vmcoreinfo_size")
    if data is None or size is None:
        return None
    base = symbols.address("page_offset_base")
    direct = DIRECT if base is None else memory.word(base - IMAGE)
    note = memory.read(memory.word(data - IMAGE) - direct, memory.word(size - IMAGE) & 0xFFFF)
    text = note.decode(errors="replace")
    found = re.findall(r"^((?:OFFSET|SIZE)\(\w+(?:\.\w+)?\))=(\d{1,9})$", text, re.MULTILINE)
    numbers = {name: int(value) for name, value in found if name in _NEEDED}
    ring = re.search(r"^SYMBOL\(prb\)=([0-9a-f]{16})$", text, re.MULTILINE)
    if ring is None or len(numbers) < len(_NEEDED):
        return None
    layout = Layout(0, direct, numbers)
    at = layout.physical(memory.word(layout.physical(int(ring[1], 16))))
    return Layout(at, direct, numbers)


class _Ring:
    """The buffer as it is now."""

    def __init__(self, memory: Memory, layout: Layout) -> None:
        self._memory, self._layout = memory, layout
        of = layout.numbers
        desc = layout.ring + of["OFFSET(printk_ringbuffer.desc_ring)"]
        data = layout.ring + of["OFFSET(printk_ringbuffer.text_data_ring)"]
        self.count = 1 << (memory.word(desc + of["OFFSET(prb_desc_ring.count_bits)"]) & 31)
        self._size = 1 << (memory.word(data + of["OFFSET(prb_data_ring.size_bits)"]) & 31)
        self._descs = self._pointer(desc + of["OFFSET(prb_desc_ring.descs)"])
        self._infos = self._pointer(desc + of["OFFSET(prb_desc_ring.infos)"])
        self._data = self._pointer(data + of["OFFSET(prb_data_ring.data)"])
        self.last = memory.word(desc + of["OFFSET(prb_desc_ring.head_id)"]) & _ID

    def _pointer(self, at: int) -> int:
        return self._layout.physical(self._memory.word(at))

    def record(self, number: int) -> Record | None:
        """A record, where it is whole and nobody has taken its place."""
        of, memory, place = self._layout.numbers, self._memory, number % self.count
        desc = self._descs + place * of["SIZE(prb_desc)"]
        state = memory.word(desc + of["OFFSET(prb_desc.state_var)"])
        if state & _ID != number or state >> _STATE_SHIFT not in (_COMMITTED, _FINALIZED):
            return None
        block = desc + of["OFFSET(prb_desc.text_blk_lpos)"]
        begin = memory.word(block + of["OFFSET(prb_data_blk_lpos.begin)"])
        end = memory.word(block + of["OFFSET(prb_data_blk_lpos.next)"])
        info = self._infos + place * of["SIZE(printk_info)"]
        stamp = memory.word(info + of["OFFSET(printk_info.ts_nsec)"])
        length = memory.word(info + of["OFFSET(printk_info.text_len)"]) & (_MOST_TEXT - 1)
        if begin & 1:  # BLK_DATALESS: it has no text
            return Record(number, stamp // 1000, "")
        # A block that does not fit before the end of the buffer is at its beginning, as a whole.
        start = begin % self._size
        if begin // self._size != end // self._size and end % self._size:
            start = 0
        text = memory.read(self._data + start + _WORD, min(length, self._size))
        return Record(number, stamp // 1000, text.decode(errors="replace"))


def last_number(memory: Memory, layout: Layout) -> int:
    """The number of the newest record."""
    return _Ring(memory, layout).last


def records(memory: Memory, layout: Layout, after: int) -> Iterator[Record]:
    """The records with numbers above ``after``, as far as they have not been overwritten."""
    ring = _Ring(memory, layout)
    fresh = min((ring.last - after) & _ID, ring.count)
    for number in range(ring.last - fresh + 1, ring.last + 1):
        found = ring.record(number & _ID)
        if found is not None:
            yield found


# What a console has between a stamp and the text where CONFIG_PRINTK_CALLER is set.
_CALLER = re.compile(r"(?:\[ *[TC]\d{1,10}\])? ")


# So many bytes of a record does a console print at once, up to 6.2: lines that do not fit, each
# with its stamp, are left out (CONSOLE_LOG_MAX and record_print_text() in kernel/printk/printk.c).
_PRINTED_AT_ONCE = 1024


def unprinted(logged: Sequence[Record], console: str) -> list[str]:
    """The lines of records that are not on a console, which has them in the order of the records.

    Where a console has no stamps at all (a test may have switched them off, by printk.time) the
    text decides.
    """
    stamped = any(record.stamp in console for record in logged)
    missing: list[str] = []
    at = 0
    for record in logged:
        stamp = record.stamp if stamped else ""
        size, begun = 0, False
        # As Console.text has it.
        for line in record.text.replace("\r\n", "\n").split("\n"):
            said = line.rstrip("\r")
            size += len(f"{stamp} {line}\n".encode())
            end = _end_of(console, stamp, said, at) if said.strip() else None
            if end is not None:
                at, begun = end, True
            elif said.strip() and not (begun and size > _PRINTED_AT_ONCE):
                missing.append(f"{record.stamp} {said}")
    return missing


def _end_of(console: str, stamp: str, said: str, at: int) -> int | None:
    """Where a line with this stamp ends on the console, from ``at`` on."""
    if not stamp:
        found = console.find(said, at)
        return None if found < 0 else found + len(said)
    while (found := console.find(stamp, at)) >= 0:
        at = found + len(stamp)
        between = _CALLER.match(console, at)
        if between and console.startswith(said, between.end()):
            return between.end() + len(said)
    return None


class Ring:
    """The ring buffer of one clone of a frozen template; ``folder`` is the template's."""

    def __init__(self, pid: int, folder: Path) -> None:
        """Nothing is read before it is needed."""
        self._pid, self._folder = pid, folder
        self._after: int | None = None  # the last record that was compared with the console

    def unprinted(self, console: str, *, marked: bool) -> tuple[str, ...]:
        """The lines that were logged since this was last called and are not on the console.

        ``marked``: the console is known to have everything up to the last mark, and only that is
        compared. Nothing where the kernel does not say where its buffer is.
        """
        file = self._folder / FILE
        if not file.exists():
            return ()
        layout = Layout.from_json(file.read_text())
        memory = self._folder / "memory"
        if self._after is None:
            with FrozenMemory(memory) as frozen:
                self._after = last_number(frozen, layout)
        with RunningMemory(self._pid, memory) as running:
            logged = list(records(running, layout, self._after))
        if marked:
            while logged and MARK not in logged[-1].text:
                logged.pop()
        if not logged:
            return ()
        self._after = logged[-1].number
        return tuple(unprinted(logged, console))
