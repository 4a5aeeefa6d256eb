# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/cards.py: many modules, and nothing that one does harms another's card."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness import config
from harness.config import Equipment, GuestSpec, KernelSpec, Matrix
from harness.errors import InputError, SpaceError, Status
from harness.host import progress
from harness.host.cache import Cache
from harness.report.card import Card
from harness.report.result import Cell
from harness.runs import cards, sweep
from harness.runs import cards as runs
from harness.runs.cards import Judge, Subject
from harness.runs.pytest_process import Ended, Progress
from harness.runs.request import Request
from harness.runs.sweep import Ready

SPEC = KernelSpec("one", "trixie", "amd64", version="1-1")
MATRIX = Matrix("one", {"one": SPEC}, GuestSpec("trixie", (), ()))
C = 'MODULE_LICENSE("GPL"); module_init(x);\n'
JUNIT = (
    '<testsuites><testsuite><testcase classname="tests.vm.any.test_life" name="test_it" time="1">'
    "{inside}</testcase></testsuite></testsuites>"
)


def folder(parent: Path, name: str, text: str = C) -> Path:
    """A module's folder."""
    made = parent / name
    made.mkdir(parents=True)
    (made / "mod.c").write_text(text)
    return made


class Stages:
    """What stands in for what is below: it remembers what it was asked for."""

    def __init__(self) -> None:
        self.tested: list[str] = []  # names of folders
        self.loaded: list[str] = []  # those of which there is a template that has it loaded
        self.arguments: list[list[str]] = []
        self.ready: dict[str, Callable[[KernelSpec], Ready]] = {}
        self.inside: dict[str, str] = {}  # of a folder's test in its JUnit file
        self.after: Callable[[], None] = lambda: None  # called at the end of each pytest
        self.hanging: set[str] = set()  # folders whose pytest does not end before it is told to


