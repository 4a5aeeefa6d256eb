# SPDX-License-Identifier: GPL-2.0-only
"""`invoke trace` as it is used: functions and events, as they come, beside a command's output."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import config
from harness.testing import Lab

PLANTED = Path(__file__).parent / "planted"
CONTROL = "/sys/kernel/debug/planted"
SECONDS = 300

pytestmark = pytest.mark.timeout(2 * SECONDS)


def trace(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [sys.executable, "-m", "invoke", "trace", f"--kernel={lab.kernel.spec.asked}", *arguments],
        cwd=config.PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=SECONDS,
    )  # fmt: skip


def traced(said: str) -> list[str]:
    """The functions in a trace, in its order (Documentation/trace/ftrace.rst)."""
    return re.findall(r"^ *\S+-\d+ +\[\d+\] \S+ +\d+\.\d+: (\w+) <-\w+$", said, re.MULTILINE)


def test_the_modules_functions_are_traced(lab: Lab) -> None:
    """All of them, in order, and nothing else. Output and status are the command's."""
    done = trace(lab, "--", "echo said; echo hello >/dev/eudyptula; exit 3")
    assert (done.returncode, done.stdout) == (3, "said\n"), done.stderr
    found = traced(done.stderr)
    assert found[:2] == ["driver_open", "driver_write"]
    assert "vfs_write" not in found
    assert "eudyptula: the command" not in done.stderr


def test_what_is_asked_for_is_traced(lab: Lab) -> None:
    """A function of the module, one of the kernel's that it was not asked for, and an event."""
    done = trace(
        lab, f"--module={PLANTED}", "--function=control_*", "--event=sched:sched_process_exec",
        "--", f"/bin/true; echo warn >{CONTROL}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(traced(done.stderr)) == {"control_write"}
    assert re.search(r"sched_process_exec: filename=/(usr/)?bin/true ", done.stderr)
    assert "the kernel has reported meanwhile: splat: WARNING" in done.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--function=nothing_at_all", "no function to trace that matches 'nothing_at_all'"),
        ("--event=sched:nothing", "no event to trace that matches 'sched:nothing'"),
    ],
)
def test_what_the_kernel_does_not_have(lab: Lab, option: str, said: str) -> None:
    """It is said, and the command does not run."""
    done = trace(lab, option, "--", "echo ran")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr


def test_a_kernel_that_dies_while_it_is_traced(lab: Lab) -> None:
    """The trace up to then is there, and the reason is told as in a shell."""
    command = f"echo 1 >/proc/sys/kernel/panic_on_oops; echo panic >{CONTROL}"
    done = trace(lab, f"--module={PLANTED}", "--", command)
    assert done.returncode == 1, done.stderr
    assert "panic: kernel panic: planted" in done.stderr
