# SPDX-License-Identifier: GPL-2.0-only
"""Many writers at once."""

from __future__ import annotations

from collections import Counter

from .conftest import FIRST_CPU, SECOND_CPU, Counters, Trace, Writer, two_cpus


@two_cpus
def test_writers_on_both_cpus_lose_and_repeat_nothing(writer: Writer, trace: Trace) -> None:
    """Each message is queued once and then consumed once, both in the order of the sequence."""
    (thread,) = writer.threads()
    assert writer.call("pin", thread, SECOND_CPU) == 0
    count = 150
    cpus = {4096: FIRST_CPU, 4095: SECOND_CPU, 100: FIRST_CPU, 10: SECOND_CPU, 1: FIRST_CPU}
    jobs = {
        size: writer.start(f"pin 0 {cpu}", "open w", f"repeat {count} {size}")
        for size, cpu in cpus.items()
    }
    assert [job.result() for job in jobs.values()] == [count] * len(jobs)
    writer.wait_until_idle()
    total = count * len(jobs)
    assert writer.counters()._replace(blocked=0) == Counters(total, total, 0, 0)

    order = list(range(1, total + 1))
    events = trace.events()
    queued = [event for event in events if event.name == "message_queued"]
    consumed = [event for event in events if event.name == "message_consumed"]
    assert [event.sequence for event in queued] == order
    assert [event.sequence for event in consumed] == order
    assert [event.length for event in consumed] == [event.length for event in queued]
    assert Counter((event.pid, event.length) for event in queued) == {
        (job.pid, size): count for size, job in jobs.items()
    }
    in_queue = 0
    for event in events:
        in_queue += 1 if event.name == "message_queued" else -1
        assert in_queue >= 0, f"{event} came before it was queued"
