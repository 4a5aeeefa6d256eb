# SPDX-License-Identifier: GPL-2.0-only
"""harness/host/debian.py: where packages come from, and how they are unpacked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import (
    CommandError,
    DeadlineError,
    GoneError,
    HarnessError,
    HostError,
    InputError,
    MissingToolError,
    NetworkError,
    SpaceError,
)
from harness.host import debian, proc
from harness.host.cache import Cache
from harness.host.proc import Completed, Deadline

PATIENCE = 20.0

# What `apt-get indextargets` prints on a Debian 12 with its usual three suites.
BOOKWORM = """\
Debian|Debian|http://mirror.example/debian/
Debian|Debian|http://mirror.example/debian/
Debian|Debian-Security|http://security.example/debian-security/
"""
UBUNTU = """\
Ubuntu|Ubuntu|http://mirror.example/ubuntu/
Ubuntu|Ubuntu|http://security.example/ubuntu/
"""


def suites(lines: Sequence[str]) -> list[tuple[str, str]]:
    """(address, suite) of each line for sources.list, whose form is checked."""
    found = []
    for line in lines:
        kind, _, rest = line.partition(" ")
        options, _, rest = rest.partition("] ")
        address, suite, component = rest.split()
        assert (kind, component) == ("deb", "main")
        assert options == f"[signed-by={debian.KEYRING}"
        found.append((address, suite))
    return found


# -- where packages come from ------------------------------------------------------


def test_a_debian_host_gives_its_own_mirrors() -> None:
    """Suite, updates and security come from where the host's apt gets them."""
    assert suites(debian.sources_from("trixie", BOOKWORM)) == [
        ("http://mirror.example/debian/", "trixie"),
        ("http://mirror.example/debian/", "trixie-updates"),
        ("http://security.example/debian-security/", "trixie-security"),
    ]


def test_a_host_without_a_security_mirror_does_without() -> None:
    """What the host does not have is not made up."""
    text = "Debian|Debian|http://mirror.example/debian/\n"
    assert [suite for _, suite in suites(debian.sources_from("trixie", text))] == [
        "trixie",
        "trixie-updates",
    ]


@pytest.mark.parametrize("suite", ["sid", "unstable"])
def test_sid_has_neither_updates_nor_security(suite: str) -> None:
    """Suites that the archive does not have are not asked for."""
    assert suites(debian.sources_from(suite, BOOKWORM)) == [
        ("http://mirror.example/debian/", suite)
    ]


def test_an_addition_to_a_suite_comes_with_what_it_builds_on() -> None:
    """Backports need the stable suite, experimental needs sid, each with all that has."""
    main, security = "http://mirror.example/debian/", "http://security.example/debian-security/"
    assert suites(debian.sources_from("trixie-backports", BOOKWORM)) == [
        (main, "trixie"),
        (main, "trixie-updates"),
        (security, "trixie-security"),
        (main, "trixie-backports"),
    ]
    assert suites(debian.sources_from("experimental", BOOKWORM)) == [
        (main, "sid"),
        (main, "experimental"),
    ]


def test_alone_an_addition_is_only_itself() -> None:
    """What of the kernels there is its own is then not mixed with the others'."""
    for suite in ("trixie-backports", "experimental"):
        lines = debian.sources_from(suite, BOOKWORM, alone=True)
        assert [name for _, name in suites(lines)] == [suite]
    assert len(debian.sources_from("trixie", BOOKWORM, alone=True)) == 3


@pytest.mark.parametrize(
    "text",
    [
        UBUNTU,
        "",
        "\n\n",
        "Debian\n|\n",
        "Debian Backports|Debian Backports|http://mirror.example/debian/\n",
        "Somebody|Debian|http://third.example/debian/\n",
        "Debian|Debian|cdrom:[Debian GNU/Linux 12]/\n",
        "Debian|Debian|file:/srv/mirror/\n",
        "Debian|Debian-Security|http://security.example/debian-security/\n",
    ],
)
def test_a_host_without_a_debian_mirror_gives_none(text: str) -> None:
    """Then mmdebstrap's own default is asked for."""
    assert debian.sources_from("trixie", text) == []


