# SPDX-License-Identifier: GPL-2.0-only
"""A content-addressed store for what is expensive to make.

An entry is a folder named by its kind, a label for people, and a digest of everything
that went into it (the key, which includes the recipe). It is made in a temporary folder
on the same file system and renamed into place, so that there is never half an entry.
Locks (flock, released by the kernel when their owner dies) let any number of runs share
the store: one makes an entry while the others wait for it, and what is in use is not
removed.

Each use checks the entry. A manifest holds each file's size, times and SHA-256; a file
whose size and times are as recorded is taken as good (git's index does the same), any
other is read and compared. The manifest begins with a SHA-256 of the rest of itself. An entry
with a damaged file or manifest is thrown away and made again, and that is said.

A process that has checked its entries, and holds them, can vouch for them to one that it starts.

All entries together have a limit. Where a new one exceeds it, those go that nobody has used for
longest, but none that some run is using.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from harness.errors import FULL, HostError, InputError, SpaceError
from harness.host import files, locks, progress
from harness.host.proc import Deadline

log = logging.getLogger(__name__)

MANIFEST = "entry.json"
# Bumped when the manifest's own form changes; part of every key.
FORMAT = 2

# How long a run waits by default for what another run makes or uses. It is more than the longest
# time that making an entry may take (debian.UNPACK_SECONDS); for kernels the caller gives more.
WAIT_SECONDS = 1800.0

# GiB that all entries together may take, unless LIMIT_VARIABLE says otherwise. The twelve kernels
# of the matrix, with a template or two each, take some 12.
LIMIT = 20.0
LIMIT_VARIABLE = "EUDYPTULA_CACHE_GIB"

# Folders beside those of the kinds of entries.
_NO_KINDS = ("ccache", "kept", "locks", "tmp")

_ZEROS = bytes(1 << 20)

Stamp = tuple[int, int, int]  # size in bytes, mtime in ns, ctime in ns


@dataclass(frozen=True)
class Entry:
    """A finished entry of the cache; ``path`` is the folder that ``make`` has filled."""

    kind: str
    label: str
    digest: str
    path: Path


@dataclass(frozen=True)
class Stored:
    """An entry as a listing shows it."""

    entry: Entry
    size: int  # bytes, as allocated on disk
    made: float  # seconds since the epoch
    key: Mapping[str, object]


def default_root() -> Path:
    """EUDYPTULA_CACHE, or ``eudyptula`` in the user's cache folder (XDG base directories)."""
    override = os.environ.get("EUDYPTULA_CACHE")
    if override:
        return Path(override).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "eudyptula"


def limit() -> int:
    """How many bytes all entries may take; raises ``InputError`` where that is set to no number."""
    said = os.environ.get(LIMIT_VARIABLE) or str(LIMIT)
    if not re.fullmatch(r"\d{1,6}(?:\.\d{1,6})?", said):
        raise InputError(
            f"{LIMIT_VARIABLE} is {said!r}, which is no size in GiB", hint=f"such as {LIMIT:g}"
        )
    return int(float(said) * (1 << 30))


def digest_of(key: Mapping[str, object]) -> str:
    """16 hexadecimal digits that stand for a key (any JSON value)."""
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_of_files(root: Path, files: Iterable[Path]) -> str:
    """A digest of the names below ``root``, modes and contents of ``files``, in any order.

    What a symbolic link leads to counts, not where it leads.
    """
    whole = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(root).as_posix()
        target = path.resolve()
        # A name may be bytes that are no text (os.fsencode gives them back as they are).
        whole.update(os.fsencode(f"{name}\0{target.stat().st_mode:o}\0{_content(target)}"))
    return whole.hexdigest()


# What this process has made again or removed by itself, a sentence each.
_changes: list[str] = []


def changes() -> list[str]:
    """What this process has made again as it was damaged, or removed because of the limit.

    A sentence each. All are logged as well, but nobody sees the log of a worker of pytest-xdist.
    """
    return list(_changes)


# The manifests that the process which started this one has checked: path to ``_identity``.
_vouched: dict[str, tuple[int, ...]] = {}
_vouched_until = 0.0  # by time.monotonic(), which is the same in all processes (clock_gettime(2))
_VOUCHED_SECONDS = 60.0  # a process has begun to use its entries by then


def believe(vouched: str) -> None:
    """Do not check again the entries that ``vouched``, made by ``Cache.vouch``, names.

    That holds for a minute, and saves looking at some 20,000 files. A text of another form is
    ignored.
    """
    global _vouched_until  # noqa: PLW0603  # of the process, as all that it is told at its start
    _vouched.clear()
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        said = json.loads(vouched)
        _vouched.update({path: tuple(each) for path, each in said["manifests"].items()})
        _vouched_until = float(said["until"])


