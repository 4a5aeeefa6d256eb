# SPDX-License-Identifier: GPL-2.0-only
"""What a journal, a web page or an editor does to a log before it is pasted.

The functions named brook do not exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from harness import klog
from harness.klog import Kind

FAULT = """\
general protection fault: 0000 [#1] SMP
CPU: 1 PID: 321 Comm: sh Not tainted 6.1.0 #1
RIP: 0010:brook_drain+0x1c/0x90 [brook]
RSP: 0018:ffffc9000012fd40 EFLAGS: 00010246
Call Trace:
 <TASK>
 brook_write+0x41/0xb0 [brook]
 </TASK>"""

LINES = FAULT.split("\n")
BY_DATE = [f"Mar 04 12:00:01 host kernel: {line}" for line in LINES]
BY_CLOCK = [f"[{12 + at / 1000:12.6f}] {line}" for at, line in enumerate(LINES)]


@pytest.mark.parametrize("lines", [BY_DATE, BY_CLOCK], ids=["date", "clock"])
def test_a_log_may_be_upside_down(lines: list[str]) -> None:
    """``journalctl -r`` prints the newest line first."""
    (event,) = klog.read("\n".join(reversed(lines)), pasted=True)
    assert (event.kind, event.function) == (Kind.GPF, "brook_drain")
    assert event.line == len(lines) - 1
    (event,) = klog.read("\n".join(lines), pasted=True)
    assert (event.kind, event.line) == (Kind.GPF, 0)


def test_a_boot_after_another_is_not_upside_down() -> None:
    """The clock goes back there, too, but only once."""
    boot = "[    0.000000] Linux version 6.1.0 (builder@host)\n[    1.000000] brook: flowing\n"
    assert [e.kind for e in klog.read(boot + boot, pasted=True)] == [Kind.REBOOT]


@pytest.mark.parametrize(
    "body",
    [
        # Of "[<ffffffff81651430>]" a browser takes the inner brackets for a tag.
        re.sub("0010:", "0010:[] [] ", FAULT).replace(" brook_write", " [] brook_write"),
        # An editor has made a times sign of the x between two digits.
        FAULT.replace("+0x", "+0\u00d7"),
    ],
    ids=["tags", "times"],
)
def test_a_page_may_have_changed_the_calls(body: str) -> None:
    (event,) = klog.read(body, pasted=True)
    assert (event.kind, event.function) == (Kind.GPF, "brook_drain")
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


def test_a_page_s_source() -> None:
    """Out of a page's source the brackets of addresses and of stacks come as names."""
    body = FAULT.replace("0010:", "0010:[<ffffffff81651430>] ").replace("<", "&lt;")
    (event,) = klog.read(body.replace(">", "&gt;"), pasted=True)
    assert (event.kind, event.function) == (Kind.GPF, "brook_drain")


def test_a_log_may_be_indented_by_tabs() -> None:
    """What only counts at the beginning of a line is found there."""
    body = "PANIC at brook.c:12:brook_drain()\nShowing stack for process 321"
    (event,) = klog.read("".join(f"\t{line}\n" for line in body.split("\n")), pasted=True)
    assert event.function == "brook_drain"


def test_a_mail_s_source() -> None:
    """Quoted-printable: long lines are broken, and equals signs have become numbers."""
    mail = """\
> general protection fault: 0000 [#1] SMP
> Tainted: [W]=3DWARN
> RIP: 0010:[<ffffffff81651430>]  [<ffffffff81651430>] brook_drain+0x1=
c/0x90 [brook]
> Call Trace:=20
> =C2=A0brook_write+0x41/0xb0 [brook]"""
    (event,) = klog.read(mail, pasted=True)
    assert (event.kind, event.function) == (Kind.GPF, "brook_drain")
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


def test_where_a_mail_s_line_began() -> None:
    mail = "from=3Dto\nthe rain, which falls on=\n the brook\n" + FAULT
    (event,) = klog.read(mail, pasted=True)
    assert event.line == 3


def test_separators_are_no_broken_lines() -> None:
    """They end in an equals sign as well."""
    line = "=" * 66
    body = "BUG: KASAN: slab-use-after-free in brook_drain+0x1c/0x90 [brook]"
    access = "Read of size 8 at addr ffff888004d01000 by task sh/321"
    (event,) = klog.read(f"{line}\n{body}\n{access}\n{line}\n{line}", pasted=True)
    assert (event.kind, event.function) == (Kind.KASAN, "brook_drain")


@pytest.mark.parametrize("title", ["", "Subject: general protection fault: 0000 in the\n brook\n"])
def test_a_mail_s_subject_is_no_report(title: str) -> None:
    assert not klog.read(f"{title}To: somebody\n\nIs it known?\n", pasted=True)
    assert len(klog.read(f"{title}To: somebody\n\n{FAULT}\n", pasted=True)) == 1


def test_a_title_stands_above_its_report() -> None:
    """The title has no more to say of it."""
    report = f"BUG: Bad page map in process sh\n\nBUG: Bad page state in process sh\n{FAULT}"
    title = "# BUG: kernel NULL pointer dereference, address: 0000000000000010\n\nIt came twice.\n"
    event = klog.first(title + "\n" * 200 + title.lstrip("# ") + "\n".join(LINES[1:]))
    assert event is not None
    assert (event.kind, event.function) == (Kind.PAGE_FAULT, "brook_drain")
    event = klog.first(report)
    assert event is not None
    assert (event.kind, event.function) == (Kind.BAD_PAGE, None)  # another kind is another report


@pytest.mark.parametrize(
    "line",
    [
        'pr_err("watchdog: BUG: soft lockup - CPU#%d stuck for 26s! [sh:321]", cpu);',
        '"rcu: INFO: rcu_preempt self-detected stall on CPU": Stall,',
        'level=fatal msg="panic: kernel BUG at drivers/brook.c:12!"',
        "- `/var/crash/1` has `BUG: Bad page state in process sh` (page corruption)",
    ],
)
def test_what_a_program_s_source_holds_is_no_report(line: str) -> None:
    assert not klog.read(f"int brook;\n{line}\nint river;\n", pasted=True)


def test_brackets_of_another_character_set() -> None:
    """On the s390 a console may have a cent sign and an exclamation mark instead."""
    text = "\n".join(BY_CLOCK).replace("[", "\xa2").replace("]", "!")
    (event,) = klog.read(text, pasted=True)
    assert (event.kind, event.function, event.module) == (Kind.GPF, "brook_drain", "brook")


def test_the_real_time_patch_prints_the_cpu() -> None:
    lines = [line.replace("] ", "] 001: ", 1) for line in BY_CLOCK]
    (event,) = klog.read("\n".join(lines), pasted=True)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


def test_the_debugger_prints_past_the_log() -> None:
    """Its lines have no stamp, and belong to the report that they come in."""
    text = """\
[   12.345678][  T321] brook: flowing
[   12.345679][  T321] kernel BUG at drivers/brook.c:12!
cpu 0x0: Vector: 700 (Program Check) at [c00000000111f7d0]
    pc: c000000000022148: brook_drain+0x1c/0x90 [brook]
    lr: c00000000004e1d4: brook_write+0x4c/0x70 [brook]"""
    (event,) = klog.read(text, pasted=True)
    assert (event.kind, event.function) == (Kind.BUG, "brook_drain")


def test_a_program_s_registers_are_no_report() -> None:
    """arm with CONFIG_DEBUG_USER."""
    text = """\
CPU: 2 PID: 321 Comm: sh Not tainted 3.10.49 #1
PC is at 0xaf879602
pc : [<af879602>]    lr : [<b503eaad>]    psr: 400d0030
Flags: nZcv  IRQs on  FIQs on  Mode USER_32  ISA Thumb  Segment user
CPU: 2 PID: 321 Comm: sh Not tainted 3.10.49 #1
[<c010aff0>] (unwind_backtrace+0x0/0xe0) from [<c01092ec>] (show_stack+0x10/0x14)
[<c01092ec>] (show_stack+0x10/0x14) from [<c0110740>] (__do_user_fault+0xfc/0x148)"""
    assert not klog.read(text, pasted=True)


@pytest.mark.parametrize(
    "lines",
    [
        BY_CLOCK,
        [f"[Mon Mar  4 12:00:01 2024] {line}{' ' * 99}" for line in LINES],
        [f"Mar 04 12:00:01 host kernel: {line}" for line in BY_CLOCK],
    ],
)
def test_ends_of_lines_may_be_lost(lines: list[str]) -> None:
    """A form of a web page makes blanks of them."""
    (event,) = klog.read("brook: flowing\n" + " ".join(lines), pasted=True)
    assert (event.kind, event.function, event.line) == (Kind.GPF, "brook_drain", 1)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


@pytest.mark.parametrize(
    ("printers", "kind"),
    [
        (["ubsan_epilogue", "__ubsan_handle_out_of_bounds"], Kind.UBSAN),
        (["kasan_report"], Kind.KASAN),
        (["warn_slowpath_common", "warn_slowpath_null"], Kind.WARNING),
        (["__schedule_bug", "__schedule", "schedule"], Kind.ATOMIC_SLEEP),
        (
            ["warn_alloc", "__alloc_pages_slowpath.constprop.0", "__alloc_pages"],
            Kind.PAGE_ALLOCATION,
        ),
        (["check_preemption_disabled", "debug_smp_processor_id"], Kind.ATOMIC_SLEEP),
        (["bad_page"], Kind.BAD_PAGE),
    ],
)
@pytest.mark.parametrize("head", ["", "CPU: 1 PID: 321 Comm: sh Not tainted 6.1.0 #1\n"])
def test_a_stack_without_a_head(head: str, printers: list[str], kind: Kind) -> None:
    """Who stands on it only to print tells what was printed."""
    calls = ["dump_stack", *printers, "brook_write", "vfs_write"]
    body = "".join(f" {name}+0x44/0x60\n" for name in calls)
    event = klog.first(f"{head}Call Trace:\n{body}")
    assert event is not None
    assert event.kind is kind
    if kind is not Kind.BAD_PAGE:  # of which the stack is that of whoever came upon it
        assert event.function == "brook_write"


@pytest.mark.parametrize("head", ["", "Pid: 321, comm: sh Not tainted 2.6.38 #1\n"])
def test_a_stack_without_a_head_of_which_no_call_is_sure(head: str) -> None:
    """Kernels without frame pointers marked every call."""
    calls = ["__schedule_bug", "schedule", "brook_write"]
    body = "".join(f" [<ffffffff81033f9c>] ? {name}+0x44/0x60\n" for name in calls)
    event = klog.first(f"{head}Call Trace:\n{body}")
    assert event is not None
    assert (event.kind, event.function) == (Kind.ATOMIC_SLEEP, "brook_write")


def test_a_stack_without_the_line_above_it() -> None:
    """Its first calls tell what it is of."""
    slab = ["dump_stack", "print_trailer", "check_object", "__kmalloc", "krealloc", "brook_write"]
    body = "".join(f" {name}+0x44/0x60\n" for name in slab)
    event = klog.first(f" <IRQ>\n{body}")
    assert event is not None
    assert (event.kind, event.function) == (Kind.SLAB, "brook_write")
    asked = "".join(f" {name}+0x44/0x60\n" for name in ("dump_stack", "brook_tell", "read"))
    assert klog.first(f" <IRQ>\n{asked}") is None
    assert klog.read(body) == []  # a console's log is whole


def test_a_lockup_s_stack_without_a_head() -> None:
    """The CPU was in what the NMI interrupted."""
    calls = ["watchdog_overflow_callback", "__perf_event_overflow", "perf_event_nmi_handler"]
    nmi = "".join(f" [<ffffffff8b129665>] {name}+0xd5/0xe0\n" for name in [*calls, "do_nmi"])
    entry = " [<ffffffff8b5d6721>] end_repeat_nmi+0x1a/0x1e\n"
    event = klog.first(nmi)
    assert event is not None
    assert (event.kind, event.function) == (Kind.HARD_LOCKUP, None)
    event = klog.first(f"{nmi}{entry} <EOE>  [<ffffffff8b5d4df8>] brook_spin+0x28/0x30\n")
    assert event is not None
    assert (event.kind, event.function) == (Kind.HARD_LOCKUP, "brook_spin")


def test_some_lines_may_be_indented() -> None:
    """An editor's block, with lines that were broken beside it."""
    lines = [f"\t{line}" for line in BY_DATE]
    (event,) = klog.read("\n".join([*lines[:1], "not indented", *lines[1:]]), pasted=True)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


@pytest.mark.parametrize("first", ["30. Jul 08:55", "30 juil. 08:55", "Jul30 08:55"])
def test_a_locale_s_own_times(first: str) -> None:
    """Of dmesg -H."""
    text = "\n".join([f"[{first}] {LINES[0]}", *(f"[  +0,000012] {line}" for line in LINES[1:])])
    (event,) = klog.read(text, pasted=True)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


def test_a_syslog_may_have_received_the_extended_format() -> None:
    """Of netconsole; with the sender's name."""
    text = "\n".join(
        f"Mar  4 12:00:01 host 4,{at},4031138,-,caller=C0;{line}" for at, line in enumerate(LINES)
    )
    (event,) = klog.read(text, pasted=True)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


def test_registers_without_a_head_may_have_a_stack_without_its_line() -> None:
    """Who types a log off a screen leaves out what says nothing."""
    text = "RIP: 0010:__list_add_valid_or_report+0x3a/0x5b\n\nbrook_write+0xb5/0x2a0\nread+0x1/0x2"
    event = klog.first(text)
    assert event is not None
    assert event.function == "brook_write"


@pytest.mark.parametrize("host", ["(none)", "<redacted>", "****"])
def test_a_host_may_have_no_name(host: str) -> None:
    """Nobody has given it one yet, or somebody has taken it out."""
    text = "\n".join(f"2011-06-13T12:59:32.897171+02:00 {host} kernel: {line}" for line in LINES)
    (event,) = klog.read(text, pasted=True)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


@pytest.mark.parametrize("lines", [BY_DATE, BY_CLOCK], ids=["date", "clock"])
@pytest.mark.parametrize("form", ["{0}{1}", "kern.log{1}", "/var/log/kern.log{1}{0}{1}"])
def test_a_log_out_of_grep(lines: list[str], form: str) -> None:
    """The line that was looked for has a colon, those beside it a dash."""
    marked = [
        form.format(1261929 + 90 * at, "-" if at else ":") + line for at, line in enumerate(lines)
    ]
    (event,) = klog.read("\n".join(marked), pasted=True)
    assert event.kind is Kind.GPF
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


def test_a_line_that_syslogd_tells_everybody_stands_above_its_report() -> None:
    """It may be the second line of the report, whose first says what kind it is."""
    second = "[   12.345679] Internal error: : 96000210 [#1] SMP"
    text = (
        f"Message from syslogd@host at Mar  4 12:00:01 ...\n kernel:{second}\n"
        "Mar  4 12:00:01 host kernel: [   12.345678] Unhandled fault: abort (0x210) at 0x0\n"
        f"Mar  4 12:00:01 host kernel: {second}\n"
        "Mar  4 12:00:01 host kernel: [   12.345680] PC is at brook_drain+0x1c/0x90 [brook]\n"
    )
    event = klog.first(text)
    assert event is not None
    assert (event.kind, event.function) == (Kind.PAGE_FAULT, "brook_drain")


def test_what_is_left_of_one_report_is_no_part_of_the_next() -> None:
    """Of the first only the registers of a program that it had stopped are left."""
    text = """\
[   12.345678] CPU: 0 PID: 1 Comm: sh Tainted: G      D     3.13.5 #1
[   12.345679] PC is at 0x3edc
[   12.345680] ---[ end trace 92750d3eb1480a4a ]---
[   12.345681] Internal error: Oops - bad mode: 0 [#4] PREEMPT ARM
[   12.345682] PC is at brook_drain+0x1c/0x90 [brook]
"""
    (event,) = klog.read(text, pasted=True)
    assert (event.kind, event.function) == (Kind.TRAP, "brook_drain")


def test_a_stack_that_tells_nothing_is_no_report() -> None:
    calls = ["__schedule", "schedule", "brook_wait", "brook_read"]
    body = "".join(f" {name}+0x44/0x60\n" for name in calls)
    assert klog.first(f"Call Trace:\n{body}") is None


def test_registers_below_a_stack_without_a_head() -> None:
    """x86 printed them once more there, up to 4.x."""
    text = """\
Call Trace:
 [<ffffffff81069bdd>] ? brook_write+0xe1/0x1b4 [brook]
Code: 48 89 c3
RIP  [<ffffffff810e74ce>] brook_drain+0x61/0xf0 [brook]
 RSP <ffff88006b0e5d58>
---[ end trace 3a5f0fb4f76a8e12 ]---
Kernel panic - not syncing: Fatal exception"""
    event = klog.first(text)
    assert event is not None
    assert (event.kind, event.function) == (Kind.PAGE_FAULT, "brook_drain")


@pytest.mark.parametrize(
    "text",
    [
        "[ INFO: possible recursive locking detected ]\nsh/321 is trying to acquire lock:\n"
        " (&(&brook->lock)->rlock){+.+.-.}, at: [<ffffffff811ddd03>]\n"
        "brook_drain+0x33/0x70 [brook]",
        "kernel BUG at drivers/brook.c:12!\n"
        "Krnl PSW : 0704d00180000000 0000021761df6538\n(brook_drain+0x198/0x1a0 [brook])",
    ],
    ids=["lockdep", "s390"],
)
def test_a_mail_may_break_a_line_before_a_call(text: str) -> None:
    (event,) = klog.read(text, pasted=True)
    assert (event.function, event.module) == ("brook_drain", "brook")


def test_a_stall_s_stack_without_a_head() -> None:
    """What the timer interrupt came upon is to blame, and not what the interrupt called."""
    calls = ["dump_stack", "watchdog_timer_fn", "__hrtimer_run_queues", "hrtimer_interrupt"]
    timer = "".join(f" {name}+0x44/0x60\n" for name in calls)
    event = klog.first(f"Call Trace:\n{timer}")
    assert event is not None
    assert (event.kind, event.function) == (Kind.SOFT_LOCKUP, None)
    event = klog.first(f"Call Trace:\n{timer} apic_timer_interrupt+0xf/0x20\n brook_spin+0x4/0x8\n")
    assert event is not None
    assert (event.kind, event.function) == (Kind.SOFT_LOCKUP, "brook_spin")


@pytest.mark.parametrize("mark", ["// ", "# ", " * ", "+ ", "; "])
def test_a_log_in_a_comment(mark: str) -> None:
    lines = [mark + line for line in LINES]
    (event,) = klog.read("int brook;\n" + "\n".join(lines), pasted=True)
    assert (event.kind, event.function, event.line) == (Kind.GPF, "brook_drain", 1)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


@pytest.mark.parametrize("form", ["{:4}  {}", "{}: {}", "{}|{}", "{}:{}"])
def test_a_log_with_numbered_lines(form: str) -> None:
    lines = [form.format(at, line) for at, line in enumerate(LINES, 97)]
    (event,) = klog.read("\n".join(lines), pasted=True)
    assert (event.kind, event.function, event.line) == (Kind.GPF, "brook_drain", 0)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


def test_a_log_with_a_runner_s_seconds() -> None:
    """They have zeros in front, and several lines have the same."""
    lines = [f"{seconds:05} {line}" for seconds, line in zip([9, *[10] * 9], LINES, strict=False)]
    (event,) = klog.read("\n".join(lines), pasted=True)
    assert (event.kind, event.function, event.line) == (Kind.GPF, "brook_drain", 0)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


def test_what_a_terminal_is_told() -> None:
    """syslogd writes to everybody who is there, and puts a blank before the line."""
    text = (
        "Message from syslogd@host at Mar  4 12:00:01 ...\n"
        " kernel:unregister_netdevice: waiting for lo to become free. Usage count = 1\n"
    )
    (event,) = klog.read(text, pasted=True)
    assert event.kind is Kind.NETDEV_LEAK


def test_a_heading_is_no_report() -> None:
    """A heading of Markdown stands alone; what a log in comments says is the kernel's."""
    title = "# UBSAN: array-index-out-of-bounds in main.c:860:27\n"
    assert not klog.read(f"{title}\nIs it known?\n", pasted=True)
    assert not klog.read(f"brook, issue 12\n{title}\nIs it known?\n", pasted=True)
    commented = "".join(f"# {line}\n" for line in FAULT.splitlines())
    assert len(klog.read(f"Seen:\n\n{commented}", pasted=True)) == 1
    assert len(klog.read(f"# [    1.000000] {LINES[0]}\n\n", pasted=True)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "brook (1.2-3) stable; urgency=low\n\n"
        "  * Kernel panic - not syncing: Attempted to kill init! (closes: 12)\n    - wait for it\n",
        "- Kernel panic - not syncing: Fatal exception was seen\n- the lamp is green\n",
        " 3. kernel BUG at drivers/brook/main.c:12! (solved)\n",
    ],
)
def test_an_item_of_a_list_is_no_report(text: str) -> None:
    assert not klog.read(text, pasted=True)


