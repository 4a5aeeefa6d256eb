# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/card*.py: what a person gets to know of a module."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from datetime import date

import pytest

from harness.report import card, card_compare, card_formats
from harness.report.card import Card, Finding
from harness.report.result import Case, Cell, Excerpt, KernelResult

OOPS = """\
splat: BUG: kernel NULL pointer dereference, address: 0000000000000010, in wee_write at wee.c:31
    BUG: kernel NULL pointer dereference, address: 0000000000000010
    Call Trace:
     wee_write+0x12/0x40 [wee] (wee.c:31)

AssertionError: open: was ended by signal 9
"""


def case(name: str, outcome: str = "failed", suite: str = "any", why: str = "") -> Case:
    return Case(name, suite, outcome, 1.0, why)


def result(*tests: Case, status: int = 1, cells: dict[str, Cell] | None = None) -> KernelResult:
    return KernelResult(
        "trixie", "6.12", "1", status, 0.0, 3.0, 4.0, cells or {}, tests, "by Kbuild"
    )


def made(
    *tests: Case, said: Mapping[str, str | tuple[str, ...]] | None = None, **more: object
) -> Card:
    """A card of what tests say; several texts of one test are its own and its teardown's."""
    texts = {
        ("any", name): (text,) if isinstance(text, str) else text
        for name, text in (said or {}).items()
    }
    return card.card("alice", "/class/alice", result(*tests, **more), texts,  # type: ignore[arg-type]
                     options=["--module=/class/alice"])  # fmt: skip


def test_a_fault_that_many_tests_show_is_one_finding() -> None:
    """At the same place, reported in other words: one, with all its tests."""
    other = OOPS.replace("kernel NULL pointer dereference", "unable to handle page fault")
    one = made(case("a::test_one"), case("a::test_two[x]"),
               said={"a::test_one": OOPS, "a::test_two[x]": other})  # fmt: skip
    (finding,) = one.findings
    assert (finding.kind, finding.where) == ("memory", "wee.c:31")
    assert finding.tests == ("a::test_one", "a::test_two[x]")
    assert finding.again == (
        "invoke test-vm --module=/class/alice --kernel trixie --filter test_one --suite any"
    )
    assert "copy_from_user()" in finding.means
    assert finding.says == "open: was ended by signal 9"
    assert (one.outcome, one.failed) == ("1 fault", 2)


HUNG = """\
splat: INFO: task hung in wee_write at wee.c:29 (6 times)
     wee_write+0x1d/0xb0 [wee] (wee.c:29)

AssertionError: write: `write 1:a` does not come back from `write 1:a`
"""
NOT_BACK = """\
E   AssertionError: write: `pwrite 9:a 4` does not come back from `pwrite 9:a 4`:
E     D
E     [<0>] wee_write+0x1d/0xb0 [wee] (include/linux/mutex.h:8 in wee.c:29)
tests/vm/contract/test_write.py:97: AssertionError
"""


def test_a_lock_that_is_kept_is_one_finding_that_shows_the_line() -> None:
    """The kernel reports who waits for it, a test sees it, and what stands there names the lock."""
    lines = ("{", "\tmutex_lock(&text_lock);", "}")
    seen = replace(case("a::test_one"), excerpts=(Excerpt("wee.c", 29, 28, lines),))
    said = {"a::test_one": HUNG, "a::test_two": NOT_BACK}
    for cases in ((seen, case("a::test_two")), (case("a::test_two"), seen)):
        (finding,) = made(*cases, said=said).findings
        assert (finding.kind, finding.where) == ("hang", "wee.c:29")
        assert finding.code == "mutex_lock(&text_lock);"
        assert len(finding.tests) == 2
    shown = card_formats.markdown(made(seen, said=said), escaped=str)
    assert "- where: wee.c:29: mutex_lock(&text_lock);\n" in shown


def test_a_line_of_another_place_is_not_shown() -> None:
    """Of one that a test looked at as well, or that is not in the excerpt."""
    for excerpt in (Excerpt("wee.c", 28, 28, ("{",)), Excerpt("wee.c", 29, 30, ("{",))):
        seen = replace(case("a::test_one"), excerpts=(excerpt,))
        (finding,) = made(seen, said={"a::test_one": HUNG}).findings
        assert (finding.where, finding.code) == ("wee.c:29", "")


GONE_BUT = "residue: the module is unloaded, but "
IN_A_LIST = f"{GONE_BUT}left behind: debugfs wee: debugfs_remove() was not called"
AN_INODE = (
    f"{GONE_BUT}an object of the slab cache inode_cache still holds wee_count: a file of the "
    "module's is still there or open; wee_count is defined at wee.c:20"
)
A_DENTRY = AN_INODE.replace("inode_cache", "dentry").replace("wee.c:20", "wee.c:12")
ENTRY = (
    "residue: {} is still there: {} was not called, in init_module at wee.c:31\n"
    "     init_module+0x6a/0xd0 [wee] (wee.c:31)"
)


