# SPDX-License-Identifier: GPL-2.0-only
"""write() and writev(): what is accepted, and what bad input gets."""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EMSGSIZE, ENOMEM

from harness.testing import Guest

from .conftest import (
    CGROUPS,
    Counters,
    Result,
    StarvedConsumer,
    Trace,
    Writer,
    two_cpus,
    writer_in,
)

BAD_INPUT: dict[int | str, int] = {
    4097: EMSGSIZE,
    65536: EMSGSIZE,
    (1 << 31) - 1: EMSGSIZE,
    "1@null": EFAULT,
    "4096@null": EFAULT,
    "2@torn": EFAULT,
    "4096@torn": EFAULT,
    "10@kernel": EFAULT,
    # If several apply, the length comes before the address, ...
    "4097@null": EMSGSIZE,
    "4097@torn": EMSGSIZE,
    # ... but an address outside user space comes before everything.
    "4097@kernel": EFAULT,
    "0@kernel": EFAULT,
}


def test_a_message_is_1_to_4096_bytes(writer: Writer, trace: Trace) -> None:
    """write() returns the length, which is what is queued; an empty one is 0 and nothing."""
    assert writer.write(0) == 0
    assert writer.write("0@null") == 0
    assert writer.counters() == Counters(consumed=0, accepted=0, pending=0, blocked=0)
    sizes = [1, 2, 4095, 4096]
    assert [writer.write(size) for size in sizes] == sizes
    writer.wait_until_idle()
    assert [event.length for event in trace.queued()] == sizes
    assert [event.length for event in trace.consumed()] == sizes


def test_bad_input_gets_its_error(writer: Writer) -> None:
    """Too long is EMSGSIZE, a bad address EFAULT, however often; nothing is queued or logged."""
    writer.new_log()
    got = {message: writer.write(message) for message in BAD_INPUT}
    assert got == {message: Result(-error) for message, error in BAD_INPUT.items()}
    for message, error in BAD_INPUT.items():
        assert writer.call("refused", 100, error, message) == 100
    assert writer.counters() == Counters(consumed=0, accepted=0, pending=0, blocked=0)
    assert writer.new_log_of_module() == []
    assert writer.write(10) == 10


@two_cpus
def test_errors_when_the_queue_is_full(starved: StarvedConsumer) -> None:
    """Every other error comes before EAGAIN, and an empty message needs no room."""
    writer = starved.writer
    writer.fill()
    before = writer.counters()
    assert writer.call("nonblock", 1) == 0
    assert writer.write(1) == -EAGAIN
    assert writer.write(0) == 0
    got = {message: writer.write(message) for message in BAD_INPUT}
    assert got == {message: Result(-error) for message, error in BAD_INPUT.items()}
    assert writer.counters() == before


def test_writev_is_one_message_for_each_part(writer: Writer, trace: Trace) -> None:
    """Each part but an empty one is a message; if one fails, those before it count."""
    assert writer.writev(10, 4096, 0, 30) == 4136
    assert writer.writev(11, 20, 4097, 40) == 31
    assert writer.writev(50, "60@torn", 70) == 50
    assert writer.writev(4097, 10) == -EMSGSIZE
    assert writer.writev("10@null", 10) == -EFAULT
    writer.wait_until_idle()
    assert [event.length for event in trace.queued()] == [10, 4096, 30, 11, 20, 50]


@two_cpus
def test_writev_returns_what_found_room(starved: StarvedConsumer) -> None:
    """With O_NONBLOCK, writev() of more than fits returns how many bytes did."""
    writer = starved.writer
    before = writer.counters()
    assert writer.call("nonblock", 1) == 0
    assert writer.writev(*[4096] * 15, 4095, 2, 1) == 65535
    assert writer.writev(2, 1) == -EAGAIN
    assert writer.counters().since(before) == Counters(0, 16, 65535, 0)


@two_cpus
def test_memory_is_given_back(starved: StarvedConsumer) -> None:
    """Messages that were consumed or refused keep no memory; leaked, it would be 32 MiB each."""
    writer = starved.writer

    def slab() -> int:
        """Memory of the slab allocator that is in use, in KiB."""
        text = writer.cat("/proc/meminfo")
        return int(text.partition("SUnreclaim:")[2].split()[0])

    before = slab()
    assert writer.call("refused", 4096, EFAULT, "4096@torn") == 4096
    assert slab() - before < 8192, "after EFAULT"
    writer.fill()
    assert writer.call("nonblock", 1) == 0
    assert writer.call("refused", 4096, EAGAIN, "4096") == 4096
    assert slab() - before < 8192, "after EAGAIN"
    starved.release()
    assert writer.call("nonblock", 0) == 0
    assert writer.call("repeat", 4096, 4096) == 4096
    writer.wait_until_idle()
    assert slab() - before < 8192, "after consumption"


@two_cpus
def test_the_memory_cgroup_of_the_writer_pays(starved: StarvedConsumer, loaded: Guest) -> None:
    """With its memory used up by messages in the queue, write() is ENOMEM and queues nothing.

    That is the answer only if the out-of-memory killer finds nobody to kill.
    """
    group = f"{CGROUPS}/writer"
    loaded.check(
        f"mountpoint -q {CGROUPS} || mount -t cgroup2 none {CGROUPS}; "
        f"echo +memory >{CGROUPS}/cgroup.subtree_control && mkdir {group} && "
        # Less than sixteen messages of 4096 bytes, which take 8 KiB each.
        f"echo 98304 >{group}/memory.max"
    )
    before = starved.writer.counters()

    def write_in(place: str, message: str) -> list[Result]:
        """Write while in that cgroup, and leave it again: only the messages are to count."""
        answers = writer.ask(
            f"echo {place}/cgroup.procs 0 ; repeat 16 {message} ; write {message} ; "
            f"echo {CGROUPS}/cgroup.procs 0"
        )
        entered, *written, left = (Result(answer) for answer in answers.split(" ; "))
        assert (entered, left) == (0, 0)
        return written

    # A new process: one that has forked would need memory for copies of its own pages.
    with writer_in(loaded) as writer:
        assert writer.open("w", "nonblock") >= 0
        # The out-of-memory killer must not be the one to answer.
        assert writer.echo("-1000", f"/proc/{writer.pid}/oom_score_adj") == 0
        # Once outside the group first, so that perl has allocated all that it needs.
        assert write_in(CGROUPS, "4096@torn") == [0, -EFAULT]
        accepted, failed = write_in(group, "4096")
        assert 0 < accepted < 16
        assert failed == -ENOMEM
        grown = writer.counters().since(before)
    assert grown == Counters(0, accepted, accepted * 4096, 0)
