# SPDX-License-Identifier: GPL-2.0-only
"""Runs foreign code in bubblewrap, within bounds, and reads what it leaves without trusting it.

Building somebody's module runs somebody's code: a Kbuild file may contain ``$(shell ...)``.
bubblewrap keeps it from the host's files, processes and network. Two ways to hurt the host remain,
and this file closes them. The code could use up memory, disk or processes. And it could leave
something, such as a link, that makes the harness itself read a file of the host or read for ever.

An ordinary user cannot use cgroups everywhere, and RLIMIT_NPROC does not bind root. So what one
process may use is bounded by the kernel (``Limits.prefix``), and what all of them use together is
looked at five times a second (``Watch``). In between a sandbox can go beyond a bound by what it
manages in a fifth of a second.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import BinaryIO

from harness.errors import DeadlineError, HostError, SandboxError
from harness.host import proc, text
from harness.host.proc import Deadline

# -- what it may use ---------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """What all that runs in one sandbox may use together.

    ``memory`` and ``disk`` are bytes (of all processes, and of each writable folder),
    ``processes`` counts threads too, ``entries`` files and folders, ``output`` bytes of its log.
    ``open_files`` is for each process; ``scratch`` bytes are what /tmp may hold, which is memory.
    How long a build takes by the clock depends on what else the computer has to do. So ``busy`` are
    seconds of processor time, of all and of one process alone (``busy_alone``), and ``still`` those
    of a clock in which less than a twentieth of a processor is used.
    """

    memory: int
    processes: int
    disk: int
    entries: int
    output: int
    open_files: int
    scratch: int
    busy: float = math.inf
    busy_alone: float = math.inf
    still: float = math.inf

    def prefix(self) -> list[str]:
        """The command that has the kernel bound each single process (prlimit(1)).

        A little more memory than all may use together, so that it is ``Watch`` that finds the
        fault, and names it.
        """
        return [
            "prlimit",
            f"--as={self.memory * 5 // 4}",
            f"--fsize={self.disk}",
            f"--nofile={self.open_files}",
            "--core=0",
            "--",
        ]

    def hint(self, log: str) -> str:
        """Which bound a failed build may have met, by what its programs say; else nothing."""
        for sign, bound in (
            ("File size limit exceeded", f"a file may have {_mib(self.disk)}"),
            ("No space left on device", f"/tmp may hold {_mib(self.scratch)}"),
            ("Too many open files", f"a process may open {self.open_files} files"),
            ("Cannot allocate memory", f"all may use {_mib(self.memory)} of memory"),
            ("virtual memory exhausted", f"all may use {_mib(self.memory)} of memory"),
        ):
            if sign in log:
                return f"there are bounds on what is built in a sandbox: {bound}"
        return ""


def _memory(most: int) -> int:
    """So many bytes, or less where this host has not twice as much."""
    return min(most, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)


def _processes(least: int) -> int:
    """For each processor make runs a job, which is a handful of processes.

    Not many more: the more there are, the less often does ``Watch`` get a processor to count them.
    """
    return least + 32 * (os.cpu_count() or 1)


# Modules with debug information take some 10 MiB, the largest drivers some 100.
MODULE = Limits(
    memory=_memory(4 << 30), processes=_processes(250), disk=1 << 30, entries=50_000,
    output=64 << 20, open_files=1024, scratch=512 << 20, busy=1800.0, busy_alone=300.0,
    still=300.0,
)  # fmt: skip
# A kernel with debug information takes some GiB, and one linker a few of memory.
KERNEL = Limits(
    memory=_memory(32 << 30), processes=_processes(1000), disk=64 << 30, entries=1_000_000,
    output=512 << 20, open_files=4096, scratch=4 << 30,
)  # fmt: skip


_WORKS = 0.05  # of a processor; what is less stands still


class Watch:
    """Looks at what a sandbox uses; called with the pid of its bubblewrap (``proc.run``).

    Each call, and ``at_the_end``, raises ``SandboxError`` with the bound that is exceeded. Before
    a call does that it has ended all that runs in the sandbox.
    """

    def __init__(
        self, limits: Limits, writable: Sequence[Path] = (), log: Path | None = None
    ) -> None:
        self._limits = limits
        self._writable = tuple(writable)
        self._log = log
        self._look_at = 0.0  # when the folders are looked through again
        self._worked_at = time.monotonic()  # when it had used so much processor time
        self._worked = 0.0

    def __call__(self, pid: int) -> None:
        used = usage(pid)
        try:
            if used.processes > self._limits.processes:
                raise _exceeded("processes", f"{self._limits.processes} processes and threads")
            if used.memory > self._limits.memory:
                raise _exceeded("memory", f"{_mib(self._limits.memory)} of memory")
            self._look_at_time(used)
            if time.monotonic() >= self._look_at:
                started = time.monotonic()
                self.at_the_end()
                # Looking through a kernel's build takes a while, and is to cost a twentieth.
                self._look_at = started + 20 * (time.monotonic() - started)
        except SandboxError:
            _end_children(pid)
            raise

    def _look_at_time(self, used: Usage) -> None:
        if used.busy > self._limits.busy:
            raise _exceeded("time", f"{self._limits.busy:g} s of processor time")
        if used.busy_alone > self._limits.busy_alone:
            bound = f"{self._limits.busy_alone:g} s of processor time in one process"
            raise _exceeded("time", bound)
        now = time.monotonic()
        if used.busy - self._worked >= _WORKS * self._limits.still:
            self._worked, self._worked_at = used.busy, now
        if now - self._worked_at > self._limits.still:
            raise SandboxError(
                f"it was ended because it did next to nothing for {self._limits.still:g} s: it "
                "waits for something",
                hint="that is the bound on time for a build in a sandbox (harness/host/sandbox.py),"
                " where there is no network, no terminal and no process of others",
            )

    def at_the_end(self) -> None:
        """Look at what it has left, which one quick process may have written."""
        if self._log is not None and _size(self._log) >= self._limits.output:
            raise _exceeded("output", f"{_mib(self._limits.output)} of output")
        for folder in self._writable:
            taken = 0
            for entries, (_, info) in enumerate(walk(folder), 1):
                taken += info.st_blocks * 512  # stat(2): always this unit
                if taken >= self._limits.disk:
                    raise _exceeded("disk", f"{_mib(self._limits.disk)} of disk")
                if entries > self._limits.entries:
                    raise _exceeded("disk", f"{self._limits.entries} files and folders")


def _exceeded(name: str, bound: str) -> SandboxError:
    return SandboxError(
        f"it was ended because it used more than {bound}",
        hint=f"that is the bound on {name} for a build in a sandbox (harness/host/sandbox.py)",
    )


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


@dataclass(frozen=True)
class Usage:
    """What a process and all its descendants use: threads, bytes of memory, and processor time.

    Memory that two of them share counts twice. ``busy`` are seconds, also of those that have ended,
    and ``busy_alone`` those of the one process that has used most.
    """

    processes: int
    memory: int
    busy: float
    busy_alone: float


def usage(pid: int) -> Usage:
    """What ``pid`` and its descendants use now.

    Those whose parent has died belong to the first process of their namespace, so that none gets
    away.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    tree = _all_processes()
    inside = {pid}
    threads = pages = ticks = most = 0
    todo = [pid]
    children: dict[int, list[int]] = {}
    for number, one in tree.items():
        children.setdefault(one.parent, []).append(number)
    while todo:
        number = todo.pop()
        own = tree.get(number, _GONE)
        threads += own.threads
        pages += own.pages
        ticks += own.ticks + own.ticks_of_children
        most = max(most, own.ticks)
        fresh = [child for child in children.get(number, ()) if child not in inside]
        inside.update(fresh)
        todo += fresh
    second = os.sysconf("SC_CLK_TCK")
    return Usage(threads, pages * page, ticks / second, most / second)


