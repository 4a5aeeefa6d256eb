# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/pipeline.py: which kernels are tested, what becomes of the lock and issues."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from invoke.collection import Collection

import tasks
from harness import config
from harness.build.archive import Release
from harness.commands import kernels, pipeline, publish
from harness.commands.kernels import Row
from harness.commands.pipeline import Entry
from harness.config import KernelSpec, Locked
from harness.errors import CommandError, InputError
from harness.report.result import Case, Cell, KernelResult, to_json
from harness.runs import store

CLOUD = "cloud-amd64"


def row(name: str, newest: str | None, *, locked: str = "1-1", profile: str = "") -> Row:
    """A kernel whose version in the archive is ``newest``, or is not known."""
    spec = KernelSpec(
        name, "sid", "" if profile else CLOUD, "", profile,
        release=f"r{locked}" if locked else "", version=locked,
    )  # fmt: skip
    release = Release("sid", f"r{newest}", newest) if newest else None
    return Row(spec, release, 0.0, "" if newest else "no mirror answers", 0, None)


def dropped(name: str, *, locked: str = "1-1") -> Row:
    """A kernel of which the archive has none now."""
    return replace(row(name, None, locked=locked), unknown="", absent="Debian sid has no x")


ROWS = [
    row("old", "1-1"),
    row("stable", "1-2"),
    row("next", None),
    row("added", "5-1", locked=""),
    row("debug", "1-1", profile="debug"),
    row("race", "1-2", profile="race"),
]

KNOWN = [row for row in ROWS if row.newest is not None]


def entries(rows: list[Row] | None = None) -> list[Entry]:
    """What `invoke kernels --json` would print, read again."""
    return pipeline.entries(kernels.as_json_text(rows or ROWS, "stable"))


def result(kernel: str, version: str, status: int = 0, **more: object) -> KernelResult:
    """A whole result, of one test for each suite."""
    suites: tuple[str, ...] = ("contract", "module")
    if kernel == "stable":
        suites = ("contract", "any", "module", "harness")
    tests = tuple(
        Case(f"test_x::test_{suite}", suite, "failed" if status else "passed", 1.0,
             "splat: WARNING in f" if status else "")
        for suite in suites
    )  # fmt: skip
    cells = {suite: Cell(bool(status), "1 ok", "why" if status else "") for suite in suites}
    made = KernelResult(kernel, f"r{version}", version, status, 0.0, 1.0, 2.0, cells, tests)
    return replace(made, **more)  # type: ignore[arg-type]


GREEN = {"stable": result("stable", "1-2"), "added": result("added", "5-1"),
         "race": result("race", "1-2")}  # fmt: skip


def settle(
    whole: Mapping[str, KernelResult],
    parts: Mapping[str, KernelResult] | None = None,
    logs: Mapping[str, Mapping[str, str]] | None = None,
    rows: list[Row] | None = None,
) -> pipeline.Settlement:
    return pipeline.settle(entries(rows), whole, parts or {}, logs or {}, "https://ci/1")


# -- what is run -------------------------------------------------------------------


def test_at_night_a_kernel_that_moved_is_tested_and_no_other() -> None:
    """Also one that was never locked; one that is not known to have moved is not."""
    jobs = pipeline.plan(entries(), "nightly")
    assert [(job.kernel, job.version) for job in jobs] == [
        ("stable", "1-2"), ("added", "5-1"), ("race", "1-2"),
    ]  # fmt: skip
    assert {(job.stage, job.update) for job in jobs} == {("first", True)}


def test_nothing_that_moved_is_nothing_to_test() -> None:
    """The engines start no job for an empty list."""
    jobs = pipeline.plan(entries([row("old", "1-1"), row("next", None)]), "nightly")
    assert jobs == []
    assert pipeline.for_github(jobs) == "first=[]\nrest=[]"
    assert pipeline.for_people(jobs) == "nothing is to be tested"


def test_on_a_push_every_locked_kernel_is_tested_the_default_and_debug_first() -> None:
    """At what the lock says, whatever the archive has by now; one without a lock at the newest."""
    jobs = pipeline.plan(entries(), "push")
    assert {job.kernel: (job.version, job.stage) for job in jobs} == {
        "old": ("1-1", "rest"),
        "stable": ("1-1", "first"),
        "next": ("1-1", "rest"),
        "added": ("5-1", "rest"),
        "debug": ("1-1", "first"),
        "race": ("1-1", "rest"),
    }
    assert not any(job.update for job in jobs)


