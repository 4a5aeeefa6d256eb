# SPDX-License-Identifier: GPL-2.0-only
"""From lines to reports, and from reports to events."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from harness.klog.blame import (
    HELPERS,
    REPORTING,
    asker,
    at_header,
    at_header_plain,
    at_warning,
    at_warning_s_header,
    find,
    in_origin,
    in_trace,
    is_in,
    known_calls,
    last_resort,
    leading_guesses,
    nearest,
    nowhere,
    of_handlers,
    place,
    stack_from,
    waiting_place,
)
from harness.klog.formats import (
    A_CALL,
    BANNER,
    BANNER_LINE,
    DERIVED_PANIC,
    FORMATS,
    REBOOT,
    STACK_MARKS,
    Format,
    Kind,
    told_as,
    told_at,
    told_by,
)
from harness.klog.frames import NAME, Frame, Item, Tag, is_inlined, plain_name, read_line
from harness.klog.lines import CONSOLE, PLAIN, STAMP, USER, cut_line, said, split_line
from harness.klog.paste import unpaste
from harness.klog.prose import is_listed, is_quoted, is_spoken


@dataclass(frozen=True, slots=True)
class Event:
    """One problem found in a kernel log."""

    kind: Kind
    title: str
    """As the kernel's bug trackers have it. A function that cannot be named is ``corrupted``."""
    function: str | None
    """Where it happened: the function in which the CPU was, or which called what complained. The
    title's may be another, further down the stack. None where there is none to name."""
    module: str | None
    """The module that the function is in; None for built-in code."""
    location: str | None
    """file:line where the log carries it."""
    stack: tuple[Frame, ...]
    """The stack of the report's own context, innermost call first, guesses ("? ") left out."""
    bare: bool
    """There is only the header, where the kernel always prints registers, a stack or the like
    below. Either the log is cut, or the kernel died, or the line is a sentence of somebody's."""
    headless: bool
    """The report's first line is not in the text, or it has none; what is left tells the kind."""
    corrupted: bool
    """The report is cut or mixed up with another; do not trust function and stack."""
    line: int
    """The report's first line in the text, counted from 0."""
    excerpt: str
    """The report's lines, without those that others printed in between. A console's are as they
    stand there; of a pasted log they are whole again, with a console's stamps."""


_MAX_LINES = 3000  # of one report; a stall report with the stacks of all tasks may be long
_MAX_IDLE = 25  # lines of the same printer that belong to no report, after a stack
_MAX_IDLE_EARLY = 120  # the same, before one
_MAX_GAP = 4000  # lines of others since the report's last line
_LEAD_LINES = 6  # how far above its header a report may begin
_PANIC = "Kernel panic - "
_XMON = ": Vector: "  # in the first line of powerpc's debugger
_MAX_OPEN = 64  # reports of as many printers at the same time
_DETAIL_ITEMS = 24  # how far below the header the detail may be
_ANNOUNCED_WITHIN = 4  # lines between an announcement and what it announces
_HANGS = "blocked for more than "  # in the first line of a hung task's report
_STATE_WITHIN = 10  # lines of a stack's words between a task's state and its calls
_ASKED_WITHIN = 8  # lines above a stack's first that say that somebody has asked for it
_BESIDE_LINES = 8  # of a report in which another CPU may print its header
_PART_LINES = 40  # how far below a header its parts may be

# The header of a warning of old kernels; later ones show an offset. Mails about one have it as
# their subject, without what the kernel prints below.
_OLD_WARNING = re.compile(r"WARNING: at \S{1,200}:\d{1,6} [\w.]{1,100}\(\)(?!\+)")

_UNWINDERS = ("unwind_backtrace", "dump_backtrace")  # arm's, innermost when a report is made
_END = re.compile(r"---\[ end (?:trace|Kernel panic)|Rebooting in \d+ seconds|Kernel Offset: ")
_LEAD = re.compile(
    r"-{8,}\[ cut here \]|={16,}|8<--- cut here|refcount_t: |ODEBUG: |kobject: |list_(?:add|del)"
    r"|kasan: |KASAN: |usercopy: |skbuff: |DEBUG_LOCKS_WARN_ON|kernel tried to|BUG: memory leak|#PF"
    r"|detected buffer overflow|traps: |\[\s*$|\s*$"
)
_BODY = re.compile(
    r"[ \t]|[<\[(#=*-]|[A-Z][A-Z0-9]{1,5} ?:|[a-z]\w{1,3} ?: |Call |Code: |Hardware name|Modules "
    r"|Workqueue|Oops|Internal|Exception|RIP|Comm|Tainted|Stack|The buggy|page[: ]|flags: |raw: "
    r"|Read |Write |Allocated|Freed|Memory state|>|[0-9a-f]{4,16}[ :]|which |but |other info|the |"
    r"stack |context-|\d+ locks? |Possible|Showing|NMI|Sending|INFO: lockdep|rcu: |task:|kthread"
    r"|backtrace|comm |hex dump|in_atomic|Preemption|irq event|hardirqs|softirqs|last |Kernel |"
    r"pc |lr |sp |Process|Mem abort|Data abort|swapper|user pgtable|EFLAGS|preempt|pool |workqueue"
)
"""What lines of a report that are neither frames nor marks begin with. Only the end of a report
is judged by this: where it stops, the report does."""


