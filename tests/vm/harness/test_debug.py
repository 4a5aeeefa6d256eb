# SPDX-License-Identifier: GPL-2.0-only
"""`invoke debug` as it is used: gdb at a module's first instruction, in it, and where a test broke.

gdb runs scripts here, and what it prints is looked at.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import config
from harness.build import symbols
from harness.errors import InputError
from harness.examine import relocations
from harness.host.proc import Deadline
from harness.machines import pool
from harness.qemu.debug import private_socket
from harness.qemu.stub import Stub
from harness.testing import Guest, Lab

PLANTED = Path(__file__).parent / "planted"
SECONDS = 300

pytestmark = [
    pytest.mark.timeout(2 * SECONDS),
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]


def debug(lab: Lab, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [sys.executable, "-m", "invoke", "debug", f"--kernel={lab.kernel.spec.asked}",
         f"--script={script}", *arguments],
        cwd=config.PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=SECONDS,
    )  # fmt: skip


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The commands for gdb; each test writes its own."""
    return tmp_path / "script"


@pytest.fixture
def with_symbols(lab: Lab) -> None:
    """Debian has the symbols of this kernel, and they are in the cache.

    It has those of a kernel for as long as the kernel itself, which may be in the cache for longer.
    """
    try:
        symbols.have(symbols.facts(lab.kernel), lab.cache)
    except InputError as error:
        pytest.skip(str(error.what))


needs_drgn = pytest.mark.skipif(
    importlib.util.find_spec("drgn") is None, reason="drgn is not installed"
)


def test_a_breakpoint_is_met_by_what_runs_in_the_guest(lab: Lab, script: Path) -> None:
    """With its line, its arguments and the module's variables; before it there was no write."""
    script.write_text("backtrace 1\nprint count\nprint pending\nprint accepted\n")
    done = debug(lab, script, "--break=driver_write", "--", "echo hello >/dev/eudyptula")
    assert done.returncode == 0, done.stderr
    (line,) = re.findall(r"^#0 .*", done.stdout, re.MULTILINE)
    assert re.search(r" driver_write \(.*\) at /mnt/module/waitqueues\.c:\d+$", line), done.stdout
    assert "$1 = 6\n$2 = 0\n$3 = 0\n" in done.stdout


def test_it_begins_before_the_modules_init(lab: Lab, script: Path) -> None:
    """All of the module is there, and nothing of it has run; then its init does."""
    script.write_text(
        "print control\nprint __this_module.state\nbreak planted_init\ncontinue\nbacktrace 1\n"
    )
    done = debug(lab, script, f"--module={PLANTED}")
    assert done.returncode == 0, done.stderr
    assert "$1 = (struct dentry *) 0x0" in done.stdout
    assert "$2 = MODULE_STATE_COMING" in done.stdout
    assert re.search(r"^#0 .*planted_init \(\) at /mnt/module/planted\.c:\d+$", done.stdout, re.M)


def test_gdb_does_not_wait_for_what_never_comes(lab: Lab, script: Path) -> None:
    """The command ends, its output and its status are there, and gdb is interrupted."""
    script.write_text("echo here\\n")
    done = debug(
        lab, script, f"--module={PLANTED}", "--break=planted_warn", "--", "echo said; exit 3"
    )
    assert done.returncode == 0, done.stderr
    assert "said\n" in done.stdout
    assert "here\n" in done.stdout
    assert "ended with status 3" in done.stderr


def test_a_module_that_does_not_load(lab: Lab, script: Path, tmp_path: Path) -> None:
    """The kernel refuses it before its init, so that gdb would wait for nothing."""
    source = tmp_path / "numbered"
    source.mkdir()
    (source / "numbered.c").write_text(
        "#include <linux/module.h>\n"
        "static int number;\n"
        "module_param(number, int, 0);\n"
        "static int __init numbered_init(void)\n{\n\treturn 0;\n}\n"
        "module_init(numbered_init);\n"
        'MODULE_LICENSE("GPL");\nMODULE_DESCRIPTION("takes a number");\n'
    )
    script.write_text("")
    done = debug(lab, script, f"--module={source}", "--param=number=none")
    assert done.returncode == 1, done.stdout
    assert "numbered does not load" in done.stderr
    assert "Invalid parameters" in done.stderr


def test_a_place_that_is_not_there(lab: Lab, script: Path) -> None:
    """It is said at once, in gdb's words."""
    script.write_text("")
    done = debug(lab, script, "--break=no_such_function")
    assert done.returncode == 2, done.stderr
    assert 'Function "no_such_function" not defined' in done.stderr
    assert "target remote" not in done.stdout


