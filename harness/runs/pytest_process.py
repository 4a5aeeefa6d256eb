# SPDX-License-Identifier: GPL-2.0-only
"""The one place that starts pytest: its arguments, its end, its interruption.

pytest's own exit status does not say enough. It is 3 for a fault of pytest's and 2 both for
Ctrl-C and for a test file that cannot be imported, and a test that calls ``os._exit(0)`` makes it
0. So the plugin (harness/plugin) writes down what has happened: the file ``progress.json`` in the
folder that ``--kernel-results`` names says which tests run at the moment, and, once the session has
come to its end, how that was. A pytest that does not say so has not tested anything for certain,
which is ``Status.OURS``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness import config
from harness.errors import InputError, Status
from harness.host import files, proc
from harness.host.proc import Deadline
from harness.host.progress import nobody_reads
from harness.host.text import listed, printable

PROGRESS = "progress.json"
# In the environment of a pytest that waits until all is ready: the descriptor of a pipe. Its first
# line says what need not be checked of the cache again (Cache.vouch()), and that tests can be
# collected and their first machine be made. The second one is BEGIN. Empty where it need not wait.
WAITS = "EUDYPTULA_WAITS"
BEGIN = "begin\n"
# In its environment: the folder from which the paths are seen that it names, which is not its own.
SHOWN_FROM = "EUDYPTULA_SHOWN_FROM"
RED = "red.txt"  # a line for each red test, in the order in which they ended
ENDED = "ended.jsonl"  # and for each test, as JSON
_ROUND_SECONDS = 0.5  # how often that file is looked at, where somebody wants to know at once
_NAMED = 20  # of the tests that were red, or not judged to their end, so many are named
# How long an interrupted pytest may take to end its machines, in seconds.
CLEANUP_SECONDS = 20.0
# After so many seconds in which no test has begun or ended, pytest itself is stuck: each test has
# a limit of its own (harness/plugin/select.py), of at most 20 minutes. A debug kernel boots in one.
SILENT_SECONDS = 3600.0


@dataclass(frozen=True)
class Progress:
    """What the plugin wrote: ``pytest`` and ``status`` are None until the session has ended.

    ``running``: the tests that run, by their full names; ``crashed``: those in which a worker of
    pytest-xdist died; ``status``: a task's status; ``pytest``: pytest's own, which the process
    is to end with; ``going_on``: the tests that are over, whose machines are still to be judged.
    """

    running: tuple[str, ...] = ()
    crashed: tuple[str, ...] = ()
    status: int | None = None
    pytest: int | None = None
    going_on: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Replace the file in ``folder``; nobody ever reads half of it."""
        files.write(folder / PROGRESS, json.dumps(vars(self)))


