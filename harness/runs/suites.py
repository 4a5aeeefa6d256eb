# SPDX-License-Identifier: GPL-2.0-only
"""Which folders of tests are meant by the names of suites."""

from __future__ import annotations

import logging

from harness import config
from harness.build import source as sources
from harness.build.source import Given
from harness.errors import InputError

log = logging.getLogger(__name__)


def folders(suite: str, source: Given) -> dict[str, str]:
    """The folders that ``--suite NAME[,NAME]`` or ``--suite all`` asks for, by their suites' names.

    They come in the order of ``config.SUITES``. Raises ``InputError`` for an unknown name.
    Somebody else's module is held against the contract only.
    """
    names = list(config.SUITES) if suite == "all" else [name.strip() for name in suite.split(",")]
    for name in names:
        if name not in config.SUITES:
            known = ", ".join([*config.SUITES, "all"])
            raise InputError(f"there is no suite named {name!r}", hint=f"known suites: {known}")
    if not sources.of(source).own and names != ["contract"]:
        log.info("%s is held against the contract; the other suites are about module/", source)
        names = ["contract"]
    return {name: folder for name, folder in config.SUITES.items() if name in names}
