# SPDX-License-Identifier: GPL-2.0-only
"""What only many repetitions show. For people: ``python tests/reliability.py WHAT``.

    clones      clones, several at a time with --jobs, each with the right answer, clock and random
                state of its own; --busy keeps all processors busy meanwhile
    loaded      whole contract suites while other programs keep all processors busy: all green
    kill        runs that are killed (SIGKILL) at a random moment leave nothing running, and
                nothing half-written in the cache
    interrupt   runs that are interrupted (SIGINT) at a random moment on a busy host end by
                themselves and leave nothing running

That a flipped byte in a template is found is in tests/vm/harness/test_reliability.py, with
short forms of these. The exit status is 0 if all went well.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import secrets
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import config
from harness.examine import loading
from harness.host import cache
from harness.host.cache import Cache
from harness.lab import prepare_lab
from harness.machines.clone import clone
from harness.machines.template import Template
from harness.testing import HarnessError, Lab

SUITE = "tests/vm/contract"
CLOCK_SECONDS = 2.0  # how wrong a clone's clock may be
END_SECONDS = 60.0  # how long processes may take to end on a busy host

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


# -- clones ------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What one clone said; ``wrong`` is what is wrong with it, ``random`` what it drew."""

    seconds: float  # from nothing to the answer
    wrong: tuple[str, ...]
    random: tuple[str, ...]


def clones(lab: Lab, count: int, jobs: int = 1) -> Iterator[Answer]:
    """Clone the machine ``count`` times, ``jobs`` at a time, and ask each how it is."""
    base = lab.template()
    if not base.frozen:
        raise HarnessError(f"this machine cannot be frozen: {base.facts['unfrozen']}")
    known: set[str] = set()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for answer in pool.map(lambda _: _answer(lab, base), range(count)):
            repeated = known & set(answer.random)
            known |= set(answer.random)
            wrong = (f"drew {', '.join(repeated)} as another did",) if repeated else ()
            yield Answer(answer.seconds, (*answer.wrong, *wrong), answer.random)


def _answer(lab: Lab, base: Template) -> Answer:
    word = secrets.token_hex(8)
    ask = (
        f"echo {word}; date +%s.%N; cat /proc/sys/kernel/random/uuid;"
        " head -c 16 /dev/urandom | od -An -tx1;"
        # Of one number two clones in a thousand have the same; of three in a row none has.
        " bash -c 'echo $RANDOM-$RANDOM-$RANDOM'"
    )
    started, before = time.monotonic(), time.time()
    try:
        with lab.cache.scratch("reliability") as folder, clone(base, folder) as running:
            said = running.guest.check(ask).splitlines()
            seconds, after = time.monotonic() - started, time.time()
    except HarnessError as error:
        return Answer(time.monotonic() - started, (str(error),), ())
    if len(said) != 5 or said[0] != word:
        return Answer(seconds, (f"answered {said}",), ())
    off = max(before - float(said[1]), float(said[1]) - after)
    wrong = (f"its clock is {off:.1f} s wrong",) if off > CLOCK_SECONDS else ()
    return Answer(seconds, wrong, tuple(said[2:]))


def run_clones(lab: Lab, count: int, jobs: int) -> int:
    seconds, failed = [], 0
    for number, answer in enumerate(clones(lab, count, jobs), 1):
        seconds.append(answer.seconds)
        failed += bool(answer.wrong)
        for line in answer.wrong:
            say(f"clone {number}: {line}")
        if number % 50 == 0:
            say(f"{number} clones: {spread(seconds)}; {failed} wrong")
    say(f"{len(seconds)} clones, from nothing to a command's answer: {spread(seconds)}")
    say(f"{failed} wrong")
    return failed


