# SPDX-License-Identifier: GPL-2.0-only
"""harness/build/source.py: what was given as a module, and how it is to be built."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from harness.build import source as source_
from harness.build.source import Recipe, Symbols
from harness.errors import InputError
from harness.host import files

MODULE_C = """\
#include <linux/module.h>
static int __init wee_init(void) { return 0; }
module_init(wee_init);
MODULE_LICENSE("GPL");
"""
HELPER_C = "int helper(void) { return 1; }\n"
PROGRAM_C = "#include <stdio.h>\nint main(void) { return 0; }\n"
OBJ_M = "obj-m += wee.o\n"
CALLS_KBUILD = "all:\n\t$(MAKE) -C /lib/modules/$(shell uname -r)/build M=$(PWD) modules\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A module's folder."""
    folder = tmp_path / "wee"
    folder.mkdir()
    (folder / "Kbuild").write_text("obj-m += wee-one.o\n")
    (folder / "wee-one.c").write_text("/* nothing */\n")
    return folder


def a_folder(parent: Path, files: dict[str, str]) -> Path:
    """A folder with these files."""
    folder = parent / "given"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


# -- what is a module's folder -----------------------------------------------------


def test_a_folder_with_a_kbuild_file_is_right(source: Path) -> None:
    """Nothing but Kbuild is demanded."""
    source_.inspect(source)


def test_a_missing_folder_is_named(tmp_path: Path, source: Path) -> None:
    """A folder that is not there, and a file in its place."""
    for path in (tmp_path / "nowhere", source / "wee-one.c"):
        with pytest.raises(InputError, match=str(path)) as caught:
            source_.inspect(path)
        assert "Kbuild" not in str(caught.value)


def test_a_folder_that_is_somebodys_home_is_refused(source: Path) -> None:
    """What holds far more than a module's sources is not copied."""
    with (source / "video").open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(InputError, match=str(source)):
        source_.inspect(source)


def test_what_a_link_leads_to_counts_for_the_limit(source: Path, tmp_path: Path) -> None:
    """It is copied, so a link to somebody's home is as bad as the home."""
    (tmp_path / ".git").mkdir()
    home = tmp_path / "home"
    home.mkdir()
    with (home / "video").open("wb") as stream:
        stream.truncate(1 << 30)
    (source / "include").symlink_to(home)
    with pytest.raises(InputError, match="MiB"):
        source_.inspect(source)


def test_a_history_is_no_part_of_a_module(source: Path) -> None:
    """A module at the root of a repository with a large one is built all the same."""
    (source / ".git").mkdir()
    with (source / ".git" / "pack").open("wb") as stream:
        stream.truncate(1 << 30)
    source_.inspect(source)


