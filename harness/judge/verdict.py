# SPDX-License-Identifier: GPL-2.0-only
"""What a test amounts to, beyond what it asserts. Pure: from evidence to problems."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness import klog
from harness.host import text
from harness.judge import phrases


class Verdict(enum.StrEnum):
    """The outcome of one test; all but PASSED are red."""

    PASSED = "passed"
    FAILED = "failed"  # an assertion of the test's own
    LEAK = "leak"  # memory that nothing points to any more
    SPLAT = "splat"  # the kernel reported a bug and went on
    PANIC = "panic"  # the kernel stopped
    HUNG = "hung"  # the guest is well, but a command or a part of the kernel does not go on
    LOST = "lost"  # the guest does not answer any more
    RESIDUE = "residue"  # the module is unloaded, and something of it is still there
    LOG_GAP = "log gap"  # a part of the kernel's log is missing, and nobody knows what it said
    HOST_FAULT = "host fault"  # nothing that the module or the kernel did


@dataclass(frozen=True)
class Evidence:
    """What is known of a machine when a test is judged.

    Several judgements may be made of one machine: each looks at what came after the one before. The
    defaults are those of a healthy machine in which nothing was loaded and nothing was looked for.
    """

    # The kernel's log and its taint flags.
    console: str  # what the kernel has printed since the judgement before, or since it was cloned
    taint_before: int  # taint flags at that time; loading an out-of-tree module sets some
    taint_after: int | None  # taint flags now; None where the guest does not answer
    reported: bool = False  # an earlier judgement had a report of the kernel's
    unread: int = 0  # bytes of the console that are not in ``console``: the guest printed too much
    full: bool = False  # the console's file has reached its limit
    silent: bool = False  # what the kernel logs does not reach its console any more
    unprinted: tuple[str, ...] = ()  # lines of the kernel's log that are not on its console
    counted: int = 0  # warnings and oopses that the kernel itself has counted meanwhile
    # The machine.
    panicked: bool = False
    running: bool = True  # QEMU runs
    fault: str = ""  # how QEMU has ended, if no guest can cause that
    moving: bool | None = None  # if the guest does not answer: whether its virtual CPU runs code
    # When the host did not run QEMU: before which character of the console, for how many seconds.
    stalls: tuple[tuple[int, float], ...] = ()
    unasked: tuple[str, ...] = ()  # lines on the agent's port that are no answers to an order
    # What does not go on.
    timed_out: str = ""  # the command that did not end in time, if there is one
    probes: tuple[str, ...] = ()  # parts of the kernel that are stuck: KIND:NAME, by vm/agent
    stacks: str = ""  # the stacks of the tasks that are in modules' code, if something is stuck
    # What is left of modules that are unloaded.
    left: frozenset[str] | None = None  # KIND:NAME, by vm/agent; None while a module is loaded
    busy: tuple[str, ...] = ()  # modules that cannot be unloaded, so that ``left`` is not known
    remains: tuple[Remain, ...] = ()  # pointers into modules that are gone
    leaks: str = ""  # what kmemleak reports, in a kernel that has it
    lost: tuple[LostMemory, ...] = ()
    unrecorded: bool = False  # the record of allocations was full, so that some may be missing
    stopped: bool = False  # somebody has stopped the record of allocations, or emptied it
    # What the test allows.
    expected: tuple[Expectation, ...] = ()
    declared: int = 0  # taint flags that the test's modules may set (DECLARED_TAINTS)


@dataclass(frozen=True)
class Remain:
    """Something in the kernel that still points into a module that is gone."""

    holder: str  # what points there, such as a list of the kernel's
    address: int  # where it points to
    forgotten: str = ""  # what the module has not done, if that can be told
    what: str = ""  # the module's symbol at the address, if it is known
    location: str | None = None  # the file:line where that symbol is defined, if it is known


@dataclass(frozen=True)
class LostMemory:
    """Memory that a module has allocated and not freed although it is gone."""

    size: int  # bytes
    call: str  # the kernel's function that the module called to get it
    stack: str  # the call stack of that, as lines of a kernel log
    more: int = 0  # other allocations that were lost with it: only it points to them
    # What the memory is, if it is not lost but still registered with the kernel, and the call that
    # takes it away.
    held: str = ""
    undo: str = ""


@dataclass(frozen=True)
class Expectation:
    """A report that a test provokes on purpose: of ``kind``, in ``function`` if one is named.

    It must begin between the characters ``start`` and ``end`` of the console. ``function`` may be
    the one where it happened, the one that its title names, or the one that a ``Problem`` shows.
    Without a function the first report of that kind is expected, and each equal one after it.
    """

    kind: klog.Kind
    function: str | None
    start: int
    end: int

    def covers(self, event: klog.Event, offset: int) -> bool:
        """Whether a report that begins at ``offset`` of the console is an expected one."""
        return (
            self.start <= offset < self.end
            and event.kind is self.kind
            and self.function in (None, event.function, _guilty(event), _titled(event))
        )


_TITLE = 1000  # characters of a problem's title that are shown; a line of a log has about as many


@dataclass(frozen=True)
class Problem:
    """One reason why a test is red.

    ``title`` and ``detail`` may have text of the guest's. They are made printable and cut here
    (``harness.host.text``), so that no output has to do that.
    """

    verdict: Verdict
    title: str
    detail: str = ""  # the evidence
    times: int = 1  # how often it came
    # The innermost function of a module on the report's stack, or else the one in the title. Of
    # what a module has left behind: the variable or function that it is about.
    function: str | None = None
    location: str | None = None  # the file:line of that, if it is known
    defined: bool = False  # ``location`` is where ``function`` is defined: nothing happened there

    @property
    def by_host(self) -> bool:
        """Whether neither the module nor the kernel is to blame."""
        return self.verdict is Verdict.HOST_FAULT

    def __post_init__(self) -> None:
        for name, value in (
            ("title", text.beginning(self.title, _TITLE)),
            ("detail", text.beginning(self.detail)),
        ):
            object.__setattr__(self, name, value)  # the way to set a field of a frozen class

    def __str__(self) -> str:
        often = f" ({self.times} times)" if self.times > 1 else ""
        where = ""
        if self.function and not re.search(rf"\b{re.escape(self.function)}\b", self.title):
            where = f", in {self.function}"
        if self.location:
            where += f"; {self.function} is defined at " if self.defined else " at "
            where += self.location
        return f"{self.verdict}: {self.title}{where}{often}"


# The numbers of the flags are those of Documentation/admin-guide/tainted-kernels.rst.
OOPS_TAINT = 1 << 7
"""The flag (D) that an oops sets; a task may have ended with what it held."""
# Loading a module sets O (12) and, where modules are signed, E (13); only a test that loads one
# should move these.
_LOAD_TAINTS = 1 << 12 | 1 << 13
# Flags that come with a report: a bad page (B), an oops (D), a warning (W), a soft lockup (L).
_REPORT_TAINTS = 1 << 5 | OOPS_TAINT | 1 << 9 | 1 << 14
_TAINT_LETTERS = "PFSRMBUDAWCIOELKXTNJ"
# Flags that a module sets by being loaded, because of what it declares: its licence, its place in
# the tree, MODULE_INFO(test, "Y"). The names are those of
# Documentation/admin-guide/tainted-kernels.rst.
DECLARED_TAINTS = {
    "proprietary": 1 << 0,
    "staging": 1 << 10,
    "livepatch": 1 << 15,
    "auxiliary": 1 << 16,
    "test": 1 << 18,
}


def taint_letters(mask: int) -> str:
    """The letters that an oops shows for a taint mask, bit 0 first; bits without one by number."""
    return "".join(
        _TAINT_LETTERS[bit] if bit < len(_TAINT_LETTERS) else f"({bit})"
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    )


# Lines of a report that are left out: registers and the bytes of the code. The console's file has
# all of them.
_NOT_SHOWN = re.compile(
    r"(?:Code|RAX|RDX|RBP|R\d\d|FS|CS|CR2|DR0|DR3|PKRU|RSP)[: ]|Hardware name: |Modules linked"
)
# Calls of a stack: those of which the unwinder is sure, and those that it has guessed ("? ").
_CALL = re.compile(r" +[\w.]+\+0x")
_GUESSED = re.compile(r" +\? ")
_SHOWN_LINES = 40


def condensed(excerpt: str) -> str:
    """The lines of a report that say what happened and where; at most ``_SHOWN_LINES``.

    What the unwinder has guessed is shown only where it is sure of no call, as in code that is
    gone.
    """
    lines = [line for line in excerpt.splitlines() if not _NOT_SHOWN.match(klog.said(line))]
    if any(_CALL.match(klog.said(line)) for line in lines):
        lines = [line for line in lines if not _GUESSED.match(klog.said(line))]
    if len(lines) > _SHOWN_LINES:
        left = len(lines) - _SHOWN_LINES
        lines[_SHOWN_LINES:] = [f"... {left} more lines"]
    return "\n".join(lines)


def judge(evidence: Evidence) -> Sequence[Problem]:
    """The problems that the evidence shows, the first cause first."""
    evidence = replace(evidence, console=_printed_once(evidence))
    if not evidence.unprinted:
        return _judge(evidence)
    # What was hidden from the console is judged as if it had been there.
    hidden = "\n".join(evidence.unprinted)
    whole = replace(evidence, console=f"{evidence.console.rstrip()}\n{hidden}\n")
    return [*_judge(whole), *_unprinted(evidence)]


# The time at the beginning of a line of the kernel's log, and the first line of a boot
# (init/version.c).
_CLOCK = re.compile(r"^\[ {0,11}(\d{1,12}\.\d{6})\]", re.MULTILINE)
_FIRST_LINE = re.compile(
    r"^\[ {0,11}0\.000000\](?:\[ {0,11}[TC]\d{1,10}\])? Linux version ", re.MULTILINE
)


def _printed_once(evidence: Evidence) -> str:
    """The console with blanks for what it has a second time.

    Whoever unregisters a console and registers it again has the kernel print its whole log once
    more (CON_PRINTBUFFER in kernel/printk/printk.c). That looks like a boot, but after a boot the
    guest would not answer. The repetition ends where a line is newer than all before it: at the
    latest at the mark that the harness itself has logged. Blanks keep each offset as it is.
    """
    console = evidence.console
    if evidence.taint_after is None or evidence.panicked or not evidence.running:
        return console
    newest = 0.0  # seconds
    repeats_from = -1  # where a repetition has begun that has not ended yet
    kept: list[str] = []
    done = 0  # up to where the console is in ``kept``
    for line in _CLOCK.finditer(console):
        time = float(line[1])
        if repeats_from < 0 and _FIRST_LINE.match(console, line.start()):
            repeats_from = line.start()
        elif repeats_from >= 0 and time > newest:
            repeated = console[repeats_from : line.start()]
            kept += [console[done:repeats_from], re.sub(r"[^\n]", " ", repeated)]
            repeats_from, done = -1, line.start()
        newest = max(newest, time)
    return "".join([*kept, console[done:]])


def _judge(evidence: Evidence) -> Sequence[Problem]:
    """The problems, in the order in which one explains the next.

    A report of the kernel explains why the guest does not answer, and both explain what is left
    behind. So each group is looked for only where those before it have found nothing.
    """
    problems, stopped = _reports(evidence)
    memory = _memory(evidence)
    # A process that was killed for lack of memory may report failed allocations until it has ended.
    if memory and all(one.title.startswith("page allocation failure") for one in problems):
        problems = memory
    if problems and evidence.fault and not evidence.full:
        problems += _end(evidence, stopped)  # the reports do not explain why QEMU has ended
    problems = problems or [*_end(evidence, stopped), *_probes(evidence)]
    return problems or [
        *_gap(evidence), *_taint(evidence), *_residue(evidence), *_remains(evidence),
        *_leaks(evidence), *_lost(evidence), *_unrecorded(evidence), *_unasked(evidence),
    ]  # fmt: skip


def _end(evidence: Evidence, stopped: bool) -> list[Problem]:
    """How the machine has ended or what it does not do, where its log does not say why.

    At most one problem. ``stopped``: the kernel has stopped as the test wants, and cannot answer.
    """
    stuck = f"the guest is well, but `{evidence.timed_out}` is stuck"
    stacks = _stuck_first(evidence.stacks)
    fault, _, said = evidence.fault.partition("\n")
    ends = (
        (evidence.full, Problem(
            Verdict.LOG_GAP, "the guest has printed more than its console may hold")),
        (evidence.fault, Problem(
            Verdict.HOST_FAULT, fault, said)),
        (evidence.panicked and not stopped, Problem(
            Verdict.PANIC, "the kernel panicked")),
        (not evidence.running and not stopped, Problem(
            Verdict.PANIC, "the machine stopped or restarted by itself")),
        (evidence.taint_after is None and not stopped, Problem(
            Verdict.LOST, f"the guest does not answer any more{_manner(evidence)}")),
        (evidence.timed_out and evidence.taint_after is not None, Problem(
            Verdict.HUNG, stuck, stacks, function=_in_module(stacks))),
    )  # fmt: skip
    return [problem for holds, problem in ends if holds][:1]


# How the agent lists a task that is in a module's code: its name, its number and its state.
_TASK = re.compile(r"^task .*\(\d+,(\w)\):$", re.MULTILINE)


def _stuck_first(stacks: str) -> str:
    """The stacks of tasks in modules' code, those first that a stuck command may wait in.

    A wait that no signal ends (state D) comes before the others. A process comes before a kernel
    thread, which sleeps in its module whenever it has nothing to do.
    """

    def rank(task: str) -> tuple[bool, bool]:
        state = _TASK.match(task)
        return not (state and state[1] == "D"), "ret_from_fork" in task

    tasks = re.split(r"\n(?=task )", stacks)
    return "\n".join(sorted(tasks, key=rank))


# mm/slub.c, object_err() and __slab_err(): since 6.16 a warning follows each report of the
# allocator, so that panic_on_warn works for these, too.
_OF_SLAB_REPORT = re.compile(
    r"\bWARNING: .{0,300}\bmm/slub\.c:\d+ (?:at )?(?:object_err|__slab_err)\+"
)


# kernel/panic.c, panic(). The log reader makes no event of one that follows a report.
_STOPPED = re.compile(r"(?:^|\] ?)Kernel panic - not syncing", re.MULTILINE)


MOST_PROBLEMS = 100
"""How many different problems of one log are listed. Nobody reads more, and a flood must end."""


def _reports(evidence: Evidence) -> tuple[list[Problem], bool]:
    """The unexpected reports of the log, equal ones as one problem; whether the kernel stopped.

    The second value is true where a report that the test expected was followed by a panic. With no
    problem besides, the kernel has stopped as it was expected to.
    """
    found: dict[str, Problem] = {}  # by title
    read_to_end = True
    first_expected = len(evidence.console)  # where the first expected report begins
    starts = _line_starts(evidence.console)
    # Narrow expectations first, so that a broad one does not use up a report that only a narrow
    # one matches. They are known by their index, since two may be equal.
    expected = sorted(
        enumerate(evidence.expected),
        key=lambda one: (one[1].function is None, one[1].end - one[1].start),
    )
    # What an expectation without a function has met first; only that is expected from then on.
    subjects: dict[int, str] = {}
    slab: klog.Event | None = None  # a report of the allocator whose warning may follow
    for event in klog.events(evidence.console):
        title = event.title
        if slab and _OF_SLAB_REPORT.search(event.excerpt):
            # The warning adds its stack to the report. It is expected if the report was.
            if slab.title in found:
                known = found[slab.title]
                detail = f"{known.detail}\n{condensed(event.excerpt)}"
                found[slab.title] = replace(known, detail=detail)
            slab = None
            continue
        if event.kind is klog.Kind.SLAB:
            slab = event
        offset = starts[event.line]
        if any(
            one.covers(event, offset)
            and (one.function or subjects.setdefault(index, _subject(event)) == _subject(event))
            for index, one in expected
        ):
            first_expected = min(first_expected, offset)
            continue
        if _is_harmless(evidence, event):
            continue
        if title in found:
            known = found[title]
            found[title] = replace(known, times=known.times + 1)
            continue
        if len(found) == MOST_PROBLEMS:
            read_to_end = False
            break
        found[title] = _problem(evidence, event, offset)
    problems = list(found.values())
    if not read_to_end:
        title = f"the log has more than {MOST_PROBLEMS} different problems, the rest was not read"
        problems.append(Problem(Verdict.LOG_GAP, title))
    return problems, bool(_STOPPED.search(evidence.console, first_expected))


# The header of a warning names the place in the code: FUNCTION+OFFSET/SIZE.
_PLACE = re.compile(r"WARNING: .{0,300}?([\w.]{1,200}\+0x[0-9a-f]{1,8})/0x")


def _subject(event: klog.Event) -> str:
    """What a report is about: its title, and of a warning the place in the code as well.

    One function may warn in several places, of several things.
    """
    place = _PLACE.search(event.excerpt) if event.kind is klog.Kind.WARNING else None
    return f"{event.title} at {place[1]}" if place else event.title


# Lines in a report of a data race that are not about the two accesses. Below the entry of an
# interrupt or of softirqs is the stack of the task that was interrupted. Lockdep adds which locks a
# task holds, and where interrupts were last switched on and off.
_NOT_THE_ACCESSES = re.compile(
    r"(?:(?<=\n)[^\n]{0,60}\b(?:asm_sysvec_\w{1,80}|asm_common_interrupt|__do_softirq|handle_softirqs)"
    r"\+0x[^\n]{0,500}\n(?:[^\n]{0,500}\+0x[0-9a-f]{1,8}/0x[^\n]{0,500}\n){1,200})"
    r"|(?<=\n)[^\n]{0,60}(?: #\d{1,2}: |\b(?:hard|soft)irqs last )[^\n]{0,500}\n"
)


def _is_harmless(evidence: Evidence, event: klog.Event) -> bool:
    """Whether a report makes no test red, or another check does (``_memory``)."""
    if event.kind is klog.Kind.OOM:
        return not _STOPPED.search(event.excerpt)
    if event.kind is klog.Kind.KCSAN:
        # With both sides in the kernel's own code, no module can do anything about the race.
        return not _in_module(_NOT_THE_ACCESSES.sub("", event.excerpt))
    return event.bare and _is_well(evidence)


# A double free: mm/slub.c, set_freepointer(), where the object that is freed is already the first
# one on the list of free objects.
_FREED = re.compile(
    r"kernel BUG at mm/sl[au]b\.c:(?:.*\n){1,20}?.*\bRIP: (?:\w{4}:)?"
    r"(?:_*kfree\w*|_*slab_free\w*|_*kmem_cache_free\w*|set_freepointer)[.\w]*\+"
)


# The message of a warning, which comes before its header: include/asm-generic/bug.h, WARN().
_MESSAGE = re.compile(r"\[ cut here \]-+\n((?:[^\n]{1,300}\n){1,3}?)[^\n]{0,60}WARNING: ")
_LEAD = 1000  # characters before a report's first line in which it is looked for
_STAMP = re.compile(r"^(?:\[[^\]]{0,30}\] ?)+")


def _message(evidence: Evidence, event: klog.Event, offset: int) -> str:
    """The message of a warning that begins at ``offset``; "" if it has none, or has it as title."""
    if not event.title.startswith("WARNING"):
        return ""
    first = max(0, offset - _LEAD)
    lead = evidence.console[first : offset + _LEAD]
    for match in _MESSAGE.finditer(lead):
        if first + match.end() > offset:
            return " ".join(_STAMP.sub("", line).strip() for line in match[1].splitlines())
    return ""


def _problem(evidence: Evidence, event: klog.Event, offset: int) -> Problem:
    """A report as a reason for a red test; it begins at ``offset`` of the console."""
    detail = condensed(event.excerpt)
    if message := _message(evidence, event, offset):
        detail = f"{phrases.SAYS}{message}\n{detail}"
    elif _FREED.search(event.excerpt):
        detail = f"{phrases.SAYS}what is freed here is free already: it is freed twice\n{detail}"
    if still := _stood_still(evidence, event, offset):
        about = f"the host did not run QEMU for {still:.0f} s, and the kernel then said: "
        return Problem(Verdict.HOST_FAULT, about + event.title, detail)
    gone = not evidence.running and not evidence.fault  # QEMU has ended, and not by the host
    dead = evidence.panicked or gone or event.kind is klog.Kind.PANIC
    verdict = Verdict.PANIC if dead else Verdict.SPLAT
    if event.kind is klog.Kind.LEAK:
        verdict = Verdict.LEAK
    return Problem(verdict, event.title, detail, function=_guilty(event))


# Reports that something took too long. A host that stood still causes them as well.
_ABOUT_TIME = {
    klog.Kind.RCU_STALL, klog.Kind.SOFT_LOCKUP, klog.Kind.HARD_LOCKUP, klog.Kind.HUNG_TASK,
    klog.Kind.WORKQUEUE_LOCKUP,
}  # fmt: skip
# A device without an answer for 5 s and more: dev_watchdog() in net/sched/sch_generic.c.
_NET_WATCHDOG = re.compile(r"NETDEV WATCHDOG|\bdev_watchdog\b")
# Seconds. No watchdog of a kernel that runs on an emulated processor is set to less.
_NOTICED = 5.0


def _stood_still(evidence: Evidence, event: klog.Event, offset: int) -> float:
    """How many seconds the host stood still before such a report; 0 if that is not its cause."""
    if event.kind not in _ABOUT_TIME and not _NET_WATCHDOG.search(event.excerpt):
        return 0.0
    still = sum(seconds for start, seconds in evidence.stalls if 0 <= start <= offset)
    return still if still >= _NOTICED else 0.0


# mm/oom_kill.c, __oom_kill_process(). A memory cgroup that reaches its limit logs "Memory cgroup
# out of memory" instead: somebody has set that limit on purpose.
_OUT_OF_MEMORY = re.compile(
    r"\] ?Out of memory[^:\n]{0,80}: Killed process \d{1,10} \((.{0,80}?)\)[ ,]"
)


def _memory(evidence: Evidence) -> list[Problem]:
    """Processes that the kernel killed because the guest had no memory left."""
    killed = list(_OUT_OF_MEMORY.finditer(evidence.console))
    if not killed or any(one.kind is klog.Kind.OOM for one in evidence.expected):
        return []
    names = ", ".join(dict.fromkeys(found[1] for found in killed))
    last = evidence.console.rfind("\n", 0, killed[0].start()) + 1
    said = evidence.console[last:].partition("\n")[0]
    title = f"the guest ran out of memory, the kernel killed {names}"
    return [Problem(Verdict.SPLAT, title, said, times=len(killed))]


# kernel/printk/printk.c, console_prepend_dropped(): printed without a stamp, so that no
# message of a module looks the same.
_DROPPED = re.compile(r"^(?:[^\r\n]*\r)*\*\* (\d{1,20}) printk messages dropped \*\*", re.MULTILINE)


def _gap(evidence: Evidence) -> list[Problem]:
    """That parts of the log are missing: nobody knows whether a report was in them."""
    dropped = sum(int(found[1]) for found in _DROPPED.finditer(evidence.console))
    problems = []
    if dropped:
        title = f"the kernel dropped {dropped} messages before they reached its console"
        problems.append(Problem(Verdict.LOG_GAP, title))
    if evidence.silent and not evidence.unprinted:
        title = "what the kernel logs does not reach its console any more"
        problems.append(Problem(Verdict.LOG_GAP, title))
    if evidence.unread:
        left_out = f"{evidence.unread >> 10} KiB of its console were not looked at"
        problems.append(Problem(Verdict.LOG_GAP, f"the guest printed too much; {left_out}"))
    return problems


_SHOWN_UNPRINTED = 10  # lines


def _unprinted(evidence: Evidence) -> list[Problem]:
    """That the console lacks something, unless the kernel has stopped while it printed."""
    if evidence.taint_after is None:
        return []
    count = len(evidence.unprinted)
    title = f"the kernel logged {count} lines that are not on its console"
    shown = list(evidence.unprinted[:_SHOWN_UNPRINTED])
    if count > len(shown):
        shown.append(f"... {count - len(shown)} more lines")
    return [Problem(Verdict.LOG_GAP, title, "\n".join(shown))]


def _is_well(evidence: Evidence) -> bool:
    """Whether the kernel has done nothing that comes with a report of a fault of its own.

    A module, or a test that writes to /dev/kmsg, can print a sentence that begins like a report
    ("BUG: ", "Kernel panic - not syncing: avoided"). Where there is nothing below it, where the
    kernel did not taint itself and goes on answering, a sentence is all that it was.
    """
    return (
        evidence.running
        and not evidence.panicked
        and not evidence.fault
        and not evidence.unread
        and evidence.taint_after is not None
        and not evidence.taint_after & ~evidence.taint_before & _REPORT_TAINTS
    )


def _titled(event: klog.Event) -> str | None:
    """The function that a report's title names: not always the innermost one of the stack."""
    return event.title.rpartition(" in ")[2] or None


