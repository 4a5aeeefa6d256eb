# SPDX-License-Identifier: GPL-2.0-only
"""Whatever people give as a module is built as it stands, loaded, and judged."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest

from harness.build import source as sources
from harness.build.source import Source
from harness.errors import BuildError, HarnessError, InputError, NotForKernelError
from harness.examine import loading
from harness.lab import Lab
from harness.machines.clone import clone
from harness.runs.sweep import reason

HELLO = """\
#include <linux/module.h>
static int __init hello_init(void) { pr_info("hello\\n"); return 0; }
static void __exit hello_exit(void) { pr_info("bye\\n"); }
module_init(hello_init);
module_exit(hello_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("says hello");
"""
USER = """\
#include <linux/module.h>
extern int shared(void);
extern int helper(void);
static int __init user_init(void) { pr_info("user %d\\n", shared() + helper()); return 0; }
static void __exit user_exit(void) { }
module_init(user_init);
module_exit(user_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("needs another module, and another file");
"""
HELPER = "int helper(void);\nint helper(void) { return 1; }\n"
SHARED = """\
#include <linux/module.h>
int shared(void);
int shared(void) { return 41; }
EXPORT_SYMBOL_GPL(shared);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("has what another module needs");
"""
# What everybody's first Makefile looks like.
MAKEFILE = """\
obj-m += hello.o
PWD := $(CURDIR)
all:
	make -C /lib/modules/$(shell uname -r)/build M=$(PWD) modules
"""

NEEDS = """\
#include <linux/module.h>
#include <linux/firmware.h>
#include <linux/platform_device.h>
#include <net/udp_tunnel.h>
static char *label = "none";
module_param(label, charp, 0444);
static void (*used)(struct socket *) = udp_tunnel_sock_release;
static int __init needs_init(void)
{
	struct platform_device *device = platform_device_register_simple("needs", -1, NULL, 0);
	const struct firmware *firmware;
	int error = request_firmware(&firmware, "acme/fw.bin", &device->dev);

	if (!error) {
		pr_info("%.5s, %s, %d\\n", firmware->data, label, !used);
		release_firmware(firmware);
	}
	platform_device_unregister(device);
	return error;
}
static void __exit needs_exit(void) { }
module_init(needs_init);
module_exit(needs_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("needs modules of the kernel, firmware and a parameter");
MODULE_SOFTDEP("pre: crc7 there_is_none post: dummy");
"""


def folder(parent: Path, files: dict[str, str]) -> Path:
    """A module's folder with these files."""
    made = parent / "mine"
    made.mkdir()
    for name, content in files.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(content)
    return made


@pytest.mark.parametrize(
    ("files", "how", "names"),
    [
        ({"hello.c": HELLO}, "by obj-m for hello.c", ["hello"]),
        ({"hello.c": HELLO, "Makefile": MAKEFILE}, "obj-m lines of the Makefile", ["hello"]),
        ({"user.c": USER, "helper.c": HELPER, "shared.c": SHARED}, "by obj-m for helper.c, ",
         ["shared", "mine"]),
        ({"my hello, é.c": HELLO}, "by obj-m for my hello, é.c", ["my_hello"]),
    ],
    ids=["hello-world", "makefile", "that-need-each-other", "odd-name"],
)  # fmt: skip
def test_a_folder_is_built_as_it_stands(
    lab: Lab, tmp_path: Path, files: dict[str, str], how: str, names: list[str]
) -> None:
    """It loads and unloads, each module after those that it depends on."""
    built = lab.build(folder(tmp_path, files))
    assert how in built.how
    assert [one.name for one in built.objects] == names
    with clone(lab.template(), tmp_path) as running:
        loading.load(running.guest, built)
        for name in reversed(names):
            running.guest.check(f"rmmod {name}")


def test_what_a_module_needs_is_there_before_it(lab: Lab, tmp_path: Path) -> None:
    """Modules of the kernel that it depends on or asks for, firmware, and a parameter."""
    made = folder(tmp_path, {"needs.c": NEEDS, "firmware/acme/fw.bin": "hello, world"})
    built = lab.build(Source(made, params=("label=two words",)))
    assert built.needs == ("udp_tunnel", "crc7")
    with clone(lab.template(), tmp_path) as running:
        loading.load(running.guest, built)
        assert "hello, two words, 0" in running.guest.dmesg()
        running.guest.check("rmmod needs && modprobe -r udp_tunnel crc7")


# -- dkms ----------------------------------------------------------------------------

CONF = """\
PACKAGE_NAME="wee hello"
PACKAGE_NAME="${PACKAGE_NAME// /-}"
PACKAGE_VERSION="#MODULE_VERSION#"
BUILT_MODULE_NAME[0]="hello"
DEST_MODULE_LOCATION[0]="/updates"
MAKE[0]="make -C ${kernel_source_dir} M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build"
"""
FILES = {"hello.c": HELLO, "Makefile": "obj-m := hello.o\n"}


def test_a_dkms_conf_is_taken_before_anything_else(lab: Lab, tmp_path: Path) -> None:
    """With debug information, although dkms takes that off, and paths as in the folder."""
    built = lab.build(folder(tmp_path, {**FILES, "dkms.conf": CONF}))
    assert built.how == "by dkms and its dkms.conf"
    assert [one.name for one in built.objects] == ["hello"]
    assert b".debug_info" in built.ko.read_bytes()
    assert b".debug_info" not in built.loadable.read_bytes()


def test_a_module_that_is_not_for_this_kernel_says_so(lab: Lab, tmp_path: Path) -> None:
    """That is no failure of its build. What its dkms.conf prints of it is told, each line once."""
    line = 'BUILD_EXCLUSIVE_KERNEL="^2[.]6[.]"'
    conf = f"{CONF}echo too new >&2\n{line}\nif true; then\n  {line}\nfi\n"
    made = folder(tmp_path, {**FILES, "dkms.conf": conf})
    with pytest.raises(NotForKernelError, match=r"its dkms\.conf says so") as caught:
        lab.build(made)
    assert caught.value.tail == f"too new\n{line}"


def test_options_that_a_kernel_lacks_are_named(lab: Lab, tmp_path: Path) -> None:
    """Of several that a dkms.conf asks for."""
    line = 'BUILD_EXCLUSIVE_CONFIG="CONFIG_MODULES CONFIG_WEE_QUEUES"'
    made = folder(tmp_path, {**FILES, "dkms.conf": f"{CONF}{line}\n"})
    with pytest.raises(NotForKernelError, match=r"its dkms\.conf says so") as caught:
        lab.build(made)
    assert caught.value.hint.startswith("this kernel was built without CONFIG_WEE_QUEUES")


def test_what_the_compiler_says_under_dkms_is_shown(lab: Lab, tmp_path: Path) -> None:
    """dkms itself only says that there is a log."""
    made = folder(tmp_path, {**FILES, "hello.c": f"{HELLO}int x = y;\n", "dkms.conf": CONF})
    with pytest.raises(BuildError, match="does not build") as caught:
        lab.build(made)
    assert "hello.c:8:9: error" in caught.value.tail.replace("\x1b", "")


def test_a_dkms_conf_that_calls_the_network_is_told_so(lab: Lab, tmp_path: Path) -> None:
    """A build has none; the address is one that is for examples only (RFC 5737)."""
    made = folder(tmp_path, {**FILES, "dkms.conf": f'{CONF}PRE_BUILD="fetch.sh"\n'})
    (made / "fetch.sh").write_text("#!/bin/bash\nset -e\nexec 3<>/dev/tcp/192.0.2.1/80\n")
    (made / "fetch.sh").chmod(0o755)
    with pytest.raises(BuildError, match="does not build") as caught:
        lab.build(made)
    assert reason(caught.value).endswith("Network is unreachable")


def test_a_dkms_conf_writes_to_nothing_of_the_host(lab: Lab, tmp_path: Path) -> None:
    """While it is asked for its name it could put a link in its own place."""
    target = tmp_path / "precious"
    target.write_text("kept")
    evil = f"rm -f dkms.conf && ln -s {target} dkms.conf\n"
    with suppress(HarnessError):
        lab.build(folder(tmp_path, {**FILES, "dkms.conf": f"{CONF}{evil}"}))
    assert target.read_text() == "kept"


def test_a_debian_package_is_built(lab: Lab) -> None:
    """From the suite of the kernel; what it was built by names the version."""
    built = lab.build(sources.parse("deb:acpi-call-dkms"))
    assert built.name == "acpi_call"
    assert re.search(r"package acpi-call-dkms \S+ of Debian ", built.how)


@pytest.mark.parametrize(
    ("package", "said"),
    [("deb:no-such-package", "has no package"), ("deb:patch", "has no module's source")],
)
def test_a_package_without_a_module_is_said(lab: Lab, package: str, said: str) -> None:
    """Whether there is no such package, or another kind of it."""
    with pytest.raises(HarnessError, match=said):
        lab.build(sources.parse(package))


def test_a_finished_module_is_loaded_as_it_is(lab: Lab, tmp_path: Path) -> None:
    """Somebody has built it for this kernel. For another one it is refused before a machine is."""
    ko = tmp_path / "hello.ko"
    ko.write_bytes(lab.build(folder(tmp_path, {"hello.c": HELLO})).ko.read_bytes())
    built = lab.build(ko)
    with clone(lab.template(), tmp_path) as running:
        loading.load(running.guest, built)
        running.guest.check("rmmod hello")
    release = lab.kernel.release.encode()
    ko.write_bytes(ko.read_bytes().replace(b"vermagic=" + release, b"vermagic=" + release[::-1]))
    with pytest.raises(InputError, match="was built for another kernel"):
        lab.build(ko)
