# SPDX-License-Identifier: GPL-2.0-only
"""The guest's second serial port: orders to vm/agent, and its answers.

vm/agent says what they are and what they answer.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote

from harness.errors import BootError, ConsoleSilent, MachineError, MachineFault
from harness.host.proc import Deadline
from harness.host.text import taint_mask
from harness.qemu import port as ports
from harness.qemu.clock import Clock
from harness.qemu.console import Console
from harness.qemu.port import Port
from harness.qemu.process import Process, no_space
from harness.qemu.stalls import Pulse

T = TypeVar("T")

# How many lines that nobody asked for are kept, and how many characters of each.
_UNASKED_LINES, _UNASKED_LENGTH = 5, 100


@dataclass(frozen=True)
class Leftovers:
    """Things in a guest that were not there at its inventory."""

    names: frozenset[str] = frozenset()  # KIND:NAME; not known while modules are loaded
    loaded: bool = False  # modules are loaded that were not at the inventory
    mixed: bool = False  # and others that came after it are gone already
    busy: tuple[str, ...] = ()  # modules that cannot be unloaded


class Agent:
    """The connection to vm/agent in one guest, of the ``kernel`` that errors name.

    ``panic`` makes a coroutine that waits until the guest panics.
    """

    def __init__(
        self, kernel: str, process: Process, console: Console, pulse: Pulse, clock: Clock,
        panic: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:  # fmt: skip
        self._kernel = kernel
        self._process = process
        self._console = console
        self._pulse = pulse
        self._clock = clock
        self._panic = panic
        # The words of the orders that were not answered in time: their answers may come still.
        self._late: set[str] = set()
        self._unasked: list[str] = []
        self._one = threading.RLock()  # who waits for an answer reads the others' as well
        self._port: Port | None = None

    async def connect(self, port: Port) -> None:
        """Use a way to the guest's serial port."""
        self._port = port
        await port.connect()

    async def disconnect(self) -> None:
        """Undo ``connect``."""
        if self._port is not None:
            self._port.close()

    def order(self, text: str, answer: str, deadline: Deadline) -> str:
        """Give vm/agent an order and wait for its answer; the rest of the answer's line.

        Each order has a word of its own, with which its answer begins. What begins with another
        was not asked for (``take_unasked``): anybody in the guest can write to the port.
        """
        with self._one, self._clock.running():
            return self.receive(self.send(text, deadline), answer, deadline)

    def send(self, text: str, deadline: Deadline) -> str:
        """The first half of ``order``; returns the order's word, for ``receive``.

        A machine that stands still finds the order when it goes on.
        """
        word = secrets.token_hex(4)

        assert self._port is not None
        sending = self._unless_over(self._port.send(f"{word} {text}\n".encode()))
        try:
            self._pulse.call(sending, deadline, f"ordering {text.partition(' ')[0]!r}")
        except OSError as error:
            raise self._process.died(f"QEMU is gone (at {text.partition(' ')[0]!r})") from error
        self._late.add(word)
        return word

    def receive(self, word: str, answer: str, deadline: Deadline) -> str:
        """The second half of ``order``: wait for the answer; the rest of its line."""
        rest = self._await(answer, deadline, word)
        self._late.discard(word)
        return rest

    def take_unasked(self) -> tuple[str, ...]:
        """The lines that were no answers, since this was last called; some of them, if many."""
        taken = tuple(self._unasked)
        self._unasked.clear()
        return taken

    def await_answer(self, word: str, deadline: Deadline) -> str:
        """Wait until vm/agent says ``word`` without having been asked; the rest of its line.

        Raises ``BootError`` if it says that something failed, if QEMU ends or the guest
        panics before, and when time is up; each with the end of the console.
        """
        return self._await(word, deadline, "")

    def _await(self, word: str, deadline: Deadline, order: str) -> str:
        """The same, where the line begins with the word of an ``order`` if that has one."""
        try:
            while True:
                line = self._pulse.call(self._line(), deadline, f"waiting for {word!r}")
                first, _, said = line.partition(" ")
                if not line or not order:
                    break
                if first == order:
                    line = said
                    break
                if first in self._late:
                    self._late.discard(first)  # nobody waits for it any more
                elif len(self._unasked) < _UNASKED_LINES:
                    self._unasked.append(line[:_UNASKED_LENGTH])
        except MachineFault:
            raise
        except MachineError as error:
            late = f"the guest did not say {word!r} within {deadline.seconds:.0f} s"
            self._raise(late if deadline.expired else error.what, error)
        said, _, rest = line.partition(" ")
        if said != word:
            if not line:
                self._process.ending()
            what = f"the guest says {line!r}" if line else f"the machine stopped before {word!r}"
            self._raise(what)
        return rest

    async def _line(self) -> str:
        """The next line from vm/agent, or "" when QEMU ends or the guest panics first."""
        assert self._port is not None
        with contextlib.suppress(OSError):
            try:
                line = await self._unless_over(self._port.readline())
            except ValueError as error:  # so readline() tells of a limit
                raise MachineError(
                    f"{ports.LINE_BYTES >> 20} MiB without an end of line came on the control port"
                ) from error
            return (line or b"").decode(errors="replace").strip()
        return ""

    async def _unless_over(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of ``work``, or None when QEMU ends or the guest panics first."""
        return await self._process.unless_ended(work, self._panic())

    def mark(self, deadline: Deadline) -> int:
        """Wait until all that the kernel has logged is on the console; its taint flags.

        The guest logs a word that was never used before: once that is on the console,
        so is everything before it.
        """
        with self._clock.running():
            return self._mark(deadline)

    def _mark(self, deadline: Deadline) -> int:
        word = f"eudyptula-mark-{secrets.token_hex(4)}"
        said = self.order(f"mark {word}", "marked", deadline)
        taint = taint_mask(said)
        if taint is None:
            raise MachineError(f"the guest answers {said[:100]!r} when asked for its taint flags")
        window = b""
        while True:
            fresh = self._console.read()
            window = window[-len(word) :] + fresh
            if word.encode() in window:
                return taint
            if self._console.full:
                raise MachineError("the guest has printed more than is kept of a console")
            if deadline.expired:
                if (full := no_space(self._process.folder, quota=True)) is not None:
                    raise MachineFault(full.what, hint=full.hint)
                silent = ConsoleSilent("the kernel's log does not reach the console")
                silent.taint = taint
                raise silent
            if not fresh:
                # QEMU writes the console to a file; there is nothing to wait on but the file.
                time.sleep(0.001)

    def take_inventory(self, deadline: Deadline) -> None:
        """Have the guest remember what there is of all that a module may leave behind."""
        self.order("inventory", "inventory", deadline)

    def leftovers(
        self,
        deadline: Deadline,
        *,
        end: bool = False,
        careful: bool = False,
        seen: int | None = None,
    ) -> Leftovers:
        """What is in the guest now and was not when the inventory was taken.

        ``end``: this is the end of the machine. Where some of the modules that came since are
        gone and others are loaded, nobody can say whose is what. Then the guest ends its
        processes and unloads the others first. ``careful``: the kernel may have kept pointers into
        a module that is gone, so the lists are left out for which it would follow one. At the end
        they are left out where others were unloaded. ``seen``: there were modules, whether or not
        the guest knows of them, and so many commands have begun since.
        """
        words = ["leftovers", *["end"] * end, *["careful"] * careful]
        order = " ".join(words if seen is None else [*words, f"seen={seen}"])
        answer = self.order(order, "leftovers", deadline)
        first, *rest = answer.split() or [""]
        if first in ("loaded", "mixed"):
            return Leftovers(loaded=True, mixed=first == "mixed")
        if first == "busy":
            return Leftovers(loaded=True, busy=tuple(rest))
        return Leftovers(frozenset(answer.split()))

    def leaks(self, deadline: Deadline) -> str:
        """The report of kmemleak on what it has found since the inventory; "" without kmemleak."""
        return unquote(self.order("leaks", "leaks", deadline))

    def probes(self, deadline: Deadline, *, limit: float | None = None) -> tuple[str, ...]:
        """The parts of the kernel that are stuck, as KIND:NAME; vm/agent lists the kinds.

        ``limit``: for how many seconds a step is waited for, if not for vm/agent's STUCK.
        Each that is named takes the guest some seconds. Where no module came since the inventory
        nothing is tried.
        """
        order = "probes" if limit is None else f"probes {limit}"
        return tuple(self.order(order, "probes", deadline).split())

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

    def sleep(self, seconds: float, deadline: Deadline) -> float:
        """Have vm/agent do nothing for ``seconds`` of the guest's own time.

        Returns for how long the guest has been up then, in seconds.
        """
        said = self.order(f"sleep {seconds}", "slept", deadline)
        try:
            return float(said)
        except ValueError:
            what = f"the guest answers {said[:100]!r} when asked how long it has been up"
            raise MachineError(what) from None

    def wakeups(self, deadline: Deadline) -> dict[str, int]:
        """How often each task has waited for something since it began, by NAME(PID)."""
        found = (one.rpartition("=") for one in self.order("wakeups", "wakeups", deadline).split())
        return {name: int(count) for name, _, count in found if count.isdecimal()}

    def use_virtual_clock(self, deadline: Deadline) -> None:
        """Have the guest's kernel take the time from a device, rather than from its processor.

        Where QEMU counts instructions, the processor's own counter (TSC) has 1 GHz. The kernel
        measured another rate when it booted. Timers, which are devices, then end too early by the
        kernel's clock, and are set again a dozen times until it is late enough. HPET and the ACPI
        timer go at the timers' rate: ten minutes of an idle guest cost a quarter of the work.
        """
        self.order("use-clock hpet acpi_pm", "uses", deadline)

    def report_hung_tasks(self, deadline: Deadline) -> None:
        """Have the guest's kernel report tasks that hang, if it can.

        A module, or a test, may have switched that off.
        """
        self.order("report-hung-tasks", "reporting", deadline)

    def _raise(self, what: str, cause: Exception | None = None) -> NoReturn:
        if (fault := self._process.host_fault) is not None:
            raise fault from cause
        tail = self._console.tail()
        raise BootError(
            f"{self._kernel}: {what}",
            tail=f"end of the console:\n{tail}" if tail else "(the console is empty)",
        ) from cause
