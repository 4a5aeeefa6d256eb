# SPDX-License-Identifier: GPL-2.0-only
"""What `invoke new-module` makes is green at once: its own test, and no warning of a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.build import module
from harness.commands import new_module
from harness.testing import Lab
from tests.vm.harness.test_runs import SECONDS, run

pytestmark = pytest.mark.timeout(SECONDS)


@pytest.mark.parametrize("kind", new_module.KINDS)
def test_a_new_module_is_green(lab: Lab, tmp_path: Path, kind: str) -> None:
    """The compiler says nothing of it with W=1, and its first test passes."""
    folder = tmp_path / "wee"
    new_module.run("wee", kind, folder)
    module.build(lab.kernel, folder, lab.cache, strict=True)
    done = run(lab, tmp_path, folder, str(folder / "test_wee.py"))
    assert not done.failed, done.output
    assert not done.errors, done.output
    assert len(done.passed) >= 2
