# SPDX-License-Identifier: GPL-2.0-only
"""One report in each of the less usual formats, as the kernel's sources print them.

The functions in them do not exist; a module named ``[brook]`` is out of tree.
"""

from __future__ import annotations

import pytest

from harness import klog
from harness.klog import Kind

STACK = """\
CPU: 1 PID: 321 Comm: sh Not tainted 6.1.0 #1
Call Trace:
 dump_stack+0x44/0x60
 brook_write+0x41/0xb0 [brook]
 vfs_write+0xb5/0x3d0"""

X86 = """\
CPU: 1 PID: 321 Comm: sh Not tainted 6.1.0 #1
RIP: 0010:brook_drain+0x1c/0x90 [brook]
Call Trace:
 brook_write+0x41/0xb0 [brook]
 vfs_write+0xb5/0x3d0"""

ARM64 = """\
CPU: 1 PID: 321 Comm: sh Not tainted 6.1.0 #1
pc : brook_drain+0x1c/0x90 [brook]
lr : brook_write+0x41/0xb0 [brook]
Call trace:
 brook_drain+0x1c/0x90 [brook]
 brook_write+0x41/0xb0 [brook]"""

OF_2_4 = """\
Oops: 0002
CPU:    0
EIP:    0010:[<c881a0b4>]    Not tainted
EFLAGS: 00010246
Process sh (pid: 12, stackpage=c7f1d000)
Call Trace:    [<c0117e3e>] [<c881a060>]

"""

XMON = """\
    pc: c000000000022148: brook_drain+0x1c/0x90
    lr: c00000000004e1d4: brook_write+0x4c/0x70
    sp: c00000000111fa50"""

OLD_X86_64 = """\
CPU 0
Pid: 321, comm: sh Not tainted 2.6.18 #1
RIP: 0010:[<ffffffff8812a01c>]  [<ffffffff8812a01c>] :brook:brook_drain+0x1c/0x90
RSP: 0018:ffff81000812fe18  EFLAGS: 00010246
Call Trace:
 [<ffffffff8812a11c>] :brook:brook_write+0x41/0xb0
 [<ffffffff8001659e>] vfs_write+0xce/0x174"""

DRAIN, WRITE = "brook_drain", "brook_write"
# without the line that says which task it was
BELOW = {body: body.split("\n", 1)[1] for body in (STACK, X86, ARM64)}

