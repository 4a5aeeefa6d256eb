# SPDX-License-Identifier: GPL-2.0-only
"""Debian trees that are unpacked, never installed: no root, nothing changed on the host.

``mmdebstrap`` unpacks packages and their dependencies into a folder. It needs no more than a user
namespace. ``harness/host/sandbox.py`` runs programs in such a tree.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import (
    DeadlineError,
    GoneError,
    HarnessError,
    HostError,
    InputError,
    NetworkError,
)
from harness.host import proc, progress, sandbox
from harness.host.cache import Cache, Entry
from harness.host.proc import Deadline
from harness.host.progress import HowFar

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Set to 1, it lets a mirror's index be used that has expired.
EXPIRED = "EUDYPTULA_EXPIRED_MIRROR"
ASK_SECONDS = 30.0  # mmdebstrap answers in half a second
UNPACK_SECONDS = 1200.0  # at most, for 300 MB over a slow line

# What nothing here reads; removing it saves a third of the space and of the checking.
# (dpkg could leave it out by path-exclude, but then mmdebstrap takes twice as long.)
_REMOVED = (
    "usr/share/bash-completion",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/zoneinfo",
    "usr/lib/x86_64-linux-gnu/gconv",
)


# apt takes nothing by itself from a suite that adds to another, but what a kernel depends on
# is there too (apt_preferences(5)).
_PREFERENCES = "Package: linux-*\nPin: release *\nPin-Priority: 500"


@dataclass(frozen=True)
class Sysroot:
    """An unpacked Debian tree at ``root``; ``entry`` keeps it in the cache.

    ``packages`` of ``suite`` are those that were asked for.
    """

    root: Path
    entry: Entry
    suite: str = ""
    packages: tuple[str, ...] = ()


def unpack_packages(
    cache: Cache, *, label: str, suite: str, packages: Sequence[str], note: str = ""
) -> Sysroot:
    """The tree with ``packages`` (NAME or NAME=VERSION) of ``suite`` and all that they depend on.

    Raises ``NetworkError`` when it is not in the cache and no mirror answers, ``GoneError``
    when the suite has none of that name or version.
    """
    recipe = [4, *_REMOVED, *([_PREFERENCES] if _base(suite) else [])]
    key = {"suite": suite, "packages": sorted(packages), "recipe": recipe}
    entry = cache.get(
        "sysroot", label, key, lambda folder: unpack(folder, suite, packages), note=note
    )
    return Sysroot(entry.path / "root", entry, suite, tuple(packages))


def with_more(
    tree: Sysroot, cache: Cache, *, label: str, more: Sequence[str], note: str = ""
) -> Sysroot:
    """A tree with some packages more, and all that these depend on; raises as the above."""
    packages = [*tree.packages, *more]
    return unpack_packages(cache, label=label, suite=tree.suite, packages=packages, note=note)


# -- where packages come from ------------------------------------------------------


def sources(
    suite: str, *, deadline: Deadline, alone: bool = False, components: str = "main"
) -> list[str]:
    """Lines for sources.list: the suite from the mirrors that the host's apt uses.

    With what it builds on, unless ``alone`` is wanted. On a host that is not a Debian (or whose
    apt knows no Debian mirror) they are from the mirror that mmdebstrap takes of its own. Only
    if that is not known either, the list is empty.
    """

    def known(mirrors: str) -> list[str]:
        return sources_from(suite, mirrors, alone=alone, components=components)

    return known(host_mirrors(deadline)) or known(default_mirrors())


def host_mirrors(deadline: Deadline) -> str:
    """What the host's apt gets packages from: lines of ORIGIN|LABEL|URI."""
    done = proc.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
            "Created-By: Packages",
        ],
        deadline=deadline,
        check=False,
    )
    return done.stdout


@functools.cache
def default_mirrors() -> str:
    """The Debian mirrors that mmdebstrap takes of its own, in the form of ``host_mirrors``.

    Asked by a run that ends before it does anything: a hook prints the sources.list of the
    tree, and fails. Empty if it cannot be asked.
    """
    # Of all suites, stable surely has a security mirror.
    with tempfile.TemporaryDirectory(prefix="eudyptula-") as scratch:
        command = [
            "mmdebstrap",
            "--mode=chrootless",
            "--skip=check/chrootless,check/signed-by",
            "--variant=extract",
            "--architectures=amd64",
            '--setup-hook=cat "$1"/etc/apt/sources.list; exit 1',
            "stable",
            f"{scratch}/root",
        ]
        environment = {**os.environ, "TMPDIR": scratch, "LC_ALL": "C.UTF-8"}
        try:
            done = proc.run(command, deadline=Deadline(ASK_SECONDS), check=False, env=environment)
        except HarnessError:
            return ""
    # What a hook prints is among what mmdebstrap itself says, on either stream.
    return mirrors_from(f"{done.stdout}\n{done.stderr}")