def test_the_sections_are_where_the_kernel_says(lab: Lab, tmp_path: Path) -> None:
    """What is read from the module's memory, beside what the kernel has in /sys/module."""
    module = lab.build(str(PLANTED))
    clone = pool.open_clone(lab.template(), lab.cache)
    try:
        guest = clone.guest
        guest.put(module.loadable, "/root/planted.ko")
        guest.check("insmod /root/planted.ko")
        said = guest.check("cd /sys/module/planted/sections && grep -s '' .[!.]* *")
        true = dict(line.split(":", 1) for line in said.splitlines())
        ways = relocations.relocations(lab.kernel.sysroot.root, module.loadable)
        deadline = Deadline(SECONDS)
        with private_socket() as path:
            clone.machine.debugger.listen(path, deadline)
            with Stub(path, deadline) as stub:
                found = relocations.sections(
                    ways,
                    {".text": int(true[".text"], 16)},
                    lambda address, size: stub.memory(address, size, deadline),
                )
                stub.let_go(deadline)
        # It runs on, with no debugger.
        assert guest.check("echo here") == "here\n"
    finally:
        clone.close()
    # The kernel has freed what is only for init, and says nothing of .bss where it is empty.
    both = set(found) & set(true)
    assert {".text", ".data", ".bss", ".rodata"} <= both, found
    assert {name: int(found[name], 16) for name in both} == {
        name: int(true[name], 16) for name in both
    }


