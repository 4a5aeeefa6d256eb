# SPDX-License-Identifier: GPL-2.0-only
"""What somebody gave as a module, and how it is to be built. Nothing here depends on a kernel.

A folder is built by the first of these that it has (``Recipe``):

1. ``dkms.conf``, which names what it builds and which kernels it is for (dkms(8));
2. ``Kbuild``, which the kernel's build system reads before a Makefile;
3. a ``Makefile`` with ``obj-m`` lines, or one that includes them, which it reads as well;
4. C files of a module, for which the ``obj-m`` lines are made up (``derived``). A Makefile beside
   them that has no ``obj-m`` is not used.

If the folder has none of these, and just one folder below it has, that one is built.
"""

from __future__ import annotations

import configparser
import contextlib
import enum
import errno
import fnmatch
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from harness import config
from harness.errors import InputError
from harness.host.files import is_tagged
from harness.host.text import listed

_MAX_SOURCE = 64 << 20  # bytes; a module's folder, not somebody's home
_MAX_ENTRIES = 20_000  # files and folders; the largest packages of drivers have some 3,000
_MAX_TEXT = 4 << 20  # bytes of a C file or a Makefile that are looked at
_BLOCK = 1024  # bytes; how much an empty file or a folder counts
_GIT = ".git"
# Not copied: what earlier builds in the folder and Python have left, and git's history.
_NOT_COPIED = ("*.o", "*.ko", "*.cmd", "*.mod", "*.mod.c", "__pycache__", _GIT)
_NAMED, _MODULES_NAMED = 3, 5  # how many of several names a message shows, and of modules

# An assignment to obj-m, or to obj-$(CONFIG_SOMETHING), which may come out as obj-m.
_OBJ_M = re.compile(r"^[^#\n]*\bobj-(?:m|\$[({])", re.MULTILINE)
_LICENCE = re.compile(r"\bMODULE_LICENSE\s*\(")
_INIT = re.compile(r"\b(?:module_\w+|builtin_\w+)\s*\(|\binit_module\b")
# Headers of the C library, which no part of a kernel module includes.
_PROGRAM = re.compile(r"^\s*#\s*include\s*<(?:stdio|stdlib|unistd|string|pthread)\.h>", re.M)
_INCLUDED = re.compile(r'^\s*#\s*include\s*"([^"\n]+\.c)"', re.MULTILINE)
_KBUILDS = (".c", ".S", ".rs")  # sources from which kbuild can make objects
_CPP = (".cpp", ".cc", ".cxx", ".C", ".c++")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".txz", ".zst", ".7z", ".rar")
# A C file's name with what browsers, copies and editors add to it (wee.c.txt, wee.c~), or wee.C.
_LIKE_C = re.compile(r"(?is).+\.c(?:\W.*)?")
# The byte order marks of UTF-16, which editors on Windows write for "Unicode".
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SUBMODULE = re.compile(r"^\s*path\s*=\s*(.+?)\s*$", re.MULTILINE)  # gitmodules(5)


class Recipe(enum.Enum):
    """By what a folder is built; the module's docstring says which one is chosen."""

    DKMS = "dkms.conf"
    KBUILD = "Kbuild"
    MAKEFILE = "Makefile"
    C_FILES = "C files"


@dataclass(frozen=True)
class Source:
    """What somebody named as the module under test: the options --module, --ko and --param."""

    path: Path  # a folder, a finished .ko file or, for a Debian package, deb:NAME
    only: tuple[str, ...] = ()  # the modules that are wanted and what they depend on; (): all
    params: tuple[str, ...] = ()  # NAME=VALUE for insmod, or MODULE.NAME=VALUE for one of several
    package: str = ""  # the name of the Debian package, if it is one
    suite: str = ""  # that package's suite; "": the kernel's

    @property
    def own(self) -> bool:
        """Whether it is this project's own module."""
        return self.path.resolve() == config.MODULE.resolve()

    @property
    def finished(self) -> bool:
        """Whether it is a .ko file that somebody has built, compressed or not."""
        return _KO_FILE.fullmatch(self.path.name) is not None and self.path.is_file()

    @property
    def folder(self) -> Path | None:
        """The module's own folder; a package and a finished module have none."""
        return None if self.package or self.finished else self.path.resolve()

    @property
    def name(self) -> str:
        """What messages call it."""
        if self.package:
            return self.package
        return f"{Path(os.path.abspath(self.path)).name}{'' if self.finished else '/'}"

    def __str__(self) -> str:
        return str(self.path)

    def arguments(self) -> list[str]:
        """The options of pytest that mean the same, from whichever folder it is started."""
        # A link to a .ko may lead to a file of another name, as in a store of packages.
        path = self.path if self.package else self.path.resolve()
        given = [f"--module={os.path.abspath(self.path) if self.finished else path}"]
        given += [f"--ko={','.join(self.only)}"] if self.only else []
        return [*given, *(f"--param={each}" for each in self.params)]


