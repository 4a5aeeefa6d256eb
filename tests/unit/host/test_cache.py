# SPDX-License-Identifier: GPL-2.0-only
"""harness/host/cache.py: whole entries or none, made once, checked at every use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import logging
import os
import queue
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.errors import HostError, InputError, SpaceError
from harness.host import cache as caches
from harness.host.cache import MANIFEST, Cache, Entry, digest_of, digest_of_files

pytest_plugins = ["pytester"]

PATIENCE = 20.0  # seconds; only the end of patience
KEY = {"recipe": 1, "suite": "trixie"}


class Maker:
    """Makes the same small tree each time, and counts."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, folder: Path) -> None:
        self.made += 1
        (folder / "sub").mkdir()
        (folder / "file").write_bytes(b"content of the file")
        (folder / "sub" / "other").write_bytes(b"another")
        (folder / "link").symlink_to("file")
        (folder / "dangling").symlink_to("nowhere")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's cache is."""
    # What is made again here on purpose is nothing to tell whoever runs these tests.
    monkeypatch.setattr(caches, "_changes", [])
    return tmp_path / "cache"


def take(root: Path, make: Callable[[Path], None], key: dict[str, object] | None = None) -> Entry:
    """What a new run gets from the cache; it lets go of it at once."""
    cache = Cache(root)
    try:
        return cache.get("kind", "label", KEY if key is None else key, make)
    finally:
        cache.close()


def left_over(root: Path) -> list[str]:
    """What is in the folder for unfinished things."""
    return sorted(path.name for path in (root / "tmp").iterdir())


def entries(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("kind/*"))


# -- made once ---------------------------------------------------------------------


def test_an_entry_is_made_once_and_taken_again(root: Path) -> None:
    """A later run, and a later call of the same run, get what is there."""
    maker = Maker()
    cache = Cache(root)
    first = cache.get("kind", "label", KEY, maker)
    assert cache.get("kind", "label", KEY, maker) == first
    cache.close()
    assert take(root, maker) == first
    assert maker.made == 1
    assert (first.path / "file").read_bytes() == b"content of the file"
    assert left_over(root) == []


