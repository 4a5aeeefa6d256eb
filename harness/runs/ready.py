# SPDX-License-Identifier: GPL-2.0-only
"""The one way from the name of a kernel to a frozen machine, and how far it was gone.

Tasks that test, bisect or compare kernels all have to know at which stage it failed: a kernel
that does not build says something else than a module that does not.
"""

from __future__ import annotations

import enum
import logging

from harness import lab
from harness.build.module import Module
from harness.build.source import Given
from harness.config import USUAL, Equipment, KernelSpec, Matrix
from harness.host.cache import Cache
from harness.lab import Lab
from harness.machines.template import Template

log = logging.getLogger(__name__)


class Stage(enum.Enum):
    """The stages on the way from a kernel's name to a frozen machine."""

    KERNEL = enum.auto()  # download, unpack or compile the kernel, and make its guest image
    MODULE = enum.auto()  # compile the module for it
    BOOT = enum.auto()  # boot it, and freeze the machine
    DONE = enum.auto()  # ready; what comes next is to load the module

    @property
    def column(self) -> str:
        """The column of the table (harness/report/table.py) that shows how it went."""
        return {Stage.MODULE: "build", Stage.DONE: "load"}.get(self, "boot")


class Way:
    """How far one kernel has come. ``stage`` is the current stage, or the one that failed.

    ``lab``, ``module`` and ``template`` are there once their stage is over. Before that they
    raise ``AttributeError``: a fault of the caller's.
    """

    lab: Lab
    module: Module
    template: Template

    def __init__(
        self, spec: KernelSpec, matrix: Matrix, cache: Cache, source: Given,
        equipment: Equipment = USUAL,
    ) -> None:  # fmt: skip
        self.stage = Stage.KERNEL
        self._spec = spec
        self._matrix = matrix
        self._cache = cache
        self._source = source
        self._equipment = equipment

    def have_kernel(self) -> Lab:
        """Have the kernel and its guest image; raises what ``lab.prepare_lab`` raises."""
        self.lab = lab.prepare_lab(self._spec, self._matrix, self._cache, self._equipment)
        self.stage = Stage.MODULE
        return self.lab

    def build(self) -> Module:
        """Build the module for the kernel; raises ``BuildError`` where it does not compile."""
        self.module = self.lab.build(self._source)
        if self.module.how != "by Kbuild":  # which needs no explanation
            log.info(
                "kernel %s: %s is built %s", self.lab.kernel.name, self._source, self.module.how
            )
        self.stage = Stage.BOOT
        return self.module

    def boot(self) -> Template:
        """Boot and freeze it; raises ``MachineError`` or ``GuestError`` where it does not."""
        self.template = self.lab.template()
        self.stage = Stage.DONE
        return self.template
