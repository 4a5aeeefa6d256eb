# SPDX-License-Identifier: GPL-2.0-only
"""A module's symbols and lines for gdb, at the addresses that it was loaded at.

gdb can be told where the sections of a .ko are (add-symbol-file). But their own addresses in that
file are offsets, those of code and of data the same, and gdb 13 takes a variable for a part of the
code then. So a linker puts each section where it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.host import sandbox
from harness.host.proc import Deadline

_SECONDS = 60.0
# What the kernel lists among a module's sections, and is not the linker's to place.
_TABLES = {".symtab", ".strtab"}


def script(sections: Mapping[str, str]) -> str:
    """The linker's script that puts sections at addresses (0x...)."""
    wanted = {
        name: int(address, 16)
        for name, address in sections.items()
        if name not in _TABLES and re.fullmatch(r"[\w.]+", name, re.ASCII)
    }
    lines = [
        f'"{name}" {address:#x} : {{ *("{name}") }}'
        for name, address in sorted(wanted.items(), key=lambda each: each[1])
    ]
    return "\n".join(["SECTIONS {", *lines, "}", ""])


def link(sysroot: Path, ko: Path, sections: Mapping[str, str], folder: Path) -> Path:
    """Write the symbols of ``ko`` into a file in ``folder``, by the linker of ``sysroot``.

    Raises ``HarnessError`` where that cannot be done.
    """
    (folder / "script").write_text(script(sections))
    sandbox.run(
        sysroot,
        # What the module uses of the kernel is not there, and nobody asks for it.
        ["ld", "-T", "/mnt/out/script", "--unresolved-symbols=ignore-all", "--no-check-sections",
         "--noinhibit-exec", "-e", "0", "-o", f"/mnt/out/{ko.stem}.symbols", "/mnt/in/module"],
        deadline=Deadline(_SECONDS),
        read_only={"/mnt/in/module": ko},
        writable={"/mnt/out": folder},
    )  # fmt: skip
    return folder / f"{ko.stem}.symbols"
