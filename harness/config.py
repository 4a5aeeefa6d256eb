# SPDX-License-Identifier: GPL-2.0-only
"""Reads vm/kernels.toml, the file that names the kernels and the guest.

Every error names the file, the key, and what would be right.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InputError

PROJECT = Path(__file__).resolve().parent.parent
KERNELS_TOML = PROJECT / "vm" / "kernels.toml"
MODULE = PROJECT / "module"

_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class KernelSpec:
    """A kernel that can be asked for: an entry of the matrix, or a person's own tree.

    It is either a distribution's, with a ``flavour``, or built from source with a
    ``profile`` (vm/kconfig/PROFILE.config): the suite's linux-source package, or ``tree``.
    ``release`` asks for one exact release of the flavour instead of the newest.
    """

    name: str
    suite: str
    flavour: str = ""
    about: str = ""
    profile: str = ""
    tree: Path | None = None
    release: str = ""


@dataclass(frozen=True)
class GuestSpec:
    """What the guest is made of; the same for every kernel."""

    suite: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Matrix:
    """All of vm/kernels.toml."""

    default: str
    kernels: Mapping[str, KernelSpec]
    guest: GuestSpec

    def select(self, names: str | None) -> list[KernelSpec]:
        """The kernels that ``--kernel NAME[,NAME]`` asks for, in that order, once each."""
        if names is None:
            return [self.kernels[self.default]]
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        known = ", ".join(self.kernels)
        if not wanted:
            raise InputError("--kernel names no kernel", hint=f"known kernels: {known}")
        for name in wanted:
            if name not in self.kernels:
                close = difflib.get_close_matches(name, self.kernels, n=1)
                guess = f"did you mean {close[0]}? " if close else ""
                raise InputError(
                    f"there is no kernel named {name!r}", hint=f"{guess}known kernels: {known}"
                )
        return [self.kernels[name] for name in dict.fromkeys(wanted)]


def load(path: Path = KERNELS_TOML) -> Matrix:
    """Read and check the file; raises ``InputError``."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    top = _Table(path, "", data, {"default", "kernels", "guest"})
    kernels = {}
    for name, value in top.table("kernels", None).data.items():
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{path}: [kernels.{name}]: a name has small letters, digits, '.', '+' and '-'"
            )
        entry = _Table(path, f"kernels.{name}", value, {"suite", "flavour", "about"})
        kernels[name] = KernelSpec(
            name, entry.text("suite"), entry.text("flavour"), entry.text("about", "")
        )
    default = top.text("default")
    if default not in kernels:
        raise InputError(
            f"{path}: default = {default!r} is not one of the kernels: {', '.join(kernels)}"
        )
    guest = top.table("guest", {"suite", "packages", "modules"})
    return Matrix(
        default,
        kernels,
        GuestSpec(guest.text("suite"), guest.texts("packages"), guest.texts("modules")),
    )


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
