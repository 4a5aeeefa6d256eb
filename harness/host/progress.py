# SPDX-License-Identifier: GPL-2.0-only
"""What is said while something long is being done: that it goes on, for how long, and how far.

Whoever does something long opens a ``stage``, and whoever knows more of how it goes opens a
``detail`` within it. What is shown of them is decided here. On a terminal that is one line, written
anew each half second, as wide as the terminal and without colours, with a bar where it is known how
much there is to do. Elsewhere, and where CI is set, it is a line of log after five seconds and one
each half minute after that.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

from harness.host import text

log = logging.getLogger(__name__)

STDOUT = 1  # its descriptor
SILENT_SECONDS = 5.0  # nothing that takes longer is silent
_AGAIN_SECONDS = 30.0  # between two lines of log
_ROUND_SECONDS = 0.5
_DETAIL = 100  # characters of what is known of a stage
_COLUMNS = 80  # of a terminal that does not say how many it has
_BAR, _ROOM = 20, 60  # columns of a bar, and of a terminal that has room for one
_TAIL = 2000  # bytes of a file in which its last line is looked for
_CLEAR = "\r\x1b[K"  # to the line's beginning, and clear it (ECMA-48: CR, EL)


class HowFar(NamedTuple):
    """What is known of a stage, and how much of it is done: from 0 to 1, or None."""

    text: str
    part: float | None = None


class _Stage:
    """Something that is being done; ``part_of``: what this thread was doing when it began."""

    def __init__(self, what: str, part_of: _Stage | None) -> None:
        self.what = what
        self.part_of = part_of
        self.began = self.said = time.monotonic()
        self.sources: list[Callable[[], str | HowFar]] = []

    @property
    def detail(self) -> HowFar:
        """What is known of it now."""
        # Whatever keeps it from being known, what is being done is not to fail for it.
        with contextlib.suppress(Exception):
            if self.sources:
                said = self.sources[-1]()
                known = said if isinstance(said, HowFar) else HowFar(said)
                return known._replace(text=text.printable(known.text)[:_DETAIL])
        return HowFar("")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


_current: contextvars.ContextVar[_Stage | None] = contextvars.ContextVar("stage", default=None)
_stages: list[_Stage] = []
_changing = threading.Lock()  # guards _stages and _follower
_follower: _Follower | None = None
_terminal: Terminal | None = None
_listener: Callable[[str], None] | None = None
_recorders: list[list[Done]] = []  # guarded by _changing


class Done(NamedTuple):
    """A stage that has ended: when it began, in seconds since the epoch, and for how long."""

    what: str
    began: float
    seconds: float


def listen(listener: Callable[[str], None] | None) -> None:
    """From now on ``listener`` is told what begins, for who does not show the log (None: nobody).

    It is called by the thread that begins it.
    """
    global _listener  # noqa: PLW0603  # a process has one
    _listener = listener


@contextlib.contextmanager
def recorded() -> Iterator[list[Done]]:
    """The stages of all threads that end within are added to what this yields."""
    done: list[Done] = []
    with _changing:
        _recorders.append(done)
    try:
        yield done
    finally:
        with _changing:
            _recorders[:] = [one for one in _recorders if one is not done]


@contextlib.contextmanager
def stage(what: str, *, first: bool = True) -> Iterator[None]:
    """``what`` is being done within; it is said at once, and again while it goes on.

    Without ``first`` nothing is said at once: for what is quick but for a slow kernel.
    """
    global _follower  # noqa: PLW0603  # one for all stages of the process
    one = _Stage(text.printable(what), _current.get())
    if first:
        log.info("%s", one.what)
        if _listener is not None:
            _listener(one.what)
    with _changing:
        _stages.append(one)
        if _follower is None:
            _follower = _Follower()
    before = _current.set(one)
    try:
        yield
    finally:
        _current.reset(before)
        ended = None
        with _changing:
            _stages.remove(one)
            done = Done(one.what, time.time() - one.seconds, one.seconds)
            for recorder in _recorders:
                recorder.append(done)
            if not _stages:
                ended, _follower = _follower, None
        if ended is not None:
            ended.end()
    if one.seconds >= SILENT_SECONDS:
        log.info("%s: done in %.1f s", one.what, one.seconds)


@contextlib.contextmanager
def detail(source: Callable[[], str | HowFar]) -> Iterator[None]:
    """What ``source`` returns is known of this thread's stage, within.

    It is called from another thread, and as often as something is shown.
    """
    one = _current.get()
    if one is None:
        yield
        return
    one.sources.append(source)
    try:
        yield
    finally:
        one.sources.remove(source)


def last_line(path: Path) -> str:
    """The last line of a file that grows, such as a console."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _innermost() -> list[_Stage]:
    """Of the stages that there are, those that have none within."""
    with _changing:
        outer = [one.part_of for one in _stages]
        return [one for one in _stages if one not in outer]


