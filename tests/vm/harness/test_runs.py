# SPDX-License-Identifier: GPL-2.0-only
"""Whole runs: what a person gets to see, and that one test's end is not the next one's."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness import config
from harness.host.proc import Deadline
from harness.machines import saved
from harness.report import junit
from harness.report.result import Case
from harness.testing import Lab
from tests.vm.harness.trials import FIXTURE_S, TEST_S

HERE = Path(__file__).parent
SECONDS = 1200.0  # more than any of these runs takes on a debug kernel
# They start runs of pytest, which take longer than one test may.
pytestmark = pytest.mark.timeout(SECONDS)


@dataclass(frozen=True)
class Run:
    """A run of pytest: what it printed, and what each test's element in its JUnit file holds.

    ``failed`` and ``errors`` map names of tests to the text of a failure in the test, and
    in its fixtures, and ``cases`` all tests to what a result says of them. ``results`` is the
    folder that red tests have left something in.
    """

    results: Path
    output: str
    passed: set[str]
    failed: dict[str, str]
    errors: dict[str, str]
    cases: dict[str, Case]


def run(lab: Lab, folder: Path, module: Path, *tests: str, jobs: int = 0) -> Run:
    """Run tests in a process of their own."""
    written = folder / "junit.xml"
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={written}",
        f"--kernel={lab.kernel.name}", f"--module={module}", f"-n{jobs}",
        # Not among the results of the run that this test is one of.
        f"--results={folder / 'results'}", *tests,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=config.PROJECT, capture_output=True, check=False, timeout=SECONDS
    )
    output = (done.stdout + done.stderr).decode()
    assert done.returncode in (0, 1), output
    passed: set[str] = set()
    found: dict[str, dict[str, str]] = {"failure": {}, "error": {}}
    for case in ElementTree.parse(written).iter("testcase"):  # noqa: S314  # pytest wrote it
        name = case.attrib["name"]
        bad = [part for part in case if part.tag in found]
        for part in bad:
            found[part.tag][name] = f"{part.get('message')}\n{part.text}"
        if not bad:
            passed.add(name)
    cases = {case.name.rpartition("::")[2]: case for case in junit.cases_in(written.read_text())}
    return Run(folder / "results", output, passed, found["failure"], found["error"], cases)


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tests of trials.py, all in one run."""
    folder = tmp_path_factory.mktemp("trials")
    return run(lab, folder, HERE / "planted", str(HERE / "trials.py"))


def test_the_next_test_is_clean(trials: Run) -> None:
    """After everything that went wrong before it, a test that does nothing is green."""
    green = {"test_clean", "test_quiet_finalizer", "test_fixture_slow", "test_known_bug"}
    assert trials.passed == green


def test_a_splat_in_a_fixture_explains_its_failure(trials: Run) -> None:
    """The fixture failed: an error, with the kernel's report above the fixture's own words."""
    said = trials.errors["test_fixture_fails"]
    assert "splat: WARNING in planted_warn" in said
    assert "CommandFailed: in the guest, `false` ended with status 1" in said


def test_a_splat_in_a_fixture_makes_its_test_red(trials: Run) -> None:
    """The fixture noticed nothing, and neither did the test: the kernel did."""
    assert "splat: WARNING in planted_warn" in trials.failed["test_fixture_before"]


def test_a_splat_while_a_fixture_ends_is_an_error(trials: Run) -> None:
    """The test was green before its fixture cleaned up; the whole is not."""
    assert "splat: WARNING in planted_warn" in trials.errors["test_fixture_afterwards"]
    assert "test_fixture_afterwards" not in trials.failed


def test_a_skip_hides_no_splat(trials: Run) -> None:
    """A test that skips has to answer for what it has done before."""
    assert "splat: WARNING in planted_warn" in trials.failed["test_skips"]


def test_a_splat_in_a_finalizer_is_an_error(trials: Run) -> None:
    """Also in one that the test has added itself, which ends before its fixtures do."""
    assert "splat: WARNING in planted_warn" in trials.errors["test_finalizer"]
    assert "test_finalizer" not in trials.failed


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("test_known_bug_warns", "splat: WARNING in planted_warn"),
        ("test_known_bug_panics", "panic: kernel panic: planted"),
    ],
)
def test_xfail_excuses_no_report_of_the_kernels(trials: Run, name: str, said: str) -> None:
    """It excuses what the test asserts; an expected report is what expect_splat is for."""
    assert said in trials.failed[name]


def test_a_test_without_end_is_ended(trials: Run) -> None:
    """An endless loop in Python fails its test, and only that."""
    assert "Timeout (>3.0s)" in trials.failed["test_endless"]


def test_a_command_without_end_says_where_it_is(trials: Run) -> None:
    """The verdict names the module's function and its line."""
    assert "hung: the guest is well, but" in trials.failed["test_stuck"]
    line = 1 + next(
        number
        for number, text in enumerate((HERE / "planted/planted.c").read_text().splitlines())
        if "ssleep(1000)" in text
    )
    assert f"in planted_sleep at planted.c:{line}" in trials.failed["test_stuck"]
    assert f"planted.c:{line})" in trials.failed["test_stuck"]
    (excerpt,) = trials.cases["test_stuck"].excerpts
    assert (excerpt.file, excerpt.line) == ("planted.c", line)
    assert "ssleep(1000)" in excerpt.lines[line - excerpt.first]


def test_what_is_said_of_a_fixture_has_its_source_too(trials: Run) -> None:
    """Be it while it begins or while it ends; a test that is red by itself has none."""
    for name in ("test_fixture_before", "test_fixture_afterwards", "test_finalizer"):
        assert any("WARN_ON" in line for line in trials.cases[name].excerpts[0].lines)
    assert trials.cases["test_endless"].excerpts == ()


