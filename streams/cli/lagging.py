"""How far copies are behind originals, and workers behind topics. Read-only.

A mirror renumbers offsets but keeps timestamps and the order of each partition. So the last record of a copy is looked
up at the origin by its time and found by its writer's number; what stands behind it has not arrived.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streams.auditing.replaying import worker_group
from streams.core import topics
from streams.core.names import Site
from streams.core.topics import LogPartition
from streams.errors import Temporary
from streams.kafka.reader import LogReader, Record, committed_offsets
from streams.kafka.replay import end_offsets, replay
from streams.settings import Settings

UNCARRIED_MS = 30_000
"""A mirror that runs has found a topic within 10 s, however new."""
_ORIGIN = "t2g-origin"
_COUNTED_MAX = 50
_WINDOW = 8
"""Offsets looked at first from the end of a copy: a record and the markers of a few transactions."""


@dataclass(frozen=True, slots=True)
class FlowLag:
    """A topic of `origin` at `site`: records not arrived, and seconds from the last arrived to the last written."""

    origin: Site
    site: Site
    topic: str
    records: int
    behind_s: float


@dataclass(frozen=True, slots=True)
class Behind:
    """A topic of `site` and the records its workers have not committed."""

    site: Site
    topic: str
    records: int


def mirror_lag(settings: Settings, site: Site) -> list[FlowLag]:
    bases = topics.mirrored(site, target_is_auditor=settings.entry(site).auditor)
    return [flow for peer in settings.registry.peers_of(site) for flow in _flows(settings, peer, site, bases)]


def _flows(settings: Settings, origin: Site, site: Site, bases: Iterable[str]) -> list[FlowLag]:
    copies = _last_records(settings, site, [topics.remote(origin, base) for base in bases])
    flows: list[FlowLag] = []
    for base in bases:
        records, behind_s = 0, 0.0
        large = base.startswith("chunks-to-")
        with LogReader(settings, origin) as reader:
            places = reader.partitions_of([base])
            ends = reader.end_offsets(places)
            begins = reader.begin_offsets(places)
            of_place = {place: copies.get((topics.remote(origin, base), place[1])) for place in places}
            starts = {
                place: begins[place] if copy is None else reader.offsets_at([place], copy.timestamp_ms)[place]
                for place, copy in of_place.items()
            }
        for place in places:
            if starts[place] >= ends[place]:
                continue
            copy = of_place[place]
            missing = _after(settings, origin, place, starts[place], copy, large)
            records += len(missing)
            if missing:
                since = copy.timestamp_ms if copy is not None else missing[0]
                behind_s = max(behind_s, (missing[-1] - since) / 1000)
        flows.append(FlowLag(origin, site, base, records, behind_s))
    return flows


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


def _after(
    settings: Settings, origin: Site, place: LogPartition, start: int, copy: Record | None, large: bool
) -> list[int]:
    """Times of the records at `place` behind the one that `copy` is a copy of."""
    times: list[int] = []
    topic, partition = place
    for record in replay(settings, origin, [topic], partitions=[partition], start={place: start}, large_records=large):
        if copy is not None and _identity(record) == _identity(copy):
            times = []
        else:
            times.append(record.timestamp_ms)
    return times


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
        sums[place[0]] += _unread(settings, site, place, committed.get(place, 0), end)
    return [Behind(site, topic, count) for topic, count in sums.items()]


def _unread(settings: Settings, site: Site, place: LogPartition, start: int, end: int) -> int:
    """Records from `start` to `end`. Few are counted one by one: a mirror's transaction markers take offsets too."""
    if not 0 < end - start <= _COUNTED_MAX:
        return max(0, end - start)
    topic, partition = place
    counted = replay(settings, site, [topic], partitions=[partition], start={place: start})
    return sum(1 for _ in counted)
