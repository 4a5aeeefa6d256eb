# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: its options, what a run says of the tests that it put aside, and how it
ends where only the host is to blame.

The rest of it is harness/fixtures.py, which takes a quarter of a second to import. A pytest
that only hands out tests to the workers of pytest-xdist does without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import store
from harness.config import MODULE
from harness.errors import HostError

# How many tests a kernel cannot show, by what it lacks: "with OPTION" or "without OPTION".
UNMET = pytest.StashKey[dict[str, int]]()
# The name of this run's folder in results/KERNEL/, the same in all processes of pytest-xdist.
RUN = pytest.StashKey[str]()
# What was damaged in the cache and was made again while the tests ran, a sentence each.
REPAIRS = pytest.StashKey[list[str]]()
# What the report of a red test has if the host is to blame and nothing else. pytest-xdist sends
# all that a report has, and says itself which test a worker has died in.
BY_HOST = "eudyptula_by_host"
_TOLD_RUN = "eudyptula_run"
_HOST_ONLY = pytest.StashKey[bool]()


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
    group.addoption(
        "--results",
        metavar="DIR",
        type=Path,
        help="where red tests leave what there is to see (default: a new results/KERNEL/RUN)",
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
    told = getattr(config, "workerinput", {})
    config.stash[RUN] = told.get(_TOLD_RUN) or store.new_name()
    hands_out = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not hands_out:
        config.pluginmanager.import_plugin("harness.fixtures")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All workers of a run leave what they leave in one folder."""
    node.workerinput[_TOLD_RUN] = node.config.stash[RUN]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker of pytest-xdist has to tell at its end."""
    told = getattr(node, "workeroutput", {})
    # All workers collect the same tests, so that any one of them knows of all that is put aside.
    node.config.stash[UNMET] = told.get("unmet", {})
    node.config.stash.setdefault(REPAIRS, []).extend(told.get("repairs", []))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What the host lacks, or its killing QEMU, makes no kernel red: that has its own status."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or session.exitstatus != pytest.ExitCode.TESTS_FAILED:
        return
    red = [*reporter.stats.get("failed", ()), *reporter.stats.get("error", ())]
    # Whatever else pytest counts as failed is for some other reason.
    if len(red) == session.testsfailed and all(hasattr(one, BY_HOST) for one in red):
        session.exitstatus = HostError.exit_status
        session.config.stash[_HOST_ONLY] = True


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash.get(_HOST_ONLY, False):
        terminalreporter.write_line("only the host is to blame; nothing is known of the kernel")
    for repaired in config.stash.get(REPAIRS, []):
        terminalreporter.write_line(f"cache: {repaired}")
    for lack, count in sorted(config.stash.get(UNMET, {}).items()):
        terminalreporter.write_line(f"not run: {count} test(s) for a kernel {lack}")
