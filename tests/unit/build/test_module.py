# SPDX-License-Identifier: GPL-2.0-only
"""harness/build/module.py: what is a module's folder, what is run in it, and what comes out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness.build import module
from harness.build.kernel import Kernel
from harness.build.module import INSIDE
from harness.config import KernelSpec
from harness.errors import BuildError, InputError
from harness.host import sandbox
from harness.host.cache import Cache, Entry, digest_of_files
from harness.host.debian import Sysroot
from harness.host.proc import Completed

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


# -- what is a module's folder -----------------------------------------------------


def test_a_folder_with_a_kbuild_file_is_right(source: Path) -> None:
    """Nothing but Kbuild is demanded."""
    module.check_source(source)


def test_a_missing_folder_is_named(tmp_path: Path, source: Path) -> None:
    """A folder that is not there, and a file in its place."""
    for path in (tmp_path / "nowhere", source / "wee-one.c"):
        with pytest.raises(InputError, match=str(path)) as caught:
            module.check_source(path)
        assert "Kbuild" not in str(caught.value)


@pytest.mark.parametrize("makefile", [False, True])
def test_a_folder_without_kbuild_is_told_what_it_needs(source: Path, makefile: bool) -> None:
    """The hint shows the line to write; who has a Makefile hears that it is never run."""
    (source / "Kbuild").unlink()
    if makefile:
        (source / "Makefile").write_text("all:\n\trm -rf /\n")
    with pytest.raises(InputError) as caught:
        module.check_source(source)
    assert str(source) in caught.value.what
    assert "obj-m" in caught.value.hint
    assert ("Makefile" in caught.value.hint) is makefile


def test_a_folder_that_is_somebodys_home_is_refused(source: Path) -> None:
    """What holds far more than a module's sources is not copied."""
    with (source / "video").open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(InputError, match=str(source)):
        module.check_source(source)


def test_what_a_link_leads_to_counts_for_the_limit(source: Path, tmp_path: Path) -> None:
    """It is copied, so a link to somebody's home is as bad as the home."""
    home = tmp_path / "home"
    home.mkdir()
    with (home / "video").open("wb") as stream:
        stream.truncate(1 << 30)
    (source / "include").symlink_to(home)
    with pytest.raises(InputError, match="MiB"):
        module.check_source(source)


def test_a_history_is_no_part_of_a_module(source: Path) -> None:
    """A module at the root of a repository with a large one is built all the same."""
    (source / ".git").mkdir()
    with (source / ".git" / "pack").open("wb") as stream:
        stream.truncate(1 << 30)
    module.check_source(source)


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_link_to_a_folder_that_it_is_in_is_refused(source: Path, below: str) -> None:
    """Copied, it would never end; two of them would be 2^40 paths before that is noticed."""
    (source / "sub").mkdir()
    for name in ("one", "two"):
        (source / below / name).symlink_to(source)
    with pytest.raises(InputError, match="one leads back to"):
        module.check_source(source)


def test_folders_that_are_linked_over_and_over_are_too_much(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No link leads back here, and there is not a byte in it, but there are 8^8 paths."""
    monkeypatch.setattr(module, "_MAX_SOURCE", 1 << 20)
    # Not deep: the kernel follows 40 links, and counts some twice where it has to look again.
    for number in range(8):
        (tmp_path / f"{number}").mkdir()
        for name in range(8):
            (tmp_path / f"{number}" / f"{name}").symlink_to(tmp_path / f"{number + 1}")
    (tmp_path / "8").mkdir()
    (source / "first").symlink_to(tmp_path / "0")
    with pytest.raises(InputError, match="MiB"):
        module.check_source(source)


def test_what_cannot_be_read_is_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a key for signing that only root may read; root, who runs tests too, may always."""
    (source / "MOK.priv").write_text("secret")
    monkeypatch.setattr(os, "access", lambda path, *_, **__: Path(path).name != "MOK.priv")
    with pytest.raises(InputError, match=r"MOK\.priv.* cannot be read"):
        module.check_source(source)


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
    fails: bool = False
    leaves: Callable[[Path], object] | None = None  # makes the module's file, if it is not one

    def run(self, _: object, argv: Sequence[str], **options: object) -> Completed:
        if "modinfo" in " ".join(argv):
            return Completed(tuple(argv), 0, MODINFO, "")
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
    monkeypatch.setattr(module, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(sandbox, "run", made.run)
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
    assert built.depends == ("virtio", "virtio_ring")
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


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_change_behind_a_link_is_built_too(
    compiler: Compiler, cache: Cache, source: Path, tmp_path: Path, linked: str
) -> None:
    """What make is given includes what links lead to, so the key must as well."""
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
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "common.h").write_text("#define WEE 1\n")
    (source / "common.h").symlink_to("../shared/common.h")
    (source / "include").symlink_to("../shared")
    module.build(a_kernel(), source, cache)
    for name in ("common.h", "include/common.h"):
        assert compiler.found[name] == "#define WEE 1\n"


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
    with pytest.raises(InputError, match="no name for a module"):
        module.build(a_kernel(), source, cache)


@pytest.mark.parametrize("modules", [(), ("wee-one.ko", "wee-two.ko")])
def test_one_module_is_expected(
    compiler: Compiler, cache: Cache, source: Path, modules: tuple[str, ...]
) -> None:
    """A Kbuild that builds none, or several, is told what it built."""
    compiler.modules = modules
    with pytest.raises(InputError) as caught:
        module.build(a_kernel(), source, cache)
    for name in modules:
        assert name in caught.value.what
    assert "obj-m" in caught.value.hint


# -- what uses the host up, in a sandbox for real ----------------------------------


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("while :; do :; done", "did not end within 2 s"),
        (f"cat /dev/zero >{INSIDE}/file", "more than 16 MiB of disk"),
        ("while :; do sleep 1000 & done", "more than 60 processes"),
        ("cat /dev/zero >/tmp/x; exit 2", "does not build"),
    ],
    ids=["time", "disk", "processes", "scratch"],
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
    monkeypatch.setattr(module, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(module, "BUILD_SECONDS", 2.0 if "within" in named else 60.0)
    small = replace(sandbox.MODULE, processes=60, disk=16 << 20, scratch=1 << 20)
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