def test_an_item_with_a_log_below_is_a_report() -> None:
    assert len(klog.read(f"1. {FAULT}\n", pasted=True)) == 1
    assert len(klog.read("- `Kernel panic - not syncing: brook`\n", pasted=True)) == 1


@pytest.mark.parametrize("number", ["", "[{}] ", "2013-05-0{}  "])
def test_an_index_of_mails_about_warnings_is_no_report(number: str) -> None:
    subjects = [f"WARNING: at net/brook/{name}.c:{12} {name}_poll()" for name in "abc"]
    index = "".join(f"{number.format(at)}{line}\n" for at, line in enumerate(subjects, 1))
    assert not klog.read(index, pasted=True)


def test_one_old_warning_is_a_report() -> None:
    (event,) = klog.read("WARNING: at net/brook/a.c:12 a_poll()\n", pasted=True)
    assert event.function == "a_poll"


def test_a_journal_with_the_clock_may_have_no_host() -> None:
    lines = ["irq 3: nobody cared (try booting with", "handlers:", "Disabling IRQ #3"]
    text = "".join(f"[   12.34567{at}] kernel: {line}\n" for at, line in enumerate(lines))
    assert [event.title for event in klog.read(text, pasted=True)] == ["irq NUM: nobody cared"]


LONG_HEADERS = {
    "warning": (
        "WARNING: CPU: 1 PID: 1234 at drivers/brook/brook_ma.c:1035 brook_drain+0x1c/0x90 [brook]\n"
        "Modules linked in: brook\nRIP: 0010:brook_drain+0x1c/0x90 [brook]\nCall Trace:\n"
        " brook_write+0x41/0xb0 [brook]",
        Kind.WARNING,
    ),
    "kasan": (
        "BUG: KASAN: slab-use-after-free in brook_drain_the_whole_thing+0x1c/0x90 [brook]\n"
        "Read of size 8 at addr ffff888004d01000 by task sh/321\nCall Trace:\n"
        " brook_write+0x41/0xb0 [brook]",
        Kind.KASAN,
    ),
    "hung": (
        "INFO: task kworker/u16:2:1234 blocked for more than 120 seconds.\n"
        "      Not tainted 6.1.0 #1\nCall Trace:\n __schedule+0x2eb/0x8d0\n"
        " brook_drain+0x1c/0x90 [brook]",
        Kind.HUNG_TASK,
    ),
    "arm64": (
        "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000018\n"
        "pc : brook_drain+0x1c/0x90 [brook]\nCall trace:\n brook_drain+0x1c/0x90 [brook]",
        Kind.PAGE_FAULT,
    ),
}


