# SPDX-License-Identifier: GPL-2.0-only
""".ci/test-module, and the two that call it: what the CI of another repository runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from harness import config
from harness.host.files import is_tagged

ACTION = config.PROJECT / ".github" / "actions" / "test-module" / "action.yml"
COMPONENT = config.PROJECT / "templates" / "test-module.yml"
Run = Callable[..., subprocess.CompletedProcess[str]]
# A run on the kernel that is the seventh word, in a repository whose ini file is in module/.
PYTEST = """
echo "E   no module"
[ $PAGED = True ] || exit $TESTED
cp cards.md module/cards-before-$7
mkdir -p module/results/$7/run/test_x
echo "| $7 | 1 of 2 red |" >module/results/summary.md
echo "page of $7" >module/results/index.html
for name in console.log machine.state memory.kdump; do
	echo "$7" >module/results/$7/run/test_x/$name
done
ln -s run module/results/$7/latest
[ $TESTED = 0 ] || echo "FAILED test_h.py::test_x[<b>] - assert 1 == 2"
echo "the page of results: module/results/index.html"
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the script of a checkout in which bootstrap and Python only say what they were told.

    The judge ends with the status ``judged``, pytest with ``tested``. A judge that is not told
    ``carded=False`` leaves its cards. A pytest that is not told ``paged=False`` leaves a page and
    what a red test leaves, as harness/plugin/page.py does.
    """
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    (ours / ".ci").mkdir(parents=True)
    (ours / ".venv" / "bin").mkdir(parents=True)
    (theirs / "module").mkdir(parents=True)
    shutil.copy(config.PROJECT / ".ci" / "test-module", ours / ".ci")
    card = (
        'cd "$(dirname "$0")" && [ $CARDED = False ] ||'
        " { mkdir -p results/judge && echo '# Cards' >results/judge/cards.md; }"
    )
    for name, said in (
        ("bootstrap", f"{card}; exit $JUDGED"),
        (".venv/bin/python", f"{PYTEST}\nexit $TESTED"),
    ):
        (ours / name).write_text(f'#!/bin/sh\necho "{name} $*"\n{said}\n')
        (ours / name).chmod(0o755)

    def run(
        *words: str, judged: int = 0, tested: int = 0, carded: bool = True, paged: bool = True
    ) -> subprocess.CompletedProcess[str]:
        more = {"JUDGED": str(judged), "TESTED": str(tested),
                "CARDED": str(carded), "PAGED": str(paged),
                "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
                "GITHUB_OUTPUT": str(tmp_path / "output")}  # fmt: skip
        return subprocess.run(
            [ours / ".ci" / "test-module", *words], cwd=theirs, env=os.environ | more, check=False,
            capture_output=True, text=True,
        )  # fmt: skip

    return run


def test_a_module_is_judged_and_its_tests_are_run(run: Run, tmp_path: Path) -> None:
    """On each kernel; the card is left in its repository, and on the page of the run."""
    done = run("module", "trixie,debug", "tests")
    theirs = tmp_path / "theirs"
    commands = [line for line in done.stdout.splitlines() if line.startswith(("boot", ".venv"))]
    assert commands == [
        f"bootstrap judge {theirs}/module --kernel trixie,debug",
        f".venv/bin/python -m pytest tests --module {theirs}/module --kernel trixie --color=no",
        f".venv/bin/python -m pytest tests --module {theirs}/module --kernel debug --color=no",
    ]
    assert done.returncode == 0
    assert (theirs / "cards.md").read_text() == (
        "# green\n\n| what | kernel | outcome |\n|---|---|---|\n"
        "| the card | trixie,debug | green |\n"
        "| the module's own tests | trixie | green |\n"
        "| the module's own tests | debug | green |\n"
        "\n# Cards\n"
        "\n# The module's own tests on trixie: green\n\n| trixie | 1 of 2 red |\n"
        "\n# The module's own tests on debug: green\n\n| debug | 1 of 2 red |\n"
    )
    assert (tmp_path / "summary").read_text() == (theirs / "cards.md").read_text()


def test_what_is_red_comes_first(run: Run, tmp_path: Path) -> None:
    """A reader of the cards sees it in the first lines, whatever is green below them."""
    run("module", "trixie,debug", "tests", judged=1, tested=1)
    assert (tmp_path / "theirs" / "cards.md").read_text().splitlines()[:7] == [
        "# red: the card on trixie,debug, the module's own tests on trixie, "
        "the module's own tests on debug",
        "",
        "| what | kernel | outcome |",
        "|---|---|---|",
        "| the card | trixie,debug | red (the judge ended with status 1) |",
        "| the module's own tests | trixie | red (pytest ended with status 1) |",
        "| the module's own tests | debug | red (pytest ended with status 1) |",
    ]


def test_what_was_not_judged_to_its_end_is_not_called_red(run: Run, tmp_path: Path) -> None:
    """An interrupted judge, or a host that lacks something, says nothing of the module."""
    done = run("module", "trixie", "tests", judged=130, tested=1)
    said = "red: the module's own tests on trixie, and no verdict: the card on trixie"
    assert (done.returncode, said in done.stdout.splitlines()) == (130, True)
    lines = (tmp_path / "theirs" / "cards.md").read_text().splitlines()
    assert lines[0] == f"# {said}"
    assert "| the card | trixie | no verdict (the judge ended with status 130) |" in lines
    before = (tmp_path / "theirs" / "module" / "cards-before-trixie").read_text()
    assert before.startswith("# not finished, and no verdict: the card on trixie\n")


def test_a_job_that_is_ended_early_has_its_cards(run: Run, tmp_path: Path) -> None:
    """They say what is known while the tests run, and claim nothing of what has not ended."""
    run("module", "trixie,debug", "tests", tested=1)
    module = tmp_path / "theirs" / "module"
    first = (module / "cards-before-trixie").read_text()
    assert first.startswith("# not finished\n")
    assert first.endswith("| the card | trixie,debug | green |\n\n# Cards\n")
    second = (module / "cards-before-debug").read_text()
    assert second.startswith("# not finished, and red: the module's own tests on trixie\n")


def test_at_its_end_it_says_what_is_red_and_what_it_made(run: Run, tmp_path: Path) -> None:
    """Each by a path that is there, from the folder that it was started in."""
    done = run("module", "trixie,debug", "tests", tested=1)
    theirs = tmp_path / "theirs"
    (kept,) = theirs.glob("module-results.*")
    *_, before, verdict, heading, cards, trixie, debug, every = done.stdout.splitlines()
    assert before == ""
    assert verdict == ("red: the module's own tests on trixie, the module's own tests on debug")
    assert heading == "made in this folder:"
    assert every == f"  {kept.name} (all results)"
    paths = [line.removeprefix("  ") for line in (cards, trixie, debug)]
    assert paths == ["cards.md", f"{kept.name}/own/trixie.html", f"{kept.name}/own/debug.html"]
    assert all((theirs / path).is_file() for path in paths)
    assert f"The page of results is {paths[1]}, and" in (theirs / "cards.md").read_text()


def test_no_page_is_named_that_was_not_made(run: Run, tmp_path: Path) -> None:
    """Neither on the terminal nor in the cards; what is green is said too."""
    done = run("module", "trixie", "tests", tested=2, paged=False)
    assert ".html" not in done.stdout + (tmp_path / "theirs" / "cards.md").read_text()
    assert "\n\ngreen\nmade in this folder:\n  cards.md\n" in run("module", "trixie").stdout


def test_git_sees_nothing_of_what_is_made(run: Run, tmp_path: Path) -> None:
    """With the .gitignore of the example."""
    theirs = tmp_path / "theirs"
    git = ["git", "-C", str(theirs)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    shutil.copy(config.PROJECT / "docs" / "example" / ".gitignore", theirs)
    run("module", "trixie")
    status = [*git, "status", "--porcelain", "--untracked-files=all"]
    seen = subprocess.run(status, check=True, capture_output=True, text=True).stdout
    assert seen == "?? .gitignore\n"


def test_the_cards_say_what_is_red_in_its_own_tests(run: Run, tmp_path: Path) -> None:
    """Each red test, as pytest's last lines name it: the table names the first one only."""
    run("module", "trixie", "tests", tested=1)
    said = (tmp_path / "summary").read_text()
    assert "# The module's own tests on trixie: red (pytest ended with status 1)\n" in said
    assert "\n    FAILED test_h.py::test_x[<b>] - assert 1 == 2\n" in said
    assert "no module" not in said
    assert said == (tmp_path / "theirs" / "cards.md").read_text()


