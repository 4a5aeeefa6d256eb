# SPDX-License-Identifier: GPL-2.0-only
"""Nothing is left running: not after Ctrl-C, not after kill -9, not beside another run."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.machines import freeze, pool
from harness.machines.clone import MARK_SECONDS, clone
from harness.qemu import Machine, argv
from harness.qemu.agent import Agent
from harness.qemu.snapshot import Snapshot
from harness.testing import Guest, HostError, Lab

SECONDS = 120.0
# They start runs of pytest, which take longer than one test may.
pytestmark = pytest.mark.timeout(5 * SECONDS)
TRIAL = "tests/vm/contract/test_contract.py::test_thread_waits_until_there_is_something_to_do"


@contextmanager
def trial(lab: Lab, results: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run of one machine test, in a process of its own."""
    # A run in the background may have been started with Ctrl-C ignored; this one is not.
    command = [
        "env",
        "--default-signal=INT",
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        TRIAL,
    ]
    command += [f"--kernel={lab.kernel.name}", f"--results={results}"]
    with subprocess.Popen(
        command, cwd=config.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def descendants(pid: int) -> list[int]:
    """All processes below ``pid``."""
    found: list[int] = []
    for children in list(Path(f"/proc/{pid}/task").glob("*/children")):
        with suppress(OSError):  # it may end while its files are read
            for child in children.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def machine_of(process: subprocess.Popen[bytes]) -> int:
    """The pid of the QEMU that a run has started, once there is one."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "the run ended before it had a machine"
        for pid in descendants(process.pid):
            try:
                # A clone, and not the `qemu-system-x86_64 --version` before it.
                if b"-incoming" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
            except OSError:
                continue  # it ended meanwhile
        time.sleep(0.01)  # the kernel has no event for a grandchild
    raise AssertionError("no machine was started")


def gone(pidfd: int) -> bool:
    """Whether the process ends within the time that a loaded host may need for it."""
    return bool(select.select([pidfd], [], [], SECONDS)[0])


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_machine_ends_with_the_harness(lab: Lab, sent: signal.Signals, tmp_path: Path) -> None:
    """QEMU dies with a run that is killed, terminated or interrupted."""
    lab.template()
    with trial(lab, tmp_path) as process:
        machine = os.pidfd_open(machine_of(process))
        process.send_signal(sent)
        process.wait(SECONDS)
        assert gone(machine)


def test_two_runs_at_once_do_not_disturb_each_other(lab: Lab, tmp_path: Path) -> None:
    """The same test in two runs at the same time is green in both."""
    lab.template()
    with trial(lab, tmp_path / "1") as one, trial(lab, tmp_path / "2") as two:
        said = [process.communicate(timeout=SECONDS)[0].decode() for process in (one, two)]
        assert [(one.returncode, two.returncode), said] == [(0, 0), said]


def test_the_next_run_removes_what_a_killed_one_left(lab: Lab, tmp_path: Path) -> None:
    """The scratch folder of a killed run is gone once another run has begun."""
    lab.template()
    with trial(lab, tmp_path) as process:
        machine_of(process)
        left = [
            folder
            for folder in (lab.cache.root / "tmp").iterdir()
            if f"-{process.pid}-" in folder.name
        ]
        assert left
        process.kill()
        process.wait(SECONDS)
    with trial(lab, tmp_path) as process:
        process.communicate(timeout=SECONDS)
    assert [folder for folder in left if folder.exists()] == []


def first_command(lab: Lab) -> str:
    """What the first command says in a machine that is made for this."""
    with closing(pool.open_clone(lab.template(), lab.cache)) as clone, clone:
        return clone.guest.check("echo well")


@pytest.mark.parametrize(
    ("of", "moment"),
    [(Snapshot, "load"), (Machine, "execute"), (Agent, "order"), (Machine, "ssh_stream"),
     (Guest, "check")],
)  # fmt: skip
def test_a_machine_that_is_killed_while_it_is_made_ready_is_the_hosts_fault(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, of: type, moment: str
) -> None:
    """As a host without memory does it: whoever wants the machine learns that, and how.

    QEMU is killed before the first call of one of the methods that make a machine ready, or
    before the guest's first command.
    """
    assert first_command(lab) == "well\n"
    machines: list[Machine] = []
    start, original = Machine.start, getattr(of, moment)

    def starting(machine: Machine, *arguments: Any, **named: Any) -> None:
        start(machine, *arguments, **named)
        machines.append(machine)

    def killing(it: object, *arguments: object, **named: object) -> object:
        if len(machines) == 1:
            os.kill(machines[0].pid, signal.SIGKILL)
        return original(it, *arguments, **named)

    monkeypatch.setattr(Machine, "start", starting)
    monkeypatch.setattr(of, moment, killing)
    with pytest.raises(HostError, match="was killed by SIGKILL"):
        first_command(lab)


def test_a_host_that_refuses_a_second_machine_says_nothing_of_the_first(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose trial clones cannot be started is not remembered as one to be booted."""
    template = lab.template()
    with lab.cache.scratch("refused") as folder:
        program = folder / "qemu"
        program.write_text(
            "#!/bin/sh\n"
            'case "$*" in *-incoming*)\n'
            """echo "cannot set up guest memory 'ram': Cannot allocate memory" >&2; exit 1;;\n"""
            f'esac\nexec {argv.QEMU} "$@"\n'
        )
        program.chmod(0o755)
        monkeypatch.setattr(argv, "QEMU", str(program))
        with pytest.raises(HostError, match="QEMU did not start") as caught:
            freeze._boot_and_freeze(template.spec, lab.image.keys, folder)
        assert "Cannot allocate memory" in str(caught.value)


def test_a_command_gets_its_time_although_qemu_stood_still(lab: Lab) -> None:
    """As when a laptop was suspended or a container frozen: not the guest was late."""
    with closing(pool.open_clone(lab.template(), lab.cache)) as clone:
        machine, guest = clone.machine, clone.guest
        timeout = 1.5
        limit = guest.patience(timeout).seconds
        with guest.spawn("cat") as process:
            os.kill(machine.pid, signal.SIGSTOP)
            held = threading.Timer(2 * limit, os.kill, (machine.pid, signal.SIGCONT))
            held.start()
            try:
                process.send(b"well\n")
                assert process.read_line(timeout) == "well"
            finally:
                held.join()
        machine.agent.mark(machine.patience(MARK_SECONDS))
        assert [seconds > limit for _, seconds in machine.stalls] == [True]


@pytest.mark.parametrize("test", ["test_talks", "test_is_heard"])
def test_a_full_disk_is_the_hosts_fault_at_once(lab: Lab, test: str, tmp_path: Path) -> None:
    """What the guest says from then on is lost, so nobody waits for it, nor blames the guest."""
    lab.template()
    room = 2 << 20  # bytes; the console of a guest that goes on talking needs more
    starved = Path(__file__).parent / "starved.py"
    done = subprocess.run(
        ["bwrap", "--die-with-parent", "--dev-bind", "/", "/",
         "--size", str(room), "--tmpfs", str(lab.cache.root / "tmp"),
         sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--kernel={lab.kernel.name}",
         f"--results={tmp_path}", f"{starved}::{test}"],
        cwd=config.PROJECT, capture_output=True, check=False, timeout=10 * SECONDS,
    )  # fmt: skip
    said = done.stdout.decode()
    assert "host fault: no space left in " in said
    assert "lost:" not in said
    assert done.returncode == HostError.exit_status, said


@pytest.mark.parametrize("used", [True, False])
def test_no_thread_outlives_a_clone(lab: Lab, used: bool) -> None:
    """The deadlines of SSH are watched in threads, and so is what the guest says."""
    template = lab.template()
    with lab.cache.scratch("threads") as folder, clone(template, folder) as running:
        if used:
            assert running.guest.check("echo well") == "well\n"
    assert [
        thread for thread in threading.enumerate() if thread.name.startswith("harness-ssh")
    ] == []
