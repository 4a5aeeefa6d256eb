# SPDX-License-Identifier: GPL-2.0-only
"""The card of a module: what its tests have found, as a person can act on it. Pure.

Many tests may be red for one fault: a module that breaks something when it is loaded makes all of
them red. So a card has findings, each with all the tests that show it, the worst first.

``harness.report.card_compare`` sets finished cards against others and against what is accepted,
``harness.report.card_formats`` writes them as Markdown, JSON and CSV.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.host import text as texts
from harness.judge import phrases
from harness.report.result import Case, KernelResult

# What a finding is about, the worst first, and how a heading says it.
KINDS = {
    "input": "there is no module to judge",
    "build": "it does not build",
    "panic": "the kernel stopped",
    "memory": "memory that is not its own",
    "locking": "locks and sleeping",
    "report": "the kernel reported a bug",
    "hang": "something does not come back",
    "left": "something is left behind",
    "load": "it does not load",
    "rule": "a rule is broken",
    "style": "the sources",
    "unknown": "not known",
}

_NEVER_RAN = (
    "A thread was created and never started, so that it counts as load, and the kernel takes it "
    "for one that hangs: kthread_create() needs wake_up_process(), kthread_run() does both."
)
_TAKEN = (
    "A name that the module wants is taken. Mostly an earlier life of the module has left it "
    "behind: undo in exit, and where init fails, all that init did. Or init asks for it twice."
)
_STILL_LISTED = (
    "An earlier life of the module has put it into a list of the kernel's, and has left it there. "
    "Undo in exit, and where init fails, all that init did."
)
# How the kernel's reports begin (judge/verdict.py), what they are about, and what that means.
_MEANINGS = (
    (
        rf"panic: .* {phrases.GONE}",
        "panic",
        "The kernel still used something of the module that was gone, and could not go on. Undo in "
        "exit, before anything is freed, all that init did. On a real computer everything that "
        "runs is lost.",
    ),
    (
        rf"splat: .* {phrases.GONE}",
        "memory",
        "The kernel still uses something of the module that is gone. Undo in exit, before anything "
        "is freed, all that init did.",
    ),
    (
        r"panic: ",
        "panic",
        "The kernel could not go on. On a real computer everything that runs is lost.",
    ),
    (rf"splat: .* {phrases.STILL_LISTED}", "left", _STILL_LISTED),
    (
        r"splat: .*(already (?:registered|present)|duplicate filename|EEXIST|same name)",
        "left",
        _TAKEN,
    ),
    (
        r"splat: .*(scheduling while atomic|sleeping function|Voluntary context switch)",
        "locking",
        "It sleeps where nobody may, such as while it holds a spinlock. Whoever waits for that "
        "lock may wait for ever. Take a mutex, or copy and allocate before the lock is taken.",
    ),
    (
        r"splat: .*task hung in (?:ret_from_fork\w*, in )?kthread\b",
        "hang",
        _NEVER_RAN,
    ),
    (
        r"splat: .*(task hung|blocked for more)",
        "hang",
        "It has waited for two minutes so that no signal ends it (state D), which counts as load, "
        "and which the kernel takes for a fault. What may wait that long waits with "
        "wait_event_interruptible(), or wait_event_idle() in a thread. Or it waits for what never "
        "comes, such as a lock that was not given back where an error is returned.",
    ),
    (
        r"splat: .*(lockup|\bstall)",
        "hang",
        "It waits for what never comes, or runs in circles. On a real computer only a reboot "
        "helps. A lock that was not given back, for example where an error is returned, does it.",
    ),
    (
        r"splat: .*(deadlock|\b(?:spin|rw)?lock(?:s|ing)?\b|recursive|inconsistent|unlock"
        r"|RCU usage)",
        "locking",
        "A lock is not taken, not given back, or taken in an order that can stop two processors "
        "for ever.",
    ),
    (
        r"splat: .*(WARNING|refcount).*\bin kthread_stop\b",
        "memory",
        "kthread_stop() was called for a thread that has ended by itself, whose memory is given "
        "back by then. A thread that is stopped returns only once kthread_should_stop() says so.",
    ),
    (
        r"splat: .*(usercopy|Buffer overflow|copy_overflow|overwrit|out-of-bounds|Redzone"
        r"|field-spanning)",
        "memory",
        "More is copied than there is room for, so that other memory is overwritten or shown. "
        "The length comes from the user: limit it by the size of the buffer.",
    ),
    (
        r"splat: .*(use-after-free|already free|double.free|freed twice|invalid.free|list_(add|del)"
        r"|refcount|Poison|not a valid)",
        "memory",
        "Memory is used or freed although it was freed before. Often two do so at the same time "
        "without a lock, or something goes on after rmmod.",
    ),
    (
        r"splat: .*(NULL pointer|unable to handle|general protection|page fault|Oops|SMAP"
        r"|user.access)",
        "memory",
        "A pointer was used that leads nowhere: NULL, an error (ERR_PTR), an address of the user's "
        "without copy_from_user(), or the code of a module that is gone.",
    ),
    (
        r"splat: ",
        "report",
        "The kernel checks itself, and a rule of its own was broken. Its message says which.",
    ),
    (
        r"hung: .*uses a CPU without a pause",
        "hang",
        "It runs in circles, and one processor does nothing else. Whoever has nothing to do has to "
        "sleep: wait_event_interruptible() does not where its condition is always true.",
    ),
    (
        r"hung: ",
        "hang",
        "What waits there cannot even be killed. On a real computer only a reboot helps.",
    ),
    (
        r"lost: ",
        "hang",
        "The whole machine does not answer any more: something runs in circles, or holds a lock "
        "that all need.",
    ),
    (
        r"residue: ",
        "left",
        "The module is unloaded, and the kernel still has something of it. Whoever uses that runs "
        "code that is not there any more. Undo in exit, and where init fails, all that init did.",
    ),
    (r"leak: ", "left", "Memory was allocated, and nobody can free it any more."),
    (
        r"log gap: ",
        "unknown",
        "The module printed so much that nobody knows what else the kernel has said.",
    ),
    (r"host fault: ", "unknown", "That was this computer's fault, and not the module's."),
)
_PROBLEM = re.compile(
    r"^((?:panic|splat|hung|lost|residue|leak|log gap|host fault): .*)$", re.MULTILINE
)
# The message of a warning, and in its header the place in the kernel's source.
_WORDS = re.compile(rf"\s*{phrases.SAYS}(.+)")
_KERNELS_OWN = re.compile(
    r"\bat \S+:\d+ (?=\w[\w.]*\+0x)"
    r"|\bkernel BUG at (?:arch|block|crypto|drivers|fs|include|kernel|lib|mm|net|security)/\S+"
)
_QUOTED = re.compile(r"'[^'\n]{1,200}'")
# Which name is taken, as the kernel says it (fs/sysfs/dir.c, fs/debugfs/inode.c).
_TAKEN_NAME = re.compile(r"(?:duplicate filename|debugfs: \w+) (\'[^\'\n]{1,200}\')")
# How an assertion is told below the kernel's reports (plugin/hooks.py).
_SAYS = re.compile(r"^(?:AssertionError|Failed): (.*)$", re.MULTILINE)
# What tests say, after their names, where that is more than the rule that the test is for.
_ASSERTIONS = (
    (
        r"^test_has_a_description: ",
        "style",
        "The kernel's build asks for it.",
    ),
    (
        r"^test_builds_without_warnings: ",
        "rule",
        "What the compiler or the kernel's own tools warn of is mostly a fault.",
    ),
    (
        r"^test_(has_a_licence|licence_is_free): ",
        "rule",
        "The kernel keeps much of what modules need from those without a free licence. "
        'MODULE_LICENSE("GPL") is one.',
    ),
    (
        r"the guest does not take the command|does not answer over SSH",
        "unknown",
        "The machine was not reached, and nothing says why. Run it once more.",
    ),
    (
        r"does not load|\binsmod\b.* ended with status",
        "load",
        "init answers with an error on a machine where it should work.",
    ),
    (
        r"does not come back|Timeout|was still in `",
        "hang",
        "Whoever makes that call waits for ever.",
    ),
    (
        r"\bp?read \S+(?: \d+)? returns \d+, which is neither an error nor up to",
        "memory",
        "More is copied to whoever reads than was asked for, over what is behind it in its memory. "
        "Copy no more than the length that read() was given, and return how much that was: "
        "simple_read_from_buffer() does both.",
    ),
    (
        r"the log shows memory that was freed",
        "memory",
        "A text is printed whose memory was given back before. Print it first and free it then; "
        "where another thread prints it, let that one free it.",
    ),
    (
        r"the log shows memory that nobody has written",
        "memory",
        "More is printed than was written: %s goes on to the next zero byte, wherever that is. End "
        "the text with one, or print only its length, with %.*s.",
    ),
    (
        r"which is neither an error nor up to",
        "rule",
        "Whoever writes or reads goes on by what is returned: a number of bytes, at most the "
        "length that was given, or a negative errno.",
    ),
    (
        r"memory grows without a bound",
        "rule",
        "What waits to be worked on needs a bound. Once it is reached, write() waits, or answers "
        "EAGAIN.",
    ),
    (
        r"left behind|memory is lost",
        "left",
        "Nobody can use or free it any more. Undo in exit all that init did, and the same where "
        "init fails.",
    ),
)
# Where a report says that it was, with a place in a source.
_IN_MODULE = re.compile(r" in [\w.]+ at \S+\.[ch]:\d+")
# Not of an absolute path, which is one of the kernel's headers; releases of Debian have a plus.
_PLACE = re.compile(r"(?<![\w/.+-])((?:[\w.+-]+/)*[\w.+-]+\.[ch]:\d+)\b")
_ERROR = re.compile(rf"^{_PLACE.pattern}(?::\d+)?: (?:fatal )?error: ", re.MULTILINE)
_RULES = {
    "contract": "The exercise asks for it: see the section contract of docs/suites.md.",
    "any": "It holds for every module: see the section any of docs/suites.md.",
}
# How the contract's test says that the error pointer of kthread_run() is not looked at.
_UNCHECKED = "IS_ERR()"
# How its tests say that a thread waits for its start.
_NOT_STARTED = "was created and never started"
# What a module says that cannot work on this machine (tests/vm/any); it builds, but was not tried.
_LOADS_ONLY = re.compile(r"loads only with (?:its hardware|parameters|other modules)")
_SEEN = 400  # characters of what was seen


@dataclass(frozen=True)
class Finding:
    """A fault of a module."""

    kind: str  # one of KINDS
    seen: str  # what was seen: the title of a problem, or what a test says
    means: str  # what that means, in a sentence or two; behind a newline, a block of output
    where: str = ""  # the file:line in the source, if it is known
    again: str = ""  # the command that shows it
    tests: tuple[str, ...] = ()  # the names of the tests that show it
    says: str = ""  # what a test says of it besides
    new: bool = False  # the run before did not have it
    accepted: str = ""  # why it is accepted, if it is
    code: str = ""  # the line at ``where``


@dataclass(frozen=True)
class Card:
    """What is known of one module on one kernel."""

    name: str  # what people call the module
    path: str  # its folder, .ko file or deb:PACKAGE, as it was given
    kernel: str  # the kernel's name in the matrix
    release: str  # "" where it came to no kernel
    status: int  # the exit status of a task (errors.Status)
    findings: tuple[Finding, ...] = ()  # the worst first
    notes: tuple[str, ...] = ()  # sentences on what is no fault
    passed: int = 0  # how many tests
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0  # to make it ready and to test it
    accepted: tuple[Finding, ...] = ()  # findings that somebody accepts

    @property
    def kinds(self) -> list[str]:
        """The kind of each of its findings, in their order."""
        return [finding.kind for finding in self.findings]

    @property
    def outcome(self) -> str:
        """The card in a few words."""
        known = f" ({len(self.accepted)} accepted)" if self.accepted else ""
        return f"{self._outcome}{known}"

    @property
    def _outcome(self) -> str:
        for kind, said in (("input", "no module"), ("build", "does not build")):
            if kind in self.kinds:
                return said
        count = sum(kind != "unknown" for kind in self.kinds)
        if count:
            return f"{count} fault{'s' if count > 1 else ''}"
        if self.status != 0:
            return "not known"
        lacks = next(filter(None, map(_LOADS_ONLY.search, self.notes)), None)
        if lacks:
            return lacks[0]
        return "green" if self.passed or self.accepted else "not tried"


@dataclass
class _Group:
    finding: Finding
    tests: list[str] = field(default_factory=list)


def card(
    name: str,
    path: str,
    result: KernelResult,
    said: Mapping[tuple[str, str], Sequence[str]],
    *,
    error: str = "",
    late: str = "",
    options: Sequence[str] = (),
) -> Card:
    """The card of a result.

    ``said`` is what its red tests and their teardowns say in full
    (report.junit.failures_of_suites), ``error`` what was said where it came to no test, ``late``
    that its tests had to be ended, if they had, and ``options`` are those of a command that names
    the module.
    """
    options = [texts.printable(option) for option in options]
    groups: dict[tuple[str, str], _Group] = {}
    for case in result.tests:
        if case.outcome not in ("failed", "error"):
            continue
        command = case.again(result.kernel, options)
        for finding in _of_steps(case, said.get((case.suite, case.name), ()), command):
            group = groups.setdefault(_key(finding), _Group(finding))
            if case.name not in group.tests:  # those of two suites may have one name
                group.tests.append(case.name)
            group.finding = _worse(group.finding, _with_code(finding, case))
    findings = [replace(group.finding, tests=tuple(group.tests)) for group in groups.values()]
    findings = _without_a_thread(_each_once(findings))
    style = [finding for finding in findings if finding.kind == "style"]
    findings = [finding for finding in findings if finding.kind != "style"]
    if late:
        findings.append(Finding("hang", _short(late), "What was not run by then is not known."))
    else:
        findings += _without_tests(result, error, options)
    outcomes = [case.outcome for case in result.tests]
    only_style = style and not findings and result.status == 1
    return Card(
        name, path, result.kernel, result.release, 0 if only_style else result.status,
        findings=tuple(sorted(findings, key=worst_first)),
        notes=(*_notes(result), *(f"Style: {finding.seen}" for finding in style)),
        passed=outcomes.count("passed"),
        failed=outcomes.count("failed") + outcomes.count("error"),
        skipped=outcomes.count("skipped"),
        seconds=result.ready_s + result.tests_s,
    )  # fmt: skip


def _with_code(finding: Finding, case: Case) -> Finding:
    """The finding with the line of the source where it was seen: a call there names its lock."""
    for excerpt in case.excerpts:
        number = excerpt.line - excerpt.first
        if excerpt.place == finding.where and 0 <= number < len(excerpt.lines):
            return replace(finding, code=_short(texts.printable(excerpt.lines[number])))
    return finding


def unfit(name: str, path: str, kernel: str, why: str, hint: str = "", status: int = 2) -> Card:
    """The card of a folder that is no module's."""
    finding = Finding("input", _short(why), texts.beginning(hint, _SEEN))
    return Card(name, path, kernel, "", status, (finding,))


