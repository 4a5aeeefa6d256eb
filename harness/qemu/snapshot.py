# SPDX-License-Identifier: GPL-2.0-only
"""A machine's state: written to a file, and loaded from it into another QEMU."""

from __future__ import annotations

import re
import resource
import shlex
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from harness.errors import MachineFault, StateError
from harness.host.proc import Deadline
from harness.qemu.argv import check_version
from harness.qemu.process import Process, no_space
from harness.qemu.qmp import Event, Monitor


class Snapshot:
    """Saves and loads one machine."""

    def __init__(self, process: Process, monitor: Monitor) -> None:
        self._process = process
        self._monitor = monitor

    def set_capabilities(self, deadline: Deadline, *, whole: bool = False) -> None:
        """Ask for what saving and loading needs; raises ``MachineError`` where QEMU lacks it.

        ``x-ignore-shared`` leaves memory that is a shared file out of the stream.
        """
        states = {"x-ignore-shared": not whole, "events": True}
        wanted = [{"capability": name, "state": state} for name, state in states.items()]
        self._monitor.execute("migrate-set-capabilities", deadline, capabilities=wanted)

    def save(self, path: Path, deadline: Deadline, *, whole: bool = False) -> None:
        """Stop the machine and write its state to a file, but for memory that is a shared file.

        That too if the ``whole`` is wanted.
        """
        self.set_capabilities(deadline, whole=whole)
        self._process.limit_files(resource.RLIM_INFINITY)
        self._monitor.execute("stop", deadline)
        # In bytes a second; the default is made for networks.
        self._monitor.execute("migrate-set-parameters", deadline, **{"max-bandwidth": 10 << 30})
        since = len(self._monitor.events)
        # QEMU has file: since 8.2 only, and exec: takes a shell's line.
        self._monitor.execute("migrate", deadline, uri=f"exec:cat > {shlex.quote(str(path))}")
        self._await_migration(since, path.parent, deadline)

    def save_devices(self, path: Path, origin: Path, deadline: Deadline) -> None:
        """Stop the machine and write the state of everything but memory, for ``load`` (``whole``).

        ``origin`` is a state that ``save`` has written of a machine of the same shape. Takes some
        milliseconds, whatever the size of the machine.
        """
        self._monitor.execute("stop", deadline)
        self._monitor.execute("xen-save-devices-state", deadline, filename=str(path))
        with origin.open("rb") as file:
            path.write_bytes(with_configuration(path.read_bytes(), file.read(_HEADER_BYTES)))

    def load(
        self, path: Path, deadline: Deadline, *, whole: bool = False, counting: bool = False
    ) -> None:
        """Load what ``save`` has written into a machine that was started for that.

        ``counting``: this machine counts instructions (``Wiring.ahead``). Raises ``StateError``
        where QEMU does not take the state.
        """
        self.set_capabilities(deadline, whole=whole)
        if check_version() >= (8, 2) and not counting:
            uri = f"file:{path}"
        else:  # a descriptor that is sent over the monitor's socket
            with ExitStack() as opened:
                if counting:
                    file: IO[bytes] = opened.enter_context(tempfile.TemporaryFile(dir=path.parent))
                    file.write(with_counted_time(path.read_bytes()))
                    file.seek(0)
                else:
                    file = opened.enter_context(path.open("rb"))
                self._monitor.send_descriptor(file.fileno())
                self._monitor.execute("getfd", deadline, fdname="state")
            uri = "fd:state"
        try:
            self._monitor.execute("migrate-incoming", deadline, uri=uri)
            self._await_migration(0, path.parent, deadline)
        except MachineFault as fault:
            # process_incoming_migration_co() in migration/migration.c ends QEMU when a state does
            # not fit. That is no signal, and says something of the state rather than of the host.
            if "load of migration failed" in fault.tail:
                raise StateError("QEMU does not take the saved state", tail=fault.tail) from fault
            raise

    def resume(self, deadline: Deadline) -> None:
        """Let a machine run on that was saved."""
        self._process.limit_files()
        # The event that all is written comes a moment before QEMU has done with it (qmp_cont() in
        # monitor/qmp-cmds.c refuses until then), and nothing tells of that.
        while self._monitor.execute("query-status", deadline)["status"] == "finish-migrate":
            time.sleep(0.001)
        self._monitor.execute("cont", deadline)

    def _await_migration(self, since: int, folder: Path, deadline: Deadline) -> None:
        """Until QEMU has written or read a state in ``folder``."""
        event = self._monitor.await_event(
            lambda event: (
                event["event"] == "MIGRATION" and _status(event) in ("completed", "failed")
            ),
            deadline,
            "saving or loading the machine's state",
            since=since,
        )
        if _status(event) == "failed":
            if (full := no_space(folder)) is not None:
                raise MachineFault(
                    f"the machine's state is not written: {full.what}", hint=full.hint
                )
            told = self._monitor.execute("query-migrate", deadline)
            raise StateError("QEMU could not save or load the machine's state", tail=str(told))


# From QEMU's migration/savevm.c (QEMU_VM_*): a state begins with a magic number and a version, four
# bytes each. The section of this type comes first, and is the name of the machine's type with its
# length in four bytes before it, both big-endian.
_CONFIGURATION = 7
_HEADER_BYTES = 4096  # of a state, in which its configuration section is


def with_configuration(devices: bytes, origin: bytes) -> bytes:
    """A state of devices, with the section that xen-save-devices-state leaves out.

    QEMU does not load a state without it. ``origin`` is the beginning of a state that has it.
    Raises ``StateError`` where that is not so.
    """
    length = int.from_bytes(origin[9:13], "big")
    section = origin[8 : 13 + length]
    if origin[:8] != devices[:8] or section[:1] != bytes([_CONFIGURATION]) or length > 256:
        raise StateError("QEMU writes states in a format that is not known")
    return devices[:8] + section + devices[8:]


# From QEMU's cpu-timers.c (vmstate_timers; in softmmu/, later in system/, the same in both) and
# migration/savevm.c: the section's header has
# its type (QEMU_VM_SECTION_FULL) and its number, then come its name with the length before it, its
# instance and its version. It holds where the processor's counter stood, eight bytes of nothing,
# and where the clock of the devices stood, in nanoseconds.
_TIMER = re.compile(
    rb"\x04.{4}\x05timer\0\0\0\0\0\0\0\x02.{8}\0{8}(?P<clock>.{8})(?P<next>[\x05\x7e])", re.DOTALL
)
# Where QEMU counts instructions this follows (icount_vmstate_timers): the type
# QEMU_VM_SUBSECTION, a name, the version, a clock in nanoseconds, and instructions since.
_COUNTED = b"\x05\x0ctimer/icount\0\0\0\1%b\0\0\0\0\0\0\0\0"


def with_counted_time(state: bytes) -> bytes:
    """A state for a QEMU that counts instructions, whether the one that wrote it did or not.

    A state of one that did not lacks a section, and without it the clock of the devices starts from
    zero. Timers that are set would be late by as much as the machine is old. Raises ``StateError``
    where the state has another format.
    """
    found = _TIMER.search(state)
    if found is None:
        raise StateError("QEMU writes states in a format that is not known")
    if found["next"] == _COUNTED[:1]:
        return state
    end = found.start("next")
    return state[:end] + _COUNTED % found["clock"] + state[end:]


def _status(event: Event) -> str:
    data = event["data"]
    assert isinstance(data, dict)
    return str(data["status"])
