# SPDX-License-Identifier: GPL-2.0-only
"""What holds for every file of the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import config, proc
from harness.proc import Deadline

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


def test_no_file_names_a_mirror(texts: dict[str, str]) -> None:
    """Packages come from where the host's apt gets them; no address is written down."""
    for host in {host for host in mirrors() if not host.startswith("127.")}:
        named = re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])")
        assert [name for name, text in texts.items() if named.search(text)] == [], host


def test_no_file_names_this_checkout(texts: dict[str, str]) -> None:
    """A path that is right on one machine is wrong on all others."""
    if len(ROOT.parts) < 3:
        pytest.skip(f"{ROOT} is no path that could be told from others")
    here = re.compile(rf"(?<![\w./-]){re.escape(str(ROOT))}(?![\w-])")
    assert [name for name, text in texts.items() if here.search(text)] == []
