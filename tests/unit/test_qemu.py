# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu.py: the command line, and what becomes of a machine that fails.

The machines here are a Python script that speaks as much of QEMU's monitor as is needed;
nothing is booted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from harness import qemu
from harness.cache import Cache
from harness.errors import (
    BootError,
    HostError,
    MachineError,
    MachineFault,
    MissingToolError,
    SpaceError,
    StateError,
)
from harness.proc import Deadline
from harness.qemu import Machine, MachineSpec, Pulse, Wiring

PATIENCE = 20.0
SPEC = MachineSpec(Path("/cache/vmlinuz"), Path("/cache/initrd.cpio"))
WIRING = Wiring(Path("/run/console.log"))


def options(spec: MachineSpec = SPEC, wiring: Wiring = WIRING) -> list[tuple[str, str]]:
    """QEMU's command line as (option, value); a value is empty where there is none."""
    words = qemu.argv(spec, wiring)[1:]
    found = []
    for word, following in zip(words, [*words[1:], "-"], strict=True):
        if word.startswith("-"):
            found.append((word, "" if following.startswith("-") else following))
    return found


def values(option: str, found: list[tuple[str, str]]) -> list[str]:
    return [value for name, value in found if name == option]


def only(option: str, found: list[tuple[str, str]]) -> str:
    (value,) = values(option, found)
    return value


# -- the command line --------------------------------------------------------------


def test_the_guest_reaches_nothing_and_only_this_host_reaches_it() -> None:
    """No way out of the user network, and SSH forwarded from 127.0.0.1 alone."""
    network = only("-netdev", options()).split(",")
    assert "restrict=on" in network
    forwards = [part for part in network if part.startswith(("hostfwd", "guestfwd"))]
    assert forwards == [
        "hostfwd=tcp:127.0.0.1:0-:22",
        f"guestfwd=tcp:{qemu.SSH_ADDRESS}:22-chardev:ssh",
    ]
    # Which is a descriptor of the harness's, and no other way out.
    ssh = [channel for channel in values("-chardev", options()) if "id=ssh" in channel]
    assert ssh == [f"socket,id=ssh,fd={WIRING.ssh_fd}"]


def test_nothing_of_the_users_shapes_the_machine() -> None:
    """Neither QEMU's default devices nor a configuration file of the host's."""
    found = options()
    for option in ("-nodefaults", "-no-user-config", "-no-reboot"):
        assert (option, "") in found
    assert only("-display", found) == "none"


def test_a_guest_that_panics_is_kept() -> None:
    """A panic stops the machine, to be looked at, and is reported."""
    found = options()
    assert "panic=pause" in only("-action", found)
    assert "pvpanic" in values("-device", found)


def test_the_emulated_cpu_has_all_that_works() -> None:
    """Without KVM: what TCG can do, but for an instruction that spoils the flags."""
    found = options(replace(SPEC, accelerator="tcg"))
    assert only("-accel", found).startswith("tcg")
    assert only("-cpu", found) == "max,-cx16"


def test_kvm_has_the_hosts_cpu() -> None:
    """With KVM: the host's own."""
    found = options(replace(SPEC, accelerator="kvm"))
    assert only("-accel", found) == "kvm"
    assert only("-cpu", found) == "host"


def test_memory_and_cpus_are_as_asked_for() -> None:
    """The backend and the machine agree on the size."""
    found = options(replace(SPEC, memory_mib=768, cpus=3))
    assert only("-m", found) == "768M"
    assert "size=768M" in only("-object", found).split(",")
    assert only("-smp", found) == "3,maxcpus=3"


def test_there_can_always_be_a_second_cpu() -> None:
    """Else TCG leaves out barriers, and a virtio device's interrupt may be missed."""
    assert only("-smp", options(replace(SPEC, cpus=1))) == "1,maxcpus=2"


@pytest.mark.parametrize(("share", "said"), [(True, "share=on"), (False, "share=off")])
def test_memory_in_a_file_is_written_to_or_mapped_privately(share: bool, said: str) -> None:
    """A template writes its memory's file; a clone must never."""
    wiring = replace(WIRING, memory=Path("/cache/memory"), share=share)
    backend = only("-object", options(wiring=wiring)).split(",")
    assert backend[0] == "memory-backend-file"
    assert said in backend
    assert "mem-path=/cache/memory" in backend