def worst_first(finding: Finding) -> tuple[bool, int, bool, int]:
    """The key by which a card's findings are sorted: new ones, then the worst kind, then others."""
    kind = list(KINDS).index(finding.kind)
    return not finding.new, kind, finding.means == _TAKEN, -len(finding.tests)


def _rank(finding: Finding) -> tuple[int, bool, bool]:
    """Of several that are one fault, the least says most: the worst, and what a test says of it.

    What was left behind says more than that its name is taken the next time.
    """
    later = finding.means in (_TAKEN, _STILL_LISTED)
    return list(KINDS).index(finding.kind), later, not finding.says


# -- what is left, each fault once ----------------------------------------------------

# An entry of the kernel's folders that is still there.
_STILL_THERE = re.compile(r"^residue: (/\S+) is still there")
# What is there, by the lists that vm/agent makes: "KIND NAME, KIND NAME".
_LISTED = re.compile(rf"{phrases.LEFT_BEHIND}(.+?)(?=: \w+\(\)|$)")
# A file or a folder that is still there, by its cache: where it is, and how it is listed.
_HOLDS = re.compile(r"slab cache (dentry|inode_cache|kernfs_node_cache) still holds")
_OF_FOLDERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "dentry": ("/sys/kernel/debug/", ("debugfs ",)),
    "inode_cache": ("/sys/kernel/debug/", ("debugfs ",)),
    "kernfs_node_cache": ("/sys/", ("class ", "device ", "sysfs ")),
}
_UNNAMED = "still holds the module's memory at"


