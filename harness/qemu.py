# SPDX-License-Identifier: GPL-2.0-only
"""QEMU: its arguments, its process, its monitor, the guest's two serial ports.

``argv`` is a pure function of a ``MachineSpec``. A ``Machine`` is one QEMU process with
its QMP connection. The first serial port is the console, which QEMU writes to a file by
itself, so that the last words of a dying kernel are there whatever else happens. The
second is the control port to vm/agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hashlib
import logging
import os
import re
import resource
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError

from harness import proc, text
from harness.cache import Cache
from harness.errors import (
    FULL,
    MORE_SPACE,
    BootError,
    HarnessError,
    MachineError,
    MachineFault,
    MissingToolError,
    SpaceError,
    StateError,
)
from harness.proc import Deadline

QEMU = "qemu-system-x86_64"
MIN_VERSION = (7, 2)  # Debian 12's, the oldest that this was tried with
_ANSWER_BYTES = 16 << 20  # of one line of vm/agent's; some hundred stacks are 64 KiB
CONSOLE_TAIL = 25  # lines of console in an error
CONSOLE_KEPT = 8 << 20  # bytes of a console's beginning that are kept, and as many of its end
CONSOLE_MAX = 64 << 20  # bytes; what a guest prints beyond that is lost

# What goes wrong on the monitor becomes an error of ours; it need not be said twice.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)

# An address of QEMU's user network. What the guest sends there comes out of a descriptor,
# and such a connection, unlike one from outside, is part of the machine's frozen state.
SSH_ADDRESS = "10.0.2.100"

# Until QEMU answers. It needs a tenth of a second; nothing but the host can make it late.
START_SECONDS = 180.0

T = TypeVar("T")
EventTest = Callable[[Message], bool]

# Kernel options for every guest.
APPEND = (
    "console=ttyS0",
    # All that the kernel logs is on the console, where it can be read without the guest.
    "ignore_loglevel",
    # /dev/kmsg takes ten messages in five seconds and then drops them without a word, where it
    # is not said otherwise (devkmsg_write() in kernel/printk/printk.c); vm/agent's marks go there.
    "printk.devkmsg=on",
    # With -no-reboot this ends QEMU at once where a panic comes before pvpanic is there.
    "panic=-1",
    # Addresses are the same each time: for debuggers, and for QEMU, which then need not
    # translate a program's code again each time it is started.
    "nokaslr", "norandmaps",
    # An emulated CPU does not speculate, so there is nothing to mitigate; and the virtual
    # clocks need no calibration and no watchdog, which a busy host would set off.
    "mitigations=off", "no_timer_check", "tsc=reliable",
    # A distribution kernel's crypto code tests itself while it boots; that is not the test.
    "cryptomgr.notests", "initcall_blacklist=crypto_kdf108_init",
    # QEMU's RDRAND is the host's own random state.
    "random.trust_cpu=on",
)  # fmt: skip


@dataclass(frozen=True)
class MachineSpec:
    """The shape of a machine; all of it is part of a template's key."""

    kernel: Path
    initrd: Path
    accelerator: str = "tcg"
    memory_mib: int = 512
    cpus: int = 1
    append: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wiring:
    """What differs from one process to the next of the same shape.

    ``memory`` is the file behind the guest's memory (None: QEMU's own), which the machine
    either writes to (``share``) or maps privately; ``incoming`` waits for a state to load.
    """

    console: Path
    qmp_fd: int = 3
    control_fd: int = 4
    ssh_fd: int = 5
    memory: Path | None = None
    share: bool = False
    incoming: bool = False


def argv(spec: MachineSpec, wiring: Wiring) -> list[str]:
    """QEMU's command line."""
    backend = f"memory-backend-ram,id=ram,size={spec.memory_mib}M"
    if wiring.memory is not None:
        backend = (
            f"memory-backend-file,id=ram,size={spec.memory_mib}M,"
            f"share={'on' if wiring.share else 'off'},mem-path={_escaped(wiring.memory)}"
        )
    # 64 MiB hold all the code that a small guest runs; the default would grow to 1 GiB.
    accelerator = "tcg,thread=multi,tb-size=64" if spec.accelerator == "tcg" else spec.accelerator
    # Where there can only be one CPU, TCG leaves out the memory barriers of locked instructions
    # (CF_PARALLEL in accel/tcg/tcg-accel-ops-mttcg.c), which the guest's virtio driver needs
    # against QEMU's other thread: one clone in a thousand missed an interrupt of its network
    # card, and heard nothing from then on.
    smp = f"{spec.cpus},maxcpus={max(2, spec.cpus)}"
    # Before 8.0, TCG's cmpxchg16b may leave a pointer's bits where the flags belong
    # (gen_helper_cmpxchg16b_unlocked in target/i386/tcg/translate.c, cc_op not brought up to date).
    # An interrupt right after it returns with them, the trap flag among them: a warning in
    # exc_debug_kernel(), which nobody has caused. The kernel does without the instruction.
    cpu = "host" if spec.accelerator == "kvm" else "max,-cx16"
    command = [
        QEMU,
        "-nodefaults", "-no-user-config", "-display", "none",
        "-accel", accelerator,
        "-machine", "q35,memory-backend=ram",
        "-cpu", cpu,
        "-object", backend,
        "-m", f"{spec.memory_mib}M",
        "-smp", smp,
        "-kernel", str(spec.kernel),
        "-initrd", str(spec.initrd),
        "-append", " ".join((*APPEND, *spec.append)),
        # The clock is right after a restore because it follows the host's.
        "-rtc", "base=utc,clock=host",
        # A guest that panics is stopped and kept, to be looked at; one that reboots ends.
        "-no-reboot", "-action", "panic=pause",
        "-chardev", f"file,id=console,path={_escaped(wiring.console)},append=on",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=control,fd={wiring.control_fd}",
        "-serial", "chardev:control",
        "-chardev", f"socket,id=qmp,fd={wiring.qmp_fd}",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=ssh,fd={wiring.ssh_fd}",
        "-netdev", "user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22,"
        f"guestfwd=tcp:{SSH_ADDRESS}:22-chardev:ssh",
        # Nobody is there to be told that the guest has moved.
        "-device", "virtio-net-pci,netdev=net,romfile=,guest_announce=off",
        "-device", "pvpanic",
        "-device", "vmcoreinfo",
    ]  # fmt: skip
    if wiring.incoming:
        command += ["-incoming", "defer"]
    return command


