# SPDX-License-Identifier: GPL-2.0-only
"""Reads a kernel log and says which problems it holds.

The reader is pure: text in, :class:`Event` out. It knows the reports of kernels 4.x to 7.x as
their sources print them (each entry of :data:`FORMATS` names the function that does), on x86
and, where the shape is the same, on arm, arm64 and riscv.

How a log is read:

1. Every line is split into who printed it and what it says. With CONFIG_PRINTK_CALLER the
   printer is a task (``T123``) or a CPU (``C0``), and a report is followed through the lines of
   its own printer only, however many others write between them.
2. A line that starts a report (a header, see :data:`FORMATS`) opens it; lines of the same
   printer are added until the report ends or another one starts.
3. The report's stacks are taken apart. Frames marked ``?`` are leftovers on the stack, not
   callers, and are dropped. The guilty function is the innermost frame which is no helper
   (:data:`HELPERS`): nobody wants to read that the bug is in ``memcpy``.

One problem gives one event. What the kernel prints as a consequence belongs to the event that
caused it: the ``Oops:`` and ``Internal error:`` lines under a page fault, the trap under a
``BUG()``, and every ``Kernel panic`` that a report led to (``Fatal exception``,
``panic_on_warn set``, ``hung_task: blocked tasks``, ...). A panic that nothing announced, or
whose announcement is not in the text, is an event of its own. Two reports in a row, even of the
same task, are two events: the second may be a second bug.

Titles are those in use in the kernel's bug trackers, so that a title can be searched for there.
"""

from __future__ import annotations

import enum
import functools
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["Event", "Frame", "Kind", "events", "first", "read", "said"]


class Kind(enum.StrEnum):
    """What sort of problem a report is about."""

    KASAN = "kasan"
    """Address sanitizer: use after free, out of bounds, double free, wild access."""
    KFENCE = "kfence"
    """Sampling memory-error detector: like KASAN, cheap enough for production."""
    KMSAN = "kmsan"
    """Use of uninitialised memory, or its leak to user space or a device."""
    KCSAN = "kcsan"
    """Data race."""
    UBSAN = "ubsan"
    """Undefined behaviour of C: shifts, array bounds, overflow, misalignment."""
    SLAB = "slab"
    """The allocator's own checks (slub_debug) found an object overwritten or freed twice."""
    USERCOPY = "usercopy"
    """Hardened usercopy refused a copy beyond an object."""
    PAGE_FAULT = "page-fault"
    """Access through a bad or NULL pointer."""
    GPF = "gpf"
    """General protection fault; on x86-64 mostly a non-canonical pointer."""
    TRAP = "trap"
    """Any other CPU exception in the kernel: divide error, invalid opcode, double fault, ..."""
    STACK_OVERFLOW = "stack-overflow"
    """The kernel stack overflowed or its canary was overwritten."""
    BUG = "bug"
    """BUG() or BUG_ON(), or a "BUG:" line that has no kind of its own."""
    WARNING = "warning"
    """WARN() or one of its relatives that has no kind of its own."""
    REFCOUNT = "refcount"
    """refcount_t saturated, underflowed or was taken from zero."""
    ODEBUG = "odebug"
    """Debug objects: a timer, work item or RCU head used outside of its life."""
    KOBJECT = "kobject"
    """kobject used before initialisation or registered twice."""
    LIST_CORRUPTION = "list-corruption"
    """A list's pointers do not match (CONFIG_DEBUG_LIST)."""
    LOCKDEP = "lockdep"
    """The lock validator: deadlock, imbalance, wrong context, RCU used without its lock."""
    ATOMIC_SLEEP = "atomic-sleep"
    """Sleeping or scheduling where that is forbidden."""
    RCU_STALL = "rcu-stall"
    """A CPU or task held up an RCU grace period for too long."""
    SOFT_LOCKUP = "soft-lockup"
    """A CPU ran kernel code without scheduling for too long."""
    HARD_LOCKUP = "hard-lockup"
    """A CPU did not even take interrupts for too long."""
    HUNG_TASK = "hung-task"
    """A task was in uninterruptible sleep for too long."""
    WORKQUEUE_LOCKUP = "workqueue-lockup"
    """A worker pool made no progress for too long."""
    LEAK = "leak"
    """kmemleak found memory that nothing points to."""
    NETDEV_LEAK = "netdev-leak"
    """A network device cannot go away because somebody still holds it."""
    BAD_PAGE = "bad-page"
    """The memory manager found a page, page table or counter in an impossible state."""
    RUST_PANIC = "rust-panic"
    """Rust code in the kernel panicked."""
    PANIC = "panic"
    """The kernel panicked, and the text does not hold the report that led to it."""
    REBOOT = "reboot"
    """The kernel booted again although nobody asked for it."""


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


@dataclass(frozen=True, slots=True)
class Event:
    """One problem found in a kernel log."""

    kind: Kind
    title: str
    """The field's standard title; a guilty function that cannot be named is ``corrupted``."""
    function: str | None
    """The guilty function as the title has it, None where there is none to name."""
    module: str | None
    """The module the guilty function is in; None for built-in code."""
    location: str | None
    """file:line where the log carries it."""
    stack: tuple[Frame, ...]
    """The stack of the report's own context, innermost call first, guesses ("? ") left out."""
    corrupted: bool
    """The report is cut or mixed up with another; do not trust function and stack."""
    line: int
    """The report's first line in the text, counted from 0."""
    excerpt: str
    """The report's raw lines; those which others printed in between are left out."""


# ---------------------------------------------------------------------------------------------
# Lines


_STAMP = re.compile(r"(?:<(\d{1,3})>)?\[ *\d+\.\d{3,9}\](?: ?\[ *([TC]\d+)[^\]\n]{0,40}\])? ?")
"""kernel/printk/printk.c, print_syslog(), print_time() and print_caller()."""
_KMSG = re.compile(r"(\d{1,4}),\d+,\d+,[-c+][^;\n]{0,80};")
"""/dev/kmsg: priority, sequence, microseconds, flag, further fields (info_print_ext_header())."""
_KMSG_CALLER = re.compile(r"caller=([TC]\d+)")
_SYSLOG = re.compile(r"<(\d{1,3})>")
_OTHER_STAMP = re.compile(
    r"\[\w{3} \w{3} +\d+ [\d:]{8} \d{4}\] "  # dmesg -T
    r"|\w{3} +\d+ [\d:]{8} \S{1,64} kernel: "  # journalctl -k, syslog
    r"|\d{4}-\d\d-\d\dT[\d:]{8}(?:"
    r",\d{6}[+-]\d\d:?\d\d "  # dmesg --time-format iso
    r"|(?:\.\d{1,9})?(?:[+-]\d\d:?\d\d|Z) \S{1,64} kernel: )"  # journalctl -o short-iso, syslog
)
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_STAMP_WITHIN = 400  # characters from a line's start; further on only if it is the last
_LONGEST = 2048  # a printk record has at most 1024 bytes (PRINTKRB_RECORD_MAX), plus prefixes
_FACILITY_SHIFT = 3  # include/linux/syslog.h: priority = facility << 3 | level
_USER = "user"  # printer of lines that a program wrote to /dev/kmsg
_CONSOLE = "console"  # printer of kernel lines that carry no caller
_PLAIN = ""  # printer of lines without a stamp: a program's, or a log without stamps


def cut_line(raw: str) -> str:
    """Returns the part of a line that a record of the kernel's can be in, 2048 characters at most.

    What a program wrote without an end of line, or of terminal codes, may be long and stand
    before the record.
    """
    start = 0
    if len(raw) > _STAMP_WITHIN and not (
        _STAMP.search(raw, 0, _STAMP_WITHIN) or _KMSG.match(raw) or _OTHER_STAMP.match(raw)
    ):
        for late in _STAMP.finditer(raw):
            start = late.start()
    return raw[start : start + _LONGEST]


def split_line(line: str) -> tuple[str, str]:
    """Returns who printed a line that :func:`cut_line` gave, and what it says."""
    if not line.isprintable():
        line = _CONTROL.sub("", line)
    # A prompt or an unfinished line of a program may stand before the console's stamp.
    printer, end, priority = _PLAIN, 0, None
    if line[:1].isdigit() and (kmsg := _KMSG.match(line)):
        caller = _KMSG_CALLER.search(kmsg[0])
        printer, end, priority = caller[1] if caller else _CONSOLE, kmsg.end(), kmsg[1]
    elif stamp := _STAMP.search(line, 0, _STAMP_WITHIN):
        printer, end, priority = stamp[2] or _CONSOLE, stamp.end(), stamp[1]
    elif other := _OTHER_STAMP.match(line):
        printer, end = _CONSOLE, other.end()
    elif syslog := _SYSLOG.match(line):
        printer, end, priority = _CONSOLE, syslog.end(), syslog[1]
    if priority and int(priority) >> _FACILITY_SHIFT:
        printer = _USER
    return printer, line[end:]


def said(line: str) -> str:
    """Returns what a line says, without its stamp, printer and control characters."""
    return split_line(cut_line(line))[1]


# ---------------------------------------------------------------------------------------------
# Frames


_NAME = r"[A-Za-z_$][\w$]*(?:\.[\w$]+)*"
_WHERE = r"\+0x(?P<off>[0-9a-f]{1,8})/0x(?P<size>[0-9a-f]{1,8})"
_MODULE = r"(?: ?\[(?P<mod>(?!inline\])\w+)(?: [^\]\n]{0,80})?\])?"
_SOURCE = r"(?:\)? (?P<src>[\w./+-]{1,200}\.(?:c|h|S|rs):\d+)(?::\d+)?)?"
_ADDRESS = r"(?:\[<?(?:0x)?[0-9a-f]{4,16}>?\]\s*)"
_CALL = rf"(?P<func>{_NAME}){_WHERE}{_MODULE}{_SOURCE}"

