# SPDX-License-Identifier: GPL-2.0-only
"""Calls and stacks: what a line of a report says of the code."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from harness.klog.rust import Demangler


@dataclass(frozen=True, slots=True)
class Frame:
    """One call on a stack, as in ``wee_write+0x1c/0x90 [waitqueues]``.

    ``offset`` and ``size`` are bytes, None where the log has only the name (inlined functions);
    ``module`` is None for built-in code; ``location`` is file:line where the log was symbolised
    (scripts/decode_stacktrace.sh and the like append it).
    """

    function: str
    offset: int | None = None
    size: int | None = None
    module: str | None = None
    location: str | None = None


NAME = r"[A-Za-z_$][\w$]*(?:\.[\w$]+)*"
WHERE = r"\+0x(?P<off>[0-9a-f]{1,8})/0x(?P<size>[0-9a-f]{1,8})"
# What a mail has put in the same line may be the next one's address.
MODULE = r"(?: ?\[(?P<mod>(?!inline\]|[0-9a-f]{16}\])\w+)(?: [^\]\n]{0,80})?\])?"
_SOURCE = r"(?:\)? (?P<src>[\w./+~@,-]{1,200}\.(?:c|h|S|rs):\d+)(?::\d+)?)?"
# Of an address between angle brackets a web page leaves the square ones: it was taken for a tag.
# klogd, until the kernel did so itself, put names there: "[brook_write+65/176]".
_ADDRESS = r"(?:\[(?:<?(?:0x)?[0-9a-f]{4,16}>?|[\w:.]{1,200}\+\d{1,8}/\d{1,8})?\]\s*)"
# x86-64 printed a module before the function up to 2.6.24: ":brook:brook_write+0x1/0x2".
# 64-bit powerpc before ELFv2 has a dot before a function's name: ".brook_write+0x1/0x2".
_CALL = rf"(?::(?P<old>\w+):)?\.?(?P<func>{NAME}){WHERE}{MODULE}{_SOURCE}"

# arch/*/kernel/dumpstack.c, stacktrace.c, traps.c; mm/kmemleak.c; lib/stackdepot.c users
# arch/s390/kernel/dumpstack.c, show_trace(), puts what may be no call in parentheses.
_FRAME = re.compile(
    rf"\s*(?:</?[A-Z][\w#-]{{1,15}}>\s*)?(?P<paren>\((?=\[<))?{_ADDRESS}{{0,2}}"
    rf"(?P<guess>\?\s+)?{_CALL}"
)
# What scripts/decode_stacktrace.sh and other symbolisers make of inlined calls.
_INLINE = re.compile(
    rf"\s*(?:{_ADDRESS}{{0,2}}|\[<\s*inline\s*>\]\s*)(?P<func>{NAME}) "
    r"(?P<src>[\w./+~@,-]{1,200}\.(?:c|h|S|rs):\d+)(?::\d+)?(?P<mark> \[inline\])?\s*$"
)
# arch/arm/kernel/traps.c, dump_backtrace_entry(): "[<..>] (callee) from [<..>] (caller+0x1/0x2)"
# and, since 5.18, "callee from caller+0x1/0x2"; a callee may have its module behind it.
_ARM = re.compile(
    rf"\s*{_ADDRESS}?\(?(?P<callee>{NAME})(?:\+0x[0-9a-f]{{1,8}}/0x[0-9a-f]{{1,8}})?"
    r"(?: \[(?P<in>\w+)[^\]\n]{0,80}\])?\)?"
    rf" from {_ADDRESS}?\(?{_CALL}"
)
_ARM_INLINE = re.compile(
    rf"\s*{_ADDRESS}\((?P<callee>{NAME})\) from {_ADDRESS}\((?P<func>{NAME}) "
    r"(?P<src>[\w./+~@,-]{1,200}:\d+) \[inline\]\)"
)
# scripts/decode_stacktrace.sh puts the source, and what was inlined there, in place of the offset.
_DECODED_CALL = (
    rf"(?P<func>{NAME}) \((?P<src>[\w./+~@,-]{{1,200}}\.(?:c|h|S|rs):\d+)"
    # The last line of a log may be cut.
    r"(?:[^()\n]|\([^()\n]{0,60}\)){0,900}(?:\)(?: \[?(?P<mod>\w+)[^\]\n]{0,80}\]?)?"
    r"|\([^()\n]{0,60}$|$)"
)
_DECODED = re.compile(
    rf"\s*(?:</?[A-Z][\w#-]{{1,15}}>\s*)?{_ADDRESS}{{0,2}}(?P<guess>\?\s+)?{_DECODED_CALL}\s*$"
)
# Where the CPU was, arch/*/kernel/{process,traps}.c, show_regs(): x86 "RIP: 0010:call", arm "PC is
# at call", arm64 "pc : call", riscv "epc : call", powerpc "NIP [c000...] call", mips and loongarch
# "epc   : 8003ab3c call" and "ERA: 9000... call", s390 "Krnl PSW : 0704... 0000... (call)", parisc
# "IAOQ[0]: call", sparc "TPC: <call>", m68k "PC: [<0000>] call", arc "[ERET  ]: call", ia64 "ip is
# at call"; powerpc's xmon "pc: c000...: call".
_PC_MARK = (
    r"\s*(?:<[A-Z]+>\s*)?(?:[RE]?IP|NIP|epc|era|ERA|pc|PC|Krnl PSW|IAOQ\[0\]|TPC|\[ERET *\]"
    r"|ip(?= is at))"
    r"(?: is at|)\s*:?\s*"
    rf"(?:[0-9a-f]{{2,4}}:)?{_ADDRESS}{{0,2}}(?:[0-9a-f]{{8,16}}:?\s+){{0,2}}[(<]?"
)
# Where the CPU would have returned to, which stands below that: arm "LR is at call", arm64
# "lr : call", riscv " ra : call", mips "ra    : 8003ab3c call", powerpc "LR [c000...] call".
_LINK = re.compile(
    rf"\s*(?:LR|lr|ra|RA)(?: is at|)\s*:?\s*{_ADDRESS}{{0,2}}(?:[0-9a-f]{{8,16}}:?\s+)?{_CALL}"
)
PC = re.compile(_PC_MARK + _CALL)
# The same by klogd, and what ksymoops makes of an address (both of its numbers are hexadecimal)
_KLOGD_PC = re.compile(
    r"\s*[RE]IP:\s+(?:[0-9a-f]{2,4}:)?\[(?::?(?P<mod>\w+):)?"
    rf"(?P<func>{NAME})\+(?P<decimal>\d{{1,8}})/\d{{1,8}}\]"
)
# crash(8)'s backtrace, which shows calls without their offsets: the task, its calls, and where the
# CPU was when an exception came
_CRASH_TASK = re.compile(r"\s*PID: \d+ +TASK: [0-9a-f]{8,16} +CPU: \d+ +COMMAND: ")
_CRASH_CALL = re.compile(
    rf"\s*#\d+ \[[0-9a-f]{{8,16}}\] (?P<func>{NAME}) at [0-9a-f]{{8,16}}(?: \[(?P<mod>\w+)\])?\s*$"
)
_CRASH_PC = re.compile(rf"\s*\[exception RIP: (?P<func>{NAME})\+(?P<decimal>\d{{1,8}})\]")
_KSYMOOPS = re.compile(
    r"\s*(?:>>)?(?P<what>[RE]IP|PC|NIP|Trace); [0-9a-f]{8,16} "
    rf"<(?:\[(?P<mod>\w+)\])?(?P<func>{NAME})\+(?P<off>[0-9a-f]{{1,8}})/(?P<size>[0-9a-f]{{1,8}})>"
)
# x86-64 up to 2.6.16: "<ffffffffa012a11c>{:brook:brook_write+65}", several in one line
_IN_BRACES = re.compile(
    rf"<[0-9a-f]{{16}}>\{{(?::(?P<mod>\w+):)?(?P<func>{NAME})\+(?P<decimal>\d{{1,8}})\}}"
)
DECODED_PC = re.compile(_PC_MARK + _DECODED_CALL)
# lib/smp_processor_id.c, check_preemption_disabled()
_CALLER = re.compile(rf"\s*caller is {_CALL}")
_DECODED_CALLER = re.compile(rf"\s*caller is {_DECODED_CALL}\s*$")
# kernel/locking/lockdep.c, print_lock(): "(lock){+.+.}-{3:3}, at: func+0x1/0x2"
_LOCK_AT = re.compile(rf".{{0,400}}\bat: {_ADDRESS}?{_CALL}")

_SUFFIX = re.compile(
    r"(?:\.(?:isra|part|constprop|cold|llvm|lto_priv|clone|cfi|cfi_jt)(?:\.\d+)*|\.\d+)+$"
)
"""What compilers append to the name of a function they split or specialised."""


def plain_name(name: str) -> str:
    if name.startswith("_R"):
        try:
            return Demangler(name).symbol()
        except (ValueError, IndexError):
            return name  # cut, or a form of which the kernel's Rust makes no use
    return _SUFFIX.sub("", name)


def _frame(match: re.Match[str]) -> Frame:
    found = match.groupdict()
    return Frame(
        function=plain_name(found["func"]),
        offset=int(found["off"], 16) if found.get("off") else None,
        size=int(found["size"], 16) if found.get("size") else None,
        module=found.get("mod") or found.get("old"),
        location=found.get("src"),
    )


class Tag(enum.Enum):
    """What a line of a report is."""

    FRAME = enum.auto()  # a call on a stack
    GUESS = enum.auto()  # an address found on the stack that may not be a call
    PC = enum.auto()  # the function the CPU was in
    LINK = enum.auto()  # the function it would have returned to
    LOCK = enum.auto()  # a lock, and where it was taken
    TRACE = enum.auto()  # the report's stack follows
    OTHER = enum.auto()  # some other stack follows: allocation, free, dependency, origin
    TEXT = enum.auto()  # anything else


class Item(NamedTuple):
    tag: Tag
    text: str
    frame: Frame | None = None


# "Stack Trace:" on arc
_TRACE_MARK = re.compile(r"Call [Tt]race|[Bb]acktrace(?: \(crc [0-9a-f]+\))?:|^\s*Stack Trace:\s*$")
_OTHER_MARK = re.compile(
    r"\s*(?:(?:Allocated|Freed)(?: by task \d+[^:]{0,60})?:"  # mm/kasan/report.c
    r"|(?:allocated|freed) by task "  # mm/kfence/report.c
    r"|(?:Last|Second to last) (?:potentially related|call_rcu)"  # mm/kasan/report_generic.c
    r"|Uninit was (?:created|stored)|Local variable "  # mm/kmsan/report.c
    r"|page last (?:allocated|free)|page_owner "  # mm/page_owner.c
    # kernel/locking/lockdep.c
    r"|-> #\d+ |(?:\.\.\. )?which became |(?:the )?(?:first|second) lock|\{[A-Z-]+\} state was "
    r"|(?:INITIAL USE|IN-(?:HARD|SOFT)IRQ|(?:HARD|SOFT)IRQ-ON)\S* at:"
    r"|(?:read|write|race at unknown)[^\n]{0,80}by (?:task|interrupt)"  # mm/kcsan/report.c
    r"|(?:INFO: )?(?:Allocated|Freed) in "  # mm/slub.c, print_track()
    # kernel/rcu/tree_stall.h, rcu_check_gp_kthread_starvation()
    r"|(?:rcu: )?(?:rcu_\w+ kthread starved|RCU grace-period kthread stack dump)"
    r"|NMI backtrace for cpu |task:\S|Showing (?:all|busy) "
    r"|Last Breaking-Event-Address"  # arch/s390/kernel/dumpstack.c
    r")"
)
# mm/slub.c, print_track(): who has allocated or freed an object
_OWNER = re.compile(rf"\s*(?:INFO: )?(?:Allocated|Freed) in {_CALL} age=")


def _read_call(text: str) -> list[Item]:
    """Reads a line that names a place in the code; empty if it does not."""
    items: list[Item] = []
    if "+0x" in text:
        if match := _FRAME.match(text):
            if match["guess"] or match["paren"] or "(unreliable)" in text:
                # After <EOI> even a guess tells that the interrupt's own stack ends here.
                items = [Item(Tag.TEXT if "<EOI>" in text else Tag.GUESS, text, _frame(match))]
            else:
                items = [Item(Tag.FRAME, text, _frame(match))]
        elif match := PC.match(text):
            items = [Item(Tag.PC, text, _frame(match))]
        elif match := _LINK.match(text):
            items = [Item(Tag.LINK, text, _frame(match))]
        elif " from " in text and (match := _ARM.match(text)):
            callee = Frame(plain_name(match["callee"]), module=match["in"])
            items = [Item(Tag.FRAME, text, callee), Item(Tag.FRAME, text, _frame(match))]
        elif "at: " in text and (match := _LOCK_AT.match(text)):
            items = [Item(Tag.LOCK, text, _frame(match))]
    elif match := _DECODED.match(text):
        tag = Tag.GUESS if match["guess"] else Tag.FRAME
        items = [Item(tag, text, _frame(match))]
    elif match := DECODED_PC.match(text):
        items = [Item(Tag.PC, text, _frame(match))]
    elif match := _INLINE.match(text):
        items = [Item(Tag.FRAME, text, _frame(match))]
    elif match := _ARM_INLINE.match(text):
        callee = Frame(plain_name(match["callee"]))
        items = [Item(Tag.FRAME, text, callee), Item(Tag.FRAME, text, _frame(match))]
    return items


def _read_translated(text: str) -> list[Item]:
    """Reads places as old kernels, or programs for old kernels, have printed them."""
    if ">{" in text:
        return _read_braces(text)
    if match := _KLOGD_PC.match(text) or _CRASH_PC.match(text):
        return [Item(Tag.PC, text, replace(_frame(match), offset=int(match["decimal"])))]
    if match := _KSYMOOPS.match(text):
        tag = Tag.FRAME if match["what"] == "Trace" else Tag.PC
        return [Item(tag, text, _frame(match))]
    return []


def _read_crash(text: str) -> list[Item]:
    """Reads a line of crash(8)'s."""
    if match := _CRASH_CALL.match(text):
        return [Item(Tag.FRAME, text, _frame(match))]
    return [Item(Tag.TRACE, text)] if _CRASH_TASK.match(text) else []