def test_the_kernels_own_functions(lab: Lab, script: Path, with_symbols: None) -> None:
    """With their lines and types, and the way to the module through them."""
    script.write_text("backtrace 3\nup\nprint file->f_op\nprint init_task.comm\n")
    done = debug(
        lab, script, "--symbols", "--break=driver_write", "--", "echo hello >/dev/eudyptula"
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^#1 .* vfs_write \(.*\) at fs/read_write\.c:\d+$", done.stdout, re.M)
    assert re.search(r"= \(const struct file_operations \*\) 0x\w+ <mfops>$", done.stdout, re.M)
    assert '"swapper/0' in done.stdout


def test_what_is_missing_is_said(lab: Lab, script: Path) -> None:
    """Without those symbols, and with the word that gets them."""
    script.write_text("")
    facts = symbols.facts(lab.kernel)
    # Another process may download them meanwhile.
    before = symbols.are_there(facts, lab.cache)
    done = debug(lab, script, "--break=vfs_write")
    if lab.kernel.vmlinux is not None:
        pytest.skip("this kernel has its own symbols")
    assert done.returncode == 2, done.stdout
    assert 'Function "vfs_write" not defined' in done.stderr
    said = re.search(r"--symbols (takes them|downloads)", done.stderr)
    assert said
    possible = {before, symbols.are_there(facts, lab.cache)}
    assert (said[1] == "takes them") in possible


@needs_drgn
def test_drgn_looks_into_a_machine_that_runs(lab: Lab, script: Path, with_symbols: None) -> None:
    """At the module's variables when the command has ended, and at where its thread sleeps."""
    script.write_text(
        "from drgn.helpers.linux.pid import for_each_task\n"
        "print('accepted', int(prog['accepted']))\n"
        "for task in for_each_task(prog):\n"
        "    if task.comm.string_() == b'eudyptula':\n"
        "        print(prog.stack_trace(task))\n"
    )
    command = "echo hello >/dev/eudyptula; echo said"
    done = debug(lab, script, "--drgn", "--symbols", "--", command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("said\naccepted 1\n")
    assert re.search(r"^#\d+ +thread_runner \(/mnt/module/waitqueues\.c:", done.stdout, re.M)
    assert re.search(r"^#\d+ +schedule \(kernel/sched/core\.c:", done.stdout, re.M)


WARN = "echo kept >/tmp/mark; echo warn >/sys/kernel/debug/planted"
PANIC = "echo panic >/sys/kernel/debug/planted"


def red(lab: Lab, tmp_path: Path, *options: str, command: str = WARN) -> str:
    """What is printed by a run of one test that is red with the module loaded."""
    trial = tmp_path / "test_red.py"
    trial.write_text(f"def test_red(loaded):\n    loaded.check({command!r})\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options,
         f"--kernel={lab.kernel.spec.asked}", f"--module={PLANTED}",
         "-c", str(config.PROJECT / "pyproject.toml"), f"--rootdir={tmp_path}",
         f"--results={tmp_path / 'results'}", str(trial)],
        cwd=config.PROJECT, capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_what_a_red_test_has_left(lab: Lab, script: Path, tmp_path: Path) -> None:
    """The module's variables as they were, and its functions where they were."""
    said = red(lab, tmp_path)
    left = re.search(r"invoke shell --resume (\S+)", said)
    assert left, said
    script.write_text("print control\ninfo line planted_warn\n")
    done = debug(lab, script, f"--test={left[1]}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\$1 = \(struct dentry \*\) 0xf\w+$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r'^Line \d+ of "/mnt/module/planted\.c" ', done.stdout, re.MULTILINE)


def test_where_a_kernel_has_panicked(
    lab: Lab, script: Path, tmp_path: Path, with_symbols: None
) -> None:
    """Found by its name in results of another folder: registers, and the way to the panic."""
    assert "panic: kernel panic: planted" in red(lab, tmp_path, command=PANIC)
    script.write_text("info registers rip\nbacktrace\n")
    done = debug(lab, script, "--test=test_red", f"--results={tmp_path / 'results'}", "--symbols")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^rip +0x\w+", done.stdout, re.MULTILINE)
    called = re.findall(r"^#\d+ .*?(\w+) \(.*\) at (\S+):\d+$", done.stdout, re.MULTILINE)
    way = [(name, Path(file).name) for name, file in called]
    assert way.index(("panic", "panic.c")) < way.index(("planted_fatal", "planted.c"))
    assert way.index(("planted_fatal", "planted.c")) < way.index(("vfs_write", "read_write.c"))
    assert "console.log" in done.stderr


@needs_drgn
def test_drgn_reads_the_dump_of_a_panic(
    lab: Lab, script: Path, tmp_path: Path, with_symbols: None
) -> None:
    """It says which kernel it is of; the module's variables, the processor's stack, the log."""
    red(lab, tmp_path, command=PANIC)
    script.write_text(
        "from drgn.helpers.linux import cpu_curr, get_dmesg\n"
        "print('release', prog['UTS_RELEASE'].string_().decode())\n"
        "print('control', int(prog['control']) != 0)\n"
        "print(prog.stack_trace(cpu_curr(prog, 0)))\n"
        "print(get_dmesg(prog).decode())\n"
    )
    done = debug(
        lab, script, "--test=test_red", f"--results={tmp_path / 'results'}", "--drgn", "--symbols"
    )
    assert done.returncode == 0, done.stderr
    assert f"release {lab.kernel.release}\ncontrol True\n" in done.stdout
    assert re.search(r"^#\d+ +planted_fatal \(/mnt/module/planted\.c:\d+", done.stdout, re.M)
    assert "Kernel panic - not syncing: planted" in done.stdout
    assert "memory.kdump" in done.stderr


@contextlib.contextmanager
def kept(lab: Lab, tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A machine that runs on after its test was red: its port for SSH, and the test's folder.

    It is ended at the end.
    """
    said = red(lab, tmp_path, "--keep")
    found = re.search(
        r"runs on: ssh -p (\d+) .*\n *`kill (\d+)` .*\n *gdb in it: invoke debug --attach (\S+)",
        said,
    )
    assert found, said
    keeper = os.pidfd_open(int(found[2]))
    try:
        yield int(found[1]), found[3]
    finally:
        signal.pidfd_send_signal(keeper, signal.SIGTERM)
        # It is not this process's child, so its end is seen by its descriptor.
        assert select.select([keeper], [], [], SECONDS)[0]


def test_a_machine_that_was_kept(lab: Lab, script: Path, tmp_path: Path) -> None:
    """gdb comes and goes, and the machine runs on; until it is ended."""
    script.write_text("print control\n")
    with kept(lab, tmp_path) as (port, folder):
        for _ in range(2):
            done = debug(lab, script, f"--attach={folder}")
            assert done.returncode == 0, done.stderr
            assert re.search(r"^\$1 = \(struct dentry \*\) 0xf\w+$", done.stdout, re.MULTILINE)
        with Guest.connect(port, lab.image.keys) as guest:
            assert guest.check("cat /tmp/mark") == "kept\n"
    done = debug(lab, script, f"--attach={folder}")
    assert done.returncode == 2, done.stdout
    assert "does not run" in done.stderr
    assert "invoke debug --test" in done.stderr


@needs_drgn
def test_drgn_in_a_machine_that_was_kept(
    lab: Lab, script: Path, tmp_path: Path, with_symbols: None
) -> None:
    """It comes and goes as gdb does."""
    script.write_text("print('control', int(prog['control']) != 0)\n")
    with kept(lab, tmp_path) as (port, folder):
        for _ in range(2):
            done = debug(lab, script, f"--attach={folder}", "--drgn", "--symbols")
            assert (done.returncode, done.stdout) == (0, "control True\n"), done.stderr
        with Guest.connect(port, lab.image.keys) as guest:
            assert guest.check("cat /tmp/mark") == "kept\n"
