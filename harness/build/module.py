# SPDX-License-Identifier: GPL-2.0-only
"""From a kernel and a folder with a Kbuild file to a module, built in a sandbox."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from harness import config
from harness.build.kernel import Kernel
from harness.errors import BuildError, DeadlineError, InputError, SandboxError
from harness.host import proc, sandbox, text
from harness.host.cache import Cache, digest_of_files
from harness.host.proc import Deadline

BUILD_SECONDS = 600.0
# Where the sources stand inside the sandbox, and so in the module's debug information.
INSIDE = "/mnt/module"
_MAX_SOURCE = 64 << 20  # bytes; a module's folder, not somebody's home
_MAX_KO = 256 << 20  # bytes; with debug information, the largest drivers have a tenth
# Where the logs of failed builds are kept, as build/KERNEL/FOLDER-DIGEST.log.
LOGS = config.BUILD
_NAME = re.compile(r"\w[\w-]*\.ko", re.ASCII)
_COMPLAINT = re.compile(r"error:|^ERROR: modpost|undefined reference|\*\*\* ")
_TAIL_LINES = 25  # of a failed build's log, in its error
_BLOCK = 4096  # bytes; what the smallest file takes, and a folder
# What a build in the folder itself has left, and its history.
_NOT_COPIED = ("*.o", "*.ko", "*.cmd", "*.mod", "*.mod.c", ".git")


@dataclass(frozen=True)
class Module:
    """A module that was built for one kernel.

    ``ko`` is the file, ``loadable`` the same without debug information, ``name`` what lsmod
    calls it, ``warnings`` the compiler's lines, ``vermagic`` and ``depends`` what modinfo
    says; ``digest`` stands for what it was made of.
    """

    name: str
    ko: Path
    loadable: Path
    source: Path
    kernel: Kernel
    digest: str
    warnings: tuple[str, ...]
    vermagic: str
    depends: tuple[str, ...]


def build(
    kernel: Kernel, source: Path, cache: Cache, *, strict: bool = False, sparse: bool = False
) -> Module:
    """Build the module in ``source`` for ``kernel``.

    Only its Kbuild file is used, never the targets of a Makefile, without a network and
    with nothing writable but a copy of the folder. ``strict`` makes warnings errors (and
    asks for W=1); ``sparse`` has each file checked by sparse too. Raises ``InputError``
    for a folder that is not a module's, ``BuildError`` with the compiler's words.
    """
    files = check_source(source)
    options = ["W=1", "KCFLAGS=-Werror"] if strict else []
    if sparse:
        options += ["C=2", "CF=-Wsparse-error"]
    with cache.scratch("module") as scratch:
        work = scratch / "work"
        copies = _copied(files, source, work)
        key = {
            "recipe": 4,
            "kernel": kernel.digest,
            # Of the copy: the folder itself may be edited meanwhile.
            "source": digest_of_files(work, copies),
            "options": options,
        }
        note = f"kernel {kernel.name}: building {source.name}/ for {kernel.release}"
        try:
            entry = cache.get(
                "module", f"{kernel.name}", key,
                lambda folder: _make(folder, kernel, source, work, options),
                note=note,
            )  # fmt: skip
        finally:
            sandbox.remove(work)
    objects = sorted(entry.path.glob("*.ko"))
    info = _modinfo((entry.path / "modinfo").read_text())
    return Module(
        name=objects[0].stem.replace("-", "_"),
        ko=objects[0],
        loadable=entry.path / "stripped" / objects[0].name,
        source=source,
        kernel=kernel,
        digest=entry.digest,
        warnings=tuple(warnings_in(sandbox.log_text(entry.path / "build.log"))),
        vermagic=info.get("vermagic", ""),
        depends=tuple(name for name in info.get("depends", "").split(",") if name),
    )


def check_source(source: Path) -> list[Path]:
    """The files that are copied of a module's folder, those behind links too.

    Raises ``InputError`` unless ``source`` is a folder with a Kbuild file that can be copied.
    """
    if not source.is_dir():
        raise InputError(f"there is no folder {source}", hint="--module takes a module's folder")
    if not (source / "Kbuild").is_file():
        hint = "it needs a file named Kbuild with a line such as `obj-m += mymodule.o`"
        if (source / "Makefile").is_file():
            hint += "; the targets of its Makefile are never run, move the obj-m lines from there"
        raise InputError(f"{source} has no Kbuild file", hint=hint)
    files = []
    size = 0
    try:
        for path, info in _walk(source):
            # A block at least: links can make few folders endlessly many, and all empty.
            size += max(info.st_size, _BLOCK)
            if size > _MAX_SOURCE:
                raise InputError(
                    f"{source} holds more than {_MAX_SOURCE >> 20} MiB, "
                    "too much for a module's sources",
                    hint="what links lead to counts as well",
                )
            if stat.S_ISREG(info.st_mode):
                files.append(path)
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}",
            hint="all of a module's folder is copied; take out what is not for a build",
        ) from error
    return files


def _walk(
    folder: Path, above: tuple[tuple[int, int], ...] = ()
) -> Iterator[tuple[Path, os.stat_result]]:
    """All files and folders below ``folder`` that are copied, links followed, in order.

    ``above`` are the folders that it is in, by device and inode.
    """
    info = folder.stat()
    here = (info.st_dev, info.st_ino)
    if here in above:
        raise InputError(
            f"{folder} leads back to a folder that it is in",
            hint="take that link out of the module's folder: copied, it would have no end",
        )
    for path in sorted(folder.iterdir()):
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in _NOT_COPIED):
            continue
        try:
            info = path.stat()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                continue  # a link to nothing: so editors lock a file
            raise
        if not os.access(path, os.R_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        yield path, info
        if stat.S_ISDIR(info.st_mode):
            yield from _walk(path, (*above, here))


def warnings_in(log: str) -> list[str]:
    """The warnings of gcc, clang, sparse, modpost and objtool in a build's log."""
    pattern = re.compile(r"(: warning: |^WARNING: modpost|: warning: objtool|^WARNING: )")
    # Not about the module: out-of-tree headers come without vmlinux, so no BTF, and
    # kbuild compares the compiler's full name rather than the compiler.
    harmless = re.compile(r"the compiler differs from the one used to build the kernel")
    return [
        text.beginning(line.replace(f"{INSIDE}/", ""), _WARNING)
        for line in log.splitlines()
        if pattern.search(line) and not harmless.search(line)
    ]


