# SPDX-License-Identifier: GPL-2.0-only
"""From a kernel and a module's sources to .ko files, built in a sandbox."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePath

from harness import config
from harness.build import dkms, package, requirements
from harness.build import source as sources
from harness.build.kernel import Kernel
from harness.build.source import Folder, Given, Recipe, Source
from harness.errors import (
    BuildError,
    CommandError,
    DeadlineError,
    GoneError,
    HarnessError,
    InputError,
    NotForKernelError,
    SandboxError,
)
from harness.host import debian, proc, sandbox, text
from harness.host.cache import Cache, digest_of, digest_of_files
from harness.host.proc import Deadline

log = logging.getLogger(__name__)

# What is left of a build's time where it works, but hardly ever; the bound that most builds meet
# is on processor time (sandbox.MODULE), which does not depend on what else the computer does.
BUILD_SECONDS = 3600.0
# Where the sources stand inside the sandbox, and so in the module's debug information.
INSIDE = "/mnt/module"
_MAX_KO = 256 << 20  # bytes; with debug information, the largest drivers have a tenth
_MAX_KOS = 200  # .ko files of one build; lttng-modules has some 80
_NAME = re.compile(r"\w[\w,.+-]*\.ko", re.ASCII)
_COMPLAINT = re.compile(r"error:|^ERROR: modpost|undefined reference|\*\*\* ")
_TAIL_LINES = 25  # of a failed build's log, in its error
_STRIP_SECONDS = 120.0


@dataclass(frozen=True)
class ModuleObject:
    """One .ko file.

    ``ko`` is the file, ``loadable`` the same without debug information, ``name`` what lsmod calls
    it; ``vermagic``, ``depends`` and the names of ``parameters`` are what modinfo says. ``before``
    names the modules that are to be loaded first if they are there (MODULE_SOFTDEP), and
    ``arguments`` are what insmod is given (NAME=VALUE).
    """

    name: str
    ko: Path
    loadable: Path
    vermagic: str = ""
    depends: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """What was built from one source for one kernel: one .ko file, or several.

    ``objects`` are in the order in which they are loaded: what one depends on comes before it.
    The last one is meant where only one can be: ``name``, ``ko``, ``loadable``, ``vermagic`` and
    ``depends`` are its.

    ``needs`` are the kernel's own modules that are loaded before; their files, and firmware, are
    in the archive ``files``, if there are any. ``warnings`` are the compiler's lines, ``how`` says
    by what it was built and why; ``digest`` stands for what it was made of.
    """

    objects: tuple[ModuleObject, ...]
    source: Source
    kernel: Kernel
    digest: str
    warnings: tuple[str, ...] = ()
    how: str = ""
    needs: tuple[str, ...] = ()
    files: Path | None = None

    @property
    def serious_warnings(self) -> tuple[str, ...]:
        """Those of ``warnings`` that are about more than style."""
        return tuple(line for line in self.warnings if not _STYLE.search(line))

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


def check_source(given: Given) -> None:
    """Raise ``InputError`` unless a module can be built from what was given.

    What is in a Debian package is known only once it is there.
    """
    source = sources.of(given)
    if not (source.package or source.finished):
        sources.inspect(source.path)


def build(
    kernel: Kernel, given: Given, cache: Cache, *, strict: bool = False, sparse: bool = False,
    careful: bool = False,
) -> Module:  # fmt: skip
    """Build what was ``given`` for ``kernel``.

    It is built without a network and with nothing writable but a copy of the folder. ``strict``
    makes warnings errors (and asks for W=1); ``sparse`` has each file checked by sparse too.
    ``careful`` asks for W=1 alone, by which the compiler warns of more.
    Raises ``InputError`` for a folder that is not a module's, ``BuildError`` with the compiler's
    words. A finished .ko file is taken as it is, if it is for this kernel.
    """
    source = sources.of(given)
    if source.finished:
        return _taken_as_it_is(kernel, source, cache)
    folder = _folder(source, kernel, cache)
    options = ["W=1"] if strict or careful else []
    options += ["KCFLAGS=-Werror"] if strict else []
    if sparse:
        options += ["C=2", "CF=-Wsparse-error"]
    with cache.scratch("module") as scratch:
        work = scratch / "work"
        copies = _copied(folder, work)
        key = {
            "recipe": 7,
            "kernel": kernel.digest,
            # Of the copy: the folder itself may be edited meanwhile.
            "source": digest_of_files(work, copies),
            # Modules that are made up of several C files may have its name.
            "name": source.name.strip("/") if folder.recipe is Recipe.C_FILES else "",
            "options": options,
        }
        note = f"kernel {kernel.name}: building {source.name} for {kernel.release}"

        def make(target: Path) -> None:
            its = _Build(kernel, source, work, target / "build.log", cache, folder.left_out)
            try:
                if folder.recipe is Recipe.DKMS:
                    _make_by_dkms_or_with_more(target, its, folder)
                else:
                    _make(target, its, folder, options)
            finally:
                # What a build leaves there is foreign. The mere copy goes with the scratch folder.
                sandbox.remove(work)

        entry = cache.get("module", kernel.name, key, make, note=note)
    built = Module(
        objects=in_order(_objects(entry.path, (entry.path / "modinfo").read_text())),
        source=source,
        kernel=kernel,
        digest=entry.digest,
        warnings=tuple(warnings_in(sandbox.log_text(entry.path / "build.log"))),
        how="; ".join(filter(None, (folder.why, folder.left_out))),
    )
    return _with_needs(_wanted(built), _firmware(folder), cache)


def hints(built: Module, cache: Cache) -> tuple[str, ...]:
    """What the compiler warns of with W=1 only, and what it says of style.

    W=1 is explained in the kernel's scripts/Makefile.extrawarn. That is for who wrote the module,
    and says nothing of it that is wrong. Nothing is said of a package and of a finished module, nor
    where dkms builds. Where the build fails with W=1, only style is told.
    """
    source = built.source
    if source.package or source.finished or sources.inspect(source.path).recipe is Recipe.DKMS:
        return ()  # dkms does not hand W=1 on to the kernel's build
    style = tuple(line for line in built.warnings if line not in built.serious_warnings)
    try:
        careful = build(built.kernel, source, cache, careful=True)
    except (BuildError, InputError) as error:
        log.debug("with W=1 it does not build: %s", error)
        return style
    return (*style, *(each for each in careful.warnings if each not in built.warnings))


def _folder(source: Source, kernel: Kernel, cache: Cache) -> Folder:
    """The folder of the module, which a Debian package has below /usr/src."""
    if not source.package:
        return sources.inspect(source.path)
    its = package.unpacked(source.package, source.suite or kernel.spec.suite, cache)
    below = its.root / "usr" / "src"
    if not below.is_dir():
        raise InputError(
            f"package {its} has no module's source: it has no /usr/src",
            hint="such packages are mostly named NAME-dkms",
        )
    folder = sources.inspect(below)
    return replace(folder, why=f"{folder.why}, package {its}")


def _taken_as_it_is(kernel: Kernel, source: Source, cache: Cache) -> Module:
    """A finished .ko file; raises ``InputError`` where it is for another kernel."""
    try:
        if source.path.stat().st_size > _MAX_KO:
            raise InputError(f"{source} has more than {_MAX_KO >> 20} MiB")
        content = requirements.unpacked(source.path.read_bytes())
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error
    name = re.sub(r"\.ko\..*$", ".ko", source.path.name, flags=re.DOTALL)
    if not _NAME.fullmatch(name):
        raise InputError(f"{source}: that is no name for a module", hint="letters, digits, - and _")
    if not content.startswith(_ELF):
        raise InputError(f"{source} is no module: it is no ELF file", hint="see `file` of it")
    key = {
        "recipe": 1,
        "kernel": kernel.digest,
        "name": name,
        "content": hashlib.sha256(content).hexdigest(),
    }

    def make(target: Path) -> None:
        (target / name).write_bytes(content)
        try:
            _describe(target, kernel)
        except (CommandError, SandboxError) as error:
            raise InputError(f"{source} is no module that can be read", tail=error.tail) from error

    entry = cache.get("module", kernel.name, key, make)
    objects = _objects(entry.path, (entry.path / "modinfo").read_text())
    wanted = requirements.modules_of(kernel, cache).vermagic or kernel.release
    for one in objects:
        if one.vermagic.split()[:1] != wanted.split()[:1] or (
            wanted != kernel.release and one.vermagic.split() != wanted.split()
        ):
            raise InputError(
                f"{source} was built for another kernel: its vermagic is {one.vermagic!r}, and "
                f"kernel {kernel.name} has {wanted!r}",
                hint="give --kernel the one that it was built for, or give its source",
            )
    built = Module(
        objects=in_order(objects), source=source, kernel=kernel, digest=entry.digest,
        how="by somebody else: it is a finished .ko",
    )  # fmt: skip
    return _with_needs(_wanted(built), {}, cache)


# What an ELF file begins with (elf(5)).
_ELF = b"\x7fELF"


def _wanted(built: Module) -> Module:
    """Only the modules that are wanted, with their parameters."""
    source = built.source
    if not (source.only or source.params):
        return built
    by_name = {one.name: one for one in built.objects}
    unknown = [name for name in source.only if name not in by_name]
    if unknown:
        raise InputError(
            f"{source} builds no module named {unknown[0]}",
            hint=f"it builds {', '.join(sorted(by_name))}",
        )
    wanted = set(source.only or by_name)
    for one in reversed(built.objects):  # what one needs is before it
        wanted |= {name for name in one.depends if name in by_name} if one.name in wanted else set()
    objects = [one for one in built.objects if one.name in wanted]
    for param in source.params:
        objects = _set(objects, param)
    key = {"build": built.digest, "only": sorted(wanted), "params": source.params}
    return replace(built, objects=tuple(objects), digest=digest_of(key))


def _set(objects: Sequence[ModuleObject], param: str) -> list[ModuleObject]:
    """The modules with a parameter set in each that has it, or in the one that is named."""
    name, separator, value = param.partition("=")
    module, _, name = name.rpartition(".")
    name, module = name.replace("-", "_"), module.replace("-", "_")
    # The kernel takes blanks in quotes only (parse_args() in kernel/params.c).
    quoted = f'"{value}"' if re.search(r"\s", value) else value
    argument = f"{name}{separator}{quoted}"
    having = [
        one.name for one in objects if name in one.parameters and module in ("", one.name)
    ]  # fmt: skip
    if not having:
        known = [f"{one.name}.{each}" for one in objects for each in one.parameters]
        raise InputError(
            f"no module has the parameter that --param {param} sets",
            hint=f"there are {', '.join(known)}" if known else "these modules have no parameters",
        )
    return [
        replace(one, arguments=(*one.arguments, argument)) if one.name in having else one
        for one in objects
    ]


_FIRMWARE = "firmware"


def _firmware(folder: Folder) -> dict[str, Path]:
    """The files of a folder that are for the guest's /lib/firmware, by their names there."""
    base = folder.root / _FIRMWARE
    return {
        path.relative_to(base).as_posix(): path
        for path in folder.files
        if path.is_relative_to(base)
    }


