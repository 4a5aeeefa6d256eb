# SPDX-License-Identifier: GPL-2.0-only
"""Reads the JUnit files that pytest writes (`--junitxml`, its family xunit2). Pure.

The format is the one of https://docs.pytest.org/en/stable/how-to/output.html: a ``testcase`` for
each test, and in it a ``failure``, an ``error`` or a ``skipped`` where it did not pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree

from harness.config import SUITES
from harness.report.ktap import KtapTest
from harness.report.result import Case, Excerpt, excerpts_from

# The property of a test case with the excerpts of its module's source, as JSON.
EXCERPTS = "eudyptula.excerpts"
# The property of a test case with what its machine has left and how to look at that, in lines.
LEFT = "eudyptula.left"
# The property with when and where a test has run, as JSON (run_value).
RUN = "eudyptula.run"
# The property with the tests of a program that it has run, as JSON (ktap_value).
KTAP = "eudyptula.ktap"
# The property of what ``expanded`` has made of them: the name of the test that has run the program.
_WITHIN = "eudyptula.within"
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def cases_in(junit: str) -> list[Case]:
    """The tests in a JUnit file as pytest writes it; raises ``ValueError`` for another text."""
    root = _root(junit)
    found: dict[tuple[str, str], Case] = {}
    for case in _tests(root):
        module, name = case.get("classname", ""), case.get("name", "")
        outcome, why = "passed", ""
        # A test that skips and whose teardown fails has both: what is red counts.
        for child in sorted(case, key=lambda child: child.tag == "skipped"):
            if child.tag in ("failure", "error", "skipped"):
                outcome = {"failure": "failed"}.get(child.tag, child.tag)
                text = child.text or child.get("message") or ""
                why = first_line((child.get("message") or "") if outcome == "skipped" else text)
                break
        test = Case(f"{module.rpartition('.')[2]}::{name}", _suite(module), outcome,
                    float(case.get("time", "0")), why, _excerpts(case), _left(case),
                    **_run(case))  # fmt: skip
        # A test that failed and whose teardown failed too is there twice.
        before = found.get((module, name))
        if before is None or before.outcome in ("passed", "skipped"):
            found[module, name] = test
    return list(found.values())


def _excerpts(case: ElementTree.Element) -> tuple[Excerpt, ...]:
    try:
        return tuple(
            one for said in _properties(case, EXCERPTS) for one in excerpts_from(json.loads(said))
        )
    except (ValueError, RecursionError):  # a test may write down whatever it likes
        return ()


def _left(case: ElementTree.Element) -> tuple[str, ...]:
    return tuple(line for said in _properties(case, LEFT) for line in said.splitlines())


def run_value(began: float, setup_s: float, job: str, file: str) -> str:
    """The value of the property ``RUN``; what these are is said at ``result.Case``."""
    return json.dumps(
        {"began": round(began, 3), "setup_s": round(setup_s, 3), "job": job, "file": file}
    )


def _run(case: ElementTree.Element) -> dict[str, Any]:
    """When and where a test has run, as fields of its ``Case``."""
    for said in _properties(case, RUN):
        try:
            value = json.loads(said)
        except (ValueError, RecursionError):  # a test may write down whatever it likes
            continue
        match value:
            case {"began": int() | float() as began, "setup_s": int() | float() as setup_s,
                  "job": str(job), "file": str(file)}:  # fmt: skip
                return {"began": began, "setup_s": setup_s, "job": job, "file": file}
    return {}


def failures(junit: str) -> dict[str, str]:
    """The full messages of the red tests of a JUnit file, by the names that ``cases_in`` gives.

    Of a test that failed and whose teardown failed too, it is what the test says.
    """
    found: dict[str, str] = {}
    for (_, name), (text, *_) in failures_of_suites(junit).items():
        found.setdefault(name, text)
    return found


def failures_of_suites(junit: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """The full messages of each red test, and of its teardown after it, by suite and name.

    Tests of two suites may have one name.
    """
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for case in _tests(_root(junit)):
        module = case.get("classname", "")
        name = f"{module.rpartition('.')[2]}::{case.get('name', '')}"
        for child in case:
            if child.tag in ("failure", "error"):
                text = child.text or child.get("message") or ""
                key = _suite(module), name
                found[key] = (*found.get(key, ()), text)
    return found


def _suite(module: str) -> str:
    return next((part for part in SUITES if part in module.split(".")), "")


def _tests(root: ElementTree.Element) -> list[ElementTree.Element]:
    """The test cases that pytest has written. What others tell within them is theirs already."""
    return [case for case in root.iter("testcase") if not _properties(case, _WITHIN)]


def _properties(case: ElementTree.Element, name: str) -> list[str]:
    """The values of the properties of that name, as they come."""
    return [one.get("value", "") for one in case.iter("property") if one.get("name") == name]


# -- programs with tests of their own ----------------------------------------------


def ktap_value(tests: Iterable[KtapTest]) -> str:
    """The value of the property ``KTAP`` for these tests."""
    return json.dumps([[one.name, one.outcome, one.why, one.said] for one in tests])


def expanded(junit: str) -> str:
    """The file with a test case for each test of a program, behind the one that has run it.

    pytest writes none for subtests. Raises ``ValueError`` for another text than pytest's.
    """
    root = _root(junit)
    for suite in root.iter("testsuite"):
        for case in suite.findall("testcase"):
            tests = _ktap_tests(case)
            if not tests:
                continue
            for test in tests:
                _clear(case, test)
            place = list(suite).index(case) + 1
            suite[place:place] = [_ktap_case(case, test) for test in tests]
        # pytest counts subtests, as far as it does, without a test case for each.
        for tag, attribute in (
            ("testcase", "tests"), ("failure", "failures"), ("error", "errors"),
            ("skipped", "skipped"),
        ):  # fmt: skip
            suite.set(attribute, str(len(list(suite.iter(tag)))))
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _ktap_tests(case: ElementTree.Element) -> list[KtapTest]:
    try:
        return [
            KtapTest(*map(str, one)) for said in _properties(case, KTAP) for one in json.loads(said)
        ]
    except (ValueError, TypeError, RecursionError):  # a test may write down whatever it likes
        return []


def _clear(case: ElementTree.Element, test: KtapTest) -> None:
    """Take away that one of its tests was skipped: else it is as if the case itself was."""
    said = f"{test.name}: {test.why}" if test.why else test.name
    for child in case.findall("skipped"):
        if test.outcome in ("skipped", "xfailed") and child.get("message") == said:
            case.remove(child)


def _ktap_case(case: ElementTree.Element, test: KtapTest) -> ElementTree.Element:
    holder = case.get("name", "")
    name = _NO_XML.sub("\ufffd", f"{holder}: {test.name}")
    made = ElementTree.Element(
        "testcase", classname=case.get("classname", ""), name=name, time="0.000"
    )
    properties = ElementTree.SubElement(made, "properties")
    ElementTree.SubElement(properties, "property", name=_WITHIN, value=holder)
    why = _NO_XML.sub("\ufffd", test.why)
    if test.outcome == "failed":
        failure = ElementTree.SubElement(made, "failure", message=why or "failed")
        failure.text = _NO_XML.sub("\ufffd", test.said)
    elif test.outcome in ("skipped", "xfailed"):
        kind = "pytest.skip" if test.outcome == "skipped" else "pytest.xfail"
        ElementTree.SubElement(made, "skipped", type=kind, message=why)
    return made


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
