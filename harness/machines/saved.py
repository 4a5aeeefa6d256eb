# SPDX-License-Identifier: GPL-2.0-only
"""A machine as a red test left it: saved to files, and opened again later.

Where a template keeps a machine's memory in a file of its own, a saved machine has
all in one stream, so that nothing need be prepared for it while tests are green.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.build.image import Keys
from harness.errors import InputError, MachineError, SpaceError
from harness.host import files
from harness.host.cache import Cache
from harness.host.proc import Deadline
from harness.machines.clone import Clone
from harness.qemu import Machine, MachineSpec, devices, version_text
from harness.qemu.debug import private_socket

SECONDS = 60.0
CANCEL_SECONDS = 10.0
STATE = "machine.state"
ABOUT = "machine.json"
DEBUGGER = "debugger"  # while the machine is held: the path of gdb's socket


@dataclass(frozen=True)
class SavedMachine:
    """A saved machine. ``about``: facts for a debugger (module file, text address, vmlinux)."""

    folder: Path
    spec: MachineSpec
    keys: Keys
    qemu: str
    about: Mapping[str, Any]


def save(
    machine: Machine, keys: Keys, folder: Path, deadline: Deadline, about: Mapping[str, Any]
) -> None:
    """Write the machine's whole state into ``folder``.

    The machine may be stopped afterwards, also where this raises: ``machine.snapshot.resume`` lets
    it run. The files take as much as the guest has used of its memory. Raises ``MachineError``, and
    leaves nothing half written then; ``SpaceError`` where they may not fit.
    """
    devices.check_saved(machine.spec.devices)
    if shutil.disk_usage(folder).free < machine.spec.memory_mib << 20:
        raise SpaceError(f"it may take {machine.spec.memory_mib} MiB, and the disk has less")
    try:
        machine.snapshot.save(folder / STATE, deadline, whole=True)
    except BaseException:
        with suppress(MachineError):
            # Where time was up QEMU is still writing, and would not run on before it is done.
            machine.execute("migrate_cancel", Deadline(CANCEL_SECONDS))
        (folder / STATE).unlink(missing_ok=True)
        raise
    text = {
        "spec": machine.spec.as_json(),
        "keys": {"client": str(keys.client), "host": keys.host},
        "qemu": version_text(),
        "about": dict(about),
    }
    (folder / ABOUT).write_text(json.dumps(text, indent=1))


def load(folder: Path) -> SavedMachine:
    """What was saved in ``folder``; raises ``InputError`` if that cannot be opened here."""
    saved = read(folder)
    for path in (folder / STATE, saved.spec.kernel, saved.spec.initrd, saved.keys.client):
        if not path.exists():
            raise InputError(
                f"the machine in {folder} cannot be opened again: {path} is gone",
                hint="run the test again; `invoke clean` takes what saved machines need",
            )
    if saved.qemu != version_text():
        raise InputError(
            f"the machine in {folder} was saved by another QEMU ({saved.qemu})",
            hint="run the test again",
        )
    return saved


def read(folder: Path) -> SavedMachine:
    """What is known of the machine that was saved in ``folder``, if it can be opened or not.

    Raises ``InputError`` where none was saved there.
    """
    try:
        text = json.loads((folder / ABOUT).read_text())
        spec = MachineSpec.from_json(text["spec"])
        keys = Keys(Path(text["keys"]["client"]), text["keys"]["host"])
        return SavedMachine(folder, spec, keys, text["qemu"], text["about"])
    except OSError as error:
        raise InputError(
            f"there is no saved machine in {folder}",
            hint="a red test says where it has left one: results/KERNEL/RUN/TEST",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / ABOUT} is damaged: {error}", hint="run the test again"
        ) from error


@contextmanager
def reopened(
    saved: SavedMachine, folder: Path, *, stopped: bool = False, observer: Path | None = None
) -> Iterator[Clone]:
    """The machine, going on where it was saved; ``stopped``: it waits for a debugger.

    ``folder`` is where the rest of its console goes. ``observer``: see ``Machine.start``.
    """
    deadline = Deadline(SECONDS)
    with Machine(saved.spec, folder) as machine:
        machine.start(deadline, incoming=True, observer=observer)
        machine.snapshot.load(saved.folder / STATE, deadline, whole=True)
        if not stopped:
            machine.execute("cont", deadline)
        with Clone(machine, saved.keys) as running:
            yield running


def hold_command(folder: Path) -> list[str]:
    """The command that has a saved machine run on (``hold``), in a process of its own."""
    return [sys.executable, "-m", __name__, str(folder)]


def hold(folder: Path) -> None:
    """Have the machine run on until this process is ended; says how to get in."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    saved = load(folder)
    with (
        Cache() as cache,
        cache.scratch("kept") as work,
        private_socket() as socket,
        reopened(saved, work, observer=observer_of(socket)) as clone,
    ):
        clone.machine.debugger.listen(socket, Deadline(10))
        files.write(folder / DEBUGGER, f"{socket}\n")
        try:
            print(ssh_command(clone.machine, saved.keys), flush=True)
            clone.machine.process.wait()
        finally:
            (folder / DEBUGGER).unlink(missing_ok=True)


def observer_of(debugger: Path) -> Path:
    """Where drgn finds a machine, beside gdb's socket."""
    return debugger.with_name("qmp")


def ssh_command(machine: Machine, keys: Keys) -> str:
    """The command that opens a shell in a machine that runs."""
    port = machine.ssh_port(Deadline(10))
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    return f"ssh -p {port} -i {keys.client} {options} root@127.0.0.1"


def debugger_of(folder: Path) -> Path:
    """The socket where the machine that ``hold`` has running waits for gdb.

    Raises ``InputError`` where it does not run any more, or never did.
    """
    try:
        return Path((folder / DEBUGGER).read_text().strip())
    except OSError as error:
        raise InputError(
            f"the machine of {folder} does not run",
            hint=f"as its test left it: invoke debug --test {shlex.quote(str(folder))}; only "
            "`test-vm --keep` leaves one running",
        ) from error


if __name__ == "__main__":
    hold(Path(sys.argv[1]))
