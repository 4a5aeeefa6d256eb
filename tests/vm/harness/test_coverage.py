# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of a module ran, from the instructions that QEMU has counted: exactly those.

The planted module says behind a line in which case that runs. Each case has a machine of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.examine import coverage, loading
from harness.machines import pool
from harness.report.coverage import Coverage
from harness.testing import Guest, GuestError, Lab, Module

NAME = "planted_covered"
FILE = f"/root/{NAME}.ko"
SOURCE = Path(__file__).parent / NAME / f"{NAME}.c"
LOAD = f"insmod {FILE}"
WRITE = f"/sys/module/{NAME}/parameters/count"


def lines_that_run(*cases: str) -> dict[int, bool]:
    """Of each line that says in which cases it runs, whether it does in one of these."""
    found = {}
    for number, line in enumerate(SOURCE.read_text().splitlines(), 1):
        if said := re.search(r"/\* runs: (.*) \*/", line):
            found[number] = any(case in said[1].split(", ") for case in cases)
    return found


@pytest.fixture(scope="session")
def planted(lab: Lab) -> Module:
    """The module that says of itself what runs."""
    return lab.build(SOURCE.parent)


@pytest.fixture
def counting(lab: Lab, tmp_path: Path) -> Lab:
    """The kernel and its guest; what its machines run of modules is counted."""
    return lab.counted(tmp_path / "counts")


def ran_in(counting: Lab, planted: Module, use: Callable[[Guest], object]) -> Coverage:
    """What ran in a machine that had the module's file."""
    assert counting.counting is not None
    clone = pool.open_clone(counting.template(), counting.cache)
    try:
        clone.guest.put(planted.loadable, FILE)
        use(clone.guest)
    finally:
        clone.close()
    found, lost = coverage.gathered(planted, counting.counting.folder.iterdir())
    assert lost == 0
    return found


def told(found: Coverage) -> dict[int, bool]:
    """Of each line that says in which cases it runs, whether it was seen to."""
    lines = found[SOURCE.name].lines
    return {line: lines[line] > 0 for line in lines_that_run()}


def never_called(found: Coverage) -> list[str]:
    return found[SOURCE.name].never_called


def test_a_branch_that_ran_and_one_that_did_not(counting: Lab, planted: Module) -> None:
    """The module is loaded, used and unloaded in one command, and the guest is asked nothing."""
    command = f"{LOAD} && echo 3 >{WRITE} && rmmod {NAME}"
    found = ran_in(counting, planted, lambda guest: guest.check(command))
    assert told(found) == lines_that_run("load", "odd", "unload")
    assert never_called(found) == ["never"]
    assert list(found) == [SOURCE.name]


def test_the_sum_of_two_machines(counting: Lab, planted: Module) -> None:
    """What one of them has not reached, another one has."""
    ran_in(counting, planted, lambda guest: guest.check(f"{LOAD} && echo 3 >{WRITE}"))
    found = ran_in(counting, planted, lambda guest: guest.run(f"{LOAD} && echo word >{WRITE}"))
    assert told(found) == lines_that_run("load", "odd", "word")
    assert never_called(found) == ["never", f"{NAME}_exit"]


def test_init_that_fails(counting: Lab, planted: Module) -> None:
    """Such a module is gone before anybody could ask where it was."""
    found = ran_in(counting, planted, lambda guest: guest.run(f"{LOAD} fail=1"))
    assert told(found) == lines_that_run("fail")


def test_init_that_fails_and_init_that_does_not(counting: Lab, planted: Module) -> None:
    """The memory of the first one's init is used again."""
    command = f"{LOAD} fail=1; {LOAD} && echo 2 >{WRITE}"
    found = ran_in(counting, planted, lambda guest: guest.check(command))
    assert told(found) == lines_that_run("fail", "load", "even")


def test_a_machine_that_panics(counting: Lab, planted: Module) -> None:
    """Its counts are in a file, and need no guest that answers."""

    def panic(guest: Guest) -> None:
        with pytest.raises(GuestError):
            guest.check(f"{LOAD} && echo -1 >{WRITE}")

    found = ran_in(counting, planted, panic)
    assert told(found) == lines_that_run("load", "negative")


def test_a_short_exit_that_is_all_that_ran(counting: Lab, planted: Module) -> None:
    """A few instructions tell where the module was."""
    derived = loading.loaded_template(counting, counting.template(), planted)
    assert counting.counting is not None
    clone = pool.open_clone(derived, counting.cache)
    try:
        clone.guest.check(f"rmmod {NAME}")
    finally:
        clone.close()
    found, _ = coverage.gathered(planted, counting.counting.folder.iterdir())
    assert told(found) == lines_that_run("unload")


def test_what_ran_while_a_template_was_derived(counting: Lab, planted: Module) -> None:
    """Clones of a machine in which the module is loaded already do not run its init again."""
    assert counting.counting is not None
    derived = loading.loaded_template(counting, counting.template(), planted)
    clone = pool.open_clone(derived, counting.cache)
    try:
        clone.guest.check(f"echo 2 >{WRITE}")
    finally:
        clone.close()
    clones = list(counting.counting.folder.iterdir())
    found, _ = coverage.gathered(planted, clones)
    assert told(found) == lines_that_run("even")
    assert derived.counts is not None
    found, _ = coverage.gathered(planted, [*clones, derived.counts])
    assert told(found) == lines_that_run("load", "even")
