# SPDX-License-Identifier: GPL-2.0-only
"""The table of reports: how to know each, what it is called and whom it blames."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace

from harness.klog.blame import (
    Pick,
    Site,
    at_caller,
    at_exception,
    at_header,
    at_header_plain,
    at_page_origin,
    at_panic,
    at_pc,
    at_release,
    at_warning,
    at_warning_s_stack,
    became_unsafe,
    below_dispatcher,
    below_nmi,
    both_locks,
    first_lock,
    first_lock_or_below,
    in_dev_watchdog,
    in_header,
    in_origin,
    in_stall,
    in_trace,
    innermost,
    not_waiting,
    nowhere,
    of_handlers,
    trace_or_lock,
)
from harness.klog.frames import DECODED_PC, MODULE, NAME, PC, WHERE, Frame


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
    """kobject used before initialisation, or a name registered twice (sysfs, debugfs)."""
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
    PAGE_ALLOCATION = "page-allocation"
    """An allocation of pages failed, and whoever asked for them had not expected that."""
    OOM = "oom"
    """There was no memory left, and a process was to be killed for it."""
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
class Format:
    """One kind of report, and how to read it."""

    kind: Kind
    has: str
    """What every such header contains: searched for before ``pattern`` is tried."""
    pattern: re.Pattern[str]
    """The header. Groups func, off, size, mod: the function; src: file:line; others: title."""
    title: str
    """Filled with the groups of pattern and detail, numbers and addresses taken out, and {func}."""
    site: Site = nowhere
    """Which calls the title's function is chosen from."""
    pick: Pick = innermost
    """Which of these it is."""
    skip: re.Pattern[str] | None = None
    """Further helpers, for this format only."""
    detail: re.Pattern[str] | None = None
    """A line that the kernel always prints soon after the header, with more groups."""
    cut: str = ""
    """The title if the detail is missing. The report is corrupted then."""
    part: bool = False
    """Also a part of other reports: where one without a stack is open, it belongs to that."""
    then: str = ""
    """What the header contains that only continues this report."""
    stackless: bool = False
    """The report may be complete without a stack: a lone line, or lines of another shape."""
    broken: bool = False
    """A line from within a report: where it is the first that is seen, the beginning is lost."""
    needs_stack: bool = False
    """Only a stack tells this from a program's or driver's message in the same words."""
    needs_registers: bool = False
    """Only registers or a stack tell this from the same fault of a program's."""
    loose: bool = False
    """Programs print such lines, too: in a log with stamps, one without is not the kernel's."""
    place: Site | None = None
    """Where to look for the function of the event, if not at ``site``."""
    announces: bool = False
    """Stands beside the header of a warning or BUG(), mostly above it. That is the report then,
    and this line belongs to it; alone it is all that is left of one."""
    nameless: bool = False
    """A report whose own header is lost or does not exist: the next one gives it its name."""
    refuses: bool = False
    """The kernel has refused something and goes on: nothing was corrupted."""
    silent: bool = False
    """What follows looks like a report and is none: somebody has asked for it."""
    own: bool = False
    """Of a machine's own console only: in the logs of others such lines are everywhere."""
    rest: bool = False
    """A later part of a report. It counts in a pasted log alone, and if its head was cut off."""
    of_bug: bool = False
    """The trap that BUG() raises: it is one where the instructions show that."""
    sleeps: bool = False
    """The function of the event is who called what sleeps, not the title's, which sleeps itself."""

    @property
    def site_is_all(self) -> bool:
        """Whether nobody is to be named but who is found at its site: others only look like it."""
        return (self.place or self.site) in (nowhere, in_stall, below_nmi, in_dev_watchdog)

    @property
    def is_remains(self) -> bool:
        """Whether it is a line from within a report, by which that is known without its head."""
        return self.rest and self.broken and not self.nameless


# Of a path that begins with a slash even a folder's name with blanks is known.
_SRC = r"(?:[\w./+~@,-]{1,200}|/[\w./+~@, -]{1,200})\.(?:c|h|S|rs):\d+"
_HEAD = rf"(?P<func>{NAME})(?:{WHERE})?(?:\(\))?{MODULE}"
# Code of a module that is gone has no name.
_HEAD_OR_ADDRESS = rf"(?:(?:0x)?[0-9a-f]{{8,16}}(?![\w.+])|{_HEAD})"
# Headers start a line or follow a "subsystem: " prefix, a bracket or a lost line's rest; what
# they must not follow is a letter ("DEBUG:", "rmt_storage:INFO:") or a quotation mark.
_NOT_IN_WORD = r"(?<![\w:/\"'=-])"


def _re(pattern: str) -> re.Pattern[str]:
    return re.compile(_NOT_IN_WORD + pattern)


def _warn(source: str = _SRC, function: str = NAME) -> re.Pattern[str]:
    """kernel/panic.c, __warn().

    Up to 6.18 "WARNING: CPU: 0 PID: 1 at FILE:LINE FUNC+0x1/0x2", since then
    "WARNING: [condition] FILE:LINE at FUNC+0x1/0x2, CPU#0: comm/1".
    """
    # Code of a module that is gone has no name: then the file may tell. Some vendors print the
    # address before a name.
    nameless = function == NAME or source != _SRC
    address = rf"0x[0-9a-f]+(?! {NAME}\+0x)|" if nameless else ""
    return _re(
        rf"WARNING: (?P<up_to_6_18>(?:CPU: \d+ PID: \d+ )?at )?(?:\[[^\n]{{0,300}}\] )?"
        rf"(?P<src>{source})(?(up_to_6_18)| at) {{1,12}}(?:0x[0-9a-f]+ (?={NAME}\+0x))?"
        rf"(?:{address}(?P<func>{function})(?:{WHERE})?(?:\(\))?{MODULE})"
    )


_WANTS_LOCK = re.compile(r"is trying to acquire lock")
_TAKES_LOCK = re.compile(r"\] takes:")
_USB_IO = re.compile(
    r"usb_submit_urb|usb_start_wait_urb|usb_bulk_msg|usb_interrupt_msg|usb_control_msg"
)
_FREEING = re.compile(r"slab_|kfree|vunmap|vfree")
_LOCK_SOCK = re.compile(r"lock_sock|release_sock")
_RCU_AND_SLAB = re.compile(r"rcu|kmem|slab")
DERIVED_PANIC = (
    r"(?:kernel: )?(?:Fatal exception|panic_on_warn set|hung_task: blocked tasks"
    r"|softlockup: hung tasks|Hard LOCKUP|RCU Stall|Machine halted|scheduling while atomic"
    r"|UBSAN: panic_on_warn|kasan\.fault=panic set|Fatal hardware error"
    r"|Aiee, killing interrupt handler)"
)

# What only registers for a driver, above whose call the duplicate name is found.
_OF_DEVICE_MODEL = re.compile(
    r"^_*(?:sysfs_|kobject_|kset_|create_dir|internal_create|device_(?:add|register|create)"
    r"|bus_add|bus_register|driver_(?:register|attach)|platform_(?:device|driver|create|add)_"
    r"|class_(?:register|create)|misc_register|cdev_device_add|kernfs_|(?:device_)?add_disk"
    r"|register_(?:disk|netdev)|netdev_register)"
)
_OF_ALLOCATION = re.compile(
    r"^_*(?:alloc_(?:pages?|frozen|contig)|get_free_page|get_zeroed|(?:do_)?k?v?[mzc]alloc"
    r"|kmem_cache_alloc|kvmalloc|vmalloc|kmalloc|krealloc|k?memdup|slab_alloc|new_slab"
    r"|allocate_slab|cache_grow|cache_alloc|fallback_alloc|folio_alloc|page_frag_alloc|warn_alloc"
    r"|kmem_getpages|(?:arm_)?dma_(?:direct_|generic_)?alloc|mempool_alloc|pcpu_alloc"
    # arch/arm/mm/dma-mapping.c, drivers/usb/core
    r"|dma_alloc_buffer|alloc_(?:remap|simple|from_\w+)_buffer|hcd_buffer_alloc|usb_alloc_coherent"
    # net/core/skbuff.c
    r"|(?:netdev|napi|dev)_alloc|(?:napi_)?alloc_skb|(?:napi_)?build_skb|sk(?:b)?_page_frag)"
)

# mm/slub.c and mm/slab.c: between whoever allocates or frees and the check that complains.
_OF_SLAB = re.compile(
    r"^_*(?:k?v?z?free|kmem_cache|slab_|slub_|object_|print_trailer|check_|(?:alloc|free)_debug"
    r"|(?:alloc|free)_consistency|on_freelist|process_slab|cache_|k[mz]alloc|do_kmalloc|kmalloc"
    r"|krealloc|validate_slab|verify_|unfreeze|deactivate_slab|list_slab|shutdown_cache|kasan_)"
)

# What the memory that was lost was asked for with: whoever called that has lost it.
_ALLOCATES_FOR_OTHERS = re.compile(
    r"kmemleak|mmap|kmem|slab|alloc|create_object|idr_(?:pre_)?get|idr_preload|list_lru_init"
    r"|k?v?asprintf|pcpu_create|strn?dup|memdup"
)

# Registers whose header was cut off. A fault is the likeliest of what prints them.
_LOST_HEADERS = tuple(
    Format(
        Kind.PAGE_FAULT,
        has,
        re.compile(rf"^{pattern}"),
        "fault in {func}",
        at_header,
        place=at_header_plain,
        nameless=True,
        rest=True,
        loose=True,
        broken=True,
    )
    for has in (
        "IP: ",
        "IP  [",
        "PC is at ",
        "pc : ",
        "epc ",
        "NIP [",
        "Krnl PSW",
        "TPC: <",
        "ERA: ",
        "IAOQ[0]: ",
    )
    for pattern in (PC.pattern, DECODED_PC.pattern)
)

