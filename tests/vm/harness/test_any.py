# SPDX-License-Identifier: GPL-2.0-only
"""The suite for any module: what it does where a module has nothing that could be tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import config
from harness.testing import Lab

from ..any.conftest import shared
from ..any.test_life import lives_of
from .recorded import need_record
from .test_runs import SECONDS, run
from .test_sources import HELLO

# It starts runs of pytest, which take longer than one test may.
pytestmark = pytest.mark.timeout(SECONDS)

ANY = config.PROJECT / "tests" / "vm" / "any"
NOTHING = "test_when_its_names_are_taken"
NODES = (
    "test_nodes_take_every_call", "test_nodes_take_an_unprivileged_user",
    "test_is_not_unloaded_under_an_open_node", "test_is_unloaded_while_others_use_it",
)  # fmt: skip
FILES = "test_attributes_take_odd_input"
PARAMETERS = "test_parameters_can_be_read"


def test_what_is_known_not_to_be_there_costs_no_machine(lab: Lab, tmp_path: Path) -> None:
    """The first test that looks what a module brings has seen that it brings nothing.

    The later ones that need a node, a file or a parameter say so, and no machine is made for them.
    """
    written = tmp_path / "hello"
    written.mkdir()
    (written / "hello.c").write_text(HELLO)
    done = run(lab, tmp_path, written, "--setup-show", str(ANY / "test_init.py"),
               str(ANY / "test_files.py"))  # fmt: skip
    assert done.failed == done.errors == {}
    assert done.cases[NOTHING].why == "it registers no name that another module could have"
    for name in NODES:
        assert done.cases[name].why == "it brings no device node"
    assert done.cases[FILES].why == "it brings no file in sysfs, debugfs or /proc"
    assert done.cases[PARAMETERS].why == "it has no parameters"
    assert with_machines(done.output) == {
        "test_without_a_thread", NOTHING, "test_nodes_take_two_users_at_once",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"return 0;": "return -ENODEV;"}, "hello loads only with its hardware: "),
        ({"static int": "static int id;\nmodule_param(id, int, 0444);\nstatic int",
          "return 0;": "return id ? 0 : -EINVAL;"},
         "hello loads only with parameters, of which it has id (--param NAME=VALUE sets one): "),
        ({"return 0;": 'return request_module("crypto-%s", "none") ? -EIO : 0;'},
         "hello loads only with other modules: it asks the kernel for crypto-none, which this "
         "guest does not have: "),
    ],
    ids=["hardware", "parameters", "modules"],
)  # fmt: skip
def test_who_cannot_work_here_is_not_asked_again(
    lab: Lab, tmp_path: Path, changes: dict[str, str], why: str
) -> None:
    """Its init has said what is missing. The tests that need a node or a file say that too."""
    written = tmp_path / "hello"
    written.mkdir()
    text = HELLO
    for old, new in changes.items():
        text = text.replace(old, new, 1)
    (written / "hello.c").write_text(text)
    done = run(lab, tmp_path, written, "--setup-show", str(ANY / "test_life.py"),
               str(ANY / "test_files.py"))  # fmt: skip
    assert done.failed == done.errors == {}
    for name in (*NODES, FILES, "test_load_and_unload_fifty_times"):
        assert why in done.cases[name].why
    assert with_machines(done.output).isdisjoint((*NODES, FILES))


@pytest.mark.parametrize("leaks", [True, False])
def test_of_several_those_that_can_work_are_tried(lab: Lab, tmp_path: Path, leaks: bool) -> None:
    """One wants hardware and another one needs that; what the third one loses is seen all the same.

    That the others were left out is no pass.
    """
    need_record(lab)
    written = tmp_path / "several"
    written.mkdir()
    lost = 'pr_info("%p", kstrdup("planted", GFP_KERNEL));' if leaks else 'pr_info("hello\\n");'
    (written / "works.c").write_text(
        f"#include <linux/slab.h>\n{HELLO}".replace('pr_info("hello\\n");', lost)
    )
    wants = HELLO.replace("return 0;", "return -ENODEV;", 1)
    shared = "int shared_number = 7;\nEXPORT_SYMBOL_GPL(shared_number);\n"
    (written / "wants.c").write_text(f"{wants}{shared}")
    uses = HELLO.replace("return 0;", "return shared_number ? 0 : -EIO;", 1)
    (written / "uses.c").write_text(uses.replace("static", "extern int shared_number;\nstatic", 1))
    (written / "Makefile").write_text("obj-m += wants.o uses.o works.o\n")
    tests = ("test_loads_and_unloads", "test_is_refused_a_second_time")
    done = run(lab, tmp_path, written, *(f"{ANY / 'test_life.py'}::{each}" for each in tests))
    said = [*done.failed.values(), *done.errors.values()]
    if leaks:
        assert all("kstrdup() allocated were never freed, in hello" in each for each in said)
        assert set(tests) <= {*done.failed, *done.errors}
    else:
        assert said == []
        why = done.cases[tests[0]].why
        assert "wants loads only with its hardware: " in why
        assert "uses needs wants" in why
        assert tests[1] in done.passed


@pytest.mark.parametrize(
    ("seconds", "lives"), [(0.0, (50, 120.0)), (0.02, (50, 120.0)), (5.0, (8, 120.0)),
                           (30.0, (3, 270.0))],
)  # fmt: skip
def test_a_module_that_takes_its_time_has_fewer_lives(
    seconds: float, lives: tuple[int, float]
) -> None:
    """Its init or exit may wait for something; all its lives have to fit into a test's time."""
    assert lives_of(seconds) == lives