_SHAPE = re.compile(
    r"CPU: \d+(?:,? *(?:UID|PID|pid|[Cc]omm|Not t|Tainted|VCPU)|\s*$)|Pid: \d+, comm:"
    r"|Modules linked in|Hardware name|Code: +(?:[0-9a-f<>()]{2,10} ?){2}|Code: +(?:Bad|Unable)"
    r"|-+\[ end trace|Call [Tt]race:? *(?:$|[\[<(=])|Backtrace|Stack ?: ?(?:$|[(<0-9a-f]{4})"
    r"|Krnl |IAOQ|\$ 0 |PC is at|pc : "
    r"|[RE]?IP: *(?:[0-9a-f]{4}:|\[<|\(null\)|0x|Bad|\S{1,200}\+0x)|NIP|(?:epc|era) *: |Oops"
    r"|Internal error|invalid opcode|#PF|PGD |P4D |\*pd|pgd = |Mem abort|Data abort|in_atomic"
    r"|preempt_count|INFO: (?:0x|Slab |Allocated in|Freed in|Object |lockdep)"
    r"|locks? held|task:\S{1,60} +state:|Showing |Sending NMI|addr:[0-9a-fp(]{4}"
    r"|page: ?(?:[0-9a-f]{8}|refcount)|flags: 0x|raw: [0-9a-f]{8,16} [0-9a-f]{8}"
    r"|(?:Read|Write) of size \d+ at |rcu: "
    r"|handlers:\s*$|Tainted: |\s*(?:Not t|T)ainted|turning off the locking"
)
"""What below a header only a report of the kernel's own has, if it is no call."""


# drivers/tty/sysrq.c answers whoever has asked, and arch/*/mm/fault.c tells of a program's fault.
_OF_OTHERS = re.compile(
    r"(?:sysrq: |SysRq : )|(?:traps: )?\S{1,40}\[\d+\]:? (?:segfault|trap|general)"
)
"""The first line of what is no part of a report, even if something like one comes below."""


# The last one is powerpc's: arch/powerpc/kernel/process.c, __show_regs(). Below it stand the names
# of what the addresses are, which a cut may have taken.
_OF_REGISTERS = re.compile(
    r"Internal error|Oops|EIP: +[0-9a-f]{4}:\[|Process .{1,20} \(pid: \d+, "
    r"|REGS: [0-9a-f]{8,16} TRAP: [0-9a-f]{3,4} "
)
"""What stands beside the registers of a fault of the kernel's, and not of a program's."""


@dataclass(slots=True, eq=False)
class _Report:
    """A report being collected."""

    fmt: Format
    groups: dict[str, str | None]
    printer: str
    line: int
    raw: list[str]
    items: list[Item] = field(default_factory=list)
    last_line: int = 0
    idle: int = 0
    kept: int = 0  # how many of the raw lines are the report's for certain
    has_stack: bool = False
    has_body: bool = False  # something below the header that only a report has
    has_registers: bool = False  # or a stack, or the words that only a fault of the kernel's has
    guesses: int = 0  # calls that an unwinder is not sure of
    all_cpus: bool = False  # other CPUs print their stacks for this report
    header: str = ""
    mark: Tag | None = None  # of the last line above a stack
    spoken: bool = False  # its header is part of a sentence
    indexed: bool = False  # its header is one of several below each other
    words_above: bool = False  # of a stack, above its first call

    def add(self, line: int, raw: str, text: str) -> None:
        self.raw.append(raw)
        self.last_line = line
        belongs = False
        items = read_line(text)
        if not self.items and items[0].tag is Tag.FRAME and self.header.rstrip().endswith(" RIP:"):
            items = [items[0]._replace(tag=Tag.PC)]  # x86-64 up to 2.6.24 breaks the line there
        if len(items) > 1 and self._begins_trace(items[0]):
            items.insert(0, Item(Tag.TRACE, ""))
        for item in items:
            self.items.append(item)
            if item.tag in (Tag.TRACE, Tag.OTHER):
                self.mark = item.tag
            if item.tag is Tag.FRAME:
                self.has_stack = True
            self.guesses += item.tag is Tag.GUESS
            belongs |= item.tag is not Tag.TEXT
        if not belongs and text.startswith("Sending NMI from CPU"):
            self.all_cpus = True
        # Words can begin as the line above a stack does: that one is asked for its shape.
        is_call = items[0].tag not in (Tag.TEXT, Tag.TRACE, Tag.OTHER)
        self.has_body |= is_call or bool(_SHAPE.match(text))
        self.has_registers |= belongs or bool(_OF_REGISTERS.match(text))
        if belongs or _BODY.match(text):
            self.idle = 0
            self.kept = len(self.raw)
        elif text:
            self.idle += 1

    def _begins_trace(self, call: Item) -> bool:
        """Whether one of arm's calls begins the report's stack.

        There unwind_backtrace() (arch/arm/kernel/unwind.c) prints no line above a stack.
        """
        if self.mark is None:
            return True
        unwinds = call.frame is not None and call.frame.function in _UNWINDERS
        return self.mark is Tag.OTHER and unwinds

    @property
    def lists_handlers(self) -> bool:
        """Whether an interrupt's handlers stand below: __report_bad_irq() prints them last."""
        return any(item.text.strip() == "handlers:" for item in self.items)

    @property
    def has_no_head(self) -> bool:
        """Whether a stack is all that there is up to now."""
        return self.fmt.has in STACK_MARKS or self.fmt.has == A_CALL

    @property
    def is_headless(self) -> bool:
        """Whether its first line is lost: the registers may stand at its very end."""
        return self.fmt.nameless or self.fmt.is_remains

    @property
    def tells_nothing(self) -> bool:
        """Whether it is a stack under no header that does not tell either of what it is."""
        calls = [*leading_guesses(self.items), *stack_from(self.items, marked=False)]
        told = told_by(calls) or _has_code_below(self)
        return self.has_no_head and not told

    def is_restated(self, text: str) -> bool:
        """Whether a header is this report's again, of the function that the last was inlined into.

        Symbolisers make a line of each, the innermost first.
        """
        start = self.header.find(self.groups.get("func") or "\n")
        return (
            not self.items
            and start > 0
            and "[inline]" in self.header
            and text.startswith(self.header[:start])
        )

    def is_indexed_with(self, text: str) -> bool:
        """Whether this header and the next line are two of a list, as an archive has of mails."""
        return (
            len(self.items) == 0
            and _OLD_WARNING.search(self.header) is not None
            and _OLD_WARNING.search(text) is not None
        )

    def is_named_by(self, fmt: Format, text: str) -> bool:
        """Whether a header is that of this report, which had none of its own until now."""
        if self.has_no_head and (fmt.nameless or fmt.is_remains):
            return True  # the registers may stand below the stack, as may what else is left
        if self.fmt.nameless:
            return _PANIC in text and not (self.fmt.rest and _DERIVED.search(text))
        if self.fmt.kind is Kind.PANIC and not self.has_body:
            what, code, _ = text.partition(": Code=")
            return bool(code) and what in self.header  # parisc panics first, then says why
        if fmt.kind is Kind.BUG and self.fmt.kind is Kind.TRAP and not self.has_stack:
            return bool(self.fmt.then) and self.fmt.then in text  # xmon says both, the trap first
        # Of some reports a line or two stand above the first.
        announced = self.fmt.announces and ("WARNING: " in text or "ernel BUG at" in text)
        return (
            (announced or self.fmt.is_remains)
            and not self.has_body
            and len(self.raw) <= _ANNOUNCED_WITHIN
            and not (fmt.announces or fmt.is_remains)
        )

    def is_only_said(self, *, bare: bool) -> bool:
        """Whether it is nothing but words that somebody may have written about such a report."""
        if self.printer == PLAIN and self.spoken and not self.has_body:
            return True
        # A log that goes on below words which anybody may use has nothing more to say of them.
        goes_on = self.fmt.loose and self.idle > 0
        listed = self.printer == PLAIN and is_listed(self.header)
        return bare and (goes_on or self.indexed or listed)

    def restate(self, line: int, raw: str, fmt: Format, match: re.Match[str]) -> None:
        self.fmt, self.groups, self.header = fmt, dict(match.groupdict()), match.string
        self.raw.append(raw)
        self.last_line, self.kept = line, len(self.raw)

    def over(self, text: str) -> bool:
        return (
            (bool(_END.match(text)) and not (self.is_headless and "end trace" in text))
            or self.idle > (_MAX_IDLE if self.has_stack else _MAX_IDLE_EARLY)
            or len(self.raw) > _MAX_LINES
        )

    def header_frames(self) -> list[Frame]:
        """The function that the header (or the detail) names."""
        name = self.groups.get("func")
        if not name:
            return []
        off, size = self.groups.get("off"), self.groups.get("size")
        return [
            Frame(
                plain_name(name),
                int(off, 16) if off else None,
                int(size, 16) if size else None,
                self.groups.get("mod"),
            )
        ]


