# SPDX-License-Identifier: GPL-2.0-only
"""Begins the record of allocations in a guest, and tries whether it is right on its kernel.

Where a kernel keeps what it is read from differs from one release to the next. So the record is
trusted only where it was seen to work: the kernel is made to allocate memory and to free it, and
each must be read from the machine's memory. Where that fails, the record is taken away from the
guest again: its events have addresses of modules, which would be taken for pointers of the kernel's
own.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path

from harness.examine import record
from harness.examine.allocations import PAGES, Reader
from harness.examine.lost import ROUNDS, Search
from harness.examine.record import Record
from harness.examine.structures import Layout, Scene, Symbols
from harness.host.proc import Deadline
from harness.machines.guest import Guest
from harness.qemu import Machine
from harness.qemu.memory import FrozenMemory, Memory

log = logging.getLogger(__name__)


def begin(
    machine: Machine, guest: Guest, symbols: Symbols, layout: Layout, folder: Path, kib: int,
    deadline: Deadline,
) -> str:  # fmt: skip
    """Begin the record, each CPU's of ``kib`` KiB; why there is none, or "".

    The machine's memory is the file ``memory`` in ``folder``, which it shares. Where the record is
    goes to ``record.FILE`` there. Raises ``GuestError`` or ``MachineError`` where the guest or the
    machine does not answer, or a record that is not right cannot be taken away.
    """
    with FrozenMemory(folder / "memory") as memory:
        attempt = _Attempt(machine, guest, symbols, layout, memory, deadline)
        why = attempt.begin(kib)
        if attempt.about is not None and not why:
            (folder / record.FILE).write_text(attempt.about.to_json())
            return ""
    guest.check(record.END_SCRIPT)
    return why


@dataclass
class _Attempt:
    """One guest in which the record is begun and tried; ``about`` is there once it is found."""

    machine: Machine
    guest: Guest
    symbols: Symbols
    layout: Layout
    memory: Memory
    deadline: Deadline
    about: Record | None = None

    def begin(self, kib: int) -> str:
        """Why the record is not to be trusted, or ""."""
        # Written into the ring buffer, so that it can be found.
        word = f"eudyptula-{secrets.token_hex(8)}"
        done = self.guest.run(record.setup_script(self.symbols, word, kib))
        if done.status:
            return f"the guest cannot begin it: {done.stderr.strip()}"
        with self.machine.clock.stopped(self.deadline):
            blocks = self.memory.blocks(self.memory.filled())
            self.about = record.learn(
                self.memory, self.layout, self.symbols, blocks, done.stdout, word
            )
        if self.about is None:
            return "it is not found in the machine's memory"
        done = self.guest.run(record.TRIAL_SCRIPT)
        if done.status:
            return f"the kernel does not record: {done.stderr.strip()}"
        if why := self._look(freed=False):
            return why
        self.guest.check(record.TRIAL_END_SCRIPT)
        for _ in range(ROUNDS):  # as often as what a module has left is looked at
            self.machine.agent.order("let-go", "let-go", self.deadline)
            why = self._look(freed=True)
            if not why:
                break
        return why

    def _look(self, *, freed: bool) -> str:
        """What is wrong with what the record says of the trial, or ""."""
        assert self.about is not None
        ranges = self.symbols.functions(record.TRIAL_FUNCTION)
        if not ranges:
            return f"the kernel has no {record.TRIAL_FUNCTION}()"
        start, end = min(low for low, _ in ranges), max(low + size for low, size in ranges)

        def by_the_trial(address: int) -> bool:
            return any(low <= address < low + size for low, size in ranges)

        with self.machine.clock.stopped(self.deadline):
            reader = Reader(self.memory, self.layout, self.about)
            filled = list(self.memory.filled())
            scene = Scene(self.memory, self.layout, lambda: self.memory.blocks(iter(filled)))
            search = Search(scene, self.about, lambda: self.symbols, by_the_trial)
            every = reader.allocations(start, end, by_the_trial)
            every = [one for one in every if search.is_the_modules(one)]
            left = search.left(every, reader)
            lost = search.lost(left)
        pages = sum(one.event == PAGES for one in every)
        log.debug("trial: %d pages and %d objects recorded, %d in use, %d lost",
                  pages, len(every) - pages, len(left), len(lost))  # fmt: skip
        if not 0 < pages < len(every):
            return "allocations that were made are not found in it"
        if not freed and len(left) < len(every):
            log.debug("not in use: %s", [search.shown(one) for one in every if one not in left])
            return "memory in use is taken for free"
        if lost:
            return "memory that was freed, or that the kernel has, is taken for lost"
        return ""
