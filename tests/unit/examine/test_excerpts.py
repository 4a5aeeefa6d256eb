# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/excerpts.py: which lines of a module's source are shown with a problem."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.examine import excerpts
from harness.judge.verdict import Problem, Verdict
from harness.report.result import Excerpt


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A module's folder with a file of 100 lines, and a secret beside it."""
    folder = tmp_path / "module"
    (folder / "sub").mkdir(parents=True)
    text = "".join(f"\tline({number});\n" for number in range(1, 101))
    (folder / "sub/a.c").write_text(text)
    (tmp_path / "secret").write_text("secret\n")
    os.symlink(tmp_path / "secret", folder / "link.c")
    os.mkfifo(folder / "pipe.c")
    return folder


@pytest.mark.parametrize(("line", "first", "last"), [(50, 43, 57), (1, 1, 8), (100, 93, 100)])
def test_lines_around_a_place(source: Path, line: int, first: int, last: int) -> None:
    """Some before and some after it, as far as there are any."""
    found = excerpts.around(source, f"sub/a.c:{line}")
    assert found is not None
    assert (found.file, found.line, found.first) == ("sub/a.c", line, first)
    assert found.lines == tuple(f"        line({n});" for n in range(first, last + 1))


@pytest.mark.parametrize(
    "place",
    ["sub/a.c:0", "sub/a.c:101", "sub/a.c:-1", "sub/a.c:99999999999", "sub/a.c:\u0663", "sub/a.c",
     "", ":1", "sub:1", "none.c:1", "link.c:1", "pipe.c:1", "../secret:1", "/etc/passwd:1"],
)  # fmt: skip
def test_what_is_not_in_the_modules_folder_is_not_shown(source: Path, place: str) -> None:
    """A name is from debug information, in which anything may stand."""
    assert excerpts.around(source, place) is None


def test_hostile_source_is_made_printable(source: Path) -> None:
    """Lines are those of a compiler; a form feed or a long line makes no others."""
    (source / "b.c").write_bytes(b"one\x0c\r\n\x1b[2J\xff\xe2\x80\xae\n" + b"x" * 9999)
    assert excerpts.around(source, "b.c:2") == Excerpt(
        "b.c", 2, 1, ("one\\x0c", "\\x1b[2J\ufffd\\u202e", "x" * 200)
    )


def test_each_place_is_shown_once(source: Path) -> None:
    """The first ones are, in their order."""
    lines = [None, 9, 9, 200, 5, 6, 7]
    problems = [
        Problem(Verdict.SPLAT, "t", location=f"sub/a.c:{line}" if line else None) for line in lines
    ]
    assert [one.line for one in excerpts.of(problems, source)] == [9, 5, 6]
