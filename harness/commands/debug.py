# SPDX-License-Identifier: GPL-2.0-only
"""`invoke debug`: gdb in a machine, before the module's first instruction or where a test broke."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import config
from harness.build.image import Keys
from harness.build.module import Module, ModuleObject
from harness.commands import gdb
from harness.commands.shell import attach
from harness.errors import GuestError, GuestLost, InputError, MachineError
from harness.examine import artifacts, loading, relocations
from harness.host.cache import Cache
from harness.host.proc import Child, Deadline
from harness.host.text import printable
from harness.machines import recorded, saved
from harness.machines.clone import Clone, clone
from harness.machines.guest import Channel, Guest
from harness.qemu import Machine
from harness.qemu.debug import private_socket
from harness.qemu.stub import Stub
from harness.runs.ready import Way
from harness.runs.request import Request

log = logging.getLogger(__name__)

_SECONDS = 30.0  # for QEMU to answer, and for its memory to be read
_LOAD_SECONDS = 60.0  # until a module that is being loaded has come to its init
_ROUND_SECONDS = 0.05
_STDOUT, _STDERR = 1, 2  # their descriptors

# It calls a module's init, when all of the module is in its place (kernel/module/main.c).
_BEFORE_INIT = re.compile(
    r"^([0-9a-f]{8,16}) [tT] do_init_module(?:\.(?:isra|constprop|part)\.\d+)*$", re.MULTILINE
)


def run(
    request: Request, breaks: Sequence[str], command: str = "", script: Path | None = None
) -> int:
    """Load the module in a machine under gdb, and run ``command`` in the guest meanwhile.

    gdb stands before the module's first instruction; with ``breaks`` it runs on to the first of
    those that is met. With a ``script`` gdb runs the commands in that file there, and ends.
    Returns gdb's status.
    """
    gdb.require(script)
    matrix = config.load()
    spec = request.select_one(matrix, "gdb is opened in one machine")
    with Cache() as cache:
        way = Way(spec, matrix, cache, request.source)
        lab, module = way.have_kernel(), way.build()
        about = _facts(module)
        kernel = lab.kernel.vmlinux
        _check_places(breaks, module, kernel)
        frozen = way.boot()
        with (
            cache.scratch("debug") as folder,
            private_socket() as socket,
            clone(frozen, folder) as running,
        ):
            guest = running.guest
            sections = _load_others(guest, module)
            address = _before_init(guest)
            running.machine.debugger.listen(socket, Deadline(_SECONDS))
            with Stub(socket, Deadline(_SECONDS)) as stub:
                stub.break_at(address, Deadline(_SECONDS))
                stub.resume()
                channel = guest.shell(_script(module.main, command), "", 80, 24)
                its_module = _await_init(stub, address, module, channel, running.machine)
                stub.unbreak(address, Deadline(_SECONDS))
                known = {relocations.THIS_MODULE: its_module}
                sections[module.name] = _solve(
                    stub, lab.kernel.sysroot.root, module.main.loadable, known
                )
            symbols = gdb.link_symbols(about, sections, folder)
            _say_how_to_get_in(running, frozen.keys, interactive=script is None and not command)
            log.info("%s is in its place, and its init has not run", module.name)
            words = gdb.arguments(
                frozen.spec.kernel, socket, about, symbols, _and_quits(script, folder),
                [f"source {_stays(folder)}", *_commands(breaks)],
            )  # fmt: skip
            interactive = script is None
            what = f"`{command}`" if command else "insmod"
            stops = bool(command) or not interactive
            with (
                gdb.started(words, interactive=interactive) as child,
                _meanwhile(running, channel, child, what, stops=stops),
            ):
                return child.wait()


def opened(what: str, kernel: str | None, breaks: Sequence[str], script: Path | None = None) -> int:
    """gdb in the machine that a red test has left: as it was when the test was found red.

    ``what``: the test's id or a part of it, or the folder with what the test has left.
    """
    gdb.require(script)
    folder = _left_by(what, kernel)
    if (folder / recorded.FOLDER / recorded.ABOUT).exists():
        raise InputError(
            f"{os.path.relpath(folder)} has a recording and no machine",
            hint=f"invoke replay {shlex.quote(os.path.relpath(folder))} --debug",
        )
    kept = saved.load(folder)
    with (
        Cache() as cache,
        cache.scratch("debug") as work,
        private_socket() as socket,
        saved.reopened(kept, work, stopped=True) as running,
    ):
        running.machine.debugger.listen(socket, Deadline(_SECONDS))
        log.info("%s, as the test left it", os.path.relpath(folder))
        return _look(socket, kept, work, breaks, script)


def attached(folder: Path, breaks: Sequence[str], script: Path | None = None) -> int:
    """gdb in the machine that ``--keep`` has left running; it runs on when gdb ends."""
    gdb.require(script)
    kept = saved.load(folder)
    socket = saved.debugger_of(folder)
    with Cache() as cache, cache.scratch("debug") as work:
        try:
            return _look(socket, kept, work, breaks, script)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise InputError(
                f"the machine of {os.path.relpath(folder)} does not run any more",
                hint=f"as the test left it: invoke debug --test {shlex.quote(str(folder))}",
            ) from error


def _look(
    socket: Path, kept: saved.SavedMachine, work: Path, breaks: Sequence[str], script: Path | None
) -> int:
    """gdb in a machine whose module was loaded when it was saved; its status."""
    about = kept.about
    sections: dict[str, dict[str, str]] = {}
    with Stub(socket, Deadline(_SECONDS)) as stub:
        try:
            sections = _sections_of(stub, about)
        except BaseException:
            stub.let_go(Deadline(_SECONDS))
            raise
    symbols = gdb.link_symbols(about, sections, work)
    words = gdb.arguments(kept.spec.kernel, socket, about, symbols, script, _commands(breaks))
    with gdb.started(words, interactive=script is None) as child:
        return child.wait()


# -- what is asked for ---------------------------------------------------------------


def _facts(module: Module) -> dict[str, Any]:
    """What gdb can be told of a module and its kernel (``SavedMachine.about``)."""
    return {
        "modules": {one.name: str(one.ko) for one in module.objects},
        "source": str(module.source.path.resolve()),
        "sysroot": str(module.kernel.sysroot.root),
        "vmlinux": str(module.kernel.vmlinux or ""),
    }


def _check_places(breaks: Sequence[str], module: Module, vmlinux: Path | None) -> None:
    kernel = [] if vmlinux is None else [vmlinux]
    hint = f"a function or FILE:LINE of {module.name}"
    if vmlinux is None:
        hint += f"; kernel {module.kernel.name} comes without symbols of its own"
    gdb.check_places(breaks, [*(one.ko for one in module.objects), *kernel], hint)


def _commands(breaks: Sequence[str]) -> list[str]:
    """What gdb does first, where somebody wants to come to a place."""
    return [*(f"break {place}" for place in breaks), *(["continue"] if breaks else [])]


def _left_by(what: str, kernel: str | None) -> Path:
    """The newest folder with a machine that a red test has left; ``what`` is it or names it."""
    if Path(what).is_dir():
        return Path(what)
    name = artifacts.folder_name(what)
    left = {
        path.resolve().parent
        for each in (saved.ABOUT, f"{recorded.FOLDER}/{recorded.ABOUT}")
        for path in config.RESULTS.glob(f"{kernel or '*'}/*/*/{each}")
    }
    left = {path.parent if path.name == recorded.FOLDER else path for path in left}
    fitting = [path for path in left if what in path.name or name in path.name]
    if not fitting:
        some = ", ".join(sorted(path.name for path in left)[:5]) or "there is none"
        raise InputError(
            f"no red test {what!r} has left a machine",
            hint=f"the last lines of a red test say where it has left one (found: {some})",
        )
    return max(fitting, key=lambda path: path.stat().st_mtime)


# -- to the moment before init -------------------------------------------------------


def _script(main: ModuleObject, command: str) -> str:
    """What the guest's shell does: loads the module, and then what somebody wants."""
    load = shlex.join(loading.insmod(main))
    # Not its last command, so that the shell around it lives, and tells the number of a signal.
    return f"cd /root\n{load} || exit\n{command or ':'}\nexit $?"