def _guilty(event: klog.Event) -> str | None:
    """The innermost function of a module on a report's stack, else the one in its title."""
    # First the report's own stack. Its text may name a helper function earlier, or show other
    # stacks: of who allocated the memory, and who freed it.
    inside = next((frame.function for frame in event.stack if frame.module), None)
    return inside or _in_module(event.excerpt) or event.function


# As kallsyms prints it (kernel/kallsyms.c, __sprint_symbol()): a name of 511 characters at most
# (KSYM_NAME_LEN), and where the module has one the build id. The bounds, and that a name begins
# where a word does, keep the search's work in proportion to the text, whatever it is.
_CALL_IN_MODULE = re.compile(
    r"(?<![\w.])(?<!\? )([A-Za-z_]\w{0,511})(?:\.[\w.]{0,100})?"
    r"\+0x[0-9a-f]{1,16}/0x[0-9a-f]{1,16} \[\w{1,64}[^\]\n]{0,100}\]"
)


def _in_module(report: str) -> str | None:
    """The first function of a module that a report or a stack names."""
    found = _CALL_IN_MODULE.search(report)
    return found[1] if found else None


def _line_starts(console: str) -> list[int]:
    """The offset of each line; a line ends at a newline, as in klog."""
    return [0, *(found.end() for found in re.finditer("\n", console))]


