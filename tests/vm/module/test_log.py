# SPDX-License-Identifier: GPL-2.0-only
"""What the module logs: nothing, or with dynamic debug a limited number of harmless lines."""

from __future__ import annotations

from .conftest import StarvedConsumer, Writer, two_cpus

DYNAMIC_DEBUG = "/proc/dynamic_debug/control"
# The kernel's own limit for pr_debug_ratelimited(): ten lines in five seconds (ratelimit.h).
BURST, INTERVAL_NS = 10, 5_000_000_000


def switch_on_debugging(writer: Writer) -> None:
    assert writer.echo("module waitqueues +p", DYNAMIC_DEBUG) == 0
    writer.new_log()


@two_cpus
def test_silent_unless_asked(starved: StarvedConsumer) -> None:
    """Messages, a full queue, EAGAIN and waiting writers leave the log as it was."""
    writer = starved.writer
    writer.new_log()
    writer.fill()
    job = writer.start("write 10")
    writer.wait_until_blocked(1)
    assert writer.call("nonblock", 1) == 0
    assert writer.call("repeat", 100, 10) == 0
    starved.drain()
    assert job.result() == 10
    assert writer.close() == 0
    assert writer.new_log_of_module() == []


def test_debug_messages_are_escaped_and_cut(writer: Writer) -> None:
    """With dynamic debug a message shows 64 bytes on one line, and no byte as it is."""
    switch_on_debugging(writer)
    forged = b"one\n<0>two\r\x1b[31mthree\0\x7f\x9b31m\xc3\xa9\\n"
    for text in (forged, b"x" * 64 + b"y" * 64, b"end"):
        assert writer.call("text", text.hex()) == len(text)
    writer.wait_until_idle()
    assert writer.new_log_of_module() == [
        f"waitqueues: message 1, {len(forged)} bytes: {forged.hex(' ')}",
        f"waitqueues: message 2, 128 bytes: {(b'x' * 64).hex(' ')}",
        f"waitqueues: message 3, 3 bytes: {b'end'.hex(' ')}",
    ]


def test_debug_messages_are_limited(writer: Writer) -> None:
    """With dynamic debug a thousand messages make no more lines than the kernel's own limit."""
    switch_on_debugging(writer)
    began = writer.clock()
    assert writer.call("repeat", 1000, 10) == 1000
    writer.wait_until_idle()
    log = writer.new_log_of_module()
    lines = [line for line in log if line.startswith("waitqueues: message ")]
    intervals = 1 + (writer.clock() - began) // INTERVAL_NS
    assert 0 < len(lines) <= BURST * intervals
