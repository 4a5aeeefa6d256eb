# SPDX-License-Identifier: GPL-2.0-only
"""`invoke replay`: plays back what a red test has recorded, and compares; or opens gdb in it."""

from __future__ import annotations

import itertools
import logging
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from harness.commands import gdb
from harness.errors import InputError, MachineError, MachineFault, Status
from harness.host.cache import Cache
from harness.host.proc import Deadline
from harness.host.text import printable
from harness.machines import recorded
from harness.machines.recorded import CONSOLE, Recording
from harness.qemu import Machine
from harness.qemu import replay as images
from harness.qemu.debug import private_socket

log = logging.getLogger(__name__)

# A replay may take so many times what its recording took, and so many seconds in addition. Three
# times were seen on a host that was busy.
_TIMES, _SECONDS = 20, 120.0


@dataclass(frozen=True)
class Comparison:
    """What a replay has printed, beside what its recording has.

    ``line``: the number of the first line that differs (0: none does), from 1 on; ``was`` and
    ``now`` are what the two have there.
    """

    lines: int
    line: int = 0
    was: str = ""
    now: str = ""


def compare(before: bytes, after: bytes, end: int) -> Comparison:
    """Compare a recording's console with a replay's.

    ``end``: how many bytes the recorded one had where the replay ends. What came after that the
    replay may have begun to print or not.
    """
    if before.startswith(after) and len(after) >= end:
        return Comparison(after.count(b"\n"))
    # With their ends, so that one that was only begun differs.
    was, now = (text.splitlines(keepends=True) for text in (before[:end], after))
    both = enumerate(itertools.zip_longest(was, now), 1)
    number, (one, other) = next(each for each in both if each[1][0] != each[1][1])
    return Comparison(len(now), number, _shown(one), _shown(other))


def _shown(line: bytes | None) -> str:
    if line is None:
        return "(nothing)"
    text = printable(line.decode(errors="replace").rstrip("\n"))[:200]
    return text if line.endswith(b"\n") else f"{text} (without an end)"


def run(folder: Path) -> int:
    """Play back the recording that a red test has left in ``folder``.

    0 if it went the same way: the guest printed the same, and ran as many instructions. 1 if not.
    """
    recording = recorded.load(folder)
    with Cache() as cache, cache.scratch("replay") as work:
        started = time.monotonic()
        with recorded.replayed(recording, work) as machine:
            try:
                recorded.run_to(machine, recording.end, deadline(recording))
            except MachineFault as fault:
                why = fault.tail.splitlines()[-1] if fault.tail else fault.what
                return _differs(recording, f"QEMU gave up: {why}", started)
            except MachineError as error:
                return _differs(recording, error.what, started)
            after = machine.log.path.read_bytes()
    found = compare((recording.folder / CONSOLE).read_bytes(), after, recording.console)
    if found.line:
        what = f"line {found.line} of the console was\n    {found.was}\nand is\n    {found.now}"
        return _differs(recording, what, started)
    seconds = time.monotonic() - started
    how = "up to the panic" if recording.panicked else f"{recording.end or 0:,} instructions"
    print(
        f"same: {how}, {found.lines} lines of console, in {seconds:.1f} s "
        f"(recorded in {recording.seconds:.1f} s)"
    )
    log.info("what the guest printed: %s", os.path.relpath(recording.folder / CONSOLE))
    return Status.GREEN


def _differs(recording: Recording, what: str, started: float) -> int:
    seconds = time.monotonic() - started
    print(f"not the same: {what}\n(after {seconds:.1f} s; recorded in {recording.seconds:.1f} s)")
    return Status.RED


def deadline(recording: Recording) -> Deadline:
    """How long a replay may take."""
    return Deadline(_TIMES * recording.seconds + _SECONDS)


# -- with a debugger ---------------------------------------------------------------

# To go back, QEMU loads the snapshot before and runs on from there. 25 million instructions take
# half a second or less, and a snapshot has some 100 MiB.
_APART, _MOST = 25_000_000, 12
_SNAPSHOT_SECONDS = 120.0
_TRIES, _STEP = 20, 1000  # where a snapshot cannot be taken, and how many instructions later it may


def debug(folder: Path, script: Path | None = None) -> int:
    """Play back a recording to its end, and open gdb there, in which one can go backwards.

    With a ``script`` gdb runs the commands in that file, and ends. Returns gdb's status.
    """
    gdb.require(script)
    recording = recorded.load(folder)
    if recording.end is None:
        raise InputError(
            "the guest has restarted or powered off: at its end there is no machine to look into",
            hint="invoke replay without --debug says whether it does so again",
        )
    with Cache() as cache, cache.scratch("replay") as work, private_socket() as socket:
        image = work / "snapshots.qcow2"
        images.empty_image(image)
        with recorded.replayed(recording, work, snapshots=image) as machine:
            log.info("playing back what took %.0f s to record", recording.seconds)
            machine.process.limit_files(resource.RLIM_INFINITY)
            points = snapshot_points(recording.began, recording.end)
            try:
                for number, point in enumerate(points):
                    if point:
                        recorded.run_to(machine, point, deadline(recording))
                    _take_snapshot(machine, number, recording)
                recorded.run_to(machine, recording.end, deadline(recording))
            except MachineFault as fault:
                why = fault.tail.splitlines()[-1] if fault.tail else fault.what
                raise MachineError(f"the replay does not follow its recording: {why}") from fault
            log.info("at the end of the recording, with %d snapshots to go back to", len(points))
            machine.debugger.listen(socket, Deadline(10))
            about = recording.about
            symbols = gdb.link_symbols(about, about.get("sections", {}), work)
            command = gdb.arguments(recording.spec.kernel, socket, about, symbols, script)
            with gdb.started(command, interactive=script is None) as child:
                return child.wait()


def snapshot_points(began: int, end: int | None) -> list[int]:
    """At which instructions snapshots are taken: at the beginning, and all through the test."""
    if end is None or end <= began:
        return [0]
    apart = max(_APART, (end - began) // _MOST + 1)
    return [0, *(point for point in range(began, end, apart) if point > 0)]


def _take_snapshot(machine: Machine, number: int, recording: Recording) -> None:
    """Take one where the replay stands, or soon after where QEMU cannot take one there."""
    for _ in range(_TRIES):
        said = machine.monitor.human(f"savevm back{number}", Deadline(_SNAPSHOT_SECONDS)).strip()
        if "right now" not in said:
            break
        further = recorded.instructions(machine) + _STEP
        recorded.run_to(machine, further, deadline(recording))
    if said:
        raise MachineError("QEMU does not take a snapshot of the replay", tail=said)
