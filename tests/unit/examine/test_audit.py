# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/audit.py: when a machine's memory is looked at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import MachineError
from harness.examine import audit, pointers
from harness.examine.audit import Audit
from harness.examine.lost import ROUNDS, Lost
from harness.host.proc import Deadline
from harness.qemu.memory import Pointer

LOST = Lost(100, "kmalloc", "", 7, (range(4096, 4196),))


class Lookers:
    """In place of ``Audit._look``: what is lost, unless the machine does not answer just now."""

    def __init__(self) -> None:
        self.answers = True
        self.looks = 0

    def look(self, *_: object) -> tuple[list[Pointer], list[Lost]]:
        self.looks += 1
        if not self.answers:
            raise MachineError("no answer in time")
        return [], [LOST]


@pytest.fixture
def lookers() -> Lookers:
    return Lookers()


@pytest.fixture
def looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lookers: Lookers) -> Audit:
    """An audit of a machine in which a module has come and gone."""
    machine: Any = SimpleNamespace(agent=SimpleNamespace(order=lambda *_: "let-go"))
    found = Audit(machine, tmp_path)
    monkeypatch.setattr(found, "_opened", lambda: (None, None, None))
    monkeypatch.setattr(found, "_moved", lambda _: True)
    monkeypatch.setattr(found, "_look", lookers.look)
    monkeypatch.setattr(pointers, "module_area", lambda *_: None)
    monkeypatch.setattr(audit, "_content", lambda *_: b"")
    return found


def test_it_is_looked_at_once_for_each_command(looking: Audit, lookers: Lookers) -> None:
    """What was seen then is true until the next one."""
    looking.guest = guest = SimpleNamespace(commands=1)  # type: ignore[assignment]
    looking.remains(Deadline(10))
    assert (looking.take_lost(), lookers.looks) == ((LOST,), 1 + ROUNDS)
    looking.remains(Deadline(10))
    assert (looking.take_lost(), lookers.looks) == ((), 1 + ROUNDS)
    guest.commands = 2
    looking.remains(Deadline(10))
    assert lookers.looks > 1 + ROUNDS


def test_where_the_machine_did_not_answer_it_is_looked_at_again(
    looking: Audit, lookers: Lookers
) -> None:
    """What a look did not come to would never be told."""
    lookers.answers = False
    with pytest.raises(MachineError):
        looking.remains(Deadline(10))
    lookers.answers = True
    looking.remains(Deadline(10))
    assert looking.take_lost() == (LOST,)


def test_what_is_not_looked_for_is_said_for_as_long_as_a_template_is_kept(tmp_path: Path) -> None:
    """A green says less then."""
    assert "cannot be read from outside" in audit.not_looked_for(tmp_path)
    (tmp_path / audit.LAYOUT).touch()
    assert audit.not_looked_for(tmp_path) == ""
    (tmp_path / audit._UNRECORDED).write_text("it is not found")
    assert "allocations are not recorded (it is not found)" in audit.not_looked_for(tmp_path)
