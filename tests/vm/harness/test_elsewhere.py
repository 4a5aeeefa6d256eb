# SPDX-License-Identifier: GPL-2.0-only
"""A module's own repository: this package is installed there, and its tests run with it.

The repository is docs/example/. The package is installed as a user's pip does it, from a wheel,
into a virtual environment of its own. Only what it depends on is taken from the one that runs this
test, so that nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import config
from harness.host import proc
from harness.host.proc import Deadline
from harness.testing import Lab

from .test_runs import SECONDS

pytestmark = pytest.mark.timeout(SECONDS)

EXAMPLE = config.PROJECT / "docs" / "example"
# What a build of the package reads.
SOURCES = ("harness", "module", "tests", "vm", "pyproject.toml", "setup.py", "MANIFEST.in",
           "README.md")  # fmt: skip


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment in which this package is installed."""
    folder = tmp_path_factory.mktemp("installed")
    copy, wheels, venv = folder / "copy", folder / "wheels", folder / "venv"
    copy.mkdir()
    for name in SOURCES:
        source = config.PROJECT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    alone = ["--no-deps", "--no-index"]
    _run([*pip, "wheel", *alone, "--no-build-isolation", "--wheel-dir", str(wheels), str(copy)])
    _run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
    python = venv / "bin" / "python"
    (wheel,) = wheels.iterdir()
    _run([*pip, "--python", str(python), "install", *alone, str(wheel)])
    # An editable install of the checkout is found by files there that a second folder's are not
    # read for (site.addsitedir), so that only the wheel's harness is seen.
    (installed,) = venv.glob("lib/python*/site-packages")
    (installed / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    shutil.rmtree(copy)
    return python


def _run(argv: list[str]) -> None:
    proc.run(argv, deadline=Deadline(300), env=_environment())


def _environment() -> dict[str, str]:
    """Without what this pytest has told its own processes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}


@pytest.fixture
def run(python: Path, lab: Lab) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs pytest in a repository, with that Python."""

    def in_repository(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider",
             f"--kernel={lab.kernel.name}", *options],
            cwd=folder, env=_environment(), check=False, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    return in_repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the example."""
    target = tmp_path / "repository"
    shutil.copytree(EXAMPLE, target, ignore=shutil.ignore_patterns("__pycache__", "results"))
    return target


def test_the_example_is_green(
    run: Callable[..., subprocess.CompletedProcess[str]], python: Path, repository: Path
) -> None:
    """What is not Python comes with the package: the kernels, the guest, the suites."""
    done = run(repository)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
    where = "import harness.config as c; print(c.PROJECT); assert c.KERNELS_TOML.exists()"
    said = subprocess.run([python, "-c", where], cwd=repository, check=True, text=True,
                          stdout=subprocess.PIPE).stdout  # fmt: skip
    assert "site-packages" in said
    any_suite = Path(said.strip()) / config.SUITES["any"]
    # The kernel warns of a name in /proc that is taken, whoever asks for it.
    options = [str(any_suite), "-k", "loads_and_unloads or licence or names_are_taken"]
    done = run(repository, "--module=.", *options)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
    done = run(repository, *options)  # the ini file is not that of these tests
    assert done.returncode == 1, done.stdout
    assert "no module is named that is to be tested" in done.stdout


def test_a_planted_bug_is_red_there(
    run: Callable[..., subprocess.CompletedProcess[str]], lab: Lab, repository: Path
) -> None:
    """Results are the repository's own: nothing is written to where the package is."""
    source = repository / "hello.c"
    text = source.read_text()
    assert 'remove_proc_entry("hello", NULL);' in text
    source.write_text(text.replace('remove_proc_entry("hello", NULL);', ""))
    done = run(repository, "-k", "unloaded")
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout
    assert "hello" in done.stdout
    assert "hello.c" in done.stdout
    left = list((repository / "results" / lab.kernel.name).glob("*/*unloaded*/console.log"))
    assert left, done.stdout
    page = (repository / "results" / "index.html").read_text()
    assert "test_hello::" in page
    console = left[0].resolve().relative_to(repository.resolve())
    assert f"console: {console}" in page
    assert "shell --resume" in page
    assert "hello.c" in page
