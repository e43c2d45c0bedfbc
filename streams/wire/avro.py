"""Frozen dataclasses ⇄ plain Avro values (dict, list, str, int…), compiled once per class. No bytes, no meaning.

The type hints of core/records are the only description: a name's constructor checks it, a StrEnum is one of its
values, `Ranges` are an array of spans in canonical order, every whole number is ≥ 0, other text is printable ASCII
without a URL. Functions are generated as source, since reflecting per record costs ten times as much, and a manifest
has a thousand items (what it costs: docs/PLATFORM.md).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any

from streams.core.names import Lfn, shown
from streams.core.names import _Name as Name
from streams.core.ranges import Ranges
from streams.errors import InvalidName

TEXT_CHARS_MAX = 4096
"""Opaque text (cursor, version…): a cursor may hold a name of 1,024."""
ADDRESSES = frozenset(
    {
        ("ChunksRequested", "capability"),
        ("ItemUrl", "url"),
        ("OfferedDoor", "url"),
        ("SiteAnnounced", "api"),
        ("SiteAnnounced", "door"),
    }
)
"""The only fields that may hold a URL."""
_UNPRINTABLE = f"not printable ASCII of {TEXT_CHARS_MAX} characters at most: {{!r}}"
_NAMES_REMEMBERED = 4096

Plain = dict[str, Any]


def plain_text(text: str) -> str:
    """`text` if it is printable ASCII without a URL, or InvalidName."""
    if len(text) > TEXT_CHARS_MAX or not (text.isascii() and text.isprintable()) or "://" in text:
        raise InvalidName(f"holds a URL: {shown(text)!r}" if "://" in text else _UNPRINTABLE.format(shown(text, 60)))
    return text


def address_text(text: str) -> str:
    """`text` if it is printable ASCII, or InvalidName."""
    if len(text) > TEXT_CHARS_MAX or not (text.isascii() and text.isprintable()):
        raise InvalidName(_UNPRINTABLE.format(shown(text, 60)))
    return text


def canonical_ranges(spans: list[dict[str, int]]) -> Ranges:
    """Ranges of spans that already are sorted, disjoint, not touching, not empty; else ValueError."""
    before = -1
    out = []
    for span in spans:
        start, stop = span["start"], span["stop"]
        if not before < start < stop:
            raise ValueError(f"not canonical ranges at [{start}, {stop})")
        out.append((start, stop))
        before = stop
    return Ranges(out)


@cache
def writer(cls: type, *, checked: bool = False) -> Callable[[Any], Plain]:
    """A function from a value of `cls` to its plain form.

    `checked`: it raises InvalidName or ValueError for text and numbers that a reader would refuse. Names, ranges and
    the values of a StrEnum were checked when they were made.
    """
    scope: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    parts = []
    for f in dataclasses.fields(cls):
        value = f"v.{f.name}"
        if checked and (cls.__name__, f.name) in ADDRESSES:
            written = f"{_put(scope, address_text)}({value})"
        else:
            written = _write(hints[f.name], value, scope, checked)
        parts.append(f"{f.name!r}: {written}")
    return _compiled(f"write_{cls.__name__}", "v", [f"return {{{', '.join(parts)}}}"], scope)


@cache
def reader(cls: type) -> Callable[[Plain], Any]:
    """A function from a plain form to a value of `cls`; raises InvalidName, ValueError or KeyError (see `fault`)."""
    scope: dict[str, Any] = {"cls": cls}
    hints = typing.get_type_hints(cls)
    numbers = [f.name for f in dataclasses.fields(cls) if hints[f.name] is int]
    lines = [f"n_{name} = d[{name!r}]" for name in numbers]
    if numbers:
        lines.append(
            "if " + " or ".join(f"n_{name} < 0" for name in numbers) + ": raise ValueError('a negative number')"
        )
    parts = []
    for f in dataclasses.fields(cls):
        if f.name in numbers:
            parts.append(f"n_{f.name}")
        elif (cls.__name__, f.name) in ADDRESSES:
            parts.append(f"{_put(scope, address_text)}(d[{f.name!r}])")
        else:
            parts.append(_read(hints[f.name], f"d[{f.name!r}]", scope))
    return _compiled(f"read_{cls.__name__}", "d", [*lines, f"return cls({', '.join(parts)})"], scope)


def fault(cls: type, plain: Plain, path: str = "") -> str | None:
    """The first field of `plain` that `reader(cls)` refuses, and why: the slow way, for the one line people see."""
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        value, where = plain[f.name], f"{path}{f.name}"
        is_address = (cls.__name__, f.name) in ADDRESSES
        why = _why(address_text, value, where) if is_address else _fault(hints[f.name], value, where)
        if why is not None:
            return why
    return _why(reader(cls), plain, path.rstrip(".") or "record")


def _fault(hint: Any, value: Any, path: str) -> str | None:
    inner = optional_of(hint)
    if inner is not None:
        return None if value is None else _fault(inner, value, path)
    if typing.get_origin(hint) is tuple:
        of = typing.get_args(hint)[0]
        return next((why for n, v in enumerate(value) if (why := _fault(of, v, f"{path}[{n}]"))), None)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return fault(hint, value, f"{path}.")
    if hint is Ranges:
        return _why(canonical_ranges, value, path)
    if hint is int:
        return f"{path}: {value} is negative" if value < 0 else None
    if issubclass(hint, StrEnum):
        return None if value in list(hint) else f"{path}: unknown value {shown(value, 60)!r}"
    if issubclass(hint, Name):
        return _why(hint, value, path)
    return _why(plain_text, value, path) if hint is str else None


def _why(read: Callable[[Any], Any], value: Any, path: str) -> str | None:
    try:
        read(value)
    except (InvalidName, ValueError, KeyError) as error:
        return f"{path}: {error.what if isinstance(error, InvalidName) else error}"
    return None


def optional_of(hint: Any) -> Any:
    """T of `T | None`, else None."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return None
    (inner,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
    return inner


def _put(scope: dict[str, Any], value: Any) -> str:
    """A name in `scope` for `value`."""
    name = f"f{len(scope)}"
    scope[name] = value
    return name


def _write(hint: Any, value: str, scope: dict[str, Any], checked: bool) -> str:
    inner = optional_of(hint)
    if inner is not None:
        written = _write(inner, value, scope, checked)
        return value if written == value else f"None if {value} is None else {written}"
    if typing.get_origin(hint) is tuple:
        written = _write(typing.get_args(hint)[0], "x", scope, checked)
        return value if written == "x" else f"[{written} for x in {value}]"
    if hint is Ranges:
        return f"[{{'start': a, 'stop': b}} for a, b in {value}.spans]"
    if checked and hint in _CHECKS:
        return f"{_put(scope, _CHECKS[hint])}({value})"
    if isinstance(hint, type) and not dataclasses.is_dataclass(hint):
        return value
    return f"{_put(scope, writer(hint, checked=checked))}({value})"


def _read(hint: Any, value: str, scope: dict[str, Any]) -> str:
    inner = optional_of(hint)
    if inner is not None:
        return f"None if {value} is None else {_read(inner, value, scope)}"
    if typing.get_origin(hint) is tuple:
        return f"tuple([{_read(typing.get_args(hint)[0], 'x', scope)} for x in {value}])"
    if hint is Ranges:
        return f"{_put(scope, canonical_ranges)}({value})"
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return f"{_put(scope, reader(hint))}({value})"
    if hint is int:
        return f"{_put(scope, _whole)}({value})"
    if issubclass(hint, StrEnum):
        return f"{_put(scope, {member.value: member for member in hint})}[{value}]"
    if issubclass(hint, Name):
        return f"{_put(scope, _constructor(hint))}({value})"
    return f"{_put(scope, plain_text)}({value})" if hint is str else value


def _whole(number: int) -> int:
    if number < 0:
        raise ValueError("a negative number")
    return number


_CHECKS: dict[Any, Callable[[Any], Any]] = {str: plain_text, int: _whole}


@cache
def _constructor(kind: type[Name]) -> Callable[[str], Name]:
    """`kind`, remembering what it found legal: sites, datasets and ids come again and again, LFNs do not."""
    return kind if kind is Lfn else lru_cache(_NAMES_REMEMBERED)(kind)


def _compiled(name: str, argument: str, lines: list[str], scope: dict[str, Any]) -> Callable[[Any], Any]:
    body = "".join(f"    {line}\n" for line in lines)
    exec(compile(f"def {name}({argument}):\n{body}", f"<{name}>", "exec"), scope)
    made: Callable[[Any], Any] = scope[name]
    return made
