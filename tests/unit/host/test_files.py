# SPDX-License-Identifier: GPL-2.0-only
"""harness/host/files.py: a file is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import config
from harness.host import files


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize(("data", "bytes_"), [("né", b"n\xc3\xa9"), (b"\xff", b"\xff")])
def test_a_file_is_made_and_replaced(
    tmp_path: Path, sync: bool, data: str | bytes, bytes_: bytes
) -> None:
    """By text or by bytes; nothing else is left in its folder."""
    for _ in range(2):
        files.write(tmp_path / "file", data, sync=sync)
        assert (tmp_path / "file").read_bytes() == bytes_
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing beside it, whatever was written already."""
    path = tmp_path / "file"
    files.write(path, "old")
    write = Path.write_bytes

    def fills(self: Path, data: bytes) -> int:
        write(self, data[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fills)
    with pytest.raises(OSError, match="No space"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_many_may_replace_the_same_at_the_same_time(tmp_path: Path) -> None:
    """Files and links; also the threads of one process."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: files.write(tmp_path / "f", str(number)), range(200)))
        list(pool.map(lambda number: files.link(tmp_path / "l", str(number)), range(200)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "l"]


def test_a_folder_of_what_was_made_says_so(tmp_path: Path) -> None:
    """To whoever looks for sources, and to git; what was said before stays."""
    folder = tmp_path / "results"
    assert not files.is_tagged(folder)
    files.tag(folder)
    assert files.is_tagged(folder)
    assert (folder / ".gitignore").read_text() == "*\n"
    (folder / ".gitignore").write_text("mine\n")
    files.tag(folder)
    assert (folder / ".gitignore").read_text() == "mine\n"


def test_files_are_replaced_nowhere_else() -> None:
    """Whoever writes a lock, a report or a stamp by hand forgets one of the steps."""
    allowed = {
        "files.py": 1,
        # Whole folders: what was unpacked, cloned or made, and what goes.
        "bisect.py": 1,
        "cache.py": 2,
        # One folder, and a config that is not written beside its place: that folder is the build's.
        "compile.py": 2,
    }
    found = {}
    for path in (config.PROJECT / "harness").rglob("*.py"):
        text = path.read_text()
        count = text.count("fresh.rename(") + text.count("fresh.replace(") + text.count("link.repl")
        count += text.count("folder.rename(") + text.count("path.rename(")
        if count:
            found[path.name] = count
    assert found == allowed
