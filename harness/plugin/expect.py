# SPDX-License-Identifier: GPL-2.0-only
"""Reports of the kernel that a test provokes on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from harness import klog
from harness.errors import MachineError
from harness.examine import evidence
from harness.judge.verdict import Expectation
from harness.qemu import Machine

# What is expected, and of which machine.
Expected = list[tuple[Machine, Expectation]]
EXPECTED = pytest.StashKey[Expected]()


@contextmanager
def expecting(
    machine: Machine, expected: Expected, kind: str, function: str | None = None
) -> Iterator[None]:
    """Expect a report of ``kind`` (klog.Kind) within; it is added to ``expected``.

    Fails the test when none comes, or none in ``function`` if one is named.
    """
    __tracebackhide__ = True
    machine.agent.mark(evidence.patience(machine))
    start = len(machine.console_text())
    yield
    with suppress(MachineError):  # it may have been a panic that was wanted
        machine.agent.mark(evidence.patience(machine))
    text = machine.console_text()
    wanted = Expectation(klog.Kind(kind), function, start, len(text))
    fired = klog.read(text[start:])
    if not any(wanted.covers(event, start) for event in fired):
        others = ", ".join(event.title for event in fired) or "nothing"
        where = f" in {function}" if function else ""
        pytest.fail(f"expected a {kind} report{where}; the kernel reported {others}")
    expected.append((machine, wanted))
