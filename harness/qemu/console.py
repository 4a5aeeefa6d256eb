# SPDX-License-Identifier: GPL-2.0-only
"""The guest's first serial port, which QEMU writes to a file by itself.

So the last words of a dying kernel are there, whatever else happens.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from harness.host import text

CONSOLE_TAIL = 25  # lines of console in an error
CONSOLE_KEPT = 8 << 20  # bytes of a console's beginning that are kept, and as many of its end
CONSOLE_MAX = 64 << 20  # bytes; what a guest prints beyond that is lost


class Console:
    """What a guest has printed, read as it grows, in bounded memory.

    Of a console that is longer than twice ``CONSOLE_KEPT`` only the beginning and the end are kept.
    ``unread`` is the number of bytes between them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unread = 0
        self.limit = CONSOLE_MAX
        self._offset = 0  # how much of the file has been read
        self._head = bytearray()
        self._tail = bytearray()

    def read(self) -> bytes:
        """The next bytes, at most a MiB; none when all there is has been read."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read(1 << 20)
        except FileNotFoundError:
            return b""
        self._offset += len(fresh)
        room = CONSOLE_KEPT - len(self._head)
        self._head += fresh[:room]
        self._tail += fresh[room:]
        excess = len(self._tail) - CONSOLE_KEPT
        if excess > 0:
            del self._tail[:excess]
            self.unread += excess
        return fresh

    def position(self, offset: int) -> int:
        """Where in ``text`` the file's byte ``offset`` is, or the end of what is kept of it."""
        return len(self._decoded(bytes(self._head[:offset])))

    def text(self) -> str:
        """All so far, undecodable bytes replaced, lines ended by \\n."""
        while self.read():
            pass
        kept = bytes(self._head)
        if self.unread:
            kept += f"\n(here {self.unread} bytes are left out)\n".encode()
        return self._decoded(kept + self._tail)

    @staticmethod
    def _decoded(text: bytes) -> str:
        return text.decode(errors="replace").replace("\r\n", "\n")

    def tail(self) -> str:
        """The last ``CONSOLE_TAIL`` lines as the guest printed them; an error escapes them."""
        return text.last_lines(self.text(), CONSOLE_TAIL)

    @property
    def size(self) -> int:
        """How many bytes the guest has printed."""
        with contextlib.suppress(OSError):
            return self.path.stat().st_size
        return 0

    @property
    def full(self) -> bool:
        """Whether the guest has printed more than QEMU was allowed to write."""
        return self.size >= self.limit
