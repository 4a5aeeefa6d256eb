# SPDX-License-Identifier: GPL-2.0-only
"""What the contract's tests say of a log, without a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.contract.conftest import complaints
from tests.vm.contract.test_write import poison_in


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


SOURCE = """\
#include "got.h"
MODULE_DESCRIPTION("it got 'all of it");
static void show(void)
{
	pr_debug("go");
	pr_info("got '%s'\\n",
		message);
	pr_info("done\\n");
}
"""


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (r"wee: got 'kkkkkkk\xa5\xbb\xbbZZ\xcc'", "that was freed, printed at src/wee.c:6"),
        (
            r"wee: got 'kkkkkkk\xa5\xcc\xcc'",
            "that nobody has written (uninitialised), printed at src",
        ),
        # Behind a text that is in use comes an object that is not.
        (
            r"wee: got 'QQQQ\xcc\xcckkkk\xa5\xbb'",
            "that nobody has written (uninitialised), printed",
        ),
        (r"wee: had kkkkkkk\xa5\xbb", "that was freed"),
        (r"wee: got 'QQQQ'", ""),
    ],
    ids=["freed", "uninitialised", "read over", "of another file", "right"],
)
def test_memory_in_the_log_is_told_by_its_poison(tmp_path: Path, shown: str, said: str) -> None:
    """And where it is printed, if the module's source has the line's text."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/wee.c").write_text(SOURCE)
    (tmp_path / "wee.c").symlink_to("/dev/zero")  # anybody's folder
    told = poison_in(shown, tmp_path)
    assert said in told
    assert bool(said) == bool(told)
    assert told.endswith(said) or "printed" in said
    assert "printed" not in poison_in(shown, None)
