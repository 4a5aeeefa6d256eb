# SPDX-License-Identifier: GPL-2.0-only
"""`invoke bisect`: which change of the kernel broke the module, or a test of it.

Over the commits of a person's own tree (git chooses, in a clone, so that the tree is not
touched), or over the releases that the archive has of a suite, without compiling any.

What is looked for is what the bad end does: if tests fail there, a kernel that does not build or
boot says nothing of the question; but if the module does not even build for it, then that is what
some change began, and a kernel for which it builds is good, whatever its tests say.
"""

from __future__ import annotations

import enum
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from harness import config
from harness.build import archive, compile
from harness.build.archive import Release
from harness.config import KernelSpec, Matrix
from harness.errors import (
    BuildError,
    GoneError,
    GuestError,
    HarnessError,
    HostError,
    InputError,
    KernelBuildError,
    MachineError,
    OwnFaultError,
    Status,
)
from harness.host import proc
from harness.host.cache import Cache, digest_of
from harness.host.proc import Deadline
from harness.runs import pytest_process, store, sweep
from harness.runs.ready import Stage, Way
from harness.runs.request import Plan, Request

log = logging.getLogger(__name__)

T = TypeVar("T")

GIT_SECONDS = 1800.0  # the first checkout of a kernel on a slow disk


