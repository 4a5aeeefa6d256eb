# SPDX-License-Identifier: GPL-2.0-only
"""Reads vm/kernels.toml, the file that names the kernels and the guest, and vm/kernels.lock,
the one that says which exact kernels these were when they were last tested.

Every error names the file, the key, and what would be right.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import InputError

_BUNDLE = "bundle"


def _project(package: Path) -> Path:
    """The folder that has vm/, module/ and tests/: the checkout's, or what setup.py has copied."""
    checkout = package.parent
    return checkout if (checkout / "vm" / "kernels.toml").exists() else package / _BUNDLE


PROJECT = _project(Path(__file__).resolve().parent)
IS_CHECKOUT = PROJECT.name != _BUNDLE
KERNELS_TOML = PROJECT / "vm" / "kernels.toml"
KERNELS_LOCK = PROJECT / "vm" / "kernels.lock"
MODULE = PROJECT / "module"
RESULTS = PROJECT / "results"  # harness/runs/store.py says what is in it
# Modules that `invoke build` made, as build/KERNEL/NAME.ko, and the logs of builds that failed.
BUILD = PROJECT / "build"
# Folders of tests by the names that --suite takes. The contract is for any solution of the exercise
# that module/ solves, and "any" is for any module at all. The other two are about module/ and about
# the harness itself.
SUITES = {
    "contract": "tests/vm/contract",
    "any": "tests/vm/any",
    "module": "tests/vm/module",
    "harness": "tests/vm/harness",
}

_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")
# What begins like a kernel's version is taken for one: 6.12, 6.12.107, 6.1.0-53-cloud-amd64.
_VERSION = re.compile(r"[0-9]+\.[0-9]+[a-z0-9.+~-]*")
_LOCK_HEAD = """\
# SPDX-License-Identifier: GPL-2.0-only
#
# The exact kernels that were last tested. `invoke kernels --update` writes this file.
"""


@dataclass(frozen=True)
class KernelSpec:
    """A kernel that can be asked for: an entry of the matrix, or a person's own tree.

    It is either a distribution's, with a ``flavour``, or built from source with a
    ``profile`` (vm/kconfig/PROFILE.config): the suite's linux-source package, or ``tree``, which
    may bring a ``config`` of its own instead.
    ``release`` and ``version`` (of the package) are those of vm/kernels.lock; without them,
    the newest in the archive is meant. A ``release`` alone asks for that one, and an empty
    ``suite`` then means whichever suite has it.
    """

    name: str
    suite: str
    flavour: str = ""
    about: str = ""
    profile: str = ""
    tree: Path | None = None
    release: str = ""
    version: str = ""
    config: Path | None = None

    @property
    def asked(self) -> str:
        """The name or path by which --kernel selects this kernel, from any folder."""
        return self.name if self.tree is None else str(self.tree)

    @property
    def what(self) -> str:
        """Where it comes from, in a word or two."""
        if self.tree is not None:
            return str(self.tree)
        return f"{self.suite} {self.flavour or self.profile}".strip()


@dataclass(frozen=True)
class Locked:
    """An entry of vm/kernels.lock: the exact kernel that was last tested.

    ``release`` is what ``uname -r`` says (for a kernel from source: what the sources are),
    ``version`` that of the Debian package, ``what`` its suite and flavour or profile.
    """

    what: str
    release: str
    version: str


@dataclass(frozen=True)
class GuestSpec:
    """The packages and modules that the guest is made of; the same for every kernel."""

    suite: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Equipment:
    """The devices and packages that the machines of a run have besides the usual ones.

    ``devices`` are QEMU's, each as its option -device takes it: NAME[,OPTION=VALUE...].
    ``packages`` are Debian packages for the guest.
    """

    devices: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """The options of tasks and of pytest that mean the same."""
        given = [f"--device={device}" for device in self.devices]
        return [*given, *([f"--guest-packages={','.join(self.packages)}"] if self.packages else [])]


def equipment(devices: Sequence[str] | None, packages: str | None) -> Equipment:
    """The equipment that all options --device and the option --guest-packages name.

    Raises ``InputError`` for what names no package.
    """
    names = [] if packages is None else [name.strip() for name in packages.split(",")]
    for name in names:
        if not _PACKAGE.fullmatch(name):
            raise InputError(
                f"--guest-packages {packages!r}: {name!r} names no Debian package",
                hint="NAME[,NAME], such as pciutils,strace",
            )
    return Equipment(tuple(devices or ()), tuple(sorted(set(names))))


