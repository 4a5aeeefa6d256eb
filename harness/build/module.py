# SPDX-License-Identifier: GPL-2.0-only
"""From a kernel and a module's sources to .ko files, built in a sandbox."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePath

from harness import config
from harness.build import source as sources
from harness.build.kernel import Kernel
from harness.build.source import Folder, Recipe
from harness.errors import BuildError, DeadlineError, InputError, SandboxError
from harness.host import proc, sandbox, text
from harness.host.cache import Cache, digest_of_files
from harness.host.proc import Deadline

BUILD_SECONDS = 600.0
# Where the sources stand inside the sandbox, and so in the module's debug information.
INSIDE = "/mnt/module"
_MAX_KO = 256 << 20  # bytes; with debug information, the largest drivers have a tenth
_MAX_KOS = 200  # .ko files of one build; lttng-modules has some 80
# Where the logs of failed builds are kept, as build/KERNEL/FOLDER-DIGEST.log.
LOGS = config.BUILD
_NAME = re.compile(r"\w[\w,.+-]*\.ko", re.ASCII)
_COMPLAINT = re.compile(r"error:|^ERROR: modpost|undefined reference|\*\*\* ")
_TAIL_LINES = 25  # of a failed build's log, in its error
_STRIP_SECONDS = 120.0


@dataclass(frozen=True)
class ModuleObject:
    """One .ko file.

    ``ko`` is the file, ``loadable`` the same without debug information, ``name`` what lsmod calls
    it; ``vermagic``, ``depends`` and the names of ``parameters`` are what modinfo says. ``before``
    names the modules that are to be loaded first if they are there (MODULE_SOFTDEP).
    """

    name: str
    ko: Path
    loadable: Path
    vermagic: str = ""
    depends: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """What was built from one source for one kernel: one .ko file, or several.

    ``objects`` are in the order in which they are loaded: what one depends on comes before it.
    ``warnings`` are the compiler's lines, ``how`` says by what it was built and why; ``digest``
    stands for what it was made of. The last object is the one that is meant where only one can
    be: ``name``, ``ko``, ``loadable``, ``vermagic`` and ``depends`` are its.
    """

    objects: tuple[ModuleObject, ...]
    source: Path
    kernel: Kernel
    digest: str
    warnings: tuple[str, ...] = ()
    how: str = ""

    @property
    def main(self) -> ModuleObject:
        return self.objects[-1]

    @property
    def name(self) -> str:
        return self.main.name

    @property
    def ko(self) -> Path:
        return self.main.ko

    @property
    def loadable(self) -> Path:
        return self.main.loadable

    @property
    def vermagic(self) -> str:
        return self.main.vermagic

    @property
    def depends(self) -> tuple[str, ...]:
        return self.main.depends


def check_source(source: Path) -> None:
    """Raise ``InputError`` unless ``source`` is something that a module can be built from."""
    sources.inspect(source)


def build(
    kernel: Kernel, source: Path, cache: Cache, *, strict: bool = False, sparse: bool = False
) -> Module:
    """Build the module in ``source`` for ``kernel``.

    It is built without a network and with nothing writable but a copy of the folder. ``strict``
    makes warnings errors (and asks for W=1); ``sparse`` has each file checked by sparse too.
    Raises ``InputError`` for a folder that is not a module's, ``BuildError`` with the compiler's
    words.
    """
    source = Path(os.path.abspath(source))  # so that "." has a name
    folder = sources.inspect(source)
    options = ["W=1", "KCFLAGS=-Werror"] if strict else []
    if sparse:
        options += ["C=2", "CF=-Wsparse-error"]
    with cache.scratch("module") as scratch:
        work = scratch / "work"
        copies = _copied(folder, work)
        key = {
            "recipe": 6,
            "kernel": kernel.digest,
            # Of the copy: the folder itself may be edited meanwhile.
            "source": digest_of_files(work, copies),
            # Modules that are made up of several C files may have its name.
            "name": source.name if folder.recipe is Recipe.C_FILES else "",
            "options": options,
        }
        note = f"kernel {kernel.name}: building {source.name}/ for {kernel.release}"
        try:
            entry = cache.get(
                "module", f"{kernel.name}", key,
                lambda target: _make(target, kernel, folder, source, work, options),
                note=note,
            )  # fmt: skip
        finally:
            sandbox.remove(work)
    objects = _objects(entry.path, (entry.path / "modinfo").read_text())
    return Module(
        objects=in_order(objects),
        source=source,
        kernel=kernel,
        digest=entry.digest,
        warnings=tuple(warnings_in(sandbox.log_text(entry.path / "build.log"))),
        how=folder.why,
    )


def _objects(folder: Path, told: str) -> list[ModuleObject]:
    """The .ko files in an entry of the cache, with what modinfo has said of them."""
    found = []
    for part in re.split(r"^(?=filename:)", told, flags=re.MULTILINE):
        info = modinfo(part)
        if not info.get("filename"):
            continue
        file = PurePath(info["filename"][0]).name
        # What kbuild makes of the file's name, as the kernel knows the module by it.
        fixed = re.sub(r"[-,.+]", "_", file.removesuffix(".ko"))
        name = info.get("name", [fixed])[0]
        found.append(
            ModuleObject(
                name=name if re.fullmatch(r"\w+", name, re.ASCII) else fixed,
                ko=folder / file,
                loadable=folder / "stripped" / file,
                vermagic=info.get("vermagic", [""])[0],
                depends=_names(info.get("depends", [])),
                before=_softdeps(info.get("softdep", [])),
                parameters=tuple(each.partition(":")[0] for each in info.get("parm", [])),
            )
        )
    return found


def modinfo(said: str) -> dict[str, list[str]]:
    """What ``modinfo FILE`` printed, as field -> values; a value may have several lines."""
    fields: dict[str, list[str]] = {}
    for line in said.splitlines():
        found = re.match(r"([\w.]+):\s*(.*)", line)
        if found:
            fields.setdefault(found[1], []).append(found[2].strip())
    return fields


def _names(lists: Sequence[str]) -> tuple[str, ...]:
    """Names of modules, as lsmod has them, from lists with commas in between."""
    names = (name.strip().replace("-", "_") for each in lists for name in each.split(","))
    return tuple(name for name in names if name)


def _softdeps(lines: Sequence[str]) -> tuple[str, ...]:
    """What is to be loaded before, of softdep lines such as "pre: a b post: c" (modprobe.d(5))."""
    found: list[str] = []
    for line in lines:
        before = re.search(r"\bpre:\s*(.*?)(?=\s*\bpost:|$)", line)
        found += before[1].split() if before else []
    return _names(found)


def in_order(objects: Sequence[ModuleObject]) -> tuple[ModuleObject, ...]:
    """Each after those that it depends on; else by name.

    Raises ``InputError`` where two are called the same or need each other.
    """
    by_name: dict[str, ModuleObject] = {}
    for one in sorted(objects, key=lambda one: one.name):
        if one.name in by_name:
            raise InputError(
                f"two of the modules are named {one.name}: {by_name[one.name].ko.name} and "
                f"{one.ko.name}",
                hint="the kernel takes one of a name; rename one of them",
            )
        by_name[one.name] = one
    sorter = TopologicalSorter(
        {name: [each for each in (*one.depends, *one.before) if each in by_name and each != name]
         for name, one in by_name.items()}
    )  # fmt: skip
    try:
        sorter.prepare()
    except CycleError as error:
        circle = ", ".join(dict.fromkeys(error.args[1]))
        raise InputError(
            f"these modules need each other, so none of them can be loaded first: {circle}",
            hint="make one module of them, or move what both need to a third one",
        ) from error
    order: list[ModuleObject] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += [by_name[name] for name in ready]
        sorter.done(*ready)
    return tuple(order)


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


def _copied(folder: Folder, work: Path) -> list[Path]:
    """Copies in ``work`` of a folder's files, those behind links as files.

    Where obj-m is made up, the C files get names that make can have as targets.
    """
    renamed = names_of(folder.c_files)
    copies = []
    work.mkdir()
    for path in folder.files:
        copy = work / path.relative_to(folder.root)
        if path.parent == folder.root and path.name in renamed:
            copy = work / f"{renamed[path.name]}.c"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
        copies.append(copy)
    if folder.recipe is Recipe.C_FILES:
        # What is there may be a Makefile for something else; kbuild reads a Kbuild first.
        copies.append(work / "Kbuild")
        copies[-1].write_text(sources.derived([[name] for name in renamed.values()], ""))
    return copies


def names_of(c_files: Sequence[str]) -> dict[str, str]:
    """The object's name for each C file of which obj-m is made up."""
    renamed: dict[str, str] = {}
    for name in c_files:
        renamed[name] = sources.object_name(name, renamed.values())
    return renamed


