# SPDX-License-Identifier: GPL-2.0-only
"""What the harness needs of the host: programs, files, locks, the cache, sandboxes."""