def nobody_reads() -> bool:
    """Whether the one who read what is printed has gone, as head(1) does (POLLERR, poll(2))."""
    ask = select.poll()
    ask.register(STDOUT, 0)
    return any(event & select.POLLERR for _, event in ask.poll(0))


class _Follower:
    """Shows the innermost stages, until its end."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="harness-progress", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._ended.wait(_ROUND_SECONDS):
            stages = _innermost()
            if _terminal is not None:
                if stages:
                    # What is being done stands above, and a terminal may be narrow.
                    one = stages[0]
                    known = one.detail
                    more = f" ({len(stages)} at once)" if len(stages) > 1 else ""
                    _terminal.show(f"{one.seconds:.0f} s{more}: ", known.text or one.what,
                                   known.part)  # fmt: skip
                continue
            for one in stages:
                first = one.said == one.began
                if time.monotonic() - one.said >= (SILENT_SECONDS if first else _AGAIN_SECONDS):
                    one.said = time.monotonic()
                    more = f", {known.text}" if (known := one.detail).text else ""
                    log.info("%s: %.0f s%s", one.what, one.seconds, more)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        if _terminal is not None:
            _terminal.clear()


# -- a terminal --------------------------------------------------------------------


class Terminal(logging.StreamHandler[TextIO]):
    """A terminal with one line at its end that is written anew; what is logged comes above it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._shown = False

    def show(self, begin: str, said: str, part: float | None) -> None:
        """Have this be the last line, cut where the terminal ends.

        Between the two there is a bar of which a ``part`` is filled, where that is known and where
        the line has room for it.
        """
        with contextlib.suppress(OSError, ValueError):  # it may have been closed
            # One whose size nobody has set says 0 (ioctl_tty(2)).
            columns = os.get_terminal_size(self.stream.fileno()).columns or _COLUMNS
            line = f"{begin}{_bar(part) if columns >= _ROOM else ''}{said}"
            # A character may be two columns wide, and a terminal may know less than Unicode.
            plain = text.printable(line).encode("ascii", "replace").decode()
            plain = plain.replace("\n", " ").replace("\t", " ")[: max(1, columns - 1)]
            self._write(f"{_CLEAR}{plain}", shown=True)

    def clear(self) -> None:
        """Take the line away."""
        with contextlib.suppress(OSError, ValueError):
            if self._shown:
                self._write(_CLEAR, shown=False)

    def _write(self, what: str, *, shown: bool) -> None:
        self.acquire()
        try:
            self._shown = shown
            self.stream.write(what)
            self.stream.flush()
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; the line is there again with the next ``show``."""
        self.clear()
        super().emit(record)


def _bar(part: float | None) -> str:
    if part is None:
        return ""
    filled = int(_BAR * min(1.0, max(0.0, part)))
    return f"[{'#' * filled}{'-' * (_BAR - filled)}] "


def handler(stream: TextIO, environ: Mapping[str, str] = os.environ) -> logging.Handler:
    """What shows the log and the stages on ``stream``: a line at its end where it can have one."""
    global _terminal  # noqa: PLW0603  # a process has one
    plain = environ.get("CI") or environ.get("TERM", "dumb") == "dumb" or not stream.isatty()
    _terminal = None if plain else Terminal(stream)
    return _terminal or logging.StreamHandler(stream)
