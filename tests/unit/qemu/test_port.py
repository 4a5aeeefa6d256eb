# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/port.py: a serial port of which nothing may be lost. The guest is this test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from harness.qemu.port import PacedPort

SECONDS = 20.0
Talk = Callable[[PacedPort, int, int], Coroutine[Any, Any, None]]


def run(folder: Path, talk: Talk) -> None:
    """Have ``talk`` use a port and the two ends that QEMU has of it."""

    async def all_of_it() -> None:
        port = PacedPort(folder / "control")
        given = os.open(f"{port.base}.in", os.O_RDONLY | os.O_NONBLOCK)
        says = os.open(f"{port.base}.out", os.O_WRONLY)
        try:
            await port.connect()
            await asyncio.wait_for(talk(port, given, says), SECONDS)
        finally:
            port.close()
            os.close(given)
            os.close(says)

    asyncio.run(all_of_it())


async def taken(given: int) -> bytes:
    """What has been sent, once there is something."""
    while True:
        try:
            return os.read(given, 1 << 16)
        except BlockingIOError:
            await asyncio.sleep(0)


def test_no_more_is_sent_than_the_port_holds(tmp_path: Path) -> None:
    """The next sixteen bytes come when the guest has read the first."""

    async def talk(port: PacedPort, given: int, says: int) -> None:
        sending = asyncio.ensure_future(port.send(b"0123456789abcdefghi\n"))
        assert await taken(given) == b"0123456789abcdef"
        os.write(says, b"+10\n")
        os.write(says, b"word 1\n")
        assert await port.readline() == b"word 1\n"  # so the port knows of the ten
        with pytest.raises(BlockingIOError):
            os.read(given, 1)
        os.write(says, b"+6\n")
        assert await taken(given) == b"ghi\n"
        await sending

    run(tmp_path, talk)


def test_a_line_that_was_given_up_disturbs_no_other(tmp_path: Path) -> None:
    """It is ended before the next one begins."""

    async def talk(port: PacedPort, given: int, says: int) -> None:
        sending = asyncio.ensure_future(port.send(b"0123456789abcdefghi\n"))
        assert await taken(given) == b"0123456789abcdef"
        sending.cancel()
        os.write(says, b"+16\n")
        again = asyncio.ensure_future(port.send(b"next\n"))
        assert await taken(given) == b"\nnext\n"
        await again
        assert port.sent[-1] == b"\nnext\n"

    run(tmp_path, talk)


def test_what_commands_print_is_not_an_answer(tmp_path: Path) -> None:
    """Nor is a line of a module's that only looks like one of these."""

    async def talk(port: PacedPort, given: int, says: int) -> None:
        heard: list[str] = []
        port.on_stream = heard.append
        os.write(says, b"~1 out a%20b\n+x\nanswer\n")
        assert [await port.readline() for _ in range(2)] == [b"+x\n", b"answer\n"]
        assert heard == ["~1 out a%20b"]

    run(tmp_path, talk)


def test_a_line_without_an_end_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after it is heard."""
    monkeypatch.setattr("harness.qemu.port.LINE_BYTES", 64)

    async def talk(port: PacedPort, given: int, says: int) -> None:
        os.write(says, b"x" * 1000 + b"\nanswer\n")
        lines: list[bytes] = []
        while lines[-1:] != [b"answer\n"]:
            lines.append(await port.readline())
        assert all(len(line) <= 64 for line in lines)

    run(tmp_path, talk)


def test_a_port_that_nobody_used_is_closed(tmp_path: Path) -> None:
    """As that of a QEMU that does not start; closing it twice is once too often, and no error."""
    before = len(os.listdir("/proc/self/fd"))
    port = PacedPort(tmp_path / "control")
    assert len(os.listdir("/proc/self/fd")) == before + 2
    port.close()
    port.close()
    assert len(os.listdir("/proc/self/fd")) == before
