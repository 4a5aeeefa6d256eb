# SPDX-License-Identifier: GPL-2.0-only
"""A limit for each unit test: one that hangs is red and named, and the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest

UNIT = Path(__file__).parent
# The slowest takes some ten seconds on a quiet host; hosts differ by ten when they are busy.
SECONDS = 150


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(UNIT) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS))