def _manner(evidence: Evidence) -> str:
    """What the virtual CPU does while the guest is silent."""
    if evidence.moving is None:
        return ""
    return "; its CPU spins" if evidence.moving else "; its CPU sleeps, nothing wakes it"


def _taint(evidence: Evidence) -> list[Problem]:
    """Taint flags that changed, and counted warnings, which no report explains."""
    if evidence.taint_after is None:  # the kernel has stopped, as was expected
        return []
    lost = evidence.taint_before & ~evidence.taint_after
    if lost:  # kernel/panic.c, add_taint(): the kernel itself only ever adds to them
        title = f"somebody has cleared the kernel's taint flags ({taint_letters(lost)})"
        return [Problem(Verdict.SPLAT, title)]
    fresh = evidence.taint_after & ~evidence.taint_before & ~_LOAD_TAINTS & ~evidence.declared
    # The kernel sets the flag after it has printed the report. A judgement in between has the
    # report, and the next one the flag.
    told = evidence.reported or any(one.end > 0 for one in evidence.expected)
    if told:
        fresh &= ~_REPORT_TAINTS
    if not fresh and evidence.counted and not told and not any(klog.events(evidence.console)):
        title = "the kernel has counted a warning or an oops, and its log does not have it"
        return [Problem(Verdict.SPLAT, title)]
    if not fresh:
        return []
    letters = taint_letters(fresh)
    return [Problem(Verdict.SPLAT, f"the kernel became tainted ({letters}) without saying why")]


