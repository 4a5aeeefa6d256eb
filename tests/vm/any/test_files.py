# SPDX-License-Identifier: GPL-2.0-only
"""The device nodes, attributes and parameters of any module: each call, with odd arguments.

An error is an answer, and a call that waits may wait. It must come back when it is killed.
"""

from __future__ import annotations

import shlex

import pytest

from ..calls import Group, perform
from .conftest import Brought, Subject, faults

SIZES = (0, 1, 4096, 1 << 20)
# A driver's own buffer has room for so many bytes or a few less, where it refuses what is longer:
# each is tried afresh, as it may take only one until somebody reads it.
ODD_SIZES = (7, 24, 64, 255)
OFFSETS = (1, 4097, 1 << 32, (1 << 63) - 4097)
PLACES = ("null", "torn", "kernel", "end")
# _IO(0, 0), TCGETS, FIONREAD, _IOR('~', 255, 16 KiB), _IOW of the same, all bits.
IOCTLS = (0, 0x5401, 0x541B, 0xBFFF7EFF, 0x7FFF7EFF, 0xFFFFFFFF)
WAIT = 2.0  # seconds of the guest's, after which a call that waits is killed


def _opened(path: str) -> list[str]:
    """Each way to open a node that works for some: what is wrong with a way is its answer."""
    return [f"open {path} {flags}" for flags in ("r nonblock", "w nonblock", "rw")]


def every_call(path: str) -> list[str]:
    """Groups of calls on one node, each of which opens it afresh."""
    groups = []
    for opened in _opened(path):
        groups += [
            f"{opened} ; close",
            " ; ".join([opened, *(f"write {size}:a ; write {size}:b" for size in SIZES)]),
            " ; ".join([opened, *(f"read {size}" for size in (*SIZES, *ODD_SIZES))]),
            " ; ".join([opened, *(f"pwrite 10:a {at} ; pread 10 {at}" for at in OFFSETS)]),
            " ; ".join(
                [opened, *(f"pwrite 65536:a {at} ; pread 65536 {at}" for at in (4096, 32768))]
            ),
            " ; ".join([opened, *(f"write 100@{place}" for place in PLACES), "write 10:a"]),
            " ; ".join([opened, *(f"read 100@{place}" for place in PLACES), "read 10"]),
            f"{opened} ; poll 0 ; poll 100",
            f"{opened} ; lseek 0 2 ; lseek -1 0 ; lseek 4096 0 ; lseek {1 << 62} 1 ; write 1:a",
            f"{opened} ; mmap 4096 1 1 0 ; mmap 4096 3 2 0 ; mmap 1048576 3 1 0 ; "
            f"mmap 4096 1 1 {1 << 40}",
            " ; ".join(
                [opened, *(f"ioctl {number} {word}" for number in IOCTLS
                           for word in (0, 1, "100@null", "100@torn", "4096@kernel", "100"))]
            ),
            # Closed twice over: what a process leaves open its end closes.
            f"{opened} ; write 10:a ; read 10",
        ]  # fmt: skip
        if opened.endswith("w nonblock"):
            groups += [f"{opened} ; write {size}:a" for size in ODD_SIZES]
    return [*groups, kept(path)]


def kept(path: str) -> str:
    """Calls that write much, and ask for little of what the driver may have kept of it."""
    return (
        f"open {path} w nonblock ; write 4096:a ; close ; "
        f"open {path} r nonblock ; read 1 ; read 65536 ; read 1"
    )


def _nodes(subject: Subject) -> Brought:
    __tracebackhide__ = True
    brought = subject.brings()
    subject.known.want_nodes()
    return brought


def _check(subject: Subject, groups: list[str], *, limit: float = WAIT) -> None:
    __tracebackhide__ = True
    _judge(perform(subject.guest, groups, limit=limit, timeout=240))


def _judge(groups: list[Group], *more: str) -> None:
    """Fail the test for what is wrong with the groups, and for the sentences in ``more``."""
    __tracebackhide__ = True
    wrong = [*more, *faults(groups)]
    assert not wrong, "\n".join(wrong)


def _broken(groups: list[Group]) -> bool:
    """Whether a call did not come back: the process was killed in it, or cannot be."""
    return any(group.how == "stuck" or group.how.startswith("signal") for group in groups)


NOT_KEPT = (
    "rmmod answers 0 while a node is open, and what is open does not work any more: "
    ".owner = THIS_MODULE of the file_operations keeps the module there"
)


@pytest.mark.machine(clock="ahead")
@pytest.mark.usefixtures("with_nodes")
def test_nodes_take_every_call(subject: Subject) -> None:
    """Each system call on each node, with sizes, offsets and addresses that are odd."""
    for node in _nodes(subject).nodes[:8]:
        _check(subject, every_call(node))
    subject.unload()


