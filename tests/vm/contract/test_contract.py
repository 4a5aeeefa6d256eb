# SPDX-License-Identifier: GPL-2.0-only
"""What any solution of the exercise must do, whoever wrote it: the device and the thread.

The exercise: a misc device /dev/eudyptula that anyone may write to and nobody may
read, a kernel thread that ps shows as [eudyptula] and that sleeps on a wait queue, and
nothing left of either after rmmod. The tests see that the thread sleeps. They do not ask which
wait queue it sleeps on, because a module may keep that private, or what it does with a message,
because the exercise does not say. So write() may answer whatever a driver's may.
"""

from __future__ import annotations

import errno
import re
from contextlib import suppress

import pytest

from harness.testing import Guest, GuestBusy, Module

from ..calls import perform
from ..modinfo import FREE, modinfo, prints
from .conftest import (
    AT_REST,
    NAME,
    NODE,
    Threads,
    assert_node,
    complaints,
    left_behind,
    misc_name,
    path_of,
)

# For all messages of a test, of a thread that takes some seconds for each. The guest's own time.
MESSAGES_SECONDS = 120.0


# The longest test comes first. Otherwise one job would run it at the end while others idle.
def test_load_and_unload_fifty_times(guest: Guest, module: Module) -> None:
    """Fifty rounds in a row work, each with a write, and leave nothing behind."""
    guest.put(module.loadable, path_of(module))
    tasks = int(guest.check("ps -e --no-headers | wc -l"))
    (lives,) = perform(guest, [f"lives 50 {path_of(module)} {module.name} {NODE} 10:e"], limit=60)
    if lives.answers == (f"life1:open:{-errno.ENOENT}",):
        assert_node(guest)  # the module is still loaded
    assert lives.answers == ("50",), f"loading and unloading 50 times: {lives.told}"
    # The kernel's own workers come and go; fifty leaked threads would not.
    assert int(guest.check("ps -e --no-headers | wc -l")) - tasks < 10
    assert left_behind(guest, module) == []


def test_licence_is_free(module: Module) -> None:
    """MODULE_LICENSE() names one that the kernel calls free."""
    said = modinfo(module.ko, "license")
    assert said, "the module has no MODULE_LICENSE(), so the kernel calls it proprietary"
    assert [name for name in said if name not in FREE] == [], (
        f'the kernel calls a module with MODULE_LICENSE("{said[0]}") proprietary'
    )


def test_loads_without_a_warning(guest: Guest, module: Module) -> None:
    """insmod succeeds and prints nothing; the kernel warns of nothing but the module's origin.

    What the module itself prints, at whatever level, is no warning of the kernel's.
    """
    before = len(guest.dmesg().splitlines())
    guest.put(module.loadable, path_of(module))
    result = guest.run(f"insmod {path_of(module)}")
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
    assert module.name in guest.check("lsmod")
    # Up to level 4 (KERN_WARNING).
    severe = guest.check("dmesg --level=emerg,alert,crit,err,warn").splitlines()
    log = "\n".join(guest.dmesg().splitlines()[before:])
    said = [line for line in complaints(log) if line in severe and not prints(module.ko, line)]
    assert not said, f"when the module is loaded, the kernel says: {' / '.join(said)}"


def test_node_is_a_write_only_misc_device(shared: Guest) -> None:
    """`ls -l` shows c-w--w--w- root root 10, N: char device, misc major, mode 0222."""
    assert_node(shared)
    shown = shared.check(f"stat -c '%F,%a,%U,%G,%t' {NODE}")
    kind, mode, owner, group, major = shown.strip().split(",")
    wrong = []
    if kind != "character special file":
        wrong.append(f"its type is {kind}, and should be character special file")
    elif int(major, 16) != 10:  # MISC_MAJOR, include/uapi/linux/major.h
        wrong.append(f"its major number is {int(major, 16)}, and should be 10, a misc device's")
    if mode != "222":
        wrong.append(f"its mode is 0{mode}, and should be 0222")
    if (owner, group) != ("root", "root"):
        wrong.append(f"its owner is {owner}:{group}, and should be root:root")
    assert not wrong, f"{NODE}: {'; '.join(wrong)}"
    listed = shared.check(f"ls -l {NODE}")
    assert re.match(r"c-w--w--w- 1 root root 10, *\d+ .* /dev/eudyptula\n$", listed), listed


def test_node_is_registered_with_the_misc_class(shared: Guest) -> None:
    """/proc/misc and sysfs have the node's minor number, under whatever name.

    The device's name and the node's may differ (``nodename`` of struct miscdevice).
    """
    name = misc_name(shared)
    minor = int(shared.check(f"stat -c %T {NODE}"), 16)
    assert shared.check(f"cat /sys/class/misc/{name}/dev").strip() == f"10:{minor}"