def test_the_harness_tests_itself_once_and_what_needs_a_debug_kernel_there() -> None:
    """All its tests on every kernel would say little and take long."""
    jobs = {job.kernel: job for job in pipeline.plan(entries(), "push")}
    assert jobs["stable"].suite == "contract,any,module,harness"
    assert jobs["old"].suite == jobs["debug"].suite == "contract,module"
    assert {name for name, job in jobs.items() if job.filter == "needs"} == {"debug", "race"}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "[1]", '[{"name": "x"}]', "null", '{"name": "x"}']
)
def test_what_is_no_listing_is_refused(text: str) -> None:
    """An empty file of a step that failed must not become a night without kernels."""
    with pytest.raises(InputError, match="not what `invoke kernels --json` prints"):
        pipeline.entries(text)


def test_github_gets_a_line_for_each_stage() -> None:
    """As $GITHUB_OUTPUT takes them, with what kernels.yml uses of a job."""
    lines = pipeline.for_github(pipeline.plan(entries(), "push")).splitlines()
    found = {}
    for line in lines:
        name, _, value = line.partition("=")
        found[name] = json.loads(value)
    assert [job["kernel"] for job in found["first"]] == ["stable", "debug"]
    assert [job["kernel"] for job in found["rest"]] == ["old", "next", "added", "race"]
    workflow = (config.PROJECT / ".github/workflows/kernels.yml").read_text()
    used = set(re.findall(r"matrix\.(\w+)", workflow))
    assert used <= set(found["first"][0])


@pytest.mark.parametrize("event", pipeline.EVENTS)
def test_gitlab_gets_a_job_for_each_kernel_made_of_what_its_file_has(event: str) -> None:
    """The child's jobs extend, and are in stages, that .gitlab-ci.yml knows."""
    jobs = pipeline.plan(entries(), event)
    child = json.loads(pipeline.for_gitlab(jobs, event))
    file = (config.PROJECT / ".gitlab-ci.yml").read_text()
    assert child.pop("include") == [{"local": ".gitlab-ci.yml"}]
    published = {"published"} if event == "nightly" else set()
    assert set(child) == {*(f"kernel {job.kernel}" for job in jobs), "said", *published}
    (stages,) = re.findall(r"^stages: \[(.*)\]$", file, re.MULTILINE)
    for name, made in child.items():
        assert f"\n{made['extends']}:\n" in file
        if name not in ("said", "published"):
            assert made["stage"] in stages.split(", ")
            assert all(f"${variable}" in file for variable in made["variables"])
    needed = [need["job"] for need in child["said"]["needs"]]
    assert needed == ["plan", *(f"kernel {job.kernel}" for job in jobs)]


def test_every_step_of_the_pipelines_is_a_task() -> None:
    """Nothing in them that a person cannot run by hand."""
    known = set(Collection.from_module(tasks).task_names)
    files = [*(config.PROJECT / ".github/workflows").glob("*.yml")]
    steps = [step for file in files for step in re.findall(r"\brun: (.*)", file.read_text())]
    assert len(steps) > 5
    for step in steps:
        task = re.match(r"\./bootstrap ([a-z-]+)", step)
        # The job that may write has no virtual environment.
        plain = step.startswith(("sudo sysctl -w ", "gh ", "python3 -m harness.commands.publish "))
        assert task is not None or plain, step
        assert task is None or task[1] in known, step
    gitlab = (config.PROJECT / ".gitlab-ci.yml").read_text()
    for text in (gitlab, (config.PROJECT / ".ci/run").read_text()):
        asked = re.findall(r"\./bootstrap ([a-z-]+)", text)
        assert asked
        assert set(asked) <= known


def test_both_engines_keep_the_same_of_the_results() -> None:
    """What is read, and no saved machine or memory dump: one is 100 MB and more."""
    ours = {"results/*/*.json", "results/*/*.xml", "results/*/*/*.log", "results/*/*/*/*.log"}
    gitlab = (config.PROJECT / ".gitlab-ci.yml").read_text()
    (paths,) = [found for found in re.findall(r"^    paths: \[(.*)\]$", gitlab, re.MULTILINE)
                if "results/*" in found]  # fmt: skip
    assert set(paths.split(", ")) == ours
    github = (config.PROJECT / ".github/workflows/kernels.yml").read_text()
    assert set(re.findall(r"^ +(results/\S+)$", github, re.MULTILINE)) == ours


