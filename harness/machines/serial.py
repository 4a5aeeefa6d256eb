# SPDX-License-Identifier: GPL-2.0-only
"""The guest of a machine that is recorded: commands over its serial port instead of SSH.

What comes over a network cannot be replayed (``argv.RecordReplay``), what comes over the serial
port can. vm/agent starts the commands there. The classes here have of paramiko's what ``Guest`` and
``Running`` use, so that a test does not notice.
"""

from __future__ import annotations

import hashlib
import itertools
import shlex
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote_to_bytes

from harness.errors import HostError, MachineError
from harness.host.proc import Deadline
from harness.machines.guest import COMMAND_SECONDS, DeadlineFactory, Guest
from harness.qemu import Machine

if TYPE_CHECKING:
    from harness.machines.session import Transport

# What need not be quoted in an order: all that is printed, but % and white space.
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
_PIECE = 1024  # bytes that are given to a command at a time
_DROP_SECONDS = 5.0  # for a guest that may be stuck


class SerialTransport:
    """Starts commands in the guest, and hands on what vm/agent tells of them."""

    def __init__(self, machine: Machine, patience: DeadlineFactory = Deadline) -> None:
        assert machine.paced is not None
        self._machine = machine
        self._patience = patience
        self._channels: dict[str, SerialChannel] = {}
        self._numbers = itertools.count(1)
        machine.paced.on_stream = self._heard

    def begin(self, command: str, timeout: float) -> SerialChannel:
        """Start a command, within so many seconds; ``OSError`` if the guest is gone."""
        name = str(next(self._numbers))
        channel = self._channels[name] = SerialChannel(self, name)
        self.order(f"run {name} {quote(command, safe=_PLAIN)}", "running", timeout)
        return channel

    def order(self, text: str, answer: str, timeout: float) -> None:
        """One order to vm/agent; ``OSError`` if there is no answer."""
        try:
            self._machine.agent.order(text, answer, self._patience(timeout))
        except HostError:
            raise
        except MachineError as error:
            raise ConnectionResetError(error.what) from error

    def forget(self, name: str) -> None:
        """Hear no more of a command."""
        self._channels.pop(name, None)

    def close(self) -> None:
        """End all channels; nothing is said to the guest, which may be dead."""
        for channel in list(self._channels.values()):
            channel.end()

    def _heard(self, line: str) -> None:
        """A line from vm/agent: ~ID WHAT DATA. Anybody in the guest can write there."""
        name, what, data = (*line[1:].split(" "), "", "")[:3]
        channel = self._channels.get(name)
        if channel is not None:
            channel.heard(what, data)


class _Stream:
    """What has come and was not taken."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._lock = threading.Lock()
        self._event = threading.Event()

    def set_event(self, event: threading.Event) -> None:
        """Have ``event`` set when something comes, and at the end."""
        self._event = event
        if self._data:
            event.set()

    def put(self, data: bytes) -> None:
        with self._lock:
            self._data += data
        self._event.set()

    def take(self, count: int) -> bytes:
        with self._lock:
            taken = bytes(self._data[:count])
            del self._data[:count]
        return taken

    def end(self) -> None:
        self._event.set()

    def __len__(self) -> int:
        return len(self._data)


class SerialChannel:
    """A command in the guest; the methods are those of ``paramiko.Channel``."""

    def __init__(self, transport: SerialTransport, name: str) -> None:
        self.in_buffer = _Stream()
        self.in_stderr_buffer = _Stream()
        self.status_event = threading.Event()
        self.eof_received = False
        self.closed = False
        self._transport = transport
        self._name = name
        self._status = -1

    def heard(self, what: str, data: str) -> None:
        """The messages of vm/agent about the command."""
        if what == "out":
            self.in_buffer.put(unquote_to_bytes(data))
        elif what == "err":
            self.in_stderr_buffer.put(unquote_to_bytes(data))
        elif what == "eof":
            self.eof_received = True
        elif what == "exit" and data.removeprefix("-").isdecimal():
            self._status = int(data)
            self.status_event.set()
        for stream in (self.in_buffer, self.in_stderr_buffer):
            stream.end()

    def end(self) -> None:
        """Nothing more comes."""
        self.closed = True
        self.status_event.set()
        for stream in (self.in_buffer, self.in_stderr_buffer):
            stream.end()

    def exit_status_ready(self) -> bool:
        return self.closed or self.status_event.is_set()

    def recv_exit_status(self) -> int:
        self.status_event.wait()
        return self._status

    def recv_ready(self) -> bool:
        return len(self.in_buffer) > 0

    def recv_stderr_ready(self) -> bool:
        return len(self.in_stderr_buffer) > 0

    def recv(self, count: int) -> bytes:
        return self.in_buffer.take(count)

    def recv_stderr(self, count: int) -> bytes:
        return self.in_stderr_buffer.take(count)

    def settimeout(self, seconds: float) -> None:
        """Nothing: vm/agent takes what is sent, whether the command reads it or not."""

    def send(self, data: bytes) -> int:
        if self.closed:
            raise OSError("the channel is closed")
        piece = data[:_PIECE]
        self._transport.order(
            f"feed {self._name} {quote(piece, safe=_PLAIN)}", "fed", COMMAND_SECONDS
        )
        return len(piece)

    def shutdown_write(self) -> None:
        if not self.closed:
            self._transport.order(f"end-input {self._name}", "ended-input", COMMAND_SECONDS)

    def close(self) -> None:
        """Hear no more of the command; it may live on, and ends with the guest."""
        if self.closed:
            return
        over = self.eof_received and self.status_event.is_set()  # vm/agent has forgotten it
        self.end()
        self._transport.forget(self._name)
        if not over:
            self._transport.order(f"drop {self._name}", "dropped", _DROP_SECONDS)


class SerialGuest(Guest):
    """``Guest``, over the serial port of a machine that is recorded.

    ``carried``: files that the guest has from the start, by the digest of their content. The
    serial port takes some 2 KB a second, so that a module would take minutes.
    """

    def __init__(self, machine: Machine, carried: Mapping[str, str]) -> None:
        transport = SerialTransport(machine, machine.patience)
        super().__init__(cast("Transport", transport), machine.patience)
        self._carried = carried

    def put(self, source: Path | str | bytes, target: str, *, mode: int = 0o644) -> None:
        """See ``Guest.put``."""
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        there = self._carried.get(digest(data))
        if there is None:
            super().put(data, target, mode=mode)
            return
        path = shlex.quote(target)
        self.check(f"cat {there} >{path} && chmod {mode:o} {path}")


def digest(data: bytes) -> str:
    """By what a file that the guest carries is known."""
    return hashlib.sha256(data).hexdigest()
