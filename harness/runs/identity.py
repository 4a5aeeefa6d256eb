# SPDX-License-Identifier: GPL-2.0-only
"""A digest of the harness, the tests and their options.

A test that was red and is green now may have been mended meanwhile. It is called flaky only where
this is the same, and the module and the kernel are as well.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness import config
from harness.host.cache import digest_of_files

# What is in a folder of tests and decides how they go. Data of any size may lie there as well.
_SOURCES = (".py", ".pl", ".sh", ".c", ".h", ".toml", ".ini")


def of(tests: Iterable[Path], options: Sequence[str] = ()) -> str:
    """A digest of the harness as it is now, of folders of tests (or files), and of ``options``.

    With a folder count the files below it, with a file those beside it, and with both those of the
    packages that they are in. It is empty where one of them cannot be read.
    """
    try:
        digests = sorted({_of_tests(path) for path in tests})
        whole = hashlib.sha256("\0".join([_of_harness(), *digests, *options]).encode())
    except OSError:
        return ""
    return whole.hexdigest()[:16]


@functools.cache
def _of_harness() -> str:
    """Of the files that this process has most likely loaded: they are read once."""
    package = Path(__file__).resolve().parent.parent
    files = [*_sources(package.rglob("*")), *_files((config.PROJECT / "vm").rglob("*"))]
    return digest_of_files(Path("/"), files)


def _of_tests(path: Path) -> str:
    return digest_of_files(Path("/"), files_of(path))


def files_of(path: Path) -> set[Path]:
    """The files that decide how the tests in a folder or file go (``of``); raises ``OSError``."""
    path = path.resolve(strict=True)
    package = path if path.is_dir() else path.parent
    files = set(_sources(package.rglob("*") if path.is_dir() else package.glob("*")))
    while (package / "__init__.py").exists():
        package = package.parent
        files.update(_sources(package.glob("*")))
    return files


def _sources(paths: Iterable[Path]) -> list[Path]:
    return [path for path in _files(paths) if path.suffix in _SOURCES]


def _files(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
