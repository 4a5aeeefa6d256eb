# SPDX-License-Identifier: GPL-2.0-only
"""What `invoke build`, `test-vm`, `test` and `clean` do."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

from harness import config, lab, qemu
from harness.build import module
from harness.config import KernelSpec, Matrix
from harness.errors import HarnessError, InputError
from harness.host import files, proc
from harness.host.cache import Cache
from harness.report import table
from harness.report.result import Cell
from harness.runs import pytest_process, store, sweep
from harness.runs.pytest_process import Ended
from harness.runs.ready import Way
from harness.runs.store import Run
from harness.runs.sweep import Plan, Ready, Sweep

log = logging.getLogger(__name__)

BUILD = config.PROJECT / "build"
UNIT = "tests/unit"


def build(
    kernels: str | None, source: Path, profile: str = "", own_config: Path | None = None
) -> None:
    """Build for each kernel; the modules land in build/KERNEL/."""
    module.check_source(source)
    matrix = config.load()
    cache = Cache()
    for spec in matrix.select(kernels, profile, own_config):
        place = lab.prepare_lab(spec, matrix, cache)
        built = place.build(source)
        for warning in built.warnings:
            log.warning("%s", warning)
        target = BUILD / spec.name
        target.mkdir(parents=True, exist_ok=True)
        with files.replaced(target / built.ko.name) as fresh:
            shutil.copyfile(built.ko, fresh)
        shown = os.path.relpath(target / built.ko.name)
        log.info("built %s for %s", shown, place.kernel.release)


def folders(suite: str, source: Path) -> list[str]:
    """The folders of tests that ``--suite NAME[,NAME]`` or ``--suite all`` asks for.

    Somebody else's module is held against the contract only.
    """
    names = list(config.SUITES) if suite == "all" else [name.strip() for name in suite.split(",")]
    for name in names:
        if name not in config.SUITES:
            known = ", ".join([*config.SUITES, "all"])
            raise InputError(f"there is no suite named {name!r}", hint=f"known suites: {known}")
    if source.resolve() != config.MODULE.resolve() and names != ["contract"]:
        log.info("%s is held against the contract; the other suites are about module/", source)
        names = ["contract"]
    return [config.SUITES[name] for name in names]


def test_vm(
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
    wanted = folders(suite or "contract", source)
    qemu.check_version()
    matrix = config.load()
    specs = matrix.select(kernels, profile, own_config)
    if suite is None and len(specs) > 1 and source.resolve() == config.MODULE.resolve():
        wanted = folders("contract,module", source)
    suites = {name: folder for name, folder in config.SUITES.items() if folder in wanted}
    plan = Plan(source, suites, expression, verbose, keep)
    if len(specs) == 1 and minutes is None:
        return _test_one(specs[0], matrix, plan, jobs)
    several = Sweep(plan, matrix, jobs or default_jobs(), minutes)
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
    way = Way(spec, matrix, Cache(), plan.source)
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
    options = sweep.arguments(plan, spec, jobs if jobs is not None else default_jobs(), run)
    started = time.monotonic()
    ended = pytest_process.run(options, run.folder, verbose=plan.verbose)
    not_empty(ended)
    result = sweep.result_of(ready, plan, ended, run.junit, time.monotonic() - started)
    sweep.keep(run, result)
    if ended.why:
        log.error("%s", ended.why)
    return result.status


def test(
    kernels: str | None,
    source: Path,
    expression: str | None,
    jobs: int | None,
    verbose: bool,
    *,
    only_unit: bool = False,
) -> int:
    """The unit tests, then all machine tests; these run even if the first are red.

    Both use ``jobs`` processes at a time. A unit test needs no machine's memory, so that by
    default there is one for each core.
    """
    pytest_process.check_filter(expression)
    chosen = ["-k", expression] if expression else []
    with tempfile.TemporaryDirectory(prefix="harness-unit-") as folder:
        ended = pytest_process.run(
            [UNIT, f"-n{jobs or cores()}", *chosen], Path(folder), verbose=verbose
        )
    if ended.why:
        log.error("%s", ended.why)
    if only_unit or not expression:
        not_empty(ended)
    unit = 0 if ended.empty else ended.status
    if only_unit:
        return unit
    try:
        machine = test_vm(kernels, source, expression, jobs, verbose, suite="all")
        return 1 if 1 in (unit, machine) else max(unit, machine)
    except NothingMatches:
        if ended.empty:
            raise
        return unit  # what was asked for is among the tests that need no machine


class NothingMatches(InputError):
    """No test is what was asked for."""


def not_empty(ended: Ended) -> None:
    """Raise ``NothingMatches`` if there was no test to run."""
    if ended.empty:
        raise NothingMatches("no test matches, so nothing was tested", hint="see --filter")


def default_jobs() -> int:
    """As many tests at a time as there are cores, if each can have a machine's memory."""
    return max(1, min(cores(), proc.available_memory_mib() // 1024))


def cores() -> int:
    """The processors that this process may use (a container may have fewer than its host)."""
    return len(os.sched_getaffinity(0))


def clean(cache: Cache) -> None:
    """Remove every entry of the cache that nobody uses, and build/."""
    before = shutil.disk_usage(cache.root).free
    for entry in [*(stored.entry for stored in cache.stored()), *cache.damaged()]:
        if not cache.remove(entry):
            log.info("%s %s is in use by another run; left", entry.kind, entry.label)
    for answer in cache.root.glob("kvm-*"):
        answer.unlink()
    cache.forget()
    # A compiler that is at work with it goes on without.
    shutil.rmtree(cache.root / "ccache", ignore_errors=True)
    freed = max(0, shutil.disk_usage(cache.root).free - before)
    if BUILD.exists():
        shutil.rmtree(BUILD)
    log.info("%s: %.0f MiB freed", cache.root, freed / (1 << 20))
