# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/explain.py: names and places of what a module that is gone has left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.examine import explain, symbols
from harness.examine.symbols import Definition, Symbol
from harness.judge.verdict import Evidence, LostMemory, Problem, Verdict


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
    assert explain.with_names(seen, {}, module, audit).probes == (f"ended:{told}",)


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
    (found,) = explain.with_names(seen, {}, cast(Any, module), cast(Any, audit)).lost
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
    (found,) = explain.with_names(seen, {}, module, cast(Any, SimpleNamespace(sections=lives))).lost
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
    (found,) = explain.with_names(seen, {}, module, audit).lost
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
    return explain.explain([problem], module, {}, audit)[0]


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
    # In code that is gone the kernel only guesses.
    unsure = re.sub(r"(?s)__run_timers.*", "0xffffffffc0201008\nCall Trace:\n <TASK>\n", NO_PAGE)
    found = explained(monkeypatch, unsure, function="call_timer_fn")
    assert found.title.endswith("after rmmod, and timer_delete_sync() was not called")
    assert explained(monkeypatch, unsure, function="f").title.endswith("after rmmod")
    guessed = (
        f"{unsure} ? __pfx_kthread+0x10/0x10\n ? kthread+0xcf/0x100\n ? ret_from_fork+0x31/0x50\n"
    )
    found = explained(monkeypatch, guessed, function="")
    assert found.title.endswith("after rmmod, and kthread_stop() was not called")
    # The kernel's own thread runs work items, and a process is none.
    of_work = guessed.replace(" ? kthread", " ? process_one_work+0x174/0x330\n ? kthread")
    assert explained(monkeypatch, of_work, function="").title.endswith("after rmmod")
    of_a_process = guessed.replace("kthread", "do_syscall_64")
    assert explained(monkeypatch, of_a_process, function="").title.endswith("after rmmod")
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


LEFT = "the module is unloaded, but left behind: {}: {} was not called"
OF_NUMBERS = LEFT.format("major 244_wee", "unregister_chrdev_region() or unregister_chrdev()")


@pytest.mark.parametrize(
    ("problem", "lines", "said"),
    [
        (Problem(Verdict.RESIDUE, OF_NUMBERS), ["wee.c:40"], ", in wee_init at wee.c:40"),
        # A function that is inlined twice has the same line.
        (Problem(Verdict.RESIDUE, OF_NUMBERS), ["wee.c:40"] * 2, ", in wee_init at wee.c:40"),
        # One of the two is given back, and nobody knows which.
        (Problem(Verdict.RESIDUE, OF_NUMBERS), ["wee.c:40", "wee.c:50"], ""),
        (Problem(Verdict.RESIDUE, OF_NUMBERS), [], ""),
        (Problem(Verdict.RESIDUE, OF_NUMBERS.replace("_wee", "_wee, major 4_t")), ["wee.c:40"], ""),
        (
            Problem(
                Verdict.RESIDUE,
                OF_NUMBERS.replace("_wee", "_wee (52 times, with other numbers)"),
            ),
            ["wee.c:40"],
            ", in wee_init at wee.c:40",
        ),
        (Problem(Verdict.RESIDUE, LEFT.format("a thing", "undo_it()")), ["wee.c:40"], ""),
        (
            Problem(Verdict.RESIDUE, OF_NUMBERS, function="numbers", location="wee.c:7"),
            ["wee.c:40"],
            ", in numbers at wee.c:7",
        ),
        (Problem(Verdict.LEAK, OF_NUMBERS), ["wee.c:40"], ""),
    ],
    ids=["one", "inlined", "two", "none", "things", "lives", "unknown", "has a place", "memory"],
)
def test_what_is_left_has_the_line_that_made_it(
    monkeypatch: pytest.MonkeyPatch, problem: Problem, lines: Sequence[str], said: str
) -> None:
    """Where the module has just one such line; the kernel's lists have only names."""
    made = [symbols.Call("wee_init", line) for line in lines]
    asked: list[re.Pattern[str]] = []

    def calls(_: object, __: object, wanted: re.Pattern[str]) -> list[symbols.Call]:
        asked.append(wanted)
        return made

    monkeypatch.setattr(symbols, "calls", calls)
    monkeypatch.setattr(symbols, "imported", lambda *_: frozenset())
    monkeypatch.setattr(symbols, "explain", lambda problems, _: list(problems))
    ones = [SimpleNamespace(name="wee", ko=Path("wee.ko"))]
    module: Any = SimpleNamespace(objects=ones, kernel=SimpleNamespace(sysroot=None))
    (found,) = explain.explain([problem], module)
    assert str(found) == f"{problem.verdict}: {problem.title}{said}"
    for each in asked:
        assert each.fullmatch("alloc_chrdev_region")
        assert each.fullmatch("uart_register_driver")  # it has a number for its lines, too
        assert not each.fullmatch("unregister_chrdev_region")
