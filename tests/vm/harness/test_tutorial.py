# SPDX-License-Identifier: GPL-2.0-only
"""docs/tutorial.md: what it has people type is typed, and what it shows has to come."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import config
from harness.testing import Lab

PAGE = config.PROJECT / "docs" / "tutorial.md"
SECONDS = 600

pytestmark = [
    pytest.mark.timeout(4 * SECONDS),
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]


@dataclass
class Step:
    """A change or a command of the page, what is typed while it runs, and what it shows."""

    kind: str  # "diff" or "sh"
    text: str
    typed: dict[str, str] = field(default_factory=dict)  # by who reads it: "gdb" or "guest"
    shown: list[str] = field(default_factory=list)


def steps(page: str) -> Iterator[Step]:
    """The fenced blocks of a page, in their order."""
    step = None
    for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if kind in ("sh", "diff"):
            if step is not None:
                yield step
            step = Step(kind, text)
        elif step is None:
            raise ValueError(f"nothing has shown this: {text}")
        elif kind:
            step.typed[kind] = text
        else:
            step.shown += text.splitlines()
    if step is not None:
        yield step


def plain(line: str) -> str:
    """A line without what differs from run to run: numbers, addresses, paths, pytest's ruler."""
    line = re.sub(r"\S*/notes/results/\S+/", "DIR/", line)
    line = re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{16}\b|\d+\.\d+", "N", line)
    return re.sub(r"=+", "=", " ".join(line.split()))


def missing(shown: list[str], output: str) -> str:
    """The first line of what a page shows that does not follow in the output; "" where all do."""
    lines = iter([plain(line) for line in output.splitlines()])
    for line in shown:
        if line != "..." and not any(plain(line) == one for one in lines):
            return line
    return ""


def test_a_line_that_is_not_there_is_missing() -> None:
    """Numbers may be others; words, and the order of lines, may not."""
    output = "[  1.234567] oops in f+0x1/0x2\n==== 3 passed in 1.00s ====\n"
    assert not missing(["[ 9.876543] oops in f+0xa/0xb", "...", "= 3 passed in 2.50s ="], output)
    assert missing(["oops in g"], output) == "oops in g"
    assert missing(["= 3 passed in 2.50s =", "[ 9.876543] oops in f+0xa/0xb"], output)


def test_what_it_says_to_type_does_what_it_shows(lab: Lab, tmp_path: Path) -> None:
    """Step by step, in the home of somebody who has nothing yet."""
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {
        "HOME": str(home),
        "EUDYPTULA_CACHE": str(lab.cache.root),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = 0
    for step in steps(PAGE.read_text()):
        if step.kind == "diff":
            subprocess.run(
                ["patch", "-d", home / "notes", "-p1", "--fuzz=0"], input=step.text, text=True,
                check=True,
            )  # fmt: skip
            continue
        command = step.text
        if "gdb" in step.typed:  # there is no terminal for its prompt
            script = tmp_path / "gdb"
            script.write_text(step.typed["gdb"].removesuffix("quit\n"))
            command = re.sub(r"^(invoke \w+)", rf"\1 --script={script}", command)
        ended = subprocess.run(
            ["bash", "-ec", command], cwd=config.PROJECT, env=environment, text=True, check=False,
            input=step.typed.get("guest", ""), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=SECONDS,
        )  # fmt: skip
        assert not missing(step.shown, ended.stdout), f"{command}\n{ended.stdout}"
        red = any(" failed" in line for line in step.shown)
        assert ended.returncode == int(red), f"{command}\n{ended.stdout}"
        done += 1
    assert done == 8
