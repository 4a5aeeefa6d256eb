# SPDX-License-Identifier: GPL-2.0-only
"""Memory that a module allocates and loses is found on a stock kernel, with the line that lost it.

Each kind is planted twice: lost, and given back in time, which must be green.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.examine import evidence, explain
from harness.examine.record import INSTANCE
from harness.judge import verdict
from harness.judge.verdict import Problem, Verdict
from harness.machines import pool
from harness.testing import Clone, Guest, Lab, Module
from tests.vm.harness.recorded import need_record, need_record_of_objects

NAME = "planted_lost"
FILE = f"/root/{NAME}.ko"
USE = {
    "init": "true",
    "open": f"true </dev/{NAME}",
    "write": f"echo >/dev/{NAME}",
    # 0x5401 is TCGETS of asm-generic/ioctls.h: any number will do.
    "ioctl": f"perl -e 'open(my $file, q(<), q(/dev/{NAME})); ioctl($file, 0x5401, 0)'",
}


@pytest.fixture(scope="session")
def planted(lab: Lab) -> Module:
    """The module that loses what it is asked to."""
    return lab.build(Path(__file__).parent / NAME)


@pytest.fixture
def victim(request: pytest.FixtureRequest, lab: Lab, planted: Module) -> Iterator[Clone]:
    """A machine that has the module's file, and is not this test's own.

    The marker ``machine`` gives its shape.
    """
    marker = request.node.get_closest_marker("machine")
    clone = pool.open_clone(lab.template(**(marker.kwargs if marker else {})), lab.cache)
    try:
        clone.guest.put(planted.loadable, FILE)
        clone.guest.check("mkdir -p /lib/firmware && echo planted >/lib/firmware/planted.bin")
        yield clone
    finally:
        clone.close()


@pytest.fixture
def objects(lab: Lab) -> None:
    """So are those of objects, for which kmemleak does not look."""
    need_record_of_objects(lab)


@pytest.fixture
def recorded(lab: Lab) -> None:
    """The kernel's allocations are recorded: on others the tests that want that have no object."""
    need_record(lab)


def after(victim: Clone, planted: Module, *commands: str) -> Sequence[Problem]:
    """The machine's verdict after these commands."""
    for command in commands:
        victim.guest.run(command)
    seen = evidence.gather(victim.machine, victim.baseline, audit=victim.audit)
    named = explain.with_names(seen, victim.facts, planted, victim.audit)
    return explain.explain(verdict.judge(named), planted)


def only(problems: Sequence[Problem]) -> Problem:
    assert len(problems) == 1, [str(one) for one in problems]
    return problems[0]


LOST = [
    ("kmalloc", "100 bytes that kmalloc() allocated"),
    ("kzalloc", "300 bytes that kmalloc() allocated"),
    ("large", "100000 bytes that kmalloc() allocated"),
    ("atomic", "64 bytes that kmalloc() allocated"),
    ("kstrdup", "4 bytes that kstrdup() allocated"),
    ("kmemdup", "16 bytes that kmemdup() allocated"),
    ("kasprintf", "20 bytes that kasprintf() allocated"),
    ("krealloc", "400 bytes that krealloc() allocated"),
    # 5.10 jumps from kvmalloc() to vmalloc(), so that its stack has no more than that.
    ("kvmalloc", "vmalloc() allocated"),
    ("vmalloc", "20480 bytes that vmalloc() allocated"),
    ("pages", "16384 bytes that alloc_pages() allocated"),
    ("onepage", "4096 bytes that alloc_pages() allocated"),
    ("percpu", "48 bytes that alloc_percpu() allocated"),
    ("skb", "alloc_skb() allocated"),
    ("dma", "8192 bytes that dma_alloc_attrs() allocated"),
    ("file", "filp_open() allocated"),
    ("exact", "12288 bytes that alloc_pages"),
]


