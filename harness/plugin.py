# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: its options, and what a run says of the tests that it put aside.

The rest of it is harness/fixtures.py, which takes a quarter of a second to import. A pytest
that only hands out tests to the workers of pytest-xdist does without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.config import MODULE

# How many tests a kernel cannot show, by what it lacks: "with OPTION" or "without OPTION".
UNMET = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("eudyptula", "Linux kernel modules in QEMU")
    group.addoption(
        "--kernel", metavar="NAME", help="the kernel to test on (default: see vm/kernels.toml)"
    )
    group.addoption(
        "--keep", action="store_true", help="leave the machine of the first red test running"
    )
    group.addoption(
        "--profile", metavar="NAME", default="", help="what is added to a kernel tree's config"
    )
    group.addoption("--config", metavar="FILE", type=Path, help="a kernel tree's own config")
    group.addoption(
        "--module",
        metavar="DIR",
        default=str(MODULE),
        help="the folder of the module under test (default: module/)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "machine(memory_mib=512, cpus=1, append=()): the shape of this test's machine; "
        "append is a tuple of kernel command line options",
    )
    config.addinivalue_line(
        "markers",
        "needs(config=None, without=None): the kernel must have the one option and must not have "
        "the other; elsewhere it is not run",
    )
    hands_out = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not hands_out:
        config.pluginmanager.import_plugin("harness.fixtures")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker has put aside; all workers collect the same tests."""
    node.config.stash[UNMET] = getattr(node, "workeroutput", {}).get("unmet", {})


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for lack, count in sorted(config.stash.get(UNMET, {}).items()):
        terminalreporter.write_line(f"not run: {count} test(s) for a kernel {lack}")
