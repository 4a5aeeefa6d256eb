# SPDX-License-Identifier: GPL-2.0-only
"""harness/judge/verdict.py: from what is known of a machine to the reasons why a test is red.

And what the plugin (harness/plugin/) makes of it in a run of pytest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import klog, qemu
from harness.errors import CommandFailed, CommandTimeout, GuestError, HostError, MachineError
from harness.examine import artifacts, evidence, symbols
from harness.examine.artifacts import Keeper
from harness.examine.loading import SaveEvidence, loaded_template
from harness.host.proc import Deadline
from harness.judge import verdict
from harness.judge.problem import KernelProblem
from harness.judge.verdict import (
    Evidence,
    Expectation,
    LostMemory,
    Remain,
    Verdict,
    condensed,
    judge,
    taint_letters,
)
from harness.machines import freeze
from harness.machines.clone import Baseline
from harness.plugin.supply import MachineKind, MachineSource
from tests.unit.growth import grows_with_length

pytest_plugins = ["pytester"]  # for runs of pytest whose machines are not real

OE = 1 << 12 | 1 << 13
WARN = 1 << 9
DIE = 1 << 7

BOOT = """\
[    0.000000] Linux version 6.12.9+deb13-cloud-amd64 (gcc-14) #1 SMP
[    1.100000] wee: loading out-of-tree module taints kernel.
[    1.100001] wee: module verification failed: signature and/or required key missing
[    1.200000] wee: hello
"""
WARNING = """\
[    2.000000] ------------[ cut here ]------------
[    2.000001] WARNING: CPU: 0 PID: 77 at /mnt/module/wee.c:42 wee_write+0x1c/0x90 [wee]
[    2.000002] Modules linked in: wee(OE)
[    2.000003] CPU: 0 UID: 0 PID: 77 Comm: sh Tainted: G           OE      6.12.9 #1
[    2.000004] RIP: 0010:wee_write+0x1c/0x90 [wee]
[    2.000005] Call Trace:
[    2.000006]  <TASK>
[    2.000007]  wee_write+0x1c/0x90 [wee]
[    2.000008]  vfs_write+0xf1/0x440
[    2.000009]  ksys_write+0x6b/0xf0
[    2.000010]  do_syscall_64+0x82/0x190
[    2.000011]  </TASK>
[    2.000012] ---[ end trace 0000000000000000 ]---
"""
OOPS = """\
[    3.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000
[    3.000001] #PF: supervisor write access in kernel mode
[    3.000002] #PF: error_code(0x0002) - not-present page
[    3.000003] Oops: Oops: 0002 [#1] PREEMPT SMP
[    3.000004] CPU: 0 UID: 0 PID: 78 Comm: sh Tainted: G           OE      6.12.9 #1
[    3.000005] RIP: 0010:wee_oops+0x5/0x20 [wee]
[    3.000006] Call Trace:
[    3.000007]  <TASK>
[    3.000008]  wee_write+0x1c/0x90 [wee]
[    3.000009]  vfs_write+0xf1/0x440
[    3.000010]  </TASK>
[    3.000011] ---[ end trace 0000000000000000 ]---
"""
PANIC = "[    3.100000] Kernel panic - not syncing: Fatal exception\n"

CLEAN = Evidence(console=BOOT, taint_before=OE, taint_after=OE)


def test_a_quiet_machine_has_no_problem() -> None:
    """A clean log, the same taint, an answer: nothing to say."""
    assert list(judge(CLEAN)) == []


def test_a_warning_is_a_splat_with_its_title_and_its_log() -> None:
    """The kernel's own words say what and where, even where the taint was not asked for."""
    (problem,) = judge(replace(CLEAN, console=BOOT + WARNING, taint_after=OE | WARN))
    assert problem.verdict is Verdict.SPLAT
    assert "WARNING" in problem.title
    assert "wee_write" in problem.title
    assert "wee.c:42" in problem.detail
    assert "hello" not in problem.detail


def test_an_oops_that_stops_the_machine_is_a_panic() -> None:
    """The first cause gives the title; the panic that follows is no second problem."""
    (problem,) = judge(replace(CLEAN, console=BOOT + OOPS + PANIC, taint_after=None, panicked=True))
    assert problem.verdict is Verdict.PANIC
    assert "wee_oops" in problem.title


def test_an_oops_that_the_kernel_survives_is_a_splat() -> None:
    """The kernel killed the task and went on."""
    (problem,) = judge(replace(CLEAN, console=BOOT + OOPS, taint_after=OE | DIE))
    assert problem.verdict is Verdict.SPLAT


def test_two_reports_are_two_problems_in_their_order() -> None:
    """The first cause comes first."""
    first, second = judge(replace(CLEAN, console=BOOT + WARNING + OOPS, taint_after=None))
    assert "wee_write" in first.title
    assert "wee_oops" in second.title


def test_a_report_before_the_machine_is_gone_is_a_panic() -> None:
    """What was said before QEMU ended is why it ended."""
    (problem,) = judge(replace(CLEAN, console=BOOT + OOPS, taint_after=None, running=False))
    assert problem.verdict is Verdict.PANIC
    assert "wee_oops" in problem.title


def test_a_panic_in_the_log_needs_no_device_to_report_it() -> None:
    """A kernel without pvpanic says it on its console only."""
    console = BOOT + "[    2.000000] Kernel panic - not syncing: wee wanted it\n"
    (problem,) = judge(replace(CLEAN, console=console, taint_after=None))
    assert problem.verdict is Verdict.PANIC
    assert "wee wanted it" in problem.title


def test_expected_reports_do_not_hide_another() -> None:
    """A thousand expected warnings are read to their end: what follows them is judged."""
    many = BOOT + WARNING * 1000
    expected = (Expectation(klog.Kind.WARNING, "wee_write", 0, len(many)),)
    evidence = replace(CLEAN, console=many + OOPS, taint_after=OE | WARN, expected=expected)
    (problem,) = judge(evidence)
    assert "wee_oops" in problem.title


def test_more_different_problems_than_are_told_are_a_gap() -> None:
    """Where the reading stops the log is unknown, and that is said."""
    some = verdict.MOST_PROBLEMS
    warnings = [WARNING.replace("wee_write", f"wee_{number}") for number in range(some + 1)]
    told = judge(replace(CLEAN, console=BOOT + "".join(warnings[:some])))
    assert [problem.verdict for problem in told] == [Verdict.SPLAT] * some
    *told, last = judge(replace(CLEAN, console=BOOT + "".join(warnings)))
    assert len(told) == some
    assert last.verdict is Verdict.LOG_GAP
    assert f"more than {some} different problems" in last.title


SENTENCES = [
    "BUG: this is a title of a song",
    "kernel BUG at night",
    "kernel BUG at wee.c:12!",
    "watchdog: BUG: soft lockup detection enabled",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [wee:1]",
    "wee: Kernel panic - not syncing: avoided",
    "BUG: KASAN: use-after-free in wee_write+0x1/0x2",
    "BUG: unable to handle kernel NULL pointer dereference at 0000000000000000",
    "INFO: task wee:12 blocked for more than 120 seconds.",
    "WARNING: possible recursive locking detected",
    "general protection fault, probably for my own address: 0000 [#1]",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_of_a_module_s_is_no_report(sentence: str) -> None:
    """It has nothing below it, the taint is as before, and the kernel answers."""
    said = f"[    5.000000] {sentence}\n"
    assert not judge(replace(CLEAN, console=BOOT + said))
    assert not judge(replace(CLEAN, console=BOOT + said + said + BOOT.splitlines()[-1]))


@pytest.mark.parametrize(
    "change",
    [{"taint_after": OE | WARN}, {"taint_after": OE | DIE}, {"taint_after": None},
     {"panicked": True}, {"running": False}, {"unread": 9}],
    ids=str,
)  # fmt: skip
def test_a_header_alone_is_a_report_where_the_kernel_is_not_well(change: dict[str, Any]) -> None:
    """What should stand below it is lost then."""
    for sentence in (SENTENCES[2], SENTENCES[6], SENTENCES[7]):
        console = f"{BOOT}[    5.000000] {sentence}\n"
        assert judge(replace(CLEAN, console=console, **change))[0].title.partition(" in ")[0] in (
            "kernel BUG", "KASAN: use-after-free",
            "KASAN: use-after-free in wee_write",
            "BUG: unable to handle kernel NULL pointer dereference",
        )  # fmt: skip


STACK = """\
[    5.000001] CPU: 0 UID: 0 PID: 77 Comm: sh Tainted: G           OE      6.12.9 #1
[    5.000002] Hardware name: QEMU Standard PC
[    5.000003] Call Trace:
[    5.000004]  <TASK>
[    5.000005]  dump_stack_lvl+0x5d/0x80
[    5.000006]  wee_write+0x1c/0x90 [wee]
[    5.000007]  vfs_write+0xf1/0x440
[    5.000008]  </TASK>
"""


def test_a_test_may_expect_that_there_is_no_memory() -> None:
    """Both lines belong to it: who asked for memory, and who was killed."""
    console = BOOT + (
        "[    5.000000] perl invoked oom-killer: gfp_mask=0x140dca, order=0, oom_score_adj=0\n"
        "[    5.000001] Out of memory: Killed process 412 (perl) total-vm:500000kB\n"
    )
    (problem,) = judge(replace(CLEAN, console=console))
    assert "killed perl" in problem.title
    expected = (Expectation(klog.Kind.OOM, None, 0, len(console)),)
    assert not judge(replace(CLEAN, console=console, expected=expected))


def test_a_stack_that_a_module_dumps_is_a_problem() -> None:
    """Nobody calls dump_stack() where all is well."""
    (problem,) = judge(replace(CLEAN, console=BOOT + STACK))
    assert (problem.title, problem.function) == ("stack trace in wee_write", "wee_write")


def test_a_function_that_ends_by_dumping_the_stack_is_named() -> None:
    """It jumps to dump_stack(): only whoever has called it still has its address."""
    called = STACK.replace("  wee_write+0x1c/0x90 [wee]", "  ? __pfx_wee_tick+0x10/0x10 [wee]")
    (problem,) = judge(replace(CLEAN, console=BOOT + called))
    assert (problem.title, problem.function) == ("stack trace in wee_tick", "wee_tick")
    work = STACK.replace("Hardware name: QEMU Standard PC", "Workqueue: events wee_work [wee]")
    work = work.replace("  wee_write+0x1c/0x90 [wee]", "  process_one_work+0x17b/0x330")
    (problem,) = judge(replace(CLEAN, console=BOOT + work))
    assert (problem.title, problem.function) == ("stack trace in wee_work", "wee_work")
    others = STACK.replace("wee_write+0x1c/0x90 [wee]", "process_one_work+0x17b/0x330")
    assert not judge(replace(CLEAN, console=BOOT + others))


@pytest.mark.parametrize(
    "below",
    [
        ["Call Trace: off"],
        ["CPU: 1 core used", "Code: 17", "page: 3 of 7", "flags: none", "INFO: done"],
        ["Read of size 5 from the card", "IP: 10.0.0.2", "task:3 is over", "addr: of the card"],
        ["raw: 00000000: f3 0f 1e fa 0f 1f 44 00 00 55 48 89 e5 41 54 53", "Stack: of cards"],
        ["perl[77]: segfault at 10 ip 0000000000000819 sp 00007ffe6000e7c8 error 4 in libc.so.6[8]",
         "Code: 48 89 44 24 08 31 c0 48 85 ff 74 1f 48 8b 07 48 85 c0"],
        ["sysrq: Show Memory", "Mem-Info:", "Hardware name: QEMU Standard PC"],
    ],
    ids=lambda below: below[0],
)  # fmt: skip
def test_what_only_looks_like_a_report_below_a_sentence_makes_none_of_it(below: list[str]) -> None:
    """A module says more, a program dies, or somebody asks the kernel for something."""
    lines = ["BUG: no reply from the card", *below]
    console = BOOT + "".join(f"[    5.{at:06}] {line}\n" for at, line in enumerate(lines))
    assert list(judge(replace(CLEAN, console=console))) == []
    (problem,) = judge(replace(CLEAN, console=f"{BOOT}[    5.000000] {lines[0]}\n{STACK}"))
    assert problem.title.startswith(lines[0])


@pytest.mark.parametrize(
    "above", ["FAULT_INJECTION: forcing a failure.", "sysrq: Show backtrace of all active CPUs"]
)
def test_a_stack_that_was_asked_for_is_none(above: str) -> None:
    """A failed allocation that a test injects, or SysRq, print stacks as well."""
    asked = f"[    5.000000] {above}\n"
    assert not judge(replace(CLEAN, console=BOOT + asked + STACK))
    (problem,) = judge(replace(CLEAN, console=BOOT + asked + STACK + WARNING))
    assert problem.title == "WARNING in wee_write"


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("debugfs: File 'wee' in directory '/' already present!", "debugfs: File already"),
        ("debugfs: Directory 'wee' with parent '/' already present!", "debugfs: Directory alr"),
        ("debugfs: 'wee' already exists in '/'", "debugfs: name already present"),
        ("wee: loud: page allocation failure: order:10, mode:0xcc0(GFP_KERNEL)\n"
         + STACK.rstrip("\n"), "page allocation failure"),
        ("sysfs: cannot create duplicate filename '/class/wee'\n" + STACK.rstrip("\n"),
         "sysfs: duplicate filename in wee_write"),
        ("kobject: kobject_add_internal failed for wee with -EEXIST, don't try to register things"
         " with the same name in the same directory.", "kobject: kobject_add_internal failed"),
        ("wee0: NETDEV WATCHDOG: CPU: 0: transmit queue 0 timed out 5012 ms", "NETDEV WATCHDOG"),
        ("detected buffer overflow in strscpy", "fortify: buffer overflow"),
        ("VERIFY(wee == 5) failed\n[    5.000000] PANIC at wee.c:12:wee_write()\n"
         + STACK.rstrip("\n"), "PANIC in wee_write"),
        ("wee: Assertion failed: wee == 5, file: wee.c, line: 12\n" + STACK.rstrip("\n"),
         "Assertion failed"),
    ],
)  # fmt: skip
def test_what_the_kernel_refuses_is_a_problem(line: str, title: str) -> None:
    """It taints nothing and ends in an error code, which a module need not look at."""
    (problem,) = judge(replace(CLEAN, console=f"{BOOT}[    5.000000] {line}\n"))
    assert problem.title.startswith(title)


def test_the_same_problem_again_is_never_too_many() -> None:
    """Only what is different counts."""
    (problem,) = judge(replace(CLEAN, console=BOOT + WARNING * 300))
    assert problem.times == 300


def test_what_comes_again_after_it_was_expected_is_a_problem() -> None:
    """A message without a function is told each time, since only one may have been expected."""
    line = "[    5.000000] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck\n"
    expected = (Expectation(klog.Kind.WORKQUEUE_LOCKUP, None, 0, len(BOOT + line)),)
    assert not judge(replace(CLEAN, console=BOOT + line, expected=expected))
    (problem,) = judge(replace(CLEAN, console=BOOT + line * 2, expected=expected))
    assert "workqueue lockup" in problem.title


@pytest.mark.parametrize(
    ("make", "length"),
    [
        (lambda n: OOPS.replace("]  wee_write", "] " + "[1] " * n + " wee_write"), 5),
        (lambda n: OOPS.replace("]  vfs_write", "]  " + "a" * n), 10_000),
        (lambda n: OOPS.replace("]  vfs_write", "]  " + "a." * n), 5_000),
        (lambda n: OOPS + "[    9.0] " + "] Out of memory " * n, 2_500),
        (lambda n: OOPS + "[    9.0] " + "** 1 " * n, 2_500),
        (lambda n: "\r** 1" * n, 10_000),
        (lambda n: OOPS + "[    9.0] " + "WARNING: mm/slub.c:1 " * n, 2_500),
    ],
    ids=["stamps", "letters", "dots", "memory", "drops", "returns", "slub"],
)
def test_the_work_of_judging_grows_with_the_log(make: Callable[[int], str], length: int) -> None:
    """No text of a guest's can make a pattern try the same characters over and over."""
    assert grows_with_length(lambda text: judge(replace(CLEAN, console=text)), make, length)


@pytest.mark.parametrize("unit", ["a", "a.", "a+0x1", "a+0x1/0x2 [b"])
def test_the_work_of_naming_a_stuck_command_grows_with_its_stacks(unit: str) -> None:
    """The stacks of tasks go through no reader that would cut their lines."""

    def stuck(stacks: str) -> object:
        return judge(replace(CLEAN, timed_out="cat", stacks=stacks))

    assert grows_with_length(stuck, lambda n: unit * n, 10_000)


def test_no_number_is_too_long() -> None:
    """Python refuses to read a number of more than 4,300 digits; no kernel counts that far."""
    console = f"{BOOT}** {'9' * 5000} printk messages dropped **\n"
    assert not judge(replace(CLEAN, console=console))


def test_a_panic_without_words_is_a_panic() -> None:
    """The device's word is enough where the log has nothing."""
    (problem,) = judge(replace(CLEAN, taint_after=None, panicked=True))
    assert problem.verdict is Verdict.PANIC


# What a console has printed since a test began, that was taken away and registered again.
AGAIN = f"[    1.900000] console [ttyS0] disabled\n{BOOT}[    1.900000] console [ttyS0] disabled\n"
ENABLED = "[    9.000000] console [ttyS0] enabled\n"


def test_a_console_that_prints_all_again_is_no_reboot() -> None:
    """However often; a guest that had restarted would have ended, or would not answer."""
    console = AGAIN + ENABLED
    assert judge(replace(CLEAN, console=console)) == []
    twice = f"{console}{BOOT}{AGAIN}{ENABLED}[    9.500000] wee: more\n"
    assert judge(replace(CLEAN, console=twice)) == []
    (problem, *_) = judge(replace(CLEAN, console=console, taint_after=None))
    assert "reboot" in problem.title


def test_what_a_console_prints_again_is_told_once() -> None:
    """And what it could not print before is told."""
    console = f"{WARNING}{BOOT}{WARNING}{ENABLED}"
    (problem,) = judge(replace(CLEAN, console=console, taint_after=OE | WARN))
    assert problem.times == 1
    (problem,) = judge(replace(CLEAN, console=AGAIN + WARNING + ENABLED, taint_after=OE | WARN))
    assert problem.times == 1


def test_a_line_that_claims_to_be_late_hides_nothing() -> None:
    """Whatever is written to the console: the kernel goes on with its own time."""
    console = f"[99999.000000] said\n{BOOT}{WARNING}{ENABLED}"
    problems = judge(replace(CLEAN, console=console, taint_after=OE | WARN))
    assert [problem.title for problem in problems][1:] == ["WARNING in wee_write"]


def test_a_machine_that_stopped_by_itself_is_never_green() -> None:
    """A test that reboots or powers off its guest has lost its evidence."""
    (problem,) = judge(replace(CLEAN, taint_after=None, running=False))
    assert problem.verdict is Verdict.PANIC
    assert "stopped" in problem.title


def test_no_answer_is_lost() -> None:
    """A guest that hangs without a word is not green, and not called a panic."""
    (problem,) = judge(replace(CLEAN, taint_after=None))
    assert problem.verdict is Verdict.LOST


def test_a_report_explains_a_missing_answer() -> None:
    """Where the kernel has said what is wrong, silence is no second problem."""
    (problem,) = judge(replace(CLEAN, console=BOOT + WARNING, taint_after=None))
    assert problem.verdict is Verdict.SPLAT


def test_taint_without_words_is_a_splat() -> None:
    """The kernel remembers a warning that no log shows, and names it by its letter."""
    (problem,) = judge(replace(CLEAN, taint_after=OE | WARN))
    assert problem.verdict is Verdict.SPLAT
    assert "(W)" in problem.title


def test_loading_a_module_is_no_problem() -> None:
    """An out-of-tree (O) and unsigned (E) module taints: the test asked for that."""
    assert list(judge(replace(CLEAN, taint_before=0, taint_after=OE))) == []


def test_the_taint_of_a_report_may_come_after_it_was_told() -> None:
    """The kernel prints first. What no report brings up is told all the same."""
    after = replace(CLEAN, reported=True, taint_after=OE | DIE | WARN)
    assert list(judge(after)) == []
    (problem,) = judge(replace(after, taint_after=OE | 1))
    assert "(P)" in problem.title


def test_a_report_that_is_only_counted_is_a_splat() -> None:
    """Somebody has kept the kernel from logging it, and has put the taint back."""
    (problem,) = judge(replace(CLEAN, counted=1))
    assert problem.verdict is Verdict.SPLAT
    assert "has counted a warning" in problem.title


def test_a_report_that_is_counted_and_logged_is_told_once() -> None:
    """The kernel may count it after a judgement has told it, or it was expected."""
    (problem,) = judge(replace(CLEAN, console=BOOT + WARNING, counted=1))
    assert problem.title == "WARNING in wee_write"
    assert list(judge(replace(CLEAN, counted=1, reported=True))) == []
    wanted = (Expectation(klog.Kind.WARNING, None, 0, len(BOOT + WARNING)),)
    assert list(judge(replace(CLEAN, console=BOOT + WARNING, counted=1, expected=wanted))) == []


def test_taint_from_before_the_test_is_not_its_fault() -> None:
    """Only what is new counts."""
    before = OE | WARN
    assert list(judge(replace(CLEAN, taint_before=before, taint_after=before))) == []
    (problem,) = judge(replace(CLEAN, taint_before=before, taint_after=before | DIE))
    assert "(D)" in problem.title


@pytest.mark.parametrize(
    ("mask", "letters"),
    [
        (0, ""),
        (1, "P"),
        (1 << 7, "D"),
        (1 << 9, "W"),
        (OE, "OE"),
        (1 << 14, "L"),
        (1 << 18, "N"),
        (1 << 9 | 1, "PW"),
        (1 << 25, "(25)"),
    ],
)
def test_letters_are_those_of_an_oops(mask: int, letters: str) -> None:
    """Documentation/admin-guide/tainted-kernels.rst; a bit from the future has its number."""
    assert taint_letters(mask) == letters


def test_the_innermost_function_of_a_module_is_named() -> None:
    """The title may name the kernel's function; whoever writes a module looks for theirs."""
    log = OOPS.replace("wee_oops+0x5/0x20 [wee]", "fifo_open+0x5/0x20")
    (problem,) = judge(replace(CLEAN, console=BOOT + log))
    assert problem.title.endswith(" in fifo_open")
    assert str(replace(problem, location="wee.c:42")) == (
        f"splat: {problem.title}, in wee_write at wee.c:42"
    )


def test_a_function_is_not_named_twice() -> None:
    """Where the title names it already."""
    (problem,) = judge(replace(CLEAN, console=BOOT + WARNING))
    assert problem.function == "wee_write"
    assert str(problem) == "splat: WARNING in wee_write"


SLAB = """\
[    3.000000] =============================================================================
[    3.100000] BUG kmalloc-64 (Tainted: G           OE     ): Object already free
[    3.200000] -----------------------------------------------------------------------------
[    3.300000] Allocated in wee_double_free+0x20/0x40 [wee] age=0 cpu=0 pid=135
[    3.400000]  wee_double_free+0x20/0x40 [wee]
[    3.500000]  vfs_write+0xf5/0x440
"""


def test_a_report_of_the_allocator_names_who_had_the_object() -> None:
    """Such a report has the stacks of others, and no function of its own."""
    (problem,) = judge(replace(CLEAN, console=BOOT + SLAB))
    assert problem.function == "wee_double_free"


SLAB_WARNING = """\
[    3.600000] ------------[ cut here ]------------
[    3.600000] WARNING: mm/slub.c:1239 at object_err+0x1f3/0x202, CPU#0: sh/115
[    3.600000] Modules linked in: wee(OE)
[    3.600000] CPU: 0 UID: 0 PID: 115 Comm: sh Tainted: G    B      OE       7.2.13 #1 PREEMPT(lazy)
[    3.600000] RIP: 0010:object_err+0x1f3/0x202
[    3.700000] Call Trace:
[    3.700000]  <TASK>
[    3.700000]  free_to_partial_list.cold+0xd9/0x122
[    3.700000]  kfree+0x233/0x420
[    3.700000]  wee_release+0x33/0x40 [wee]
[    3.800000]  </TASK>
[    3.800000] ---[ end trace 0000000000000000 ]---
"""


def test_what_a_warning_says_stands_first() -> None:
    """The kernel prints it above the header. What another warning says is not taken for it."""
    said = "[    2.000000][  T77] Buffer overflow detected (10 < 4096)!\n"
    head, cut, rest = WARNING.partition("[ cut here ]------------\n")
    (problem,) = judge(replace(CLEAN, console=BOOT + head + cut + said + rest))
    assert problem.detail.startswith("it says: Buffer overflow detected (10 < 4096)!\n")
    (problem,) = judge(replace(CLEAN, console=BOOT + WARNING))
    assert "it says" not in problem.detail
    other = WARNING.replace("wee_write", "wee_read")
    talks, silent = judge(replace(CLEAN, console=BOOT + head + cut + said + rest + other))
    assert "it says" in talks.detail
    assert "it says" not in silent.detail


def test_the_warning_after_a_report_of_the_allocator_is_a_part_of_it() -> None:
    """Newer kernels add one; another warning is another problem."""
    console = BOOT + SLAB + SLAB_WARNING
    (problem,) = judge(replace(CLEAN, console=console))
    assert problem.title == "BUG: Object already free"
    assert "wee_release+0x33/0x40" in problem.detail
    assert len(judge(replace(CLEAN, console=console + WARNING))) == 2


def test_a_report_before_a_host_fault_is_a_splat() -> None:
    """The kernel went on after it; how QEMU ended is another matter, and said as well."""
    ended = replace(CLEAN, running=False, taint_after=None, fault="exit status -9")
    for console, title in ((BOOT + WARNING, "WARNING in wee_write"), (BOOT + OOM, "the guest ran")):
        splat, fault = judge(replace(ended, console=console))
        assert (splat.verdict, fault.verdict) == (Verdict.SPLAT, Verdict.HOST_FAULT)
        assert splat.title.startswith(title)
    # The end of a QEMU that was told to print no more is its own doing.
    (splat,) = judge(replace(ended, console=BOOT + WARNING, full=True))
    assert splat.verdict is Verdict.SPLAT
    first, fault = judge(replace(ended, console=BOOT + OOPS + PANIC, panicked=True))
    assert (first.verdict, fault.verdict) == (Verdict.PANIC, Verdict.HOST_FAULT)


def expected(kind: str, function: str | None = None) -> tuple[Expectation, ...]:
    """A report that may come at any time."""
    return (Expectation(klog.Kind(kind), function, 0, 1 << 20),)


def test_an_expected_report_of_the_allocator_covers_its_warning() -> None:
    """Whatever comes between them, and with another problem before: that one stays itself."""
    console = BOOT + SLAB + SLAB_WARNING
    assert list(judge(replace(CLEAN, console=console, expected=expected("slab")))) == []
    for console in (BOOT + WARNING + SLAB + SLAB_WARNING, BOOT + SLAB + WARNING + SLAB_WARNING):
        (problem,) = judge(replace(CLEAN, console=console, expected=expected("slab")))
        assert problem.title == "WARNING in wee_write"
        assert "object_err" not in problem.detail
    both = judge(replace(CLEAN, console=console))
    assert {problem.title: "object_err" in problem.detail for problem in both} == {
        "BUG: Object already free": True,
        "WARNING in wee_write": False,
    }


def test_the_warning_of_a_report_that_is_missing_is_reported() -> None:
    """It is nobody else's stack."""
    problems = judge(replace(CLEAN, console=BOOT + WARNING + SLAB_WARNING))
    assert [problem.title for problem in problems] == [
        "WARNING in wee_write", "WARNING in object_err",
    ]  # fmt: skip


KASAN = """\
[    2.000000] ==================================================================
[    2.000000] BUG: KASAN: slab-out-of-bounds in memcpy+0xac/0xc3 [wee]
[    2.000000] Write of size 1 at addr ffff88806acbf2bb by task sh/77
[    2.000000]
[    2.000000] CPU: 0 PID: 77 Comm: sh Not tainted 4.20.0 #4
[    2.000000] Call Trace:
[    2.000000]  dump_stack+0x1db/0x2d0
[    2.000000]  ? memcpy+0xac/0xc3 [wee]
[    2.000000]  kasan_report.cold+0x1b/0x40
[    2.000000]  __asan_report_store1_noabort+0x17/0x20
[    2.000000]  wee_write+0xac/0xc3 [wee]
[    2.000000]  vfs_write+0xf1/0x440
[    2.000000]  ksys_write+0x6b/0xf0
[    2.000000]  do_syscall_64+0x82/0x190
[    2.000000]  entry_SYSCALL_64_after_hwframe+0x49/0xbe
[    2.000000] ==================================================================
"""


def test_a_function_on_the_stack_counts_more_than_one_in_the_words() -> None:
    """Old kernels name a function there that was inlined, and that nobody looks for."""
    (problem,) = judge(replace(CLEAN, console=BOOT + KASAN))
    assert problem.function == "wee_write"


OOM = "[    4.0] Out of memory: Killed process 135 (perl) total-vm:105kB, anon-rss:39kB, UID:0\n"


def test_a_process_killed_for_memory_is_a_splat() -> None:
    """Also where the guest does not answer any more: this is why."""
    for taint in (OE, None):
        (problem,) = judge(replace(CLEAN, console=BOOT + OOM + OOM, taint_after=taint))
        assert problem.verdict is Verdict.SPLAT
        assert problem.title == "the guest ran out of memory, the kernel killed perl"
        assert problem.times == 2
        assert problem.detail == OOM.strip()


def test_who_is_killed_for_memory_may_ask_for_more_in_vain() -> None:
    """It says so before it is gone; that it was killed says more. Another report is told itself."""
    lines = [
        "perl: page allocation failure: order:0, mode:0x140dca(GFP_HIGHUSER_MOVABLE)",
        "CPU: 0 UID: 0 PID: 135 Comm: perl Tainted: G           OE      6.12.1 #1",
        "Call Trace:", " <TASK>", " dump_stack_lvl+0x5d/0x80", " warn_alloc+0x164/0x190",
        " do_anonymous_page+0x36f/0x8a0", " </TASK>",
    ]  # fmt: skip
    asked = "".join(f"[    4.100001] {line}\n" for line in lines)
    (alone,) = judge(replace(CLEAN, console=BOOT + asked))
    assert alone.title.startswith("page allocation failure")
    (problem,) = judge(replace(CLEAN, console=BOOT + OOM + asked))
    assert problem.title == "the guest ran out of memory, the kernel killed perl"
    (problem,) = judge(replace(CLEAN, console=BOOT + OOM + STACK))
    assert problem.title == "stack trace in wee_write"


def test_a_limit_of_a_cgroup_is_somebodys_wish() -> None:
    """The memory controller kills whom it was told to limit."""
    console = BOOT + OOM.replace("Out of memory", "Memory cgroup out of memory")
    assert list(judge(replace(CLEAN, console=console))) == []


DROPPED = "** 12 printk messages dropped **\n"


def test_dropped_messages_are_a_gap_in_the_log() -> None:
    """What was dropped may have been a report."""
    console = BOOT + DROPPED + "[    4.0] more\n" + DROPPED.replace("12", "30")
    (problem,) = judge(replace(CLEAN, console=console))
    assert problem.verdict is Verdict.LOG_GAP
    assert "dropped 42 messages" in problem.title


def test_a_gap_is_no_second_problem() -> None:
    """Where the log shows a report, that is what is wrong."""
    (problem,) = judge(replace(CLEAN, console=BOOT + DROPPED + WARNING, taint_after=OE | WARN))
    assert problem.verdict is Verdict.SPLAT


def test_a_message_that_only_looks_like_a_gap() -> None:
    """The kernel prints that line without a stamp; what a module prints has one."""
    assert list(judge(replace(CLEAN, console=BOOT + "[    1.3] " + DROPPED))) == []


def test_a_console_that_is_too_long_is_a_gap() -> None:
    """Its middle was not looked at: 5 MiB that may hold anything."""
    (problem,) = judge(replace(CLEAN, unread=5 << 20))
    assert problem.verdict is Verdict.LOG_GAP
    assert "5120 KiB" in problem.title


@pytest.mark.parametrize("running", [True, False])
def test_a_full_console_explains_silence(running: bool) -> None:
    """A machine that was told to print no more is neither lost nor has it panicked."""
    (problem,) = judge(replace(CLEAN, unread=5, full=True, running=running, taint_after=None))
    assert problem.verdict is Verdict.LOG_GAP


def test_a_stuck_command_names_where_it_is() -> None:
    """The innermost function of a module on the stacks."""
    stacks = "task sh(134,D):\n msleep+0x2d/0x40\n wee_write+0x1c/0x90 [wee]\n vfs_write+0xf1/0x440"
    (problem,) = judge(replace(CLEAN, timed_out="echo x", stacks=stacks))
    assert (problem.verdict, problem.function) == (Verdict.HUNG, "wee_write")
    assert problem.detail == stacks


def test_a_stuck_command_is_not_where_a_thread_waits_for_work() -> None:
    """A thread that sleeps in the module has nothing to do; what no signal ends is stuck."""
    thread = (
        "task wee(5,S):\n wee_loop+0x3/0x40 [wee]\n kthread+0xcf/0x100\n ret_from_fork+0x31/0x50"
    )
    reader = "task cat(6,S):\n wee_read+0x1/0x20 [wee]\n do_syscall_64+0x87/0x180"
    writer = "task sh(7,D):\n wee_write+0x1c/0x90 [wee]\n do_syscall_64+0x87/0x180"
    for tasks, first in (
        ((thread, reader, writer), "wee_write"), ((thread, reader), "wee_read"),
        ((thread,), "wee_loop"),
    ):  # fmt: skip
        (problem,) = judge(replace(CLEAN, timed_out="echo x", stacks="\n".join(tasks)))
        assert problem.function == first
        assert sorted(problem.detail.splitlines()) == sorted("\n".join(tasks).splitlines())


@pytest.mark.parametrize(
    ("probe", "title", "function"),
    [
        ("cpu:1", "CPU 1 runs no process any more", "wee_read"),
        ("lock:rtnl_mutex", "rtnl_mutex is held", "wee_read"),
        ("rcu:grace_period", "no grace period of RCU ends", "wee_read"),
        ("ended:genl_mutex", "a task has ended and still has a lock, genl_mutex", None),
        (
            "busy:a_task(7):__cond_resched+0x1/0x2,wee_loop+0x3/0x40_[wee]",
            "a_task(7) uses a CPU without a pause",
            "wee_loop",
        ),
    ],
)
def test_what_does_not_go_on_is_red(probe: str, title: str, function: str | None) -> None:
    """Although no command waits for it; a report of the kernel's says more."""
    stacks = "task a(5,D):\n wee_read+0x1/0x20 [wee]"
    (problem,) = judge(replace(CLEAN, probes=(probe,), stacks=stacks))
    assert problem.verdict is Verdict.HUNG
    assert problem.title.startswith(title)
    assert problem.function == function


def test_what_has_no_name_in_a_modules_memory_is_no_lock() -> None:
    """It is laid out as one whose owner has ended. A thread's address and a wait queue are, too."""
    assert judge(replace(CLEAN, probes=("ended:0xffffffffc0300040",))) == []


FREED_TWICE = """\
[    7.289393] ------------[ cut here ]------------
[    7.289647] kernel BUG at mm/slub.c:550!
[    7.290381] Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI
[    7.290722] CPU: 0 UID: 0 PID: 162 Comm: perl Tainted: G           OE      6.12.118 #1
[    7.291296] RIP: 0010:{}+0x2ef/0x350
[    7.293407] Call Trace:
[    7.293517]  <TASK>
[    7.293623]  wee_exit+0x1b5/0x330 [wee]
[    7.294107]  do_syscall_64+0x87/0x180
[    7.295698]  </TASK>
[    7.296310] ---[ end trace 0000000000000000 ]---
"""


@pytest.mark.parametrize(
    ("function", "said"), [("kfree", True), ("__slab_free", True), ("allocate_slab", False)]
)
def test_what_is_freed_twice_is_called_so(function: str, said: bool) -> None:
    """The kernel itself only says where in its allocator that was."""
    oops = Evidence(FREED_TWICE.format(function), 0, 1 << 7)
    (problem,) = judge(oops)
    assert problem.title == "kernel BUG in wee_exit"
    assert ("it is freed twice" in problem.detail) is said


def test_what_is_left_behind_is_residue() -> None:
    """By its kind and its name, and together with what the same call takes away.

    Where a module is loaded nobody has looked.
    """
    left = frozenset({"thread:wee", "class:misc/wee", "dev:wee", "debugfs:wee", "waiter:wee"})
    problems = judge(replace(CLEAN, left=left))
    assert all(one.verdict is Verdict.RESIDUE for one in problems)
    assert [one.title.partition("left behind: ")[2] for one in problems] == [
        "class misc/wee, dev wee: misc_deregister() was not called",
        "debugfs wee: debugfs_remove() was not called",
        "thread wee: kthread_stop() or destroy_workqueue() was not called",
        "waiter wee",
    ]
    for nothing in (None, frozenset[str]()):
        assert list(judge(replace(CLEAN, left=nothing))) == []


def test_the_folder_of_devices_is_left_with_the_first_of_them() -> None:
    """A kernel that has no other misc device makes it then; that of another class is not meant."""
    left = frozenset({"device:misc", "device:misc/wee", "misc:wee"})
    (problem,) = judge(replace(CLEAN, left=left))
    names = "device misc, device misc/wee, misc wee"
    assert problem.title.endswith(f"left behind: {names}: misc_deregister() was not called")
    (problem,) = judge(replace(CLEAN, left=frozenset({"device:misc2", "device:misc2/wee"})))
    assert problem.title.endswith(": device_destroy() or device_unregister() was not called")


def test_what_is_left_under_several_numbers_is_counted() -> None:
    """As by a module that is loaded again and again. Who needs all of them has the detail."""
    left = frozenset({"major:239 wee", "major:240 wee", "major:7 wee", "major:8 other"})
    (problem,) = judge(replace(CLEAN, left=left))
    assert problem.title.partition("left behind: ")[2] == (
        "major 239 wee (3 times, with other numbers), major 8 other: "
        "unregister_chrdev_region() or unregister_chrdev() was not called"
    )
    assert problem.detail.splitlines() == [
        "major 239 wee", "major 240 wee", "major 7 wee", "major 8 other"
    ]  # fmt: skip


def test_a_module_that_hides_is_told_and_what_it_has_is_not() -> None:
    """It is still there, so that none of it was left behind."""
    left = frozenset({"dev:wee", "hidden:wee"})
    (problem,) = judge(replace(CLEAN, left=left))
    assert str(problem) == (
        "residue: wee is loaded, and not in the kernel's list of modules any more"
    )


def test_what_still_points_into_the_module_is_residue() -> None:
    """Who it is, whereto, and what was forgotten, in one sentence."""
    remains = (
        Remain("fw_shutdown_nb", 0xFFFFFFFFC0248880, what="late_nb", location="late.c:31"),
        Remain("reboot_notifier_list", 0xFFFFFFFFC0248880, "unregister_reboot_notifier() was not "
               "called", "late_nb", "late.c:31"),
        Remain("an object of the slab cache kmalloc-64", 0xFFFFFFFFC024C3AC),
    )  # fmt: skip
    first, second = judge(replace(CLEAN, remains=remains))
    assert (first.verdict, str(first)) == (
        Verdict.RESIDUE,
        "residue: the module is unloaded, but reboot_notifier_list still holds late_nb: "
        "unregister_reboot_notifier() was not called; late_nb is defined at late.c:31",
    )
    # A neighbour in the list that points to it as well is the same thing once more.
    assert "fw_shutdown_nb points to late_nb (0xffffffffc0248880)" in first.detail
    assert str(second).endswith("kmalloc-64 still holds the module's memory at 0xffffffffc024c3ac")
    assert list(judge(CLEAN)) == []


KMEMLEAK = """\
unreferenced object 0xffff888005c41a00 (size 128):
  comm "sh", pid 300, jiffies 4294892345
  hex dump (first 32 bytes):
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
  backtrace (crc 1f2e3d4c):
    __kmalloc_cache_noprof+0x26/0x90
    wee_write+0x1/0x20 [wee]
    vfs_write+0x31/0x80
"""


def test_leaks_of_one_function_are_one_problem() -> None:
    """kmemleak's report is not a part of the log; it is read like one."""
    leaks = KMEMLEAK + KMEMLEAK.replace("41a00", "41b00")
    (problem,) = judge(replace(CLEAN, left=frozenset(), leaks=leaks))
    assert str(problem) == "leak: memory leak in wee_write (2 times)"
    assert problem.function == "wee_write"
    assert "wee_write+0x1/0x20 [wee]" in problem.detail


def test_a_problem_is_red() -> None:
    """No problem ever carries the verdict of a passed test."""
    for seen in (
        replace(CLEAN, console=BOOT + WARNING),
        replace(CLEAN, taint_after=None),
        replace(CLEAN, running=False),
        replace(CLEAN, taint_after=OE | WARN),
    ):
        problems = judge(seen)
        assert problems
        assert verdict.Verdict.PASSED not in {problem.verdict for problem in problems}


def test_a_qemu_that_ends_by_itself_is_a_host_fault() -> None:
    """A crash of QEMU, or a kill, is nothing that the module did; its title says which."""
    fault = "QEMU was killed by SIGKILL\nits last words\non two lines"
    (problem,) = judge(replace(CLEAN, running=False, taint_after=None, fault=fault))
    assert problem.verdict is Verdict.HOST_FAULT
    assert problem.title == "QEMU was killed by SIGKILL"
    assert problem.detail == "its last words\non two lines"


STALL = """\
[   90.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 75s! [sh:123]
[   90.000001] CPU: 0 PID: 123 Comm: sh Not tainted 6.12.1 #1
[   90.000002] Call Trace:
[   90.000003]  <TASK>
[   90.000004]  wee_write+0x10/0x20 [wee]
[   90.000005]  </TASK>
"""


def test_time_that_the_host_lost_is_not_the_modules() -> None:
    """A kernel whose clock goes on while nobody runs it takes that for a lockup."""
    seen = replace(CLEAN, console=BOOT + STALL)
    (problem,) = judge(replace(seen, stalls=((len(BOOT), 75.0),)))
    assert problem.verdict is Verdict.HOST_FAULT
    assert "did not run QEMU for 75 s" in problem.title
    assert "soft lockup" in problem.title


@pytest.mark.parametrize(
    "stalls", [(), ((len(BOOT), 1.2),), ((len(BOOT + STALL), 75.0),)],
    ids=["none", "a moment", "later"],
)  # fmt: skip
def test_a_lockup_that_no_stall_explains_is_the_modules(
    stalls: tuple[tuple[int, float], ...],
) -> None:
    """Nor is anything else that the kernel reports: an oops does not come from lost time."""
    (problem,) = judge(replace(CLEAN, console=BOOT + STALL, stalls=stalls))
    assert problem.verdict is Verdict.SPLAT
    oops = judge(replace(CLEAN, console=BOOT + OOPS, stalls=((0, 75.0),)))
    assert [problem.verdict for problem in oops] == [Verdict.SPLAT]


def test_an_expectation_names_the_function_that_the_report_shows() -> None:
    """Or the title's, which may be the kernel's own; and no third one."""
    console = BOOT + OOPS.replace("wee_oops+0x5/0x20 [wee]", "fifo_open+0x5/0x20")
    seen = replace(CLEAN, console=console, taint_after=OE | DIE)
    (problem,) = judge(seen)
    assert problem.function == "wee_write"
    for function in ("wee_write", "fifo_open", None):
        assert list(judge(replace(seen, expected=expected("page-fault", function)))) == []
    assert judge(replace(seen, expected=expected("page-fault", "vfs_write")))


OTHER = WARNING.replace("wee_write", "wee_other")


def test_an_expectation_without_a_function_covers_one_report() -> None:
    """As often as it comes; another one is red, unless that is expected too."""
    seen = replace(CLEAN, console=BOOT + WARNING + OTHER + WARNING, taint_after=OE | WARN)
    (problem,) = judge(replace(seen, expected=expected("warning")))
    assert problem.title == "WARNING in wee_other"
    for both in ("wee_write", "wee_other", None):
        wanted = expected("warning") + expected("warning", both)
        assert list(judge(replace(seen, expected=wanted))) == []
    inner = Expectation(klog.Kind.WARNING, None, 0, len(BOOT + WARNING))
    seen = replace(CLEAN, console=BOOT + WARNING + OTHER, expected=(*expected("warning"), inner))
    assert list(judge(seen)) == []


def test_an_expected_warning_is_one_place_of_its_function() -> None:
    """Another place there warns of something else."""
    second = WARNING.replace("wee.c:42 wee_write+0x1c", "wee.c:50 wee_write+0x3a")
    seen = replace(CLEAN, console=BOOT + WARNING + second + WARNING, taint_after=OE | WARN)
    (problem,) = judge(replace(seen, expected=expected("warning")))
    assert (problem.title, problem.times) == ("WARNING in wee_write", 1)
    assert "wee.c:50" in problem.detail
    assert list(judge(replace(seen, expected=expected("warning", "wee_write")))) == []


def test_an_expected_report_excuses_only_the_taint_of_reports() -> None:
    """A forced unload or a proprietary module is still to be explained, or an earlier report's."""
    wanted = replace(CLEAN, console=BOOT + WARNING, expected=expected("warning"))
    assert list(judge(replace(wanted, taint_after=OE | WARN | DIE | 1 << 5 | 1 << 14))) == []
    (problem,) = judge(replace(wanted, taint_after=OE | WARN | 1 << 3))
    assert "(R)" in problem.title
    over = Expectation(klog.Kind.WARNING, None, -500, -100)  # in what was judged before
    (problem,) = judge(replace(CLEAN, expected=(over,), taint_after=OE | WARN))
    assert "(W)" in problem.title


WANTED = "[    3.100000] Kernel panic - not syncing: wee wanted it\n"


@pytest.mark.parametrize(
    ("log", "kind"),
    [(WANTED, "panic"), (OOPS + PANIC, "page-fault")],
    ids=["panic", "oops"],
)
def test_a_kernel_that_stops_as_expected_is_no_problem(log: str, kind: str) -> None:
    """Whether QEMU has seen it, has ended by it, or the guest is merely silent."""
    wanted = replace(CLEAN, console=BOOT + log, taint_after=None, expected=expected(kind))
    for seen in (replace(wanted, panicked=True), replace(wanted, running=False), wanted):
        assert list(judge(seen)) == []
        assert list(judge(replace(seen, timed_out="echo x"))) == []
        assert judge(replace(seen, expected=()))
    (problem,) = judge(replace(wanted, console=BOOT + WARNING + log, panicked=True))
    assert problem.title == "WARNING in wee_write"
    (problem,) = judge(replace(wanted, running=False, fault="exit status -9"))
    assert problem.verdict is Verdict.HOST_FAULT


def test_what_was_expected_does_not_excuse_another_end() -> None:
    """A warning stops no kernel, nor do a module's words."""
    wanted = replace(CLEAN, taint_after=None, expected=expected("warning"))
    words = "[    4.000000] wee: Kernel panic - not syncing\n"
    for console in (WARNING, WARNING + words):
        for seen, verdict_ in (
            (replace(wanted, panicked=True), Verdict.PANIC),
            (replace(wanted, running=False), Verdict.PANIC),
            (wanted, Verdict.LOST),
        ):
            (problem,) = judge(replace(seen, console=BOOT + console))
            assert problem.verdict is verdict_


@pytest.mark.parametrize("prefix", ["[    9.000000][  T412] ", "[    9.000000] [  C1] ", ""])
def test_registers_are_not_shown(prefix: str) -> None:
    """Whatever a kernel prints before each line, and nothing else is left out."""
    shown = ["RIP: 0010:wee_write+0x1c/0x90 [wee]", "Call Trace:", " wee_write+0x1c/0x90 [wee]"]
    hidden = [
        "RAX: 0000000000000000 RBX: 0000000000000000", "R13: 0000000000000000", "Code: 90 90",
        " ? vfs_write+0xf1/0x440", "Modules linked in: wee(OE)", "CR2: 0000000000000000",
    ]  # fmt: skip
    excerpt = "\n".join(f"{prefix}{line}" for line in [*hidden, *shown, *hidden])
    assert condensed(excerpt).splitlines() == [f"{prefix}{line}" for line in shown]


def test_guesses_are_shown_where_nothing_else_is_known() -> None:
    """As of a thread whose code is gone, where the unwinder is sure of no call."""
    guessed = [" ? __pfx_kthread+0x10/0x10", " ? kthread+0xcf/0x100"]
    excerpt = "\n".join(["RIP: 0010:0xffffffffc0240161", "Call Trace:", " <TASK>", *guessed])
    assert condensed(excerpt) == excerpt
    assert condensed(f"{excerpt}\n ret_from_fork+0x31/0x50").count("?") == 0


def test_taint_flags_that_were_cleared_are_red() -> None:
    """The kernel only adds to them; whoever clears them has something to hide."""
    (problem,) = judge(replace(CLEAN, taint_before=OE | WARN, taint_after=OE))
    assert str(problem) == "splat: somebody has cleared the kernel's taint flags (W)"


@pytest.mark.parametrize(
    ("name", "letter"), [("proprietary", "P"), ("staging", "C"), ("test", "N")]
)
def test_a_taint_that_is_declared_is_green(name: str, letter: str) -> None:
    """It says what a module is, and not what it has done; another one is as red as ever."""
    bit = verdict.DECLARED_TAINTS[name]
    seen = replace(CLEAN, taint_after=OE | bit)
    assert judge(replace(seen, declared=bit)) == []
    (problem,) = judge(seen)
    assert f"tainted ({letter})" in problem.title
    (problem,) = judge(replace(seen, taint_after=OE | bit | DIE, declared=bit))
    assert "tainted (D)" in problem.title


# -- what the fixtures make of it, in runs of pytest whose machines are a few lines of Python -----

# Each machine has a number, which its kernel's words begin with where a test wants to know it.
FAKE = """\
import itertools
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

import pytest

from harness import config
from harness.examine import artifacts
from harness.machines import saved
from harness.plugin import fixtures, select
from harness.plugin.supply import SOURCE
from harness.errors import GuestLost, MachineError
from harness.machines.clone import Baseline
from harness.host.proc import Deadline
from harness.qemu import Leftovers

WARNING = {warning!r}
OTHER = WARNING.replace("wee_write", "wee_other")
PANIC = {panic!r}


class Machine:
    unread, full, fault, stalls, paced, recordable = 0, False, "", (), None, True

    def __init__(self, number):
        self.number, self.console, self.taint = number, "", {taint}
        self.running, self.panicked, self.later = True, False, ""
        self.stopped, self.left = False, None

    def patience(self, seconds):
        return Deadline(seconds)

    def mark(self, deadline):
        self.console, self.later = self.console + self.later, ""
        if not self.running or self.panicked:
            raise MachineError("QEMU is gone")
        return self.taint

    def console_text(self):
        return self.console

    def leftovers(self, deadline, end=False, careful=False, seen=None):
        return Leftovers(self.left or frozenset(), loaded=self.left is None)

    def leaks(self, deadline):
        return ""

    def probes(self, deadline):
        return ()

    @property
    def agent(self):  # it is each of its own parts
        return self

    log = debugger = snapshot = agent

    def take_unasked(self):
        return ()

    def registers(self, deadline):
        return "RIP=0000000000000000"

    def dump(self, path, deadline):
        path.write_text("all of it")

    def resume(self, deadline):
        self.stopped = False

    def check(self, said):
        assert not self.stopped
        self.console += said
        if "panic" in said:
            self.panicked = True
            raise GuestLost("gone")


def save(machine, *_):
    machine.stopped = True


class Supply:
    built = None
    lab = SimpleNamespace(
        kernel=SimpleNamespace(name="fake", vmlinux="/none", sysroot=SimpleNamespace(root="/none")),
        image=SimpleNamespace(keys=None),
    )

    def __init__(self):
        self.numbers, self.closed = itertools.count(), []

    def prepare(self, item):
        pass

    def take(self, wanted):
        machine = Machine(next(self.numbers))
        ends = ExitStack()
        ends.callback(self.closed.append, machine.number)
        return SimpleNamespace(
            machine=machine, guest=machine, audit=None, template=None, facts={{}},
            baseline=Baseline(taint={taint}), commands=0, close=ends.close,
        )


@pytest.fixture(scope="session")
def lab():
    return Supply.lab


@pytest.fixture(scope="session")
def supply(request, lab):
    supply = request.config.stash[SOURCE] = Supply()
    supply.keeper = artifacts.Keeper(
        partial(fixtures._run_folder, request.config, lab), limit=artifacts.MACHINES
    )
    return supply


@pytest.fixture(scope="session", autouse=True)  # the last judgement comes after every test's end
def nothing_is_saved(request):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(config, "RESULTS", request.config.rootpath / "results")
        monkeypatch.setattr(saved, "save", save)
        yield
"""

Trial = Callable[..., pytest.RunResult]


@pytest.fixture
def trial(pytester: pytest.Pytester) -> Trial:
    """Runs tests, given as text, that get such machines."""
    pytester.makeconftest(FAKE.format(warning=WARNING, panic=PANIC, taint=OE))

    def run(tests: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile("import pytest\nfrom conftest import *\n" + tests)
        return pytester.runpytest("-p", "no:cacheprovider", *options)

    return run


def test_a_skip_hides_nothing(trial: Trial) -> None:
    """A report is red, whether the test or a fixture skips after it; a mere skip is a skip."""
    done = trial("""
@pytest.fixture
def gives_up(guest):
    guest.check(WARNING)
    pytest.skip("in a fixture")

def test_splat(guest):
    guest.check(WARNING)
    pytest.skip("after a splat")

def test_splat_in_fixture(gives_up):
    pass

def test_quiet(guest):
    pytest.skip("for no reason")
""")
    done.assert_outcomes(failed=1, errors=1, skipped=1)
    done.stdout.fnmatch_lines(["splat: WARNING in wee_write", "Skipped: after a splat"])
    assert "to stand in this machine" in done.stdout.str()


def test_a_shared_machine_is_watched_between_tests(trial: Trial) -> None:
    """What a fixture's end or a timer brings is red where it is found, and only there."""
    done = trial("""
@pytest.fixture
def untidy(shared):
    yield
    shared.check(WARNING)

def test_ends_badly(untidy):
    pass

def test_is_well_after_that(shared):
    assert shared.number == 1
    Late.machine = shared

class Late:
    machine = None

@pytest.fixture
def late():
    # Before `shared` looks at the machine that the test before has left.
    Late.machine.later = WARNING

def test_after_timer(late, shared):
    pass

def test_is_well(shared):
    assert shared.number == 2
    Late.machine = shared

@pytest.fixture
def dies():
    Late.machine.running = False

def test_after_death(dies, shared):
    pass

def test_is_well_again(shared, supply):
    assert shared.number == 3
    assert supply.closed == [0, 1, 2]
""", "-rA")  # fmt: skip
    said = done.stdout.str()
    assert done.parseoutcomes() == {"passed": 4, "errors": 3}, said
    done.stdout.fnmatch_lines([
        "*ERROR at teardown of test_ends_badly*", "splat: WARNING in wee_write",
        "*ERROR at setup of test_after_timer*", "splat: WARNING in wee_write",
        "*ERROR at setup of test_after_death*", "panic: the machine stopped*",
    ])  # fmt: skip


def test_what_was_judged_is_not_judged_again(trial: Trial) -> None:
    """A shared machine's tests answer for what is new, of the log and of the taint."""
    done = trial("""
@pytest.fixture
def busy(shared):
    yield

def test_expects(shared, busy, expect_splat):
    with expect_splat("warning"):
        shared.check(WARNING)
    shared.taint |= 1 << 9

def test_next(shared, busy):
    assert shared.number == 0
""")
    done.assert_outcomes(passed=2)


def test_an_expected_panic_is_green(trial: Trial) -> None:
    """Whoever shares the machine gets another one."""
    done = trial("""
from harness.errors import GuestLost

def test_own(guest, expect_splat):
    with expect_splat("panic"), pytest.raises(GuestLost):
        guest.check(PANIC.replace("Fatal exception", "as planted"))

def test_shared(shared, expect_splat):
    with expect_splat("panic"), pytest.raises(GuestLost):
        shared.check(PANIC.replace("Fatal exception", "as planted"))

def test_next(shared, supply):
    assert shared.number == 2
    assert supply.closed == [0, 1]
""")
    done.assert_outcomes(passed=3)


def test_the_taints_of_a_test_are_its_markers(trial: Trial) -> None:
    """Of the test, its class and its file together."""
    done = trial("""
@pytest.mark.taint("staging")
class TestStaging:
    @pytest.mark.taint("test")
    def test_both(self, guest):
        guest.taint |= 1 << 10 | 1 << 18

    def test_one(self, guest):
        guest.taint |= 1 << 10 | 1 << 18

def test_none(guest):
    guest.taint |= 1 << 10
""")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(["*became tainted (N) *", "*became tainted (C) *"])


def test_a_taint_that_nobody_knows_is_refused(trial: Trial) -> None:
    """Before any test is run."""
    done = trial("@pytest.mark.taint('stageing')\ndef test_it(guest):\n    pass\n")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*no taint named 'stageing'*", "*proprietary, staging, *"])


def test_each_machine_of_a_test_leaves_its_own(trial: Trial, pytester: pytest.Pytester) -> None:
    """The second one's evidence is not in the first one's place."""
    done = trial("""
def test_two(guest, shared):
    guest.check("[    1.0] the one\\n")
    shared.check("[    1.0] the other\\n")
    assert False
""")
    done.assert_outcomes(failed=1)
    said = done.stdout.str()
    consoles = re.findall("^console: (.*)$", said, re.MULTILINE)
    assert len(consoles) == 2
    texts = [(pytester.path / console).read_text() for console in consoles]
    assert texts == ["[    1.0] the one\n", "[    1.0] the other\n"]


def test_tests_with_like_names_leave_their_own(trial: Trial, pytester: pytest.Pytester) -> None:
    """Each path that a red test promises leads to what that test has left."""
    done = trial("""
@pytest.mark.parametrize("said", ["a/b", "a-b", "a b"])
def test_says(guest, said):
    guest.check(f"[    1.0] {said}\\n")
    assert False
""")
    done.assert_outcomes(failed=3)
    consoles = re.findall("^console: (.*)$", done.stdout.str(), re.MULTILINE)
    texts = [(pytester.path / console).read_text() for console in consoles]
    assert texts == ["[    1.0] a/b\n", "[    1.0] a-b\n", "[    1.0] a b\n"]


def test_all_processes_of_a_run_leave_five_machines(trial: Trial) -> None:
    """Not five for each: with sixteen jobs that would be eighty machines' memory."""
    done = trial("""
@pytest.mark.parametrize("number", range(8))
def test_red(guest, number):
    assert False
""", "-n", "2")  # fmt: skip
    done.assert_outcomes(failed=8)
    said = done.stdout.str()
    assert said.count("to stand in this machine: ") == 5
    assert said.count("(its machine is not kept: those of 5 other red tests are)") == 3


def test_a_run_keeps_what_it_leaves_where_it_is_told(
    trial: Trial, pytester: pytest.Pytester
) -> None:
    """A run within another one's test does not write into that one's folder."""
    done = trial("def test_red(guest):\n    assert False\n", "--kernel-results=elsewhere/here")
    done.assert_outcomes(failed=1)
    (console,) = re.findall("^console: (.*)$", done.stdout.str(), re.MULTILINE)
    assert console.startswith("elsewhere/here/")
    assert (pytester.path / console).exists()


def test_a_full_disk_does_not_hide_why_a_test_is_red(trial: Trial) -> None:
    """What cannot be kept is said, beside the verdict."""
    done = trial("""
from errno import ENOSPC
from pathlib import Path

@pytest.fixture(params=["write_text", "save"])
def full(monkeypatch, request):
    def fails(*_):
        raise OSError(ENOSPC, "No space left on device")
    monkeypatch.setattr(Path if request.param == "write_text" else saved, request.param, fails)

def test_red(full, guest):
    guest.check(WARNING)
""")
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines([
        "splat: WARNING in wee_write", "(nothing could be kept: *No space left*)",
        "splat: WARNING in wee_write", "(the machine could not be saved: *No space left*)",
    ])  # fmt: skip


def test_a_machine_that_was_saved_runs_on(trial: Trial) -> None:
    """Fixtures that clean up in the guest of a red test find it as it was."""
    done = trial("""
@pytest.fixture
def tidy(guest):
    yield
    guest.check("[    9.0] cleaned up\\n")

def test_red(tidy, guest, request):
    assert False
""")
    done.assert_outcomes(failed=1)


def test_a_machine_that_could_not_be_saved_runs_on(trial: Trial) -> None:
    """Saving stops a machine first; where the rest fails it is not left standing."""
    done = trial("""
from harness.errors import MachineError

@pytest.fixture
def unlucky(monkeypatch):
    def save(machine, *_):
        machine.stopped = True
        raise MachineError("QEMU could not save the machine's state")
    monkeypatch.setattr(saved, "save", save)

@pytest.fixture
def tidy(guest):
    yield
    guest.check("[    9.0] cleaned up\\n")

def test_red(unlucky, tidy):
    assert False
""")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["(the machine could not be saved: QEMU could not save *)"])


def test_a_test_that_makes_its_machines_itself_has_a_limit(trial: Trial) -> None:
    """It asks for ``lab`` only, as the harness's own tests do."""
    done = trial("""
@pytest.fixture(scope="session")
def lab():
    return None

@pytest.fixture
def limits(request):
    return [(mark.args, mark.kwargs) for mark in request.node.iter_markers("timeout")]

def test_usual(lab, limits):
    assert limits == [((select.TEST_SECONDS,), {"func_only": True})]

@pytest.mark.timeout(7)
def test_own(lab, limits):
    assert limits[0] == ((7,), {"func_only": True})

def test_without_machines(limits):
    assert limits == []
""")
    done.assert_outcomes(passed=3)


def test_a_limit_of_a_tests_own_is_none_for_its_verdict(trial: Trial) -> None:
    """What takes long is to look at the machine, which says why the test is red."""
    done = trial("""
import signal

@pytest.fixture
def slow(monkeypatch):
    def save(*_):
        while signal.getitimer(signal.ITIMER_REAL)[0]:  # such is the limit, where there is one
            pass
    monkeypatch.setattr(saved, "save", save)

@pytest.mark.timeout(20)
def test_red(guest, slow):
    guest.check(WARNING)

@pytest.mark.timeout(0.2)
def test_endless(guest):
    while True:
        pass
""")
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(["splat: WARNING in wee_write", "*Timeout (>0.2s)*"])


def test_an_expectation_is_of_one_machine(trial: Trial) -> None:
    """What one may say another may not; of two it must be known which one."""
    done = trial("""
def test_other(guest, shared, expect_splat):
    guest.check(WARNING)
    with expect_splat("warning", guest=shared):
        shared.check(WARNING)

def test_own(guest, shared, expect_splat):
    with expect_splat("warning", guest=guest):
        guest.check(WARNING)

def test_which(guest, shared, expect_splat):
    with expect_splat("warning"):
        pass
""")
    done.assert_outcomes(failed=2, passed=1)
    done.stdout.fnmatch_lines([
        "splat: WARNING in wee_write", "*several machines*", "*expect_splat('warning', guest=*"
    ])  # fmt: skip


def test_registers_are_kept_of_every_stuck_machine(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester
) -> None:
    """Those of the first few are kept whole; that the others are not is said."""
    monkeypatch.setattr(artifacts, "MACHINES", 1)
    done = trial("""
@pytest.mark.parametrize("number", range(2))
def test_dies(guest, number):
    guest.check(PANIC.replace("Fatal exception", "as planted"))
""")
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines([
        "registers: *0?/registers.txt", "memory, *", "to stand in this machine: *",
        "to look into it with gdb: invoke *debug --test */*0]*",
        "to go back in time in it: run the test again with --kernel-record",
        "registers: *1?/registers.txt", "(its machine is not kept: those of 1 other red tests are)",
    ])  # fmt: skip


def test_a_qemu_that_ends_while_its_cpu_is_watched_is_no_error() -> None:
    """What is known of the machine is enough for a verdict."""

    def silent(_: Deadline) -> int:
        raise MachineError("no answer")

    def gone() -> bool:
        raise FileNotFoundError("/proc/1/task/1/schedstat")

    machine: Any = SimpleNamespace(
        patience=Deadline, vcpu_is_busy=gone, console_text=lambda: BOOT, running=True,
        panicked=False, fault="", stalls=(), log=SimpleNamespace(unread=0, full=False),
        agent=SimpleNamespace(take_unasked=tuple, mark=silent),
    )  # fmt: skip
    (problem,) = judge(evidence.gather(machine, Baseline(taint=OE)))
    assert problem.verdict is Verdict.LOST


# -- loading the module ------------------------------------------------------------


class Loading:
    """A machine in which a module is loaded; what comes of that is for a test to say."""

    running, panicked, fault, unread, full = True, False, "", 0, False
    stalls: tuple[tuple[int, float], ...] = ()

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = self.guest = self.agent = self.log = self
        self.console, self.said, self.later = BOOT + WARNING, "", ""
        self.error: GuestError | None = None
        self.taint: int | None = OE | WARN
        monkeypatch.setattr(freeze, "derive", self.derive)
        monkeypatch.setattr("harness.examine.loading.load", self.load)
        monkeypatch.setattr(symbols, "explain", lambda problems, _: problems)

    def derive(
        self, *given: Callable[[object], object], look: Callable[[int | None], None]
    ) -> object:
        facts = given[3](self)
        self.console += self.later
        look(self.taint)
        return facts

    def load(self, *_: object) -> None:
        self.console += self.said
        if self.error:
            raise self.error

    def patience(self, seconds: float) -> Deadline:
        return Deadline(seconds)

    def mark(self, _: Deadline) -> int:
        return OE | WARN

    def take_unasked(self) -> tuple[str, ...]:
        return ()

    def take_inventory(self, _: Deadline) -> None:
        pass

    def leftovers(self, _: Deadline, **_how: object) -> qemu.Leftovers:
        return qemu.Leftovers(loaded=True)

    def probes(self, _: Deadline) -> tuple[str, ...]:
        return ()

    def stacks(self, _: Deadline) -> str:
        return "task insmod(77,D):\n wee_init+0x1/0x2 [wee]"

    def check(self, _: str) -> str:
        return ".text:0x1\n"

    def console_text(self) -> str:
        return self.console


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Loading:
    return Loading(monkeypatch)


def load(save_evidence: SaveEvidence = lambda *_: "") -> object:
    """What is known of the machine with the module loaded."""
    nothing: Any = SimpleNamespace(cache=None)
    wee = SimpleNamespace(name="wee")
    module: Any = SimpleNamespace(name="wee", objects=(wee,), digest="0")
    return loaded_template(nothing, nothing, module, save_evidence)


def test_loading_a_module_is_not_blamed_for_the_boot(loading: Loading) -> None:
    """Where a machine cannot be frozen, the boot is on the same console."""
    assert load() == {"text": "0x1", "sections": {"wee": {".text": "0x1"}}}


def test_a_report_while_loading_is_a_problem(loading: Loading) -> None:
    """insmod succeeds all the same. What the machine leaves is kept, and where is known."""

    def leave(machine: object, problems: Sequence[verdict.Problem]) -> str:
        return f"{machine is loading} {len(problems)}"

    loading.said = OTHER
    with pytest.raises(KernelProblem, match=r"^splat: WARNING in wee_other\n") as caught:
        load(leave)
    assert caught.value.kept == "True 1"


def test_what_ends_insmod_is_told_by_the_kernel(loading: Loading) -> None:
    """An oops in the module's init kills insmod; the report comes first, then its status."""
    loading.said = OOPS
    loading.error = CommandFailed("`insmod` ended with status 137")
    with pytest.raises(KernelProblem, match=r"^splat: .*wee_oops") as caught:
        load()
    assert caught.value.__cause__ is loading.error


def test_an_insmod_that_does_not_end_says_where_it_is(loading: Loading) -> None:
    """The guest is well, and its kernel knows in which function."""
    loading.error = CommandTimeout("`insmod` did not end", command=("insmod",))
    with pytest.raises(KernelProblem, match=r"^hung: ") as caught:
        load()
    assert caught.value.problems[0].function == "wee_init"


def test_an_insmod_that_is_refused_says_so_itself(loading: Loading) -> None:
    """The kernel has nothing to complain about."""
    loading.error = CommandFailed("`insmod` ended with status 1")
    with pytest.raises(CommandFailed, match="status 1"):
        load()


@pytest.mark.parametrize(
    ("later", "taint", "said"),
    [
        (OTHER, OE | WARN, "^splat: WARNING in wee_other\n"),
        ("", OE | WARN | DIE, r"^splat: the kernel became tainted \(D\)"),
        (PANIC, None, "^panic: "),
        ("", None, "^panic: the machine stopped or restarted by itself"),
    ],
)
def test_what_comes_after_loading_is_a_problem_too(
    loading: Loading, later: str, taint: int | None, said: str
) -> None:
    """A thread or a timer that init has started goes on while the machine is being frozen."""
    loading.later, loading.taint = later, taint
    with pytest.raises(KernelProblem, match=said):
        load()


def test_what_upset_the_kernel_once_is_not_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test hears of it, and none has to wait for it once more."""
    problem = verdict.Problem(Verdict.HUNG, "insmod is stuck")
    tried = []

    def upset(*_: object) -> None:
        tried.append(1)
        raise KernelProblem([problem], "console: here") from CommandTimeout("insmod")

    monkeypatch.setattr("harness.plugin.supply.loaded_template", upset)
    base = SimpleNamespace(entry=SimpleNamespace(digest="0"))
    lab: Any = SimpleNamespace(template=lambda **_: base, build=lambda _: None)
    keeper = Keeper(Path)
    source = MachineSource(lab, Path(), keeper)
    for _ in range(2):
        with pytest.raises(KernelProblem) as caught:
            source.take(MachineKind(loaded=True))
        assert (caught.value.problems, caught.value.kept) == ((problem,), "console: here")
        assert isinstance(caught.value.__cause__, CommandTimeout)
    assert len(tried) == 1
    source.pool.close()


def test_what_a_fixture_kept_is_in_the_report(trial: Trial) -> None:
    """The machine was never the test's, so nobody else can say where it is."""
    done = trial("""
from harness.judge.problem import KernelProblem
from harness.judge.verdict import Problem, Verdict

@pytest.fixture
def loaded():
    raise KernelProblem([Problem(Verdict.PANIC, "in init")], "console: over there")

def test_it(loaded):
    pass
""")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["panic: in init", "*evidence*", "console: over there"])