def test_the_cards_say_why_its_own_tests_have_not_run(run: Run, tmp_path: Path) -> None:
    """Then there is no page, and the end of what pytest said is all that is known."""
    done = run("module", "trixie", "tests", tested=2, paged=False)
    said = (tmp_path / "summary").read_text()
    assert "# The module's own tests on trixie: no verdict (pytest ended with status 2)\n" in said
    assert "\n    E   no module\n" in said
    assert done.stderr == ""


def test_cards_of_before_are_not_taken_for_those_of_now(run: Run, tmp_path: Path) -> None:
    """The script may be run twice in a folder; what it leaves has a new name each time."""
    for _ in range(2):
        run("module", "trixie")
    assert (tmp_path / "theirs" / "cards.md").read_text().count("# Cards\n") == 1
    assert (tmp_path / "summary").read_text().count("# Cards\n") == 1
    assert len(list((tmp_path / "theirs").glob("module-results.*"))) == 2


def test_cards_of_another_module_are_not_taken_for_its_own(run: Run, tmp_path: Path) -> None:
    """The judge may end before it has any, as where there is no such kernel."""
    run("module", "trixie")
    run("module", "nothing", judged=2, carded=False)
    said = (tmp_path / "theirs" / "cards.md").read_text()
    assert said.startswith("# no verdict: the card on nothing\n")
    assert "# Cards" not in said