def progress(folder: Path) -> Progress | None:
    """The progress that the plugin has written in ``folder``; None if there is none."""
    try:
        text = json.loads((folder / PROGRESS).read_text())
        return Progress(
            tuple(text["running"]), tuple(text["crashed"]), text["status"], text["pytest"],
            tuple(text["going_on"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def add_red(folder: Path, line: str) -> None:
    """Note a red test, and why it is red; raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / RED).open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(printable(line).replace("\n", " ") + "\n")


def red(folder: Path) -> list[str]:
    """The tests that are red so far, each with why, in whole lines."""
    try:
        text = (folder / RED).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.split("\n")[:-1]


@dataclass(frozen=True)
class EndedTest:
    """A test that has ended: its full name, and otherwise what ``report.result.Case`` has."""

    test: str
    outcome: str
    seconds: float
    why: str = ""


def add_ended(folder: Path, one: EndedTest) -> None:
    """Note a test that has ended; raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ENDED).open("a", encoding="utf-8") as file:
        file.write(json.dumps(vars(one)) + "\n")


def ended(folder: Path) -> list[EndedTest]:
    """The tests that have ended so far, of those that are written to the end."""
    try:
        lines = (folder / ENDED).read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            match json.loads(line):
                case {"test": str(test), "outcome": str(outcome), "why": str(why),
                      "seconds": int() | float() as seconds}:  # fmt: skip
                    found.append(EndedTest(test, outcome, seconds, why))
    return found


@dataclass(frozen=True)
class Ended:
    """How a run of pytest ended.

    ``status`` is a task's (``errors.Status``); ``empty``: there was no test to run; ``why``: one
    sentence where pytest itself could not say what has happened.
    """

    status: int
    empty: bool = False
    why: str = ""


_EMPTY = 5  # pytest.ExitCode.NO_TESTS_COLLECTED
_USAGE = 4  # pytest.ExitCode.USAGE_ERROR


def judge(code: int, seen: Progress | None, *, silent: float | None = None) -> Ended:
    """How a pytest ended whose process ended with ``code``, minus a signal's number.

    ``silent``: it was ended after so many seconds without a sign of life.
    """
    seen = seen or Progress()
    tests = ", ".join(seen.crashed or seen.running)
    within = f" while it ran {tests}" if tests else ""
    lost = not_judged(seen.going_on)
    how = f"was ended by {_signal(-code)}" if code < 0 else f"ended with status {code}"
    if silent is not None:
        return Ended(
            Status.OURS, why=f"for {silent:.0f} s no test has begun or ended; pytest was "
            f"ended{within}{lost}"
        )  # fmt: skip
    if seen.status is None:
        if code == _USAGE and not within:  # it says itself what it does not understand
            return Ended(Status.INPUT, why="pytest did not accept its arguments")
        return Ended(Status.OURS, why=f"pytest {how}{within}, and has not told a result{lost}")
    if code != seen.pytest:
        return Ended(
            Status.OURS, why=f"pytest {how} when its tests were over (with status {seen.pytest})"
        )
    if seen.crashed:
        return Ended(Status.OURS, why=f"a process that runs tests died{within}")
    return Ended(seen.status, empty=code == _EMPTY)


def not_judged(going_on: Sequence[str]) -> str:
    """A part of a sentence on machines that pytest has not judged before it ended, or ""."""
    if not going_on:
        return ""
    return f"; nobody knows what came in the ten minutes after {listed(going_on, _NAMED)}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# A part of a test's name is an expression, whatever pytest's release. That is what is asked for
# mostly, and to import pytest for it takes a tenth of a second.
_A_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OPERATORS = ("and", "or", "not")


def check_filter(expression: str | None) -> None:
    """Raise ``InputError`` unless it is what pytest's -k takes.

    pytest-xdist's workers would each end with an internal error instead.
    """
    if not expression or (_A_NAME.fullmatch(expression) and expression not in _OPERATORS):
        return
    from _pytest.mark.expression import Expression  # noqa: PLC0415  # a fifth of a second

    try:
        Expression.compile(expression)
    except Exception as error:  # SyntaxError since pytest 9, a class of its own before
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise InputError(
            f"--filter {expression!r} is no expression: {reason}",
            hint="names and parts of names, joined by and, or, not and brackets",
        ) from error


class PytestProcess:
    """One run of pytest in a process of its own, which reports to the folder ``results``."""

    def __init__(
        self,
        arguments: Sequence[str],
        results: Path,
        *,
        verbose: bool = False,
        out: IO[bytes] | None = None,
        waits: bool = False,
    ) -> None:
        """Start it. ``out`` takes what it prints; else that goes where ours goes.

        One that ``waits`` imports what it needs, and tests nothing until ``begin``. Nor does it say
        anything until then, where somebody sees it.
        """
        self._results = results
        self._is_shown = out is None
        self._knows = False
        for name in (PROGRESS, RED, ENDED):
            (results / name).unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", *arguments, f"--kernel-results={results}"]
        command += ["-v"] if verbose else []
        waiting, self._go = os.pipe() if waits else (-1, -1)
        try:
            self._process = proc.popen(
                command,
                stdin=None if out is None else subprocess.DEVNULL,
                stdout=out,
                stderr=None if out is None else subprocess.STDOUT,
                env=os.environ | {WAITS: str(waiting) if waits else "", SHOWN_FROM: os.getcwd()},
                cwd=config.PROJECT,
                pass_fds=[waiting] if waits else [],
            )
        except BaseException:
            self._close()
            raise
        finally:
            if waits:
                os.close(waiting)
        self._began = time.time()

    def know(self, checked: str) -> None:
        """The kernel is ready, so that one that waits can collect its tests, and clone a machine.

        ``checked`` is what a cache vouches for that stays open. Where somebody sees what pytest
        prints, it goes on waiting: the module may not be built, and then nothing is tested.
        """
        if not self._is_shown:
            self._tell_it(checked)

    def begin(self, checked: str) -> None:
        """Have one that waits test; ``checked`` is as for ``know``."""
        self._began = time.time()
        self._tell_it(checked)
        self._write(BEGIN)
        self._close()

    def _tell_it(self, checked: str) -> None:
        if not self._knows:
            self._knows = True
            self._write(f"{checked}\n")

    def _write(self, line: str) -> None:
        # It may have ended meanwhile, as of arguments that it does not understand.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, line.encode())

    def give_up(self) -> None:
        """End one that waits: there is nothing that it could test."""
        self._close()
        if self._knows:  # it may have a machine, which it ends when it hears that nobody tells it
            self.join(CLEANUP_SECONDS)
        proc.kill(self._process)

    def _close(self) -> None:
        if self._go >= 0:
            os.close(self._go)
            self._go = -1

    def wait(
        self,
        meanwhile: Callable[[], object] = lambda: None,
        tell: Callable[[str], object] | None = None,
    ) -> Ended:
        """Wait for its end; when waiting is interrupted, so is pytest.

        ``meanwhile`` is something short to do while pytest begins. ``tell`` is called for each red
        test, with its name and why it is red, within a second. Raises ``BrokenPipeError`` where
        pytest ended without a result and nobody reads what it prints, as with `| head`.
        """
        silent = None
        told = 0
        try:
            meanwhile()
            while (left := self._moved() + SILENT_SECONDS - time.time()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(left if tell is None else min(left, _ROUND_SECONDS))
                    break
                told = self._tell(tell, told)
            else:
                silent = SILENT_SECONDS
                self.end()
            self._tell(tell, told)
        except KeyboardInterrupt as error:
            self.end()
            seen = progress(self._results)
            if seen and seen.running:
                error.add_note(f"this ran: {', '.join(seen.running)}")
            found = red(self._results)
            for line in found[:_NAMED]:
                error.add_note(f"red: {line}")
            if len(found) > _NAMED:
                error.add_note(f"and {len(found) - _NAMED} more were red")
            raise
        except BaseException:
            self.end()
            raise
        finally:
            proc.kill(self._process)
        ended = judge(self._process.returncode, progress(self._results), silent=silent)
        if ended.status == Status.OURS and self._is_shown and nobody_reads():
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return ended

    def _tell(self, tell: Callable[[str], object] | None, told: int) -> int:
        """Tell what is red by now, but for the first ``told``; how many have been told then."""
        if tell is None:
            return told
        found = red(self._results)
        for line in found[told:]:
            tell(line)
        return len(found)

    def _moved(self) -> float:
        """When a test began or ended last, in seconds since the epoch."""
        try:
            return max(self._began, (self._results / PROGRESS).stat().st_mtime)
        except OSError:
            return self._began

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does: it removes its machines itself."""
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGINT)

    def join(self, seconds: float) -> None:
        """Wait so long for its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def end(self) -> None:
        """Ask it to end, and end it where it does not do so in ``CLEANUP_SECONDS``."""
        self.interrupt()
        self.join(CLEANUP_SECONDS)
        proc.kill(self._process)


def end(running: Sequence[PytestProcess]) -> None:
    """End every pytest, each of which ends its machines itself if it gets the time for it."""
    for process in running:
        process.interrupt()
    deadline = Deadline(CLEANUP_SECONDS)
    for process in running:
        process.join(deadline.left)
    proc.end_all()


def run(
    arguments: Sequence[str],
    results: Path,
    *,
    verbose: bool = False,
    out: IO[bytes] | None = None,
    prepare: Callable[[Callable[[str], None]], str] | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Ended:
    """Run pytest to its end; see ``PytestProcess``.

    ``prepare`` makes ready what is tested while pytest imports what it needs, which takes as long.
    It is given what it may call once the kernel is ready (``PytestProcess.know``), and returns what
    a cache vouches for that stays open (``Cache.vouch``). What it raises passes through; pytest has
    tested nothing then, and nobody has seen a word of it.
    """
    process = PytestProcess(arguments, results, verbose=verbose, out=out, waits=bool(prepare))
    if prepare is not None:
        try:
            process.begin(prepare(process.know))
        except BaseException:
            process.give_up()
            raise
    return process.wait(meanwhile)


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
