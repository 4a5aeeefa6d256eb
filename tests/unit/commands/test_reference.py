# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/reference.py: docs/reference.md says what the code says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from harness import testing
from harness.commands import reference
from harness.host import files
from harness.machines.guest import Guest


@pytest.fixture(scope="module")
def text() -> str:
    return reference.text()


def test_the_page_is_of_this_code(text: str) -> None:
    """Where it is not, `invoke reference` makes it again."""
    assert reference.PAGE.read_text() == text


def test_what_is_promised_is_there(text: str) -> None:
    """Each name that tests import, and of what it is only what the guide says."""
    headings = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert [*testing.__all__] == headings[-len(testing.__all__) :]
    said = (inspect.getdoc(Guest.check) or "").splitlines()[0]
    assert "`.check(command: str, *, timeout: float = 30.0, stdin: bytes = b''" in text
    assert said in text
    assert ".open_shells" not in text


def test_a_task_says_what_its_options_mean(text: str) -> None:
    """Also where invoke has asked for them before."""
    again = reference.text()
    assert "| `-f STRING`, `--filter=STRING` | EXPR: only tests that match" in text
    assert again == text


def test_it_is_written(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Where the other pages are."""
    written: dict[Path, str] = {}
    monkeypatch.setattr(files, "write", written.__setitem__)
    reference.run()
    assert written == {reference.PAGE: text}
