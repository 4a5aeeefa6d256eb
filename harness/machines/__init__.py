# SPDX-License-Identifier: GPL-2.0-only
"""Machines in number: frozen templates, the clones made of them, the SSH session into each."""
