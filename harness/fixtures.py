# SPDX-License-Identifier: GPL-2.0-only
"""The fixtures for tests in a guest, and the verdict on each test.

Every test that asks for ``guest`` or ``loaded`` gets a machine of its own, cloned from a
template; when the test has run, the kernel's log and its taint are read, and what they
say counts as much as what the test asserted.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import pytest

from harness import config as matrix_config
from harness import kernel as kernels
from harness import klog, pool, proc, scene, store, symbols, verdict
from harness import lab as labs
from harness import template as templates
from harness.build import INSIDE, Module
from harness.cache import Cache, repairs
from harness.config import KernelSpec, Matrix
from harness.errors import (
    CommandTimeout,
    GuestError,
    GuestLost,
    HarnessError,
    HostError,
    InputError,
    MachineError,
)
from harness.guest import Guest
from harness.lab import Lab
from harness.plugin import BY_HOST, REPAIRS, RUN, UNMET
from harness.pool import Fresh, Pool
from harness.proc import Deadline
from harness.qemu import Machine
from harness.store import Run
from harness.template import Clone, Template
from harness.text import printable
from harness.verdict import Evidence, Expectation, Problem, Verdict

log = logging.getLogger(__name__)

DUMP_SECONDS = 60.0
# How many red tests of a run leave their machine: each takes what its guest has used.
SCENES = 5
# A test that takes longer ends red; @pytest.mark.timeout(SECONDS) sets another limit.
TEST_SECONDS = 300.0


# -- which tests -------------------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each machine test a limit, and put aside what this kernel cannot show."""
    for item in items:
        # Every fixture that has to do with machines needs `lab`, so this also covers a test that
        # makes its machines itself.
        if "lab" in getattr(item, "fixturenames", ()):
            # The limit is for the test's function only. What fixtures wait for has limits of its
            # own, and the first test of a run may wait until a kernel is compiled. The verdict
            # comes after the function: a test that took too long needs one as well.
            own = item.get_closest_marker("timeout")
            limit = own or pytest.mark.timeout(TEST_SECONDS).mark
            given = {"func_only": True, **limit.kwargs}
            item.add_marker(pytest.mark.timeout(*limit.args, **given), append=False)
    if not any(item.get_closest_marker("needs") for item in items):
        return
    options = _kernel_options(config)
    unmet: dict[pytest.Item, str] = {}
    for item in items:
        for marker in item.iter_markers("needs"):
            wanted, unwanted = marker.kwargs.get("config"), marker.kwargs.get("without")
            if wanted and wanted not in options:
                unmet[item] = f"with {wanted}"
            elif unwanted in options:
                unmet[item] = f"without {unwanted}"
    items[:] = [item for item in items if item not in unmet]
    config.hook.pytest_deselected(items=list(unmet))
    config.stash[UNMET] = dict(Counter(unmet.values()))


def _kernel_options(config: pytest.Config) -> frozenset[str]:
    """The options that the kernel under test was built with (=y or =m)."""
    cache = Cache()
    try:
        text = kernels.prepare(_kernel_spec(config, matrix_config.load()), cache).config.read_text()
    finally:
        cache.close()
    return frozenset(re.findall(r"^(CONFIG_\w+)=[ym]$", text, re.MULTILINE))


