# SPDX-License-Identifier: GPL-2.0-only
"""`invoke build`: the module, built for each kernel that was asked for."""

from __future__ import annotations

import logging
import os
import shutil

from harness import config
from harness.build import module
from harness.host import files
from harness.host.cache import Cache
from harness.runs.ready import Way
from harness.runs.request import Request

log = logging.getLogger(__name__)


def run(request: Request) -> None:
    """Build for each kernel; the modules land in build/KERNEL/."""
    module.check_source(request.source)
    matrix = config.load()
    with Cache() as cache:
        for spec in request.select(matrix):
            way = Way(spec, matrix, cache, request.source)
            lab = way.have_kernel()
            built = way.build()
            for warning in built.warnings:
                log.warning("%s", warning)
            target = config.BUILD / spec.name
            target.mkdir(parents=True, exist_ok=True)
            for one in built.objects:
                with files.replaced(target / one.ko.name) as fresh:
                    shutil.copyfile(one.ko, fresh)
                shown = os.path.relpath(target / one.ko.name)
                log.info("built %s for %s", shown, lab.kernel.release)
