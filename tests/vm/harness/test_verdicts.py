# SPDX-License-Identifier: GPL-2.0-only
"""The detectors work: what a module does wrong on purpose gets the right verdict."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.examine import evidence, explain, loading
from harness.judge import verdict
from harness.judge.verdict import Problem, Verdict
from harness.machines import pool
from harness.plugin import expect
from harness.qemu import console
from harness.testing import Clone, CommandTimeout, ExpectSplat, Guest, GuestLost, Lab, Module

CONTROL = "/sys/kernel/debug/planted"


@pytest.fixture(scope="session")
def planted(lab: Lab) -> Module:
    """The module that is broken on purpose."""
    return lab.build(Path(__file__).parent / "planted")


@pytest.fixture
def victim(request: pytest.FixtureRequest, lab: Lab, planted: Module) -> Iterator[Clone]:
    """A machine with that module, which is not this test's own: its verdict is asked for.

    The marker ``machine`` gives its shape.
    """
    marker = request.node.get_closest_marker("machine")
    base = lab.template(**(marker.kwargs if marker else {}))
    template = loading.loaded_template(lab, base, planted)
    clone = pool.open_clone(template, lab.cache)
    try:
        yield clone
    finally:
        clone.close()


def provoke(victim: Clone, words: str, *, timeout: float = 10.0) -> Sequence[Problem]:
    """Have the module do what ``words`` name, one after the other: the machine's verdict."""
    command = " && ".join(f"echo {word} >{CONTROL}" for word in words.split())
    return after(victim, command, timeout=timeout)


def after(
    victim: Clone, command: str, *, timeout: float = 10.0, module: Module | None = None
) -> Sequence[Problem]:
    """The machine's verdict after a command, whatever became of that."""
    timed_out = ""
    try:
        victim.guest.run(command, timeout=timeout)
    except CommandTimeout as error:
        timed_out = error.command[0]
    except GuestLost:
        pass  # as after a panic; the verdict says what it was
    seen = evidence.gather(victim.machine, victim.baseline, timed_out=timed_out)
    return verdict.judge(explain.with_names(seen, victim.facts, module) if module else seen)


def kinds(problems: Sequence[Problem]) -> set[Verdict]:
    return {problem.verdict for problem in problems}


def outcome(problems: Sequence[Problem]) -> list[tuple[Verdict, str]]:
    return [(problem.verdict, problem.title) for problem in problems]


def test_a_module_that_does_nothing_wrong_is_green(victim: Clone) -> None:
    """No false alarm: not while it is loaded, and not when it has been unloaded."""
    assert outcome(after(victim, "true")) == []
    victim.guest.check("rmmod planted && test ! -e /sys/module/planted")
    assert outcome(after(victim, "true")) == []


def test_a_module_without_a_text_section_is_loaded(lab: Lab) -> None:
    """All its functions are __init or __exit: where its code is, nobody can say, and need not."""
    module = lab.build(Path(__file__).parent / "planted_init")
    template = loading.loaded_template(lab, lab.template(), module)
    assert "text" not in template.facts
    clone = pool.open_clone(template, lab.cache)
    try:
        assert outcome(after(clone, "rmmod planted_init", module=module)) == []
    finally:
        clone.close()


def test_a_module_whose_sections_are_hidden_is_loaded(lab: Lab, planted: Module) -> None:
    """As on a kernel without CONFIG_KALLSYMS, which has no such folder."""
    clone = pool.open_clone(lab.template(), lab.cache)
    try:
        loading.load(clone.guest, planted)
        clone.guest.check("mount -t tmpfs none /sys/module/planted/sections")
        assert loading.text_sections(clone.guest, planted) == {}
    finally:
        clone.close()


def test_a_warning_is_a_splat(victim: Clone) -> None:
    """A command that succeeds does not hide what the kernel said."""
    assert outcome(provoke(victim, "warn")) == [(Verdict.SPLAT, "WARNING in planted_warn")]


def test_an_oops_is_a_splat_with_its_function(victim: Clone) -> None:
    """The guilty function is named, and the source's line shown."""
    first, *_ = problems = provoke(victim, "oops")  # KASAN reports it as well, and before
    assert kinds(problems) == {Verdict.SPLAT}
    assert first.title.endswith("in planted_oops")


