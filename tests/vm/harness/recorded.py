# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the record of allocations share."""

from __future__ import annotations

import zlib

import pytest

from harness.examine import audit, pointers, record
from harness.examine.pointers import Symbols
from harness.testing import Lab


def need_record(lab: Lab) -> None:
    """Skip the test on a kernel that keeps call stacks of its own, where nothing is recorded.

    On each other kernel of the matrix the record must be there.
    """
    folder = lab.template().entry.path
    symbols = Symbols(zlib.decompress((folder / audit.SYMBOLS).read_bytes()).decode())
    if any(symbols.address(name) is not None for name in pointers.DEBUG):
        pytest.skip("no record of allocations is kept on a debug kernel (docs/verdicts.md)")
    assert (folder / record.FILE).exists(), "this kernel's allocations are not recorded"
