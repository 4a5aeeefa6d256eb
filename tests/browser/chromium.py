# SPDX-License-Identifier: GPL-2.0-only
"""Chromium, as the tests of pages use it: Debian's, unpacked below the cache, never installed.

Playwright drives it through a pipe. It runs in bubblewrap without a network, and sees nothing of
this host but one folder of pages.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from harness import config
from harness.host import debian, sandbox
from harness.host.cache import Cache

PAGES = "/mnt/pages"  # where the browser sees the folder
# The shell is Chromium without what draws on a screen. base-files has the links /lib64 and so on.
_PACKAGES = ("base-files", "chromium-headless-shell", "fonts-dejavu-core")
_PROGRAM = "/usr/lib/chromium/chromium-headless-shell"
# It reserves tens of TiB of addresses, which are no memory, and opens a file for each font.
_LIMITS = replace(sandbox.KERNEL, memory=1 << 46, open_files=8192, scratch=1 << 30)
_START_SECONDS = 120.0  # less than one on a quiet host


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Browser]:
    """A browser that has the files of ``folder`` in ``PAGES``, until the end of the block."""
    matrix = config.load()
    suite = matrix.kernels[matrix.default].suite
    with Cache() as cache, tempfile.TemporaryDirectory(prefix="harness-browser-") as scratch:
        tree = debian.unpack_packages(
            cache, label="chromium", suite=suite, packages=_PACKAGES,
            note="unpacking Chromium, which shows the page of results",
        )  # fmt: skip
        boxed = sandbox.command(tree.root, [_PROGRAM], read_only={PAGES: folder}, limits=_LIMITS)
        program = Path(scratch) / "chromium"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(boxed)} "$@"\n')
        program.chmod(0o755)
        with sync_playwright() as playwright:
            # Its own sandbox is not possible in another one.
            browser = playwright.chromium.launch(
                executable_path=program, chromium_sandbox=False, timeout=_START_SECONDS * 1000
            )
            try:
                yield browser
            finally:
                browser.close()
