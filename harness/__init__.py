# SPDX-License-Identifier: GPL-2.0-only
"""Build, boot and test Linux kernel modules; docs/how-it-works.md has the picture.

Data flows one way, each stage a function from a frozen value to a frozen value::

    KernelSpec -> Kernel -> Module -----\\
                        \\                >-> Template -> Clone -> Guest -> test -> Verdict
    GuestSpec --------> GuestImage -----/
"""
