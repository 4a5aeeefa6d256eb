# SPDX-License-Identifier: GPL-2.0-only
"""Whom a report blames: which of its calls to look at, and which of these only help others."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from typing import Protocol

from harness.klog.frames import Frame, Item, Tag, is_inlined, named_caller, plain_name


class Calls(Protocol):
    """A report whose lines were taken apart."""

    @property
    def items(self) -> list[Item]:
        """What each of its lines is."""

    @property
    def has_stack(self) -> bool:
        """Whether a call is among them."""

    def header_frames(self) -> list[Frame]:
        """The function that the header (or the detail) names."""


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
REPORTING = re.compile("|".join(patterns for _, patterns in _HELPER_GROUPS[:3]))
"""Those which are on the stack only because there is a report to make."""


@functools.cache
def _at_start(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(f"_*(?:{pattern.pattern})")


def is_in(pattern: re.Pattern[str], frame: Frame) -> bool:
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


Pick = Callable[[list[Frame]], tuple[str, Frame] | None]


def innermost(frames: list[Frame]) -> tuple[str, Frame] | None:
    return (_titled(frames[0].function), frames[0]) if frames else None


def below_dispatcher(frames: list[Frame]) -> tuple[str, Frame] | None:
    for inner, frame in zip([*frames[:1], *frames], frames, strict=False):
        name = _titled(frame.function)
        if "smp_call_function" in name:
            return "smp_call_function", frame  # whatever variant: it waits for another CPU
        if _DISPATCHERS.search(name):
            return _titled(inner.function), inner
    return None


def not_waiting(frames: list[Frame]) -> tuple[str, Frame] | None:
    for frame in frames:
        if shared := _SHARED_WAIT.search(frame.function):
            return (_titled(frame.function) if shared[1] else "synchronize_rcu"), frame
    for frame in frames:
        if not is_in(_WAITS, frame):
            return _titled(frame.function), frame
    return None


# Where in a report to look. Each function gives the frames to choose from, innermost first.
Site = Callable[["Calls"], list[Frame]]


def stack_from(items: list[Item], start: int = 0, *, marked: bool = True) -> list[Frame]:
    """Returns the first stack at or after ``start``; ``marked``: one under a "Call Trace:"."""
    frames: list[Frame] = []
    inside = not marked
    for item in items[start:]:
        if item.tag is Tag.FRAME and inside and item.frame:
            frames.append(item.frame)
        elif item.tag in (Tag.TRACE, Tag.OTHER):
            if frames:
                break
            inside = item.tag is Tag.TRACE
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


def find(items: list[Item], tag: Tag, start: int = 0) -> int | None:
    return next((at for at in range(start, len(items)) if items[at].tag is tag), None)


def nowhere(_report: Calls) -> list[Frame]:
    return []


def in_header(report: Calls) -> list[Frame]:
    return report.header_frames()


def in_trace(report: Calls) -> list[Frame]:
    return stack_from(report.items)


def at_caller(report: Calls) -> list[Frame]:
    """The call that a line of its own names above the stack, then the stack."""
    named = (named_caller(item.text) for item in report.items)
    first = next((frame for frame in named if frame), None)
    return [*([first] if first else []), *stack_from(report.items)]


def at_pc(report: Calls) -> list[Frame]:
    """The instruction pointer, then the stack."""
    at = find(report.items, Tag.PC)
    if at is None:
        return stack_from(report.items)
    pc = report.items[at].frame
    # riscv prints registers and stack without a line between them.
    under = stack_from(report.items, at) or stack_from(report.items, at, marked=False)
    return [*([pc] if pc else []), *under]


def leading_guesses(items: list[Item]) -> list[Frame]:
    """The guesses above the first call that is sure: what an exception's own stack has left."""
    above = itertools.takewhile(lambda item: item.tag is not Tag.FRAME, items)
    return guesses(list(above))


_EXCEPTION_ENTRY = re.compile(r"asm_exc_\w+")