# Those that are pages, of which kmemleak does not know.
OF_PAGES = ("pages", "onepage", "exact", "dma")


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(("kind", "said"), LOST)
def test_what_nobody_frees_is_named(
    lab: Lab, victim: Clone, planted: Module, kind: str, said: str
) -> None:
    """How much it is, what allocated it, and the line of the module that called that."""
    if kind not in OF_PAGES:
        need_record_of_objects(lab)
    problem = only(after(victim, planted, f"insmod {FILE} what={kind} take=0", f"rmmod {NAME}"))
    assert problem.verdict is Verdict.LEAK
    assert said in problem.title
    assert (problem.function or "").startswith(f"{kind}_get")
    assert (problem.location or "").startswith(f"{NAME}.c:")


@pytest.mark.usefixtures("recorded")
def test_an_eighth_of_all_memory_is_soon_looked_for(victim: Clone, planted: Module) -> None:
    """However much it is: a look that ends with the machine's patience finds nothing."""
    problems = after(victim, planted, f"insmod {FILE} what=heap take=0", f"rmmod {NAME}")
    assert len(problems) == 1
    assert "1048576 bytes that alloc_pages() allocated" in problems[0].title
    assert problems[0].times == 64


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("workqueue", "the work queue planted_queue is still there: destroy_workqueue()"),
        ("bound", "the work queue planted_ordered is still there: destroy_workqueue()"),
        ("pool", "the DMA pool planted_pool is still there: dma_pool_destroy()"),
        ("listed", "a file is still there: filp_close()"),
        ("socket", "a socket is still there: sock_release()"),
        ("link", "/lo/planted_link is still there: sysfs_remove_link()"),
        ("folder", "/lo/planted_folder is still there: kobject_put()"),
        ("group", "/lo/planted_group is still there: sysfs_remove_group()"),
        ("mount", "a mount is still there: kern_unmount()"),
        ("instance", "tracing planted_instance is still there: trace_array_destroy()"),
    ],
)
def test_what_the_kernel_still_has_in_a_list_is_named(
    victim: Clone, planted: Module, kind: str, said: str
) -> None:
    """Nothing in it points to the module, so that only who allocated it tells whose it is."""
    problem = only(after(victim, planted, f"insmod {FILE} what={kind} take=0", f"rmmod {NAME}"))
    assert problem.verdict is Verdict.RESIDUE
    assert said in problem.title
    assert (problem.location or "").startswith(f"{NAME}.c:")


OFF = {
    "stopped": "echo 0 >tracing_on",
    "without events": "echo 0 >events/enable",
    "emptied": "echo >trace",
    "gone": "echo 0 >events/enable; cd ..; rmdir eudyptula",
}


@pytest.mark.usefixtures("objects")
@pytest.mark.parametrize("how", OFF)
def test_a_record_that_somebody_stops_is_no_green(victim: Clone, planted: Module, how: str) -> None:
    """It says nothing of what is lost from then on."""
    stop = f"cd /sys/kernel/tracing/instances/eudyptula; {OFF[how]}"
    life = f"insmod {FILE} what=kmalloc where=write take=0"
    found = after(victim, planted, life, stop, f"echo >/dev/{NAME}; rmmod {NAME}")
    (gap,) = [problem for problem in found if problem.verdict is Verdict.LOG_GAP]
    assert "somebody has stopped the record" in gap.title
    assert not [problem for problem in found if problem.verdict is Verdict.LEAK]


def test_the_kernels_own_report_of_a_cache_that_is_not_empty_is_enough(
    victim: Clone, planted: Module
) -> None:
    """It is there on every kernel."""
    assert after(victim, planted, f"insmod {FILE} what=cache take=0", f"rmmod {NAME}")


