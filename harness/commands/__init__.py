# SPDX-License-Identifier: GPL-2.0-only
"""One file for each task of `invoke`: what it does, asks and prints; and what several share."""
