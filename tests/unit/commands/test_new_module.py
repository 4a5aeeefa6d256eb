# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/new_module.py: the folder of a new module."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.build import source
from harness.build.source import Recipe
from harness.commands import new_module
from harness.errors import HostError, InputError


@pytest.mark.parametrize("kind", new_module.KINDS)
def test_a_folder_has_a_module_and_its_test(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it has the module's own name, and it says what to do next."""
    folder = tmp_path / "deep" / "wee"
    assert new_module.run("wee", kind, folder) == 0
    assert {path.name for path in folder.iterdir()} == {
        "wee.c",
        "Kbuild",
        "Makefile",
        "test_wee.py",
        "pyproject.toml",
    }
    for path in folder.iterdir():
        assert "@" not in path.read_text().replace("$@", "")
    assert source.inspect(folder).recipe is Recipe.KBUILD
    compile((folder / "test_wee.py").read_text(), "test_wee.py", "exec")
    assert "invoke test-vm --module" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "9a", "A", "a-b", "a.b", "../x", "a" * 32, "é"])
def test_a_name_that_no_module_can_have_is_refused(tmp_path: Path, name: str) -> None:
    """With what a name has to be."""
    with pytest.raises(InputError, match="is no name for a module"):
        new_module.run(name, "misc", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Whatever is there: a folder, or a link to nothing."""
    (tmp_path / "link").symlink_to("nowhere")
    for there in (tmp_path, tmp_path / "link"):
        with pytest.raises(InputError, match="is there already"):
            new_module.run("wee", "misc", there)


def test_an_unknown_kind_is_told_with_the_known_ones(tmp_path: Path) -> None:
    """Before anything is made."""
    with pytest.raises(InputError, match="no kind 'usb'") as caught:
        new_module.run("wee", "usb", tmp_path / "there")
    assert "netfilter" in caught.value.hint


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """In a sentence."""
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"making .* failed"):
        new_module.run("wee", "misc", tmp_path / "file" / "wee")