@dataclass(frozen=True)
class _Build:
    """One build in its sandbox: for which kernel, of what, and where its log goes."""

    kernel: Kernel
    source: Path
    work: Path
    log: Path

    def run(self, command: Sequence[str], log: Path | None = None) -> proc.Completed:
        """Run a command in the copy of the sources; raises ``BuildError`` with its last words.

        Not for a command that only ends with another status than 0.
        """
        log = log or self.log
        try:
            return sandbox.run(
                self.kernel.sysroot.root,
                command,
                deadline=Deadline(BUILD_SECONDS),
                log=log,
                # What a compiler quotes may be a driver's message of any kind of failure.
                check=False,
                read_only=self.kernel.mounts,
                writable={INSIDE: self.work},
                # So that $(PWD) is the folder, as it is where the author runs make.
                cwd=INSIDE,
                env={"KBUILD_BUILD_TIMESTAMP": "@0", "KBUILD_BUILD_USER": "eudyptula",
                     "KBUILD_BUILD_HOST": "sandbox"},
                limits=sandbox.MODULE,
            )  # fmt: skip
        except DeadlineError as error:
            raise BuildError(
                f"building {self.what} did not end within {BUILD_SECONDS:.0f} s",
                tail=_end(log),
                log=_kept(log, self.kernel, self.source),
                hint="that is the bound on time for a build in a sandbox (harness/build/module.py)",
            ) from error
        except SandboxError as error:
            raise BuildError(
                f"building {self.what}: {error.what}",
                tail=_end(log),
                log=_kept(log, self.kernel, self.source),
                hint=error.hint,
            ) from error

    @property
    def what(self) -> str:
        return f"{self.source.name}/ for kernel {self.kernel.name} ({self.kernel.release})"

    def failed(self, log: Path | None = None) -> Exception:
        """The error for a build that ended with another status than 0."""
        log = log or self.log
        said = sandbox.log_text(log).replace(f"{INSIDE}/", "")
        where = f"for kernel {self.kernel.name} ({self.kernel.release})"
        no_space = proc.no_space(log.parent, f"building {self.source.name}/ failed")
        return no_space or BuildError(
            f"{self.source.name}/ does not build {where}",
            tail=excerpt(said),
            log=_kept(log, self.kernel, self.source),
            hint=sandbox.MODULE.hint(said),
        )


