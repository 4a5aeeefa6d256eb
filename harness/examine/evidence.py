# SPDX-License-Identifier: GPL-2.0-only
"""Asks a machine what there is to know of it, for a verdict: its log, its taint, what is left."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from harness.build import dkms
from harness.build.module import INSIDE, Module
from harness.errors import ConsoleSilent, HarnessError, HostError, MachineError
from harness.examine import locks, symbols
from harness.examine.audit import Audit
from harness.examine.registries import Finding
from harness.host.proc import Deadline
from harness.judge.verdict import Evidence, Expectation, LostMemory, Problem, Remain, Verdict
from harness.machines.clone import MARK_SECONDS, Baseline
from harness.qemu import Machine

log = logging.getLogger(__name__)

_DIED = 1 << 7  # the taint of an oops
_ENDED = "ended:"  # of what does not go on: a lock whose owner has ended
_NUMBER = re.compile(r"0x[0-9a-f]{16}")


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
    looking = None if timed_out or taint & _DIED else audit
    if looking:
        said.remains = looking.remains(patience(machine))
    # What a task held that an oops has ended, nobody gives back.
    if probing and not said.remains and not taint & _DIED:
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
        *(f"{_ENDED}{name}" for name in ended if name not in named),
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


def with_names(
    seen: Evidence, facts: Mapping[str, Any], module: Module, audit: Audit | None = None
) -> Evidence:
    """The evidence with a module's names where it has only addresses.

    What is found when the module is unloaded is without them, as the kernel does not know them
    any more. They are those of where ``audit`` has seen the module last; else of the template
    that it was loaded in, whose ``facts`` say that.
    """
    ended = [probe for probe in seen.probes if probe.startswith(_ENDED)]
    if not (seen.leaks or seen.remains or seen.lost or ended):
        return seen
    for each in module.objects:
        sections = audit.sections.get(each.name, {}) if audit else {}
        sections = sections or facts.get("sections", {}).get(each.name, {})
        try:
            known = symbols.definitions(module.kernel.sysroot, each.ko)
            if not sections and seen.lost:
                stacks = [one.stack for one in seen.lost]
                sections = symbols.find_sections(module.kernel.sysroot, each.ko, stacks, known)
            if not sections:
                continue
            functions = _functions(known)
            stacks = [symbols.named(one.stack, functions, sections, each.name) for one in seen.lost]
        except HarnessError as error:
            log.warning("what the module left behind has no names: %s", error)
            continue
        remains = []
        for one in seen.remains:
            found = symbols.defined_at(one.address, known, sections)
            named = replace(one, what=found.symbol.name, location=found.location) if found else one
            remains.append(named)
        probes = tuple(_NUMBER.sub(functools.partial(_lock, known, sections), one)
                       if one in ended else one for one in seen.probes)  # fmt: skip
        leaks = symbols.named(seen.leaks, functions, sections, each.name)
        lost = [replace(one, stack=stack) for one, stack in zip(seen.lost, stacks, strict=True)]
        seen = replace(seen, leaks=leaks, remains=tuple(remains), lost=tuple(lost), probes=probes)
    return _of_a_life_nobody_saw(seen, module)


def _of_a_life_nobody_saw(seen: Evidence, module: Module) -> Evidence:
    """The evidence with names for what was allocated where no module was seen.

    An init that has failed after an earlier life of the module was somewhere else. Of several
    modules it is the one whose code fits the addresses, if there is only one.
    """
    bare = list(dict.fromkeys(one.stack for one in seen.lost if symbols.has_bare(one.stack)))
    if not bare:
        return seen
    fitting: dict[str, list[str]] = {stack: [] for stack in bare}
    for each in module.objects:
        try:
            known = symbols.definitions(module.kernel.sysroot, each.ko)
            for stack in bare:
                # The more there are of one module, the surer it is where that was.
                of = bare if len(module.objects) == 1 else [stack]
                there = symbols.find_sections(module.kernel.sysroot, each.ko, of, known)
                named = symbols.named(stack, _functions(known), there, each.name)
                if not symbols.has_bare(named):
                    fitting[stack].append(named)
        except HarnessError as error:
            log.warning("what the module left behind has no names: %s", error)
            return seen
    only = {stack: found[0] for stack, found in fitting.items() if len(found) == 1}
    lost = [replace(one, stack=only.get(one.stack, one.stack)) for one in seen.lost]
    return replace(seen, lost=tuple(lost))


def _functions(known: Sequence[symbols.Definition]) -> list[symbols.Symbol]:
    """The functions; an init has a second name, which is not the source's, and comes last."""
    functions = [one.symbol for one in known if one.is_function]
    return sorted(functions, key=lambda one: one.name in ("init_module", "cleanup_module"))