_KO_FILE = re.compile(r"(?s).+\.ko(\.(xz|zst|gz))?")

Given = Source | Path
"""What functions take for a source: a folder's path means all modules in it."""


def of(given: Given) -> Source:
    """What was given, as a ``Source``."""
    return given if isinstance(given, Source) else Source(given)


def parse(module: str | None, only: str | None = None, params: Sequence[str] = ()) -> Source:
    """What the options --module, --ko and --param (each time it was given) say.

    Raises ``InputError`` for what cannot be meant.
    """
    names = [] if only is None else [each.strip() for each in only.split(",")]
    for name in names:
        if not _KO_NAME.fullmatch(name):
            raise InputError(
                f"--ko {only!r} is no list of modules", hint="NAME[,NAME], as lsmod shows them"
            )
    for each in params:
        if not _PARAM.fullmatch(each):
            raise InputError(
                f"--param {each!r} sets no parameter",
                hint="NAME=VALUE, or MODULE.NAME=VALUE for one of several modules",
            )
    wanted = tuple(name.removesuffix(".ko").replace("-", "_") for name in names)
    package = suite = ""
    if module is not None and module.startswith("deb:"):
        found = _PACKAGE.fullmatch(module)
        if found is None:
            raise InputError(
                f"--module {module!r} names no Debian package",
                hint="deb:NAME, or deb:NAME/SUITE for another suite than the kernel's",
            )
        package, suite = found["name"], found["suite"] or ""
    path = config.MODULE if module is None else Path(module)
    return Source(path, wanted, tuple(params), package, suite)


_INI = "kernel_module"  # a setting of pytest's: harness/plugin
_INI_FILES = {"pyproject.toml": "tool.pytest.ini_options", "pytest.ini": "pytest"}


def named_in(folder: Path) -> str | None:
    """The module that pytest's ini file in a folder or in one above it names, as for --module.

    The nearest file that names one counts. A file that cannot be read is skipped: pytest itself
    will report it.
    """
    for place in (folder, *folder.parents):
        for name, section in _INI_FILES.items():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, configparser.Error):
                told = str(_settings(place / name, section)[_INI])
                if not told:  # an empty setting is none
                    continue
                return told if told.startswith("deb:") else str(place / told)
    return None


def _settings(path: Path, section: str) -> Mapping[str, Any]:
    """One section of an ini file, or a table of a TOML file; raises various errors."""
    text = path.read_text("utf-8")
    if path.suffix != ".toml":
        parser = configparser.ConfigParser()
        parser.read_string(text)
        return parser[section]
    table: Mapping[str, Any] = tomllib.loads(text)
    for word in section.split("."):
        table = table[word]
    return table


# From Debian's policy manual, 5.6.1, and the names that suites have.
_PACKAGE = re.compile(r"deb:(?P<name>[a-z0-9][a-z0-9+.-]+)(?:/(?P<suite>[a-z][a-z0-9-]+))?")
_KO_NAME = re.compile(r"\w[\w,.+-]*", re.ASCII)
# The kernel takes dashes and underscores for the same, and a name alone where it is a bool's.
_PARAM = re.compile(r"(?:\w[\w-]*\.)?\w[\w-]*(?:=[^\0\n\"]*)?", re.ASCII)


