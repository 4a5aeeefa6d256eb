# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/guest_files.py: what the options mean, without a machine."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from harness.build.module import Module
from harness.build.source import Source
from harness.commands.guest_files import Baggage, Parcel, give_sources, to_get, to_put
from harness.errors import CommandFailed, InputError
from harness.machines.guest import Guest


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder, with two files and a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tool").write_text("x")
    (tmp_path / "a:b").write_text("x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 65 << 20)
    return tmp_path


@pytest.mark.parametrize(
    ("said", "host", "guest"),
    [("tool", "tool", "/root/tool"), ("tool:/tmp/t", "tool", "/tmp/t"),
     ("tool:/lib/firmware/", "tool", "/lib/firmware/tool"), ("tool:bin/t", "tool", "/root/bin/t"),
     ("a:b", "a:b", "/root/a:b"), ("a:b:/tmp/c", "a:b", "/tmp/c")],
)  # fmt: skip
def test_where_a_file_is_put(said: str, host: str, guest: str) -> None:
    """Below root's home, where nothing else is said; a name may have a colon."""
    assert to_put([said]) == [Parcel(Path(host), guest)]


@pytest.mark.parametrize(
    ("said", "guest", "host"),
    [("out", "/root/out", "out"), ("/var/log/x", "/var/log/x", "x"),
     ("/proc/kallsyms:symbols", "/proc/kallsyms", "symbols"), ("out:folder", "/root/out",
     "folder/out"), ("out:folder/new", "/root/out", "folder/new")],
)  # fmt: skip
def test_where_a_file_is_fetched_to(said: str, guest: str, host: str) -> None:
    """To where somebody is, by its own name, unless another one is said."""
    assert to_get([said]) == [Parcel(Path(host), guest)]


def test_a_shell_without_the_sources_is_worth_more_than_none(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the guest cannot take them, that is said, and no more."""
    (here / "folder/wee.c").write_text("int wee;\n")
    (here / "folder/Kbuild").write_text("obj-m := wee.o\n")
    guest = create_autospec(Guest)
    guest.check.side_effect = CommandFailed("no", tail="cpio: premature end of archive\n")
    module = create_autospec(Module, source=Source(here / "folder"))
    give_sources(guest, module)
    assert "is in /root/src: cpio: premature end of archive" in caplog.text


@pytest.mark.parametrize(
    ("put", "get", "config", "what"),
    [("nothing", "", "", "nothing is no regular file that can be read"),
     (":", "", "", "'' is no regular file"), ("/dev/null", "", "", "is no regular file"),
     ("large", "", "", "it has 65 MiB, and what is put may have 64"),
     ("", "out:/dev/null", "", "/dev/null is there, and is no regular file"),
     ("", "out:fifo", "", "fifo is there, and is no regular file"),
     ("folder", "", "", "that is a folder, and it takes files"),
     ("", "out:nowhere/x", "", "there is no folder nowhere"),
     ("", ":x", "", "that names no file"), ("", "", "tool", "there is such a file already")],
)  # fmt: skip
def test_what_cannot_be_is_said_before_a_machine_runs(
    put: str, get: str, config: str, what: str
) -> None:
    """And nothing that somebody has is touched."""
    with pytest.raises(InputError, match=what) as caught:
        Baggage.parse([put] * bool(put), [get] * bool(get), Path(config) if config else None)
    assert caught.value.hint or put == "large"
    assert Path("tool").read_text() == "x"
