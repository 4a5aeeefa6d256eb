# SPDX-License-Identifier: GPL-2.0-only
"""harness/host/progress.py: what is said of something that takes long, and where."""

from __future__ import annotations

import logging
import os
import re
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pyte
import pytest

from harness.host import progress

SECONDS = 60.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody waits; and no test's terminal is another's."""
    monkeypatch.setattr(progress, "_ROUND_SECONDS", 0.001)
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_terminal", None)
    yield
    assert progress._stages == []
    assert progress._follower is None


class Asked:
    """A detail that knows when it was asked for; ``say`` is what it answers."""

    def __init__(self, say: str | progress.HowFar) -> None:
        self.say = say
        self._times = threading.Semaphore(0)

    def __call__(self) -> str | progress.HowFar:
        self._times.release()
        return self.say

    def wait(self, times: int = 2) -> None:
        """Until it was asked so often from now on: what was said before that is shown by then."""
        while self._times.acquire(blocking=False):
            pass
        for _ in range(times):
            assert self._times.acquire(timeout=SECONDS)


def test_without_a_terminal_there_are_lines(caplog: pytest.LogCaptureFixture) -> None:
    """When it begins, while it goes on with what is known of it, and when it has ended."""
    caplog.set_level(logging.INFO, "harness")
    asked = Asked("of 1700 steps")
    with progress.stage("compiling"), progress.detail(asked):
        asked.wait()
    said = [record.message for record in caplog.records]
    assert said[0] == "compiling"
    assert re.fullmatch(r"compiling: \d+ s, of 1700 steps", said[1])
    assert re.fullmatch(r"compiling: done in \d+\.\d s", said[-1])


def test_what_is_quick_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but what is done."""
    caplog.set_level(logging.INFO, "harness")
    monkeypatch.setattr(progress, "SILENT_SECONDS", 5 * SECONDS)
    asked = Asked("")
    with progress.stage("compiling"):
        pass
    with progress.stage("loading", first=False):
        pass
    with progress.detail(asked):  # outside of a stage nobody asks
        pass
    assert [record.message for record in caplog.records] == ["compiling"]


def test_what_fails_is_not_done(caplog: pytest.LogCaptureFixture) -> None:
    """The error says so."""
    caplog.set_level(logging.INFO, "harness")
    with pytest.raises(ZeroDivisionError), progress.stage("compiling"):
        raise ZeroDivisionError
    assert "done" not in caplog.text


def test_a_detail_that_cannot_be_had_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is left out."""
    caplog.set_level(logging.INFO, "harness")
    asked = Asked("")

    def fails() -> str:
        asked()
        raise ValueError

    with progress.stage("compiling"), progress.detail(fails):
        asked.wait()
    assert any(re.fullmatch(r"compiling: \d+ s", each.message) for each in caplog.records)


def test_threads_have_a_stage_each(caplog: pytest.LogCaptureFixture) -> None:
    """And each has its own details."""
    caplog.set_level(logging.INFO, "harness")

    def other() -> None:
        asked = Asked("other's")
        with progress.stage("other"), progress.detail(asked):
            asked.wait()

    asked = Asked("mine")
    with progress.stage("first"), progress.detail(asked):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(SECONDS)
        asked.wait()
    assert re.search(r"first: \d+ s, mine", caplog.text)
    assert re.search(r"other: \d+ s, other's", caplog.text)
    assert not re.search(r"other: \d+ s, mine", caplog.text)


def test_what_was_done_is_recorded() -> None:
    """Of all threads, in the order in which it ended; also what failed, and nothing afterwards."""

    def other() -> None:
        with progress.stage("second"):
            pass

    before = time.time()
    with progress.recorded() as outer, progress.recorded() as done:
        with progress.stage("first"):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(SECONDS)
        with suppress(ZeroDivisionError), progress.stage("fails"):
            _ = 1 / 0
    with progress.stage("later"):
        pass
    assert [one.what for one in done] == ["second", "first", "fails"]
    assert outer == done
    assert all(before - 1 <= one.began <= time.time() and one.seconds >= 0 for one in done)


def test_of_one_within_another_the_inner_one_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """As when a kernel's source is downloaded while the kernel is made; and then the outer one."""
    caplog.set_level(logging.INFO, "harness")
    outer, inner = Asked("outer's"), Asked("inner's")
    with progress.stage("compiling"), progress.detail(outer):
        with progress.stage("downloading"), progress.detail(inner):
            inner.wait()
            begin = len(caplog.records)
            inner.wait()
            end = len(caplog.records)
        outer.wait()
    said = [record.message for record in caplog.records]
    assert any(re.fullmatch(r"downloading: \d+ s, inner's", line) for line in said[begin:end])
    assert not any(line.startswith("compiling") for line in said[begin:end])
    assert any(re.fullmatch(r"compiling: \d+ s, outer's", line) for line in said[end:])


class Shown:
    """A terminal, of 40 columns if nothing else is said, and what was to be seen on it."""

    def __init__(self, columns: int = 40, encoding: str = "utf-8") -> None:
        self.master, terminal = os.openpty()
        termios.tcsetwinsize(terminal, (24, columns))
        self.stream = os.fdopen(terminal, "w", encoding=encoding)
        self.written = b""
        self._columns = columns or 80
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self.master, 4096):
                self.written += data
        except OSError:  # EIO: the other end is closed
            pass

    def close(self) -> list[list[str]]:
        """The lines of each picture that there was, but for empty ones; the last one comes last."""
        self.stream.close()
        self._reader.join(SECONDS)
        os.close(self.master)
        screen = pyte.Screen(self._columns, 24)
        feed = pyte.ByteStream(screen).feed
        found = []
        # Before it is drawn anew, its lines are erased (ECMA-48: EL).
        for piece in re.split(rb"(?=\r\x1b\[2K)", self.written):
            feed(piece)
            found.append([line.rstrip() for line in screen.display if line.strip()])
            assert not screen.cursor.hidden  # nobody could show it again after SIGKILL
        return found