REPORTS = [
    # mips, whose first line is lost, without names
    (
        "Oops[#7]:\nCPU: 0 PID: 172 Comm: sh Tainted: G      D        3.18.29 #6\n"
        "$ 0   : 00000000 00000001\nepc   : 80041ed4 brook_drain+0x4/0xc",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # arm64's words before 5.8, and arm's lack of them
    (
        "Internal error: Accessing user space memory outside uaccess.h routines: 96000004 [#1]\n"
        f"{ARM64}",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    (f"Internal error: : 1008 [#1] SMP ARM\n{ARM64}", (Kind.PAGE_FAULT, DRAIN)),
    # BUG(), whose own line is lost, and an instruction that there is not
    (
        f"invalid opcode: 0000 [#1] SMP\n{X86}\nCode: 00 48 <0f> 0b 48 89",
        (Kind.BUG, DRAIN),
    ),
    (f"invalid opcode: 0000 [#1] SMP\n{X86}\nCode: 00 48 <ff> ff 48 89", (Kind.TRAP, DRAIN)),
    # what registers a disk for whoever has two of one name
    (
        "WARNING: at fs/sysfs/dir.c:491 sysfs_add_one+0xa0/0x100()\n"
        "sysfs: cannot create duplicate filename '/devices/virtual/block/brook'\n"
        "Pid: 321, comm: sh Not tainted 2.6.32 #1\nCall Trace:\n"
        " [<c014c3d2>] warn_slowpath_common+0x72/0xa0\n [<c025feb0>] sysfs_add_one+0xa0/0x100\n"
        " [<c025ffd0>] sysfs_create_dir+0x30/0x50\n [<c034c0bc>] kobject_add+0x2c/0x60\n"
        " [<c0257106>] register_disk+0x36/0x140\n [<c0340b85>] add_disk+0x85/0x150\n"
        " [<e3c8a2ca>] brook_drain+0x31a/0x380 [brook]",
        (Kind.WARNING, DRAIN),
    ),
    # the first words of hardened usercopy, and of a kernel that does not know where its BUG()s are
    (
        "Bad or missing usercopy whitelist? Kernel memory exposure attempt detected from SLUB"
        " object 'brook' (offset 4, size 4)!\nCall Trace:\n __check_heap_object+0xb7/0x120\n"
        " __check_object_size+0xdb/0x1b0\n brook_write+0x4c/0x80",
        (Kind.USERCOPY, WRITE),
    ),
    (
        "detected buffer overflow in strcpy\n------------[ cut here ]------------\n"
        "Kernel BUG at fortify_panic+0xf/0x20 [verbose debug info unavailable]\n"
        "invalid opcode: 0000 [#1] PREEMPT SMP PTI\nCall Trace:\n ? fortify_panic+0xf/0x20\n"
        " brook_write+0x561/0x570 [brook]",
        (Kind.BUG, WRITE),
    ),
    # a CPU that was interrupted, with the step to the interrupts' own stack
    (
        "rcu: INFO: rcu_preempt self-detected stall on CPU\nCall Trace:\n <IRQ>\n"
        " dump_stack+0x6b/0x83\n __sysvec_apic_timer_interrupt+0x5c/0xe0\n"
        " asm_call_irq_on_stack+0xf/0x20\n </IRQ>\n sysvec_apic_timer_interrupt+0x72/0x80\n"
        " asm_sysvec_apic_timer_interrupt+0x12/0x20\nRIP: 0010:brook_drain+0x21/0x60 [brook]\n"
        " brook_write+0x31/0x70 [brook]",
        (Kind.RCU_STALL, DRAIN),
    ),
    # a lock that a work item has taken twice, cut before the stack
    (
        "BUG: spinlock recursion on CPU#3, kworker/u17:0/2760\n"
        " lock: 0xefd81238, .magic: dead4ead, .owner: kworker/u17:0/2760, .owner_cpu: 0\n"
        "Workqueue: brook brook_drain [brook]",
        (Kind.LOCKDEP, DRAIN),
    ),
    # blanks that a page has put there
    (
        "WARNING: CPU: 1 PID: 2873 at lib/brook.c:601     brook_drain+0x198/0x210()\n"
        "Modules linked in: brook",
        (Kind.WARNING, DRAIN),
    ),
    # powerpc, where the log goes on
    (
        "Oops: Machine check, sig: 7 [#1]\nLE SMP NR_CPUS=2048\nsome driver: probed",
        (Kind.TRAP, None),
    ),
    # a CPU that is at a work item, without a call of that on its stack
    (
        "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-... } 6 jiffies\n"
        "Task dump for CPU 0:\ntask:kworker/u4:4    state:R  running task     stack:    0 pid:  3\n"
        "Workqueue: events_unbound brook_drain [brook]\nCall Trace:\n __schedule+0x246/0x5c0\n"
        " __cond_resched+0x33/0x50\n process_one_work+0x23c/0x3f0\n worker_thread+0x50/0x3e0",
        (Kind.RCU_STALL, DRAIN),
    ),
    # a kernel that does not know where its warnings are
    (
        "WARNING: CPU: 1 PID: 3031 at brook_drain+0x553/0x5c0 [brook]()   \n"
        "Modules linked in: brook\nCPU: 1 PID: 3031 Comm: sh Tainted: G",
        (Kind.WARNING, DRAIN),
    ),
    # a packet's memory, for which a driver has asked
    (
        "ntfs-3g: page allocation failure: order:0, mode:0x20\n"
        "[<c0014a70>] (unwind_backtrace) from [<c00907b0>] (warn_alloc_failed+0xc8/0x10c)\n"
        "[<c00907b0>] (warn_alloc_failed) from [<c0092ad4>] (__alloc_pages_nodemask+0x3e4/0x64c)\n"
        "[<c0092ad4>] (__alloc_pages_nodemask) from [<c02e785c>] (__netdev_alloc_frag+0x94/0x128)\n"
        "[<c02e785c>] (__netdev_alloc_frag) from [<c02ebb90>] (__netdev_alloc_skb+0x84/0xe0)\n"
        "[<c02ebb90>] (__netdev_alloc_skb) from [<c02683d8>] (brook_drain+0x1c/0x2c8)",
        (Kind.PAGE_ALLOCATION, DRAIN),
    ),
    # cut where only memory was asked for: by what is nearest to who did
    (
        "sh: page allocation failure: order:0, mode:0x20\nCall Trace:\n dump_stack+0x46/0x58\n"
        " warn_alloc+0xe2/0x150\n __alloc_pages+0x2f7/0x330\n __napi_alloc_skb+0x8f/0xf0",
        (Kind.PAGE_ALLOCATION, "__napi_alloc_skb"),
    ),
    # an unwinder's guess of a module there
    (
        "sh: page allocation failure: order:8, mode:0x204010\nCall Trace:\n dump_stack+0x46/0x58\n"
        " warn_alloc_failed+0xe2/0x150\n new_slab+0x2ee/0x300\n ? brook_drain+0xb0/0x1d0 [brook]\n"
        " kmem_cache_alloc+0xfb/0x130",
        (Kind.PAGE_ALLOCATION, DRAIN),
    ),
    # arm's DMA memory, which somebody else has asked for
    (
        "sh: page allocation failure: order:5, mode:0x20\n"
        "[<c00137c4>] (unwind_backtrace+0x0/0xe) from [<c008d9e0>] (warn_alloc_failed+0xf8/0x124)\n"
        "[<c008d9e0>] (warn_alloc_failed+0xf8/0x124) from [<c0013ebc>] (__dma_alloc+0xc0/0x314)\n"
        "[<c0013ebc>] (__dma_alloc+0xc0/0x314) from [<c00146a0>] (dma_alloc_coherent+0x54/0x60)\n"
        "[<c00146a0>] (dma_alloc_coherent+0x54/0x60) from [<bf508554>] (brook_drain+0x40/0x5c)",
        (Kind.PAGE_ALLOCATION, DRAIN),
    ),
    # arc: the first call is none, but what lies behind one that does not return
    (
        "usercopy: Kernel memory overwrite attempt detected to kernel text (offset 1, size 1)!\n"
        "usercopy: BUG: failure at mm/usercopy.c:99/usercopy_abort()!\ngcc __builtin_trap\n"
        "CPU: 0 PID: 84 Comm: init Not tainted 5.4.22\n\n[ERET ]: brook_next+0x0/0x470\n\n"
        "Stack Trace:\n  brook_next+0x0/0x470\n  usercopy_abort+0x8a/0x8c\n"
        "  __check_object_size+0x10e/0x138\n  brook_drain+0x1f4/0x38c\n  brook_write+0x41/0xb0",
        (Kind.USERCOPY, DRAIN),
    ),
    # whoever was given an identifier has lost it
    (
        "unreferenced object 0xffff880211e2aec0 (size 544):\n"
        '  comm "sh", pid 1377, jiffies 4294790842 (age 147359.137s)\n'
        "  backtrace:\n    [<ffffffff818b51d1>] kmemleak_alloc+0x21/0x50\n"
        "    [<ffffffff8117e4e3>] kmem_cache_alloc+0xd3/0x110\n"
        "    [<ffffffff813b9217>] idr_pre_get+0x67/0x90\n"
        "    [<ffffffff814a>] brook_drain+0x3d/0x100\n    [<ffffffff814d>] brook_write+0x6/0xd",
        (Kind.LEAK, DRAIN),
    ),
    # arc
    (
        "Oops\nPath: (null)\nCPU: 0 PID: 1 Comm: swapper Not tainted 5.6.0 #8\n"
        "Invalid Read @ 0x00000000 by insn @ brook_drain+0x1c/0x90\n"
        "ECR: 0x00050100 EFA: 0x00000000 ERET: 0x8067890e\n\nStack Trace:\n"
        "  brook_drain+0x1c/0x90\n  brook_write+0x41/0xb0",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # a cgroup's own cache
    (
        "BUG kmalloc-256(0:354604ddeb33593e) (Tainted: GF  E ): Objects remaining in kmalloc-256\n"
        "INFO: Slab 0xffffea0040768800 objects=64 used=33 fp=0xffff88101da23000",
        (Kind.SLAB, None),
    ),
    # x86-64 up to 2.6.16
    (
        "general protection fault: 0000 [1] SMP\nCPU 0\nPid: 321, comm: sh Not tainted 2.6.16 #1\n"
        "RIP: 0010:[<ffffffff882ea8ff>] <ffffffff882ea8ff>{:brook:brook_drain+28}\n"
        "RSP: 0018:ffff810007013ee8  EFLAGS: 00010202\n"
        "Call Trace:<ffffffff882ea9ff>{:brook:brook_write+65} <ffffffff8017659e>{vfs_write+207}",
        (Kind.GPF, DRAIN),
    ),
    # decoded, below a header that names only who was given the wrong address
    (
        "BUG: KASAN: slab-out-of-bounds in memcpy+0x39/0x60\n"
        "Write of size 140 at addr ffff888006843688 by task sh/321\nCall Trace:\n"
        "kasan_report (mm/kasan/report.c:504)\nmemcpy (mm/kasan/shadow.c:65)\n"
        "brook_write (drivers/brook.c:12)\nvfs_write (fs/read_write.c:589)",
        (Kind.KASAN, WRITE),
    ),
    # kernel/module/main.c, do_init_module()
    (
        "do_init_module: 'brook'->init suspiciously returned 5, it should follow 0/-E convention\n"
        "do_init_module: loading module anyway...\n"
        "CPU: 0 UID: 0 PID: 179 Comm: insmod Tainted: G           OE      6.12.1-amd64 #1\n"
        "Call Trace:\n <TASK>\n dump_stack_lvl+0x5d/0x80\n do_init_module+0x1b4/0x260\n"
        " __do_sys_init_module+0x17a/0x1b0\n do_syscall_64+0x82/0x190\n </TASK>",
        (Kind.WARNING, None),
    ),
    # a task's name may have a colon
    (
        f"kworker/1:2: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL)\n{STACK}",
        (Kind.PAGE_ALLOCATION, WRITE),
    ),
    # names that klogd and ksymoops have put there
    (
        "Unable to handle kernel paging request at virtual address c282deac\nOops: 0002 [#1]\n"
        "CPU:    0\nEIP:    0060:[brook_drain+28/144]    Not tainted VLI\nCall Trace:\n"
        " [brook_write+65/176] brook_write+0x41/0xb0\n [vfs_write+207/400] vfs_write+0xcf/0x190",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    (
        "Unable to handle kernel NULL pointer dereference at virtual address 00000008\n"
        "Oops: 0000\nEIP:    0010:[<c0129540>]\nCall Trace: [<c022ce6b>] [<c029b97d>]\n"
        "Code: 8b 56 08\n\n>>EIP; c0129540 <brook_drain+1c/90>   <=====\n"
        "Trace; c022ce6b <brook_write+41/b0>",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # sparc: who did what stands in one line, above the registers
    (
        "sh(321): Kernel illegal instruction [#1]\n"
        "TSTATE: 0000004411001607 TPC: 00000000101c21c0 TNPC: 00000000101c21c4 Y: 00000000\n"
        "TPC: <brook_drain+0x1c/0x90 [brook]>",
        (Kind.TRAP, DRAIN),
    ),
    (
        "NON-RESUMABLE ERROR: Reporting on cpu 3\n"
        "NON-RESUMABLE ERROR: TPC [0x00000000005f6900] <brook_drain+0x1c/0x90 [brook]>\n"
        "NON-RESUMABLE ERROR: type [precise nonresumable]",
        (Kind.TRAP, DRAIN),
    ),
    # m68k
    (
        "*** FORMAT ERROR ***   FORMAT=0\nCurrent process id is 321\nBAD KERNEL TRAP: 00000000\n"
        "Modules linked in: brook\nPC: [<00002af0>] brook_drain+0x1c/0x90 [brook]\nSR: 2204",
        (Kind.TRAP, DRAIN),
    ),
    # parisc, with words in brackets, and with the panic first
    (
        "Bad Address (null pointer deref?): Code=26 (Data memory access rights trap) at addr 0\n"
        "CPU: 0 PID: 321 Comm: sh Not tainted 5.6.0 #1\n IAOQ[0]: brook_drain+0x1c/0x90 [brook]",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    (
        "Kernel panic - not syncing: Bad Address (null pointer deref?)\n"
        "Bad Address (null pointer deref?): Code=26 (Data memory access rights trap) at addr 0\n"
        " IAOQ[0]: brook_drain+0x1c/0x90 [brook]\n IAOQ[1]: brook_drain+0x20/0x90 [brook]",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # powerpc's debugger between BUG()'s own line and the registers
    (
        f"kernel BUG at drivers/brook.c:12!\n"
        f"cpu 0x0: Vector: 700 (Program Check) at [c00000000111f7d0]\n{XMON}\n"
        "kernel BUG at drivers/brook.c:12!",
        (Kind.BUG, DRAIN),
    ),
    (
        f"cpu 0x0: Vector: 700 (Program Check) at [c00000000111f7d0]\n{XMON}\n"
        "kernel BUG in brook_drain at drivers/brook.c:12!",
        (Kind.BUG, DRAIN),
    ),
    (
        "cpu 0x0: Vector: 300 (Data Access) at [c00000000075b830]\n"
        "    pc: c000000000437470: .brook_drain+0x1c/0x90\n"
        "    lr: c0000000000f78a8: .brook_write+0x41/0xb0",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # s390: of an address that is no code's, the caller may only be a guess
    (
        "Unable to handle kernel pointer dereference in virtual kernel address space\n"
        "Oops: 0004 ilc:1 [#1] SMP\nKrnl PSW : 0704e00180000000 0000000000000000 (0x0)\n"
        "Call Trace:\n [<0000000000000000>] 0x0\n([<000001e12d421b6a>] brook_cut+0x4a/0xc0)\n"
        " [<000001e12d18ac16>] brook_write+0x41/0xb0 [brook]",
        (Kind.PAGE_FAULT, WRITE),
    ),
    # kernels up to 2.6.19
    (
        "Debug: sleeping function called from invalid context at include/linux/rwsem.h:43\n"
        "in_atomic():0, irqs_disabled():1\n [<c0116c69>] __might_sleep+0x28/0xe8\n"
        " [<c011773a>] brook_write+0x41/0xb0 [brook]",
        (Kind.ATOMIC_SLEEP, WRITE),
    ),
    # arch/*: faults and traps
    (
        f"Unable to handle kernel execution of user memory at virtual address 0000aaaadeadbeef\n"
        f"{ARM64}",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    (
        "Unable to handle kernel execution of memory at virtual address 81b144a8 when execute\n"
        "Internal error: Oops: 80000005 [#1] SMP ARM\nPC is at brook_drain+0x1c/0x90 [brook]",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    (
        f"Internal error: UBSAN: array index out of bounds: 00000000f2005512 [#1] SMP\n{ARM64}",
        (Kind.UBSAN, DRAIN),
    ),
    (f"Internal error: Oops - CFI: 00000000f2008228 [#1] SMP\n{ARM64}", (Kind.BUG, DRAIN)),
    (f"Oops: stack guard page: 0000 [#1] SMP NOPTI\n{X86}", (Kind.STACK_OVERFLOW, DRAIN)),
    (
        f"kernel stack overflow (double-fault): 0000 [#1] PREEMPT SMP\n{X86}",
        (Kind.STACK_OVERFLOW, DRAIN),
    ),
    (f"do_IRQ: stack overflow: 472\n{STACK}", (Kind.STACK_OVERFLOW, WRITE)),
    (
        "Kernel stack overflow.\nCPU: 0 PID: 32 Comm: sh Not tainted 5.17.0\n"
        "Krnl PSW : 0704d00180000000 00000000009e59e4 (brook_drain+0x464/0x5d0)",
        (Kind.STACK_OVERFLOW, DRAIN),
    ),
    (
        f"Kernel panic - not syncing: Kernel stack overflow\n{STACK}",
        (Kind.STACK_OVERFLOW, WRITE),
    ),
    (f"cpu 0x2: Vector: 300 (Data Access) at [c00000000111f7d0]\n{XMON}", (Kind.PAGE_FAULT, DRAIN)),
    (
        f"cpu 0x2: Vector: 700 (Program Check) at [c00000000111f7d0]\n{XMON}\n"
        "kernel BUG at drivers/brook.c:12!",
        (Kind.BUG, DRAIN),
    ),
    (
        "Unable to handle kernel NULL pointer dereference (address 0000000000000008)\n"
        "sh[321]: Oops 8813272891392 [1]\nPid: 321, CPU 0, comm: sh\n"
        "ip is at brook_drain+0x20/0x1c0 [brook]",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    (
        "Unable to handle kernel NULL pointer dereference at 0000000000000010 RIP: \n"
        f" [<ffffffff8812a01c>] :brook:brook_drain+0x1c/0x90\nOops: 0000 [1] SMP\n{OLD_X86_64}",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    (f"Oops: 0000 [1] SMP\n{OLD_X86_64}", (Kind.PAGE_FAULT, DRAIN)),
    (
        "traps: Missing ENDBR: brook_call+0x0/0x20 [brook]\n------------[ cut here ]------------\n"
        "kernel BUG at arch/x86/kernel/cet.c:102!\ninvalid opcode: 0000 [#1] SMP\n"
        "RIP: 0010:exc_control_protection+0xc2/0xd0\nCall Trace:\n"
        " asm_exc_control_protection+0x22/0x30",
        (Kind.BUG, "brook_call"),
    ),
    (
        "unchecked MSR access error: RDMSR from 0x1b0 at rIP: 0xffffffff8104e1d4"
        " (native_read_msr+0x4/0x10)\nCall Trace:\n brook_probe+0x10/0x40 [brook]",
        (Kind.WARNING, "brook_probe"),
    ),
    (
        "WARNING: kmemcheck: Caught 32-bit read from uninitialized memory (ffff88003f2ad000)\n"
        "RIP: 0010:[<ffffffff8104ede8>]  [<ffffffff8104ede8>] brook_drain+0x1c/0x90",
        (Kind.KMSAN, DRAIN),
    ),
    # kernel/
    ("INFO: RCU detected CPU 0 stall (t=1000 jiffies)", (Kind.RCU_STALL, None)),
    ("INFO: RCU detected CPU stalls: 0 2 (detected by 1, t=1002 jiffies)", (Kind.RCU_STALL, None)),
    (
        "Watchdog CPU:59 Hard LOCKUP\nNIP [c000000000022148] brook_drain+0x1c/0x90",
        (Kind.HARD_LOCKUP, DRAIN),
    ),
    (
        f"BUG: assuming atomic context at drivers/brook.c:12\nin_atomic(): 0, pid: 1\n{STACK}",
        (Kind.ATOMIC_SLEEP, WRITE),
    ),
    (
        "bad: scheduling from the idle thread!\nCall Trace:\n dequeue_task_idle+0x2c/0x40\n"
        " __schedule+0x1/0x2\n brook_open+0x41/0xb0 [brook]",
        (Kind.ATOMIC_SLEEP, "brook_open"),
    ),
    (
        "[ BUG: lock held at task exit time! ]\nsh/123 is exiting with locks still held!\n"
        " #0:  (&brook_lock){+.+.+.}, at: [<f8012345>] brook_open+0x12/0x90 [brook]",
        (Kind.LOCKDEP, "brook_open"),
    ),
    (
        "WARNING: bad contention detected!\nsh/123 is trying to contend lock (&brook_lock) at:\n"
        f"[<ffffffff81234567>] brook_open+0x12/0x90\nstack backtrace:\n{STACK}",
        (Kind.LOCKDEP, "brook_open"),
    ),
    # mm/
    ("mm/pgtable-generic.c:50: bad pmd ffff8000047b4000(0068000407b4d793)", (Kind.BAD_PAGE, None)),
    ("mm/memory.c:391: bad pmd 8040542e.", (Kind.BAD_PAGE, None)),
    (f"pagealloc: memory corruption\nffff8800: 00 00 00 00\n{STACK}", (Kind.BAD_PAGE, WRITE)),
    (
        f"kmem_cache_destroy brook_cache: Slab cache still has objects\n{STACK}",
        (Kind.SLAB, WRITE),
    ),
    (
        "usercopy: kernel memory exposure attempt detected from ffff8800 (kmalloc-32) (64 bytes)",
        (Kind.USERCOPY, None),
    ),
    ("__alloc_pages: 0-order allocation failed (gfp=0x20/0)", (Kind.PAGE_ALLOCATION, None)),
    # net/, OpenZFS
    (
        "skbuff: skb_over_panic: text:ffffffffc0a01234 len:1600 put:1600 head:ffff dev:eth0",
        (Kind.BUG, None),
    ),
    (
        "skbuff: skb_over_panic: text:ffffffffc0a01234 len:1600 put:1600 head:ffff dev:eth0\n"
        "------------[ cut here ]------------\nkernel BUG at net/core/skbuff.c:110!\n"
        f"RIP: 0010:skb_panic+0x4c/0x4e\nCall Trace:\n {DRAIN}+0x10/0x20 [brook]",
        (Kind.BUG, DRAIN),
    ),
    (
        "PANIC: blkptr at 00000000aabbccdd has invalid TYPE 101\nShowing stack for process 1234\n"
        "Call Trace:\n spl_dumpstack+0x29/0x2b [spl]\n vcmn_err.cold+0x60/0x81 [spl]\n"
        " zfs_panic_recover+0x6f/0x90 [zfs]\n brook_read+0x41/0xb0 [zfs]",
        (Kind.BUG, "brook_read"),
    ),
    (
        "SPLError: 1234:0:(brook.c:441:brook_read()) SPL PANIC\nShowing stack for process 1234\n"
        "Call Trace:\n [<ffffffffa0112345>] spl_debug_bug+0x81/0xe0 [spl]\n"
        " [<ffffffffa0212345>] brook_read+0x41/0xb0 [zfs]",
        (Kind.BUG, "brook_read"),
    ),
    ("SPLError: 1234:0:(brook.c:441:brook_read()) SPL PANIC", (Kind.BUG, "brook_read")),
    # a vendor's, with the address before the function
    (
        "WARNING: at /home/me/brook.c:1915 0x815300a0 brook_drain+0x480/0x560 [brook]()\n"
        "Modules linked in: brook(O)",
        (Kind.WARNING, DRAIN),
    ),
    ("Kernel panic: VFS: Unable to mount root fs on 00:00", (Kind.PANIC, None)),
    (
        "Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: brook_drain "
        "(./include/linux/brook.h:15 drivers/brook.c:57) brook\nCall Trace:\n"
        "panic (kernel/panic.c:372)",
        (Kind.STACK_OVERFLOW, DRAIN),
    ),
    # kernels up to 2.6, whose addresses klogd or ksymoops has named, or nobody
    (f"{OF_2_4}>>EIP; c881a0b4 <[brook]brook_drain+24/60>   <=====", (Kind.PAGE_FAULT, DRAIN)),
    (OF_2_4, (Kind.PAGE_FAULT, None)),
    (
        f"Unable to handle kernel paging request at virtual address 5a5a\n{OF_2_4}"
        "Trace; c0117e3e <sys_init_module+4ee/5e0>",
        (Kind.PAGE_FAULT, "sys_init_module"),
    ),
    ("invalid operand: 0000\nEIP:    0010:[<c881a0b4>]    Not tainted\n", (Kind.TRAP, None)),
    (
        "Oops: kernel access of bad area, sig: 11\nNIP: C9471C7C XER: 20000000 LR: C0018C74\n"
        "Process sh (pid: 12, stackpage=c0198000)",
        (Kind.PAGE_FAULT, None),
    ),
    (
        "Internal error: Oops: 817\nCPU: 0\npc : [<bf000064>]    lr : [<c001dd54>]\n"
        "Process sh (pid: 12, stackpage=c0198000)",
        (Kind.PAGE_FAULT, None),
    ),
    (
        "scheduling while atomic: sh/0x00000002/812\n [<c02e1234>] schedule+0x604/0x610\n"
        " [<f8a1b300>] brook_drain+0x40/0xa0 [brook]",
        (Kind.ATOMIC_SLEEP, DRAIN),
    ),
    (f"bad: scheduling while atomic!\n{STACK}", (Kind.ATOMIC_SLEEP, WRITE)),
    (
        f"Debug: sleeping function called from illegal context at mm/slab.c:12\n{STACK}",
        (Kind.ATOMIC_SLEEP, WRITE),
    ),
]


def log(body: str) -> str:
    """Gives each line a console's stamp."""
    return "".join(f"[{12 + at / 1000:12.6f}] {line}\n" for at, line in enumerate(body.split("\n")))


def read_of(body: str, *, pasted: bool) -> list[tuple[Kind, str | None]]:
    return [(event.kind, event.function) for event in klog.read(log(body), pasted=pasted)]


@pytest.mark.parametrize(("body", "expected"), REPORTS, ids=[body[:40] for body, _ in REPORTS])
@pytest.mark.parametrize("pasted", [False, True])
def test_a_report(body: str, expected: tuple[Kind, str | None], pasted: bool) -> None:
    assert read_of(body, pasted=pasted) == [expected]


LOCKS = " __mutex_lock_slowpath+0xd5/0x1d0\n mutex_lock+0x1f/0x2f\n brook_write+0x41/0xb0 [brook]"

LATER_PARTS = [
    ("Out of memory: Kill process 1234 (java) score 912 or sacrifice child", (Kind.OOM, None)),
    ("Memory cgroup out of memory: Kill process 1234 (java) score 9", (Kind.OOM, None)),
    ("Out of Memory: Killed process 1234 (java).", (Kind.OOM, None)),
    ("oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,pid=1234,uid=0",
     (Kind.OOM, None)),
    (
        "rcu: rcu_preempt kthread starved for 2515 jiffies! g-459 f0x0 RCU_GP_WAIT_FQS(5)\n"
        "rcu: RCU grace-period kthread stack dump:\nCall trace:\n __schedule+0x2c8/0x8d8\n"
        " ? brook_timer+0x1/0x20\n rcu_gp_kthread+0x130/0x170",
        (Kind.RCU_STALL, None),
    ),
    (
        '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.\n'
        "task:sh state:D stack:0 pid:321\nCall Trace:\n schedule+0x1/0x2\n brook_open+0x21/0x90",
        (Kind.HUNG_TASK, "brook_open"),
    ),
    (
        "Read of size 8 at addr ffff888005c41a00 by task sh/321\nCall Trace:\n"
        " kasan_report+0xac/0xe0\n brook_open+0x41/0xb0 [brook]",
        (Kind.KASAN, "brook_open"),
    ),
    (
        "  comm \"sh\", pid 321, jiffies 4294937306\n  hex dump (first 32 bytes):\n"
        "    00 01 02\n  backtrace:\n    [<ffffffff81651430>] kmalloc_trace+0x1/0x20\n"
        "    [<ffffffff81651440>] brook_open+0x21/0x90",
        (Kind.LEAK, "brook_open"),
    ),
    (
        "index 3 is out of range for type 'int [3]'\nCall Trace:\n dump_stack+0x10/0x16\n"
        " __ubsan_handle_out_of_bounds+0x44/0x49\n brook_open+0x21/0x90",
        (Kind.UBSAN, "brook_open"),
    ),
    (
        "task: 9c9073e0 task.stack: 9d0d6000\nPC is at brook_drain+0xc/0x38\n"
        "LR is at brook_write+0x28/0x100\npc : [<801e3fd8>]    lr : [<801ddc9c>]",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    (
        "Call Trace:\n [<ffffffff81069bdd>] ? brook_write+0xe1/0x1b4\nCode: 48 89 c3 <48> 8b 44\n"
        "RIP  [<ffffffff810e74ce>] brook_drain+0x61/0xf0\n RSP <ffff88006b0e5d58>",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # decoded
    (
        "CR2: 0000000000000000\n---[ end trace 4d9f8ddca938d3f2 ]---\n"
        "RIP: 0010:brook_drain (drivers/brook.c:12 (discriminator 2))\nCode: 48 08 0f 86",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # where the instructions stand below the stack, the kernel has died there
    (
        "Call Trace:\n[<9000000003bf3bec>] __memset_fast+0x18/0x138\n"
        "[<9000000002a032dc>] brook_drain+0x6e4/0x1aa0\n\n"
        "Code: 024024cc  44008d80  00109886 <29c00085> 02c02087\n---[ end trace 0000000000000000 ]",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # the same on arm, which has another line above a stack
    (
        "Backtrace: \n[<c01f3200>] (brook_drain) from [<c01f32a0>] (brook_write+0x3c/0x5c)\n"
        "Code: e24cb004 e52de004 e8bd4000 e1a04000 (e590000c)\n---[ end trace c0b79102f5690d52",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # mips, with the last line of the panic that comes of it
    (
        "Call Trace:\n[<84d3863c>] brook_drain+0x1bc/0x8fc [brook]\n"
        "[<800302dc>] brook_write+0x144/0x19c\n"
        "Code: 24020001  a7a20046  8e02000c <8c420054> a7a20048\n"
        "Rebooting in 3 seconds..",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # arm's stack without any line above it
    (
        "[<c022135c>] (__warn) from [<c0bcb82c>] (warn_slowpath_fmt+0x70/0xd8)\n"
        "[<c0bcb7c0>] (warn_slowpath_fmt) from [<bf3cc348>] (brook_drain+0x454/0x500 [brook])",
        (Kind.WARNING, DRAIN),
    ),
    # lines from within reports, of which no call is needed
    ("page dumped because: nonzero _count\nModules linked in: brook", (Kind.BAD_PAGE, None)),
    (
        "The buggy address belongs to the object at ffff88810a2b3c00\n"
        "Memory state around the buggy address:\n ffff88810a2b3b00: fc fc fc fc fc fc fc fc",
        (Kind.KASAN, None),
    ),
    (
        "read to 0xffff888111ab1a40 of 4 bytes by task 3010 on cpu 1:\n"
        " brook_drain+0x24/0x60 drivers/char/brook.c:120",
        (Kind.KCSAN, None),
    ),
    ("kfence-#12: 0xffff8881-0xffff8882, size=32\nCPU: 1 PID: 12 Comm: sh", (Kind.KFENCE, None)),
    (
        " brook_write+0x2c4/0x340\nUninit was created at:\n slab_post_alloc_hook+0x129/0xa70",
        (Kind.KMSAN, None),
    ),
    (
        "which lock already depends on the new lock.\n\n-> #1 (module_mutex){+.+.}:\n"
        "       __mutex_lock+0x8b/0x830\n       brook_drain+0x1e/0x80",
        (Kind.LOCKDEP, None),
    ),
    ("Kernel Offset: 0x1e000000 from 0xffffffff81000000\nbrook", (Kind.PANIC, None)),
    ("Rebooting in 10 seconds..\nU-Boot 2021.01", (Kind.PANIC, None)),
    (
        "Allocated in brook_drain+0xa98/0xeac age=2 cpu=0 pid=154\n kmalloc_trace+0x18/0x24\n"
        "Slab 0x807e1060 objects=10 used=6 fp=0x81b6b380 flags=0x800(slab|zone=0)",
        (Kind.SLAB, DRAIN),
    ),
    ("inconsistent {IN-SOFTIRQ-W} -> {SOFTIRQ-ON-W} usage.\n1 lock held", (Kind.LOCKDEP, None)),
    ("but task is already holding lock:\n1 lock held by sh", (Kind.LOCKDEP, None)),
    ("DEBUG_LOCKS_WARN_ON(1)\nModules linked in: brook", (Kind.LOCKDEP, None)),
    (
        "rcu: All QSes seen, last rcu_preempt kthread activity 10503 (4294972288-4294961785)\n"
        "rcu: blocking rcu_node structures",
        (Kind.RCU_STALL, None),
    ),
    (
        "KASAN: null-ptr-deref in range [0x0000000000000058-0x000000000000005f]\n"
        "Modules linked in: brook\nRIP: 0010:brook_drain+0x1c/0x90",
        (Kind.GPF, DRAIN),
    ),
    ("Status: 11008402      KERNEL EXL \nModules linked in: brook", (Kind.PAGE_FAULT, None)),
    (
        "status: 0000000200000120 badaddr: 0000000000000010 cause: 000000000000000d\n"
        "Modules linked in: brook",
        (Kind.PAGE_FAULT, None),
    ),
    # and of which the calls below are the report's
    (f" lock: 0x8e83a6dc, .magic: 00000000, .owner: sh\n{BELOW[STACK]}", (Kind.LOCKDEP, WRITE)),
    (f"in_atomic(): 1, irqs_disabled(): 0, pid: 321\n{BELOW[STACK]}", (Kind.ATOMIC_SLEEP, WRITE)),
    (
        '  comm "sh", pid 812, jiffies 4294912345 (age 123.456s)\n  backtrace:\n'
        "    [<00000000a1b2c3d4>] kmem_cache_alloc+0x1a2/0x2e0\n"
        "    [<00000000b1b2c3d4>] brook_drain+0x34/0x90 [brook]",
        (Kind.LEAK, DRAIN),
    ),
    (f"#PF: supervisor read access in kernel mode\n{BELOW[X86]}", (Kind.PAGE_FAULT, DRAIN)),
    (f"rcu: \t2-....: (5249 ticks this GP) idle=5d4c\n{BELOW[ARM64]}", (Kind.RCU_STALL, DRAIN)),
    (f"\t(t=5250 jiffies g=12345 q=678 ncpus=4)\n{BELOW[ARM64]}", (Kind.RCU_STALL, DRAIN)),
    (f"shift exponent 40 is too large for 32-bit type 'int'\n{BELOW[STACK]}", (Kind.UBSAN, WRITE)),
    # arm64's, with the instructions below
    (
        "ba00: ffffff8008f8693e 0000000000000006 ffffffc02a87ba50 ffffff800847204c\n"
        "[<ffffff80086ced44>] brook_drain+0x18/0x40\n[<ffffff80084ea3b0>] brook_write+0x9e4/0xa94\n"
        "Code: d65f03c0 a9be7bfd 910003fd f9000bf3 (f9400000)",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # the stack of a panic
    (
        " vpanic+0xdb/0x2d0\n panic+0x6b/0x6b\n ? srso_alias_return_thunk+0x5/0xfbef5\n"
        " brook_drain+0x58/0x58\n brook_write+0x2d/0xc0",
        (Kind.PANIC, DRAIN),
    ),
    # below the stack of who used the memory
    (
        " ksys_write+0x5f/0xe0\n\nFreed by task 321:\n kasan_save_stack+0x1e/0x40\n"
        " __kasan_slab_free+0x12f/0x180\n kfree+0xa6/0x2e0\n brook_release+0x2b/0x40 [brook]",
        (Kind.KASAN, None),
    ),
    # registers once more at a report's end, in the function that checked what its caller did
    (
        "---[ end trace 0000000000000000 ]---\nRIP: 0010:fortify_panic+0xd/0xf\nCode: c9 01 00 00",
        (Kind.BUG, None),
    ),
    (
        "---[ end trace 0000000000000000 ]---\nRIP: 0010:__list_del_entry_valid+0x5d/0xb0",
        (Kind.LIST_CORRUPTION, "__list_del_entry_valid"),
    ),
    (
        "---[ end trace 0000000000000000 ]---\nRIP: 0010:usercopy_abort+0x6c/0x80\nCode: 48 c7 c2",
        (Kind.USERCOPY, "usercopy_abort"),
    ),
    # arm's stack, which it shows where it dies, and the entry of the exception
    (
        "7de0: d25c52e8 00000020 00000000 d25f7e00 c0273bcc c02724e8 60000093 ffffffff\n"
        "[<c03fb768>] (brook_drain) from [<c03fdb28>] (brook_write+0x26c/0x3a0)",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    (
        "[<c0399bd8>] (__dabt_svc+0x38/0x60) from [<c02724e8>] (brook_drain+0x14/0x160)\n"
        "[<c02724e8>] (brook_drain+0x14/0x160) from [<c0273bcc>] (brook_write+0x128/0x158)",
        (Kind.PAGE_FAULT, DRAIN),
    ),
    # x86's last line
    ("CR2: 0000000000000010\n---[ end trace 62aa6c3bc1d7a0e0 ]---", (Kind.PAGE_FAULT, None)),
    # arm's registers, and the task that it shows below them
    (
        "Flags: nzcv  IRQs on  FIQs on  Mode SVC_32  ISA ARM  Segment none\n"
        "Process bash (pid: 321, stack limit = 0xc6db0210)\nStack: (0xc6db1e00 to 0xc6db2000)",
        (Kind.PAGE_FAULT, None),
    ),
    # and its other CPUs, which whoever panics has stopped
    (
        "CPU2: stopping\nCPU: 2 PID: 0 Comm: swapper/2 Tainted: G      D  C         6.6.56-v7+\n"
        " unwind_backtrace from show_stack+0x18/0x1c\n show_stack from do_handle_IPI+0x1a8/0x1e4",
        (Kind.PANIC, None),
    ),
    ("[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name", (Kind.OOM, None)),
    # an instruction that there is not: BUG()
    (
        "Call Trace:\n oops_end+0x8d/0xd0\n die+0x4b/0x70\n do_trap+0xb0/0x150\n"
        " do_error_trap+0x7a/0xf0\n do_invalid_op+0x20/0x30\n invalid_op+0x18/0x20\n"
        " brook_drain+0x553/0x5d0",
        (Kind.BUG, DRAIN),
    ),
    # a task that died of one fault, and then of another
    (
        "Call Trace:\n wq_worker_sleeping+0x15/0xa0\n __schedule+0x55b/0x6b0\n schedule+0x29/0x70\n"
        " do_exit+0x2c5/0x480\n oops_end+0xa9/0xf0\n die+0x5b/0x90\n"
        " do_general_protection+0xdc/0x160\n brook_drain+0x28/0x30",
        (Kind.GPF, "wq_worker_sleeping"),
    ),
    # what was lost, without the lines that say so
    (
        "  backtrace:\n    [<00000000a1b2c3d4>] kmem_cache_alloc_trace+0x1a2/0x2e0\n"
        "    [<00000000b1b2c3d4>] brook_drain+0x34/0x90",
        (Kind.LEAK, DRAIN),
    ),
    # pages that are mapped less often than never
    ("page:ffffea00074c5100 count:0 mapcount:-2 mapping:  (null) index:0x0", (Kind.BAD_PAGE, None)),
    # an object that was written to, by the stack of who has found that
    (
        "Redzone 822f00d0: cc cc cc cc   ....\nCall Trace:\n [<80010498>] show_stack+0x58/0x100\n"
        " [<80106a58>] check_bytes_and_report+0xc4/0x10c\n [<8010a180>] kmem_cache_free+0x160/0x174"
        "\n [<802ec480>] brook_drain+0xd4/0xec",
        (Kind.SLAB, DRAIN),
    ),
    # who must not sleep
    (
        " __schedule_bug+0x4e/0x5c\n __schedule+0x731/0x7c0\n _cond_resched+0x29/0x30\n"
        " __kmalloc+0x165/0x1b0\n brook_drain+0x1b/0x80",
        (Kind.ATOMIC_SLEEP, DRAIN),
    ),
    # a warning's registers, which are not shown
    (
        "Call Trace:\n ? report_bug+0x164/0x190\n ? handle_bug+0x41/0x70\n"
        " ? exc_invalid_op+0x17/0x70\n ? asm_exc_invalid_op+0x1a/0x20\n"
        " ? brook_drain+0xcf/0xe0 [brook]\n brook_write+0x41/0xb0 [brook]",
        (Kind.WARNING, DRAIN),
    ),
    (
        "Call Trace:\n [<ffffffff814be44c>] oops_end+0x9c/0xe0\n"
        " [<ffffffff814bd7af>] general_protection+0x1f/0x30\n"
        " [<ffffffff810fc534>] brook_drain+0x4/0x40",
        (Kind.GPF, DRAIN),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "expected"), LATER_PARTS, ids=[body[:40] for body, _ in LATER_PARTS]
)
def test_a_later_part_counts_where_the_beginning_was_cut_off(
    body: str, expected: tuple[Kind, str | None]
) -> None:
    """A console's log is whole: there the report stands above, or somebody has asked."""
    assert read_of(body, pasted=True) == [expected]
    assert read_of(body, pasted=False) == []


@pytest.mark.parametrize(
    "head",
    [
        "task:sh              state:D stack:    0 pid:  321 ppid:   320 flags:0x00000000\n",
        "sh              D ffff88203f093780     0  321      2 0x00000000\n ffff88203064b880\n",
        "",
    ],
)
def test_a_hung_task_s_stack_whose_head_was_cut_off(head: str) -> None:
    """Another one's head is there; else the stack may be what SysRq shows of tasks."""
    stack = f"{head}Call Trace:\n __schedule+0x2d1/0x830\n ? need_resched+0x14/0x18\n{LOCKS}\n"
    event = klog.first(log(f"{stack}INFO: task cp:9 blocked for more than 120 seconds."))
    assert event is not None
    assert (event.kind, event.function) == (Kind.HUNG_TASK, WRITE)
    assert klog.first(log(stack)) is None


@pytest.mark.parametrize("entry", ["__irq_svc", "ret_fast_syscall"])
def test_an_exception_s_stack_within_another_is_no_fault(entry: str) -> None:
    """arm shows it between the calls of whatever report."""
    words = "7de0: d25c52e8 00000020 00000000 d25f7e00 c0273bcc c02724e8 60000093 ffffffff"
    stack = f"[<c03fb768>] ({entry}) from [<c03fdb28>] (brook_write+0x26c/0x3a0)"
    assert read_of(f"{words}\n{stack}", pasted=True) == []


@pytest.mark.parametrize("state", ["S", "R", "I"])
def test_a_task_that_may_sleep_does_not_hang(state: str) -> None:
    """SysRq shows the stacks of all tasks; who has asked for them was cut off."""
    stack = f"Call Trace:\n __schedule+0x2d1/0x830\n{LOCKS}"
    new = f"task:sh              state:{state} stack:    0 pid:  321 ppid:   320 flags:0x00000000"
    old = f"sh              {state} ffff88203f093780     0  321      2 0x00000000"
    for line in (new, old):
        hung = "INFO: task cp:9 blocked for more than 120 seconds."
        (event,) = klog.read(log(f"{line}\n{stack}\n{hung}"), pasted=True)
        assert event.function is None


def test_the_last_line_of_a_panic_ends_it() -> None:
    """What comes below is another report."""
    body = f"Rebooting in 10 seconds..\ninvalid opcode: 0000 [#5] SMP PTI\n{X86}"
    event = klog.first(log(body))
    assert event is not None
    assert (event.kind, event.function) == (Kind.TRAP, DRAIN)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ("? __die+0x23/0x70\n ? page_fault_oops+0x181/0x470\n ? exc_page_fault", Kind.PAGE_FAULT),
        ("? die_addr+0x36/0x90\n ? exc_general_protection+0x1c5/0x430\n ? asm_exc_gp", Kind.GPF),
    ],
)
def test_a_fault_s_stack_whose_head_was_cut_off(head: str, kind: Kind) -> None:
    """All its calls are guesses."""
    body = f"Call Trace:\n <TASK>\n {head}+0xa6/0x140\n ? brook_drain+0x34/0x90\n"
    event = klog.first(body + " ? brook_write+0x41/0xb0\n </TASK>")
    assert event is not None
    assert (event.kind, event.function) == (kind, DRAIN)
    guesses = "".join(f" ? {name}+0x23/0x70\n" for name in ("brook_exc", "brook_drain", WRITE))
    assert klog.first(f"Call Trace:\n <TASK>\n{guesses} </TASK>") is None
    assert klog.read(body) == []  # a console's log is whole


@pytest.mark.parametrize("rest", [" (drivers/brook.c:125", " (drivers/brook.c:125 (discrimin"])
def test_the_last_call_s_source_may_be_cut(rest: str) -> None:
    """Where a log ends."""
    text = (
        "WARNING: suspicious RCU usage\n6.3.0 #2 Not tainted\n-----------------------------\n"
        "drivers/brook.c:125 suspicious rcu_dereference_check() usage!\n\nstack backtrace:\n"
        "CPU: 1 PID: 199 Comm: sh Not tainted 6.3.0 #2\nCall Trace:\n <TASK>\n"
        "dump_stack_lvl (lib/dump_stack.c:107)\nlockdep_rcu_suspicious (kernel/lockdep.c:152)\n"
    )
    event = klog.first(f"{text}brook_drain{rest}")
    assert event is not None
    assert (event.kind, event.function) == (Kind.LOCKDEP, DRAIN)


def test_who_helps_is_named_where_nothing_is_below() -> None:
    """The log ends there."""
    text = (
        "BUG: KASan: user-memory-access on address 310000006a690d0d\n"
        "Write of size 672 by task sh/16448\n"
        "CPU: 1 PID: 16448 Comm: sh Not tainted 4.2.0 #4\nCall Trace:\n"
        " [<ffffffff81429496>] kasan_report_user_access+0x76/0xa0\n"
        " [<ffffffff8142877e>] ? memset+0x1e/0x40\n [<ffffffff8142877e>] memset+0x1e/0x40\n"
    )
    event = klog.first(text)
    assert event is not None
    assert (event.kind, event.function) == (Kind.KASAN, "memset")
    event = klog.first(text + " [<ffffffff8142877e>] brook_drain+0x1e/0x40\n")
    assert event is not None
    assert event.function == DRAIN


def test_a_program_s_instructions_tell_nothing_of_a_stack() -> None:
    """x86 prints them below the stack of whatever report, and arm below that of a program's."""
    calls = "Call Trace:\n brook_wait+0x44/0x60\n brook_write+0x41/0xb0\n"
    mine = "RIP: 0033:0x7f1d4ab15190\nCode: 73 01 c3 48 8b 0d <48> 3d 01 f0 ff ff"
    assert read_of(calls + mine, pasted=True) == []
    fault = "Call trace:\n show_stack+0x10/0x14\n __do_user_fault+0xfc/0x148\n"
    assert read_of(f"{fault}Code: e5923000 e1a00004 (e5813000)", pasted=True) == []


def test_an_address_is_no_module() -> None:
    """A mail had joined two of powerpc's lines."""
    call = f"[c000000015d27c60] [c0000000000d4d28] {DRAIN}+0xda8/0xee0 [c000000015d27d60]"
    panic = f"Kernel panic - not syncing: brook\nCall Trace:\n{call} [c0000000000d4f1c] x+0x5c/0xd0"
    (event,) = klog.read(panic, pasted=True)
    assert (event.function, event.module) == (DRAIN, None)


def test_an_address_alone_is_no_function_of_usb_s() -> None:
    warning = "WARNING: CPU: 1 PID: 321 at brook/mac.c:208 0x860546a4 [brook@8ad96439+0x96c0]\n"
    (event,) = klog.read(f"{warning}Modules linked in: brook(O)", pasted=True)
    assert (event.title, event.function) == ("WARNING in corrupted", None)


def test_an_alignment_fault_may_be_a_program_s() -> None:
    """A program's code may lie where another kernel has its own."""
    fault = (
        "Alignment trap: not handling instruction e1cd26f0 at [<b6c1f2a8>]\n"
        "Unhandled fault: alignment exception (0x001) at 0xbe9f3a12"
    )
    assert read_of(fault, pasted=True) == []
    died = f"{fault}\nInternal error: : 1 [#1] SMP ARM\nPC is at {DRAIN}+0x154/0x39c"
    assert read_of(died, pasted=True) == [(Kind.TRAP, DRAIN)]


def test_registers_at_the_end_of_a_report_are_no_second_one() -> None:
    """x86 prints the instruction pointer once more below the mark that ends a report."""
    general = (
        f"general protection fault: 0000 [#1] SMP\n{X86}\n---[ end trace 0000000000000000 ]---"
    )
    again = "RIP: 0010:brook_drain+0x1c/0x90 [brook]\nCode: 48 89"
    assert read_of(f"{general}\n{again}", pasted=True) == [(Kind.GPF, DRAIN)]
    asked = "NMI backtrace for cpu 1\nCPU: 1 PID: 0 Comm: sh Not tainted 6.6.0\nHardware name: x\n"
    assert read_of(f"{asked}{again}", pasted=True) == []


def test_a_module_before_the_function() -> None:
    """The module of a function is known whichever way the kernel prints it."""
    (event,) = klog.read(log(f"Oops: 0000 [1] SMP\n{OLD_X86_64}"))
    assert (event.function, event.module) == (DRAIN, "brook")


@pytest.mark.parametrize(
    "line",
    [
        "brook: Kernel stack overflow protection is on",
        "PANIC: button pressed, calling the guard",
        "oom-kill:constraint=none set by the operator",
        "brook: rcu_sched kthread starved? not today",
        "rcu: RCU CPU stall warnings timeout set to 60 (rcu_cpu_stall_timeout).",
        "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
        "workqueue: brook_work hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
        "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 4: a600000000020408",
        "ACPI BIOS Error (bug): Could not resolve symbol, AE_NOT_FOUND",
        "brook 0000:00:14.0: WARNING: Host System Error",
        "brook 0000:00:02.0: [drm] GPU HANG: ecode 9:1:85dffffb, in sh [321]",
        "brook 0000:03:00.0: page fault (src_id:0 ring:24 vmid:3, for process sh pid 1)",
        "brook: firmware crashed! stack trace follows",
        "traps: sh[321] trap invalid opcode ip:401000 sp:7ff error:0 in sh[400000+1000]",
        "do_page_fault(): sending SIGSEGV to sh for invalid read access from 0000000c",
        "Kernel command line: panic=5 oops=panic softlockup_panic=1 hung_task_panic=1",
        "drivers/brook.c:12: bad parameter pmd=3",
        "do_IRQ: 0.55 No irq handler for vector",
        "cpu 0x0: Vector: table loaded",
        "PC is at home",
        "RIP: rest in peace",
        "pc : a personal computer",
        "Missing ENDBR: none",
        "kmem_cache_destroy brook: done",
        "skb_over_panic: text: was short",
        "pagealloc: memory ok",
        "unchecked MSR access error: none found in the test",
        "Internal error: UBSAN: disabled",
        "Unable to handle kernel access request from user bob",
    ],
)
def test_sentences_with_a_report_s_words(line: str) -> None:
    for text in (f"before\n{line}\nafter\n", log(f"before\n{line}\nafter")):
        assert klog.read(text) == []
        assert klog.read(text, pasted=True) == []


SPARC = """\
sh(321): Oops [#1]
TSTATE: 0000004411e01605 TPC: 0000000000573034 TNPC: 0000000000573038 Y: 00000000    Not tainted
TPC: <brook_drain+0x1c/0x90 [brook]>
g0: 0000000000b3f0e0 g1: 6b6b6b6b6b6b6b6b"""


def test_an_access_that_the_kernel_has_mended_is_no_report() -> None:
    """sparc's trap handler does what the instruction could not, and says so."""
    mended = "Kernel unaligned access at TPC[573034] brook_drain+0x1c/0x90 [brook]\n"
    assert klog.read(2 * mended) == []
    assert klog.read(2 * mended, pasted=True) == []
    died = "Unable to handle kernel paging request in mna handler\n at virtual address 6b6b6b6b\n"
    (event,) = klog.read(mended + died + SPARC, pasted=True)
    assert (event.kind, event.function) == (Kind.PAGE_FAULT, DRAIN)


@pytest.mark.parametrize(
    "words", ["use after free", "out of bounds access", "out of bounds on stack", "use-after-free"]
)
def test_the_first_address_sanitizer_s_words(words: str) -> None:
    header = f"BUG: KASan: {words} in brook_drain+0x1c/0x90 [brook] at addr ffff880d59947040\n"
    (event,) = klog.read(header + "Read of size 8 by task sh/321", pasted=True)
    assert event.title == f"KASAN: {words} Read in brook_drain"
    assert (event.kind, event.function, event.module) == (Kind.KASAN, DRAIN, "brook")


HEADLESS = "CPU: 1 PID: 321 Comm: sh Not tainted 6.1.0 #1\n"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("RIP: 0010:brook_drain+0x1c/0x90\nCode: 00 48 <8b> 43 10", Kind.PAGE_FAULT),
        ("RIP: 0010:brook_drain+0x1c/0x90\nCode: 00 48 <0f> 0b 48", Kind.WARNING),
        ("RIP: 0010:brook_drain+0x1c/0x90", Kind.WARNING),
        ("PC is at brook_drain+0x1c/0x90\nLR is at brook_write+0x1/0x2", Kind.PAGE_FAULT),
        ("pc : brook_drain+0x1c/0x90\nCode: d65f03c0 f9400000 (d4210000)", Kind.WARNING),
        (
            "NIP [c000000000ac0ce8] brook_drain+0x18/0xf0\n60000000 <0fe00000> 60000000",
            Kind.WARNING,
        ),
    ],
)
def test_registers_below_the_line_of_the_task(body: str, kind: Kind) -> None:
    """Which instruction it was tells a fault from a warning."""
    event = klog.first(HEADLESS + body)
    assert event is not None
    assert (event.kind, event.function) == (kind, DRAIN)
    assert read_of(HEADLESS + body, pasted=False) == []  # a console's log has a head


def test_what_was_asked_for_is_not_all_that_is_left() -> None:
    asked = f"sysrq: Show Blocked State\ntask:sh state:D stack:0 pid:321\n{BELOW[STACK]}\n"
    assert klog.first(f"{asked}but task is already holding lock:\n") is None
