# SPDX-License-Identifier: GPL-2.0-only
"""`invoke trace`: what the kernel does while a command runs in a guest that has the module loaded.

The kernel's own tracer tells it (Documentation/trace/ftrace.rst): each call of a function, and the
events that the kernel has. Or a program for bpftrace does, which is put into the guest for it.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness import config
from harness.build import kernel
from harness.build.kernel import Kernel
from harness.commands import shell
from harness.errors import CommandFailed, GuestError, InputError
from harness.host.cache import Cache
from harness.machines.clone import Clone
from harness.machines.guest import Guest
from harness.runs.request import Request

log = logging.getLogger(__name__)

_TRACING = "/sys/kernel/tracing"
_END = "eudyptula: the command has ended"  # what the reader of the trace ends at
_DRAIN_SECONDS = 30.0  # for what was traced to be read when the command has ended
_STDERR = 2  # its descriptor
_WHY = "a command is traced in one guest"

_BTF = "CONFIG_DEBUG_INFO_BTF"
_BPFTRACE = "bpftrace"
_FOLDER = "/root/.eudyptula-trace"  # in the guest: the command that bpftrace starts, and its status


def run(
    request: Request,
    command: str,
    functions: Sequence[str],
    events: Sequence[str],
    program: str | None = None,
) -> int:
    """Load the module, and run ``command`` while its trace goes to standard error.

    ``functions`` are patterns as set_ftrace_filter takes them, ``events`` as set_event does. With
    neither, all functions of the module are traced. A ``program`` is bpftrace's, and takes their
    place. Returns the command's exit status. Raises ``InputError`` where the kernel has nothing of
    that name, or cannot run the program.
    """
    if not command:
        raise InputError(
            "nothing is to run, so there is nothing to trace",
            hint="say it behind two dashes: invoke trace -- 'echo hello >/dev/eudyptula'",
        )
    if program is not None:
        if functions or events:
            raise InputError(
                "--bpf takes the place of --function and --event",
                hint="the program itself says what it wants: kprobe:NAME, tracepoint:GROUP:EVENT",
            )
        return _run_program(request, command, program)
    with shell.with_module(request, _WHY) as (running, module, _):
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
    """Within, what is traced is printed to standard error as it comes."""
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


# -- bpftrace ------------------------------------------------------------------------


def _run_program(request: Request, command: str, program: str) -> int:
    """Have bpftrace run ``program`` while ``command`` runs; the command's exit status."""
    request.check_equipment()
    spec = request.select_one(config.load(), _WHY)
    with Cache() as cache:  # bpftrace need not be downloaded for a kernel that it cannot trace
        check_btf(kernel.prepare_kernel(spec, cache))
    usual = request.equipment
    packages = tuple(sorted({*usual.packages, _BPFTRACE}))
    request = replace(request, equipment=replace(usual, packages=packages))
    with shell.with_module(request, _WHY) as (running, module, _):
        guest = running.guest
        log.info("bpftrace compiles the program, which takes some seconds without KVM")
        guest.check(f"mkdir {_FOLDER} && cd {_FOLDER} && {_written(command)}")
        status = shell.session(running, _bpftrace(program), module)
        ended = guest.run(f"cat {_FOLDER}/status")
        if not ended.ok:
            raise InputError(
                f"bpftrace does not run this program (status {status}); why is said above",
                hint="invoke shell --guest-packages bpftrace -- 'bpftrace -l' lists what can be "
                "traced",
            )
        return int(ended.stdout)


def check_btf(its_kernel: Kernel) -> None:
    """Raise ``InputError`` for a kernel that does not describe its types to bpftrace (BTF)."""
    if f"{_BTF}=y" not in its_kernel.config.read_text().splitlines():
        raise InputError(
            f"kernel {its_kernel.name} has no description of its types ({_BTF}), which bpftrace "
            "needs",
            hint="trace it without --bpf, or on a kernel of Debian's, which have one",
        )


def _written(command: str) -> str:
    """What writes the command into a file. Its output has a stream of its own, descriptor 3."""
    script = f"exec >&3\ncd /root\n(\n{command}\n)\necho $? >{_FOLDER}/status\n"
    return f"printf %s {shlex.quote(script)} >command"


def _bpftrace(program: str) -> str:
    """bpftrace, which starts the command when all is attached, and ends with it.

    What it prints goes to standard error, as soon as there is a line.
    """
    words = [_BPFTRACE, "-q", "-B", "line", "-e", program, "-c", f"/bin/sh {_FOLDER}/command"]
    return f"{shlex.join(words)} 3>&1 1>&2"
