# SPDX-License-Identifier: GPL-2.0-only
"""Tools of the module's own tests: a process in the guest that makes the system calls that a
test asks for, and a way to keep the module's thread from running, so that the queue fills up.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:  # a pytest that only hands out the tests reads this file too
    from harness.testing import Guest, Module, Running

NAME = "eudyptula"  # of the device and of the thread
NODE = f"/dev/{NAME}"
ATTRIBUTES = f"/sys/class/misc/{NAME}"
TRACING = "/sys/kernel/tracing"
CGROUPS = "/sys/fs/cgroup"
MODULE = "/root/waitqueues.ko"  # where the fixtures put it

POLL_READY = 0x104  # POLLOUT | POLLWRNORM
EPOLLOUT, EPOLLET = 0x4, 1 << 31

MESSAGE_MAX = 4096
QUEUE_SIZE = 65536

# isolcpus: the scheduler moves nothing to the second CPU by itself. Only the consumer runs
# there, or what keeps it from running. tp_printk: trace events also go to the kernel's log,
# where they outlive the module. A test that does not want that switches it off.
two_cpus = pytest.mark.machine(cpus=2, append=("isolcpus=1", "tp_printk"))
FIRST_CPU, SECOND_CPU = 0, 1

_DRIVER = Path(__file__).parent / "devio.pl"


class Result(int):
    """What a system call returned, or minus its errno, as inside the kernel."""

    def __repr__(self) -> str:
        return f"-{errno.errorcode.get(-self, -self)}" if self < 0 else super().__repr__()


class Counters(NamedTuple):
    """The device's attributes; the difference of two is how much each has grown."""

    consumed: int
    accepted: int
    pending: int
    blocked: int

    def since(self, before: Counters) -> Counters:
        return Counters(*(now - then for now, then in zip(self, before, strict=True)))


