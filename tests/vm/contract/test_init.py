# SPDX-License-Identifier: GPL-2.0-only
"""Loading a solution of the exercise where one of the two things that it needs is not to be had."""

from __future__ import annotations

from harness.testing import ExpectSplat, Guest, Module

from ..calls import Group, named, perform
from .conftest import left_behind, misc_name, path_of

THREADS_MAX = "/proc/sys/kernel/threads-max"


def refused(insmod: Group, guest: Guest, module: Module, why: str, hint: str) -> None:
    """insmod has failed by an error of its own, and nothing is left of the module."""
    assert insmod.how == "ended", f"{why}: insmod {insmod.told}"
    assert insmod.last < 0, f"{why}, and insmod succeeds all the same: {hint}"
    left = left_behind(guest, module)
    assert left == [], (
        f"{why}: insmod fails with {named(insmod.answers[-1])}, and left behind {', '.join(left)}"
    )


def works(guest: Guest, module: Module) -> None:
    """After what has failed, the module can be loaded and unloaded."""
    (life,) = perform(guest, [f"insmod {path_of(module)} ; rmmod {module.name}"])
    assert life.answers == ("0", "0"), f"loading it once more: {life.told}"
    assert left_behind(guest, module) == []


def test_without_a_thread(guest: Guest, module: Module) -> None:
    """Where no kernel thread can be made, loading fails, and no device is left."""
    guest.put(module.loadable, path_of(module))
    usual = guest.check(f"cat {THREADS_MAX}").strip()
    # Nobody can fork meanwhile, which is why one process does it all: 20 is the smallest value.
    attempt = (
        f"open {THREADS_MAX} w ; echo 20 ; insmod {path_of(module)} ; "
        f"open {THREADS_MAX} w ; echo {usual} ; exists /dev"
    )
    (said,) = perform(guest, [attempt])
    why = "no thread can be made"
    guest.run(f"echo {usual} >{THREADS_MAX}")
    answers = said.answers[2:3]
    insmod = Group("insmod", said.how if len(answers) == 0 else "ended", 0.0, answers, said.stack)
    refused(insmod, guest, module, why, "kthread_run() returns an ERR_PTR then, never NULL, and "
            "nobody has looked at it with IS_ERR()")  # fmt: skip
    works(guest, module)


def test_without_a_device(
    guest: Guest, module: Module, taken: Module, expect_splat: ExpectSplat
) -> None:
    """Where misc_register() fails, as the device's name is taken, loading fails, too.

    No thread is left then.
    """
    guest.put(module.loadable, path_of(module))
    guest.put(taken.loadable, "/root/taken.ko")
    guest.check(f"insmod {path_of(module)}")
    name = misc_name(guest)
    guest.check(f"rmmod {module.name} && insmod /root/taken.ko misc={name}")
    # The kernel itself says with a stack that two devices ask for one name.
    with expect_splat("kobject"):
        (insmod,) = perform(guest, [f"insmod {path_of(module)}"])
    guest.check("rmmod taken")
    refused(insmod, guest, module, "no device can be made, since its name is taken",
            "what misc_register() returned was not looked at")  # fmt: skip
    works(guest, module)
