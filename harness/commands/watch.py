# SPDX-License-Identifier: GPL-2.0-only
"""`invoke watch`: tests the module again each time one of its sources is saved."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from harness import config
from harness.build import source as sources
from harness.build.source import Source
from harness.commands import test_vm
from harness.errors import HarnessError, InputError, Status
from harness.host.cache import digest_of_files
from harness.host.text import printable
from harness.runs import pytest_process, store
from harness.runs.request import Request

log = logging.getLogger(__name__)

# What is saved within that time is one change, as an editor's "save all" is.
_TOGETHER_SECONDS = 0.3
# How often the sources are looked at although nothing was heard of them.
_ROUND_SECONDS = 5.0
# What editors put beside a file while it is open, or when it is saved; 4913 is vim's.
_OF_AN_EDITOR = re.compile(r"\..*|.*~|#.*#|4913")
_CHANGES = {"created", "modified", "moved", "deleted", "closed"}


def run(request: Request) -> int:
    """Test the module, and again whenever its sources have changed, until Ctrl-C.

    What counts is what is in the files, so that neither an editor's own files nor a file that is
    saved as it was begins a run. What is saved while tests run is tested next. Returns 0 when
    waiting is interrupted; in a run, Ctrl-C is passed on.
    """
    request.plan()
    spec = request.select_one(config.load(), "watching is for one kernel at a time")
    source = sources.of(request.source)
    if source.package:
        raise InputError("a package does not change", hint="give --module a folder or a .ko file")
    if request.expression and request.jobs is None:
        # A second process of pytest takes longer to begin than a test takes.
        request = replace(request, jobs=1)
    place = source.path.parent if source.finished else source.path
    saved = _saves(source, place)
    while True:
        try:
            next(saved)
        except KeyboardInterrupt:
            return Status.GREEN
        _test(request, spec.name)


def _saves(source: Source, place: Path) -> Iterator[None]:
    """At once, and then whenever the sources hold something else than the time before."""
    before = None
    changes = _changes(place)
    while True:
        said = False
        while (content := _content(source)) == before:
            if not said:
                log.info("watching %s; Ctrl-C ends it", printable(str(place)))
                said = True
            next(changes)
        before = content
        yield


class _Changed(FileSystemEventHandler):
    """Remembers that a file has changed; that one was read is no news."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _CHANGES:
            self.event.set()


def _changes(place: Path) -> Iterator[None]:
    """Something each time that a file may have changed, and now and then for no reason.

    Watching begins with the first one, so that nobody is told of what was saved just before it; and
    of some file systems, such as one over a network, nothing is told at all.
    """
    changed = _Changed()
    observer = Observer()
    try:
        observer.schedule(changed, str(place), recursive=True)
        observer.start()
    except OSError as error:  # such as too many watches (inotify(7)), or no folder just now
        log.info("nothing is told of %s (%s): it is looked at every %.0f s", printable(str(place)),
                 error.strerror, _ROUND_SECONDS)  # fmt: skip
    try:
        while True:
            if changed.event.wait(_ROUND_SECONDS):
                time.sleep(_TOGETHER_SECONDS)
                changed.event.clear()
            yield
    finally:
        if observer.is_alive():
            observer.stop()
            observer.join()


def _content(source: Source) -> str:
    """What stands for the sources as they are now."""
    try:
        if source.finished:
            return digest_of_files(source.path.parent, [source.path])
        inspected = sources.inspect(source.path)
        files = [file for file in inspected.files if not _OF_AN_EDITOR.fullmatch(file.name)]
        return digest_of_files(inspected.root, files)
    except (HarnessError, OSError) as error:  # it is said when it is built
        return str(error)


def _test(request: Request, kernel: str) -> None:
    """Test it, and say what came of it and what is red; what is wrong with the module is said."""
    began = time.monotonic()
    try:
        test_vm.run(request)
        for line in pytest_process.red(config.RESULTS / kernel / store.LATEST):
            print(f"red: {line}")
    except HarnessError as error:
        print(f"{kernel}: {type(error).__name__}: {error}")
    print(f"{time.monotonic() - began:.1f} s\n", flush=True)
