# SPDX-License-Identifier: GPL-2.0-only
"""Reads a kernel log and says which problems it holds.

The reader is pure: text in, :class:`Event` out. It knows the reports of kernels 4.x to 7.x as
their sources print them (each entry of :data:`FORMATS` names the function that does), on x86
and, where the shape is the same, on arm, arm64 and riscv.

How a log is read:

1. Every line is split into who printed it and what it says. With CONFIG_PRINTK_CALLER the
   printer is a task (``T123``) or a CPU (``C0``), and a report is followed through the lines of
   its own printer only, however many others write between them.
2. A line that starts a report (a header, see :data:`FORMATS`) opens it; lines of the same
   printer are added until the report ends or another one starts.
3. The report's stacks are taken apart. Frames marked ``?`` are leftovers on the stack, not
   callers, and are dropped. The guilty function is the innermost frame which is no helper
   (:data:`HELPERS`): nobody wants to read that the bug is in ``memcpy``.

One problem gives one event. What the kernel prints as a consequence belongs to the event that
caused it: the ``Oops:`` and ``Internal error:`` lines under a page fault, the trap under a
``BUG()``, and every ``Kernel panic`` that a report led to (``Fatal exception``,
``panic_on_warn set``, ``hung_task: blocked tasks``, ...). A panic that nothing announced, or
whose announcement is not in the text, is an event of its own. Two reports in a row, even of the
same task, are two events: the second may be a second bug.

Titles are those in use in the kernel's bug trackers, so that a title can be searched for there.
"""

from __future__ import annotations

from harness.klog.formats import Kind
from harness.klog.frames import Frame
from harness.klog.lines import said
from harness.klog.reader import Event, events, first, read

__all__ = ["Event", "Frame", "Kind", "events", "first", "read", "said"]
