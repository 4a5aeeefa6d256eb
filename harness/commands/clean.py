# SPDX-License-Identifier: GPL-2.0-only
"""`invoke clean`: what the harness has stored, but for what another run uses."""

from __future__ import annotations

import logging
import shutil

from harness import config
from harness.host.cache import Cache

log = logging.getLogger(__name__)


def run(cache: Cache) -> None:
    """Remove every entry of the cache that nobody uses, and build/."""
    before = shutil.disk_usage(cache.root).free
    for entry in [*(stored.entry for stored in cache.stored()), *cache.damaged()]:
        if not cache.remove(entry):
            log.info("%s %s is in use by another run; left", entry.kind, entry.label)
    for answer in cache.root.glob("kvm-*"):
        answer.unlink()
    cache.forget()
    # A compiler that is using it meanwhile goes on without it.
    shutil.rmtree(cache.root / "ccache", ignore_errors=True)
    freed = max(0, shutil.disk_usage(cache.root).free - before)
    if config.BUILD.exists():
        shutil.rmtree(config.BUILD)
    log.info("%s: %.0f MiB freed", cache.root, freed / (1 << 20))