def test_a_panic_is_a_panic(victim: Clone) -> None:
    """The last words of the kernel count, although nobody can ask it any more."""
    (problem,) = provoke(victim, "panic")
    assert (problem.verdict, problem.title) == (Verdict.PANIC, "kernel panic: planted")
    assert problem.function == "planted_fatal"


def test_a_panic_while_loading_is_a_panic(victim: Clone) -> None:
    """insmod never returns; the stack shows that it was the module's init."""
    (problem,) = after(victim, "rmmod planted && insmod /root/planted.ko at_init=panic")
    assert (problem.verdict, problem.function) == (Verdict.PANIC, "planted_fatal")
    assert "planted_init+" in problem.detail


def test_a_reboot_is_never_green(victim: Clone) -> None:
    """A machine that restarts by itself has nothing more to say, and that is red."""
    assert outcome(provoke(victim, "reboot")) == [
        (Verdict.PANIC, "the machine stopped or restarted by itself")
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "kernel BUG at night is the title of a song",
        "watchdog: BUG: soft lockup detection enabled",
        "planted: Kernel panic - not syncing: avoided",
        "BUG: none was found",
        "WARNING: battery level 2",
        "Oops: said the driver",
    ],
)
def test_a_sentence_that_only_begins_like_a_report_is_green(victim: Clone, sentence: str) -> None:
    """There is nothing below it, and the kernel goes on without a taint."""
    assert outcome(after(victim, f"echo '{sentence}' >/dev/kmsg")) == []


# -- memory ------------------------------------------------------------------------

# What the allocator of any kernel with CONFIG_SLUB_DEBUG (all of Debian's) checks if it is
# asked to: consistency, red zones, poison, who allocated and freed (mm/slub.c).
slub_debug = pytest.mark.machine(append=("slub_debug=FZPU",))
# KASAN is there before the allocator sees anything.
without_kasan = pytest.mark.needs(without="CONFIG_KASAN")
# Lockdep is there before anything hangs.
without_lockdep = pytest.mark.needs(without="CONFIG_PROVE_LOCKING")


def of_the_allocator(problems: Sequence[Problem]) -> Problem:
    """The first that the allocator has reported.

    It prints with a lock of its own held. Lockdep says once that this may be a deadlock with the
    console's, before the allocator's first line.
    """
    return next(each for each in problems if "console_lock" not in each.title)


@slub_debug
@without_kasan
def test_use_after_free_is_a_splat(victim: Clone) -> None:
    """The poison of a freed object was written over, and the report shows who had it."""
    problems = provoke(victim, "use_after_free")
    assert kinds(problems) == {Verdict.SPLAT}
    report = of_the_allocator(problems)
    assert report.title == "BUG: Object corrupt"
    assert "Freed in planted_use_after_free" in report.detail


@slub_debug
@without_kasan
def test_double_free_is_a_splat(victim: Clone) -> None:
    """The allocator says that it has the object already."""
    problems = provoke(victim, "double_free")
    assert kinds(problems) == {Verdict.SPLAT}
    report = of_the_allocator(problems)
    assert report.title == "BUG: Object already free"
    assert report.function == "planted_double_free"


@without_kasan
@pytest.mark.needs(config="CONFIG_SLAB_FREELIST_HARDENED")
def test_double_free_at_once_is_a_splat_without_debugging(victim: Clone) -> None:
    """CONFIG_SLAB_FREELIST_HARDENED sees an object that is freed twice in a row.

    On 7.x it goes to a list that nobody looks through (struct slab_sheaf in mm/slub.c).
    """
    if victim.guest.run("grep -v ^0 /sys/kernel/slab/kmalloc-64/sheaf_capacity").ok:
        pytest.skip("this kernel's allocator does not look for it")
    (problem,) = problems = provoke(victim, "double_free")
    assert outcome(problems) == [(Verdict.SPLAT, "kernel BUG in planted_double_free")]
    assert "it is freed twice" in problem.detail


def test_an_object_left_in_its_cache_is_a_splat(victim: Clone) -> None:
    """A module that destroys its slab cache while an object is in use is told so."""
    first, *_ = problems = after(victim, f"echo leak_cached >{CONTROL} && rmmod planted")
    assert kinds(problems) == {Verdict.SPLAT}
    assert first.title == "BUG: Objects remaining"


