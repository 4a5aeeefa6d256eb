# SPDX-License-Identifier: GPL-2.0-only
"""`invoke pipeline publish`: push the lock of a night, and open its issues.

A job that may write to the repository runs this, and is to run nothing that others have made. So
this file, and all that it imports, needs Python's standard library only: the same is

    python3 -m harness.commands.publish gh [DIR]

without a virtual environment. What is published was written by `invoke pipeline settle`, in a
job that may not write; DIR is where that job's files are.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import config
from harness.errors import HarnessError, InputError
from harness.host import files, proc
from harness.host.proc import Deadline

log = logging.getLogger(__name__)

TOOL_SECONDS = 120.0  # git and gh over a slow line


@dataclass(frozen=True)
class Issue:
    """An issue to be opened; the same fault has the same title each night."""

    title: str
    body: str


def said_folder() -> Path:
    """Where `settle` leaves what is to be published: said.json."""
    return config.RESULTS / "pipeline"


def take(settled: Path) -> None:
    """Take from a folder what `settle` has left in another job: the lock, and what is to be said.

    That job runs what others have made, so its files are data and nothing more. Raises
    ``InputError`` for a file that is missing, is a link, or is no lock.
    """
    for target in (said_folder() / "said.json", config.KERNELS_LOCK):
        source = settled / target.relative_to(config.PROJECT)
        if source.is_symlink() or not source.is_file():
            raise InputError(f"{source} is no file", hint="./bootstrap pipeline settle makes it")
        if target == config.KERNELS_LOCK:
            config.load_lock(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write(target, source.read_bytes())


def publish(tool: str) -> int:
    """Commit and push the lock, and open an issue for each red kernel, unless one is open.

    ``tool`` is gh or glab, which know by their environment where they are and who asks.
    """
    if tool not in TOOLS:
        raise InputError(f"--tool takes one of {', '.join(TOOLS)}, not {tool!r}")
    try:
        said = json.loads((said_folder() / "said.json").read_text())
        message = str(said["message"])
        issues = [Issue(**issue) for issue in said["issues"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"there is nothing to publish: {error}", hint="./bootstrap pipeline settle"
        ) from error
    # First: an issue that cannot be opened keeps no green kernel from being locked.
    if message:
        lock = str(config.KERNELS_LOCK.relative_to(config.PROJECT))
        _run(["git", "commit", "--quiet", "--message", message, "--", lock])
        # Somebody may have pushed meanwhile; nobody else writes this file.
        _run(["git", "pull", "--quiet", "--rebase"])
        _run(["git", "push", "--quiet"])
        log.info("%s", message.partition("\n")[0])
    if issues:
        open_ = {str(row["title"]) for row in json.loads(_run([*TOOLS[tool].listed]))}
    for number, issue in enumerate(issues):
        if issue.title in open_:
            log.info("an issue is open already: %s", issue.title)
            continue
        body = said_folder() / f"issue-{number}.md"
        body.write_text(issue.body)
        given = str(body) if TOOLS[tool].by_file else issue.body
        _run([*TOOLS[tool].create, "--title", issue.title, TOOLS[tool].body, given])
        log.info("opened an issue: %s", issue.title)
    return 0


@dataclass(frozen=True)
class _Tool:
    """How an engine's own program lists and opens issues."""

    listed: tuple[str, ...]
    create: tuple[str, ...]
    body: str
    by_file: bool


TOOLS = {
    "gh": _Tool(("gh", "issue", "list", "--state", "open", "--limit", "1000", "--json", "title"),
                ("gh", "issue", "create"), "--body-file", True),
    "glab": _Tool(("glab", "issue", "list", "--per-page", "100", "--output", "json"),
                  ("glab", "issue", "create", "--yes"), "--description", False),
}  # fmt: skip


def _run(argv: Sequence[str]) -> str:
    return proc.run(argv, deadline=Deadline(TOOL_SECONDS), cwd=config.PROJECT).stdout


def main() -> int:
    """`python3 -m harness.commands.publish TOOL [DIR]`: the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if len(sys.argv) not in (2, 3):
            raise InputError("usage: python3 -m harness.commands.publish gh|glab [DIR]")
        for settled in sys.argv[2:]:
            take(Path(settled))
        return publish(sys.argv[1])
    except HarnessError as error:
        log.error("%s", error)
        return int(error.exit_status)


if __name__ == "__main__":
    sys.exit(main())