def test_without_a_file_memory_is_qemus_own() -> None:
    """A machine that is only booted leaves no file."""
    backend = only("-object", options()).split(",")
    assert backend[0] == "memory-backend-ram"
    assert not any(part.startswith("mem-path") for part in backend)


def test_a_clone_waits_for_its_state_and_nothing_else_does() -> None:
    """-incoming only where a state is to be loaded."""
    assert values("-incoming", options()) == []
    assert only("-incoming", options(wiring=replace(WIRING, incoming=True))) == "defer"


def test_everything_but_the_process_is_the_same_for_template_and_clone() -> None:
    """A state fits only a machine of the same shape: memory's backing and -incoming aside."""
    template = options(wiring=replace(WIRING, memory=Path("/m"), share=True))
    clone = options(wiring=replace(WIRING, memory=Path("/m"), incoming=True))
    differ = {name for name, _ in set(template) ^ set(clone)}
    assert differ == {"-object", "-incoming"}


def test_the_monitor_and_the_control_port_are_descriptors() -> None:
    """No socket in the file system, which another user might open."""
    wiring = replace(WIRING, qmp_fd=17, control_fd=23)
    channels = values("-chardev", options(wiring=wiring))
    assert any("socket" in channel and "fd=17" in channel for channel in channels)
    assert any("socket" in channel and "fd=23" in channel for channel in channels)
    assert not any("path=" in channel for channel in channels if channel.startswith("socket"))


def test_commas_in_paths_survive() -> None:
    """Where QEMU splits at commas they are doubled; -kernel and -initrd are plain paths."""
    spec = replace(SPEC, kernel=Path("/a,b/vmlinuz"), initrd=Path("/a,b/initrd"))
    wiring = Wiring(Path("/a,b/console"), memory=Path("/a,b/memory"))
    found = options(spec, wiring)
    assert "mem-path=/a,,b/memory" in only("-object", found)
    assert any("path=/a,,b/console" in channel for channel in values("-chardev", found))
    assert only("-kernel", found) == "/a,b/vmlinuz"
    assert only("-initrd", found) == "/a,b/initrd"


def test_the_tests_kernel_options_come_last() -> None:
    """They win over the harness's own."""
    append = only("-append", options(replace(SPEC, append=("panic=0", "slub_debug=FZ"))))
    assert append.endswith(" panic=0 slub_debug=FZ")
    assert "console=ttyS0" in append.split()


# -- deadlines ---------------------------------------------------------------------


def test_what_the_host_kept_a_guest_waiting_for_does_not_count() -> None:
    """A deadline is put off by that, and by nothing that was before it."""
    waited = 500.0
    patience = qemu.Patience(0.0, lambda: waited)
    assert patience.expired
    waited += 1000.0
    assert not patience.expired
    assert 900.0 < patience.left <= 1000.0
    waited = 0.0  # QEMU is gone, and nobody knows any more
    assert patience.expired


# -- the offered session -----------------------------------------------------------

# An SSH server's first words: its name, and a packet of five bytes.
GREETING = b"SSH-2.0-dropbear_1\r\n" + b"\0\0\0\5" + b"kexes"


def test_a_greeting_is_complete_with_its_last_byte() -> None:
    """Not before, however it is cut; and what comes after it is not part of it."""
    for length in range(len(GREETING)):
        assert qemu.ssh_greeting(GREETING[:length]) is None
    assert qemu.ssh_greeting(GREETING) == GREETING
    assert qemu.ssh_greeting(GREETING + b"more") == GREETING


def test_the_last_words_of_a_former_session_are_no_greeting() -> None:
    """What precedes the server's name was encrypted for somebody else."""
    assert qemu.ssh_greeting(b"\x8f\r\n\0\0\0\1x" + GREETING) == GREETING


# -- the shape ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, accelerator="kvm"),
        replace(SPEC, memory_mib=1024),
        replace(SPEC, cpus=2),
        replace(SPEC, append=("slub_debug=FZ",)),
    ],
)
def test_whatever_shapes_the_machine_is_in_its_shape(
    monkeypatch: pytest.MonkeyPatch, other: MachineSpec
) -> None:
    """A frozen state is never loaded into a machine that is built otherwise."""
    monkeypatch.setattr(qemu, "version_text", lambda: "QEMU emulator version 9.0.0")
    assert qemu.shape(other) != qemu.shape(SPEC)


