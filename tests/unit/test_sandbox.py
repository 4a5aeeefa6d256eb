# SPDX-License-Identifier: GPL-2.0-only
"""harness/sandbox.py: what is foreign keeps within bounds, and what it leaves is not trusted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from harness import sandbox
from harness.errors import SandboxError

LIMIT = 1 << 20


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A folder that a sandbox could write to; beside it a file of the host's."""
    (tmp_path / "secret").write_text("of the host")
    folder = tmp_path / "left"
    folder.mkdir()
    return folder


# -- what is taken -----------------------------------------------------------------


def test_a_regular_file_is_taken(left: Path) -> None:
    """Also from a folder below, and one that is just as large as it may be."""
    (left / "sub").mkdir()
    (left / "sub" / "wee.ko").write_bytes(b"\x7fELF")
    assert sandbox.take(left, "sub/wee.ko", 4) == b"\x7fELF"


def test_no_link_is_followed(left: Path) -> None:
    """Not to a file of the host's, not to one beside it, and not to what never ends."""
    (left / "beside").write_text("its own")
    for target in (left.parent / "secret", "/dev/zero", "beside", "nowhere"):
        (left / "wee.ko").symlink_to(target)
        with pytest.raises(SandboxError, match=r"wee\.ko is a link"):
            sandbox.take(left, "wee.ko", LIMIT)
        (left / "wee.ko").unlink()


def test_no_link_is_followed_on_the_way(left: Path) -> None:
    """Each folder of a path may be one, too."""
    (left / "sub").symlink_to(left.parent)
    with pytest.raises(SandboxError, match="was left in a link"):
        sandbox.take(left, "sub/secret", LIMIT)
    for out in ("../secret", str(left.parent / "secret")):
        with pytest.raises(SandboxError, match="leads out"):
            sandbox.take(left, out, LIMIT)


def test_a_named_pipe_is_not_waited_for(left: Path) -> None:
    """Opened for reading, it would wait until somebody writes to it."""
    os.mkfifo(left / "wee.ko")
    with pytest.raises(SandboxError, match=r"wee\.ko is a named pipe"):
        sandbox.take(left, "wee.ko", LIMIT)


def test_only_a_regular_file_is_taken(left: Path) -> None:
    """Folders and sockets; a device, for those who can make one."""
    (left / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(left / "socket"))
    for name in ("folder", "socket"):
        with pytest.raises(SandboxError, match=f"{name} is a {name}"):
            sandbox.take(left, name, LIMIT)
    with pytest.raises(SandboxError, match="zero is a device"):
        sandbox.take(Path("/dev"), "zero", LIMIT)


def test_what_is_too_large_is_not_read(left: Path) -> None:
    """A file of holes takes no disk, but all memory."""
    with (left / "wee.ko").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(SandboxError, match=f"more than {LIMIT}"):
        sandbox.take(left, "wee.ko", LIMIT)


def test_what_is_not_there_is_named(left: Path) -> None:
    """With the system's own words."""
    with pytest.raises(SandboxError, match=r"wee\.ko cannot be read: No such file"):
        sandbox.take(left, "wee.ko", LIMIT)


def test_a_walk_follows_no_link(left: Path) -> None:
    """What it leads to is not the sandbox's."""
    (left / "sub").mkdir()
    (left / "sub" / "file").write_text("x")
    (left / "out").symlink_to(left.parent)
    (left / "around").symlink_to(left)
    names = sorted(str(name) for name, _ in sandbox.walk(left))
    assert names == ["around", "out", "sub", "sub/file"]


def nested(folder: Path, levels: int) -> None:
    """Make folders in one another, deeper than a path can say."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_what_is_nested_without_end_is_told_and_removed(left: Path) -> None:
    """Python's own way to remove a tree ends at a thousand folders, with a traceback."""
    nested(left, 3000)
    with pytest.raises(SandboxError, match="cannot be looked through"):
        list(sandbox.walk(left))
    (left / "closed").mkdir(mode=0)
    sandbox.remove(left)
    assert not left.exists()


def test_of_a_long_log_both_ends_are_read(left: Path) -> None:
    """And the text says that there is more."""
    log = left / "build.log"
    log.write_bytes(b"first\n" + b"." * 1000 + b"\nlast")
    assert sandbox.log_text(log).endswith("...\nlast")
    shown = sandbox.log_text(log, 20)
    assert shown.startswith("first\n....\n(here 991 bytes are left out)")
    assert shown.endswith("last")