def _load_others(guest: Guest, module: Module) -> dict[str, dict[str, str]]:
    """Put the module into the guest and load what it needs; where the sections of that are."""
    loading.load_needs(guest, module)
    sections = {}
    for one in module.objects:
        loading.put(guest, one)
        if one is not module.main:
            guest.check(shlex.join(loading.insmod(one)))
            sections[one.name] = _sections_in(guest, one.name)
    return sections


def _sections_in(guest: Guest, name: str) -> dict[str, str]:
    said = guest.check(f"cd /sys/module/{name}/sections && grep -s '' .[!.]* *")
    return dict(line.split(":", 1) for line in said.splitlines())


def _before_init(guest: Guest) -> int:
    found = _BEFORE_INIT.search(guest.check("grep do_init_module /proc/kallsyms || true"))
    if found is None or not int(found[1], 16):
        raise InputError(
            "this kernel does not say where it begins a module's init (do_init_module)",
            hint="it was built without CONFIG_KALLSYMS",
        )
    return int(found[1], 16)


def _await_init(
    stub: Stub, address: int, module: Module, channel: Channel, machine: Machine
) -> int:
    """Wait until the machine stands before the module's init; the address of its struct module."""
    deadline = machine.patience(_LOAD_SECONDS)
    while not deadline.expired:
        if not stub.stopped(Deadline(_ROUND_SECONDS)):
            if channel.exit_status_ready():
                said = channel.recv_stderr(1 << 14).decode(errors="replace")
                raise GuestError(f"{module.name} does not load", tail=printable(said))
            continue
        found = stub.first_argument(Deadline(_SECONDS))
        name = stub.memory(found + relocations.NAME_OFFSET, 56, Deadline(_SECONDS)) or b""
        if name.partition(b"\0")[0] == module.name.encode():
            return found
        # Another module. The machine would stop again at once where it stands.
        stub.unbreak(address, Deadline(_SECONDS))
        stub.step(Deadline(_SECONDS))
        stub.break_at(address, Deadline(_SECONDS))
        stub.resume()
    raise GuestError(f"{module.name} does not come to its init")


