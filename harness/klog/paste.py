# SPDX-License-Identifier: GPL-2.0-only
"""Undoes what happens to a kernel log before somebody pastes it: a separate step, for such logs.

A console prints ``[ seconds.micros][ caller] text``. What people send went through dmesg's
options, a journal, a syslog daemon, an Android tool, a CI's runner or a mail program, each of
which puts something before the lines or breaks them. :func:`unpaste` gives the lines back as a
console has them, so that there is one reader for both. A machine's own console never comes
here: what is guessed about pasted logs must not make the reading of consoles more gullible.
"""

from __future__ import annotations

import json
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
# syslog(3), and what dmesg -x and older daemons call some of them
_SEVERITIES = r"(?:emerg|alert|crit|err|warning|notice|info|debug)"
_LEVELS = rf"(?:{_SEVERITIES}|panic|error|warn)"
_FACILITIES = r"(?:kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local[0-7])"
# init/version.c, UTS_NODENAME, is "(none)"; some take the name out before they send a log.
_HOST = r"(?:[\w.@-]{1,64}|\(none\)|<[A-Za-z][\w.-]{1,40}>|\*{2,20})"


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
    # journalctl -o verbose has a line for each field, crash(8) one for what the kernel died of.
    _line("journal's field", "    MESSAGE=text", r"\s*MESSAGE=", after="nothing"),
    _line("crash's header", '  PANIC: "text"', r'\s*PANIC: "(?=[A-Za-z])', after="nothing"),
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
    # print_time(); some vendors print the CPU into it: "[86735.021187,1]", "[    0.5@2]", a unit,
    # or the CPU behind it, with no blank below: "[  183.060000][0]text"
    _line(
        "kernel's clock",
        "[   12.345678] text",
        r"\s*\[ *(?P<clock>\d{1,12}\.\d{1,9})s?(?:[,@]\d{1,4})?\](?:\[\d{1,2}\](?=\S)| ?)",
        kernel=True,
    ),
    # The clock again, of which a program that reads a photo has taken digits for letters.
    _line(
        "clock in a photo",
        "[ 1p33.938O20] text",
        r"\[ *(?=[^\]\n]{0,12}\d)[\dOolIpB]{1,7}[.,][\dOolIpB]{6}\] ?",
        after="nothing",
        kernel=True,
    ),
    # Rockchip's Android has the wall clock beside it, then the CPU and the task
    _line(
        "clock and wall clock",
        "[   12.345678 / 03-04 12:00:01.123][2][  412][init] text",
        rf"\s*\[ *(?P<clock>\d{{1,12}}\.\d{{6}}) / \d\d-\d\d {_TIME}\]"
        r"\[\d{1,4}\]\[ *\d{1,7}\]\[[^\]\n]{1,16}\] ?",
        after="nothing",
        kernel=True,
    ),
    # util-linux, sys-utils/dmesg.c: -d, --reltime, -H, --time-format delta
    _line(
        "clock and time since",
        "[   12.345678 <    0.000012>] text",
        r"\[ *(?P<clock>\d{1,12}\.\d{1,9}) < *\+?\d{1,12}\.\d{1,9}>\] ?",
        kernel=True,
    ),
    # the user's locale sets the point and the order of the date
    _line("time since", "[  +0.000012] text", r"\[ *[<+] *\d{1,12}[.,]\d{1,9}>?\] ?", kernel=True),
    _line(
        "date of dmesg -T",
        "[Mon Mar  4 12:00:01 2024] text",
        rf"\[(?=[^\[\]]{{14,44}}\])[^\[\]]{{4,24}}{_TIME}[^\[\]]{{0,14}}\]:? ?",
        kernel=True,
        date=True,
    ),
    _line(
        "minute of dmesg -H",
        "[Mar 4 12:00] text",
        r"\[(?:[^\W\d]{1,12}\.? *\d{1,2}|\d{1,2}\.? [^\W\d]{1,12}\.?) \d\d:\d\d\] ?",
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
        "caller alone",
        "[  T412] text",
        r"\[ *(?P<caller>[TC]\d+)\] ?",
        after="nothing",
        kernel=True,
    ),
    _line(
        "MediaTek's task",
        "(0)[1:init]text",
        r" *[-.]?\(\d+\)\[\d+:[^\]\n]{1,32}\] ?",
        after="clock",
    ),
    _line(
        "Samsung's task",
        "I[0:      swapper/0:    1] text",
        r" *[A-Z]?\[\d+: *[^\]\n:]{1,32}: *\d+\] ?",
        after="clock",
    ),
    _line(
        "HiSilicon's task",
        "[pid:412,cpu1,init]text",
        r" ?\[pid:\d{1,7},cpu\d{1,4},[^\]\n]{1,32}\]",
        after="clock",
    ),
    _line("Unisoc's CPU", "c0 text", r" *c\d{1,2}(?: +\d{1,7})? +", after="clock"),
    # The real-time patch up to 5.9 prints the CPU after the clock.
    _line("real-time patch's CPU", "000: text", r" ?\d{3}: ", after="clock"),
    # The opening bracket, and what stands before the seconds, is lost when a terminal is copied.
    _line(
        "damaged clock",
        "   11.662352] text",
        r"\s*\[?[ \d]{0,8}\.?\d{3,9}\] ",
        after="nothing",
        kernel=True,
    ),
    # What tools for Qualcomm's memory dumps make of a log buffer, with the level and the wall clock
    _line(
        "memory dump's log",
        "  1276.705430:   <1> (01-28 07:22:33.304698634) text",
        rf"\s*(?P<clock>\d{{1,12}}\.\d{{6}}): +<(?P<level>\d{{1,3}})> (?:\(\d\d-\d\d {_TIME}\) ?)?",
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
        r" ?(?:[\w-]{1,64} )?kernel(?:\[[^\]\s]{0,10}\])?: ?(?=\S| )",
        after="nothing",
        kernel=True,
    ),
    _line(
        "journal with the kernel's clock",
        "[   12.345678] host kernel: text",
        rf"(?:{_HOST} )?kernel(?:\[[^\]\s]{{0,10}}\])?: ?",
        after="clock",
        kernel=True,
    ),
    _line(
        # "Internal error: ", "divide error: " are the kernel's own words.
        "host and level",
        "host warning: text",
        rf"(?:{_HOST} )?(?:{_FACILITIES}\.)?{_SEVERITIES}: ",
        after="date",
        kernel=True,
    ),
    _line(
        "host alone",
        "host [   12.345678] text",
        rf"{_HOST} (?=(?:<\d+>)?\[ *\d+\.\d{{3,9}}|\d{{1,4}},\d{{1,20}},\d{{1,20}},[-c+])",
        after="date",
    ),
    # A daemon that listens to netconsole takes the sender for the host, and knows no program.
    _line(
        "address alone",
        "192.0.2.7 text",
        r"\d{1,3}(?:\.\d{1,3}){3} (?![\w./@-]{1,64}\[\d{1,8}\]:)",
        after="date",
    ),
    _line(
        "program",
        "host systemd[1]: text",
        rf"{_HOST} (?P<program>[\w./@:-]{{1,64}}\[\d{{1,8}}\]): ?",
        after="date",
    ),
    # What a container tool puts before each line of a build's step or of one of several containers
    _line(
        "build step",
        "#43 54.12 text",
        r"#\d{1,4} \d{1,6}\.\d{1,3} ",
        after="nothing",
    ),
    _line(
        "container",
        "guest-1  | [   12.345678] text",
        r"[\w.-]{1,40} +\| (?=(?:<\d+>)?\[ *\d+\.\d{3,9})",
        after="nothing",
    ),
    # grep -n, -b, -H, which has a dash in place of the colon on the lines beside what it has found
    _line(
        "grep",
        "kern.log:1261929:Mar  4 12:00:01 host kernel: text",
        r"(?=\S)(?:[\w.+~/-]{1,120}[:-])?(?:\d{1,10}[:-])?"
        r"(?=[A-Z][a-z]{2} [ \d]\d \d\d:|\d{4}-\d\d-\d\d[T ]\d\d:"
        r"|(?:<\d{1,3}>)?\[ *\d{1,12}\.\d{3,9}\])",
        after="nothing",
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
# What a web page's source has for characters that mean something to it
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "#34": '"', "#39": "'", "#x27": "'"}
_ENTITY = re.compile(f"&({'|'.join(_ENTITIES)});")
# What editors and web pages make of plain characters; the s390's console shows brackets so where
# its character set is another than the terminal's.
_TYPESET = str.maketrans(
    {"\xa0": " ", "\u200b": "", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"',
     "\ufeff": ""}
)  # fmt: skip
# How rsyslog writes a line's feed and a tab within a message
_CONTROLS_OF_RSYSLOG = re.compile(r"^(?:#012)+|#01[12]$|#011")
_EBCDIC = re.compile(r"\xa2([^\xa2!\n]{1,80})!")
# A line broken at 76 characters, or what equals signs, blanks and quotation marks become.
_QUOTED_PRINTABLE = re.compile(r"[^=]{2}=\r?$|=(?:3D|09|20\r?$|A0|C2=A0|E2=80)")
_QUOTED_PRINTABLE_FROM = 2  # lines with such a thing
_OCTETS = re.compile(r"(?:=[0-9A-F]{2})+")
_MARK = re.compile(
    # abrt's comments in a bug tracker have a colon before each line, and no blank behind it.
    r"[ \t]{0,8}(?:(?P<mark>:(?!:)|(?://|#|\*|\+|;|--|%)(?:[ \t]|$))"
    r"|(?P<number>\d{1,6})(?:[:|)]? {1,2}|[:|)]|$))"
)
# x86's code segment, of whose zeros a program that reads a photo has made letters
_SELECTOR = re.compile(r"(?<=IP: )(?=[0-9a-f]{0,3}O)[0-9a-fO]{4}:")
_AT_START = re.compile(rf"\A{_MARK.pattern}")
_MARKED_FROM = 5  # lines; a shell's prompt or a list has fewer
# A stamp, maybe below a journal's date and host, in the middle of a line.
_FLATTENED = re.compile(
    r"(?<!kernel:)(?<![ \t])[ \t]{1,400}"
    r"(?=(?:\w{3} {1,2}\d{1,2} \d\d:\d\d:\d\d [\w.-]{1,64} kernel: )?"
    r"(?:<\d{1,3}>)?\[(?: {0,4}\d{1,6}\.\d{6}|\w{3} \w{3} {1,2}\d{1,2} \d\d:\d\d:\d\d \d{4})\])"
)
# The next line of a syslog, where the end of the one before was lost
_GLUED = re.compile(
    r"(?<=\S)(?=[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [\w.-]{1,64} kernel: ?\[ *\d{1,9}\.\d{6}\])"
)
_FLATTENED_FROM = 3  # stamps in one line; two may be those of a console and of a journal
# The same in JSON, of which a part was pasted
_ESCAPED_END = re.compile(r"(?:\\r)?\\n")
_JSON_STRING = re.compile(r"\s*(?:- )?\{?[^{}\n]{0,400}?\"[\w.-]{1,40}\": ?\"")
_JSON_FIELDS = ("MESSAGE", "message", "msg", "log", "line")
_JSON_FIELD = re.compile(rf'"(?:{"|".join(_JSON_FIELDS)})":')
_JSON_WITHIN = 8  # characters before an object: a list's mark, blanks
_HEADING = re.compile(r"#{1,6} \S")  # CommonMark, ATX headings
_SUBJECT = re.compile(r"(?:[>|] ?)*Subject: ")
_DOUBLED_FROM = 4  # lines that are the one above once more
_SHARE_OF_DOUBLED = 0.4  # of all lines; half of them if nothing else was printed
_UPSIDE_DOWN_FROM = 3  # lines that are older than the one above, and none that is younger
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
    r"(?:\b(?:at:?|in:?|for|from|of|to|by|handle|kernel|paging|NULL|pointer"
    r"|address:?(?: 0x[0-9a-f]+:?)?|hard|task|blocked|more|than \d+|probably|non-canonical"
    r"|detected|than|transmit|queue(?: \d+)?|timed|corrupted|RIP:|PID: \d+)"
    r"|panicked at '.{1,400}'?,"
    r"|WARNING: (?:CPU: \d+ PID: \d+ )?at \S{1,200}:\d+"
    # of what was inlined where
    r"|\([^()]{1,400}\.(?:c|h|S|rs):\d+)\s?$"
)
# A line that was broken where the width ended, be it within a word: what stands before the break
# and behind it is half a module's name, an offset, a function's name, a source's, an address.
_HALVES = (
    (r"\+0x[0-9a-f]+/0x[0-9a-f]+ \[\w{0,60}$", r"(?![0-9a-f]{12})\w{0,60}[\](]"),
    (r"\[<[0-9a-f]{1,15}$", r"[0-9a-f]{1,15}>\]"),
    (r"[\w.]\+(?:0(?:x[0-9a-f]*)?)?$", r"0?x?[0-9a-f]*/0x[0-9a-f]"),
    (r"\+0x[0-9a-f]+(?:/0?)?$", r"[0-9a-f]*/?0?x[0-9a-f]+(?![\w.])"),
    (r"\+0x[0-9a-f]+/0x[0-9a-f]*$", r"[0-9a-f]{1,4}(?=[\s)]|$)"),
    (
        r"(?:\.[chS]:\d+ |\b(?:in|at|from|function):? |workfn=)(?!at$)[A-Za-z_][\w.]*$",
        r"[\w.]*\+0x[0-9a-f]",
    ),
    (r" at \S*\.[chS](?::\d*)?$", r":?\d+!?(?: [\w.]+\+0x|$)"),
    (r" than \d+$", r"\d+ seconds"),
    (r" at [\w.-]*/[\w./-]*$", r"[\w./-]*\.[chS]:\d+(?:!| [\w.]+\+0x|$)"),
    (
        r"\baddress:? (?:0x?|(?:0x)?[0-9a-f]+|0x[0-9a-f]+: [0-9a-f]{1,3})$",
        r"[0-9a-fx]{1,18}(?:: [0-9a-f]{4}\b| \[#|\s*$)",
    ),
)
_HALF = tuple((re.compile(before), re.compile(rest)) for before, rest in _HALVES)
# and half a word of those that tell what a report is about
_LAST_WORD = re.compile(r"[A-Za-z-]{1,16}$")
_FIRST_WORD = re.compile(r"[A-Za-z-]{1,16}")
_HEADER_WORDS = re.compile(
    r"unable|handle|kernel|Kernel|NULL|pointer|dereference|paging|request|virtual|address"
    r"|probably|non-canonical|general|protection|fault|sleeping|function|called|invalid"
    r"|context|self-detected|detected|possible|circular|recursive|locking|dependency|syncing"
    r"|blocked|more|than|seconds|stuck|waiting|become|transmit|queue|timed|corrupted|panicked"
    r"|in"
)
# What no line of a report's begins with, and the rest of one does
_IN_THE_MIDDLE = re.compile(r"[a-z0-9(]|NULL|\[\w+\]")
_REST_OF_CALL = re.compile(r"\s*\[\w{1,60}\](?:\)?$|, CPU#)|\s*\([\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+")
# What a symboliser has put in place of a call's offset
_REST_OF_DECODED = re.compile(r"\s*\([\w./+~@,-]{1,200}\.(?:c|h|S|rs):\d")
_DECODED = re.compile(r"(?:^|[RE]?IP: (?:[0-9a-f]{4}:)?|pc : |[\s\]?])[A-Za-z_][\w.$]{2,200}$")
# What stands before a call: in lockdep's and old kernels' reports, and on the s390
_ADDRESS = re.compile(r"(?:\[<[0-9a-f]{8,16}>\]|Krnl PSW : [0-9a-f]{16} [0-9a-f]{16})\s*$")
_CALL = re.compile(r"\s*\(?[A-Za-z_][\w.$]*\+0x[0-9a-f]+/0x")
_BEGINS_ANEW = re.compile(
    r"\s*(?:-{8,}\[|={20,}|BUG: |WARNING: |INFO: |Oops|Call [Tt]race|Kernel panic|Modules linked"
    r"|Unable to handle|general protection|\S{1,100}[$#] "
    # registers, below a machine's name, which may end in any word
    r"|[RE]?IP: (?:[0-9a-f]{4}:|\[<)|(?:PC|pc|LR|lr)(?: is at|\s*:) |NIP "
    r"|cpu 0x[0-9a-f]+: Vector: |(?:pc|lr|sp|msr|dar|dsisr) *: [0-9a-f]|enter \? for help)"
)
# What a record of several lines has below its first one, when only that has a stamp.
_BODY = re.compile(
    r"\s*(?:(?:\[<?[0-9a-f]{8,16}>?\]\s*){0,2}(?:\? )?[\w.$]{1,200}\+0x[0-9a-f]+/0x[0-9a-f]+"
    r"|Call [Tt]race:|RIP: |Code: |</?(?:TASK|IRQ|NMI|EOI)>"
    # arch/powerpc/xmon/xmon.c, which prints on the console past the log
    r"|cpu 0x[0-9a-f]+: Vector: |(?:pc|lr): [0-9a-f]{8,16}: )"
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
    line = without_controls(cut_line(raw)).expandtabs(8).replace("+0\u00d7", "+0x")
    line = line[indent:] if not line[:indent].strip() else line
    at = 0
    source: list[str] = []
    kernel = program = False
    clock = caller = ""
    state = "nothing"
    for _ in range(_MOST_BEGINNINGS):
        found = _beginning(line, at, state)
        if found is None and not source:
            # Some lines may be indented more than others.
            begun = len(line) - len(line.lstrip(" "))
            inner = _beginning(line, begun, state) if begun else None
            found = inner if inner and (inner[0].kernel or inner[0].date) else None
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
    text = _CONTROLS_OF_RSYSLOG.sub("", line[at:]) if "#01" in line else line[at:]
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


def _message(raw: str) -> str | None:
    """Returns what a line of JSON says; of a journal's, as ``-o short`` has it. None: it is none.

    The fields of ``journalctl -o json`` are those of systemd.journal-fields(7). Others are what
    container tools, LAVA and collectors of logs have.
    """
    begun = raw.find("{", 0, _JSON_WITHIN)
    if begun < 0 or not _JSON_FIELD.search(raw):
        return None
    try:
        fields = json.loads(raw[begun:])
    except (ValueError, RecursionError):
        return None
    text = next((fields[name] for name in _JSON_FIELDS if name in fields), None)
    # A message that is no text in UTF-8 is a list of its bytes.
    if isinstance(text, list) and all(isinstance(byte, int) and 0 <= byte <= 255 for byte in text):
        text = bytes(text).decode(errors="replace")
    if not isinstance(text, str) or "MESSAGE" not in fields:
        return text.removesuffix("\n") if isinstance(text, str) else None
    host = fields.get("_HOSTNAME", "host")
    program = "kernel" if fields.get("_TRANSPORT") == "kernel" else "program[1]"
    return f"Jan 01 00:00:00 {host} {program}: {text}"


def _unmarked(lines: list[str]) -> list[str]:
    """Returns the lines without what makes a comment of each, and without their numbers.

    Only of several lines below each other: one alone may be anything.
    """
    marks = [_comment_mark(line) for line in lines]
    plain = list(lines)
    start = 0
    while start < len(lines):
        end = start + 1
        while end < len(lines) and _follows(marks[end - 1], marks[end]):
            end += 1
        if marks[start] is not None and end - start >= _MARKED_FROM:
            plain[start:end] = [_AT_START.sub("", line) for line in lines[start:end]]
        start = end
    return plain


def _comment_mark(line: str) -> str | None:
    match = _MARK.match(line)
    return (match["mark"] or match["number"]) if match else None


def _follows(before: str | None, mark: str | None) -> bool:
    """Whether two lines below each other have one mark, or numbers in order."""
    if before is None or mark is None:
        return False
    if before.isdigit() and mark.isdigit():
        # A test's runner counts the seconds, with zeros up to a fixed width.
        if before[0] == mark[0] == "0" and len(before) == len(mark) > 1:
            return int(mark) >= int(before)
        return int(mark) == int(before) + 1
    return before == mark


def _unflattened(lines: list[str]) -> tuple[list[int], list[str]]:
    """Gives each line of a text its own again where several had become one.

    Returns where each line was, and the lines.
    """
    origins: list[int] = []
    apart: list[str] = []
    for number, line in enumerate(lines):
        parts = _parts(line)
        origins += [number] * len(parts)
        apart += parts
    return origins, apart


def _parts(line: str) -> list[str]:
    """The lines of which one was made: by JSON, or by what makes blanks of ends of lines.

    The latter are a form of a web page, a chat or a spreadsheet's cell; there only the stamps tell.
    """
    if (message := _message(line)) is not None:
        return message.split("\n")
    if line.count("\\n") >= _FLATTENED_FROM:
        begun = _JSON_STRING.match(line)
        inner = line[begun.end() if begun else 0 :].replace("\\t", "\t").replace('\\"', '"')
        return _ESCAPED_END.split(inner)
    if line.count(" kernel:") > 1 and len(parts := _GLUED.split(line)) > 1:
        return parts
    parts = _FLATTENED.split(line) if line.count("[") >= _FLATTENED_FROM else [line]
    return parts if len(parts) > _FLATTENED_FROM else [line]


def _as_sent(lines: list[str]) -> tuple[list[int], list[str]]:
    """Undoes quoted-printable, RFC 2045, 6.7: returns where each line began, and the lines.

    A mail's source has "=3D" for each "=", and a lone "=" where it breaks a line that is too long.
    """
    if sum(bool(_QUOTED_PRINTABLE.search(line)) for line in lines) < _QUOTED_PRINTABLE_FROM:
        return list(range(len(lines))), lines
    starts: list[int] = []
    whole: list[str] = []
    goes_on = False
    for number, raw in enumerate(lines):
        line = raw.rstrip("\r")
        if goes_on:
            whole[-1] += line.removesuffix("=")
        else:
            starts.append(number)
            whole.append(line.removesuffix("="))
        goes_on = line.endswith("=")
    return starts, [_OCTETS.sub(_decoded, line).translate(_TYPESET) for line in whole]


def _decoded(octets: re.Match[str]) -> str:
    content = bytes.fromhex(octets[0].replace("=", ""))
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _without_subject(lines: list[str]) -> Iterator[str]:
    """Yields the lines, with the subject of a mail and headings empty: a title is no log.

    What begins with a blank goes on with a mail's header, RFC 5322, 2.2.3. A heading of Markdown
    has no other below or above it; a log in comments has more lines that begin like that.
    """
    within = False
    before = ""
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        within = bool(_SUBJECT.match(line)) or (within and line[:1] in (" ", "\t"))
        alone = not before.startswith("#") and not after.strip()
        heading = alone and _HEADING.match(line) and not STAMP.search(line[:_STAMP_WITHIN])
        yield "" if within or heading else line
        before = line


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
    if _ENTITY.search(pasted):
        pasted = _ENTITY.sub(lambda entity: _ENTITIES[entity[1]], pasted)
    pasted = _SELECTOR.sub(lambda selector: selector[0].replace("O", "0"), pasted)
    origins, apart = _unflattened(_unmarked(pasted.translate(_TYPESET).split("\n")))
    starts, sent = _as_sent(apart)
    if any("\xa2" in line for line in sent):
        sent = [_EBCDIC.sub(r"[\1]", line) for line in sent]
    raws = list(_without_subject(sent))
    expanded = [raw[:_STAMP_WITHIN].expandtabs(8) for raw in raws if raw.strip()]
    indent = min((len(raw) - len(raw.lstrip(" ")) for raw in expanded), default=0)
    parsed = [_parse(raw, indent) for raw in raws]
    numbered = _undoubled(list(enumerate(parsed)))
    said = [line for _, line in numbered if line.text.strip()]
    stamped = sum(line.kernel for line in said) >= max(1, _SHARE_OF_KERNEL * len(said))
    hard = _terminal_width(parsed)
    kept: list[tuple[int, _Parsed]] = []
    if _is_upside_down(said):
        numbered.reverse()
    for number, line in numbered:
        if kept and _goes_on(kept[-1][1], line, stamped=stamped, hard=hard):
            begun, before = kept[-1]
            split = before.width == hard or _is_half(before.text, line.text)
            glue = "" if split or before.text.endswith(" ") else " "
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
        tuple(origins[starts[number]] for number, _ in kept),
        frozenset(_reboots(line for _, line in kept)),
    )


