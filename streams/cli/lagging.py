"""How far copies are behind originals, and workers behind topics. Read-only.

A mirror renumbers offsets but keeps timestamps and the order of each partition. So the last record of a copy is looked
up at the origin by its time and found by its writer's number; what stands behind it has not arrived. Nobody writes
transactions there, so offsets count records.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from streams.auditing.replaying import worker_group
from streams.cli.screen import duration
from streams.core import topics
from streams.core.names import Site
from streams.core.topics import LogPartition
from streams.errors import Temporary, Transfer2goError
from streams.kafka.reader import ANSWER_S, LogReader, Record, committed_offsets, record_of
from streams.kafka.replay import end_offsets, replay
from streams.settings import Settings

UNCARRIED_MS = 60_000
"""A mirror that runs has found a topic within 35 s, however new."""
_ORIGIN = "t2g-origin"
LATE_S = 3.0
_NAMED_MAX = 3
_LOOKED_MAX = 5
_WINDOW = 8
"""Offsets looked at first from the end of a copy, whose last may be markers of an earlier release's transactions."""
_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class FlowLag:
    """A topic of `origin` at `site`: records not arrived, and seconds from the last arrived to the last written.

    `since_ms`: when the first that has not arrived was written.
    """

    origin: Site
    site: Site
    topic: str
    records: int
    behind_s: float
    since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Behind:
    """A topic of `site` and the records its workers have not committed."""

    site: Site
    topic: str
    records: int


def mirror_lag(settings: Settings, site: Site) -> list[FlowLag]:
    return [lag for peer in settings.registry.peers_of(site) for lag in flow_lag(settings, peer, site)]


def flow_lag(settings: Settings, origin: Site, site: Site) -> list[FlowLag]:
    """Of each topic that is mirrored from `origin` to `site`. Reads a few records a partition, however late it is."""
    bases = topics.mirrored(site, target_is_auditor=settings.entry(site).auditor)
    copies = _last_records(settings, site, [topics.remote(origin, base) for base in bases])
    flows = {base: FlowLag(origin, site, base, 0, 0.0) for base in bases}
    with LogReader(settings, origin, large_records=True) as reader:
        places = reader.partitions_of(bases)
        begins, ends = reader.begin_offsets(places), reader.end_offsets(places)
        for place, end in ends.items():
            copy = copies.get((topics.remote(origin, place[0]), place[1]))
            start = begins[place] if copy is None else _behind(reader, place, copy, end)
            if start >= end:
                continue
            first_ms, last_ms = (_first(reader, place, offset).timestamp_ms for offset in (start, end - 1))
            arrived_ms = copy.timestamp_ms if copy is not None else first_ms
            flow = flows[place[0]]
            flows[place[0]] = replace(
                flow,
                records=flow.records + end - start,
                behind_s=max(flow.behind_s, (last_ms - arrived_ms) / 1000),
                since_ms=min(first_ms, flow.since_ms or first_ms),
            )
    return list(flows.values())


def _behind(reader: LogReader, place: LogPartition, copy: Record, end: int) -> int:
    """The offset at `place` behind the record that `copy` is a copy of; of those of its time, if it is not there."""
    start = reader.offsets_at([place], copy.timestamp_ms)[place]
    if start >= end:
        return end
    reader.assign({place: start})
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        for message in reader.batch(_WAIT_S):
            record = record_of(message)
            if _identity(record) == _identity(copy):
                return record.offset + 1
            if record.timestamp_ms > copy.timestamp_ms or record.offset >= end - 1:
                return start
    return start


def _first(reader: LogReader, place: LogPartition, offset: int) -> Record:
    """The record at an offset, or the next. Temporary when it does not come."""
    reader.assign({place: offset})
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        for message in reader.batch(_WAIT_S):
            return record_of(message)
    raise Temporary(f"{place[0]} [{place[1]}] gives no record", where=reader.where)


