# SPDX-License-Identifier: GPL-2.0-only
"""Compiles vm/coverage.c, the plugin by which QEMU counts what a guest runs of its modules."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from harness import config
from harness.build.kernel import Kernel
from harness.host import sandbox
from harness.host.cache import Cache
from harness.host.proc import Deadline

SOURCE = config.PROJECT / "vm" / "coverage.c"
PLUGIN = "coverage.so"
_SECONDS = 120.0


def api_of(version: tuple[int, int]) -> int:
    """The version of the plugin interface to ask a QEMU for.

    7.2 takes 0 and 1, and 9.0 is the first that takes no 1 (QEMU_PLUGIN_MIN_VERSION in its
    include/qemu/qemu-plugin.h).
    """
    return 1 if version < (9, 0) else 2


def compiled(kernel: Kernel, version: tuple[int, int], cache: Cache) -> Path:
    """The plugin for a QEMU of that version, made by the compiler of the kernel's own tree."""
    api = api_of(version)
    content = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    key = {"recipe": 1, "source": content, "api": api}

    def make(folder: Path) -> None:
        shutil.copy(SOURCE, folder)
        sandbox.run(
            kernel.sysroot.root,
            ["gcc", "-O2", "-Wall", "-Werror", "-ffreestanding", "-fPIC", "-fvisibility=hidden",
             f"-DAPI_VERSION={api}", "-shared", "-nostdlib", "-o", PLUGIN, SOURCE.name],
            deadline=Deadline(_SECONDS), writable={"/mnt/plugin": folder}, cwd="/mnt/plugin",
        )  # fmt: skip

    return cache.get("plugin", "coverage", key, make).path / PLUGIN
