# SPDX-License-Identifier: GPL-2.0-only
"""Whatever people give as a module is built as it stands, loaded, and judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.build.source import Source
from harness.examine import loading
from harness.lab import Lab
from harness.machines.clone import clone

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
