# SPDX-License-Identifier: GPL-2.0-only
"""The detectors work: what a module does wrong on purpose gets the right verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness import plugin, pool, verdict
from harness.build import Module
from harness.errors import CommandTimeout, GuestLost
from harness.guest import Guest
from harness.lab import Lab
from harness.pool import Fresh
from harness.verdict import Problem, Verdict

CONTROL = "/sys/kernel/debug/planted"


@pytest.fixture(scope="session")
def planted(lab: Lab) -> Module:
    """The module that is broken on purpose."""
    return lab.build(Path(__file__).parent / "planted")


@pytest.fixture
def victim(lab: Lab, planted: Module) -> Iterator[Fresh]:
    """A machine with that module, which is not this test's own: its verdict is asked for."""
    template = plugin.loaded_template(lab, lab.template(), planted)
    fresh = pool.fresh(template, lab.cache)
    try:
        yield fresh
    finally:
        fresh.close()


def provoke(victim: Fresh, words: str, *, timeout: float = 10.0) -> Sequence[Problem]:
    """Have the module do what ``words`` name, one after the other: the machine's verdict."""
    command = " && ".join(f"echo {word} >{CONTROL}" for word in words.split())
    return after(victim, command, timeout=timeout)


def after(victim: Fresh, command: str, *, timeout: float = 10.0) -> Sequence[Problem]:
    """The machine's verdict after a command, whatever became of that."""
    timed_out = ""
    try:
        victim.clone.guest.run(command, timeout=timeout)
    except CommandTimeout as error:
        timed_out = error.command[0]
    except GuestLost:
        pass  # as after a panic; the verdict says what it was
    return verdict.judge(
        plugin.evidence(
            victim.clone.machine,
            victim.taint,
            timed_out=timed_out,
            before=victim.inventory,
        )
    )


def outcome(problems: Sequence[Problem]) -> list[tuple[Verdict, str]]:
    return [(problem.verdict, problem.title) for problem in problems]


def test_a_module_that_does_nothing_wrong_is_green(victim: Fresh) -> None:
    """No false alarm: not while it is loaded, and not when it has been unloaded."""
    assert outcome(after(victim, "true")) == []
    assert outcome(after(victim, "rmmod planted")) == []


def test_a_warning_is_a_splat(victim: Fresh) -> None:
    """A command that succeeds does not hide what the kernel said."""
    assert outcome(provoke(victim, "warn")) == [(Verdict.SPLAT, "WARNING in planted_warn")]


def test_an_oops_is_a_splat_with_its_function(victim: Fresh) -> None:
    """The guilty function is named, and the source's line shown."""
    problems = provoke(victim, "oops")
    assert [problem.verdict for problem in problems] == [Verdict.SPLAT]
    assert problems[0].title.endswith("in planted_oops")


def test_a_panic_is_a_panic(victim: Fresh) -> None:
    """The last words of the kernel count, although nobody can ask it any more."""
    problems = provoke(victim, "panic")
    assert [problem.verdict for problem in problems] == [Verdict.PANIC]
    assert "planted" in problems[0].detail


def test_a_reboot_is_never_green(victim: Fresh) -> None:
    """A machine that restarts by itself has nothing more to say, and that is red."""
    assert [problem.verdict for problem in provoke(victim, "reboot")] == [Verdict.PANIC]


def test_a_stuck_command_is_told_from_a_dead_kernel(victim: Fresh) -> None:
    """The guest answers, the command does not end: hung."""
    assert [problem.verdict for problem in provoke(victim, "sleep", timeout=3)] == [Verdict.HUNG]


def test_a_kernel_that_spins_is_lost(victim: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """With interrupts off nothing answers; the virtual CPU is seen to run all the time."""
    monkeypatch.setattr(pool, "MARK_SECONDS", 3.0)
    problems = provoke(victim, "spin", timeout=3)
    assert outcome(problems) == [
        (Verdict.LOST, "the guest does not answer any more; its CPU spins")
    ]


def test_a_flood_of_messages_hides_nothing(victim: Fresh) -> None:
    """A report before 20,000 lines of other things is still found."""
    problems = provoke(victim, "warn flood", timeout=60)
    assert outcome(problems) == [(Verdict.SPLAT, "WARNING in planted_warn")]


def test_what_is_left_behind_is_residue(victim: Fresh) -> None:
    """A debugfs file that outlives its module is found."""
    problems = after(victim, f"echo forget >{CONTROL} && rmmod planted")
    assert outcome(problems) == [
        (Verdict.RESIDUE, "the module is unloaded, but left behind: debugfs planted")
    ]


# -- reports that are expected -----------------------------------------------------


def test_an_expected_report_is_green(
    guest: Guest, planted: Module, expect_splat: plugin.ExpectSplat
) -> None:
    """A report that the test provokes on purpose does not make it red."""
    plugin.load(guest, planted)
    with expect_splat("warning", function="planted_warn"):
        guest.check(f"echo warn >{CONTROL}")


@pytest.mark.parametrize(
    ("words", "said"),
    [("forget", "reported nothing"), ("warn", "reported WARNING in planted_warn")],
)
def test_an_expectation_that_does_not_come_true_is_red(
    victim: Fresh, words: str, said: str
) -> None:
    """Nothing at all, or a report of another function, is not what was expected."""
    with (
        pytest.raises(pytest.fail.Exception, match=said),
        plugin.expecting(victim.clone.machine, [], "warning", "another_function"),
    ):
        victim.clone.guest.check(f"echo {words} >{CONTROL}")