def _kernel_spec(config: pytest.Config, matrix: Matrix) -> KernelSpec:
    """The kernel that the options ask for."""
    option = config.getoption
    chosen = matrix.select(option("--kernel"), option("--profile"), option("--config"))
    if len(chosen) != 1:
        raise pytest.UsageError("pytest takes one kernel; `invoke test-vm` takes several")
    return chosen[0]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What is to be said at the end; a worker of pytest-xdist tells the run that started it."""
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["unmet"] = session.config.stash.get(UNMET, {})
        told["repairs"] = repairs()
    else:
        session.config.stash[REPAIRS] = repairs()


# What the fixture expect_splat is: a context manager that takes a kind, a function, a guest.
ExpectSplat = Callable[..., AbstractContextManager[None]]

# What is expected, and of which machine.
Expected = list[tuple[Machine, Expectation]]
_EXPECTED = pytest.StashKey[Expected]()
_USED = pytest.StashKey[list["Used"]]()
_NEXT = pytest.StashKey["pytest.Item | None"]()
_RUN = pytest.StashKey[Run]()
_SUPPLY = pytest.StashKey["Supply"]()

# The shape of a test's machine (the marker's arguments), and whether the module is loaded.
Wanted = tuple[tuple[tuple[str, object], ...], bool]


@dataclass
class Used:
    """A machine that a test uses, and what its judgements so far have come to.

    ``fresh`` says from where on the next one counts.
    """

    fresh: Fresh
    wanted: Wanted
    # Takes the machine of a green test for the next one; without, the machine ends.
    give_back: Callable[[Fresh], None] | None = None
    red: bool = False
    silent: bool = False  # it will not say anything more, as after a panic
    told: set[str] = field(default_factory=set)  # the problems that are in a report already
    saved: int = 0  # how often evidence was saved

    def finish(self) -> None:
        """End the machine, or leave it to the next test."""
        if self.give_back and not self.red and not self.silent:
            self.give_back(self.fresh)
        else:
            self.fresh.close()


class Supply:
    """Where the tests' machines come from."""

    def __init__(self, lab: Lab, source: Path, config: pytest.Config) -> None:
        self.lab = lab
        self.pool = Pool()
        self._source = source
        self._config = config
        self._upset: dict[str, KernelProblem] = {}  # by the template

    @cached_property
    def module(self) -> Module:
        """The module under test."""
        return self.lab.build(self._source)

    def wanted(self, item: pytest.Item, fixtures: Collection[str]) -> Wanted:
        """What kind of machine a test asks for by its fixtures and its marker."""
        return self.shape(item), "loaded" in fixtures

    def shape(self, item: pytest.Item) -> tuple[tuple[str, object], ...]:
        """The arguments of a test's ``machine`` marker."""
        marker = item.get_closest_marker("machine")
        return tuple(sorted(marker.kwargs.items())) if marker else ()

    def take(self, wanted: Wanted) -> Fresh:
        """A machine of that kind that nobody has used."""
        return self.pool.take(wanted, lambda: self._make(wanted))

    def prepare(self, item: pytest.Item | None) -> None:
        """Begin to make the machine of the test that comes next."""
        fixtures = getattr(item, "fixturenames", ())
        if item and "machine" in fixtures:
            wanted = self.wanted(item, fixtures)
            self.pool.prepare(wanted, lambda: self._make(wanted))

    def _make(self, wanted: Wanted) -> Fresh:
        shape, loaded = wanted
        template = self.lab.template(**dict(shape))  # type: ignore[arg-type]  # a marker's
        if loaded:
            template = self._loaded(template)
        return pool.fresh(template, self.lab.cache)

    def _loaded(self, base: Template) -> Template:
        """``base`` with the module loaded; what upset the kernel once is not tried again."""
        known = self._upset.get(base.entry.digest)
        if known is not None:
            raise KernelProblem(known.problems, known.kept) from known.__cause__
        try:
            return loaded_template(self.lab, base, self.module, self._leave)
        except KernelProblem as error:
            self._upset[base.entry.digest] = error
            raise

    def _leave(self, machine: Machine, problems: Sequence[Problem]) -> str:
        return _leave(self._config, self.lab, machine, problems, f"loading-{self.module.name}", {})


# -- fixtures ----------------------------------------------------------------------


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The kernel under test and its guest image."""
    matrix = matrix_config.load()
    spec = _kernel_spec(request.config, matrix)
    cache = Cache()
    try:
        yield labs.prepare(spec, matrix, cache)
    finally:
        cache.close()


@pytest.fixture(scope="session")
def supply(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Supply]:
    """Where the tests' machines come from."""
    supply = Supply(lab, Path(request.config.getoption("--module")), request.config)
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


@pytest.fixture(autouse=True)
def last_judgement(request: pytest.FixtureRequest) -> Iterator[None]:
    """Judges a test's machines once more when its fixtures have ended, and ends the machines.

    It is set up before, and so ends after, every other fixture and finalizer of one test: what
    the kernel reports while those end counts as well, up to the machine's last moments.
    """
    yield
    used = request.node.stash.get(_USED, [])
    try:
        _raise(_judge(request.node, "teardown", None, last=True))
    finally:
        while used:
            used.pop().finish()


@pytest.fixture
def machine(request: pytest.FixtureRequest, supply: Supply) -> Clone:
    """The freshly booted machine of this test's own."""
    wanted = supply.wanted(request.node, request.fixturenames)
    return _use(request.node, Used(supply.take(wanted), wanted))


def _use(item: pytest.Item, used: Used) -> Clone:
    """Have a machine judged with the test, and ended after it (``last_judgement``)."""
    item.stash.setdefault(_USED, []).append(used)
    return used.fresh.clone