def test_list_corruption_is_a_splat(victim: Clone) -> None:
    """The kernel's list functions check the neighbours' pointers (CONFIG_LIST_HARDENED)."""
    (problem,) = provoke(victim, "list")
    assert problem.verdict is Verdict.SPLAT
    # Without CONFIG_BUG_ON_DATA_CORRUPTION, which distributions set, it is only a warning.
    assert problem.title in ("BUG: corrupted list in planted_list", "WARNING in planted_list")


def test_a_guest_that_runs_out_of_memory_says_so(victim: Clone) -> None:
    """A process that the kernel kills to get memory is not simply one that ended badly."""
    always = "echo 1 >/proc/sys/vm/overcommit_memory"  # or the kernel would refuse at once
    assert outcome(after(victim, f"{always}; perl -e '$x = 1 x (1 << 30)'", timeout=60)) == [
        (Verdict.SPLAT, "the guest ran out of memory, the kernel killed perl")
    ]


# -- what does not come to an end --------------------------------------------------


@pytest.mark.parametrize(
    ("command", "function"),
    [
        (f"echo sleep >{CONTROL}", "planted_sleep"),
        pytest.param(f"echo deadlock >{CONTROL}", "planted_deadlock", marks=without_lockdep),
        # What has priority over the new thread has it stopped before it has run at all.
        (f"chrt -f 1 sh -c 'echo endless_thread >{CONTROL} && rmmod planted'", "planted_exit"),
        (f"echo block >{CONTROL} && rmmod planted", "planted_exit"),
    ],
)
def test_a_stuck_command_is_told_from_a_dead_kernel(
    victim: Clone, command: str, function: str
) -> None:
    """The guest answers, the command does not end: hung, and where in the module."""
    (problem,) = after(victim, command, timeout=3)
    assert problem.verdict is Verdict.HUNG
    assert f"{function}+" in problem.detail
    if "endless" not in command:  # where the thread may be found first
        assert problem.function == function


@without_lockdep
def test_a_deadlock_is_a_splat_where_the_kernel_looks_for_hung_tasks(victim: Clone) -> None:
    """The kernel's own watchdog (CONFIG_DETECT_HUNG_TASK) says it with a stack."""
    # Every second it looks for tasks that have not run for a second.
    limit = "echo 1 >/proc/sys/kernel/hung_task_timeout_secs"
    problems = after(victim, f"{limit}; echo deadlock >{CONTROL}", timeout=8)
    assert kinds(problems) == {Verdict.SPLAT}
    # On a busy host others have not run for a second either.
    (problem,) = (each for each in problems if each.function == "planted_deadlock")
    assert problem.title.startswith("INFO: task hung in ")


def test_sleeping_in_atomic_context_is_a_splat(victim: Clone) -> None:
    """Whoever sleeps under a spinlock is found by any kernel that counts preemption."""
    problems = provoke(victim, "sleep_in_atomic")
    assert kinds(problems) == {Verdict.SPLAT}
    assert problems[0].title.startswith("BUG: scheduling while atomic")
    assert problems[0].function == "planted_sleep_in_atomic"


def test_a_thread_that_returns_early_is_a_splat(victim: Clone) -> None:
    """kthread_stop() of a thread that is gone touches what was freed."""
    problems = after(victim, f"echo early_thread >{CONTROL} && rmmod planted")
    assert kinds(problems) == {Verdict.SPLAT}
    assert problems[0].function == "planted_exit"
    assert "kthread_stop+" in problems[0].detail


def test_a_soft_lockup_is_a_splat(victim: Clone) -> None:
    """A CPU that does not schedule is reported after twice the watchdog's threshold."""
    limit = "echo 1 >/proc/sys/kernel/watchdog_thresh"
    problems = after(victim, f"{limit}; echo soft_lockup >{CONTROL}", timeout=60)
    assert kinds(problems) == {Verdict.SPLAT}  # the kernel repeats it while the CPU is kept
    assert problems[0].function == "planted_soft_lockup"
    assert problems[0].title.startswith("BUG: soft lockup in ")