def check_recording(*, record: bool, coverage: bool, devices: Sequence[str]) -> None:
    """Raise ``InputError`` for options of a run that exclude each other."""
    if coverage and record:
        raise InputError(
            "what runs is not counted while it is recorded",
            hint="give --coverage or --record, not both",
        )
    if devices and record:
        raise InputError(
            "what a device does is not recorded", hint="give --device or --record, not both"
        )


# From Debian's policy manual, 5.6.1; to apt, a dash at the end means that it is to be removed.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+]")


USUAL = Equipment()


@dataclass(frozen=True)
class Matrix:
    """All of vm/kernels.toml."""

    default: str
    kernels: Mapping[str, KernelSpec]
    guest: GuestSpec

    def select(
        self, names: str | None, profile: str = "", config: Path | None = None
    ) -> list[KernelSpec]:
        """The kernels that ``--kernel NAME[,NAME]`` asks for, in that order, once each.

        A name is an entry's, ``all``, a version or the beginning of one (all distribution
        kernels of the matrix that have it; if none has, the release is looked for in the
        archive), or the path of a kernel tree, which has a slash or is ``.`` or ``..``.
        ``profile`` and ``config`` are for trees.
        """
        if names is None:
            names = self.default
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        if not wanted:
            raise InputError("--kernel names no kernel", hint=self._known())
        found: dict[str, KernelSpec] = {}
        for name in wanted:
            for spec in self._select(name, profile, config):
                found.setdefault(spec.asked, spec)
        trees = {spec.name: spec.tree for spec in found.values()}
        for spec in found.values():
            if spec.tree != trees[spec.name]:
                raise InputError(
                    f"{spec.tree} and {trees[spec.name]} are both named {spec.name}, and results "
                    "are kept by name",
                    hint="give one of the folders another name, or test one after the other",
                )
        if (profile or config) and not any(spec.tree for spec in found.values()):
            option = "--profile" if profile else "--config"
            raise InputError(
                f"{option} is for a kernel tree, and --kernel names none",
                hint="a tree is given by its path, such as --kernel ../linux",
            )
        return list(found.values())

    def _select(self, name: str, profile: str, config: Path | None) -> list[KernelSpec]:
        if name in self.kernels:
            return [self.kernels[name]]
        if name == "all":
            return list(self.kernels.values())
        if "/" in name or name in (".", ".."):
            return [self._tree(Path(name), profile, config)]
        if _VERSION.fullmatch(name):
            exact = [spec for spec in self._distribution() if name in (spec.release, spec.version)]
            return exact or self._version(name) or [self._release(name)]
        close = difflib.get_close_matches(name, self.kernels, n=1)
        guess = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"there is no kernel named {name!r}", hint=f"{guess}{self._known()}")

    def _distribution(self) -> list[KernelSpec]:
        return [spec for spec in self.kernels.values() if spec.flavour]

    def _version(self, name: str) -> list[KernelSpec]:
        return [
            spec
            for spec in self._distribution()
            if begins(name, spec.version) or begins(name, spec.release)
        ]

    def _release(self, name: str) -> KernelSpec:
        """A release that is none of the matrix's, to be looked for in the archive."""
        flavours = {spec.flavour for spec in self._distribution()}
        named = [flavour for flavour in flavours if name.endswith(f"-{flavour}")]
        # "amd64" is the end of "cloud-amd64" too.
        flavour = max(named, key=len, default=self.kernels[self.default].flavour)
        return KernelSpec(name, "", flavour, release=name)

    def _tree(self, path: Path, profile: str, config: Path | None) -> KernelSpec:
        if profile and config:
            raise InputError(
                "--profile adds to the least config that boots, and --config replaces it",
                hint="give one of them",
            )
        tree = path.resolve()
        if not tree.is_dir():
            raise InputError(
                f"there is no folder {path}", hint="--kernel takes the path of a kernel tree"
            )
        name = re.sub(r"[^a-z0-9.+-]+", "-", tree.name.lower()).lstrip(".+-") or "tree"
        if name in self.kernels or name == "all":
            name += "-tree"
        # Its compiler is that of the default kernel's suite.
        suite = self.kernels[self.default].suite
        own = config.resolve() if config else None
        return KernelSpec(name, suite, profile=profile, tree=tree, config=own)

    def _known(self) -> str:
        return f"known kernels: {', '.join(self.kernels)}"


def begins(prefix: str, version: str) -> bool:
    """Whether a version is ``prefix`` or goes on from it at a boundary: 6.1 is not 6.12."""
    return version.startswith(prefix) and not version[len(prefix) : len(prefix) + 1].isalnum()


def show_from(folder: str) -> None:
    """Have paths be shown as seen from there, and not from the current folder, unless it is empty.

    For a process that was started elsewhere by one that a person has started.
    """
    global _shown_from  # noqa: PLW0603  # of the process
    _shown_from = folder