def test_the_note_is_said_only_before_making(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who waits is told for what; who does not wait is told nothing."""
    caplog.set_level(logging.INFO, "harness")
    cache = Cache(root)
    cache.get("kind", "label", KEY, lambda _: None, note="making it, about 10 s")
    assert "making it, about 10 s" in caplog.text
    caplog.clear()
    cache.get("kind", "label", KEY, lambda _: None, note="making it, about 10 s")
    cache.close()
    assert caplog.text == ""


def test_the_order_of_a_key_does_not_matter() -> None:
    """The same facts have the same digest."""
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize(
    "other",
    [
        {"suite": "sid", "packages": ["a", "b"], "recipe": 1},
        {"suite": "trixie", "packages": ["a", "b", "c"], "recipe": 1},
        {"suite": "trixie", "packages": ["b", "a"], "recipe": 1},
        {"suite": "trixie", "packages": ["a", "b"], "recipe": 2},
        {"suite": "trixie", "packages": ["a", "b"], "recipe": "1"},
        {"suite": "trixie", "packages": ["a", "b"]},
        {"suite": "trixie", "packages": ["a", "b"], "recipe": 1, "more": ""},
    ],
)
def test_every_part_of_a_key_counts(other: dict[str, object]) -> None:
    """Whatever is different gives another entry."""
    assert digest_of(other) != digest_of({"suite": "trixie", "packages": ["a", "b"], "recipe": 1})


def test_the_manifests_form_is_part_of_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of an older form are not met by a newer reader."""
    before = digest_of(KEY)
    monkeypatch.setattr(caches, "FORMAT", caches.FORMAT + 1)
    assert digest_of(KEY) != before


def test_another_key_is_another_entry(root: Path) -> None:
    """Two keys under one label stand side by side."""
    maker = Maker()
    first, second = take(root, maker), take(root, maker, {**KEY, "recipe": 2})
    assert first.path != second.path
    assert maker.made == 2
    assert len(entries(root)) == 2


# -- failing -----------------------------------------------------------------------


def test_a_failure_in_making_leaves_nothing(root: Path) -> None:
    """What ``make`` raises passes through; no entry and no leftovers, and a retry works."""

    def fails(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("the maker's own")

    with pytest.raises(RuntimeError, match="the maker's own"):
        take(root, fails)
    assert entries(root) == []
    assert left_over(root) == []
    maker = Maker()
    take(root, maker)
    assert maker.made == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_a_sentence(root: Path, number: int) -> None:
    """ENOSPC anywhere in making becomes ``SpaceError``, which says where and what to do."""

    def fills(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(SpaceError) as caught:
        take(root, fills)
    assert str(root) in caught.value.what
    assert "EUDYPTULA_CACHE" in caught.value.hint
    assert entries(root) == []
    assert left_over(root) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_the_hosts_fault(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A folder without write access is explained, with the way out."""

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(HostError) as caught:
        Cache(root)
    assert type(caught.value) is HostError
    assert str(root) in caught.value.what
    assert "EUDYPTULA_CACHE" in caught.value.hint


def test_a_cache_that_is_a_file_is_the_hosts_fault(tmp_path: Path) -> None:
    """EUDYPTULA_CACHE that names a file gives a sentence, not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=str(tmp_path)):
        Cache(tmp_path / "file")


def test_what_stands_around_making_is_explained_too(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The locks, and the manifest of an entry whose times have moved."""
    entry = take(root, Maker())
    os.utime(entry.path / "file", (1, 1))

    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(SpaceError):
            take(root, Maker())
    cache = Cache(root)
    (root / "locks").rename(root / "elsewhere")
    (root / "locks").write_text("")
    with pytest.raises(HostError, match="cannot be written"):
        cache.get("kind", "label", {**KEY, "recipe": 2}, Maker())


def test_other_errors_of_the_maker_are_not_dressed_up(root: Path) -> None:
    """A maker's missing file is not the cache's fault."""

    def fails(folder: Path) -> None:
        (folder / "missing").read_text()

    with pytest.raises(FileNotFoundError):
        take(root, fails)


# -- checked at every use ----------------------------------------------------------


def after_the_tick(path: Path) -> None:
    """Return once a change of ``path`` would get another ctime than it has now.

    File systems take the time from a clock that ticks every few milliseconds.
    """
    probe = path.parent.parent / "probe"
    made = path.lstat().st_ctime_ns
    while True:
        probe.write_text("")
        if probe.stat().st_ctime_ns > made:
            break
        probe.unlink()
    probe.unlink()


def flip(path: Path) -> None:
    """Change one byte; size and modification time stay as they were."""
    after_the_tick(path)
    info = path.stat()
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def retarget(path: Path) -> None:
    """Point a symbolic link elsewhere, its length and times as far as possible the same."""
    after_the_tick(path)
    info = path.lstat()
    path.unlink()
    path.symlink_to("elif")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def to_a_file(path: Path) -> None:
    """Put a file where a folder was."""
    (path / "other").unlink()
    path.rmdir()
    path.write_text("")


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "flipped byte": ("file", flip),
    "truncated": ("file", lambda path: path.write_bytes(b"content")),
    "grown": ("file", lambda path: path.write_bytes(b"content of the file and more")),
    "missing": ("sub/other", Path.unlink),
    "missing link": ("link", Path.unlink),
    "link elsewhere": ("link", retarget),
    "folder now a file": ("sub", to_a_file),
    "no manifest": (MANIFEST, Path.unlink),
    "empty manifest": (MANIFEST, lambda path: path.write_bytes(b"")),
    "binary manifest": (MANIFEST, lambda path: path.write_bytes(b"\xff\xfe\x00")),
    "cut manifest": (MANIFEST, lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "manifest without files": (MANIFEST, lambda path: path.write_bytes(b"{}")),
    "manifest of another shape": (MANIFEST, lambda path: path.write_bytes(b"null")),
    "manifest with odd rows": (MANIFEST, lambda path: path.write_bytes(b'{"files": {"a": 1}}')),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_again(
    root: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Whatever happened to an entry, the next run notices, says so, and gets a whole one."""
    maker = Maker()
    entry = take(root, maker)
    name, harm = DAMAGE[damage]
    harm(entry.path / name)
    again = take(root, maker)
    assert maker.made == 2
    assert again == entry
    assert (again.path / "file").read_bytes() == b"content of the file"
    assert (again.path / "sub" / "other").read_bytes() == b"another"
    assert os.readlink(again.path / "link") == "file"
    assert left_over(root) == []
    assert "damaged" in caplog.text
    take(root, maker)
    assert maker.made == 2


def test_no_flipped_bit_of_a_manifest_is_overlooked(root: Path) -> None:
    """The manifest says what the files are, so that it is checked itself."""
    entry = take(root, Maker())
    manifest = entry.path / MANIFEST
    text = manifest.read_bytes()
    overlooked = []
    for place in range(len(text)):
        flipped = bytearray(text)
        flipped[place] ^= 1
        manifest.write_bytes(flipped)
        if caches.damage(entry.path) is None:
            overlooked.append(place)
    assert overlooked == []


def test_a_manifest_without_a_checksum_is_believed_once_its_files_were_read(root: Path) -> None:
    """Entries of a cache that is older than the checksum need not be made again."""
    maker = Maker()
    entry = take(root, maker)
    manifest = entry.path / MANIFEST
    data = json.loads(manifest.read_text())
    del data["sha256"]
    manifest.write_text(json.dumps(data))
    take(root, maker)
    assert maker.made == 1
    assert "sha256" in json.loads(manifest.read_text())

    (entry.path / "file").write_bytes(b"content of the life")
    data["files"]["file"][:3] = caches._stamp(entry.path / "file")
    manifest.write_text(json.dumps(data))
    take(root, maker)
    assert maker.made == 2


def test_what_was_made_again_is_known_afterwards(root: Path) -> None:
    """A process whose log nobody sees can tell of it."""
    entry = take(root, Maker())
    (entry.path / "file").write_bytes(b"content")
    take(root, Maker())
    assert caches.changes() == [
        "kind label was damaged (file has 7 bytes instead of 19), and was made again"
    ]


@pytest.mark.parametrize("options", [(), ("-n1",)], ids=["alone", "worker"])
def test_a_run_of_tests_says_what_was_made_again(
    root: Path, pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    """Green tests' logs are shown to nobody, and those of pytest-xdist's workers neither."""
    entry = take(root, Maker())
    (entry.path / "file").write_bytes(b"cut")
    pytester.makepyfile(
        f"""
        from pathlib import Path
        from harness.host.cache import Cache

        def test_it():
            make = lambda folder: (folder / "file").write_bytes(b"whole")
            Cache(Path({str(root)!r})).get("kind", "label", {KEY!r}, make)
        """
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["cache: kind label was damaged (*), and was made again"])


def test_a_touched_file_is_read_once_and_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that moved without a change cost one reading, not one at every use."""
    maker = Maker()
    entry = take(root, maker)
    os.utime(entry.path / "file", ns=(1, 1))
    read: list[str] = []
    real = caches._content

    def counting(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(caches, "_content", counting)
    take(root, maker)
    assert read == ["file"]
    take(root, maker)
    assert read == ["file"]
    assert maker.made == 1


def test_several_may_find_a_touched_file_at_the_same_time(root: Path) -> None:
    """As the workers of a run do with a cache that was copied."""

    def make(folder: Path) -> None:
        (folder / "file").write_text("x")

    with contextlib.closing(Cache(root)) as cache:
        entry = cache.get("kind", "label", {}, make)
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(20):
            os.utime(entry.path / "file", (round_, round_))
            assert list(pool.map(caches.damage, [entry.path] * 8)) == [None] * 8
    assert sorted(path.name for path in entry.path.iterdir()) == [MANIFEST, "file"]


def test_an_untouched_entry_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of a good entry looks at sizes and times only."""
    maker = Maker()
    take(root, maker)
    monkeypatch.delattr(caches, "_content")
    take(root, maker)
    assert maker.made == 1


@pytest.fixture
def vouched(root: Path) -> Iterator[Cache]:
    """A cache that is open, and has checked an entry. This process believes it for a minute."""
    with Cache(root) as cache:
        cache.get("kind", "label", KEY, Maker())
        caches.believe(cache.vouch())
        yield cache
    caches.believe("")


def test_what_was_vouched_for_is_not_checked_again(
    root: Path, vouched: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken and held as any other; what was not vouched for is checked."""
    other = take(root, Maker(), {"another": 1})
    checked: list[Path] = []
    check = caches.damage

    def damage(path: Path) -> str | None:
        checked.append(path)
        return check(path)

    monkeypatch.setattr(caches, "damage", damage)
    with Cache(root) as cache:
        entry = cache.get("kind", "label", KEY, Maker())
        assert cache.held == vouched.held == [entry.path]
        assert checked == []
    take(root, Maker(), {"another": 1})
    assert checked == [other.path]


@pytest.mark.parametrize("why", ["late", "early", "another manifest", "nothing", "no text of ours"])
def test_what_is_not_vouched_for_any_more_is_checked(
    root: Path, vouched: Cache, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file is found, and nobody is told that the entry is whole."""
    (path,) = vouched.held
    (path / "file").write_bytes(b"damaged")
    now = time.monotonic()
    if why in {"late", "early"}:
        shift = 61 if why == "late" else -61  # by a clock that has begun anew
        monkeypatch.setattr(time, "monotonic", lambda: now + shift)
    elif why == "another manifest":
        os.utime(path / MANIFEST, (1, 1))  # of now may be what it has, by a coarse clock
    else:
        caches.believe("" if why == "nothing" else '{"until": 1e99, "manifests": [1]}')
    vouched.close()
    maker = Maker()
    take(root, maker)
    assert maker.made == 1


# -- several threads ---------------------------------------------------------------


def test_a_second_thread_gets_what_was_checked_too(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread still looks at a damaged entry, another one is not handed it."""
    entry = take(root, Maker())
    flip(entry.path / "file")
    said: queue.Queue[str] = queue.Queue()
    go_on = threading.Event()
    real = caches._content

    def slowly(path: Path) -> str:
        said.put("looks")
        assert go_on.wait(PATIENCE)
        return real(path)

    with contextlib.closing(Cache(root)) as cache, ThreadPoolExecutor(2) as pool:

        def get() -> bytes:
            got = cache.get("kind", "label", KEY, Maker())
            said.put("has it")
            return (got.path / "file").read_bytes()

        monkeypatch.setattr(caches, "_content", slowly)
        try:
            threads = [pool.submit(get)]
            assert said.get(timeout=PATIENCE) == "looks"
            threads.append(pool.submit(get))
            assert said.get(timeout=PATIENCE) == "looks"
        finally:
            go_on.set()
        assert [each.result() for each in threads] == [b"content of the file"] * 2


def test_an_entry_that_is_replaced_while_it_is_looked_at_is_used(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that its manifest was read from is gone by then."""
    entry = take(root, Maker())
    os.utime(entry.path / "file", (1, 1))  # so that its content is looked at
    real = caches._content

    def replaced(path: Path) -> str:
        if path == entry.path / "file":
            monkeypatch.setattr(caches, "_content", real)
            shutil.copytree(entry.path, root / "copy", symlinks=True)
            shutil.rmtree(entry.path)
            (root / "copy").rename(entry.path)
        return real(path)

    monkeypatch.setattr(caches, "_content", replaced)
    again = Maker()
    assert (take(root, again).path / "file").read_bytes() == b"content of the file"
    assert not again.made


def test_an_entry_is_not_held_before_it_is_in_its_place(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread would take its path for one that can be used."""
    rename = Path.rename
    held = []

    def look(self: Path, target: Path) -> Path:
        if target.parent.name == "kind":
            held.extend(cache.held)
        return rename(self, target)

    with contextlib.closing(Cache(root)) as cache:
        monkeypatch.setattr(Path, "rename", look)
        entry = cache.get("kind", "label", KEY, Maker())
        assert held == []
        assert cache.held == [entry.path]


# -- several runs ------------------------------------------------------------------

# Another run: makes or takes an entry, pausing where its maker says so.
OTHER_RUN = """
import logging, sys
from pathlib import Path
from harness.host.cache import Cache
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
root, count = map(Path, sys.argv[1:])
def make(folder):
    with count.open("a") as stream:
        stream.write("made\\n")
    (folder / "half").write_bytes(b"half")
    print("making", flush=True)
    sys.stdin.readline()
    (folder / "file").write_bytes(b"whole")
entry = Cache(root).get("kind", "label", {"recipe": 1, "suite": "trixie"}, make)
print((entry.path / "file").read_text(), flush=True)
sys.stdin.readline()
"""


class OtherRun:
    """A process that uses the same cache."""

    def __init__(self, root: Path, count: Path) -> None:
        command = [sys.executable, "-c", OTHER_RUN, str(root), str(count)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=config.PROJECT
        )

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def line(self) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], PATIENCE)[0], "it says nothing"
        return self._process.stdout.readline().decode().strip()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def count(tmp_path: Path) -> Path:
    """Where other runs write one line for each time they make something."""
    return tmp_path / "count"


@pytest.fixture
def other_run(root: Path, count: Path) -> Iterator[Callable[[], OtherRun]]:
    """Starts other runs, which do not outlive the test."""
    with contextlib.ExitStack() as stack:

        def start() -> OtherRun:
            run = OtherRun(root, count)
            stack.callback(run.kill)
            return run

        yield start


def test_two_runs_at_once_make_one_entry(count: Path, other_run: Callable[[], OtherRun]) -> None:
    """The second waits for the first, says so, and takes what that has made."""
    first = other_run()
    assert first.line() == "making"
    second = other_run()
    assert "waiting" in second.line()
    first.go_on()
    assert first.line() == "whole"
    assert second.line() == "whole"
    assert count.read_text() == "made\n"


def test_nobody_waits_for_ever(root: Path, other_run: Callable[[], OtherRun]) -> None:
    """When time is up, it is said who has the lock and how long it was waited for."""
    busy = other_run()
    assert busy.line() == "making"
    key = {"recipe": 1, "suite": "trixie"}
    with (
        contextlib.closing(Cache(root)) as cache,
        pytest.raises(HostError, match=rf"kind label is locked by process {busy.pid} .*after 0 s"),
    ):
        cache.get("kind", "label", key, Maker(), wait=0)
    with (
        contextlib.closing(Cache(root)) as cache,
        cache.workdir("x"),
        pytest.raises(HostError, match=rf"folder x is locked by process {os.getpid()} .*after 0 s"),
        cache.workdir("x", wait=0),
    ):
        pass


def test_a_run_that_was_killed_is_swept_up_after(
    root: Path, count: Path, other_run: Callable[[], OtherRun]
) -> None:
    """SIGKILL in the midst of making leaves no entry; the next run cleans and makes it."""
    killed = other_run()
    assert killed.line() == "making"
    killed.kill()
    assert left_over(root) != []
    assert entries(root) == []
    Cache(root)
    assert left_over(root) == []
    maker = Maker()
    take(root, maker)
    assert maker.made == 1


def test_a_run_that_is_alive_is_not_swept(root: Path, other_run: Callable[[], OtherRun]) -> None:
    """What another run is making stays where it is."""
    busy = other_run()
    assert busy.line() == "making"
    Cache(root)
    busy.go_on()
    assert busy.line() == "whole"


def test_what_another_run_uses_is_not_removed(
    root: Path, other_run: Callable[[], OtherRun]
) -> None:
    """An entry goes only when its last user has gone, however that ended."""

    def make(folder: Path) -> None:
        (folder / "file").write_text("x")

    entry = take(root, make)
    user = other_run()
    assert user.line() == "x"
    cache = Cache(root)
    assert not cache.remove(entry)
    assert (entry.path / "file").exists()
    user.kill()
    assert cache.remove(entry)
    assert not entry.path.exists()
    assert left_over(root) == []


def test_a_damaged_entry_is_not_taken_from_whoever_uses_it(
    root: Path, other_run: Callable[[], OtherRun]
) -> None:
    """It is made again when they have ended; until then it is told who they are."""

    def make(folder: Path) -> None:
        (folder / "file").write_text("x")

    entry = take(root, make)
    user = other_run()
    assert user.line() == "x"
    (entry.path / "file").write_text("damaged")
    with pytest.raises(HostError, match=rf"7 bytes instead of 1\).* used by process {user.pid} "):
        take(root, make)
    assert (entry.path / "file").read_text() == "damaged"
    user.kill()
    assert (take(root, make).path / "file").read_text() == "x"


def test_what_this_run_uses_is_not_removed_until_it_lets_go(root: Path) -> None:
    """``close`` ends the use of everything taken."""
    cache = Cache(root)
    entry = cache.get("kind", "label", KEY, Maker())
    assert not Cache(root).remove(entry)
    cache.close()
    assert Cache(root).remove(entry)
    assert entries(root) == []


# -- the limit -----------------------------------------------------------------------


def mebibyte(folder: Path) -> None:
    (folder / "file").write_bytes(os.urandom(1 << 20))


@pytest.fixture
def full(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Entry]:
    """A cache that has room for three entries of a MiB; makes or takes the one named ``n``."""
    monkeypatch.setenv(caches.LIMIT_VARIABLE, "0.0035")
    clock = itertools.count(1_000_000_000)
    utime = os.utime

    def later(path: Any, times: tuple[float, float] | None = None) -> None:
        """Each use is a second after the one before it."""
        utime(path, times or (next(clock),) * 2)

    monkeypatch.setattr(os, "utime", later)

    def use(n: int, cache: Cache | None = None) -> Entry:
        its = cache or Cache(root)
        entry = its.get("kind", "label", {"n": n}, mebibyte)
        if cache is None:
            its.close()
        return entry

    return use


def test_what_was_not_used_for_longest_goes_first(
    full: Callable[..., Entry], caplog: pytest.LogCaptureFixture
) -> None:
    """Not what was made first: a use counts. What goes is named, with the reason."""
    caplog.set_level(logging.INFO)
    made = [full(n) for n in range(3)]
    full(0)
    newest = full(3)
    assert [entry.path.exists() for entry in [*made, newest]] == [True, False, True, True]
    assert "removed kind label (1 MiB, last used" in caplog.text
    assert caches.LIMIT_VARIABLE in caplog.text
    assert len(caches.changes()) == 1


def test_what_is_in_use_stays_over_the_limit(
    full: Callable[..., Entry], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others have to go instead, and if there are none it is exceeded, which is said once."""
    cache = Cache(root)
    made = [full(n, cache) for n in range(3)]
    assert "what is in use takes" not in caplog.text
    made += [full(n, cache) for n in range(3, 6)]
    assert caplog.text.count("what is in use takes 0.0 GiB") == 1
    other = full(6)
    assert all(entry.path.exists() for entry in [*made, other])
    full(7)
    assert not other.path.exists()
    assert all(entry.path.exists() for entry in made)
    cache.close()


@pytest.fixture
def interrupted(full: Callable[..., Entry], root: Path) -> Path:
    """A folder of a MiB that a run has left to go on from, before any entry was used."""
    del full  # which has set the limit
    with Cache(root).workdir("build-x") as folder:
        mebibyte(folder)
    os.utime(root / "locks" / "kept-build-x", (5.0, 5.0))
    return folder


def test_what_a_run_has_left_to_go_on_from_goes_too(
    full: Callable[..., Entry], interrupted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as an interrupted build, which may take gigabytes."""
    caplog.set_level(logging.INFO)
    made = [full(n) for n in range(3)]
    assert not interrupted.exists()
    assert all(entry.path.exists() for entry in made)
    assert "removed the folder build-x (1 MiB, last used" in caplog.text


def test_what_a_run_goes_on_from_stays(
    full: Callable[..., Entry], interrupted: Path, root: Path
) -> None:
    """An entry has to go instead, although it was used later."""
    with Cache(root).workdir("build-x"):
        os.utime(root / "locks" / "kept-build-x", (5.0, 5.0))
        made = [full(n) for n in range(3)]
    assert interrupted.exists()
    assert [entry.path.exists() for entry in made] == [False, True, True]


def test_what_grows_is_within_the_limit_once_it_is_left(
    full: Callable[..., Entry], root: Path
) -> None:
    """Nobody knew its size before."""
    made = [full(n) for n in range(3)]
    with Cache(root).workdir("build-x") as folder:
        mebibyte(folder)
        assert all(entry.path.exists() for entry in made)
    assert folder.exists()
    assert [entry.path.exists() for entry in made] == [False, True, True]


@pytest.mark.parametrize("said", ["much", "-1", "nan", "1e3"])
def test_a_limit_that_is_no_number_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """Before anything is made."""
    monkeypatch.setenv(caches.LIMIT_VARIABLE, said)
    with pytest.raises(InputError, match="no size in GiB"):
        Cache(root)


def test_an_entry_is_in_use_from_its_first_moment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run that cleans up cannot take what was just made for this one."""
    rename = Path.rename
    removed = []

    def then_clean(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        if target.parent.name == "kind":
            removed.append(Cache(root).remove(Entry("kind", "label", digest_of(KEY), target)))
        return moved

    monkeypatch.setattr(Path, "rename", then_clean)
    cache = Cache(root)
    entry = cache.get("kind", "label", KEY, Maker())
    assert removed == [False]
    assert (entry.path / "file").exists()
    cache.close()


def test_an_entry_that_did_not_come_to_its_place_is_not_held(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next use would take what is not there for whole."""

    def fails(self: Path, _: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    cache = Cache(root)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails)
        with pytest.raises(SpaceError):
            cache.get("kind", "label", KEY, Maker())
    maker = Maker()
    cache.get("kind", "label", KEY, maker)
    cache.close()
    assert maker.made == 1


# -- listings, scratch folders, places ---------------------------------------------


def test_stored_lists_the_finished_entries_oldest_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing has kind, label, key, time and size of each entry."""
    maker = Maker()
    for made in (2000.0, 1000.0):
        monkeypatch.setattr(time, "time", lambda made=made: made)
        take(root, maker, {**KEY, "made": made})
    listed = Cache(root).stored()
    assert [stored.made for stored in listed] == [1000.0, 2000.0]
    assert listed[0].key == {**KEY, "made": 1000.0}
    assert listed[0].entry == take(root, maker, {**KEY, "made": 1000.0})
    assert listed[0].entry.digest == digest_of({**KEY, "made": 1000.0})
    assert listed[0].size > 0
    assert maker.made == 2


@pytest.mark.parametrize("text", ["", "{}", "null", "[]", '"text"'])
def test_stored_leaves_out_what_it_cannot_read(root: Path, text: str) -> None:
    """One damaged manifest does not hide the other entries."""
    damaged = take(root, Maker())
    whole = take(root, Maker(), {**KEY, "recipe": 2})
    (damaged.path / MANIFEST).write_text(text)
    assert [stored.entry for stored in Cache(root).stored()] == [whole]


@pytest.mark.parametrize("text", ["", "{}", None])
def test_what_cannot_be_read_is_listed_as_damaged(root: Path, text: str | None) -> None:
    """By its place and name, so that it can be freed; nothing else that stands there is."""
    entry = take(root, Maker())
    take(root, Maker(), {**KEY, "recipe": 2})
    manifest = entry.path / MANIFEST
    manifest.unlink() if text is None else manifest.write_text(text)
    cache = Cache(root)
    with cache.workdir(f"bisect-{digest_of(KEY)}"), cache.scratch("x"):
        (root / "ccache" / "0").mkdir(parents=True)
        assert cache.damaged() == [entry]


def test_stored_leaves_out_what_is_being_made(
    root: Path, other_run: Callable[[], OtherRun]
) -> None:
    """Half an entry is no entry."""
    assert other_run().line() == "making"
    assert Cache(root).stored() == []
    assert Cache(root).damaged() == []


def test_size_is_what_the_disk_gives(root: Path) -> None:
    """A guest's memory file has holes; they cost nothing and are not counted."""

    def make(folder: Path) -> None:
        with (folder / "memory").open("wb") as stream:
            stream.truncate(32 << 20)

    take(root, make)
    assert Cache(root).stored()[0].size < 1 << 20


def test_a_scratch_folder_is_gone_at_the_end(root: Path) -> None:
    """A run's own files leave with it, also when it ends with an error."""
    cache = Cache(root)
    with cache.scratch("test") as folder:
        (folder / "console.log").write_text("x")
        made = []
        with contextlib.suppress(RuntimeError), cache.scratch("test") as second:
            made.append(second)
            raise RuntimeError
        assert made != [folder]
        assert not made[0].exists()
        assert folder.exists()
    assert left_over(root) == []


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """EUDYPTULA_CACHE first, then the XDG cache folder, then ~/.cache; always absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/wee")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/xdg")
    monkeypatch.setenv("EUDYPTULA_CACHE", "here")
    assert caches.default_root() == tmp_path / "here"
    monkeypatch.delenv("EUDYPTULA_CACHE")
    assert caches.default_root() == Path("/var/xdg/eudyptula")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert caches.default_root() == Path("/home/wee/.cache/eudyptula")


# -- digests of trees --------------------------------------------------------------


def digest_of_tree(tree: Path) -> str:
    return digest_of_files(tree, (path for path in tree.rglob("*") if path.is_file()))


@contextlib.contextmanager
def changed(tree: Path) -> Iterator[None]:
    """What happens inside must change the digest of ``tree``."""
    before = digest_of_tree(tree)
    yield
    assert digest_of_tree(tree) != before


def test_a_trees_digest_has_names_modes_and_contents(tmp_path: Path) -> None:
    """Every change that a build could see changes the digest."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a.c").write_text("int a;")
    with changed(tree):
        (tree / "a.c").write_text("int b;")
    with changed(tree):
        (tree / "a.c").chmod(0o755)
    with changed(tree):
        (tree / "a.c").rename(tree / "b.c")
    with changed(tree):
        (tree / "b.c").rename(tree / "sub" / "b.c")
    with changed(tree):
        (tree / "sub" / "link").symlink_to("b.c")
    with changed(tree):
        (tree / "sub" / "link").unlink()


MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "written"),
    [(5 * MIB, [3 * MIB]), (5 * MIB, [0, 5 * MIB - 1]), (5 * MIB + 3, [5 * MIB + 2]),
     (5 * MIB, [2 * MIB - 1, 2 * MIB]), (5 * MIB + 3, []), (2, [1])],
)  # fmt: skip
def test_holes_count_as_zeros_and_are_not_read(
    tmp_path: Path, reads: list[int], size: int, written: list[int]
) -> None:
    """A machine's memory has half a GiB, most of which is a hole."""
    sparse, whole = tmp_path / "sparse", tmp_path / "whole"
    content = bytearray(size)
    with sparse.open("wb") as file:
        file.truncate(size)
        for at in written:
            file.seek(at)
            file.write(b"x")
            content[at] = ord("x")
    whole.write_bytes(content)
    digest = caches._content(whole)
    reads.clear()
    assert caches._content(sparse) == digest
    assert 0 < sum(reads) <= (len(written) + 1) * MIB  # the first block always is


def test_a_file_system_without_holes_has_all_of_a_file_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may not know the question either (lseek(2))."""
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * MIB) + b"x")
    digest = caches._content(path)

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "planted")

    monkeypatch.setattr(os, "lseek", refuse)
    assert caches._content(path) == digest


def test_a_trees_digest_is_the_same_elsewhere_and_later(tmp_path: Path) -> None:
    """Times, the folder's own place and the order of creation do not count."""
    for name, files in (("one", ["a", "b", "c"]), ("two", ["c", "a", "b"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text(file)
    os.utime(tmp_path / "one" / "a", (1, 1))
    assert digest_of_tree(tmp_path / "one") == digest_of_tree(tmp_path / "two")


def test_a_manifest_is_json(root: Path) -> None:
    """People and scripts can read what an entry is made of."""
    entry = take(root, Maker())
    data = json.loads((entry.path / MANIFEST).read_text())
    assert data["kind"] == "kind"
    assert data["key"] == KEY
    assert set(data["files"]) == {"file", "sub/other", "link", "dangling"}


def test_it_is_known_whether_an_entry_is_there(tmp_path: Path) -> None:
    """Without making it, and without taking it: nobody is kept from removing it."""
    cache = Cache(tmp_path / "cache")
    assert not cache.has("x", "one", KEY)
    with cache:
        entry = cache.get("x", "one", KEY, lambda folder: (folder / "file").touch())
    assert cache.has("x", "one", KEY)
    assert not cache.has("x", "one", {**KEY, "other": 1})
    assert cache.remove(entry)
    assert not cache.has("x", "one", KEY)


# -- what changes and is kept ------------------------------------------------------


def test_a_kept_folder_keeps_its_content_until_it_is_forgotten(tmp_path: Path) -> None:
    """It is no entry: it changes, and has no key."""
    cache = Cache(tmp_path / "cache")
    with cache.workdir("index-x") as folder:
        (folder / "file").write_text("known")
    with Cache(tmp_path / "cache").workdir("index-x") as again:
        assert (again / "file").read_text() == "known"
    assert cache.stored() == []
    assert cache.keeps("index-x")
    cache.forget()
    assert not cache.keeps("index-x")


def test_a_kept_folder_is_one_users_at_a_time(tmp_path: Path) -> None:
    """It is locked for as long as somebody has it."""
    cache = Cache(tmp_path / "cache")
    lock = cache.root / "locks" / "kept-x"
    with cache.workdir("x") as folder, lock.open("rb") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Cache(cache.root).forget()
        assert folder.exists()
    with lock.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
