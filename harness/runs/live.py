# SPDX-License-Identifier: GPL-2.0-only
"""What runs at this moment: the tests that have ended in runs that have not.

A run that goes on holds its folder (store.in_use), and pytest writes there what it does
(harness/runs/pytest_process.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.config import PROJECT, SUITES
from harness.host.text import beginning
from harness.report import table
from harness.report.result import RED, Case, Cell, KernelResult
from harness.runs import pytest_process, store
from harness.runs.pytest_process import EndedTest

_NOTED = (pytest_process.PROGRESS, pytest_process.ENDED)
_KEPT = ("report.json", "partial.json", store.HISTORY, store.LATEST)

# The files that a page of results is made from, with their times and sizes (``stamp``).
Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Running:
    """A run that goes on: what is known of it, and the tests that run now, by their full names."""

    result: KernelResult
    tests: tuple[str, ...]


def running(folder: Path) -> dict[str, Running]:
    """The runs that go on, by kernel; ``folder`` is one like results/."""
    found = {}
    for kernel in kernels(folder):
        run = newest_run(folder / kernel)
        if run is not None and store.in_use(run):
            found[kernel] = _running(kernel, run)
    return found


def kernels(folder: Path) -> list[str]:
    """The names of the folders in which a kernel's results may be."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def newest_run(parent: Path) -> Path | None:
    """The folder of the kernel's run that began last, if there is one."""
    try:
        name = (parent / store.LATEST).readlink()
    except OSError:
        return None
    return parent / name if store.is_run(str(name)) and (parent / name).is_dir() else None


def _running(kernel: str, run: Path) -> Running:
    cases = tuple(map(_case, pytest_process.ended(run)))
    seen = pytest_process.progress(run)
    cells = {"boot": Cell(False, "runs" if seen else "being made ready")}
    cells |= table.suite_cells(cases, (*SUITES, table.OWN))
    status = int(any(case.outcome in RED for case in cases))
    result = KernelResult(
        kernel, "", "", status, 0.0, 0.0, 0.0, cells, cases, given=store.given_to(run)
    )
    return Running(result, seen.running if seen else ())


def _case(one: EndedTest) -> Case:
    """The test as it is named in a JUnit file (report.junit.cases_in)."""
    path, _, test = one.test.partition("::")
    holder, _, name = test.partition("[")[0].rpartition("::")
    within = holder.rpartition("::")[2] or Path(path).stem
    suite = next((part for part in SUITES if part in Path(path).parts), "")
    name = test[len(holder) + 2 :] if holder else test
    # Such names are seen from where pytest finds its configuration.
    file = path if suite else os.path.normpath(PROJECT / path)
    return Case(f"{within}::{name}", suite, one.outcome, one.seconds, beginning(one.why), file=file)


def stamp(folder: Path) -> Stamp:
    """A value that changes whenever the page of the results in ``folder`` would."""
    found = []
    for kernel in kernels(folder):
        parent = folder / kernel
        run = newest_run(parent)
        paths = [parent / name for name in _KEPT]
        if run is not None:
            paths += [run / name for name in _NOTED]
            found.append((str(run), int(store.in_use(run)), 0))
        for path in paths:
            try:
                info = path.lstat()
            except OSError:
                continue
            found.append((str(path), info.st_mtime_ns, info.st_size))
    return tuple(found)
