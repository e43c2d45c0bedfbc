"""A record read straight from its Avro bytes, where these are canonical and its fields legal; else it says no more.

The gate asks here first: one pass makes the record and sees that no other bytes mean the same, where fastavro reads to
plain values, writes them again to compare, and a second reader makes the record (three times the time). Whatever is odd
raises `Odd`, and goes that longer way (avro.py), which finds the words for it. Tests hold the two to one another.

Functions are generated as source from the record's type hints, as in avro.py, for the newest version of each record:
its schema has the fields in the order of the class. Arrays are one block, numbers are ≥ 0 and as short as can be: so
fastavro writes them.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any

from streams.core.names import Adler32, Lfn
from streams.core.names import _Name as Name
from streams.core.ranges import EMPTY, Ranges
from streams.errors import InvalidName
from streams.wire.avro import ADDRESSES, address_text, optional_of, plain_text

Odd = (IndexError, ValueError, KeyError, InvalidName)
"""What a reader raises: bytes that are cut off, not canonical, not legal."""
Reader = Callable[[bytes, int], Any]
"""From bytes and where the record begins in them, to its end; a record, or Odd."""
_NAMES_REMEMBERED = 4096


@cache
def reader(cls: type) -> Reader:
    """Of the newest version of a record."""
    return _Source(cls).compiled(is_whole=True)


@cache
def head_reader(cls: type) -> Callable[[bytes, int], tuple[Any, int]]:
    """Of an outline of a record: its first fields. The outline, and where what it leaves out begins."""
    return _Source(cls).compiled(is_whole=False)


def whole(raw: bytes, at: int) -> tuple[int, int]:
    """A number of several bytes whose second one is at `at`, twice as large as it is, and where it ends.

    ValueError where it is negative, of over 64 bits, or longer than need be.
    """
    first, byte = raw[at - 1], raw[at]
    at += 1
    if first & 1:
        raise ValueError("negative")
    if 0 < byte < 128:
        return first & 127 | byte << 7, at
    found, shift = first & 127 | (byte & 127) << 7, 14
    while byte > 127:
        if shift > 63:  # nobody may have us make a number of a megabyte
            raise ValueError("too large")
        byte = raw[at]
        at += 1
        found |= (byte & 127) << shift
        shift += 7
    if not byte or found >> 64:
        raise ValueError("longer than need be, or too large")
    return found, at


class _Source:
    """The source of one reader, as it grows. Each value that is read gets a variable of its own."""

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._scope: dict[str, Any] = {"whole": whole, "new": object.__new__}
        self._lines: list[str] = []
        self._variables = 0

    def compiled(self, *, is_whole: bool) -> Reader:
        made = self._record(self._cls, 1)
        if is_whole:
            self._add(1, "if at != len(b): raise ValueError('bytes left over, or too few')")
        self._add(1, f"return {made}" if is_whole else f"return {made}, at")
        name = f"read_{self._cls.__name__}"
        text = "\n".join((f"def {name}(b, at):", "    taken = lfn = None", *self._lines))
        exec(compile(text, f"<canonical {name}>", "exec"), self._scope)
        found: Reader = self._scope[name]
        return found

    def _add(self, depth: int, line: str) -> None:
        self._lines.append("    " * depth + line)

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _put(self, value: Any) -> str:
        """A name in scope for `value`."""
        name = f"f{len(self._scope)}"
        self._scope[name] = value
        return name

    def _record(self, cls: type, depth: int) -> str:
        """Read a record; the variable that has it.

        It is made without the class's own constructor, which takes three times as long to set what is frozen.
        """
        hints = typing.get_type_hints(cls)
        parts = {f.name: self._value(hints[f.name], depth, (cls.__name__, f.name)) for f in dataclasses.fields(cls)}
        made = self._variable()
        if hasattr(cls, "__post_init__"):
            self._add(depth, f"{made} = {self._put(cls)}({', '.join(parts.values())})")
            return made
        self._add(depth, f"{made} = new({self._put(cls)})")
        for name, part in parts.items():
            self._add(depth, f"{self._put(getattr(cls, name).__set__)}({made}, {part})")
        return made

    def _value(self, hint: Any, depth: int, field: tuple[str, str]) -> str:
        """Read a value; an expression for it that costs nothing to say."""
        inner = optional_of(hint)
        if inner is not None:
            return self._optional(inner, depth, field)
        if typing.get_origin(hint) is tuple:
            return self._array(typing.get_args(hint)[0], depth, field)
        if hint is Ranges:
            return self._ranges(depth)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self._record(hint, depth)
        if hint is int:
            self._number(depth)
            found = self._variable()
            self._add(depth, f"{found} = n >> 1")
            return found
        if hint is bool:
            found = self._variable()
            self._add(depth, f"{found} = {self._put((False, True))}[b[at]]; at += 1")
            return found
        return self._text(hint, depth, field)

    def _number(self, depth: int) -> None:
        """Into `n`, twice as large as it is."""
        self._add(depth, "n = b[at]; at += 1")
        self._add(depth, "if n & 129: n, at = whole(b, at)")

    def _length(self, depth: int) -> None:
        """The same of a text: those of 64 bytes and more have two."""
        self._add(depth, "n = b[at]; at += 1")
        self._add(depth, "if n & 129:")
        self._add(depth + 1, "if not n & 1 and 0 < b[at] < 128: n = n & 127 | b[at] << 7; at += 1")
        self._add(depth + 1, "else: n, at = whole(b, at)")

    def _text(self, hint: Any, depth: int, field: tuple[str, str]) -> str:
        found = self._variable()
        self._length(depth)
        taken = "b[at : (at := at + (n >> 1))]"
        if hint is bytes:
            self._add(depth, f"{found} = {taken}")
        elif hint is str:
            check = address_text if field in ADDRESSES else plain_text
            self._add(depth, f"{found} = {self._put(check)}({taken}.decode()) if n else ''")
        elif issubclass(hint, StrEnum):
            members = {member.value.encode(): member for member in hint}
            self._add(depth, f"{found} = {self._put(members)}[{taken}]")
        elif hint is Lfn:  # that of an item is mostly its target too
            self._add(depth, f"if taken != (taken := {taken}): lfn = {self._put(_name(hint))}(taken)")
            self._add(depth, f"{found} = lfn")
        else:
            self._add(depth, f"{found} = {self._put(_name(hint))}({taken})")
        return found

    def _optional(self, inner: Any, depth: int, field: tuple[str, str]) -> str:
        found = self._variable()
        self._add(depth, "n = b[at]; at += 1")
        self._add(depth, f"if n == 0: {found} = None")
        self._add(depth, "elif n == 2:")
        self._add(depth + 1, f"{found} = {self._value(inner, depth + 1, field)}")
        self._add(depth, "else: raise ValueError('no such branch')")
        return found

    def _array(self, inner: Any, depth: int, field: tuple[str, str]) -> str:
        found, some = self._variable(), self._variable()
        self._number(depth)
        self._add(depth, f"if n == 0: {found} = ()")
        self._add(depth, "else:")
        self._add(depth + 1, f"{some} = []")
        self._add(depth + 1, "for _ in range(n >> 1):")
        self._add(depth + 2, f"{some}.append({self._value(inner, depth + 2, field)})")
        self._one_block(depth + 1)
        self._add(depth + 1, f"{found} = tuple({some})")
        return found

    def _ranges(self, depth: int) -> str:
        found, some, start, before = (self._variable() for _ in range(4))
        spans = self._put(Ranges.spans.__set__)  # type: ignore[misc, attr-defined]
        self._number(depth)
        self._add(depth, f"if n == 0: {found} = {self._put(EMPTY)}")
        self._add(depth, "else:")
        self._add(depth + 1, f"{some} = []; {before} = -1")
        self._add(depth + 1, "for _ in range(n >> 1):")
        self._number(depth + 2)
        self._add(depth + 2, f"{start} = n >> 1")
        self._number(depth + 2)
        self._add(depth + 2, "n >>= 1")
        self._add(depth + 2, f"if not {before} < {start} < n: raise ValueError('not canonical ranges')")
        self._add(depth + 2, f"{some}.append(({start}, n)); {before} = n")
        self._one_block(depth + 1)
        self._add(depth + 1, f"{found} = new({self._put(Ranges)}); {spans}({found}, tuple({some}))")
        return found

    def _one_block(self, depth: int) -> None:
        self._add(depth, "if b[at]: raise ValueError('more than one block')")
        self._add(depth, "at += 1")


@cache
def _name(kind: type[Name]) -> Callable[[bytes], Name]:
    """From bytes to a name. Sites, datasets and ids come again and again, names and checksums of files do not."""

    parsed = kind.parser()
    return parsed if kind in (Lfn, Adler32) else lru_cache(_NAMES_REMEMBERED)(parsed)
