# SPDX-License-Identifier: GPL-2.0-only
"""Reads eudyptula.toml, the file beside a module that says which findings are known and accepted.

::

    [[accepted]]
    finding = "timer_bases still holds minute"    # words of what a card has seen
    why = "the vendor's firmware needs it"
    until = 2027-03-31                            # the last day

The file comes with a module that somebody has handed in. So it is data, of a limited size, and a
link is not followed to a file of this computer's.
"""

from __future__ import annotations

import os
import tomllib
from datetime import date, datetime
from pathlib import Path

from harness.errors import InputError, SandboxError
from harness.host import sandbox
from harness.report.card_compare import Accepted

NAME = "eudyptula.toml"
_BYTES = 1 << 20
_KEYS = {"finding", "why", "until"}
_FORM = 'each [[accepted]] has finding = "WORDS", why = "WORDS" and until = YYYY-MM-DD'


def read(folder: Path) -> tuple[Accepted, ...]:
    """What is accepted of the module in ``folder``; nothing, if there is no such file.

    Raises ``InputError`` for a file that does not say what it should.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        return ()
    try:
        said = tomllib.loads(sandbox.take(folder.resolve(), NAME, _BYTES).decode())
    except SandboxError as error:
        raise InputError(f"in {folder}, {error.what}", hint=_FORM) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}", hint=_FORM) from error
    rows = said.get("accepted", [])
    if set(said) - {"accepted"} or not isinstance(rows, list):
        raise InputError(f"{path} may have nothing but [[accepted]]", hint=_FORM)
    return tuple(_one(path, number, row) for number, row in enumerate(rows, 1))


def _one(path: Path, number: int, row: object) -> Accepted:
    if not isinstance(row, dict) or set(row) != _KEYS:
        raise InputError(f"{path}: [[accepted]] number {number} has other keys", hint=_FORM)
    for key in ("finding", "why"):
        if not isinstance(row[key], str) or not row[key].strip():
            raise InputError(
                f"{path}: {key} of [[accepted]] number {number} is no text", hint=_FORM
            )
    until = row["until"]
    if not isinstance(until, date) or isinstance(until, datetime):
        raise InputError(f"{path}: until of [[accepted]] number {number} is no day", hint=_FORM)
    return Accepted(row["finding"], row["why"], until)
