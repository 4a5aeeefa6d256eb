# SPDX-License-Identifier: GPL-2.0-only
"""Allocations that fail, one after the other, on kernels that can make them fail.

Documentation/fault-injection/fault-injection.rst: who writes N to its own fail-nth has the
N-th of its calls that can be made to fail do so. When that has happened 0 is read there.
"""

from __future__ import annotations

from errno import EFAULT, ENOMEM

import pytest

from .conftest import Result, Writer

pytestmark = pytest.mark.needs(config="CONFIG_FAILSLAB")

# Far more than there are in a write(); a test that comes this far has not found the end.
_MANY = 200


def failing(writer: Writer, call: str) -> list[Result]:
    """Make the first, the second, ... of what can fail in ``call`` fail; the answers to all.

    The last one is that of a call in which nothing was left to fail.
    """
    # Those that may wait for memory count too, which is nearly all; not each with its stack.
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