def _unasked(evidence: Evidence) -> list[Problem]:
    """Lines on the port of vm/agent that no order has asked for."""
    if not evidence.unasked:
        return []
    title = "something in the guest has written to the port of the harness's own agent"
    return [Problem(Verdict.SPLAT, title, "\n".join(evidence.unasked))]


def _probes(evidence: Evidence) -> list[Problem]:
    """What is stuck in the kernel although no command waits for it yet."""
    problems = []
    for probe in evidence.probes:
        kind, _, name = probe.partition(":")
        detail, function = evidence.stacks, _in_module(evidence.stacks)
        if kind == "cpu":
            title = f"CPU {name} runs no process any more: something on it does not let go of it"
        elif kind == "lock":
            title = f"{name} is held: what needs this lock of the kernel's waits for ever"
        elif kind == "ended":
            if name.startswith("0x"):  # an address without a variable may be no lock
                continue
            title = f"a task has ended and still has a lock, {name}: who needs that waits for ever"
            detail, function = "mutex_unlock() or up_write() was not called", None
        elif kind == "rcu":
            title = "no grace period of RCU ends: somebody has not left a read-side section"
        else:
            task, _, frames = name.partition(":")
            detail = "\n".join(f" {one.replace('_[', ' [')}" for one in frames.split(","))
            function = _in_module(detail)
            title = f"{task} uses a CPU without a pause"
        problems.append(Problem(Verdict.HUNG, title, detail, function=function))
    return problems


