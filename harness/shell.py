# SPDX-License-Identifier: GPL-2.0-only
"""`invoke shell`: a person's terminal, connected to a guest; or a debugger's socket."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shlex
import signal
import sys
import tempfile
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import paramiko

from harness import config, lab, loading, scene, template
from harness.cache import Cache
from harness.errors import GuestLost, InputError
from harness.proc import Deadline
from harness.scene import Scene
from harness.template import Clone

log = logging.getLogger(__name__)


def run(kernel: str | None, source: Path, profile: str = "", own_config: Path | None = None) -> int:
    """Clone a machine, load the module, and hand over; the shell's exit status."""
    matrix = config.load()
    specs = matrix.select(kernel, profile, own_config)
    if len(specs) != 1:
        raise InputError("a shell is opened in one guest", hint="give --kernel one name")
    cache = Cache()
    place = lab.prepare(specs[0], matrix, cache)
    module = place.build(source)
    frozen = place.template()
    with cache.scratch("shell") as folder, template.clone(frozen, folder) as clone:
        loading.load(clone.guest, module)
        log.info("%s with %s loaded; exit ends the machine", place.kernel.release, module.name)
        return _prompt(clone)


def resume(folder: Path, *, debugger: bool) -> int:
    """Open the machine that a red test has left in ``folder``: a prompt in it, or gdb's socket."""
    saved = scene.load(folder)
    with (
        Cache().scratch("resume") as work,
        scene.reopened(saved, work, stopped=debugger) as clone,
    ):
        if debugger:
            with gdb_socket() as path:
                clone.machine.debugger(path, Deadline(10))
                print("stopped where the test left it; in another terminal:")
                print(f"    {gdb_command(saved, path)}")
                print("Enter ends the machine.", flush=True)
                sys.stdin.readline()
            return 0
        try:
            clone.guest  # noqa: B018  # connects
        except GuestLost as error:
            raise InputError(
                "the guest that was saved does not answer, so there is no prompt in it",
                hint=f"look at it from outside: invoke shell --resume {folder} --debugger",
            ) from error
        log.info("as the test left it; exit ends the machine")
        return _prompt(clone)


def _prompt(clone: Clone) -> int:
    size = os.get_terminal_size() if sys.stdout.isatty() else os.terminal_size((80, 24))
    terminal = os.environ.get("TERM", "dumb")
    command = "cd /root && exec bash -l"
    with clone.guest.shell(command, terminal, size.columns, size.lines) as channel:
        return attach(channel)


@contextlib.contextmanager
def gdb_socket() -> Iterator[Path]:
    """A path for gdb's socket, in a folder that only this user may enter (mode 0700).

    Not below the cache, whose path may be longer than the 107 bytes that a socket's may have
    (unix(7)).
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    own = base if os.path.isdir(base) else None
    with tempfile.TemporaryDirectory(prefix="eudyptula-", dir=own) as folder:
        yield Path(folder, "gdb")


def gdb_command(saved: Scene, path: Path) -> str:
    """The command that attaches gdb, with what symbols there are.

    The module's; and the kernel's if it was compiled here, since Debian's image has none.
    """
    command = ["gdb", "-ex", f"target remote {path}"]
    module, text = saved.about.get("module"), saved.about.get("text")
    if module and text:
        command += ["-ex", f"add-symbol-file {module} {text}"]
    return shlex.join([*command, str(saved.about.get("vmlinux") or saved.spec.kernel)])


def attach(channel: paramiko.Channel) -> int:
    """Copy between this process's terminal and ``channel`` until that ends."""
    source = sys.stdin.fileno()
    saved = termios.tcgetattr(source) if os.isatty(source) else None

    def resized(*_: object) -> None:
        size = os.get_terminal_size()
        channel.resize_pty(size.columns, size.lines)

    try:
        if saved is not None:
            tty.setraw(source)
            signal.signal(signal.SIGWINCH, resized)
        waiting = [channel.fileno(), source]
        while True:
            ready, _, _ = select.select(waiting, [], [])
            if channel.fileno() in ready:
                data = channel.recv(1 << 16) if not channel.closed or channel.recv_ready() else b""
                if not data:
                    return channel.recv_exit_status()
                os.write(sys.stdout.fileno(), data)
            if source in ready:
                typed = os.read(source, 1 << 12)
                if typed:
                    channel.sendall(typed)
                else:
                    # Control-D, for a terminal that is a pipe here.
                    channel.sendall(b"\x04")
                    waiting.remove(source)
    finally:
        if saved is not None:
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
            termios.tcsetattr(source, termios.TCSADRAIN, saved)
