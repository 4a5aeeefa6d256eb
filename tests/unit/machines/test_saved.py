# SPDX-License-Identifier: GPL-2.0-only
"""harness/machines/saved.py: what cannot be opened again is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.machines import saved
from harness.qemu import MachineSpec


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that a saved machine consists of."""
    monkeypatch.setattr(saved, "version_text", lambda: "QEMU 1")
    for name in ("kernel", "initrd", "client", saved.STATE):
        (tmp_path / name).write_text("")
    spec = {"kernel": f"{tmp_path}/kernel", "initrd": f"{tmp_path}/initrd", "append": ["quiet"]}
    keys = {"client": f"{tmp_path}/client", "host": "AAAA"}
    text = {"spec": spec, "keys": keys, "qemu": "QEMU 1", "about": {"text": "0x1"}}
    (tmp_path / saved.ABOUT).write_text(json.dumps(text))
    return tmp_path


def test_a_saved_machine_is_found(folder: Path) -> None:
    """All that was written is there again."""
    found = saved.load(folder)
    assert found.spec == MachineSpec(folder / "kernel", folder / "initrd", append=("quiet",))
    assert (found.keys.client, found.keys.host) == (folder / "client", "AAAA")
    assert found.about == {"text": "0x1"}


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    """The message says where such folders are."""
    with pytest.raises(InputError, match="no saved machine") as caught:
        saved.load(tmp_path)
    assert "results/KERNEL/RUN/TEST" in str(caught.value)


@pytest.mark.parametrize("lost", ["kernel", "initrd", "client", saved.STATE])
def test_a_part_that_is_gone_is_named(folder: Path, lost: str) -> None:
    """As after `invoke clean`."""
    (folder / lost).unlink()
    with pytest.raises(InputError, match=f"{lost} is gone"):
        saved.load(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"spec": {"kernel": 1}}'])
def test_a_damaged_description_is_refused(folder: Path, text: str) -> None:
    """Whatever is wrong with it, the file is named."""
    (folder / saved.ABOUT).write_text(text)
    with pytest.raises(InputError, match=r"machine\.json is damaged"):
        saved.load(folder)


def test_another_qemu_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state is of no use to this one."""
    monkeypatch.setattr(saved, "version_text", lambda: "QEMU 2")
    with pytest.raises(InputError, match="another QEMU"):
        saved.load(folder)
