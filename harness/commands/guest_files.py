# SPDX-License-Identifier: GPL-2.0-only
"""What `invoke shell` carries between the host and its guest: files, sources, and a way in."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.build import source
from harness.build.module import Module
from harness.build.requirements import cpio
from harness.errors import CommandFailed, CommandTimeout, InputError
from harness.host.proc import Deadline
from harness.host.text import printable
from harness.machines.clone import CLONE_SECONDS, Clone
from harness.machines.guest import Guest, known_host

log = logging.getLogger(__name__)

SOURCES = "/root/src"  # where a module's sources are in the guest of a shell
_HOME = "/root"
_THERE = (_HOME, "/tmp", "/")  # the guest's
_SOURCE_BYTES = 8 << 20  # more is no module's source that somebody reads in a guest
_PUT_BYTES = 64 << 20  # a guest has 512 MiB of memory, and no disk
_HOST = "eudyptula"  # what the guest is called in a configuration of ssh's


@dataclass(frozen=True)
class Parcel:
    """A file that goes to the guest, or comes from it: where it is on either side."""

    host: Path
    guest: str


@dataclass(frozen=True)
class Baggage:
    """Files to ``put`` into the guest before, files to ``get`` after, and ssh's configuration."""

    put: tuple[Parcel, ...] = ()
    get: tuple[Parcel, ...] = ()
    config: Path | None = None

    @classmethod
    def parse(cls, put: Sequence[str], get: Sequence[str], config: Path | None) -> Baggage:
        """The baggage that the options name; raises ``InputError`` for one that cannot be."""
        if config is not None and os.path.lexists(config):
            raise InputError(
                f"--ssh-config {config}: there is such a file already, and it may be your own",
                hint="it takes the name of a new file, which is gone with the machine",
            )
        return cls(tuple(to_put(put)), tuple(to_get(get)), config)

    @contextlib.contextmanager
    def carried(self, clone: Clone) -> Iterator[None]:
        """Within, all that is put is in the guest, and ssh may come in."""
        _put(clone.guest, self.put)
        with _ssh_config(clone, self.config):
            try:
                yield
            except BaseException:
                if self.get:
                    names = ", ".join(parcel.guest for parcel in self.get)
                    log.warning("not fetched from the guest: %s", names)
                raise

    def fetched(self, guest: Guest) -> bool:
        """Write what is to be fetched on the host; whether all of it was there.

        What the guest cannot give is named, and does not keep the rest from being fetched.
        """
        had = [_get(guest, parcel) for parcel in self.get]
        return all(had)


def to_put(asked: Sequence[str]) -> list[Parcel]:
    """What each FILE[:PATH] of --put means; raises ``InputError`` where there is no such file."""
    found = []
    for each in asked:
        name, guest = (each, "") if each and Path(each).exists() else _split(each)
        host = Path(name)
        if name and host.is_dir():
            raise InputError(
                f"--put {name}: that is a folder, and it takes files",
                hint=f"tar c {shlex.quote(name)} | invoke shell -- 'tar x' puts all of it into "
                f"{_HOME}",
            )
        if not name or not host.is_file() or not os.access(host, os.R_OK):
            raise InputError(
                f"--put {shlex.quote(each)}: {shlex.quote(name)} is no regular file that can be "
                "read",
                hint="--put FILE[:PATH], where PATH is the guest's",
            )
        if host.stat().st_size > _PUT_BYTES:
            raise InputError(
                f"--put {name}: it has {host.stat().st_size >> 20} MiB, and what is put may have "
                f"{_PUT_BYTES >> 20}: a guest has no disk, and little memory"
            )
        found.append(Parcel(host, _in_guest(guest, host.name)))
    return found


def to_get(asked: Sequence[str]) -> list[Parcel]:
    """What each PATH[:FILE] of --get means; raises ``InputError`` where FILE cannot be written."""
    found = []
    for each in asked:
        guest, name = _split(each)
        host = Path(name or Path(guest).name)
        if host.is_dir():
            host /= Path(guest).name
        if guest and host.exists() and not host.is_file():
            raise InputError(
                f"--get {each}: {host} is there, and is no regular file",
                hint="to see what is in a file of the guest, run `cat` behind --",
            )
        if not guest or not host.name or not host.parent.is_dir():
            raise InputError(
                f"--get {each}: there is no folder {host.parent}"
                if guest and host.name
                else f"--get {each}: that names no file",
                hint="--get PATH[:FILE], where PATH is the guest's",
            )
        found.append(Parcel(host, _in_guest(guest, "")))
    return found


