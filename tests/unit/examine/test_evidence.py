# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/evidence.py: in which order a machine is asked, and what is not asked for."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import HostError
from harness.examine import evidence, symbols
from harness.examine.lost import Lost
from harness.examine.registries import Finding
from harness.examine.symbols import Definition, Symbol
from harness.host.proc import Deadline
from harness.judge.verdict import Evidence, LostMemory, Problem, Verdict
from harness.machines.clone import Baseline
from harness.qemu.agent import Leftovers
from harness.qemu.memory import Pointer

HELD = Finding(Pointer(0x1000, 0x2000), "misc_list")


class Guest:
    """A machine, its agent and its audit at once, which writes down what it is asked for.

    ``remains`` are what still points into a module that is gone, one tuple for each time that is
    looked for; ``mixed``: another module is loaded. ``stuck`` is what does not go on, unless it is
    given more time, and ``waited`` for how long the host kept it from running, in seconds.
    """

    def __init__(
        self, *remains: tuple[Finding, ...], mixed: bool = False, stuck: str = "",
        waited: float = 0.0,
    ) -> None:  # fmt: skip
        self.asked: list[str] = []
        self.held = False  # at an earlier judgement
        self._stuck, self._waited = stuck, waited
        self._remains = list(remains)
        self._mixed = mixed
        self.incomplete = self.stopped = False
        self.kept: tuple[str, ...] = ()  # locks that a reader has
        self.ended: tuple[str, ...] = ()  # and such that one has who has ended
        self.reports = 0  # that the kernel has counted since it was last asked
        self.reports_while_read = 0  # and those that come while its log is read

    def mark(self, _: Deadline) -> int:
        self.reports += self.reports_while_read
        return 0

    def untouched(self) -> bool:
        return False

    def remains(self, _: Deadline) -> tuple[Finding, ...]:
        self.asked.append("remains")
        return self._remains.pop(0)

    def probes(self, _: Deadline, *, limit: float = 0.0) -> tuple[str, ...]:
        self.asked.append("probes")
        return (self._stuck,) if self._stuck and not limit else ()

    def kept_waiting(self) -> float:
        return self._waited

    def kept_by_readers(self, _: Deadline) -> tuple[str, ...]:
        return self.kept

    def kept_by_ended(self, _: Deadline) -> tuple[str, ...]:
        return self.ended

    def stacks(self, _: Deadline) -> str:
        return ""

    def seen(self) -> int | None:
        return None

    def leftovers(
        self, _: Deadline, *, end: bool = False, careful: bool = False, seen: int | None = None
    ) -> Leftovers:
        assert seen is None
        self.asked.append("leftovers" + " end" * end + " careful" * careful)
        return Leftovers(loaded=self._mixed and not end, mixed=self._mixed and not end)

    def leaks(self, _: Deadline) -> str:
        return ""

    def take_unasked(self) -> tuple[str, ...]:
        return ()

    def take_lost(self) -> tuple[Lost, ...]:
        return ()

    def counted(self) -> int:
        counted, self.reports = self.reports, 0
        return counted

    def take_incomplete(self) -> bool:
        return self.incomplete

    def record_has_stopped(self) -> bool:
        self.asked.append("record")
        return self.stopped

    def unprinted(self, *, marked: bool) -> tuple[str, ...]:
        assert marked
        return ()

    def gather(self, *, last: bool = False, unrecorded: bool = False) -> Evidence:
        machine: Any = SimpleNamespace(
            patience=Deadline, running=True, panicked=False, console_text=str, fault="", stalls=(),
            log=SimpleNamespace(unread=0, full=False), agent=self, cpus=self,
        )  # fmt: skip
        audit: Any = self
        return evidence.gather(machine, Baseline(), audit=audit, last=last, unrecorded=unrecorded)


def test_a_guest_is_asked_in_full_where_nothing_points_into_a_module_that_is_gone() -> None:
    """Its memory comes first."""
    guest = Guest(())
    assert guest.gather().remains == ()
    assert guest.asked == ["remains", "probes", "leftovers", "record"]


