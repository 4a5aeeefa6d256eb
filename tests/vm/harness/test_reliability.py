# SPDX-License-Identifier: GPL-2.0-only
"""Short forms of tests/reliability.py, and a template that was damaged on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.host.cache import Cache
from harness.machines import freeze
from harness.machines.clone import clone
from harness.machines.template import Template
from harness.testing import Clone, Guest, Lab
from tests import reliability


def test_clones_in_a_row(lab: Lab) -> None:
    """Each answers, has the right time, and draws other random numbers than the others."""
    answers = list(reliability.clones(lab, 3))
    assert [answer.wrong for answer in answers] == [(), (), ()]
    assert len({drawn for answer in answers for drawn in answer.random}) == 9


def test_every_mark_reaches_the_log(guest: Guest, machine: Clone) -> None:
    """The kernel drops what one process logs too quickly, unless it is told not to."""
    for _ in range(30):
        machine.machine.agent.mark(guest.patience(20))


@pytest.mark.parametrize("damaged", ["memory", "state"])
def test_a_flipped_byte_in_a_template_is_found(
    lab: Lab, caplog: pytest.LogCaptureFixture, tmp_path: Path, damaged: str
) -> None:
    """The next run makes it again, and a clone of that is as it should be."""
    base = lab.template()
    made = _derived(base, damaged, lab.cache)
    file = made.entry.path / damaged
    at = file.stat().st_size // 2
    with file.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))
    # As for another run: this one has looked at the entry already.
    lab.cache.release(made.entry)
    again = _derived(base, damaged, lab.cache)
    assert f"the content of {damaged} has changed" in caplog.text
    with clone(again, tmp_path) as running:
        assert running.guest.check("cat /tmp/mark") == "here\n"


def _derived(base: Template, damaged: str, cache: Cache) -> Template:
    def set_up(running: Clone) -> dict[str, object]:
        running.guest.check("echo here >/tmp/mark")
        return {}

    return freeze.derive(base, "flipped", {"file": damaged}, set_up, cache)
