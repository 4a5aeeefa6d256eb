# SPDX-License-Identifier: GPL-2.0-only
"""What the contract's tests say of a log, without a machine."""

from __future__ import annotations

import pytest

from tests.vm.contract.conftest import complaints


@pytest.mark.parametrize(
    "line",
    [
        "[    1.000000] wee: loading out-of-tree module taints kernel.",
        "[    1.000000] wee: module license 'Proprietary' taints kernel.",
        "[   44.889560] hrtimer: interrupt took 12719806 ns",
        "[    9.100000] workqueue: do_free_init hogged CPU for >10000us 4 times, "
        "consider switching to WQ_UNBOUND",
    ],
)
def test_what_is_not_the_modules_is_no_complaint(line: str) -> None:
    """What its origin and its licence bring with them, and what a busy host does to the kernel."""
    assert [*complaints(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "[    9.100000] workqueue: wee_work [wee] hogged CPU for >10000us 4 times, "
        "consider switching to WQ_UNBOUND",
        "[    1.000000] wee: unknown parameter 'x' ignored",
    ],
)
def test_what_the_module_does_is_a_complaint(line: str) -> None:
    """Also where the kernel would say the same of its own work."""
    assert [*complaints(line)] == [line]
