# SPDX-License-Identifier: GPL-2.0-only
"""What a module keeps from going on is found although every command of the test has ended."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.build.module import Module
from harness.examine import evidence, explain
from harness.judge import verdict
from harness.judge.verdict import Problem, Verdict
from harness.lab import Lab
from harness.machines import pool
from harness.testing import Clone

NAME = "planted_stuck"
POKE = f"/sys/module/{NAME}/parameters/poke"
two_cpus = pytest.mark.machine(cpus=2)
CPUS = [pytest.param(1, id="1 CPU"), pytest.param(2, id="2 CPUs", marks=two_cpus)]
# Where the kernel may take the CPU from a thread at any time, others run beside one that spins.
PREEMPTS = ["CONFIG_PREEMPT", "CONFIG_PREEMPT_RT"]
# From 7.0 on others have the CPU as soon as a tick finds that one of them has waited for it.
PREEMPTS_LAZILY = "CONFIG_PREEMPT_LAZY"


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
    return now(victim)


def now(victim: Clone) -> Sequence[Problem]:
    """The machine's verdict."""
    return verdict.judge(evidence.gather(victim.machine, victim.baseline, audit=victim.audit))


def outcome(problems: Sequence[Problem]) -> list[tuple[Verdict, str]]:
    return [(problem.verdict, problem.title) for problem in problems]


@pytest.mark.needs(without="CONFIG_PROVE_LOCKING")  # lockdep says that insmod ends with a lock
def test_a_lock_of_the_kernels_that_is_kept_is_named(victim: Clone) -> None:
    """Nobody waits for rtnl_mutex yet; the next network command would."""
    assert outcome(after(victim, "rtnl")) == [
        (Verdict.HUNG, "rtnl_mutex is held: what needs this lock of the kernel's waits for ever")
    ]


# The locks of @locks in vm/agent, and their types in the kernel. Without cpu_hotplug_lock, which no
# module can take for itself alone.
LOCKS = {
    "rtnl_mutex": "mutex",
    "namespace_sem": "rw_semaphore",
    "module_mutex": "mutex",
    "chrdevs_lock": "mutex",
    "misc_mtx": "mutex",
    "tty_mutex": "mutex",
    "input_mutex": "mutex",
    "crypto_alg_sem": "rw_semaphore",
    "slab_mutex": "mutex",
    "event_mutex": "mutex",
    "console_sem": "semaphore",
}


def hold(victim: Clone, act: str, lock: str) -> None:
    """Have a thread of the module take a lock of the kernel's."""
    said = victim.guest.check(f"grep ' {lock}$' /proc/kallsyms")
    address = said.split()[0]
    load = f"insmod {NAME}.ko act={act} lock=0x{address} type={LOCKS[lock]}"
    victim.guest.check(f"{load}; echo 1 >{POKE}")
    await_sleep(victim)


def await_sleep(victim: Clone) -> None:
    """Wait until the module's thread sleeps, having done what it was told to."""
    state = f"grep -s '^State:.S' /proc/$(pgrep -x {NAME})/status"
    victim.guest.check(f"until {state}; do :; done")


@pytest.mark.parametrize("lock", LOCKS)
def test_each_global_lock_that_a_thread_keeps_is_named(victim: Clone, lock: str) -> None:
    """The thread sleeps, so that nothing else is wrong."""
    hold(victim, "hold", lock)
    title = f"{lock} is held: what needs this lock of the kernel's waits for ever"
    found = outcome(now(victim))
    # Before 7.x the console prints nothing without its lock, and so cannot be read to its end.
    silent = [text for kind, text in found if kind is Verdict.LOG_GAP and lock == "console_sem"]
    assert (Verdict.HUNG, title) in found or silent


@pytest.mark.parametrize("lock", LOCKS)
def test_a_global_lock_that_was_given_back_is_green(victim: Clone, lock: str) -> None:
    """By a thread that goes on sleeping."""
    hold(victim, "healthy_hold", lock)
    assert outcome(now(victim)) == []


# Of the locks that nothing is tried for. The last ones are a module's own and a file's.
OF_THE_ENDED = {
    "genl_mutex": "genl_mutex", "pernet_ops_rwsem": "pernet_ops_rwsem", "own": "planted_own",
    "inode": "one in an object of the slab cache ",
}  # fmt: skip