@pytest.fixture
def guest(machine: Clone) -> Guest:
    """A freshly booted guest of this test's own, over SSH; no module is loaded."""
    return machine.guest


@pytest.fixture
def loaded(guest: Guest) -> Guest:
    """The test's fresh guest, in which the module under test has just been loaded."""
    return guest  # `machine` has seen this fixture's name and has cloned the right template


@pytest.fixture(scope="module")
def shared_machines() -> Iterator[dict[Wanted, Fresh]]:
    """The machines that the tests of one file share."""
    kept: dict[Wanted, Fresh] = {}
    yield kept
    for fresh in kept.values():
        fresh.close()


@pytest.fixture
def shared(
    request: pytest.FixtureRequest, supply: Supply, shared_machines: dict[Wanted, Fresh]
) -> Guest:
    """A guest with the module loaded that the tests of one file share.

    For tests that only look: what one does to it, the next one finds. Each is still judged by
    what happened since the one before it was, and after a red one the next has a fresh guest.
    """
    wanted = supply.shape(request.node), True
    used = shared_machines.pop(wanted, None)
    give_back = partial(shared_machines.__setitem__, wanted)
    clone = _use(request.node, Used(used or supply.take(wanted), wanted, give_back))
    if used:  # what came after the last judgement, such as a timer's work, is not this test's
        _raise(_judge(request.node, "setup", None))
    return clone.guest


@pytest.fixture
def expect_splat(request: pytest.FixtureRequest) -> ExpectSplat:
    """``with expect_splat("warning", function="foo"):`` a report of the kernel is wanted.

    In a test that has two machines, ``guest`` says which of them.
    """
    expected: Expected = []
    request.node.stash[_EXPECTED] = expected

    def within(
        kind: str, function: str | None = None, *, guest: Guest | None = None
    ) -> AbstractContextManager[None]:
        clones = [used.fresh.clone for used in request.node.stash.get(_USED, [])]
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


@contextmanager
def expecting(
    machine: Machine, expected: Expected, kind: str, function: str | None = None
) -> Iterator[None]:
    """Expect a report of ``kind`` (klog.Kind) within; it is added to ``expected``.

    Fails the test when none comes, or none in ``function`` if one is named.
    """
    __tracebackhide__ = True
    machine.mark(patience(machine))
    start = len(machine.console_text())
    yield
    with suppress(MachineError):  # it may have been a panic that was wanted
        machine.mark(patience(machine))
    text = machine.console_text()
    wanted = Expectation(klog.Kind(kind), function, start, len(text))
    fired = klog.read(text[start:])
    if not any(wanted.covers(event, start) for event in fired):
        others = ", ".join(event.title for event in fired) or "nothing"
        where = f" in {function}" if function else ""
        pytest.fail(f"expected a {kind} report{where}; the kernel reported {others}")
    expected.append((machine, wanted))


def patience(machine: Machine) -> Deadline:
    """How long a healthy guest may take to answer."""
    return machine.patience(pool.MARK_SECONDS)


def load(guest: Guest, module: Module) -> None:
    """Load a module that was built on the host; its file stays in /root."""
    target = f"/root/{module.ko.name}"
    guest.put(module.loadable, target)
    guest.check(f"insmod {target}")


def text_sections(guest: Guest, module: Module) -> dict[str, str]:
    """Where a loaded module's code is: the addresses of its text sections, by their names.

    They are for debuggers, and for kmemleak's reports once the module is unloaded: the guest
    cannot be asked then. There may be no ``.text``, where all functions are __init or __exit,
    and none at all, where the kernel was built without CONFIG_KALLSYMS.
    """
    folder = f"/sys/module/{module.name}/sections"
    lines = guest.check(
        f"for file in {folder}/.*text*; do"
        ' if [ -f "$file" ]; then echo "${file##*/}:$(cat "$file")"; fi; done'
    )
    return dict(line.split(":", 1) for line in lines.splitlines())


# Keeps what a machine leaves that something is wrong with; says where, in lines for a report.
Leave = Callable[[Machine, Sequence[Problem]], str]


def loaded_template(
    lab: Lab, base: Template, module: Module, leave: Leave = lambda *_: ""
) -> Template:
    """``base`` with the module loaded; raises ``KernelProblem`` where that upsets the kernel."""
    loading = _Loading(module, leave)
    return templates.derive(
        base, module.name, {"module": module.digest}, loading.set_up, lab.cache, look=loading.look
    )


