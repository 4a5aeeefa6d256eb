# SPDX-License-Identifier: GPL-2.0-only
"""One browser for all tests, and a way to open pages in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request

from . import chromium

# Chromium is unpacked within the first test. That takes 20 s on a quiet host with a fast line.
SECONDS = 1800
# At most, for what takes a moment on a quiet host.
WAIT_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(SECONDS))


@dataclass
class Opened:
    """A page that was opened from a file, and what the browser has done for it."""

    page: Page
    asked: list[str] = field(default_factory=list)  # the addresses of all that was fetched
    refused: list[str] = field(default_factory=list)  # of what the page's policy has refused
    dialogs: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the browser sees."""
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="session")
def browser(pages: Path) -> Iterator[Browser]:
    with chromium.opened(pages) as made:
        yield made


@pytest.fixture
def show(browser: Browser, pages: Path) -> Iterator[Callable[..., Opened]]:
    """Opens a text as a page, in a window of its own."""
    contexts = []

    def opens(
        html: str, *, width: int = 1200, height: int = 800, dark: bool = False, script: bool = True
    ) -> Opened:
        # ``script``: whether the browser runs any. What a test asks it is run either way.
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
        )
        context.set_default_timeout(WAIT_SECONDS * 1000)
        contexts.append(context)
        opened = Opened(context.new_page())

        def note_failed(request: Request) -> None:
            if request.failure == "csp":
                opened.asked.remove(request.url)
                opened.refused.append(request.url)

        def note_dialog(dialog: Dialog) -> None:
            opened.dialogs.append(dialog.message)
            dialog.dismiss()

        opened.page.on("request", lambda request: opened.asked.append(request.url))
        opened.page.on("requestfailed", note_failed)
        opened.page.on("dialog", note_dialog)
        path = pages / f"page{len(list(pages.iterdir()))}.html"
        path.write_text(html)
        opened.page.goto(f"file://{chromium.PAGES}/{path.name}")
        return opened

    yield opens
    for context in contexts:
        context.close()
