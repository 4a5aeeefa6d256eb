# SPDX-License-Identifier: GPL-2.0-only
"""gdb in a machine: what it is told, where it connects, and whose terminal it has.

For the tasks that open one: `debug`, `replay --debug`, `shell --resume --debugger`.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from harness.build import symbols
from harness.build.module import INSIDE
from harness.errors import InputError, MissingToolError
from harness.examine import linked
from harness.host import proc
from harness.host.cache import Cache
from harness.host.proc import Child, Deadline

log = logging.getLogger(__name__)

_SECONDS = 60.0  # for gdb to read the symbols of a kernel


def require(script: Path | None = None) -> None:
    """Raise ``MissingToolError`` where there is no gdb, ``InputError`` for a script that is not."""
    if shutil.which("gdb") is None:
        raise MissingToolError("gdb is not installed", hint="apt install gdb")
    check_script(script)


def check_script(script: Path | None) -> None:
    """Raise ``InputError`` for a script that is not there, or that can be read only once.

    The shell's <(...) is such a one: what is behind it does not reach the debugger.
    """
    if script is None or script.is_file():
        return
    if script.exists():
        raise InputError(f"{script} is no regular file", hint="write the commands into a file")
    raise InputError(
        f"there is no file {script}", hint="--script takes a file with commands of the debugger"
    )


HAS_THEM = "takes them from the cache, where they are (gdb begins some seconds later then)"
DOWNLOADS = "downloads them once (some hundred MB, and as much again in the cache)"


def with_symbols(about: Mapping[str, Any], cache: Cache, *, wanted: bool) -> Mapping[str, Any]:
    """The facts for a debugger, with the kernel's own symbols where they are ``wanted``.

    Where nobody wants them, it is said how to get them. Raises what ``symbols.have`` raises.
    """
    if wanted:
        return {**about, "vmlinux": str(symbols.have(about, cache))}
    if not about.get("vmlinux"):
        how = HAS_THEM if symbols.are_there(about, cache) else DOWNLOADS
        log.info("gdb knows no function of the kernel itself: --symbols %s", how)
    return about


def link_symbols(
    about: Mapping[str, Any], sections: Mapping[str, Mapping[str, str]], work: Path
) -> list[Path]:
    """A file with the symbols of each module whose place is known.

    ``sections``: by the modules' names, where each section is. ``about``: facts for a debugger, of
    which ``modules`` has the modules' files and ``sysroot`` the tree with a linker.
    """
    found = []
    modules, sysroot = about.get("modules", {}), Path(str(about.get("sysroot")))
    for name, places in sections.items():
        ko = Path(str(modules.get(name)))
        if name not in modules:
            log.warning("of %s nothing is known but its name: the test has brought it", name)
        elif not (ko.exists() and sysroot.is_dir()):
            log.warning("of %s there are no symbols: %s or %s is gone", name, ko, sysroot)
        else:
            folder = work / f"symbols-{name}"
            folder.mkdir()
            found.append(linked.link(sysroot, ko, places, folder))
    return found


def arguments(
    kernel: Path,
    socket: Path,
    about: Mapping[str, Any],
    symbols: Sequence[Path],
    script: Path | None = None,
    then: Sequence[str] = (),
) -> list[str]:
    """gdb's command line: where it finds the machine, and what it can know of the module.

    ``symbols``: files of modules, at their addresses. ``about``: of the facts for a debugger, where
    the module's source is and where a kernel with symbols. ``then``: gdb's commands once it is
    there, before those of the ``script``.
    """
    commands = ["set confirm off", "set remotetimeout 600"]
    if source := about.get("source"):
        commands.append(f"set substitute-path {INSIDE} {shlex.quote(str(source))}")
    commands += [f"add-symbol-file {shlex.quote(str(file))}" for file in symbols]
    commands += [f"target remote {socket}", *then]
    # A file of symbols may name scripts for gdb, and this one is made of somebody's module.
    found = ["gdb", "-q", "-iex", "set auto-load no", *(["-batch"] if script else [])]
    for command in commands:
        found += ["-ex", command]
    found += ["-x", str(script)] if script else []
    return [*found, str(about.get("vmlinux") or kernel)]


def check_places(places: Sequence[str], files: Sequence[Path], hint: str = "") -> None:
    """Raise ``InputError`` for the first place that gdb does not find in these files' symbols.

    Before a machine is there: `break` in a machine that has come to the place would be too late.
    """
    for place in places:
        command = ["gdb", "-q", "-nx", "-batch", "-iex", "set auto-load no"]
        for word in ("set breakpoint pending off", "set confirm off"):
            command += ["-ex", word]
        for file in files:
            command += ["-ex", f"add-symbol-file {shlex.quote(str(file))}"]
        done = proc.run(
            [*command, "-ex", f"break {place}"], deadline=Deadline(_SECONDS), check=False
        )
        if "\nBreakpoint 1" not in f"\n{done.stdout}":
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise InputError(f"--break {place}: gdb says: {said[-1] if said else ''}", hint=hint)


@contextmanager
def started(command: Sequence[str], *, interactive: bool) -> Iterator[Child]:
    """gdb with this process's terminal; Ctrl-C is for gdb meanwhile."""
    child = proc.popen(command, stdin=None if interactive else DEVNULL, stdout=None, stderr=None)
    before = signal.getsignal(signal.SIGINT)
    if interactive:
        signal.signal(signal.SIGINT, lambda *_: child.send_signal(signal.SIGINT))
    try:
        yield child
    finally:
        signal.signal(signal.SIGINT, before)
        proc.kill(child)