def test_all_that_is_left_from_different_places_is_told() -> None:
    """What is left leads to nothing else: who mends one of them still has the others."""
    leak = "leak: {} bytes that memdup_user() allocated were never freed, in wee_write at wee.c:49"
    said = "\n".join([
        f"{GONE_BUT}left behind: thread wee: kthread_stop() was not called", AN_INODE,
        "    an object of the slab cache inode_cache points to wee_count",
        leak.format(2), "     wee_write+0x54/0xed [wee] (wee.c:49)", leak.format(101),
    ])  # fmt: skip
    one = made(case("a::test_one"), case("a::test_two"),
               said={"a::test_one": said, "a::test_two": said})  # fmt: skip
    assert [each.where for each in one.findings] == ["wee.c:49", "", "wee.c:20"]
    assert all(each.kind == "left" for each in one.findings)
    assert all(each.tests == ("a::test_one", "a::test_two") for each in one.findings)
    assert one.findings[0].seen == leak.format(2)


def test_a_folder_of_debugfs_that_is_left_is_one_fault() -> None:
    """It is in a list, and its files are seen as well; the line that has made it says most."""
    one = made(case("a::test_one"),
               said={"a::test_one": f"{IN_A_LIST}\n{AN_INODE}\n{A_DENTRY}"})  # fmt: skip
    (finding,) = one.findings
    assert finding.seen == IN_A_LIST
    assert finding.where in ("wee.c:20", "wee.c:12")
    entry = ENTRY.format("/sys/kernel/debug/wee", "debugfs_remove()")
    said = {"a::test_one": f"{AN_INODE}\n{IN_A_LIST}\n{entry}\n{A_DENTRY}", "a::test_two": A_DENTRY}
    (finding,) = made(case("a::test_one"), case("a::test_two"), said=said).findings
    assert finding.where == "wee.c:31"
    assert "debugfs_remove() was not called" in finding.seen
    assert finding.tests == ("a::test_one", "a::test_two")


def test_an_inode_without_a_folder_that_is_left_is_a_fault_of_its_own() -> None:
    """What has an inode is not known then; nor does a class explain a file of debugfs."""
    of_class = ENTRY.format("/sys/class/wee", "class_destroy()")
    one = made(case("a::test_one"), said={"a::test_one": f"{of_class}\n{AN_INODE}"})
    assert [each.where for each in one.findings] == ["wee.c:31", "wee.c:20"]


TWICE = """\
splat: sysfs: duplicate filename in wee_init at wee.c:31 (51 times)
    [   12.17] sysfs: cannot create duplicate filename '/class/wee'
    [   12.17]  wee_init+0x6a/0xff0 [wee] (wee.c:31)

AssertionError: life 1 of 50: insmod /root/wee.ko answers -EEXIST
"""
# Another module asks for the name, so that no line of this one is known.
TWICE_BY_OTHERS = TWICE.replace(" in wee_init at wee.c:31", " in taken_init").replace(
    "wee.c", "t.c"
)


@pytest.mark.parametrize("taken", [TWICE, TWICE_BY_OTHERS])
@pytest.mark.parametrize("cause", [
    ENTRY.format("/sys/class/wee", "class_destroy()"),
    f"{GONE_BUT}left behind: class wee: class_destroy() was not called",
])  # fmt: skip
def test_a_name_that_an_earlier_life_has_left_is_told_with_that(taken: str, cause: str) -> None:
    """The call that was forgotten comes first, whichever test has seen what."""
    said = {"a::test_fifty": taken, "a::test_loads": cause}
    (finding,) = made(*(case(name) for name in said), said=said).findings
    assert "class_destroy() was not called" in finding.seen
    assert sorted(finding.tests) == sorted(said)


def test_a_name_is_known_by_a_list_that_is_told_with_its_cause() -> None:
    """Who points to the module says nothing of the name; that is in the list only."""
    call = "remove_proc_entry() or proc_remove() was not called"
    holds = f"{GONE_BUT}an object of the slab cache proc_dir_entry still holds show: {call}; show "
    said = {
        "a::test_loads": f"{GONE_BUT}left behind: proc wee: {call}\n{holds}is defined at wee.c:6",
        "a::test_fifty": "splat: WARNING: proc registration bug in wee_init at wee.c:14\n"
        "    it says: proc_dir_entry '/proc/wee' already registered",
    }
    (finding,) = made(*(case(name) for name in said), said=said).findings
    assert finding.where == "wee.c:6"
    assert call in finding.seen


def test_a_name_that_is_taken_for_another_reason_is_told_after_what_is_left() -> None:
    """It is a fault of its own where nothing of that name is left."""
    cause = f"{GONE_BUT}left behind: thread other: kthread_stop() was not called"
    said = {"a::test_fifty": TWICE, "a::test_loads": cause}
    first, second = made(*(case(name) for name in said), said=said).findings
    assert first.seen == cause
    assert (second.where, "'/class/wee'" in second.seen) == ("wee.c:31", True)


def test_what_a_report_has_led_to_is_told_with_it() -> None:
    """A task that dies in the middle gives nothing back."""
    said = f"{OOPS}\nleak: 8 bytes that kmalloc() allocated were never freed, in f at wee.c:9"
    one = made(case("a::test_one"), said={"a::test_one": said})
    assert [each.where for each in one.findings] == ["wee.c:31"]


