# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/watch.py: when the module is tested again, and how that ends."""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from watchdog.observers import Observer

from harness import config, lab
from harness.build.source import Source
from harness.commands import test_vm, watch
from harness.errors import BuildError, HostError, InputError, Status
from harness.host import cache as caches
from harness.runs import store
from harness.runs.request import Request

from .conftest import MATRIX, Calls


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what nothing was heard of."""
    monkeypatch.setattr(watch, "_ROUND_SECONDS", 0.05)
    monkeypatch.setattr(watch, "_TOGETHER_SECONDS", 0.01)


def save(file: Path, text: str) -> None:
    """Save a file as editors do: nobody ever reads half of it."""
    fresh = file.parent.parent / "fresh"
    fresh.write_text(text)
    fresh.replace(file)


class End(Exception):
    """Ends a watch that would go on."""


@pytest.fixture
def tested(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, other_module: Path
) -> Callable[..., list[str]]:
    """Watches a module; each run does the next of some things, and then the watch is ended.

    What it returns is what the module's file held at each run.
    """
    file = other_module / "other.c"
    file.write_text("one")

    def watched(*what: Callable[[], object]) -> list[str]:
        seen: list[str] = []

        def run(request: Request) -> int:
            assert (request.expression, request.jobs) == ("some", 1)
            seen.append(file.read_text())
            if len(seen) > len(what):
                raise End
            what[len(seen) - 1]()
            return Status.RED

        monkeypatch.setattr(test_vm, "run", run)
        with pytest.raises(End):
            watch.run(Request("one", source=other_module, expression="some"))
        return seen

    return watched


def test_what_is_saved_is_tested(tested: Callable[..., list[str]], other_module: Path) -> None:
    """Also what is saved while tests run. What is no source, or is as it was, is not."""
    file = other_module / "other.c"

    def save_at_once() -> None:
        file.write_text("two")

    def save_later() -> None:
        for name in (".other.c.swp", ".#other.c", "other.c~", "#other.c#", "4913"):
            (other_module / name).write_text("an editor's")
        file.write_text("two")
        threading.Thread(target=save, args=[file, "three"]).start()

    assert tested(save_at_once, save_later) == ["one", "two", "three"]


def test_what_the_kernel_is_made_of_is_not_checked_after_the_save(
    tested: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, other_module: Path
) -> None:
    """It was, before; nobody has removed it meanwhile. Of what could not be tested nothing is."""
    made: list[Path] = []
    believed: list[list[str]] = []

    def prepare(_: object, __: object, cache: caches.Cache, *___: object) -> None:
        made.append(cache.get("kernel", "one", {}, lambda _: None).path)

    monkeypatch.setattr(lab, "prepare_lab", prepare)
    monkeypatch.setattr(caches, "_vouched", {})

    def does_not_build() -> None:
        believed.append([*caches._vouched])
        (other_module / "other.c").write_text("two")
        raise BuildError("it does not build")

    def builds() -> None:
        believed.append([*caches._vouched])
        (other_module / "other.c").write_text("three")

    assert tested(does_not_build, builds) == ["one", "two", "three"]
    assert believed == [[], []]
    assert [*caches._vouched] == [str(made[0] / caches.MANIFEST)]


def test_a_kernel_that_is_lost_meanwhile_does_not_end_the_watch(
    tested: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, other_module: Path
) -> None:
    """As where somebody empties the cache and no mirror answers; the next run tells."""

    def fails(*_: object) -> None:
        raise HostError("no mirror answers")

    monkeypatch.setattr(lab, "prepare_lab", fails)
    assert tested(lambda: (other_module / "other.c").write_text("two")) == ["one", "two"]


def test_a_save_is_heard_of(
    tested: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, other_module: Path
) -> None:
    """Nobody waits until the sources are looked at for no reason."""
    monkeypatch.setattr(watch, "_ROUND_SECONDS", 600.0)

    class Saves(Observer):  # type: ignore[valid-type,misc]  # the class that is right for the host
        def start(self) -> None:
            super().start()
            (other_module / "other.c").write_text("two")

    monkeypatch.setattr(watch, "Observer", Saves)
    assert tested(lambda: None) == ["one", "two"]


def test_where_nothing_is_heard_the_sources_are_looked_at(
    tested: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, other_module: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """As where others have all the watches that the kernel allows."""
    caplog.set_level("INFO", "harness")

    class Full(Observer):  # type: ignore[valid-type,misc]
        def start(self) -> None:
            threading.Thread(target=save, args=[other_module / "other.c", "two"]).start()
            raise OSError(errno.ENOSPC, "inotify watch limit reached")

    monkeypatch.setattr(watch, "Observer", Full)
    assert tested(lambda: None) == ["one", "two"]
    assert "inotify watch limit reached" in caplog.text


def test_a_module_that_does_not_build_is_watched_on(
    tested: Callable[..., list[str]], other_module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is what happens in the middle of one's work; so is a file that is not there."""

    def breaks() -> None:
        (other_module / "other.c").write_text("broken")
        raise BuildError("it does not build")

    def is_taken_away() -> None:
        (other_module / "Kbuild").unlink()
        raise BuildError("nor does this")

    assert tested(breaks, is_taken_away) == ["one", "broken", "broken"]
    assert "one: BuildError: it does not build" in capsys.readouterr().out


