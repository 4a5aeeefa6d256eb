# SPDX-License-Identifier: GPL-2.0-only
"""Prepares the next test's machine while this test runs, so that a test waits for nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from harness.host.cache import Cache
from harness.machines.clone import Clone, clone
from harness.machines.template import Template

MARK_SECONDS = 20.0


@dataclass(frozen=True)
class Fresh:
    """A clone, connected over SSH; whoever takes it closes it.

    ``taint`` is its kernel's now.
    """

    clone: Clone
    taint: int
    facts: Mapping[str, Any]  # its template's
    ends: ExitStack
    since: int = 0  # where on its console begins what its present user is answerable for

    def close(self) -> None:
        self.ends.close()


def fresh(template: Template, cache: Cache, *, ahead: bool = False) -> Fresh:
    """Clone a template and connect to it; ``ahead``: its clock runs ahead (qemu/clock.py)."""
    with ExitStack() as ends:
        folder = ends.enter_context(cache.scratch("test"))
        made = ends.enter_context(clone(template, folder, ahead=ahead))
        machine = made.machine
        taint = template.facts["taint"]
        if not template.frozen:
            # What was found out once is as true of a clone, but not of another boot.
            taint = machine.mark(machine.patience(MARK_SECONDS))
        made.guest  # noqa: B018  # connects
        return Fresh(made, taint, template.facts, ends.pop_all(), made.since)


class Pool:
    """One clone ahead. ``wanted`` names a kind of clone, ``make`` makes one of it."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="harness-pool")
        self._ahead: tuple[Hashable, Future[Fresh]] | None = None

    def start(self, wanted: Hashable, make: Callable[[], Fresh]) -> None:
        """Begin to make the next clone, unless one of its kind is on its way."""
        if self._ahead is not None and self._ahead[0] == wanted:
            return
        self.discard()
        self._ahead = (wanted, self._worker.submit(make))

    def take(self, wanted: Hashable, make: Callable[[], Fresh]) -> Fresh:
        """The prepared clone if it is of the kind wanted, else one made now."""
        if self._ahead is None or self._ahead[0] != wanted:
            return make()
        future = self._ahead[1]
        self._ahead = None
        try:
            return future.result()
        except BaseException:  # such as this test's time limit: nobody else knows of that clone
            future.add_done_callback(_close)
            raise

    def discard(self) -> None:
        """End a clone that nobody took."""
        if self._ahead is None:
            return
        future = self._ahead[1]
        self._ahead = None
        if not future.cancel():
            future.add_done_callback(_close)  # it may still be in the making

    def close(self) -> None:
        """End what was prepared and the thread that prepares."""
        self.discard()
        self._worker.shutdown()


def _close(future: Future[Fresh]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()
