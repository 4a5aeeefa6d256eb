# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/audit.py: when a machine's memory is looked at."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import MachineError
from harness.examine import audit, locks, structures
from harness.examine.audit import Audit
from harness.examine.lost import ROUNDS, Lost
from harness.examine.structures import Layout, ModuleArea
from harness.host.proc import Deadline
from harness.qemu.memory import PAGE, FrozenMemory, Pointer
from tests.unit.examine.fake_kernel import IMAGE, MODULES, Kernel

LOST = Lost(100, "kmalloc", "", (7,), (range(4096, 4196),))


@pytest.mark.parametrize(
    "changed", [[], [0], [5, 6, 7, 100], [1023, 1024, 2047, 2048], list(range(2500))]
)
def test_the_pages_that_a_derived_machine_has_changed(tmp_path: Path, changed: list[int]) -> None:
    """Wherever the parts begin in which memory is read."""
    pages = 2500
    (tmp_path / "base").write_bytes(b"a" * (pages * PAGE))
    (tmp_path / "derived").write_bytes(b"a" * (pages * PAGE))
    with (tmp_path / "derived").open("r+b") as file:
        for page in changed:
            file.seek(page * PAGE + (PAGE - 1 if page % 2 else 0))
            file.write(b"b")
    with (
        FrozenMemory(tmp_path / "base") as before,
        FrozenMemory(tmp_path / "derived") as after,
    ):
        assert [page for run in audit._differing(before, after) for page in run] == changed


