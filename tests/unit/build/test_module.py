# SPDX-License-Identifier: GPL-2.0-only
"""harness/build/module.py: what is run in a module's folder, and what comes out."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness import config
from harness.build import module, package, requirements
from harness.build import source as source_
from harness.build.kernel import Kernel
from harness.build.module import INSIDE, Module, ModuleObject
from harness.build.requirements import KernelModules
from harness.build.source import Source
from harness.config import KernelSpec
from harness.errors import BuildError, DeadlineError, GoneError, InputError, SandboxError
from harness.host import debian, sandbox
from harness.host.cache import Cache, Entry, digest_of_files
from harness.host.debian import Sysroot
from harness.host.proc import Completed

MODULES = ("virtio", "virtio_ring", "crc32", "snd_pcm")  # that the kernel has
MODINFO = f"""\
filename:       {INSIDE}/wee-one.ko
description:    a module: with a colon
author:         First
author:         Second
license:        GPL
depends:        virtio,virtio_ring
name:           wee_one
vermagic:       6.12.9+deb13-cloud-amd64 SMP preempt mod_unload modversions
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A module's folder."""
    folder = tmp_path / "wee"
    folder.mkdir()
    (folder / "Kbuild").write_text("obj-m += wee-one.o\n")
    (folder / "wee-one.c").write_text("/* nothing */\n")
    return folder


# -- the compiler's words ----------------------------------------------------------

LOG = f"""\
make: Entering directory '/usr/src/linux-headers-6.12.9'
warning: the compiler differs from the one used to build the kernel
  The kernel was built by: x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0
  CC [M]  {INSIDE}/wee.o
{INSIDE}/wee.c: In function 'wee_init':
{INSIDE}/wee.c:12:13: warning: unused variable 'x' [-Wunused-variable]
   12 |         int x;
{INSIDE}/wee.c:20:5: warning: unused variable 'y' [-Wunused-variable]
{INSIDE}/wee.c:30:9: warning: incorrect type in argument 1 (different address spaces)
{INSIDE}/wee.o: warning: objtool: wee_write+0x12: call to memcpy with UACCESS enabled
  MODPOST {INSIDE}/Module.symvers
WARNING: modpost: missing MODULE_DESCRIPTION() in {INSIDE}/wee.o
WARNING: Symbol version dump "Module.symvers" is missing.
  LD [M]  {INSIDE}/wee.ko
  BTF [M] {INSIDE}/wee.ko
Skipping BTF generation for {INSIDE}/wee.ko due to unavailability of vmlinux
"""


def test_the_warnings_of_every_tool_are_found() -> None:
    """gcc, clang, sparse, objtool and modpost; nothing else, and no paths of the sandbox."""
    assert module.warnings_in(LOG) == [
        "wee.c:12:13: warning: unused variable 'x' [-Wunused-variable]",
        "wee.c:20:5: warning: unused variable 'y' [-Wunused-variable]",
        "wee.c:30:9: warning: incorrect type in argument 1 (different address spaces)",
        "wee.o: warning: objtool: wee_write+0x12: call to memcpy with UACCESS enabled",
        "WARNING: modpost: missing MODULE_DESCRIPTION() in wee.o",
        'WARNING: Symbol version dump "Module.symvers" is missing.',
    ]


def test_a_quiet_build_has_no_warnings() -> None:
    """Words that only look like it are none: a file's name, the compiler's full name."""
    quiet = f"""\
  CC [M]  {INSIDE}/warning.o
warning: the compiler differs from the one used to build the kernel
"""
    assert module.warnings_in(quiet) == []


# -- building, with somebody else in the compiler's place --------------------------


@dataclass
class Compiler:
    """Stands for kbuild and modinfo in the sandbox; remembers what it was asked."""

    makes: list[list[str]] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)  # the folder that make saw
    modules: tuple[str, ...] = ("wee-one.ko",)
    says: str = ""
    modinfo: str = MODINFO
    fails: bool = False
    leaves: Callable[[Path], object] | None = None  # makes the module's file, if it is not one

    def run(self, _: object, argv: Sequence[str], **options: object) -> Completed:
        if "modinfo" in " ".join(argv):
            return Completed(tuple(argv), 0, self.modinfo, "")
        self.makes.append(list(argv))
        self.options = options
        folder = cast(dict[str, Path], options["writable"])[INSIDE]
        self.found = {
            path.relative_to(folder).as_posix(): path.read_text()
            for path in folder.rglob("*") if path.is_file()
        }  # fmt: skip
        cast(Path, options["log"]).write_text(self.says)
        if self.fails:
            return Completed(tuple(argv), 2, self.says, "")
        for name in self.modules:
            if self.leaves is not None:
                self.leaves(folder / name)
            else:
                (folder / name).write_bytes(b"\x7fELF")
        return Completed(tuple(argv), 0, "", "")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compiler:
    """Takes the sandbox's place."""
    made = Compiler()
    monkeypatch.setattr(config, "BUILD", tmp_path / "logs")
    monkeypatch.setattr(sandbox, "run", made.run)
    known = KernelModules({name: (f"{name}.ko",) for name in MODULES}, frozenset())
    monkeypatch.setattr(requirements, "modules_of", lambda *_: known)
    monkeypatch.setattr(requirements, "archive", lambda *_: (tmp_path / "files.cpio", "f" * 16))
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """A cache of this test's own."""
    with closing(Cache(tmp_path / "cache")) as made:
        yield made


