# SPDX-License-Identifier: GPL-2.0-only
"""The coverage of a run: which lines of the module its tests have reached.

In the folder of a run, ``coverage/`` has a file of what each process of pytest-xdist has found, and
``coverage.json`` and ``coverage.info`` are made of these when all have ended
(harness/report/coverage.py).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness import config
from harness.host import files
from harness.host.text import LOG_BYTES, printable
from harness.report import coverage
from harness.report.coverage import Coverage
from harness.runs import store

FOLDER = "coverage"


@dataclass(frozen=True)
class Part:
    """The coverage that one process has found; ``why``: why it is not known, or not whole.

    ``source`` is the folder of the module, if it has one.
    """

    coverage: Coverage
    source: str = ""
    why: str = ""


def write(folder: Path, part: Part) -> None:
    """Write down what the process has found whose counts are in ``folder``, and remove those."""
    said = {"coverage": coverage.to_json(part.coverage), "source": part.source, "why": part.why}
    with store.writing("the coverage"):
        folder.parent.mkdir(parents=True, exist_ok=True)  # it may have had no machine
        files.write(folder.with_suffix(".json"), json.dumps(said))
        shutil.rmtree(folder, ignore_errors=True)


def settle(folder: Path) -> str:
    """Sum up what all processes of a run have found; what a person is told of it.

    ``folder`` is the run's ``FOLDER``, which is gone then.
    """
    if not folder.is_dir():
        return ""
    parts, why = [], []
    for path in sorted(folder.glob("*.json")):
        said = json.loads(path.read_text())
        parts.append(Part(coverage.from_json(said["coverage"]), said["source"], said["why"]))
        why += [said["why"]] if said["why"] else []
    if any(path.is_dir() for path in folder.iterdir()):
        why.append("a process that ran tests has died, and what it counted is not among this")
    found = coverage.total(part.coverage for part in parts)
    source = next((part.source for part in parts if part.source), "")
    with store.writing("the coverage"):
        write_total(folder.parent, found, source)
        shutil.rmtree(folder, ignore_errors=True)
    place = os.path.relpath(folder.parent / coverage.LCOV)
    lines = ["", coverage.text(found)] if found else []
    said = [f"coverage: {printable(each)}" for each in (*dict.fromkeys(why), place)]
    return "\n".join([*lines, *said])


def write_total(folder: Path, found: Coverage, source: str) -> None:
    """Write coverage.json and coverage.info into ``folder``."""
    files.write(folder / coverage.JSON, coverage.to_json(found))
    files.write(
        folder / coverage.LCOV,
        coverage.lcov(found, lambda name: str(file_of(name, source) or name)),
    )


def file_of(name: str, source: str) -> Path | None:
    """Where a source file is, if it is below the folder of the module.

    Its name is from the module's debug information, in which anything may stand.
    """
    path = Path(source, name)
    inside = source and path.is_file() and path.resolve().is_relative_to(Path(source).resolve())
    return path.resolve() if inside else None


def read(folder: Path) -> Coverage | None:
    """The coverage of a run; None where it was not asked for, or cannot be read."""
    try:
        return coverage.from_json((folder / coverage.JSON).read_text())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def not_run(folder: Path, source: str) -> list[str]:
    """Sentences for a card on a run in ``folder``: the lines that no test has reached.

    ``source`` is the folder of the module, or "". Nothing where it is not known what ran.
    """
    found = read(folder)
    if not found:
        return []
    texts = {}
    for name in found:
        if (path := file_of(name, source)) is not None:
            with path.open(errors="replace") as stream:
                texts[name] = stream.read(LOG_BYTES)
    return [coverage.share(found), *coverage.not_run(found, texts)]


def of_kernels(names: Iterable[str], source: str) -> str:
    """Sum up what ran in the last run of each of these kernels, and write that into results/.

    What a person is told of it: nothing, if it is not known of any.
    """
    every = [read(config.RESULTS / name / store.LATEST) for name in names]
    known = [each for each in every if each]
    if not known:
        return ""
    found = coverage.total(known)
    with store.writing("the coverage"):
        write_total(config.RESULTS, found, source)
    place = os.path.relpath(config.RESULTS / coverage.LCOV)
    return f"{coverage.text(found)}\ncoverage of {len(known)} kernels: {place}"
