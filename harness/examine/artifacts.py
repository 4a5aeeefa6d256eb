# SPDX-License-Identifier: GPL-2.0-only
"""What a red test leaves for people to look at: files in the folder of its run."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import config
from harness.build import symbols
from harness.errors import HarnessError
from harness.host import proc
from harness.host.proc import Deadline
from harness.host.text import printable
from harness.judge.verdict import Problem, Verdict
from harness.lab import Lab
from harness.machines import recorded, saved
from harness.qemu import Machine
from harness.qemu.machine import WantedRecording

DUMP = "memory.kdump"  # the memory of a machine that was stuck, for crash or drgn
CONSOLE = "console.log"
DUMP_SECONDS = 60.0
# How many red tests of a run leave their machine: each takes what its guest has used.
MACHINES = 5
_NAME_MAX = 150  # characters of a test's folder; a file name may have 255 bytes


@dataclass(frozen=True)
class Keeper:
    """What may be kept of this run.

    ``run`` gives the run's folder, and makes it when it is first needed.
    ``limit`` is how many machines are saved; ``hold_first`` leaves the first of them running.
    """

    run: Callable[[], Path]
    hold_first: bool = False
    limit: int = MACHINES


def save_artifacts(
    keeper: Keeper,
    lab: Lab,
    machine: Machine,
    problems: Sequence[Problem],
    name: str,
    loaded: Mapping[str, object],
) -> str:
    """Save what a machine leaves into a folder ``name`` of this run's; where that is, in lines.

    Its console, and where it is stuck its registers and memory; and the machine itself, so that
    it can be opened again. A machine that was alive runs on. What cannot be saved is said.

    ``loaded``: what a debugger needs to know of the module, where it has been loaded.
    """
    try:
        run = keeper.run()
        folder = make_folder(run, name)
        (folder / CONSOLE).write_text(printable(machine.console_text()))
    except OSError as error:  # such as a full disk, which is not to hide why a test is red
        return f"(nothing could be kept: {error})"
    said = [f"console: {_shown(folder / CONSOLE)}"]
    stuck = {Verdict.PANIC, Verdict.LOST, Verdict.HUNG} & {problem.verdict for problem in problems}
    alive = not {Verdict.PANIC, Verdict.LOST} & stuck
    if not machine.running and machine.paced is None:
        return "\n".join(said)
    where = _shown(folder)
    try:
        if stuck and machine.running:
            (folder / "registers.txt").write_text(machine.registers(Deadline(DUMP_SECONDS)))
            said.append(f"registers: {where}/registers.txt")
        if keeper.limit == 0:
            return "\n".join(said)
        about = {
            **loaded,
            **symbols.facts(lab.kernel),
            "sysroot": str(lab.kernel.sysroot.root),
        }
        if machine.paced is not None:
            said.append(_want_recording(machine, folder, about))
            return "\n".join(said)
        place = claim(run, keeper.limit)
        if place is None:
            said.append(f"(its machine is not kept: those of {keeper.limit} other red tests are)")
            return "\n".join(said)
        if stuck:
            machine.debugger.dump(folder / DUMP, Deadline(DUMP_SECONDS))
            said.append(f"memory, for crash or drgn: {where}/{DUMP}")
        try:
            saved.save(machine, lab.image.keys, folder, Deadline(DUMP_SECONDS), about)
        finally:
            # Fixtures that clean up in the guest need it to run, also where saving has failed.
            if alive:
                machine.snapshot.resume(Deadline(DUMP_SECONDS))
        reopen = _task("shell --resume", folder)
        said.append(f"to stand in this machine: {reopen}{'' if alive else ' --debugger'}")
        said.append(f"to look into it with gdb: {_task('debug --test', folder)}")
        if machine.recordable:
            option = "--record" if config.IS_CHECKOUT else "--kernel-record"
            said.append(f"to go back in time in it: run the test again with {option}")
        if keeper.hold_first and place == 0:
            pid, line = proc.leave_running(
                saved.hold_command(folder), log=folder / "keep.log", deadline=Deadline(DUMP_SECONDS)
            )
            said.append(f"this machine runs on: {line}\n    `kill {pid}` ends it")
            said.append(f"    gdb in it: {_task('debug --attach', folder)}")
    except (HarnessError, OSError) as error:
        what = error.what if isinstance(error, HarnessError) else error
        said.append(f"(the machine could not be saved: {what})")
    return "\n".join(said)


def _want_recording(machine: Machine, folder: Path, about: Mapping[str, object]) -> str:
    """Have the recording of a machine kept in ``folder`` when it ends; a line on that.

    What is wanted already is kept with the first judgement that was red.
    """
    if machine.wanted is None:
        size = recorded.size(machine)
        if shutil.disk_usage(folder).free < size:
            return (
                f"(its recording is not kept: it takes {size / (1 << 20):.0f} MiB, and the disk "
                "that has the results has less)"
            )
        machine.wanted = WantedRecording(folder, about)
    again = _task("replay", machine.wanted.folder)
    return f"to go through it again: {again}\n    with gdb, also backwards: {again} --debug"


def folder_name(nodeid: str) -> str:
    """The name of a test's folder: readable, and no two tests have the same.

    Folders and ``::`` become dashes. Where that or anything else makes the name ambiguous, as
    for [a/b], [a b] and [a-b], or where it is cut, a digest of the test's full name is added.
    """
    short = nodeid.removeprefix("tests/vm/")
    name = re.sub(r"[^\w.\[\]-]+", "-", short, flags=re.ASCII)
    plain = re.fullmatch(r"[\w./]+\.py(::\w+)+(\[[\w.-]*\])?", short, re.ASCII)
    if plain and len(name) <= _NAME_MAX:
        return name
    return f"{name[:_NAME_MAX]}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}"


def _shown(path: Path) -> str:
    """A path as whoever reads it would type it."""
    return os.path.relpath(path, config.shown_from())


def _task(task: str, folder: Path) -> str:
    """The command line of one of the project's tasks, for a folder."""
    if config.shown_from().is_relative_to(config.PROJECT):
        return f"invoke {task} {shlex.quote(_shown(folder))}"
    command = f"{task} {shlex.quote(os.path.abspath(folder))}"
    if config.IS_CHECKOUT:
        return f"invoke -r {shlex.quote(str(config.PROJECT))} {command}"
    return f"invoke {command} (in a checkout of the harness)"


def make_folder(run: Path, name: str) -> Path:
    """A new folder ``name`` in a run's; where it is there already, another number of it.

    What is there was promised to somebody, such as to another process of the same run.
    """
    run.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = run / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("not reached")


def claim(run: Path, limit: int) -> int | None:
    """One of the ``limit`` places for machines that a run leaves, from 0; None if all are taken.

    The processes of a run share them. A place is a file that only one of them can create.
    """
    for number in range(limit):
        with contextlib.suppress(FileExistsError):
            (run / f".machine-{number}").touch(exist_ok=False)
            return number
    return None
