# SPDX-License-Identifier: GPL-2.0-only
"""Access for debuggers to a machine: a socket for gdb, registers, memory."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import MachineError
from harness.host.proc import Deadline
from harness.qemu import kdump
from harness.qemu.argv import escaped
from harness.qemu.process import Process
from harness.qemu.qmp import Monitor


@contextmanager
def private_socket() -> Iterator[Path]:
    """A path for gdb's socket, in a folder that only this user may enter (mode 0700).

    Not below the cache, whose path may be longer than the 107 bytes that a socket's may have
    (unix(7)).
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    own = base if os.path.isdir(base) else None
    with tempfile.TemporaryDirectory(prefix="eudyptula-", dir=own) as folder:
        yield Path(folder, "gdb")


class Debugger:
    """Looks into one machine."""

    def __init__(self, process: Process, monitor: Monitor) -> None:
        self._process = process
        self._monitor = monitor

    def listen(self, path: Path, deadline: Deadline) -> None:
        """Have QEMU wait for gdb on a Unix socket.

        ``path`` is to be in a folder that is the user's alone. It is no TCP port, because gdb's
        `monitor` reaches QEMU's own command line, which can start programs, and anybody on this
        host may connect to a port.
        """
        line = f"gdbserver unix:{escaped(path)},server=on,wait=off"
        said = self._monitor.human(line, deadline)
        if "Waiting for gdb connection" not in said:
            raise MachineError(f"QEMU does not open a socket for gdb: {said.strip()}")

    def registers(self, deadline: Deadline) -> str:
        """The registers of all virtual CPUs, as QEMU prints them."""
        return self._monitor.human("info registers -a", deadline)

    def dump(self, path: Path, deadline: Deadline) -> None:
        """Write the guest's memory to a file that crash(8) and drgn read (kdump, zlib)."""
        self._process.limit_files(resource.RLIM_INFINITY)
        flat = path.with_name(f"{path.name}.flat")
        try:
            self._monitor.execute(
                "dump-guest-memory", deadline, paging=False, protocol=f"file:{flat}",
                format="kdump-zlib",
            )  # fmt: skip
            kdump.assemble(flat, path)
        except (MachineError, OSError):
            path.unlink(missing_ok=True)  # half of it is of no use
            raise
        finally:
            flat.unlink(missing_ok=True)
