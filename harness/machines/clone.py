# SPDX-License-Identifier: GPL-2.0-only
"""A clone: a machine that goes on where a template was frozen.

It is a new QEMU process that maps the template's memory privately (copy on write), in a tenth of
the time of a boot.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import qemu
from harness.build.image import Keys
from harness.errors import GuestError, HostError, MachineError
from harness.examine.audit import Audit
from harness.host.proc import Deadline
from harness.machines.guest import Guest
from harness.machines.session import Session
from harness.machines.template import BOOT_SECONDS, Template
from harness.qemu import Machine

CLONE_SECONDS = 30.0
MARK_SECONDS = 20.0  # for a healthy guest to answer on the control port
WAKE_SECONDS = 1.0  # by which a clone's clock may be late


@contextmanager
def clone(
    template: Template, folder: Path, deadline: Deadline | None = None, *, ahead: bool = False,
    observer: Path | None = None,
) -> Iterator[Clone]:  # fmt: skip
    """A machine that goes on where the template was frozen, with the right time.

    ``observer``: see ``Machine.start``.
    """
    counter = template.counting.counter() if template.counting else None
    if not template.frozen:
        with (
            qemu.booted(
                template.spec,
                folder,
                deadline or Deadline(BOOT_SECONDS * template.pace),
                counter,
                ahead=ahead,
                observer=observer,
            ) as machine,
            Clone(machine, template.keys) as running,
        ):
            running.facts = template.facts
            machine.pace = template.pace
            if ahead:
                _keep_awake(running, machine.patience(CLONE_SECONDS))
            running.guest.check("true")  # the first command has the kernel do some things once
            # The inventory is what leftovers are compared with.
            machine.agent.take_inventory(machine.patience(MARK_SECONDS))
            for set_up in template.set_ups:
                set_up(running)
            # The taint that the template records holds for its clones. A machine that booted
            # again has to be asked.
            running.baseline = Baseline(
                len(machine.console_text()), machine.agent.mark(machine.patience(MARK_SECONDS))
            )
            yield running
        return
    with (
        Machine(template.spec, folder, counter) as machine,
        thawed(
            machine, template, deadline, memory=template.memory, ahead=ahead, observer=observer
        ) as running,
        Audit(machine, template.entry.path, loaded=template.loaded) as running.audit,
    ):
        running.template = template
        running.facts = template.facts
        running.baseline = Baseline(taint=template.facts["taint"])
        yield running


@contextmanager
def thawed(
    machine: Machine, template: Template, deadline: Deadline | None, *, memory: Path,
    share: bool = False, ahead: bool = False, observer: Path | None = None,
) -> Iterator[Clone]:  # fmt: skip
    """``machine``, started where the template was frozen; SSH is on its way.

    Without a deadline it may take ``CLONE_SECONDS`` from when QEMU answers.
    """
    machine.pace = template.pace
    machine.start(
        deadline or Deadline(qemu.START_SECONDS),
        memory=memory, share=share, incoming=True, ahead=ahead, observer=observer,
    )  # fmt: skip
    deadline = deadline or machine.patience(CLONE_SECONDS)
    machine.snapshot.load(template.state, deadline, counting=ahead)
    if ahead:
        # The clock of a guest that is idle would jump from the first moment on. It finds this order
        # before anything else.
        word = machine.agent.send("stay-awake", deadline)
        machine.execute("cont", deadline)
        machine.agent.receive(word, "staying-awake", deadline)
    else:
        machine.execute("cont", deadline)
    with Clone(machine, template.keys, template.session) as it:
        # The clock stands where the template was frozen, and all clones would draw the
        # same random numbers: vm/agent mends both.
        for _ in range(3):
            now, asked = time.time(), time.monotonic()
            machine.agent.order(f"wake {now:.6f} {secrets.token_hex(32)}", "awake", deadline)
            if time.monotonic() - asked < WAKE_SECONDS:
                break  # if it took longer, the guest's clock is late by that: try again
        if ahead:
            machine.agent.use_virtual_clock(deadline)
        yield it


def _keep_awake(running: Clone, deadline: Deadline) -> None:
    """Have the guest of a machine that has booted with a clock that runs ahead wait for orders.

    Until then its clock has jumped whenever it was idle.
    """
    agent = running.machine.agent
    agent.order("stay-awake", "staying-awake", deadline)
    agent.order(f"wake {time.time():.6f} {secrets.token_hex(32)}", "awake", deadline)


@dataclass(frozen=True)
class Baseline:
    """The state of a machine from which the current test is judged."""

    console_offset: int = 0  # in characters of Machine.console_text()
    taint: int = 0  # /proc/sys/kernel/tainted (Documentation/admin-guide/tainted-kernels.rst)
    reported: bool = False  # an earlier judgement of the test had a report of the kernel's


class Clone:
    """A running machine, and its guest once somebody asks for it."""

    def __init__(self, machine: Machine, keys: Keys, session: Session | None = None) -> None:
        """``session`` was frozen with the machine. Without one the first use connects."""
        self.machine = machine
        self._keys = keys
        self._session = session
        self.running_since = time.monotonic()  # when the machine began to run, by that clock
        self.baseline = Baseline()  # replaced after each judgement
        self.facts: Mapping[str, Any] = {}  # those of its template
        self.ends = ExitStack()  # what was opened for the clone, and ends with it
        self.audit: Audit | None = None  # None unless it is a clone of a frozen template
        self.template: Template | None = None  # as for ``audit``
        self._guest: Guest | None = None

    @property
    def keys(self) -> Keys:
        """The SSH keys of its guest."""
        return self._keys

    @property
    def guest(self) -> Guest:
        """The guest, connected at the first use."""
        if self._guest is None:
            if self._session is not None:
                self._guest = Guest.resume(
                    self.machine.ssh_stream(), self._session, patience=self.machine.patience
                )
            else:
                port = self.machine.ssh_port(Deadline(CLONE_SECONDS))
                self._guest = Guest.connect(port, self._keys, patience=self.machine.patience)
            self.machine.monitor.on_panic = self._guest.close
            if self.machine.ahead:
                self._guest.during = self.machine.clock.running
                self._guest.leap = self._leap
                self.machine.clock.hold()
            if self.audit is not None:
                self._guest.after = self._watch
                self.audit.guest = self._guest
        return self._guest

    @property
    def commands(self) -> int:
        """How many commands were begun in the guest so far."""
        return self._guest.commands if self._guest else 0

    @contextmanager
    def _leap(self) -> Iterator[None]:
        """Within, the guest's clock jumps over what the guest sleeps."""
        self.machine.agent.order("doze", "dozing", self.machine.patience(CLONE_SECONDS))
        try:
            yield
        finally:
            with suppress(MachineError):  # it may be the guest's end, of which others tell
                self.machine.agent.order(
                    "stay-awake", "staying-awake", self.machine.patience(CLONE_SECONDS)
                )

    def _watch(self) -> None:
        if self.audit is not None:
            self.audit.watch(self.machine.patience(CLONE_SECONDS))

    def close(self) -> None:
        """End the machine, for whoever has it from ``pool.open_clone``."""
        self.ends.close()

    def __enter__(self) -> Clone:
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        try:
            if isinstance(error, (GuestError, MachineError)) and not isinstance(error, HostError):
                # A guest that is gone may be so because its QEMU was killed.
                self.machine.check_host(Deadline(CLONE_SECONDS), error)
        finally:
            if self._guest is not None:
                self._guest.close()