@pytest.mark.usefixtures("objects")
@pytest.mark.parametrize("where", ["open", "write", "ioctl"])
@pytest.mark.parametrize(("how", "kind"), [("overwritten", "kmalloc"), ("outer", "kstrdup")])
def test_where_and_how_it_is_lost_does_not_matter(
    victim: Clone, planted: Module, where: str, how: str, kind: str
) -> None:
    """A pointer to it was overwritten, or only the structure was freed that had it."""
    take = int(how == "overwritten")
    load = f"insmod {FILE} what={kind} where={where} how={how} take={take}"
    problem = only(after(victim, planted, load, USE[where], f"rmmod {NAME}"))
    assert problem.verdict is Verdict.LEAK
    assert problem.function == f"{kind}_get"
    assert f"planted_{where}" in problem.detail


@pytest.mark.usefixtures("objects")
def test_what_an_init_that_fails_has_lost_is_named(victim: Clone, planted: Module) -> None:
    """The module is gone before anybody could ask where it is."""
    problem = only(after(victim, planted, f"insmod {FILE} what=kmemdup where=fail take=0"))
    assert problem.verdict is Verdict.LEAK
    assert problem.function == "kmemdup_get"
    assert (problem.location or "").startswith(f"{NAME}.c:")


@pytest.mark.usefixtures("objects")
def test_a_whole_life_in_one_command_is_no_hiding_place(victim: Clone, planted: Module) -> None:
    """Each life loses its own, and the lines are the same."""
    life = f"insmod {FILE} what=kasprintf take=0 && rmmod {NAME}"
    problem = only(after(victim, planted, f"{life} && {life}"))
    assert problem.times == 2
    assert (problem.location or "").startswith(f"{NAME}.c:")


HEALTHY = [kind for kind, _ in LOST] + [
    "nothing", "heap", "cache", "workqueue", "bound", "pool", "socket", "rcu", "callback", "many",
    "devm", "netdevice", "debugfs", "firmware", "percpus", "link", "folder", "group", "mount",
    "instance",
    "listed",
]  # fmt: skip


@pytest.mark.parametrize("kind", HEALTHY)
def test_what_is_given_back_is_green(victim: Clone, planted: Module, kind: str) -> None:
    """The same kinds, and what frees later, or hands memory to the kernel for a while."""
    loads = victim.guest.run("grep -q ' T request_firmware$' /proc/kallsyms").status == 0
    if kind == "firmware" and not loads:
        pytest.skip("this kernel loads no firmware (CONFIG_FW_LOADER)")
    victim.guest.check(f"insmod {FILE} what={kind}")
    assert list(after(victim, planted, f"rmmod {NAME}")) == []


@pytest.mark.parametrize("kind", ["link", "folder", "group", "mount", "workqueue", "instance"])
def test_what_a_loaded_module_has_is_its_own(victim: Clone, planted: Module, kind: str) -> None:
    """Its init is gone, which has made that."""
    assert list(after(victim, planted, f"insmod {FILE} what={kind}")) == []


@pytest.fixture
def other(lab: Lab, victim: Clone) -> str:
    """The file of another module, in the machine."""
    module = lab.build(Path(__file__).parent / "planted_remains")
    victim.guest.put(module.loadable, "/root/planted_remains.ko")
    return "/root/planted_remains.ko"


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("kind", ["link", "folder", "group"])
def test_what_is_left_is_named_while_a_later_module_is_loaded(
    victim: Clone, planted: Module, other: str, kind: str
) -> None:
    """It was made before that one came, whose init is gone as well."""
    commands = f"insmod {FILE} what={kind} take=0", f"insmod {other} what=nothing", f"rmmod {NAME}"
    problem = only(after(victim, planted, *commands))
    assert problem.verdict is Verdict.RESIDUE
    assert f"/lo/planted_{kind} is still there" in problem.title


