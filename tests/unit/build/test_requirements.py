# SPDX-License-Identifier: GPL-2.0-only
"""harness/build/requirements.py: what of its kernel a module needs, and what a kernel lacks."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest
import zstandard

from harness.build import requirements
from harness.build.kernel import Kernel
from harness.config import KernelSpec
from harness.errors import InputError
from harness.host.cache import Cache

ELF = b"\x7fELF" + bytes(100)
MODULES_DEP = """\
kernel/drivers/media/v4l2-core/videodev.ko.xz: kernel/drivers/media/mc/mc.ko.xz
kernel/drivers/media/mc/mc.ko.xz:
kernel/net/snd-pcm.ko.xz: kernel/sound/core/snd-timer.ko.xz kernel/sound/core/snd.ko.xz
kernel/sound/core/snd-timer.ko.xz: kernel/sound/core/snd.ko.xz
kernel/sound/core/snd.ko.xz:
"""
BUILT_IN = "kernel/lib/crc32.ko\nkernel/drivers/char/tpm-tis.ko\n"
SYMVERS = """\
0x4d9b6d35\tvideo_devdata\tdrivers/media/v4l2-core/videodev\tEXPORT_SYMBOL\t
0x92997ed8\t_printk\tvmlinux\tEXPORT_SYMBOL\t
0x13c49cc2\tmedia_entity\tdrivers/media/mc/mc\tEXPORT_SYMBOL_GPL\tMC
"""


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, zstandard.compress, bytes])
def test_a_packed_module_is_unpacked(pack: object) -> None:
    """In each way that kernels and dkms pack them; what is not packed stays as it is."""
    assert callable(pack)
    assert requirements.unpacked(pack(ELF)) == ELF


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, zstandard.compress, bytes])
def test_a_packed_module_cannot_be_endless(pack: object) -> None:
    """A few bytes can be packed from a gibibyte."""
    assert callable(pack)
    with pytest.raises(InputError, match="more than 0 MiB"):
        requirements.unpacked(pack(bytes(1000)), limit=999)


@pytest.mark.parametrize("head", [b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x1f\x8b"])
def test_a_damaged_packed_module_is_told_so(head: bytes) -> None:
    """With a sentence."""
    with pytest.raises(InputError, match="cannot be unpacked"):
        requirements.unpacked(head + b"nothing that could be unpacked")


def test_modules_come_after_those_that_they_need() -> None:
    """Each once, by the names that lsmod has; what is built in has no file."""
    index = requirements.read_index(MODULES_DEP, BUILT_IN)
    assert index.has("tpm_tis")
    assert index.has("snd_pcm")
    assert not index.has("nothing")
    names = [
        requirements.name_of(file)
        for file in requirements.loading_order(["snd_pcm", "crc32", "videodev", "snd"], index)
    ]
    assert names == ["snd", "snd_timer", "snd_pcm", "mc", "videodev"]


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content of each entry of a newc archive: a head of 110 bytes, all in fours."""
    found = {}
    while archive:
        assert archive.startswith(b"070701")
        fields = [int(archive[start : start + 8], 16) for start in range(6, 110, 8)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = archive[110 : 110 + length - 1].decode()
        start = (110 + length + 3) // 4 * 4
        found[name] = (mode, archive[start : start + size])
        archive = archive[(start + size + 3) // 4 * 4 :]
    return found


def test_an_archive_has_files_and_their_folders() -> None:
    """Folders before what is in them, and an end that says so."""
    files = {"usr/lib/firmware/fw.bin": b"hello", "usr/lib/modules/a.ko": ELF}
    found = entries(requirements.cpio(files))
    assert list(found)[:2] == ["usr", "usr/lib"]
    assert list(found)[-1] == "TRAILER!!!"
    for name, data in files.items():
        assert found[name] == (0o100644, data)
    assert found["usr/lib/firmware"] == (0o040755, b"")


def test_who_exports_a_symbol_is_found() -> None:
    """In a kernel's Module.symvers, with and without a namespace."""
    found = requirements.exporters(["video_devdata", "media_entity", "nobodys"], SYMVERS)
    assert found == {
        "video_devdata": "drivers/media/v4l2-core/videodev",
        "media_entity": "drivers/media/mc/mc",
    }


@pytest.mark.parametrize(
    ("part", "option"),
    [("drivers/media/v4l2-core/videodev", "CONFIG_VIDEO_DEV"), ("sound/core/snd-pcm",
     "CONFIG_SND_PCM"), ("drivers/usb/core/usbcore", "")],
)  # fmt: skip
def test_an_option_is_told_by_its_modules_name(part: str, option: str) -> None:
    """Most are called alike; where it is not clear, nothing is said."""
    options = ["CONFIG_VIDEO_DEV", "CONFIG_SND_PCM", "CONFIG_USB"]
    assert requirements.option_of(part, options) == option


def kernel(name: str, flavour: str) -> Kernel:
    """One that was unpacked, and of which there is no .config."""
    spec = KernelSpec(name=name, suite="trixie", flavour=flavour)
    its = Mock(spec=Kernel)
    its.name, its.spec, its.config = name, spec, Path("/nowhere/config")
    return cast(Kernel, its)


@pytest.mark.parametrize(
    ("symbols", "others", "said"),
    [
        ({"video_devdata"}, ["trixie-generic"], "trixie-generic has it, in videodev"),
        # Nobody knows yet whether the other flavour has it.
        ({"nobody_has_this"}, [], "a cloud kernel has few drivers, trixie-generic has them all"),
        ({"nobody_has_this"}, ["bookworm"], "a cloud kernel has few drivers"),
        (
            {"nobody_has_this", "video_devdata"},
            ["trixie-generic", "bookworm"],
            "no kernel that was looked at (trixie, trixie-generic, bookworm) exports "
            "nobody_has_this; where a C file",
        ),
    ],
    ids=["it has it", "not asked", "another one asked", "nowhere"],
)
def test_a_kernel_is_advised_that_has_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, symbols: set[str], others: list[str], said: str
) -> None:
    """And none where no kernel has it: then it is the module that lacks something."""
    asked = [(name, SYMVERS, frozenset[str]()) for name in others]
    monkeypatch.setattr(requirements, "_cached_kernels", lambda *_: iter(asked))
    its = kernel("trixie", "cloud-amd64")
    assert said in requirements.lacks_symbols(symbols, its, cast(Cache, None))


def test_a_kernel_with_all_drivers_is_not_sent_to_another_flavour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it does not export is the module's to bring."""
    monkeypatch.setattr(requirements, "_cached_kernels", lambda *_: iter(()))
    its = kernel("trixie-generic", "amd64")
    advice = requirements.lacks_symbols({"nobody_has_this"}, its, cast(Cache, None))
    assert "(trixie-generic) exports nobody_has_this" in advice
