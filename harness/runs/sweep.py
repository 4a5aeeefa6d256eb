# SPDX-License-Identifier: GPL-2.0-only
"""One kernel's run with all its results, and several kernels' runs at once.

With several kernels, one thread makes them ready one after the other (download, unpack,
build, boot, freeze, load), while those that are ready are tested. As long as there are
more kernels than jobs, each is tested by one pytest without helpers, which wastes nothing;
the last ones get the jobs that nobody else needs. What goes wrong with one kernel is its
row in the table and not the end of the run.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.build import archive
from harness.build import module as modules
from harness.build.module import Module
from harness.build.source import Given
from harness.config import USUAL, Equipment, KernelSpec, Matrix
from harness.errors import (
    BuildError,
    CommandError,
    GoneError,
    HarnessError,
    HostError,
    KernelBuildError,
    NotForKernelError,
    Status,
)
from harness.host import proc, progress
from harness.host.cache import Cache
from harness.host.proc import Deadline
from harness.host.progress import Done
from harness.judge.problem import KernelProblem
from harness.report import table
from harness.report.junit import cases_in, first_line
from harness.report.result import Case, Cell, KernelResult, Step, left_out
from harness.runs import pytest_process, store
from harness.runs.pytest_process import Ended, PytestProcess
from harness.runs.ready import Stage, Way
from harness.runs.request import Plan
from harness.runs.store import Run

log = logging.getLogger(__name__)

# How long the main thread waits before it looks whether a signal has come, in seconds.
ROUND_SECONDS = 0.5
_FULL = 1 << 20  # bytes; a disk with less is full for a JUnit file
# What a build that failed complains of: first a compiler, or a build that calls the network, which
# none has; then a script that runs before it; and make only where nobody else does.
_COMPLAINTS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"^\S+:\d+(?::\d+)?: (?:fatal )?error: .*$|^ERROR: modpost: .*$"
        r"|^.{1,200}: (?:Network is unreachable|Temporary failure in name resolution)$",
        r"^[\w./-]+: (?:line )?\d+: \S+: (?:command )?not found$|^\W*(?:configure: )?[Ee]rror: .*$",
        r"^\S+:\d+: \*\*\* (?!\[).*$|^make(?:\[\d+\])?: \*\*\* No rule to make target .*$",
    )
)


@dataclass
class Ready:
    """How far a kernel was made ready; ``status`` is not 0 if it cannot be tested.

    ``left_out`` says why it is not tried at all, if so.
    """

    spec: KernelSpec
    release: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)
    seconds: float = 0.0
    status: int = 0
    left_out: str = ""
    how: str = ""  # by what the module was built, and why
    module: str = ""  # the digest of the module, once it is built
    error: str = ""  # all that was said where it cannot be tested
    hints: tuple[str, ...] = ()  # what the compiler warns of with W=1 only, where that was asked
    steps: tuple[Step, ...] = ()  # what took long of it


# -- one kernel --------------------------------------------------------------------


def make_ready(
    spec: KernelSpec, matrix: Matrix, cache: Cache, source: Given, equipment: Equipment = USUAL,
    *, hints: bool = False, load: bool = True,
) -> Ready:  # fmt: skip
    """Have a kernel, build the module for it, boot it and load the module, as far as it goes.

    ``hints``: also build it with W=1, which takes as long once more. ``load``: whether the tests
    are to begin in machines in which the module is loaded, so that there has to be such a template.
    """
    with progress.recorded() as done:
        ready = _as_far_as_it_goes(spec, matrix, cache, source, equipment, hints=hints, load=load)
    ready.steps = steps(done)
    return ready


def steps(done: Sequence[Done]) -> tuple[Step, ...]:
    """The stages that took long, as they are kept in a result."""
    return tuple(Step(*one) for one in done)


def _as_far_as_it_goes(
    spec: KernelSpec, matrix: Matrix, cache: Cache, source: Given, equipment: Equipment, *,
    hints: bool, load: bool,
) -> Ready:  # fmt: skip
    # It imports the log reader. Whoever tests one kernel needs only what else is here.
    from harness.examine import loading  # noqa: PLC0415

    ready = Ready(spec, spec.release)
    started = time.monotonic()
    way = Way(spec, matrix, cache, source, equipment)
    try:
        kernel = way.have_kernel().kernel
        # Which is not the locked one where that is gone.
        spec = ready.spec = kernel.spec
        ready.release = kernel.release
        module = way.build()
        ready.how, ready.module = module.how, module.digest
        ready.cells["build"] = Cell(False, "ok")
        ready.cells["warnings"] = _warnings(module)
        if hints:
            ready.hints = modules.hints(module, cache)
        template = way.boot()
        ready.cells["boot"] = Cell(False, "ok")
        if load:
            loading.loaded_template(way.lab, template, module)
            ready.cells["load"] = Cell(False, "ok")
    except KernelProblem as error:
        # The tests will say more: those that need no loaded module can run.
        ready.cells[way.stage.column] = Cell(True, "red", first_line(str(error)))
    except HarnessError as error:
        if isinstance(error, GoneError):
            ready.left_out = _none_now(spec, cache)
        elif isinstance(error, NotForKernelError):
            ready.left_out = _not_for_kernel(error)
        ready.error = str(error)
        ready.cells[way.stage.column] = Cell(True, "red", reason(error))
        # Without a loaded module most tests will say more; without a disk none will.
        tell = way.stage is Stage.DONE and not isinstance(error, HostError)
        ready.status = 0 if tell else error.exit_status
    except OSError as error:
        ready.cells[way.stage.column] = Cell(True, "red", f"{error}")
        ready.status = Status.HOST
    ready.seconds = time.monotonic() - started
    return ready


def _none_now(spec: KernelSpec, cache: Cache) -> str:
    """A sentence if the suite of a locked kernel has no such kernel any more, or "".

    That is nobody's fault: Debian drops experimental's kernel once unstable has the same.
    """
    if not spec.version or spec.tree:
        return ""
    try:
        archive.newest(spec, cache, recent=archive.RECENT)
    except GoneError as error:
        return f"{error.what} now"
    except HarnessError as error:
        log.debug("what %s has now is not known: %s", spec.suite, error)
    return ""


def is_ready(way: Way, seconds: float, done: Sequence[Done]) -> Ready:
    """A kernel that was made ready elsewhere, up to its template; ``done``: what took long."""
    cells = {
        "boot": Cell(False, "ok"),
        "build": Cell(False, "ok"),
        "warnings": _warnings(way.module),
    }
    spec, release = way.lab.kernel.spec, way.lab.kernel.release
    return Ready(
        spec, release, cells, seconds, how=way.module.how, module=way.module.digest,
        steps=steps(done),
    )  # fmt: skip


def _not_for_kernel(error: NotForKernelError) -> str:
    """Why a module is not for a kernel, and for which one it is, in one line."""
    said = " / ".join(error.tail.splitlines())
    why = f"{error.what}: {said}" if said else error.what
    return f"{why}; {error.hint}" if error.hint else why


def reason(error: HarnessError) -> str:
    """An error in one line: a build's first complaint, or what happened and what to do."""
    if isinstance(error, (BuildError, KernelBuildError)):
        found = next(filter(None, (each.search(error.tail) for each in _COMPLAINTS)), None)
        return f"{error.what}: {found[0]}" if found else error.what
    if isinstance(error, CommandError):
        lines = [line for line in error.tail.splitlines() if line.strip()]
        said = next((line for line in lines if line.startswith("E: ")), "".join(lines[-1:]))
        return f"{error.what}: {said}" if said else error.what
    return f"{error.what}; {error.hint}" if error.hint else error.what


