# SPDX-License-Identifier: GPL-2.0-only
"""From a name to a kernel, from a folder to a module, from packages to a guest image."""
