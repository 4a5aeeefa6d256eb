# SPDX-License-Identifier: GPL-2.0-only
"""What a module brings into a guest, found out by looking: nothing is known of it before.

A module that is right is never red here. What a driver may do is not held against it: an error
from any call, a call that waits, an init that finds no hardware. What the kernel says, what does
not come back even when it is killed, and what is left behind is.
"""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pytest

from harness import klog
from harness.judge.verdict import Expectation
from harness.plugin.expect import EXPECTED
from harness.testing import Clone, Guest, Lab, Module

from ..calls import Group, perform
from ..modinfo import declared

# What takes longer to unload is taken for stuck. Seconds of the guest's.
UNLOAD_SECONDS = 30.0
# The order of the files: what every other test needs comes first, so that it is the simplest test
# that shows what is wrong there.
_ORDER = ("test_build.py", "test_life.py", "test_init.py", "test_files.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort this suite's tests; others that are run with them keep their places."""
    here = Path(__file__).parent
    places = [place for place, item in enumerate(items) if item.path.parent == here]
    own = sorted((items[place] for place in places), key=_place)
    for place, item in zip(places, own, strict=True):
        items[place] = item


def _place(item: pytest.Item) -> int:
    name = item.path.name
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


# Insmod's words for ENODEV and ENXIO.
_NO_HARDWARE = "No such device"
_EXISTS = "File exists"
_BAD_PARAMETERS = "Invalid parameters"
# From now on, what modprobe is asked for by the kernel and cannot load is written down. The kernel
# gives it a name as the last word (call_modprobe() in kernel/module/kmod.c).
_LACKING = "/root/lacking"
_REMEMBER = f"""\
cat >/root/modprobe <<'END'
#!/bin/sh
for name; do :; done
/sbin/modprobe "$@" || echo "$name" >>{_LACKING}
END
chmod +x /root/modprobe && echo /root/modprobe >/proc/sys/kernel/modprobe"""
# Files of which there is one for each device, whatever its driver does, and for each module.
_USUAL = ("uevent", "/power/", "/subsystem/", "/driver/", "/sys/kernel/btf/")
# Minor numbers that are tried of a character device without nodes.
_MINORS = 8
# More files of a module than this are not tried. A network device has a hundred.
FILES_MAX = 150
NAMED_MAX = 8  # parameters that are named where a module wants some


@dataclass(frozen=True)
class Brought:
    """What came with a module: paths in the guest, and names for which the kernel has a list.

    ``nodes`` are those of its devices; the module itself has not made those in ``made``. Of the
    ``files`` those that are ``shared`` are in folders that other devices have in the same way.
    """

    nodes: tuple[str, ...]
    made: tuple[str, ...]
    files: tuple[str, ...]
    shared: frozenset[str]
    misc: tuple[str, ...]
    majors: tuple[int, ...]
    classes: tuple[str, ...]
    proc: tuple[str, ...]
    debug: tuple[str, ...]
    kernel: tuple[str, ...]  # in /sys/kernel


# The kernel's own files for tracing are nineteen thousand, and can be reached by two paths.
_LIST = r"""
find /dev \( -type c -o -type b \) -printf 'node %p\n'
find /sys/devices /sys/class /sys/kernel /sys/bus /sys/fs /sys/block \
    \( -path /sys/kernel/tracing -o -path /sys/kernel/debug/tracing -o -path /sys/kernel/slab \) \
    -prune -o -type f -printf 'file %p\n'
find /proc \( -path '/proc/[0-9]*' -o -path /proc/sys \) -prune -o -type f -printf 'file %p\n'
sed 's/^ *[0-9]* /misc /' /proc/misc
sed -n '/Character/,/^$/s/^ *\([0-9]\+\) /major \1 /p' /proc/devices
for folder in class kernel kernel/debug; do ls /sys/$folder | sed "s,^,$folder ,"; done
ls /proc | grep -v '^[0-9]' | sed 's/^/proc /'
"""


def shared(files: Collection[str], there: Collection[str]) -> frozenset[str]:
    """Those of a device's files that are in a folder which a device of the kernel's has as well.

    Such is ``queues/rx-0/rps_cpus`` of each network device: the kernel itself takes what is written
    there, and no driver can refuse it. Files of the device itself, as ``mtu``, may ask the driver.
    ``there`` are the files from before the module came. Devices are of one kind if the folder that
    they are in has the same name.
    """
    usual = {kind for _, kind in _in_folders(there)}
    return frozenset(path for path, kind in _in_folders(files) if kind in usual)


def _in_folders(files: Collection[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """The files in folders of devices: each with the kind of device, and where in it the file is.

    Every device has a file ``uevent``. How many queues and the like there are differs.
    """
    devices = {path.rpartition("/")[0] for path in files if path.endswith("/uevent")}
    for path in files:
        folder = PurePosixPath(path).parent
        device = next((one for one in folder.parents if str(one) in devices), None)
        if device and str(folder) not in devices:
            inside = re.sub(r"\d+", "0", str(PurePosixPath(path).relative_to(device)))
            yield path, (device.parent.name, inside)


@dataclass
class Known:
    """What a test of this process has found out about the module, for those that come after it.

    ``refused``: why it cannot work here, as its init says. ``brought``: what came with it.
    ``left_out``: of several modules those that cannot work here, and why.
    """

    refused: str = ""
    brought: Brought | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def want_all(self) -> None:
        """Skip a test that was made without some of several modules, as that is no pass."""
        __tracebackhide__ = True
        if self.left_out:
            pytest.skip("; ".join(self.left_out.values()))

    def want_nodes(self) -> None:
        """Skip a test that has nothing to do, as is known, without a device node."""
        __tracebackhide__ = True
        self._want("nodes", "it brings no device node")

    def want_files(self) -> None:
        """Skip a test that has nothing to do, as is known, without a file of the module's."""
        __tracebackhide__ = True
        self._want("files", "it brings no file in sysfs, debugfs or /proc")

    def _want(self, what: str, else_why: str) -> None:
        __tracebackhide__ = True
        if self.refused:
            pytest.skip(self.refused)
        if self.brought is not None and not getattr(self.brought, what):
            pytest.skip(else_why)


class Subject:
    """The module under test in one guest, which has its files and has not loaded it."""

    def __init__(self, guest: Guest, module: Module, known: Known) -> None:
        self.guest = guest
        self.module = module
        self.known = known
        self._objects = [one for one in module.objects if one.name not in known.left_out]
        for one in module.objects:
            guest.put(one.loadable, f"/root/{one.ko.name}")
        needs = getattr(module, "needs", ())
        archive = getattr(module, "files", None)
        if archive is not None:
            guest.check("cd / && cpio --quiet -imd && depmod", stdin=archive.read_bytes())
        if needs:
            guest.check(f"modprobe -a {' '.join(needs)}")

    @property
    def loading(self) -> str:
        """The calls that load it, for ``perform``."""
        return " ; ".join(
            " ".join(["insmod", f"/root/{one.ko.name}", *getattr(one, "arguments", ())])
            for one in self._objects
        )

    @property
    def unloading(self) -> str:
        """The calls that unload it, for ``perform``."""
        return " ; ".join(f"rmmod {one.name}" for one in reversed(self._objects))

    def load(self) -> None:
        """Load it; the test is skipped where the module says that it cannot work here.

        Of several modules those that can work are loaded, and the others are left out from now on.
        """
        __tracebackhide__ = True
        for one in list(self._objects):
            if one.name in self.known.left_out:  # it needs one that cannot work
                continue
            arguments = getattr(one, "arguments", ())
            insmod = shlex.join(["insmod", f"/root/{one.ko.name}", *arguments])
            done = self.guest.run(insmod)
            if done.ok:
                continue
            if _NO_HARDWARE in done.stderr:
                self._cannot_work(
                    one.name, f"{one.name} loads only with its hardware: {done.stderr.strip()}"
                )
                continue
            if _BAD_PARAMETERS in done.stderr and one.parameters:
                there_are = ", ".join(one.parameters[:NAMED_MAX])
                there_are += ", ..." if len(one.parameters) > NAMED_MAX else ""
                self._cannot_work(
                    one.name, f"{one.name} loads only with parameters, of which it has {there_are} "
                    f"(--param NAME=VALUE sets one): {done.stderr.strip()}"
                )  # fmt: skip
                continue
            if lacking := self._lacking(insmod):
                self._cannot_work(
                    one.name, f"{one.name} loads only with other modules: it asks the kernel for "
                    f"{', '.join(lacking[:NAMED_MAX])}, which this guest does not have: "
                    f"{done.stderr.strip()}"
                )  # fmt: skip
                continue
            named = ""
            if _EXISTS in done.stderr and self.guest.run(f"test -e /sys/module/{one.name}").ok:
                named = " (the kernel has a module of that name already, so it needs another one)"
            pytest.fail(f"{one.name} does not load: {done.stderr.strip()}{named}")

    def _lacking(self, insmod: str) -> list[str]:
        """What a module that does not load has the kernel load, in vain.

        The guest has those of the kernel's modules that the module's file names. What it asks for
        by request_module() only, as for the name of a cipher, is known when it does so.
        """
        self.guest.check(_REMEMBER)
        self.guest.run(insmod)
        said = self.guest.check(f"cat {_LACKING} 2>/dev/null; true")
        return list(dict.fromkeys(said.splitlines()))

    def _cannot_work(self, name: str, why: str) -> None:
        """Leave out one of several modules, and those that need it; skip the test if none stays."""
        __tracebackhide__ = True
        out = {name: why}
        for each in self._objects:  # what one needs is before it
            needs = [needed for needed in each.depends if needed in out]
            if needs:
                out[each.name] = f"{each.name} needs {needs[0]}"
        rest = [each for each in self._objects if each.name not in out]
        if not rest:
            self.known.refused = why
            pytest.skip(why)
        self.known.left_out.update(out)
        self._objects = rest

    def unload(self) -> bool:
        """Unload it, if the kernel lets it go; some modules are there to stay."""
        __tracebackhide__ = True
        (done,) = perform(self.guest, [self.unloading], limit=UNLOAD_SECONDS)
        assert done.how == "ended", f"unloading: {done.told}"
        return set(done.answers) == {"0"}

    def brings(self) -> Brought:
        """Load it and see what is new."""
        __tracebackhide__ = True
        before = set(self.guest.check(_LIST).splitlines())
        self.load()
        # udev's work is the kernel's here (devtmpfs); other things may come a moment later.
        self.guest.check("sleep 0.2")
        new: dict[str, list[str]] = {}
        for line in self.guest.check(_LIST).splitlines():
            if line not in before:
                kind, _, name = line.partition(" ")
                new.setdefault(kind, []).append(name)
        files = [path for path in new.get("file", []) if not any(usual in path for usual in _USUAL)]
        there = [line.partition(" ")[2] for line in before if line.startswith("file ")]
        nodes = new.get("node", [])
        names = dict(line.split(" ", 1) for line in new.get("major", []))
        made = self._make_nodes({int(number): name for number, name in names.items()}, nodes)
        self.known.refused = ""
        self.known.brought = Brought(
            nodes=tuple(nodes + made),
            made=tuple(made),
            files=tuple(sorted(files)[:FILES_MAX]),
            shared=shared(new.get("file", []), there),
            misc=tuple(new.get("misc", [])),
            majors=tuple(int(number) for number in names),
            classes=tuple(new.get("class", [])),
            proc=tuple(new.get("proc", [])),
            debug=tuple(new.get("kernel/debug", [])),
            kernel=tuple(new.get("kernel", [])),
        )
        return self.known.brought

    def _make_nodes(self, majors: dict[int, str], nodes: list[str]) -> list[str]:
        """Nodes for the numbers of character devices that have none, as their authors make them.

        Many examples in books register a number, and leave it to a script or to the reader to run
        mknod(1). ``majors`` are the numbers and their names in /proc/devices.
        """
        __tracebackhide__ = True
        if not majors:
            return []
        there = shlex.join(nodes)
        found = self.guest.check(f"stat -c %t {there} 2>/dev/null; true").split() if nodes else []
        missing = sorted(set(majors) - {int(number, 16) for number in found})
        # register_chrdev() is for all minor numbers at once, also for those that the driver has no
        # use for. Others belong to the driver one by one, and are found by opening them.
        whole = any(b"\0__register_chrdev\0" in one.ko.read_bytes() for one in self._objects)
        made = []
        for major in missing:
            stem = re.sub(r"[^A-Za-z0-9_-]", "_", majors[major])
            paths = [f"/root/{stem}{minor}" for minor in range(1 if whole else _MINORS)]
            for minor, path in enumerate(paths):
                self.guest.check(f"mknod {path} c {major} {minor}")
            opened = perform(self.guest, [f"open {path} r nonblock ; close" for path in paths])
            made += [
                path
                for path, group in zip(paths, opened, strict=True)
                if group.answers[:1] != (str(-errno.ENXIO),)
            ]
        return made

    def parameters(self) -> list[str]:
        """The files of its parameters, of which there is none for those with mode 0."""
        folders = " ".join(f"/sys/module/{one.name}/parameters" for one in self._objects)
        return self.guest.check(f"find {folders} -type f 2>/dev/null; true").split()


@pytest.fixture(scope="session")
def known() -> Known:
    """What is known of the module; nothing at first."""
    return Known()


@pytest.fixture
def with_nodes(known: Known) -> None:
    """Skips a test that needs a device node where it is known that there is none.

    It is to be asked for before a machine is, which then need not be made.
    """
    known.want_nodes()


@pytest.fixture
def with_files(known: Known) -> None:
    """The same for files in sysfs, debugfs and /proc."""
    known.want_files()


@pytest.fixture
def with_parameters(module: Module) -> None:
    """The same for parameters, which a module's file names."""
    if not any(one.parameters for one in module.objects):
        pytest.skip("it has no parameters")


@pytest.fixture
def subject(request: pytest.FixtureRequest, guest: Guest, module: Module, known: Known) -> Subject:
    """The module under test, not loaded yet."""
    for one in module.objects:
        request.node.add_marker(pytest.mark.taint(*declared(one.ko)))
    return Subject(guest, module, known)


@pytest.fixture(scope="session")
def taken(lab: Lab) -> Module:
    """A module that takes a name before another one asks for it."""
    return lab.build(Path(__file__).parent.parent / "taken")


# Where the kernel says, with a stack, that a name is taken.
_NAME_IS_TAKEN = ("proc_register", "sysfs_warn_dup", "kobject_add_internal", "__register_sysctl")


@pytest.fixture
def name_is_taken(request: pytest.FixtureRequest, machine: Clone) -> Callable[[int], None]:
    """Called after what makes the kernel say that a name is taken, with where that began.

    The test has done that, so that it is not the module's fault. That is all that is excused.
    """
    expected = request.node.stash.setdefault(EXPECTED, [])

    def excuse(start: int) -> None:
        text = machine.machine.console_text()
        for event in klog.read(text[start:]):
            # Whom the event names is who asked the kernel for it, and may be the module.
            said_by = {frame.function for frame in event.stack}
            if event.kind is klog.Kind.KOBJECT or said_by.intersection(_NAME_IS_TAKEN):
                found = Expectation(event.kind, event.function, start, len(text))
                expected.append((machine.machine, found))

    return excuse


def faults(groups: list[Group]) -> list[str]:
    """What no driver may do: never come back, or say it took or gave more than it was asked for."""
    found = []
    for group in groups:
        if group.how == "stuck":
            found.append(f"`{group.line}` {group.told}")
        for call, answer in zip(group.line.split(" ; "), group.answers, strict=False):
            word, *rest = call.split()
            if word not in ("read", "write", "pread", "pwrite") or not answer.lstrip("-").isdigit():
                continue
            asked = int(rest[0].partition(":")[0].partition("@")[0])
            if int(answer) > asked or int(answer) < -4095:  # MAX_ERRNO, include/linux/err.h
                found.append(
                    f"`{group.line}`: {call} returns {answer}, which is neither an error nor up to "
                    f"{asked} bytes"
                )
    return found
