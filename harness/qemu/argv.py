# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's command line: a pure function of a machine's shape and of what differs by process.

Beside each option is why it is there. What of it shapes the machine is in ``shape``, which is
part of a template's key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import MissingToolError
from harness.host import proc
from harness.host.proc import Deadline
from harness.qemu.counts import Counter

QEMU = "qemu-system-x86_64"
MIN_VERSION = (7, 2)  # Debian 12's, the oldest that this was tried with

# An address of QEMU's user network. What the guest sends there comes out of a descriptor,
# and such a connection, unlike one from outside, is part of the machine's frozen state.
SSH_ADDRESS = "10.0.2.100"

# Kernel options for every guest.
APPEND = (
    "console=ttyS0",
    # All that the kernel logs is on the console, where it can be read without the guest.
    "ignore_loglevel",
    # /dev/kmsg takes ten messages in five seconds and then drops them without a word, where it
    # is not said otherwise (devkmsg_write() in kernel/printk/printk.c); vm/agent's marks go there.
    "printk.devkmsg=on",
    # Modules that print at each call, with two processors at work, print faster than the console
    # takes it, and what the kernel's buffer cannot hold is lost: twelve thousand writes, each with
    # two lines, fit into this one and not into the usual 128 KiB.
    "log_buf_len=2M",
    # With -no-reboot this ends QEMU at once where a panic comes before pvpanic is there.
    "panic=-1",
    # Addresses are the same each time: for debuggers, and for QEMU, which then need not
    # translate a program's code again each time it is started.
    "nokaslr", "norandmaps",
    # An emulated CPU does not speculate, so there is nothing to mitigate; and the virtual
    # clocks need no calibration and no watchdog, which a busy host would set off.
    "mitigations=off", "no_timer_check", "tsc=reliable",
    # Freed memory is cleared (from 5.3 on), so that what still points to something that is gone
    # is a pointer that somebody keeps: harness/examine/pointers.py looks for those.
    "init_on_free=1",
    # A distribution kernel's crypto code tests itself while it boots; that is not the test.
    "cryptomgr.notests", "initcall_blacklist=crypto_kdf108_init",
    # QEMU's RDRAND is the host's own random state.
    "random.trust_cpu=on",
)  # fmt: skip


