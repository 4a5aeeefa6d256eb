# SPDX-License-Identifier: GPL-2.0-only
"""Says in a module's own words what evidence and problems have only as addresses.

The kernel forgets a module's symbols when it is unloaded. What still points into it, what it has
lost, and an oops in its code that is gone, are then numbers. They are turned into names and
file:line with the module's .ko and the sections where it was, and where the report tells it, into
the call that was forgotten.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.build import dkms
from harness.build.module import INSIDE, Module, ModuleObject
from harness.errors import HarnessError
from harness.examine import locks, symbols
from harness.examine.audit import Audit
from harness.examine.evidence import ENDED
from harness.judge import phrases
from harness.judge.verdict import Evidence, Problem, Verdict

log = logging.getLogger(__name__)

_NUMBER = re.compile(r"0x[0-9a-f]{16}")


def with_names(
    seen: Evidence, facts: Mapping[str, Any], module: Module, audit: Audit | None = None
) -> Evidence:
    """The evidence with a module's names where it has only addresses.

    Leaks, references, lost memory and locks are found after the module is unloaded, when the kernel
    does not know its names any more. ``facts`` and ``audit`` say where it was: see ``_sections``.
    What cannot be named stays an address, and a warning is logged where a .ko cannot be read.
    """
    ended = [probe for probe in seen.probes if probe.startswith(ENDED)]
    if not (seen.leaks or seen.remains or seen.lost or ended):
        return seen
    for each in module.objects:
        sections = _sections(each, facts, audit)
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
        probes = tuple(_NUMBER.sub(functools.partial(_lock_name, known, sections), one)
                       if one in ended else one for one in seen.probes)  # fmt: skip
        leaks = symbols.named(seen.leaks, functions, sections, each.name)
        lost = [replace(one, stack=stack) for one, stack in zip(seen.lost, stacks, strict=True)]
        seen = replace(seen, leaks=leaks, remains=tuple(remains), lost=tuple(lost), probes=probes)
    return _with_names_by_fit(seen, module)


def _sections(
    each: ModuleObject, facts: Mapping[str, Any], audit: Audit | None
) -> Mapping[str, str]:
    """Where the sections of one .ko were: name to address, in hexadecimal; {} if nobody knows.

    ``audit`` has seen where the module was last. If it has not seen it, it was where it is in the
    template that it was loaded in: that template's ``facts`` say where.
    """
    last = audit.sections.get(each.name, {}) if audit else {}
    return last or facts.get("sections", {}).get(each.name, {})


def _with_names_by_fit(seen: Evidence, module: Module) -> Evidence:
    """The evidence with names for lost memory whose stacks are outside all known sections.

    Nobody sees where a module was whose init has failed. It is the .ko in whose code all addresses
    of the stack follow a call, if there is only one such .ko.
    """
    bare = list(dict.fromkeys(one.stack for one in seen.lost if symbols.has_bare(one.stack)))
    if not bare:
        return seen
    fitting: dict[str, list[str]] = {stack: [] for stack in bare}
    for each in module.objects:
        try:
            known = symbols.definitions(module.kernel.sysroot, each.ko)
            for stack in bare:
                # More addresses leave fewer places that fit. All stacks are of one .ko only where
                # there is no other.
                stacks = bare if len(module.objects) == 1 else [stack]
                sections = symbols.find_sections(module.kernel.sysroot, each.ko, stacks, known)
                named = symbols.named(stack, _functions(known), sections, each.name)
                if not symbols.has_bare(named):
                    fitting[stack].append(named)
        except HarnessError as error:
            log.warning("what the module left behind has no names: %s", error)
            return seen
    only = {stack: found[0] for stack, found in fitting.items() if len(found) == 1}
    lost = [replace(one, stack=only.get(one.stack, one.stack)) for one in seen.lost]
    return replace(seen, lost=tuple(lost))


def _functions(known: Sequence[symbols.Definition]) -> list[symbols.Symbol]:
    """The functions. The names that module_init() and module_exit() add come last.

    Both are aliases: ``init_module`` has the address of the source's own init function, whose name
    says more.
    """
    functions = [one.symbol for one in known if one.is_function]
    return sorted(functions, key=lambda one: one.name in ("init_module", "cleanup_module"))


def _lock_name(
    known: Sequence[symbols.Definition], sections: Mapping[str, str], address: re.Match[str]
) -> str:
    """The name of the lock whose owner field is at an address; the address if that is no lock.

    Other variables look like a lock in memory: a pointer to a task, followed by a wait queue. So
    the variable must also have the size of a lock, and the address the offset of its owner field.
    """
    owner = int(address[0], 16)
    found = symbols.defined_at(owner, known, sections)
    if found is None:
        return address[0]
    start = int(sections[found.symbol.section], 16) + found.symbol.value
    is_lock = (owner - start, found.symbol.size) in locks.VARIABLES
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
        explained = [_with_vanished_variable(one, module, facts or {}, audit) for one in explained]
        explained = [_with_stale_list_element(one, module, facts or {}, audit) for one in explained]
        explained = [_with_tail_call_of_exit(one, module) for one in explained]
        explained = _with_where_it_was_made(explained, module)
        explained = _with_calls_that_the_module_has(explained, module)
    return [replace(one, detail=dkms.own_paths(one.detail, INSIDE)) for one in explained]


# An access to an address that is not mapped (arch/x86/mm/fault.c, show_fault_oops()).
_NOT_THERE = re.compile(
    r"BUG: unable to handle .{0,60}(?:for address:|at) (?:0x)?([0-9a-f]{16})\n(?:.*\n){0,6}?"
    r".*not-present page"
)
# Functions of the kernel that use what a module has registered, and the call that takes it away.
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
# A thread that runs in code that is gone: the stack has nothing above the thread's entry.
_THREAD = re.compile(r"Call Trace:\n(?:.*<TASK>\n)?.* kthread\+")
_KTHREAD = re.compile(r" kthread\+")


def _with_vanished_variable(
    problem: Problem, module: Module, facts: Mapping[str, Any], audit: Audit | None
) -> Problem:
    """An oops with the name of the module's variable or function that it wanted to use.

    The module is gone, so that the kernel's report has only the address.
    """
    found = _NOT_THERE.search(problem.detail)
    if not found or problem.location:
        return problem
    there = _definition_at(int(found[1], 16), module, facts, audit)
    if there is None:
        return problem
    name = there.symbol.name
    after = "init has ended" if there.symbol.section.startswith(".init") else "rmmod"
    title = f"{problem.title}: {name} {phrases.GONE} {after}"
    undo = _missing_call(problem.detail, problem.function or "")
    if undo and after == "rmmod":
        title += f", and {undo} was not called"
    return replace(problem, title=title, function=name, location=there.location, defined=True)


# lib/list_debug.c, __list_add_valid_or_report(): the neighbour's link is NULL.
_NEIGHBOUR = re.compile(
    r"list_add corruption\. .{0,160}, but was 0{16}\. \((?:prev|next)=([0-9a-f]{16})\)"
)


def _with_stale_list_element(
    problem: Problem, module: Module, facts: Mapping[str, Any], audit: Audit | None
) -> Problem:
    """A report of a corrupted list with the name of the module's own element that is in it.

    The element is all zeros, as a variable is when its module has just been loaded. So it was put
    into the list before: an earlier life of the module was at the same place, and has left it
    there.
    """
    found = _NEIGHBOUR.search(problem.detail)
    there = _definition_at(int(found[1], 16), module, facts, audit) if found else None
    if there is None:
        return problem
    name = there.symbol.name
    title = f"{problem.title}: {name} {phrases.STILL_LISTED}"
    return replace(problem, title=title, function=name, location=there.location, defined=True)


def _definition_at(
    address: int, module: Module, facts: Mapping[str, Any], audit: Audit | None
) -> symbols.Definition | None:
    """The module's symbol at an address, or None; ``facts``, ``audit``: see ``_sections``."""
    for each in module.objects:
        sections = _sections(each, facts, audit)
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


