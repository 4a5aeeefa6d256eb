# SPDX-License-Identifier: GPL-2.0-only
"""`invoke test-vm`: one kernel before a person's eyes, or several with a table at the end."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence

from harness import config, qemu
from harness.build import archive
from harness.build import source as sources
from harness.config import KernelSpec, Matrix
from harness.errors import HarnessError, HostError
from harness.host import progress
from harness.host.cache import Cache
from harness.report import table
from harness.report.result import RED, Cell, KernelResult
from harness.runs import again, covered, pytest_process, store, sweep
from harness.runs.ready import Way
from harness.runs.request import Plan, Request
from harness.runs.store import Run
from harness.runs.sweep import Ready, Sweep

log = logging.getLogger(__name__)


def run(request: Request) -> int:
    """Test the module on each kernel; 0 only if all is green.

    Where no suite was asked for, module/ is held against the contract, and on several kernels also
    against its own suite. Another module is tested by the suite for any module. With several
    kernels there is a table at the end. After the request's ``minutes`` no other kernel is begun;
    those left out are named, and are not red.
    Raises ``GoneError`` for a release that the archive does not have.
    """
    plan = request.plan()
    qemu.check_version()
    matrix = config.load()
    specs = request.select(matrix)
    _look_for(specs)
    if request.failed:
        one = request.select_one(matrix, "--failed goes by the last run on one kernel")
        plan = again.only_red(plan, one.name)
    elif len(specs) > 1 and request.own_module:
        plan = request.plan("contract,module")
    if len(specs) == 1 and request.minutes is None:
        return _test_one(specs[0], matrix, plan)
    several = Sweep(plan, matrix)
    try:
        results = several.run(specs)
    except KeyboardInterrupt as error:
        done = [several.results[spec.name] for spec in specs if spec.name in several.results]
        if done:
            print(f"\n{table.text(done)}", flush=True)
        missing = [spec.name for spec in specs if spec.name not in several.results]
        error.add_note(f"not tested to the end: {', '.join(missing)}")
        raise
    _say(results, request)
    if request.coverage:
        place = str(sources.of(request.source).folder or "")
        said = covered.of_kernels([each.kernel for each in results if each.tests], place)
        if not request.quiet:
            print(f"\n{said}", flush=True)
    log.info("results of each: results/KERNEL/latest/, with pytest.log, junit.xml and report.json")
    _show(results)
    if not request.quiet:
        print(table.tally(results), flush=True)
    if all(result.left_out for result in results):
        log.error("nothing was tested")
        return 1
    # Red because of a kernel or the module says more than what only the host is to blame for.
    statuses = {result.status for result in results}
    return 1 if 1 in statuses else max(statuses)


def _look_for(specs: Sequence[KernelSpec]) -> None:
    """Raise ``GoneError`` for a release that no suite has, before there is a folder for it.

    It is a misspelt word, as a name that is not in the matrix is. A result of it would stay in
    each later report. A named kernel that the archive has lost is another matter: that is news.
    """
    searched = [spec for spec in specs if not spec.suite and spec.tree is None]
    if not searched:
        return
    with Cache() as cache:
        for spec in searched:
            # Where no mirror answers it is not known. Making it ready says so, beside the others.
            with contextlib.suppress(HostError):
                archive.resolve(spec, cache)


def _say(results: Sequence[KernelResult], request: Request) -> None:
    lines = map(table.verdict_of, results) if request.quiet else ["", table.text(results)]
    print("\n".join(lines), flush=True)


def _show(results: Sequence[KernelResult]) -> None:
    """Write the page of results. A verdict is not to be lost because that cannot be done."""
    from harness.runs import pages  # noqa: PLC0415  # see _prepare_to_show

    try:
        log.info("the page of results: %s", os.path.relpath(pages.write(results)))
    except HostError as error:
        log.warning("there is no page of results: %s", error)


def _prepare_to_show() -> None:
    """Import what makes the page, and prepare it, while pytest begins."""
    from harness.report import page  # noqa: PLC0415
    from harness.runs import pages  # noqa: F401, PLC0415

    page.prepare()


def _test_one(spec: KernelSpec, matrix: Matrix, plan: Plan) -> int:
    """Test one kernel before a person's eyes; what goes wrong is raised."""
    with store.begin(spec.name, whole=plan.whole, given=plan.request.given) as run:
        return _test_in(run, spec, matrix, plan)


def _test_in(run: Run, spec: KernelSpec, matrix: Matrix, plan: Plan) -> int:
    began = time.monotonic()
    with Cache() as cache:
        way = Way(spec, matrix, cache, plan.request.source, plan.request.equipment)
        ready: Ready
        started = 0.0
        jobs = plan.request.jobs or pytest_process.default_jobs()
        options = plan.arguments(spec, jobs, run.junit)
        with contextlib.ExitStack() as stack:

            def prepare(know: Callable[[str], None]) -> str:
                nonlocal ready, started
                ready = _make_ready(way, run, plan, spec, began, lambda: know(cache.vouch()))
                log.info("kernel %s: %s, ready after %.1f s", spec.name, ready.release,
                         ready.seconds)  # fmt: skip
                started = time.monotonic()
                if plan.request.quiet:  # else pytest shows its tests itself
                    stack.enter_context(_testing(run, spec))
                return cache.vouch()

            out = stack.enter_context(run.log.open("wb")) if plan.request.quiet else None
            ended = pytest_process.run(
                options, run.folder, verbose=plan.request.verbose, out=out, prepare=prepare,
                meanwhile=_prepare_to_show,
            )  # fmt: skip
        pytest_process.not_empty(ended)
        result = sweep.result_of(ready, plan, ended, run.junit, time.monotonic() - started)
        sweep.write_result(run, result)
        if ended.why:
            log.error("%s", ended.why)
        if plan.request.quiet:
            _say([result], plan.request)
        _show([result])
        return result.status


@contextlib.contextmanager
def _testing(run: Run, spec: KernelSpec) -> Iterator[None]:
    """Say how far the tests are that run within, where nobody sees pytest's own words."""
    what = f"kernel {spec.name}: testing"

    def ended() -> str:
        outcomes = [one.outcome for one in pytest_process.ended(run.folder)]
        red = sum(outcome in RED for outcome in outcomes)
        return f"{what}, {len(outcomes)} tests have ended, {red} of them red"

    with progress.stage(what, first=False), progress.detail(ended):
        yield


def _make_ready(
    way: Way, run: Run, plan: Plan, spec: KernelSpec, began: float,
    kernel_is_there: Callable[[], None],
) -> Ready:  # fmt: skip
    """Make a kernel ready for its tests; ``began``: when, by time.monotonic()."""
    try:
        with progress.recorded() as done:
            way.have_kernel()
            kernel_is_there()
            for warning in way.build().warnings:
                log.warning("%s", warning)
            way.boot()
    except KeyboardInterrupt as error:
        error.add_note(f"kernel {spec.name} was being made ready ({way.stage.column})")
        raise
    except HarnessError as error:  # it is told, and kept: the last result is not an older one
        cells = {way.stage.column: Cell(True, "red", sweep.reason(error))}
        seconds = time.monotonic() - began
        unfit = Ready(spec, spec.release, cells, seconds, error.exit_status,
                      steps=sweep.steps(done))  # fmt: skip
        sweep.write_result(run, sweep.not_tested(unfit, plan.request.given))
        raise
    return sweep.is_ready(way, time.monotonic() - began, done)
