# SPDX-License-Identifier: GPL-2.0-only
"""harness/build/archive.py: which kernels the archive has, and what is said of one it lost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.build import archive
from harness.build.archive import Index, Release
from harness.config import GuestSpec, KernelSpec, Matrix
from harness.errors import DeadlineError, GoneError, HostError, InputError, NetworkError
from harness.host import debian, proc
from harness.host.cache import Cache
from harness.host.proc import Completed

# As the archive has them, the fields that matter: an old kernel, the newest, a backported one
# with its own metapackage, two other flavours, and others' packages.
PACKAGES = """\
Package: linux-headers-cloud-amd64
Version: 6.1.192-2
Depends: linux-headers-6.1.0-56-cloud-amd64 (= 6.1.192-2)

Package: linux-image-6.1.0-56-cloud-amd64
Source: linux-signed-amd64 (6.1.192+2)
Version: 6.1.192-2
Installed-Size: 127
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool

Package: linux-image-6.1.0-9-cloud-amd64
Version: 6.1.27-1
Depends: kmod

Package: linux-image-6.12-cloud-amd64
Version: 6.12.117-1~deb12u1
Depends: linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1~deb12u1)

Package: linux-image-6.12.117+deb12-cloud-amd64
Version: 6.12.117-1~deb12u1
Depends: kmod

Package: linux-image-6.1.0-56-amd64
Version: 6.1.192-2

Package: linux-image-6.1.0-56-amd64-unsigned
Version: 6.1.192-2

Package: linux-image-6.1.0-56-rt-amd64
Version: 6.1.192-2

Package: linux-image-cloud-amd64
Version: 6.1.9-1
Depends: linux-image-6.1.0-3-cloud-amd64 (= 6.1.9-1)

Package: linux-image-cloud-amd64
Version: 6.1.192-2
Depends: linux-base, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)

Package: linux-source
Version: 6.1.192-2
Depends: linux-source-6.1 (= 6.1.192-2)

Package: notlinux-image-cloud-amd64
Version: 9
"""
RC = """\
Package: linux-image-7.3-cloud-amd64
Version: 7.3~rc7-1~exp1
Depends: linux-base-7.3-cloud-amd64 (= 7.3~rc7-1~exp1), linux-binary-7.3-cloud-amd64

Package: linux-image-cloud-amd64
Version: 7.3~rc7-1~exp1
Depends: linux-image-7.3-cloud-amd64 (= 7.3~rc7-1~exp1)
"""
CLOUD = "cloud-amd64"
# Each image has its headers beside it.
PACKAGES += "\n" + PACKAGES.replace("Package: linux-image-", "Package: linux-headers-")
RC += "\n" + RC.replace("Package: linux-image-", "Package: linux-headers-")


def known(text: str = PACKAGES, suite: str = "bookworm") -> Index:
    return Index(suite, tuple(archive.read_packages(text)), 0.0)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """A cache of this test's own."""
    with closing(Cache(tmp_path / "cache")) as made:
        yield made


# -- reading an index --------------------------------------------------------------


def test_the_releases_of_a_flavour_are_in_the_order_of_their_versions() -> None:
    """6.1.27 is before 6.1.192, and 6.12 after both; what only leads to one is none."""
    assert [each.release for each in known().releases(CLOUD)] == [
        "6.1.0-9-cloud-amd64",
        "6.1.0-56-cloud-amd64",
        "6.12.117+deb12-cloud-amd64",
    ]
    assert known().releases("amd64") == [Release("bookworm", "6.1.0-56-amd64", "6.1.192-2")]
    assert known().releases("none") == []


def test_a_release_without_its_headers_is_none() -> None:
    """Debian's security archive keeps the signed images of some for longer."""
    whole = known()
    gone = "linux-headers-6.1.0-9-cloud-amd64"
    index = replace(whole, packages=tuple(p for p in whole.packages if p.name != gone))
    assert [each.release for each in index.releases(CLOUD)] == [
        "6.1.0-56-cloud-amd64",
        "6.12.117+deb12-cloud-amd64",
    ]


def test_the_newest_is_what_the_metapackage_leads_to() -> None:
    """Not the highest number: a backported kernel in the same index is another one."""
    assert known().newest(CLOUD) == Release("bookworm", "6.1.0-56-cloud-amd64", "6.1.192-2")
    assert known().newest("rt-amd64") is None
    assert known().newest_source() == Release("bookworm", "6.1.192", "6.1.192-2")
    assert known("").newest_source() is None