def test_of_two_reports_at_once_the_one_with_a_place_is_told() -> None:
    """Where the kernel has its own check says nothing of the module."""
    said = (
        "splat: BUG: bad usercopy in corrupted\n    kernel BUG at mm/usercopy.c:102!\n"
        "splat: BUG: bad usercopy in wee_write at wee.c:12\n    kernel BUG at mm/usercopy.c:102!\n"
    )
    (finding,) = made(case("a::test_one"), said={"a::test_one": said}).findings
    assert finding.where == "wee.c:12"


NEITHER = "which is neither an error nor up to"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("panic: kernel panic: Fatal exception", "panic"),
        ("splat: BUG: scheduling while atomic: perl/123", "locking"),
        ("splat: possible recursive locking detected", "locking"),
        ("splat: usercopy: Kernel memory overwrite attempt detected", "memory"),
        ("splat: BUG kmalloc-64: Right Redzone overwritten", "memory"),
        ("splat: KASAN: slab-use-after-free in wee_write", "memory"),
        ("splat: kernel BUG in delete_module: it is freed twice", "memory"),
        ("splat: BUG: unable to handle paging: tick is not there any more after rmmod", "memory"),
        ("panic: BUG: unable to handle paging: tick is not there any more after rmmod", "panic"),
        ("splat: general protection fault in wee_write", "memory"),
        ("splat: WARNING in wee_init", "report"),
        ("splat: WARNING in delete_module, in kthread_stop", "memory"),
        ("splat: WARNING in install_clock at myblock.c:7: a page fault", "memory"),
        ("splat: WARNING in install_clock at myblock.c:7", "report"),
        ("splat: WARNING in wee_init at wee.c:7: proc_dir_entry 'wee' already registered", "left"),
        ("splat: sysfs: cannot create duplicate filename '/class/wee'", "left"),
        ("splat: debugfs: Directory already present", "left"),
        ("splat: WARNING: proc registration bug in clock_init at clock.c:14: proc_dir_entry "
         "'/proc/clock' already registered", "left"),
        ("splat: WARNING in wee_init: name 'a lock' is no name", "report"),
        ("splat: WARNING: still has locks held in wee_open", "locking"),
        ("hung: the guest is well, but rmmod does not end", "hang"),
        ("lost: the guest does not answer", "hang"),
        ("residue: the module is unloaded, and a timer of it runs", "left"),
        ("leak: 64 bytes", "left"),
        ("host fault: QEMU was ended by SIGKILL", "unknown"),
        ("E   AssertionError: idle, rmmod does not come back from `rmmod wee`", "hang"),
        ("E   AssertionError: insmod fails with -ENOMEM, and left behind /dev/wee", "left"),
        ("E   Failed: wee does not load: insmod: ERROR", "load"),
        (f"E   AssertionError: `open /dev/wee r ; read 1`: read 1 returns 13, {NEITHER} 1 bytes",
         "memory"),
        (f"E   AssertionError: `open /dev/wee w ; write 1`: write 1 returns 2, {NEITHER} 1 bytes",
         "rule"),
        ("E   AssertionError: the log shows memory that was freed: kkkk", "memory"),
        ("E   AssertionError: the log shows memory that nobody has written (uninitialised)",
         "memory"),
        ("the guest does not take the command `true`: SSH session not active", "unknown"),
        ("splat: INFO: task hung in wee_write at wee.c:3", "hang"),
        ("E   AssertionError: its mode is 0666, and should be 0222", "rule"),
    ],
)  # fmt: skip
def test_what_was_seen_has_a_kind(said: str, kind: str) -> None:
    """Each report of the kernel's, and what tests say."""
    (finding,) = made(case("a::test_it"), said={"a::test_it": said}).findings
    assert finding.kind == kind
    assert finding.seen in said
    assert finding.means


def test_a_place_is_one_fault_whatever_it_ends_in() -> None:
    """An oops in one test, a panic in another one, what is left behind: the worst is told."""
    said = {
        "a::test_one": "residue: wee is left behind at wee.c:31",
        "a::test_two": "panic: kernel panic: Fatal exception, in wee_write at wee.c:31",
        "a::test_three": OOPS,
    }
    (finding,) = made(*(case(name) for name in said), said=said).findings
    assert finding.kind == "panic"
    assert finding.tests == tuple(said)


def test_a_report_with_a_pointer_is_one_fault() -> None:
    """The kernel prints another number for each."""
    said = "splat: WARNING: kobject bug: kobject: '(null)' ({}): is not initialized"
    one, two = (said.format(number) for number in ("00000000fdca5224", "0000000093a2334a"))
    cases = [case("a::test_one"), case("a::test_two")]
    (finding,) = made(*cases, said={"a::test_one": one, "a::test_two": two}).findings
    assert finding.tests == ("a::test_one", "a::test_two")


def test_a_module_that_goes_away_under_its_users_is_one_fault() -> None:
    """Wherever in the kernel they break; what is left behind is told beside it."""
    owner = "AssertionError: rmmod answers 0 while it is open: .owner = THIS_MODULE keeps it there"
    said = {
        "a::test_one": f"splat: BUG: unable to handle page fault in filp_flush\n\n{owner}",
        "a::test_two": f"splat: BUG: unable to handle page fault in vfs_write\n\n{owner}",
        "a::test_three": f"E   {owner}",
        "a::test_four": f"leak: 64 bytes\n\n{owner}",
    }
    fault, leak = made(*(case(name) for name in said), said=said).findings
    assert (fault.kind, fault.tests) == ("memory", tuple(said)[:3])
    assert "THIS_MODULE" in fault.says
    assert leak.kind == "left"


