# SPDX-License-Identifier: GPL-2.0-only
"""Loading, waiting and unloading any module.

Whatever the kernel says meanwhile, and whatever is left afterwards, makes a test red by itself.
"""

from __future__ import annotations

import pytest

from harness.testing import GuestBusy, Lab

from ..calls import at_once, named, perform
from .conftest import Subject

TEN_MINUTES = 600.0
EEXIST = 17
# Lives in a row: so many, or as many as take so many seconds of the guest's, but some.
LIVES, LEAST_LIVES = 50, 3
LIVES_SECONDS = 40.0


def test_loads_and_unloads(subject: Subject) -> None:
    """insmod says nothing, and rmmod leaves nothing."""
    subject.load()
    if not subject.unload():
        pytest.skip("the kernel does not unload it: it has no exit function, or is in use")
    subject.known.want_all()


def test_is_refused_a_second_time(subject: Subject) -> None:
    """A module that is loaded already is refused with EEXIST, and stays as it is."""
    subject.load()
    (again,) = perform(subject.guest, [subject.loading])
    assert again.how == "ended", f"loading it a second time: {again.told}"
    assert again.answers[-1] == str(-EEXIST), (
        f"loading it a second time answers {named(again.answers[-1])}, and should -EEXIST"
    )
    subject.unload()


@pytest.mark.machine(clock="ahead")
def test_unloads_within_a_second(subject: Subject, lab: Lab) -> None:
    """In the guest's own time, after it has been loaded for a minute."""
    subject.load()
    _pass(subject, 60)
    (done,) = perform(subject.guest, [subject.unloading], limit=60)
    assert done.how == "ended", f"unloading: {done.told}"
    limit = at_once(lab)
    assert done.seconds <= limit, (
        f"unloading took {done.seconds:.1f} s, and should take no more than {limit:.0f} s"
    )


@pytest.mark.machine(clock="ahead")
def test_is_quiet_for_ten_minutes(subject: Subject) -> None:
    """The kernel reports nothing in ten minutes with it, nor in ten more after it is gone."""
    subject.load()
    _pass(subject, TEN_MINUTES)
    if subject.unload():
        _pass(subject, TEN_MINUTES)


def _pass(subject: Subject, seconds: float) -> None:
    """Let so much time pass, or as much as a module that is always at work lets pass."""
    try:
        subject.guest.pass_time(seconds)
    except GuestBusy as error:
        print(f"note: {error}")  # noqa: T201  # pytest shows it where the test is red


def lives_of(seconds: float) -> tuple[int, float]:
    """How many lives of so many seconds are tried in a row, and how long they may take together.

    A tasklet that runs for five seconds, and for which exit waits, is no fault.
    """
    fit = int(LIVES_SECONDS / seconds) if seconds else LIVES
    count = min(LIVES, max(fit, LEAST_LIVES))
    return count, 3 * max(LIVES_SECONDS, count * seconds)


def test_load_and_unload_fifty_times(subject: Subject) -> None:
    """Fifty lives in a row work, and leave nothing; fewer of a module that takes its time."""
    subject.load()
    if not subject.unload():
        pytest.skip("the kernel does not unload it: it has no exit function, or is in use")
    life = f"{subject.loading} ; {subject.unloading}"
    (first,) = perform(subject.guest, [life], limit=LIVES_SECONDS)
    assert first.how == "ended", f"loading and unloading it once more: {first.told}"
    count, limit = lives_of(first.seconds)
    (lives,) = perform(subject.guest, [" ; ".join([life] * count)], limit=limit)
    assert lives.how == "ended", f"loading and unloading {count} times: {lives.told}"
    number, answer = next(
        ((number, each) for number, each in enumerate(lives.answers) if each != "0"), (0, "0")
    )
    calls = lives.line.split(" ; ")
    life_number = number // len(life.split(" ; ")) + 1
    assert answer == "0", f"life {life_number} of {count}: {calls[number]} answers {named(answer)}"