def _with_needs(built: Module, firmware: Mapping[str, Path], cache: Cache) -> Module:
    """The module with what it needs of its kernel; raises ``InputError`` for what is not there."""
    own = {one.name for one in built.objects}
    hard = {name: one.name for one in built.objects for name in one.depends if name not in own}
    soft = {name for one in built.objects for name in one.before} - own
    if not (hard or soft or firmware):
        return built
    index = requirements.modules_of(built.kernel, cache)
    for name, user in hard.items():
        if not index.has(name):
            raise InputError(
                f"{user} needs the module {name}, which kernel {built.kernel.name} does not have, "
                "and which is not built with it",
                hint="put the source of both into one folder",
            )
    needed = [name for name in dict.fromkeys([*hard, *sorted(soft)]) if name in index.files]
    archive, digest = requirements.archive(built.kernel, needed, firmware, cache)
    return replace(
        built,
        needs=tuple(needed),
        files=archive,
        digest=digest_of({"build": built.digest, "needs": digest}),
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
    """Each after those that it depends on; else as they are given, which is their author's order.

    What tests the others, or finds them by names of its own, is mostly the last one there.
    Raises ``InputError`` where two are called the same or need each other.
    """
    by_name: dict[str, ModuleObject] = {}
    for one in objects:
        if one.name in by_name:
            raise InputError(
                f"two of the modules are named {one.name}: {by_name[one.name].ko.name} and "
                f"{one.ko.name}",
                hint="the kernel takes one of a name; rename one of them",
            )
        by_name[one.name] = one
    first = {
        name: [each for each in (*one.depends, *one.before) if each in by_name and each != name]
        for name, one in by_name.items()
    }
    try:
        TopologicalSorter(first).prepare()
    except CycleError as error:
        circle = ", ".join(dict.fromkeys(error.args[1]))
        raise InputError(
            f"these modules need each other, so none of them can be loaded first: {circle}",
            hint="make one module of them, or move what both need to a third one",
        ) from error
    order: dict[str, ModuleObject] = {}

    def append(name: str) -> None:
        if name not in order:
            for each in first[name]:
                append(each)
            order[name] = by_name[name]

    for name in by_name:
        append(name)
    return tuple(order.values())


def warnings_in(log: str) -> list[str]:
    """The warnings of gcc, clang, sparse, modpost and objtool in a build's log."""
    pattern = re.compile(r"(: warning: |^WARNING: modpost|: warning: objtool|^WARNING: )")
    # Not about the module: out-of-tree headers come without vmlinux, so no BTF, and
    # kbuild compares the compiler's full name rather than the compiler.
    harmless = re.compile(r"the compiler differs from the one used to build the kernel")
    return [
        text.beginning(dkms.own_paths(line, INSIDE), _WARNING)
        for line in log.splitlines()
        if pattern.search(line) and not harmless.search(line)
    ]


# What some kernels warn of by themselves, and others with W=1 or not at all: a function that could
# be static (from 6.8 on), a variable that is declared in the midst of a block (5.10), and functions
# that are called init_module() and cleanup_module() rather than named by module_init() and
# module_exit(), as first examples in books do (objtool, from 6.2 on). Such code works as it should.
# So does what objtool cannot follow, as a computed goto: how the compiler has laid out a function
# of C is not its author's doing (tools/objtool/Documentation/objtool.txt).
_STYLE = re.compile(
    r"\[-W(?:missing-prototypes|missing-declarations|declaration-after-statement)\]"
    r"|objtool: (?:init|cleanup)_module\(\): not an indirect call target"
    r"|objtool: \S+ (?:sibling call from callable instruction with modified stack frame"
    r"|stack state mismatch|return with modified stack frame)"
)
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
    into = work / dkms.SOURCES / "module" if folder.recipe is Recipe.DKMS else work
    into.mkdir(parents=True)
    for path in folder.files:
        copy = into / path.relative_to(folder.root)
        if path.parent == folder.root and path.name in renamed:
            copy = into / f"{renamed[path.name]}.c"
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


class _BoundError(BuildError):
    """A build that was ended because it has met a bound of its sandbox."""


@dataclass(frozen=True)
class _Build:
    """One build in its sandbox: for which kernel, of what, and where its log goes.

    ``left_out`` is what of the source's folder is not there.
    """

    kernel: Kernel
    source: Source
    work: Path
    log: Path
    cache: Cache
    left_out: str = ""

    def run(
        self, command: Sequence[str], log: Path | None = None, *,
        below: PurePath | str = "", tools: Mapping[str, Path] | None = None,
        look_only: bool = False,
    ) -> proc.Completed:  # fmt: skip
        """Run a command in the copy of the sources; raises ``BuildError`` with its last words.

        Not for a command that only ends with another status than 0. ``below`` is the folder that
        it runs in, ``tools`` are for dkms. ``look_only``: the copy cannot be changed.
        """
        log = log or self.log
        copy = {INSIDE: self.work}
        try:
            return sandbox.run(
                self.kernel.sysroot.root,
                command,
                deadline=Deadline(BUILD_SECONDS),
                log=log,
                # What a compiler quotes may be a driver's message of any kind of failure.
                check=False,
                read_only={**self.kernel.mounts, **(tools or {}), **(copy if look_only else {})},
                writable={} if look_only else copy,
                # So that $(PWD) is the folder, as it is where the author runs make.
                cwd=f"{INSIDE}/{below}",
                env={"KBUILD_BUILD_TIMESTAMP": "@0", "KBUILD_BUILD_USER": "eudyptula",
                     "KBUILD_BUILD_HOST": "sandbox", **(dkms.variables(INSIDE) if tools else {})},
                limits=sandbox.MODULE,
                as_root=bool(tools),
            )  # fmt: skip
        except DeadlineError as error:
            raise _BoundError(
                f"building {self.what} did not end within {BUILD_SECONDS:.0f} s",
                tail=_end(log),
                log=_kept(log, self.kernel, self.source),
                hint="that is the bound on time for a build in a sandbox (harness/build/module.py)",
            ) from error
        except SandboxError as error:
            raise _BoundError(
                f"building {self.what}: {error.what}",
                tail=_end(log),
                log=_kept(log, self.kernel, self.source),
                hint=error.hint,
            ) from error

    @property
    def what(self) -> str:
        return f"{self.source.name} for kernel {self.kernel.name} ({self.kernel.release})"

    def failed(self, log: Path | None = None) -> Exception:
        """The error for a build that ended with another status than 0.

        Where the kernel lacks what the module uses, it says which kernel of the cache has it.
        """
        log = log or self.log
        said = dkms.own_paths(sandbox.log_text(log), INSIDE)
        where = f"for kernel {self.kernel.name} ({self.kernel.release})"
        no_space = proc.no_space(log.parent, f"building {self.source.name} failed")
        return no_space or BuildError(
            f"{self.source.name} does not build {where}",
            tail=excerpt(said),
            log=_kept(log, self.kernel, self.source),
            hint=sandbox.MODULE.hint(said)
            or _lacks(said, self.kernel, self.cache)
            or _no_c_file(said, self.work)
            or _no_network(said)
            or (self.left_out and f"copy what belongs to the module into it ({self.left_out})"),
        )


# What modpost says since 5.5 (scripts/mod/modpost.c).
_UNDEFINED = re.compile(r'modpost: "(\w+)" \[[^\]]*\] undefined!')


_NO_RULE = re.compile(r"No rule to make target '([^']+\.o)'")
_C_FILES_MAX = 5  # that are named


def _no_c_file(said: str, work: Path) -> str:
    """What to do where a Makefile names an object that has no C file; else nothing."""
    missing = _NO_RULE.search(said)
    if not missing:
        return ""
    # dkms has copies of them.
    there = sorted({path.name for path, _ in sandbox.walk(work) if path.suffix == ".c"})
    named = f"; there are {', '.join(there[:_C_FILES_MAX])}" if there else ""
    blanks = "; make takes no blank in a name" if any(" " in name for name in there) else ""
    return f"its obj-m or NAME-objs names {missing[1]}, which has no C file{named}{blanks}"


_NETWORK = re.compile(
    r"\b(?:wget|curl): (?:command )?not found"
    r"|Network is unreachable|Temporary failure in name resolution|Could not resolve host"
)


def _no_network(said: str) -> str:
    """What to do where a build has called the network; else nothing."""
    if not _NETWORK.search(said):
        return ""
    return "a build has no network: what it downloads has to be in the module's folder"


def _lacks(said: str, kernel: Kernel, cache: Cache) -> str:
    """What to do where a module uses what its kernel does not have; else nothing."""
    symbols = set(_UNDEFINED.findall(said))
    return requirements.lacks_symbols(symbols, kernel, cache) if symbols else ""


def _make(target: Path, its: _Build, folder: Folder, options: list[str]) -> None:
    jobs = len(os.sched_getaffinity(0))
    kbuild = ["make", f"-j{jobs}", "-C", its.kernel.build, f"M={INSIDE}", *options]
    renamed = names_of(folder.c_files)
    if len(renamed) > 1:
        _group(its, kbuild, renamed, target / "objects.log")
    if its.run([*kbuild, "modules"]).status != 0:
        raise its.failed()
    _collect(target, its, [name for name, _ in sandbox.walk(its.work) if name.suffix == ".ko"])
    _describe(target, its.kernel, _order_of_makefiles(its.work))


def _order_of_makefiles(work: Path) -> list[str]:
    """The names of the modules as they follow one another in obj-m, by kbuild's own record.

    It has a line for each, with a path that ends in .ko or, on newer kernels, .o
    (Documentation/kbuild/kbuild.rst).
    """
    try:
        said = sandbox.take(work, "modules.order", text.LOG_BYTES).decode(errors="replace")
    except SandboxError:
        return []
    return [PurePath(line).stem for line in said.splitlines()]


def _make_by_dkms_or_with_more(target: Path, its: _Build, folder: Folder) -> None:
    """Build by dkms; where that fails, in a tree that has all that a Debian package may count on.

    Few packages' scripts use anything of that, and such a tree takes its time to unpack. So it is
    unpacked for these few only: not where the compiler has refused the source and nothing was said
    to be missing, nor where the build has met a bound.
    """
    said = _asked(target, its)
    try:
        _make_by_dkms(target, its, said)
        return
    except _BoundError:
        raise
    except BuildError as error:
        told = sandbox.log_text(its.log)
        if _REFUSED.search(told) and not _MISSING.search(told):
            raise
        try:
            fuller = _with_depends(its, said)
        except HarnessError as why:  # then there is nothing else to try
            log.debug("what %s depends on is not to be had: %s", its.source, why)
            fuller = None
        if fuller is None:
            raise
        log.debug("without what it depends on: %s", error)
    sandbox.remove(its.work)
    _copied(folder, its.work)
    its = replace(its, kernel=fuller)
    _make_by_dkms(target, its, _asked(target, its))


# What the compiler says of a line, and what shells, make and the compiler say of a program or a
# header that is not there.
_REFUSED = re.compile(r"^\S+\.[ch]:\d+(?::\d+)?: error: ", re.MULTILINE)
_MISSING = re.compile(r"not found|No such file or directory|not installed")
# What every Debian has (Essential) and a kernel's tree does not: no package says that it needs it.
_ESSENTIAL = ("bsdutils", "debianutils", "diffutils", "hostname", "libc-bin", "util-linux")


def _with_depends(its: _Build, said: dkms.Asked) -> Kernel | None:
    """The kernel in a tree that has what a module's package depends on; None where it is none.

    A folder may be a copy of a package's. Nor is there one for a package of another suite, whose
    dependencies the kernel's may lack.
    """
    kernel, source = its.kernel, its.source
    tree = kernel.sysroot
    if (source.suite or tree.suite) != tree.suite:
        return None
    # ipt-netflow is in iptables-netflow-dkms, after which whoever copies it may name the folder.
    guessed = (dkms.package_of(name) for name in (said.name, source.name.strip("/")))
    for name in dict.fromkeys([source.package] if source.package else filter(None, guessed)):
        try:
            asked = package.unpacked(name, tree.suite, its.cache)
        except GoneError:
            continue
        more = debian.with_more(
            tree, its.cache, label=f"kernel-{kernel.name}-{name}",
            more=[asked.exact, *_ESSENTIAL],
            note=f"kernel {kernel.name}: unpacking what {name} depends on (about 30 s)",
        )  # fmt: skip
        return replace(kernel, sysroot=more)
    return None


# The folder of the module's own sources, in that of the build.
_HERE = dkms.SOURCES / "module"


def _asked(target: Path, its: _Build) -> dkms.Asked:
    """What a dkms.conf says of itself, with what dkms needs laid out beside it."""
    kernel = its.kernel
    dkms.lay_out(its.work)
    asked = target / "asked.log"
    # It may not write yet: what is read and written later, here on the host, has to be what it was.
    its.run(["bash", "-c", dkms.ASK, "bash", kernel.release, kernel.build], asked, below=_HERE,
            tools=dkms.tools(kernel.spec.suite, its.cache), look_only=True)  # fmt: skip
    said = dkms.asked(sandbox.log_text(asked), f"{its.source}: dkms.conf")
    asked.unlink()
    return said


def _make_by_dkms(target: Path, its: _Build, its_own: dkms.Asked) -> None:
    """Have dkms build what a dkms.conf says.

    Raises ``NotForKernelError`` where it says that it is not for this kernel.
    """
    kernel, work, here = its.kernel, its.work, _HERE
    tools = dkms.tools(kernel.spec.suite, its.cache)
    name = its_own.name
    conf = work / here / "dkms.conf"
    said, version = dkms.with_version(conf.read_text(errors="surrogateescape"), its_own.version)
    conf.write_text(said, errors="surrogateescape")
    (work / here).rename(work / dkms.SOURCES / f"{name}-{version}")
    command = dkms.command(name, version, kernel.release, kernel.build, INSIDE)
    status = its.run(command, tools=tools).status
    with its.log.open("ab") as stream:
        for log in dkms.logs(name, version, kernel.release):
            with suppress(SandboxError):  # there is one of the two
                stream.write(b"\n" + sandbox.take(work, log, text.LOG_BYTES))
    if status == dkms.EXCLUDED:
        raise NotForKernelError(
            f"{its.source.name} is not for kernel {kernel.name} ({kernel.release}): its dkms.conf "
            "says so",
            tail="\n".join([*its_own.words, *_conditions(work, name, version)]),
            hint=requirements.lacks_options(its_own.options, kernel, its.cache)
            or "choose another kernel: `invoke kernels` lists those of the matrix",
        )
    if status != 0:
        raise its.failed()
    folder = dkms.built(name, version, kernel.release)
    names = [path for path, _ in sandbox.walk(work) if path.is_relative_to(folder)]
    _collect(target, its, [path for path in names if ".ko" in path.suffixes])
    _describe(target, kernel, its_own.modules)


def _conditions(work: Path, name: str, version: str) -> list[str]:
    """The lines of a dkms.conf that say which kernels it is for."""
    conf = dkms.SOURCES / f"{name}-{version}" / "dkms.conf"
    said = sandbox.take(work, conf, text.LOG_BYTES).decode(errors="replace")
    lines = (line.strip() for line in said.splitlines())
    return list(dict.fromkeys(line for line in lines if line.startswith("BUILD_EXCLUSIVE")))


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
    kbuild_file = sources.derived(sources.groups(known), its.source.name.strip("/"), mains)
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
        name = re.sub(r"\.(?:xz|zst|gz)$", "", path.name)
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{its.source} builds {path.name}, which is no name for a module",
                hint="letters, digits, - and _",
            )
        if (target / name).exists():
            raise InputError(
                f"{its.source} builds two modules named {name}",
                hint="the kernel takes one of a name; rename one of them",
            )
        (target / name).write_bytes(requirements.unpacked(_taken(its.work, path, its.source)))


