# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/result.py: a result is the same after it was kept as JSON."""

from __future__ import annotations

import pytest

from harness.report.junit import cases_in
from harness.report.result import Cell, KernelResult, from_json, left_out, to_json

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
