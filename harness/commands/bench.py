# SPDX-License-Identifier: GPL-2.0-only
"""`invoke bench`: how long each stage takes on this host, as medians.

Every number has a name that stays the same, so that runs can be compared; those that end in
_s are seconds of wall time.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import config, qemu
from harness.build import module
from harness.commands import versus
from harness.errors import InputError, OwnFaultError, Status
from harness.host import proc
from harness.host.cache import Cache
from harness.host.proc import Deadline
from harness.klog import bench
from harness.lab import Lab
from harness.machines import freeze, pool, template
from harness.machines.clone import Clone, clone
from harness.machines.guest import Guest
from harness.machines.pool import Pool
from harness.runs import pytest_process
from harness.runs.ready import Way

Samples = dict[str, list[float]]

# A suite of tests that do nothing but have a machine: what is left is the harness's own time.
_TRIVIAL = """\
import pytest
@pytest.mark.parametrize("number", range({count}))
def test_nothing(guest, number):
    pass
"""
_TRIVIAL_TESTS = 100
# One of tests that do as little as can be done with a module; what is left is judging them.
_JUDGED = """\
import pytest
@pytest.mark.parametrize("number", range({count}))
def test_life(loaded, number):
    loaded.check("echo {{}} >/dev/eudyptula".format(number))
    loaded.check("rmmod waitqueues")
"""
_JUDGED_TESTS = 20
_MANY_CHECKS = 21


def run(
    kernel: str | None, *, json: bool, rounds: int, scratch: bool = False, suites: bool = True
) -> None:
    """Measure, and print a table or JSON."""
    matrix = config.load()
    with Cache() as cache:
        samples: Samples = {}
        for spec in matrix.select(kernel):
            lab = Way(spec, matrix, cache, config.MODULE).have_kernel()
            frozen = lab.template()
            if not frozen.frozen:
                raise InputError(
                    f"kernel {spec.name} cannot be frozen: there is nothing to compare",
                    hint="`invoke test-vm --kernel NAME` says why; --kernel takes another one",
                )
            for _ in range(rounds):
                _boot(lab, samples)
                _clone(lab, samples)
                _build(lab, samples)
            _pool(lab, samples, 3 * rounds)
            boot, ready = (statistics.median(samples[name]) for name in ("boot_s", "ready_s"))
            samples.setdefault("boot_s / ready_s", []).append(boot / ready)
            for _ in range(min(rounds, 3)):
                _whole(spec.asked, samples)
            for _ in range(min(rounds, 3) if suites else 0):
                _trivial(spec.asked, samples)
                _judged(spec.asked, samples)
        if scratch:
            _from_nothing(samples)
        print(as_json(samples) if json else as_text(samples))


def virtme_ng(kernel: str | None, *, json: bool, rounds: int) -> None:
    """Measure one check of the module by virtme-ng and by this harness, in turns; print that.

    virtme_ng_s is virtme-ng's command; one_check_s one test that does the same, from pytest's start
    to its end; one_more_check_s each further test of such a run.
    """
    matrix = config.load()
    with Cache() as cache:
        samples: Samples = {}
        for spec in matrix.select(kernel or "trixie-generic"):
            way = Way(spec, matrix, cache, config.MODULE)
            lab = way.have_kernel()
            versus.require(lab.kernel)
            ko = way.build().loadable
            way.boot()
            with cache.scratch("bench") as folder:
                boot = versus.tree(lab.kernel, folder)
                _suite_seconds(spec.asked, versus.TESTS.format(count=1))  # it has been run before
                versus.check(boot, ko)
                for _ in range(rounds):
                    _versus(spec.asked, boot, ko, samples)
        print(as_json(samples) if json else as_text(samples))


def _versus(kernel: str, boot: Path, ko: Path, samples: Samples) -> None:
    with _timed(samples, "virtme_ng_s"):
        versus.check(boot, ko)
    one = _suite_seconds(kernel, versus.TESTS.format(count=1))
    many = _suite_seconds(kernel, versus.TESTS.format(count=_MANY_CHECKS))
    more = (many - one) / (_MANY_CHECKS - 1)
    samples.setdefault("one_check_s", []).append(one)
    samples.setdefault("one_more_check_s", []).append(more)
    theirs = samples["virtme_ng_s"][-1]
    samples.setdefault("virtme_ng_s / one_check_s", []).append(theirs / one)
    samples.setdefault("virtme_ng_s / one_more_check_s", []).append(theirs / more)


def klog(folder: Path, *, json: bool) -> None:
    """Score the log reader on a folder of labelled logs, and print that."""
    try:
        score = bench.measure(folder)
    except bench.KlogBenchError as error:
        raise InputError(str(error)) from error
    print(bench.as_json(score) if json else bench.render(score))


def as_text(samples: Samples) -> str:
    """A table: name, median, smallest, largest, number of samples."""
    width = max(len(name) for name in samples)
    rows = [f"{'':{width}}  median     min     max   n"]
    for name, values in samples.items():
        rows.append(
            f"{name:{width}}  {statistics.median(values):6.2f}  {min(values):6.2f}  "
            f"{max(values):6.2f}  {len(values):2}"
        )
    return "\n".join(rows)


def as_json(samples: Samples) -> str:
    """The same with every sample."""
    return json.dumps(
        {
            "cores": len(os.sched_getaffinity(0)),
            "qemu": qemu.version_text(),
            "results": {
                name: {"median": statistics.median(values), "samples": values}
                for name, values in samples.items()
            },
        },
        indent=2,
    )


@contextmanager
def _timed(samples: Samples, name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    samples.setdefault(name, []).append(time.monotonic() - started)


def _answered(machine: qemu.Machine, lab: Lab) -> None:
    port = machine.ssh_port(Deadline(30))
    with Guest.connect(port, lab.image.keys) as guest:
        guest.check("true")


def _boot(lab: Lab, samples: Samples) -> None:
    """boot_s: starting QEMU to the first SSH command's answer, without a template."""
    spec = freeze.machine_spec(lab.kernel, lab.image, lab.cache)
    with (
        lab.cache.scratch("bench") as folder,
        _timed(samples, "boot_s"),
        qemu.booted(spec, folder, Deadline(template.BOOT_SECONDS)) as machine,
    ):
        _answered(machine, lab)


