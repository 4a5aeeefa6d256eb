# SPDX-License-Identifier: GPL-2.0-only
"""A guest with programs of Debian packages that somebody wants in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import config
from harness.config import Equipment
from harness.errors import GoneError, InputError
from harness.lab import prepare_lab
from harness.machines import pool
from harness.testing import Lab

from .test_runs import SECONDS

PLANTED = Path(__file__).parent / "planted"

# Some start a run of its own, which takes longer than one test may.
pytestmark = pytest.mark.timeout(SECONDS)


def test_a_program_of_a_package_is_in_the_guest(lab: Lab) -> None:
    """With the libraries that it needs, also such as the usual guest's packages do without.

    A machine that wants none of them has none.
    """
    equipment = Equipment(packages=("pciutils", "sqlite3"))
    more = prepare_lab(lab.kernel.spec, config.load(), lab.cache, equipment)
    clone = pool.open_clone(more.template(), lab.cache)
    try:
        assert "Host bridge: Intel Corporation" in clone.guest.check("lspci")
        assert clone.guest.check("sqlite3 :memory: 'select 40 + 2'") == "42\n"
    finally:
        clone.close()
    clone = pool.open_clone(lab.template(), lab.cache)
    try:
        assert not clone.guest.run("command -v lspci").ok
    finally:
        clone.close()


def test_a_shell_has_the_package(lab: Lab) -> None:
    """`invoke shell --guest-packages`, with the module loaded as ever."""
    words = [
        sys.executable, "-m", "invoke", "shell", f"--kernel={lab.kernel.spec.asked}",
        f"--module={PLANTED}", "--guest-packages=pciutils,sqlite3", "--",
        "lsmod | grep -c ^planted; command -v lspci",
    ]  # fmt: skip
    done = subprocess.run(
        words, cwd=config.PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=SECONDS,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n/usr/bin/lspci\n"), done.stderr


def test_a_package_that_does_not_exist_is_a_sentence(lab: Lab) -> None:
    """It is no kernel that is gone, which would leave the kernel out."""
    equipment = Equipment(packages=("no-such-package",))
    with pytest.raises(InputError, match="has no package no-such-package, so the guest") as caught:
        prepare_lab(lab.kernel.spec, config.load(), lab.cache, equipment)
    assert not isinstance(caught.value, GoneError)
