# SPDX-License-Identifier: GPL-2.0-only
"""harness/host/progress.py: what is said of something that takes long, and where."""

from __future__ import annotations

import logging
import os
import re
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.host import progress

SECONDS = 60.0
SET = {"TERM": "xterm"}


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
    """A terminal, of 40 columns if nothing else is said, and what was written to it."""

    def __init__(self, columns: int = 40) -> None:
        self.master, terminal = os.openpty()
        termios.tcsetwinsize(terminal, (24, columns))
        self.stream = os.fdopen(terminal, "w")
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self.master, 4096):
                self.text += data.decode()
        except OSError:  # EIO: the other end is closed
            pass

    def close(self) -> str:
        self.stream.close()
        self._reader.join(SECONDS)
        os.close(self.master)
        return self.text


def test_a_narrow_terminal_has_one_line() -> None:
    """It never wraps, hostile text does nothing to it, and it is gone in the end."""
    shown = Shown()
    handler = progress.handler(shown.stream, SET)
    asked = Asked("\x1b[2J\nevil \u202e" + "x" * 200)
    with progress.stage("kernel: \x1b]0;evil\x07 \u5b57"), progress.detail(asked):
        asked.wait()
        handler.handle(logging.LogRecord("harness", logging.INFO, "", 0, "said", None, None))
        asked.wait()
    said = shown.close()
    lines = [line.removesuffix("\r\n") for line in said.split("\r\x1b[K")]
    assert max(len(line) for line in lines) == 39
    assert "said" in lines
    assert lines[-1] == ""
    assert any(re.match(r"\d+ s: \\x1b\[2J evil \\u202exxx", line) for line in lines)
    # Of escape sequences there are only its own.
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("columns", "part", "bar"),
    [(60, 0.5, "[##########----------] "), (60, 0.0, "[--------------------] "),
     (60, 7.0, "[####################] "), (60, None, ""), (59, 0.5, "")],
)  # fmt: skip
def test_what_is_known_to_have_an_end_has_a_bar(columns: int, part: float | None, bar: str) -> None:
    """On a terminal that has room for one; never longer than it is."""
    shown = Shown(columns)
    progress.handler(shown.stream, SET)
    asked = Asked(progress.HowFar("6 of 12 MB", part))
    with progress.stage("downloading"), progress.detail(asked):
        asked.wait()
        asked.wait()
    lines = [line.removesuffix("\r\n") for line in shown.close().split("\r\x1b[K")]
    assert any(re.fullmatch(rf"\d+ s: {re.escape(bar)}6 of 12 MB", line) for line in lines)


def test_a_terminal_of_unknown_size_has_a_usual_one() -> None:
    """As in a container's, for a moment; it says that it has no columns at all."""
    shown = Shown(0)
    progress.handler(shown.stream, SET)
    asked = Asked("x" * 200)
    with progress.stage("compiling"), progress.detail(asked):
        asked.wait()
    assert max(len(line) for line in shown.close().split("\r\x1b[K")) == 79


def test_a_terminal_that_was_closed_harms_nobody() -> None:
    """What is being done goes on."""
    shown = Shown()
    progress.handler(shown.stream, SET)
    asked = Asked("")
    with progress.stage("compiling"), progress.detail(asked):
        asked.wait()
        shown.close()
        asked.wait()


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
