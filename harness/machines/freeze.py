# SPDX-License-Identifier: GPL-2.0-only
"""Boot once and freeze: what templates are made by.

A template is a machine that was booted until SSH was listening and then frozen: its memory is a
file, the rest of its state a small one.

The recipe is QEMU's own: a shared ``memory-backend-file`` and the migration capability
``x-ignore-shared``, which leaves such memory out of the stream (QEMU, migration/ram.c).
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import qemu
from harness.build.image import GuestImage, Keys
from harness.build.kernel import Kernel
from harness.errors import GuestError, HostError, MachineError, SpaceError
from harness.examine import audit
from harness.host import proc, progress
from harness.host.cache import Cache, Entry, digest_of_files
from harness.host.proc import Deadline
from harness.machines import session
from harness.machines.clone import Clone, clone, thawed
from harness.machines.guest import Guest
from harness.machines.template import BOOT_SECONDS, COUNTS, SESSION, SetUp, Template
from harness.qemu import Machine, MachineSpec, counts
from harness.qemu import devices as qemu_devices
from harness.qemu.memory import dig_holes

log = logging.getLogger(__name__)

# Raises what is wrong with a machine that has been set up and then frozen: it is given the
# kernel's taint flags, or None where the machine did not live to see it.
Look = Callable[[int | None], None]

FACTS = "facts.json"
_BOOTS = 3  # of a kernel that measures its clock wrongly, or that the emulator has led astray
# What a kernel says that has run code while another CPU was changing it.
_ASTRAY = re.compile(r"\bOops: int3\b|\bjump_label: Fatal kernel bug, unexpected op\b")
# Of a kernel that boots: for how long nothing is on its console. 46 s were seen with KASAN.
_QUIET_SECONDS = 100.0
_CLOCK_TOLERANCE = 0.15
_LONGER_SECONDS = 3.0  # answers are late by some tenths of a second


def machine_spec(
    kernel: Kernel, image: GuestImage, cache: Cache, *, memory_mib: int = 512, cpus: int = 1,
    append: tuple[str, ...] = (), devices: tuple[str, ...] = (), emulated: bool = False,
) -> MachineSpec:  # fmt: skip
    """The shape of a machine for this kernel and guest, with the best accelerator there is.

    ``emulated``: without KVM also where there is one.
    """
    spec = MachineSpec(
        kernel=kernel.boot, initrd=image.initrd, memory_mib=memory_mib, cpus=cpus, append=append,
        devices=devices,
    )  # fmt: skip
    if emulated:
        return spec
    accelerator, why = qemu.choose_accelerator(spec, cache)
    log.debug("accelerator: %s (%s)", accelerator, why)
    return replace(spec, accelerator=accelerator)


def prepare_template(
    kernel: Kernel, image: GuestImage, cache: Cache, *, memory_mib: int = 512, cpus: int = 1,
    append: tuple[str, ...] = (), devices: tuple[str, ...] = (), emulated: bool = False,
) -> Template:  # fmt: skip
    """The template of this kernel and guest, booted and frozen if it is not cached."""
    spec = machine_spec(
        kernel, image, cache, memory_mib=memory_mib, cpus=cpus, append=append, devices=devices,
        emulated=emulated,
    )  # fmt: skip
    key = {
        "recipe": 25, "shape": qemu.shape(spec), "kernel": kernel.digest, "image": image.digest,
        # Whether it can go on with a frozen session is found out when freezing.
        "ssh": session.LIBRARY,
        "clock": "compared with the host's",
    }  # fmt: skip
    entry = cache.get(
        "template",
        kernel.name,
        key,
        lambda folder: _boot_and_freeze(spec, image.keys, folder),
        note=f"kernel {kernel.name}: booting {kernel.release} once ({spec.accelerator})",
    )
    template = Template(spec, image.keys, entry, _facts(entry.path))
    _warn(template, kernel.name)
    if template.frozen and (missing := audit.not_looked_for(entry.path)):
        log.warning("kernel %s: nothing looks for %s", kernel.name, missing)
    return template


def _warn(template: Template, name: str) -> None:
    """Say that clones of a template are slow, and why."""
    if template.frozen and template.session is None:
        log.debug(
            "kernel %s: no SSH session is frozen, so each test makes its own (0.3 s): %s",
            name, template.facts["no_session"],
        )  # fmt: skip
    if not template.frozen:
        log.warning(
            "kernel %s: this machine cannot be frozen, so each test boots it (%.0f s): %s",
            name, template.boot_seconds, template.facts["unfrozen"],
        )  # fmt: skip


def derive(
    base: Template,
    label: str,
    key: Mapping[str, object],
    set_up: SetUp,
    cache: Cache,
    *,
    look: Look | None = None,
) -> Template:
    """A template in which ``set_up`` has been done to a clone of ``base``, so that it is
    paid for once.

    ``key`` stands for all that ``set_up`` depends on. What it returns (JSON values) is added
    to the template's facts, what it raises passes through. So does what ``look`` raises, which
    is called when the machine has stopped: freezing one takes a second or more, in which it
    runs on.
    """

    def make(folder: Path) -> None:
        with progress.stage(f"kernel {base.entry.label}: loading {label}", first=False):
            _derive_and_freeze(base, folder, set_up, look)

    entry = cache.get("template", *_derived(base, label, key), make)
    template = replace(base, entry=entry, facts=_facts(entry.path))
    if base.frozen:
        _warn(template, entry.label)
    return template if template.frozen else replace(template, set_ups=(*base.set_ups, set_up))


def has_derived(base: Template, label: str, key: Mapping[str, object], cache: Cache) -> bool:
    """Whether the template that ``derive`` gives need not be made."""
    return base.frozen and cache.has("template", *_derived(base, label, key))


def _derived(
    base: Template, label: str, key: Mapping[str, object]
) -> tuple[str, dict[str, object]]:
    """The label and the key of a derived template in the cache."""
    whole = {"recipe": 25, "base": base.entry.digest, "key": dict(key)} | _counted(base)
    return f"{base.entry.label}-{label}", whole


def _boot_and_freeze(spec: MachineSpec, keys: Keys, folder: Path) -> None:
    """Boot a machine whose memory is a file, stop it, and save the rest of its state.

    It boots again where its clock is wrong, or the emulator has led it astray. Raises ``HostError``
    where that does not help.
    """
    for _ in range(_BOOTS):
        _check_space(spec, folder)
        try:
            rate = _boot_once(spec, keys, folder)
        except _LedAstrayError as error:
            fault: HostError = error
        else:
            if clock_is_right(rate):
                return
            fault = HostError(
                "the guest's kernel takes its processor for another one: its clock runs at "
                f"{rate:.2f} times the rate of this host's",
                hint="a host that is too busy while a kernel boots does that; try again",
            )
        console = f". The end of its console:\n{fault.tail}" if fault.tail else ""
        log.warning("%s; it is booted again%s", fault.what, console)
        for file in folder.iterdir():
            file.unlink()
    raise fault


class _LedAstrayError(HostError):
    """The emulator has run what no processor would have run."""

    def __init__(self, what: str, console: str = "") -> None:
        super().__init__(
            f"{what} (with several CPUs, QEMU before 8.1 does that once in a while)",
            tail=console,
            hint="try again, or install a newer QEMU",
        )


def led_astray(machine: Machine) -> bool:
    """Whether a kernel that boots was led astray by QEMU.

    A kernel changes its own code while it boots (arch/x86/kernel/alternative.c). Where several CPUs
    run at once, QEMU before 8.1 was seen to run what was never there as a whole. On x86 such boots
    ended with these words, and its commit deba78709ae8 is said to have mended that (issues 111 of
    ClangBuiltLinux/boot-utils and 1925 of ClangBuiltLinux/linux). Here it was seen once.
    """
    return _can_be_led_astray(machine.spec) and bool(_ASTRAY.search(machine.console_text()))


def _can_be_led_astray(spec: MachineSpec) -> bool:
    return spec.accelerator == "tcg" and spec.cpus > 1 and qemu.check_version() < (8, 1)


def clock_is_right(rate: float) -> bool:
    """Whether a guest's clock runs as the host's does, at so many times the rate of that.

    A kernel measures its processor's clock against a timer while it boots. Where the host keeps it
    from running meanwhile it may measure anything (native_calibrate_tsc() and
    pit_hpet_ptimer_calibrate_cpu() in arch/x86/kernel/tsc.c): a clock that ran 58 times too fast
    was seen. All clones of a template would have that, and report stalls that are none.
    """
    return 1 / (1 + _CLOCK_TOLERANCE) < rate < 1 + _CLOCK_TOLERANCE


def _clock_rate(machine: Machine, since: tuple[float, float], deadline: Deadline) -> float:
    """How many seconds pass in a guest for one of the host's; ``since``: see ``_clocks``."""
    guest, host = (now - then for now, then in zip(_clocks(machine, deadline), since, strict=True))
    return guest / host


