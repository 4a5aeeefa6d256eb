# SPDX-License-Identifier: GPL-2.0-only
"""The fixtures for tests in a guest.

Every test that asks for ``guest`` or ``loaded`` gets a machine of its own, cloned from a
template; when the test has run, the kernel's log and its taint are read (judging.py),
and what they say counts as much as what the test asserted.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from harness import config
from harness.build import source as sources
from harness.build.module import Module
from harness.errors import HarnessError, InputError
from harness.examine.artifacts import MACHINES, Keeper
from harness.host.cache import Cache
from harness.lab import Lab, prepare_lab
from harness.machines.clone import Clone
from harness.machines.guest import Guest
from harness.plugin import COVERAGE, RUN, TESTED, Tested, coverage, kernel_of, matrix_of, module_of
from harness.plugin.expect import EXPECTED, Expected, expecting
from harness.plugin.judging import judge_machines, raise_problems
from harness.plugin.late import late_judge
from harness.plugin.supply import (
    SOURCE,
    USED,
    MachineKind,
    MachineSource,
    UsedMachine,
    kind_of,
    wants_machine,
)
from harness.runs import covered, store
from harness.runs.store import Run
from harness.testing import ExpectSplat

_RUN = pytest.StashKey[Run]()
_LAB = pytest.StashKey[Lab]()


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    """The kernel under test and its guest image."""
    return _lab(request.config)


def _lab(run: pytest.Config) -> Lab:
    if _LAB not in run.stash:
        run.stash[_LAB] = _make_lab(run)
    return run.stash[_LAB]


def _make_lab(run: pytest.Config) -> Lab:
    matrix = matrix_of(run)
    spec = kernel_of(run, matrix)
    # What is taken from the cache is used after the last test still, by harness/plugin/late.py.
    cache = Cache()
    run.add_cleanup(cache.close)
    option = run.getoption
    equipment = config.equipment(option("kernel_device"), option("kernel_guest_packages"))
    config.check_recording(
        record=option("kernel_record"), coverage=option("kernel_coverage"),
        devices=equipment.devices,
    )  # fmt: skip
    lab = prepare_lab(spec, matrix, cache, equipment)
    run.stash[TESTED] = Tested(lab.kernel.name, lab.kernel.release, lab.kernel.spec.version)
    if not option("kernel_coverage"):
        return lab
    folder = _run_folder(run, lab) / covered.FOLDER
    run.stash[COVERAGE] = folder
    # A folder for each process of pytest-xdist.
    return lab.counted(folder / secrets.token_hex(4))


@pytest.fixture(scope="session")
def supply(request: pytest.FixtureRequest, lab: Lab) -> Iterator[MachineSource]:
    """Where the tests' machines come from."""
    source = _source(request.config)
    try:
        yield source
    finally:
        del request.config.stash[SOURCE]
        if source.built is not None:
            tested = request.config.stash[TESTED]
            request.config.stash[TESTED] = replace(tested, module=source.built.digest)
        source.pool.close()
        coverage.gather(lab, source.built, source.counts)


def _source(run: pytest.Config) -> MachineSource:
    if SOURCE in run.stash:
        return run.stash[SOURCE]
    option = run.getoption
    machines = option("kernel_machines")
    keeper = Keeper(
        partial(_run_folder, run, _lab(run)),
        hold_first=option("kernel_keep"),
        limit=MACHINES if machines is None else machines,
    )
    given = sources.parse(module_of(run), option("--ko"), option("kernel_param"))
    source = MachineSource(_lab(run), given, keeper, record=option("kernel_record"))
    run.add_cleanup(source.pool.close)
    run.stash[SOURCE] = source
    return source


def make_first(item: pytest.Item) -> None:
    """Begin to make the machine of the test that comes first, unless it wants the module loaded.

    What goes wrong is met again when the test asks for it.
    """
    if wants_machine(item):
        with contextlib.suppress(HarnessError):
            _source(item.config).prepare(item, module=False)


@pytest.fixture(scope="session")
def module(supply: MachineSource) -> Module:
    """The module under test, built for the kernel under test."""
    return supply.module


