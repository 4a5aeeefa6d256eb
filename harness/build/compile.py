# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that are compiled here: from Debian's linux-source package, or a person's own tree.

Configured as `make tinyconfig` with the fragments of vm/kconfig/ on top, and built out of
tree (O=) in a sandbox without a network, by the compiler of the suite's own kernel.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config import PROJECT, KernelSpec
from harness.errors import DeadlineError, InputError, KernelBuildError, SandboxError
from harness.host import debian, files, proc, progress, sandbox
from harness.host.cache import WAIT_SECONDS, Cache, Entry, digest_of
from harness.host.debian import Sysroot
from harness.host.proc import Deadline
from harness.host.progress import HowFar
from harness.host.text import printable

log = logging.getLogger(__name__)

FRAGMENTS = PROJECT / "vm" / "kconfig"
# Where the two trees are in the sandbox, when the kernel is built and when a module is.
SOURCE = "/mnt/linux"
BUILD = "/mnt/build"

COMPILE_SECONDS = 4 * 3600.0  # at most, on a slow and busy host
# For a kernel that another run compiles: unpacking and configuring come first.
_WAIT_SECONDS = COMPILE_SECONDS + WAIT_SECONDS
QUICK_SECONDS = 600.0
CCACHE_SIZE = "2G"
# In bytes, of what a build has left: a .config, and a vmlinux with its debug information.
_MAX_TEXT = 8 << 20
_MAX_IMAGE = 16 << 30
_RELEASE = re.compile(r"\w[\w.+~-]*", re.ASCII)  # it becomes a folder's name

# What the headers' package brings is the compiler that built the suite's own kernel.
TOOLS = (
    "base-files", "bash", "bc", "bison", "ccache", "coreutils", "dash", "diffutils", "findutils",
    "flex", "gawk", "grep", "gzip", "kmod", "libc6-dev", "libelf-dev", "libssl-dev",
    "linux-headers-cloud-amd64", "make", "perl-base", "python3-minimal", "sed", "sparse", "tar",
    "xz-utils",
    # What a config that somebody brings may want: signed modules, BTF, other compressions.
    "cpio", "openssl", "pahole", "zstd",
)  # fmt: skip

# Half of the sources are for other processors, other hardware, or to be read: leaving that
# packed saves half of the time. Kconfig and Makefiles are kept wherever they are.
_LEFT_PACKED = (
    "arch/[!x]*/*.[chS]", "arch/*/dts/*", "Documentation/*/*", "drivers/gpu/drm/*/*.[ch]",
    "drivers/infiniband/*.[ch]", "drivers/media/*.[ch]", "drivers/net/ethernet/*.[ch]",
    "drivers/net/wireless/*.[ch]", "drivers/staging/*.[ch]", "sound/*.[ch]",
    "tools/perf/*", "tools/testing/*",
)  # fmt: skip

# How many lines kbuild prints for a profile, for the progress bar; measured on 6.12.
_STEPS = {"debug": 1700, "race": 1600}

# What building a module needs of the sources and of the build (Debian's linux-headers have
# the same), and what this harness needs of the build.
_KEPT_SOURCE = (
    "Makefile", "Kbuild", "arch/x86/Makefile*", "arch/x86/include", "include", "scripts",
)  # fmt: skip
_KEPT_BUILD = (
    ".config", "Makefile", "Module.symvers", "System.map", "arch/x86/include/generated", "include",
    "scripts", "tools/objtool/objtool",
)  # fmt: skip


