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
class Finding:
    """One thing that was looked at. ``state`` is ok, note (works without it) or lacking."""

    topic: str
    state: str
    said: str
    mend: str = ""


def run(as_json: bool, *, fix: bool = False) -> int:
    """Print the findings; 0 if nothing is lacking, else what a run would end with.

    With ``fix``, what a command can mend is mended before. Raises ``InputError`` for both options.
    """
    if fix and as_json:
        raise InputError(
            "what is mended is shown as it happens, which is no JSON",
            hint="give --fix, and then --json by itself",
        )
    findings = examine()
    if fix and _mend(findings):
        findings = examine()
    lacking = [finding for finding in findings if finding.state == "lacking"]
    mend = remedy(findings)
    if as_json:
        print(json.dumps({"findings": [asdict(f) for f in findings], "mend": mend}, indent=2))
    else:
        width = max(len(finding.topic) for finding in findings)
        for finding in findings:
            print(f"{finding.state:8} {finding.topic:{width}}  {finding.said}")
        if mend:
            fixed = " (--fix does it)" if _runnable(mend) else ""
            print(f"\nTo mend what is lacking{fixed}:")
            for command in mend:
                print(f"    {command}")
        else:
            print("\nThis host has all that is needed.")
    return HostError.exit_status if lacking else 0


def examine() -> list[Finding]:
    """Look at everything that a run depends on; nothing is changed."""
    looks: list[Callable[[], list[Finding]]] = [
        _python, _packages, _qemu, _namespaces, _mirror, _kvm, _session, _debuggers, _cache,
        _memory,
    ]  # fmt: skip
    return [finding for look in looks for finding in look()]


def remedy(findings: list[Finding]) -> list[str]:
    """The commands for what is lacking: one for all packages, one for each other thing."""
    lacking = [finding for finding in findings if finding.state == "lacking"]
    packages = [f.mend.removeprefix("apt:") for f in lacking if f.mend.startswith("apt:")]
    commands = [f.mend for f in lacking if f.mend and not f.mend.startswith("apt:")]
    if packages:
        sudo = "" if os.geteuid() == 0 else "sudo "
        names = " ".join(dict.fromkeys(packages))
        commands.insert(0, f"{sudo}apt-get install --no-install-recommends {names}")
    return commands


def _mend(findings: list[Finding]) -> bool:
    """Run the commands for what is lacking, each one shown before; whether there was one."""
    commands = _runnable(remedy(findings))
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


def _python() -> list[Finding]:
    return [Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")]


def _packages() -> list[Finding]:
    findings = []
    for tool, package in host_packages(HOST_PACKAGES.read_text()):
        there = tool if tool.startswith("/") and Path(tool).exists() else shutil.which(tool)
        name = Path(tool).name
        if there:
            findings.append(Finding(name, "ok", there))
        else:
            findings.append(Finding(name, "lacking", f"{package} not installed", f"apt:{package}"))
    return findings


def _qemu() -> list[Finding]:
    if not shutil.which(qemu.QEMU):
        return []
    try:
        major, minor = qemu.check_version()
    except HarnessError as error:
        return [Finding("qemu version", "lacking", error.what, "apt:qemu-system-x86")]
    return [Finding("qemu version", "ok", f"{major}.{minor}")]


def _namespaces() -> list[Finding]:
    if not shutil.which("bwrap"):
        return []
    trial = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--", "true"]
    try:
        done = proc.run(trial, deadline=Deadline(30), check=False)
    except HarnessError as error:
        return [Finding("sandbox", "lacking", error.what)]
    if done.status == 0:
        return [Finding("sandbox", "ok", "bubblewrap can make its namespaces")]
    fault = sandbox.namespace_fault(done.stderr)
    if fault is None:
        return [Finding("sandbox", "lacking", done.stderr.strip() or "bubblewrap does not work")]
    return [Finding("sandbox", "lacking", fault.what, fault.hint.partition("   ")[0])]


def _mirror() -> list[Finding]:
    if not shutil.which("apt-get"):
        return [Finding("mirror", "lacking", "there is no apt: a Debian or Ubuntu is needed")]
    if debian.sources_from("stable", debian.host_mirrors(Deadline(30))):
        return [Finding("mirror", "ok", "the Debian mirrors of the host's apt")]
    whose = "mmdebstrap's default (the host's apt names no Debian mirror)"
    lines = debian.sources_from("stable", debian.default_mirrors())
    if lines:
        uri = lines[0].partition("] ")[2].partition(" ")[0]
        return [Finding("mirror", "ok", f"{uri}, {whose}")]
    said = f"{whose}; which that is it does not say, so what is newest is not known"
    return [Finding("mirror", "note", said)]


def _kvm() -> list[Finding]:
    device = Path("/dev/kvm")
    if not device.exists():
        return [Finding("kvm", "note", "no /dev/kvm: emulation (TCG) is used, which is enough")]
    if not os.access(device, os.R_OK | os.W_OK):
        return [Finding("kvm", "note", "/dev/kvm is not yours to open: emulation (TCG) is used")]
    answer = qemu.kvm_answer(cache.default_root())
    if answer is None:
        return [Finding("kvm", "note", "/dev/kvm opens; the first run will see if it can boot")]
    return [Finding("kvm", "ok" if answer[0] == "kvm" else "note", answer[1])]


def _session() -> list[Finding]:
    if why := session.fault():
        return [Finding("ssh session", "note", f"each test makes its own (0.3 s): {why}")]
    return [Finding("ssh session", "ok", "frozen with each machine")]


def _debuggers() -> list[Finding]:
    """What only `debug` and `replay` need, which no test is red without."""
    gdb = shutil.which("gdb")
    drgn = importlib.util.find_spec("drgn") is not None
    return [
        Finding("gdb", "ok", gdb)
        if gdb
        else Finding("gdb", "note", "not installed (apt install gdb): only a debugger needs it"),
        Finding("drgn", "ok", "in this Python")
        if drgn
        else Finding("drgn", "note", f"not installed ({sys.executable} -m pip install drgn): "
                     "only `debug --drgn` needs it"),
    ]  # fmt: skip


def _cache() -> list[Finding]:
    root = cache.default_root()
    # os.path's: where one may not look, there is nothing.
    existing = next(path for path in (root, *root.parents) if os.path.exists(path))
    if not os.access(existing, os.W_OK):
        return [Finding("cache", "lacking", f"{root} cannot be written",
                        "export EUDYPTULA_CACHE=A_FOLDER_OF_YOURS")]  # fmt: skip
    free = shutil.disk_usage(existing).free >> 20
    said = f"{root}, {free} MiB free"
    if free < SPACE_MIB:
        return [Finding("cache", "lacking", f"{said}; a kernel takes {SPACE_MIB}",
                        "export EUDYPTULA_CACHE=A_FOLDER_ON_A_LARGER_DISK")]  # fmt: skip
    return [Finding("cache", "ok", said)]


def _memory() -> list[Finding]:
    free = proc.available_memory_mib()
    if free < MEMORY_MIB:
        return [Finding("memory", "note", f"{free} MiB available; below {MEMORY_MIB} it is slow")]
    return [Finding("memory", "ok", f"{free} MiB available")]