def test_a_release_candidate_is_no_metapackage() -> None:
    """experimental's linux-image-7.3-cloud-amd64 is the kernel itself."""
    rc = Release("experimental", "7.3-cloud-amd64", "7.3~rc7-1~exp1")
    assert known(RC, "experimental").releases(CLOUD) == [rc]
    assert known(RC, "experimental").newest(CLOUD) == rc


# -- asking the archive ------------------------------------------------------------


class Apt:
    """Stands in for apt-get: writes an index, or fails with its words."""

    def __init__(self) -> None:
        self.updates = 0
        self.said = ""
        self.packages = PACKAGES
        self.conf = ""

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        if "indextargets" in argv:
            return Completed(tuple(argv), 0, "Debian|Debian|http://mirror.example/debian/\n", "")
        self.updates += 1
        conf = Path(argv[argv.index("-c") + 1])
        self.conf = conf.read_text()
        if not self.said:
            (conf.parent / "lists" / "x_Packages").write_text(self.packages)
        return Completed(tuple(argv), 100 if self.said else 0, "", self.said)


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> Apt:
    """The archive."""
    stand_in = Apt()
    monkeypatch.setattr(proc, "run", stand_in.run)
    monkeypatch.delenv(debian.EXPIRED, raising=False)
    return stand_in


def test_an_index_is_asked_for_each_time_unless_a_recent_one_will_do(
    apt: Apt, cache: Cache
) -> None:
    """A listing wants what is true now; preparing a kernel does not ask for each of ten tests."""
    for recent, updates in ((0.0, 1), (0.0, 2), (3600.0, 2)):
        assert archive.index("bookworm", cache, recent=recent).packages
        assert apt.updates == updates
    file = cache.root / "kept/index-bookworm/packages.json"
    os.utime(file, (time.time() - 7200,) * 2)
    archive.index("bookworm", cache, recent=3600.0)
    assert apt.updates == 3


def test_without_a_network_the_last_index_is_taken_and_its_age_told(apt: Apt, cache: Cache) -> None:
    """And where there is none, the network is what is missing."""
    apt.said = "E: Temporary failure resolving 'mirror.example'"
    with pytest.raises(NetworkError):
        archive.index("bookworm", cache)
    apt.said = ""
    archive.index("bookworm", cache)
    file = cache.root / "kept/index-bookworm/packages.json"
    os.utime(file, (time.time() - 7200,) * 2)
    apt.said = "E: Temporary failure resolving 'mirror.example'"
    assert archive.index("bookworm", cache).age == pytest.approx(7200, abs=60)