# Lines from within a report, by which it is known where nothing above them is left: what they
# contain, how they begin, and where the function is looked for.
_REMAINS: tuple[tuple[Kind, str, str, Site], ...] = (
    # kernel/sched/core.c, __might_resched()
    (Kind.ATOMIC_SLEEP, "in_atomic(): ", r"in_atomic\(\): \d, irqs_disabled\(\): \d", in_trace),
    # mm/debug.c, __dump_page(); a BUG() or KASAN say more of themselves
    (Kind.BAD_PAGE, " mapcount:", r"page:[0-9a-f]{8,16} (?:ref)?count:-?\d+ mapcount:-\d", nowhere),
    (Kind.BAD_PAGE, "page dumped because: ", r"page dumped because: (?!VM_|kasan)", nowhere),
    # arch/x86/kernel/traps.c and mm/kasan/report.c, kasan_non_canonical_hook()
    (
        Kind.GPF,
        " in range [",
        r"KASAN: [a-z -]{8,40} in range \[0x",
        at_pc,
    ),
    (Kind.GPF, "kasan: GPF ", r"kasan: GPF could be caused by NULL-ptr", at_pc),
    # mm/kasan/report.c, print_track() and print_address_description(), print_memory_metadata()
    (
        Kind.KASAN,
        " by task ",
        r"(?:Allocated|Freed) by task \d+(?: on cpu \d+ at [\d.]+s)?:\s*$",
        nowhere,
    ),
    (Kind.KASAN, "he buggy address", r"(?:The|Memory state around the) buggy address", nowhere),
    # kernel/kcsan/report.c, print_report()
    (
        Kind.KCSAN,
        " bytes by ",
        r"(?:read|write)[ \w()-]{0,40} to 0x[0-9a-f]+ of \d+ bytes by (?:task|interrupt)",
        nowhere,
    ),
    # mm/kfence/report.c, kfence_print_object()
    (Kind.KFENCE, "kfence-#", r"kfence-#\d+: 0x[0-9a-f]", nowhere),
    # mm/kmsan/report.c, kmsan_print_origin()
    (Kind.KMSAN, "Uninit was ", r"Uninit was (?:created|stored to memory) at:", nowhere),
    # mm/kmemleak.c, print_unreferenced()
    (Kind.LEAK, ", jiffies ", r'\s*comm ".{0,16}", pid \d+, jiffies \d+', in_trace),
    # kernel/locking/lockdep.c
    (Kind.LOCKDEP, "DEBUG_LOCKS_WARN_ON(", r"DEBUG_LOCKS_WARN_ON\(", in_trace),
    (Kind.LOCKDEP, "inconsistent {", r"inconsistent \{[A-Z-]+\} -> \{[A-Z-]+\} usage\.", nowhere),
    (Kind.LOCKDEP, "is already holding", r"(?:but|and this) task is already holding", nowhere),
    (Kind.LOCKDEP, "ew lock.", r"which lock already depends on the new lock\.", nowhere),
    (Kind.LOCKDEP, "debug this:", r"other info that might help us debug this:", in_trace),
    (Kind.LOCKDEP, "is trying to ", r"\S{1,40}/\d+ is trying to acquire lock:", first_lock),
    (Kind.LOCKDEP, " DEADLOCK ***", r"\s*\*\*\* DEADLOCK \*\*\*", in_trace),
    # kernel/locking/spinlock_debug.c, spin_dump()
    (Kind.LOCKDEP, ", .magic: ", r"\s*lock: .{1,80}, \.magic: [0-9a-f]{8}, \.owner: ", in_trace),
    # kernel/sched/core.c, sched_show_task(): of a task that sleeps and takes no signals
    (
        Kind.HUNG_TASK,
        "D ",
        r"(?:task:.{1,16} +state:D +stack:|.{1,16} +D (?:[0-9a-f]{8}|[0-9a-f]{16}|\(null\)| +\d)"
        r"[ 0-9]* 0x[0-9a-f]{8}\s*$)",
        in_trace,
    ),
    # mm/oom_kill.c, dump_tasks()
    (Kind.OOM, " total_vm ", r"\[ *pid *\] +uid +tgid +total_vm +rss ", nowhere),
    (Kind.OOM, "Tasks state (memory", r"Tasks state \(memory values in pages\):", nowhere),
    # arch/x86/mm/fault.c, show_fault_oops(); arch/arm64/mm/fault.c, mem_abort_decode()
    (Kind.PAGE_FAULT, "#PF: ", r"#PF: (?:supervisor|error_code\()", at_pc),
    # the task that was running: arch/{arm,arm64}/kernel/traps.c, __die(); mips' show_registers();
    # x86's show_registers() up to 3.10
    (
        Kind.PAGE_FAULT,
        "Process ",
        r"Process .{1,16} \(pid: \d+, (?:stack limit ?= ?0x|threadinfo[ =]|ti=)",
        at_pc,
    ),
    # and its last line, page_fault_oops(), once more below the stack
    (Kind.PAGE_FAULT, "CR2: ", r"CR2: [0-9a-f]{8,16}\s*$", at_pc),
    (Kind.PAGE_FAULT, "Mem abort info:", r"Mem abort info:\s*$", at_pc),
    # arch/mips/kernel/process.c, __show_regs(); riscv's, which a program's fault and a WARN() have
    # too, of other modes and causes (Privileged Architecture, sstatus.SPP and scause)
    (Kind.PAGE_FAULT, "KERNEL ", r"Status: [0-9a-f]{8}\s+KERNEL ", at_pc),
    (
        Kind.PAGE_FAULT,
        " badaddr: ",
        r"\s*s?tatus: [0-9a-f]+[13579bdf][0-9a-f]{2} badaddr: [0-9a-f]+ cause: 0*[157cdf]\s*$",
        at_pc,
    ),
    # arch/arm/kernel/smp.c, ipi_cpu_stop(): whoever panics stops the others
    (Kind.PANIC, ": stopping", r"CPU\d+: stopping\s*$", nowhere),
    # kernel/panic.c, panic(); arch/*/kernel/setup.c, dump_kernel_offset()
    (Kind.PANIC, "Rebooting in ", r"Rebooting in \d+ seconds\.\.\s*$", nowhere),
    (Kind.PANIC, "Kernel Offset: ", r"Kernel Offset: (?:0x[0-9a-f]+ from 0x|disabled)", nowhere),
    # kernel/rcu/tree_stall.h, print_cpu_stall() and print_cpu_stall_info()
    (
        Kind.RCU_STALL,
        " jiffies",
        r"(?:rcu: )?\s*\((?:detected by \d+, )?t=\d+ jiffies[ ,)]",
        in_stall,
    ),
    (
        Kind.RCU_STALL,
        "thread activity ",
        r"(?:rcu: )?All QSes seen, last rcu_\w+ kthread",
        in_stall,
    ),
    (
        Kind.RCU_STALL,
        " this GP)",
        r"(?:rcu: )?\s*\d+-[\w.!?]{4,7}: \(\d+ ticks this GP\)",
        in_stall,
    ),
    # mm/slub.c, print_track(), print_slab_info(), print_section(); "INFO: " up to 5.12
    (Kind.SLAB, " age=", rf"(?:Allocated|Freed) in {_HEAD} age=\d+ cpu=\d+ pid=\d+", at_header),
    (Kind.SLAB, " objects=", r"(?:INFO: )?Slab 0x[0-9a-f]+ objects=\d+ used=\d+ fp=", in_trace),
    (Kind.SLAB, "edzone ", r"(?:Right )?Redzone +(?:0x)?[0-9a-f]+: (?:[0-9a-f]{2} ){4}", in_trace),
    # lib/ubsan.c, the line below the first
    (Kind.UBSAN, " is out of range ", r"index -?\d+ is out of range for type '", in_trace),
    (Kind.UBSAN, "shift exponent ", r"shift exponent -?\d+ is (?:too large|negative)", in_trace),
    (Kind.UBSAN, "integer overflow:", r"(?:un)?signed integer overflow:", in_trace),
    (Kind.UBSAN, "is not a valid value", r"load of value \d+ is not a valid value", in_trace),
)

# What no report of these kinds blames, whichever line of one it is known by
_SKIPPED = {
    Kind.UBSAN: re.compile(r"ubsan|overflow"),
    Kind.PAGE_ALLOCATION: _OF_ALLOCATION,
    Kind.SLAB: _OF_SLAB,
    Kind.LEAK: _ALLOCATES_FOR_OTHERS,
}

