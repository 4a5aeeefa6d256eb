# SPDX-License-Identifier: GPL-2.0-only
"""`invoke watch`: tests the module again each time one of its sources is saved."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from harness import config, lab
from harness.build import source as sources
from harness.build.source import Source
from harness.commands import test_vm
from harness.errors import HarnessError, InputError, Status
from harness.host.cache import Cache, believe, digest_of_files
from harness.host.text import listed, printable
from harness.report import table
from harness.runs import identity, pytest_process, store
from harness.runs.request import Request

log = logging.getLogger(__name__)
_OF_WATCHDOG = logging.getLogger("watchdog.observers.inotify")

# What is saved within that time is one change, as an editor's "save all" is.
_TOGETHER_SECONDS = 0.1
# How often the sources are looked at although nothing was heard of them.
_ROUND_SECONDS = 5.0
# What editors put beside a file while it is open, or when it is saved; 4913 is vim's.
_OF_AN_EDITOR = re.compile(r"\..*|.*~|#.*#|4913")
_CHANGES = {"created", "modified", "moved", "deleted", "closed"}
_NAMED = 3  # files that are named


def run(request: Request) -> int:
    """Test the module, and again whenever its sources have changed, until Ctrl-C.

    What counts is what is in the files, so that neither an editor's own files nor a file that is
    saved as it was begins a run. What is saved while tests run is tested next. Returns 0 when
    waiting is interrupted; in a run, Ctrl-C is passed on.
    """
    plan = request.plan()
    spec = request.select_one(config.load(), "watching is for one kernel at a time")
    source = sources.of(request.source)
    if source.package:
        raise InputError("a package does not change", hint="give --module a folder or a .ko file")
    if request.expression and request.jobs is None:
        # A second process of pytest takes longer to begin than a test takes.
        request = replace(request, jobs=1)
    own = plan.suites.get(table.OWN)
    saves = _Saves(source, Path(own) if own else None)
    tested = False
    with Cache() as held:
        while True:
            try:
                if tested:  # so that the next run need not check the kernel after the save
                    with contextlib.suppress(HarnessError):  # which that run tells, if it stays
                        lab.prepare_lab(spec, config.load(), held, request.equipment)
                changed = saves.wait()
            except KeyboardInterrupt:
                return Status.GREEN
            if changed:
                log.info("%s: saved: %s", time.strftime("%H:%M:%S"), _named(changed))
            believe(held.vouch())
            tested = _test(request, spec.name, saves)


class _Saves:
    """Watches a module's sources, and its own ``tests`` if there are any, for changes."""

    def __init__(self, source: Source, tests: Path | None) -> None:
        self._source = source
        self._tests = tests
        self._place = source.path.parent if source.finished else source.path
        places = [self._place]
        if tests is not None and not tests.is_relative_to(self._place):
            places.append(tests if tests.is_dir() else tests.parent)
        self._changes = _changes(places)
        self._before: Mapping[Path, str] | None = None

    def wait(self) -> list[str]:
        """Wait until files differ from the last time; their names. At first, [] at once."""
        said = False
        while not (changed := self.meanwhile()) and self._before is not None:
            if not said:
                log.info("watching %s; Ctrl-C ends it", printable(str(self._place)))
                said = True
            next(self._changes)
        self._before = self._content()
        return changed

    def meanwhile(self) -> list[str]:
        """The names of the files that are not as they were when waiting ended."""
        if self._before is None:
            return []
        now, before = self._content(), self._before
        changed = sorted(path for path in {*now, *before} if now.get(path) != before.get(path))
        return [self._shown(path) for path in changed]

    def _shown(self, path: Path) -> str:
        place = self._place.resolve()
        inside = place in path.parents
        return path.relative_to(place).as_posix() if inside else path.name

    def _content(self) -> Mapping[Path, str]:
        """A digest of each file as it is now."""
        try:
            if self._source.finished:
                files = {self._source.path}
            else:
                files = {*sources.inspect(self._place).files}
            if self._tests is not None:
                files |= identity.files_of(self._tests)
            found = {path.resolve() for path in files if not _OF_AN_EDITOR.fullmatch(path.name)}
            return {path: digest_of_files(path.parent, [path]) for path in found}
        except (HarnessError, OSError) as error:  # it is said when it is built
            return {self._place.resolve(): str(error)}


def _named(names: Sequence[str]) -> str:
    return printable(listed(names, _NAMED))


class _Changed(FileSystemEventHandler):
    """Remembers that a file has changed; that one was read is no news."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _CHANGES:
            self.event.set()


def _changes(places: Sequence[Path]) -> Generator[None, None, None]:
    """Yields each time that a file may have changed, and every ``_ROUND_SECONDS`` in any case.

    Watching begins with the first one, so that nobody is told of what was saved just before it; and
    of some file systems, such as one over a network, nothing is told at all.
    """
    changed = _Changed()
    observer = Observer()
    try:
        for place in places:
            observer.schedule(changed, str(place), recursive=True)
        observer.start()
    except OSError as error:  # such as too many watches (inotify(7)), or no folder just now
        log.info("nothing is told of %s (%s): it is looked at every %.0f s",
                 printable(" and ".join(map(str, places))),
                 error.strerror, _ROUND_SECONDS)  # fmt: skip
    try:
        while True:
            if changed.event.wait(_ROUND_SECONDS):
                time.sleep(_TOGETHER_SECONDS)
                changed.event.clear()
            yield
    finally:
        if observer.is_alive():
            # Its threads may ask for one more change while they are ended. watchdog calls that an
            # error, which is nobody's.
            _OF_WATCHDOG.disabled = True
            observer.stop()
            observer.join()
            _OF_WATCHDOG.disabled = False


def _test(request: Request, kernel: str, saves: _Saves) -> bool:
    """Test it, and say what came of it and what is red; what is wrong with the module is said.

    Returns whether there was something to test.
    """
    began = time.monotonic()
    tested = False
    try:
        test_vm.run(request)
        tested = True
        for line in pytest_process.red(config.RESULTS / kernel / store.LATEST):
            print(f"red: {line}")
    except HarnessError as error:
        print(f"{kernel}: {type(error).__name__}: {error}")
    if late := saves.meanwhile():
        print(f"this is of what was there before: {_named(late)} was saved since, and comes next")
    print(f"{time.strftime('%H:%M:%S')}: {time.monotonic() - began:.1f} s\n", flush=True)
    return tested
