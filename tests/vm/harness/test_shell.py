# SPDX-License-Identifier: GPL-2.0-only
"""`invoke shell` as it is used: a terminal, a script, one command; and a kernel that dies in it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import termios
from pathlib import Path

import paramiko
import pytest

from harness import config
from harness.commands.shell import with_module
from harness.examine import loading
from harness.runs.request import Request
from harness.testing import Lab

PLANTED = Path(__file__).parent / "planted"
CONTROL = "/sys/kernel/debug/planted"
SECONDS = 300

pytestmark = pytest.mark.timeout(2 * SECONDS)


def invoke(lab: Lab, *arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "invoke",
        "shell",
        f"--kernel={lab.kernel.spec.asked}",
        *arguments,
    ]


def shell(lab: Lab, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; without ``given``, its standard input is at its end."""
    return subprocess.run(
        invoke(lab, *arguments), cwd=config.PROJECT, input=given or "", capture_output=True,
        text=True, check=False, timeout=SECONDS,
    )  # fmt: skip


def test_a_command_gives_its_status(lab: Lab) -> None:
    """Its output is all that is on standard output; the module is loaded."""
    done = shell(
        lab, f"--module={PLANTED}", "--", "lsmod | grep -c ^planted; echo said >&2; exit 7"
    )
    assert (done.returncode, done.stdout) == (7, "1\n")
    assert "said\n" in done.stderr


def test_what_a_test_has_had_loaded_is_not_loaded_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is one of those that the tests of this module are given."""
    module = lab.build(PLANTED)
    loading.loaded_template(lab, lab.template(), module)
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("it is loaded once more"))
    request = Request(kernels=lab.kernel.spec.asked, source=PLANTED)
    with with_module(request, "", sources=True) as (running, opened, _):
        assert opened.digest == module.digest
        running.guest.check("lsmod | grep ^planted && test -e /root/src/planted.c")


def test_files_are_carried_there_and_back(lab: Lab, tmp_path: Path) -> None:
    """With the right to be run; the module's source is there by itself."""
    tool, out = tmp_path / "tool", tmp_path / "out"
    tool.write_text("#!/bin/sh\necho from $0; grep -c '^static int planted_' /root/src/planted.c\n")
    tool.chmod(0o755)
    done = shell(
        lab, f"--module={PLANTED}", f"--put={tool}", f"--put={tool}:/opt/a/", f"--put={tool}:/opt",
        f"--get=said:{out}",
        "--", "./tool >said; /opt/a/tool >>said; /opt/tool >/dev/null && exit 3",
    )  # fmt: skip
    count = len(re.findall(r"(?m)^static int planted_", (PLANTED / "planted.c").read_text()))
    assert done.returncode == 3, done.stderr
    assert out.read_text() == f"from ./tool\n{count}\nfrom /opt/a/tool\n{count}\n"


def test_what_is_not_there_cannot_be_fetched(lab: Lab, tmp_path: Path) -> None:
    """It is said, and the rest is fetched; a status that says something stays as it is."""
    out, link = tmp_path / "out", tmp_path / "link"
    out.write_text("before")
    out.chmod(0o600)
    link.symlink_to("out")
    wanted = ["--get=nothing", "--get=/dev/zero", f"--get=/proc/sys/kernel/ostype:{link}"]
    done = shell(lab, f"--module={PLANTED}", *wanted, "--", "exit 7")
    assert done.returncode == 7, done.stderr
    assert "/root/nothing is not fetched: it is no regular file there" in done.stderr
    assert "/dev/zero is not fetched: it is no regular file there" in done.stderr
    assert (out.read_text(), out.stat().st_mode & 0o777, link.is_symlink()) == (
        "Linux\n", 0o600, True,
    )  # fmt: skip
    done = shell(lab, f"--module={PLANTED}", "--get=nothing", "--", "true")
    assert done.returncode == 1