class Outcome(enum.Enum):
    """The answer on one kernel, in the words of git bisect."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"  # neither can be said of it


class Reached(enum.IntEnum):
    """How far it goes with one kernel."""

    NOTHING = 0
    KERNEL = 1
    MODULE = 2
    BOOT = 3
    TESTS = 4

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Reached.NOTHING: "it does not build",
    Reached.KERNEL: "the module does not build for it",
    Reached.MODULE: "it does not boot",
    Reached.BOOT: "tests fail",
    Reached.TESTS: "tests pass",
}

# How far it went where a stage failed.
_FAILED_AT = {
    Stage.KERNEL: Reached.NOTHING,
    Stage.MODULE: Reached.KERNEL,
    Stage.BOOT: Reached.MODULE,
}

# How far it goes with a kernel; None if that cannot be had.
Test = Callable[[KernelSpec], Reached | None]


def run(request: Request, good: str, bad: str) -> int:
    """Find the first bad commit or release, and say which it is; 0 if it was found."""
    plan = request.plan()
    matrix = config.load()
    wanted = request.select_one(matrix, "bisect searches in one tree or one suite")

    def test(spec: KernelSpec) -> Reached | None:
        return reached(spec, matrix, plan)

    if wanted.tree is not None:
        return _commits(wanted, good, bad, test)
    return _releases(wanted, matrix, good, bad, test)


def reached(spec: KernelSpec, matrix: Matrix, plan: Plan) -> Reached | None:
    """How far it goes with a kernel; faults of the host are raised and decide nothing."""
    with Cache() as cache:
        way = Way(spec, matrix, cache, plan.request.source)
        try:
            way.have_kernel()
            way.build()
            way.boot()
        except GoneError as error:
            log.warning("%s", sweep.reason(error))
            return None
        except HostError:  # a QEMU that was killed, which is a MachineError as well
            raise
        except (KernelBuildError, BuildError, MachineError, GuestError) as error:
            log.warning("%s", sweep.reason(error))
            return _FAILED_AT[way.stage]
    with store.begin(spec.name, whole=False) as run:
        ended = pytest_process.run(plan.arguments(spec, 1, run.junit), run.folder)
    pytest_process.not_empty(ended)
    if ended.status == Status.HOST:
        raise HostError(
            "only the host is to blame for what the tests ended with, which says nothing of the "
            "kernel",
            hint="pytest says above what it lacks; bisect again once that is mended",
        )
    if ended.status == Status.INTERRUPTED:
        raise KeyboardInterrupt
    if ended.status not in (Status.GREEN, Status.RED):
        raise OwnFaultError(
            "the tests did not come to an end, which says nothing of the kernel"
            + (f": {ended.why}" if ended.why else ""),
            hint="what pytest said is above",
        )
    return Reached.TESTS if ended.status == Status.GREEN else Reached.BOOT


def outcome(far: Reached | None, bad: Reached) -> Outcome:
    """The answer on a kernel that has come as ``far``; the bad end comes as far as ``bad``."""
    if far is None or far < bad:
        return Outcome.SKIP
    return Outcome.BAD if far == bad else Outcome.GOOD


# -- releases ----------------------------------------------------------------------


@dataclass(frozen=True)
class Found(Generic[T]):
    """The last good and the first bad item, and those between them that cannot be told."""

    good: T
    bad: T
    between: tuple[T, ...]


def search(items: Sequence[T], test: Callable[[T], Outcome]) -> Found[T]:
    """Halve ``items``, the first of which is good and the last bad, until nothing is between.

    What is to be skipped is left out, and another near the middle is tried.
    """
    low, high = 0, len(items) - 1
    skipped: set[int] = set()
    while untold := [number for number in range(low + 1, high) if number not in skipped]:
        middle = min(untold, key=lambda number: abs(2 * number - low - high))
        told = test(items[middle])
        if told is Outcome.GOOD:
            low = middle
        elif told is Outcome.BAD:
            high = middle
        else:
            skipped.add(middle)
    return Found(items[low], items[high], tuple(items[low + 1 : high]))


def between(known: Sequence[Release], good: str, bad: str) -> list[str]:
    """The releases from ``good`` to ``bad``, of a list with the oldest first.

    Each is a release, its packages' version, or the beginning of one; of several that it names,
    those nearest to the other end are taken.
    """
    last_of = {each.release: each for each in known}  # the newest packages of each
    releases = list(last_of)
    ends = []
    for option, asked in (("--good", good), ("--bad", bad)):
        named = [
            number for number, each in enumerate(last_of.values()) if archive.matches(asked, each)
        ]
        if not named:
            raise InputError(
                f"{option}: the archive has no kernel {asked} here",
                hint=f"it has {', '.join(releases) or 'none'}",
            )
        ends.append(named)
    first, last = max(ends[0]), min(ends[1])
    if first >= last:
        raise InputError(
            f"--good {good} is not older than --bad {bad}",
            hint="bisect looks for the change that broke a test, not for one that mended it",
        )
    return list(releases[first : last + 1])


def _releases(spec: KernelSpec, matrix: Matrix, good: str, bad: str, test: Test) -> int:
    if not spec.flavour:
        raise InputError(
            f"kernel {spec.name} is compiled, and a suite's releases are not",
            hint="--kernel takes an entry with a flavour, or a tree",
        )
    with Cache() as cache:
        known = archive.index(spec.suite, cache).releases(spec.flavour)
    wanted = between(known, good, bad)
    log.info("%d releases from %s to %s", len(wanted), wanted[0], wanted[-1])

    def far(release: str) -> Reached | None:
        (chosen,) = matrix.select(release)
        return test(replace(chosen, suite=spec.suite))

    worst = _check_ends(wanted[0], wanted[-1], far)

    def told(release: str) -> Outcome:
        return _said(release, far(release), worst)

    found = search(wanted, told)
    print(f"\nlast good: {found.good}\nfirst bad: {found.bad}")
    if found.between:
        print(f"between them, could not be tested: {', '.join(found.between)}")
    return 1 if found.between else 0


def _check_ends(good: str, bad: str, test: Callable[[str], Reached | None]) -> Reached:
    """How far it goes with the bad end; raises ``InputError`` unless the ends are as they are
    said to be: else all that is found is nonsense.
    """
    worst = test(bad)
    if worst is None or worst is Reached.TESTS:
        raise _wrong_end(bad, "bad", worst, "fail")
    _said(bad, worst, worst)
    best = test(good)
    if _said(good, best, worst) is not Outcome.GOOD:
        raise _wrong_end(good, "good", best, "pass")
    return worst


def _wrong_end(item: str, said: str, far: Reached | None, should: str) -> InputError:
    return InputError(
        f"{item} was said to be {said}, but {far.words if far is not None else 'cannot be had'}",
        hint=f"--{said} takes one for which the chosen tests {should}; see --filter",
    )


def _said(item: str, far: Reached | None, worst: Reached) -> Outcome:
    """The outcome, told."""
    answer = outcome(far, worst)
    words = far.words if far is not None else "it cannot be had"
    log.info("%s: %s (%s)", item, answer.value, words)
    return answer


# -- commits -----------------------------------------------------------------------


def _commits(spec: KernelSpec, good: str, bad: str, test: Test) -> int:
    assert spec.tree is not None
    with Cache() as cache:
        if not (spec.tree / ".git").exists():
            raise InputError(f"{spec.tree} is not a git tree", hint="bisect needs its history")
        ends = {good: commit(spec.tree, "good", good), bad: commit(spec.tree, "bad", bad)}
        with cache.workdir(f"bisect-{digest_of({'tree': str(spec.tree)})}") as work:
            clone = work / spec.tree.name
            _make_ready(clone, spec.tree)
            mine = replace(spec, tree=clone)

            def far(sha: str) -> Reached | None:
                _git(clone, "checkout", "-q", "--force", "--detach", sha)
                compile.check_tree(clone)
                return test(mine)

            worst = _check_ends(good, bad, lambda name: far(ends[name]))
            said = _git(clone, "bisect", "start", ends[bad], ends[good])
            while not (end := finished(said)):
                sha = _git(clone, "rev-parse", "HEAD").strip()
                answer = _said(_title(clone, sha), far(sha), worst)
                said = _git(clone, "bisect", answer.value, check=False)
            print(f"\n{end}\n")
            for sha in re.findall(r"^[0-9a-f]{40,64}", end, re.MULTILINE):
                print(_git(clone, "show", "--no-patch", sha))
            print(_git(clone, "bisect", "log"))
            return 0 if "first bad commit" in end and "any of" not in end else 1


def _make_ready(clone: Path, tree: Path) -> None:
    """Have a clone of ``tree`` that git can work in, also after a git that was killed there."""
    if not (clone / ".git").exists():
        fresh = clone.with_name(f"{clone.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        # Objects are shared: nothing but the files is copied.
        _git(tree.parent, "clone", "-q", "--shared", "--no-checkout", str(tree), str(fresh))
        fresh.rename(clone)
    for lock in (clone / ".git").rglob("*.lock"):
        lock.unlink()


def commit(tree: Path, option: str, name: str) -> str:
    """The full name of a commit; raises ``InputError`` if there is none of that name."""
    done = proc.run(
        ["git", "-C", str(tree), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"],
        deadline=Deadline(GIT_SECONDS), check=False,
    )  # fmt: skip
    if done.status == 1:  # how --verify --quiet says it; any other failure of git's is 128
        raise InputError(f"--{option}: {tree} has no commit {name!r}", hint=f"git -C {tree} log")
    if done.status != 0:
        raise proc.failure(done)
    return done.stdout.strip()


def finished(said: str) -> str:
    """What git bisect says at its end, or nothing if it goes on."""
    found = re.search(r"^[0-9a-f]{40,64} is the first bad commit$", said, re.MULTILINE)
    if found:
        return found[0]
    start = said.find("There are only 'skip'ped commits left to test.")
    if start >= 0:
        return said[start:].partition("We cannot bisect more!")[0].strip()
    if re.search(r"^Bisecting: ", said, re.MULTILINE):
        return ""
    raise HarnessError("git bisect says what is not understood", tail=said)


def _title(tree: Path, sha: str) -> str:
    return _git(tree, "log", "-1", "--format=%h %s", sha).strip()


def _git(tree: Path, *arguments: str, check: bool = True) -> str:
    command = ["git", "-C", str(tree), *arguments]
    # Its output is parsed here, so it has to be in English.
    env = {**os.environ, "LC_ALL": "C"}
    done = proc.run(command, deadline=Deadline(GIT_SECONDS), env=env, check=check)
    return done.stdout + done.stderr
