# SPDX-License-Identifier: GPL-2.0-only
"""Whom reports blame that happened in a function which only does what its caller asked for.

The functions named brook do not exist; a module named ``[brook]`` is out of tree.
"""

from __future__ import annotations

import pytest

from harness import klog

WRITE = "brook_write"


def log(body: str) -> str:
    """Gives each line a console's stamp."""
    return "".join(f"[{12 + at / 1000:12.6f}] {line}\n" for at, line in enumerate(body.split("\n")))


FAULT = "BUG: unable to handle page fault for address: ffff888004d01000\nOops: 0000 [#1] SMP"
ARM_FAULT = (
    "Unable to handle kernel paging request at virtual address 81b144a8\n"
    "Internal error: Oops: 5 [#1] SMP ARM"
)


@pytest.mark.parametrize(
    "body",
    [
        # What works on the memory that it is given, in the architectures' own ways
        f"{ARM_FAULT}\npc : __arch_copy_to_user+0x1c/0x90\nCall trace:\n"
        " __arch_copy_to_user+0x1c/0x90\n brook_write+0x41/0xb0 [brook]",
        f"{ARM_FAULT}\npc : __pi_memcpy_generic+0x1c/0x90\nCall trace:\n"
        " __pi_memcpy_generic+0x1c/0x90\n brook_write+0x41/0xb0 [brook]",
        f"{ARM_FAULT}\nPC is at arm_copy_from_user+0x1c/0x90\n"
        "[<c0123456>] (arm_copy_from_user) from [<bf123456>] (brook_write+0x41/0xb0 [brook])",
        f"{FAULT}\nRIP: 0010:copy_user_enhanced_fast_string+0xe/0x30\nCall Trace:\n"
        " _copy_to_iter+0x41/0xb0\n brook_write+0x41/0xb0 [brook]",
        # A lock that does not exist
        f"{FAULT}\nRIP: 0010:_raw_spin_lock_irqsave+0x23/0x50\nCall Trace:\n"
        " brook_write+0x41/0xb0 [brook]",
        f"{FAULT}\nRIP: 0010:mutex_lock+0x1e/0x30\nCall Trace:\n brook_write+0x41/0xb0 [brook]",
        f"{FAULT}\nRIP: 0010:down_read+0x1e/0x30\nCall Trace:\n brook_write+0x41/0xb0 [brook]",
        # Memory that is freed twice
        "kernel BUG at mm/slub.c:305!\nRIP: 0010:__slab_free+0x23/0x50\nCall Trace:\n"
        " kfree+0x1/0x20\n brook_write+0x41/0xb0 [brook]",
        # What a watchdog calls to tell of it; between its calls somebody has left lines out
        "watchdog: BUG: soft lockup - CPU#2 stuck for 23s! [sh:321]\nCall Trace:\n"
        " panic+0x101/0x2d7\n watchdog_timer_fn+0xc/0x16\n brook_write+0x41/0xb0 [brook]",
        # Memory for a device
        "sh: page allocation failure: order:6, mode:0x10c0d0\nCall Trace:\n warn_alloc+0xd4/0x114\n"
        " __dma_alloc_buffer+0x2c/0xcc\n __alloc_remap_buffer+0x28/0xac\n"
        " hcd_buffer_alloc+0xd0/0x104\n brook_write+0x1b4/0x44c [brook]",
        # No stack, but where the helper would have returned to
        f"{ARM_FAULT}\nPC is at memcpy+0x1c/0x90\nLR is at brook_write+0x41/0xb0 [brook]",
        f"{ARM_FAULT}\nPC is at 0x0\nLR is at brook_write+0x41/0xb0 [brook]",
        "Unable to handle kernel paging request at virtual address 0000000b\n"
        "epc   : 80704fe4 strlen+0x54/0x138\nra    : 80708048 brook_write+0xb8/0x4e4",
        # What does not return is followed by another function's beginning
        "Kernel panic - not syncing: Asynchronous SError Interrupt\nCall trace:\n"
        " vpanic+0xf8/0x2dc\n brook_after_panic+0x0/0x4\n arm64_serror_panic+0x70/0x80\n"
        " do_serror+0x58/0x74\n el1h_64_error+0x70/0x74\n brook_write+0x98/0xb4 (P)",
        # A stack without the line that should be above it
        "BUG: soft lockup - CPU#1 stuck for 23s! [sh:321]\n brook_write+0x83/0xb0 [brook]\n"
        " vfs_write+0x26/0x50",
        # Who asks for memory where it must not
        "BUG: scheduling while atomic: sh/321/0x10000100\nCall Trace:\n dump_stack+0x16/0x18\n"
        " __schedule_bug+0x4e/0x5c\n __schedule+0x731/0x7c0\n __cond_resched+0x1b/0x30\n"
        " __kmalloc+0x165/0x1b0\n brook_write+0x41/0xb0 [brook]",
        "WARNING: CPU: 0 PID: 162 at kernel/dma/debug.c:1166 check_for_stack+0xc4/0x100\n"
        "Call Trace:\n debug_dma_map_page+0xd8/0xf8\n brook_write+0x41/0xb0 [brook]",
    ],
)  # fmt: skip
def test_whose_caller_is_to_blame(body: str) -> None:
    (event,) = klog.read(log(body), pasted=True)
    assert event.function == WRITE