@dataclass(frozen=True)
class Built:
    """A kernel that was compiled here; ``entry`` keeps all of it in the cache.

    ``vmlinux`` has the debug information, ``boot`` is what QEMU is given.
    """

    release: str
    entry: Entry
    tools: Sysroot

    @property
    def image(self) -> Path:
        return self.entry.path / "bzImage"

    @property
    def boot(self) -> Path:
        # Without an accelerator, a kernel takes a second and a half to decompress itself; but
        # with KASAN it does not come up through its PVH entry (seen with 6.12: it ends before
        # it says a word), because code runs there before KASAN's shadow memory is set up.
        there = options(self.config.read_text())
        direct = there.get("CONFIG_PVH") == "y" and there.get("CONFIG_KASAN", "n") == "n"
        return self.entry.path / "boot" / "vmlinux" if direct else self.image

    @property
    def vmlinux(self) -> Path:
        return self.entry.path / "vmlinux"

    @property
    def config(self) -> Path:
        return self.entry.path / "build" / ".config"

    @property
    def modules(self) -> Path:
        return self.entry.path / "lib" / "modules" / self.release

    @property
    def mounts(self) -> dict[str, Path]:
        """The folders that a sandbox needs, read-only, to build a module for this kernel."""
        return {SOURCE: self.entry.path / "linux", BUILD: self.entry.path / "build"}


# -- configuration: pure -----------------------------------------------------------


def options(text: str) -> dict[str, str]:
    """The options of a .config or a fragment, by name; "n" for one that "is not set"."""
    found = {}
    for line in text.splitlines():
        unset = re.fullmatch(r"# (CONFIG_\w+) is not set", line)
        given = re.fullmatch(r"(CONFIG_\w+)=(.*)", line)
        if unset:
            found[unset[1]] = "n"
        elif given:
            found[given[1]] = given[2]
    return found


def merge(fragments: Sequence[str]) -> dict[str, str]:
    """The options of all fragments; the last one that names an option has it."""
    return {name: value for text in fragments for name, value in options(text).items()}


def config_text(wanted: Mapping[str, str]) -> str:
    """Options as Kconfig reads them."""
    return "".join(
        f"# {name} is not set\n" if value == "n" else f"{name}={value}\n"
        for name, value in wanted.items()
    )


def lost(wanted: Mapping[str, str], config: str) -> list[str]:
    """The options that ``config`` has otherwise than ``wanted``, each with what it has."""
    there = options(config)
    return [
        f"{name}={value} (is {there.get(name, 'n')})"
        for name, value in wanted.items()
        if there.get(name, "n") != value
    ]


# Loaded from the initramfs, all others have to be there before it is unpacked.
_MAY_BE_MODULES = {"CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_NET"}


_FOUND_OUT = re.compile(r"CONFIG_(?:CC|GCC|CLANG|AS|LD|LLD|RUSTC?|PAHOLE)_(?!OPTIMIZE)\w*=")


def missing(boot: str, config: str) -> list[str]:
    """The options of ``boot`` (boot.config) that ``config`` lacks; without them it cannot boot."""
    there = options(config)
    lacks = []
    for name, value in options(boot).items():
        enough = {value, "m"} if name in _MAY_BE_MODULES else {value}
        if there.get(name, "n") not in enough:
            lacks.append(f"{name}={value}")
    return lacks


def fragments(profile: str) -> list[str]:
    """The texts of the fragments for a profile, or for none; raises ``InputError``."""
    names = ["boot", "base", *([profile] if profile else [])]
    known = {path.stem: path for path in sorted(FRAGMENTS.glob("*.config"))}
    if profile and (profile not in known or profile in ("boot", "base")):
        others = ", ".join(name for name in known if name not in ("boot", "base"))
        raise InputError(f"there is no profile named {profile!r}", hint=f"known profiles: {others}")
    return [known[name].read_text() for name in names]


# -- from the archive --------------------------------------------------------------


