# SPDX-License-Identifier: GPL-2.0-only
"""What a module leaves behind is found whatever else happens, and nothing else is taken for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.examine import evidence
from harness.judge import verdict
from harness.machines import pool
from harness.testing import Clone, Guest, Lab, Module

HERE = Path(__file__).parent
# A module that sets the taint of those from outside the kernel's tree comes and goes.
TAINTS = "insmod planted_init.ko && rmmod planted_init"


@pytest.fixture(scope="session")
def quiet(lab: Lab) -> Module:
    """A module that sets no taint, and leaves behind what it is told to."""
    return lab.build(HERE / "planted_quiet")


@pytest.fixture(scope="session")
def other(lab: Lab) -> Module:
    """A healthy module."""
    return lab.build(HERE / "planted_init")


@pytest.fixture
def victim(lab: Lab, quiet: Module, other: Module) -> Iterator[Clone]:
    """A machine, not this test's own, with the files of both modules in /root."""
    clone = pool.open_clone(lab.template(), lab.cache)
    try:
        for module in (quiet, other):
            clone.guest.put(module.loadable, f"/root/{module.ko.name}")
        yield clone
    finally:
        clone.close()


def verdicts(victim: Clone, *, last: bool = True) -> list[str]:
    """What the machine's verdict is at the end of a test, without what was not called."""
    seen = evidence.gather(victim.machine, victim.baseline, last=last)
    return [_left(str(problem)) for problem in verdict.judge(seen)]


def _left(problem: str) -> str:
    return re.sub(r"(left behind: .*?): \w+\(\).* was not called", r"\1", problem)


def verdicts_with_memory(victim: Clone) -> list[str]:
    """The same, by the machine's memory as well."""
    seen = evidence.gather(victim.machine, victim.baseline, last=True, audit=victim.audit)
    return [_left(str(problem)) for problem in verdict.judge(seen)]


def residue(*names: str) -> list[str]:
    return [f"residue: the module is unloaded, but left behind: {', '.join(names)}"]


def cycle(guest: Guest, leave: str = "", *, between: str = "true") -> None:
    """Load and unload the module that sets no taint."""
    guest.check(f"insmod planted_quiet.ko leave={leave}; {between}; rmmod planted_quiet")


@pytest.mark.parametrize(
    ("leave", "name"),
    [
        ("proc", "proc planted_quiet"),
        ("cache", "slab planted_quiet"),
        ("net", "proc net/planted_quiet"),
        ("device", "device platform/planted_quiet"),
        ("memory", "iomem planted_quiet(f0000000-f000000f)"),
        ("ports", "ioports planted_quiet(3000-300f)"),
        ("root", "sysfs devices/planted_root"),
        ("top", "sysfs planted_top"),
        ("below", "sysfs firmware/planted_below"),
        ("debugfs", "debugfs x86/planted_folder"),
        ("securityfs", "securityfs planted_secured"),
        ("worker", "thread kworker/u9:9"),
    ],
)
def test_a_module_that_sets_no_taint_is_looked_at(victim: Clone, leave: str, name: str) -> None:
    """It claims to be the kernel's own; what it leaves is as bad."""
    cycle(victim.guest, leave)
    assert not victim.guest.taint() & 1 << 12  # TAINT_OOT_MODULE
    assert verdicts(victim) == residue(name)


def test_a_program_that_a_module_has_begun_is_no_leftover(victim: Clone) -> None:
    """It is a child of kthreadd's, as the kernel's threads are."""
    cycle(victim.guest, "'' helper=1")
    assert victim.guest.check("ps -o ppid= -p $(pgrep -x sleep)").split() == ["2"]
    assert verdicts(victim) == []


@pytest.mark.parametrize("leave", ["", "proc"])
def test_an_init_that_fails_leaves_something(victim: Clone, leave: str) -> None:
    """The kernel tells nobody that such a module was there. It fails twice, and leaves it once."""
    guest = victim.guest
    assert guest.run("insmod planted_quiet.ko fails=1").status == 1
    assert verdicts_with_memory(victim) == []
    assert guest.run(f"insmod planted_quiet.ko fails=1 leave={leave}").status == 1
    assert verdicts_with_memory(victim) == (residue("proc planted_quiet") if leave else [])


