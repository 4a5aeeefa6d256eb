# SPDX-License-Identifier: GPL-2.0-only
"""A test that is red long after the mistake; test_record.py has it recorded.

(Not named test_*.py, so that no other run collects it.)
"""

from __future__ import annotations

from harness.testing import Guest

CONTROL = "/sys/kernel/debug/planted_corruption"


def test_it_is_used(loaded: Guest) -> None:
    loaded.check(f"echo label >{CONTROL}")
    loaded.check("for i in $(seq 100); do cat /proc/modules; done >/dev/null")
    loaded.run(f"echo use >{CONTROL}")
