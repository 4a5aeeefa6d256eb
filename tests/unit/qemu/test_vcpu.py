# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/vcpu.py: the threads that run a guest's code."""

from __future__ import annotations

import os
import threading

import pytest

from harness.qemu.vcpu import VirtualCpus


def test_a_thread_that_runs_two_cpus_has_used_its_time_once() -> None:
    """QEMU runs all of them in one where it counts instructions."""
    one, two = VirtualCpus(os.getpid), VirtualCpus(os.getpid)
    me = threading.get_native_id()
    one.threads, two.threads = [me], [me, me]
    before = one.seconds()
    while one.seconds() < before + 0.1:
        pass
    assert two.seconds() == pytest.approx(one.seconds(), rel=0.2)
