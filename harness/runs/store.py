# SPDX-License-Identifier: GPL-2.0-only
"""Where the results of runs are kept: one folder for each run of one kernel.

::

    results/index.html        the page of the run that ended last; summary.md: its table
    results/KERNEL/
        RUN/                  one run; nobody else ever writes into it
            junit.xml         what pytest wrote
            pytest.log        what pytest printed (where several kernels are tested, or --quiet)
            red.txt           a line for each red test, as soon as it has ended
            ended.jsonl       the same for each test, as JSON
            report.json       the result: of all tests, or partial.json, of some of them
            kcidb.json        the same in the kernel community's form
            unfinished        a run of all tests has not come to its end, or is going on
            TEST/             what one red test has left: its console, its machine
        latest -> RUN         the run that began last
        history.jsonl         a line for each of the last runs, for the page
        report.json junit.xml     the last result of all tests, whichever run it is of
        partial.json partial.xml  the last result of some of the tests

RUN is the time at which the run began, in UTC, and a random number, so that two runs at the
same time have folders of their own and neither removes what the other has promised.

A run that begins removes old ones: all but the last ``RUNS``, and the last ``RUNS`` in which a test
has left something, and never one that is still going on. Whoever works in a folder of a run holds a
lock on it (flock(2)), which ends with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from harness import config
from harness.errors import refused
from harness.host import files
from harness.report import history, kcidb
from harness.report.history import Past
from harness.report.result import KernelResult, from_json, to_json

log = logging.getLogger(__name__)

# How many runs of a kernel are kept. A run may leave five machines of some 150 MB each.
RUNS = 5
LATEST = "latest"
KCIDB = "kcidb.json"
HISTORY = "history.jsonl"
GIVEN = "given.json"  # of a run, which module it is of
_UNFINISHED = "unfinished"
_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


class Run:
    """One run's folder, which is not removed while this is open. A context manager."""

    def __init__(self, folder: Path, *, whole: bool = False) -> None:
        """Make the folder if it is not there, and hold it.

        ``whole``: no test is left out, so that the result is the kernel's last one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.whole = whole
        self.junit = folder / "junit.xml"
        self.log = folder / "pytest.log"
        self._held: int | None = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._held, fcntl.LOCK_SH)

    def close(self) -> None:
        """From now on a later run may remove the folder."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def new_name() -> str:
    """A name for a run that no other run has; they sort by the time at which they began."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def given_to(run: Path) -> tuple[str, ...]:
    """The options that named the module of a run, if they can be read."""
    try:
        given = json.loads((run / GIVEN).read_text("utf-8"))
        return tuple(one for one in given if isinstance(one, str))
    except (OSError, ValueError, TypeError):
        return ()


@contextlib.contextmanager
def writing(what: str = "the results") -> Iterator[None]:
    """Say what the system refuses as a fault of the host's, with the right thing to do."""
    try:
        yield
    except OSError as error:
        raise refused(
            error, f"writing {what}", "free some space on the disk that has results/"
        ) from error


def folder_of(kernel: str) -> Path:
    """Where the results of a kernel are, or "judge", the cards; it is made."""
    folder = config.RESULTS / kernel
    with writing():
        files.tag(config.RESULTS)  # it may lie in the folder of the module under test
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def begin(kernel: str, *, whole: bool, name: str = "", given: Sequence[str] = ()) -> Run:
    """The folder of a run that begins now; old runs of the same kernel are removed.

    ``given`` are the options that name the module, for who looks while the run goes on.

    Raises ``HostError`` (``SpaceError``, if the disk is full) where there can be no folder.
    """
    parent = folder_of(kernel)
    with writing():
        run = _begin(parent, Run(parent / (name or new_name()), whole=whole))
        files.write(run.folder / GIVEN, json.dumps(list(given)))
        return run


def _begin(parent: Path, run: Run) -> Run:
    try:
        if run.whole:
            (run.folder / _UNFINISHED).touch()
        files.link(parent / LATEST, run.folder.name)
        _prune(parent)
    except BaseException:
        run.close()
        raise
    return run


def is_run(name: str) -> bool:
    """Whether a run's folder may have that name."""
    return _RUN.fullmatch(name) is not None


