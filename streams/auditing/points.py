"""A point of the past as a position in each partition, since order comes from positions, not from clocks.

Of an instant it is behind the last record whose running maximum of times is not later; of a cut that somebody kept,
where each journal, or a copy of it, has as many records as the cut says. Either way it says the positions that it
became, so that the same answer can be had again whatever clocks say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict

from streams.auditing.digesting import Cut
from streams.auditing.origins import number_of
from streams.core.ledger.cuts import JournalId
from streams.core.ledger.journals import PartitionId
from streams.core.ledger.spans import SpanSet
from streams.core.names import Site
from streams.core.topics import split
from streams.kafka.reader import Record


class PastPoint(ABC):
    """Is asked about each record of some partitions, each from its first record on."""

    def __init__(self) -> None:
        self.ends: dict[PartitionId, int] = {}
        """The offset behind the last record that counts, of each partition of which any does."""
        self.first_ms: int | None = None
        """The earliest time of all records that were asked about."""
        self.left_out_ms: int | None = None
        """The earliest time of those that do not count: what is older follows from none of them."""
        self._ended: set[PartitionId] = set()

    def takes(self, site: Site, record: Record) -> bool:
        """Whether the next record of a partition at a site stands before the point."""
        place, at_ms = (site, record.topic, record.partition), record.timestamp_ms
        if self.first_ms is None or at_ms < self.first_ms:
            self.first_ms = at_ms
        if place in self._ended or not self._has(place, record):
            self._ended.add(place)
            self.left_out_ms = at_ms if self.left_out_ms is None else min(self.left_out_ms, at_ms)
            return False
        self.ends[place] = record.offset + 1
        return True

    def absorb(self, other: PastPoint) -> None:
        """Know also what another process asked about: the same point, of other partitions."""
        self.ends |= other.ends
        for name in ("first_ms", "left_out_ms"):
            times = [at_ms for at_ms in (getattr(self, name), getattr(other, name)) if at_ms is not None]
            setattr(self, name, min(times, default=None))

    @abstractmethod
    def _has(self, place: PartitionId, record: Record) -> bool:
        """Whether the partition goes on to this record at least."""


class Instant(PastPoint):
    """`at_ms`: of the epoch."""

    def __init__(self, at_ms: int) -> None:
        super().__init__()
        self.at_ms = at_ms

    def _has(self, place: PartitionId, record: Record) -> bool:
        return record.timestamp_ms <= self.at_ms


class KeptCut(PastPoint):
    """What `audit digest` told once. Records without a legible number count with those before them."""

    def __init__(self, cut: Cut) -> None:
        super().__init__()
        self.cut = cut
        self._counted: Counter[PartitionId] = Counter()
        self._seen: defaultdict[tuple[PartitionId, str], SpanSet] = defaultdict(SpanSet)

    @property
    def lacking(self) -> list[JournalId]:
        """Of the journals, or copies, that were asked about those with fewer records than the cut has."""
        counted = {_journal(place): count for place, count in self._counted.items()}
        return sorted(journal for journal, count in counted.items() if count < self.cut.journals[journal].size)

    def _has(self, place: PartitionId, record: Record) -> bool:
        journal = _journal(place)
        known = self.cut.journals.get(journal)
        if known is None or self._counted[place] >= known.size:
            return False
        number = number_of(record.headers or ())
        if number is not None and number[0] == journal.site and self._seen[place, number[1]].add(number[2]):
            self._counted[place] += 1
        return True


def _journal(place: PartitionId) -> JournalId:
    writer, base = split(place[1])
    return JournalId(writer or place[0], base, place[2])
