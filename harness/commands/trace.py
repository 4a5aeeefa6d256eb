# SPDX-License-Identifier: GPL-2.0-only
"""`invoke trace`: what the kernel does while a command runs in a guest that has the module loaded.

The kernel's own tracer tells it (Documentation/trace/ftrace.rst): each call of a function, and the
events that the kernel has.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Iterator, Sequence

from harness.commands import shell
from harness.errors import CommandFailed, GuestError, InputError
from harness.machines.clone import Clone
from harness.machines.guest import Guest
from harness.runs.request import Request

_TRACING = "/sys/kernel/tracing"
_END = "eudyptula: the command has ended"  # what the reader of the trace ends at
_DRAIN_SECONDS = 30.0  # for what was traced to be read when the command has ended
_STDERR = 2  # its descriptor


def run(request: Request, command: str, functions: Sequence[str], events: Sequence[str]) -> int:
    """Load the module, and run ``command`` while its trace goes to standard error.

    ``functions`` are patterns as set_ftrace_filter takes them, ``events`` as set_event does. With
    neither, all functions of the module are traced. Returns the command's exit status. Raises
    ``InputError`` where the kernel has nothing of that name.
    """
    if not command:
        raise InputError(
            "nothing is to run, so there is nothing to trace",
            hint="say it behind two dashes: invoke trace -- 'echo hello >/dev/eudyptula'",
        )
    with shell.with_module(request, "a command is traced in one guest") as (running, module, _):
        if not functions and not events:
            functions = [f"*:mod:{one.name}" for one in module.objects]
        _begin(running.guest, functions, events)
        with _shown(running):
            return shell.session(running, command, module)


def _begin(guest: Guest, functions: Sequence[str], events: Sequence[str]) -> None:
    for pattern in functions:
        _ask(guest, pattern, "set_ftrace_filter", "function")
    for pattern in events:
        _ask(guest, pattern, "set_event", "event")
    if functions:
        guest.check(f"echo function >{_TRACING}/current_tracer")


def _ask(guest: Guest, pattern: str, file: str, what: str) -> None:
    """Have the kernel trace what matches a pattern; it refuses one that matches nothing."""
    try:
        guest.check(f"printf '%s\\n' {shlex.quote(pattern)} >>{_TRACING}/{file}")
    except CommandFailed as error:
        listed = "available_filter_functions" if what == "function" else "available_events"
        raise InputError(
            f"this kernel has no {what} to trace that matches {pattern!r}",
            hint=f"invoke shell -- 'cat {_TRACING}/{listed}' shows all that it has",
        ) from error


@contextlib.contextmanager
def _shown(clone: Clone) -> Iterator[None]:
    """What is traced within goes to standard error, as it comes."""
    # -u: each line at once. The last line is not the kernel's.
    read = f"exec sed -u -n '/{_END}$/q;p' {_TRACING}/trace_pipe"
    with clone.guest.shell(read, "", 80, 24) as channel:

        def copy() -> None:
            with contextlib.suppress(GuestError, OSError):  # whoever runs the command tells of it
                shell.attach(channel, None, _STDERR, _STDERR, terminal=False)

        reader = threading.Thread(target=copy, name="harness-trace", daemon=True)
        reader.start()
        try:
            yield
        finally:
            with contextlib.suppress(GuestError):
                clone.guest.check(f"echo '{_END}' >{_TRACING}/trace_marker")
                reader.join(clone.machine.patience(_DRAIN_SECONDS).left)
