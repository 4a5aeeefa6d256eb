# SPDX-License-Identifier: GPL-2.0-only
"""A machine whose run is recorded, and what a recording is once it has ended.

A recorded machine boots, since QEMU records from the beginning only. Its guest is reached over the
serial port (serial.py). A recording is a folder:

- ``log``: all that came from outside and when, as QEMU writes it (its docs/devel/replay.rst)
- ``files.cpio``: what the guest carried in addition to its image
- ``console.log``: what it printed
- ``orders.log``: what was sent to it over the serial port
- ``recording.json``: the machine, the files that it was booted from, and where it ended
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.build import requirements
from harness.errors import InputError, MachineError, refused
from harness.host import files
from harness.host.proc import Deadline
from harness.machines.clone import MARK_SECONDS, Baseline, Clone
from harness.machines.guest import Guest
from harness.machines.serial import SerialGuest, digest
from harness.machines.template import BOOT_SECONDS, SetUp, Template
from harness.qemu import START_SECONDS, Machine, MachineSpec, RecordReplay, replay, version_text
from harness.qemu.qmp import Event

FOLDER = "recording"  # in that of a red test's evidence
LOG, FILES, CONSOLE, ORDERS = "log", "files.cpio", "console.log", "orders.log"
ABOUT = "recording.json"
INITRD = "initrd.cpio"
_COPIED = (LOG, FILES, CONSOLE)  # from the folder of the machine

# A guest that counts instructions, on one thread, is so many times slower than its template.
_SLOWER = 3.0
_CARRIED = "etc/eudyptula/carried"  # where the guest has the files that it carries
# At its end a machine goes on for so long (in seconds of its own), so that what happens at the
# last moment that a replay comes to is not the last that was recorded.
_AFTERWARDS = 0.2
_QUIT_SECONDS = 30.0
_QUERY_SECONDS = 30.0


class RecordedClone(Clone):
    """A clone that has booted, and is recorded.

    ``sections`` says of each module that has come since where its sections are, by their names.
    ``began``: how many instructions the guest had run when it was ready.
    """

    def __init__(self, machine: Machine, template: Template, carried: Mapping[str, str]) -> None:
        super().__init__(machine, template.keys)
        self.sections: dict[str, dict[str, str]] = {}
        self.began = 0
        self._carried = carried
        self._known = ""  # the modules of the guest itself, as an order wants them

    @property
    def guest(self) -> Guest:
        """The guest, over its serial port."""
        if self._guest is None:
            self._guest = SerialGuest(self.machine, self._carried)
            self.machine.monitor.on_panic = self._guest.close
            self._known = ",".join({module for module, _, _ in self._ask_sections()})
            self._guest.after = self.note_sections
        return self._guest

    def note_sections(self) -> None:
        """See which modules are there, and where: a debugger cannot find that out."""
        for module, section, address in self._ask_sections():
            self.sections.setdefault(module, {})[section] = address

    def _ask_sections(self) -> list[tuple[str, str, str]]:
        deadline = self.machine.patience(MARK_SECONDS)
        said = self.machine.agent.order(f"sections {self._known}", "sections", deadline)
        found = (re.fullmatch(r"(\w+)/(\S+)=(0x[0-9a-f]+)", each) for each in said.split())
        return [(each[1], each[2], each[3]) for each in found if each]


@contextmanager
def recorded(
    template: Template, folder: Path, carried: Sequence[Path], set_up: SetUp | None = None
) -> Iterator[RecordedClone]:
    """A machine of a template's shape, booted and recorded in ``folder``.

    ``carried``: files that ``Guest.put`` finds in the guest already. ``set_up``: what is done to it
    before it is anybody's, such as loading a module. The recording is kept where
    ``Machine.wanted`` says, if that says something at its end.
    """
    contents = {digest(data): data for data in (each.read_bytes() for each in carried)}
    names = {of: f"/{_CARRIED}/{of}" for of in contents}
    inside = {f"{_CARRIED}/{of}": data for of, data in contents.items()}
    more = requirements.cpio(inside)
    (folder / FILES).write_bytes(more)
    replay.joined(template.spec.initrd, more, folder / INITRD)
    spec = replace(template.spec, initrd=folder / INITRD, accelerator="tcg")
    with Machine(spec, folder) as machine, ExitStack() as ends:
        running = RecordedClone(machine, template, names)
        ends.callback(_finish, running, template.spec.initrd, folder, time.monotonic())
        machine.pace = template.pace * _SLOWER
        machine.start(Deadline(START_SECONDS), record=RecordReplay(folder / LOG))
        machine.agent.await_answer("ready", machine.patience(BOOT_SECONDS))
        with running:
            running.guest.check("true")  # what the kernel does only once is done now
            running.began = instructions(machine)
            machine.agent.take_inventory(machine.patience(MARK_SECONDS))
            running.facts = dict(template.facts)
            if set_up is not None:
                running.facts = {**running.facts, **set_up(running)}
            taint = machine.agent.mark(machine.patience(MARK_SECONDS))
            running.baseline = Baseline(len(machine.console_text()), taint)
            yield running


def _finish(running: RecordedClone, initrd: Path, folder: Path, started: float) -> None:
    """End a machine, and keep what was recorded of it where that is wanted."""
    machine = running.machine
    wanted = machine.wanted
    if wanted is None:
        return
    seconds = time.monotonic() - started
    deadline = Deadline(_QUIT_SECONDS)
    end, size = None, machine.log.size
    with suppress(MachineError):
        end = instructions(machine)
        size = machine.log.size
        if not machine.panicked:
            machine.agent.sleep(_AFTERWARDS, Deadline(_QUIT_SECONDS / 3))
    with suppress(MachineError):
        machine.quit(deadline)  # the recording is whole only once QEMU has ended
    about = {
        # Its initramfs is made again, of the one that was there and what the guest carried.
        "spec": replace(machine.spec, initrd=initrd).as_json(),
        "qemu": version_text(),
        "began": running.began,
        "end": end,
        "console": size,
        "panicked": machine.panicked,
        "seconds": seconds,
        "about": {**wanted.about, "sections": running.sections},
    }
    assert machine.paced is not None
    with _all_or_nothing(wanted.folder / FOLDER) as target:
        for name in _COPIED:
            shutil.copyfile(folder / name, target / name)
        (target / ORDERS).write_bytes(b"".join(machine.paced.sent))
        files.write(target / ABOUT, json.dumps(about, indent=1))


@contextmanager
def _all_or_nothing(target: Path) -> Iterator[Path]:
    """Make the folder of a recording; it is gone again where not all could be written into it."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        yield target
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise refused(
            error,
            f"keeping the recording in {os.path.relpath(target)}",
            "there is nothing to replay now; free some space on the disk that has the results",
        ) from error