@dataclass(frozen=True)
class _Process:
    """What proc_pid_stat(5) says of a process: time in ticks of the clock, memory in pages.

    ``ticks_of_children`` are those of children that it has waited for.
    """

    parent: int
    threads: int
    pages: int
    ticks: int
    ticks_of_children: int


_GONE = _Process(0, 0, 0, 0, 0)


def _all_processes() -> dict[int, _Process]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stream:
                # The second field is the program's name in brackets, which may hold anything.
                fields = stream.read().rpartition(b")")[2].split()
                parent, user, system, of_children, and_system, threads, pages = (
                    int(fields[at]) for at in (1, 11, 12, 13, 14, 17, 21)
                )
                found[int(name)] = _Process(
                    parent, threads, pages, user + system, of_children + and_system
                )
    return found


_ENDING_SECONDS = 30.0


def _end_children(pid: int) -> None:
    """End the first process of the sandbox's namespace, and with it all others.

    The kernel ends them before that one is gone, so nothing writes any more when this returns.
    """
    for number, one in _all_processes().items():
        if one.parent == pid:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(number)
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    select.select([descriptor], [], [], _ENDING_SECONDS)
                finally:
                    os.close(descriptor)


# -- running in it ----------------------------------------------------------------


def command(
    root: Path,
    argv: Sequence[str],
    *,
    read_only: Mapping[str, Path] | None = None,
    writable: Mapping[str, Path] | None = None,
    cwd: str = "/",
    env: Mapping[str, str] | None = None,
    limits: Limits = KERNEL,
    as_root: bool = False,
) -> list[str]:
    """The bubblewrap command that runs ``argv`` with the folder ``root`` as its file system.

    The folder is read-only. There is no network and no process of others, and everything ends
    when the harness ends. ``read_only`` and ``writable`` map folders below /mnt to folders of the
    host. Of ``limits`` the command contains only what bounds each single process. ``as_root``: the
    program is told that it is root, which gives it no right to anything.
    """
    boxed = [*limits.prefix(), "bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
    boxed += ["--uid", "0", "--gid", "0"] if as_root else []
    boxed += ["--clearenv", "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev"]
    # Folders of the host are mounted below /mnt, since the read-only tree has no place for them.
    scratch = ["--size", str(limits.scratch), "--tmpfs"]
    boxed += [*scratch, "/tmp", *scratch, "/dev/shm", "--tmpfs", "/mnt"]
    for inside, outside in (read_only or {}).items():
        boxed += ["--ro-bind", str(outside), inside]
    for inside, outside in (writable or {}).items():
        boxed += ["--bind", str(outside), inside]
    # Both are in memory. Writable, each would take up to half of what the host has.
    boxed += ["--remount-ro", "/dev", "--remount-ro", "/mnt"]
    variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LC_ALL": "C"}
    for name, value in (variables | dict(env or {})).items():
        boxed += ["--setenv", name, value]
    return [*boxed, "--chdir", cwd, "--", *argv]


def run(
    root: Path,
    argv: Sequence[str],
    *,
    deadline: Deadline,
    log: Path | None = None,
    check: bool = True,
    read_only: Mapping[str, Path] | None = None,
    writable: Mapping[str, Path] | None = None,
    cwd: str = "/",
    env: Mapping[str, str] | None = None,
    limits: Limits = KERNEL,
    as_root: bool = False,
) -> proc.Completed:
    """Run a program in the tree ``root``, within ``limits``; see ``command`` and ``proc.run``.

    Raises ``SandboxError`` where the programs there have used more than ``limits``,
    ``DeadlineError`` where they do not end in time, ``HostError`` where this host forbids a
    sandbox, and with ``check`` ``CommandError`` where the program ends with another status than 0.
    """
    boxed = command(
        root, argv, read_only=read_only, writable=writable, cwd=cwd, env=env, limits=limits,
        as_root=as_root,
    )  # fmt: skip
    watch = Watch(limits, [*(writable or {}).values()], log)
    try:
        done = proc.run(boxed, deadline=deadline, log=log, check=False, watch=watch)
    except DeadlineError as error:  # name the program, and not bubblewrap around it
        what = f"{argv[0]} did not end within {deadline.seconds:.0f} s"
        raise DeadlineError(what, command=argv, tail=error.tail, log=log) from error
    watch.at_the_end()
    fault = namespace_fault(done.stdout + done.stderr)
    if done.status != 0 and fault is not None:
        raise fault
    if check and done.status != 0:
        raise proc.failure(replace(done, argv=tuple(argv)), log)
    return done


def namespace_fault(output: str) -> HostError | None:
    """The error for a host that forbids ordinary users user namespaces; None for other output."""
    # bubblewrap fails before it runs anything, so its words come first. Later ones may come from
    # the program in the sandbox, which must not be able to blame the host for its own failure.
    if not output.startswith("bwrap:"):
        return None
    signs = (
        "setting up uid map",
        "No permissions to create",
        "Creating new namespace failed",
        # AppArmor lets the namespace be made, and takes every capability in it.
        "loopback: Failed RTM_NEWADDR: Operation not permitted",
    )
    if not any(sign in output for sign in signs):
        return None
    if Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists():
        hint = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    else:
        hint = "sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
    return HostError(
        "this host does not let ordinary users make user namespaces, which bubblewrap needs",
        tail=output.strip(),
        hint=f"{hint}   (or run as root)",
    )


# -- what is taken from it ---------------------------------------------------------


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
