# SPDX-License-Identifier: GPL-2.0-only
"""Where the tests' machines come from, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest

from harness import pool
from harness.artifacts import Keeper, save_artifacts
from harness.build import Module
from harness.lab import Lab
from harness.loading import loaded_template
from harness.pool import Fresh, Pool
from harness.problem import KernelProblem
from harness.qemu import Machine
from harness.template import Template
from harness.verdict import Problem

USED = pytest.StashKey[list["UsedMachine"]]()
SOURCE = pytest.StashKey["MachineSource"]()


@dataclass(frozen=True)
class MachineKind:
    """What a test asks for: the arguments of its ``machine`` marker, and the module loaded."""

    shape: tuple[tuple[str, object], ...] = ()
    loaded: bool = False


def kind_of(item: pytest.Item, fixtures: Collection[str]) -> MachineKind:
    """The kind of machine that a test asks for by its marker and its fixtures."""
    marker = item.get_closest_marker("machine")
    shape = tuple(sorted(marker.kwargs.items())) if marker else ()
    return MachineKind(shape, "loaded" in fixtures)


@dataclass
class UsedMachine:
    """A machine that a test uses, and what its judgements so far have come to.

    ``fresh`` says from where on the next one counts.
    """

    fresh: Fresh
    # Takes the machine of a green test for the next one; without, the machine ends.
    give_back: Callable[[Fresh], None] | None = None
    red: bool = False
    silent: bool = False  # it will not say anything more, as after a panic
    told: set[str] = field(default_factory=set)  # the problems that are in a report already
    saved: int = 0  # how often evidence was saved

    def finish(self) -> None:
        """End the machine, or leave it to the next test."""
        if self.give_back and not self.red and not self.silent:
            self.give_back(self.fresh)
        else:
            self.fresh.close()


class MachineSource:
    """Where the tests' machines come from; ``keeper`` takes what those leave that are red."""

    def __init__(self, lab: Lab, source: Path, keeper: Keeper) -> None:
        self.lab = lab
        self.keeper = keeper
        self.pool = Pool()
        self._source = source
        self._upset: dict[str, KernelProblem] = {}  # by the template

    @cached_property
    def module(self) -> Module:
        """The module under test."""
        return self.lab.build(self._source)

    @property
    def built(self) -> Module | None:
        """The module under test if it was built; what was not has not been loaded either."""
        return vars(self).get("module")

    def take(self, kind: MachineKind) -> Fresh:
        """A machine of that kind that nobody has used."""
        return self.pool.take(kind, lambda: self._make(kind))

    def prepare(self, item: pytest.Item | None) -> None:
        """Begin to make the machine of the test that comes next."""
        fixtures = getattr(item, "fixturenames", ())
        if item and "machine" in fixtures:
            kind = kind_of(item, fixtures)
            self.pool.prepare(kind, lambda: self._make(kind))

    def _make(self, kind: MachineKind) -> Fresh:
        template = self.lab.template(**dict(kind.shape))  # type: ignore[arg-type]  # a marker's
        if kind.loaded:
            template = self._loaded(template)
        return pool.fresh(template, self.lab.cache)

    def _loaded(self, base: Template) -> Template:
        """``base`` with the module loaded; what upset the kernel once is not tried again."""
        known = self._upset.get(base.entry.digest)
        if known is not None:
            raise KernelProblem(known.problems, known.kept) from known.__cause__
        try:
            return loaded_template(self.lab, base, self.module, self._save)
        except KernelProblem as error:
            self._upset[base.entry.digest] = error
            raise

    def _save(self, machine: Machine, problems: Sequence[Problem]) -> str:
        name = f"loading-{self.module.name}"
        return save_artifacts(self.keeper, self.lab, machine, problems, name, {})
