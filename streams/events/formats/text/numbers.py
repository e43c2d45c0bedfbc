"""Which doubles are the numbers that a text wrote: the same digits, when written with as many as stood there.

Numbers of 15 digits are, whatever they are, within the normal range of doubles. Longer ones are compared on whole
columns: decimals of up to 17 digits by whole-number arithmetic modulo 2^64; others by their last digits against those
of the double times a power of ten, in two doubles; what that leaves open one by one. Not here: files, columns.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EXACT_DIGITS = 15
"""So many significant digits every double keeps."""
_NO_NUMBERS = ("nan", "inf", "infinity")
_DIGITS_MAX = 800
"""More no double has; a text with more is not compared but kept."""
_POWER_MAX = 290
_MAGNITUDE_MIN, _MAGNITUDE_MAX = 1e-250, 1e250
_WHOLE_MAX = 1.8e19  # below 2 ** 64
_SPLIT = 134217729.0  # 2 ** 27 + 1: halves a double's digits
_TIE = 0.5 - 1e-6
_LAST = 8
"""Digits of a text that are looked at: the nearest double differs from 19 digits in the last four only."""
_AT_ONCE = 8192
"""Values: what is computed of them stays in the processor's cache."""
_KEPT = np.array([(1 << 64) - (1 << (64 - 8 * n)) if n else 0 for n in range(9)], dtype=np.uint64)
"""Of eight characters, the last n."""
_SHORT_CHARS = 18
"""A point and 17 digits."""
_ONE_EXPONENT = 1075
"""Bits of the exponent of a double whose last digit is one."""
_FIVES = np.array([5**n for n in range(28)], dtype=np.uint64)
_TENS = np.array([10**n for n in range(17)], dtype=np.uint64)
_MODULUS = np.array([10**n for n in range(9)], dtype=np.uint64)


def _powers() -> tuple[np.ndarray, np.ndarray]:
    """10 ** n for n from -_POWER_MAX on, each as the sum of two doubles."""
    exact = [Decimal(10) ** n for n in range(-_POWER_MAX, _POWER_MAX + 1)]
    high = [float(power) for power in exact]
    low = [float(power - Decimal(h)) for power, h in zip(exact, high, strict=True)]
    return np.array(high), np.array(low)


_HIGH, _LOW = _powers()


def is_double(text: str) -> bool:
    """Whether the double nearest to this decimal, written with as many digits, is this decimal (or says NaN or inf)."""
    text = text.strip(" \t")
    if text.lstrip("+-").lower() in _NO_NUMBERS:
        return True
    try:
        exact = Decimal(text)
        value = float(text)
    except (InvalidOperation, ValueError):
        return False
    digits = len(exact.as_tuple().digits)
    if not exact.is_finite() or value in (float("inf"), float("-inf")) or digits > _DIGITS_MAX:
        return False
    return Decimal(f"{value:.{digits - 1}e}") == exact


def all_doubles(texts: pa.StringArray, values: np.ndarray, lengths: np.ndarray, *, plain: bool) -> bool:
    """Whether `values`, the doubles nearest to the texts (none missing), are those numbers.

    `lengths` are those of the texts; `plain`: none has an exponent, and none says NaN or inf.
    """
    long = lengths > EXACT_DIGITS
    some_long = bool(long.any())
    if plain and not some_long:
        return True
    magnitude = np.abs(values)
    # NaN is in no range
    odd = ~((magnitude >= np.finfo(np.float64).tiny) & (magnitude <= np.finfo(np.float64).max))
    if plain:
        odd &= long
    if odd.any():
        if not all(map(is_double, pc.unique(texts.filter(pa.array(odd))).to_pylist())):
            return False
        long &= ~odd
        some_long = bool(long.any())
    if not some_long:
        return True
    open_still = _open(texts, magnitude, lengths, long, plain=plain)
    if len(open_still):
        some = texts.take(pa.array(open_still))
        sure = _surely(some, magnitude[open_still], lengths[open_still], plain=plain)
        open_still = open_still[~sure]
    return not len(open_still) or all(map(is_double, texts.take(pa.array(open_still)).to_pylist()))


