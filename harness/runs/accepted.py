# SPDX-License-Identifier: GPL-2.0-only
"""Reads eudyptula.toml, the file beside a module that says which findings are known and accepted.

::

    [[accepted]]
    finding = "timer_bases still holds minute"    # words of what a card has seen
    why = "the vendor's firmware needs it"
    until = 2027-03-31                            # the last day

The file comes with a module that somebody has handed in: it is data, and its size is limited.
"""

from __future__ import annotations

import stat
import tomllib
from datetime import date, datetime
from pathlib import Path

from harness.errors import InputError
from harness.report.card import Accepted

NAME = "eudyptula.toml"
_BYTES = 1 << 20
_KEYS = {"finding", "why", "until"}
_FORM = 'each [[accepted]] has finding = "WORDS", why = "WORDS" and until = YYYY-MM-DD'


def read(folder: Path) -> tuple[Accepted, ...]:
    """What is accepted of the module in ``folder``; nothing, if there is no such file.

    Raises ``InputError`` for a file that does not say what it should.
    """
    path = folder / NAME
    try:
        info = path.stat()
    except OSError:
        return ()
    if not stat.S_ISREG(info.st_mode) or info.st_size > _BYTES:
        raise InputError(f"{path} is no file of up to {_BYTES >> 20} MiB", hint=_FORM)
    try:
        said = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
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
