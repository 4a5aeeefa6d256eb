# SPDX-License-Identifier: GPL-2.0-only
"""What a module says of itself: the section .modinfo of its file, as modinfo(8) shows it."""

from __future__ import annotations

from pathlib import Path

# license_is_gpl_compatible() in include/linux/license.h. With any other one the kernel calls the
# module proprietary, and refuses it what is exported for the GPL only.
FREE = (
    "GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL",
)  # fmt: skip


def modinfo(ko: Path, field: str) -> list[str]:
    """All values of one field: ``license``, ``description``, ``depends``, ..."""
    # The section is a row of FIELD=VALUE, each with a zero byte at its end.
    begin = f"{field}=".encode()
    found = [part for part in ko.read_bytes().split(b"\0") if part.startswith(begin)]
    return [part.removeprefix(begin).decode(errors="replace") for part in found]