def _open(
    texts: pa.StringArray, magnitudes: np.ndarray, lengths: np.ndarray, long: np.ndarray, *, plain: bool
) -> np.ndarray:
    """The indices of long numbers that whole-number arithmetic does not show to be the same."""
    characters, ends = characters_of(texts), offsets_of(texts)[1:].astype(np.int64)
    found = []
    for at in range(0, len(ends), _AT_ONCE):
        some = slice(at, at + _AT_ONCE)
        still = long[some]
        if still.any():
            still = still & ~_same_fraction(characters, ends[some], lengths[some], magnitudes[some], plain=plain)
            found.append(at + np.flatnonzero(still))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.intp)


def _same_fraction(
    characters: np.ndarray, ends: np.ndarray, lengths: np.ndarray, magnitudes: np.ndarray, *, plain: bool
) -> np.ndarray:
    """Which decimals, of one point each, no exponent and few digits, are the same number. Says nothing of others.

    A text says M / 10^p, its double is m * 2^-(p + s). Both times 10^p * 2^s are m * 5^p and M * 2^s: whole numbers,
    which differ by at most 5^p / 2 < 2^63, as no double is nearer. So they are compared modulo 2^64. Of M, digits
    before the last 16 are the double's: if they were others, the difference would be far above half of 2^s.
    """
    begin = int(ends[0] - lengths[0])
    dots = begin + np.flatnonzero(characters[begin : int(ends[-1])] == ord("."))
    if len(dots) != len(ends) or begin + int(lengths.sum()) != int(ends[-1]):
        return np.zeros(len(ends), dtype=bool)
    decimals = ends - dots - 1
    sure = (decimals >= 4) & (decimals < lengths) & (ends >= 2 * _LAST)
    sure &= (lengths <= _SHORT_CHARS) | ((lengths <= _SHORT_CHARS + 3) & (decimals >= 14))
    if not plain:
        sure[_with_exponent(characters, ends - lengths, ends)] = False
    ends = np.maximum(ends, 2 * _LAST)
    bits = magnitudes.view(np.uint64)
    shift = _ONE_EXPONENT - (bits >> np.uint64(52)).astype(np.int64) - decimals
    sure &= (shift >= 1) & (shift <= 63)
    if not sure.all():
        decimals, shift, magnitudes = decimals * sure, np.where(sure, shift, 1), magnitudes * sure
    bits_away = shift.astype(np.uint64)
    fraction = _last_digits(characters, ends, np.minimum(decimals, _LAST))
    fraction += _last_digits(characters, ends - _LAST, np.clip(decimals - _LAST, 0, _LAST)) * np.uint64(10**_LAST)
    beyond = np.maximum(decimals - 2 * _LAST, 0)
    if beyond.any():
        magnitudes = magnitudes * _HIGH[beyond + _POWER_MAX]
    whole = magnitudes.astype(np.uint64) * _TENS[np.minimum(decimals, 2 * _LAST)] + fraction
    mantissa = (bits & np.uint64((1 << 52) - 1)) | np.uint64(1 << 52)
    half = np.uint64(1) << (bits_away - np.uint64(1))
    apart = mantissa * _FIVES[decimals] - (whole << bits_away)
    return np.asarray(sure & (apart + (half - np.uint64(1)) < half + half - np.uint64(1)))


def _surely(texts: pa.StringArray, magnitudes: np.ndarray, lengths: np.ndarray, *, plain: bool) -> np.ndarray:
    """Which of these are shown to be the same number; of the others nothing is said. All are finite and not zero."""
    characters, ends = characters_of(texts), offsets_of(texts)[1:].astype(np.int64)
    sure = np.zeros(len(ends), dtype=bool)
    if len(characters) < _LAST:
        return sure
    dots = pc.find_substring(texts, ".").to_numpy(zero_copy_only=False)
    for at in range(0, len(ends), _AT_ONCE):
        some = slice(at, at + _AT_ONCE)
        sure[some] = _same(characters, ends[some], lengths[some], dots[some], magnitudes[some], plain=plain)
    return sure


