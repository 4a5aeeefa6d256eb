# SPDX-License-Identifier: GPL-2.0-only
"""Reads results in the form that the kernel's tests print, KTAP, and in TAP. Pure.

KTAP is described in Documentation/dev-tools/ktap.rst of the kernel's sources, TAP on
testanything.org. KUnit and kselftest print it::

    KTAP version 1
    1..2
      # Subtest: numbers
      1..2
      ok 1 addition
      # sum: 3, and should be 4
      not ok 2 division
    not ok 1 numbers
    ok 2 letters # SKIP no letters here

The line of a test that has others in it comes after theirs, and is indented less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = 2000  # characters of a line that are looked at
_SAID = 100  # lines of diagnosis that are kept of a test
# What the kernel's log has before each line.
_STAMP = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[[ TC]\d+\])? ?")
_VERSION = re.compile(r"^ *(?:KTAP|TAP) version \d+ *$")
_PLAN = re.compile(r"^( *)1\.\.(\d{1,9})\b(?: *# *(skip)\b *(.*))?", re.IGNORECASE)
_RESULT = re.compile(r"^( *)(not ok|ok)\b(?: +(\d{1,9}))?(?: +|$)(?:- *)?(.*)$")
_DIRECTIVE = re.compile(r"(?<!\\)# *(SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b:? *(.*)$", re.IGNORECASE)
_BAIL_OUT = re.compile(r"^ *Bail out! *(.*)$")
_SUBTEST = re.compile(r"^ *# Subtest: ")


@dataclass(frozen=True)
class KtapTest:
    """One test: its name, with those that it is in before it and a dot between.

    ``outcome`` is "passed", "failed", "skipped" or "xfailed" (it failed, as was expected). ``why``
    is the reason that its line gives, and ``said`` what was printed before that line.
    """

    name: str
    outcome: str
    why: str = ""
    said: str = ""


@dataclass(frozen=True)
class KtapResult:
    """All tests of an output, and in sentences what is wrong with the output itself."""

    tests: tuple[KtapTest, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Node:
    indent: int
    test: KtapTest
    inside: tuple[_Node, ...]


def read(output: str) -> KtapResult:
    """The tests of an output, which may have other lines between."""
    reader = _Reader()
    for line in output.splitlines():
        reader.take(_STAMP.sub("", line[:_LINE]))
    return reader.end()


class _Reader:
    def __init__(self) -> None:
        self._nodes: list[_Node] = []  # whose own line has come, and not the one that they are in
        self._plans: dict[int, int] = {}  # how many tests there are to be, by their indentation
        self._said: list[str] = []
        self._problems: list[str] = []

    def take(self, line: str) -> None:
        if found := _RESULT.match(line):
            self._result(len(found[1]), found[2] == "ok", found[3] or "", found[4])
        elif found := _PLAN.match(line):
            self._plan(len(found[1]), int(found[2]), found[4] if found[3] else None)
        elif found := _BAIL_OUT.match(line):
            self._problems.append(f"it gave up: {found[1] or 'no reason is given'}")
        elif line.strip() and not _VERSION.match(line) and not _SUBTEST.match(line):
            self._said.append(line.strip().removeprefix("# "))

    def _plan(self, indent: int, count: int, skip: str | None) -> None:
        # TAP has the plan at the end as well. Another one at the same place is of another program.
        self._plans[indent] = self._plans.get(indent, 0) + count
        if skip is not None:
            # Of a program that runs none of its tests, that is the one result.
            self._add(indent, KtapTest("all", "skipped", skip.strip()), ())
            self._plans[indent] += 1

    def _result(self, indent: int, ok: bool, number: str, text: str) -> None:
        inside: list[_Node] = []
        while self._nodes and self._nodes[-1].indent > indent:
            inside.append(self._nodes.pop())
        inside.reverse()
        directive, why, outcome = _DIRECTIVE.search(text), "", "passed" if ok else "failed"
        if directive:
            text, why = text[: directive.start()], directive[2].strip()
            kind = directive[1].upper()
            if kind == "SKIP":
                outcome = "skipped"
            elif kind in ("TODO", "XFAIL"):
                outcome = "passed" if ok else "xfailed"
            else:
                why = f"{kind.lower()} {why}".strip()
        name = text.replace("\\#", "#").strip() or f"test {number}".strip()
        said = "\n".join(self._said[-_SAID:])
        self._said = []
        for each in [level for level in self._plans if level > indent]:
            self._count(each, [node for node in inside if node.indent == each], f" in {name}")
        self._add(indent, KtapTest(name, outcome, why, said), tuple(inside))

    def _add(self, indent: int, test: KtapTest, inside: tuple[_Node, ...]) -> None:
        self._nodes.append(_Node(indent, test, inside))

    def _count(self, indent: int, nodes: list[_Node], where: str) -> None:
        planned = self._plans.pop(indent)
        if planned != len(nodes):
            self._problems.append(
                f"{planned} tests were planned{where}, and {len(nodes)} have a result"
            )

    def end(self) -> KtapResult:
        for each in list(self._plans):
            self._count(each, [node for node in self._nodes if node.indent == each], "")
        tests = tuple(test for node in self._nodes for test in _leaves(node, ""))
        if not tests:
            self._problems.append("no test has a result")
        return KtapResult(tests, tuple(self._problems))


def _leaves(node: _Node, before: str) -> Iterator[KtapTest]:
    """The tests that have no others in them, and a failed one whose others have all passed."""
    test = node.test
    name = f"{before}{test.name}"
    inner = [one for each in node.inside for one in _leaves(each, f"{name}.")]
    if not inner or (test.outcome == "failed" and not any(o.outcome == "failed" for o in inner)):
        yield KtapTest(name, test.outcome, test.why, test.said)
    yield from inner
