# SPDX-License-Identifier: GPL-2.0-only
"""Boot once, freeze, clone.

A template is a machine that was booted until SSH was listening and then frozen: its
memory is a file, the rest of its state a small one. A clone is a new QEMU process that
maps that memory privately (copy on write) and goes on where the template stopped, in a
hundredth of the time of a boot.

The recipe is QEMU's own: a shared ``memory-backend-file`` and the migration capability
``x-ignore-shared``, which leaves such memory out of the stream (QEMU, migration/ram.c).
"""

from __future__ import annotations

import json
import logging
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qemu.qmp import Message

from harness import proc, qemu
from harness.cache import Cache, Entry
from harness.errors import MachineError, SpaceError
from harness.guest import Guest
from harness.image import GuestImage, Keys
from harness.kernel import Kernel
from harness.proc import Deadline
from harness.qemu import Machine, MachineSpec

log = logging.getLogger(__name__)

SetUp = Callable[["Clone"], Mapping[str, object]]

BOOT_SECONDS = 120.0
CLONE_SECONDS = 30.0


@dataclass(frozen=True)
class Template:
    """A frozen machine. ``facts`` are what is known of it: at least ``boot_seconds``, how
    long this host took to boot it, and what the set-ups of derived templates have added.
    """

    spec: MachineSpec
    keys: Keys
    entry: Entry
    facts: Mapping[str, Any]

    @property
    def boot_seconds(self) -> float:
        return float(self.facts["boot_seconds"])

    @property
    def memory(self) -> Path:
        return self.entry.path / "memory"

    @property
    def state(self) -> Path:
        return self.entry.path / "state"


def machine_spec(
    kernel: Kernel, image: GuestImage, cache: Cache, *, memory_mib: int = 512, cpus: int = 1,
    append: tuple[str, ...] = (),
) -> MachineSpec:  # fmt: skip
    """The shape of a machine for this kernel and guest, with the best accelerator there is."""
    spec = MachineSpec(
        kernel=kernel.boot, initrd=image.initrd, memory_mib=memory_mib, cpus=cpus, append=append
    )
    accelerator, why = qemu.accelerator(spec, cache)
    log.debug("accelerator: %s (%s)", accelerator, why)
    return replace(spec, accelerator=accelerator)


def prepare(
    kernel: Kernel, image: GuestImage, cache: Cache, *, memory_mib: int = 512, cpus: int = 1,
    append: tuple[str, ...] = (),
) -> Template:  # fmt: skip
    """The template of this kernel and guest, booted and frozen if it is not cached."""
    spec = machine_spec(kernel, image, cache, memory_mib=memory_mib, cpus=cpus, append=append)
    key = {"recipe": 2, "shape": qemu.shape(spec), "kernel": kernel.digest, "image": image.digest}
    entry = cache.get(
        "template",
        kernel.name,
        key,
        lambda folder: _freeze(spec, folder),
        note=f"kernel {kernel.name}: booting {kernel.release} once ({spec.accelerator})",
    )
    return Template(spec, image.keys, entry, _facts(entry))


def derive(
    base: Template,
    label: str,
    key: Mapping[str, object],
    set_up: SetUp,
    cache: Cache,
) -> Template:
    """A template in which ``set_up`` has been done to a clone of ``base``, so that it is
    paid for once.

    ``key`` stands for all that ``set_up`` depends on. What it returns (JSON values) is added
    to the template's facts, what it raises passes through.
    """
    entry = cache.get(
        "template",
        f"{base.entry.label}-{label}",
        {"recipe": 1, "base": base.entry.digest, "key": dict(key)},
        lambda folder: _freeze_again(base, folder, set_up),
    )
    return replace(base, entry=entry, facts=_facts(entry))


def _freeze(spec: MachineSpec, folder: Path) -> None:
    """Boot a machine whose memory is a file, stop it, and save the rest of its state."""
    _check_space(spec, folder)
    deadline = Deadline(BOOT_SECONDS)
    started = time.monotonic()
    with Machine(spec, folder) as machine:
        machine.start(deadline, memory=folder / "memory", share=True)
        machine.await_control("ready", deadline)
        boot_seconds = time.monotonic() - started
        machine.remember(deadline)
        _capabilities(machine, deadline)
        _save(machine, folder, deadline)
    (folder / "facts.json").write_text(json.dumps({"boot_seconds": boot_seconds}))


