# SPDX-License-Identifier: GPL-2.0-only
"""Prepares the next test's machine while this test runs, so that a test waits for nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from harness.host.cache import Cache
from harness.machines.clone import Clone, clone
from harness.machines.recorded import recorded
from harness.machines.template import SetUp, Template


def open_clone(template: Template, cache: Cache, *, ahead: bool = False) -> Clone:
    """A clone of a template, connected over SSH; whoever takes it closes it.

    ``ahead``: its clock runs ahead (qemu/clock.py).
    """
    with ExitStack() as ends:
        folder = ends.enter_context(cache.scratch("test"))
        made = ends.enter_context(clone(template, folder, ahead=ahead))
        made.guest  # noqa: B018  # connects
        made.ends = ends.pop_all()
        return made


def open_recorded(
    template: Template, cache: Cache, carried: Sequence[Path], set_up: SetUp | None = None
) -> Clone:
    """A machine of a template's shape that is recorded; whoever takes it closes it."""
    with ExitStack() as ends:
        folder = ends.enter_context(cache.scratch("record"))
        made = ends.enter_context(recorded(template, folder, carried, set_up))
        made.ends = ends.pop_all()
        return made


class Pool:
    """One clone ahead. ``wanted`` names a kind of clone, ``make`` makes one of it."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="harness-pool")
        self._ahead: tuple[Hashable, Future[Clone]] | None = None

    def start(self, wanted: Hashable, make: Callable[[], Clone]) -> None:
        """Begin to make the next clone, unless one of its kind is on its way."""
        if self._ahead is not None and self._ahead[0] == wanted:
            return
        self.discard()
        self._ahead = (wanted, self._worker.submit(make))

    def take(self, wanted: Hashable, make: Callable[[], Clone]) -> Clone:
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


def _close(future: Future[Clone]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()