def _solve(stub: Stub, sysroot: Path, ko: Path, known: Mapping[str, int]) -> dict[str, str]:
    """Where a module's sections are, read from its memory."""
    deadline = Deadline(_SECONDS)
    found = relocations.relocations(sysroot, ko)
    return relocations.sections(
        found, known, lambda address, size: stub.memory(address, size, deadline)
    )


def _sections_of(stub: Stub, about: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Of a machine that was saved: where its module's sections are, if anybody knows of one."""
    module, text = about.get("module"), about.get("text")
    names = [name for name, ko in about.get("modules", {}).items() if ko == module]
    sysroot = Path(str(about.get("sysroot", "")))
    if not (names and text and Path(str(module)).exists() and sysroot.is_dir()):
        log.warning("where the module is in this machine is not known: gdb has no symbols of it")
        return {}
    known = {".text": int(str(text), 16)}
    return {names[0]: _solve(stub, sysroot, Path(str(module)), known)}


# Else gdb would let the machine run on when it quits, and what then ends in the guest would
# interrupt a gdb that quits.
_STAYS = "define hook-quit\nif $_thread != 0\ndisconnect\nend\nend\n"


def _stays(folder: Path) -> Path:
    """Commands by which the machine stands still once gdb has quit."""
    found = folder / "stays.gdb"
    found.write_text(_STAYS)
    return found


def _and_quits(script: Path | None, folder: Path) -> Path | None:
    """A script that quits by that command at its end, which a script without an error reaches."""
    if script is None:
        return None
    found = folder / "script.gdb"
    found.write_text(f"source {script.absolute()}\nquit\n")
    return found


# -- while gdb runs --------------------------------------------------------------------


def _say_how_to_get_in(running: Clone, keys: Keys, *, interactive: bool) -> None:
    if interactive:
        log.info("the guest runs while gdb continues; a shell in it, from another terminal:")
        log.info("    %s", saved.ssh_command(running.machine, keys))


@contextlib.contextmanager
def _meanwhile(
    running: Clone, channel: Channel, child: Child, what: str, *, stops: bool
) -> Iterator[None]:
    """Show what is said in the guest, and how ``what`` ends there.

    ``stops``: gdb waits for nothing any more then, and is interrupted, as by Ctrl-C.
    """

    def copy() -> None:
        try:
            status = attach(channel, None, _STDOUT, _STDERR, terminal=False)
        except (GuestLost, OSError, EOFError):
            return  # the machine has ended, or the kernel has: gdb stands there
        log.info("(in the guest: %s has ended with status %d)", what, status)
        with contextlib.suppress(MachineError):
            state = running.machine.execute("query-status", Deadline(_SECONDS))
            if stops and state["running"]:
                child.send_signal(signal.SIGINT)

    copying = threading.Thread(target=copy, name="guest's command", daemon=True)
    copying.start()
    try:
        yield
    finally:
        channel.close()
        copying.join(_SECONDS)
