# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/artifacts.py: what is said of a recording is true. The rest: test_verdict.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import config
from harness.build import symbols
from harness.examine import artifacts
from harness.examine.artifacts import Keeper
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
