# SPDX-License-Identifier: GPL-2.0-only
"""What any module with this specification must do, whoever wrote it.

The specification: a misc device /dev/eudyptula that anyone may write to and nobody may
read, a kernel thread that ps shows as [eudyptula] and that sleeps on a wait queue, and
nothing left of either after rmmod. The tests see that the thread sleeps. They do not ask which
wait queue it sleeps on, because a module may keep that private, or what it does with a message,
because the specification does not say.
"""

from __future__ import annotations

import re
import time

from harness.testing import Guest, Module

from .conftest import NAME, NODE, Threads

_RMMOD_SECONDS = 10.0  # rmmod should take one second; a slow guest needs more

# The longest test comes first. Otherwise one job would run it at the end while others idle.
#
# It uses the system calls behind insmod and rmmod (asm/unistd_64.h: finit_module 313,
# delete_module 176). Starting these two programs fifty times would take far longer.
_FIFTY_ROUNDS = r"""
my ($name, $none) = ('waitqueues', '');
for my $round (1 .. 50) {
    open(my $ko, '<', '/root/waitqueues.ko') or die "open: $!";
    syscall(313, fileno($ko), $none, 0) == 0 or die "round $round: finit_module: $!";
    open(my $node, '>', '/dev/eudyptula') or die "round $round: open: $!";
    syswrite($node, "round $round") or die "round $round: write: $!";
    close($node);
    syscall(176, $name, 0) == 0 or die "round $round: delete_module: $!";
    -e '/dev/eudyptula' and die "round $round: the node is still there";
}
print 'done';
"""


def test_load_and_unload_fifty_times(guest: Guest, module: Module) -> None:
    """Fifty rounds in a row work, each with a write, and leave nothing behind."""
    guest.put(module.loadable, "/root/waitqueues.ko")
    tasks = int(guest.check("ps -e --no-headers | wc -l"))
    assert guest.check("perl -", stdin=_FIFTY_ROUNDS.encode(), timeout=120) == "done"
    # The kernel's own workers come and go; fifty leaked threads would not.
    assert int(guest.check("ps -e --no-headers | wc -l")) - tasks < 10
    assert guest.run(f"pgrep -x {NAME}").stdout == ""


def test_module_is_named_as_specified(module: Module) -> None:
    """The build makes waitqueues.ko, so that `rmmod waitqueues` means this module."""
    assert module.ko.name == "waitqueues.ko"


def test_loads_without_a_warning(guest: Guest, module: Module) -> None:
    """insmod succeeds and prints nothing; the kernel warns of nothing but the module's origin."""
    before = len(guest.dmesg().splitlines())
    guest.put(module.loadable, "/root/waitqueues.ko")
    result = guest.run("insmod /root/waitqueues.ko")
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
    assert "waitqueues" in guest.check("lsmod")
    # Up to level 4 (KERN_WARNING). Every module from outside the tree gets these two lines.
    fresh = guest.check("dmesg --level=emerg,alert,crit,err,warn").splitlines()
    log = guest.dmesg().splitlines()[before:]
    origin = ("out-of-tree module taints kernel", "module verification failed")
    complaints = [
        line for line in log if line in fresh and not any(known in line for known in origin)
    ]
    assert complaints == []


def test_node_is_a_write_only_misc_device(loaded: Guest) -> None:
    """`ls -l` shows c-w--w--w- root root 10, N: char device, misc major, mode 0222."""
    kind, mode, owner, group, major = (
        loaded.check(f"stat -c '%F,%a,%U,%G,%t' {NODE}").strip().split(",")
    )
    assert kind == "character special file"
    assert mode == "222"
    assert (owner, group) == ("root", "root")
    assert int(major, 16) == 10  # MISC_MAJOR, include/uapi/linux/major.h
    listed = loaded.check(f"ls -l {NODE}")
    assert re.match(r"c-w--w--w- 1 root root 10, *\d+ .* /dev/eudyptula\n$", listed), listed