def stamped(body: str) -> str:
    return "\n".join(f"[{12 + at / 1000:12.6f}] {line}" for at, line in enumerate(body.split("\n")))


def quoted(body: str) -> str:
    return "\n".join(f"> {line}" for line in body.split("\n"))


def cut_at(body: str, width: int) -> str:
    """Breaks lines as a terminal does, wherever the width ends."""
    return re.sub(rf"(?m)^(.{{{width}}})(?=.)", r"\1\n", body)


def broken_before(body: str, width: int) -> str:
    """Breaks lines as a mail program does, before the word that does not fit."""
    return re.sub(rf"(?m)^(?=.{{{width + 1}}})(.{{1,{width}}}(?<! )) ", r"\1\n", body)


@pytest.mark.parametrize("before", [str, stamped, quoted])
@pytest.mark.parametrize("wrap", [cut_at, broken_before])
@pytest.mark.parametrize("name", LONG_HEADERS)
def test_a_header_may_be_broken_at_any_width(
    name: str, wrap: Callable[[str, int], str], before: Callable[[str], str]
) -> None:
    body, kind = LONG_HEADERS[name]
    (whole,) = klog.read(body, pasted=True)
    for width in range(60, 100):
        text = wrap(before(body), width)
        (event,) = klog.read(text, pasted=True)
        assert (event.kind, event.function) == (kind, whole.function), text
        assert event.module == "brook", text