class Writer:
    """A process in the guest that makes system calls on the device, one at a time.

    What it can do is in devio.pl. Messages are given by their length, or as "10@torn" with
    an address that is bad. A call takes milliseconds, where a command over SSH takes a
    tenth of a second.
    """

    def __init__(self, process: Running) -> None:
        self._process = process
        self.answers = True  # False once a call was not answered: the process is stuck
        process.send(_DRIVER.read_bytes() + b"\n__END__\n")
        self.pid = int(self.ask("pid"))

    def ask(self, line: str) -> str:
        """Carry out the operations on one line without a pause; their answers."""
        __tracebackhide__ = True
        assert self.answers, "an earlier call has not been answered"
        self._process.send(line.encode() + b"\n")
        self.answers = False
        answer = self._process.read_line()
        self.answers = True
        return answer

    def call(self, *words: object) -> Result:
        """Carry out one operation that answers with a number."""
        __tracebackhide__ = True
        return Result(self.ask(" ".join(str(word) for word in words)))

    def text(self, *words: object) -> str:
        """Carry out one operation that answers with a text."""
        __tracebackhide__ = True
        answer = self.ask(" ".join(str(word) for word in words))
        return re.sub("%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), answer)

    # -- the device

    def open(self, *flags: str) -> Result:
        """open(2) with "r", "w" or "rw", and "nonblock" perhaps; later calls use this file."""
        return self.call("open", *flags)

    def close(self) -> Result:
        return self.call("close")

    def write(self, message: int | str) -> Result:
        return self.call("write", message)

    def writev(self, *messages: int | str) -> Result:
        return self.call("writev", *messages)

    def poll(self, milliseconds: int = 0) -> Result:
        """poll(2) for everything there is; the events, 0 if there were none in time."""
        return self.call("poll", milliseconds)

    def fill(self) -> None:
        """Fill the empty queue to its last byte."""
        assert self.writev(*[MESSAGE_MAX] * (QUEUE_SIZE // MESSAGE_MAX)) == QUEUE_SIZE

    # -- what can be seen from outside

    def counters(self) -> Counters:
        """The four attributes, ``consumed`` read first."""
        return Counters(*map(int, self.ask("counters").split()))

    def wait_until_idle(self) -> None:
        """Wait until everything that was accepted has been consumed."""
        assert self.call("idle") == 0, f"not all is consumed in time: {self.counters()}"

    def wait_until_blocked(self, count: int) -> None:
        """Wait until ``blocked`` is ``count``."""
        self.wait_for(f"{ATTRIBUTES}/blocked", f"^{count}$")

    def wait_until_more_blocked(self, count: int) -> None:
        """Wait until ``blocked`` is more than ``count``."""
        assert self.call("blocked_beyond", count) == 0, f"not in time: {self.counters()}"

    def wait_for(self, path: str, regex: str) -> str:
        """Wait until the file matches; its content then."""
        text = self.text("await", path, regex)
        assert re.search(regex, text, re.MULTILINE), f"{path} is still {text!r}"
        return text

    def cat(self, path: str) -> str:
        """The content of a file; "-2" or the like if it cannot be read."""
        return self.text("cat", path)

    def echo(self, text: str, path: str) -> Result:
        """Write a line to a file, which does not create it."""
        return self.call("echo", path, text)

    def new_log(self) -> str:
        """What the kernel has logged since the last call. The first call only starts that."""
        answer = self.text("log")
        # EPIPE: a part was overwritten before it was read, and nobody knows what it said.
        assert not re.fullmatch(r"-\d+", answer), f"the log cannot be read: {Result(answer)!r}"
        return answer

    def new_log_of_module(self) -> list[str]:
        """The module's own lines of what the kernel has logged since the last call."""
        lines = self.new_log().splitlines()
        own = [line for line in lines if "waitqueues" in line or NAME in line]
        # Other parts of the kernel may log a few lines meanwhile, but not one for each message.
        assert own or len(lines) < 10, lines
        return own

    def clock(self) -> int:
        """CLOCK_MONOTONIC, in nanoseconds."""
        return self.call("clock")

    def threads(self, name: str = NAME) -> list[int]:
        """The process ids of the kernel threads of a name, the module's by default."""
        return [int(pid) for pid in self.ask(f"pids {name}").split()]

    # -- processes of its own

    def start(self, *operations: str) -> Job:
        """Carry out operations in a process of their own, which inherits the open file."""
        return Job(self, int(self.ask("start " + " ; ".join(operations))))


@dataclass(frozen=True)
class Job:
    """A process that a ``Writer`` started."""

    writer: Writer
    pid: int

    def kill(self, signal: str) -> None:
        assert self.writer.call("kill", self.pid, signal) == 0

    def wait(self) -> list[str]:
        """Wait for its end; the answers to its operations, or "killed N" by signal N."""
        __tracebackhide__ = True
        answer = self.writer.ask(f"result {self.pid}")
        assert answer != str(-errno.ETIMEDOUT), f"process {self.pid} has not ended in time"
        return answer.split(" ; ")

    def result(self) -> Result:
        """Wait for its end; the answer to its last operation."""
        __tracebackhide__ = True
        return Result(self.wait()[-1])

    def wait_until_asleep(self) -> None:
        """Wait until it sleeps interruptibly."""
        self.writer.wait_for(f"/proc/{self.pid}/stat", r"\) S ")


class StarvedConsumer:
    """Keeps the module's thread, the consumer, from running although it is runnable.

    The consumer and a process that never sleeps (the hog) are both bound to the second CPU,
    and the hog has the higher real-time priority (SCHED_FIFO). Stopping the hog lets the
    consumer run at once, and continuing the hog starves the consumer again at once.

    The consumer is made real-time too, because since 6.12 a thread of the ordinary class gets
    some time from the fair server even then. And the limit on the share of a CPU that
    real-time tasks may use (sched_rt_runtime_us) is switched off.

    The writer and its jobs have a higher priority than the hog. With PREEMPT_RT the consumer
    may be starved while it holds its lock; it then inherits the priority of a writer that
    waits for the lock. The kernel's own threads that RCU needs on that CPU have that priority
    as well. Otherwise no grace period would end, and whoever waits for one would hang.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        (self.thread,) = writer.threads()
        limit = "/proc/sys/kernel/sched_rt_runtime_us"
        assert writer.echo("-1", limit) == 0
        # When tracing is first used, a kernel worker on each CPU makes that CPU's buffer. So
        # that is done now: before 6.12 the hog would starve that worker as well.
        assert writer.echo("1408", f"{TRACING}/buffer_size_kb") == 0
        self._hog = writer.start("close", "spin")
        self.hog = self._hog.pid
        assert writer.call("schedule", 0, 60) == 0
        for name in ("ksoftirqd", "rcuc"):  # the second only with PREEMPT_RT
            for pid in writer.threads(f"{name}/{SECOND_CPU}"):
                assert writer.call("schedule", pid, 60) == 0
        for pid, priority in ((self.thread, 1), (self.hog, 50)):
            assert writer.call("pin", pid, SECOND_CPU) == 0
            assert writer.call("schedule", pid, priority) == 0
        self._probe()

    def _probe(self) -> None:
        """Make sure that a message stays, and that it is consumed on release."""
        before = self.writer.counters()
        assert self.writer.write(1) == 1
        for _ in range(10):
            grown = self.writer.counters().since(before)
            assert grown.pending > 0, "the consumer is not starved"
            assert grown.consumed == 0, "the consumer is not starved"
        self.release()
        self.writer.wait_until_idle()
        self.starve()

    def release(self) -> None:
        """Let the consumer run."""
        self._hog.kill("STOP")

    def starve(self) -> None:
        """Keep the consumer from running."""
        self._hog.kill("CONT")

    def drain(self) -> None:
        """Let the consumer run until the queue is empty."""
        self.release()
        self.writer.wait_until_idle()

    def end(self) -> None:
        """End the hog. If it has ended by itself before, the test was about nothing."""
        self._hog.kill("KILL")
        assert self._hog.wait() == ["killed 9"], "the consumer was not starved to the end"


@dataclass(frozen=True)
class Event:
    """One line of the trace: what happened, in which task, with which fields."""

    name: str
    comm: str
    pid: int
    fields: dict[str, int]

    @property
    def sequence(self) -> int:
        return self.fields["sequence"]

    @property
    def length(self) -> int:
        return self.fields["length"]


def events_in(text: str) -> list[Event]:
    """The module's events in a trace or a log, in the order in which they happened."""
    pattern = re.compile(
        r"(?:(?P<comm>\S+)-(?P<pid>\d+) .*)?\b(?P<name>message_(?:queued|consumed)): (?P<fields>.*)"
    )
    found = []
    for match in pattern.finditer(text):
        pairs = (pair.split("=") for pair in match["fields"].split())
        fields = {name: int(value) for name, value in pairs}
        found.append(Event(match["name"], match["comm"] or "", int(match["pid"] or 0), fields))
    return found


class Trace:
    """The module's tracepoints, recorded from now on, and not in the log."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        assert writer.echo("0", "/proc/sys/kernel/tracepoint_printk") == 0
        # One counter for all CPUs, so that the order of the lines is the order of the events.
        assert writer.echo("counter", f"{TRACING}/trace_clock") == 0
        assert writer.echo("1", f"{TRACING}/events/{NAME}/enable") == 0

    def events(self) -> list[Event]:
        return events_in(self._writer.cat(f"{TRACING}/trace"))

    def queued(self) -> list[Event]:
        return [event for event in self.events() if event.name == "message_queued"]

    def consumed(self) -> list[Event]:
        return [event for event in self.events() if event.name == "message_consumed"]


# -- fixtures ----------------------------------------------------------------------


@contextmanager
def writer_in(guest: Guest, user: str = "root") -> Iterator[Writer]:
    """A process of this user in the guest that makes system calls as it is told."""
    patience = guest.patience(20).seconds
    with guest.spawn(f"exec perl - {patience:.0f}", user=user) as process:
        yield Writer(process)


@pytest.fixture
def writer(loaded: Guest) -> Iterator[Writer]:
    """A process of root's; it has the device open for writing."""
    with writer_in(loaded) as process:
        assert process.open("w") >= 0
        yield process


@pytest.fixture
def nobody(loaded: Guest) -> Iterator[Writer]:
    """A process without any privilege; it has the device open for writing."""
    with writer_in(loaded, user="nobody") as process:
        assert process.open("w") >= 0
        yield process


@pytest.fixture
def starved(writer: Writer) -> Iterator[StarvedConsumer]:
    """The consumer does not run until the test lets it; needs ``two_cpus``.

    One message has been consumed before.
    """
    consumer = StarvedConsumer(writer)
    yield consumer
    if writer.answers:
        consumer.end()


@pytest.fixture
def trace(writer: Writer) -> Trace:
    """The module's tracepoints, switched on."""
    return Trace(writer)


@pytest.fixture
def loader(guest: Guest, module: Module) -> Iterator[Writer]:
    """A process of root's in a guest that has the module as ``MODULE``, not loaded."""
    guest.put(module.loadable, MODULE)
    with writer_in(guest) as process:
        yield process
