# SPDX-License-Identifier: GPL-2.0-only
"""`invoke report`: the page of what has been found so far, made again."""

from __future__ import annotations

from pathlib import Path

from harness import config
from harness.errors import InputError
from harness.report import table
from harness.runs import pages


def run(folder: Path | None) -> int:
    """Write the page of each kernel's last result, and say where it is.

    ``folder`` is one like results/, such as another machine's (default: results/).
    """
    place = config.RESULTS if folder is None else folder
    results = pages.newest(place) if place.is_dir() else []
    if not results:
        raise InputError(
            f"no kernel has a result in {place}",
            hint="`invoke test-vm` makes some; DIR is one that has a folder for each kernel",
        )
    written = pages.write(results, place, "The last result of each kernel.")
    print(table.text(results))
    print(f"\n{written}")
    return 0