def test_the_rest_of_a_line_may_have_its_beginning_again() -> None:
    """What breaks lines below a journal's stamps gives each part the stamp."""
    text = (
        "Mar 04 12:00:01 host kernel: BUG: unable to handle kernel NULL pointer\n"
        "Mar 04 12:00:01 host kernel: dereference at 0000000000000018\n"
        "Mar 04 12:00:01 host kernel: RIP: 0010:brook_drain+0x1c/0x90 [brook]\n"
    )
    (event,) = klog.read(text, pasted=True)
    assert (event.kind, event.function) == (Kind.PAGE_FAULT, "brook_drain")


def test_lines_of_one_second_are_no_rest_of_each_other() -> None:
    """A kernel without symbols ends the line after the source."""
    text = (
        "Mar 04 12:00:01 host kernel: WARNING: CPU: 0 PID: 12 at drivers/brook/brook.c:1035\n"
        "Mar 04 12:00:01 host kernel: CPU: 0 PID: 12 Comm: sh Not tainted 6.1.0 #1\n"
        "Mar 04 12:00:01 host kernel: Call Trace:\n"
        "Mar 04 12:00:01 host kernel:  brook_write+0x41/0xb0 [brook]\n"
    )
    (event,) = klog.read(text, pasted=True)
    assert (event.kind, event.function) == (Kind.WARNING, "brook_write")


