"""I7: every number of every stream is at its origin and at every site its topic is mirrored to, or the gap is named.

Judging asks for a few records' whereabouts (`wanted`), which a second, narrow reading of the journals supplies
(`locate`); without it the findings are the same, only less precise about where and since when.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from streams.core.ledger.coverage import Coverage
from streams.core.ledger.findings import FindingList, Invariant, LogPosition
from streams.core.ledger.journals import PartitionId
from streams.core.ledger.numbering import ClockReading, Stream, StreamId
from streams.core.names import Site
from streams.core.ranges import EMPTY, Ranges
from streams.core.topics import ANNOUNCEMENTS, CHUNK_EVENTS, TO_EVERY_PEER, remote

_I7 = Invariant.NO_GAP
NAMED_MAX = 3
"""Missing or contradictory numbers of a stream that are looked up one by one, from each end."""

Number = tuple[StreamId, int]


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers that should be at `site` and are not. `elsewhere`: a site that has them, None if no site has."""

    stream: StreamId
    site: Site
    missing: Ranges
    elsewhere: Site | None
    is_tail: bool


@dataclass(slots=True)
class Whereabouts:
    """Answers of the second reading: where a number's record stands at a site, and when it was written."""

    found: dict[tuple[StreamId, int, Site], list[ClockReading]] = field(default_factory=dict)

    def add(self, stream: StreamId, seq: int, place: LogPosition, at_ms: int) -> None:
        seen = self.found.setdefault((stream, seq, place.site), [])
        if all(f.place != place for f in seen):
            seen.append(ClockReading(at_ms, place))

    def at(self, stream: StreamId, seq: int, site: Site | None) -> list[ClockReading]:
        return sorted(self.found.get((stream, seq, site), []), key=lambda f: f.place.rank) if site else []


class CopyJudge:
    """Knows which site should hold which stream. `auditors`: the sites that also get everybody's chunk events."""

    def __init__(self, sites: Iterable[Site], auditors: Iterable[Site], coverage: Coverage) -> None:
        self._sites = sorted(sites)
        self._auditors, self._coverage = frozenset(auditors), coverage

    def expected(self, stream: StreamId) -> list[Site]:
        """Sites whose cluster must hold the stream: the origin first."""
        return [stream.site, *(s for s in self._sites if s != stream.site and self._is_mirrored(stream.topic, s))]

    def _is_read(self, stream: StreamId, site: Site) -> bool:
        return self._coverage.has(site, topic_at(stream, site))

    def _is_mirrored(self, base: str, target: Site) -> bool:
        if base in TO_EVERY_PEER:
            return True
        return (base == CHUNK_EVENTS and target in self._auditors) or base == f"chunk-requests-to-{target}"

    def gaps(self, streams: Mapping[StreamId, Stream], closed: Set[tuple[Site, str]]) -> Iterator[Gap]:
        """`closed`: incarnations that said their last numbers. What they sent beyond was given up and repeated by the
        next incarnation, so it may be there or not."""
        for stream_id, stream in sorted(streams.items()):
            if not _is_payload(stream_id.topic):
                is_closed = (stream_id.site, stream_id.incarnation) in closed
                top = stream.said if is_closed else stream.top
                if not self._is_whole(stream_id, stream, top):
                    yield from self._gaps(stream_id, stream, top)

    def _is_whole(self, stream_id: StreamId, stream: Stream, top: int) -> bool:
        """Whether it is seen at once that nothing is missing anywhere, as of nearly all."""
        runs = {stream.run(site) for site in self.expected(stream_id) if self._is_read(stream_id, site)}
        return len(runs) == 1 and min(runs) > max(top, stream.last)

    def _gaps(self, stream_id: StreamId, stream: Stream, top: int) -> Iterator[Gap]:
        anywhere = EMPTY
        for site in stream.sites:
            anywhere = anywhere | stream.here(site)
        if any(self._is_read(stream_id, site) for site in self.expected(stream_id)):
            nowhere = anywhere.missing(0, top + 1)
            if nowhere:
                yield Gap(stream_id, stream_id.site, nowhere, None, nowhere.spans[0][0] > stream.last)
        for site in self.expected(stream_id):
            if not self._is_read(stream_id, site):
                continue
            have = stream.here(site)
            missing = anywhere - have
            if missing:
                first = missing.spans[0][0]
                elsewhere = next(s for s in stream.sites if first in stream.here(s))
                is_tail = not have or first > have.spans[-1][1] - 1
                yield Gap(stream_id, site, missing, elsewhere, is_tail)

    def count(self, streams: Mapping[StreamId, Stream], closed: Set[tuple[Site, str]], findings: FindingList) -> None:
        for stream_id, stream in streams.items():
            if _is_payload(stream_id.topic):
                findings.cannot(_I7, "numbers of payload topics: bounded retention, not a journal")
                continue
            for site in self.expected(stream_id):
                if self._is_read(stream_id, site):
                    findings.check(_I7)
                else:
                    findings.cannot(_I7, f"streams that should be at {site}: not read")
            is_farewell = stream_id.topic == ANNOUNCEMENTS and (stream_id.site, stream_id.incarnation) in closed
            if stream.announced is None and not is_farewell:
                findings.cannot(
                    _I7, "streams whose writer never announced a last number: a lost tail would not be seen"
                )