def take(victim: Clone, stuck: Module, act: str, lock: str) -> Sequence[Problem]:
    """Have a process take a lock and end; the machine's verdict after that."""
    kind, address = lock, "0"
    if lock.endswith(("_mutex", "_rwsem")):
        kind = "mutex" if lock.endswith("_mutex") else "rw_semaphore"
        address = "0x" + victim.guest.check(f"grep ' {lock}$' /proc/kallsyms").split()[0]
    victim.guest.check(f"insmod {NAME}.ko act={act} lock={address} type={kind}")
    victim.guest.check(f"echo 1 >{POKE}")
    audit = victim.audit
    seen = evidence.gather(victim.machine, victim.baseline, audit=audit)
    return verdict.judge(explain.with_names(seen, victim.facts, stuck, audit))


@pytest.mark.needs(without="CONFIG_PROVE_LOCKING")  # lockdep says so
@pytest.mark.needs(without="CONFIG_PREEMPT_RT")  # there locks look otherwise
@pytest.mark.parametrize("lock", OF_THE_ENDED)
def test_a_lock_whose_owner_has_ended_is_named(victim: Clone, stuck: Module, lock: str) -> None:
    """Nobody waits for it yet."""
    found = outcome(take(victim, stuck, "take", lock))
    version = tuple(map(int, victim.guest.check("uname -r").split(".")[:2]))
    if version >= (7, 1) and lock in ("own", "inode"):  # a lock has no shape of its own there
        assert found == []
        return
    ((kind, title),) = found
    assert kind is Verdict.HUNG
    assert f"a task has ended and still has a lock, {OF_THE_ENDED[lock]}" in title


@pytest.mark.parametrize("lock", OF_THE_ENDED)
def test_a_lock_that_its_owner_gave_back_is_green(victim: Clone, stuck: Module, lock: str) -> None:
    """The last one that had it has ended as well."""
    assert outcome(take(victim, stuck, "healthy_take", lock)) == []


@pytest.mark.parametrize("record", ["client", "sleeper"])
def test_who_remembers_a_task_that_has_ended_is_green(
    victim: Clone, stuck: Module, record: str
) -> None:
    """A driver's record of who uses it, or of its thread, looks like a lock that is kept."""
    assert outcome(take(victim, stuck, f"healthy_{record}", "own")) == []


def keep_a_cpu(victim: Clone) -> str:
    """Load the module, and start a process that is all that CPU 1 runs; its ID."""
    guest = victim.guest
    guest.check("echo -1 >/proc/sys/kernel/sched_rt_runtime_us")
    guest.check(f"insmod {NAME}.ko")
    spin = "exec perl -e '1 while 1'"
    pid = guest.check(f"taskset 2 chrt -f 50 sh -c {shlex.quote(spin)} >&- 2>&- & echo $!").strip()
    guest.check(f"until grep -q perl /proc/{pid}/comm; do :; done")
    return pid


def state(victim: Clone, pid: str) -> str:
    """The process's state, as R, and T where it was stopped (proc_pid_stat(5))."""
    return victim.guest.check(f"cut -d' ' -f3 /proc/{pid}/stat").strip()


@two_cpus
def test_a_process_of_the_tests_that_keeps_a_cpu_is_green(victim: Clone) -> None:
    """Before 6.12 nobody else runs on that CPU. It goes on when the machine has been judged."""
    pid = keep_a_cpu(victim)
    assert outcome(now(victim)) == []
    assert state(victim, pid) == "R"
    assert victim.guest.check(f"taskset -p {pid}").endswith(": 2\n")


@two_cpus
@pytest.mark.needs(config="CONFIG_CGROUP_PIDS")
def test_a_process_of_the_tests_goes_on_where_the_kernel_cannot_be_tried(victim: Clone) -> None:
    """The agent gets no more processes, so that it cannot know what goes on: the test is red."""
    # First: a move to another cgroup waits for every CPU, and so for ever for one that is kept.
    victim.guest.check(
        "mount -t cgroup2 none /mnt && echo +pids >/mnt/cgroup.subtree_control"
        " && mkdir /mnt/none && echo 0 >/mnt/none/pids.max && echo 1 >/mnt/none/cgroup.procs"
    )
    pid = keep_a_cpu(victim)
    assert [problem.verdict for problem in now(victim)] == [Verdict.LOST]
    assert state(victim, pid) == "R"


