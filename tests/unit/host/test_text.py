# SPDX-License-Identifier: GPL-2.0-only
"""harness/host/text.py: what is foreign is harmless on a terminal, and short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import BuildError, CommandError, HarnessError
from harness.host import text
from harness.judge.verdict import Problem, Verdict

# Clears the screen, sets the window's title, moves the cursor, turns the writing around.
HOSTILE = "\x1b[2J\x1b]0;title\x07over\rwritten\x9b1A\u202e"


def is_harmless(shown: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in shown)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("größe", "größe"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("over\rwritten", "over\\x0dwritten"),
        ("\x07\x00\x7f\x9b", "\\x07\\x00\\x7f\\x9b"),
        ("a\u202eb", "a\\u202eb"),
        ("\U000e0041", "\\U000e0041"),
        ("of a console\r\n", "of a console\n"),
    ],
)
def test_foreign_text_is_harmless(given: str, shown: str) -> None:
    """Nothing that a guest prints moves the cursor, clears the screen or rings."""
    assert text.printable(given) == shown


@pytest.mark.parametrize("cut", [text.beginning, text.end])
@pytest.mark.parametrize("given", ["x" * 5000, "\x1b" * 5000, "\x1b" * 40, "é" * 100])
def test_what_is_too_long_is_cut_once(cut: Callable[[str, int], str], given: str) -> None:
    """The limit holds for what is shown; who cuts again changes nothing."""
    shown = cut(given, 100)
    assert len(shown) <= 100
    assert cut(shown, 100) == shown
    assert (f"{len(given)} characters" in shown) is (len(text.printable(given)) > 100)


def test_beginning_and_end_keep_what_they_are_named_after() -> None:
    """A sentence is read from its beginning, a log from its end."""
    lines = "\n".join(f"line {number}" for number in range(1000))
    assert text.beginning(lines, 200).startswith("line 0\n")
    assert text.end(lines, 200).endswith("\nline 999")


@pytest.mark.parametrize("kind", [HarnessError, BuildError, CommandError])
def test_an_error_shows_nothing_raw(kind: type[HarnessError]) -> None:
    """Each part of it may quote somebody: a folder's name, a compiler, a command."""
    error = kind(
        f"what {HOSTILE}", hint=f"hint {HOSTILE}", tail=f"tail {HOSTILE}",
        command=["echo", HOSTILE], status=1, log=Path(f"/log{HOSTILE}"),
    )  # fmt: skip
    assert is_harmless(str(error))
    # Also for those who show a part of it, as the table of several kernels does.
    for part in (error.what, error.hint, error.tail, str(error.args)):
        assert is_harmless(part)


def test_a_whole_log_is_no_errors_text() -> None:
    """The end of it is; the error says where all of it is."""
    log = "\n".join(f"make: line {number}" for number in range(200_000))
    error = BuildError("it does not build", tail=log, log=Path("build.log"))
    assert len(str(error)) < 20_000
    assert "make: line 199999\nlog: build.log" in str(error)


def test_a_problem_shows_nothing_raw() -> None:
    """A device's name in a report's title, or anything in its lines."""
    problem = Problem(Verdict.SPLAT, f"WARNING: {HOSTILE}", f"detail\n{HOSTILE}\n")
    for part in (problem.title, problem.detail, str(problem)):
        assert is_harmless(part)
    assert len(str(Problem(Verdict.SPLAT, "x" * 1_000_000))) < 2000


def test_a_log_that_was_read_in_part_says_so() -> None:
    """Beginning and end, and how much is between them."""
    assert text.decoded(b"all of it", 9) == "all of it"
    shown = text.decoded(b"firstlast!", 1000)
    assert shown == "first\n(here 990 bytes are left out)\nlast!"


@pytest.mark.parametrize(
    ("names", "said"),
    [((), ""), (("a",), "a"), (("a", "b"), "a, b"), (("a", "b", "c", "d"), "a, b and 2 more")],
)
def test_of_many_names_the_first_are_listed(names: tuple[str, ...], said: str) -> None:
    """A message stays short, and says how much it leaves out."""
    assert text.listed(names, 2) == said