def _below_entry(report: Calls) -> list[Frame]:
    """What x86 shows below the entry of the exception, which WARN() raises, too."""
    guessed = leading_guesses(report.items)
    entries = [at for at, f in enumerate(guessed, 1) if _EXCEPTION_ENTRY.fullmatch(f.function)]
    if not entries or find(report.items, Tag.PC) is not None:
        return []
    return [*guessed[entries[-1] :], *stack_from(report.items)]


def at_exception(report: Calls) -> list[Frame]:
    """Where the CPU was, of a report whose head is lost, and maybe the registers with it."""
    return _below_entry(report) or at_pc(report)


def at_warning_s_stack(report: Calls) -> list[Frame]:
    """The stack of whoever warned, of a report whose head is lost."""
    return _below_entry(report) or at_panic(report)


def at_header(report: Calls) -> list[Frame]:
    """The function in the header, then the stack."""
    head = report.header_frames()
    return [*head, *stack_from(report.items)]


def at_header_plain(report: Calls) -> list[Frame]:
    """The function in the header, then the stack, which has no "Call Trace:" above it."""
    return [*report.header_frames(), *stack_from(report.items, marked=False)]


def in_origin(report: Calls) -> list[Frame]:
    """The stack right under the header; if it is all helpers, where the memory came from."""
    frames = stack_from(report.items, marked=False)
    for at, item in enumerate(report.items):
        if item.tag is Tag.OTHER and "created at" in item.text:
            frames += stack_from(report.items, at + 1, marked=False)
            break
    return frames


def at_warning(report: Calls) -> list[Frame]:
    """The function in the header, then what called it.

    Where WARN is a trap, the trap handler's own frames lie above the warning's on the stack; the
    header's function, or else the instruction pointer, says where those end. Of a header alone
    the trackers have nothing: its function may be a helper as well as not.
    """
    head = report.header_frames() if report.has_stack else []
    trace = stack_from(report.items)
    at = find(report.items, Tag.PC)
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
        silent = (Tag.TEXT, Tag.LINK)
        under = [item for item in report.items[at + 1 :] if item.tag not in silent]
        if under and under[0].tag is Tag.FRAME:
            return [*head, *stack_from(under, marked=False)]
    return [*head, *trace]


def in_stall(report: Calls) -> list[Frame]:
    """What the timer interrupt that noticed a stall interrupted; else where a CPU was.

    The interrupt's frames are missing where the unwinder took them for guesses, and where the
    CPU was asked by an NMI. Its registers stand above its stack then, and before the stacks of
    tasks: those are victims, a task that waits for its turn, the RCU threads. If there is nothing
    else, nothing says which code did not come to an end.
    """
    items = report.items
    return _after_timer(items) or _where_cpu_was(items) or _of_running_task(items)


def _of_running_task(items: list[Item]) -> list[Frame]:
    """The stack of the task that a stalled CPU runs: kernel/sched/core.c, dump_cpu_task().

    Architectures that cannot interrupt a CPU print it. A CPU that tells of its own stall has the
    interrupt's calls on it; those say nothing.
    """
    for at, item in enumerate(items):
        if item.text.startswith("Task dump for CPU "):
            stack = stack_from(items, at + 1)
            tells = any("rcu" in f.function or "update_process_times" in f.function for f in stack)
            ran = itertools.dropwhile(lambda f: _WAIT.fullmatch(f.function), stack)
            return [] if tells else list(ran)
    return []


def _where_cpu_was(items: list[Item]) -> list[Frame]:
    for at, item in enumerate(items):
        if item.tag is Tag.OTHER and item.text.lstrip().startswith("task:"):
            break
        if item.tag is Tag.PC and item.frame:
            return [item.frame, *stack_from(items, at + 1)]
    return []


# arch/x86/entry/entry_64.S: the second changes to the interrupts' stack, 5.8 to 5.11
_TIMER_ENTRY = re.compile(r"apic_timer_interrupt|\basm_call_(?:irq_)?on_stack")


