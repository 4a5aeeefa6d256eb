# SPDX-License-Identifier: GPL-2.0-only
"""harness/build/compile.py: configs, what is a kernel tree, and when it is compiled."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.build import compile
from harness.config import KernelSpec
from harness.errors import InputError, KernelBuildError, SpaceError
from harness.host import debian, sandbox
from harness.host.cache import Cache, Entry
from harness.host.debian import Sysroot
from harness.host.proc import Completed

# -- configs -----------------------------------------------------------------------

BOOT = (compile.FRAGMENTS / "boot.config").read_text()


def test_options_are_read_as_kconfig_writes_them() -> None:
    """Values, texts with "=" in them, what is not set; comments and other lines are not."""
    text = '# A comment\nCONFIG_A=y\nCONFIG_B="x=1"\n# CONFIG_C is not set\n\n#CONFIG_D=y\nE=y\n'
    found = {"CONFIG_A": "y", "CONFIG_B": '"x=1"', "CONFIG_C": "n"}
    assert compile.options(text) == found
    assert compile.options(compile.config_text(found)) == found


def test_the_last_fragment_wins() -> None:
    """A profile can switch on what the base leaves out, and the other way round."""
    merged = compile.merge(["CONFIG_A=y\nCONFIG_B=y\n", "# CONFIG_A is not set\nCONFIG_C=3\n"])
    assert merged == {"CONFIG_A": "n", "CONFIG_B": "y", "CONFIG_C": "3"}


def test_each_option_that_did_not_survive_is_named_with_what_it_is() -> None:
    """Absent is the same as not set; a module is not the same as built in."""
    wanted = {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": "y", "CONFIG_D": "n", "CONFIG_E": "5"}
    config = "CONFIG_A=m\n# CONFIG_B is not set\nCONFIG_D=y\nCONFIG_E=5\n"
    assert compile.lost(wanted, config) == [
        "CONFIG_A=y (is m)",
        "CONFIG_C=y (is n)",
        "CONFIG_D=n (is y)",
    ]
    assert compile.lost(wanted, compile.config_text(wanted)) == []


def test_a_config_that_boots_may_have_its_network_card_as_a_module() -> None:
    """That is loaded from the initramfs; what unpacks it must be built in."""
    config = BOOT.replace("CONFIG_VIRTIO_NET=y", "CONFIG_VIRTIO_NET=m")
    assert compile.missing(BOOT, config) == []
    config = config.replace("CONFIG_BINFMT_SCRIPT=y", "CONFIG_BINFMT_SCRIPT=m")
    config = config.replace("CONFIG_TTY=y", "# CONFIG_TTY is not set")
    assert compile.missing(BOOT, config) == ["CONFIG_BINFMT_SCRIPT=y", "CONFIG_TTY=y"]


@pytest.mark.parametrize("path", sorted(compile.FRAGMENTS.glob("*.config")), ids=lambda p: p.name)
def test_each_block_of_options_begins_with_its_reason(path: Path) -> None:
    """And no option is in a file twice, where the second would hide the first."""
    text = path.read_text()
    for block in text.split("\n\n"):
        assert re.match(r"# (?!CONFIG_)\w", block) or block.startswith('# "'), block
    names = re.findall(r"^(?:# )?(CONFIG_\w+)(?:=| is not set$)", text, re.MULTILINE)
    assert len(names) == len(set(names)) == len(compile.options(text)) or not names


@pytest.mark.parametrize(
    ("profile", "names"),
    [
        ("debug", "KASAN UBSAN PROVE_LOCKING PROVE_RCU DEBUG_ATOMIC_SLEEP DEBUG_OBJECTS DEBUG_LIST "
         "DEBUG_KMEMLEAK FAILSLAB FAIL_PAGE_ALLOC FAIL_FUNCTION FAULT_INJECTION_DEBUG_FS KCOV "
         "GCOV_KERNEL DEBUG_INFO_DWARF5 KUNIT DETECT_HUNG_TASK SOFTLOCKUP_DETECTOR "
         "HARDLOCKUP_DETECTOR PROC_KCORE FW_CFG_SYSFS PVH VMGENID"),
        ("race", "KCSAN PROVE_LOCKING DEBUG_INFO_DWARF5 PVH VMGENID SMP"),
        ("", "PVH SMP PREEMPT DYNAMIC_DEBUG FTRACE MEMCG"),
    ],
)  # fmt: skip
def test_a_profile_has_what_it_is_for(profile: str, names: str) -> None:
    """What each of the kernels promises to find, and all that a guest needs."""
    merged = compile.merge(compile.fragments(profile))
    assert {merged.get(f"CONFIG_{name}") for name in names.split()} == {"y"}
    assert compile.missing(BOOT, compile.config_text(merged)) == []


@pytest.mark.parametrize("name", ["debgu", "base", "boot", "../secret"])
def test_an_unknown_profile_is_told_with_those_there_are(name: str) -> None:
    """The two that every kernel has are no profiles."""
    with pytest.raises(InputError, match="no profile named") as caught:
        compile.fragments(name)
    assert caught.value.hint == "known profiles: debug, race"


# -- a kernel tree -----------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What a kernel's sources are known by."""
    folder = tmp_path / "linux"
    for name in ("Makefile", "Kbuild", "arch/x86/Kconfig", "scripts/kconfig/Makefile",
                 "include/linux/wee.h", "kernel/fork.c"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    names = [*compile.options(BOOT), "CONFIG_SMP"]
    lines = "".join(f"config {name.removeprefix('CONFIG_')}\n\tbool\n" for name in names)
    (folder / "Kconfig").write_text(f"menuconfig LOCALVERSION\n{lines}")
    return folder


def test_a_kernel_tree_is_accepted(tree: Path) -> None:
    """Nothing more than the marks is demanded."""
    compile.check_tree(tree)


def test_a_folder_that_is_no_kernel_tree_is_told(tree: Path) -> None:
    """With the first thing that it lacks."""
    (tree / "arch/x86/Kconfig").unlink()
    with pytest.raises(InputError, match=r"not a kernel tree: it has no arch/x86/Kconfig"):
        compile.check_tree(tree)


@pytest.mark.parametrize("left", [".config", "include/config/a", "arch/x86/include/generated/a"])
def test_a_tree_that_was_built_in_is_told_what_to_do(tree: Path, left: str) -> None:
    """Kbuild would refuse it after a while, in its own words."""
    (tree / left).parent.mkdir(parents=True, exist_ok=True)
    (tree / left).write_text("")
    with pytest.raises(InputError, match="has been built in") as caught:
        compile.check_tree(tree)
    assert f"make -C {tree} mrproper" in caught.value.hint


def test_a_fingerprint_changes_with_the_files_and_not_with_git(tree: Path) -> None:
    """An edit, a new file, one that is gone; commits alone change nothing."""
    seen = [compile.fingerprint(tree)]
    (tree / ".git").mkdir()
    (tree / ".git/HEAD").write_text("x")
    assert compile.fingerprint(tree) == seen[0]
    (tree / "kernel/fork.c").write_text("int x;\n")
    seen.append(compile.fingerprint(tree))
    (tree / "kernel/new.c").write_text("")
    seen.append(compile.fingerprint(tree))
    (tree / "kernel/fork.c").unlink()
    seen.append(compile.fingerprint(tree))
    assert len(set(seen)) == len(seen)


def test_symbols_are_found_in_every_kconfig_file(tree: Path) -> None:
    """config and menuconfig, indented too; not those that are only mentioned."""
    (tree / "kernel/Kconfig.debug").write_text(
        "if A\n  config ONE\n\tdepends on TWO\nmenuconfig THREE\n# config FOUR\nendif\n"
    )
    found = compile.symbols(tree)
    assert {"CONFIG_ONE", "CONFIG_THREE", "CONFIG_TTY"} <= found
    assert not {"CONFIG_TWO", "CONFIG_FOUR"} & found


def test_a_brought_config_that_cannot_boot_has_each_missing_option_named(tmp_path: Path) -> None:
    """So that it can be mended at once and not one option after the other."""
    path = tmp_path / "mine"
    path.write_text(BOOT.replace("CONFIG_TTY=y", "").replace("CONFIG_UNIX=y", ""))
    with pytest.raises(InputError, match="cannot boot here") as caught:
        compile.read_config(path, BOOT)
    assert caught.value.what.splitlines()[1:] == ["CONFIG_TTY=y", "CONFIG_UNIX=y"]
    path.write_text(BOOT)
    assert compile.read_config(path, BOOT) == BOOT


@pytest.mark.parametrize("content", [None, b"", b"hello\n", b"\xff\xfe"])
def test_what_is_no_config_is_told(tmp_path: Path, content: bytes | None) -> None:
    """A path that leads nowhere, an empty file, another file."""
    path = tmp_path / "mine"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path))) as caught:
        compile.read_config(path, BOOT)
    assert "--config" in caught.value.hint


