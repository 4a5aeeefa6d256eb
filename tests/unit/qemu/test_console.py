# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/console.py: what a guest prints, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import qemu
from harness.qemu.console import Console


def test_console_is_read_as_it_grows(tmp_path: Path) -> None:
    """Each piece once; \r\n is a newline also where the two came apart."""
    path = tmp_path / "console.log"
    console = Console(path)
    assert console.read() == b""
    path.write_bytes(b"one\r")
    assert console.text() == "one\r"
    with path.open("ab") as file:
        file.write(b"\ntwo\xff")
    assert console.read() == b"\ntwo\xff"
    assert console.read() == b""
    assert console.text() == "one\ntwo\ufffd"
    assert console.unread == 0


def test_of_a_long_console_both_ends_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out is counted and said where it would be."""
    monkeypatch.setattr(qemu.console, "CONSOLE_KEPT", 10)
    path = tmp_path / "console.log"
    path.write_bytes(b"0123456789" + b"x" * 70 + b"abcdefghij")
    console = Console(path)
    assert console.text() == "0123456789\n(here 70 bytes are left out)\nabcdefghij"
    assert console.unread == 70
