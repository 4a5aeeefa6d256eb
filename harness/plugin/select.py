# SPDX-License-Identifier: GPL-2.0-only
"""Which tests are run on a kernel, and how long each may take."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from harness.build import kernel
from harness.errors import InputError
from harness.host.cache import Cache
from harness.plugin import UNMET, kernel_of, matrix_of
from harness.plugin.supply import declared_taints

# A test that takes longer ends red; @pytest.mark.timeout(SECONDS) sets another limit.
TEST_SECONDS = 300.0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each machine test a limit, and put aside what this kernel cannot show.

    Last, so that a test which -k or -m has left out is not said to be impossible.
    """
    for item in items:
        # Every fixture that has to do with machines needs `lab`, so this also covers a test that
        # makes its machines itself.
        if "lab" in getattr(item, "fixturenames", ()):
            # The limit is for the test's function only. What fixtures wait for has limits of its
            # own, and the first test of a run may wait until a kernel is compiled. The verdict
            # comes after the function: a test that took too long needs one as well.
            own = item.get_closest_marker("timeout")
            limit = own or pytest.mark.timeout(TEST_SECONDS).mark
            given = {"func_only": True, **limit.kwargs}
            item.add_marker(pytest.mark.timeout(*limit.args, **given), append=False)
        try:
            declared_taints(item)
        except InputError as error:
            raise pytest.UsageError(str(error)) from None
    unmet: dict[pytest.Item, str] = {}
    if config.getoption("kernel_record"):
        lack = "with a machine that cannot be recorded"
        unmet = dict.fromkeys(filter(_unrecordable, items), lack)
    needy = any(item.get_closest_marker("needs") for item in items)
    options = _kernel_options(config) if needy else frozenset()
    for item in items:
        for marker in item.iter_markers("needs"):
            wanted, unwanted = marker.kwargs.get("config"), marker.kwargs.get("without")
            if wanted and wanted not in options:
                unmet[item] = f"for a kernel with {wanted}"
            elif unwanted in options:
                unmet[item] = f"for a kernel without {unwanted}"
    items[:] = [item for item in items if item not in unmet]
    config.hook.pytest_deselected(items=list(unmet))
    config.stash[UNMET] = dict(Counter(unmet.values()))


def _unrecordable(item: pytest.Item) -> bool:
    """Whether a test wants a machine that cannot be recorded.

    QEMU records one CPU, and not what all of its devices do. A clock that runs ahead was not seen
    to be recorded.
    """
    marker = item.get_closest_marker("machine")
    shape = marker.kwargs if marker else {}
    unfit = shape.get("clock") == "ahead" or shape.get("cpus", 1) > 1 or shape.get("devices")
    return bool(unfit)


def _kernel_options(asked: pytest.Config) -> frozenset[str]:
    """The options that the kernel under test was built with (=y or =m)."""
    with Cache() as cache:
        text = kernel.prepare_kernel(kernel_of(asked, matrix_of(asked)), cache).config.read_text()
    return frozenset(re.findall(r"^(CONFIG_\w+)=[ym]$", text, re.MULTILINE))