def test_a_module_that_hides_is_named(victim: Clone) -> None:
    """It has taken itself from the kernel's list, so that it looks as if it had gone."""
    victim.guest.check("insmod planted_quiet.ko hides=1")
    assert verdicts(victim) == [
        "residue: planted_quiet is loaded, and not in the kernel's list of modules any more"
    ]


def test_the_link_of_a_merged_cache_is_the_kernels(victim: Clone) -> None:
    """The cache is destroyed; its name stays in /sys/kernel/slab, whatever the module does."""
    cycle(victim.guest, between=TAINTS)
    assert victim.guest.run("test -L /sys/kernel/slab/planted_quiet").ok
    assert verdicts(victim) == []


@pytest.mark.parametrize("order", ["before", "between", "after"])
def test_another_module_hides_nothing(victim: Clone, order: str) -> None:
    """One that the test has loaded and left loaded: it is unloaded before anybody looks."""
    load = "insmod planted_init.ko"
    guest = victim.guest
    if order == "before":
        guest.check(load)
    cycle(guest, "proc", between=load if order == "between" else "true")
    if order == "after":
        guest.check(load)
    assert verdicts(victim, last=False) == []  # the test's fixtures may use the other one still
    assert verdicts(victim) == residue("proc planted_quiet")


def test_another_module_that_is_loaded_is_no_leftover(victim: Clone) -> None:
    """What it has belongs to it: the healthy case of the one above, each way round."""
    guest = victim.guest
    guest.check("insmod planted_init.ko; insmod planted_quiet.ko; rmmod planted_init")
    # Somebody has a file of the module open, so that it could not be unloaded.
    guest.spawn("sleep 1000 </proc/planted_quiet")
    assert verdicts(victim, last=False) == []
    assert verdicts(victim) == []


def test_a_module_that_stays_loaded_leaves_nothing(victim: Clone) -> None:
    """It is not unloaded for being looked at."""
    guest = victim.guest
    guest.check("insmod planted_quiet.ko leave=proc")
    assert verdicts(victim) == []
    assert guest.run("test -e /sys/module/planted_quiet").ok


def test_where_another_module_cannot_be_unloaded_that_is_said(victim: Clone) -> None:
    """Nobody can tell then whose is what, and what is not known is not green."""
    guest = victim.guest
    guest.check("insmod planted_init.ko; insmod planted_quiet.ko held=1; rmmod planted_init")
    assert verdicts(victim) == [
        "residue: what the unloaded modules left behind is not known: planted_quiet cannot be "
        "unloaded"
    ]


MADE_BY_A_TEST = {
    "files": "mknod /dev/of_test c 1 3; echo x >/dev/file; mkdir /dev/folder; ln -s null /dev/link;"
    "mkfifo /dev/fifo; mknod /dev/folder/null c 1 3",
    "kprobe": "echo 'p:of_test do_exit' >>/sys/kernel/tracing/kprobe_events",
    "kprobe group": "echo 'p:a_group/of_test do_exit' >>/sys/kernel/tracing/kprobe_events;"
    "echo 1 >/sys/kernel/tracing/events/a_group/of_test/enable",
    "uprobe": "echo 'p:of_test /bin/bash:0x100' >>/sys/kernel/tracing/uprobe_events",
    "namespaces": "unshare -p -f -n -m -u -i true",
    "mount": "mount -t tmpfs none /dev; mkdir /dev/of_test",
    "mount over debugfs": "mount -t tmpfs none /sys/kernel/debug; mkdir /sys/kernel/debug/of_test",
    "mount over securityfs": "mount -t tmpfs none /sys/kernel/security;"
    "mkdir /sys/kernel/security/of_test",
    "mount over proc": "mount -t tmpfs none /proc/bus; mkdir /proc/bus/of_test",
}


@pytest.mark.parametrize("what", MADE_BY_A_TEST)
def test_what_the_test_has_made_is_not_the_modules(victim: Clone, what: str) -> None:
    """Files in /dev, trace events, namespaces and mounts of its own."""
    cycle(victim.guest, between=f"{TAINTS}; {MADE_BY_A_TEST[what]}")
    assert verdicts(victim) == []


def test_what_a_test_mounts_hides_nothing(victim: Clone) -> None:
    """What the module leaves is still found below it."""
    over = "mkdir /tmp/empty; mount --bind /tmp/empty /proc"
    cycle(victim.guest, "proc", between="true")
    victim.guest.check(over)
    assert verdicts(victim) == residue("proc planted_quiet")
