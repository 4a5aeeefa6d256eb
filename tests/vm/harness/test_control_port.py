# SPDX-License-Identifier: GPL-2.0-only
"""Whoever writes to the port on which vm/agent answers is found out, and believed in nothing."""

from __future__ import annotations

from harness.examine import evidence
from harness.judge import verdict
from harness.machines import pool
from harness.testing import Lab


def test_an_answer_that_was_not_asked_for_is_red(lab: Lab) -> None:
    """It is not taken for the agent's, and it is a finding."""
    clone = pool.open_clone(lab.template(), lab.cache)
    try:
        clone.guest.check("echo 'marked 4096' >/dev/ttyS1")
        seen = evidence.gather(clone.machine, clone.baseline)
        assert seen.taint_after == clone.baseline.taint
        (problem,) = verdict.judge(seen)
        assert problem.title.startswith("something in the guest has written to the port")
        assert problem.detail == "marked 4096"
        assert verdict.judge(evidence.gather(clone.machine, clone.baseline)) == []
    finally:
        clone.close()
