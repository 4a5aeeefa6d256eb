# SPDX-License-Identifier: GPL-2.0-only
"""`invoke build`: the module, built for each kernel that was asked for."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from harness import config
from harness.build import module
from harness.host import files
from harness.host.cache import Cache
from harness.lab import prepare_lab

log = logging.getLogger(__name__)


def run(
    kernels: str | None, source: Path, profile: str = "", own_config: Path | None = None
) -> None:
    """Build for each kernel; the modules land in build/KERNEL/."""
    module.check_source(source)
    matrix = config.load()
    with Cache() as cache:
        for spec in matrix.select(kernels, profile, own_config):
            lab = prepare_lab(spec, matrix, cache)
            built = lab.build(source)
            for warning in built.warnings:
                log.warning("%s", warning)
            target = config.BUILD / spec.name
            target.mkdir(parents=True, exist_ok=True)
            with files.replaced(target / built.ko.name) as fresh:
                shutil.copyfile(built.ko, fresh)
            shown = os.path.relpath(target / built.ko.name)
            log.info("built %s for %s", shown, lab.kernel.release)
