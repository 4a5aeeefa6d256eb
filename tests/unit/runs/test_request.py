# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/request.py: what was asked for becomes kernels, suites and pytest's arguments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import config
from harness.config import Equipment, GuestSpec, KernelSpec, Matrix
from harness.errors import InputError
from harness.runs.request import Plan, Request

SPEC = KernelSpec("one", "trixie", "amd64")
MATRIX = Matrix("one", {"one": SPEC, "two": replace(SPEC, name="two")}, GuestSpec("trixie", (), ()))


@pytest.mark.parametrize(
    ("request_", "default", "names"),
    [
        (Request(), "contract", ["contract"]),
        (Request(), "contract,module", ["contract", "module"]),
        (Request(suite="module"), "contract", ["module"]),
    ],
    ids=["default", "of several kernels", "asked for"],
)
def test_the_default_counts_where_no_suite_was_asked_for(
    request_: Request, default: str, names: list[str]
) -> None:
    """One kernel and several have different defaults; what was asked for is the same for both."""
    assert list(request_.plan(default).suites) == names


def test_a_task_for_one_kernel_refuses_several() -> None:
    """It says why, in the task's own words."""
    assert Request("one").select_one(MATRIX, "a shell is opened in one guest").name == "one"
    with pytest.raises(InputError, match="a shell is opened in one guest"):
        Request("one,two").select_one(MATRIX, "a shell is opened in one guest")


def test_what_is_recorded_is_not_counted() -> None:
    """A machine that is recorded boots each time, and counts its instructions for that already."""
    with pytest.raises(InputError, match="not counted while it is recorded"):
        Request(coverage=True, record=True).plan()


def test_devices_are_not_recorded() -> None:
    """QEMU's replay would not have what a device did by itself."""
    with pytest.raises(InputError, match="a device does is not recorded"):
        Request(equipment=Equipment(devices=("edu",)), record=True).plan()


def test_a_result_of_machines_with_more_devices_is_not_the_kernels() -> None:
    """The kernel's last result is one of the usual machines."""
    assert Plan(Request(), {}).whole
    assert not Plan(Request(equipment=Equipment(devices=("edu",))), {}).whole


def test_options_that_were_not_given_are_not_handed_on(tmp_path: Path) -> None:
    """pytest has defaults of its own for them."""
    plan = Plan(Request(), {"contract": "tests/vm/contract"})
    assert plan.arguments(SPEC, 1, tmp_path / "junit.xml") == [
        "tests/vm/contract", "--kernel=one", f"--module={config.MODULE}",
        f"--junitxml={tmp_path}/junit.xml",
    ]  # fmt: skip


def test_options_that_were_given_reach_pytest(tmp_path: Path) -> None:
    """A kernel tree's profile and configuration are handed on with it."""
    spec = KernelSpec(
        "linux", "trixie", "", tree=tmp_path, profile="debug", config=tmp_path / "config"
    )
    request = Request(
        source=tmp_path, expression="a and b", keep=True,
        equipment=Equipment(("edu,dma_mask=1", "nvme"), ("pciutils", "strace")),
    )  # fmt: skip
    plan = Plan(request, {"any": "tests/vm/any"})
    assert plan.arguments(spec, 3, tmp_path / "junit.xml") == [
        "tests/vm/any", f"--kernel={spec.asked}", f"--module={tmp_path}",
        "--device=edu,dma_mask=1", "--device=nvme", "--guest-packages=pciutils,strace",
        "--profile=debug",
        f"--config={tmp_path}/config", "--keep", "-k", "a and b", "-n", "3",
        f"--junitxml={tmp_path}/junit.xml",
    ]  # fmt: skip
