# SPDX-License-Identifier: GPL-2.0-only
"""The attributes under /sys/class/misc/eudyptula."""

from __future__ import annotations

from errno import EACCES

from harness.testing import Guest

from .conftest import (
    ATTRIBUTES,
    FIRST_CPU,
    SECOND_CPU,
    Counters,
    StarvedConsumer,
    Writer,
    two_cpus,
)

OWN = ["accepted", "blocked", "consumed", "pending"]
GENERIC = {"dev", "power", "subsystem", "uevent"}  # of every device of a class


def test_attributes_can_only_be_read(writer: Writer, loaded: Guest) -> None:
    """Four attributes, 0444 and root's, one number each; not even root can set one."""
    listed = loaded.check(f"stat -c '%n %a %U %G' {ATTRIBUTES}/*").splitlines()
    rows = {line.split()[0].rpartition("/")[2]: line.split()[1:] for line in listed}
    assert sorted(rows.keys() - GENERIC) == OWN
    for name in OWN:
        assert rows[name] == ["444", "root", "root"]
        assert writer.cat(f"{ATTRIBUTES}/{name}") == "0\n"
        assert writer.echo("1", f"{ATTRIBUTES}/{name}") == -EACCES


@two_cpus
def test_counters_follow_the_messages(starved: StarvedConsumer) -> None:
    """A message counts as accepted and its bytes as pending at once, as consumed at its end."""
    writer = starved.writer
    before = writer.counters()
    assert before.pending == 0
    assert writer.write(1000) == 1000
    assert writer.counters().since(before) == Counters(0, 1, 1000, 0)
    assert writer.writev(1, 4096) == 4097
    assert writer.counters().since(before) == Counters(0, 3, 5097, 0)
    starved.drain()
    assert writer.counters().since(before) == Counters(3, 3, 0, 0)


@two_cpus
def test_blocked_counts_who_waits_and_no_one_else(starved: StarvedConsumer) -> None:
    """It is counted when a write() begins to wait, not for one that gets EAGAIN."""
    writer = starved.writer
    writer.fill()
    assert writer.counters().blocked == 0
    jobs = []
    for count in (1, 2, 3):
        jobs.append(writer.start("write 10"))
        writer.wait_until_blocked(count)
    assert writer.call("nonblock", 1) == 0
    assert writer.call("repeat", 5, 10) == 0
    assert writer.counters().blocked == 3
    starved.release()
    assert [job.result() for job in jobs] == [10, 10, 10]
    assert writer.counters().blocked == 3


@two_cpus
def test_counters_never_contradict_each_other(writer: Writer) -> None:
    """In traffic from both CPUs consumed never exceeds accepted, nor pending 64 KiB; sums hold."""
    count = 4000
    sizes = {1: FIRST_CPU, 2: SECOND_CPU, 4096: FIRST_CPU}
    jobs = [writer.start(f"pin 0 {cpu}", f"repeat {count} {size}") for size, cpu in sizes.items()]
    assert writer.call("watch", 500) == 0
    assert [job.result() for job in jobs] == [count] * len(jobs)
    writer.wait_until_idle()
    total = count * len(jobs)
    assert writer.counters()._replace(blocked=0) == Counters(total, total, 0, 0)


def test_counters_start_at_zero_with_the_module(writer: Writer) -> None:
    """They count from the time the module was loaded."""
    assert writer.call("repeat", 5, 100) == 5
    writer.close()
    assert writer.call("rmmod", "waitqueues") == 0
    assert writer.call("insmod", "/root/waitqueues.ko") == 0
    assert writer.counters() == Counters(consumed=0, accepted=0, pending=0, blocked=0)
