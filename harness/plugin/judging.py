# SPDX-License-Identifier: GPL-2.0-only
"""Judges the machines of a test of pytest: after its set-up, its call, and at its very end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.errors import CommandTimeout
from harness.examine import artifacts, evidence, explain
from harness.examine.artifacts import save_artifacts
from harness.judge import verdict
from harness.judge.problem import KernelProblem
from harness.judge.verdict import Problem, Verdict
from harness.machines.clone import Baseline
from harness.plugin.expect import EXPECTED
from harness.plugin.supply import SOURCE, USED, MachineSource, UsedMachine, declared_taints
from harness.report import junit


def blame(item: pytest.Item, when: str, ending: BaseException | None) -> None:
    """Raise what is wrong with a test's machines. One that skips does not fail by that."""
    __tracebackhide__ = True
    failure = None if isinstance(ending, pytest.skip.Exception) else ending
    raise_problems(judge_machines(item, when, failure), ending)


def raise_problems(problems: Sequence[Problem], cause: BaseException | None = None) -> None:
    __tracebackhide__ = True
    if problems:
        raise KernelProblem(problems) from cause


def judge_machines(
    item: pytest.Item, when: str, failure: BaseException | None, *, last: bool = False
) -> list[Problem]:
    """The problems of the machines of a test. ``failure``: the exception of the test itself.

    The next judgement looks only at what comes after this one. ``last``: there is none.
    """
    source = item.config.stash.get(SOURCE, None)
    timed_out = failure.command[0] if isinstance(failure, CommandTimeout) else ""
    found: list[Problem] = []
    built = source.built if source else None
    machines = item.stash.get(USED, [])
    for index, used in enumerate(machines):
        if used.silent:
            continue
        clone, machine = used.clone, used.clone.machine
        expected = tuple(one for of, one in item.stash.get(EXPECTED, []) if of is machine)
        seen = evidence.gather(
            machine, clone.baseline, timed_out=timed_out, expected=expected,
            declared=declared_taints(item), last=last and not used.give_back,
            unrecorded=item.get_closest_marker("unrecorded") is not None,
            probing=used.probed != clone.commands, audit=clone.audit,
        )  # fmt: skip
        named = explain.with_names(seen, clone.facts, built, clone.audit) if built else seen
        problems = [
            problem
            for problem in verdict.judge(named)
            # Residue is found again at each judgement, and is told once. A machine that hangs
            # after something made it red is explained by that.
            if not (problem.verdict is Verdict.RESIDUE and problem.title in used.told)
            and not (problem.verdict is Verdict.HUNG and used.red)
        ]
        used.told.update(problem.title for problem in problems)
        if failure or problems:
            kept = _save(item, source, used, problems, index) if source else ""
            item.add_report_section(when, "evidence", kept)
            if kept:
                item.user_properties.append((junit.LEFT, kept))
            used.red = True
        found += explain.explain(problems, built, clone.facts, clone.audit)
        if not seen.probes:
            used.probed = clone.commands
        if seen.taint_after is None:
            used.silent = True
        else:
            now = clone.baseline.console_offset + len(seen.console)
            told = any(problem.verdict is Verdict.SPLAT for problem in problems)
            reported = clone.baseline.reported or told
            clone.baseline = Baseline(now, seen.taint_after, reported)
    return found


def _save(
    item: pytest.Item,
    source: MachineSource,
    used: UsedMachine,
    problems: Sequence[Problem],
    index: int,
) -> str:
    """Copy what the machine leaves to where people find it, and say where that is.

    ``index``: which of the test's machines it is, from 0.
    """
    # Of several machines, each has a folder of its own, and so has each judgement.
    number = f"-{index + 1}" if index else ""
    again = f"-again-{used.saved}" if used.saved else ""
    used.saved += 1
    name = f"{artifacts.folder_name(item.nodeid)}{number}{again}"
    about: dict[str, object] = {}
    facts = used.clone.facts
    if "text" in facts:
        about = {"module": str(source.module.ko), "text": facts["text"]}
    if source.built is not None:
        about["source"] = str(source.built.source.path.resolve())
        about["modules"] = {one.name: str(one.ko) for one in source.built.objects}
    machine = used.clone.machine
    return save_artifacts(source.keeper, source.lab, machine, problems, name, about)