def shown_from() -> Path:
    """The folder from which a person sees the paths that are shown."""
    return Path(_shown_from).absolute()


_shown_from = ""


def has_short_options() -> bool:
    """Whether pytest, where it is started now, has the short names of this project's options.

    In another repository they could be those of another plugin.
    """
    return Path.cwd().is_relative_to(PROJECT)


def work_in(root: Path) -> Callable[[], None]:
    """Keep results and builds below ``root``, which is another repository's, from now on.

    What this project itself is stays in ``PROJECT``. The function that is returned undoes it.
    """
    global RESULTS, BUILD  # the one place where they change
    before = RESULTS, BUILD
    RESULTS, BUILD = root / "results", root / "build"

    def undo() -> None:
        global RESULTS, BUILD
        RESULTS, BUILD = before

    return undo


def load(path: Path = KERNELS_TOML) -> Matrix:
    """Read and check the file, and the lock beside it; raises ``InputError``."""
    data = _read(path)
    top = _Table(path, "", data, {"default", "kernels", "guest"})
    kernels = {}
    for name, value in top.table("kernels", None).data.items():
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{path}: [kernels.{name}]: a name has small letters, digits, '.', '+' and '-'"
            )
        keys = {"suite", "flavour", "profile", "about"}
        entry = _Table(path, f"kernels.{name}", value, keys)
        flavour, profile = entry.text("flavour", ""), entry.text("profile", "")
        if bool(flavour) == bool(profile):
            raise InputError(
                f"{path}: kernels.{name} needs either flavour (a distribution's kernel) or "
                "profile (one built from source)"
            )
        kernels[name] = KernelSpec(
            name, entry.text("suite"), flavour, entry.text("about", ""), profile
        )
    default = top.text("default")
    if default not in kernels:
        raise InputError(
            f"{path}: default = {default!r} is not one of the kernels: {', '.join(kernels)}"
        )
    for name, locked in load_lock(path.with_suffix(".lock")).items():
        # What was locked for another suite or flavour says nothing of this one.
        if name in kernels and locked.what == kernels[name].what:
            kernels[name] = replace(kernels[name], release=locked.release, version=locked.version)
    guest = top.table("guest", {"suite", "packages", "modules"})
    return Matrix(
        default,
        kernels,
        GuestSpec(guest.text("suite"), guest.texts("packages"), guest.texts("modules")),
    )


def load_lock(path: Path = KERNELS_LOCK) -> dict[str, Locked]:
    """The kernels of a lock file, by name; none if there is no such file."""
    if not path.exists():
        return {}
    found = {}
    for name, value in _read(path).items():
        entry = _Table(path, name, value, {"from", "release", "version"})
        found[name] = Locked(entry.text("from"), entry.text("release"), entry.text("version"))
    return found


def lock_text(kernels: Mapping[str, Locked]) -> str:
    """A lock file's text: the same kernels always give the same."""
    parts = [_LOCK_HEAD]
    for name, locked in sorted(kernels.items()):
        lines = [f"[{json.dumps(name)}]" if "." in name or "+" in name else f"[{name}]"]
        for key, value in (
            ("from", locked.what), ("release", locked.release), ("version", locked.version)
        ):  # fmt: skip
            lines.append(f"{key} = {json.dumps(value)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error


class _Table:
    """A TOML table whose faults are reported by file and key."""

    def __init__(self, path: Path, name: str, data: object, keys: set[str] | None) -> None:
        self.path = path
        self.name = name
        if not isinstance(data, dict):
            raise self._wrong("", "must be a table")
        self.data: dict[str, object] = data
        unknown = set() if keys is None else set(data) - keys
        if keys is not None and unknown:
            raise self._wrong(
                min(unknown), f"is not a key; the keys here are {', '.join(sorted(keys))}"
            )

    def table(self, key: str, keys: set[str] | None) -> _Table:
        if key not in self.data:
            raise self._wrong(key, "is missing")
        return _Table(self.path, self._full(key), self.data[key], keys)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.data.get(key, default)
        if value is None:
            raise self._wrong(key, "is missing")
        if not isinstance(value, str) or (default is None and not value):
            raise self._wrong(key, f"must be a text, not {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key)
        if value is None:
            raise self._wrong(key, "is missing")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "must be a list of texts")
        return tuple(str(item) for item in value)

    def _full(self, key: str) -> str:
        return ".".join(part for part in (self.name, key) if part)

    def _wrong(self, key: str, fault: str) -> InputError:
        return InputError(f"{self.path}: {self._full(key)} {fault}")
