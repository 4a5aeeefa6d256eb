# SPDX-License-Identifier: GPL-2.0-only
"""What a run found on each kernel, as plain data, and the same as JSON and back. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Cell:
    """How one step or one suite went: ``text`` is for the table, ``why`` one line for red."""

    red: bool
    text: str
    why: str = ""


@dataclass(frozen=True)
class Case:
    """One test.

    ``suite`` is one of ``config.SUITES``, or empty for a test of another folder. ``outcome`` is
    passed, failed, error or skipped; ``why`` is the line that says most.
    """

    name: str
    suite: str
    outcome: str
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class KernelResult:
    """What a run found on one kernel.

    ``status`` is the exit status that this kernel alone would have given, ``finished`` in
    seconds since the epoch, ``ready_s`` and ``tests_s`` how long it took to have the kernel
    ready and to run the tests. ``cells`` are by
    the names of the columns (``table.COLUMNS``). ``how`` says by what the module was built, and
    why by that.
    """

    kernel: str
    release: str
    version: str
    status: int
    finished: float
    ready_s: float
    tests_s: float
    cells: Mapping[str, Cell]
    tests: tuple[Case, ...] = field(default=())
    how: str = ""
    left_out: bool = False  # no time was left for it: nothing is known, neither green nor red

    @property
    def green(self) -> bool:
        return self.status == 0


def left_out(kernel: str, release: str, version: str, why: str) -> KernelResult:
    """The row of a kernel that was not tested, and is neither green nor red for it."""
    # Booting is the first thing that would have been done.
    cells = {"boot": Cell(False, "not run", why)}
    return KernelResult(kernel, release, version, 0, 0.0, 0.0, 0.0, cells, left_out=True)


def to_json(result: KernelResult) -> str:
    return json.dumps(asdict(result), indent=2) + "\n"


def from_json(text: str) -> KernelResult:
    """A result that ``to_json`` wrote; raises ``ValueError`` for anything else."""
    try:
        data = json.loads(text)
        data["cells"] = {name: Cell(**cell) for name, cell in data["cells"].items()}
        data["tests"] = tuple(Case(**test) for test in data["tests"])
        return KernelResult(**data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a result: {error}") from error
