# SPDX-License-Identifier: GPL-2.0-only
"""Judges what a test's machine does in the ten minutes after the test, beside the next tests.

A machine in which a module was loaded is saved when its test ends, and goes on in another QEMU in
which these minutes take a moment (machines/handover.py). What the kernel reports meanwhile makes
the test red that has caused it. pytest has the test's reports by then, so there is another one, as
if its teardown had failed a second time. It comes before the next test begins or, at the latest,
before the run is over: pytest's exit status, its summary and the JUnit file count it.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from harness.errors import HarnessError, HostError
from harness.examine import explain, late
from harness.examine.artifacts import folder_name, save_artifacts
from harness.host.cache import Cache
from harness.host.proc import Deadline
from harness.host.text import printable
from harness.judge import verdict
from harness.judge.problem import KernelProblem
from harness.judge.verdict import OOPS_TAINT
from harness.machines.handover import Handover, can_hand_over, hand_over, taken_over
from harness.plugin import BY_HOST, LATE_NOTES
from harness.plugin.supply import SOURCE, MachineSource, UsedMachine
from harness.qemu import Machine

_JUDGE = pytest.StashKey["LateJudge"]()
# How many machines may wait. Each has a few MiB on disk, or as much as its guest has written to;
# where there are more, the next test waits until one has been judged.
_WAITING = 32
_HAND_OVER_SECONDS = 30.0


@dataclass(frozen=True)
class LateJudgement:
    """What was found in the ten minutes after a test."""

    error: KernelProblem | HarnessError | None = None  # why the test is red, or not judged
    kept: str = ""  # where the files are that the machine has left, in lines for a report
    note: str = ""  # what is to be known although the test is green


def late_judge(config: pytest.Config) -> LateJudge:
    """The one of this process."""
    if _JUDGE not in config.stash:
        judge = config.stash[_JUDGE] = LateJudge()
        config.add_cleanup(judge.close)
    return config.stash[_JUDGE]


def report_late(config: pytest.Config, *, wait: bool = False) -> None:
    """Report what has been found so far; ``wait``: once all is judged."""
    if _JUDGE in config.stash:
        config.stash[_JUDGE].report(wait=wait)


def goes_on(config: pytest.Config) -> list[str]:
    """The names of the tests of which nothing has been reported yet."""
    return config.stash[_JUDGE].goes_on() if _JUDGE in config.stash else []


class LateJudge:
    """Judges machines one after the other, in a thread of its own."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="harness-late")
        self._cache = Cache()
        self._ends = ExitStack()
        self._ends.enter_context(self._cache)
        self._waiting: list[tuple[pytest.Item, Future[LateJudgement]]] = []
        self._lock = threading.Lock()
        self._machine: Machine | None = None  # that is judged now
        self._closed = False

    def take(self, item: pytest.Item, used: UsedMachine) -> None:
        """Take over what a green test leaves, if a module may go on in it.

        What a kernel does after an oops, or in a test that is red already, is explained by that.
        """
        clone = used.clone
        if used.red or used.silent or clone.baseline.taint & OOPS_TAINT or not can_hand_over(clone):
            return
        if clone.audit is not None and clone.audit.untouched():
            return
        while sum(not future.done() for _, future in self._waiting) >= _WAITING:
            next(future for _, future in self._waiting if not future.done()).exception()
        folder = ExitStack()
        path = folder.enter_context(self._cache.scratch("late"))
        try:
            saved = hand_over(clone, path, Deadline(_HAND_OVER_SECONDS))
        except BaseException:
            folder.close()
            raise
        source = item.config.stash[SOURCE]
        future = self._worker.submit(self._judge, saved, source, item.nodeid, dict(clone.facts))
        future.add_done_callback(lambda _: folder.close())
        self._waiting.append((item, future))

    def goes_on(self) -> list[str]:
        """The names of the tests of which nothing has been reported yet."""
        return [item.nodeid for item, _ in self._waiting]

    def report(self, *, wait: bool = False) -> None:
        """Report what has been found so far; ``wait``: until all is judged."""
        still = []
        for item, future in self._waiting:
            if not wait and not future.done():
                still.append((item, future))
                continue
            found = future.result()
            if found.note:
                notes = item.config.stash.setdefault(LATE_NOTES, [])
                notes.append(f"{item.nodeid}: {found.note}")
            if found.error is not None:
                _log(item, _report(item, found.error, found.kept))
        self._waiting = still

    def _judge(
        self, saved: Handover, source: MachineSource, nodeid: str, facts: dict[str, Any]
    ) -> LateJudgement:
        try:
            with taken_over(saved) as machine:
                self._use(machine)
                return self._judged(machine, saved, source, nodeid, facts)
        except HarnessError as error:
            return LateJudgement(error)
        finally:
            self._use(None)

    def _judged(
        self, machine: Machine, saved: Handover, source: MachineSource, nodeid: str,
        facts: dict[str, Any],
    ) -> LateJudgement:  # fmt: skip
        later = late.wait(machine, saved.taint)
        problems = verdict.judge(later.evidence)
        if problems:
            about = {"text": facts["text"]} if "text" in facts else {}
            if about and source.built:
                about["module"] = str(source.built.ko)
            name = f"{folder_name(nodeid)}-late"
            kept = save_artifacts(source.keeper, source.lab, machine, problems, name, about)
            explained = explain.explain(problems, source.built, facts)
            return LateJudgement(KernelProblem(explained), kept)
        if later.seconds < late.SECONDS:
            return LateJudgement(
                note=f"of the {late.SECONDS:.0f} s after it {later.seconds:.0f} s were waited for, "
                f"as the guest did not sleep: {later.busy}"
            )
        if later.busy:
            return LateJudgement(note=f"in the {late.SECONDS:.0f} s after it {later.busy}")
        return LateJudgement()

    def _use(self, machine: Machine | None) -> None:
        with self._lock:
            self._machine = machine
            closed = self._closed
        if closed and machine is not None:
            machine.close()

    def close(self) -> None:
        """End what is not judged yet; nobody hears of it any more."""
        with self._lock:
            self._closed = True
            machine = self._machine
        self._worker.shutdown(wait=False, cancel_futures=True)
        if machine is not None:
            machine.close()
        self._worker.shutdown()
        self._ends.close()


def _report(item: pytest.Item, error: KernelProblem | HarnessError, kept: str) -> pytest.TestReport:
    """A report that a test is red by what came after it."""
    said = "This came in the ten minutes of the guest's time after the test had ended."
    if not isinstance(error, KernelProblem):
        said = "So nobody knows what came in the ten minutes after the test."
    report = pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="failed",
        longrepr=printable(f"{error}\n{said}"),
        when="teardown",
        sections=[("Captured evidence teardown", kept)] if kept else [],
    )
    if error.by_host if isinstance(error, KernelProblem) else isinstance(error, HostError):
        vars(report)[BY_HOST] = True
    return report


def _log(item: pytest.Item, report: pytest.TestReport) -> None:
    """Log a report of a test that does not run any more.

    A worker of pytest-xdist takes every report for one of the test that it runs now, by
    ``item_index``.
    """
    plugins: list[Any] = list(item.config.pluginmanager.get_plugins())
    workers = [one for one in plugins if type(one).__name__ == "WorkerInteractor"]
    before = [getattr(worker, "item_index", None) for worker in workers]
    for worker in workers:
        worker.item_index = item.session.items.index(item)
    try:
        item.ihook.pytest_runtest_logreport(report=report)
    finally:
        for worker, index in zip(workers, before, strict=True):
            worker.item_index = index
