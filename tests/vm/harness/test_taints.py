# SPDX-License-Identifier: GPL-2.0-only
"""A module that taints the kernel by what it is can be tested where the tests say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.examine import evidence, loading
from harness.judge import verdict
from harness.judge.problem import KernelProblem
from harness.machines import pool
from harness.testing import Lab

PLANTED = Path(__file__).parent / "planted_init"
STAGING = verdict.DECLARED_TAINTS["staging"]


def test_a_module_of_the_staging_tree(lab: Lab, tmp_path: Path) -> None:
    """Its modinfo says so (scripts/mod/modpost.c), and the kernel taints itself when it comes."""
    for file in PLANTED.iterdir():
        text = file.read_text().replace(
            "MODULE_LICENSE", 'MODULE_INFO(staging, "Y");\nMODULE_LICENSE'
        )
        (tmp_path / file.name).write_text(text)
    module = lab.build(tmp_path)
    with pytest.raises(KernelProblem, match=r"became tainted \(C\)"):
        loading.loaded_template(lab, lab.template(), module)
    template = loading.loaded_template(lab, lab.template(), module, declared=STAGING)
    assert template.facts["taint"] & STAGING
    clone = pool.open_clone(template, lab.cache)
    try:
        seen = evidence.gather(clone.machine, clone.baseline)
        assert verdict.judge(seen) == []
    finally:
        clone.close()
