# SPDX-License-Identifier: GPL-2.0-only
"""What is around each task of `invoke`: signals, errors as sentences, and the exit status.

tasks.py imports this when it is loaded, so that it imports next to nothing itself.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from harness.errors import HarnessError, InputError, Status, refused

F = TypeVar("F", bound=Callable[..., Any])


def listen() -> None:
    """From now on, say something at Ctrl-C and SIGTERM while Python loads what a task needs.

    invoke would end with 1, which is what a red test ends with, and say nothing.
    """
    signal.signal(signal.SIGTERM, before_the_task)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored
        signal.signal(signal.SIGINT, before_the_task)


def before_the_task(*_: object) -> NoReturn:
    """The handler of both signals until a task begins."""
    print("\ninterrupted before the task began; nothing was left running", file=sys.stderr)
    sys.exit(Status.INTERRUPTED)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: what runs is ended in the same order as after Ctrl-C."""

    how = "SIGTERM"


def explained(function: F) -> F:
    """Turn the harness's errors, and signals, into their sentences and an exit status."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        _print_anything()
        verbose, quiet = bool(kwargs.get("verbose")), bool(kwargs.get("quiet"))
        level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
        from harness.host import progress  # noqa: PLC0415  # `invoke --list` needs none of it

        shown = progress.handler(sys.stderr)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[shown])
        logging.getLogger("harness").setLevel(level)
        task = function.__name__.replace("_", "-")
        interrupted, terminated = _on_signals(task)
        before = signal.signal(signal.SIGTERM, terminated)
        listens = signal.getsignal(signal.SIGINT) in (before_the_task, signal.default_int_handler)
        if listens:  # it may be ignored
            signal.signal(signal.SIGINT, interrupted)
        try:
            if verbose and quiet:
                raise InputError(
                    "--verbose and --quiet exclude each other", hint="give one of them"
                )
            status = function(*args, **kwargs)
            print(end="", flush=True)  # so that an error of printing is raised here
        except HarnessError as error:
            _end(error)
        except OSError as error:
            if isinstance(error, BrokenPipeError) and progress.nobody_reads():
                end_unread()
            logging.getLogger("harness").debug("%s", error, exc_info=True)
            _end(refused(error, task))
        except KeyboardInterrupt as error:
            _end_interrupted(error, task)
        except Exception as error:
            traceback.print_exc()
            name = type(error).__name__
            print(f"\n{task}: a fault of the harness ({name}), please report it", file=sys.stderr)
            sys.exit(Status.OURS)
        finally:
            signal.signal(signal.SIGTERM, before)
            if listens:
                signal.signal(signal.SIGINT, signal.default_int_handler)
        if status:
            sys.exit(status)
        return None

    return wrapper  # type: ignore[return-value]  # same arguments, no result


def _print_anything() -> None:
    """Have characters that the terminal's encoding lacks be printed as escapes.

    With a locale that has ASCII only, one in what a test says would end the task otherwise.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _on_signals(task: str) -> tuple[Callable[..., NoReturn], Callable[..., NoReturn]]:
    """The handlers of Ctrl-C and of SIGTERM while a task runs."""

    def interrupted(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # say it once
        _say_at_once("Ctrl-C", task)
        raise KeyboardInterrupt

    def terminated(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; cleaning up is under way
        _say_at_once("SIGTERM", task)
        raise _Terminated

    return interrupted, terminated


def _say_at_once(how: str, task: str) -> None:
    """Say that a task is interrupted: what it has started may take seconds to end.

    write(2) is used because the signal may have come while print() was at work.
    """
    os.write(2, f"\n{how}: {task} is interrupted, and ends what it has started\n".encode())


def _end_interrupted(error: KeyboardInterrupt, task: str) -> NoReturn:
    """Say what was interrupted. Whoever has found results has printed them already."""
    how = getattr(error, "how", "Ctrl-C")
    said = [f"interrupted by {how}: {task}", *getattr(error, "__notes__", ())]
    print("\n" + "\n    ".join(said) + "\nnothing was left running", file=sys.stderr)
    sys.exit(Status.INTERRUPTED)


def _end(error: HarnessError) -> NoReturn:
    print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(error.exit_status)


def end_unread() -> NoReturn:
    """End because nobody reads what is printed, as after `| head`: with the status of SIGPIPE."""
    # Python flushes its output when it ends, which would raise the same error again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)