ANYWHERE = {
    "setup": "def test_it(warns_first):\n    pass",
    "fixture's finalizer": "def test_it(finalizer_first):\n    pass",
    "test's finalizer": "def test_it(guest, request):\n"
    "    request.addfinalizer(lambda: guest.check(WARNING))",
    "node's finalizer": "def test_it(guest, request):\n"
    "    request.node.addfinalizer(lambda: guest.check(WARNING))",
    "after a red test": "def test_it(warns_last):\n    assert False",
    "after a skip": "def test_it(warns_last):\n    pytest.skip('for a reason')",
    "after a fixture that fails": "def test_it(warns_last, fails):\n    pass",
    "last moments": "def test_it(late, guest):\n    AtTheEnd.machine = guest",
    "shared": "def test_it(shared, request):\n"
    "    request.addfinalizer(lambda: shared.check(WARNING))",
    "fetched": "def test_it(request):\n    request.getfixturevalue('guest').check(WARNING)",
    "fetched to end": "def test_it(request):\n    guest = request.getfixturevalue('guest')\n"
    "    request.addfinalizer(lambda: guest.check(WARNING))",
}


@pytest.mark.parametrize("where", ANYWHERE)
def test_a_report_in_any_part_of_a_test_is_that_tests(trial: Trial, where: str) -> None:
    """Of its fixtures, its own finalizers, and its machine's last moments."""
    done = trial(
        """
@pytest.fixture
def warns_first(guest):
    guest.check(WARNING)

@pytest.fixture
def warns_last(guest):
    yield
    guest.check(WARNING)

@pytest.fixture
def finalizer_first(guest, request):
    request.addfinalizer(lambda: guest.check(WARNING))

@pytest.fixture
def fails():
    assert False

class AtTheEnd:
    machine = None

@pytest.fixture
def late():
    # No fixture of a machine's: this ends after them all, as a timer in the guest might.
    yield
    if AtTheEnd.machine:
        AtTheEnd.machine.later = WARNING

"""
        + ANYWHERE[where]
        + "\n\ndef test_next(guest):\n    AtTheEnd.machine = None\n",
        "-rA",
    )
    done.stdout.fnmatch_lines(["splat: WARNING in wee_write", "PASSED *::test_next"])
    # The report is shown for this test, and once.
    assert done.stdout.str().count("\nsplat: ") == 1
    assert "of test_next" not in done.stdout.str()