@pytest.mark.parametrize("name", ["push.yml", "kernels.yml"])
def test_a_cache_on_github_is_saved_whenever_the_recipes_change(name: str) -> None:
    """Also of a red job; a key that had nothing of the recipes was saved once and for all."""
    text = (config.PROJECT / ".github/workflows" / name).read_text()
    assert not re.search(r"actions/cache@", text)
    steps = re.split(r"\n +- ", text)
    (restore,) = [step for step in steps if "actions/cache/restore@" in step]
    (save,) = [step for step in steps if "actions/cache/save@" in step]
    assert re.search(r"\n +key: .*hashFiles\('harness/\*\*', 'vm/\*\*'", restore)
    assert "restore-keys:" in restore
    assert "if: ${{ !cancelled() }}" in save
    # Evaluated when it was restored: later there are other files in harness/.
    assert "key: ${{ steps.cache.outputs.cache-primary-key }}" in save
    for step in (restore, save):
        assert "path: ~/.cache/eudyptula" in step


def test_a_cache_on_gitlab_is_saved_of_red_jobs_too() -> None:
    """A debug kernel that took ten minutes is not built again because a test was red."""
    text = (config.PROJECT / ".gitlab-ci.yml").read_text()
    caches = re.findall(r"^  cache:\n((?:    .*\n)+)", text, re.MULTILINE)
    assert len(caches) == 2
    assert all("    when: always" in cache for cache in caches)


# -- what becomes of the lock ------------------------------------------------------


def test_what_is_green_is_locked_and_the_rest_stays() -> None:
    """The commit says what moved, from where to where, and what was tested."""
    settled = settle(GREEN)
    assert {name: locked.version for name, locked in settled.lock.items()} == {
        "old": "1-1", "stable": "1-2", "next": "1-1", "added": "5-1", "debug": "1-1",
        "race": "1-2",
    }  # fmt: skip
    assert settled.lock["race"] == Locked("sid race", "r1-2", "1-2")
    subject, blank, *body = settled.message.splitlines()
    assert (subject, blank) == ("vm: lock the newest stable, added, race", "")
    assert "stable: r1-1 (1-1) -> r1-2 (1-2)" in body
    assert (
        "    4 passed, 0 failed, 0 skipped, contract 1 ok, any 1 ok, module 1 ok, harness 1 ok"
        in body
    )
    assert "added: nothing -> r5-1 (5-1)" in body
    assert settled.issues == ()


def test_a_red_kernel_stays_locked_where_it_was_and_the_green_ones_move() -> None:
    """One bad kernel does not keep the others back."""
    settled = settle(GREEN | {"stable": result("stable", "1-2", 1)}, rows=KNOWN)
    assert settled.lock["stable"].version == "1-1"
    assert settled.lock["race"].version == "1-2"
    assert "stable" not in settled.message
    assert settled.status == 1
    assert settle(GREEN, rows=KNOWN).status == 0


@pytest.mark.parametrize(
    ("why", "found"),
    [
        ("none", None),
        ("another version", result("stable", "1-1")),
        ("a suite is missing", result("stable", "1-2", cells={"contract": Cell(False, "1 ok")})),
        ("no test", result("stable", "1-2", tests=())),
        ("left out", result("stable", "1-2", left_out=True)),
        ("the host's fault", result("stable", "1-2", 3)),
    ],
)
def test_a_kernel_without_evidence_is_not_locked(why: str, found: KernelResult | None) -> None:
    """And is no news for people either: the next night tests it."""
    whole = {name: each for name, each in GREEN.items() if name != "stable"}
    settled = settle(whole | ({"stable": found} if found else {}), rows=KNOWN)
    assert settled.lock["stable"].version == "1-1"
    (untested,) = [each for each in settled.outcomes if each.state == "untested"]
    assert untested.entry.name == "stable"
    assert settled.issues == ()
    assert settled.status == 1


def test_a_part_makes_a_kernel_red_and_never_green() -> None:
    """What was run of the harness's own tests on race counts, as long as it is of this kernel."""
    red = result("race", "1-2", 1)
    assert settle(GREEN, {"race": red}).lock["race"].version == "1-1"
    (issue,) = settle(GREEN, {"race": red}).issues
    assert issue.title.startswith("kernel race: ")
    older = result("race", "1-1", 1)
    assert settle(GREEN, {"race": older}).lock["race"].version == "1-2"
    alone = {name: each for name, each in GREEN.items() if name != "race"}
    assert settle(alone, {"race": GREEN["race"]}).lock["race"].version == "1-1"


