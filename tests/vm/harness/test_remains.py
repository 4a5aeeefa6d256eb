# SPDX-License-Identifier: GPL-2.0-only
"""What a module leaves registered is found in the machine's memory, and named.

Each kind is planted twice: forgotten, and taken away in time, which must be green.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.examine import evidence, explain, record
from harness.judge import verdict
from harness.judge.verdict import Problem, Verdict
from harness.machines import pool
from harness.testing import Clone, CommandTimeout, GuestLost, Lab, Module
from tests.vm.harness.recorded import need_record_of_objects

NAME = "planted_remains"
FILE = f"/root/{NAME}.ko"


@pytest.fixture(scope="session")
def remains(lab: Lab) -> Module:
    """The module that leaves behind what it is asked to."""
    return lab.build(Path(__file__).parent / NAME)


@pytest.fixture
def victim(lab: Lab, remains: Module) -> Iterator[Clone]:
    """A machine that has the module's file, and is not this test's own."""
    clone = pool.open_clone(lab.template(), lab.cache)
    try:
        clone.guest.put(remains.loadable, FILE)
        yield clone
    finally:
        clone.close()


def after(victim: Clone, remains: Module, *commands: str) -> Sequence[Problem]:
    """The machine's verdict after these commands."""
    timed_out = ""
    try:
        for command in commands:
            victim.guest.run(command)
    except CommandTimeout as error:
        timed_out = error.command[0]
    except GuestLost:
        pass  # as after a panic; the verdict says so
    audit = victim.audit
    seen = evidence.gather(victim.machine, victim.baseline, timed_out=timed_out, audit=audit)
    return verdict.judge(explain.with_names(seen, victim.facts, remains, audit))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("reboot", "reboot_notifier_list still holds planted_block: unregister_reboot_notifier()"),
        ("panic", "panic_notifier_list still holds planted_block: atomic_notifier_chain_unreg"),
        ("die", "die_chain still holds planted_block: unregister_die_notifier()"),
        ("netdevice", "netdev_chain still holds planted_block: unregister_netdevice_notifier()"),
        ("inet", "inetaddr_chain still holds planted_block: unregister_inetaddr_notifier()"),
        ("netfilter", "init_net's netfilter still holds planted_hook: nf_unregister_net_hook()"),
        ("timer", "timer_bases still holds planted_timer: timer_delete_sync()"),
        ("work", "timer_bases still holds planted_work: timer_delete_sync()"),
        ("proc", "slab cache proc_dir_entry still holds shown: remove_proc_entry()"),
        ("debugfs", "still holds planted_files"),
        ("cdev", "still holds planted_cdev"),
        ("genl", "still holds planted_family"),
        ("binfmt", "formats still holds planted_format: unregister_binfmt()"),
        ("input", "input_handler_list still holds planted_handler: input_unregister_handler()"),
        ("misc", "misc_list still holds planted_misc: misc_deregister()"),
        ("filesystem", "file_systems still holds planted_type: unregister_filesystem()"),
        ("region", "iomem_resource still holds planted_region: release_mem_region()"),
        ("crypto", "crypto_alg_list still holds planted_hash: crypto_unregister"),
        ("sysctl", "still holds planted_table"),
        ("tracepoint", "still holds planted_traced"),
        # The kernel calls it when it frees caches, as the harness has it do before a second look.
        ("shrinker", "shrinker_list still holds"),
        ("kthread", "the stack of planted_sleeps still holds sleeps: kthread_stop()"),
    ],
)
def test_what_is_left_registered_is_named(
    victim: Clone, remains: Module, kind: str, said: str
) -> None:
    """What holds it, what of the module's it is, and what was forgotten."""
    load = f"insmod {FILE} what={kind} take=0"
    problems = after(victim, remains, load, f"rmmod {NAME}")
    assert {problem.verdict for problem in problems} == {Verdict.RESIDUE}
    titles = [problem.title for problem in problems]
    assert any(said in title for title in titles), titles
    named = next(problem for problem in problems if said in problem.title)
    assert (named.location or "").startswith(f"{NAME}.c:")


@pytest.mark.parametrize("kind", ["hrtimer", "kprobe"])
def test_what_the_kernel_uses_at_once_is_red_in_any_case(
    victim: Clone, remains: Module, kind: str
) -> None:
    """It may crash before anybody can look."""
    assert after(victim, remains, f"insmod {FILE} what={kind} take=0; rmmod {NAME}")


def test_memory_that_nobody_has_is_lost_whatever_it_points_to(
    lab: Lab, victim: Clone, remains: Module
) -> None:
    """Nobody follows its pointer into the module. Where it was allocated says more."""
    need_record_of_objects(lab)
    (problem,) = after(victim, remains, f"insmod {FILE} what=object take=0", f"rmmod {NAME}")
    assert problem.verdict is Verdict.LEAK
    assert problem.function == "object_on"


