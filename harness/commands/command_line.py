# SPDX-License-Identifier: GPL-2.0-only
"""How the words of a command line are read: what `invoke` does otherwise than people expect.

`invoke` takes one word for a positional argument, and --help behind a task with a positional
argument for that argument. It ends with 1 for a task or an option that it does not know, which is
what a red test ends with.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from invoke.exceptions import Exit, ParseError
from invoke.main import program
from invoke.parser.argument import Argument
from invoke.tasks import Task

from harness.commands.guard import end_unread
from harness.errors import Status

Tasks = Mapping[str, Task[Any]]
"""Tasks by their names."""

BETWEEN = "\0"
"""What separates the folders of `judge` in the one word that invoke reads: in no file's name."""


def tasks_in(names: Mapping[str, object]) -> Tasks:
    """The tasks among the names of a module."""
    every = {name.replace("_", "-"): each for name, each in names.items()}
    return {name: each for name, each in every.items() if isinstance(each, Task)}


def adapt(tasks: Callable[[], Tasks]) -> None:
    """Have invoke read command lines in our way from now on.

    invoke loads tasks.py after it has read its own options, and before it reads the names and
    options of tasks. ``tasks`` is called once tasks.py is loaded.
    """
    parse = program.parse_tasks

    def parse_tasks() -> None:
        known = tasks()
        program.core.unparsed[:] = together(helped(program.core.unparsed, known), known)
        parse()

    program.parse_tasks = _bad_input(parse_tasks, tasks)  # type: ignore[method-assign]
    program.parse_cleanup = _bad_input(  # type: ignore[method-assign]
        program.parse_cleanup, tasks
    )


def together(words: Sequence[str], tasks: Tasks) -> list[str]:
    """The words of a command line in which the folders of `judge` are one word.

    invoke would take the second folder for a task.
    """
    if not words or words[0] != "judge":
        return list(words)
    flags = _flags_of(tasks["judge"])
    options, folders = [], []
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-"):
            folders.append(word)
            continue
        options.append(word)
        alone = "=" in word or word in flags or (len(word) > 2 and word[1] != "-")
        if not alone:
            options += [value for value in [next(rest, None)] if value is not None]
    return ["judge", *([BETWEEN.join(folders)] if folders else []), *options]


def _flags_of(task: Task[Any]) -> set[str]:
    """The options of a task that take no value."""
    names = ["help", "h"]
    for argument in _arguments(task):
        names += argument.names if argument.kind is bool else ()
    return {f"-{name}" if len(name) == 1 else f"--{name}" for name in names}


def helped(words: Sequence[str], tasks: Tasks) -> list[str]:
    """The words of a command line that asks for a task's help, such that invoke understands it."""
    if not {"--help", "-h"} & set(words[1:]):
        return list(words)
    asked = tasks.get(words[0])
    takes_one = asked is not None and any(each.positional for each in _arguments(asked))
    return [words[0], *(["-"] if takes_one else []), "--help"]


def _arguments(task: Task[Any]) -> list[Argument]:
    """A task's arguments.

    invoke moves the explanations of the options from the task to these. It makes the arguments once
    more for the task's help, so the explanations are put back.
    """
    explained = dict(task.help)
    try:
        return task.get_arguments()
    finally:
        task.help = explained


def _bad_input(parse: Callable[[], None], tasks: Callable[[], Tasks]) -> Callable[[], None]:
    """``parse``, ending with 2 and a hint for a task or an option that does not exist."""

    def wrapper() -> None:
        try:
            try:
                parse()
            finally:
                print(end="", flush=True)  # where help is all that is printed, it may fail here
        except BrokenPipeError:
            end_unread()
        except (ParseError, Exit) as error:
            if isinstance(error, Exit) and not error.message:  # --list and --help end so
                raise
            what = str(error.message if isinstance(error, Exit) else error)
            raise Exit(
                f"{what}\nWhat to do: {_hint(what, tasks())}`invoke --list`, or `invoke TASK "
                "--help`",
                code=Status.INPUT,
            ) from error

    return wrapper


def _hint(said: str, tasks: Tasks) -> str:
    """What was probably meant by the word that invoke does not know; "" if that is not known."""
    found = re.match(r"No idea what '(.*)' is!", said)
    if not found:
        return ""
    word = found[1]
    if not word.startswith("-"):
        near = difflib.get_close_matches(word, tasks, n=1)
        if near:
            return f"did you mean {near[0]}? "
        return "a module's folder is given as --module DIR, and a command behind two dashes. "
    having: dict[str, list[str]] = {}
    for task_name, each in sorted(tasks.items()):
        for option in {f"--{name}" for argument in _arguments(each) for name in argument.names}:
            having.setdefault(option, []).append(task_name)
    if word in having:
        *others, last = having[word]
        names = f"{', '.join(others)} and {last}" if others else last
        return f"{word} is an option of {names}. "
    near = difflib.get_close_matches(word, having, n=1)
    return f"did you mean {near[0]}? " if near else ""