def a_kernel(digest: str = "0" * 16) -> Kernel:
    """As much of a kernel as building asks for."""
    nowhere = Path("/nowhere")
    return Kernel(
        KernelSpec("wee", "trixie", ""), "6.12.9", nowhere, nowhere, nowhere, nowhere,
        "/usr/src/linux-headers-6.12.9", Sysroot(Path("/"), Entry("sysroot", "", digest, nowhere)),
    )  # fmt: skip


def test_a_built_module_says_what_modinfo_says(
    compiler: Compiler, cache: Cache, source: Path
) -> None:
    """Name as lsmod has it, vermagic and dependencies; the file stays in the cache."""
    compiler.says = LOG
    built = module.build(a_kernel(), source, cache)
    assert built.name == "wee_one"
    assert built.ko.read_bytes() == b"\x7fELF"
    assert built.vermagic == "6.12.9+deb13-cloud-amd64 SMP preempt mod_unload modversions"
    assert built.depends == built.needs == ("virtio", "virtio_ring")
    assert built.files is not None
    assert list(built.warnings) == module.warnings_in(LOG)


def test_only_kbuild_is_run_on_a_copy(compiler: Compiler, cache: Cache, source: Path) -> None:
    """make runs in the kernel's folder with the target ``modules``, never in the module's."""
    (source / "Makefile").write_text("modules:\n\trm -rf /\n")
    (source / "old.o").write_text("stale")
    (source / "wee-one.ko").write_text("stale")
    module.build(a_kernel(), source, cache)
    (command,) = compiler.makes
    assert command[0] == "make"
    assert command[command.index("-C") + 1] == "/usr/src/linux-headers-6.12.9"
    assert f"M={INSIDE}" in command
    assert command[-1] == "modules"
    writable = cast(dict[str, Path], compiler.options["writable"])
    assert list(writable) == [INSIDE]
    assert writable[INSIDE] != source
    assert "wee-one.c" in compiler.found
    assert not {"old.o", "wee-one.ko"} & set(compiler.found)


STRICT = {"W=1", "KCFLAGS=-Werror"}
SPARSE = {"C=2", "CF=-Wsparse-error"}


@pytest.mark.parametrize(
    ("asked", "options"),
    [({}, set()), ({"strict": True}, STRICT), ({"strict": True, "sparse": True}, STRICT | SPARSE)],
)
def test_strictness_is_asked_for(
    compiler: Compiler, cache: Cache, source: Path, asked: dict[str, bool], options: set[str]
) -> None:
    """Warnings are errors for our own module, and only shown for others."""
    module.build(a_kernel(), source, cache, **asked)
    assert set(compiler.makes[0]) & (STRICT | SPARSE) == options


def test_w1_shows_what_is_not_warned_of_otherwise(
    compiler: Compiler, cache: Cache, source: Path
) -> None:
    """Only what comes with W=1, and nothing where the module does not build so."""
    usual, more = "wee.c:1:1: warning: usual", "wee.c:2:1: warning: unused"
    compiler.says = usual
    built = module.build(a_kernel(), source, cache)
    compiler.says = f"{usual}\n{more}"
    assert module.hints(built, cache) == (more,)
    assert [set(command) & STRICT for command in compiler.makes] == [set(), {"W=1"}]
    (source / "wee-one.c").write_text("int changed;\n")
    built = module.build(a_kernel(), source, cache)
    compiler.fails = True  # such as by a Makefile's own -Werror
    assert module.hints(built, cache) == ()


STYLE = (
    "wee.c:3:5: warning: no previous prototype for 'wee' [-Wmissing-prototypes]",
    "wee.c:4:2: warning: ISO C90 forbids mixed declarations [-Wdeclaration-after-statement]",
    "wee.o: warning: objtool: init_module(): not an indirect call target",
    "wee.o: warning: objtool: wee_decode+0x10d: sibling call from callable instruction with "
    "modified stack frame",
)


