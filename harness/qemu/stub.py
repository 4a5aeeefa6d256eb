# SPDX-License-Identifier: GPL-2.0-only
"""A client of QEMU's gdb stub, for where the harness itself is the debugger.

gdb's remote protocol (gdb's manual, appendix "gdb Remote Serial Protocol"), as far as it takes to
stop a machine at an address and to look at it there. A packet is ``$DATA#SUM``; the other side
answers ``+`` and then with a packet of its own.
"""

from __future__ import annotations

import socket
from pathlib import Path

from harness.errors import MachineError
from harness.host.proc import Deadline

# QEMU takes no packet of more than 4096 bytes (MAX_PACKET_LENGTH in its gdbstub), in which a byte
# of memory is two digits.
_AT_ONCE = 2000
_RDI = 5  # which of the 64-bit registers in the answer to g: rax, rbx, rcx, rdx, rsi, rdi


class Stub:
    """A connection to QEMU's gdb stub. While there is one the machine stands, unless told to run.

    When it is closed the machine stays as it is, and another debugger may connect.
    """

    def __init__(self, path: Path, deadline: Deadline) -> None:
        """Connect to ``Debugger.listen``'s socket, which stops the machine.

        Raises ``OSError`` where nobody listens there.
        """
        self._stream = socket.socket(socket.AF_UNIX)
        self._came = bytearray()
        try:
            self._stream.settimeout(max(0.1, deadline.left))
            self._stream.connect(str(path))
            # A machine that ran says by itself that it has stopped. What comes before the answer to
            # this question is no answer to any later one.
            said = self.ask("qSupported", deadline)
            while not said.startswith("PacketSize="):
                said = self._receive(deadline)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what one wants of a machine -----------------------------------------------

    def break_at(self, address: int, deadline: Deadline) -> None:
        """Have the machine stop before it runs the instruction at a virtual address."""
        self._done(self.ask(f"Z1,{address:x},1", deadline), "set a breakpoint")

    def unbreak(self, address: int, deadline: Deadline) -> None:
        """Take back ``break_at``."""
        self._done(self.ask(f"z1,{address:x},1", deadline), "remove a breakpoint")

    def resume(self) -> None:
        """Let the machine run; ``stopped`` says when it stands again."""
        self._send("c")

    def stopped(self, deadline: Deadline) -> bool:
        """Wait until a machine that was resumed has stopped; False if ``deadline`` is over."""
        try:
            said = self._receive(deadline)
        except TimeoutError:
            return False
        if said[:1] not in ("T", "S"):
            raise MachineError(f"QEMU's debugger says {said[:40]!r} where a machine has stopped")
        return True

    def step(self, deadline: Deadline) -> None:
        """Let the machine run one instruction, as it has to where a breakpoint was met."""
        self._send("s")
        if not self.stopped(deadline):
            raise MachineError("QEMU's debugger does not end a step")

    def let_go(self, deadline: Deadline) -> None:
        """Let the machine run on with no debugger."""
        self._done(self.ask("D", deadline), "let the machine go on")

    def first_argument(self, deadline: Deadline) -> int:
        """At the beginning of a function: its first argument (rdi in the kernel's calls)."""
        registers = self._bytes(self.ask("g", deadline))
        if len(registers) < 8 * (_RDI + 1):
            raise MachineError("QEMU's debugger does not say what is in the registers")
        return int.from_bytes(registers[8 * _RDI : 8 * (_RDI + 1)], "little")

    def memory(self, address: int, size: int, deadline: Deadline) -> bytes | None:
        """``size`` bytes from a virtual address on; None where that is not mapped."""
        found = b""
        while len(found) < size:
            wanted = min(_AT_ONCE, size - len(found))
            said = self.ask(f"m{address + len(found):x},{wanted:x}", deadline)
            if said.startswith("E"):
                return None
            part = self._bytes(said)
            if not part:
                return None
            found += part
        return found

    # -- packets -------------------------------------------------------------------

    def ask(self, data: str, deadline: Deadline) -> str:
        """Send a packet and return the one that answers it."""
        self._send(data)
        try:
            return self._receive(deadline)
        except TimeoutError as error:
            raise MachineError(
                "QEMU's debugger does not answer", hint="it has one client: is gdb there already?"
            ) from error

    def _send(self, data: str) -> None:
        packet = data.encode("ascii")
        self._stream.sendall(b"$%b#%02x" % (packet, sum(packet) & 0xFF))

    def _receive(self, deadline: Deadline) -> str:
        while True:
            start, end = self._came.find(b"$"), self._came.find(b"#")
            if 0 <= start < end and len(self._came) >= end + 3:
                data = bytes(self._came[start + 1 : end])
                del self._came[: end + 3]
                self._stream.sendall(b"+")
                return data.decode("ascii", "replace")
            self._stream.settimeout(max(0.001, deadline.left))
            more = self._stream.recv(1 << 14)
            if not more:
                raise MachineError("QEMU has closed its debugger's connection")
            self._came += more

    @staticmethod
    def _bytes(said: str) -> bytes:
        try:
            return bytes.fromhex(said)
        except ValueError as error:
            raise MachineError(f"QEMU's debugger says {said[:40]!r} where memory is") from error

    @staticmethod
    def _done(said: str, what: str) -> None:
        if said != "OK":
            raise MachineError(f"QEMU cannot {what} ({said[:40]!r})")
