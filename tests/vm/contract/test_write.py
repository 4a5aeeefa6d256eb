# SPDX-License-Identifier: GPL-2.0-only
"""write() of a solution of the exercise: a black box, which may answer what a driver may.

So EINVAL for a text that it did not expect is as good as the whole text taken. Not even a driver
may: write over or read from what is not its own, show what nobody has written, return what breaks
the loop around each write(2), keep a lock, lose memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.testing import Guest, Module

from ..calls import Group, perform
from ..modinfo import printed_at
from .conftest import NODE, Threads, poisoned, racing

SIZES = (0, 1, 2, 7, 8, 16, 63, 64, 100, 255, 256, 1000, 4095, 4096, 4097, 65536, 1 << 20)
OFFSETS = ((1 << 63) - 4097, 1 << 62, 1 << 40, 1 << 32, (1 << 31) - 1, 4096, 100, 1)
PLACES = ("null", "torn", "kernel", "end")
WRITE_SECONDS = 60.0  # for all groups of one test
# An error is one of these (MAX_ERRNO, include/linux/err.h).
MAX_ERRNO = 4095
# More objects of one size than this are no chance, after four thousand writes.
GROWN_MAX = 1000
# After a write that found something wrong, this one has to come back: no lock is left.
AGAIN = f"open {NODE} w ; write 1:a ; close"


def returns(groups: list[Group]) -> Iterator[str]:
    """What is wrong with the answers of writes, in words."""
    for group in groups:
        if group.how != "ended":
            yield f"write: `{group.line}` {group.told}"
        for call, answer in zip(group.line.split(" ; "), group.answers, strict=False):
            asked = re.match(r"p?write (\d+)", call)
            if not asked or not re.fullmatch(r"-?\d+", answer):
                continue
            if int(answer) > int(asked[1]):
                yield (
                    f"`{call}` returns {answer}, more than the {asked[1]} bytes that it was given "
                    "(an error has to be negative)"
                )
            if int(answer) < -MAX_ERRNO:
                yield f"`{call}` returns {answer}, which is neither a length nor an error"


def endless(group: Group, what: str) -> str:
    """The fault, if most of many writes returned 0. A full buffer may be why, and is no excuse."""
    results = group.answers[1] if len(group.answers) > 1 else ""
    often = {value: int(count) for value, count in re.findall(r"(-?\d+)\*(\d+)", results)}
    if often.get("0", 0) * 2 > sum(often.values()):
        return f"{what} returns 0 for ever, so that a loop that writes all of a text never ends"
    return ""


def _told(wrong: Iterable[str]) -> str:
    return "\n".join(each for each in wrong if each)


@pytest.mark.machine(clock="ahead")
def test_returns_what_a_loop_can_use(loaded: Guest, threads: Threads) -> None:
    """Whatever is written: an error, or how much was taken. No lock is kept."""
    before = threads.only()
    groups = [f"open {NODE} w ; write {size}:a ; write {size}:b ; close" for size in SIZES]
    # From one descriptor: its position moves on with each.
    groups += [f"open {NODE} w ; writes 300 {size}:a" for size in (1, 10, 4096)]
    groups += [f"open {NODE} w ; write 10:a ; writes 100 10:b"]
    answers = perform(loaded, [*groups, AGAIN, AGAIN], timeout=WRITE_SECONDS)
    wrong = list(returns(answers))
    *_, short, long, longest, later, _, _ = answers
    for group, size in ((short, 1), (long, 10), (longest, 4096)):
        wrong.append(endless(group, f"each write of {size} bytes to one descriptor"))
    later = replace(later, answers=later.answers[1:])
    wrong.append(endless(later, "each write of 10 bytes after a descriptor's first"))
    assert not _told(wrong), _told(wrong)
    threads.same(before, "after writes of every size")


@pytest.mark.machine(clock="ahead")
def test_position_is_not_trusted(loaded: Guest, threads: Threads) -> None:
    """pwrite() names any position in the file, however large, also one below its own length."""
    before = threads.only()
    groups = [f"open {NODE} w ; pwrite 10:a {offset} ; pwrite 1:b {offset}" for offset in OFFSETS]
    groups.append(f"open {NODE} w ; pwrite 65536:a 4096 ; pwrite 65536:a 32768")
    wrong = list(returns(perform(loaded, [*groups, AGAIN, AGAIN], timeout=WRITE_SECONDS)))
    assert not wrong, _told(wrong)
    threads.same(before, "after writes to every position")


@pytest.mark.machine(clock="ahead")
def test_address_is_not_trusted(loaded: Guest, threads: Threads) -> None:
    """The text may be where nothing is, or end there. No lock is kept then either."""
    before = threads.only()
    groups = [
        f"open {NODE} w ; write {size}@{place} ; write 1:a"
        for place in PLACES
        for size in (1, 10, 4096)
    ]
    wrong = list(returns(perform(loaded, [*groups, AGAIN, AGAIN], timeout=WRITE_SECONDS)))
    assert not wrong, _told(wrong)
    threads.same(before, "after writes from every address")


_POISON = re.compile(
    r"kkkk|\\xa5|\\xbb|\\xcc|[\xa5\xbb\xcc\ufffd]|\\x[89a-f][0-9a-f]", re.IGNORECASE
)
# Behind the poison's end is 0xbb where the memory was freed, and 0xcc where it is in use
# (SLUB_RED_INACTIVE and SLUB_RED_ACTIVE in include/linux/poison.h). What comes first is of the text
# itself, and the rest of what lies behind it.
_FREED = re.compile(r"(?:(?!\\xcc|\\xbb|[\xcc\xbb]).)*(?:\\xa5|\xa5)(?:\\xbb|\xbb)", re.IGNORECASE)


def poison_in(shown: str, folder: Path | None) -> str:
    """What a line of the log shows that nobody was to see, and where it is printed; else nothing.

    ``folder`` is that of the module's source.
    """
    found = _POISON.search(shown)
    if not found:
        return ""
    what = "was freed" if _FREED.match(shown) else "nobody has written (uninitialised)"
    place = printed_at(folder, shown[: found.start()])
    return f"the log shows memory that {what}{f', printed at {place}' if place else ''}"


@poisoned
def test_log_shows_only_what_was_written(loaded: Guest, threads: Threads, module: Module) -> None:
    """Not what was in memory before, nor what lies behind the text, nor an older text's end."""
    threads.only()
    # Wherever the log shows one text, letters of another may not follow it.
    groups = [f"open {NODE} w ; write {size}:Q ; close" for size in (1, 8, 16, 64, 200, 4096)]
    groups += [f"open {NODE} w ; write 40:Q ; write 5:J ; write 40:Q ; close"]
    groups += [f"open {NODE} w ; write 40:Q ; close", f"open {NODE} w ; write 5:J ; close"]
    groups += [f"open {NODE} w ; pwrite 8:X {offset} ; close" for offset in (4, 100)]
    groups += [f"open {NODE} w ; write {size} ; close" for size in (1, 8)]  # zero bytes
    before = len(loaded.check("dmesg -r"))
    answers = perform(loaded, groups)
    assert not list(returns(answers)), "\n".join(returns(answers))
    loaded.check("sleep 0.2")  # the thread may be who prints
    log = loaded.check("dmesg -r")[before:].splitlines()
    for line in log:
        shown = line.partition("] ")[2]
        found = poison_in(shown, module.source.folder)
        assert not found, f"{found}: {line}"
        assert "JQ" not in shown, (
            f"the log shows what an earlier write has left behind the text: {line}"
        )