def test_what_only_some_kernels_warn_of_is_style(
    compiler: Compiler, cache: Cache, source: Path
) -> None:
    """It is a hint on each, also where W=1 does not build; other warnings are serious."""
    serious = "wee.c:1:1: warning: 'x' is used uninitialized [-Wuninitialized]"
    compiler.says = "\n".join([STYLE[0], serious, *STYLE[1:]])
    built = module.build(a_kernel(), source, cache)
    assert built.serious_warnings == (serious,)
    assert module.hints(built, cache) == STYLE
    (source / "wee-one.c").write_text("int changed;\n")
    built = module.build(a_kernel(), source, cache)
    compiler.fails = True
    assert module.hints(built, cache) == STYLE


def test_a_module_is_built_again_when_something_changed(
    compiler: Compiler, cache: Cache, source: Path
) -> None:
    """Kernel, source and options are the key; the same again is not built."""
    module.build(a_kernel(), source, cache)
    module.build(a_kernel(), source, cache)
    assert len(compiler.makes) == 1
    module.build(a_kernel("1" * 16), source, cache)
    assert len(compiler.makes) == 2
    module.build(a_kernel(), source, cache, strict=True)
    assert len(compiler.makes) == 3
    (source / "wee-one.c").write_text("/* something */\n")
    module.build(a_kernel(), source, cache)
    assert len(compiler.makes) == 4


def test_what_is_built_already_starts_no_program(
    compiler: Compiler, cache: Cache, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a build may leave is removed by programs; a mere copy needs none to go."""
    first = module.build(a_kernel(), source, cache)
    monkeypatch.delattr(sandbox, "remove")
    assert module.build(a_kernel(), source, cache) == first
    assert len(compiler.makes) == 1
    assert list((cache.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_change_behind_a_link_is_built_too(
    compiler: Compiler, cache: Cache, source: Path, tmp_path: Path, linked: str
) -> None:
    """What make is given includes what links lead to, so the key must as well."""
    (tmp_path / ".git").mkdir()
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "common.h").write_text("#define WEE 1\n")
    if linked == "file":
        (source / "common.h").symlink_to(shared / "common.h")
    else:
        (source / "include").symlink_to(shared)
    module.build(a_kernel(), source, cache)
    (shared / "common.h").write_text("#define WEE 2\n")
    module.build(a_kernel(), source, cache)
    assert len(compiler.makes) == 2


def test_the_compiler_sees_what_relative_links_lead_to(
    compiler: Compiler, cache: Cache, source: Path, tmp_path: Path
) -> None:
    """Relative to where the link is, not to where the harness was started."""
    (tmp_path / ".git").touch()  # as in a worktree of git's
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "common.h").write_text("#define WEE 1\n")
    (source / "common.h").symlink_to("../shared/common.h")
    (source / "include").symlink_to("../shared")
    module.build(a_kernel(), source, cache)
    for name in ("common.h", "include/common.h"):
        assert compiler.found[name] == "#define WEE 1\n"


def test_a_link_hands_nothing_of_the_hosts_to_a_build(
    compiler: Compiler, cache: Cache, source: Path, tmp_path: Path
) -> None:
    """Neither a key out of a home, nor what git has stored; and it is said."""
    (tmp_path / "key").write_text("secret")
    (source / "notes").symlink_to(tmp_path / "key")
    (source / "own").symlink_to("wee-one.c")
    built = module.build(a_kernel(), source, cache)
    assert set(compiler.found) == {"Kbuild", "wee-one.c", "own"}
    assert built.how.startswith("by Kbuild; left out: notes, as links to what is neither")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("secret")
    (source / "config").symlink_to("../.git/config")
    compiler.fails = True
    with pytest.raises(BuildError, match="left out: config, as"):
        module.build(a_kernel(), source, cache)
    assert "notes" in compiler.found
    assert "config" not in compiler.found


def test_who_has_a_home_under_git_hands_out_none_of_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no checkout of the module's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".git").mkdir()
    (tmp_path / "key").write_text("secret")
    (source / "notes").symlink_to("../key")
    assert source / "notes" not in source_.inspect(source).files


def test_what_is_no_file_is_left_out(compiler: Compiler, cache: Cache, source: Path) -> None:
    """Links to nothing, to themselves (editors lock files so), and what programs talk through."""
    (source / ".#wee-one.c").symlink_to("somebody@somewhere.1234")
    (source / "itself").symlink_to("itself")
    os.mkfifo(source / "pipe")
    module.build(a_kernel(), source, cache)
    assert set(compiler.found) == {"Kbuild", "wee-one.c"}


def test_what_is_not_copied_does_not_build_again(
    compiler: Compiler, cache: Cache, source: Path
) -> None:
    """A commit, or an object of a build in the folder itself."""
    (source / ".git").mkdir()
    for _ in range(2):
        with (source / ".git" / "HEAD").open("a") as head, (source / "wee.o").open("a") as made:
            head.write("moved\n")
            made.write("other\n")
        module.build(a_kernel(), source, cache)
    assert len(compiler.makes) == 1
    assert set(compiler.found) == {"Kbuild", "wee-one.c"}


def test_a_module_that_does_not_compile_shows_the_compilers_words(
    compiler: Compiler, cache: Cache, source: Path
) -> None:
    """The first complaints and the end, with the paths as the author knows them."""
    words = [f"{INSIDE}/wee-one.c:{line}:1: error: expected ';'" for line in range(100)]
    compiler.says, compiler.fails = "\n".join(words), True
    with pytest.raises(BuildError) as caught:
        module.build(a_kernel(), source, cache)
    assert "wee" in caught.value.what
    assert "6.12.9" in caught.value.what
    for line in (0, 99):
        assert f"wee-one.c:{line}:1: error: expected ';'" in caught.value.tail
    assert INSIDE not in str(caught.value)
    assert cache.stored() == []


def test_a_long_log_is_kept_and_not_shown(compiler: Compiler, cache: Cache, source: Path) -> None:
    """An error has the lines that say why; all others are in the file that it names, harmless."""
    noise = "\n".join(f"  CC [M]  file{number}.o\x1b[2J" for number in range(50_000))
    complaint = f"{INSIDE}/wee-one.c:7:1: error: no \x1b[31mcolours"
    compiler.says, compiler.fails = f"{noise}\n{complaint}\n{noise}\nmake: *** Error 2", True
    with pytest.raises(BuildError) as caught:
        module.build(a_kernel(), source, cache)
    shown = str(caught.value)
    assert len(shown) < 5000
    assert "\x1b" not in shown
    assert "wee-one.c:7:1: error: no \\x1b[31mcolours" in shown
    assert shown.index("error: no") < shown.index("make: *** Error 2")
    assert caught.value.log is not None
    kept = caught.value.log.read_text()
    assert kept.count("file49999.o\\x1b[2J") == 2
    assert "\x1b" not in kept


def test_a_warning_is_harmless(compiler: Compiler, cache: Cache, source: Path) -> None:
    """It is printed where people look, as it may be by a Kbuild's $(info ...)."""
    compiler.says = "wee.c:1:1: warning: \x1b]0;title\x07" + "x" * 100_000
    (warning,) = module.build(a_kernel(), source, cache).warnings
    assert warning.startswith("wee.c:1:1: warning: \\x1b]0;title\\x07xxx")
    assert len(warning) < 2000


@pytest.mark.parametrize(
    ("leaves", "named"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "is a link"),
        (lambda path: path.symlink_to("/dev/zero"), "is a link"),
        (os.mkfifo, "is a named pipe"),
        (os.mkdir, "is a folder"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 40), "more than"),
    ],
    ids=["file-of-the-host", "endless-file", "pipe", "folder", "huge"],
)
def test_what_is_no_module_is_not_taken(
    compiler: Compiler, cache: Cache, source: Path,
    leaves: Callable[[Path], object], named: str,
) -> None:  # fmt: skip
    """A build can leave anything under the name of its module."""
    compiler.leaves = leaves
    with pytest.raises(BuildError, match=rf"wee/ leaves no module .*wee-one\.ko .*{named}"):
        module.build(a_kernel(), source, cache)


