# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's process: how it is started, how it ended, and what it said.

It knows nothing of the monitor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import FULL, MORE_SPACE, MachineError, MachineFault, SpaceError
from harness.host import proc
from harness.host.proc import Deadline
from harness.qemu.console import Console

T = TypeVar("T")


class Process:
    """One QEMU. ``ended`` is set in the event loop when it is gone.

    ``panicked`` says whether the guest has: such a QEMU stays.
    """

    def __init__(self, folder: Path, console: Console, panicked: Callable[[], bool]) -> None:
        """Nothing is started yet; what QEMU says goes to a file in ``folder``."""
        self.folder = folder
        self.ended: asyncio.Event
        self._console = console
        self._panicked = panicked
        self._log = folder / "qemu.log"
        self._child: proc.Child | None = None
        self._killed = False  # by ``kill``, which is nobody's fault
        self._no_space: SpaceError | None = None
        self._pidfd = -1

    def start(self, command: Sequence[str], descriptors: Sequence[int]) -> None:
        """Start QEMU, which gets the ``descriptors`` that its command line names."""
        with self._log.open("wb") as said:
            self._child = proc.popen(command, stderr=said, stdout=said, pass_fds=descriptors)

    async def watch(self) -> None:
        """Have ``ended`` set when it ends."""
        self.ended = asyncio.Event()
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self.ended.set)

    async def unwatch(self) -> None:
        """Undo ``watch``."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    async def unless_ended(
        self, work: Coroutine[Any, Any, T], *ends: Coroutine[Any, Any, object]
    ) -> T | None:
        """The result of ``work``, or None if QEMU or one of ``ends`` comes to its end before."""
        task = asyncio.ensure_future(work)
        others = [asyncio.ensure_future(one) for one in (self.ended.wait(), *ends)]
        try:
            await asyncio.wait([task, *others], return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for each in (task, *others):
                each.cancel()

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the process exists (not whether the guest is well)."""
        return self._child is not None and self._child.poll() is None

    def state(self) -> str:
        """The state of QEMU's process in words, such as "T (stopped)" (proc_pid_status(5))."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            if found := re.search(r"^State:\s*(.*)$", status, re.MULTILINE):
                return f"state {found[1]}"
        return "its process is gone"

    def limit_files(self, size: int | None = None) -> None:
        """Have what QEMU writes to a file beyond ``size`` bytes, or the console's limit, fail.

        SIGXFSZ, which comes with that, is blocked in the threads of virtual CPUs; QEMU may
        also end by it, which is no worse: either way ``Console.full`` is the reason.
        """
        with contextlib.suppress(ProcessLookupError):  # it has ended: others say so
            soft = self._console.limit if size is None else size
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))

    def look_for_space(self) -> bool:
        """Whether QEMU can write; it is ended if it cannot.

        QEMU does not tell of a write that has failed. What the guest says from then on is lost,
        so nobody should wait for it.
        """
        self._no_space = no_space(self.folder)
        if self._no_space is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        return self._no_space is None

    def wait(self, deadline: Deadline | None = None) -> None:
        """Until it has ended by itself."""
        assert self._child is not None
        try:
            self._child.wait(deadline.left if deadline else None)
        except subprocess.TimeoutExpired:
            raise MachineError("QEMU does not end when asked to") from None

    def kill(self) -> None:
        """End it. A machine has nothing to save, so it is simply killed."""
        if self._child is not None:
            self._killed = self._killed or self._child.poll() is None
            proc.kill(self._child)

    @property
    def host_fault(self) -> MachineFault | None:
        """The error for a QEMU that has ended in a way in which no guest can make it end.

        A guest that powers off or restarts ends it with status 0.
        """
        status = self._child.poll() if self._child is not None else None
        if not status or self._killed:
            return None
        return self._fault(f"QEMU {how_ended(status)}", status)

    def died(self, what: str) -> MachineError:
        """The error for a QEMU that has closed its connections; ``what`` says when."""
        status = self.ending()
        if status:
            return self._fault(f"{what}: it {how_ended(status)}", status)
        return MachineError(what, status=status, tail=self.last_words())

    def ending(self) -> int | None:
        """The exit status of a QEMU that has closed its connections; None if it stays."""
        if self._child is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(0 if self._panicked() else 2)
        return None

    def _fault(self, what: str, status: int) -> MachineFault:
        full = self._no_space or no_space(self.folder)
        if full is not None:
            return MachineFault(full.what, status=status, tail=self.last_words(), hint=full.hint)
        hint = ""
        if status == -signal.SIGKILL:
            hint = "`dmesg` of this host says whether it has run out of memory; then run this again"
        tail = self.last_words()
        if printed := self._console.tail():
            tail += f"\nend of the guest's console:\n{printed}"
        return MachineFault(what, status=status, tail=tail.strip(), hint=hint)

    def last_words(self) -> str:
        """What QEMU has written to its standard error."""
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace").strip()
        return ""


def how_ended(status: int) -> str:
    """How a process has ended, in words; ``status`` is as in ``subprocess``."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-status}"


_ROOM = 64 << 20  # bytes; where so much is free, nothing that is written here fails
_PROBE = 1 << 16  # bytes


def no_space(folder: Path, *, quota: bool = False) -> SpaceError | None:
    """The error for a disk on which no more can be written, or None.

    ``quota``: also look for a quota that is used up, which costs a write.
    """
    try:
        if not quota and shutil.disk_usage(folder).free > _ROOM:
            return None
        # Only a write tells: what is free may be kept for root, and a quota shows nowhere.
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            if file.write(bytes(_PROBE)) == _PROBE:
                return None
    except OSError as error:
        if error.errno not in FULL:
            return None
    return SpaceError(f"no space left in {folder.parent}", hint=MORE_SPACE)
