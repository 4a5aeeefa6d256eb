# SPDX-License-Identifier: GPL-2.0-only
"""The calls that the suites make (tests/vm/calls.pl): the kernel gets what was asked for."""

from __future__ import annotations

from harness.testing import Guest

from ..calls import perform


def test_sizes_and_addresses_are_what_was_asked_for(guest: Guest) -> None:
    """Each size, also where no memory is filled before: /dev/null and /dev/zero answer with it."""
    zero, null = perform(
        guest,
        [
            "open /dev/zero r ; read 0 ; read 10 ; read 4096 ; read 100@null ; pread 10 4097",
            "open /dev/null w ; write 7 ; write 100@null ; write 100@kernel ; write 10:a ; "
            "pwrite 8 1",
        ],
    )
    assert zero.answers[1:] == ("0", "10", "4096", "-14", "10")  # EFAULT
    assert null.answers[1:] == ("7", "100", "-14", "10", "8")
