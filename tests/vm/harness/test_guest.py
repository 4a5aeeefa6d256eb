# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel finds in the guest as on any other machine."""

from __future__ import annotations

from harness.testing import Guest

HELPER = "/root/helper"


def test_the_kernel_can_start_programs(guest: Guest) -> None:
    """As modprobe, when somebody wants a family of sockets that it does not have yet.

    It also finds what a test has mounted.
    """
    guest.check("mount -t tmpfs planted /mnt")
    guest.check(f"printf '#!/bin/sh\\necho $* >/mnt/asked\\n' >{HELPER}; chmod +x {HELPER}")
    guest.check(f"echo {HELPER} >/proc/sys/kernel/modprobe")
    guest.run("perl -e 'socket(my $none, 35, 2, 0)'")  # AF_PHONET
    assert "net-pf-35" in guest.check("cat /mnt/asked")
