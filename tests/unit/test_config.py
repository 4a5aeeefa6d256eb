# SPDX-License-Identifier: GPL-2.0-only
"""harness/config.py: vm/kernels.toml, and sentences for everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config
from harness.config import GuestSpec, KernelSpec, Locked, Matrix
from harness.errors import InputError

GOOD = """\
default = "one"
[kernels.one]
suite = "trixie"
flavour = "cloud-amd64"
about = "the first"
[kernels."two-6.1"]
suite = "bookworm"
flavour = "amd64"
[guest]
suite = "trixie"
packages = ["bash", "kmod"]
modules = ["virtio_net"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "kernels.toml"
    path.write_text(text)
    return path


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    """A matrix of two kernels."""
    return config.load(write(tmp_path, GOOD))


def test_the_projects_own_file_loads() -> None:
    """vm/kernels.toml is right, and its default is one of its kernels."""
    own = config.load()
    assert own.default in own.kernels
    assert own.select(None) == [own.kernels[own.default]]
    assert own.guest.packages
    assert all(name == spec.name for name, spec in own.kernels.items())


def test_a_good_file_gives_what_it_says(matrix: Matrix) -> None:
    """Every value arrives where it belongs; ``about`` may be left out."""
    assert matrix.default == "one"
    assert matrix.kernels["one"] == KernelSpec("one", "trixie", "cloud-amd64", "the first")
    assert matrix.kernels["two-6.1"] == KernelSpec("two-6.1", "bookworm", "amd64", "")
    assert matrix.guest == GuestSpec("trixie", ("bash", "kmod"), ("virtio_net",))


FAULTS = {
    "no default": ('default = "one"', "", "default"),
    "default no text": ('default = "one"', "default = 1", "default"),
    "default unknown": ('default = "one"', 'default = "three"', "default = 'three'"),
    "unknown key at the top": ('default = "one"', 'default = "one"\ndefalt = 1', "defalt"),
    "no suite": ('suite = "bookworm"', "", "kernels.two-6.1.suite"),
    "empty suite": ('suite = "bookworm"', 'suite = ""', "kernels.two-6.1.suite"),
    "suite no text": ('suite = "bookworm"', "suite = 12", "kernels.two-6.1.suite"),
    "neither flavour nor profile": ('flavour = "amd64"', "", "kernels.two-6.1 needs either"),
    "both flavour and profile": (
        'flavour = "amd64"',
        'flavour = "amd64"\nprofile = "debug"',
        "kernels.two-6.1 needs either",
    ),
    "profile no text": ('flavour = "amd64"', "profile = 1", "kernels.two-6.1.profile"),
    "about no text": ('about = "the first"', "about = true", "kernels.one.about"),
    "unknown key of a kernel": ("about =", "abuot =", "kernels.one.abuot"),
    "a kernel that is no table": ("[kernels.one]", "[kernels]\nx = 1\n[kernels.one]", "kernels.x"),
    "a name with a slash": ("[kernels.one]", '[kernels."../one"]', "kernels.../one"),
    "a name with capitals": ("[kernels.one]", "[kernels.One]", "kernels.One"),
    "a name that is an option": ("[kernels.one]", "[kernels.-one]", "kernels.-one"),
    "no packages": ('packages = ["bash", "kmod"]', "", "guest.packages"),
    "packages no list": ('["bash", "kmod"]', '"bash kmod"', "guest.packages"),
    "packages with a number": ('["bash", "kmod"]', '["bash", 1]', "guest.packages"),
    "no modules": ('modules = ["virtio_net"]', "", "guest.modules"),
    "unknown key of the guest": ("modules =", "module =", "guest.module"),
    "not TOML": ("[guest]", "[guest", "TOML"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_file_and_key(tmp_path: Path, fault: str) -> None:
    """Who gets the error knows which line of which file to mend."""
    old, new, key = FAULTS[fault]
    assert GOOD.count(old) == 1
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        config.load(path)
    assert str(path) in caught.value.what
    assert key in caught.value.what


@pytest.mark.parametrize("table", ["kernels", "guest"])
def test_a_missing_table_is_named(tmp_path: Path, table: str) -> None:
    """Without kernels, or without a guest, the file is not right."""
    lines = GOOD.split("[guest]")
    text = lines[0] if table == "guest" else 'default = "one"\n[guest]' + lines[1]
    with pytest.raises(InputError, match=f": {table} "):
        config.load(write(tmp_path, text))


def test_tables_that_are_texts_are_refused(tmp_path: Path) -> None:
    """`kernels = "all"` is a fault of its own, not an accident further on."""
    with pytest.raises(InputError, match="kernels"):
        config.load(write(tmp_path, 'default = "one"\nkernels = "all"\nguest = 1\n'))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """No file, a folder, or bytes that are no text: each a sentence with the path."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing", tmp_path, binary):
        with pytest.raises(InputError, match=str(path)):
            config.load(path)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (None, ["one"]),
        ("two-6.1", ["two-6.1"]),
        ("two-6.1,one", ["two-6.1", "one"]),
        (" one , two-6.1 ,", ["one", "two-6.1"]),
        ("one,two-6.1,one", ["one", "two-6.1"]),
    ],
)
def test_select_gives_what_was_asked_for(
    matrix: Matrix, asked: str | None, names: list[str]
) -> None:
    """The default, one, or several: in the order asked for, once each."""
    assert [spec.name for spec in matrix.select(asked)] == names


def test_an_unknown_kernel_lists_the_known_and_suggests_one(matrix: Matrix) -> None:
    """A slip of the finger is answered with the name that was meant."""
    with pytest.raises(InputError) as caught:
        matrix.select("one,two-61")
    assert "'two-61'" in caught.value.what
    assert "did you mean two-6.1" in caught.value.hint
    assert "one, two-6.1" in caught.value.hint
    with pytest.raises(InputError) as caught:
        matrix.select("zzzzz")
    assert "did you mean" not in caught.value.hint
    assert "one, two-6.1" in caught.value.hint


@pytest.mark.parametrize("asked", ["", " ", ",", " , "])
def test_asking_for_no_kernel_is_refused(matrix: Matrix, asked: str) -> None:
    """An empty --kernel is a mistake, never a green run of nothing."""
    with pytest.raises(InputError) as caught:
        matrix.select(asked)
    assert "one, two-6.1" in caught.value.hint


# -- what else --kernel takes ------------------------------------------------------

MANY = """\
default = "thirteen"
[kernels.twelve]
suite = "bookworm"
flavour = "cloud-amd64"
[kernels.thirteen]
suite = "trixie"
flavour = "cloud-amd64"
[kernels.thirteen-rt]
suite = "trixie"
flavour = "rt-amd64"
[kernels.unstable]
suite = "sid"
flavour = "amd64"
[kernels.next]
suite = "experimental"
flavour = "cloud-amd64"
[kernels.debug]
suite = "trixie"
profile = "debug"
[guest]
suite = "trixie"
packages = []
modules = []
"""
LOCKED = {
    "twelve": Locked("bookworm cloud-amd64", "6.1.0-56-cloud-amd64", "6.1.192-2"),
    "thirteen": Locked("trixie cloud-amd64", "6.12.118+deb13-cloud-amd64", "6.12.118-1"),
    "thirteen-rt": Locked("trixie rt-amd64", "6.12.118+deb13-rt-amd64", "6.12.118-1"),
    # For another flavour than the entry has now.
    "unstable": Locked("sid cloud-amd64", "7.2.13+deb14-cloud-amd64", "7.2.13-1"),
    "next": Locked("experimental cloud-amd64", "7.3-cloud-amd64", "7.3~rc7-1~exp1"),
    "debug": Locked("trixie debug", "6.12.118", "6.12.118-1"),
    "one-that-went": Locked("buster amd64", "4.19.0-1-amd64", "4.19.1-1"),
}


@pytest.fixture
def many(tmp_path: Path) -> Matrix:
    """A matrix with a lock beside it."""
    path = write(tmp_path, MANY)
    (tmp_path / "kernels.lock").write_text(config.lock_text(LOCKED))
    return config.load(path)


def test_the_projects_lock_is_for_its_matrix() -> None:
    """vm/kernels.lock names an exact kernel for every entry, and for nothing else."""
    own = config.load()
    assert set(config.load_lock()) == set(own.kernels)
    assert [name for name, spec in own.kernels.items() if not spec.version] == []


def test_a_lock_says_which_exact_kernels_are_meant(many: Matrix) -> None:
    """Release and version arrive; an entry that has changed since is not locked any more."""
    thirteen = many.kernels["thirteen"]
    assert (thirteen.release, thirteen.version) == ("6.12.118+deb13-cloud-amd64", "6.12.118-1")
    assert many.kernels["debug"].version == "6.12.118-1"
    assert (many.kernels["unstable"].release, many.kernels["unstable"].version) == ("", "")
    assert "one-that-went" not in many.kernels


def test_a_locks_text_is_read_back_and_always_the_same(tmp_path: Path) -> None:
    """Whatever the order, and with names that TOML wants quoted."""
    kernels = {**LOCKED, "6.1+x": Locked("a b", "c", "d")}
    text = config.lock_text(kernels)
    assert text == config.lock_text(dict(reversed(kernels.items())))
    path = tmp_path / "x.lock"
    path.write_text(text)
    assert config.load_lock(path) == kernels
    assert config.load_lock(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [("[a]\nrelease = 1", "a.from is missing"), ("[a", "TOML"), ("a = 1", "a must be a table")],
)
def test_a_lock_that_is_wrong_is_named(tmp_path: Path, text: str, fault: str) -> None:
    """It is written by a program, but people merge it."""
    path = tmp_path / "x.lock"
    path.write_text(text)
    with pytest.raises(InputError, match=fault) as caught:
        config.load_lock(path)
    assert str(path) in caught.value.what


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("all", ["twelve", "thirteen", "thirteen-rt", "unstable", "next", "debug"]),
        ("debug,all", ["debug", "twelve", "thirteen", "thirteen-rt", "unstable", "next"]),
        # A version, or the beginning of one: all distribution kernels that have it.
        ("6.12", ["thirteen", "thirteen-rt"]),
        ("6.12.118", ["thirteen", "thirteen-rt"]),
        ("6.1", ["twelve"]),
        ("7.3", ["next"]),
        ("6.1.192-2", ["twelve"]),
        ("6.1.0-56-cloud-amd64", ["twelve"]),
        ("6.12.118+deb13-rt-amd64", ["thirteen-rt"]),
        ("6.12,thirteen", ["thirteen", "thirteen-rt"]),
    ],
)
def test_versions_and_all_select_entries(many: Matrix, asked: str, names: list[str]) -> None:
    """Each is an entry of the matrix, which has a name and a lock."""
    assert [spec.name for spec in many.select(asked)] == names


@pytest.mark.parametrize(
    ("asked", "flavour"),
    [
        ("6.12.107", "cloud-amd64"),
        ("6.12.11", "cloud-amd64"),
        ("6.12.107+deb13-rt-amd64", "rt-amd64"),
        ("6.12.107+deb13-cloud-amd64", "cloud-amd64"),
        ("6.12.107+deb13-amd64", "amd64"),
        ("5.10", "cloud-amd64"),
    ],
)
def test_another_release_is_left_to_the_archive(many: Matrix, asked: str, flavour: str) -> None:
    """Which suite has it, if any, only the archive knows."""
    assert many.select(asked) == [KernelSpec(asked, "", flavour, release=asked)]


def test_a_path_is_a_kernel_tree(
    many: Matrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named after its folder, and found from wherever it is asked for later."""
    tree = tmp_path / "Linux Next"
    tree.mkdir()
    monkeypatch.chdir(tree)
    for asked in (".", "../Linux Next", str(tree)):
        (spec,) = many.select(asked)
        assert (spec.name, spec.tree, spec.suite, spec.profile) == (
            "linux-next",
            tree,
            "trixie",
            "",
        )
    assert many.select(spec.asked) == [spec]
    assert many.select(".", "debug")[0].profile == "debug"
    (tree / "debug").mkdir()
    assert many.select("./debug")[0].name == "debug-tree"


def test_a_path_to_nothing_is_refused(many: Matrix) -> None:
    """The folder is named as it was given."""
    with pytest.raises(InputError, match=r"there is no folder \.\./nowhere"):
        many.select("../nowhere")


def test_a_profile_without_a_tree_is_refused(many: Matrix) -> None:
    """The matrix's own kernels have their profile already."""
    with pytest.raises(InputError, match="--profile is for a kernel tree"):
        many.select("thirteen", "debug")


@pytest.mark.parametrize(
    ("prefix", "version", "does"),
    [
        ("6.1", "6.1.192-2", True),
        ("6.1", "6.1", True),
        ("6.1", "6.12.118-1", False),
        ("6.12.11", "6.12.118-1", False),
        ("7.3", "7.3~rc7-1~exp1", True),
        ("7.3", "7.2.13-1", False),
        ("6.12.118", "6.12.118+deb13-amd64", True),
    ],
)
def test_a_version_begins_at_its_boundaries(prefix: str, version: str, does: bool) -> None:
    """6.1 is no beginning of 6.12."""
    assert config.begins(prefix, version) is does


def test_two_trees_of_one_name_are_refused(tmp_path: Path) -> None:
    """Each would write over the other's results; the same tree twice is one kernel."""
    for name in ("good", "bad"):
        (tmp_path / name / "linux").mkdir(parents=True)
    one, other = f"{tmp_path}/good/linux", f"{tmp_path}/bad/linux"
    (tree,) = config.load().select(f"{one},{tmp_path}/bad/../good/linux")
    assert tree.name == "linux"
    with pytest.raises(InputError, match="are both named linux"):
        config.load().select(f"{one},{other}")


# -- what machines have besides the usual ------------------------------------------


def test_equipment_is_what_the_options_say() -> None:
    """The same packages in another order are the same guest, which is made once."""
    asked = config.equipment(["edu", "nvme,serial=1"], "strace, pciutils,strace")
    assert asked == config.Equipment(("edu", "nvme,serial=1"), ("pciutils", "strace"))
    assert config.equipment([], "g++").packages == ("g++",)
    assert config.equipment(None, None) == config.USUAL


@pytest.mark.parametrize("packages", ["", "a b", "Strace", "strace,", "--help", "bash-", "x=1"])
def test_what_names_no_package_is_refused(packages: str) -> None:
    """apt would take some of it for something else."""
    with pytest.raises(InputError, match="names no Debian package"):
        config.equipment((), packages)
