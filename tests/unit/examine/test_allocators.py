# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/allocators.py: which memory is in use."""

from __future__ import annotations

import pytest

from harness.examine.allocations import PAGES, Allocation
from harness.examine.allocators import Allocators, PerCpu
from harness.examine.structures import slab_object
from harness.qemu.memory import PAGE, Pointer
from tests.unit.examine.fake_kernel import (
    DIRECT,
    OBJECT_SIZE,
    PERCPU,
    PLACES,
    SIZE,
    VMALLOC,
    VMEMMAP,
    Kernel,
)

RANDOM = 0x1234567812345678  # of a slab cache
AT_RANDOM = 200  # bytes: where a struct kmem_cache has it


@pytest.fixture(autouse=True)
def caches(kernel: Kernel) -> None:
    """Slab caches; the pages with their descriptions are such of the cache kmem_cache."""
    for name, wiped in (("kmalloc-64", True), ("constructed", False)):
        kernel.cache(name, 64, wiped=wiped)
        own = kernel.caches[name] - DIRECT
        kernel.page(own, "kmem_cache")
        kernel.word(own + AT_RANDOM, RANDOM)


def allocators(kernel: Kernel, *skb_caches: tuple[int, int]) -> Allocators:
    return Allocators(kernel.scene(), skb_caches)


def swapped(at: int) -> int:
    return int.from_bytes((DIRECT + at).to_bytes(8, "little"), "big")


def taken(at: int, size: int = 64, event: str = "kmalloc") -> Allocation:
    return Allocation(event, DIRECT + at, size, 1)


@pytest.mark.parametrize("last", [False, True])
def test_a_slab_object_in_the_list_of_free_ones_is_free(kernel: Kernel, last: bool) -> None:
    """Its link is the next one's address or 0, combined with two numbers."""
    first = kernel.object("kmalloc-64")
    free, used = first + 64, first + 128
    kernel.word(free + 32, (0 if last else DIRECT + first + 320) ^ RANDOM ^ swapped(free + 32))
    kernel.word(used + 32, DIRECT + first + 320)
    found = allocators(kernel)
    assert not found.in_use(taken(free))
    assert found.in_use(taken(used))
    assert not found.in_use(taken(used + 8))  # where no object begins