def _runs(parent: Path) -> list[Path]:
    """The folders of a kernel's runs, the oldest first."""
    return sorted(path for path in parent.iterdir() if is_run(path.name))


def _prune(parent: Path) -> None:
    runs = _runs(parent)
    # A run that a mistyped option has ended has nothing that anybody would want to see again.
    kept = {*runs[-RUNS:], *[run for run in runs if _has_left(run)][-RUNS:]}
    for old in runs:
        if old not in kept and not in_use(old):
            shutil.rmtree(old, ignore_errors=True)


def _has_left(run: Path) -> bool:
    """Whether a test of a run has left something, such as its machine."""
    try:
        return any(path.is_dir() for path in run.iterdir())
    except OSError:  # another run has removed it
        return False


def in_use(folder: Path) -> bool:
    """Whether a process works in a run's folder at this moment."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(held)
    return False


# -- results -----------------------------------------------------------------------


def _names(whole: bool) -> tuple[str, str]:
    return ("report.json", "junit.xml") if whole else ("partial.json", "partial.xml")


def write(run: Run, result: KernelResult, *, whole: bool) -> None:
    """Write the result of a run, and make it its kernel's last one.

    ``whole``: it is of all tests, and says something of the kernel. Otherwise it becomes the last
    result of a part of the tests. The result and the JUnit file that it was read from are replaced
    together. Raises ``HostError`` as ``begin`` does.
    """
    parent = folder_of(result.kernel)
    with writing():
        _write(parent, run, result, whole)


def _write(parent: Path, run: Run, result: KernelResult, whole: bool) -> None:
    text = to_json(result)
    as_report, as_junit = _names(whole)
    files.write(run.folder / as_report, text)
    files.write(run.folder / KCIDB, kcidb.to_json(result, run.folder.name))
    held = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)  # two runs may end at the same time
        if run.junit.exists():
            files.write(parent / as_junit, run.junit.read_bytes())
        else:  # a kernel that could not be tested; that of an older run is not of this result
            (parent / as_junit).unlink(missing_ok=True)
        files.write(parent / as_report, text)
        (run.folder / _UNFINISHED).unlink(missing_ok=True)
        if whole:  # then it does not matter any more that earlier runs were cut off
            for old in _runs(parent):
                if not in_use(old):
                    (old / _UNFINISHED).unlink(missing_ok=True)
        _remember(parent, run, result)
    finally:
        os.close(held)


def _remember(parent: Path, run: Run, result: KernelResult) -> None:
    """Add a line for this run, under the lock, so that none of another run is lost.

    It is the largest file here, and the result counts without it.
    """
    one = history.past(run.folder.name, result, whole=run.whole)
    try:
        files.write(parent / HISTORY, history.added(_history(parent), one))
    except OSError as error:
        log.warning("this run is not remembered for the page: %s", error.strerror)


def last(kernel: str, *, whole: bool = True, folder: Path | None = None) -> KernelResult | None:
    """A kernel's last whole result, or that of a part of the tests, if there is one.

    ``folder`` is where the results of kernels are (default: results/).
    """
    try:
        return from_json(result_of(kernel, whole=whole, folder=folder).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def past(kernel: str, *, folder: Path | None = None) -> list[Past]:
    """What is remembered of a kernel's runs, the one that ended first at the beginning."""
    return history.read(_history((folder or config.RESULTS) / kernel))


def _history(parent: Path) -> str:
    try:
        return (parent / HISTORY).read_text("utf-8", errors="replace")
    except OSError:
        return ""


def cut_off(kernel: str) -> bool:
    """Whether a run after that of the last whole result was killed or interrupted.

    Then ``last`` is the result of an older run, and nobody knows what the later one would have
    found.
    """
    try:
        return any(
            (run / _UNFINISHED).exists() and not in_use(run)
            for run in _runs(config.RESULTS / kernel)
        )
    except OSError:
        return False


def result_of(kernel: str, *, whole: bool = True, folder: Path | None = None) -> Path:
    """The file that ``last`` reads."""
    return (folder or config.RESULTS) / kernel / _names(whole)[0]


def junit_of(kernel: str, *, whole: bool = True, folder: Path | None = None) -> Path:
    """The JUnit file that belongs to ``last``."""
    return (folder or config.RESULTS) / kernel / _names(whole)[1]