def shape(spec: MachineSpec) -> list[str]:
    """What of a machine must be the same for a frozen state to fit it.

    Kernel and initramfs count by their content, which is not for this to look at.
    """
    anywhere = replace(spec, kernel=Path("kernel"), initrd=Path("initrd"))
    # With KVM a state holds what the host's own processor can do; an emulated one is always
    # the same. The cache may have been carried here from another host.
    cpu = [host_cpu()] if spec.accelerator == "kvm" else []
    return [*argv(anywhere, Wiring(Path("console")))[1:], version_text(), *cpu]


CPUINFO = Path("/proc/cpuinfo")
_CPU_FACTS = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags",
              "address sizes")  # fmt: skip


def host_cpu() -> str:
    """What decides which processor a guest of KVM sees: the host's own, and the host's kernel.

    The fields are those of show_cpuinfo() in arch/x86/kernel/cpu/proc.c.
    """
    first = CPUINFO.read_text().partition("\n\n")[0]
    facts = dict(re.findall(r"^(.*?)\s*:\s*(.*)$", first, re.MULTILINE))
    return ", ".join([*(f"{name} {facts.get(name)}" for name in _CPU_FACTS), os.uname().release])


def _escaped(path: Path) -> str:
    """QEMU splits option values at commas; a doubled one is a comma."""
    return str(path).replace(",", ",,")


@cache
def version_text() -> str:
    """What ``qemu-system-x86_64 --version`` says in its first line."""
    done = proc.run([QEMU, "--version"], deadline=Deadline(30))
    return done.stdout.partition("\n")[0]


def check_version() -> tuple[int, int]:
    """QEMU's version; raises ``MissingToolError`` if it is not there or too old."""
    return version_in(version_text())


def version_in(text: str) -> tuple[int, int]:
    """The version in ``--version``'s first line, if it is new enough."""
    found = re.search(r"version (\d+)\.(\d+)", text)
    if not found:
        raise MissingToolError(f"{QEMU} --version says {text!r}, which names no version")
    version = (int(found[1]), int(found[2]))
    if version < MIN_VERSION:
        raise MissingToolError(
            f"{QEMU} is version {version[0]}.{version[1]}; at least "
            f"{MIN_VERSION[0]}.{MIN_VERSION[1]} is needed",
            hint="install a newer qemu-system-x86 (Debian 12, Ubuntu 24.04 or later have one)",
        )
    return version


# -- the event loop ----------------------------------------------------------------
#
# qemu.qmp is asynchronous and everything else here is not. One thread runs one event
# loop for all machines of the process.