def test_a_thread_that_does_one_thing_at_any_time_is_one_fault() -> None:
    """Tests look at it at several moments. Two things that it does are two."""
    state = "E   AssertionError: {}, the thread wee is in state D: it waits uninterruptibly"
    said = {
        "a::test_one": state.format("after loading"),
        "a::test_two": f"{state.format('after signals to it')} (2 times)",
        "a::test_three": "E   AssertionError: after a write, the thread wee has ended",
    }
    waits, ends = made(*(case(name) for name in said), said=said).findings
    assert waits.seen.startswith("after loading, the thread wee is in state D")
    assert waits.tests == tuple(said)[:2]
    assert "has ended" in ends.seen


WARNS = """\
splat: WARNING in __copy_overflow, in corrupted
    [   60.422005] WARNING: CPU: 1 PID: 210 at mm/maccess.c:228 __copy_overflow+0x1a/0x30
splat: WARNING in __copy_overflow, in wee_write at wee.c:29 (910 times)
    it says: Buffer overflow detected (10 < 4096)!
    [   60.419162] WARNING: CPU: 0 PID: 209 at mm/maccess.c:228 __copy_overflow+0x1a/0x30
    [   60.427146]  wee_write.cold+0xd/0x22 [wee] (include/linux/uaccess.h:207 in wee.c:29)
"""


def test_a_warning_says_what_it_says() -> None:
    """And where in the module; the kernel's own source is no place to look at."""
    (finding,) = made(case("a::test_one"), said={"a::test_one": WARNS}).findings
    assert (finding.kind, finding.where) == ("memory", "wee.c:29")
    assert finding.seen.endswith("Buffer overflow detected (10 < 4096)!")
    half = WARNS.partition("\nsplat")[0]
    (finding,) = made(case("a::test_one"), said={"a::test_one": half}).findings
    assert finding.where == ""


def test_a_wait_that_no_signal_ends_says_how_to_wait() -> None:
    """Unlike a processor that runs in circles, it may be healthy but for that."""
    said = {"a::test_one": "splat: INFO: task hung in ret_from_fork, in wee at wee.c:9"}
    (finding,) = made(case("a::test_one"), said=said).findings
    assert "wait_event_interruptible()" in finding.means
    said = {"a::test_one": "splat: watchdog: BUG: soft lockup in wee at wee.c:9"}
    (finding,) = made(case("a::test_one"), said=said).findings
    assert "in circles" in finding.means


def test_tests_of_two_suites_with_one_name_say_what_they_say() -> None:
    """Neither stands for the other, and one name is told once."""
    cases = [case("a::test_it", suite="contract"), case("a::test_it")]
    said = {("contract", "a::test_it"): (OOPS,), ("any", "a::test_it"): ("leak: 64 bytes",)}
    oops, leak = card.card("alice", "/class/alice", result(*cases), said).findings
    assert (oops.kind, leak.kind) == ("memory", "left")
    same = dict.fromkeys(said, (OOPS,))
    (finding,) = card.card("alice", "/class/alice", result(*cases), same).findings
    assert finding.tests == ("a::test_it",)


STYLE = {"a::test_has_a_description": "E   AssertionError: there is no MODULE_DESCRIPTION()"}


def test_style_alone_is_a_note() -> None:
    """The card is green, and says it all the same."""
    one = made(case("a::test_has_a_description"), case("a::test_it", "passed"), said=STYLE)
    assert (one.outcome, one.status, one.findings) == ("green", 0, ())
    assert one.notes[-1] == "Style: there is no MODULE_DESCRIPTION()"


def test_style_beside_a_fault_is_a_note_too() -> None:
    """The fault counts, and only the fault."""
    said = STYLE | {"a::test_oops": OOPS}
    one = made(*(case(name) for name in said), said=said)
    assert (one.outcome, one.status) == ("1 fault", 1)
    assert one.notes[-1].startswith("Style: ")


def test_a_warning_of_the_compilers_is_a_fault() -> None:
    """It is mostly one."""
    said = {"a::test_builds_without_warnings": "E   AssertionError: wee.c:3: warning: x"}
    one = made(case("a::test_builds_without_warnings"), said=said)
    assert (one.outcome, one.status, one.findings[0].where) == ("1 fault", 1, "wee.c:3")


LEFT = {
    "a::test_left": "residue: the module is unloaded, but timer_bases still holds wee; wee is "
    "defined at a.c:9"
}
TODAY = date(2026, 5, 1)


def left_behind() -> Card:
    return made(case("a::test_left"), case("a::test_it", "passed"), said=LEFT)


def test_what_is_accepted_is_shown_apart() -> None:
    """It makes nothing red until its last day is over."""
    known = [card_compare.Accepted("still holds wee", "the board's firmware wants it", TODAY)]
    one = card_compare.with_accepted(left_behind(), known, TODAY)
    assert (one.outcome, one.status, one.findings) == ("green (1 accepted)", 0, ())
    text = card_formats.markdown(one, escaped=str)
    assert "### Accepted\n\n- residue: the module is unloaded" in text
    assert "the board's firmware wants it (until 2026-05-01)" in text