def _each_once(findings: list[Finding]) -> list[Finding]:
    """The same, where what comes of a call that was forgotten is told with that.

    It is seen in several ways: a line of the module has made an entry that is still there,
    something points to the module, something is in a list. And the next time that the module is
    loaded, its name is taken.
    """
    faults: list[list[Finding]] = []  # each begins with its cause
    for each in sorted(findings, key=_step):
        of = [one for one in faults if any(_follows(each, other) for other in one)]
        if of:
            of[0].append(each)
        else:
            faults.append([each])
    return [functools.reduce(_told_with, one) for one in faults]


def _step(finding: Finding) -> int:
    """How far a finding is from the call that was forgotten."""
    if finding.means == _TAKEN:
        return 4
    if _HOLDS.search(finding.seen):
        return 3
    return 0 if _STILL_THERE.match(finding.seen) else 2 if _LISTED.search(finding.seen) else 1


def _follows(finding: Finding, cause: Finding) -> bool:
    """Whether it is seen because of what another one, which is nearer to the call, has found."""
    if {finding.kind, cause.kind} != {"left"} or _step(cause) >= _step(finding):
        return False
    there = _STILL_THERE.match(cause.seen)
    listed = _LISTED.search(cause.seen)
    if finding.means == _TAKEN:
        quoted = _QUOTED.search(finding.seen)
        name = quoted[0].strip("'").rpartition("/")[2] if quoted else ""
        same = bool(finding.where) and finding.where == cause.where
        return same or (bool(name) and name in re.split(r"[\s/,:]+", cause.seen))
    holder = _HOLDS.search(finding.seen)
    if holder:
        folder, kinds = _OF_FOLDERS[holder[1]]
        return bool((there and there[1].startswith(folder))
                    or (listed and listed[1].startswith(kinds)))  # fmt: skip
    # Two that point to different places may each lack the same call.
    if _step(finding) == 1 and not there:
        return False
    names = _LISTED.search(finding.seen)
    # Of several that differ only in numbers, one is named.
    own = re.sub(r"\d+", "#", there[1].rpartition("/")[2]) if there else ""
    if own and names and own in re.split(r"[\s/,]+", re.sub(r"\d+", "#", names[1])):
        return True
    return bool(_calls(finding) & _calls(cause))


