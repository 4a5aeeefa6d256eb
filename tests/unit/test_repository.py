# SPDX-License-Identifier: GPL-2.0-only
"""What holds for every file of the repository."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from harness import config
from harness.host import proc
from harness.host.proc import Deadline

ROOT = config.PROJECT
# No sources: prose (as in the kernel's Documentation/ABI), licences, recorded test data.
NOT_SOURCE = re.compile(
    r"(^|/)(\.gitignore|ABI|LICENSE.*|COPYING.*|LICENSES/.*)$|\.(md|rst|png|svg|jpg)$"
    r"|^tests/unit/data/"
)
TOP = 3  # lines: a script has its interpreter in the first


def repository_files() -> list[str]:
    """Every file that is, or would be, in the repository."""
    done = proc.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"],
        deadline=Deadline(20),
        cwd=ROOT,
        check=False,
    )  # fmt: skip
    if done.status != 0:
        pytest.skip(f"not a git checkout, so its files are not known: {done.stderr.strip()}")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Name -> content of every text file of the repository."""
    found = {}
    for name in repository_files():
        data = (ROOT / name).read_bytes()
        if b"\0" not in data:
            found[name] = data.decode(errors="replace")
    assert "harness/errors.py" in found
    assert "vm/init" in found
    return found


def test_every_source_names_its_licence(texts: dict[str, str]) -> None:
    """An SPDX line near the top, as in the kernel; an empty file has nothing to license."""
    line = re.compile(r"SPDX-License-Identifier: GPL-2\.0(-only|-or-later)?\b")
    without = [
        name
        for name, text in texts.items()
        if text.strip()
        and not NOT_SOURCE.search(name)
        and not any(line.search(row) for row in text.splitlines()[:TOP])
    ]
    assert without == []


def mirrors(folder: Path = Path("/etc/apt")) -> Iterator[str]:
    """The hosts that this host's apt gets packages from, or through."""
    names = [folder / "sources.list", folder / "apt.conf"]
    for pattern in ("sources.list.d/*", "mirrors/*", "apt.conf.d/*"):
        names += folder.glob(pattern)
    for path in names:
        if path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                if not line.lstrip().startswith(("#", "//")):
                    yield from re.findall(r"\bhttps?://(?:[^/\s@]*@)?([\w-]+(?:\.[\w-]+)+)", line)


def test_a_mirror_is_told_from_a_word(tmp_path: Path) -> None:
    """A host in one's own network may be named like what is in every text."""
    (tmp_path / "sources.list").write_text(
        "deb http://debian/debian sid main\ndeb https://me:x@mirror.example/debian sid main\n"
    )
    (tmp_path / "apt.conf").write_text('Acquire::http::Proxy "http://proxy:3142/";\n')
    assert list(mirrors(tmp_path)) == ["mirror.example"]


def test_the_kinds_of_apts_sources_are_read(tmp_path: Path) -> None:
    """Both forms of sources, what they lead to, and what they go through."""
    texts = {
        "sources.list": "deb [signed-by=/x] http://one.example/debian sid main",
        "sources.list.d/a.sources": "Types: deb\nURIs: https://two.example/debian/\n",
        "mirrors/b.list": "https://three.example/debian\tpriority:1\n",
        "apt.conf.d/c": 'Acquire::http::Proxy "http://user@four.example:3142/";\n',
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [f"{name}.example" for name in ("one", "two", "three", "four")]
    assert list(mirrors(tmp_path)) == found


def named(texts: dict[str, str], host: str) -> list[str]:
    """The files that name a host."""
    name = re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])")
    return [path for path, text in texts.items() if name.search(text)]


def test_a_file_that_names_a_mirror_is_found() -> None:
    """Whatever stands around it; a longer name is another host's."""
    host = "mirror.example"
    texts = {"url": f"deb http://{host}/debian", "end": f"from {host}.",
             "longer": f"a-{host} {host}-2 {host}s"}  # fmt: skip
    assert named(texts, host) == ["url", "end"]


