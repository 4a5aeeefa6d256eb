# SPDX-License-Identifier: GPL-2.0-only
"""Whether a machine can use KVM, which only a trial shows."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import os
import signal
from dataclasses import replace
from pathlib import Path

from harness.errors import MachineError, MachineFault
from harness.host import files
from harness.host.cache import Cache
from harness.host.proc import Deadline
from harness.qemu.argv import MachineSpec
from harness.qemu.machine import START_SECONDS, Machine

PROBE_SECONDS = 10.0  # of the guest's time; where KVM works, it takes about one


class Reach(enum.Enum):
    """How far a machine came with KVM."""

    BOOTED = enum.auto()
    QEMU = enum.auto()  # QEMU reports that KVM failed, or ends by itself
    KERNEL = enum.auto()  # QEMU goes on, but this kernel does not come up: one of the two is broken
    NOTHING = enum.auto()  # the host ended QEMU, which says nothing of KVM


def choose_accelerator(spec: MachineSpec, cache_: Cache) -> tuple[str, str]:
    """("kvm" or "tcg", why): KVM only where it has been seen to boot a kernel.

    /dev/kvm may exist, open, and create a virtual machine, and still be unable to run a
    kernel: QEMU then stops with an internal error or spins in silence. The answer is kept until
    the host boots again. Where only this kernel does not come up, it is kept for this kernel:
    that may be the kernel's own fault. Raises ``MachineFault`` where the host runs no QEMU at all.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "no access to /dev/kvm"
    # The answer for all kernels needs none to be read.
    if known := kvm_answer(cache_.root):
        return known
    own = hashlib.sha256(spec.kernel.read_bytes()).hexdigest()[:16]
    if known := kvm_answer(cache_.root, own):
        return known
    probe = MachineSpec(spec.kernel, spec.initrd, "kvm", spec.memory_mib)
    with cache_.scratch("kvm-probe") as folder:
        reach, why = try_kvm(probe, folder)
        if reach is Reach.QEMU:
            # Without KVM, too? Then it says nothing of KVM, and no template can be made either.
            with Machine(replace(probe, accelerator="tcg"), folder) as machine:
                machine.start(Deadline(START_SECONDS))
    if reach is Reach.BOOTED:
        answer = "kvm", "KVM has booted a kernel on this host"
    else:
        answer = "tcg", f"/dev/kvm is there but cannot boot a kernel ({why})"
    if reach is not Reach.NOTHING:
        file = _kvm_answer_file(cache_.root, own if reach is Reach.KERNEL else "")
        files.write(file, " ".join(answer))
    return answer


# What a host sends, as opposed to what QEMU dies of by its own mistake (signal(7)).
_BY_HOST = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGBUS}


def try_kvm(spec: MachineSpec, folder: Path) -> tuple[Reach, str]:
    """How far a machine of this shape comes, and why not farther."""
    with Machine(spec, folder) as machine:
        try:
            machine.start(Deadline(START_SECONDS))
            # What a busy host keeps it waiting for does not count.
            machine.agent.await_answer("ready", machine.patience(PROBE_SECONDS))
        except MachineFault as fault:
            by_host = fault.status is None or fault.status in _BY_HOST
            return (Reach.NOTHING if by_host else Reach.QEMU), fault.what
        except MachineError as error:
            with contextlib.suppress(MachineError):
                # RunState in qapi/run-state.json
                if machine.execute("query-status", Deadline(5))["status"] == "internal-error":
                    return Reach.QEMU, "an internal error of QEMU"
            return Reach.KERNEL, error.what
    return Reach.BOOTED, ""


def kvm_answer(root: Path, kernel: str = "") -> tuple[str, str] | None:
    """The result of an earlier probe since the host booted, or None.

    For all kernels, or for the one that ``kernel`` is the digest of. A file that holds no answer,
    such as an empty one that a power failure leaves, is none.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError):
        verdict, _, why = _kvm_answer_file(root, kernel).read_text().partition(" ")
        if verdict in ("kvm", "tcg"):
            return verdict, why
    return None


def _kvm_answer_file(root: Path, kernel: str = "") -> Path:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return root / "-".join(filter(None, ("kvm", boot_id, kernel)))
