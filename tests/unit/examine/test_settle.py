# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/audit.py: what is known of a kernel once its template is frozen."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.examine import audit, pointers, record, ring


def test_without_the_records_place_the_memory_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The record's own events would be taken for pointers into a module that is gone."""
    (tmp_path / "memory").write_bytes(bytes(4096))
    (tmp_path / audit.SYMBOLS).write_bytes(zlib.compress(b""))
    (tmp_path / "slabs").write_text("")
    (tmp_path / "record").write_text("word\nformats")
    monkeypatch.setattr(pointers, "learn", lambda *_: SimpleNamespace(to_json=lambda: "{}"))
    monkeypatch.setattr(ring, "learn", lambda *_: None)
    monkeypatch.setattr(record, "learn", lambda *_: None)
    audit.settle(tmp_path)
    assert not (tmp_path / audit.LAYOUT).exists()
    assert not (tmp_path / audit.POINTERS).exists()
    assert "is not found in this kernel's memory" in caplog.text