# What the line above a stack has, on arm the latter; and what a call has where that is lost, too
STACK_MARKS = ("Call ", "Backtrace:")
A_CALL = "+0x"

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
        at_header,
        skip=_FREEING,
    ),
    Format(
        Kind.KASAN,
        "BUG: KAS",
        # Up to 4.4 the words have blanks between them: "use after free", "out of bounds access".
        _re(
            r"BUG: KAS(?:AN|an): (?P<rest>(?P<what>[a-z-]+(?: [a-z]+){0,4}?) in "
            rf"{_HEAD_OR_ADDRESS}.*)"
        ),
        "KASAN: {what} {access} in {func}",
        at_header,
        skip=re.compile(r"kernel_fault|tag_check|mem_abort|^el1_|^el1h_"),
        detail=re.compile(r"\b(?P<access>Read|Write) (?:of size|at addr) "),
        cut="KASAN: {rest}",
    ),
    Format(
        Kind.KASAN,
        "BUG: KAS",
        _re(r"BUG: KAS(?:AN|an): (?P<rest>(?P<what>[a-z-]+) on address.*)"),
        "KASAN: {what} {access}",
        nowhere,
        place=in_trace,
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
    # print_error_description()'s second line
    Format(
        Kind.KASAN,
        " of size ",
        re.compile(r"^(?P<what>Read|Write) of size \d+ at addr [0-9a-f]{8,16} by task "),
        "KASAN: {what} in {func}",
        in_trace,
        rest=True,
        broken=True,
    ),
    # mm/kmsan/report.c, kmsan_report()
    Format(
        Kind.KMSAN,
        "BUG: KMSAN:",
        _re(rf"BUG: KMSAN: (?P<what>kernel-usb-infoleak) in {_HEAD_OR_ADDRESS}"),
        "KMSAN: {what} in {func}",
        in_origin,
        skip=re.compile(rf"alloc_skb|{_USB_IO.pattern}"),
        stackless=True,
    ),
    Format(
        Kind.KMSAN,
        "BUG: KMSAN:",
        _re(rf"BUG: KMSAN: (?P<what>[a-z-]+) in {_HEAD_OR_ADDRESS}"),
        "KMSAN: {what} in {func}",
        in_origin,
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
        in_header,
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
        at_header_plain,
        stackless=True,
    ),
    # lib/ubsan.c, ubsan_prologue(); "Undefined behaviour" up to 5.8
    Format(
        Kind.UBSAN,
        "UBSAN:",
        _re(rf"UBSAN: Undefined behaviour in (?P<src>{_SRC})?"),
        "UBSAN: undefined-behaviour in {func}",
        in_trace,
        skip=re.compile(r"ubsan|overflow"),
    ),
    Format(
        Kind.UBSAN,
        "UBSAN:",
        _re(rf"UBSAN: (?P<what>[a-z-]+) in (?P<src>{_SRC})?"),
        "UBSAN: {what} in {func}",
        in_trace,
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
        at_pc,
    ),
    Format(
        Kind.PAGE_FAULT,
        "BUG: ",
        _re(r"BUG: (?:[Uu]nable to handle kernel|[Kk]ernel) NULL pointer dereference"),
        "BUG: unable to handle kernel NULL pointer dereference in {func}",
        at_pc,
    ),
    Format(
        Kind.PAGE_FAULT,
        "BUG: ",
        _re(r"BUG: [Uu]nable to handle kernel(?: (?:N|p)\w*)?\s*$"),
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
        at_pc,
    ),
    Format(
        Kind.PAGE_FAULT,
        "Unable to handle kernel ",
        _re(
            r"Unable to handle kernel (?:read from unreadable|write to read-only"
            r"|execute from non-executable|execution of|unaligned|access|ignored)"
            r".* at virtual address"
        ),
        "BUG: unable to handle kernel paging request in {func}",
        at_pc,
    ),
    Format(
        Kind.PAGE_FAULT,
        "Unhandled ",
        _re(r"Unhandled (?:fault|prefetch abort): "),
        "Unhandled fault in {func}",
        at_pc,
        needs_registers=True,
    ),
    Format(
        Kind.TRAP,
        "Alignment trap:",
        # in the kernel's half of the addresses: else it is a program's
        _re(r"Alignment trap: not handling instruction \w+ at \[<(?:[89a-f]|7f)[0-9a-f]{6,15}>\]"),
        "Alignment trap in {func}",
        nowhere,  # the trackers have nothing of what the fault's own header has below it
        place=at_pc,
        part=True,
        then="Unhandled fault: alignment exception",
        # with 2 GiB for each, a program's may lie there, too
        needs_registers=True,
    ),
    # The same where the lines above it are lost. arm64 prints the syndrome register, whose class
    # (Arm ARM, ESR_EL1.EC) is 0x21 or 0x25 for an abort in the kernel, whatever the words; arm
    # the fault's status, with no words for what memory or a bus has refused.
    Format(
        Kind.PAGE_FAULT,
        "Internal error:",
        _re(
            r"Internal error: (?:.{0,80}: 0{0,8}[89]6[0-9a-f]{6}|(?:Oops)?: [0-9a-f]{1,4}) \[#\d+\]"
        ),
        "Internal error in {func}",
        at_pc,
        part=True,
    ),
    Format(
        Kind.BUG,
        "Internal error:",
        _re(r"Internal error: Oops - BUG: \w+ \[#\d+\]"),
        "Internal error in {func}",
        at_pc,
        part=True,
    ),
    # arch/arm64/kernel/traps.c, ubsan_handler() and cfi_handler(): traps, as they print nothing
    Format(
        Kind.UBSAN,
        "Internal error: UBSAN: ",
        _re(r"Internal error: UBSAN: (?P<what>[a-z -]+): [0-9a-f]+ \[#\d+\]"),
        "UBSAN: {what} in {func}",
        at_pc,
        part=True,
    ),
    Format(
        Kind.BUG,
        "Internal error: Oops - CFI",
        _re(r"Internal error: Oops - CFI: \w+ \[#\d+\]"),
        "CFI failure in {func}",
        at_pc,
        part=True,
    ),
    # arch/arm64/kernel/traps.c and arch/arm/kernel/traps.c, __die()
    Format(
        Kind.TRAP,
        "Internal error:",
        _re(r"Internal error: .*\[#\d+\]"),
        "Internal error in {func}",
        at_pc,
        part=True,
    ),
    # arch/x86/kernel/traps.c, exc_general_protection(); for a user's fault the kernel prints
    # "comm[pid] general protection fault ip:...", which is none of the kernel's business
    Format(
        Kind.GPF,
        "general protection fault",
        _re(r"general protection fault(?:[, ][^:\n\[]{1,90})?: [0-9a-f]{4}(?= |$)"),
        "general protection fault in {func}",
        at_pc,
    ),
    # arch/x86/kernel/traps.c, do_error_trap(); arch/x86/kernel/dumpstack.c, __die_header()
    Format(
        Kind.TRAP,
        "divide",
        _re(r"divide[_ ]error: [0-9a-f]{4}\b"),
        "divide error in {func}",
        at_pc,
    ),
    Format(
        Kind.TRAP,
        "stack segment: ",
        _re(r"stack segment: [0-9a-f]{4}\b"),
        "stack segment fault in {func}",
        at_pc,
    ),
    Format(
        Kind.TRAP,
        "invalid opcode: ",
        _re(r"invalid opcode: [0-9a-f]{4}\b"),
        "invalid opcode in {func}",
        at_pc,
        part=True,
        of_bug=True,
    ),
    Format(
        Kind.TRAP,
        ": 0000 [#",
        _re(r"(?P<what>int3|bounds|overflow|alignment check|segment not present): 0000 \[#\d+\]"),
        "{what} in {func}",
        at_pc,
        part=True,
    ),
    Format(
        Kind.TRAP,
        "PANIC: double fault",
        _re(r"PANIC: double fault"),
        "PANIC: double fault in {func}",
        at_pc,
        part=True,
    ),
    Format(
        Kind.PAGE_FAULT,
        " [#",
        _re(r"Oops(?:: [0-9a-f]{4}(?: ilc:\d)?)? \[#\d+\]"),
        "Oops in {func}",
        at_pc,
        part=True,
        broken=True,
    ),
    # the same of x86-64 up to 2.6.22
    Format(
        Kind.PAGE_FAULT,
        "Oops: ",
        _re(r"Oops: [0-9a-f]{4} \[\d+\]"),
        "Oops in {func}",
        at_pc,
        part=True,
        broken=True,
    ),
    # arch/mips/kernel/traps.c, die()
    Format(
        Kind.PAGE_FAULT,
        "Oops[#",
        re.compile(r"^Oops\[#\d+\]:"),
        "Oops in {func}",
        at_pc,
        part=True,
        broken=True,
    ),
    # the same of kernels up to 2.4, which count none
    Format(
        Kind.PAGE_FAULT,
        "Oops: ",
        re.compile(r"^Oops: [0-9a-f]{4}\s*$"),
        "Oops in {func}",
        at_pc,
        part=True,
        broken=True,
        needs_registers=True,
    ),
    Format(
        Kind.PAGE_FAULT,
        "Internal error: Oops: ",
        re.compile(r"^Internal error: Oops: [0-9a-f]{1,8}\s*$"),
        "Internal error in {func}",
        at_pc,
        part=True,
        needs_registers=True,
    ),
    Format(
        Kind.TRAP,
        "invalid operand: ",
        re.compile(r"^invalid operand: [0-9a-f]{4}\s*$"),
        "invalid opcode in {func}",
        at_pc,
        part=True,
        needs_registers=True,
    ),
    # arch/x86/kernel/traps.c, handle_stack_overflow(), whose own line is lost; "kernel stack
    # overflow" up to 5.15
    Format(
        Kind.STACK_OVERFLOW,
        ": 0000 [#",
        _re(
            r"(?:Oops: )?(?:stack guard page|kernel stack overflow \([a-z -]{6,16}\))"
            r": 0000 \[#\d+\]"
        ),
        "BUG: stack guard page was hit in {func}",
        at_pc,
        below_dispatcher,
        part=True,
    ),
    # arch/powerpc/kernel/traps.c, __die(); the header above it is lost
    Format(
        Kind.PAGE_FAULT,
        "ernel access of bad area",
        _re(r"(?:Oops: )?[Kk]ernel access of bad area, sig: \d+(?: \[#\d+\]|\s*$)"),
        "BUG: unable to handle kernel data access in {func}",
        at_pc,
        part=True,
        needs_registers=True,
    ),
    # arch/riscv/kernel/traps.c, DO_ERROR_INFO(): memory that does not answer, or is not there
    Format(
        Kind.PAGE_FAULT,
        " access fault [#",
        _re(r"(?P<what>Oops - (?:instruction|load|store \(or AMO\)) access fault) \[#\d+\]"),
        "{what} in {func}",
        at_pc,
        part=True,
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
        at_pc,
        part=True,
    ),
    # arch/mips/kernel/traps.c, do_be(); arch/mips/kernel/unaligned.c and traps.c, die_if_kernel()
    Format(
        Kind.TRAP,
        " bus error, epc == ",
        _re(r"(?P<what>(?:Data|Instruction) bus error), epc == "),
        "{what} in {func}",
        at_pc,
    ),
    Format(
        Kind.TRAP,
        "[#",
        re.compile(
            r"^(?P<what>Unhandled kernel unaligned access|[A-Z][\w ]{2,60} in kernel code"
            r"|do_cpu invoked from kernel context!)(?: |)\[#\d+\]"
        ),
        "{what} in {func}",
        at_pc,
        loose=True,
    ),
    # arch/sparc/kernel/traps_{32,64}.c, die_if_kernel(): the task, and what it did
    Format(
        Kind.TRAP,
        "): ",
        re.compile(
            r"^\S{1,20}\(\d+\): (?P<what>(?!Oops)[A-Z][\w ]{2,60}?(?: trap [0-9a-f]+)?) \[#\d+\]"
        ),
        "{what} in {func}",
        at_pc,
        part=True,
        loose=True,
    ),
    # arch/sparc/kernel/traps_64.c, sun4v_log_error()
    Format(
        Kind.TRAP,
        "RESUMABLE ERROR: ",
        re.compile(rf"^NON-RESUMABLE ERROR: TPC \[0x[0-9a-f]+\] <(?P<func>{NAME}){WHERE}{MODULE}>"),
        "non-resumable error in {func}",
        at_header,
        stackless=True,
    ),
    # arch/m68k/kernel/traps.c, bad_super_trap()
    Format(
        Kind.TRAP,
        "BAD KERNEL ",
        _re(r"BAD KERNEL (?P<what>TRAP|BUSERR)"),
        "bad kernel {what} in {func}",
        at_pc,
        needs_registers=True,
    ),
    # arch/arc/kernel/troubleshoot.c, show_ecr_verbose()
    Format(
        Kind.PAGE_FAULT,
        " by insn @ ",
        re.compile(
            r"^Invalid (?:Read|Write|Exec(?:ution)?) @ 0x[0-9a-f]+ by insn @ "
            rf"(?P<func>{NAME}){WHERE}{MODULE}"
        ),
        "Invalid access in {func}",
        at_header_plain,
    ),
    # arch/parisc/kernel/traps.c, parisc_terminate()
    Format(
        Kind.PAGE_FAULT,
        ": Code=",
        _re(
            r"(?:Kernel Fault|Page fault: (?:bad address|no context)|[A-Z][\w ()?]{2,40}): "
            r"Code=\d+ \([^()\n]{1,60}\) at addr"
        ),
        "Kernel fault in {func}",
        at_pc,
    ),
    # arch/powerpc/kernel/traps.c, machine_check_exception()
    Format(
        Kind.TRAP,
        "Machine check in kernel mode",
        _re(r"Machine check in kernel mode"),
        "machine check in {func}",
        at_pc,
    ),
    # arch/powerpc/xmon/xmon.c, excprint(): the debugger came before the kernel's own words
    Format(
        Kind.PAGE_FAULT,
        ": Vector: ",
        _re(r"cpu 0x[0-9a-f]+: Vector: (?:3[08]0|4[08]0) \("),
        "BUG: unable to handle kernel data access in {func}",
        at_pc,
    ),
    Format(
        Kind.TRAP,
        ": Vector: ",
        _re(r"cpu 0x[0-9a-f]+: Vector: [0-9a-f]{3,4} +\((?P<what>[A-Z][\w ]{3,40})\) at \["),
        "{what} in {func}",
        at_pc,
        then="kernel BUG ",
    ),
    # arch/arm64/kernel/traps.c, bad_mode() and arm64_serror_panic()
    Format(
        Kind.TRAP,
        "SError",
        _re(r"(?:Bad mode in .{1,40} handler detected on CPU|SError Interrupt on CPU)\d+, code 0x"),
        "SError in {func}",
        at_pc,
    ),
    # arch/x86/kernel/cfi.c, handle_cfi_failure(), kernel/cfi.c, report_cfi_failure()
    Format(
        Kind.BUG,
        "CFI failure at ",
        _re(rf"CFI failure at (?P<func>{NAME})(?:{WHERE})?{MODULE}"),
        "CFI failure in {func}",
        at_header,
    ),
    # arch/x86/kernel/cet.c, do_kernel_cp_fault()
    Format(
        Kind.BUG,
        "Missing ENDBR: ",
        _re(rf"Missing ENDBR: (?P<func>{NAME}){WHERE}{MODULE}"),
        "missing ENDBR in {func}",
        at_header,
        then="kernel BUG at",
    ),
    # arch/*/kernel/irq.c, check_stack_overflow() and the like; arch/s390/kernel/traps.c,
    # kernel_stack_overflow()
    Format(
        Kind.STACK_OVERFLOW,
        "do_IRQ: stack overflow: ",
        _re(r"do_IRQ: stack overflow: \d+"),
        "stack overflow in an interrupt",
        place=in_trace,
        stackless=True,
    ),
    Format(
        Kind.STACK_OVERFLOW,
        "Kernel stack overflow",
        re.compile(r"^Kernel stack overflow\.?$"),
        "kernel stack overflow in {func}",
        at_pc,
        below_dispatcher,
        needs_registers=True,
        loose=True,
    ),
    # arch/arm64/kernel/traps.c, panic_bad_stack(); riscv's handle_bad_stack() is the same
    Format(
        Kind.STACK_OVERFLOW,
        "Insufficient stack space",
        _re(r"Insufficient stack space to handle exception!"),
        "kernel stack overflow in {func}",
        at_pc,
        below_dispatcher,
    ),
    # arch/x86/kernel/dumpstack.c, handle_stack_overflow()
    Format(
        Kind.STACK_OVERFLOW,
        "stack guard page was hit",
        _re(r"BUG: (?:\w+ )?stack guard page was hit at"),
        "BUG: stack guard page was hit in {func}",
        at_pc,
        below_dispatcher,
    ),
    # lib/list_debug.c, __list_add_valid_or_report(), with CONFIG_BUG_ON_DATA_CORRUPTION
    Format(
        Kind.LIST_CORRUPTION,
        "kernel BUG at ",
        _re(r"kernel BUG at (?P<src>\S*lib/list_debug\.c:\d+)"),
        "BUG: corrupted list in {func}",
        in_trace,
    ),
    # mm/usercopy.c, usercopy_abort()
    Format(
        Kind.USERCOPY,
        "kernel BUG at ",
        _re(r"kernel BUG at (?P<src>\S*mm/usercopy\.c:\d+)"),
        "BUG: bad usercopy in {func}",
        in_trace,
        skip=re.compile(r"usercopy|__check"),
    ),
    # mm/slub.c and mm/slab.c, set_freepointer(), ___cache_free() and the like: who frees twice, or
    # what is no object, is their caller.
    Format(
        Kind.BUG,
        "kernel BUG at ",
        _re(r"kernel BUG at (?P<src>\S*mm/sl[au]b\.c:\d+)"),
        "kernel BUG in {func}",
        at_pc,
        skip=re.compile(r"^_*(?:slab_free|kfree|kmem_cache_free|cache_free|set_freepointer|free_)"),
    ),
    # lib/bug.c, __report_bug(); the frame that holds BUG() is the instruction pointer. The skb
    # helpers check their caller's arithmetic.
    Format(
        Kind.BUG,
        "kernel BUG at ",
        _re(
            rf"kernel BUG at (?:(?P<src>{_SRC})|\S{{0,200}}:\d+!|(?:0x)?[0-9a-f]{{8,16}}\b"
            r"|\S{1,200}\+0x|(?:[\w.-]*/\S{0,40})?$)"
        ),
        "kernel BUG in {func}",
        at_pc,
        skip=re.compile(r"^skb_"),
        then=": Vector: ",  # xmon comes between this and the registers
    ),
    # include/asm-generic/bug.h up to 2.6.19
    Format(
        Kind.BUG,
        "kernel BUG in ",
        _re(rf"kernel BUG in (?P<func>{NAME}) at (?P<src>{_SRC})"),
        "kernel BUG in {func}",
        at_header,
    ),
    # lib/bug.c without CONFIG_DEBUG_BUGVERBOSE; arch/mips/kernel/traps.c, do_trap_or_bp()
    Format(
        Kind.BUG,
        "Kernel BUG ",
        _re(r"Kernel BUG (?P<rest>at .*|\[#\d.*)"),
        "kernel BUG {rest}",
        place=at_pc,
        part=True,
        then=": Vector: ",
    ),
    Format(
        Kind.BUG,
        "Kernel bug detected[#",
        _re(r"Kernel bug detected\[#\d+\]"),
        "kernel BUG in {func}",
        at_pc,
    ),
    # include/linux/bug.h, WARN(); what is special is where it is
    Format(
        Kind.ODEBUG,
        "WARNING: ",
        _warn(r"\S*lib/debugobjects\.c:\d+", r"debug_(?:print|check)\w*[\w.]*"),
        "WARNING: ODEBUG bug in {func}",
        at_warning,
        skip=re.compile(
            r"debug_|rcu|hrtimer_|timer_|work_|percpu_|vunmap|vfree|__free_|debug_check|^kobject_"
        ),
    ),
    Format(
        Kind.USERCOPY,
        "WARNING: ",
        _warn(r"\S*mm/usercopy\.c:\d+", r"usercopy_warn[\w.]*"),
        "WARNING: bad usercopy in {func}",
        at_warning,
        skip=re.compile(r"usercopy|__check"),
    ),
    Format(
        Kind.KOBJECT,
        "WARNING: ",
        _warn(r"\S*lib/kobject\.c:\d+", r"kobject_[\w.]*"),
        "WARNING: kobject bug in {func}",
        at_warning,
        skip=_OF_DEVICE_MODEL,
    ),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _warn(r"\S*fs/sysfs/dir\.c:\d+", r"sysfs_(?:warn_dup|add_one)[\w.]*"),
        "WARNING in {func}",
        at_warning,
        skip=_OF_DEVICE_MODEL,
    ),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _warn(r"\S*fs/proc/generic\.c:\d+", r"_*proc_register[\w.]*"),
        "WARNING: proc registration bug in {func}",
        at_warning,
        skip=re.compile(r"proc_"),
    ),
    Format(
        Kind.REFCOUNT,
        "WARNING: ",
        _warn(r"\S*lib/refcount\.c:\d+", r"refcount_[\w.]*"),
        "WARNING: refcount bug in {func}",
        at_warning,
        skip=re.compile(r"refcount|kobject_"),
    ),
    Format(
        Kind.LOCKDEP,
        "WARNING: ",
        _warn(r"\S*kernel/locking/lockdep\.c:\d+", r"\w*lock_[\w.]*"),
        "WARNING: locking bug in {func}",
        at_warning,
        skip=_LOCK_SOCK,
    ),
    Format(
        Kind.LIST_CORRUPTION,
        "WARNING: ",
        _warn(r"\S*lib/list_debug\.c:\d+"),
        "WARNING in {func}",
        at_warning,
    ),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _warn(r"(?:\S*/)?mm/\S*\.c:\d+", r"k?v?malloc[\w.]*"),
        "WARNING: kmalloc bug in {func}",
        at_warning,
        skip=re.compile(r"kmalloc|krealloc|slab|kmem"),
    ),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _warn(r"(?:\S*/)?mm/vmalloc\.c:\d+", r"__vmalloc_node[\w.]*"),
        "WARNING: zero-size vmalloc in {func}",
        at_warning,
    ),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _warn(_SRC, r"usb_submit_urb[\w.]*"),
        "WARNING in {func}/usb_submit_urb",
        at_warning,
        skip=_USB_IO,
    ),
    Format(Kind.WARNING, "WARNING: ", _warn(), "WARNING in {func}", at_warning),
    # kernels before 2.6.26, and some architectures until 3.x, print no function
    Format(
        Kind.WARNING,
        "WARNING: at ",
        _re(rf"WARNING: at (?P<src>{_SRC})\s*$"),
        "WARNING in {func}",
        at_warning,
    ),
    Format(
        Kind.WARNING,
        "Badness ",
        _re(rf"Badness (?:in (?P<func>{NAME}) )?at (?P<src>{_SRC})"),
        "WARNING in {func}",
        at_warning,
    ),
    Format(
        Kind.WARNING,
        "WARNING: ",
        _re(rf"WARNING: CPU: \d+ PID: \d+(?: at {_HEAD}(?:\(\))?\s*$)?"),
        "WARNING in {func}",
        at_warning,
    ),
    # arch/x86/mm/extable.c, ex_handler_msr()
    Format(
        Kind.WARNING,
        "unchecked MSR access error: ",
        _re(
            r"unchecked MSR access error: (?:RD|WR)MSR (?:from|to) .{1,60} at rIP: \S+ \("
            rf"(?P<func>{NAME}){WHERE}"
        ),
        "unchecked MSR access in {func}",
        at_header,
        skip=re.compile(r"_(?:read|write|rd|wr)msr|_(?:read|write)_msr"),
        needs_stack=True,
    ),
    # arch/x86/mm/kmemcheck/error.c, kmemcheck_error_recall(), 2.6.31 to 4.14
    Format(
        Kind.KMSAN,
        "kmemcheck: Caught ",
        _re(r"WARNING: kmemcheck: Caught \d+-bit read from (?P<what>\w+) memory"),
        "kmemcheck: {what} in {func}",
        at_pc,
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
        both_locks,
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
        first_lock_or_below,
        detail=_WANTS_LOCK,
        cut="{head}",
    ),
    Format(
        Kind.LOCKDEP,
        "possible irq lock inversion",
        _re(r"(?P<head>(?:WARNING|INFO): possible irq lock inversion dependency detected)"),
        "possible deadlock in {func}",
        first_lock,
        detail=re.compile(r"just changed the state of lock"),
        cut="{head}",
    ),
    Format(
        Kind.LOCKDEP,
        "-unsafe lock order",
        _re(r"(?:WARNING|INFO): \w+-(?:READ-)?safe -> \w+-(?:READ-)?unsafe lock order detected"),
        "possible deadlock in {func}",
        became_unsafe,
    ),
    # print_usage_bug()
    Format(
        Kind.LOCKDEP,
        "inconsistent lock state",
        _re(r"(?P<head>INFO: inconsistent lock state)"),
        "inconsistent lock state in {func}",
        first_lock,
        detail=_TAKES_LOCK,
        cut="{head}",
    ),
    Format(
        Kind.LOCKDEP,
        "inconsistent lock state",
        _re(r"(?P<head>WARNING: inconsistent lock state)"),
        "inconsistent lock state in {func}",
        trace_or_lock,
        detail=_TAKES_LOCK,
        cut="{head}",
    ),
    # print_lock_invalid_wait_context()
    Format(
        Kind.LOCKDEP,
        "BUG: Invalid wait context",
        _re(r"BUG: Invalid wait context"),
        "WARNING: locking bug in {func}",
        in_trace,
        skip=_LOCK_SOCK,
    ),
    # print_unlock_imbalance_bug(), print_freed_lock_bug(), debug_check_no_locks_held(),
    # lockdep_sys_exit(), print_lock_nested_lock_not_held(); "BUG:" up to 4.13
    Format(
        Kind.LOCKDEP,
        "bad unlock balance",
        _re(r"(?P<word>BUG|WARNING): bad unlock balance detected"),
        "{word}: bad unlock balance in {func}",
        at_release,
    ),
    Format(
        Kind.LOCKDEP,
        "held lock freed",
        _re(r"(?P<word>BUG|WARNING): held lock freed"),
        "{word}: held lock freed in {func}",
        first_lock,
    ),
    Format(
        Kind.LOCKDEP,
        "still has locks held",
        _re(r"(?P<word>BUG|WARNING): .{1,80} still has locks held"),
        "{word}: still has locks held in {func}",
        first_lock,
    ),
    Format(
        Kind.LOCKDEP,
        "lock held when returning to user space",
        _re(r"(?P<word>BUG|WARNING): lock held when returning to user space"),
        "{word}: lock held when returning to user space in {func}",
        first_lock,
        stackless=True,
    ),
    # print_held_locks_bug() up to 3.x, print_lock_contention_bug()
    Format(
        Kind.LOCKDEP,
        "lock held at task exit time",
        _re(r"BUG: (?:\S{1,40} )?lock held at task exit time"),
        "BUG: lock held at task exit time in {func}",
        first_lock,
        stackless=True,
    ),
    Format(
        Kind.LOCKDEP,
        "bad contention detected",
        _re(r"(?P<word>BUG|WARNING): bad contention detected"),
        "{word}: bad contention in {func}",
        at_release,
    ),
    Format(
        Kind.LOCKDEP,
        "Nested lock was not taken",
        _re(r"WARNING: Nested lock was not taken"),
        "WARNING: nested lock was not taken in {func}",
        in_trace,
    ),
    # lockdep_rcu_suspicious()
    Format(
        Kind.LOCKDEP,
        "suspicious RCU usage",
        _re(r"(?P<head>(?P<word>WARNING|INFO): suspicious RCU usage)"),
        "{word}: suspicious RCU usage in {func}",
        in_trace,
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
        in_trace,
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
        in_trace,
        skip=re.compile(r"spin_|_lock|_unlock"),
    ),
    # kernel/sched/core.c, __might_resched(), __schedule_bug()
    Format(
        Kind.ATOMIC_SLEEP,
        "sleeping function called",
        # "Debug:" up to 2.6.19; a list of titles has " in " behind it
        _re(
            r"(?:BUG|Debug): sleeping function called from (?:invalid|illegal) context"
            rf"(?: at (?P<src>{_SRC})?|\s*$)"
        ),
        "BUG: sleeping function called from invalid context in {func}",
        in_trace,
    ),
    Format(
        Kind.ATOMIC_SLEEP,
        "BUG: scheduling while atomic",
        _re(r"BUG: scheduling while atomic(?::|\s*$)"),
        "BUG: scheduling while atomic in {func}",
        in_trace,
        skip=re.compile(r"schedule"),
        sleeps=True,
    ),
    # "bad: scheduling while atomic!" up to 2.6.9, without the word before it up to 2.6.18
    Format(
        Kind.ATOMIC_SLEEP,
        "scheduling while atomic",
        re.compile(r"^(?:bad: )?scheduling while atomic(?:!|: \S)"),
        "BUG: scheduling while atomic in {func}",
        in_trace,
        skip=re.compile(r"schedule"),
        sleeps=True,
        needs_stack=True,
        loose=True,
    ),
    # kernel/sched/core.c, __cant_sleep() and __cant_migrate(); idle.c, dequeue_task_idle()
    Format(
        Kind.ATOMIC_SLEEP,
        "BUG: assuming ",
        _re(r"BUG: assuming (?P<what>atomic|non migratable) context at (?P<src>\S{1,200}:\d+)"),
        "BUG: assuming {what} context in {func}",
        in_trace,
    ),
    Format(
        Kind.ATOMIC_SLEEP,
        "bad: scheduling from the idle thread!",
        _re(r"bad: scheduling from the idle thread!"),
        "bad: scheduling from the idle thread in {func}",
        in_trace,
        skip=re.compile(r"schedule|dequeue_task|deactivate_task"),
        sleeps=True,
        needs_stack=True,
    ),
    # lib/smp_processor_id.c, check_preemption_disabled()
    Format(
        Kind.ATOMIC_SLEEP,
        "BUG: using ",
        _re(r"BUG: using (?P<what>\w+)\(\) in preemptible"),
        "BUG: using {what}() in preemptible code in {func}",
        in_trace,
        place=at_caller,
        skip=re.compile(r"dump_stack|preempt|debug_|processor_id|this_cpu"),
    ),
    # kernel/workqueue.c, process_one_work()
    Format(
        Kind.LOCKDEP,
        "BUG: workqueue leaked",
        _re(r"BUG: workqueue leaked (?P<what>lock or atomic|atomic, lock or RCU)"),
        "BUG: workqueue leaked {what} in {func}",
        in_header,
        detail=re.compile(rf"(?:last function: |workfn=){_HEAD}"),  # the latter since 6.9
        stackless=True,
    ),
    # kernel/rcu/tree_stall.h, print_cpu_stall(), print_other_cpu_stall(); tree_exp.h; tasks.h
    Format(
        Kind.RCU_STALL,
        "INFO: rcu",
        _re(r"INFO: rcu\w* (?:self-)?detected (?:expedited )?stalls?\b(?!, but suppressed)"),
        "INFO: rcu detected stall in {func}",
        in_stall,
        below_dispatcher,
        skip=re.compile(r"apic_timer_interrupt|rcu"),
    ),
    # kernel/rcuclassic.c and rcutree.c up to 2.6.35
    Format(
        Kind.RCU_STALL,
        "INFO: RCU detected CPU ",
        _re(r"INFO: RCU detected CPU (?:\d+ stall \(|stalls:)"),
        "INFO: rcu detected stall in {func}",
        in_stall,
        below_dispatcher,
        skip=re.compile(r"apic_timer_interrupt|rcu"),
    ),
    # kernel/rcu/tree_stall.h, rcu_check_gp_kthread_starvation(), ..._expired_fqs_timer()
    Format(
        Kind.RCU_STALL,
        " kthread ",
        _re(r"rcu_\w+ kthread (?:starved|timer wakeup didn't happen) for \d+ jiffies! g-?\d+"),
        "INFO: rcu detected stall in {func}",
        in_stall,
        below_dispatcher,
        skip=re.compile(r"apic_timer_interrupt|rcu"),
        rest=True,
    ),
    # kernel/watchdog.c, watchdog_timer_fn(), watchdog_hardlockup_check()
    Format(
        Kind.SOFT_LOCKUP,
        "BUG: soft lockup",
        # "detected on CPU#0!" up to 2.6.23; kernels without CONFIG_SMP print no number
        _re(r"BUG: soft lockup(?: - CPU#?\d+|(?: - CPU)? (?:stuck for|detected on CPU))"),
        "BUG: soft lockup in {func}",
        at_pc,
        below_dispatcher,
    ),
    Format(
        Kind.HARD_LOCKUP,
        "LOCKUP",
        # arch/powerpc/kernel/watchdog.c; arch/x86/kernel/nmi.c up to 2.6.36
        _re(
            r"(?:(?:CPU\d+: )?Watchdog (?:CPU:\d+ |CPU \d+ )?(?:detected )?[Hh]ard LOCKUP"
            r"|CPU \d+ (?:self-)?detected hard LOCKUP|(?:BUG: )?NMI Watchdog detected LOCKUP)"
        ),
        "BUG: hard lockup in {func}",
        at_pc,
        below_dispatcher,
    ),
    # kernel/hung_task.c, check_hung_task()
    Format(
        Kind.HUNG_TASK,
        "INFO: task ",
        _re(r"INFO: task .{1,80} blocked (?:in I/O wait )?for more than \d+ seconds"),
        "INFO: task hung in {func}",
        in_trace,
        not_waiting,
    ),
    # the line but one below
    Format(
        Kind.HUNG_TASK,
        "hung_task_timeout_secs",
        re.compile(r"^\W?echo 0 > /proc/sys/kernel/hung_task_timeout_secs\W disables this\b"),
        "INFO: task hung in {func}",
        in_trace,
        not_waiting,
        needs_stack=True,
        rest=True,
    ),
    # The name of a task is whatever it chose, line feeds included.
    Format(
        Kind.HUNG_TASK,
        "INFO: task ",
        _re(r"INFO: task [^:]{0,40}$"),
        "INFO: task hung in {func}",
        in_trace,
        not_waiting,
        detail=re.compile(r":\d+ blocked (?:in I/O wait )?for more than \d+ seconds"),
        needs_stack=True,
    ),
    Format(
        Kind.HUNG_TASK,
        "INFO: task ",
        _re(r"INFO: task .{1,80} can't die for more than \d+ seconds"),
        "INFO: task can't die in {func}",
        in_trace,
        skip=re.compile(r"schedule"),
        sleeps=True,
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
        in_trace,
        skip=re.compile(r"^kobject_"),
        needs_stack=True,
    ),
    # kernel/module/main.c, do_init_module(), with the stack of whoever loads it
    Format(
        Kind.WARNING,
        "->init suspiciously returned ",
        _re(r"\w+: '(?P<who>\w{1,60})'->init suspiciously returned \d+, it should follow"),
        "init of {who} returned a number above 0, and not 0 or a negative errno",
    ),
    # fs/sysfs/dir.c, sysfs_warn_dup(): a warning until 4.18, a stack since then
    Format(
        Kind.KOBJECT,
        "cannot create duplicate filename",
        _re(r"sysfs: cannot create duplicate filename"),
        "sysfs: duplicate filename in {func}",
        in_trace,
        skip=_OF_DEVICE_MODEL,
        then="kobject_add_internal failed",
        refuses=True,
        announces=True,
    ),
    # lib/kobject.c, kobject_add_internal(), which comes after sysfs's own words
    Format(
        Kind.KOBJECT,
        "kobject_add_internal failed for ",
        _re(r"kobject_add_internal failed for .{1,100}? (?:with |\()-"),
        "kobject: kobject_add_internal failed",
        place=in_trace,
        skip=_OF_DEVICE_MODEL,
        part=True,
        refuses=True,
        stackless=True,
        announces=True,
    ),
    # fs/debugfs/inode.c, start_creating(). In the logs of others it is everywhere.
    Format(
        Kind.KOBJECT,
        "already present!",
        _re(r"debugfs: (?P<what>File|Directory) '.{1,100}' (?:in|with) .{1,120} already present!"),
        "debugfs: {what} already present",
        stackless=True,
        refuses=True,
        own=True,
    ),
    # The same on new kernels, as 7.3, which do not say whether it is a file or a directory.
    Format(
        Kind.KOBJECT,
        "' already exists in '",
        _re(r"debugfs: '.{1,100}' already exists in '.{1,120}'"),
        "debugfs: name already present",
        stackless=True,
        refuses=True,
        own=True,
    ),
    # mm/page_alloc.c, warn_alloc()
    Format(
        Kind.PAGE_ALLOCATION,
        ": page allocation ",
        re.compile(
            r"(?:^|\s)(?:kworker/\S{1,30}|[^\s:][^:\n]{0,60}): "
            r"page allocation (?P<what>failure|stalls)[.: ]"
        ),
        "page allocation {what}",
        refuses=True,
        place=in_trace,
        skip=_OF_ALLOCATION,
    ),
    Format(
        Kind.PAGE_ALLOCATION,
        "vmalloc",
        re.compile(r"^[^:\n]{1,60}: (?P<what>vmalloc error: size|vmalloc: allocation failure)\b"),
        "{what}",
        place=in_trace,
        skip=_OF_ALLOCATION,
        needs_stack=True,
    ),
    # mm/page_alloc.c, __alloc_pages() of 2.4
    Format(
        Kind.PAGE_ALLOCATION,
        "-order allocation failed (",
        _re(r"__alloc_pages: \d+-order allocation failed \(gfp="),
        "page allocation failure",
        refuses=True,
        stackless=True,
    ),
    # mm/oom_kill.c, dump_header()
    Format(
        Kind.OOM,
        " invoked oom-killer: ",
        _re(r"\S.{0,60} invoked oom-killer: "),
        "out of memory: oom-killer invoked",
        refuses=True,
        stackless=True,
    ),
    # mm/oom_kill.c, __oom_kill_process(), far below dump_header()'s lines; "Kill process" up to
    # 5.0; dump_oom_victim() since then
    Format(
        Kind.OOM,
        "emory: Kill",
        _re(r"(?:Out of [mM]|Memory cgroup out of m)emory: Kill(?:ed)? process \d+[ ,]"),
        "out of memory: process killed",
        refuses=True,
        stackless=True,
        rest=True,
    ),
    Format(
        Kind.OOM,
        "oom-kill:constraint=",
        _re(r"oom-kill:constraint=CONSTRAINT_\w+,"),
        "out of memory: process killed",
        refuses=True,
        stackless=True,
        rest=True,
    ),
    # net/sched/sch_generic.c, dev_watchdog(): a warning until 6.7, a line since then
    Format(
        Kind.WARNING,
        "NETDEV WATCHDOG: ",
        _re(r"NETDEV WATCHDOG: .{1,80} timed out"),
        "NETDEV WATCHDOG: transmit queue timed out",
        place=in_dev_watchdog,
        stackless=True,
        part=True,
        announces=True,
    ),
    # lib/string_helpers.c, fortify_panic() and __fortify_report(); fortify-string.h
    Format(
        Kind.BUG,
        "detected buffer overflow",
        _re(r"(?:\w+: )?detected buffer overflow(?: in (?P<func>[\w.]+))?"),
        "fortify: buffer overflow",
        place=in_trace,
        stackless=True,
        announces=True,
    ),
    Format(
        Kind.WARNING,
        "detected field-spanning write",
        _re(r"\w+: detected field-spanning write \(size \d+\)"),
        "fortify: field-spanning write",
        stackless=True,
        announces=True,
    ),
    # lib/list_debug.c, lib/refcount.c, lib/debugobjects.c: the warning below them is lost
    Format(
        Kind.LIST_CORRUPTION,
        "list_",
        re.compile(r"^(?P<what>list_(?:add|del)) (?:corruption|double add)\b"),
        "{what} corruption",
        stackless=True,
        announces=True,
        loose=True,
    ),
    Format(
        Kind.REFCOUNT,
        "refcount_t: ",
        re.compile(r"^refcount_t: (?P<what>\w[\w ]{3,40}); (?:use-after-free|leaking memory)"),
        "refcount bug: {what}",
        stackless=True,
        announces=True,
        loose=True,
    ),
    Format(
        Kind.ODEBUG,
        "ODEBUG: ",
        re.compile(r"^ODEBUG: (?P<what>\w[\w ]{1,30}?) (?:active|not available|object|\()"),
        "ODEBUG: {what}",
        stackless=True,
        announces=True,
        loose=True,
    ),
    # mm/usercopy.c, usercopy_abort(): the BUG() below it is lost; "kernel" up to 4.15
    Format(
        Kind.USERCOPY,
        "ernel memory ",
        _re(
            r"(?:usercopy:|whitelist\?) [Kk]ernel memory (?P<what>exposure|overwrite) attempt"
            r" detected"
        ),
        "usercopy: kernel memory {what} attempt",
        place=in_trace,
        skip=re.compile(r"usercopy|__check"),
        stackless=True,
        announces=True,
    ),
    # net/core/skbuff.c, skb_panic(): the same
    Format(
        Kind.BUG,
        "_panic: text:",
        _re(r"skb_(?P<what>over|under)_panic: text:[0-9a-f]"),
        "skb_{what}_panic",
        stackless=True,
        announces=True,
    ),
    # Assertions of subsystems: OpenZFS's spl_panic(), XFS's assfail(), btrfs's btrfs_assertfail(),
    # jbd2's J_ASSERT
    Format(
        Kind.BUG,
        "PANIC at ",
        re.compile(rf"^PANIC at (?P<src>[\w./+~@,-]{{1,200}}:\d+):(?P<func>{NAME})\(\)"),
        "PANIC in {func}",
        at_header,
        stackless=True,
    ),
    # OpenZFS's spl_debug_bug(), up to 0.6
    Format(
        Kind.BUG,
        "SPL PANIC",
        re.compile(rf"^SPLError: \d+:\d+:\([\w./-]+:\d+:(?P<func>{NAME})\(\)\) SPL PANIC"),
        "PANIC of a filesystem",
        place=at_header,
        stackless=True,
    ),
    # and its vcmn_err()
    Format(
        Kind.BUG,
        "PANIC",
        re.compile(r"^PANIC: \S.*"),
        "PANIC of a filesystem",
        place=in_trace,
        needs_stack=True,
        loose=True,
    ),
    Format(
        Kind.BUG,
        "ssertion fail",
        _re(
            r"(?P<what>[Aa]ssertion failed|Assertion failure in \w+\(\)|ASSERT(?:ION)? FAILED)[: ]"
        ),
        "{what}",
        place=in_trace,
        needs_stack=True,
        announces=True,
    ),
    # mm/slab.c, until 6.7: check_poison_obj(), __slab_error()
    Format(
        Kind.SLAB,
        "lab corruption",
        _re(r"[Ss]lab corruption(?: \([^)\n]{0,60}\))?: "),
        "BUG: slab corruption",
        stackless=True,
    ),
    Format(
        Kind.SLAB,
        "slab error in ",
        _re(r"slab error in (?P<what>\w+)\(\): cache "),
        "BUG: slab error in {what}",
        needs_stack=True,
    ),
    # mm/slab_common.c, kmem_cache_destroy()
    Format(
        Kind.SLAB,
        "lab cache still has objects",
        _re(r"kmem_cache_destroy [\w-]{1,60}: Slab cache still has objects"),
        "BUG: objects remaining in a destroyed cache",
        place=in_trace,
        skip=_OF_SLAB,
        stackless=True,
    ),
    # kernel/irq/spurious.c, __report_bad_irq()
    Format(
        Kind.WARNING,
        ": nobody cared",
        re.compile(r"^(?P<rest>irq \d+: nobody cared)"),
        "{rest}",
        of_handlers,
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
        in_trace,
        skip=_ALLOCATES_FOR_OTHERS,
    ),
    Format(
        Kind.LEAK,
        "unreferenced object ",
        _re(r"unreferenced object (?:\((?:percpu|phys)\) )?0x[0-9a-f]+ \(size \d+\):"),
        "memory leak in {func}",
        in_trace,
        skip=_ALLOCATES_FOR_OTHERS,
        part=True,
    ),
    Format(
        Kind.LEAK,
        "hex dump (first ",
        re.compile(r"^\s*hex dump \(first \d+ bytes\):"),
        "memory leak in {func}",
        in_trace,
        skip=_ALLOCATES_FOR_OTHERS,
        rest=True,
        broken=True,
    ),
    Format(
        Kind.LEAK,
        "backtrace",
        re.compile(r"^\s*backtrace(?: \(crc [0-9a-f]+\))?:\s*$"),
        "memory leak in {func}",
        in_trace,
        skip=_ALLOCATES_FOR_OTHERS,
        rest=True,
        broken=True,
        needs_stack=True,
    ),
    # mm/page_alloc.c, bad_page(); mm/filemap.c; mm/memory.c, print_bad_pte()
    Format(
        Kind.BAD_PAGE,
        "BUG: Bad page ",
        _re(r"BUG: Bad page (?P<what>state|cache) in process"),
        "BUG: Bad page {what} in {func}",
        at_page_origin,
        skip=re.compile(
            r"(?:free|put|get|update|release)_page|free_unref|^_*folio|truncate_inode_pages"
            r"|page_frag_free|alloc|vmap|page_owner"
        ),
    ),
    Format(Kind.BAD_PAGE, "BUG: Bad page map", _re(r"BUG: Bad page map"), "BUG: Bad page map"),
    # mm/pgtable-generic.c, pmd_clear_bad() and the like; arch/*/include/asm/pgtable.h, pmd_ERROR()
    Format(
        Kind.BAD_PAGE,
        ": bad p",
        _re(r"[\w./-]{1,100}\.[ch]:\d+: bad (?P<what>pte|pmd|pud|p4d|pgd) [0-9a-f]{4,16}[.(]"),
        "bad {what}",
        stackless=True,
    ),
    # mm/page_poison.c, check_poison_mem()
    Format(
        Kind.BAD_PAGE,
        "pagealloc: ",
        _re(r"pagealloc: (?P<what>single bit error|memory corruption)"),
        "pagealloc: {what}",
        place=in_trace,
        skip=re.compile(rf"{_OF_ALLOCATION.pattern}|poison|prep_new_page|rmqueue|get_page_from"),
        needs_stack=True,
    ),
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
            # a cgroup's own cache has the cgroup's name between brackets behind its own
            r"BUG [\w-]+(?:\(\S{1,200}\))? \((?:Not tainted|Tainted|[A-Z ]+)[^)]*\): "
            r"(?P<what>[A-Z][A-Za-z ]*?)(?= in \S| on __|[^A-Za-z ]|$)"
        ),
        "BUG: {what}",
        place=in_trace,
        skip=_OF_SLAB,
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
        in_trace,
        detail=re.compile(r"^(?!-{4})(?P<message>\S.*)"),
        then="kernel BUG at",
    ),
    # Rust up to 1.72 prints the message first, and on the same line
    Format(
        Kind.RUST_PANIC,
        "panicked at ",
        _re(r"rust_kernel: panicked at '(?P<message>.{1,400}?)', (?P<src>\S{1,300}?:\d+)\b"),
        "{message} in {func}",
        in_trace,
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
            # where a symboliser has put the source in place of the offset, that is behind it
            rf"(?P<func>{NAME})(?:{WHERE}{MODULE}|(?= \([\w./+~@,-]{{1,200}}\.(?:c|h|S|rs):\d))"
        ),
        "kernel panic: stack is corrupted in {func}",
        at_header,
        stackless=True,
    ),
    Format(
        Kind.STACK_OVERFLOW,
        "Kernel panic - ",
        _re(r"Kernel panic - not syncing: stack-protector:"),
        "kernel panic: stack is corrupted in {func}",
        in_trace,
        skip=re.compile(r"stack_chk"),
    ),
    Format(
        Kind.STACK_OVERFLOW,
        "Kernel panic - ",
        _re(r"Kernel panic - not syncing: corrupted stack end"),
        "kernel panic: corrupted stack end in {func}",
        in_trace,
        below_dispatcher,
        skip=re.compile(r"schedule|retint_kernel"),
    ),
    Format(
        Kind.STACK_OVERFLOW,
        "Kernel panic - ",
        _re(r"Kernel panic - not syncing: [Kk]ernel stack overflow"),
        "kernel stack overflow in {func}",
        in_trace,
        below_dispatcher,
        skip=re.compile(r"bad_stack"),
    ),
    Format(
        Kind.PANIC,
        "Kernel panic - ",
        _re(r"Kernel panic - not syncing: Attempted to kill init!"),
        "kernel panic: Attempted to kill init!",
        part=True,
        place=at_panic,
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
        _re(rf"Kernel panic - not syncing: (?P<rest>{DERIVED_PANIC})"),
        "kernel panic: {rest}",
        part=True,
        broken=True,
        place=at_panic,
    ),
    Format(
        Kind.PANIC,
        "Kernel panic - ",
        # the last line of a panic is its first one again, between brackets
        _re(r"Kernel panic - not syncing: (?P<rest>.+?)(?: \]-{3}\s*)?$"),
        "kernel panic: {rest}",
        part=True,
        place=at_panic,
    ),
    # the same up to 2.4
    Format(
        Kind.PANIC,
        "Kernel panic: ",
        re.compile(r"^Kernel panic: (?P<rest>[A-Z].+)"),
        "kernel panic: {rest}",
        part=True,
        stackless=True,
        loose=True,
    ),
    # What kernels print in these words and no entry above knows.
    Format(
        Kind.BUG,
        "BUG:",
        re.compile(r"^(?:\[ )?(?P<rest>BUG: \S.*)"),
        "{rest}",
        place=at_panic,
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
    # lib/fault-inject.c, fail_dump(); drivers/tty/sysrq.c: somebody has asked for those stacks
    Format(
        Kind.WARNING,
        "FAULT_INJECTION: ",
        _re(r"FAULT_INJECTION: forcing a failure"),
        "",
        silent=True,
    ),
    Format(Kind.WARNING, "sysrq: ", _re(r"sysrq: (?:SysRq : )?Show "), "", silent=True),
    Format(Kind.WARNING, "SysRq : ", re.compile(r"^SysRq : Show "), "", silent=True),
    *(
        Format(
            kind,
            has,
            re.compile(rf"^{pattern}"),
            f"{kind} in {{func}}" if site is not nowhere else str(kind),
            site,
            skip=_SKIPPED.get(kind),
            rest=True,
            broken=True,
            loose=kind is not Kind.PANIC,  # whose last lines have nothing of it below them
        )
        for kind, has, pattern, site in _REMAINS
    ),
    *_LOST_HEADERS,
    # lib/dump_stack.c, dump_stack_print_info(): a stack under no header. Somebody has called
    # dump_stack(), or what stood above it is lost.
    Format(
        Kind.WARNING,
        "omm: ",
        re.compile(r"^(?:CPU: \d+ (?:UID: \d+ )?PID: \d+ Comm: |Pid: \d+, comm: )"),
        "stack trace in {func}",
        in_trace,
        place=at_panic,
        needs_stack=True,
        loose=True,
        nameless=True,
    ),
    # The same where that line is lost, too, and where all that is left is the stack, or a part of
    # it: then it counts if the stack tells of what it is.
    *(
        Format(
            Kind.WARNING,
            has,
            re.compile(pattern),
            "stack trace in {func}",
            in_trace,
            place=in_trace,
            needs_stack=True,
            loose=True,
            nameless=True,
            rest=True,
        )
        for has, pattern in (
            (STACK_MARKS[0], r"^\s*Call [Tt]race:"),
            (STACK_MARKS[1], r"^\s*Backtrace: *$"),
            (A_CALL, r"^[ \[\]<>()?\w.$/-]{0,200}\+0x[0-9a-f]+/0x[0-9a-f]+(?:[ )]|$)"),
        )
    ),
)

