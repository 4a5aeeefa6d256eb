# SPDX-License-Identifier: GPL-2.0-only
"""`invoke replay`: plays back what a red test has recorded, and compares; or opens gdb in it."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.commands import gdb
from harness.errors import HostError, InputError, MachineError, MachineFault, Status
from harness.host import files
from harness.host.cache import Cache, digest_of
from harness.host.proc import Deadline
from harness.host.text import printable
from harness.machines import recorded
from harness.machines.recorded import CONSOLE, Recording
from harness.qemu import Machine, version_text
from harness.qemu import replay as images
from harness.qemu.debug import private_socket

log = logging.getLogger(__name__)

# A replay may take so many times what its recording took, and so many seconds in addition. Three
# times were seen on a host that was busy.
_TIMES, _SECONDS = 20, 120.0


@dataclass(frozen=True)
class Comparison:
    """The console of a replay, compared with that of its recording.

    ``line`` is the number of the first line that differs, from 1 on, or 0 if none does. ``was`` is
    that line in the recording, and ``now`` in the replay.
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
# half a second or less, and a snapshot has some 100 MiB. Who has come to the end goes back from
# there by small steps, each of which runs on from the last snapshot.
_APART, _MOST = 25_000_000, 12
_BEFORE_END = (5_000_000, 500_000)
_SNAPSHOT_SECONDS = 120.0
_TRIES, _STEP = 20, 1000  # where a snapshot cannot be taken, and how many instructions later it may
_QUIT_SECONDS = 60.0

_KEPT = "snapshots.qcow2"
_KEPT_ABOUT = "snapshots.json"  # there while the snapshots are whole


@dataclass(frozen=True)
class Snapshots:
    """An image for snapshots of a replay; ``last`` names the last one that is in there already.

    ``about`` is where it is noted that they are whole, with ``digest`` for which recording. None:
    they are not kept.
    """

    image: Path
    last: str = ""
    about: Path | None = None
    digest: str = ""

    def keep(self, last: str) -> None:
        """Note that they are whole, and can be begun at."""
        if self.about is not None:
            files.write(self.about, json.dumps({"recording": self.digest, "last": last}))


@contextmanager
def snapshots_of(recording: Recording, cache: Cache, work: Path) -> Iterator[Snapshots]:
    """The snapshots of a recording: those that its last debugger has left, or none yet.

    Only those of one recording are kept, because they take a gigabyte or more. While a debugger has
    them, another one makes its own below ``work``.
    """
    digest = digest_of({
        "recipe": 1, "spec": recording.spec.as_json(), "qemu": version_text(),
        "log": hashlib.sha256((recording.folder / recorded.LOG).read_bytes()).hexdigest(),
    })  # fmt: skip
    with ExitStack() as ends:
        try:
            folder = ends.enter_context(cache.workdir("replay", wait=0))
        except HostError:
            image = work / _KEPT
            images.empty_image(image)
            yield Snapshots(image)
            return
        about, image = folder / _KEPT_ABOUT, folder / _KEPT
        last = _last_of(about, digest) if image.exists() else ""
        about.unlink(missing_ok=True)  # from now on QEMU may write to them
        if not last:
            images.empty_image(image)
        yield Snapshots(image, last, about, digest)


def _last_of(about: Path, digest: str) -> str:
    """The name of the last snapshot that is kept of this recording, if any is."""
    try:
        said = json.loads(about.read_text())
        return str(said["last"]) if said["recording"] == digest else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def debug(folder: Path, script: Path | None = None, *, with_symbols: bool = False) -> int:
    """Play back a recording to its end, and open gdb there, in which one can go backwards.

    With a ``script`` gdb runs the commands in that file, and ends. ``with_symbols``: it has the
    kernel's own, also where they have to be downloaded. Returns gdb's status.
    """
    gdb.require(script)
    recording = recorded.load(folder)
    if recording.end is None:
        raise InputError(
            "the guest has restarted or powered off: at its end there is no machine to look into",
            hint="invoke replay without --debug says whether it does so again",
        )
    with Cache() as cache, cache.scratch("replay") as work:
        about = gdb.with_symbols(recording.about, cache, wanted=with_symbols)
        return _debug(recording, about, cache, work, script)


def _debug(
    recording: Recording, about: Mapping[str, Any], cache: Cache, work: Path, script: Path | None
) -> int:
    assert recording.end is not None
    with (
        private_socket() as socket,
        snapshots_of(recording, cache, work) as snapshots,
        recorded.replayed(
            recording, work, snapshots=snapshots.image, begin=snapshots.last
        ) as machine,
    ):
        machine.process.limit_files(resource.RLIM_INFINITY)
        last = snapshots.last or play_back(machine, recording, recording.end)
        recorded.run_to(machine, recording.end, deadline(recording))
        log.info("at the end of the recording")
        machine.debugger.listen(socket, Deadline(10))
        symbols = gdb.link_symbols(about, about.get("sections", {}), work)
        command = gdb.arguments(recording.spec.kernel, socket, about, symbols, script)
        with gdb.started(command, interactive=script is None) as child:
            status = child.wait()
        end_with_snapshots(machine, snapshots, last)
        return status


def end_with_snapshots(machine: Machine, snapshots: Snapshots, last: str) -> None:
    """End a machine, and keep its snapshots for the next time.

    They are whole only once QEMU has ended by itself. Where it does not, because gdb has killed it,
    say, they are made again the next time.
    """
    with suppress(MachineError):
        machine.execute("quit", Deadline(_QUIT_SECONDS))
        machine.process.wait(Deadline(_QUIT_SECONDS))
        snapshots.keep(last)


def play_back(machine: Machine, recording: Recording, end: int) -> str:
    """Take snapshots on the way to the end; the last one's name."""
    log.info("playing back what took %.0f s to record", recording.seconds)
    points = snapshot_points(recording.began, end)
    names = [f"back{number}" for number in range(len(points))]
    try:
        for name, point in zip(names, points, strict=True):
            if point:
                recorded.run_to(machine, point, deadline(recording))
            _take_snapshot(machine, name, recording)
    except MachineFault as fault:
        why = fault.tail.splitlines()[-1] if fault.tail else fault.what
        raise MachineError(f"the replay does not follow its recording: {why}") from fault
    log.info("with %d snapshots to go back to", len(points))
    return names[-1]


def snapshot_points(began: int, end: int | None) -> list[int]:
    """At which instructions snapshots are taken: at the beginning, and all through the test."""
    if end is None or end <= began:
        return [0]
    apart = max(_APART, (end - began) // _MOST + 1)
    points = [point for point in range(began, end, apart) if point > 0]
    last = max(points, default=0)
    points += [end - before for before in _BEFORE_END if end - before > last]
    return [0, *points]


def _take_snapshot(machine: Machine, name: str, recording: Recording) -> None:
    """Take one where the replay stands, or soon after where QEMU cannot take one there."""
    for _ in range(_TRIES):
        said = machine.monitor.human(f"savevm {name}", Deadline(_SNAPSHOT_SECONDS)).strip()
        if "right now" not in said:
            break
        further = recorded.instructions(machine) + _STEP
        recorded.run_to(machine, further, deadline(recording))
    if said:
        raise MachineError("QEMU does not take a snapshot of the replay", tail=said)