def _missing_call(report: str, function: str) -> str:
    """The call that was forgotten, by the innermost function of ``_USERS``; "" if there is none.

    In code that is gone the unwinder marks every frame as unsure ("? "). Then ``function``, whom
    the report blames, decides, and else whether a thread of its own is all that the guesses show.
    """
    frames = [line for line in report.splitlines() if "+0x" in line]
    guesses = [line for line in frames if " ? " in line]
    calls = [line for line in frames if line not in guesses]
    users = (undo for line in calls or [function] for undo in _undone_by(line))
    thread = _THREAD.search(report)
    if not calls and not any(_undone_by(line) for line in guesses):
        thread = next(filter(None, (_KTHREAD.search(line) for line in guesses)), None)
    return next(users, "kthread_stop()" if thread else "")


def _undone_by(line: str) -> list[str]:
    """The calls of ``_USERS`` that a line of a stack speaks for."""
    return [undo for pattern, undo in _USERS if re.search(pattern, line)]


_CALL = re.compile(r"(\w+)\(\)")
# Calls that are macros of others (linux/ioport.h). The usual form, the same name after two
# underscores, is not listed.
_COMPILED_TO = {"release_mem_region": "__release_region", "release_region": "__release_region"}


def _with_calls_that_the_module_has(problems: Sequence[Problem], module: Module) -> list[Problem]:
    """The problems; where the module imports the call that is said to be missing, that is added.

    Then it may have been called for less than was registered, or for something else. What is left
    does not tell which.
    """
    left = [one for one in problems if one.verdict is Verdict.RESIDUE]
    if not any(phrases.NOT_CALLED.search(one.title) for one in left):
        return list(problems)
    calls: set[str] = set()
    for each in module.objects:
        try:
            calls |= symbols.imported(module.kernel.sysroot, each.ko)
        except HarnessError as error:
            log.warning("what the module calls is not known: %s", error)

    def told(missing: re.Match[str]) -> str:
        # "what undoes register_it()" names the call that was made, not the one that is missing.
        names = [] if missing[1].startswith("what undoes ") else _CALL.findall(missing[1])
        made = any({name, f"__{name}", _COMPILED_TO.get(name, name)} & calls for name in names)
        return f"{missing[0]}, or not with the right arguments" if made else missing[0]

    return [
        replace(one, title=phrases.NOT_CALLED.sub(told, one.title)) if one in left else one
        for one in problems
    ]