_HIDDEN = "hidden:"  # KIND of vm/agent: a loaded module that is not in the kernel's list


def _residue(evidence: Evidence) -> list[Problem]:
    """What is there after unloading and was not there before loading."""
    if evidence.busy:
        names = ", ".join(evidence.busy)
        title = f"what the unloaded modules left behind is not known: {names} cannot be unloaded"
        return [Problem(Verdict.RESIDUE, title)]
    left = sorted(evidence.left or ())
    hidden = [name.removeprefix(_HIDDEN) for name in left if name.startswith(_HIDDEN)]
    if hidden:  # it is still there, so that what it has is not left behind
        title = f"{', '.join(hidden)} is loaded, and not in the kernel's list of modules any more"
        return [Problem(Verdict.RESIDUE, title, "nobody can unload it, or tell what it leaves")]
    by_undo: dict[str, list[str]] = {}
    for name in left:
        by_undo.setdefault(_undo(name, left), []).append(name.replace(":", " ", 1))
    return [
        Problem(
            Verdict.RESIDUE,
            f"the module is unloaded, but {phrases.LEFT_BEHIND}{_counted(names)}"
            + (f": {undo} was not called" if undo else ""),
            "\n".join(names) if len(names) > 1 else "",
        )
        for undo, names in by_undo.items()
    ]