def test_lines_of_one_length_are_not_half() -> None:
    """Registers are as long as each other, and what is below them is a line of its own."""
    registers = "".join(
        f"R{at:02}: {0:016x} R{at + 1:02}: {0:016x} EX: {0:016x}\n" for at in (1, 3)
    )
    (event,) = klog.read(f"{LINES[0]}\n{registers}brook_drain+0x1c/0x90 [brook]\n", pasted=True)
    assert [frame.function for frame in event.stack] == ["brook_drain"]


def test_registers_do_not_go_on_with_the_line_above() -> None:
    """A machine may have no name: dump_stack_set_arch_desc() gives what its firmware says."""
    text = (
        "general protection fault: 0000 [#1] SMP\n"
        "Pid: 321, comm: sh Not tainted 2.6.32 #1 NULL NULL/NULL\n"
        "RIP: 0010:[<ffffffff81144e26>]  [<ffffffff81144e26>] brook_drain+0x16/0xf0\n"
        "RSP: 0018:ffff881064dabd80  EFLAGS: 00010282\n"
    )
    (event,) = klog.read(text, pasted=True)
    assert (event.kind, event.function) == (Kind.GPF, "brook_drain")


@pytest.mark.parametrize(
    "form",
    [
        "Mar  4 12:00:01 192.0.2.7 {}",  # netconsole's lines at a syslog daemon
        ":{}",  # abrt in a bug tracker
        "12:00:01.123 {}",
    ],
)
@pytest.mark.parametrize(
    "first", ["divide error: 0000 [#1] SMP", "Internal error: Oops: 5 [#1] ARM"]
)
def test_what_stands_before_tells_nothing_of_the_kernel(form: str, first: str) -> None:
    """Whatever is a word with a colon is no daemon's level."""
    body = "\n".join(form.format(line) for line in [first, *LINES[1:]])
    (event,) = klog.read(f"brook: flowing\n{body}\n", pasted=True)
    assert event.kind in (Kind.TRAP, Kind.PAGE_FAULT)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