def test_node_is_registered_with_the_misc_class(loaded: Guest) -> None:
    """/proc/misc and /sys/class/misc agree with the node about the minor number."""
    minor = int(loaded.check(f"stat -c %T {NODE}"), 16)
    assert f"{minor} {NAME}" in [
        line.strip() for line in loaded.check("cat /proc/misc").splitlines()
    ]
    assert loaded.check(f"cat /sys/class/misc/{NAME}/dev").strip() == f"10:{minor}"


def test_an_unprivileged_user_can_write_and_cannot_read(loaded: Guest) -> None:
    """Mode 0222 holds for everybody: writing works for nobody, reading does not."""
    written = loaded.run(f"echo hello >{NODE}", user="nobody")
    assert written.ok, written.stderr
    refused = loaded.run(f"cat {NODE}", user="nobody")
    assert refused.status != 0
    assert "Permission denied" in refused.stderr


def test_exactly_one_kernel_thread(threads: Threads, loaded: Guest) -> None:
    """One thread named eudyptula, child of kthreadd (2), shown as [eudyptula] by ps -ef."""
    task = threads.only()
    assert task.parent == 2
    rows = [line.split() for line in loaded.check("ps -ef").splitlines()]
    shown = [row for row in rows if row[-1] == f"[{NAME}]"]
    assert [(row[0], int(row[1]), int(row[2])) for row in shown] == [("root", task.pid, 2)]


def test_thread_sleeps_interruptibly_and_costs_nothing(threads: Threads) -> None:
    """While idle the thread is in state S, uses no CPU and is not scheduled at all."""
    first = threads.only()
    # The guest runs on for a second in which nobody uses the device.
    time.sleep(1.0)
    second = threads.task(first.pid)
    assert (first.state, second.state) == ("S", "S")
    assert second.ticks == first.ticks
    assert (second.voluntary, second.forced) == (first.voluntary, first.forced)


def test_thread_survives_writes(threads: Threads, loaded: Guest) -> None:
    """The same thread is there and asleep again after messages from several writers."""
    before = threads.only()
    loaded.check(f"for i in 1 2 3 4 5; do echo message $i >{NODE}; done; echo six >{NODE}")
    after = threads.only()
    assert after.pid == before.pid
    assert after.state == "S"


def test_cannot_be_removed_while_it_is_open(loaded: Guest) -> None:
    """rmmod is refused and changes nothing while a process has the device open; then it works.

    Otherwise the process would keep a file whose functions do not exist any more.
    """
    said = loaded.check(f"exec 3>{NODE}; rmmod waitqueues; echo $?; echo still there >&3; echo $?")
    assert said.split() == ["1", "0"]
    loaded.check("rmmod waitqueues.ko", timeout=_RMMOD_SECONDS)  # either spelling


def test_rmmod_removes_everything_at_once(threads: Threads, loaded: Guest) -> None:
    """rmmod returns within a second; node, thread and sysfs entries are gone with it."""
    threads.only()
    loaded.check(f"echo last words >{NODE}")
    limit = loaded.patience(1.0)
    # The guest's own clock, so that the time for the SSH command does not count.
    took = loaded.check(
        "read a _ </proc/uptime; rmmod waitqueues || exit 1; read b _ </proc/uptime; echo $a $b",
        timeout=_RMMOD_SECONDS,
    ).split()
    # That clock also runs while the host keeps the guest waiting, which is no fault of rmmod's.
    assert float(took[1]) - float(took[0]) <= limit.seconds or not limit.expired
    left = f"ls -d {NODE} /sys/class/misc/{NAME} /sys/module/waitqueues 2>/dev/null"
    assert loaded.run(left).stdout == ""
    assert threads.pids() == []
    assert NAME not in loaded.check("cat /proc/misc")
    assert "waitqueues" not in loaded.check("lsmod")
