# SPDX-License-Identifier: GPL-2.0-only
"""What README.md and the pages of docs/ name exists.

Each check takes a page and what there really is, and returns what is wrong in sentences. So the
checks themselves are tested with planted errors, in the second half of this file.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import posixpath
import re
import shlex
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser import Parser
from invoke.parser.context import ParserContext
from invoke.program import Program

import tasks
from harness import config, errors, klog
from harness.build.module import Module
from harness.commands import command_line
from harness.judge.verdict import Verdict
from harness.machines.guest import Guest
from harness.report.result import SCHEMA, Case, Cell, Excerpt, KernelResult
from tests import reliability

from .test_repository import repository_files

ROOT = config.PROJECT
README = "README.md"
README_WORDS = 900  # as `wc -w` counts them, code included
# What the pages invent, for readers to replace by something of their own.
EXAMPLES = {
    "test_mine.py",
    "mymodule",
    "my.config",
    "../linux",
    "notes.c",
    "test_notes.py",
    "a.diff",
}
# Programs in examples that are not this repository's, so that nothing is known of their options.
FOREIGN = {"git", "cd", "make", "pip"}
# Markers of pytest itself and of the plugins that come with this one.
OTHER_MARKERS = {"filterwarnings", "parametrize", "pytester_example_path", "skip", "skipif",
                 "tryfirst", "trylast", "usefixtures", "xdist_group", "xfail"}  # fmt: skip


# -- what a page says --------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block of code, and the word behind its fence."""

    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """A page in Markdown. ``name`` is its path in the repository."""

    name: str
    text: str

    @property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return re.sub(r"(?ms)^```.*?^```$", "", self.text)

    @property
    def blocks(self) -> list[Block]:
        found = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", self.text)
        return [Block(language, text) for language, text in found]

    @property
    def spans(self) -> list[str]:
        """What stands between backquotes, outside of blocks."""
        return spans(self.prose)

    @property
    def links(self) -> list[str]:
        return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", self.prose)

    @property
    def anchors(self) -> set[str]:
        """The names that links may use for this page's headings, as GitHub and GitLab make them."""
        found: set[str] = set()
        for heading in re.findall(r"(?m)^#+ (.*)$", self.prose):
            words = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            again = sum(1 for one in found if re.fullmatch(rf"{re.escape(words)}(-\d+)?", one))
            found.add(f"{words}-{again}" if again else words)
        return found

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each command, from examples and from prose."""
        for block in self.blocks:
            lines = block.text.splitlines()
            if block.language not in ("sh", ""):
                continue
            if not block.language:  # what a program has printed, which may name a command
                lines = [found[1] for line in lines if (found := re.search(r"(\binvoke .*)", line))]
            for line in lines:
                yield from commands_in(line)
        for span in self.spans:
            if re.match(r"(invoke|\./bootstrap|pytest|python) ", span):
                yield shlex.split(span)

    def columns(self, heading: str) -> Iterator[str]:
        """The cells below a heading, of every table that has a column of that name."""
        for row in self.rows():
            if heading in row:
                yield row[heading]

    def rows(self) -> Iterator[dict[str, str]]:
        """Each row of each table, by the headings of its columns."""
        heads: list[str] = []
        for line in self.prose.splitlines():
            if not line.startswith("|"):
                heads = []
                continue
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not heads:
                heads = cells
            elif not re.fullmatch(r"[|\s:-]+", line):
                yield dict(zip(heads, cells, strict=True))


def commands_in(line: str) -> list[list[str]]:
    """The words of each command of a shell's line; what is in quotes is one word."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word in ("&&", "|", ";"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