def test_anyone_may_write_and_nobody_may_read(shared: Guest) -> None:
    """Mode 0222 holds for a user without privileges: opening to write works, to read does not."""
    assert_node(shared)
    opened = shared.run(f"exec 3>{NODE}", user="nobody")
    assert opened.ok, f"nobody may not open {NODE} to write: {opened.stderr}"
    refused = shared.run(f"exec 3<{NODE}", user="nobody")
    assert refused.status != 0, f"nobody may open {NODE} to read"
    assert "Permission denied" in refused.stderr


def test_exactly_one_kernel_thread(shared: Guest) -> None:
    """One thread named eudyptula, child of kthreadd (2), shown as [eudyptula] by ps -ef."""
    task = Threads(shared).only()
    assert task.parent == 2, f"its parent is process {task.parent}, and should be 2, kthreadd"
    rows = [line.split() for line in shared.check("ps -ef").splitlines()]
    shown = [row for row in rows if row[-1] == f"[{NAME}]"]
    assert [(row[0], int(row[1]), int(row[2])) for row in shown] == [("root", task.pid, 2)]


def rests(threads: Threads, loaded: Guest, module: Module, when: str, seconds: float) -> None:
    """For so long the thread waits: it is there, asleep, and nothing wakes it up."""
    first = threads.only()
    busy = ""
    try:
        passed = loaded.pass_time(seconds)
        rate = passed.wakeups.get(f"{NAME}/{first.pid}", 0.0)
    except GuestBusy as error:  # it woke up so often that the time did not pass
        rate, busy = 0.0, error.tail
    last = threads.same(first, f"{when} and {seconds:.0f} s later")
    used = (last.ticks - first.ticks) / 100  # USER_HZ
    often = rate or (last.voluntary - first.voluntary) / seconds
    assert used < 0.1 and last.state != "R", (  # noqa: PT018  # one fact
        f"{when}, the thread {NAME} used {used:.1f} s of CPU time in {seconds:.0f} s although it "
        f"has nothing to do, and is in state {last.state}: it spins or polls instead of waiting"
    )
    assert not often, (
        f"{when}, the thread {NAME} wakes up {often:.2g} times a second although it has nothing to "
        f"do: it polls instead of waiting. {busy}"
    )
    if last.state not in AT_REST and f"[{module.name}]" not in last.stack:
        pytest.fail(
            f"the thread {NAME} was created and never started (state {last.state}): "
            f"kthread_create() needs wake_up_process(), kthread_run() does both\n{last.stack}"
        )
    assert last.state in AT_REST, (
        f"{when}, the thread {NAME} is in state {last.state}: it waits uninterruptibly, which "
        f"counts as load. wait_event_interruptible() does not\n{last.stack}"
    )


@pytest.mark.machine(clock="ahead")
def test_thread_waits_until_there_is_something_to_do(
    threads: Threads, loaded: Guest, module: Module
) -> None:
    """Ten minutes after loading it is there, asleep, and has cost nothing."""
    rests(threads, loaded, module, "after loading", 5)
    rests(threads, loaded, module, "after loading", 600)


def get_through(threads: Threads, loaded: Guest) -> None:
    """Let a thread that takes some seconds for each message get through with them."""
    thread = threads.only()
    with suppress(GuestBusy):  # one that polls does so later on as well
        if loaded.pass_time(5).wakeups.get(f"{NAME}/{thread.pid}"):
            loaded.pass_time(MESSAGES_SECONDS)


@pytest.mark.machine(clock="ahead")
def test_thread_waits_after_writes(threads: Threads, loaded: Guest, module: Module) -> None:
    """The same thread is there and asleep again, ten minutes after messages of several writers."""
    before = threads.only()
    write = f"open {NODE} w ; write 10:a ; write 1:b ; write 4096:c ; echo eudyptula ; close"
    perform(loaded, [write, write, write])
    loaded.pass_time(1)  # for the thread to get through with them
    threads.same(before, "after a write")
    get_through(threads, loaded)
    rests(threads, loaded, module, "after a write", 5)
    rests(threads, loaded, module, "after a write", 600)


@pytest.mark.machine(clock="ahead")
def test_thread_is_not_disturbed_by_signals(
    threads: Threads, loaded: Guest, module: Module
) -> None:
    """Whoever signals it neither ends it nor has it run in circles."""
    before = threads.only()
    loaded.check(f"for it in HUP INT TERM USR1 KILL; do kill -$it {before.pid}; done")
    loaded.pass_time(1)
    threads.same(before, "after signals to it")
    rests(threads, loaded, module, "after signals to it", 5)
