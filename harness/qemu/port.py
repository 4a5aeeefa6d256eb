# SPDX-License-Identifier: GPL-2.0-only
"""The host's end of the guest's second serial port: a line there, a line back.

``SocketPort`` is the usual one. ``PacedPort`` is that of a machine that is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

LINE_BYTES = 16 << 20  # at most in one line; some hundred stacks are 64 KiB

# From linux/fcntl.h. 1 MiB is what fs.pipe-max-size allows everybody (Documentation/admin-guide/
# sysctl/fs.rst).
_F_SETPIPE_SZ, _PIPE_BYTES = 1031, 1 << 20
_FIFO = 16  # bytes that QEMU's serial port holds for the guest (UART_FIFO_LENGTH)


class Port(Protocol):
    """The connection through which ``Agent`` talks; it is used in the event loop only."""

    async def connect(self) -> None:
        """Begin."""

    async def send(self, data: bytes) -> None:
        """Have the guest get ``data``; ``OSError`` if QEMU is gone."""

    async def readline(self) -> bytes:
        """The next line, with its end; "" when nothing more comes.

        ``ValueError`` for one that is longer than ``LINE_BYTES``.
        """

    def close(self) -> None:
        """The end of it."""


class SocketPort:
    """The port as one end of a pair of sockets."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream.dup()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            sock=self._stream, limit=LINE_BYTES
        )

    async def send(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)
        await self._writer.drain()

    async def readline(self) -> bytes:
        assert self._reader is not None
        return await self._reader.readline()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class PacedPort:
    """The port as two named pipes, for a QEMU that records.

    Nothing may be lost on either way. QEMU takes what it is sent as soon as it comes, and while it
    records it hands that to the serial port later: what the port has no room for is dropped then.
    So no more is sent than the port holds, and then it is waited until vm/agent has read that.
    And where QEMU cannot write at once it tries again at a moment that is not recorded, and the
    replay goes another way. A pipe of 1 MiB always has room; a pair of sockets has for some
    hundred writes of one byte.

    ``on_stream`` is called with each line that begins with ~ (vm/agent, run).
    """

    def __init__(self, base: Path) -> None:
        """``base`` is what QEMU's chardev `pipe` wants; its name is followed by .in and .out."""
        self.base = base
        self.on_stream: Callable[[str], None] | None = None
        self.sent: list[bytes] = []  # all that was sent, as lines
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._unread = 0  # bytes that the guest has not read yet
        self._read = asyncio.Condition()
        self._sending = asyncio.Lock()
        self._whole = True  # whether all that was sent ended with a line
        self._tasks: list[asyncio.Task[None]] = []
        self._transport: asyncio.ReadTransport | None = None
        self._ends: list[int] = []
        for name in ("in", "out"):
            path = Path(f"{base}.{name}")
            path.unlink(missing_ok=True)
            os.mkfifo(path, mode=0o600)
            end = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.fcntl(end, _F_SETPIPE_SZ, _PIPE_BYTES)
            self._ends.append(end)

    async def connect(self) -> None:
        reader = asyncio.StreamReader(limit=LINE_BYTES)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(self._ends[1]), "rb", 0)
        )
        self._tasks.append(asyncio.create_task(self._listen(reader)))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await self._next(reader):
                if line.startswith(b"+") and line[1:].strip().isdigit():
                    async with self._read:
                        self._unread = max(0, self._unread - int(line[1:]))
                        self._read.notify_all()
                elif line.startswith(b"~") and self.on_stream is not None:
                    self.on_stream(line.decode(errors="replace").rstrip("\n"))
                else:
                    self._lines.put_nowait(line)
        self._lines.put_nowait(b"")

    @staticmethod
    async def _next(reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readline()
        except ValueError:  # so readline() tells of its limit
            return b"(a line that is too long)\n"

    async def send(self, data: bytes) -> None:
        async with self._sending:
            if not self._whole:  # a line that was begun, and given up, is to disturb no other
                data = b"\n" + data
            self._whole = False
            self.sent.append(data)
            for start in range(0, len(data), _FIFO):
                piece = data[start : start + _FIFO]
                async with self._read:
                    await self._read.wait_for(lambda: self._unread == 0)
                    self._unread += len(piece)
                os.write(self._ends[0], piece)
            self._whole = data.endswith(b"\n")

    async def readline(self) -> bytes:
        return await self._lines.get()

    def close(self) -> None:
        while self._tasks:
            self._tasks.pop().cancel()
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        while self._ends:
            os.close(self._ends.pop())