def mirrors_from(sources_list: str) -> str:
    """``host_mirrors`` from the lines of a Debian's sources.list, whatever is between them."""
    found = []
    for line in sources_list.splitlines():
        entry = re.fullmatch(r"deb(?: \[[^\]]*\])? (\S+://\S+) (\S+) main\b.*", line)
        if entry:
            uri, suite = entry.groups()
            # Debian's security suites are SUITE-security, and were SUITE/updates.
            security = suite.endswith(("-security", "/updates"))
            found.append(f"Debian|{'Debian-Security' if security else 'Debian'}|{uri}\n")
    return "".join(found)


def sources_from(
    suite: str, indextargets: str, *, alone: bool = False, components: str = "main"
) -> list[str]:
    """``sources`` from what ``host_mirrors`` or ``default_mirrors`` said; empty if nothing."""
    main = security = ""
    for line in indextargets.splitlines():
        origin, label, uri = [*line.split("|"), "", ""][:3]
        if origin != "Debian" or uri.startswith(("cdrom:", "file:")):
            continue
        if label == "Debian" and not main:
            main = uri
        elif label == "Debian-Security" and not security:
            security = uri
    if not main:
        return []
    option = f"[signed-by={KEYRING}]"
    lines = [f"deb {option} {main} {suite} {components}"]
    base = _base(suite)
    if base:
        below = [] if alone else sources_from(base, indextargets, components=components)
        return [*below, *lines]
    if suite not in _NO_SECURITY:
        lines.append(f"deb {option} {main} {suite}-updates {components}")
        if security:
            lines.append(f"deb {option} {security} {suite}-security {components}")
    return lines


_NO_SECURITY = ("sid", "unstable")


def _base(suite: str) -> str:
    """The suite that this one is a part of, or an addition to; else nothing."""
    if suite in ("experimental", "rc-buggy"):
        return "sid"
    return suite.removesuffix("-backports") if suite.endswith("-backports") else ""


def expired_allowed() -> bool:
    """Whether an index of packages is taken that says of itself that it is too old."""
    return os.environ.get(EXPIRED, "") not in ("", "0")


def fault(output: str, suite: str) -> HarnessError | None:
    """The error for what apt said of a suite, where it is one that has a name."""
    tail = "\n".join(output.splitlines()[-proc.TAIL_LINES :])
    if "does not have a Release file" in output:
        return InputError(
            f"the mirror has no suite named {suite}", tail=tail, hint="see vm/kernels.toml"
        )
    dated = _dated(output, suite, tail)
    if dated is not None:
        return dated
    failed = re.search(r"E: Failed to fetch \S*/(\S+)\s+(.*)", output)
    if failed and not proc.unreachable(output):
        return NetworkError(
            f"the mirror did not send all of {failed[1]}, or something else: {failed[2].strip()}",
            tail=tail,
            hint="try again: nothing of it was kept",
        )
    found = re.search(
        r"E: (?:Version \W*(?P<version>\S+?)\W* for \W*(?P<name>[\w.+-]+)\W* was not found"
        r"|Unable to locate package (?P<unknown>\S+)"
        r"|Can't select candidate version from package (?P<none>\S+) )",
        output,
    )
    if found:
        name = found["name"] or found["unknown"] or found["none"]
        version = found["version"]
        of = f" {version}" if version else ""
        return GoneError(f"Debian {suite} has no package {name}{of}", tail=tail)
    unmet = re.search(r"unmet dependencies:\n\s+(.+)", output)
    if unmet:
        return HostError(  # the archive's fault, and not the kernel's
            f"packages of Debian {suite} do not fit together: {unmet[1].strip()}",
            tail=tail,
            hint="the archive is in between two states; try again later",
        )
    return None


def slow(error: DeadlineError, deadline: Deadline, doing: str) -> NetworkError:
    """The error for a download that did not end in time; ``doing`` begins the sentence."""
    return NetworkError(
        f"{doing} did not end within {deadline.seconds:.0f} s",
        tail=error.tail,
        hint="the line to the mirror is slow, or this host's disk; try again, or at another time",
    )


def _dated(output: str, suite: str, tail: str) -> HostError | None:
    """The error for an index of another time than this host's, if it is that."""
    if "not valid yet" in output:  # which EXPIRED does not excuse
        return HostError(
            f"the mirror's index of {suite} is not valid yet: this host's clock is behind, "
            "or the mirror's is ahead",
            tail=tail,
            hint="set this host's clock (`date` shows it); if that is right, try again later",
        )
    if "is expired" in output:
        return HostError(
            f"the mirror's index of {suite} has expired: a mirror that is not kept up to date, "
            "or a clock of this host that is ahead",
            tail=tail,
            hint=f"{EXPIRED}=1 takes it as it is",
        )
    return None