def _warnings(module: Module) -> Cell:
    return Cell(False, str(len(module.warnings)))


def result_of(ready: Ready, plan: Plan, ended: Ended, junit: Path, seconds: float) -> KernelResult:
    """The row of a kernel whose tests have run, with what pytest wrote of them."""
    cells = dict(ready.cells)
    status = ended.status
    first = next(iter(plan.suites))
    tests: list[Case] = []
    try:
        tests = cases_in(junit.read_text("utf-8"))
        cells |= table.suite_cells(tests, list(plan.suites))
    except (OSError, ValueError) as error:
        if shutil.disk_usage(junit.parent).free < _FULL:
            # On a full disk pytest can write neither its result nor how it has ended, and fails.
            status = Status.HOST
            why = "no space left for the results; free some on the disk that has results/"
            cells[first] = Cell(True, "red", why)
        elif status in (Status.GREEN, Status.RED):
            status = Status.OURS
            cells[first] = Cell(True, "red", f"pytest left no result: {error}")
    if ended.why and status != Status.HOST:
        cells[first] = Cell(True, "red", ended.why)
    if ended.empty:
        cells[first] = Cell(True, "none", "no test matches: nothing was tested")
    if any(cell.red for cell in cells.values()):
        status = status or Status.RED
    spec = ready.spec
    return KernelResult(
        spec.name, ready.release, spec.version, status, time.time(), ready.seconds, seconds,
        cells, tuple(tests), ready.how, module=ready.module, harness=plan.harness,
        given=plan.request.given, steps=ready.steps,
    )  # fmt: skip


