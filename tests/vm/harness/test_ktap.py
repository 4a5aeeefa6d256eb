# SPDX-License-Identifier: GPL-2.0-only
"""Programs in the guest that have tests of their own, and KUnit's tests in a module."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.testing import Guest, KtapTest, Lab, Module, RunKtap

SCRIPT = """\
echo TAP version 13
echo 1..2
test -d /proc/self && echo ok 1 - proc is there || echo not ok 1 - proc is there
echo 'ok 2 - another # SKIP not here'
"""


def test_a_script_in_the_guest(guest: Guest, run_ktap: RunKtap) -> None:
    """Each of its tests is told."""
    assert run_ktap(guest, SCRIPT) == (
        KtapTest("proc is there", "passed"), KtapTest("another", "skipped", "not here"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def suite(lab: Lab) -> Module:
    """A module with KUnit tests."""
    return lab.build(Path(__file__).parent / "planted_kunit")


@pytest.mark.needs(config="CONFIG_KUNIT_DEBUGFS")
@pytest.mark.taint("test")
def test_kunit_tests_of_a_module(guest: Guest, suite: Module, run_ktap: RunKtap) -> None:
    """They run when it is loaded, and debugfs has their results."""
    guest.put(suite.loadable, "/root/suite.ko")
    found = run_ktap(guest, "insmod /root/suite.ko && cat /sys/kernel/debug/kunit/planted/results")
    assert {test.name.rpartition(".")[2]: test.outcome for test in found} == {
        "planted_adds": "passed", "planted_skips": "skipped",
    }  # fmt: skip
