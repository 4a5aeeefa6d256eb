# SPDX-License-Identifier: GPL-2.0-only
"""What came of a run: as data (result.py), from JUnit files (junit.py), as a table (table.py).

Pure: text and values in, text and values out.
"""
