# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the tasks share: the stages below them, which only remember their calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness import config, lab, qemu
from harness.config import GuestSpec, KernelSpec, Matrix
from harness.lab import Lab
from harness.runs import pytest_process
from harness.runs.pytest_process import Ended


@dataclass
class Calls:
    """What was asked of the stages, which are not there."""

    pytest: list[list[str]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    built: list[Path] = field(default_factory=list)


MATRIX = Matrix(
    "one",
    {name: KernelSpec(name, "trixie", "amd64") for name in ("one", "two")},
    GuestSpec("trixie", (), ()),
)


def junit(status: int) -> str:
    """What a pytest that ends so leaves, as far as a contract of one test goes."""
    inside = "<failure>E   wrong</failure>" if status else ""
    return (
        '<testsuites><testsuite><testcase classname="tests.vm.contract.test_contract" '
        f'name="test_it" time="1.5">{inside}</testcase></testsuite></testsuites>'
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """Everything below the tasks is replaced by something that remembers."""
    made = Calls()

    def prepare(spec: KernelSpec, *_: object) -> Lab:
        def build(source: Path) -> object:
            made.built.append(source)
            ko = tmp_path / "wee.ko"
            ko.write_text(spec.name)
            return SimpleNamespace(
                warnings=(), objects=[SimpleNamespace(ko=ko)], how="by Kbuild", digest=""
            )

        return cast(
            Lab,
            SimpleNamespace(
                build=build,
                template=lambda: None,
                kernel=SimpleNamespace(name=spec.name, release="6.12.9", spec=spec),
            ),
        )

    def run(
        arguments: Sequence[str],
        results: Path,
        *,
        prepare: Callable[[Callable[[str], None]], str] = lambda _: "",
        **_: object,
    ) -> Ended:
        prepare(lambda _: None)
        made.pytest.append(list(arguments))
        status = made.statuses.pop(0) if made.statuses else 0
        for word in arguments:
            if word.startswith("--junitxml="):
                Path(word.removeprefix("--junitxml=")).write_text(junit(status))
        return Ended(status)

    monkeypatch.setenv("EUDYPTULA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "load", lambda: MATRIX)
    monkeypatch.setattr(lab, "prepare_lab", prepare)
    monkeypatch.setattr(qemu, "check_version", lambda: (7, 2))
    monkeypatch.setattr(pytest_process, "run", run)
    monkeypatch.setattr(pytest_process, "default_jobs", lambda: 1)
    monkeypatch.setattr(config, "BUILD", tmp_path / "build")
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("harness.examine.loading.loaded_template", lambda *_: None)
    return made


@pytest.fixture
def other_module(tmp_path: Path) -> Path:
    """A module's folder that is not the project's own."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "Kbuild").write_text("obj-m += other.o\n")
    return folder
