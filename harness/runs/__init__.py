# SPDX-License-Identifier: GPL-2.0-only
"""From the name of a kernel to results: getting ready, running pytest, keeping what came of it."""
