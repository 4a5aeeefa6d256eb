# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/linked.py: the linker's script."""

from __future__ import annotations

from harness.examine import linked


def test_each_section_is_where_it_was() -> None:
    """The lowest first, as a linker wants them; tables have no place in memory that matters."""
    sections = {".data": "0xffffffffc0248030", ".text": "0xffffffffc0246000", ".symtab": "0x1"}
    assert linked.script(sections).splitlines() == [
        "SECTIONS {",
        '".text" 0xffffffffc0246000 : { *(".text") }',
        '".data" 0xffffffffc0248030 : { *(".data") }',
        "}",
    ]


def test_a_name_is_no_script() -> None:
    """A module names its sections as it likes."""
    assert linked.script({'a") } INCLUDE "/etc/passwd': "0x1"}) == "SECTIONS {\n}\n"