def test_what_a_module_left_behind_is_said_once(trial: Trial) -> None:
    """It is still there when the test's fixtures have ended; what is new then is said."""
    done = trial("""
@pytest.fixture
def worse(guest):
    yield
    guest.left |= {"misc:wee"}

def test_leaves(guest):
    guest.left = frozenset({"dev:wee"})

def test_leaves_more(guest, worse):
    guest.left = frozenset({"dev:wee"})
""")
    done.assert_outcomes(failed=2, errors=1)
    said = re.findall("^residue: .* left behind: ([^:\n]*)", done.stdout.str(), re.MULTILINE)
    assert said == ["dev wee, misc wee", "dev wee", "dev wee"]


XFAIL = """
from harness.errors import BuildError, CommandFailed, GuestLost, SpaceError

MARKS = {
    "lax": pytest.mark.xfail(strict=False),
    "strict": pytest.mark.xfail(strict=True),
    "raises": pytest.mark.xfail(raises=AssertionError, strict=False),
}

@pytest.fixture
def bad_start(guest):
    guest.check(WARNING)
    assert False

@pytest.fixture
def bad_end(guest):
    yield
    guest.check(WARNING)

@pytest.fixture
def not_built():
    raise BuildError("module/ does not build")

@pytest.fixture
def not_loaded(guest):
    raise CommandFailed("insmod: Invalid argument")

@pytest.fixture
def fails_at_end():
    yield
    assert False

%s
"""
NOT_EXCUSED = {
    "splat": "def test_it(guest):\n    guest.check(WARNING)\n    assert False",
    "quiet splat": "def test_it(guest):\n    guest.check(WARNING)",
    "panic": "def test_it(guest):\n    guest.check(PANIC)",
    "fixture": "def test_it(bad_start):\n    pass",
    "teardown": "def test_it(bad_end):\n    pass",
    "teardown of red": "def test_it(bad_end):\n    assert False",
    "finalizer": "def test_it(guest, request):\n"
    "    request.addfinalizer(lambda: guest.check(WARNING))",
    "two teardowns": "def test_it(fails_at_end, bad_end):\n    pass",
    "dynamic": "def test_it(guest):\n    guest.check(WARNING)\n    pytest.xfail('known')",
    "host": "def test_it(guest):\n    raise SpaceError('no space left')",
    "build": "def test_it(not_built):\n    pass",
}


