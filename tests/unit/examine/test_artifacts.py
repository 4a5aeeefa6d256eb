# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/artifacts.py: what is said of a recording is true. The rest: test_verdict.py."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import config
from harness.build import symbols
from harness.examine import artifacts
from harness.examine.artifacts import Keeper
from harness.judge.verdict import Problem, Verdict
from harness.machines import recorded


@pytest.mark.parametrize(("free", "is_kept"), [(3 << 20, True), ((3 << 20) - 1, False)])
def test_a_recording_is_promised_only_where_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, is_kept: bool
) -> None:
    """It is written when the machine ends, which is after its test has been reported."""
    monkeypatch.setattr(symbols, "facts", lambda _: {})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    inside = tmp_path / "machine"
    inside.mkdir()
    (inside / recorded.LOG).write_bytes(bytes(2 << 20))
    (inside / recorded.FILES).write_bytes(bytes(1 << 20))
    machine: Any = SimpleNamespace(
        console_text=lambda: "it boots", running=True, paced=object(), wanted=None,
        log=SimpleNamespace(path=inside / recorded.CONSOLE),
    )  # fmt: skip
    lab: Any = SimpleNamespace(kernel=SimpleNamespace(sysroot=SimpleNamespace(root=tmp_path)))
    said = artifacts.save_artifacts(Keeper(lambda: tmp_path), lab, machine, [], "test", {})
    assert ("to go through it again: " in said) == is_kept
    assert (machine.wanted is not None) == is_kept
    assert ("its recording is not kept: it takes 3 MiB, " in said) != is_kept


@pytest.mark.parametrize(
    ("here", "task"),
    [("", "invoke shell --resume results/it"),
     ("/", f"invoke -r {config.PROJECT} shell --resume {config.PROJECT}/results/it")],
)  # fmt: skip
def test_a_command_is_meant_for_where_somebody_types_it(
    monkeypatch: pytest.MonkeyPatch, here: str, task: str
) -> None:
    """Which is not where a pytest runs that a task has started."""
    monkeypatch.chdir(config.PROJECT)
    monkeypatch.setattr(config, "_shown_from", "")
    config.show_from(here)
    assert artifacts._task("shell --resume", config.PROJECT / "results" / "it") == task


def test_a_command_of_another_repository_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Into a shell, to which what is said beside it is a comment."""
    monkeypatch.setattr(config, "IS_CHECKOUT", False)
    monkeypatch.setattr(config, "_shown_from", str(tmp_path))
    task = artifacts._task("replay", tmp_path / "it", "--debug")
    assert task.split("#")[0] == f"invoke replay {tmp_path}/it --debug  "
    assert shlex.split(task, comments=True) == ["invoke", "replay", f"{tmp_path}/it", "--debug"]


@pytest.mark.parametrize(
    ("verdict", "title", "found_in_memory"),
    [
        (Verdict.LEAK, "8 bytes that kmalloc() allocated were never freed", True),
        (Verdict.RESIDUE, "the module is unloaded, but timer_bases still holds wee", True),
        (Verdict.RESIDUE, "the module is unloaded, but left behind: major 244_wee", False),
        (Verdict.SPLAT, "WARNING in wee_write", False),
    ],
)
def test_what_a_recorded_machine_can_show(
    verdict: Verdict, title: str, found_in_memory: bool
) -> None:
    """Nobody searches the memory of one: the same test would be green there."""
    assert artifacts._is_found_in_memory(Problem(verdict, title)) is found_in_memory