def test_a_slow_line_is_made_up_for_as_a_missing_one_is(
    apt: Apt, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the network, not the kernel, and what was known last will do."""
    answer = proc.run

    def slow(argv: Sequence[str], **options: Any) -> Completed:
        if "update" in argv:
            raise DeadlineError("apt-get did not end within 300 s", command=argv)
        return answer(argv, **options)

    with monkeypatch.context() as patch:
        patch.setattr(proc, "run", slow)
        with pytest.raises(NetworkError, match=r"bookworm.*300 s") as caught:
            archive.index("bookworm", cache)
        assert caught.value.hint
    archive.index("bookworm", cache)
    monkeypatch.setattr(proc, "run", slow)
    assert archive.index("bookworm", cache).packages


def test_an_expired_or_missing_suite_is_not_hidden_by_an_old_index(apt: Apt, cache: Cache) -> None:
    """Only a missing network is made up for."""
    archive.index("bookworm", cache)
    apt.said = "E: Release file for x is expired (invalid since 3d)."
    with pytest.raises(HostError, match="has expired") as caught:
        archive.index("bookworm", cache)
    assert debian.EXPIRED in caught.value.hint
    apt.said = "E: The repository 'x' does not have a Release file."
    with pytest.raises(InputError, match="no suite named bookworm"):
        archive.index("bookworm", cache)


def test_apt_checks_dates_unless_told_otherwise(
    apt: Apt, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the host's own apt was told."""
    archive.index("bookworm", cache)
    assert 'Acquire::Check-Valid-Until "true";' in apt.conf
    assert 'Acquire::Check-Date "true";' in apt.conf
    monkeypatch.setenv(debian.EXPIRED, "1")
    archive.index("bookworm", cache)
    assert 'Acquire::Check-Valid-Until "false";' in apt.conf


def test_a_host_without_a_debian_mirror_is_told(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nobody to ask."""
    monkeypatch.setattr(proc, "run", lambda argv, **_: Completed(tuple(argv), 0, "", ""))
    monkeypatch.setattr(debian, "default_mirrors", lambda: "")
    with pytest.raises(NetworkError, match="nor mmdebstrap names a Debian mirror"):
        archive.index("bookworm", cache)


def test_a_host_that_is_no_debian_asks_the_mirror_of_mmdebstrap(
    apt: Apt, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on every GitHub runner: what has moved is known there too."""
    default = "Debian|Debian|http://default.example/debian\n"
    monkeypatch.setattr(debian, "host_mirrors", lambda _: "Ubuntu|Ubuntu|http://x.example/\n")
    monkeypatch.setattr(debian, "default_mirrors", lambda: default)
    assert archive.index("trixie-backports", cache).packages
    lines = (cache.root / "kept/index-trixie-backports/sources.list").read_text().splitlines()
    (line,) = lines
    assert line.endswith("] http://default.example/debian trixie-backports main")


# -- from what was asked for to what is there --------------------------------------


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch) -> Matrix:
    """A matrix of two suites, the second of which is the likelier for 6.1."""
    kernels = {
        "thirteen": KernelSpec("thirteen", "trixie", CLOUD, version="6.12.118-1"),
        "twelve": KernelSpec("twelve", "bookworm", CLOUD, version="6.1.192-2"),
        "debug": KernelSpec("debug", "sid", profile="debug"),
    }
    made = Matrix("thirteen", kernels, GuestSpec("trixie", (), ()))
    monkeypatch.setattr(config, "load", lambda: made)
    return made


def test_a_locked_kernel_and_a_tree_need_nobody_to_be_asked(apt: Apt, cache: Cache) -> None:
    """So they work without a network, and in no time."""
    for spec in (
        KernelSpec("x", "bookworm", CLOUD, release="6.1", version="6.1-1"),
        KernelSpec("x", "bookworm", tree=Path("/linux")),
    ):
        assert archive.resolve(spec, cache) is spec
    assert apt.updates == 0


def test_a_kernel_that_is_not_locked_is_the_newest(apt: Apt, cache: Cache) -> None:
    """Of its flavour, or of the sources."""
    spec = archive.resolve(KernelSpec("x", "bookworm", CLOUD), cache)
    assert (spec.release, spec.version) == ("6.1.0-56-cloud-amd64", "6.1.192-2")
    spec = archive.resolve(KernelSpec("x", "bookworm", profile="debug"), cache)
    assert (spec.release, spec.version) == ("6.1.192", "6.1.192-2")


def test_a_flavour_that_the_suite_lacks_is_named(apt: Apt, cache: Cache) -> None:
    """With the entry that is to be mended."""
    with pytest.raises(GoneError, match="bookworm has no package linux-image-none") as caught:
        archive.resolve(KernelSpec("x", "bookworm", "none"), cache)
    assert "[kernels.x]" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "version"),
    [
        ("6.1.0-9-cloud-amd64", "6.1.27-1"),
        ("6.1.27", "6.1.27-1"),
        ("6.1", "6.1.192-2"),
        ("6.12.117", "6.12.117-1~deb12u1"),
    ],
)
def test_a_release_is_searched_where_it_is_likely_first(
    apt: Apt, cache: Cache, matrix: Matrix, asked: str, version: str
) -> None:
    """An exact one or the beginning of one, and then the newest that has it."""
    spec = archive.resolve(KernelSpec(asked, "", CLOUD, release=asked), cache)
    assert (spec.name, spec.version) == (asked, version)
    if asked.startswith("6.1."):
        assert (spec.suite, apt.updates) == ("bookworm", 1)


