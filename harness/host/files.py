# SPDX-License-Identifier: GPL-2.0-only
"""The one way to replace a file: written beside it, then renamed over it.

rename(2) replaces at once, so that whoever reads the file finds the old one or the new one, also
if this process is killed on the way. The name of what is being written is used once, so that any
number of processes can replace the same file at the same time; the last one wins.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

# The name and first bytes of the file that says: all in this folder was made by a program, and can
# be made again (Cache Directory Tagging Specification, bford.info/cachedir).
_TAG = "CACHEDIR.TAG"
_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"


def write(path: Path, data: str | bytes, *, sync: bool = False) -> None:
    """Replace a file, or make it; text becomes UTF-8.

    With ``sync`` it is on the disk before it is in its place, so that a power cut leaves one of
    the two as well. Raises ``OSError``; then the old file is as it was, and nothing else is left.
    """
    with replaced(path) as fresh:
        fresh.write_bytes(data.encode() if isinstance(data, str) else data)
        if sync:
            _sync(fresh)
    if sync:
        _sync(path.parent)


def link(path: Path, target: str) -> None:
    """Make a symbolic link, or replace what is there by it."""
    with replaced(path) as fresh:
        fresh.symlink_to(target)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """The path of a new file beside ``path``, which replaces it at the end, unless that fails."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tag(folder: Path) -> None:
    """Make a folder, and say in it that it is no part of anybody's sources.

    git ignores what is in it. Raises ``OSError``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        (_TAG, f"{_SIGNATURE}\n# Made by the test harness; all in here can be removed.\n"),
        (".gitignore", "*\n"),
    ):
        if not (folder / name).exists():
            write(folder / name, text)


def is_tagged(folder: Path) -> bool:
    """Whether a program has said of a folder that all in it was made."""
    try:
        with (folder / _TAG).open("rb") as tag_file:
            return tag_file.read(len(_SIGNATURE)) == _SIGNATURE.encode()
    except OSError:
        return False