# -- what there is -----------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """What the pages may name."""

    parser: Parser  # of `invoke`
    core: ParserContext  # the options of `invoke` itself
    tasks: Mapping[str, ParserContext]
    pytest_option: Callable[[str], bool]
    fixture: Callable[[str], bool]
    markers: Mapping[str, str]  # each with its arguments, as `pytest --markers` shows it
    code: str  # the text of every file but the pages and their test
    generated: tuple[str, ...]  # folders and files that git ignores
    pages: Mapping[str, Page]


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    names = [README, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    return {name: Page(name, (ROOT / name).read_text()) for name in names}


@pytest.fixture(scope="module")
def known(request: pytest.FixtureRequest, pages: dict[str, Page]) -> Known:
    collection = Collection.from_module(tasks)
    core = ParserContext(args=[*Program().core_args(), *Program().task_args()])
    contexts = collection.to_contexts()
    markers = [line.partition(":")[0] for line in request.config.getini("markers")]

    def has_option(name: str) -> bool:
        try:
            request.config.getoption(name)
        except ValueError:
            return False
        return True

    def has_fixture(name: str) -> bool:
        # pytest has no public way to ask for a fixture without setting it up.
        return bool(request.session._fixturemanager.getfixturedefs(name, request.node))

    code = [
        (ROOT / name).read_bytes().decode(errors="replace")
        for name in repository_files()
        if not name.endswith(".md") and name != Path(__file__).relative_to(ROOT).as_posix()
    ]
    ignored = (ROOT / ".gitignore").read_text().split()
    return Known(
        parser=Parser(initial=core, contexts=contexts),
        core=core,
        tasks={str(context.name): context for context in contexts},
        pytest_option=has_option,
        fixture=has_fixture,
        markers={re.split(r"\W", line)[0]: line for line in markers},
        code="\n".join(code),
        generated=tuple(line.strip("/") for line in ignored if line.startswith("/")),
        pages=pages,
    )


# -- the checks --------------------------------------------------------------------


def wrong_commands(page: Page, known: Known) -> list[str]:
    """Commands that would not be understood."""
    return [
        f"{shlex.join(words)}: {why}"
        for words in page.commands
        if words
        for why in wrong_command(words, known)
    ]


def wrong_command(words: list[str], known: Known) -> Iterator[str]:
    program, *rest = words
    if program in ("invoke", "./bootstrap"):
        yield from wrong_task(rest, known)
    elif program == "pytest":
        options = [word.partition("=")[0] for word in rest if word.startswith("--")]
        yield from (f"pytest has no {each}" for each in options if not known.pytest_option(each))
    elif program == "python":
        if not (ROOT / rest[0]).is_file():
            yield f"there is no {rest[0]}"
        elif rest[0] == "tests/reliability.py" and rest[1] not in reliability.WHAT:
            yield f"{rest[0]} has no {rest[1]}"
    elif program == ".":
        if not rest[0].startswith(known.generated):
            yield f"nothing makes {rest[0]}"
    elif program.startswith("../eudyptula/"):  # this checkout, from a repository beside it
        if not (ROOT / program.removeprefix("../eudyptula/")).is_file():
            yield f"there is no {program}"
    elif program not in FOREIGN:
        yield f"the test of these pages does not know the program {program}"


def wrong_task(words: list[str], known: Known) -> Iterator[str]:
    """What is wrong with what `invoke` is given; a task's name alone stands for the task."""
    if words[:2] == ["-r", "CHECKOUT"]:  # where the tasks are
        words = words[2:]
    if words[:1] == ["TASK"]:  # any
        if words[1:] not in ([], ["--help"]):
            yield "an option of any task is an option of none"
    elif words[:2] == ["--help", "TASK"]:
        return
    elif words[:1] == ["--help"] or (len(words) == 1 and not words[0].startswith("-")):
        if words[-1] not in known.tasks:
            yield f"there is no task {words[-1]}"
    else:
        try:
            known.parser.parse_argv(
                command_line.together(words, command_line.tasks_in(vars(tasks)))
            )
        except ParseError as error:
            yield str(error)


def wrong_options(page: Page, known: Known) -> list[str]:
    """Options in prose that no task and not pytest has, or that not all tasks of their row have."""
    flags = {name: set(context.flags) for name, context in known.tasks.items()}
    core = set(known.core.flags)
    wrong = []
    for span in page.spans:
        option = span.split()[0].partition("=")[0]
        if not option.startswith("--") or option in core.union(*flags.values()):
            continue
        if not known.pytest_option(option):
            wrong.append(f"{option}: no task has such an option")
    for row in page.rows():
        for task in spans(row.get("task", "")):
            if task not in flags:
                wrong.append(f"{task}: there is no such task")
                continue
            given = [span.split()[0] for span in spans(row.get("option", ""))]
            wrong += [f"{each}: {task} has no such option" for each in given
                      if each not in flags[task]]  # fmt: skip
    return wrong


_FILE = re.compile(
    r"[\w-]+(\.[\w-]+)*\.(py|pl|c|h|ko|toml|lock|log|txt|kdump|json|xml|config|yml|md)"
)


def wrong_files(page: Page, known: Known) -> list[str]:
    """Paths that lead to nothing: those of this repository, and those that a run makes."""
    wrong = []
    for span in page.spans:
        path = span.rstrip("/")
        if not re.fullmatch(r"[\w.*-]+(/[\w.*+-]+)*", path) or path in EXAMPLES:
            continue
        if "/" not in span and not _FILE.fullmatch(span):
            continue
        top = path.split("/")[0]
        if top in known.generated or ("/" not in span and not (ROOT / path).exists()):
            # Names in capitals stand for something; the others are written somewhere in the code.
            fixed = [part for part in path.split("/")[1:] or [path] if not re.search("[A-Z]", part)]
            wrong += [f"{span}: nothing makes {part}" for part in fixed if part not in known.code]
        elif not (ROOT / path).exists() or (span.endswith("/") and not (ROOT / path).is_dir()):
            wrong.append(f"{span}: there is no such file or folder")
    return wrong


def wrong_links(page: Page, known: Known) -> list[str]:
    """Links that lead to no file, or to no heading of it."""
    wrong = []
    for link in page.links:
        if ":" in link:
            wrong.append(f"{link}: an address outside of the repository cannot be checked")
            continue
        target, _, anchor = link.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.name), target))
        other = known.pages.get(path) if target else page
        if target and not (ROOT / path).exists():
            wrong.append(f"{link}: there is no {path}")
        elif anchor and (other is None or anchor not in other.anchors):
            wrong.append(f"{link}: there is no such heading")
    return wrong