def unpack(folder: Path, suite: str, packages: Sequence[str]) -> None:
    """Unpack packages and all they depend on into ``folder/root``; see ``unpack_packages``."""
    deadline = Deadline(UNPACK_SECONDS)
    if not KEYRING.exists():
        raise HostError(
            "the keys of the Debian archive are not installed",
            hint="sudo apt-get install debian-archive-keyring",
        )
    root = folder / "root"
    log = folder / "unpack.log"
    command = [
        "mmdebstrap",
        "--verbose",  # what apt says, too: how much it will download
        # Nothing of the packages is run, so that no privileges are needed and the
        # tree belongs to whoever asked for it.
        "--mode=chrootless",
        # From 1.5 on it refuses this mode to root, because maintainer scripts would run
        # outside the tree. The extract variant runs none.
        "--skip=check/chrootless",
        "--variant=extract",
        "--architectures=amd64",
        f"--include={','.join(packages)}",
        *(['--aptopt=Acquire::Check-Valid-Until "false"'] if expired_allowed() else []),
        *(
            [f"--setup-hook=echo '{_PREFERENCES}' >\"$1/etc/apt/preferences\""]
            if _base(suite)
            else []
        ),
        suite,
        str(root),
        *sources(suite, deadline=deadline),
    ]
    # In a process namespace of its own: when the harness dies, so do apt and dpkg.
    boxed = ["bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc"]
    boxed += ["--die-with-parent", "--", *command]
    environment = _environment(folder)
    try:
        with progress.detail(lambda: how_far(root, log)):
            done = proc.run(boxed, deadline=deadline, log=log, check=False, env=environment)
    except DeadlineError as error:
        raise slow(error, deadline, f"unpacking packages of Debian {suite}") from error
    if done.status != 0:
        raise (
            sandbox.namespace_fault(done.stdout)
            or proc.no_space(folder, f"unpacking packages of Debian {suite} failed")
            or fault(done.stdout, suite)
            or proc.failure(done, doing=f"unpacking packages of Debian {suite} failed")
        )
    _finish(root)


def how_far(root: Path, log: Path) -> HowFar:
    """How far mmdebstrap has come: what apt has downloaded so far, and the last step it has begun.

    apt says how much it needs before it downloads packages. It keeps those of a tree below
    var/cache/apt/archives until all are unpacked.
    """
    said = log.read_text(errors="replace")
    *_, step = "asking the mirror", *re.findall(r"(?m)^I: (.+)$", said)
    archives = root / "var/cache/apt/archives"
    size = sum(file.lstat().st_size for file in archives.rglob("*.deb")) / 1e6
    needed = re.search(r"(?m)^Need to get (?:[\d.,]+ \w+/)?([\d.,]+) ([kMG]?)B of archives", said)
    if needed is None:  # until then, its lists
        size += sum(file.lstat().st_size for file in root.glob("var/lib/apt/lists/partial/*")) / 1e6
        return HowFar(f"{size:.0f} MB downloaded, {step}")
    whole = float(needed[1].replace(",", "")) * {"": 1e-6, "k": 1e-3, "M": 1.0, "G": 1e3}[needed[2]]
    if size < whole and "downloading" in step:
        return HowFar(f"{size:.0f} of {whole:.0f} MB downloaded, {step}", size / whole)
    return HowFar(f"{whole:.0f} MB downloaded, {step}")


def _environment(folder: Path) -> dict[str, str]:
    """mmdebstrap's own temporary files go beside the tree, so that they leave with it."""
    scratch = folder / "tmp"
    scratch.mkdir()
    return {**os.environ, "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}


def _finish(root: Path) -> None:
    """Do what maintainer scripts would have done and what a sandbox needs."""
    for name in _REMOVED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("dev", "mnt", "proc", "sys", "tmp"):
        (root / name).mkdir(exist_ok=True)
    # The alternatives system is not run, so nobody has named an awk and a which.
    awk = root / "usr/bin/awk"
    for candidate in ("mawk", "gawk"):
        if not awk.is_symlink() and (root / "usr/bin" / candidate).exists():
            awk.symlink_to(candidate)
    which = root / "usr/bin/which"
    if not which.is_symlink() and which.with_name("which.debianutils").exists():
        which.symlink_to("which.debianutils")
    # A kernel's headers bring the one compiler that built it, but not its short name.
    gcc = root / "usr/bin/gcc"
    versions = [path for path in gcc.parent.glob("gcc-*") if path.name[4:].isdecimal()]
    if not gcc.is_symlink() and len(versions) == 1:
        gcc.symlink_to(versions[0].name)