@pytest.mark.parametrize("mark", ["lax", "strict", "raises"])
@pytest.mark.parametrize("what", NOT_EXCUSED)
def test_xfail_excuses_no_report_of_the_kernel(trial: Trial, what: str, mark: str) -> None:
    """An expected report is what expect_splat is for; xfail is for what the test itself says."""
    done = trial(XFAIL % f"@MARKS[{mark!r}]\n{NOT_EXCUSED[what]}")
    # Where only the host is to blame the status is another one.
    assert done.ret in (pytest.ExitCode.TESTS_FAILED, HostError.exit_status)
    words = {"host": "no space left", "panic": "panic: *", "build": "module/ does not build"}
    done.stdout.fnmatch_lines([words.get(what, "splat: WARNING in wee_write")])


def test_xfail_excuses_what_the_test_itself_says(trial: Trial) -> None:
    """The kernel has nothing to report, or what it reports is expected."""
    done = trial(
        XFAIL
        % """
@MARKS["lax"]
def test_marked(guest):
    assert False

def test_dynamic(guest):
    pytest.xfail("known")

@pytest.mark.xfail(run=False)
def test_not_run(guest):
    guest.check(WARNING)

@MARKS["lax"]
def test_fixture(not_loaded):
    pass

@MARKS["strict"]
def test_expects(guest, expect_splat):
    with expect_splat("warning"):
        guest.check(WARNING)
    assert False
"""
    )
    assert done.ret == pytest.ExitCode.OK
    done.assert_outcomes(xfailed=5)