def _lock(
    known: Sequence[symbols.Definition], sections: Mapping[str, str], address: re.Match[str]
) -> str:
    """What a module calls the lock at an address; the address where none is known to be there.

    A module's variable may be laid out as a lock: a thread's task, and behind it the wait queue
    that it sleeps in. So it has to be as large as a lock, too, and begin where one would.
    """
    at = int(address[0], 16)
    found = symbols.defined_at(at, known, sections)
    if found is None:
        return address[0]
    start = int(sections[found.symbol.section], 16) + found.symbol.value
    is_lock = (at - start, found.symbol.size) in locks.VARIABLES
    return found.symbol.name if is_lock else address[0]


def explain(
    problems: Sequence[Problem],
    module: Module | None,
    facts: Mapping[str, Any] | None = None,
    audit: Audit | None = None,
) -> list[Problem]:
    """The problems with file:line for what is in ``module``, where one was built.

    Files of a module are named as in its own folder, rather than as in the sandbox it was
    built in. ``facts`` and ``audit`` are as in ``with_names``: they say where it was.
    """
    explained = symbols.explain(problems, module) if module and problems else problems
    if module:
        explained = [_of_what_is_gone(one, module, facts or {}, audit) for one in explained]
        explained = [_of_a_list(one, module, facts or {}, audit) for one in explained]
        explained = [_at_the_end_of_exit(one, module) for one in explained]
        explained = _with_other_arguments(explained, module)
    return [replace(one, detail=dkms.own_paths(one.detail, INSIDE)) for one in explained]


# The address that nothing is at (arch/x86/mm/fault.c, show_fault_oops()).
_NOT_THERE = re.compile(
    r"BUG: unable to handle .{0,60}(?:for address:|at) (?:0x)?([0-9a-f]{16})\n(?:.*\n){0,6}?"
    r".*not-present page"
)
# Who in the kernel uses what a module has left there, and what was not called.
_USERS = (
    (r"hrtimer|timerqueue", "hrtimer_cancel()"),
    (r"delayed_work_timer|process_one_work|worker_thread|insert_work",
     "cancel_work_sync() or cancel_delayed_work_sync()"),
    (r"timer_fn|run_timer|expire_timers|mod_timer|collect_expired", "timer_delete_sync()"),
    (r"tasklet_action", "tasklet_kill()"),
    (r"notifier_call_chain", "the unregister function of its notifier"),
    (r"irq_event|handle_irq", "free_irq()"),
    (r"nf_hook", "nf_unregister_net_hook()"),
)  # fmt: skip
# A thread that runs in code that is gone: nothing is between that and its beginning.
_THREAD = re.compile(r"Call Trace:\n(?:.*<TASK>\n)?.* kthread\+")


def _of_what_is_gone(
    problem: Problem, module: Module, facts: Mapping[str, Any], audit: Audit | None
) -> Problem:
    """An oops with the name of what it is about, where that is of a module that is gone.

    The kernel does not know the names of one any more, so that its report has only an address.
    """
    found = _NOT_THERE.search(problem.detail)
    if not found or problem.location:
        return problem
    there = _own_variable(int(found[1], 16), module, facts, audit)
    if there is None:
        return problem
    name = there.symbol.name
    after = "init has ended" if there.symbol.section.startswith(".init") else "rmmod"
    title = f"{problem.title}: {name} is not there any more after {after}"
    undo = _forgotten(problem.detail, problem.function or "")
    if undo and after == "rmmod":
        title += f", and {undo} was not called"
    return replace(problem, title=title, function=name, location=there.location, defined=True)


# lib/list_debug.c, __list_add_valid_or_report(): a neighbour whose links do not fit.
_NEIGHBOUR = re.compile(
    r"list_add corruption\. .{0,160}, but was 0{16}\. \((?:prev|next)=([0-9a-f]{16})\)"
)


def _of_a_list(
    problem: Problem, module: Module, facts: Mapping[str, Any], audit: Audit | None
) -> Problem:
    """A report of a corrupted list with the name of the module's own element that is in it.

    The element is all zeros, as a variable is when its module has just been loaded. So it was put
    into the list before: an earlier life of the module was at the same place, and has left it
    there.
    """
    found = _NEIGHBOUR.search(problem.detail)
    there = _own_variable(int(found[1], 16), module, facts, audit) if found else None
    if there is None:
        return problem
    name = there.symbol.name
    title = f"{problem.title}: {name} was still in it when the module was loaded once more"
    return replace(problem, title=title, function=name, location=there.location, defined=True)


