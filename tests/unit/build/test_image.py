# SPDX-License-Identifier: GPL-2.0-only
"""harness/build/image.py: which modules a guest needs to boot."""

from __future__ import annotations

import pytest

from harness.build import image

# The form of depmod's modules.dep (modules.dep(5)): a file, and what must be loaded for it.
MODULES_DEP = """\
kernel/drivers/virtio/virtio.ko.xz:
kernel/drivers/virtio/virtio_ring.ko.xz: kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz \
kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/char/hw_random/rng-core.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/char/hw_random/rng-core.ko.xz \
kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/net/virtio_net_extra.ko.xz: kernel/drivers/net/other.ko.xz
"""
RING = ["kernel/drivers/virtio/virtio_ring.ko.xz", "kernel/drivers/virtio/virtio.ko.xz"]


def test_a_module_comes_with_all_that_it_depends_on() -> None:
    """Everything that modprobe will want is there, once."""
    found = image.dependencies(MODULES_DEP, ("virtio_pci",))
    assert sorted(found) == sorted([*RING, "kernel/drivers/virtio/virtio_pci.ko.xz"])


def test_what_several_need_is_there_once() -> None:
    """Shared dependencies are not repeated, and nothing else comes along."""
    found = image.dependencies(MODULES_DEP, ("virtio_pci", "virtio_rng"))
    assert sorted(found) == sorted(
        [
            *RING,
            "kernel/drivers/virtio/virtio_pci.ko.xz",
            "kernel/drivers/char/hw_random/rng-core.ko.xz",
            "kernel/drivers/char/hw_random/virtio-rng.ko.xz",
        ]
    )


@pytest.mark.parametrize("name", ["virtio_rng", "virtio-rng"])
def test_dashes_and_underscores_are_the_same(name: str) -> None:
    """As for modprobe: a file has the one, lsmod shows the other."""
    assert "kernel/drivers/char/hw_random/virtio-rng.ko.xz" in image.dependencies(
        MODULES_DEP, (name,)
    )


@pytest.mark.parametrize("ending", [".ko", ".ko.xz", ".ko.gz", ".ko.zst"])
def test_compressed_and_plain_modules_are_found(ending: str) -> None:
    """Debian compresses its modules since 13, and did not before."""
    text = MODULES_DEP.replace(".ko.xz", ending)
    assert f"kernel/drivers/virtio/virtio_pci{ending}" in image.dependencies(text, ("virtio_pci",))


def test_what_is_built_in_is_not_missed() -> None:
    """A name that modules.dep does not have is no error; a longer name is not it either."""
    assert image.dependencies(MODULES_DEP, ("vmgenid", "virtio_net")) == []
    assert image.dependencies("", ("virtio_pci",)) == []
