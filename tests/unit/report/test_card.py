# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/card.py: what a person gets to know of a module."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import date

import pytest

from harness.report import card
from harness.report.card import Card, Finding
from harness.report.result import Case, Cell, KernelResult

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


def made(*tests: Case, said: dict[str, str] | None = None, **more: object) -> Card:
    return card.card("alice", "/class/alice", result(*tests, **more), said or {},  # type: ignore[arg-type]
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


def test_all_that_is_left_from_different_places_is_told() -> None:
    """What is left leads to nothing else: who mends one of them still has the others."""
    leak = "leak: {} bytes that memdup_user() allocated were never freed, in wee_write at wee.c:49"
    said = "\n".join([
        "residue: the module is unloaded, but left behind: debugfs wee",
        "residue: the module is unloaded, but inode_cache still holds wee_count at wee.c:20",
        "    an object of the slab cache inode_cache points to wee_count",
        leak.format(2), "     wee_write+0x54/0xed [wee] (wee.c:49)", leak.format(101),
    ])  # fmt: skip
    one = made(case("a::test_one"), case("a::test_two"),
               said={"a::test_one": said, "a::test_two": said})  # fmt: skip
    assert [each.where for each in one.findings] == ["", "wee.c:20", "wee.c:49"]
    assert all(each.kind == "left" for each in one.findings)
    assert all(each.tests == ("a::test_one", "a::test_two") for each in one.findings)
    assert one.findings[2].seen == leak.format(2)


def test_what_a_report_has_led_to_is_told_with_it() -> None:
    """A task that dies in the middle gives nothing back."""
    said = f"{OOPS}\nleak: 8 bytes that kmalloc() allocated were never freed, in f at wee.c:9"
    one = made(case("a::test_one"), said={"a::test_one": said})
    assert [each.where for each in one.findings] == ["wee.c:31"]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("panic: kernel panic: Fatal exception", "panic"),
        ("splat: BUG: scheduling while atomic: perl/123", "locking"),
        ("splat: possible recursive locking detected", "locking"),
        ("splat: usercopy: Kernel memory overwrite attempt detected", "memory"),
        ("splat: BUG kmalloc-64: Right Redzone overwritten", "memory"),
        ("splat: KASAN: slab-use-after-free in wee_write", "memory"),
        ("splat: general protection fault in wee_write", "memory"),
        ("splat: WARNING in wee_init", "report"),
        ("hung: the guest is well, but rmmod does not end", "hang"),
        ("lost: the guest does not answer", "hang"),
        ("residue: the module is unloaded, and a timer of it runs", "left"),
        ("leak: 64 bytes", "left"),
        ("host fault: QEMU was ended by SIGKILL", "unknown"),
        ("E   AssertionError: idle, rmmod does not come back from `rmmod wee`", "hang"),
        ("E   AssertionError: insmod fails with -ENOMEM, and left behind /dev/wee", "left"),
        ("E   Failed: wee does not load: insmod: ERROR", "load"),
        ("the guest does not take the command `true`: SSH session not active", "unknown"),
        ("splat: INFO: task hung in wee_write at wee.c:3", "hang"),
        ("E   AssertionError: its mode is 0666, and should be 0222", "rule"),
    ],
)
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


LEFT = {"a::test_left": "residue: the module is unloaded, but timer_bases still holds wee at a.c:9"}
TODAY = date(2026, 5, 1)


def left_behind() -> Card:
    return made(case("a::test_left"), case("a::test_it", "passed"), said=LEFT)


def test_what_is_accepted_is_shown_apart() -> None:
    """It makes nothing red until its last day is over."""
    known = [card.Accepted("still holds wee", "the board's firmware wants it", TODAY)]
    one = card.with_accepted(left_behind(), known, TODAY)
    assert (one.outcome, one.status, one.findings) == ("green (1 accepted)", 0, ())
    text = card.markdown(one, escaped=str)
    assert "### Accepted\n\n- residue: the module is unloaded" in text
    assert "the board's firmware wants it (until 2026-05-01)" in text


def test_what_is_accepted_no_more_is_a_finding_again() -> None:
    """And the card says that it was accepted."""
    known = [card.Accepted("still holds wee", "for now", date(2026, 4, 30))]
    one = card.with_accepted(left_behind(), known, TODAY)
    assert (one.outcome, one.status) == ("1 fault", 1)
    assert one.notes[-1] == (
        "It was accepted until 2026-04-30, and is not any more: still holds wee"
    )


def test_what_is_accepted_excuses_nothing_else() -> None:
    """The others stay red, and what does not occur is named, so that it is taken out."""
    known = [card.Accepted("still holds wee", "for now", TODAY),
             card.Accepted("no such thing", "for now", TODAY)]  # fmt: skip
    said = LEFT | {"a::test_oops": OOPS}
    one = card.with_accepted(made(*(case(name) for name in said), said=said), known, TODAY)
    assert (one.outcome, one.status) == ("1 fault (1 accepted)", 1)
    assert one.notes[-1] == "It is accepted, and was not found: no such thing"


def test_nobody_accepts_that_nothing_is_known() -> None:
    """A host without disk space says nothing of the module."""
    unknown = made(case("a::test_it"), said={"a::test_it": "host fault: QEMU was killed"})
    known = [card.Accepted("QEMU", "it is always killed", TODAY)]
    one = card.with_accepted(unknown, known, TODAY)
    assert (one.outcome, one.status, one.accepted) == ("not known", 1, ())