@pytest.fixture
def _a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs the tests; without colours a bar ends where what is done ends."""
    for name in ("CI", "COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")


on_a_terminal = pytest.mark.usefixtures("_a_terminal")


@on_a_terminal
def test_a_narrow_terminal_has_one_line() -> None:
    """It never wraps, hostile text does nothing to it, and it is gone in the end."""
    shown = Shown()
    handler = progress.handler(shown.stream)
    asked = Asked("\x1b[2J\nevil \u202e" + "x" * 200)
    with progress.stage("kernel: \x1b]0;evil\x07 \u5b57"), progress.detail(asked):
        asked.wait()
        handler.handle(logging.LogRecord("harness", logging.INFO, "", 0, "said", None, None))
        asked.wait()
    pictures = shown.close()
    line = re.compile(r"\d+ s +\\x1b\[2J evil \\u202ex+…")
    assert any(len(each) == 1 and line.fullmatch(each[0]) for each in pictures)
    # What is logged comes above it.
    assert any(each[0] == "said" and line.fullmatch(each[-1]) for each in pictures if each)
    assert max(map(len, pictures)) == 2
    assert pictures[-1] == ["said"]
    assert b"\x1b[2J" not in shown.written
    assert b"\x1b]" not in shown.written


@on_a_terminal
def test_what_is_done_at_once_has_a_line_each() -> None:
    """Which of them says what is said as well."""
    shown = Shown(80)
    progress.handler(shown.stream)
    asked, other = Asked("6 MB"), Asked("7 MB")

    def meanwhile() -> None:
        with progress.stage("guest: downloading"), progress.detail(other):
            other.wait()

    with progress.stage("kernel trixie: downloading: all"), progress.detail(asked):
        thread = threading.Thread(target=meanwhile)
        thread.start()
        thread.join(SECONDS)
        asked.wait()
    pictures = [[re.sub(r"^\d+ s +", "", line) for line in each] for each in shown.close()]
    assert ["kernel trixie: 6 MB", "guest: 7 MB"] in pictures
    assert ["6 MB"] in pictures


@on_a_terminal
@pytest.mark.parametrize(
    ("columns", "part", "bar"),
    [(60, 0.5, 10), (60, 0.0, 0), (60, 7.0, 20), (60, None, 0), (59, 0.5, 0)],
)
def test_what_is_known_to_have_an_end_has_a_bar(columns: int, part: float | None, bar: int) -> None:
    """On a terminal that has room for one; never longer than it is."""
    shown = Shown(columns)
    progress.handler(shown.stream)
    asked = Asked(progress.HowFar("6 of 12 MB", part))
    with progress.stage("downloading"), progress.detail(asked):
        asked.wait()
    lines = {line for each in shown.close() for line in each}
    assert any(re.fullmatch(rf"\d+ s +━{{{bar}}} +6 of 12 MB", line) for line in lines)


@on_a_terminal
def test_a_terminal_that_knows_no_unicode_has_ascii() -> None:
    """As where no locale is set; what it cannot show is a question mark."""
    shown = Shown(60, "ascii")
    progress.handler(shown.stream)
    asked = Asked(progress.HowFar("6 of 12 \u5b57", 0.5))
    with progress.stage("downloading"), progress.detail(asked):
        asked.wait()
    assert any(
        re.fullmatch(r"\d+ s -{10} +6 of 12 \?", line) for each in shown.close() for line in each
    )


@on_a_terminal
def test_a_terminal_of_unknown_size_has_a_usual_one() -> None:
    """As in a container's, for a moment; it says that it has no columns at all."""
    shown = Shown(0)
    progress.handler(shown.stream)
    asked = Asked("x" * 200)
    with progress.stage("compiling"), progress.detail(asked):
        asked.wait()
    pictures = shown.close()
    assert {len(each) for each in pictures} == {0, 1}
    assert max(len(line) for each in pictures for line in each) == 80


@on_a_terminal
def test_a_terminal_that_was_closed_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being done goes on, and so does what would show it."""
    show, rounds = progress.Terminal.show, Asked("")

    def shows(self: progress.Terminal, stages: Sequence[progress._Stage]) -> None:
        show(self, stages)
        rounds()

    monkeypatch.setattr(progress.Terminal, "show", shows)
    shown = Shown()
    progress.handler(shown.stream)
    with progress.stage("compiling"):
        rounds.wait()
        shown.close()
        rounds.wait()


@pytest.mark.parametrize("environ", [{"TERM": "xterm", "CI": "true"}, {"TERM": "dumb"}, {}])
def test_a_ci_is_no_terminal(environ: dict[str, str]) -> None:
    """Its log would be full of lines that were written anew."""
    shown = Shown()
    assert not isinstance(progress.handler(shown.stream, environ), progress.Terminal)
    shown.close()


def test_the_last_line_of_a_console(tmp_path: Path) -> None:
    """Of a long one, too; an empty one has none."""
    console = tmp_path / "console"
    console.write_bytes(b"[ 0.1] first\n" * 1000 + b"[ 1.5] \xff last\r\n\n")
    assert progress.last_line(console) == "[ 1.5] \ufffd last"
    console.write_bytes(b"")
    assert progress.last_line(console) == ""
