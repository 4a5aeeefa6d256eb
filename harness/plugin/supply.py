# SPDX-License-Identifier: GPL-2.0-only
"""Where the tests' machines come from, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest

from harness.build.module import Module
from harness.build.source import Given
from harness.errors import InputError
from harness.examine import loading
from harness.examine.artifacts import Keeper, save_artifacts
from harness.examine.loading import loaded_template
from harness.judge.problem import KernelProblem
from harness.judge.verdict import DECLARED_TAINTS, Problem
from harness.lab import Lab
from harness.machines import pool
from harness.machines.clone import Clone
from harness.machines.pool import Pool
from harness.machines.template import Template
from harness.qemu import Machine

USED = pytest.StashKey[list["UsedMachine"]]()
SOURCE = pytest.StashKey["MachineSource"]()


@dataclass(frozen=True)
class MachineKind:
    """What a test asks for: the arguments of its ``machine`` marker, and the module loaded.

    ``taints``: the kernel's taint flags that loading it may set.
    """

    shape: tuple[tuple[str, object], ...] = ()
    loaded: bool = False
    taints: int = 0


def kind_of(item: pytest.Item, fixtures: Collection[str]) -> MachineKind:
    """The kind of machine that a test asks for by its marker and its fixtures."""
    marker = item.get_closest_marker("machine")
    given = marker.kwargs if marker else {}
    # Tuples, since kinds of machines are the keys of dictionaries.
    shape = tuple(
        (name, tuple(value) if isinstance(value, list) else value)
        for name, value in sorted(given.items())
    )
    loaded = "loaded" in fixtures
    return MachineKind(shape, loaded, declared_taints(item) if loaded else 0)


def fixtures_of(item: pytest.Item) -> Collection[str]:
    """The names of all fixtures that a test uses; pytest knows them of a test in Python."""
    return getattr(item, "fixturenames", ())


def wants_machine(item: pytest.Item) -> bool:
    """Whether a test has a machine of its own, or one that others have had."""
    return "kernel_machine" in fixtures_of(item)


def declared_taints(item: pytest.Item) -> int:
    """The taint flags that a test's ``taint`` markers allow its modules to set."""
    allowed = 0
    for name in (name for marker in item.iter_markers("taint") for name in marker.args):
        if name not in DECLARED_TAINTS:
            raise InputError(
                f"{item.nodeid}: there is no taint named {name!r} that a module may declare",
                hint=f"known are {', '.join(DECLARED_TAINTS)}",
            )
        allowed |= DECLARED_TAINTS[name]
    return allowed


@dataclass
class UsedMachine:
    """A machine that a test uses, and what its judgements so far have come to.

    The next judgement begins at the clone's baseline.
    """

    clone: Clone
    # Called with the machine of a green test, to keep it for the next test. None: it ends.
    give_back: Callable[[Clone], None] | None = None
    red: bool = False
    silent: bool = False  # it will not say anything more, as after a panic
    told: set[str] = field(default_factory=set)  # the problems that are in a report already
    saved: int = 0  # how often evidence was saved
    probed: int = -1  # how many commands had begun when it was last seen that all goes on

    def finish(self) -> None:
        """End the machine, or leave it to the next test."""
        if self.give_back and not self.red and not self.silent:
            self.give_back(self.clone)
        else:
            self.clone.close()


class MachineSource:
    """Where the tests' machines come from; ``keeper`` takes what those leave that are red."""

    def __init__(self, lab: Lab, source: Given, keeper: Keeper, *, record: bool = False) -> None:
        """``record``: each machine boots, and its run is recorded (machines/recorded.py)."""
        self.lab = lab
        self._record = record
        self.keeper = keeper
        self.pool = Pool()
        self._source = source
        self.counts: set[Path] = set()  # what ran when the templates were derived
        self._upset: dict[tuple[str, int], KernelProblem] = {}  # by template and taints

    @cached_property
    def module(self) -> Module:
        """The module under test."""
        return self.lab.build(self._source)

    @property
    def built(self) -> Module | None:
        """The module under test if it was built; what was not has not been loaded either."""
        return vars(self).get("module")

    def take(self, kind: MachineKind) -> Clone:
        """A machine of that kind that nobody has used."""
        return self.pool.take(kind, lambda: self._make(kind))

    def prepare(self, item: pytest.Item | None, *, module: bool = True) -> None:
        """Begin to make the machine of the test that comes next.

        Without ``module``, only if the module is not needed for it, which is not built yet.
        """
        if item is None or not wants_machine(item):
            return
        kind = kind_of(item, fixtures_of(item))
        if module or not (kind.loaded or self._record):
            self.pool.start(kind, lambda: self._make(kind))

    def _make(self, kind: MachineKind) -> Clone:
        shape = dict(kind.shape)
        clock = shape.pop("clock", "host")
        if clock not in ("host", "ahead"):
            raise InputError(
                f"there is no clock named {clock!r} for a machine", hint='say "host" or "ahead"'
            )
        ahead = clock == "ahead"
        if ahead and self._record:
            raise InputError(
                "a machine whose clock runs ahead cannot be recorded",
                hint="run this test without --record",
            )
        template = self.lab.template(**shape, emulated=ahead)  # type: ignore[arg-type]  # a marker's
        if self._record:
            carried = [one.loadable for one in self.module.objects]
            load = loading.set_up(self.module, self._save, kind.taints) if kind.loaded else None
            return pool.open_recorded(template, self.lab.cache, carried, load)
        if kind.loaded:
            template = self._loaded(template, kind.taints)
        return pool.open_clone(template, self.lab.cache, ahead=ahead)

    def _loaded(self, base: Template, taints: int) -> Template:
        """``base`` with the module loaded; what upset the kernel once is not tried again."""
        known = self._upset.get((base.entry.digest, taints))
        if known is not None:
            raise KernelProblem(known.problems, known.kept) from known.__cause__
        try:
            template = loaded_template(self.lab, base, self.module, self._save, taints)
        except KernelProblem as error:
            self._upset[base.entry.digest, taints] = error
            raise
        if template.counts is not None:
            self.counts.add(template.counts)
        return template

    def _save(self, machine: Machine, problems: Sequence[Problem]) -> str:
        name = f"loading-{self.module.name}"
        about = {"modules": {one.name: str(one.ko) for one in self.module.objects}}
        return save_artifacts(self.keeper, self.lab, machine, problems, name, about)