def _freeze_again(base: Template, folder: Path, set_up: SetUp) -> None:
    """Wake a copy of a template that writes to its own memory file, change it, freeze it."""
    _check_space(base.spec, folder)
    deadline = Deadline(BOOT_SECONDS)
    memory = folder / "memory"
    copy = ["cp", "--reflink=auto", "--sparse=always", str(base.memory), str(memory)]
    proc.run(copy, deadline=deadline)
    with Machine(base.spec, folder) as machine:
        _wake(machine, base, deadline, memory=memory, share=True)
        with Clone(machine, base.keys) as running:
            facts = {**base.facts, **set_up(running)}
        # SSH does not survive a freeze; its server is to have noticed that it was closed.
        machine.order("settle", "settled", deadline)
        _save(machine, folder, deadline)
    (folder / "facts.json").write_text(json.dumps(facts))


def _facts(entry: Entry) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((entry.path / "facts.json").read_text())
    return facts


def _check_space(spec: MachineSpec, folder: Path) -> None:
    """QEMU does not survive a full disk behind its memory, and cannot say why."""
    if shutil.disk_usage(folder).free < spec.memory_mib << 20:
        raise SpaceError(
            f"no space left for a machine's memory ({spec.memory_mib} MiB) in {folder.parent}",
            hint="free some space, or point EUDYPTULA_CACHE to a folder on a larger disk",
        )


def _save(machine: Machine, folder: Path, deadline: Deadline) -> None:
    """Stop the machine and write all of its state but the memory, which is a file already."""
    machine.execute("stop", deadline)
    since = len(machine.events)
    machine.execute("migrate", deadline, uri=_file_uri("cat >", folder / "state"))
    _await_migration(machine, since, deadline)
    machine.quit(deadline)


def _wake(
    machine: Machine, template: Template, deadline: Deadline, *, memory: Path, share: bool = False
) -> None:
    """Start a machine where the template was frozen, with the right time."""
    machine.start(deadline, memory=memory, share=share, incoming=True)
    _capabilities(machine, deadline)
    machine.execute("migrate-incoming", deadline, uri=_file_uri("cat", template.state))
    _await_migration(machine, 0, deadline)
    machine.execute("cont", deadline)
    # The clock stands where the template was frozen, and all clones would draw the
    # same random numbers: vm/agent mends both.
    machine.order(f"wake {time.time():.6f} {secrets.token_hex(32)}", "awake", deadline)


@contextmanager
def clone(template: Template, folder: Path, deadline: Deadline | None = None) -> Iterator[Clone]:
    """A machine that goes on where the template was frozen, with the right time."""
    deadline = deadline or Deadline(CLONE_SECONDS)
    with Machine(template.spec, folder) as machine:
        _wake(machine, template, deadline, memory=template.memory)
        with Clone(machine, template.keys) as running:
            yield running


class Clone:
    """A running clone: its machine, and its guest once somebody asks for it."""

    def __init__(self, machine: Machine, keys: Keys) -> None:
        self.machine = machine
        self._keys = keys
        self._guest: Guest | None = None

    @property
    def guest(self) -> Guest:
        """The guest, connected at the first use."""
        if self._guest is None:
            port = self.machine.ssh_port(Deadline(CLONE_SECONDS))
            self._guest = Guest.connect(port, self._keys)
            self.machine.on_panic = self._guest.close
        return self._guest

    def __enter__(self) -> Clone:
        return self

    def __exit__(self, *_: object) -> None:
        if self._guest is not None:
            self._guest.close()


def _capabilities(machine: Machine, deadline: Deadline) -> None:
    wanted = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
    machine.execute("migrate-set-capabilities", deadline, capabilities=wanted)


def _await_migration(machine: Machine, since: int, deadline: Deadline) -> None:
    event = machine.await_event(
        lambda event: event["event"] == "MIGRATION" and _status(event) in ("completed", "failed"),
        deadline,
        "saving or loading the machine's state",
        since=since,
    )
    if _status(event) == "failed":
        told = machine.execute("query-migrate", deadline)
        raise MachineError("QEMU could not save or load the machine's state", tail=str(told))


def _status(event: Message) -> str:
    data = event["data"]
    assert isinstance(data, dict)
    return str(data["status"])


def _file_uri(program: str, path: Path) -> str:
    """A migration URI for a file; QEMU 7.2 has no file: scheme, and exec: takes a shell's line."""
    return f"exec:{program} {shlex.quote(str(path))}"
