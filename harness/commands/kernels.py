# SPDX-License-Identifier: GPL-2.0-only
"""`invoke kernels`: what is locked, what the archive has now, what is cached, what was found."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import config
from harness.build import archive
from harness.build.archive import Release
from harness.config import KernelSpec, Locked
from harness.errors import GoneError, HarnessError, InputError, NetworkError
from harness.host import files
from harness.host.cache import Cache, Stored
from harness.report import table
from harness.report.result import KernelResult
from harness.runs import store, sweep

log = logging.getLogger(__name__)

OLD = 3600.0  # from this age on (seconds), it is said how old what is known of the archive is
# From this age on (seconds), what has been made anew since goes when the cache is freed.
UNUSED = 14 * 86400.0

# What is made anew whenever somebody edits a module, the guest's files, a kernel tree or a config.
_EDITED = ("kernel", "module", "template", "guest")
# Of what the cache keeps between runs (names in kept/), that which takes gigabytes: builds that
# were interrupted, those of people's own trees, and clones of such trees.
_WORK = ("build-", "tree-", "bisect-")


@dataclass(frozen=True)
class Row:
    """A kernel of the matrix as `invoke kernels` lists it."""

    spec: KernelSpec
    newest: Release | None  # None: see ``unknown`` and ``absent``
    age: float  # how many seconds ago the archive was asked
    unknown: str  # why the newest is not known, if so
    cached: int  # bytes in the cache
    last: KernelResult | None
    # That the suite has no such kernel now: Debian drops experimental's once sid has the same.
    absent: str = ""
    cut_off: bool = False  # a later run than that of the last result did not come to its end

    @property
    def moved(self) -> bool | None:
        """Whether the archive has another one than the lock; None if that is not known."""
        if self.newest is None:
            return False if self.absent else None
        return (self.newest.release, self.newest.version) != (
            self.spec.release, self.spec.version,
        )  # fmt: skip

    @property
    def verdict(self) -> str:
        """The last result, and of which kernel it is if that is not the locked one."""
        later = "; a later run was cut off" if self.cut_off else ""
        if self.last is None:
            return "a run was cut off" if self.cut_off else "-"
        day = time.strftime("%Y-%m-%d", time.localtime(self.last.finished))
        other = "" if self.last.release == self.spec.release else f" on {self.last.release}"
        return f"{'green' if self.last.green else 'red'} {day}{other}{later}"


def run(names: str | None, *, update: bool, prune: bool, as_json: bool) -> int:
    """List the kernels, or move the lock, or free the cache; the exit status."""
    matrix = config.load()
    specs = matrix.select(names or "all")
    for spec in specs:
        if matrix.kernels.get(spec.name) != spec:
            raise InputError(
                f"{spec.asked} is not one of vm/kernels.toml",
                hint=f"known kernels: {', '.join(matrix.kernels)}",
            )
    with Cache() as cache:
        if not update and not prune:
            rows = look(specs, cache)
            print(as_text(rows) if not as_json else as_json_text(rows, matrix.default))
            return 0
        status = 0
        if update:
            status = move(specs, set(matrix.kernels), cache)
            specs = list(config.load().select("all"))
        if prune:
            free(specs if update else list(matrix.kernels.values()), cache)
        return status


def look(specs: Sequence[KernelSpec], cache: Cache) -> list[Row]:
    """A row for each kernel; the archive's suites are asked at the same time."""
    stored = cache.stored()
    known = _newest(specs, cache)
    rows = []
    for spec in specs:
        answer = known[spec.name]
        newest: Release | None = None
        age, unknown, absent = 0.0, "", ""
        if isinstance(answer, HarnessError):
            unknown = sweep.reason(answer)
        else:
            age = answer.age
            if isinstance(answer.newest, GoneError):
                absent = answer.newest.what
            else:
                newest = answer.newest
        cached = sum(each.size for each in of_kernel(spec, stored))
        rows.append(Row(spec, newest, age, unknown, cached, store.last(spec.name), absent,
                        store.cut_off(spec.name)))  # fmt: skip
    return rows


@dataclass(frozen=True)
class _Answer:
    """The newest kernel in a suite's index, or that it has none; the index's age in seconds."""

    newest: Release | GoneError
    age: float