def not_tested(ready: Ready, given: tuple[str, ...]) -> KernelResult:
    """The row of a kernel that could not be made ready; ``given`` names the module."""
    spec = ready.spec
    return KernelResult(
        spec.name, ready.release, spec.version, ready.status, time.time(), ready.seconds, 0.0,
        ready.cells, given=given, steps=ready.steps,
    )  # fmt: skip


def write_result(run: Run, result: KernelResult) -> None:
    """Write a kernel's result; it becomes its last one if no test was left out.

    A fault of the host's (status 3, such as a full disk) says nothing of a kernel.
    """
    store.write(run, result, whole=run.whole and result.status != HostError.exit_status)


# -- several -----------------------------------------------------------------------


class _Interrupted(Exception):
    """The sweep was interrupted before a kernel's tests came to their end: it has no result."""


def share(jobs: int, left: int) -> int:
    """How many jobs the next kernel gets; ``left`` kernels, with it, are still to be tested."""
    return max(1, jobs // max(1, left))


class Sweep:
    """Several kernels; ``run`` gives their results in the order in which they were asked for."""

    def __init__(self, plan: Plan, matrix: Matrix) -> None:
        """With ``minutes`` in the request, a kernel whose tests begin later is left out."""
        self._plan = plan
        self._matrix = matrix
        self._jobs = plan.request.jobs or pytest_process.default_jobs()
        self._minutes = plan.request.minutes
        self._deadline: Deadline | None = None
        self._ready: queue.SimpleQueue[Ready] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._running: set[PytestProcess] = set()
        self.results: dict[str, KernelResult] = {}  # of the kernels that are done
        self._left = 0

    def run(self, specs: Sequence[KernelSpec]) -> list[KernelResult]:
        self._left = len(specs)
        cache = Cache()  # made here, so that its error comes before any kernel is waited for
        if self._minutes is not None:
            self._deadline = Deadline(self._minutes * 60)
        preparer = threading.Thread(
            target=self._prepare_all, args=(specs, cache), name="harness-prepare"
        )
        testers = ThreadPoolExecutor(max_workers=self._jobs, thread_name_prefix="harness-tester")
        preparer.start()
        try:
            waiting = {testers.submit(self._finish, self._next_ready()) for _ in specs}
            while waiting:
                done, waiting = wait(waiting, ROUND_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            self._end()
            raise
        finally:
            self._stopped.set()
            while preparer.is_alive():
                preparer.join(0.1)
                if preparer.is_alive() and sys.exc_info()[0] is not None:
                    proc.end_all()  # what it waits for, and what it started meanwhile
            testers.shutdown()
        return [self.results[spec.name] for spec in specs]

    def _next_ready(self) -> Ready:
        """The next kernel that is ready.

        The main thread waits in rounds. A signal that arrives just before it begins to wait is
        noticed at the next round; without rounds Ctrl-C could be lost.
        """
        while True:
            with contextlib.suppress(queue.Empty):
                return self._ready.get(timeout=ROUND_SECONDS)

    def _prepare_all(self, specs: Sequence[KernelSpec], cache: Cache) -> None:
        try:
            for spec in specs:
                if self._stopped.is_set():
                    return
                try:
                    if self._no_time:
                        self._ready.put(Ready(spec, spec.release, left_out=self._late))
                        continue
                    asked = self._plan.request
                    ready = make_ready(spec, self._matrix, cache, asked.source, asked.equipment)
                except Exception as error:  # a fault of ours: this kernel's row, not the end
                    log.exception("preparing %s failed, which must not happen", spec.name)
                    cell = Cell(True, "red", f"{type(error).__name__}: {error}")
                    ready = Ready(spec, spec.release, {"boot": cell}, status=Status.OURS)
                if not self._stopped.is_set():
                    self._ready.put(ready)
        finally:
            cache.close()

    @property
    def _late(self) -> str:
        return f"no time left after {self._minutes:g} minutes"

    @property
    def _no_time(self) -> bool:
        return self._deadline is not None and self._deadline.expired

    def _finish(self, ready: Ready) -> KernelResult:
        """Test a kernel that is ready; write and say what came of it.

        Raises ``_Interrupted``, so that nothing is written and said.
        """
        given = self._plan.request.given
        red = any(cell.red for cell in ready.cells.values())
        why = ready.left_out or (self._late if self._no_time and not red else "")
        if why:
            with self._lock:
                self._left -= 1
            log.info("kernel %s: not run: %s", ready.spec.name, why)
            row = left_out(ready.spec.name, ready.release, ready.spec.version, why)
            row = replace(row, given=given)
            self.results[row.kernel] = row
            return row
        with self._lock:
            jobs = share(self._jobs, self._left)
        try:
            with store.begin(ready.spec.name, whole=self._plan.whole, given=given) as run:
                result = not_tested(ready, given) if ready.status else self._test(run, ready, jobs)
                write_result(run, result)
        except _Interrupted:
            raise
        except Exception as error:
            ready.status = Status.HOST if isinstance(error, OSError) else Status.OURS
            if isinstance(error, HarnessError):
                ready.status = error.exit_status
            elif not isinstance(error, OSError):  # which is for example a full disk
                log.exception("testing %s failed, which must not happen", ready.spec.name)
            ready.cells[next(iter(self._plan.suites))] = Cell(True, "red", f"not run: {error}")
            result = not_tested(ready, given)
        with self._lock:
            self._left -= 1
            self.results[result.kernel] = result
        why = next((cell.why for cell in result.cells.values() if cell.red), "")
        log.info("kernel %s: %s after %.1f + %.1f s%s", result.kernel,
                 "green" if result.green else "red", result.ready_s, result.tests_s,
                 f": {why}" if why else "")  # fmt: skip
        return result

    def _test(self, run: Run, ready: Ready, jobs: int) -> KernelResult:
        log.info("kernel %s: %s, ready after %.1f s; testing", ready.spec.name, ready.release,
                 ready.seconds)  # fmt: skip
        own = ready.spec.name
        given = self._plan.arguments(ready.spec, jobs, run.junit)
        started = time.monotonic()
        with run.log.open("wb") as out:
            with self._lock:
                if self._stopped.is_set():
                    raise _Interrupted
                process = PytestProcess(
                    given, run.folder, verbose=self._plan.request.verbose, out=out
                )
                self._running.add(process)
            ended = process.wait(tell=functools.partial(log.info, "kernel %s: red: %s", own))
            with self._lock:
                self._running.discard(process)
                # How pytest has ended says nothing of the kernel then: it was told to.
                if self._stopped.is_set():
                    raise _Interrupted
        return result_of(ready, self._plan, ended, run.junit, time.monotonic() - started)

    def _end(self) -> None:
        """End every pytest, which ends its machines itself if it gets the time for it."""
        with self._lock:
            self._stopped.set()
            running = list(self._running)
        pytest_process.end(running)
