# SPDX-License-Identifier: GPL-2.0-only
"""What came of a run, as data and as text. Pure."""