@pytest.mark.machine(cpus=2)  # the other CPU has the thread that asks for a grace period
def test_an_rcu_stall_is_a_splat(victim: Clone) -> None:
    """A reader that does not leave its critical section holds up everybody who frees."""
    # 3 s is the least that the kernel takes (kernel/rcu/tree_stall.h).
    limit = "echo 3 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout"
    problems = after(victim, f"{limit}; echo rcu_stall >{CONTROL}", timeout=60)
    assert kinds(problems) == {Verdict.SPLAT}  # the kernel repeats it
    assert problems[0].function == "planted_rcu_stall"
    assert problems[0].title.startswith("INFO: rcu detected stall in ")


def test_a_kernel_that_spins_is_lost(victim: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """With interrupts off nothing answers; the virtual CPU is seen to run all the time."""
    monkeypatch.setattr(evidence, "MARK_SECONDS", 3.0)
    problems = provoke(victim, "spin", timeout=3)
    assert outcome(problems) == [
        (Verdict.LOST, "the guest does not answer any more; its CPU spins")
    ]


# -- what only a debug kernel shows ------------------------------------------------


@pytest.mark.needs(config="CONFIG_KASAN")
@pytest.mark.parametrize("word", ["use_after_free", "double_free"])
def test_what_is_done_to_freed_memory_is_seen_by_kasan(victim: Clone, word: str) -> None:
    """At the very access, and not only when the allocator looks at the object again."""
    first, *_ = provoke(victim, word)
    assert first.verdict is Verdict.SPLAT
    assert first.title.startswith("KASAN: ")
    assert first.function == f"planted_{word}"


@pytest.mark.needs(config="CONFIG_PROVE_LOCKING")
def test_a_deadlock_is_foreseen_by_lockdep(victim: Clone) -> None:
    """The second time that a task takes a mutex it has, before it hangs."""
    first, *_ = after(victim, f"echo deadlock >{CONTROL}", timeout=3)
    assert first.verdict is Verdict.SPLAT
    assert first.title == "possible deadlock in planted_deadlock"


@pytest.mark.needs(config="CONFIG_PROVE_LOCKING")
def test_an_order_of_locks_that_may_deadlock_is_a_splat(victim: Clone) -> None:
    """Nothing hangs; the lock validator has seen both orders."""
    (problem,) = provoke(victim, "lock_order")
    assert problem.verdict is Verdict.SPLAT
    assert problem.title.startswith("possible deadlock in ")
    assert problem.function == "planted_lock_order"


@pytest.mark.needs(config="CONFIG_DEBUG_KMEMLEAK")
def test_memory_that_nobody_remembers_is_a_leak(victim: Clone, planted: Module) -> None:
    """The function is named, although the kernel has unloaded it."""
    (problem,) = after(victim, f"echo leak >{CONTROL} && rmmod planted", module=planted)
    assert (problem.verdict, problem.function) == (Verdict.LEAK, "planted_leak")
    assert problem.title == "memory leak in planted_leak"


@pytest.mark.needs(config="CONFIG_DEBUG_KMEMLEAK")
def test_memory_that_is_lost_while_loading_is_a_leak(victim: Clone, planted: Module) -> None:
    """What init has lost, too: its code is gone as soon as it has run."""
    command = "rmmod planted && insmod /root/planted.ko at_init=leak && rmmod planted"
    (problem,) = after(victim, command, module=planted)
    assert (problem.verdict, problem.function) == (Verdict.LEAK, "planted_leak")


# -- the log -----------------------------------------------------------------------


def test_a_flood_of_messages_hides_nothing(victim: Clone) -> None:
    """A report before 20,000 lines of other things is still found."""
    problems = provoke(victim, "warn flood", timeout=60)
    assert outcome(problems) == [(Verdict.SPLAT, "WARNING in planted_warn")]


FLOOD = 3000  # lines: planted_gap() in planted.c


def test_a_log_with_a_gap_is_red(victim: Clone) -> None:
    """The kernel's buffer overflowed before it was printed: what was lost, nobody knows.

    On 7.3 it is printed although somebody has the console's lock, so that nothing is lost.
    """
    problems = provoke(victim, "gap", timeout=120)
    if victim.machine.console_text().count(" of a flood ") == FLOOD:
        assert list(problems) == []
        return
    (problem,) = problems
    assert problem.verdict is Verdict.LOG_GAP
    assert re.fullmatch(
        r"the kernel dropped \d+ messages before they reached its console", problem.title
    )


def test_a_report_explains_a_gap(victim: Clone) -> None:
    """What is known to be wrong is more than that something is not known."""
    assert outcome(provoke(victim, "warn gap", timeout=120)) == [
        (Verdict.SPLAT, "WARNING in planted_warn")
    ]


def test_a_console_without_end_is_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 MB that a guest prints, neither the file nor the memory takes more than allowed."""
    monkeypatch.setattr(console, "CONSOLE_MAX", 1 << 18)
    monkeypatch.setattr(console, "CONSOLE_KEPT", 1 << 15)
    clone = pool.open_clone(lab.template(), lab.cache)
    try:
        problems = after(clone, "head -c 100M /dev/zero | tr '\\0' x >/dev/ttyS0", timeout=10)
        assert clone.machine.log.path.stat().st_size == 1 << 18
        assert len(clone.machine.console_text()) < 1 << 17
    finally:
        clone.close()
    assert outcome(problems) == [
        (Verdict.LOG_GAP, "the guest has printed more than its console may hold")
    ]


@pytest.mark.parametrize(
    ("word", "left"),
    [
        ("forget", ["debugfs planted"]),
        ("leave_thread", ["thread planted"]),
        ("leave_proc", ["proc driver/planted"]),
        ("leave_cache", ["slab planted_left"]),
        ("leave_device", ["class misc/planted", "dev planted", "device misc/planted"]),
        ("leave_sysfs", ["sysfs kernel/planted"]),
        ("leave_workqueue", ["thread ", "plant"]),  # kworker/R-plant since 6.9
    ],
)
def test_what_is_left_behind_is_residue(victim: Clone, word: str, left: list[str]) -> None:
    """What outlives its module is found and named."""
    (problem,) = after(victim, f"echo {word} >{CONTROL} && rmmod planted")
    assert problem.verdict is Verdict.RESIDUE
    for name in left:
        assert name in problem.title


def test_a_task_in_the_code_of_a_module_that_is_gone_is_residue(victim: Clone) -> None:
    """Somebody waits there, in memory that is not the module's any more."""
    waits = "until grep -q planted_sleep /proc/$!/stack; do sleep 0.05; done"
    problems = after(victim, f"echo leave_waiter >{CONTROL} & {waits}; rmmod planted")
    assert kinds(problems) == {Verdict.RESIDUE}
    assert any("waiter sh" in problem.title for problem in problems)  # its file is left as well


# -- reports that are expected -----------------------------------------------------


def test_an_expected_report_is_green(
    guest: Guest, planted: Module, expect_splat: ExpectSplat
) -> None:
    """A report that the test provokes on purpose does not make it red."""
    loading.load(guest, planted)
    with expect_splat("warning", function="planted_warn"):
        guest.check(f"echo warn >{CONTROL}")


def test_an_expected_panic_is_green(
    guest: Guest, planted: Module, expect_splat: ExpectSplat
) -> None:
    """The guest is lost, as it was meant to be; that is no problem either."""
    loading.load(guest, planted)
    with expect_splat("panic", function="planted_fatal"), pytest.raises(GuestLost):
        guest.check(f"echo panic >{CONTROL}")


@pytest.mark.parametrize(
    ("words", "said"),
    [("forget", "reported nothing"), ("warn", "reported WARNING in planted_warn")],
)
def test_an_expectation_that_does_not_come_true_is_red(
    victim: Clone, words: str, said: str
) -> None:
    """Nothing at all, or a report of another function, is not what was expected."""
    with (
        pytest.raises(pytest.fail.Exception, match=said),
        expect.expecting(victim.machine, [], "warning", "another_function"),
    ):
        victim.guest.check(f"echo {words} >{CONTROL}")


def test_a_qemu_that_is_killed_is_a_host_fault(victim: Clone) -> None:
    """As by the host's OOM killer: no module is blamed."""
    os.kill(victim.machine.pid, signal.SIGKILL)
    victim.machine.process.wait()
    problems = verdict.judge(evidence.gather(victim.machine, victim.baseline))
    assert [problem.verdict for problem in problems] == [Verdict.HOST_FAULT]
    assert problems[0].title == "QEMU was killed by SIGKILL"
