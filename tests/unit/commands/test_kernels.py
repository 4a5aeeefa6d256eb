# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/kernels.py: what `invoke kernels` says, moves and removes."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from harness import config
from harness.build import archive
from harness.build.archive import Index, Package, Release
from harness.commands import kernels
from harness.commands.kernels import Row
from harness.config import GuestSpec, KernelSpec, Locked, Matrix
from harness.errors import HarnessError, HostError, InputError, NetworkError
from harness.host.cache import MANIFEST, Cache, Entry
from harness.report.result import KernelResult, to_json
from harness.runs import store

CLOUD = "cloud-amd64"
DAY = 86400.0
TWELVE = KernelSpec(
    "twelve", "bookworm", CLOUD, release="6.1.0-55-cloud-amd64", version="6.1.190-1"
)
SID = KernelSpec("sid", "sid", CLOUD, release="7.2.13-cloud-amd64", version="7.2.13-1")
DEBUG = KernelSpec("debug", "bookworm", profile="debug", release="6.1.192", version="6.1.192-2")
MATRIX = Matrix(
    "twelve", {spec.name: spec for spec in (TWELVE, SID, DEBUG)}, GuestSpec("trixie", (), ())
)
NEWER = Release("bookworm", "6.1.0-56-cloud-amd64", "6.1.192-2")


def named(suite: str, release: str, version: str, age: float = 0.0) -> Index:
    """An index that leads to one kernel and its source."""
    return Index(
        suite,
        (
            Package(f"linux-image-{CLOUD}", version, f"linux-image-{release} (= {version})"),
            Package("linux-source", version, ""),
        ),
        age,
    )


