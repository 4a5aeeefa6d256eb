# SPDX-License-Identifier: GPL-2.0-only
"""Cards compared with those of other kernels and of the run before, and with what is accepted.

Pure, as card.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from harness.host import text as texts
from harness.report.card import Card, identity, worst_first


def across_kernels(own: Sequence[Card]) -> list[Card]:
    """The cards of one module on several kernels; where it does not build, with why that may be.

    The kernel's interfaces change. If some kernels build the module and others do not, the cards of
    the others say which kernels do, and which release is the first or the last that does.
    """
    builds = sorted((one for one in own if one.passed + one.failed), key=_age)
    fails = sorted((one for one in own if "build" in one.kinds), key=_age)
    if not builds or not fails:
        return list(own)
    told = _refusal(builds, fails)
    return [_with_refusal(one, told) if one in fails else one for one in own]


def _refusal(builds: Sequence[Card], fails: Sequence[Card]) -> str:
    """Which kernels build a module and which do not; both are sorted by age, and not empty."""
    if _age(builds[-1]) < _age(fails[0]):
        return (
            f"Kernel {_called(fails[0])} is the first that refuses it; {_called(builds[-1])} still "
            "builds it. An interface of the kernel has changed in between."
        )
    if _age(fails[-1]) < _age(builds[0]):
        return (
            f"Kernel {_called(builds[0])} is the first that builds it; {_called(fails[-1])} still "
            "refuses it. It uses what older kernels do not have."
        )
    return f"It builds on {', '.join(map(_called, builds))}."


def _with_refusal(one: Card, told: str) -> Card:
    """The card with a sentence more on what it means that the module does not build."""
    findings = [
        replace(finding, means=_and(finding.means, told)) if finding.kind == "build" else finding
        for finding in one.findings
    ]
    return replace(one, findings=tuple(findings))


def _and(means: str, told: str) -> str:
    """``means`` with a sentence before its block."""
    first, separator, block = means.partition("\n")
    return f"{told} {first}{separator}{block}"


def _called(one: Card) -> str:
    return f"{one.kernel} ({one.release})"


def _age(one: Card) -> tuple[int, ...]:
    """The numbers at the beginning of a release, by which kernels are sorted: 6.12.107+deb13-..."""
    found = re.match(r"\d+(?:\.\d+)*", one.release)
    return tuple(map(int, found[0].split("."))) if found else ()


@dataclass(frozen=True)
class Accepted:
    """A finding that somebody accepts."""

    finding: str  # a part of what a finding has ``seen``
    why: str
    until: date  # the last day on which it is accepted


def with_accepted(one: Card, known: Sequence[Accepted], today: date) -> Card:
    """The card with accepted findings apart from the others.

    Notes say what is not accepted any more, and what was accepted and not found.
    """
    findings, accepted, notes = [], [], list(one.notes)
    met: set[Accepted] = set()
    for finding in one.findings:
        of = [each for each in known if each.finding in finding.seen]
        valid = [each for each in of if today <= each.until]
        met.update(of)
        if valid and finding.kind != "unknown":
            why = f"{valid[0].why} (until {valid[0].until})"
            accepted.append(replace(finding, accepted=texts.printable(why)))
            continue
        findings.append(finding)
        notes += [
            f"It was accepted until {each.until}, and is not any more: "
            f"{texts.printable(each.finding)}"
            for each in of
        ]
    notes += [
        f"It is accepted, and was not found: {texts.printable(each.finding)}"
        for each in known
        if each not in met
    ]
    status = one.status if findings or not accepted else 0
    return replace(
        one, status=status, findings=tuple(findings), accepted=tuple(accepted), notes=tuple(notes)
    )


def compared(one: Card, before: Card) -> Card:
    """The card with the findings marked and put first that the one before did not have.

    Notes say which findings of the one before are gone.
    """
    then = {identity(each) for each in (*before.findings, *before.accepted)}
    now = {identity(each) for each in (*one.findings, *one.accepted)}
    findings = [replace(each, new=identity(each) not in then) for each in one.findings]
    gone = [each for each in before.findings if identity(each) not in now]
    notes = (*one.notes, *(f"No longer found: {each.seen}" for each in gone))
    return replace(one, findings=tuple(sorted(findings, key=worst_first)), notes=notes)