@racing
def test_writers_at_the_same_time(loaded: Guest, threads: Threads) -> None:
    """Four processes write at once, on two processors, and memory is whole after it."""
    before = threads.only()
    writers = [
        f"& pin {number % 2} ; open {NODE} w ; " + " ; ".join(
            f"writes 1000 {size}:{letter}" for size in (10, 64, 500)
        )
        for number, letter in enumerate("abcd")
    ]  # fmt: skip
    for each in perform(loaded, writers, limit=60):
        assert each.how == "ended", f"one of four writers: {each.told}"
    threads.same(before, "after four writers at once")
    (after,) = perform(loaded, [AGAIN])
    assert after.how == "ended", f"after four writers at once, {after.told}"


def test_costs_no_memory(loaded: Guest, module: Module) -> None:
    """Five thousand writes leave no more behind than one thousand."""
    uses = [f"uses {NODE} 500 {size}:a" for size in (10, 1000)]
    perform(loaded, uses)
    sizes = "grep -E '^(kmalloc|kmalloc-cg)-[0-9]' /proc/slabinfo"

    def objects() -> dict[str, int]:
        loaded.check("sleep 0.2; echo 3 >/proc/sys/vm/drop_caches")
        rows = (line.split() for line in loaded.check(sizes).splitlines())
        return {row[0]: int(row[1]) for row in rows}

    def free() -> int:
        return int(re.findall(r"MemFree: *(\d+)", loaded.check("cat /proc/meminfo"))[0])

    before, pages = objects(), free()
    answers = perform(loaded, uses * 4, limit=60)
    for each in answers:
        assert each.how == "ended", each.told
    after = objects()
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    worst = max(grown, key=lambda name: grown[name])
    if grown[worst] >= GROWN_MAX:
        left = f"4000 writes have left {grown[worst]} more objects in {worst}"
        (gone,) = perform(loaded, [f"rmmod {module.name}"])
        if gone.how == "ended" and after[worst] - objects().get(worst, 0) >= GROWN_MAX:
            pytest.fail(
                f"memory grows without a bound: {left}, which only rmmod frees: whoever may write "
                "can use up all memory"
            )
        pytest.fail(f"memory is lost: {left}, which nobody has freed")
    assert pages - free() < 16 << 10, (
        f"memory is lost: after 4000 writes {(pages - free()) >> 10} MiB less are free"
    )
