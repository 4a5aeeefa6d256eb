# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's own debug information: its types, lines and local variables, in DWARF.

A kernel that was compiled here has it. Debian keeps that of its own kernels in packages named
linux-image-RELEASE-dbg, of which the kernel itself is taken and one module: all the others are four
fifths of what is in there.
"""

from __future__ import annotations

import logging
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

from harness.build import package
from harness.build.kernel import Kernel
from harness.errors import MORE_SPACE, GoneError, HostError, InputError, SpaceError
from harness.host import proc, progress
from harness.host.cache import Cache

log = logging.getLogger(__name__)

_FILE = "vmlinux"
# A kernel that panics ends in this driver's code, and who has no debug information of it finds no
# way back from there.
_LAST = "pvpanic.ko"
_BLOCK = 1 << 20
# What is taken is up to twice as large as the package; both are there for a while.
_TIMES = 4
# Where they are in the package: below usr/lib/debug, the kernel in boot/ or beside its modules.
_MEMBER = re.compile(r"(?:\./)?usr/lib/debug/(?:.*/)?(vmlinux|pvpanic\.ko)(?:-[^/]+)?")


def facts(kernel: Kernel) -> dict[str, Any]:
    """What has to be known of a kernel to find its symbols later, in values for JSON.

    ``vmlinux`` is the file that has them, or nothing. Then ``debian`` says which package does.
    """
    if kernel.vmlinux is not None:
        return {"vmlinux": str(kernel.vmlinux)}
    spec = kernel.spec
    debian = {"kernel": kernel.name, "package": f"linux-image-{kernel.release}-dbg",
              "version": spec.version, "suite": spec.suite}  # fmt: skip
    return {"vmlinux": "", "debian": debian}


def have(about: Mapping[str, Any], cache: Cache) -> Path:
    """A vmlinux with debug information, downloaded if it is not in the cache yet.

    ``about``: what ``facts`` has said. Raises ``InputError`` where the archive no longer has that
    of this kernel, ``NetworkError`` and ``SpaceError``.
    """
    if about.get("vmlinux"):
        return Path(str(about["vmlinux"]))
    debian = about.get("debian")
    if not debian:
        raise InputError(
            "which kernel this machine has was not noted, so its symbols cannot be looked for",
            hint="it was saved by an older harness: run the test again",
        )
    entry = cache.get(*_place(debian), lambda folder: _make(folder, debian, cache))
    return entry.path / _FILE


def are_there(about: Mapping[str, Any], cache: Cache) -> bool:
    """Whether ``have`` need not download anything."""
    debian = about.get("debian")
    return bool(about.get("vmlinux")) or bool(debian and cache.has(*_place(debian)))


def _place(debian: Mapping[str, str]) -> tuple[str, str, dict[str, object]]:
    """The kind, the label and the key of a kernel's symbols in the cache."""
    key: dict[str, object] = {"recipe": 1, "package": debian["package"]}
    return "symbols", debian["kernel"], key | {"version": debian["version"]}


def last_of(vmlinux: Path) -> Path:
    """Beside a vmlinux of ``have``: a file that drgn wants for the stack of a panic.

    It is not there where the kernel was compiled here, or where that driver is a part of it.
    """
    return vmlinux.with_name(_LAST)


def _make(folder: Path, debian: Mapping[str, str], cache: Cache) -> None:
    kernel = f"kernel {debian['kernel']}"
    try:
        with package.offered(
            debian["package"], debian["version"], debian["suite"], cache
        ) as offered:
            what = f"{kernel}: downloading its symbols, {offered.size / 1e6:.0f} MB"
            if shutil.disk_usage(folder).free < _TIMES * offered.size:
                raise SpaceError(
                    f"{what}: the disk has no room for four times as much", hint=MORE_SPACE
                )
            with progress.stage(what), progress.detail(lambda: _how_far(folder)):
                deb = offered.download(folder)
                _take_out(deb, folder)
                deb.unlink()
    except GoneError as error:
        raise InputError(
            f"{error.what}, so there are no symbols of {kernel}",
            hint="`invoke kernels --update` moves vm/kernels.lock to a kernel that is still there",
        ) from error
    size = (folder / _FILE).stat().st_size
    log.info("%s: its symbols take %.0f MB in the cache", kernel, size / 1e6)


def _how_far(folder: Path) -> str:
    sizes = {file.name: file.stat().st_size / 1e6 for file in folder.iterdir()}
    return ", ".join(f"{name}: {size:.0f} MB" for name, size in sorted(sizes.items()))


def _take_out(deb: Path, folder: Path) -> None:
    """Write what is wanted of a package into a folder; only that, for the sake of space."""
    child = proc.popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=PIPE)
    try:
        assert child.stdout is not None
        found = take(child.stdout, folder)
        while child.stdout.read(_BLOCK):  # what comes after an archive's end
            pass
        status = child.wait()
    finally:
        proc.kill(child)
    if status != 0 or _FILE not in found:
        raise HostError(
            f"there is no kernel in package {deb.name} (dpkg-deb: status {status})",
            hint="try again: nothing of it was kept",
        )


def take(archive: IO[bytes], folder: Path) -> set[str]:
    """Write the kernel in a tar archive and the module into a folder; which of them were in it.

    Raises ``HostError`` for an archive that is cut or none.
    """
    found = set()
    try:
        with tarfile.open(fileobj=archive, mode="r|") as members:
            for member in members:
                name = _MEMBER.fullmatch(member.name) if member.isfile() else None
                file = members.extractfile(member) if name else None
                if name and file is not None:
                    with (folder / name[1]).open("wb") as out:
                        shutil.copyfileobj(file, out, _BLOCK)
                    found.add(name[1])
    except tarfile.TarError as error:
        raise HostError(
            f"the package with the kernel's symbols is damaged: {error}",
            hint="try again: nothing of it was kept",
        ) from error
    return found
