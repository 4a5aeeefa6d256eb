# SPDX-License-Identifier: GPL-2.0-only
"""The tasks of `invoke`. Each parses its options and calls one function of harness/.

``harness.commands.guard`` turns errors and signals into sentences and an exit status, and
``harness.commands.command_line`` says where command lines are read otherwise than invoke does.

What a task needs is imported when it runs. All of harness/ takes half a second to import, and
`invoke --list`, `--help` and shell completion need nothing of it.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.tasks import task

from harness.commands import command_line, guard
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.build.source import Source
    from harness.config import Equipment

# The options that several tasks have, spelt and explained the same everywhere.
HELP = {
    "kernel": "NAME[,NAME]: kernels of vm/kernels.toml (default: its default), versions, all, or a "
    "kernel tree's path",
    "module": "DIR: the folder with the module's source, a finished .ko, or deb:PACKAGE (default: "
    "module/)",
    "ko": "NAME[,NAME]: of several modules, only these and what they need",
    "param": "NAME=VALUE: a parameter for the module (may be given several times)",
    "device": "NAME[,OPTION=VALUE]: a device of QEMU for the machines (may be given several times)",
    "guest-packages": "NAME[,NAME]: Debian packages to be put into the guest",
    "filter": "EXPR: only tests that match, as pytest -k takes it",
    "jobs": "N: tests at a time (default: what cores and memory allow)",
    "profile": "NAME: of vm/kconfig, on top of the least that boots (for a kernel tree)",
    "config": "FILE: a kernel tree's own .config, used as it is",
    "verbose": "say more, and which commands are run on this host",
    "quiet": "print nothing but the verdict, and what is wrong with the run itself",
    "json": "print JSON",
}


def _help(*names: str, **more: str) -> dict[str, str]:
    return {name: HELP[name] for name in names} | more


def _is_invoke() -> bool:
    """Whether this process is `invoke`, and not a test that imports this file."""
    program_file = Path(sys.argv[0])
    return program_file.name in {"invoke", "inv"} or program_file.parent.name == "invoke"


if _is_invoke():
    guard.listen()
    # When Python ends it looks for reference cycles among all objects that are left, several times.
    # After all of harness/ that takes a tenth of a second. It leaves out what is frozen.
    atexit.register(gc.freeze)

command_line.adapt(lambda: command_line.tasks_in(globals()))


@task(
    help=_help("kernel", "module", "ko", "param", "profile", "config", "verbose"),
    iterable=["param"],
)
@guard.explained
def build(
    _: Context,
    kernel: str | None = None,
    module: str | None = None,
    ko: str | None = None,
    param: Sequence[str] | None = None,
    profile: str = "",
    config: str | None = None,
    verbose: bool = False,
) -> None:
    """Build the module for a kernel, into build/KERNEL/."""
    from harness.commands import build
    from harness.runs.request import Request

    build.run(
        Request(kernel, _source(module, ko, param), profile=profile, own_config=_path(config))
    )


@task(
    name="test-vm",
    help=_help(
        "kernel", "module", "ko", "param", "device", "guest-packages", "filter", "jobs", "profile",
        "config", "verbose", "quiet",
        suite="NAME[,NAME]: contract (default), any, module, harness, all, or the path of tests "
        "of your own; "
        "with several kernels, contract and module are the default",
        keep="leave the machine of the first red test running",
        record="record each test's machine, for `invoke replay`",
        coverage="say which lines of the module's source ran",
        failed="only the tests that were red in the kernel's last run",
        minutes="N: a kernel whose tests have not begun by then is left out, and named",
    ),
    iterable=["param", "device"],
)  # fmt: skip
@guard.explained
def test_vm(
    _: Context,
    kernel: str | None = None,
    module: str | None = None,
    ko: str | None = None,
    param: Sequence[str] | None = None,
    device: Sequence[str] | None = None,
    guest_packages: str | None = None,
    filter: str | None = None,  # noqa: A002  # the option's name
    jobs: str | None = None,
    suite: str | None = None,
    profile: str = "",
    config: str | None = None,
    verbose: bool = False,  # before --coverage, for which -v would do as well
    quiet: bool = False,
    keep: bool = False,
    record: bool = False,
    coverage: bool = False,
    failed: bool = False,
    minutes: str | None = None,
) -> int:
    """Build the module, boot the kernel, and test the one in the other over SSH."""
    from harness.commands import test_vm
    from harness.runs.request import Request

    request = Request(
        kernel, _source(module, ko, param), expression=filter, jobs=_number("--jobs", jobs),
        suite=suite, profile=profile, own_config=_path(config), keep=keep,
        record=record, coverage=coverage, failed=failed, minutes=_number("--minutes", minutes),
        equipment=_equipment(device, guest_packages), verbose=verbose, quiet=quiet,
    )  # fmt: skip
    return test_vm.run(request)


@task(
    help=_help(
        "kernel", "module", "ko", "param", "device", "guest-packages", "filter", "jobs", "profile",
        "config", "verbose", suite="NAME[,NAME]: as for test-vm, or the path of tests of your own",
    ),
    iterable=["param", "device"],
)  # fmt: skip
@guard.explained
def watch(
    _: Context,
    kernel: str | None = None,
    module: str | None = None,
    ko: str | None = None,
    param: Sequence[str] | None = None,
    device: Sequence[str] | None = None,
    guest_packages: str | None = None,
    filter: str | None = None,  # noqa: A002  # the option's name
    jobs: str | None = None,
    suite: str | None = None,
    profile: str = "",
    config: str | None = None,
    verbose: bool = False,
) -> int:
    """Test the module each time one of its sources is saved, until Ctrl-C."""
    from harness.commands import watch
    from harness.runs.request import Request

    request = Request(
        kernel, _source(module, ko, param), expression=filter, jobs=_number("--jobs", jobs),
        suite=suite, profile=profile, own_config=_path(config),
        equipment=_equipment(device, guest_packages), verbose=verbose, quiet=True,
    )  # fmt: skip
    return watch.run(request)


@task(
    positional=["folders"],
    help=_help(
        "kernel", "ko", "param", "device", "guest-packages", "profile", "config", "jobs",
        "verbose", "quiet",
        folders="DIR...: modules' folders, or a folder of such folders",
        suite="NAME[,NAME]: contract, any (default: any, and contract for what looks like the "
        "exercise)",
        coverage="say on the card which lines of the source no test has reached",
    ),
    iterable=["param", "device"],
)  # fmt: skip
@guard.explained
def judge(
    _: Context,
    folders: str,
    kernel: str | None = None,
    ko: str | None = None,
    param: Sequence[str] | None = None,
    device: Sequence[str] | None = None,
    guest_packages: str | None = None,
    suite: str | None = None,
    jobs: str | None = None,
    profile: str = "",
    config: str | None = None,
    verbose: bool = False,
    quiet: bool = False,
    coverage: bool = False,
) -> int:
    """Test the modules in these folders, and write a card for each."""
    from harness.commands import judge
    from harness.runs.request import Request

    request = Request(
        kernel, suite=suite, jobs=_number("--jobs", jobs), profile=profile,
        own_config=_path(config), equipment=_equipment(device, guest_packages), coverage=coverage,
        verbose=verbose, quiet=quiet,
    )  # fmt: skip
    return judge.run(request, folders.split(command_line.BETWEEN), ko, param or ())


@task(
    help=_help(
        "kernel", "module", "filter", "jobs", "verbose", "quiet",
        unit="only the tests without a machine",
    )
)  # fmt: skip
@guard.explained
def test(
    _: Context,
    kernel: str | None = None,
    module: str | None = None,
    filter: str | None = None,  # noqa: A002
    jobs: str | None = None,
    unit: bool = False,
    verbose: bool = False,
    quiet: bool = False,
) -> int:
    """Everything: the tests without a machine, then those in one."""
    from harness.commands import test
    from harness.runs.request import Request

    request = Request(
        kernel, _source(module), expression=filter, jobs=_number("--jobs", jobs), verbose=verbose,
        quiet=quiet,
    )  # fmt: skip
    return test.run(request, only_unit=unit)


@task(
    help=_help(
        "json", "verbose", kernel="NAME[,NAME]: only these (default: all of vm/kernels.toml)",
        update="lock the newest that the archive has (vm/kernels.lock)",
        prune="remove kernels from the cache that are not locked, and what is old",
    )
)  # fmt: skip
@guard.explained
def kernels(
    _: Context,
    kernel: str | None = None,
    update: bool = False,
    prune: bool = False,
    json: bool = False,
    verbose: bool = False,
) -> int:
    """List the kernels: locked, newest in the archive, cached, last result."""
    from harness.commands import kernels

    return kernels.run(kernel, update=update, prune=prune, as_json=json)


@task(
    help=_help(
        "module", "filter", "profile", "config", "verbose",
        kernel="PATH or NAME: a kernel tree with its history, or a suite's entry",
        good="COMMIT or RELEASE: where the tests pass",
        bad="COMMIT or RELEASE: where they fail",
        suite="NAME[,NAME]: as for test-vm (default: contract)",
    ),
)  # fmt: skip
@guard.explained
def bisect(
    _: Context,
    kernel: str,
    good: str,
    bad: str,
    filter: str | None = None,  # noqa: A002
    module: str | None = None,
    suite: str = "contract",
    profile: str = "",
    config: str | None = None,
    verbose: bool = False,
) -> int:
    """Find the commit of a kernel tree, or the release of a suite, that broke a test."""
    from harness.commands import bisect
    from harness.runs.request import Request

    request = Request(
        kernel, _source(module), expression=filter, suite=suite, profile=profile,
        own_config=_path(config),
    )  # fmt: skip
    return bisect.run(request, good, bad)


@task(
    help=_help(
        "kernel", "module", "ko", "param", "device", "guest-packages", "profile", "config",
        "verbose",
        resume="DIR: open the machine that a red test has left there instead",
        debugger="with --resume: stop it and let gdb attach",
        put="FILE[:PATH]: have a file of this host be there (may be given several times)",
        get="PATH[:FILE]: at the end, have a file of the guest be here (the same)",
        ssh_config="FILE: meanwhile, have a configuration for ssh -F there",
    ),
    iterable=["param", "device", "put", "get"],
)  # fmt: skip
@guard.explained
def shell(
    context: Context,
    kernel: str | None = None,
    module: str | None = None,
    ko: str | None = None,
    param: Sequence[str] | None = None,
    device: Sequence[str] | None = None,
    guest_packages: str | None = None,
    profile: str = "",
    config: str | None = None,
    resume: str | None = None,
    debugger: bool = False,
    put: Sequence[str] | None = None,
    get: Sequence[str] | None = None,
    ssh_config: str | None = None,
    verbose: bool = False,
) -> int:
    """Open a prompt in a booted guest, with the module loaded; or run what follows --."""
    from harness.commands import shell
    from harness.commands.guest_files import Baggage
    from harness.runs.request import Request

    command = context.remainder
    config_file = Path(ssh_config) if ssh_config is not None else None
    baggage = Baggage.parse(put or (), get or (), config_file)
    if resume is not None:
        return shell.resume(Path(resume), debugger=debugger, command=command, baggage=baggage)
    if debugger:
        raise InputError("--debugger goes with --resume DIR", hint="a red test names its DIR")
    request = Request(
        kernel, _source(module, ko, param), _equipment(device, guest_packages), profile=profile,
        own_config=_path(config),
    )  # fmt: skip
    return shell.run(request, command, baggage)


@task(
    help=_help(
        "kernel", "module", "ko", "param", "device", "guest-packages", "profile", "config",
        "verbose",
        function="PATTERN: functions of the kernel or the module, such as 'driver_*'; may be given "
        "several times (default: all of the module)",
        event="PATTERN: events of the kernel, such as kmem:kmalloc; may be given several times",
        bpf="PROGRAM for bpftrace, which takes their place",
    ),
    iterable=["param", "device", "function", "event"],
)  # fmt: skip
@guard.explained
def trace(
    context: Context,
    kernel: str | None = None,
    module: str | None = None,
    ko: str | None = None,
    param: Sequence[str] | None = None,
    device: Sequence[str] | None = None,
    guest_packages: str | None = None,
    function: Sequence[str] | None = None,
    event: Sequence[str] | None = None,
    bpf: str | None = None,
    profile: str = "",
    config: str | None = None,
    verbose: bool = False,
) -> int:
    """Run what follows -- in a guest, and show what the kernel and the module do meanwhile."""
    from harness.commands import trace
    from harness.runs.request import Request

    request = Request(
        kernel, _source(module, ko, param), _equipment(device, guest_packages), profile=profile,
        own_config=_path(config),
    )  # fmt: skip
    return trace.run(request, context.remainder, function or (), event or (), bpf)


@task(
    positional=["recording"],
    help=_help(
        "verbose",
        recording="DIR: where a red test of `test-vm --record` has left one",
        debug="open gdb at its end, in which one can go backwards",
        script="FILE: the commands that gdb runs there, instead of a prompt",
        symbols="with the kernel's own debug symbols, which are downloaded once (some hundred MB)",
    ),
)
@guard.explained
def replay(
    _: Context,
    recording: str,
    debug: bool = False,
    script: str | None = None,
    symbols: bool = False,
    verbose: bool = False,
) -> int:
    """Play back what a red test has recorded, and say whether it goes the same way."""
    from harness.commands import replay

    if debug or symbols or script is not None:
        return replay.debug(Path(recording), _path(script), with_symbols=symbols)
    return replay.run(Path(recording))


@task(
    help=_help(
        "kernel", "module", "ko", "param", "profile", "config", "verbose",
        **{"break": "FUNCTION or FILE:LINE: run on to there (may be given several times)"},
        test="ID: open the machine that this red test has left instead",
        attach="DIR: open the machine that `test-vm --keep` has left running instead",
        script="FILE: the commands that gdb or drgn runs, instead of a prompt",
        drgn="drgn and not gdb: it looks at the memory, and stops nothing",
        symbols="with the kernel's own debug symbols, which are downloaded once (some hundred MB)",
        results="DIR: where --test looks for it (default: results/, here and in the checkout)",
    ),
    iterable=["param", "break_"],
)  # fmt: skip
@guard.explained
def debug(
    context: Context,
    kernel: str | None = None,
    module: str | None = None,
    ko: str | None = None,
    param: Sequence[str] | None = None,
    break_: Sequence[str] | None = None,
    test: str | None = None,
    attach: str | None = None,
    script: str | None = None,
    drgn: bool = False,
    symbols: bool = False,
    results: str | None = None,
    profile: str = "",
    config: str | None = None,
    verbose: bool = False,
) -> int:
    """Open gdb in a machine that loads the module, and run what follows -- in its guest."""
    from harness.commands import debug
    from harness.runs.request import Request

    wanted = debug.Wanted(break_ or (), _path(script), drgn, symbols, _path(results))
    if attach is not None:
        return debug.attached(Path(attach), wanted)
    if test is not None:
        return debug.opened(test, kernel, wanted)
    request = Request(kernel, _source(module, ko, param), profile=profile, own_config=_path(config))
    return debug.run(request, wanted, context.remainder)


@task(
    help={
        "folder": "DIR: results of another machine (default: results/)",
        "serve": "show the page on 127.0.0.1 while tests run, until Ctrl-C",
        "port": "N: with --serve, the port (default: 8017; 0: any that is free)",
    }
)
@guard.explained
def report(
    _: Context, folder: str | None = None, serve: bool = False, port: str | None = None
) -> int:
    """Write the page of each kernel's last result, results/index.html, or show it while tests run.

    With --serve it is shown on 127.0.0.1 until Ctrl-C.
    """
    from harness.commands import report

    if serve:
        return report.serve(_path(folder), _number("--port", port, least=0))
    if port is not None:
        raise InputError("--port is for --serve", hint="give both, or none of them")
    return report.run(_path(folder))


@task(
    name="new-module",
    help={
        "name": "NAME of the module and of its folder",
        "kind": "misc (default), chardev, platform or netfilter",
        "folder": "DIR to be made (default: NAME here)",
    },
)
@guard.explained
def new_module(_: Context, name: str, kind: str = "misc", folder: str | None = None) -> int:
    """Make a folder with a module that works and a first test of it."""
    from harness.commands import new_module

    return new_module.run(name, kind, _path(folder))


@task(help=_help("json", fix="run that command, and look again"))
@guard.explained
def doctor(_: Context, json: bool = False, fix: bool = False) -> int:
    """Say what this host has and lacks, and the one command that mends it."""
    from harness.commands import doctor

    return doctor.run(json, fix=fix)


@task(help=_help("kernel", "module", "verbose"))
@guard.explained
def check(
    _: Context, kernel: str | None = None, module: str | None = None, verbose: bool = False
) -> int:
    """Check the sources: ruff, mypy, checkpatch, W=1, sparse, spelling."""
    from harness.commands import check

    return check.run(kernel, _source(module))


@task(
    help=_help(
        "kernel", "json", "verbose", rounds="N: how often each stage is measured (default: 5)",
        scratch="also ./bootstrap test-vm in a fresh clone with an empty cache",
        klog="DIR: only score the log reader on labelled logs (labels.json and *.log)",
        virtme_ng="only compare one check of the module with the same by virtme-ng",
    )
)  # fmt: skip
@guard.explained
def bench(
    _: Context,
    kernel: str | None = None,
    json: bool = False,
    rounds: str | None = None,
    scratch: bool = False,
    klog: str | None = None,
    virtme_ng: bool = False,
    verbose: bool = False,
) -> None:
    """Measure each stage on this host: medians and spread."""
    from harness.commands import bench

    if klog is not None:
        bench.klog(Path(klog), json=json)
        return
    times = _number("--rounds", rounds) or 5
    if virtme_ng:
        bench.virtme_ng(kernel, json=json, rounds=times)
    else:
        bench.run(kernel, json=json, rounds=times, scratch=scratch)


@task(
    help=_help(
        "verbose",
        step="plan: say what is tested; summary: of all results, in Markdown; settle: lock the "
        "moved kernels that are green; publish: push that, and open issues for the red ones",
        listing="FILE: what `invoke kernels --json` printed (default: ask now)",
        on="of plan: push (all kernels), or nightly (those that moved)",
        form="of plan: text, names, github or gitlab",
        stage="of plan: only first, or only rest",
        tool="of publish: gh or glab",
    )
)  # fmt: skip
@guard.explained
def pipeline(
    _: Context,
    step: str,
    listing: str | None = None,
    on: str = "push",
    form: str = "text",
    stage: str | None = None,
    tool: str = "gh",
    verbose: bool = False,
) -> int:
    """The steps of a CI, on a push and at night: plan, summary, settle, publish."""
    from harness.commands import pipeline, publish

    source = Path(listing) if listing else None
    if step == "plan":
        return pipeline.show_plan(source, on, form, stage)
    if step == "summary":
        return pipeline.show_summary()
    if step == "settle":
        return pipeline.settle_night(source)
    if step == "publish":
        return publish.publish(tool)
    raise InputError(f"there is no step {step!r}", hint="plan, summary, settle or publish")


@task(help=_help("verbose"))
@guard.explained
def reference(_: Context, verbose: bool = False) -> None:
    """Make docs/reference.md again, out of docstrings and of what the options say."""
    from harness.commands import reference

    reference.run()


@task(help=_help("verbose"))
@guard.explained
def pictures(_: Context, verbose: bool = False) -> None:
    """Make the pictures of the page of results in docs/pictures again."""
    from tests.browser import pictures

    pictures.make()


@task(help=_help("verbose"))
@guard.explained
def clean(_: Context, verbose: bool = False) -> None:
    """Empty the cache and remove build/, except what another run is using."""
    from harness.commands import clean
    from harness.host.cache import Cache

    with Cache() as cache:
        clean.run(cache)


def _number(option: str, text: str | None, least: int = 1) -> int | None:
    """What invoke hands over as text because the option has no default."""
    if text is None:
        return None
    if not text.isdecimal() or int(text) < least:
        raise InputError(f"{option} takes a number from {least} on, not {text!r}")
    return int(text)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _source(
    module: str | None, ko: str | None = None, param: Sequence[str] | None = None
) -> Source:
    from harness import config
    from harness.build import source

    here = Path.cwd()
    if module is None and not here.is_relative_to(config.PROJECT):
        # Whoever is in a repository of their own means what it says, as pytest does there.
        module = source.named_in(here)
        logging.getLogger("harness").info(
            "module under test: %s", module or f"{config.MODULE} (--module DIR is another one)"
        )
    return source.parse(module, ko, param or ())


def _equipment(device: Sequence[str] | None, guest_packages: str | None) -> Equipment:
    from harness import config

    return config.equipment(device, guest_packages)


# Colours are for people: pytest and ruff see a terminal through these.
os.environ.setdefault("PYTHONUNBUFFERED", "1")