# -- make --------------------------------------------------------------------------


@dataclass
class FakeKbuild:
    """Stands for the sandbox: leaves what kbuild would have left, from the tree's own text."""

    refused: set[str] = field(default_factory=set)  # options that do not survive
    broken: bool = False
    tears: Path | None = None  # interrupted in the middle of this file
    driver: str = "a driver"
    status: int = 0
    ran: list[str] = field(default_factory=list)

    def run(
        self, _root: Path, argv: Sequence[str], *, log: Path | None = None,
        read_only: Mapping[str, Path] | None = None,
        writable: Mapping[str, Path] | None = None, **_: object,
    ) -> Completed:  # fmt: skip
        if argv[0] == "strip":
            assert writable is not None
            (writable["/mnt/out"] / "boot/vmlinux").write_text("stripped")
            return Completed(tuple(argv), 0, "", "")
        assert read_only is not None
        assert writable is not None
        assert log is not None
        tree, out = read_only[compile.SOURCE], writable[compile.BUILD]
        assert f"O={compile.BUILD}" in argv
        target = next(word for word in argv[1:] if "=" not in word and not word.startswith("-"))
        self.ran.append(target)
        self.status = 0
        getattr(self, f"_{target}")(tree, out, log)
        return Completed(tuple(argv), self.status, "", "")

    def _tinyconfig(self, _: Path, out: Path, __: Path) -> None:
        (out / ".config").write_text("# CONFIG_SMP is not set\n")

    def _olddefconfig(self, _: Path, out: Path, __: Path) -> None:
        there = compile.options((out / ".config").read_text())
        kept = {name: value for name, value in there.items() if name not in self.refused}
        (out / ".config").write_text(compile.config_text(kept))

    def _all(self, tree: Path, out: Path, log: Path) -> None:
        if self.broken:
            noise = "\n".join(f"  CC      kernel/{number}.o" for number in range(40))
            log.write_text(f"kernel/fork.c:3:1: error: expected ';'\n{noise}\n")
            self.status = 2
            return
        if self.tears:
            self.tears.write_text("ha")
            raise KeyboardInterrupt
        text = (tree / "kernel/fork.c").read_text()
        for name in ("arch/x86/boot/bzImage", "vmlinux", "scripts/mod/modpost"):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(f"made of {text}")
        (out / "scripts/mod/modpost.o").write_text("not kept")
        (out / "include/config").mkdir(parents=True, exist_ok=True)
        (out / "include/config/kernel.release").write_text("6.12.9-wee\n")

    def _modules_install(self, _: Path, out: Path, __: Path) -> None:
        modules = out / "installed/lib/modules/6.12.9-wee"
        modules.mkdir(parents=True)
        (modules / "modules.order").write_text("")
        (modules / "driver.ko").write_text(self.driver)
        (modules / "build").symlink_to(compile.BUILD)


