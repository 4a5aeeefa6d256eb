# SPDX-License-Identifier: GPL-2.0-only
"""`invoke doctor`: what this host has and lacks, the one command that mends it, and its mending."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import config, qemu
from harness.errors import HarnessError, HostError, InputError
from harness.host import cache, debian, proc, sandbox
from harness.host.proc import Deadline
from harness.machines import session

HOST_PACKAGES = config.PROJECT / "vm" / "host-packages"
# One kernel: sysroots 1.0 GiB, guest 0.2, template 0.3; and as much again while they are made.
SPACE_MIB = 3000
MEMORY_MIB = 1500


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    topic: str
    state: str  # ok, note (a run works without it) or lacking
    said: str  # what was found, for a person
    mend: str = ""  # the command that mends it, or apt:PACKAGE


def run(as_json: bool, *, fix: bool = False) -> int:
    """Print what was found; 0 if nothing is lacking, else the status that a run would end with.

    With ``fix``, what a command can mend is mended before. Raises ``InputError`` for both options.
    """
    if fix and as_json:
        raise InputError(
            "what is mended is shown as it happens, which is no JSON",
            hint="give --fix, and then --json by itself",
        )
    checks = examine()
    if fix and _mend(checks):
        checks = examine()
    lacking = [check for check in checks if check.state == "lacking"]
    mend = remedy(checks)
    if as_json:
        print(json.dumps({"findings": [asdict(f) for f in checks], "mend": mend}, indent=2))
    else:
        width = max(len(check.topic) for check in checks)
        for check in checks:
            print(f"{check.state:8} {check.topic:{width}}  {check.said}")
        if mend:
            fixed = " (--fix does it)" if _runnable(mend) else ""
            print(f"\nTo mend what is lacking{fixed}:")
            for command in mend:
                print(f"    {command}")
        else:
            print("\nThis host has all that is needed.")
    return HostError.exit_status if lacking else 0


def examine() -> list[Check]:
    """Look at everything that a run depends on; nothing is changed."""
    looks: list[Callable[[], list[Check]]] = [
        _python, _packages, _qemu, _namespaces, _mirror, _kvm, _session, _debuggers, _cache,
        _memory,
    ]  # fmt: skip
    return [check for look in looks for check in look()]


def remedy(checks: list[Check]) -> list[str]:
    """The commands for what is lacking: one for all packages, one for each other thing."""
    lacking = [check for check in checks if check.state == "lacking"]
    packages = [f.mend.removeprefix("apt:") for f in lacking if f.mend.startswith("apt:")]
    commands = [f.mend for f in lacking if f.mend and not f.mend.startswith("apt:")]
    if packages:
        sudo = "" if os.geteuid() == 0 else "sudo "
        names = " ".join(dict.fromkeys(packages))
        commands.insert(0, f"{sudo}apt-get install --no-install-recommends {names}")
    return commands


def _mend(checks: list[Check]) -> bool:
    """Run the commands for what is lacking, each one shown before; whether there was one."""
    commands = _runnable(remedy(checks))
    for words in commands:
        print(f"$ {shlex.join(words)}", flush=True)
        if "apt-get" in words:  # whoever has said --fix need not be asked once more
            words.insert(words.index("install") + 1, "--yes")
        child = proc.popen(words, stdin=None, stdout=None, stderr=None)
        try:
            child.wait()
        finally:
            proc.kill(child)
    if commands:
        print(flush=True)
    return bool(commands)


def _runnable(commands: list[str]) -> list[list[str]]:
    """Their words, but for what only the shell can do that has started this: export."""
    every = [shlex.split(command) for command in commands]
    return [words for words in every if words[0] != "export"]


def host_packages(text: str) -> list[tuple[str, str]]:
    """(program or file, Debian package) from the text of vm/host-packages."""
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return [(row[0], row[1]) for row in rows]


def _python() -> list[Check]:
    return [Check("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")]


def _packages() -> list[Check]:
    checks = []
    for tool, package in host_packages(HOST_PACKAGES.read_text()):
        there = tool if tool.startswith("/") and Path(tool).exists() else shutil.which(tool)
        name = Path(tool).name
        if there:
            checks.append(Check(name, "ok", there))
        else:
            checks.append(Check(name, "lacking", f"{package} not installed", f"apt:{package}"))
    return checks


def _qemu() -> list[Check]:
    if not shutil.which(qemu.QEMU):
        return []
    try:
        major, minor = qemu.check_version()
    except HarnessError as error:
        return [Check("qemu version", "lacking", error.what, "apt:qemu-system-x86")]
    return [Check("qemu version", "ok", f"{major}.{minor}")]


def _namespaces() -> list[Check]:
    if not shutil.which("bwrap"):
        return []
    trial = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--", "true"]
    try:
        done = proc.run(trial, deadline=Deadline(30), check=False)
    except HarnessError as error:
        return [Check("sandbox", "lacking", error.what)]
    if done.status == 0:
        return [Check("sandbox", "ok", "bubblewrap can make its namespaces")]
    fault = sandbox.namespace_fault(done.stderr)
    if fault is None:
        return [Check("sandbox", "lacking", done.stderr.strip() or "bubblewrap does not work")]
    return [Check("sandbox", "lacking", fault.what, fault.hint.partition("   ")[0])]


def _mirror() -> list[Check]:
    if not shutil.which("apt-get"):
        return [Check("mirror", "lacking", "there is no apt: a Debian or Ubuntu is needed")]
    if debian.sources_from("stable", debian.host_mirrors(Deadline(30))):
        return [Check("mirror", "ok", "the Debian mirrors of the host's apt")]
    whose = "mmdebstrap's default (the host's apt names no Debian mirror)"
    lines = debian.sources_from("stable", debian.default_mirrors())
    if lines:
        uri = lines[0].partition("] ")[2].partition(" ")[0]
        return [Check("mirror", "ok", f"{uri}, {whose}")]
    said = f"{whose}; which that is it does not say, so what is newest is not known"
    return [Check("mirror", "note", said)]


def _kvm() -> list[Check]:
    device = Path("/dev/kvm")
    if not device.exists():
        return [Check("kvm", "note", "no /dev/kvm: emulation (TCG) is used, which is enough")]
    if not os.access(device, os.R_OK | os.W_OK):
        return [Check("kvm", "note", "/dev/kvm is not yours to open: emulation (TCG) is used")]
    answer = qemu.kvm_answer(cache.default_root())
    if answer is None:
        return [Check("kvm", "note", "/dev/kvm opens; the first run will see if it can boot")]
    return [Check("kvm", "ok" if answer[0] == "kvm" else "note", answer[1])]


def _session() -> list[Check]:
    if why := session.fault():
        return [Check("ssh session", "note", f"each test makes its own (0.3 s): {why}")]
    return [Check("ssh session", "ok", "frozen with each machine")]


def _debuggers() -> list[Check]:
    """What only `debug` and `replay` need, which no test is red without."""
    gdb = shutil.which("gdb")
    drgn = importlib.util.find_spec("drgn") is not None
    return [
        Check("gdb", "ok", gdb)
        if gdb
        else Check("gdb", "note", "not installed (apt install gdb): only a debugger needs it"),
        Check("drgn", "ok", "in this Python")
        if drgn
        else Check("drgn", "note", f"not installed ({sys.executable} -m pip install drgn): "
                     "only `debug --drgn` needs it"),
    ]  # fmt: skip


def _cache() -> list[Check]:
    root = cache.default_root()
    # os.path's: where one may not look, there is nothing.
    existing = next(path for path in (root, *root.parents) if os.path.exists(path))
    if not os.access(existing, os.W_OK):
        return [Check("cache", "lacking", f"{root} cannot be written",
                        "export EUDYPTULA_CACHE=A_FOLDER_OF_YOURS")]  # fmt: skip
    free = shutil.disk_usage(existing).free >> 20
    said = f"{root}, {free} MiB free"
    if free < SPACE_MIB:
        return [Check("cache", "lacking", f"{said}; a kernel takes {SPACE_MIB}",
                        "export EUDYPTULA_CACHE=A_FOLDER_ON_A_LARGER_DISK")]  # fmt: skip
    return [Check("cache", "ok", said)]


def _memory() -> list[Check]:
    free = proc.available_memory_mib()
    if free < MEMORY_MIB:
        return [Check("memory", "note", f"{free} MiB available; below {MEMORY_MIB} it is slow")]
    return [Check("memory", "ok", f"{free} MiB available")]