def test_what_is_new_comes_first() -> None:
    """Before what is worse and was there already, in whichever line; what is gone is named."""
    then = {"a::test_oops": OOPS, "a::test_mode": "E   AssertionError: its mode is x"}
    before = made(*(case(name) for name in then), said=then)
    moved = OOPS.replace("wee.c:31", "wee.c:40")
    now = made(case("a::test_oops"), case("a::test_left"), said={"a::test_oops": moved} | LEFT)
    one = card.compared(now, before)
    assert [(each.kind, each.new) for each in one.findings] == [("left", True), ("memory", False)]
    assert "### 1. New: something is left behind" in card.markdown(one)
    assert one.notes[-1] == "No longer found: its mode is x"


def test_a_card_can_be_read_again() -> None:
    """With all that it holds."""
    known = [card.Accepted("still holds wee", "for now", TODAY)]
    said = LEFT | {"a::test_oops": OOPS}
    one = card.with_accepted(made(*(case(name) for name in said), said=said), known, TODAY)
    assert card.from_json(card.as_json([one])) == [one]


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
    assert "    make: *** [Makefile:1] Error 2" in card.markdown(found)


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
    sid, bullseye, trixie, bookworm = card.across_kernels(cards)
    assert (bullseye, bookworm) == (cards[1], cards[3])
    for one in (sid, trixie):
        (finding,) = one.findings
        assert finding.means.startswith(
            "Kernel trixie (6.12.118+deb13-cloud-amd64) is the first that refuses it; bookworm "
            "(6.1.0-53-cloud-amd64) still builds it."
        )
        assert "    wee.c:3:1: error" in card.markdown(one)


def test_a_card_names_the_kernel_that_first_builds_it() -> None:
    """Where it is the older ones that have no such interface yet."""
    old, new = card.across_kernels(
        [on("bullseye", "5.10.0-40", builds=False), on("sid", "7.2.6", builds=True)]
    )
    assert old.findings[0].means.startswith("Kernel sid (7.2.6) is the first that builds it; ")
    assert not new.findings


def test_kernels_of_one_age_are_named_and_no_more_is_said() -> None:
    """What two flavours of a release differ in is no interface that has changed."""
    _, other = card.across_kernels(
        [on("trixie", "6.12.118-cloud-amd64", builds=True), on("trixie-rt", "6.12.118-rt-amd64",
         builds=False)]
    )  # fmt: skip
    assert other.findings[0].means.startswith("It builds on trixie (6.12.118-cloud-amd64). ")


@pytest.mark.parametrize("builds", [True, False])
def test_kernels_that_agree_are_not_compared(*, builds: bool) -> None:
    """Nothing has changed between them, as far as the module is concerned."""
    cards = [on("bullseye", "5.10.0", builds=builds), on("sid", "7.2.6", builds=builds)]
    assert card.across_kernels(cards) == cards


def test_red_without_a_finding_is_never_green() -> None:
    """A pytest that ended without a word."""
    assert made(status=70).outcome == "not known"


def test_what_is_foreign_does_no_harm() -> None:
    """Neither in Markdown, nor in a spreadsheet."""
    hostile = card.unfit("=HYPERLINK(1)", "/x", "trixie", "<img src=x> | \x1b[2J", "give `another`")
    text = card.all_as_markdown([hostile])
    assert "<img" not in text.replace("\\<img", "")
    assert "\x1b" not in text
    (row,) = list(csv.DictReader(card.as_csv([hostile]).splitlines()))
    assert row["module"] == "'=HYPERLINK(1)"


def test_a_terminal_needs_no_escapes() -> None:
    """What is printed is what is meant; Markdown would show it so as well."""
    one = made(case("a::test_one"), said={"a::test_one": OOPS})
    assert "in wee_write at wee.c:31" in card.markdown(one, escaped=str)
    assert "in wee\\_write at wee.c:31" in card.markdown(one)


def test_cards_survive_their_json() -> None:
    """So that an interrupted run goes on with them."""
    cards = [
        made(case("a::test_one"), said={"a::test_one": OOPS}),
        card.unfit("b", "/b", "k", "no"),
    ]
    assert card.from_json(card.as_json(cards)) == cards
    with pytest.raises(ValueError, match="no cards"):
        card.from_json('[{"name": 1}]')


def test_the_overview_has_the_kinds_that_there_are() -> None:
    """Who, and how many faults of which kind."""
    one = made(case("a::test_one"), case("a::test_two"),
               said={"a::test_one": OOPS, "a::test_two": "E   its mode is 0666"})  # fmt: skip
    assert card.overview([one, card.unfit("bob", "/class/bob", "trixie", "no source")]) == [
        ["module", "kernel", "outcome", "input", "memory", "rule"],
        ["alice", "trixie", "2 faults", "-", "1", "1"],
        ["bob", "trixie", "no module", "1", "-", "-"],
    ]


def test_a_finding_without_a_place_or_tests_is_written_all_the_same() -> None:
    """Lines for what is not known are left out."""
    text = card.markdown(Card("a", "/a", "k", "", 3, (Finding("unknown", "no disk", ""),)))
    assert "- seen: no disk" in text
    assert "where" not in text