def test_another_qemu_is_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """States do not move between versions."""
    monkeypatch.setattr(qemu, "version_text", lambda: "QEMU emulator version 9.0.0")
    before = qemu.shape(SPEC)
    monkeypatch.setattr(qemu, "version_text", lambda: "QEMU emulator version 9.0.1")
    assert qemu.shape(SPEC) != before


def test_where_a_machine_runs_is_no_part_of_its_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same machine in another folder, of another cache, finds the same template.

    Kernel and initramfs count by their content, which the template's key has.
    """
    monkeypatch.setattr(qemu, "version_text", lambda: "QEMU emulator version 9.0.0")
    before = qemu.shape(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    elsewhere = replace(SPEC, kernel=tmp_path / "vmlinuz", initrd=tmp_path / "initrd.cpio")
    assert qemu.shape(elsewhere) == before
    assert not any(str(WIRING.console) in word for word in before)


# -- versions and texts ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", (7, 2)),
        ("QEMU emulator version 10.0.7 (Debian 1:10.0.7+ds-0+deb13u1)", (10, 0)),
        ("QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1.10)", (8, 2)),
    ],
)
def test_new_enough_versions_are_read(text: str, version: tuple[int, int]) -> None:
    """Numbers are compared as numbers: 10 is newer than 7."""
    assert qemu.version_in(text) == version


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6)", "6.2"),
        ("QEMU emulator version 7.1.0", "7.1"),
        ("", "''"),
        ("command not understood", "not understood"),
    ],
)
def test_what_is_too_old_or_unreadable_is_told(text: str, named: str) -> None:
    """The error has what was found; the harness does not try its luck."""
    with pytest.raises(MissingToolError) as caught:
        qemu.version_in(text)
    assert named in caught.value.what


@contextlib.contextmanager
def ignored_leaks() -> Iterator[None]:
    """Keep what was left open from being blamed on whichever test runs when it is collected."""
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


# -- a process that answers as QEMU does -------------------------------------------

FAKE_QEMU = """\
import json, os, re, socket, sys
line = " ".join(sys.argv)
act = os.environ["FAKE_QEMU"]
if act == "hates-kvm":
    if " kvm " in line:
        os.abort()
    act = "ready"
if act == "refuses":
    sys.exit("qemu: -accel nonesuch: invalid accelerator")
def channel(name):
    return socket.socket(fileno=int(re.search(rf"id={name},fd=(\\d+)", line)[1]))
qmp, control = channel("qmp"), channel("control")
console = open(re.search(r"path=(\\S+),append", line)[1], "ab", buffering=0)
def tell(**message):
    qmp.sendall(json.dumps(message).encode() + b"\\n")
def event(name, **data):
    tell(event=name, data=data, timestamp={"seconds": 0, "microseconds": 0})
version = {"qemu": {"major": 9, "minor": 0, "micro": 0}, "package": ""}
if act == "is-killed-early":
    os.kill(os.getpid(), 9)
tell(QMP={"version": version, "capabilities": []})
console.write(b"[    0.000000] Linux version\\r\\n\\x1b[31mlast words\\n")
def requests():
    text = ""
    while data := qmp.recv(65536):  # JSON without line ends, as the protocol has it
        text += data.decode()
        while text.strip():
            try:
                request, end = json.JSONDecoder().raw_decode(text.lstrip())
            except ValueError:
                break
            text = text.lstrip()[end:]
            yield request