def _own_variable(
    address: int, module: Module, facts: Mapping[str, Any], audit: Audit | None
) -> symbols.Definition | None:
    """What of a module is at an address; ``facts`` and ``audit`` are as in ``with_names``."""
    for each in module.objects:
        sections = audit.sections.get(each.name, {}) if audit else {}
        sections = sections or facts.get("sections", {}).get(each.name, {})
        if not sections:
            continue
        try:
            known = symbols.definitions(module.kernel.sysroot, each.ko)
        except HarnessError as error:
            log.warning("what is at %#x has no name: %s", address, error)
            continue
        there = symbols.defined_at(address, known, sections)
        if there is not None:
            return there
    return None


def _forgotten(report: str, function: str) -> str:
    """What was not called, by the innermost function that uses what is gone; "" if none tells.

    Where the kernel is sure of no call on the stack, as in code that is gone, ``function`` is the
    likeliest.
    """
    calls = [line for line in report.splitlines() if "+0x" in line and " ? " not in line]
    users = (
        undo for line in calls or [function] for pattern, undo in _USERS if re.search(pattern, line)
    )
    thread = _THREAD.search(report) or (not calls and function == "kthread")
    return next(users, "kthread_stop()" if thread else "")


# What was not called, as the titles of what is left say it, and one of the calls.
_NOT_CALLED = re.compile(r": ([^:;]*\(\)[^:;]*) was not called")
_CALL = re.compile(r"(\w+)\(\)")
# What such a call is compiled to, where the kernel's headers make another one of it than the same
# name after two underscores (linux/ioport.h).
_COMPILED_TO = {"release_mem_region": "__release_region", "release_region": "__release_region"}


def _with_other_arguments(problems: Sequence[Problem], module: Module) -> list[Problem]:
    """What is left, where the module has the call that would have taken it away.

    Perhaps it was made, and for less than was registered, or for something else. That cannot be
    told from what is left.
    """
    left = [one for one in problems if one.verdict is Verdict.RESIDUE]
    if not any(_NOT_CALLED.search(one.title) for one in left):
        return list(problems)
    calls: set[str] = set()
    for each in module.objects:
        try:
            calls |= symbols.imported(module.kernel.sysroot, each.ko)
        except HarnessError as error:
            log.warning("what the module calls is not known: %s", error)

    def told(missing: re.Match[str]) -> str:
        # "what undoes register_it()" is a call that was made.
        names = [] if missing[1].startswith("what undoes ") else _CALL.findall(missing[1])
        made = any({name, f"__{name}", _COMPILED_TO.get(name, name)} & calls for name in names)
        return f"{missing[0]}, or not with the right arguments" if made else missing[0]

    return [
        replace(one, title=_NOT_CALLED.sub(told, one.title)) if one in left else one
        for one in problems
    ]


# What the kernel itself calls while it unloads a module, beside the module's exit
# (kernel/module/main.c). The call that an exit function ends with returns to the kernel.
_UNLOADS = re.compile(r"^.*\b__(?:do_sys|x64_sys|se_sys)_delete_module\+", re.MULTILINE)
_NOT_EXIT = re.compile(
    r"\b(?:free_module|notifier_call_chain|klp_|ftrace_|async_synch|try_stop|stop_machine)\w*\+"
)


def _at_the_end_of_exit(problem: Problem, module: Module) -> Problem:
    """A report with the place of exit, where that has called last what the report is about.

    The compiler makes a jump of such a call, so that nothing of the module is on the stack.
    """
    before = _UNLOADS.split(problem.detail, maxsplit=1)
    if problem.location or len(before) != 2 or len(module.objects) != 1:
        return problem
    if _NOT_EXIT.search(before[0]) or f"[{module.objects[0].name}]" in problem.detail:
        return problem
    try:
        known = symbols.definitions(module.kernel.sysroot, module.objects[0].ko)
    except HarnessError as error:
        log.warning("exit has no name: %s", error)
        return problem
    at = next((one.symbol for one in known if one.symbol.name == "cleanup_module"), None)
    own = [
        one
        for one in known
        if at and one.symbol.name != at.name
        and (one.symbol.section, one.symbol.value) == (at.section, at.value)
    ]  # fmt: skip
    if not own:
        return problem
    name = own[0].symbol.name
    title = f"{problem.title}, called at the end of {name}"
    return replace(problem, title=title, function=name, location=own[0].location, defined=True)