# kernel/sched/core.c, sched_show_task(), of a task that runs, sleeps and takes signals, or is idle
_IN_STATE = re.compile(
    r"task:.{1,16} +state:[RSIPTt]\b"
    r"|.{1,16} +[RSIPTt] (?:[0-9a-f]{8,16}| running| +\d).* 0x[0-9a-f]{8}$"
)

# arch/arm/kernel/process.c, __show_regs(), and arch/arm/mm/fault.c, __do_user_fault(): with
# CONFIG_DEBUG_USER the kernel shows the registers of programs that die.
_OF_USER = re.compile(r"\bMode USER_|\b__do_user_fault\b")

# arch/arm/kernel/traps.c, dump_mem(): of the stack, above its calls, where the kernel dies. Those
# of an exception stand between calls, and the next one is the exception's entry.
_STACK_WORDS = re.compile(r"[0-9a-f]{4}: (?:[0-9a-f]{8} ){7}[0-9a-f]{8}\s*$")
_ENTRY = re.compile(r"_*(?:irq|fiq)_(?:svc|usr)|ret_fast_syscall|el[01]_irq|ret_from_fork")

# What arch/*/include/asm/bug.h makes of BUG() and WARN(): x86, arm64, powerpc, mips, riscv
_BUG_CODE = re.compile(
    r"(?:\s*Code: )?.*(?:<0f> 0b|\(d4210000\)|<0(?:fe00000|200000d)>|[(<](?:0010)?9002[)>])"
)
_ANY_CODE = re.compile(r"\s*Code: .*[<(][0-9a-f]{2,8}[)>]")
_CODE = re.compile(r"\s*Code: +(?:[0-9a-f]{4,8} +){1,12}[<(][0-9a-f]{4,8}[>)]")

_MASKS = (
    (re.compile(rf"(?<![\w$.])({NAME})\+0x[0-9a-f]+/0x[0-9a-f]+"), r"\1"),
    (re.compile(r"\b0x[0-9a-f]+\b|\b(?=[a-f]*\d)[0-9a-f]{8,}\b"), "ADDR"),
    (re.compile(r"(\.(?:c|h|S|rs)):\d+(?::\d+)?"), r"\1:LINE"),
    (re.compile(r"(?<![A-Za-z_\d])\d+(?![A-Za-z_\d])"), "NUM"),
    (re.compile(r"[\s.]+$"), ""),
    (re.compile(r"\s+"), " "),
)


