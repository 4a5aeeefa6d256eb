# SPDX-License-Identifier: GPL-2.0-only
"""What a module does long after it was asked: a clone's clock runs ahead to see it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.examine import evidence, late, loading
from harness.host.proc import Deadline
from harness.judge import verdict
from harness.judge.verdict import Problem, Verdict
from harness.machines import pool
from harness.machines.clone import CLONE_SECONDS
from harness.machines.handover import hand_over, taken_over
from harness.qemu import Machine
from harness.testing import Clone, Guest, GuestBusy, GuestLost, Lab
from tests.vm.harness.test_runs import Run, run

HERE = Path(__file__).parent
PLANTED = HERE / "planted_late"
CONTROL = "/sys/kernel/debug/planted_late"
TEN_MINUTES = 600.0
# A whole run of pytest takes longer than one test may.
needs_minutes = pytest.mark.timeout(1200)


@pytest.fixture
def running_ahead(lab: Lab) -> Iterator[Clone]:
    """A machine whose clock runs ahead, with the module loaded."""
    template = loading.loaded_template(lab, lab.template(emulated=True), lab.build(PLANTED))
    clone = pool.open_clone(template, lab.cache, ahead=True)
    yield clone
    clone.close()


def problems(clone: Clone) -> list[tuple[Verdict, str]]:
    """What is wrong with the machine now."""
    seen = evidence.gather(clone.machine, clone.baseline)
    found: list[Problem] = list(verdict.judge(seen))
    return [(problem.verdict, problem.title) for problem in found]


def uptime(clone: Clone) -> float:
    return float(clone.guest.check("cat /proc/uptime").split()[0])


def test_ten_minutes_of_a_sleeping_guest_pass_in_a_moment(running_ahead: Clone) -> None:
    """And nothing is wrong with a healthy module, nor with its unloading afterwards.

    ``pass_time`` itself raises ``GuestBusy`` where they do not.
    """
    guest = running_ahead.guest
    guest.check(f"echo sleep >{CONTROL}")
    passed = guest.pass_time(TEN_MINUTES)
    assert passed.seconds >= TEN_MINUTES
    assert not [who for who in passed.wakeups if who.startswith("planted")]
    guest.check("rmmod planted_late")
    assert guest.pass_time(TEN_MINUTES).seconds >= TEN_MINUTES
    assert problems(running_ahead) == []


def test_time_stands_still_between_commands(running_ahead: Clone) -> None:
    """So that no timeout in the guest runs out because somebody on the host is thinking."""
    before = uptime(running_ahead)
    machine = running_ahead.machine
    assert not machine.execute("query-status", machine.patience(CLONE_SECONDS))["running"]
    time.sleep(2.0)  # as long as a host may think: in a guest that sleeps it would be ten minutes
    # The commands themselves take some of the guest's time: seconds where the host is busy.
    assert uptime(running_ahead) - before < TEN_MINUTES / 10


def test_a_warning_after_ninety_seconds_is_seen(running_ahead: Clone) -> None:
    """It belongs to whoever caused it."""
    guest = running_ahead.guest
    guest.check(f"echo warn >{CONTROL}")
    assert problems(running_ahead) == []
    guest.pass_time(TEN_MINUTES)
    assert problems(running_ahead) == [(Verdict.SPLAT, "WARNING in late_work_func")]


def test_an_oops_after_two_seconds_is_seen(running_ahead: Clone) -> None:
    """In a thread of its own, so that no command fails by it."""
    guest = running_ahead.guest
    guest.check(f"echo oops >{CONTROL}")
    with suppress(GuestLost):  # where the kernel panics by it
        guest.pass_time(TEN_MINUTES)
    ((found, title),) = problems(running_ahead)
    assert found in (Verdict.SPLAT, Verdict.PANIC)
    assert "late_oops" in title


@pytest.mark.parametrize("word", ["work", "wait"])
def test_what_comes_late_and_is_right_is_not_red(running_ahead: Clone, word: str) -> None:
    """The same timers and threads without the fault."""
    guest = running_ahead.guest
    guest.check(f"echo {word} >{CONTROL}")
    guest.pass_time(TEN_MINUTES)
    guest.check("rmmod planted_late")
    assert problems(running_ahead) == []


def test_a_thread_that_polls_is_named(running_ahead: Clone) -> None:
    """How often a second it wakes up is said; where it keeps time from passing, that is too."""
    guest = running_ahead.guest
    guest.check(f"echo poll >{CONTROL}")
    passed = guest.pass_time(5.0)
    who, rate = next(iter(passed.wakeups.items()))
    assert who.startswith("planted_poll/")
    assert 20 < rate <= 110
    # No host is so fast that ten days pass within the bound.
    with pytest.raises(GuestBusy, match=r"of 864000 s have passed") as caught:
        guest.pass_time(864000.0)
    assert "planted_poll/" in str(caught.value)


@pytest.mark.machine(clock="ahead")
def test_a_tests_own_machine_runs_ahead_where_it_asks_for_it(guest: Guest) -> None:
    """By its marker; its verdict comes as for any other test."""
    assert guest.pass_time(TEN_MINUTES).seconds >= TEN_MINUTES


# -- after an ordinary test ----------------------------------------------------------


@pytest.fixture(scope="module", params=[0, 2], ids=["alone", "xdist"])
def after(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """The tests of trials_late.py, in one process and in two."""
    folder = tmp_path_factory.mktemp("trials_late")
    return run(lab, folder, PLANTED, str(HERE / "trials_late.py"), jobs=request.param)


def test_no_timer_is_late_in_a_machine_that_is_taken_over(lab: Lab, tmp_path: Path) -> None:
    """The machine's clock goes on where it stood, although it is counted in another way now."""
    template = lab.template(emulated=True)
    deadline = Deadline(CLONE_SECONDS)
    with Machine(template.spec, tmp_path) as machine:
        machine.start(deadline, memory=template.memory, incoming=True, ahead=True)
        machine.snapshot.load(template.state, deadline, counting=True)
        timer = machine.monitor.human("info lapic", deadline)
    initial, current = map(int, re.findall(r"(?:initial|current)_count = (\d+)", timer))
    assert current <= initial


