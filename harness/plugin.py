# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: ``--kernel``, ``--module``, and the fixtures for tests in a guest.

Every test that asks for ``guest`` or ``loaded`` gets a machine of its own, cloned from a
template; when the test has run, the kernel's log and its taint are read, and what they
say counts as much as what the test asserted.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path

import pytest

from harness import config as matrix_config
from harness import klog, pool, verdict
from harness import lab as labs
from harness import template as templates
from harness.build import INSIDE, Module
from harness.cache import Cache
from harness.errors import CommandTimeout, HarnessError, MachineError
from harness.guest import Guest
from harness.lab import Lab
from harness.pool import Fresh, Pool
from harness.proc import Deadline
from harness.qemu import Machine, printable
from harness.template import Clone, Template
from harness.verdict import Evidence, Expectation, Problem, Verdict

RESULTS = matrix_config.PROJECT / "results"
DUMP_SECONDS = 60.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("eudyptula", "Linux kernel modules in QEMU")
    group.addoption(
        "--kernel", metavar="NAME", help="the kernel to test on (default: see vm/kernels.toml)"
    )
    group.addoption(
        "--profile", metavar="NAME", default="", help="what is added to a kernel tree's config"
    )
    group.addoption("--config", metavar="FILE", type=Path, help="a kernel tree's own config")
    group.addoption(
        "--module",
        metavar="DIR",
        default=str(matrix_config.MODULE),
        help="the folder of the module under test (default: module/)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "machine(memory_mib=512, cpus=1, append=()): the shape of this test's machine; "
        "append is a tuple of kernel command line options",
    )


# What the fixture expect_splat is: a context manager that takes a kind and a function.
ExpectSplat = Callable[..., AbstractContextManager[None]]

_EXPECTED = pytest.StashKey[list[Expectation]]()
_FRESH = pytest.StashKey[list[Fresh]]()
_NEXT = pytest.StashKey["pytest.Item | None"]()
_SUPPLY = pytest.StashKey["Supply"]()

# The shape of a test's machine (the marker's arguments), and whether the module is loaded.
Wanted = tuple[tuple[tuple[str, object], ...], bool]


class Supply:
    """Where the tests' machines come from."""

    def __init__(self, lab: Lab, source: Path) -> None:
        self.lab = lab
        self.pool = Pool()
        self._source = source

    @cached_property
    def module(self) -> Module:
        """The module under test."""
        return self.lab.build(self._source)

    def wanted(self, item: pytest.Item) -> Wanted | None:
        """What kind of machine a test asks for by its fixtures and its marker."""
        fixtures = getattr(item, "fixturenames", ())
        if "machine" not in fixtures:
            return None
        marker = item.get_closest_marker("machine")
        return tuple(sorted(marker.kwargs.items())) if marker else (), "loaded" in fixtures

    def take(self, wanted: Wanted) -> Fresh:
        """A machine of that kind that nobody has used."""
        return self.pool.take(wanted, lambda: self._make(wanted))

    def prepare(self, item: pytest.Item | None) -> None:
        """Begin to make the machine of the test that comes next."""
        wanted = self.wanted(item) if item else None
        if wanted:
            self.pool.prepare(wanted, lambda: self._make(wanted))

    def _make(self, wanted: Wanted) -> Fresh:
        shape, loaded = wanted
        template = self.lab.template(**dict(shape))  # type: ignore[arg-type]  # a marker's
        if loaded:
            template = loaded_template(self.lab, template, self.module)
        return pool.fresh(template, self.lab.cache)


