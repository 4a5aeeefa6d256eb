# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: its options, what a run says of the tests that it put aside, and how it
ends where only the host is to blame.

The rest of it is harness/plugin/select.py, fixtures.py and hooks.py, which take a quarter of a
second to import. A pytest that only hands out tests to the workers of pytest-xdist does without.
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

from harness.config import IS_CHECKOUT, MODULE, PROJECT, Matrix, load, show_from, work_in
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
# How many tests a kernel cannot show, by what it lacks: "with OPTION" or "without OPTION".
UNMET = pytest.StashKey[dict[str, int]]()
# The name of this run's folder in results/KERNEL/, the same in all processes of pytest-xdist.
RUN = pytest.StashKey[str]()
# What was made again in the cache, or removed from it, while the tests ran (cache.changes()).
CACHE_CHANGES = pytest.StashKey[list[str]]()
# Machines whose ten minutes after the test were not waited for to the end, a sentence each.
LATE_NOTES = pytest.StashKey[list[str]]()
# What the report of a red test has if the host is to blame and nothing else. pytest-xdist sends
# all that a report has, and says itself which test a worker has died in.
BY_HOST = "eudyptula_by_host"
# What each report of a worker has: the tests that are over, and whose machines still go on there.
GOES_ON = "eudyptula_goes_on"
_GOES_ON_IN = pytest.StashKey[dict[str, list[str]]]()  # the last such list of each worker
_TOLD_RUN = "eudyptula_run"
# What the process that started this pytest has checked of the cache (Cache.vouch()).
_CHECKED = pytest.StashKey[str]()
_TOLD_CHECKED = "eudyptula_checked"
# From where whoever has started this pytest sees the paths that it names.
_SHOWN_FROM = pytest.StashKey[str]()
_TOLD_SHOWN_FROM = "eudyptula_shown_from"
# Where that process says that all is ready, as long as that is not known.
WAITS_FOR = pytest.StashKey[TextIO]()
_WHY = 300  # characters of the reason that is named with a red test
_TELLS = "eudyptula_tells"
_HOST_ONLY = pytest.StashKey[bool]()


# The marks, each with its arguments, as `pytest --markers` shows it.
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

    Other plugins have options named --profile or --config too, and pytest does not start with two
    of the same name. So most have a long name that is this plugin's alone. The short one is there
    as well in this repository, where no such plugin is.
    """
    group = parser.getgroup("eudyptula", "Linux kernel modules in QEMU")
    here = Path.cwd().is_relative_to(PROJECT)

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
    """The folder that results are below: that of the ini file, or else the current one.

    pytest's own rootdir is, without an ini file, what the current folder and the tests have in
    common. That may be somebody's home.
    """
    return config.rootpath if config.inipath else config.invocation_params.dir


def module_of(config: pytest.Config) -> str:
    """The module under test as --module takes it; in the ini file, from where that stands.

    Raises ``InputError`` where nobody has named one, and this is not the project's own checkout.
    """
    asked: str | None = config.getoption("--module")
    told: str = config.getini("kernel_module")
    if asked is None and not told and not IS_CHECKOUT:
        raise InputError(
            "no module is named that is to be tested",
            hint='say kernel_module = "." in the ini file of pytest, or --module DIR',
        )
    if asked is not None or not told:
        return asked if asked is not None else str(MODULE)
    return told if told.startswith("deb:") else str(config.rootpath / told)


def matrix_of(config: pytest.Config) -> Matrix:
    """The kernels that there are: those of the repository that is tested, or this project's."""
    told: str = config.getini("kernel_matrix")
    return load(config.rootpath / told) if told else load()


def pytest_configure(config: pytest.Config) -> None:
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    if not hasattr(config, "workerinput"):
        _check_input(config)
    if not base_of(config).is_relative_to(PROJECT):
        config.add_cleanup(work_in(base_of(config)))
    results = config.getoption("kernel_results")
    if results and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Tells(results), _TELLS)
        config.pluginmanager.register(Names(config, results))
    written = getattr(config.option, "xmlpath", None)
    if written and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Expands(Path(written).absolute()))
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
    """Raise ``UsageError`` for a kernel or a module that is none: no test could run.

    Of a kernel that is only known by a number, the archive is asked later.
    """
    option = config.getoption
    try:
        if option("--kernel") is not None:
            chosen = matrix_of(config).select(
                option("--kernel"), option("kernel_profile"), option("kernel_config")
            )
            if len(chosen) != 1:
                raise InputError("pytest takes one kernel; `invoke test-vm` takes several")
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
    """Wait until the task that has started this pytest has made the kernel ready, if one has.

    Returns what it has checked of the cache. Nothing that a test starts is to find the variable.
    """
    told = os.environ.pop(pytest_process.WAITS, "")
    if not told:
        return ""
    config.stash[WAITS_FOR] = os.fdopen(int(told), encoding="utf-8")
    config.add_cleanup(config.stash[WAITS_FOR].close)
    return _told(config.stash[WAITS_FOR])


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Wait until that task has made ready all that is tested."""
    waits_for = session.config.stash.get(WAITS_FOR, None)
    if waits_for is not None:
        _told(waits_for)


def _told(waits_for: TextIO) -> str:
    line = waits_for.readline()
    if not line:
        raise pytest.UsageError("the task that has started this pytest has nothing to be tested")
    return line


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All workers of a run leave what they leave in one folder, and know what this one was told."""
    node.workerinput[_TOLD_RUN] = node.config.stash[RUN]
    node.workerinput[_TOLD_CHECKED] = node.config.stash[_CHECKED]
    node.workerinput[_TOLD_SHOWN_FROM] = node.config.stash[_SHOWN_FROM]


