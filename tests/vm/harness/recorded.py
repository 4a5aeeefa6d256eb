# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the record of allocations share."""

from __future__ import annotations

import zlib

import pytest

from harness.examine import audit, layouts, record
from harness.examine.structures import Symbols
from harness.testing import Lab


def need_record(lab: Lab) -> None:
    """Skip the test on a kernel that keeps call stacks of its own, where nothing is recorded.

    On each other kernel of the matrix the record must be there.
    """
    if keeps_addresses(lab):
        pytest.skip("no record of allocations is kept on a debug kernel (docs/verdicts.md)")
    folder = lab.template().entry.path
    assert (folder / record.FILE).exists(), "this kernel's allocations are not recorded"


def need_every_holder(lab: Lab) -> None:
    """Skip the test on a kernel of which only some of what points to a module is looked at."""
    if keeps_addresses(lab):
        pytest.skip("on a debug kernel only lists of the kernel's are looked at (docs/verdicts.md)")


def keeps_addresses(lab: Lab) -> bool:
    """Whether the lab's kernel has records with addresses of what is gone."""
    folder = lab.template().entry.path
    symbols = Symbols(zlib.decompress((folder / audit.SYMBOLS).read_bytes()).decode())
    return layouts.keeps_addresses(symbols)
