# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of a module ran in its tests: sums, a table, an lcov tracefile. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from harness.host.text import listed, printable
from harness.report import table

JSON = "coverage.json"
LCOV = "coverage.info"


@dataclass(frozen=True)
class Function:
    """A function that is called: the line that it begins in, and how often it was."""

    line: int
    calls: int


@dataclass(frozen=True)
class File:
    """A source file: how often each line ran that has code of its own, and its functions."""

    lines: Mapping[int, int] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)

    @property
    def run(self) -> int:
        """How many lines ran."""
        return sum(count > 0 for count in self.lines.values())

    @property
    def never_called(self) -> list[str]:
        """The functions that nobody has called, in the order of the source."""
        never = [(each.line, name) for name, each in self.functions.items() if not each.calls]
        return [name for _, name in sorted(never)]

    @property
    def missed(self) -> str:
        """The lines that did not run, as ``14, 27-31``: with those between that have no code."""
        ranges: list[tuple[int, int]] = []
        begun = False
        for line, count in sorted(self.lines.items()):
            if count:
                begun = False
            elif begun:
                ranges[-1] = ranges[-1][0], line
            else:
                ranges.append((line, line))
                begun = True
        return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in ranges)


# By the file's name, from the module's folder.
Coverage = Mapping[str, File]


def total(every: Iterable[Coverage]) -> dict[str, File]:
    """The sum of several coverages: of tests, machines or kernels."""
    summed: dict[str, File] = {}
    for one in every:
        for name, file in one.items():
            before = summed.get(name, File())
            lines = dict(before.lines)
            for line, count in file.lines.items():
                lines[line] = lines.get(line, 0) + count
            functions = dict(before.functions)
            for function, its in file.functions.items():
                calls = functions[function].calls if function in functions else 0
                functions[function] = Function(its.line, calls + its.calls)
            summed[name] = File(lines, functions)
    return summed


def to_json(coverage: Coverage) -> str:
    return json.dumps(
        {
            name: {
                "lines": {str(line): count for line, count in sorted(file.lines.items())},
                "functions": {
                    function: [its.line, its.calls] for function, its in file.functions.items()
                },
            }
            for name, file in sorted(coverage.items())
        },
        indent=1,
    )


def from_json(said: str) -> dict[str, File]:
    """What ``to_json`` wrote; raises ``ValueError``, ``KeyError`` or ``TypeError`` for others."""
    return {
        name: File(
            {int(line): int(count) for line, count in file["lines"].items()},
            {function: Function(*its) for function, its in file["functions"].items()},
        )
        for name, file in json.loads(said).items()
    }


def lcov(coverage: Coverage, path: Callable[[str], str] = str) -> str:
    """A tracefile as lcov and genhtml read it (geninfo(1)); ``path``: where a file is."""
    lines = []
    for name, file in sorted(coverage.items()):
        lines += ["TN:", f"SF:{path(name)}"]
        functions = sorted(file.functions.items(), key=lambda each: (each[1].line, each[0]))
        lines += [f"FN:{its.line},{function}" for function, its in functions]
        lines += [f"FNDA:{its.calls},{function}" for function, its in functions]
        lines += [f"FNF:{len(functions)}", f"FNH:{sum(its.calls > 0 for _, its in functions)}"]
        lines += [f"DA:{line},{count}" for line, count in sorted(file.lines.items())]
        lines += [f"LF:{len(file.lines)}", f"LH:{file.run}", "end_of_record"]
    return "".join(f"{line}\n" for line in lines)


_NAMED = 5  # functions that are named in a row


def text(coverage: Coverage) -> str:
    """A row for each file: how many of its lines ran, and which functions nobody has called."""
    rows = [["file", "lines run", "", "functions never called"]]
    for name, file in sorted(coverage.items()):
        never = listed(file.never_called, _NAMED)
        rows.append([name, *_share(file.run, len(file.lines)), never])
    if len(coverage) > 1:
        run = sum(file.run for file in coverage.values())
        rows.append(["all", *_share(run, sum(len(file.lines) for file in coverage.values())), ""])
    return printable(table.columns_of(rows))


def _share(run: int, lines: int) -> list[str]:
    return [f"{run} of {lines}", f"{100 * run // lines} %" if lines else ""]


_SHOWN = 40  # lines that are shown


def not_run(coverage: Coverage, sources: Mapping[str, str]) -> list[str]:
    """The lines that no test has reached, each a sentence with its source where that is known."""
    found = []
    for name, file in sorted(coverage.items()):
        text = sources.get(name, "").splitlines()
        for line in sorted(line for line, count in file.lines.items() if not count):
            source = text[line - 1].strip() if 0 < line <= len(text) else ""
            if source == "{":  # where a function begins, which its first statement says as well
                continue
            place = f"{name}:{line}"
            found.append(printable(f"{place}: {source}" if source else place))
    if len(found) > _SHOWN:
        found[_SHOWN:] = [f"and {len(found) - _SHOWN} more lines"]
    return [f"Not reached: {each}" for each in found]


def share(coverage: Coverage) -> str:
    """How much ran, in a sentence."""
    run = sum(file.run for file in coverage.values())
    return f"{run} of {sum(len(file.lines) for file in coverage.values())} lines ran in its tests."
