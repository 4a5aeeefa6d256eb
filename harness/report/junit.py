# SPDX-License-Identifier: GPL-2.0-only
"""Reads the JUnit files that pytest writes (`--junitxml`, its family xunit2). Pure.

The format is the one of https://docs.pytest.org/en/stable/how-to/output.html: a ``testcase`` for
each test, and in it a ``failure``, an ``error`` or a ``skipped`` where it did not pass.
"""

from __future__ import annotations

import json
from xml.etree import ElementTree

from harness.config import SUITES
from harness.report.result import Case, Excerpt, excerpts_from

# The property of a test case with the excerpts of its module's source, as JSON.
EXCERPTS = "eudyptula.excerpts"


def cases_in(junit: str) -> list[Case]:
    """The tests in a JUnit file as pytest writes it; raises ``ValueError`` for another text."""
    root = _root(junit)
    found: dict[tuple[str, str], Case] = {}
    for case in root.iter("testcase"):
        module, name = case.get("classname", ""), case.get("name", "")
        outcome, why = "passed", ""
        # A test that skips and whose teardown fails has both: what is red counts.
        for child in sorted(case, key=lambda child: child.tag == "skipped"):
            if child.tag in ("failure", "error", "skipped"):
                outcome = {"failure": "failed"}.get(child.tag, child.tag)
                text = child.text or child.get("message") or ""
                why = first_line((child.get("message") or "") if outcome == "skipped" else text)
                break
        suite = next((part for part in SUITES if part in module.split(".")), "")
        test = Case(f"{module.rpartition('.')[2]}::{name}", suite, outcome,
                    float(case.get("time", "0")), why, _excerpts(case))  # fmt: skip
        # A test that failed and whose teardown failed too is there twice.
        before = found.get((module, name))
        if before is None or before.outcome in ("passed", "skipped"):
            found[module, name] = test
    return list(found.values())


def _excerpts(case: ElementTree.Element) -> tuple[Excerpt, ...]:
    properties = case.iter("property")
    said = [one.get("value", "") for one in properties if one.get("name") == EXCERPTS]
    try:
        return tuple(one for each in said for one in excerpts_from(json.loads(each)))
    except (ValueError, RecursionError):  # a test may write down whatever it likes
        return ()


def failures(junit: str) -> dict[str, str]:
    """What each red test of a JUnit file says in full, by the names that ``cases_in`` gives."""
    found: dict[str, str] = {}
    for case in _root(junit).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
        for child in case:
            if child.tag in ("failure", "error"):
                found.setdefault(name, child.text or child.get("message") or "")
    return found


def first_line(text: str) -> str:
    """The line of an explanation that says most: pytest's own begins with E."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return next(iter(marked or lines), "")


def _root(junit: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(junit)  # noqa: S314  # our own pytest's, not a stranger's
    except ElementTree.ParseError as error:
        raise ValueError(f"not a JUnit file: {error}") from error
