"""Where the rows of CSV end (RFC 4180): a quote opens a value only at a field's start, else it is text, as in 12".

Line ends inside quotes end no row. `\\n`, with any `\\r` before it, ends one, or, where the first row ends so, `\\r`
alone; a file that does both is refused, as is what follows a closing quote. A line of nothing is no row, but in a file
of one column it is one, whose value is missing. Pure: bytes in, numbers out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_LF, _CR = 0x0A, 0x0D
_AT_ONCE = 1 << 16


class CsvFault(Exception):
    """What is wrong, and at which byte of the block."""

    def __init__(self, what: str, at: int, then: str) -> None:
        super().__init__(what)
        self.what, self.at, self.then = what, at, then


@dataclass(frozen=True, slots=True)
class Rows:
    """Whole rows at the start of a block: up to which byte, how many, and where each begins.

    `begins` has only rows that are entries. `open_quote`: where a value begins that the block does not end, or -1.
    """

    stop: int
    begins: np.ndarray | None
    """None where every line is a row: whoever needs them counts line ends."""
    count: int
    open_quote: int


class CsvLines:
    """For one file. `line_end`: the byte that ends its rows."""

    def __init__(self, separator: str, quote: str) -> None:
        self._separator = ord(separator)
        self._quote = ord(quote) if quote else -1
        mark, edge = re.escape(quote.encode()), re.escape(separator.encode())
        value = rb"%(q)s(?:(?<=\A%(q)s)|(?<=[%(s)s\r\n]%(q)s))[^%(q)s]*(?:%(q)s%(q)s[^%(q)s]*)*(?:%(q)s|\Z)"
        self._quoted = re.compile(value % {b"q": mark, b"s": edge}) if quote else None
        self.line_end = _LF
        self._count = 0
        self.blank_counts = False
        """Whether a line of nothing is a row: in files of one column."""

    def first_row(self, block: bytes, *, last: bool) -> int:
        """The place after the first row, which tells how rows end; 0 where the block has no whole one."""
        inside = self._inside(block, last=last)
        for found in re.finditer(rb"\r*\n|\r+", block):
            if inside is not None and inside.of(np.array([found.start()]))[0]:
                continue
            if found.end() == len(block) and not last and not found[0].endswith(b"\n"):
                return 0
            if found[0].endswith(b"\n"):
                return found.end()
            self.line_end = _CR
            return found.start() + 1
        return len(block) if last and (inside is None or inside.open < 0) else 0

    def rows(self, block: bytes, *, last: bool) -> Rows:
        """The whole rows of a block that begins with one; with `last`, nothing follows it. Raises CsvFault."""
        if (stop := self._plain(block, last=last)) > 0:
            return Rows(stop, None, self._count + (block[stop - 1] != self.line_end), -1)
        characters = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(characters == self.line_end)
        inside = self._inside(block, last=last)
        open_quote = -1
        if inside is not None:
            open_quote = inside.open
            ends = ends[~inside.of(ends)]
        stop = int(ends[-1]) + 1 if len(ends) else 0
        if last and open_quote < 0:
            stop = len(block)
        self._one_way(block, stop, inside)
        begins = np.concatenate(([0], ends + 1))
        if begins[-1] >= stop:
            begins = begins[:-1]
        begins = begins if self.blank_counts else self._filled(characters, begins, stop)
        return Rows(stop, begins, len(begins), open_quote)

    def _plain(self, block: bytes, *, last: bool) -> int:
        """Where the last row ends, in a block whose every `\\n`, and nothing else, ends a row with values; else 0."""
        if self.line_end != _LF or b"\r" in block or block[:1] == b"\n":
            return 0
        characters = np.frombuffer(block, np.uint8)
        quoted = self._quote >= 0 and block.find(self._quote) >= 0
        self._count = 0
        after_end = open_still = False
        for at in range(0, len(block), _AT_ONCE):  # memory that is new costs more than what is done with it
            some = characters[at : at + _AT_ONCE]
            ends = some == _LF
            if (after_end and ends[0]) or (ends[1:] & ends[:-1]).any():
                return 0
            after_end = bool(ends[-1])
            self._count += int(np.count_nonzero(ends))
            if quoted:
                quotes = np.flatnonzero(some == self._quote)
                if not self._regular(characters, at + quotes[open_still::2], at + quotes[1 - open_still :: 2]):
                    return 0
                if ((np.searchsorted(quotes, np.flatnonzero(ends)) + open_still) & 1).any():
                    return 0
                open_still ^= bool(len(quotes) & 1)
        if last:
            return 0 if open_still else len(block)
        return block.rfind(b"\n") + 1

    def _one_way(self, block: bytes, stop: int, inside: _Inside | None) -> None:
        """Raises CsvFault where the other character that may end a line stands alone."""
        if self.line_end == _LF:
            if b"\r" not in block or block.count(b"\r", 0, stop) == block.count(b"\r\n", 0, stop):
                return
            other = re.compile(rb"\r(?![\r\n])")
        else:
            if b"\n" not in block:
                return
            other = re.compile(rb"\n")
        for found in other.finditer(block, 0, stop):
            if found.end() == len(block) or (inside is not None and inside.of(np.array([found.start()]))[0]):
                continue
            names = ("a carriage return", "a line feed")
            here, usual = names if self.line_end == _LF else names[::-1]
            what = f"{here} stands alone where rows end in {usual}: it may be an end or a part of a value"
            raise CsvFault(what, found.start(), "quote the value, or end all lines in one way")

    def _filled(self, characters: np.ndarray, begins: np.ndarray, stop: int) -> np.ndarray:
        """Those rows that are not lines of nothing."""
        if not len(begins):
            return begins
        first = characters[begins]
        blank = (first == _LF) | (first == _CR)
        if not blank.any():
            return begins
        if self.line_end == _LF:  # `\r` before the end may be several
            for at in np.flatnonzero(blank):
                end = int(begins[at + 1]) if at + 1 < len(begins) else stop
                blank[at] = not bytes(characters[int(begins[at]) : end]).strip(b"\r\n")
        return np.asarray(begins[~blank])

    def _inside(self, block: bytes, *, last: bool) -> _Inside | None:
        """What is inside quotes; None where there are none."""
        if self._quote < 0 or block.find(self._quote) < 0:
            return None
        characters = np.frombuffer(block, np.uint8)
        quotes = np.flatnonzero(characters == self._quote)
        opening, closing = quotes[0::2], quotes[1::2]
        if self._regular(characters, opening, closing):
            return _Inside(opening, closing)
        return self._one_by_one(block, last=last)

    def _regular(self, characters: np.ndarray, opening: np.ndarray, closing: np.ndarray) -> bool:
        """Whether all quotes stand at the edges of values, or doubled in quoted ones."""
        before = characters[opening - 1]
        after = characters[np.minimum(closing + 1, len(characters) - 1)]
        outside = self._edge(before) | (before == self._quote)
        if len(opening) and opening[0] == 0:
            outside[0] = True
        if not outside.all():
            return False
        outside = self._edge(after) | (after == self._quote) | (closing == len(characters) - 1)
        return bool(outside.all())

    def _edge(self, characters: np.ndarray) -> np.ndarray:
        return np.asarray((characters == self._separator) | (characters == _LF) | (characters == _CR))

    def _one_by_one(self, block: bytes, *, last: bool) -> _Inside:
        """Where quotes stand inside of values too: from value to value."""
        opening, closing = [], []
        quote, edges = bytes([self._quote]), b"\r\n" + bytes([self._separator])
        assert self._quoted is not None, "there is a quote"
        for found in self._quoted.finditer(block):
            start, end = found.span()
            opening.append(start)
            if end - start < 2 or (found[0].count(quote) % 2):
                break  # to the block's end: it is not closed here
            if end < len(block) and block[end] not in edges:
                then = "quote the whole value and double the quotes in it, or say that nothing is quoted: quote=none"
                raise CsvFault("a value goes on behind its closing quote", end, then)
            closing.append(end - 1)
        return _Inside(np.array(opening, dtype=np.int64), np.array(closing, dtype=np.int64))


class _Inside:
    """Quoted values: between an opening quote and the closing one of the same number; the last may be open."""

    def __init__(self, opening: np.ndarray, closing: np.ndarray) -> None:
        self._opening, self._closing = opening, closing
        self.open = int(opening[-1]) if len(opening) > len(closing) else -1

    def of(self, places: np.ndarray) -> np.ndarray:
        """Which places are inside quotes."""
        return np.asarray(np.searchsorted(self._opening, places) > np.searchsorted(self._closing, places))