def test_nothing_follows_a_pointer_that_is_known_to_be_bad() -> None:
    """A guest that crashes by being asked explains nothing."""
    guest = Guest((HELD,))
    assert [one.holder for one in guest.gather().remains] == ["misc_list"]
    assert guest.asked == ["remains", "leftovers careful", "record"]


def test_what_the_kernel_counts_while_its_log_is_read_is_no_news() -> None:
    """It may be in the log that is read, and be counted after that, or the other way round."""
    guest = Guest((), ())
    guest.reports, guest.reports_while_read = 2, 1
    assert guest.gather().counted == 2
    guest.reports_while_read = 0
    assert guest.gather().counted == 0


@pytest.mark.parametrize("error", [HostError("QEMU has no memory"), FileNotFoundError("maps")])
def test_a_qemu_that_has_ended_has_counted_nothing(error: Exception) -> None:
    """Why it has ended is told by who asks it next."""

    class Ended(Guest):
        def counted(self) -> int:
            raise error

    assert Ended((), ()).gather().counted == 0


@pytest.mark.parametrize("first", [(), (HELD,)])
def test_what_is_unloaded_at_the_end_is_looked_at_too(first: tuple[Finding, ...]) -> None:
    """Its memory, once more."""
    guest = Guest(first, (HELD,), mixed=True)
    assert len(guest.gather(last=True).remains) == 1 + len(first)
    assert guest.asked[-2:] == ["leftovers end", "remains"]


def test_a_record_that_ran_over_is_told_unless_that_is_allowed() -> None:
    """As a mark of the test does."""
    guest = Guest((), ())
    guest.incomplete = True
    assert guest.gather().unrecorded
    assert not guest.gather(unrecorded=True).unrecorded


def test_a_record_that_somebody_has_stopped_is_told_unless_that_is_allowed() -> None:
    """It says nothing of what came after, and looks as if nothing had."""
    guest = Guest((), ())
    guest.stopped = True
    assert guest.gather().stopped
    assert not guest.gather(unrecorded=True).stopped


def test_what_does_not_go_on_is_asked_again_where_the_host_let_nothing_go_on() -> None:
    """A guest whose CPU gets no processor is no guest whose CPU is stuck."""
    guest = Guest((), stuck="cpu:0", waited=60.0)
    assert guest.gather().probes == ()
    assert guest.asked == ["remains", "probes", "probes", "leftovers", "record"]


def test_what_does_not_go_on_is_not_asked_again_on_a_quiet_host() -> None:
    """It takes long enough as it is."""
    guest = Guest((), stuck="cpu:0", waited=0.1)
    assert guest.gather().probes == ("cpu:0",)
    assert guest.asked == ["remains", "probes"]


def test_a_pointer_that_was_told_of_is_not_followed_at_the_next_judgement() -> None:
    """It is still there."""
    guest = Guest(())
    guest.held = True
    assert guest.gather().remains == ()
    assert "leftovers careful" in guest.asked


def test_a_lock_that_a_reader_keeps_is_told_of_with_what_does_not_go_on() -> None:
    """The guest itself cannot find out: nothing waits for it there."""
    guest = Guest((), stuck="rcu:grace_period")
    guest.kept = ("cpu_hotplug_lock",)
    assert guest.gather().probes == ("rcu:grace_period", "lock:cpu_hotplug_lock")
    assert guest.asked == ["remains", "probes"]


def test_a_lock_whose_owner_has_ended_is_told_of_once() -> None:
    """Not again where the guest has tried that lock itself."""
    guest = Guest((), (), stuck="lock:rtnl_mutex")
    guest.ended = ("rtnl_mutex", "genl_mutex")
    assert guest.gather().probes == ("lock:rtnl_mutex", "ended:genl_mutex")


