# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/bench.py: what is measured is the kernel that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tasks
from harness import lab
from harness.commands import bench
from harness.errors import InputError, Status
from harness.host import proc
from harness.host.proc import Completed
from harness.runs import pytest_process
from harness.runs.pytest_process import Ended


def test_a_tree_is_measured_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The runs in processes of their own are asked for it as this one was; a tree's name is none
    that they know.
    """
    monkeypatch.setenv("EUDYPTULA_CACHE", str(tmp_path / "cache"))
    tree = tmp_path / "linux"
    for name in ("Makefile", "Kbuild", "Kconfig", "arch/x86/Kconfig", "scripts/kconfig/x"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    place = SimpleNamespace(template=lambda: SimpleNamespace(frozen=True))
    monkeypatch.setattr(lab, "prepare_lab", lambda *_: place)
    monkeypatch.setattr(bench, "_boot", lambda _, samples: samples.update(boot_s=[1.0]))
    monkeypatch.setattr(bench, "_clone", lambda _, samples: samples.update(ready_s=[1.0]))
    for name in ("_build", "_pool"):
        monkeypatch.setattr(bench, name, lambda *_: None)
    asked = []

    def ask(argv: Sequence[str]) -> None:
        words = [word for part in argv for word in part.split("=")]
        asked.append(words[words.index("--kernel") + 1])

    def run(argv: Sequence[str], **_: Any) -> Completed:
        ask(argv)
        return Completed(tuple(argv), 0, "", "")

    def run_pytest(arguments: Sequence[str], *_: object, **__: object) -> Ended:
        ask(arguments)
        return Ended(Status.GREEN)

    monkeypatch.setattr(proc, "run", run)
    monkeypatch.setattr(pytest_process, "run", run_pytest)
    bench.run(str(tree), json=False, rounds=1)
    assert asked == [str(tree)] * 4


@pytest.mark.parametrize("rounds", ["0", "-1", "two"])
def test_rounds_that_are_no_number_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rounds: str
) -> None:
    """Of none there is no median."""
    monkeypatch.setattr(bench, "run", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SystemExit) as caught:
        tasks.bench.body(None, rounds=rounds)
    assert caught.value.code == InputError.exit_status
    assert "--rounds takes a number from 1 on" in capsys.readouterr().err
