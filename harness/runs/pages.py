# SPDX-License-Identifier: GPL-2.0-only
"""Writes the page of results that people look at, and the same table as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import config
from harness.errors import refused
from harness.host import files
from harness.report import page, table
from harness.report.junit import failures
from harness.report.result import KernelResult
from harness.runs import store

PAGE = "index.html"
SUMMARY = "summary.md"


def write(results: Sequence[KernelResult], folder: Path | None = None, about: str = "") -> Path:
    """Write the page and the summary of ``results`` into ``folder``; the page's path.

    ``folder`` is one that holds results (default: results/): what the red tests say is read from
    there. Raises ``HostError`` where it cannot be written.
    """
    folder = config.RESULTS if folder is None else folder
    texts = {result.kernel: _texts(folder, result) for result in results}
    try:
        files.write(folder / SUMMARY, table.markdown(results) + "\n" if results else "")
        files.write(folder / PAGE, page.html(results, texts, about=about))
    except OSError as error:
        raise refused(error, "writing the page of results", f"make room for {folder}") from error
    return folder / PAGE


def _texts(folder: Path, result: KernelResult) -> dict[str, str]:
    """What the red tests of a kernel's last result say in full, where it is known."""
    for whole in (True, False):
        if store.last(result.kernel, whole=whole, folder=folder) == result:
            try:
                return failures(
                    store.junit_of(result.kernel, whole=whole, folder=folder).read_text()
                )
            except (OSError, ValueError):
                break
    return {}


def newest(folder: Path) -> list[KernelResult]:
    """The last result of each kernel that a folder has results of, in alphabetical order.

    A result of a part of the tests is taken where it is newer than the last one of all.
    """
    found = []
    for kernel in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        both = [store.last(kernel, whole=whole, folder=folder) for whole in (True, False)]
        known = [result for result in both if result is not None]
        found += sorted(known, key=lambda result: result.finished)[-1:]
    return found