def _counted(names: Sequence[str]) -> str:
    """The names in one line; of those that differ only in numbers, the first and their count.

    A test may load a module several times. What is left each time has another number.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    return ", ".join(
        f"{first} ({len(more) + 1} times, with other numbers)" if more else first
        for first, *more in alike.values()
    )


# The call that takes away what is left, by its KIND:NAME. The first pattern that fits counts.
_UNDO = (
    # The folder of misc devices is there as long as there is one.
    (r"(?:class:|device:)misc(?:/|$)|misc:", "misc_deregister()"),
    (r"class:[^/]+$", "class_destroy() or class_unregister()"),
    (r"device:platform/", "platform_device_unregister()"),
    (r"class:|device:", "device_destroy() or device_unregister()"),
    (r"debugfs:", "debugfs_remove()"),
    (r"proc:", "remove_proc_entry() or proc_remove()"),
    (r"sysctl:", "unregister_sysctl_table()"),
    (r"sysfs:devices/", "device_unregister() or root_device_unregister()"),
    (r"sysfs:", "kobject_put() or sysfs_remove_file()"),
    (r"slab:", "kmem_cache_destroy()"),
    (r"thread:", "kthread_stop() or destroy_workqueue()"),
    (r"major:", "unregister_chrdev_region() or unregister_chrdev()"),
    (r"filesystem:", "unregister_filesystem()"),
    (r"driver:", "driver_unregister() or that of its bus"),
    (r"bus:", "bus_unregister()"),
    (r"iomem:", "release_mem_region()"),
    (r"ioports:", "release_region()"),
)


def _undo(name: str, left: Sequence[str]) -> str:
    """The call that takes away what is left; "" if that is not known.

    A node in /dev is removed with its device, which has the same name in its class.
    """
    kind, _, rest = name.partition(":")
    if kind == "dev":
        device = re.compile(rf"(?:(?:class|device):.*/|misc:){re.escape(rest)}")
        name = next((one for one in left if device.fullmatch(one)), "")
    return next((undo for pattern, undo in _UNDO if re.match(pattern, name)), "")


def _remains(evidence: Evidence) -> list[Problem]:
    """Pointers into modules that are gone, those to one variable or function as one problem."""
    found: dict[str, Problem] = {}
    # First those from lists of the kernel's that are known. Neighbours in such a list may point to
    # the same thing, and say less.
    for one in sorted(evidence.remains, key=lambda one: (not one.forgotten, not one.what)):
        what = one.what or f"the module's memory at {one.address:#x}"
        detail = f"{one.holder} points to {what} ({one.address:#x})"
        known = found.get(what)
        if known:
            found[what] = replace(known, detail=f"{known.detail}\n{detail}")
            continue
        title = f"the module is unloaded, but {one.holder} still holds {what}"
        found[what] = Problem(
            Verdict.RESIDUE, f"{title}: {one.forgotten}" if one.forgotten else title, detail,
            function=one.what or None, location=one.location, defined=bool(one.what),
        )  # fmt: skip
    return list(found.values())


def _leaks(evidence: Evidence) -> list[Problem]:
    """What kmemleak has reported; equal reports are one problem."""
    return _reports(Evidence(evidence.leaks, evidence.taint_before, evidence.taint_after))[0]


def _lost(evidence: Evidence) -> list[Problem]:
    """Memory and registrations that modules have left; equal ones are one problem."""
    found: dict[tuple[str, str], Problem] = {}
    for one in evidence.lost:
        if one.held:
            verdict = Verdict.RESIDUE
            title = f"{one.held} is still there: {one.undo} was not called"
        else:
            more = f" (and {one.more} more that only this one points to)" if one.more else ""
            size = "1 byte" if one.size == 1 else f"{one.size} bytes"
            verdict = Verdict.LEAK
            title = f"{size} that {one.call}() allocated were never freed{more}"
        known = found.get((title, one.stack))
        found[title, one.stack] = (
            replace(known, times=known.times + 1)
            if known
            else Problem(verdict, title, one.stack, function=_in_module(one.stack))
        )
    return list(found.values())


def _unrecorded(evidence: Evidence) -> list[Problem]:
    """That the record of allocations is not whole, so that lost memory may be missing in it."""
    why = ""
    if evidence.unrecorded:
        why = "more was allocated than can be recorded"
    elif evidence.stopped:
        why = (
            "somebody has stopped the record of allocations or emptied it (it is the instance"
            " eudyptula of tracefs)"
        )
    if not why:
        return []
    title = f"{why}, so what the module has lost is not known (@pytest.mark.unrecorded allows that)"
    return [Problem(Verdict.LOG_GAP, title)]
