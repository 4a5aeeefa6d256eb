# SPDX-License-Identifier: GPL-2.0-only
"""Lines of a console: what their beginning says of who printed them."""

from __future__ import annotations

import re

STAMP = re.compile(
    r"(?:<(?P<level>\d{1,3})>)?\[ *(?P<clock>\d{1,12}\.\d{3,9})\]"
    r"(?: ?\[ *(?P<caller>[TC]\d+)[^\]\n]{0,40}\])? ?"
)
"""kernel/printk/printk.c, print_syslog(), print_time() and print_caller()."""
_KMSG = re.compile(r"(\d{1,4}),\d+,\d+,[-c+][^;\n]{0,80};")
"""/dev/kmsg: priority, sequence, microseconds, flag, further fields (info_print_ext_header())."""
_KMSG_CALLER = re.compile(r"caller=([TC]\d+)")
_SYSLOG = re.compile(r"<(\d{1,3})>")
_OTHER_STAMP = re.compile(
    r"\[\w{3} \w{3} +\d+ [\d:]{8} \d{4}\] "  # dmesg -T
    r"|\w{3} +\d+ [\d:]{8} \S{1,64} kernel: "  # journalctl -k, syslog
    r"|\d{4}-\d\d-\d\dT[\d:]{8}(?:"
    r",\d{6}[+-]\d\d:?\d\d "  # dmesg --time-format iso
    r"|(?:\.\d{1,9})?(?:[+-]\d\d:?\d\d|Z) \S{1,64} kernel: )"  # journalctl -o short-iso, syslog
)
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_STAMP_WITHIN = 400  # characters from a line's start; further on only if it is the last
_LONGEST = 2048  # a printk record has at most 1024 bytes (PRINTKRB_RECORD_MAX), plus prefixes
_FACILITY_SHIFT = 3  # include/linux/syslog.h: priority = facility << 3 | level
USER = "user"  # printer of lines that a program wrote to /dev/kmsg
CONSOLE = "console"  # printer of kernel lines that carry no caller
PLAIN = ""  # printer of lines without a stamp: a program's, or a log without stamps


def cut_line(raw: str) -> str:
    """Returns the part of a line that a record of the kernel's can be in, 2048 characters at most.

    What a program wrote without an end of line, or of terminal codes, may be long and stand
    before the record.
    """
    start = 0
    if len(raw) > _STAMP_WITHIN and not (
        STAMP.search(raw, 0, _STAMP_WITHIN) or _KMSG.match(raw) or _OTHER_STAMP.match(raw)
    ):
        for late in STAMP.finditer(raw):
            start = late.start()
    return raw[start : start + _LONGEST]


def without_controls(line: str) -> str:
    """Returns a line without terminal codes and control characters, but with its tabs."""
    return line if line.isprintable() else _CONTROL.sub("", line)


def split_line(line: str) -> tuple[str, str]:
    """Returns who printed a line that :func:`cut_line` gave, and what it says."""
    line = without_controls(line)
    # A prompt or an unfinished line of a program may stand before the console's stamp.
    printer, end, priority = PLAIN, 0, None
    if line[:1].isdigit() and (kmsg := _KMSG.match(line)):
        caller = _KMSG_CALLER.search(kmsg[0])
        printer, end, priority = caller[1] if caller else CONSOLE, kmsg.end(), kmsg[1]
    elif stamp := STAMP.search(line, 0, _STAMP_WITHIN):
        printer, end, priority = stamp["caller"] or CONSOLE, stamp.end(), stamp["level"]
    elif other := _OTHER_STAMP.match(line):
        printer, end = CONSOLE, other.end()
    elif syslog := _SYSLOG.match(line):
        printer, end, priority = CONSOLE, syslog.end(), syslog[1]
    if priority and int(priority) >> _FACILITY_SHIFT:
        printer = USER
    return printer, line[end:]


def said(line: str) -> str:
    """Returns what a line says, without its stamp, printer and control characters."""
    return split_line(cut_line(line))[1]