@pytest.fixture(autouse=True)
def last_judgement(request: pytest.FixtureRequest) -> Iterator[None]:
    """Judges a test's machines once more when its fixtures have ended, and ends the machines.

    It is set up before, and so ends after, every other fixture and finalizer of one test: what
    the kernel reports while those end counts as well, up to the machine's last moments.
    """
    yield
    used = request.node.stash.get(USED, [])
    try:
        raise_problems(judge_machines(request.node, "teardown", None, last=True))
    finally:
        while used:
            one = used.pop()
            try:
                if one.give_back is None:
                    late_judge(request.config).take(request.node, one)
            finally:
                one.finish()


@pytest.fixture
def kernel_machine(request: pytest.FixtureRequest, supply: MachineSource) -> Clone:
    """The same as ``machine``, for ``guest``: a test file may have a fixture named machine."""
    clone = supply.take(kind_of(request.node, request.fixturenames))
    return _use(request.node, UsedMachine(clone))


def _use(item: pytest.Item, used: UsedMachine) -> Clone:
    """Have a machine judged with the test, and ended after it (``last_judgement``)."""
    item.stash.setdefault(USED, []).append(used)
    return used.clone


@pytest.fixture
def machine(kernel_machine: Clone) -> Clone:
    """The freshly booted machine of this test's own."""
    return kernel_machine


@pytest.fixture
def guest(kernel_machine: Clone) -> Guest:
    """A freshly booted guest of this test's own, over SSH; no module is loaded."""
    return kernel_machine.guest


@pytest.fixture
def loaded(guest: Guest) -> Guest:
    """The test's fresh guest, in which the module under test has just been loaded."""
    return guest  # `kernel_machine` has seen this fixture's name and has cloned the right template


@pytest.fixture(scope="module")
def shared_machines() -> Iterator[dict[MachineKind, Clone]]:
    """The machines that the tests of one file share."""
    kept: dict[MachineKind, Clone] = {}
    yield kept
    for clone in kept.values():
        clone.close()


@pytest.fixture
def shared(
    request: pytest.FixtureRequest, supply: MachineSource, shared_machines: dict[MachineKind, Clone]
) -> Guest:
    """A guest with the module loaded that the tests of one file share.

    For tests that only look: what one does to it, the next one finds. Each is still judged by
    what happened since the one before it was, and after a red one the next has a fresh guest.
    """
    kind = kind_of(request.node, ["loaded"])
    used = shared_machines.pop(kind, None)
    give_back = partial(shared_machines.__setitem__, kind)
    clone = _use(request.node, UsedMachine(used or supply.take(kind), give_back))
    if used:  # what came after the last judgement, such as a timer's work, is not this test's
        raise_problems(judge_machines(request.node, "setup", None))
    return clone.guest


@pytest.fixture
def expect_splat(request: pytest.FixtureRequest) -> ExpectSplat:
    """``with expect_splat("warning", function="foo"):`` a report of the kernel is wanted.

    In a test that has two machines, ``guest`` says which of them.
    """
    expected: Expected = []
    request.node.stash[EXPECTED] = expected

    def within(
        kind: str, function: str | None = None, *, guest: Guest | None = None
    ) -> AbstractContextManager[None]:
        clones = [used.clone for used in request.node.stash.get(USED, [])]
        machines = [each.machine for each in clones if guest in (None, each.guest)]
        if not machines:
            raise InputError("expect_splat needs a machine", hint="ask for `guest` or `loaded` too")
        if len(machines) > 1:
            raise InputError(
                "this test has several machines, and expect_splat is not told which one it is of",
                hint=f"expect_splat({kind!r}, guest=shared), or whichever it is",
            )
        return expecting(machines[0], expected, kind, function)

    return within


def _run_folder(config: pytest.Config, lab: Lab) -> Path:
    """This run's folder, the same for all its processes; it is made when it is first needed.

    It is held until the process ends, so that no other run removes it.
    """
    if _RUN not in config.stash:
        given = config.getoption("kernel_results")
        if given:
            run = Run(Path(given))
        else:
            run = store.begin(lab.kernel.name, whole=False, name=config.stash[RUN])
        config.stash[_RUN] = run
        config.add_cleanup(run.close)
    return config.stash[_RUN].folder
