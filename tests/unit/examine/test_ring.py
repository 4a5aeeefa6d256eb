# SPDX-License-Identifier: GPL-2.0-only
"""harness/examine/ring.py: the kernel's log, read from its memory."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.examine import ring
from harness.examine.ring import Record
from harness.examine.structures import Symbols
from harness.qemu.memory import FrozenMemory

IMAGE, DIRECT = 0xFFFFFFFF80000000, 0xFFFF888000000000
# What 6.12 says of the structures of kernel/printk/printk_ringbuffer.h.
VMCOREINFO = """OSRELEASE=6.12.1
SYMBOL(prb)=ffffffff80001000
OFFSET(printk_ringbuffer.desc_ring)=0
OFFSET(printk_ringbuffer.text_data_ring)=48
OFFSET(prb_desc_ring.count_bits)=0
OFFSET(prb_desc_ring.descs)=8
OFFSET(prb_desc_ring.infos)=16
OFFSET(prb_desc_ring.head_id)=24
OFFSET(prb_desc_ring.tail_id)=32
SIZE(prb_desc)=24
OFFSET(prb_desc.state_var)=0
OFFSET(prb_desc.text_blk_lpos)=8
OFFSET(prb_data_blk_lpos.begin)=0
OFFSET(prb_data_blk_lpos.next)=8
SIZE(printk_info)=88
OFFSET(printk_info.ts_nsec)=8
OFFSET(printk_info.text_len)=16
OFFSET(prb_data_ring.size_bits)=0
OFFSET(prb_data_ring.data)=8
"""
PRB, DESCS, INFOS, DATA, NOTE = 0x2000, 0x3000, 0x4000, 0x5000, 0x6000
COUNT_BITS, SIZE_BITS = 2, 6  # 4 records, 64 bytes of text
FINALIZED, REUSABLE = 2, 3


class Kernel:
    """A memory in which records are placed by hand."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._bytes = bytearray(0x8000)
        self.word(0x1000, IMAGE + PRB)
        self.word(0x1008, DIRECT + NOTE)  # vmcoreinfo_data
        self.word(0x1010, len(VMCOREINFO))
        self._bytes[NOTE : NOTE + len(VMCOREINFO)] = VMCOREINFO.encode()
        self.word(PRB, COUNT_BITS)
        self.word(PRB + 8, IMAGE + DESCS)
        self.word(PRB + 16, DIRECT + INFOS)
        self.word(PRB + 48, SIZE_BITS)
        self.word(PRB + 56, DIRECT + DATA)

    def word(self, at: int, value: int) -> None:
        self._bytes[at : at + 8] = struct.pack("<Q", value)

    def log(self, number: int, begin: int, text: bytes, *, state: int = FINALIZED) -> None:
        """A record whose block begins at a position of the text that only ever grows."""
        place, size = number % 4, 1 << SIZE_BITS
        end = begin + -(-(8 + len(text)) // 8) * 8
        at = begin % size
        if at + 8 + len(text) > size:  # it is placed at the beginning, and the rest left free
            at, end = 0, (begin // size + 1) * size + end - begin
        self._bytes[DATA + at + 8 : DATA + at + 8 + len(text)] = text
        self.word(DESCS + 24 * place, state << 62 | number)
        self.word(DESCS + 24 * place + 8, begin)
        self.word(DESCS + 24 * place + 16, end)
        self.word(INFOS + 88 * place + 8, 1_234_567_000)
        self.word(INFOS + 88 * place + 16, len(text))
        self.word(PRB + 24, 1 << 63 | number)  # the upper bits of head_id are no part of it

    def memory(self) -> FrozenMemory:
        self._file.write_bytes(self._bytes)
        return FrozenMemory(self._file)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path / "memory")


SYMBOLS = Symbols("ffffffff80001008 D vmcoreinfo_data\nffffffff80001010 D vmcoreinfo_size\n")


def texts(kernel: Kernel, after: int) -> list[str]:
    with kernel.memory() as memory:
        layout = ring.learn(memory, SYMBOLS)
        assert layout is not None
        again = ring.Layout.from_json(layout.to_json())
        assert again == layout
        return [record.text for record in ring.records(memory, again, after)]


def test_records_are_read_in_their_order(kernel: Kernel) -> None:
    """Only those after the one that is known."""
    kernel.log(0, 0, b"old")
    kernel.log(1, 16, b"first")
    kernel.log(2, 32, b"two\nlines")
    assert texts(kernel, 0) == ["first", "two\nlines"]
    assert texts(kernel, 2) == []


def test_a_text_that_does_not_fit_at_the_end_is_at_the_beginning(kernel: Kernel) -> None:
    """Blocks are never cut in two."""
    kernel.log(5, 40 + 64, b"twenty-four bytes of it!")
    assert texts(kernel, 4) == ["twenty-four bytes of it!"]


def test_what_is_overwritten_or_not_whole_is_left_out(kernel: Kernel) -> None:
    """Each has the place of another in time."""
    kernel.log(3, 0, b"was here", state=REUSABLE)
    kernel.log(4, 16, b"half", state=0)
    kernel.log(5, 32, b"whole")
    assert texts(kernel, 0) == ["whole"]


def test_a_kernel_that_says_nothing_of_it_has_no_layout(kernel: Kernel) -> None:
    """As one that was built without kexec."""
    with kernel.memory() as memory:
        assert ring.learn(memory, Symbols("ffffffff80001008 D other\n")) is None
    kernel.word(0x1010, 20)
    with kernel.memory() as memory:
        assert ring.learn(memory, SYMBOLS) is None


def logged(*said: str) -> list[Record]:
    return [Record(place, 1_000_001 * place, text) for place, text in enumerate(said, start=1)]


@pytest.mark.parametrize(
    "console",
    [
        "[    1.000001] one\n[    2.000002] two\n[    2.000002] lines\n",
        "[    1.000001][    T1] one\n[    2.000002][   C0] two\n[    2.000002][   C0] lines\n",
        "one\ntwo\nlines\n",  # printk.time=0
        "noise [    1.000001] one\n\n[    2.000002] two\nnoise\n[    2.000002] lines",
    ],
)
def test_a_console_that_has_everything_lacks_nothing(console: str) -> None:
    """However the kernel was told to print it."""
    assert ring.unprinted(logged("one", "two\nlines", ""), console) == []


def test_what_is_not_on_the_console_is_said() -> None:
    """Also where the same text is there at another time."""
    console = "[    2.000002] same\n[    3.000003] other\n"
    assert ring.unprinted(logged("same", "same", "other", "gone"), console) == [
        "[    1.000001] same",
        "[    4.000004] gone",
    ]


def test_what_a_console_leaves_out_of_a_long_record_is_not_hidden() -> None:
    """Up to 6.2 it prints what fits into 1024 bytes. A line before that is missing, as ever."""
    lines = [f"line {number:02} of many" for number in range(40)]
    record = Record(1, 1_000_000, "\n".join(lines))
    shown = [f"{record.stamp} {line}\n" for line in lines[:33]]
    assert len("".join(shown)) < 1024 < len("".join(shown)) + len(shown[0])
    assert ring.unprinted([record], "".join(shown)) == []
    assert ring.unprinted([record], "".join([*shown[:3], *shown[4:]])) == [shown[3].rstrip()]
    assert len(ring.unprinted([record], "")) == 40
