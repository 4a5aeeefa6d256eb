# SPDX-License-Identifier: GPL-2.0-only
"""Reads a kernel log and says which problems it holds.

The reader is pure: text in, :class:`Event` out. It knows the reports of kernels 2.6 to 7.x as
their sources print them; each entry of :data:`harness.klog.formats.FORMATS` names the function
that does. The files, each of which imports only those above it:

=========  ======================================================================================
rust       names that Rust's compiler gives to functions
lines      who printed a line of a console, and what it says
prose      what is no line of a log, but a sentence that speaks of one
paste      logs as people paste them: what stands before the lines is taken away first
frames     calls and stacks: what a line of a report says of the code
blame      which of a report's calls is the guilty one
formats    the table of reports: how to know each, its title, and whom it blames
reader     lines to reports, reports to events
bench      measures the reader on labelled logs (a program, the only one that does I/O)
=========  ======================================================================================

How a log is read:

1. Every line is split into who printed it and what it says. With CONFIG_PRINTK_CALLER the
   printer is a task (``T123``) or a CPU (``C0``), and a report is followed through the lines of
   its own printer only, however many others write between them.
2. A line that starts a report (a header) opens it; lines of the same printer are added until the
   report ends or another one starts.
3. The report's stacks are taken apart. Calls marked ``?`` were found on the stack, but may not be
   callers; they are used only where there is nothing else. Two functions are then looked for.
   The event's *function* is where it happened: where the CPU was, or what called the function
   that complains. The *title* names the function by the rules of the kernel's bug trackers, which
   leave out more helpers and look further down the stack, so that two reports of one bug get one
   title.

One problem gives one event. What the kernel prints as a consequence belongs to the event that
caused it: the ``Oops:`` and ``Internal error:`` lines under a page fault, the trap under a
``BUG()``, and every ``Kernel panic`` that a report led to (``Fatal exception``,
``panic_on_warn set``, ``hung_task: blocked tasks``, ...). A panic that nothing announced, or
whose announcement is not in the text, is an event of its own. Two reports in a row, even of the
same task, are two events: the second may be a second bug.

A console and a pasted log are not read alike. A console of a machine of ours is complete and
nobody has edited it, so little is guessed. Of a pasted log (``read(pasted=True)`` and
:func:`first`) anything may be missing.
"""

from __future__ import annotations

from harness.klog.formats import Kind
from harness.klog.frames import Frame
from harness.klog.lines import said
from harness.klog.reader import Event, events, first, read

__all__ = ["Event", "Frame", "Kind", "events", "first", "read", "said"]
