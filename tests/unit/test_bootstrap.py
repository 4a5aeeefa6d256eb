# SPDX-License-Identifier: GPL-2.0-only
"""./bootstrap, with stand-ins for Python and pip."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import config

PATIENCE = 60  # seconds

PYTHON = """#!/bin/sh
case "$*" in
"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python
	printf '#!/bin/sh\\necho "invoke $*"\\n' >.venv/bin/invoke
	chmod +x .venv/bin/invoke ;;
*pip*requirement*) echo "  Collecting everything"; echo "    Uninstalling setuptools"
	read -r answer <answer; exit "$answer" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script, in a folder with no more than it reads; its pip waits for an answer."""
    shutil.copy(config.PROJECT / "bootstrap", tmp_path)
    (tmp_path / "vm").mkdir()
    for name in ("vm/host-packages", "vm/requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "answer")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("python3", PYTHON), ("sleep", "#!/bin/sh\nexec /bin/sleep 0.1\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def started(checkout: Path) -> Iterator[subprocess.Popen[str]]:
    """The script, which was seen to say what pip is at."""
    environment = {**os.environ, "PATH": f"{checkout / 'programs'}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [checkout / "bootstrap", "--list"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        cwd=checkout,
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if re.fullmatch(r"bootstrap: \d+ s: Collecting everything\n", line):
                    break
            else:
                pytest.fail(f"it ended with {process.wait()}, and said nothing of pip")
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_it_says_what_pip_is_at(checkout: Path, started: subprocess.Popen[str]) -> None:
    """While it is; then the task runs, and nothing more is said of pip."""
    (checkout / "answer").write_text("0\n")
    out, _ = started.communicate(timeout=PATIENCE)
    assert (started.returncode, out) == (0, "invoke --list\n")
    assert (checkout / ".venv/stamp").exists()


def test_by_whatever_way_somebody_comes_it_is_made_once(
    checkout: Path, started: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A link to the checkout is the same checkout."""
    (checkout / "answer").write_text("0\n")
    started.communicate(timeout=PATIENCE)
    link = tmp_path_factory.mktemp("other") / "link"
    link.symlink_to(checkout)
    again = subprocess.run(
        [link / "bootstrap", "--list"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        cwd=link,
        env={**os.environ, "PATH": f"{checkout / 'programs'}:{os.environ['PATH']}"},
        check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (again.stdout, again.stderr) == ("invoke --list\n", "")


def test_a_task_runs_where_it_was_started(
    checkout: Path, started: subprocess.Popen[str], tmp_path: Path
) -> None:
    """What it is given and what it names is meant from there; really there, as ".." is in paths."""
    (checkout / "answer").write_text("0\n")
    started.communicate(timeout=PATIENCE)
    (checkout / ".venv/bin/invoke").write_text('#!/bin/sh\npwd -P; echo "$@"\n')
    meter, link = tmp_path / "home" / "meter", tmp_path / "link"
    meter.mkdir(parents=True)
    link.symlink_to(meter)
    place = checkout.resolve()
    for folder, said in (
        (link, f"{meter.resolve()}\n-r {place} judge .\n"),
        (checkout, f"{place}\njudge .\n"),
    ):
        done = subprocess.run(
            ["sh", "-c", 'cd "$1" && exec "$2" judge .', "sh", folder, checkout / "bootstrap"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True,
            timeout=PATIENCE,
            env={**os.environ, "PATH": f"{checkout / 'programs'}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.stdout == said


def test_what_pip_says_is_shown_where_it_fails(
    checkout: Path, started: subprocess.Popen[str]
) -> None:
    """It counts as no installation."""
    (checkout / "answer").write_text("1\n")
    _, said = started.communicate(timeout=PATIENCE)
    assert started.returncode == 3
    assert "pip could not install what vm/requirements.txt names" in said
    assert "  Collecting everything\n    Uninstalling setuptools\n" in said
    assert not (checkout / ".venv/stamp").exists()


def test_it_can_be_interrupted(checkout: Path, started: subprocess.Popen[str]) -> None:
    """By SIGTERM to all of it, as by Ctrl-C; nothing goes on speaking afterwards."""
    os.killpg(started.pid, signal.SIGTERM)
    started.communicate(timeout=PATIENCE)  # its end: nobody holds the stream open
    assert started.returncode == 130
    assert not (checkout / ".venv/stamp").exists()