@pytest.mark.parametrize(
    ("inside", "size", "told"),
    [
        pytest.param(0, 32, "wee_lock", id="mutex"),
        pytest.param(8, 40, "wee_lock", id="semaphore"),
        pytest.param(0, 8, "0xffffffffc0300040", id="a thread's address"),
        pytest.param(8, 64, "0xffffffffc0300048", id="such an address in a structure"),
    ],
)
def test_a_modules_variable_that_is_a_lock_is_named(
    monkeypatch: pytest.MonkeyPatch, inside: int, size: int, told: str
) -> None:
    """Another one may look like a lock where the task has ended that it leads to."""
    known = [Definition(Symbol("wee_lock", ".bss", 0x40, size), None, is_function=False)]
    monkeypatch.setattr(symbols, "definitions", lambda *_: known)
    one = SimpleNamespace(name="wee", ko=Path("wee.ko"))
    module: Any = SimpleNamespace(objects=[one], kernel=SimpleNamespace(sysroot=None))
    audit: Any = SimpleNamespace(sections={"wee": {".bss": "0xffffffffc0300000"}})
    seen = Evidence("", 0, 0, probes=(f"ended:{0xFFFFFFFFC0300040 + inside:#x}",))
    assert evidence.with_names(seen, {}, module, audit).probes == (f"ended:{told}",)


@pytest.mark.parametrize("objects", [1, 2])
def test_memory_that_a_later_init_lost_is_named_where_that_was(
    monkeypatch: pytest.MonkeyPatch, objects: int
) -> None:
    """Its first life was elsewhere. Of several modules nobody knows whose the address is."""
    init = Symbol("init_module", ".init.text", 0, 0x40)
    known = [Definition(init, None, is_function=True)]
    monkeypatch.setattr(symbols, "definitions", lambda *_: known)
    monkeypatch.setattr(symbols, "find_sections", lambda *_: {".init.text": "0xffffffffc0200000"})
    ones = [SimpleNamespace(name=f"wee{number}", ko=Path("wee.ko")) for number in range(objects)]
    module = SimpleNamespace(objects=ones, kernel=SimpleNamespace(sysroot=None))
    lives = {one.name: {".init.text": "0xffffffffc0100000"} for one in ones}
    seen = Evidence("", 0, 0, lost=(LostMemory(8, "kmalloc", " 0xffffffffc0200010"),))
    audit = SimpleNamespace(sections=lives)
    (found,) = evidence.with_names(seen, {}, cast(Any, module), cast(Any, audit)).lost
    assert found.stack == (
        " init_module+0x10/0x40 [wee0]" if objects == 1 else " 0xffffffffc0200010"
    )


def test_of_several_modules_it_is_the_one_whose_code_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its init has failed after an earlier life, so that nobody has seen where it was."""
    init = Symbol("wee_init", ".init.text", 0, 0x40)
    monkeypatch.setattr(symbols, "definitions", lambda *_: [Definition(init, None)])
    there = {"b.ko": {".init.text": "0xffffffffc0200000"}}
    monkeypatch.setattr(symbols, "find_sections", lambda _, ko, *__: there.get(ko.name, {}))
    ones = [SimpleNamespace(name=name, ko=Path(f"{name}.ko")) for name in ("a", "b")]
    module: Any = SimpleNamespace(objects=ones, kernel=SimpleNamespace(sysroot=None))
    lives = {one.name: {".init.text": "0xffffffffc0100000"} for one in ones}
    seen = Evidence("", 0, 0, lost=(LostMemory(8, "kmalloc", " 0xffffffffc0200010"),))
    (found,) = evidence.with_names(
        seen, {}, module, cast(Any, SimpleNamespace(sections=lives))
    ).lost
    assert found.stack == " wee_init+0x10/0x40 [b]"


def test_an_init_has_the_name_that_the_source_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """module_init() gives it a second one."""
    names = ("init_module", "wee_init")
    known = [Definition(Symbol(name, ".init.text", 0, 0x40), None) for name in names]
    monkeypatch.setattr(symbols, "definitions", lambda *_: known)
    ones = [SimpleNamespace(name="wee", ko=Path("wee.ko"))]
    module: Any = SimpleNamespace(objects=ones, kernel=SimpleNamespace(sysroot=None))
    audit: Any = SimpleNamespace(sections={"wee": {".init.text": "0xffffffffc0200000"}})
    seen = Evidence("", 0, 0, lost=(LostMemory(8, "kmalloc", " 0xffffffffc0200010"),))
    (found,) = evidence.with_names(seen, {}, module, audit).lost
    assert found.stack == " wee_init+0x10/0x40 [wee]"


NO_PAGE = """\
BUG: unable to handle page fault for address: ffffffffc0201008
#PF: supervisor write access in kernel mode
#PF: error_code(0x0002) - not-present page
RIP: 0010:__run_timers+0xd7/0x280
Call Trace:
 run_timer_softirq+0x8c/0xf0
 ? hrtimer_interrupt+0x1/0x2