@dataclass(frozen=True)
class Folder:
    """A module's folder that was looked through."""

    root: Path  # the folder that is built: the one that was given, or one below it
    recipe: Recipe
    why: str  # which recipe was chosen and why, to be put behind "built"
    files: tuple[Path, ...]  # all files in ``root`` that are copied
    c_files: tuple[str, ...] = ()  # for C_FILES: the names of the files that are compiled
    left_out: str = ""  # what is not copied or not built although it may be meant


def inspect(folder: Path) -> Folder:
    """Look through a module's folder and choose how it is built.

    Raises ``InputError`` for what is not there, cannot be copied or holds no module's source.
    """
    if is_archive(folder):
        raise InputError(
            f"{folder} is an archive, and not a module's folder",
            hint="unpack it, and give the folder that comes out",
        )
    if not folder.is_dir():
        is_file = folder.is_file()
        raise InputError(
            f"{folder} is no folder and no .ko file" if is_file else f"there is no folder {folder}",
            hint="--module takes a module's folder, a finished .ko file, or deb:PACKAGE",
        )
    copied, outside = _files(folder)
    files = tuple(copied)
    for root in (folder, *_below(folder, files)):
        found = _recipe(folder, root, files)
        if found is not None and not _only_cpp(found, files):
            missing = (_left_out(folder, outside), _not_fetched(folder, files),
                       _not_built(found, files))  # fmt: skip
            return replace(found, left_out="; ".join(filter(None, missing)))
    raise _nothing(folder, files)


def _only_cpp(found: Folder, files: Sequence[Path]) -> bool:
    """Whether kbuild has nothing to build a module from but C++, which it does not know."""
    suffixes = {path.suffix for path in files}
    kbuild = found.recipe in (Recipe.KBUILD, Recipe.MAKEFILE)
    return kbuild and not suffixes.isdisjoint(_CPP) and suffixes.isdisjoint(_KBUILDS)


def _left_out(folder: Path, outside: Sequence[Path]) -> str:
    """A message about links that lead out of a folder, or ""."""
    names = [path.relative_to(folder).as_posix() for path in outside]
    if not names:
        return ""
    return (
        f"left out: {listed(names, _NAMED)}, as links to what is neither in this folder "
        "nor in a git checkout that it is in"
    )


def _not_fetched(folder: Path, files: Sequence[Path]) -> str:
    """A message about git submodules whose folders are empty, as they were not fetched, or ""."""
    gitmodules = folder / ".gitmodules"
    if gitmodules not in files:  # it may be a pipe, or a link to anything
        return ""
    parents = {parent for path in files for parent in path.parents}
    empty = [path for path in _SUBMODULE.findall(_text(gitmodules)) if folder / path not in parents]
    if not empty:
        return ""
    return (
        f"not there: {listed(empty, _NAMED)}, as git submodules that were not fetched "
        "(`git submodule update --init` does)"
    )


def _not_built(found: Folder, files: Sequence[Path]) -> str:
    """A message about folders with modules of their own, if C files above them are built, or "".

    Such is the folder of a class: an example's C file, and the folders of the students.
    """
    if found.recipe is not Recipe.C_FILES:
        return ""
    folders = sorted({found.root / path.relative_to(found.root).parts[0]
                      for path in found.files if path.parent != found.root})  # fmt: skip
    names = [f"{path.name}/" for path in folders if _recipe(found.root, path, files) is not None]
    return f"not built: {listed(names, _NAMED)}, as modules of their own" if names else ""


def is_archive(path: Path) -> bool:
    """Whether a path is an archive; a compressed .ko is none."""
    packed = path.suffix.lower() in _ARCHIVES and not _KO_FILE.fullmatch(path.name)
    return packed and path.is_file()


def says_how(folder: Path) -> bool:
    """Whether a folder itself, and not only one below it, says how it is built."""
    try:
        files = [path for path in sorted(folder.iterdir())[:_MAX_ENTRIES] if path.is_file()]
        return _recipe(folder, folder, files) is not None
    except OSError:
        return False  # ``inspect`` says why


def solves_exercise(folder: Folder) -> bool:
    """Whether the sources look like the exercise's: a device or a thread named eudyptula."""
    return any(
        _EXERCISE.search(_text(path)) for path in folder.files if path.suffix in (".c", ".h")
    )


