# SPDX-License-Identifier: GPL-2.0-only
"""The page of results as a browser shows it: read, clicked, narrow, dark, large and hostile."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from playwright.sync_api import Page

from harness.report.result import Case, Cell, Excerpt

from . import samples
from .conftest import Opened

Show = Callable[..., Opened]


def sections(page: Page) -> list[str]:
    return [str(one.get_attribute("id")) for one in page.locator("main > section").all()]


def test_a_green_run(show: Show) -> None:
    """Nothing is red on it, and there is no heading for what is."""
    page = show(samples.green()).page
    assert page.title() == "38 passed, 0 failed, 2 skipped"
    assert sections(page) == ["kernels", "tests", "time", "history"]
    assert page.locator(".grid td.p").count() == 38
    assert page.locator("details").count() == 0


def test_an_empty_page(show: Show) -> None:
    """It says what makes results."""
    page = show(samples.html([])).page
    assert sections(page) == ["kernels"]
    assert page.locator("#kernels").inner_text().endswith("invoke test-vm makes some.")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_click_opens_what_was_found(show: Show, script: bool) -> None:
    """The verdict, the log and the source's lines; no script is needed for that."""
    page = show(samples.red(), script=script).page
    found = page.locator("details").nth(5)
    assert not found.locator("pre.source").is_visible()
    page.locator(".grid td.f a").nth(5).click()
    found.locator("pre.source").wait_for(state="visible")
    assert found.locator("summary").inner_text() == (
        "test_part_1::test_what_number_38_does on trixie: "
        "splat: WARNING in driver_write at waitqueues.c:273"
    )
    assert "driver_write+0x1b8/0x200" in found.locator("pre").nth(1).inner_text()
    assert found.locator("mark").inner_text().rstrip() == "> 273  \tWARN_ON(ret);"
    assert page.evaluate("location.hash") == "#f5"
    # It is in the window, once that has scrolled.
    page.wait_for_function(
        "() => { const y = document.querySelectorAll('details')[5].getBoundingClientRect().top;"
        " return -1 <= y && y < 800 }"
    )


def test_the_keyboard_opens_it_as_well(show: Show) -> None:
    """By tabulator and return; where the focus is can be seen."""
    page = show(samples.red()).page
    page.locator(".grid td.f a").nth(3).focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#f4"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    found = page.locator("details").nth(4)
    found.locator("pre.source").wait_for(state="visible")
    found.locator("summary").focus()
    page.keyboard.press("Enter")
    found.locator("pre.source").wait_for(state="hidden")


def test_three_are_open_already(show: Show) -> None:
    """Most runs have no more that is red."""
    page = show(samples.red()).page
    opened = page.eval_on_selector_all("details", "all => all.map(one => one.open)")
    assert opened == [True, True, True, False, False, False]


def test_twelve_kernels(show: Show) -> None:
    """A column each, below its name; the name of a test stays where the window is narrow."""
    page = show(samples.twelve(), width=700).page
    assert page.locator("svg.runs").count() == 12
    area = page.locator("#tests .wide")
    area.scroll_into_view_if_needed()
    row = area.locator("tbody tr").first
    column = area.locator("thead tr").first.locator("th").nth(12)
    last = row.locator("td").nth(11)
    area.evaluate("one => one.scrollLeft = one.scrollWidth")
    head, cell, name = column.bounding_box(), last.bounding_box(), row.locator("th").bounding_box()
    shown = area.bounding_box()
    assert head is not None
    assert cell is not None
    assert name is not None
    assert shown is not None
    assert column.inner_text() == "race"
    assert abs(head["x"] - cell["x"]) < 1
    assert abs(name["x"] - shown["x"]) < 1
    assert cell["x"] + cell["width"] <= shown["x"] + shown["width"] + 1


LARGE = "one => !one.firstElementChild.checkVisibility({contentVisibilityAuto: true})"


def test_five_thousand_tests(show: Show) -> None:
    """What is not seen is not laid out, so that the page opens and scrolls without a stutter."""
    page = show(samples.large()).page
    groups = page.locator(".group")
    assert groups.count() == 50
    skipped = page.eval_on_selector_all(".group", f"all => all.filter({LARGE}).length")
    assert skipped >= 45
    assert page.locator(".grid tbody tr").count() == 5000
    assert page.evaluate("document.querySelectorAll('*').length") < 25_000
    # The height is foretold, so that nothing jumps while one scrolls.
    height = "document.querySelector('#tests').getBoundingClientRect().height"
    foretold = page.evaluate(height)
    rule = ".group { content-visibility: visible !important }"
    page.evaluate(f"document.styleSheets[0].insertRule('{rule}', 0)")
    assert page.evaluate(height) == pytest.approx(foretold, rel=0.1)


