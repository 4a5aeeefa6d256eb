# SPDX-License-Identifier: GPL-2.0-only
"""A stream to the guest that is part of its frozen state.

What the guest sends to ``argv.SSH_ADDRESS`` comes out of a descriptor of QEMU's. A connection
there, unlike one from outside, goes through a freeze.
"""

from __future__ import annotations

import contextlib
import socket


class Stream:
    """The host's end."""

    def __init__(self) -> None:
        self._end: socket.socket | None = None

    def open(self) -> socket.socket:
        """QEMU's end."""
        self._end, far = socket.socketpair()
        return far

    def drain(self) -> None:
        """Forget what has come and was not received."""
        assert self._end is not None
        self._end.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._end.recv(1 << 16):
                pass
        self._end.setblocking(True)

    def copy(self) -> socket.socket:
        """The same for one client, whose end does not end the connection."""
        assert self._end is not None
        return self._end.dup()

    def close(self) -> None:
        if self._end is not None:
            self._end.close()