def test_it_is_said_of_what_a_verdict_is(
    tested: Callable[..., list[str]], other_module: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Whoever saves while tests run is not to take what they say for the new source's."""
    caplog.set_level("INFO", "harness")

    def save_meanwhile() -> None:
        (other_module / "other.c").write_text("two")

    assert tested(save_meanwhile) == ["one", "two"]
    said = capsys.readouterr().out
    assert said.count("this is of what was there before: other.c was saved since") == 1
    assert re.search(r"\d\d:\d\d:\d\d: saved: other\.c\n", caplog.text)


def test_tests_of_ones_own_are_watched_too(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, other_module: Path, tmp_path: Path
) -> None:
    """Wherever they are; and they are those that run."""
    (other_module / "other.c").write_text("one")
    tests = tmp_path / "tests"
    tests.mkdir()
    seen: list[str] = []

    def run(request: Request) -> int:
        seen.append(request.plan().suites["own"])
        if len(seen) > 1:
            raise End
        (tests / "test_it.py").write_text("def test_it(): pass")
        return Status.GREEN

    monkeypatch.setattr(test_vm, "run", run)
    with pytest.raises(End):
        watch.run(Request("one", source=other_module, suite=str(tests)))
    assert seen == [str(tests)] * 2


def test_a_file_is_named_once(other_module: Path) -> None:
    """Tests that are in the module's folder are among its sources as well."""
    (other_module / "tests").mkdir()
    saves = watch._Saves(Source(other_module), other_module / "tests")
    assert saves.wait() == []
    (other_module / "tests" / "test_it.py").write_text("def test_it(): pass")
    (other_module / "other.c").write_text("two")
    assert saves.wait() == ["other.c", "tests/test_it.py"]


def test_what_is_red_is_named(
    tested: Callable[..., list[str]], other_module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what the run has written down."""

    def is_red() -> None:
        with store.begin("one", whole=False) as run:
            (run.folder / "red.txt").write_text("a.py::test_b: why\n")
        (other_module / "other.c").write_text("two")

    tested(is_red)
    assert "red: a.py::test_b: why\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_ends_it(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, other_module: Path, name: str
) -> None:
    """While it waits, that is how it is meant to end."""
    (other_module / "other.c").write_text("one")
    wait = watch._changes
    interrupts = threading.Timer(0, os.kill, (os.getpid(), signal.Signals[name]))

    def waits(places: Sequence[Path]) -> Iterator[object]:
        for change in wait(places):
            # It watches by now, and waits in the same way the next time.
            if interrupts.ident is None:
                interrupts.start()
            yield change

    monkeypatch.setattr(watch, "_changes", waits)
    before = {one: signal.signal(one, signal.default_int_handler)
              for one in (signal.SIGINT, signal.SIGTERM)}  # fmt: skip
    try:
        assert watch.run(Request("one", source=other_module)) == Status.GREEN
    finally:
        if interrupts.ident is not None:
            interrupts.join()
        for one, handler in before.items():
            signal.signal(one, handler)


def test_what_watchdog_says_while_it_ends_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, other_module: Path
) -> None:
    """A thread that is about to ask for changes when watching ends finds nothing to ask."""

    class Late(Observer):  # type: ignore[valid-type,misc]
        def on_thread_stop(self) -> None:
            emitters = [*self.emitters]
            super().on_thread_stop()
            for emitter in emitters:
                emitter.queue_events(0)

    monkeypatch.setattr(watch, "Observer", Late)
    changes = watch._changes([other_module])
    next(changes)
    changes.close()
    assert caplog.text == ""


def test_an_interruption_of_a_test_is_passed_on(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ran then is said, as for test-vm."""

    def run(_: Request) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(test_vm, "run", run)
    with pytest.raises(KeyboardInterrupt):
        watch.run(Request("one"))


def test_what_cannot_be_watched_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package, and several kernels at once."""
    monkeypatch.setattr(config, "load", lambda: MATRIX)
    with pytest.raises(InputError, match="one kernel at a time"):
        watch.run(Request("one,two"))
    with pytest.raises(InputError, match="a package does not change"):
        watch.run(Request("one", source=Source(Path("deb:x"), package="x")))
