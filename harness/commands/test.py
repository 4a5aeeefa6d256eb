# SPDX-License-Identifier: GPL-2.0-only
"""`invoke test`: the tests that need no machine, and then those in one."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

from harness.commands import test_vm
from harness.report import table
from harness.runs import pytest_process
from harness.runs.request import Request

log = logging.getLogger(__name__)

UNIT = "tests/unit"
BROWSER = "tests/browser"  # of the page of results; it needs no machine either


def run(request: Request, *, only_unit: bool = False) -> int:
    """The unit tests and those of the page, then all machine tests, even if the first are red.

    Both use as many processes at a time as were asked for. A unit test needs no machine's memory,
    so that by default there is one for each core.
    """
    expression = request.expression
    pytest_process.check_filter(expression)
    chosen = ["-k", expression] if expression else []
    with (
        tempfile.TemporaryDirectory(prefix="harness-unit-") as folder,
        contextlib.ExitStack() as stack,
    ):
        printed = Path(folder) / "pytest.log"
        ended = pytest_process.run(
            [UNIT, BROWSER, f"-n{request.jobs or pytest_process.cores()}", *chosen],
            Path(folder),
            verbose=request.verbose,
            out=stack.enter_context(printed.open("wb")) if request.quiet else None,
        )
    if request.quiet and not ended.empty:
        print(f"{UNIT}, {BROWSER}: {table.verdict(ended.status)}", flush=True)
    if ended.why:
        log.error("%s", ended.why)
    if only_unit or not expression:
        pytest_process.not_empty(ended)
    unit = 0 if ended.empty else ended.status
    if only_unit:
        return unit
    try:
        machine = test_vm.run(replace(request, suite="all"))
        return 1 if 1 in (unit, machine) else max(unit, machine)
    except pytest_process.NothingMatches:
        if ended.empty:
            raise
        return unit  # what was asked for is among the tests that need no machine