# What makes a thing that is left, by the call that takes it away (judge/verdict.py, _UNDO).
_MADE_BY = {
    "unregister_chrdev_region": r"(?:alloc|register)_chrdev_region|(?:tty|uart)_register_driver",
    "unregister_chrdev": r"__register_chrdev",
    "kmem_cache_destroy": r"_*kmem_cache_create\w*",
    "class_destroy": r"_*class_create",
    "class_unregister": r"_*class_register",
    "bus_unregister": r"bus_register",
    "driver_unregister": r"driver_register|\w+_register_driver|\w+_driver_register",
    "device_destroy": r"device_create\w*",
    "device_unregister": r"device_(?:register|add)",
    "root_device_unregister": r"__root_device_register",
    "platform_device_unregister": r"platform_device_(?:register\w*|add)",
    "misc_deregister": r"misc_register",
    "unregister_filesystem": r"register_filesystem",
    "unregister_sysctl_table": r"_*register_sysctl\w*",
    "remove_proc_entry": r"proc_(?:create|mkdir|symlink)\w*",
    "debugfs_remove": r"debugfs_create_\w+",
    "release_mem_region": r"__request_region",
    "release_region": r"__request_region",
    "kthread_stop": r"kthread_create_on_\w+",
    "destroy_workqueue": r"alloc_workqueue\w*",
}


def _with_where_it_was_made(problems: Sequence[Problem], module: Module) -> list[Problem]:
    """The problems; where what is left has no place, with the line of the module that made it.

    The lists of the kernel's have only names. There is a place where just one line of all the
    module's calls what makes such a thing.
    """
    return [_made_at(one, module) if _has_no_place(one) else one for one in problems]


def _has_no_place(problem: Problem) -> bool:
    return problem.verdict is Verdict.RESIDUE and not problem.function and not problem.location


def _made_at(problem: Problem, module: Module) -> Problem:
    missing = phrases.NOT_CALLED.search(problem.title)
    if missing is None:
        return problem
    listed = problem.title[: missing.start()].partition(phrases.LEFT_BEHIND)[2]
    # Several things of one kind may have been made by several calls. What each life of a module has
    # left by another number was made by the same one.
    if ", " in phrases.OTHERS.sub("", listed):
        return problem
    makers = [_MADE_BY[name] for name in _CALL.findall(missing[1]) if name in _MADE_BY]
    if not makers:
        return problem
    wanted = re.compile("|".join(makers))
    found: list[symbols.Call] = []
    for each in module.objects:
        try:
            found += symbols.calls(module.kernel.sysroot, each.ko, wanted)
        except HarnessError as error:
            log.warning("where the module calls %s is not known: %s", wanted.pattern, error)
            return problem
    if len({one.location for one in found}) != 1:
        return problem
    return replace(problem, function=found[0].function, location=found[0].location)


# delete_module(2) on the stack, and what it calls beside the module's exit
# (kernel/module/main.c).
_UNLOADS = re.compile(r"^.*\b__(?:do_sys|x64_sys|se_sys)_delete_module\+", re.MULTILINE)
_NOT_EXIT = re.compile(
    r"\b(?:free_module|notifier_call_chain|klp_|ftrace_|async_synch|try_stop|stop_machine)\w*\+"
)


def _with_tail_call_of_exit(problem: Problem, module: Module) -> Problem:
    """A report from below the last call of exit, with exit's name and place.

    The compiler turns the last call of a function into a jump (a tail call), so that exit is not on
    the stack: the frame above the report's own is that of delete_module(2).
    """
    inner, *unloads = _UNLOADS.split(problem.detail, maxsplit=1)
    if problem.location or not unloads or len(module.objects) != 1:
        return problem
    if _NOT_EXIT.search(inner) or f"[{module.objects[0].name}]" in problem.detail:
        return problem
    try:
        known = symbols.definitions(module.kernel.sysroot, module.objects[0].ko)
    except HarnessError as error:
        log.warning("exit has no name: %s", error)
        return problem
    # module_exit() makes this name an alias of the source's own function.
    alias = next((one.symbol for one in known if one.symbol.name == "cleanup_module"), None)
    if alias is None:
        return problem
    place = alias.section, alias.value
    for one in known:
        name = one.symbol.name
        if name != alias.name and (one.symbol.section, one.symbol.value) == place:
            title = f"{problem.title}, called at the end of {name}"
            return replace(problem, title=title, function=name, location=one.location, defined=True)
    return problem
