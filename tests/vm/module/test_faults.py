# SPDX-License-Identifier: GPL-2.0-only
"""Allocations that fail, one after the other, on kernels with fault injection.

A task writes N to /proc/self/fail-nth, and the N-th of its operations that can be made to fail
does fail. When that has happened, the file reads 0
(Documentation/fault-injection/fault-injection.rst).
"""

from __future__ import annotations

from errno import EFAULT, ENOMEM

import pytest

from .conftest import Result, Writer

pytestmark = pytest.mark.needs(config="CONFIG_FAILSLAB")

# Far more than there are in one write(). A test that gets here would go on for ever.
_MANY = 200


def failing(writer: Writer, call: str) -> list[Result]:
    """Repeat ``call``; each time the next operation in it is made to fail. All answers.

    The last answer is that of a call in which nothing was left to fail.
    """
    # Allocations that may sleep count too, which are nearly all. And no stack for each failure.
    assert writer.echo("N", "/sys/kernel/debug/failslab/ignore-gfp-wait") == 0
    for kind in ("failslab", "fail_page_alloc", "fail_usercopy"):
        assert writer.echo("0", f"/sys/kernel/debug/{kind}/verbose") == 0
    answers: list[Result] = []
    for number in range(1, _MANY):
        line = f"fail_nth {number} ; {call} ; fail_nth 0"
        armed, answer, left = (Result(each) for each in writer.ask(line).split(" ; "))
        assert armed == 0
        answers.append(answer)
        if left != 0:
            return answers
    raise AssertionError(f"still failing after {_MANY}")


def test_a_write_whose_allocations_fail(writer: Writer) -> None:
    """Each write() is accepted whole or not at all, with ENOMEM or EFAULT, and later ones work.

    (insmod is not tried like this: the kernel's own tracing and dynamic debugging answer a lack
    of memory with a WARNING there.)
    """
    before = writer.counters()
    answers = failing(writer, "write 10")
    assert answers[-1] == 10
    assert set(answers) <= {10, -ENOMEM, -EFAULT}
    assert {-ENOMEM, -EFAULT} <= set(answers), answers
    writer.wait_until_idle()
    accepted = answers.count(Result(10))
    grown = writer.counters().since(before)
    assert (grown.accepted, grown.consumed, grown.pending) == (accepted, accepted, 0)