def spread(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"median {statistics.median(ordered):.2f} s, p95 {late:.2f} s, max {ordered[-1]:.2f} s"


# -- whole runs --------------------------------------------------------------------


def suite(lab: Lab, *options: str) -> list[str]:
    """The command for one run of the contract suite, in which Ctrl-C has its usual effect."""
    return [
        "env", "--default-signal=INT", sys.executable, "-m", "pytest", "-q",
        "-p", "no:cacheprovider", f"--kernel={lab.kernel.name}", *options, SUITE,
    ]  # fmt: skip


@contextmanager
def busy() -> Iterator[None]:
    """As many programs as there are processors, each busy all the time."""
    with ExitStack() as stack:
        for _ in os.sched_getaffinity(0):
            burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        yield


def run_loaded(lab: Lab, count: int) -> int:
    failed = 0
    with busy():
        for number in range(1, count + 1):
            started = time.monotonic()
            done = subprocess.run(
                suite(lab), cwd=config.PROJECT, capture_output=True, text=True, check=False
            )
            said = done.stdout.strip().splitlines()
            say(f"suite {number}: {said[-1] if said else ''} ({time.monotonic() - started:.0f} s)")
            if done.returncode != 0:
                failed += 1
                print(done.stdout, done.stderr, flush=True)
    say(f"{count} suites on busy processors, {failed} not green")
    return failed


# -- runs that are ended -----------------------------------------------------------


def adopt_orphans() -> None:
    """Have what a killed run leaves running become this process's child, however deep it was."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children() -> set[int]:
    """This process's own children."""
    found: set[int] = set()
    for task in list(Path("/proc/self/task").glob("*/children")):
        with contextlib.suppress(OSError):  # the thread has ended
            found |= {int(child) for child in task.read_text().split()}
    return found


def await_orphans(known: set[int], seconds: float) -> list[str]:
    """Wait until there is no child but ``known``; the command lines of those that stay.

    Those are killed. An orphan's own children are orphans here before it is reaped.
    """
    end = time.monotonic() + seconds
    stayed = []
    while orphans := children() - known:
        for pid in orphans:
            descriptor = os.pidfd_open(pid)
            try:
                left = max(0.0, end - time.monotonic())
                if not select.select([descriptor], [], [], left)[0]:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                    stayed.append(f"{pid}: {command.decode(errors='replace')}")
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                os.waitpid(pid, 0)
            finally:
                os.close(descriptor)
    return stayed


@contextmanager
def own_cache(lab: Lab) -> Iterator[Path]:
    """A cache of this script's own, which begins with what ``lab`` has taken from its cache."""
    with tempfile.TemporaryDirectory(dir=lab.cache.root.parent, prefix="eudyptula-") as folder:
        root = Path(folder)
        for path in (*lab.cache.held, lab.cache.root / "keys"):
            target = root / path.relative_to(lab.cache.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            command = ["cp", "-a", "--reflink=auto", "--sparse=always", str(path), str(target)]
            subprocess.run(command, check=True)
        try:
            yield root
        finally:
            # Packages have folders that nobody may write to.
            subprocess.run(["chmod", "-R", "u+rwX", str(root)], check=True)


def half_written(root: Path) -> list[str]:
    """What is wrong with the entries of a cache."""
    found = []
    for path in root.glob("*/*-" + "?" * 16):
        if path.parent.name not in ("tmp", "locks", "kept"):
            damage = cache.damage(path)
            if damage:
                found.append(f"{path.relative_to(root)}: {damage}")
    return found


@dataclass
class Ended:
    """How a run was ended: by a signal ``after`` so many seconds, unless by itself before.

    ``status`` is None if it did not end within ``END_SECONDS`` of the signal.
    """

    after: float
    by_itself: bool
    status: int | None
    seconds: float  # from the signal to its end
    stayed: list[str]  # what else was left running


def end_one(
    command: list[str], env: dict[str, str], log: Path, sent: signal.Signals, after: float
) -> Ended:
    """Start a run, send it a signal ``after`` so many seconds, and see that all of it ends."""
    known = children()
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=config.PROJECT, env=env, stdout=output, stderr=subprocess.STDOUT
        )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
    by_itself = process.poll() is not None
    process.send_signal(sent)
    started = time.monotonic()
    try:
        status: int | None = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        status = None
        # pytest has faulthandler on: this makes it say where each of its threads is.
        process.send_signal(signal.SIGABRT)
        process.wait()
    seconds = time.monotonic() - started
    return Ended(started - began, by_itself, status, seconds, await_orphans(known, END_SECONDS))


def end_many(
    lab: Lab, sent: signal.Signals, count: int, root: Path, module: Path, seed: int
) -> int:
    """Have ``count`` runs end by a signal; how many did so badly."""
    random_ = random.Random(seed)  # noqa: S311  # no secret
    env = {**os.environ, "EUDYPTULA_CACHE": str(root)}
    source = module / "waitqueues.c"
    text = source.read_text()
    whole, failed = 0.0, 0
    for number in range(count + 1):
        # Each run has a module that nobody has built before, and so a template to make.
        source.write_text(f"{text}\n/* {seed} {number} */\n")
        options = [f"--module={module}", *(["-n2"] if number % 2 else [])]
        log = root / "run.log"
        if number == 0:
            started = time.monotonic()
            first = subprocess.run(
                suite(lab, *options), cwd=config.PROJECT, env=env, check=False, text=True,
                capture_output=True,
            )  # fmt: skip
            whole = time.monotonic() - started
            say(f"a run that nobody ends takes {whole:.1f} s")
            if first.returncode != 0:
                print(first.stdout, first.stderr, flush=True)
                return count
            continue
        ended = end_one(suite(lab, *options), env, log, sent, random_.uniform(0, whole))
        if ended.by_itself:
            whole = ended.after  # the host has become faster, or this run has less to do
        say(
            f"run {number}: {'ended by itself' if ended.by_itself else sent.name} "
            f"after {ended.after:.1f} s, status {ended.status}, gone {ended.seconds:.2f} s later, "
            f"{len(ended.stayed)} processes stayed"
        )
        # pytest's own 2, or what Python and a shell say of SIGINT before pytest has begun.
        fit = (0, 2, 130, -signal.SIGINT) if sent is signal.SIGINT else (0, -sent)
        if ended.stayed or ended.status not in fit:
            failed += 1
            print(*ended.stayed, log.read_text(errors="replace"), sep="\n", flush=True)
        for line in half_written(root):
            failed += 1
            say(f"run {number}: {line}")
    return failed


def run_ended(lab: Lab, sent: signal.Signals, count: int, seed: int) -> int:
    adopt_orphans()
    with tempfile.TemporaryDirectory() as folder, own_cache(lab) as root:
        module = Path(folder) / "module"
        shutil.copytree(config.MODULE, module)
        failed = end_many(lab, sent, count, root, module, seed)
        say("the next run")
        env = {**os.environ, "EUDYPTULA_CACHE": str(root)}
        last = subprocess.run(
            suite(lab, f"--module={module}"), cwd=config.PROJECT, env=env, check=False, text=True,
            capture_output=True,
        )  # fmt: skip
        said = last.stdout.strip().splitlines()
        say(said[-1] if said else "said nothing")
        if last.returncode != 0:
            failed += 1
            print(last.stdout, last.stderr, flush=True)
        wrong = [f"left in tmp/: {path.name}" for path in (root / "tmp").iterdir()]
        for line in (*wrong, *half_written(root)):
            failed += 1
            say(line)
    say(f"{count} runs ended by {sent.name}, {failed} things wrong")
    return failed


# -- the command -------------------------------------------------------------------


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def interrupt(lab: Lab, count: int, seed: int) -> int:
    with busy():
        return run_ended(lab, signal.SIGINT, count, seed)


@dataclass(frozen=True)
class Given:
    """How it is to be done."""

    count: int
    seed: int
    jobs: int


# Each with how often it is to be done before anybody claims anything (docs/numbers.md).
WHAT: dict[str, tuple[int, Callable[[Lab, Given], int]]] = {
    "clones": (1000, lambda lab, given: run_clones(lab, given.count, given.jobs)),
    "loaded": (20, lambda lab, given: run_loaded(lab, given.count)),
    "kill": (50, lambda lab, given: run_ended(lab, signal.SIGKILL, given.count, given.seed)),
    "interrupt": (100, lambda lab, given: interrupt(lab, given.count, given.seed)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="what only many repetitions show")
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--count", type=int, help="how often (default: as often as is claimed)")
    parser.add_argument("--kernel", help="the kernel (default: that of vm/kernels.toml)")
    parser.add_argument("--seed", type=int, help="of the random moments, to have them again")
    parser.add_argument(
        "--jobs", type=int, default=1, help="how many clones at a time (default: 1)"
    )
    parser.add_argument("--busy", action="store_true", help="with all processors busy (clones)")
    given = parser.parse_args()
    usual, action = WHAT[given.what]
    seed = secrets.randbits(16) if given.seed is None else given.seed
    matrix = config.load()
    (spec,) = matrix.select(given.kernel)
    say(f"{given.what}: kernel {spec.name}, seed {seed}")
    lab = prepare_lab(spec, matrix, Cache())
    loading.loaded_template(lab, lab.template(), lab.build(config.MODULE))
    with busy() if given.busy else contextlib.nullcontext():
        return 1 if action(lab, Given(given.count or usual, seed, given.jobs)) else 0


if __name__ == "__main__":
    sys.exit(main())
