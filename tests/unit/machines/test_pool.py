# SPDX-License-Identifier: GPL-2.0-only
"""harness/machines/pool.py: whose a clone is that was made ahead."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import cast

import pytest

from harness.machines.clone import Clone
from harness.machines.pool import Pool

PATIENCE = 20.0


class Made(SimpleNamespace):
    """A clone; ``closed`` is set when somebody ends it."""

    closed: threading.Event

    def __init__(self) -> None:
        super().__init__(closed=threading.Event())

    def close(self) -> None:
        self.closed.set()


def make() -> Clone:
    return cast(Clone, Made())


def closed(clone: Clone) -> threading.Event:
    return cast(Made, clone).closed


def test_what_was_prepared_is_taken_once() -> None:
    """By whoever wants that kind; another kind is made now."""
    pool = Pool()
    ahead = make()
    pool.start("kind", lambda: ahead)
    assert pool.take("kind", make) is ahead
    assert pool.take("kind", make) is not ahead
    pool.close()
    assert not closed(ahead).is_set()


def test_what_nobody_takes_is_ended() -> None:
    """At the end, or when something else is to be prepared."""
    pool = Pool()
    first, second = make(), make()
    started = threading.Event()

    def make_first() -> Clone:
        started.set()
        return first

    pool.start("one", make_first)
    assert started.wait(PATIENCE)
    pool.start("two", lambda: second)
    assert closed(first).wait(PATIENCE)
    pool.close()


def test_what_is_still_in_the_making_is_ended_when_it_is_there() -> None:
    """Nobody waits for it, and so nobody can be interrupted while waiting."""
    pool = Pool()
    ahead, go = make(), threading.Event()

    def later() -> Clone:
        assert go.wait(PATIENCE)
        return ahead

    pool.start("kind", later)
    pool.discard()
    go.set()
    assert closed(ahead).wait(PATIENCE)
    pool.close()


def test_a_wait_that_is_interrupted_leaves_no_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended when it is there: nobody else knows of it."""
    pool = Pool()
    ahead, go = make(), threading.Event()

    def later() -> Clone:
        assert go.wait(PATIENCE)
        return ahead

    def interrupted(_: Future[Clone], timeout: float | None = None) -> Clone:
        raise KeyboardInterrupt

    pool.start("kind", later)
    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.take("kind", make)
    go.set()
    assert closed(ahead).wait(PATIENCE)
    pool.close()
