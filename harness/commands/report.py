# SPDX-License-Identifier: GPL-2.0-only
"""`invoke report`: the page of what has been found so far, made again, or shown while tests run."""

from __future__ import annotations

import logging
from pathlib import Path

from harness import config
from harness.errors import InputError, Status
from harness.report import table
from harness.runs import pages

log = logging.getLogger(__name__)


def run(folder: Path | None) -> int:
    """Write the page of each kernel's last result, and say where it is.

    ``folder`` is one like results/, such as another machine's (default: results/).
    """
    place = config.RESULTS if folder is None else folder
    results = pages.newest(place) if place.is_dir() else []
    notes = pages.passed_over(place)
    for note in notes:
        log.warning("%s", note)
    if not results:
        raise InputError(
            f"no kernel has a result in {place}",
            hint="`invoke test-vm` makes some; DIR is one that has a folder for each kernel",
        )
    written = pages.write(results, place, "The last result of each kernel.", notes)
    print(table.text(results))
    print(f"\n{written}")
    return 0


def serve(folder: Path | None, port: int | None = None) -> int:
    """Show the page of each kernel's last result, and of what runs, until Ctrl-C.

    ``port`` is one of 127.0.0.1 (default: serve.PORT); 0 stands for any that is free. The folder
    may be empty yet.
    """
    from harness.runs.serve import PORT, Server  # noqa: PLC0415  # it takes time to import

    if folder is not None and not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}", hint="DIR is one that has a folder for each kernel"
        )
    with Server(
        config.RESULTS if folder is None else folder, PORT if port is None else port
    ) as server:
        try:
            print(f"the page of results: {server.url} (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            return Status.GREEN
    return Status.GREEN
