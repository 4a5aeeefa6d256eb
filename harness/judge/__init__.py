# SPDX-License-Identifier: GPL-2.0-only
"""What the evidence of a test amounts to. Pure: no file is opened, no machine is asked."""