# -- fixtures ----------------------------------------------------------------------


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The kernel under test and its guest image."""
    matrix = matrix_config.load()
    option = request.config.getoption
    chosen = matrix.select(option("--kernel"), option("--profile"), option("--config"))
    if len(chosen) != 1:
        raise pytest.UsageError("pytest takes one kernel; `invoke test-vm` takes several")
    cache = Cache()
    try:
        yield labs.prepare(chosen[0], matrix, cache)
    finally:
        cache.close()


@pytest.fixture(scope="session")
def supply(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Supply]:
    """Where the tests' machines come from."""
    supply = Supply(lab, Path(request.config.getoption("--module")))
    request.config.stash[_SUPPLY] = supply
    try:
        yield supply
    finally:
        del request.config.stash[_SUPPLY]
        supply.pool.close()


@pytest.fixture(scope="session")
def module(supply: Supply) -> Module:
    """The module under test, built for the kernel under test."""
    return supply.module


@pytest.fixture
def machine(request: pytest.FixtureRequest, supply: Supply) -> Iterator[Clone]:
    """The freshly booted machine of this test's own."""
    wanted = supply.wanted(request.node)
    assert wanted is not None  # this fixture is one of the test's
    fresh = supply.take(wanted)
    try:
        request.node.stash.setdefault(_FRESH, []).append(fresh)
        yield fresh.clone
    finally:
        fresh.close()


@pytest.fixture
def guest(machine: Clone) -> Guest:
    """A freshly booted guest of this test's own, over SSH; no module is loaded."""
    return machine.guest


@pytest.fixture
def loaded(guest: Guest) -> Guest:
    """The test's fresh guest, in which the module under test has just been loaded."""
    return guest  # `machine` has seen this fixture's name and has cloned the right template


@pytest.fixture
def expect_splat(request: pytest.FixtureRequest, machine: Clone) -> ExpectSplat:
    """``with expect_splat("warning", function="foo"):`` a report of the kernel is wanted."""
    expected: list[Expectation] = []
    request.node.stash[_EXPECTED] = expected
    return partial(expecting, machine.machine, expected)


@contextmanager
def expecting(
    machine: Machine, expected: list[Expectation], kind: str, function: str | None = None
) -> Iterator[None]:
    """Expect a report of ``kind`` (klog.Kind) within; it is added to ``expected``.

    Fails the test when none comes, or none in ``function`` if one is named.
    """
    __tracebackhide__ = True
    deadline = Deadline(pool.MARK_SECONDS)
    machine.mark(deadline)
    start = len(machine.console_text())
    yield
    with suppress(MachineError):  # it may have been a panic that was wanted
        machine.mark(deadline)
    text = machine.console_text()
    wanted = Expectation(klog.Kind(kind), function, start, len(text))
    fired = klog.read(text[start:])
    if not any(wanted.covers(event, start) for event in fired):
        others = ", ".join(event.title for event in fired) or "nothing"
        where = f" in {function}" if function else ""
        pytest.fail(f"expected a {kind} report{where}; the kernel reported {others}")
    expected.append(wanted)


def load(guest: Guest, module: Module) -> None:
    """Load a module that was built on the host; its file stays in /root."""
    target = f"/root/{module.ko.name}"
    guest.put(module.loadable, target)
    guest.check(f"insmod {target}")


def loaded_template(lab: Lab, base: Template, module: Module) -> Template:
    """``base`` with the module loaded; loading it must not upset the kernel."""

    def set_up(clone: Clone) -> Mapping[str, object]:
        machine = clone.machine
        taint = machine.mark(Deadline(pool.MARK_SECONDS))
        inventory = machine.inventory(Deadline(pool.MARK_SECONDS))
        load(clone.guest, module)
        problems = verdict.judge(evidence(machine, taint))
        if problems:
            raise KernelProblem(problems)
        return {"inventory": sorted(inventory)}

    return templates.derive(base, module.name, {"module": module.digest}, set_up, lab.cache)


# -- verdicts ----------------------------------------------------------------------