HOST = """
from harness.errors import GuestLost, SpaceError

@pytest.fixture
def unlucky(guest):
    raise SpaceError("no space left")

def test_no_space(unlucky):
    pass

def killed(guest):
    guest.running, guest.fault = False, "exit status -9"

def test_killed(guest):
    killed(guest)
    raise GuestLost("gone")

def test_killed_unseen(guest):
    killed(guest)

def test_well(guest):
    pass
"""
NOT_HOST = {
    "assertion": "def test_own(guest):\n    assert False",
    "both": "def test_both(guest):\n    killed(guest)\n    assert False",
    "splat": "def test_splat(guest):\n    guest.check(WARNING)\n    killed(guest)",
    "space": "def test_space(guest):\n    guest.check(WARNING)\n    raise SpaceError('')",
    "strict": "@pytest.mark.xfail(strict=True)\ndef test_xpass(guest):\n    pass",
}


@pytest.mark.parametrize("options", [(), ("-n2",), ("-x",), ("-q", "-q")], ids=" ".join)
def test_where_only_the_host_is_to_blame_the_status_says_so(
    trial: Trial, options: tuple[str, ...]
) -> None:
    """No kernel is red for a full disk, nor for a QEMU that was killed."""
    done = trial(HOST, *options)
    assert done.ret == HostError.exit_status
    done.stdout.fnmatch_lines(["only the host is to blame; *"])


