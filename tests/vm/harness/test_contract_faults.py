# SPDX-License-Identifier: GPL-2.0-only
"""The contract names each fault that solutions of the exercise have, and nothing that is none.

The modules are those of planted_exercise/, which are built together once. Each is run in a pytest
of its own, with the one test that is to name its fault.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from harness.build.source import Source
from harness.runs import cards
from harness.testing import Lab

from .test_runs import SECONDS, Run, run

HERE = Path(__file__).parent
EXERCISE = HERE / "planted_exercise"
CONTRACT = HERE.parent / "contract"
# They start runs of pytest, which take longer than one test may.
pytestmark = pytest.mark.timeout(SECONDS)

NODE = "test_contract.py::test_node_is_a_write_only_misc_device"
THREAD = "test_contract.py::test_exactly_one_kernel_thread"
WAITS = "test_contract.py::test_thread_waits_until_there_is_something_to_do"
WAITS_AFTER = "test_contract.py::test_thread_waits_after_writes"
NO_THREAD = "test_init.py::test_without_a_thread"
NO_DEVICE = "test_init.py::test_without_a_device"
REMOVED = "test_unload.py::test_rmmod_removes_everything_at_once"
WAITED_FOR = "test_unload.py::test_rmmod_waits_for_the_thread"
RETURNS = "test_write.py::test_returns_what_a_loop_can_use"
LOG = "test_write.py::test_log_shows_only_what_was_written"

# The module, the test of the contract that names its fault, and words of its explanation in the
# order in which they stand there.
FAULTS = [
    ("mode", NODE, ["its mode is 0666, and should be 0222"]),
    ("owner", NODE, ["its owner is daemon:root, and should be root:root"]),
    ("type", NODE, ["its major number is", "a misc device's"]),
    ("node_name", NODE, ["there is no /dev/eudyptula", "eudyptule"]),
    ("no_owner", "test_unload.py::test_cannot_be_removed_while_it_is_open",
     ["should be refused with -EAGAIN", ".owner = THIS_MODULE"]),
    ("keep_device", NO_THREAD, ["no thread can be made", "left behind /dev/eudyptula"]),
    ("error_pointer", NO_THREAD, ["insmod succeeds all the same", "IS_ERR()"]),
    ("error_pointer_used", NO_THREAD, ["unable to handle", "in exercise_init at exercise.h:"]),
    ("keep_thread", NO_DEVICE, ["its name is taken", "left behind the thread eudyptula"]),
    ("ignore_device", NO_DEVICE, ["insmod succeeds all the same", "misc_register() returned"]),
    ("thread_name", THREAD, ["no kernel thread named eudyptula", "but one named another"]),
    ("two_threads", THREAD, ["there are 2 kernel threads named eudyptula"]),
    ("ends_at_once", THREAD, ["there is no kernel thread named eudyptula"]),
    ("ends_after_write", WAITS_AFTER, ["after a write, the thread eudyptula has ended"]),
    ("ends_later", WAITS, ["600 s later, the thread eudyptula has ended"]),
    ("never_started", WAITS, ["was created and never started", "wake_up_process()"]),
    ("uninterruptible", WAITS, ["is in state D: it waits uninterruptibly, which counts as load"]),
    ("polls", WAITS, ["wakes up", "times a second", "it polls instead of waiting"]),
    ("spins", WAITS, ["eudyptula", "uses a CPU without a pause, in work at exercise.h:"]),
    ("signals", "test_contract.py::test_thread_is_not_disturbed_by_signals",
     ["after signals to it", "it spins or polls"]),
    ("slow", f"{REMOVED}[idle]", ["idle, rmmod took 3", "no more than 1 s"]),
    ("slow_after_write", f"{REMOVED}[after a write]", ["after a write, rmmod took 3"]),
    ("slow_message", f"{REMOVED}[after a write]", ["after a write, rmmod took 2"]),
    ("stays", f"{REMOVED}[idle]", ["idle, rmmod does not come back"]),
    ("stays_after_write", f"{REMOVED}[after a write]", ["after a write, rmmod does not come back"]),
    ("interrupted", f"{REMOVED}[with signals to rmmod]", ["unable to handle", "kthread"]),
    ("node_stays", f"{REMOVED}[idle]", ["/dev/eudyptula"]),
    ("thread_stays", f"{REMOVED}[idle]", ["the thread eudyptula"]),
    ("early", WAITED_FOR,
     ["work is not there any more after rmmod", "kthread_stop() was not called"]),
    ("timer_stays", f"{REMOVED}[idle]", ["residue: ", "timer"]),
    ("overflow", RETURNS, ["usercopy"]),
    ("off_by_one", LOG, ["BUG kmalloc-8", "Redzone"]),
    ("over_read", LOG, ["memory that nobody has written (uninitialised)"]),
    ("stale", LOG, ["what an earlier write has left behind the text"]),
    ("uninitialised", LOG, ["memory that nobody has written (uninitialised)"]),
    ("freed", LOG, ["memory that was freed, printed at exercise.h:", "so late: "]),
    ("user_pointer", RETURNS, ["unable to handle", "in exercise_write at exercise.h:"]),
    ("returns_zero", RETURNS, ["returns 0 for ever"]),
    ("returns_more", RETURNS, ["more than the", "bytes that it was given"]),
    ("returns_errno", RETURNS, ["returns 22, more than the", "an error has to be negative"]),
    ("zero_at_last", RETURNS, ["returns 0 for ever"]),
    ("second_write", RETURNS, ["usercopy"]),
    ("position", "test_write.py::test_position_is_not_trusted",
     ["general protection fault in exercise_write at exercise.h:"]),
    ("trusts_count", "test_write.py::test_position_is_not_trusted",
     ["unable to handle", "in exercise_write at exercise.h:"]),
    ("races", "test_write.py::test_writers_at_the_same_time", ["Object already free"]),
    ("keeps_lock", "test_write.py::test_address_is_not_trusted",
     ["task hung in exercise_write at exercise.h:"]),
    ("sleeps_locked", RETURNS, ["scheduling while atomic"]),
    ("leaks", "test_write.py::test_costs_no_memory", ["memory is lost", "nobody has freed"]),
    ("queues", "test_write.py::test_costs_no_memory",
     ["memory grows without a bound", "which only rmmod frees"]),
    ("proprietary", "test_contract.py::test_licence_is_free",
     ['calls a module with MODULE_LICENSE("Proprietary") proprietary']),
]  # fmt: skip


def contract(lab: Lab, folder: Path, name: str, *tests: str) -> Run:
    """Tests of the contract on one of the modules, of which no frozen machine stays in the cache.

    Each has some 110 MB, and what takes its place there another run would have to make again.
    """
    module = lab.build(Source(EXERCISE, only=(name,)))
    try:
        return run(lab, folder, EXERCISE, f"--ko={name}", *tests)
    finally:
        cards.forget_machines(module.digest)


# The longest test comes first. Otherwise one job would run it at the end while others idle.
def test_the_contract_is_green_for_another_solution(lab: Lab, tmp_path: Path) -> None:
    """One without a fault that does all that the exercise leaves open in another way than module/.

    It has another name for the device than for its node, its wait queue in a structure, stops the
    thread before it removes the device, and answers every text with EINVAL.
    """
    found = contract(lab, tmp_path, "different", str(CONTRACT))
    assert (found.failed, found.errors) == ({}, {})
    assert len(found.passed) > 20


def test_who_prints_what_he_does_is_right(lab: Lab, tmp_path: Path) -> None:
    """At every write, with two processors at work, nothing of the log is lost; nor is any level of
    what a module itself prints a warning of the kernel's.
    """
    tests = [
        f"{CONTRACT}/test_contract.py::test_loads_without_a_warning",
        f"{CONTRACT}/test_write.py::test_writers_at_the_same_time",
    ]
    found = contract(lab, tmp_path, "talks", *tests)
    assert (found.failed, found.errors) == ({}, {})
    assert len(found.passed) == len(tests)


def test_a_thread_may_end_by_a_completion(lab: Lab, tmp_path: Path) -> None:
    """It ends in a function of the kernel's that does not come back to the module."""
    found = contract(lab, tmp_path, "completes", f"{CONTRACT}/{WAITED_FOR}")
    assert (found.failed, found.errors) == ({}, {})
    assert len(found.passed) == 1