def _is_vouched_for(manifest: Path, identity: tuple[int, int, int] | None) -> bool:
    return (
        identity is not None
        and _vouched.get(str(manifest)) == identity
        and 0 <= _vouched_until - time.monotonic() <= _VOUCHED_SECONDS
    )


def _tell(change: str) -> None:
    log.info("cache: %s", change)
    _changes.append(change)


class Cache:
    """The store below one folder; a context manager.

    Everything taken stays locked until the end of the context, or ``close``.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()
        self._most = limit()
        # Entries that were checked, with the descriptor of the lock that says they are in use.
        self._held: dict[Path, int] = {}
        self._taking = threading.Lock()  # guards _held: several threads share a cache
        self._told = False  # whether it was said that the limit is too small
        for folder in ("locks", "tmp"):
            with _explain(self.root):
                (self.root / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()

    def get(
        self,
        kind: str,
        label: str,
        key: Mapping[str, object],
        make: Callable[[Path], None],
        *,
        note: str = "",
        wait: float = WAIT_SECONDS,
    ) -> Entry:
        """The entry for ``key``, made by ``make(folder)`` if it is not there yet.

        ``note`` is said before making, and while it goes on. Whatever ``make`` raises passes
        through, and then nothing is left behind; a full disk becomes ``SpaceError``. If another
        run is making the entry, that is waited for; ``HostError`` after ``wait`` seconds, which
        must be more than ``make`` may take.
        """
        digest = digest_of(key)
        entry = Entry(kind, label, digest, self.root / kind / f"{label}-{digest}")
        lock = self._lock_path(entry, "make")
        with _explain(self.root):
            if self._usable(entry):
                return entry
            with locks.alone(lock, Deadline(wait), f"the making of {kind} {label}"):
                if self._usable(entry):  # made by the other while this one waited
                    return entry
                harm = self._clear(entry)
                with (
                    progress.stage(note) if note else nullcontext(),
                    self._scratch(kind, label) as folder,
                ):
                    make(folder)
                    manifest = {
                        "kind": kind,
                        "label": label,
                        "made": time.time(),
                        "key": dict(key),
                        "files": _survey(folder),
                    }
                    (folder / MANIFEST).write_bytes(_sealed(manifest))
                    entry.path.parent.mkdir(parents=True, exist_ok=True)
                    # Locked before another run that cleans up can see it, but known as held
                    # only when it is in its place: another thread would take it at once.
                    in_use = locks.shared(self._lock_path(entry, "use"))
                    try:
                        folder.rename(entry.path)
                    except BaseException:
                        os.close(in_use)
                        raise
                    self._hold(entry, in_use)
                    if harm is not None:
                        _tell(f"{kind} {label} was damaged ({harm}), and was made again")
            self._shrink()
        return entry

    def has(self, kind: str, label: str, key: Mapping[str, object]) -> bool:
        """Whether there is an entry for ``key``, which ``get`` may find damaged."""
        return (self.root / kind / f"{label}-{digest_of(key)}" / MANIFEST).exists()

    def stored(self) -> list[Stored]:
        """All finished entries, oldest first."""
        found = []
        for path in self.root.glob(f"*/*/{MANIFEST}"):
            if path.parent.parent.name == "tmp":
                continue
            try:
                data, _ = _unsealed(path.read_bytes())
                entry = Entry(data["kind"], data["label"], path.parent.name[-16:], path.parent)
                found.append(Stored(entry, _allocated(path.parent), data["made"], data["key"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # being removed, or damaged: its next use will find out
        return sorted(found, key=lambda stored: stored.made)

    def damaged(self) -> list[Entry]:
        """Entries whose manifest cannot be read.

        Their kind and name are known from their path, their key is not.
        """
        whole = {stored.entry.path for stored in self.stored()}
        return [entry for entry in self._entries() if entry.path not in whole]

    def remove(self, entry: Entry) -> bool:
        """Remove an entry unless some run is using it; says whether it did."""
        with locks.at_once(self._lock_path(entry, "use")) as free:
            if free:
                self._discard(entry.path)
            return free

    @contextmanager
    def scratch(self, label: str) -> Iterator[Path]:
        """A folder for one run's own files, removed at the end (or by a later run)."""
        with _explain(self.root), self._scratch("run", label) as folder:
            yield folder

    @contextmanager
    def workdir(self, name: str, *, wait: float = WAIT_SECONDS) -> Iterator[Path]:
        """A folder whose content changes and is kept, for one user at a time.

        Another user is waited for; ``HostError`` after ``wait`` seconds.
        """
        folder = self.root / "kept" / name
        lock = self._kept_lock(folder)
        with _explain(self.root), locks.alone(lock, Deadline(wait), f"the folder {name}"):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                yield folder
            finally:
                with suppress(OSError):  # where it cannot be noted, the former size counts
                    lock.write_text(str(_allocated(folder)))
        self._shrink()

    def keeps(self, name: str) -> bool:
        """Whether there is such a folder as ``workdir`` makes."""
        return (self.root / "kept" / name).is_dir()

    def forget(self) -> None:
        """Remove what ``workdir`` has kept, except what another run is using."""
        for folder in (self.root / "kept").glob("*"):
            if not self._forget(folder):
                log.info("%s is in use by another run; left", folder.name)

    def release(self, entry: Entry) -> None:
        """Let go of one entry; its next use looks at it again."""
        with self._taking:
            os.close(self._held.pop(entry.path))

    def vouch(self) -> str:
        """What has been checked here, for ``believe`` in a process that is started now.

        This cache has to stay open while that process begins, so that nobody removes an entry.
        """
        with self._taking:
            manifests = {str(path / MANIFEST): _identity(path / MANIFEST) for path in self._held}
        return json.dumps({"until": time.monotonic() + _VOUCHED_SECONDS, "manifests": manifests})

    @property
    def held(self) -> list[Path]:
        """Where the entries are that were taken."""
        return list(self._held)

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything that was taken."""
        with self._taking:
            for lock in self._held.values():
                os.close(lock)
            self._held.clear()

    # -- inside --------------------------------------------------------------------

    def _entries(self) -> list[Entry]:
        """All that stands where entries do, by its path alone."""
        found = []
        for path in sorted(self.root.glob("*/*/")):
            name = re.fullmatch(r"(.+)-([0-9a-f]{16})", path.name)
            if name and path.parent.name not in _NO_KINDS:
                found.append(Entry(path.parent.name, name[1], name[2], path))
        return found

    def _shrink(self) -> None:
        """Remove entries that nobody uses until the rest is within the limit, oldest use first."""
        most = self._most
        with locks.at_once(self.root / "locks" / "limit") as free:
            if not free:
                return  # another run does it now
            # For each: what it is, how to remove it, its size in bytes, when it was last used.
            found = [
                (f"{entry.kind} {entry.label}", partial(self._remove_unheld, entry),
                 *_last_use(self._lock_path(entry, "use"), entry.path))
                for entry in self._entries()
            ]  # fmt: skip
            found += [
                (f"the folder {folder.name}", partial(self._forget, folder),
                 *_last_use(self._kept_lock(folder), folder))
                for folder in (self.root / "kept").glob("*")
            ]  # fmt: skip
            left = sum(size for _, _, size, _ in found)
            for what, remove, size, used in sorted(found, key=itemgetter(3)):
                if left <= most:
                    break
                if remove():
                    left -= size
                    _tell(
                        f"removed {what} ({size >> 20} MiB, last used "
                        f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(used))}): all that is "
                        f"cached may take {most / (1 << 30):g} GiB ({LIMIT_VARIABLE})"
                    )
            if left > most and not self._told:
                self._told = True
                log.warning(
                    "the cache: what is in use takes %.1f GiB, and all that is cached may take %g, "
                    "so that each run has to make some of it again; set %s to more",
                    left / (1 << 30), most / (1 << 30), LIMIT_VARIABLE,
                )  # fmt: skip

    def _remove_unheld(self, entry: Entry) -> bool:
        """Remove an entry that neither this run nor another one uses; whether it did."""
        return entry.path not in self._held and self.remove(entry)

    def _kept_lock(self, folder: Path) -> Path:
        return self.root / "locks" / f"kept-{folder.name}"

    def _forget(self, folder: Path) -> bool:
        """Remove a folder of ``workdir`` that nobody uses; whether it did."""
        with locks.at_once(self._kept_lock(folder)) as free:
            if free:
                _remove_tree(folder)
            return free

    def _usable(self, entry: Entry) -> bool:
        """Check and hold the entry; False if it is missing or damaged."""
        return entry.path in self._held or self._take(entry) is None

    def _clear(self, entry: Entry) -> str | None:
        """Make room for an entry that is to be made: None, or what was wrong with the old one.

        For whoever has the lock for making it. Raises ``HostError`` if another run uses it.
        """
        harm = damage(entry.path)
        if harm is None or not entry.path.exists():
            return None
        log.warning("cache: %s %s is damaged (%s)", entry.kind, entry.label, harm)
        if not self.remove(entry):
            users = locks.holders(self._lock_path(entry, "use"))
            raise HostError(
                f"{entry.kind} {entry.label} in the cache is damaged ({harm}), and it cannot be "
                f"made again while it is used by {users}",
                hint="wait until that has ended, then try again",
            )
        return harm

    def _take(self, entry: Entry) -> str | None:
        """Check an entry and then hold it: None, or what is wrong with it.

        It is checked first, so that nobody is handed what was not checked, and so that those
        who hold it are those who use it. Another run may replace it between the two; then the
        manifest is another file, and it is checked once more.
        """
        while True:
            checked = _identity(entry.path / MANIFEST)
            if not _is_vouched_for(entry.path / MANIFEST, checked):
                harm = damage(entry.path)
                if harm is not None:
                    return harm
            lock = locks.shared(self._lock_path(entry, "use"))
            if checked is not None and _identity(entry.path / MANIFEST) == checked:
                self._hold(entry, lock)
                return None
            os.close(lock)

    def _hold(self, entry: Entry, lock: int) -> None:
        """Keep an entry for this process; ``lock`` is the descriptor that says it is in use."""
        with self._taking:
            if entry.path in self._held:  # by another thread, meanwhile
                os.close(lock)
            else:
                self._held[entry.path] = lock
                os.utime(lock)  # for _last_use()

    def _lock_path(self, entry: Entry, purpose: str) -> Path:
        return self.root / "locks" / f"{entry.kind}-{entry.label}-{entry.digest}.{purpose}"

    @contextmanager
    def _scratch(self, kind: str, label: str) -> Iterator[Path]:
        """A temporary folder whose lock says that its owner is alive."""
        name = f"{kind}-{label}-{os.getpid()}-{secrets.token_hex(4)}"
        folder = self.root / "tmp" / name
        lock = self.root / "tmp" / f"{name}.lock"
        with locks.alone(lock, Deadline(WAIT_SECONDS), str(lock)):
            try:
                folder.mkdir(mode=0o700)
                yield folder
            finally:
                _remove_tree(folder)
                lock.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what runs that were killed have left in tmp/."""
        for lock in (self.root / "tmp").glob("*.lock"):
            with locks.at_once(lock) as free:
                if free:  # its owner is dead
                    _remove_tree(lock.with_suffix(""))
                    lock.unlink(missing_ok=True)

    def _discard(self, path: Path) -> None:
        """Take an entry out of sight at once, then delete it."""
        grave = self.root / "tmp" / f"gone-{os.getpid()}-{secrets.token_hex(4)}"
        lock = grave.with_name(f"{grave.name}.lock")
        with locks.alone(lock, Deadline(WAIT_SECONDS), str(lock)):
            with suppress(FileNotFoundError):
                path.rename(grave)
            _remove_tree(grave)
            lock.unlink(missing_ok=True)


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder, name)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Tells a file from another one that took its name; None where there is no file."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return (info.st_ino, info.st_mtime_ns, info.st_ctime_ns)


