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

import pytest

from harness import config
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
