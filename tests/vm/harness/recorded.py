# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the record of allocations share."""

from __future__ import annotations

import pytest

from harness.examine import audit, record
from harness.examine.structures import Layout
from harness.testing import Lab


def need_record(lab: Lab) -> None:
    """On each kernel of the matrix the record must be there."""
    folder = lab.template().entry.path
    assert (folder / record.FILE).exists(), "this kernel's allocations are not recorded"


def need_record_of_objects(lab: Lab) -> None:
    """Skip the test where kmemleak looks for lost objects, and the record only for pages."""
    need_record(lab)
    layout = (lab.template().entry.path / audit.LAYOUT).read_text()
    if Layout.from_json(layout).kmemleak:
        pytest.skip("kmemleak looks for lost objects on this kernel (docs/verdicts.md)")
