# SPDX-License-Identifier: GPL-2.0-only
"""The kernel log reader, on logs composed by hand in the formats that the kernel's sources print.

The functions in them do not exist; a module named ``[brook]`` is out of tree.
"""

from __future__ import annotations

import json
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import klog
from harness.klog import Event, Frame, Kind, bench
from harness.klog.paste import BEGINNINGS, Beginning
from tests.unit.growth import grows_with_length

DATA = Path(__file__).parents[1] / "data" / "klogbench"


def log(body: str, caller: str | None = None, start: float = 12.0) -> str:
    """Gives each line a console stamp, and a caller if there is one."""
    tag = f"[{caller:>7}]" if caller else ""
    return "".join(
        f"[{start + at / 1000:12.6f}]{tag} {line}\n" for at, line in enumerate(body.splitlines())
    )


def only(text: str) -> Event:
    """The one event of a text."""
    events = klog.read(text)
    assert len(events) == 1, [event.title for event in events]
    return events[0]


REGISTERS = """\
Code: 0f 0b 48 89 df e8 11 22 33 44 <0f> 0b eb f5
RSP: 0018:ffffc9000012fd40 EFLAGS: 00010246
RAX: 0000000000000000 RBX: ffff888004d01000 RCX: 0000000000000027
CR2: 0000000000000010 CR3: 0000000004d5a000 CR4: 00000000000006f0"""

SYSCALL = """\
 ksys_write+0x6d/0xf0
 do_syscall_64+0x58/0x80
 entry_SYSCALL_64_after_hwframe+0x6e/0xd8
RIP: 0033:0x7f1d4ab15190
RSP: 002b:00007ffd4e3b0c58 EFLAGS: 00000202 ORIG_RAX: 0000000000000001
 </TASK>"""

NULL_POINTER = f"""\
BUG: kernel NULL pointer dereference, address: 0000000000000010
#PF: supervisor read access in kernel mode
#PF: error_code(0x0000) - not-present page
PGD 0 P4D 0
Oops: 0000 [#1] PREEMPT SMP NOPTI
CPU: 1 PID: 321 Comm: sh Tainted: G           OE      6.1.0-20-amd64 #1
RIP: 0010:brook_drain+0x1c/0x90 [brook]
{REGISTERS}
Call Trace:
 <TASK>
 ? __die_body.cold+0x1a/0x1f
 ? page_fault_oops+0xd2/0x2b0
 brook_write+0x41/0xb0 [brook]
 vfs_write+0xb5/0x3d0
{SYSCALL}
Modules linked in: brook(OE) virtio_net
CR2: 0000000000000010
---[ end trace 0000000000000000 ]---
Kernel panic - not syncing: Fatal exception
Kernel Offset: disabled"""

KASAN = """\
==================================================================
BUG: KASAN: slab-use-after-free in memcpy+0x3c/0x60
Read of size 16 at addr ffff888005c41a00 by task brook-test/412

CPU: 0 PID: 412 Comm: brook-test Tainted: G           O       6.6.9 #3
Hardware name: QEMU Standard PC (Q35 + ICH9, 2009)
Call Trace:
 <TASK>
 dump_stack_lvl+0x44/0x60
 print_report+0xc2/0x610
 kasan_report+0xac/0xe0
 ? brook_peek+0x5d/0x110 [brook]
 kasan_check_range+0xf9/0x1e0
 memcpy+0x20/0x60
 brook_peek.constprop.0+0x5d/0x110 [brook 0123456789abcdef(O)]
 brook_ioctl+0x88/0x200 [brook 0123456789abcdef(O)]
 __x64_sys_ioctl+0xab/0xe0
 do_syscall_64+0x3b/0x90
 </TASK>

Allocated by task 412:
 kasan_save_stack+0x22/0x50
 brook_alloc+0x31/0x80 [brook]

Freed by task 410:
 kasan_save_stack+0x22/0x50
 brook_free+0x12/0x40 [brook]

The buggy address belongs to the object at ffff888005c41a00
=================================================================="""

WARNING = """\
------------[ cut here ]------------
WARNING: CPU: 0 PID: 99 at /src/brook/main.c:77 brook_flow+0x2b/0x40 [brook]
Modules linked in: brook(O)
CPU: 0 PID: 99 Comm: brookd Tainted: G           O      5.10.0 #1
RIP: 0010:brook_flow+0x2b/0x40 [brook]
Call Trace:
 brook_thread+0x90/0x120 [brook]
 kthread+0x118/0x140
 ret_from_fork+0x22/0x30
---[ end trace 3f1b2c4d5e6f7a8b ]---"""


def trace(*frames: str) -> str:
    return "\n".join(["Call Trace:", " <TASK>", *(f" {frame}" for frame in frames), " </TASK>"])


HUNG_TASK = (
    "INFO: task brook-test:412 blocked for more than 120 seconds.\n      Not tainted 6.1.0 #1\n"
    '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.\n'
    "task:brook-test      state:D stack:0     pid:412   ppid:1      flags:0x00000002\n"
    + trace("__schedule+0x1/0x2", "schedule+0x1/0x2", "__mutex_lock.constprop.0+0x1/0x2")
    + "\n brook_open+0x21/0x90 [brook]"
)


@dataclass(frozen=True)
class Case:
    """A log in a file, NAME.log, and beside it what is to be read from it, NAME.json.

    The JSON object has ``events``, in order, each with the attributes of an Event that it says
    something of; ``about``, why the case is there; and ``pasted``, whether the log is what
    somebody pasted, and no console's. The logs are our own: the functions in them do not exist.
    """

    name: str
    text: str
    events: list[dict[str, Any]]
    pasted: bool