@pytest.mark.machine(cpus=2)
def test_nodes_take_two_users_at_once(subject: Subject) -> None:
    """Two processes, on a processor each, use a node in every way at the same time.

    No other test loads it where there are two processors, so that this one does also where there
    is no node.
    """
    if subject.known.brought and not subject.known.brought.nodes:
        subject.load()
        subject.known.want_nodes()
    for node in _nodes(subject).nodes[:4]:
        work = " ; ".join(
            f"open {node} {flags} nonblock ; writes 200 100:a ; write 1:a ; read 100 ; poll 0 ; "
            "ioctl 0 0 ; close"
            for flags in ("rw", "w", "r")
        )
        _check(subject, [f"& pin {cpu} ; {work} ; {work}" for cpu in (0, 1)], limit=20)
    subject.unload()


@pytest.mark.machine(clock="ahead")
@pytest.mark.usefixtures("with_nodes")
def test_nodes_take_an_unprivileged_user(subject: Subject) -> None:
    """Somebody without any privilege does what the node's mode lets him."""
    brought = _nodes(subject)
    nodes = [node for node in brought.nodes[:8] if node not in brought.made]
    if not nodes:
        pytest.skip("it makes no device node itself, so that there is no mode to try")
    for node in nodes:
        groups = every_call(node)
        _check(subject, [f"nobody ; {group}" for group in groups[1:7] + groups[-3:]])
    subject.unload()


@pytest.mark.machine(clock="ahead")
@pytest.mark.usefixtures("with_nodes")
def test_is_not_unloaded_under_an_open_node(subject: Subject) -> None:
    """rmmod is refused while a node is open; or else what is open still works."""
    nodes = _nodes(subject).nodes[:4]
    for node in nodes:
        groups = [
            f"{opened} ; {subject.unloading} ; sleep 0.2 ; write 10:a ; read 10 ; poll 0"
            for opened in _opened(node)
        ]
        done = perform(subject.guest, groups, limit=WAIT, timeout=240)
        opened = [group for group in done if group.answers and int(group.answers[0]) >= 0]
        gone = [group for group in opened if _all_zero(subject, group.answers[1:])]
        _judge(done, *([NOT_KEPT] if _broken(gone) else []))
    subject.unload()


def _all_zero(subject: Subject, answers: tuple[str, ...]) -> bool:
    """Whether these, which begin with those of rmmod, say that all is unloaded."""
    calls = len(subject.unloading.split(" ; "))
    return len(answers) >= calls and set(answers[:calls]) == {"0"}


@pytest.mark.machine(clock="ahead")
@pytest.mark.usefixtures("with_nodes")
def test_is_unloaded_while_others_use_it(subject: Subject) -> None:
    """With processes that read and write all the time, rmmod waits, is refused or is done."""
    nodes = _nodes(subject).nodes[:4]
    users = [f"& uses {node} 300 10:a" for node in nodes]
    users += [f"& open {node} rw ; writes 300 10:a ; read 10 ; read 10" for node in nodes]
    calls = [*users, subject.unloading, "join", subject.unloading]
    *used, first, _ = done = perform(subject.guest, calls, limit=10, timeout=240)
    gone = _all_zero(subject, first.answers)
    _judge(done, *([NOT_KEPT] if gone and _broken(used) else []))


@pytest.mark.usefixtures("with_parameters")
def test_parameters_can_be_read(subject: Subject) -> None:
    """Each that has a file, by whoever may."""
    subject.load()
    _check(subject, [f"open {path} r ; read 4096 ; read 4096" for path in subject.parameters()])
    subject.unload()


# Several words, as many files take them: a command or a name, and what belongs to it.
TEXTS = ("write 0", "echo 0", "echo -1", "echo 4294967296", "echo x", "echo x 1", "echo 1 2 x",
         "write 24:A", "write 200:A", "write 4096:A", "write 8")  # fmt: skip


@pytest.mark.machine(clock="ahead")
@pytest.mark.usefixtures("with_files")
def test_attributes_take_odd_input(subject: Subject) -> None:
    """Files in sysfs, debugfs and /proc that came with it are read, and written to where they
    can be.
    """
    brought = subject.brings()
    files = brought.files
    subject.known.want_files()
    groups = []
    for path in files:
        groups.append(f"open {path} r nonblock ; read 1 ; read 65536 ; read 10 ; pread 10 4097")
        groups.append(f"open {path} r nonblock ; read 100@null ; read 100@torn ; poll 0")
    _check(subject, groups)
    found = subject.guest.check(f"find {shlex.join(files)} -perm /222 2>/dev/null; true")
    writable = [path for path in found.split() if path not in brought.shared]
    _check(
        subject,
        [f"open {path} w nonblock ; {text}" for path in writable for text in TEXTS]
        + [f"open {path} w nonblock ; write 100@null ; pwrite 8:a 4097" for path in writable]
        + [kept(path) for path in writable],
    )
    subject.unload()
