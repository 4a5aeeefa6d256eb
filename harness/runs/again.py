# SPDX-License-Identifier: GPL-2.0-only
"""Which tests were red in a kernel's last run, so that only these are run again."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import PurePosixPath

from harness import config
from harness.errors import InputError
from harness.report.result import RED, Case, KernelResult
from harness.runs import store
from harness.runs.request import Plan


def only_red(plan: Plan, kernel: str) -> Plan:
    """The plan with only those tests that were red in the kernel's last run.

    Where suites were asked for, those of these suites. Raises ``InputError`` where there was no
    such run, where nothing was red in it, or where it has tested another module: then the same
    tests would say something else.
    """
    last = max(
        filter(None, (store.last(kernel, whole=whole) for whole in (True, False))),
        key=lambda result: result.finished,
        default=None,
    )
    if last is None:
        raise InputError(
            f"nothing was tested on {kernel} here, so nothing was red",
            hint="without --failed all tests are run",
        )
    if last.given != plan.request.given:
        raise InputError(
            f"the last run on {kernel} has tested {_shown(last)}, and this is another module",
            hint="give the same options as then, or run without --failed",
        )
    red = [case for case in last.tests if case.outcome in RED]
    suites = plan.suites if plan.request.suite else config.SUITES
    again = [case for case in red if case.suite in suites]
    if not again:
        own = sorted({case.file for case in red if not case.suite})
        others = ", ".join(sorted({case.suite for case in red if case.suite}))
        raise InputError(
            f"no test was red in the last run on {kernel}"
            + (f" but of suite {others}" if others else "")
            + (", which was of tests of your own" if own else ""),
            hint=f"pytest {shlex.join(own)}" if own else "without --failed all tests are run",
        )
    if not all(case.file for case in again):
        raise InputError(
            f"the last run on {kernel} was one of an older harness, which did not note where the "
            "tests are",
            hint="run them once more without --failed, such as with --filter",
        )
    return replace(
        plan, again=tuple(map(_test, again)),
        suites={name: folder for name, folder in suites.items()
                if any(case.suite == name for case in again)},
    )  # fmt: skip


def _test(case: Case) -> str:
    """The test as pytest takes it (a node id); one in a class is named by that.

    Whoever has run it may have been in another folder than a task, which goes to the project's.
    """
    holder, _, name = case.name.partition("::")
    file = PurePosixPath(case.file)
    within = [holder] if holder != file.stem else []
    return "::".join([f"{config.SUITES[case.suite]}/{file.name}", *within, name])


def _shown(result: KernelResult) -> str:
    return " ".join(result.given) or "module/"
