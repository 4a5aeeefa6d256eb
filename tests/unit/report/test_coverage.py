# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/coverage.py: sums, the table, the tracefile, the lines that nothing reached."""

from __future__ import annotations

import pytest

from harness.report import coverage
from harness.report.coverage import File, Function

ONE = {"mine.c": File({3: 1, 4: 0}, {"mine_init": Function(3, 1), "never": Function(9, 0)})}
OTHER = {"mine.c": File({3: 2, 5: 1}, {"late": Function(5, 1)}), "more.c": File({1: 0})}


def test_what_ran_in_one_of_them_ran() -> None:
    summed = coverage.total([ONE, OTHER])
    assert summed["mine.c"].lines == {3: 3, 4: 0, 5: 1}
    assert summed["mine.c"].functions == {
        "mine_init": Function(3, 1), "never": Function(9, 0), "late": Function(5, 1),
    }  # fmt: skip
    assert summed["more.c"] == File({1: 0})


def test_what_was_written_is_read_again() -> None:
    assert coverage.from_json(coverage.to_json(OTHER)) == OTHER


@pytest.mark.parametrize("said", ["", "[", '{"mine.c": {}}', '{"mine.c": 3}'])
def test_what_nobody_wrote_is_refused(said: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        coverage.from_json(said)


def test_the_tracefile_is_as_lcov_reads_it() -> None:
    """Its format is in geninfo(1)."""
    assert coverage.lcov(ONE, lambda name: f"/somewhere/{name}").splitlines() == [
        "TN:",
        "SF:/somewhere/mine.c",
        "FN:3,mine_init", "FN:9,never",
        "FNDA:1,mine_init", "FNDA:0,never",
        "FNF:2", "FNH:1",
        "DA:3,1", "DA:4,0",
        "LF:2", "LH:1",
        "end_of_record",
    ]  # fmt: skip


def test_the_table_names_what_nobody_has_called() -> None:
    rows = [line.split() for line in coverage.text(coverage.total([ONE, OTHER])).splitlines()]
    assert rows[1] == ["mine.c", "2", "of", "3", "66", "%", "never"]
    assert rows[2] == ["more.c", "0", "of", "1", "0", "%"]
    assert rows[3] == ["all", "2", "of", "4", "50", "%"]


def test_a_name_cannot_write_to_the_terminal() -> None:
    """A module's debug information is somebody else's text."""
    foreign = {"\x1b[2Jmine.c": File({1: 0}, {"\x1b]0;": Function(1, 0)})}
    assert "\x1b" not in coverage.text(foreign)
    assert "\x1b" not in "".join(coverage.not_run(foreign, {}))


def test_lines_that_nothing_reached_are_shown_with_their_source() -> None:
    source = "\n\none\n\tif (two)\n"
    assert coverage.not_run(ONE, {"mine.c": source}) == ["Not reached: mine.c:4: if (two)"]
    assert coverage.not_run(ONE, {}) == ["Not reached: mine.c:4"]
    assert coverage.not_run(ONE, {"mine.c": "\n\n\n{\n"}) == []


def test_not_all_of_very_many_lines_are_shown() -> None:
    many = {"mine.c": File(dict.fromkeys(range(1, 101), 0))}
    shown = coverage.not_run(many, {})
    assert len(shown) == 41
    assert shown[-1] == "Not reached: and 60 more lines"
