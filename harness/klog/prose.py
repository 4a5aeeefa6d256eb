# SPDX-License-Identifier: GPL-2.0-only
"""Tells a line of a log from a sentence that speaks of one: in mails, changelogs, documentation.

Only a pasted text holds both. Where a report has more than its first line, nobody asks: no
sentence is followed by registers.
"""

from __future__ import annotations

import re
from typing import Final

# An item of a list: of a changelog, of notes. The kernel begins no line like that. What is quoted
# as code is no sentence, but what somebody saw.
_LISTED: Final = re.compile(r"[ \t]{0,8}(?:[*+\u2022-]|\d{1,3}[.)]) {1,4}(?=[^\s`])")
_CODE: Final = re.compile(r"`[^`]*`")
_WORDS: Final = re.compile(r"[^\W\d_]{3,}")
# Who says these is no kernel ...
_OF_PEOPLE: Final = re.compile(
    r"\b(?:I|I'[a-z]+|my|we|we'[a-z]+|you|when|whenever|because|caused|causes|fix|fixes|fixed"
    r"|triggers?|triggered|reported|occurs|occurred|happens|happened|appears|means|e\.g\."
    r"|error message|the following)\b",
    re.IGNORECASE,
)
# ... and of these it says one in a line, not two.
_OF_SENTENCES: Final = re.compile(
    r"\b(?:the|is|are|was|were|this|that|these|it|has|had|have|with|which|after|before|if|be|but"
    r"|and|or|can|could|will|would|error|message|crash(?:es|ed)?|then|while|during|see)\b",
    re.IGNORECASE,
)
# A report's words have a number, an address or nothing behind them, not what makes them a subject.
_VERB: Final = re.compile(r"\s+(?:is|are|was|were|has|had|and|but|or|which|then|if)\b")
_OF_OTHERS: Final = re.compile(r"[^\W\d_\x00-\x7f]{2,}")  # the kernel speaks English
_STOPS: Final = re.compile(r"[.:;!?>)\]=-]\s*$")
# What a log's line may have before its words: who says them, with a colon or in brackets.
_PREFIX: Final = re.compile(r"(?:\S+ ){0,3}\S*[:\]>)#=*-]\s*")
_PREFIX_WORDS = 3
# kernel/panic.c, panic(): what stands before a panic's words where they are said again
_LAST_LINE: Final = re.compile(r"-{3}\[ end $")


def is_quoted(text: str, start: int) -> bool:
    """Whether what begins there stands within quotation marks: a program's source or words.

    Between backquotes it is quoted if there are words beside it: a sentence that speaks of it.
    """
    if text.count('"', 0, start) % 2 == 1 and text.count('"') > 1:
        return True
    return text.count("`", 0, start) % 2 == 1 and bool(_WORDS.search(_CODE.sub("", text)))


def is_listed(text: str) -> bool:
    """Whether a line is an item of a list."""
    return _LISTED.match(text) is not None


def is_spoken(text: str, named: re.Match[str], above: str, below: str) -> bool:
    """Whether a line is part of a sentence that only names a report, as ``named`` has found it.

    ``above`` and ``below`` are the lines beside it: a sentence may have several.
    """
    before = _LAST_LINE.sub("", text[: named.start()])
    if _WORDS.search(before) and not (
        _PREFIX.fullmatch(before) and len(_WORDS.findall(before)) <= _PREFIX_WORDS
    ):
        return True
    own = f"{before} {named.groupdict().get('rest') or ''} {text[named.end() :]}"
    if _OF_PEOPLE.search(own) or _OF_OTHERS.search(own) or _VERB.match(text, named.end()):
        return True
    goes_on = _is_sentence(above) and not _STOPS.search(above)
    return goes_on or (below[:1].islower() and _is_sentence(below))


def _is_sentence(text: str) -> bool:
    return bool(_OF_PEOPLE.search(text)) or len(_OF_SENTENCES.findall(text)) > 1
