# SPDX-License-Identifier: GPL-2.0-only
"""harness/plugin/supply.py: which machine is made ahead."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.examine.artifacts import Keeper
from harness.lab import Lab
from harness.machines.clone import Clone
from harness.plugin.supply import MachineKind, MachineSource

SOMETHING = SimpleNamespace(close=lambda: None)


def item(*fixtures: str) -> pytest.Item:
    one = SimpleNamespace(
        fixturenames=fixtures, get_closest_marker=lambda _: None, iter_markers=lambda _: ()
    )
    return cast(pytest.Item, one)


@pytest.mark.parametrize(
    ("fixtures", "module", "record", "made"),
    [
        ({"kernel_machine"}, True, False, [MachineKind()]),
        ({"kernel_machine"}, False, False, [MachineKind()]),
        ({"kernel_machine", "loaded"}, True, False, [MachineKind(loaded=True)]),
        # What needs the module waits for it.
        ({"kernel_machine", "loaded"}, False, False, []),
        ({"kernel_machine"}, True, True, [MachineKind()]),
        ({"kernel_machine"}, False, True, []),
        ({"shared"}, True, False, []),
    ],
)
def test_a_machine_is_made_before_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fixtures: Collection[str], module: bool,
    record: bool, made: list[MachineKind],
) -> None:  # fmt: skip
    """Of the kind that the test wants, if there can be one already."""
    found: list[MachineKind] = []

    def make(_: MachineSource, kind: MachineKind) -> Clone:
        found.append(kind)
        return cast(Clone, SOMETHING)

    monkeypatch.setattr(MachineSource, "_make", make)
    keeper = Keeper(lambda: tmp_path, hold_first=False, limit=0)
    source = MachineSource(cast(Lab, None), tmp_path, keeper, record=record)
    source.prepare(item(*fixtures), module=module)
    source.pool.close()
    assert found == made
