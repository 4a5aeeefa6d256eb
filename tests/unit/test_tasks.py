# SPDX-License-Identifier: GPL-2.0-only
"""tasks.py, commands/command_line.py, commands/guard.py: how options are read and tasks end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tasks
from harness import config
from harness.commands import guard
from harness.commands.command_line import tasks_in, together
from harness.errors import InputError, Status

PATIENCE = 60.0


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5"])
def test_jobs_that_are_no_number_are_refused(text: str) -> None:
    """invoke hands the option over as text; what is no number gets a sentence."""
    with pytest.raises(InputError, match="--jobs takes a number from 1 on"):
        tasks._number("--jobs", text)


def test_jobs_are_a_number() -> None:
    """Two is two, and nothing is nothing: the default is chosen elsewhere."""
    assert (tasks._number("--jobs", "2"), tasks._number("--jobs", None)) == (2, None)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, "SpaceError"), (errno.EACCES, "HostError")]
)
def test_what_the_host_refuses_is_a_sentence_and_not_red(
    capsys: pytest.CaptureFixture[str], number: int, kind: str
) -> None:
    """Status 3, not the traceback and 1 that Python ends with."""

    def doing() -> None:
        raise OSError(number, os.strerror(number), "build/x")

    with pytest.raises(SystemExit) as caught:
        guard.explained(doing)()
    assert caught.value.code == 3
    said = capsys.readouterr().err
    assert f"{kind}: doing failed: " in said
    assert "build/x" in said
    assert ("free some space" in said) is (number == errno.ENOSPC)


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["judge", "a", "b"], ["judge", "a\0b"]),
        (["judge", "--kernel", "sid", "a", "-j", "2", "b"],
         ["judge", "a\0b", "--kernel", "sid", "-j", "2"]),
        (["judge", "-v", "a", "--jobs=2", "-ksid", "b"],
         ["judge", "a\0b", "-v", "--jobs=2", "-ksid"]),
        (["judge", "--coverage", "a", "-q", "b"], ["judge", "a\0b", "--coverage", "-q"]),
        (["judge"], ["judge"]),
        (["judge", "--jobs"], ["judge", "--jobs"]),
        (["kernels", "build", "x"], ["kernels", "build", "x"]),
        ([], []),
    ],
)  # fmt: skip
def test_judge_takes_several_folders(words: list[str], read: list[str]) -> None:
    """invoke would take the second one for a task."""
    assert together(words, tasks_in(vars(tasks))) == read


def test_quiet_and_verbose_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing is begun."""

    def doing(*, verbose: bool, quiet: bool) -> None:
        pytest.fail(f"it was begun with {verbose} and {quiet}")

    with pytest.raises(SystemExit) as caught:
        guard.explained(doing)(verbose=True, quiet=True)
    assert caught.value.code == Status.INPUT
    assert "--verbose and --quiet exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize("task", [tasks.build, tasks.test_vm, tasks.judge, tasks.test])
def test_v_is_verbose(task: Any) -> None:
    """invoke gives a letter to the first option that has it, and -v was --coverage."""
    letters = {name: argument.names for argument in task.get_arguments() for name in argument.names}
    assert "verbose" in letters["v"]
    if "quiet" in letters:
        assert "quiet" in letters["q"]


def test_judge_without_a_module_is_bad_input(tmp_path: Path) -> None:
    """No folder, one that is not there, and the one among two that is not there."""
    for folders in ([], ["nobody"], [str(tmp_path), "nobody"]):
        done = invoke("judge", *folders)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
    assert "there is no folder nobody" in done.stderr


