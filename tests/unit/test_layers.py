# SPDX-License-Identifier: GPL-2.0-only
"""The direction of imports in harness/, which DESIGN calls one way, left to right."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import config, proc

HARNESS = config.PROJECT / "harness"

# A file imports only those before it. A new file needs a place here.
ORDER = (
    "text",
    "errors",
    "proc",
    "files",
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
    "qemu.argv",
    "qemu.loop",
    "qemu.stalls",
    "qemu.console",
    "qemu.process",
    "qemu.qmp",
    "qemu.agent",
    "qemu.vcpu",
    "qemu.snapshot",
    "qemu.debug",
    "qemu.stream",
    "qemu.machine",
    "qemu.accelerator",
    "qemu",
    "guest",
    "memory",
    "pointers",
    "audit",
    "template",
    "clone",
    "freeze",
    "scene",
    "lab",
    "pool",
    "klog.rust",
    "klog.lines",
    "klog.paste",
    "klog.frames",
    "klog.blame",
    "klog.formats",
    "klog.reader",
    "klog",
    "verdict",
    "symbols",
    "report",
    "store",
    "pytest_process",
    "ready",
    # The judgement, without pytest.
    "problem",
    "evidence",
    "artifacts",
    "loading",
    # The plugin.
    "plugin",
    "expect",
    "supply",
    "selection",
    "judging",
    "fixtures",
    "hooks",
    "sweep",
    # What tasks.py calls.
    "runs",
    "bisect",
    "listing",
    "publish",
    "pipeline",
    "shell",
    "doctor",
    "checks",
    "klog.bench",
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


def path_of(name: str) -> Path:
    """The file of a module, with the dots of its name within harness/: klog.lines, klog."""
    path = HARNESS / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def name_of(path: Path) -> str:
    """The other way round."""
    parts = path.relative_to(HARNESS).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = sorted(filter(None, map(name_of, HARNESS.rglob("*.py"))))


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it, with their full names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "harness" if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                full = f"{module}.{alias.name}"
                within = full.removeprefix("harness.")
                is_file = module == "harness" or (within != full and path_of(within).exists())
                yield full if is_file else module


def test_every_file_has_a_place() -> None:
    """A file that the order does not know would be free to import anything."""
    assert not set(FILES) - set(ORDER)
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_what_comes_before_it(name: str) -> None:
    """Data flows one way, and so do imports; nothing in harness/ knows its tests or tasks."""
    before = {f"harness.{earlier}" for earlier in ORDER[: ORDER.index(name)]}
    found = set(imports(path_of(name)))
    assert {module for module in found if module.startswith("harness")} <= before
    assert not {"tests", "tasks"} & {module.partition(".")[0] for module in found}


PURE_FILES = [name for name in FILES if name.partition(".")[0] == "klog" and name != "klog.bench"]


@pytest.mark.parametrize("name", [*PURE_FILES, "verdict", "report", "text"])
def test_what_is_pure_imports_nothing_that_acts(name: str) -> None:
    """Reading a log and judging it open no file and start no process, so they are testable."""
    path = path_of(name)
    outside = {module.partition(".")[0] for module in imports(path)} - {"harness"}
    assert outside <= PURE
    within = {module for module in imports(path) if module.startswith("harness")}
    assert within <= {"harness.text", *(f"harness.{pure}" for pure in PURE_FILES)}
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}


# And pytest_process, which starts it and reads its exit status.
PLUGIN = {
    "pytest_process",
    "plugin",
    "expect",
    "selection",
    "supply",
    "judging",
    "fixtures",
    "hooks",
}


@pytest.mark.parametrize("name", [name for name in FILES if name not in PLUGIN])
def test_only_the_plugin_knows_pytest(name: str) -> None:
    """Machines are started, loaded and judged without it: a sweep and a shell do so."""
    found = {module.partition(".")[0] for module in imports(path_of(name))}
    assert not {"pytest", "_pytest"} & found


@pytest.mark.parametrize("name", [name for name in FILES if name != "qemu.qmp"])
def test_only_one_file_speaks_qmp(name: str) -> None:
    """Its errors and its event loop end there."""
    outside = {module for module in imports(path_of(name)) if module.startswith("qemu")}
    assert outside == set()


def test_publishing_needs_the_standard_library_only() -> None:
    """A job that may write to the repository runs it, and nothing that others have made."""
    script = "import sys; from harness import publish; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", f"sys_path = {str(config.PROJECT)!r}\n"
               f"import sys; sys.path.append(sys_path); {script}"]  # fmt: skip
    done = proc.run(command, deadline=proc.Deadline(20), cwd=config.PROJECT)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "harness" in loaded
    assert loaded <= sys.stdlib_module_names | {"harness", "__main__"}


@pytest.mark.parametrize("name", [name for name in FILES if name != "proc"])
def test_only_proc_starts_programs(name: str) -> None:
    """A program started elsewhere would not die with the harness."""
    starters = {"Popen", "run", "call", "check_call", "check_output", "getoutput",
                "getstatusoutput", "system", "popen", "posix_spawn", "fork",
                "create_subprocess_exec", "create_subprocess_shell"}  # fmt: skip
    for node in ast.walk(ast.parse(path_of(name).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            module = ast.unparse(node.func.value)
            assert module not in {"subprocess", "os", "pty", "asyncio"} or (
                node.func.attr not in starters
            )
        if isinstance(node, ast.ImportFrom) and node.module in {"subprocess", "os", "pty"}:
            assert not starters & {alias.name for alias in node.names}
