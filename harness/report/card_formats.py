# SPDX-License-Identifier: GPL-2.0-only
"""Cards as Markdown, JSON and CSV, and an overview of several. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from harness.host import text as texts
from harness.report import table
from harness.report.card import KINDS, Card, Finding

_NAMED = 5  # tests of a finding that are named


def markdown(one: Card, escaped: Callable[[str], str] = table.escaped) -> str:
    """A card as Markdown. With ``str`` for ``escaped`` it is text for a terminal."""
    # What is accepted and style alone make no card red: whoever reads "green" is not to read
    # "failed" beside it.
    not_counted = f"{one.failed} not counted (accepted, or style alone)"
    failed = f"{one.failed} failed" if one.status else not_counted
    ran = [f"{one.passed} passed", *([failed] if one.failed or one.status else [])]
    tests = ", ".join([*ran, f"{one.skipped} skipped"])
    kernel = " ".join(dict.fromkeys(filter(None, (one.kernel, one.release))))
    # What somebody accepts is copied from here, so it has no backslashes as other text.
    seen = str if escaped is str else _verbatim
    lines = [
        f"## {escaped(one.name)}: {one.outcome}",
        "",
        f"{escaped(one.path)}, kernel {kernel}: {tests}, {one.seconds:.0f} s.",
    ]
    for number, finding in enumerate(one.findings, 1):
        first, _, block = finding.means.partition("\n")
        new = "New: " if finding.new else ""
        heading = KINDS[finding.kind] if new else KINDS[finding.kind].capitalize()
        lines += ["", f"### {number}. {new}{heading}", ""]
        lines.append(f"- seen: {seen(finding.seen)}")
        if finding.says:
            lines.append(f"- the test says: {escaped(finding.says)}")
        if first:
            lines.append(f"- what it means: {escaped(first)}")
        if finding.where:
            code = f": {finding.code}" if finding.code else ""
            lines.append(f"- where: {escaped(f'{finding.where}{code}')}")
        if finding.again:
            lines.append(f"- see it yourself: `{finding.again}`")
        if finding.tests:
            lines.append(f"- tests: {escaped(texts.listed(finding.tests, _NAMED))}")
        if block:
            lines += ["", *(f"    {line}" for line in block.splitlines())]
    if one.accepted:
        lines += ["", "### Accepted", ""]
        lines += [f"- {escaped(each.seen)}: {escaped(each.accepted)}" for each in one.accepted]
    if one.notes:
        lines += ["", "### Notes", "", *(f"- {escaped(note)}" for note in one.notes)]
    return "\n".join(lines) + "\n"


def _verbatim(said: str) -> str:
    """A text as Markdown shows it unchanged, and as it stands there: between backticks.

    There are more of them than the text has in a row (CommonMark 0.31, section 6.1).
    """
    longest = max(map(len, re.findall("`+", said)), default=0)
    fence = "`" * (longest + 1)
    blank = " " if said.startswith("`") or said.endswith("`") else ""
    return f"{fence}{blank}{said}{blank}{fence}"


def overview(cards: Sequence[Card]) -> list[list[str]]:
    """A table of the cards: its headings, then a row for each with the number of each kind.

    Kinds that nobody has are left out.
    """
    kinds = [kind for kind in KINDS if any(kind in one.kinds for one in cards)]
    rows = [["module", "kernel", "outcome", *kinds]]
    for one in cards:
        counts = [one.kinds.count(kind) for kind in kinds]
        shown = texts.printable(one.name).replace("\n", "\\n")
        rows.append([shown, one.kernel, one.outcome, *(str(count or "-") for count in counts)])
    return rows


def legend(cards: Iterable[Card]) -> list[str]:
    """What the kinds mean that these cards have: "KIND: WORDS", the worst first."""
    kinds = {kind for one in cards for kind in one.kinds}
    return [f"{kind}: {said}" for kind, said in KINDS.items() if kind in kinds]


def all_as_markdown(cards: Sequence[Card]) -> str:
    """The overview, and each card below it, in the order that they are given in."""
    head, *rows = [
        f"| {' | '.join(table.escaped(cell) for cell in row)} |" for row in overview(cards)
    ]
    lines = ["# Cards", "", head, "|---" * (head.count(" | ") + 1) + "|", *rows, ""]
    lines += [f"- {line}" for line in legend(cards)]
    return "\n".join(lines) + "\n\n" + "\n".join(markdown(one) for one in cards)


def as_json(cards: Iterable[Card]) -> str:
    """All that the cards hold."""
    return json.dumps([{**asdict(one), "outcome": one.outcome} for one in cards], indent=2) + "\n"


def from_json(said: str) -> list[Card]:
    """Cards that ``as_json`` wrote; raises ``ValueError`` for anything else."""
    try:
        found = []
        for data in json.loads(said):
            del data["outcome"]
            for key in ("findings", "accepted"):
                data[key] = tuple(
                    Finding(**{**one, "tests": tuple(one["tests"])}) for one in data[key]
                )
            found.append(Card(**{**data, "notes": tuple(data["notes"])}))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no cards: {error}") from error
    return found


def as_csv(cards: Sequence[Card]) -> str:
    """A row for each card: its outcome, how many findings of each kind, and the worst of them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["module", "folder", "kernel", "release", "outcome", "passed", "failed",
                     "skipped", *KINDS, "worst", "where"])  # fmt: skip
    for one in cards:
        worst = one.findings[0] if one.findings else Finding("", "", "")
        counts = [str(one.kinds.count(kind)) for kind in KINDS]
        row = [one.name, one.path, one.kernel, one.release, one.outcome, str(one.passed),
               str(one.failed), str(one.skipped), *counts, worst.seen, worst.where]  # fmt: skip
        writer.writerow([_harmless(cell) for cell in row])
    return out.getvalue()


def _harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