@pytest.fixture
def kbuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKbuild:
    """No sandbox and no download."""
    fake = FakeKbuild()
    tools = Sysroot(tmp_path, Entry("sysroot", "build", "0123456789abcdef", tmp_path))
    monkeypatch.setattr(debian, "unpack_packages", lambda *_, **__: tools)
    monkeypatch.setattr(sandbox, "run", fake.run)
    return fake


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with closing(Cache(tmp_path / "cache")) as opened:
        yield opened


@pytest.fixture
def spec(tree: Path) -> KernelSpec:
    return KernelSpec("linux", "trixie", tree=tree)


def test_a_tree_is_built_with_the_least_that_boots(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache
) -> None:
    """All that a machine and a module's build need is in the cache, and nothing in the tree."""
    assert spec.tree is not None
    before = compile.fingerprint(spec.tree)
    built = compile.from_tree(spec, cache)
    assert kbuild.ran == ["tinyconfig", "olddefconfig", "all", "modules_install"]
    assert built.release == "6.12.9-wee"
    for path in (built.image, built.boot, built.vmlinux, built.config, built.modules):
        assert path.exists()
    assert compile.missing(BOOT, built.config.read_text()) == []
    assert built.mounts.keys() == {compile.SOURCE, compile.BUILD}
    assert (built.mounts[compile.SOURCE] / "include/linux/wee.h").exists()
    assert (built.mounts[compile.BUILD] / "scripts/mod/modpost").exists()
    assert not (built.mounts[compile.BUILD] / "scripts/mod/modpost.o").exists()
    assert not (built.modules / "build").exists()
    assert compile.fingerprint(spec.tree) == before


