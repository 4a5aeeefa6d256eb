# SPDX-License-Identifier: GPL-2.0-only
"""What holds a pointer into a module that is gone, in words, and what would have taken it away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.examine.structures import (
    FIVE_LEVELS,
    IMAGE,
    Layout,
    Scene,
    SlabObject,
    StackAreas,
    Symbols,
    as_words,
    list_nodes,
    physical,
    slab_object,
    task_of,
    word_at,
)
from harness.qemu.memory import Memory, Pointer


@dataclass(frozen=True)
class Finding:
    """Something that still points into a module that is gone.

    ``pointer`` is where (a physical address) and whereto (a virtual one); ``holder`` what it is
    that points there, in words, and ``forgotten`` what was not done, "" where that cannot be told.
    """

    pointer: Pointer
    holder: str
    forgotten: str = ""


@dataclass(frozen=True)
class Registry:
    """A variable of the kernel's in which things are registered.

    ``step`` is how far from an element's beginning the pointer to the next one is, in bytes;
    None where it holds elements itself, as a table does. ``links`` are such places of a tree's
    elements, of which the variable is the first. ``undo`` is what takes one away.
    """

    symbol: str
    undo: str
    step: int | None = None
    links: tuple[int, ...] = ()


_NOTIFIER = 8  # struct notifier_block in linux/notifier.h: the callback, then `next`
_FILE_SYSTEM = 56  # struct file_system_type in linux/fs.h: `next`
_RESOURCE = (48, 56)  # struct resource in linux/ioport.h: `sibling`, `child`
_LIST = 0  # struct list_head and struct hlist_node begin with `next`

REGISTRIES = (
    Registry("reboot_notifier_list", "unregister_reboot_notifier()", _NOTIFIER),
    Registry("restart_handler_list", "unregister_restart_handler()", _NOTIFIER),
    Registry("panic_notifier_list", "atomic_notifier_chain_unregister()", _NOTIFIER),
    Registry("die_chain", "unregister_die_notifier()", _NOTIFIER),
    Registry("netdev_chain", "unregister_netdevice_notifier()", _NOTIFIER),
    Registry("inetaddr_chain", "unregister_inetaddr_notifier()", _NOTIFIER),
    Registry("inet6addr_chain", "unregister_inet6addr_notifier()", _NOTIFIER),
    Registry("inetaddr_validator_chain", "unregister_inetaddr_validator_notifier()", _NOTIFIER),
    Registry("netevent_notif_chain", "unregister_netevent_notifier()", _NOTIFIER),
    Registry("netlink_chain", "netlink_unregister_notifier()", _NOTIFIER),
    Registry("module_notify_list", "unregister_module_notifier()", _NOTIFIER),
    Registry("keyboard_notifier_list", "unregister_keyboard_notifier()", _NOTIFIER),
    Registry("vt_notifier_list", "unregister_vt_notifier()", _NOTIFIER),
    Registry("pm_chain_head", "unregister_pm_notifier()", _NOTIFIER),
    Registry("oom_notify_list", "unregister_oom_notifier()", _NOTIFIER),
    Registry("memory_chain", "unregister_memory_notifier()", _NOTIFIER),
    Registry("acpi_chain_head", "unregister_acpi_notifier()", _NOTIFIER),
    Registry("usb_notifier_list", "usb_unregister_notify()", _NOTIFIER),
    Registry("power_supply_notifier", "power_supply_unreg_notifier()", _NOTIFIER),
    Registry("cpufreq_policy_notifier_list", "cpufreq_unregister_notifier()", _NOTIFIER),
    Registry("fb_notifier_list", "fb_unregister_client()", _NOTIFIER),
    Registry("task_free_notifier", "profile_event_unregister()", _NOTIFIER),
    Registry("formats", "unregister_binfmt()", _LIST),
    Registry("pernet_list", "unregister_pernet_subsys()", _LIST),
    Registry("crypto_alg_list", "crypto_unregister_alg() (or _shash(), _skcipher() and so on)",
             _LIST),
    Registry("crypto_template_list", "crypto_unregister_template()", _LIST),
    Registry("shrinker_list", "unregister_shrinker() or shrinker_free()", _LIST),
    Registry("misc_list", "misc_deregister()", _LIST),
    Registry("leds_list", "led_classdev_unregister()", _LIST),
    Registry("input_handler_list", "input_unregister_handler()", _LIST),
    Registry("input_dev_list", "input_unregister_device()", _LIST),
    Registry("syscore_ops_list", "unregister_syscore_ops()", _LIST),
    Registry("event_class_list", "a trace event was not taken away", _LIST),
    Registry("ftrace_events", "the module's trace events were not taken away", _LIST),
    Registry("ftrace_ops_list", "unregister_ftrace_function()", None),
    Registry("file_systems", "unregister_filesystem()", _FILE_SYSTEM),
    Registry("file_systems", "unregister_filesystem()", _LIST),  # on 7.3
    Registry("tcp_cong_list", "tcp_unregister_congestion_control()", _LIST),
    Registry("key_types_list", "unregister_key_type()", _LIST),
    Registry("all_lsm_hooks", "the security hook cannot be taken away", _LIST),
    Registry("console_list", "unregister_console()", _LIST),
    Registry("console_drivers", "unregister_console()", None),
    Registry("tty_drivers", "tty_unregister_driver()", _LIST),
    Registry("tty_ldiscs", "tty_unregister_ldisc()", None),
    Registry("cpuhp_hp_states", "cpuhp_remove_state()", None),
    Registry("kprobe_table", "unregister_kprobe()", None),
    Registry("inet_protos", "inet_del_protocol()", None),
    Registry("inet6_protos", "inet6_del_protocol()", None),
    Registry("inetsw", "inet_unregister_protosw()", _LIST),
    Registry("net_families", "sock_unregister()", None),
    Registry("proto_list", "proto_unregister()", _LIST),
    Registry("ptype_base", "dev_remove_pack()", None),
    Registry("ptype_all", "dev_remove_pack()", _LIST),
    Registry("rtnl_msg_handlers", "rtnl_unregister()", None),
    Registry("link_ops", "rtnl_link_unregister()", _LIST),
    Registry("sysrq_key_table", "unregister_sysrq_key()", None),
    Registry("chrdevs", "unregister_chrdev()", None),
    Registry("major_names", "unregister_blkdev()", None),
    Registry("nf_hooks_lwtunnel", "nf_unregister_net_hook()", None),
    Registry("iomem_resource", "release_mem_region()", links=_RESOURCE),
    Registry("ioport_resource", "release_region()", links=_RESOURCE),
    Registry("timer_bases", "timer_delete_sync() or cancel_delayed_work_sync()", None),
    Registry("hrtimer_bases", "hrtimer_cancel()", None),
    Registry("tasklet_vec", "tasklet_kill()", None),
    Registry("tasklet_hi_vec", "tasklet_kill()", None),
)  # fmt: skip

# What is usually forgotten where an object of a slab cache points to a module.
_BY_CACHE = {
    "proc_dir_entry": "remove_proc_entry() or proc_remove()",
    "filp": "an open file was not closed, or its operations have no .owner",
    "inode_cache": "a file of the module's is still there or open",
    "cdev_cache": "cdev_del()",
    "kmem_cache": "kmem_cache_destroy()",
    "kernfs_node_cache": "the sysfs entry was not removed",
    "task_struct": "kthread_stop() or task_work_cancel()",
    "sock_inode_cache": "a socket is still open",
    "dentry": "the entry of its file system was not removed",
}


def describe(scene: Scene, symbols: Symbols, pointer: Pointer) -> Finding:
    """What holds a pointer, in words, and what would have taken it away."""
    memory, layout = scene.memory, scene.layout
    found = slab_object(memory, layout, pointer.at)
    registry = _registry(memory, layout, symbols, pointer.at)
    if found and not registry:
        registry = _registry_with(memory, layout, symbols, found)
    if registry:
        return Finding(pointer, registry.symbol, _not_called(registry.undo))
    name = _variable(layout, symbols, pointer.at)
    if name:
        return Finding(pointer, name)
    stack = StackAreas(scene).of(pointer.at)
    if stack:
        task = task_of(scene, stack)
        return Finding(pointer, f"the stack of {task.name if task else 'a task'}",
                       _not_called("kthread_stop()"))  # fmt: skip
    if found and _is_netfilter(memory, layout, symbols, found):
        return Finding(pointer, "init_net's netfilter", _not_called("nf_unregister_net_hook()"))
    if found:
        undo = _BY_CACHE.get(found.cache.name, "")
        return Finding(
            pointer, f"an object of the slab cache {found.cache.name}", _not_called(undo)
        )
    return Finding(pointer, f"a page of the kernel's (at {pointer.at:#x})")


def _not_called(undo: str) -> str:
    """What was forgotten, as a sentence's part; words that are no call stay as they are."""
    return f"{undo} was not called" if undo.endswith(")") else undo


