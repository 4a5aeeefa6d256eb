# SPDX-License-Identifier: GPL-2.0-only
"""Which kernels the Debian archive has: exact releases and versions of packages.

Looked up in an apt of the harness's own, whose lists are below the cache: the host's apt (or
mmdebstrap, where that has no Debian mirror) is only asked which mirrors it uses.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from debian.debian_support import Version

from harness import config
from harness.config import KernelSpec, begins
from harness.errors import (
    DeadlineError,
    GoneError,
    HarnessError,
    HostError,
    InputError,
    NetworkError,
)
from harness.host import debian, files, proc, progress
from harness.host.cache import Cache
from harness.host.proc import Deadline

log = logging.getLogger(__name__)

UPDATE_SECONDS = 300.0  # at most, for 11 MB over a slow line
# How old an index may be, in seconds, where a release is looked up only to be prepared.
RECENT = 3600.0
# The same where one release is searched: a word that is misspelt is to be told at once.
SEARCHED = 86400.0

# How long, in seconds, a locked kernel that is gone is not asked for again.
INSTEAD = 86400.0

_FIELD = re.compile(r"^(Package|Version|Depends): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """A package in an index; ``depends`` is the field as it stands there."""

    name: str
    version: str
    depends: str


@dataclass(frozen=True)
class Release:
    """A kernel in the archive: what ``uname -r`` will say, and the version of its packages."""

    suite: str
    release: str
    version: str


@dataclass(frozen=True)
class Index:
    """The kernels of a suite; ``age`` says how many seconds ago the archive was asked."""

    suite: str
    packages: tuple[Package, ...]
    age: float

    def releases(self, flavour: str) -> list[Release]:
        """All kernels of a flavour that modules can be built for, oldest first.

        The archive keeps the signed images of some for longer than what they are made of.
        """
        headers = {
            (package.name.removeprefix("linux-headers-"), package.version)
            for package in self.packages
            if package.name.startswith("linux-headers-")
        }
        pattern = re.compile(rf"linux-image-(\d[^\s-]*(?:-\d[^\s-]*)?-{re.escape(flavour)})")
        found = {}
        for package in self.packages:
            name = pattern.fullmatch(package.name)
            # linux-image-6.12-amd64 of a backported kernel only leads to the real one.
            there = name and (name[1], package.version) in headers
            if name and there and "linux-image-" not in package.depends:
                found[name[1], package.version] = Release(self.suite, name[1], package.version)
        return sorted(found.values(), key=lambda release: Version(release.version))

    def newest(self, flavour: str) -> Release | None:
        """The kernel that linux-image-FLAVOUR leads to."""
        for package in self._named(f"linux-image-{flavour}"):
            leads = re.search(r"\blinux-image-(\S+) \(= (\S+)\)", package.depends)
            if leads:
                return Release(self.suite, leads[1], leads[2])
        return None

    def newest_source(self) -> Release | None:
        """The kernel source that linux-source leads to; its release is the sources' version."""
        for package in self._named("linux-source"):
            upstream = Version(package.version).upstream_version
            return Release(self.suite, upstream or package.version, package.version)
        return None

    def _named(self, name: str) -> list[Package]:
        """The packages of one name, newest first."""
        same = [package for package in self.packages if package.name == name]
        return sorted(same, key=lambda package: Version(package.version), reverse=True)


def read_packages(text: str) -> list[Package]:
    """The kernel packages in the text of a Packages file (deb822(5))."""
    found = []
    # 50 MB of text, in which a search for a fixed word takes no time.
    text = f"\n{text}"
    start = text.find("\nPackage: linux-")
    while start >= 0:
        end = text.find("\n\n", start)
        fields = dict(_FIELD.findall(text[start : end if end >= 0 else len(text)]))
        name = fields["Package"]
        if name.startswith(("linux-image-", "linux-headers-", "linux-source")):
            found.append(Package(name, fields.get("Version", ""), fields.get("Depends", "")))
        start = text.find("\nPackage: linux-", start + 1)
    return found


def index(suite: str, cache: Cache, *, recent: float = 0.0) -> Index:
    """The kernels of a suite: asked for now, unless that was done ``recent`` seconds ago.

    Without a network, or with too slow a one, what was known last is taken; raises
    ``NetworkError`` if nothing was.
    """
    with cache.workdir(f"index-{suite}") as folder:
        known = folder / _KNOWN
        age = _age(known)
        if age is None or not 0 <= age < recent:
            try:
                packages = _update(folder, suite)
            except NetworkError:
                if age is None:
                    raise
                log.debug("no mirror answers in time; what was known of %s is taken", suite)
            else:
                rows = [[each.name, each.version, each.depends] for each in packages]
                files.write(known, json.dumps(rows))
                age = 0.0
        rows = json.loads(known.read_text())
    return Index(suite, tuple(Package(*row) for row in rows), age)


