# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's monitor: commands, and the events that it reports by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError

from harness.errors import MachineError
from harness.host.proc import Deadline
from harness.qemu.process import Process
from harness.qemu.stalls import Pulse

# qemu.qmp logs each error before it raises it. They become MachineErrors, which are shown.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)

Event = Message  # what QEMU reports by itself, as a dictionary
EventTest = Callable[[Event], bool]


class Monitor:
    """The QMP connection to one QEMU. ``events`` is what was reported so far.

    ``on_panic`` is called when the guest has panicked.
    """

    def __init__(self, process: Process, pulse: Pulse) -> None:
        self.events: list[Message] = []
        self.on_panic: Callable[[], None] | None = None
        self._process = process
        self._pulse = pulse
        self._client = QMPClient()
        self._link = asyncio.Lock()
        self._listener: asyncio.Task[None] | None = None
        self._waiting: list[tuple[EventTest, asyncio.Future[Message]]] = []

    async def connect(self, stream: socket.socket) -> None:
        """Do the handshake on a stream to QEMU; ``OSError`` if it hangs up."""
        # Before the handshake, after which QEMU may have something to tell at once.
        listener = EventListener()
        self._client.register_listener(listener)
        self._listener = asyncio.create_task(self._listen(listener))
        try:
            async with self._link:
                await self._client.connect(stream.dup())
        except (QMPError, EOFError) as error:
            raise ConnectionError(str(error)) from error

    async def disconnect(self) -> None:
        """Undo ``connect``."""
        if self._listener is not None:
            self._listener.cancel()
        # A connect that is being cancelled disconnects too, and qemu.qmp does not bear both.
        async with self._link:
            with contextlib.suppress(QMPError, EOFError, OSError):
                await self._client.disconnect()

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
    def panicked(self) -> bool:
        """Whether the guest has reported a panic through pvpanic."""
        return any(_is_panic(event) for event in self.events)

    async def panic(self) -> None:
        """Until the guest has reported a panic."""
        await self.event(0, _is_panic)

    async def ask(self, command: str) -> Any:
        """The answer to one command, for who is in the event loop; ``OSError`` if there is none."""
        try:
            return await self._client.execute(command)
        except QMPError as error:
            raise ConnectionError(str(error)) from error

    def execute(self, command: str, deadline: Deadline, **arguments: object) -> Any:
        """One QMP command; raises ``MachineError`` if QEMU refuses it or is gone."""
        try:
            return self._pulse.call(
                self._client.execute(command, arguments or None), deadline, f"QMP {command}"
            )
        except ExecuteError as error:
            raise MachineError(f"QEMU refuses {command}: {error}") from error
        except QMPError as error:
            raise self._process.died(f"QEMU is gone (at {command})") from error

    def human(self, line: str, deadline: Deadline) -> str:
        """The output of a command of QEMU's human monitor, for what has no command in QMP."""
        return str(self.execute("human-monitor-command", deadline, **{"command-line": line}))

    def send_descriptor(self, descriptor: int) -> None:
        """Send a file descriptor with the next command, which is to be getfd."""
        self._client.send_fd_scm(descriptor)

    def await_event(
        self, test: EventTest, deadline: Deadline, what: str, *, since: int = 0
    ) -> Message:
        """The first event for which ``test`` holds, of ``events[since:]`` and those to come.

        Raises ``MachineError`` when QEMU ends first or time is up.
        """
        event = self._pulse.call(
            self._process.unless_ended(self.event(since, test)), deadline, what
        )
        if event is None:
            raise self._process.died(f"QEMU ended while {what}")
        return event

    async def event(self, since: int, test: EventTest) -> Message:
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


def _is_panic(event: Message) -> bool:
    return event["event"] == "GUEST_PANICKED"
