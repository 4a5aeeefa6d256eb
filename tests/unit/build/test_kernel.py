# SPDX-License-Identifier: GPL-2.0-only
"""harness/build/kernel.py: finding the kernel in an unpacked tree, in every release's layout."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from harness.build import archive, kernel
from harness.build.archive import Release
from harness.config import KernelSpec
from harness.errors import GoneError, HarnessError
from harness.host import debian
from harness.host.cache import Cache, Entry
from harness.host.debian import Sysroot

RELEASE = "6.12.9+deb13-cloud-amd64"
SPEC = KernelSpec("wee", "trixie", "cloud-amd64", release=RELEASE, version="6.12.9-1")


def put(path: Path) -> Path:
    """An empty file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Sysroot:
    """An unpacked tree with a merged /usr and nothing in it."""
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    return Sysroot(root, Entry("sysroot", "kernel-wee", "0123456789abcdef", tmp_path))


def headers(tree: Sysroot, release: str = RELEASE) -> None:
    put(tree.root / f"usr/src/linux-headers-{release}/Makefile")


def in_boot(tree: Sysroot, release: str = RELEASE, modules: str = "usr/lib/modules") -> None:
    put(tree.root / f"boot/vmlinuz-{release}")
    put(tree.root / f"boot/config-{release}")
    put(tree.root / modules / release / "modules.order")


def test_an_image_in_boot(tree: Sysroot) -> None:
    """Debian up to 6.x: image and config in /boot, modules in /usr/lib/modules."""
    in_boot(tree)
    headers(tree)
    found = kernel.locate(SPEC, tree)
    assert found.release == RELEASE
    assert found.image == tree.root / f"boot/vmlinuz-{RELEASE}"
    assert found.config == tree.root / f"boot/config-{RELEASE}"
    assert found.modules == tree.root / f"usr/lib/modules/{RELEASE}"
    assert found.build == f"/usr/src/linux-headers-{RELEASE}"
    assert (found.name, found.digest) == ("wee", "0123456789abcdef")


def test_modules_in_a_lib_of_its_own(tree: Sysroot) -> None:
    """Debian before the merged /usr: /lib is a folder and the modules are in it."""
    (tree.root / "lib").unlink()
    in_boot(tree, modules="lib/modules")
    headers(tree)
    found = kernel.locate(SPEC, tree)
    assert found.modules == tree.root / f"lib/modules/{RELEASE}"
    assert found.image == tree.root / f"boot/vmlinuz-{RELEASE}"


def test_an_image_beside_its_modules(tree: Sysroot) -> None:
    """Debian from 7.x on: image and config in the modules' folder, nothing in /boot."""
    modules = tree.root / f"usr/lib/modules/{RELEASE}"
    image, config = put(modules / "vmlinuz"), put(modules / "config")
    headers(tree)
    found = kernel.locate(SPEC, tree)
    assert (found.image, found.config, found.modules) == (image, config, modules)


def test_modules_without_an_image_are_not_a_kernel(tree: Sysroot) -> None:
    """A folder of modules that some other package brings does not count."""
    in_boot(tree)
    headers(tree)
    put(tree.root / "usr/lib/modules/6.0.0-other/extra/x.ko")
    assert kernel.locate(SPEC, tree).release == RELEASE


def test_no_kernel_is_an_error_that_names_the_flavour(tree: Sysroot) -> None:
    """A flavour that brings no image is told as such."""
    put(tree.root / f"usr/lib/modules/{RELEASE}/modules.order")
    with pytest.raises(HarnessError) as caught:
        kernel.locate(SPEC, tree)
    assert "wee" in caught.value.what
    assert "no kernel" in caught.value.what
    assert "cloud-amd64" in caught.value.hint


def test_two_kernels_are_an_error_that_names_both(tree: Sysroot) -> None:
    """Which of two to test is not for the harness to guess."""
    in_boot(tree)
    in_boot(tree, "6.1.0-9-amd64")
    headers(tree)
    headers(tree, "6.1.0-9-amd64")
    with pytest.raises(HarnessError) as caught:
        kernel.locate(SPEC, tree)
    assert RELEASE in caught.value.what
    assert "6.1.0-9-amd64" in caught.value.what


def test_headers_of_another_release_are_an_error(tree: Sysroot) -> None:
    """An archive whose image and headers are out of step is told as such."""
    in_boot(tree)
    headers(tree, "6.12.8+deb13-cloud-amd64")
    with pytest.raises(HarnessError) as caught:
        kernel.locate(SPEC, tree)
    assert RELEASE in caught.value.what
    assert "headers" in caught.value.what


@pytest.fixture
def prepared(
    tmp_path: Path, tree: Sysroot, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Cache, dict[str, object]]]:
    """A cache, and what is asked for where ``tree`` comes instead of a download."""
    asked: dict[str, object] = {}

    def fake(cache: Cache, **what: object) -> Sysroot:
        asked.update(what)
        return tree

    monkeypatch.setattr(debian, "unpack_packages", fake)
    in_boot(tree)
    headers(tree)
    with contextlib.closing(Cache(tmp_path / "cache")) as cache:
        yield cache, asked


def test_prepare_asks_for_image_headers_and_build_tools(
    prepared: tuple[Cache, dict[str, object]],
) -> None:
    """One tree has all that booting and building take: the exact kernel of that suite."""
    cache, asked = prepared
    assert kernel.prepare_kernel(SPEC, cache).release == RELEASE
    assert asked["suite"] == "trixie"
    packages = asked["packages"]
    assert isinstance(packages, list)
    exact = {f"linux-{what}-{RELEASE}=6.12.9-1" for what in ("image", "headers")}
    assert {*exact, "make"} <= set(packages)