def _mask(text: str) -> str:
    """Takes out of a title what differs each time: addresses, line numbers, other numbers."""
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text


def _event(report: _Report, *, pasted: bool) -> Event | None:
    fmt = report.fmt
    has_detail = _add_detail(report)
    shown = report.has_stack or report.guesses
    shown = shown or (pasted and fmt.nameless and find(report.items, Tag.PC) is not None)
    # Some kernels print an interrupt's handlers under no stack, and no program prints such lines.
    if fmt.silent or (fmt.needs_stack and not shown and not report.lists_handlers):
        return None
    if fmt.needs_registers and not report.has_registers:
        return None
    if fmt.nameless and any(_OF_USER.search(item.text) for item in report.items):
        return None

    if fmt.nameless or fmt.of_bug:
        told = _told(report, pasted=pasted)
        if told is None and fmt.rest:
            return None
        if told is not None:
            report.fmt = fmt = told_as(fmt, told) if _is_stack(fmt) else replace(fmt, kind=told)

    names_function = "{func}" in fmt.title and has_detail
    candidates = fmt.site(report)
    foreign = _injected(candidates)
    ours = candidates if foreign is None else candidates[:foreign]
    guilty = fmt.pick([f for f in ours if not (is_inlined(f) or _is_helper(f, fmt))])
    stack = _clean_stack(report)

    title = fmt.title if has_detail or not fmt.cut else fmt.cut
    name, frame = guilty if guilty else (None, None)
    words = {key: _mask(value) for key, value in report.groups.items() if value and key != "func"}
    title = _fill(title, {**words, "func": name or "corrupted"})
    if not names_function and name is None:
        head = report.header_frames()
        frame = head[0] if head else None
        name = frame.function if frame else None
    where = _place(report)
    if where is None and (name is None or fmt.nameless or fmt.kind is Kind.ATOMIC_SLEEP):
        where = _asker(report)
    if where is None and name is None and not fmt.nameless and not fmt.site_is_all:
        where = nearest(report) or _work(report)
    if where is not None:
        name, frame = where.function, where

    stack_missing = not fmt.stackless and not report.has_stack
    return Event(
        kind=fmt.kind,
        title=title,
        function=name,
        module=_module_of(name, frame, stack),
        location=report.groups.get("src") or _location_of(frame, stack),
        stack=stack,
        corrupted=(
            fmt.broken
            or (not has_detail and not report.has_stack)
            or stack_missing
            or (names_function and guilty is None)
        ),
        headless=fmt.nameless or fmt.is_remains,
        bare=not (fmt.stackless and not fmt.loose) and not report.has_body,
        line=report.line,
        excerpt="\n".join(report.raw[: report.kept]),
    )


def _is_stack(fmt: Format) -> bool:
    """Whether a format is that of a stack under no header, and not of registers."""
    return fmt.nameless and fmt.kind is Kind.WARNING


def _told(report: _Report, *, pasted: bool) -> Kind | None:
    """What a stack without a header, registers without one, or a trap is of; None: of nothing."""
    fmt, items = report.fmt, report.items
    calls = [*leading_guesses(items), *stack_from(items, marked=False)]
    if _is_stack(fmt) and (kind := told_by(calls)):
        return kind
    if report.words_above and calls and not _ENTRY.fullmatch(calls[0].function):
        return Kind.PAGE_FAULT
    pc, call = find(items, Tag.PC), find(items, Tag.FRAME)
    frames = report.header_frames()
    if pc is not None and (call is None or pc < call):
        frames += [frame] if (frame := items[pc].frame) else []
    checked = told_at(frames[0]) if frames else None
    stops = any(_BUG_CODE.match(item.text) for item in items)
    faults = not stops and any(_ANY_CODE.match(item.text) for item in items)
    if fmt.of_bug:
        return Kind.BUG if stops else fmt.kind
    if not _is_stack(fmt):
        return checked or fmt.kind
    # A fault is the likeliest of what shows registers, or the instructions below the stack.
    # Elsewhere than on x86 they do so at the end alone, which may be cut off.
    faults = faults or (pc is not None and not stops and "IP:" not in items[pc].text)
    if pasted and ((frames and faults) or (fmt.rest and _has_code_below(report))):
        return checked or Kind.PAGE_FAULT
    return checked or (None if fmt.rest else fmt.kind)


def _has_code_below(report: _Report) -> bool:
    """Whether the instruction at which the kernel died is shown below a stack.

    So do the architectures whose instructions are of 16 or 32 bits; a fault is the likeliest.
    """
    at = find(report.items, Tag.FRAME)
    below = report.items[at:] if at is not None else []
    return any(_CODE.match(item.text) for item in below)


def _of_module(report: _Report, event: Event) -> Event | None:
    """A stack without a header, if a module has asked for it."""
    if any(frame.module for frame in event.stack):
        return event
    # A function whose last act is dump_stack() jumps there, and is no longer on the stack. Whoever
    # has called it still has its address, so that the unwinder shows that as a guess.
    asked = [item.frame for item in report.items if item.frame and item.tag is Tag.GUESS]
    works = [_WORK.match(item.text) for item in report.items]
    asked += [Frame(plain_name(work["func"]), module=work["mod"]) for work in works if work]
    for frame in asked:
        if frame.module:
            name = frame.function.removeprefix("__pfx_")
            title = f"stack trace in {name}"
            return replace(event, title=title, function=name, module=frame.module)
    return None