def test_a_program_on_another_host_is_no_kernel() -> None:
    line = "Mar  4 12:00:01 192.0.2.7 brookd[12]: BUG: soft lockup - CPU#0 stuck for 23s! [sh:1]"
    assert not klog.read(line, pasted=True)
    assert klog.read(line.replace("brookd[12]: ", ""), pasted=True)


@pytest.mark.parametrize("lines", [LINES, BY_CLOCK, BY_DATE], ids=["plain", "clock", "date"])
@pytest.mark.parametrize(
    "form",
    [
        lambda lines: json.dumps({"log": "\n".join(lines) + "\n", "stream": "stdout"}),
        lambda lines: "\n".join(f"- {json.dumps({'lvl': 'target', 'msg': x})}" for x in lines),
        lambda lines: "\n".join(json.dumps({"log": f"{x}\n"}) for x in lines),
        lambda lines: '{"log": "' + "\\n".join(lines) + '\\n", "strea',  # cut: no JSON any more
    ],
    ids=["text", "list", "line", "part"],
)
def test_a_log_in_json(form: Callable[[list[str]], str], lines: list[str]) -> None:
    """As container tools, test labs and collectors of logs have it."""
    (event,) = klog.read(f"brook: flowing\n{form(lines)}\n", pasted=True)
    assert (event.kind, event.function, event.line) == (Kind.GPF, "brook_drain", 1)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