def test_the_page_is_as_wide_as_a_phone(show: Show) -> None:
    """What is wider is in an area of its own, which can be moved."""
    for html in (samples.red(), samples.twelve(), samples.html([]), hostile()):
        page = show(html, width=360, height=740).page
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        area = page.locator("#tests .wide")
        if area.count():
            assert area.evaluate("one => one.clientWidth") <= 360


CONTRAST = """() => {
    const numbers = text => text.match(/[\\d.]+/g).map(Number);
    const light = colour => {
        const [r, g, b] = numbers(colour).map(one => one / 255).map(
            one => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const probe = document.body.appendChild(document.createElement('p'));
    probe.style.background = 'Canvas';
    const ground = getComputedStyle(probe).backgroundColor;
    const found = {};
    for (const [name, what, property] of [
        ['text', 'h2', 'color'], ['red', 'td.f a', 'color'], ['green', 'td.p', 'color'],
        ['link', 'nav a', 'color'], ['guilty', 'mark', 'color'],
        ['ready', '.runs rect.ready', 'fill'], ['tests', '.runs rect.tests', 'fill'],
        ['sign', '.runs text.f', 'fill'], ['axis', '.runs text.p', 'fill'],
    ]) {
        const colour = getComputedStyle(document.querySelector(what))[property];
        const both = [light(colour), light(ground)].sort((a, b) => b - a);
        found[name] = (both[0] + .05) / (both[1] + .05);
    }
    return [ground, found];
}"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_can_be_read_by_day_and_by_night(show: Show, dark: bool) -> None:
    """Contrasts of WCAG 2.2: 4.5 for texts (1.4.3), 3 for what is drawn (1.4.11)."""
    ground, found = show(samples.red(), dark=dark).page.evaluate(CONTRAST)
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 150) is dark
    drawn = {"ready", "tests"}
    least = {name: 3.0 if name in drawn else 4.5 for name in found}
    assert {name: value for name, value in found.items() if value < least[name]} == {}


PAYLOADS = (
    "<script>window.hit = 1</script>",
    "<img src=http://127.0.0.1:9/x onerror='window.hit = 2'>",
    "'\"><svg/onload='window.hit = 3'>",
    "</pre></details><iframe src=http://127.0.0.1:9/y></iframe><script>window.hit = 4</script>",
    "<link rel=stylesheet href=http://127.0.0.1:9/z><style>body { display: none }</style>",
    "<meta http-equiv=refresh content='0; url=http://127.0.0.1:9/m'>",
    "<object data=http://127.0.0.1:9/o></object><form action=http://127.0.0.1:9/f>",
    "\x1b]8;;javascript:window.hit=5\x1b\\\0\ufffe{{ 7 * 7 }}{% for x in y %}",
)


def hostile() -> str:
    """A page of which every text is such that would run or fetch something."""
    text = "".join(PAYLOADS)
    source = Excerpt(text, 2, 1, (text, text))
    tests = [
        Case(f"test_{text}::test_{text}{number}", "contract", outcome, 1.0, text, (source,))
        for number, outcome in enumerate(("failed", "error", "passed", "skipped", "failed"))
    ]
    one = samples.result(text, tests)
    return samples.html([replace(one, release=text, cells={"boot": Cell(True, text, text)})], text)


def test_what_a_module_prints_neither_runs_nor_fetches(show: Show) -> None:
    """It is there to be read, in each place, and it is all that is there."""
    opened = show(hostile())
    page = opened.page
    page.locator(".grid td.f a").last.click()
    page.locator("details pre").last.wait_for(state="visible")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.hit") is None
    assert opened.dialogs == []
    assert [re.sub("#.*", "", asked) for asked in opened.asked] == [opened.page.url.split("#")[0]]
    assert page.locator("script, img, iframe, link, object, form, body style").count() == 0
    assert PAYLOADS[0] in page.locator("details pre").last.inner_text()


def test_the_policy_alone_would_do(show: Show) -> None:
    """Even if a text was not escaped, no script would run and nothing be fetched."""
    html = samples.red().replace("</main>", f"{''.join(PAYLOADS[:5])}</main>")
    opened = show(html)
    opened.page.wait_for_load_state("networkidle")
    assert opened.page.locator("main script, main img, main iframe").count() == 4
    assert {asked[-1] for asked in opened.refused} >= {"x"}
    assert opened.page.evaluate("window.hit") is None
    assert [asked for asked in opened.asked if not asked.startswith("file:")] == []


def test_what_would_run_is_seen(show: Show) -> None:
    """Without the policy and the escaping these tests are red: the texts do what they say."""
    html = samples.red().replace("</main>", f"{''.join(PAYLOADS[:5])}</main>")
    opened = show(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html))
    opened.page.wait_for_load_state("networkidle")
    assert opened.page.evaluate("window.hit") is not None
    assert {asked[-1] for asked in opened.asked if asked.startswith("http:")} >= {"x", "z"}