def test_where_allocations_cannot_be_recorded_the_memory_is_looked_at_all_the_same(
    lab: Lab, remains: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun of the record is taken away from the guest before it is frozen."""
    monkeypatch.setattr(record, "TRIAL_FUNCTION", "no_function_of_this_name")
    template = lab.template(append=("planted=no-record",))
    assert not (template.entry.path / record.FILE).exists()
    clone = pool.open_clone(template, lab.cache)
    try:
        clone.guest.put(remains.loadable, FILE)
        assert list(after(clone, remains, f"insmod {FILE} what=reboot", f"rmmod {NAME}")) == []
        (problem,) = after(clone, remains, f"insmod {FILE} what=reboot take=0", f"rmmod {NAME}")
        assert "reboot_notifier_list still holds planted_block" in problem.title
    finally:
        clone.close()


@pytest.mark.parametrize(
    "kind",
    ["nothing", "reboot", "panic", "die", "netdevice", "inet", "netfilter", "timer", "hrtimer",
     "work", "kprobe", "proc", "debugfs", "cdev", "genl", "binfmt", "input", "kthread", "object",
     "shrinker", "misc", "filesystem", "region", "crypto", "sysctl", "tracepoint", "open",
     "callback", "done", "srcu", "ticks"],
)  # fmt: skip
def test_what_is_taken_away_in_time_is_green(victim: Clone, remains: Module, kind: str) -> None:
    """The same, and what is freed after a grace period, and work that was done."""
    assert list(after(victim, remains, f"insmod {FILE} what={kind}", f"rmmod {NAME}")) == []


OPENS = "sleep 1000 </dev/planted_open >/dev/null 2>&1 &"


def test_a_file_that_is_open_when_its_module_goes_is_named(victim: Clone, remains: Module) -> None:
    """Nothing kept the module from going: its operations name no owner."""
    problems = after(victim, remains, f"insmod {FILE} what=open; {OPENS}", f"rmmod {NAME}")
    assert {problem.verdict for problem in problems} == {Verdict.RESIDUE}
    titles = [problem.title for problem in problems]
    assert any("still holds without_owner: an open file was not" in title for title in titles), (
        titles
    )


def test_a_file_that_was_closed_in_time_is_green(victim: Clone, remains: Module) -> None:
    """By the end of the process that had it."""
    opened = f"insmod {FILE} what=open; {OPENS} kill $!; wait"
    assert list(after(victim, remains, opened, f"rmmod {NAME}")) == []


@pytest.mark.parametrize(
    ("kind", "file"), [("proc", "/proc/net/planted_remains"),
                       ("sysctl", "/proc/sys/kernel/planted_value")],
)  # fmt: skip
def test_a_file_of_proc_that_is_open_when_its_module_goes_is_green(
    victim: Clone, remains: Module, kind: str, file: str
) -> None:
    """The kernel keeps what it has of it, and does not follow that: reading it fails.

    Where the module forgets to take it away, it is red as ever.
    """
    opened = f"insmod {FILE} what={kind}; sleep 1000 <{file} >/dev/null 2>&1 &"
    assert list(after(victim, remains, opened, f"sleep 0.2; rmmod {NAME}")) == []
    forgotten = f"insmod {FILE} what={kind} take=0; sleep 1000 <{file} >/dev/null 2>&1 &"
    problems = after(victim, remains, forgotten, f"sleep 0.2; rmmod {NAME}")
    assert {problem.verdict for problem in problems} == {Verdict.RESIDUE}


def test_a_probe_that_tracing_has_in_a_module_is_green(victim: Clone, remains: Module) -> None:
    """Who tests has put it there; the kernel keeps it, in case the module comes again."""
    trace = "cd /sys/kernel/tracing; echo"
    probes = f"{trace} 'p:of_test {NAME}:shown' >>kprobe_events; echo 1 >events/kprobes/enable"
    again = f"{trace} 'r:at_its_end {NAME}:shown' >>kprobe_events"
    use = "cat /proc/1/net/planted_remains"
    life = [f"insmod {FILE} what=proc", probes, again, use, f"rmmod {NAME}"]
    assert list(after(victim, remains, *life)) == []
    assert victim.guest.check(f"grep -c {NAME} /sys/kernel/tracing/kprobe_events") == "2\n"


def test_calls_that_tracing_has_written_down_are_green(victim: Clone, remains: Module) -> None:
    """Nobody follows their addresses, neither in the ring of pages nor in the one that was read."""
    mine = "mkdir -p /sys/kernel/tracing/instances/mine && cd /sys/kernel/tracing/instances/mine"
    trace = f"{mine} && echo shown >set_ftrace_filter && echo function >current_tracer"
    use = "for n in $(seq 200); do read x </proc/1/net/planted_remains; done; true"
    read = f"{mine} && timeout 1 cat trace_pipe | grep -m 100 shown >/dev/null; {use}"
    end = f"{mine} && echo nop >current_tracer && echo >set_ftrace_filter"
    life = [f"insmod {FILE} what=proc", trace, use, read, end]
    assert list(after(victim, remains, *life)) == []
    assert list(after(victim, remains, f"rmmod {NAME}")) == []


def test_thirty_lives_leave_nothing(victim: Clone, remains: Module) -> None:
    """Neither does the loader, however often; the last life is followed by another module's."""
    lives = f"for life in $(seq 30); do insmod {FILE} what=done && rmmod {NAME} || exit 1; done"
    again = f"insmod {FILE} what=proc"
    assert list(after(victim, remains, lives, again)) == []
    assert list(after(victim, remains, f"rmmod {NAME}")) == []


def test_what_a_loaded_module_s_init_has_asked_for_is_its_own(
    victim: Clone, remains: Module
) -> None:
    """Its init is gone by then, and the kernel has the address of who has asked for an area."""
    assert list(after(victim, remains, f"insmod {FILE} what=area", *["true"] * 5)) == []
    assert list(after(victim, remains, f"rmmod {NAME}")) == []