# arch/*/kernel/dumpstack.c, stacktrace.c, traps.c; mm/kmemleak.c; lib/stackdepot.c users
_FRAME = re.compile(rf"\s*(?:</?[A-Z][\w#-]{{1,15}}>\s*)?{_ADDRESS}{{0,2}}(?P<guess>\?\s+)?{_CALL}")
# What scripts/decode_stacktrace.sh and other symbolisers make of inlined calls.
_INLINE = re.compile(
    rf"\s*(?:{_ADDRESS}{{0,2}}|\[<\s*inline\s*>\]\s*)(?P<func>{_NAME}) "
    r"(?P<src>[\w./+-]{1,200}\.(?:c|h|S|rs):\d+)(?::\d+)?(?P<mark> \[inline\])?\s*$"
)
# arch/arm/kernel/traps.c, dump_backtrace_entry(): "[<..>] (callee) from [<..>] (caller+0x1/0x2)"
# and, since 5.18, "callee from caller+0x1/0x2"; a callee may have its module behind it.
_ARM = re.compile(
    rf"\s*{_ADDRESS}?\(?(?P<callee>{_NAME})(?: \[(?P<in>\w+)[^\]\n]{{0,80}}\])?\)?"
    rf" from {_ADDRESS}?\(?{_CALL}"
)
_ARM_INLINE = re.compile(
    rf"\s*{_ADDRESS}\((?P<callee>{_NAME})\) from {_ADDRESS}\((?P<func>{_NAME}) "
    r"(?P<src>[\w./+-]{1,200}:\d+) \[inline\]\)"
)
# Where the CPU was: x86 show_ip(), arm __show_regs(), arm64 and riscv __show_regs(), powerpc.
_PC = re.compile(
    r"\s*(?:<[A-Z]+>\s*)?(?:[RE]?IP|NIP|epc|pc|PC)(?: is at|)\s*:?\s*(?:[0-9a-f]{2,4}:)?"
    rf"{_ADDRESS}{{0,2}}{_CALL}"
)
# kernel/locking/lockdep.c, print_lock(): "(lock){+.+.}-{3:3}, at: func+0x1/0x2"
_LOCK_AT = re.compile(rf".{{0,400}}\bat: {_ADDRESS}?{_CALL}")

_SUFFIX = re.compile(
    r"(?:\.(?:isra|part|constprop|cold|llvm|lto_priv|clone|cfi|cfi_jt)(?:\.\d+)*|\.\d+)+$"
)
"""What compilers append to the name of a function they split or specialised."""


def _plain_name(name: str) -> str:
    if name.startswith("_R"):
        try:
            return _Demangler(name).symbol()
        except (ValueError, IndexError):
            return name  # cut, or a form of which the kernel's Rust makes no use
    return _SUFFIX.sub("", name)


_RUST_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8",
    "i": "isize", "j": "usize", "l": "i32", "m": "u32", "n": "i128", "o": "u128", "s": "i16",
    "t": "u16", "u": "()", "v": "...", "x": "i64", "y": "u64", "z": "!", "p": "_",
}  # fmt: skip
_RUST_POINTERS = {"R": "&", "Q": "&mut ", "P": "*const ", "O": "*mut "}


class _Demangler:
    """Reads Rust's symbol names, https://doc.rust-lang.org/rustc/symbol-mangling/v0.html.

    Knows paths, implementations, generic arguments and the types that occur in them, not
    constants and function types: what it does not know is a ValueError.
    """

    _DEPTH: Final = 40
    # A name may refer back to its own parts, and these to theirs: what it stands for can be two
    # to the power of its length. Real names take a few hundred steps.
    _STEPS: Final = 4000
    _DIGITS: Final = 5  # of the length of one part; a name of the kernel's has 512 characters

    def __init__(self, name: str) -> None:
        self.name = name
        self.at = len("_R")
        self.depth = 0
        self.steps = 0

    def symbol(self) -> str:
        return self._path()

    def _take(self) -> str:
        self.steps += 1
        if self.steps > self._STEPS:
            raise ValueError(self.name)
        self.at += 1
        return self.name[self.at - 1]

    def _eat(self, char: str) -> bool:
        if self.name[self.at : self.at + 1] != char:
            return False
        self.at += 1
        return True

    def _base62(self) -> int:
        digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        if self._eat("_"):
            return 0
        value = 0
        while not self._eat("_"):
            value = value * 62 + digits.index(self._take())
        return value + 1

    def _identifier(self) -> tuple[str, int]:
        number = self._base62() + 1 if self._eat("s") else 0
        self._eat("u")
        length = ""
        while self.name[self.at] in "0123456789":
            length += self._take()
            if len(length) > self._DIGITS:
                raise ValueError(self.name)
        self._eat("_")
        end = self.at + int(length)
        if end > len(self.name):
            raise ValueError(self.name)
        self.at, text = end, self.name[self.at : end]
        return text, number

    def _backref(self, read: Callable[[], str]) -> str:
        start = self.at - 1
        target = self._base62() + len("_R")
        if target >= start:
            raise ValueError(self.name)
        here, self.at = self.at, target
        text = read()
        self.at = here
        return text

    def _path(self, *, in_type: bool = False) -> str:
        self.depth += 1
        if self.depth > self._DEPTH:
            raise ValueError(self.name)
        try:
            return self._path_of(self._take(), in_type=in_type)
        finally:
            self.depth -= 1

    def _path_of(self, tag: str, *, in_type: bool) -> str:
        if tag in "MX":
            if self._eat("s"):
                self._base62()
            self._path()  # where the implementation is: of no interest
        match tag:
            case "C":
                path = self._identifier()[0]
            case "N":
                path = self._nested(in_type=in_type)
            case "M":
                path = f"<{self._type()}>"
            case "X" | "Y":
                path = f"<{self._type()} as {self._path(in_type=True)}>"
            case "I":
                generic = self._path(in_type=in_type)
                path = f"{generic}{'' if in_type else '::'}<{', '.join(self._arguments())}>"
            case "B":
                path = self._backref(lambda: self._path(in_type=in_type))
            case _:
                raise ValueError(self.name)
        return path

    def _nested(self, *, in_type: bool) -> str:
        space = self._take()
        parent = self._path(in_type=in_type)
        text, number = self._identifier()
        if space.islower():
            return f"{parent}::{text}" if text else parent
        what = {"C": "closure", "S": "shim"}.get(space, space)
        return f"{parent}::{{{what}{':' if text else ''}{text}#{number}}}"

    def _arguments(self) -> list[str]:
        found = []
        while not self._eat("E"):
            if self._eat("L"):
                self._base62()
            else:
                found.append(self._type())
        return found

    def _type(self) -> str:
        tag = self._take()
        if tag in _RUST_BASIC:
            return _RUST_BASIC[tag]
        if tag in _RUST_POINTERS:
            if self._eat("L"):
                self._base62()
            return _RUST_POINTERS[tag] + self._type_within()
        if tag == "S":
            return f"[{self._type_within()}]"
        if tag == "T":
            return f"({', '.join(self._arguments())})"
        if tag == "B":
            return self._backref(self._type_within)
        self.at -= 1
        return self._path(in_type=True)

    def _type_within(self) -> str:
        self.depth += 1
        if self.depth > self._DEPTH:
            raise ValueError(self.name)
        try:
            return self._type()
        finally:
            self.depth -= 1


def _frame(match: re.Match[str]) -> Frame:
    found = match.groupdict()
    return Frame(
        function=_plain_name(found["func"]),
        offset=int(found["off"], 16) if found.get("off") else None,
        size=int(found["size"], 16) if found.get("size") else None,
        module=found.get("mod"),
        location=found.get("src"),
    )


class _Tag(enum.Enum):
    """What a line of a report is."""

    FRAME = enum.auto()  # a call on a stack
    GUESS = enum.auto()  # an address found on the stack that may not be a call
    PC = enum.auto()  # the function the CPU was in
    LOCK = enum.auto()  # a lock, and where it was taken
    TRACE = enum.auto()  # the report's stack follows
    OTHER = enum.auto()  # some other stack follows: allocation, free, dependency, origin
    TEXT = enum.auto()  # anything else


class _Item(NamedTuple):
    tag: _Tag
    text: str
    frame: Frame | None = None


_TRACE_MARK = re.compile(r"Call [Tt]race|[Bb]acktrace(?: \(crc [0-9a-f]+\))?:")
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
    r"|NMI backtrace for cpu |task:\S|Showing (?:all|busy) "
    r"|Last Breaking-Event-Address"  # arch/s390/kernel/dumpstack.c
    r")"
)


def _read_call(text: str) -> list[_Item]:
    """Reads a line that names a place in the code; empty if it does not."""
    items: list[_Item] = []
    if "+0x" in text:
        if match := _FRAME.match(text):
            if match["guess"] or "(unreliable)" in text:
                # After <EOI> even a guess tells that the interrupt's own stack ends here.
                items = [_Item(_Tag.TEXT if "<EOI>" in text else _Tag.GUESS, text)]
            else:
                items = [_Item(_Tag.FRAME, text, _frame(match))]
        elif match := _PC.match(text):
            items = [_Item(_Tag.PC, text, _frame(match))]
        elif " from " in text and (match := _ARM.match(text)):
            callee = Frame(_plain_name(match["callee"]), module=match["in"])
            items = [_Item(_Tag.FRAME, text, callee), _Item(_Tag.FRAME, text, _frame(match))]
        elif "at: " in text and (match := _LOCK_AT.match(text)):
            items = [_Item(_Tag.LOCK, text, _frame(match))]
    elif match := _INLINE.match(text):
        items = [_Item(_Tag.FRAME, text, _frame(match))]
    elif match := _ARM_INLINE.match(text):
        callee = Frame(_plain_name(match["callee"]))
        items = [_Item(_Tag.FRAME, text, callee), _Item(_Tag.FRAME, text, _frame(match))]
    return items


def _read_line(text: str) -> list[_Item]:
    """Takes one line of a report apart; most give one item, a call on arm may give two."""
    if ("+0x" in text or "inline" in text) and (items := _read_call(text)):
        return items
    if _OTHER_MARK.match(text):
        return [_Item(_Tag.OTHER, text)]
    if "race" in text and _TRACE_MARK.search(text):
        return [_Item(_Tag.TRACE, text)]
    return [_Item(_Tag.TEXT, text)]


# ---------------------------------------------------------------------------------------------
# Who is guilty