def _clocks(machine: Machine, deadline: Deadline) -> tuple[float, float]:
    """The seconds that a guest has been up, and the host's clock at that moment."""
    up = machine.agent.sleep(0, deadline)
    return up, time.monotonic()


@contextmanager
def _not_led_astray(machine: Machine) -> Iterator[None]:
    """Raise ``_LedAstrayError`` if the machine was led astray within, whatever came of that."""
    try:
        yield
    except (MachineError, GuestError) as error:
        if led_astray(machine):
            raise _LedAstrayError("QEMU has led the kernel astray while it was booting") from error
        raise


def _await_ready(machine: Machine) -> None:
    """Wait until the guest is up; raise ``_LedAstrayError`` where it stands still.

    A kernel that was led astray need not say so. 5.10 stood still on a busy host, once in about 200
    boots. Both its CPUs took a breakpoint for ever, at an instruction that the kernel had put back
    long ago: exc_int3() below sched_clock_idle_wakeup_event(). The kernel takes that for the
    breakpoint of another CPU that has just gone, and tries again (arch/x86/kernel/kprobes/core.c).
    A boot that prints nothing for so long has its console shown, for whoever has to look further.
    """
    if not _can_be_led_astray(machine.spec):
        machine.agent.await_answer("ready", machine.patience(BOOT_SECONDS))
        return
    patience = machine.patience_until_quiet(BOOT_SECONDS, _QUIET_SECONDS)
    try:
        machine.agent.await_answer("ready", patience)
    except MachineError as error:
        if isinstance(error, HostError) or not patience.expired:
            raise
        raise _LedAstrayError(
            "the kernel stood still while it was booting", machine.log.tail()
        ) from error


