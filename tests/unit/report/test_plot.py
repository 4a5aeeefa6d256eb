# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/plot.py: the picture of a kernel's last runs."""

from __future__ import annotations

from xml.etree import ElementTree

from harness.report import plot
from harness.report.history import Past

GREEN = Past("r1", True, 0, 1e9, 10.0, 30.0, ("m",), ("a::one", "a::two"), (), 1)
RED = Past("r2", False, 1, 1e9 + 60, 5.0, 15.0, ("m",), ("a::one",), ("a::two",), 0)
HOST = Past("r3", True, 3, 1e9 + 90, 0.0, 0.0, (), (), (), 0)


def drawn(*past: Past) -> ElementTree.Element:
    return ElementTree.fromstring(plot.runs(past))  # noqa: S314  # our own


def test_each_run_is_a_bar_with_its_verdict() -> None:
    """The longest is as high as the picture, the others by what they took; a sign for each."""
    picture = drawn(GREEN, RED, HOST)
    name = picture.tag.removesuffix("svg")
    bars = picture.findall(f"{name}g")
    heights = [[float(one.get("height", "")) for one in bar.findall(f"{name}rect")] for bar in bars]
    assert heights == [[15.0, 45.0], [7.5, 22.5], [0.0, 0.5]]
    signs = [[(one.get("class"), one.text) for one in bar.findall(f"{name}text")] for bar in bars]
    assert signs == [[("p", "✓")], [("f", "✗")], [("s", "?")]]
    titles = [bar.findtext(f"{name}title") for bar in bars]
    assert titles[0] == "2001-09-09 01:46 UTC: 10.0 s + 30.0 s; 2 passed, 0 failed, 1 skipped"
    assert [bar.get("class", "") for bar in bars] == ["", "part", ""]
    assert str(titles[1]).endswith("; some of the tests")


def test_the_picture_says_what_it_shows() -> None:
    """To whoever cannot see it; and it is inside of what is seen."""
    picture = drawn(GREEN, RED, HOST)
    assert picture.get("role") == "img"
    said = "3 runs: 1 green, 1 red, 1 not known; 0 to 40 s, the last one 0 s"
    assert picture.get("aria-label") == said
    width, height = (float(picture.get(name, "")) for name in ("width", "height"))
    assert (width, height) == (30.0, 74.0)


def test_nothing_is_coloured_in_the_picture() -> None:
    """Colours are those of the page, light or dark, and its policy allows no other style."""
    text = plot.runs([GREEN, RED])
    assert "style" not in text
    assert "fill=" not in text


def test_no_runs_are_a_picture_too() -> None:
    """Nothing is divided by their number."""
    assert drawn().get("aria-label") == "no runs"
    assert drawn(HOST).get("width") == "10.0"
