# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel logs is read from its memory as well, so that silencing its console hides nothing.

The console is silenced by a shell here, by the same settings that a module can reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.examine import evidence, loading
from harness.judge import verdict
from harness.judge.verdict import Expectation, Verdict
from harness.klog import Kind
from harness.machines import pool
from harness.testing import Clone, Lab

CONTROL = "/sys/kernel/debug/planted"
SILENCE = "echo N >/sys/module/printk/parameters/ignore_loglevel; dmesg -n 1"
RESTORE = "dmesg -n 7; echo Y >/sys/module/printk/parameters/ignore_loglevel"
# drivers/tty/serial/serial_core.c, console_store()
UNREGISTER = "echo N >/sys/class/tty/ttyS0/console"
REGISTER = "echo Y >/sys/class/tty/ttyS0/console"


@pytest.fixture
def planted(lab: Lab) -> Iterator[Clone]:
    """A machine with the module that does what it is told to."""
    module = lab.build(Path(__file__).parent / "planted")
    clone = pool.open_clone(loading.loaded_template(lab, lab.template(), module), lab.cache)
    yield clone
    clone.close()


def outcome(clone: Clone) -> list[tuple[Verdict, str]]:
    """What is wrong with the machine now; it is judged from there on next."""
    seen = evidence.gather(clone.machine, clone.baseline, audit=clone.audit)
    return [(problem.verdict, problem.title) for problem in verdict.judge(seen)]


def test_a_report_that_is_kept_from_the_console_is_found(planted: Clone) -> None:
    """And that it was kept from there is said."""
    planted.guest.check(f"{SILENCE}; echo warn >{CONTROL}; {RESTORE}; echo said >/dev/kmsg")
    (report, hidden) = outcome(planted)
    assert report == (Verdict.SPLAT, "WARNING in planted_warn")
    assert hidden[0] is Verdict.LOG_GAP
    assert hidden[1].endswith(" lines that are not on its console")


def test_a_report_that_nobody_has_logged_is_found(planted: Clone) -> None:
    """Its module has kept the kernel from logging, and has put the taint back as it was."""
    before = planted.guest.check("dmesg; cat /proc/sys/kernel/tainted")
    planted.guest.check(f"echo hide >{CONTROL}")
    assert planted.guest.check("dmesg; cat /proc/sys/kernel/tainted") == before
    title = "the kernel has counted a warning or an oops, and its log does not have it"
    assert outcome(planted) == [(Verdict.SPLAT, title)]
    assert outcome(planted) == []


def test_a_report_that_was_expected_is_not_hidden(planted: Clone) -> None:
    """Nor what a judgement has told, once the kernel has counted it."""
    planted.guest.check(f"echo warn >{CONTROL}")
    end = len(planted.machine.console_text())
    expected = (Expectation(Kind.WARNING, "planted_warn", 0, end + (1 << 20)),)
    seen = evidence.gather(
        planted.machine, planted.baseline, expected=expected, audit=planted.audit
    )
    assert seen.counted == 1
    assert verdict.judge(seen) == []


def test_a_line_that_is_no_report_is_missed_too(planted: Clone) -> None:
    """Nobody has a reason to hide one."""
    planted.guest.check(f"{SILENCE}; echo one >/dev/kmsg; {RESTORE}")
    title = "the kernel logged 1 lines that are not on its console"
    assert outcome(planted) == [(Verdict.LOG_GAP, title)]
    assert outcome(planted) == []


@pytest.mark.parametrize("silence", [SILENCE, UNREGISTER], ids=["silenced", "unregistered"])
def test_a_console_that_stays_silent_is_said(planted: Clone, silence: str) -> None:
    """The guest answers, and so it is not lost; its log is judged all the same."""
    planted.guest.check(f"{silence}; echo warn >{CONTROL}")
    (report, hidden) = outcome(planted)
    assert report == (Verdict.SPLAT, "WARNING in planted_warn")
    assert hidden[0] is Verdict.LOG_GAP


def test_a_log_that_is_cleared_and_lines_with_colours_hide_nothing(planted: Clone) -> None:
    """Both are on the console as they are in the log, so that nothing is missing."""
    said = "printf '<3>planted: \\033[8mhidden\\033[0m\\r\\n' >/dev/kmsg"
    planted.guest.check(f"{said}; dmesg -C; seq 300 >/dev/kmsg; dmesg >/dev/null")
    assert outcome(planted) == []


def test_a_console_that_is_registered_again_is_no_reboot(planted: Clone) -> None:
    """Although it prints the whole log once more, from the kernel's first line on."""
    before = planted.machine.console_text().count("Linux version")
    planted.guest.check(f"{UNREGISTER}; {REGISTER}; echo said >/dev/kmsg")
    assert outcome(planted) == []
    assert planted.machine.console_text().count("Linux version") == before + 1


def test_what_happens_before_and_after_a_console_is_registered_again_is_found(
    planted: Clone,
) -> None:
    """Each once, although the first is printed twice."""
    warn = f"echo warn >{CONTROL}"
    planted.guest.check(f"{warn}; {UNREGISTER}; {REGISTER}; {warn}")
    seen = evidence.gather(planted.machine, planted.baseline, audit=planted.audit)
    (problem,) = verdict.judge(seen)
    assert (problem.title, problem.times) == ("WARNING in planted_warn", 2)
