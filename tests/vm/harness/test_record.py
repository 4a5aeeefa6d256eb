# SPDX-License-Identifier: GPL-2.0-only
"""A machine that is recorded is used as any other, and its recording is played back the same."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import config
from harness.commands import replay
from harness.machines import pool, recorded
from harness.qemu import replay as images
from harness.qemu.machine import WantedRecording
from harness.testing import Clone, CommandTimeout, GuestLost, Lab, Module

HERE = Path(__file__).parent
# A recorded machine boots, and is replayed in up to three times as long.
pytestmark = pytest.mark.timeout(1000)


@pytest.fixture
def victim(lab: Lab, module: Module, tmp_path: Path) -> Iterator[Clone]:
    """A machine whose recording is kept; nobody asks for its verdict."""
    clone = pool.open_recorded(lab.template(), lab.cache, [module.loadable])
    clone.machine.wanted = WantedRecording(tmp_path, {})
    try:
        yield clone
    finally:
        clone.close()


def test_a_recorded_guest_is_as_any_other(
    victim: Clone, module: Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands, their streams and ends, files, a process beside the test; then all of it again."""
    guest = victim.guest
    done = guest.run("pwd; id -un; echo said >&2; exit 3")
    assert (done.status, done.stdout, done.stderr) == (3, "/root\nroot\n", "said\n")
    assert guest.run("kill -9 $$").status == -1
    assert guest.run("id -un", user="nobody").stdout == "nobody\n"
    every = bytes(range(256)) * 4
    guest.put(every, "/root/every", mode=0o600)
    assert guest.get("/root/every") == every
    assert guest.check("stat -c %a /root/every") == "600\n"
    # More than one of QEMU's sockets holds, of which nothing may be lost.
    assert len(guest.check("head -c 300000 /dev/zero | tr '\\0' x")) == 300_000
    with guest.spawn('while read -r line; do echo "got $line"; done') as process:
        process.send(b"one\n")
        assert process.read_line() == "got one"
        assert process.running
        process.end_input()
        assert process.wait().ok
    with pytest.raises(CommandTimeout):
        guest.run("sleep 1000", timeout=0.5)
    guest.put(module.loadable, f"/root/{module.loadable.name}")
    guest.check(f"insmod /root/{module.loadable.name}; echo loaded >/dev/kmsg")
    victim.close()

    recording = recorded.load(tmp_path)
    assert recording.about["sections"][module.name][".text"].startswith("0xffffffffc")
    assert replay.run(tmp_path) == 0
    assert capsys.readouterr().out.startswith("same: ")


def test_a_replay_goes_on_from_a_snapshot(victim: Clone, tmp_path: Path) -> None:
    """One that was taken in an earlier replay: it comes to the same end as from the boot."""
    for _ in range(3):
        victim.guest.check("head -c 100000 /dev/urandom | md5sum")
    victim.close()
    recording = recorded.load(tmp_path)
    assert recording.end is not None
    image = tmp_path / "snapshots.qcow2"
    images.empty_image(image)
    deadline = replay.deadline(recording)
    last, ends = "", []
    for name in ("first", "second"):
        work = tmp_path / name
        work.mkdir()
        with recorded.replayed(recording, work, snapshots=image, begin=last) as machine:
            machine.process.limit_files(resource.RLIM_INFINITY)
            if last:
                assert recorded.instructions(machine) >= recording.began
            last = last or replay.play_back(machine, recording, recording.end)
            recorded.run_to(machine, recording.end, deadline)
            assert recorded.instructions(machine) == recording.end
            ends.append(machine.registers(deadline))
            machine.quit(deadline)
    assert ends[0] == ends[1]


def test_a_panic_is_played_back(
    victim: Clone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The guest is lost at once, and its recording goes as far as that."""
    with pytest.raises(GuestLost):
        victim.guest.run("echo c >/proc/sysrq-trigger")
    victim.close()
    assert recorded.load(tmp_path).panicked
    assert replay.run(tmp_path) == 0
    assert "up to the panic" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_from_the_crash_back_to_the_mistake(lab: Lab, tmp_path: Path) -> None:
    """A pointer is overwritten, used much later, and the write is found from the end backwards."""
    source = HERE / "planted_corruption"
    red = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         str(HERE / "trials_record.py"), f"--kernel={lab.kernel.spec.asked}",
         f"--module={source}", "--record", f"--results={tmp_path}"],
        cwd=config.PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert red.returncode == 1, red.stdout + red.stderr
    said = re.search(r"invoke replay (\S+)", red.stdout)
    assert said, red.stdout
    script = tmp_path / "script"
    # gdb stops behind the instruction that has written.
    script.write_text(
        "watch -location record.target\nreverse-continue\nreverse-stepi\ninfo line *$pc\n"
    )
    text = (source / "planted_corruption.c").read_text().splitlines()
    (mistake,) = (number for number, line in enumerate(text, 1) if "/* the mistake */" in line)
    # The second time it goes on from the snapshots that the first one has left.
    for _ in range(2):
        found = subprocess.run(
            [sys.executable, "-m", "invoke", "replay", said[1], f"--script={script}"],
            cwd=config.PROJECT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert f'Line {mistake} of "/mnt/module/planted_corruption.c"' in found.stdout, (
            found.stdout + found.stderr
        )
        assert "<set_label" in found.stdout
        assert found.returncode == 0


def test_what_cannot_be_recorded_is_not_run_and_counted(lab: Lab, tmp_path: Path) -> None:
    """Nothing of it is red, as nothing is wrong with it."""
    tests = tmp_path / "test_clocks.py"
    tests.write_text(
        "import pytest\n"
        "def test_one():\n    pass\n"
        "@pytest.mark.machine(clock='ahead')\ndef test_ahead(guest):\n    pass\n"
        "@pytest.mark.machine(cpus=2)\ndef test_two(guest):\n    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tests), "--record",
         f"--kernel={lab.kernel.spec.asked}", f"--results={tmp_path}"],
        cwd=config.PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "1 passed, 2 deselected" in done.stdout
    assert "not run: 2 test(s) with a machine that cannot be recorded" in done.stdout
