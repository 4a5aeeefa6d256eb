# SPDX-License-Identifier: GPL-2.0-only
"""Asks a machine what became of it: its log, its leftovers, its memory. No pytest."""
