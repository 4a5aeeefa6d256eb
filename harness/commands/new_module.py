# SPDX-License-Identifier: GPL-2.0-only
"""`invoke new-module`: a folder with a module that works, and a first test of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.errors import InputError, refused
from harness.host import files

KINDS = ("misc", "chardev", "platform", "netfilter")
_TEMPLATES = Path(__file__).parents[1] / "scaffold"
# It is a part of names in C, of the .ko file's and of a device's.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


def run(name: str, kind: str, folder: Path | None) -> int:
    """Make the folder (default: ``name`` in the current one), and say what to do with it.

    Raises ``InputError`` for a name that no module can have, an unknown kind, and a folder that is
    there already.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name for a module",
            hint="a letter, then letters, digits and _, 31 at most, all of them lower case",
        )
    if kind not in KINDS:
        raise InputError(f"there is no kind {kind!r} of module", hint=f"known: {', '.join(KINDS)}")
    target = Path(name) if folder is None else folder
    if os.path.lexists(target):
        raise InputError(f"{target} is there already", hint="--folder DIR names another folder")
    try:
        target.mkdir(parents=True)
        for source, written in (
            (f"{kind}.c.in", f"{name}.c"),
            (f"{kind}.py.in", f"test_{name}.py"),
            ("Kbuild.in", "Kbuild"),
            ("Makefile.in", "Makefile"),
            ("pyproject.toml.in", "pyproject.toml"),
        ):
            text = (_TEMPLATES / source).read_text().replace("@NAME@", name)
            files.write(target / written, text)
    except OSError as error:
        raise refused(error, f"making {target}", more_space="free some space") from error
    print(f"{target}/: {name}.c, Kbuild, Makefile, test_{name}.py, pyproject.toml")
    print("what any module has to stand, and its own test:")
    print(f"    invoke test-vm --module {target}")
    print(f"    .venv/bin/pytest {target}")
    return 0