# What mmdebstrap says with a hook that prints sources.list and fails, on a host that trusts
# Debian's keys and on one that does not.
DEFAULT = """\
I: automatically chosen format: directory
I: running --setup-hook in shell: sh -c 'cat "$1"/etc/apt/sources.list; exit 1' exec /x/root
deb{option} http://default.example/debian stable main
deb{option} http://default.example/debian stable-updates main
deb{option} http://default.example/debian-security stable-security main
E: mmdebstrap failed to run
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[list[str]]]]:
    """An Ubuntu whose mmdebstrap says DEFAULT; what was started, by program."""
    started: dict[str, list[list[str]]] = {"apt-get": [], "mmdebstrap": []}

    def fake(argv: Sequence[str], **_: object) -> Completed:
        started[argv[0]].append(list(argv))
        if argv[0] == "apt-get":
            return Completed(tuple(argv), 0, UBUNTU, "")
        return Completed(tuple(argv), 25, "", DEFAULT.format(option=' [signed-by="/k.gpg"]'))

    monkeypatch.setattr(proc, "run", fake)
    debian.default_mirrors.cache_clear()
    yield started
    debian.default_mirrors.cache_clear()


def test_a_host_that_is_no_debian_takes_the_mirror_of_mmdebstrap(
    asked: dict[str, list[list[str]]],
) -> None:
    """Each suite with all it builds on, as on a Debian; mmdebstrap is asked once."""
    deadline = Deadline(PATIENCE)
    main, security = "http://default.example/debian", "http://default.example/debian-security"
    assert suites(debian.sources("trixie-backports", deadline=deadline)) == [
        (main, "trixie"),
        (main, "trixie-updates"),
        (security, "trixie-security"),
        (main, "trixie-backports"),
    ]
    assert suites(debian.sources("experimental", deadline=deadline)) == [
        (main, "sid"),
        (main, "experimental"),
    ]
    alone = debian.sources("experimental", deadline=deadline, alone=True)
    assert suites(alone) == [(main, "experimental")]
    assert len(asked["mmdebstrap"]) == 1
    assert len(asked["apt-get"]) == 3


def test_a_debian_host_asks_nobody_else(
    asked: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own mirror may be nearer, or the only one that it can reach."""
    monkeypatch.setattr(debian, "host_mirrors", lambda _: BOOKWORM)
    lines = debian.sources("sid", deadline=Deadline(PATIENCE))
    assert suites(lines) == [("http://mirror.example/debian/", "sid")]
    assert asked["mmdebstrap"] == []


@pytest.mark.parametrize("option", ["", ' [signed-by="/usr/share/keyrings/k.gpg"]'])
def test_a_default_is_read_from_between_what_else_is_said(option: str) -> None:
    """As mmdebstrap 1.3 and 1.5 print it, with the key named or not."""
    assert debian.mirrors_from(DEFAULT.format(option=option)).splitlines() == [
        "Debian|Debian|http://default.example/debian",
        "Debian|Debian|http://default.example/debian",
        "Debian|Debian-Security|http://default.example/debian-security",
    ]


@pytest.mark.parametrize("error", [MissingToolError("no mmdebstrap"), DeadlineError("too long")])
def test_a_default_that_cannot_be_asked_for_is_none(
    asked: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch, error: HarnessError
) -> None:
    """Then mmdebstrap decides by itself when it unpacks."""

    def fail(*_: object, **__: object) -> Completed:
        raise error

    monkeypatch.setattr(debian, "host_mirrors", lambda _: UBUNTU)
    monkeypatch.setattr(proc, "run", fail)
    assert debian.sources("trixie", deadline=Deadline(PATIENCE)) == []


