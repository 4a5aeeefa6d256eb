# SPDX-License-Identifier: GPL-2.0-only
"""`invoke replay`: plays back what a red test has recorded, and compares."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MachineError, MachineFault, Status
from harness.host.cache import Cache
from harness.host.proc import Deadline
from harness.host.text import printable
from harness.machines import recorded
from harness.machines.recorded import CONSOLE, Recording

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
    was, now = before[:end].splitlines(), after.splitlines()
    for number in range(max(len(was), len(now))):
        one = was[number] if number < len(was) else None
        other = now[number] if number < len(now) else None
        if one != other:
            return Comparison(len(now), number + 1, _shown(one), _shown(other))
    return Comparison(len(now), len(now), "", "")


def _shown(line: bytes | None) -> str:
    return "(nothing)" if line is None else printable(line.decode(errors="replace"))[:200]


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
