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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import config
from harness.build import symbols
from harness.errors import HarnessError
from harness.host import proc
from harness.host.proc import Deadline
from harness.host.text import printable
from harness.judge import phrases
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
# Verdicts on a machine that answers nobody, and on one of which the registers and memory may tell
# where it is stuck.
_DEAD = frozenset({Verdict.PANIC, Verdict.LOST})
_STUCK = _DEAD | {Verdict.HUNG}
_NAME_MAX = 150  # characters of a test's folder; a file name may have 255 bytes


@dataclass(frozen=True)
class Keeper:
    """How much of a run is kept, and where."""

    run: Callable[[], Path]  # gives the run's folder, and makes it when it is first needed
    hold_first: bool = False  # leave the machine of the first red test running
    limit: int = MACHINES  # how many machines are saved


def save_artifacts(
    keeper: Keeper,
    lab: Lab,
    machine: Machine,
    problems: Sequence[Problem],
    name: str,
    loaded: Mapping[str, object],
) -> str:
    """Save what a machine leaves into a folder ``name`` of this run's.

    Returns what a report says of it, in lines: what was saved, where, and with which command it is
    used; or what could not be saved and why. A machine that was alive runs on.

    ``loaded``: what a debugger needs to know of the module, where it has been loaded.
    """
    try:
        run = keeper.run()
        folder = make_folder(run, name)
        (folder / CONSOLE).write_text(printable(machine.console_text()))
    except OSError as error:  # such as a full disk, which is not to hide why a test is red
        return f"(nothing could be kept: {error})"
    said = [f"console: {_shown(folder / CONSOLE)}"]
    try:
        for line in _save_state(keeper, lab, machine, problems, run, folder, loaded):
            said.append(line)  # one by one: those before an error stay  # noqa: PERF402
    except (HarnessError, OSError) as error:
        what = error.what if isinstance(error, HarnessError) else error
        said.append(f"(the machine could not be saved: {what})")
    return "\n".join(said)


def _save_state(
    keeper: Keeper, lab: Lab, machine: Machine, problems: Sequence[Problem], run: Path,
    folder: Path, loaded: Mapping[str, object],
) -> Iterator[str]:  # fmt: skip
    """Save a machine's registers if it is stuck, and its recording or the machine itself.

    Yields a line for each thing that was saved.
    """
    if not machine.running and machine.paced is None:
        return
    verdicts = {problem.verdict for problem in problems}
    stuck = not _STUCK.isdisjoint(verdicts)
    if stuck and machine.running:
        (folder / "registers.txt").write_text(machine.registers(Deadline(DUMP_SECONDS)))
        yield f"registers: {_shown(folder)}/registers.txt"
    if keeper.limit == 0:
        return
    about = {**loaded, **symbols.facts(lab.kernel), "sysroot": str(lab.kernel.sysroot.root)}
    if machine.paced is not None:
        yield _want_recording(machine, folder, about)
        return
    place = claim(run, keeper.limit)
    if place is None:
        yield f"(its machine is not kept: those of {keeper.limit} other red tests are)"
        return
    if stuck:
        machine.debugger.dump(folder / DUMP, Deadline(DUMP_SECONDS))
        yield f"memory, for crash or drgn: {_shown(folder)}/{DUMP}"
    alive = _DEAD.isdisjoint(verdicts)
    try:
        saved.save(machine, lab.image.keys, folder, Deadline(DUMP_SECONDS), about)
    finally:
        # Fixtures that clean up in the guest need it to run, also where saving has failed.
        if alive:
            machine.snapshot.resume(Deadline(DUMP_SECONDS))
    reopen = _task("shell --resume", folder, "" if alive else "--debugger")
    yield f"to stand in this machine: {reopen}"
    yield f"to look into it with gdb: {_task('debug --test', folder)}"
    if machine.recordable and not all(map(_is_found_in_memory, problems)):
        option = "--record" if config.has_short_options() else "--kernel-record"
        yield f"to go back in time in it: run the test again with {option}"
    if keeper.hold_first and place == 0:
        pid, line = proc.leave_running(
            saved.hold_command(folder), log=folder / "keep.log", deadline=Deadline(DUMP_SECONDS)
        )
        yield f"this machine runs on: {line}\n    `kill {pid}` ends it"
        yield f"    gdb in it: {_task('debug --attach', folder)}"


def _want_recording(machine: Machine, folder: Path, about: Mapping[str, object]) -> str:
    """Have the recording of a machine kept in ``folder`` when the machine ends; a line on that.

    If an earlier judgement of the same machine has asked for that, it is kept in that one's folder.
    """
    if machine.wanted is None:
        size = recorded.size(machine)
        if shutil.disk_usage(folder).free < size:
            return (
                f"(its recording is not kept: it takes {size / (1 << 20):.0f} MiB, and the disk "
                "that has the results has less)"
            )
        machine.wanted = WantedRecording(folder, about)
    again, in_gdb = (_task("replay", machine.wanted.folder, more) for more in ("", "--debug"))
    return f"to go through it again: {again}\n    with gdb, also backwards: {in_gdb}"


def _is_found_in_memory(problem: Problem) -> bool:
    """Whether only a search of the memory finds a problem, which no recorded machine has."""
    by_list = phrases.LEFT_BEHIND in problem.title
    return problem.verdict is Verdict.LEAK or (problem.verdict is Verdict.RESIDUE and not by_list)


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


def _task(task: str, folder: Path, more: str = "") -> str:
    """The command line of one of the project's tasks, for a folder, with ``more`` options."""
    after = f" {more}" if more else ""
    if config.shown_from().is_relative_to(config.PROJECT):
        return f"invoke {task} {shlex.quote(_shown(folder))}{after}"
    command = f"{task} {shlex.quote(os.path.abspath(folder))}{after}"
    if config.IS_CHECKOUT:
        return f"invoke -r {shlex.quote(str(config.PROJECT))} {command}"
    # As a comment of the shell's, so that the line can be pasted.
    return f"invoke {command}  # in a checkout of the harness"


def make_folder(run: Path, name: str) -> Path:
    """Make a new folder ``name`` in a run's, or NAME-2 and so on if there is one already.

    Another process of the same run may have made it, and a report may name it.
    """
    run.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = run / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("not reached")


def claim(run: Path, limit: int) -> int | None:
    """Take one of the ``limit`` places for machines of a run: its number, from 0, or None.

    The processes of a run share the places. Each is a file, which only one process can create.
    """
    for number in range(limit):
        with contextlib.suppress(FileExistsError):
            (run / f".machine-{number}").touch(exist_ok=False)
            return number
    return None
