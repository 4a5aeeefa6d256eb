# SPDX-License-Identifier: GPL-2.0-only
"""The device nodes, attributes and parameters of any module: each call, with odd arguments.

An error is an answer, and a call that waits may wait. It must come back when it is killed.
"""

from __future__ import annotations

import shlex

import pytest

from ..calls import perform
from .conftest import Brought, Subject, faults

SIZES = (0, 1, 4096, 1 << 20)
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
            " ; ".join([opened, *(f"read {size}" for size in SIZES)]),
            " ; ".join([opened, *(f"pwrite 10:a {at} ; pread 10 {at}" for at in OFFSETS)]),
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
    return groups


def _nodes(subject: Subject) -> Brought:
    __tracebackhide__ = True
    brought = subject.brings()
    if not brought.nodes:
        pytest.skip("it brings no device node")
    return brought


def _check(subject: Subject, groups: list[str], *, limit: float = WAIT) -> None:
    __tracebackhide__ = True
    wrong = faults(perform(subject.guest, groups, limit=limit, timeout=240))
    assert not wrong, "\n".join(wrong)


@pytest.mark.machine(clock="ahead")
def test_nodes_take_every_call(subject: Subject) -> None:
    """Each system call on each node, with sizes, offsets and addresses that are odd."""
    for node in _nodes(subject).nodes[:8]:
        _check(subject, every_call(node))
    subject.unload()


@pytest.mark.machine(cpus=2)
def test_nodes_take_two_users_at_once(subject: Subject) -> None:
    """Two processes, on a processor each, use a node in every way at the same time."""
    for node in _nodes(subject).nodes[:4]:
        work = " ; ".join(
            f"open {node} {flags} nonblock ; writes 200 100:a ; write 1:a ; read 100 ; poll 0 ; "
            "ioctl 0 0 ; close"
            for flags in ("rw", "w", "r")
        )
        _check(subject, [f"& pin {cpu} ; {work} ; {work}" for cpu in (0, 1)], limit=20)
    subject.unload()


@pytest.mark.machine(clock="ahead")
def test_nodes_take_an_unprivileged_user(subject: Subject) -> None:
    """Somebody without any privilege does what the node's mode lets him."""
    for node in _nodes(subject).nodes[:8]:
        groups = every_call(node)
        _check(subject, [f"nobody ; {group}" for group in groups[1:6] + groups[-2:]])
    subject.unload()


@pytest.mark.machine(clock="ahead")
def test_is_not_unloaded_under_an_open_node(subject: Subject) -> None:
    """rmmod is refused while a node is open; or else what is open still works."""
    nodes = _nodes(subject).nodes[:4]
    for node in nodes:
        _check(
            subject,
            [
                f"{opened} ; {subject.unloading} ; sleep 0.2 ; write 10:a ; read 10 ; poll 0"
                for opened in _opened(node)
            ],
        )
    subject.unload()


@pytest.mark.machine(clock="ahead")
def test_is_unloaded_while_others_use_it(subject: Subject) -> None:
    """With processes that read and write all the time, rmmod waits, is refused or is done."""
    nodes = _nodes(subject).nodes[:4]
    users = [f"& uses {node} 300 10:a" for node in nodes]
    users += [f"& open {node} rw ; writes 300 10:a ; read 10 ; read 10" for node in nodes]
    _check(subject, [*users, subject.unloading, "join", subject.unloading], limit=10)


def test_parameters_can_be_read(subject: Subject) -> None:
    """Each that has a file, by whoever may."""
    subject.load()
    _check(subject, [f"open {path} r ; read 4096 ; read 4096" for path in subject.parameters()])
    subject.unload()


TEXTS = ("write 0", "echo 0", "echo -1", "echo 4294967296", "echo x", "write 4096:A", "write 8")


@pytest.mark.machine(clock="ahead")
def test_attributes_take_odd_input(subject: Subject) -> None:
    """Files in sysfs, debugfs and /proc that came with it are read, and written to where they
    can be.
    """
    files = subject.brings().files
    if not files:
        pytest.skip("it brings no file in sysfs, debugfs or /proc")
    groups = []
    for path in files:
        groups.append(f"open {path} r nonblock ; read 1 ; read 65536 ; read 10 ; pread 10 4097")
        groups.append(f"open {path} r nonblock ; read 100@null ; read 100@torn ; poll 0")
    _check(subject, groups)
    found = subject.guest.check(f"find {shlex.join(files)} -perm /222 2>/dev/null; true")
    writable = found.split()
    _check(
        subject,
        [f"open {path} w nonblock ; {text}" for path in writable for text in TEXTS]
        + [f"open {path} w nonblock ; write 100@null ; pwrite 8:a 4097" for path in writable],
    )
    subject.unload()