_KNOWN = "packages.json"


def _age(known: Path) -> float | None:
    """How many seconds ago an index was asked; None if it never was."""
    return time.time() - known.stat().st_mtime if known.exists() else None


def _is_known(suite: str, cache: Cache, recent: float) -> bool:
    """Whether an index need not be asked."""
    with cache.workdir(f"index-{suite}") as folder:
        age = _age(folder / _KNOWN)
    return age is not None and 0 <= age < recent


def _update(folder: Path, suite: str) -> list[Package]:
    """Have apt fetch a suite's index into ``folder``; the kernel packages in it."""
    fetch_index(folder, suite)
    found: list[Package] = []
    for path in sorted((folder / "lists").glob("*_Packages")):
        found += read_packages(path.read_text(errors="replace"))
    return found


def fetch_index(folder: Path, suite: str, *, components: str = "main", alone: bool = True) -> None:
    """Have apt fetch a suite's index into ``folder``, for ``apt-get -c FOLDER/apt.conf``.

    ``alone``: without the suite that this one builds on. Raises ``NetworkError`` where no mirror
    answers.
    """
    deadline = Deadline(UPDATE_SECONDS)
    lines = debian.sources(suite, deadline=deadline, alone=alone, components=components)
    if not lines:
        raise NetworkError(
            "neither this host's apt nor mmdebstrap names a Debian mirror, so what the archive "
            "has is not known",
            hint="add a Debian mirror to the host's apt, or use what vm/kernels.lock names",
        )
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text("\n".join(lines) + "\n")
    (folder / "apt.conf").write_text(_apt_conf(folder, expired=debian.expired_allowed()))
    # Read after the host's own configuration, and so with its proxies and without its hooks.
    command = ["apt-get", "-c", str(folder / "apt.conf"), "--error-on=any", "update"]
    asking = f"asking the mirror what Debian {suite} has"
    try:
        done = proc.run(
            command, deadline=deadline, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
        )
    except DeadlineError as error:
        raise debian.slow(error, deadline, asking) from error
    if done.status != 0:
        raise debian.fault(done.stdout + done.stderr, suite) or proc.failure(
            done, doing=f"{asking} failed"
        )


def _apt_conf(folder: Path, *, expired: bool) -> str:
    options = {
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder,
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "APT::Architecture": "amd64",
        # As root, apt would change to a user who cannot read a home folder.
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::GzipIndexes": "false",
        "Acquire::Check-Date": "true",
        "Acquire::Check-Valid-Until": "false" if expired else "true",
    }
    lines = ["#clear APT::Update;", "#clear APT::Architectures;", "#clear Acquire::Languages;"]
    return "\n".join([*lines, *(f'{name} "{value}";' for name, value in options.items())]) + "\n"


# -- from what was asked for to what is there --------------------------------------


def resolve(spec: KernelSpec, cache: Cache) -> KernelSpec:
    """The same kernel with its exact release and version; raises ``GoneError``.

    Nothing is asked where both are known already, which those in vm/kernels.lock are.
    """
    if spec.tree is not None or spec.version:
        return spec
    if spec.release:
        return _search(spec, cache)
    found = newest(spec, cache, recent=RECENT)
    return replace(spec, release=found.release, version=found.version)


def newest(spec: KernelSpec, cache: Cache, *, recent: float = 0.0) -> Release:
    """The newest in the archive of what an entry of the matrix asks for."""
    return newest_in(index(spec.suite, cache, recent=recent), spec)


def newest_in(known: Index, spec: KernelSpec) -> Release:
    """The same, from its suite's index."""
    found = known.newest(spec.flavour) if spec.flavour else known.newest_source()
    if found is None:
        name = f"linux-image-{spec.flavour}" if spec.flavour else "linux-source"
        raise GoneError(
            f"Debian {spec.suite} has no package {name}",
            hint=f"see [kernels.{spec.name}] in vm/kernels.toml",
        )
    return found


