# SPDX-License-Identifier: GPL-2.0-only
"""What /proc/hello promises, each in a virtual machine of its own."""

from harness.testing import Guest, Module


def test_it_greets(loaded: Guest) -> None:
    """Anybody can read the file."""
    assert loaded.check("cat /proc/hello", user="nobody") == "hello, world\n"


def test_it_greets_whom_it_is_told_to(guest: Guest, module: Module) -> None:
    """Loaded by the test itself, with a parameter."""
    guest.put(module.loadable, "/root/hello.ko")
    guest.check("insmod /root/hello.ko whom=reader")
    assert guest.check("cat /proc/hello") == "hello, reader\n"


def test_it_can_be_unloaded(loaded: Guest) -> None:
    """What it leaves behind would make this test red."""
    loaded.check("cat /proc/hello && rmmod hello")
