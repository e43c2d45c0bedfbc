"""Numbers in JSON lines that a parser may have changed: found in the bytes, many at once, before any line is looked at.

Numbers of 15 digits are safe. Longer ones are taken out of the bytes wherever they stand, in text too: so what is found
here is a suspicion, which `values.py` clears up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from streams.events.formats.text.numbers import EXACT_DIGITS, all_doubles, characters_of, offsets_of

_MINUS_ZERO = re.compile(rb"-0(?<=[:\[,\s]-0)[,\]}\s]")  # what it begins with is found fast
_TINY = (re.compile(rb"e-0*[2-9][0-9][0-9]"), re.compile(rb"E-0*[2-9][0-9][0-9]"))
_RUN = EXACT_DIGITS + 1
_EXPONENT_CHARS = 6
_AT_ONCE = 1 << 16
_QUOTE, _MINUS = b'"-'


def suspicious(raw: bytes, table: pa.Table) -> tuple[bool, set[tuple[str, ...]]]:
    """Whether some number may not be what it was; and the places in `table` with whole numbers that no double is."""
    characters = np.frombuffer(raw, np.uint8)
    count = start = 0
    while start < len(raw):
        # Parts of whole lines, small enough for the processor's cache.
        stop = raw.rfind(b"\n", start, start + _AT_ONCE) + 1 or raw.find(b"\n", start + _AT_ONCE) + 1 or len(raw)
        if _zero_or_tiny(raw, start, stop, characters[start:stop]):
            return True, set()
        if _has_long(characters[start:stop]):
            found = _no_doubles_within(raw[start:stop])
            if found is None:
                return True, set()
            count += found
        start = stop
    places = set()
    if count:
        for place, array in _leaves(table):
            if array.type == pa.int64():
                found = _no_doubles(array.drop_null().to_numpy())
                count -= found
                if found:
                    places.add(place)
    return count != 0, places


def _no_doubles_within(raw: bytes) -> int | None:
    """How many of the long whole numbers in it no double is; None where one may not be what it was."""
    numbers = _long_numbers(raw)
    if numbers is None:
        return 0
    texts, whole = numbers
    if not whole.any():
        return 0 if _are_doubles(texts) else None
    decimals = texts.filter(pa.array(~whole))
    if len(decimals) and not _are_doubles(decimals):
        return None
    try:
        return _no_doubles(texts.filter(pa.array(whole)).cast(pa.int64()).to_numpy())
    except pa.ArrowInvalid:
        return None


def _zero_or_tiny(raw: bytes, start: int, stop: int, characters: np.ndarray) -> bool:
    """Whether there may be -0, which is a double, or a number so near to zero that a double holds less of it."""
    minus = np.flatnonzero(characters[:-1] == _MINUS)
    if not len(minus):
        return False
    if ((characters[minus - 1] | 0x20) == ord("e")).any() and any(tiny.search(raw, start, stop) for tiny in _TINY):
        return True
    zeros = minus[characters[minus + 1] == ord("0")]
    if not len(zeros) or (characters[np.minimum(zeros + 2, len(characters) - 1)] == ord(".")).all():
        return False
    return _MINUS_ZERO.search(raw, start, stop) is not None


def _has_long(characters: np.ndarray) -> bool:
    run, width = _digits(characters), 1
    while width < _RUN:
        run = run[:-width] & run[width:]
        width *= 2
    return len(characters) >= _RUN and bool(run.any())


def _digits(characters: np.ndarray) -> np.ndarray:
    """Which characters are digits, points or slashes."""
    return np.asarray((characters - np.uint8(ord("."))) <= ord("9") - ord("."))


def _long_numbers(raw: bytes) -> tuple[pa.StringArray, np.ndarray] | None:
    """Numbers of 16 characters and more without their signs, and which are whole; None if there are none."""
    characters = np.frombuffer(raw, np.uint8)
    digits = _digits(characters)
    edges = np.flatnonzero(digits[1:] != digits[:-1]) + 1
    if digits[0]:
        edges = np.concatenate(([0], edges))
    if len(edges) % 2:
        edges = np.concatenate((edges, [len(characters)]))
    starts, ends = edges[0::2], edges[1::2]
    long = ends - starts >= _RUN
    starts, ends = starts[long], ends[long]
    last = len(characters) - 1
    before, after = characters[np.maximum(starts - 1, 0)], characters[np.minimum(ends, last)]
    text = (before == _QUOTE) & (after == _QUOTE)
    if text.any():
        starts, ends = starts[~text], ends[~text]
    if not len(starts):
        return None
    dots = np.flatnonzero(characters == ord("."))
    whole = np.searchsorted(dots, starts) == np.searchsorted(dots, ends)
    going = (characters[np.minimum(ends, last)] | 0x20) == ord("e")
    for _ in range(_EXPONENT_CHARS):
        if not going.any():
            break
        whole &= ~going
        ends = ends + going
        at = characters[np.minimum(ends, last)]
        going &= ((at - np.uint8(ord("0"))) <= 9) | (at == ord("-")) | (at == ord("+"))
    offsets = np.empty(2 * len(starts), dtype=np.int32)
    offsets[0::2], offsets[1::2] = starts, np.minimum(ends, len(characters))
    between = pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(raw)])
    return between.take(pa.array(np.arange(0, len(offsets) - 1, 2))).cast(pa.string()), whole


def _are_doubles(texts: pa.StringArray) -> bool:
    try:
        values = texts.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    joined = bytes(characters_of(texts))
    plain = b"e" not in joined and b"E" not in joined
    return all_doubles(texts, values.to_numpy(), np.diff(offsets_of(texts)), plain=plain)


def _no_doubles(values: np.ndarray) -> int:
    doubles = values.astype(np.float64)
    beyond = doubles >= 2.0**63
    return int(((np.where(beyond, 0, doubles).astype(np.int64) != values) | beyond).sum())


def _leaves(table: pa.Table) -> Iterator[tuple[tuple[str, ...], pa.Array]]:
    for name in table.schema.names:
        for chunk in table.column(name).chunks:
            yield from _below((name,), chunk)


def _below(place: tuple[str, ...], array: pa.Array) -> Iterator[tuple[tuple[str, ...], pa.Array]]:
    if pa.types.is_list(array.type):
        yield from _below((*place, "[]"), array.flatten())
    elif pa.types.is_struct(array.type):
        for at, member in enumerate(array.flatten()):
            yield from _below((*place, array.type.field(at).name), member)
    else:
        yield place, array
