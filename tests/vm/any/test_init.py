# SPDX-License-Identifier: GPL-2.0-only
"""Loading any module where something that it asks the kernel for is not to be had.

It may fail, or do without. Either way nothing breaks, and it works once it gets what it wants.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.testing import Clone, Module

from ..calls import Group, named, perform
from .conftest import Subject

THREADS_MAX = "/proc/sys/kernel/threads-max"


def refused_or_not(subject: Subject, done: Group, why: str) -> None:
    """After an attempt to load it: it is unloaded if it was loaded, and can be loaded again."""
    __tracebackhide__ = True
    assert done.how == "ended", f"{why}, and insmod {done.told}"
    subject.unload()
    (again,) = perform(subject.guest, [f"{subject.loading} ; {subject.unloading}"], limit=60)
    assert again.how == "ended", f"after that {why}: {again.told}"
    loads = again.answers[: len(subject.loading.split(" ; "))]
    assert set(loads) == {"0"}, f"after that {why}, insmod answers {named(again.answers[0])}"


def test_without_a_thread(subject: Subject) -> None:
    """Where no thread can be made, and so no work queue of its own."""
    subject.load()
    if not subject.unload():
        pytest.skip("the kernel does not unload it: it has no exit function, or is in use")
    usual = subject.guest.check(f"cat {THREADS_MAX}").strip()
    # Nobody can fork meanwhile, which is why one process does it all: 20 is the smallest value.
    (done,) = perform(
        subject.guest,
        [f"open {THREADS_MAX} w ; echo 20 ; {subject.loading} ; open {THREADS_MAX} w ; "
         f"echo {usual} ; close"],
    )  # fmt: skip
    subject.guest.run(f"echo {usual} >{THREADS_MAX}")
    refused_or_not(subject, done, "no thread could be made")


def test_when_its_names_are_taken(
    subject: Subject, machine: Clone, taken: Module, name_is_taken: Callable[[int], None]
) -> None:
    """Each name and number that it registers belongs to somebody else, one after the other."""
    brought = subject.brings()
    if not subject.unload():
        pytest.skip("the kernel does not unload it: it has no exit function, or is in use")
    wanted = [f"misc={name}" for name in brought.misc]
    wanted += [f"class={name}" for name in brought.classes]
    wanted += [f"major={number}" for number in brought.majors]
    wanted += [f"proc={name}" for name in brought.proc]
    wanted += [f"debug={name}" for name in brought.debug]
    wanted += [f"sysfs={name}" for name in brought.kernel]
    if not wanted:
        pytest.skip("it registers no name that another module could have")
    guest = subject.guest
    guest.put(taken.loadable, "/root/taken.ko")
    for each in wanted:
        if not guest.run(f"insmod /root/taken.ko '{each}'").ok:
            continue
        start = len(machine.machine.console_text())
        (done,) = perform(guest, [subject.loading])
        (gone,) = perform(guest, [subject.unloading], limit=60)
        kind, _, name = each.partition("=")
        kept = kind != "proc" or guest.run(f"test -e /proc/{name}").ok
        guest.check("rmmod taken")
        name_is_taken(start)
        assert gone.how == "ended", f"with {each} taken before it: {gone.told}"
        assert kept, (
            f"/proc/{name} was taken before it, and it has removed what is not its own: what "
            "proc_create() returned has to be looked at"
        )
        refused_or_not(subject, done, f"{each} was taken")
