# SPDX-License-Identifier: GPL-2.0-only
"""One QEMU process with everything that leads to it, as a context manager.

A ``Machine`` is composed of the process, the monitor, the console, the control port to vm/agent,
the virtual CPUs and what saves and loads it. Each of them is a file beside this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, MachineError, MachineFault
from harness.host.proc import Deadline
from harness.qemu import counts
from harness.qemu.agent import Agent
from harness.qemu.argv import MachineSpec, RecordReplay, Wiring, argv, check_version
from harness.qemu.clock import Clock
from harness.qemu.console import Console
from harness.qemu.counts import Counter
from harness.qemu.debug import Debugger
from harness.qemu.loop import loop
from harness.qemu.port import PacedPort, Port, SocketPort
from harness.qemu.process import Process
from harness.qemu.qmp import Monitor
from harness.qemu.snapshot import Snapshot
from harness.qemu.stalls import GuestDeadline, Pulse, QuietDeadline
from harness.qemu.stream import Stream
from harness.qemu.vcpu import VirtualCpus

# Until QEMU answers. It needs a tenth of a second; nothing but the host can make it late.
START_SECONDS = 180.0
# What a recording may become; half a minute of a guest that is busy is 20 MiB. Its console may too.
RECORD_BYTES = 1 << 30


@dataclass(frozen=True)
class WantedRecording:
    """Where the recording of a machine is to be kept when it ends, and facts for a debugger."""

    folder: Path
    about: Mapping[str, object]


class Machine:
    """One QEMU process. A context manager: at its end the process is gone.

    ``pace`` is how many times slower this machine was seen to be than the ones that the
    harness's deadlines are made for.
    """

    def __init__(self, spec: MachineSpec, folder: Path, counter: Counter | None = None) -> None:
        """Nothing is started yet; ``folder`` is where the console goes.

        ``counter``: what the guest runs of modules is counted, in a file that is made now.
        """
        self.spec = spec
        self._counter = counter
        if counter is not None:
            counts.prepare(counter.file)
        self.pace = 1.0
        self.log = Console(folder / "console.log")
        self.process = Process(folder, self.log, lambda: self.panicked)
        self.cpus = VirtualCpus(lambda: self.process.pid)
        self.pulse = Pulse(
            lambda: self.monitor.ask("query-status"),
            lambda: self.log.size,
            self.cpus.kept_waiting,
            self.process.state,
        )
        self.monitor = Monitor(self.process, self.pulse)
        self.clock = Clock(self._let_run)
        self.ahead = False
        self.agent = Agent(
            spec.kernel.name, self.process, self.log, self.pulse, self.clock, self.monitor.panic
        )
        self.snapshot = Snapshot(self.process, self.monitor)
        self.debugger = Debugger(self.process, self.monitor)
        self.stream = Stream()
        self.paced: PacedPort | None = None  # the control port of a machine that is recorded
        self.wanted: WantedRecording | None = None
        self._watching: asyncio.Task[None] | None = None
        self._port: int | None = None

    def start(
        self,
        deadline: Deadline,
        *,
        memory: Path | None = None,
        share: bool = False,
        incoming: bool = False,
        ahead: bool = False,
        record: RecordReplay | None = None,
        observer: Path | None = None,
    ) -> None:
        """Start QEMU and connect to it; a start that fails leaves nothing running.

        ``ahead``, ``record`` and ``observer``: see ``Wiring``. That socket is to be in a folder
        that is the user's alone, since who speaks to QEMU can have it write any file.
        """
        check_version()
        self.ahead = ahead
        if record is not None:
            self.paced = PacedPort(self.process.folder / "control")
        with contextlib.ExitStack() as ends:
            qmp, qmp_far = (ends.enter_context(end) for end in socket.socketpair())
            control, control_far = (ends.enter_context(end) for end in socket.socketpair())
            stream_far = ends.enter_context(self.stream.open())
            wiring = Wiring(
                self.log.path, qmp_far.fileno(), control_far.fileno(), stream_far.fileno(),
                memory, share, incoming, ahead,
                self.paced.base if self.paced else None, record, self._counter, observer,
            )  # fmt: skip
            descriptors = (wiring.qmp_fd, wiring.control_fd, wiring.ssh_fd)
            self.process.start(argv(self.spec, wiring), descriptors)
            for far in (qmp_far, control_far, stream_far):
                far.close()
            try:
                port = self.paced or SocketPort(control)
                loop().call(self._connect(qmp, port), deadline, "starting QEMU")
                self.process.limit_files(RECORD_BYTES if record else None)
            except BaseException as error:
                died = None
                if isinstance(error, OSError):
                    died = self.process.died("QEMU did not start")  # before it is killed here
                elif isinstance(error, MachineError):
                    died = MachineFault(
                        f"{error.what} ({self.process.state()})", tail=self.process.last_words()
                    )
                self.close()
                if died is not None:
                    raise died from error
                raise

    async def _connect(self, qmp: socket.socket, port: Port) -> None:
        await self.process.watch()
        await self.agent.connect(port)
        await self.monitor.connect(qmp)
        cpus = await self.monitor.ask("query-cpus-fast")
        self.cpus.threads = [cpu["thread-id"] for cpu in cpus]
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Look after the process until it ends: whether it runs, and can write what it has to."""
        with contextlib.suppress(OSError):
            await self.pulse.beat()
            while self.process.look_for_space():
                await self.pulse.beat()

    async def _disconnect(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await self.process.unwatch()
        await self.agent.disconnect()
        await self.monitor.disconnect()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.stream.close()
        with contextlib.suppress(HarnessError):
            loop().call(self._disconnect(), Deadline(5), "closing QMP")
        if self.paced is not None:  # a QEMU that did not start has not come to use it
            self.paced.close()

    def quit(self, deadline: Deadline) -> None:
        """Have QEMU end by itself, so that what it writes is written."""
        with contextlib.suppress(MachineError):
            self.execute("quit", deadline)
        self.process.wait(deadline)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what becomes of it --------------------------------------------------------

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the QEMU process exists (not whether the guest is well)."""
        return self.process.running

    @property
    def panicked(self) -> bool:
        """Whether the guest has reported a panic through pvpanic."""
        return self.monitor.panicked

    @property
    def recordable(self) -> bool:
        """Whether another one like it can be recorded (``Wiring.record``).

        QEMU records one CPU, and not what all devices do. A clock that runs ahead was not seen to
        be recorded, and what runs is not counted meanwhile.
        """
        return self.spec.cpus == 1 and not (self.spec.devices or self.ahead or self._counter)

    @property
    def host_fault(self) -> MachineFault | None:
        """See ``Process.host_fault``."""
        return self.process.host_fault

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

    def patience(self, seconds: float) -> GuestDeadline:
        """A deadline for what takes at most ``seconds`` where that was measured."""
        return GuestDeadline(seconds * self.pace, self._kept_waiting)

    def patience_until_quiet(self, seconds: float, quiet: float) -> QuietDeadline:
        """The same, which also ends when nothing is printed for ``quiet`` seconds."""
        return QuietDeadline(
            seconds * self.pace, quiet * self.pace, lambda: self.log.size, self._kept_waiting
        )

    def _kept_waiting(self) -> float:
        """Seconds for which the host kept the guest from running, so far.

        That includes the time in which the harness has looked at it while it stood still.
        """
        return self.cpus.kept_waiting() + self.pulse.seconds + self.clock.stood

    @property
    def stalls(self) -> list[tuple[int, float]]:
        """When QEMU stood still: where on the console, in characters, and for how many seconds."""
        return [(self.log.position(each.console), each.seconds) for each in self.pulse.stalls]

    # -- what tests use (docs/writing-tests.md); the harness uses the parts themselves ----

    def console_text(self) -> str:
        """Everything on the console so far; of a very long one the beginning and the end."""
        return self.log.text()

    def execute(self, command: str, deadline: Deadline, **arguments: object) -> Any:
        """One QMP command; see ``Monitor.execute``."""
        return self.monitor.execute(command, deadline, **arguments)

    def registers(self, deadline: Deadline) -> str:
        """Each virtual CPU's registers, as text; see ``Debugger.registers``."""
        return self.debugger.registers(deadline)

    # -- what needs more than one of the parts --------------------------------------

    def vcpu_is_busy(self) -> bool:
        """Whether a virtual CPU runs code all the time; see ``VirtualCpus.busy``."""
        with self.clock.running():
            return self.cpus.busy()

    def _let_run(self, run: bool, deadline: Deadline) -> None:
        if not self.panicked:  # QEMU has stopped it, and would let it go on
            self.execute("cont" if run else "stop", deadline)

    # -- how a client comes in -----------------------------------------------------

    def offer_ssh(self, deadline: Deadline) -> None:
        """Have the guest begin a session with whoever answers on ``ssh_stream``.

        Such a session, unlike one through ``ssh_port``, goes through a freeze. A former one must
        have been settled.
        """
        self.stream.drain()  # the last words of the former session
        self.agent.order("offer", "offered", deadline)

    def ssh_stream(self) -> socket.socket:
        """The host's end of the session that was offered, for one client."""
        return self.stream.copy()

    def ssh_port(self, deadline: Deadline) -> int:
        """The port on 127.0.0.1 that QEMU chose for the guest's SSH server."""
        if self._port is None:
            text = self.monitor.human("info usernet", deadline)
            found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", text)
            if not found:
                raise MachineError("QEMU does not say which port it forwards", tail=text)
            self._port = int(found[1])
        return self._port


@contextlib.contextmanager
def booted(
    spec: MachineSpec, folder: Path, deadline: Deadline, counter: Counter | None = None,
    *, ahead: bool = False, observer: Path | None = None,
) -> Iterator[Machine]:  # fmt: skip
    """A machine that was booted until SSH is listening; ``ahead``, ``observer``: see ``Wiring``."""
    with Machine(spec, folder, counter) as machine:
        machine.start(deadline, ahead=ahead, observer=observer)
        machine.agent.await_answer("ready", deadline)
        yield machine