@pytest.fixture
def indexes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Index | HarnessError]:
    """What each suite answers; bookworm has moved, sid has not."""
    answers: dict[str, Index | HarnessError] = {
        "bookworm": named("bookworm", NEWER.release, NEWER.version),
        "sid": named("sid", SID.release, SID.version),
    }

    def index(suite: str, *_: object, **__: object) -> Index:
        answer = answers[suite]
        if isinstance(answer, HarnessError):
            raise answer
        return answer

    monkeypatch.setattr(archive, "index", index)
    monkeypatch.setattr(config, "load", lambda *_: MATRIX)
    return answers


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    """A cache and results of this test's own."""
    monkeypatch.setenv("EUDYPTULA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    with closing(Cache()) as made:
        yield made


def put(cache: Cache, kind: str, label: str, key: Mapping[str, object]) -> Entry:
    def make(folder: Path) -> None:
        (folder / "file").write_text("x" * 9000)

    return cache.get(kind, label, key, make)


def store_kernel(cache: Cache, name: str, exact: str) -> list[Entry]:
    """A kernel's tree and what is made of it, as the stages key it."""
    tree = put(cache, "sysroot", f"kernel-{name}", {"packages": [exact, "bash"]})
    made_of = {"kernel": tree.digest}
    template = put(cache, "template", name, made_of)
    return [
        tree,
        put(cache, "module", name, made_of),
        template,
        put(cache, "template", f"{name}-wee", {"base": template.digest}),
    ]


# -- listing -----------------------------------------------------------------------


def test_a_row_knows_what_moved(indexes: dict[str, Index | HarnessError], cache: Cache) -> None:
    """The lock and the archive are compared by release and version."""
    twelve, sid, debug = kernels.look([TWELVE, SID, DEBUG], cache)
    assert (twelve.newest, twelve.moved) == (NEWER, True)
    assert (sid.moved, debug.moved) == (False, False)


def test_what_cannot_be_asked_is_said_and_the_rest_is_listed(
    indexes: dict[str, Index | HarnessError], cache: Cache
) -> None:
    """An expired mirror, or none: the listing goes on without that."""
    indexes["sid"] = HostError("the index of sid has expired", hint="X=1 takes it")
    rows = kernels.look([TWELVE, SID], cache)
    assert (rows[1].newest, rows[1].moved) == (None, None)
    text = kernels.as_text(rows)
    assert "newest of sid is not known: the index of sid has expired; X=1 takes it" in text
    assert NEWER.release in text


def test_what_the_archive_has_none_of_now_is_not_what_cannot_be_asked(
    indexes: dict[str, Index | HarnessError],
    cache: Cache,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Debian drops experimental's kernel while sid has the same: nothing has moved."""
    indexes["sid"] = Index("sid", (Package("linux-source", "7.2-1", ""),), 0.0)
    twelve, sid = kernels.look([TWELVE, SID], cache)
    assert (sid.newest, sid.moved, sid.unknown) == (None, False, "")
    assert sid.absent == "Debian sid has no package linux-image-cloud-amd64"
    assert (twelve.moved, twelve.absent) == (True, "")
    text = kernels.as_text([twelve, sid])
    assert "sid: Debian sid has no package linux-image-cloud-amd64 now" in text
    assert "not known" not in text
    assert text.splitlines()[2].split()[3] == "none"
    assert kernels.run("sid", update=False, prune=False, as_json=True) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["moved"], row["newest"], row["unknown"]) == (False, None, "")
    assert row["absent"] == sid.absent


def test_an_old_answer_is_called_old(
    indexes: dict[str, Index | HarnessError], cache: Cache
) -> None:
    """Without a network, what was known is shown with its age."""
    indexes["sid"] = named("sid", SID.release, SID.version, age=7200.0)
    text = kernels.as_text(kernels.look([TWELVE, SID], cache))
    assert "no mirror answers: what sid has was asked 2 h ago" in text
    assert "what bookworm has" not in text


def test_the_last_result_is_shown_with_the_kernel_it_is_of(
    indexes: dict[str, Index | HarnessError], cache: Cache
) -> None:
    """A green of yesterday's kernel is not taken for one of today's."""
    results = [
        KernelResult("twelve", TWELVE.release, TWELVE.version, 0, 0.0, 1.0, 1.0, {}),
        KernelResult("sid", "7.2.12-cloud-amd64", "7.2.12-1", 1, 0.0, 1.0, 1.0, {}),
    ]
    for result in results:
        store.folder_of(result.kernel).joinpath("report.json").write_text(to_json(result))
    twelve, sid, debug = kernels.look([TWELVE, SID, DEBUG], cache)
    assert twelve.verdict.startswith("green 19")
    assert "on" not in twelve.verdict
    assert sid.verdict.startswith("red 19")
    assert sid.verdict.endswith(" on 7.2.12-cloud-amd64")
    assert debug.verdict == "-"


def test_a_result_that_is_older_than_a_run_says_so(
    indexes: dict[str, Index | HarnessError], cache: Cache
) -> None:
    """A run that was killed has left none; the one before it is no answer for it."""
    with store.begin("twelve", whole=True) as run:
        found = KernelResult("twelve", TWELVE.release, TWELVE.version, 0, 0.0, 1.0, 1.0, {})
        store.write(run, found, whole=True)
    for name in ("twelve", "sid"):
        store.begin(name, whole=True).close()
    twelve, sid = kernels.look([TWELVE, SID], cache)
    assert twelve.verdict.startswith("green 19")
    assert twelve.verdict.endswith("; a later run was cut off")
    assert sid.verdict == "a run was cut off"


def test_the_listing_for_programs_says_which_moved(
    indexes: dict[str, Index | HarnessError],
    cache: Cache,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """CI makes its jobs of this."""
    assert kernels.run(None, update=False, prune=False, as_json=True) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["moved"] for row in rows} == {
        "twelve": True, "sid": False, "debug": False,
    }  # fmt: skip
    assert rows[0]["locked"] == {"release": TWELVE.release, "version": TWELVE.version}
    assert rows[0]["newest"]["version"] == NEWER.version
    assert rows[2]["profile"] == "debug"
    assert [row["default"] for row in rows] == [True, False, False]


def test_only_kernels_of_the_matrix_are_listed(
    indexes: dict[str, Index | HarnessError], cache: Cache
) -> None:
    """A release that the lock does not have is none of them."""
    with pytest.raises(InputError, match=r"6\.1\.1 is not one of vm/kernels\.toml"):
        kernels.run("6.1.1", update=False, prune=False, as_json=False)


def test_a_kernel_that_was_never_locked_is_listed() -> None:
    """With dashes."""
    row = Row(KernelSpec("new", "sid", CLOUD), None, 0.0, "", 0, None)
    assert kernels.as_text([row]).splitlines()[1].split() == ["new", "-", "?", "-", "-"]


# -- the cache ---------------------------------------------------------------------


def exact(spec: KernelSpec) -> str:
    return f"linux-image-{spec.release}={spec.version}"


def test_a_kernel_has_its_tree_and_all_that_was_made_of_it(
    indexes: dict[str, Index | HarnessError], cache: Cache
) -> None:
    """By what it is made of, not by its label: another of the same name is another kernel."""
    own = store_kernel(cache, "twelve", exact(TWELVE))
    store_kernel(cache, "twelve", "linux-image-6.1.0-54-cloud-amd64=6.1.180-1")
    put(cache, "sysroot", "guest", {"packages": ["bash"]})
    stored = cache.stored()
    found = kernels.of_kernel(TWELVE, stored)
    assert {each.entry.path for each in found} == {entry.path for entry in own}
    assert kernels.of_kernel(SID, stored) == []
    debug = put(cache, "kernel", "debug", {"source": DEBUG.version})
    (only,) = kernels.of_kernel(DEBUG, cache.stored())
    assert only.entry.path == debug.path
    assert kernels.look([TWELVE], cache)[0].cached == sum(each.size for each in found) > 0


def test_pruning_removes_other_kernels_and_nothing_else(
    indexes: dict[str, Index | HarnessError], cache: Cache
) -> None:
    """What is locked, the guest and what another run uses stay."""
    kept = store_kernel(cache, "twelve", exact(TWELVE))
    kept.append(put(cache, "sysroot", "guest", {"packages": ["bash"]}))
    kept.append(put(cache, "sysroot", "tools", {"packages": ["gcc", "linux-source-6.1"]}))
    # One that was compiled, and a person's own tree.
    kept.append(put(cache, "kernel", "debug", {"source": DEBUG.version}))
    kept.append(put(cache, "kernel", "linux", {"content": "0123"}))
    compiled = put(cache, "kernel", "debug", {"source": "6.1.1-1"})
    old = store_kernel(cache, "twelve", "linux-image-6.1.0-54-cloud-amd64=6.1.180-1")
    older = store_kernel(cache, "twelve", "linux-image-cloud-amd64")
    cache.close()
    user = Cache(cache.root)
    used = put(user, "module", "twelve", {"kernel": old[0].digest})
    assert used.path == old[1].path
    assert kernels.run(None, update=False, prune=True, as_json=False) == 0
    assert [entry.path.exists() for entry in kept] == [True] * len(kept)
    assert [entry.path.exists() for entry in older] == [False] * len(older)
    assert [entry.path.exists() for entry in old] == [False, True, False, False]
    assert not compiled.path.exists()
    user.close()


def test_what_is_damaged_is_freed(indexes: dict[str, Index | HarnessError], cache: Cache) -> None:
    """Whatever it was of: no run can use it, and no listing shows it."""
    damaged, *whole = store_kernel(cache, "twelve", exact(TWELVE))
    cache.close()
    (damaged.path / MANIFEST).write_text("")
    assert kernels.run(None, update=False, prune=True, as_json=False) == 0
    assert not damaged.path.exists()
    assert all(entry.path.exists() for entry in whole)


def age(entry: Entry, days: float) -> Entry:
    """Have an entry made that many days ago."""
    path = entry.path / "entry.json"
    manifest = json.loads(path.read_text()) | {"made": time.time() - days * DAY}
    del manifest["sha256"]  # it is as good without as the files are
    path.write_text(json.dumps(manifest))
    return entry


def test_pruning_removes_what_was_edited_since(
    indexes: dict[str, Index | HarnessError],
    cache: Cache,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Old modules, machines and kernels of a tree; the newest of each stays, however old."""
    tree, module, template, wee = store_kernel(cache, "twelve", exact(TWELVE))
    made_of = {"kernel": tree.digest}
    for number, entry in enumerate((tree, module, template, wee)):
        age(entry, 30 - number)
    going = [
        age(put(cache, "module", "twelve", made_of | {"source": "1"}), 50),
        age(put(cache, "template", "twelve-wee", {"base": template.digest, "source": "1"}), 50),
        age(put(cache, "guest", "twelve", {"base": "0"} | made_of), 50),
        age(put(cache, "kernel", "linux", {"content": "1"}), 50),
        # The locked one, with a config that was changed since.
        age(put(cache, "kernel", "debug", {"source": DEBUG.version, "config": "1"}), 50),
    ]
    going.append(age(put(cache, "module", "linux", {"kernel": going[3].digest}), 50))
    kept = [
        tree, module, template, wee,
        age(put(cache, "guest", "twelve", {"base": "1"} | made_of), 20),
        put(cache, "module", "twelve-2", made_of),
        age(put(cache, "sysroot", "guest", {"packages": ["bash"]}), 50),
        age(put(cache, "keys", "ssh", {}), 50),
        age(put(cache, "kernel", "debug", {"source": DEBUG.version, "config": "2"}), 20),
        age(put(cache, "kernel", "linux", {"content": "2"}), 20),
        age(put(cache, "module", "linux", {"kernel": "of another"}), 1),
        # Not the newest, but not old; and what a machine that stays was made of.
        age(put(cache, "module", "linux", {"source": "3"}), 13),
        age(put(cache, "kernel", "mine", {"content": "3"}), 50),
        age(put(cache, "kernel", "mine", {"content": "4"}), 1),
    ]  # fmt: skip
    kept.append(age(put(cache, "template", "mine", {"kernel": kept[-2].digest}), 40))
    cache.close()
    with caplog.at_level(logging.INFO):
        assert kernels.run(None, update=False, prune=True, as_json=False) == 0
    assert [entry.path.exists() for entry in kept] == [True] * len(kept)
    assert [entry.path.exists() for entry in going] == [False] * len(going)
    assert "removed module twelve" in caplog.text
    assert re.search(r"\d+ MiB freed$", caplog.text.strip())


def test_pruning_removes_builds_that_nobody_went_on_with(
    indexes: dict[str, Index | HarnessError],
    cache: Cache,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of another lock, or of a tree; one that was touched lately stays, and what is small."""
    for name, days in (
        ("build-debug-0123456789abcdef", 15), ("build-debug-fedcba9876543210", 13),
        ("tree-linux-0123456789abcdef", 15), ("bisect-0123456789abcdef", 15),
        ("index-sid", 15), ("gone-sid", 15),
    ):  # fmt: skip
        with cache.workdir(name) as work:
            (work / "build").mkdir()
            (work / "build" / "vmlinux").write_bytes(b"x" * (2 << 20))
        for path in (work / "build" / "vmlinux", work / "build", work):
            os.utime(path, (time.time(), time.time() - days * DAY))
    with caplog.at_level(logging.INFO):
        assert kernels.run(None, update=False, prune=True, as_json=False) == 0
    left = {path.name for path in (cache.root / "kept").iterdir() if (path / "build").exists()}
    assert left == {"build-debug-fedcba9876543210", "index-sid", "gone-sid"}
    assert "removed build-debug-0123456789abcdef" in caplog.text
    assert "6 MiB freed" in caplog.text


# -- the lock ----------------------------------------------------------------------


def lock_of(spec: KernelSpec) -> Locked:
    return Locked(spec.what, spec.release, spec.version)


def test_the_lock_moves_to_the_newest_and_says_so(
    indexes: dict[str, Index | HarnessError],
    cache: Cache,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only what was asked for moves; what the matrix no longer has goes."""
    path = tmp_path / "kernels.lock"
    gone = Locked("buster amd64", "4.19", "4.19-1")
    path.write_text(config.lock_text({"twelve": lock_of(TWELVE), "sid": gone, "buster": gone}))
    with caplog.at_level(logging.INFO):
        assert kernels.move([TWELVE], set(MATRIX.kernels), cache, path) == 0
    assert config.load_lock(path) == {
        "twelve": Locked("bookworm cloud-amd64", NEWER.release, NEWER.version),
        "sid": gone,
    }
    assert f"twelve: {TWELVE.release} (6.1.190-1) -> {NEWER.release} (6.1.192-2)" in caplog.text


def test_a_lock_that_is_up_to_date_is_not_touched(
    indexes: dict[str, Index | HarnessError], cache: Cache, tmp_path: Path
) -> None:
    """So that a nightly run has nothing to commit."""
    path = tmp_path / "kernels.lock"
    path.write_text("# by hand\n" + config.lock_text({"sid": lock_of(SID)}))
    before = path.stat()
    assert kernels.move([SID], set(MATRIX.kernels), cache, path) == 0
    assert path.stat().st_ino == before.st_ino
    assert path.read_text().startswith("# by hand")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (HostError("expired"), 3),
        (NetworkError("no mirror"), 3),
        (named("sid", "7.2.14-cloud-amd64", "7.2.14-1", age=7200.0), 3),
        (Index("sid", (), 7200.0), 3),
        (Index("sid", (), 0.0), 0),
    ],
)
def test_what_cannot_be_asked_stays_locked_and_the_others_move(
    indexes: dict[str, Index | HarnessError],
    cache: Cache,
    tmp_path: Path,
    answer: Index | HarnessError,
    status: int,
) -> None:
    """An old answer is no answer here: the lock would name what may be gone."""
    indexes["sid"] = answer
    path = tmp_path / "kernels.lock"
    path.write_text(config.lock_text({"twelve": lock_of(TWELVE), "sid": lock_of(SID)}))
    assert kernels.move([TWELVE, SID], set(MATRIX.kernels), cache, path) == status
    after = config.load_lock(path)
    assert after["sid"] == lock_of(SID)
    assert after["twelve"].version == NEWER.version


def test_an_entry_that_never_had_a_kernel_is_a_mistake(
    indexes: dict[str, Index | HarnessError],
    cache: Cache,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing was locked, so nothing was dropped: somebody misspelt a flavour."""
    indexes["sid"] = Index("sid", (), 0.0)
    path = tmp_path / "kernels.lock"
    path.write_text(config.lock_text({"twelve": lock_of(TWELVE)}))
    assert kernels.move([SID], set(MATRIX.kernels), cache, path) == 2
    assert "see [kernels.sid]" in caplog.text
