# SPDX-License-Identifier: GPL-2.0-only
"""The direction of imports in harness/, which DESIGN calls one way, left to right."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import config

HARNESS = config.PROJECT / "harness"

# A file imports only those before it. A new file needs a place here.
ORDER = (
    "text",
    "errors",
    "proc",
    "locks",
    "cache",
    "config",
    "sandbox",
    "sysroot",
    "archive",
    "source",
    "kernel",
    "build",
    "image",
    "qemu",
    "guest",
    "template",
    "scene",
    "lab",
    "pool",
    "klog",
    "verdict",
    "symbols",
    "report",
    "plugin",
    "fixtures",
    "sweep",
    # What tasks.py calls.
    "runs",
    "bisect",
    "listing",
    "pipeline",
    "shell",
    "doctor",
    "checks",
    "klogbench",
    "bench",
)

# Standard modules that compute and do nothing else.
PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "json",
    "re",
    "typing",
    "xml",  # of texts
}

FILES = sorted(path.stem for path in HARNESS.glob("*.py") if path.stem != "__init__")


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it, with their full names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "harness" if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            if module == "harness":
                yield from (f"harness.{alias.name}" for alias in node.names)
            else:
                yield module


def test_every_file_has_a_place() -> None:
    """A file that the order does not know would be free to import anything."""
    assert not set(FILES) - set(ORDER)
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_what_comes_before_it(name: str) -> None:
    """Data flows one way, and so do imports; nothing in harness/ knows its tests or tasks."""
    before = {f"harness.{earlier}" for earlier in ORDER[: ORDER.index(name)]}
    found = set(imports(HARNESS / f"{name}.py"))
    assert {module for module in found if module.startswith("harness")} <= before
    assert not {"tests", "tasks"} & {module.partition(".")[0] for module in found}


@pytest.mark.parametrize("name", ["klog", "verdict", "report", "text"])
def test_what_is_pure_imports_nothing_that_acts(name: str) -> None:
    """Reading a log and judging it open no file and start no process, so they are testable."""
    path = HARNESS / f"{name}.py"
    outside = {module.partition(".")[0] for module in imports(path)} - {"harness"}
    assert outside <= PURE
    within = {module for module in imports(path) if module.startswith("harness")}
    assert within <= {"harness.klog", "harness.text"}
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}


@pytest.mark.parametrize("name", [name for name in FILES if name != "proc"])
def test_only_proc_starts_programs(name: str) -> None:
    """A program started elsewhere would not die with the harness."""
    starters = {"Popen", "run", "call", "check_call", "check_output", "getoutput",
                "getstatusoutput", "system", "popen", "posix_spawn", "fork",
                "create_subprocess_exec", "create_subprocess_shell"}  # fmt: skip
    for node in ast.walk(ast.parse((HARNESS / f"{name}.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            module = ast.unparse(node.func.value)
            assert module not in {"subprocess", "os", "pty", "asyncio"} or (
                node.func.attr not in starters
            )
        if isinstance(node, ast.ImportFrom) and node.module in {"subprocess", "os", "pty"}:
            assert not starters & {alias.name for alias in node.names}
