# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/locks.py: locks whose owner has ended, and what only looks like one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.examine import locks
from harness.examine.structures import Scene, Symbols
from tests.unit.examine.fake_kernel import DIRECT, IMAGE, PLACES, VMALLOC, Kernel

CACHE = "inode_cache"
SOMEWHERE = PLACES["somewhere"]


def owner(kernel: Kernel, *, ended: bool = True) -> int:
    """The address of a task."""
    if ended:
        return DIRECT + kernel.object("task_struct")
    kernel.task("holds", VMALLOC + 0x10000, VMALLOC + 0x13F00)
    return kernel.read(PLACES["init_task"] + 64) - 64


def lock(kernel: Kernel, at: int, address: int, owner: int, *, flags: int = 0) -> None:
    """A lock as it is up to 7.1: nobody waits for it."""
    kernel.word(at, owner | flags, 0, address + 16, address + 16)


def look(kernel: Kernel) -> locks.Kept:
    kernel.task("kthreadd", VMALLOC + 0x20000, VMALLOC + 0x23F00)
    return locks.kept_by_ended(kernel.scene(), lambda: kernel.symbols)


def found(kernel: Kernel) -> list[str]:
    return list(look(kernel).names)


def test_it_is_named_by_what_it_is_in(kernel: Kernel) -> None:
    """A variable, an object of a slab cache, else its address, as in a module's memory."""
    kernel.cache(CACHE, 512)
    inode, module = kernel.object(CACHE) + 512 + 64, kernel.take()
    kernel.map(VMALLOC + 0x400000, module)
    for at, address in ((SOMEWHERE, IMAGE + SOMEWHERE), (inode, DIRECT + inode),
                        (module + 64, VMALLOC + 0x400040)):  # fmt: skip
        lock(kernel, at, address, owner(kernel))
    assert sorted(found(kernel)) == [
        f"{VMALLOC + 0x400040:#x}",
        f"one in an object of the slab cache {CACHE}",
        "somewhere",
    ]


@pytest.mark.parametrize("flags", [0, 1], ids=["its owner lives", "readers had it"])
def test_what_can_still_be_given_back_is_none(kernel: Kernel, flags: int) -> None:
    """The last reader's address stays when it is gone (RWSEM_READER_OWNED)."""
    lock(kernel, SOMEWHERE, IMAGE + SOMEWHERE, owner(kernel, ended=bool(flags)), flags=flags)
    assert found(kernel) == []


def test_who_remembers_a_task_has_counted_that(kernel: Kernel) -> None:
    """What the kernel knows of the task is still there, or was not freed yet: it has a name."""
    kernel.cache(CACHE, 512)
    at, task = kernel.object(CACHE), owner(kernel)
    lock(kernel, at, DIRECT + at, task)
    kernel.text(task - DIRECT + 128, "was-here")
    assert look(kernel) == locks.Kept((), unsure=True)
    kernel.text(task - DIRECT + 128, "\0" * 8)
    assert look(kernel) == locks.Kept((f"one in an object of the slab cache {CACHE}",))


def test_in_memory_for_all_it_may_be_a_drivers_own_record(kernel: Kernel) -> None:
    """Of a thread and the wait queue in which it sleeps."""
    kernel.cache("kmalloc-512", 512)
    at = kernel.object("kmalloc-512")
    lock(kernel, at, DIRECT + at, owner(kernel))
    assert look(kernel) == locks.Kept()


def test_with_lockdep_none_is_looked_for(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock has another shape there, and lockdep tells of it."""
    lock(kernel, SOMEWHERE, IMAGE + SOMEWHERE, owner(kernel))
    real = kernel.scene

    def debug() -> Scene:
        return replace(real(), layout=replace(real().layout, lockdep=True))

    assert found(kernel) == ["somewhere"]
    monkeypatch.setattr(kernel, "scene", debug)
    assert found(kernel) == []


@pytest.mark.parametrize("beyond", [0, 8], ids=["no task", "points elsewhere"])
def test_what_looks_like_one_is_none(kernel: Kernel, beyond: int) -> None:
    """As an object whose first word points to another one, and a list of somebody else's."""
    to = owner(kernel) if beyond else DIRECT + kernel.object("kmem_cache")
    kernel.cache(CACHE, 512)
    at = kernel.object(CACHE)
    lock(kernel, at, DIRECT + at + beyond, to)
    assert found(kernel) == []


@pytest.mark.parametrize("lists", [True, False], ids=["before 7.1", "from 7.1 on"])
def test_what_looks_like_one_of_another_kernel_is_none(kernel: Kernel, lists: bool) -> None:
    """A kernel has either a list of those who wait, or the first of them."""
    kernel.cache(CACHE, 512)
    at = kernel.object(CACHE)
    if lists:
        kernel.word(SOMEWHERE, owner(kernel), 0, 0)
        kernel.symbols = Symbols(kernel.kallsyms.replace("somewhere", "a_mutex"))
    else:
        kernel.word(PLACES["module_mutex"] + 16, 0, 0)
        lock(kernel, at, DIRECT + at, owner(kernel))
    assert found(kernel) == []


def test_one_that_goes_on_in_the_next_object_is_none(kernel: Kernel) -> None:
    """The allocator lists tasks that were freed in an object, to the last word of it."""
    kernel.cache(CACHE, 64)
    at = kernel.object(CACHE) + 64
    lock(kernel, at - 8, DIRECT + at - 8, owner(kernel))
    assert found(kernel) == []
    lock(kernel, at, DIRECT + at, owner(kernel))
    assert found(kernel) == [f"one in an object of the slab cache {CACHE}"]


@pytest.mark.parametrize(("name", "told"), [("a_mutex", ["a_mutex"]), ("last_task", [])])
def test_without_a_list_of_those_who_wait_its_name_tells(
    kernel: Kernel, name: str, told: list[str]
) -> None:
    """From 7.1 on; a variable may have the address of a task that has ended for other reasons."""
    kernel.word(PLACES["module_mutex"] + 16, 0, 0)
    kernel.symbols = Symbols(kernel.kallsyms.replace("somewhere", name))
    kernel.word(SOMEWHERE, owner(kernel), 0, 0, IMAGE)  # another variable follows
    at = kernel.object("task_struct")
    kernel.word(at, owner(kernel), 0, 0, 0)  # not a variable at all
    assert found(kernel) == told
