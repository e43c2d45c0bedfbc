"""What a writer numbered: one `Stream` per (site, incarnation, topic, partition), its contents and its copies.

No journal. Numbers come from a header that anybody can forge, so nothing here grows with a number's value. That a copy
is its original, byte for byte and in its order, is the word of their trees (orders.py); 32 bits of a number that comes
again say whether it means the same, by a hash that nobody can foresee (tags.py: in pages that are rows).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from streams.core.ledger.findings import LogPosition
from streams.core.ledger.spans import SpanSet
from streams.core.ledger.tags import PAGE, Tags
from streams.core.names import Site
from streams.core.ranges import EMPTY, Ranges

_CONTENT_MASK = (1 << 32) - 1
CONFLICTS_MAX = 100
"""Contradictory numbers kept of one stream."""


class Class(IntEnum):
    """How a record ended, judged in its original's partition; one of which only a copy was read counts as applied."""

    APPLIED = 1
    DUPLICATE = 2
    SUPERSEDED = 3


class StreamId(NamedTuple):
    site: Site
    incarnation: str
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class LastAnnounced:
    """The last number a writer said it used in a stream, and where it said so."""

    seq: int
    at_ms: int
    place: LogPosition


class ClockReading(NamedTuple):
    """A time or a span of time (ms), and the record that tells it."""

    at_ms: int
    place: LogPosition


class Stream:
    """Numbers of one stream: what each stood for, at which sites it was seen, and by which clock."""

    __slots__ = (
        "_end",
        "_marks",
        "_name",
        "_tags",
        "ahead",
        "announced",
        "conflicts",
        "copies",
        "id",
        "latest",
        "refused",
        "writer",
    )

    def __init__(self, id: StreamId, writer: str, tags: Tags, name: bytes) -> None:
        """`name`: in rows."""
        self.id = id
        self.writer = writer
        self.copies: defaultdict[Site, SpanSet] = defaultdict(SpanSet)
        """Where numbers stand whose records passed the gate."""
        self.refused: defaultdict[Site, SpanSet] = defaultdict(SpanSet)
        """Where numbers stand in records which the gate refused."""
        self.announced: LastAnnounced | None = None
        self.latest: ClockReading | None = None
        """Its latest date, as the writer has it."""
        self.ahead: ClockReading | None = None
        """By how much its writer's date was ahead of the log's, at most."""
        self.conflicts: set[int] = set()
        self._tags, self._name = tags, name
        self._end = 0
        """Behind the highest number that was noted."""
        self._marks: dict[Class, dict[int, int]] = {}
        """Numbers that were not applied: by page one bit each."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "_tags"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, known in state.items():
            setattr(self, name, known)

    def go_on(self, tags: Tags, name: bytes | None = None) -> None:
        """After it was kept: `tags` over the same rows; or over others, where it has this name."""
        self._tags = tags
        self._name = self._name if name is None else name

    def date(self, place: LogPosition, at_ms: int, logged_ms: int) -> None:
        """Note when a record was written by its writer's clock, and when its log took it."""
        if _is_later(at_ms, place, self.latest):
            self.latest = ClockReading(at_ms, place)
        if at_ms > logged_ms and _is_later(at_ms - logged_ms, place, self.ahead):
            self.ahead = ClockReading(at_ms - logged_ms, place)

    @property
    def sites(self) -> list[Site]:
        """Where any number stands, the origin first."""
        return sorted(self.copies.keys() | self.refused.keys(), key=lambda s: (s != self.id.site, s))

    def here(self, site: Site) -> Ranges:
        """Numbers that stand at `site`, refused or not."""
        found = self.copies[site].ranges if site in self.copies else EMPTY
        return found | self.refused[site].ranges if site in self.refused else found

    def run(self, site: Site) -> int:
        """How many numbers stand at `site` where all do from 0 on, and none was refused; else 0."""
        if (found := self.copies.get(site)) is None or (site in self.refused and self.refused[site].size):
            return 0
        return found.run

    def stands(self, site: Site, seq: int) -> bool:
        """Whether the number stands at `site`, refused or not."""
        return any(site in of and seq in of[site] for of in (self.copies, self.refused))

    @property
    def last(self) -> int:
        """The highest number that stands anywhere, -1 if none."""
        return max((s.last for of in (self.copies, self.refused) for s in of.values()), default=-1)

    def knows(self, seq: int, content: int) -> bool:
        return seq < self._end and self._tags.get(self._name, seq) == _tagged(content)

    def note(self, seq: int, content: int) -> bool:
        """Remember what `seq` stands for. Whether this content was new under it; a second one is a conflict."""
        content = _tagged(content)
        if seq < self._end and (before := self._tags.get(self._name, seq)):
            if before != content and len(self.conflicts) < CONFLICTS_MAX:
                self.conflicts.add(seq)
            return before != content
        self._tags.put(self._name, seq, content, is_new_page=seq // PAGE * PAGE >= self._end)
        if seq >= self._end:
            self._end = seq + 1
        return True

    def announce(self, said: LastAnnounced) -> None:
        """Keep the highest number announced; of equal ones the latest word."""
        before = self.announced
        new, old = (said.seq, said.at_ms), (-1, 0) if before is None else (before.seq, before.at_ms)
        if before is None or new > old or (new == old and said.place.rank < before.place.rank):
            self.announced = said

    def classify(self, seq: int, how: Class) -> None:
        """Every number is APPLIED until it is said to be something else."""
        page, bit = seq // PAGE, 1 << seq % PAGE
        for marks in self._marks.values():
            if page in marks:
                marks[page] &= ~bit
        if how is not Class.APPLIED:
            marks = self._marks.setdefault(how, {})
            marks[page] = marks.get(page, 0) | bit

    def count(self, how: Class, site: Site) -> int:
        """How many of the numbers seen at `site` were classified so."""
        if site not in self.copies:
            return 0
        seen = self.copies[site]
        if how is Class.APPLIED:
            return seen.size - sum(self.count(other, site) for other in Class if other is not Class.APPLIED)
        return sum(_ones(page * PAGE, marks, seen) for page, marks in self._marks.get(how, {}).items())

    @property
    def called(self) -> str:
        site, incarnation, topic, partition = self.id
        return f"{self.writer} at {site} ({incarnation}) in {topic}[{partition}]"

    @property
    def said(self) -> int:
        """The highest number announced, -1 if none."""
        return -1 if self.announced is None else self.announced.seq

    @property
    def top(self) -> int:
        """The highest number anybody spoke of, -1 if none."""
        return max(self.last, self.said)


def _is_later(at_ms: int, place: LogPosition, before: ClockReading | None) -> bool:
    """Of two of one time the first by place counts: the same in any reading order."""
    if before is None or at_ms != before.at_ms:
        return before is None or at_ms > before.at_ms
    return place.rank < before.place.rank


def _ones(start: int, marks: int, seen: SpanSet) -> int:
    """How many of the numbers from `start` on that are marked were seen."""
    return sum((marks >> a - start & (1 << b - a) - 1).bit_count() for a, b in seen.within(start, start + PAGE))


def _tagged(content: int) -> int:
    """32 bits, never 0: 0 stands for not seen."""
    return (content & _CONTENT_MASK) or 1