"""
FREED_LAST = """\
kernel BUG at mm/slub.c:550!
RIP: 0010:kfree+0x2ef/0x350
Call Trace:
 __do_sys_delete_module+0x1b5/0x330
 do_syscall_64+0x87/0x180
"""
SECTIONS = {"wee": {".data": "0xffffffffc0201000", ".init.data": "0xffffffffc0301000"}}


def explained(
    monkeypatch: pytest.MonkeyPatch, detail: str, title: str = "BUG in f",
    function: str = "__run_timers", verdict: Verdict = Verdict.PANIC,
) -> Problem:  # fmt: skip
    """A report as it is explained where a module has gone of which this is known."""
    known = [
        Definition(Symbol("pulse", ".data", 0, 0x28), "pulse.c:11", is_function=False),
        Definition(Symbol("early", ".init.data", 0, 0x28), "pulse.c:7", is_function=False),
        Definition(Symbol("cleanup_module", ".exit.text", 0x10, 8), "pulse.c:30"),
        Definition(Symbol("pulse_exit", ".exit.text", 0x10, 8), "pulse.c:30"),
        Definition(Symbol("other", ".exit.text", 0, 8), "pulse.c:28"),
    ]
    monkeypatch.setattr(symbols, "definitions", lambda *_: known)
    ones = [SimpleNamespace(name="wee", ko=Path("wee.ko"))]
    module: Any = SimpleNamespace(objects=ones, kernel=SimpleNamespace(sysroot=None))
    audit: Any = SimpleNamespace(sections=SECTIONS)
    monkeypatch.setattr(symbols, "explain", lambda problems, _: list(problems))
    problem = Problem(verdict, title, detail, function=function)
    return evidence.explain([problem], module, {}, audit)[0]


def test_what_the_kernel_does_not_find_any_more_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the module's own, which is gone, and the call that was forgotten is known by who uses
    it; what only lay on the stack says nothing.
    """
    assert str(explained(monkeypatch, NO_PAGE)) == (
        "panic: BUG in f: pulse is not there any more after rmmod, and timer_delete_sync() was not "
        "called; pulse is defined at pulse.c:11"
    )
    in_a_work = NO_PAGE.replace("__run_timers", "blocking_notifier_call_chain").replace(
        " run_timer_softirq", " process_one_work"
    )
    assert "unregister function of its notifier" in explained(monkeypatch, in_a_work).title
    thread = NO_PAGE.replace("__run_timers", "0xffffffffc0201008").replace(
        " run_timer_softirq", " kthread"
    )
    assert "kthread_stop() was not called" in explained(monkeypatch, thread).title
    of_the_kernels = thread.replace(" kthread", " shrink_slab+0x1/0x2\n kthread")
    assert explained(monkeypatch, of_the_kernels).title.endswith("after rmmod")
    # In code that is gone the kernel only guesses, and its guesses are not shown.
    unsure = re.sub(r"(?s)__run_timers.*", "0xffffffffc0201008\nCall Trace:\n <TASK>\n", NO_PAGE)
    for function, undo in (("kthread", "kthread_stop()"), ("call_timer_fn", "timer_delete_sync()")):
        found = explained(monkeypatch, unsure, function=function)
        assert found.title.endswith(f"after rmmod, and {undo} was not called")
    assert explained(monkeypatch, unsure, function="f").title.endswith("after rmmod")
    of_init = NO_PAGE.replace("c0201008", "c0301008")
    assert explained(monkeypatch, of_init).title == (
        "BUG in f: early is not there any more after init has ended"
    )


