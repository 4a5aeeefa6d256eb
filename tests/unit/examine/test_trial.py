# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/trial.py: where the record of allocations is not right, there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.examine import record, trial
from harness.examine.allocations import PAGES, Allocation
from harness.examine.lost import ROUNDS
from harness.examine.record import Record
from harness.examine.structures import Symbols
from harness.host.proc import Deadline
from harness.machines.guest import CommandResult

FUNCTION = 0xFFFFFFFF81000000
SYMBOLS = Symbols(f"{FUNCTION:x} T {record.TRIAL_FUNCTION}\n{FUNCTION + 256:x} T next")
PAGE_TAKEN = Allocation(PAGES, 0x1000, 4096, 1, (FUNCTION,))
OBJECT_TAKEN = Allocation("kmalloc", 0x2000, 64, 2, (FUNCTION,))
# What the kernel notes of it, as kmemleak does, was allocated as well.
NOTED = Allocation("kmem_cache_alloc", 0x3000, 64, 3, (FUNCTION,))
RECORD = Record(((4096, 8192),), {})


class FakeGuest:
    """Says yes to each script but one, and remembers them."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.scripts: list[str] = []

    def run(self, script: str) -> CommandResult:
        self.scripts.append(script)
        bad = bool(self.refused) and self.refused in script
        return CommandResult(script, int(bad), "", "no such thing\n" if bad else "", 0.0)

    def check(self, script: str) -> str:
        self.scripts.append(script)
        return ""


class FakeMachine:
    """Stands still, and lets go, whenever it is asked to."""

    def __init__(self) -> None:
        self.clock = self
        self.agent = SimpleNamespace(order=lambda *_: "let-go")

    @contextmanager
    def stopped(self, _: Deadline) -> Iterator[None]:
        yield


class Seen:
    """What is read from the machine's memory at each look, in place of ``Reader`` and ``Search``.

    ``looks`` has what is recorded, what of that is in use, and what is lost.
    """

    def __init__(self, *looks: tuple[Sequence[Allocation], Sequence[Allocation], int]) -> None:
        self._looks = iter(looks)
        self._now: tuple[Sequence[Allocation], Sequence[Allocation], int] = ((), (), 0)

    def allocations(self, *_: object) -> Sequence[Allocation]:
        self._now = next(self._looks)
        return self._now[0]

    def is_the_modules(self, one: Allocation) -> bool:
        return one is not NOTED

    def shown(self, one: Allocation) -> str:
        return one.event

    def left(self, every: Sequence[Allocation], _: object) -> Sequence[Allocation]:
        return [one for one in every if one in self._now[1]]

    def lost(self, found: Sequence[Allocation]) -> Sequence[Allocation]:
        return list(found)[: self._now[2]]


BOTH = (PAGE_TAKEN, OBJECT_TAKEN)
ALL = (PAGE_TAKEN, OBJECT_TAKEN, NOTED)


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Begins the record with what its looks are to see; the guest, and why there is no record."""
    (tmp_path / "memory").write_bytes(bytes(4096))
    monkeypatch.setattr(record, "learn", lambda *_: RECORD)

    def begin(
        seen: Seen, guest: FakeGuest | None = None, symbols: Symbols = SYMBOLS
    ) -> tuple[FakeGuest, str, bool]:
        guest = guest or FakeGuest()
        monkeypatch.setattr(trial, "Reader", lambda *_: seen)
        monkeypatch.setattr(trial, "Search", lambda *_: seen)
        machine: Any = FakeMachine()
        layout: Any = None
        fake: Any = guest
        why = trial.begin(machine, fake, symbols, layout, tmp_path, 64, Deadline(10))
        return guest, why, (tmp_path / record.FILE).exists()

    return begin


def test_a_record_that_is_right_is_kept(begin: Any) -> None:
    """What was allocated is seen in use, and what was freed is not seen as lost."""
    guest, why, kept = begin(Seen((ALL, BOTH, 0), (ALL, (), 0)))
    assert (why, kept) == ("", True)
    assert record.END_SCRIPT not in guest.scripts
    assert guest.scripts[1:] == [record.TRIAL_SCRIPT, record.TRIAL_END_SCRIPT]


def test_what_the_kernel_frees_a_moment_later_is_waited_for(begin: Any) -> None:
    """As it is for what a module has left."""
    _, why, kept = begin(Seen((BOTH, BOTH, 0), (BOTH, (OBJECT_TAKEN,), 1), (BOTH, (), 0)))
    assert (why, kept) == ("", True)


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([((), (), 0)], "not found in it"),
        ([((OBJECT_TAKEN,), (OBJECT_TAKEN,), 0)], "not found in it"),
        ([((PAGE_TAKEN,), (PAGE_TAKEN,), 0)], "not found in it"),
        ([(BOTH, (OBJECT_TAKEN,), 0)], "taken for free"),
        ([(BOTH, BOTH, 1)], "taken for lost"),
        ([(BOTH, BOTH, 0), *[(BOTH, BOTH, 2)] * ROUNDS], "taken for lost"),
    ],
)
def test_a_record_that_is_wrong_is_taken_away(
    begin: Any, looks: list[tuple[Sequence[Allocation], Sequence[Allocation], int]], said: str
) -> None:
    """Its events would be taken for pointers into a module that is gone."""
    guest, why, kept = begin(Seen(*looks))
    assert said in why
    assert not kept
    assert guest.scripts[-1] == record.END_SCRIPT


def test_a_record_that_is_not_found_is_taken_away(
    begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest would keep it all the same."""
    monkeypatch.setattr(record, "learn", lambda *_: None)
    guest, why, kept = begin(Seen())
    assert "not found in the machine's memory" in why
    assert not kept
    assert guest.scripts[-1] == record.END_SCRIPT


@pytest.mark.parametrize("refused", ["module_load/trigger", record.TRIAL_SCRIPT])
def test_what_the_kernel_cannot_do_is_said_in_its_words(begin: Any, refused: str) -> None:
    """Before anything is looked for, and what was begun of it ends."""
    guest, why, kept = begin(Seen(), FakeGuest(refused))
    assert "no such thing" in why
    assert not kept
    assert guest.scripts[-1] == record.END_SCRIPT


def test_a_kernel_without_the_function_of_the_trial_has_no_record(begin: Any) -> None:
    """It cannot be tried there."""
    guest, why, kept = begin(Seen(), symbols=Symbols(f"{FUNCTION:x} T other"))
    assert record.TRIAL_FUNCTION in why
    assert not kept
    assert guest.scripts[-1] == record.END_SCRIPT
