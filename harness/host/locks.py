# SPDX-License-Identifier: GPL-2.0-only
"""Locks between processes, as files: flock(2).

The kernel releases such a lock when its owner dies, however that happens, so that none is ever
left behind. It belongs to an open file: two threads that each open the file exclude each other
as two processes do.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HostError
from harness.host.proc import Deadline
from harness.host.text import beginning

log = logging.getLogger(__name__)

# flock(2) has no time limit, so a lock that somebody else has is asked for again and again.
_POLL_SECONDS = 0.1
_COMMAND = 120  # characters of a command line that are shown


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def shared(path: Path) -> int:
    """Take the lock together with others; it lasts until the returned descriptor is closed."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def at_once(path: Path) -> Iterator[bool]:
    """Take the lock alone if nobody has it; yields whether that was so."""
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(path: Path, deadline: Deadline, what: str) -> Iterator[None]:
    """Take the lock alone, waiting for whoever has it, who is named.

    Raises ``HostError`` when the deadline passes first. ``what`` says what the lock is for, such
    as "the folder index-sid".
    """
    descriptor = _open(path)
    said = False
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline.expired:
                    raise HostError(
                        f"{what} is locked by {holders(path)}, and still was after "
                        f"{deadline.seconds:.0f} s of waiting",
                        hint="see what that process does; try again when it has ended",
                    ) from None
                if not said:
                    log.info("waiting for %s, which is locked by %s", what, holders(path))
                    said = True
            time.sleep(min(_POLL_SECONDS, deadline.left))
        yield
    finally:
        os.close(descriptor)


def holders(path: Path) -> str:
    """Who has the lock, for a message: the process numbers and command lines.

    Linux lists all locks in /proc/locks (proc_locks(5)), a line each: `1: FLOCK ADVISORY WRITE
    PID MAJOR:MINOR:INODE START END`. The device there can differ from that of stat(2) (btrfs,
    overlayfs), so the inode is compared, and the process must have the file open where this
    process may see that.
    """
    try:
        inode = str(path.stat().st_ino)
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return "an unknown process"
    found = set()
    for line in lines:
        words = line.split()
        if len(words) < 8 or words[1] != "FLOCK":  # also `1: -> FLOCK`: one that waits
            continue
        if words[5].rpartition(":")[2] == inode and words[4].isdecimal() and words[4] != "0":
            found.add(int(words[4]))
    known = [_described(pid) for pid in sorted(found) if _has_open(pid, path)]
    return ", ".join(known) or "a process that cannot be seen from here"


def _has_open(pid: int, path: Path) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    except OSError:  # another user's
        return True
    for name in names:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(f"{folder}/{name}"), path.stat()):
                return True
    return False


def _described(pid: int) -> str:
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        data = b""
    words = data.decode(errors="replace").rstrip("\0").split("\0")
    command = " ".join(shlex.join(words).split())
    return f"process {pid} ({beginning(command, _COMMAND)})" if data else f"process {pid}"
