# SPDX-License-Identifier: GPL-2.0-only
"""`invoke debug`: gdb in a machine, before the module's first instruction or where a test broke.

Or drgn, which looks at a machine's memory and stops nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import config
from harness.build import symbols
from harness.build.image import Keys
from harness.build.module import Module, ModuleObject
from harness.commands import drgn, gdb, shell
from harness.commands.shell import attach
from harness.errors import GuestError, GuestLost, InputError, MachineError
from harness.examine import artifacts, loading, relocations
from harness.host.cache import Cache
from harness.host.proc import Child, Deadline
from harness.host.text import printable
from harness.machines import recorded, saved
from harness.machines.clone import Clone, clone
from harness.machines.guest import Channel, Guest
from harness.qemu import Machine, MachineSpec
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


@dataclass(frozen=True)
class Wanted:
    """How somebody wants to look into a machine.

    ``breaks``: places to which gdb runs on first. ``script``: the commands that gdb or drgn runs
    instead of a prompt. ``drgn``: that one, and not gdb. ``symbols``: with the kernel's own debug
    information, also where that has to be downloaded. ``results``: the folder with the results in
    which a red test is looked for.
    """

    breaks: Sequence[str] = ()
    script: Path | None = None
    drgn: bool = False
    symbols: bool = False
    results: Path | None = None

    def check(self) -> None:
        """Raise ``HarnessError`` for what cannot be, before anything is started."""
        if self.drgn and self.breaks:
            raise InputError(
                "drgn stops nothing, so --break is only for gdb", hint="give --break or --drgn"
            )
        (drgn if self.drgn else gdb).require(self.script)
        if self.results is not None and not self.results.is_dir():
            raise InputError(
                f"there is no folder {self.results}",
                hint="--results takes a folder with results, such as results/",
            )


def run(request: Request, wanted: Wanted, command: str = "") -> int:
    """Load the module in a machine under gdb, and run ``command`` in the guest meanwhile.

    gdb stands before the module's first instruction, or runs on to the first place to break that
    is met. drgn begins when the module is loaded and the command has ended, in a machine that runs.
    Returns the debugger's status.
    """
    wanted.check()
    if wanted.drgn:
        return _run_drgn(request, wanted, command)
    breaks, script = wanted.breaks, wanted.script
    matrix = config.load()
    spec = request.select_one(matrix, "gdb is opened in one machine")
    with Cache() as cache:
        way = Way(spec, matrix, cache, request.source)
        lab, module = way.have_kernel(), way.build()
        about = _with_symbols(_facts(module), cache, wanted)
        _check_places(breaks, module, about)
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
            linked = gdb.link_symbols(about, sections, folder)
            _say_how_to_get_in(running, frozen.keys, interactive=script is None and not command)
            log.info("%s is in its place, and its init has not run", module.name)
            words = gdb.arguments(
                frozen.spec.kernel, socket, about, linked, _and_quits(script, folder),
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


def opened(what: str, kernel: str | None, wanted: Wanted) -> int:
    """The machine that a red test has left: as it was when the test was found red.

    ``what``: the test's id or a part of it, or the folder with what the test has left.
    """
    wanted.check()
    folder = _left_by(what, kernel, wanted.results)
    if (folder / recorded.FOLDER / recorded.ABOUT).exists():
        raise InputError(
            f"{os.path.relpath(folder)} has a recording and no machine",
            hint=f"invoke replay {shlex.quote(os.path.relpath(folder))} --debug",
        )
    log.info("what its kernel has printed: %s", os.path.relpath(folder / artifacts.CONSOLE))
    dump = folder / artifacts.DUMP
    with Cache() as cache:
        if wanted.drgn and dump.exists():
            about = _with_symbols(saved.read(folder).about, cache, wanted)
            log.info("%s, as the test left it", os.path.relpath(dump))
            return drgn.run(drgn.arguments(about, wanted.script, dump=dump), wanted.script)
        kept = saved.load(folder)
        about = _with_symbols(kept.about, cache, wanted)
        with (
            cache.scratch("debug") as work,
            private_socket() as socket,
            saved.reopened(kept, work, stopped=True, observer=saved.observer_of(socket)) as running,
        ):
            log.info("%s, as the test left it", os.path.relpath(folder))
            if wanted.drgn:
                return _look_by_drgn(socket, about, wanted)
            running.machine.debugger.listen(socket, Deadline(_SECONDS))
            return _look(socket, kept.spec, about, work, wanted)


def attached(folder: Path, wanted: Wanted) -> int:
    """The machine that ``--keep`` has left running; it runs on when gdb ends."""
    wanted.check()
    kept = saved.load(folder)
    socket = saved.debugger_of(folder)
    with Cache() as cache, cache.scratch("debug") as work:
        about = _with_symbols(kept.about, cache, wanted)
        try:
            if wanted.drgn:
                socket.stat()
                return _look_by_drgn(socket, about, wanted)
            return _look(socket, kept.spec, about, work, wanted)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise InputError(
                f"the machine of {os.path.relpath(folder)} does not run any more",
                hint=f"as the test left it: invoke debug --test {shlex.quote(str(folder))}",
            ) from error


def _look(
    socket: Path, spec: MachineSpec, about: Mapping[str, Any], work: Path, wanted: Wanted
) -> int:
    """gdb in a machine whose module was loaded when it was saved; its status."""
    sections: dict[str, dict[str, str]] = {}
    with Stub(socket, Deadline(_SECONDS)) as stub:
        try:
            sections = _sections_of(stub, about)
        except BaseException:
            stub.let_go(Deadline(_SECONDS))
            raise
    linked = gdb.link_symbols(about, sections, work)
    words = gdb.arguments(
        spec.kernel, socket, about, linked, wanted.script, _commands(wanted.breaks)
    )
    with gdb.started(words, interactive=wanted.script is None) as child:
        return child.wait()


def _run_drgn(request: Request, wanted: Wanted, command: str) -> int:
    """Load the module in a machine, run the command to its end, and open drgn."""
    with (
        Cache() as cache,
        private_socket() as socket,
        shell.with_module(request, "drgn looks into one machine", saved.observer_of(socket)) as (
            running,
            module,
            _,
        ),
    ):
        about = _with_symbols(_facts(module), cache, wanted)
        if command:
            status = shell.session(running, command, module)
            log.info("(in the guest: `%s` has ended with status %d)", command, status)
        return _look_by_drgn(socket, about, wanted)


def _look_by_drgn(socket: Path, about: Mapping[str, Any], wanted: Wanted) -> int:
    """drgn in a machine that is there; its status."""
    words = drgn.arguments(about, wanted.script, observer=saved.observer_of(socket))
    return drgn.run(words, wanted.script)


# -- what is asked for ---------------------------------------------------------------


def _facts(module: Module) -> dict[str, Any]:
    """The facts that gdb needs of a module and its kernel (``SavedMachine.about``)."""
    return {
        "modules": {one.name: str(one.ko) for one in module.objects},
        "source": str(module.source.path.resolve()),
        "sysroot": str(module.kernel.sysroot.root),
        **symbols.facts(module.kernel),
    }


def _with_symbols(about: Mapping[str, Any], cache: Cache, wanted: Wanted) -> Mapping[str, Any]:
    """The facts for a debugger, with the kernel's own symbols where they are wanted.

    Raises ``InputError`` where drgn would have none.
    """
    if wanted.drgn and not (wanted.symbols or about.get("vmlinux")):
        raise InputError(
            "drgn needs the kernel's own symbols, which Debian has in a package of their own",
            hint=f"--symbols {gdb.DOWNLOADS}",
        )
    return gdb.with_symbols(about, cache, wanted=wanted.symbols)


def _check_places(breaks: Sequence[str], module: Module, about: Mapping[str, Any]) -> None:
    kernel = [Path(about["vmlinux"])] if about["vmlinux"] else []
    hint = f"a function or FILE:LINE of {module.name}"
    if not kernel:
        hint += "; for one of the kernel, --symbols downloads its symbols"
    gdb.check_places(breaks, [*(one.ko for one in module.objects), *kernel], hint)


def _commands(breaks: Sequence[str]) -> list[str]:
    """The commands by which gdb runs on to the first of these places."""
    return [*(f"break {place}" for place in breaks), *(["continue"] if breaks else [])]


def _places(results: Path | None) -> list[Path]:
    """Folders with results in which a red test is looked for.

    Without ``results`` they are this project's and those of the folder that somebody stands in: a
    module of another repository has its results there.
    """
    if results is not None:
        return [results]
    here = Path.cwd()
    return [config.RESULTS, *(folder / "results" for folder in (here, *here.parents))]


def _left_by(what: str, kernel: str | None, results: Path | None = None) -> Path:
    """The newest folder with a machine that a red test has left; ``what`` is it or names it."""
    if Path(what).is_dir():
        return Path(what)
    name = artifacts.folder_name(what)
    # pytest's --results names the folder of one run, and all others that of all kernels' runs.
    levels = [f"{kernel or '*'}/*/*", *(["*"] if results is not None else [])]
    left = {
        path.resolve().parent
        for place in _places(results)
        for level in levels
        for each in (saved.ABOUT, f"{recorded.FOLDER}/{recorded.ABOUT}")
        for path in place.glob(f"{level}/{each}")
    }
    left = {path.parent if path.name == recorded.FOLDER else path for path in left}
    fitting = [path for path in left if what in path.name or name in path.name]
    if not fitting:
        some = ", ".join(sorted(path.name for path in left)[:5]) or "there is none"
        raise InputError(
            f"no red test {what!r} has left a machine",
            hint=f"the last lines of a red test say where it has left one (found: {some}); for "
            "results of another folder: --results DIR",
        )
    return max(fitting, key=lambda path: path.stat().st_mtime)


# -- to the moment before init -------------------------------------------------------


def _script(main: ModuleObject, command: str) -> str:
    """The script for the guest's shell: it loads the module, and then runs the command."""
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
