"""A growing set of whole numbers as half-open spans: the mutable sibling of `Ranges` for the hot path; no meaning."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from streams.core.ranges import Ranges


class SpanSet:
    """Numbers seen. Adding in ascending order is O(1); memory grows with the gaps, not with the numbers."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, number: int) -> bool:
        """Whether `number` was new."""
        starts, stops = self._starts, self._stops
        if not stops or number > stops[-1]:
            starts.append(number)
            stops.append(number + 1)
            return True
        if number == stops[-1]:
            stops[-1] = number + 1
            return True
        return self._insert(number)

    def _insert(self, number: int) -> bool:
        starts, stops = self._starts, self._stops
        at = bisect_right(starts, number)
        if at and number < stops[at - 1]:
            return False
        joins_left = at > 0 and stops[at - 1] == number
        joins_right = at < len(starts) and starts[at] == number + 1
        if joins_left and joins_right:
            stops[at - 1] = stops[at]
            del starts[at], stops[at]
        elif joins_left:
            stops[at - 1] = number + 1
        elif joins_right:
            starts[at] = number
        else:
            starts.insert(at, number)
            stops.insert(at, number + 1)
        return True

    def touches(self, start: int, stop: int) -> bool:
        """Whether any number of `[start, stop)` is in the set."""
        at = bisect_right(self._starts, stop - 1)
        return start < stop and at > 0 and self._stops[at - 1] > start

    def within(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The spans of its numbers in `[start, stop)`."""
        at = max(0, bisect_right(self._starts, start) - 1)
        while at < len(self._starts) and self._starts[at] < stop:
            first, last = max(start, self._starts[at]), min(stop, self._stops[at])
            if first < last:
                yield first, last
            at += 1

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number)
        return at > 0 and number < self._stops[at - 1]

    @property
    def spans(self) -> list[tuple[int, int]]:
        return list(zip(self._starts, self._stops, strict=True))

    @property
    def ranges(self) -> Ranges:
        return Ranges(self.spans)

    @property
    def size(self) -> int:
        return sum(self._stops) - sum(self._starts)

    @property
    def run(self) -> int:
        """How many numbers it has where they are 0, 1, … without a hole; 0 where they are not."""
        return self._stops[0] if len(self._starts) == 1 and self._starts[0] == 0 else 0

    @property
    def last(self) -> int:
        """The highest number, -1 of an empty set."""
        return self._stops[-1] - 1 if self._stops else -1
