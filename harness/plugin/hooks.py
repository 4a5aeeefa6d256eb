# SPDX-License-Identifier: GPL-2.0-only
"""What the plugin does at each step of a test: it judges, and it reports what it found."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator
from dataclasses import asdict

import pytest

from harness.config import PROJECT
from harness.errors import GuestError, GuestLost, HarnessError, HostError, MachineError, Status
from harness.examine import excerpts, symbols
from harness.host.cache import changes
from harness.host.text import printable
from harness.judge.problem import KernelProblem
from harness.plugin import (
    BY_HOST,
    CACHE_CHANGES,
    COVERAGE,
    GOES_ON,
    LATE_NOTES,
    TESTED,
    UNMET,
    WAITS_FOR,
)
from harness.plugin.fixtures import make_first
from harness.plugin.judging import blame
from harness.plugin.late import goes_on, report_late
from harness.plugin.supply import SOURCE, USED
from harness.report import junit
from harness.runs import pytest_process

_NEXT = pytest.StashKey["pytest.Item | None"]()
_SETUP = pytest.StashKey["pytest.CallInfo[None]"]()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(ExitWatch(config))


class ExitWatch:
    """Takes the place of os._exit(), which a test may call: says what is lost, and is never green.

    The process would end without a summary, and mostly with 0, which is green for whoever has
    started it. So it ends with ``Status.OURS``. A worker of pytest-xdist needs no such thing: the
    process that has handed out its tests notices its end.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._process = os.getpid()
        self._running = ""
        self._exit = os._exit
        os._exit = self._end  # type: ignore[assignment]  # mypy: it never returns, either
        config.add_cleanup(self._restore)

    def _restore(self) -> None:
        os._exit = self._exit

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running = nodeid

    def pytest_runtest_logfinish(self) -> None:
        self._running = ""

    def _end(self, status: int) -> None:
        if os.getpid() != self._process:  # a forked child's way to end
            self._exit(status)
        with contextlib.suppress(Exception):  # the process has to end in any case
            self._say(status)
        self._exit(Status.OURS)

    def _say(self, status: int) -> None:
        where = f" while it ran {self._running}" if self._running else ""
        lost = pytest_process.not_judged(goes_on(self._config))
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            writer = self._config.get_terminal_writer()
            writer.line()
            writer.line(
                f"os._exit({status}) was called{where}, which ends pytest at once: it has no "
                f"result{lost}"
            )
            writer.flush()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep what the summary shows; a worker of pytest-xdist sends it to the process that prints."""
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["unmet"] = session.config.stash.get(UNMET, {})
        told["changes"] = changes()
        told["late"] = session.config.stash.get(LATE_NOTES, [])
        if TESTED in session.config.stash:
            told["tested"] = asdict(session.config.stash[TESTED])
        told["coverage"] = str(session.config.stash.get(COVERAGE, ""))
    else:
        session.config.stash[CACHE_CHANGES] = changes()


# What a test or a fixture may raise; pytest's own are no subclasses of Exception.
_ENDINGS = (Exception, pytest.fail.Exception, pytest.skip.Exception)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    report_late(item.config)
    item.stash[_NEXT] = nextitem


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Make the first test's machine early; at the end, wait for all late judgements.

    The first machine is made while the task that has started this pytest builds the module.
    """
    if WAITS_FOR in session.config.stash and session.items:
        make_first(session.items[0])
    ends = (pytest.Session.Failed, pytest.Session.Interrupted, pytest.exit.Exception)
    try:
        result = yield
    except ends:  # such as with -x. After Ctrl-C nobody wants to wait
        report_late(session.config, wait=True)
        raise
    report_late(session.config, wait=True)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Judge the machines after the test; during it, make the machine for the next test."""
    __tracebackhide__ = True
    source = item.config.stash.get(SOURCE, None)
    if source:
        source.prepare(item.stash[_NEXT])
    try:
        result = yield
    except _ENDINGS as error:
        blame(item, "call", error)
        raise
    blame(item, "call", None)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Judge the machines after a fixture that failed, since the guest may explain it."""
    __tracebackhide__ = True
    try:
        return (yield)
    except KernelProblem as error:  # raised by a fixture, which has judged
        for used in item.stash.get(USED, []):
            used.red = True
        if error.kept:
            item.add_report_section("setup", "evidence", error.kept)
        raise
    except _ENDINGS as error:
        blame(item, "setup", error)
        raise


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Replace tracebacks by explanations, and make red what a mark xfail must not excuse.

    Runs around pytest's own handling of xfail (hence ``tryfirst``), to undo it where the error
    is not the test's: a mark of the test excuses neither the kernel nor the host, nor that there
    was nothing to test because the module does not build or no machine came up.
    """
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, BaseExceptionGroup):  # several finalizers have failed
        error = _kernel_problem_in(error) or error
    if isinstance(error, KernelProblem):
        _note_source(item, error)
    _note_times(item, call)
    report = yield
    vars(report)[GOES_ON] = goes_on(item.config)
    if isinstance(error, (KernelProblem, HostError)) or _untried(call, error):
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
        report.longrepr = printable(f"{error}\n\n{_with_lines(item, before)}".rstrip())
    elif report.failed and isinstance(error, (AssertionError, pytest.fail.Exception)):
        said = str(report.longrepr)
        told = _with_lines(item, said)
        report.longrepr = printable(told) if told != said else report.longrepr
    return report


def _with_lines(item: pytest.Item, said: str) -> str:
    """A test's message, with file:line for the module's functions in stacks that it shows."""
    source = item.config.stash.get(SOURCE, None)
    module = source.built if source else None
    return symbols.with_lines(said, module) if module else said


def _note_times(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Put into the JUnit file when the test began, how long its set-up took, and its file."""
    if call.when == "setup":
        item.stash[_SETUP] = call
    elif call.when == "teardown" and (setup := item.stash.get(_SETUP, None)):
        worker = getattr(item.config, "workerinput", {}).get("workerid", "")
        said = junit.run_value(setup.start, setup.duration, worker, _place(item))
        item.user_properties.append((junit.RUN, said))