_WARNING = 1000  # characters of a warning that are shown


def excerpt(log: str) -> str:
    """The lines of a failed build's log that an error shows: its complaints, and its end.

    Several jobs of make talk at once, so that a compiler's complaint may stand far above the end.
    """
    lines = log.splitlines()
    earlier = [line for line in lines[:-_TAIL_LINES] if _COMPLAINT.search(line)]
    shown = [text.beginning(line, _WARNING) for line in earlier[: proc.TAIL_LINES]]
    return "\n".join([*shown, *(["..."] if shown else []), *lines[-_TAIL_LINES:]])


def _copied(files: Sequence[Path], source: Path, work: Path) -> list[Path]:
    """Copies in ``work`` of the files below ``source``, those behind links as files."""
    copies = []
    work.mkdir()
    for path in files:
        copy = work / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
        copies.append(copy)
    return copies


def _make(folder: Path, kernel: Kernel, source: Path, work: Path, options: list[str]) -> None:
    log = folder / "build.log"
    jobs = len(os.sched_getaffinity(0))
    command = ["make", f"-j{jobs}", "-C", kernel.build, f"M={INSIDE}", *options, "modules"]
    where = f"for kernel {kernel.name} ({kernel.release})"
    try:
        done = sandbox.run(
            kernel.sysroot.root,
            command,
            deadline=Deadline(BUILD_SECONDS),
            log=log,
            # What a compiler quotes may be a driver's message of any kind of failure.
            check=False,
            read_only=kernel.mounts,
            writable={INSIDE: work},
            env={"KBUILD_BUILD_TIMESTAMP": "@0", "KBUILD_BUILD_USER": "eudyptula",
                 "KBUILD_BUILD_HOST": "sandbox"},
            limits=sandbox.MODULE,
        )  # fmt: skip
    except DeadlineError as error:
        raise BuildError(
            f"building {source.name}/ {where} did not end within {BUILD_SECONDS:.0f} s",
            tail=_end(log),
            log=_kept(log, kernel, source),
            hint="that is the bound on time for a build in a sandbox (harness/build/module.py)",
        ) from error
    except SandboxError as error:
        raise BuildError(
            f"building {source.name}/ {where}: {error.what}",
            tail=_end(log),
            log=_kept(log, kernel, source),
            hint=error.hint,
        ) from error
    if done.status != 0:
        said = sandbox.log_text(log).replace(f"{INSIDE}/", "")
        raise proc.no_space(folder, f"building {source.name}/ failed") or BuildError(
            f"{source.name}/ does not build {where}",
            tail=excerpt(said),
            log=_kept(log, kernel, source),
            hint=sandbox.MODULE.hint(said),
        )
    built = [name for name, _ in sandbox.walk(work) if name.suffix == ".ko"]
    if len(built) != 1:
        names = ", ".join(name.name for name in built) or "none"
        raise InputError(
            f"{source}/Kbuild builds {len(built)} modules ({names}), one was expected",
            hint="name one module in obj-m",
        )
    if not _NAME.fullmatch(built[0].name):
        raise InputError(
            f"{source}/Kbuild builds {built[0].name}, which is no name for a module",
            hint="letters, digits, - and _",
        )
    (folder / built[0].name).write_bytes(_taken(work, built[0], source))
    (folder / "stripped").mkdir()
    # What goes into the guest has no debug information: that is nine tenths of the file.
    name = built[0].name
    told = sandbox.run(
        kernel.sysroot.root,
        ["sh", "-c", 'strip --strip-debug -o "stripped/$1" "$1" && modinfo "$1"', "sh", name],
        deadline=Deadline(30),
        writable={INSIDE: folder},
        cwd=INSIDE,
    )
    (folder / "modinfo").write_text(told.stdout)


def _end(log: Path) -> str:
    """The end of the log of a build that was ended."""
    return text.last_lines(sandbox.log_text(log).replace(f"{INSIDE}/", ""), _TAIL_LINES)


def _taken(work: Path, name: PurePath, source: Path) -> bytes:
    """The module that a build has left."""
    try:
        return sandbox.take(work, name, _MAX_KO)
    except SandboxError as error:
        raise BuildError(
            f"{source.name}/ leaves no module that can be taken: {error.what}", hint=error.hint
        ) from error


def _kept(log: Path, kernel: Kernel, source: Path) -> Path | None:
    """Where a failed build's log is from now on; the folder that it is in goes.

    None where it cannot be written, which is not to hide why the build failed.
    """
    said = sandbox.log_text(log)
    digest = hashlib.sha256(said.encode()).hexdigest()[:8]
    # Runs at the same time may write here: what is different has another name.
    target = LOGS / kernel.name / f"{source.name}-{digest}.log"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.printable(said))
    except OSError:
        return None
    return Path(os.path.relpath(target))


def _modinfo(said: str) -> dict[str, str]:
    """What ``modinfo FILE`` printed, as field -> value (the first of each)."""
    fields: dict[str, str] = {}
    for line in said.splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip(), value.strip())
    return fields
