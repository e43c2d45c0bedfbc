"""I6: every record of every partition ended somehow. Per-partition books, and the judge of what nobody answered for.

`Journal` holds one partition at one site. Whether a record of it changed anything says classes.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from streams.core.ledger.findings import FindingList, Invariant, LogPosition, PartitionCount
from streams.core.ledger.numbering import Class, ClockReading, Stream, StreamId
from streams.core.ledger.sealed_sizes import SealWalk
from streams.core.ledger.spans import SpanSet
from streams.core.ledger.trees import JournalTree
from streams.core.names import Site

GRACE_MS = 60_000
"""Younger than this, a record missing at a mirror is in flight."""
SAMPLES_MAX = 1000
"""Refused records of one partition that are remembered with their reason; the others are counted."""

PartitionId = tuple[Site, str, int]


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """A record that only a dead letter can answer for."""

    reason: str
    at_ms: int


@dataclass(slots=True)
class Journal:
    """One partition at one site. `writer` is the site whose topic it is, `base` its name there."""

    site: Site
    topic: str
    partition: int
    writer: Site
    base: str
    next_offset: int = 0
    leaf: bytes = b""
    """Of the last record that was read."""
    records: int = 0
    repeats: int = 0
    tree: JournalTree = field(default_factory=JournalTree)
    """Of its records in the order in which each number first stands here."""
    walk: SealWalk | None = None
    """Past the sizes that were sealed of it."""
    refused: SpanSet = field(default_factory=SpanSet)
    samples: dict[int, RefusedRecord] = field(default_factory=dict)
    first_stream: Stream | None = None
    first_seq: int = 0
    last_stream: Stream | None = None
    last_seq: int = 0
    dated: ClockReading | None = None
    """The latest date that its own log gave a record."""
    streams: dict[str, Stream] = field(default_factory=dict)

    @property
    def key(self) -> PartitionId:
        return self.site, self.topic, self.partition

    @property
    def is_original(self) -> bool:
        return self.site == self.writer

    def stand(self, stream: Stream, seq: int) -> None:
        """The next record carries this number."""
        if self.first_stream is None:
            self.first_stream, self.first_seq = stream, seq
        self.last_stream, self.last_seq = stream, seq

    def grow(self, leaf: bytes, offset: int) -> None:
        """A number stands here for the first time."""
        self.tree.append(leaf)
        if self.walk is not None and self.tree.size >= self.walk.next:
            self.walk.reach(offset)

    def date(self, place: LogPosition, logged_ms: int) -> None:
        if self.dated is None or logged_ms > self.dated.at_ms:
            self.dated = ClockReading(logged_ms, place)

    def refuse(self, offset: int, reason: str, at_ms: int) -> None:
        self.refused.add(offset)
        if len(self.samples) < SAMPLES_MAX:
            self.samples[offset] = RefusedRecord(reason, at_ms)

    @property
    def last(self) -> tuple[StreamId, int] | None:
        """Whose number the last record carries."""
        return None if self.last_stream is None else (self.last_stream.id, self.last_seq)


@dataclass(frozen=True, slots=True)
class Reached:
    """How far workers are known to have read: committed offsets, and when a worker of a site last said it is alive."""

    committed: Mapping[PartitionId, int]
    alive_ms: Mapping[Site, int]
    latest_ms: int
    """What is dated later was dated by a wrong clock."""

    def alive_after(self, site: Site, at_ms: int) -> int:
        """How long (ms) after `at_ms` a worker of the site was still alive; 0 if none was. A date to come is old."""
        if site not in self.alive_ms:
            return 0
        return min(self.alive_ms[site], self.latest_ms) - (at_ms if at_ms <= self.latest_ms else 0)

    def passed(self, place: LogPosition, at_ms: int) -> bool:
        """Whether a worker must have met the record. Without a committed offset: one was alive GRACE_MS later."""
        committed = self.committed.get(place[:3])
        if committed is not None:
            return place.offset < committed
        return self.alive_after(place.site, at_ms) > GRACE_MS


def judge(
    journal: Journal,
    dead: Set[int],
    contradicting: Mapping[int, RefusedRecord],
    reached: Reached,
    findings: FindingList,
) -> PartitionCount:
    """Find what nobody answered for.

    `dead`: offsets that dead letters point at. `contradicting`: decodable records that owe one, by offset.
    """
    site, topic, partition = journal.site, journal.topic, journal.partition
    findings.check(Invariant.NOT_SILENT, journal.records)
    pending = silent = 0
    unanswered = {o: r for o, r in (*journal.samples.items(), *contradicting.items()) if o not in dead}
    for offset, refused in sorted(unanswered.items()):
        place = LogPosition(site, topic, partition, offset)
        if reached.passed(place, refused.at_ms):
            silent += 1
            findings.find(
                Invariant.NOT_SILENT, f"silent: {refused.reason}, and no dead letter of {site} points at it", place
            )
        else:
            pending += 1
            findings.wait(Invariant.NOT_SILENT, f"refused records that no worker of {site} has reached yet")
    beyond = journal.refused.size - len(journal.samples)
    if beyond:
        buried = sum(1 for offset in dead if offset in journal.refused and offset not in journal.samples)
        silent += beyond - buried
        if beyond > buried:
            findings.find(Invariant.NOT_SILENT, f"silent: {beyond - buried} more refused records in {topic} at {site}")
    return _count(journal, dead, pending, silent, len(contradicting.keys() - dead))


def _count(journal: Journal, dead: Set[int], pending: int, silent: int, contradicting: int) -> PartitionCount:
    how = {c: sum(s.count(c, journal.site) for s in journal.streams.values()) for c in Class}
    applied = how[Class.APPLIED]
    duplicate, superseded = how[Class.DUPLICATE] + journal.repeats, how[Class.SUPERSEDED]
    # A decodable record that a worker refused was counted above by its numbers; what a worker did with it counts more.
    moved = sum(1 for o in dead if o not in journal.refused and o < journal.next_offset) + contradicting
    for_superseded = min(moved, superseded)
    for_duplicate = min(moved - for_superseded, duplicate)
    return PartitionCount(
        site=journal.site,
        topic=journal.topic,
        partition=journal.partition,
        records=journal.records,
        applied=applied - (moved - for_superseded - for_duplicate),
        duplicate=duplicate - for_duplicate,
        superseded=superseded - for_superseded,
        dead_lettered=sum(1 for offset in dead if offset < journal.next_offset),
        pending=pending,
        silent=silent,
    )
