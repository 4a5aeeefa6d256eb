# SPDX-License-Identifier: GPL-2.0-only
"""What several of these tests need."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty results/."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr(config, "RESULTS", folder)
    return folder
