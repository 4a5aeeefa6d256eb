# SPDX-License-Identifier: GPL-2.0-only
"""What a judgement raises: the problems that the kernel, not the test, is the witness of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who only catches it needs no log reader
    from harness.judge.verdict import Problem


class KernelProblem(AssertionError):
    """The kernel, not the test, says that something is wrong.

    ``kept`` says where the files are that the machine has left, if the test's report does not.
    """

    def __init__(self, problems: Sequence[Problem], kept: str = "") -> None:
        self.problems = tuple(problems)
        self.kept = kept
        lines = []
        for problem in problems:
            lines.append(str(problem))
            lines += [f"    {line}" for line in problem.detail.splitlines()]
        super().__init__("\n".join(lines))

    @property
    def by_host(self) -> bool:
        """Whether the host alone is to blame, so that nothing is known of the kernel."""
        return all(problem.by_host for problem in self.problems)
