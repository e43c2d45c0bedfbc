"""Items laid end to end: position ⇄ (item, offset), requests, chunks, digest, index. Pure arithmetic; no progress.

A manifest's line is `[0, total)` in its unit; item `n` owns `[starts[n], starts[n + 1])`. Empty items own nothing and
only need sealing; items with a reason have length 0 and can never arrive.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from streams.core.names import Site
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import FailedItems, Item, ManifestWritten, Reason, RequestedItem, Unit


@dataclass(frozen=True, slots=True)
class Piece:
    """The part `[offset, offset + length)` of item `item`, standing at `position` on the line."""

    item: int
    offset: int
    length: int
    position: int


class ItemLayout:
    """Where items of given lengths stand. Indexes are the manifest's item numbers."""

    def __init__(self, lengths: Iterable[int]) -> None:
        self.starts = array("q", accumulate(lengths, initial=0))

    @property
    def total(self) -> int:
        return self.starts[-1]

    @property
    def count(self) -> int:
        return len(self.starts) - 1

    def span(self, item: int) -> tuple[int, int]:
        return self.starts[item], self.starts[item + 1]

    def item_at(self, position: int) -> int:
        """The non-empty item that owns `position`."""
        return bisect_right(self.starts, position) - 1

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """The item parts of `[start, stop)`, in order."""
        item = self.item_at(start) if start < stop else 0
        while start < stop:
            end = min(stop, self.starts[item + 1])
            if end > start:
                yield Piece(item, start - self.starts[item], end - start, start)
                start = end
            item += 1

    def items_in(self, ranges: Ranges) -> list[int]:
        """Numbers of the non-empty items that `ranges` touches, ascending."""
        found: list[int] = []
        for start, stop in ranges:
            for piece in self.pieces(start, stop):
                if not found or found[-1] != piece.item:
                    found.append(piece.item)
        return found

    def count_in(self, ranges: Ranges) -> int:
        """How many items `ranges` touches or spans, empty ones between them too."""
        count, last = 0, -1
        for start, stop in ranges:
            first, end = self.item_at(start), self.item_at(stop - 1)
            count += end - first + (first != last)
            last = end
        return count

    def ranges_of(self, items: Ranges) -> Ranges:
        """The intervals of the line that these items own."""
        return Ranges((self.starts[a], self.starts[b]) for a, b in items)

    def covered(self, ranges: Ranges, within: Ranges) -> Ranges:
        """Numbers of those items `within` whose whole interval is in `ranges`."""
        return Ranges.of(*(n for n in within.numbers() if ranges.covers(*self.span(n))))


@dataclass(frozen=True, slots=True)
class Held:
    """Item numbers that a site is asked for."""

    holder: Site
    items: Ranges