# The name of the exercise's device and of its thread.
_EXERCISE = re.compile(r'"eudyptula"')


# -- which files there are ---------------------------------------------------------


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The regular files that are copied, also those behind links; the links that are left out.

    Raises ``InputError`` for a folder that is too large or cannot be read.
    """
    files = []
    within = _Within(folder)
    size = entries = 0
    try:
        for path, info in _walk(folder, within):
            # Links to folders above could go on for ever with nothing but empty folders.
            size += max(info.st_size, _BLOCK)
            entries += 1
            if size > _MAX_SOURCE:
                raise InputError(
                    f"{folder} holds more than {_MAX_SOURCE >> 20} MiB, "
                    "too much for a module's sources",
                    hint="what links lead to counts as well",
                )
            if entries > _MAX_ENTRIES:
                raise InputError(
                    f"{folder} holds more than {_MAX_ENTRIES} files and folders, "
                    "too many for a module's sources",
                    hint="give the folder of the module itself; what links lead to counts as well",
                )
            if stat.S_ISREG(info.st_mode):
                files.append(path)
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}",
            hint="all of a module's folder is copied; take out what is not for a build",
        ) from error
    return files, within.outside


class _Within:
    """Where a folder's links may lead: into the git checkout that it is in, or else into itself.

    The folder's own build scripts can read what is copied, and their output is shown to others. So
    a link must not give them a key from somebody's home, or what git has stored. ``outside`` are
    the links that were refused.
    """

    def __init__(self, folder: Path) -> None:
        self._top = folder.resolve()
        self.outside: list[Path] = []
        # A home that is itself a git checkout does not count.
        home = Path(os.path.realpath(os.path.expanduser("~")))
        for parent in (self._top, *self._top.parents):
            if parent in (home, Path("/")):
                break
            if (parent / _GIT).exists():
                self._top = parent
                break

    def leads_out(self, path: Path) -> bool:
        """Whether ``path`` is a link to somewhere else; it is added to ``outside``."""
        if not path.is_symlink():
            return False
        target = path.resolve()
        inside = target.is_relative_to(self._top)
        if inside and _GIT not in target.relative_to(self._top).parts:
            return False
        self.outside.append(path)
        return True


def _walk(
    folder: Path, within: _Within, above: tuple[tuple[int, int], ...] = ()
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
                continue  # a link to nothing, as editors make to lock a file
            raise
        if within.leads_out(path):
            continue
        if not os.access(path, os.R_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        if stat.S_ISDIR(info.st_mode) and _is_generated(path):
            continue
        yield path, info
        if stat.S_ISDIR(info.st_mode):
            yield from _walk(path, within, (*above, here))


def _is_generated(folder: Path) -> bool:
    """Whether a program has made a folder: a cache, the results of tests, a Python environment.

    A module that is tested from its own repository has all of these beside it. They are large, and
    change with each run.
    """
    return is_tagged(folder) or (folder / "pyvenv.cfg").is_file()


def _text(path: Path) -> str:
    """The beginning of a source file, whatever bytes it has."""
    with path.open("rb") as stream:
        return stream.read(_MAX_TEXT).decode(errors="replace")


# -- how it is built ---------------------------------------------------------------


def _below(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The one folder below ``folder`` that is a module's, or []; [] if ``folder`` itself is one.

    Of folders within each other the outer one counts. Raises ``InputError`` for several.
    """
    if _recipe(folder, folder, files) is not None:
        return []
    found: list[Path] = []
    for parent in sorted({path.parent for path in files} - {folder}):
        within = any(parent.is_relative_to(outer) for outer in found)
        if not within and _recipe(folder, parent, files) is not None:
            found.append(parent)
    if len(found) > 1:
        names = [path.relative_to(folder).as_posix() for path in found]
        raise InputError(
            f"{folder} holds the sources of several modules: {listed(names, _MODULES_NAMED)}",
            hint=f"give one of them, such as --module {found[0]}",
        )
    return found


