# SPDX-License-Identifier: GPL-2.0-only
"""Single Debian packages, unpacked without what they depend on: modules' sources, and tools."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.build import archive
from harness.errors import DeadlineError, HostError, NetworkError
from harness.host import debian, proc
from harness.host.cache import Cache
from harness.host.proc import Deadline

# A module's source may be in any of them; all suites have these three.
_COMPONENTS = "main contrib non-free"
_DOWNLOAD_SECONDS = 600.0  # at most, for some MiB over a slow line
_LARGE_SECONDS = 1500.0  # at most, for some hundred
_UNPACK_SECONDS = 300.0
_RECENT = 3600.0  # seconds for which an index is taken that was fetched before

# What `apt-get download --print-uris` prints: 'ADDRESS' FILE BYTES HASH.
_PRINTED = re.compile(
    r"^'[^']+' (?P<file>(?P<name>[^_\s]+)_(?P<version>[^_\s]+)_\S+\.deb) (?P<bytes>\d+) "
    r"(?P<hash>\w+:\w+)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Package:
    """A package that is unpacked at ``root``."""

    name: str
    version: str
    suite: str
    root: Path

    @property
    def exact(self) -> str:
        """As apt takes this version and no other."""
        return f"{self.name}={self.version}"

    def __str__(self) -> str:
        return f"{self.name} {self.version} of Debian {self.suite}"


def unpacked(name: str, suite: str, cache: Cache) -> Package:
    """The newest version of a package that a suite has, and nothing of what it depends on.

    Raises ``GoneError`` where the suite has no such package, and ``NetworkError`` where no mirror
    answers and the package is not in the cache.
    """
    with _indexes(suite, cache) as folder:
        found = _look_up(folder, suite, name)
        version = found["version"].replace("%3a", ":")

        def make(into: Path) -> None:
            _apt(folder, suite, [name], cwd=into)
            file = into / found["file"]
            unpacking = ["dpkg-deb", "--extract", str(file), str(into / "root")]
            proc.run(unpacking, deadline=Deadline(_UNPACK_SECONDS))
            file.unlink()

        key = {"recipe": 1, "file": found["file"], "hash": found["hash"]}
        entry = cache.get(
            "package", f"{suite}-{name}", key, make,
            note=f"downloading package {name} {version} of Debian {suite}",
        )  # fmt: skip
    return Package(name, version, suite, entry.path / "root")


@dataclass(frozen=True)
class Offered:
    """A package that a suite has: the file's name, its size in bytes, where apt fetches it."""

    file: str
    size: int
    _folder: Path
    _suite: str
    _asked: str

    def download(self, into: Path) -> Path:
        """Fetch it into a folder; apt compares its hash with the index's."""
        _apt(self._folder, self._suite, [self._asked], cwd=into, seconds=_LARGE_SECONDS)
        return into / self.file


@contextmanager
def offered(name: str, version: str, suite: str, cache: Cache) -> Iterator[Offered]:
    """Where exactly this version of a package is, to be fetched within.

    Raises ``GoneError`` where the suite does not have it, and ``NetworkError`` where no mirror
    answers.
    """
    asked = f"{name}={version}"
    with _indexes(suite, cache) as folder:
        printed = _look_up(folder, suite, asked)
        yield Offered(printed["file"], int(printed["bytes"]), folder, suite, asked)


@contextmanager
def _indexes(suite: str, cache: Cache) -> Iterator[Path]:
    """A folder with a suite's indexes, which are not older than ``_RECENT`` if that can be had."""
    with cache.workdir(f"packages-{suite}") as folder:
        stamp = folder / "asked"
        age = time.time() - stamp.stat().st_mtime if stamp.exists() else None
        if age is None or not 0 <= age < _RECENT:
            try:
                archive.fetch_index(folder, suite, components=_COMPONENTS, alone=False)
                stamp.touch()
            except NetworkError:
                if age is None:
                    raise
        yield folder


def _look_up(folder: Path, suite: str, asked: str) -> re.Match[str]:
    """What apt says of a package, NAME or NAME=VERSION."""
    said = _apt(folder, suite, ["--print-uris", asked], cwd=folder)
    printed = _PRINTED.search(said)
    if printed is None:
        raise HostError(
            f"apt does not say where it gets package {asked} of Debian {suite} from",
            tail=said,
            hint=f"see what `apt-get download --print-uris {asked}` prints on this host",
        )
    return printed


def _apt(
    folder: Path,
    suite: str,
    arguments: list[str],
    *,
    cwd: Path,
    seconds: float = _DOWNLOAD_SECONDS,
) -> str:
    """`apt-get download` with the indexes in ``folder``; what it prints."""
    command = ["apt-get", "-c", str(folder / "apt.conf"), "download", *arguments]
    deadline = Deadline(seconds)
    doing = f"downloading a package of Debian {suite}"
    try:
        done = proc.run(
            command, deadline=deadline, check=False, cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except DeadlineError as error:
        raise debian.slow(error, deadline, doing) from error
    if done.status != 0:
        said = done.stdout + done.stderr
        raise debian.fault(said, suite) or proc.failure(done, doing=f"{doing} failed")
    return done.stdout