@pytest.mark.parametrize("other", NOT_HOST)
def test_any_other_red_test_is_red(trial: Trial, other: str) -> None:
    """What the test, or the kernel, says counts, whatever the host does meanwhile."""
    done = trial(HOST + NOT_HOST[other])
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    assert "only the host" not in done.stdout.str()


def test_a_worker_that_dies_is_red(trial: Trial) -> None:
    """It cannot say why any more, and nobody takes the others' word for it."""
    done = trial(f"{HOST}\ndef test_dies(guest):\n    import os\n    os._exit(3)\n", "-n1")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["*worker*crashed*"])
    assert trial("def test_well(guest):\n    pass", "-n1").ret == pytest.ExitCode.OK


RACE = """\
[   38.730561] ==================================================================
[   38.742142] BUG: KCSAN: data-race in hlist_bl_add_head / hlist_bl_lock
[   38.742696]
[   38.742976] read-write (marked) to 0xffffffff82999110 of 8 bytes by task 59 on cpu 0:
[   38.743356]  hlist_bl_lock+0x2a/0x70
[   38.745860]  d_alloc_parallel+0x248/0x530
[   38.749832]  x64_sys_call+0x48/0xe10
[   38.750000]
[   38.751019] read to 0xffffffff82999110 of 8 bytes by task 60 on cpu 1:
[   38.751311]  hlist_bl_add_head+0x22/0x90
[   38.751583]  d_alloc_parallel+0x4f1/0x530
[   38.759542]  x64_sys_call+0x48/0xe10
[   38.760928]
[   38.760929] Reported by Kernel Concurrency Sanitizer on:
[   38.781632] CPU: 1 UID: 0 PID: 60 Comm: perl Tainted: G           O       6.12.118-race #1
[   38.781640] ==================================================================
"""


