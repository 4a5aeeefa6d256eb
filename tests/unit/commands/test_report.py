# SPDX-License-Identifier: GPL-2.0-only
"""`invoke report` where something is not as it should be: the terminal, the disk, the results."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness import config
from harness.commands import report
from harness.errors import InputError, Status
from harness.host import proc
from harness.host.proc import Deadline
from harness.report.result import SCHEMA, Case, Cell, KernelResult, to_json

SECONDS = 100.0  # at most; one on a quiet host
WHY = "it said ü ✗ and " + "a long reason " * 20 + "to the end"
RED = KernelResult(
    "trixie", "6.12", "6.12-1", 1, 1e9, 1.0, 2.0, {"contract": Cell(True, "1 of 1 red", WHY)},
    (Case("test_a::test_b", "contract", "failed", 0.1, WHY),),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One that has a kernel's result, as of another machine."""
    (tmp_path / "results" / "trixie").mkdir(parents=True)
    (tmp_path / "results" / "trixie" / "report.json").write_text(to_json(RED))
    return tmp_path / "results"


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "invoke", "report", f"--folder={folder}"]


def invoked(argv: list[str], **environment: str) -> proc.Completed:
    """`invoke` with nothing in its environment but what is needed, and ``environment``."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | environment
    return proc.run(argv, deadline=Deadline(SECONDS), check=False, cwd=config.PROJECT, env=env)


@pytest.mark.parametrize(
    "environment",
    [{}, {"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "no_SUCH"}, {"COLUMNS": "40"}],
    ids=["no locale", "C", "UTF-8", "unknown", "40 columns"],
)
def test_any_terminal_shows_all_of_it(folder: Path, environment: dict[str, str]) -> None:
    """Nothing is cut, and no sign is lost."""
    done = invoked(command(folder), **environment)
    assert (done.status, done.stderr) == (0, "")
    assert f"trixie: contract: {WHY}\n" in done.stdout
    assert done.stdout.endswith(f"{folder / 'index.html'}\n")


def test_signs_that_a_terminal_lacks_are_numbers(folder: Path) -> None:
    """Where Python is told to believe a locale that has ASCII only; the page has them all."""
    done = invoked(command(folder), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.status, done.stderr) == (0, "")
    assert "it said \\xfc \\u2717 and" in done.stdout
    assert WHY in (folder / "index.html").read_text("utf-8")


def test_nobody_reads_what_it_says(folder: Path) -> None:
    """As with `| head -0`: it ends as other programs do, and has written the page."""
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        command(folder), cwd=config.PROJECT, stdout=writer, stderr=subprocess.PIPE
    ) as process:
        os.close(writer)
        _, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (141, b"")
    assert (folder / "index.html").exists()


def test_a_file_that_may_not_be_so_large_is_a_sentence(folder: Path) -> None:
    """As by a quota: the page of before stays, and nothing else is left."""
    (folder / "index.html").write_text("before")
    # Else Python would write what it compiles, cut to that size, and believe it the next time.
    plain = ["env", "PYTHONDONTWRITEBYTECODE=1"]
    done = invoked([*plain, "prlimit", "--fsize=2000", *command(folder)])
    assert done.status == Status.HOST
    assert "HostError: writing the page of results failed: " in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "index.html").read_text() == "before"
    assert {path.name for path in folder.iterdir()} == {"trixie", "index.html", "summary.md"}


def test_a_full_disk_is_a_sentence(folder: Path) -> None:
    """A disk of 64 KiB, full but for nothing: what to do is said, and nothing half is left."""
    full = folder.parent / "full"
    full.mkdir()
    script = (
        'cp -r "$1/." "$2"; cat /dev/zero >"$2/rest" 2>/dev/null; shift; at=$1; shift; "$@"; '
        'status=$?; ls -A "$at"; exit $status'
    )
    boxed = ["bwrap", "--dev-bind", "/", "/", "--size", "65536", "--tmpfs", f"{full}", "--",
             "sh", "-c", script, "sh", f"{folder}", f"{full}", *command(full)]  # fmt: skip
    done = invoked(boxed)
    assert done.status == Status.HOST
    assert "SpaceError: writing the page of results failed: " in done.stderr
    assert f"What to do: make room for {full}" in done.stderr
    assert set(done.stdout.split()) == {"rest", "trixie"}


HALF = to_json(RED)[:200]


@pytest.mark.parametrize(
    ("text", "why"),
    [('{"schema": 99}', f"its form is 99, and {SCHEMA} is the newest"),
     (HALF, "it is no JSON, or only a part of one"), ("", "it is no JSON, or only a part of one"),
     ("[" * 100_000, "it is no JSON, or only a part of one"), ("[]", "it has no fields"),
     (to_json(RED).replace('"6.12"', "[1]"), "a value of it is of another kind")],
    ids=["newer", "half", "empty", "deep", "list", "kind"],
)  # fmt: skip
def test_what_is_passed_over_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture, text: str, why: str
) -> None:
    """On the page as well; the results beside it are shown."""
    (folder / "sid").mkdir()
    (folder / "sid" / "partial.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert report.run(folder) == 0
    [said] = caplog.messages
    assert said.startswith("sid/partial.json is passed over: not a result: ")
    assert why in said
    page = (folder / "index.html").read_text("utf-8")
    assert '<p class="note">sid/partial.json is passed over: ' in page
    assert "test_b" in page


def test_results_of_the_first_version_are_shown(folder: Path) -> None:
    """Which had no version, and fewer fields."""
    old = """{"kernel": "sid", "release": "7.2", "version": "7.2-1", "status": 0, "finished": 5.0,
        "ready_s": 1.0, "tests_s": 2.0, "cells": {"boot": {"red": false, "text": "ok", "why": ""}},
        "tests": [{"name": "test_a::test_old", "suite": "contract", "outcome": "passed",
        "seconds": 0.5, "why": ""}], "how": "", "left_out": false}"""
    (folder / "sid").mkdir()
    (folder / "sid" / "report.json").write_text(old)
    assert report.run(folder) == 0
    assert "test_old" in (folder / "index.html").read_text("utf-8")


def test_results_that_are_all_damaged_are_none(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Why there are none is said before."""
    (folder / "trixie" / "report.json").write_text(HALF)
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="no kernel has a"):
        report.run(folder)
    assert "trixie/report.json is passed over" in caplog.text


def test_a_whole_result_that_is_damaged_is_said_beside_a_part(folder: Path) -> None:
    """The part is shown; that it is not the last one of all has to be known."""
    (folder / "trixie" / "report.json").write_text(HALF)
    (folder / "trixie" / "partial.json").write_text(to_json(replace(RED, finished=5.0)))
    assert report.run(folder) == 0
    assert "trixie/report.json is passed over" in (folder / "index.html").read_text("utf-8")