def test_a_module_has_a_modules_name(compiler: Compiler, cache: Cache, source: Path) -> None:
    """It becomes a part of commands and messages."""
    compiler.modules = ("$(reboot)\x1b.ko",)
    with pytest.raises(InputError, match="which is no name for a module"):
        module.build(a_kernel(), source, cache)


def test_a_build_without_a_module_is_told_so(
    compiler: Compiler, cache: Cache, source: Path
) -> None:
    """Such as a Makefile whose obj-m is for other kernels only."""
    compiler.modules = ()
    with pytest.raises(InputError, match="builds no module") as caught:
        module.build(a_kernel(), source, cache)
    assert "obj-m" in caught.value.hint


# -- several modules ---------------------------------------------------------------


def an_object(name: str, *depends: str, before: tuple[str, ...] = ()) -> ModuleObject:
    """A .ko file that depends on others."""
    return ModuleObject(name, Path(f"{name}.ko"), Path(f"{name}.ko"), "", depends, before)


def test_modules_are_in_the_order_in_which_they_can_be_loaded() -> None:
    """Each after those that it depends on, softly too; what the kernel has does not matter.

    Else they stay in the order in which their author has them.
    """
    objects = [
        an_object("a", "z", "videodev"),
        an_object("b"),
        an_object("m", before=("x", "crc32")),
        an_object("x", "a"),
        an_object("z"),
        an_object("c"),
    ]
    assert [one.name for one in module.in_order(objects)] == ["z", "a", "b", "x", "m", "c"]