@dataclass(frozen=True)
class MachineSpec:
    """The shape of a machine; all of it is part of a template's key."""

    kernel: Path
    initrd: Path
    accelerator: str = "tcg"
    memory_mib: int = 512
    cpus: int = 1
    append: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()  # besides its own, as -device takes them

    def as_json(self) -> dict[str, Any]:
        """Values for JSON, of which ``from_json`` makes the same again."""
        return asdict(self) | {"kernel": str(self.kernel), "initrd": str(self.initrd)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MachineSpec:
        """The spec; raises ``KeyError`` or ``TypeError`` where the values are not one's."""
        paths = {name: Path(values[name]) for name in ("kernel", "initrd")}
        lists = {name: tuple(values.get(name, ())) for name in ("append", "devices")}
        return cls(**{**values, **paths, **lists})


@dataclass(frozen=True)
class Wiring:
    """What differs from one process to the next of the same shape."""

    console: Path  # the file for what the guest's kernel prints
    qmp_fd: int = 3
    control_fd: int = 4
    ssh_fd: int = 5
    memory: Path | None = None  # the file with the guest's memory; None: QEMU's own memory
    share: bool = False  # the guest writes to that file, instead of mapping it privately
    incoming: bool = False  # wait for a state to be loaded
    # The guest's clock jumps to its next timer whenever the guest is idle. That is no part of the
    # shape: a state that was frozen without it fits.
    ahead: bool = False
    control: Path | None = None  # a pair of named pipes for the control port (port.PacedPort)
    record: RecordReplay | None = None
    counter: Counter | None = None  # TCG only: what the guest runs of modules is counted
    observer: Path | None = None  # a Unix socket where another program may speak QMP, such as drgn


@dataclass(frozen=True)
class RecordReplay:
    """That QEMU records all input of the guest, or replays what it has recorded."""

    log: Path  # the file of the recording
    replay: bool = False  # replay it; the machine does not run before it is told to
    snapshots: Path | None = None  # an image that takes snapshots (replay.empty_image)
    begin: str = ""  # the snapshot at which a replay begins, if not at the start


# On the kernel's command line, for vm/agent: it confirms what it has read (port.PacedPort).
PACED = "eudyptula_paced=1"


def argv(spec: MachineSpec, wiring: Wiring) -> list[str]:
    """QEMU's command line."""
    append = (*APPEND, *spec.append, *((PACED,) if wiring.record else ()))
    command = [
        QEMU,
        "-nodefaults", "-no-user-config", "-display", "none",
        "-accel", _accelerator(spec, wiring),
        "-machine", "q35,memory-backend=ram",
        "-cpu", _cpu(spec),
        "-object", _memory(spec, wiring),
        "-m", f"{spec.memory_mib}M",
        # Where there can only be one CPU, TCG leaves out the memory barriers of locked instructions
        # (CF_PARALLEL in accel/tcg/tcg-accel-ops-mttcg.c), which the guest's virtio driver needs
        # against QEMU's other thread: one clone in a thousand missed an interrupt of its network
        # card, and heard nothing from then on.
        "-smp", f"{spec.cpus},maxcpus={max(2, spec.cpus)}",
        "-kernel", str(spec.kernel),
        "-initrd", str(spec.initrd),
        "-append", " ".join(append),
        # The clock is right after a restore because it follows the host's.
        "-rtc", "base=utc,clock=host",
        # A guest that panics is stopped and kept, to be looked at; one that reboots ends.
        "-no-reboot", "-action", "panic=pause",
        "-chardev", f"file,id=console,path={escaped(wiring.console)},append=on",
        "-serial", "chardev:console",
        "-chardev", _control(wiring),
        "-serial", "chardev:control",
        "-chardev", f"socket,id=qmp,fd={wiring.qmp_fd}",
        "-mon", "chardev=qmp,mode=control",
        *_network(wiring),
        "-device", "pvpanic",
        "-device", "vmcoreinfo",
    ]  # fmt: skip
    # Last, so that the places of the others on the bus are the same with them and without.
    for device in spec.devices:
        command += ["-device", device]
    if wiring.incoming:
        command += ["-incoming", "defer"]
    if wiring.ahead:
        # The guest's time is the number of its instructions, 8 ns each, and not the host's; with
        # sleep=off it jumps to the next timer when all CPUs are idle (QEMU, docs/devel/tcg-icount).
        command += ["-icount", "shift=3,sleep=off"]
    if wiring.record is not None:
        command += _recording(wiring.record)
    if wiring.observer is not None:
        socket = f"socket,id=observer,path={escaped(wiring.observer)},server=on,wait=off"
        command += ["-chardev", socket, "-mon", "chardev=observer,mode=control"]
    if wiring.counter is not None:
        plugin, file = wiring.counter.plugin, wiring.counter.file
        command += ["-plugin", f"{escaped(plugin)},out={escaped(file)}"]
    return command


def _accelerator(spec: MachineSpec, wiring: Wiring) -> str:
    if spec.accelerator != "tcg":
        return spec.accelerator
    # QEMU counts instructions only where one thread runs all CPUs.
    counts = wiring.ahead or wiring.record is not None
    # 64 MiB hold all the code that a small guest runs; the default would grow to 1 GiB.
    return f"tcg,thread={'single' if counts else 'multi'},tb-size=64"


def _cpu(spec: MachineSpec) -> str:
    if spec.accelerator == "kvm":
        return "host"
    # -cx16: before QEMU 8.0, TCG's cmpxchg16b may leave a pointer's bits where the flags belong
    # (gen_helper_cmpxchg16b_unlocked in target/i386/tcg/translate.c does not bring cc_op up to
    # date). An interrupt right after it returns with these flags. If the trap flag is among them,
    # exc_debug_kernel() warns of what nobody has caused. The kernel does without the instruction.
    #
    # -erms,-fsrm: a kernel on a processor with fast string instructions clears and copies pages by
    # `rep stosb` and `rep movsb`, which TCG does byte by byte. Without them it writes eight bytes
    # at a time, and boots in three quarters of the time.
    return "max,-cx16,-erms,-fsrm"


def _memory(spec: MachineSpec, wiring: Wiring) -> str:
    """The guest's memory: QEMU's own, or a file."""
    if wiring.memory is None:
        return f"memory-backend-ram,id=ram,size={spec.memory_mib}M"
    return (
        f"memory-backend-file,id=ram,size={spec.memory_mib}M,"
        f"share={'on' if wiring.share else 'off'},mem-path={escaped(wiring.memory)}"
    )


def _control(wiring: Wiring) -> str:
    """The host's end of the port to vm/agent."""
    if wiring.control is not None:
        return f"pipe,id=control,path={escaped(wiring.control)}"
    return f"socket,id=control,fd={wiring.control_fd}"


def _network(wiring: Wiring) -> list[str]:
    """The network card, and what is at its other end."""
    # After a restore it would announce the guest's new place, to nobody.
    card = "virtio-net-pci{},romfile=,guest_announce=off"
    if wiring.record is not None:
        # Nobody is at the other end. QEMU 7.2 can record what comes over a network, but its replay
        # then stands still.
        return ["-device", card.format("")]
    return [
        "-chardev", f"socket,id=ssh,fd={wiring.ssh_fd}",
        "-netdev", "user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22,"
        f"guestfwd=tcp:{SSH_ADDRESS}:22-chardev:ssh",
        "-device", card.format(",netdev=net"),
    ]  # fmt: skip


def _recording(record: RecordReplay) -> list[str]:
    """See QEMU's docs/system/replay.rst."""
    what = "replay" if record.replay else "record"
    # 8 ns for an instruction are about what they take here, so that the guest's clock keeps pace
    # with the host's. QEMU can adapt that (shift=auto); it then made one interrupt of a busy guest
    # take 10 ms of the guest's time.
    begin = f",rrsnapshot={record.begin}" if record.begin else ""
    command = ["-icount", f"shift=3,rr={what},rrfile={escaped(record.log)}{begin}"]
    # Loading a snapshot has this device wait for the CPU (vapic_post_load() in
    # hw/i386/kvmvapic.c), which in a replay waits for who loads it.
    command += ["-global", "apic.vapic=off"]
    if record.snapshots is not None:
        image = escaped(record.snapshots)
        command += ["-drive", f"file={image},format=qcow2,if=none,id=snapshots"]
    return [*command, "-S"] if record.replay else command


def shape(spec: MachineSpec) -> list[str]:
    """The facts about a machine that must be the same for a frozen state to fit it.

    Kernel and initramfs count by their content, which is not for this to look at.
    """
    anywhere = replace(spec, kernel=Path("kernel"), initrd=Path("initrd"))
    # With KVM a state holds what the host's own processor can do; an emulated one is always
    # the same. The cache may have been carried here from another host.
    cpu = [host_cpu()] if spec.accelerator == "kvm" else []
    return [*argv(anywhere, Wiring(Path("console")))[1:], version_text(), *cpu]


CPUINFO = Path("/proc/cpuinfo")
_CPU_FACTS = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags",
              "address sizes")  # fmt: skip