def _recipe(given: Path, root: Path, files: Sequence[Path]) -> Folder | None:
    """How the folder ``root`` is built, or None if it is no module's.

    ``given`` is the folder that a person named; messages name ``root`` as seen from there.
    """
    inside = tuple(path for path in files if path.is_relative_to(root))
    top = {path.name: path for path in inside if path.parent == root}
    where = "" if root == given else f" in {root.relative_to(given).as_posix()}/"
    if "dkms.conf" in top:
        return Folder(root, Recipe.DKMS, f"by dkms and its dkms.conf{where}", inside)
    if "Kbuild" in top:
        return Folder(root, Recipe.KBUILD, f"by Kbuild{where}", inside)
    sources = c_files(top.values())
    if "Makefile" in top:
        makefiles = [
            path for name, path in top.items() if re.search(r"Makefile|\.mk$|\.inc$", name)
        ]
        if any(_OBJ_M.search(_text(path)) for path in makefiles):
            return Folder(
                root, Recipe.MAKEFILE,
                f"by the obj-m lines of the Makefile{where}: there is no Kbuild", inside,
            )  # fmt: skip
    if any(source.main for source in sources.values()):
        but = "the Makefile has no obj-m" if "Makefile" in top else "there is no Kbuild or Makefile"
        names = tuple(sorted(sources))
        return Folder(
            root, Recipe.C_FILES, f"by obj-m for {', '.join(names)}{where}: {but}", inside, names
        )
    return None


@dataclass(frozen=True)
class CFile:
    """A C file of a module; ``main``: it has a licence or an init function, as one file must."""

    path: Path
    main: bool


def c_files(paths: Iterable[Path]) -> dict[str, CFile]:
    """The C files that are compiled, by their names.

    Left out are programs for user space, which often lie beside a module to try it, files that
    another one includes, and hidden files, which macOS (._NAME) and editors write.
    """
    texts = {
        path: _text(path) for path in paths if path.suffix == ".c" and not path.name.startswith(".")
    }
    included = {
        PurePosixPath(name).name for text in texts.values() for name in _INCLUDED.findall(text)
    }
    return {
        path.name: CFile(path, bool(_LICENCE.search(text) or _INIT.search(text)))
        for path, text in texts.items()
        if path.name not in included and not _PROGRAM.search(text)
    }


def _nothing(folder: Path, files: Sequence[Path]) -> InputError:
    """The error for a folder without a module's source. It says what there is instead."""
    hint = "it needs C files with MODULE_LICENSE(), or a Makefile or Kbuild with an obj-m line"
    objects = sorted(path.name for path in folder.glob("*.ko*"))
    if objects:
        hint = f"a finished module is given by its file: --module {folder / objects[0]}"
    told = next(filter(None, map(_mistake, files)), None)
    if told is not None:
        what, hint = told
        return InputError(f"{folder} {what}", hint=hint)
    not_fetched = _not_fetched(folder, files)
    if not_fetched:
        return InputError(f"{folder} holds no source of a module; {not_fetched}", hint=hint)
    if not files:
        return InputError(f"{folder} holds no files, so there is no module to build", hint=hint)
    program = next((path for path in files if path.suffix == ".c" and _is_program(path)), None)
    but = f", but a program for user space ({program.name})" if program else ""
    return InputError(f"{folder} holds no source of a module{but}", hint=hint)


def _mistake(path: Path) -> tuple[str, str] | None:
    """What is wrong with a file that may be meant as a module's source, and what to do; or None."""
    if _is_misnamed(path):
        name = f"{re.split(r'(?i)[.]c(?!.*[.]c)', path.name)[0]}.c"
        what = f"has the source of a module in {path.name}, and the name of a C file ends in .c"
        return what, f"rename it to {name}"
    if path.suffix in _CPP:
        what = f"holds C++ ({path.name}), and kernel modules are written in C"
        return what, "the kernel has no C++ runtime; see its Documentation/process/howto.rst"
    if path.suffix == ".c" and _begins_with(path, _UTF_16):
        what = f"has {path.name} as UTF-16, which the compiler does not read"
        return what, f"save it as UTF-8, or run `iconv -f UTF-16 -t UTF-8 {path.name}`"
    if is_archive(path):
        what = f"holds no source of a module, but an archive ({path.name})"
        return what, "unpack it, and give the folder that comes out"
    return None


