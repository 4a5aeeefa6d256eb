# SPDX-License-Identifier: GPL-2.0-only
"""Tests that go wrong in every way that a test can; test_runs.py runs them and looks.

(Not named test_*.py, so that no other run collects them.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.testing import Guest

CONTROL = "/sys/kernel/debug/planted"
# How long test_fixture_slow waits, in seconds: in its fixture, and then by itself.
FIXTURE_S, TEST_S = 0.2, 0.1


@pytest.fixture
def splat_and_failure(loaded: Guest) -> None:
    loaded.check(f"echo warn >{CONTROL}")
    loaded.check("false")


@pytest.fixture
def splat_before(loaded: Guest) -> None:
    loaded.check(f"echo warn >{CONTROL}")


@pytest.fixture
def splat_afterwards(loaded: Guest) -> Iterator[None]:
    yield
    loaded.check(f"echo warn >{CONTROL}")


@pytest.fixture
def slow_fixture(loaded: Guest) -> None:
    time.sleep(FIXTURE_S)


def test_fixture_slow(slow_fixture: None) -> None:
    time.sleep(TEST_S)


def test_fixture_fails(splat_and_failure: None) -> None:
    pass


def test_fixture_before(splat_before: None) -> None:
    pass


def test_fixture_afterwards(splat_afterwards: None) -> None:
    pass


def test_skips(loaded: Guest) -> None:
    loaded.check(f"echo warn >{CONTROL}")
    pytest.skip("after a splat")


def test_finalizer(request: pytest.FixtureRequest, loaded: Guest) -> None:
    request.addfinalizer(lambda: loaded.check(f"echo warn >{CONTROL}"))


def test_quiet_finalizer(request: pytest.FixtureRequest, loaded: Guest) -> None:
    request.addfinalizer(lambda: loaded.check("true"))


@pytest.mark.xfail
def test_known_bug_warns(loaded: Guest) -> None:
    loaded.check(f"echo warn >{CONTROL}")
    pytest.fail("as is known")


@pytest.mark.xfail
def test_known_bug_panics(loaded: Guest) -> None:
    loaded.check(f"echo panic >{CONTROL}")


@pytest.mark.xfail
def test_known_bug(loaded: Guest) -> None:
    loaded.check("false")


@pytest.fixture
def tidy(loaded: Guest) -> Iterator[None]:
    yield
    loaded.check("echo cleaned up")


def test_cleaned_up(tidy: None, loaded: Guest) -> None:
    loaded.check("false")


@pytest.mark.timeout(3)
def test_endless(loaded: Guest) -> None:
    while True:
        pass


def test_stuck(loaded: Guest) -> None:
    loaded.run(f"echo sleep >{CONTROL}", timeout=2)


def test_escapes(loaded: Guest) -> None:
    loaded.check(f"echo escapes >{CONTROL}")
    loaded.check("printf '\\033[2J\\007'; exit 1")


@pytest.mark.needs(config="CONFIG_OF_NO_KERNEL")
def test_of_another_kernel(loaded: Guest) -> None:
    pass


@pytest.mark.needs(without="CONFIG_MODULES")
def test_without_modules(loaded: Guest) -> None:
    pass


def test_clean(loaded: Guest) -> None:
    loaded.check("true")