def test_it_is_known_when_and_where_a_test_has_run(trials: Run) -> None:
    """By the host's clock; its fixtures' time is told apart from its own."""
    slow, clean = trials.cases["test_fixture_slow"], trials.cases["test_clean"]
    assert {case.file.rpartition("/")[2] for case in trials.cases.values()} == {"trials.py"}
    assert {case.job for case in trials.cases.values()} == {""}
    assert clean.began
    # Numbers are written in milliseconds.
    assert slow.setup_s >= FIXTURE_S - 0.002
    assert slow.seconds - slow.setup_s >= TEST_S - 0.002
    ends = sorted((case.began, case.began + case.seconds) for case in trials.cases.values())
    # One job runs them one after the other. The clock that says when may be set meanwhile.
    assert all(first[1] <= second[0] + 1 for first, second in pairwise(ends))


def test_control_characters_are_harmless_everywhere(trials: Run) -> None:
    """Neither the terminal, nor the JUnit file, nor the console's copy has one as it was."""
    assert "splat: WARNING in planted_escapes" in trials.failed["test_escapes"]
    assert "\\x1b[2J" in trials.failed["test_escapes"]
    assert set(trials.output) & set("\033\007\b\177") == set()
    (console,) = trials.results.glob("*trials.py-test_escapes/console.log")
    text = console.read_text()
    assert "bell" in text
    assert all(char.isprintable() or char in "\n\t" for char in text)


def test_a_fixture_can_clean_up_after_a_red_test(trials: Run) -> None:
    """The machine was stopped to be saved, and goes on then."""
    assert "ended with status 1" in trials.failed["test_cleaned_up"]
    assert "test_cleaned_up" not in trials.errors


def test_what_was_not_run_is_said(trials: Run) -> None:
    """A test for another kernel is not silently skipped."""
    for lack in ("with CONFIG_OF_NO_KERNEL", "without CONFIG_MODULES"):
        assert f"not run: 1 test(s) for a kernel {lack}" in trials.output
    assert "2 deselected" in trials.output


# -- loading -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("warn", "splat: WARNING in planted_warn"),
        ("warn_late", "splat: WARNING in planted_late"),
        ("oops", "in planted_oops"),
        ("panic", "panic: kernel panic: planted"),
    ],
)
def test_a_module_that_upsets_the_kernel_while_loading(
    lab: Lab, tmp_path: Path, word: str, said: str
) -> None:
    """Each test that wants it loaded is told why it is not, by the kernel, and where to look."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "Kbuild").write_text(f"obj-m += planted_at_{word}.o\n")
    text = (HERE / "planted/planted.c").read_text()
    assert text.count('at_init = ""') == 1
    text = text.replace('at_init = ""', f'at_init = "{word}"')
    (broken / f"planted_at_{word}.c").write_text(text)
    trial = tmp_path / "test_two.py"
    trial.write_text(
        "def test_one(loaded):\n    pass\n\ndef test_two(loaded):\n    pass\n"
        "\ndef test_three(guest):\n    pass\n"
    )
    found = run(lab, tmp_path, broken, str(trial))
    assert (found.passed, found.failed) == ({"test_three"}, {})
    mine = found.results.resolve()
    for error in (found.errors["test_one"], found.errors["test_two"]):
        assert said in error
        assert f"planted_at_{word}.c:" in error
    (name,) = set(re.findall(r"^console: (\S+)$", found.output, re.MULTILINE))
    console = config.PROJECT / name
    assert console.resolve().is_relative_to(mine)
    assert "planted" in console.read_text()
    shown = set(re.findall(r"^to stand in this machine: .*--resume (\S+)", found.output, re.M))
    if word == "warn_late" and not shown:
        return  # it was found when the machine was a template already; a busy host finds it before
    (folder,) = (config.PROJECT / name for name in shown)
    assert folder == console.parent
    with saved.reopened(saved.load(folder), tmp_path, stopped=True) as again:
        assert again.machine.registers(Deadline(SECONDS))


@pytest.mark.parametrize(
    ("line", "green"),
    [
        ('MODULE_INFO(staging, "Y");', True),
        ('MODULE_INFO(test, "Y");', True),
        ("", True),
        # It taints the kernel as one of the staging tree does, and does not say so.
        ("static int __init early(void) { add_taint(TAINT_CRAP, LOCKDEP_STILL_OK); return init(); }"
         "\nmodule_init(early);", False),
    ],
    ids=["staging", "test", "plain", "undeclared"],
)  # fmt: skip
def test_what_any_module_says_of_itself_may_taint(
    lab: Lab, tmp_path: Path, line: str, green: bool
) -> None:
    """The suite for any module goes by its modinfo: it has no marker of the module's author."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "Kbuild").write_text("obj-m := tainting.o\n")
    own = line if "module_init" in line else f"{line}\nmodule_init(init);"
    (source / "tainting.c").write_text(
        "#include <linux/init.h>\n#include <linux/kernel.h>\n#include <linux/module.h>\n"
        "static int __init init(void) { return 0; }\n"
        f"{own}\n"
        "static void __exit leave(void) { }\nmodule_exit(leave);\n"
        'MODULE_DESCRIPTION("Taints");\nMODULE_LICENSE("GPL");\n'
    )
    test = "test_loads_and_unloads"
    seen = run(lab, tmp_path, source, f"tests/vm/any/test_life.py::{test}")
    assert seen.passed == ({test} if green else set())
    if not green:
        assert "became tainted (C)" in "".join([*seen.failed.values(), *seen.errors.values()])
