# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/evidence.py: in which order a machine is asked, and what is not asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import HostError
from harness.examine import evidence
from harness.examine.lost import Lost
from harness.examine.registries import Finding
from harness.host.proc import Deadline
from harness.judge.verdict import Evidence
from harness.machines.clone import Baseline
from harness.qemu.agent import Leftovers
from harness.qemu.memory import Pointer

HELD = Finding(Pointer(0x1000, 0x2000), "misc_list")


class Guest:
    """A machine, its agent and its audit at once, which writes down what it is asked for.

    ``remains`` are what still points into a module that is gone, one tuple for each time that is
    looked for; ``mixed``: another module is loaded. ``stuck`` is what does not go on, unless it is
    given more time, and ``waited`` for how long the host kept it from running, in seconds.
    """

    def __init__(
        self, *remains: tuple[Finding, ...], mixed: bool = False, stuck: str = "",
        waited: float = 0.0,
    ) -> None:  # fmt: skip
        self.asked: list[str] = []
        self.held = False  # at an earlier judgement
        self._stuck, self._waited = stuck, waited
        self._remains = list(remains)
        self._mixed = mixed
        self.incomplete = self.stopped = False
        self.kept: tuple[str, ...] = ()  # locks that a reader has
        self.ended: tuple[str, ...] = ()  # and such that one has who has ended
        self.reports = 0  # that the kernel has counted since it was last asked
        self.reports_while_read = 0  # and those that come while its log is read

    def mark(self, _: Deadline) -> int:
        self.reports += self.reports_while_read
        return 0

    def untouched(self) -> bool:
        return False

    def remains(self, _: Deadline) -> tuple[Finding, ...]:
        self.asked.append("remains")
        return self._remains.pop(0)

    def probes(self, _: Deadline, *, limit: float = 0.0) -> tuple[str, ...]:
        self.asked.append("probes")
        return (self._stuck,) if self._stuck and not limit else ()

    def kept_waiting(self) -> float:
        return self._waited

    def kept_by_readers(self, _: Deadline) -> tuple[str, ...]:
        return self.kept

    def kept_by_ended(self, _: Deadline) -> tuple[str, ...]:
        return self.ended

    def stacks(self, _: Deadline) -> str:
        return ""

    def seen(self) -> int | None:
        return None

    def leftovers(
        self, _: Deadline, *, end: bool = False, careful: bool = False, seen: int | None = None
    ) -> Leftovers:
        assert seen is None
        self.asked.append("leftovers" + " end" * end + " careful" * careful)
        return Leftovers(loaded=self._mixed and not end, mixed=self._mixed and not end)

    def leaks(self, _: Deadline) -> str:
        return ""

    def take_unasked(self) -> tuple[str, ...]:
        return ()

    def take_lost(self) -> tuple[Lost, ...]:
        return ()

    def counted(self) -> int:
        counted, self.reports = self.reports, 0
        return counted

    def take_incomplete(self) -> bool:
        return self.incomplete

    def record_has_stopped(self) -> bool:
        self.asked.append("record")
        return self.stopped

    def unprinted(self, *, marked: bool) -> tuple[str, ...]:
        assert marked
        return ()

    def gather(self, *, last: bool = False, unrecorded: bool = False) -> Evidence:
        machine: Any = SimpleNamespace(
            patience=Deadline, running=True, panicked=False, console_text=str, fault="", stalls=(),
            log=SimpleNamespace(unread=0, full=False), agent=self, cpus=self,
        )  # fmt: skip
        audit: Any = self
        return evidence.gather(machine, Baseline(), audit=audit, last=last, unrecorded=unrecorded)


def test_a_guest_is_asked_in_full_where_nothing_points_into_a_module_that_is_gone() -> None:
    """Its memory comes first."""
    guest = Guest(())
    assert guest.gather().remains == ()
    assert guest.asked == ["remains", "probes", "leftovers", "record"]


def test_nothing_follows_a_pointer_that_is_known_to_be_bad() -> None:
    """A guest that crashes by being asked explains nothing."""
    guest = Guest((HELD,))
    assert [one.holder for one in guest.gather().remains] == ["misc_list"]
    assert guest.asked == ["remains", "leftovers careful", "record"]


def test_what_the_kernel_counts_while_its_log_is_read_is_no_news() -> None:
    """It may be in the log that is read, and be counted after that, or the other way round."""
    guest = Guest((), ())
    guest.reports, guest.reports_while_read = 2, 1
    assert guest.gather().counted == 2
    guest.reports_while_read = 0
    assert guest.gather().counted == 0


@pytest.mark.parametrize("error", [HostError("QEMU has no memory"), FileNotFoundError("maps")])
def test_a_qemu_that_has_ended_has_counted_nothing(error: Exception) -> None:
    """Why it has ended is told by who asks it next."""

    class Ended(Guest):
        def counted(self) -> int:
            raise error

    assert Ended((), ()).gather().counted == 0


@pytest.mark.parametrize("first", [(), (HELD,)])
def test_what_is_unloaded_at_the_end_is_looked_at_too(first: tuple[Finding, ...]) -> None:
    """Its memory, once more."""
    guest = Guest(first, (HELD,), mixed=True)
    assert len(guest.gather(last=True).remains) == 1 + len(first)
    assert guest.asked[-2:] == ["leftovers end", "remains"]


def test_a_record_that_ran_over_is_told_unless_that_is_allowed() -> None:
    """As a mark of the test does."""
    guest = Guest((), ())
    guest.incomplete = True
    assert guest.gather().unrecorded
    assert not guest.gather(unrecorded=True).unrecorded


def test_a_record_that_somebody_has_stopped_is_told_unless_that_is_allowed() -> None:
    """It says nothing of what came after, and looks as if nothing had."""
    guest = Guest((), ())
    guest.stopped = True
    assert guest.gather().stopped
    assert not guest.gather(unrecorded=True).stopped


def test_what_does_not_go_on_is_asked_again_where_the_host_let_nothing_go_on() -> None:
    """A guest whose CPU gets no processor is no guest whose CPU is stuck."""
    guest = Guest((), stuck="cpu:0", waited=60.0)
    assert guest.gather().probes == ()
    assert guest.asked == ["remains", "probes", "probes", "leftovers", "record"]


def test_what_does_not_go_on_is_not_asked_again_on_a_quiet_host() -> None:
    """It takes long enough as it is."""
    guest = Guest((), stuck="cpu:0", waited=0.1)
    assert guest.gather().probes == ("cpu:0",)
    assert guest.asked == ["remains", "probes"]


def test_a_pointer_that_was_told_of_is_not_followed_at_the_next_judgement() -> None:
    """It is still there."""
    guest = Guest(())
    guest.held = True
    assert guest.gather().remains == ()
    assert "leftovers careful" in guest.asked


def test_a_lock_that_a_reader_keeps_is_told_of_with_what_does_not_go_on() -> None:
    """The guest itself cannot find out: nothing waits for it there."""
    guest = Guest((), stuck="rcu:grace_period")
    guest.kept = ("cpu_hotplug_lock",)
    assert guest.gather().probes == ("rcu:grace_period", "lock:cpu_hotplug_lock")
    assert guest.asked == ["remains", "probes"]


def test_a_lock_whose_owner_has_ended_is_told_of_once() -> None:
    """Not again where the guest has tried that lock itself."""
    guest = Guest((), (), stuck="lock:rtnl_mutex")
    guest.ended = ("rtnl_mutex", "genl_mutex")
    assert guest.gather().probes == ("lock:rtnl_mutex", "ended:genl_mutex")