def from_suite(spec: KernelSpec, cache: Cache) -> Built:
    """The kernel of the suite's linux-source package, ``spec.version``, with ``spec.profile``.

    An interrupted build goes on where it was. Raises ``KernelBuildError`` (also for options
    that did not survive, and names them), ``NetworkError``, ``SpaceError``.
    """
    texts = fragments(spec.profile)
    tools = _tools(spec.suite, cache)
    key = {
        "recipe": [1, *_LEFT_PACKED, *_KEPT_SOURCE, *_KEPT_BUILD],
        "tools": tools.entry.digest,
        "source": spec.version,
        "config": merge(texts),
    }
    name = f"build-{spec.name}-{digest_of(key)}"

    def make(folder: Path) -> None:
        with cache.workdir(name, wait=_WAIT_SECONDS) as work:
            if not (work / "linux").exists():
                _unpack_source(work, spec.suite, spec.version, tools, cache)
            tree = _Tree(work / "linux", work / "build", tools, cache)
            tree.configure(merge(texts))
            tree.compile(_STEPS.get(spec.profile))
            tree.collect(folder)

    entry = cache.get(
        "kernel", spec.name, key, make,
        note=f"kernel {spec.name}: compiling Debian {spec.suite}'s linux-source "
        "(about ten minutes on two cores, once; when interrupted it goes on where it was)",
        wait=_WAIT_SECONDS,
    )  # fmt: skip
    if cache.keeps(name):
        with cache.workdir(name) as work:
            shutil.rmtree(work, ignore_errors=True)
    return Built((entry.path / "release").read_text(), entry, tools)


def _tools(suite: str, cache: Cache) -> Sysroot:
    return debian.unpack_packages(
        cache,
        label=f"build-{suite}",
        suite=suite,
        packages=TOOLS,
        note=f"downloading and unpacking what compiles a kernel, from Debian {suite} (about 20 s)",
    )


def _unpack_source(work: Path, suite: str, version: str, tools: Sysroot, cache: Cache) -> None:
    """Put the suite's kernel sources into ``work/linux``, whole or not at all."""
    with cache.scratch("linux-source") as scratch:
        debian.unpack(scratch, suite, [f"linux-source={version}"])
        packed = next((scratch / "root/usr/src").glob("linux-source-*.tar.xz"))
        fresh = scratch / "fresh"
        fresh.mkdir()
        omitted = [f"--exclude=linux-source-*/{pattern}" for pattern in _LEFT_PACKED]
        sandbox.run(
            tools.root,
            ["tar", "-C", "/mnt/out", "-xJf", f"/mnt/in/{packed.name}", "--strip-components=1",
             "--wildcards", *omitted],
            deadline=Deadline(QUICK_SECONDS),
            read_only={"/mnt/in": packed.parent},
            writable={"/mnt/out": fresh},
        )  # fmt: skip
        fresh.rename(work / "linux")


# -- a person's own tree -----------------------------------------------------------


def from_tree(spec: KernelSpec, cache: Cache) -> Built:
    """The kernel of ``spec.tree``, built with what its files are now.

    With ``spec.config``, that file is its config as it is; else the least that boots here,
    and ``spec.profile``. The build is kept, so that the next one compiles what has changed.
    Raises what ``from_suite`` does, and ``InputError`` for a tree that cannot be built.
    """
    assert spec.tree is not None
    check_tree(spec.tree)
    texts = fragments(spec.profile)
    own = read_config(spec.config, texts[0]) if spec.config else None
    tools = _tools(spec.suite, cache)
    wanted = {"tools": tools.entry.digest, "own": own, "config": merge(texts)}
    place = {"tree": str(spec.tree), "profile": spec.profile, "config": str(spec.config or "")}
    with cache.workdir(f"tree-{spec.name}-{digest_of(place)}", wait=_WAIT_SECONDS) as work:
        # Whoever asks while nothing has changed gets the same kernel without a make.
        now = digest_of({"recipe": 1, **wanted, "tree": fingerprint(spec.tree)})
        stamp = work / "stamp"
        known = stamp.read_text().split() if stamp.exists() else []
        tree = _Tree(spec.tree, work / "build", tools, cache)
        if known[:1] != [now]:
            stamp.unlink(missing_ok=True)
            if own is None:
                tree.configure(merge(texts), known_only=True)
            else:
                tree.use(own, texts[0])
            what = (
                f"kernel {spec.name}: compiling {spec.tree} (ten minutes on two cores for a debug "
                "kernel; the next time what has changed)"
            )
            with progress.stage(what):
                tree.compile(None)
            known = [now, tree.content()]
            files.write(stamp, " ".join(known))
        entry = cache.get("kernel", spec.name, {"recipe": 1, "content": known[1]}, tree.collect)
    return Built((entry.path / "release").read_text(), entry, tools)


