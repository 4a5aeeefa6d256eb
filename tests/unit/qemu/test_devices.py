# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/devices.py: what QEMU's lists of devices say."""

from __future__ import annotations

import pytest

from harness.qemu import devices

HELP = """\
Network devices:
name "e1000", bus PCI, alias "e1000-82540em", desc "Intel Gigabit Ethernet"
name "virtio-net-pci", bus PCI, alias "virtio-net"

Misc devices:
name "edu", bus PCI
name "vmgenid"
"""


def test_devices_have_names_and_aliases() -> None:
    """The headings of the list are none."""
    assert devices.named(HELP) == {
        "e1000": "e1000", "e1000-82540em": "e1000", "edu": "edu", "vmgenid": "vmgenid",
        "virtio-net-pci": "virtio-net-pci", "virtio-net": "virtio-net-pci",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "lost"),
    [
        ("e1000,mac=52:54:00:12:34:56", []),
        ("e1000-82540em", []),
        ("edu,dma_mask=0xff", ["edu"]),
        ("virtio-net-pci", []),
        ("virtio-net", []),
        ("virtio-net-pci-non-transitional", []),
        ("virtio-mem-pci", []),
        ("virtio-pmem-pci", ["virtio-pmem-pci"]),
    ],
)
def test_a_device_without_a_state_is_lost_when_its_machine_is_saved(
    given: str, lost: list[str]
) -> None:
    """What QEMU saves of a virtio device on a PCI bus is the device behind it."""
    with_state = frozenset({"e1000", "virtio-net-device", "virtio-mem"})
    assert devices.unsaved([given], with_state, devices.named(HELP)) == lost
