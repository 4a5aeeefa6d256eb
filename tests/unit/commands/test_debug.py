# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/debug.py and gdb.py: what is looked up before gdb is there."""

from __future__ import annotations

import importlib.machinery
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from harness import config
from harness.commands import debug, drgn, gdb
from harness.errors import HarnessError, InputError, MissingToolError
from harness.examine import artifacts
from harness.machines import saved
from harness.machines.guest import Guest
from harness.runs.request import Request


class Says:
    """A guest that has this in its /proc/kallsyms."""

    def __init__(self, text: str) -> None:
        self.text = text

    def check(self, _: str) -> str:
        return self.text


@pytest.mark.parametrize(
    ("kallsyms", "address"),
    [
        ("ffffffff8118ce50 t do_init_module\n", 0xFFFFFFFF8118CE50),
        ("ffffffff8118ce40 t __pfx_do_init_module\nffffffff8118ce50 T do_init_module\n",
         0xFFFFFFFF8118CE50),
        ("ffffffff81000010 t do_init_module.cold\nffffffff8118ce50 t do_init_module.isra.0\n",
         0xFFFFFFFF8118CE50),
    ],
)  # fmt: skip
def test_where_a_kernel_calls_an_init(kallsyms: str, address: int) -> None:
    """Compilers give a function's parts and copies names like its own."""
    assert debug._before_init(cast(Guest, Says(kallsyms))) == address


@pytest.mark.parametrize("kallsyms", ["", "0000000000000000 t do_init_module\n"])
def test_a_kernel_that_does_not_say_it(kallsyms: str) -> None:
    """It has no symbols, or hides them."""
    with pytest.raises(InputError, match="does not say where"):
        debug._before_init(cast(Guest, Says(kallsyms)))


@pytest.mark.parametrize(
    "call",
    [
        lambda _: debug.run(Request(), debug.Wanted()),
        lambda folder: debug.opened(str(folder), None, debug.Wanted()),
        lambda folder: debug.attached(folder, debug.Wanted()),
    ],
)
def test_a_host_without_gdb_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[Path], int]
) -> None:
    """Before anything else."""
    monkeypatch.setattr("harness.commands.gdb.shutil.which", lambda _: None)
    with pytest.raises(MissingToolError, match="apt install gdb"):
        call(tmp_path)


@pytest.mark.parametrize(
    "call",
    [
        lambda _, wanted: debug.run(Request(), wanted),
        lambda folder, wanted: debug.opened(str(folder), None, wanted),
        debug.attached,
    ],
)
@pytest.mark.parametrize(
    ("wanted", "installed", "said"),
    [
        (debug.Wanted(drgn=True), False, "drgn is not installed(.|\n)*-m pip install drgn"),
        (debug.Wanted(drgn=True, breaks=["here"]), True, "drgn stops nothing"),
        (debug.Wanted(drgn=True, script=Path("/nowhere")), True, "there is no file /nowhere"),
        (debug.Wanted(drgn=True, script=Path("/dev/null")), True, "/dev/null is no regular file"),
        (debug.Wanted(drgn=True, results=Path("/nowhere")), True, "there is no folder /nowhere"),
    ],
)
def test_what_drgn_cannot_do_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    call: Callable[[Path, debug.Wanted], int], wanted: debug.Wanted, installed: bool, said: str,
) -> None:  # fmt: skip
    """Before anything else."""
    found = importlib.machinery.ModuleSpec("drgn", None) if installed else None
    monkeypatch.setattr("harness.commands.drgn.importlib.util.find_spec", lambda _: found)
    with pytest.raises(HarnessError) as error:
        call(tmp_path, wanted)
    assert re.search(said, str(error.value))