def check_tree(tree: Path) -> None:
    """Raise ``InputError`` unless ``tree`` is a kernel's sources that O= accepts."""
    marks = ("Makefile", "Kbuild", "Kconfig", "arch/x86/Kconfig", "scripts/kconfig")
    lacks = [mark for mark in marks if not (tree / mark).exists()]
    if lacks:
        raise InputError(
            f"{tree} is not a kernel tree: it has no {lacks[0]}",
            hint="--kernel takes the top folder of a kernel's sources",
        )
    # What the top Makefile looks at in its target outputmakefile.
    for left in (".config", "include/config", "arch/x86/include/generated"):
        if (tree / left).exists():
            raise InputError(
                f"{tree} has been built in ({left} is there), and the kernel's build system then "
                "refuses to build elsewhere",
                hint=f"save its .config if it is wanted (--config takes it), then "
                f"`make -C {tree} mrproper`",
            )


def read_config(path: Path, boot: str) -> str:
    """A config that somebody brings, if it can boot here; raises ``InputError``."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", hint="--config takes a .config") from error
    if not options(text):
        raise InputError(f"{path} has no CONFIG_ line", hint="--config takes a kernel's .config")
    lacks = missing(boot, text)
    if lacks:
        raise InputError(
            f"a kernel with {path} cannot boot here; it lacks\n" + "\n".join(lacks),
            hint="add these lines (vm/kconfig/boot.config says what each is for)",
        )
    return text


def fingerprint(tree: Path) -> str:
    """Stands for what the files of a tree are now, by size and time of change."""
    whole = hashlib.sha256()
    for folder, folders, names in os.walk(tree):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            path = os.path.join(folder, name)
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
                whole.update(f"{path}\0{info.st_size} {info.st_mtime_ns}\0".encode())
    return whole.hexdigest()


def symbols(tree: Path) -> set[str]:
    """All options that a tree's Kconfig files define, as CONFIG_NAME."""
    pattern = re.compile(r"^\s*(?:menu)?config\s+(\w+)", re.MULTILINE)
    found: set[str] = set()
    for folder, _, names in os.walk(tree):
        for name in names:
            if name.startswith("Kconfig"):
                text = Path(folder, name).read_text(errors="replace")
                found.update(f"CONFIG_{symbol}" for symbol in pattern.findall(text))
    return found