def host_cpu() -> str:
    """The facts that decide which processor a guest of KVM sees: the host's, and its kernel's.

    The fields are those of show_cpuinfo() in arch/x86/kernel/cpu/proc.c.
    """
    first = CPUINFO.read_text().partition("\n\n")[0]
    facts = dict(re.findall(r"^(.*?)\s*:\s*(.*)$", first, re.MULTILINE))
    return ", ".join([*(f"{name} {facts.get(name)}" for name in _CPU_FACTS), os.uname().release])


def escaped(path: Path) -> str:
    """QEMU splits option values at commas; a doubled one is a comma."""
    return str(path).replace(",", ",,")


@cache
def version_text() -> str:
    """What ``qemu-system-x86_64 --version`` says in its first line."""
    done = proc.run([QEMU, "--version"], deadline=Deadline(30))
    return done.stdout.partition("\n")[0]


def check_version() -> tuple[int, int]:
    """QEMU's version; raises ``MissingToolError`` if it is not there or too old."""
    return version_in(version_text())


def version_in(text: str) -> tuple[int, int]:
    """The version in ``--version``'s first line, if it is new enough."""
    found = re.search(r"version (\d+)\.(\d+)", text)
    if not found:
        raise MissingToolError(
            f"{QEMU} --version says {text!r}, which names no version",
            hint=f"see what the {QEMU} is that comes first on PATH",
        )
    version = (int(found[1]), int(found[2]))
    if version < MIN_VERSION:
        raise MissingToolError(
            f"{QEMU} is version {version[0]}.{version[1]}; at least "
            f"{MIN_VERSION[0]}.{MIN_VERSION[1]} is needed",
            hint="install a newer qemu-system-x86 (Debian 12, Ubuntu 24.04 or later have one)",
        )
    return version
