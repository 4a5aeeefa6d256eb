# SPDX-License-Identifier: GPL-2.0-only
"""Loads a module in a guest, once and for all: a template in which it is loaded."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from harness.build.module import Module, ModuleObject
from harness.errors import CommandTimeout, GuestError
from harness.examine import evidence, explain
from harness.judge import verdict
from harness.judge.problem import KernelProblem
from harness.judge.verdict import Evidence, Problem
from harness.lab import Lab
from harness.machines import freeze
from harness.machines.clone import Baseline, Clone
from harness.machines.guest import Guest
from harness.machines.template import SetUp, Template
from harness.qemu import Machine


def load(guest: Guest, module: Module) -> None:
    """Load what was built on the host, each .ko after those it depends on; they stay in /root.

    Before that, what it needs of its kernel.
    """
    load_needs(guest, module)
    for one in module.objects:
        put(guest, one)
        guest.check(shlex.join(insmod(one)))


def load_needs(guest: Guest, module: Module) -> None:
    """Load what a module needs of its kernel; its firmware is put where the kernel looks."""
    if module.files is not None:
        archive = module.files.read_bytes()
        guest.check("cd / && cpio --quiet -imd && depmod", stdin=archive)
    if module.needs:
        guest.check(f"modprobe -a {' '.join(module.needs)}")


def put(guest: Guest, one: ModuleObject) -> None:
    """Put a .ko where ``insmod`` expects it."""
    guest.put(one.loadable, f"/root/{one.ko.name}")


def insmod(one: ModuleObject) -> list[str]:
    """The guest's command that loads a .ko."""
    return ["insmod", f"/root/{one.ko.name}", *one.arguments]


def text_sections(guest: Guest, module: Module | ModuleObject) -> dict[str, str]:
    """Where a loaded module's code is: the addresses of its text sections, by their names.

    They are for debuggers, and for kmemleak's reports once the module is unloaded: the guest
    cannot be asked then. There may be no ``.text``, where all functions are __init or __exit,
    and none at all, where the kernel was built without CONFIG_KALLSYMS.
    """
    folder = f"/sys/module/{module.name}/sections"
    lines = guest.check(
        f"for file in {folder}/.*text*; do"
        ' if [ -f "$file" ]; then echo "${file##*/}:$(cat "$file")"; fi; done'
    )
    return dict(line.split(":", 1) for line in lines.splitlines())


# Saves the evidence of a machine that is to be blamed; returns where it is, as lines for a report.
SaveEvidence = Callable[[Machine, Sequence[Problem]], str]


def loaded_template(
    lab: Lab,
    base: Template,
    module: Module,
    save_evidence: SaveEvidence = lambda *_: "",
    declared: int = 0,
) -> Template:
    """``base`` with the module loaded; raises ``KernelProblem`` where that upsets the kernel.

    ``declared``: the taint flags that loading it may set. Where it may not, that is a problem; so
    such a template is another one.
    """
    loading = _Loading(module, save_evidence, declared)
    key = _key(module, declared)
    return freeze.derive(base, module.name, key, loading.set_up, lab.cache, look=loading.look)


def has_loaded_template(lab: Lab, base: Template, module: Module) -> bool:
    """Whether ``loaded_template`` need not load anything, as a test has had it before."""
    return freeze.has_derived(base, module.name, _key(module), lab.cache)


def _key(module: Module, declared: int = 0) -> dict[str, object]:
    return {"module": module.digest} | ({"declared": declared} if declared else {})


def set_up(module: Module, save_evidence: SaveEvidence = lambda *_: "", declared: int = 0) -> SetUp:
    """The set-up that loads a module in a machine, and judges that as ``loaded_template`` does."""
    return _Loading(module, save_evidence, declared).set_up


class _Loading:
    """Loads a module in a machine, and judges what comes of it until the machine is frozen."""

    def __init__(self, module: Module, save_evidence: SaveEvidence, declared: int) -> None:
        self._module = module
        self._declared = declared
        self._save_evidence = save_evidence
        self._loaded: tuple[Machine, Baseline]  # which, and from where it is judged

    def set_up(self, clone: Clone) -> Mapping[str, object]:
        machine = clone.machine
        taint = machine.agent.mark(evidence.patience(machine))
        machine.agent.take_inventory(evidence.patience(machine))
        # Where the machine could not be frozen it has just booted: that is not the module's.
        baseline = Baseline(len(machine.console_text()), taint)
        failed: GuestError | None = None
        sections: dict[str, dict[str, str]] = {}
        try:
            load(clone.guest, self._module)
            for one in self._module.objects:
                sections[one.name] = text_sections(clone.guest, one)
        except GuestError as error:  # as insmod's, if the kernel ends it; the kernel says why
            failed = error
        stuck = failed.command[0] if isinstance(failed, CommandTimeout) else ""
        self._judge(
            machine,
            evidence.gather(machine, baseline, timed_out=stuck, declared=self._declared),
            failed,
        )
        if failed:
            raise failed
        self._loaded = machine, baseline
        facts: dict[str, object] = {"sections": sections}
        text = sections[self._module.name].get(".text")
        return facts | ({"text": text} if text else {})

    def look(self, taint: int | None) -> None:
        """Judge once more when the machine has stopped: a thread may go on after init."""
        machine, baseline = self._loaded
        since = baseline.console_offset
        seen = Evidence(
            console=machine.console_text()[since:],
            taint_before=baseline.taint,
            taint_after=taint,
            panicked=machine.panicked,
            running=taint is not None,
            unread=machine.log.unread,
            full=machine.log.full,
            declared=self._declared,
            stalls=tuple((start - since, seconds) for start, seconds in machine.stalls),
        )
        self._judge(machine, seen, None)

    def _judge(self, machine: Machine, seen: Evidence, failed: GuestError | None) -> None:
        problems = verdict.judge(seen)
        if problems:
            kept = self._save_evidence(machine, problems)
            raise KernelProblem(explain.explain(problems, self._module), kept) from failed