# -- make --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tree:
    """A kernel's sources, the folder that they are built in, and what builds them."""

    source: Path
    build: Path
    tools: Sysroot
    cache: Cache

    @property
    def log(self) -> Path:
        # Beside the folder that a build may write to: there it could put a link in its place.
        return self.build.with_name("harness.log")

    def configure(self, wanted: Mapping[str, str], *, known_only: bool = False) -> None:
        """tinyconfig and ``wanted`` on top; all of it must survive.

        With ``known_only``, options that this kernel does not have at all are only named.
        """
        if known_only:
            there = symbols(self.source)
            unknown = [name for name in wanted if name not in there]
            if unknown:
                log.info("this kernel has no %s", ", ".join(unknown))
            wanted = {name: value for name, value in wanted.items() if name in there}
        self._make("tinyconfig")
        config = self._taken(".config") + config_text(wanted)
        self._put(config)
        self._make("olddefconfig")
        gone = lost(wanted, self._taken(".config"))
        if gone:
            raise KernelBuildError(
                "options asked for did not survive the kernel's configuration:\n" + "\n".join(gone),
                hint="what they depend on is missing or has changed; see vm/kconfig/",
            )

    def use(self, text: str, boot: str) -> None:
        """Somebody's config; options that it says nothing about get their defaults.

        What this kernel does not take of it is named, and must be none of ``boot``.
        """
        self.build.mkdir(exist_ok=True)
        self._put(text)
        self._make("olddefconfig")
        config = self._taken(".config")
        wanted = {name: value for name, value in options(text).items() if value != "n"}
        # Those of a compiler are found out anew each time.
        told = [each for each in lost(wanted, config) if not _FOUND_OUT.match(each)]
        if told:
            log.info("this kernel does not take of the config:\n%s", printable("\n".join(told)))
        lacks = missing(boot, config)
        if lacks:
            raise KernelBuildError(
                "a kernel with this config cannot boot here; it lacks\n" + "\n".join(lacks),
                hint="the config has them, and what they depend on is missing or has changed",
            )

    def _taken(self, name: str) -> str:
        """A small file that the build has written, which may be of somebody's making."""
        return sandbox.take(self.build, name, _MAX_TEXT).decode(errors="replace")

    def _put(self, config: str) -> None:
        """Write the config; not into what the build may have put in its place."""
        fresh = self.build.with_name("harness.config")
        fresh.write_text(config)
        fresh.rename(self.build / ".config")

    def compile(self, steps: int | None) -> None:
        """Build the kernel and its modules, and install these into the build folder."""
        jobs = len(os.sched_getaffinity(0))
        self._forget_torn()
        self._unfinished.touch()
        with progress.detail(lambda: _how_far(self.log, steps)):
            self._make(f"-j{jobs}", "all", seconds=COMPILE_SECONDS)
        self._unfinished.unlink()
        shutil.rmtree(self.build / "installed", ignore_errors=True)
        self._make(f"-j{jobs}", "modules_install", f"INSTALL_MOD_PATH={BUILD}/installed",
                   "INSTALL_MOD_STRIP=1")  # fmt: skip

    @property
    def _unfinished(self) -> Path:
        """There while the tree is compiled, and since then if that was interrupted."""
        return self.build.with_name("harness.unfinished")

    def _forget_torn(self) -> None:
        """Remove what an interrupted compilation wrote: the last of it may be half a file,
        which is newer than its sources and so would never be made again. kbuild keeps the
        command of each target X in .X.cmd; with ccache it is soon made again.
        """
        if not self._unfinished.exists():
            return
        since = self._unfinished.stat().st_mtime
        for command in self.build.rglob(".*.cmd"):
            target = command.with_name(command.name[1 : -len(".cmd")])
            if target.is_file() and target.stat().st_mtime >= since:
                target.unlink()

    def content(self) -> str:
        """Stands for all that ``collect`` takes: a header or a driver may change alone."""
        whole = hashlib.sha256()
        vmlinux = (self.build / "vmlinux", Path("vmlinux"))
        installed = self.build / "installed"
        for path, name in (
            vmlinux, *_files(self.source, _KEPT_SOURCE), *_files(self.build, _KEPT_BUILD),
            *_files(installed, ("lib",)),
        ):  # fmt: skip
            content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
            whole.update(f"{name}\0{len(content)}\0".encode() + content)
        return whole.hexdigest()

    def collect(self, folder: Path) -> None:
        """Copy what is needed to boot this kernel and to build modules for it."""
        release = self._taken("include/config/kernel.release").strip()
        if not _RELEASE.fullmatch(release):
            raise KernelBuildError(
                f"the kernel calls its release {release!r}, which is no name",
                hint="see CONFIG_LOCALVERSION and the files localversion* of the kernel tree",
            )
        (folder / "release").write_text(release)
        for name in ("arch/x86/boot/bzImage", "vmlinux"):
            with (
                sandbox.opened(self.build, name, _MAX_IMAGE) as stream,
                (folder / Path(name).name).open("wb") as copy,
            ):
                shutil.copyfileobj(stream, copy)
        (folder / "boot").mkdir()
        sandbox.run(
            self.tools.root,
            ["strip", "--strip-debug", "-o", "/mnt/out/boot/vmlinux", f"{BUILD}/vmlinux"],
            deadline=Deadline(QUICK_SECONDS),
            read_only={BUILD: self.build},
            writable={"/mnt/out": folder},
        )
        _copy(self.source, folder / "linux", _KEPT_SOURCE)
        _copy(self.build, folder / "build", _KEPT_BUILD)
        modules = self.build / "installed" / "lib" / "modules" / release
        shutil.copytree(
            modules,
            folder / "lib" / "modules" / release,
            ignore=shutil.ignore_patterns("build", "source"),
        )

    def _make(self, *arguments: str, seconds: float = QUICK_SECONDS) -> None:
        ccache = self.cache.root / "ccache"
        for path in (ccache, self.build):
            path.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        what = f"the kernel does not build ({arguments[-1]})"
        try:
            done = sandbox.run(
                self.tools.root,
                ["make", f"O={BUILD}", "CC=ccache gcc", *arguments],
                deadline=Deadline(seconds),
                log=self.log,
                check=False,  # what a compiler quotes may be a message of any kind of failure
                read_only={SOURCE: self.source},
                writable={BUILD: self.build, "/mnt/ccache": ccache},
                cwd=SOURCE,
                env={
                    "CCACHE_DIR": "/mnt/ccache",
                    "CCACHE_MAXSIZE": CCACHE_SIZE,
                    # The same sources give the same kernel.
                    "KBUILD_BUILD_TIMESTAMP": "@0",
                    "KBUILD_BUILD_USER": "eudyptula",
                    "KBUILD_BUILD_HOST": "sandbox",
                    "KBUILD_BUILD_VERSION": "1",
                },
            )
        except (DeadlineError, SandboxError) as error:
            tail = complaints(sandbox.log_text(self.log))
            raise KernelBuildError(
                f"{what}: {error.what}", tail=tail, log=self.log, hint=error.hint
            ) from error
        if done.status != 0:
            full = proc.no_space(self.build, "compiling the kernel failed")
            said = sandbox.log_text(self.log)
            hint = sandbox.KERNEL.hint(said)
            raise full or KernelBuildError(what, tail=complaints(said), log=self.log, hint=hint)


