"""What a writer numbered: one `Stream` per (site, incarnation, topic, partition), its contents and its copies.

No row, no journal. Numbers come from a header that anybody can forge, so nothing here grows with a number's value:
contents stand in a dense array (5 bytes a record) only while numbers stay close to those already seen. That a copy is
its original, byte for byte and in its order, is the word of their trees (orders.py); the 32 bits kept here say of a
number that comes again whether it means the same, by a hash that nobody can foresee.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from streams.core.ledger.findings import LogPosition
from streams.core.ledger.spans import SpanSet
from streams.core.names import Site
from streams.core.ranges import EMPTY, Ranges

_JUMP_MAX = 64
_CONTENT_MASK = (1 << 32) - 1
CONFLICTS_MAX = 100
"""Contradictory numbers kept of one stream."""


class Class(IntEnum):
    """How a record ended, judged in its original's partition."""

    UNREAD = 0
    """Its original was not read; a copy was."""
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
        "_classes",
        "_contents",
        "_far",
        "ahead",
        "announced",
        "conflicts",
        "copies",
        "id",
        "latest",
        "refused",
        "writer",
    )

    def __init__(self, id: StreamId, writer: str) -> None:
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
        self._contents = array("I")
        self._classes = bytearray()
        self._far: dict[int, tuple[int, int]] = {}

    def date(self, place: LogPosition, at_ms: int, logged_ms: int) -> None:
        """Note when a record was written by its writer's clock, and when its log took it."""
        latest = self.latest
        if latest is None or at_ms > latest.at_ms or (at_ms == latest.at_ms and place.rank < latest.place.rank):
            self.latest = ClockReading(at_ms, place)
        if at_ms > logged_ms and (self.ahead is None or at_ms - logged_ms > self.ahead.at_ms):
            self.ahead = ClockReading(at_ms - logged_ms, place)

    @property
    def sites(self) -> list[Site]:
        """Where any number stands, the origin first."""
        return sorted(self.copies.keys() | self.refused.keys(), key=lambda s: (s != self.id.site, s))

    def here(self, site: Site) -> Ranges:
        """Numbers that stand at `site`, refused or not."""
        found = self.copies[site].ranges if site in self.copies else EMPTY
        return found | self.refused[site].ranges if site in self.refused else found

    def stands(self, site: Site, seq: int) -> bool:
        """Whether the number stands at `site`, refused or not."""
        return any(site in of and seq in of[site] for of in (self.copies, self.refused))

    @property
    def last(self) -> int:
        """The highest number that stands anywhere, -1 if none."""
        return max((s.last for of in (self.copies, self.refused) for s in of.values()), default=-1)

    def _content(self, seq: int) -> int:
        if seq < len(self._contents) and self._contents[seq]:
            return self._contents[seq]
        return self._far[seq][0] if seq in self._far else 0

    def knows(self, seq: int, content: int) -> bool:
        return self._content(seq) == _tagged(content)

    def note(self, seq: int, content: int) -> bool:
        """Remember what `seq` stands for. Whether this content was new under it; a second one is a conflict."""
        content = _tagged(content)
        grown = seq + 1 - len(self._contents)
        if grown == 1 and not self._far:  # nearly always
            self._contents.append(content)
            self._classes.append(0)
            return True
        before = self._content(seq)
        if before:
            if before != content and len(self.conflicts) < CONFLICTS_MAX:
                self.conflicts.add(seq)
            return before != content
        if grown > _JUMP_MAX + 1:
            self._far[seq] = (content, Class.UNREAD)
            return True
        if grown > 0:
            self._contents.extend([0] * grown)
            self._classes.extend(bytes(grown))
        self._contents[seq] = content
        return True

    def announce(self, said: LastAnnounced) -> None:
        """Keep the highest number announced; of equal ones the latest word."""
        before = self.announced
        new, old = (said.seq, said.at_ms), (-1, 0) if before is None else (before.seq, before.at_ms)
        if before is None or new > old or (new == old and said.place.rank < before.place.rank):
            self.announced = said

    def classify(self, seq: int, how: Class) -> None:
        if seq in self._far:
            self._far[seq] = (self._far[seq][0], how)
        else:
            self._classes[seq] = how

    def count(self, how: Class, site: Site) -> int:
        """How many of the numbers seen at `site` were classified so."""
        if site not in self.copies:
            return 0
        seen, far = self.copies[site], self._far
        dense = sum(self._classes.count(how, start, stop) for start, stop in seen.spans)
        if not far:
            return dense
        dense -= sum(1 for seq in far if seq in seen and seq < len(self._classes) and self._classes[seq] == how)
        return dense + sum(1 for seq, (_, was) in far.items() if was == how and seq in seen)

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


def _tagged(content: int) -> int:
    """32 bits, never 0: 0 stands for not seen."""
    return (content & _CONTENT_MASK) or 1
