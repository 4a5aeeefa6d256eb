# SPDX-License-Identifier: GPL-2.0-only
"""`invoke pipeline`: what a CI runs, and what it makes of what was found.

On a push: every kernel that vm/kernels.lock names, those that find most first. At night:
only the kernels of which the archive has another one than the lock. What is green then is
locked, what is red becomes an issue. The engines (.github/workflows, .gitlab-ci.yml) only
call these steps, which a person can call as well. All is decided from two things: what
`invoke kernels --json` printed, and the results in results/KERNEL/.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import config
from harness.commands import kernels
from harness.commands.publish import Issue, said_folder
from harness.config import Locked
from harness.errors import HostError, InputError
from harness.host import files
from harness.host.cache import Cache
from harness.report import table
from harness.report.junit import failures
from harness.report.result import KernelResult, left_out
from harness.runs import store

log = logging.getLogger(__name__)

EVENTS = ("push", "nightly")
STAGES = ("first", "rest")
FORMS = ("text", "names", "github", "gitlab")
# Of the harness's own tests, those that only such a kernel can run (pytest.mark.needs).
NEEDS = "needs"
# A person finds the reason in it, and GitHub takes no issue of more than 65536 characters.
LOG_LINES = 120
LOG_CHARACTERS = 20000
ISSUE_CHARACTERS = 60000


@dataclass(frozen=True)
class Entry:
    """One kernel of what `invoke kernels --json` printed; ``what`` is its suite and flavour.

    ``moved`` is None where the archive could not be asked, and ``unknown`` says why. Where it
    was asked and has none now, ``absent`` says so.
    """

    name: str
    what: str
    profile: str
    default: bool
    locked: Locked | None
    newest: Locked | None
    moved: bool | None
    unknown: str
    absent: str


@dataclass(frozen=True)
class Job:
    """One kernel to be tested by a job of its own: `invoke test-vm --kernel --suite`.

    ``version`` is that of the package, by which a cache is found; ``filter`` picks what else
    is run of the harness's tests, and ``update`` says that the lock is to be moved before.
    """

    kernel: str
    version: str
    suite: str
    filter: str
    stage: str
    update: bool


@dataclass(frozen=True)
class Outcome:
    """The result of a kernel that has moved. ``state`` is green, red or untested."""

    entry: Entry
    result: KernelResult
    state: str


@dataclass(frozen=True)
class Settlement:
    """What a night amounts to: the lock as it is to be, and what is said of it."""

    outcomes: tuple[Outcome, ...]
    lock: Mapping[str, Locked]
    message: str  # of the commit; empty if the lock stays as it is
    issues: tuple[Issue, ...]
    unknown: tuple[str, ...]
    absent: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """0 only if every kernel is known not to have moved (or to be none now), or is green."""
        red = any(outcome.state != "green" for outcome in self.outcomes)
        return 3 if self.unknown else int(red)


# -- what is run (pure) ------------------------------------------------------------


def entries(text: str) -> list[Entry]:
    """What `invoke kernels --json` printed; raises ``InputError`` for anything else."""
    try:
        rows = json.loads(text)
        if not isinstance(rows, list) or not rows:
            raise TypeError("a list of kernels is wanted")
        return [_entry(row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"this is not what `invoke kernels --json` prints ({type(error).__name__}: {error})",
            hint="./bootstrap kernels --json >kernels.json",
        ) from error


def _entry(row: Mapping[str, object]) -> Entry:
    what = f"{row['suite']} {row['flavour'] or row['profile']}"
    both: list[Locked | None] = []
    for key in ("locked", "newest"):
        exact = row[key]
        if isinstance(exact, dict):
            both.append(Locked(what, str(exact["release"]), str(exact["version"])))
        elif exact is None:
            both.append(None)
        else:
            raise TypeError(f"{key} is {exact!r}")
    moved = row["moved"]
    return Entry(str(row["name"]), what, str(row["profile"]), row["default"] is True, both[0],
                 both[1], None if moved is None else bool(moved), str(row["unknown"]),
                 str(row.get("absent", "")))  # fmt: skip


def plan(kernels: Sequence[Entry], event: str) -> list[Job]:
    """The jobs of an event, in the order of the matrix.

    On a push the default kernel and the one that finds most bugs come first. At night
    nothing waits for anything else. What the archive has none of now cannot be tested.
    """
    if event == "nightly":
        return [_job(each, each.newest, True) for each in kernels if each.moved]
    there = [each for each in kernels if not _left_out(each)]
    return [_job(each, each.locked or each.newest, False) for each in there]


def _left_out(each: Entry) -> bool:
    """Whether the archive had such a kernel once and has none now.

    One that was never locked is not left out: its entry in the matrix may be wrong.
    """
    return bool(each.absent) and each.locked is not None


def _absent(each: Entry) -> str:
    return f"{each.name}: {each.absent} now, so there is nothing to test"


def _job(each: Entry, exact: Locked | None, update: bool) -> Job:
    early = update or each.default or each.profile == "debug"
    return Job(
        kernel=each.name,
        version=exact.version if exact else "",
        suite=",".join(_suites(each)),
        filter=NEEDS if each.profile else "",
        stage="first" if early else "rest",
        update=update,
    )


def _suites(each: Entry) -> tuple[str, ...]:
    """The suites that a kernel is to pass, of module/ and, once, of the harness itself."""
    return tuple(config.SUITES) if each.default else ("contract", "module")


def for_github(jobs: Sequence[Job]) -> str:
    """For $GITHUB_OUTPUT: a line for each stage, its list of jobs in JSON."""
    return "\n".join(
        f"{stage}={json.dumps([asdict(job) for job in jobs if job.stage == stage])}"
        for stage in STAGES
    )


def for_gitlab(jobs: Sequence[Job], event: str) -> str:
    """A child pipeline, whose jobs are those of .gitlab-ci.yml (JSON is YAML as well)."""
    child: dict[str, object] = {"include": [{"local": ".gitlab-ci.yml"}]}
    for job in jobs:
        child[f"kernel {job.kernel}"] = {
            "extends": ".kernel",
            "stage": job.stage,
            "variables": {
                "KERNEL": job.kernel, "VERSION": job.version, "SUITE": job.suite,
                "FILTER": job.filter, "UPDATE": "yes" if job.update else "",
            },
        }  # fmt: skip
    plan_of_parent = {"pipeline": "$PARENT_PIPELINE_ID", "job": "plan"}
    child["said"] = {
        "extends": f".said-{event}",
        # The listing is the parent's; what is needed is waited for, and nothing else.
        "needs": [plan_of_parent, *({"job": f"kernel {job.kernel}"} for job in jobs)],
    }
    if event == "nightly":
        child["published"] = {"extends": ".published-nightly", "needs": [{"job": "said"}]}
    return json.dumps(child, indent=2)


def for_people(jobs: Sequence[Job]) -> str:
    """A row for each job, and the commands that it amounts to."""
    rows = [["kernel", "version", "stage", "suite", "also"]]
    rows += [[job.kernel, job.version or "-", job.stage, job.suite, job.filter or "-"]
             for job in jobs]  # fmt: skip
    return table.columns_of(rows) if jobs else "nothing is to be tested"


# -- what came of it (pure) --------------------------------------------------------


def outcome(each: Entry, results: Iterable[KernelResult]) -> Outcome:
    """What the results say of the exact kernel that the archive has now.

    ``results`` are the whole one and that of a part. Only a whole one makes a kernel green,
    either makes it red; one of another version says nothing.
    """
    assert each.newest is not None
    release, version = each.newest.release, each.newest.version
    of_it = [
        result for result in results
        if result.version == version and not result.left_out
        and result.status != HostError.exit_status  # says nothing of the kernel
    ]  # fmt: skip
    red = [result for result in of_it if not result.green]
    if red:
        return Outcome(each, red[0], "red")
    if of_it and of_it[0].tests and set(_suites(each)) <= set(of_it[0].cells):
        return Outcome(each, of_it[0], "green")
    nothing = left_out(each.name, release, version, "no result of this kernel was found")
    return Outcome(each, nothing, "untested")


def settle(
    kernels: Sequence[Entry],
    whole: Mapping[str, KernelResult],
    parts: Mapping[str, KernelResult],
    logs: Mapping[str, Mapping[str, str]],
    run: str = "",
) -> Settlement:
    """What a night's results amount to.

    A kernel that moved and is green is locked, any other stays as it was. ``logs`` have what
    each red test of a kernel said in full, ``run`` is the address of the engine's page.
    """
    found = []
    for each in kernels:
        if each.moved:
            # A part alone does not stand for the whole.
            results = [whole[each.name]] if each.name in whole else []
            judged = outcome(each, results)
            if each.name in parts:
                part = outcome(each, [parts[each.name]])
                judged = part if part.state == "red" and judged.state != "red" else judged
            found.append(judged)
    green = {each.entry.name for each in found if each.state == "green"}
    lock = {}
    for each in kernels:
        exact = each.newest if each.name in green else each.locked
        if exact is not None:
            lock[each.name] = exact
    moved = [each for each in found if each.state == "green"]
    rows = [each.result for each in found]
    issues = tuple(
        _issue(each, rows, logs.get(each.entry.name, {}), run)
        for each in found if each.state == "red"
    )  # fmt: skip
    unknown = tuple(f"newest of {each.name} is not known: {each.unknown}"
                    for each in kernels if each.moved is None)  # fmt: skip
    absent = tuple(_absent(each) for each in kernels if each.absent)
    return Settlement(tuple(found), lock, _message(moved), issues, unknown, absent)


def _from_to(each: Outcome) -> str:
    before, after = each.entry.locked, each.entry.newest
    assert after is not None
    was = f"{before.release} ({before.version})" if before else "nothing"
    return f"{each.entry.name}: {was} -> {after.release} ({after.version})"


def _message(moved: Sequence[Outcome]) -> str:
    """The commit that moves the lock: what moved, and that it was tested."""
    if not moved:
        return ""
    names = ", ".join(each.entry.name for each in moved)
    subject = f"vm: lock the newest {names}"
    if len(subject) > 72:
        subject = f"vm: lock the newest of {len(moved)} kernels"
    lines = [
        f"{_from_to(each)}\n    {table.tally([each.result])}, {_cells(each.result)}"
        for each in moved
    ]
    return "\n".join([subject, "", "The archive has moved, and these are green:", "", *lines])


def _cells(result: KernelResult) -> str:
    return ", ".join(f"{name} {cell.text}" for name, cell in result.cells.items())


def _issue(each: Outcome, rows: Sequence[KernelResult], logs: Mapping[str, str], run: str) -> Issue:
    """The table, the guilty tests, and what they and the kernel said."""
    newest = each.entry.newest
    assert newest is not None
    title = f"kernel {each.entry.name}: red on {newest.release} ({newest.version})"
    red = [test for test in each.result.tests if test.outcome in ("failed", "error")]
    parts = [
        f"The archive has a new kernel, and the module or the harness is red on it.\n"
        f"`vm/kernels.lock` stays where it was for this one.\n\n`{_from_to(each)}`",
        f"By hand: `invoke kernels --update --kernel {each.entry.name}`, then "
        f"`invoke test-vm --kernel {each.entry.name} --suite contract,module`.",
        *([f"The run: {run}"] if run else []),
        f"## All kernels that moved\n\n{table.markdown(rows)}",
    ]
    for number, test in enumerate(red):
        said = _fenced(logs.get(test.name, test.why))
        part = f"## {table.escaped(test.name)}\n\n{said}"
        if sum(map(len, parts)) + len(part) > ISSUE_CHARACTERS:
            parts.append(f"... and {len(red) - number} more red tests, see the run.")
            break
        parts.append(part)
    return Issue(title, "\n\n".join(parts) + "\n")


def _fenced(text: str) -> str:
    """A log as Markdown takes it: whole, or its end, in a fence longer than any in it."""
    lines = text.strip().splitlines()
    cut = lines[-LOG_LINES:]
    kept = "\n".join(cut)[-LOG_CHARACTERS:]
    more = "" if kept == "\n".join(lines) else "(the end of it)\n\n"
    longest = max((len(run) for run in re.findall(r"`{3,}", kept)), default=2)
    fence = "`" * (longest + 1)
    return f"{more}{fence}\n{kept}\n{fence}"


def summary(results: Sequence[KernelResult]) -> str:
    """A page of Markdown, whose last line is how many tests there were."""
    red = sum(not result.green for result in results)
    missing = sum(result.left_out for result in results)
    kernels = f"{len(results) - red - missing} green, {red} red, {missing} not run"
    return f"## Kernels: {kernels}\n\n{table.markdown(results)}\n\n{table.tally(results)}"


def settled_summary(settlement: Settlement) -> str:
    """A night in Markdown."""
    if not settlement.outcomes:
        said = "No kernel has moved: nothing was to be tested."
        return "\n\n".join([said, *settlement.unknown, *settlement.absent])
    state = {"green": "locked", "red": "stays as it was; an issue says why",
             "untested": "stays as it was: no result of it was found"}  # fmt: skip
    lines = [f"- {table.escaped(_from_to(each))}: {each.state}, {state[each.state]}"
             for each in settlement.outcomes]  # fmt: skip
    page = summary([each.result for each in settlement.outcomes])
    return "\n\n".join(["\n".join(lines), *settlement.unknown, *settlement.absent, page])


# -- the steps ---------------------------------------------------------------------


def show_plan(source: Path | None, event: str, form: str, stage: str | None) -> int:
    """Print the jobs of an event."""
    for option, value, known in (("--on", event, EVENTS), ("--form", form, FORMS),
                                 ("--stage", stage, (*STAGES, None))):  # fmt: skip
        if value not in known:
            names = ", ".join(name for name in known if name)
            raise InputError(f"{option} takes one of {names}, not {value!r}")
    kernels = _kernels(source)
    for each in kernels:
        if event == "nightly" and each.moved is None:
            log.warning("newest of %s is not known, so it is not tested: %s", each.name,
                        each.unknown)  # fmt: skip
        elif each.absent and (event == "nightly" or _left_out(each)):
            log.warning("%s", _absent(each))
    jobs = [job for job in plan(kernels, event) if stage in (None, job.stage)]
    if form == "names":
        print(",".join(job.kernel for job in jobs))
    elif form == "github":
        print(for_github(jobs))
    elif form == "gitlab":
        print(for_gitlab(jobs, event))
    else:
        print(for_people(jobs))
    return 0


def show_summary() -> int:
    """Print what the results say of each kernel of the matrix, in Markdown."""
    rows = []
    for spec in config.load().kernels.values():
        none = left_out(spec.name, spec.release, spec.version, "")
        rows.append(store.last(spec.name) or none)
        if store.cut_off(spec.name):
            why = "a run of all tests was cut off, and a result above is an older one's"
            rows.append(left_out(spec.name, spec.release, spec.version, why))
        part = store.last(spec.name, whole=False)
        if part is not None and not part.green:
            rows.append(part)
    print(summary(rows))
    return 0


def settle_night(source: Path | None) -> int:
    """Move the lock to what is green, and write what is to be said; the exit status."""
    kernels = _kernels(source)
    whole: dict[str, KernelResult] = {}
    parts: dict[str, KernelResult] = {}
    logs = {}
    for each in kernels:
        for kept, is_whole in ((whole, True), (parts, False)):
            if is_whole and store.cut_off(each.name):
                continue  # the last result is an older run's
            result = store.last(each.name, whole=is_whole)
            if result is not None:
                kept[each.name] = result
        logs[each.name] = _logs(each.name)
    settlement = settle(kernels, whole, parts, logs, _page())
    shutil.rmtree(said_folder(), ignore_errors=True)  # what was said of another night
    said_folder().mkdir(parents=True)
    # This may also undo a move of `kernels --update`: that of a kernel that turned out red.
    if config.load_lock(config.KERNELS_LOCK) != settlement.lock:
        files.write(config.KERNELS_LOCK, config.lock_text(settlement.lock), sync=True)
    said = {"message": settlement.message,
            "issues": [asdict(issue) for issue in settlement.issues]}  # fmt: skip
    (said_folder() / "said.json").write_text(json.dumps(said, indent=2) + "\n")
    print(settled_summary(settlement))
    return settlement.status


def _kernels(source: Path | None) -> list[Entry]:
    """The kernels in a file (- is stdin), or as they are now."""
    if source is None:
        matrix = config.load()
        with Cache() as cache:
            rows = kernels.look(matrix.select("all"), cache)
        return entries(kernels.as_json_text(rows, matrix.default))
    try:
        return entries(sys.stdin.read() if str(source) == "-" else source.read_text())
    except OSError as error:
        raise InputError(
            f"cannot read {source}: {error.strerror}",
            hint="./bootstrap kernels --json >kernels.json",
        ) from error


def _logs(name: str) -> dict[str, str]:
    """What the red tests of a kernel's last runs said in full."""
    found: dict[str, str] = {}
    for whole in (True, False):
        try:
            found |= failures(store.junit_of(name, whole=whole).read_text())
        except (OSError, ValueError):
            log.debug("no JUnit file of %s", name)
    return found


def _page() -> str:
    """The address of the run that this is, as the engines tell it."""
    if "GITHUB_RUN_ID" in os.environ:
        parts = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
        server, repository, number = (os.environ.get(part, "") for part in parts)
        return f"{server}/{repository}/actions/runs/{number}"
    return os.environ.get("CI_PIPELINE_URL", "")
