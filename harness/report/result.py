# SPDX-License-Identifier: GPL-2.0-only
"""What a run found on each kernel, as plain data, and the same as JSON and back. Pure.

What the JSON holds is described in docs/verdicts.md.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# The version of the JSON's form. It is raised where a field is added or gets another meaning;
# docs/verdicts.md lists what changed. Version 1 had neither a version nor excerpts; 2 lacked
# ``module``, ``harness``, ``given`` and ``left``; 3 lacked ``steps``, ``began``, ``setup_s``,
# ``job`` and ``file``.
SCHEMA = 4
# No number of seconds is larger, not even since the epoch: that is in the year 5138.
_LARGE = 1e11
# The outcomes of a test that is red.
RED = ("failed", "error")


@dataclass(frozen=True)
class Cell:
    """How one step or one suite went: ``text`` is for the table, ``why`` one line for red."""

    red: bool
    text: str
    why: str = ""


@dataclass(frozen=True)
class Excerpt:
    """Lines of a module's source around one that is to blame; lines are counted from 1."""

    file: str  # relative to the module's folder
    line: int  # the one that is to blame
    first: int  # the number of the first of ``lines``
    lines: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


# What a name in an expression of pytest's -k may have (_pytest/mark/expression.py).
_OF_AN_EXPRESSION = re.compile(r"[\w:+.\[\]\\/-]+", re.ASCII)
_OPERATORS = ("and", "or", "not")
# Options of tasks that pytest has under these names in every repository (docs/your-repository.md).
_OF_PYTEST = re.compile(r"^--(param|device|guest-packages)\b")


@dataclass(frozen=True)
class Case:
    """One test."""

    name: str
    suite: str  # one of config.SUITES; "" for a test of another folder
    outcome: str  # passed, failed, error or skipped
    seconds: float  # of set-up, call and teardown
    why: str = ""  # of one that is not passed: the line that says most
    excerpts: tuple[Excerpt, ...] = ()  # the places in the source that a red test names
    left: tuple[str, ...] = ()  # what it has left and how to look at that, a line each
    began: float = 0.0  # seconds since the epoch; 0 where that is not known
    setup_s: float = 0.0  # how much of ``seconds`` its fixtures took, the machine among them
    job: str = ""  # the worker of pytest-xdist that has run it, if any
    file: str = ""  # of this project's: as seen from where pytest was started; others in full

    @property
    def alone(self) -> str:
        """The expression for --filter and pytest's -k that chooses this test, parameter and all.

        Where the parameter has characters that such an expression cannot have, those with a similar
        one are chosen as well.
        """
        function, bracket, parameter = self.name.partition("[")
        words = f"{function.rpartition('::')[2]}{bracket}{parameter}".split()
        found = (_OF_AN_EXPRESSION.match(word) for word in words)
        return " and ".join(word[0] for word in found if word and word[0] not in _OPERATORS)

    def again(self, kernel: str, given: Sequence[str]) -> str:
        """The command that runs this test alone, with a kernel and a result's ``given``."""
        if self.suite:
            words = ["invoke", "test-vm", *given, "--kernel", kernel, "--filter", self.alone,
                     "--suite", self.suite]  # fmt: skip
        else:
            options = [_OF_PYTEST.sub(r"--kernel-\1", option) for option in given]
            words = ["pytest", self.file, *options, "--kernel", kernel, "-k", self.alone]
        return shlex.join(filter(None, words))


@dataclass(frozen=True)
class Step:
    """Something long that was done: when it began, in seconds since the epoch, and for how long."""

    what: str
    began: float
    seconds: float


@dataclass(frozen=True)
class KernelResult:
    """What a run found on one kernel."""

    kernel: str  # its name in the matrix
    release: str  # as uname -r says it
    version: str  # of the package
    status: int  # the exit status of a run on this kernel alone (errors.Status)
    finished: float  # seconds since the epoch
    ready_s: float  # how long it took to have the kernel, build the module and boot
    tests_s: float  # how long the tests took
    cells: Mapping[str, Cell]  # by the names of the table's columns (table.COLUMNS)
    tests: tuple[Case, ...] = field(default=())
    how: str = ""  # by what the module was built and why, to be put behind "built"
    left_out: bool = False  # no time was left for it: nothing is known, neither green nor red
    module: str = ""  # a digest of the module as it was built; "" where it is not known
    harness: str = ""  # a digest of the harness, the tests and their options (identity.of)
    given: tuple[str, ...] = ()  # the options that chose the module and what its machines have
    steps: tuple[Step, ...] = ()  # what was done besides the tests, in the order it ended

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
    except (ValueError, RecursionError) as error:
        raise ValueError("not a result: it is no JSON, or only a part of one") from error
    if not isinstance(data, dict):
        raise ValueError("not a result: it has no fields")  # noqa: TRY004  # as for all the rest
    try:
        schema = data.pop("schema", 1)
        if schema not in range(1, SCHEMA + 1):
            raise ValueError(f"not a result: its form is {schema!r}, and {SCHEMA} is the newest")
        data["cells"] = {name: Cell(**cell) for name, cell in data["cells"].items()}
        data["tests"] = tuple(_case(test) for test in data["tests"])
        data["given"] = tuple(data.get("given", ()))
        data["steps"] = tuple(Step(**step) for step in data.get("steps", ()))
        return _checked(KernelResult(**data))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a result: {error}") from error


def _checked(result: KernelResult) -> KernelResult:
    """The result, if its values are of the kinds that they are to be."""
    numbers = [result.finished, result.ready_s, result.tests_s]
    for step in result.steps:
        numbers += [step.began, step.seconds]
    for case in result.tests:
        numbers += [case.seconds, case.began, case.setup_s]
    texts = [result.kernel, result.release, result.version, result.how, result.module,
             result.harness, *result.given, *(step.what for step in result.steps)]  # fmt: skip
    for cell in result.cells.values():
        texts += [cell.text, cell.why]
    for case in result.tests:
        texts += [case.name, case.suite, case.outcome, case.why, case.job, case.file, *case.left]
    if (
        not all(isinstance(one, str) for one in texts)
        or not all(isinstance(one, (int, float)) and 0 <= one < _LARGE for one in numbers)
        or not isinstance(result.status, int)
    ):
        raise ValueError("not a result: a value of it is of another kind")
    return result


def _case(values: Mapping[str, Any]) -> Case:
    excerpts, left = excerpts_from(values.get("excerpts", [])), tuple(values.get("left", ()))
    return Case(**{**values, "excerpts": excerpts, "left": left})


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
