# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/doctor.py: what is lacking, and the commands that mend it."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.commands import doctor
from harness.commands.doctor import Check
from harness.errors import InputError
from harness.host import debian
from harness.machines import session

OK = Check("python", "ok", "3.11")
NOTE = Check("kvm", "note", "/dev/kvm is not yours", "sudo adduser wee kvm")
QEMU = Check("qemu-system-x86_64", "lacking", "not installed", "apt:qemu-system-x86")
OLD_QEMU = Check("qemu version", "lacking", "too old", "apt:qemu-system-x86")
BWRAP = Check("bwrap", "lacking", "not installed", "apt:bubblewrap")
SYSCTL = Check("sandbox", "lacking", "no namespaces", "sudo sysctl -w a=0")


def test_nothing_lacking_needs_no_command() -> None:
    """What is fine, and what is only slower, is not to be mended."""
    assert doctor.remedy([OK, NOTE]) == []


@pytest.mark.parametrize(("user", "sudo"), [(0, ""), (1000, "sudo ")])
def test_one_command_installs_all_packages(
    monkeypatch: pytest.MonkeyPatch, user: int, sudo: str
) -> None:
    """Each package once, with sudo for who needs it, before what is not a package."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert doctor.remedy([OK, SYSCTL, QEMU, NOTE, OLD_QEMU, BWRAP]) == [
        f"{sudo}apt-get install --no-install-recommends qemu-system-x86 bubblewrap",
        "sudo sysctl -w a=0",
    ]


def test_what_nothing_mends_gives_no_command() -> None:
    """A fault without a remedy is said, and is no empty line among the commands."""
    assert doctor.remedy([Check("sandbox", "lacking", "broken")]) == []


def test_the_projects_list_of_host_packages_is_right() -> None:
    """Every row of vm/host-packages has a program or file, and a package."""
    text = doctor.HOST_PACKAGES.read_text()
    rows = doctor.host_packages(text)
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            assert len(line.split()) == 2, line
    assert ("qemu-system-x86_64", "qemu-system-x86") in rows
    assert len({tool for tool, _ in rows}) == len(rows)


def test_comments_and_empty_lines_are_no_packages() -> None:
    """The form that ./bootstrap reads too."""
    assert doctor.host_packages("# a comment\n\nbwrap bubblewrap\n/usr/x  y\n") == [
        ("bwrap", "bubblewrap"),
        ("/usr/x", "y"),
    ]


def test_a_bare_host_lacks_every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no program is installed, each is named, and looking raises nothing."""
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    findings = doctor.examine()
    lacking = {finding.mend for finding in findings if finding.state == "lacking"}
    programs = [
        package
        for tool, package in doctor.host_packages(doctor.HOST_PACKAGES.read_text())
        if not tool.startswith("/")
    ]
    assert {f"apt:{package}" for package in programs} <= lacking


