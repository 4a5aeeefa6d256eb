# SPDX-License-Identifier: GPL-2.0-only
"""Whatever people give as a module is built as it stands, loaded, and judged."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def folder(parent: Path, files: dict[str, str]) -> Path:
    """A module's folder with these files."""
    made = parent / "mine"
    made.mkdir()
    for name, content in files.items():
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
