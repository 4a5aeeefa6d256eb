# SPDX-License-Identifier: GPL-2.0-only
"""A full queue: how much fits, who waits, and what ends the waiting."""

from __future__ import annotations

from errno import EAGAIN, EINTR, EMSGSIZE

from .conftest import FIRST_CPU, Counters, StarvedConsumer, Trace, two_cpus

pytestmark = two_cpus


def test_queue_takes_64_kib(starved: StarvedConsumer) -> None:
    """16 messages of 4096 bytes fit, then not a byte; all of them are consumed."""
    writer = starved.writer
    before = writer.counters()
    assert writer.call("nonblock", 1) == 0
    assert writer.call("repeat", 17, 4096) == 16
    assert writer.write(1) == -EAGAIN
    assert writer.counters().since(before) == Counters(0, 16, 65536, 0)
    starved.drain()
    assert writer.counters().since(before) == Counters(16, 16, 0, 0)


def test_only_the_bytes_of_a_message_count(starved: StarvedConsumer) -> None:
    """65536 messages of one byte fit as well, and not one more."""
    writer = starved.writer
    before = writer.counters()
    assert writer.call("nonblock", 1) == 0
    assert writer.call("repeat", 65537, 1) == 65536
    assert writer.counters().since(before) == Counters(0, 65536, 65536, 0)
    starved.drain()
    assert writer.counters().since(before) == Counters(65536, 65536, 0, 0)


def test_a_message_fits_wholly_or_not_at_all(starved: StarvedConsumer) -> None:
    """With one byte of room, two bytes get EAGAIN and one byte is accepted."""
    writer = starved.writer
    assert writer.writev(*[4096] * 15, 4095) == 65535
    assert writer.call("nonblock", 1) == 0
    assert writer.write(2) == -EAGAIN
    assert writer.write(1) == 1
    assert writer.write(1) == -EAGAIN


def test_a_writer_sleeps_until_there_is_room(starved: StarvedConsumer) -> None:
    """Without O_NONBLOCK a write() sleeps interruptibly; its message is accepted once."""
    writer = starved.writer
    before = writer.counters()
    writer.fill()
    job = writer.start("write 100")
    writer.wait_until_blocked(1)
    job.wait_until_asleep()
    assert writer.counters().since(before) == Counters(0, 16, 65536, 1)
    starved.release()
    assert job.result() == 100
    writer.wait_until_idle()
    assert writer.counters().since(before) == Counters(17, 17, 0, 1)


def test_a_signal_ends_the_wait_with_eintr(starved: StarvedConsumer) -> None:
    """A handler without SA_RESTART: EINTR, and nothing is queued then or later."""
    writer = starved.writer
    before = writer.counters()
    writer.fill()
    job = writer.start("handler USR1 interrupt", "write 100")
    writer.wait_until_blocked(1)
    job.kill("USR1")
    assert job.result() == -EINTR
    starved.drain()
    assert writer.counters().since(before) == Counters(16, 16, 0, 1)


def test_a_signal_restarts_the_write_with_sa_restart(starved: StarvedConsumer) -> None:
    """With SA_RESTART the write() is called again: it waits, and counts, a second time."""
    writer = starved.writer
    before = writer.counters()
    writer.fill()
    job = writer.start("handler USR1 restart", "write 100", "handled")
    writer.wait_until_blocked(1)
    job.kill("USR1")
    writer.wait_until_blocked(2)
    assert writer.counters().since(before) == Counters(0, 16, 65536, 2)
    starved.release()
    assert job.wait() == ["0", "100", "1"]
    writer.wait_until_idle()
    assert writer.counters().since(before) == Counters(17, 17, 0, 2)


def test_a_writer_that_was_stopped_waits_on(starved: StarvedConsumer) -> None:
    """SIGSTOP and SIGCONT have no handler: the write() is called again, and queues one message."""
    writer = starved.writer
    before = writer.counters()
    writer.fill()
    job = writer.start("write 100")
    writer.wait_until_blocked(1)
    job.kill("STOP")
    writer.wait_for(f"/proc/{job.pid}/stat", r"\) T ")
    job.kill("CONT")
    writer.wait_until_blocked(2)
    starved.release()
    assert job.result() == 100
    writer.wait_until_idle()
    assert writer.counters().since(before) == Counters(17, 17, 0, 2)


