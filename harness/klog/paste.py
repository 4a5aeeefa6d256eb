# SPDX-License-Identifier: GPL-2.0-only
"""Undoes what happens to a kernel log before somebody pastes it: a separate step, for such logs.

A console prints ``[ seconds.micros][ caller] text``. What people send went through dmesg's
options, a journal, a syslog daemon, an Android tool, a CI's runner or a mail program, each of
which puts something before the lines or breaks them. :func:`unpaste` gives the lines back as a
console has them, so that there is one reader for both. A machine's own console never comes
here: what is guessed about pasted logs must not make the reading of consoles more gullible.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from harness.klog.lines import STAMP, cut_line, without_controls


@dataclass(frozen=True, slots=True)
class Beginning:
    """Something that may stand at the beginning of a line, before what the kernel said.

    Groups of ``pattern`` that say something: ``level`` (syslog's priority), ``clock`` (the
    kernel's own, in seconds), ``caller`` (as CONFIG_PRINTK_CALLER prints it) and ``program``
    (not the kernel has printed the line).
    """

    name: str
    example: str
    pattern: re.Pattern[str]
    after: str = ""
    """What must stand before: "date", "clock" or "nothing"; empty: it does not matter."""
    kernel: bool = False
    """Whether it tells that the kernel printed the line."""
    date: bool = False
    """Whether it is a date or a time, after which a host's name may follow."""


_TIME = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_LEVELS = r"(?:emerg|panic|alert|crit|err|error|warn|warning|notice|info|debug)"
_FACILITIES = r"(?:kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local[0-7])"
_HOST = r"[\w.@-]{1,64}"


def _line(
    name: str,
    example: str,
    pattern: str,
    *,
    after: str = "",
    kernel: bool = False,
    date: bool = False,
) -> Beginning:
    return Beginning(name, example, re.compile(pattern), after, kernel, date)


BEGINNINGS: Final[tuple[Beginning, ...]] = (
    # What people and their mail programs put before lines.
    _line("quotation", "> > text", r"\s*[>|│](?:\s?[>|│])*\s?", after="nothing"),
    _line("markup", "**text**", r"\*\*(?=\S)", after="nothing"),
    # Documentation/ABI/testing/dev-kmsg; netconsole's extended format is the same
    _line(
        "kmsg",
        "4,1052,12345678,-,caller=T9;text",
        r"(?P<level>\d{1,4}),\d{1,20},\d{1,20},[-c+]"
        r"(?:,(?:caller=(?P<caller>[TC]\d+)|[^,;\n]{1,40})){0,4};",
        kernel=True,
    ),
    # RFC 5424, 6: priority, version, date, host, program, process, message, structured data
    _line(
        "syslog of RFC 5424",
        "<4>1 2024-03-04T12:00:01.5Z host kernel - - - text",
        rf"(?:<(?P<level>\d{{1,3}})>)?1 \d{{4}}-\d\d-\d\dT{_TIME}(?:Z|[+-]\d\d:\d\d) {_HOST} "
        r"kernel \S{1,32} \S{1,32} (?:-|\[[^\]]{0,200}\])(?:\s|$)",
        kernel=True,
    ),
    # kernel/printk/printk.c, print_syslog(): a console's own with "dmesg -r"
    _line("level", "<4>text", r"<(?P<level>\d{1,3})>", kernel=True),
    # print_time(); some vendors print the CPU into it: "[86735.021187,1]", "[    0.5@2]"
    _line(
        "kernel's clock",
        "[   12.345678] text",
        r"\s*\[ *(?P<clock>\d{1,12}\.\d{1,9})(?:[,@]\d{1,4})?\] ?",
        kernel=True,
    ),
    # util-linux, sys-utils/dmesg.c: -d, --reltime, -H, --time-format delta
    _line(
        "clock and time since",
        "[   12.345678 <    0.000012>] text",
        r"\[ *(?P<clock>\d{1,12}\.\d{1,9}) < *\+?\d{1,12}\.\d{1,9}>\] ?",
        kernel=True,
    ),
    _line("time since", "[  +0.000012] text", r"\[ *[<+] *\d{1,12}\.\d{1,9}>?\] ?", kernel=True),
    _line(
        "date of dmesg -T",
        "[Mon Mar  4 12:00:01 2024] text",
        rf"\[(?=[^\[\]]{{14,44}}\])[^\[\]]{{4,24}}{_TIME}[^\[\]]{{0,14}}\] ?",
        kernel=True,
        date=True,
    ),
    _line(
        "minute of dmesg -H",
        "[Mar 4 12:00] text",
        r"\[[^\W\d]{1,12}\.? *\d{1,2} \d\d:\d\d\] ?",
        kernel=True,
    ),
    _line(
        "facility and level of dmesg -x",
        "kern  :warn  : text",
        rf"(?:(?P<program>(?!kern){_FACILITIES})|kern) *: ?{_LEVELS} *: ?",
        kernel=True,
    ),
    # print_caller(); vendors' ways to print the CPU and the task, which stand at the same place
    _line("caller", "[  T412] text", r" ?\[ *(?P<caller>[TC]\d+)[^\]\n]{0,40}\] ?", after="clock"),
    _line(
        "MediaTek's task", "(0)[1:init]text", r" *-?\(\d+\)\[\d+:[^\]\n]{1,32}\] ?", after="clock"
    ),
    _line(
        "Samsung's task",
        "I[0:      swapper/0:    1] text",
        r" *[A-Z]?\[\d+: *[^\]\n:]{1,32}: *\d+\] ?",
        after="clock",
    ),
    _line("Unisoc's CPU", "c0 text", r" *c\d{1,2}(?: +\d{1,7})? +", after="clock"),
    # The opening bracket, and what stands before the seconds, is lost when a terminal is copied.
    _line(
        "damaged clock",
        "   11.662352] text",
        r"\s*\[?[ \d]{0,8}\.?\d{3,9}\] ",
        after="nothing",
        kernel=True,
    ),
    # logcat -v threadtime, -v brief
    _line(
        "logcat",
        "03-04 12:00:01.123     0     0 W KERNEL  : text",
        rf"\d\d-\d\d {_TIME}\s+(?:\w{{1,16}}\s+)?\d{{1,7}}\s+\d{{1,7}} [VDIWEFA] [^:\n]{{0,40}}: ?",
        after="nothing",
        kernel=True,
    ),
    _line(
        "logcat, brief",
        "W/KERNEL  (  412): text",
        r"[VDIWEF]/[^(\n:]{1,40}\( *\d{1,7}\): ?",
        after="nothing",
        kernel=True,
    ),
    # Journals (journalctl -o short, -precise, -iso, -full, -unix, in any language), syslog of
    # RFC 3164, OpenWrt's logread, the stamps of CI runners.
    _line(
        "ISO 8601",
        "2024-03-04T12:00:01+0100 text",
        rf"\[?(?:[^\W\d]{{2,4}}\.? )?\d{{4}}[-/]\d\d[-/]\d\d[T ]{_TIME}"
        r"(?: ?(?:Z|[A-Z]{2,5}\b|[+-]\d\d:?\d\d))?(?:\d\dO)?\]?(?:[\s|]+|$)",
        date=True,
    ),
    _line(
        "date in words",
        "Mar 04 12:00:01 text",
        rf"(?:[^\s\[\]<>:]{{1,12}}\s+){{2,3}}{_TIME}(?:\s\d{{4}})?(?:\s[A-Z]{{3,5}}\b|\s?[+-]\d{{4}})?\s+",
        date=True,
    ),
    _line("time", "12:00:01 text", rf"\[?\d{{0,2}}:?{_TIME}\]?\s+", after="nothing", date=True),
    _line(
        "seconds since 1970",
        "1709553601.123456 text",
        r"\d{10}\.\d{1,9}\s+",
        after="nothing",
        date=True,
    ),
    _line(
        "host and kernel",
        "host kernel: text",
        rf"(?:{_HOST} )?(?:(?:{_FACILITIES}\.)?{_LEVELS} )?kernel(?:\[[^\]\s]{{0,10}}\])?: ?",
        after="date",
        kernel=True,
    ),
    _line(
        "kernel",
        "kernel: text",
        r"(?:[\w-]{1,64} )?kernel(?:\[[^\]\s]{0,10}\])?: ?(?=\S| )",
        after="nothing",
        kernel=True,
    ),
    _line(
        "journal with the kernel's clock",
        "[   12.345678] host kernel: text",
        rf"{_HOST} kernel(?:\[[^\]\s]{{0,10}}\])?: ?",
        after="clock",
        kernel=True,
    ),
    _line(
        "host and level",
        "host warning: text",
        rf"(?:{_HOST} )?(?:{_FACILITIES}\.)?{_LEVELS}: ",
        after="date",
        kernel=True,
    ),
    _line(
        "host alone",
        "host [   12.345678] text",
        rf"{_HOST} (?=(?:<\d+>)?\[ *\d+\.\d{{3,9}})",
        after="date",
    ),
    _line(
        "program",
        "host systemd[1]: text",
        rf"{_HOST} (?P<program>[\w./@:-]{{1,64}}\[\d{{1,8}}\]): ?",
        after="date",
    ),
    _line(
        "emulator or hypervisor",
        "emu: GUEST: [   12.345678] text",
        r"(?:\([A-Z]{2,8}\) |[\w.-]{1,32}: )(?:[A-Z]{2,12}: )?(?=\[ *\d+\.\d{3,9}\])",
    ),
    _line(
        "sender",
        "192.0.2.7:6666 [   12.345678] text",
        r"\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?:? (?=[\[<]|\d{1,4},\d)",
        after="nothing",
    ),
)
"""What may stand before a line's text, in the order in which it is looked for. Several may follow
each other: a quoted mail with a syslog with a console's stamp."""

_MOST_BEGINNINGS = 8
_STAMP_WITHIN = 400  # characters from a line's start
_FACILITY_SHIFT = 3  # include/linux/syslog.h: priority = facility << 3 | level
_HEX_CLOCK = re.compile(r"\d+\.\d{6}")

# A mail program breaks lines at 72 to 80 characters, between words; what was quoted since is
# longer, what was indented before shorter.
_WRAPPED_WITHIN = 110
_WRAPPED_FROM = 56
_JOINED = 2000  # characters; a record has at most 1024
_SHARE_OF_KERNEL = (
    0.2  # of all lines, from which on one without a beginning is a wrapped one's rest
)

# Where a line without a stamp was broken, only its own words tell that it goes on.
_GOES_ON = re.compile(
    r"(?:\b(?:at|in|for|from|of|to|by|handle|kernel|paging|NULL|pointer|address:?|hard|task"
    r"|detected|than|RIP:|PID: \d+)|WARNING: (?:CPU: \d+ PID: \d+ )?at \S{1,200}:\d+)\s?$"
)
_REST_OF_CALL = re.compile(r"\s*\[\w{1,60}\]$|\s*\([\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+")
_BEGINS_ANEW = re.compile(
    r"\s*(?:-{8,}\[|={20,}|BUG: |WARNING: |INFO: |Oops|Call [Tt]race|Kernel panic|Modules linked"
    r"|Unable to handle|general protection|\S{1,100}[$#] )"
)
# What a record of several lines has below its first one, when only that has a stamp.
_BODY = re.compile(
    r"\s*(?:(?:\[<?[0-9a-f]{8,16}>?\]\s*){0,2}(?:\? )?[\w.$]{1,200}\+0x[0-9a-f]+/0x[0-9a-f]+"
    r"|Call [Tt]race:|RIP: |Code: |</?(?:TASK|IRQ|NMI|EOI)>)"
)


@dataclass(frozen=True, slots=True)
class _Parsed:
    """One line as it was pasted, taken apart."""

    text: str
    kernel: bool
    program: bool
    clock: str
    caller: str
    source: tuple[str, ...]
    width: int

    def console(self) -> str:
        """The line as a console has it; where no clock is known, as ``dmesg -r`` has it."""
        if self.program:
            return f"<{1 << _FACILITY_SHIFT}>{self.text}"
        if not self.kernel:
            return self.text
        if not self.clock:
            stamp = "<4>[    0.000000]" if self.caller else "<4>"
        else:
            seconds, _, fraction = self.clock.partition(".")
            stamp = f"[{seconds:>5}.{fraction[:6]:0<6}]"
        caller = f"[{self.caller:>7}]" if self.caller else ""
        return f"{stamp}{caller} {self.text}" if stamp != "<4>" else f"{stamp}{self.text}"


def _parse(raw: str, indent: int) -> _Parsed:
    line = without_controls(cut_line(raw)).expandtabs(8)
    line = line[indent:] if not line[:indent].strip() else line
    at, source = 0, []
    kernel = program = False
    clock = caller = ""
    state = "nothing"
    for _ in range(_MOST_BEGINNINGS):
        found = _beginning(line, at, state)
        if found is None:
            break
        beginning, match = found
        groups = match.groupdict()
        at = match.end()
        source.append(beginning.name)
        kernel |= beginning.kernel
        clock = groups.get("clock") or clock
        caller = groups.get("caller") or caller
        level = groups.get("level")
        program |= bool(groups.get("program") or (level and int(level) >> _FACILITY_SHIFT))
        if beginning.date:
            state = "clock" if beginning.kernel else "date"
        elif beginning.kernel:
            state = "clock"
        elif state == "nothing" and beginning.after != "nothing":
            state = "date"
        if program and not kernel:
            break
    if not kernel and not program and (stamp := STAMP.search(line, at, _STAMP_WITHIN)):
        # A prompt or an unfinished line of a program may stand before the console's stamp.
        kernel, at = True, stamp.end()
        clock, caller = stamp["clock"], stamp["caller"] or ""
    text = line[at:]
    if "markup" in source:
        text = text.rstrip("*_`")
    return _Parsed(text, kernel, program, clock, caller, tuple(source), len(raw.rstrip("\r\n")))


def _beginning(line: str, at: int, state: str) -> tuple[Beginning, re.Match[str]] | None:
    for beginning in BEGINNINGS:
        wanted = beginning.after
        if wanted and wanted != state:
            continue
        match = beginning.pattern.match(line, at)
        if match and match.end() > at:
            return beginning, match
    return None


@dataclass(frozen=True, slots=True)
class Unpasted:
    """A pasted log as a console would have it."""

    text: str
    lines: tuple[int, ...]
    """For each line of ``text``, which line of the pasted log it began on."""
    reboots: frozenset[int]
    """Lines of ``text`` that are the first of a boot which came while the kernel was running."""


def unpaste(pasted: str) -> Unpasted:
    """Returns the lines of a pasted log without what others put before them, and whole again."""
    raws = pasted.split("\n")
    indent = min(
        (len(raw) - len(raw.lstrip(" ")) for raw in raws if raw.strip()),
        default=0,
    )
    parsed = [_parse(raw, indent) for raw in raws]
    said = [line for line in parsed if line.text.strip()]
    stamped = sum(line.kernel for line in said) >= max(1, _SHARE_OF_KERNEL * len(said))
    hard = _terminal_width(parsed)
    kept: list[tuple[int, _Parsed]] = []
    for number, line in enumerate(parsed):
        if kept and _goes_on(kept[-1][1], line, stamped=stamped):
            begun, before = kept[-1]
            glue = "" if before.width == hard or before.text.endswith(" ") else " "
            text = before.text + glue + (line.text if not glue else line.text.lstrip())
            kept[-1] = (begun, _replaced(before, text, line.width))
        elif kept and stamped and not line.kernel and kept[-1][1].kernel and _BODY.match(line.text):
            before = kept[-1][1]
            kept.append((number, _Parsed(line.text, True, False, before.clock, before.caller,
                                         before.source, line.width)))  # fmt: skip
        else:
            kept.append((number, line))
    return Unpasted(
        "\n".join(line.console() for _, line in kept),
        tuple(number for number, _ in kept),
        frozenset(_reboots(line for _, line in kept)),
    )


def _replaced(line: _Parsed, text: str, width: int) -> _Parsed:
    return _Parsed(text, line.kernel, line.program, line.clock, line.caller, line.source, width)


def _terminal_width(lines: list[_Parsed]) -> int:
    """Where a terminal broke lines within words: all that go on are of one length."""
    broken = Counter(
        line.width
        for line, rest in pairwise(lines)
        if line.kernel and not rest.kernel and rest.text.strip() and line.width >= _WRAPPED_FROM
    )
    width, times = max(broken.items(), key=lambda one: one[1], default=(0, 0))
    return width if times >= 4 and times >= 0.9 * broken.total() else 0


def _goes_on(before: _Parsed, line: _Parsed, *, stamped: bool) -> bool:
    """Whether a line is the rest of the one above, which was broken to fit a width."""
    if line.kernel or line.program or not line.text.strip() or len(before.text) > _JOINED:
        return False
    if before.program or any(name not in ("quotation", "markup") for name in line.source):
        return False
    word = line.text.split(maxsplit=1)[0]
    would_be = before.width + 1 + len(word)
    if before.width > _WRAPPED_WITHIN or would_be < _WRAPPED_FROM:
        return False
    if _REST_OF_CALL.match(line.text) and ("+0x" in before.text or "from" in before.text):
        return True
    if stamped:
        return before.kernel and not _BEGINS_ANEW.match(line.text)
    return _GOES_ON.search(before.text) is not None and not _BEGINS_ANEW.match(line.text)


def _reboots(lines: Iterator[_Parsed]) -> Iterator[int]:
    """Yields the first lines of boots before which the kernel's own clock had run.

    The clock must go back within one source: a journal beside a console's copy is no reboot, and
    nor are the logs of two boots of which no clock is shown.
    """
    last: dict[tuple[str, ...], float] = {}
    for number, line in enumerate(lines):
        if not (line.kernel and _HEX_CLOCK.fullmatch(line.clock)):
            continue
        now, before = float(line.clock), last.get(line.source)
        if line.text.startswith("Linux version ") and before is not None and now < before:
            yield number
        last[line.source] = now