def test_modules_come_in_the_order_of_obj_m(
    compiler: Compiler, cache: Cache, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kbuild says it; what it says nothing of comes last."""
    compiler.modules = ("a-test.ko", "z.ko", "b.ko", "other.ko")
    compiler.leaves = lambda path: (
        path.write_bytes(b"\x7fELF"),
        path.with_name("modules.order").write_text(f"{INSIDE}/z.o\n{INSIDE}/b.o\na-test.ko\n"),
    )
    asked: list[Sequence[str]] = []
    run = compiler.run

    def remembers(tree: object, argv: Sequence[str], **options: object) -> Completed:
        asked.append(argv)
        return run(tree, argv, **options)

    monkeypatch.setattr(sandbox, "run", remembers)
    module.build(a_kernel(), source, cache)
    assert asked[-1][-4:] == ["./z.ko", "./b.ko", "./a-test.ko", "./other.ko"]


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ((an_object("a", "b"), an_object("b", "a")), "need each other"),
        ((an_object("a"), an_object("a")), "two of the modules are named a"),
    ],
    ids=["circle", "same-name"],
)
def test_modules_that_cannot_be_loaded_together_are_told_so(
    objects: tuple[ModuleObject, ...], words: str
) -> None:
    """As a sentence with their names."""
    with pytest.raises(InputError, match=words):
        module.in_order(objects)


TWO = f"""\
filename:       {INSIDE}/./wee-one.ko
license:        GPL
softdep:        pre: crc32 snd-pcm post: later
depends:        wee_two
name:           wee_one
parm:           act:what to do (int)
parm:           leave:charp
filename:       {INSIDE}/./wee-two.ko
depends:
name:           wee_two
"""


def test_several_modules_are_one_build(compiler: Compiler, cache: Cache, source: Path) -> None:
    """What is meant where only one can be is the one that is loaded last."""
    compiler.modules, compiler.modinfo = ("wee-one.ko", "wee-two.ko"), TWO
    built = module.build(a_kernel(), source, cache)
    assert [one.name for one in built.objects] == ["wee_two", "wee_one"]
    assert built.name == "wee_one"
    assert built.main.before == ("crc32", "snd_pcm")
    assert built.main.parameters == ("act", "leave")
    assert built.needs == ("crc32", "snd_pcm")
    assert built.objects[0].ko.read_bytes() == b"\x7fELF"


def test_only_what_is_wanted_is_taken_and_set(
    compiler: Compiler, cache: Cache, source: Path
) -> None:
    """With what it needs of the others. Another choice is another module to make templates of."""
    compiler.modules, compiler.modinfo = ("wee-one.ko", "wee-two.ko"), TWO

    def built(**wanted: Any) -> Module:
        return module.build(a_kernel(), Source(source, **wanted), cache)

    everything = built()
    one, two = built(only=("wee_one",)), built(only=("wee_two",))
    assert [each.name for each in one.objects] == ["wee_two", "wee_one"]
    assert [each.name for each in two.objects] == ["wee_two"]
    assert two.needs == ()
    set_ = built(params=("act=7", "wee-one.leave=a b"))
    assert set_.main.arguments == ("act=7", 'leave="a b"')
    assert set_.objects[0].arguments == ()
    assert len({each.digest for each in (everything, two, set_)}) == 3
    assert len(compiler.makes) == 1


@pytest.mark.parametrize(
    ("wanted", "words", "hint"),
    [
        (Source(Path(), only=("other",)), "no module named other", "wee_one, wee_two"),
        (Source(Path(), params=("nothing=1",)), "no module has the parameter", "wee_one.act"),
        (Source(Path(), params=("wee_two.act=1",)), "no module has the parameter", "wee_one.act"),
    ],
    ids=["ko", "param", "of-another"],
)
def test_what_is_not_there_cannot_be_wanted(
    compiler: Compiler, cache: Cache, source: Path, wanted: Source, words: str, hint: str
) -> None:
    """The hint names what there is."""
    compiler.modules, compiler.modinfo = ("wee-one.ko", "wee-two.ko"), TWO
    with pytest.raises(InputError, match=words) as caught:
        module.build(a_kernel(), replace(wanted, path=source), cache)
    assert hint in caught.value.hint


def test_a_module_that_needs_what_is_not_there_is_told_so(
    compiler: Compiler, cache: Cache, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the kernel nor the folder has it."""
    nothing = KernelModules({}, frozenset({"virtio"}))
    monkeypatch.setattr(requirements, "modules_of", lambda *_: nothing)
    with pytest.raises(InputError, match="wee_one needs the module virtio_ring, which kernel wee"):
        module.build(a_kernel(), source, cache)


# -- what uses the host up, in a sandbox for real ----------------------------------


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("while :; do :; done", "did not end within 2 s"),
        ("while :; do :; done", "more than 1 s of processor time in one process"),
        (f"cat /dev/zero >{INSIDE}/file", "more than 16 MiB of disk"),
        ("while :; do sleep 1000 & done", "more than 60 processes"),
        ("cat /dev/zero >/tmp/x; exit 2", "does not build"),
    ],
    ids=["time", "processor", "disk", "processes", "scratch"],
)
def test_a_folder_that_uses_the_host_up_is_told_so(
    cache: Cache, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    script: str, named: str,
) -> None:  # fmt: skip
    """With the bound, and the end of the log, which is still there."""
    run = sandbox.run

    def make(tree: Path, _: Sequence[str], **options: Any) -> Completed:
        """What a Kbuild's $(shell ...) does; not every host has a make."""
        return run(tree, ["sh", "-c", f"echo before; {script}"], **options)

    monkeypatch.setattr(sandbox, "run", make)
    monkeypatch.setattr(config, "BUILD", tmp_path / "logs")
    monkeypatch.setattr(module, "BUILD_SECONDS", 2.0 if "within" in named else 60.0)
    small = replace(sandbox.MODULE, processes=60, disk=16 << 20, scratch=1 << 20)
    small = replace(small, busy_alone=1.0) if "processor" in named else small
    monkeypatch.setattr(sandbox, "MODULE", small)
    tree = Sysroot(Path("/"), Entry("sysroot", "host", "0" * 16, tmp_path))
    with pytest.raises(BuildError, match=named) as caught:
        module.build(replace(a_kernel(), sysroot=tree), source, cache)
    assert "wee/" in caught.value.what
    assert "for kernel wee (6.12.9)" in caught.value.what
    assert "before" in caught.value.tail
    assert "bound" in caught.value.hint
    assert caught.value.log is not None
    assert "before" in caught.value.log.read_text()
    assert list((cache.root / "tmp").iterdir()) == []