def invoke(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `invoke` as a person does."""
    command = [str(Path(sys.executable).parent / "invoke"), *arguments]
    return subprocess.run(
        command, cwd=config.PROJECT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@pytest.mark.parametrize(
    "arguments",
    [["test-wm"], ["test-vm", "--kernl", "x"], ["test-vm", "--kernel"], ["--list", "--no"],
     ["test-vm", "--filter", "a b ("]],
    ids=["task", "option", "no value", "of invoke", "filter"],
)  # fmt: skip
def test_what_is_misspelt_is_bad_input(arguments: list[str]) -> None:
    """Status 2: 1 is for a red test, and invoke itself would end with that."""
    done = invoke(*arguments)
    assert done.returncode == Status.INPUT
    assert "What to do:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["test-wm"], "did you mean test-vm?"),
        (["test-vm", "--modul", "x"], "did you mean --module?"),
        (["kernels", "--quiet"], "--quiet is an option of judge, test and test-vm. "),
        (["shell", "--fix"], "--fix is an option of doctor. "),
        (["shell", "/somewhere/wee"], "a module's folder is given as --module DIR"),
    ],
)
def test_what_is_misspelt_is_guessed(arguments: list[str], hint: str) -> None:
    """A person sees the word that was meant."""
    assert f"What to do: {hint}" in invoke(*arguments).stderr


@pytest.mark.parametrize("task", ["judge", "replay", "new-module", "shell"])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_each_task_has_help(task: str, option: str) -> None:
    """Those too that take a word without an option."""
    done = invoke(task, option)
    assert done.returncode == Status.GREEN, done.stderr
    assert "Docstring:" in done.stdout


@pytest.mark.parametrize("task", ["judge", "replay", "test-vm", "shell"])
def test_help_behind_a_task_explains_its_options(task: str) -> None:
    """It is what each error message recommends, and says what help before the task says."""
    done = invoke(task, "--help")
    assert done.stdout == invoke("--help", task).stdout
    assert "say more, and which" in done.stdout


def test_what_invoke_is_asked_for_and_does_is_green() -> None:
    """Listing is the end of it, and no error."""
    assert invoke("--list").returncode == Status.GREEN
    assert invoke("build", "--help").returncode == Status.GREEN


def python_as_invoke(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code that takes itself for `invoke`."""
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = 'invoke'; import tasks; {code}"]
    return subprocess.run(
        command, cwd=config.PROJECT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@pytest.mark.parametrize(
    "begun",
    ["import sys; sys.argv[0] = 'invoke'; import tasks",
     "import pytest; pytest.main(['--fixtures', '-p', 'no:cacheprovider'])"],
    ids=["invoke", "pytest"],
)  # fmt: skip
def test_what_is_left_when_python_ends_is_not_looked_through(begun: str) -> None:
    """That would take a tenth of a second, of which nobody has anything."""
    # What is registered first is called last.
    told = "import atexit, gc; atexit.register(lambda: print('', gc.get_freeze_count()))"
    done = subprocess.run(
        [sys.executable, "-c", f"{told}; {begun}"], cwd=config.PROJECT, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout.split()[-1]) > 0


@pytest.mark.parametrize("suite", ["contract", "module"])
def test_handing_out_tests_does_not_import_what_runs_them(suite: str) -> None:
    """The pytest that starts the workers reads conftest.py too, and they wait for it."""
    code = f"import sys, tests.vm.{suite}.conftest; assert 'harness.testing' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=config.PROJECT, check=True)


def test_listing_the_tasks_imports_next_to_nothing() -> None:
    """All of harness/ takes longer than invoke itself, and completion asks for each key."""
    done = python_as_invoke("print(*(name for name in sys.modules if name.startswith('harness')))")
    assert set(done.stdout.split()) == {
        "harness", "harness.commands", "harness.commands.command_line", "harness.commands.guard",
        "harness.errors", "harness.host", "harness.host.text",
    }  # fmt: skip


def test_testing_one_kernel_imports_neither_the_log_reader_nor_the_page() -> None:
    """pytest judges, and the page is made while pytest runs."""
    done = python_as_invoke("import harness.commands.test_vm; print(*sys.modules)")
    imported = set(done.stdout.split())
    assert "harness.runs.sweep" in imported
    assert not imported & {"harness.klog", "harness.judge.verdict", "jinja2"}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_before_the_task_is_said(name: str) -> None:
    """As in its first half second; invoke would say nothing and end with 1, which is red."""
    # A test run in the background may have been started with Ctrl-C ignored.
    code = "import os, signal; signal.signal(signal.SIGINT, tasks.guard.before_the_task); "
    done = python_as_invoke(f"{code}os.kill(os.getpid(), signal.{name}); signal.pause()")
    assert done.returncode == Status.INTERRUPTED
    assert done.stderr == "\ninterrupted before the task began; nothing was left running\n"


def test_a_fault_of_ours_is_told_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Python itself would end with 1, which is what a red test ends with."""

    def doing() -> None:
        raise ZeroDivisionError("planted")

    with pytest.raises(SystemExit) as caught:
        guard.explained(doing)()
    assert caught.value.code == Status.OURS
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "doing: a fault of the harness (ZeroDivisionError)" in said


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")]
)
def test_what_was_interrupted_is_said(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, number: int, how: str
) -> None:
    """By Ctrl-C and by SIGTERM, in the same words and with the same status."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def doing() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except KeyboardInterrupt as error:
            error.add_note("kernel one was being made ready (boot)")
            raise

    with pytest.raises(SystemExit) as caught:
        guard.explained(doing)()
    assert caught.value.code == Status.INTERRUPTED
    said = capsys.readouterr().err
    assert f"interrupted by {how}: doing\n    kernel one was being made ready (boot)\n" in said


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")]
)
def test_an_interruption_is_said_before_cleaning_up(number: int, how: str) -> None:
    """At once: what was started may take seconds to end. That it has ended comes after it."""
    code = f"""
import os, signal
def doing():
    try:
        os.kill(os.getpid(), {int(number)})
        signal.pause()
    finally:
        os.write(2, b"cleaning up\\n")
signal.signal(signal.SIGINT, tasks.guard.before_the_task)
tasks.guard.explained(doing)()
"""
    done = python_as_invoke(f"exec({code!r})")
    assert done.returncode == Status.INTERRUPTED
    at_once, cleaning, after = done.stderr.partition("cleaning up\n")
    assert at_once == f"\n{how}: doing is interrupted, and ends what it has started\n"
    assert cleaning
    assert after == f"\ninterrupted by {how}: doing\nnothing was left running\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (guard.before_the_task, signal.default_int_handler),
        (signal.default_int_handler, signal.default_int_handler),
        (signal.SIG_IGN, signal.SIG_IGN),  # of a task that was started in the background
    ],
)
def test_a_task_that_has_ended_says_nothing_at_ctrl_c(
    request: pytest.FixtureRequest, before: signal.Handlers, after: signal.Handlers
) -> None:
    """Nor is Ctrl-C listened to where it was ignored."""
    original = signal.signal(signal.SIGINT, before)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, original))
    during = []
    guard.explained(lambda: during.append(signal.getsignal(signal.SIGINT)))()
    assert signal.getsignal(signal.SIGINT) is after
    assert (during == [signal.SIG_IGN]) is (before is signal.SIG_IGN)