def _process_of(report: pytest.TestReport) -> str:
    """The worker of pytest-xdist that a report is of; "" where it is of this process."""
    node = getattr(report, "node", None)
    return node.gateway.id if node is not None else ""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what a worker of pytest-xdist has still to judge, in case that it dies."""
    node = getattr(report, "node", None)
    if node is not None and hasattr(report, GOES_ON):
        going_on = node.config.stash.setdefault(_GOES_ON_IN, {})
        going_on[_process_of(report)] = getattr(report, GOES_ON)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    """What a worker of pytest-xdist has to tell at its end; what is not known where it died."""
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
    # All workers collect the same tests, so that any one of them knows of all that is put aside.
    node.config.stash[UNMET] = told.get("unmet", {})
    node.config.stash.setdefault(CACHE_CHANGES, []).extend(told.get("changes", []))
    node.config.stash.setdefault(LATE_NOTES, []).extend(told.get("late", []))
    if told.get("tested"):
        node.config.stash[TESTED] = Tested(**told["tested"])
    if told.get("coverage"):
        node.config.stash[COVERAGE] = Path(told["coverage"])


@pytest.hookimpl(trylast=True)  # other plugins may find something red while the session ends
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give what pytest has no status for a status of its own, and say that this is the end."""
    config = session.config
    told = config.pluginmanager.get_plugin(_TELLS)
    crashed = isinstance(told, Tells) and bool(told.crashed)
    if session.exitstatus == pytest.ExitCode.INTERNAL_ERROR or crashed:
        session.exitstatus = Status.OURS
    elif session.exitstatus == pytest.ExitCode.OK and session.testsfailed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED  # pytest.exit(returncode=0) came later
    elif session.exitstatus == pytest.ExitCode.TESTS_FAILED and _only_by_host(session):
        session.exitstatus = Status.HOST
        config.stash[_HOST_ONLY] = True
    if isinstance(told, Tells):
        told.end(int(session.exitstatus))


def _only_by_host(session: pytest.Session) -> bool:
    """What the host lacks, or its killing QEMU, makes no kernel red."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return False
    red = [*reporter.stats.get("failed", ()), *reporter.stats.get("error", ())]
    # Whatever else pytest counts as failed is for some other reason.
    return len(red) == session.testsfailed and all(hasattr(one, BY_HOST) for one in red)


# What pytest itself raises for test files that cannot be imported.
_BY_PYTEST = pytest.Session.Interrupted


class Tells:
    """Tells the process that started this pytest which tests run, and how it ended.

    Only one process of a run does: with pytest-xdist the one that hands out the tests, which
    hears of the others' beginnings and ends. What cannot be written, as on a full disk, is
    missing, and so is never taken for green (harness/runs/pytest_process.py).
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
        told = pytest_process.Progress(
            tuple(self._running), tuple(self.crashed), status, code, going_on
        )
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            told.write(self._folder)

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
        # It has judged them; or it has died, which is an error of each of these tests.
        if self._going_on.pop(node.gateway.id, []):
            self._write()

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # It is also called for pytest.exit(), and after a test file that cannot be imported. No
        # person has wanted that, and not all tests have run.
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
    for report in sorted(reports, key=lambda one: one.skipped):  # what is red counts
        skipped_within = report.skipped and isinstance(report, pytest.SubtestReport)
        if not report.passed and not skipped_within:
            outcome = report.outcome
            if report.failed and report.when != "call":
                outcome = "error"
            reason = report.longrepr
            # That of a skipped test is where it was skipped, and why.
            said = reason[2] if isinstance(reason, tuple) else junit.first_line(str(reason or ""))
            why = beginning(said, _WHY)
            break
    return pytest_process.EndedTest(nodeid, outcome, sum(one.duration for one in reports), why)


class Names:
    """Names a red test, and why it is red, as soon as that is known.

    pytest itself explains it when all tests have run, which may take many minutes more. It is also
    written to a file, for the process that started this pytest: that one may be interrupted, or
    show nothing of what pytest prints.
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
        # pytest itself does not know of a line that pytest-xdist's letters stand on.
        if self._config.get_terminal_writer().width_of_current_line:
            terminal.write_line("")
        terminal.write_line(f"red: {line}")


class Expands:
    """Gives the tests of programs test cases of their own in the JUnit file that pytest writes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        yield
        expand(self._path)


def expand(path: Path) -> None:
    """Do that with a JUnit file, which stays as it is where that cannot be done."""
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
    # Workers of pytest-xdist come here, too, and others of them may still be at work.
    if folder is not None and not hasattr(config, "workerinput"):
        for line in covered.settle(folder).splitlines():
            terminalreporter.write_line(line)
    for lack, count in sorted(config.stash.get(UNMET, {}).items()):
        terminalreporter.write_line(f"not run: {count} test(s) {lack}")
