"""Checksums over buffers, and the adler32 of a file whose segments arrive in any order.

No file is opened here. A file's adler32 is built from the adlers of its parts, so what this process wrote is never
read back. Whole-file sha256 cannot be combined from parts and has no place here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import google_crc32c
from zlib_ng import zlib_ng

Buffer = bytes | bytearray | memoryview
Span = tuple[int, int]

ADLER32_EMPTY = 1
_MOD_ADLER = 65521
_COPY_BYTES = 1 << 20


def adler32(buffer: Buffer, start: int = ADLER32_EMPTY) -> int:
    """adler32 of `buffer`, continuing from `start` (the adler32 of what went before)."""
    value: int = zlib_ng.adler32(buffer, start)
    return value


def adler32_hex(value: int) -> str:
    """The community's spelling: 8 lower-case hex digits, leading zeros kept."""
    return f"{value:08x}"


def adler32_combine(first: int, second: int, second_bytes: int) -> int:
    """adler32 of A+B from adler32(A), adler32(B) and len(B)."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + second_bytes * ((first & 0xFFFF) - 1)
    return (high % _MOD_ADLER) << 16 | low % _MOD_ADLER


def crc32c(buffer: Buffer, start: int = 0) -> int:
    """crc32c (Castagnoli) of `buffer`, continuing from `start` (the crc32c of what went before).

    Anything but `bytes` is copied, 1 MiB at a time: the C library insists on it.
    """
    if isinstance(buffer, bytes):
        return int(google_crc32c.extend(start, buffer))
    view = memoryview(buffer).cast("B")
    value = start
    for at in range(0, len(view), _COPY_BYTES):
        value = google_crc32c.extend(value, bytes(view[at : at + _COPY_BYTES]))
    return value


def gaps_between(starts: Sequence[int], stops: Sequence[int], start: int, stop: int) -> list[Span]:
    """The parts of `[start, stop)` in none of the disjoint spans `starts[n], stops[n]`, which ascend."""
    gaps: list[Span] = []
    at = bisect_right(stops, start)
    while start < stop and at < len(starts) and starts[at] < stop:
        if start < starts[at]:
            gaps.append((start, starts[at]))
        start = stops[at]
        at += 1
    if start < stop:
        gaps.append((start, stop))
    return gaps


class AdlerRanges:
    """The covered spans of one file, with the adler32 of each where it is known.

    Neighbours of the same kind merge at once, so memory grows with the number of gaps, not of segments (~200 bytes a
    span). Spans whose adler is unknown (written by a process that is gone) wait for `resolve`. Not thread-safe.
    """

    __slots__ = ("_adlers", "_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._adlers: list[int | None] = []

    def spans(self) -> list[Span]:
        """What is covered, known or not, as the fewest spans."""
        merged: list[Span] = []
        for start, stop in zip(self._starts, self._stops, strict=True):
            if merged and merged[-1][1] == start:
                merged[-1] = (merged[-1][0], stop)
            else:
                merged.append((start, stop))
        return merged

    def unknown(self) -> list[Span]:
        """Covered spans whose bytes must be read to know their adler."""
        return [
            (start, stop)
            for start, stop, adler in zip(self._starts, self._stops, self._adlers, strict=True)
            if adler is None
        ]

    def uncovered(self, start: int, stop: int) -> list[Span]:
        """The parts of `[start, stop)` not covered yet, in order."""
        return gaps_between(self._starts, self._stops, start, stop)

    def add(self, start: int, stop: int, adler: int | None) -> None:
        """Cover `[start, stop)`; `adler` is that of these bytes alone. Raises ValueError where already covered."""
        if start == stop:
            return
        at = bisect_left(self._starts, start)
        overlaps = (at > 0 and self._stops[at - 1] > start) or (at < len(self._starts) and self._starts[at] < stop)
        if start < 0 or stop < start or overlaps:
            raise ValueError(f"[{start}, {stop}) is not a new span")
        self._starts.insert(at, start)
        self._stops.insert(at, stop)
        self._adlers.insert(at, adler)
        self._merge_around(at)

    def resolve(self, start: int, stop: int, adler: int) -> None:
        """Give an unknown span, exactly as `unknown` named it, its adler."""
        at = bisect_left(self._starts, start)
        if at == len(self._starts) or (self._starts[at], self._stops[at], self._adlers[at]) != (start, stop, None):
            raise ValueError(f"[{start}, {stop}) is not an unknown span")
        self._adlers[at] = adler
        self._merge_around(at)

    def forget(self) -> None:
        """Distrust every known adler: all that is covered must be read again."""
        spans = self.spans()
        self._starts = [start for start, _ in spans]
        self._stops = [stop for _, stop in spans]
        self._adlers = [None] * len(spans)

    def whole(self, length: int) -> int | None:
        """adler32 of `[0, length)`, or None while anything is missing or unknown."""
        if length == 0:
            return ADLER32_EMPTY
        if self._starts == [0] and self._stops == [length]:
            return self._adlers[0]
        return None

    def _merge_around(self, at: int) -> None:
        self._merge(at)
        if at > 0:
            self._merge(at - 1)

    def _merge(self, at: int) -> None:
        """Join span `at` with the next one if they touch and are of the same kind."""
        if at + 1 >= len(self._starts) or self._stops[at] != self._starts[at + 1]:
            return
        mine, other = self._adlers[at], self._adlers[at + 1]
        if (mine is None) != (other is None):
            return
        if mine is not None and other is not None:
            self._adlers[at] = adler32_combine(mine, other, self._stops[at + 1] - self._starts[at + 1])
        self._stops[at] = self._stops[at + 1]
        del self._starts[at + 1], self._stops[at + 1], self._adlers[at + 1]
