# SPDX-License-Identifier: GPL-2.0-only
"""Unloading a solution of the exercise: at once, whatever came before, and never too early."""

from __future__ import annotations

import pytest

from harness.testing import Guest, Lab, Module

from ..calls import at_once, named, perform
from .conftest import NODE, Threads, assert_node, left_behind, path_of, racing

EWOULDBLOCK, ENOENT = 11, 2


def test_cannot_be_removed_while_it_is_open(loaded: Guest, module: Module) -> None:
    """rmmod is refused while a process has the device open, and works once it is closed.

    Otherwise the process would keep a file whose functions do not exist any more.
    """
    assert_node(loaded)
    (said,) = perform(loaded, [f"open {NODE} w ; rmmod {module.name} ; exists {NODE} ; close"])
    # If rmmod was not refused, what comes after it may not end: that is looked at last.
    assert len(said.answers) >= 2, said.told
    assert int(said.answers[0]) >= 0, f"open: {named(said.answers[0])}"
    assert said.answers[1] == str(-EWOULDBLOCK), (
        f"rmmod answers {named(said.answers[1])} while {NODE} is open, and should be refused with "
        "-EAGAIN: .owner = THIS_MODULE of the file_operations keeps the module there"
    )
    assert said.how == "ended", said.told
    assert said.answers[2] == "1", f"rmmod was refused, and yet {NODE} is gone"
    loaded.check(f"rmmod {module.ko.name}")  # either spelling
    assert left_behind(loaded, module) == []


BEFORE = {
    "idle": "",
    "after a write": f"open {NODE} w ; write 10:a ; write 100:b ; close",
    "after an error": f"open {NODE} w ; write 10@null ; write 10@torn ; write 0 ; close",
    "after signals to the thread": "signals",
    "with signals to rmmod": "alarms",
    "with writers": "writers",
}


@pytest.mark.machine(clock="ahead")
@pytest.mark.parametrize("when", BEFORE)
def test_rmmod_removes_everything_at_once(
    threads: Threads, loaded: Guest, module: Module, lab: Lab, when: str
) -> None:
    """rmmod returns within a second; node, thread and sysfs entries are gone with it."""
    thread = threads.only()
    before = BEFORE[when]
    removal = f"rmmod {module.name}"
    groups = []
    if before == "signals":
        loaded.check(f"for it in HUP INT TERM USR1 KILL; do kill -$it {thread.pid}; done")
    elif before == "alarms":
        removal = f"{before} ; {removal}"
    elif before == "writers":
        groups = [f"& uses {NODE} 300 10:{letter}" for letter in "ab"]
        removal = f"rmmod_at_last {module.name}"
    elif before:
        groups = [before]
    # As long as writers are at work, rmmod is refused; that time is not rmmod's.
    removed = perform(loaded, [*groups, removal], limit=30)[-1]
    assert removed.how == "ended", f"{when}, rmmod {removed.told}"
    assert removed.answers[-1] == "0", f"{when}, rmmod is refused: {removed.told}"
    if before != "writers":
        limit = at_once(lab)
        assert removed.seconds <= limit, (
            f"{when}, rmmod took {removed.seconds:.1f} s, and should take no more than "
            f"{limit:.0f} s: the thread has to be woken up by kthread_stop(), at any time"
        )
    assert left_behind(loaded, module) == []


@racing
def test_rmmod_waits_for_the_thread(threads: Threads, loaded: Guest, module: Module) -> None:
    """rmmod comes back once the thread has ended, even if that gets no processor meanwhile.

    Where exit only tells it to end, the code in which it goes on is gone: the kernel reports it.
    """
    thread = threads.only()
    # Who has a processor for himself for so long would else be interrupted by the kernel.
    loaded.check(
        "echo -1 >/proc/sys/kernel/sched_rt_runtime_us; "
        "for file in /sys/kernel/debug/sched/fair_server/cpu*/runtime; do "
        "[ ! -e $file ] || echo 0 >$file; done"
    )
    (removed,) = perform(loaded, [f"rmmod_alone {module.name} {thread.pid}"], limit=30)
    assert removed.how == "ended", f"while the thread gets no processor, {removed.told}"
    assert removed.answers == ("0",), f"while the thread gets no processor, {removed.told}"
    assert left_behind(loaded, module) == []


@racing
def test_unloading_while_others_write(loaded: Guest, module: Module) -> None:
    """With two processes that open, write and close all the time, it goes and comes back."""
    life = f"rmmod_at_last {module.name} ; insmod {path_of(module)}"
    writers = [f"& pin {cpu} ; uses {NODE} 3000 100:{cpu}" for cpu in (0, 1)]
    *wrote, lives = perform(loaded, [*writers, " ; ".join([life] * 5)], limit=60)
    assert lives.how == "ended", f"with writers at work, {lives.told}"
    assert set(lives.answers) == {"0"}, f"with writers at work, {lives.told}"
    for each in wrote:
        assert each.how == "ended", f"a writer, with others that unload: {each.told}"
    Threads(loaded).only("after loading it again")
    loaded.check(f"rmmod {module.name}")
    assert left_behind(loaded, module) == []