def _is_misnamed(path: Path) -> bool:
    """Whether a file has a module's source, and a name that is like a C file's but none."""
    if path.suffix == ".c" or not _LIKE_C.fullmatch(path.name) or path.name.startswith("."):
        return False
    return _LICENCE.search(_text(path)) is not None


def _is_program(path: Path) -> bool:
    return _PROGRAM.search(_text(path)) is not None


def _begins_with(path: Path, any_of: Sequence[bytes]) -> bool:
    with path.open("rb") as stream:
        return stream.read(max(map(len, any_of))) in any_of


# -- C files without a Makefile ----------------------------------------------------


def object_name(name: str, taken: Collection[str] = ()) -> str:
    """The name of the object that a C file becomes where obj-m is made up, without its suffix.

    make splits at blanks, and kbuild turns commas and dashes into underscores. So all characters
    but letters and digits become underscores. A name in ``taken`` gets a number.
    """
    stem = re.sub(r"\W+", "_", name.removesuffix(".c"), flags=re.ASCII)
    stem = stem if stem.replace("_", "") else "nameless"  # the kernel refuses "module"
    # A name that needs no change keeps the underscores at its ends.
    stem = stem.strip("_") if f"{stem}.c" != name else stem
    found, number = stem, 1
    while found in taken:
        number += 1
        found = f"{stem}_{number}"
    return found


@dataclass(frozen=True)
class Symbols:
    """The names of the functions and variables by which an object file is linked to others."""

    defines: frozenset[str]  # for other objects
    exports: frozenset[str]  # of these, what other modules may use as well (EXPORT_SYMBOL)
    uses: frozenset[str]  # of other objects


def symbols_in(listing: str) -> Symbols:
    """What ``nm --format=posix`` printed of one object file (nm(1)): NAME KIND ...

    KIND is a capital letter for a global symbol. An exported symbol has a local one beside it,
    __ksymtab_NAME or, since 6.5, __export_symbol_NAME (include/linux/export.h).
    """
    defines, uses, exports = set(), set(), set()
    for line in listing.splitlines():
        name, kind, *_ = [*line.split(" "), "", ""]
        exported = re.match(r"__(?:ksymtab|export_symbol)_(.+)", name)
        if exported:
            exports.add(exported[1])
        elif kind in ("U", "w"):
            uses.add(name)
        elif kind.isupper():
            defines.add(name)
    return Symbols(frozenset(defines), frozenset(exports), frozenset(uses))


def groups(objects: Mapping[str, Symbols]) -> list[list[str]]:
    """Which object files make up one module: those that need each other.

    One needs another if it uses what the other defines and does not export to other modules.
    """
    # init_module and cleanup_module are defined by each module, and used by none.
    parent = {name: name for name in objects}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for user, its in objects.items():
        for owner, other in objects.items():
            if user != owner and its.uses & (other.defines - other.exports):
                parent[root(user)] = root(owner)
    found: dict[str, list[str]] = {}
    for name in sorted(objects):
        found.setdefault(root(name), []).append(name)
    return sorted(found.values())


def derived(parts: Sequence[Sequence[str]], folder: str, mains: Collection[str] = ()) -> str:
    """The text of a Kbuild file for modules; ``parts`` has the object names of each of them.

    A module of several objects may not have the name of one of these, as kbuild would link it into
    itself. It is named after the ``folder``, or after the one of its objects that is in ``mains``.
    """
    lines = ["# made up by the harness: this folder has C files and nothing that says how they",
             "# are built"]  # fmt: skip
    taken = {name for part in parts for name in part}
    for part in parts:
        if len(part) == 1:
            lines.append(f"obj-m += {part[0]}.o")
            continue
        main = next((name for name in part if name in mains), part[0])
        name = object_name(folder)
        if name in taken:
            name = object_name(f"{main}_module", taken)
        taken.add(name)
        lines += [f"obj-m += {name}.o", f"{name}-y := {' '.join(f'{one}.o' for one in part)}"]
    return "\n".join(lines) + "\n"
