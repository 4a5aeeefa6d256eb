# SPDX-License-Identifier: GPL-2.0-only
"""harness/machines/freeze.py: what becomes of a machine that dies while it is frozen."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import qemu
from harness.errors import (
    BootError,
    GuestLost,
    HarnessError,
    HostError,
    MachineError,
    MachineFault,
    StateError,
)
from harness.examine import audit
from harness.host.cache import Entry
from harness.host.proc import Deadline
from harness.machines import freeze, session, template
from harness.machines.template import Template

TAINT = 1 << 12


class Machine(SimpleNamespace):
    """One that is to be frozen; ``dies`` names what becomes of it before it is."""

    spec = SimpleNamespace(devices=())
    running, panicked, host_fault = True, False, None

    def __init__(self, dies: str) -> None:
        super().__init__(dies=dies)
        self.snapshot = SimpleNamespace(set_capabilities=lambda _: None, save=lambda *_: None)
        self.agent = SimpleNamespace(mark=lambda _: TAINT, order=self._order)

    def _order(self, word: str, *_: object) -> str:
        if word != "rest" or not self.dies:
            return ""
        self.panicked = self.dies == "panic"
        self.running = self.dies in ("panic", "refuses")
        self.host_fault = MachineFault("it was killed") if self.dies == "killed" else None
        raise MachineError(f"it {self.dies}")

    def quit(self, _: Deadline) -> None:
        self.running = False


def frozen(folder: Path, dies: str, look: freeze.Look | None = None) -> None:
    machine: Any = Machine(dies=dies)
    keys: Any = None
    freeze._freeze(machine, keys, folder, {"boot_seconds": 1.0}, look)


Try = Callable[..., list[HarnessError]]


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch) -> Try:
    """How the trial clones of what is frozen end, one after the other; the rest answer."""
    to_come: list[HarnessError] = []

    def one(*_: object) -> None:
        if to_come:
            raise to_come.pop(0)

    monkeypatch.setattr(freeze, "_try", one)
    monkeypatch.setattr(freeze, "dig_holes", lambda _: None)  # there is no memory
    monkeypatch.setattr(audit, "settle", lambda *_: None)
    monkeypatch.setattr(session, "fault", lambda: "none is wanted")

    def will(*errors: HarnessError) -> list[HarnessError]:
        to_come[:] = errors
        return to_come

    return will


def facts(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / freeze.FACTS).read_text()))


def test_what_cannot_be_frozen_is_booted_from_then_on(tmp_path: Path) -> None:
    """A machine that is well and refuses says something of QEMU, which is kept."""
    frozen(tmp_path, "refuses")
    assert facts(tmp_path)["unfrozen"] == "it refuses"


@pytest.mark.parametrize("dies", ["killed", "panic", "restarts"])
def test_a_machine_that_dies_is_not_one_that_cannot_be_frozen(tmp_path: Path, dies: str) -> None:
    """Else every test would boot from then on, because of one moment."""
    with pytest.raises(MachineError, match=dies):
        frozen(tmp_path, dies)
    assert not (tmp_path / freeze.FACTS).exists()


@pytest.mark.parametrize("fault", [StateError("it does not fit"), GuestLost("silent")])
def test_what_two_clones_do_not_wake_up_from_is_booted_from_then_on(
    tmp_path: Path, trials: Try, fault: HarnessError
) -> None:
    """Their QEMUs were well: so it is the state."""
    trials(fault, fault)
    frozen(tmp_path, "")
    assert facts(tmp_path)["unfrozen"] == fault.what
    trials(fault)
    frozen(tmp_path, "")
    assert "unfrozen" not in facts(tmp_path)


def test_a_host_that_refuses_a_clone_says_nothing_of_the_machine(
    tmp_path: Path, trials: Try
) -> None:
    """Nothing is cached: neither that it can be frozen, nor, for good, that it cannot."""
    refused = MachineFault("QEMU did not start: it ended with exit status 1")
    left = trials(refused, refused)
    with pytest.raises(MachineFault, match="did not start"):
        frozen(tmp_path, "")
    assert left == [refused]


@pytest.mark.parametrize(("dies", "seen"), [("", [TAINT]), ("panic", [None]), ("restarts", [None])])
def test_the_last_look_is_at_a_machine_that_has_stopped(
    tmp_path: Path, dies: str, seen: list[int | None]
) -> None:
    """Whatever it may do while it is being frozen has been done by then; its end counts too."""
    looks: list[int | None] = []
    if dies:
        with pytest.raises(MachineError):
            frozen(tmp_path, dies, looks.append)
    else:
        frozen(tmp_path, dies, looks.append)
    assert looks == seen


def test_what_the_last_look_raises_passes_through(tmp_path: Path) -> None:
    """Nothing is kept of a machine with which something is wrong."""

    def look(_: int | None) -> None:
        raise AssertionError("a warning")

    with pytest.raises(AssertionError, match="a warning"):
        frozen(tmp_path, "", look)
    assert not (tmp_path / freeze.FACTS).exists()


def test_the_memory_is_looked_through_while_a_clone_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes half a second and leaves a core free. Nothing is freed under a clone's feet."""
    done: list[str] = []
    both = threading.Barrier(2, timeout=60)

    def one(name: str) -> Callable[..., None]:
        def at_the_same_time(*_: object) -> None:
            both.wait()
            done.append(name)

        return at_the_same_time

    monkeypatch.setattr(freeze, "dig_holes", lambda path: done.append(path.name))
    monkeypatch.setattr(audit, "settle", one("settled"))
    monkeypatch.setattr(freeze, "_try", one("tried"))
    frozen(tmp_path, "")
    assert done[0] == "memory"
    assert sorted(done[1:]) == ["settled", "tried"]


