# SPDX-License-Identifier: GPL-2.0-only
"""Finds out which lines of the module under test have run in this process's machines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.build.module import Module
from harness.errors import HarnessError
from harness.examine import coverage
from harness.lab import Lab
from harness.machines import freeze
from harness.runs import covered
from harness.runs.covered import Part


def gather(lab: Lab, module: Module | None, derived: Iterable[Path]) -> None:
    """Write down what ran, if that was counted.

    ``derived`` are the counts of the templates that were used: a module's init may have run there,
    and not in any clone.
    """
    if lab.counting is None:
        return
    folder = lab.counting.folder
    if module is None:
        covered.write(folder, Part({}))
        return
    counted = [*derived, *(folder.glob("*.counts") if folder.is_dir() else ())]
    place = str(module.source.folder or "")
    try:
        found, lost = coverage.gathered(module, counted)
    except HarnessError as error:
        covered.write(folder, Part({}, place, f"it is not known: {error.what}"))
        return
    why = f"{lost} instructions were too many to be counted" if lost else ""
    if freeze.machine_spec(lab.kernel, lab.image, lab.cache).accelerator == "kvm":
        why = why or "the machines were emulated, since QEMU counts nothing with KVM"
    covered.write(folder, Part(found, place, why))