def _calls(finding: Finding) -> set[str]:
    """The calls of which one was forgotten, by what they have in common with what they undo.

    Of an entry it may only be known what has made it: "what undoes thing_register_ext()".
    """
    found = phrases.NOT_CALLED.search(finding.seen)
    names = re.findall(r"(\w+)\(\)", found[1]) if found else []
    return {re.sub(r"(?:un|de)(?=register)|_ext$", "", name) for name in names}


def _told_with(cause: Finding, finding: Finding) -> Finding:
    """A finding with the tests of one that comes of it, and the place that only that one has."""
    tests = dict.fromkeys((*cause.tests, *finding.tests))
    says = cause.says or ("" if finding.means == _TAKEN else finding.says)
    return replace(cause, tests=tuple(tests), where=cause.where or finding.where, says=says)


def _without_a_thread(findings: list[Finding]) -> list[Finding]:
    """The same, with one finding for an error pointer that is not looked at, and what it breaks.

    Where no thread can be made, one suite sees that init says nothing of it, and another one that
    the pointer is used.
    """
    test = "test_init::test_without_a_thread"
    unchecked = [each for each in findings if _UNCHECKED in each.seen]
    broken = [each for each in findings if each.kind == "memory" and each.tests == (test,)]
    if len(unchecked) != 1 or len(broken) != 1:
        return findings
    both = replace(broken[0], says=unchecked[0].seen)
    return [both if each is broken[0] else each for each in findings if each is not unchecked[0]]


