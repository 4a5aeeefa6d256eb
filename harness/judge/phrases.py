# SPDX-License-Identifier: GPL-2.0-only
"""Parts of the sentences about problems by which others know them again.

A problem is a sentence (``verdict.Problem.title``). harness/examine/explain.py adds to it what it
knows, and harness/report/card.py reads it in the reports of tests. Both look for these parts.
"""

from __future__ import annotations

import re

SAYS = "it says: "
"""How the detail of a warning begins that has a message; the message follows."""

NOT_CALLED = re.compile(r": ([^:;]*\(\)[^:;]*) was not called")
"""How a title names the call that is missing, or several of which one is: "A() or B()"."""

GONE = "is not there any more after"
"""Between the name of a variable or function and "rmmod", where the kernel wanted to use it."""

STILL_LISTED = "was still in it when the module was loaded once more"
"""Behind the name of a list's element that an earlier life of the module has left there."""

LEFT_BEHIND = "left behind: "
"""Before the names of what the kernel's lists still have of a module that is unloaded."""

OTHERS = re.compile(r" \(\d+ times, with other numbers\)")
"""Behind a name in such a list, where others differ from it in a number only."""