class _Loop:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="harness-qmp", daemon=True)
        thread.start()

    def call(self, work: Coroutine[Any, Any, T], deadline: Deadline, what: str) -> T:
        """The result of ``work``; raises ``MachineError`` when the time is up."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                try:
                    return future.result(deadline.left)
                except TimeoutError:
                    if deadline.expired:  # it may have been put off meanwhile: Patience
                        break
            raise MachineError(f"{what} took longer than {deadline.seconds:.1f} s")
        finally:
            future.cancel()


@cache
def _loop() -> _Loop:
    return _Loop()


# -- a machine ---------------------------------------------------------------------


class Patience(Deadline):
    """A deadline on the time of a guest: what the host kept it waiting for does not count.

    So a busy host makes nobody wait in vain, and a guest that sleeps is given up in time.
    """

    def __init__(self, seconds: float, kept_waiting: Callable[[], float]) -> None:
        super().__init__(seconds)
        self._kept_waiting = kept_waiting
        self._before = kept_waiting()

    @property
    def left(self) -> float:
        put_off = max(0.0, self._kept_waiting() - self._before)
        return max(0.0, self._end + put_off - time.monotonic())


@dataclass(frozen=True)
class Stall:
    """A time in which QEMU stood still because the host did not run it.

    It lasted ``seconds``; the console's file had ``console`` bytes when it began.
    """

    console: int
    seconds: float


class Pulse:
    """Asks QEMU for an answer at intervals, and so knows for how long it stood still.

    QEMU's main loop answers within milliseconds, whatever the guest does. A late answer means
    that nobody ran QEMU (it was stopped, or waits for a disk), or nobody here (the container or
    the whole host was frozen). The guest cannot be blamed for that time. The guest's clock goes
    on meanwhile, so its watchdogs may report it afterwards.

    ``ask`` waits for an answer; ``size`` gives the console's length; ``waited`` gives the seconds
    that virtual CPUs were ready to run and had no processor, which count elsewhere already.
    """

    INTERVAL = 0.5  # seconds
    # A busy host makes an answer late, too. What is below this is not counted.
    TOLERATED = 1.0  # seconds
    # A QEMU that stands still for longer is given up.
    LONGEST = 300.0  # seconds

    def __init__(
        self, ask: Callable[[], Awaitable[object]], size: Callable[[], int],
        waited: Callable[[], float], now: Callable[[int], float] = time.clock_gettime,
    ) -> None:  # fmt: skip
        self._stalls: list[Stall] = []
        self._ask, self._size, self._waited, self._now = ask, size, waited, now
        self._put_off = 0.0
        # When the next answer is due, and ``waited`` and ``size`` when that was decided.
        self._due: tuple[float, float, int] | None = None

    async def beat(self) -> None:
        """Wait for an interval, then for an answer; note how late that came."""
        size, waited = self._size(), self._waited()
        # The one clock goes on while the host is suspended, and so may a guest's; no deadline's
        # does (clock_gettime(2)).
        suspended = self._suspended()
        self._due = self._now(time.CLOCK_MONOTONIC) + self.INTERVAL, waited, size
        await asyncio.sleep(self.INTERVAL)
        await self._ask()
        late, asleep = self._late(), self._suspended() - suspended
        if late or asleep > self.TOLERATED:
            self._stalls.append(Stall(size, late + asleep))
        self._put_off += late
        self._due = None

    @property
    def stalls(self) -> list[Stall]:
        """All so far. The last may not be over, or its end not have been noticed yet."""
        due, late = self._due, self._late()
        return [*self._stalls, *([Stall(due[2], late)] if due and late else [])]

    @property
    def seconds(self) -> float:
        """For how long QEMU stood still so far, by the clock that deadlines have."""
        return self._put_off + min(self._late(), self.LONGEST)

    @property
    def standing(self) -> float:
        """For how many seconds it has been standing still until now; 0 if it runs."""
        return self._late()

    def _late(self) -> float:
        due = self._due
        if due is None:
            return 0.0
        late = self._now(time.CLOCK_MONOTONIC) - due[0]
        return max(0.0, late - (self._waited() - due[1])) if late > self.TOLERATED else 0.0

    def _suspended(self) -> float:
        return self._now(time.CLOCK_BOOTTIME) - self._now(time.CLOCK_MONOTONIC)


class _WithoutStalls(Deadline):
    """A deadline as another one has it, put off by what a machine stands still from now on."""

    def __init__(self, deadline: Deadline, pulse: Pulse) -> None:
        self.seconds = deadline.seconds
        self._deadline, self._pulse = deadline, pulse
        self._end = time.monotonic() + deadline.left - pulse.seconds

    @property
    def left(self) -> float:
        mine = self._end + self._pulse.seconds - time.monotonic()
        return max(self._deadline.left, mine, 0.0)


class Console:
    """What a guest has printed, read as it grows, in bounded memory.

    Of a console that is longer than twice ``CONSOLE_KEPT`` the middle is not kept;
    ``unread`` is how many bytes that are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unread = 0
        self._offset = 0  # how much of the file has been read
        self._head = bytearray()
        self._tail = bytearray()

    def read(self) -> bytes:
        """The next bytes, at most a MiB; none when all there is has been read."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read(1 << 20)
        except FileNotFoundError:
            return b""
        self._offset += len(fresh)
        room = CONSOLE_KEPT - len(self._head)
        self._head += fresh[:room]
        self._tail += fresh[room:]
        excess = len(self._tail) - CONSOLE_KEPT
        if excess > 0:
            del self._tail[:excess]
            self.unread += excess
        return fresh

    def position(self, offset: int) -> int:
        """Where in ``text`` the file's byte ``offset`` is, or the end of what is kept of it."""
        return len(self._decoded(bytes(self._head[:offset])))

    def text(self) -> str:
        """All so far, undecodable bytes replaced, lines ended by \\n."""
        while self.read():
            pass
        kept = bytes(self._head)
        if self.unread:
            kept += f"\n(here {self.unread} bytes are left out)\n".encode()
        return self._decoded(kept + self._tail)

    @staticmethod
    def _decoded(text: bytes) -> str:
        return text.decode(errors="replace").replace("\r\n", "\n")


@dataclass(frozen=True)
class Leftovers:
    """What is in a guest that was not there at its inventory; ``names`` are KIND:NAME.

    It is not known while modules are ``loaded`` that were not then: ``mixed`` where others are
    gone already, ``busy`` those that cannot be unloaded.
    """

    names: frozenset[str] = frozenset()
    loaded: bool = False
    mixed: bool = False
    busy: tuple[str, ...] = ()


