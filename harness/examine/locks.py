# SPDX-License-Identifier: GPL-2.0-only
"""Finds locks of the kernel's whose owner has ended, in a machine's memory.

Nobody may end with a mutex, or with a semaphore that it has for writing: nobody else can give it
back (Documentation/locking/mutex-design.rst). So whoever needs such a lock waits for ever, and
until then nothing is wrong in anybody's eyes. No list of locks is needed for that, as each of them
says who has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from harness.examine.allocators import Allocators
from harness.examine.structures import (
    IMAGE,
    Layout,
    Scene,
    SlabObject,
    Symbols,
    is_variable,
    physical,
    slab_object,
    word_at,
)
from harness.qemu.memory import PAGE, Memory, upper_bytes

# A struct mutex (linux/mutex_types.h) begins with its owner, and so does what a struct rw_semaphore
# (linux/rwsem.h) has behind its count: then come two locks of 32 bits for a moment at a time, and
# who waits. The owner's address has flags in its lowest bits, of which none is set where one has it
# for writing and nobody waits; and a task is at a multiple of 64 bytes (fork_init() in
# kernel/fork.c). Those who wait are a list that points to itself as long as there is none, up to
# 7.1, and from then on an address that is 0 (``first_waiter``).
_ALIGNED = 63
_WAITERS = 16  # where they are
# That shape alone is like many others from 7.1 on: there it must be a variable that is named so.
_NAMED = re.compile(r"(?:mutex|lock|sem|rwsem|mtx)$")


def kept_by_ended(scene: Scene, symbols: Callable[[], Symbols]) -> list[str]:
    """The names of the locks whose owner has ended; ``symbols`` are asked for where there are any.

    One in a module's memory is named by its address there.
    """
    memory, layout = scene.memory, scene.layout
    # On a debug kernel a lock has another shape, and lockdep tells of one that is not given back.
    if not layout.stack or layout.slab_word is None or layout.keeps_addresses:
        return []
    found = [at for at in _candidates(scene) if _has_ended(memory, layout, memory.word(at))]
    objects = {at: slab_object(memory, layout, at) for at in found}
    known = {one for one in objects.values() if one is not None}
    # An object that was freed may look as it did before.
    back = Allocators(scene, ()).given_back(known) if known else set()
    names = [
        _name(memory, layout, symbols(), at, objects[at]) for at in found if objects[at] not in back
    ]
    return [name for name in names if name]


def _candidates(scene: Scene) -> Iterator[int]:
    memory, layout = scene.memory, scene.layout
    upper = upper_bytes(layout.direct, layout.direct + memory.size)
    ahead = 8 - len(upper)
    # It is found by what is the same in all of them, in one go.
    shape = re.compile(re.escape(upper) + rb"\0{8}(?:\0{8}|(.{8})\1)", re.DOTALL)
    for address, data in scene.everything():
        for match in shape.finditer(data):
            place = match.start() - ahead
            if place < 0 or place % 8 or data[place] & _ALIGNED:
                continue
            at = address + place
            if match[1] is None:
                there = is_variable(layout, at)
            else:
                to = int.from_bytes(match[1], "little")
                # Where it is in its page is known without a look at the page tables.
                there = to % PAGE == (at + _WAITERS) % PAGE and (
                    physical(memory, layout, to) == at + _WAITERS
                )
            if there:
                yield at


def _has_ended(memory: Memory, layout: Layout, owner: int) -> bool:
    """Whether an address is that of a task which has ended: it has no stack any more."""
    where = owner - layout.direct
    found = slab_object(memory, layout, where)
    if found is None or found.cache.name != "task_struct" or found.start != where:
        return False
    return word_at(memory, layout, owner + layout.stack) == 0


def _name(
    memory: Memory, layout: Layout, symbols: Symbols, at: int, found: SlabObject | None
) -> str:
    """What the lock with an owner at an address in memory is called; "" where it is none."""
    waiters = memory.word(at + _WAITERS)
    if is_variable(layout, at):
        place = symbols.at(IMAGE + at)
        variable = place[0] if place else "a variable of the kernel's"
        return variable if waiters or _NAMED.search(variable) else ""
    if found:
        return f"one in an object of the slab cache {found.cache.name}"
    return f"{waiters - _WAITERS:#x}"


def held_by_readers(memory: Memory, layout: Layout) -> list[str]:
    """The names of the locks that somebody has as a reader now."""

    def count(variable: int) -> int:
        places = ((variable + offset) % (1 << 64) - layout.direct for offset in layout.percpu)
        return sum(memory.word(place & -8) >> 8 * (place & 7) for place in places) % (1 << 32)

    return [name for name, variable in layout.readers.items() if count(variable)]