@pytest.mark.parametrize("made", ["results", "cache", "environment", "__pycache__"])
def test_what_programs_have_made_is_no_part_of_a_module(source: Path, made: str) -> None:
    """A repository tests its module from within: what that leaves is large, and always new."""
    before = source_.inspect(source)
    folder = source / made
    if made == "results":
        files.tag(folder)
    elif made == "cache":
        folder.mkdir()
        (folder / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# x")
    elif made == "environment":
        folder.mkdir()
        (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    else:
        folder.mkdir()
    with (folder / "memory").open("wb") as stream:
        stream.truncate(1 << 30)
    assert source_.inspect(source) == before


def test_a_file_that_only_has_the_tags_name_leaves_nothing_out(source: Path) -> None:
    """Whatever a folder is called, and whatever lies in it, its sources are."""
    folder = source / "results"
    folder.mkdir()
    (folder / "CACHEDIR.TAG").write_text("Signature: of somebody else")
    (folder / "part.c").write_text("int part;\n")
    assert folder / "part.c" in source_.inspect(source).files


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_link_to_a_folder_that_it_is_in_is_refused(source: Path, below: str) -> None:
    """Copied, it would never end; two of them would be 2^40 paths before that is noticed."""
    (source / "sub").mkdir()
    for name in ("one", "two"):
        (source / below / name).symlink_to(source)
    with pytest.raises(InputError, match="one leads back to"):
        source_.inspect(source)


def test_folders_that_are_linked_over_and_over_are_too_much(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No link leads back here, and there is not a byte in it, but there are 8^8 paths."""
    monkeypatch.setattr(source_, "_MAX_SOURCE", 1 << 20)
    (tmp_path / ".git").mkdir()
    # Not deep: the kernel follows 40 links, and counts some twice where it has to look again.
    for number in range(8):
        (tmp_path / f"{number}").mkdir()
        for name in range(8):
            (tmp_path / f"{number}" / f"{name}").symlink_to(tmp_path / f"{number + 1}")
    (tmp_path / "8").mkdir()
    (source / "first").symlink_to(tmp_path / "0")
    with pytest.raises(InputError, match="MiB"):
        source_.inspect(source)


def test_what_cannot_be_read_is_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a key for signing that only root may read; root, who runs tests too, may always."""
    (source / "MOK.priv").write_text("secret")
    monkeypatch.setattr(os, "access", lambda path, *_, **__: Path(path).name != "MOK.priv")
    with pytest.raises(InputError, match=r"MOK\.priv.* cannot be read"):
        source_.inspect(source)


# -- how it is built ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "recipe", "below"),
    [
        ({"Kbuild": OBJ_M, "Makefile": OBJ_M, "wee.c": MODULE_C}, Recipe.KBUILD, "."),
        ({"Makefile": OBJ_M + CALLS_KBUILD, "wee.c": MODULE_C}, Recipe.MAKEFILE, "."),
        ({"Makefile": "obj-$(CONFIG_WEE) += wee.o\n", "wee.c": MODULE_C}, Recipe.MAKEFILE, "."),
        ({"Makefile": "include wee.mk\n", "wee.mk": OBJ_M}, Recipe.MAKEFILE, "."),
        ({"Makefile": "# obj-m is elsewhere\n", "wee.c": MODULE_C}, Recipe.C_FILES, "."),
        ({"wee.c": MODULE_C}, Recipe.C_FILES, "."),
        ({"Makefile": "all:\n\tmake -C src\n", "src/Makefile": OBJ_M, "src/wee.c": MODULE_C},
         Recipe.MAKEFILE, "src"),
        ({"README": "", "src/wee.c": MODULE_C}, Recipe.C_FILES, "src"),
        ({"Makefile": OBJ_M, "a/Makefile": OBJ_M, "b/Makefile": OBJ_M}, Recipe.MAKEFILE, "."),
    ],
    ids=["kbuild", "makefile", "config", "included", "comment", "c", "below", "c-below", "outer"],
)  # fmt: skip
def test_the_file_that_says_most_is_taken(
    tmp_path: Path, files: dict[str, str], recipe: Recipe, below: str
) -> None:
    """In the order of the kernel's own build system; C files come last."""
    folder = a_folder(tmp_path, files)
    found = source_.inspect(folder)
    assert found.recipe is recipe
    assert found.root == folder / below
    assert all(path.is_relative_to(found.root) for path in found.files)


def test_it_is_said_what_was_taken_and_why(tmp_path: Path) -> None:
    """One sentence for the log and the report."""
    folder = a_folder(tmp_path, {"src/Makefile": OBJ_M, "src/wee.c": MODULE_C})
    assert (
        source_.inspect(folder).why
        == "by the obj-m lines of the Makefile in src/: there is no Kbuild"
    )


def test_several_modules_are_not_guessed_from(tmp_path: Path) -> None:
    """The sentence names them, the hint is what to type."""
    folder = a_folder(tmp_path, {f"ex{n}/Makefile": OBJ_M for n in range(8)})
    with pytest.raises(InputError, match=r"several modules: ex0, ex1, .*and 3 more") as caught:
        source_.inspect(folder)
    assert caught.value.hint.endswith("given/ex0")


def test_what_is_no_part_of_a_module_is_not_compiled(tmp_path: Path) -> None:
    """A program to try it, a file that another one includes, and what a Mac has put there."""
    folder = a_folder(tmp_path, {
        "wee.c": MODULE_C + '#include "table.c"\n', "table.c": HELPER_C, "try.c": PROGRAM_C,
        "helper.c": HELPER_C, "._wee.c": "\0\5\26\7Mac OS X",
    })  # fmt: skip
    assert source_.inspect(folder).c_files == ("helper.c", "wee.c")


@pytest.mark.parametrize(
    ("files", "words", "hint"),
    [
        ({}, "holds no files", "MODULE_LICENSE"),
        ({"README": ""}, "holds no source of a module", "obj-m"),
        ({"Makefile": "all:\n\tgcc try.c\n", "try.c": PROGRAM_C}, "holds no source", "obj-m"),
        ({"wee.cpp": "class Wee {};"}, r"holds C\+\+ \(wee.cpp\)", "C\\+\\+"),
        (
            {"wee.cpp": "class Wee {};", "Makefile": "obj-m := wee.o\n"},
            r"holds C\+\+ \(wee.cpp\)",
            "C\\+\\+",
        ),
        ({"wee.ko": ""}, "holds no files", "--module .*/wee.ko"),
        ({"try.c": PROGRAM_C}, r"a program for user space \(try.c\)", "obj-m"),
        ({"notes.txt": "", "wee.zip": ""}, r"an archive \(wee.zip\)", "unpack it"),
        ({"wee.c.txt": MODULE_C}, r"source of a module in wee.c.txt", r"rename it to wee\.c$"),
        ({"WEE.C": MODULE_C}, r"source of a module in WEE.C", r"rename it to WEE\.c$"),
        ({"a.c/wee.c (2)": MODULE_C}, r"module in wee.c \(2\)", r"rename it to wee\.c$"),
        (
            {".gitmodules": '[submodule "wee"]\n\tpath = wee\n\turl = https://x/\n'},
            "not there: wee, as git submodules",
            "MODULE_LICENSE",
        ),
    ],
    ids=[
        "empty",
        "text",
        "program",
        "c++",
        "c++ and a Makefile",
        "ko",
        "only a program",
        "archive",
        "saved as text",
        "capitals",
        "a second copy",
        "submodule",
    ],
)
def test_a_folder_that_is_no_modules_is_told_what_is_missing(
    tmp_path: Path, files: dict[str, str], words: str, hint: str
) -> None:
    """A sentence that names what is there instead."""
    with pytest.raises(InputError, match=words) as caught:
        source_.inspect(a_folder(tmp_path, files))
    assert re.search(hint, caught.value.hint)


def test_a_text_that_the_compiler_does_not_read_is_named(tmp_path: Path) -> None:
    """Windows calls UTF-16 "Unicode". A mark at the beginning of UTF-8 does no harm."""
    folder = a_folder(tmp_path, {})
    (folder / "wee.c").write_text(MODULE_C, "utf-16")
    with pytest.raises(InputError, match=r"has wee\.c as UTF-16") as caught:
        source_.inspect(folder)
    assert "iconv" in caught.value.hint
    (folder / "wee.c").write_text(MODULE_C, "utf-8-sig")
    assert source_.inspect(folder).c_files == ("wee.c",)


def test_a_file_that_was_packed_is_to_be_unpacked(tmp_path: Path) -> None:
    """In the place of a folder; a packed module is none of these."""
    packed = tmp_path / "wee.tar.gz"
    packed.touch()
    with pytest.raises(InputError, match="is an archive") as caught:
        source_.inspect(packed)
    assert "unpack it" in caught.value.hint
    (tmp_path / "wee.ko.gz").touch()
    assert not source_.is_archive(tmp_path / "wee.ko.gz")


def test_a_submodule_that_is_there_is_not_missed(tmp_path: Path) -> None:
    """One of which there is only the folder is told with what was taken."""
    modules = '[submodule "a"]\n\tpath = lib/a\n[submodule "b"]\n\tpath = lib/b\n'
    folder = a_folder(tmp_path, {"wee.c": MODULE_C, ".gitmodules": modules, "lib/a/a.h": ""})
    (folder / "lib" / "b").mkdir()
    assert source_.inspect(folder).left_out.startswith("not there: lib/b, as git submodules")
    (folder / "lib" / "b" / "b.h").touch()
    assert source_.inspect(folder).left_out == ""


def test_a_list_of_submodules_that_is_no_file_is_passed_by(tmp_path: Path) -> None:
    """To open a pipe would wait for ever."""
    folder = a_folder(tmp_path, {"wee.c": MODULE_C})
    os.mkfifo(folder / ".gitmodules")
    assert source_.inspect(folder).left_out == ""


def test_modules_below_c_files_are_said_not_to_be_built(tmp_path: Path) -> None:
    """A class with an example beside its folders; other folders of a module are not meant."""
    folder = a_folder(tmp_path, {
        "wee.c": MODULE_C, "alice/wee.c": MODULE_C, "bob/Makefile": OBJ_M, "docs/notes": "",
        "lib/helper.c": HELPER_C,
    })  # fmt: skip
    assert source_.inspect(folder).left_out == "not built: alice/, bob/, as modules of their own"
    (folder / "Makefile").write_text(OBJ_M)
    assert source_.inspect(folder).left_out == ""


def test_a_folder_with_a_hundred_thousand_files_is_refused(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before all of them have been looked at; the bound is made small here."""
    monkeypatch.setattr(source_, "_MAX_ENTRIES", 100)
    for number in range(101):
        (source / f"{number}.h").touch()
    with pytest.raises(InputError, match="more than 100 files and folders"):
        source_.inspect(source)


def test_what_is_no_file_is_passed_by(tmp_path: Path) -> None:
    """Named pipes and sockets, which to open would wait for ever, whatever they are called."""
    folder = a_folder(tmp_path, {"wee.c": MODULE_C})
    os.mkfifo(folder / "Makefile")
    os.mkfifo(folder / "pipe.c")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "Kbuild"))
        found = source_.inspect(folder)
    assert found.recipe is Recipe.C_FILES
    assert [path.name for path in found.files] == ["wee.c"]


def test_a_name_that_is_no_text_is_a_name(tmp_path: Path) -> None:
    """Linux takes any bytes as a name but / and NUL."""
    folder = a_folder(tmp_path, {"wee.c": MODULE_C})
    (Path(os.fsdecode(bytes(folder) + b"/na\xefve.h"))).touch()
    assert len(source_.inspect(folder).files) == 2


# -- C files without a Makefile ----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("wee.c", "wee"), ("my second.c", "my_second"), ("a,b.c", "a_b"), ("wee-one.c", "wee_one"),
     ("-x.c", "x"), ("__x.c", "__x"), ("é.c", "nameless"), ("naïve.c", "na_ve"),
     ("$(reboot).c", "reboot"), ("a.b.c", "a_b")],
)  # fmt: skip
def test_a_c_file_gets_a_name_that_make_takes(name: str, expected: str) -> None:
    """make splits at blanks, and kbuild gives some characters a meaning of their own."""
    assert source_.object_name(name) == expected
    assert source_.object_name(name, {expected}) == f"{expected}_2"


NM = """\
init_module T 0 1f
shared_thing T 0 12
__ksymtab_shared_thing r 0 c
helper U
optional w
table D 0 8
local_thing t 0 8
"""


def test_the_symbols_of_an_object_are_read() -> None:
    """What nm prints: name, kind, and where it is if it is here."""
    assert source_.symbols_in(NM) == Symbols(
        frozenset({"init_module", "shared_thing", "table"}), frozenset({"shared_thing"}),
        frozenset({"helper", "optional"}),
    )  # fmt: skip
    newer = NM.replace("__ksymtab_shared_thing r", "__export_symbol_shared_thing n")
    assert source_.symbols_in(newer) == source_.symbols_in(NM)


def symbols(defines: str = "", exports: str = "", uses: str = "") -> Symbols:
    """Symbols by their names, with blanks in between."""
    return Symbols(*(frozenset(names.split()) for names in (defines, exports, uses)))


def test_files_that_need_each_other_are_one_module() -> None:
    """Also through a third one. What is exported is what modules have of each other."""
    found = source_.groups({
        "main": symbols("init_module", uses="helper printk exported"),
        "helper": symbols("helper", uses="table"),
        "table": symbols("table"),
        "other": symbols("init_module exported", exports="exported", uses="printk"),
        "alone": symbols("init_module"),
    })  # fmt: skip
    assert found == [["alone"], ["helper", "main", "table"], ["other"]]


def test_modules_of_several_files_have_names_of_their_own() -> None:
    """kbuild would link an object of the module's name into itself."""
    lines = source_.derived([["alone"], ["helper", "main"]], "my driver", ["main"]).splitlines()
    assert lines[-3:] == [
        "obj-m += alone.o",
        "obj-m += my_driver.o",
        "my_driver-y := helper.o main.o",
    ]
    lines = source_.derived([["helper", "main"]], "helper", ["main"]).splitlines()
    assert lines[-2:] == ["obj-m += main_module.o", "main_module-y := helper.o main.o"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("pyproject.toml", '[tool.pytest.ini_options]\nkernel_module = "."\n'),
     ("pytest.ini", "[pytest]\nkernel_module = .\n")],
)  # fmt: skip
def test_a_repository_says_which_module_is_its_own(tmp_path: Path, name: str, text: str) -> None:
    """As to pytest; from each folder in it, and whatever else is on the way there."""
    (tmp_path / name).write_text(text)
    inside = tmp_path / "tests" / "long"
    inside.mkdir(parents=True)
    (inside / "pyproject.toml").write_text("[tool\n")
    (inside / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    assert source_.named_in(inside) == str(tmp_path)
    (inside / "pytest.ini").write_text("[pytest]\nkernel_module = deb:acpi-call-dkms\n")
    assert source_.named_in(inside) == "deb:acpi-call-dkms"
    (tmp_path / name).unlink()
    (inside / "pytest.ini").unlink()
    assert source_.named_in(inside) is None
