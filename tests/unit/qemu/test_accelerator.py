# SPDX-License-Identifier: GPL-2.0-only
"""harness/qemu/accelerator.py: whether KVM is used, and for how long that holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import MachineFault
from harness.host.cache import Cache
from harness.qemu import Machine, MachineSpec, accelerator
from tests.unit.qemu.fake import SPEC, ignored_leaks


def test_without_access_to_kvm_there_is_no_probe(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCG, with a reason."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.delattr(accelerator, "try_kvm")
    name, why = accelerator.choose_accelerator(SPEC, cache)
    assert name == "tcg"
    assert "/dev/kvm" in why


@pytest.fixture
def kernels(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], MachineSpec]:
    """Makes kernels, on a host that has a /dev/kvm; QEMU acts as the one made last wants it."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/kvm" or access(path, mode))
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 0.3)

    def make(act: str) -> MachineSpec:
        monkeypatch.setenv("FAKE_QEMU", act)
        kernel = tmp_path / act
        kernel.write_text(act)
        return replace(SPEC, kernel=kernel)

    return make


@pytest.mark.parametrize(
    ("act", "answer", "why"),
    [("ready", "kvm", "has booted"), ("hates-kvm", "tcg", "killed by SIGABRT"),
     ("internal-error", "tcg", "internal error")],
)  # fmt: skip
def test_what_kvm_itself_shows_holds_for_all_kernels(
    cache: Cache, kernels: Callable[[str], MachineSpec], act: str, answer: str, why: str
) -> None:
    """A /dev/kvm that opens proves nothing; the answer is kept, so the probe is run once."""
    assert accelerator.kvm_answer(cache.root) is None
    first = accelerator.choose_accelerator(kernels(act), cache)
    assert first[0] == answer
    assert why in first[1]
    assert accelerator.choose_accelerator(kernels("no QEMU is started"), cache) == first
    assert accelerator.kvm_answer(cache.root) == first


def test_a_kernel_is_not_read_where_the_hosts_answer_is_known(
    cache: Cache, kernels: Callable[[str], MachineSpec]
) -> None:
    """It has 10 MiB, and each process of a run asks."""
    kernel = kernels("ready")
    first = accelerator.choose_accelerator(kernel, cache)
    kernel.kernel.unlink()
    assert accelerator.choose_accelerator(kernel, cache) == first


@pytest.mark.parametrize("act", ["silent", "fails"])
def test_a_kernel_that_does_not_come_up_takes_kvm_from_itself_alone(
    cache: Cache, kernels: Callable[[str], MachineSpec], act: str
) -> None:
    """Somebody's broken kernel says nothing of KVM. It is not tried again either."""
    broken = kernels(act)
    first = accelerator.choose_accelerator(broken, cache)
    assert first[0] == "tcg"
    assert accelerator.choose_accelerator(kernels("ready"), cache)[0] == "kvm"
    assert accelerator.kvm_answer(cache.root) is not None


def test_a_kernel_that_did_not_come_up_is_not_tried_again(
    cache: Cache, kernels: Callable[[str], MachineSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe takes seconds where KVM spins in silence."""
    broken = kernels("fails")
    first = accelerator.choose_accelerator(broken, cache)
    monkeypatch.delattr(accelerator, "try_kvm")
    assert accelerator.choose_accelerator(broken, cache) == first
    assert accelerator.kvm_answer(cache.root) is None


def test_a_probe_that_the_host_has_ended_is_forgotten(
    cache: Cache, kernels: Callable[[str], MachineSpec]
) -> None:
    """One bad moment would take KVM from all kernels until the host boots again."""
    unlucky = kernels("is-killed-early")
    assert accelerator.choose_accelerator(unlucky, cache)[0] == "tcg"
    assert [path.name for path in cache.root.glob("kvm-*")] == []


def test_a_host_that_runs_no_qemu_at_all_says_so(
    cache: Cache, kernels: Callable[[str], MachineSpec]
) -> None:
    """It says nothing of KVM."""
    with ignored_leaks(), pytest.raises(MachineFault, match="did not start"):
        accelerator.choose_accelerator(kernels("refuses"), cache)
    assert [path.name for path in cache.root.glob("kvm-*")] == []


@pytest.mark.parametrize("content", [b"", b"perhaps it works", b"\xff\xfe"])
def test_a_damaged_answer_is_none(
    cache: Cache, kernels: Callable[[str], MachineSpec], content: bytes
) -> None:
    """It is found out again."""
    first = accelerator.choose_accelerator(kernels("ready"), cache)
    (file,) = cache.root.glob("kvm-*")
    file.write_bytes(content)
    assert accelerator.kvm_answer(cache.root) is None
    assert (
        accelerator.choose_accelerator(kernels("ready"), cache)
        == first
        == accelerator.kvm_answer(cache.root)
    )
