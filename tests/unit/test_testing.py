# SPDX-License-Identifier: GPL-2.0-only
"""harness/testing.py: the names that tests import, and nothing beside them."""

from __future__ import annotations

import ast
import inspect
import tomllib

import pytest

from harness import config, testing
from harness.errors import HarnessError


@pytest.mark.parametrize("name", testing.__all__)
def test_each_public_name_is_there_and_says_what_it_is(name: str) -> None:
    """With a docstring of its own: an editor shows it to whoever writes a test."""
    named = getattr(testing, name)
    assert inspect.isclass(named)
    assert named.__dict__.get("__doc__")


def test_all_of_it_is_on_the_page_about_writing_tests() -> None:
    """A name that nobody can find is not public; a HarnessError is known by its root."""
    page = (config.PROJECT / "docs" / "writing-tests.md").read_text()
    assert [name for name in testing.__all__ if f"`{name}`" not in page] == []


def test_the_public_names_have_their_types_wherever_they_are_installed() -> None:
    """Without py.typed, mypy takes each name of an installed package for Any (PEP 561)."""
    assert (config.PROJECT / "harness" / "py.typed").is_file()
    built = tomllib.loads((config.PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in built["package-data"]["harness"]


def test_errors_that_a_test_can_get_have_one_root() -> None:
    """So that one `except` is enough."""
    errors = [getattr(testing, name) for name in testing.__all__]
    assert all(issubclass(error, HarnessError) for error in errors if issubclass(error, Exception))


@pytest.mark.parametrize("suite", ["contract", "module"])
def test_the_suites_of_a_module_use_public_names_only(suite: str) -> None:
    """They are the examples: what they need, tests elsewhere need too."""
    for path in (config.PROJECT / config.SUITES[suite]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            used = {name for name in names if name.partition(".")[0] == "harness"}
            assert used <= {"harness.testing"}, path
