# SPDX-License-Identifier: GPL-2.0-only
"""Writes the page of results that people look at, and the same table as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import config
from harness.errors import refused
from harness.host import files
from harness.report import coverage, page, table
from harness.report.junit import failures
from harness.report.result import KernelResult, from_json
from harness.runs import covered, store
from harness.runs import live as live_runs

PAGE = "index.html"
SUMMARY = "summary.md"


def write(
    results: Sequence[KernelResult],
    folder: Path | None = None,
    about: str = "",
    notes: Sequence[str] = (),
) -> Path:
    """Write the page and the summary of ``results`` into ``folder``; the page's path.

    ``notes`` are sentences on what is missing there.

    ``folder`` is one that holds results (default: results/): what the red tests say is read from
    there. Raises ``HostError`` where it cannot be written.
    """
    folder = config.RESULTS if folder is None else folder
    made = _made(results, folder, about, notes)
    try:
        files.write(folder / SUMMARY, table.markdown(results) + "\n" if results else "")
        files.write(folder / PAGE, made)
    except OSError as error:
        raise refused(error, "writing the page of results", f"make room for {folder}") from error
    return folder / PAGE


def live(folder: Path, reload: page.Reload) -> str:
    """The page of each kernel's last result in ``folder``, and of what runs there now."""
    running = live_runs.running(folder)
    results = {result.kernel: result for result in newest(folder)}
    results |= {kernel: one.result for kernel, one in running.items()}
    about = "The last result of each kernel."
    now = {kernel: one.tests for kernel, one in running.items()}
    notes = passed_over(folder)
    return _made(list(results.values()), folder, about, notes, running=now, reload=reload)


def _made(
    results: Sequence[KernelResult],
    folder: Path,
    about: str,
    notes: Sequence[str],
    *,
    running: Mapping[str, Sequence[str]] | None = None,
    reload: page.Reload | None = None,
) -> str:
    texts = {result.kernel: _texts(folder, result) for result in results}
    # Of the module that the page is of: how long another one's runs took says nothing of it.
    past = {
        result.kernel: [
            one for one in store.past(result.kernel, folder=folder) if one.given == result.given
        ]
        for result in results
    }
    ran = [covered.read(folder / result.kernel / store.LATEST) for result in results]
    return page.html(
        results, texts, about=about, past=past, running=running, reload=reload, notes=notes,
        coverage=coverage.total(one for one in ran if one),
    )  # fmt: skip


def _texts(folder: Path, result: KernelResult) -> dict[str, str]:
    """What the red tests of a kernel's last result say in full, where it is known."""
    for whole in (True, False):
        if store.last(result.kernel, whole=whole, folder=folder) == result:
            try:
                return failures(
                    store.junit_of(result.kernel, whole=whole, folder=folder).read_text("utf-8")
                )
            except (OSError, ValueError):
                break
    return {}


def newest(folder: Path) -> list[KernelResult]:
    """The last result of each kernel that a folder has results of, in alphabetical order.

    A result of a part of the tests is taken where it is newer than the last one of all.
    """
    found = []
    for kernel in live_runs.kernels(folder):
        both = [store.last(kernel, whole=whole, folder=folder) for whole in (True, False)]
        known = [result for result in both if result is not None]
        found += sorted(known, key=lambda result: result.finished)[-1:]
    return found


def passed_over(folder: Path) -> list[str]:
    """A sentence for each result in ``folder`` that cannot be read, such as one of another version.

    A whole result that is damaged is passed over, although the page then shows an older one of a
    part of the tests, or none.
    """
    found = []
    for kernel in live_runs.kernels(folder):
        for whole in (True, False):
            path = store.result_of(kernel, whole=whole, folder=folder)
            try:
                from_json(path.read_text("utf-8"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                found.append(f"{kernel}/{path.name} is passed over: {why}")
    return found
