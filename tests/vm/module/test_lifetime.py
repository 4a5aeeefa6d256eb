# SPDX-License-Identifier: GPL-2.0-only
"""Loading and unloading, also when a part of it fails: nothing is lost or left behind."""

from __future__ import annotations

from errno import EAGAIN, ENOSPC, EWOULDBLOCK
from pathlib import Path

import pytest

from harness.testing import Guest, Lab, Module

from .conftest import (
    ATTRIBUTES,
    FIRST_CPU,
    MODULE,
    NAME,
    NODE,
    TRACING,
    StarvedConsumer,
    Writer,
    events_in,
    two_cpus,
)

THREADS_MAX = "/proc/sys/kernel/threads-max"


@pytest.fixture(scope="session")
def no_misc(lab: Lab) -> Module:
    """A module that makes misc_register() fail with ENOSPC while it is loaded."""
    return lab.build(Path(__file__).parent / "no_misc")


def left_behind(writer: Writer) -> list[str]:
    """What the module has in the guest: files, threads, lines of /proc/misc and /proc/modules."""
    paths = (
        NODE,
        ATTRIBUTES,
        f"/sys/devices/virtual/misc/{NAME}",
        "/sys/module/waitqueues",
        f"{TRACING}/events/{NAME}",
    )
    there = [path for path in paths if writer.call("exists", path)]
    there += [f"thread {pid}" for pid in writer.threads()]
    for path, word in (("/proc/misc", NAME), ("/proc/modules", "waitqueues")):
        there += [line for line in writer.cat(path).splitlines() if word in line.split()]
    return there


def works(writer: Writer) -> bool:
    """Whether the module can be loaded, used and unloaded."""
    answers = writer.ask(f"insmod {MODULE} ; open w ; write 10 ; idle ; close ; rmmod waitqueues")
    loaded, opened, *rest = answers.split(" ; ")
    return (loaded, rest) == ("0", ["10", "0", "0", "0"]) and int(opened) >= 0


def test_cannot_be_removed_while_open(writer: Writer, loaded: Guest) -> None:
    """delete_module() fails with EWOULDBLOCK, rmmod says `in use`; once it is closed both work."""
    assert writer.cat("/sys/module/waitqueues/refcnt") == "1\n"
    assert writer.call("rmmod", "waitqueues") == -EWOULDBLOCK
    refused = loaded.run("rmmod waitqueues")
    assert not refused.ok
    assert "in use" in refused.stderr
    assert writer.write(10) == 10
    writer.wait_until_idle()
    assert writer.close() == 0
    assert writer.cat("/sys/module/waitqueues/refcnt") == "0\n"
    assert writer.call("rmmod", "waitqueues") == 0
    assert left_behind(writer) == []


def test_init_without_a_thread(loader: Writer) -> None:
    """If no thread can be made insmod fails with EAGAIN and leaves nothing; later it works."""
    usual = loader.cat(THREADS_MAX).strip()
    # On one line, because nobody can fork meanwhile. 20 is the smallest value that is allowed.
    answers = loader.ask(f"echo {THREADS_MAX} 20 ; insmod {MODULE} ; echo {THREADS_MAX} {usual}")
    assert answers == f"0 ; {-EAGAIN} ; 0"
    assert left_behind(loader) == []
    assert works(loader)
    assert left_behind(loader) == []


def test_init_without_a_device(loader: Writer, guest: Guest, no_misc: Module) -> None:
    """If misc_register() fails, insmod fails the same way and leaves no thread; later it works."""
    guest.put(no_misc.loadable, "/root/no_misc.ko")
    answers = loader.ask(f"insmod /root/no_misc.ko ; insmod {MODULE} ; rmmod no_misc")
    assert answers == f"0 ; {-ENOSPC} ; 0"
    assert left_behind(loader) == []
    assert works(loader)
    assert left_behind(loader) == []