def test_ssh_comes_in_as_well(lab: Lab, tmp_path: Path) -> None:
    """By a configuration that is there as long as the machine is, with the guest's key pinned."""
    file = tmp_path / "config"
    with subprocess.Popen(
        invoke(lab, f"--module={PLANTED}", f"--ssh-config={file}", "--", "echo in; cat; echo out"),
        cwd=config.PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "in\n"
            said = paramiko.SSHConfig.from_path(str(file)).lookup("eudyptula")
            with paramiko.SSHClient() as client:
                client.load_host_keys(said["userknownhostsfile"].strip('"'))
                client.connect(
                    said["hostname"], int(said["port"]), said["user"], look_for_keys=False,
                    key_filename=said["identityfile"][0].strip('"'),
                    allow_agent=False,
                )  # fmt: skip
                _, out, _ = client.exec_command("lsmod | grep -c ^planted")
                assert out.read() == b"1\n"
            rest, _ = running.communicate("", SECONDS)
        finally:
            running.kill()
    assert (running.returncode, rest) == (0, "out\n")
    assert not file.exists()


def test_a_script_ends_with_its_input(lab: Lab) -> None:
    """`echo CMD | invoke shell`, and one that has nothing to say."""
    done = shell(lab, f"--module={PLANTED}", given="echo one\nexit 5\n")
    assert (done.returncode, done.stdout) == (5, "one\n")
    done = shell(lab, f"--module={PLANTED}")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_person_has_a_terminal(lab: Lab) -> None:
    """With its size, a prompt that echoes, and the status of the shell in the end."""
    master, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (50, 132))
    running = subprocess.Popen(
        invoke(lab, f"--module={PLANTED}"), cwd=config.PROJECT, stdin=terminal, stdout=terminal,
        stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    said = b""
    with os.fdopen(master, "r+b", buffering=0) as person, contextlib.suppress(OSError):
        while data := person.read(1 << 10):  # EIO when the other end is closed
            said += data
            if b"# " in said and b"stty size" not in said:
                person.write(b"stty size; exit 3\r")
    assert running.wait(SECONDS) == 3, said.decode(errors="replace")
    assert b"50 132" in said


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("panic", r"panic: kernel panic: planted, in planted_fatal at planted\.c:\d+"),
        ("oops", r"planted_oops at planted\.c:\d+"),
    ],
)
def test_a_kernel_that_dies_is_explained(lab: Lab, word: str, named: str) -> None:
    """With its report's title, the function, file and line; not 255 and no word."""
    command = f"echo 1 >/proc/sys/kernel/panic_on_oops; echo {word} >{CONTROL}"
    done = shell(lab, f"--module={PLANTED}", "--", command)
    assert done.returncode == 1
    assert "\nGuestError: " in done.stderr
    assert re.search(named, done.stderr), done.stderr


def test_a_kernel_that_lives_on_is_heard(lab: Lab) -> None:
    """The command's status counts, and what the kernel has reported is said."""
    done = shell(lab, f"--module={PLANTED}", "--", f"echo warn >{CONTROL}; exit 4")
    assert done.returncode == 4
    assert "the kernel has reported meanwhile: splat: WARNING in planted_warn at" in done.stderr


def test_a_module_that_is_killed_while_it_loads_is_explained(lab: Lab, tmp_path: Path) -> None:
    """insmod says "Killed", and no more; the kernel says why."""
    (tmp_path / "Kbuild").write_text("obj-m := killed.o\n")
    (tmp_path / "killed.c").write_text(
        "#include <linux/module.h>\n"
        "static int __init killed_init(void)\n{\n"
        "\tWRITE_ONCE(*(int *)8, 1);\n\treturn 0;\n}\n"
        "module_init(killed_init);\n"
        'MODULE_DESCRIPTION("dies");\nMODULE_LICENSE("GPL");\n'
    )
    done = shell(lab, f"--module={tmp_path}", "--", "true")
    assert done.returncode == 1
    assert "loading killed: " in done.stderr
    assert "killed_init at killed.c:4" in done.stderr
