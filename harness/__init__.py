# SPDX-License-Identifier: GPL-2.0-only
"""Build, boot and test Linux kernel modules.

Data flows one way, and each stage is a function that takes a frozen value and returns one::

    KernelSpec -> Kernel -> Module -----\\
                        \\                >-> Template -> Clone -> Guest -> test -> Verdict
    GuestSpec --------> GuestImage -----/

The packages are in four layers. A file imports from its own layer and from those above it:

    host      host, errors.py, config.py        this computer
    pure      klog, judge, report               they only compute
    machines  build, qemu, machines, examine    kernels, modules, QEMU, guests
    drivers   plugin, runs, commands            pytest, whole runs, the tasks of `invoke`

docs/how-it-works.md says more, and which file to change for what.
"""
