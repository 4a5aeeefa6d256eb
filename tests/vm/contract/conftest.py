# SPDX-License-Identifier: GPL-2.0-only
"""What the contract tests look at: the one kernel thread, as ps and /proc show it.

Nothing here, and no test of the contract, knows what a solution's module is called, or what it
does with a message. The exercise leaves both open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..modinfo import declared

if TYPE_CHECKING:  # a pytest that only hands out the tests reads this file too
    from harness.testing import Guest, Lab, Module

NAME = "eudyptula"  # of the device and of the thread
NODE = f"/dev/{NAME}"
# Allocated memory is filled with 0x6b (k) and ends in 0xa5, and has bytes of 0xcc or 0xbb around
# it (include/linux/poison.h). What is freed or written over by mistake is reported.
_POISON = "slub_debug=FZP"
poisoned = pytest.mark.machine(append=(_POISON,))
# All tests in which something may race share one kind of machine: for a module that was edited each
# kind is made anew.
racing = pytest.mark.machine(cpus=2, append=(_POISON,))
# hrtimer_interrupt() in kernel/time/hrtimer.c, and wq_cpu_intensive_report() in kernel/workqueue.c,
# of work that is the kernel's own: a module's has the module's name in brackets behind it.
_OF_A_BUSY_HOST = re.compile(
    r"hrtimer: interrupt took \d+ ns$|workqueue: \S+ hogged CPU for >\d+us \d+ times"
)
# The states of a thread that waits without counting as load: proc_pid_stat(5), and I for "idle"
# (TASK_IDLE in include/linux/sched.h).
AT_REST = ("S", "I")


def path_of(module: Module) -> str:
    """Where a module's file is in the guest."""
    return f"/root/{module.ko.name}"


@dataclass(frozen=True)
class Task:
    """A task as /proc/PID/stat and /proc/PID/status show it (proc_pid_stat(5)).

    ``ticks`` is the CPU time used, in clock ticks; ``voluntary`` and ``forced`` count
    context switches. ``stack`` is its kernel stack, innermost first.
    """

    pid: int
    parent: int
    state: str
    ticks: int
    voluntary: int
    forced: int
    stack: str


class Threads:
    """The kernel threads of one name in a guest."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def all(self) -> list[Task]:
        """Tasks whose name is exactly the exercise's and which have no address space."""
        # Only a kernel thread has an empty command line. The shell does this by itself: to start
        # pgrep would cost an emulated guest a tenth of a second more.
        said = self._guest.check(
            "for file in /proc/[0-9]*/comm; do "
            f'name=; read -r name <$file; [ "$name" = {NAME} ] || continue; '
            'cd ${file%/comm} && line= && { read -r line <cmdline; [ -z "$line" ]; } && '
            "cat stat status stack && echo =; done 2>/dev/null; true"
        )
        return [_task(part) for part in said.split("=\n") if part]

    def only(self, when: str = "the module is loaded") -> Task:
        """The one thread there is; fails the test if there is none or more than one."""
        __tracebackhide__ = True
        found = self.all()
        if not found:
            pytest.fail(f"{when}, and there is no kernel thread named {NAME}{self._others()}")
        assert len(found) == 1, f"{when}, and there are {len(found)} kernel threads named {NAME}"
        return found[0]

    def same(self, before: Task, when: str) -> Task:
        """The thread ``before``, which must still be there, as it is now."""
        __tracebackhide__ = True
        found = {task.pid: task for task in self.all()}
        assert before.pid in found, (
            f"{when}, the thread {NAME} has ended, although nobody has stopped it: a thread must "
            "not return before kthread_should_stop() is true"
        )
        assert len(found) == 1, f"{when}, there are {len(found)} threads named {NAME}"
        return found[before.pid]

    def _others(self) -> str:
        """Which threads sleep in a module's code, for one that has another name."""
        found = self._guest.run(r"grep -l '\[.*\]$' /proc/[0-9]*/stack").stdout.split()
        names = [self._guest.run(f"cat {path[:-5]}comm").stdout.strip() for path in found]
        return f" (but one named {', '.join(names)})" if names else ""


def _task(text: str) -> Task:
    """The task of which this is stat, status and stack below /proc/PID."""
    stat, _, status = text.partition("\n")
    # The name is in parentheses and may hold anything; what follows is fields 3 on.
    fields = stat.rpartition(")")[2].split()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return Task(
        pid=int(facts["Pid"]),
        parent=int(fields[1]),
        state=fields[0],
        ticks=int(fields[11]) + int(fields[12]),
        voluntary=int(facts["voluntary_ctxt_switches"]),
        forced=int(facts["nonvoluntary_ctxt_switches"]),
        stack="\n".join(re.findall(r"^\[<.*", status, re.MULTILINE)),
    )


@pytest.fixture(autouse=True)
def licence_is_one_tests_affair(request: pytest.FixtureRequest, module: Module) -> None:
    """What a module says of itself may taint the kernel. One test is red for that, not all."""
    for one in module.objects:
        request.node.add_marker(pytest.mark.taint(*declared(one.ko)))


@pytest.fixture
def threads(loaded: Guest) -> Threads:
    """The module's threads in the test's guest, which has the module loaded."""
    return Threads(loaded)


@pytest.fixture(scope="session")
def taken(lab: Lab) -> Module:
    """A module that takes a name before another one asks for it."""
    return lab.build(Path(__file__).parent.parent / "taken")


def left_behind(guest: Guest, module: Module) -> list[str]:
    """What the module has in the guest although it is not loaded."""
    paths = f"{NODE} /sys/class/misc/{NAME} /sys/module/{module.name}"
    found = guest.check(
        f"for path in {paths}; do [ ! -e $path ] && [ ! -L $path ] || echo $path; done"
    ).split()
    found += [f"the thread {NAME}, process {task.pid}" for task in Threads(guest).all()]
    if found:
        return found  # to read /proc/misc is to use what it has left there
    misc = guest.check("cat /proc/misc").split()
    return [f"{NAME} in /proc/misc"] if NAME in misc else []


def assert_node(guest: Guest) -> None:
    """Fail the test where there is no node, in the same words in each: that is one fault."""
    __tracebackhide__ = True
    if guest.run(f"test -e {NODE}").ok:
        return
    newest = guest.run("head -n 1 /proc/misc").stdout.split()
    made = f": the misc device that was registered last is {newest[1]}" if newest[1:] else ""
    pytest.fail(f"there is no {NODE}{made}")


def misc_name(guest: Guest) -> str:
    """The name of the node's device, which need not be the node's."""
    __tracebackhide__ = True
    assert_node(guest)
    minor = int(guest.check(f"stat -c %T {NODE}"), 16)
    rows = [line.split() for line in guest.check("cat /proc/misc").splitlines()]
    names = [name for number, name in rows if int(number) == minor]
    assert names, f"/proc/misc has no device with the minor number of {NODE}, {minor}"
    return names[0]


def complaints(text: str) -> Iterator[str]:
    """The lines of which a module can be blamed.

    Not those that no module from outside the kernel's tree can do without, nor those about its
    licence, which is another test's affair. Nor what a busy host brings about, whose emulated
    processor then stands still for some milliseconds.
    """
    origin = (
        "out-of-tree module taints kernel", "module verification failed",
        "module license", "Disabling lock debugging due to kernel taint",
    )  # fmt: skip
    return (
        line
        for line in text.splitlines()
        if not any(known in line for known in origin) and not _OF_A_BUSY_HOST.search(line)
    )
