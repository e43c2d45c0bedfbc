"""Where a range of entries is cut. Arithmetic on whole numbers only, so every machine cuts one file the same way.

Each column tells its pieces (baskets, pages, row groups) as edges in entries and their bytes once decoded. A border
that all columns share is best: cutting there, no piece is decoded twice. Between such borders bytes are taken as
spread evenly over a piece's entries.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

_FRACTION = 20  # binary places of bytes per entry
_BYTES_MAX = 1 << 42  # of one piece, and below of one entry: so that no sum over columns leaves 64 bits
_ENTRY_BYTES_MAX = 1 << 28


class CutPoints:
    """`columns` holds, for each column, edges (one more than pieces, rising) and bytes of the pieces.

    `widest_bytes`: the largest piece of every column, together.
    """

    def __init__(self, start: int, stop: int, columns: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
        self.start, self.stop = start, stop
        self.widest_bytes = sum(max(sizes, default=0) for _, sizes in columns)
        at, slope, shared = _spread(columns)
        inside = [(a, s, c) for a, s, c in zip(at, slope, shared, strict=True) if a < stop]
        # From `start` on, whatever piece it falls into.
        first = max(0, bisect_right([a for a, _, _ in inside], start) - 1)
        self._at = [max(a, start) for a, _, _ in inside[first:]] or [start]
        self._slope = [max(1, s) for _, s, _ in inside[first:]] or [1]
        self._shared = [a for a, _, c in inside[first:] if c and a > start] + [stop]
        self._before = [0]
        for i in range(1, len(self._at)):
            self._before.append(self._before[-1] + self._slope[i - 1] * (self._at[i] - self._at[i - 1]))

    def cuts(self, start: int, stop: int, payload_bytes: int) -> list[tuple[int, int]]:
        """`[start, stop)` in pieces of about `payload_bytes`, in order, none empty."""
        found = []
        payload = max(1, payload_bytes) << _FRACTION
        while start < stop:
            end = self._end(start, stop, payload)
            found.append((start, end))
            start = end
        return found

    def bytes_between(self, start: int, stop: int) -> int:
        """Estimated bytes of the columns' entries once decoded."""
        return (self._bytes(stop) - self._bytes(start)) >> _FRACTION

    def _end(self, start: int, stop: int, payload: int) -> int:
        begin = self._bytes(start)
        most = payload + payload // 4
        if self._bytes(stop) - begin <= most:
            return stop
        reach = self._entry(begin + payload)
        known = bisect_right(self._shared, reach) - 1
        if known >= 0 and self._shared[known] > start and self._bytes(self._shared[known]) - begin >= payload // 2:
            return self._shared[known]
        after = bisect_right(self._shared, max(reach, start))
        border = min(self._shared[after] if after < len(self._shared) else stop, stop)
        left = self._bytes(border) - begin
        if left <= most:
            return border
        # A piece larger than the payload: equal parts up to the next border.
        return min(stop, max(start + 1, self._entry(begin + left // -(-left // payload))))

    def _bytes(self, entry: int) -> int:
        i = max(0, bisect_right(self._at, entry) - 1)
        return self._before[i] + self._slope[i] * (entry - self._at[i])

    def _entry(self, total: int) -> int:
        """The last entry with at most `total` before it."""
        i = max(0, bisect_right(self._before, total) - 1)
        return self._at[i] + (total - self._before[i]) // self._slope[i]


def _spread(columns: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[list[int], list[int], list[bool]]:
    """Every edge of any column in order, the bytes per entry after it (fixed point), whether all columns share it."""
    edges, slopes, ends, count = [], [], [], 0
    for at, sizes in columns:
        edge = np.asarray(at, dtype=np.int64)
        lengths = np.diff(edge)
        full = lengths > 0
        if not full.any():
            continue
        count += 1
        size = np.clip(np.asarray(sizes, dtype=np.int64)[full], 0, _BYTES_MAX)
        slope = np.minimum((size << _FRACTION) // lengths[full], _ENTRY_BYTES_MAX << _FRACTION)
        edges.append(edge[:-1][full])
        slopes.append(slope)
        ends.append(edge[1:][full])
    if not count:
        return [], [], []
    starts = np.concatenate(edges)
    slope = np.concatenate(slopes)
    border, where = np.unique(np.concatenate([starts, np.concatenate(ends)]), return_inverse=True)
    change = np.zeros(len(border), dtype=np.int64)
    np.add.at(change, where[: len(starts)], slope)
    np.subtract.at(change, where[len(starts) :], slope)
    begun = np.zeros(len(border), dtype=np.int64)
    np.add.at(begun, where[: len(starts)], 1)
    return border.tolist(), np.cumsum(change).tolist(), (begun == count).tolist()


def piece_of(windows: Sequence[tuple[int, int]], entry: int) -> int:
    """The index of the window that holds `entry`."""
    return bisect_left(windows, entry + 1, key=lambda window: window[1])