def size(machine: Machine) -> int:
    """How many bytes the recording of a machine has so far; QEMU may still hold some back."""
    found = (machine.log.path.parent / name for name in _COPIED)
    return sum(path.stat().st_size for path in found if path.exists())


@dataclass(frozen=True)
class Recording:
    """A recording, in ``folder``.

    ``began``: how many instructions the guest had run when it was ready for the test, ``end`` when
    that was over (None: the guest ended by itself). ``console``: how many bytes it had printed
    then. ``seconds``: for how long it was recorded. ``about``: facts for a debugger: vmlinux, the
    module's source, and the files and addresses of what was loaded.
    """

    folder: Path
    spec: MachineSpec
    began: int
    end: int | None
    console: int
    panicked: bool
    seconds: float
    about: Mapping[str, Any]


def load(folder: Path) -> Recording:
    """The recording in ``folder``; raises ``InputError`` if that cannot be played back here."""
    folder = folder if (folder / ABOUT).exists() else folder / FOLDER
    try:
        text = json.loads((folder / ABOUT).read_text())
        spec = MachineSpec.from_json(text["spec"])
        found = Recording(
            folder, spec, text["began"], text["end"], text["console"],
            text["panicked"], text["seconds"], text["about"],
        )  # fmt: skip
        qemu = text["qemu"]
    except OSError as error:
        raise InputError(
            f"there is no recording in {folder.parent if folder.name == FOLDER else folder}",
            hint="invoke test-vm --record leaves one in the folder of each red test: "
            "results/KERNEL/RUN/TEST",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / ABOUT} is damaged: {error}", hint="run the test again"
        ) from error
    for path in (folder / LOG, folder / FILES, folder / CONSOLE, spec.kernel, spec.initrd):
        if not path.exists():
            raise InputError(
                f"the recording in {folder} cannot be played back: {path} is gone",
                hint="run the test again with --record; `invoke clean` takes what recordings need",
            )
    if qemu != version_text():
        raise InputError(
            f"the recording in {folder} was made by another QEMU: by {qemu}, and here is "
            f"{version_text()}",
            hint="run the test again with --record",
        )
    return found


@contextmanager
def replayed(
    recording: Recording, folder: Path, *, snapshots: Path | None = None, begin: str = ""
) -> Iterator[Machine]:
    """A machine that is about to go the way of a recording; it stands at the beginning.

    With ``begin`` it stands where that snapshot was taken.
    """
    more = (recording.folder / FILES).read_bytes()
    replay.joined(recording.spec.initrd, more, folder / INITRD)
    spec = replace(recording.spec, initrd=folder / INITRD)
    with Machine(spec, folder) as machine:
        how = RecordReplay(recording.folder / LOG, True, snapshots, begin)
        machine.start(Deadline(START_SECONDS), record=how)
        yield machine


def instructions(machine: Machine) -> int:
    """How many instructions a machine that is recorded or played back has run."""
    return int(machine.execute("query-replay", Deadline(_QUERY_SECONDS))["icount"])


def run_to(machine: Machine, instruction: int | None, deadline: Deadline) -> None:
    """Have a replay go on up to an instruction, or to its end if it comes to that before.

    Raises ``MachineError`` where the replay does not follow its recording.
    """
    since = len(machine.monitor.events)
    if instruction is not None:
        machine.execute("replay-break", deadline, icount=instruction)
    machine.execute("cont", deadline)
    if instruction is None:
        machine.process.wait(deadline)
        return
    machine.monitor.await_event(_stands, deadline, "the recording is played back", since=since)


def _stands(event: Event) -> bool:
    return event["event"] in ("STOP", "GUEST_PANICKED")
