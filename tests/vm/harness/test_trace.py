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
PACKAGE_SECONDS = 900  # with bpftrace downloaded, and a guest that is larger by 250 MB booted

pytestmark = pytest.mark.timeout(2 * SECONDS)


def trace(lab: Lab, *arguments: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [sys.executable, "-m", "invoke", "trace", f"--kernel={lab.kernel.spec.asked}", *arguments],
        cwd=config.PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=seconds,
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


has_btf = pytest.mark.needs(config="CONFIG_DEBUG_INFO_BTF")


@has_btf
@pytest.mark.timeout(2 * PACKAGE_SECONDS)
def test_a_program_for_bpftrace(lab: Lab) -> None:
    """It looks at arguments, and counts. Output and status are the command's.

    Of a module that was built with a description of its types it knows those as well.
    """
    program = (
        "kprobe:driver_write { $file = (struct file *)arg0; @[comm] = count(); "
        'printf("%d bytes to %s\\n", arg2, str($file->f_path.dentry->d_name.name)); }\n'
    )
    described = b".BTF\0" in lab.build(str(config.MODULE)).main.loadable.read_bytes()
    if described:
        program += (
            "fentry:waitqueues:driver_open "
            '{ printf("opens %s\\n", str(args->file->f_path.dentry->d_name.name)); }\n'
        )
    command = "echo said; echo hello >/dev/eudyptula; exit 3"
    done = trace(lab, f"--bpf={program}", "--", command, seconds=PACKAGE_SECONDS)
    assert (done.returncode, done.stdout) == (3, "said\n"), done.stderr
    assert "6 bytes to eudyptula\n" in done.stderr
    assert "@[sh]: 1\n" in done.stderr
    assert ("opens eudyptula\n" in done.stderr) is described


@has_btf
@pytest.mark.timeout(2 * PACKAGE_SECONDS)
def test_a_program_that_bpftrace_does_not_take(lab: Lab) -> None:
    """It says why, and the command does not run."""
    done = trace(lab, "--bpf=kprobe:driver_write {", "--", "echo ran", seconds=PACKAGE_SECONDS)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "syntax error" in done.stderr
    assert "bpftrace does not run this program" in done.stderr