def cases() -> list[Case]:
    found = []
    for path in sorted(CASES.glob("*.log")):
        expected = json.loads(path.with_suffix(".json").read_text())
        text = path.read_bytes().decode(errors="replace")
        pasted = expected.get("pasted", False)
        found.append(Case(path.stem, text, expected["events"], pasted))
    return found


CASES = Path(__file__).parents[1] / "data" / "klog"
ALL = cases()
CONSOLE_STAMP = re.compile(r"^(\[ *\d+\.\d{6}\]) ", re.MULTILINE)


def told(events: list[Event], expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What events say of the things that a case expects to be said."""
    shown: list[dict[str, Any]] = []
    for at, event in enumerate(events):
        keys = expected[at] if at < len(expected) else {"kind": 0, "title": 0}
        shown.append({key: getattr(event, key) for key in keys})
    return shown


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    assert told(klog.read(case.text, pasted=case.pasted), case.events) == case.events


@pytest.mark.parametrize("caller", ["T412", "C0"])
@pytest.mark.parametrize(
    "case",
    [case for case in ALL if not case.pasted and CONSOLE_STAMP.match(case.text)],
    ids=lambda case: case.name,
)
def test_case_of_a_kernel_that_names_callers(case: Case, caller: str) -> None:
    """With CONFIG_PRINTK_CALLER the same is read, whether a task or a CPU prints it."""
    text = CONSOLE_STAMP.sub(rf"\1[{caller:>7}] ", case.text)
    assert told(klog.read(text), case.events) == case.events


def test_no_case_is_half() -> None:
    logs, expectations = ({path.stem for path in CASES.glob(f"*.{end}")} for end in ("log", "json"))
    assert logs == expectations


@pytest.mark.parametrize("case", [case for case in ALL if not case.pasted], ids=lambda c: c.name)
def test_a_console_may_be_pasted(case: Case) -> None:
    """What is guessed of pasted logs does not change what a console's says."""
    assert told(klog.read(case.text, pasted=True), case.events) == case.events


@pytest.mark.parametrize("beginning", BEGINNINGS, ids=lambda one: one.name)
def test_each_beginning_has_its_example(beginning: Beginning) -> None:
    """The table shows of each beginning what it looks like, with a text behind it."""
    at = beginning.example.find(" host kernel") if beginning.after == "clock" else 0
    match = beginning.pattern.match(beginning.example, max(at, 0) and at + 1)
    assert match
    assert match.end() < len(beginning.example)


BOOTS = """\
{0}[    0.000000] Linux version 6.1.0 (builder@host)
{0}[    1.000000] brook: flowing
{0}[   90.000000] brook: still flowing
{1}[    0.000000] Linux version 6.1.0 (builder@host)
{1}[    1.000000] brook: flowing
"""


def test_a_boot_is_a_reboot_where_the_clock_goes_back() -> None:
    """In a pasted log two boots are one only within one source, and where a clock is shown."""
    assert [e.kind for e in klog.read(BOOTS.format("", ""), pasted=True)] == [Kind.REBOOT]
    one = "Mar 04 12:00:01 host kernel: "
    assert [e.kind for e in klog.read(BOOTS.format(one, one), pasted=True)] == [Kind.REBOOT]
    assert klog.read(BOOTS.format(one, ""), pasted=True) == []
    no_clock = re.sub(r"\[ *[\d.]+\] ", "", BOOTS).format(one, one)
    assert klog.read(no_clock, pasted=True) == []


def test_a_sentence_about_a_version_is_no_boot() -> None:
    """The kernel's own line goes on with who has built it."""
    text = "[    1.000000] brook: flowing\n[    2.000000] Linux version {} is too old for brook\n"
    for version in ("6.1", "6.1 (or later)"):
        assert klog.read(text.format(version)) == []
        assert klog.read(text.format(version), pasted=True) == []
    assert [e.kind for e in klog.read(text.format("6.1 (me@host)"))] == [Kind.REBOOT]


def test_the_line_of_an_event_is_that_of_the_pasted_log() -> None:
    """Lines that were broken are whole in the event, and still counted as they were pasted."""
    text = (CASES / "wrapped-and-quoted.log").read_text()
    (event,) = klog.read(text, pasted=True)
    assert text.splitlines()[event.line].startswith("> [")
    assert "BUG: unable to handle" in text.splitlines()[event.line]
    assert "(0x0000) - not-present page" in event.excerpt
    assert not any(line.startswith(">") for line in event.excerpt.splitlines())


def test_a_pasted_log_of_one_long_line() -> None:
    assert klog.first("word " * 100_000) is None
    assert klog.first("> " * 100_000) is None


def test_every_kind_is_produced() -> None:
    produced = {Kind(event["kind"]) for case in ALL for event in case.events}
    elsewhere = {Kind.LEAK, Kind.REBOOT, Kind.HARD_LOCKUP}
    assert produced | elsewhere == set(Kind)


def dressed(style: str) -> str:
    """The NULL pointer report as different readers of the log give it."""
    lines = NULL_POINTER.splitlines()
    styles = {
        "console": log(NULL_POINTER),
        "carriage returns": log(NULL_POINTER).replace("\n", "\r\n"),
        "control characters": log(NULL_POINTER)
        .replace("[ ", "\x00[ ")
        .replace("BUG", "\x1b[31mBUG"),
        "no stamps": NULL_POINTER,
        "kmsg": "".join(f"{1 + (i > 3)},{i},{9000 + i},-;{t}\n" for i, t in enumerate(lines)),
        "kmsg with caller": "".join(f"4,{i},{i},-,caller=T9;{t}\n" for i, t in enumerate(lines)),
        "dmesg -r": "".join(f"<4>[    1.{i:06}] {t}\n" for i, t in enumerate(lines)),
        "dmesg -T": "".join(f"[Mon Mar  4 12:00:01 2024] {t}\n" for t in lines),
        "journal": "".join(f"Mar 04 12:00:01 host kernel: {t}\n" for t in lines),
        "dmesg with ISO 8601": "".join(
            f"2024-03-04T12:00:01,000{i:03}+01:00 {t}\n" for i, t in enumerate(lines)
        ),
        "journal with ISO 8601": "".join(
            f"2024-03-04T12:00:01+0100 host kernel: {t}\n" for t in lines
        ),
        "journal with microseconds": "".join(
            f"2024-03-04T12:00:01.{i:06}+01:00 host kernel: {t}\n" for i, t in enumerate(lines)
        ),
        "after a prompt": "brook login: " + log(NULL_POINTER),
        "after a program's text": "brook [    1.0] " * 30 + log(NULL_POINTER),
        "after a program's long text": "\x1b[1mbrook\x1b[0m " * 900 + log(NULL_POINTER),
    }
    return styles[style]


@pytest.mark.parametrize(
    "style",
    [
        "console",
        "carriage returns",
        "control characters",
        "no stamps",
        "kmsg",
        "kmsg with caller",
        "dmesg -r",
        "dmesg -T",
        "journal",
        "dmesg with ISO 8601",
        "journal with ISO 8601",
        "journal with microseconds",
        "after a prompt",
        "after a program's text",
        "after a program's long text",
    ],
)
def test_prefixes(style: str) -> None:
    event = only(dressed(style))
    assert event.title == "BUG: unable to handle kernel NULL pointer dereference in brook_drain"
    assert event.module == "brook"
    assert not event.corrupted


def test_details_of_a_page_fault() -> None:
    text = log("one\ntwo\n" + NULL_POINTER)
    event = only(text)
    assert event.line == 2
    end = next(at for at, line in enumerate(text.splitlines()) if "end trace" in line)
    assert event.excerpt.splitlines() == text.splitlines()[2 : end + 1]
    assert event.stack[:3] == (
        Frame("brook_drain", 0x1C, 0x90, "brook"),
        Frame("brook_write", 0x41, 0xB0, "brook"),
        Frame("vfs_write", 0xB5, 0x3D0),
    )
    assert event.location is None


def test_details_of_a_warning() -> None:
    event = only(log(WARNING + "\nbrook: business as usual"))
    assert event.location == "/src/brook/main.c:77"
    assert event.line == 0
    assert event.excerpt.splitlines()[0].endswith("[ cut here ]------------")
    assert "end trace" in event.excerpt
    assert "as usual" not in event.excerpt
    assert [frame.function for frame in event.stack] == [
        "brook_flow",
        "brook_thread",
        "kthread",
        "ret_from_fork",
    ]


def test_symbolised_frames_give_the_location() -> None:
    event = only(
        log(
            "BUG: KASAN: use-after-free in brook_inner drivers/brook/main.c:40 [inline]\n"
            "Write of size 4 at addr ffff888005c41a00 by task sh/1\nCall Trace:\n"
            " __dump_stack lib/dump_stack.c:88 [inline]\n dump_stack+0x1/0x2 lib/dump_stack.c:106\n"
            " brook_inner drivers/brook/main.c:40 [inline]\n"
            " brook_outer+0x5/0x10 drivers/brook/main.c:50 [brook]\n"
        )
    )
    assert event.title == "KASAN: use-after-free Write in brook_inner"
    assert event.stack[0] == Frame("brook_inner", location="drivers/brook/main.c:40")


SYMBOLISED = """\
BUG: KASAN: slab-out-of-bounds in brook_bit include/brook/bits.h:20 [inline]
BUG: KASAN: slab-out-of-bounds in brook_test_level include/brook/level.h:31 [inline]
BUG: KASAN: slab-out-of-bounds in brook_level+0x3a/0x6d0 drivers/brook/level.c:177
Read of size 4 at addr ffff888027a5c000 by task brookd/508

Call Trace:
 <TASK>
 __dump_stack lib/dump_stack.c:94 [inline]
 dump_stack_lvl+0x1/0x2 lib/dump_stack.c:120
 kasan_report+0x1/0x2 mm/kasan/report.c:601
 check_all_of_it mm/kasan/generic.c:183 [inline]
 kasan_check_range+0x1/0x2 mm/kasan/generic.c:189
 brook_bit include/brook/bits.h:20 [inline]
 brook_level+0x3a/0x6d0 drivers/brook/level.c:177
 brook_read+0x2c2/0xd50 drivers/brook/main.c:401
 </TASK>
"""


@pytest.mark.parametrize("caller", [None, "T508"])
def test_the_last_of_a_symbolised_header_s_lines_names_the_function(caller: str | None) -> None:
    event = only(log(SYMBOLISED, caller))
    assert event.title == "KASAN: slab-out-of-bounds Read in brook_level"
    assert event.location == "drivers/brook/level.c:177"
    assert event.line == 0
    assert Frame("brook_bit", location="include/brook/bits.h:20") in event.stack


def test_a_symbolised_warning_s_header() -> None:
    head = "WARNING: CPU: 0 PID: 99 at drivers/brook/main.c:77 "
    event = only(
        log(
            f"{head}brook_check drivers/brook/main.c:77 [inline]\n"
            f"{head}brook_flow+0x2b/0x40 drivers/brook/main.c:90\n"
            "RIP: 0010:brook_check drivers/brook/main.c:77 [inline]\n"
            "RIP: 0010:brook_flow+0x2b/0x40 drivers/brook/main.c:90\n"
            + trace("brook_thread+0x90/0x120 drivers/brook/thread.c:8"),
            "T99",
        )
    )
    assert event.title == "WARNING in brook_flow"


def test_an_inlined_call_is_never_the_guilty_one() -> None:
    event = only(
        log(
            "WARNING: bad unlock balance detected!\n4.16.0 #1 Not tainted\n"
            "brookd/9 is trying to release lock (gate) at:\n"
            "[<00000000a21eca85>] gate_open include/brook/gate.h:16 [inline]\n"
            "[<00000000a21eca85>] brook_leave+0xb8a/0xee0 drivers/brook/main.c:26\n"
            "but there are no more locks to release!\n"
            + trace("dump_stack+0x1/0x2", "lock_release+0x1/0x2", "brook_exit+0x1/0x2")
        )
    )
    assert event.title == "WARNING: bad unlock balance in brook_leave"


def test_two_headers_of_the_same_words_are_two_reports_if_none_was_inlined() -> None:
    head, *rest = KASAN.splitlines()[1:]
    assert len(klog.read(log("\n".join([head, head, *rest])))) == 2


ARM_STACK = """\
Hardware name: Generic DT based system
 unwind_backtrace from show_stack+0x18/0x1c
 show_stack from dump_stack_lvl+0x40/0x4c
"""


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (
            "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580\n"
            "in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: 131, name: sh\n"
            "CPU: 0 PID: 131 Comm: sh Tainted: G           O       6.1.0 #1\n"
            + ARM_STACK
            + " dump_stack_lvl from __might_resched+0x15c/0x16c\n"
            " __might_resched from mutex_lock+0x18/0x60\n"
            " mutex_lock from brook_write+0x41/0xb0 [brook]\n"
            " brook_write [brook] from vfs_write+0xb4/0x3e8",
            "BUG: sleeping function called from invalid context in brook_write",
        ),
        (
            "BUG: KASAN: slab-use-after-free in memcpy+0x14/0x50\n"
            "Write of size 4 at addr c3a5b000 by task sh/131\n\n"
            + ARM_STACK
            + " dump_stack_lvl from kasan_report+0xa0/0xc0\n"
            " kasan_report from memcpy+0x14/0x50\n"
            " memcpy from brook_write+0x41/0xb0 [brook]\n\n"
            "Allocated by task 131:\n kasan_save_stack+0x30/0x4c\n brook_alloc+0x1/0x2 [brook]",
            "KASAN: slab-use-after-free Write in brook_write",
        ),
        (
            "WARNING: CPU: 0 PID: 512 at lib/refcount.c:28 refcount_warn_saturate+0x13c/0x174\n"
            "refcount_t: underflow; use-after-free.\n"
            + ARM_STACK
            + " dump_stack_lvl from __warn+0x98/0x1a0\n"
            " __warn from warn_slowpath_fmt+0xc4/0x1a4\n"
            " warn_slowpath_fmt from refcount_warn_saturate+0x13c/0x174\n"
            " refcount_warn_saturate from brook_put+0x9c/0xb0 [brook]\n"
            "---[ end trace 0000000000000000 ]---",
            "WARNING: refcount bug in brook_put",
        ),
    ],
)
def test_stacks_on_arm_have_no_line_above(body: str, title: str) -> None:
    event = only(log(body))
    assert (event.title, event.module) == (title, "brook")
    assert not event.corrupted