@pytest.fixture(autouse=True)
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    """No kernel, no pytest, and results and a cache of this test's own."""
    made = Stages()

    def make_ready(
        spec: KernelSpec, _: object, cache: Cache, source: object, _2: object, *, hints: bool,
        load: bool,
    ) -> Ready:  # fmt: skip
        assert hints
        if load:
            made.loaded.append(Path(str(source)).name)
        how = made.ready.get(Path(str(source)).name)
        return how(spec) if how else Ready(spec, "6.12")

    class Process:
        def __init__(self, arguments: list[str], *_: object, **__: object) -> None:
            self._arguments = arguments
            self._told = threading.Event()

        def wait(self) -> Ended:
            options = dict(word.split("=", 1) for word in self._arguments if "=" in word)
            name = Path(options["--module"]).name
            made.tested.append(name)
            made.arguments.append(self._arguments)
            if name in made.hanging:
                assert self._told.wait(60)
                return Ended(Status.OURS, why="pytest was ended by SIGKILL")
            inside = made.inside.get(name, "")
            Path(options["--junitxml"]).write_text(JUNIT.format(inside=inside))
            made.after()
            return Ended(Status.RED if inside else Status.GREEN)

        def interrupt(self) -> None:
            pass

        def end(self) -> None:
            self._told.set()

        def join(self, seconds: float) -> None:
            pass

    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("EUDYPTULA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sweep, "make_ready", make_ready)
    monkeypatch.setattr(cards, "PytestProcess", Process)
    return made


def subjects(given: list[Path]) -> list[Subject]:
    """What a person gives are words."""
    return runs.subjects([str(path) for path in given])


def judge(found: list[Subject]) -> list[Card]:
    return Judge(Request(jobs=1), MATRIX).run(found, [SPEC])


# -- which folders -----------------------------------------------------------------


def test_a_folder_of_folders_is_all_of_them(tmp_path: Path) -> None:
    """Those without a module too: theirs is a card that says so. Hidden ones are left out."""
    parent = tmp_path / "class"
    folder(parent, "bob")
    folder(parent, "alice/src")
    (parent / "carol").mkdir()
    (parent / ".git-cache").mkdir()
    assert [one.name for one in subjects([parent])] == ["alice", "bob", "carol"]


def test_what_is_packed_in_the_place_of_a_folder_has_its_card(
    tmp_path: Path, stages: Stages
) -> None:
    """It says that it is an archive. A finished module is judged; other files are nobody's."""
    parent = tmp_path / "class"
    folder(parent, "alice")
    for name in ("bob.zip", "carol.tar.gz", "dave.ko", "README.txt", "__MACOSX/x"):
        (parent / name).parent.mkdir(exist_ok=True)
        (parent / name).touch()
    found = subjects([parent])
    assert [one.name for one in found] == ["alice", "bob.zip", "carol.tar.gz", "dave.ko"]
    alice, bob, *_ = judge(found)
    assert (alice.outcome, bob.outcome) == ("green", "no module")
    assert "is an archive" in bob.findings[0].seen
    assert subjects([parent / "bob.zip"]) == [found[1]]


def test_a_modules_folder_is_one(tmp_path: Path) -> None:
    """Whatever else is in it; a repository is one as well, although its module lies below."""
    one = folder(tmp_path, "one")
    folder(one, "tests")
    other = tmp_path / "other"
    (other / ".git").mkdir(parents=True)
    folder(other, "src")
    (other / "docs").mkdir()
    assert [each.name for each in subjects([one, other])] == ["one", "other"]


def test_two_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    """Their cards have places of their own. The same folder twice is one."""
    first, second = folder(tmp_path, "a/wee"), folder(tmp_path, "b/wee")
    found = subjects([first, second, tmp_path / "a" / ".." / "a" / "wee"])
    assert [one.name for one in found] == ["a/wee", "b/wee"]
    assert len({one.key for one in found}) == 2


@pytest.mark.parametrize("name", ["with blank, comma", "-dash", "\u00e9\u4e2d", "\udcff"])
def test_odd_names_are_no_trouble(tmp_path: Path, name: str) -> None:
    """A folder may be called anything; what is made of it is plain."""
    (found,) = subjects([folder(tmp_path, name)])
    assert found.key.isascii()
    assert not set(found.key) - set("abcdefghijklmnopqrstuvwxyz0123456789-")
    (card,) = judge([found])
    assert card.outcome == "green"


def test_what_is_no_folder_is_bad_input(tmp_path: Path) -> None:
    """Before anything is begun."""
    with pytest.raises(InputError, match="there is no folder"):
        subjects([tmp_path / "nobody"])


def test_what_is_no_folder_of_sources_is_judged_too(tmp_path: Path) -> None:
    """A finished module, and a Debian package."""
    (tmp_path / "wee.ko").write_bytes(b"\x7fELF")
    found = runs.subjects([str(tmp_path / "wee.ko"), "deb:acpi-call-dkms"])
    assert [one.name for one in found] == ["wee.ko", "deb:acpi-call-dkms"]
    assert [one.source.package for one in found] == ["", "acpi-call-dkms"]


# -- a run -------------------------------------------------------------------------


def test_what_goes_wrong_with_one_is_its_card(tmp_path: Path, stages: Stages) -> None:
    """No source, no build, a fault of ours, a full disk: the others are judged all the same."""
    parent = tmp_path / "class"
    for name in ("broken", "ours", "full", "well", "wrong"):
        folder(parent, name)
    (parent / "empty").mkdir()
    cell = Cell(True, "red", "broken/ does not build: mod.c:1:1: error: x")
    stages.ready["broken"] = lambda spec: Ready(spec, "6.12", {"build": cell}, status=1)

    def ours(_: KernelSpec) -> Ready:
        raise ZeroDivisionError("1/0")

    def full(_: KernelSpec) -> Ready:
        raise SpaceError("no space left")

    stages.ready["ours"], stages.ready["full"] = ours, full
    stages.inside["wrong"] = "<failure>E   AssertionError: it is wrong</failure>"
    made = judge(subjects([parent]))
    assert {one.name: one.outcome for one in made} == {
        "broken": "does not build", "empty": "no module", "full": "not known",
        "ours": "not known", "well": "green", "wrong": "1 fault",
    }  # fmt: skip
    assert [one.status for one in made] == [1, 2, 3, 70, 0, 1]
    place = cards.folder()
    assert {"cards.md", "cards.json", "cards.csv"} <= {path.name for path in place.iterdir()}
    assert "it is wrong" in (place / subjects([parent])[5].key / "card.md").read_text()
    assert len(json.loads((place / "cards.json").read_text())) == 6


def test_a_card_says_what_several_kernels_say_of_its_module(tmp_path: Path, stages: Stages) -> None:
    """Once all are judged: the first one that refuses it, also on the card to be handed out."""
    one = folder(tmp_path, "one")
    cell = Cell(True, "red", "one/ does not build: mod.c:1:1: error: x")
    releases = {"old": "5.10.1", "new": "6.12.1"}

    def ready(spec: KernelSpec) -> Ready:
        cells = {"build": cell} if spec.name == "new" else {}
        return Ready(spec, releases[spec.name], cells, status=len(cells))

    stages.ready["one"] = ready
    specs = [replace(SPEC, name=name) for name in ("new", "old")]
    found = subjects([one])
    new, old = Judge(Request(jobs=1), MATRIX).run(found, specs)
    said = "Kernel new (6.12.1) is the first that refuses it; old (5.10.1) still builds it."
    assert said in new.findings[0].means
    assert old.outcome == "green"
    for path in (cards.folder() / found[0].key / "card.md", cards.folder() / "cards.md"):
        assert said in path.read_text()


def test_a_card_says_that_own_tests_were_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how they are, from whichever folder; where there are none there is nothing to say."""
    one = folder(tmp_path, "one")
    monkeypatch.chdir(tmp_path)
    (bare,) = judge(subjects([Path("one")]))
    (one / "tests").mkdir()
    (one / "tests" / "test_one.py").touch()
    (card,) = judge(subjects([Path("one")]))
    command = f"pytest {one}/tests --module={one} --kernel one"
    said = f"Its own tests are not part of the judgement. They are run by: {command}"
    assert said in card.notes
    assert not any("own tests" in note for note in bare.notes)


def test_hints_of_the_compiler_are_notes(tmp_path: Path, stages: Stages) -> None:
    """They make nothing red."""
    hint = "mod.c:2:18: warning: 'never' defined but not used [-Wunused-const-variable=]"
    stages.ready["one"] = lambda spec: Ready(spec, "6.12", hints=(hint,))
    (one,) = judge(subjects([folder(tmp_path, "one")]))
    assert one.outcome == "green"
    assert f"With W=1: {hint}" in one.notes


def test_tests_that_do_not_end_are_ended(
    tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pytest that takes too long and leaves no result: a card says so, and the next is judged."""
    parent = tmp_path / "class"
    folder(parent, "hangs")
    stages.hanging.add("hangs")
    (hangs,) = (one for one in subjects([parent]) if one.name == "hangs")
    with monkeypatch.context() as short:
        short.setattr(cards, "MODULE_SECONDS", 0.0)
        (made,) = judge([hangs])
    assert (made.outcome, made.status) == ("1 fault", Status.RED)
    assert (made.findings[0].kind, made.findings[0].seen) == (
        "hang", "its tests took more than 0 minutes, and were ended"
    )  # fmt: skip
    (well,) = judge(subjects([folder(parent, "well")]))
    assert well.outcome == "green"


def test_who_judges_sees_that_it_goes_on(
    tmp_path: Path,
    stages: Stages,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each module's tests take a minute and more, and what pytest prints is not shown."""
    monkeypatch.setattr(progress, "_ROUND_SECONDS", 0.001)
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_terminal", None)
    said: list[str] = []
    named = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            if "test_long" in said[-1]:
                named.set()

    def long() -> None:
        run = next((config.RESULTS / "judge").glob("*/one/2*"))
        Progress(running=("tests/vm/any/test_life.py::test_long",)).write(run)
        assert named.wait(60)

    stages.after = long
    heard, log = Heard(), logging.getLogger("harness")
    caplog.set_level(logging.INFO, "harness")
    log.addHandler(heard)
    try:
        judge(subjects([folder(tmp_path, "alice")]))
    finally:
        log.removeHandler(heard)
    assert "alice on one: its tests" in said
    assert any(line.endswith("s, test_long") for line in said)


def test_a_module_that_hangs_does_not_hang_in_every_test(tmp_path: Path, stages: Stages) -> None:
    """Its tests are told how long they may do so together."""
    judge(subjects([folder(tmp_path, "any")]))
    assert f"--hangs={cards.HANG_SECONDS:.0f}" in stages.arguments[0]


def test_one_that_hung_before_its_tests_does_so_once_more(tmp_path: Path, stages: Stages) -> None:
    """It was loaded to make the kernel ready, and did not come back: one test is to say that."""
    for name, why in (("hangs", "hung: the guest is well, but `insmod a.ko` is stuck"),
                      ("refuses", "insmod: ERROR: No such device")):  # fmt: skip
        cells = {"load": Cell(True, "red", why)}
        stages.ready[name] = lambda spec, cells=cells: Ready(spec, "6.12", cells)  # type: ignore[misc]
        judge(subjects([folder(tmp_path, name)]))
    hangs, refuses = stages.arguments
    assert "--hangs=0" in hangs
    assert f"--hangs={cards.HANG_SECONDS:.0f}" in refuses


def test_what_is_not_for_the_kernel_is_no_fault(tmp_path: Path, stages: Stages) -> None:
    """Its own dkms.conf says so: that is neither green nor red."""
    cell = {"build": Cell(True, "red", "not for 6.12")}
    stages.ready["a"] = lambda spec: Ready(spec, "6.12", cell, status=1, left_out="not for 6.12")
    (made,) = judge(subjects([folder(tmp_path, "a")]))
    assert (made.outcome, made.status, made.findings) == ("not tried", 0, ())
    assert made.notes == ("Not tried: not for 6.12",)


def test_the_suites_are_those_that_fit(tmp_path: Path, stages: Stages) -> None:
    """The contract is for what looks like the exercise. Its tests begin with the module loaded."""
    judge(subjects([folder(tmp_path, "any")]))
    judge(subjects([folder(tmp_path, "wee", f'{C}char *name = "eudyptula";\n')]))
    any_suite, both = (
        [word for word in words if word.startswith("tests/")] for words in stages.arguments
    )
    assert any_suite == ["tests/vm/any"]
    assert both == ["tests/vm/contract", "tests/vm/any"]
    assert stages.loaded == ["wee"]


def test_an_interrupted_run_goes_on(tmp_path: Path, stages: Stages) -> None:
    """What was judged is not judged again, unless it has changed; a new run judges all."""
    parent = tmp_path / "class"
    for name in ("a", "b", "c"):
        folder(parent, name)

    def interrupt() -> None:
        if "b" in stages.tested:
            raise KeyboardInterrupt

    stages.after = interrupt
    with pytest.raises(KeyboardInterrupt) as interrupted:
        judge(subjects([parent]))
    assert "1 of 3 are judged" in interrupted.value.__notes__[0]
    stages.after = lambda: None
    assert [one.outcome for one in judge(subjects([parent]))] == ["green"] * 3
    assert stages.tested.count("a") == 1
    before = len(stages.tested)
    judge(subjects([parent]))
    assert stages.tested[before:] == ["a", "b", "c"]


def test_what_has_changed_meanwhile_is_judged_again(tmp_path: Path, stages: Stages) -> None:
    """A card is of the sources that it was made of."""
    parent = tmp_path / "class"
    first = folder(parent, "a")
    folder(parent, "b")

    def interrupt() -> None:
        if stages.tested == ["a", "b"]:
            raise KeyboardInterrupt

    stages.after = interrupt
    with pytest.raises(KeyboardInterrupt):
        judge(subjects([parent]))
    (first / "mod.c").write_text(f"{C}\n/* mended */\n")
    judge(subjects([parent]))
    assert stages.tested == ["a", "b", "a", "b"]


def test_frozen_machines_of_a_module_are_removed(tmp_path: Path, stages: Stages) -> None:
    """Thirty modules would leave ten gigabytes. Those of other modules stay."""
    kept = []
    with Cache() as cache:
        for module in ("mine", "other"):
            key = {"base": "x", "key": {"module": module}}
            entry = cache.get("template", module, key, lambda path: (path / "memory").touch())
            kept.append(entry.path)
    stages.ready["a"] = lambda spec: Ready(spec, "6.12", module="mine")
    judge(subjects([folder(tmp_path, "a")]))
    assert [path.exists() for path in kept] == [False, True]


ACCEPTED = '[[accepted]]\nfinding = "it is wrong"\nwhy = "for now"\nuntil = {until}\n'
WRONG = "<failure>E   AssertionError: it is wrong</failure>"


def test_what_stands_beside_the_module_is_accepted(tmp_path: Path, stages: Stages) -> None:
    """In eudyptula.toml, until its day is over."""
    for name, until in (("known", "9999-12-31"), ("over", "2000-01-01")):
        made = folder(tmp_path / "class", name)
        (made / "eudyptula.toml").write_text(ACCEPTED.format(until=until))
        stages.inside[name] = WRONG
    known, over = judge(subjects([tmp_path / "class"]))
    assert (known.outcome, known.status) == ("green (1 accepted)", 0)
    assert (over.outcome, over.status) == ("1 fault", 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accepted = 1", "may have nothing but"),
        ("[[accepted]]\nfinding = 'x'", "has other keys"),
        (ACCEPTED.format(until="'tomorrow'"), "is no day"),
        (ACCEPTED.format(until="2026-01-01T00:00:00"), "is no day"),
        (ACCEPTED.format(until="2026-01-01").replace('"for now"', '" "'), "is no text"),
        ("= what?", "is not valid TOML"),
        ("\udcff", "is not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML"),
    ],
)
def test_a_file_that_accepts_nothing_sensible_is_a_card(
    tmp_path: Path, text: str, said: str
) -> None:
    """Its card says what is wrong with it."""
    made = folder(tmp_path, "a")
    (made / "eudyptula.toml").write_bytes(text.encode(errors="surrogateescape"))
    (card,) = judge(subjects([made]))
    assert (card.outcome, card.status) == ("no module", Status.INPUT)
    assert said in card.findings[0].seen


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a named pipe"),  # whoever opens one waits for a writer
        (lambda path: path.symlink_to(path.parent.parent / "elsewhere"), "is a link"),
        (lambda path: path.write_bytes(bytes(2 << 20)), "more than 1048576"),
        (lambda path: path.mkdir(), "is a folder"),
    ],
)
def test_what_only_looks_like_that_file_is_not_read(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    """And a link is not followed, as what it leads to is not the module's."""
    (tmp_path / "elsewhere").write_text(ACCEPTED.format(until="9999-12-31"))
    made = folder(tmp_path, "a")
    make(made / "eudyptula.toml")
    (card,) = judge(subjects([made]))
    assert card.status == Status.INPUT
    assert said in card.findings[0].seen


def test_what_the_last_run_did_not_find_is_new(tmp_path: Path, stages: Stages) -> None:
    """In the first run nothing is."""
    made = folder(tmp_path, "a")
    stages.inside["a"] = WRONG
    (first,) = judge(subjects([made]))
    stages.inside["a"] = WRONG.replace("wrong", "very wrong")
    (second,) = judge(subjects([made]))
    (third,) = judge(subjects([made]))
    assert [one.findings[0].new for one in (first, second, third)] == [False, True, False]
    assert second.notes[-1] == "No longer found: it is wrong"


def test_options_of_a_module_are_for_each(tmp_path: Path, stages: Stages) -> None:
    """Which of several, its parameters, the profile of a kernel tree."""
    folder(tmp_path / "class", "a")
    folder(tmp_path / "class", "b")
    found = runs.subjects([str(tmp_path / "class")], "wee,woo", ["n=1"])
    tree = KernelSpec("tree", "trixie", profile="debug", tree=tmp_path)
    asked = Request(jobs=1, profile="debug", equipment=Equipment(devices=("edu",)))
    Judge(asked, MATRIX).run(found, [tree])
    for arguments in stages.arguments:
        wanted = {"--ko=wee,woo", "--param=n=1", "--profile=debug", "--device=edu"}
        assert wanted <= set(arguments)
    assert len(stages.arguments) == 2
