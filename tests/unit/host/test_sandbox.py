# SPDX-License-Identifier: GPL-2.0-only
"""harness/host/sandbox.py: foreign code keeps within bounds, and what it leaves is not trusted."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import CommandError, DeadlineError, HostError, SandboxError
from harness.host import sandbox
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


def run(work: Path, script: str, seconds: float = PATIENCE, limits: Limits = SMALL) -> Completed:
    """Run a script in a sandbox; the host's own tree stands for an unpacked one."""
    return sandbox.run(
        Path("/"), ["sh", "-c", script], deadline=Deadline(seconds), log=work.with_suffix(".log"),
        check=False, writable={"/mnt/work": work}, cwd="/mnt/work", limits=limits,
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


# A tenth of a second of work, and more on a slow computer.
WORKS = "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'"


@pytest.mark.parametrize(
    ("script", "limits", "named"),
    [
        (
            "while :; do :; done",
            replace(SMALL, busy_alone=0.5),
            "more than 0.5 s of processor time in one",
        ),
        # No single one of them takes long, and those that have ended count.
        (f"while :; do {WORKS}; done", replace(SMALL, busy=2.0), "more than 2 s of processor time"),
        (
            "echo before; sleep 1000",
            replace(SMALL, still=1.0),
            "did next to nothing for 1 s: it waits",
        ),
    ],
    ids=["one process", "many processes", "waiting"],
)
def test_what_would_not_end_is_ended(left: Path, script: str, limits: Limits, named: str) -> None:
    """By what it uses, and not by the clock, which says as much of the host as of the script."""
    with pytest.raises(SandboxError, match=named) as caught:
        run(left, script, limits=limits)
    assert "bound on time" in caught.value.hint


@pytest.mark.parametrize(
    ("busy", "ended"),
    [((0.0, 0.2, 0.4, 0.6, 0.8), False), ((0.0, 0.2, 0.2, 0.2, 0.2), True)],
    ids=["works", "waits"],
)
def test_what_works_is_not_taken_for_waiting(
    monkeypatch: pytest.MonkeyPatch, busy: tuple[float, ...], ended: bool
) -> None:
    """A twentieth of a processor is enough, as where many others want it; no real clock decides."""
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    monkeypatch.setattr(sandbox, "_end_children", lambda _: None)
    watch = sandbox.Watch(replace(SMALL, still=4.0))
    told = ""
    for number, seconds in enumerate(busy):
        clock = 3.0 * number
        used = sandbox.Usage(1, 0, seconds, seconds)
        monkeypatch.setattr(sandbox, "usage", lambda _, used=used: used)
        try:
            watch(os.getpid())
        except SandboxError as error:
            told = error.what
    assert ("next to nothing for 4 s" in told) == ended


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


# -- the sandbox's command ---------------------------------------------------------


def has(command: list[str], *words: str) -> bool:
    """Whether bubblewrap's options hold these words in a row."""
    start = command.index("bwrap")  # before it are the bounds of each process
    options = command[start : command.index("--", start)]
    return any(
        tuple(options[at : at + len(words)]) == words for at in range(len(options) - len(words) + 1)
    )


def test_the_sandbox_is_shut() -> None:
    """No namespace is shared (so no network), nothing outlives the harness, no variables."""
    command = sandbox.command(Path("/cache/root"), ["make", "--", "x"])
    assert command[0] == "prlimit"
    assert has(command, "--unshare-all")
    assert not any(word.startswith("--share") for word in command)
    assert has(command, "--die-with-parent")
    assert has(command, "--new-session")
    assert has(command, "--clearenv")
    assert command[-4:] == ["--", "make", "--", "x"]


def test_only_what_is_asked_for_is_writable() -> None:
    """The tree and ``read_only`` are bound read-only, ``writable`` alone is not."""
    command = sandbox.command(
        Path("/cache/root"),
        ["true"],
        read_only={"/mnt/in": Path("/host/in")},
        writable={"/mnt/out": Path("/host/out")},
        cwd="/mnt/out",
        env={"WORD": "wee", "HOME": "/mnt/out"},
    )
    assert has(command, "--ro-bind", "/cache/root", "/")
    assert has(command, "--ro-bind", "/host/in", "/mnt/in")
    assert has(command, "--bind", "/host/out", "/mnt/out")
    assert command.count("--bind") == 1
    assert "--dev-bind" not in command
    assert has(command, "--chdir", "/mnt/out")
    assert has(command, "--setenv", "WORD", "wee")
    assert has(command, "--setenv", "HOME", "/mnt/out")
    # The room for mounts comes before what is mounted there.
    assert command.index("/mnt") < command.index("/mnt/in")


# -- and what it does: the host's own tree stands for an unpacked one --------------


def inside(script: str, **folders: dict[str, Path]) -> Completed:
    return sandbox.run(
        Path("/"),
        ["sh", "-c", script],
        deadline=Deadline(PATIENCE),
        **folders,  # type: ignore[arg-type]
    )


def test_a_program_in_the_sandbox_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no network, no variables of the host's, and cannot write to the tree."""
    monkeypatch.setenv("EUDYPTULA_SECRET", "of the host")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "file").write_text("given")
    script = (
        "grep -c : /proc/net/dev; env | grep -c SECRET; "
        "touch /usr/x 2>/dev/null && echo wrote to the tree; "
        "touch /mnt/in/x 2>/dev/null && echo wrote to what is read-only; "
        "cat /mnt/in/file >/mnt/out/file; pwd"
    )
    done = inside(
        script,
        read_only={"/mnt/in": tmp_path / "in"},
        writable={"/mnt/out": tmp_path / "out"},
    )
    assert done.stdout.splitlines() == ["1", "0", "/"]
    assert (tmp_path / "out" / "file").read_text() == "given"