_AT_A_PLACE = {
    Kind.PAGE_FAULT,
    Kind.GPF,
    Kind.TRAP,
    Kind.BUG,
    Kind.WARNING,
    Kind.REFCOUNT,
    Kind.KOBJECT,
    Kind.LIST_CORRUPTION,
    Kind.USERCOPY,
    Kind.STACK_OVERFLOW,
    Kind.SOFT_LOCKUP,
    Kind.HARD_LOCKUP,
    Kind.RCU_STALL,
    Kind.PAGE_ALLOCATION,
    Kind.SLAB,
    Kind.PANIC,
}
_RUNS_WORK = ("process_one_work", "process_scheduled_works", "worker_thread")
_WORK = re.compile(r"Workqueue: \S{1,80} (?P<func>[A-Za-z_][\w.$]{0,200})(?: \[(?P<mod>\w+)\])?")


def _place(report: _Report) -> Frame | None:
    """Where the report happened, if its kind has a place; None leaves what the title names."""
    fmt = report.fmt
    site = fmt.place or fmt.site
    if fmt.kind is Kind.HUNG_TASK or fmt.sleeps:
        return waiting_place(report, site, atomic=fmt.sleeps)
    if fmt.site is of_handlers:
        return next(iter(of_handlers(report)), None)
    if (fmt.kind not in _AT_A_PLACE and fmt.place is None) or site is nowhere:
        return None
    where = at_warning_s_header if site is at_warning else site
    found = place(report, where, fmt.skip, faulted=fmt.kind in (Kind.PAGE_FAULT, Kind.GPF))
    if found is None or found.function in _RUNS_WORK:
        found = _work(report) or found
    return found or last_resort(report, where, fmt.skip)


def _work(report: _Report) -> Frame | None:
    """The function of the work item that a kworker was at."""
    for item in report.items:
        if work := _WORK.match(item.text):
            return Frame(plain_name(work["func"]), module=work["mod"])
    return None


def _asker(report: _Report) -> Frame | None:
    """What the stack shows of a kind that has no place: in whatever form, if it must be a guess."""
    fmt = report.fmt
    if fmt.site not in (in_trace, at_header, at_header_plain) or fmt.place is not None:
        return None
    calls = known_calls(report, fmt.site)
    if fmt.skip is not None:
        calls = [frame for frame in calls if not is_in(fmt.skip, frame)]
    return asker(calls, atomic=fmt.kind is Kind.ATOMIC_SLEEP)


def _injected(frames: list[Frame]) -> int | None:
    """Finds where a stack of fault injection (lib/fault-inject.c, fail_dump()) is mixed in.

    It announces a failure, not a problem, but often comes at the same moment as one.
    """
    return next((at for at, f in enumerate(frames) if f.function.startswith("should_fail")), None)


def _is_helper(frame: Frame, fmt: Format) -> bool:
    return is_in(HELPERS, frame) or (fmt.skip is not None and is_in(fmt.skip, frame))


def _add_detail(report: _Report) -> bool:
    """Adds the groups of the format's detail; returns whether it was there, or not needed."""
    if report.fmt.detail is None:
        return True
    for item in report.items[:_DETAIL_ITEMS]:
        if match := report.fmt.detail.search(item.text):
            report.groups.update(match.groupdict())
            return True
    return False


_FIELD = re.compile(r"\{(\w+)\}")


def _fill(template: str, words: dict[str, str]) -> str:
    return _FIELD.sub(lambda match: words.get(match[1], ""), template).strip()


def _module_of(name: str | None, frame: Frame | None, stack: tuple[Frame, ...]) -> str | None:
    """A header may name the function without its module; the stack then has both."""
    if frame and frame.module:
        return frame.module
    if name and frame and frame.offset is None:
        return next((f.module for f in stack if f.function == frame.function), None)
    return None


def _location_of(frame: Frame | None, stack: tuple[Frame, ...]) -> str | None:
    """The same of file and line."""
    if frame is None or frame.location:
        return frame.location if frame else None
    return next((f.location for f in stack if f.function == frame.function), None)


def _clean_stack(report: _Report) -> tuple[Frame, ...]:
    """The report's own stack, whichever way its format marks one."""
    if report.fmt.site in (at_header_plain, in_origin):
        frames = stack_from(report.items, marked=False)
    else:
        # Who has cut the log may have left the line above a stack out; old kernels print none.
        unmarked = find(report.items, Tag.TRACE) is None
        frames = stack_from(report.items, marked=not unmarked)
    at = find(report.items, Tag.PC)
    pc = report.items[at].frame if at is not None else None
    if pc and frames and at is not None and pc.function != frames[0].function:
        first_frame = find(report.items, Tag.FRAME)
        if first_frame is not None and at < first_frame:
            frames = [pc, *frames]
    elif pc and not frames:
        frames = [pc]
    own = list(itertools.dropwhile(lambda frame: is_in(REPORTING, frame), frames))
    return tuple(own or frames)


_HEADER_LITERALS = {*(fmt.has for fmt in FORMATS), REBOOT.has, BANNER}
# One that contains another need not be searched for.
_LITERALS = tuple(
    literal
    for literal in sorted(_HEADER_LITERALS)
    if not any(other in literal for other in _HEADER_LITERALS - {literal})
)
_SEARCHES = tuple((fmt.has, fmt.pattern.search, fmt) for fmt in FORMATS)
_DERIVED = re.compile(rf"Kernel panic - not syncing: {DERIVED_PANIC}")
_KILLED_INIT = "Attempted to kill init!"  # of which init itself may be the cause
_KILLS_TASK = {Kind.PAGE_FAULT, Kind.GPF, Kind.TRAP, Kind.BUG, Kind.LIST_CORRUPTION, Kind.USERCOPY}


