# SPDX-License-Identifier: GPL-2.0-only
"""`invoke judge`: cards of other people's modules, such as the solutions of a class."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from harness import config, qemu
from harness.errors import Status
from harness.report import card_formats, table
from harness.runs import cards as runs
from harness.runs.cards import Judge
from harness.runs.request import Request

log = logging.getLogger(__name__)


def run(
    request: Request, given: Sequence[str], only: str | None = None, params: Sequence[str] = ()
) -> int:
    """Judge what was ``given`` and print what came of it; 0 only if all is green.

    ``only`` and ``params`` are the options --ko and --param.
    2: nothing is red, but a folder holds no module; 3: only the host is to blame.
    """
    found = runs.subjects(given, only, params)
    qemu.check_version()
    request.check_equipment()
    matrix = config.load()
    every = Judge(request, matrix).run(found, request.select(matrix))
    if request.quiet:
        for one in every:
            print(f"{one.name} on {one.kernel}: {one.outcome}")
    elif len(every) == 1:
        print(card_formats.markdown(every[0], escaped=str))
    else:
        print(table.columns_of(card_formats.overview(every)))
        print()
        for line in card_formats.legend(every):
            print(line)
    log.info("cards: %s/cards.md, cards.json, cards.csv", os.path.relpath(runs.folder()))
    statuses = {one.status for one in every}
    return Status.RED if Status.RED in statuses else max(statuses)