LISTED = (
    "[   16.594888] list_add corruption. prev->next should be next (ffffffff82dc8980), but was "
    "0000000000000000. (prev=ffffffffc0201008).\nkernel BUG at lib/list_debug.c:32!"
)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", ": pulse was still in it when the module was loaded once more"),
        ("c0201008", "c0201028", ""),  # not the module's
        ("0000000000000000", "ffffffff82dc8990", ""),  # an element that somebody else has moved
    ],
    ids=["its own", "nobody's", "moved"],
)
def test_what_an_earlier_life_has_left_in_a_list_has_a_name(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str
) -> None:
    """The module is at the same place again, and its variable is as new."""
    problem = explained(monkeypatch, LISTED.replace(old, new) if old else LISTED, "corrupted list")
    assert problem.title == f"corrupted list{said}"
    assert problem.location == ("pulse.c:11" if said else None)


LEFT = "the module is unloaded, but left behind: {}: {} was not called"


@pytest.mark.parametrize(
    ("calls", "undo", "made"),
    [
        ({"unregister_chrdev_region"}, "unregister_chrdev_region() or unregister_chrdev()", True),
        ({"__unregister_chrdev"}, "unregister_chrdev_region() or unregister_chrdev()", True),
        ({"__release_region"}, "release_mem_region()", True),
        ({"kfree", "unregister_chrdev_regions"}, "unregister_chrdev_region()", False),
        (set(), "misc_deregister()", False),
        ({"led_classdev_register_ext"}, "what undoes led_classdev_register_ext()", False),
    ],
)
def test_a_call_that_the_module_has_was_perhaps_made_for_less(
    monkeypatch: pytest.MonkeyPatch, calls: set[str], undo: str, made: bool
) -> None:
    """As unregister_chrdev_region() with a smaller count, which gives nothing back."""
    monkeypatch.setattr(symbols, "imported", lambda *_: frozenset(calls))
    title = LEFT.format("major 239 wee", undo)
    found = explained(monkeypatch, "", title, verdict=Verdict.RESIDUE).title
    assert found == title + (", or not with the right arguments" if made else "")


@pytest.mark.parametrize(
    "detail",
    [
        NO_PAGE.replace("c0201008", "c0201028"),
        NO_PAGE.replace("not-present page", "permissions violation"),
        NO_PAGE.replace("ffffffffc0201008", "0000000000000008"),
        FREED_LAST.replace(" __do_sys", " free_module+0x1/0x2\n __do_sys"),
        FREED_LAST.replace(" __do_sys", " other+0x1/0x2 [wee]\n __do_sys"),
        FREED_LAST.replace("delete_module", "init_module"),
    ],
    ids=["nobody's", "is there", "NULL", "the kernel's", "on the stack", "in init"],
)
def test_what_is_not_of_a_module_that_is_gone_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, detail: str
) -> None:
    """The kernel's own report says what there is to say."""
    assert explained(monkeypatch, detail).title == "BUG in f"


def test_what_exit_calls_last_is_in_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler makes a jump of that call, so that nothing of exit is on the stack."""
    problem = explained(monkeypatch, FREED_LAST, "kernel BUG in delete_module")
    assert str(problem) == (
        "panic: kernel BUG in delete_module, called at the end of pulse_exit; pulse_exit is "
        "defined at pulse.c:30"
    )
