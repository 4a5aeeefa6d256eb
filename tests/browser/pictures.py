# SPDX-License-Identifier: GPL-2.0-only
"""Makes the pictures of the page of results that are in docs/pictures (`invoke pictures`)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from harness import config

from . import chromium, samples

FOLDER = config.PROJECT / "docs" / "pictures"
Scheme = Literal["light", "dark"]
# Name, page, which part of it, width and height in pixels, and whether it is dark.
PICTURES: tuple[tuple[str, str, str, int, int, Scheme], ...] = (
    ("page-light", "red", "", 1100, 900, "light"),
    ("page-dark", "twelve", "tests", 1400, 800, "dark"),
    ("page-history", "red", "history", 700, 500, "light"),
    ("page-phone", "red", "", 360, 740, "light"),
)


def make() -> None:
    """Make each of them."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, chromium.opened(Path(scratch)) as browser:
        for name, sample, part, width, height, scheme in PICTURES:
            html = {"red": samples.red, "twelve": samples.twelve}[sample]()
            (Path(scratch) / f"{name}.html").write_text(html)
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page.goto(f"file://{chromium.PAGES}/{name}.html#{part}")
            page.screenshot(path=FOLDER / f"{name}.png")
            page.close()
