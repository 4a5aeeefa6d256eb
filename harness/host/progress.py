# SPDX-License-Identifier: GPL-2.0-only
"""Progress of what takes long: that it goes on, for how long, and how far it is.

Whoever does something long opens a ``stage``, and whoever knows more of how it goes opens a
``detail`` within it. What is shown of them is decided here. On a terminal that is a line for each,
drawn by the library rich and anew each half second, with a bar where it is known how much there is
to do. Elsewhere, and where CI is set, it is a line of log after five seconds and one each half
minute after that.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from harness.host import text

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

log = logging.getLogger(__name__)

STDOUT = 1  # its descriptor
SILENT_SECONDS = 5.0  # nothing that takes longer is silent
_AGAIN_SECONDS = 30.0  # between two lines of log
_ROUND_SECONDS = 0.5
_DETAIL = 100  # characters of what is known of a stage
_COLUMNS, _LINES = 80, 24  # of a terminal that does not say how many it has
_BAR, _ROOM = 20, 60  # columns of a bar, and of a terminal that has room for one
_TAIL = 2000  # bytes of a file in which its last line is looked for


class HowFar(NamedTuple):
    """Details of a stage, and how much of it is done: from 0 to 1, or None if that is not known."""

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
        """The details as they are now."""
        # An error here must not end the stage.
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
    """Within, ``source`` gives the details of this thread's stage.

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
                    _terminal.show(stages)
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
    """A terminal at whose end stands what is being done; what is logged comes above that."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._live: Live | None = None  # while something is shown

    def show(self, stages: Sequence[_Stage]) -> None:
        """Have a line for each of these be the last ones, each cut where the terminal ends."""
        with self._drawing():
            from rich.console import ConsoleDimensions  # noqa: PLC0415  # see _live

            # Its size may have changed. One whose size nobody has set says 0 (ioctl_tty(2)).
            size = os.get_terminal_size(self.stream.fileno())
            columns, lines = size.columns or _COLUMNS, size.lines or _LINES
            if self._live is None:
                self._live = _live(self.stream)
            self._live.console.size = ConsoleDimensions(columns, lines)
            encoding = self._live.console.encoding
            self._live.update(_table(stages, encoding, columns >= _ROOM), refresh=True)

    def clear(self) -> None:
        """Take the lines away."""
        with self._drawing():
            live, self._live = self._live, None
            if live is not None:
                live.stop()

    @contextlib.contextmanager
    def _drawing(self) -> Iterator[None]:
        """Alone; a terminal that was closed is nothing to fail of."""
        self.acquire()
        try:
            with contextlib.suppress(OSError, ValueError):
                yield
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record, above what is shown."""
        if self._live is None:
            super().emit(record)
            return
        from rich.text import Text  # noqa: PLC0415  # see _live

        with self._drawing():
            self._live.console.print(Text(self.format(record)), soft_wrap=True)


def _live(stream: TextIO) -> Live:
    """A part of a terminal that is drawn when it is told to, and in the end is gone."""
    # To import it takes as long as many a task, and most say nothing that needs it.
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    console = Console(file=stream)
    live = Live(console=console, auto_refresh=False, transient=True,
                redirect_stdout=False, redirect_stderr=False)  # fmt: skip
    live.start()
    # A process that is killed cannot show the cursor again.
    console.show_cursor(True)
    return live


def _table(stages: Sequence[_Stage], encoding: str, has_room: bool) -> Table:
    """A line for each: for how long it has gone on, how far it is, and what is known of it."""
    from rich.progress_bar import ProgressBar  # noqa: PLC0415  # see _live
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table.grid(padding=(0, 1))
    for one in stages:
        known = one.detail
        # What is being done stands above in full. Of several, it has to be told which this is.
        which = f"{one.what.partition(':')[0]}: " if len(stages) > 1 and known.text else ""
        said = f"{which}{known.text or one.what}".replace("\n", " ")
        # A terminal may know less than Unicode.
        said = said.encode(encoding, "replace").decode(encoding)
        bar: ProgressBar | str = ""
        if known.part is not None and has_room:
            bar = ProgressBar(1.0, min(1.0, max(0.0, known.part)), width=_BAR)
        table.add_row(f"{one.seconds:.0f} s", bar, Text(said, no_wrap=True, overflow="ellipsis"))
    return table


def handler(stream: TextIO, environ: Mapping[str, str] = os.environ) -> logging.Handler:
    """The handler that shows the log and the stages on ``stream``, drawn if it is a terminal."""
    global _terminal  # noqa: PLW0603  # a process has one
    plain = environ.get("CI") or environ.get("TERM", "dumb") == "dumb" or not stream.isatty()
    _terminal = None if plain else Terminal(stream)
    return _terminal or logging.StreamHandler(stream)
