# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/suites.py: from the option --suite to folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config
from harness.errors import InputError
from harness.runs import suites


@pytest.mark.parametrize(
    ("suite", "names"),
    [
        ("contract", ["contract"]),
        ("module, contract", ["contract", "module"]),
        ("all", ["contract", "any", "module", "harness"]),
    ],
)
def test_suites_are_folders_in_an_order_of_their_own(suite: str, names: list[str]) -> None:
    """However they were written; the table of several kernels has the same order."""
    found = suites.folders(suite, config.MODULE)
    assert found == {name: config.SUITES[name] for name in names}
    assert list(found) == names


@pytest.mark.parametrize(
    ("suite", "names"),
    [
        ("any", ["any"]),
        ("contract", ["contract"]),
        ("all", ["contract", "any"]),
        ("module,harness", ["any"]),
        ("module,contract", ["contract"]),
    ],
)
def test_another_module_is_tested_by_what_knows_nothing_of_ours(
    suite: str, names: list[str], tmp_path: Path
) -> None:
    """The suites about this repository's own module and harness are left out."""
    assert list(suites.folders(suite, tmp_path)) == names


def test_an_unknown_suite_is_refused(tmp_path: Path) -> None:
    """With those that there are."""
    with pytest.raises(InputError, match="no suite named 'contact'") as caught:
        suites.folders("contract,contact", tmp_path)
    assert "contract, any, module, harness, all" in caught.value.hint


def test_tests_of_ones_own_are_named_by_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a folder or a file, seen from where one is; beside a suite, or alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").touch()
    assert suites.folders("tests", tmp_path) == {"own": str(tmp_path / "tests")}
    found = suites.folders("any,tests/test_it.py", tmp_path)
    assert found == {"any": config.SUITES["any"], "own": str(tmp_path / "tests" / "test_it.py")}
    with pytest.raises(InputError, match="two paths"):
        suites.folders("tests,tests/test_it.py", tmp_path)


def test_a_suite_is_not_named_by_its_path(tmp_path: Path) -> None:
    """Its tests would be in another column than they are."""
    with pytest.raises(InputError, match="one of this project's suites"):
        suites.folders(str(config.PROJECT / config.SUITES["any"] / "test_life.py"), tmp_path)
