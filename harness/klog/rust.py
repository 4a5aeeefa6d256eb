# SPDX-License-Identifier: GPL-2.0-only
"""Reads the names that Rust's compiler gives to functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_RUST_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8",
    "i": "isize", "j": "usize", "l": "i32", "m": "u32", "n": "i128", "o": "u128", "s": "i16",
    "t": "u16", "u": "()", "v": "...", "x": "i64", "y": "u64", "z": "!", "p": "_",
}  # fmt: skip
_RUST_POINTERS = {"R": "&", "Q": "&mut ", "P": "*const ", "O": "*mut "}


class Demangler:
    """Reads Rust's symbol names, https://doc.rust-lang.org/rustc/symbol-mangling/v0.html.

    Knows paths, implementations, generic arguments and the types that occur in them, not
    constants and function types: what it does not know is a ValueError.
    """

    _DEPTH: Final = 40
    # A name may refer back to its own parts, and these to theirs: what it stands for can be two
    # to the power of its length. Real names take a few hundred steps.
    _STEPS: Final = 4000
    _DIGITS: Final = 5  # of the length of one part; a name of the kernel's has 512 characters

    def __init__(self, name: str) -> None:
        self.name = name
        self.at = len("_R")
        self.depth = 0
        self.steps = 0

    def symbol(self) -> str:
        return self._path()

    def _take(self) -> str:
        self.steps += 1
        if self.steps > self._STEPS:
            raise ValueError(self.name)
        self.at += 1
        return self.name[self.at - 1]

    def _eat(self, char: str) -> bool:
        if self.name[self.at : self.at + 1] != char:
            return False
        self.at += 1
        return True

    def _base62(self) -> int:
        digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        if self._eat("_"):
            return 0
        value = 0
        while not self._eat("_"):
            value = value * 62 + digits.index(self._take())
        return value + 1

    def _identifier(self) -> tuple[str, int]:
        number = self._base62() + 1 if self._eat("s") else 0
        self._eat("u")
        length = ""
        while self.name[self.at] in "0123456789":
            length += self._take()
            if len(length) > self._DIGITS:
                raise ValueError(self.name)
        self._eat("_")
        end = self.at + int(length)
        if end > len(self.name):
            raise ValueError(self.name)
        self.at, text = end, self.name[self.at : end]
        return text, number

    def _backref(self, read: Callable[[], str]) -> str:
        start = self.at - 1
        target = self._base62() + len("_R")
        if target >= start:
            raise ValueError(self.name)
        here, self.at = self.at, target
        text = read()
        self.at = here
        return text

    def _path(self, *, in_type: bool = False) -> str:
        self.depth += 1
        if self.depth > self._DEPTH:
            raise ValueError(self.name)
        try:
            return self._path_of(self._take(), in_type=in_type)
        finally:
            self.depth -= 1

    def _path_of(self, tag: str, *, in_type: bool) -> str:
        if tag in "MX":
            if self._eat("s"):
                self._base62()
            self._path()  # where the implementation is: of no interest
        match tag:
            case "C":
                path = self._identifier()[0]
            case "N":
                path = self._nested(in_type=in_type)
            case "M":
                path = f"<{self._type()}>"
            case "X" | "Y":
                path = f"<{self._type()} as {self._path(in_type=True)}>"
            case "I":
                generic = self._path(in_type=in_type)
                path = f"{generic}{'' if in_type else '::'}<{', '.join(self._arguments())}>"
            case "B":
                path = self._backref(lambda: self._path(in_type=in_type))
            case _:
                raise ValueError(self.name)
        return path

    def _nested(self, *, in_type: bool) -> str:
        space = self._take()
        parent = self._path(in_type=in_type)
        text, number = self._identifier()
        if space.islower():
            return f"{parent}::{text}" if text else parent
        what = {"C": "closure", "S": "shim"}.get(space, space)
        return f"{parent}::{{{what}{':' if text else ''}{text}#{number}}}"

    def _arguments(self) -> list[str]:
        found = []
        while not self._eat("E"):
            if self._eat("L"):
                self._base62()
            else:
                found.append(self._type())
        return found

    def _type(self) -> str:
        tag = self._take()
        if tag in _RUST_BASIC:
            return _RUST_BASIC[tag]
        if tag in _RUST_POINTERS:
            if self._eat("L"):
                self._base62()
            return _RUST_POINTERS[tag] + self._type_within()
        if tag == "S":
            return f"[{self._type_within()}]"
        if tag == "T":
            return f"({', '.join(self._arguments())})"
        if tag == "B":
            return self._backref(self._type_within)
        self.at -= 1
        return self._path(in_type=True)

    def _type_within(self) -> str:
        self.depth += 1
        if self.depth > self._DEPTH:
            raise ValueError(self.name)
        try:
            return self._type()
        finally:
            self.depth -= 1