def test_what_is_accepted_no_more_is_a_finding_again() -> None:
    """And the card says that it was accepted."""
    known = [card_compare.Accepted("still holds wee", "for now", date(2026, 4, 30))]
    one = card_compare.with_accepted(left_behind(), known, TODAY)
    assert (one.outcome, one.status) == ("1 fault", 1)
    assert one.notes[-1] == (
        "It was accepted until 2026-04-30, and is not any more: still holds wee"
    )


def test_what_is_accepted_excuses_nothing_else() -> None:
    """The others stay red, and what does not occur is named, so that it is taken out."""
    known = [card_compare.Accepted("still holds wee", "for now", TODAY),
             card_compare.Accepted("no such thing", "for now", TODAY)]  # fmt: skip
    said = LEFT | {"a::test_oops": OOPS}
    one = card_compare.with_accepted(made(*(case(name) for name in said), said=said), known, TODAY)
    assert (one.outcome, one.status) == ("1 fault (1 accepted)", 1)
    assert one.notes[-1] == "It is accepted, and was not found: no such thing"


def test_nobody_accepts_that_nothing_is_known() -> None:
    """A host without disk space says nothing of the module."""
    unknown = made(case("a::test_it"), said={"a::test_it": "host fault: QEMU was killed"})
    known = [card_compare.Accepted("QEMU", "it is always killed", TODAY)]
    one = card_compare.with_accepted(unknown, known, TODAY)
    assert (one.outcome, one.status, one.accepted) == ("not known", 1, ())


def test_what_is_new_comes_first() -> None:
    """Before what is worse and was there already, in whichever line; what is gone is named."""
    then = {"a::test_oops": OOPS, "a::test_mode": "E   AssertionError: its mode is x"}
    before = made(*(case(name) for name in then), said=then)
    moved = OOPS.replace("wee.c:31", "wee.c:40")
    now = made(case("a::test_oops"), case("a::test_left"), said={"a::test_oops": moved} | LEFT)
    one = card_compare.compared(now, before)
    assert [(each.kind, each.new) for each in one.findings] == [("left", True), ("memory", False)]
    assert "### 1. New: something is left behind" in card_formats.markdown(one)
    assert one.notes[-1] == "No longer found: its mode is x"


def test_a_card_can_be_read_again() -> None:
    """With all that it holds."""
    known = [card_compare.Accepted("still holds wee", "for now", TODAY)]
    said = LEFT | {"a::test_oops": OOPS}
    one = card_compare.with_accepted(made(*(case(name) for name in said), said=said), known, TODAY)
    assert card_formats.from_json(card_formats.as_json([one])) == [one]


def test_an_error_pointer_that_is_used_is_one_fault() -> None:
    """The one suite sees that nobody has looked at it, and the other one what comes of that."""
    unchecked = "insmod succeeds all the same: nobody has looked at it with IS_ERR()"
    oops = "splat: BUG: unable to handle kernel NULL pointer dereference in kthread_stop"
    name = "test_init::test_without_a_thread"
    said = {("contract", name): (f"E   AssertionError: {unchecked}",),
            ("any", name): (f"{oops}\n\nAssertionError: rmmod was ended by signal 9",)}  # fmt: skip
    cases = [case(name, suite=suite) for suite, _ in said]
    one = card.card("alice", "/class/alice", result(*cases), said)
    (finding,) = one.findings
    assert (finding.kind, finding.seen, finding.says) == ("memory", oops, unchecked)


def test_a_thread_that_was_never_started_is_one_fault() -> None:
    """The contract sees it wait, and after two minutes the kernel takes it for hung."""
    waits = "the thread wee was created and never started (state D): kthread_create() needs more"
    hung = "splat: INFO: task hung in ret_from_fork, in kthread"
    said = {"a::test_waits": f"E   AssertionError: {waits}", "a::test_quiet": hung,
            "a::test_loads": f"{hung} (2 times)"}  # fmt: skip
    one = made(*(case(name) for name in said), said=said)
    (finding,) = one.findings
    assert (finding.kind, finding.seen, finding.says) == ("hang", hung, waits)
    assert "wake_up_process()" in finding.means
    assert len(finding.tests) == 3
    hung = "splat: INFO: task hung in kthread_stop, in wee_exit at wee.c:3"
    (finding,) = made(case("a::test_it"), said={"a::test_it": hung}).findings
    assert "wake_up_process()" not in finding.means


def test_a_thread_that_is_left_behind_is_one_fault() -> None:
    """That it is there, and that its stack leads to the module; the latter says where."""
    there = f"{GONE_BUT}left behind: thread wee: kthread_stop() was not called"
    holds = f"{GONE_BUT}the stack of wee still holds init: kthread_stop() was not called at wee.c:7"
    said = {"a::test_it": f"{there}\n{holds}\n\nAssertionError: its name is taken"}
    (finding,) = made(case("a::test_it"), said=said).findings
    assert (finding.where, finding.says) == ("wee.c:7", "its name is taken")
    other = f"{GONE_BUT}left behind: dev wee: misc_deregister() was not called"
    said = {"a::test_it": f"{there}\n{other}\n{holds}"}
    assert len(made(case("a::test_it"), said=said).findings) == 2