def _undoubled(lines: list[tuple[int, _Parsed]]) -> list[tuple[int, _Parsed]]:
    """Drops each second line of a log that has every line twice.

    So has a serial log of two consoles on one line: the boot console beside the real one.
    """
    said = [at for at, (_, line) in enumerate(lines) if line.text.strip()]
    again = [
        later
        for at, later in pairwise(said)
        if (lines[at][1].text, lines[at][1].clock) == (lines[later][1].text, lines[later][1].clock)
    ]
    if len(again) < _DOUBLED_FROM or len(again) < _SHARE_OF_DOUBLED * len(said):
        return lines
    dropped = set(again)
    return [line for at, line in enumerate(lines) if at not in dropped]


def _is_upside_down(lines: list[_Parsed]) -> bool:
    """Whether the newest line comes first, as with ``journalctl -r``.

    The kernel's clock tells, or the two lines at the beginning of a stack where none is shown.
    """
    clocks = [float(line.clock) for line in lines if _HEX_CLOCK.fullmatch(line.clock)]
    back = sum(later < now for now, later in pairwise(clocks))
    if len(clocks) > 1:
        return back >= _UPSIDE_DOWN_FROM and clocks == sorted(clocks, reverse=True)
    marks = [line.text.strip() for line in lines]
    order = [pair for pair in pairwise(marks) if set(pair) == {"Call Trace:", "<TASK>"}]
    return bool(order) and all(pair[0] == "<TASK>" for pair in order)