NO_RULE = "make[2]: *** No rule to make target '{}', needed by ''.  Stop.\n"


@pytest.mark.parametrize(
    ("c_file", "says", "hint"),
    [
        ("wee.c", NO_RULE.format("hello.o"), "names hello.o, which has no C file; there are wee.c"),
        ("a wee.c", NO_RULE.format("wee.o"), "there are a wee.c; make takes no blank in a name"),
        ("wee.c", "get.sh: 2: wget: not found\n", "a build has no network"),
        ("wee.c", "curl: (6) Could not resolve host: example.org\n", "a build has no network"),
        ("wee.c", "wee.c:3:1: error: expected ';'\nsh: 1: git: not found\n", ""),
    ],
    ids=["name", "blank", "program", "address", "compiler"],
)
def test_a_build_that_fails_says_what_to_do(
    compiler: Compiler, cache: Cache, tmp_path: Path, c_file: str, says: str, hint: str
) -> None:
    """Where make's words or a script's do not; the compiler's do."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "Makefile").write_text("obj-m := hello.o\n")
    (folder / c_file).write_text("/* nothing */\n")
    compiler.fails, compiler.says = True, says
    with pytest.raises(BuildError) as caught:
        module.build(a_kernel(), folder, cache)
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


# -- while somebody edits ----------------------------------------------------------


def test_a_module_is_known_by_what_was_compiled(
    compiler: Compiler, cache: Cache, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is edited while it is built must not be kept under the name of what was there."""
    before = (source / "wee-one.c").read_text()

    def and_then_somebody_saves(root: Path, files: Iterable[Path]) -> str:
        digest = digest_of_files(root, files)
        (source / "wee-one.c").write_text("/* edited */\n")
        return digest

    monkeypatch.setattr(module, "digest_of_files", and_then_somebody_saves)
    module.build(a_kernel(), source, cache)
    assert compiler.found["wee-one.c"] == before


# -- a Debian package that its own tools build -------------------------------------


