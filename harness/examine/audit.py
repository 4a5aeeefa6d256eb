# SPDX-License-Identifier: GPL-2.0-only
"""Looks through a machine's memory for what still points into modules that are gone.

``note`` and ``settle`` find out what there is to know of a kernel while its template is made;
``Audit`` looks at a clone of that template, from outside.
"""

from __future__ import annotations

import itertools
import json
import logging
import struct
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from harness.errors import MachineError
from harness.examine import pointers, ring
from harness.examine.pointers import Finding, Layout, ModuleArea, Scene, Symbols
from harness.host.proc import Deadline
from harness.machines.guest import Guest
from harness.qemu import Machine
from harness.qemu.memory import (
    PAGE,
    FrozenMemory,
    Memory,
    Pointer,
    RunningMemory,
    dig_holes,
    pointers_into,
)

log = logging.getLogger(__name__)

# Files of a template.
LAYOUT = "layout.json"
SYMBOLS = "symbols"  # /proc/kallsyms without modules, compressed (zlib)
POINTERS = "pointers"  # into the module area, when the machine was frozen: pairs of u64
SECTIONS = "sections.json"  # of the modules that are loaded, as in /sys/module/NAME/sections
STALE = "stale"  # those of the kernel's own that pointed to nothing before any test

# How often what is found is looked at again, after the kernel has been made to do what it has
# put off: freeing memory after a grace period, which may itself put off more.
ROUNDS = 3


def note(guest: Guest, folder: Path) -> None:
    """Ask a guest for what its memory alone does not tell."""
    symbols = guest.check("grep -v ']$' /proc/kallsyms || true")
    (folder / SYMBOLS).write_bytes(zlib.compress(symbols.encode(), 1))
    files = "*/slab_size */destroy_by_rcu */ctor"
    slabs = guest.check(f"cd /sys/kernel/slab 2>/dev/null && grep -H . {files} || true")
    (folder / "slabs").write_text(slabs)


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


def settle(folder: Path, base: Path | None = None) -> None:
    """Look through a machine that was frozen in ``folder``, once.

    ``base`` is the folder of the template that it was cloned from. What points nowhere there is
    the kernel's own doing, as the addresses of its modules' init sections are.
    """
    dig_holes(folder / "memory")
    source = base or folder
    with FrozenMemory(folder / "memory") as memory:
        if base is not None:
            for name in (LAYOUT, SYMBOLS, STALE, ring.FILE):
                if (base / name).exists():
                    (folder / name).write_bytes((base / name).read_bytes())
            layout = _layout(folder)
        else:
            names = Symbols(zlib.decompress((source / SYMBOLS).read_bytes()).decode())
            layout = pointers.learn(memory, names, (source / "slabs").read_text())
            (folder / "slabs").unlink()
            if (buffer := ring.learn(memory, names)) is not None:
                (folder / ring.FILE).write_text(buffer.to_json())
            else:
                log.warning("this kernel does not say where its log is: it is read from the "
                            "console only")  # fmt: skip
            if layout is not None:
                (folder / LAYOUT).write_text(layout.to_json())
        if layout is None:
            log.warning("this kernel's memory cannot be read from outside: nothing looks for "
                        "what a module leaves there")  # fmt: skip
            return
        area = pointers.module_area(memory, layout)
        found = list(pointers_into(memory.blocks(memory.used()), area.start, area.end))
    _write(folder / POINTERS, found)
    if base is None:
        _write(folder / STALE, pointers.dangling(found, area.mapped))


def _layout(folder: Path) -> Layout | None:
    file = folder / LAYOUT
    return Layout.from_json(file.read_text()) if file.exists() else None


def _write(file: Path, found: list[Pointer]) -> None:
    file.write_bytes(b"".join(struct.pack("<QQ", one.at, one.to) for one in found))