def holdups(settings: Settings, source: Site, destinations: Iterable[Site], home: Site, now_ms: int) -> list[str]:
    """Mirrors that an intent waits for, in words: between its source, its destinations and its home.

    One whose first missing record is younger than LATE_S is at work. What a cluster would say that does not answer is
    left out: it is told of elsewhere. Of many destinations some are looked at: each takes a second.
    """
    pairs = {(source, home): None, (home, source): None}
    for place in islice(destinations, _LOOKED_MAX):
        pairs |= dict.fromkeys([(source, place), (place, source), (home, place), (place, home)])
    lines: list[str] = []
    for origin, site in (pair for pair in pairs if pair[0] != pair[1]):
        try:
            lags = flow_lag(settings, origin, site)
        except Transfer2goError:
            continue
        late = [lag for lag in lags if lag.since_ms is not None and now_ms - lag.since_ms >= LATE_S * 1000]
        if late:
            named = ", ".join(f"{lag.topic} by {lag.records:,}" for lag in late[:_NAMED_MAX])
            more = f" and {len(late) - _NAMED_MAX} more topics" if len(late) > _NAMED_MAX else ""
            since_s = (now_ms - min(lag.since_ms or now_ms for lag in late)) / 1000
            total = f"{sum(lag.records for lag in late):,} records, for {duration(since_s)}"
            lines.append(f"The mirror from {origin} to {site} is behind by {total}: {named}{more}.")
    return lines


@dataclass(frozen=True, slots=True)
class Uncarried:
    """Topics of `origin` that its mirror to `site` seems to pass by."""

    origin: Site
    site: Site
    topics: tuple[str, ...]


def uncarried(settings: Settings, site: Site, now_ms: int) -> list[Uncarried]:
    """Of each peer that answers, the topics of which no record ever came to `site` though some have long stood there.

    No record is read. Temporary when `site` itself does not answer.
    """
    bases = topics.mirrored(site, target_is_auditor=settings.entry(site).auditor)
    peers = settings.registry.peers_of(site)
    with LogReader(settings, site) as reader:
        filled = _filled(reader, [topics.remote(peer, base) for peer in peers for base in bases])
    found: list[Uncarried] = []
    for peer in peers:
        empty = [base for base in bases if topics.remote(peer, base) not in filled]
        if not empty:
            continue
        try:
            with LogReader(settings, peer) as reader:
                old = _filled(reader, empty, now_ms - UNCARRIED_MS)
        except Temporary:
            continue  # a peer that is away is told of elsewhere
        if passed := tuple(base for base in empty if base in old):
            found.append(Uncarried(peer, site, passed))
    return found


def _filled(reader: LogReader, names: list[str], before_ms: int | None = None) -> set[str]:
    """Topics that hold a record, or one from before a time."""
    places = reader.partitions_of(names)
    begins = reader.begin_offsets(places)
    until = reader.end_offsets(places) if before_ms is None else reader.offsets_at(places, before_ms)
    return {place[0] for place in places if until[place] > begins[place]}


def _identity(record: Record) -> bytes:
    """The origin header: writer, incarnation, number; the value where a record has none."""
    return next((bytes(v or b"") for name, v in record.headers or () if name == _ORIGIN), record.value or b"")


def _last_records(settings: Settings, site: Site, names: list[str]) -> dict[LogPartition, Record]:
    """The last record of every partition that has one."""
    with LogReader(settings, site) as reader:
        places = reader.partitions_of(names)
        begins, ends = reader.begin_offsets(places), reader.end_offsets(places)
    found: dict[LogPartition, Record] = {}
    left = [place for place in places if begins[place] < ends[place]]
    window = _WINDOW
    while left:
        starts = {place: max(begins[place], ends[place] - window) for place in left}
        starts |= {place: ends[place] for place in places if place not in starts}
        for record in replay(settings, site, sorted({p[0] for p in left}), start=starts, large_records=True):
            found[record.topic, record.partition] = record
        left = [place for place in left if place not in found and starts[place] > begins[place]]
        window *= 16
    return found


def worker_lag(settings: Settings, site: Site) -> list[Behind]:
    """Records that the workers of `site` have not committed, by topic; empty before their first commit."""
    committed = committed_offsets(settings, site, worker_group(settings, site))
    names = sorted({topic for topic, _ in committed})
    ends = end_offsets(settings, site, names) if names else {}
    sums: dict[str, int] = dict.fromkeys(names, 0)
    for place, end in ends.items():
        sums[place[0]] += max(0, end - committed.get(place, 0))
    return [Behind(site, topic, count) for topic, count in sums.items()]
