# SPDX-License-Identifier: GPL-2.0-only
"""What a module says of itself: the section .modinfo of its file, and the texts that it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.errors import SandboxError
from harness.host import sandbox
from harness.host.text import LOG_BYTES

# license_is_gpl_compatible() in include/linux/license.h. With any other one the kernel calls the
# module proprietary, and refuses it what is exported for the GPL only.
FREE = (
    "GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL",
)  # fmt: skip


def modinfo(ko: Path, field: str) -> list[str]:
    """All values of one field: ``license``, ``description``, ``depends``, ..."""
    # The section is a row of FIELD=VALUE, each with a zero byte at its end. It is looked for in the
    # whole file, which with its debug information has some hundred thousand of these bytes.
    found = re.findall(rb"\0%s=([^\0]*)" % re.escape(field).encode(), b"\0" + ko.read_bytes())
    return [value.decode(errors="replace") for value in found]


def declared(ko: Path) -> tuple[str, ...]:
    """The taints that a module says that it will set, as the marker ``taint`` names them.

    kernel/module/main.c, check_modinfo() and module_augment_kernel_taints().
    """
    found = [name for name in ("staging", "test", "livepatch") if modinfo(ko, name)]
    licences = modinfo(ko, "license")
    if not licences or any(licence not in FREE for licence in licences):
        found.append("proprietary")
    return tuple(found)


# A conversion of printk(), and what else takes a format apart: its level before it, line ends.
_CONVERSION = re.compile(r"%[-+ #0]*[\d*]*(?:\.[\d*]+)?(?:hh?|ll?|[ztL])?\w|\x01[0-7c]|\n")
_LITTLE = 4  # characters of a text that may be in a line by chance


def prints(ko: Path, line: str) -> bool:
    """Whether a line of the kernel's log is what the module itself prints.

    Its texts are in its file. Whatever has a blank or a line's end in it is taken for one: names of
    functions and devices, which stand in the kernel's own lines too, have neither.
    """
    for part in ko.read_bytes().split(b"\0"):
        if not any(sign in part for sign in (b" ", b"\n", b"\x01")):
            continue
        literal = max(_CONVERSION.split(part.decode(errors="replace")), key=len).strip()
        if len(literal) >= _LITTLE and literal in line:
            return True
    return False


# In a C file: a text in quotes, where it is no #include and no MODULE_...().
_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PRINTS_NOTHING = re.compile(r"\s*(?:#|MODULE_)")


def printed_at(folder: Path | None, line: str) -> str:
    """Where in its source a module prints a line of the kernel's log: FILE:LINE.

    That is where the longest text stands that is in the line. Empty where there is none, or no
    ``folder`` of the module's.
    """
    place, length = "", _LITTLE - 1
    for name, row in _rows(folder) if folder else ():
        texts = [] if _PRINTS_NOTHING.match(row) else _LITERAL.findall(row)
        for text in texts:
            for part in _CONVERSION.split(text.replace("\\n", "\n")):
                if len(part.strip()) > length and part.strip() in line:
                    place, length = name, len(part.strip())
    return place


def _rows(folder: Path) -> Iterator[tuple[str, str]]:
    """Each line of the C files of a folder, with its place; in anybody's there may be anything."""
    with suppress(SandboxError):
        names = [name for name, _ in sandbox.walk(folder) if name.suffix in (".c", ".h")]
        for name in names:
            with suppress(SandboxError):
                source = sandbox.take(folder, name, LOG_BYTES).decode(errors="replace")
                for number, row in enumerate(source.split("\n"), 1):
                    yield f"{name}:{number}", row
