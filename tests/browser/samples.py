# SPDX-License-Identifier: GPL-2.0-only
"""Results as they may be, for the tests of the page and for its pictures in docs/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.report import page
from harness.report.history import Past
from harness.report.result import Case, Cell, Excerpt, KernelResult

NOW = 1.7956e9  # when all of it happened, in seconds since the epoch
KERNELS = ("trixie", "trixie-rt", "trixie-generic", "bookworm", "bookworm-rt", "bullseye",
           "trixie-backports", "sid", "sid-rt", "experimental", "debug", "race")  # fmt: skip
SOURCE = Excerpt(
    "waitqueues.c", 273, 270,
    ("\tmutex_lock(&dev->lock);", "\tret = copy_from_user(dev->text, text, length);",
     "\tmutex_unlock(&dev->lock);", "\tWARN_ON(ret);", "\twake_up(&dev->waiting);", ""),
)  # fmt: skip
TEXT = """\
splat: WARNING in driver_write at waitqueues.c:273
    [   31.082556] ------------[ cut here ]------------
    [   31.087134] WARNING: CPU: 0 PID: 146 at waitqueues.c:273 driver_write+0x1b8/0x200
    [   31.096211] Call Trace:
    [   31.096949]  vfs_write+0xf5/0x440
    [   31.098007]  ksys_write+0xb9/0xf0
    [   31.102647] ---[ end trace 0000000000000000 ]---
"""
WHY = "splat: WARNING in driver_write at waitqueues.c:273"


def cases(count: int, red: Sequence[int] = (), *, each_file: int = 25) -> tuple[Case, ...]:
    """So many tests, of which those numbers are red."""
    return tuple(
        Case(f"test_part_{number // each_file}::test_what_number_{number}_does", "contract",
             "failed", 1.5, WHY, (SOURCE,))
        if number in red
        else Case(f"test_part_{number // each_file}::test_what_number_{number}_does", "contract",
                  "skipped" if number % 17 == 16 else "passed", 0.1 + number % 5 / 4)
        for number in range(count)
    )  # fmt: skip


def result(kernel: str, tests: Sequence[Case]) -> KernelResult:
    """A kernel's result with these tests."""
    red = sum(case.outcome == "failed" for case in tests)
    suite = (
        Cell(True, f"{red} of {len(tests)} red", WHY) if red else Cell(False, f"{len(tests)} ok")
    )
    cells = {"boot": Cell(False, "ok"), "build": Cell(False, "ok"), "load": Cell(False, "ok"),
             "contract": suite, "warnings": Cell(False, "0")}  # fmt: skip
    return KernelResult(kernel, "6.12.118+deb13-cloud-amd64", "6.12.118-1", int(bool(red)), NOW,
                        8.0, 21.0, cells, tuple(tests))  # fmt: skip


def history(kernel: str, flaky: str = "") -> list[Past]:
    """The last runs of a kernel; the test ``flaky`` is red in some of them."""
    base = Past("r", True, 0, NOW, 8.0, 21.0, ("m",), (flaky,), (), 2)
    runs = [
        replace(base, finished=NOW - 3600 * (30 - number), tests_s=18.0 + number % 4 + len(kernel))
        for number in range(30)
    ]
    for number in (4, 17, 29) if flaky else ():
        runs[number] = replace(runs[number], status=1, passed=(), red=(flaky,))
    runs[8] = replace(runs[8], status=3, tests_s=2.0)
    runs[21] = replace(runs[21], whole=False, tests_s=4.0)
    return runs


def html(results: Sequence[KernelResult], text: str = TEXT) -> str:
    """The page of these results, each with earlier runs; what is red says ``text``."""
    red = {one.kernel: [case for case in one.tests if case.outcome == "failed"] for one in results}
    texts = {kernel: {case.name: text for case in tests} for kernel, tests in red.items()}
    past = {
        kernel: history(kernel, tests[0].name if tests else "") for kernel, tests in red.items()
    }
    return page.html(results, texts, now=NOW, about="The last result of each kernel.", past=past)


def green() -> str:
    return html([result("trixie", cases(40))])


def red() -> str:
    """Of six red tests, so that not all are shown at once."""
    return html([result("trixie", cases(40, (3, 9, 11, 20, 21, 38))), result("sid", cases(40))])


def twelve() -> str:
    return html(
        [result(kernel, cases(60, (7,) if kernel == "debug" else ())) for kernel in KERNELS]
    )


def large() -> str:
    """5,000 tests on one kernel, all in one file."""
    return html([result("trixie", cases(5000, (4321,), each_file=5000))])
