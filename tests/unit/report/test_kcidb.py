# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/kcidb.py: what is written is what the kernel community's own package takes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import kcidb_io  # type: ignore[import-untyped]  # it has no annotations
import pytest

from harness.errors import Status
from harness.report import kcidb
from harness.report.junit import cases_in
from harness.report.result import Case, Cell, KernelResult, left_out

from .test_junit import JUNIT

RED = KernelResult(
    "trixie", "6.12.9-amd64", "6.12.9-1", 1, 1e9, 20.0, 30.0,
    {"boot": Cell(False, "ok"), "build": Cell(False, "ok"), "load": Cell(True, "red", "why"),
     "contract": Cell(True, "1 of 2 red", "why")},
    tuple(cases_in(JUNIT)), "by Kbuild",
)  # fmt: skip


def written(result: KernelResult, run: str = "20261129-1") -> dict[str, Any]:
    """What was written, once the package has taken it."""
    data: dict[str, Any] = json.loads(kcidb.to_json(result, run))
    newest = kcidb_io.schema.LATEST
    assert data["version"] == {"major": newest.major, "minor": newest.minor}
    assert newest.validate(data) == data
    return data


def test_every_test_is_there() -> None:
    """With its place in the tree, and booting and loading beside them."""
    data = written(RED)
    assert [(one["path"], one["status"]) for one in data["tests"]] == [
        ("eudyptula.boot", "PASS"),
        ("eudyptula.load", "FAIL"),
        ("eudyptula.contract.test_contract.test_node", "PASS"),
        ("eudyptula.contract.test_contract.test_ps", "FAIL"),
        ("eudyptula.module.test_write.test_a", "FAIL"),
        ("eudyptula.module.test_trace.test_b", "FAIL"),
        ("eudyptula.module.test_trace.test_c", "SKIP"),
        ("eudyptula.module.test_log.test_d", "FAIL"),
    ]
    assert data["tests"][4]["comment"] == "test_write::test_a[1-2]"
    assert data["tests"][4]["log_excerpt"] == "splat: WARNING in driver_write (5 times)"
    (build,) = data["builds"]
    assert (build["status"], build["duration"]) == ("PASS", 20.0)
    assert build["start_time"] == "2001-09-09T01:45:50+00:00"
    assert {one["start_time"] for one in data["tests"]} == {"2001-09-09T01:46:10+00:00"}


def test_what_belongs_together_is_linked() -> None:
    """And no two runs have anything of the same name but the kernel."""
    first, second = written(RED, "one"), written(RED, "two")
    for data in (first, second):
        assert {one["build_id"] for one in data["tests"]} == {one["id"] for one in data["builds"]}
        assert data["builds"][0]["checkout_id"] == data["checkouts"][0]["id"]
        assert len({one["id"] for one in data["tests"]}) == len(data["tests"])
    names = [{one["id"] for kind in ("builds", "tests") for one in data[kind]}
             for data in (first, second)]  # fmt: skip
    assert names[0].isdisjoint(names[1])


@pytest.mark.parametrize("status", [Status.HOST, Status.OURS])
def test_what_the_host_has_done_is_no_failure(status: Status) -> None:
    """Nothing is known of the kernel."""
    data = written(replace(RED, status=int(status)))
    assert {one["status"] for one in data["tests"]} == {"PASS", "SKIP", "MISS"}


def test_a_kernel_that_was_not_tested_is_missing() -> None:
    """Neither built nor booted."""
    data = written(left_out("sid", "7.2", "7.2-1", "no time left"))
    assert data["builds"][0]["status"] == "MISS"
    assert [one["status"] for one in data["tests"]] == ["MISS"]


@pytest.mark.parametrize("hostile", ["\0", "a/b c", "\u5b57", "x" * 100_000, "::[", ""])
def test_whatever_a_name_is_it_is_taken(hostile: str) -> None:
    """Names and words come from modules, and from other people's folders of results."""
    case = Case(f"{hostile}::{hostile}", hostile, "failed", 1.0, hostile)
    cells = {"build": Cell(True, hostile, hostile)}
    written(replace(RED, kernel=hostile, release=hostile, cells=cells, tests=(case,)), hostile)