# What a stack is of whose header is lost: who stands on it only to print that report.
_PRINTERS: tuple[tuple[Kind, str], ...] = (
    (Kind.UBSAN, r"__ubsan_handle_\w+|ubsan_epilogue"),
    (Kind.KASAN, r"_*kasan_report\w*|print_address_description"),
    (Kind.KMSAN, r"kmsan_report|__msan_warning"),
    (Kind.PAGE_ALLOCATION, r"warn_alloc\w*"),
    (Kind.OOM, r"oom_kill_process|dump_header|out_of_memory"),
    (Kind.BAD_PAGE, r"bad_page|print_bad_pte"),
    (Kind.SLAB, r"slab_err|object_err|print_trailer"),
    (Kind.HARD_LOCKUP, r"watchdog_overflow_callback|watchdog_hardlockup_check"),
    (Kind.LOCKDEP, r"print_\w+_bug(?:_header)?|lockdep_rcu_suspicious|print_irq_inversion_bug"),
    (Kind.ATOMIC_SLEEP, r"_*schedule_bug|_*might_sleep|_*might_resched"),
    (Kind.ATOMIC_SLEEP, r"debug_smp_processor_id|check_preemption_disabled"),
    (Kind.RCU_STALL, r"rcu_dump_cpu_stacks|print_cpu_stall|check_cpu_stall"),
    (Kind.SOFT_LOCKUP, r"watchdog_timer_fn"),
    (Kind.KOBJECT, r"sysfs_warn_dup"),
    (Kind.WARNING, r"warn_slowpath_\w+|__warn|report_bug|__report_bad_irq"),
    (Kind.PANIC, r"v?panic"),
    # arch/*/mm/fault.c and traps.c; on x86 these calls are on the stack as guesses
    (Kind.PAGE_FAULT, r"page_fault_oops|show_fault_oops|no_context|_*do_kernel_fault"),
    # arch/arm/kernel/entry-armv.S, arch/arm64/kernel/entry.S, up to 5.10: of the kernel's own mode
    (Kind.PAGE_FAULT, r"_*(?:dabt|pabt)_svc|el1_[di]a"),
    (Kind.GPF, r"(?:exc_|do_)?general_protection"),
    # arch/x86/kernel/traps.c: BUG() is the likeliest of what traps
    (Kind.BUG, r"do_(?:error_)?trap|(?:exc_|do_)?invalid_op"),
)
# And who checks what its caller does, and stops the kernel or warns where the registers were shown
_CHECKERS: tuple[tuple[Kind, str], ...] = (
    (Kind.BUG, r"_*fortify_panic|skb_(?:over_|under_)?panic"),
    (Kind.LIST_CORRUPTION, r"_*list_(?:add|del)\w*_valid\w*"),
    (Kind.REFCOUNT, r"refcount_warn_saturate"),
    (Kind.USERCOPY, r"usercopy_abort"),
)
_PRINTER = re.compile("|".join(f"({names})" for _, names in _PRINTERS))
# What a task sleeps in of which something shows the stack: most often because it hangs
_SLEEPS = re.compile(r"_*schedule(?:_timeout|_preempt_disabled)?|io_schedule(?:_timeout)?")
_OF_PRINTING = re.compile(rf"^(?:(?:{_PRINTER.pattern})$|_*schedule)")
# Calls; what is further down the stack has called others since. A task that dies of one fault, and
# then of another, has these between them.
_PRINTS_WITHIN = 8