def _describe(target: Path, kernel: Kernel, order: Sequence[str] = ()) -> None:
    """Strip the .ko files in ``target``, and keep what modinfo says of them.

    ``order`` are names of modules as their author has them in a row; others come after them.
    """
    (target / "stripped").mkdir()
    places = {name: place for place, name in enumerate(order)}
    files = sorted(target.glob("*.ko"), key=lambda ko: (places.get(ko.stem, len(places)), ko.name))
    # What goes into the guest has no debug information: that is nine tenths of the file.
    told = sandbox.run(
        kernel.sysroot.root,
        ["sh", "-ec", 'for ko; do strip --strip-debug -o "stripped/$ko" "$ko"; done; '
         'exec modinfo "$@"', "sh", *(f"./{ko.name}" for ko in files)],
        deadline=Deadline(_STRIP_SECONDS),
        writable={INSIDE: target},
        cwd=INSIDE,
        limits=sandbox.MODULE,
    )  # fmt: skip
    (target / "modinfo").write_text(told.stdout)


def _end(log: Path) -> str:
    """The end of the log of a build that was ended."""
    return text.last_lines(dkms.own_paths(sandbox.log_text(log), INSIDE), _TAIL_LINES)


def _taken(work: Path, name: PurePath, source: Source) -> bytes:
    """The module that a build has left."""
    try:
        return sandbox.take(work, name, _MAX_KO)
    except SandboxError as error:
        raise BuildError(
            f"{source.name} leaves no module that can be taken: {error.what}", hint=error.hint
        ) from error


def _kept(log: Path, kernel: Kernel, source: Source) -> Path | None:
    """Where a failed build's log is from now on; the folder that it is in goes.

    None where it cannot be written, which is not to hide why the build failed.
    """
    said = sandbox.log_text(log)
    digest = hashlib.sha256(said.encode()).hexdigest()[:8]
    # Runs at the same time may write here: what is different has another name.
    target = config.BUILD / kernel.name / f"{source.name.strip('/')}-{digest}.log"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.printable(said))
    except OSError:
        return None
    return Path(os.path.relpath(target))