def _newest(specs: Iterable[KernelSpec], cache: Cache) -> dict[str, _Answer | HarnessError]:
    """For each kernel what the archive has, or why that is not known."""

    def ask(suite: str) -> archive.Index | HarnessError:
        try:
            return archive.index(suite, cache)
        except HarnessError as error:
            return error

    specs = list(specs)
    suites = list(dict.fromkeys(spec.suite for spec in specs))
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = dict(zip(suites, pool.map(ask, suites), strict=True))
    found: dict[str, _Answer | HarnessError] = {}
    for spec in specs:
        answer = answers[spec.suite]
        if isinstance(answer, HarnessError):
            found[spec.name] = answer
            continue
        try:
            found[spec.name] = _Answer(archive.newest_in(answer, spec), answer.age)
        except GoneError as error:
            found[spec.name] = _Answer(error, answer.age)
    return found


# -- the cache's share of each -----------------------------------------------------


def of_kernel(spec: KernelSpec, stored: Sequence[Stored]) -> list[Stored]:
    """The entries of the cache that are exactly this kernel, or were made of it."""
    return _with_dependents([each for each in stored if _exact(spec) in _names(each)], stored)


def stale(specs: Iterable[KernelSpec], stored: Sequence[Stored]) -> list[Stored]:
    """The entries of the cache that are Debian's other kernels, or were made of those."""
    wanted = {_exact(spec) for spec in specs}
    other = [each for each in stored if _names(each) and not wanted & _names(each)]
    return _with_dependents(other, stored)


def _exact(spec: KernelSpec) -> str:
    """A name for one exact kernel of the matrix, by which the cache's keys know it."""
    if spec.flavour:
        return archive.packages(spec, ("linux-image",))[0]
    return f"{spec.name}={spec.version}"


def _names(each: Stored) -> set[str]:
    """The names of the kernels that an entry is; a person's own tree has none."""
    if each.entry.kind == "kernel" and "source" in each.key:
        return {f"{each.entry.label}={each.key['source']}"}
    if each.entry.kind == "sysroot":
        return {name for name in _packages(each) if name.startswith("linux-image-")}
    return set()


def _packages(each: Stored) -> list[str]:
    names = each.key.get("packages")
    return [str(name) for name in names] if isinstance(names, list) else []


def _with_dependents(roots: Sequence[Stored], stored: Sequence[Stored]) -> list[Stored]:
    """``roots`` and what says in its key that it was made of one of them."""
    found = {each.entry.path: each for each in roots}
    digests = {each.entry.digest for each in roots}
    more = True
    while more:
        more = False
        for each in stored:
            if each.entry.path not in found and _made_of(each) & digests:
                found[each.entry.path] = each
                digests.add(each.entry.digest)
                more = True
    return list(found.values())


def _made_of(each: Stored) -> set[str]:
    """The digests of the entries that this one was made of."""
    values = [each.key.get(name) for name in ("kernel", "base", "image")]
    return {value for value in values if isinstance(value, str)}


def replaced(stored: Sequence[Stored], now: float) -> list[Stored]:
    """Old entries of which there is a newer one of the same kind and label.

    They are of sources that were edited since. The newest one stays, however old it is, and with it
    all that it was made of.
    """
    edited = [each for each in stored if each.entry.kind in _EDITED]
    newest = {
        (each.entry.kind, each.entry.label): each for each in sorted(edited, key=lambda e: e.made)
    }
    old = {
        each.entry.path: each for each in edited
        if now - each.made > UNUSED and newest[each.entry.kind, each.entry.label] is not each
    }  # fmt: skip
    while True:
        kept = [each for each in stored if each.entry.path not in old]
        needed = {digest for each in kept for digest in _made_of(each)}
        still = {path: each for path, each in old.items() if each.entry.digest not in needed}
        if len(still) == len(old):
            return list(old.values())
        old = still


def free(specs: Sequence[KernelSpec], cache: Cache) -> None:
    """Remove the distribution kernels that are none of these, and what is old or damaged."""
    stored = cache.stored()
    going = {each.entry.path: each for each in stale(specs, stored)}
    rest = [each for each in stored if each.entry.path not in going]
    sizes = {each.entry: each.size for each in [*going.values(), *replaced(rest, time.time())]}
    sizes |= {entry: _allocated(entry.path) for entry in cache.damaged()}
    freed = 0
    for entry, size in sizes.items():
        if cache.remove(entry):
            freed += size
            log.info("removed %s %s", entry.kind, entry.label)
        else:
            log.info("%s %s is in use by another run; left", entry.kind, entry.label)
    freed += _free_work(cache)
    log.info("%.0f MiB freed", freed / (1 << 20))