def test_a_quiet_night_commits_and_says_nothing_and_what_is_not_known_is_said() -> None:
    """A mirror that does not answer is not taken for one without news."""
    quiet = settle({}, rows=[row("old", "1-1")])
    assert (quiet.message, quiet.issues, quiet.status) == ("", (), 0)
    assert "No kernel has moved" in pipeline.settled_summary(quiet)
    deaf = settle({}, rows=[row("old", "1-1"), row("next", None)])
    assert deaf.status == 3
    assert "newest of next is not known: no mirror answers" in pipeline.settled_summary(deaf)
    assert deaf.lock["next"].version == "1-1"


@pytest.mark.parametrize("event", pipeline.EVENTS)
def test_what_the_archive_has_none_of_now_is_not_tested(
    event: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A push and a night go without it, and say so; one that was never locked is a mistake."""
    rows = [row("stable", "1-2"), dropped("next"), dropped("new", locked="")]
    source = tmp_path / "kernels.json"
    source.write_text(kernels.as_json_text(rows, "stable"))
    assert pipeline.show_plan(source, event, "names", None) == 0
    planned = {"push": "stable,new\n", "nightly": "stable\n"}
    assert capsys.readouterr().out == planned[event]
    assert "next: Debian sid has no x now, so there is nothing to test" in caplog.text


def test_a_night_without_a_kernel_that_was_dropped_is_green() -> None:
    """Its lock stays, so that the next one that comes is seen to have moved."""
    settled = settle({}, rows=[row("old", "1-1"), dropped("next")])
    assert (settled.status, settled.unknown, settled.issues) == (0, (), ())
    assert settled.lock["next"].version == "1-1"
    said = "next: Debian sid has no x now, so there is nothing to test"
    assert said in pipeline.settled_summary(settled)
    moved = settle(GREEN, rows=[*KNOWN, dropped("next")])
    assert moved.status == 0
    assert said in pipeline.settled_summary(moved)


def test_a_listing_of_before_that_was_known_is_read() -> None:
    """An artifact of an older commit has no word of it."""
    rows = json.loads(kernels.as_json_text(ROWS, "stable"))
    for each in rows:
        del each["absent"]
    assert pipeline.entries(json.dumps(rows)) == entries()


# -- what is said ------------------------------------------------------------------


def test_an_issue_has_the_table_the_guilty_test_and_its_log() -> None:
    """And one title for one fault, so that the next night can see that it is open."""
    log = "splat: WARNING in f\n[    1.5] ------------[ cut here ]------------\n```\n</details>"
    (issue,) = settle(
        GREEN | {"stable": result("stable", "1-2", 1)},
        logs={"stable": {"test_x::test_contract": log}},
    ).issues
    assert issue.title == "kernel stable: red on r1-2 (1-2)"
    assert "| stable | r1-2 |" in issue.body
    assert "| race | r1-2 |" in issue.body
    assert "## test\\_x::test\\_contract" in issue.body
    assert f"````\n{log}\n````" in issue.body
    assert "splat: WARNING in f" in issue.body.partition("test\\_module")[2]
    assert "stable: r1-1 (1-1) -> r1-2 (1-2)" in issue.body
    assert "https://ci/1" in issue.body


def test_an_issue_is_as_long_as_an_issue_may_be() -> None:
    """A log keeps its end, which has the kernel's words; tests that do not fit are counted."""
    tests = tuple(Case(f"t::test_{n}", "module", "failed", 1.0, "x") for n in range(9))
    red = result("stable", "1-2", 1, tests=tests)
    long = {test.name: "\n".join(f"line {n} {'x' * 150}" for n in range(500)) for test in tests}
    (issue,) = settle(GREEN | {"stable": red}, logs={"stable": long}).issues
    assert len(issue.body) < 65536
    assert "line 499 " in issue.body
    assert "line 1 " not in issue.body
    shown = issue.body.count("## t::")
    assert 1 <= shown < 9
    assert f"and {9 - shown} more red tests" in issue.body


def test_a_page_of_a_night_says_what_moved_and_what_came_of_it() -> None:
    """A line for each kernel, then the table."""
    whole = {"stable": result("stable", "1-2", 1), "added": result("added", "5-1")}
    page = pipeline.settled_summary(settle(whole))
    assert "- stable: r1-1 (1-1) -\\> r1-2 (1-2): red, stays" in page
    assert "- added: nothing -\\> r5-1 (5-1): green, locked" in page
    assert "- race: r1-1 (1-1) -\\> r1-2 (1-2): untested, stays" in page
    assert "newest of next is not known" in page
    assert "## Kernels: 1 green, 1 red, 1 not run" in page


def test_a_summary_ends_as_test_runners_do() -> None:
    """So that whoever reads only the last line knows."""
    page = pipeline.summary([result("old", "1-1"), result("stable", "1-1", 1)])
    assert page.startswith("## Kernels: 1 green, 1 red, 0 not run\n")
    assert page.splitlines()[-1] == "2 passed, 4 failed, 0 skipped"


# -- the steps ---------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A project with a lock, results and a listing of its own."""
    (tmp_path / "vm").mkdir()
    lock = tmp_path / "vm" / "kernels.lock"
    source = tmp_path / "kernels.json"
    source.write_text(kernels.as_json_text(ROWS, "stable"))
    monkeypatch.setattr(config, "PROJECT", tmp_path)
    monkeypatch.setattr(config, "KERNELS_LOCK", lock)
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    for name in ("GITHUB_RUN_ID", "CI_PIPELINE_URL"):
        monkeypatch.delenv(name, raising=False)
    # As `kernels --update` left it.
    moved = {row.spec.name: Locked("sid x", "r", "moved") for row in ROWS}
    lock.write_text(config.lock_text(moved))
    return SimpleNamespace(lock=lock, source=source, results=tmp_path / "results")


def keep(found: KernelResult, name: str = "report.json") -> None:
    (store.folder_of(found.kernel) / name).write_text(to_json(found))


JUNIT = """<testsuites><testsuite><testcase classname="tests.vm.module.test_x"
name="test_contract" time="1"><failure message="m">the whole log</failure></testcase>
</testsuite></testsuites>"""


def test_a_night_is_settled_from_files(
    place: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also what `kernels --update` moved and turned out to be red goes back."""
    for found in (GREEN["added"], GREEN["race"], result("stable", "1-2", 1)):
        keep(found)
    keep(result("race", "1-2", 1), "partial.json")
    (place.results / "stable" / "junit.xml").write_text(JUNIT)
    assert pipeline.settle_night(place.source) == 3
    versions = {name: locked.version for name, locked in config.load_lock(place.lock).items()}
    assert versions == {"old": "1-1", "stable": "1-1", "next": "1-1", "added": "5-1",
                        "debug": "1-1", "race": "1-1"}  # fmt: skip
    said = json.loads((place.results / "pipeline" / "said.json").read_text())
    assert said["message"].startswith("vm: lock the newest added\n")
    assert [issue["title"][:13] for issue in said["issues"]] == ["kernel stable", "kernel race: "]
    assert "the whole log" in said["issues"][0]["body"]
    assert "1 green, 2 red" in capsys.readouterr().out


TOOL = """#!/bin/sh
printf '%s|' "$(basename "$0")" "$@" >>"$HERE/calls"
echo >>"$HERE/calls"
case "$*" in *" list "*) cat "$HERE/open" ;; esac
while [ $# -gt 0 ]; do
    if [ "$1" = --body-file ]; then cat "$2" >>"$HERE/bodies"; fi
    shift
done
[ "$(basename "$0")" != "$(cat "$HERE/fails" 2>/dev/null)" ]
"""


@pytest.fixture
def calls(place: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for git, gh and glab that write down how they were called."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("git", "gh", "glab"):
        (bin_ / name).write_text(TOOL)
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_), prepend=":")
    monkeypatch.setenv("HERE", str(tmp_path))
    (tmp_path / "open").write_text("[]")
    (tmp_path / "calls").touch()
    return tmp_path / "calls"


def say(place: SimpleNamespace, message: str, *titles: str) -> None:
    (place.results / "pipeline").mkdir(parents=True, exist_ok=True)
    issues = [{"title": title, "body": f"body of {title}"} for title in titles]
    said = json.dumps({"message": message, "issues": issues})
    (place.results / "pipeline" / "said.json").write_text(said)


def test_a_green_night_is_committed_and_pushed(place: SimpleNamespace, calls: Path) -> None:
    """The lock and nothing else, on top of what others pushed meanwhile."""
    say(place, "vm: lock x")
    assert publish.publish("gh") == 0
    assert [line.split("|")[:2] for line in calls.read_text().splitlines()] == [
        ["git", "commit"], ["git", "pull"], ["git", "push"],
    ]  # fmt: skip
    assert "|vm: lock x|--|vm/kernels.lock|" in calls.read_text()


def test_a_red_night_opens_an_issue_once(
    place: SimpleNamespace, calls: Path, tmp_path: Path
) -> None:
    """One that is open already is not opened again each night; no lock, no commit."""
    say(place, "", "kernel a: red", "kernel b: red")
    (tmp_path / "open").write_text(json.dumps([{"title": "kernel a: red"}, {"title": "other"}]))
    assert publish.publish("gh") == 0
    created = [line for line in calls.read_text().splitlines() if "|create|" in line]
    assert len(created) == 1
    assert "gh|issue|create|--title|kernel b: red|--body-file|" in created[0]
    assert (tmp_path / "bodies").read_text() == "body of kernel b: red"
    assert "git|" not in calls.read_text()


def test_gitlab_has_a_program_of_its_own(place: SimpleNamespace, calls: Path) -> None:
    """Which takes an issue's text as an argument."""
    say(place, "", "kernel a: red")
    assert publish.publish("glab") == 0
    assert "|--title|kernel a: red|--description|body of kernel a: red|" in calls.read_text()
    with pytest.raises(InputError, match="gh, glab"):
        publish.publish("hub")


def test_an_issue_that_cannot_be_opened_is_not_passed_over(
    place: SimpleNamespace, calls: Path, tmp_path: Path
) -> None:
    """The job is red then, as a night that nobody heard of must be; what is green is locked."""
    say(place, "vm: lock x", "kernel a: red")
    (tmp_path / "fails").write_text("gh")
    with pytest.raises(CommandError):
        publish.publish("gh")
    assert "git|push" in calls.read_text()


def test_what_another_job_has_settled_is_published(
    place: SimpleNamespace, calls: Path, tmp_path: Path
) -> None:
    """Two files of its folder are taken; whatever else it may have put there is not."""
    settled = tmp_path / "night"
    say(SimpleNamespace(results=settled / "results"), "vm: lock x")
    (settled / "vm").mkdir()
    text = config.lock_text({"x": Locked("sid x", "r", "1-2")})
    (settled / "vm" / "kernels.lock").write_text(text)
    (settled / "vm" / "init").write_text("echo mine")
    publish.take(settled)
    assert publish.publish("gh") == 0
    assert place.lock.read_text() == text
    assert not (place.lock.parent / "init").exists()
    assert "git|push" in calls.read_text()


@pytest.mark.parametrize("text", ["no lock", None])
def test_what_is_no_lock_is_not_published(
    place: SimpleNamespace, calls: Path, tmp_path: Path, text: str | None
) -> None:
    """Neither other words, nor a link to a file of the host."""
    settled = tmp_path / "night"
    say(SimpleNamespace(results=settled / "results"), "vm: lock x")
    (settled / "vm").mkdir()
    if text is None:
        (settled / "vm" / "kernels.lock").symlink_to(place.lock)
    else:
        (settled / "vm" / "kernels.lock").write_text(text)
    with pytest.raises(InputError):
        publish.take(settled)
    assert calls.read_text() == ""


def test_nothing_is_published_that_was_not_settled(place: SimpleNamespace, calls: Path) -> None:
    """A step that was forgotten is told."""
    with pytest.raises(InputError, match="nothing to publish"):
        publish.publish("gh")
    assert calls.read_text() == ""


def test_a_plan_is_printed_as_asked(
    place: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are what --kernel takes; a word that is not known is refused."""
    assert pipeline.show_plan(place.source, "push", "names", "rest") == 0
    assert capsys.readouterr().out == "old,next,added,race\n"
    for event, form, stage in (("noon", "text", None), ("push", "yaml", None),
                               ("push", "text", "last")):  # fmt: skip
        with pytest.raises(InputError, match="takes one of"):
            pipeline.show_plan(place.source, event, form, stage)
    with pytest.raises(InputError, match="cannot read"):
        pipeline.show_plan(place.source.with_suffix(".gone"), "push", "text", None)


def test_the_summary_has_every_kernel_of_the_matrix(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One without a result is there as not run, a red part as a row of its own."""
    specs = {row.spec.name: row.spec for row in ROWS}
    monkeypatch.setattr(config, "load", lambda: SimpleNamespace(kernels=specs))
    keep(result("old", "1-1"))
    keep(result("debug", "1-1"))
    keep(result("debug", "1-1", 1), "partial.json")
    assert pipeline.show_summary() == 0
    out = capsys.readouterr().out
    assert "## Kernels: 2 green, 1 red, 4 not run" in out
    assert "| race | r1-1 | not run |" in out
    assert out.splitlines()[-1] == "4 passed, 2 failed, 4 skipped"
