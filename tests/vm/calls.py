# SPDX-License-Identifier: GPL-2.0-only
"""System calls in the guest, whatever a module makes of them: calls.pl carries them out."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.testing import Guest, Lab

_PROGRAM = Path(__file__).parent / "calls.pl"
# How long a group of calls may take, in seconds of the guest's, before it is killed.
LIMIT = 10.0
# How long a group that was killed may take to end ($KILL_SECONDS in calls.pl), and Perl to start.
_KILL_SECONDS, _START_SECONDS = 10.0, 20.0
# How long what is to happen at once may take, in seconds of the guest's. Where a guest's clock
# counts instructions, a kernel that checks every access or lock takes several times as long:
# rmmod 2.1 s on `debug`.
_AT_ONCE, _AT_ONCE_CHECKED = 1.0, 5.0
_CHECKS = re.compile(r"^CONFIG_(?:KASAN|KCSAN|PROVE_LOCKING)=y", re.MULTILINE)


def at_once(lab: Lab) -> float:
    """The limit for what is to happen at once on this kernel, in seconds of the guest's."""
    return _AT_ONCE_CHECKED if _CHECKS.search(lab.kernel.config.read_text()) else _AT_ONCE


@dataclass(frozen=True)
class Group:
    """What a group of system calls came to.

    ``how``: "ended"; "signal N" killed it (9 is what an oops does to a process); "blocked": it was
    still at work after its limit, and SIGKILL ended it; "stuck": not even that did.
    ``answers`` are what each call returned, or minus its errno; of a call that did not return
    there is none. ``seconds`` are the guest's. ``stack`` is the process's state and kernel stack
    at its limit.
    """

    line: str
    how: str
    seconds: float
    answers: tuple[str, ...]
    stack: str

    @property
    def last(self) -> int:
        """The answer to its last call; fails the test where it was not answered."""
        __tracebackhide__ = True
        assert self.how == "ended", f"`{self.line}` {self.told}"
        return int(self.answers[-1])

    @property
    def told(self) -> str:
        """How it ended, as a sentence's end."""
        calls = self.line.split(" ; ")
        at = calls[len(self.answers)] if len(self.answers) < len(calls) else calls[-1]
        if self.how == "ended":
            return f"answered {', '.join(named(each) for each in self.answers)}"
        if self.how == "blocked":
            return f"was still in `{at}` after {self.seconds:.0f} s"
        if self.how == "stuck":
            return f"does not come back from `{at}`, not even when it is killed:\n{self.stack}"
        return f"was ended by {self.how} in `{at}`"


def named(answer: str) -> str:
    """An answer with the name of an error: -EINVAL."""
    if re.fullmatch(r"-\d+", answer) and -int(answer) in errno.errorcode:
        return f"-{errno.errorcode[-int(answer)]}"
    return answer


def perform(
    guest: Guest, groups: Sequence[str], *, limit: float = LIMIT, timeout: float = 120.0
) -> list[Group]:
    """Carry out each group of calls in a process of its own, one group after the other.

    What a group is, is written in calls.pl. ``limit`` is for each group; it is the guest's own
    time, and longer where the guest is slow. In a machine whose clock runs ahead, waiting takes no
    time. ``timeout`` is for all of it, as seen from the host, and is shortened to what the groups
    can take by their limits: in a kernel that runs in circles nobody is there to kill them.
    """
    __tracebackhide__ = True
    if not groups:
        return []
    leap = guest.leap or contextlib.nullcontext
    seconds = limit if guest.leap else guest.patience(limit).seconds
    if not guest.leap:  # else how long it takes on the host is not how long it takes in the guest
        timeout = min(timeout, len(groups) * (limit + _KILL_SECONDS) + _START_SECONDS)
    program = _PROGRAM.read_bytes() + b"\n__END__\n" + "\n".join(groups).encode() + b"\n"
    with guest.spawn(f"exec perl - {seconds:.3f}") as process:
        process.send(program)
        process.end_input()
        with leap():
            result = process.wait(timeout)
    if guest.after is not None:
        guest.after()
    assert result.ok, result.stderr
    lines = [line.removeprefix("& ") for line in groups if line != "join"]
    found: dict[int, Group] = {}
    for row in result.stdout.splitlines():
        number, how, took, answers, stack = row.split("\t")
        line = lines[int(number)]
        found[int(number)] = Group(
            line, how, float(took), tuple(answers.split()), stack.replace("%", "\n").strip()
        )
    return [found[number] for number in range(len(lines))]
