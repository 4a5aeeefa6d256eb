# SPDX-License-Identifier: GPL-2.0-only
"""Modules that a dkms.conf says how to build, by Debian's own dkms in the sandbox.

A dkms.conf is a shell script (dkms(8)), which only a shell and dkms can be right about. The dkms
is that of the kernel's suite, so that it says what it would say there. It is told that it is root,
which in the sandbox it is of nothing but the copy of the sources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from harness.build import package
from harness.errors import InputError
from harness.host.cache import Cache

# Below the folder of the build. dkms wants its sources in a folder named NAME-VERSION.
SOURCES = PurePath("sources")
TREE = PurePath("tree")
BIN = PurePath("bin")
# dkms ends with this where a BUILD_EXCLUSIVE_... of its dkms.conf is not met (since 3.0.4).
EXCLUDED = 77

# What the kernel's own tree lacks, and where it is in the sandbox.
_TOOLS = {"dkms": "/mnt/dkms", "patch": "/mnt/patch"}
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,100}")


def tools(suite: str, cache: Cache) -> dict[str, Path]:
    """What the sandbox needs besides the kernel's tree: folders of the host by their places."""
    return {place: package.unpacked(name, suite, cache).root for name, place in _TOOLS.items()}


def variables(inside: str) -> Mapping[str, str]:
    """The environment; ``inside`` is where the folder of the build is in the sandbox.

    dkms strips debug information off, which is to be kept: it finds a ``strip`` that does nothing.
    """
    own = (f"{inside}/{BIN}", "/mnt/dkms/usr/sbin", "/mnt/dkms/usr/lib/dkms", "/mnt/patch/usr/bin")
    return {"PATH": ":".join([*own, "/usr/sbin", "/usr/bin", "/sbin", "/bin"])}


def lay_out(work: Path) -> None:
    """Make what dkms needs beside the sources."""
    (work / TREE).mkdir()
    (work / BIN).mkdir()
    strip = work / BIN / "strip"
    strip.write_text("#!/bin/sh\nexit 0\n")
    strip.chmod(0o755)


# Sourced as dkms does it, with the variables that it sets before. What it prints comes first.
ASK = """\
kernelver=$1 arch=x86_64 kernel_source_dir=$2 dkms_tree=. source_tree=.
. ./dkms.conf 2>&1
printf '\\n%s\\n%s\\n%s\\n%s\\n' "$PACKAGE_NAME" "$PACKAGE_VERSION" \\
    "${BUILD_EXCLUSIVE_CONFIG//$'\\n'/ } ${BUILD_EXCLUSIVE_KERNEL//$'\\n'/ }" \\
    "${BUILT_MODULE_NAME[*]//$'\\n'/ }"
"""
_WORDS_MAX = 5  # lines of what a dkms.conf says itself that are shown
_LINE_MAX = 200  # characters of each


@dataclass(frozen=True)
class Asked:
    """What a dkms.conf says of itself for one kernel.

    ``options`` (CONFIG_...) are what the kernel has to be built with. Some say that in words that
    no kernel's name has: BUILD_EXCLUSIVE_KERNEL="REQUIRES CONFIG_USB_HID". ``words`` are what it
    prints, as some do where they are not for a kernel, and ``modules`` the names of its modules,
    where it gives them, in its order.
    """

    name: str
    version: str
    options: tuple[str, ...]
    words: tuple[str, ...]
    modules: tuple[str, ...] = ()


def asked(said: str, conf: str) -> Asked:
    """What ``ASK`` has printed of the dkms.conf ``conf``.

    Raises ``InputError`` where it gives no name.
    """
    *words, name, version, options, modules = ["", "", "", "", *said.splitlines()]
    if not _WORD.fullmatch(name):
        raise InputError(
            f"{conf} gives no PACKAGE_NAME that dkms takes: {name!r}",
            hint="letters, digits and . + ~ _ -; see dkms(8)",
        )
    spoken = dict.fromkeys(line.strip()[:_LINE_MAX] for line in words if line.strip())
    wanted = (one for one in options.split() if re.fullmatch(r"CONFIG_\w+", one, re.ASCII))
    names = tuple(modules.split())
    return Asked(name, version, tuple(wanted), tuple(spoken)[:_WORDS_MAX], names)


# What a Debian package may be called (Debian Policy, 5.6.7).
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")


def package_of(name: str) -> str:
    """The Debian package that probably has the module of a PACKAGE_NAME or a folder; "" for none.

    As debhelper's dh_dkms and most packages have it.
    """
    found = f"{name.lower().replace('_', '-').removesuffix('-dkms')}-dkms"
    return found if _PACKAGE.fullmatch(found) else ""


def with_version(conf: str, version: str) -> tuple[str, str]:
    """A dkms.conf with a version that dkms takes, and that version.

    An author's tree often has a word there that only a release replaces, such as @VERSION@.
    """
    if _WORD.fullmatch(version):
        return conf, version
    filled = conf.replace(version, "0") if version else conf
    return f'{filled}\nPACKAGE_VERSION="0"\n', "0"


def command(name: str, version: str, release: str, headers: str, inside: str) -> Sequence[str]:
    """What has dkms build a package for a kernel, whose headers are in the folder ``headers``."""
    return [
        "bash", "/mnt/dkms/usr/sbin/dkms", "build", "-m", name, "-v", version,
        "-k", f"{release}/x86_64", f"--kernelsourcedir={headers}",
        f"--dkmstree={inside}/{TREE}", f"--sourcetree={inside}/{SOURCES}",
    ]  # fmt: skip


def built(name: str, version: str, release: str) -> PurePath:
    """The folder of a package's finished modules, below that of the build."""
    return TREE / name / version / release / "x86_64" / "module"


def logs(name: str, version: str, release: str) -> tuple[PurePath, PurePath]:
    """Where the compiler's log is: after a build that went well, and after one that did not."""
    base = TREE / name / version
    return base / release / "x86_64" / "log" / "make.log", base / "build" / "make.log"


def own_paths(said: str, inside: str) -> str:
    """A text with paths as they are in the folder of the module, rather than in the sandbox."""
    return re.sub(
        rf"{re.escape(inside)}/(?:{TREE}/[^/\s]+/[^/\s]+/build/|{SOURCES}/[^/\s]+/)?", "", said
    )