# By its path: the shell's own would need no process.
_PROGRAM = "/bin/true"


def _clone(lab: Lab, samples: Samples) -> None:
    """restore_s, ready_s, command_s and clone_rss_mib of one clone.

    restore_s: starting QEMU to the machine running again; ready_s: to the answer of a first program
    over SSH; command_s: one more; clone_rss_mib: memory that this clone has for itself,
    in MiB, once it rests.
    """
    frozen = lab.template()
    with lab.cache.scratch("bench") as folder:
        started = time.monotonic()
        with clone(frozen, folder) as running:
            running.guest.check(_PROGRAM)
            samples.setdefault("restore_s", []).append(running.running_since - started)
            samples.setdefault("ready_s", []).append(time.monotonic() - started)
            with _timed(samples, "command_s"):
                running.guest.check(_PROGRAM)
            running.guest.check("sleep 1")
            samples.setdefault("clone_rss_mib", []).append(_private_mib(running.machine.pid))


def _private_mib(pid: int) -> float:
    """Memory that no other process shares (smaps_rollup, proc_pid_smaps(5)), in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = [int(line.split()[1]) for line in lines if line.startswith(("Private_", "Swap:"))]
    return sum(sizes) / 1024


def _pool(lab: Lab, samples: Samples, count: int) -> None:
    """pool_wait_s: what a test waits for its machine when the one before takes half a second."""
    frozen = lab.template()

    def make() -> Clone:
        return pool.open_clone(frozen, lab.cache)

    supply = Pool()
    try:
        supply.take("bench", make).close()
        supply.start("bench", make)
        for number in range(count):
            with _timed(samples, "pool_wait_s"):
                taken = supply.take("bench", make)
            if number == 0:
                samples["pool_wait_s"].clear()  # no test was running while it was made
            supply.start("bench", make)
            taken.guest.check("sleep 0.5")
            taken.close()
    finally:
        supply.close()


def _trivial(kernel: str, samples: Samples) -> None:
    """per_test_overhead_s: all of a suite of trivial tests on one job, for each of its tests;
    speedup_2_jobs: how many times faster the same suite is on two.
    """
    alone = _suite_seconds(kernel, _TRIVIAL.format(count=_TRIVIAL_TESTS))
    together = _suite_seconds(kernel, _TRIVIAL.format(count=_TRIVIAL_TESTS), "-n", "2")
    samples.setdefault("per_test_overhead_s", []).append(alone / _TRIVIAL_TESTS)
    samples.setdefault("speedup_2_jobs", []).append(alone / together)


def _judged(kernel: str, samples: Samples) -> None:
    """judged_test_s: all of a suite of tests that have the module loaded, write once and unload
    it, for each of its tests.
    """
    took = _suite_seconds(kernel, _JUDGED.format(count=_JUDGED_TESTS))
    samples.setdefault("judged_test_s", []).append(took / _JUDGED_TESTS)


def _suite_seconds(kernel: str, source: str, *options: str) -> float:
    """How long pytest takes with a suite that consists of this file, which has to be green."""
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder, "test_suite.py")
        suite.write_text(source)
        given = ["-q", "-p", "no:cacheprovider", "-c", str(config.PROJECT / "pyproject.toml"),
                 f"--rootdir={folder}", f"--kernel={kernel}", *options, str(suite)]  # fmt: skip
        said = Path(folder, "said")
        started = time.monotonic()
        with said.open("wb") as out:
            ended = pytest_process.run(given, Path(folder, "results"), out=out)
        took = time.monotonic() - started
        if ended.status != Status.GREEN:
            raise OwnFaultError(
                "tests that nothing is wrong with are not green",
                tail=said.read_text(errors="replace"),
            )
    return took


def _touched(source: Path, folder: Path) -> Path:
    """A copy of the module's folder that was never built."""
    copy = folder / "module"
    shutil.copytree(source, copy)
    with (copy / "waitqueues.c").open("a") as stream:
        stream.write(f"\n/* {time.time_ns()} */\n")
    return copy