def _boot_once(spec: MachineSpec, keys: Keys, folder: Path) -> float:
    """Boot and freeze, unless the clock is wrong; its rate, as ``clock_is_right`` wants it."""
    deadline = Deadline(BOOT_SECONDS)
    started = time.monotonic()
    with Machine(spec, folder) as machine, _not_led_astray(machine):
        machine.start(deadline, memory=folder / "memory", share=True)
        with progress.detail(lambda: _last_words(machine)):
            _await_ready(machine)
        deadline = machine.patience(BOOT_SECONDS)
        facts = {
            "boot_seconds": time.monotonic() - started,
            "boot_cpu_seconds": machine.cpus.seconds(),
        }
        since = _clocks(machine, deadline)
        # A first session, so that what the kernel does only once is not done by every clone.
        with Clone(machine, keys) as running:
            audit.note(running.guest, folder)
            rate = _clock_rate(machine, since, deadline)
            if not clock_is_right(rate):
                # An answer may have come late. In a longer time that counts less.
                time.sleep(_LONGER_SECONDS)
                rate = _clock_rate(machine, since, deadline)
            if not clock_is_right(rate):
                return rate
            audit.begin_record(machine, running.guest, folder, deadline)
        machine.agent.take_inventory(deadline)
        if led_astray(machine):  # and has survived it
            raise MachineError("the kernel has reported a fault while it was booting")
        _freeze(machine, keys, folder, facts)
    return rate


def _last_words(machine: Machine) -> str:
    """What the console of a machine that boots said last, if it has said anything."""
    line = progress.last_line(machine.log.path)
    return f"its console: {line}" if line else ""


def _derive_and_freeze(base: Template, folder: Path, set_up: SetUp, look: Look | None) -> None:
    """Put a copy of a template that writes to its own memory file through a set-up."""
    _check_space(base.spec, folder)
    if not base.frozen:
        with clone(base, folder) as running:
            facts = {**base.facts, **set_up(running)}
        (folder / FACTS).write_text(json.dumps(facts))
        return
    deadline = Deadline(BOOT_SECONDS)
    memory = folder / "memory"
    copy = ["cp", "--reflink=auto", "--sparse=always", str(base.memory), str(memory)]
    proc.run(copy, deadline=deadline)
    counter = base.counting.counter() if base.counting else None
    with Machine(base.spec, folder, counter) as machine:
        with thawed(machine, base, deadline, memory=memory, share=True) as running:
            facts = {**base.facts, **set_up(running)}
        _freeze(machine, base.keys, folder, facts, look, base.entry.path)
    if counter is not None:  # it goes with the template. One that fails leaves it to this run
        counts.keep(counter.file, folder / COUNTS)
        counter.file.unlink()


def _counted(base: Template) -> dict[str, object]:
    """What of a key says that what runs is counted, while a template is derived."""
    if base.counting is None or not base.frozen:
        return {}
    return {"counted": digest_of_files(base.counting.plugin.parent, [base.counting.plugin])}


def _facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return facts


