# SPDX-License-Identifier: GPL-2.0-only
"""What a module keeps from going on is found although every command of the test has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.build.module import Module
from harness.examine import evidence
from harness.judge import verdict
from harness.judge.verdict import Problem, Verdict
from harness.lab import Lab
from harness.machines import pool
from harness.testing import Clone

NAME = "planted_stuck"
two_cpus = pytest.mark.machine(cpus=2)
# Where the kernel may take the CPU from a thread at any time, others run beside one that spins.
preempts = pytest.mark.needs(config="CONFIG_PREEMPT_RT")
never_preempts = pytest.mark.needs(without="CONFIG_PREEMPT_RT")


@pytest.fixture(scope="session")
def stuck(lab: Lab) -> Module:
    """The module that keeps from going on what it is told to."""
    return lab.build(Path(__file__).parent / NAME)


@pytest.fixture
def victim(request: pytest.FixtureRequest, lab: Lab, stuck: Module) -> Iterator[Clone]:
    """A machine with the module's file, not this test's own; ``machine`` gives its shape."""
    marker = request.node.get_closest_marker("machine")
    clone = pool.open_clone(lab.template(**(marker.kwargs if marker else {})), lab.cache)
    try:
        clone.guest.put(stuck.loadable, f"/root/{NAME}.ko")
        yield clone
    finally:
        clone.close()


def after(victim: Clone, act: str) -> Sequence[Problem]:
    """The machine's verdict after the module was loaded and did ``act``."""
    victim.guest.check(f"insmod {NAME}.ko act={act}")
    return verdict.judge(evidence.gather(victim.machine, victim.baseline))


def outcome(problems: Sequence[Problem]) -> list[tuple[Verdict, str]]:
    return [(problem.verdict, problem.title) for problem in problems]


@pytest.mark.needs(without="CONFIG_PROVE_LOCKING")  # lockdep says that insmod ends with a lock
def test_a_lock_of_the_kernels_that_is_kept_is_named(victim: Clone) -> None:
    """Nobody waits for rtnl_mutex yet; the next network command would."""
    assert outcome(after(victim, "rtnl")) == [
        (Verdict.HUNG, "rtnl_mutex is held: what needs this lock of the kernel's waits for ever")
    ]


@two_cpus
@never_preempts
def test_a_cpu_that_runs_nothing_else_is_named(victim: Clone) -> None:
    """The guest answers on its other CPU, and every command ends."""
    (problem,) = after(victim, "spin")
    assert problem.verdict is Verdict.HUNG
    assert problem.title.startswith("CPU 1 runs no process any more")


@two_cpus
@pytest.mark.parametrize("act", ["busy", "busy_1", pytest.param("spin", marks=preempts)])
def test_a_task_that_never_pauses_is_named(victim: Clone, act: str) -> None:
    """Others run beside it, on either CPU."""
    (problem,) = after(victim, act)
    assert problem.verdict is Verdict.HUNG
    assert problem.title.startswith("planted_stuck(")
    assert problem.title.endswith(") uses a CPU without a pause")
    assert problem.function == ("planted_spin" if act == "spin" else "planted_busy")


@pytest.mark.parametrize("act", ["none", "healthy_rtnl", "healthy_busy", "healthy_sleep"])
@pytest.mark.parametrize("cpus", [pytest.param(1, id="1 CPU"),
                                  pytest.param(2, id="2 CPUs", marks=two_cpus)])  # fmt: skip
def test_what_goes_on_is_green(victim: Clone, act: str, cpus: int) -> None:
    """A lock that was given back, a thread that works a tenth of a second at a time."""
    assert outcome(after(victim, act)) == []
    victim.guest.check(f"rmmod {NAME}")
    assert outcome(verdict.judge(evidence.gather(victim.machine, victim.baseline))) == []
