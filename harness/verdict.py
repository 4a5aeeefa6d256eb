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
    LEAK = "leak"  # memory that nothing points to any more
    SPLAT = "splat"  # the kernel reported a bug and went on
    PANIC = "panic"  # the kernel stopped
    HUNG = "hung"  # the guest is well, but a command in it does not end
    LOST = "lost"  # the guest does not answer any more
    RESIDUE = "residue"  # the module is unloaded, and something of it is still there
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
    timed_out: str = ""  # the command that did not end, if one did not
    moving: bool | None = None  # where the guest does not answer: whether its CPU runs code
    expected: tuple[Expectation, ...] = ()
    before: frozenset[str] | None = None  # the inventory before the module was loaded
    after: frozenset[str] | None = None  # and the one now, where the module is unloaded


@dataclass(frozen=True)
class Expectation:
    """A report that a test provokes on purpose: of ``kind``, in ``function`` if one is named.

    It must come between the console's characters ``start`` and ``end``.
    """

    kind: klog.Kind
    function: str | None
    start: int
    end: int

    def covers(self, event: klog.Event, offset: int) -> bool:
        """Whether this is what was expected, ``offset`` being where it stands."""
        return (
            self.start <= offset < self.end
            and event.kind is self.kind
            and self.function in (None, event.function)
        )


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
    problems = _reports(evidence)
    if problems:
        return problems
    if evidence.panicked:
        return [Problem(Verdict.PANIC, "the kernel panicked")]
    if not evidence.running:
        return [Problem(Verdict.PANIC, "the machine stopped or restarted by itself")]
    if evidence.taint_after is None:
        return [Problem(Verdict.LOST, f"the guest does not answer any more{_manner(evidence)}")]
    if evidence.timed_out:
        return [Problem(Verdict.HUNG, f"the guest is well, but `{evidence.timed_out}` is stuck")]
    return [*_taint(evidence), *_residue(evidence)]


def _reports(evidence: Evidence) -> list[Problem]:
    """What the kernel's log says, but for what was expected; equal reports are one problem."""
    found: dict[str, Problem] = {}
    starts = _line_starts(evidence.console)
    for event in klog.read(evidence.console):
        if any(one.covers(event, starts[event.line]) for one in evidence.expected):
            continue
        if event.title in found:
            known = found[event.title]
            found[event.title] = replace(known, times=known.times + 1)
            continue
        dead = evidence.panicked or not evidence.running or event.kind is klog.Kind.PANIC
        verdict = Verdict.PANIC if dead else Verdict.SPLAT
        if event.kind is klog.Kind.LEAK:
            verdict = Verdict.LEAK
        found[event.title] = Problem(verdict, event.title, condensed(event.excerpt))
    return list(found.values())


def _line_starts(text: str) -> list[int]:
    """Where each line of ``text`` starts; a line ends at a newline, as in klog."""
    return [0, *(found.end() for found in re.finditer("\n", text))]


def _manner(evidence: Evidence) -> str:
    """What the virtual CPU does while the guest is silent."""
    if evidence.moving is None:
        return ""
    return "; its CPU spins" if evidence.moving else "; its CPU sleeps, nothing wakes it"


def _taint(evidence: Evidence) -> list[Problem]:
    assert evidence.taint_after is not None
    fresh = evidence.taint_after & ~evidence.taint_before & ~_LOAD_TAINTS
    if not fresh or evidence.expected:
        return []
    letters = taint_letters(fresh)
    return [Problem(Verdict.SPLAT, f"the kernel became tainted ({letters}) without saying why")]


def _residue(evidence: Evidence) -> list[Problem]:
    """What is there after unloading and was not there before loading."""
    if evidence.before is None or evidence.after is None:
        return []
    left = sorted(evidence.after - evidence.before)
    if not left:
        return []
    names = ", ".join(name.replace(":", " ", 1) for name in left)
    return [Problem(Verdict.RESIDUE, f"the module is unloaded, but left behind: {names}")]
