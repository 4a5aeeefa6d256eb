# SPDX-License-Identifier: GPL-2.0-only
"""Devices of QEMU that a machine is given besides its own, as QEMU's option -device takes them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import InputError, MachineError
from harness.host import proc
from harness.host.proc import Deadline
from harness.qemu.argv import QEMU

_SECONDS = 60.0  # QEMU answers in a fifth of one
# A QEMU that only says what devices it has, and what they take.
_BARE = (QEMU, "-nodefaults", "-no-user-config", "-machine", "q35", "-display", "none")
_LISTED = re.compile(r'^name "([^"]+)"(?:.*\balias "([^"]+)")?', re.MULTILINE)
# What its monitor says of a machine that has all its devices and has not run.
_READY = "VM status: paused"
# A virtio device on a PCI bus is two devices, and what is saved is the other one's state.
_ON_PCI = re.compile(r"^(virtio-.+)-pci(?:-(?:non-)?transitional)?$")


def name_of(device: str) -> str:
    """The name in NAME[,OPTION=VALUE...]."""
    return device.partition(",")[0]


def named(help_text: str) -> dict[str, str]:
    """The devices that ``-device help`` lists: each name and each alias, and the name it is for."""
    found = {}
    for name, alias in _LISTED.findall(help_text):
        found[name] = name
        if alias:
            found[alias] = name
    return found


def check(devices: Sequence[str]) -> None:
    """Raise ``InputError`` for a device that QEMU does not know, or not with these options."""
    if not devices:
        return
    known = _known()
    for name in map(name_of, devices):
        if name not in known:
            raise InputError(f"QEMU has no device named {name!r}", hint=_near(name, list(known)))
    _try(tuple(devices))


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=5)
    near += [each for each in known if len(name) > 2 and name in each and each not in near]
    listed = f"`{QEMU} -device help` lists them"
    return f"did you mean {' or '.join(near[:5])}? {listed}" if near else listed


@cache
def _known() -> Mapping[str, str]:
    return named(proc.run([QEMU, "-device", "help"], deadline=Deadline(_SECONDS)).stdout)


@cache
def _try(devices: tuple[str, ...]) -> None:
    """Have QEMU make these devices. It ends before any machine would run.

    Only what its monitor answers shows that it has: for ``edu,help`` QEMU ends with 0, too.
    """
    options = [word for device in devices for word in ("-device", device)]
    done = proc.run(
        [*_BARE, "-S", "-monitor", "stdio", *options],
        deadline=Deadline(_SECONDS), stdin=b"info status\nquit\n", check=False,
    )  # fmt: skip
    if done.status == 0 and _READY in done.stdout:
        return
    said = [line.removeprefix(f"{QEMU}: ") for line in done.stderr.splitlines() if line.strip()]
    what = said[-1] if said else f"-device {devices[-1]} makes no device"
    last = name_of(devices[-1])
    raise InputError(
        f"QEMU does not take these devices: {what}",
        hint=f"`{QEMU} -device {last},help` lists the options of {last}",
    )


# -- which of them can be frozen ---------------------------------------------------


def check_saved(devices: Sequence[str]) -> None:
    """Raise ``MachineError`` where QEMU would leave a device's state out when it saves a machine.

    It does so without a word. A machine that goes on from such a state has a device that nobody has
    set up: ``edu`` of QEMU 7.2 was seen to be without its address on the bus.
    """
    lost = unsaved(devices, _with_state() if devices else frozenset(), _known() if devices else {})
    if lost:
        raise MachineError(f"QEMU does not save the state of its device {', '.join(lost)}")


def unsaved(
    devices: Sequence[str], with_state: frozenset[str], known: Mapping[str, str]
) -> list[str]:
    """Those of ``devices`` whose state is not saved, by their names.

    ``with_state``: the devices that say what their state is. ``known``: names by alias.
    """
    found = []
    for device in devices:
        name = known.get(name_of(device), name_of(device))
        on_pci = _ON_PCI.match(name)
        names = {name, on_pci[1], f"{on_pci[1]}-device"} if on_pci else {name}
        if not names & with_state:
            found.append(name)
    return found


@cache
def _with_state() -> frozenset[str]:
    """The devices that say what their state is (VMStateDescription; QEMU, docs/devel/migration)."""
    with TemporaryDirectory(prefix="eudyptula-") as folder:
        path = Path(folder) / "vmstate.json"
        proc.run([*_BARE, "-dump-vmstate", str(path)], deadline=Deadline(_SECONDS))
        return frozenset(json.loads(path.read_text()))
