# SPDX-License-Identifier: GPL-2.0-only
"""`invoke watch` as it is used: a source is saved, and its verdict comes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import config
from harness.testing import Lab

SECONDS = 600

pytestmark = pytest.mark.timeout(2 * SECONDS)

# Its results are none of the run that this test is one of.
INVOKE = """\
import sys
from pathlib import Path

from harness import config

config.RESULTS = Path(sys.argv.pop())
sys.argv[0] = "invoke"
from invoke.main import program

program.run()
"""


TEST = "tests/vm/any/test_life.py::test_loads_and_unloads"
SOURCE = """\
#include <linux/module.h>

static int __init wee_init(void)
{
	return 0;
}

static void __exit wee_exit(void)
{
}

module_init(wee_init);
module_exit(wee_exit);
MODULE_DESCRIPTION("does nothing");
MODULE_LICENSE("GPL");
"""


def test_a_save_is_judged(lab: Lab, tmp_path: Path) -> None:
    """Green; then red, with the reason; then what does not build; and it ends when it is told."""
    folder = tmp_path / "wee"
    folder.mkdir()
    file = folder / "wee.c"
    file.write_text(SOURCE)
    (folder / "Kbuild").write_text("obj-m += wee.o\n")
    called = [
        sys.executable, "-c", INVOKE, "watch", f"--kernel={lab.kernel.spec.asked}",
        f"--module={folder}", "--suite=any", "--filter=test_loads_and_unloads",
        str(tmp_path / "results"),
    ]  # fmt: skip
    with subprocess.Popen(
        called, cwd=config.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as watch:
        # Its output ends then, and so does whoever waits for it.
        limit = threading.Timer(SECONDS, watch.kill)
        limit.start()
        try:
            assert f"{lab.kernel.name}: green: 1 passed, 0 failed" in until_it_waits(watch)
            save(file, SOURCE.replace("return 0;", "WARN_ON(1);\n\treturn 0;"))
            said = until_it_waits(watch)
            assert f"{lab.kernel.name}: red: 0 passed, 1 failed" in said
            assert f"red: {TEST}: splat: WARNING in" in said
            save(file, "#error planted\n")
            said = until_it_waits(watch)
            assert f"{lab.kernel.name}: BuildError: wee/ does not build" in said
            assert "planted" in said
            # Ctrl-C would do the same, but a run in the background may have been started with
            # that ignored.
            watch.send_signal(signal.SIGTERM)
            ended = "\nSIGTERM: watch is interrupted, and ends what it has started\n"
            assert (watch.communicate()[0], watch.returncode) == (ended, 0)
        finally:
            limit.cancel()
            watch.kill()


def save(file: Path, text: str) -> None:
    """Save a file as editors do: nobody ever reads half of it."""
    fresh = file.parent.parent / "fresh"
    fresh.write_text(text)
    fresh.replace(file)


def until_it_waits(watch: subprocess.Popen[str]) -> str:
    """What it says until it waits for the next change."""
    assert watch.stdout is not None
    said = ""
    for line in watch.stdout:
        if line.startswith("watching "):
            return said
        said += line
    pytest.fail(f"it has ended:\n{said}")
