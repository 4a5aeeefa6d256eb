# SPDX-License-Identifier: GPL-2.0-only
"""The device: who may open it and for what, and what its file can do besides write()."""

from __future__ import annotations

import re
from errno import EACCES, EBADF, EINVAL, EMSGSIZE, ESPIPE

from harness.testing import Guest, Module

from .conftest import NODE, POLL_READY, Counters, Writer, writer_in


def test_it_is_named_as_in_the_exercise(module: Module) -> None:
    """The build makes waitqueues.ko, so that `rmmod waitqueues` means this module."""
    assert module.ko.name == "waitqueues.ko"


def test_it_cannot_be_read(writer: Writer) -> None:
    """open() for reading, only or too, is EACCES even for root; read() is EBADF."""
    assert writer.open("r") == -EACCES
    assert writer.open("rw") == -EACCES
    assert writer.call("read") == -EBADF


def test_it_cannot_be_read_whatever_its_mode_is(loaded: Guest) -> None:
    """After chmod 0666 too, reading is refused to everyone and writing is not."""
    loaded.check(f"chmod 0666 {NODE}")
    for user in ("root", "nobody"):
        with writer_in(loaded, user) as writer:
            assert writer.open("r") == -EACCES
            assert writer.open("rw") == -EACCES
            assert writer.open("w") >= 0


def test_any_user_has_all_of_it(nobody: Writer) -> None:
    """nobody can write the longest message, wait for room and read the attributes."""
    assert nobody.write(4096) == 4096
    assert nobody.write(4097) == -EMSGSIZE
    nobody.wait_until_idle()
    assert nobody.poll() == POLL_READY
    assert nobody.counters() == Counters(consumed=1, accepted=1, pending=0, blocked=0)
    assert nobody.open("r") == -EACCES


def test_write_is_the_only_way_in(writer: Writer) -> None:
    """lseek() and pwrite() are ESPIPE; splice(), sendfile() and io_submit() are EINVAL."""
    for whence in range(3):  # SEEK_SET, SEEK_CUR, SEEK_END
        assert writer.call("lseek", whence) == -ESPIPE
    assert writer.call("pwrite", 10) == -ESPIPE
    assert writer.call("splice") == -EINVAL
    assert writer.call("sendfile") == -EINVAL
    assert writer.call("io_submit", 10) == -EINVAL
    assert writer.counters() == Counters(consumed=0, accepted=0, pending=0, blocked=0)


def test_thread_sleeps_in_its_own_function(writer: Writer, module: Module) -> None:
    """The module has the wait queue wee_wait, and the one thread waits in thread_runner."""
    has_wee_wait = b"\0wee_wait\0" in module.ko.read_bytes()
    assert has_wee_wait
    (thread,) = writer.threads()
    writer.wait_for(f"/proc/{thread}/stat", r"\) S ")
    # Not wchan, which is 0 for every task on 5.10.
    innermost = writer.cat(f"/proc/{thread}/stack").splitlines()[0]
    assert re.match(r"\[<0>\] thread_runner\+", innermost)