def test_a_race_of_the_kernels_own_is_no_modules() -> None:
    """One side in a module is enough to make it one."""
    assert judge(replace(CLEAN, console=BOOT + RACE)) == []
    ours = RACE.replace("hlist_bl_lock+0x2a/0x70", "wee_write+0x2a/0x70 [wee]")
    (problem,) = judge(replace(CLEAN, console=BOOT + ours))
    assert "data-race" in problem.title
    assert problem.function == "wee_write"


INTERRUPTED = """\
[   38.751400]  asm_sysvec_apic_timer_interrupt+0x1b/0x20
[   38.751410]  wee_counts+0x18/0x30 [wee]
[   38.751420]  kthread+0x1b0/0x1c0
[   38.751430]
[   38.751440] 1 lock held by wee/89:
[   38.751450]  #0: ffff88801bf2bed8 (&wee_lock){+.+.}-{4:4}, at: wee_counts+0x10/0x30 [wee]
[   38.751460] irq event stamp: 21760
[   38.751470] hardirqs last  enabled at (21759): [<ffffffffa0000018>] wee_counts+0x18/0x30 [wee]
"""


@pytest.mark.parametrize(
    "entry",
    ["asm_sysvec_apic_timer_interrupt", "asm_common_interrupt", "handle_softirqs", "wee_tick"],
)
def test_who_was_interrupted_by_a_race_of_the_kernels_own_has_not_raced(entry: str) -> None:
    """It may be in a module's code, with a lock. What a module's handler does is its own."""
    interrupted = INTERRUPTED.replace("asm_sysvec_apic_timer_interrupt", entry)
    console = RACE.replace("[   38.751583]  d_all", f"{interrupted}[   38.751583]  d_all")
    ours = entry == "wee_tick"
    assert [one.function for one in judge(replace(CLEAN, console=BOOT + console))] == (
        ["wee_counts"] if ours else []
    )
    handler = f"[   38.751390]  wee_irq+0x8/0x30 [wee]\n{interrupted}"
    console = RACE.replace("[   38.751583]  d_all", f"{handler}[   38.751583]  d_all")
    (problem,) = judge(replace(CLEAN, console=BOOT + console))
    assert problem.function == "wee_irq"


