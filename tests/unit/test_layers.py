# SPDX-License-Identifier: GPL-2.0-only
"""Which part of harness/ may import which, and who may touch the outside world.

The import graph is read by grimp. It sees every import statement, those inside functions too.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

from harness import config
from harness.host import proc

HARNESS = config.PROJECT / "harness"

# From the top to the bottom. A module imports from its own layer and from those above it.
LAYERS = {
    "host": ("harness.errors", "harness.config", "harness.host"),
    "pure": ("harness.klog", "harness.report", "harness.judge"),
    "machines": ("harness.build", "harness.qemu", "harness.machines", "harness.examine",
                 "harness.probe", "harness.lab", "harness.testing"),
    "drivers": ("harness.plugin", "harness.runs", "harness.mutants", "harness.commands"),
}  # fmt: skip

# Who may import what reaches out of the harness. The names are packages or single files.
ONLY = {
    "pytest": ("harness.plugin",),
    "qemu": ("harness.qemu.qmp",),
    "paramiko": ("harness.machines.guest", "harness.machines.session", "harness.commands.shell"),
}

# What a pure module may import besides the harness: modules that compute and do nothing else.
PURE = {
    "__future__", "base64", "bisect", "collections", "csv", "dataclasses", "datetime", "enum",
    "functools", "hashlib", "io", "itertools", "jinja2", "json", "markupsafe", "math", "re",
    "shlex", "svg", "typing", "xml",
}  # fmt: skip
# The scorer of the log reader reads a folder of logs, as its name says; the page of results reads
# its own template.
READS_FILES = {"harness.klog.bench", "harness.report.page"}


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("harness", include_external_packages=True, cache_dir=None)


@pytest.fixture(scope="module")
def own(graph: grimp.ImportGraph) -> list[str]:
    """The modules of harness/, without the package itself, which is empty."""
    return sorted(name for name in graph.modules if name.startswith("harness."))


def layer_of(module: str) -> str | None:
    for layer, packages in LAYERS.items():
        if any(within(module, package) for package in packages):
            return layer
    return None


def test_every_module_is_in_a_layer(own: list[str]) -> None:
    """A module that no layer knows would be free to import anything."""
    assert [name for name in own if layer_of(name) is None] == []


def test_no_import_runs_upwards(graph: grimp.ImportGraph, own: list[str]) -> None:
    """Data flows one way, and so do imports."""
    order = list(LAYERS)
    wrong = [
        f"{name} ({layer_of(name)}) imports {other} ({layer_of(other)})"
        for name in own
        for other in sorted(graph.find_modules_directly_imported_by(name))
        if other in own and order.index(str(layer_of(other))) > order.index(str(layer_of(name)))
    ]
    assert wrong == []


def test_no_module_imports_in_a_circle(graph: grimp.ImportGraph, own: list[str]) -> None:
    """Two files that need each other are one subject in two places."""
    sorter = TopologicalSorter(
        {name: graph.find_modules_directly_imported_by(name) & set(own) for name in own}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nothing_imports_tests_or_tasks() -> None:
    """The harness works wherever it is installed, without this repository around it."""
    for path in HARNESS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"tests", "tasks"} & {name.partition(".")[0] for name in names}, path


@pytest.mark.parametrize("external", ONLY)
def test_one_place_for_each_way_out(
    graph: grimp.ImportGraph, own: list[str], external: str
) -> None:
    """pytest is imported by the plugin only, programs are started in one file, and so on."""
    users = graph.find_modules_that_directly_import(external) & set(own)
    allowed = {user for user in users if any(within(user, place) for place in ONLY[external])}
    assert users - allowed == set()
    assert allowed  # else the rule names a file that is not there any more


def test_only_proc_starts_programs() -> None:
    """A program that was started elsewhere would not die with the harness."""
    modules = {"subprocess", "os", "pty", "asyncio"}
    starters = {"Popen", "run", "call", "check_call", "check_output", "getoutput",
                "getstatusoutput", "system", "popen", "posix_spawn", "posix_spawnp", "fork",
                "forkpty", "create_subprocess_exec", "create_subprocess_shell"}  # fmt: skip
    for path in HARNESS.rglob("*.py"):
        if path == HARNESS / "host" / "proc.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                started = ast.unparse(node.func.value) in modules and node.func.attr in starters
                assert not started, f"{path}:{node.lineno}"
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                assert not starters & {alias.name for alias in node.names}, path


def test_nothing_above_itself_is_started_by_name(own: list[str]) -> None:
    """`python -m harness.x` is an import too, which an import graph does not see."""
    order = list(LAYERS)
    for name in own:
        path = HARNESS.parent.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in own:
                other, mine = layer_of(str(node.value)), layer_of(name)
                assert order.index(str(other)) <= order.index(str(mine)), f"{path}: {node.value}"


def test_what_is_pure_does_nothing_else(graph: grimp.ImportGraph, own: list[str]) -> None:
    """Reading a log and judging it open no file and start no process, so both are testable."""
    for name in own:
        if layer_of(name) != "pure" or name in READS_FILES:
            continue
        outside = graph.find_modules_directly_imported_by(name) - set(own) - {"harness"}
        assert outside <= PURE, name
        path = HARNESS.parent.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        called = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"open", "print", "input", "exec", "eval", "__import__"}, name


def test_publishing_needs_the_standard_library_only() -> None:
    """A job that may write to the repository runs it, and nothing that others have made."""
    script = "import sys; from harness.commands import publish; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c",
               f"import sys; sys.path.append({str(config.PROJECT)!r}); {script}"]  # fmt: skip
    done = proc.run(command, deadline=proc.Deadline(20), cwd=config.PROJECT)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "harness" in loaded
    assert loaded <= sys.stdlib_module_names | {"harness", "__main__"}