_HELPER_GROUPS: tuple[tuple[str, str], ...] = (
    (
        "printing the report",
        r"dump_stack|show_stack|show_regs|walk_stack|dump_backtrace|unwind_backtrace|print_report|print_tainted"
        r"|print_address_desc|print_usage_bug|print_unlock|imbalance_bug|stack_trace_"
        r"|^arch_stack_walk|__warn|warn_slowpath|warn_alloc|warn_bogus|report_bug|fixup_bug"
        r"|panic|^get_taint$|fortify_|assertfail",
    ),
    (
        "entering the kernel by a trap",
        r"_trap$|do_trap|do_error|invalid_op|program_check_|bad_stack|do_(?:kernel|translation)_"
        r"|do_mem_abort|do_tag_check|^el1h?_(?:abort|64_sync)",
    ),
    (
        "the sanitizers' runtime",
        r"kasan|hwasan|__asan|kmsan|__msan|__sanitizer|kcsan_|check_memory_region"
        r"|check_heap_object|check_object|read_word_at_a_time|(?:read|write)_once_.*nocheck"
        r"|kmemleak",
    ),
    (
        "debug objects, reference tracking and fault checks",
        r"debug_object|(?:timer|work)_is_static_object|ref_tracker|might_(?:fault|sleep)"
        r"|__might_resched|seqprop_assert|__phys_addr|__virt_to_phys|perf_trace|(?:hard|soft)irqs?_(?:on|off)",
    ),
    (
        "the lock validator and locks",
        r"lockdep|lock_(?:acquire|release|class)|^mark_lock|_held_locks|raw_spin_rq"
        r"|(?:spin|read|write)_(?:try|un)?lock|^down$|^down_(?:read|write|try|killable|interr)"
        r"|^up_(?:read|write)|^_*(?:rt_)?mutex_|owner_on_cpu|osq_(?:un)?lock|bh_(?:en|dis)able"
        r"|^(?:un)?lock_page|lock_timer_base",
    ),
    (
        "allocators",
        r"alloc_page|k?v?[mzc]alloc|krealloc|kmem_cache|allocate_slab|slab_|alloc_frozen_pages"
        r"|folio_(?:alloc|unlock)|filemap_(?:alloc|get)_folio|find_or_create_page"
        r"|(?:do_)?read_cache_(?:page|folio)|pagecache_get_page|grab_cache_page|^kv?free$"
        r"|kfree_skb|^ida_free",
    ),
    (
        "memory, string and format helpers",
        r"mem(?:cpy|cmp|set|chr|move|dup)|str(?:n?cmp|n?cpy|lcpy|scpy|n?len|n?str|chr|n?dup)"
        r"|string|pointer|v?s?c?n?printf|printk|va_format|kv?asprintf|hex_dump|^crc\d+|crc_itu_t"
        r"|^_*dev_(?:info|notice|warn|err|alert|crit|emerg)",
    ),
    (
        "access to user memory and to ports",
        r"copy_(?:to|from)_(?:user|iter)|copy_(?:page|folio)_(?:to|from)_iter|^copy(?:in|out)$"
        r"|(?:get|put)_user|extract_(?:user|iter)_to_sg|(?:read|write)[bwlq]$|logic_(?:in|out)",
    ),
    (
        "counters, bits, lists and trees",
        r"atomic(?:64)?_(?:dec|inc|read|set|or|xor|and|add|sub|fetch|xchg|cmpxchg|try)"
        r"|(?:set|clear|change|test)_bit|^refcount_|^kref_|list_(?:add|del|replace|move|splice)"
        r"|^klist_|^_*rb_|^xas_(?:start|load|find)|find_lock_entries|rhashtable_lookup",
    ),
    (
        "waking, waiting, queueing work and timers",
        r"__wake_up|^complete$|wait_for_completion|finish_wait|(?:queue|flush|insert)_work"
        r"|cancel_work|queue_delayed_work|(?:drain|destroy)_workqueue|try_to_grab_pending"
        r"|del_timer|timer_delete_sync|__mod_timer|sk_stop_timer_sync|kthread_stop"
        r"|cleanup_srcu_struct",
    ),
    (
        "the device model and subsystem cores that only forward to drivers",
        r"kobject_|add_uevent_var|get_device_parent|^put_device$|device_(?:add|del|destroy)"
        r"|device_(?:release|unregister|for_each_child|remove_file)|devres_release_all"
        r"|sysfs_remove|unregister_netdev|rollback_registered|i2c_del_adapter"
        r"|__unregister_client|hwrng_unregister|tty_unregister_device|usb_(?:hcd_)?submit_urb"
        r"|usb_kill_(?:anchored_)?urb|usb_control_msg|dummy_urb_enqueue",
    ),
    (
        "inode and dentry references",
        r"^iput(?:_final)?$|^ihold$|^drop_nlink|dput$|truncate_inode_pages_range",
    ),
    (
        "compiler thunks and Rust's panic path",
        r"_indirect_thunk_|rust_begin_unwind|^rust_helper_BUG$|^core::panicking",
    ),
)

HELPERS = re.compile("|".join(patterns for _, patterns in _HELPER_GROUPS))
"""Functions that are never guilty: those above do what their caller told them to."""
_REPORTING = re.compile("|".join(patterns for _, patterns in _HELPER_GROUPS[:3]))
"""Those which are on the stack only because there is a report to make."""


