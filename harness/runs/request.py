# SPDX-License-Identifier: GPL-2.0-only
"""What somebody asked for on the command line, and what it means for each kernel.

A new option of several tasks is a field of ``Request``. tasks.py fills it in; whoever needs the
option reads it there, and the functions in between hand on one value.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness import config
from harness.build import module
from harness.build import source as sources
from harness.build.source import Given
from harness.config import USUAL, Equipment, KernelSpec, Matrix
from harness.errors import InputError
from harness.qemu import devices
from harness.report import table
from harness.runs import identity, pytest_process, suites


@dataclass(frozen=True)
class Request:
    """The options that several tasks have, as they were given. Nothing of them is checked yet.

    None stands for an option that was not given.
    """

    kernels: str | None = None  # NAME[,NAME], a version, all, or a kernel tree's path
    source: Given = config.MODULE  # what --module, --ko and --param name
    equipment: Equipment = USUAL  # what --device and --guest-packages name
    expression: str | None = None  # as pytest's -k takes it
    jobs: int | None = None  # how many tests run at a time
    suite: str | None = None  # NAME[,NAME] of config.SUITES, or all
    profile: str = ""  # of vm/kconfig, for a kernel tree
    own_config: Path | None = None  # a kernel tree's own .config
    keep: bool = False  # leave the machine of the first red test running
    record: bool = False  # record each test's machine
    coverage: bool = False  # say which lines of the module ran
    failed: bool = False  # only the tests that were red in the last run
    minutes: int | None = None  # begin with no other kernel after that time
    verbose: bool = False
    quiet: bool = False  # print the verdict only

    @property
    def own_module(self) -> bool:
        """Whether the module is this project's own."""
        return sources.of(self.source).own

    @property
    def given(self) -> tuple[str, ...]:
        """The options that have the same module tested; none for this project's own as it is."""
        if self.own_module and self.equipment == USUAL:
            return ()
        return (*sources.of(self.source).arguments(), *self.equipment.arguments())

    def select(self, matrix: Matrix) -> list[KernelSpec]:
        """The kernels that were asked for; raises ``InputError`` where there is no such kernel."""
        return matrix.select(self.kernels, self.profile, self.own_config)

    def select_one(self, matrix: Matrix, why: str) -> KernelSpec:
        """The one kernel that was asked for; raises ``InputError`` with ``why`` for several."""
        specs = self.select(matrix)
        if len(specs) != 1:
            raise InputError(why, hint="give --kernel one name")
        return specs[0]

    def check_equipment(self) -> None:
        """Raise ``InputError`` for devices that QEMU does not have, before anything is done."""
        devices.check(self.equipment.devices)

    def plan(self, default: str = "contract") -> Plan:
        """Choose the tests. ``default`` names the suites where none was asked for.

        Those are for this project's own module. Somebody else's is tested by the suite for any.

        Looks at the filter, the module's folder and the suites first, and raises ``InputError``
        where one of them cannot be what was meant: nothing has been downloaded by then.
        """
        pytest_process.check_filter(self.expression)
        config.check_recording(
            record=self.record, coverage=self.coverage, devices=self.equipment.devices
        )
        self.check_equipment()
        module.check_source(self.source)
        if not self.own_module:
            default = "any"
        folders = suites.folders(self.suite or default, self.source)
        options = [*self.equipment.arguments(), f"{self.record}", f"{self.coverage}"]
        tests = [config.PROJECT / folder for folder in folders.values()]
        return Plan(self, folders, identity.of(tests, options))


@dataclass(frozen=True)
class Plan:
    """The tests that are to be run on each kernel."""

    request: Request
    suites: dict[str, str]  # folders of tests, by the names of suites (config.SUITES, table.OWN)
    harness: str = ""  # a digest of the harness and these tests when the run begins (identity.of)
    again: tuple[str, ...] = ()  # the full names of the only tests to be run; (): all of them

    @property
    def whole(self) -> bool:
        """Whether a result says something of the kernel.

        It does if no test is left out, the module and the tests are this project's own, and the
        machines are the usual ones. Somebody else's may be red for reasons of their own.
        """
        asked = self.request
        some = asked.expression is not None or self.again or table.OWN in self.suites
        return not some and asked.own_module and asked.equipment == USUAL

    def arguments(self, spec: KernelSpec, jobs: int, junit: Path) -> list[str]:
        """pytest's arguments for one kernel: ``jobs`` tests at a time, the result in ``junit``."""
        asked = self.request
        given = [*(self.again or self.suites.values()), f"--kernel={spec.asked}"]
        given += sources.of(asked.source).arguments()
        given += asked.equipment.arguments()
        given += [f"--profile={spec.profile}"] if spec.tree and spec.profile else []
        given += [f"--config={spec.config}"] if spec.config else []
        given += ["--keep"] if asked.keep else []
        given += ["--record"] if asked.record else []
        given += ["--coverage"] if asked.coverage else []
        given += ["-k", asked.expression] if asked.expression else []
        given += ["-n", str(jobs)] if jobs > 1 else []
        return [*given, f"--junitxml={junit}"]
