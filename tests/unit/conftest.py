# SPDX-License-Identifier: GPL-2.0-only
"""A limit for each unit test: one that hangs is red and named, and the others go on."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

UNIT = Path(__file__).parent
# The slowest takes some ten seconds on a quiet host; hosts differ by ten when they are busy.
SECONDS = 150


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(UNIT) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(autouse=True)
def _as_talkative_as_before() -> Iterator[None]:
    """A task decides how much is logged, for its whole process: here for one test only."""
    harness = logging.getLogger("harness")
    before = harness.level
    yield
    harness.setLevel(before)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each os.pread() has had so far."""
    sizes: list[int] = []
    pread = os.pread

    def seen(descriptor: int, length: int, at: int) -> bytes:
        data = pread(descriptor, length, at)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", seen)
    return sizes


# A stand-in for pytest can end as pytest and the plugin do: with a status, and saying so.
ENDS = """\
for word; do
    case $word in
    --kernel-results=*) results=${word#*=} ;;
    esac
done
says() { echo "{\\"running\\": [$1], \\"crashed\\": [], \\"status\\": $2, \\"pytest\\": $3, \\
\\"going_on\\": [${4-}]}" >$results/progress.json; }
ends() { says "" ${2-$1} $1; exit $1; }
"""


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script in the place of the Python that runs pytest."""

    def becomes(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{ENDS}{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return becomes