def _variable(layout: Layout, symbols: Symbols, at: int) -> str:
    """The variable of the kernel's that an address in memory is in."""
    start, end = symbols.address("_text") or 0, symbols.address("_end") or 0
    freed = range(symbols.address("__init_begin") or 0, symbols.address("__init_end") or 0)
    if start <= IMAGE + at < end and IMAGE + at not in freed:
        place = symbols.at(IMAGE + at)
        return place[0] if place else ""
    cpu = _percpu(layout, symbols, at)
    return f"{cpu[0]} of CPU {cpu[1]}" if cpu else ""


def _percpu(layout: Layout, symbols: Symbols, at: int) -> tuple[str, int] | None:
    """The per-CPU variable that an address in memory is in, and of which CPU it is."""
    start, end = symbols.address("__per_cpu_start"), symbols.address("__per_cpu_end")
    if start is None or end is None:
        return None
    for cpu, offset in enumerate(layout.percpu):
        address = (layout.direct + at - offset) % (1 << 64)
        place = symbols.at(address) if start <= address < end else None
        if place:
            return place[0], cpu
    return None


def _registry(memory: Memory, layout: Layout, symbols: Symbols, at: int) -> Registry | None:
    """Where what is found at an address in memory was registered."""
    cpu = _percpu(layout, symbols, at)
    for registry in REGISTRIES:
        if cpu and registry.symbol == cpu[0]:
            return registry
        start = symbols.address(registry.symbol)
        if start is None or start < IMAGE:
            continue
        size = symbols.size(registry.symbol)
        if start <= IMAGE + at < start + size:
            return registry
        if registry.step is not None and any(
            _leads_to(memory, layout, word_at(memory, layout, start + place), registry.step, at)
            for place in range(0, min(size, 256), 8)
        ):
            return registry
        if registry.links and _grows_to(memory, layout, start, registry.links, at):
            return registry
    return None