def wrong_fixtures(page: Page, known: Known) -> list[str]:
    """Fixtures that pytest does not have with this plugin."""
    named = [span for cell in page.columns("fixture") for span in spans(cell)]
    for function in functions(page):
        if function.name.startswith("test_"):
            named += [argument.arg for argument in function.args.args]
    return [f"{name}: there is no such fixture" for name in named if not known.fixture(name)]


def wrong_markers(page: Page, known: Known) -> list[str]:
    """Markers that are not registered, and arguments that they do not take."""
    wrong = []
    for found in re.finditer(r"\bpytest\.mark\.(\w+)(?:\((.*)\))?", page.text):
        name, arguments = found[1], found[2] or ""
        if name not in known.markers:
            wrong.append(f"{name}: there is no such marker")
            continue
        call = ast.parse(f"f({arguments})", mode="eval").body
        assert isinstance(call, ast.Call)
        wrong += [
            f"{name}: the marker does not take {given.arg}"
            for given in call.keywords
            if not re.search(rf"\b{given.arg}\b", known.markers[name])
        ]
    return wrong


def wrong_methods(page: Page, _: Known) -> list[str]:
    """Methods of a guest that it does not have, and what does not come of them."""
    wrong = []
    answers = [typing.get_type_hints(method)["return"] for method in (Guest.run, Guest.spawn)]
    attributes = {name for each in (Guest, Module, *answers) for name in members(each)}
    for cell in page.columns("method of `Guest`"):
        for span in spans(cell):
            name, *parameters = re.findall(r"\w+", span)
            if name not in members(Guest):
                wrong.append(f"{name}: a guest has no such method")
                continue
            takes = inspect.signature(getattr(Guest, name)).parameters
            wrong += [f"{span}: there is no {each}" for each in parameters if each not in takes]
    for row in page.rows():
        if not {"fixture", "method of `Guest`"} & set(row):
            continue
        for span in spans(" ".join(row.values())):
            found = re.fullmatch(r"\.(\w+)(\(\))?", span)
            if found and found[1] not in attributes:
                wrong.append(f"{span}: nothing has such an attribute")
    return wrong


def members(kind: type) -> set[str]:
    """The public names that the instances of a class have."""
    return {name for name in (*dir(kind), *inspect.get_annotations(kind)) if name[0] != "_"}


