# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of a module ran: from the instructions that QEMU has counted to the source.

binutils knows which instruction belongs to which line. One line has several, often apart from each
other, and compilers move some to where they run although the line does not. So a line counts as
run if an instruction of its own did that is, or comes shortly after, one where the debug
information says that the line's statement begins (``is_stmt`` in DWARF's line table).
"""

from __future__ import annotations

import bisect
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.build import dkms
from harness.build.module import INSIDE, Module
from harness.examine import linked, placement, symbols
from harness.host import sandbox
from harness.host.debian import Sysroot
from harness.host.proc import Deadline
from harness.qemu import counts
from harness.qemu.counts import Counted
from harness.report.coverage import File, Function, total

_SECONDS = 120.0
_AT_ONCE = 5000  # addresses in one command
_FIRST, _APART = 0x10000000, 0x10000000  # of the sections, in the file that is linked
_SHORTLY = 64  # bytes from where a statement begins to an instruction that is of it
# A row of what `objdump --dwarf=decodedline` prints: a file's name, a line, an address, the number
# of the view where there is one, and an x where a statement begins.
_ROW = re.compile(
    r"^\S.*?[^\S\n]+(\d+)[^\S\n]+0x([0-9a-f]+)(?:[^\S\n]+\d+)?[^\S\n]*(x?)[^\S\n]*$", re.MULTILINE
)
_LINE = re.compile(r"^(.*):(\d+)$")


@dataclass(frozen=True)
class Statement:
    """Code of a line of the source: it ran if the instructions at ``start`` and ``own`` did.

    Both are offsets in the section. The statement begins at ``start``, and ``own`` is its own.
    """

    section: str
    start: int
    own: int
    file: str
    line: int


@dataclass(frozen=True)
class Source:
    """A module's code: its sections, and which statements and functions are where in them."""

    sections: Sequence[placement.CodeSection]
    statements: Sequence[Statement]
    functions: Sequence[symbols.Definition]


def rows_in(table: str) -> tuple[list[int], dict[int, list[int]]]:
    """What ``objdump --dwarf=decodedline`` printed.

    All addresses of its rows, and those where a statement begins by its line, both in order.
    """
    every, starts = set(), dict[int, set[int]]()
    for line, address, begins in _ROW.findall(table):
        every.add(int(address, 16))
        if begins:
            starts.setdefault(int(line), set()).add(int(address, 16))
    return sorted(every), {line: sorted(each) for line, each in starts.items()}


def start_of(own: int, starts: Sequence[int]) -> int | None:
    """Where the statement begins that an instruction is of, if it does shortly before."""
    index = bisect.bisect_right(starts, own) - 1
    return starts[index] if index >= 0 and own - starts[index] < _SHORTLY else None


def source_of(tree: Sysroot, ko: Path) -> Source:
    """The code of a .ko file; ``tree`` has the programs that read it."""
    sections = placement.code_sections(ko.read_bytes())
    bases = {each.name: _FIRST + index * _APART for index, each in enumerate(sections)}
    with TemporaryDirectory(prefix="harness-coverage-") as name:
        folder = Path(name)
        at = {section: hex(address) for section, address in bases.items()}
        one = linked.link(tree.root, ko, at, folder)
        table = _ask(tree, one, "objdump", "--dwarf=decodedline", f"/mnt/in/{one.name}")
        addresses, starts = rows_in(table)
        owners: dict[int, tuple[str, int]] = {}
        for index in range(0, len(addresses), _AT_ONCE):
            some = addresses[index : index + _AT_ONCE]
            said = _ask(tree, one, "addr2line", "--addresses", f"--exe=/mnt/in/{one.name}",
                        *(hex(address) for address in some))  # fmt: skip
            owners |= _owners(said)
    statements = []
    for own, (file, line) in owners.items():
        start = start_of(own, starts.get(line, ()))
        if start is None or file.endswith(".mod.c"):
            continue
        for section in sections:
            base = bases[section.name]
            if base <= start < base + len(section.code):
                statements.append(Statement(section.name, start - base, own - base, file, line))
    return Source(sections, statements, symbols.definitions(tree, ko))


def _ask(tree: Sysroot, file: Path, *command: str) -> str:
    done = sandbox.run(
        tree.root, command, deadline=Deadline(_SECONDS), read_only={"/mnt/in": file.parent}
    )
    return done.stdout


def _owners(said: str) -> dict[int, tuple[str, int]]:
    """The line that each address belongs to, of those in the module's own files."""
    found = {}
    address = 0
    for line in said.splitlines():
        if line.startswith("0x"):
            address = int(line, 16)
            continue
        place = _LINE.match(re.sub(r" \(discriminator \d+\)$", "", line))
        if place and place[1].startswith(f"{INSIDE}/"):
            found[address] = _own(place[1]), int(place[2])
    return found


def _own(path: str) -> str:
    """A path as it is in the module's folder."""
    return posixpath.normpath(dkms.own_paths(path, INSIDE))


def lines(source: Source, ran: Sequence[Counted]) -> dict[str, File]:
    """Which lines and functions of a module are among what ``ran`` in one machine."""
    counted = placement.counts(source.sections, ran)
    files: dict[str, dict[int, int]] = {}
    for each in source.statements:
        its = files.setdefault(each.file, {})
        count = min(
            counted.get((each.section, each.start), 0), counted.get((each.section, each.own), 0)
        )
        its[each.line] = max(its.get(each.line, 0), count)
    functions: dict[str, dict[str, Function]] = {}
    for one in source.functions:
        place = _LINE.match(posixpath.normpath(one.location or ""))
        name, _, part = one.symbol.name.partition(".")
        if not (one.is_function and place and place[1] in files) or "cold" in part:
            continue
        # The kernel finds two by other names as well, and KASAN has some made (_sub_D_...).
        if name in ("init_module", "cleanup_module") or name.startswith(("__pfx_", "_sub_")):
            continue
        calls = counted.get((one.symbol.section, one.symbol.value), 0)
        its_file = functions.setdefault(place[1], {})
        before = its_file[name].calls if name in its_file else 0
        its_file[name] = Function(int(place[2]), before + calls)
    return {name: File(its, functions.get(name, {})) for name, its in files.items()}


def gathered(module: Module, files: Iterable[Path]) -> tuple[dict[str, File], int]:
    """What ran of a module in all machines whose counts are in ``files``.

    Also how many instructions could not be counted. Raises ``HarnessError`` where the module's file
    cannot be read.
    """
    known = {one: source_of(module.kernel.sysroot, one.ko) for one in module.objects}
    nothing = [lines(source, ()) for source in known.values()]
    every, lost = list(nothing), 0
    for file in files:
        ran, missed = counts.read(file)
        lost += missed
        every += [lines(source, ran) for source in known.values()]
    return total(every), lost
