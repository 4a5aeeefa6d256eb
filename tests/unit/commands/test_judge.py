# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/judge.py: what is printed of the cards."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness import config, qemu
from harness.commands import judge
from harness.errors import Status
from harness.report.card import Card, Finding
from harness.runs import cards as runs
from harness.runs.request import Request

from .conftest import MATRIX


@pytest.mark.parametrize("count", [1, 2])
def test_the_verdict_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    """A line for each card, of one as of many."""
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
    assert judge.run(Request(quiet=True), ["class"]) == Status.RED
    said = capsys.readouterr().out.splitlines()
    assert said == ["bad on one: 1 fault", "good on one: green"][:count]