@two_cpus
def test_unloading_consumes_what_was_accepted(starved: StarvedConsumer) -> None:
    """rmmod waits while messages are in the queue, and all have been consumed when it returns."""
    writer = starved.writer
    first = writer.counters().accepted + 1
    assert writer.echo("1", f"{TRACING}/events/{NAME}/enable") == 0
    writer.new_log()
    sizes = [4096] * 15 + [4000, 50, 46]
    assert writer.writev(*sizes) == sum(sizes)
    assert writer.close() == 0
    job = writer.start("rmmod waitqueues")
    # It sleeps in kthread_stop() until the thread has returned.
    writer.wait_for(f"/proc/{job.pid}/stack", "kthread_stop")
    assert not writer.call("exists", NODE)
    starved.release()
    assert job.result() == 0
    # From the log (tp_printk): the kernel clears the trace when the module is removed.
    events = [event for event in events_in(writer.new_log()) if event.name == "message_consumed"]
    assert [event.length for event in events] == sizes
    assert [event.sequence for event in events] == list(range(first, first + len(sizes)))
    assert left_behind(writer) == []


@two_cpus
def test_unloading_before_the_thread_first_ran(loader: Writer) -> None:
    """Even then every accepted message is consumed: waitqueues_exit() does it."""
    # Loading and unloading need only these two kernel threads. They get a real-time priority
    # like this process. So they run before the module's thread, which has none.
    for name in ("kthreadd", "kdevtmpfs"):
        pid = loader.call("pids", name)
        assert loader.call("pin", pid, FIRST_CPU) == 0
        assert loader.call("schedule", pid, 60) == 0
    # And no time is reserved for tasks that are not real-time, however slow the host is.
    assert loader.echo("-1", "/proc/sys/kernel/sched_rt_runtime_us") == 0
    server = f"/sys/kernel/debug/sched/fair_server/cpu{FIRST_CPU}/runtime"
    if loader.call("exists", server):  # since 6.12
        assert loader.echo("0", server) == 0
    # Enabling the first event of all makes the kernel wait for RCU. So that is not one of ours.
    assert loader.echo("1", f"{TRACING}/events/oom/mark_victim/enable") == 0
    loader.new_log()
    loaded = loader.ask(
        f"pin 0 {FIRST_CPU} ; schedule 0 50 ; insmod {MODULE} ; "
        f"echo {TRACING}/events/{NAME}/enable 1 ; open w ; writev 10 20 30 ; close ; "
        f"stack_of {NAME} ; counters ; rmmod waitqueues ; schedule 0 0"
    ).split(" ; ")
    stack, counters = loaded[7:9]
    assert "kthread" in stack
    assert "thread_runner" not in stack, "the thread has run"
    assert counters == "0 3 60 0"
    assert all(int(answer) >= 0 for answer in loaded[:7] + loaded[9:]), loaded
    events = [event for event in events_in(loader.new_log()) if event.name == "message_consumed"]
    assert [(event.sequence, event.length) for event in events] == [(1, 10), (2, 20), (3, 30)]
    assert left_behind(loader) == []


@two_cpus
def test_unloading_while_others_write(writer: Writer, loaded: Guest) -> None:
    """With two processes that open, write and close all the time, it is removed and comes back."""
    assert writer.close() == 0
    jobs = [writer.start(f"pin 0 {cpu}", "flood /run/enough") for cpu in (0, 1)]
    for _ in range(10):
        assert writer.call("rmmod_at_last", "waitqueues") == 0
        assert writer.call("insmod", MODULE) == 0
    loaded.check("touch /run/enough")
    totals = [[int(word) for word in job.wait()[-1].split()] for job in jobs]
    assert all(accepted > 0 for accepted, _, _ in totals)
    # Some tried to open it while it was gone; otherwise the test would show nothing.
    assert sum(no_open for _, no_open, _ in totals) > 0
    assert [no_write for _, _, no_write in totals] == [0, 0]
    writer.wait_until_idle()
    assert len(writer.threads()) == 1
    assert writer.call("rmmod", "waitqueues") == 0
    assert left_behind(writer) == []
