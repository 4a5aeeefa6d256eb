# SPDX-License-Identifier: GPL-2.0-only
"""Pure: text from outside (a guest, a compiler, apt, git) made fit to be shown to people.

Such text may hold anything: escape sequences that clear a terminal, retitle its window or type
into it, letters that turn the direction of writing, gigabytes. It passes through here where it
becomes part of an error (``errors.HarnessError``) or of a problem (``verdict.Problem``), so that
nobody who prints one of these has to think of it.
"""

from __future__ import annotations

from collections.abc import Sequence

# How much of a text an error or a problem shows, in characters. All of it is in a log.
SENTENCE = 1 << 14
TAIL = 1 << 14
# How many bytes of a log are read to look for something in it.
LOG_BYTES = 8 << 20


def printable(text: str) -> str:
    """The text with every character escaped that is no letter, sign, space, tab or newline.

    Control characters become ``\\x1b``; what is invisible or changes the direction of writing
    becomes ``\\u202e``. Lines may end with ``\\r\\n``.
    """
    text = text.replace("\r\n", "\n")
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else _escape(ord(char)) for char in text
    )


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def beginning(text: str, limit: int = SENTENCE) -> str:
    """The text, printable; of one that is longer than ``limit`` characters the beginning.

    What it returns is never longer than that, and comes out the same when it is given again.
    """
    # Cut first, so that a long text costs no more than a short one; escapes make it longer.
    shown = printable(text[: limit + 1])
    if len(shown) <= limit:
        return shown
    note = f"... ({len(text)} characters in all)"
    return f"{shown[: limit - len(note)]}{note}"


def end(text: str, limit: int = TAIL) -> str:
    """The same with the end of the text."""
    shown = printable(text[-(limit + 1) :])
    if len(shown) <= limit:
        return shown
    note = f"({len(text)} characters in all) ..."
    return f"{note}{shown[len(note) - limit :]}"


def last_lines(text: str, lines: int) -> str:
    """The last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


def listed(names: Sequence[str], most: int) -> str:
    """Names in one line; of more than ``most``, the first ones and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def decoded(data: bytes, length: int) -> str:
    """A log's text from its bytes, of which ``data`` has the beginning and the end.

    ``length`` is how long the log is. Bytes that are not UTF-8 are replaced.
    """
    if len(data) >= length:
        return data.decode(errors="replace")
    half = len(data) // 2
    left = length - len(data)
    first, last = (part.decode(errors="replace") for part in (data[:half], data[half:]))
    return f"{first}\n(here {left} bytes are left out)\n{last}"


def taint_mask(text: str) -> int | None:
    """The taint flags in what a guest says of them; None where it says something else.

    /proc/sys/kernel/tainted is an unsigned long, which has at most 20 digits (proc_taint() in
    kernel/sysctl.c). Python raises ``ValueError`` for a number of several thousand.
    """
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else None