def _build(lab: Lab, samples: Samples) -> None:
    """build_s: the module, its source touched."""
    with lab.cache.scratch("bench") as folder:
        source = _touched(config.MODULE, folder)
        with _timed(samples, "build_s"):
            module.build(lab.kernel, source, lab.cache)


def _whole(kernel: str, samples: Samples) -> None:
    """test_vm_s: all of `invoke test-vm` from a warm cache, the module's source touched."""
    with tempfile.TemporaryDirectory() as folder:
        source = _touched(config.MODULE, Path(folder))
        command = [str(Path(sys.executable).parent / "invoke"), "test-vm", "--kernel", kernel,
                   "--module", str(source)]  # fmt: skip
        with _timed(samples, "test_vm_s"):
            proc.run(command, deadline=Deadline(600), cwd=config.PROJECT)


def _from_nothing(samples: Samples) -> None:
    """from_nothing_s: `./bootstrap test-vm` with an empty cache and no virtual environment.

    The system packages stay installed: taking them away is not for a benchmark to do.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "clone"
        proc.run(["git", "clone", "--quiet", str(config.PROJECT), str(copy)], deadline=Deadline(60))
        environment = {**os.environ, "EUDYPTULA_CACHE": f"{folder}/cache"}
        with _timed(samples, "from_nothing_s"):
            proc.run(["./bootstrap", "test-vm"], deadline=Deadline(900), cwd=copy, env=environment)
