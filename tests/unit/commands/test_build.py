# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/build.py: where the modules land, and what is refused before that."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands import build, shell, test_vm
from harness.errors import InputError
from harness.runs.request import Request

from .conftest import Calls


def test_a_wrong_folder_is_refused_before_anything_is_downloaded(
    calls: Calls, tmp_path: Path
) -> None:
    """The quickest check comes first."""
    for task in (
        lambda: build.run(Request("one", tmp_path)),
        lambda: test_vm.run(Request("one", source=tmp_path)),
    ):
        with pytest.raises(InputError, match="Kbuild"):
            task()
    assert calls.built == []


def test_each_kernels_module_lands_in_a_folder_of_its_own(
    calls: Calls, other_module: Path, tmp_path: Path
) -> None:
    """build/KERNEL/ has the module and no leftovers; an older one is replaced."""
    (tmp_path / "build" / "one").mkdir(parents=True)
    (tmp_path / "build" / "one" / "wee.ko").write_text("old")
    build.run(Request("one,two", other_module))
    for name in ("one", "two"):
        (built,) = (tmp_path / "build" / name).iterdir()
        assert (built.name, built.read_text()) == ("wee.ko", name)


def test_what_is_for_a_tree_is_refused_without_one(calls: Calls, other_module: Path) -> None:
    """--profile and --config would otherwise be ignored in silence."""
    with pytest.raises(InputError, match="--profile is for a kernel tree"):
        build.run(Request("one", other_module, profile="debug"))
    with pytest.raises(InputError, match="--config is for a kernel tree"):
        shell.run(Request("one", other_module, own_config=Path("config")))
    assert calls.built == []
