"""Numbers in JSON lines that a parser may have changed: found in the bytes, many at once, before any line is looked at.

Numbers of 15 digits are safe. Longer ones are taken out of the bytes wherever they stand, in text too: so what is found
here is a suspicion, which `json_values.py` clears up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from streams.events.text_numbers import EXACT_DIGITS, all_doubles

_MINUS_ZERO = re.compile(rb"[:\[,\s]-0[,\]}\s]")
_TINY = (re.compile(rb"e-0*[2-9][0-9][0-9]"), re.compile(rb"E-0*[2-9][0-9][0-9]"))
_RUN = EXACT_DIGITS + 1
_EXPONENT_CHARS = 6
_QUOTE, _MINUS = b'"-'


def suspicious(raw: bytes, table: pa.Table) -> tuple[bool, set[tuple[str, ...]]]:
    """Whether some number may not be what it was; and the places in `table` with whole numbers that no double is."""
    if b"-0" in raw and _MINUS_ZERO.search(raw):
        return True, set()
    if (b"e-" in raw and _TINY[0].search(raw)) or (b"E-" in raw and _TINY[1].search(raw)):
        return True, set()
    numbers = _long_numbers(raw)
    if numbers is None:
        return False, set()
    texts, whole = numbers
    decimals = texts.filter(pa.array(~whole))
    if len(decimals) and not _are_doubles(decimals):
        return True, set()
    wholes = texts.filter(pa.array(whole))
    if not len(wholes):
        return False, set()
    try:
        values = wholes.cast(pa.int64())
    except pa.ArrowInvalid:
        return True, set()
    count, places = _no_doubles(values.to_numpy()), set()
    for place, array in _leaves(table):
        if array.type == pa.int64():
            found = _no_doubles(array.drop_null().to_numpy())
            count -= found
            if found:
                places.add(place)
    return count != 0, places


def _long_numbers(raw: bytes) -> tuple[pa.StringArray, np.ndarray] | None:
    """Numbers of 16 characters and more without their signs, and which are whole; None if there are none."""
    characters = np.frombuffer(raw, np.uint8)
    digits = (characters - np.uint8(ord("."))) <= ord("9") - ord(".")
    if len(digits) < _RUN:
        return None
    run, width = digits, 1
    while width < _RUN:
        run = run[:-width] & run[width:]
        width *= 2
    if not run.any():
        return None
    steps = np.diff(digits.view(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    long = ends - starts >= _RUN
    starts, ends = starts[long], ends[long]
    last = len(characters) - 1
    before, after = characters[np.maximum(starts - 1, 0)], characters[np.minimum(ends, last)]
    text = (before == _QUOTE) & (after == _QUOTE)
    starts, ends = starts[~text], ends[~text]
    if not len(starts):
        return None
    dots = np.concatenate(([0], np.cumsum(characters == ord("."))))
    whole = dots[starts] == dots[ends]
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
    lengths = np.diff(np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1])
    joined = bytes(memoryview(texts.buffers()[2]))
    return all_doubles(texts, values.to_numpy(), lengths, plain=b"e" not in joined and b"E" not in joined)


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