saving = 3  # how often somebody must ask until the machine has been saved
for request in requests():
    command = request["execute"]
    same = {"id": request["id"]} if "id" in request else {}
    def answer(value):
        tell(**{"return": value}, **same)
    if command == "qmp_capabilities":
        answer({})
        if act == "ready":
            control.sendall(b"ready 1.5\\n")
        elif act == "fails":
            control.sendall(b"failed no network device\\n")
    elif command == "query-cpus-fast":
        answer([{"cpu-index": 0, "thread-id": os.getpid()}])
    elif command == "human-monitor-command":
        text = "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port\\r\\n"
        text += "  TCP[HOST_FORWARD]  12       127.0.0.1 34567       10.0.2.15    22\\r\\n"
        answer(text if act != "no-port" else "")
    elif command == "stop":
        if act == "ends":
            sys.exit(0)
        event("GUEST_PANICKED" if act == "panics" else "STOP")
        answer({})
    elif command == "say":
        control.sendall(request["arguments"]["line"].encode() + b"\\n")
        answer({})
    elif command == "quit":
        answer({})
        if act != "stays":
            sys.exit(0)
    elif command == "query-status":
        saving -= act != "clings"
        status = "finish-migrate" if saving > 0 else "postmigrate"
        status = act if act == "internal-error" else status
        answer({"running": False, "singlestep": False, "status": status})
    elif command == "cont" and saving <= 0:
        answer({})
    elif command == "migrate-set-capabilities":
        answer({})
    elif command == "migrate-incoming" and act == "misfits":
        sys.exit("qemu: load of migration failed: Invalid argument")
    elif command == "migrate-incoming":
        os.kill(os.getpid(), 9)
    elif command == "die":
        sys.exit("qemu: assertion failed")
    else:
        tell(error={"class": "CommandNotFound", "desc": f"no {command}"}, **same)
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    """Starts a machine that acts in a certain way; it ends with the test."""
    program = tmp_path / "qemu"
    program.write_text(f"#!{sys.executable} -SE\n{FAKE_QEMU}")
    program.chmod(0o755)
    monkeypatch.setattr(qemu, "QEMU", str(program))
    monkeypatch.setattr(qemu, "check_version", lambda: (9, 0))
    with contextlib.ExitStack() as stack:

        def start(act: str) -> Machine:
            monkeypatch.setenv("FAKE_QEMU", act)
            made = stack.enter_context(Machine(SPEC, tmp_path))
            made.start(Deadline(PATIENCE))
            return made

        yield start


def test_a_machine_that_does_not_start_says_why(machine: Callable[[str], Machine]) -> None:
    """QEMU's own words are in the error."""
    with ignored_leaks(), pytest.raises(MachineFault, match="did not start") as caught:
        machine("refuses")
    assert "invalid accelerator" in str(caught.value)
    assert not isinstance(caught.value, BootError)


def test_a_machine_that_does_not_start_leaves_nothing_open(
    machine: Callable[[str], Machine],
) -> None:
    """A start that fails closes what it opened: processes, sockets, files."""
    with ignored_leaks():
        machine("silent").close()  # what is opened once and kept is open now
        before = sorted(os.listdir("/proc/self/fd"))
        with pytest.raises(MachineError) as caught:
            machine("refuses")
        after = sorted(os.listdir("/proc/self/fd"))
        del caught
    assert after == before


def test_a_guest_that_is_ready_is_heard(machine: Callable[[str], Machine]) -> None:
    """The rest of the line comes back."""
    running = machine("ready")
    assert running.await_control("ready", Deadline(PATIENCE)) == "1.5"
    assert running.running
    assert not running.panicked


@pytest.mark.parametrize(
    ("act", "named"),
    [("fails", "failed no network device"), ("panics", "ready"), ("ends", "ready")],
)
def test_a_guest_that_does_not_come_up_shows_its_console(
    machine: Callable[[str], Machine], act: str, named: str
) -> None:
    """A failed init, a panic and a QEMU that ends are each noticed at once, without a timeout."""
    running = machine(act)
    with contextlib.suppress(MachineError):
        running.execute("stop", Deadline(PATIENCE))  # what ends or panics does so now
    with pytest.raises(BootError) as caught:
        running.await_control("ready", Deadline(PATIENCE))
    assert named in caught.value.what
    assert "last words" in caught.value.tail
    assert "\x1b" not in str(caught.value)
    assert "vmlinuz" in caught.value.what
    assert "within" not in caught.value.what


def test_an_answer_that_comes_too_late_is_nobody_elses(
    machine: Callable[[str], Machine],
) -> None:
    """The next order gets its own."""
    running = machine("silent")
    with pytest.raises(BootError):
        running.order("mark one", "marked", Deadline(0.2))
    for line in ("marked 1", "marked 2", "leftovers thread:x"):
        running.execute("say", Deadline(PATIENCE), line=line)
    assert running.order("mark two", "marked", Deadline(PATIENCE)) == "2"
    assert running.order("leftovers", "leftovers", Deadline(PATIENCE)) == "thread:x"


def test_an_answer_may_be_long(machine: Callable[[str], Machine]) -> None:
    """The stacks of some hundred tasks are one line."""
    running = machine("silent")
    running.execute("say", Deadline(PATIENCE), line=f"stacks {'x' * (1 << 20)}")
    assert len(running.order("stacks", "stacks", Deadline(PATIENCE))) == 1 << 20