class Machine:
    """One QEMU process. A context manager: at its end the process is gone.

    ``events`` is what QMP reported so far; ``console_text`` reads what the guest printed;
    ``pace`` is how many times slower this machine was seen to be than the ones that the
    harness's deadlines are made for.
    """

    def __init__(self, spec: MachineSpec, folder: Path) -> None:
        """Nothing is started yet; ``folder`` is where the console goes."""
        self.spec = spec
        self.pace = 1.0
        self._cpus: list[int] = []
        self.console = folder / "console.log"
        self._log = Console(self.console)
        self.events: list[Message] = []
        self.on_panic: Callable[[], None] | None = None
        self._qmp = QMPClient()
        self._link = asyncio.Lock()
        self._pulse = Pulse(self._answers, self._console_size, self._kept_from_running)
        self._watching: asyncio.Task[None] | None = None
        self._no_space: SpaceError | None = None
        self._process: proc.Child | None = None
        self._killed = False  # by ``close``, which is nobody's fault
        self._pidfd = -1
        self._gone: asyncio.Event
        self._listener: asyncio.Task[None] | None = None
        self._owed = 0  # lines that vm/agent has still to say
        self._waiting: list[tuple[EventTest, asyncio.Future[Message]]] = []
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._port: int | None = None
        self._ssh: socket.socket | None = None
        self._stderr = folder / "qemu.log"

    def start(
        self,
        deadline: Deadline,
        *,
        memory: Path | None = None,
        share: bool = False,
        incoming: bool = False,
        greeting: bytes = b"",
    ) -> None:
        """Start QEMU and connect to it; a start that fails leaves nothing running.

        ``greeting`` is what the guest's SSH server said on the offered connection before the
        machine was frozen (see ``offer``): it is heard again first.
        """
        check_version()
        with contextlib.ExitStack() as ends:
            qmp, qmp_far = (ends.enter_context(end) for end in socket.socketpair())
            control, control_far = (ends.enter_context(end) for end in socket.socketpair())
            self._ssh, ssh_far = socket.socketpair()
            ends.enter_context(ssh_far)
            ssh_far.sendall(greeting)
            wiring = Wiring(
                self.console, qmp_far.fileno(), control_far.fileno(), ssh_far.fileno(),
                memory, share, incoming,
            )  # fmt: skip
            errors = ends.enter_context(self._stderr.open("wb"))
            self._process = proc.popen(
                argv(self.spec, wiring),
                stderr=errors,
                stdout=errors,
                pass_fds=(wiring.qmp_fd, wiring.control_fd, wiring.ssh_fd),
            )
            for far in (qmp_far, control_far, ssh_far):
                far.close()
            try:
                _loop().call(self._connect(qmp, control), deadline, "starting QEMU")
                self._limit_files(CONSOLE_MAX)
            except BaseException as error:
                died = None
                if isinstance(error, (QMPError, OSError, EOFError)):
                    died = self._died("QEMU did not start")  # before it is killed here
                elif isinstance(error, MachineError):
                    died = MachineFault(f"{error.what} ({self._state()})", tail=self._last_words())
                self.close()
                if died is not None:
                    raise died from error
                raise

    def _limit_files(self, size: int) -> None:
        """Have what QEMU writes to a file beyond ``size`` bytes fail.

        SIGXFSZ, which comes with that, is blocked in the threads of virtual CPUs; QEMU may
        also end by it, which is no worse: either way ``console_full`` is the reason.
        """
        with contextlib.suppress(ProcessLookupError):  # it has ended: others say so
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    async def _connect(self, qmp: socket.socket, control: socket.socket) -> None:
        self._gone = asyncio.Event()
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._gone.set)
        self._reader, self._writer = await asyncio.open_connection(
            sock=control.dup(), limit=_ANSWER_BYTES
        )
        # Before the handshake, after which QEMU may have something to tell at once.
        listener = EventListener()
        self._qmp.register_listener(listener)
        self._listener = asyncio.create_task(self._listen(listener))
        async with self._link:
            await self._qmp.connect(qmp.dup())
        cpus = await self._qmp.execute("query-cpus-fast")
        assert isinstance(cpus, list)
        self._cpus = [cpu["thread-id"] for cpu in cpus]
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Look after the process until it ends: whether it runs, and can write what it has to."""
        with contextlib.suppress(QMPError):
            while True:
                await self._pulse.beat()
                self._no_space = no_space(self.console.parent)
                if self._no_space is not None:
                    # QEMU does not tell of a write that has failed. What the guest says from now
                    # on is lost, so nobody should wait for it.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self.pid, signal.SIGKILL)
                    return

    async def _answers(self) -> None:
        await self._qmp.execute("query-status")

    def _console_size(self) -> int:
        with contextlib.suppress(OSError):
            return self.console.stat().st_size
        return 0

    async def _listen(self, listener: EventListener) -> None:
        async for event in listener:
            self.events.append(event)
            if _is_panic(event) and self.on_panic is not None:
                # Whoever waits for an answer over the network would wait in vain.
                asyncio.get_running_loop().run_in_executor(None, self.on_panic)
            for test, future in self._waiting:
                if not future.done() and test(event):
                    future.set_result(event)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the QEMU process exists (not whether the guest is well)."""
        return self._process is not None and self._process.poll() is None

    @property
    def host_fault(self) -> MachineFault | None:
        """The error for a QEMU that has ended in a way in which no guest can make it end.

        A guest that powers off or restarts ends it with status 0.
        """
        status = self._process.poll() if self._process is not None else None
        if not status or self._killed:
            return None
        return self._fault(f"QEMU {ending(status)}", status)

    @property
    def fault(self) -> str:
        """What ``host_fault`` says; "" where there is none."""
        return str(self.host_fault or "")

    def check_host(self, deadline: Deadline, cause: BaseException | None = None) -> None:
        """Raise ``MachineFault`` if QEMU has ended by the host's doing, as the cause of ``cause``.

        For whoever finds that the guest does not answer. A connection breaks a moment before the
        process can be waited for, so QEMU is asked rather than looked for.
        """
        with contextlib.suppress(MachineError):
            self.execute("query-status", deadline)
        if (fault := self.host_fault) is not None:
            raise fault from cause

    @property
    def panicked(self) -> bool:
        """Whether the guest has reported a panic through pvpanic."""
        return any(_is_panic(event) for event in self.events)

    def _call(self, work: Coroutine[Any, Any, T], deadline: Deadline, what: str) -> T:
        """The result of ``work``; ``MachineError`` when the time is up.

        What QEMU stands still for meanwhile does not count.
        """
        try:
            return _loop().call(work, _WithoutStalls(deadline, self._pulse), what)
        except MachineError as error:
            if standing := self._pulse.standing:
                raise MachineFault(
                    f"QEMU has stood still for {standing:.0f} s ({self._state()})",
                    hint="see what keeps the host from running it; then run this again",
                ) from error
            raise

    def _state(self) -> str:
        """The state of QEMU's process in words, such as "T (stopped)" (proc_pid_status(5))."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            if found := re.search(r"^State:\s*(.*)$", status, re.MULTILINE):
                return f"state {found[1]}"
        return "its process is gone"

    def execute(self, command: str, deadline: Deadline, **arguments: object) -> Any:
        """One QMP command; raises ``MachineError`` if QEMU refuses it or is gone."""
        try:
            return self._call(
                self._qmp.execute(command, arguments or None), deadline, f"QMP {command}"
            )
        except ExecuteError as error:
            raise MachineError(f"QEMU refuses {command}: {error}") from error
        except QMPError as error:
            raise self._died(f"QEMU is gone (at {command})") from error

    def await_event(
        self, test: EventTest, deadline: Deadline, what: str, *, since: int = 0
    ) -> Message:
        """The first event for which ``test`` holds, of ``events[since:]`` and those to come.

        Raises ``MachineError`` when QEMU ends first or time is up.
        """
        event = self._call(self._unless_gone(self._event(since, test)), deadline, what)
        if event is None:
            raise self._died(f"QEMU ended while {what}")
        return event

    async def _event(self, since: int, test: EventTest) -> Message:
        for event in self.events[since:]:
            if test(event):
                return event
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        waiter = (test, future)
        self._waiting.append(waiter)
        try:
            return await future
        finally:
            self._waiting.remove(waiter)

    async def _unless_gone(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of ``work``, or None when QEMU ends before there is one."""
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            gone.cancel()

    def await_control(self, word: str, deadline: Deadline) -> str:
        """Wait until vm/agent says ``word``; the rest of its line.

        Raises ``BootError`` if it says that something failed, if QEMU ends or the guest
        panics before, and when time is up; each with the end of the console.
        """
        self._owed += 1
        try:
            while True:
                line = self._call(self._control_line(), deadline, f"waiting for {word!r}")
                self._owed -= 1
                if not line or self._owed == 0:
                    break
                # The answer to an earlier order, for which nobody waits any more.
        except MachineFault:
            raise
        except MachineError as error:
            late = f"the guest did not say {word!r} within {deadline.seconds:.0f} s"
            self._raise_boot(late if deadline.expired else error.what, error)
        said, _, rest = line.partition(" ")
        if said != word:
            if not line:
                self._ending()
            what = f"the guest says {line!r}" if line else f"the machine stopped before {word!r}"
            self._raise_boot(what)
        return rest

    async def _control_line(self) -> str:
        """The next line from vm/agent, or "" when QEMU ends or the guest panics first."""
        assert self._reader is not None
        line = asyncio.ensure_future(self._reader.readline())
        panic = asyncio.ensure_future(self._event(0, _is_panic))
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait([line, panic, gone], return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(OSError):
                return line.result().decode(errors="replace").strip() if line.done() else ""
            return ""
        except ValueError as error:  # so readline() tells of a limit
            raise MachineError(
                f"{_ANSWER_BYTES >> 20} MiB without an end of line came on the control port"
            ) from error
        finally:
            for task in (line, panic, gone):
                task.cancel()

    def order(self, text: str, answer: str, deadline: Deadline) -> str:
        """Give vm/agent an order and wait for its answer; the rest of the answer's line."""

        async def send() -> None:
            assert self._writer is not None
            self._writer.write(f"{text}\n".encode())
            await self._writer.drain()

        try:
            self._call(send(), deadline, f"ordering {answer!r}")
        except OSError as error:
            raise self._died(f"QEMU is gone (at {answer!r})") from error
        return self.await_control(answer, deadline)

    def mark(self, deadline: Deadline) -> int:
        """Wait until all that the kernel has logged is on the console; its taint flags.

        The guest logs a word that was never used before: once that is on the console,
        so is everything before it.
        """
        word = f"eudyptula-mark-{secrets.token_hex(4)}"
        taint = int(self.order(f"mark {word}", "marked", deadline))
        window = b""
        while True:
            fresh = self._log.read()
            window = window[-len(word) :] + fresh
            if word.encode() in window:
                return taint
            if self.console_full:
                raise MachineError("the guest has printed more than is kept of a console")
            if deadline.expired:
                if (full := no_space(self.console.parent, quota=True)) is not None:
                    raise MachineFault(full.what, hint=full.hint)
                raise MachineError("the kernel's log does not reach the console")
            if not fresh:
                # QEMU writes the console to a file; there is nothing to wait on but the file.
                time.sleep(0.001)

    def take_inventory(self, deadline: Deadline) -> None:
        """Have the guest remember what there is of all that a module may leave behind."""
        self.order("inventory", "inventory", deadline)

    def leftovers(self, deadline: Deadline, *, end: bool = False) -> Leftovers:
        """What is in the guest now and was not when the inventory was taken.

        ``end``: this is the end of the machine. Where some of the modules that came since are
        gone and others are loaded, nobody can say whose is what. Then the guest ends its
        processes and unloads the others first.
        """
        answer = self.order("leftovers end" if end else "leftovers", "leftovers", deadline)
        first, *rest = answer.split() or [""]
        if first in ("loaded", "mixed"):
            return Leftovers(loaded=True, mixed=first == "mixed")
        if first == "busy":
            return Leftovers(loaded=True, busy=tuple(rest))
        return Leftovers(frozenset(answer.split()))

    def leaks(self, deadline: Deadline) -> str:
        """What kmemleak has found since it was last remembered, in kmemleak's own words."""
        return unquote(self.order("leaks", "leaks", deadline))

    def stacks(self, deadline: Deadline) -> str:
        """The stacks of the tasks that are in a module's code, in the form of a kernel log."""
        lines = []
        for task in self.order("stacks", "stacks", deadline).split():
            who, _, frames = task.rpartition(":")
            lines += [
                f"task {who}:",
                *(f" {name.replace('_[', ' [')}" for name in frames.split(",")),
            ]
        return "\n".join(lines)

    def spins(self, seconds: float = 0.5) -> bool:
        """Whether a virtual CPU runs code all the time, rather than sleep now and then.

        A CPU that waits for an interrupt costs its thread nothing on the host. One that runs
        code counts even while it waits for a busy host's processor.
        """

        def wanted() -> list[float]:
            return [sum(self._schedstat(thread)) / 1e9 for thread in self._cpus]

        before = wanted()
        threading.Event().wait(seconds)  # what passes in this time is what is measured
        return any(now - then > seconds / 2 for now, then in zip(wanted(), before, strict=True))

    def patience(self, seconds: float) -> Patience:
        """A deadline for what takes at most ``seconds`` where that was measured."""
        return Patience(seconds * self.pace, self._kept_waiting)

    def _kept_waiting(self) -> float:
        """Seconds for which the host kept the guest from running, so far."""
        return self._kept_from_running() + self._pulse.seconds

    def _kept_from_running(self) -> float:
        """Seconds for which a virtual CPU was ready to run and had no processor of the host."""
        with contextlib.suppress(OSError):  # QEMU is gone, which whoever waits will notice
            return max((self._schedstat(cpu)[1] for cpu in self._cpus), default=0) / 1e9
        return 0.0

    @property
    def stalls(self) -> list[tuple[int, float]]:
        """When QEMU stood still: where on the console, in characters, and for how many seconds."""
        return [(self._log.position(each.console), each.seconds) for each in self._pulse.stalls]

    def cpu_seconds(self) -> float:
        """How much of the host's processors the virtual CPUs have used."""
        return sum(self._schedstat(cpu)[0] for cpu in self._cpus) / 1e9

    def _schedstat(self, thread: int) -> tuple[int, int]:
        """Nanoseconds on a processor and ready for one (scheduler/sched-stats.rst)."""
        stat = Path(f"/proc/{self.pid}/task/{thread}/schedstat").read_text().split()
        return int(stat[0]), int(stat[1])

    def offer(self, deadline: Deadline) -> bytes:
        """Have the guest begin an SSH session that waits for a client; what its server said.

        In a clone such a session is there already, for a third of what another costs. A
        former one must have been settled.
        """
        assert self._ssh is not None
        self._ssh.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._ssh.recv(1 << 16):
                pass  # the last words of the former session
        self._ssh.setblocking(True)
        self.order("offer", "offered", deadline)
        said = b""
        while (greeting := ssh_greeting(said)) is None:
            self._ssh.settimeout(max(deadline.left, 0.001))
            try:
                more = self._ssh.recv(1 << 16)
            except TimeoutError:
                more = b""
            if not more:
                raise self._died("the guest's SSH server does not greet")
            said += more
        return greeting

    def ssh_stream(self) -> socket.socket:
        """The host's end of the session that was offered, for one client."""
        assert self._ssh is not None
        # A copy: the end of one client is not to end the connection, which the next offer needs.
        return self._ssh.dup()

    def capable(self, deadline: Deadline, *, whole: bool = False) -> None:
        """Ask for what saving and loading needs; raises ``MachineError`` where QEMU lacks it.

        ``x-ignore-shared`` leaves memory that is a shared file out of the stream.
        """
        states = {"x-ignore-shared": not whole, "events": True}
        wanted = [{"capability": name, "state": state} for name, state in states.items()]
        self.execute("migrate-set-capabilities", deadline, capabilities=wanted)

    def save(self, path: Path, deadline: Deadline, *, whole: bool = False) -> None:
        """Stop the machine and write its state to a file, but for memory that is a shared file.

        That too if the ``whole`` is wanted.
        """
        self.capable(deadline, whole=whole)
        self._limit_files(resource.RLIM_INFINITY)
        self.execute("stop", deadline)
        # In bytes a second; the default is made for networks.
        self.execute("migrate-set-parameters", deadline, **{"max-bandwidth": 10 << 30})
        since = len(self.events)
        # QEMU has file: since 8.2 only, and exec: takes a shell's line.
        self.execute("migrate", deadline, uri=f"exec:cat > {shlex.quote(str(path))}")
        self._await_migration(since, path.parent, deadline)

    def load(self, path: Path, deadline: Deadline, *, whole: bool = False) -> None:
        """Load what ``save`` has written into a machine that was started for that.

        Raises ``StateError`` where QEMU does not take it.
        """
        self.capable(deadline, whole=whole)
        if check_version() >= (8, 2):
            uri = f"file:{path}"
        else:  # a descriptor that is sent over the monitor's socket
            with path.open("rb") as file:
                self._qmp.send_fd_scm(file.fileno())
                self.execute("getfd", deadline, fdname="state")
            uri = "fd:state"
        try:
            self.execute("migrate-incoming", deadline, uri=uri)
            self._await_migration(0, path.parent, deadline)
        except MachineFault as fault:
            # process_incoming_migration_co() in migration/migration.c ends QEMU when a state does
            # not fit. That is no signal, and says something of the state rather than of the host.
            if "load of migration failed" in fault.tail:
                raise StateError("QEMU does not take the saved state", tail=fault.tail) from fault
            raise

    def go_on(self, deadline: Deadline) -> None:
        """Let a machine run on that was saved."""
        self._limit_files(CONSOLE_MAX)
        # The event that all is written comes a moment before QEMU has done with it (qmp_cont() in
        # monitor/qmp-cmds.c refuses until then), and nothing tells of that.
        while self.execute("query-status", deadline)["status"] == "finish-migrate":
            time.sleep(0.001)
        self.execute("cont", deadline)

    def _await_migration(self, since: int, folder: Path, deadline: Deadline) -> None:
        """Until QEMU has written or read a state in ``folder``."""
        event = self.await_event(
            lambda event: (
                event["event"] == "MIGRATION" and _status(event) in ("completed", "failed")
            ),
            deadline,
            "saving or loading the machine's state",
            since=since,
        )
        if _status(event) == "failed":
            if (full := no_space(folder)) is not None:
                raise MachineFault(
                    f"the machine's state is not written: {full.what}", hint=full.hint
                )
            told = self.execute("query-migrate", deadline)
            raise StateError("QEMU could not save or load the machine's state", tail=str(told))

    def debugger(self, path: Path, deadline: Deadline) -> None:
        """Have QEMU wait for gdb on a Unix socket.

        ``path`` is to be in a folder that is the user's alone. It is no TCP port, because gdb's
        `monitor` reaches QEMU's own command line, which can start programs, and anybody on this
        host may connect to a port.
        """
        line = {"command-line": f"gdbserver unix:{_escaped(path)},server=on,wait=off"}
        said = str(self.execute("human-monitor-command", deadline, **line))
        if "Waiting for gdb connection" not in said:
            raise MachineError(f"QEMU does not open a socket for gdb: {said.strip()}")

    def registers(self, deadline: Deadline) -> str:
        """The registers of all virtual CPUs, as QEMU prints them."""
        line = {"command-line": "info registers -a"}
        return str(self.execute("human-monitor-command", deadline, **line))

    def dump(self, path: Path, deadline: Deadline) -> None:
        """Write the guest's memory to a file that crash(8) and drgn read (kdump, zlib)."""
        self._limit_files(resource.RLIM_INFINITY)
        try:
            self.execute(
                "dump-guest-memory", deadline, paging=False, protocol=f"file:{path}",
                format="kdump-zlib",
            )  # fmt: skip
        except MachineError:
            path.unlink(missing_ok=True)  # half of it is of no use
            raise

    def ssh_port(self, deadline: Deadline) -> int:
        """The port on 127.0.0.1 that QEMU chose for the guest's SSH server."""
        if self._port is None:
            text = self.execute(
                "human-monitor-command", deadline, **{"command-line": "info usernet"}
            )
            found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", str(text))
            if not found:
                raise MachineError("QEMU does not say which port it forwards", tail=str(text))
            self._port = int(found[1])
        return self._port

    def console_text(self) -> str:
        """Everything on the console so far; of a very long one the beginning and the end."""
        return self._log.text()

    @property
    def console_unread(self) -> int:
        """How many bytes of the console ``console_text`` has left out."""
        return self._log.unread

    @property
    def console_full(self) -> bool:
        """Whether the guest has printed more than QEMU was allowed to write."""
        with contextlib.suppress(FileNotFoundError):
            return self.console.stat().st_size >= CONSOLE_MAX
        return False

    def quit(self, deadline: Deadline) -> None:
        """Have QEMU end by itself, so that what it writes is written."""
        with contextlib.suppress(MachineError):
            self.execute("quit", deadline)
        if self._process is not None:
            try:
                self._process.wait(deadline.left)
            except subprocess.TimeoutExpired:
                raise MachineError("QEMU does not end when asked to") from None

    def wait(self) -> None:
        """Until QEMU has ended by itself."""
        assert self._process is not None
        self._process.wait()

    def close(self) -> None:
        """End the process. A machine has nothing to save, so it is simply killed."""
        if self._process is not None:
            self._killed = self._killed or self._process.poll() is None
            proc.kill(self._process)
        if self._ssh is not None:
            self._ssh.close()
        with contextlib.suppress(HarnessError):
            _loop().call(self._disconnect(), Deadline(5), "closing QMP")

    async def _disconnect(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        for task in (self._listener, self._watching):
            if task is not None:
                task.cancel()
        if self._writer is not None:
            self._writer.close()
        # A connect that is being cancelled disconnects too, and qemu.qmp does not bear both.
        async with self._link:
            with contextlib.suppress(QMPError, EOFError, OSError):
                await self._qmp.disconnect()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def console_tail(self) -> str:
        """The last lines of the console."""
        return text.last_lines(self.console_text(), CONSOLE_TAIL)

    def _raise_boot(self, what: str, cause: Exception | None = None) -> NoReturn:
        if (fault := self.host_fault) is not None:
            raise fault from cause
        tail = self.console_tail()
        raise BootError(
            f"{self.spec.kernel.name}: {what}",
            tail=f"end of the console:\n{tail}" if tail else "(the console is empty)",
        ) from cause

    def _ending(self) -> int | None:
        """The exit status of a QEMU that has closed its connections; None if it stays."""
        if self._process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(0 if self.panicked else 2)
        return None

    def _died(self, what: str) -> MachineError:
        """The error for a QEMU that has closed its connections; ``what`` says when."""
        status = self._ending()
        if status:
            return self._fault(f"{what}: it {ending(status)}", status)
        return MachineError(what, status=status, tail=self._last_words())

    def _fault(self, what: str, status: int) -> MachineFault:
        full = self._no_space or no_space(self.console.parent)
        if full is not None:
            return MachineFault(full.what, status=status, tail=self._last_words(), hint=full.hint)
        hint = ""
        if status == -signal.SIGKILL:
            hint = "`dmesg` of this host says whether it has run out of memory; then run this again"
        tail = self._last_words()
        if printed := self.console_tail():
            tail += f"\nend of the guest's console:\n{printed}"
        return MachineFault(what, status=status, tail=tail.strip(), hint=hint)

    def _last_words(self) -> str:
        """What QEMU has written to its standard error."""
        with contextlib.suppress(OSError):
            return self._stderr.read_text(errors="replace").strip()
        return ""


def ending(status: int) -> str:
    """What a process that ended with this status, as ``subprocess`` has it, has met."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-status}"


def ssh_greeting(said: bytes) -> bytes | None:
    """The identification and the first packet of an SSH server, or None if more is to come.

    What precedes the identification is dropped. The forms are those of RFC 4253, 4.2 (a line
    that begins with SSH-2.0-) and 6 (a packet begins with its length in four bytes).
    """
    start = said.find(b"SSH-2.0-")
    end = said.find(b"\r\n", start) + 2 if start >= 0 else 1
    packet = said[end:]
    if end < 2 or len(packet) < 4:
        return None
    whole = end + 4 + int.from_bytes(packet[:4], "big")
    return said[start:whole] if len(said) >= whole else None


def _status(event: Message) -> str:
    data = event["data"]
    assert isinstance(data, dict)
    return str(data["status"])


def _is_panic(event: Message) -> bool:
    return event["event"] == "GUEST_PANICKED"


@contextlib.contextmanager
def booted(spec: MachineSpec, folder: Path, deadline: Deadline) -> Iterator[Machine]:
    """A machine that was booted until SSH is listening."""
    with Machine(spec, folder) as machine:
        machine.start(deadline)
        machine.await_control("ready", deadline)
        yield machine


_ROOM = 64 << 20  # bytes; where so much is free, nothing that is written here fails
_PROBE = 1 << 16  # bytes


def no_space(folder: Path, *, quota: bool = False) -> SpaceError | None:
    """The error for a disk on which no more can be written, or None.

    ``quota``: also look for a quota that is used up, which costs a write.
    """
    try:
        if not quota and shutil.disk_usage(folder).free > _ROOM:
            return None
        # Only a write tells: what is free may be kept for root, and a quota shows nowhere.
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            if file.write(bytes(_PROBE)) == _PROBE:
                return None
    except OSError as error:
        if error.errno not in FULL:
            return None
    return SpaceError(f"no space left in {folder.parent}", hint=MORE_SPACE)


# -- the accelerator ---------------------------------------------------------------

PROBE_SECONDS = 10.0  # of the guest's time; where KVM works, it takes about one


class Reach(enum.Enum):
    """How far a machine came with KVM."""

    BOOTED = enum.auto()
    QEMU = enum.auto()  # QEMU reports that KVM failed, or ends by itself
    KERNEL = enum.auto()  # QEMU goes on, but this kernel does not come up: one of the two is broken
    NOTHING = enum.auto()  # the host ended QEMU, which says nothing of KVM


def accelerator(spec: MachineSpec, cache_: Cache) -> tuple[str, str]:
    """("kvm" or "tcg", why): KVM only where it has been seen to boot a kernel.

    /dev/kvm may exist, open, and create a virtual machine, and still be unable to run a
    kernel: QEMU then stops with an internal error or spins in silence. The answer is kept until
    the host boots again. Where only this kernel does not come up, it is kept for this kernel:
    that may be the kernel's own fault. Raises ``MachineFault`` where the host runs no QEMU at all.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "no access to /dev/kvm"
    own = hashlib.sha256(spec.kernel.read_bytes()).hexdigest()[:16]
    known = kvm_answer(cache_.root) or kvm_answer(cache_.root, own)
    if known is not None:
        return known
    probe = MachineSpec(spec.kernel, spec.initrd, "kvm", spec.memory_mib)
    with cache_.scratch("kvm-probe") as folder:
        reach, why = try_kvm(probe, folder)
        if reach is Reach.QEMU:
            # Without KVM, too? Then it says nothing of KVM, and no template can be made either.
            with Machine(replace(probe, accelerator="tcg"), folder) as machine:
                machine.start(Deadline(START_SECONDS))
    if reach is Reach.BOOTED:
        answer = "kvm", "KVM has booted a kernel on this host"
    else:
        answer = "tcg", f"/dev/kvm is there but cannot boot a kernel ({why})"
    if reach is not Reach.NOTHING:
        file = _kvm_answer_file(cache_.root, own if reach is Reach.KERNEL else "")
        fresh = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}")
        fresh.write_text(" ".join(answer))
        fresh.rename(file)
    return answer


# What a host sends, as opposed to what QEMU dies of by its own mistake (signal(7)).
_BY_HOST = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGBUS}


