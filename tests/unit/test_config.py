# SPDX-License-Identifier: GPL-2.0-only
"""harness/config.py: vm/kernels.toml, and sentences for everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config
from harness.config import GuestSpec, KernelSpec, Matrix
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
    "no flavour": ('flavour = "amd64"', "", "kernels.two-6.1.flavour"),
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