@pytest.mark.parametrize("lines", [LINES, BY_CLOCK], ids=["plain", "clock"])
def test_a_line_may_be_there_twice(lines: list[str]) -> None:
    """Two consoles on one line; not every line is on both."""
    twice = "".join(f"{line}\n{line}\n" for line in ["brook: flowing", *lines])
    (event,) = klog.read(f"login:\n{twice}", pasted=True)
    assert (event.kind, event.line) == (Kind.GPF, 3)
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]
    assert len(event.excerpt.split("\n")) == len(lines)


def test_the_end_of_a_syslog_s_line_may_be_lost() -> None:
    """The next line then goes on where it broke off."""
    date = "Oct 17 11:51:44 box kernel: [  760.42500"
    text = f"{date}0] BUG: unable to handle kernel NULL pointer dereference at 0000000000000018"
    call = f"{date}1] IP: [<ffffffffa0112345>] brook_drain+0x25/0x90 [brook]"
    (event,) = klog.read(f"{text}{call}\n{date}2] Oops: 0000 [#1] SMP", pasted=True)
    assert (event.kind, event.function) == (Kind.PAGE_FAULT, "brook_drain")


def test_a_photo_s_letters_in_the_code_segment() -> None:
    """A program that reads photos takes zeros for letters; that the CPU was there is still read."""
    body = "Oops: 0000 [#1] SMP\nRIP: OO10:brook_drain+0x1c/0x90 [brook]\nCall Trace:\n"
    event = klog.first(f"{body} brook_write+0x41/0xb0 [brook]")
    assert event is not None
    assert event.function == "brook_drain"


def test_a_cpu_between_the_stamp_and_the_text() -> None:
    """As a vendor's kernel prints it, without a blank."""
    lines = ["BUG: scheduling while atomic: sh/321/0x10000100", "Modules linked in: brook(O)"]
    (event,) = klog.read("".join(f"[  183.060000][0]{line}\n" for line in lines), pasted=True)
    assert (event.kind, event.bare) == (Kind.ATOMIC_SLEEP, False)
    assert event.excerpt.endswith("[  183.060000] Modules linked in: brook(O)")


def test_another_cpu_may_stop_at_the_same_place_at_the_same_time() -> None:
    """Its first lines are then between those of the one whose report this is."""
    bug = "kernel BUG at drivers/brook.c:294!"
    lines = [bug, "invalid opcode: 0000 [#1] SMP PTI", "CPU: 7 PID: 321 Comm: sh", bug]
    (event,) = klog.read("\n".join([*lines, "RIP: 0010:brook_drain+0x24/0x60"]), pasted=True)
    assert (event.kind, event.function) == (Kind.BUG, "brook_drain")


@pytest.mark.parametrize("stamped", [1, 2, 4])
def test_only_the_first_lines_may_have_stamps(stamped: int) -> None:
    """Somebody has taken those off that say nothing new."""
    lines = [*BY_CLOCK[:stamped], *LINES[stamped:], *["brook is dry now"] * 60]
    event = klog.first("\n".join(lines))
    assert event is not None
    assert event.kind is Kind.GPF
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


@pytest.mark.parametrize(
    "line",
    [
        "[<ffffffff83a\n6a370>] brook_write+0x41/0xb0 [brook]",  # within an address
        "brook_write\n(drivers/brook.c:12 (discriminator 2))",  # where a symboliser has been
    ],
)
def test_a_call_may_be_broken_at_more_places(line: str) -> None:
    wide = "Code: " + "48 " * 20
    body = f"Oops: general protection fault: 0000 [#1] SMP\n{wide}\nCall Trace:\n {' ' * 55}{line}"
    (event,) = klog.read(body, pasted=True)
    assert [frame.function for frame in event.stack] == ["brook_write"]


