# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: ``--kernel``, ``--module``, and the fixtures for tests in a guest.

Every test that asks for ``guest`` or ``loaded`` gets a machine of its own, cloned from a
template; when the test has run, the kernel's log and its taint are read, and what they
say counts as much as what the test asserted.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import config as matrix_config
from harness import lab as labs
from harness import template as templates
from harness import verdict
from harness.build import Module
from harness.cache import Cache
from harness.errors import HarnessError, MachineError
from harness.guest import Guest
from harness.lab import Lab
from harness.proc import Deadline
from harness.qemu import printable
from harness.template import Clone, Template
from harness.verdict import Evidence, Problem

MARK_SECONDS = 20.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("eudyptula", "Linux kernel modules in QEMU")
    group.addoption(
        "--kernel", metavar="NAME", help="the kernel to test on (default: see vm/kernels.toml)"
    )
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


@dataclass
class Watched:
    """A clone that belongs to a test, with what its taint was when it was made."""

    clone: Clone
    taint: int


_WATCHED = pytest.StashKey[list[Watched]]()


# -- fixtures ----------------------------------------------------------------------


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The kernel under test and its guest image."""
    matrix = matrix_config.load()
    chosen = matrix.select(request.config.getoption("--kernel"))
    if len(chosen) != 1:
        raise pytest.UsageError("pytest takes one kernel; `invoke test-vm` takes several")
    cache = Cache()
    try:
        yield labs.prepare(chosen[0], matrix, cache)
    finally:
        cache.close()


@pytest.fixture(scope="session")
def module(request: pytest.FixtureRequest, lab: Lab) -> Module:
    """The module under test, built for the kernel under test."""
    return lab.build(Path(request.config.getoption("--module")))


@pytest.fixture
def template(request: pytest.FixtureRequest, lab: Lab) -> Template:
    """The frozen machine of the shape that this test asks for."""
    marker = request.node.get_closest_marker("machine")
    return lab.template(**(marker.kwargs if marker else {}))


@pytest.fixture
def machine(request: pytest.FixtureRequest, lab: Lab, template: Template) -> Iterator[Clone]:
    """A freshly booted machine of this test's own."""
    with _watched(request.node, lab, template) as clone:
        yield clone


@contextmanager
def _watched(item: pytest.Item, lab: Lab, template: Template) -> Iterator[Clone]:
    """A clone whose kernel's log and taint count for the test ``item``."""
    with (
        lab.cache.scratch("test") as folder,
        templates.clone(template, folder) as clone,
    ):
        taint = clone.machine.mark(Deadline(MARK_SECONDS))
        item.stash.setdefault(_WATCHED, []).append(Watched(clone, taint))
        yield clone


@pytest.fixture
def guest(machine: Clone) -> Guest:
    """A freshly booted guest of this test's own, over SSH; no module is loaded."""
    return machine.guest


@pytest.fixture
def loaded(
    request: pytest.FixtureRequest, lab: Lab, template: Template, module: Module
) -> Iterator[Guest]:
    """A fresh guest in which the module under test has just been loaded."""
    with _watched(request.node, lab, loaded_template(lab, template, module)) as clone:
        yield clone.guest


def load(guest: Guest, module: Module) -> None:
    """Load a module that was built on the host; its file stays in /root."""
    target = f"/root/{module.ko.name}"
    guest.put(module.ko, target)
    guest.check(f"insmod {target}")


def loaded_template(lab: Lab, base: Template, module: Module) -> Template:
    """``base`` with the module loaded; loading it must not upset the kernel."""

    def set_up(clone: Clone) -> None:
        taint = clone.machine.mark(Deadline(MARK_SECONDS))
        load(clone.guest, module)
        problems = verdict.judge(_evidence(Watched(clone, taint)))
        if problems:
            raise KernelProblem(list(problems))

    return templates.derive(base, module.name, {"module": module.digest}, set_up, lab.cache)


# -- verdicts ----------------------------------------------------------------------


class KernelProblem(AssertionError):
    """The kernel, not the test, says that something is wrong."""

    def __init__(self, problems: list[Problem]) -> None:
        lines = []
        for problem in problems:
            lines.append(f"{problem.verdict}: {problem.title}")
            lines += [f"    {line}" for line in printable(problem.detail).splitlines()]
        super().__init__("\n".join(lines))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """After the test's own verdict, its machines'."""
    __tracebackhide__ = True
    failure: BaseException | None = None
    result = None
    try:
        result = yield
    except (Exception, pytest.fail.Exception) as error:
        failure = error
    problems: list[Problem] = []
    for watched in item.stash.get(_WATCHED, []):
        problems += verdict.judge(_evidence(watched))
        if failure or problems:
            console = printable(watched.clone.machine.console_text())
            item.add_report_section("call", "console", console)
    if problems:
        raise KernelProblem(problems) from failure
    if failure:
        raise failure
    return result


def _evidence(watched: Watched) -> Evidence:
    """Ask a machine how it is, whatever its state."""
    machine = watched.clone.machine
    taint = None
    if machine.running and not machine.panicked:
        try:
            taint = machine.mark(Deadline(MARK_SECONDS))
        except MachineError:
            taint = None
    return Evidence(
        console=machine.console_text(),
        taint_before=watched.taint,
        taint_after=taint,
        panicked=machine.panicked,
        running=machine.running,
    )


def pytest_exception_interact(call: pytest.CallInfo[object], report: object) -> None:
    """What the harness can explain needs no Python traceback."""
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, (HarnessError, KernelProblem)) and isinstance(report, pytest.TestReport):
        report.longrepr = str(error)
