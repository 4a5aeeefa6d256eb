# SPDX-License-Identifier: GPL-2.0-only
"""harness/lab.py: what a machine gets for its guest."""

from __future__ import annotations

import pytest

from harness import lab


@pytest.mark.parametrize(
    ("image_mib", "more_mib"), [(47, 0), (64, 0), (65, 64), (96, 64), (97, 128), (300, 512)]
)
def test_a_guest_that_is_larger_gets_a_larger_machine(image_mib: int, more_mib: int) -> None:
    """The usual one gets none, so that its templates stay what they are."""
    assert lab._more_memory(image_mib << 20) == more_mib