class _Loading:
    """Loads a module in a machine, and judges what comes of it until the machine is frozen."""

    def __init__(self, module: Module, leave: Leave) -> None:
        self._module = module
        self._leave = leave
        self._loaded: tuple[Machine, int, int]  # which; its taint before, and since when it counts

    def set_up(self, clone: Clone) -> Mapping[str, object]:
        machine = clone.machine
        taint = machine.mark(patience(machine))
        machine.take_inventory(patience(machine))
        # Where the machine could not be frozen it has just booted: that is not the module's.
        since = len(machine.console_text())
        failed: GuestError | None = None
        sections: dict[str, str] = {}
        try:
            load(clone.guest, self._module)
            sections = text_sections(clone.guest, self._module)
        except GuestError as error:  # as insmod's, if the kernel ends it; the kernel says why
            failed = error
        stuck = failed.command[0] if isinstance(failed, CommandTimeout) else ""
        self._judge(machine, evidence(machine, taint, since=since, timed_out=stuck), failed)
        if failed:
            raise failed
        self._loaded = machine, taint, since
        facts: dict[str, object] = {"sections": sections}
        return facts | ({"text": sections[".text"]} if ".text" in sections else {})

    def look(self, taint: int | None) -> None:
        """What a module has only begun, such as a thread, goes on when loading is done."""
        machine, before, since = self._loaded
        seen = Evidence(
            console=machine.console_text()[since:],
            taint_before=before,
            taint_after=taint,
            panicked=machine.panicked,
            running=taint is not None,
            unread=machine.console_unread,
            full=machine.console_full,
            stalls=tuple((start - since, seconds) for start, seconds in machine.stalls),
        )
        self._judge(machine, seen, None)

    def _judge(self, machine: Machine, seen: Evidence, failed: GuestError | None) -> None:
        problems = verdict.judge(seen)
        if problems:
            kept = self._leave(machine, problems)
            raise KernelProblem(symbols.explain(problems, self._module), kept) from failed


# -- verdicts ----------------------------------------------------------------------


class KernelProblem(AssertionError):
    """The kernel, not the test, says that something is wrong.

    ``kept`` says where what the machine has left is, unless that is in the test's report already.
    """

    def __init__(self, problems: Sequence[Problem], kept: str = "") -> None:
        self.problems = tuple(problems)
        self.kept = kept
        lines = []
        for problem in problems:
            lines.append(str(problem))
            detail = problem.detail.replace(f"{INSIDE}/", "")
            lines += [f"    {line}" for line in detail.splitlines()]
        super().__init__("\n".join(lines))


# How a test or a fixture may end of its own accord; for pytest, only the first is an Exception.
_ENDINGS = (Exception, pytest.fail.Exception, pytest.skip.Exception)


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
    try:
        result = yield
    except _ENDINGS as error:
        _blame(item, "call", error)
        raise
    _blame(item, "call", None)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """A fixture that fails in a guest is explained by its machine, as a test is."""
    __tracebackhide__ = True
    try:
        return (yield)
    except KernelProblem as error:  # which a fixture has found
        for used in item.stash.get(_USED, []):
            used.red = True
        if error.kept:
            item.add_report_section("setup", "evidence", error.kept)
        raise
    except _ENDINGS as error:
        _blame(item, "setup", error)
        raise


def _blame(item: pytest.Item, when: str, ending: BaseException | None) -> None:
    """Raise what is wrong with a test's machines. One that skips does not fail by that."""
    __tracebackhide__ = True
    failure = None if isinstance(ending, pytest.skip.Exception) else ending
    _raise(_judge(item, when, failure), ending)


def _raise(problems: Sequence[Problem], cause: BaseException | None = None) -> None:
    __tracebackhide__ = True
    if problems:
        raise KernelProblem(problems) from cause