@pytest.mark.parametrize("tried", [True, False])
def test_nothing_is_kept_of_a_machine_whose_memory_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: Try, tried: bool
) -> None:
    """What looking through it raises passes through, unless the host has no clone run either."""
    if not tried:
        trials(MachineFault("QEMU did not start"))

    def settle(*_: object) -> None:
        raise HostError("it cannot be read")

    monkeypatch.setattr(audit, "settle", settle)
    with pytest.raises(HostError, match="cannot be read" if tried else "did not start"):
        frozen(tmp_path, "")


def with_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SSH session is frozen with the machine."""

    def save(_machine: object, _keys: object, folder: Path, _deadline: Deadline) -> str:
        freeze._write_private(folder / template.SESSION, "{}")
        return ""

    monkeypatch.setattr(freeze, "_save", save)


def test_a_machine_with_a_session_that_no_clone_goes_on_with_is_frozen_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: Try
) -> None:
    """Each clone makes one of its own then, which takes longer; booting takes longer still."""
    with_session(monkeypatch)
    silent = GuestLost("silent")
    trials(silent, silent)
    frozen(tmp_path, "")
    assert facts(tmp_path)["no_session"] == silent.what
    assert "unfrozen" not in facts(tmp_path)
    assert not (tmp_path / template.SESSION).exists()


def test_a_machine_that_answers_in_no_way_is_booted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: Try
) -> None:
    """Neither over the frozen session nor over another one."""
    with_session(monkeypatch)
    trials(*[GuestLost("silent")] * 4)
    frozen(tmp_path, "")
    assert facts(tmp_path)["unfrozen"] == "silent"


def test_the_keys_of_a_session_are_their_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask; and nobody else's file is written to."""
    with_session(monkeypatch)
    before = os.umask(0)
    try:
        frozen(tmp_path, "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / template.SESSION).stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        freeze._write_private(tmp_path / template.SESSION, "")


def test_why_there_is_no_session_is_found_out_anew(tmp_path: Path) -> None:
    """A derived template is frozen with one of its own, whatever its base had."""
    made: Any = Machine(dies="")
    keys: Any = None
    freeze._freeze(made, keys, tmp_path, {"boot_seconds": 1.0, "no_session": "of the base"})
    assert facts(tmp_path)["no_session"] == "none is wanted"


def test_a_template_without_a_session_says_so_to_who_wants_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the reason, at --verbose."""
    nothing: Any = None
    known = {"no_session": "the reason"}
    with caplog.at_level("DEBUG", logger="harness"):
        freeze._warn(Template(nothing, nothing, Entry("template", "x", "", tmp_path), known), "x")
    assert "kernel x: no SSH session is frozen" in caplog.text
    assert "the reason" in caplog.text


# -- the guest's clock -------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "right"), [(1.0, True), (1.1, True), (0.9, True), (58.5, False), (0.5, False)]
)
def test_a_clock_that_runs_as_the_hosts_does_is_right(rate: float, right: bool) -> None:
    """Nearly, since an answer takes its time."""
    assert freeze.clock_is_right(rate) is right


def test_the_rate_of_a_clock_is_that_of_two_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest says for how long it has been up."""
    answers, moments = iter([10.0, 126.0]), iter([100.0, 102.0])
    machine: Any = SimpleNamespace(agent=SimpleNamespace(sleep=lambda *_: next(answers)))
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    deadline: Any = None
    since = freeze._clocks(machine, deadline)
    assert freeze._clock_rate(machine, since, deadline) == 58.0


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """How often a machine is booted whose clock has these rates, one after the other."""

    def count(*rates: float) -> int:
        to_come = list(rates)

        def boot_once(_spec: object, _keys: object, folder: Path) -> float:
            assert not list(folder.iterdir())
            (folder / "memory").touch()
            return to_come.pop(0)

        monkeypatch.setattr(freeze, "_check_space", lambda *_: None)
        monkeypatch.setattr(freeze, "_boot_once", boot_once)
        nothing: Any = None
        freeze._boot_and_freeze(nothing, nothing, tmp_path)
        assert (tmp_path / "memory").exists()
        return len(rates) - len(to_come)

    return count


def test_a_machine_whose_clock_is_right_is_booted_once(boots: Callable[..., int]) -> None:
    """The look-alike of the two below."""
    assert boots(1.0, 1.0) == 1


def test_a_machine_whose_clock_is_wrong_is_booted_again(boots: Callable[..., int]) -> None:
    """A template is kept, and so would be what a busy host has done to it once."""
    assert boots(58.0, 0.2, 1.0) == 3


def test_a_clock_that_stays_wrong_is_the_hosts_fault(boots: Callable[..., int]) -> None:
    """No module is to blame, and a person is told what to do."""
    with pytest.raises(HostError, match=r"its clock runs at 58\.00 times"):
        boots(*[58.0] * 5)


@pytest.mark.parametrize(
    ("said", "cpus", "version", "astray"),
    [
        ("[    0.4] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI", 2, (7, 2), True),
        ("[    1.9] jump_label: Fatal kernel bug, unexpected op at enqueue_timer", 2, (8, 0), True),
        ("[    0.4] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI", 1, (7, 2), False),
        ("[    0.4] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI", 2, (8, 1), False),
        ("[    0.4] Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI", 2, (7, 2), False),
    ],
)
def test_a_kernel_is_led_astray_by_an_old_emulator_with_several_cpus_only(
    monkeypatch: pytest.MonkeyPatch, said: str, cpus: int, version: tuple[int, int], astray: bool
) -> None:
    """Whatever else it reports is its own."""
    monkeypatch.setattr(qemu, "check_version", lambda: version)
    spec = SimpleNamespace(accelerator="tcg", cpus=cpus)
    machine: Any = SimpleNamespace(spec=spec, console_text=lambda: f"{said}\n")
    assert freeze.led_astray(machine) is astray


@pytest.mark.parametrize(
    ("cpus", "quiet", "error", "again"),
    [
        (2, True, BootError("the guest did not say 'ready'"), True),
        (2, False, BootError("the guest says 'fault'"), False),
        (2, True, MachineFault("QEMU was killed"), False),
        (1, True, BootError("the guest did not say 'ready'"), False),
    ],
)
def test_a_boot_that_stands_still_without_a_word_counts_as_led_astray(
    monkeypatch: pytest.MonkeyPatch, cpus: int, quiet: bool, error: MachineError, again: bool
) -> None:
    """Where the emulator may have done it; what was last printed is shown."""
    monkeypatch.setattr(qemu, "check_version", lambda: (7, 2))
    patience = SimpleNamespace(expired=quiet)

    def await_answer(word: str, _: object) -> str:
        assert word == "ready"
        raise error

    machine: Any = SimpleNamespace(
        spec=SimpleNamespace(accelerator="tcg", cpus=cpus),
        agent=SimpleNamespace(await_answer=await_answer),
        log=SimpleNamespace(tail=lambda: "[    1.2] the last words"),
        patience=lambda _: patience,
        patience_until_quiet=lambda *_: patience,
    )
    with pytest.raises(MachineError if not again else freeze._LedAstrayError) as raised:
        freeze._await_ready(machine)
    if again:
        assert "the last words" in raised.value.tail
    else:
        assert raised.value is error


@pytest.mark.parametrize(("oopses", "told"), [(2, ""), (3, "led the kernel astray")])
def test_a_kernel_that_was_led_astray_is_booted_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, oopses: int, told: str
) -> None:
    """No module was there that could have done it. Three times in a row is told."""
    monkeypatch.setattr(freeze, "_check_space", lambda *_: None)
    monkeypatch.setattr(qemu, "check_version", lambda: (7, 2))
    spec = SimpleNamespace(accelerator="tcg", cpus=2)
    said = ["Oops: int3"] * oopses + [""]
    nothing: Any = None

    def boot_once(*_: object) -> float:
        console = said.pop(0)
        machine: Any = SimpleNamespace(spec=spec, console_text=lambda: console)
        with freeze._not_led_astray(machine):
            if console:
                raise MachineError("it does not answer")
        return 1.0

    monkeypatch.setattr(freeze, "_boot_once", boot_once)
    with pytest.raises(HostError, match=told) if told else nullcontext():
        freeze._boot_and_freeze(nothing, nothing, tmp_path)
    assert len(said) == (1 if told else 0)