def test_a_release_that_no_suite_has_names_those_near_it(
    apt: Apt, cache: Cache, matrix: Matrix
) -> None:
    """A person sees at once which ones are left."""
    with pytest.raises(GoneError, match=r"no kernel 6\.1\.5 \(cloud-amd64\)") as caught:
        archive.resolve(KernelSpec("6.1.5", "", CLOUD, release="6.1.5"), cache)
    assert "6.1.0-9-cloud-amd64, 6.1.0-56-cloud-amd64" in caught.value.hint
    with pytest.raises(GoneError) as caught:
        archive.resolve(KernelSpec("4.19.5", "", CLOUD, release="4.19.5"), cache)
    assert "it has none of 4.19 either; by name there are" in caught.value.hint
    assert "thirteen (6.12), twelve (6.1)" in caught.value.hint
    # Where nothing more exact was asked for, that would only be said twice.
    with pytest.raises(GoneError, match=r"no kernel 4\.19 ") as caught:
        archive.resolve(KernelSpec("4.19", "", CLOUD, release="4.19"), cache)
    assert caught.value.hint.startswith("by name there are thirteen (6.12)")


def test_what_was_asked_today_is_not_asked_again_for_a_misspelt_word(
    apt: Apt, cache: Cache, matrix: Matrix
) -> None:
    """It is told at once. After a day the mirror is asked again."""
    archive.index("trixie", cache)
    archive.index("bookworm", cache)
    for hours, updates in ((23, 2), (25, 4)):
        for suite in ("trixie", "bookworm"):
            file = cache.root / f"kept/index-{suite}/packages.json"
            then = time.time() - hours * 3600
            os.utime(file, (then, then))
        with pytest.raises(GoneError, match=r"no kernel 7\.7"):
            archive.resolve(KernelSpec("7.7", "", CLOUD, release="7.7"), cache)
        assert apt.updates == updates


def test_a_suite_that_cannot_be_asked_is_not_to_blame(
    apt: Apt, cache: Cache, matrix: Matrix
) -> None:
    """The others are looked through all the same; only where there is none it is the reason."""
    apt.said = "E: Failed to fetch http://mirror/InRelease  Could not connect to mirror:80"
    with pytest.raises(NetworkError):
        archive.resolve(KernelSpec("7.7", "", CLOUD, release="7.7"), cache)
    apt.said = ""
    archive.index("bookworm", cache)
    apt.said = "E: Failed to fetch http://mirror/InRelease  Could not connect to mirror:80"
    with pytest.raises(GoneError, match=r"no kernel 7\.7") as caught:
        archive.resolve(KernelSpec("7.7", "", CLOUD, release="7.7"), cache)
    assert "What trixie has could not be asked" in caught.value.hint
    spec = archive.resolve(KernelSpec("6.12.117", "", CLOUD, release="6.12.117"), cache)
    assert spec.suite == "bookworm"


def test_a_locked_kernel_that_vanished_names_the_newer_one(apt: Apt, cache: Cache) -> None:
    """One sentence: what is gone, what there is instead, and the command."""
    spec = KernelSpec("x", "bookworm", CLOUD, release="6.1.0-55-cloud-amd64", version="6.1.190-1")
    error = archive.gone(spec, GoneError("apt's words"), cache)
    assert error.what == (
        "kernel x: 6.1.0-55-cloud-amd64 (6.1.190-1) is no longer in Debian bookworm; "
        "the newest there is 6.1.0-56-cloud-amd64 (6.1.192-2)"
    )
    assert "invoke kernels --update --kernel x" in error.hint


def test_a_locked_kernel_that_vanished_without_a_successor_is_what_apt_says(
    apt: Apt, cache: Cache
) -> None:
    """Nothing is made up."""
    spec = KernelSpec("x", "bookworm", "none", release="r", version="v")
    first = GoneError("apt's words")
    assert archive.gone(spec, first, cache) is first


def test_a_kernel_that_is_the_newest_is_not_said_to_have_vanished(apt: Apt, cache: Cache) -> None:
    """Its headers are missing, or a tool: apt's words name what is."""
    spec = KernelSpec("x", "bookworm", CLOUD, release="6.1.0-56-cloud-amd64", version="6.1.192-2")
    first = GoneError("Debian bookworm has no package linux-headers-6.1.0-56-cloud-amd64 6.1.192-2")
    assert archive.gone(spec, first, cache) is first


def test_exact_packages_are_asked_for() -> None:
    """The version is part of the cache's key, so a moved kernel is a new entry."""
    spec = KernelSpec("x", "bookworm", CLOUD, release="6.1.0-56-cloud-amd64", version="6.1.192-2")
    assert archive.packages(spec, ("linux-image", "linux-headers")) == [
        "linux-image-6.1.0-56-cloud-amd64=6.1.192-2",
        "linux-headers-6.1.0-56-cloud-amd64=6.1.192-2",
    ]
