# SPDX-License-Identifier: GPL-2.0-only
"""Judges several modules, such as those of a class, and writes a card for each.

::

    results/judge/
        cards.md cards.json cards.csv   all cards of the run that ended last
        unfinished-DIGEST.json          when a run began that goes on or was interrupted; DIGEST is
                                        of what it judges
        NAME-DIGEST/                    one folder that was judged; DIGEST is of its path
            card.md                     its card
            KERNEL/RUN/                 as in results/KERNEL/ (harness/runs/store.py)
            KERNEL/card.json            its last card on that kernel, and what it was made of

Each module is tested by one pytest, and as many are at work as there are jobs. What goes wrong
with one is its card, and not the end of the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shlex
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from harness import config
from harness.build import source as sources
from harness.build.source import Source
from harness.config import KernelSpec, Matrix
from harness.errors import HarnessError, InputError, Status
from harness.host import files, progress
from harness.host.cache import Cache, digest_of, digest_of_files
from harness.host.text import printable
from harness.report import card as cards
from harness.report import card_compare, card_formats
from harness.report.card import Card
from harness.report.junit import failures_of_suites
from harness.report.result import KernelResult, left_out, to_json
from harness.runs import accepted, covered, pytest_process, store, suites, sweep
from harness.runs.pytest_process import Progress, PytestProcess
from harness.runs.request import Plan, Request
from harness.runs.store import Run

log = logging.getLogger(__name__)

ROUND_SECONDS = 0.5  # how long the main thread waits before it looks whether a signal has come
# What tests of one module that hang may take together before the rest is skipped; see
# harness/plugin/hangs.py. A test waits half a minute for insmod, and a minute for rmmod.
HANG_SECONDS = 60.0
# One module's tests are ended after that time, whatever they do. Those of a healthy one take a
# minute or two.
MODULE_SECONDS = 1800.0


@dataclass(frozen=True)
class Subject:
    """A module that is judged: ``name`` is what people call it, ``key`` its folder of results."""

    source: Source
    name: str
    key: str


def folder() -> Path:
    """Where cards are."""
    return config.RESULTS / "judge"


def subjects(
    given: Sequence[str], only: str | None = None, params: Sequence[str] = ()
) -> list[Subject]:
    """What is judged: each folder, .ko file or deb:PACKAGE that was given, or all that are in one.

    Those in it are meant where the folder itself does not say how it is built, and is no
    repository of its own. An archive has a card that says that it is one. ``only`` and ``params``
    are the options --ko and --param, for each. Raises ``InputError`` for what is nothing of these.
    """
    found: dict[Path, Source] = {}  # by where they really are
    for each in given:
        source = sources.parse(each, only, params)
        if source.package or source.finished:
            found.setdefault(source.path if source.package else source.path.resolve(), source)
            continue
        if not (source.path.is_dir() or sources.is_archive(source.path)):
            raise InputError(
                f"there is no folder {each}",
                hint="`invoke judge` takes modules' folders, a folder of such folders, .ko files "
                "and deb:PACKAGE",
            )
        for one in _within(source.path):
            found.setdefault(one.resolve(), replace(source, path=one))
    names = _names(list(found))
    return [
        Subject(source, printable(name).replace("\n", " "), _key(path))
        for (path, source), name in zip(found.items(), names, strict=True)
    ]


def _within(given: Path) -> list[Path]:
    if sources.is_archive(given) or sources.says_how(given) or (given / ".git").exists():
        return [given]
    try:
        below = [path for path in sorted(given.iterdir()) if _is_submission(path)]
    except OSError as error:
        raise InputError(f"{given} cannot be read: {error.strerror}") from error
    return below or [given]


def _is_submission(path: Path) -> bool:
    """Whether somebody may have handed that in, as it is or by mistake.

    An archive is packed in the place of a folder; of that, nobody is to hear nothing. What a Mac
    puts beside the folders of an archive that it makes is nobody's.
    """
    if path.name.startswith(".") or path.name == "__MACOSX":
        return False
    return path.is_dir() or sources.is_archive(path) or Source(path).finished


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    names = [path.name or "/" for path in paths]
    depth = 1
    while len(set(names)) < len(names) and depth < max(len(path.parts) for path in paths):
        depth += 1
        again = {name for name in names if names.count(name) > 1}
        names = [
            "/".join(path.parts[-depth:]) if name in again else name
            for name, path in zip(names, paths, strict=True)
        ]
    return names


def _key(path: Path) -> str:
    plain = re.sub(r"\W+", "-", path.name, flags=re.ASCII).strip("-")[:60] or "module"
    return f"{plain}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


@dataclass(frozen=True)
class _Task:
    """One module on one kernel."""

    subject: Subject
    spec: KernelSpec

    @property
    def place(self) -> Path:
        return folder() / self.subject.key / self.spec.name


class Judge:
    """A run; ``cards`` are those that are done, by subject and kernel."""

    def __init__(self, request: Request, matrix: Matrix) -> None:
        """``request.source`` is not looked at: each subject is its own."""
        self._request = request
        self._matrix = matrix
        self._jobs = request.jobs or pytest_process.default_jobs()
        self._lock = threading.Lock()
        self._running: set[PytestProcess] = set()
        self._stopped = False
        self._left = 0
        self.cards: dict[tuple[str, str], Card] = {}

    def run(self, found: Sequence[Subject], specs: Sequence[KernelSpec]) -> list[Card]:
        """Judge all; the cards are in the order of ``found``.

        A run of the same folders and kernels that was interrupted goes on: what it has judged, and
        what has not changed since, is not judged again.
        """
        tasks = [_Task(subject, spec) for subject in found for spec in specs]
        unfinished = self._unfinished(tasks)
        began = self._begin(unfinished)
        self._left = len(tasks)
        pool = ThreadPoolExecutor(max_workers=self._jobs, thread_name_prefix="harness-judge")
        try:
            waiting: set[Future[None]] = {pool.submit(self._one, task, began) for task in tasks}
            while waiting:
                # In rounds: a signal that arrives just before a wait is noticed at the next one.
                done, waiting = wait(waiting, ROUND_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException as error:
            self._end()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                error.add_note(
                    f"{len(self.cards)} of {len(tasks)} are judged; the same command goes on there"
                )
            raise
        pool.shutdown()
        self._compare_kernels(found, specs)
        every = [self.cards[task.subject.key, task.spec.name] for task in tasks]
        with store.writing("the cards"):
            files.write(folder() / "cards.md", card_formats.all_as_markdown(every))
            files.write(folder() / "cards.json", card_formats.as_json(every))
            files.write(folder() / "cards.csv", card_formats.as_csv(every))
            unfinished.unlink(missing_ok=True)
        return every

    # -- one module ----------------------------------------------------------------

    def _one(self, task: _Task, began: float) -> None:
        if self._stopped:
            return
        key = task.subject.key, task.spec.name
        made_of = self._made_of(task)
        made = _kept(task.place, made_of, began)
        if made is None:
            try:
                made = self._judged(task)
            except InputError as error:
                made = cards.unfit(*self._of(task), error.what, error.hint, error.exit_status)
            except HarnessError as error:
                made = self._not_known(task, str(error), error.exit_status)
            except Exception as error:  # a fault of ours: this one's card, and not the end
                log.exception("judging %s failed, which must not happen", task.subject.name)
                made = self._not_known(task, f"{type(error).__name__}: {error}", Status.OURS)
            if self._stopped:
                return
            before = _before(task.place)
            made = card_compare.compared(made, before) if before else made
            _keep(task.place, made, made_of)
        with self._lock:
            self._left -= 1
            self.cards[key] = made
            self._write_card(key[0])
        worst = f": {made.findings[0].seen}" if made.findings else ""
        log.info("%s on %s: %s%s", made.name, made.kernel, made.outcome, worst)

    def _write_card(self, subject: str) -> None:
        """Write the cards of one subject, on each kernel so far, to be handed out."""
        own = [one for (its, _), one in self.cards.items() if its == subject]
        with store.writing("the cards"):
            (folder() / subject).mkdir(parents=True, exist_ok=True)
            files.write(folder() / subject / "card.md", "\n".join(map(card_formats.markdown, own)))

    def _compare_kernels(self, found: Sequence[Subject], specs: Sequence[KernelSpec]) -> None:
        """Have each card say which kernels build its module, where some do and others do not."""
        for subject in found:
            own = [self.cards[subject.key, spec.name] for spec in specs]
            told = card_compare.across_kernels(own)
            if told != own:
                self.cards |= {(subject.key, each.kernel): each for each in told}
                self._write_card(subject.key)

    def _of(self, task: _Task) -> tuple[str, str, str]:
        return task.subject.name, printable(str(task.subject.source)), task.spec.name

    def _not_known(self, task: _Task, why: str, status: int) -> Card:
        finding = cards.Finding("unknown", why, "Nothing is known of the module.")
        return Card(*self._of(task), "", status, (finding,))

    def _made_of(self, task: _Task) -> str:
        """A digest of what a card says something of: the sources, the kernel, the tests."""
        source = task.subject.source
        try:
            if source.package:
                content = str(source)
            elif source.finished:
                content = digest_of_files(source.path.parent, [source.path])
            else:
                inspected = sources.inspect(source.path)
                content = digest_of_files(inspected.root, inspected.files)
        except (HarnessError, OSError) as error:
            content = str(error)
        key = {"content": content, "kernel": [task.spec.release, task.spec.version],
               "suite": self._request.suite, "only": source.only, "params": source.params,
               "profile": task.spec.profile, "config": str(task.spec.config)}  # fmt: skip
        more = self._request.equipment.arguments()
        key |= {"equipment": more} if more else {}
        return digest_of(key | ({"coverage": True} if self._request.coverage else {}))

    def _judged(self, task: _Task) -> Card:
        source = task.subject.source
        beside = source.path.parent if source.finished else source.path
        known = () if source.package else accepted.read(beside)
        names, own_tests = "any", []
        if not (source.package or source.finished):
            inspected = sources.inspect(source.path)
            own_tests = _own_tests(inspected, source, task.spec.name)
            names = "contract,any" if sources.solves_exercise(inspected) else "any"
        request = replace(self._request, source=source)
        plan = Plan(request, suites.folders(self._request.suite or names, source))
        name = f"{folder().name}/{task.subject.key}/{task.spec.name}"
        with store.begin(name, whole=False) as run:
            ready, result, late = self._tested(task, plan, run)
            files.write(run.folder / "report.json", to_json(result))
            said = _said(run)
            notes = covered.not_run(run.folder, "" if source.package else str(beside))
        made = cards.card(
            *self._of(task)[:2], result, said, error=ready.error, late=late,
            options=[*source.arguments(), *request.equipment.arguments()],
        )  # fmt: skip
        made = replace(made, notes=(*made.notes, *cards.hints(ready.hints), *notes, *own_tests))
        return card_compare.with_accepted(made, known, date.today())

    def _tested(self, task: _Task, plan: Plan, run: Run) -> tuple[sweep.Ready, KernelResult, str]:
        """What came of it, and a sentence if its tests had to be ended."""
        with Cache() as cache:
            asked = plan.request
            # The suite for any module loads it itself, in each of its tests.
            ready = sweep.make_ready(
                task.spec, self._matrix, cache, asked.source, asked.equipment, hints=True,
                load=set(plan.suites) != {"any"},
            )  # fmt: skip
        try:
            if ready.left_out:
                its = ready.spec
                return ready, left_out(its.name, ready.release, its.version, ready.left_out), ""
            if ready.status:
                return ready, sweep.not_tested(ready, asked.given), ""
            what = f"{task.subject.name} on {task.spec.name}: its tests"
            with progress.stage(what), progress.detail(lambda: _runs_now(run.folder)):
                return ready, *self._pytest(ready, plan, run)
        finally:
            if ready.module:
                forget_machines(ready.module)

    def _pytest(self, ready: sweep.Ready, plan: Plan, run: Run) -> tuple[KernelResult, str]:
        with self._lock:
            jobs = sweep.share(self._jobs, self._left)
        given = [*plan.arguments(ready.spec, jobs, run.junit), "--machines=0"]
        # One that hung when it was loaded to make its kernel ready is known to hang.
        load = ready.cells.get("load")
        hung = load is not None and load.red and cards.kind_of("", load.why) == "hang"
        given.append(f"--hangs={0.0 if hung else HANG_SECONDS:.0f}")
        started = time.monotonic()
        with run.log.open("wb") as out:
            with self._lock:
                if self._stopped:
                    raise InputError("interrupted")
                process = PytestProcess(given, run.folder, out=out)
                self._running.add(process)
            late: list[str] = []  # filled once its time is over

            def end() -> None:
                seen = pytest_process.progress(run.folder) or Progress()
                within = f" while it ran {', '.join(seen.running)}" if seen.running else ""
                late.append(
                    f"its tests took more than {MODULE_SECONDS / 60:.0f} minutes, and were "
                    f"ended{within}"
                )
                process.end()

            limit = threading.Timer(MODULE_SECONDS, end)
            limit.start()
            try:
                ended = process.wait()
            finally:
                limit.cancel()
                with self._lock:
                    self._running.discard(process)
        seconds = time.monotonic() - started
        if late and ended.status != Status.GREEN and not self._stopped:
            ended = pytest_process.Ended(Status.RED, why=late[0])
            result = sweep.result_of(ready, plan, ended, run.junit, seconds)
            # A pytest that had to be killed has not written what its tests came to.
            return replace(result, status=Status.RED), late[0]
        return sweep.result_of(ready, plan, ended, run.junit, seconds), ""

    # -- the run -------------------------------------------------------------------

    def _begin(self, place: Path) -> float:
        """When the run began that this one is, or goes on with, in seconds since the epoch."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            began = float(json.loads(place.read_text())["began"])
            log.info(
                "going on with the run that began at %s and was interrupted; without %s all would "
                "be judged again",
                time.strftime("%H:%M", time.localtime(began)), os.path.relpath(place),
            )  # fmt: skip
            return began
        began = time.time()
        with store.writing("the cards"):
            store.folder_of("judge")
            files.write(place, json.dumps({"began": began}))
        return began

    def _unfinished(self, tasks: Sequence[_Task]) -> Path:
        """The file that is there as long as a run of these has not come to its end."""
        about = {"tasks": sorted(f"{task.subject.key}/{task.spec.name}" for task in tasks),
                 "suite": self._request.suite}  # fmt: skip
        return folder() / f"unfinished-{digest_of(about)}.json"

    def _end(self) -> None:
        """End every pytest, which ends its machines itself if it gets the time for it."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        pytest_process.end(running)


def _own_tests(inspected: sources.Folder, source: Source, kernel: str) -> list[str]:
    """A sentence if pytest's tests are among a module's sources: what runs them."""
    own = [path for path in inspected.files if path.match("test_*.py")]
    if not own:
        return []
    places = sorted({os.path.abspath(path.parent) for path in own})
    command = shlex.join(["pytest", *places, *source.arguments(), "--kernel", kernel])
    return [f"Its own tests are not part of the judgement. They are run by: {printable(command)}"]


def _said(run: Run) -> dict[tuple[str, str], tuple[str, ...]]:
    """What the red tests of a run say in full."""
    try:
        return failures_of_suites(run.junit.read_text())
    except (OSError, ValueError):
        return {}


def _runs_now(run: Path) -> str:
    """The tests of a run that are going on."""
    seen = pytest_process.progress(run)
    return ", ".join(each.rpartition("::")[2] for each in seen.running) if seen else ""


def _keep(place: Path, made: Card, made_of: str) -> None:
    """Remember a card; what is not known is tried again."""
    if made.status in (Status.HOST, Status.OURS):
        return
    with store.writing("the cards"):
        place.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {"made_of": made_of, "at": time.time(), "card": card_formats.as_json([made])}
        )
        files.write(place / "card.json", text)


def _before(place: Path) -> Card | None:
    """The card that was made last, of whatever sources."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return card_formats.from_json(json.loads((place / "card.json").read_text())["card"])[0]
    return None


def _kept(place: Path, made_of: str, began: float) -> Card | None:
    """The card that this run has made before it was interrupted, if it still holds."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads((place / "card.json").read_text())
        if before["made_of"] == made_of and before["at"] >= began:
            return card_formats.from_json(before["card"])[0]
    return None


def forget_machines(module: str) -> None:
    """Remove the frozen machines that have a module loaded, of some 110 MB each."""
    with Cache() as cache:
        for stored in cache.stored():
            key = stored.key.get("key")
            if isinstance(key, dict) and key.get("module") == module:
                cache.remove(stored.entry)
