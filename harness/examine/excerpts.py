# SPDX-License-Identifier: GPL-2.0-only
"""The lines of a module's source around those that problems name, for people to look at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.errors import SandboxError
from harness.host import sandbox
from harness.host.text import LOG_BYTES, printable
from harness.judge.verdict import Problem
from harness.report.result import Excerpt

AROUND = 7  # lines before and after the one that is meant
MOST = 3  # of one test: what is wrong first is what matters
_COLUMNS = 200  # characters of a line


def of(problems: Iterable[Problem], folder: Path) -> list[Excerpt]:
    """The lines of source around the places of problems; the module's source is in ``folder``.

    A place is FILE:LINE as the module's debug information has it, in which anything may stand. One
    that is not in the folder is left out.
    """
    places = dict.fromkeys(one.location for one in problems if one.location)
    found = [excerpt for place in places if (excerpt := around(folder, place)) is not None]
    return found[:MOST]


def around(folder: Path, place: str) -> Excerpt | None:
    """The lines around a place, unless the source has none such."""
    file, _, number = place.rpartition(":")
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        return None
    line = int(number)
    try:
        text = sandbox.take(folder.resolve(), file, LOG_BYTES).decode(errors="replace")
    except SandboxError:
        return None
    # As a compiler counts them, which str.splitlines() does not.
    lines = text.removesuffix("\n").split("\n")
    if not 1 <= line <= len(lines):
        return None
    first = max(1, line - AROUND)
    shown = lines[first - 1 : line + AROUND]
    return Excerpt(
        printable(file), line, first,
        tuple(printable(one.rstrip("\r").expandtabs()[:_COLUMNS]) for one in shown),
    )  # fmt: skip
