# SPDX-License-Identifier: GPL-2.0-only
"""What a run found on each kernel, as plain data, and the same as JSON and back. Pure.

What the JSON holds is described in docs/verdicts.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# The form of the JSON. A field that is added or has another meaning makes it one more; what
# changed is told in docs/verdicts.md. Version 1 said no version, and had no excerpts.
SCHEMA = 2


@dataclass(frozen=True)
class Cell:
    """How one step or one suite went: ``text`` is for the table, ``why`` one line for red."""

    red: bool
    text: str
    why: str = ""


@dataclass(frozen=True)
class Excerpt:
    """Lines of a module's source around the line ``line`` of ``file``, which is to blame.

    ``file`` is below the module's folder. ``first`` is the number of the first of ``lines``; lines
    are counted from 1.
    """

    file: str
    line: int
    first: int
    lines: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Case:
    """One test.

    ``suite`` is one of ``config.SUITES``, or empty for a test of another folder. ``outcome`` is
    passed, failed, error or skipped; ``why`` is the line that says most. ``excerpts`` are of the
    places that a red one names.
    """

    name: str
    suite: str
    outcome: str
    seconds: float
    why: str = ""
    excerpts: tuple[Excerpt, ...] = ()


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
    return json.dumps({"schema": SCHEMA, **asdict(result)}, indent=2) + "\n"


def from_json(text: str) -> KernelResult:
    """A result that ``to_json`` wrote, of this version or an older one.

    Raises ``ValueError`` for anything else.
    """
    try:
        data = json.loads(text)
        schema = data.pop("schema", 1)
        if schema not in range(1, SCHEMA + 1):
            raise ValueError(f"not a result: its form is {schema!r}, and {SCHEMA} is the newest")
        data["cells"] = {name: Cell(**cell) for name, cell in data["cells"].items()}
        data["tests"] = tuple(_case(test) for test in data["tests"])
        return KernelResult(**data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a result: {error}") from error


def _case(values: Mapping[str, Any]) -> Case:
    return Case(**{**values, "excerpts": excerpts_from(values.get("excerpts", []))})


def excerpts_from(values: object) -> tuple[Excerpt, ...]:
    """Excerpts from what JSON makes of them; raises ``ValueError`` for anything else."""
    match values:
        case [*each]:
            return tuple(map(_excerpt, each))
        case _:
            raise ValueError("not a result: its excerpts are no list")


def _excerpt(values: object) -> Excerpt:
    match values:
        case {"file": str(file), "line": int(line), "first": int(first), "lines": [*lines]} if all(
            isinstance(one, str) for one in lines
        ):
            return Excerpt(file, line, first, tuple(lines))
        case _:
            raise ValueError("not a result: an excerpt has other fields")