def test_reports_are_followed_by_their_callers() -> None:
    """Two CPUs and a chatty task, line by line in turn."""
    parts = (log(KASAN, "T412"), log(WARNING, "C1"), log("chatter\n" * 40, "T7"))
    columns = [part.splitlines() for part in parts]
    mixed = [c[i] for i in range(50) for c in columns if i < len(c)]
    events = klog.read("\n".join(mixed))
    assert [event.title for event in events] == [
        "KASAN: slab-use-after-free Read in brook_peek",
        "WARNING in brook_flow",
    ]
    assert not any(event.corrupted for event in events)
    assert all("chatter" not in event.excerpt for event in events)
    assert "[     C1]" not in events[0].excerpt


def test_a_report_cut_by_another_is_corrupted() -> None:
    """Without callers nobody can tell whose stack follows."""
    text = log("\n".join(KASAN.splitlines()[1:3]) + "\n" + WARNING)
    cut, whole = klog.read(text)
    assert cut.title == "KASAN: slab-use-after-free Read in corrupted"
    assert cut.corrupted
    assert cut.function == "memcpy"
    assert not whole.corrupted


@pytest.mark.parametrize("lines", [1, 2, 4, 6])
def test_a_report_at_the_end_of_the_log_is_corrupted(lines: int) -> None:
    event = only(log("\n".join(NULL_POINTER.splitlines()[:lines])))
    assert event.kind is Kind.PAGE_FAULT
    assert event.title.endswith("in corrupted")
    assert event.corrupted