def test_pages_above_the_gap_differ_by_their_place_in_the_file(tmp_path: Path) -> None:
    """QEMU's order is that of the file; a large machine's addresses have a gap."""
    for name, value in (("base", b"a"), ("derived", b"b")):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2816 << 20)
            file.seek(2100 << 20)
            file.write(value)
    with (
        FrozenMemory(tmp_path / "base") as before,
        FrozenMemory(tmp_path / "derived") as after,
    ):
        pages = [page for run in audit._differing(before, after) for page in run]
    assert pages == [(2100 << 20) // PAGE]


@pytest.fixture
def frozen(kernel: Kernel) -> Kernel:
    """A template's folder, with what is written when it is frozen."""
    kernel.map(MODULES, kernel.take())
    folder = kernel.file.parent
    (folder / audit.LAYOUT).write_text(kernel.scene().layout.to_json())
    (folder / audit.SECTIONS).write_text("{}")
    audit._write(folder / audit.POINTERS, [Pointer(0x1008, MODULES), Pointer(0x1010, MODULES)])
    audit._write(folder / audit.STALE, [Pointer(0x1010, MODULES)])
    return kernel


def test_what_a_template_says_is_read_once(frozen: Kernel) -> None:
    """Each of its clones is looked at by it."""
    known = audit._frozen(frozen.file.parent)
    assert known is not None
    assert known.area.mapped == {MODULES}
    assert known.pointers == {1: (Pointer(0x1008, MODULES), Pointer(0x1010, MODULES))}
    assert known.stale == {Pointer(0x1010, MODULES)}
    assert audit._frozen(frozen.file.parent) is known


def test_a_template_that_was_made_again_is_another_one(frozen: Kernel) -> None:
    """In the same folder, as it was damaged: the machine has booted once more."""
    known = audit._frozen(frozen.file.parent)
    frozen.map(MODULES + PAGE, frozen.take())
    frozen.file.rename(frozen.file.with_name("before"))  # or else the new file might be that one
    frozen.scene()
    again = audit._frozen(frozen.file.parent)
    assert known is not None
    assert again is not None
    assert known.area.mapped == {MODULES}
    assert again.area.mapped == {MODULES, MODULES + PAGE}


def test_what_a_kernel_has_counted(kernel: Kernel) -> None:
    """Two counters of 32 bits, which may share a word with others; a module's is none of them."""
    at = 0x125000
    names = {"warn_count": at, "oops_count": at + 12, "warn_counts": at + 16}
    lines = [f"{IMAGE + place:016x} b {name}" for name, place in names.items()]
    folder = kernel.file.parent
    (folder / audit.SYMBOLS).write_bytes(zlib.compress("\n".join(lines).encode()))
    kernel.word(at, 7 << 32 | 3, 5 << 32 | 9, 11)
    scene = kernel.scene()
    assert audit._count(scene.memory, scene.layout, folder) == 3 + 5


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
    monkeypatch.setattr(structures, "area_tables", lambda *_: ())
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
    monkeypatch.setattr(locks, "held_by_readers", lambda *_: next(looks, seen[-1]))
    assert looking.kept_by_readers(Deadline(10)) == kept
    assert sum(slept) == pytest.approx(5 if kept else 0.1 * (len(seen) - 1))


def test_what_is_not_looked_for_is_said_for_as_long_as_a_template_is_kept(tmp_path: Path) -> None:
    """A green says less then."""
    assert "cannot be read from outside" in audit.not_looked_for(tmp_path)
    stock = Layout(0, 0, 0, 0, (), {}, None, ())
    (tmp_path / audit.LAYOUT).write_text(stock.to_json())
    assert audit.not_looked_for(tmp_path) == ""
    (tmp_path / audit._UNRECORDED).write_text("it is not found")
    assert "allocations are not recorded (it is not found)" in audit.not_looked_for(tmp_path)


@pytest.mark.parametrize(
    ("used", "continues", "full", "came", "stopped"),
    [
        (101, True, False, True, False), (100, True, False, True, True),
        (101, False, False, True, True), (100, True, True, True, False),
        (100, True, False, False, False),
    ],
)  # fmt: skip
def test_a_record_that_is_kept_has_more_of_each_thing_that_a_guest_does(
    looking: Audit, monkeypatch: pytest.MonkeyPatch,
    used: int, continues: bool, full: bool, came: bool, stopped: bool,
) -> None:  # fmt: skip
    """Else it was stopped before it was looked at, unless no module has come that begins it.

    One that is full is told by itself.
    """
    before: Any = SimpleNamespace(bytes_used=100)
    now: Any = SimpleNamespace(bytes_used=used, continues=lambda _: continues, full=full)
    monkeypatch.setattr(audit, "Reader", lambda memory, *_: now if memory == "now" else before)
    monkeypatch.setattr(looking, "_open", (None, "now", "before"))
    monkeypatch.setattr(looking, "_record", object())
    monkeypatch.setattr(looking, "_came", came)
    assert not looking.record_has_stopped()  # nobody has looked yet
    monkeypatch.setattr(looking, "_recorded", 100)
    assert looking.record_has_stopped() is stopped


@pytest.mark.parametrize(
    ("mapped", "loaded", "at", "order", "may_be"),
    [
        # The machine has none under test, and none came.
        ({0x1000}, False, 0x5008, 9, False),
        # One came. Its init may have been anywhere, and has made nothing before.
        ({0x1000, 0x2000}, False, 0x5008, 9, True),
        ({0x1000, 0x2000}, False, 0x5008, 5, False),
        # So did another one. It is not known what there was before that.
        ({0x1000, 0x2000, 0x6000}, False, 0x5008, 5, True),
        # "stays" was frozen with it, and is there; "goes" was, too, and is not.
        ({0x1000}, True, 0x3008, 9, True),
        ({0x1000}, True, 0x5008, 9, False),
        ({0x1000, 0x4000}, True, 0x5008, 9, True),
        ({0x1000, 0x2000}, True, 0x5008, 9, True),
        ({0x1000, 0x2000}, True, 0x5008, 5, False),
        ({0x1000, 0x2000}, True, 0x3008, 5, True),
    ],
)  # fmt: skip
def test_whose_init_it_was_that_is_gone(
    tmp_path: Path, mapped: set[int], loaded: bool, at: int, order: int, may_be: bool
) -> None:
    """That of a module that is loaded has made what the module has."""
    looks = Audit(cast(Any, None), tmp_path, loaded=loaded)
    sections = {"stays": {".text": "0x1000", ".init.text": "0x3000"},
                "goes": {".text": "0x4000", ".init.text": "0x5000"}}  # fmt: skip
    frozen = ModuleArea((), frozenset({0x1000, 0x4000} if loaded else {0x1000}), 0, 0x9000)
    looks._known = cast(Any, SimpleNamespace(area=frozen, sections=sections))
    looks._since = {0x2000: 5}
    now = ModuleArea((), frozenset(mapped), 0, 0x9000)
    assert looks._may_be_loaded(now)(at, order) is may_be


def test_a_module_is_where_its_sections_are_and_what_follows_them() -> None:
    """Another one's, behind a page that is not mapped, is not its."""
    area = ModuleArea((), frozenset({0x2000, 0x3000, 0x5000, 0x6000, 0x8000}), 0, 0x9000)
    modules = {"here": {".text": "0x2040", ".init.text": "0x7000", ".data": "0x6000"}}
    assert sorted(audit._pages_of(modules, area)) == [0x2000, 0x3000, 0x6000]
