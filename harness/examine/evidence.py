# SPDX-License-Identifier: GPL-2.0-only
"""Asks a machine what there is to know of it, for a verdict: its log, its taint, what is left.

Its answers have addresses where a module is gone; ``harness.examine.explain`` names them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from harness.errors import ConsoleSilent, HarnessError, HostError, MachineError
from harness.examine.audit import Audit
from harness.examine.registries import Finding
from harness.host.proc import Deadline
from harness.judge.verdict import OOPS_TAINT, Evidence, Expectation, LostMemory, Remain
from harness.machines.clone import MARK_SECONDS, Baseline
from harness.qemu import Machine

ENDED = "ended:"  # of what does not go on: a lock whose owner has ended
# Seconds. vm/agent gives each of its probes, a dozen and one for each CPU, some seconds (STUCK).
PROBES_SECONDS = 120.0
# Where the host has kept a virtual CPU waiting for so long in all, a probe may take so long: less
# than it takes the kernel to report a lockup.
_STARVED_SECONDS, _STARVED_LIMIT = 2.0, 12.0


def patience(machine: Machine) -> Deadline:
    """How long a healthy guest may take to answer."""
    return machine.patience(MARK_SECONDS)


def gather(
    machine: Machine,
    baseline: Baseline,
    *,
    timed_out: str = "",
    expected: tuple[Expectation, ...] = (),
    declared: int = 0,
    last: bool = False,
    probing: bool = True,
    unrecorded: bool = False,
    audit: Audit | None = None,
) -> Evidence:
    """Ask a machine how it is, whatever its state; it is judged from ``baseline`` on.

    ``declared``: the taint flags that its modules may set. ``last``: nobody uses the machine
    after this, so its processes may be ended. ``probing``: find out whether everything in its
    kernel goes on, which takes the longest. ``unrecorded``: the record of allocations may run
    over. ``audit`` looks through its memory.
    """
    since = baseline.console_offset
    said = _Said()
    moving, fault = None, ""
    if machine.running and not machine.panicked:
        try:
            _ask(machine, said, audit, timed_out=timed_out, last=last, probing=probing)
        except MachineError as error:
            said.taint = None
            if isinstance(error, HostError):
                fault = str(error)
            with suppress(MachineError, OSError):  # QEMU may end meanwhile
                moving = machine.vcpu_is_busy()
    stopped = bool(audit and said.asked and audit.record_has_stopped())
    lost = audit.take_lost() if audit else ()
    taint = said.taint
    marked = taint is not None and not said.silent
    seen = Evidence(
        console=machine.console_text()[since:],
        taint_before=baseline.taint,
        taint_after=taint,
        reported=baseline.reported,
        panicked=machine.panicked,
        running=machine.running,
        timed_out=timed_out,
        moving=moving,
        expected=tuple(
            replace(one, start=one.start - since, end=one.end - since) for one in expected
        ),
        left=said.left,
        busy=said.busy,
        unasked=machine.agent.take_unasked(),
        declared=declared,
        unread=machine.log.unread,
        silent=said.silent,
        unprinted=_unprinted(machine, audit, marked=marked),
        fault=fault or machine.fault,
        full=machine.log.full,
        stacks=said.stacks,
        probes=said.probes,
        leaks=said.leaks,
        stalls=tuple((start - since, seconds) for start, seconds in machine.stalls),
        remains=tuple(Remain(one.holder, one.pointer.to, one.forgotten) for one in said.remains),
        lost=tuple(
            LostMemory(one.size, one.call, one.stack, one.more, one.held, one.undo)
            for one in (() if stopped else lost)  # it may have been freed and handed out again
        ),
        unrecorded=bool(audit and audit.take_incomplete()) and not unrecorded,
        stopped=stopped and not unrecorded,
        counted=said.counted,
    )
    _counted(audit)  # what comes while the log is read may be in it already, and is no news
    return seen


@dataclass
class _Said:
    """What a guest has said so far; the fields are those of ``Evidence``."""

    taint: int | None = None
    silent: bool = False
    left: frozenset[str] | None = None
    busy: tuple[str, ...] = ()
    stacks: str = ""
    leaks: str = ""
    probes: tuple[str, ...] = ()
    remains: tuple[Finding, ...] = ()
    counted: int = 0  # what the kernel had counted before its log was read
    asked: bool = False  # what is left, after the last look: that opens files, which is recorded


def _ask(
    machine: Machine, said: _Said, audit: Audit | None, *, timed_out: str, last: bool, probing: bool
) -> None:
    """Ask a guest for all that ``gather`` wants; raises ``MachineError`` where it does not answer.

    What it has said until then is in ``said``.
    """
    # Before the mark: what is counted now is in the log up to there.
    said.counted = _counted(audit)
    taint, said.silent = _mark(machine)
    said.taint = taint
    if timed_out:
        said.stacks = machine.agent.stacks(patience(machine))
    if said.silent:
        return  # the next mark would be waited for in vain as well
    if audit and audit.untouched():
        said.left = frozenset()  # no module was there that could have left anything
        return
    # First what is looked at from outside: what still points into a module that is gone may crash
    # the kernel as soon as somebody in the guest asks for it. Where a command does not end, memory
    # is in motion.
    looking = None if timed_out or taint & OOPS_TAINT else audit
    if looking:
        said.remains = looking.remains(patience(machine))
    # What a task held that an oops has ended, nobody gives back.
    if probing and not said.remains and not taint & OOPS_TAINT:
        said.probes = _probe(machine, audit)
    if said.probes:
        if not timed_out:
            said.stacks = machine.agent.stacks(patience(machine))
        return  # looking for what is left needs the same locks, so that it might not end either
    careful = bool(said.remains or (audit and audit.held))  # each is told once, and stays
    seen = audit.seen() if audit else None
    found = machine.agent.leftovers(patience(machine), careful=careful, seen=seen)
    said.asked = not (found.mixed and last)  # else it is looked at once more, at the end
    if found.mixed and last:
        found = machine.agent.leftovers(patience(machine), end=True, seen=seen)
        said.taint = machine.agent.mark(patience(machine))  # what unloading has brought up
        said.busy = found.busy
        if looking:
            said.remains += looking.remains(patience(machine))
    if not found.loaded:
        said.left = found.names
        said.leaks = machine.agent.leaks(patience(machine))


def _probe(machine: Machine, audit: Audit | None) -> tuple[str, ...]:
    """What of the guest's kernel does not go on."""
    # First, as the guest begins processes to find out the rest: one of them may get the memory of
    # the task that has ended, so that it seems to be the lock's owner.
    ended = audit.kept_by_ended(patience(machine)) if audit else ()
    found = machine.agent.probes(machine.patience(PROBES_SECONDS))
    if found and machine.cpus.kept_waiting() > _STARVED_SECONDS:
        # The guest cannot know that the host did not let it run: once more, with more time.
        deadline = machine.patience(PROBES_SECONDS)
        found = machine.agent.probes(deadline, limit=_STARVED_LIMIT)
    if audit is None:
        return found
    kept = audit.kept_by_readers(patience(machine))
    named = {name for kind, _, name in (probe.partition(":") for probe in found) if kind == "lock"}
    return (
        *found,
        *(f"lock:{name}" for name in kept),
        *(f"{ENDED}{name}" for name in ended if name not in named),
    )


def _counted(audit: Audit | None) -> int:
    """``Audit.counted`` where a module was; 0 where QEMU has ended, of which others tell."""
    try:
        return audit.counted() if audit and not audit.untouched() else 0
    except (HarnessError, OSError):
        return 0


def _mark(machine: Machine) -> tuple[int, bool]:
    """The taint flags, and whether what the kernel logs does not reach the console."""
    try:
        return machine.agent.mark(patience(machine)), False
    except ConsoleSilent as error:
        return error.taint, True


def _unprinted(machine: Machine, audit: Audit | None, *, marked: bool) -> tuple[str, ...]:
    """What the kernel's log has and its console does not.

    Where there was no module, and the log reaches the console, nobody had a reason to hide it.
    """
    if audit is None or not machine.running or (marked and audit.untouched()):
        return ()
    return audit.unprinted(marked=marked)