@pytest.mark.parametrize(
    ("name", "test", "words"),
    FAULTS,
    ids=[f"{one[0]}-{one[1].partition('::')[2]}" for one in FAULTS],
)
def test_the_contract_names(
    lab: Lab, tmp_path: Path, name: str, test: str, words: list[str]
) -> None:
    """The test that is for the fault is red, and says what is wrong."""
    found = contract(lab, tmp_path, name, f"{CONTRACT}/{test}")
    said = "\n".join([*found.failed.values(), *found.errors.values()])
    assert said, f"{test} is green for {name}"
    assert re.search(".*".join(re.escape(each) for each in words), said, re.DOTALL), said


def test_a_thread_may_take_its_time_for_each_message(lab: Lab, tmp_path: Path) -> None:
    """It wakes up while there are some, which is no polling. The next exercise asks for that."""
    found = contract(lab, tmp_path, "queues", f"{CONTRACT}/{WAITS_AFTER}")
    assert (found.failed, found.errors) == ({}, {})


def test_a_licence_makes_one_test_red(lab: Lab, tmp_path: Path) -> None:
    """Each module that the kernel calls proprietary taints it. The others judge the rest."""
    tests = (f"{CONTRACT}/test_contract.py::test_loads_without_a_warning", f"{CONTRACT}/{NODE}",
             f"{CONTRACT}/{THREAD}", f"{CONTRACT}/{RETURNS}")  # fmt: skip
    found = contract(lab, tmp_path, "proprietary", *tests)
    assert (found.failed, found.errors) == ({}, {})


def test_a_licence_is_asked_for(lab: Lab, tmp_path: Path) -> None:
    """Without one it does not even build, and modpost's words are shown."""
    folder = tmp_path / "bare"
    shutil.copytree(EXERCISE, folder)
    (folder / "Kbuild").write_text("obj-m := bare.o\n")
    text = (folder / "exercise.h").read_text()
    (folder / "bare.c").write_text(re.sub(r"#ifdef exercise_proprietary.*", "", text, flags=re.S))
    found = run(lab, tmp_path, folder, f"{CONTRACT}/test_contract.py::test_licence_is_free")
    assert "missing MODULE_LICENSE()" in found.errors["test_licence_is_free"]