def test_a_waiting_writer_can_be_killed(starved: StarvedConsumer) -> None:
    """SIGKILL ends a waiting writer although there is no room; its message is not queued."""
    writer = starved.writer
    before = writer.counters()
    writer.fill()
    job = writer.start("write 100")
    writer.wait_until_blocked(1)
    job.kill("KILL")
    assert job.wait() == ["killed 9"]
    starved.drain()
    assert writer.counters().since(before) == Counters(16, 16, 0, 1)


def test_a_signal_takes_back_nothing(starved: StarvedConsumer) -> None:
    """If room and a signal come before the writer wakes, it queues or gets EINTR, not both."""
    writer = starved.writer
    before = writer.counters()
    writer.fill()
    job = writer.start(f"pin 0 {FIRST_CPU}", "handler USR1 interrupt", "write 100", "handled")
    writer.wait_until_blocked(1)
    job.wait_until_asleep()
    # This process has a higher priority than the job, is on the same CPU, and does not sleep
    # meanwhile. So both have happened when the job runs again.
    answers = writer.ask(
        f"pin 0 {FIRST_CPU} ; schedule 0 70 ; kill {starved.hog} STOP ; idle busy ; "
        f"kill {job.pid} USR1 ; schedule 0 0"
    )
    assert answers == "0 ; 0 ; 0 ; 0 ; 0 ; 0"
    *_, written, handled = job.wait()
    assert handled == "1"
    assert written in ("100", str(-EINTR))
    writer.wait_until_idle()
    accepted = writer.counters().since(before).accepted - 16
    assert accepted == (1 if written == "100" else 0)


def test_writev_that_is_interrupted_returns_what_was_accepted(starved: StarvedConsumer) -> None:
    """A signal in the middle of a writev(): the parts before it are accepted and reported."""
    writer = starved.writer
    before = writer.counters()
    job = writer.start("handler USR1 interrupt", "writev" + " 4096" * 20)
    writer.wait_until_blocked(1)
    job.kill("USR1")
    assert job.result() == 65536
    starved.drain()
    assert writer.counters().since(before) == Counters(16, 16, 0, 1)


def test_a_waiting_writer_holds_up_no_one(starved: StarvedConsumer) -> None:
    """While one waits, others get their answer at once, even through the same open file."""
    writer = starved.writer
    assert writer.writev(*[4096] * 15, 4000) == 65440
    job = writer.start("write 4096")  # the same open file: fork() shares it
    writer.wait_until_blocked(1)
    job.wait_until_asleep()
    assert writer.write(4097) == -EMSGSIZE
    assert writer.write(96) == 96
    assert writer.open("w", "nonblock") >= 0
    assert writer.write(1) == -EAGAIN
    starved.release()
    assert job.result() == 4096


def test_every_waiting_writer_gets_its_turn(starved: StarvedConsumer, trace: Trace) -> None:
    """Twelve writers wait with messages of all sizes; once there is room, none is forgotten."""
    writer = starved.writer
    sizes = [1, 4096, 7, 4096, 2048, 1, 4095, 100, 4096, 1, 3000, 4096]
    writer.fill()
    jobs = [writer.start(f"write {size}") for size in sizes]
    writer.wait_until_blocked(len(sizes))
    for job in jobs:
        job.wait_until_asleep()
    starved.release()
    assert [job.result() for job in jobs] == sizes
    writer.wait_until_idle()
    assert sorted(event.length for event in trace.consumed()[16:]) == sorted(sizes)


def test_no_wakeup_is_lost(starved: StarvedConsumer) -> None:
    """Four writers fill the queue again and again while the consumer comes and goes."""
    writer = starved.writer
    before = writer.counters()
    jobs = [writer.start(f"repeat 100 {size}") for size in (4096, 4095, 2000, 4096)]
    writer.wait_until_more_blocked(3)
    for _ in range(30):
        # On one line, so that the consumer runs only for as long as two system calls take.
        assert writer.ask(f"kill {starved.hog} STOP ; kill {starved.hog} CONT") == "0 ; 0"
    starved.release()
    assert [job.result() for job in jobs] == [100] * 4
    writer.wait_until_idle()
    assert writer.counters().since(before)._replace(blocked=0) == Counters(400, 400, 0, 0)