@pytest.mark.parametrize("of_a_cpu", [False, True])
def test_an_old_link_does_not_make_an_object_free(kernel: Kernel, of_a_cpu: bool) -> None:
    """A cache with a constructor has it outside of what is used, and nobody takes it away."""
    first = kernel.object("constructed")
    listed, last, used = first, first + 128, first + 192
    for at, after in ((listed, DIRECT + last), (last, 0), (used, DIRECT + last)):
        kernel.word(at + 56, after ^ RANDOM ^ swapped(at + 56))
    if of_a_cpu:
        kernel.word(PERCPU + 0x5000, DIRECT + listed)
        kernel.word(kernel.caches["constructed"] - DIRECT, 0x5000)
    else:
        kernel.word(0x800000 + first // PAGE * 64 + 32, DIRECT + listed)
    found = allocators(kernel)
    assert [found.in_use(taken(at)) for at in (listed, last, used)] == [False, False, True]


@pytest.mark.parametrize("cache", ["kmalloc-64", "constructed"])
def test_where_links_are_not_hidden_a_list_says_what_is_free(kernel: Kernel, cache: str) -> None:
    """An object in use may have the same in it, as zeros."""
    about = kernel.caches[cache] - DIRECT
    kernel.word(about, 0x5000)
    kernel.word(about + OBJECT_SIZE + 16, 32)
    first = kernel.object(cache)
    listed, last, used, zeros = first, first + 128, first + 192, first + 256
    kernel.word(PERCPU + 0x5000, DIRECT + listed)
    kernel.word(listed + 32, DIRECT + last)
    kernel.word(used + 32, DIRECT + last)
    kernel.word(last, DIRECT + used)  # not where a link is
    found = allocators(kernel)
    in_use = [found.in_use(taken(at)) for at in (listed, last, used, zeros)]
    assert in_use == [False, False, True, True]


def test_what_kasan_says_is_free_is(kernel: Kernel) -> None:
    """It keeps objects from being handed out for a while, in no list of the allocator's."""
    first, page = kernel.object("kmalloc-64"), kernel.take()
    kernel.word(0x800000 + page // PAGE * 64 + 48, 1 << 32)
    kernel.kasan(first, *[0] * 8, *[0xFB] * 8)
    found = allocators(kernel)
    assert [found.in_use(taken(at)) for at in (first, first + 64)] == [True, False]
    assert found.in_use(taken(page, PAGE, PAGES))
    kernel.kasan(page, *[0xFF] * 8)
    assert not allocators(kernel).in_use(taken(page, PAGE, PAGES))


def test_a_cache_that_was_made_later_is_known_by_its_description(kernel: Kernel) -> None:
    """Its page says which it is, and that has a size."""
    kernel.cache("later", 96)
    own = kernel.caches["later"] - DIRECT
    kernel.page(own, "kmem_cache")
    at = kernel.object("later") + 96
    kernel.files = [line for line in kernel.files if not line.startswith("later/")]
    found = allocators(kernel)
    slab = found.slab(at + 8)
    assert slab is not None
    assert (slab.name, slab.size, slab.start) == ("", 96, at)


def test_pages_are_in_use_while_somebody_uses_them(kernel: Kernel) -> None:
    """But those that the allocator of slabs, or a process, has taken since are theirs."""
    used, free, slab, mapped = (kernel.take() for _ in range(4))
    kernel.page(slab, "kmalloc-64")
    kernel.page(mapped, mapping=DIRECT + 1)
    for at in (used, slab, mapped):
        kernel.word(0x800000 + at // PAGE * 64 + 48, 1 << 32)
    found = allocators(kernel)
    assert [found.in_use(taken(at, PAGE, PAGES)) for at in (used, free, slab, mapped)] == [
        True, False, False, False,
    ]  # fmt: skip


def test_a_block_that_nobody_counts_is_in_use_while_its_pages_are_together(kernel: Kernel) -> None:
    """As kmalloc() has large ones on new kernels: each later page leads to the first."""
    first, second, apart = (kernel.take() for _ in range(3))
    assert second == first + PAGE
    kernel.word(0x800000 + second // PAGE * 64 + 8, VMEMMAP + first // PAGE * 64 + 1)
    found = allocators(kernel)
    size = 2 * PAGE + 1
    assert [found.in_use(taken(at, size)) for at in (first, apart)] == [True, False]


@pytest.mark.parametrize(
    ("event", "size", "used"),
    [
        ("kmalloc", 104, False),
        ("kmalloc_node", 2 * PAGE, False),
        ("kmem_cache_alloc", 3 * PAGE, False),
        ("kmalloc", 2 * PAGE + 1, True),
    ],
)
def test_an_object_is_gone_with_the_slab_it_was_in(
    kernel: Kernel, event: str, size: int, used: bool
) -> None:
    """Its page may be a page table now, which begins where it did. Only large ones are pages."""
    page = kernel.take()
    kernel.word(0x800000 + page // PAGE * 64 + 48, 1 << 32)
    assert allocators(kernel).in_use(taken(page, size, event)) is used


def test_a_cache_has_lists_of_free_objects_in_objects(kernel: Kernel) -> None:
    """A struct slab_sheaf of two, and an old pointer behind them."""
    kernel.cache("kmalloc-96", 96)
    sheaf, objects = kernel.object("kmalloc-96"), kernel.object("kmalloc-64")
    to = [DIRECT + objects + 64 * number for number in range(3)]
    kernel.word(sheaf + 16, kernel.caches["kmalloc-64"], 2, *to)
    found = allocators(kernel)
    notes = [found.is_note(Pointer(sheaf + 32 + 8 * at, one)) for at, one in enumerate(to)]
    assert notes == [True, True, False]
    # Before them, and in an object that is about another cache.
    assert found.is_note(Pointer(sheaf, to[0])) is None
    other = kernel.object("filp")
    assert found.is_note(Pointer(sheaf + 32, DIRECT + other)) is None
    assert found.is_note(Pointer(PLACES["somewhere"], to[0])) is None


def test_an_old_place_of_such_a_list_is_nobodys_whatever_is_there_now(kernel: Kernel) -> None:
    """The object's page may have been handed out since, for something else."""
    kernel.cache("kmalloc-96", 96)
    sheaf, objects, page = kernel.object("kmalloc-96"), kernel.object("kmalloc-64"), kernel.take()
    kernel.word(sheaf + 16, kernel.caches["kmalloc-64"], 1, DIRECT + objects, DIRECT + page + 64)
    assert allocators(kernel).is_note(Pointer(sheaf + 40, DIRECT + page + 64)) is False


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        pytest.param("kmalloc-96", (0, 7), id="another number in it"),
        pytest.param("kmalloc-96", (0, SIZE + DIRECT), id="an address beyond all memory"),
        pytest.param("kmalloc-96", (9, 0), id="more than it can hold"),
        pytest.param("filp", (0, 0), id="not of kmalloc()"),
    ],
)
def test_not_all_that_knows_a_slab_cache_is_such_a_list(
    kernel: Kernel, cache: str, words: tuple[int, int]
) -> None:
    """Somebody's structure may have the address of one as well."""
    kernel.cache("kmalloc-96", 96)
    at, to = kernel.object(cache), DIRECT + kernel.object("kmalloc-64")
    count, other = words
    kernel.word(at + 16, kernel.caches["kmalloc-64"], count, to, other)
    assert allocators(kernel).is_note(Pointer(at + 32, to)) is None


def test_an_object_that_is_not_cleared_is_free_where_such_a_list_has_it(kernel: Kernel) -> None:
    """Nothing in it says so itself."""
    kernel.cache("kmalloc-96", 96)
    sheaf, first = kernel.object("kmalloc-96"), kernel.object("constructed")
    kernel.word(sheaf + 16, kernel.caches["constructed"], 1, DIRECT + first, DIRECT + first + 64)
    found = allocators(kernel)
    assert [found.in_use(taken(at)) for at in (first, first + 64)] == [False, True]


def test_an_object_in_such_a_list_was_given_back(kernel: Kernel) -> None:
    """One that a list had before, or that is in an object of another kind, is somebody's."""
    kernel.cache("kmalloc-96", 96)
    sheaf, objects = kernel.object("kmalloc-96"), kernel.object("kmalloc-64")
    to = [DIRECT + objects + 64 * number for number in range(3)]
    kernel.word(sheaf + 16, kernel.caches["kmalloc-64"], 1, *to[:2])
    kernel.word(PLACES["somewhere"], to[2])
    scene = kernel.scene()
    asked = {slab_object(scene.memory, scene.layout, one - DIRECT) for one in to} - {None}
    assert len(asked) == 3
    back = allocators(kernel).given_back({one for one in asked if one})
    assert {one.start for one in back} == {objects}


@pytest.mark.parametrize("of_a_cpu", [False, True])
def test_what_is_in_a_list_of_free_ones_was_given_back(kernel: Kernel, of_a_cpu: bool) -> None:
    """Somewhere an old address of it may be left. An old link in it says nothing."""
    first = kernel.object("constructed")
    listed, used = first + 64, first + 128
    for at in (listed, used):
        kernel.word(at + 56, 0 ^ RANDOM ^ swapped(at + 56))
        kernel.word(PLACES["somewhere"] + at - first, DIRECT + at)
    if of_a_cpu:
        kernel.word(PERCPU + 0x5000, DIRECT + listed)
        kernel.word(kernel.caches["constructed"] - DIRECT, 0x5000)
    else:
        kernel.word(0x800000 + first // PAGE * 64 + 32, DIRECT + listed)
    scene = kernel.scene()
    asked = {slab_object(scene.memory, scene.layout, at) for at in (listed, used)}
    back = allocators(kernel).given_back({one for one in asked if one})
    assert {one.start for one in back} == {listed}


def test_each_cpu_keeps_packets_that_are_free(kernel: Kernel) -> None:
    """As many as it says; the rest of the array is old."""
    kernel.cache("skbuff_head_cache", 256)
    objects = kernel.object("skbuff_head_cache")
    kept = PERCPU + 0x1000
    to = [DIRECT + objects, DIRECT + objects + 256]
    kernel.word(kept + 8, 1, *to)
    found = allocators(kernel, (kept, kept + 64))
    assert [found.is_note(Pointer(kept + 16 + 8 * at, one)) for at, one in enumerate(to)] == [
        True, False,
    ]  # fmt: skip
    assert not found.in_use(taken(objects, 256))
    assert found.in_use(taken(objects + 256, 256))


UNIT = 64 << 10  # bytes of per-CPU memory for each CPU


def chunk(kernel: Kernel, head: int, base: int, bits: int) -> None:
    """Per-CPU memory from an address on, in a list of such, whose map is at another one."""
    at = kernel.take()
    kernel.append(head, DIRECT + head, DIRECT + at, at)
    kernel.word(at + 64, 3, bits, 0, base, bits, DIRECT + at)


@pytest.fixture
def percpu(kernel: Kernel) -> dict[str, int]:
    """Two chunks of per-CPU memory; some place of each, and their map, by their names."""
    lists, map_page, page = kernel.take(), kernel.take(), kernel.take()
    kernel.word(PLACES["pcpu_base_addr"], DIRECT + PERCPU)
    kernel.word(PLACES["pcpu_unit_size"], UNIT)
    kernel.word(PLACES["pcpu_chunk_lists"], DIRECT + lists)
    for head in (lists, lists + 16):
        kernel.wordlist(head, DIRECT + head)
    # The first one is behind the variables, and behind what is reserved for those of modules.
    reserved = kernel.take()
    kernel.word(PLACES["pcpu_reserved_chunk"], DIRECT + reserved)
    kernel.word(reserved + 64, 3, 0x800, 0, DIRECT + PERCPU + 0x2000, DIRECT + map_page + 0x800)
    chunk(kernel, lists, DIRECT + PERCPU + 0x4000, DIRECT + map_page)
    # The other one's map is where vmalloc() maps, like itself, but for a page that nothing is in.
    kernel.map(VMALLOC + 0x9000, map_page)
    kernel.map(VMALLOC + 0x300000 + PAGE, page)
    chunk(kernel, lists + 16, VMALLOC + 0x300000, VMALLOC + 0x9000)
    return {"first": PERCPU + 0x4000, "other": page, "map": map_page}


@pytest.mark.parametrize(("name", "number"), [("first", 0x1234 // 4), ("other", 0x1234 // 4)])
@pytest.mark.parametrize("taken", [True, False])
def test_per_cpu_memory_has_a_map_of_what_is_handed_out(
    kernel: Kernel, percpu: dict[str, int], name: str, number: int, taken: bool
) -> None:
    """Wherever a chunk is. What has been freed is not cleared."""
    at = percpu[name] + (0x1234 if name == "first" else 0x234)
    kernel.word(percpu["map"] + number // 64 * 8, 1 << number % 64 if taken else 0)
    scene = kernel.scene()
    assert PerCpu(scene.memory, scene.layout, kernel.symbols).is_freed(at) is not taken


def test_other_memory_is_no_per_cpu_memory(kernel: Kernel, percpu: dict[str, int]) -> None:
    """The CPUs' own variables are never freed; nor is the map a chunk."""
    scene = kernel.scene()
    found = PerCpu(scene.memory, scene.layout, kernel.symbols)
    places = (PERCPU + 0x1000, percpu["map"] + 8, PLACES["somewhere"], percpu["first"] + UNIT)
    assert not [at for at in places if found.is_freed(at)]