def topic_at(stream: StreamId, site: Site) -> str:
    return stream.topic if site == stream.site else remote(stream.site, stream.topic)


def _is_payload(base: str) -> bool:
    return base.startswith("chunks-to-")


def _named(missing: Ranges) -> list[int]:
    """The first and the last few numbers."""
    first = list(missing.first(NAMED_MAX).numbers())
    last = missing.spans[-1][1] - 1
    return first if last in first else [*first, last]


def wanted(
    gaps: Iterable[Gap], streams: Mapping[StreamId, Stream], last_at: Mapping[PartitionId, Number]
) -> dict[PartitionId, set[Number]]:
    """Which records to find where, so that gaps and conflicts can be proved."""
    asked: dict[PartitionId, set[Number]] = {}

    def ask(stream: StreamId, seq: int, site: Site | None) -> None:
        if site is not None and seq >= 0 and seq in streams[stream].here(site):
            asked.setdefault((site, topic_at(stream, site), stream.partition), set()).add((stream, seq))

    for gap in gaps:
        for seq in _named(gap.missing):
            ask(gap.stream, seq, gap.elsewhere)
        for start, stop in gap.missing.spans[:NAMED_MAX]:
            ask(gap.stream, start - 1, gap.site)
            ask(gap.stream, stop, gap.site)
        last = last_at.get((gap.site, topic_at(gap.stream, gap.site), gap.stream.partition))
        if last is not None:
            ask(last[0], last[1], gap.elsewhere)
    for stream_id, stream in streams.items():
        for seq in sorted(stream.conflicts)[:NAMED_MAX]:
            for site in stream.sites:
                ask(stream_id, seq, site)
    return asked


@dataclass(frozen=True, slots=True)
class GapJudge:
    """Turns gaps into findings, or into what is in flight: a tail whose oldest missing record is young.

    `last_at`: the last record of every partition. `young_ms`: what was written since is young.
    """

    streams: Mapping[StreamId, Stream]
    where: Whereabouts
    last_at: Mapping[PartitionId, Number]
    read: Collection[Site]
    young_ms: int
    findings: FindingList

    def judge(self, gap: Gap) -> None:
        stream = self.streams[gap.stream]
        title = f"gap: {_numbers(gap.missing)} of {stream.called}"
        around = [
            f.place
            for start, stop in gap.missing.spans[:NAMED_MAX]
            for seq in (start - 1, stop)
            for f in self.where.at(gap.stream, seq, gap.site)[:1]
        ]
        if gap.elsewhere is None:
            self._nowhere(gap, stream, title, around)
            return
        here = [f for seq in _named(gap.missing) for f in self.where.at(gap.stream, seq, gap.elsewhere)[:1]]
        since_ms = min((f.at_ms for f in here), default=None)
        if gap.is_tail and since_ms is not None and self.findings.past(since_ms) >= self.young_ms:
            self.findings.wait(_I7, f"records in flight to {gap.site}", gap.missing.size)
            return
        words = f"{title}: missing at {gap.site}, present at {gap.elsewhere}; {self._why(gap, here)}"
        self.findings.find(_I7, words, *(f.place for f in here), *around)

    def _nowhere(self, gap: Gap, stream: Stream, title: str, around: list[LogPosition]) -> None:
        said = stream.announced
        if gap.is_tail and said is not None and self.findings.past(said.at_ms) >= self.young_ms:
            self.findings.wait(_I7, "announced records in flight", gap.missing.size)
            return
        words = f"{title}: nowhere" + ("" if gap.stream.site in self.read else " that was read")
        if said is not None and said.seq >= gap.missing.spans[-1][1] - 1:
            self.findings.find(_I7, words + ", though announced", *around, said.place)
        else:
            self.findings.find(_I7, words, *around)

    def _why(self, gap: Gap, here: list[ClockReading]) -> str:
        if gap.site == gap.stream.site:
            return "lost at its origin after it was mirrored"
        last = self.last_at.get((gap.site, topic_at(gap.stream, gap.site), gap.stream.partition))
        after = self.where.at(last[0], last[1], gap.elsewhere)[-1:] if last else []
        if here and gap.is_tail and (not after or after[0].place.offset < min(f.place.offset for f in here)):
            return "the mirror has not come that far"
        return "lost in the mirror: it brought later records"


def judge_conflicts(stream: Stream, where: Whereabouts, findings: FindingList) -> None:
    for seq in sorted(stream.conflicts):
        places = [f.place for site in stream.sites for f in where.at(stream.id, seq, site)]
        words = f"number {seq} of {stream.called} stands for two different records"
        findings.find(_I7, words, *sorted(places, key=lambda p: p.rank))


def _numbers(missing: Ranges) -> str:
    shown = [str(a) if b == a + 1 else f"{a}…{b - 1}" for a, b in missing.spans[:NAMED_MAX]]
    more = f" and more ({missing.size} in all)" if len(missing.spans) > NAMED_MAX else ""
    return ("number " if missing.size == 1 else "numbers ") + ", ".join(shown) + more
