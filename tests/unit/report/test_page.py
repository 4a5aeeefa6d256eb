# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/page.py: what is on the page, and what can never be."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from harness.report import page
from harness.report.result import Case, Cell, Excerpt, KernelResult, left_out

PASSED = Case("test_a::test_opens", "contract", "passed", 0.4)
RED = Case("test_a::test_closes[1-2]", "contract", "failed", 1.5, "kernel: warning in f (f.c:3)")
SKIPPED = Case("test_b::test_waits", "module", "skipped", 0.0, "needs CONFIG_X")


def result(kernel: str, *tests: Case, status: int = 0) -> KernelResult:
    cells = {"boot": Cell(False, "ok"), "contract": Cell(bool(status), "2 ok")}
    return KernelResult(kernel, "6.1.0", "6.1-1", status, 1e9, 2.0, 8.0, cells, tests)


class Parsed(HTMLParser):
    """The tags of a page with their attributes, the ids among them, and the text of the tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.words.setdefault(self._open, []).append(data)

    def all(self, attribute: str) -> list[str]:
        return [value for _, has in self.tags if (value := has.get(attribute)) is not None]


def test_a_red_field_leads_to_what_was_found() -> None:
    """With the whole text, and the command that shows it again."""
    texts = {"trixie": {RED.name: "KERNEL WARNING\nf.c:3"}}
    made = page.html(
        [result("trixie", PASSED, RED, status=1), result("sid", PASSED, SKIPPED)], texts
    )
    parsed = Parsed(made)
    links = [link.removeprefix("#") for link in parsed.all("href")]
    assert set(links) <= set(parsed.all("id"))
    assert "KERNEL WARNING\nf.c:3" in parsed.words["pre"]
    again = "invoke test-vm --kernel trixie --filter test_closes --suite contract"
    assert again in parsed.words["code"]
    marks = [mark.strip() for mark in parsed.words["td"] if mark.strip() in ("✓", "–")]  # noqa: RUF001
    assert marks == ["✓", "✓", "–"]  # noqa: RUF001
    assert parsed.words["a"].count("✗") == 1


@pytest.mark.parametrize(
    "hostile",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'><svg/onload=alert(1)>",
     "</pre></details><script>", "{{ 7 * 7 }}", "javascript:alert(1)"],
)  # fmt: skip
def test_what_a_module_prints_is_text(hostile: str) -> None:
    """In every place that is filled in; and the page itself has no script at all."""
    source = Excerpt(hostile, 2, 1, (hostile, hostile, hostile))
    case = Case(f"test_{hostile}::test_{hostile}", "contract", "failed", 1.0, hostile, (source,))
    red = result(hostile, case, replace(SKIPPED, why=hostile), status=1)
    red = replace(red, release=hostile, cells={"boot": Cell(True, hostile, hostile)})
    made = page.html([red], {hostile: {case.name: hostile}}, about=hostile)
    parsed = Parsed(made)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "img", "iframe", "link", "object"})
    assert not [name for _, has in parsed.tags for name in has if name.startswith("on")]
    assert all(link.startswith("#") for link in parsed.all("href"))
    assert hostile in parsed.words["pre"]
    assert parsed.words["mark"][0] == f"> 2  {hostile}\n"
    assert "49" not in parsed.words.get("pre", [])


def test_the_source_that_is_to_blame_is_shown() -> None:
    """Each line with its number; the one in question stands out, also without colours."""
    source = Excerpt("sub/a.c", 10, 9, ("before();", "guilty();", "after();"))
    parsed = Parsed(page.html([result("trixie", replace(RED, excerpts=(source,)), status=1)], {}))
    assert "The module's source at sub/a.c:10:" in parsed.words["p"]
    shown = "".join(parsed.words["pre"][:1] + parsed.words["mark"])
    assert shown.rstrip("\n") == "   9  before();\n> 10  guilty();\n  11  after();"


def test_the_policy_lets_nothing_in_but_its_own_style() -> None:
    """No script, nothing from elsewhere, and the one style by its digest."""
    made = page.html([result("trixie", RED, status=1)], {})
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', made)
    style = re.search(r"<style>(.*?)</style>", made, re.DOTALL)
    assert policy
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1].split("; ") == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert not re.search(r"style=|https?://", made)


def test_what_is_long_is_cut_and_says_so() -> None:
    """The whole is in the test's folder."""
    made = page.html([result("trixie", RED, status=1)], {"trixie": {RED.name: "x" * 100_000}})
    assert len(made) < 40_000
    assert "80000 more characters" in made


def test_no_results_are_a_page_too() -> None:
    """And it says how to get some."""
    made = page.html([], {})
    assert "invoke test-vm" in made
    assert "<table" not in made


def test_a_kernel_that_was_not_run_is_not_red() -> None:
    """Nothing is known of it."""
    made = page.html([left_out("sid", "7.2", "7.2-1", "no time left")], {})
    assert '<h1 class="green">0 passed, 0 failed, 1 skipped' in made
    assert "no time left" in made


def test_a_large_page_is_small() -> None:
    """1,000 tests on twelve kernels: below 5 MB."""
    tests = [replace(PASSED, name=f"test_{n // 50}::test_number_{n}") for n in range(1000)]
    results = [result(f"kernel{n}", *tests) for n in range(12)]
    assert len(page.html(results, {}).encode()) < 5_000_000
