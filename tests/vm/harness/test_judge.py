# SPDX-License-Identifier: GPL-2.0-only
"""`invoke judge` on modules that are right and wrong, each in a machine of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config
from harness.runs import cards
from harness.runs.cards import Judge
from harness.runs.request import Request
from harness.testing import Guest, Lab

from .test_runs import SECONDS
from .test_sources import HELLO

# It starts runs of pytest, which take longer than one test may.
pytestmark = pytest.mark.timeout(SECONDS)


def test_each_gets_its_card(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is right, one that panics, one that does not compile, one that is none.

    Those that are wrong come first, and the next one is judged all the same. What the compiler says
    with W=1 only is a note.
    """
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    sources = {
        "a-broken": HELLO.replace("return 0;", "return 0"),
        "b-panics": HELLO.replace('pr_info("hello\\n");', 'panic("planted");'),
        "c-empty": "",
        "d-hello": f"{HELLO}static const int never = 1;\n",
    }
    for name, text in sources.items():
        (tmp_path / "class" / name).mkdir(parents=True)
        if text:
            (tmp_path / "class" / name / "hello.c").write_text(text)
    request = Request(kernels=lab.kernel.name, expression="licence or loads_and_unloads", jobs=1)
    found = cards.subjects([str(tmp_path / "class")])
    broken, panics, empty, hello = Judge(request, config.load()).run(found, [lab.kernel.spec])
    assert (broken.outcome, broken.findings[0].where) == ("does not build", "hello.c:2")
    assert (panics.outcome, panics.findings[0].kind) == ("1 fault", "panic")
    assert "planted" in panics.findings[0].seen
    assert empty.outcome == "no module"
    assert (hello.outcome, hello.passed) == ("green", 2)
    assert any("With W=1: hello.c:8:" in note and "never" in note for note in hello.notes)


