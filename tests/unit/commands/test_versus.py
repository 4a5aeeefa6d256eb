# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/versus.py: the same check by virtme-ng."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.commands import versus
from harness.errors import InputError, MissingToolError, OwnFaultError

RELEASE = "6.1.0-1-amd64"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs, the only one on the path but for the system's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def program(folder: Path, name: str, does: str) -> None:
    made = folder / name
    made.write_text(f"#!/bin/sh\n{does}\n")
    made.chmod(0o755)


@pytest.fixture
def kernel(tmp_path: Path) -> Any:
    """One as it is unpacked, whose modules have what virtme-ng needs."""
    modules = tmp_path / "sysroot/usr/lib/modules" / RELEASE
    (modules / "kernel/fs/9p").mkdir(parents=True)
    (modules / "kernel/fs/9p/9p.ko.xz").touch()
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (modules / name).touch()
    boot = tmp_path / "vmlinuz"
    boot.write_text("the kernel")
    return SimpleNamespace(release=RELEASE, modules=modules, boot=boot)


def test_what_is_missing_is_told(programs: Path, kernel: Any) -> None:
    """With where to get it."""
    program(programs, "depmod", "true")
    with pytest.raises(MissingToolError, match="vng") as missing:
        versus.require(kernel)
    assert "virtme-ng" in missing.value.hint
    program(programs, "vng", "true")
    versus.require(kernel)
    (kernel.modules / "kernel/fs/9p/9p.ko.xz").unlink()
    with pytest.raises(InputError, match=f"9p, which {RELEASE} does not have"):
        versus.require(kernel)


def test_a_kernel_is_laid_out_as_on_a_host(programs: Path, kernel: Any, tmp_path: Path) -> None:
    """virtme-ng looks for the modules beside the folder of the kernel's file."""
    program(programs, "depmod", 'echo "$@" >"$2/asked"')
    root = tmp_path / "root"
    boot = versus.tree(kernel, root)
    assert boot.read_text() == "the kernel"
    assert boot.relative_to(root) == Path("boot", f"vmlinuz-{RELEASE}")
    assert (root / "lib/modules" / RELEASE / "kernel/fs/9p/9p.ko.xz").exists()
    assert (root / "asked").read_text().split() == ["-b", str(root), RELEASE]


def test_only_a_check_that_came_to_its_end_counts(programs: Path) -> None:
    """virtme-ng ends with 0 after a kernel that has panicked, and shows the command's echo."""
    program(programs, "vng", "printf 'c-w- eudyptula\\r\\ndone\\r\\nreboot\\r\\n' >&2")
    versus.check(Path("vmlinuz"), Path("it.ko"))
    program(programs, "vng", 'echo "$@"; echo "Kernel panic - not syncing"')
    with pytest.raises(OwnFaultError) as failed:
        versus.check(Path("vmlinuz"), Path("it.ko"))
    assert "Kernel panic" in failed.value.tail
