# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/bisect.py: what is tried, and what is concluded from it."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import config, lab
from harness.build import archive
from harness.build.archive import Release
from harness.commands import bisect
from harness.commands.bisect import Outcome, Reached
from harness.config import KernelSpec
from harness.errors import (
    BootError,
    BuildError,
    CommandError,
    GoneError,
    GuestLost,
    HarnessError,
    HostError,
    InputError,
    KernelBuildError,
    MachineFault,
    MissingToolError,
    OwnFaultError,
    SpaceError,
    Status,
)
from harness.host import proc
from harness.host.cache import Cache
from harness.host.proc import Completed
from harness.runs import pytest_process
from harness.runs.pytest_process import Ended
from harness.runs.request import Plan, Request

GOOD, BAD, SKIP = Outcome.GOOD, Outcome.BAD, Outcome.SKIP
PASSES, FAILS = Reached.TESTS, Reached.BOOT
RELEASES = ["6.12.9", "6.12.10", "6.12.12", "6.12.100", "6.13.1"]
KNOWN = [Release("trixie", release, f"{release}-1") for release in RELEASES]

# -- searching ---------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4, 7, 64])
def test_the_first_bad_one_is_found_wherever_it_is(count: int) -> None:
    """In no more steps than halving takes."""
    for first_bad in range(1, count):
        tried: list[int] = []

        def test(item: int, first_bad: int = first_bad, tried: list[int] = tried) -> Outcome:
            tried.append(item)
            return BAD if item >= first_bad else GOOD

        found = bisect.search(range(count), test)
        assert (found.good, found.bad, found.between) == (first_bad - 1, first_bad, ())
        assert len(tried) <= (count - 2).bit_length()
        assert len(set(tried)) == len(tried)


def test_what_cannot_be_told_is_neither_good_nor_bad() -> None:
    """With any of five skipped: what is found is true, and exact where that can be known."""
    for first_bad in range(1, 6):
        for skipped in itertools.product([False, True], repeat=5):
            unknown = {number for number, skip in enumerate(skipped, 1) if skip}

            def test(item: int, unknown: set[int] = unknown, first: int = first_bad) -> Outcome:
                return SKIP if item in unknown else BAD if item >= first else GOOD

            found = bisect.search(range(7), test)
            assert found.good < first_bad <= found.bad
            assert set(found.between) <= unknown
            assert found.between == tuple(range(found.good + 1, found.bad))


def test_releases_between_two_are_named_by_their_beginning() -> None:
    """6.12.10 is not 6.12.100, and the order is that of the list."""
    assert bisect.between(KNOWN, "6.12.10", "6.12.100") == RELEASES[1:4]
    assert bisect.between(KNOWN, "6.12.9", "6.13") == RELEASES


def test_releases_are_named_by_the_version_of_their_packages_too() -> None:
    """Debian's 6.1.0-49 is 6.1.153, which is what people know."""
    known = [Release("bookworm", f"6.1.0-{number}-amd64", f"6.1.{number}0-1") for number in (1, 2)]
    assert bisect.between(known, "6.1.10", "6.1.20") == ["6.1.0-1-amd64", "6.1.0-2-amd64"]


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [("6.12.11", "6.13.1", "--good: the archive has no kernel 6.12.11"),
     ("6.12.9", "7.0", "--bad: the archive has no kernel 7.0"),
     ("6.13.1", "6.12.9", "--good 6.13.1 is not older"),
     ("6.12.9", "6.12.9", "--good 6.12.9 is not older")],
)  # fmt: skip
def test_ends_that_make_no_sense_are_told(good: str, bad: str, said: str) -> None:
    """A release that the archive has not, and ends that are the wrong way round."""
    with pytest.raises(InputError, match=said):
        bisect.between(KNOWN, good, bad)