@pytest.mark.parametrize("ahead", [False, True], ids=["ordinary", "ahead"])
def test_a_machine_that_is_taken_over_sleeps(lab: Lab, tmp_path: Path, ahead: bool) -> None:
    """Also one that was kept awake during its test, so that its clock did not run away."""
    template = loading.loaded_template(lab, lab.template(emulated=True), lab.build(PLANTED))
    clone = pool.open_clone(template, lab.cache, ahead=ahead)
    try:
        clone.guest.check("true")
        waiting = hand_over(clone, tmp_path, Deadline(CLONE_SECONDS))
    finally:
        clone.close()
    with taken_over(waiting) as machine:
        later = late.wait(machine, waiting.taint)
    assert later.seconds >= late.SECONDS
    assert not later.busy


@needs_minutes
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("test_oops_2s", "late_oops at planted_late.c:"),
        ("test_warn_90s", "splat: WARNING in late_work_func at planted_late.c:"),
        ("test_warn_90s_on_two_cpus", "splat: WARNING in late_work_func at planted_late.c:"),
        ("test_hang_120s", "blocked for more than"),
        ("test_hang_that_nobody_reports", "blocked for more than"),
        ("test_cannot_be_killed", "blocked for more than"),
    ],
)
def test_what_comes_after_a_test_makes_it_red(after: Run, name: str, said: str) -> None:
    """It has passed, and one of the next ones was running; the JUnit file has it by its name."""
    assert said in after.errors[name]
    assert "in the ten minutes of the guest's time after the test" in after.errors[name]
    assert f"{name}-late/console.log" in after.output


@needs_minutes
def test_nothing_else_is_red_by_what_comes_later(after: Run) -> None:
    """The look-alikes, and a thread that polls, which is said in a sentence."""
    red = {
        "test_oops_2s", "test_warn_90s", "test_warn_90s_on_two_cpus", "test_hang_120s",
        "test_hang_that_nobody_reports", "test_cannot_be_killed",
    }  # fmt: skip
    assert (set(after.errors), after.failed) == (red, {})
    assert re.search(r"^late: .*test_polls: .*planted_poll\(\d+\) woke up", after.output, re.M)
    assert f"{len(red)} errors" in after.output