@functools.cache
def _at_start(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(f"_*(?:{pattern.pattern})")


def _is_in(pattern: re.Pattern[str], frame: Frame) -> bool:
    """Whether a list of functions of the kernel's own covers a frame's.

    The words are looked for anywhere in the name, as one function has many variants
    (``__se_sys_``, ``do_``, ``_noprof``). A module's functions begin with what they belong to, and
    any word may follow (``brook_string_show``): of those only the start counts.
    """
    if frame.module:
        return _at_start(pattern).match(frame.function) is not None
    return pattern.search(frame.function) is not None


# A CPU that loops or a task that hangs is caught at a random place. What identifies the problem
# is the function below the one that dispatched it: the system call, the file's or socket's
# operation, the work item, the timer.
_DISPATCHERS = re.compile(
    # system call entry
    r"do_syscall_|do_fast_syscall_|sysenter_dispatch|tracesys_phase2|el0_svc_|invoke_syscall"
    r"|ret_fast_syscall"
    # interrupts, timers and threads
    r"|do_softirq|call_timer_fn|_run_timers|run_timer_softirq|hrtimer_run|tasklet_(?:hi_)?action"
    r"|run_ksoftirqd|smpboot_thread_fn|^kthread$|start_secondary|cpu_startup_entry|ret_from_fork"
    r"|process_one_work|smp_call_function"
    # files
    r"|vfs_(?:iter_)?(?:read|write)|do_iter_(?:read|write)|call_(?:read|write)_iter"
    r"|new_sync_(?:read|write)|(?:vfs|ksys|compat|compat_sys|blkdev|blkdev_driver)_ioctl"
    r"|^call_mmap|mmap_region|do_mmap|do_dentry_open|vfs_open|__fput"
    # sockets
    r"|netif_receive_skb|^sock_(?:sendmsg|recvmsg|release|mmap|do_ioctl|ioctl)|^__sock_release"
    r"|^(?:setsockopt|listen|accept)$|kernel_(?:setsockopt|listen|accept)|sk_common_release"
    r"|sock_common_setsockopt|^compat_sock_ioctl|^r?t?nfnetlink_rcv_msg|^rtnetlink_rcv_msg"
    r"|^netlink_dump|^(?:sys_)?(?:socketpair|connect|ioctl)"
    # page faults, and what runs on the way back to user space
    r"|__do_fault|do_page_fault|^page_fault$|task_work_run|exit_to_usermode"
)

# A hung task is a victim. Two waits are so often shared that they name the problem themselves;
# else it is the innermost function that is not just waiting.
_SHARED_WAIT = re.compile(r"(rtnl_lock)|(synchronize_(?:s?rcu|net|sched))")
_WAITS = re.compile(
    r"sched|_lock|_slowlock|down|rwsem|completion|kthread|wait|synchronize|context_switch"
    r"|__switch_to|cancel_delayed_work|rcu_barrier"
)

_SYSCALL_PREFIX = re.compile(
    r"SYSC_|SyS_|sys_|__x64_|__ia32_|__arm64_|__riscv_|__s390x?_|_{2,4}sys_|__se_|__do_sys_"
    r"|compat_SYSC_|compat_SyS_|ksys_"
)


def _titled(name: str) -> str:
    """Returns a function's name as titles have it: system calls without the wrapper's prefix."""
    prefix = _SYSCALL_PREFIX.match(name)
    return name[prefix.end() :] if prefix and prefix.end() < len(name) else name


_Pick = Callable[[list[Frame]], tuple[str, Frame] | None]


def _innermost(frames: list[Frame]) -> tuple[str, Frame] | None:
    return (_titled(frames[0].function), frames[0]) if frames else None


def _below_dispatcher(frames: list[Frame]) -> tuple[str, Frame] | None:
    for inner, frame in zip([*frames[:1], *frames], frames, strict=False):
        name = _titled(frame.function)
        if "smp_call_function" in name:
            return "smp_call_function", frame  # whatever variant: it waits for another CPU
        if _DISPATCHERS.search(name):
            return _titled(inner.function), inner
    return None


def _not_waiting(frames: list[Frame]) -> tuple[str, Frame] | None:
    for frame in frames:
        if shared := _SHARED_WAIT.search(frame.function):
            return (_titled(frame.function) if shared[1] else "synchronize_rcu"), frame
    for frame in frames:
        if not _is_in(_WAITS, frame):
            return _titled(frame.function), frame
    return None


# Where in a report to look. Each function gives the frames to choose from, innermost first.
_Site = Callable[["_Report"], list[Frame]]


def _stack_from(items: list[_Item], start: int = 0, *, marked: bool = True) -> list[Frame]:
    """Returns the first stack at or after ``start``; ``marked``: one under a "Call Trace:"."""
    frames: list[Frame] = []
    inside = not marked
    for item in items[start:]:
        if item.tag is _Tag.FRAME and inside and item.frame:
            frames.append(item.frame)
        elif item.tag in (_Tag.TRACE, _Tag.OTHER):
            if frames:
                break
            inside = item.tag is _Tag.TRACE
    return _without_repeats(frames)


def _without_repeats(frames: list[Frame]) -> list[Frame]:
    """Drops the callee's name that arm repeats as the caller of the line before."""
    return [
        frame
        for at, frame in enumerate(frames)
        if frame.offset is not None
        or frame.location is not None
        or at == 0
        or frames[at - 1].function != frame.function
    ]


def _find(items: list[_Item], tag: _Tag, start: int = 0) -> int | None:
    return next((at for at in range(start, len(items)) if items[at].tag is tag), None)


def _nowhere(_report: _Report) -> list[Frame]:
    return []


def _in_header(report: _Report) -> list[Frame]:
    return report.header_frames()


def _in_trace(report: _Report) -> list[Frame]:
    return _stack_from(report.items)


def _at_pc(report: _Report) -> list[Frame]:
    """The instruction pointer, then the stack."""
    at = _find(report.items, _Tag.PC)
    if at is None:
        return _stack_from(report.items)
    pc = report.items[at].frame
    # riscv prints registers and stack without a line between them.
    under = _stack_from(report.items, at) or _stack_from(report.items, at, marked=False)
    return [*([pc] if pc else []), *under]


def _at_header(report: _Report) -> list[Frame]:
    """The function in the header, then the stack."""
    head = report.header_frames()
    return [*head, *_stack_from(report.items)]


def _at_header_plain(report: _Report) -> list[Frame]:
    """The function in the header, then the stack, which has no "Call Trace:" above it."""
    return [*report.header_frames(), *_stack_from(report.items, marked=False)]


def _in_origin(report: _Report) -> list[Frame]:
    """The stack right under the header; if it is all helpers, where the memory came from."""
    frames = _stack_from(report.items, marked=False)
    for at, item in enumerate(report.items):
        if item.tag is _Tag.OTHER and "created at" in item.text:
            frames += _stack_from(report.items, at + 1, marked=False)
            break
    return frames


def _at_warning(report: _Report) -> list[Frame]:
    """The function in the header, then what called it.

    Where WARN is a trap, the trap handler's own frames lie above the warning's on the stack; the
    header's function, or else the instruction pointer, says where those end. Of a header alone
    the trackers have nothing: its function may be a helper as well as not.
    """
    head = report.header_frames() if report.has_stack else []
    trace = _stack_from(report.items)
    at = _find(report.items, _Tag.PC)
    pc = report.items[at].frame if at is not None else None
    if not head and pc:
        head = [pc]
    if not head:
        return trace
    name = head[0].function
    for below, frame in enumerate(trace):
        if frame.function == name:
            return [*head, *trace[below + 1 :]]
        if frame.function.startswith("should_fail") and not pc:
            return []  # that stack is not the warning's, and there may be no other
    if at is not None and pc and pc.function == name:
        under = [item for item in report.items[at + 1 :] if item.tag is not _Tag.TEXT]
        if under and under[0].tag is _Tag.FRAME:
            return [*head, *_stack_from(under, marked=False)]
    return [*head, *trace]


def _in_stall(report: _Report) -> list[Frame]:
    """What the timer interrupt that noticed a stall interrupted; else where a CPU was.

    The interrupt's frames are missing where the unwinder took them for guesses, and where the
    CPU was asked by an NMI. Its registers stand above its stack then, and before the stacks of
    tasks: those are victims, a task that waits for its turn, the RCU threads. If there is nothing
    else, nothing says which code did not come to an end.
    """
    items = report.items
    return _after_timer(items) or _where_cpu_was(items)


def _where_cpu_was(items: list[_Item]) -> list[Frame]:
    for at, item in enumerate(items):
        if item.tag is _Tag.OTHER and item.text.lstrip().startswith("task:"):
            break
        if item.tag is _Tag.PC and item.frame:
            return [item.frame, *_stack_from(items, at + 1)]
    return []


def _after_timer(items: list[_Item]) -> list[Frame]:
    entry = next(
        (
            at
            for at, item in enumerate(items)
            if item.tag is not _Tag.GUESS and "apic_timer_interrupt" in item.text
        ),
        None,
    )
    if entry is None:
        return _after_irq_entry(items)
    # On x86 the entry is several functions; the interrupted one follows with its registers, or
    # without them on kernels before 4.14.
    start = entry + 1
    for at in range(entry + 1, len(items)):
        item = items[at]
        if item.tag is _Tag.PC and item.frame:
            return [item.frame, *_stack_from(items, at + 1, marked=False)]
        if item.tag is _Tag.FRAME and "apic_timer_interrupt" in item.text:
            start = at + 1
        elif item.tag in (_Tag.FRAME, _Tag.TRACE, _Tag.OTHER):
            break
    return _stack_from(items, start, marked=False)


def _after_irq_entry(items: list[_Item]) -> list[Frame]:
    """The same on arm and arm64, whose interrupt entry is one for all interrupts."""
    last = ""
    for at, item in enumerate(items):
        if item.tag is _Tag.FRAME and item.frame:
            last = item.frame.function
            if last == "el1h_64_irq":
                return _stack_from(items, at + 1, marked=False)
        elif "Exception stack" in item.text and "irq" in last:
            return _stack_from(items, at + 1, marked=False)
    return []


def _first_lock(report: _Report) -> list[Frame]:
    """Where the first lock that the report names was taken."""
    return [i.frame for i in report.items if i.tag is _Tag.LOCK and i.frame][:1]


def _first_lock_or_below(report: _Report) -> list[Frame]:
    """The same, then what called it: where locks are not inlined, it is the lock function."""
    locks = _first_lock(report)
    trace = _stack_from(report.items)
    for name in [lock.function for lock in locks]:
        for below, frame in enumerate(trace, 1):
            if frame.function == name:
                return [*locks, *trace[below:]]
    return locks


def _trace_or_lock(report: _Report) -> list[Frame]:
    """The stack; where the report is cut before it, where the lock was taken."""
    return _stack_from(report.items) or _first_lock(report)


def _both_locks(report: _Report) -> list[Frame]:
    """Where the lock is wanted, where the held one was taken, then the stack."""
    locks = [i.frame for i in report.items if i.tag is _Tag.LOCK and i.frame][:2]
    return [*locks, *(_stack_from(report.items) if locks else [])]


def _became_unsafe(report: _Report) -> list[Frame]:
    """The stack on which a lock got its irq state; else where the lock is wanted."""
    for at, item in enumerate(report.items):
        if item.tag is _Tag.OTHER and "which became" in item.text:
            return _stack_from(report.items, at + 1, marked=False)
    return _first_lock(report)


def _at_release(report: _Report) -> list[Frame]:
    """The unlocking call, which stands alone above the stack."""
    stop = _find(report.items, _Tag.TRACE)
    early = [i.frame for i in report.items[:stop] if i.tag is _Tag.FRAME and i.frame]
    return [*[f for f in early if not _is_inlined(f)][:1], *_stack_from(report.items)]


def _at_page_origin(report: _Report) -> list[Frame]:
    """Who allocated the page (CONFIG_PAGE_OWNER): who frees it says nothing about the cause."""
    for at, item in enumerate(report.items):
        if item.tag is _Tag.OTHER and "page last allocated" in item.text:
            return _stack_from(report.items, at + 1, marked=False)
    return []


# ---------------------------------------------------------------------------------------------
# Formats


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of report, and how to read it."""

    kind: Kind
    has: str
    """A literal that the header line contains: what the text is searched for."""
    pattern: re.Pattern[str]
    """The header. Groups func, off, size, mod: the function; src: file:line; others: title."""
    title: str
    """Filled with the groups of pattern and detail, masked (see :func:`_mask`), and {func}."""
    site: _Site = _nowhere
    pick: _Pick = _innermost
    skip: re.Pattern[str] | None = None
    """Further helpers, for this format only."""
    detail: re.Pattern[str] | None = None
    """A line that must follow soon, with more groups."""
    cut: str = ""
    """The title if the detail is missing. The report is corrupted then."""
    part: bool = False
    """Also a part of other reports: where one without a stack is open, it belongs to that."""
    then: str = ""
    """Literal in the header of the report that continues this one."""
    stackless: bool = False
    """The report may be complete without a stack."""
    broken: bool = False
    """Whoever sees this as a header has lost the beginning."""
    needs_stack: bool = False
    """Only a stack tells this from a program's or driver's message in the same words."""
    loose: bool = False
    """Programs print such lines, too: in a log with stamps, one without is not the kernel's."""


_SRC = r"[\w./+-]{1,200}\.(?:c|h|S|rs):\d+"
_HEAD = rf"(?P<func>{_NAME})(?:{_WHERE})?(?:\(\))?{_MODULE}"
# Code of a module that is gone has no name.
_HEAD_OR_ADDRESS = rf"(?:(?:0x)?[0-9a-f]{{8,16}}(?![\w.+])|{_HEAD})"
# Headers start a line or follow a "subsystem: " prefix, a bracket or a lost line's rest; what
# they must not follow is a letter ("DEBUG:", "rmt_storage:INFO:") or a quotation mark.
_NOT_IN_WORD = r"(?<![\w:/\"'=-])"


def _re(pattern: str) -> re.Pattern[str]:
    return re.compile(_NOT_IN_WORD + pattern)


def _warn(source: str = _SRC, function: str = _NAME) -> re.Pattern[str]:
    """kernel/panic.c, __warn().

    Up to 6.18 "WARNING: CPU: 0 PID: 1 at FILE:LINE FUNC+0x1/0x2", since then
    "WARNING: [condition] FILE:LINE at FUNC+0x1/0x2, CPU#0: comm/1".
    """
    return _re(
        rf"WARNING: (?:(?:CPU: \d+ PID: \d+ )?at |(?:\[[^\n]{{0,300}}\] )?)(?P<src>{source})"
        rf"(?: at)? (?:0x[0-9a-f]+|(?P<func>{function})(?:{_WHERE})?(?:\(\))?{_MODULE})"
    )


_WANTS_LOCK = re.compile(r"is trying to acquire lock")
_TAKES_LOCK = re.compile(r"\] takes:")
_USB_IO = re.compile(
    r"usb_submit_urb|usb_start_wait_urb|usb_bulk_msg|usb_interrupt_msg|usb_control_msg"
)
_FREEING = re.compile(r"slab_|kfree|vunmap|vfree")
_LOCK_SOCK = re.compile(r"lock_sock|release_sock")
_RCU_AND_SLAB = re.compile(r"rcu|kmem|slab")
_DERIVED_PANIC = (
    r"(?:kernel: )?(?:Fatal exception|panic_on_warn set|hung_task: blocked tasks"
    r"|softlockup: hung tasks|Hard LOCKUP|RCU Stall|Machine halted|scheduling while atomic"
    r"|UBSAN: panic_on_warn|Fatal hardware error|Aiee, killing interrupt handler)"
)

FORMATS: tuple[Format, ...] = (
    # mm/kasan/report.c, print_error_description()
    Format(
        Kind.KASAN,
        "BUG: KAS",
        _re(
            r"BUG: KAS(?:AN|an): (?:double-free(?: or invalid-free)?|invalid-free) in "
            rf"{_HEAD_OR_ADDRESS}"
        ),
        "KASAN: invalid-free in {func}",
        _at_header,
        skip=_FREEING,
    ),
    Format(
        Kind.KASAN,
        "BUG: KAS",
        _re(rf"BUG: KAS(?:AN|an): (?P<rest>(?P<what>[a-z-]+) in {_HEAD_OR_ADDRESS}.*)"),
        "KASAN: {what} {access} in {func}",
        _at_header,
        skip=re.compile(r"kernel_fault|tag_check|mem_abort|^el1_|^el1h_"),
        detail=re.compile(r"\b(?P<access>Read|Write) (?:of size|at addr) "),
        cut="KASAN: {rest}",
    ),
    Format(
        Kind.KASAN,
        "BUG: KAS",
        _re(r"BUG: KAS(?:AN|an): (?P<rest>(?P<what>[a-z-]+) on address.*)"),
        "KASAN: {what} {access}",
        _nowhere,
        detail=re.compile(r"\b(?P<access>Read|Write) of size "),
        cut="KASAN: {rest}",
    ),
    Format(
        Kind.KASAN,
        "BUG: KAS",
        _re(r"BUG: KAS(?:AN|an): (?P<rest>.*)"),
        "KASAN: {rest}",
        broken=True,
    ),
    # mm/kmsan/report.c, kmsan_report()
    Format(
        Kind.KMSAN,
        "BUG: KMSAN:",
        _re(rf"BUG: KMSAN: (?P<what>kernel-usb-infoleak) in {_HEAD_OR_ADDRESS}"),
        "KMSAN: {what} in {func}",
        _in_origin,
        skip=re.compile(rf"alloc_skb|{_USB_IO.pattern}"),
        stackless=True,
    ),
    Format(
        Kind.KMSAN,
        "BUG: KMSAN:",
        _re(rf"BUG: KMSAN: (?P<what>[a-z-]+) in {_HEAD_OR_ADDRESS}"),
        "KMSAN: {what} in {func}",
        _in_origin,
        # Ciphers and netlink's dispatch work on whatever memory they are given.
        skip=re.compile(
            r"alloc_skb|netlink_ack|netlink_rcv_skb|_encrypt$|^(?:crypto|cipher|drbg|rng)_"
        ),
        stackless=True,
    ),
    # kernel/kcsan/report.c, print_report()
    Format(
        Kind.KCSAN,
        "BUG: KCSAN:",
        _re(rf"BUG: KCSAN: (?P<rest>[a-z: -]+ in {_HEAD}.*)"),
        "KCSAN: {rest}",
        _in_header,
        stackless=True,
    ),
    Format(
        Kind.KCSAN, "BUG: KCSAN:", _re(r"BUG: KCSAN: (?P<rest>.*)"), "KCSAN: {rest}", broken=True
    ),
    # mm/kfence/report.c, kfence_report_error()
    Format(
        Kind.KFENCE,
        "BUG: KFENCE:",
        _re(
            r"BUG: KFENCE: (?P<what>(?:use-after-free|out-of-bounds|invalid) (?:read|write)"
            rf"|invalid free|memory corruption) in {_HEAD_OR_ADDRESS}"
        ),
        "KFENCE: {what} in {func}",
        _at_header_plain,
        stackless=True,
    ),
    # lib/ubsan.c, ubsan_prologue(); "Undefined behaviour" up to 5.8
    Format(
        Kind.UBSAN,
        "UBSAN:",
        _re(rf"UBSAN: Undefined behaviour in (?P<src>{_SRC})?"),
        "UBSAN: undefined-behaviour in {func}",
        _in_trace,
        skip=re.compile(r"ubsan|overflow"),
    ),
    Format(
        Kind.UBSAN,
        "UBSAN:",
        _re(rf"UBSAN: (?P<what>[a-z-]+) in (?P<src>{_SRC})?"),
        "UBSAN: {what} in {func}",
        _in_trace,
        skip=re.compile(r"ubsan|overflow"),
    ),
    # arch/x86/mm/fault.c, show_fault_oops(); powerpc bad_page_fault()
    Format(
        Kind.PAGE_FAULT,
        "BUG: ",
        _re(
            r"BUG: (?:unable to handle kernel paging request|unable to handle page fault"
            r"|Unable to handle kernel (?:data access|instruction fetch))"
        ),
        "BUG: unable to handle kernel paging request in {func}",
        _at_pc,
    ),
    Format(
        Kind.PAGE_FAULT,
        "BUG: ",
        _re(r"BUG: (?:[Uu]nable to handle kernel|[Kk]ernel) NULL pointer dereference"),
        "BUG: unable to handle kernel NULL pointer dereference in {func}",
        _at_pc,
    ),
    Format(
        Kind.PAGE_FAULT,
        "BUG: ",
        _re(r"BUG: [Uu]nable to handle kernel"),
        "BUG: unable to handle kernel",
        broken=True,
    ),
    # arch/{arm,arm64,riscv,s390}/mm/fault.c, die_kernel_fault() and the like
    Format(
        Kind.PAGE_FAULT,
        "Unable to handle kernel ",
        _re(
            r"Unable to handle kernel (?P<what>paging request|(?:NULL )?pointer dereference"
            r"|access to user memory)"
        ),
        "BUG: unable to handle kernel {what} in {func}",
        _at_pc,
    ),
    Format(
        Kind.PAGE_FAULT,
        "Unable to handle kernel ",
        _re(
            r"Unable to handle kernel (?:read from unreadable|write to read-only"
            r"|execute from non-executable|unaligned|access|ignored).* at virtual address"
        ),
        "BUG: unable to handle kernel paging request in {func}",
        _at_pc,
    ),
    Format(
        Kind.PAGE_FAULT,
        "Unhandled fault:",
        _re(r"Unhandled fault: "),
        "Unhandled fault in {func}",
        _at_pc,
    ),
    Format(
        Kind.TRAP,
        "Alignment trap:",
        _re(r"Alignment trap: "),
        "Alignment trap in {func}",
        _at_pc,
        part=True,
    ),
    # arch/arm64/kernel/traps.c and arch/arm/kernel/traps.c, __die()
    Format(
        Kind.TRAP,
        "Internal error:",
        _re(r"Internal error: .*\[#\d+\]"),
        "Internal error in {func}",
        _at_pc,
        part=True,
    ),
    # arch/x86/kernel/traps.c, exc_general_protection(); for a user's fault the kernel prints
    # "comm[pid] general protection fault ip:...", which is none of the kernel's business
    Format(
        Kind.GPF,
        "general protection fault",
        _re(r"general protection fault(?:, [a-z -]+(?: 0x[0-9a-f]+)?)?: [0-9a-f]{4}\b"),
        "general protection fault in {func}",
        _at_pc,
    ),
    # arch/x86/kernel/traps.c, do_error_trap(); arch/x86/kernel/dumpstack.c, __die_header()
    Format(
        Kind.TRAP,
        "divide",
        _re(r"divide[_ ]error: [0-9a-f]{4}\b"),
        "divide error in {func}",
        _at_pc,
    ),
    Format(
        Kind.TRAP,
        "stack segment: ",
        _re(r"stack segment: [0-9a-f]{4}\b"),
        "stack segment fault in {func}",
        _at_pc,
    ),
    Format(
        Kind.TRAP,
        "invalid opcode: ",
        _re(r"invalid opcode: [0-9a-f]{4}\b"),
        "invalid opcode in {func}",
        _at_pc,
        part=True,
    ),
    Format(
        Kind.TRAP,
        ": 0000 [#",
        _re(r"(?P<what>int3|bounds|overflow|alignment check|segment not present): 0000 \[#\d+\]"),
        "{what} in {func}",
        _at_pc,
        part=True,
    ),
    Format(
        Kind.TRAP,
        "PANIC: double fault",
        _re(r"PANIC: double fault"),
        "PANIC: double fault in {func}",
        _at_pc,
        part=True,
    ),
    Format(
        Kind.PAGE_FAULT,
        " [#",
        _re(r"Oops(?:: [0-9a-f]{4}(?: ilc:\d)?)? \[#\d+\]"),
        "Oops in {func}",
        _at_pc,
        part=True,
        broken=True,
    ),
    # The traps that no entry above knows: x86's and s390's die() print the code behind the words,
    # powerpc's __die() the signal, riscv's die() nothing.
    Format(
        Kind.TRAP,
        " [#",
        re.compile(
            r"^(?:Oops: )?(?P<what>Oops - [a-z][\w ()-]{2,60}?(?= \[#\d)"
            r"|(?!Oops)[A-Za-z][\w ,()?/-]{2,60}?"
            r"(?=: [0-9a-f]{4}(?: ilc:\d)? \[#\d|, sig: \d+ \[#\d))"
        ),
        "{what} in {func}",
        _at_pc,
        part=True,
        loose=True,
    ),
    # arch/x86/kernel/dumpstack.c, handle_stack_overflow()
    Format(
        Kind.STACK_OVERFLOW,
        "stack guard page was hit",
        _re(r"BUG: (?:\w+ )?stack guard page was hit at"),
        "BUG: stack guard page was hit in {func}",
        _at_pc,
        _below_dispatcher,
    ),
    # lib/list_debug.c, __list_add_valid_or_report(), with CONFIG_BUG_ON_DATA_CORRUPTION
    Format(
        Kind.LIST_CORRUPTION,
        "kernel BUG at ",
        _re(r"kernel BUG at (?P<src>\S*lib/list_debug\.c:\d+)"),
        "BUG: corrupted list in {func}",
        _in_trace,
    ),
    # mm/usercopy.c, usercopy_abort()
    Format(
        Kind.USERCOPY,
        "kernel BUG at ",
        _re(r"kernel BUG at (?P<src>\S*mm/usercopy\.c:\d+)"),
        "BUG: bad usercopy in {func}",
        _in_trace,
        skip=re.compile(r"usercopy|__check"),
    ),
    # lib/bug.c, __report_bug(); the frame that holds BUG() is the instruction pointer. The skb
    # helpers check their caller's arithmetic.
    Format(
        Kind.BUG,
        "kernel BUG at ",
        _re(rf"kernel BUG at (?P<src>{_SRC})?"),
        "kernel BUG in {func}",
        _at_pc,
        skip=re.compile(r"^skb_"),
    ),
    Format(
        Kind.BUG, "Kernel BUG ", _re(r"Kernel BUG (?P<rest>.*)"), "kernel BUG {rest}", part=True
    ),
    # include/linux/bug.h, WARN(); what is special is where it is
    Format(
        Kind.ODEBUG,
        "WARNING: ",
        _warn(r"\S*lib/debugobjects\.c:\d+", r"debug_(?:print|check)\w*[\w.]*"),
        "WARNING: ODEBUG bug in {func}",
        _at_warning,
        skip=re.compile(
            r"debug_|rcu|hrtimer_|timer_|work_|percpu_|vunmap|vfree|__free_|debug_check|^kobject_"
        ),
    ),
    Format(
        Kind.USERCOPY,
        "WARNING: ",
        _warn(r"\S*mm/usercopy\.c:\d+", r"usercopy_warn[\w.]*"),
        "WARNING: bad usercopy in {func}",
        _at_warning,
        skip=re.compile(r"usercopy|__check"),
    ),
    Format(
        Kind.KOBJECT,
        "WARNING: ",
        _warn(r"\S*lib/kobject\.c:\d+", r"kobject_[\w.]*"),
        "WARNING: kobject bug in {func}",
        _at_warning,
        skip=re.compile(r"kobject_"),
    ),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _warn(r"\S*fs/proc/generic\.c:\d+", r"_*proc_register[\w.]*"),
        "WARNING: proc registration bug in {func}",
        _at_warning,
        skip=re.compile(r"proc_"),
    ),
    Format(
        Kind.REFCOUNT,
        "WARNING: ",
        _warn(r"\S*lib/refcount\.c:\d+", r"refcount_[\w.]*"),
        "WARNING: refcount bug in {func}",
        _at_warning,
        skip=re.compile(r"refcount|kobject_"),
    ),
    Format(
        Kind.LOCKDEP,
        "WARNING: ",
        _warn(r"\S*kernel/locking/lockdep\.c:\d+", r"\w*lock_[\w.]*"),
        "WARNING: locking bug in {func}",
        _at_warning,
        skip=_LOCK_SOCK,
    ),
    Format(
        Kind.LIST_CORRUPTION,
        "WARNING: ",
        _warn(r"\S*lib/list_debug\.c:\d+"),
        "WARNING in {func}",
        _at_warning,
    ),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _warn(r"(?:\S*/)?mm/\S*\.c:\d+", r"k?v?malloc[\w.]*"),
        "WARNING: kmalloc bug in {func}",
        _at_warning,
        skip=re.compile(r"kmalloc|krealloc|slab|kmem"),
    ),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _warn(r"(?:\S*/)?mm/vmalloc\.c:\d+", r"__vmalloc_node[\w.]*"),
        "WARNING: zero-size vmalloc in {func}",
        _at_warning,
    ),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _warn(_SRC, r"usb_submit_urb[\w.]*"),
        "WARNING in {func}/usb_submit_urb",
        _at_warning,
        skip=_USB_IO,
    ),
    Format(Kind.WARNING, "WARNING: ", _warn(), "WARNING in {func}", _at_warning),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _re(rf"WARNING: CPU: \d+ PID: \d+(?: at {_HEAD}$)?"),
        "WARNING in {func}",
        _at_warning,
    ),
    # arch/x86/kernel/unwind_frame.c, unwind_next_frame()
    Format(
        Kind.WARNING,
        "WARNING: kernel stack ",
        _re(r"WARNING: kernel stack regs at .{1,80} has bad '(?P<what>\w+)' value"),
        "WARNING: kernel stack regs has bad '{what}' value",
        stackless=True,
    ),
    Format(
        Kind.WARNING,
        "WARNING: kernel stack ",
        _re(r"WARNING: kernel stack frame pointer at .{1,80} has bad value"),
        "WARNING: kernel stack frame pointer has bad value",
        stackless=True,
    ),
    # arch/x86/kernel/unwind_orc.c, unwind_next_frame(); unwind_frame.c, update_stack_state()
    Format(
        Kind.WARNING,
        "WARNING: ",
        re.compile(
            r"^(?P<rest>WARNING: (?:can't (?:access|dereference) registers at "
            r"|stack recursion on stack type |stack going in the wrong direction).*)"
        ),
        "{rest}",
        stackless=True,
        loose=True,
    ),
    # kernel/locking/lockdep.c, print_circular_bug_header(); "INFO:" up to 4.13. Work functions
    # are only where the lock that stands for a work item was taken.
    Format(
        Kind.LOCKDEP,
        "possible circular locking dependency",
        _re(r"(?P<head>(?:WARNING|INFO): possible circular locking dependency detected)"),
        "possible deadlock in {func}",
        _both_locks,
        skip=re.compile(r"process_one_work|(?:flush|drain|destroy)_workqueue"),
        detail=_WANTS_LOCK,
        cut="{head}",
    ),
    # print_deadlock_bug(), print_irq_inversion_bug(), print_bad_irq_dependency()
    Format(
        Kind.LOCKDEP,
        "possible recursive locking",
        _re(r"(?P<head>(?:WARNING|INFO): possible recursive locking detected)"),
        "possible deadlock in {func}",
        _first_lock_or_below,
        detail=_WANTS_LOCK,
        cut="{head}",
    ),
    Format(
        Kind.LOCKDEP,
        "possible irq lock inversion",
        _re(r"(?P<head>(?:WARNING|INFO): possible irq lock inversion dependency detected)"),
        "possible deadlock in {func}",
        _first_lock,
        detail=re.compile(r"just changed the state of lock"),
        cut="{head}",
    ),
    Format(
        Kind.LOCKDEP,
        "-unsafe lock order",
        _re(r"(?:WARNING|INFO): \w+-(?:READ-)?safe -> \w+-(?:READ-)?unsafe lock order detected"),
        "possible deadlock in {func}",
        _became_unsafe,
    ),
    # print_usage_bug()
    Format(
        Kind.LOCKDEP,
        "inconsistent lock state",
        _re(r"(?P<head>INFO: inconsistent lock state)"),
        "inconsistent lock state in {func}",
        _first_lock,
        detail=_TAKES_LOCK,
        cut="{head}",
    ),
    Format(
        Kind.LOCKDEP,
        "inconsistent lock state",
        _re(r"(?P<head>WARNING: inconsistent lock state)"),
        "inconsistent lock state in {func}",
        _trace_or_lock,
        detail=_TAKES_LOCK,
        cut="{head}",
    ),
    # print_lock_invalid_wait_context()
    Format(
        Kind.LOCKDEP,
        "BUG: Invalid wait context",
        _re(r"BUG: Invalid wait context"),
        "WARNING: locking bug in {func}",
        _in_trace,
        skip=_LOCK_SOCK,
    ),
    # print_unlock_imbalance_bug(), print_freed_lock_bug(), debug_check_no_locks_held(),
    # lockdep_sys_exit(), print_lock_nested_lock_not_held(); "BUG:" up to 4.13
    Format(
        Kind.LOCKDEP,
        "bad unlock balance",
        _re(r"(?P<word>BUG|WARNING): bad unlock balance detected"),
        "{word}: bad unlock balance in {func}",
        _at_release,
    ),
    Format(
        Kind.LOCKDEP,
        "held lock freed",
        _re(r"(?P<word>BUG|WARNING): held lock freed"),
        "{word}: held lock freed in {func}",
        _first_lock,
    ),
    Format(
        Kind.LOCKDEP,
        "still has locks held",
        _re(r"(?P<word>BUG|WARNING): .{1,80} still has locks held"),
        "{word}: still has locks held in {func}",
        _first_lock,
    ),
    Format(
        Kind.LOCKDEP,
        "lock held when returning to user space",
        _re(r"(?P<word>BUG|WARNING): lock held when returning to user space"),
        "{word}: lock held when returning to user space in {func}",
        _first_lock,
        stackless=True,
    ),
    Format(
        Kind.LOCKDEP,
        "Nested lock was not taken",
        _re(r"WARNING: Nested lock was not taken"),
        "WARNING: nested lock was not taken in {func}",
        _in_trace,
    ),
    # lockdep_rcu_suspicious()
    Format(
        Kind.LOCKDEP,
        "suspicious RCU usage",
        _re(r"(?P<head>(?P<word>WARNING|INFO): suspicious RCU usage)"),
        "{word}: suspicious RCU usage in {func}",
        _in_trace,
        skip=_RCU_AND_SLAB,
        detail=re.compile(rf"^\s*(?P<src>{_SRC})"),
        cut="{head}",
    ),
    # assign_lock_key()
    Format(
        Kind.LOCKDEP,
        "INFO: trying to register non-static key",
        _re(r"INFO: trying to register non-static key"),
        "INFO: trying to register non-static key in {func}",
        _in_trace,
        skip=re.compile(r"stack|lock|IRQ"),
    ),
    # kernel/locking/spinlock_debug.c, spin_dump() and rwlock_bug()
    Format(
        Kind.LOCKDEP,
        "BUG: ",
        _re(
            r"BUG: (?P<what>(?:spinlock|rwlock) (?:lockup suspected|already unlocked|recursion"
            r"|cpu recursion|bad magic|wrong owner|wrong CPU|trylock failure on UP))"
        ),
        "BUG: {what} in {func}",
        _in_trace,
        skip=re.compile(r"spin_|_lock|_unlock"),
    ),
    # kernel/sched/core.c, __might_resched(), __schedule_bug()
    Format(
        Kind.ATOMIC_SLEEP,
        "BUG: sleeping function called",
        _re(rf"BUG: sleeping function called from invalid context(?: at (?P<src>{_SRC}))?"),
        "BUG: sleeping function called from invalid context in {func}",
        _in_trace,
    ),
    Format(
        Kind.ATOMIC_SLEEP,
        "BUG: scheduling while atomic",
        _re(r"BUG: scheduling while atomic"),
        "BUG: scheduling while atomic in {func}",
        _in_trace,
        skip=re.compile(r"schedule"),
    ),
    # lib/smp_processor_id.c, check_preemption_disabled()
    Format(
        Kind.ATOMIC_SLEEP,
        "BUG: using ",
        _re(r"BUG: using (?P<what>\w+)\(\) in preemptible"),
        "BUG: using {what}() in preemptible code in {func}",
        _in_trace,
        skip=re.compile(r"dump_stack|preempt|debug_|processor_id|this_cpu"),
    ),
    # kernel/workqueue.c, process_one_work()
    Format(
        Kind.LOCKDEP,
        "BUG: workqueue leaked",
        _re(r"BUG: workqueue leaked (?P<what>lock or atomic|atomic, lock or RCU)"),
        "BUG: workqueue leaked {what} in {func}",
        _in_header,
        detail=re.compile(rf"(?:last function: |workfn=){_HEAD}"),  # the latter since 6.9
        stackless=True,
    ),
    # kernel/rcu/tree_stall.h, print_cpu_stall(), print_other_cpu_stall(); tree_exp.h; tasks.h
    Format(
        Kind.RCU_STALL,
        "INFO: rcu",
        _re(r"INFO: rcu\w* (?:self-)?detected (?:expedited )?stalls?\b(?!, but suppressed)"),
        "INFO: rcu detected stall in {func}",
        _in_stall,
        _below_dispatcher,
        skip=re.compile(r"apic_timer_interrupt|rcu"),
    ),
    # kernel/watchdog.c, watchdog_timer_fn(), watchdog_hardlockup_check()
    Format(
        Kind.SOFT_LOCKUP,
        "BUG: soft lockup",
        _re(r"BUG: soft lockup"),
        "BUG: soft lockup in {func}",
        _at_pc,
        _below_dispatcher,
    ),
    Format(
        Kind.HARD_LOCKUP,
        "hard LOCKUP on cpu",
        _re(r"(?:CPU\d+: )?Watchdog (?:CPU:\d+ |CPU \d+ )?(?:detected )?hard LOCKUP"),
        "BUG: hard lockup in {func}",
        _at_pc,
        _below_dispatcher,
    ),
    # kernel/hung_task.c, check_hung_task()
    Format(
        Kind.HUNG_TASK,
        "INFO: task ",
        _re(r"INFO: task .{1,80} blocked (?:in I/O wait )?for more than \d+ seconds"),
        "INFO: task hung in {func}",
        _in_trace,
        _not_waiting,
    ),
    # The name of a task is whatever it chose, line feeds included.
    Format(
        Kind.HUNG_TASK,
        "INFO: task ",
        _re(r"INFO: task [^:]{0,40}$"),
        "INFO: task hung in {func}",
        _in_trace,
        _not_waiting,
        detail=re.compile(r":\d+ blocked (?:in I/O wait )?for more than \d+ seconds"),
        needs_stack=True,
    ),
    Format(
        Kind.HUNG_TASK,
        "INFO: task ",
        _re(r"INFO: task .{1,80} can't die for more than \d+ seconds"),
        "INFO: task can't die in {func}",
        _in_trace,
        skip=re.compile(r"schedule"),
    ),
    # kernel/workqueue.c, wq_watchdog_timer_fn()
    Format(
        Kind.WORKQUEUE_LOCKUP,
        "BUG: workqueue lockup",
        _re(r"BUG: workqueue lockup"),
        "BUG: workqueue lockup",
        stackless=True,
    ),
    # lib/kobject.c, kobject_init()
    Format(
        Kind.KOBJECT,
        "tried to init an initialized object",
        _re(r"kobject:? .{0,60}(?P<what>tried to init an initialized object)"),
        "kobject: {what} in {func}",
        _in_trace,
        needs_stack=True,
    ),
    # kernel/irq/spurious.c, __report_bad_irq()
    Format(
        Kind.WARNING,
        ": nobody cared",
        re.compile(r"^(?P<rest>irq \d+: nobody cared)"),
        "{rest}",
        needs_stack=True,
        loose=True,
    ),
    # mm/kmemleak.c, print_unreferenced(), as /sys/kernel/debug/kmemleak gives it. Tools put the
    # line "BUG: memory leak" above it; the kernel does not.
    Format(
        Kind.LEAK,
        "BUG: memory leak",
        _re(r"BUG: memory leak"),
        "memory leak in {func}",
        _in_trace,
        skip=re.compile(
            r"kmemleak|mmap|kmem|slab|alloc|create_object|idr_get|list_lru_init|k?v?asprintf"
            r"|pcpu_create|strn?dup|memdup"
        ),
    ),
    Format(
        Kind.LEAK,
        "unreferenced object ",
        _re(r"unreferenced object (?:\((?:percpu|phys)\) )?0x[0-9a-f]+ \(size \d+\):"),
        "memory leak in {func}",
        _in_trace,
        skip=re.compile(
            r"kmemleak|mmap|kmem|slab|alloc|create_object|idr_get|list_lru_init|k?v?asprintf"
            r"|pcpu_create|strn?dup|memdup"
        ),
        part=True,
    ),
    # mm/page_alloc.c, bad_page(); mm/filemap.c; mm/memory.c, print_bad_pte()
    Format(
        Kind.BAD_PAGE,
        "BUG: Bad page ",
        _re(r"BUG: Bad page (?P<what>state|cache) in process"),
        "BUG: Bad page {what} in {func}",
        _at_page_origin,
        skip=re.compile(
            r"(?:free|put|get|update|release)_page|free_unref|^_*folio|truncate_inode_pages"
            r"|page_frag_free|alloc|vmap|page_owner"
        ),
    ),
    Format(Kind.BAD_PAGE, "BUG: Bad page map", _re(r"BUG: Bad page map"), "BUG: Bad page map"),
    # kernel/fork.c, check_mm()
    Format(
        Kind.BAD_PAGE,
        "BUG: Bad rss-counter state",
        _re(r"BUG: Bad rss-counter state"),
        "BUG: Bad rss-counter state",
        stackless=True,
    ),
    Format(
        Kind.BAD_PAGE,
        "BUG: non-zero ",
        _re(r"BUG: (?P<what>non-zero (?:nr_\w+ on freeing mm|\w+ on freeing mm.*))"),
        "BUG: {what}",
        stackless=True,
    ),
    # mm/slub.c, slab_bug(); KASAN of old kernels printed its reports through it
    Format(
        Kind.SLAB,
        "BUG ",
        _re(
            r"BUG [\w-]+ \((?:Not tainted|Tainted|[A-Z ]+)[^)]*\): "
            r"(?P<what>[A-Z][A-Za-z ]*?)(?= in \S| on __|[^A-Za-z ]|$)"
        ),
        "BUG: {what}",
    ),
    # fs/dcache.c, umount_check(), which warns right after
    Format(
        Kind.BUG,
        "BUG: Dentry ",
        _re(r"BUG: Dentry .{1,300}? still in use"),
        "BUG: Dentry still in use in unmount",
        then="WARNING:",
    ),
    # rust/kernel/lib.rs, panic(): the message comes on a line of its own, then BUG()
    Format(
        Kind.RUST_PANIC,
        "panicked at ",
        _re(r"rust_kernel: panicked at (?P<src>\S{1,300}?:\d+)\b"),
        "{message} in {func}",
        _in_trace,
        detail=re.compile(r"^(?!-{4})(?P<message>\S.*)"),
        then="kernel BUG at",
    ),
    # net/core/dev.c, netdev_wait_allrefs_any()
    Format(
        Kind.NETDEV_LEAK,
        "unregister_netdevice: waiting for ",
        _re(r"unregister_netdevice: waiting for .{1,60} to become free"),
        "unregister_netdevice: waiting for DEV to become free",
        stackless=True,
        part=True,
    ),
    # fs/open.c, filp_flush(); fs/super.c, generic_shutdown_super() of older kernels
    Format(
        Kind.BUG,
        "VFS: Close: file count is 0",
        _re(r"VFS: Close: file count is 0"),
        "VFS: Close: file count is zero (use-after-free)",
        stackless=True,
    ),
    Format(
        Kind.BUG,
        "VFS: Busy inodes after unmount",
        _re(r"VFS: Busy inodes after unmount"),
        "VFS: Busy inodes after unmount (use-after-free)",
        stackless=True,
    ),
    # drivers/trusty (Android): the secure side's panic, which makes the driver warn
    Format(
        Kind.PANIC,
        "trusty: panic",
        _re(r"trusty: panic \([^)]*\):(?: DEBUG)? ASSERT FAILED at \([^)]*\): (?P<rest>.+)"),
        "trusty: ASSERT FAILED: {rest}",
        stackless=True,
        then="WARNING:",
    ),
    Format(
        Kind.PANIC,
        "trusty: panic",
        _re(r"trusty: panic.{0,200} ASSERT FAILED.*: *(?P<rest>.*)"),
        "trusty: ASSERT FAILED: {rest}",
        broken=True,
        then="WARNING:",
    ),
    Format(
        Kind.PANIC,
        "trusty: panic",
        _re(r"trusty: panic \([^)]*\): (?P<rest>.+)"),
        "trusty: panic: {rest}",
        stackless=True,
        then="WARNING:",
    ),
    # kernel/panic.c, panic(), with the texts of its callers: __stack_chk_fail(),
    # schedule_debug(), arch/*/kernel/traps.c, do_exit(), init
    Format(
        Kind.STACK_OVERFLOW,
        "Kernel panic - ",
        # Kernels before 4.18 and those without names print an address.
        _re(
            r"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: "
            rf"(?P<func>{_NAME}){_WHERE}{_MODULE}"
        ),
        "kernel panic: stack is corrupted in {func}",
        _at_header,
        stackless=True,
    ),
    Format(
        Kind.STACK_OVERFLOW,
        "Kernel panic - ",
        _re(r"Kernel panic - not syncing: stack-protector:"),
        "kernel panic: stack is corrupted in {func}",
        _in_trace,
        skip=re.compile(r"stack_chk"),
    ),
    Format(
        Kind.STACK_OVERFLOW,
        "Kernel panic - ",
        _re(r"Kernel panic - not syncing: corrupted stack end"),
        "kernel panic: corrupted stack end in {func}",
        _in_trace,
        _below_dispatcher,
        skip=re.compile(r"schedule|retint_kernel"),
    ),
    Format(
        Kind.STACK_OVERFLOW,
        "Kernel panic - ",
        _re(r"Kernel panic - not syncing: kernel stack overflow"),
        "kernel stack overflow in {func}",
        _in_trace,
        _below_dispatcher,
        skip=re.compile(r"bad_stack"),
    ),
    Format(
        Kind.PANIC,
        "Kernel panic - ",
        _re(r"Kernel panic - not syncing: Attempted to kill init!"),
        "kernel panic: Attempted to kill init!",
        part=True,
    ),
    Format(
        Kind.PANIC,
        "Kernel panic - ",
        _re(r"Kernel panic - not syncing: Couldn't open N_TTY ldisc"),
        "kernel panic: Couldn't open N_TTY ldisc",
    ),
    Format(
        Kind.PANIC,
        "Kernel panic - ",
        _re(rf"Kernel panic - not syncing: (?P<rest>{_DERIVED_PANIC})"),
        "kernel panic: {rest}",
        part=True,
        broken=True,
    ),
    Format(
        Kind.PANIC,
        "Kernel panic - ",
        _re(r"Kernel panic - not syncing: (?P<rest>.+)"),
        "kernel panic: {rest}",
        part=True,
    ),
    # What kernels print in these words and no entry above knows.
    Format(
        Kind.BUG,
        "BUG:",
        re.compile(r"^(?:\[ )?(?P<rest>BUG: \S.*)"),
        "{rest}",
        stackless=True,
        loose=True,
    ),
    Format(Kind.BUG, "BUG:", re.compile(r"^BUG:\s*$"), "BUG: corrupted", broken=True, loose=True),
    Format(
        Kind.WARNING,
        "WARNING:",
        re.compile(r"^(?:\[ )?(?P<rest>WARNING: \S.*)"),
        "{rest}",
        needs_stack=True,
        loose=True,
    ),
    Format(
        Kind.WARNING,
        "WARNING:",
        re.compile(r"^WARNING:\s*$"),
        "WARNING: corrupted",
        broken=True,
        loose=True,
    ),
    # mm/slub.c, print_track() of old kernels: the middle of a slab report
    Format(
        Kind.SLAB,
        "INFO: ",
        re.compile(r"^(?P<rest>INFO: (?:Freed|Allocated) in .*)"),
        "{rest}",
        part=True,
        broken=True,
    ),
)