def _header(text: str) -> tuple[Format, re.Match[str]] | None:
    """Returns the format whose header a line is, in the order of FORMATS."""
    for literal, search, fmt in _SEARCHES:
        if literal in text and (match := search(text)):
            return fmt, match
    return None


class _Lines:
    """Walks over the text's lines, and knows without reading them which may be headers."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0  # offset of the next line
        self.number = 0  # and its number
        self._next: dict[str, int] = dict.fromkeys(_LITERALS, -1)
        self._nearest = -1

    def _literal(self) -> int:
        """Returns where the next literal of a header is; every literal's text is read once."""
        if self._nearest < self.at:
            for literal, known in self._next.items():
                if known < self.at:
                    found = self.text.find(literal, self.at)
                    self._next[literal] = len(self.text) if found < 0 else found
            self._nearest = min(self._next.values())
        return self._nearest

    def jump(self) -> bool:
        """Goes to the next line which may be a header; False where there is none."""
        nearest = self._literal()
        if nearest >= len(self.text):
            return False
        start = self.text.rfind("\n", self.at, nearest) + 1
        if start > self.at:
            self.number += self.text.count("\n", self.at, start)
            self.at = start
        return True

    def may_be_header(self) -> bool:
        """Whether the next line holds a literal."""
        nearest = self._literal()
        return nearest < len(self.text) and self.text.find("\n", self.at, nearest) < 0

    def take(self) -> tuple[int, str] | None:
        """Returns the next line's number and its text without the end of line."""
        if self.at >= len(self.text):
            return None
        end = self.text.find("\n", self.at)
        end = len(self.text) if end < 0 else end
        number, line = self.number, cut_line(self.text[self.at : end].rstrip("\r"))
        self.at, self.number = end + 1, number + 1
        return number, line

    def next(self) -> str:
        """Returns the line that :meth:`take` would give, or an empty one."""
        end = self.text.find("\n", self.at)
        return cut_line(self.text[self.at : len(self.text) if end < 0 else end].rstrip("\r"))

    def before(self, count: int) -> Iterator[str]:
        """Yields the lines above the one taken last, the nearest first."""
        end = self.text.rfind("\n", 0, max(self.at - 1, 0))
        for _ in range(count):
            if end <= 0:
                return
            start = self.text.rfind("\n", 0, end) + 1
            yield cut_line(self.text[start:end].rstrip("\r"))
            end = start - 1


