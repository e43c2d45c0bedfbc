"""What JSON values need of a type, found value by value: for the few lines that the parser cannot be trusted with.

Whole numbers keep every digit, decimals are doubles if, written with as many digits as stood there, they are the same
number; `-0` is a double. A column of values that no type holds together has a fault. Not here: files, the parser.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from streams.core.names import shown
from streams.events.formats.text.numbers import is_double

_INT64_MIN, _INT64_MAX, _UINT64_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1
_TOLD_CHARS = 40
TOO_WIDE = "holds whole numbers that 64 bits do not hold"
NO_DOUBLES = "holds decimals, and whole numbers that no double is"
MIXED = "holds values of several kinds"


class ColumnFault(Exception):
    """No type holds the values of a column; the text goes on behind its name."""


class LineFault(Exception):
    """A line cannot be read, whatever the type. `broken`: it is no JSON object at all."""

    def __init__(self, what: str, *, broken: bool) -> None:
        super().__init__(what)
        self.broken = broken


@dataclass
class Needs:
    """What the values seen in one place need."""

    kinds: set[str] = field(default_factory=set)
    least: int = 0
    most: int = 0
    decimal: bool = False
    inexact: bool = False
    """Some whole number is no double."""
    lost: str = ""
    """A decimal that is no double."""
    items: Needs | None = None
    members: dict[str, Needs] = field(default_factory=dict)

    def see(self, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, _Number):
            self.kinds.add("numbers")
            self._number(value)
        elif isinstance(value, float):  # NaN and infinities
            self.kinds.add("numbers")
            self.decimal = True
        elif isinstance(value, bool):
            self.kinds.add("true and false")
        elif isinstance(value, str):
            self.kinds.add("text")
        elif isinstance(value, list):
            self.kinds.add("lists")
            self.items = self.items or Needs()
            for item in value:
                self.items.see(item)
        else:
            self.kinds.add("objects")
            for name, member in value.items():
                self.members.setdefault(name, Needs()).see(member)

    def _number(self, text: str) -> None:
        if text.lstrip("-").isdigit():
            whole = int(text)
            self.least, self.most = min(self.least, whole), max(self.most, whole)
            self.decimal |= text == "-0"
            self.inexact |= abs(whole) > 1 << 53 and int(float(whole)) != whole if abs(whole) < 1 << 1023 else True
        else:
            self.decimal = True
            if not self.lost and not is_double(text):
                self.lost = text

    @property
    def type(self) -> pa.DataType:
        """Raises ColumnFault."""
        if not self.kinds:
            return pa.null()
        if len(self.kinds) > 1:
            raise ColumnFault(f"{MIXED}: {', '.join(sorted(self.kinds))}")
        (kind,) = self.kinds
        if kind == "lists":
            assert self.items is not None, "a list was seen"
            return pa.list_(self.items.type)
        if kind == "objects":
            return pa.struct([(name, needs.type) for name, needs in self.members.items()])
        if kind == "numbers":
            return self._number_type()
        return pa.string() if kind == "text" else pa.bool_()

    def _number_type(self) -> pa.DataType:
        if self.lost:
            raise ColumnFault(f"holds {shown(self.lost, _TOLD_CHARS)}, of which a double keeps not every digit")
        if self.decimal and self.inexact:
            raise ColumnFault(NO_DOUBLES)
        if self.decimal:
            return pa.float64()
        if self.least >= _INT64_MIN and self.most <= _INT64_MAX:
            return pa.int64()
        if self.least < 0 or self.most > _UINT64_MAX:
            raise ColumnFault(TOO_WIDE)
        return pa.uint64()


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def members(line: str) -> dict[str, Any]:
    """The members of the JSON object in a line; numbers as they are written. Raises LineFault."""
    try:
        found = json.loads(
            line, parse_int=_Number, parse_float=_finite, parse_constant=float, object_pairs_hook=_each_once
        )
        line.encode()
        if isinstance(found, dict):
            json.dumps(found, ensure_ascii=False).encode()
            return found
    except UnicodeEncodeError:
        raise LineFault("holds half of a surrogate pair, which is no character", broken=False) from None
    except (ValueError, RecursionError) as error:
        raise LineFault(f"is no JSON object: {shown(str(error))}", broken=True) from None
    raise LineFault(f"holds no JSON object but {_NAMED.get(type(found), 'a number')}", broken=True)


_NAMED = {list: "an array", str: "text", bool: "true or false", type(None): "null"}


def _finite(text: str) -> str:
    if float(text) in (float("inf"), float("-inf")):
        raise LineFault(f"holds {shown(text, _TOLD_CHARS)}, which is more than doubles hold", broken=False)
    return _Number(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for at, (name, _) in enumerate(pairs) if name in dict(pairs[:at]))
        raise LineFault(f"names {shown(twice, _TOLD_CHARS)!r} twice in one object", broken=False)
    return found