class KernelProblem(AssertionError):
    """The kernel, not the test, says that something is wrong."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = []
        for problem in problems:
            lines.append(str(problem))
            detail = printable(problem.detail).replace(f"{INSIDE}/", "")
            lines += [f"    {line}" for line in detail.splitlines()]
        super().__init__("\n".join(lines))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    item.stash[_NEXT] = nextitem


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """After the test's own verdict, its machine's; meanwhile, the next test's machine."""
    __tracebackhide__ = True
    supply = item.config.stash.get(_SUPPLY, None)
    if supply:
        supply.prepare(item.stash[_NEXT])
    failure: BaseException | None = None
    result = None
    try:
        result = yield
    except (Exception, pytest.fail.Exception) as error:
        failure = error
    timed_out = failure.command[0] if isinstance(failure, CommandTimeout) else ""
    problems: list[Problem] = []
    for fresh in item.stash.get(_FRESH, []):
        machine = fresh.clone.machine
        expected: list[Expectation] = item.stash.get(_EXPECTED, [])
        problems += verdict.judge(
            evidence(
                machine, fresh.taint, timed_out=timed_out, expected=tuple(expected),
                before=fresh.inventory,
            )
        )  # fmt: skip
        if failure or problems:
            kept = _keep(item, supply, machine, problems) if supply else ""
            item.add_report_section("call", "evidence", kept)
    if problems:
        raise KernelProblem(problems) from failure
    if failure:
        raise failure
    return result


def evidence(
    machine: Machine,
    taint_before: int,
    *,
    timed_out: str = "",
    expected: tuple[Expectation, ...] = (),
    before: frozenset[str] | None = None,
) -> Evidence:
    """Ask a machine how it is, whatever its state."""
    taint = moving = after = None
    if machine.running and not machine.panicked:
        try:
            taint = machine.mark(Deadline(pool.MARK_SECONDS))
            if taint & _OUT_OF_TREE and before is not None:
                found = machine.inventory(Deadline(pool.MARK_SECONDS))
                # Only when all that was loaded has been unloaded can something be left over.
                if _modules(found) <= _modules(before):
                    after = found
        except MachineError:
            with suppress(MachineError):
                moving = machine.spins(Deadline(pool.MARK_SECONDS))
    return Evidence(
        console=machine.console_text(),
        taint_before=taint_before,
        taint_after=taint,
        panicked=machine.panicked,
        running=machine.running,
        timed_out=timed_out,
        moving=moving,
        expected=expected,
        before=before,
        after=after,
    )


def _modules(inventory: frozenset[str]) -> set[str]:
    """The names of the modules in an inventory, without their reference counts."""
    return {name.partition("=")[0] for name in inventory if name.startswith("module:")}


_OUT_OF_TREE = 1 << 12  # the taint of a module from outside the tree


def _keep(item: pytest.Item, supply: Supply, machine: Machine, problems: Sequence[Problem]) -> str:
    """Copy what the machine leaves to where people find it, and say where that is."""
    name = re.sub(r"[^\w.\[\]-]+", "-", item.nodeid.removeprefix("tests/vm/"))
    folder = RESULTS / supply.lab.kernel.name / name[:150]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "console.log").write_text(printable(machine.console_text()))
    said = [f"console: {os.path.relpath(folder / 'console.log')}"]
    dead = {Verdict.PANIC, Verdict.LOST} & {problem.verdict for problem in problems}
    if dead and machine.running:
        deadline = Deadline(DUMP_SECONDS)
        with suppress(MachineError):
            (folder / "registers.txt").write_text(machine.registers(deadline))
            said.append(f"registers: {os.path.relpath(folder / 'registers.txt')}")
            machine.dump(folder / "memory.kdump", deadline)
            said.append(f"memory, for crash or drgn: {os.path.relpath(folder / 'memory.kdump')}")
    return "\n".join(said)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the harness or the kernel can explain needs no Python traceback."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, (HarnessError, KernelProblem)):
        cause = error.__cause__
        before = (
            f"{type(cause).__name__}: {cause}\n\n"
            if isinstance(error, KernelProblem) and cause
            else ""
        )
        report.longrepr = f"{error}\n\n{before}".rstrip()
    return report
