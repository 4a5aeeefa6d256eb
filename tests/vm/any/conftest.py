# SPDX-License-Identifier: GPL-2.0-only
"""What a module brings into a guest, found out by looking: nothing is known of it before.

A module that is right is never red here. What a driver may do is not held against it: an error
from any call, a call that waits, an init that finds no hardware. What the kernel says, what does
not come back even when it is killed, and what is left behind is.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import klog
from harness.judge.verdict import Expectation
from harness.plugin.expect import EXPECTED
from harness.testing import Clone, Guest, Lab, Module

from ..calls import Group, perform
from ..modinfo import FREE, modinfo

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
# Files of which there is one for each device, whatever its driver does.
_USUAL = ("uevent", "/power/", "/subsystem/", "/driver/")
# More files of a module than this are not tried. A network device has a hundred.
FILES_MAX = 150


@dataclass(frozen=True)
class Brought:
    """What came with a module: paths in the guest, and names for which the kernel has a list."""

    nodes: tuple[str, ...]
    files: tuple[str, ...]
    misc: tuple[str, ...]
    majors: tuple[int, ...]
    classes: tuple[str, ...]
    proc: tuple[str, ...]
    debug: tuple[str, ...]
    kernel: tuple[str, ...]  # in /sys/kernel


_LIST = r"""
find /dev \( -type c -o -type b \) -printf 'node %p\n'
find /sys/devices /sys/class /sys/kernel /sys/bus /sys/fs /sys/block -type f \
    -not -path '/sys/kernel/tracing/*' -not -path '/sys/kernel/slab/*' -printf 'file %p\n'
find /proc -path '/proc/[0-9]*' -prune -o -type f -not -path '/proc/sys/*' \
    -not -path '/proc/*self/*' -printf 'file %p\n'
sed 's/^ *[0-9]* /misc /' /proc/misc
sed -n '/Character/,/^$/s/^ *\([0-9]\+\) .*/major \1/p' /proc/devices
for folder in class kernel kernel/debug; do ls /sys/$folder | sed "s,^,$folder ,"; done
ls /proc | grep -v '^[0-9]' | sed 's/^/proc /'
"""


class Subject:
    """The module under test in one guest, which has its files and has not loaded it."""

    def __init__(self, guest: Guest, module: Module) -> None:
        self.guest = guest
        self.module = module
        self._objects = module.objects
        for one in self._objects:
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
        """Load it; the test is skipped where the module says that it cannot work here."""
        __tracebackhide__ = True
        for one in self._objects:
            arguments = getattr(one, "arguments", ())
            done = self.guest.run(shlex.join(["insmod", f"/root/{one.ko.name}", *arguments]))
            if done.ok:
                continue
            if _NO_HARDWARE in done.stderr:
                pytest.skip(f"{one.name} loads only with its hardware: {done.stderr.strip()}")
            if _BAD_PARAMETERS in done.stderr and one.parameters:
                pytest.skip(f"{one.name} loads only with parameters: {done.stderr.strip()}")
            named = ""
            if _EXISTS in done.stderr and self.guest.run(f"test -e /sys/module/{one.name}").ok:
                named = " (the kernel has a module of that name already, so it needs another one)"
            pytest.fail(f"{one.name} does not load: {done.stderr.strip()}{named}")

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
        return Brought(
            nodes=tuple(new.get("node", [])),
            files=tuple(sorted(files)[:FILES_MAX]),
            misc=tuple(new.get("misc", [])),
            majors=tuple(int(number) for number in new.get("major", [])),
            classes=tuple(new.get("class", [])),
            proc=tuple(new.get("proc", [])),
            debug=tuple(new.get("kernel/debug", [])),
            kernel=tuple(new.get("kernel", [])),
        )

    def parameters(self) -> list[str]:
        """The files of its parameters, of which there is none for those with mode 0."""
        folders = " ".join(f"/sys/module/{one.name}/parameters" for one in self._objects)
        return self.guest.check(f"find {folders} -type f 2>/dev/null; true").split()


def declared(ko: Path) -> tuple[str, ...]:
    """The taints that a module says that it will set, as the marker ``taint`` names them.

    kernel/module/main.c, check_modinfo() and module_augment_kernel_taints().
    """
    found = [name for name in ("staging", "test", "livepatch") if modinfo(ko, name)]
    licences = modinfo(ko, "license")
    if not licences or any(licence not in FREE for licence in licences):
        found.append("proprietary")
    return tuple(found)


@pytest.fixture
def subject(request: pytest.FixtureRequest, guest: Guest, module: Module) -> Subject:
    """The module under test, not loaded yet."""
    for one in module.objects:
        request.node.add_marker(pytest.mark.taint(*declared(one.ko)))
    return Subject(guest, module)


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
            if event.kind is klog.Kind.KOBJECT or event.function in _NAME_IS_TAKEN:
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
