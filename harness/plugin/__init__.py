# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: its options and markers, what it tells the process that has started pytest,
what it adds to the summary, and its exit statuses.

All that tests use is in the other files of harness/plugin, which take a quarter of a second to
import. A pytest that only hands out tests to the workers of pytest-xdist does without them.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest

from harness.config import (
    IS_CHECKOUT,
    MODULE,
    PROJECT,
    KernelSpec,
    Matrix,
    has_short_options,
    load,
    show_from,
    work_in,
)
from harness.errors import InputError, Status
from harness.host import files
from harness.host.cache import believe
from harness.host.text import beginning
from harness.report import junit
from harness.runs import covered, pytest_process, store

# The folder with what ran of the module under test, where that was asked for.
COVERAGE = pytest.StashKey[Path]()


@dataclass(frozen=True)
class Tested:
    """The kernel whose machines tests have had: its name in the matrix, release and version.

    ``module`` stands for the module under test as it was built; it is empty where none was.
    """

    kernel: str
    release: str
    version: str
    module: str = ""


TESTED = pytest.StashKey[Tested]()
# How many tests are not run on a kernel, by what they need: "with OPTION" or "without OPTION".
UNMET = pytest.StashKey[dict[str, int]]()
# The name of this run's folder in results/KERNEL/, the same in all processes of pytest-xdist.
RUN = pytest.StashKey[str]()
# What was made again in the cache, or removed from it, while the tests ran (cache.changes()).
CACHE_CHANGES = pytest.StashKey[list[str]]()
# What is to be known of the ten minutes after tests that are green, a sentence each.
LATE_NOTES = pytest.StashKey[list[str]]()
# An attribute of the report of a red test: the host alone is to blame. pytest-xdist sends all
# attributes of a report from the worker.
BY_HOST = "eudyptula_by_host"
# An attribute of each report: the tests that have ended in its process, and whose machines are
# still to be judged (harness/plugin/late.py).
GOES_ON = "eudyptula_goes_on"
_GOES_ON_IN = pytest.StashKey[dict[str, list[str]]]()  # the last such list of each worker
_TOLD_RUN = "eudyptula_run"
# What the task that has started this pytest has checked of the cache (Cache.vouch()).
_CHECKED = pytest.StashKey[str]()
_TOLD_CHECKED = "eudyptula_checked"
# The folder in which that task was started: paths are shown as seen from there.
_SHOWN_FROM = pytest.StashKey[str]()
_TOLD_SHOWN_FROM = "eudyptula_shown_from"
# The pipe over which that task says what is ready (pytest_process.WAITS).
WAITS_FOR = pytest.StashKey[TextIO]()
_WHY = 300  # characters of the reason that is named with a red test
_PROGRESS_WRITER = "eudyptula_progress"
_HOST_ONLY = pytest.StashKey[bool]()