def test_drgn_needs_the_kernels_symbols(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's kernels have none of their own; how to get them is said, and nothing is opened."""
    monkeypatch.setattr(drgn, "require", lambda _: None)
    folder = results / "trixie/1/contract-test_a.py-test_read"
    machine = {"kernel": "/k", "initrd": "/i"}
    text = {"spec": machine, "keys": {"client": "/c", "host": ""}, "qemu": "", "about": {}}
    (folder / saved.ABOUT).write_text(json.dumps(text))
    (folder / artifacts.DUMP).touch()
    with pytest.raises(InputError, match="needs the kernel's own symbols") as error:
        debug.opened("test_read", None, debug.Wanted(drgn=True))
    assert "--symbols" in str(error.value)


def test_symbols_that_are_gone(tmp_path: Path) -> None:
    """Those of a kernel that was compiled here, after `invoke clean`."""
    with pytest.raises(InputError, match="symbols are gone"):
        drgn.arguments({"vmlinux": str(tmp_path / "vmlinux")}, dump=tmp_path / "dump")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of three red tests that have left their machine, each an hour later than the one before."""
    monkeypatch.setattr(config, "RESULTS", tmp_path)
    monkeypatch.chdir(tmp_path)  # where somebody is counts as well, with what is there already
    for number, name in enumerate(
        ["trixie/1/contract-test_a.py-test_read", "trixie/2/contract-test_a.py-test_write",
         "bookworm/3/contract-test_a.py-test_write"]
    ):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / saved.ABOUT).write_text("{}")
        os.utime(folder, (number * 3600, number * 3600))
    (tmp_path / "trixie" / "latest").symlink_to("2")
    return tmp_path


@pytest.mark.parametrize(
    ("what", "kernel", "folder"),
    [
        ("test_read", None, "trixie/1/contract-test_a.py-test_read"),
        ("test_write", None, "bookworm/3/contract-test_a.py-test_write"),
        ("tests/vm/contract/test_a.py::test_write", "trixie",
         "trixie/2/contract-test_a.py-test_write"),
    ],
)  # fmt: skip
def test_a_red_test_is_found_by_its_name(
    results: Path, what: str, kernel: str | None, folder: str
) -> None:
    """The newest, of the kernel that was asked for."""
    assert debug._left_by(what, kernel) == results / folder


def test_a_red_test_of_another_repository(
    results: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results are found from below its folder, or where --results says; both at all levels."""
    other = tmp_path_factory.mktemp("other")
    red = other / "results" / "sid" / "7" / "test_mine.py-test_read"
    alone = other / "run" / "test_mine.py-test_alone"
    for folder in (red, alone):
        folder.mkdir(parents=True)
        (folder / saved.ABOUT).write_text("{}")
    with pytest.raises(InputError, match="no red test 'test_mine'"):
        debug._left_by("test_mine", None)
    assert debug._left_by("test_mine", None, other / "results") == red
    assert debug._left_by("test_alone", None, other / "run") == alone
    (other / "tests").mkdir()
    monkeypatch.chdir(other / "tests")
    assert debug._left_by("test_mine", None) == red


def test_a_red_test_that_has_left_nothing(results: Path) -> None:
    """Those that have are named."""
    with pytest.raises(InputError, match="'test_other' has left") as error:
        debug._left_by("test_other", None)
    assert "contract-test_a.py-test_read" in str(error.value)


def test_what_was_recorded_is_for_replay(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no machine that gdb can be opened in."""
    monkeypatch.setattr(gdb, "require", lambda _: None)
    folder = results / "trixie" / "3" / "test_b.py-test_it"
    (folder / "recording").mkdir(parents=True)
    (folder / "recording" / "recording.json").write_text("{}")
    with pytest.raises(InputError, match=r"invoke replay .*test_it --debug"):
        debug.opened("test_it", None, debug.Wanted())


def test_a_machine_that_nobody_holds(tmp_path: Path) -> None:
    """It is told how to open it as the test left it."""
    with pytest.raises(InputError, match=r"does not run") as error:
        saved.debugger_of(tmp_path)
    assert "invoke debug --test" in str(error.value)


@pytest.mark.skipif(
    shutil.which("gdb") is None or shutil.which("cc") is None, reason="gdb or cc is not installed"
)
def test_a_place_is_looked_up_by_gdb_itself(tmp_path: Path) -> None:
    """Whatever it takes for one is one; for all else there are its words."""
    source = tmp_path / "one.c"
    source.write_text("int one(int count)\n{\n\treturn count + 1;\n}\n")
    made = tmp_path / "one.o"
    subprocess.run(["cc", "-g", "-c", "-o", made, source], check=True)
    gdb.check_places(["one", "one.c:3", "one if count > 2"], [made])
    with pytest.raises(InputError, match='--break two: gdb says: Function "two" not defined'):
        gdb.check_places(["one", "two"], [made])