def _worse(one: Finding, other: Finding) -> Finding:
    """Which of two findings of one fault is told; it keeps the words that say most."""
    worse, less = (other, one) if _rank(other) < _rank(one) else (one, other)
    if worse.where == less.where:
        worse = replace(worse, code=worse.code or less.code)
    return replace(worse, says=less.seen) if _NOT_STARTED in less.seen else worse


def _key(finding: Finding) -> tuple[str, str]:
    """The same for two findings of one test run that are one fault."""
    # One test sees that the thread was never started, and the kernel reports it as hung later.
    if _NOT_STARTED in finding.seen or finding.means == _NEVER_RAN:
        return "", "never started"
    # A module that is unloaded under its users makes each of them fail somewhere else.
    if "THIS_MODULE" in (finding.says or finding.seen) and finding.kind != "left":
        return "", "THIS_MODULE"
    # Else the place in the source decides: tests reach it in different ways, and with other numbers
    # and addresses. One may end there with an oops, and another with what is left behind after it.
    return ("", finding.where) if finding.where else identity(finding)


def identity(finding: Finding) -> tuple[str, str]:
    """The same for a finding and the one of another run, although lines of the source have moved.

    The kind, and what was seen without all that differs from run to run.
    """
    # Tests look at the module's thread at several moments: "after a write, the thread ...".
    seen = re.sub(
        r"^[^,]{1,60}, (?=the thread )| \(\d+ times\)", "", phrases.OTHERS.sub("", finding.seen)
    )
    # The calls that were made before the one with the wrong answer.
    seen = re.sub(r"^`[^`]*`: (?=.* which is neither an error)", "", seen)
    # The kernel prints pointers as 16 digits that differ each time (%p).
    return finding.kind, re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{16}\b|\d+", "#", seen)


