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

# The form of the JSON. A field that is added or has another meaning makes it one more; what
# changed is told in docs/verdicts.md. Version 1 said no version, and had no excerpts; version 2 did
# not say which module was tested by which harness, nor what a red test has left; version 3 did not
# say what began when, nor where a test is.
SCHEMA = 4
# No number of seconds is larger, not even since the epoch: that is in the year 5138.
_LARGE = 1e11
# The outcomes of a test that did not go as it should.
RED = ("failed", "error")


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


# What a name in an expression of pytest's -k may have (_pytest/mark/expression.py).
_OF_AN_EXPRESSION = re.compile(r"[\w:+.\[\]\\/-]+", re.ASCII)
_OPERATORS = ("and", "or", "not")
# Options of tasks that pytest has under these names in every repository (docs/your-repository.md).
_OF_PYTEST = re.compile(r"^--(param|device|guest-packages)\b")


@dataclass(frozen=True)
class Case:
    """One test.

    ``suite`` is one of ``config.SUITES``, or empty for a test of another folder. ``outcome`` is
    passed, failed, error or skipped; ``why`` is the line that says most. ``excerpts`` are of the
    places that a red one names. ``began`` is in seconds since the epoch, or 0 where that is not
    known; ``setup_s`` of its ``seconds`` went before its machine and its other fixtures were there.
    ``job`` is the worker of pytest-xdist that has run it, if any. ``file`` is seen from the
    folder in which pytest was started, or in full for a test that is not of this project.
    """

    name: str
    suite: str
    outcome: str
    seconds: float
    why: str = ""
    excerpts: tuple[Excerpt, ...] = ()
    left: tuple[str, ...] = ()  # what it has left and how to look at that, a line each
    began: float = 0.0
    setup_s: float = 0.0
    job: str = ""
    file: str = ""

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
    """What a run found on one kernel.

    ``status`` is the exit status that this kernel alone would have given, ``finished`` in
    seconds since the epoch, ``ready_s`` and ``tests_s`` how long it took to have the kernel
    ready and to run the tests. ``cells`` are by
    the names of the columns (``table.COLUMNS``). ``how`` says by what the module was built, and
    why by that. ``module`` stands for the module as it was built, ``harness`` for the harness, its
    tests and their options; each is empty where that is not known. ``given`` are the options of
    tasks and of pytest that chose the module and what its machines have. ``steps`` are what was
    done before and between the tests, in the order in which it ended.
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
    module: str = ""
    harness: str = ""
    given: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()

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