def _place(item: pytest.Item) -> str:
    """The path of a test's file: relative for this project's tests, absolute for others.

    The command that runs one of those again may be typed in any folder.
    """
    if not item.path.is_relative_to(PROJECT):
        return str(item.path)
    return os.path.relpath(item.path, item.config.invocation_params.dir)


def _untried(call: pytest.CallInfo[None], error: BaseException | None) -> bool:
    """Whether the harness has failed to set a test up, so that nothing is known of its subject.

    An error in the guest (``GuestError``) is not meant: the mark xfail may be about that.
    """
    return (
        call.when == "setup"
        and isinstance(error, HarnessError)
        and not isinstance(error, GuestError)
    )


def _note_source(item: pytest.Item, error: KernelProblem) -> None:
    """Put the lines of the module's source that are to blame into the JUnit file."""
    source = item.config.stash.get(SOURCE, None)
    folder = source.built.source.folder if source and source.built else None
    found = excerpts.of(error.problems, folder) if folder else []
    if found:
        said = json.dumps([asdict(one) for one in found])
        item.user_properties.append((junit.EXCERPTS, said))


def _kernel_problem_in(group: BaseExceptionGroup[BaseException]) -> KernelProblem | None:
    """The first ``KernelProblem`` of a group; the rest of the group becomes its cause."""
    found, rest = group.split(KernelProblem)
    first: BaseException | None = found
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if not isinstance(first, KernelProblem):
        return None
    # If there is one other error, its own message is shown instead of the group's.
    other = rest.exceptions[0] if rest is not None and len(rest.exceptions) == 1 else rest
    first.__cause__ = first.__cause__ or other
    return first


# What a test may raise because its guest is gone.
_GONE = (HostError, MachineError, GuestLost, pytest.skip.Exception, type(None))


def _by_host(error: BaseException) -> bool:
    """Whether a test is red because of the host alone."""
    if isinstance(error, KernelProblem):
        return error.by_host and isinstance(error.__cause__, _GONE)
    return isinstance(error, HostError)
