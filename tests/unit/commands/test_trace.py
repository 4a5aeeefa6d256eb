# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/trace.py: what is refused before anything is booted."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.build.kernel import Kernel
from harness.commands import trace
from harness.config import KernelSpec
from harness.errors import InputError
from harness.host.cache import Entry
from harness.host.debian import Sysroot
from harness.runs.request import Request


def kernel(config: Path) -> Kernel:
    """A kernel with this config, and nothing else."""
    nothing = Path("/nonexistent")
    tree = Sysroot(nothing, Entry("sysroot", "", "", nothing))
    return Kernel(KernelSpec("some", "trixie"), "6.12", nothing, nothing, config, nothing, "", tree)


def test_a_kernel_with_btf(tmp_path: Path) -> None:
    """bpftrace can run on it."""
    config = tmp_path / "config"
    config.write_text("CONFIG_DEBUG_INFO_BTF=y\nCONFIG_DEBUG_INFO_BTF_MODULES=y\n")
    trace.check_btf(kernel(config))


@pytest.mark.parametrize(
    "text", ["# CONFIG_DEBUG_INFO_BTF is not set\n", "CONFIG_DEBUG_INFO_BTF_MODULES=y\n", ""]
)
def test_a_kernel_without_btf_is_a_sentence(tmp_path: Path, text: str) -> None:
    """It is named, and what else there is."""
    config = tmp_path / "config"
    config.write_text(text)
    with pytest.raises(InputError, match=r"kernel some has no description of its types") as error:
        trace.check_btf(kernel(config))
    assert "without --bpf" in str(error.value)


@pytest.mark.parametrize(
    ("command", "functions", "said"),
    [("", [], "nothing is to run"), ("true", ["vfs_*"], "takes the place of --function")],
)
def test_what_does_not_go_with_a_program(command: str, functions: list[str], said: str) -> None:
    """Before anything is looked for."""
    with pytest.raises(InputError, match=said):
        trace.run(Request(), command, functions, [], "BEGIN { exit(); }")
