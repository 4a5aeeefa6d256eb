# SPDX-License-Identifier: GPL-2.0-only
"""`invoke test-vm`: one kernel before a person's eyes, or several with a table at the end."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from harness import config, qemu
from harness.build import module
from harness.config import KernelSpec, Matrix
from harness.errors import HarnessError
from harness.host.cache import Cache
from harness.report import table
from harness.report.result import Cell
from harness.runs import pytest_process, store, suites, sweep
from harness.runs.ready import Way
from harness.runs.store import Run
from harness.runs.sweep import Plan, Ready, Sweep

log = logging.getLogger(__name__)


def run(
    kernels: str | None,
    source: Path,
    expression: str | None,
    jobs: int | None,
    verbose: bool,
    *,
    suite: str | None = None,
    profile: str = "",
    own_config: Path | None = None,
    keep: bool = False,
    minutes: int | None = None,
) -> int:
    """Test the module on each kernel; 0 only if all is green.

    Without a ``suite``, one kernel is held against the contract, several also against what
    is to hold for module/ itself. With several there is a table at the end. After
    ``minutes`` no other kernel is begun; those left out are named, and are not red.
    """
    pytest_process.check_filter(expression)
    module.check_source(source)
    wanted = suites.folders(suite or "contract", source)
    qemu.check_version()
    matrix = config.load()
    specs = matrix.select(kernels, profile, own_config)
    if suite is None and len(specs) > 1 and source.resolve() == config.MODULE.resolve():
        wanted = suites.folders("contract,module", source)
    plan = Plan(source, wanted, expression, verbose, keep)
    if len(specs) == 1 and minutes is None:
        return _test_one(specs[0], matrix, plan, jobs)
    several = Sweep(plan, matrix, jobs or pytest_process.default_jobs(), minutes)
    try:
        results = several.run(specs)
    except KeyboardInterrupt as error:
        done = [several.results[spec.name] for spec in specs if spec.name in several.results]
        if done:
            print(f"\n{table.text(done)}", flush=True)
        missing = [spec.name for spec in specs if spec.name not in several.results]
        error.add_note(f"not tested to the end: {', '.join(missing)}")
        raise
    print(f"\n{table.text(results)}", flush=True)
    log.info("results of each: results/KERNEL/latest/, with pytest.log, junit.xml and report.json")
    print(table.tally(results), flush=True)
    if all(result.left_out for result in results):
        log.error("nothing was tested")
        return 1
    # Red because of a kernel or the module says more than what only the host is to blame for.
    statuses = {result.status for result in results}
    return 1 if 1 in statuses else max(statuses)


def _test_one(spec: KernelSpec, matrix: Matrix, plan: Plan, jobs: int | None) -> int:
    """Test one kernel before a person's eyes; what goes wrong is raised."""
    with store.begin(spec.name, whole=plan.whole) as run:
        return _test_in(run, spec, matrix, plan, jobs)


def _test_in(run: Run, spec: KernelSpec, matrix: Matrix, plan: Plan, jobs: int | None) -> int:
    started = time.monotonic()
    with Cache() as cache:
        way = Way(spec, matrix, cache, plan.source)
        try:
            way.have_kernel()
            for warning in way.build().warnings:
                log.warning("%s", warning)
            way.boot()
        except KeyboardInterrupt as error:
            error.add_note(f"kernel {spec.name} was being made ready ({way.stage.column})")
            raise
        except HarnessError as error:  # it is told, and kept: the last result is not an older one
            cells = {way.stage.column: Cell(True, "red", sweep.reason(error))}
            seconds = time.monotonic() - started
            unfit = Ready(spec, spec.release, cells, seconds, error.exit_status)
            sweep.keep(run, sweep.not_tested(unfit))
            raise
        ready = sweep.is_ready(way, time.monotonic() - started)
        log.info("kernel %s: %s, ready after %.1f s", spec.name, ready.release, ready.seconds)
        options = sweep.arguments(
            plan, spec, jobs if jobs is not None else pytest_process.default_jobs(), run
        )
        started = time.monotonic()
        ended = pytest_process.run(options, run.folder, verbose=plan.verbose)
        pytest_process.not_empty(ended)
        result = sweep.result_of(ready, plan, ended, run.junit, time.monotonic() - started)
        sweep.keep(run, result)
        if ended.why:
            log.error("%s", ended.why)
        return result.status