class _Reader:
    """Follows the reports in a text. Every line is looked at once."""

    def __init__(self, text: str, *, booted: bool, reboots: frozenset[int] | None = None) -> None:
        self.lines = _Lines(text)
        self.reboots = reboots  # where the text was pasted: its lines that are reboots
        stamp = STAMP.search(text, 0, 1 << 20)
        self.stamped = stamp is not None
        self.first_stamp = stamp.start() if stamp else len(text)
        self.starts_running = stamp is not None and "[    0.0" not in stamp[0]
        self.expects_boot = not booted
        self.hangs = _HANGS in text
        self.banner_due = False  # the boot loader's message was seen, the banner not yet
        self.boots = 0
        self.panicked = False
        self.open: dict[str, _Report] = {}
        self.closed: list[_Report] = []
        self.last: _Report | None = None

    def run(self) -> Iterator[Event]:
        while self.open or self.lines.jump():
            notable = self.lines.may_be_header()
            taken = self.lines.take()
            if taken is None:
                break
            self._line(*taken, notable=notable)
            if self.closed:
                yield from self._finish()
        self._close_all()
        yield from self._finish()

    def _finish(self) -> Iterator[Event]:
        """Yields the events of closed reports, in the order in which they began."""
        begun = min((report.line for report in self.open.values()), default=None)
        ready = [r for r in self.closed if begun is None or r.line < begun]
        if not ready:
            return
        self.closed = [r for r in self.closed if begun is not None and r.line >= begun]
        for report in sorted(ready, key=lambda r: r.line):
            event = _event(report, pasted=self.reboots is not None)
            # On a console of ours nothing is lost: a stack without a header is somebody's
            # dump_stack(), and of interest where that is a module.
            if event and report.fmt.nameless and self.reboots is None:
                event = _of_module(report, event)
            if event and self.reboots is not None and self._says_nothing(report, event):
                event = None
            if event:
                yield event

    def _says_nothing(self, report: _Report, event: Event) -> bool:
        """Whether a pasted report is a sentence, or what is left of the one that comes again."""
        if event.headless and event.kind is Kind.HUNG_TASK and not self.hangs:
            return True  # SysRq shows such stacks, too
        later = self.last if self.last is not report else None
        again = report.has_no_head and later is not None and later.fmt.kind is event.kind
        return report.is_only_said(bare=event.bare) or (again and event.function is None)

    def _line(self, number: int, raw: str, *, notable: bool) -> None:
        printer, text = split_line(raw)
        if notable and self._boots(number, raw, printer, text):
            return
        printer = self._printer(printer, text)
        report = self.open.get(printer)
        header = _header(text) if notable and printer != USER else None
        if header and not self._counts(header[0], printer, report):
            header = None
        if header and self.reboots is not None and is_quoted(text, header[1].start()):
            header = None
        if header and _PANIC in text:
            if self.panicked and text.startswith("---[ end "):
                header = None  # the panic's last line repeats its first
            self.panicked = True
        if header and report and self._is_same(header[0], text, report):
            report.restate(number, raw, *header)
        elif header and not self._is_part(header[0], text, report):
            indexed = printer == PLAIN and report is not None and report.is_indexed_with(text)
            if report:
                report.indexed |= indexed
                self._close(report)
            self._begin(number, raw, printer, *header).indexed = indexed
        elif report and self.reboots is None and not report.has_body and _OF_OTHERS.match(text):
            self._close(report)
        elif report:
            report.add(number, raw, text)
            if report.over(text):
                self._close(report)
        elif self.open:
            self._of_others(number, raw, printer, text)

    def _printer(self, printer: str, text: str) -> str:
        """Whose line it is: in a pasted log one without a stamp may be of a report that has them.

        Who trims a log may leave the stamp of its first line alone.
        """
        if printer != PLAIN or self.reboots is None or CONSOLE not in self.open:
            return printer
        shown = read_line(text)[0].tag is not Tag.TEXT or _SHAPE.match(text) is not None
        return CONSOLE if shown and PLAIN not in self.open else printer

    def _is_same(self, fmt: Format, text: str, report: _Report) -> bool:
        """Whether a header is that of the open report once more, or at last."""
        again = text == report.header
        # Two CPUs that stop at the same place at the same time print between each other's lines.
        beside = not report.has_stack and len(report.raw) <= _BESIDE_LINES
        pasted_twice = self.reboots is not None and (not report.has_body or beside) and again
        # xmon says last what the kernel had said before it.
        repeated = again and fmt.then == _XMON and any(_XMON in line for line in report.raw)
        return pasted_twice or repeated or report.is_restated(text) or report.is_named_by(fmt, text)

    def _counts(self, fmt: Format, printer: str, report: _Report | None) -> bool:
        """Whether what looks like a header may be one at this place."""
        if fmt.loose and printer == PLAIN and self.stamped:
            return False
        if fmt.own and self.reboots is not None:
            return False
        asked_for = report is not None and report.fmt.silent
        if fmt.rest and (asked_for or not self._is_all_that_is_left(fmt)):
            return False
        if fmt.refuses and report and not report.fmt.refuses and self.reboots is not None:
            return False  # who has no callers to tell them apart keeps the report that is open
        if fmt.nameless:
            # Every report has such a line, and so has each CPU that was asked for its stack.
            asked = any(other.all_cpus for other in self.open.values()) or any(
                "NMI backtrace for cpu" in line for line in self.lines.before(_ASKED_WITHIN)
            )
            asked = asked or self._is_of_sleeper()
            within = report is not None and fmt.has == A_CALL
            return (report is None or report.has_no_head) and not asked and not within
        return not (fmt.silent and report)

    def _is_of_sleeper(self) -> bool:
        """Whether a stack belongs to a task that nobody has complained of: SysRq shows them all."""
        lines = [said(line) for line in self.lines.before(_STATE_WITHIN)]
        return any(_IN_STATE.match(line) for line in lines)

    def _is_all_that_is_left(self, fmt: Format) -> bool:
        """Whether a report's later part may be the first of it that the text holds."""
        if self.reboots is None:
            return False
        if fmt.nameless and self.last in self.open.values() and self.last and self.last.has_no_head:
            return True
        if (
            fmt.is_remains
            and self.last in self.open.values()
            and self.last
            and self.last.tells_nothing
        ):
            return True
        # What stands within reports does so in those of more than one kind.
        within = fmt.nameless or fmt.is_remains
        return self.last is None or not (within or self.last.fmt.kind is fmt.kind)

    def _of_others(self, number: int, raw: str, printer: str, text: str) -> None:
        """A line whose printer has no report: another CPU's stack for one, or nothing."""
        for report in list(self.open.values()):
            if report.all_cpus and printer.startswith("C"):
                report.add(number, raw, text)
            if number - report.last_line > _MAX_GAP or report.over(text):
                self._close(report)

    def _is_consequence(self, text: str) -> bool:
        """Whether a panic comes of a report that is complete, maybe of another task's."""
        cause = self.last.fmt.kind if self.last else Kind.REBOOT
        if _KILLED_INIT in text:
            return cause in _KILLS_TASK
        return cause is not Kind.REBOOT and bool(_DERIVED.search(text))

    def _is_part(self, fmt: Format, text: str, report: _Report | None) -> bool:
        """Whether a header only continues a report, or is a consequence of one."""
        if _PANIC in text:
            return not report.fmt.silent if report else self._is_consequence(text)
        if report and report.fmt.refuses and report.fmt.then and report.fmt.then in text:
            return True
        if report is None or report.has_stack or report.fmt.silent:
            return False
        # What a report whose head is lost has left is another's.
        if report.fmt.nameless or len(report.raw) > _PART_LINES:
            return False
        if fmt.part or fmt.announces or (report.fmt.then and report.fmt.then in text):
            return True
        # One printer that begins anew without having shown a stack is still at the same report.
        return report.printer not in (CONSOLE, PLAIN) and not report.fmt.stackless

    def _begin(
        self, number: int, raw: str, printer: str, fmt: Format, match: re.Match[str]
    ) -> _Report:
        lead: list[str] = []
        above = 0
        for distance, line in enumerate(self.lines.before(_LEAD_LINES), 1):
            who, text = split_line(line)
            if who != printer:
                continue
            if not _LEAD.match(text) or (lead and text.startswith("=======")):
                break
            if text.strip():
                lead.insert(0, line)
                above = distance
        report = _Report(
            fmt=fmt,
            groups=dict(match.groupdict()),
            printer=printer,
            line=number - above,
            raw=[*lead, raw],
            last_line=number,
            kept=len(lead) + 1,
            header=match.string,
            spoken=self._is_spoken(printer, match),
            words_above=any(_STACK_WORDS.match(said(line)) for line in self.lines.before(1)),
        )
        if report.has_no_head:
            report.items, report.mark = [Item(Tag.TRACE, match.string)], Tag.TRACE
        if fmt.has == A_CALL:  # the first line is one of the stack
            report.add(number, raw, match.string)
            report.raw.pop()
        if len(self.open) >= _MAX_OPEN:
            self._close(next(iter(self.open.values())))
        self.open[printer] = report
        if not fmt.silent:
            self.last = report
        if _END.match(match.string):
            self._close(report)
        return report

    def _is_spoken(self, printer: str, match: re.Match[str]) -> bool:
        """Whether a header is part of a sentence; no line of the kernel's own beside it is."""
        if self.reboots is None or printer != PLAIN:
            return False
        beside = (next(self.lines.before(1), ""), self.lines.next())
        above, below = ("" if _header(line) else line for line in beside)
        return is_spoken(match.string, match, above, below)

    def _boots(self, number: int, raw: str, printer: str, text: str) -> bool:
        """Whether the line is the first of a boot; an unexpected one makes a report.

        A boot that no line of a running kernel precedes is the text's own.
        """
        if self.reboots is not None:
            if not BANNER_LINE.match(text) or printer in (PLAIN, USER):
                return False
            return self._booted(number, raw, printer, unexpected=number in self.reboots)
        if printer == PLAIN and REBOOT.pattern.match(text):
            self.banner_due = True
            was_up = self.first_stamp < self.lines.at - len(raw) - 1
        elif BANNER_LINE.match(text) and printer not in (PLAIN, USER):
            if self.banner_due:
                self.banner_due = False
                return True
            was_up = self.starts_running
        else:
            return False
        was_up = was_up or self.boots > 0
        unexpected = was_up and (self.boots > 0 or not self.expects_boot)
        return self._booted(number, raw, printer, unexpected=unexpected)

    def _booted(self, number: int, raw: str, printer: str, *, unexpected: bool) -> bool:
        """Ends what was open at a boot's first line, and makes a report of an unexpected one."""
        self._close_all()
        self.boots += 1
        if unexpected and not self.panicked:
            self.last = _Report(REBOOT, {}, printer, number, [raw], last_line=number, kept=1)
            self.closed.append(self.last)
        self.panicked = False
        return True

    def _close(self, report: _Report) -> None:
        self.open.pop(report.printer, None)
        self.closed.append(report)

    def _close_all(self) -> None:
        for report in list(self.open.values()):
            self._close(report)