def _registry_with(
    memory: Memory, layout: Layout, symbols: Symbols, found: SlabObject
) -> Registry | None:
    """The list that an object is in which the kernel has allocated for who registered something.

    Of such an object any word may point to the module, as the functions of a shrinker do.
    """
    own = range(found.start, found.start + found.cache.size)
    for registry in REGISTRIES:
        head = symbols.address(registry.symbol)
        if registry.step == _LIST and head is not None and head >= IMAGE:
            nodes = list_nodes(memory, layout, head)
            if any(physical(memory, layout, node) in own for node in nodes):
                return registry
    return None


def _grows_to(memory: Memory, layout: Layout, root: int, links: Sequence[int], at: int) -> bool:
    """Whether an address in memory is in one of a tree's elements."""
    seen: set[int] = set()
    fresh = [root]
    while fresh and len(seen) < 1000:
        element = fresh.pop()
        where = physical(memory, layout, element) if element > FIVE_LEVELS else None
        if where is None or element in seen:
            continue
        seen.add(element)
        if where <= at < where + max(links) + 8:
            return True
        fresh += (memory.word(where + link) for link in links)
    return False


def _is_netfilter(memory: Memory, layout: Layout, symbols: Symbols, found: SlabObject) -> bool:
    """Whether an object has the hooks of the first network namespace for one place.

    A struct nf_hook_entries (linux/netfilter.h) begins with their number, of two bytes. Then come
    a function and a word for each, and one more word for each. A struct net has its address.
    """
    net = symbols.address("init_net")
    if net is None:
        return False
    first, *words = as_words(memory.read(found.start, found.cache.size))
    functions = words[: 2 * first : 2]
    return (
        0 < first <= len(words) // 3
        and all(function > IMAGE for function in functions)
        and layout.direct + found.start
        in as_words(memory.read(net - IMAGE, symbols.size("init_net")))
    )


def _leads_to(memory: Memory, layout: Layout, element: int, step: int, at: int) -> bool:
    """Whether the pointer at an address in memory is that of one of a chain's elements."""
    seen: set[int] = set()
    while element > FIVE_LEVELS and element not in seen and len(seen) < 1000:
        seen.add(element)
        where = physical(memory, layout, element + step)
        if where is None:
            return False
        if where == at:
            return True
        element = memory.word(where)
    return False