def test_an_answer_without_an_end_is_the_guests_fault(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module can write to the control port; what it floods it with is a sentence."""
    monkeypatch.setattr(qemu, "_ANSWER_BYTES", 1 << 16)
    running = machine("silent")
    running.execute("say", Deadline(PATIENCE), line="x" * 100_000)
    with pytest.raises(BootError, match="without an end of line") as caught:
        running.order("stacks", "stacks", Deadline(PATIENCE))
    assert "last words" in caught.value.tail


def test_a_guest_that_says_nothing_is_given_up(machine: Callable[[str], Machine]) -> None:
    """At the deadline the error has the console too."""
    with pytest.raises(BootError, match="last words"):
        machine("silent").await_control("ready", Deadline(0.2))


def test_a_panic_is_remembered(machine: Callable[[str], Machine]) -> None:
    """Who asks later still learns of it; the process is kept."""
    running = machine("panics")
    running.execute("stop", Deadline(PATIENCE))
    running.await_event(
        lambda event: event["event"] == "GUEST_PANICKED", Deadline(PATIENCE), "panicking"
    )
    assert running.panicked
    assert running.running


def test_an_event_of_the_past_is_found(machine: Callable[[str], Machine]) -> None:
    """Nothing is lost between a command and the wait for what it causes."""
    running = machine("silent")
    running.execute("stop", Deadline(PATIENCE))
    for _ in range(2):
        event = running.await_event(lambda e: e["event"] == "STOP", Deadline(PATIENCE), "stopping")
        assert event["event"] == "STOP"


def test_a_wait_ends_with_the_process(machine: Callable[[str], Machine]) -> None:
    """A QEMU that is gone sends no event: the wait says so at once."""
    running = machine("silent")
    os.kill(running.pid, 9)
    with pytest.raises(MachineError, match="ended"):
        running.await_event(lambda _: False, Deadline(PATIENCE), "waiting for nothing")


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGBUS, "SIGBUS")]
)
def test_a_qemu_that_is_killed_is_the_hosts_fault(
    machine: Callable[[str], Machine], number: int, name: str
) -> None:
    """Whoever waits for the guest learns the signal, and sees what there is of the guest."""
    waits: list[Callable[[Machine], object]] = [
        lambda running: running.await_control("ready", Deadline(PATIENCE)),
        lambda running: running.execute("query-status", Deadline(PATIENCE)),
        lambda running: running.order("mark x", "marked", Deadline(PATIENCE)),
        lambda running: running.check_host(Deadline(PATIENCE)),
    ]
    for wait in waits:
        running = machine("silent")
        assert running.host_fault is None
        os.kill(running.pid, number)
        with pytest.raises(MachineFault, match=f"killed by {name}") as caught:
            wait(running)
        assert caught.value.exit_status == HostError.exit_status
        assert "last words" in caught.value.tail
        assert name in running.fault


def test_a_machine_that_is_closed_is_nobodys_fault(machine: Callable[[str], Machine]) -> None:
    """The kill was the harness's own."""
    running = machine("silent")
    running.close()
    assert running.host_fault is None
    assert running.fault == ""


def test_a_guest_that_powers_off_is_no_fault_of_the_hosts(
    machine: Callable[[str], Machine],
) -> None:
    """QEMU ends with status 0 then."""
    running = machine("silent")
    running.quit(Deadline(PATIENCE))
    running.check_host(Deadline(PATIENCE))
    with pytest.raises(BootError, match="stopped before 'ready'"):
        running.await_control("ready", Deadline(PATIENCE))


def test_a_state_that_does_not_fit_is_told_from_a_qemu_that_is_killed(
    machine: Callable[[str], Machine], tmp_path: Path
) -> None:
    """QEMU ends in both cases, and only the one says something of the state."""
    state = tmp_path / "state"
    state.write_bytes(b"")
    with pytest.raises(StateError, match="does not take the saved state"):
        machine("misfits").load(state, Deadline(PATIENCE))
    with pytest.raises(MachineFault, match="killed by SIGKILL"):
        machine("is-killed").load(state, Deadline(PATIENCE))


def test_a_command_that_qemu_refuses_is_an_error(machine: Callable[[str], Machine]) -> None:
    """QEMU's reason is in it, and the machine goes on."""
    running = machine("silent")
    with pytest.raises(MachineError, match="no nonesuch"):
        running.execute("nonesuch", Deadline(PATIENCE))
    assert running.running


def test_a_qemu_that_dies_has_its_last_words_in_the_error(
    machine: Callable[[str], Machine],
) -> None:
    """What it wrote to its standard error is the evidence."""
    with pytest.raises(MachineError) as caught:
        machine("silent").execute("die", Deadline(PATIENCE))
    assert "die" in caught.value.what
    assert "assertion failed" in str(caught.value)


def test_the_port_is_the_one_that_qemu_chose(machine: Callable[[str], Machine]) -> None:
    """From `info usernet`; without one there, an error."""
    assert machine("silent").ssh_port(Deadline(PATIENCE)) == 34567
    with pytest.raises(MachineError):
        machine("no-port").ssh_port(Deadline(PATIENCE))


def test_a_saved_machine_goes_on_once_qemu_lets_it(machine: Callable[[str], Machine]) -> None:
    """QEMU refuses for a moment after it has said that all is written."""
    machine("silent").go_on(Deadline(PATIENCE))
    with pytest.raises(MachineError, match="query-status took longer"):
        machine("clings").go_on(Deadline(0.2))


def test_quit_waits_for_the_end(machine: Callable[[str], Machine]) -> None:
    """What QEMU writes at its end is written when ``quit`` returns; who stays is told."""
    running = machine("silent")
    running.quit(Deadline(PATIENCE))
    assert not running.running
    with pytest.raises(MachineError, match="does not end"):
        machine("stays").quit(Deadline(0.2))


def test_a_closed_machine_is_gone(machine: Callable[[str], Machine]) -> None:
    """The process has ended when ``close`` returns; closing again does nothing."""
    running = machine("silent")
    running.close()
    assert not running.running
    running.close()
    with pytest.raises(MachineError):
        running.execute("stop", Deadline(PATIENCE))


# -- the accelerator ---------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """A cache of this test's own."""
    with contextlib.closing(Cache(tmp_path / "cache")) as made:
        yield made


def test_without_access_to_kvm_there_is_no_probe(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCG, with a reason."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.delattr(qemu, "booted")
    name, why = qemu.accelerator(SPEC, cache)
    assert name == "tcg"
    assert "/dev/kvm" in why


@pytest.fixture
def kernels(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], MachineSpec]:
    """Makes kernels, on a host that has a /dev/kvm; QEMU acts as the one made last wants it."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/kvm" or access(path, mode))
    monkeypatch.setattr(qemu, "PROBE_SECONDS", 0.3)

    def make(act: str) -> MachineSpec:
        monkeypatch.setenv("FAKE_QEMU", act)
        kernel = tmp_path / act
        kernel.write_text(act)
        return replace(SPEC, kernel=kernel)

    return make


@pytest.mark.parametrize(
    ("act", "answer", "why"),
    [("ready", "kvm", "has booted"), ("hates-kvm", "tcg", "killed by SIGABRT"),
     ("internal-error", "tcg", "internal error")],
)  # fmt: skip
def test_what_kvm_itself_shows_holds_for_all_kernels(
    cache: Cache, kernels: Callable[[str], MachineSpec], act: str, answer: str, why: str
) -> None:
    """A /dev/kvm that opens proves nothing; the answer is kept, so the probe is run once."""
    assert qemu.kvm_answer(cache.root) is None
    first = qemu.accelerator(kernels(act), cache)
    assert first[0] == answer
    assert why in first[1]
    assert qemu.accelerator(kernels("no QEMU is started"), cache) == first
    assert qemu.kvm_answer(cache.root) == first


@pytest.mark.parametrize("act", ["silent", "fails"])
def test_a_kernel_that_does_not_come_up_takes_kvm_from_itself_alone(
    cache: Cache, kernels: Callable[[str], MachineSpec], act: str
) -> None:
    """Somebody's broken kernel says nothing of KVM. It is not tried again either."""
    broken = kernels(act)
    first = qemu.accelerator(broken, cache)
    assert first[0] == "tcg"
    assert qemu.accelerator(kernels("ready"), cache)[0] == "kvm"
    assert qemu.kvm_answer(cache.root) is not None


def test_a_kernel_that_did_not_come_up_is_not_tried_again(
    cache: Cache, kernels: Callable[[str], MachineSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe takes seconds where KVM spins in silence."""
    broken = kernels("fails")
    first = qemu.accelerator(broken, cache)
    monkeypatch.delattr(qemu, "try_kvm")
    assert qemu.accelerator(broken, cache) == first
    assert qemu.kvm_answer(cache.root) is None


def test_a_probe_that_the_host_has_ended_is_forgotten(
    cache: Cache, kernels: Callable[[str], MachineSpec]
) -> None:
    """One bad moment would take KVM from all kernels until the host boots again."""
    unlucky = kernels("is-killed-early")
    assert qemu.accelerator(unlucky, cache)[0] == "tcg"
    assert [path.name for path in cache.root.glob("kvm-*")] == []


def test_a_host_that_runs_no_qemu_at_all_says_so(
    cache: Cache, kernels: Callable[[str], MachineSpec]
) -> None:
    """It says nothing of KVM."""
    with ignored_leaks(), pytest.raises(MachineFault, match="did not start"):
        qemu.accelerator(kernels("refuses"), cache)
    assert [path.name for path in cache.root.glob("kvm-*")] == []


@pytest.mark.parametrize("content", [b"", b"perhaps it works", b"\xff\xfe"])
def test_a_damaged_answer_is_none(
    cache: Cache, kernels: Callable[[str], MachineSpec], content: bytes
) -> None:
    """It is found out again."""
    first = qemu.accelerator(kernels("ready"), cache)
    (file,) = cache.root.glob("kvm-*")
    file.write_bytes(content)
    assert qemu.kvm_answer(cache.root) is None
    assert qemu.accelerator(kernels("ready"), cache) == first == qemu.kvm_answer(cache.root)


CPU = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 106
model name\t: Intel(R) Xeon(R)
stepping\t: 6
microcode\t: 0x1
cpu MHz\t\t: {mhz}
flags\t\t: fpu vme {flags}
address sizes\t: 46 bits physical, 57 bits virtual

processor\t: 1
vendor_id\t: GenuineIntel
"""


def test_another_processor_is_another_shape_where_the_guest_has_the_hosts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cache may be carried to another host; how fast it runs now makes no difference."""
    monkeypatch.setattr(qemu, "version_text", lambda: "QEMU emulator version 9.0.0")
    cpuinfo = tmp_path / "cpuinfo"

    def shape(accelerator: str, **facts: str) -> list[str]:
        cpuinfo.write_text(CPU.format(**{"mhz": "2600.0", "flags": "avx2"} | facts))
        monkeypatch.setattr(qemu, "CPUINFO", cpuinfo)
        return qemu.shape(replace(SPEC, accelerator=accelerator))

    assert shape("kvm", flags="avx512f") != shape("kvm")
    assert shape("kvm", mhz="1000.0") == shape("kvm")
    assert shape("tcg", flags="avx512f") == shape("tcg")


def test_console_is_read_as_it_grows(tmp_path: Path) -> None:
    """Each piece once; \r\n is a newline also where the two came apart."""
    path = tmp_path / "console.log"
    console = qemu.Console(path)
    assert console.read() == b""
    path.write_bytes(b"one\r")
    assert console.text() == "one\r"
    with path.open("ab") as file:
        file.write(b"\ntwo\xff")
    assert console.read() == b"\ntwo\xff"
    assert console.read() == b""
    assert console.text() == "one\ntwo\ufffd"
    assert console.unread == 0


def test_of_a_long_console_both_ends_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out is counted and said where it would be."""
    monkeypatch.setattr(qemu, "CONSOLE_KEPT", 10)
    path = tmp_path / "console.log"
    path.write_bytes(b"0123456789" + b"x" * 70 + b"abcdefghij")
    console = qemu.Console(path)
    assert console.text() == "0123456789\n(here 70 bytes are left out)\nabcdefghij"
    assert console.unread == 70


# -- a QEMU that stands still ------------------------------------------------------


class Clocks:
    """Two clocks of a host (clock_gettime(2)); ``later`` lets time pass."""

    def __init__(self) -> None:
        self.monotonic, self.suspended = 1000.0, 0.0

    def now(self, clock: int) -> float:
        boottime = clock == time.CLOCK_BOOTTIME
        return self.monotonic + (self.suspended if boottime else 0.0)


class Beating:
    """A pulse whose QEMU takes ``late`` seconds longer than it should for its next answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clocks = Clocks()
        self.late = self.suspended = self.waited = self.starved = 0.0
        self.seen: list[float] = []
        self.pulse = Pulse(self.answer, lambda: 42, lambda: self.starved, self.clocks.now)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.clocks.monotonic += seconds

    async def answer(self) -> None:
        self.clocks.monotonic += self.late
        self.clocks.suspended += self.suspended
        self.starved += self.waited
        self.seen.append(self.pulse.seconds)

    def beat(self, late: float, *, suspended: float = 0.0, waited: float = 0.0) -> None:
        self.late, self.suspended, self.waited = late, suspended, waited
        asyncio.run(self.pulse.beat())


@pytest.fixture
def beating(monkeypatch: pytest.MonkeyPatch) -> Beating:
    return Beating(monkeypatch)


def test_a_qemu_that_answers_in_time_does_not_stand_still(beating: Beating) -> None:
    """Nor does one that a busy host makes a little late."""
    for late in (0.001, 0.9):
        beating.beat(late)
    assert beating.pulse.seconds == 0.0
    assert beating.pulse.stalls == []


def test_what_qemu_stands_still_is_counted_while_it_lasts(beating: Beating) -> None:
    """A deadline must be put off before the answer has come."""
    beating.beat(20.0)
    assert beating.seen == [20.0]
    assert beating.pulse.seconds == 20.0
    assert beating.pulse.standing == 0.0
    beating.beat(5.0)
    assert beating.pulse.seconds == 25.0
    assert beating.pulse.stalls == [qemu.Stall(42, 20.0), qemu.Stall(42, 5.0)]


def test_what_a_cpu_waited_for_a_processor_is_not_counted_twice(beating: Beating) -> None:
    """``GuestDeadline`` has that already, from the scheduler's own numbers."""
    beating.beat(20.0, waited=15.0)
    assert beating.pulse.seconds == 5.0


def test_a_qemu_that_stands_still_for_ever_is_given_up(beating: Beating) -> None:
    """Nobody waits for it longer than that."""
    beating.beat(10 * Pulse.LONGEST)
    assert beating.seen == [Pulse.LONGEST]


def test_a_host_that_was_suspended_is_known_by_its_clocks(beating: Beating) -> None:
    """No deadline notices, but a guest's clock may have gone on."""
    beating.beat(0.0, suspended=3600.0)
    assert beating.pulse.seconds == 0.0
    assert beating.pulse.stalls == [qemu.Stall(42, 3600.0)]


def test_a_deadline_is_put_off_by_what_qemu_stands_still(machine: Callable[[str], Machine]) -> None:
    """Not the guest was late: so it gets the time that it was promised."""
    running = machine("silent")
    done = threading.Event()

    def hold() -> None:
        os.kill(running.pid, signal.SIGSTOP)
        done.wait(3.0)  # as long as it takes until nobody could take it for a busy moment
        os.kill(running.pid, signal.SIGCONT)

    holding = threading.Thread(target=hold)
    deadline = Deadline(2.5)
    holding.start()
    try:
        running.execute("say", deadline, line="well")
    finally:
        done.set()
        holding.join()
    assert deadline.expired
    (stall,) = running.stalls
    assert stall[1] > Pulse.TOLERATED


def test_who_gives_up_a_qemu_that_stands_still_blames_the_host(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the state of its process."""
    monkeypatch.setattr(Pulse, "LONGEST", 0.0)
    running = machine("silent")
    os.kill(running.pid, signal.SIGSTOP)
    try:
        with pytest.raises(MachineFault, match=r"stood still for \d+ s \(state T \(stopped\)\)"):
            running.await_control("ready", Deadline(3.0))
    finally:
        os.kill(running.pid, signal.SIGCONT)


# -- a disk that is full -----------------------------------------------------------


def test_a_machine_whose_disk_is_full_ends_and_says_so(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the guest prints is lost from then on: nobody waits for it until the time is up."""
    running = machine("silent")
    assert qemu.no_space(tmp_path) is None
    full = SpaceError("no space left in /somewhere", hint="free some")
    monkeypatch.setattr(qemu, "no_space", lambda *_, **__: full)
    with pytest.raises(MachineFault, match="no space left in /somewhere") as caught:
        running.await_control("ready", Deadline(PATIENCE))
    assert caught.value.hint == "free some"
    assert caught.value.exit_status == SpaceError.exit_status
    assert running.fault.startswith("no space left in /somewhere")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_is_full_when_a_write_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    """Whatever it says is free: that may be for root only, and quotas show nowhere."""

    def refuse(**_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert qemu.no_space(tmp_path) is None
    assert qemu.no_space(tmp_path, quota=True) is not None
    monkeypatch.setattr(qemu, "_ROOM", 1 << 62)
    found = qemu.no_space(tmp_path)
    assert found is not None
    assert found.hint
