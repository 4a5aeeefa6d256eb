# SPDX-License-Identifier: GPL-2.0-only
"""harness/build/dkms.py: what dkms is asked, and what is read of what it leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.build import dkms
from harness.errors import InputError

CONF = """\
PACKAGE_NAME=wee
PACKAGE_VERSION="@VERSION@"
[ "$kernelver" = 6.1.0-1-amd64 ] && PACKAGE_VERSION=9
echo 'somebody talks' ; echo 'and complains' >&2
BUILD_EXCLUSIVE_CONFIG="CONFIG_DRM
!CONFIG_X CONFIG_I2C"
BUILD_EXCLUSIVE_KERNEL="REQUIRES CONFIG_USB_HID"
echo 'and complains' >&2
BUILT_MODULE_NAME[1]=wee-test
BUILT_MODULE_NAME[0]="$PACKAGE_NAME"
MAKE[0]="make M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build"
"""


def asked(folder: Path, release: str) -> dkms.Asked:
    """The answer of a folder with ``CONF``."""
    (folder / "dkms.conf").write_text(CONF)
    command = ["bash", "-c", dkms.ASK, "bash", release, "/headers"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return dkms.asked(done.stdout, "it")


def test_a_conf_is_asked_by_a_shell(tmp_path: Path) -> None:
    """It may compute what it says, and say other things, which are told once."""
    found = asked(tmp_path, "6.1.0-1-amd64")
    assert (found.name, found.version) == ("wee", "9")
    assert found.options == ("CONFIG_DRM", "CONFIG_I2C", "CONFIG_USB_HID")
    assert found.modules == ("wee", "wee-test")
    assert found.words == ("somebody talks", "and complains")
    assert asked(tmp_path, "6.2").version == "@VERSION@"


def test_a_word_that_a_release_replaces_is_replaced() -> None:
    """Wherever the file has it: its commands have been written with the version in them."""
    conf, version = dkms.with_version("PACKAGE_VERSION=@V@\nMAKE='make M=/x/@V@/build'\n", "@V@")
    assert version == "0"
    assert "make M=/x/0/build" in conf
    assert conf.splitlines()[-1] == 'PACKAGE_VERSION="0"'
    assert dkms.with_version("PACKAGE_VERSION=1.2-3\n", "1.2-3") == (
        "PACKAGE_VERSION=1.2-3\n", "1.2-3",
    )  # fmt: skip
    assert dkms.with_version("x=1", "")[1] == "0"


@pytest.mark.parametrize(
    ("name", "its"),
    [("bbswitch", "bbswitch-dkms"), ("tp_smapi", "tp-smapi-dkms"), ("Wee", "wee-dkms"), ("~a", "")],
)
def test_a_package_is_called_as_its_module(name: str, its: str) -> None:
    """Debian's names have no capitals, and no underscores."""
    assert dkms.package_of(name) == its


@pytest.mark.parametrize("name", ["", "../../etc", "a b", "-rf", "a/b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    """It becomes a part of paths and of a command."""
    with pytest.raises(InputError, match="PACKAGE_NAME"):
        dkms.asked(f"{name}\n1\n\n\n", "mine/: dkms.conf")


def test_a_conf_that_says_nothing_has_no_name() -> None:
    """As one that ends the shell."""
    with pytest.raises(InputError, match="PACKAGE_NAME"):
        dkms.asked("", "mine/: dkms.conf")


def test_paths_are_those_of_the_folder() -> None:
    """The compiler names files of dkms's own copy."""
    said = "/mnt/module/tree/wee/1/build/sub/a.c:3: error\n/mnt/module/sources/wee-1/a.c\n"
    said += "/mnt/module/b.c:1"
    assert dkms.own_paths(said, "/mnt/module") == "sub/a.c:3: error\na.c\nb.c:1"
