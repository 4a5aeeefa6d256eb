# SPDX-License-Identifier: GPL-2.0-only
"""Every error the harness raises on purpose.

One root, and one class for each decision a caller can take. Each error is a few
sentences for a person: what happened, why, and what to do next. Faults of the host
(``HostError``), of the person's input (``InputError``), of the module under test
(``BuildError``) and of the guest (``GuestError``, ``MachineError``) are different
classes, so that no test is ever blamed for a full disk.
"""

from __future__ import annotations

import enum
import errno
import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.host import text

FULL = (errno.ENOSPC, errno.EDQUOT)
MORE_SPACE = "free some space, or point EUDYPTULA_CACHE to a folder on a larger disk"


class Status(enum.IntEnum):
    """The exit statuses of every task, and of ./bootstrap."""

    GREEN = 0
    RED = 1  # a test failed, a module does not build, a kernel does not boot
    INPUT = 2  # what was asked for cannot be done: an option, a name, a file
    HOST = 3  # the host lacks something, or has killed something; nothing is known of the kernel
    OURS = 70  # a fault of the harness or of its tests' process (EX_SOFTWARE of sysexits.h)
    INTERRUPTED = 130  # by Ctrl-C or SIGTERM (128 + SIGINT, as shells have it)


class HarnessError(Exception):
    """Something the harness knows how to explain.

    ``what`` is the sentence; ``hint`` says what to do; ``command``, ``status``,
    ``tail`` (last lines of output) and ``log`` are the evidence, where there is any.
    ``exit_status`` is what a task that ends with this error exits with.

    All of it may quote what a program, a guest or somebody's folder has said. It is made
    printable and cut here, and nowhere else (``harness.host.text``).
    """

    exit_status = Status.RED

    def __init__(
        self,
        what: str,
        *,
        hint: str = "",
        command: Sequence[str] = (),
        status: int | None = None,
        tail: str = "",
        log: Path | None = None,
    ) -> None:
        self.what = text.beginning(what)
        super().__init__(self.what)
        self.hint = text.beginning(hint)
        self.command = tuple(command)
        self.status = status
        self.tail = text.end(tail)
        self.log = log

    def __str__(self) -> str:
        parts = [self.what]
        if self.command:
            ended = "" if self.status is None else f" (exit status {self.status})"
            parts.append(f"command: {text.beginning(shlex.join(self.command))}{ended}")
        if self.tail:
            parts.append(self.tail.rstrip())
        if self.log is not None:
            parts.append(f"log: {text.printable(str(self.log))}")
        if self.hint:
            parts.append(f"What to do: {self.hint}")
        return "\n".join(parts)


class InputError(HarnessError):
    """What was asked for cannot be done as asked: an option, a file, a name."""

    exit_status = Status.INPUT


class HostError(HarnessError):
    """The host lacks something; no module and no kernel is to blame."""

    exit_status = Status.HOST


class OwnFaultError(HarnessError):
    """What must not happen has happened: nothing is known of the host or of the kernel."""

    exit_status = Status.OURS


class MissingToolError(HostError):
    """A program that the harness needs is not installed, or is too old."""


class NetworkError(HostError):
    """A mirror could not be reached, and what is asked for is not in the cache."""


class GoneError(InputError):
    """The archive has no such package, or not that version of it (any more)."""


class SpaceError(HostError):
    """The disk (or the quota) is full."""


class CommandError(HarnessError):
    """A host command failed."""


class DeadlineError(HarnessError):
    """Something on the host took longer than its deadline."""


class BuildError(HarnessError):
    """The module does not compile; ``tail`` has the compiler's own words."""


class NotForKernelError(InputError):
    """The module says itself that it is not for this kernel; that is no fault of anybody's."""


class KernelBuildError(HarnessError):
    """A kernel does not compile; ``tail`` has the compiler's own words."""


class SandboxError(HarnessError):
    """What ran in a sandbox used more than it may, or left what is not taken."""


class MachineError(HarnessError):
    """QEMU ended, or does not answer."""


class BootError(MachineError):
    """The kernel did not come up; ``tail`` has the end of its console."""


class ConsoleSilent(MachineError):
    """The guest answers, and what its kernel logs does not reach the console.

    ``taint`` are the kernel's taint flags.
    """

    taint = 0


class StateError(MachineError):
    """QEMU cannot write a machine's state, or does not take one back that was written."""


class MachineFault(HostError, MachineError):
    """QEMU could not start, or ended in a way in which no guest can make it end.

    Such as by a signal of the host. No kernel and no module is to blame, so that this is a
    ``HostError`` too.
    """


class GuestError(HarnessError):
    """What runs in the guest misbehaved."""


class CommandFailed(GuestError):
    """A command in the guest ended with another status than 0."""


class CommandTimeout(GuestError):
    """A command in the guest did not end in time."""


class GuestBusy(GuestError):
    """A guest whose time should have passed in its sleep does not sleep."""


class GuestLost(GuestError):
    """The guest does not answer over SSH any more."""


def refused(error: OSError, doing: str, more_space: str = MORE_SPACE) -> HostError:
    """The error for what the system has refused; ``doing`` begins the sentence.

    ``more_space`` says what to do where it was a full disk; by default, the cache's.
    """
    what = f"{doing} failed: {error}"
    return SpaceError(what, hint=more_space) if error.errno in FULL else HostError(what)
