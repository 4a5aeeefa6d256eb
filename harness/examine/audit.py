# SPDX-License-Identifier: GPL-2.0-only
"""Looks through a machine's memory for what modules that are gone have left.

That is what still points to them, and what they allocated and nobody has.

``note`` and ``settle`` find out what there is to know of a kernel while its template is made;
``Audit`` looks at a clone of that template, from outside.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import re
import struct
import threading
import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from harness.errors import MachineError
from harness.examine import layouts, locks, pointers, record, registries, ring, structures, trial
from harness.examine.allocations import Gone, Reader
from harness.examine.allocators import Allocators, PerCpu
from harness.examine.lost import ROUNDS, Lost, Search
from harness.examine.record import Record
from harness.examine.registries import Finding
from harness.examine.structures import Layout, ModuleArea, Scene, Symbols
from harness.host.proc import Deadline
from harness.machines.guest import Guest
from harness.qemu import Machine
from harness.qemu.memory import (
    PAGE,
    FrozenMemory,
    Memory,
    Pointer,
    RunningMemory,
    pointers_into,
)

log = logging.getLogger(__name__)

# Files of a template.
LAYOUT = "layout.json"
SYMBOLS = "symbols"  # /proc/kallsyms without modules, compressed (zlib)
POINTERS = "pointers"  # into the module area, when the machine was frozen: pairs of u64
SECTIONS = "sections.json"  # of the modules that are loaded, as in /sys/module/NAME/sections
STALE = "stale"  # those of the kernel's own that pointed to nothing before any test
_UNRECORDED = "unrecorded"  # why there is no record of allocations
_SLABS = "slabs"  # files of /sys/kernel/slab, until it is frozen
# A lock that somebody has as a reader whenever it is looked at, for so long, is not given back.
_READING, _LOOKS = 5.0, 50  # seconds of the guest's, and how often in these
RECENT = "recent.json"  # the pages that a derived template has written to since it was booted


def note(guest: Guest, folder: Path) -> None:
    """Ask a guest for what its memory alone does not tell."""
    symbols = guest.check("grep -v ']$' /proc/kallsyms || true")
    (folder / SYMBOLS).write_bytes(zlib.compress(symbols.encode(), 1))
    files = "*/slab_size */destroy_by_rcu */ctor"
    slabs = guest.check(f"cd /sys/kernel/slab 2>/dev/null && grep -H . {files} || true")
    (folder / _SLABS).write_text(slabs)


def begin_record(machine: Machine, guest: Guest, folder: Path, deadline: Deadline) -> None:
    """Begin to record allocations, if that is seen to work on this kernel; else say why not.

    The machine has its memory in ``folder``, and shares it. Three sixteenths of that are for the
    record: 200 lives of a module, by three commands each, take 66 MiB of the usual 512 on 7.3.
    """
    names = _symbols_of(folder)
    with machine.clock.stopped(deadline), FrozenMemory(folder / "memory") as memory:
        layout = layouts.learn(memory, names, (folder / _SLABS).read_text())
    if layout is None:
        return
    kib = (machine.spec.memory_mib << 10) * 3 // 16 // machine.spec.cpus
    if why := trial.begin(machine, guest, names, layout, folder, kib, deadline):
        (folder / _UNRECORDED).write_text(why)


def not_looked_for(folder: Path) -> str:
    """What nothing looks for on the machines of a frozen template, and why; "" if all is."""
    layout = _layout(folder)
    if layout is None:
        return "what a module leaves in memory: this kernel's memory cannot be read from outside"
    file = folder / _UNRECORDED
    if file.exists():
        return f"memory that a module has lost: allocations are not recorded ({file.read_text()})"
    return ""


Sections = Mapping[str, Mapping[str, str]]  # the addresses as text, by module and section


def note_sections(machine: Machine, folder: Path, deadline: Deadline) -> None:
    """Ask a guest where the modules are that are loaded now."""
    (folder / SECTIONS).write_text(json.dumps(_sections(machine, (), deadline)))


def _sections(
    machine: Machine, known: Collection[str], deadline: Deadline
) -> dict[str, dict[str, str]]:
    answer = machine.agent.order(f"sections {','.join(known)}", "sections", deadline)
    found: dict[str, dict[str, str]] = {}
    for word in answer.split():
        module, _, rest = word.partition("/")
        section, _, address = rest.rpartition("=")
        found.setdefault(module, {})[section] = address
    return found


def _pages_of(modules: Mapping[str, Mapping[str, str]], area: ModuleArea) -> Iterator[int]:
    """The pages of these modules, by the addresses of their sections.

    They may have been mapped before a module came: the kernel gives back what the init of an
    earlier one had a moment after that has been loaded (kernel/module/main.c, do_free_init()), and
    the next one gets that place. Behind what it allocates for a module one page is not mapped.
    """
    for sections in modules.values():
        for address in sections.values():
            page = int(address, 16) & -PAGE
            while page in area.mapped:
                yield page
                page += PAGE


def settle(folder: Path, base: Path | None = None) -> None:
    """Look through a machine that was frozen in ``folder``, once.

    ``base`` is the folder of the template that it was cloned from. What points nowhere there is
    the kernel's own doing, as the addresses of its modules' init sections are.
    """
    with FrozenMemory(folder / "memory") as memory:
        if base is not None:
            for name in (LAYOUT, SYMBOLS, STALE, record.FILE, ring.FILE):
                if (base / name).exists():
                    (folder / name).write_bytes((base / name).read_bytes())
            layout = _layout(folder)
            with FrozenMemory(base / "memory") as before:
                pages = _joined([*_recent(base), *_differing(before, memory)])
            (folder / RECENT).write_text(json.dumps([[run.start, run.stop] for run in pages]))
        else:
            names = _symbols_of(folder)
            layout = layouts.learn(memory, names, (folder / _SLABS).read_text())
            (folder / _SLABS).unlink()
            if (buffer := ring.learn(memory, names)) is not None:
                (folder / ring.FILE).write_text(buffer.to_json())
            else:
                log.warning("this kernel does not say where its log is: it is read from the "
                            "console only")  # fmt: skip
            if layout is not None:
                (folder / LAYOUT).write_text(layout.to_json())
        if layout is None:
            return
        area = structures.module_area(memory, layout)
        found = [
            one
            for start, end in structures.spans(area)
            for one in pointers_into(memory.blocks(memory.used()), start, end)
        ]
    _write(folder / POINTERS, found)
    if base is None:
        _write(folder / STALE, pointers.dangling(found, area.mapped))


def _differing(before: FrozenMemory, after: FrozenMemory) -> Iterator[range]:
    """The pages of a machine that are not as they were, one by one."""
    for address, now in after.blocks(after.used()):
        # Of each its bytes are read at once: to read a page takes longer than to compare it.
        then = before.read(address, len(now))
        first = (after.offset(address) or 0) // PAGE
        for place in range(0, len(now), PAGE):
            if now[place : place + PAGE] != then[place : place + PAGE]:
                number = first + place // PAGE
                yield range(number, number + 1)


def _recent(folder: Path) -> list[range]:
    """The pages that a template has written to since the one that was booted was frozen."""
    file = folder / RECENT
    return [range(*run) for run in json.loads(file.read_text())] if file.exists() else []


def _layout(folder: Path) -> Layout | None:
    file = folder / LAYOUT
    return Layout.from_json(file.read_text()) if file.exists() else None


def _write(file: Path, found: list[Pointer]) -> None:
    file.write_bytes(b"".join(struct.pack("<QQ", one.at, one.to) for one in found))


def _read(file: Path) -> list[Pointer]:
    return [Pointer(at, to) for at, to in struct.iter_unpack("<QQ", file.read_bytes())]


@dataclass(frozen=True)
class _Frozen:
    """What there is to know of a frozen template without asking one of its clones.

    ``area`` is its module area, and ``content`` what the tables of that hold. ``pointers`` are
    those into the area, by their pages (numbers in QEMU's order).
    """

    layout: Layout
    sections: Sections
    record: Record | None
    area: ModuleArea
    content: bytes
    pointers: Mapping[int, tuple[Pointer, ...]]
    stale: frozenset[Pointer]


def _frozen(folder: Path) -> _Frozen | None:
    """What is known of the template in ``folder``, or None where its memory cannot be read."""
    info = (folder / "memory").stat()
    return _read_frozen(folder, (info.st_ino, info.st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _read_frozen(folder: Path, memory_file: tuple[int, int]) -> _Frozen | None:
    """The same, read once: it is so for each clone, and takes longer than to look at one.

    ``memory_file`` tells a template that was made again, in the same folder, from the one before.
    """
    del memory_file
    layout = _layout(folder)
    if layout is None:
        return None
    recorded = folder / record.FILE
    by_page: dict[int, list[Pointer]] = {}
    with FrozenMemory(folder / "memory") as memory:
        area = structures.module_area(memory, layout)
        for one in _read(folder / POINTERS):
            if (offset := memory.offset(one.at)) is not None:
                by_page.setdefault(offset // PAGE, []).append(one)
        return _Frozen(
            layout,
            json.loads((folder / SECTIONS).read_text()),
            Record.from_json(recorded.read_text()) if recorded.exists() else None,
            area,
            _content(memory, area.tables),
            {page: tuple(found) for page, found in by_page.items()},
            frozenset(_read(folder / STALE)),
        )


class Audit:
    """Looks at one clone of a frozen template. A context manager: it holds files open."""

    def __init__(self, machine: Machine, folder: Path, *, loaded: bool = False) -> None:
        """``folder`` is the template's; nothing is read before it is needed.

        ``loaded``: the template was frozen with a module under test in it.
        """
        self._machine = machine
        self._loaded = loaded
        self._folder = folder
        self._open: tuple[Layout, RunningMemory, FrozenMemory] | None = None
        self._known: _Frozen | None = None
        self._ends = ExitStack()
        self._area: ModuleArea | None = None  # as it was when it was looked at last
        self._tables = b""  # what its page tables held then
        self._found: list[Finding] = []
        self.held = False  # whether something that points into a module that is gone was ever found
        self._record: Record | None = None
        self._lost: list[Lost] = []
        self._told: set[int] = set()  # what was found lost, by its order in the record
        self._incomplete = False  # whether the record of allocations ran over in a module's life
        self._recorded = -1  # how many bytes the record had when it was looked at last
        # The pages that have come to be mapped, each with how far the record was before that.
        self._since: dict[int, int] = {}
        self._noted = -1  # how far the record was when a module last came or went
        self._looked = -1  # how many commands had begun when it was last looked for remains
        self.guest: Guest | None = None  # once somebody asks for it
        self._sections: dict[str, Mapping[str, str]] = {}
        self._came = False  # whether a module was seen that the template does not have
        self._ring: ring.Ring | None = None
        self._counted: int | None = None  # how many reports the kernel had counted at that time

    def _opened(self) -> tuple[Layout, RunningMemory, FrozenMemory] | None:
        if self._open is None:
            known = _frozen(self._folder)
            if known is None:
                return None
            file = self._folder / "memory"
            running = self._ends.enter_context(RunningMemory(self._machine.pid, file))
            frozen = self._ends.enter_context(FrozenMemory(file))
            self._open = known.layout, running, frozen
            self._known = known
            self._area, self._tables = known.area, known.content
            self._sections = dict(known.sections)
            self._record = known.record
        return self._open

    @property
    def sections(self) -> Sections:
        """Where the modules are or were that have been seen."""
        return self._sections

    def watch(self, deadline: Deadline) -> None:
        """After each command: remember where modules are, and look what points to one that is gone.

        A module that another one replaces in a later command could not be told from it.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # nobody but the test itself speaks with the guest's agent
        opened = self._opened()
        if opened is None or self._area is None:
            return
        layout, memory, _ = opened
        if _content(memory, self._area.tables) == self._tables:
            return
        area = structures.module_area(memory, layout)
        before, self._area, self._tables = self._area, area, _content(memory, area.tables)
        noted = self._noted
        self._since |= dict.fromkeys(area.mapped - before.mapped, noted)
        if self._record is not None:
            self._noted = Reader(memory, layout, self._record).last_order
        try:
            if not area.mapped < before.mapped:  # else pages have gone, and no module has come
                came = _sections(self._machine, self._sections, deadline)
                self._came = self._came or bool(came)
                self._sections |= came
                self._since |= dict.fromkeys(_pages_of(came, area), noted)
            if before.mapped - area.mapped:
                self._found += self._remains(layout, deadline)
        except MachineError:  # which the test's end finds as well, and explains
            log.debug("a module came or went, and the machine does not answer", exc_info=True)

    def untouched(self) -> bool:
        """Whether there has been no module under test in the machine so far.

        Loading one changes the page tables of the kernel's module area. They are looked at from
        outside, so that no module can hide that it was there. False where that cannot be told.
        """
        opened = None if self._loaded else self._opened()
        return opened is not None and not self._moved(opened)

    def seen(self) -> int | None:
        """How many commands have begun, where a module came or went since the machine was frozen.

        Else, and where that cannot be told, None.
        """
        opened = self._opened()
        return self._commands if opened is not None and self._moved(opened) else None

    @staticmethod
    def _moved(opened: tuple[Layout, RunningMemory, FrozenMemory]) -> bool:
        """Whether a module may have come or gone since the machine was frozen."""
        layout, memory, _ = opened
        return any(memory.changed(table) for table in structures.area_tables(memory, layout))

    def remains(self, deadline: Deadline) -> tuple[Finding, ...]:
        """What still points into modules that are gone, the machine having been stopped for it.

        Nothing where no module came or went since the machine was frozen. Raises
        ``MachineError`` where the machine does not answer.
        """
        opened = self._opened()
        if opened is None:
            return ()
        layout, memory, _ = opened
        if not self._moved(opened):
            return ()
        tables = structures.area_tables(memory, layout)
        found, self._found = self._found, []
        # At several moments of a test, in most of which nothing has happened since the last.
        if self._looked != self._commands or _content(memory, tables) != self._tables:
            found += self._remains(layout, deadline)
        self.held = self.held or bool(found)
        return tuple(dict.fromkeys(found))

    @property
    def _commands(self) -> int:
        return self.guest.commands if self.guest else 0

    def _remains(self, layout: Layout, deadline: Deadline) -> tuple[Finding, ...]:
        pointing, lost = self._look(layout, deadline)
        for _ in range(ROUNDS):
            if not pointing and not lost:
                break
            if pointing and self._letting_go_kills(layout, pointing, deadline):
                break
            self._machine.agent.order("let-go", "let-go", deadline)
            pointing, lost = self._look(layout, deadline)
        # Only now: where the machine did not answer in time, it is looked at again.
        self._looked = self._commands
        self._lost += lost
        self._told |= {order for one in lost for order in one.orders}
        # What is told as lost memory need not be told as a pointer in it.
        own = [addresses for one in lost for addresses in one.ranges]
        found = [one for one in pointing if not any(one.at in addresses for addresses in own)]
        return self._described(layout, found, deadline) if found else ()

    def kept_by_readers(self, deadline: Deadline) -> tuple[str, ...]:
        """The names of locks of the kernel's that somebody has as a reader for seconds.

        The kernel itself has them for a moment at a time. Raises ``MachineError`` where the
        machine does not answer.
        """
        opened = self._opened()
        if opened is None:
            return ()
        layout, memory, _ = opened
        kept = set(locks.held_by_readers(memory, layout))
        for _ in range(_LOOKS):
            if not kept:
                break
            self._machine.agent.sleep(_READING / _LOOKS, deadline)
            kept &= set(locks.held_by_readers(memory, layout))
        return tuple(sorted(kept))

    def kept_by_ended(self, deadline: Deadline) -> tuple[str, ...]:
        """The names of the locks whose owner has ended.

        The kernel frees what it knew of a task after a grace period, which is waited for. Raises
        ``MachineError`` where the machine does not answer.
        """
        opened = self._opened()
        if opened is None:
            return ()
        layout, memory, _ = opened
        scene = Scene(memory, layout, self._recent)

        def look() -> locks.Kept:
            with self._machine.clock.stopped(deadline):
                return locks.kept_by_ended(scene, self._symbols)

        kept = look()
        for _ in range(ROUNDS):
            if not kept.unsure:
                break
            self._machine.agent.order("rest", "rested", deadline)
            kept = look()
        return kept.names

    def take_lost(self) -> tuple[Lost, ...]:
        """What modules that are gone allocated and nobody has; each is told once."""
        lost, self._lost = self._lost, []
        return tuple(lost)

    def take_incomplete(self) -> bool:
        """Whether the record ran over before a module was gone; that is told once."""
        incomplete, self._incomplete = self._incomplete, False
        return incomplete

    def record_has_stopped(self) -> bool:
        """Whether somebody has stopped the record, or emptied it, before it was looked at last.

        The guest must have opened a file or begun a process since: each would be recorded.
        """
        if self._recorded < 0 or self._record is None or self._open is None:
            return False
        layout, memory, frozen = self._open
        now = Reader(memory, layout, self._record)
        if now.full:
            return False  # nothing more is recorded, which is told by itself
        before = Reader(frozen, layout, self._record)
        if not now.continues(before):
            return True
        # It begins when a module is loaded, which is not the only way to have new code.
        begun = now.bytes_used > before.bytes_used or self._loaded or self._came
        return begun and now.bytes_used <= self._recorded

    def _described(
        self, layout: Layout, found: list[Pointer], deadline: Deadline
    ) -> tuple[Finding, ...]:
        symbols = self._symbols()
        with self._machine.clock.stopped(deadline):
            scene = self._scene(layout)
            return tuple(registries.describe(scene, symbols, pointer) for pointer in found)

    def _letting_go_kills(
        self, layout: Layout, pointing: list[Pointer], deadline: Deadline
    ) -> bool:
        with self._machine.clock.stopped(deadline):
            return pointers.would_be_called(self._scene(layout), pointing)

    def _scene(self, layout: Layout) -> Scene:
        assert self._open is not None
        return Scene(self._open[1], layout, self._everything)

    def _everything(self) -> Iterator[tuple[int, bytes]]:
        """All of the machine's memory that is not zero."""
        assert self._open is not None
        _, running, frozen = self._open
        pages = itertools.chain(frozen.used(), running.written())
        return running.blocks(iter(_joined(pages)))

    def _look(self, layout: Layout, deadline: Deadline) -> tuple[list[Pointer], list[Lost]]:
        """The references to what is gone, and what it allocated and nobody has, as of now."""
        assert self._open is not None
        assert self._known is not None
        _, memory, _ = self._open
        with self._machine.clock.stopped(deadline):
            area = structures.module_area(memory, layout)
            candidates = pointers.dangling(self._pointers(area), area.mapped)
            if self._record is not None:
                candidates = [one for one in candidates if not self._record.has(one.at)]
            fresh = [one for one in candidates if one not in self._known.stale]
            if not area.mapped <= layout.mapped:
                fresh = [
                    one
                    for one in fresh
                    if not pointers.of_a_loaded_module(memory, layout, area, one)
                ]
            left = self._not_given_back(layout, pointers.references(self._scene(layout), fresh))
            left = self._not_freed_percpu(layout, left)
            return left, self._lost_now(layout, area)

    def _not_given_back(self, layout: Layout, found: list[Pointer]) -> list[Pointer]:
        """Those of the pointers that are not in an object that the allocator has back."""
        assert self._open is not None
        memory = self._open[1]
        objects = {one.at: structures.slab_object(memory, layout, one.at) for one in found}
        known = {one for one in objects.values() if one is not None}
        if not known:
            return found
        back = Allocators(self._scene(layout), ()).given_back(known)
        return [one for one in found if objects[one.at] not in back]

    def _not_freed_percpu(self, layout: Layout, found: list[Pointer]) -> list[Pointer]:
        """Those of the pointers that are not in per-CPU memory that was freed.

        That of a module's srcu_struct points to it.
        """
        if not found or self._open is None:
            return found
        percpu = PerCpu(self._open[1], layout, self._symbols())
        return [one for one in found if not percpu.is_freed(one.at)]

    def _lost_now(self, layout: Layout, area: ModuleArea) -> list[Lost]:
        """What modules that are gone allocated, and neither freed nor left to anybody."""
        if self._record is None or self._open is None:
            return []
        memory = self._open[1]
        reader = Reader(memory, layout, self._record)
        self._recorded = reader.bytes_used
        if reader.full:  # what has been freed since is taken for lost
            self._incomplete = True
            return []
        gone = _gone(area)
        scene = Scene(memory, layout, self._recent)
        pages = (structures.physical(memory, layout, page) for page in area.mapped)
        loaded = frozenset(page for page in pages if page is not None)
        search = Search(scene, self._record, self._symbols, gone, loaded, self._may_be_loaded(area))
        every = reader.allocations(area.start, area.end, gone)
        left = search.left([one for one in every if one.order not in self._told], reader)
        log.debug("%d bytes of record, %d allocations of modules that are gone, %d not freed",
                  reader.bytes_used, len(every), len(left))  # fmt: skip
        if log.isEnabledFor(logging.DEBUG):
            for one in left:
                log.debug("not freed: %s", search.shown(one))
        return search.lost(left) if left else []

    def _may_be_loaded(self, area: ModuleArea) -> Callable[[int, int], bool]:
        """Whether code that is gone may be of a module that is loaded now, as its init is.

        Where the init was is not known for certain of a module that came since the machine was
        frozen. But it has made nothing before the module came.
        """
        assert self._known is not None
        fresh = area.mapped - self._known.area.mapped
        since = [self._since.get(page, -1) for page in fresh]
        came = min(since, default=None)
        sections = self._known.sections if self._loaded else {}
        places = sorted(
            (int(address, 16), name) for name, each in sections.items() for address in each.values()
        )
        there = {name for start, name in places if start & -PAGE in area.mapped}

        def may_be(at: int, order: int) -> bool:
            if came is not None and order > came:
                return True
            if not places:
                return self._loaded
            _, name = places[bisect_right(places, (at, "\uffff")) - 1]
            return name in there

        return may_be

    def _symbols(self) -> Symbols:
        return _symbols_of(self._folder)

    def _recent(self) -> Iterator[tuple[int, bytes]]:
        """The memory that was written to since the machine booted, which alone can have pointers
        to what was allocated since."""
        assert self._open is not None
        running = self._open[1]
        pages = itertools.chain(_recent(self._folder), running.written())
        return running.blocks(iter(_joined(pages)))

    def _pointers(self, area: ModuleArea) -> list[Pointer]:
        """All pointers into the module area: in pages that changed, and in those that did not."""
        assert self._open is not None
        assert self._known is not None
        _, memory, _ = self._open
        runs = list(memory.written())
        changed = {page for run in runs for page in run}
        found = list(pointers_into(memory.blocks(iter(runs)), area.start, area.end))
        for page, unchanged in self._known.pointers.items():
            if page not in changed:
                found += unchanged
        return found

    def unprinted(self, *, marked: bool) -> tuple[str, ...]:
        """What the kernel has logged and not printed: see ``ring.Ring.unprinted``."""
        machine = self._machine
        if self._ring is None:
            self._ring = ring.Ring(machine.pid, self._folder)
        console = machine.console_text()
        return () if machine.log.unread else self._ring.unprinted(console, marked=marked)

    def counted(self) -> int:
        """How many warnings and oopses the kernel has counted since this was last called.

        The first time, since the machine was frozen.
        """
        opened = self._opened()
        if opened is None:
            return 0
        layout, running, frozen = opened
        before = _count(frozen, layout, self._folder) if self._counted is None else self._counted
        self._counted = _count(running, layout, self._folder)
        return self._counted - before

    def close(self) -> None:
        self._ends.close()
        self._open = None

    def __enter__(self) -> Audit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


@functools.lru_cache(maxsize=2)
def _symbols_of(folder: Path) -> Symbols:
    """The symbols of a template's kernel. Reading them takes a fifth of a second."""
    return Symbols(zlib.decompress((folder / SYMBOLS).read_bytes()).decode())


# Where the kernel counts its warnings (kernel/panic.c, check_panic_on_warn()) and oopses
# (kernel/exit.c, make_task_dead()), for those who want a panic after so many.
_COUNTER = re.compile(r"^([0-9a-f]{16}) \w (?:warn|oops)_count$", re.MULTILINE)


@functools.lru_cache(maxsize=4)
def _counters(folder: Path) -> tuple[int, ...]:
    """The addresses of the kernel's counters of warnings and of oopses.

    The text is searched for them, which takes a tenth of the time of ``_symbols_of``.
    """
    text = zlib.decompress((folder / SYMBOLS).read_bytes()).decode()
    return tuple(int(address, 16) for address in _COUNTER.findall(text))


def _count(memory: Memory, layout: Layout, folder: Path) -> int:
    """How many warnings and oopses a kernel has counted; each counter is a struct atomic_t."""
    words = (
        structures.word_at(memory, layout, at & -8) >> 8 * (at & 7) for at in _counters(folder)
    )
    return sum(word & 0xFFFFFFFF for word in words)


def _gone(area: ModuleArea) -> Gone:
    """Whether code at an address was a module's that is gone."""

    def gone(address: int) -> bool:
        page = address & -PAGE
        return area.start <= address < area.end and page not in area.mapped

    return gone


def _content(memory: Memory, tables: Iterable[int]) -> bytes:
    """What page tables hold."""
    return b"".join(memory.read(table, PAGE) for table in tables)


def _joined(runs: Iterable[range]) -> list[range]:
    """Ranges without those that overlap, in order."""
    joined: list[range] = []
    for run in sorted(runs, key=lambda run: run.start):
        if joined and run.start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, run.stop))
        else:
            joined.append(run)
    return joined