# A file that has what was written last; whoever reads gets all of it, however little it asked for.
KEEPS = """\
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/uaccess.h>
static char text[4096];
static size_t length;
static ssize_t give(struct file *file, char __user *to, size_t count, loff_t *at)
{
	return copy_to_user(to, text, length) ? -EFAULT : length;
}
static ssize_t take(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	length = min(count, sizeof(text));
	return copy_from_user(text, from, length) ? -EFAULT : length;
}
static const struct proc_ops calls = { .proc_read = give, .proc_write = take };
static int __init keeps_init(void)
{
	return proc_create("keeps", 0666, NULL, &calls) ? 0 : -ENOMEM;
}
static void __exit keeps_exit(void) { remove_proc_entry("keeps", NULL); }
module_init(keeps_init);
module_exit(keeps_exit);
MODULE_LICENSE("GPL");
"""


def test_a_file_that_gives_more_than_it_was_asked_for_is_red(lab: Lab, tmp_path: Path) -> None:
    """It has something to give only once somebody has written to it."""
    written = tmp_path / "keeps"
    written.mkdir()
    (written / "keeps.c").write_text(KEEPS)
    done = run(lab, tmp_path, written, f"{ANY / 'test_files.py'}::{FILES}")
    assert "read 1 returns 4096, which is neither an error nor up to 1 bytes" in done.failed[FILES]
    assert ": read 65536 " not in done.failed[FILES]


# A file that takes a command and its argument, and keeps a copy of both while it is at work.
COMMAND = """\
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/slab.h>
#include <linux/string.h>
static ssize_t take(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	char *argument = NULL, *text;

	if (count > 256)
		return -EINVAL;
	text = memdup_user_nul(from, count);
	if (IS_ERR(text))
		return PTR_ERR(text);
	if (strchr(text, ' '))
		argument = kstrdup(strchr(text, ' '), GFP_KERNEL);
	GIVEN
	kfree(text);
	return count;
}
static const struct proc_ops calls = { .proc_write = take };
static int __init command_init(void)
{
	return proc_create("command", 0222, NULL, &calls) ? 0 : -ENOMEM;
}
static void __exit command_exit(void) { remove_proc_entry("command", NULL); }
module_init(command_init);
module_exit(command_exit);
MODULE_LICENSE("GPL");
"""


@pytest.mark.parametrize(("given", "red"), [("(void)argument;", True), ("kfree(argument);", False)])
def test_a_command_with_an_argument_is_tried(
    lab: Lab, tmp_path: Path, given: str, red: bool
) -> None:
    """What the argument needs is asked for only where there is one."""
    need_record(lab)
    written = tmp_path / "command"
    written.mkdir()
    (written / "command.c").write_text(COMMAND.replace("GIVEN", given))
    done = run(lab, tmp_path, written, f"{ANY / 'test_files.py'}::{FILES}")
    said = "\n".join([*done.failed.values(), *done.errors.values()])
    assert ("bytes that kstrdup() allocated were never freed, in take at" in said) is red
    assert red or FILES in done.passed