@pytest.fixture
def vanished(prepared: tuple[Cache, dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An archive that has 6.12.10 and no longer 6.12.9."""
    real = debian.unpack_packages

    def prepare(cache: Cache, **asked: Any) -> Sysroot:
        if any("=6.12.9-1" in package for package in asked["packages"]):
            raise GoneError("Debian trixie has no package linux-image-x 6.12.9-1")
        return real(cache, **asked)

    newer = Release("trixie", RELEASE, "6.12.10-1")
    monkeypatch.setattr(debian, "unpack_packages", prepare)
    monkeypatch.setattr(archive, "newest", lambda *_, **__: newer)
    return prepared[0]


def test_a_locked_kernel_that_vanished_gives_way_to_the_newest(
    vanished: Cache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that is older than what the archive keeps is told, and nobody is stopped by it."""
    found = kernel.prepare_kernel(SPEC, vanished)
    assert found.spec.version == "6.12.10-1"
    assert "6.12.9-1) is no longer in Debian trixie" in caplog.text
    assert "(6.12.10-1), which is taken; `invoke kernels --update --kernel wee`" in caplog.text
    # Other processes of the run do not ask for it again.
    caplog.clear()
    assert kernel.prepare_kernel(SPEC, vanished).spec.version == "6.12.10-1"
    assert caplog.text == ""


def test_a_release_that_was_asked_for_has_no_stand_in(
    vanished: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who names a release means that one."""
    monkeypatch.setattr(archive, "resolve", lambda *_: SPEC)
    with pytest.raises(GoneError, match=r"the newest there is .* \(6\.12\.10-1\)"):
        kernel.prepare_kernel(replace(SPEC, version=""), vanished)


@pytest.mark.parametrize("version", ["6.12.9-1", "6.12.10-1"])
@pytest.mark.parametrize("instead", [False, True])
def test_a_kernel_with_nothing_to_take_instead_is_tried_once(
    prepared: tuple[Cache, dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    instead: bool,
) -> None:
    """Image and headers are out of step, or a tool is missing: what apt said is the reason."""
    cache, _ = prepared
    tried = []

    def prepare(_: Cache, **asked: Any) -> Sysroot:
        tried.append(asked["packages"][0])
        raise GoneError("Debian trixie has no package linux-headers-x")

    spec = replace(SPEC, version=version)
    newest = Release("trixie", RELEASE, version)
    monkeypatch.setattr(debian, "unpack_packages", prepare)
    monkeypatch.setattr(archive, "newest", lambda *_, **__: newest)
    if instead:  # what was taken yesterday is what is out of step today
        spec = replace(SPEC, version="6.12.8-1")
        archive.take_newest(spec, cache)
    with pytest.raises(GoneError, match=r"^Debian trixie has no package linux-headers-x$"):
        kernel.prepare_kernel(spec, cache)
    assert tried == [f"linux-image-{RELEASE}={version}"]


# -- starting a kernel without its decompressor ------------------------------------

ELF = b"\x7fELF" + bytes(range(256)) * 64

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "gzip": gzip.compress,
}


def bz_image(payload: bytes, *, sectors: int = 7, offset: int = 0x140) -> bytes:
    """A bzImage as the boot protocol describes it: setup, a decompressor, and its payload."""
    setup = bytearray((sectors + 1) * 512)
    setup[0x1F1] = sectors
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, offset, len(payload))
    return bytes(setup) + b"\x90" * offset + payload + b"\x90" * 100


@pytest.mark.parametrize("packer", PACKERS)
def test_the_elf_file_comes_out_of_a_bzimage(packer: str) -> None:
    """Each compression that Debian's kernels have had, with the length that follows it."""
    packed = PACKERS[packer](ELF) + struct.pack("<I", len(ELF))
    assert kernel.payload(bz_image(packed)) == ELF


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("harm", ["cut", "not ELF"])
def test_a_payload_that_is_no_kernel_is_none(packer: str, harm: str) -> None:
    """Then the bzImage itself is booted; nothing is raised and nothing half is used."""
    packed = PACKERS[packer](ELF if harm == "cut" else b"MZ" + ELF)
    if harm == "cut":
        packed = packed[: len(packed) // 2]
    packed += struct.pack("<I", len(ELF))
    assert kernel.payload(bz_image(packed)) is None


@pytest.mark.parametrize(
    "image", [b"", b"\x7fELF" + bytes(1024), bz_image(b""), bz_image(b"BZh9 unknown")]
)
def test_what_is_no_bzimage_has_no_payload(image: bytes) -> None:
    """A file of another form, or another compression, is booted as it is."""
    assert kernel.payload(image) is None


@pytest.mark.parametrize(
    ("config", "direct"), [("CONFIG_PVH=y\n", True), ("# CONFIG_PVH is not set\n", False)]
)
def test_only_a_kernel_with_a_pvh_entry_is_started_directly(
    prepared: tuple[Cache, dict[str, object]], tree: Sysroot, config: str, direct: bool
) -> None:
    """QEMU gets the unpacked kernel where that can boot, else what the packages hold."""
    cache, _ = prepared
    image = tree.root / f"boot/vmlinuz-{RELEASE}"
    image.write_bytes(bz_image(gzip.compress(ELF) + bytes(4)))
    (tree.root / f"boot/config-{RELEASE}").write_text(config)
    found = kernel.prepare_kernel(SPEC, cache)
    assert found.image == image
    if direct:
        assert found.boot.read_bytes() == ELF
    else:
        assert found.boot == image
