# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/result.py: a result is the same after it was kept as JSON."""

from __future__ import annotations

import json

import pytest
from _pytest.mark.expression import Expression

from harness.report.junit import cases_in
from harness.report.result import (
    SCHEMA,
    Case,
    Cell,
    Excerpt,
    KernelResult,
    excerpts_from,
    from_json,
    left_out,
    to_json,
)

from .test_junit import JUNIT


def test_a_result_is_read_back_as_it_was_written() -> None:
    """With every cell and every test."""
    tests = tuple(cases_in(JUNIT))
    whole = KernelResult(
        "sid",
        "7.2",
        "7.2-1",
        1,
        1.5,
        2.0,
        3.0,
        {"load": Cell(True, "red", "w")},
        tests,
        "by Kbuild",
    )
    assert from_json(to_json(whole)) == whole


def test_a_result_has_the_source_that_is_to_blame() -> None:
    """And says which form it has."""
    case = Case("a::b", "", "failed", 1.0, "why", (Excerpt("a.c", 2, 1, ("one", "two")),))
    whole = KernelResult("sid", "7.2", "7.2-1", 1, 1.5, 2.0, 3.0, {}, (case,))
    text = to_json(whole)
    assert json.loads(text)["schema"] == SCHEMA
    assert from_json(text) == whole


def test_a_result_of_an_older_form_is_read() -> None:
    """The second did not say what was tested; the first no version, and nothing of the source."""
    case = Case("a::b", "", "failed", 1.0, "why")
    whole = KernelResult("sid", "7.2", "7.2-1", 1, 1.5, 2.0, 3.0, {}, (case,))
    data = json.loads(to_json(whole))
    del data["module"], data["harness"]
    assert from_json(json.dumps(data | {"schema": 2})) == whole
    del data["schema"], data["tests"][0]["excerpts"]
    assert from_json(json.dumps(data)) == whole


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, "2", None, []])
def test_a_result_of_another_form_is_refused(schema: object) -> None:
    """Who knows what its fields mean."""
    data = json.loads(to_json(left_out("sid", "7.2", "7.2-1", "why"))) | {"schema": schema}
    with pytest.raises(ValueError, match="not a result: its form is"):
        from_json(json.dumps(data))


GOOD = {"file": "a.c", "line": 2, "first": 1, "lines": ["one", "two"]}


@pytest.mark.parametrize(
    "excerpts",
    [GOOD, "a", None, [1], [{}], [GOOD | {"line": "2"}], [GOOD | {"lines": "ab"}],
     [GOOD | {"lines": [1]}], [GOOD | {"first": None}]],
)  # fmt: skip
def test_what_is_no_source_is_refused(excerpts: object) -> None:
    """Whoever shows it counts on what it is."""
    with pytest.raises(ValueError, match="not a result"):
        excerpts_from(excerpts)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": {}, "tests": []}', '{"cells": 1}'])
def test_what_is_no_result_is_refused(text: str) -> None:
    """An older form, or half a file, is as good as none."""
    with pytest.raises(ValueError, match=r"not a result|Expecting value"):
        from_json(text)


def test_a_kernel_that_was_left_out_is_not_red() -> None:
    """Nothing is known of it; it is kept as such."""
    row = left_out("sid", "7.2", "7.2-1", "no time left")
    assert row.green
    assert from_json(to_json(row)) == row


@pytest.mark.parametrize(
    ("name", "alone", "others"),
    [
        ("test_a::test_one", "test_one", []),
        ("test_a::test_one[idle]", "test_one[idle]", ["test_one[after a write]", "test_one"]),
        ("test_a::test_one[after a write]", "test_one[after and a and write]", ["test_one[idle]"]),
        ("Class::test_one[a::b-or/c]", "test_one[a::b-or/c]", ["test_one[a::b-or/d]"]),
        ("test_a::test_one[this and that]", "test_one[this and that]", ["test_one[this]"]),
        ("test_a::test_one['/dev/x', 1]", "test_one[ and 1]", ["test_one['/dev/x', 2]"]),
    ],
)
def test_a_test_is_chosen_with_its_parameter(name: str, alone: str, others: list[str]) -> None:
    """By an expression that pytest takes, although such a parameter can be anything."""
    case = Case(name, "", "failed", 1.0)
    assert case.alone == alone
    chosen = Expression.compile(case.alone)

    def matches(test: str) -> bool:
        return chosen.evaluate(lambda part, /, **_: part in test)

    assert matches(name.rpartition("test_one")[1] + name.rpartition("test_one")[2])
    assert not any(map(matches, others))


@pytest.mark.parametrize(
    ("suite", "again"),
    [
        (
            "any",
            "invoke test-vm --module=/a --param=x=1 --kernel sid --filter test_one --suite any",
        ),
        ("", "pytest tests/test_a.py --module=/a --kernel-param=x=1 --kernel sid -k test_one"),
    ],
)
def test_a_test_is_run_again_by_what_has_run_it(suite: str, again: str) -> None:
    """One of one's own is in none of the suites that a task knows by name."""
    case = Case("test_a::test_one", suite, "failed", 1.0, file="tests/test_a.py")
    assert case.again("sid", ("--module=/a", "--param=x=1")) == again