def test_a_stack_of_fault_injection_is_not_the_report_s() -> None:
    event = only(
        log(
            "BUG: sleeping function called from invalid context at a.c:1\nCall Trace:\n"
            " dump_stack+0x1/0x2\n should_fail_ex+0x1/0x2\n brook_alloc+0x31/0x80 [brook]"
        )
    )
    assert event.title == "BUG: sleeping function called from invalid context in corrupted"
    assert event.corrupted


def test_what_is_left_of_a_panic_whose_cause_is_not_in_the_text() -> None:
    event = only(log("Kernel panic - not syncing: panic_on_warn set ..."))
    assert event.title == "kernel panic: panic_on_warn set"
    assert event.corrupted


def test_a_panic_belongs_to_its_cause_in_whatever_task() -> None:
    text = log(HUNG_TASK, "T30") + log("Kernel panic - not syncing: hung_task: blocked tasks", "C3")
    assert only(text).kind is Kind.HUNG_TASK


def test_a_stack_that_was_asked_for_leads_to_no_panic() -> None:
    asked = (CASES / "healthy-fault-injection.log").read_text()
    event = only(asked + log("Kernel panic - not syncing: Fatal exception", "T9", start=900))
    assert event.kind is Kind.PANIC


def test_init_may_die_of_its_own() -> None:
    death = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"
    kinds = [event.kind for event in klog.read(log(WARNING + "\n" + death))]
    assert kinds == [Kind.WARNING, Kind.PANIC]
    assert only(log(NULL_POINTER + "\n" + death)).kind is Kind.PAGE_FAULT


