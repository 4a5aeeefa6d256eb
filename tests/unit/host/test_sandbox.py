# SPDX-License-Identifier: GPL-2.0-only
"""harness/host/sandbox.py: foreign code keeps within bounds, and what it leaves is not trusted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from harness.errors import DeadlineError, SandboxError
from harness.host import debian, sandbox
from harness.host.cache import Entry
from harness.host.debian import Sysroot
from harness.host.proc import Completed, Deadline
from harness.host.sandbox import Limits

LIMIT = 1 << 20
PATIENCE = 60.0  # seconds; only the end of patience

SMALL = Limits(
    memory=200 << 20, processes=60, disk=16 << 20, entries=500, output=1 << 20, open_files=64,
    scratch=1 << 20,
)  # fmt: skip


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A folder that a sandbox could write to; beside it a file of the host's."""
    (tmp_path / "secret").write_text("of the host")
    folder = tmp_path / "left"
    folder.mkdir()
    return folder


# -- what it may use ---------------------------------------------------------------


def run(work: Path, script: str, seconds: float = PATIENCE) -> Completed:
    """Run a script in a sandbox; the host's own tree stands for an unpacked one."""
    tree = Sysroot(Path("/"), Entry("sysroot", "host", "0" * 16, work))
    return debian.run(
        tree, ["sh", "-c", script], deadline=Deadline(seconds), log=work.with_suffix(".log"),
        check=False, writable={"/mnt/work": work}, cwd="/mnt/work", limits=SMALL,
    )  # fmt: skip


HOLDS = "python3 -c 'x = bytearray(120 << 20); import time; time.sleep(1000)'"


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("while :; do sleep 1000 & done", "60 processes"),
        # Those whose parent has died count, too.
        ("while :; do (sleep 1000 & sleep 1000 &); done", "60 processes"),
        (f"for i in 1 2 3; do {HOLDS} & done; wait", "200 MiB of memory"),
        ("cat /dev/zero >file", "16 MiB of disk"),
        ("i=0; while :; do head -c 1000000 /dev/zero >$i; i=$((i+1)); done", "16 MiB of disk"),
        ("i=0; while :; do : >$i; i=$((i+1)); done", "500 files and folders"),
        ("while :; do mkdir d; cd d; done", "500 files and folders"),
        ("while :; do echo word; done", "1 MiB of output"),
    ],
    ids=["processes", "orphans", "memory", "file", "files", "entries", "nested", "output"],
)
def test_what_uses_the_host_up_is_ended(left: Path, script: str, named: str) -> None:
    """It ends in a sentence that names the bound, and nothing of it is left running."""
    os.mkfifo(left / "alive")
    reader = os.open(left / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(SandboxError, match=f"more than {named}"):
            # All that it starts inherits the pipe's end, so it is at its end when none is left.
            run(left, f"exec 9>alive; {script}")
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
        sandbox.remove(left)


def test_what_stays_within_its_bounds_is_not_disturbed(left: Path) -> None:
    """A build that takes a while: looking at it changes nothing."""
    done = run(left, "cat /dev/zero | head -c 8000000 >file; sleep 1; echo done; exit 3")
    assert (done.status, done.stdout) == (3, "done")


def test_an_endless_loop_ends_with_its_time(left: Path) -> None:
    """The error names what was run, and what it has said is still there."""
    with pytest.raises(DeadlineError, match="sh did not end within 1 s") as caught:
        run(left, "echo before; while :; do :; done", seconds=1)
    assert "bwrap" not in str(caught.value)
    assert caught.value.tail == "before"
    assert left.with_suffix(".log").read_text() == "before\n"


def test_each_process_has_bounds_of_the_kernels(left: Path) -> None:
    """One that takes more memory, or opens more files, than it may gets an error from it."""
    done = run(left, "python3 -c 'x = bytearray(1 << 30)'; ulimit -n; ulimit -c")
    assert "MemoryError" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["64", "0"]
    assert "200 MiB of memory" in SMALL.hint("cc1: Cannot allocate memory")
    assert SMALL.hint("wee.c:1: error: expected ';'") == ""


def test_what_lies_in_memory_is_bounded(left: Path) -> None:
    """All but the folders that are given is memory of the host: /tmp, /dev, /mnt."""
    done = run(
        left,
        "head -c 2000000 /dev/zero >/tmp/x; head -c 2000000 /dev/zero >/dev/shm/x; "
        "du -c /tmp /dev/shm | tail -1; for i in /dev /mnt; do touch $i/x || echo closed; done",
    )
    assert "No space left" in done.stdout
    assert "2048\ttotal" in done.stdout
    assert done.stdout.count("closed") == 2


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