def wrong_variables(page: Page, known: Known) -> list[str]:
    """Variables of the environment and options of the kernel that nothing reads."""
    texts = [*page.spans, *(block.text for block in page.blocks if block.language == "sh")]
    named = {
        name
        for text in texts
        for name in re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b(?!\()|\b[A-Z]{2,}(?==)", text)
    }
    return [
        f"{name}: nothing in this repository knows it"
        for name in sorted(named)
        if not re.search(rf"\b{name}\b", known.code)
    ]


def wrong_python(page: Page, _: Known) -> list[str]:
    """Examples in Python that do not compile, or import what is not there."""
    wrong = []
    for block in page.blocks:
        if block.language != "python":
            continue
        try:
            compile(block.text, page.name, "exec")
        except SyntaxError as error:
            wrong.append(f"{error.text}: {error.msg}")
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Import):
                for each in node.names:
                    wrong += wrong_import(each.name, None)
            elif isinstance(node, ast.ImportFrom):
                for each in node.names:
                    wrong += wrong_import(str(node.module), each.name)
    return wrong


def wrong_import(module: str, name: str | None) -> list[str]:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        return [f"import {module}: {error}"]
    return [f"{module} has no {name}"] if name and not hasattr(found, name) else []


def functions(page: Page) -> Iterator[ast.FunctionDef]:
    """The functions in a page's Python examples that can be read."""
    for block in page.blocks:
        if block.language == "python" and not wrong_python(page, typing.cast(Known, None)):
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.FunctionDef):
                    yield node


def wrong_kernels(page: Page, _: Known) -> list[str]:
    """Entries for vm/kernels.toml that it could not have."""
    wrong = []
    for block in page.blocks:
        if block.language == "toml":
            try:
                tomllib.loads(block.text)
            except tomllib.TOMLDecodeError as error:
                wrong.append(f"{block.text}: {error}")
    return wrong


def wrong_kinds(page: Page, _: Known) -> list[str]:
    """Kinds of kernel reports that the reader of logs does not have."""
    named = re.findall(r"\bexpect_splat\(\"([^\"]*)\"", page.text)
    named += [span for cell in page.columns("kinds") for span in spans(cell)]
    kinds = {str(kind) for kind in klog.Kind}
    return [f"{name}: there is no such kind of report" for name in named if name not in kinds]


def wrong_messages(page: Page, known: Known) -> list[str]:
    """Messages that no task prints. A word in capitals, or between quotes, may differ."""
    # A sentence in the code may go over several lines of it, each a string of its own.
    code = re.sub(r"\"\s*\n\s*f?\"", "", known.code)
    wrong = []
    for cell in page.columns("what a task says"):
        for span in spans(cell):
            pattern = re.sub(r"'\w+'|\b[A-Z]{3,}\b", ".{1,40}", re.escape(span))
            if not re.search(pattern, code):
                wrong.append(f"{span}: nothing says so")
    return wrong


CHECKS = (wrong_commands, wrong_options, wrong_files, wrong_links, wrong_fixtures, wrong_markers,
          wrong_methods, wrong_variables, wrong_python, wrong_kernels, wrong_kinds,
          wrong_messages)  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_the_pages_name_exists(
    check: Callable[[Page, Known], list[str]], known: Known
) -> None:
    """Each sentence of what a check returns has the page's name before it."""
    wrong = [f"{name}: {what}" for name, page in known.pages.items() for what in check(page, known)]
    assert wrong == []


# -- what holds for all pages together ---------------------------------------------


def words(text: str) -> int:
    """As `wc -w` counts them."""
    return len(text.split())


def test_the_readme_is_short(pages: dict[str, Page]) -> None:
    """A newcomer has a few minutes."""
    assert words(pages[README].text) <= README_WORDS


def test_the_readme_leads_to_every_page(pages: dict[str, Page]) -> None:
    """A page that nobody finds is read by nobody."""
    assert set(pages) - {README} <= set(pages[README].links)


def repeated(pages: Mapping[str, Page]) -> list[str]:
    """Sentences of eight words or more that stand in two places."""
    seen: dict[str, str] = {}
    wrong = []
    for name, page in pages.items():
        for paragraph in re.split(r"\n\s*\n|\n(?=[|-])", page.prose):
            for sentence in re.split(r"(?<=[.:?])\s+", " ".join(paragraph.split())):
                if words(sentence) >= 8 and sentence in seen:
                    wrong.append(f"{seen[sentence]} and {name}: {sentence}")
                seen[sentence] = name
    return wrong


def test_nothing_is_said_twice(pages: dict[str, Page]) -> None:
    """Of two places that say the same, one is forgotten when it changes; not where it is made."""
    by_hand = {name: page for name, page in pages.items() if name != "docs/reference.md"}
    assert repeated(by_hand) == []


