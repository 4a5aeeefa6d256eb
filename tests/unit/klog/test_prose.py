# SPDX-License-Identifier: GPL-2.0-only
"""Sentences that speak of reports, and reports that look like sentences.

The functions named brook do not exist.
"""

from __future__ import annotations

import pytest

from harness import klog


@pytest.mark.parametrize(
    "text",
    [
        "Since Monday it dies with Kernel panic - not syncing: Fatal exception and I reboot.",
        "When I start the board I get a\n"
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"
        "and the lamp goes out.",
        "The log then has BUG: unable to handle kernel NULL pointer dereference at 00000018",
        "brook: fix BUG: unable to handle kernel paging request in brook_drain\n\nWake it up.",
        "The reader is woken up which caused\n"
        "BUG: unable to handle kernel NULL pointer dereference at (null)\n"
        "if the device was gone.",
        "If it is set, the kernel panics when a BUG: soft lockup - CPU#0 stuck for 22s! is found.",
        "You see unregister_netdevice: waiting for lo to become free. Usage count = 1 in the log.",
        "We met general protection fault: 0000 [#1] SMP and kernel BUG at brook.c:12! yesterday.",
        "INFO: task brook:12 blocked for more than 120 seconds is what the watchdog says then.",
        "> Is it still INFO: rcu_sched self-detected stall on CPU?\nNo, that is gone.",
        "NETDEV WATCHDOG: eth1 (brook): transmit queue 0 timed out\uff0c\u5177\u4f53\u539f\u56e0",
        "it shows Out of memory: Killed process 1234 (sh) because the limit is low",
    ],
)
def test_a_sentence_about_a_report_is_none(text: str) -> None:
    assert not klog.read(text, pasted=True)
    assert not klog.read(f"{text}\n\nThe whole log:\n\nbrook: starting\n", pasted=True)


@pytest.mark.parametrize(
    "line",
    [
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        "Kernel panic - not syncing: System is deadlocked on memory",
        "Kernel panic - not syncing: No working init found.  Try passing init= option to kernel."
        " See Linux Documentation/admin-guide/init.rst for guidance.",
        "unregister_netdevice: waiting for eth0 to become free. Usage count = 1",
        "NMI watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [brook:12]",
        "Out of memory: Killed process 1234 (sh) total-vm:123kB, anon-rss:12kB",
        "brook 0000:01:00.0 eth0: NETDEV WATCHDOG: CPU: 1: transmit queue 0 timed out 5000 ms",
        "---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on sda1 ]---",
    ],
)
def test_a_report_of_one_line_in_a_mail(line: str) -> None:
    """No stamp tells it from a sentence, but it stands alone, or below one that ends."""
    for above in ("", "Hello,\n\n", "I tried it and this is what the board says:\n", "It died.\n"):
        assert len(klog.read(f"{above}{line}\n\nCan you help me?\n", pasted=True)) == 1


def test_a_report_may_begin_within_a_sentence() -> None:
    """What a kernel prints below its first line is in no sentence."""
    text = (
        "and then it says BUG: unable to handle kernel NULL pointer dereference at 00000018\n"
        "IP: [<ffffffffa012a11c>] brook_drain+0x1c/0x90 [brook]\n"
        "Oops: 0000 [#1] SMP\n"
    )
    (event,) = klog.read(text, pasted=True)
    assert (event.function, event.module) == ("brook_drain", "brook")


def test_what_the_kernel_says_next_is_no_sentence() -> None:
    """Of one name it has two lines to say, and the second sounds like somebody's."""
    text = (
        "sysfs: cannot create duplicate filename '/class/brook'\n"
        "kobject_add_internal failed for brook with -EEXIST, don't try to register things with the"
        " same name in the same directory.\n"
    )
    for above in ("", "When I insert the module, it tells me:\n\n"):
        event = klog.first(above + text)
        assert event is not None
        assert event.kind is klog.Kind.KOBJECT


def test_a_panic_s_last_line_says_what_its_first_did() -> None:
    first = "Kernel panic - not syncing: No init found"
    (event,) = klog.read(f"[<c0012345>] kernel_init+0x1e/0x112\n---[ end {first} ]---", pasted=True)
    (whole,) = klog.read(f"{first}\n---[ end {first} ]---", pasted=True)
    assert (event.kind, event.title) == (whole.kind, whole.title)
