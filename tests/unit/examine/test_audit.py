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

LOST = Lost(100, "kmalloc", "", (7,), (range(4096, 4196),))


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


def test_the_kernel_frees_nothing_where_that_would_call_a_module_that_is_gone(
    looking: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has put off is told of as if it were for good."""
    ordered: list[str] = []
    agent = SimpleNamespace(order=lambda *said: ordered.append(said[0]))
    monkeypatch.setattr(looking, "_machine", SimpleNamespace(agent=agent))
    monkeypatch.setattr(looking, "_look", lambda *_: ([Pointer(8, 16)], []))
    monkeypatch.setattr(looking, "_described", lambda _layout, found, _deadline: tuple(found))
    monkeypatch.setattr(looking, "_letting_go_kills", lambda *_: True)
    looking.remains(Deadline(10))
    assert ordered == []
    monkeypatch.setattr(looking, "_letting_go_kills", lambda *_: False)
    looking.guest = SimpleNamespace(commands=1)  # type: ignore[assignment]
    looking.remains(Deadline(10))
    assert ordered == ["let-go"] * ROUNDS


@pytest.mark.parametrize(
    ("seen", "kept"),
    [
        ([[]], ()),
        ([["cpu_hotplug_lock"], []], ()),
        ([["cpu_hotplug_lock"]], ("cpu_hotplug_lock",)),
    ],
)
def test_a_lock_is_kept_that_is_not_given_back_for_seconds(
    looking: Audit, monkeypatch: pytest.MonkeyPatch, seen: list[list[str]], kept: tuple[str, ...]
) -> None:
    """The kernel is a reader for a moment at times."""
    slept: list[float] = []
    agent = SimpleNamespace(sleep=lambda seconds, _: slept.append(seconds))
    monkeypatch.setattr(looking, "_machine", SimpleNamespace(agent=agent))
    looks = iter(seen)
    monkeypatch.setattr(pointers, "held_by_readers", lambda *_: next(looks, seen[-1]))
    assert looking.kept_by_readers(Deadline(10)) == kept
    assert sum(slept) == pytest.approx(5 if kept else 0.1 * (len(seen) - 1))


def test_what_is_not_looked_for_is_said_for_as_long_as_a_template_is_kept(tmp_path: Path) -> None:
    """A green says less then."""
    assert "cannot be read from outside" in audit.not_looked_for(tmp_path)
    (tmp_path / audit.LAYOUT).touch()
    assert audit.not_looked_for(tmp_path) == ""
    (tmp_path / audit._UNRECORDED).write_text("it is not found")
    assert "allocations are not recorded (it is not found)" in audit.not_looked_for(tmp_path)