# A worker gives back what the init of a module had. It gets no processor as long as the shell goes
# round that has loaded the module there.
HOLDS_INIT = """
echo -1 >/proc/sys/kernel/sched_rt_runtime_us
for file in /sys/kernel/debug/sched/fair_server/cpu*/runtime
do [ ! -e $file ] || echo 0 >$file
done
taskset 2 chrt -f 50 sh -c 'insmod {}; while :; do :; done' >/dev/null 2>&1 &
echo $! >/tmp/holder
while ! grep -q '^planted_lost .*Live' /proc/modules; do :; done"""
GIVES_BACK = """
areas() {{ grep -c 'modul\\|execmem' /proc/vmallocinfo; }}
before=$(areas)
kill -9 $(cat /tmp/holder)
while [ $(areas) -ge $before ]; do :; done
insmod {}"""


@pytest.mark.machine(cpus=2)
@pytest.mark.usefixtures("recorded")
def test_what_is_left_is_named_while_a_module_is_where_its_init_was(
    victim: Clone, planted: Module, other: str
) -> None:
    """The place of an init may be given back between two commands, and be the next module's."""
    load = HOLDS_INIT.format(f"{FILE} what=group take=0")
    load_other = GIVES_BACK.format(f"{other} what=nothing")
    problem = only(after(victim, planted, load, load_other, f"rmmod {NAME}"))
    assert problem.verdict is Verdict.RESIDUE
    assert "/lo/planted_group is still there" in problem.title


@pytest.mark.parametrize("kind", ["link", "folder", "group"])
def test_what_a_later_module_has_is_its_own(
    victim: Clone, planted: Module, other: str, kind: str
) -> None:
    """Whoever goes meanwhile."""
    commands = f"insmod {other} what=nothing", f"insmod {FILE} what={kind}", "rmmod planted_remains"
    assert list(after(victim, planted, *commands)) == []


def test_pages_that_a_process_has_for_a_while_are_green(victim: Clone, planted: Module) -> None:
    """A page that was mapped into a process, which has ended, and was then freed."""
    # mmap(2) is 9 in asm/unistd_64.h; PROT_READ, MAP_SHARED.
    use = f"perl -e 'open(my $f, q(+<), q(/dev/{NAME})); syscall(9, 0, 4096, 1, 1, fileno($f), 0)'"
    commands = [f"insmod {FILE} what=nothing", use, f"rmmod {NAME}"]
    assert list(after(victim, planted, *commands)) == []


def test_thirty_lives_lose_nothing(victim: Clone, planted: Module) -> None:
    """However often it is loaded, and whatever it frees only after a grace period."""
    life = f"insmod {FILE} what=many && rmmod {NAME} || exit 1"
    assert list(after(victim, planted, f"for life in $(seq 30); do {life}; done")) == []


def test_the_record_holds_two_hundred_lives(lab: Lab, guest: Guest, module: Module) -> None:
    """Each of insmod, a write and rmmod, by three commands, as tests do it.

    Ten of them are done. How much more the record has afterwards is the kernel's own count.
    """
    need_record(lab)
    guest.put(module.loadable, "/root/waitqueues.ko")

    def recorded() -> int:
        stats = f"{INSTANCE}/per_cpu/cpu0/stats"
        return int(guest.check(f"sed -n 's/^bytes: //p' {stats}"))

    def live(times: int) -> None:
        for _ in range(times):
            guest.check("insmod /root/waitqueues.ko")
            guest.check("echo message >/dev/eudyptula")
            guest.check("rmmod waitqueues")

    live(1)
    before = recorded()
    live(10)
    kib = int(guest.check(f"cat {INSTANCE}/per_cpu/cpu0/buffer_size_kb"))
    assert (recorded() - before) * 20 < kib << 10


@pytest.mark.machine(append=("tp_printk",))
def test_a_kernel_that_prints_its_events_does_not_record(guest: Guest, planted: Module) -> None:
    """It would print each allocation, and hardly come to anything else."""
    guest.put(planted.loadable, FILE)
    guest.check(f"insmod {FILE} what=kmalloc && rmmod {NAME}")
    assert "kmalloc: call_site" not in guest.check("dmesg")
