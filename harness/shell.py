# SPDX-License-Identifier: GPL-2.0-only
"""`invoke shell`: a person's terminal, connected to a guest."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import termios
import tty
from pathlib import Path

import paramiko

from harness import config, lab, plugin, template
from harness.cache import Cache
from harness.errors import InputError

log = logging.getLogger(__name__)


def run(kernel: str | None, source: Path) -> int:
    """Clone a machine, load the module, and hand over; the shell's exit status."""
    matrix = config.load()
    specs = matrix.select(kernel)
    if len(specs) != 1:
        raise InputError("a shell is opened in one guest", hint="give --kernel one name")
    cache = Cache()
    place = lab.prepare(specs[0], matrix, cache)
    module = place.build(source)
    frozen = place.template()
    with cache.scratch("shell") as folder, template.clone(frozen, folder) as clone:
        plugin.load(clone.guest, module)
        log.info("%s with %s loaded; exit ends the machine", place.kernel.release, module.name)
        size = os.get_terminal_size() if sys.stdout.isatty() else os.terminal_size((80, 24))
        terminal = os.environ.get("TERM", "dumb")
        with clone.guest.shell(
            "cd /root && exec bash -l", terminal, size.columns, size.lines
        ) as channel:
            return attach(channel)


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