def test_the_helper_itself_is_named_where_nothing_else_is_known() -> None:
    (event,) = klog.read(log(f"{ARM_FAULT}\nPC is at memcpy+0x1c/0x90"), pasted=True)
    assert event.function == "memcpy"


@pytest.mark.parametrize(
    "function", ["do_page_fault", "debug_dma_map_page"], ids=["exception", "check"]
)
def test_a_helper_in_the_header_is_named_where_the_stack_is_cut(function: str) -> None:
    report = (
        f"WARNING: CPU: 0 PID: 321 at kernel/brook.c:12 {function}+0x31/0xc2\nModules linked in:"
    )
    (event,) = klog.read(log(report), pasted=True)
    assert (event.kind, event.function) == (klog.Kind.WARNING, function)


def test_whoever_makes_a_device_is_blamed_for_its_name() -> None:
    report = (
        "WARNING: CPU: 0 PID: 321 at lib/kobject.c:240 kobject_add_internal+0x290/0x30c\n"
        "kobject_add_internal failed for brook0 with -EEXIST, don't try to register things with"
        " the same name in the same directory.\n"
        "CPU: 0 PID: 321 Comm: insmod Not tainted 4.7.10 #1\nCall Trace:\n"
        " kobject_add_internal+0x290/0x30c\n kobject_add+0x7c/0xb4\n device_add+0x118/0x53c\n"
        " device_create_groups_vargs+0x7c/0xc8\n device_create+0x28/0x48\n"
        " brook_write+0x41/0xb0 [brook]\n do_one_initcall+0x50/0x1a0"
    )
    (event,) = klog.read(log(report), pasted=True)
    assert (event.kind, event.function) == (klog.Kind.KOBJECT, WRITE)


def test_powerpc_s_registers_are_a_body_without_the_names_below_them() -> None:
    header = "Oops: Kernel access of bad area, sig: 11 [#1]\nLE SMP NR_CPUS=64 NUMA PowerNV\n"
    registers = (
        "NIP:  c000000000ac0ce8 LR: c00000000016314c CTR: c000000000ac0cd0\n"
        "REGS: c0000003fe493730 TRAP: 0380   Not tainted  (4.15.0)"
    )
    (event,) = klog.read(log(header + registers), pasted=True)
    assert event.kind is klog.Kind.PAGE_FAULT
    assert not list(klog.read(log(header + "and so on"), pasted=True))


SLEEPS = "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:585\n"
PREEMPTIBLE = "BUG: using smp_processor_id() in preemptible [00000000] code: sh/321\n"


@pytest.mark.parametrize(
    "report",
    [
        # no line above the stack
        f"{SLEEPS}in_atomic(): 1, irqs_disabled(): 0, pid: 321, name: sh\n"
        " [<c011efff>] __might_sleep+0xa3/0xab\n [<c0138175>] brook_write+0x41/0xb0 [brook]",
        # whoever sleeps here has been asked for memory
        f"{SLEEPS}Call Trace:\n __might_resched+0xa3/0xab\n __get_vm_area_node+0xcd/0x1b0\n"
        " __vmalloc_node_range+0x7b/0x420\n vzalloc+0x54/0x60\n brook_write+0x41/0xb0 [brook]",
        # the check names its caller, and the unwinder is sure of nothing
        f"{PREEMPTIBLE}caller is brook_write+0x41/0xb0 [brook]\nCall Trace:\n"
        " ? dump_stack+0x5c/0x7a\n ? debug_smp_processor_id+0xdd/0xe0",
        f"{PREEMPTIBLE}caller is brook_write (drivers/brook.c:12) brook\nCall Trace:\n"
        "dump_stack (lib/dump_stack.c:122)",
        f"{PREEMPTIBLE}caller is debug_smp_processor_id+0x17/0x20\nCall Trace:\n"
        " dump_stack+0x65/0x83\n brook_write+0x41/0xb0 [brook]",
    ],
    ids=["no-mark", "memory", "named", "decoded", "itself"],
)
def test_whoever_must_not_sleep_is_named(report: str) -> None:
    (event,) = klog.read(log(report), pasted=True)
    assert (event.kind, event.function) == (klog.Kind.ATOMIC_SLEEP, WRITE)


