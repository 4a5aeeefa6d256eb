# SPDX-License-Identifier: GPL-2.0-only
"""`invoke bench --virtme-ng`: the same check of a module, by virtme-ng and by this harness.

virtme-ng boots a kernel on the host's own files for one command (its program is `vng`). Here the
machine is a clone. Both run without KVM, one after the other, so that a busy host is busy for both.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.build.kernel import Kernel
from harness.errors import InputError, MissingToolError, OwnFaultError
from harness.host import proc
from harness.host.proc import Deadline

PROGRAM = "vng"
# What both do with the module that is at ``ko`` in the guest.
CHECK = (
    "insmod {ko} && ls -l /dev/eudyptula && ps -e | grep eudyptula && rmmod waitqueues && echo done"
)
# The same as tests of this harness.
TESTS = f"""\
import pytest
@pytest.mark.parametrize("number", range({{count}}))
def test_check(guest, module, number):
    guest.put(module.loadable, "/root/it.ko")
    said = guest.check({CHECK.format(ko="/root/it.ko").replace("ps -e", "ps")!r})
    assert said.endswith("done\\n")
"""
_BOOT_SECONDS = 300.0


def require(kernel: Kernel) -> None:
    """Raise ``HarnessError`` where virtme-ng is not there, or cannot boot this kernel."""
    for program, package in ((PROGRAM, "pip install virtme-ng"), ("depmod", "apt install kmod")):
        if shutil.which(program) is None:
            raise MissingToolError(f"{program} is not there", hint=package)
    if not any(kernel.modules.rglob("9p.ko*")):
        raise InputError(
            f"virtme-ng shares files by 9p, which {kernel.release} does not have",
            hint="give another, such as --kernel trixie-generic",
        )


def tree(kernel: Kernel, folder: Path) -> Path:
    """A kernel and its modules as they are on a host that has it; the kernel's file in that."""
    modules = folder / "lib/modules" / kernel.release
    modules.mkdir(parents=True)
    shutil.copytree(kernel.modules / "kernel", modules / "kernel")
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(kernel.modules / name, modules / name)
    boot = folder / "boot" / f"vmlinuz-{kernel.release}"
    boot.parent.mkdir()
    shutil.copy(kernel.boot, boot)
    proc.run(["depmod", "-b", str(folder), kernel.release], deadline=Deadline(120))
    return boot


def check(boot: Path, ko: Path) -> None:
    """Have virtme-ng do it once; raise ``OwnFaultError`` where that fails."""
    machine = ["--disable-kvm", "--cpus", "1", "--memory", "512M"]
    done = proc.run(
        # What the command prints is only shown with --verbose where there is no terminal.
        [PROGRAM, "--run", str(boot), *machine, "--verbose", "--", CHECK.format(ko=ko)],
        deadline=Deadline(_BOOT_SECONDS),
        check=False,
    )
    said = (done.stdout + done.stderr).replace("\r", "")
    if "\ndone\n" not in said:
        raise OwnFaultError(
            "virtme-ng did not come to the end of the check",
            tail=said[-2000:],
        )