def test_every_task_has_a_row(known: Known) -> None:
    """The page of the tasks lists all of them."""
    listed = {span for cell in known.pages["docs/tasks.md"].columns("task") for span in spans(cell)}
    assert listed == set(known.tasks)


def test_every_option_is_explained(known: Known, request: pytest.FixtureRequest) -> None:
    """Those of the tasks, and those that the plugin gives pytest."""
    named = {
        span.split()[0] for page in known.pages.values() for span in page.spans if span[:2] == "--"
    }
    options = {
        flag for task in known.tasks.values() for flag in task.flags if flag.startswith("--")
    }

    inis: set[str] = set()

    class Recorder:
        """Stands for pytest's parser and for a group of its options."""

        def getgroup(self, *_: str) -> Recorder:
            return self

        def addoption(self, *names: str, **_: object) -> None:
            options.update(name for name in names if name.startswith("--"))

        def addini(self, name: str, *_: object) -> None:
            inis.add(name)

    plugin = request.config.pluginmanager.get_plugin("eudyptula")
    assert plugin is not None
    plugin.pytest_addoption(Recorder())
    assert options - named == set()
    assert inis <= {span for page in known.pages.values() for span in page.spans}


def test_every_marker_has_a_row(known: Known) -> None:
    """But for those of pytest itself and of its other plugins."""
    page = known.pages["docs/writing-tests.md"]
    rows = {name for cell in page.columns("marker") for name in re.findall(r"mark\.(\w+)", cell)}
    assert set(known.markers) - OTHER_MARKERS <= rows


def test_every_verdict_and_kind_has_a_row(pages: dict[str, Page]) -> None:
    """Whoever reads one in a report finds it on the page of the verdicts."""
    page = pages["docs/verdicts.md"]
    verdicts = {span for cell in page.columns("verdict") for span in spans(cell)}
    assert verdicts | {"passed"} == {str(verdict) for verdict in Verdict}
    kinds = {span for cell in page.columns("kinds") for span in spans(cell)}
    assert kinds == {str(kind) for kind in klog.Kind}


def test_every_field_of_a_result_has_a_row(pages: dict[str, Page]) -> None:
    """Whoever reads report.json finds what is in it, and of which form that is."""
    rows = [row for row in pages["docs/verdicts.md"].rows() if "field" in row]
    named = [name for row in rows for name in spans(row["field"])]
    every = [field.name for kind in (KernelResult, Case) for field in dataclasses.fields(kind)]
    assert sorted(named) == sorted(["schema", *every])
    said = {name: row["what it is"] for row in rows for name in spans(row["field"])}
    assert said["schema"].startswith(f"{SCHEMA}.")
    for name, kind in (("cells", Cell), ("excerpts", Excerpt)):
        assert {field.name for field in dataclasses.fields(kind)} <= set(spans(said[name]))


def test_every_exit_status_has_a_row(pages: dict[str, Page]) -> None:
    """Whoever calls a task from a script finds what its status means."""
    listed = list(pages["docs/troubleshooting.md"].columns("status"))
    assert listed == [str(int(status)) for status in errors.Status]


def test_the_example_of_a_kernel_is_one(pages: dict[str, Page], tmp_path: Path) -> None:
    """What the page says to add can be added."""
    (example,) = [block for block in pages["docs/kernels.md"].blocks if block.language == "toml"]
    file = tmp_path / "kernels.toml"
    file.write_text(f"{config.KERNELS_TOML.read_text()}\n{example.text}")
    before, after = config.load(), config.load(file)
    assert len(after.kernels) == len(before.kernels) + 1


# -- the checks see what is wrong --------------------------------------------------

