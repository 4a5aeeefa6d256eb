# SPDX-License-Identifier: GPL-2.0-only
"""Which folders of tests are meant by the names of suites."""

from __future__ import annotations

import logging

from harness import config
from harness.build import source as sources
from harness.build.source import Given
from harness.errors import InputError

log = logging.getLogger(__name__)

# The suites that know nothing of module/.
FOREIGN = ("contract", "any")


def folders(suite: str, source: Given) -> dict[str, str]:
    """The folders that ``--suite NAME[,NAME]`` or ``--suite all`` asks for, by their suites' names.

    They come in the order of ``config.SUITES``. Raises ``InputError`` for an unknown name.
    For somebody else's module the suites about this project's own are left out.
    """
    names = list(config.SUITES) if suite == "all" else [name.strip() for name in suite.split(",")]
    for name in names:
        if name not in config.SUITES:
            known = ", ".join([*config.SUITES, "all"])
            raise InputError(f"there is no suite named {name!r}", hint=f"known suites: {known}")
    if not sources.of(source).own:
        left_out = [name for name in names if name not in FOREIGN]
        names = [name for name in names if name in FOREIGN] or ["any"]
        if left_out and suite != "all":
            log.info(
                "%s is tested by: %s. The other suites are about module/", source, ", ".join(names)
            )
    return {name: folder for name, folder in config.SUITES.items() if name in names}
