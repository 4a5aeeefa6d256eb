# SPDX-License-Identifier: GPL-2.0-only
"""What can be said of any module without loading it."""

from __future__ import annotations

from harness.testing import Module

from ..modinfo import FREE, modinfo


def test_builds_without_warnings(module: Module) -> None:
    """Neither the compiler nor the kernel's own tools have found anything but style.

    What modpost says of a missing description is another test's.
    """
    said = module.serious_warnings
    warnings = [line for line in said if "missing MODULE_DESCRIPTION" not in line]
    assert warnings == [], "\n".join(warnings)


def test_has_a_licence(module: Module) -> None:
    """One that the kernel calls free; else it refuses much of what modules need."""
    said = modinfo(module.ko, "license")
    assert said, "the module has no MODULE_LICENSE(), so the kernel calls it proprietary"
    assert [name for name in said if name not in FREE] == [], (
        f'the kernel calls a module with MODULE_LICENSE("{said[0]}") proprietary'
    )


def test_has_a_description(module: Module) -> None:
    """The kernel's build asks for one (modpost, from 6.10 on)."""
    assert modinfo(module.ko, "description"), "the module has no MODULE_DESCRIPTION()"