def test_memory_that_was_lost_is_named_with_who_allocated_it() -> None:
    """Equal losses are one problem; what the kernel still has is left behind rather than lost."""
    stack = " kstrdup+0x2f/0x60\n get+0x1f/0x30 [planted]\n do_one_initcall+0x58/0x310"
    lost = (
        LostMemory(16, "kstrdup", stack),
        LostMemory(16, "kstrdup", stack),
        LostMemory(1, "kmalloc", " put+0x1/0x2 [planted]", more=2),
        LostMemory(320, "alloc_workqueue", stack, held="the work queue q", undo="destroy()"),
    )
    problems = judge(Evidence("", 0, 0, lost=lost))
    assert [(one.verdict, one.function, one.times) for one in problems] == [
        (Verdict.LEAK, "get", 2), (Verdict.LEAK, "put", 1), (Verdict.RESIDUE, "get", 1),
    ]  # fmt: skip
    assert problems[0].title.startswith("16 bytes that kstrdup() allocated were never freed")
    assert problems[1].title.startswith("1 byte that kmalloc()")
    assert "and 2 more" in problems[1].title
    assert problems[2].title == "the work queue q is still there: destroy() was not called"


@pytest.mark.parametrize(
    ("how", "said"), [("unrecorded", "more was allocated"), ("stopped", "has stopped the record")]
)
def test_a_record_that_has_not_all_is_missing_evidence(how: str, said: str) -> None:
    """Nobody knows what a module has lost then."""
    found = Evidence("", 0, 0, unrecorded=how == "unrecorded", stopped=how == "stopped")
    [problem] = judge(found)
    assert problem.verdict is Verdict.LOG_GAP
    assert problem.title.startswith(said) or f"somebody {said}" in problem.title
    assert "pytest.mark.unrecorded" in problem.title