def _after_timer(items: list[Item]) -> list[Frame]:
    entry = next(
        (
            at
            for at, item in enumerate(items)
            if item.tag is not Tag.GUESS and "apic_timer_interrupt" in item.text
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
        if item.tag is Tag.PC and item.frame:
            return [item.frame, *stack_from(items, at + 1, marked=False)]
        if item.tag is Tag.FRAME and _TIMER_ENTRY.search(item.text):
            start = at + 1
        elif item.tag in (Tag.FRAME, Tag.TRACE, Tag.OTHER):
            break
    return stack_from(items, start, marked=False)


def _after_irq_entry(items: list[Item]) -> list[Frame]:
    """The same on arm and arm64, whose interrupt entry is one for all interrupts."""
    last = ""
    for at, item in enumerate(items):
        if item.tag is Tag.FRAME and item.frame:
            last = item.frame.function
            if last == "el1h_64_irq":
                return stack_from(items, at + 1, marked=False)
        elif "Exception stack" in item.text and "irq" in last:
            return stack_from(items, at + 1, marked=False)
    return []


_NMI = re.compile(r"(?:end_repeat_|asm_exc_)?nmi(?:_restore)?")


def below_nmi(report: Calls) -> list[Frame]:
    """What the NMI that noticed a lockup interrupted: x86's entry is one of these."""
    frames = stack_from(report.items, marked=False)
    entries = [at for at, frame in enumerate(frames, 1) if _NMI.fullmatch(frame.function)]
    return frames[entries[-1] :] if entries else []


def first_lock(report: Calls) -> list[Frame]:
    """Where the first lock that the report names was taken."""
    return [i.frame for i in report.items if i.tag is Tag.LOCK and i.frame][:1]


def first_lock_or_below(report: Calls) -> list[Frame]:
    """The same, then what called it: where locks are not inlined, it is the lock function."""
    locks = first_lock(report)
    trace = stack_from(report.items)
    for name in [lock.function for lock in locks]:
        for below, frame in enumerate(trace, 1):
            if frame.function == name:
                return [*locks, *trace[below:]]
    return locks


def trace_or_lock(report: Calls) -> list[Frame]:
    """The stack; where the report is cut before it, where the lock was taken."""
    return stack_from(report.items) or first_lock(report)


def both_locks(report: Calls) -> list[Frame]:
    """Where the lock is wanted, where the held one was taken, then the stack."""
    locks = [i.frame for i in report.items if i.tag is Tag.LOCK and i.frame][:2]
    return [*locks, *(stack_from(report.items) if locks else [])]


def became_unsafe(report: Calls) -> list[Frame]:
    """The stack on which a lock got its irq state; else where the lock is wanted."""
    for at, item in enumerate(report.items):
        if item.tag is Tag.OTHER and "which became" in item.text:
            return stack_from(report.items, at + 1, marked=False)
    return first_lock(report)


def at_release(report: Calls) -> list[Frame]:
    """The unlocking call, which stands alone above the stack."""
    stop = find(report.items, Tag.TRACE)
    early = [i.frame for i in report.items[:stop] if i.tag is Tag.FRAME and i.frame]
    return [*[f for f in early if not is_inlined(f)][:1], *stack_from(report.items)]


# kernel/irq/spurious.c, __report_bad_irq(): "[<addr>] handler [mod]" and, for a handler that has a
# thread, "[<addr>] irq_default_primary_handler threaded [<addr>] thread_fn [mod]".
_HANDLER = re.compile(
    r"\[<(?:0x)?[0-9a-f]+>\] (?:irq_default_primary_handler threaded \[<(?:0x)?[0-9a-f]+>\] )?"
    r"(?P<func>[A-Za-z_]\w*) \[(?P<mod>\w+)\]"
)


def of_handlers(report: Calls) -> list[Frame]:
    """The first handler of a module that an interrupt has, which did not answer it.

    The stack is that of whatever was interrupted. Of the kernel's own handlers none is named: most
    lines are shared, and any of the devices on it may be the one that is not served.
    """
    found = [match for item in report.items if (match := _HANDLER.match(item.text))]
    return [Frame(plain_name(match["func"]), module=match["mod"]) for match in found[:1]]


def in_dev_watchdog(report: Calls) -> list[Frame]:
    """dev_watchdog() where the stack shows it: a stack without it is that of another report."""
    return [frame for frame in stack_from(report.items) if frame.function == "dev_watchdog"]


def at_page_origin(report: Calls) -> list[Frame]:
    """Who allocated the page (CONFIG_PAGE_OWNER): who frees it says nothing about the cause."""
    for at, item in enumerate(report.items):
        if item.tag is Tag.OTHER and "page last allocated" in item.text:
            return stack_from(report.items, at + 1, marked=False)
    return []


# Where a report happened, as a person would name it: the function in which the CPU was, or which
# called the one that complains. Titles follow the trackers' rules above instead. Those leave out
# more functions and look further down the stack, for what two reports of one bug have in common.
#
# Only functions that do what their caller asked for, with what it gave them, are left out here. A
# name must match as a whole: "prefetch_freepointer" is no helper because "pointer" is one.

_MESSENGERS: tuple[tuple[str, str], ...] = (
    (
        # kernel/panic.c, kernel/watchdog*.c, lib/dump_stack.c, lib/nmi_backtrace.c,
        # arch/*/kernel/{dumpstack,stacktrace,traps}.c
        "prints the report",
        r"dump_stack\w*|show_stack|show_regs|show_trace\w*|dump_backtrace|unwind_backtrace|walk_stackframe"
        r"|dump_header|warn|warn_printk|warn_slowpath\w*|warn_alloc|report_bug|fixup_bug|handle_bug"
        r"|v?panic|nmi_panic|die|die_\w+|oops_\w+|print_\w*report|stack_trace_save\w*|save_stack\w*"
        r"|arch_stack_walk|kernel_text_address|dump_trace|print_trace\w*|report_bad_irq|note_interrupt"
        r"|watchdog_(?:timer_fn|overflow_callback|hardlockup_check)|nmi_\w*backtrace"
        r"|end_report|abort|add_taint|bad_page|print_bad_pte|(?:machine|crash)_kexec\w*"
        # fs/xfs/xfs_error.c and xfs_message.c; OpenZFS's module/os/linux/spl/spl-err.c
        r"|xfs_(?:error_report|corruption_error|stack_trace)|ass(?:fail|warn)|spl_(?:dumpstack|panic|debug_\w+)"
        r"|v?cmn_err|zfs_panic_recover",
    ),
    (
        # arch/*/mm/fault.c, arch/*/kernel/{traps,entry}*: how a CPU's exception gets there
        "takes the exception",
        r"(?:asm_)?exc_\w+|do_(?:trap|error_trap|invalid_op|general_protection|page_fault|int3"
        r"|divide_error|nmi|user_addr_fault|kern_addr_fault|double_fault)\w*|invalid_op|page_fault"
        r"|general_protection|error_entry|el1h?_\w+|do_(?:mem_abort|translation_fault"
        r"|kernel_fault|bad_area|DataAbort|PrefetchAbort|undefinstr|undef|serror)|program_check\w*"
        r"|arm64_(?:serror_panic|is_fatal_ras_serror)"
        r"|(?:irq|dabt|und|pabt)_svc|ret_from_exception|handle_exception|bad_area\w*|no_context"
        r"|(?:asm_)?sysvec_\w+|common_interrupt\w*|apic_timer_interrupt|handle_interruption",
    ),
    (
        # arch/*/entry, arch/*/kernel/{entry,syscall}*, kernel/kthread.c: the outermost calls
        "lets others begin",
        r"do_(?:fast_)?syscall_(?:64|32\w*)|(?:x64|ia32)_sys_call|entry_(?:SYSCALL|SYSENTER|INT80)\w*"
        r"|system_call\w*|sysenter_\w+|sys_call_table\w*|el0t?_(?:svc|sync|64|32|ia32)\w*"
        r"|invoke_syscall\w*|ret_(?:fast_syscall|from_(?:fork|kernel_thread|syscall)\w*)"
        r"|kthread|kernel_thread_(?:helper|starter)|child_rip|start_(?:secondary|kernel)"
        r"|secondary_start\w+",
    ),
    (
        # mm/kasan, mm/kfence, mm/kmsan, kernel/kcsan, lib/ubsan.c
        "belongs to a sanitizer",
        r"(?:kasan|kfence|kmsan|kcsan|ubsan|asan|hwasan|msan|tsan|sanitizer)_\w+"
        r"|check_memory_region\w*",
    ),
    (
        # lib/string.c, lib/vsprintf.c, arch/*/lib: whoever called has given the wrong pointer
        "works on whatever memory it is given",
        r"mem(?:cpy|set|move|cmp|chr|scan|zero)\w*|(?:v?s?c?n?printf|printk)|str(?:n?len|n?cpy|n?cmp"
        r"|n?cat|chr|rchr|scpy|lcpy|lcat|n?str|n?dup|case?cmp)\w*|string(?:_nocheck)?|vsnprintf"
        r"|copy_(?:to|from|in|tofrom)_user\w*|copy_user_\w+|rep_(?:movs|stos)\w*"
        r"|copy_(?:to|from)_iter\w*|copy_(?:page|folio)_(?:to|from)_iter\w*|scalar_usercopy\w*"
        r"|clear_user\w*|(?:get|put)_user\w*|csum_partial\w*|crc(?:16|32)\w*|do_csum|ip_fast_csum",
    ),
    (
        # lib/list_debug.c, lib/refcount.c, include/linux/atomic
        "works on whatever list or counter it is given",
        r"list_(?:add|del)\w*valid\w*|list_(?:add|del|del_init|del_entry)|refcount_\w+|kref_\w+"
        r"|(?:raw_|arch_)?atomic(?:64|_long)?_\w+|(?:arch_)?(?:test_and_)?(?:set|clear|change|test)_bit",
    ),
    (
        # mm/usercopy.c, lib/debugobjects.c, mm/slub.c, kernel/locking/spinlock_debug.c,
        # kernel/dma/debug.c check_unmap() and the calls above it, lib/smp_processor_id.c,
        # kernel/sched/core.c __might_sleep(), include/linux/log2.h
        # __roundup_pow_of_two(), lib/dynamic_queue_limits.c dql_completed(), net/core/skbuff.c
        # skb_panic()
        "checks its caller",
        r"usercopy_\w+|check_(?:heap_object|object_size|unmap|sync|bytes_and_report|object|slab"
        r"|for_stack|for_illegal_area|sg_segment)\w*"
        r"|fortify_\w+|debug_print_object|debug_object_\w+|debug_check_no_obj_freed|object_err"
        r"|slab_err|slab_fix|spin_(?:dump|bug)|do_raw_(?:spin|read|write)_\w+|roundup_pow_of_two"
        r"|check_preemption_disabled|debug_smp_processor_id|might_sleep|dql_completed|skb_(?:under|over)?_?panic|debug_dma_\w+|dma_(?:map|unmap|free|sync)_\w+",
    ),
    (
        # rust/kernel/lib.rs, panic(); library/core/src/panicking.rs
        "is the way of Rust's panics",
        r"rust_begin_unwind|rust_helper_BUG|(?:core::panicking|core::result|core::option)::\S+",
    ),
)
# The kernel's parts in assembly have their architecture, or where they run from, before the name.
_MESSENGER = re.compile(
    "_*(?:(?:arch|arm|pi|raw|fallback)_+)?(?:"
    + "|".join(words for _, words in _MESSENGERS)
    + r")(?:\.\w+)*"
)
# The first four of them: who is there in any report, not who helps whoever calls.
_MESSENGER_OF_REPORT = re.compile(
    "_*(?:" + "|".join(words for _, words in _MESSENGERS[:4]) + r")(?:\.\w+)*"
)

# kernel/sched, kernel/locking, mm/filemap.c: a task that hangs sleeps in one of these; cv_wait()
# and taskq_wait() are those of ZFS's portability layer.
_WAIT = re.compile(
    r"_*(?:(?:io_)?schedule\w*|context_switch|switch_to\w*|(?:rt_|ww_)?mutex_\w+|rwsem_\w+"
    r"|(?:rwbase|rt_spin|rt_read|rt_write|rtlock)_\w+|call_rwsem\w*|percpu_(?:down|rwsem)\w*|down\w*"
    r"|(?:do_)?wait_for_com\w+|wait_on_(?:bit|page|buffer)\w*|out_of_line_wait\w*|bit_wait\w*"
    r"|folio_(?:wait|lock)\w*|(?:lock|wait_on|sleep_on)_page\w*|wait_event\w*|wait_woken|cv_\w+"
    r"|spl_cv\w*|taskq_wait\w*|preempt_schedule\w*|(?:cond|might|need|should)_resched\w*"
    r"|(?:dequeue|deactivate)_task\w*|raw_spin_\w+|get_signal|do_nanosleep)(?:\.\w+)*"
)
# These wait for somebody else, too, but are themselves what is to be known, unless a module has
# called them: kernel/rcu, kernel/workqueue.c, kernel/kthread.c, net/core/rtnetlink.c.
_WAIT_OF_MODULES = re.compile(
    r"_*(?:synchronize_\w+|s?rcu_barrier\w*|wait_rcu_gp|kthread_(?:stop|park)\w*|rtnl_lock\w*"
    r"|flush_(?:work|delayed_work|workqueue|scheduled)\w*|cancel_\w*work_sync|del_timer_sync"
    r"|(?:m|u|f)sleep\w*|usleep_range\w*|wait_rcu\w*)(?:\.\w+)*"
)


# mm/slub.c, mm/page_alloc.c: who must not sleep has asked them for memory that they may wait for.
_ALLOCATES = re.compile(
    r"_*(?:k?v?[mzc]alloc\w*|kmem_cache_alloc\w*|kmalloc\w*|slab_\w*alloc\w*|slab_pre_alloc\w*"
    r"|alloc_pages?\w*|get_free_pages?|might_alloc|vz?alloc\w*|vmalloc_node\w*"
    r"|get_vm_area\w*)(?:\.\w+)*"
)
# kernel/locking: a fault in one of these is that of a lock which does not exist.
_LOCKS = re.compile(
    r"_*(?:raw_|rt_|ww_|native_|pv_)*_*(?:(?:ticket|queued|mutex)_?)?"
    r"(?:spin_|read_|write_)?(?:mutex_)?(?:try|un)?lock(?:_(?:irq|bh|nested|slowpath|fastpath|common"
    r"|killable|interruptible|acquire|release|sock)\w*)?(?:\.\w+)*"
    r"|_*(?:down|up)(?:_(?:read|write|interruptible|killable|trylock|timeout)\w*)?(?:\.\w+)*"
)


def place(
    report: Calls, site: Site, skip: re.Pattern[str] | None, *, faulted: bool = False
) -> Frame | None:
    """Where a report happened: the innermost function that is no messenger.

    Of one that only helps, the caller is where the link register points, if there is no stack.
    ``faulted``: what a lock's own function does with a wrong address is its caller's, too.
    """
    frames = known_calls(report, site)
    link = next((i.frame for i in report.items if i.tag is Tag.LINK and i.frame), None)
    if link is not None and find(report.items, Tag.FRAME) is None and site is at_pc:
        frames = [*frames, link]
    for frame in frames:
        if _MESSENGER.fullmatch(frame.function) or (skip is not None and is_in(skip, frame)):
            continue
        if not (faulted and not frame.module and _LOCKS.fullmatch(frame.function)):
            return frame
    # There may be nothing but the helper in which the CPU was.
    at = find(report.items, Tag.PC) if site is at_pc else None
    return report.items[at].frame if at is not None else None


def asker(frames: list[Frame], *, atomic: bool) -> Frame | None:
    """Returns the innermost call that does more than others have asked it to.

    ``atomic``: it must not sleep, and so must not have asked for memory either.
    """
    for frame in frames:
        if is_in(HELPERS, frame) or _MESSENGER.fullmatch(frame.function):
            continue
        if not (atomic and _ALLOCATES.fullmatch(frame.function)):
            return frame
    return None


def waiting_place(report: Calls, site: Site, *, atomic: bool = False) -> Frame | None:
    """What a task waits for that hangs or must not wait: the innermost that does more than wait.

    ``atomic``: it must not, and so must not have asked for memory.
    """
    frames = known_calls(report, site)
    by_module = any(frame.module for frame in frames if not _WAIT.fullmatch(frame.function))
    for frame in frames:
        if _WAIT.fullmatch(frame.function) or _MESSENGER.fullmatch(frame.function):
            continue
        if by_module and not frame.module and _WAIT_OF_MODULES.fullmatch(frame.function):
            continue
        if atomic and _ALLOCATES.fullmatch(frame.function):
            continue
        return frame
    return None


def known_calls(report: Calls, site: Site) -> list[Frame]:
    """The calls to choose from; where an unwinder is sure of none, its guesses.

    A stack is one without the line above it, too: whoever has cut the log may have left that out.
    """
    head = report.header_frames()
    items = report.items
    found = site(report)
    if not found and find(items, Tag.TRACE) is None:
        found = stack_from(items, marked=False)
    if found and all(frame.offset is None for frame in found):
        return found  # crash(8) shows none
    # What follows a call that does not return is another function's beginning, and no call's.
    frames = [
        frame
        for at, frame in enumerate(found)
        if (frame.offset is not None and (frame.offset or (at == 0 and not _after_end(found))))
        or frame.location is not None
        # arm's innermost, which is in no line the one that calls
        or (at == 0 and frame.offset is None)
        or frame in head
    ]
    if frames:
        return frames
    return guesses(items)


def _after_end(frames: list[Frame]) -> bool:
    """Whether the innermost call is none, but what lies behind one that does not return."""
    return len(frames) > 1 and _MESSENGER.fullmatch(frames[1].function) is not None


def last_resort(report: Calls, site: Site, skip: re.Pattern[str] | None) -> Frame | None:
    """Whom to name where all calls only help somebody: there a log is cut, or whom is not known.

    The innermost that does not print the report. Where there is none, or its format leaves those
    out as well, what an unwinder has guessed of a module, then the outermost: it is the nearest to
    who is missing.
    """
    found = [
        frame
        for frame in known_calls(report, site)
        if not (REPORTING.search(frame.function) or _MESSENGER_OF_REPORT.fullmatch(frame.function))
    ]
    for frame in found:
        if skip is None or not is_in(skip, frame):
            return frame
    asked = [frame for frame in found if not _MESSENGER.fullmatch(frame.function)]
    wanted = asked or not found
    of_modules = [frame for frame in guesses(report.items) if frame.module] if wanted else []
    return next(iter([*of_modules, *asked[-1:]]), None)


def nearest(report: Calls) -> Frame | None:
    """Whom to name where no rule has found anybody: a helper is a better hint than nobody.

    A call of a module's that an unwinder has guessed, the header's function, where the CPU was,
    who has the object that it is about, where the last lock was taken, the innermost call.
    """
    items = report.items
    at = find(items, Tag.PC)
    locks = [item.frame for item in items if item.tag is Tag.LOCK]
    owners = [item.frame for item in items if item.tag is Tag.OTHER and item.frame]
    calls = [*stack_from(items), *stack_from(items, marked=False), *guesses(items)]
    found = (
        *(frame for frame in guesses(items) if frame.module),
        *report.header_frames(),
        items[at].frame if at is not None else None,
        *(frame for frame in owners if not is_in(HELPERS, frame)),
        *locks[-1:],
        *(frame for frame in calls if not _MESSENGER_OF_REPORT.fullmatch(frame.function)),
        *owners,
    )
    return next((frame for frame in found if frame), None)


def guesses(items: list[Item]) -> list[Frame]:
    """The calls of which an unwinder is not sure, without those that are surely none."""
    # Other tasks' stacks are below such a line.
    own = itertools.takewhile(lambda item: "kthread stack dump" not in item.text, items)
    return [
        item.frame
        for item in own
        if item.tag is Tag.GUESS and item.frame and item.frame.offset not in (0, item.frame.size)
    ]


def at_warning_s_header(report: Calls) -> list[Frame]:
    """As :func:`at_warning`, but the header counts where the stack is cut, too."""
    return at_warning(report) or [*report.header_frames(), *stack_from(report.items)]


def at_panic(report: Calls) -> list[Frame]:
    """The stack of whoever called panic(); below registers, the function in which the CPU was.

    Registers under the stack are those of what an interrupt came upon.
    """
    pc, frame = find(report.items, Tag.PC), find(report.items, Tag.FRAME)
    if pc is not None and (frame is None or pc < frame):
        return at_pc(report)
    return stack_from(report.items)
