# SPDX-License-Identifier: GPL-2.0-only
"""The names for people who write tests, in this repository or in another one.

These names, and what docs/writing-tests.md says of them, stay as they are. Everything else in
harness/ may change without notice. Nothing here imports pytest: the fixtures, the markers and the
options come from the plugin, which pytest finds by itself where this package is installed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from harness.build.module import Module
from harness.errors import (
    BuildError,
    CommandFailed,
    CommandTimeout,
    GuestBusy,
    GuestError,
    GuestLost,
    HarnessError,
    HostError,
    MachineError,
)
from harness.lab import Lab
from harness.machines.clone import Clone
from harness.machines.guest import CommandResult, Guest, Passed, Running
from harness.report.ktap import KtapTest

__all__ = [
    "BuildError",
    "Clone",
    "CommandFailed",
    "CommandResult",
    "CommandTimeout",
    "ExpectSplat",
    "Guest",
    "GuestBusy",
    "GuestError",
    "GuestLost",
    "HarnessError",
    "HostError",
    "KtapTest",
    "Lab",
    "MachineError",
    "Module",
    "Passed",
    "RunKtap",
    "Running",
]


class RunKtap(Protocol):
    """What the fixture ``run_ktap`` is."""

    def __call__(
        self, guest: Guest, command: str, *, timeout: float = 30.0, user: str = "root"
    ) -> tuple[KtapTest, ...]:
        """Run a command in the guest that prints KTAP or TAP, and return the tests it has run.

        Each is a subtest of this test, red if it failed. The test itself is red where the output
        is not whole: no test, fewer than were planned, or a status that no failed test explains.
        ``timeout`` is in seconds.
        """


class ExpectSplat(Protocol):
    """What the fixture ``expect_splat`` is."""

    def __call__(
        self, kind: str, function: str | None = None, *, guest: Guest | None = None
    ) -> AbstractContextManager[None]:
        """Expect one report of the kernel while the block runs; without it the test fails.

        ``kind`` is a word of docs/verdicts.md (``klog.Kind``). With ``function``, only a report
        in this function of the kernel or of the module is meant. ``guest`` says which machine is
        meant, in a test that has several; without it, such a test gets an ``InputError``.
        """