# Not in FORMATS, since one line alone does not tell whether a boot was expected.
_REBOOT = Format(
    Kind.REBOOT,
    "Booting the kernel",
    # arch/x86/boot/compressed/misc.c, extract_kernel(): before the kernel's own console
    re.compile(r"(?:Decompressing Linux\.\.\. .{0,80})?Booting the kernel\b"),
    "unexpected kernel reboot",
    stackless=True,
)
_BANNER = "Linux version "  # init/version.c, linux_banner: the kernel's own first line


# ---------------------------------------------------------------------------------------------
# Reports


_MAX_LINES = 3000  # of one report; a stall report with the stacks of all tasks may be long
_MAX_IDLE = 25  # lines of the same printer that belong to no report, after a stack
_MAX_IDLE_EARLY = 120  # the same, before one
_MAX_GAP = 4000  # lines of others since the report's last line
_LEAD_LINES = 6  # how far above its header a report may begin
_MAX_OPEN = 64  # reports of as many printers at the same time
_DETAIL_ITEMS = 24  # how far below the header the detail may be
_PART_LINES = 40  # how far below a header its parts may be

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


@dataclass(slots=True, eq=False)
class _Report:
    """A report being collected."""

    fmt: Format
    groups: dict[str, str | None]
    printer: str
    line: int
    raw: list[str]
    items: list[_Item] = field(default_factory=list)
    last_line: int = 0
    idle: int = 0
    kept: int = 0  # how many of the raw lines are the report's for certain
    has_stack: bool = False
    all_cpus: bool = False  # other CPUs print their stacks for this report
    header: str = ""
    mark: _Tag | None = None  # of the last line above a stack

    def add(self, line: int, raw: str, text: str) -> None:
        self.raw.append(raw)
        self.last_line = line
        belongs = False
        items = _read_line(text)
        if len(items) > 1 and self._begins_trace(items[0]):
            items.insert(0, _Item(_Tag.TRACE, ""))
        for item in items:
            self.items.append(item)
            if item.tag in (_Tag.TRACE, _Tag.OTHER):
                self.mark = item.tag
            if item.tag is _Tag.FRAME:
                self.has_stack = True
            belongs |= item.tag is not _Tag.TEXT
        if not belongs and text.startswith("Sending NMI from CPU"):
            self.all_cpus = True
        if belongs or _BODY.match(text):
            self.idle = 0
            self.kept = len(self.raw)
        elif text:
            self.idle += 1

    def _begins_trace(self, call: _Item) -> bool:
        """Whether one of arm's calls begins the report's stack.

        There unwind_backtrace() (arch/arm/kernel/unwind.c) prints no line above a stack.
        """
        if self.mark is None:
            return True
        unwinds = call.frame is not None and call.frame.function in _UNWINDERS
        return self.mark is _Tag.OTHER and unwinds

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

    def restate(self, line: int, raw: str, fmt: Format, match: re.Match[str]) -> None:
        self.fmt, self.groups, self.header = fmt, dict(match.groupdict()), match.string
        self.raw.append(raw)
        self.last_line, self.kept = line, len(self.raw)

    def over(self, text: str) -> bool:
        return (
            bool(_END.match(text))
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
                _plain_name(name),
                int(off, 16) if off else None,
                int(size, 16) if size else None,
                self.groups.get("mod"),
            )
        ]


