# SPDX-License-Identifier: GPL-2.0-only
"""`invoke reference`: docs/reference.md, made of docstrings and of what the options say themselves.

What it has of a class is what docs/writing-tests.md names: those names stay, and all others may
change.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from invoke.collection import Collection
from invoke.loader import FilesystemLoader
from invoke.parser.context import ParserContext

from harness import config, plugin, testing
from harness.host import files
from harness.plugin import fixtures, ktap

PAGE = config.PROJECT / "docs" / "reference.md"
_GUIDE = config.PROJECT / "docs" / "writing-tests.md"
_FIXTURES = ("guest", "loaded", "shared", "module", "machine", "lab", "run_ktap", "expect_splat")

_BEGIN = """\
# Reference

`invoke reference` makes this page, out of what the code says of itself. What the tasks are for,
with examples, is on the page [Tasks and options](tasks.md); how to use the rest, on
[Writing tests](writing-tests.md).
"""


def run() -> None:
    """Write the page."""
    files.write(PAGE, text())
    print(f"wrote {PAGE.relative_to(config.PROJECT)}")


def text() -> str:
    """The page, in Markdown."""
    parts = [_BEGIN, *_tasks(), *_of_pytest(), *_fixtures(), *_names()]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _said(thing: object, indent: str = "") -> str:
    """A docstring as Markdown, in which a name stands between single backquotes."""
    said = (inspect.getdoc(thing) or "").replace("``", "`")
    return "\n".join(f"{indent}{line}".rstrip() for line in said.splitlines())


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _table(*heads: str) -> list[str]:
    return [_row(*heads), "|" + "---|" * len(heads)]


# -- tasks -------------------------------------------------------------------------


def _tasks() -> Iterator[str]:
    # A task forgets what its options mean when invoke has asked for them once, as it has by now.
    module, _ = FilesystemLoader(start=str(config.PROJECT)).load("tasks")
    collection = Collection.from_module(module)
    yield "## Tasks"
    for context in sorted(collection.to_contexts(), key=lambda one: str(one.name)):
        name = str(context.name)
        yield f"### {name}"
        yield _said(collection[name])
        positional = [one for one in context.args.values() if one.positional]
        words = " ".join(str(one.name).upper().replace("_", "-") for one in positional)
        if words:
            yield f"Called as `invoke {name} {words}`."
        if context.flags:
            yield "\n".join([*_table("flags", "meaning"), *_flags(context)])


def _flags(context: ParserContext) -> Iterator[str]:
    for flags, meaning in context.help_tuples():
        yield _row(", ".join(f"`{flag}`" for flag in flags.split(", ")), meaning or "")


# -- pytest ------------------------------------------------------------------------


class _Heard:
    """Stands in for pytest's parser and configuration; remembers what the plugin tells them."""

    def __init__(self) -> None:
        self.options: list[tuple[tuple[str, ...], dict[str, Any]]] = []
        self.settings: list[tuple[str, str]] = []

    def getgroup(self, *_: object) -> _Heard:
        return self

    def addoption(self, *names: str, **how: Any) -> None:
        self.options.append((names, how))

    def addini(self, name: str, meaning: str, *_: object) -> None:
        self.settings.append((name, meaning))


def _of_pytest() -> Iterator[str]:
    heard = _Heard()
    plugin.pytest_addoption(heard)  # type: ignore[arg-type]  # as far as it is used
    yield "## Options of pytest"
    yield ("The long names are there wherever the package is installed, the short ones in this "
           "repository only.")  # fmt: skip
    rows = []
    for names, how in heard.options:
        value = f" {how['metavar']}" if how.get("metavar") else ""
        rows.append(_row(", ".join(f"`{name}{value}`" for name in names), how["help"]))
    yield "\n".join([*_table("name", "meaning"), *rows])
    yield "In the ini file of pytest:"
    settings = [_row(f"`{name}`", meaning) for name, meaning in heard.settings]
    yield "\n".join([*_table("setting", "meaning"), *settings])
    yield "## Marks"
    marks = [line.partition(": ") for line in plugin.MARKS]
    yield "\n".join(
        [*_table("mark", "meaning"), *(_row(f"`{mark}`", meaning) for mark, _, meaning in marks)]
    )


def _fixtures() -> Iterator[str]:
    yield "## Fixtures"
    rows = []
    for name in _FIXTURES:
        found = getattr(fixtures, name, None) or getattr(ktap, name)
        rows.append(_row(f"`{name}`", _said(found)))
    yield "\n".join([*_table("name", "what it is"), *rows])


# -- names to import ---------------------------------------------------------------


def _names() -> Iterator[str]:
    named = set(re.findall(r"[.`]([a-z_]+)", _GUIDE.read_text()))
    yield "## Names to import"
    yield f"From `{testing.__name__}`."
    for name in testing.__all__:
        thing = getattr(testing, name)
        yield f"### {name}"
        yield _said(thing)
        if not issubclass(thing, Exception):
            yield "\n".join(_members(thing, named))


def _members(thing: type, named: set[str]) -> Iterator[str]:
    """What the guide names of a class, or how something is called that has nothing else."""
    for name, member in vars(thing).items():
        if name == "__call__" or name in named:
            if isinstance(member, property):
                kind = inspect.get_annotations(member.fget)["return"]  # type: ignore[arg-type]
                yield f"- `.{name}`: `{kind}` {_said(member, '  ').lstrip()}".rstrip()
            elif callable(member):
                yield f"- `{_called(name, member)}`: {_said(member, '  ').lstrip()}"
    for name, kind in inspect.get_annotations(thing).items():
        if name in named:
            yield f"- `.{name}`: `{kind}`"


class _Bare(str):
    """A text that is shown without quotes."""

    __repr__ = str.__str__


def _called(name: str, member: Callable[..., object]) -> str:
    signature = inspect.signature(member)
    given = [_shown(one) for one in signature.parameters.values() if one.name != "self"]
    shown = signature.replace(
        parameters=given, return_annotation=_Bare(signature.return_annotation)
    )
    return f"{'' if name == '__call__' else f'.{name}'}{shown}"


def _shown(one: inspect.Parameter) -> inspect.Parameter:
    if one.name == "mode":  # of a file
        one = one.replace(default=_Bare(f"0o{one.default:o}"))
    return one.replace(annotation=_Bare(one.annotation))
