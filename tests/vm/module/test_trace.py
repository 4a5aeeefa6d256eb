# SPDX-License-Identifier: GPL-2.0-only
"""The tracepoints eudyptula:message_queued and eudyptula:message_consumed."""

from __future__ import annotations

import re

from .conftest import NAME, SECOND_CPU, TRACING, StarvedConsumer, Trace, Writer, two_cpus

U64, U32 = (8, 0), (4, 0)  # size in bytes, and whether it is signed


def fields_of(writer: Writer, event: str) -> dict[str, tuple[int, int]]:
    """The event's own fields as its format file describes them: name -> size, signed."""
    text = writer.cat(f"{TRACING}/events/{NAME}/{event}/format")
    found = re.findall(r"field:.*?(\w+);\s*offset:\d+;\s*size:(\d+);\s*signed:(\d);", text)
    return {
        name: (int(size), int(signed))
        for name, size, signed in found
        if not name.startswith("common_")
    }


def test_a_message_is_traced_when_queued_and_when_consumed(writer: Writer, trace: Trace) -> None:
    """By the writer and by the thread; sequence and queue_ns are u64, length is u32."""
    assert fields_of(writer, "message_queued") == {"sequence": U64, "length": U32}
    assert fields_of(writer, "message_consumed") == {
        "sequence": U64,
        "length": U32,
        "queue_ns": U64,
    }
    (thread,) = writer.threads()
    assert writer.write(123) == 123
    writer.wait_until_idle()
    queued, consumed = trace.events()
    assert (queued.name, queued.pid) == ("message_queued", writer.pid)
    assert queued.fields == {"sequence": 1, "length": 123}
    assert (consumed.name, consumed.comm, consumed.pid) == ("message_consumed", NAME, thread)
    assert (consumed.sequence, consumed.length) == (1, 123)


def test_sequence_is_the_number_of_accepted_messages(writer: Writer, trace: Trace) -> None:
    """It counts from 1 without a gap, whatever was refused in between."""
    for number in range(1, 6):
        assert writer.write(number) == number
        assert writer.write(4097) < 0
        assert writer.write("10@torn") < 0
        assert writer.write(0) == 0
        assert writer.counters().accepted == number
    writer.wait_until_idle()
    expected = [(number, number) for number in range(1, 6)]
    assert [(event.sequence, event.length) for event in trace.queued()] == expected
    assert [(event.sequence, event.length) for event in trace.consumed()] == expected


@two_cpus
def test_what_is_counted_as_consumed_is_in_the_trace(writer: Writer, trace: Trace) -> None:
    """As soon as `consumed` is N there are N message_consumed."""
    (thread,) = writer.threads()
    assert writer.call("pin", thread, SECOND_CPU) == 0
    for number in range(1, 11):
        # On one line and without a sleep, so that little time passes after the counting.
        answers = writer.ask(f"write 10 ; idle busy ; cat {TRACING}/trace")
        assert answers.startswith("10 ; 0 ; ")
        assert answers.count("message_consumed:") == number


@two_cpus
def test_queue_ns_is_the_time_in_the_queue(starved: StarvedConsumer, trace: Trace) -> None:
    """It is nanoseconds of CLOCK_MONOTONIC between acceptance and consumption."""
    writer = starved.writer
    before_write = writer.clock()
    assert writer.write(10) == 10
    after_write = writer.clock()
    before_release = writer.clock()
    starved.drain()
    after_release = writer.clock()
    (event,) = trace.consumed()
    assert before_release - after_write <= event.fields["queue_ns"]
    assert event.fields["queue_ns"] <= after_release - before_write


@two_cpus
def test_queue_ns_is_not_the_time_that_the_writer_waited(
    starved: StarvedConsumer, trace: Trace
) -> None:
    """It begins when the message is accepted, after any waiting for room."""
    writer = starved.writer
    writer.fill()
    job = writer.start("write 10")
    writer.wait_until_blocked(1)
    waiting_since = writer.clock()
    while writer.clock() - waiting_since < 300_000_000:
        pass
    before_release = writer.clock()
    starved.release()
    assert job.result() == 10
    writer.wait_until_idle()
    after = writer.clock()
    event = trace.consumed()[-1]
    assert event.length == 10
    assert event.fields["queue_ns"] <= after - before_release