@pytest.mark.parametrize("cpus", CPUS)
def test_a_lock_that_is_kept_by_a_reader_is_named(victim: Clone, cpus: int) -> None:
    """The thread sleeps, and all others may read as well: only who plugs in a CPU would wait."""
    victim.guest.check(f"insmod {NAME}.ko act=cpus")
    await_sleep(victim)
    title = "cpu_hotplug_lock is held: what needs this lock of the kernel's waits for ever"
    assert outcome(now(victim)) == [(Verdict.HUNG, title)]


@pytest.mark.parametrize(
    "option", [pytest.param(each, marks=pytest.mark.needs(config=each)) for each in PREEMPTS]
)
def test_a_reader_that_does_not_end_is_named(victim: Clone, option: str) -> None:
    """Others run beside it; whoever waits until all readers are gone waits for ever."""
    found = outcome(after(victim, "rcu"))
    title = "no grace period of RCU ends: somebody has not left a read-side section"
    # Where the host is slow the kernel has said it itself by then, after 21 s of its time.
    stalls = [text for _, text in found if text.startswith("INFO: rcu detected stall")]
    assert (Verdict.HUNG, title) in found or stalls


@pytest.mark.needs(config="CONFIG_PREEMPT_RCU")  # else there is nothing that could be kept
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_a_reader_that_a_process_is_left_in_is_reported(victim: Clone, user: str) -> None:
    """By the kernel, when the process sleeps: the end of the process would hide it."""
    victim.guest.check(f"insmod {NAME}.ko act=reader; chmod 666 {POKE}")
    victim.guest.run(f"echo 1 >{POKE}", user=user)
    assert {problem.verdict for problem in now(victim)} == {Verdict.SPLAT}


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_a_reader_that_ends_is_green(victim: Clone, user: str) -> None:
    """The same call, with its end."""
    victim.guest.check(f"insmod {NAME}.ko act=healthy_reader; chmod 666 {POKE}")
    victim.guest.check(f"echo 1 >{POKE}", user=user)
    assert outcome(now(victim)) == []


@two_cpus
@pytest.mark.needs(without="CONFIG_PREEMPT")
@pytest.mark.needs(without="CONFIG_PREEMPT_RT")
@pytest.mark.needs(without="CONFIG_PREEMPT_LAZY")
def test_a_cpu_that_runs_nothing_else_is_named(victim: Clone) -> None:
    """The guest answers on its other CPU, and every command ends."""
    (problem,) = after(victim, "spin")
    assert problem.verdict is Verdict.HUNG
    assert problem.title.startswith("CPU 1 runs no process any more")


@two_cpus
@pytest.mark.parametrize(
    "act",
    [
        "busy", "busy_1",
        *(pytest.param("spin", marks=pytest.mark.needs(config=each), id=f"spin, {each}")
          for each in (*PREEMPTS, PREEMPTS_LAZILY)),
    ],
)  # fmt: skip
def test_a_task_that_never_pauses_is_named(victim: Clone, act: str) -> None:
    """Others run beside it, on either CPU."""
    (problem,) = after(victim, act)
    assert problem.verdict is Verdict.HUNG
    assert problem.title.startswith("planted_stuck(")
    assert problem.title.endswith(") uses a CPU without a pause")
    assert problem.function == ("planted_spin" if act == "spin" else "planted_busy")


@pytest.mark.parametrize(
    "act", ["none", "healthy_rtnl", "healthy_busy", "healthy_sleep", "healthy_cpus"]
)
@pytest.mark.parametrize("cpus", CPUS)
def test_what_goes_on_is_green(victim: Clone, act: str, cpus: int) -> None:
    """A lock that was given back, a thread that works a tenth of a second at a time."""
    assert outcome(after(victim, act)) == []
    victim.guest.check(f"rmmod {NAME}")
    assert outcome(verdict.judge(evidence.gather(victim.machine, victim.baseline))) == []