def releases_of(first_bad: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An archive with RELEASES, bad from one on; what is tested is noted."""
    tried: list[str] = []
    index = SimpleNamespace(releases=lambda _: KNOWN)
    monkeypatch.setattr(archive, "index", lambda *_: index)

    def reached(spec: KernelSpec, *_: object) -> Reached:
        assert (spec.suite, spec.flavour) == ("trixie", "cloud-amd64")
        tried.append(spec.release)
        return FAILS if RELEASES.index(spec.release) >= first_bad else PASSES

    monkeypatch.setattr(bisect, "reached", reached)
    return tried


def test_the_releases_of_a_suite_are_searched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both ends are tried first, and the answer names two neighbours."""
    tried = releases_of(2, monkeypatch)
    assert bisect.run(Request("trixie"), "6.12.9", "6.13.1") == 0
    assert tried[:2] == ["6.13.1", "6.12.9"]
    assert capsys.readouterr().out.split("\n")[1:3] == ["last good: 6.12.10", "first bad: 6.12.12"]


@pytest.mark.parametrize(
    ("first_bad", "said"),
    [
        (0, r"6\.12\.9 was said to be good, but tests fail"),
        (9, r"6\.13\.1 was said to be bad, but tests pass"),
    ],
)
def test_ends_that_are_not_as_said_end_it(
    monkeypatch: pytest.MonkeyPatch, first_bad: int, said: str
) -> None:
    """What would be found between them would be nonsense."""
    releases_of(first_bad, monkeypatch)
    with pytest.raises(InputError, match=said):
        bisect.run(Request("trixie"), "6.12.9", "6.13.1")


# -- one kernel --------------------------------------------------------------------


def test_git_bisects_words() -> None:
    """Outcomes are what git bisect takes as its commands."""
    assert [outcome.value for outcome in Outcome] == ["good", "bad", "skip"]


def far(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str, result: object
) -> Reached | None:
    """How far it goes when one stage ends with ``result`` (an error, or pytest's status)."""
    monkeypatch.setenv("EUDYPTULA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")

    def step(name: str) -> Callable[..., object]:
        def do(*_: object, **__: object) -> object:
            if stage == name and isinstance(result, Exception):
                raise result
            return SimpleNamespace(
                build=step("build"), template=step("boot"), how="by Kbuild", digest="m"
            )

        return do

    monkeypatch.setattr(lab, "prepare_lab", step("kernel"))
    monkeypatch.setattr(pytest_process, "run", lambda *_, **__: Ended(cast(int, result)))
    spec = KernelSpec("wee", "trixie", "cloud-amd64")
    return bisect.reached(spec, config.load(), Plan(Request(), {"contract": "x"}))


@pytest.mark.parametrize(
    ("stage", "result", "reached"),
    [("kernel", KernelBuildError("x"), Reached.NOTHING), ("kernel", GoneError("x"), None),
     ("build", BuildError("x"), Reached.KERNEL), ("boot", BootError("x"), Reached.MODULE),
     ("boot", GuestLost("x"), Reached.MODULE),
     ("tests", 1, Reached.BOOT), ("tests", 0, Reached.TESTS)],
    ids=["kernel does not build", "package is gone", "module does not build", "does not boot",
         "does not answer", "red", "green"],
)  # fmt: skip
def test_how_far_it_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str, result: object,
    reached: Reached | None,
) -> None:  # fmt: skip
    """Each stage that ends in an error is where it ends."""
    assert far(monkeypatch, tmp_path, stage, result) is reached


@pytest.mark.parametrize(
    ("bad", "told"),
    [(Reached.BOOT, [SKIP, SKIP, SKIP, BAD, GOOD]),
     (Reached.MODULE, [SKIP, SKIP, BAD, GOOD, GOOD]),
     (Reached.KERNEL, [SKIP, BAD, GOOD, GOOD, GOOD]),
     (Reached.NOTHING, [BAD, GOOD, GOOD, GOOD, GOOD])],
    ids=["tests fail", "does not boot", "module does not build", "kernel does not build"],
)  # fmt: skip
def test_what_is_looked_for_is_what_the_bad_end_does(bad: Reached, told: list[Outcome]) -> None:
    """What goes further is good; what does not come as far cannot be told."""
    assert [bisect.outcome(each, bad) for each in Reached] == told
    assert bisect.outcome(None, bad) is SKIP