def _stamp(path: Path | str) -> Stamp:
    info = os.lstat(path)
    return (info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _content(path: Path) -> str:
    """A SHA-256 that stands for a file's bytes, or for what a symbolic link says."""
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        return hashlib.sha256(os.readlink(path).encode()).hexdigest()
    if not stat.S_ISREG(info.st_mode):
        return ""
    with path.open("rb", buffering=0) as stream:
        # Most of a large file, a machine's memory, is zeros: these are compared in a tenth of
        # the time of hashing them. Whether they are holes makes no difference, except that holes
        # are not even read.
        whole = hashlib.sha256(b"%d " % info.st_size)
        number = 0
        while block := os.pread(stream.fileno(), len(_ZEROS), number * len(_ZEROS)):
            if block != _ZEROS[: len(block)]:
                whole.update(b"%d " % number)
                whole.update(block)
            number = _next_data(stream.fileno(), number + 1)
        return whole.hexdigest()


def _next_data(fd: int, number: int) -> int:
    """The first block of a file, from this one on, that is not all hole, or one behind its end."""
    try:
        return os.lseek(fd, number * len(_ZEROS), os.SEEK_DATA) // len(_ZEROS)
    except OSError as error:
        # After the last data it is ENXIO (lseek(2)). A file system that knows no holes has data
        # wherever the file has bytes.
        if error.errno != errno.ENXIO:
            return number
        return os.lseek(fd, 0, os.SEEK_END) // len(_ZEROS) + 1


def _survey(root: Path) -> dict[str, list[object]]:
    """For each file below ``root``: size, mtime, ctime, SHA-256."""
    paths = list(_files(root))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        digests = pool.map(_content, paths, chunksize=64)
        return {
            str(path.relative_to(root)): [*_stamp(path), digest]
            for path, digest in zip(paths, digests, strict=True)
        }


def damage(root: Path) -> str | None:
    """What is wrong with an entry, or None; refreshes times that moved without a change.

    Nobody need hold the entry. If another run replaces it meanwhile, something is missing, or
    what is refreshed is the manifest of the folder that it was when this began.
    """
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return "it is not there"
    try:
        return _damage(root, Path(f"/proc/self/fd/{folder}", MANIFEST))
    except FileNotFoundError:  # from writing: the files, read by path, were the new one's
        return "another run replaces it"
    finally:
        os.close(folder)


def _damage(root: Path, manifest: Path) -> str | None:
    try:
        data, sealed = _unsealed(manifest.read_bytes())
        recorded = {name: (*stamp, digest) for name, (*stamp, digest) in data["files"].items()}
        named = (data["kind"], f"{data['label']}-{digest_of(data['key'])}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"its manifest {MANIFEST} cannot be read"
    if named != (root.parent.name, root.name):
        return f"its manifest {MANIFEST} is that of another entry"
    prefix = f"{root}{os.sep}"
    moved = not sealed
    for name, (size, *times, digest) in recorded.items():
        try:
            stamp = _stamp(prefix + name)
            if sealed and stamp == (size, *times):
                continue
            if stamp[0] != size:
                return f"{name} has {stamp[0]} bytes instead of {size}"
            if _content(root / name) != digest:
                return f"the content of {name} has changed"
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is missing"
        data["files"][name] = [*stamp, digest]
        moved = True
    if moved:
        files.write(manifest, _sealed(data))
    return None


_SEAL = b'{"sha256": "'
_SEAL_END = b'", '


def _sealed(manifest: Mapping[str, object]) -> bytes:
    """A manifest as it is written: JSON that begins with a SHA-256 of all that follows it."""
    rest = json.dumps(manifest)[1:].encode()
    return b"".join([_SEAL, hashlib.sha256(rest).hexdigest().encode(), _SEAL_END, rest])


def _unsealed(text: bytes) -> tuple[dict[str, Any], bool]:
    """A manifest, and whether it has a checksum, which is right.

    Caches that are older than the checksum have none. Then the files of the entry have to be read
    to trust it. Raises ``ValueError`` for a checksum that is wrong.
    """
    data = json.loads(text)
    if not isinstance(data, dict):
        raise TypeError("a manifest is a JSON object")
    if set(data) == {"kind", "label", "made", "key", "files"}:
        return data, False
    begin = len(_SEAL) + 64 + len(_SEAL_END)
    rest = text[begin:]
    whole = b"".join([_SEAL, hashlib.sha256(rest).hexdigest().encode(), _SEAL_END, rest])
    if text != whole:
        raise ValueError("its checksum is another")
    del data["sha256"]
    return data, True


def _last_use(lock: Path, path: Path) -> tuple[int, float]:
    """How many bytes are at ``path``, and when a run last began to use it.

    Both are kept in the file of its lock: the size as its content, which is found out once, and the
    time as the file's own.
    """
    try:
        used = (lock if lock.exists() else path).stat().st_mtime
        with suppress(FileNotFoundError, ValueError):
            return int(lock.read_text()), used
        size = _allocated(path)
    except FileNotFoundError:
        return 0, 0.0  # it was removed meanwhile
    lock.write_text(str(size))
    os.utime(lock, (used, used))
    return size, used


def _allocated(root: Path) -> int:
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512
        for folder, _, names in os.walk(root)
        for name in names
    )


def _remove_tree(path: Path) -> None:
    """Delete a tree that is ours, also where packages left folders without write access."""

    def retry(function: Callable[[str], object], name: str, _: object) -> None:
        with suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            os.chmod(name, 0o700)
            function(name)

    if path.exists():
        shutil.rmtree(path, onerror=retry)


@contextmanager
def _explain(root: Path) -> Iterator[None]:
    """Turn the file system's refusals into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise SpaceError(
                f"no space left for the cache in {root}",
                hint="free some space (`invoke clean` empties the cache), "
                "or point EUDYPTULA_CACHE to a folder on a larger disk",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise HostError(
                f"the cache in {root} cannot be written: {error}",
                hint="point EUDYPTULA_CACHE to a folder that you may write to",
            ) from error
        raise
