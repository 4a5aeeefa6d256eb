# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of harness/examine share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.examine.fake_kernel import Kernel


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel's memory, to be written to."""
    return Kernel(tmp_path / "memory")