# The markers and their arguments, as `pytest --markers` shows them.
MARKS = (
    "machine(memory_mib=512, cpus=1, append=(), devices=(), clock='host'): the shape of this "
    "test's machine; append are kernel command line options, devices are QEMU's, as its "
    "-device takes them; with clock='ahead' the guest's time passes in its sleep "
    "(guest.pass_time)",
    "needs(config=None, without=None): the kernel must have the one option and must not have "
    "the other; elsewhere it is not run",
    "taint(*names): taints of the kernel that the test's modules may set: proprietary, "
    "staging, test, livepatch, auxiliary",
    "unrecorded: more may be allocated in the test than is recorded; what its modules lose is "
    "then not looked for",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of a run.

    pytest does not start if two plugins have an option of the same name, and others have --profile
    or --config. So most options begin with --kernel-. In this repository, where there is no such
    plugin, they have their short names as well.
    """
    group = parser.getgroup("eudyptula", "Linux kernel modules in QEMU")
    here = has_short_options()

    def add(name: str, **how: Any) -> None:
        names = [f"--kernel-{name}", *([f"--{name}"] if here else [])]
        group.addoption(*names, dest=f"kernel_{name.replace('-', '_')}", **how)

    group.addoption(
        "--kernel", metavar="NAME", help="the kernel to test on (default: the matrix's own)"
    )
    group.addoption(
        "--module",
        metavar="DIR",
        help="the folder of the module under test (default: the ini option kernel_module, or else "
        "module/)",
    )
    group.addoption(
        "--ko", metavar="NAME[,NAME]", help="of several modules, only these and what they need"
    )
    add("keep", action="store_true", help="leave the machine of the first red test running")
    add(
        "record",
        action="store_true",
        help="record each test's machine; a red one's recording is kept (docs/back-in-time.md)",
    )
    add(
        "coverage",
        action="store_true",
        help="say which lines of the module ran (docs/coverage.md)",
    )
    add(
        "machines",
        metavar="N",
        type=int,
        help="how many red tests leave their machine to be opened again (default: 5)",
    )
    add("profile", metavar="NAME", default="", help="what is added to a kernel tree's config")
    add("config", metavar="FILE", type=Path, help="a kernel tree's own config")
    add(
        "param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter for the module under test; may be given several times",
    )
    add(
        "device",
        metavar="NAME[,OPTION=VALUE]",
        action="append",
        default=[],
        help="a device of QEMU's for the machines; may be given several times",
    )
    add(
        "guest-packages",
        metavar="NAME[,NAME]",
        help="Debian packages to be put into the guest",
    )
    add(
        "hangs",
        metavar="SECONDS",
        type=float,
        help="skip the rest when tests that hang have taken so long (default: run them all)",
    )
    add(
        "results",
        metavar="DIR",
        type=Path,
        help="where red tests leave what there is to see (default: a new results/KERNEL/RUN)",
    )
    parser.addini("kernel_module", "the module under test, as --module takes it", "string")
    parser.addini(
        "kernel_matrix", "a kernels.toml of one's own (default: vm/kernels.toml)", "string"
    )


def base_of(config: pytest.Config) -> Path:
    """The folder below which results are kept: that of the ini file, or else the current one.

    Without an ini file pytest's own rootdir is the common parent of the tests and the current
    folder. That may be somebody's home.
    """
    return config.rootpath if config.inipath else config.invocation_params.dir


def module_of(config: pytest.Config) -> str:
    """The module under test, as --module takes it.

    It is that of the option --module, or else of the ini file, as seen from its folder. In the
    project's own checkout the default is module/. Raises ``InputError`` where nobody has named one.
    """
    asked: str | None = config.getoption("--module")
    in_ini: str = config.getini("kernel_module")
    if asked is None and not in_ini and not IS_CHECKOUT:
        raise InputError(
            "no module is named that is to be tested",
            hint='say kernel_module = "." in the ini file of pytest, or --module DIR',
        )
    if asked is not None or not in_ini:
        return asked if asked is not None else str(MODULE)
    return in_ini if in_ini.startswith("deb:") else str(config.rootpath / in_ini)


def matrix_of(config: pytest.Config) -> Matrix:
    """The kernels that there are: those of the repository that is tested, or this project's."""
    in_ini: str = config.getini("kernel_matrix")
    return load(config.rootpath / in_ini) if in_ini else load()


def kernel_of(config: pytest.Config, matrix: Matrix) -> KernelSpec:
    """The kernel under test; raises ``InputError`` where the options do not name just one."""
    option = config.getoption
    chosen = matrix.select(option("--kernel"), option("kernel_profile"), option("kernel_config"))
    if len(chosen) != 1:
        raise InputError("pytest takes one kernel; `invoke test-vm` takes several")
    return chosen[0]


def pytest_configure(config: pytest.Config) -> None:
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    if not hasattr(config, "workerinput"):
        _check_input(config)
    if not base_of(config).is_relative_to(PROJECT):
        config.add_cleanup(work_in(base_of(config)))
    results = config.getoption("kernel_results")
    if results and not hasattr(config, "workerinput"):
        config.pluginmanager.register(ProgressWriter(results), _PROGRESS_WRITER)
        config.pluginmanager.register(RedReporter(config, results))
    written = getattr(config.option, "xmlpath", None)
    if written and not hasattr(config, "workerinput"):
        config.pluginmanager.register(KtapExpander(Path(written).absolute()))
    told = getattr(config, "workerinput", {})
    if not results and not hasattr(config, "workerinput"):
        config.pluginmanager.import_plugin("harness.plugin.page")
    config.stash[RUN] = told.get(_TOLD_RUN) or store.new_name()
    config.stash[_CHECKED] = _await_kernel(config)
    believe(told.get(_TOLD_CHECKED) or config.stash[_CHECKED])
    config.stash[_SHOWN_FROM] = os.environ.pop(pytest_process.SHOWN_FROM, "")
    show_from(told.get(_TOLD_SHOWN_FROM) or config.stash[_SHOWN_FROM])
    atexit.register(gc.freeze)  # see tasks.py
    hands_out = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not hands_out:
        for name in ("select", "fixtures", "hooks", "hangs", "ktap"):
            config.pluginmanager.import_plugin(f"harness.plugin.{name}")


def _check_input(config: pytest.Config) -> None:
    """Raise ``UsageError`` for a kernel or a module that does not exist.

    That is before tests are collected. Whether the archive has a kernel that is given by its
    release is found out later.
    """
    option = config.getoption
    try:
        if option("--kernel") is not None:
            kernel_of(config, matrix_of(config))
        module: str | None = option("--module")
        if module is not None and not module.startswith("deb:") and not Path(module).exists():
            raise InputError(
                f"there is no module {module}",
                hint="--module takes the folder of a module's source, a finished .ko, or "
                "deb:PACKAGE",
            )
    except InputError as error:
        raise pytest.UsageError(str(error)) from error


def _await_kernel(config: pytest.Config) -> str:
    """Wait until the task that has started this pytest has made the kernel ready.

    Returns what the task has checked of the cache; "" where no task has asked this pytest to wait.
    """
    descriptor = os.environ.pop(pytest_process.WAITS, "")  # not for what tests start
    if not descriptor:
        return ""
    config.stash[WAITS_FOR] = os.fdopen(int(descriptor), encoding="utf-8")
    config.add_cleanup(config.stash[WAITS_FOR].close)
    return _line_from_task(config.stash[WAITS_FOR])


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Wait until that task has made everything ready, the module included."""
    waits_for = session.config.stash.get(WAITS_FOR, None)
    if waits_for is not None:
        _line_from_task(waits_for)


def _line_from_task(waits_for: TextIO) -> str:
    """The next line from the task; ``UsageError`` where it has given up."""
    line = waits_for.readline()
    if not line:
        raise pytest.UsageError("the task that has started this pytest has nothing to be tested")
    return line


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist the run's folder, and what the task has told this process."""
    node.workerinput[_TOLD_RUN] = node.config.stash[RUN]
    node.workerinput[_TOLD_CHECKED] = node.config.stash[_CHECKED]
    node.workerinput[_TOLD_SHOWN_FROM] = node.config.stash[_SHOWN_FROM]


def _process_of(report: pytest.TestReport) -> str:
    """The worker of pytest-xdist that a report comes from; "" for this process."""
    node = getattr(report, "node", None)
    return node.gateway.id if node is not None else ""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember which machines a worker of pytest-xdist has still to judge, in case it dies."""
    node = getattr(report, "node", None)
    if node is not None and hasattr(report, GOES_ON):
        going_on = node.config.stash.setdefault(_GOES_ON_IN, {})
        going_on[_process_of(report)] = getattr(report, GOES_ON)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    """Collect what a worker of pytest-xdist has found besides its reports.

    If it has died, the tests whose machines it had still to judge become red.
    """
    going_on = node.config.stash.get(_GOES_ON_IN, {}).pop(node.gateway.id, [])
    for nodeid in going_on if error else []:
        file, _, name = nodeid.partition("::")
        report = pytest.TestReport(
            nodeid=nodeid,
            location=(file, None, name),
            keywords={},
            outcome="failed",
            longrepr="The process that ran this test has died in a later one. So nobody knows "
            "what came in the ten minutes after this test. Run it once more.",
            when="teardown",
        )
        vars(report)["node"] = node
        node.config.hook.pytest_runtest_logreport(report=report)
    told = getattr(node, "workeroutput", {})
    # All workers collect the same tests, so that each of them knows of all tests that are not run.
    node.config.stash[UNMET] = told.get("unmet", {})
    node.config.stash.setdefault(CACHE_CHANGES, []).extend(told.get("changes", []))
    node.config.stash.setdefault(LATE_NOTES, []).extend(told.get("late", []))
    if told.get("tested"):
        node.config.stash[TESTED] = Tested(**told["tested"])
    if told.get("coverage"):
        node.config.stash[COVERAGE] = Path(told["coverage"])


@pytest.hookimpl(trylast=True)  # other plugins may find something red while the session ends
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Set the exit status of what pytest has none for, and write that the session has ended."""
    config = session.config
    writer = config.pluginmanager.get_plugin(_PROGRESS_WRITER)
    crashed = isinstance(writer, ProgressWriter) and bool(writer.crashed)
    if session.exitstatus == pytest.ExitCode.INTERNAL_ERROR or crashed:
        session.exitstatus = Status.OURS
    elif session.exitstatus == pytest.ExitCode.OK and session.testsfailed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED  # pytest.exit(returncode=0) came later
    elif session.exitstatus == pytest.ExitCode.TESTS_FAILED and _only_by_host(session):
        session.exitstatus = Status.HOST
        config.stash[_HOST_ONLY] = True
    if isinstance(writer, ProgressWriter):
        writer.end(int(session.exitstatus))


def _only_by_host(session: pytest.Session) -> bool:
    """Whether the host is to blame for all red tests: it lacks something, or has killed QEMU."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return False
    red = [*reporter.stats.get("failed", ()), *reporter.stats.get("error", ())]
    # pytest also counts failures that have no report here, such as files that it cannot collect.
    return len(red) == session.testsfailed and all(hasattr(one, BY_HOST) for one in red)


# What pytest raises after test files that cannot be imported; it is a KeyboardInterrupt, too.
_BY_PYTEST = pytest.Session.Interrupted


class ProgressWriter:
    """Writes down which tests run and how the session has ended, for the task that started pytest.

    With pytest-xdist only the process that hands out the tests does: it hears of the beginning and
    the end of each test. What cannot be written, as on a full disk, is missing for the reader,
    which never takes that for green (harness/runs/pytest_process.py).
    """

    def __init__(self, folder: Path) -> None:
        self.crashed: list[str] = []
        self._folder = folder
        self._running: dict[str, None] = {}  # a set that keeps the order
        self._reports: dict[str, list[pytest.TestReport]] = {}  # of the tests that run
        self._going_on: dict[str, list[str]] = {}  # what each process has still to judge
        self._interrupted = False
        self._given_up = False

    def _write(self, status: int | None = None, code: int | None = None) -> None:
        going_on = tuple(nodeid for each in self._going_on.values() for nodeid in each)
        written = pytest_process.Progress(
            tuple(self._running), tuple(self.crashed), status, code, going_on
        )
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            written.write(self._folder)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = None
        self._write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.setdefault(report.nodeid, []).append(report)
        going_on = getattr(report, GOES_ON, None)
        process = _process_of(report)
        if going_on is not None and going_on != self._going_on.get(process, []):
            self._going_on[process] = going_on
            self._write()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)
        with contextlib.suppress(OSError):
            pytest_process.add_ended(self._folder, _ended(nodeid, self._reports.pop(nodeid, [])))
        self._write()

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str) -> None:
        self.crashed.append(crashitem)
        self._running.pop(crashitem, None)
        self._reports.pop(crashitem, None)
        one = pytest_process.EndedTest(crashitem, "error", 0.0, "the process that ran it died")
        with contextlib.suppress(OSError):
            pytest_process.add_ended(self._folder, one)
        self._write()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # A worker that ends has judged all its machines; for one that has died see the hook above.
        if self._going_on.pop(node.gateway.id, []):
            self._write()

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # pytest calls it for pytest.exit() and after files that cannot be imported, too. Nobody has
        # interrupted the run then, but not all tests have run.
        error = excinfo.value
        person = isinstance(error, KeyboardInterrupt) and not isinstance(error, _BY_PYTEST)
        self._interrupted = person
        self._given_up = not self._interrupted

    def end(self, code: int) -> None:
        """``code`` is what pytest is going to end with."""
        codes: dict[int, Status] = {
            pytest.ExitCode.OK: Status.GREEN,
            pytest.ExitCode.USAGE_ERROR: Status.INPUT,
            pytest.ExitCode.NO_TESTS_COLLECTED: Status.INPUT,
            Status.HOST: Status.HOST,
            Status.OURS: Status.OURS,
        }
        status = codes.get(code, Status.RED)
        if self._interrupted:
            status = Status.INTERRUPTED
        elif self._given_up:
            status = Status.RED
        self._write(status, code)


def _ended(nodeid: str, reports: Sequence[pytest.TestReport]) -> pytest_process.EndedTest:
    """What a test has come to, by the reports of its parts: set-up, call and teardown."""
    outcome, why = "passed", ""
    for report in sorted(reports, key=lambda one: one.skipped):  # red parts before skipped ones
        skipped_within = report.skipped and isinstance(report, pytest.SubtestReport)
        if not report.passed and not skipped_within:
            outcome = report.outcome
            if report.failed and report.when != "call":
                outcome = "error"
            reason = report.longrepr
            # Of a skipped test it is a tuple: the file, the line and the reason.
            said = reason[2] if isinstance(reason, tuple) else junit.first_line(str(reason or ""))
            why = beginning(said, _WHY)
            break
    return pytest_process.EndedTest(nodeid, outcome, sum(one.duration for one in reports), why)


class RedReporter:
    """Prints the name of a red test, and why it is red, as soon as it has ended.

    pytest explains it only when all tests have run, which may take many minutes more. The line is
    also written to a file, for the task that has started pytest: it may be interrupted, or show
    nothing of what pytest prints.
    """

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self._config = config
        self._folder = folder

    @pytest.hookimpl(trylast=True)  # after pytest's own letter or line for the test
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        # With pytest-xdist, longreprtext begins with a line about the worker.
        why = beginning(junit.first_line(str(report.longrepr)), _WHY)
        line = f"{report.nodeid}: {why}"
        with contextlib.suppress(OSError):
            pytest_process.add_red(self._folder, line)
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        terminal.ensure_newline()
        # pytest does not know of the line with the letters of pytest-xdist.
        if self._config.get_terminal_writer().width_of_current_line:
            terminal.write_line("")
        terminal.write_line(f"red: {line}")


class KtapExpander:
    """Gives the KTAP tests of programs test cases of their own in pytest's JUnit file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        yield
        expand(self._path)


def expand(path: Path) -> None:
    """Give KTAP tests test cases of their own in a JUnit file; one that cannot be read stays."""
    with contextlib.suppress(OSError, ValueError):
        text = path.read_text("utf-8")
        if junit.KTAP in text:
            files.write(path, junit.expanded(text))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash.get(_HOST_ONLY, False):
        terminalreporter.write_line("only the host is to blame; nothing is known of the kernel")
    for change in config.stash.get(CACHE_CHANGES, []):
        terminalreporter.write_line(f"cache: {change}")
    for note in config.stash.get(LATE_NOTES, []):
        terminalreporter.write_line(f"late: {note}")
    folder = config.stash.get(COVERAGE, None)
    # Not in a worker of pytest-xdist: others may still be counting.
    if folder is not None and not hasattr(config, "workerinput"):
        for line in covered.settle(folder).splitlines():
            terminalreporter.write_line(line)
    for lack, count in sorted(config.stash.get(UNMET, {}).items()):
        terminalreporter.write_line(f"not run: {count} test(s) {lack}")