@pytest.mark.parametrize("there", [True, False])
def test_debuggers_are_listed_and_not_lacking(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """No test needs one: whoever does sees how to get it."""
    monkeypatch.setattr(shutil, "which", lambda *_: "/usr/bin/gdb" if there else None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object() if there else None)
    gdb, drgn = (one for one in doctor.examine() if one.topic in ("gdb", "drgn"))
    assert {gdb.state, drgn.state} == ({"ok"} if there else {"note"})
    assert ("apt install gdb" in gdb.said, "pip install drgn" in drgn.said) == (not there,) * 2
    assert doctor.remedy([gdb, drgn]) == []


def test_a_cache_below_somebody_elses_home_is_lacking(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where one may not even look, nothing can be written."""
    home = tmp_path / "home"
    home.mkdir()
    real = os.stat

    def stat(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if home in Path(os.fsdecode(path)).parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **options)

    monkeypatch.setenv("EUDYPTULA_CACHE", str(home / "cache" / "eudyptula"))
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "access", lambda path, *_: Path(path) != home)
    (finding,) = doctor._cache()
    assert (finding.state, finding.topic) == ("lacking", "cache")


@pytest.mark.parametrize(
    ("fault", "state", "said"),
    [("", "ok", "frozen with each machine"), ("paramiko 99 is not", "note", "paramiko 99 is not")],
    ids=["known", "another"],
)
def test_a_paramiko_that_makes_tests_slower_is_a_note(
    monkeypatch: pytest.MonkeyPatch, fault: str, state: str, said: str
) -> None:
    """Nothing lacks: tests do what they did, with SSH sessions of their own."""
    monkeypatch.setattr(session, "fault", lambda: fault)
    (finding,) = doctor._session()
    assert finding.state == state
    assert said in finding.said


DEBIAN = "Debian|Debian|http://mirror.example/debian/\n"


@pytest.mark.parametrize(
    ("host", "default", "state", "said"),
    [
        (DEBIAN, DEBIAN, "ok", "the Debian mirrors of the host's apt"),
        ("Ubuntu|Ubuntu|http://x.example/\n", DEBIAN, "ok",
         "http://mirror.example/debian/, mmdebstrap's default (the host's apt names no Debian"),
        ("", "", "note", "what is newest is not known"),
    ],
    ids=["debian", "ubuntu", "neither"],
)  # fmt: skip
def test_the_mirror_that_is_used_is_named(
    monkeypatch: pytest.MonkeyPatch, host: str, default: str, state: str, said: str
) -> None:
    """A person sees where packages come from, and why from there."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(debian, "host_mirrors", lambda _: host)
    monkeypatch.setattr(debian, "default_mirrors", lambda: default)
    (finding,) = doctor._mirror()
    assert finding.state == state
    assert said in finding.said


@pytest.mark.parametrize(
    ("findings", "status"), [([OK, NOTE], 0), ([OK, QEMU, SYSCTL], 3)], ids=["fit", "lacking"]
)
@pytest.mark.parametrize("as_json", [False, True])
def test_the_exit_status_says_whether_something_lacks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    findings: list[Check],
    status: int,
    as_json: bool,
) -> None:
    """As every task's does; each finding and remedy is printed, for people or as JSON."""
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert doctor.run(as_json) == status
    out = capsys.readouterr().out
    for finding in findings:
        assert finding.topic in out
        assert finding.said in out
    for command in doctor.remedy(findings):
        assert command in out
    if as_json:
        data = json.loads(out)
        assert data["mend"] == doctor.remedy(findings)
        assert [row["state"] for row in data["findings"]] == [f.state for f in findings]


def test_what_can_be_mended_is_mended(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The commands are shown and run, with their output, and then all is looked at again."""
    done = tmp_path / "done"
    script = tmp_path / "sysctl"
    script.write_text(f"#!/bin/sh\necho set $1\ntouch {done}\n")
    script.chmod(0o755)
    lacks = [
        Check("sandbox", "lacking", "forbidden", f"{script} -w"),
        Check("cache", "lacking", "full", "export EUDYPTULA_CACHE=A_FOLDER"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: [OK] if done.exists() else lacks)
    assert doctor.run(False, fix=True) == 0
    out = capfd.readouterr().out
    assert out.startswith(f"$ {script} -w\nset -w\n\n")
    assert "This host has all that is needed." in out


def test_what_cannot_be_mended_is_still_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody's environment is changed from here, and what is well is left alone."""
    lacks = [Check("cache", "lacking", "full", "export EUDYPTULA_CACHE=A_FOLDER")]
    monkeypatch.setattr(doctor, "examine", lambda: lacks)
    assert doctor.run(False, fix=True) == 3
    assert "$ " not in capsys.readouterr().out
    with pytest.raises(InputError, match="no JSON"):
        doctor.run(True, fix=True)


def test_packages_are_installed_without_a_question(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A run without a terminal would be given up by apt."""
    script = tmp_path / "apt-get"
    script.write_text('#!/bin/sh\necho "asked for: $*"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor, "examine", lambda: [QEMU])
    assert doctor.run(False, fix=True) == 3  # this apt-get has installed nothing
    assert "asked for: install --yes --no-install-recommends" in capfd.readouterr().out