# A device with room for 16 bytes, which refuses what is longer than BOUND.
NARROW = """\
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>
static ssize_t take(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	char text[16];
	size_t i;

	if (count > BOUND)
		return -EINVAL;
	for (i = 0; i < count; i++)
		if (get_user(text[i], from + i))
			return -EFAULT;
	OPTIMIZER_HIDE_VAR(text);
	return count;
}
static const struct file_operations calls = { .owner = THIS_MODULE, .write = take };
static struct miscdevice narrow = {
	.minor = MISC_DYNAMIC_MINOR, .name = "narrow", .fops = &calls,
};
module_misc_device(narrow);
MODULE_LICENSE("GPL");
"""


@pytest.mark.parametrize(("bound", "red"), [(30, True), (16, False)])
def test_a_bound_that_is_a_little_too_large_is_red(
    lab: Lab, tmp_path: Path, bound: int, red: bool
) -> None:
    """It refuses all that is much longer; what is a little longer is written over the stack."""
    written = tmp_path / "narrow"
    written.mkdir()
    (written / "narrow.c").write_text(NARROW.replace("BOUND", str(bound)))
    done = run(lab, tmp_path, written, f"{ANY / 'test_files.py'}::{NODES[0]}")
    assert (NODES[0] in done.failed) is red
    assert not red or "stack is corrupted in" in done.failed[NODES[0]]


# A network device, which has all the files that the kernel makes for one.
NETWORK = """\
#include <linux/module.h>
#include <linux/etherdevice.h>
static struct net_device *device;
static netdev_tx_t send(struct sk_buff *packet, struct net_device *from)
{
	dev_kfree_skb(packet);
	return NETDEV_TX_OK;
}
static const struct net_device_ops calls = { .ndo_start_xmit = send };
static int __init network_init(void)
{
	int result;

	device = alloc_etherdev(0);
	if (!device)
		return -ENOMEM;
	device->netdev_ops = &calls;
	eth_hw_addr_random(device);
	result = register_netdev(device);
	if (result)
		free_netdev(device);
	return result;
}
static void __exit network_exit(void)
{
	unregister_netdev(device);
	free_netdev(device);
}
module_init(network_init);
module_exit(network_exit);
MODULE_LICENSE("GPL");
"""


def test_files_of_the_kernel_s_own_are_not_written_to(lab: Lab, tmp_path: Path) -> None:
    """For rps_flow_cnt of a queue the kernel tries to have as much memory as is written there.

    It complains of its own if that is more than there is. Those of the device are written to: it
    has an mtu, and is opened by its flags.
    """
    written = tmp_path / "network"
    written.mkdir()
    (written / "network.c").write_text(NETWORK)
    done = run(lab, tmp_path, written, f"{ANY / 'test_files.py'}::{FILES}")
    assert done.failed == done.errors == {}
    assert FILES in done.passed


def test_files_that_each_device_of_a_kind_has_are_shared() -> None:
    """However many queues there are, and whatever the device is connected to."""
    there = ["/sys/devices/virtual/net/lo/uevent", "/sys/devices/virtual/net/lo/mtu",
             "/sys/devices/virtual/net/lo/queues/rx-0/rps_cpus", "/proc/net/dev"]  # fmt: skip
    own = "/sys/devices/platform/card.1/net/eth0"
    files = [f"{own}/{name}" for name in (
        "uevent", "mtu", "queues/rx-0/rps_cpus", "queues/rx-12/rps_cpus", "card/rps_cpus"
    )]  # fmt: skip
    assert shared(files, there) == {f"{own}/queues/rx-0/rps_cpus", f"{own}/queues/rx-12/rps_cpus"}
    other = [path.replace("/net/", "/misc/") for path in files]
    assert shared(other, there) == frozenset()


def with_machines(output: str) -> set[str]:
    """The tests that were given a machine, by what --setup-show prints."""
    found, has_machine = set(), False
    for line in output.splitlines():
        step = re.match(r"\s*(SETUP|TEARDOWN)\s+F (\w+)", line)
        if step and step[2] == "kernel_machine":
            has_machine = step[1] == "SETUP"
        test = re.match(r"\s+\S+\.py::(\w+) \(fixtures used", line)
        if test and has_machine:
            found.add(test[1])
    return found