def test_odd_modules_have_cards_that_say_what_is_odd(
    lab: Lab, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that make would take apart, one that reboots, one named like a module of the kernel."""
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    loaded = guest.check("lsmod").splitlines()[1:]
    taken = loaded[0].split()[0] if loaded else ""
    reboots = HELLO.replace('pr_info("hello\\n");', "emergency_restart();")
    sources = {
        "-a b, \u00e9/-a b, \u00e9.c": HELLO,
        "b/\u00e9.c": HELLO,
        "c/reboots.c": f"#include <linux/reboot.h>\n{reboots}",
    }
    if taken:
        sources[f"d/{taken}.c"] = HELLO
    for name, text in sources.items():
        path = tmp_path / "class" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    request = Request(kernels=lab.kernel.name, expression="loads_and_unloads", jobs=1)
    found = cards.subjects([str(tmp_path / "class")])
    made = Judge(request, config.load()).run(found, [lab.kernel.spec])
    assert [one.outcome for one in made[:3]] == ["green", "green", "1 fault"]
    assert "the machine stopped or restarted by itself" in made[2].findings[0].seen
    if taken:
        assert "the kernel has a module of that name already" in made[3].findings[0].seen


# A device that leaves it to its reader to make a node, as many examples in books do.
NUMBERED = """\
#include <linux/cdev.h>
#include <linux/fs.h>
#include <linux/module.h>
static dev_t first;
static struct cdev device;
static int major;
static ssize_t take(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	WRITE
}
static const struct file_operations calls = { .owner = THIS_MODULE, .write = take };
static int __init hello_init(void)
{
	INIT
}
static void __exit hello_exit(void)
{
	EXIT
}
module_init(hello_init);
module_exit(hello_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("a number without a node");
"""
WHOLE = {
    "INIT": 'major = register_chrdev(0, "a number", &calls); return major < 0 ? major : 0;',
    "EXIT": 'unregister_chrdev(major, "a number");',
}
# Of its two numbers, only the second one is a device.
SINGLE = {
    "INIT": 'alloc_chrdev_region(&first, 2, 2, "number"); cdev_init(&device, &calls);\n'
    "\treturn cdev_add(&device, first + 1, 1);",
    "EXIT": "cdev_del(&device); unregister_chrdev_region(first, 2);",
}
SINK = "return count;"
WILD = "*(volatile int *)file->private_data = 1; return count;"  # which is NULL


def test_a_number_without_a_node_is_tried(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node is made for it, and each of its calls is tried: right ones are green."""
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    planted = {
        "a": WHOLE | {"WRITE": WILD},
        "b": SINGLE | {"WRITE": WILD},
        "c": WHOLE | {"WRITE": SINK},
        "d": SINGLE | {"WRITE": SINK},
    }
    for name, parts in planted.items():
        text = NUMBERED
        for part, code in parts.items():
            text = text.replace(part, code)
        (tmp_path / "class" / name).mkdir(parents=True)
        (tmp_path / "class" / name / "hello.c").write_text(text)
    request = Request(kernels=lab.kernel.name, expression="every_call or open_node", jobs=1)
    found = cards.subjects([str(tmp_path / "class")])
    *wild, whole, single = Judge(request, config.load()).run(found, [lab.kernel.spec])
    for one in wild:
        assert one.outcome == "1 fault"
        assert "NULL" in one.findings[0].seen
        assert one.findings[0].where == "hello.c:9"
    assert (whole.outcome, whole.passed) == ("green", 2)
    assert (single.outcome, single.passed) == ("green", 2)


def test_what_a_module_has_while_it_is_loaded_is_not_left_behind(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its init function has made a work queue, and is no longer there when the test ends, which
    has not unloaded the module itself. One that is never destroyed is found all the same.
    """
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    text = HELLO.replace("static int", "static struct workqueue_struct *queue;\nstatic int", 1)
    text = f"#include <linux/workqueue.h>\n{text}"
    text = text.replace('pr_info("hello\\n");', 'queue = alloc_workqueue("hello", WQ_UNBOUND, 1);')
    planted = {
        "a-keeps": text,
        "b-right": text.replace('pr_info("bye\\n");', "destroy_workqueue(queue);"),
    }
    for name, code in planted.items():
        (tmp_path / "class" / name).mkdir(parents=True)
        (tmp_path / "class" / name / "hello.c").write_text(code)
    request = Request(
        kernels=lab.kernel.name, expression="licence or nodes_take_every_call", jobs=1
    )
    found = cards.subjects([str(tmp_path / "class")])
    keeps, right = Judge(request, config.load()).run(found, [lab.kernel.spec])
    assert keeps.outcome == "1 fault"
    assert "destroy_workqueue() was not called" in keeps.findings[0].seen
    assert (right.outcome, right.passed, right.skipped) == ("green", 1, 1)


# What init does, what exit should have done, and what this needs.
FORGOTTEN = {
    "debugfs": (
        'debugfs_create_u32("value", 0644, debugfs_create_dir("hello", NULL), &value);',
        "debugfs_remove()", "linux/debugfs.h", "static u32 value;",
    ),
    "entry": (
        'if (!kobject_create_and_add("hello", kernel_kobj)) return -ENOMEM;',
        "kobject_put()", "linux/kobject.h", "",
    ),
    "proc": (
        'if (!proc_create_single("hello", 0444, NULL, show)) return -ENOMEM;',
        "remove_proc_entry()", "linux/proc_fs.h",
        "static int show(struct seq_file *file, void *data) { return 0; }",
    ),
    "timer": (
        "mod_timer(&tick, jiffies + HZ / 4);",
        "timer_delete_sync()", "linux/timer.h",
        "static void ring(struct timer_list *timer) { }\nstatic DEFINE_TIMER(tick, ring);",
    ),
    # The next life is at the same place, and puts into the list what is in it already.
    "packets": (
        "dev_add_pack(&kind);",
        "dev_remove_pack()", "linux/netdevice.h",
        "static int take(struct sk_buff *packet, struct net_device *device,\n"
        "\t\tstruct packet_type *of, struct net_device *first)\n"
        "{ kfree_skb(packet); return 0; }\n"
        "static struct packet_type kind = { .type = htons(0x88b5), .func = take };",
    ),
}  # fmt: skip


def test_a_call_that_was_forgotten_is_one_fault(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is seen: in a list, in memory, by its name that is taken the next time, or by a
    kernel that crashes. The card names the call, and a place in the source.
    """
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    for name, (call, _, header, more) in FORGOTTEN.items():
        text = HELLO.replace('pr_info("hello\\n");', call).replace(
            "static int", f"{more}\nstatic int", 1
        )
        (tmp_path / "class" / name).mkdir(parents=True)
        (tmp_path / "class" / name / "hello.c").write_text(f"#include <{header}>\n{text}")
    names = "loads_and_unloads or fifty_times or names_are_taken"
    request = Request(kernels=lab.kernel.name, expression=names, jobs=1)
    found = cards.subjects([str(tmp_path / "class")])
    for one in Judge(request, config.load()).run(found, [lab.kernel.spec]):
        assert one.outcome == "1 fault", [each.seen for each in one.findings]
        assert FORGOTTEN[one.name][1] in one.findings[0].seen
        assert one.findings[0].where.startswith("hello.c:")


def test_a_call_with_the_wrong_arguments_is_not_taken_for_none(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unregister_chrdev_region() with a smaller count than was asked for gives nothing back.

    Each life leaves another number behind, which is one fault. Where there is no such call at all,
    that is what is said.
    """
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    text = HELLO.replace("static int", "static dev_t first;\nstatic int", 1).replace(
        'pr_info("hello\\n");', 'if (alloc_chrdev_region(&first, 0, 8, "hello")) return -EBUSY;'
    )
    text = f"#include <linux/fs.h>\n{text}"
    planted = {
        "a-less": text.replace('pr_info("bye\\n");', "unregister_chrdev_region(first, 4);"),
        "b-none": text,
        "c-right": text.replace('pr_info("bye\\n");', "unregister_chrdev_region(first, 8);"),
    }
    for name, code in planted.items():
        (tmp_path / "class" / name).mkdir(parents=True)
        (tmp_path / "class" / name / "hello.c").write_text(code)
    names = "loads_and_unloads or fifty_times"
    request = Request(kernels=lab.kernel.name, expression=names, jobs=1)
    found = cards.subjects([str(tmp_path / "class")])
    *wrong, right = Judge(request, config.load()).run(found, [lab.kernel.spec])
    for one in wrong:
        assert one.outcome == "1 fault", [each.seen for each in one.findings]
        assert len(one.findings[0].tests) == 2
        assert "unregister_chrdev_region() or unregister_chrdev() was not" in one.findings[0].seen
        perhaps = "or not with the right arguments" in one.findings[0].seen
        assert perhaps is (one.name == "a-less")
    assert (right.outcome, right.passed) == ("green", 2)


def test_who_removes_what_is_not_its_own_is_told_so(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file in /proc has a name that is taken: exit removes the other one, or does not."""
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    text = HELLO.replace("static int", "static struct proc_dir_entry *entry;\nstatic int", 1)
    text = f"#include <linux/proc_fs.h>\n{text}"
    made = 'entry = proc_mkdir("hello", NULL);'
    planted = {
        "a-blind": text.replace('pr_info("hello\\n");', made).replace(
            'pr_info("bye\\n");', 'remove_proc_entry("hello", NULL);'
        ),
        "b-right": text.replace(
            'pr_info("hello\\n");', f"{made} if (!entry) return -EEXIST;"
        ).replace('pr_info("bye\\n");', "proc_remove(entry);"),
    }
    for name, code in planted.items():
        (tmp_path / "class" / name).mkdir(parents=True)
        (tmp_path / "class" / name / "hello.c").write_text(code)
    request = Request(kernels=lab.kernel.name, expression="names_are_taken", jobs=1)
    found = cards.subjects([str(tmp_path / "class")])
    blind, right = Judge(request, config.load()).run(found, [lab.kernel.spec])
    assert blind.outcome == "1 fault"
    assert "it has removed what is not its own" in blind.findings[0].seen
    assert (right.outcome, right.passed) == ("green", 1)


NEVER = "wait_for_completion(&never);"  # not even SIGKILL ends that


def test_one_that_hangs_has_its_card_and_the_next_goes_on(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At load and in exit: what hangs is waited for once, the tests left are skipped."""
    monkeypatch.setattr(config, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(cards, "HANG_SECONDS", 0.0)
    waits = HELLO.replace("static int", "static DECLARE_COMPLETION(never);\nstatic int", 1)
    waits = f"#include <linux/completion.h>\n{waits}"
    planted = {
        "a-init": waits.replace('pr_info("hello\\n");', NEVER),
        "b-exit": waits.replace('pr_info("bye\\n");', NEVER),
        "c-hello": HELLO,
    }
    for name, text in planted.items():
        (tmp_path / "class" / name).mkdir(parents=True)
        (tmp_path / "class" / name / "hello.c").write_text(text)
    request = Request(kernels=lab.kernel.name, expression="licence or test_life", jobs=1)
    found = cards.subjects([str(tmp_path / "class")])
    *hanging, hello = Judge(request, config.load()).run(found, [lab.kernel.spec])
    for one in hanging:
        assert (one.outcome, one.findings[0].kind) == ("1 fault", "hang")
        assert (one.passed, one.failed, one.skipped) == (1, 1, 4)
        assert one.notes[-1] == (
            "Not tried: 4 tests: something hangs, as test_life.py::test_loads_and_unloads has shown"
        )
    assert "insmod" in hanging[0].findings[0].seen
    assert "rmmod" in hanging[1].findings[0].seen
    assert (hello.outcome, hello.passed) == ("green", 6)
