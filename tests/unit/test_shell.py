# SPDX-License-Identifier: GPL-2.0-only
"""harness/shell.py: what a person's terminal is connected to, without a machine."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from harness import shell
from harness.image import Keys
from harness.qemu import MachineSpec
from harness.scene import Scene


@pytest.mark.parametrize("runtime", ["", "run", "nowhere"])
def test_gdbs_socket_is_the_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    """Whoever may connect to it may do what this user may."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / runtime) if runtime else "")
    with shell.gdb_socket() as path:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (tmp_path / "run" in path.parents) is (runtime == "run")
    assert not path.parent.exists()


def test_gdb_is_told_where_the_machine_is(tmp_path: Path) -> None:
    """The command attaches to the socket, with the symbols that there are."""
    spec = MachineSpec(Path("/k/vmlinuz"), Path("/k/initrd"))
    about = {"module": "/m/wee.ko", "text": "0xffffffffa0000000", "vmlinux": ""}
    saved = Scene(tmp_path, spec, Keys(tmp_path, ""), "QEMU", about)
    assert shell.gdb_command(saved, Path("/run/x/gdb")) == (
        "gdb -ex 'target remote /run/x/gdb' -ex 'add-symbol-file /m/wee.ko 0xffffffffa0000000' "
        "/k/vmlinuz"
    )