def test_results_are_kept_without_machines_and_memory(run: Run, tmp_path: Path) -> None:
    """Those of the judge and of the own tests, each kernel's page; also where one is red."""
    run("module", "trixie,debug", "tests", tested=1)
    told = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    kept = Path(told["kept"])
    assert kept.parent == tmp_path / "theirs"
    assert told["name"] == kept.name
    assert is_tagged(kept)
    found = {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}
    assert found == {
        ".gitignore", "CACHEDIR.TAG", "judge/cards.md",
        "own/debug.html", "own/summary.md", "own/trixie.html",
        "own/debug/run/test_x/console.log", "own/trixie/run/test_x/console.log",
        "pytest-debug.log", "pytest-trixie.log",
    }  # fmt: skip
    assert (kept / "own" / "trixie.html").read_text() == "page of trixie\n"


@pytest.mark.parametrize(
    ("judged", "tested", "status"), [(1, 0, 1), (0, 1, 1), (3, 1, 3), (0, 70, 1), (2, 0, 2)]
)
def test_what_is_red_stays_red(run: Run, judged: int, tested: int, status: int) -> None:
    """Whichever of both it is; the other is run all the same."""
    done = run("module", "trixie", "tests", judged=judged, tested=tested)
    assert done.returncode == status
    assert "-m pytest" in done.stdout


def test_without_tests_of_its_own_only_the_judge_is_asked(run: Run) -> None:
    """The last word may be empty or missing."""
    for words in (["module", "trixie", ""], ["module", "trixie"]):
        assert "-m pytest" not in run(*words).stdout


def test_a_folder_that_is_not_there_is_bad_input(run: Run) -> None:
    """Before anything is downloaded."""
    done = run("nowhere", "trixie")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("words", [(), ("a",), ("a", "b", "c", "d")])
def test_who_says_too_little_or_too_much_is_told_what_it_takes(words: tuple[str, ...]) -> None:
    """And nothing is begun."""
    script = config.PROJECT / ".ci" / "test-module"
    done = subprocess.run(["sh", script, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "usage: test-module FOLDER KERNEL[,KERNEL] [TESTS]\n"


def test_who_asks_how_it_is_used_is_told() -> None:
    """That is no fault."""
    script = config.PROJECT / ".ci" / "test-module"
    for word in ("-h", "--help"):
        done = subprocess.run(["sh", script, word], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "usage: test-module FOLDER KERNEL[,KERNEL] [TESTS]\n"


def test_the_action_and_the_component_have_the_same_inputs() -> None:
    """And hand them to the script as variables, so that none of them is taken for shell code."""
    yaml = YAML(typ="safe", pure=True)
    action = yaml.load(ACTION)
    head, job = yaml.load_all(COMPONENT.read_text())
    own = {"harness", "ref", "stage"}
    assert set(action["inputs"]) == set(head["spec"]["inputs"]) - own
    call = '.ci/test-module" "$MODULE" "$KERNELS" "$TESTS"'
    assert _step(action, "id", "tested")["run"].endswith(call)
    assert job["test-module"]["script"][-1].replace("module ", 'module" ', 1).endswith(call)
    for line in (
        *job["test-module"]["script"],
        *(each.get("run", "") for each in action["runs"]["steps"]),
    ):
        assert "$[[" not in line
        assert "${{" not in line


def _step(action: Any, key: str, value: str) -> Any:
    (found,) = (each for each in action["runs"]["steps"] if each.get(key, "").startswith(value))
    return found


def test_what_a_red_job_made_is_kept_too() -> None:
    """The action hands on the folder that the script names; the component finds it by its name."""
    yaml = YAML(typ="safe", pure=True)
    upload = _step(yaml.load(ACTION), "uses", "actions/upload-artifact@")
    assert upload["if"] == "${{ always() && steps.tested.outputs.kept }}"
    assert upload["with"] == {
        "name": "${{ steps.tested.outputs.name }}", "path": "${{ steps.tested.outputs.kept }}"
    }  # fmt: skip
    _, job = yaml.load_all(COMPONENT.read_text())
    assert job["test-module"]["artifacts"] == {
        "when": "always", "paths": ["cards.md", "module-results.*/**/*"]
    }  # fmt: skip


def test_the_actions_of_the_action_are_pinned() -> None:
    """As those of the workflows are."""
    used = [each["uses"] for each in YAML(typ="safe", pure=True).load(ACTION)["runs"]["steps"]
            if "uses" in each]  # fmt: skip
    assert used
    assert all(len(each.partition("@")[2]) == 40 for each in used)