def told_by(frames: list[Frame]) -> Kind | None:
    """Returns the kind of a report whose stack this is, if one of its innermost calls tells."""
    for frame in frames[:_PRINTS_WITHIN]:
        if match := _PRINTER.fullmatch(frame.function):
            return _PRINTERS[(match.lastindex or 1) - 1][0]
    return Kind.HUNG_TASK if frames and _SLEEPS.fullmatch(frames[0].function) else None


def told_at(frame: Frame | None) -> Kind | None:
    """Returns the kind of a report whose registers show the CPU there, if that tells."""
    for kind, names in _CHECKERS if frame else ():
        if frame and re.fullmatch(names, frame.function):
            return kind
    return None


def told_as(fmt: Format, kind: Kind) -> Format:
    """Returns how to read a stack that belongs to a report of that kind."""
    skip = _SKIPPED.get(kind, _OF_PRINTING)
    # The stack of a stall or lockup begins with the interrupt that noticed it.
    sites = {Kind.RCU_STALL: in_stall, Kind.SOFT_LOCKUP: in_stall, Kind.HARD_LOCKUP: below_nmi}
    sites |= dict.fromkeys((kind for kind, _ in _CHECKERS), at_pc)
    sites |= dict.fromkeys((Kind.PAGE_FAULT, Kind.GPF), at_exception)
    sites[Kind.WARNING] = at_warning_s_stack
    site = sites.get(kind, in_trace)
    sleeps = kind is Kind.ATOMIC_SLEEP
    return replace(fmt, kind=kind, site=site, place=None, skip=skip, sleeps=sleeps)


# Not in FORMATS, since one line alone does not tell whether a boot was expected.
REBOOT = Format(
    Kind.REBOOT,
    "Booting the kernel",
    # arch/x86/boot/compressed/misc.c, extract_kernel(): before the kernel's own console
    re.compile(r"(?:Decompressing Linux\.\.\. .{0,80})?Booting the kernel\b"),
    "unexpected kernel reboot",
    stackless=True,
)
BANNER = "Linux version "  # init/version.c, linux_banner: the kernel's own first line
# What follows there, a release and (builder@host), tells it from a sentence about a version.
BANNER_LINE = re.compile(rf"{BANNER}\d\S* \(\S+\)")