PLANTED = [
    (wrong_commands, "```sh\ninvoke test-wm\n```", "there is no task test-wm"),
    (wrong_commands, "```sh\n./bootstrap test-vm --kernels all\n```", "--kernels"),
    (wrong_commands, "```\nto stand in it: invoke shell --again x\n```", "--again"),
    (wrong_commands, "`invoke pipeline plan --off push`", "--off"),
    (wrong_commands, "`invoke --help tset`", "there is no task tset"),
    (wrong_commands, "`invoke --lits`", "--lits"),
    (wrong_commands, "`pytest FOLDER --modul DIR`", "pytest has no --modul"),
    (wrong_commands, "`python tests/unreliability.py clones`", "there is no tests/unrel"),
    (wrong_commands, "`python tests/reliability.py clone`", "has no clone"),
    (wrong_commands, "```sh\n. venv/bin/activate\n```", "nothing makes venv"),
    (wrong_commands, "```sh\nrsync a b\n```", "does not know the program rsync"),
    (wrong_options, "with `--kernal NAME`", "--kernal"),
    (wrong_options, "| option | task |\n|--|--|\n| `--keep` | `build` |", "build has no such"),
    (wrong_options, "| task |\n|--|\n| `tset` |", "there is no such task"),
    (wrong_files, "see `harness/nothing.py`", "there is no such file"),
    (wrong_files, "see `tasks.py/`", "there is no such file"),
    (wrong_files, "see `nothing.md`", "nothing makes nothing.md"),
    (wrong_files, "see `results/KERNEL/nothing.at.all`", "nothing makes nothing.at.all"),
    (wrong_links, "[x](nothing.md)", "there is no docs/nothing.md"),
    (wrong_links, "[x](../nothing)", "there is no nothing"),
    (wrong_links, "[x](#nothing)", "no such heading"),
    (wrong_links, "[x](kernels.md#nothing)", "no such heading"),
    (wrong_links, "[x](https://example.org)", "cannot be checked"),
    (wrong_fixtures, "| fixture |\n|--|\n| `unloaded` |", "unloaded"),
    (wrong_fixtures, "```python\ndef test_x(client):\n    pass\n```", "client"),
    (wrong_markers, "`@pytest.mark.machin(cpus=2)`", "machin"),
    (wrong_markers, "```python\n@pytest.mark.machine(cpu=2)\n```", "does not take cpu"),
    (wrong_methods, "| method of `Guest` |\n|--|\n| `runs(command)` |", "no such method"),
    (wrong_methods, "| method of `Guest` |\n|--|\n| `run(command, limit=)` |", "no limit"),
    (wrong_methods, "| fixture | what |\n|--|--|\n| x | `.outcome` |", "such an attribute"),
    (wrong_variables, "`EUDYPTULA_" + "CASH=/disk`", "EUDYPTULA_" + "CASH"),
    (wrong_variables, "```sh\nKDRI=/x make\n```", "KDRI"),
    (wrong_python, "```python\ndef x(:\n```", "invalid syntax"),
    (wrong_python, "```python\nfrom harness.nothing import Guest\n```", "No module named"),
    (wrong_python, "```python\nfrom harness.errors import Nothing\n```", "has no Nothing"),
    (wrong_kernels, "```toml\nsuite = sid\n```", "Invalid value"),
    (wrong_kinds, '`expect_splat("alarm")`', "alarm"),
    (wrong_kinds, "| kinds |\n|--|\n| `alarm` |", "alarm"),
    (wrong_messages, "| what a task says |\n|--|\n| `no space " + "is left` |", "nothing says so"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "text", "expected"), PLANTED)
def test_a_planted_error_is_seen(
    check: Callable[[Page, Known], list[str]], text: str, expected: str, known: Known
) -> None:
    """One error on a page is one sentence, which names it."""
    (found,) = check(Page("docs/planted.md", text), known)
    assert expected in found


def test_a_line_of_the_shell_has_several_commands() -> None:
    """A command for the guest is one word of them, whatever is in it."""
    assert commands_in("cd x && invoke shell -- 'a; b && c' | git y; make  # z | z") == [
        ["cd", "x"], ["invoke", "shell", "--", "a; b && c"], ["git", "y"], ["make"],
    ]  # fmt: skip


def test_words_are_counted_as_wc_does() -> None:
    """Marks and code count as well."""
    assert words("# A *word*\n\n```sh\ninvoke test-vm\n```\n") == 7


def test_a_sentence_on_two_pages_is_seen() -> None:
    """It may be broken into lines in another way."""
    text = "This sentence has at least eight words in it."
    pages = {"a": Page("a", text), "b": Page("b", f"But: no.\n\n{text.replace(' at', chr(10))}")}
    assert repeated(pages) == []
    pages["b"] = Page("b", f"No.\n\n{text.replace(' at ', f'{chr(10)}at ')}")
    assert repeated(pages) == [f"a and b: {text}"]


def test_headings_of_the_same_name_have_numbers() -> None:
    """As GitHub makes them: lower case, no marks, a dash for each space."""
    page = Page("x", "# A `b`, c!\n## X\n## X\n```sh\n# no heading\n```\n")
    assert page.anchors == {"a-b-c", "x", "x-1"}