def _free_work(cache: Cache) -> int:
    """Remove the builds and clones that nobody has gone on with; how many bytes they took."""
    freed = 0
    for folder in sorted((cache.root / "kept").glob("*")):
        if not folder.name.startswith(_WORK) or time.time() - _touched(folder) <= UNUSED:
            continue
        with cache.workdir(folder.name) as work:
            # Looked at again: another run may have used it while this one waited for its lock.
            if time.time() - _touched(work) > UNUSED:
                freed += _allocated(work)
                shutil.rmtree(work, ignore_errors=True)
                log.info("removed %s", folder.name)
    return freed


def _touched(folder: Path) -> float:
    """When a folder was last changed, by the files of its first two levels."""
    paths = [folder, *folder.glob("*"), *folder.glob("*/*")]
    try:
        return max(os.lstat(path).st_mtime for path in paths)
    except FileNotFoundError:
        return time.time()  # something is being removed there at this moment


def _allocated(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(place, name)).st_blocks * 512
        for place, _, names in os.walk(folder)
        for name in names
    )


# -- the lock ----------------------------------------------------------------------


def move(
    specs: Sequence[KernelSpec], known: set[str], cache: Cache, path: Path = config.KERNELS_LOCK
) -> int:
    """Lock the newest of each; what cannot be asked stays as it was and is told.

    So does what the archive has none of now, but that is nobody's fault.
    """
    before = config.load_lock(path)
    after = {name: locked for name, locked in before.items() if name in known}
    status = 0
    for name, answer in _newest(specs, cache).items():
        spec = next(spec for spec in specs if spec.name == name)
        error: HarnessError | None = None
        if isinstance(answer, HarnessError):
            error = answer
        elif answer.age > 0:
            error = NetworkError(
                "no mirror answers, so what is newest is not known",
                hint="check the network; `invoke doctor` names the mirrors",
            )
        elif isinstance(answer.newest, Release):
            after[name] = Locked(spec.what, answer.newest.release, answer.newest.version)
            if before.get(name) != after[name]:
                was = f"{before[name].release} ({before[name].version})" if name in before else "-"
                log.info("%s: %s -> %s (%s)", name, was, after[name].release, after[name].version)
        elif name in before:
            log.warning("%s: not moved: %s now", name, answer.newest.what)
        else:
            error = answer.newest  # there never was one: the matrix may be wrong
        if error is not None:
            log.error("%s: not moved: %s", name, sweep.reason(error))
            status = max(status, error.exit_status)
    if after != before:
        files.write(path, config.lock_text(after), sync=True)
    else:
        log.info("the lock stays as it is")
    return status


# -- what is printed ---------------------------------------------------------------


def as_text(rows: Sequence[Row]) -> str:
    """The listing for people."""
    lines = [["kernel", "locked", "newest", "cached", "last result"]]
    for row in rows:
        newest = "?"
        if row.absent:
            newest = "none"
        elif row.newest is not None:
            newest = "same" if not row.moved else _named(row.newest.release, row.newest.version)
        lines.append(
            [
                row.spec.name,
                _named(row.spec.release, row.spec.version) if row.spec.version else "-",
                newest,
                f"{row.cached / (1 << 20):.0f} MiB" if row.cached else "-",
                row.verdict,
            ]
        )
    said = dict.fromkeys(f"newest of {row.spec.name} is not known: {row.unknown}"
                         for row in rows if row.unknown)  # fmt: skip
    for row in rows:
        if row.absent:
            said[f"{row.spec.name}: {row.absent} now"] = None
        if not row.unknown and row.age > OLD:
            hours = row.age / 3600
            said[f"no mirror answers: what {row.spec.suite} has was asked {hours:.0f} h ago"] = None
    return "\n".join([table.columns_of(lines), *(["", *said] if said else [])])


def _named(release: str, version: str) -> str:
    return f"{release} ({version})"


def as_json_text(rows: Sequence[Row], default: str) -> str:
    """The listing for programs: `moved` says which kernels are to be tested anew."""
    return json.dumps([_plain(row, default) for row in rows], indent=2)


def _plain(row: Row, default: str) -> Mapping[str, object]:
    spec, last = row.spec, row.last
    locked = {"release": spec.release, "version": spec.version} if spec.version else None
    return {
        "name": spec.name,
        "default": spec.name == default,
        "about": spec.about,
        "suite": spec.suite,
        "flavour": spec.flavour,
        "profile": spec.profile,
        "locked": locked,
        "newest": asdict(row.newest) if row.newest is not None else None,
        "moved": row.moved,
        "unknown": row.unknown,
        "absent": row.absent,
        "index_age_s": round(row.age),
        "cached_bytes": row.cached,
        "last": None if last is None else {
            "green": last.green, "release": last.release, "version": last.version,
            "finished": last.finished, "cut_off": row.cut_off,
        },
    }  # fmt: skip