def test_the_name_of_a_hung_task_may_hold_a_line_feed() -> None:
    event = only(log(HUNG_TASK.replace("brook-test", "br\nook")))
    assert event.title == "INFO: task hung in brook_open"
    assert klog.read(log("INFO: task br\nook is fine")) == []


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (WARNING.splitlines()[1], "WARNING in corrupted"),
        (
            "WARNING: possible circular locking dependency detected\n6.1.0 #1 Not tainted",
            "WARNING: possible circular locking dependency detected",
        ),
        ("BUG: unable to handle kernel", "BUG: unable to handle kernel"),
        ("BUG:", "BUG: corrupted"),
        (
            "BUG: KASAN: null-ptr-deref on address 0000000000000010",
            "KASAN: null-ptr-deref on address ADDR",
        ),
        (
            "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
            "INFO: rcu detected stall in corrupted",
        ),
    ],
)
def test_a_header_alone_is_corrupted(body: str, title: str) -> None:
    event = only(log(body))
    assert event.title == title
    assert event.corrupted


def test_two_reports_of_one_task_are_two_events() -> None:
    titles = [event.title for event in klog.read(log(WARNING + "\n" + KASAN, "T9"))]
    assert titles == ["WARNING in brook_flow", "KASAN: slab-use-after-free Read in brook_peek"]
    assert klog.first(log(WARNING + "\n" + KASAN)) == klog.read(log(WARNING))[0]


KMEMLEAK = """\
unreferenced object 0xffff888005c41a00 (size 64):
  comm "insmod", pid 300, jiffies 4294892345
  hex dump (first 32 bytes):
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
  backtrace (crc 1f2e3d4c):
    [<00000000a1b2c3d4>] kmalloc_trace+0x26/0x90
    [<00000000e5f60718>] brook_alloc_pool+0x1/0x2 [brook]
    [<0000000011223344>] brook_init+0x31/0x80 [brook]
"""


@pytest.mark.parametrize("above", ["", "BUG: memory leak\n"])
def test_leaks_as_the_kernel_s_file_and_as_tools_print_them(above: str) -> None:
    event = only(above + KMEMLEAK)
    assert (event.kind, event.title) == (Kind.LEAK, "memory leak in brook_alloc_pool")
    assert event.module == "brook"


@pytest.mark.parametrize(
    "name",
    ["brook_string_show", "brook_panic_notify", "brook_handput", "brook_list_add", "brook_printk"],
)
def test_a_module_s_function_is_no_helper_for_a_word_in_its_name(name: str) -> None:
    event = only(log(WARNING.replace("brook_flow", name)))
    assert (event.title, event.function, event.module) == (f"WARNING in {name}", name, "brook")
    assert event.stack[0].function == name


def test_a_module_s_function_may_wait_and_still_be_the_one() -> None:
    body = HUNG_TASK.replace("brook_open+", "brook_shutdown+")
    assert only(log(body)).title == "INFO: task hung in brook_shutdown"


def test_a_module_may_have_a_helper_of_the_kernel_s_name() -> None:
    event = only(log(WARNING.replace("brook_flow", "__kmalloc_brook")))
    assert event.title == "WARNING in brook_thread"


def test_a_page_s_origin_may_be_a_module_s_own_allocator() -> None:
    event = only(
        log(
            "BUG: Bad page state in process sh  pfn:01234\npage_owner tracks the page as freed\n"
            "page last allocated via order 0, migratetype Movable, gfp_mask 0xcc0, pid 9\n"
            " post_alloc_hook+0x1/0x2\n __alloc_pages+0x1/0x2\n brook_alloc_ring+0x5/0x9 [brook]\n"
            + trace("dump_stack_lvl+0x1/0x2", "bad_page+0x1/0x2", "brook_drop+0x1/0x2 [brook]")
        )
    )
    assert event.title == "BUG: Bad page state in brook_alloc_ring"


@pytest.mark.parametrize("where", ["(percpu) ", "(phys) "])
def test_leaks_of_memory_that_is_no_slab_s(where: str) -> None:
    event = only(log(KMEMLEAK.replace("object 0x", f"object {where}0x")))
    assert (event.kind, event.title) == (Kind.LEAK, "memory leak in brook_alloc_pool")


SPIN = "RIP: 0010:brook_spin+0x3/0x10 [brook]\n"
CALLED = trace("brook_write+0x41/0xb0 [brook]", "vfs_write+0x1/0x2", "ksys_write+0x6d/0xf0")