_MASKS = (
    (re.compile(rf"(?<![\w$.])({_NAME})\+0x[0-9a-f]+/0x[0-9a-f]+"), r"\1"),
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


def _event(report: _Report) -> Event | None:
    fmt = report.fmt
    has_detail = _add_detail(report)
    if fmt.needs_stack and not report.has_stack:
        return None

    names_function = "{func}" in fmt.title and has_detail
    candidates = fmt.site(report)
    foreign = _injected(candidates)
    ours = candidates if foreign is None else candidates[:foreign]
    guilty = fmt.pick([f for f in ours if not (_is_inlined(f) or _is_helper(f, fmt))])
    stack = _clean_stack(report)

    title = fmt.title if has_detail or not fmt.cut else fmt.cut
    name, frame = guilty if guilty else (None, None)
    words = {key: _mask(value) for key, value in report.groups.items() if value and key != "func"}
    title = _fill(title, {**words, "func": name or "corrupted"})
    if not names_function and name is None:
        head = report.header_frames()
        frame = head[0] if head else None
        name = frame.function if frame else None

    stack_missing = not fmt.stackless and not report.has_stack
    return Event(
        kind=fmt.kind,
        title=title,
        function=name,
        module=_module_of(name, frame, stack),
        location=report.groups.get("src") or _location_of(frame, stack),
        stack=stack,
        corrupted=(
            fmt.broken or not has_detail or stack_missing or (names_function and guilty is None)
        ),
        line=report.line,
        excerpt="\n".join(report.raw[: report.kept]),
    )


def _injected(frames: list[Frame]) -> int | None:
    """Finds where a stack of fault injection (lib/fault-inject.c, fail_dump()) is mixed in.

    It announces a failure, not a problem, but often comes at the same moment as one.
    """
    return next((at for at, f in enumerate(frames) if f.function.startswith("should_fail")), None)


def _is_inlined(frame: Frame) -> bool:
    """Whether a symboliser put the call in: titles name what the kernel itself can name."""
    return frame.offset is None and frame.location is not None


def _is_helper(frame: Frame, fmt: Format) -> bool:
    return _is_in(HELPERS, frame) or (fmt.skip is not None and _is_in(fmt.skip, frame))


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
    if report.fmt.site in (_at_header_plain, _in_origin):
        frames = _stack_from(report.items, marked=False)
    else:
        frames = _stack_from(report.items)
    at = _find(report.items, _Tag.PC)
    pc = report.items[at].frame if at is not None else None
    if pc and frames and at is not None and pc.function != frames[0].function:
        first_frame = _find(report.items, _Tag.FRAME)
        if first_frame is not None and at < first_frame:
            frames = [pc, *frames]
    elif pc and not frames:
        frames = [pc]
    own = list(itertools.dropwhile(lambda frame: _is_in(_REPORTING, frame), frames))
    return tuple(own or frames)


# ---------------------------------------------------------------------------------------------
# Reading


_HEADER_LITERALS = {*(fmt.has for fmt in FORMATS), _REBOOT.has, _BANNER}
# One that contains another need not be searched for.
_LITERALS = tuple(
    literal
    for literal in sorted(_HEADER_LITERALS)
    if not any(other in literal for other in _HEADER_LITERALS - {literal})
)
_SEARCHES = tuple((fmt.has, fmt.pattern.search, fmt) for fmt in FORMATS)
_PANIC = "Kernel panic - "
_DERIVED = re.compile(rf"Kernel panic - not syncing: {_DERIVED_PANIC}")
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

    def __init__(self, text: str, *, booted: bool) -> None:
        self.lines = _Lines(text)
        stamp = _STAMP.search(text, 0, 1 << 20)
        self.stamped = stamp is not None
        self.first_stamp = stamp.start() if stamp else len(text)
        self.starts_running = stamp is not None and "[    0.0" not in stamp[0]
        self.expects_boot = not booted
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
            if (event := _event(report)) is not None:
                yield event

    def _line(self, number: int, raw: str, *, notable: bool) -> None:
        printer, text = split_line(raw)
        if notable and self._boots(number, raw, printer, text):
            return
        report = self.open.get(printer)
        header = _header(text) if notable and printer != _USER else None
        if header and header[0].loose and printer == _PLAIN and self.stamped:
            header = None
        if header and _PANIC in text:
            if self.panicked and text.startswith("---[ end "):
                header = None  # the panic's last line repeats its first
            self.panicked = True
        if header and report and report.is_restated(text):
            report.restate(number, raw, *header)
        elif header and not self._is_part(header[0], text, report):
            if report:
                self._close(report)
            self._begin(number, raw, printer, *header)
        elif report:
            report.add(number, raw, text)
            if report.over(text):
                self._close(report)
        elif self.open:
            self._of_others(number, raw, printer, text)

    def _of_others(self, number: int, raw: str, printer: str, text: str) -> None:
        """A line whose printer has no report: another CPU's stack for one, or nothing."""
        for report in list(self.open.values()):
            if report.all_cpus and printer.startswith("C"):
                report.add(number, raw, text)
            if number - report.last_line > _MAX_GAP or report.over(text):
                self._close(report)

    def _is_part(self, fmt: Format, text: str, report: _Report | None) -> bool:
        """Whether a header only continues a report, or is a consequence of one."""
        if _PANIC in text:
            if report:
                return True
            # The panic may come from another task, the report be complete long before.
            cause = self.last.fmt.kind if self.last else Kind.REBOOT
            if _KILLED_INIT in text:
                return cause in _KILLS_TASK
            return cause is not Kind.REBOOT and bool(_DERIVED.search(text))
        if report is None or report.has_stack or len(report.raw) > _PART_LINES:
            return False
        if fmt.part or (report.fmt.then and report.fmt.then in text):
            return True
        # One printer that begins anew without having shown a stack is still at the same report.
        return report.printer not in (_CONSOLE, _PLAIN) and not report.fmt.stackless

    def _begin(
        self, number: int, raw: str, printer: str, fmt: Format, match: re.Match[str]
    ) -> None:
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
        )
        if len(self.open) >= _MAX_OPEN:
            self._close(next(iter(self.open.values())))
        self.open[printer] = self.last = report

    def _boots(self, number: int, raw: str, printer: str, text: str) -> bool:
        """Whether the line is the first of a boot; an unexpected one makes a report.

        A boot that no line of a running kernel precedes is the text's own.
        """
        if printer == _PLAIN and _REBOOT.pattern.match(text):
            self.banner_due = True
            was_up = self.first_stamp < self.lines.at - len(raw) - 1
        elif text.startswith(_BANNER) and printer not in (_PLAIN, _USER):
            if self.banner_due:
                self.banner_due = False
                return True
            was_up = self.starts_running
        else:
            return False
        self._close_all()
        self.boots += 1
        was_up = was_up or self.boots > 1
        if was_up and not self.panicked and (self.boots > 1 or not self.expects_boot):
            self.last = _Report(_REBOOT, {}, printer, number, [raw], last_line=number, kept=1)
            self.closed.append(self.last)
        self.panicked = False
        return True

    def _close(self, report: _Report) -> None:
        self.open.pop(report.printer, None)
        self.closed.append(report)

    def _close_all(self) -> None:
        for report in list(self.open.values()):
            self._close(report)


def read(text: str, *, booted: bool = True) -> list[Event]:
    """Returns every problem in a kernel log, in the order in which they begin.

    ``text`` may be a console's output, dmesg's (raw or not), a journal's, or what /dev/kmsg
    gives, with carriage returns and control characters; lines which a program wrote to
    /dev/kmsg are left out where their priority is shown. ``booted`` says that the kernel was up
    when the text began: a boot after any line of the kernel is a reboot then. Else the first
    boot is expected, whatever stands before it.

    Never raises, whatever the text; takes time in proportion to its length.
    """
    return list(events(text, booted=booted))


def events(text: str, *, booted: bool = True) -> Iterator[Event]:
    """Yields what :func:`read` returns, one by one, for whoever may have seen enough.

    There is no limit: the last problem of a flood may be another than all before it. Who must
    bound how much is reported counts what is different, and says where the reading stopped.
    """
    return _Reader(text, booted=booted).run()


def first(text: str) -> Event | None:
    """Returns the first problem in a kernel log: the others may be its consequences."""
    return next(_Reader(text, booted=True).run(), None)