def _make(
    target: Path, kernel: Kernel, folder: Folder, source: Path, work: Path, options: list[str]
) -> None:
    its = _Build(kernel, source, work, target / "build.log")
    jobs = len(os.sched_getaffinity(0))
    kbuild = ["make", f"-j{jobs}", "-C", kernel.build, f"M={INSIDE}", *options]
    renamed = names_of(folder.c_files)
    if len(renamed) > 1:
        _group(its, kbuild, renamed, target / "objects.log")
    if its.run([*kbuild, "modules"]).status != 0:
        raise its.failed()
    _collect(target, its, [name for name, _ in sandbox.walk(work) if name.suffix == ".ko"])
    _describe(target, kernel)


def _group(its: _Build, kbuild: Sequence[str], renamed: Mapping[str, str], log: Path) -> None:
    """Find out which of a folder's C files make up one module, and write its Kbuild file.

    They are compiled once as a module each. What one uses and another one has decides; kbuild's
    own last step then fails, which is why its status says nothing here.
    """
    ended = its.run([*kbuild, "-k", "modules"], log)
    there = {name.as_posix() for name, _ in sandbox.walk(its.work)}
    if any(f"{name}.o" not in there for name in renamed.values()):
        raise (
            its.failed(log)
            if ended.status
            else InputError(f"{its.source}: not every C file was compiled", tail=_end(log))
        )
    known = {}
    for name in renamed.values():
        listing = sandbox.run(
            its.kernel.sysroot.root,
            ["nm", "--format=posix", f"{name}.o"],
            deadline=Deadline(_STRIP_SECONDS), writable={INSIDE: its.work}, cwd=INSIDE,
            limits=sandbox.MODULE,
        )  # fmt: skip
        known[name] = sources.symbols_in(listing.stdout)
    mains = [name for name, one in known.items() if "init_module" in one.defines]
    kbuild_file = sources.derived(sources.groups(known), its.source.name, mains)
    # All is compiled again: what a file was compiled as depends on its module's name.
    its.run([*kbuild, "clean"], log)
    (its.work / "Kbuild").write_text(kbuild_file)
    log.unlink()


def _collect(target: Path, its: _Build, built: Sequence[PurePath]) -> None:
    """Take the .ko files that a build has left."""
    if not built:
        raise InputError(
            f"{its.source} builds no module for kernel {its.kernel.name}",
            tail=_end(its.log),
            hint="its obj-m is empty: it needs a line such as `obj-m += mymodule.o`, and one that "
            "is not for another kernel only",
        )
    if len(built) > _MAX_KOS:
        raise InputError(f"{its.source} builds {len(built)} modules, more than {_MAX_KOS}")
    for path in built:
        if not _NAME.fullmatch(path.name):
            raise InputError(
                f"{its.source} builds {path.name}, which is no name for a module",
                hint="letters, digits, - and _",
            )
        if (target / path.name).exists():
            raise InputError(
                f"{its.source} builds two modules named {path.name}",
                hint="the kernel takes one of a name; rename one of them",
            )
        (target / path.name).write_bytes(_taken(its.work, path, its.source))


def _describe(target: Path, kernel: Kernel) -> None:
    """Strip the .ko files in ``target``, and keep what modinfo says of them."""
    (target / "stripped").mkdir()
    # What goes into the guest has no debug information: that is nine tenths of the file.
    told = sandbox.run(
        kernel.sysroot.root,
        ["sh", "-ec", 'for ko in *.ko; do strip --strip-debug -o "stripped/$ko" "$ko"; done; '
         "exec modinfo ./*.ko"],
        deadline=Deadline(_STRIP_SECONDS),
        writable={INSIDE: target},
        cwd=INSIDE,
        limits=sandbox.MODULE,
    )  # fmt: skip
    (target / "modinfo").write_text(told.stdout)


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