_HINTS_MAX = 10  # on a card; a driver may have hundreds


def hints(lines: Sequence[str]) -> tuple[str, ...]:
    """Notes of what the compiler warns of with W=1 only."""
    # A test says that it has no description.
    lines = [line for line in lines if "missing MODULE_DESCRIPTION" not in line]
    more = len(lines) - _HINTS_MAX
    notes = [f"With W=1: {_short(texts.printable(line))}" for line in lines[:_HINTS_MAX]]
    plural = "s" if more > 1 else ""
    return (*notes, *([f"With W=1: {more} more warning{plural}"] if more > 0 else []))


# What tests say of a module that was loaded before.
_NOT_AGAIN = re.compile(r"\binsmod (?:\S+ )?answers -E")


def _of_steps(case: Case, said: Sequence[str], command: str) -> list[Finding]:
    """What a red test has found, and what its teardown has found after it.

    A report of the kernel stands for all that follows it, and so does what hangs. An assertion does
    not, nor does what is left behind: what comes later is then a fault of its own. That the module
    cannot be loaded again is explained by what an earlier life has left.
    """
    first, *later = [text for text in said if text] or [case.why]
    found = _of_test(case, first, command)
    if later and _NOT_AGAIN.search(found[0].seen):
        cause, *more = _of_test(case, later[0], command)
        if cause.kind == "left" or phrases.GONE in cause.seen:
            return [replace(cause, says=found[0].seen), *more]
    for text in later:
        reported = any(_PROBLEM.search(each.seen) and each.kind != "left" for each in found)
        if reported or any(each.kind == "hang" for each in found):
            break
        found += _of_test(case, text, command) if _PROBLEM.search(text) else []
    return found


def _of_test(case: Case, said: str, command: str) -> list[Finding]:
    """What a red test has found: what the kernel reported first, or else what the test says.

    Of several reports the first one has mostly led to the others. What is left of a module is no
    report: each place from which something is left is a fault of its own.
    """
    problems = _PROBLEM.findall(said)
    known = [each for each in (_of_problem(one, said, command) for one in problems) if each]
    if not known:
        return [_of_assertion(case, said, command)]
    says = _SAYS.search(said)
    # Where two processors report at once, one report may lack the lines that name the source.
    kind = known[0].kind
    placed = (one for one in known if one.kind == kind and one.where and kind != "left")
    chosen = known[0] if known[0].where else next(placed, known[0])
    first = replace(chosen, says=_short(says[1]) if says else "")
    if first.kind != "left":
        return [first]
    left = [first, *(each for each in known if each.kind == "left" and each is not chosen)]
    return [each for each in left if _UNNAMED not in each.seen] or [first]


