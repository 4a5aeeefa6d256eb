# SPDX-License-Identifier: GPL-2.0-only
"""drgn in a machine or in a dump of its memory: what it is told, and whose terminal it has."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.build import symbols
from harness.commands import gdb
from harness.errors import InputError, MissingToolError


def require(script: Path | None = None) -> None:
    """Raise ``MissingToolError`` without drgn, ``InputError`` for a script that is not there."""
    if importlib.util.find_spec("drgn") is None:
        raise MissingToolError(
            "drgn is not installed", hint=f"{sys.executable} -m pip install drgn"
        )
    gdb.check_script(script)


def arguments(
    about: Mapping[str, Any],
    script: Path | None = None,
    *,
    dump: Path | None = None,
    observer: Path | None = None,
) -> list[str]:
    """drgn's command line, for a ``dump`` of memory or a machine that has this ``observer``.

    ``about``: of the facts for a debugger, the kernel's symbols and the modules' files. Raises
    ``InputError`` where those symbols are gone.
    """
    vmlinux = Path(about["vmlinux"])
    if not vmlinux.exists():
        raise InputError(
            f"the kernel's symbols are gone: {vmlinux}",
            hint="`invoke clean` takes them: run the test again",
        )
    # -P: what is called drgn in the folder where somebody stands is not it.
    found = [sys.executable, "-P", "-m", "drgn"]
    found += ["--qemu", str(observer)] if dump is None else ["-c", str(dump)]
    # No others than these: what the host has is of another kernel.
    found.append("--no-default-symbols")
    for file in (vmlinux, symbols.last_of(vmlinux), *map(Path, about.get("modules", {}).values())):
        found += ["-s", str(file)] if file.exists() else []
    return [*found, *([str(script)] if script is not None else [])]


def run(words: list[str], script: Path | None) -> int:
    """Run it to its end, with this process's terminal where there is no script; its status."""
    with gdb.started(words, interactive=script is None) as child:
        return child.wait()