@pytest.mark.parametrize(
    "body",
    [
        "rcu: INFO: rcu_preempt self-detected stall on CPU\n"
        "rcu: \t1-....: (5249 ticks this GP) idle=6fa4/1/0x4000000000000000 softirq=23/23 fqs=26\n"
        + SPIN
        + "Call Trace:\n <IRQ>\n ? rcu_dump_cpu_stacks+0x1/0x2\n"
        " ? __sysvec_apic_timer_interrupt+0x1/0x2\n </IRQ>\n <TASK>\n"
        " ? asm_sysvec_apic_timer_interrupt+0x1/0x2\n ? brook_spin+0x3/0x10 [brook]\n"
        " brook_write+0x41/0xb0 [brook]\n vfs_write+0x1/0x2\n </TASK>",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n"
        "rcu: \t1-....: (4 ticks this GP) idle=a3fc/1/0x4000000000000000 softirq=10/10 fqs=26\n"
        "Sending NMI from CPU 0 to CPUs 1:\nNMI backtrace for cpu 1\n" + SPIN + CALLED,
        "rcu: INFO: rcu_sched self-detected stall on CPU\n"
        "pc : brook_spin+0x3/0x10 [brook]\nlr : brook_write+0x41/0xb0 [brook]\nCall trace:\n"
        " brook_spin+0x3/0x10 [brook]\n brook_write+0x41/0xb0 [brook]\n vfs_write+0x1/0x2",
    ],
)
def test_a_stall_without_a_timer_s_frames_is_where_the_cpu_was(body: str) -> None:
    event = only(log(body))
    assert event.title == "INFO: rcu detected stall in brook_write"
    assert not event.corrupted


TASK_DUMP = """\
INFO: rcu_sched detected stalls on CPUs/tasks: { 0} (detected by 1, t=5252 jiffies, g=825)
Task dump for CPU 0:
sh R running 0 2642 2641 0x00000000
Call Trace:
[c7363c70] [c0631338] schedule+0x30/0xbc (unreliable)
"""


def test_a_stall_is_where_the_task_was_that_the_cpu_runs() -> None:
    """powerpc cannot interrupt a CPU; it shows the task's stack."""
    calls = (
        "[c7363d30] [c007d6cc] brook_spin+0x88/0x108 [brook]\n[c7363d50] [c007] vfs_write+0x1/0x2"
    )
    event = only(log(TASK_DUMP + calls))
    assert (event.function, event.module) == ("brook_spin", "brook")


def test_a_task_s_stack_with_the_interrupt_that_looked_tells_nothing() -> None:
    calls = "[c7363d30] [c007] rcu_check_callbacks+0x88/0x108\n[c7363d50] [c0071234] tick+0x1/0x2"
    assert only(log(TASK_DUMP + calls)).function not in {"tick", "rcu_check_callbacks"}


def test_a_stall_does_not_name_what_waits() -> None:
    event = only(
        log(
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\nrcu: \tTasks blocked: P9\n"
            "task:brookd  state:R  running task  stack:0 pid:9 ppid:1 flags:0x0\n"
            + trace("__schedule+0x1/0x2")
            + "\n"
            + SPIN
            + CALLED
        )
    )
    assert event.title == "INFO: rcu detected stall in corrupted"


def test_hard_lockup() -> None:
    event = only(
        log(
            "watchdog: Watchdog detected hard LOCKUP on cpu 1\n"
            "RIP: 0010:brook_spin+0x3/0x10 [brook]\n"
            + trace("brook_write+0x41/0xb0 [brook]", "vfs_write+0x1/0x2")
            + "\nKernel panic - not syncing: Hard LOCKUP"
        )
    )
    assert (event.kind, event.title) == (Kind.HARD_LOCKUP, "BUG: hard lockup in brook_write")


BOOT = """\
[    0.000000] Linux version 6.1.0-20-amd64 (debian-kernel@lists.debian.org) #1 SMP
[    0.000000] Command line: console=ttyS0 panic=-1 oops=panic ignore_loglevel
[    0.004000] Kernel command line: console=ttyS0 panic=-1 oops=panic ignore_loglevel
[    0.100000] Speculative Store Bypass: WARNING: this CPU is what it is
[    0.200000] WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible
[    0.300000] Memory: 100K/200K available (1K kernel code, INFO: none, 0K cma-reserved)
[    0.400000] WARNING: CPU frequencies are not known
[    1.000000] brook: loading out-of-tree module taints kernel.
[    1.000001] brook: module verification failed: signature and/or required key missing
[    1.100000] systemd[1]: Started brook.
[    1.200000] Run /init as init process
"""


def test_an_ordinary_boot_has_no_problem() -> None:
    assert klog.read(BOOT, booted=False) == []
    assert klog.read(BOOT) == []  # the text begins with it: it is not a reboot


@pytest.mark.parametrize(
    "mark",
    [
        "Booting the kernel.\n",
        "Decompressing Linux... Parsing ELF... done.\nBooting the kernel (entry_offset: 0x10).\n",
        "",
    ],
)
def test_a_second_boot_is_an_unexpected_reboot(mark: str) -> None:
    running = log("brook: flowing\n" * 3, start=100)
    event = only(running + mark + BOOT)
    assert (event.kind, event.title) == (Kind.REBOOT, "unexpected kernel reboot")
    assert klog.read(mark + BOOT, booted=False) == []
    assert [e.kind for e in klog.read(BOOT + running + mark + BOOT, booted=False)] == [Kind.REBOOT]


def test_a_reboot_after_a_panic_belongs_to_the_panic() -> None:
    assert only(log(NULL_POINTER) + "Booting the kernel.\n" + BOOT).kind is Kind.PAGE_FAULT


