"""Half-open interval sets of whole numbers: progress, items sealed, manifests closed. Pure values; no I/O, no units."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Span = tuple[int, int]
_FEW = 8
"""Spans that are put one by one into a set; of more, all are sorted."""


class Ranges:
    """An immutable set of integers, kept as sorted, disjoint, non-touching half-open spans `[start, stop)`."""

    __slots__ = ("spans",)
    spans: tuple[Span, ...]

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        ordered = sorted(spans)
        if len(ordered) == 1:  # most often by far
            ((start, stop),) = ordered
            if start < 0 or stop < start:
                raise ValueError(f"not a half-open range: [{start}, {stop})")
            object.__setattr__(self, "spans", ((start, stop),) if start < stop else ())
            return
        merged: list[list[int]] = []
        for start, stop in ordered:
            if start < 0 or stop < start:
                raise ValueError(f"not a half-open range: [{start}, {stop})")
            if start == stop:
                continue
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], stop)
            else:
                merged.append([start, stop])
        object.__setattr__(self, "spans", tuple((a, b) for a, b in merged))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Ranges are immutable")

    def __reduce__(self) -> tuple[type[Ranges], tuple[tuple[Span, ...]]]:
        return (Ranges, (self.spans,))

    @classmethod
    def _ordered(cls, spans: tuple[Span, ...]) -> Ranges:
        """Of spans that are sorted, disjoint, and do not touch."""
        made = cls.__new__(cls)
        object.__setattr__(made, "spans", spans)
        return made

    @classmethod
    def of(cls, *numbers: int) -> Ranges:
        return cls((n, n + 1) for n in numbers)

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self.spans == other.spans

    def __hash__(self) -> int:
        return hash(self.spans)

    def __repr__(self) -> str:
        return "Ranges(" + " ".join(f"[{a},{b})" for a, b in self.spans) + ")"

    @property
    def size(self) -> int:
        return sum(b - a for a, b in self.spans)

    def numbers(self) -> Iterator[int]:
        for a, b in self.spans:
            yield from range(a, b)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.spans, (number, 1 << 63)) - 1
        return at >= 0 and self.spans[at][0] <= number < self.spans[at][1]

    def covers(self, start: int, stop: int) -> bool:
        """Whether every number of `[start, stop)` is in the set; an empty range always is."""
        if start >= stop:
            return True
        at = bisect_right(self.spans, (start, 1 << 63)) - 1
        return at >= 0 and self.spans[at][0] <= start and stop <= self.spans[at][1]

    def __or__(self, other: Ranges) -> Ranges:
        if not other.spans:
            return self
        if not self.spans:
            return other
        large, small = (self.spans, other.spans) if len(self.spans) >= len(other.spans) else (other.spans, self.spans)
        if len(small) > _FEW:
            return Ranges((*large, *small))
        for span in small:
            large = _joined(large, span)
        return Ranges._ordered(large)

    def __sub__(self, other: Ranges) -> Ranges:
        out: list[Span] = []
        taken = other.spans
        at = 0
        for start, stop in self.spans:
            while at < len(taken) and taken[at][1] <= start:
                at += 1
            here = at
            while start < stop and here < len(taken) and taken[here][0] < stop:
                if start < taken[here][0]:
                    out.append((start, taken[here][0]))
                start = max(start, taken[here][1])
                here += 1
            if start < stop:
                out.append((start, stop))
        return Ranges._ordered(tuple(out))

    def __and__(self, other: Ranges) -> Ranges:
        return self - (self - other)

    def missing(self, start: int, stop: int) -> Ranges:
        """What of `[start, stop)` is not in the set."""
        return Ranges([(start, stop)]) - self

    def first(self, size: int) -> Ranges:
        """The lowest `size` numbers of the set."""
        out: list[Span] = []
        for a, b in self.spans:
            if size <= 0:
                break
            out.append((a, min(b, a + size)))
            size -= b - a
        return Ranges._ordered(tuple(out))


def _joined(spans: tuple[Span, ...], span: Span) -> tuple[Span, ...]:
    """The spans with one more among them, joined to what it overlaps or touches."""
    start, stop = span
    first = bisect_left(spans, start, key=lambda one: one[1])
    behind = bisect_right(spans, stop, key=lambda one: one[0])
    if first < behind:
        start, stop = min(start, spans[first][0]), max(stop, spans[behind - 1][1])
    return (*spans[:first], (start, stop), *spans[behind:])


EMPTY = Ranges()