def _same(
    characters: np.ndarray,
    ends: np.ndarray,
    lengths: np.ndarray,
    dots: np.ndarray,
    magnitude: np.ndarray,
    *,
    plain: bool,
) -> np.ndarray:
    """The last digits of each text against those of its double times a power of ten, which is exact enough for both."""
    begin = ends - lengths
    exponents = np.zeros(len(ends), dtype=np.int64)
    if not plain:
        marked = _with_exponent(characters, begin, ends)
        exponents[marked], ends[marked] = _exponents(characters, ends[marked])
    digits = ends - begin  # upper bound: signs and leading zeros are counted
    decimals = np.where(dots < 0, 0, digits - dots - 1)
    compared = np.where((dots < 0) | (decimals > _LAST), _LAST, decimals)
    power = decimals - exponents
    sure = (compared >= 4) & (digits >= _LAST + 2) & (np.abs(power) <= _POWER_MAX)
    sure &= (magnitude > _MAGNITUDE_MIN) & (magnitude < _MAGNITUDE_MAX)
    if not sure.all():
        compared, power, magnitude = np.where(sure, compared, _LAST), np.where(sure, power, 0), magnitude * sure
    power += _POWER_MAX
    product, rest = _times(magnitude, _HIGH[power])
    rest += magnitude * _LOW[power]
    sure &= product < _WHOLE_MAX
    whole = np.floor(product * sure)
    modulus = _MODULUS[compared]
    last = _last_digits(characters, np.maximum(ends, _LAST), compared)
    apart = ((whole.astype(np.uint64) % modulus) - last).astype(np.int64)
    modulus = modulus.astype(np.int64)
    apart -= modulus * ((2 * apart > modulus).astype(np.int64) - (2 * apart < -modulus))
    return np.asarray(sure & (np.abs(apart + ((product - whole) + rest)) < _TIE))


def offsets_of(texts: pa.StringArray) -> np.ndarray:
    """Where the texts begin, one behind the other, and where the last ends: in `characters_of`."""
    if not len(texts):
        return np.zeros(1, dtype=np.int32)
    return np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]


def characters_of(texts: pa.StringArray) -> np.ndarray:
    """As bytes; also those before the first text, where it is a slice."""
    data = texts.buffers()[2]
    return np.frombuffer(data if data is not None else b"", np.uint8)[: int(offsets_of(texts)[-1])]


def _times(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The product and what rounding took from it (Dekker)."""
    product = a * b
    t = a * _SPLIT
    a_high = t - (t - a)
    a_low = a - a_high
    t = b * _SPLIT
    b_high = t - (t - b)
    b_low = b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _last_digits(characters: np.ndarray, ends: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The number that the last `count` (at most 8) characters before each end say; those are digits."""
    words: Any = np.ndarray((len(characters) - 7,), dtype="<u8", buffer=characters, strides=(1,))
    word = (words[ends - 8] ^ np.uint64(0x3030303030303030)) & _KEPT[count]
    word = word * np.uint64(10) + (word >> np.uint64(8))
    mask = np.uint64(0x000000FF000000FF)
    low = (word & mask) * np.uint64(0x000F424000000064)
    high = ((word >> np.uint64(16)) & mask) * np.uint64(0x0000271000000001)
    return np.asarray((low + high) >> np.uint64(32))


def _with_exponent(characters: np.ndarray, begin: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The indices of those that have an exponent."""
    first = int(begin[0])
    marks = first + np.flatnonzero((characters[first : int(ends[-1])] | 0x20) == ord("e"))
    return np.searchsorted(ends, marks, side="right")


def _exponents(characters: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(exponent of each number, where its digits before that end); all have one, and eight characters at least."""
    mark = np.zeros(len(ends), dtype=np.int64)
    for width in (2, 3, 4, 5):
        mark = np.where((characters[ends - width] | 0x20) == ord("e"), width, mark)
    found = np.zeros(len(ends), dtype=np.int64)
    sign = np.ones(len(ends), dtype=np.int64)
    for back in (4, 3, 2, 1):
        at = characters[ends - back]
        inside = back < mark
        number = (at >= ord("0")) & (at <= ord("9"))
        sign = np.where(inside & (at == ord("-")), -1, sign)
        found = np.where(inside & number, found * 10 + (at.astype(np.int64) - ord("0")), found)
    return found * sign, ends - mark