def test_the_slab_allocator_has_asked_for_the_pages_on_somebody_s_behalf() -> None:
    calls = ["__alloc_pages_nodemask", "kmem_getpages", "fallback_alloc", "cache_grow", WRITE]
    stack = "".join(f"\n ? {call}+0x1/0x20" for call in calls)
    report = f"sh: page allocation failure. order:1, mode:0x20\nCall Trace:{stack}"
    (event,) = klog.read(log(report), pasted=True)
    assert (event.kind, event.function) == (klog.Kind.PAGE_ALLOCATION, WRITE)


CRASH = """\
PID: 321    TASK: ffff883937660810  CPU: 44  COMMAND: "sh"
 #0 [ffff88209d5b10b8] __schedule at ffffffff81653d5a
 #1 [ffff88209d5b1150] schedule at ffffffff816542f9
 #2 [ffff88209d5b1200] mutex_lock at ffffffff816522d1
 #3 [ffff88209d5b1220] brook_write at ffffffffa0152a7e [brook]
 #4 [ffff88209d5b1280] vfs_write at ffffffff81152ba6"""


@pytest.mark.parametrize(
    "report",
    [
        # crash(8) shows no offsets
        f"INFO: task sh:321 blocked for more than 120 seconds.\n{CRASH}",
        # the real-time patch's locks
        "BUG: scheduling while atomic: sh/321/0x00000002\n schedule_rtlock+0x2c/0xd0\n"
        " rtlock_slowlock_locked+0x1c3/0x300\n rt_spin_lock+0x76/0xd0\n brook_write+0x99/0x260",
        # XFS warns of its assertions
        "WARNING: CPU: 1 PID: 321 at fs/xfs/xfs_message.c:104 assfail+0x4e/0x68 [xfs]\n"
        "Call Trace:\n assfail+0x52/0x68 [xfs]\n brook_write+0x5c2/0x5d0 [brook]",
    ],
)
def test_who_waits_or_complains_is_not_to_blame(report: str) -> None:
    (event,) = klog.read(log(report), pasted=True)
    assert event.function == WRITE


@pytest.mark.parametrize(
    ("report", "function"),
    [
        # a module of which an unwinder is not sure, before the kernel's own lock
        (
            "BUG: KASAN: slab-use-after-free in __mutex_lock+0x1ccd/0x25c0\nRead of size 4 at addr "
            "ff110001148d0034 by task sh/321\nCall Trace:\n kasan_report+0xe0/0x110\n"
            " __mutex_lock+0x1ccd/0x25c0\n ? brook_write+0x1c4/0x16a0 [brook]",
            WRITE,
        ),
        # the same, where nothing is left of the sure ones but how the task entered the kernel
        (
            f"{FAULT}\nCall Trace:\n ? brook_write+0x2c/0x30 [brook]\n do_syscall_64+0x57/0x190\n"
            " entry_SYSCALL_64_after_hwframe+0x44/0xa9",
            WRITE,
        ),
        # the header's, where the stack is cut off
        (
            "BUG: KASAN: slab-out-of-bounds in kmem_cache_alloc+0x48/0x3b8\n"
            "Read at addr fcff19f30000d91c by task sh/321",
            "kmem_cache_alloc",
        ),
        # who holds a lock, and so must not sleep
        (
            f"{SLEEPS}in_atomic(): 1, irqs_disabled(): 0, pid: 321, name: sh\n1 lock held by sh:\n"
            " #0:  (&(&brook->lock)->rlock){+.+...}, at: [<ffffffffa017df44>]"
            " brook_write+0x24/0xd0 [brook]",
            WRITE,
        ),
        # who has the object
        (
            "BUG kmalloc-256 (Not tainted): Poison overwritten\n"
            "INFO: Allocated in brook_write+0xb6/0x170 [brook] age=6 cpu=26 pid=0\n"
            "INFO: Freed in krealloc+0x77/0xb0 age=6 cpu=26 pid=0",
            WRITE,
        ),
        (
            "BUG kmalloc-256 (Not tainted): Poison overwritten\n"
            "INFO: Allocated in krealloc+0x77/0xb0 age=6 cpu=26 pid=0",
            "krealloc",
        ),
    ],
)
def test_somebody_is_named_where_no_rule_names_anybody(report: str, function: str) -> None:
    (event,) = klog.read(log(report), pasted=True)
    assert event.function == function
