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
from dataclasses import dataclass

from harness.examine.allocators import Allocators
from harness.examine.structures import (
    IMAGE,
    WAITERS,
    Layout,
    Scene,
    SlabObject,
    Symbols,
    is_variable,
    physical,
    slab_object,
    text_at,
    word_at,
)
from harness.qemu.memory import PAGE, Memory, upper_bytes

# A struct mutex (linux/mutex_types.h) begins with its owner, and so does what a struct rw_semaphore
# (linux/rwsem.h) has behind its count: then come two locks of 32 bits for a moment at a time, and
# who waits. The owner's address has flags in its lowest bits, of which none is set where one has it
# for writing and nobody waits; and a task is at a multiple of 64 bytes (fork_init() in
# kernel/fork.c). Those who wait are a list that points to itself as long as there is none, before
# 7.1, and from then on an address that is 0 (``first_waiter``).
_ALIGNED = 63
_SIZE = 32  # from the owner on
# A variable that is a mutex, and one that is a semaphore: how far from its beginning the owner is,
# and how large it is, in bytes.
VARIABLES = ((0, _SIZE), (8, 8 + _SIZE))
# Caches for whoever asks for so many bytes (mm/slab_common.c). There a driver may have a record
# of its thread, and behind it the wait queue that the thread sleeps in. That looks like a mutex.
_FOR_ALL = "kmalloc-"
# That shape alone is like many others from 7.1 on: there it must be a variable that is named so.
_NAMED = re.compile(r"(?:mutex|lock|sem|rwsem|mtx)$")


@dataclass(frozen=True)
class Kept:
    """The ``names`` of locks whose owner has ended.

    In a module's memory it is an address there. Only the module's own variables tell whether that
    is a lock.

    ``unsure`` is whether there may be more of them, once the kernel has freed what it knew of a
    task that has ended.
    """

    names: tuple[str, ...] = ()
    unsure: bool = False


def kept_by_ended(scene: Scene, symbols: Callable[[], Symbols]) -> Kept:
    """The locks whose owner has ended; ``symbols`` are asked for where there are any."""
    memory, layout = scene.memory, scene.layout
    # With lockdep a lock has another shape, and lockdep tells of one that is not given back.
    if not layout.stack or layout.slab_word is None or layout.lockdep:
        return Kept()
    found = [at for at in _candidates(scene) if _has_ended(memory, layout, memory.word(at))]
    objects = {at: slab_object(memory, layout, at) for at in found}
    # An object may end with the address of a task, as the allocator's list of those that were
    # freed does, and the next one go on as a lock would.
    found = [at for at in found if _is_in_one(at, objects[at])]
    known = {one for one in objects.values() if one is not None}
    allocators = Allocators(scene, ())
    # An object that was freed may look as it did before.
    back = allocators.given_back(known) if known else set()
    names, unsure = [], False
    for at in found:
        name = "" if objects[at] in back else _name(memory, layout, symbols(), at, objects[at])
        if name and _is_freed(scene, allocators, memory.word(at)):
            names.append(name)
        elif name:
            unsure = True
    return Kept(tuple(names), unsure)


def _is_in_one(at: int, found: SlabObject | None) -> bool:
    """Whether what begins at an address in memory is within one object, if it is in any."""
    return found is None or at + _SIZE <= found.start + found.cache.size


def _is_freed(scene: Scene, allocators: Allocators, task: int) -> bool:
    """Whether the kernel has freed its description of a task that has ended.

    Who remembers a task counts that (get_task_struct()), and so keeps the description. A lock's
    owner is not counted. So a driver's record of who uses it, which may look like a lock, is told
    from one. Where the allocator clears what is freed the task has no name any more.
    """
    memory, layout = scene.memory, scene.layout
    own = allocators.slab(task - layout.direct)
    return not text_at(memory, layout, task + layout.comm) or (
        own is not None and allocators.is_free(own)
    )


def _candidates(scene: Scene) -> Iterator[int]:
    memory, layout = scene.memory, scene.layout
    upper = upper_bytes(layout.direct, layout.direct + memory.size)
    ahead = 8 - len(upper)
    # It is found by what is the same in all of them, in one go.
    waiters = rb"(.{8})\1" if layout.lists_waiters else rb"\0{8}"
    shape = re.compile(re.escape(upper) + rb"\0{8}" + waiters, re.DOTALL)
    for address, data in scene.everything():
        for match in shape.finditer(data):
            place = match.start() - ahead
            if place < 0 or place % 8 or data[place] & _ALIGNED:
                continue
            at = address + place
            if layout.lists_waiters:
                to = int.from_bytes(match[1], "little")
                # Where it is in its page is known without a look at the page tables.
                there = to % PAGE == (at + WAITERS) % PAGE and (
                    physical(memory, layout, to) == at + WAITERS
                )
            else:
                there = is_variable(layout, at)
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
    if is_variable(layout, at):
        place = symbols.at(IMAGE + at)
        variable = place[0] if place else "a variable of the kernel's"
        return variable if layout.lists_waiters or _NAMED.search(variable) else ""
    if found:
        if found.cache.name.startswith(_FOR_ALL):
            return ""
        return f"one in an object of the slab cache {found.cache.name}"
    return f"{memory.word(at + WAITERS) - WAITERS:#x}"


def held_by_readers(memory: Memory, layout: Layout) -> list[str]:
    """The names of the locks that somebody has as a reader now."""

    def count(variable: int) -> int:
        places = ((variable + offset) % (1 << 64) - layout.direct for offset in layout.percpu)
        return sum(memory.word(place & -8) >> 8 * (place & 7) for place in places) % (1 << 32)

    return [name for name, variable in layout.readers.items() if count(variable)]
