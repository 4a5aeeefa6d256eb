# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/record.py: how the record of allocations is prepared and kept."""

from __future__ import annotations

from harness.examine import record
from harness.examine.record import Record
from harness.examine.structures import Symbols

KERNEL = 0xFFFFFFFF81000000


def test_where_the_record_is_is_kept_as_text() -> None:
    """As a template's folder has it."""
    fields = {"ptr": (8, 8), "bytes_req": (16, 8)}
    kept = Record(((4096, 8192),), {11: ("kmalloc", fields)}, ((1, 2),), ((3, 4),), ((5, 6),))
    assert Record.from_json(kept.to_json()) == kept


def test_the_tracers_own_memory_is_the_records() -> None:
    """Its pages, and where an event is put together."""
    about = Record(((4096,), (16384,)), {}, scratch=((100, 200),))
    assert [about.has(at) for at in (4096, 8191, 8192, 16400, 100, 200)] == [
        True, True, False, True, True, False,
    ]  # fmt: skip


def test_what_is_left_out_is_left_out_by_who_allocates_it() -> None:
    """Also where gcc has made several functions of one."""
    names = ("vm_area_dup", "getname_flags.part.0", "other")
    lines = [f"{KERNEL + at * 256:016x} t {name}" for at, name in enumerate(names)]
    script = record.setup_script(Symbols("\n".join(lines)), "word", 64)
    assert "(call_site < 0xffffffff81000000 || call_site > 0xffffffff810000ff)" in script
    assert "(call_site < 0xffffffff81000100 || call_site > 0xffffffff810001ff)" in script
    assert "0xffffffff81000200" not in script