def test_mmdebstrap_as_it_is_installed_tells_its_default() -> None:
    """The real one: no network, no root, and a fraction of a second."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    debian.default_mirrors.cache_clear()
    lines = debian.sources_from("trixie", debian.default_mirrors())
    assert [suite for _, suite in suites(lines)] == ["trixie", "trixie-updates", "trixie-security"]


def test_the_first_mirror_is_taken() -> None:
    """A host with several mirrors, or others' archives besides, uses its first of Debian's."""
    text = (
        "Somebody|Their Own|http://third.example/\n"
        "Debian|Debian|cdrom:[Debian GNU/Linux 12]/\n"
        "Debian|Debian|http://mirror.example/debian/\n"
        "Debian|Debian|http://slow.example/debian/\n"
    )
    assert {address for address, _ in suites(debian.sources_from("trixie", text))} == {
        "http://mirror.example/debian/"
    }


# -- unpacking ---------------------------------------------------------------------


@pytest.fixture
def mmdebstrap(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[int, str], list[list[str]]]:
    """Has every host command end with a status and some words; returns what was started."""
    keyring = tmp_path / "keyring.gpg"
    keyring.write_text("")
    monkeypatch.setattr(debian, "KEYRING", keyring)

    def answer(status: int, words: str) -> list[list[str]]:
        started: list[list[str]] = []

        def fake(argv: Sequence[str], **options: object) -> Completed:
            started.append(list(argv))
            if argv[0] == "apt-get":
                return Completed(tuple(argv), 0, BOOKWORM, "")
            root = next((Path(word) for word in argv if word.endswith("/root")), None)
            if root is not None:
                (root / "usr/bin").mkdir(parents=True)
                (root / "usr/bin/mawk").write_text("")
                (root / "usr/bin/which.debianutils").write_text("")
                (root / "usr/share/doc/kmod").mkdir(parents=True)
            return Completed(tuple(argv), status, words, "")

        monkeypatch.setattr(proc, "run", fake)
        return started

    return answer


def test_how_far_an_unpacking_has_come(tmp_path: Path) -> None:
    """What apt has on the disk, whole and not yet, and what mmdebstrap 1.3 said last."""
    root, log = tmp_path / "root", tmp_path / "unpack.log"
    log.write_text("W: running chrootless mode as root\nI: running apt-get update...\n")
    assert debian.how_far(root, log) == ("0 MB downloaded, running apt-get update...", None)
    archives = root / "var/cache/apt/archives"
    (archives / "partial").mkdir(parents=True)
    for name, size in [("gcc.deb", 7_000_000), ("partial/linux.deb", 5_000_000), ("lock", 1 << 20)]:
        with (archives / name).open("wb") as file:
            file.truncate(size)
    log.write_text(f"{log.read_text()}I: downloading packages with apt...\n")
    assert debian.how_far(root, log) == ("12 MB downloaded, downloading packages with apt...", None)


@pytest.mark.parametrize(
    ("said", "whole", "part"),
    [("Need to get 48.0 MB of archives.", "48", 0.25),
     ("Need to get 24.0 MB/48.0 MB of archives.", "48", 0.25),
     ("Need to get 24,000 kB of archives.", "24", 0.5)],
)  # fmt: skip
def test_how_much_an_unpacking_needs_is_known_once_apt_has_said_so(
    tmp_path: Path, said: str, whole: str, part: float
) -> None:
    """Then there is a bar, until all of it is there; the lists of packages do not count."""
    root, log = tmp_path / "root", tmp_path / "unpack.log"
    for name, size in [
        ("cache/apt/archives/a.deb", 12_000_000),
        ("lib/apt/lists/partial/b", 10**7),
    ]:
        file = root / "var" / name
        file.parent.mkdir(parents=True)
        file.touch()
        os.truncate(file, size)
    log.write_text(f"I: downloading packages with apt...\nReading lists\n{said}\nGet:1 URL a\n")
    step = "downloading packages with apt..."
    assert debian.how_far(root, log) == (f"12 of {whole} MB downloaded, {step}", part)
    log.write_text(f"{log.read_text()}I: extracting archives...\n")
    assert debian.how_far(root, log) == (f"{whole} MB downloaded, extracting archives...", None)


@pytest.mark.parametrize(
    ("words", "kind", "sentence"),
    [
        ("E: Temporary failure resolving 'mirror.example'", NetworkError, "trixy"),
        ("E: The repository 'x trixy Release' does not have a Release file.", InputError, "trixy"),
        ("E: Release file for x is expired (invalid since 3d).", HostError, "expired"),
        (
            "E: Release file for x is not valid yet (invalid for another 2h 3min 4s).",
            HostError,
            "trixy is not valid yet: this host's clock is behind, or the mirror's is ahead",
        ),
        ("bwrap: setting up uid map: Permission denied", HostError, "user namespaces"),
        ("E: Unable to locate package linux-image-nonesuch", GoneError, "linux-image-nonesuch"),
        (
            "E: Can't select candidate version from package oss4-dkms as it has no candidate",
            GoneError,
            "no package oss4-dkms",
        ),
        (
            "E: Version \u20186.1~1-1\u2019 for \u2018linux-image-6.1+x-amd64\u2019 was not found",
            GoneError,
            "linux-image-6.1+x-amd64 6.1~1-1",
        ),
        ("E: Version '6.1-1' for 'linux-image-x' was not found", GoneError, "linux-image-x 6.1-1"),
        # A file that is another one, and one that ends too early, as apt 2.6 was seen to say.
        (
            "E: Failed to fetch http://mirror.example/pool/d/dropbear-bin_2025_amd64.deb  Hash Sum "
            "mismatch\n   Hashes of expected file:",
            NetworkError,
            "dropbear-bin_2025_amd64.deb, or something else: Hash Sum mismatch",
        ),
        (
            "E: Failed to fetch http://mirror.example/pool/d/dropbear-bin_2025_amd64.deb  "
            "Undetermined Error [IP: 127.0.0.1 80]",
            NetworkError,
            "did not send all of dropbear-bin_2025_amd64.deb",
        ),
        (
            "E: Failed to fetch http://mirror.example/pool/x_1_amd64.deb  Could not connect to x",
            NetworkError,
            "no package mirror could be reached",
        ),
        (
            "The following packages have unmet dependencies:\n a : PreDepends: b (>= 4.17~) but "
            "4.12.1 is to be installed\nE: Unable to correct problems",
            HostError,
            "do not fit together: a : PreDepends: b (>= 4.17~) but 4.12.1 is to be installed",
        ),
        ("dpkg-deb: error: something else", CommandError, "trixy"),
    ],
)
def test_a_failed_unpacking_says_whose_fault_it_is(
    tmp_path: Path,
    mmdebstrap: Callable[[int, str], list[list[str]]],
    words: str,
    kind: type[HarnessError],
    sentence: str,
) -> None:
    """Network, mirror, name of the suite and host are different errors, each with evidence."""
    mmdebstrap(25, words)
    with pytest.raises(HarnessError) as caught:
        debian.unpack(tmp_path, "trixy", ["bash"])
    assert type(caught.value) is kind
    assert sentence in caught.value.what
    assert words in str(caught.value)


def test_a_slow_line_is_the_networks_fault(
    tmp_path: Path,
    mmdebstrap: Callable[[int, str], list[list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No kernel is red of it, and the log that it names would be gone."""
    mmdebstrap(0, "")
    answer = proc.run

    def slow(argv: Sequence[str], **options: Any) -> Completed:
        if argv[0] != "bwrap":
            return answer(argv, **options)
        raise DeadlineError("bwrap did not end", log=tmp_path / "unpack.log", tail="Get:7 x [3 MB]")

    monkeypatch.setattr(proc, "run", slow)
    with pytest.raises(NetworkError, match=r"trixie.*1200 s") as caught:
        debian.unpack(tmp_path, "trixie", ["bash"])
    assert caught.value.hint
    assert "Get:7" in str(caught.value)
    assert "unpack.log" not in str(caught.value)