def try_kvm(spec: MachineSpec, folder: Path) -> tuple[Reach, str]:
    """How far a machine of this shape comes, and why not farther."""
    with Machine(spec, folder) as machine:
        try:
            machine.start(Deadline(START_SECONDS))
            # What a busy host keeps it waiting for does not count.
            machine.await_control("ready", machine.patience(PROBE_SECONDS))
        except MachineFault as fault:
            by_host = fault.status is None or fault.status in _BY_HOST
            return (Reach.NOTHING if by_host else Reach.QEMU), fault.what
        except MachineError as error:
            with contextlib.suppress(MachineError):
                # RunState in qapi/run-state.json
                if machine.execute("query-status", Deadline(5))["status"] == "internal-error":
                    return Reach.QEMU, "an internal error of QEMU"
            return Reach.KERNEL, error.what
    return Reach.BOOTED, ""


def kvm_answer(root: Path, kernel: str = "") -> tuple[str, str] | None:
    """What an earlier probe found since the host booted, or None.

    For all kernels, or for the one that ``kernel`` is the digest of. A file that holds no answer,
    such as an empty one that a power failure leaves, is none.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError):
        verdict, _, why = _kvm_answer_file(root, kernel).read_text().partition(" ")
        if verdict in ("kvm", "tcg"):
            return verdict, why
    return None


def _kvm_answer_file(root: Path, kernel: str = "") -> Path:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return root / "-".join(filter(None, ("kvm", boot_id, kernel)))
