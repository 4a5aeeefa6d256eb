# SPDX-License-Identifier: GPL-2.0-only
"""For a pytest that a person has started: says what is being done, and writes the page of results.

`invoke test-vm` starts a pytest itself. It says what it does before, and writes the page when that
has ended. This is for every other one, such as pytest in the repository of somebody's module.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
from _pytest.junitxml import LogXML

from harness.build import source as sources
from harness.config import IS_CHECKOUT, MODULE, SUITES, equipment
from harness.errors import HarnessError, InputError, Status
from harness.host import progress
from harness.plugin import RUN, TESTED, Tested, expand, module_of
from harness.report import table
from harness.report.junit import cases_in
from harness.report.result import Cell, KernelResult, Step
from harness.runs import identity, store
from harness.runs.store import Run

# How a run ends of which all tests have run. pytest's own are those of pytest.ExitCode.
_WHOLE = {
    pytest.ExitCode.OK: Status.GREEN,
    pytest.ExitCode.TESTS_FAILED: Status.RED,
    Status.HOST: Status.HOST,
}
_HOW = {"boot": Cell(False, "ok")}  # else no test would have had a machine


class _Junit(LogXML):
    """pytest's own writer of JUnit files, which writes when it is told to."""

    def pytest_sessionfinish(self) -> None:
        """Not yet: it is not known whether there is anything to write."""

    def pytest_terminal_summary(self) -> None:  # type: ignore[override]  # no file to speak of
        """Nothing."""

    def write(self, run: Run) -> str:
        """Write what was heard so far into a run's folder; the text."""
        self.logfile = str(run.junit)
        super().pytest_sessionfinish()
        expand(run.junit)
        return run.junit.read_text("utf-8")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Page(config))


def _prepare() -> None:
    """Import what makes the page, and prepare it, while a test waits for its guest.

    That takes a tenth of a second.
    """
    from harness.report import page  # noqa: PLC0415
    from harness.runs import pages  # noqa: F401, PLC0415

    page.prepare()


class Page:
    """Says what begins, hears of each test, and writes the page if one of them had a machine."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._junit = _Junit("unused", None, family="xunit2")
        config.pluginmanager.register(self._junit)
        self._began = time.time()
        self._said = ""
        self._files: set[Path] = set()  # in which the tests are
        self._prepares: threading.Thread | None = None

        progress.listen(self._say)
        config.add_cleanup(lambda: progress.listen(None))
        ends = ExitStack()
        self._done = ends.enter_context(progress.recorded())
        config.add_cleanup(ends.close)

    def _say(self, what: str) -> None:
        """Print what begins, although pytest keeps what tests and their fixtures print."""
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        # Another thread would change what the test of this moment prints to.
        if threading.current_thread() is not threading.main_thread() or terminal is None:
            return
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            terminal.ensure_newline()
            terminal.write_line(what)

    def pytest_report_header(self) -> str | None:
        """Say which module the tests get, also where nobody has named one."""
        try:
            named = module_of(self._config)
        except InputError:  # of which only tests that want one need hear
            return None
        default = " (the default; --module DIR is another one)" if self._is_default(named) else ""
        return f"module under test: {named}{default}"

    @staticmethod
    def _is_default(named: str) -> bool:
        return IS_CHECKOUT and named == str(MODULE)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._files.add(self._config.rootpath / nodeid.partition("::")[0])

    def pytest_runtest_logreport(self) -> None:
        if self._prepares is None and TESTED in self._config.stash:  # there is something to show
            self._prepares = threading.Thread(target=_prepare, name="harness-page")
            self._prepares.start()
            self._config.add_cleanup(self._prepares.join)

    @pytest.hookimpl(trylast=True)  # after what gives the run its status
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        tested = self._config.stash.get(TESTED, None)
        status = _WHOLE.get(int(session.exitstatus))  # type: ignore[call-overload]
        if tested is None or status is None:
            return
        try:
            self._said = self._write(tested, status)
        except (HarnessError, OSError, ValueError) as error:  # the tests' own result stands
            self._said = f"there is no page of the results: {error}"

    def _write(self, tested: Tested, status: Status) -> str:
        from harness.runs import pages  # noqa: PLC0415  # see _prepare

        with store.begin(tested.kernel, whole=False, name=self._config.stash[RUN]) as run:
            with store.writing():
                tests = cases_in(self._junit.write(run))
            cells = table.suite_cells(tests, (*SUITES, table.OWN))
            how = _HOW | ({"build": Cell(False, "ok")} if tested.module else {})
            result = KernelResult(
                tested.kernel, tested.release, tested.version, status, time.time(), 0.0,
                time.time() - self._began, {**how, **cells}, tuple(tests),
                module=tested.module, harness=identity.of(self._files, self._options()),
                given=self._given(), steps=tuple(Step(*one) for one in self._done),
            )  # fmt: skip
            store.write(run, result, whole=False)
            return f"the page of results: {os.path.relpath(pages.write([result]))}"

    def _given(self) -> tuple[str, ...]:
        """The options that have the same module tested again, wherever that is asked for."""
        option, named = self._config.getoption, module_of(self._config)
        module = sources.parse(named, option("--ko"), option("kernel_param"))
        wanted = equipment(option("kernel_device"), option("kernel_guest_packages"))
        given = [*module.arguments(), *wanted.arguments()]
        # Of this project's own module as it is nothing need be said.
        usual = self._is_default(named) and len(given) == 1
        return () if usual else tuple(given)

    def _options(self) -> list[str]:
        """The options that decide how tests go, for ``identity.of``."""
        names = ("kernel_device", "kernel_guest_packages", "kernel_record", "kernel_coverage")
        return [f"{self._config.getoption(name)}" for name in names]

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._said:
            terminalreporter.write_line(self._said)