@pytest.mark.parametrize(
    "line",
    [
        "brook: DEBUG: all is well",
        "DEBUG: BUG_ON is a macro",
        "rmt_storage:INFO:open",
        "INFO: lockdep is turned off.",
        "INFO: NMI handler (perf_event_nmi_handler) took too long to run: 1.2 msecs",
        "INFO: rcu_preempt detected stall, but suppressed full report due to a stuck CSD-lock.",
        "WARNING: brook is a toy driver",
        "brook: warning: level is low",
        "PANIC_TIMEOUT is 0",
        "brook: panic=-1 was given",
        "Kernel panic is what this test is about",
        'audit: type=1400 comm="BUG: KASAN: use-after-free in x"',
        "traps: brook-test[12] general protection fault ip:55d sp:7ff error:0 in brook[55d0+10]",
        "brook-test[12]: segfault at 0 ip 0000 sp 0000 error 4 in libc.so",
        "BUG UNIX (Not tainted): kasan: bad access detected",
        "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "brook: Unknown parameter 'Booting the kernel.'",
        "test_brook.py::test_bug_on: BUG: expected",
        "Internal error: the door is open",
        "Oops: wrong door",
        "Oops - wrong door",
        "brook: object count: 0000",
        "brook: it took: 0000 ms, BUG free",
    ],
)
def test_no_false_alarm(line: str) -> None:
    around = "before\n{}\nafter\n"
    assert klog.read(log(around.format(line))) == []
    assert klog.read(around.format(line)) == []
    assert klog.read(log("kernel line\n") + around.format(line)) == []


def test_lines_of_programs_are_no_kernel_problems() -> None:
    """What /dev/kmsg and dmesg -r show with a facility was written by a program."""
    title = "BUG: KASAN: use-after-free in brook_peek+0x1/0x2"
    assert klog.read(f"12,1,2,-;{title}\n") == []
    assert klog.read(f"<12>[    1.000000] {title}\n") == []
    assert klog.read(f"4,1,2,-;{title}\n") != []
    # In a log with stamps, a line without one is a program's.
    assert klog.read(log("kernel line") + "BUG: no door\n" + "WARNING: no door\n") == []


def test_a_flood_hides_nothing() -> None:
    """The last of many reports is read as well as the first, whatever came before it."""
    flood = "BUG: soft lockup - CPU#0 stuck for 26s! [a:1]\n" * 1500 + "BUG: no door\n" * 12_000
    *before, last = klog.read(log(flood) + log(KASAN, start=900))
    assert len(before) == 13_500
    assert last.title == "KASAN: slab-use-after-free Read in brook_peek"


def test_events_are_read_when_they_are_wanted() -> None:
    """Who has seen enough pays for no more."""
    events = klog.events(log(WARNING) + "x" * 1000)
    assert next(events).title == "WARNING in brook_flow"


def test_a_line_is_cut_to_what_a_record_can_hold() -> None:
    long = only(log("BUG: no door " + "x" * 9000))
    assert len(long.excerpt) == 2048
    assert only("login: " * 9000 + log("BUG: no door")).excerpt == "[   12.000000] BUG: no door"


