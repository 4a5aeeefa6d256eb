# SPDX-License-Identifier: GPL-2.0-only
"""Machines whose QEMU is the script of fake.py; nothing is booted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.host.cache import Cache
from harness.host.proc import Deadline
from harness.qemu import Machine, argv
from tests.unit.qemu.fake import FAKE_QEMU, PATIENCE, SPEC


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    """Starts a machine that acts in a certain way; it ends with the test."""
    program = tmp_path / "qemu"
    program.write_text(f"#!{sys.executable} -SE\n{FAKE_QEMU}")
    program.chmod(0o755)
    monkeypatch.setattr(argv, "QEMU", str(program))
    for of in ("machine", "snapshot"):
        monkeypatch.setattr(f"harness.qemu.{of}.check_version", lambda: (9, 0))
    with contextlib.ExitStack() as stack:

        def start(act: str) -> Machine:
            monkeypatch.setenv("FAKE_QEMU", act)
            made = stack.enter_context(Machine(SPEC, tmp_path))
            made.start(Deadline(PATIENCE))
            return made

        yield start


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """A cache of this test's own."""
    with contextlib.closing(Cache(tmp_path / "cache")) as made:
        yield made
