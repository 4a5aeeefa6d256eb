# SPDX-License-Identifier: GPL-2.0-only
""".ci/test-module, and the two that call it: what the CI of another repository runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from harness import config

ACTION = config.PROJECT / ".github" / "actions" / "test-module" / "action.yml"
COMPONENT = config.PROJECT / "templates" / "test-module.yml"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the script of a checkout in which bootstrap and Python only say what they were told.

    The judge ends with the status ``judged``, pytest with ``tested``.
    """
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    (ours / ".ci").mkdir(parents=True)
    (ours / ".venv" / "bin").mkdir(parents=True)
    (theirs / "module").mkdir(parents=True)
    shutil.copy(config.PROJECT / ".ci" / "test-module", ours / ".ci")
    card = "mkdir -p results/judge && echo '# Cards' >results/judge/cards.md"
    for name, said in (
        ("bootstrap", f"{card}; exit $JUDGED"),
        (".venv/bin/python", "exit $TESTED"),
    ):
        (ours / name).write_text(f'#!/bin/sh\necho "{name} $*"\n{said}\n')
        (ours / name).chmod(0o755)

    def run(*words: str, judged: int = 0, tested: int = 0) -> subprocess.CompletedProcess[str]:
        more = {"JUDGED": str(judged), "TESTED": str(tested),
                "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}  # fmt: skip
        return subprocess.run(
            [ours / ".ci" / "test-module", *words], cwd=theirs, env=os.environ | more, check=False,
            capture_output=True, text=True,
        )  # fmt: skip

    return run


def test_a_module_is_judged_and_its_tests_are_run(run: Run, tmp_path: Path) -> None:
    """On each kernel; the card is left in its repository, and on the page of the run."""
    done = run("module", "trixie,debug", "tests")
    theirs = tmp_path / "theirs"
    assert done.stdout.splitlines() == [
        f"bootstrap judge {theirs}/module --kernel trixie,debug",
        f".venv/bin/python -m pytest tests --module {theirs}/module --kernel trixie",
        f".venv/bin/python -m pytest tests --module {theirs}/module --kernel debug",
    ]
    assert done.returncode == 0
    assert (theirs / "cards.md").read_text() == "# Cards\n"
    assert (tmp_path / "summary").read_text() == "# Cards\n"


@pytest.mark.parametrize(
    ("judged", "tested", "status"), [(1, 0, 1), (0, 1, 1), (3, 1, 3), (0, 70, 1), (2, 0, 2)]
)
def test_what_is_red_stays_red(run: Run, judged: int, tested: int, status: int) -> None:
    """Whichever of both it is; the other is run all the same."""
    done = run("module", "trixie", "tests", judged=judged, tested=tested)
    assert done.returncode == status
    assert "pytest" in done.stdout


def test_without_tests_of_its_own_only_the_judge_is_asked(run: Run) -> None:
    """The last word may be empty or missing."""
    for words in (["module", "trixie", ""], ["module", "trixie"]):
        assert len(run(*words).stdout.splitlines()) == 1


def test_a_folder_that_is_not_there_is_bad_input(run: Run) -> None:
    """Before anything is downloaded."""
    done = run("nowhere", "trixie")
    assert (done.returncode, done.stdout) == (2, "")


def test_the_action_and_the_component_have_the_same_inputs() -> None:
    """And hand them to the script as variables, so that none of them is taken for shell code."""
    yaml = YAML(typ="safe", pure=True)
    action = yaml.load(ACTION)
    head, job = yaml.load_all(COMPONENT.read_text())
    own = {"harness", "ref", "stage"}
    assert set(action["inputs"]) == set(head["spec"]["inputs"]) - own
    call = '.ci/test-module" "$MODULE" "$KERNELS" "$TESTS"'
    assert action["runs"]["steps"][-1]["run"].endswith(call)
    assert job["test-module"]["script"][-1].replace("module ", 'module" ', 1).endswith(call)
    for line in (
        *job["test-module"]["script"],
        *(each.get("run", "") for each in action["runs"]["steps"]),
    ):
        assert "$[[" not in line
        assert "${{" not in line


def test_the_actions_of_the_action_are_pinned() -> None:
    """As those of the workflows are."""
    used = [each["uses"] for each in YAML(typ="safe", pure=True).load(ACTION)["runs"]["steps"]
            if "uses" in each]  # fmt: skip
    assert used
    assert all(len(each.partition("@")[2]) == 40 for each in used)
