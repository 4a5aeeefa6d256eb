# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/argv.py: the command line, and what of it is part of a template's key."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import MissingToolError
from harness.qemu import MachineSpec, argv
from harness.qemu.argv import RecordReplay, Wiring
from tests.unit.qemu.fake import SPEC

WIRING = Wiring(Path("/run/console.log"))


def options(spec: MachineSpec = SPEC, wiring: Wiring = WIRING) -> list[tuple[str, str]]:
    """QEMU's command line as (option, value); a value is empty where there is none."""
    words = argv.argv(spec, wiring)[1:]
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


def test_the_guest_reaches_nothing_and_only_this_host_reaches_it() -> None:
    """No way out of the user network, and SSH forwarded from 127.0.0.1 alone."""
    network = only("-netdev", options()).split(",")
    assert "restrict=on" in network
    forwards = [part for part in network if part.startswith(("hostfwd", "guestfwd"))]
    assert forwards == [
        "hostfwd=tcp:127.0.0.1:0-:22",
        f"guestfwd=tcp:{argv.SSH_ADDRESS}:22-chardev:ssh",
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
    assert only("-cpu", found) == "max,-cx16,-erms,-fsrm"


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


def test_a_clock_that_runs_ahead_changes_nothing_of_the_machine() -> None:
    """So a state that was frozen without it fits: only how its time is counted differs."""
    ahead = options(wiring=replace(WIRING, ahead=True))
    assert values("-icount", options()) == []
    assert only("-icount", ahead) == "shift=3,sleep=off"
    assert "thread=single" in only("-accel", ahead).split(",")
    differ = {name for name, _ in set(ahead) ^ set(options())}
    assert differ == {"-icount", "-accel"}


@pytest.mark.parametrize(("replay", "how"), [(False, "record"), (True, "replay")])
def test_a_recording_and_its_replay_are_the_same_machine(replay: bool, how: str) -> None:
    """One CPU at a time, no way in but the serial port; only the replay waits to be told to run."""
    record = RecordReplay(Path("/run/log"), replay=replay)
    found = options(wiring=replace(WIRING, control=Path("/run/control"), record=record))
    assert only("-icount", found) == f"shift=3,rr={how},rrfile=/run/log"
    assert "thread=single" in only("-accel", found).split(",")
    assert "pipe,id=control,path=/run/control" in values("-chardev", found)
    assert "virtio-net-pci,romfile=,guest_announce=off" in values("-device", found)
    assert values("-netdev", found) == []
    assert not any("id=ssh" in channel for channel in values("-chardev", found))
    assert only("-append", found).endswith(argv.PACED)
    assert (("-S", "") in found) == replay


def test_a_replay_may_begin_at_a_snapshot() -> None:
    """Else it begins with the boot, as a recording always does."""
    record = RecordReplay(Path("/run/log"), True, Path("/run/image"), "back3")
    found = options(wiring=replace(WIRING, record=record))
    assert only("-icount", found) == "shift=3,rr=replay,rrfile=/run/log,rrsnapshot=back3"


def test_snapshots_of_a_replay_have_a_place() -> None:
    """An image that no device of the guest's has."""
    record = RecordReplay(Path("/run/log"), replay=True, snapshots=Path("/run/a,b"))
    found = options(wiring=replace(WIRING, control=Path("/run/control"), record=record))
    assert only("-drive", found) == "file=/run/a,,b,format=qcow2,if=none,id=snapshots"


def test_the_monitor_and_the_control_port_are_descriptors() -> None:
    """No socket in the file system, which another user might open."""
    wiring = replace(WIRING, qmp_fd=17, control_fd=23)
    channels = values("-chardev", options(wiring=wiring))
    assert any("socket" in channel and "fd=17" in channel for channel in channels)
    assert any("socket" in channel and "fd=23" in channel for channel in channels)
    assert not any("path=" in channel for channel in channels if channel.startswith("socket"))


def test_another_program_may_be_let_in() -> None:
    """On a socket that has a name, and on which it is not waited for."""
    found = options(wiring=replace(WIRING, observer=Path("/a,b/qmp")))
    assert "socket,id=observer,path=/a,,b/qmp,server=on,wait=off" in values("-chardev", found)
    assert "chardev=observer,mode=control" in values("-mon", found)


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
    monkeypatch.setattr(argv, "version_text", lambda: "QEMU emulator version 9.0.0")
    assert argv.shape(other) != argv.shape(SPEC)


def test_another_qemu_is_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """States do not move between versions."""
    monkeypatch.setattr(argv, "version_text", lambda: "QEMU emulator version 9.0.0")
    before = argv.shape(SPEC)
    monkeypatch.setattr(argv, "version_text", lambda: "QEMU emulator version 9.0.1")
    assert argv.shape(SPEC) != before


def test_where_a_machine_runs_is_no_part_of_its_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same machine in another folder, of another cache, finds the same template.

    Kernel and initramfs count by their content, which the template's key has.
    """
    monkeypatch.setattr(argv, "version_text", lambda: "QEMU emulator version 9.0.0")
    before = argv.shape(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    elsewhere = replace(SPEC, kernel=tmp_path / "vmlinuz", initrd=tmp_path / "initrd.cpio")
    assert argv.shape(elsewhere) == before
    assert not any(str(WIRING.console) in word for word in before)


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
    monkeypatch.setattr(argv, "version_text", lambda: "QEMU emulator version 9.0.0")
    cpuinfo = tmp_path / "cpuinfo"

    def shape(accelerator: str, **facts: str) -> list[str]:
        cpuinfo.write_text(CPU.format(**{"mhz": "2600.0", "flags": "avx2"} | facts))
        monkeypatch.setattr(argv, "CPUINFO", cpuinfo)
        return argv.shape(replace(SPEC, accelerator=accelerator))

    assert shape("kvm", flags="avx512f") != shape("kvm")
    assert shape("kvm", mhz="1000.0") == shape("kvm")
    assert shape("tcg", flags="avx512f") == shape("tcg")


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
    assert argv.version_in(text) == version


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
        argv.version_in(text)
    assert named in caught.value.what


def test_a_shape_can_be_written_down() -> None:
    """As JSON, and is the same again. What is no shape is refused."""
    spec = MachineSpec(Path("/k"), Path("/i,j"), "tcg", 300, 2, ("a", "b=c"), ("edu", "nvme"))
    written = json.loads(json.dumps(spec.as_json()))
    assert MachineSpec.from_json(written) == spec
    del written["devices"]  # as it was written before machines could have any
    assert MachineSpec.from_json(written) == replace(spec, devices=())
    wrong: list[Any] = [{}, {**spec.as_json(), "more": 1}, [], "text"]
    for each in wrong:
        with pytest.raises((KeyError, TypeError)):
            MachineSpec.from_json(each)