def test_how_rsyslog_writes_a_line_s_feed() -> None:
    """As #012, which the kernel has printed to leave a line empty."""
    text = """\
kernel: [ INFO: possible circular locking dependency detected ]
kernel: sh/321 is trying to acquire lock:
kernel: (&brook->lock){+.+.+.}, at: [<ffffffff8126ca7d>] brook_drain+0x1d/0x20 [brook]
kernel: #012but task is already holding lock:
kernel: (&brook->mutex){+.+.+.}, at: [<ffffffffa04b609d>] brook_write+0x6d/0x320 [brook]
kernel: #012the existing dependency chain (in reverse order) is:
kernel: #012-> #1 (&brook->mutex){+.+.+.}:
kernel: #011[<ffffffff811061a6>] lock_acquire+0x196/0x1e0
"""
    (event,) = klog.read(text, pasted=True)
    assert (event.kind, event.function) == (Kind.LOCKDEP, "brook_drain")
    assert "#01" not in event.excerpt


@pytest.mark.parametrize("below", ["", "brook_tell+0x1/0x2\n"])
def test_the_end_of_a_report_above_a_whole_one(below: str) -> None:
    """Of the first nothing can be named; who pastes a log has cut in there."""
    end = f"Memory state around the buggy address:\n ffff88810a2b3b00: fc fc fc fc\n{below}"
    event = klog.first(end + "=" * 66 + f"\nbrook: flowing\n{FAULT}")
    assert event is not None
    assert (event.kind, event.function, event.headless) == (Kind.GPF, "brook_drain", False)
    event = klog.first(end)
    assert event is not None
    assert (event.kind, event.headless) == (Kind.KASAN, True)


@pytest.mark.parametrize(
    "line",
    [
        "If it says which lock already depends on the new lock. then look below",
        "Rebooting in 10 seconds...",
        "brook.c:12:14: runtime error: shift exponent 40 is too large for 32-bit type 'int'",
        "page dumped because: kasan: bad access detected",
        "The buggy address is what we have looked for",
    ],
)
def test_what_is_no_line_of_a_report(line: str) -> None:
    assert not klog.read(f"int brook;\n{line}\nint river;\n", pasted=True)


@pytest.mark.parametrize(
    "form",
    [
        "<4>[   12.345678s][pid:412,cpu1,sh]{}",  # HiSilicon
        "<4>[   12.345678] .(0)[412:sh]{}",  # MediaTek, later
        "kern: warning: [2024-03-04T12:00:01.123456789Z]: {}",  # Talos
        "    PRIORITY=1\n    _TRANSPORT=kernel\n    MESSAGE={}",  # journalctl -o verbose
    ],
)
def test_more_beginnings(form: str) -> None:
    (event,) = klog.read("\n".join(form.format(line) for line in LINES), pasted=True)
    assert event.kind is Kind.GPF
    assert [frame.function for frame in event.stack] == ["brook_drain", "brook_write"]


def test_what_crash_says_of_a_dump() -> None:
    """Its backtrace has no offsets but where the CPU was."""
    text = """\
    DUMPFILE: vmcore
       PANIC: "BUG: unable to handle kernel NULL pointer dereference at 0000000000000010"
crash> bt
PID: 321    TASK: ffff9d4f8a2c0000  CPU: 3   COMMAND: "sh"
 #3 [ffffb0c3c0a7fb30] oops_end at ffffffffa7c2a5b6
    [exception RIP: brook_drain+44]
 #6 [ffffb0c3c0a7fcc8] brook_write at ffffffffc0a1b111 [brook]
"""
    (event,) = klog.read(text, pasted=True)
    assert (event.kind, event.function) == (Kind.PAGE_FAULT, "brook_drain")
    assert not klog.read('crash> sys\n       PANIC: ""\n', pasted=True)


def test_an_empty_line_is_no_title() -> None:
    """Of a report that has a line alone nothing can be named; the next is another."""
    event = klog.first(
        "INFO: rcu_sched detected stalls on CPUs/tasks: { 0} (detected by 1, t=2179 jiffies)\n \n"
        f"{FAULT}\n \n"
    )
    assert event is not None
    assert event.kind is Kind.RCU_STALL


def test_stamps_without_a_clock() -> None:
    """CONFIG_PRINTK_CALLER without printk.time."""
    lines = ["BUG: kernel NULL pointer dereference, address: 0000000000000010",
             "Oops: 000b [#1] SMP NOPTI", "RIP: 0010:brook_drain+0x62/0x90"]  # fmt: skip
    event = klog.first("$ sudo insmod brook.ko\n" + "".join(f"[  T661] {x}\n" for x in lines))
    assert event is not None
    assert (event.kind, event.function) == (Kind.PAGE_FAULT, "brook_drain")
