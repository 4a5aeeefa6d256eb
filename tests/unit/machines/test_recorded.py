# SPDX-License-Identifier: GPL-2.0-only
"""harness/machines/recorded.py: what a recording needs so that it can be played back."""

from __future__ import annotations

import errno
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import InputError, SpaceError
from harness.machines import recorded
from harness.qemu import MachineSpec
from harness.qemu.machine import WantedRecording


@pytest.fixture
def about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A whole recording in ``tmp_path``; what its description says."""
    monkeypatch.setattr(recorded, "version_text", lambda: "QEMU emulator version 7.2.22")
    folder = tmp_path / recorded.FOLDER
    folder.mkdir()
    for name in (recorded.LOG, recorded.FILES, recorded.CONSOLE, "kernel", "initrd"):
        (folder / name).touch()
    spec = asdict(MachineSpec(folder / "kernel", folder / "initrd"))
    return {
        "spec": {**spec, "kernel": str(spec["kernel"]), "initrd": str(spec["initrd"])},
        "qemu": "QEMU emulator version 7.2.22", "began": 400, "end": 1000,
        "console": 10, "panicked": False,
        "seconds": 8.5, "about": {},
    }  # fmt: skip


def write(folder: Path, about: dict[str, Any]) -> None:
    (folder / recorded.FOLDER / recorded.ABOUT).write_text(json.dumps(about))


def test_what_was_written_is_read(tmp_path: Path, about: dict[str, Any]) -> None:
    """From the folder of the test's evidence, and from the recording's own."""
    write(tmp_path, about)
    found = recorded.load(tmp_path)
    assert (found.began, found.end, found.console, found.seconds) == (400, 1000, 10, 8.5)
    assert found.spec == MachineSpec(
        tmp_path / recorded.FOLDER / "kernel", tmp_path / recorded.FOLDER / "initrd"
    )
    assert recorded.load(tmp_path / recorded.FOLDER) == found


def test_another_qemu_is_said(tmp_path: Path, about: dict[str, Any]) -> None:
    """Its file has another format, or it emulates something else."""
    write(tmp_path, {**about, "qemu": "QEMU emulator version 10.0.2"})
    with pytest.raises(InputError, match=r"by QEMU emulator version 10\.0\.2, and here is .*7\.2"):
        recorded.load(tmp_path)


@pytest.mark.parametrize("name", [recorded.LOG, recorded.FILES, recorded.CONSOLE, "initrd"])
def test_what_is_gone_is_named(tmp_path: Path, about: dict[str, Any], name: str) -> None:
    """The cache may have been emptied meanwhile."""
    write(tmp_path, about)
    (tmp_path / recorded.FOLDER / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is gone"):
        recorded.load(tmp_path)


def test_a_folder_without_a_recording_is_told_from_a_damaged_one(
    tmp_path: Path, about: dict[str, Any]
) -> None:
    """The one was never recorded, the other was."""
    with pytest.raises(InputError, match="there is no recording in"):
        recorded.load(tmp_path)
    del about["end"]
    write(tmp_path, about)
    with pytest.raises(InputError, match="is damaged"):
        recorded.load(tmp_path)


def finish(machine_folder: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a machine that was recorded, and whose recording is wanted in ``kept``."""
    monkeypatch.setattr(recorded, "instructions", lambda _: 1000)
    monkeypatch.setattr(recorded, "version_text", lambda: "QEMU emulator version 7.2.22")
    machine_folder.mkdir()
    for name in (recorded.LOG, recorded.FILES, recorded.CONSOLE):
        (machine_folder / name).write_text(name)
    kernel = machine_folder / "kernel"
    kernel.touch()
    machine = SimpleNamespace(
        wanted=WantedRecording(kept, {}), log=SimpleNamespace(size=10), panicked=True,
        quit=lambda _: None, paced=SimpleNamespace(sent=[b"an order"]),
        spec=MachineSpec(kernel, kernel),
    )  # fmt: skip
    running: Any = SimpleNamespace(machine=machine, began=400, sections={})
    recorded._finish(running, kernel, machine_folder, time.monotonic())


def test_what_is_wanted_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a replay needs."""
    finish(tmp_path / "machine", tmp_path / "kept", monkeypatch)
    found = recorded.load(tmp_path / "kept")
    assert (found.began, found.end, found.console, found.panicked) == (400, 1000, 10, True)
    assert (found.folder / recorded.ORDERS).read_bytes() == b"an order"


def test_a_full_disk_for_results_is_told_from_a_full_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a recording is no use to anybody, and takes the room."""
    copy = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        copy(source, target)
        if target.name == recorded.CONSOLE:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    kept = tmp_path / "kept"
    with pytest.raises(SpaceError, match=r"keeping the recording in .*kept/recording failed") as no:
        finish(tmp_path / "machine", kept, monkeypatch)
    assert no.value.hint is not None
    assert "nothing to replay" in no.value.hint
    assert "the disk that has the results" in no.value.hint
    assert list(kept.iterdir()) == []