LEAK = "leak: 8 bytes that kmalloc() allocated were never freed, in wee_open at wee.c:9"
ASSERTS = "E   AssertionError: `open /dev/wee`: read 1 returns 13, which is no answer"


@pytest.mark.parametrize("first", [ASSERTS, f"{LEAK}".replace("wee.c:9", "wee.c:5")])
def test_what_is_seen_after_a_test_has_failed_is_told_as_well(first: str) -> None:
    """Its teardown has found something that what the test says does not explain."""
    findings = made(case("a::test_it"), said={"a::test_it": (first, LEAK)}).findings
    assert len(findings) == 2
    assert LEAK in [each.seen for each in findings]
    (alone,) = made(case("a::test_it"), said={"a::test_it": (LEAK, LEAK)}).findings
    assert alone.tests == ("a::test_it",)


GONE = (
    "panic: BUG: unable to handle paging in dm_get: wee_target is not there any more after rmmod; "
    "wee_target is defined at wee.c:9"
)


@pytest.mark.parametrize("then", [GONE, LEAK])
@pytest.mark.parametrize("life", [
    "life 2 of 50: insmod /root/wee.ko answers -EBUSY",
    "after that no thread could be made, insmod answers -EEXIST",
])  # fmt: skip
def test_that_it_cannot_be_loaded_again_is_explained_by_what_is_left(life: str, then: str) -> None:
    """It is seen only at the test's end, where the kernel follows what points to the module."""
    said = {"a::test_it": (f"E   AssertionError: {life}", then), "a::test_other": (then,)}
    (finding,) = made(case("a::test_it"), case("a::test_other"), said=said).findings
    assert (finding.seen, finding.says) == (then, life)
    report = "splat: WARNING in other at other.c:7"
    said = {"a::test_it": (f"E   AssertionError: {life}", report)}
    assert len(made(case("a::test_it"), said=said).findings) == 2


@pytest.mark.parametrize("first", [OOPS, "E   Failed: `open` does not come back from `read`"])
@pytest.mark.parametrize("then", [LEAK, "E   CommandTimeout: in the guest, `x` did not end"])
def test_what_a_report_has_led_to_is_not_told_again_at_the_teardown(first: str, then: str) -> None:
    """A task that dies, or that never ends, gives nothing back."""
    assert len(made(case("a::test_it"), said={"a::test_it": (first, then)}).findings) == 1
    assert len(made(case("a::test_it"), said={"a::test_it": (ASSERTS, then)}).findings) == (
        2 if then == LEAK else 1
    )


def test_what_is_left_in_a_list_is_one_fault_with_the_report_of_the_next_life() -> None:
    """It is seen by who holds it, by its entry, and by the list into which it is put again."""
    entry = (
        "residue: /sys/class/leds/wee is still there: what undoes led_classdev_register_ext() was "
        "not called, in wee_probe at wee.c:11"
    )
    holds = (
        f"{GONE_BUT}leds_list still holds wee_led: led_classdev_unregister() was not called; "
        "wee_led is defined at wee.c:7"
    )
    again = (
        "splat: BUG: corrupted list in led_classdev_register_ext: wee_led was still in it when the "
        "module was loaded once more; wee_led is defined at wee.c:7"
    )
    said = {"a::test_fifty": f"{again}\n\nAssertionError: it was ended by signal 11",
            "a::test_loads": f"{entry}\n{holds}"}  # fmt: skip
    (finding,) = made(*(case(name) for name in said), said=said).findings
    assert (finding.kind, finding.where, finding.seen) == ("left", "wee.c:11", entry)
    assert len(finding.tests) == 2


def test_what_each_life_leaves_under_another_number_is_one_fault() -> None:
    """However often: a test that loads the module once leaves one, and another one many."""
    left = f"{GONE_BUT}left behind: major {{}}: unregister_chrdev_region() was not called"
    said = {"a::test_once": left.format("239 wee"), "a::test_again": left.format("238 wee"),
            "a::test_fifty": left.format("234 wee (51 times, with other numbers)")}  # fmt: skip
    (finding,) = made(*(case(name) for name in said), said=said).findings
    assert len(finding.tests) == 3
    entry = ENTRY.format("/sys/class/wee/wee3", "device_destroy()")
    listed = f"{GONE_BUT}left behind: device wee/wee1 (3 times, with other numbers)"
    (finding,) = made(case("a::test_it"), said={"a::test_it": f"{entry}\n{listed}"}).findings
    assert finding.where == "wee.c:31"


def test_an_answer_that_is_none_is_one_fault_whoever_asks() -> None:
    """Which calls were made before it says nothing of the fault."""
    said = {
        "a::test_root": f"E   AssertionError: `open /dev/wee r ; read 1`: read 1 returns 13, "
        f"{NEITHER} 1 bytes",
        "a::test_nobody": f"E   AssertionError: `nobody ; open /dev/wee r ; read 10`: read 10 "
        f"returns 13, {NEITHER} 10 bytes",
    }
    one = made(*(case(name) for name in said), said=said)
    assert [finding.tests for finding in one.findings] == [("a::test_root", "a::test_nobody")]