def test_a_clock_that_is_behind_is_to_be_set() -> None:
    """The variable for expired indexes would not help, so it is not named."""
    said = "E: Release file for x is not valid yet (invalid for another 2h 3min 4s)."
    error = debian.fault(said, "sid")
    assert error is not None
    assert error.exit_status == 3
    assert "clock" in error.hint
    assert debian.EXPIRED not in str(error)


def test_an_expired_index_is_taken_only_when_that_is_asked_for(
    tmp_path: Path,
    mmdebstrap: Callable[[int, str], list[list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error names the variable that does it; without it, apt checks."""
    monkeypatch.delenv(debian.EXPIRED, raising=False)
    mmdebstrap(100, "E: Release file for x is expired (invalid since 3d).")
    with pytest.raises(HostError) as caught:
        debian.unpack(tmp_path, "sid", ["bash"])
    assert f"{debian.EXPIRED}=1" in caught.value.hint
    option = '--aptopt=Acquire::Check-Valid-Until "false"'
    for value, taken in (("", False), ("0", False), ("1", True)):
        folder = tmp_path / f"x{value}"
        folder.mkdir()
        monkeypatch.setenv(debian.EXPIRED, value)
        started = mmdebstrap(0, "")
        debian.unpack(folder, "sid", ["bash"])
        (command,) = [argv for argv in started if "mmdebstrap" in argv]
        assert (option in command) is taken


@pytest.mark.parametrize(("free", "kind"), [(1 << 20, SpaceError), (1 << 34, CommandError)])
def test_a_full_disk_is_told_although_the_log_is_on_it(
    tmp_path: Path,
    mmdebstrap: Callable[[int, str], list[list[str]]],
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    kind: type[HarnessError],
) -> None:
    """What was to be logged found no space either."""
    mmdebstrap(25, "Unpacking linux-image-6.1 (6.1.1")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(HarnessError) as caught:
        debian.unpack(tmp_path, "bookworm", ["bash"])
    assert type(caught.value) is kind


def test_a_kernels_own_packages_may_come_from_an_addition(
    tmp_path: Path, mmdebstrap: Callable[[int, str], list[list[str]]]
) -> None:
    """apt would take linux-base from the stable suite, and a backported kernel wants a newer."""
    for suite, pinned in (("trixie-backports", 1), ("experimental", 1), ("trixie", 0), ("sid", 0)):
        folder = tmp_path / suite
        folder.mkdir()
        started = mmdebstrap(0, "")
        debian.unpack(folder, suite, ["bash"])
        (command,) = [argv for argv in started if "mmdebstrap" in argv]
        hooks = [word for word in command if word.startswith("--setup-hook=")]
        assert len(hooks) == pinned
        assert all("Package: linux-*\nPin: release *" in hook for hook in hooks)


def test_unpacking_needs_the_archives_keys(
    tmp_path: Path, mmdebstrap: Callable[[int, str], list[list[str]]]
) -> None:
    """Without them nothing is fetched, and the package that has them is named."""
    started = mmdebstrap(0, "")
    debian.KEYRING.unlink()
    with pytest.raises(HostError, match="debian-archive-keyring"):
        debian.unpack(tmp_path, "trixie", ["bash"])
    assert started == []


def test_unpacking_runs_nothing_of_the_packages(
    tmp_path: Path, mmdebstrap: Callable[[int, str], list[list[str]]]
) -> None:
    """mmdebstrap unpacks without privileges, from the host's mirrors, and dies with us."""
    started = mmdebstrap(0, "")
    debian.unpack(tmp_path, "trixie", ["bash", "kmod"])
    (command,) = [argv for argv in started if "mmdebstrap" in argv]
    assert command[0] == "bwrap"
    assert "--die-with-parent" in command
    assert "--variant=extract" in command
    assert "--mode=chrootless" in command
    assert "--include=bash,kmod" in command
    assert command[command.index("trixie") + 2 :] == debian.sources_from("trixie", BOOKWORM)
    root = tmp_path / "root"
    assert os.readlink(root / "usr/bin/awk") == "mawk"
    assert os.readlink(root / "usr/bin/which") == "which.debianutils"
    assert not (root / "usr/share/doc").exists()
    assert all((root / name).is_dir() for name in ("dev", "mnt", "proc", "tmp"))


def test_a_tree_is_unpacked_once_whatever_the_order_of_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's key is the set of packages and the suite."""
    unpacked = []

    def fake(folder: Path, suite: str, packages: Sequence[str]) -> None:
        unpacked.append((suite, *packages))
        (folder / "root").mkdir()

    monkeypatch.setattr(debian, "unpack", fake)
    cache = Cache(tmp_path / "cache")

    def prepare(suite: str, *packages: str) -> Path:
        return debian.unpack_packages(cache, label="x", suite=suite, packages=packages).root

    first = prepare("trixie", "a", "b")
    assert first.is_dir()
    assert prepare("trixie", "b", "a") == first
    assert prepare("trixie", "a") != first
    assert prepare("sid", "a", "b") != first
    cache.close()
    assert unpacked == [("trixie", "a", "b"), ("trixie", "a"), ("sid", "a", "b")]
