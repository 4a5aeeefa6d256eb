# SPDX-License-Identifier: GPL-2.0-only
"""What is taken of what ran in a sandbox.

Building somebody's module runs somebody's code: a Kbuild file may contain ``$(shell ...)``. It
runs in bubblewrap (``sysroot.sandbox``), which keeps it from the host's files, processes and
network. It can still leave something that makes the harness itself read a file of the host, or
read without end: a link, a device, a named pipe. So all that it left is opened here.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from harness import proc, text
from harness.errors import SandboxError
from harness.proc import Deadline


def walk(folder: Path) -> Iterator[tuple[PurePath, os.stat_result]]:
    """All files and folders below ``folder``, by their paths from there; links are not followed.

    What disappears meanwhile is left out. Raises ``SandboxError`` for a folder that nobody may
    read, or that is nested so deeply that its path is longer than the system takes.
    """
    todo = [PurePath()]
    while todo:
        inside = todo.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in sorted(entries, key=lambda one: one.name):
                    with contextlib.suppress(FileNotFoundError):
                        info = entry.stat(follow_symlinks=False)
                        yield inside / entry.name, info
                        if stat.S_ISDIR(info.st_mode):
                            todo.append(inside / entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # nested too deeply, or not readable
            name = text.beginning(f"{inside}", 200)
            raise SandboxError(f"{name} cannot be looked through: {error.strerror}") from error


_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextlib.contextmanager
def opened(folder: Path, name: PurePath | str, limit: int) -> Iterator[BinaryIO]:
    """A file that a sandbox left at ``name`` below ``folder``, to be read.

    Everything that is read of what a sandbox left is opened here. No link is followed, not at the
    end of the path and not on the way. Raises ``SandboxError`` unless it is a regular file of at
    most ``limit`` bytes; nothing but that is ever opened, since to open a device or a named
    pipe may already do something, or wait for ever.
    """
    path = PurePath(name)
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as descriptors:
        try:
            here = os.open(folder, flags | os.O_DIRECTORY)
            descriptors.callback(os.close, here)
            for part in path.parts:
                if part in ("..", "/"):
                    raise SandboxError(f"{path} leads out of the sandbox")
                info = os.fstat(here)
                if not stat.S_ISDIR(info.st_mode):
                    raise SandboxError(f"{path} was left in {_kind(info)}, which is not followed")
                here = os.open(part, flags, dir_fd=here)
                descriptors.callback(os.close, here)
            info = os.fstat(here)
            if not stat.S_ISREG(info.st_mode):
                raise SandboxError(
                    f"{path} is {_kind(info)}, and only a regular file is taken",
                    hint="nothing that a sandbox left is followed to where it leads",
                )
            if info.st_size > limit:
                raise SandboxError(f"{path} has {info.st_size} bytes, more than {limit}")
            # The file that was looked at, whatever has its name now.
            stream = descriptors.enter_context(open(f"/proc/self/fd/{here}", "rb"))
        except OSError as error:
            raise SandboxError(f"{path} cannot be read: {error.strerror}") from error
        yield stream


def _kind(info: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(info.st_mode), "something unknown")


def take(folder: Path, name: PurePath | str, limit: int) -> bytes:
    """The content of a file that a sandbox left; see ``opened``."""
    with opened(folder, name, limit) as stream:
        return stream.read(limit)  # not more, should it grow meanwhile


def log_text(path: Path, limit: int = text.LOG_BYTES) -> str:
    """A log that a sandbox wrote; of one that is longer than ``limit`` bytes both ends."""
    with opened(path.parent, path.name, 1 << 62) as stream:
        length = os.fstat(stream.fileno()).st_size
        if length <= limit:
            return text.decoded(stream.read(limit), length)
        data = stream.read(limit // 2)
        stream.seek(length - limit // 2)
        return text.decoded(data + stream.read(limit // 2), length)


def remove(folder: Path) -> None:
    """Remove a folder that a sandbox could write to, however deeply it has nested others in it.

    Python's own ``shutil.rmtree`` calls itself for each level, and stops at a thousand.
    """
    script = 'chmod -R u+rwX -- "$1"; rm -rf -- "$1"'
    proc.run(["sh", "-c", script, "sh", str(folder)], deadline=Deadline(_REMOVE_SECONDS))


_REMOVE_SECONDS = 300.0  # a slow disk that is full of small files
