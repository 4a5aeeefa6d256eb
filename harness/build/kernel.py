# SPDX-License-Identifier: GPL-2.0-only
"""From the name of a kernel to its image, its modules, its headers and its compiler."""

from __future__ import annotations

import logging
import lzma
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import zstandard

from harness.build import archive, compile
from harness.build.compile import Built
from harness.config import KernelSpec
from harness.errors import GoneError, HarnessError
from harness.host import debian
from harness.host.cache import Cache, Entry
from harness.host.debian import Sysroot

log = logging.getLogger(__name__)

# What building a module takes besides the headers, which bring their own compiler:
# kbuild's tools, libc's headers for host programs, sparse for `invoke check`.
BUILD_PACKAGES = (
    "base-files", "bash", "coreutils", "dash", "findutils", "gawk", "grep", "gzip", "kmod",
    "libc6-dev", "make", "perl-base", "sed", "sparse", "tar", "xz-utils",
)  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """A kernel that is there: everything needed to boot it and to build for it.

    ``image`` is what the packages hold (a bzImage), ``boot`` what QEMU is given;
    ``config`` and ``modules`` are paths on the host too; ``build`` is the folder that
    kbuild is run in, as seen from inside ``sysroot`` with ``mounts`` (read-only folders).
    A kernel that was compiled here is ``made`` and has a ``vmlinux`` with debug information.
    """

    spec: KernelSpec
    release: str
    image: Path
    boot: Path
    config: Path
    modules: Path
    build: str
    sysroot: Sysroot
    mounts: Mapping[str, Path] = field(default_factory=dict)
    made: Entry | None = None
    vmlinux: Path | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def digest(self) -> str:
        """Stands for everything the kernel is made of."""
        return (self.made or self.sysroot.entry).digest


def prepare_kernel(spec: KernelSpec, cache: Cache) -> Kernel:
    """The kernel, downloaded and unpacked or compiled if it is not in the cache yet.

    Raises ``NetworkError``, ``SpaceError``, ``InputError`` (no such suite or package, no
    kernel tree), ``KernelBuildError``.
    """
    if spec.tree is not None:
        return _compiled(spec, compile.from_tree(spec, cache))
    exact = archive.resolve(archive.instead_of(spec, cache) or spec, cache)
    try:
        return _from_archive(exact, cache)
    except GoneError as error:
        gone = archive.gone(exact, error, cache)
        if gone is error:
            raise  # there is nothing else to take
        if not spec.version:
            raise gone from error
    # Only the lock is older than what the archive keeps: a machine that never had this kernel
    # must still get to a verdict. The result says which kernel it is of.
    newer = archive.take_newest(spec, cache)
    log.warning("%s, which is taken; %s", gone.what, gone.hint)
    return _from_archive(newer, cache)


def _from_archive(exact: KernelSpec, cache: Cache) -> Kernel:
    """The kernel of exactly these packages; raises ``GoneError``."""
    if exact.profile:
        return _compiled(exact, compile.from_suite(exact, cache))
    tree = debian.unpack_packages(
        cache,
        label=f"kernel-{exact.name}",
        suite=exact.suite,
        packages=[*archive.packages(exact, ("linux-image", "linux-headers")), *BUILD_PACKAGES],
        note=f"kernel {exact.name}: downloading and unpacking image, headers and compiler "
        f"of {exact.release} from Debian {exact.suite} (about 20 s)",
    )
    kernel = locate(exact, tree)
    unpacked = cache.get(
        "vmlinux",
        exact.name,
        {"recipe": 1, "kernel": kernel.digest},
        lambda folder: _unpack_image(folder, kernel),
    )
    # Without an accelerator, a kernel takes a second and a half to decompress itself. One
    # with a PVH entry can be started as the ELF file that is inside its bzImage.
    vmlinux = unpacked.path / "vmlinux"
    return replace(kernel, boot=vmlinux) if vmlinux.exists() else kernel


def _compiled(spec: KernelSpec, built: Built) -> Kernel:
    return Kernel(
        spec, built.release, built.image, built.boot, built.config, built.modules, compile.BUILD,
        built.tools, built.mounts, built.entry, built.vmlinux,
    )  # fmt: skip


def locate(spec: KernelSpec, tree: Sysroot) -> Kernel:
    """Find the kernel in an unpacked tree, wherever this Debian release puts it."""
    # Before Debian merged /usr, packages had their modules in /lib.
    folders = [*tree.root.glob("usr/lib/modules/*")]
    if not (tree.root / "lib").is_symlink():
        folders += tree.root.glob("lib/modules/*")
    found = []
    for modules in folders:
        release = modules.name
        # Debian keeps the image in /boot up to 6.x, beside the modules from 7.x on.
        for image, config in (
            (tree.root / f"boot/vmlinuz-{release}", tree.root / f"boot/config-{release}"),
            (modules / "vmlinuz", modules / "config"),
        ):
            if image.exists():
                build = f"/usr/src/linux-headers-{release}"
                found.append(Kernel(spec, release, image, image, config, modules, build, tree))
    if len(found) != 1:
        what = "no kernel" if not found else ", ".join(kernel.release for kernel in found)
        raise HarnessError(
            f"the packages of kernel {spec.name} hold {what} where one kernel was expected",
            hint=f"check flavour = {spec.flavour!r} in vm/kernels.toml",
        )
    kernel = found[0]
    if not (tree.root / kernel.build.lstrip("/")).is_dir():
        raise HarnessError(
            f"the packages of kernel {spec.name} ({kernel.release}) hold no matching headers",
            hint="image and headers in the archive are out of step; try again later",
        )
    return kernel


def _unpack_image(folder: Path, kernel: Kernel) -> None:
    """Put ``vmlinux`` into ``folder`` if this kernel can be started without its bzImage."""
    if "CONFIG_PVH=y" not in kernel.config.read_text().splitlines():
        return
    vmlinux = payload(kernel.image.read_bytes())
    if vmlinux is not None:
        (folder / "vmlinux").write_bytes(vmlinux)


def payload(image: bytes) -> bytes | None:
    """The ELF file inside a bzImage, or None if it cannot be had.

    The header's fields are those of the x86 boot protocol, 2.08 and later
    (Documentation/arch/x86/boot.rst); the payload ends with four bytes of its own length.
    """
    if image[0x202:0x206] != b"HdrS":
        return None
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    packed = image[start : start + length]
    unpacker: Any
    try:
        if packed.startswith(b"\x28\xb5\x2f\xfd"):
            unpacker = zstandard.ZstdDecompressor().decompressobj()
            elf = unpacker.decompress(packed[:-4])
        elif packed.startswith(b"\xfd7zXZ\x00"):
            unpacker = lzma.LZMADecompressor()
            elf = unpacker.decompress(packed)
        elif packed.startswith(b"\x1f\x8b"):
            unpacker = zlib.decompressobj(wbits=31)
            elf = unpacker.decompress(packed)
        else:
            return None
    except (zstandard.ZstdError, lzma.LZMAError, zlib.error):
        return None
    return elf if unpacker.eof and elf.startswith(b"\x7fELF") else None
