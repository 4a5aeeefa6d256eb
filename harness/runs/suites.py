# SPDX-License-Identifier: GPL-2.0-only
"""Which folders of tests are meant by the names of suites."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from harness import config
from harness.build import source as sources
from harness.build.source import Given
from harness.errors import InputError
from harness.report import table

log = logging.getLogger(__name__)

# The suites that know nothing of module/.
FOREIGN = ("contract", "any")


def folders(suite: str, source: Given) -> dict[str, str]:
    """The folders that ``--suite NAME[,NAME]`` or ``--suite all`` asks for, by their suites' names.

    They come in the order of ``config.SUITES``, and then tests of one's own, for which a NAME is
    the path of their folder or file (``table.OWN``). Raises ``InputError`` for an unknown name.
    For somebody else's module the suites about this project's own are left out.
    """
    names = list(config.SUITES) if suite == "all" else [name.strip() for name in suite.split(",")]
    own: dict[str, str] = {}
    for name in [name for name in names if name not in config.SUITES]:
        if not name or not os.path.exists(name):
            known = ", ".join([*config.SUITES, "all"])
            raise InputError(
                f"there is no suite named {name!r}",
                hint=f"known suites: {known}; or the path of tests of your own",
            )
        path = Path(os.path.abspath(name))
        folders_of_suites = [config.PROJECT / folder for folder in config.SUITES.values()]
        if any(path.is_relative_to(folder) for folder in folders_of_suites):
            raise InputError(
                f"--suite {name}: these tests are one of this project's suites",
                hint="name the suite, and choose of its tests by --filter",
            )
        if own:
            raise InputError(
                f"--suite {suite}: there are two paths", hint="give the folder that has both"
            )
        own = {table.OWN: str(path)}
        names.remove(name)
    if not sources.of(source).own:
        left_out = [name for name in names if name not in FOREIGN]
        names = [name for name in names if name in FOREIGN] or ([] if own else ["any"])
        if left_out and suite != "all":
            log.info(
                "%s is tested by: %s. The other suites are about module/", source, ", ".join(names)
            )
    return {name: folder for name, folder in config.SUITES.items() if name in names} | own