def test_an_error_names_the_program_and_not_the_sandbox() -> None:
    """A person reads which command failed, without two lines of bubblewrap's options."""
    with pytest.raises(CommandError) as caught:
        inside("echo went wrong >&2; exit 7")
    assert caught.value.status == 7
    assert caught.value.command == ("sh", "-c", "echo went wrong >&2; exit 7")
    assert "bwrap" not in str(caught.value)
    assert "went wrong" in str(caught.value)


# -- a host that forbids namespaces ------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "bwrap: setting up uid map: Permission denied",
        "bwrap: No permissions to create a new namespace, likely because the kernel does "
        "not allow non-privileged user namespaces.",
        "bwrap: Creating new namespace failed: Operation not permitted",
        # Ubuntu 24.04 with a network namespace of its own, which the sandbox always has.
        "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
    ],
)
@pytest.mark.parametrize("apparmor", [True, False])
def test_forbidden_namespaces_are_the_hosts_fault(
    monkeypatch: pytest.MonkeyPatch, said: str, apparmor: bool
) -> None:
    """Each of bubblewrap's ways to say so gives the command that mends this host."""
    monkeypatch.setattr(Path, "exists", lambda self: apparmor and "apparmor" in self.name)
    fault = sandbox.namespace_fault(said + "\n")
    assert isinstance(fault, HostError)
    assert said in str(fault)
    assert ("apparmor_restrict_unprivileged_userns=0" in fault.hint) is apparmor
    assert ("unprivileged_userns_clone=1" in fault.hint) is not apparmor


@pytest.mark.parametrize(
    "said",
    [
        "",
        "setting up uid map",
        "bwrap: Can't find source path /nowhere: No such file or directory",
        # A Kbuild's $(info ...): no folder is to blame the host.
        "make: Entering directory '/x'\nbwrap: setting up uid map: Permission denied",
    ],
)
def test_other_failures_are_not_blamed_on_the_host(said: str) -> None:
    """Only bubblewrap's own words about namespaces count."""
    assert sandbox.namespace_fault(said) is None


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