def _judge(
    item: pytest.Item, when: str, failure: BaseException | None, *, last: bool = False
) -> list[Problem]:
    """What is wrong with the machines of a test, ``failure`` being what it says itself.

    What is judged next is what comes after this. ``last``: no judgement follows for the test.
    """
    supply = item.config.stash.get(_SUPPLY, None)
    timed_out = failure.command[0] if isinstance(failure, CommandTimeout) else ""
    found: list[Problem] = []
    # Only what has been built has been loaded.
    built = vars(supply).get("module") if supply else None
    machines = item.stash.get(_USED, [])
    for place, used in enumerate(machines):
        if used.silent:
            continue
        fresh, machine = used.fresh, used.fresh.clone.machine
        expected = tuple(one for of, one in item.stash.get(_EXPECTED, []) if of is machine)
        seen = evidence(
            machine, fresh.taint, since=fresh.since, timed_out=timed_out, expected=expected,
            last=last and not used.give_back,
        )  # fmt: skip
        problems = [
            problem
            for problem in verdict.judge(with_names(seen, fresh, built) if built else seen)
            # What the module has left behind it leaves behind at each judgement.
            if problem.verdict is not Verdict.RESIDUE or problem.title not in used.told
        ]
        used.told.update(problem.title for problem in problems)
        if failure or problems:
            kept = _keep(item, supply, used, problems, place) if supply else ""
            item.add_report_section(when, "evidence", kept)
            used.red = True
        found += symbols.explain(problems, built) if built and problems else problems
        if seen.taint_after is None:
            used.silent = True
        else:
            now = fresh.since + len(seen.console)
            used.fresh = replace(fresh, taint=seen.taint_after, since=now)
    return found


def evidence(
    machine: Machine,
    taint_before: int,
    *,
    since: int = 0,
    timed_out: str = "",
    expected: tuple[Expectation, ...] = (),
    last: bool = False,
) -> Evidence:
    """Ask a machine how it is, whatever its state; its console counts from ``since`` on.

    ``last``: nobody uses the machine after this, so its processes may be ended.
    """
    taint = moving = left = None
    busy: tuple[str, ...] = ()
    stacks = leaks = fault = ""
    if machine.running and not machine.panicked:
        try:
            taint = machine.mark(patience(machine))
            if timed_out:
                stacks = machine.stacks(patience(machine))
            found = machine.leftovers(patience(machine))
            if found.mixed and last:
                found = machine.leftovers(patience(machine), end=True)
                taint = machine.mark(patience(machine))  # what unloading has brought up
                busy = found.busy
            if not found.loaded:
                left = found.names
                leaks = machine.leaks(patience(machine))
        except MachineError as error:
            taint = None
            if isinstance(error, HostError):
                fault = str(error)
            with suppress(MachineError, OSError):  # QEMU may end meanwhile
                moving = machine.spins()
    return Evidence(
        console=machine.console_text()[since:],
        taint_before=taint_before,
        taint_after=taint,
        panicked=machine.panicked,
        running=machine.running,
        timed_out=timed_out,
        moving=moving,
        expected=tuple(
            replace(one, start=one.start - since, end=one.end - since) for one in expected
        ),
        left=left,
        busy=busy,
        unread=machine.console_unread,
        fault=fault or machine.fault,
        full=machine.console_full,
        stacks=stacks,
        leaks=leaks,
        stalls=tuple((start - since, seconds) for start, seconds in machine.stalls),
    )


def with_names(seen: Evidence, fresh: Fresh, module: Module) -> Evidence:
    """The evidence with the names of a module's functions where kmemleak has only addresses.

    It looks only when the module is unloaded, and then the kernel does not know them any more.
    They are those of the template's module: one that was loaded anew is usually where it was.
    """
    if not seen.leaks or "sections" not in fresh.facts:
        return seen
    try:
        known = symbols.functions(module.kernel.sysroot, module.ko)
    except HarnessError as error:
        log.warning("kmemleak's report has no names: %s", error)
        return seen
    return replace(
        seen, leaks=symbols.named(seen.leaks, known, fresh.facts["sections"], module.name)
    )


def _keep(
    item: pytest.Item, supply: Supply, used: Used, problems: Sequence[Problem], place: int
) -> str:
    """Copy what the machine leaves to where people find it, and say where that is.

    ``place`` is that of the machine among the test's, from 0.
    """
    # Of several machines, each has a folder of its own, and so has each judgement.
    number = f"-{place + 1}" if place else ""
    again = f"-again-{used.saved}" if used.saved else ""
    used.saved += 1
    name = f"{store.folder_name(item.nodeid)}{number}{again}"
    about = {}
    facts = used.fresh.facts
    if "text" in facts:
        about = {"module": str(supply.module.ko), "text": facts["text"]}
    return _leave(item.config, supply.lab, used.fresh.clone.machine, problems, name, about)


def _run_folder(config: pytest.Config, lab: Lab) -> Path:
    """This run's folder, the same for all its processes; it is made when it is first needed.

    It is held until the process ends, so that no other run removes it.
    """
    if _RUN not in config.stash:
        given = config.getoption("--results")
        if given:
            run = Run(Path(given))
        else:
            run = store.begin(lab.kernel.name, whole=False, name=config.stash[RUN])
        config.stash[_RUN] = run
        config.add_cleanup(run.close)
    return config.stash[_RUN].folder