# Those of Debian and Ubuntu, and where Python packages come from. Said in parts, because this
# is a file of the repository.
USUAL = [f"{name}.org" for name in ("deb.debian", "security.debian", "ftp.debian",
                                    "snapshot.debian", "pypi", "files.pythonhosted")]  # fmt: skip
USUAL += [f"{name}.ubuntu.com" for name in ("archive", "security", "ports")]


def test_no_file_names_a_mirror(texts: dict[str, str]) -> None:
    """Packages come from where the host's apt gets them; no address is written down."""
    for host in {*USUAL, *mirrors()}:
        if not host.startswith("127."):
            assert named(texts, host) == [], host


def test_no_file_names_this_checkout(texts: dict[str, str]) -> None:
    """A path that is right on one machine is wrong on all others."""
    if len(ROOT.parts) < 3:
        pytest.skip(f"{ROOT} is no path that could be told from others")
    here = re.compile(rf"(?<![\w./-]){re.escape(str(ROOT))}(?![\w-])")
    assert [name for name, text in texts.items() if here.search(text)] == []


# -- what others have made ---------------------------------------------------------


def pinned() -> dict[str, tuple[Requirement, int]]:
    """The packages of vm/requirements.txt by name, each with how many files of it are known."""
    text = (ROOT / "vm" / "requirements.txt").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: dict[str, tuple[Requirement, int]] = {}
    for row in lines.replace("\\\n", " ").splitlines():
        name, *hashes = row.split("--hash=sha256:")
        assert all(re.fullmatch("[0-9a-f]{64}", each.strip()) for each in hashes)
        requirement = Requirement(name.strip())
        found[canonicalize_name(requirement.name)] = (requirement, len(hashes))
    return found


def test_every_python_package_is_pinned() -> None:
    """At one release, with its files' hashes, and it is one that this package can be run with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = pinned()
    for requirement, files in found.values():
        assert [each.operator for each in requirement.specifier] == ["=="], requirement
        assert files > 0, requirement
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"],
              *project["project"]["optional-dependencies"]["check"]]  # fmt: skip
    for text in wanted:
        requirement = Requirement(text)
        (exact,) = found[canonicalize_name(requirement.name)][0].specifier
        assert requirement.specifier.contains(exact.version), text


def test_only_pinned_packages_are_installed(texts: dict[str, str]) -> None:
    """By their hashes, or without whatever else they would bring."""
    for name, text in texts.items():
        if name in ("bootstrap", ".gitlab-ci.yml") or name.startswith((".ci/", ".github/")):
            for row in re.findall(r"\bpip install .*", text):
                assert "--require-hashes" in row or "--no-deps" in row, (name, row)
    assert "pip install --require-hashes" in texts["bootstrap"]


def jobs() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each job of .github/workflows: its name, itself, and its workflow."""
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        workflow = YAML(typ="safe", pure=True).load(path)
        for name, job in workflow["jobs"].items():
            yield f"{path.name}: {name}", job, workflow


def test_every_action_is_pinned_by_its_commit() -> None:
    """A tag is what its owner says it is, today."""
    used = [
        step["uses"]
        for _, job, _ in jobs()
        for step in [job, *job.get("steps", [])]
        if "uses" in step
    ]
    assert used
    loose = [each for each in used if not re.search(r"^\./|@[0-9a-f]{40}$", each)]
    assert loose == []


def test_a_job_that_may_write_runs_nothing_of_others() -> None:
    """No action, and no Python package: it has the right to change this repository."""
    writing = []
    for name, job, workflow in jobs():
        allowed = job.get("permissions", workflow.get("permissions", "write-all"))
        if "write" in (allowed if isinstance(allowed, str) else " ".join(allowed.values())):
            writing.append(name)
            ran = "\n".join(step.get("run", "") for step in job.get("steps", []))
            assert not [step for step in [job, *job.get("steps", [])] if "uses" in step], name
            assert not re.search(r"bootstrap|\bpip\b|\bapt-get\b|\bcurl\b|\.venv", ran), name
    assert writing == ["nightly.yml: publish"]
