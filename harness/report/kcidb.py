# SPDX-License-Identifier: GPL-2.0-only
"""A result in the form in which the kernel community exchanges them. Pure.

The form is KCIDB's, version 5.3, which the package kcidb-io describes and checks; a test has it do
so. A checkout is the kernel's package, a build what was built for it, and beside the tests
themselves booting and loading are tests. Names are made unique by the run's, which is random.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from harness.errors import Status
from harness.report.result import Case, KernelResult

ORIGIN = "eudyptula"
VERSION = {"major": 5, "minor": 3}
_EXCERPT = 16384  # characters of what is said of a test
# What is red for nothing that the kernel or the module did was not tested.
_UNKNOWN = (Status.HOST, Status.OURS)


def to_json(result: KernelResult, run: str) -> str:
    """A kernel's result; ``run`` is the name of the run that has found it."""
    return json.dumps(_report(result, run), indent=2) + "\n"


def _report(result: KernelResult, run: str) -> dict[str, Any]:
    checkout = _text(f"{ORIGIN}:{result.kernel}:{result.version or result.release}")
    build = _text(f"{ORIGIN}:{result.kernel}:{run}")
    began = result.finished - result.tests_s - result.ready_s
    return {
        "version": VERSION,
        "checkouts": [
            {
                "id": checkout,
                "origin": ORIGIN,
                "comment": _text(f"{result.kernel} {result.release} {result.version}".strip()),
            }
        ],
        "builds": [
            {
                "id": build,
                "checkout_id": checkout,
                "origin": ORIGIN,
                "architecture": "x86_64",
                "config_name": _text(result.kernel),
                "start_time": _when(began),
                "duration": result.ready_s,
                "comment": _text(result.how),
            }
            | _step(result, "build")
        ],
        "tests": list(_tests(result, build, began + result.ready_s)),
    }


def _step(result: KernelResult, name: str) -> dict[str, str]:
    """The status of a step of making a kernel ready, and why it is red."""
    cell = result.cells.get(name)
    if cell is None or result.left_out:
        return {"status": "MISS"}
    said = {"status": _red(result) if cell.red else "PASS"}
    return said | ({"log_excerpt": _text(cell.why)} if cell.why else {})


def _tests(result: KernelResult, build: str, began: float) -> Iterator[dict[str, Any]]:
    common = {"build_id": build, "origin": ORIGIN, "start_time": _when(began)}
    for name in ("boot", "load"):
        if name in result.cells:
            own = {"id": f"{build}:{name}", "path": f"{ORIGIN}.{name}", **_step(result, name)}
            yield common | own
    for number, case in enumerate(result.tests):
        test = {
            "id": f"{build}:{number}",
            "path": _path(case),
            "comment": _text(case.name),
            "status": _status(result, case),
            "duration": case.seconds,
        }
        yield common | test | ({"log_excerpt": _text(case.why)} if case.why else {})


def _status(result: KernelResult, case: Case) -> str:
    words = {"passed": "PASS", "skipped": "SKIP"}
    return words.get(case.outcome) or _red(result)


def _red(result: KernelResult) -> str:
    return "MISS" if result.status in _UNKNOWN else "FAIL"


def _path(case: Case) -> str:
    """A test's place in the tree of tests, without its parameters, which are in its comment."""
    names = [ORIGIN, case.suite, *case.name.partition("[")[0].split("::")]
    return ".".join(re.sub(r"[^a-zA-Z0-9_-]", "_", name) for name in names if name)


def _text(said: str) -> str:
    return said.replace("\0", "")[:_EXCERPT]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