def _leave(
    config: pytest.Config,
    lab: Lab,
    machine: Machine,
    problems: Sequence[Problem],
    name: str,
    loaded: Mapping[str, object],
) -> str:
    """The same, in a folder ``name`` of this run's. A machine that was alive runs on.

    ``loaded``: what a debugger needs to know of the module, where it has been loaded.
    """
    try:
        run = _run_folder(config, lab)
        folder = store.make_folder(run, name)
        (folder / "console.log").write_text(printable(machine.console_text()))
    except OSError as error:  # such as a full disk, which is not to hide why a test is red
        return f"(nothing could be kept: {error})"
    said = [f"console: {os.path.relpath(folder / 'console.log')}"]
    stuck = {Verdict.PANIC, Verdict.LOST, Verdict.HUNG} & {problem.verdict for problem in problems}
    alive = not {Verdict.PANIC, Verdict.LOST} & stuck
    if not machine.running:
        return "\n".join(said)
    shown = os.path.relpath(folder)
    try:
        if stuck:
            (folder / "registers.txt").write_text(machine.registers(Deadline(DUMP_SECONDS)))
            said.append(f"registers: {shown}/registers.txt")
        place = store.claim(run, SCENES)
        if place is None:
            said.append(f"(its machine is not kept: those of {SCENES} other red tests are)")
            return "\n".join(said)
        if stuck:
            machine.dump(folder / "memory.kdump", Deadline(DUMP_SECONDS))
            said.append(f"memory, for crash or drgn: {shown}/memory.kdump")
        about = {**loaded, "vmlinux": str(lab.kernel.vmlinux or "")}
        try:
            scene.save(machine, lab.image.keys, folder, Deadline(DUMP_SECONDS), about)
        finally:
            # Fixtures that clean up in the guest need it to run, also where saving has failed.
            if alive:
                machine.go_on(Deadline(DUMP_SECONDS))
        reopen = f"invoke shell --resume {shlex.quote(shown)}"
        said.append(f"to stand in this machine: {reopen}{'' if alive else ' --debugger'}")
        if config.getoption("--keep") and place == 0:
            hold = [sys.executable, "-m", "harness.shell", str(folder)]
            pid, line = proc.leave_running(
                hold, log=folder / "keep.log", deadline=Deadline(DUMP_SECONDS)
            )
            said.append(f"this machine runs on: {line}\n    `kill {pid}` ends it")
    except (HarnessError, OSError) as error:
        what = error.what if isinstance(error, HarnessError) else error
        said.append(f"(the machine could not be saved: {what})")
    return "\n".join(said)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the harness or the kernel can explain needs no Python traceback.

    Runs around pytest's own handling of xfail (hence ``tryfirst``), to undo it where the error
    is not the test's: a mark of the test excuses neither the kernel nor the host.
    """
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, BaseExceptionGroup):  # several finalizers have failed
        error = _kernel_problem_in(error) or error
    if isinstance(error, (KernelProblem, HostError)):
        report.outcome = "failed"
        vars(report).pop("wasxfail", None)
    if report.failed and error is not None and _by_host(error):
        vars(report)[BY_HOST] = True
    if isinstance(error, (HarnessError, KernelProblem)):
        cause = error.__cause__
        before = (
            f"{type(cause).__name__}: {cause}\n\n"
            if isinstance(error, KernelProblem) and cause
            else ""
        )
        report.longrepr = printable(f"{error}\n\n{before}".rstrip())
    return report


def _kernel_problem_in(group: BaseExceptionGroup[BaseException]) -> KernelProblem | None:
    """The first ``KernelProblem`` of a group; the rest of the group becomes its cause."""
    found, rest = group.split(KernelProblem)
    first: BaseException | None = found
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if not isinstance(first, KernelProblem):
        return None
    # Of a single other one its own words are shown, rather than those of a group.
    other = rest.exceptions[0] if rest is not None and len(rest.exceptions) == 1 else rest
    first.__cause__ = first.__cause__ or other
    return first


# What a test ends with whose guest is gone.
_GONE = (HostError, MachineError, GuestLost, pytest.skip.Exception, type(None))


def _by_host(error: BaseException) -> bool:
    """Whether a test is red by the host's doing, and by nothing else."""
    if isinstance(error, KernelProblem):
        host = all(problem.verdict is Verdict.HOST_FAULT for problem in error.problems)
        return host and isinstance(error.__cause__, _GONE)
    return isinstance(error, HostError)
