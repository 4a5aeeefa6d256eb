# SPDX-License-Identifier: GPL-2.0-only
"""The last runs of a kernel as a picture: a bar for each, with its verdict below. Pure.

It is SVG that stands in a page of HTML. Its colours are classes of page.css, so that it is readable
on dark and on light ground, and so that the page's policy needs to allow no style but its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import svg
from markupsafe import Markup, escape

from harness.report.history import Past

# All lengths are in pixels. Thirty runs (history.RUNS) fit on a phone.
_STEP = 10.0  # from one bar to the next
_BAR = 8.0  # the width of one
_HEIGHT = 60.0  # of the longest
_BELOW = 14.0  # for the verdicts
_LEAST = 0.5  # a run of no time can be seen and pointed at as well

# By a task's exit status: a class of page.css, and a sign for whoever sees no colours.
_SIGNS = {0: ("p", "✓"), 1: ("f", "✗")}
_UNKNOWN = ("s", "?")


def runs(past: Sequence[Past]) -> Markup:
    """The runs, which are one kernel's, from left to right; the picture as an element of HTML."""
    longest = max((one.ready_s + one.tests_s for one in past), default=0.0) or 1.0
    width = _STEP * max(1, len(past))
    drawn: list[svg.Element] = [
        svg.Line(class_=["axis"], x1=0, y1=_HEIGHT, x2=_round(width), y2=_HEIGHT)
    ]
    drawn += [_bar(one, _STEP * place, longest) for place, one in enumerate(past)]
    picture = svg.SVG(
        class_=["runs"], width=_round(width), height=_HEIGHT + _BELOW,
        viewBox=svg.ViewBoxSpec(0, 0, _round(width), _HEIGHT + _BELOW), elements=drawn,
        extra={"role": "img", "aria-label": str(escape(summary(past)))},
    )  # fmt: skip
    return Markup(picture.as_str())  # noqa: S704  # numbers, and what is escaped here


def summary(past: Sequence[Past]) -> str:
    """A description of the picture in words."""
    if not past:
        return "no runs"
    green = sum(one.status == 0 for one in past)
    red = sum(one.status == 1 for one in past)
    other = len(past) - green - red
    seconds = [one.ready_s + one.tests_s for one in past]
    return (
        f"{len(past)} run{'' if len(past) == 1 else 's'}: {green} green, {red} red"
        f"{f', {other} not known' if other else ''}; "
        f"{min(seconds):.0f} to {max(seconds):.0f} s, the last one {seconds[-1]:.0f} s"
    )


def _bar(one: Past, left: float, longest: float) -> svg.Element:
    ready = _HEIGHT * one.ready_s / longest
    tests = max(_LEAST, _HEIGHT * one.tests_s / longest)
    kind, sign = _SIGNS.get(one.status, _UNKNOWN)
    when = f"{datetime.fromtimestamp(one.finished, UTC):%Y-%m-%d %H:%M UTC}"
    said = (
        f"{when}: {one.ready_s:.1f} s + {one.tests_s:.1f} s; {len(one.passed)} passed, "
        f"{len(one.red)} failed, {one.skipped} skipped{'' if one.whole else '; some of the tests'}"
    )
    # svg.py writes texts as they are, so whatever is no number is escaped here.
    return svg.G(
        class_=[] if one.whole else ["part"],
        elements=[
            svg.Title(text=str(escape(said))),
            svg.Rect(class_=["ready"], x=left, y=_round(_HEIGHT - ready), width=_BAR,
                     height=_round(ready)),
            svg.Rect(class_=["tests"], x=left, y=_round(_HEIGHT - ready - tests), width=_BAR,
                     height=_round(tests)),
            svg.Text(class_=[kind], x=left + _BAR / 2, y=_HEIGHT + 11, text_anchor="middle",
                     text=sign),
        ],
    )  # fmt: skip


def _round(number: float) -> float:
    return round(number, 1)