@dataclass(frozen=True)
class ManifestIndex:
    """What folding and asking need of a manifest; some 10 kB of a full one, whose items are 20 times that.

    `lengths` of its items in the manifest's unit; `sizes` their bytes, empty where these are the lengths. `others`:
    which items further sites hold, by site.
    """

    unit: Unit
    lengths: array[int]
    sizes: array[int]
    holders: tuple[Held, ...]
    unobtainable: tuple[FailedItems, ...]
    sha256: str
    others: tuple[Held, ...] = ()

    @cached_property
    def line(self) -> ItemLayout:
        return ItemLayout(self.lengths)

    @property
    def count(self) -> int:
        """Items of the manifest."""
        return len(self.lengths)

    @cached_property
    def unit_bytes(self) -> int:
        """Bytes that a unit of the line may have, for credit: of entries the most that an item's estimate says."""
        if self.unit is Unit.BYTES:
            return 1
        pairs = zip(self.sizes or self.lengths, self.lengths, strict=True)
        return max((-(-size // length) for size, length in pairs if length), default=1) or 1

    @cached_property
    def candidates(self) -> tuple[Held, ...]:
        """Every site that may be asked, with the items that it holds: holders first, then others, by name."""
        known = {held.holder: held.items for held in self.holders}
        for held in self.others:
            known[held.holder] = known.get(held.holder, EMPTY) | held.items
        return tuple(Held(site, items) for site, items in known.items())

    def holds(self, site: Site) -> bool:
        """Whether it may be asked for what it held when the manifest was written."""
        return any(held.holder == site for held in self.candidates)

    def holder_items(self, site: Site) -> Ranges:
        """Items of which it is the holder, whom to ask first."""
        return next((held.items for held in self.holders if held.holder == site), EMPTY)

    def bytes_of(self, items: Ranges) -> int:
        """Bytes of these items, as the source estimated them where they are entries."""
        sizes = self.sizes or self.lengths
        return sum(sum(sizes[start:stop]) for start, stop in items)


@dataclass(frozen=True)
class Manifest:
    """A ManifestWritten with its line."""

    body: ManifestWritten

    @cached_property
    def line(self) -> ItemLayout:
        return ItemLayout(item.length for item in self.body.items)

    @cached_property
    def index(self) -> ManifestIndex:
        lengths = array("q", (item.length for item in self.items))
        sizes = array("q", (item.bytes for item in self.items))
        holders: dict[Site, list[int]] = {}
        others: dict[Site, list[int]] = {}
        for number, item in enumerate(self.items):
            if item.holder is not None:
                holders.setdefault(item.holder, []).append(number)
            for site in item.others:
                others.setdefault(site, []).append(number)
        return ManifestIndex(
            self.body.unit,
            lengths,
            array("q") if sizes == lengths else sizes,
            _held(holders),
            self.unobtainable,
            self.sha256,
            _held(others),
        )

    @cached_property
    def sha256(self) -> str:
        return digest(self.body)

    @property
    def items(self) -> tuple[Item, ...]:
        return self.body.items

    @property
    def unobtainable(self) -> tuple[FailedItems, ...]:
        """Items that the source already wrote off, grouped by reason."""
        groups: dict[Reason, list[int]] = {}
        for number, item in enumerate(self.items):
            if item.reason is not None:
                groups.setdefault(item.reason, []).append(number)
        return tuple(FailedItems(Ranges.of(*numbers), reason) for reason, numbers in groups.items())

    def requested(self, ranges: Ranges, source: Site) -> tuple[RequestedItem, ...]:
        """Self-contained descriptions of the items a request for `ranges` touches. A version binds only its holder."""
        return tuple(
            RequestedItem(
                n,
                item.lfn,
                self.line.starts[n],
                item.length,
                item.version if item.holder == source else "",
                item.selection,
            )
            for n in self.line.items_in(ranges)
            for item in (self.items[n],)
        )


def _held(by_site: dict[Site, list[int]]) -> tuple[Held, ...]:
    return tuple(Held(site, Ranges.of(*by_site[site])) for site in sorted(by_site))


def digest(body: ManifestWritten) -> str:
    """sha256 (hex) over the manifest's meaning, independent of its encoding; chains through `prev_sha256`."""
    head = (body.intent, body.source, body.source_no, body.no, body.prev_sha256, body.unit, body.last)
    lines = ["\t".join(map(str, head))]
    for i in body.items:
        why = i.reason
        lines.append(
            f"{i.lfn}\t{i.dataset}\t{i.block}\t{i.target}\t{i.selection}\t{i.length}\t{i.bytes}"
            f"\t{i.adler32 or '-'}\t{i.version}\t{i.holder or '-'}\t"
            + ("" if why is None else f"{why.scope}/{why.failure_class}/{why.phase}/{why.text}")
        )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RequestLine:
    """A request's own piece of the line: sources serve from it without the manifest."""

    items: tuple[RequestedItem, ...]

    def pieces(self, start: int, stop: int) -> Iterator[tuple[RequestedItem, int, int]]:
        """(item, offset in the item, length) of `[start, stop)`; what no listed item owns is skipped."""
        for item in self.items:
            low, high = max(start, item.start), min(stop, item.start + item.length)
            if low < high:
                yield item, low - item.start, high - low