@pytest.mark.parametrize(
    ("options", "direct"), [("", True), ("CONFIG_KASAN=y\n", False), ("CONFIG_PVH=n\n", False)]
)
def test_a_kernel_with_kasan_is_not_started_through_its_pvh_entry(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache, tmp_path: Path, options: str, direct: bool
) -> None:
    """It would end without a word; the others need not unpack themselves."""
    mine = tmp_path / "mine"
    mine.write_text(f"{BOOT}CONFIG_PVH=y\n{options}")
    built = compile.from_tree(replace(spec, config=mine), cache)
    assert built.boot.read_text().startswith("stripped" if direct else "made of")


def test_a_header_or_a_driver_that_changes_alone_is_seen(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache
) -> None:
    """The kernel's own image stays the same then, and what modules see of it does not."""
    assert spec.tree is not None
    first = compile.from_tree(spec, cache)
    header = spec.tree / "include/linux/wee.h"
    header.write_text("/* longer than it was */\n")
    second = compile.from_tree(spec, cache)
    assert second.vmlinux.read_text() == first.vmlinux.read_text()
    seen = second.mounts[compile.SOURCE] / "include/linux/wee.h"
    assert seen.read_text() == header.read_text()
    kbuild.driver = "another"
    (spec.tree / "kernel/driver.c").write_text("changed")
    third = compile.from_tree(spec, cache)
    assert (third.modules / "driver.ko").read_text() == "another"


def test_what_an_interruption_may_have_torn_is_made_again(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache
) -> None:
    """Half a target is newer than its sources; what was there before is kept."""
    assert spec.tree is not None
    compile.from_tree(spec, cache)
    (work,) = (cache.root / "kept").glob("tree-*")
    build = work / "build"
    for name in ("kept", "torn"):
        (build / f"{name}.o").write_text(name)
        (build / f".{name}.o.cmd").write_text("gcc")
        os.utime(build / f"{name}.o", (1000, 1000))

    kbuild.tears = build / "torn.o"
    (spec.tree / "kernel/fork.c").write_text("int two;\n")
    with pytest.raises(KeyboardInterrupt):
        compile.from_tree(spec, cache)
    assert kbuild.tears.exists()
    kbuild.tears = None
    compile.from_tree(spec, cache)
    assert (build / "kept.o").exists()
    assert not (build / "torn.o").exists()