def read(text: str, *, booted: bool = True, pasted: bool = False) -> list[Event]:
    """Returns every problem in a kernel log, in the order in which they begin.

    ``text`` is a console's output, dmesg's (raw or not), or what /dev/kmsg gives, with carriage
    returns and control characters; lines which a program wrote to /dev/kmsg are left out where
    their priority is shown. ``booted`` says that the kernel was up when the text began: a boot
    after any line of the kernel is a reboot then. Else the first boot is expected, whatever
    stands before it.

    ``pasted`` says that nobody knows where the text comes from: out of a journal, a syslog, a
    mail that has wrapped its lines (see :mod:`harness.klog.paste`). Events are then of the text
    with that undone, but for ``line``; and boots are reboots where the kernel's clock goes back.

    Never raises, whatever the text; takes time in proportion to its length.
    """
    return list(events(text, booted=booted, pasted=pasted))


def events(text: str, *, booted: bool = True, pasted: bool = False) -> Iterator[Event]:
    """Yields what :func:`read` returns, one by one, for whoever may have seen enough.

    There is no limit: the last problem of a flood may be another than all before it. Who must
    bound how much is reported counts what is different, and says where the reading stopped.
    """
    if not pasted:
        yield from _Reader(text, booted=booted).run()
        return
    console = unpaste(text)
    told: set[tuple[str, str]] = set()
    for event in _Reader(console.text, booted=booted, reboots=console.reboots).run():
        # A console's log and a journal's beside each other say the same at the same time.
        when = next((m["clock"] for m in map(STAMP.match, event.excerpt.split("\n")) if m), "")
        if when and (event.title, when) in told:
            continue
        told.add((event.title, when))
        yield replace(event, line=console.lines[event.line])


# What the kernel has refused with an error; where it dies of something later, that is the problem.
_REFUSALS = ("sysfs: duplicate", "kobject: kobject_add_internal", "debugfs: ")


def first(text: str) -> Event | None:
    """Returns the first problem in a pasted log: the others may be its consequences.

    A title stands alone above the report that it is of, and the end of another report may stand
    above one that is whole.
    """
    found = events(text, pasted=True)
    event = _first(found)
    if event is None or event.function or not (event.bare or event.headless):
        return event
    title = said(event.excerpt.split("\n")[-1])
    for other in found:
        if event.headless and not other.headless:
            return other
        again = other.kind is event.kind or (
            title.strip() and title in map(said, other.excerpt.split("\n"))
        )
        if again and not other.bare and other.function:
            return other
    return event


def _first(found: Iterator[Event]) -> Event | None:
    refused = None
    for event in found:
        if not event.title.startswith(_REFUSALS):
            return event if refused is None or event.kind in _KILLS_TASK else refused
        refused = refused or event
    return refused