@pytest.mark.parametrize("lines", [1, 100000])
def test_a_reader_that_has_gone_is_no_fault(lines: int) -> None:
    """As with head(1): no word of it, and the status of who dies of SIGPIPE."""
    code = f"import tasks; tasks.guard.explained(lambda: print('x\\n' * {lines}))()"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, cwd=config.PROJECT,
        check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("asked", [["--list"], ["shell", "--help"]])
def test_a_help_whose_reader_has_gone_is_no_fault(asked: list[str]) -> None:
    """`invoke TASK --help | head` is what people type."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *asked], stdout=write, stderr=subprocess.PIPE,
        cwd=config.PROJECT, check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_pytest_whose_reader_has_gone_is_no_fault(tmp_path: Path) -> None:
    """It cannot print either, which it takes for an error of its own."""
    (tmp_path / "python").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    code = (
        "import sys, tasks; from pathlib import Path; from harness.runs import pytest_process; "
        f"folder = Path({str(tmp_path)!r}); sys.executable = str(folder / 'python'); "
        "tasks.guard.explained(lambda: pytest_process.run([], folder).status)()"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, cwd=config.PROJECT,
        check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_another_pipe_that_breaks_is_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody does read what is printed here."""

    def doing() -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with pytest.raises(SystemExit) as caught:
        guard.explained(doing)()
    assert caught.value.code == 3
    assert "Broken pipe" in capsys.readouterr().err
