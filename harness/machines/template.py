# SPDX-License-Identifier: GPL-2.0-only
"""A template: a machine that was booted once and frozen, to be cloned as often as wanted.

harness/machines/freeze.py makes templates, harness/machines/clone.py makes machines of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.build.image import Keys
from harness.host.cache import Entry
from harness.machines.session import Session
from harness.qemu import MachineSpec
from harness.qemu.counts import Counter

# What is done to a clone of a template (a clone.Clone) to derive another one. It returns facts.
SetUp = Callable[[Any], Mapping[str, object]]

SESSION = "session"  # the file with a session.Session

COUNTS = "counts"  # the file with what ran of modules while a template was derived

BOOT_SECONDS = 240.0  # a debug kernel without an accelerator takes a minute or more
# How many seconds of processor time Debian's 6.12 cloud kernel takes to boot, without KVM, on a
# host for which the harness's time limits are made.
USUAL_BOOT_SECONDS = 6.0


@dataclass(frozen=True)
class Counting:
    """That machines count which code of modules runs: by ``plugin``, in files in ``folder``."""

    plugin: Path
    folder: Path

    def counter(self) -> Counter:
        """For one more machine."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return Counter(self.plugin, self.folder / f"{secrets.token_hex(8)}.counts")


@dataclass(frozen=True)
class Template:
    """A machine to start from, as often as wanted.

    ``facts`` are what is known of it:

    - ``boot_seconds``: how long this host took to boot it;
    - ``boot_cpu_seconds``: how much processor time of the host that took;
    - ``taint``: the kernel's taint flags when it was frozen;
    - ``unfrozen``: why it could not be frozen, if so;
    - ``no_session``: why no SSH session was frozen with it, if so;
    - and what the set-ups of derived templates have returned.
    """

    spec: MachineSpec
    keys: Keys
    entry: Entry
    facts: Mapping[str, Any]
    set_ups: tuple[SetUp, ...] = ()  # done after each boot, if it could not be frozen
    counting: Counting | None = None  # for its clones; no part of what was frozen

    @property
    def boot_seconds(self) -> float:
        return float(self.facts["boot_seconds"])

    @property
    def pace(self) -> float:
        """By how much the harness's time limits are multiplied for this machine; at least 1."""
        return max(1.0, float(self.facts["boot_cpu_seconds"]) / USUAL_BOOT_SECONDS)

    @property
    def frozen(self) -> bool:
        """Whether a clone goes on from a frozen state rather than boot."""
        return "unfrozen" not in self.facts

    @property
    def loaded(self) -> bool:
        """Whether a module under test was loaded before the machine was frozen."""
        return "sections" in self.facts

    @property
    def counts(self) -> Path | None:
        """The file with what ran of modules while it was derived, if that was counted."""
        path = self.entry.path / COUNTS
        return path if path.exists() else None

    @property
    def memory(self) -> Path:
        return self.entry.path / "memory"

    @property
    def state(self) -> Path:
        return self.entry.path / "state"

    @property
    def session(self) -> Session | None:
        """The SSH session that was frozen with the machine, if there is one."""
        if "unfrozen" in self.facts or "no_session" in self.facts:
            return None
        return Session.from_json((self.entry.path / SESSION).read_text())