@dataclass
class Dkms:
    """Stands for dkms in the sandbox: it builds where ``needs`` is in the tree.

    Where it is not, it ``says`` so, or ``fails`` before it comes to an end.
    """

    needs: str
    says: str = "there is no tool\n"
    fails: Exception | None = None
    trees: list[Path] = field(default_factory=list)  # in which it was run
    saw: list[list[str]] = field(default_factory=list)  # the sources each time

    def run(self, tree: Path, argv: Sequence[str], **options: object) -> Completed:
        if "modinfo" in " ".join(argv):
            return Completed(tuple(argv), 0, MODINFO, "")
        mounts = {**cast(dict[str, Path], options["read_only"])}
        mounts |= cast(dict[str, Path], options["writable"])
        work = mounts[INSIDE]
        said = "\nwee\n1\n\nwee-one\n"
        if "build" in argv:
            self.trees.append(tree)
            self.saw.append(sorted(path.name for path in (work / "sources/wee-1").iterdir()))
            (work / "sources/wee-1/left-by-it").touch()
            said = f"{INSIDE}/tree/wee/1/build/wee.c:3:1: warning: odd [-Wodd]\n"
            if not (tree / self.needs).exists():
                cast(Path, options["log"]).write_text(self.says)
                if self.fails is not None:
                    raise self.fails
                return Completed(tuple(argv), 10, "", "")
            place = work / "tree/wee/1/6.12.9/x86_64/module"
            place.mkdir(parents=True)
            (place / "wee-one.ko").write_bytes(b"\x7fELF")
        cast(Path, options["log"]).write_text(said)
        return Completed(tuple(argv), 0, said, "")


@pytest.fixture
def packaged(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Dkms]:
    """Makes a package with a dkms.conf; a tree with all that it depends on has ``bin/tool``."""

    def make(needs: str) -> Dkms:
        root = tmp_path / "package"
        sources = root / "usr/src/wee-1"
        sources.mkdir(parents=True)
        (sources / "dkms.conf").write_text("PACKAGE_NAME=wee\nPACKAGE_VERSION=1\n")
        (sources / "wee.c").write_text("module_init(wee);\n")
        its = package.Package("wee-dkms", "1-2", "trixie", root)
        monkeypatch.setattr(package, "unpacked", lambda *_: its)
        (tmp_path / "more/bin").mkdir(parents=True)
        (tmp_path / "more/bin/tool").touch()

        def with_more(tree: Sysroot, *_: object, more: Sequence[str], **__: object) -> Sysroot:
            assert more[0] == "wee-dkms=1-2"
            return replace(tree, root=tmp_path / "more")

        monkeypatch.setattr(debian, "with_more", with_more)
        dkms = Dkms(needs)
        monkeypatch.setattr(sandbox, "run", dkms.run)
        return dkms

    return make


def a_kernel_of_trixie() -> Kernel:
    kernel = a_kernel()
    return replace(kernel, sysroot=replace(kernel.sysroot, root=Path("/nowhere"), suite="trixie"))


def test_what_a_package_depends_on_is_there_where_its_build_wants_it(
    packaged: Callable[[str], Dkms], cache: Cache, tmp_path: Path
) -> None:
    """The second build begins with the sources as they were."""
    dkms = packaged("bin/tool")
    built = module.build(a_kernel_of_trixie(), source_.parse("deb:wee-dkms"), cache)
    assert built.name == "wee_one"
    assert dkms.trees == [Path("/nowhere"), tmp_path / "more"]
    assert dkms.saw[0] == dkms.saw[1]
    assert built.warnings == ("wee.c:3:1: warning: odd [-Wodd]",)


@pytest.mark.parametrize("folder_name", ["iptables-wee", "iptables-wee-dkms"])
def test_a_folder_may_be_named_after_the_package_it_is_a_copy_of(
    packaged: Callable[[str], Dkms], cache: Cache, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, folder_name: str,
) -> None:  # fmt: skip
    """Where there is none by the name in its dkms.conf, as for ipt-netflow."""
    dkms = packaged("bin/tool")
    its = package.unpacked("", "", cache)

    def unpacked(name: str, *_: object) -> package.Package:
        if name == "wee-dkms":
            raise GoneError(f"no package {name}")
        assert name in ("iptables-wee-dkms", "dkms", "patch")
        return its

    monkeypatch.setattr(package, "unpacked", unpacked)
    folder = tmp_path / folder_name
    (tmp_path / "package/usr/src/wee-1").rename(folder)
    assert module.build(a_kernel_of_trixie(), folder, cache).name == "wee_one"
    assert dkms.trees == [Path("/nowhere"), tmp_path / "more"]