def _search(spec: KernelSpec, cache: Cache) -> KernelSpec:
    """The one release that was asked for, in whichever suite of the matrix has it.

    What is known from the last day is looked through first, and a mirror is asked for the rest.
    """
    matrix = config.load().kernels.values()
    others = [each for each in matrix if each.flavour]
    # First where the lock says that such kernels are.
    series = _series(spec.release)
    others.sort(key=lambda each: not begins(series, each.version))
    suites = [spec.suite] if spec.suite else list(dict.fromkeys(each.suite for each in others))
    suites.sort(key=lambda suite: not _is_known(suite, cache, SEARCHED))
    seen: list[Release] = []
    unasked: dict[str, HarnessError] = {}
    for suite in suites:
        try:
            releases = _releases(suite, spec.flavour, cache)
        except (HostError, InputError) as error:
            unasked[suite] = error
            continue
        for found in reversed(releases):
            if matches(spec.release, found):
                return replace(spec, suite=suite, release=found.release, version=found.version)
        seen += releases
    if len(unasked) == len(suites):
        raise next(iter(unasked.values()))
    near = [release.release for release in seen if begins(series, release.version)]
    named = ", ".join(f"{each.name} ({_series(each.version)})" for each in others if each.version)
    none = "" if spec.release == series else f"it has none of {series} either; "
    hint = f"of {series} it has {', '.join(near)}" if near else f"{none}by name there are {named}"
    if unasked:
        hint += f". What {', '.join(unasked)} has could not be asked"
    raise GoneError(
        f"the archive has no kernel {spec.release} ({spec.flavour})",
        hint=f"{hint}. `invoke kernels` asks the mirror again",
    )


def _series(version: str) -> str:
    """6.12 of 6.12.118-1."""
    return ".".join(re.split(r"[.~-]", version)[:2])


def _releases(suite: str, flavour: str, cache: Cache) -> list[Release]:
    """All kernels of a flavour that a suite has, or had a day ago."""
    if _is_known(suite, cache, SEARCHED):
        return index(suite, cache, recent=SEARCHED).releases(flavour)
    with progress.stage(f"asking the mirror which kernels Debian {suite} has"):
        return index(suite, cache).releases(flavour)


def matches(asked: str, found: Release) -> bool:
    """Whether a release or a version, or the beginning of one, names this kernel."""
    return begins(asked, found.release) or begins(asked, found.version)


def gone(spec: KernelSpec, error: GoneError, cache: Cache) -> GoneError:
    """The error for a locked kernel that the archive no longer has: which one it has now.

    ``error`` itself where that is not known, or where it is this very one: then the kernel is
    there, and something else is not (its headers, while the archive is between two states).
    """
    exact = f"{spec.release} ({spec.version})"
    try:
        found = newest(spec, cache)
    except (NetworkError, GoneError):
        return error
    if (found.release, found.version) == (spec.release, spec.version):
        return error
    return GoneError(
        f"kernel {spec.name}: {exact} is no longer in Debian {spec.suite}; "
        f"the newest there is {found.release} ({found.version})",
        tail=error.tail,
        hint=f"`invoke kernels --update --kernel {spec.name}` moves vm/kernels.lock to it",
    )


def take_newest(spec: KernelSpec, cache: Cache) -> KernelSpec:
    """The newest kernel in place of a locked one that is gone, from now on for a day."""
    found = newest(spec, cache, recent=RECENT)
    with cache.workdir(f"gone-{spec.name}") as folder:
        rows = {spec.version: [found.release, found.version, time.time()]}
        (folder / "instead.json").write_text(json.dumps(rows))
    return replace(spec, release=found.release, version=found.version)


def instead_of(spec: KernelSpec, cache: Cache) -> KernelSpec | None:
    """The kernel that ``take_newest`` has lately put in the place of a locked one, or None.

    It keeps the processes of one run from each asking the archive for what it does not have.
    """
    name = f"gone-{spec.name}"
    if not spec.version or not cache.keeps(name):
        return None
    with cache.workdir(name) as folder:
        try:
            rows = json.loads((folder / "instead.json").read_text())
            release, version, since = rows[spec.version]
        except (OSError, ValueError, KeyError, TypeError):
            return None
    recent = 0 <= time.time() - since < INSTEAD
    return replace(spec, release=release, version=version) if recent else None


def packages(spec: KernelSpec, names: Sequence[str]) -> list[str]:
    """Packages of a resolved kernel, as apt takes an exact one."""
    return [f"{name}-{spec.release}={spec.version}" for name in names]
