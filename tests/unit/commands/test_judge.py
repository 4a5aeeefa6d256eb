# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/judge.py: what is printed of the cards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness import config, qemu
from harness.commands import judge
from harness.errors import Status
from harness.report.card import Card, Finding
from harness.runs import cards as runs
from harness.runs.request import Request

from .conftest import MATRIX


def _judge(monkeypatch: pytest.MonkeyPatch, request: Request, count: int) -> int:
    """What the task ends with where the judge has made the first ``count`` of two cards."""
    bad = Card(
        "bad", "class/bad", "one", "6.12", Status.RED, (Finding("hang", "a", "b"),), failed=1
    )
    good = Card("good", "class/good", "one", "6.12", Status.GREEN, passed=2)
    made = [bad, good][:count]

    class Fake:
        def __init__(self, *_: object) -> None:
            pass

        def run(self, *_: object) -> Sequence[Card]:
            return made

    monkeypatch.setattr(runs, "subjects", lambda *_: [])
    monkeypatch.setattr(judge, "Judge", Fake)
    monkeypatch.setattr(qemu, "check_version", lambda: (7, 2))
    monkeypatch.setattr(config, "load", lambda: MATRIX)
    return judge.run(request, ["class"])


@pytest.mark.parametrize("count", [1, 2])
def test_the_verdict_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    """A line for each card, of one as of many."""
    assert _judge(monkeypatch, Request(quiet=True), count) == Status.RED
    said = capsys.readouterr().out.splitlines()
    assert said == ["bad on one: 1 fault", "good on one: green"][:count]


def test_the_cards_are_named_from_where_the_task_was_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Which may be anywhere."""
    monkeypatch.setattr(config, "RESULTS", tmp_path / "harness" / "results")
    (tmp_path / "meter").mkdir()
    caplog.set_level(logging.INFO)
    for started, place in ((".", "harness/results"), ("meter", "../harness/results")):
        monkeypatch.chdir(tmp_path / started)
        caplog.clear()
        _judge(monkeypatch, Request(), 1)
        assert caplog.messages[-1] == f"cards: {place}/judge/cards.md, cards.json, cards.csv"
