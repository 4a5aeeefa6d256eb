# SPDX-License-Identifier: GPL-2.0-only
"""Measures the kernel log reader against a folder of labelled logs.

The folder holds logs and ``labels.json``, which gives for each log's name::

    {"title": "KASAN: use-after-free Read in foo", "alt": ["bad-access in foo"], ...}

``title`` is null where the log holds no problem; ``alt`` lists titles that are as good. A title
is the kind of problem, " in " and the guilty function. Run as
``python -m harness.klog.bench FOLDER [--misses]``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import klog

__all__ = ["KlogBenchError", "KlogScore", "Miss", "as_json", "main", "measure", "render"]

LABELS = "labels.json"


class KlogBenchError(ValueError):
    """The folder is not one of labelled logs; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A log that was read otherwise than its label says."""

    log: str
    expected: str | None
    got: str | None


@dataclass(frozen=True, slots=True)
class KlogScore:
    """How many logs there were, how many held a problem, and what was made of them."""

    logs: int
    problems: int
    found: int
    right_kind: int
    right_function: int
    false_alarms: int
    misses: tuple[Miss, ...]


@dataclass(frozen=True, slots=True)
class _Label:
    log: str
    title: str | None
    alternatives: tuple[str, ...]


def _labels(folder: Path) -> list[_Label]:
    if not folder.is_dir():
        raise KlogBenchError(f"{folder} is not a folder; give one with logs and a {LABELS}.")
    path = folder / LABELS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KlogBenchError(f"{folder} has no {LABELS}, which says what its logs hold.") from None
    except (OSError, ValueError) as error:
        raise KlogBenchError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise KlogBenchError(f"{path} must hold an object with one entry for each log.")
    return [_label(path, name, entry) for name, entry in sorted(content.items())]


def _label(path: Path, name: str, entry: object) -> _Label:
    where = f"the entry of {name!r} in {path}"
    if not isinstance(entry, dict) or "title" not in entry:
        raise KlogBenchError(f'{where} has no "title" (null where the log holds no problem).')
    title, alternatives = entry["title"], entry.get("alt") or []
    if not (title is None or isinstance(title, str)):
        raise KlogBenchError(f'the "title" in {where} must be a string or null.')
    if not isinstance(alternatives, list) or not all(isinstance(a, str) for a in alternatives):
        raise KlogBenchError(f'"alt" in {where} must be a list of titles.')
    return _Label(name, title, tuple(alternatives))


def _halves(title: str) -> tuple[str, str]:
    """Splits a title into kind and function; the function is empty where there is none."""
    kind, _, function = title.rpartition(" in ")
    return (kind, function) if kind else (title, "")


def measure(folder: Path) -> KlogScore:
    """Reads every log that the folder's labels name and compares its first event.

    A problem is found if there is any event, its kind right if the title up to " in " is that of
    the label or an alternative, its function right if the rest is.

    :raises KlogBenchError: if the folder is not in the form described above.
    """
    problems = found = right_kind = right_function = false_alarms = 0
    misses = []
    labels = _labels(folder)
    for label in labels:
        try:
            text = (folder / label.log).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise KlogBenchError(f"the log {label.log!r} cannot be read: {error}.") from error
        event = klog.first(text)
        got = event.title if event else None
        if label.title is None:
            false_alarms += event is not None
            right = event is None
        else:
            problems += 1
            found += event is not None
            accepted = [_halves(title) for title in (label.title, *label.alternatives)]
            kind, function = _halves(got) if got is not None else ("", None)
            kind_is_right = kind in [kind for kind, _ in accepted]
            function_is_right = function in [function for _, function in accepted]
            right_kind += kind_is_right
            right_function += function_is_right
            right = kind_is_right and function_is_right
        if not right:
            misses.append(Miss(label.log, label.title, got))
    return KlogScore(
        logs=len(labels),
        problems=problems,
        found=found,
        right_kind=right_kind,
        right_function=right_function,
        false_alarms=false_alarms,
        misses=tuple(misses),
    )


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.1f} %)" if whole else "0 of 0"


def render(score: KlogScore, *, misses: bool = False) -> str:
    """Returns the score as lines for a terminal."""
    clean = score.logs - score.problems
    lines = [
        f"logs            {score.logs}",
        f"problems found  {_share(score.found, score.problems)}",
        f"right kind      {_share(score.right_kind, score.problems)}",
        f"right function  {_share(score.right_function, score.problems)}",
        f"false alarms    {_share(score.false_alarms, clean)}",
    ]
    if misses:
        for miss in score.misses:
            lines += [
                f"{miss.log}:",
                f"  expected  {miss.expected or 'nothing'}",
                f"  got       {miss.got or 'nothing'}",
            ]
    return "\n".join(lines)


def as_json(score: KlogScore) -> str:
    """Returns the score and the misses as a JSON object."""
    return json.dumps(asdict(score), indent=2, ensure_ascii=False)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 2 if the folder is not usable."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.klog.bench", description="Measure the kernel log reader."
    )
    parser.add_argument("folder", type=Path, help=f"folder with logs and {LABELS}")
    parser.add_argument("--misses", action="store_true", help="list what was read otherwise")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    options = parser.parse_args(arguments)
    try:
        score = measure(options.folder)
    except KlogBenchError as error:
        print(error, file=sys.stderr)
        return 2
    print(as_json(score) if options.json else render(score, misses=options.misses))
    return 0


if __name__ == "__main__":
    sys.exit(main())