@pytest.mark.parametrize(
    ("stage", "result"),
    [
        ("kernel", SpaceError("x")),
        ("boot", MachineFault("x")),
        ("tests", Status.INPUT),
        ("tests", Status.OURS),
    ],
)
def test_what_is_not_the_kernels_fault_ends_the_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str, result: object
) -> None:
    """A full disk is no bad commit, and a run that did not come to its end no bad one either."""
    with pytest.raises(HarnessError):
        far(monkeypatch, tmp_path, stage, result)


def test_a_host_that_is_to_blame_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where tests are red and only the host is to blame (harness/plugin.py)."""
    with pytest.raises(HostError, match="nothing of the kernel") as caught:
        far(monkeypatch, tmp_path, "tests", Status.HOST)
    assert caught.value.hint


def test_a_fault_of_ours_is_not_the_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pytest's internal error is 3 as well, and a worker that died says nothing of the kernel."""
    with pytest.raises(OwnFaultError, match="nothing of the kernel"):
        far(monkeypatch, tmp_path, "tests", Status.OURS)


def test_an_interrupted_test_interrupts_the_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever ended pytest wants no other kernel to be tried."""
    with pytest.raises(KeyboardInterrupt):
        far(monkeypatch, tmp_path, "tests", Status.INTERRUPTED)


# -- commits -----------------------------------------------------------------------


def git(tree: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(tree), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A kernel tree with eight commits; number N has N in its file."""
    monkeypatch.setenv("EUDYPTULA_CACHE", str(tmp_path / "cache"))
    tree = tmp_path / "linux"
    for name in ("Makefile", "Kbuild", "Kconfig", "arch/x86/Kconfig", "scripts/kconfig/x"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    git(tmp_path, "init", "-q", "linux")
    commits = []
    for number in range(8):
        (tree / "number").write_text(f"{number}")
        git(tree, "add", "-A")
        git(tree, "commit", "-qm", f"change {number}")
        commits.append(git(tree, "rev-parse", "HEAD"))
    return tree, commits


def answers(monkeypatch: pytest.MonkeyPatch, by_number: Sequence[Reached]) -> list[int]:
    """How far it goes with each commit, by its number; which were tried is noted."""
    tried: list[int] = []

    def reached(spec: KernelSpec, *_: object) -> Reached:
        assert spec.tree is not None
        tried.append(int((spec.tree / "number").read_text()))
        return by_number[tried[-1]]

    monkeypatch.setattr(bisect, "reached", reached)
    return tried


def test_the_first_bad_commit_is_found_and_the_tree_is_not_touched(
    history: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Although its files have changes that are not committed."""
    tree, commits = history
    (tree / "number").write_text("mine")
    tried = answers(monkeypatch, [PASSES] * 5 + [FAILS] * 3)
    assert bisect.run(Request(str(tree)), commits[0], "HEAD") == 0
    assert tried[:2] == [7, 0]
    assert {4, 5} <= set(tried)
    said = capsys.readouterr().out
    assert f"{commits[5]} is the first bad commit" in said
    assert "change 5" in said
    assert (tree / "number").read_text() == "mine"
    assert git(tree, "rev-parse", "HEAD") == commits[7]
    assert not (tree / ".git/BISECT_START").exists()


def test_commits_that_cannot_be_told_are_named(
    history: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The answer is then more than one commit, and not success."""
    tree, commits = history
    answers(monkeypatch, [PASSES] * 3 + [Reached.NOTHING, Reached.MODULE] + [FAILS] * 3)
    assert bisect.run(Request(str(tree)), commits[0], commits[7]) == 1
    said = capsys.readouterr().out
    assert "could be any of" in said
    assert all(sha in said for sha in commits[3:6])
    # And a second search in the same clone begins afresh.
    answers(monkeypatch, [PASSES] * 2 + [FAILS] * 6)
    assert bisect.run(Request(str(tree)), commits[0], commits[7]) == 0
    assert f"{commits[2]} is the first bad commit" in capsys.readouterr().out


def test_the_change_after_which_the_module_does_not_build_is_found(
    history: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Where the bad end is one that it does not build for; red tests before it do not matter."""
    tree, commits = history
    answers(monkeypatch, [PASSES, PASSES, FAILS, FAILS] + [Reached.KERNEL] * 4)
    assert bisect.run(Request(str(tree)), commits[0], commits[7]) == 0
    assert f"{commits[4]} is the first bad commit" in capsys.readouterr().out


def test_neighbours_need_no_search(
    history: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The bad end is then the first bad one."""
    tree, commits = history
    tried = answers(monkeypatch, [PASSES] * 5 + [FAILS] * 3)
    assert bisect.run(Request(str(tree)), commits[4], commits[5]) == 0
    assert tried == [5, 4]
    assert f"{commits[5]} is the first bad commit" in capsys.readouterr().out


@pytest.mark.parametrize("left", ["index.lock", "HEAD.lock", "refs/bisect/bad.lock"])
def test_what_a_killed_git_has_left_is_in_nobodys_way(
    history: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """Ctrl-C ends git with SIGKILL, and its locks stay in the clone that is kept."""
    tree, commits = history
    answers(monkeypatch, [PASSES] * 5 + [FAILS] * 3)
    assert bisect.run(Request(str(tree)), commits[0], commits[7]) == 0
    (clone,) = Cache().root.glob("kept/bisect-*/linux/.git")
    (clone / left).parent.mkdir(exist_ok=True, parents=True)
    (clone / left).touch()
    assert bisect.run(Request(str(tree)), commits[0], commits[7]) == 0


def test_a_clone_that_was_killed_is_made_again(
    history: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a clone is never taken for a whole one."""
    tree, commits = history
    answers(monkeypatch, [PASSES] * 5 + [FAILS] * 3)
    run = proc.run

    def killed(argv: Sequence[str], **options: Any) -> Completed:
        if "clone" not in argv:
            return run(argv, **options)
        (Path(argv[-1]) / ".git" / "objects").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(proc, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            bisect.run(Request(str(tree)), commits[0], commits[7])
    assert bisect.run(Request(str(tree)), commits[0], commits[7]) == 0


def test_git_speaks_the_language_that_is_read(
    history: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It translates what it says of a bisection, too."""
    tree, commits = history
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    answers(monkeypatch, [PASSES] * 5 + [FAILS] * 3)
    spoken = set()
    run = proc.run

    def spy(argv: Sequence[str], **options: Any) -> Completed:
        if "bisect" in argv:
            spoken.add((options.get("env") or os.environ)["LC_ALL"])
        return run(argv, **options)

    monkeypatch.setattr(proc, "run", spy)
    assert bisect.run(Request(str(tree)), commits[0], commits[7]) == 0
    assert spoken == {"C"}


@pytest.mark.parametrize("name", ["nonsense", "0" * 40, "HEAD~100", "HEAD:number"])
def test_what_is_no_commit_is_said_to_be_none(history: tuple[Path, list[str]], name: str) -> None:
    """A name, a digest, an ancestor that there is not, and a file."""
    with pytest.raises(InputError, match="has no commit"):
        bisect.commit(history[0], "bad", name)


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (128, "fatal: detected dubious ownership in repository", CommandError),
        (127, "sh: 1: exec: git: not found", MissingToolError),
    ],
)
def test_a_git_that_fails_is_not_said_to_lack_a_commit(
    history: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, status: int, said: str,
    kind: type[HarnessError],
) -> None:  # fmt: skip
    """Somebody else's tree, which git does not trust, and a host without git."""
    monkeypatch.setattr(proc, "run", lambda argv, **_: Completed(tuple(argv), status, "", said))
    with pytest.raises(kind):
        bisect.commit(history[0], "good", "HEAD")


def test_what_is_no_commit_or_no_history_is_told(
    history: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is compiled."""
    tree, commits = history
    with pytest.raises(InputError, match=r"--bad: .* has no commit 'nonsense'"):
        bisect.run(Request(str(tree)), commits[0], "nonsense")
    (tree / ".git").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="not a git tree"):
        bisect.run(Request(str(tree)), commits[0], commits[1])