def _split(text: str) -> tuple[str, str]:
    """The two sides of a colon; the last one, since a name may have one."""
    first, colon, second = text.rpartition(":")
    return (first, second) if colon else (second, "")


def _in_guest(path: str, name: str) -> str:
    """A path in the guest: below root's home if it says no other place, with a file's ``name``."""
    whole = path if path.startswith("/") else f"{_HOME}/{path}"
    return f"{whole}{name}" if whole.endswith("/") else whole


def _put(guest: Guest, parcels: Sequence[Parcel]) -> None:
    """Write each file in the guest. Who may run it on the host may run it there."""
    for parcel in parcels:
        mode = 0o755 if os.access(parcel.host, os.X_OK) else 0o644
        path, target = PurePosixPath(parcel.guest), parcel.guest
        try:
            if str(path.parent) not in _THERE:
                guest.check(f"mkdir -p -- {shlex.quote(str(path.parent))}")
            if path.name != parcel.host.name and guest.run(f"[ -d {shlex.quote(target)} ]").ok:
                target = str(path / parcel.host.name)  # a folder that is there already
            guest.put(parcel.host, target, mode=mode)
        except CommandFailed as error:
            raise InputError(
                f"--put: {target} cannot be made in the guest",
                tail=error.tail,
                hint="--put FILE:PATH takes another path in the guest",
            ) from error


def _get(guest: Guest, parcel: Parcel) -> bool:
    """Write a file of the guest's on the host, into the one that is there, if one is.

    Whether it could be had; if not, it is said why.
    """
    try:
        # What is no regular file may have no end. That /proc has none of a few is known by time.
        guest.check(f"test -f {shlex.quote(parcel.guest)}")
        data = guest.get(parcel.guest)
    except CommandFailed as error:
        why = error.tail.strip() or "it is no regular file there"
        log.error("%s is not fetched: %s", parcel.guest, printable(why))
        return False
    except CommandTimeout:
        log.error("%s is not fetched: it has no end, or a long way to it", parcel.guest)
        return False
    parcel.host.write_bytes(data)
    log.info("%s of the guest is in %s (%d bytes)", parcel.guest, parcel.host, len(data))
    return True


def give_sources(guest: Guest, module: Module) -> None:
    """Put the module's sources into the guest, for who looks something up there.

    A package and a finished .ko have no folder, and large sources are left out, which is said.
    """
    folder = module.source.folder
    if folder is None:
        return
    found = source.inspect(folder)
    size = sum(path.stat().st_size for path in found.files)
    if size > _SOURCE_BYTES:
        log.info("%s has %d MiB, so it is not in %s", folder, size >> 20, SOURCES)
        return
    archive = cpio(
        {path.relative_to(found.root).as_posix(): path.read_bytes() for path in found.files}
    )
    try:
        guest.check(f"mkdir {SOURCES} && cd {SOURCES} && cpio --quiet -imd", stdin=archive)
    except CommandFailed as error:  # a shell without them is worth more than none
        log.warning("not all of %s is in %s: %s", folder, SOURCES, printable(error.tail.strip()))


@contextlib.contextmanager
def _ssh_config(clone: Clone, file: Path | None) -> Iterator[None]:
    """Within, ``file`` is a configuration for OpenSSH by which one comes into the guest.

    The words are those of ssh_config(5). Raises ``InputError`` where it cannot be made.
    """
    if file is None:
        yield
        return
    port = clone.machine.ssh_port(Deadline(CLONE_SECONDS))
    with tempfile.TemporaryDirectory(prefix="eudyptula-") as folder:
        known = Path(folder, "known_hosts")  # with the guest's key, so that nobody else is taken
        known.write_text(known_host(port, clone.keys))
        try:
            with file.open("x", encoding="utf-8") as stream:
                stream.write(
                    f"Host {_HOST}\n"
                    "    HostName 127.0.0.1\n"
                    f"    Port {port}\n"
                    "    User root\n"
                    f'    IdentityFile "{clone.keys.client}"\n'
                    "    IdentitiesOnly yes\n"
                    f'    UserKnownHostsFile "{known}"\n'
                    "    StrictHostKeyChecking yes\n"
                )
        except OSError as error:
            raise InputError(
                f"--ssh-config {file} cannot be written: {error.strerror}",
                hint="give a file in a folder of yours",
            ) from error
        try:
            log.info("in another terminal: ssh -F %s %s", shlex.quote(str(file.absolute())), _HOST)
            yield
        finally:
            file.unlink(missing_ok=True)