def complaints(output: str) -> str:
    """The lines of a failed build that say why; with several jobs they are not the last."""
    pattern = re.compile(r"error:|undefined reference|\*\*\* |No space left|Killed")
    said = [line for line in output.splitlines() if pattern.search(line)]
    return "\n".join(said[: proc.TAIL_LINES] or output.splitlines()[-proc.TAIL_LINES :])


def _files(folder: Path, patterns: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Each file below what the patterns match, and its path from ``folder``; in a fixed order.

    But for what compilers leave, which is nothing that modules need, and the links from
    installed modules back to the trees.
    """
    for pattern in patterns:
        for found in sorted(folder.glob(pattern)):
            above = [found, *found.parents]
            if any(path.is_symlink() for path in above[: above.index(folder)]):
                continue  # a build could lead out of its folder so
            inside = sorted(found.rglob("*")) if found.is_dir() else [found]
            for path in inside:
                link = path.is_symlink()
                left = path.suffix in (".o", ".cmd", ".a")
                back = link and path.name in ("build", "source")
                if not left and not back and (link or path.is_file()):
                    yield path, path.relative_to(folder)


def _copy(source: Path, target: Path, patterns: Sequence[str]) -> None:
    for path, name in _files(source, patterns):
        to = target / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to, follow_symlinks=False)


# -- progress ----------------------------------------------------------------------


def steps_in(output: str) -> int:
    """How many steps kbuild has said that it takes; each is a line such as "  CC  a.o"."""
    return len(re.findall(r"^  [A-Z][A-Z0-9_]* ", output, re.MULTILINE))


def _how_far(output: Path, steps: int | None) -> HowFar:
    """How far a build has come, by what make has written to a file."""
    count = steps_in(output.read_text(errors="replace"))
    if steps is None:
        return HowFar(f"{count} steps")
    # The number of steps is an estimate, and what is not done is not shown as done.
    done = min(count, steps - 1)
    return HowFar(f"{done} of about {steps} steps", done / steps)