def test_the_worst_comes_first() -> None:
    """However the tests are ordered."""
    said = {"a::test_mode": "E   AssertionError: its mode is 0666", "a::test_oops": OOPS,
            "a::test_panic": "panic: kernel panic: Fatal"}  # fmt: skip
    one = made(*(case(name) for name in said), said=said)
    assert [finding.kind for finding in one.findings] == ["panic", "memory", "rule"]
    assert one.outcome == "3 faults"


def test_what_was_not_tried_is_a_note() -> None:
    """A skipped test is no fault, and not hidden either."""
    one = made(case("a::test_it", "skipped", why="Skipped: it brings no device node"),
               case("a::test_other", "passed"), status=0)  # fmt: skip
    assert one.outcome == "green"
    assert one.notes == ("It was built by Kbuild.", "Not tried: it brings no device node")
    assert (one.passed, one.skipped) == (1, 1)


@pytest.mark.parametrize(
    ("why", "outcome"),
    [
        ("wee loads only with its hardware: No such device", "loads only with its hardware"),
        ("wee loads only with parameters, of which it has id", "loads only with parameters"),
        ("wee loads only with other modules: it asks", "loads only with other modules"),
    ],
)
def test_what_cannot_work_here_is_not_green(why: str, outcome: str) -> None:
    """It builds, and nothing that needs it loaded was tried. A fault is one all the same."""
    skipped = case("a::test_loads", "skipped", why=f"Skipped: {why}")
    assert made(case("a::test_it", "passed"), skipped, status=0).outcome == outcome
    red = case("a::test_oops")
    assert made(red, skipped, said={"a::test_oops": OOPS}).outcome == "1 fault"


def test_a_reason_that_many_tests_have_is_one_note() -> None:
    """With how many they are, such as those that were not run since something hangs."""
    why = "Skipped: something hangs, as test_life.py::test_it has shown"
    one = made(case("a::test_one", "skipped", why=why), case("a::test_two", "skipped", why=why),
               case("a::test_it"))  # fmt: skip
    assert one.notes[-1] == (
        "Not tried: 2 tests: something hangs, as test_life.py::test_it has shown"
    )


def test_what_does_not_build_says_why() -> None:
    """The compiler's first words, where, and its last ones below."""
    why = "alice/ does not build: wee.c:3:1: error: expected ';'"
    found = card.card("alice", "/class/alice", result(cells={"build": Cell(True, "red", why)}), {},
                      error="wee.c:3:1: error: expected ';'\nmake: *** [Makefile:1] Error 2",
                      options=["--module=/class/alice"])  # fmt: skip
    (finding,) = found.findings
    assert (finding.kind, finding.where, found.outcome) == ("build", "wee.c:3", "does not build")
    assert finding.again == "invoke build --module=/class/alice --kernel trixie"
    assert "    make: *** [Makefile:1] Error 2" in card_formats.markdown(found)


def test_an_error_is_where_the_module_has_it() -> None:
    """Not in the header that the compiler names first, nor in what includes it."""
    header = "/usr/src/linux-headers-6.12.118+deb13-common/include/linux"
    said = (
        f"In file included from {header}/device.h:15,\n                 from wee.c:1:\n"
        f"{header}/init.h:180:22: error: passing argument 1 of 'class_create'\n"
        "src/wee.c:9:18: error: too many arguments to function 'class_create'\n"
    )
    cells = {"build": Cell(True, "red", f"{header}/init.h:180:22: error: passing")}
    for error, where in ((said, "src/wee.c:9"), (said.replace("src/wee.c:9:18: error", "x"),
                         "wee.c:1")):  # fmt: skip
        found = card.card("alice", "/class/alice", result(cells=cells), {}, error=error)
        assert found.findings[0].where == where


def test_what_is_warned_of_with_w1_is_a_note() -> None:
    """The first ten; a driver may have hundreds."""
    lines = [f"wee.c:{number}:1: warning: unused \x1b" for number in range(12)]
    notes = card.hints(lines)
    assert notes[0] == "With W=1: wee.c:0:1: warning: unused \\x1b"
    assert notes[-1] == "With W=1: 2 more warnings"
    assert len(notes) == 11
    assert card.hints(lines[:10]) == notes[:10]
    assert card.hints([]) == ()


def on(kernel: str, release: str, *, builds: bool) -> Card:
    """The card of a module on one of several kernels."""
    cells = {} if builds else {"build": Cell(True, "red", "wee.c:3:1: error: too few arguments")}
    tests = (case("a::test_one", "passed"),) if builds else ()
    of = replace(result(*tests, cells=cells, status=0 if builds else 1), kernel=kernel,
                 release=release)  # fmt: skip
    return card.card("alice", "/class/alice", of, {}, error="wee.c:3:1: error: too few arguments")


