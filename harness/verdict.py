# SPDX-License-Identifier: GPL-2.0-only
"""What a test amounts to, beyond what it asserts. Pure: from evidence to problems."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness import klog


class Verdict(enum.StrEnum):
    """The outcome of one test; all but PASSED are red."""

    PASSED = "passed"
    FAILED = "failed"  # an assertion of the test's own
    SPLAT = "splat"  # the kernel reported a bug and went on
    PANIC = "panic"  # the kernel stopped
    LOST = "lost"  # the guest does not answer any more
    HOST_FAULT = "host fault"  # nothing that the module or the kernel did


@dataclass(frozen=True)
class Evidence:
    """What is known of a machine at the end of a test.

    ``console`` is all that its kernel logged since it was cloned. ``taint_before`` is the
    kernel's taint after the module was loaded (loading an out-of-tree module taints),
    ``taint_after`` the one now, None where the guest did not answer.
    """

    console: str
    taint_before: int
    taint_after: int | None
    panicked: bool = False
    running: bool = True


@dataclass(frozen=True)
class Problem:
    """One reason why a test is red; ``detail`` is the evidence, ``times`` how often it came."""

    verdict: Verdict
    title: str
    detail: str = ""
    times: int = 1

    def __str__(self) -> str:
        often = f" ({self.times} times)" if self.times > 1 else ""
        return f"{self.verdict}: {self.title}{often}"


# Documentation/admin-guide/tainted-kernels.rst. Loading a module sets O (12) and, where
# modules are signed, E (13); only a test that loads one should move these.
_LOAD_TAINTS = 1 << 12 | 1 << 13
_TAINT_LETTERS = "PFSRMBUDAWCIOELKXTNJ"


def taint_letters(mask: int) -> str:
    """The letters that an oops shows for a taint mask, bit 0 first; bits without one by number."""
    return "".join(
        _TAINT_LETTERS[bit] if bit < len(_TAINT_LETTERS) else f"({bit})"
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    )


# Of a report: registers, the code's bytes, and frames that were only lying on the stack.
# Whoever needs them has the console's file.
_NOT_SHOWN = re.compile(
    r"^(\[ *[\d.]+\] |\[[ TC\d]+\] ?)*"
    r"( \? |(Code|RAX|RDX|RBP|R\d\d|FS|CS|CR2|DR0|DR3|PKRU|RSP)[: ]|Hardware name: |Modules linked)"
)
_SHOWN_LINES = 40


def condensed(excerpt: str) -> str:
    """The lines of a report that say what happened and where."""
    lines = [line for line in excerpt.splitlines() if not _NOT_SHOWN.match(line)]
    if len(lines) > _SHOWN_LINES:
        left = len(lines) - _SHOWN_LINES
        lines[_SHOWN_LINES:] = [f"... {left} more lines"]
    return "\n".join(lines)


def judge(evidence: Evidence) -> Sequence[Problem]:
    """The problems that the evidence shows, the first cause first."""
    found: dict[str, Problem] = {}
    for event in klog.read(evidence.console):
        dead = evidence.panicked or not evidence.running or event.kind is klog.Kind.PANIC
        if event.title in found:
            known = found[event.title]
            found[event.title] = replace(known, times=known.times + 1)
        else:
            verdict = Verdict.PANIC if dead else Verdict.SPLAT
            found[event.title] = Problem(verdict, event.title, condensed(event.excerpt))
    problems = list(found.values())
    if not problems and evidence.panicked:
        problems.append(Problem(Verdict.PANIC, "the kernel panicked"))
    if not problems and not evidence.running:
        problems.append(Problem(Verdict.PANIC, "the machine stopped or restarted by itself"))
    if not problems and evidence.taint_after is None:
        problems.append(Problem(Verdict.LOST, "the guest does not answer any more"))
    if not problems and evidence.taint_after is not None:
        fresh = evidence.taint_after & ~evidence.taint_before & ~_LOAD_TAINTS
        if fresh:
            letters = taint_letters(fresh)
            problems.append(
                Problem(Verdict.SPLAT, f"the kernel became tainted ({letters}) without saying why")
            )
    return problems
