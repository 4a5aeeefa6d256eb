# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/stub.py: what is said to QEMU's debugger, with somebody else at its end."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.host.proc import Deadline
from harness.qemu.stub import Stub

SECONDS = 20.0


def packet(data: str) -> bytes:
    return f"${data}#{sum(data.encode()) & 0xFF:02x}".encode()


class Other:
    """QEMU's end. ``answers`` takes a packet's data, and returns what is sent for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[str] = []
        self.answers: Callable[[str], bytes] = lambda _: packet("OK")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as stream:
            came = b""
            while more := stream.recv(4096):
                came += more
                while found := re.search(rb"\$([^#]*)#([0-9a-f]{2})", came):
                    came = came[found.end() :]
                    data = found[1].decode()
                    assert found[0] == packet(data)
                    self.asked.append(data)
                    # As QEMU does with a machine that ran: it also says that it has stopped.
                    said = packet("T05thread:01;") + packet("PacketSize=1000")
                    said = said if data == "qSupported" else self.answers(data)
                    if said == b"end":
                        return
                    stream.sendall(b"+" + said[:3])
                    stream.sendall(said[3:])

    def close(self) -> None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    made = Other(tmp_path / "gdb")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def stub(other: Other) -> Iterator[Stub]:
    with Stub(other.path, Deadline(SECONDS)) as made:
        yield made


def test_that_it_has_stopped_is_no_answer(stub: Stub, other: Other) -> None:
    """Not to a later question."""
    stub.break_at(0xFFFFFFFF8118CE50, Deadline(SECONDS))
    stub.unbreak(0xFFFFFFFF8118CE50, Deadline(SECONDS))
    assert other.asked == ["qSupported", "Z1,ffffffff8118ce50,1", "z1,ffffffff8118ce50,1"]


def test_it_runs_until_it_stops(stub: Stub, other: Other) -> None:
    """And one that goes on running is no error."""
    other.answers = lambda asked: b"" if asked == "c" else packet("T05thread:01;")
    stub.resume()
    assert not stub.stopped(Deadline(0.01))
    stub.step(Deadline(SECONDS))
    assert other.asked[1:] == ["c", "s"]


def test_the_first_argument_is_in_rdi(stub: Stub, other: Other) -> None:
    """The sixth of the registers, its lowest byte first."""
    values = [0] * 5 + [0xFFFFFFFFC0248100] + [0] * 10
    said = b"".join(value.to_bytes(8, "little") for value in values).hex()
    other.answers = lambda _: packet(said)
    assert stub.first_argument(Deadline(SECONDS)) == 0xFFFFFFFFC0248100


def test_memory_comes_in_parts(stub: Stub, other: Other) -> None:
    """QEMU's packets are small."""

    def answer(asked: str) -> bytes:
        address, size = (int(each, 16) for each in asked[1:].split(","))
        return packet(bytes((address + at) & 0xFF for at in range(size)).hex())

    other.answers = answer
    assert stub.memory(0, 4500, Deadline(SECONDS)) == bytes(at & 0xFF for at in range(4500))
    assert other.asked[1:] == ["m0,7d0", "m7d0,7d0", "mfa0,1f4"]


def test_memory_that_is_not_mapped_is_none(stub: Stub, other: Other) -> None:
    """QEMU answers with an error."""
    other.answers = lambda _: packet("E14")
    assert stub.memory(0, 8, Deadline(SECONDS)) is None


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (b"end", "closed its debugger's connection"),
        (packet("E22"), "cannot set a breakpoint"),
        (packet(""), "cannot set a breakpoint"),
    ],
)
def test_what_cannot_be_done_is_said(stub: Stub, other: Other, said: bytes, match: str) -> None:
    """With what it was to do."""
    other.answers = lambda _: said
    with pytest.raises(MachineError, match=match):
        stub.break_at(1, Deadline(SECONDS))


def test_who_is_second_is_told_so(tmp_path: Path) -> None:
    """QEMU has one client; the next one waits."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "gdb"))
        listener.listen()
        with pytest.raises(MachineError, match="is gdb there already"):
            Stub(tmp_path / "gdb", Deadline(0.1))