def _of_problem(problem: str, said: str, command: str) -> Finding | None:
    """What the kernel reported, or what was left; ``said`` has what is known of it."""
    below = _after(said, problem)
    words = _WORDS.match(below) or _TAKEN_NAME.search(below)
    seen = f"{problem}: {words[1]}" if words and words[1] not in problem else problem
    # What a function is called, as install_clock(), says nothing of what is wrong in it.
    what = _QUOTED.sub("''", _IN_MODULE.sub("", seen))
    for pattern, kind, means in _MEANINGS:
        if re.match(pattern, what, re.IGNORECASE):
            where = _where(problem) or _where(_KERNELS_OWN.sub("", below))
            return Finding(kind, _short(seen), means, where, command)
    return None


def _of_assertion(case: Case, said: str, command: str) -> Finding:
    """What a test says."""
    function = case.name.rpartition("::")[2].partition("[")[0]
    seen = _assertion(said)
    for pattern, kind, means in _ASSERTIONS:
        if re.search(pattern, f"{function}: {seen}"):
            return Finding(kind, seen, means, _where(said), command)
    words = function.removeprefix("test_").replace("_", " ")
    means = f'The test is called "{words}". {_RULES.get(case.suite, "")}'.strip()
    return Finding("rule", seen, means, _where(said), command)


def kind_of(test: str, said: str) -> str:
    """Of which of ``KINDS`` it is what a red test has found; ``said`` is all that it says."""
    return _of_test(Case(test, "", "failed", 0.0), said, "")[0].kind


def _assertion(said: str) -> str:
    """What an assertion says, without pytest's marks."""
    marked = re.findall(r"^E\s{1,7}(.*)$", said, re.MULTILINE)
    lines = [line for line in (marked or said.splitlines()) if line.strip()]
    first = lines[0].strip() if lines else "(nothing was said)"
    first = re.sub(r"^(AssertionError|Failed): ", "", first)
    return _short(first)


def _after(said: str, problem: str) -> str:
    """A problem's own evidence: the lines below it that are indented."""
    rest = said.partition(problem)[2].lstrip("\n")
    kept = []
    for line in rest.splitlines():
        if line and not line.startswith("    "):
            break
        kept.append(line)
    return "\n".join(kept)


def _where(said: str) -> str:
    """The first place in a C source that a text names; what was inlined there is the kernel's."""
    found = _PLACE.findall(said)
    own = (each for each in found if not each.startswith(("include/", "arch/")))
    return next(own, found[0] if found else "")


def _where_refused(said: str) -> str:
    """Where the compiler has found an error, which may be told below those of a header."""
    found = _ERROR.search(said)
    return found[1] if found else _where(said)


def _short(said: str) -> str:
    return texts.beginning(said.strip(), _SEEN)


def _without_tests(result: KernelResult, error: str, options: Sequence[str]) -> list[Finding]:
    """What kept tests from being run at all."""
    build = shlex.join(["invoke", "build", *options, "--kernel", result.kernel])
    for name, cell in result.cells.items():
        if not cell.red or not cell.why:
            continue
        if name == "build":
            means = "What the compiler or the kernel's build says is below."
            kind = "input" if result.status == 2 else "build"
            if kind == "input":
                means = "Nothing was tried with it."
            seen = _short(cell.why)
            return [Finding(kind, seen, f"{means}\n{_block(error)}" if error else means,
                            _where_refused(error or seen), build)]  # fmt: skip
        if not result.tests:
            return [Finding("unknown", _short(f"{name}: {cell.why}"),
                            "Nothing is known of the module.", "", build)]  # fmt: skip
    return []


def _block(error: str) -> str:
    return texts.end(error.strip(), 4000)


def _notes(result: KernelResult) -> list[str]:
    notes = [f"It was built {texts.printable(result.how)}."] if result.how else []
    if result.left_out:
        notes += [f"Not tried: {cell.why}" for cell in result.cells.values() if cell.why]
    warnings = result.cells.get("warnings")
    if warnings and warnings.text not in ("0", ""):
        notes.append(f"The compiler or the kernel's tools gave {warnings.text} warning(s).")
    reasons = Counter(
        case.why.removeprefix("Skipped: ") for case in result.tests if case.outcome == "skipped"
    )
    for reason, count in reasons.items():
        tests = f"{count} tests: " if count > 1 else ""
        notes += [f"Not tried: {tests}{texts.printable(reason)}"] if reason else []
    return notes