def test_what_a_folder_needs_is_that_of_the_package_it_is_a_copy_of(
    packaged: Callable[[str], Dkms], cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name in its dkms.conf. Where Debian has no such package, its build fails as it did."""
    dkms = packaged("bin/tool")
    asked: list[str] = []
    its = package.unpacked("", "", cache)

    def unpacked(name: str, *_: object) -> package.Package:
        asked.append(name)
        return its

    monkeypatch.setattr(package, "unpacked", unpacked)
    folder = tmp_path / "package/usr/src/wee-1"
    assert module.build(a_kernel_of_trixie(), folder, cache).name == "wee_one"
    assert "wee-dkms" in asked
    assert dkms.trees == [Path("/nowhere"), tmp_path / "more"]

    def gone(name: str, *_: object) -> package.Package:
        if not name.endswith("-dkms"):
            return its
        raise GoneError(f"no package {name}")

    monkeypatch.setattr(package, "unpacked", gone)
    (folder / "wee.c").write_text("module_init(other);\n")
    with pytest.raises(BuildError, match="does not build") as caught:
        module.build(a_kernel_of_trixie(), folder, cache)
    assert "there is no tool" in caught.value.tail


@pytest.mark.parametrize(
    ("suite", "attempts"),
    [pytest.param("", 2, id="its own suite"), pytest.param("/sid", 1, id="another suite")],
)
def test_a_package_that_does_not_build_anyway_is_told_so(
    packaged: Callable[[str], Dkms], cache: Cache, suite: str, attempts: int
) -> None:
    """With its own words."""
    dkms = packaged("bin/another")
    with pytest.raises(BuildError, match="does not build") as caught:
        module.build(a_kernel_of_trixie(), source_.parse(f"deb:wee-dkms{suite}"), cache)
    assert "there is no tool" in caught.value.tail
    assert len(dkms.trees) == attempts


# -- a finished .ko ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "fails", "attempts"),
    [
        ("wee.c:3:1: error: too few arguments to function\n", None, 1),
        ("sh: 1: which: not found\nwee.c:3:1: error: 'ODD' undeclared\n", None, 2),
        ("wee.c:3:10: fatal error: odd.h: No such file or directory\n", None, 2),
        ("configure: there is no kernel\n", None, 2),
        ("wee.c:3:1: warning: odd\n", SandboxError("it was ended", hint="a bound"), 1),
        ("wee.c:3:1: warning: odd\n", DeadlineError("it did not end"), 1),
    ],
    ids=["refused", "no program", "no header", "a script", "a bound", "the clock"],
)
def test_a_build_is_tried_once_more_only_where_something_may_be_missing(
    packaged: Callable[[str], Dkms], cache: Cache, says: str, fails: Exception | None, attempts: int
) -> None:
    """Neither a fault of the source's nor a build without an end becomes another one by that."""
    dkms = packaged("bin/another")
    dkms.says, dkms.fails = says, fails
    with pytest.raises(BuildError):
        module.build(a_kernel_of_trixie(), source_.parse("deb:wee-dkms"), cache)
    assert len(dkms.trees) == attempts


VERMAGIC = "6.12.9+deb13-cloud-amd64 SMP preempt mod_unload modversions"


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that somebody has built, for a kernel that has modules of its own."""
    known = KernelModules({name: (f"{name}.ko",) for name in MODULES}, frozenset(), VERMAGIC)
    monkeypatch.setattr(requirements, "modules_of", lambda *_: known)
    path = tmp_path / "wee-one.ko"
    path.write_bytes(b"\x7fELF...")
    return path


def test_a_finished_module_is_taken_as_it_is(
    compiler: Compiler, cache: Cache, finished: Path
) -> None:
    """Nothing is built; it needs what it needs, packed or not."""
    built = module.build(a_kernel(), finished, cache)
    assert compiler.makes == []
    assert (built.name, built.ko.read_bytes()) == ("wee_one", b"\x7fELF...")
    assert built.needs == ("virtio", "virtio_ring")
    assert "finished .ko" in built.how
    packed = finished.with_name("wee-one.ko.gz")
    packed.write_bytes(gzip.compress(finished.read_bytes()))
    assert module.build(a_kernel(), packed, cache).digest == built.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [("6.12.9+deb13", "6.1.0-9"), ("mod_unload ", ""), (VERMAGIC, "")],
    ids=["release", "options", "none"],
)
def test_a_finished_module_for_another_kernel_is_told_so(
    compiler: Compiler, cache: Cache, finished: Path, old: str, new: str
) -> None:
    """The kernel would say "Invalid module format" and no more."""
    compiler.modinfo = MODINFO.replace(old, new)
    with pytest.raises(InputError, match="was built for another kernel") as caught:
        module.build(a_kernel(), finished, cache)
    assert VERMAGIC in str(caught.value)
    assert "--kernel" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("wee.ko", b"#!/bin/sh\n", "it is no ELF file"),
        ("wee.ko.xz", b"\xfd7zXZ\x00" + bytes(40), "cannot be unpacked"),
        ("wee one.ko", b"\x7fELF", "no name for a module"),
        ("-wee.ko", b"\x7fELF", "no name for a module"),
    ],
)
def test_what_is_no_finished_module_is_told_so(
    compiler: Compiler, cache: Cache, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    """A sentence, before anything of it is run."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        module.build(a_kernel(), tmp_path / name, cache)


def test_another_file_is_no_module(tmp_path: Path) -> None:
    """It is not taken for a folder that is not there."""
    (tmp_path / "wee.c").touch()
    with pytest.raises(InputError, match=r"is no folder and no \.ko file"):
        module.check_source(tmp_path / "wee.c")