def _read(file: Path) -> list[Pointer]:
    return [Pointer(at, to) for at, to in struct.iter_unpack("<QQ", file.read_bytes())]


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
        self._ends = ExitStack()
        self._area: ModuleArea | None = None  # as it was when it was looked at last
        self._tables = b""  # what its page tables held then
        self._found: list[Finding] = []
        self._looked = -1  # how many commands had begun when it was last looked for remains
        self.guest: Guest | None = None  # once somebody asks for it
        self._sections: dict[str, Mapping[str, str]] = {}
        self._ring: ring.Ring | None = None

    def _opened(self) -> tuple[Layout, RunningMemory, FrozenMemory] | None:
        if self._open is None:
            layout = _layout(self._folder)
            if layout is None:
                return None
            file = self._folder / "memory"
            running = self._ends.enter_context(RunningMemory(self._machine.pid, file))
            frozen = self._ends.enter_context(FrozenMemory(file))
            self._open = layout, running, frozen
            self._area = pointers.module_area(frozen, layout)
            self._tables = _content(frozen, self._area)
            self._sections = json.loads((self._folder / SECTIONS).read_text())
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
        if _content(memory, self._area) == self._tables:
            return
        area = pointers.module_area(memory, layout)
        before, self._area, self._tables = self._area, area, _content(memory, area)
        try:
            if area.mapped - before.mapped:
                self._sections |= _sections(self._machine, self._sections, deadline)
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

    @staticmethod
    def _moved(opened: tuple[Layout, RunningMemory, FrozenMemory]) -> bool:
        """Whether a module may have come or gone since the machine was frozen."""
        layout, memory, _ = opened
        return any(memory.changed(table) for table in pointers.module_area(memory, layout).tables)

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
        area = pointers.module_area(memory, layout)
        found, self._found = self._found, []
        # At several moments of a test, in most of which nothing has happened since the last.
        if self._looked != self._commands or _content(memory, area) != self._tables:
            found += self._remains(layout, deadline)
        return tuple(dict.fromkeys(found))

    @property
    def _commands(self) -> int:
        return self.guest.commands if self.guest else 0

    def _remains(self, layout: Layout, deadline: Deadline) -> tuple[Finding, ...]:
        self._looked = self._commands
        found = self._look(layout, deadline)
        for _ in range(ROUNDS):
            if not found:
                return ()
            self._machine.agent.order("let-go", "let-go", deadline)
            found = self._look(layout, deadline)
        if not found:
            return ()
        return self._described(layout, found, deadline)

    def _described(
        self, layout: Layout, found: list[Pointer], deadline: Deadline
    ) -> tuple[Finding, ...]:
        symbols = Symbols(zlib.decompress((self._folder / SYMBOLS).read_bytes()).decode())
        with self._machine.clock.stopped(deadline):
            scene = self._scene(layout)
            return tuple(pointers.describe(scene, symbols, pointer) for pointer in found)

    def _scene(self, layout: Layout) -> Scene:
        assert self._open is not None
        return Scene(self._open[1], layout, self._everything)

    def _everything(self) -> Iterator[tuple[int, bytes]]:
        """All of the machine's memory that is not zero."""
        assert self._open is not None
        _, running, frozen = self._open
        pages = itertools.chain(frozen.used(), running.written())
        return running.blocks(iter(_joined(pages)))

    def _look(self, layout: Layout, deadline: Deadline) -> list[Pointer]:
        """The references to what is gone, as they are now."""
        assert self._open is not None
        _, memory, _ = self._open
        with self._machine.clock.stopped(deadline):
            area = pointers.module_area(memory, layout)
            candidates = pointers.dangling(self._pointers(area), area.mapped)
            stale = set(_read(self._folder / STALE))
            fresh = [one for one in candidates if one not in stale]
            if not area.mapped <= layout.mapped:
                fresh = [
                    one
                    for one in fresh
                    if not pointers.of_a_loaded_module(memory, layout, area, one)
                ]
            return pointers.references(self._scene(layout), fresh)

    def _pointers(self, area: ModuleArea) -> list[Pointer]:
        """All pointers into the module area: in pages that changed, and in those that did not."""
        assert self._open is not None
        _, memory, _ = self._open
        runs = list(memory.written())
        changed = {page for run in runs for page in run}
        found = list(pointers_into(memory.blocks(iter(runs)), area.start, area.end))
        for one in _read(self._folder / POINTERS):
            offset = memory.offset(one.at)
            if offset is not None and offset // PAGE not in changed:
                found.append(one)
        return found

    def unprinted(self, *, marked: bool) -> tuple[str, ...]:
        """What the kernel has logged and not printed: see ``ring.Ring.unprinted``."""
        machine = self._machine
        if self._ring is None:
            self._ring = ring.Ring(machine.pid, self._folder)
        console = machine.console_text()
        return () if machine.log.unread else self._ring.unprinted(console, marked=marked)

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


def _content(memory: Memory, area: ModuleArea) -> bytes:
    """What the page tables of the module area hold."""
    return b"".join(memory.read(table, PAGE) for table in area.tables)


def _joined(runs: Iterator[range]) -> list[range]:
    """Ranges without those that overlap, in order."""
    joined: list[range] = []
    for run in sorted(runs, key=lambda run: run.start):
        if joined and run.start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, run.stop))
        else:
            joined.append(run)
    return joined