def _check_space(spec: MachineSpec, folder: Path) -> None:
    """QEMU does not survive a full disk behind its memory, and cannot say why."""
    if shutil.disk_usage(folder).free < spec.memory_mib << 20:
        raise SpaceError(
            f"no space left for a machine's memory ({spec.memory_mib} MiB) in {folder.parent}",
            hint="free some space, or point EUDYPTULA_CACHE to a folder on a larger disk",
        )


def _freeze(
    machine: Machine,
    keys: Keys,
    folder: Path,
    facts: Mapping[str, object],
    look: Look | None = None,
    base: Path | None = None,
) -> None:
    """End the machine with its state in ``folder``, and see that a clone of that answers.

    A machine that cannot be frozen (or that does not wake up) is no failure: ``facts`` then
    say why, and clones boot. One that takes too long is, one that dies meanwhile, and whatever
    the host does to either QEMU: a bad moment says nothing of the machine, and what ``facts``
    say is kept for as long as the template is.
    """
    deadline = Deadline(BOOT_SECONDS)
    facts = {"taint": 0, **{name: facts[name] for name in facts if name != "no_session"}}
    try:
        facts["taint"] = taint = machine.agent.mark(deadline)
        audit.note_sections(machine, folder, deadline)
        if no_session := _save(machine, keys, folder, deadline):
            facts["no_session"] = no_session
    except (MachineError, GuestError) as error:
        if (fault := machine.host_fault) is not None:
            raise fault from error
        if deadline.expired or isinstance(error, HostError):
            raise
        if machine.panicked or not machine.running:
            if look:
                look(None)
            raise
        unfrozen = error.what
    else:
        if look:
            look(taint)
        dig_holes(folder / "memory")
        # The memory is only read from now on. To look through it takes as long as a trial does.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="harness-settle") as beside:
            settled = beside.submit(audit.settle, folder, base)
            unfrozen = _try_twice(_trial_template(machine, keys, folder, facts), folder, deadline)
            if unfrozen and "no_session" not in facts:
                # It may be the session that no clone can go on with, and not the machine.
                facts["no_session"] = unfrozen
                (folder / SESSION).unlink()
                trial = _trial_template(machine, keys, folder, facts)
                unfrozen = _try_twice(trial, folder, deadline)
            settled.result()
    if unfrozen:
        (folder / FACTS).write_text(json.dumps({**facts, "unfrozen": unfrozen}))
        (folder / "memory").unlink(missing_ok=True)


def _trial_template(
    machine: Machine, keys: Keys, folder: Path, facts: Mapping[str, object]
) -> Template:
    """What is in ``folder``, with these facts, before it is in the cache."""
    (folder / FACTS).write_text(json.dumps(facts))
    return Template(machine.spec, keys, Entry("template", "trial", "", folder), facts)


def _try_twice(template: Template, folder: Path, deadline: Deadline) -> str:
    """Why no clone answers, or "".

    The answer is cached with the template, and one bad moment would make every later clone boot:
    so it takes two clones that do not answer although nothing has happened to their QEMUs.
    """
    why = ""
    for _ in range(2):
        try:
            _try(template, folder, deadline)
        except (MachineError, GuestError) as error:
            if deadline.expired or isinstance(error, HostError):
                raise
            log.debug("the frozen machine did not wake up", exc_info=True)
            why = error.what
        else:
            return ""
    return why


def _try(template: Template, folder: Path, deadline: Deadline) -> None:
    """See that a clone answers; nothing of it stays in ``folder``."""
    with (
        TemporaryDirectory(dir=folder) as trial,
        Machine(template.spec, Path(trial)) as again,
        thawed(again, template, deadline, memory=template.memory) as running,
    ):
        running.guest.check("true")


def _save(machine: Machine, keys: Keys, folder: Path, deadline: Deadline) -> str:
    """Stop the machine and write all of its state but the memory, which is a file already.

    An SSH session is written beside it, unless that cannot be: then the reason is returned.
    """
    qemu_devices.check_saved(machine.spec.devices)
    machine.snapshot.set_capabilities(deadline)
    # A session through a forwarded port does not survive a freeze; one over the stream does.
    machine.agent.order("settle", "settled", deadline)
    no_session = session.fault()
    with ExitStack() as ends:
        guest = None
        if not no_session:
            machine.offer_ssh(deadline)
            stream = machine.ssh_stream()
            guest = ends.enter_context(Guest.over(stream, keys, patience=machine.patience))
            guest.open_shells()
        machine.agent.order("rest", "rested", deadline)
        machine.snapshot.save(folder / "state", deadline)
        machine.quit(deadline)
        if guest is not None:
            # QEMU is gone, so all that the guest has said is here.
            _write_private(folder / SESSION, guest.session(deadline).as_json())
    return no_session


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
