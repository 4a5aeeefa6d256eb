# SPDX-License-Identifier: GPL-2.0-only
"""harness/build/symbols.py: what is taken of a package with a kernel's debug information."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from harness.build import symbols
from harness.errors import HostError, InputError
from harness.host.cache import Cache

RELEASE = "6.12.1-cloud-amd64"


def archive(*names: str) -> bytes:
    """A tar archive of files that contain their own names, and a link to the kernel."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as members:
        link = tarfile.TarInfo(f"./usr/lib/debug/vmlinux-{RELEASE}")
        link.type, link.linkname = tarfile.SYMTYPE, f"boot/vmlinux-{RELEASE}"
        members.addfile(link)
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            members.addfile(member, io.BytesIO(name.encode()))
    return packed.getvalue()


@pytest.mark.parametrize(
    "kernel",
    [f"./usr/lib/debug/boot/vmlinux-{RELEASE}", f"usr/lib/debug/lib/modules/{RELEASE}/vmlinux"],
)
def test_the_kernel_and_one_module_are_taken(tmp_path: Path, kernel: str) -> None:
    """Wherever they are in there, and nothing else."""
    modules = f"./usr/lib/debug/lib/modules/{RELEASE}/kernel/drivers"
    packed = archive(
        f"./usr/lib/debug/boot/System.map-{RELEASE}", kernel, f"{modules}/misc/pvpanic-mmio.ko",
        f"{modules}/misc/pvpanic.ko", f"{modules}/net/virtio_net.ko",
    )  # fmt: skip
    assert symbols.take(io.BytesIO(packed), tmp_path) == {"vmlinux", "pvpanic.ko"}
    assert {file.name for file in tmp_path.iterdir()} == {"vmlinux", "pvpanic.ko"}
    assert (tmp_path / "vmlinux").read_text() == kernel
    assert symbols.last_of(tmp_path / "vmlinux").read_text().endswith("/misc/pvpanic.ko")


def test_a_package_without_a_kernel(tmp_path: Path) -> None:
    """Nothing is found; whoever asked says of which package."""
    assert symbols.take(io.BytesIO(archive("./usr/share/doc/readme")), tmp_path) == set()


@pytest.mark.parametrize(
    "packed", [archive("./usr/lib/debug/boot/vmlinux-1")[:1040], b"no archive"]
)
def test_an_archive_that_is_cut_or_none(tmp_path: Path, packed: bytes) -> None:
    """It is no half of a kernel that is kept."""
    with pytest.raises(HostError, match="is damaged"):
        symbols.take(io.BytesIO(packed), tmp_path)


def test_a_kernel_that_was_compiled_here_has_them(tmp_path: Path) -> None:
    """Nothing is looked for."""
    with Cache(tmp_path) as cache:
        assert symbols.have({"vmlinux": "/build/vmlinux"}, cache) == Path("/build/vmlinux")


def test_it_is_known_whether_they_are_there(tmp_path: Path) -> None:
    """Whoever has not asked for them is told whether they would have to be downloaded."""
    debian = {"kernel": "wee", "package": "linux-image-1-dbg", "version": "1", "suite": "sid"}
    with Cache(tmp_path) as cache:
        assert symbols.are_there({"vmlinux": "/build/vmlinux"}, cache)
        assert not symbols.are_there({"vmlinux": ""}, cache)
        assert not symbols.are_there({"vmlinux": "", "debian": debian}, cache)
        cache.get(*symbols._place(debian), lambda folder: (folder / "vmlinux").touch())
        assert symbols.are_there({"vmlinux": "", "debian": debian}, cache)


def test_a_machine_of_which_the_kernel_is_not_known(tmp_path: Path) -> None:
    """It is told how there comes to be another one."""
    with Cache(tmp_path) as cache, pytest.raises(InputError, match="run the test again"):
        symbols.have({"vmlinux": ""}, cache)
