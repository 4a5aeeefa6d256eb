# SPDX-License-Identifier: GPL-2.0-only
"""The whole way from the name of a kernel to a template, for tasks and fixtures alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from harness import qemu
from harness.build import counter, image, kernel, module
from harness.build import source as sources
from harness.build.image import GuestImage
from harness.build.kernel import Kernel
from harness.build.module import Module
from harness.build.source import Given
from harness.config import USUAL, Equipment, KernelSpec, Matrix
from harness.host import proc
from harness.host.cache import Cache
from harness.machines import freeze
from harness.machines.template import Counting, Template
from harness.qemu import devices as qemu_devices


@dataclass(frozen=True)
class Lab:
    """A kernel and its guest, ready to be booted."""

    kernel: Kernel
    image: GuestImage
    cache: Cache
    counting: Counting | None = None  # what its machines run of modules is counted
    equipment: Equipment = USUAL

    def build(self, source: Given | str) -> Module:
        """The module that ``source`` names, built for this kernel.

        Warnings are errors for this project's own module; another's are only shown.
        """
        if isinstance(source, str):
            source = sources.parse(source)
        return module.build(self.kernel, source, self.cache, strict=sources.of(source).own)

    def template(
        self, *, memory_mib: int = 512, cpus: int = 1, append: tuple[str, ...] = (),
        devices: tuple[str, ...] = (), emulated: bool = False,
    ) -> Template:  # fmt: skip
        """The frozen machine of this shape; ``emulated``: also where there is KVM.

        It has ``devices`` besides those of the lab's equipment. Raises ``InputError`` for one that
        QEMU does not know.
        """
        own = self.equipment.devices
        every = (*own, *(each for each in devices if each not in own))
        qemu_devices.check(every)
        memory_mib += _more_memory(self.image.initrd.stat().st_size)
        template = freeze.prepare_template(
            self.kernel, self.image, self.cache, memory_mib=memory_mib, cpus=cpus, append=append,
            devices=every, emulated=emulated or self.counting is not None,
        )  # fmt: skip
        return replace(template, counting=self.counting)

    def counted(self, folder: Path) -> Lab:
        """The same, and what its machines run of modules is counted in ``folder``.

        They are emulated, since QEMU counts nothing with KVM.
        """
        plugin = counter.compiled(self.kernel, qemu.check_version(), self.cache)
        return replace(self, counting=Counting(plugin, folder))


_USUAL_IMAGE = 64 << 20  # bytes; what a guest has room for in the memory that a machine has
_STEP_MIB = 64


def _more_memory(image: int) -> int:
    """How many MiB more a machine needs for a guest whose image has so many bytes.

    The kernel keeps an initramfs until it is unpacked, and gives files no more than half of its
    memory.
    """
    more = 2 * max(0, image - _USUAL_IMAGE)
    return -(-more // (_STEP_MIB << 20)) * _STEP_MIB


def prepare_lab(
    spec: KernelSpec, matrix: Matrix, cache: Cache, equipment: Equipment = USUAL
) -> Lab:
    """Everything that one kernel needs, taken from the cache or made now."""
    # Unpacking is work for one core each, so the two trees are unpacked at the same time.
    with ThreadPoolExecutor(max_workers=2) as other:
        # Whoever boots a machine asks for it, and has it by then. Where it fails, it does so again.
        other.submit(qemu.version_text)
        guest_tree = other.submit(image.tree, matrix.guest, cache, equipment.packages)
        try:
            its_kernel = kernel.prepare_kernel(spec, cache)
            tree = guest_tree.result()
        except Exception:
            # The guest's tree is needed for every kernel, so it is finished all the same. Ending it
            # would also end the tests of another kernel, which may run in this process.
            wait([guest_tree])
            raise
        except BaseException:
            if not guest_tree.cancel() and not guest_tree.done():
                proc.end_all()  # which ends the thread, too: it waits for such a process
            raise
    its_image = image.prepare_image(
        matrix.guest, tree, its_kernel, cache, complete=bool(equipment.packages)
    )
    return Lab(its_kernel, its_image, cache, equipment=equipment)