def test_a_rust_name_that_doubles_with_each_part_is_left_as_it_is() -> None:
    """Each part of it is two references to the part before: 2**20 steps in 150 characters."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def reference(at: int) -> str:
        number, text = at - 1, ""
        while True:
            text = digits[number % 62] + text
            number //= 62
            if not number:
                return f"B{text}_"

    name, target = "INvC1a1bTmmE", 7
    for _ in range(20):
        at = len(name)
        name += f"T{reference(target)}{reference(target)}E"
        target = at
    event = only(log(WARNING.replace("brook_flow", f"_R{name}E")))
    assert event.function == f"_R{name}E"


MUTATIONS = 400


def test_never_raises() -> None:
    """Any text gives events: the reports cut, shuffled, doubled and sprinkled with rubbish."""
    chance = random.Random(20240304)  # noqa: S311 - the same texts each time
    texts = [case.text for case in ALL] + [BOOT, KMEMLEAK]
    rubbish = [
        "\x00",
        "\r",
        "\n",
        "[",
        "]",
        "<",
        "+0x",
        "\ufffd",
        "\u2028",
        "_R",
        "{func}",
        "?" * 99,
    ]
    for _ in range(MUTATIONS):
        lines = chance.choice(texts).splitlines(keepends=True)
        lines += chance.choice(texts).splitlines(keepends=True)
        match chance.randrange(4):
            case 0:
                chance.shuffle(lines)
            case 1:
                lines = lines[chance.randrange(len(lines)) :]
            case 2:
                lines = chance.choices(lines, k=len(lines))
        text = "".join(lines)
        for _ in range(chance.randrange(12)):
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice(rubbish) + text[at + chance.randrange(30) :]
        events = klog.read(text, booted=chance.random() < 0.5)
        count = text.count("\n") + 1
        assert all(0 <= event.line < count and event.title for event in events)
        assert [e.line for e in events] == sorted(e.line for e in events)


@pytest.mark.parametrize("text", ["", "\n", "\x00", "BUG:", "WARNING: ", "[", "_R" * 9000])
def test_smallest_texts(text: str) -> None:
    assert len(klog.read(text)) <= 1


def seconds(text: str) -> float:
    before = time.process_time()
    klog.read(text)
    return time.process_time() - before


@pytest.mark.parametrize(
    "unit",
    [
        log("brook: level 5 of 9, all is well, nothing to see here"),
        log("BUG: KASAN: use-after-free in x") + "a." * 900 + "\n",
        log("BUG: KASAN: use-after-free in x") + "[" * 900 + " " * 900 + "+0x1/0x\n",
        log(WARNING, "T5"),
        log("WARNING: it rains"),
        "BUG: Dentry " * 150 + "\n",
    ],
    ids=["flood", "dots", "brackets", "warnings", "talk", "dentries"],
)
def test_time_is_proportional_to_length(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    once, fourfold = min(seconds(text) for _ in range(3)), seconds(text * 4)
    assert fourfold < 12 * max(once, 0.02)


@pytest.mark.parametrize("pasted", [False, True], ids=["console", "pasted"])
@pytest.mark.parametrize(
    "unit",
    [
        "[1] ",
        "> ",
        "Mar 04 12:00:01 ",
        "a.",
        "f (a.c:1(",
        "WARNING: [",
        "general protection fault, ",
        "Assertion failed: ",
        "(a) from ",
        "[<ffffffff81234567>] ",
    ],
)
def test_the_work_of_reading_grows_with_the_log(unit: str, pasted: bool) -> None:
    """Neither more lines nor longer ones are read more than once."""
    head = log(KASAN) + "[   90.000000] "

    def read(text: str) -> object:
        return klog.read(text, pasted=pasted)

    assert grows_with_length(read, lambda n: head + unit * n, 5_000)
    assert grows_with_length(read, lambda n: (head + unit * 80 + "\n") * n, 15)


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        ("_RNvCs15kBYyAo9fc_7mycrate7example", "mycrate::example"),
        ("_RNvMs_Cs4_5brookNtB4_6Stream4fill", "<brook::Stream>::fill"),
        ("_RNCNvCs4_5brook4fill0B3_", "brook::fill::{closure#0}"),
        ("_RINvCs4_5brook4fillmE", "brook::fill::<u32>"),
        ("_RNvCs4_5brook40fill", "_RNvCs4_5brook40fill"),
        ("_RB_", "_RB_"),
        ("_R" + "I" * 300, "_R" + "I" * 300),
    ],
)
def test_rust_names(mangled: str, name: str) -> None:
    text = log(
        f"BUG: sleeping function called from invalid context\nCall Trace:\n {mangled}+0x1/0x2"
    )
    assert only(text).function == name


# --------------------------------------------------------------------------------------------


def test_bench_measures_a_folder() -> None:
    score = bench.measure(DATA)
    assert (score.logs, score.problems, score.found) == (4, 3, 3)
    assert (score.right_kind, score.right_function, score.false_alarms) == (2, 2, 0)
    assert [(miss.log, miss.got) for miss in score.misses] == [
        ("mislabelled.log", "WARNING in brook_flow")
    ]
    assert json.loads(bench.as_json(score))["logs"] == 4


def test_bench_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([str(DATA), "--misses"]) == 0
    shown = capsys.readouterr().out
    assert "problems found  3 of 3 (100.0 %)" in shown
    assert "false alarms    0 of 1" in shown
    assert "mislabelled.log" in shown


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (None, "has no labels.json"),
        ("{", "cannot be read"),
        ("[]", "must hold an object"),
        ('{"a.log": {}}', '"title"'),
        ('{"a.log": {"title": 5}}', "string or null"),
        ('{"a.log": {"title": null, "alt": "x"}}', '"alt"'),
        ('{"a.log": {"title": null}}', "cannot be read"),
    ],
)
def test_bench_says_what_is_wrong_with_a_folder(
    tmp_path: Path, labels: str | None, word: str
) -> None:
    if labels is not None:
        (tmp_path / "labels.json").write_text(labels)
    with pytest.raises(bench.KlogBenchError, match=word.replace('"', '"')):
        bench.measure(tmp_path)
    assert bench.main([str(tmp_path)]) == 2


def test_bench_wants_a_folder(tmp_path: Path) -> None:
    with pytest.raises(bench.KlogBenchError, match="not a folder"):
        bench.measure(tmp_path / "nowhere")


def test_bench_counts_false_alarms(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"a.log": {"title": null}}')
    (tmp_path / "a.log").write_text(log(WARNING))
    score = bench.measure(tmp_path)
    assert (score.problems, score.false_alarms) == (0, 1)
    assert "1 of 1" in bench.render(score)


def test_an_interrupt_that_nobody_answers_needs_no_stack() -> None:
    """The handlers below tell it from a sentence about it."""
    header = 'irq 3: nobody cared (try booting with the "irqpoll" option)\n'
    handlers = "handlers:\n[<c0353674>] brook_irq [brook]\nDisabling IRQ #3\n"
    assert not klog.read(header + "That is what it says.\n", pasted=True)
    (event,) = klog.read(header + handlers, pasted=True)
    assert (event.function, event.module) == ("brook_irq", "brook")


def test_the_second_line_of_a_warning_has_its_stack() -> None:
    """A log may begin below the line that says where; a stack of another report is none of it."""
    header = "NETDEV WATCHDOG: eth0 (brook): transmit queue 0 timed out\n"
    stack = "Call Trace:\n __warn+0x1/0x2\n {}+0x1/0x2\n call_timer_fn+0x1/0x2\n"
    (event,) = klog.read(header + stack.format("dev_watchdog"), pasted=True)
    assert event.function == "dev_watchdog"
    (event,) = klog.read(header + stack.format("brook_poll"), pasted=True)
    assert event.function is None


def test_a_bug_in_words_that_nobody_knows_happened_where_its_registers_are() -> None:
    text = "BUG: brook instruction in kernel mode\nPC is at brook_save+0x0/0x28\n"
    (event,) = klog.read(text, pasted=True)
    assert event.function == "brook_save"