def test_a_full_disk_is_not_the_kernels_fault(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler's own words may be missing: the log is on that disk too."""
    kbuild.broken = True
    usage = SimpleNamespace(total=1, used=1, free=1 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(SpaceError, match="compiling the kernel failed: no space left in"):
        compile.from_tree(spec, cache)


def test_a_tree_is_made_again_when_a_file_has_changed_and_only_then(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache
) -> None:
    """Each worker of a run asks for the kernel; what has not changed takes no make."""
    assert spec.tree is not None
    first = compile.from_tree(spec, cache)
    kbuild.ran.clear()
    assert compile.from_tree(spec, cache) == first
    assert kbuild.ran == []
    (spec.tree / "kernel/fork.c").write_text("changed")
    second = compile.from_tree(spec, cache)
    assert "all" in kbuild.ran
    assert second.entry.digest != first.entry.digest
    (spec.tree / "kernel/fork.c").write_text("")
    assert compile.from_tree(spec, cache).entry.digest == first.entry.digest


def test_options_that_the_tree_does_not_know_are_only_named(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    """Another version of Linux has other options; what it knows has to survive."""
    with caplog.at_level("INFO", logger="harness"):
        compile.from_tree(spec, cache)
    told = next(text for text in caplog.messages if text.startswith("this kernel has no "))
    assert "CONFIG_PREEMPT" in told
    assert "CONFIG_SMP" not in told


@pytest.mark.parametrize("name", ["CONFIG_SMP", "CONFIG_TTY"])
def test_options_that_do_not_survive_are_an_error_before_anything_is_compiled(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache, name: str
) -> None:
    """A debug kernel without its KASAN would find nothing and be green."""
    kbuild.refused = {name}
    with pytest.raises(KernelBuildError, match="did not survive") as caught:
        compile.from_tree(spec, cache)
    assert f"{name}=y (is n)" in caught.value.what
    assert "all" not in kbuild.ran


def test_a_tree_that_does_not_compile_has_the_compilers_words(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache
) -> None:
    """Not the last lines, which are other jobs'; and the next try compiles again."""
    kbuild.broken = True
    with pytest.raises(KernelBuildError) as caught:
        compile.from_tree(spec, cache)
    assert caught.value.tail == "kernel/fork.c:3:1: error: expected ';'"
    kbuild.broken = False
    assert compile.from_tree(spec, cache).release == "6.12.9-wee"


def test_a_config_that_was_brought_is_used_as_it_is(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache, tmp_path: Path
) -> None:
    """No option of ours is added to it."""
    mine = tmp_path / "mine"
    mine.write_text(f"{BOOT}CONFIG_MINE=7\n")
    built = compile.from_tree(replace(spec, config=mine), cache)
    assert compile.options(built.config.read_text()) == compile.options(mine.read_text())
    assert "tinyconfig" not in kbuild.ran


def test_what_a_kernel_does_not_take_of_a_config_is_told(
    spec: KernelSpec, kbuild: FakeKbuild, cache: Cache, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """It may be what the tree lost; but what it cannot boot without is an error."""
    mine = tmp_path / "mine"
    mine.write_text(f'{BOOT}CONFIG_MINE=y\nCONFIG_CC_VERSION_TEXT="other"\n')
    kbuild.refused = {"CONFIG_MINE", "CONFIG_CC_VERSION_TEXT"}
    with caplog.at_level("INFO", logger="harness"):
        compile.from_tree(replace(spec, config=mine), cache)
    told = [text for text in caplog.messages if "does not take" in text]
    assert told == ["this kernel does not take of the config:\nCONFIG_MINE=y (is n)"]
    kbuild.refused = {"CONFIG_TTY"}
    mine.write_text(BOOT)
    with pytest.raises(KernelBuildError, match="cannot boot here; it lacks\nCONFIG_TTY=y"):
        compile.from_tree(replace(spec, config=mine), cache)


# -- from the archive --------------------------------------------------------------


@pytest.fixture
def debug(
    tree: Path, kbuild: FakeKbuild, monkeypatch: pytest.MonkeyPatch
) -> tuple[KernelSpec, list[str]]:
    """A profile of the archive's sources, and which versions of these were unpacked."""
    unpacked: list[str] = []

    def unpack(work: Path, _: str, version: str, *__: object) -> None:
        unpacked.append(version)
        (work / "linux").mkdir()
        for path in tree.rglob("*"):
            if path.is_file():
                to = work / "linux" / path.relative_to(tree)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(path.read_bytes())

    monkeypatch.setattr(compile, "_unpack_source", unpack)
    spec = KernelSpec("debug", "trixie", profile="debug", release="6.12.9", version="6.12.9-1")
    return spec, unpacked


def test_an_interrupted_build_goes_on_where_it_was(
    debug: tuple[KernelSpec, list[str]], kbuild: FakeKbuild, cache: Cache
) -> None:
    """Sources and objects of the first try are there at the second, and gone at the end."""
    spec, unpacked = debug
    kbuild.broken = True
    with pytest.raises(KernelBuildError):
        compile.from_suite(spec, cache)
    (kept,) = (cache.root / "kept").iterdir()
    (kept / "build/half.o").write_text("")
    kbuild.broken = False
    assert compile.from_suite(spec, cache).release == "6.12.9-wee"
    assert unpacked == ["6.12.9-1"]
    assert not kept.exists()


def test_what_a_kernel_is_made_of_decides_whether_it_is_made_again(
    debug: tuple[KernelSpec, list[str]], kbuild: FakeKbuild, cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The version of the sources and each option; not the comments beside them."""
    spec, unpacked = debug
    first = compile.from_suite(spec, cache)
    assert compile.from_suite(spec, cache) == first
    texts = compile.fragments("debug")
    monkeypatch.setattr(compile, "fragments", lambda _: [*texts, "# a reason\n"])
    assert compile.from_suite(spec, cache) == first
    assert len(unpacked) == 1
    monkeypatch.setattr(compile, "fragments", lambda _: [*texts, "CONFIG_NR_CPUS=4\n"])
    assert compile.from_suite(spec, cache).entry.digest != first.entry.digest
    other = compile.from_suite(replace(spec, version="6.12.10-1"), cache)
    assert other.entry.digest != first.entry.digest
    assert unpacked == ["6.12.9-1", "6.12.9-1", "6.12.10-1"]


# -- what a build says -------------------------------------------------------------


def test_steps_are_counted_as_kbuild_prints_them() -> None:
    """Not make's own lines, and not warnings."""
    text = (
        "make[1]: Entering directory '/mnt/build'\n  CC      init/main.o\n  LD [M]  a.ko\n"
        "init/main.c:3: warning: x\n  HOSTCC  scripts/basic/fixdep\n    note\n"
    )
    assert compile.steps_in(text) == 3


def test_a_failed_build_without_a_known_word_shows_its_end() -> None:
    """Something is always shown."""
    assert compile.complaints("one\ntwo\n") == "one\ntwo"
    said = compile.complaints("x.c:1: error: a\n  CC b.o\nmake: *** [x.o] Error 1\n")
    assert said == "x.c:1: error: a\nmake: *** [x.o] Error 1"


def test_a_build_leads_nobody_out_of_its_folder(tmp_path: Path) -> None:
    """A tree's Makefile can put a link where a folder or a file is to be collected."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("of the host")
    build = tmp_path / "build"
    (build / "scripts").mkdir(parents=True)
    (build / "scripts" / "sign-file").write_text("its own")
    (build / "include").symlink_to(host)
    (build / "tools").symlink_to(host)
    compile._copy(build, tmp_path / "copy", ("include", "scripts", "tools/secret"))
    copied = [path.name for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert copied == ["sign-file"]