def _read_braces(text: str) -> list[Item]:
    calls = [
        replace(_frame(match), offset=int(match["decimal"])) for match in _IN_BRACES.finditer(text)
    ]
    if calls and text.lstrip().startswith(("RIP", "EIP")):
        return [Item(Tag.PC, text, calls[-1])]
    mark = [Item(Tag.TRACE, text)] if calls and "Call Trace:" in text else []
    return [*mark, *(Item(Tag.FRAME, text, call) for call in calls)]


_SOURCE_MARK = re.compile(r" \([\w./+~@,-]{1,200}\.(?:c|h|S|rs):\d")


def read_line(text: str) -> list[Item]:
    """Takes one line of a report apart; most give one item, a call on arm may give two."""
    if ("+0x" in text or "inline" in text or _SOURCE_MARK.search(text)) and (
        items := _read_call(text)
    ):
        return items
    if ("IP:" in text or "; " in text or ">{" in text) and (items := _read_translated(text)):
        return items
    if (" at " in text or "TASK: " in text) and (items := _read_crash(text)):
        return items
    if _OTHER_MARK.match(text):
        owner = _OWNER.match(text)
        return [Item(Tag.OTHER, text, _frame(owner) if owner else None)]
    if "race" in text and _TRACE_MARK.search(text):
        return [Item(Tag.TRACE, text)]
    return [Item(Tag.TEXT, text)]


def named_caller(text: str) -> Frame | None:
    """Returns the call that a line "caller is ..." names."""
    match = _CALLER.match(text) or _DECODED_CALLER.match(text)
    return _frame(match) if match else None


def is_inlined(frame: Frame) -> bool:
    """Whether a symboliser put the call in: titles name what the kernel itself can name."""
    return frame.offset is None and frame.location is not None