def _replaced(line: _Parsed, text: str, width: int) -> _Parsed:
    return _Parsed(text, line.kernel, line.program, line.clock, line.caller, line.source, width)


def _terminal_width(lines: list[_Parsed]) -> int:
    """Where a terminal broke lines within words; 0 if it is not known.

    Half a word tells, if no line is longer; else, that all lines which go on are of one length.
    """
    longest = max((line.width for line in lines), default=0)
    broken: Counter[int] = Counter()
    for line, rest in pairwise(lines):
        if rest.kernel or not rest.text.strip() or line.width < _WRAPPED_FROM:
            continue
        if line.width == longest and _is_half(line.text, rest.text):
            return longest
        broken[line.width] += line.kernel
    width, times = max(broken.items(), key=lambda one: one[1], default=(0, 0))
    return width if times >= 4 and times >= 0.9 * broken.total() else 0


def _is_half(before: str, rest: str) -> bool:
    """Whether a line ends within the word with which the next one begins."""
    last, first = _LAST_WORD.search(before), _FIRST_WORD.match(rest)
    if last and first and _HEADER_WORDS.fullmatch(last[0] + first[0]):
        return True
    return any(half.search(before) and other.match(rest) for half, other in _HALF)


def _goes_on(before: _Parsed, line: _Parsed, *, stamped: bool, hard: int) -> bool:
    """Whether a line is the rest of the one above, which was broken to fit a width."""
    if not _may_go_on(before, line):
        return False
    if _is_rest_of_call(before.text, line.text) or _is_half(before.text, line.text):
        return True
    if _BEGINS_ANEW.match(line.text):
        return False
    if stamped and not line.kernel:
        return before.kernel
    return before.width == hard or _GOES_ON.search(before.text) is not None


def _may_go_on(before: _Parsed, line: _Parsed) -> bool:
    """Whether one is long enough and the other has no beginning of its own."""
    if before.program or line.program or not line.text.strip() or len(before.text) > _JOINED:
        return False
    if line.kernel:
        # Some repeat what the line began with.
        same = (line.source, line.clock) == (before.source, before.clock)
        if not (before.kernel and same and _IN_THE_MIDDLE.match(line.text)):
            return False
    elif any(name not in ("quotation", "markup") for name in line.source):
        return False
    word = line.text.split(maxsplit=1)[0]
    return before.width <= _WRAPPED_WITHIN and before.width + 1 + len(word) >= _WRAPPED_FROM


def _is_rest_of_call(before: str, text: str) -> bool:
    """Whether a call was broken: before its module, its caller on arm, or its name."""
    if _REST_OF_CALL.match(text) and ("+0x" in before or "from" in before):
        return True
    if _REST_OF_DECODED.match(text) and _DECODED.search(before):
        return True
    return bool(_CALL.match(text) and _ADDRESS.search(before))


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
