"""Which type carries every text of a CSV column exactly: seen piece by piece, decided when all were seen.

- whole numbers (int64, else uint64) where writing each back gives the text that stood there: `0001`, `+1` are none;
- doubles where each text, written with as many digits, is the double, and at least one has a point, an exponent or is
  NaN or infinite: then whole numbers among them are doubles too, where a double is that number;
- true and false, spelled so;
- else text. An empty quoted value is missing among numbers, and text among text.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streams.events.formats.text.numbers import all_doubles, characters_of, offsets_of

_MINUS, _PLUS, _ZERO = b"-+0"
_EXACT_MAX = 1 << 53
_TRIED = 8
_DECIMAL = "[.eEnN]"
"""What decimals have, and NaN and infinity, and whole numbers have not."""


class CsvColumn:
    """What is known of a column so far."""

    def __init__(self) -> None:
        self._int64 = self._uint64 = self._double = self._bool = True
        self._decimal = False
        self._some = False
        self.quoted_empty = False
        """Some value is quoted and empty."""

    @property
    def type(self) -> pa.DataType:
        if not self._some:
            return pa.string()
        if self._int64:
            return pa.int64()
        if self._uint64:
            return pa.uint64()
        if self._double and self._decimal:
            return pa.float64()
        return pa.bool_() if self._bool else pa.string()

    @property
    def is_text(self) -> bool:
        """Whether no value to come can make it anything else."""
        return self._some and not (self._int64 or self._uint64 or self._double or self._bool)

    def see(self, texts: pa.StringArray) -> None:
        if self.is_text:
            return
        if texts.null_count:
            texts = texts.drop_null()
        lengths = _lengths(texts)
        if len(texts) and lengths.min() == 0:
            self.quoted_empty = True
            texts = texts.filter(pa.array(lengths > 0))
            lengths = _lengths(texts)
        if not len(texts):
            return
        self._some = True
        if self._bool:
            self._bool = bool(4 <= lengths[0] <= 5 and pc.all(pc.is_in(texts, pa.array(["true", "false"]))).as_py())
            if self._bool:
                self._int64 = self._uint64 = self._double = False
                return
        if (self._int64 or self._uint64) and self._seen_whole(texts, lengths):
            return
        self._int64 = self._uint64 = False
        self._double = self._double and self._seen_doubles(texts, lengths)

    def _seen_whole(self, texts: pa.StringArray, lengths: np.ndarray) -> bool:
        """Whether all are whole numbers of 64 bits; which, and whether doubles hold them too, is noted."""
        for kind in (pa.int64(), pa.uint64()):
            numbers = _cast(texts, kind)
            if numbers is not None:
                break
        else:
            return False
        if len(_odd(texts, lengths)):
            return False
        least, most = pc.min_max(numbers).as_py().values()
        self._int64 = self._int64 and numbers.type == pa.int64()
        self._uint64 = self._uint64 and least >= 0
        if self._double and not -_EXACT_MAX <= least <= most <= _EXACT_MAX:
            self._double = _exact(numbers)
        return True

    def _seen_doubles(self, texts: pa.StringArray, lengths: np.ndarray) -> bool:
        values = _cast(texts, pa.float64())
        if values is None:
            texts = pc.utf8_trim(trimmed_from := texts, characters=" \t")
            values = _cast(texts, pa.float64())
            if values is None:
                return False
            padded = lengths != (lengths := _lengths(texts))
            # A whole number with blanks around it is not that number's text.
            if not pc.all(pc.match_substring_regex(trimmed_from.filter(pa.array(padded)), _DECIMAL)).as_py():
                return False
        characters = bytes(characters_of(texts))
        plain = not any(letter in characters for letter in b"eEnN")
        self._decimal = self._decimal or not plain or b"." in characters
        return self._whole_ones_kept(texts, lengths) and all_doubles(texts, values.to_numpy(), lengths, plain=plain)

    def _whole_ones_kept(self, texts: pa.StringArray, lengths: np.ndarray) -> bool:
        """Whether no number without point or exponent has a sign or zeros that would be lost; -0 is noted."""
        odd = _odd(texts, lengths)
        if not len(odd):
            return True
        whole = texts.take(pa.array(odd))
        whole = whole.filter(pc.invert(pc.match_substring_regex(whole, _DECIMAL)))
        # -0 is a double where others are.
        return not len(whole) or bool(pc.all(pc.equal(whole, "-0")).as_py())


def _cast(texts: pa.StringArray, kind: pa.DataType) -> pa.Array | None:
    """None where they are not of this type. A cast words every value that fails, so a few are tried first."""
    try:
        texts.slice(0, _TRIED).cast(kind)
        return texts.cast(kind)
    except pa.ArrowInvalid:
        return None


def _odd(texts: pa.StringArray, lengths: np.ndarray) -> np.ndarray:
    """The indices of numbers that begin with a plus, with a zero and another digit, or are -0."""
    characters, starts = characters_of(texts), offsets_of(texts)[:-1].astype(np.intp)
    first = characters.take(starts)
    if first.min() > _ZERO:
        return np.zeros(0, dtype=np.intp)
    zeros = np.flatnonzero((first == _ZERO) & (lengths > 1))
    second = characters[starts[zeros] + 1]
    found = [zeros[_goes_on(second)], np.flatnonzero(first == _PLUS)]
    minus = np.flatnonzero(first == _MINUS)
    if len(minus):
        second = characters[starts[minus] + 1]
        minus = minus[second == _ZERO]
        third = characters[np.minimum(starts[minus] + 2, len(characters) - 1)]
        found.append(minus[(lengths[minus] == 2) | (_goes_on(third))])
    return np.concatenate(found)


def _goes_on(characters: np.ndarray) -> np.ndarray:
    """Which of the characters behind a zero are neither a point nor an exponent's."""
    return np.asarray((characters != ord(".")) & ((characters | 0x20) != ord("e")))


def _exact(numbers: pa.Array) -> bool:
    values = numbers.to_numpy()
    doubles = values.astype(np.float64)
    # 2 ** 63 and 2 ** 64 are doubles just beyond the types: nothing that is cast to them came from there.
    limit = 2.0**63 if numbers.type == pa.int64() else 2.0**64
    return bool((doubles < limit).all() and (doubles.astype(values.dtype) == values).all())


def _lengths(texts: pa.StringArray) -> np.ndarray:
    return np.diff(offsets_of(texts))