def test_a_card_names_the_kernel_that_first_refuses_it() -> None:
    """By the kernels' releases, in whichever order they were judged; numbers are no text."""
    cards = [
        on("sid", "7.2.6+deb14-cloud-amd64", builds=False),
        on("bullseye", "5.10.0-40-cloud-amd64", builds=True),
        on("trixie", "6.12.118+deb13-cloud-amd64", builds=False),
        on("bookworm", "6.1.0-53-cloud-amd64", builds=True),
    ]
    sid, bullseye, trixie, bookworm = card_compare.across_kernels(cards)
    assert (bullseye, bookworm) == (cards[1], cards[3])
    for one in (sid, trixie):
        (finding,) = one.findings
        assert finding.means.startswith(
            "Kernel trixie (6.12.118+deb13-cloud-amd64) is the first that refuses it; bookworm "
            "(6.1.0-53-cloud-amd64) still builds it."
        )
        assert "    wee.c:3:1: error" in card_formats.markdown(one)


def test_a_card_names_the_kernel_that_first_builds_it() -> None:
    """Where it is the older ones that have no such interface yet."""
    old, new = card_compare.across_kernels(
        [on("bullseye", "5.10.0-40", builds=False), on("sid", "7.2.6", builds=True)]
    )
    assert old.findings[0].means.startswith("Kernel sid (7.2.6) is the first that builds it; ")
    assert not new.findings


def test_kernels_of_one_age_are_named_and_no_more_is_said() -> None:
    """What two flavours of a release differ in is no interface that has changed."""
    _, other = card_compare.across_kernels(
        [on("trixie", "6.12.118-cloud-amd64", builds=True), on("trixie-rt", "6.12.118-rt-amd64",
         builds=False)]
    )  # fmt: skip
    assert other.findings[0].means.startswith("It builds on trixie (6.12.118-cloud-amd64). ")


@pytest.mark.parametrize("builds", [True, False])
def test_kernels_that_agree_are_not_compared(*, builds: bool) -> None:
    """Nothing has changed between them, as far as the module is concerned."""
    cards = [on("bullseye", "5.10.0", builds=builds), on("sid", "7.2.6", builds=builds)]
    assert card_compare.across_kernels(cards) == cards


def test_red_without_a_finding_is_never_green() -> None:
    """A pytest that ended without a word."""
    assert made(status=70).outcome == "not known"


def test_what_is_foreign_does_no_harm() -> None:
    """Neither in Markdown, nor in a spreadsheet."""
    hostile = card.unfit("=HYPERLINK(1)", "/x", "trixie", "<img src=x> | \x1b[2J", "give `another`")
    text = card_formats.all_as_markdown([hostile])
    assert "<img" not in text.replace("`<img src=x> |", "")
    assert "\x1b" not in text
    (row,) = list(csv.DictReader(card_formats.as_csv([hostile]).splitlines()))
    assert row["module"] == "'=HYPERLINK(1)"


def test_a_terminal_needs_no_escapes() -> None:
    """What is printed is what is meant; Markdown would show it so as well."""
    one = made(case("a::test_one"), said={"a::test_one": OOPS})
    assert "a::test_one" in card_formats.markdown(one, escaped=str)
    assert "a::test\\_one" in card_formats.markdown(one)


@pytest.mark.parametrize(
    ("seen", "shown"),
    [("in wee_write()", "`in wee_write()`"), ("the word `no`", "`` the word `no` ``")],
)
def test_what_was_seen_can_be_copied(seen: str, shown: str) -> None:
    """Into the file of what is accepted: it stands there as it is."""
    one = Card("a", "/a", "k", "", 1, (Finding("rule", seen, ""),))
    assert f"- seen: {shown}" in card_formats.markdown(one)


def test_a_green_card_has_no_failed_test() -> None:
    """What is accepted, or style alone, is not counted. Nor has it a release if none is known."""
    one = Card("a", "/a", "k", "", 0, passed=9, failed=1, skipped=7)
    assert (
        "kernel k: 9 passed, 1 not counted (accepted, or style alone), 7 skipped"
        in card_formats.markdown(one)
    )


def test_cards_survive_their_json() -> None:
    """So that an interrupted run goes on with them."""
    cards = [
        made(case("a::test_one"), said={"a::test_one": OOPS}),
        card.unfit("b", "/b", "k", "no"),
    ]
    assert card_formats.from_json(card_formats.as_json(cards)) == cards
    with pytest.raises(ValueError, match="no cards"):
        card_formats.from_json('[{"name": 1}]')


def test_the_overview_has_the_kinds_that_there_are() -> None:
    """Who, and how many faults of which kind."""
    one = made(case("a::test_one"), case("a::test_two"),
               said={"a::test_one": OOPS, "a::test_two": "E   its mode is 0666"})  # fmt: skip
    assert card_formats.overview([one, card.unfit("bob", "/class/bob", "trixie", "no source")]) == [
        ["module", "kernel", "outcome", "input", "memory", "rule"],
        ["alice", "trixie", "2 faults", "-", "1", "1"],
        ["bob", "trixie", "no module", "1", "-", "-"],
    ]


def test_a_finding_without_a_place_or_tests_is_written_all_the_same() -> None:
    """Lines for what is not known are left out."""
    text = card_formats.markdown(Card("a", "/a", "k", "", 3, (Finding("unknown", "no disk", ""),)))
    assert "- seen: `no disk`" in text
    assert "where" not in text
