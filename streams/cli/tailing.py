"""The last records of topics, and each told in a line or an object: what `topic tail` and `dlq` show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from streams import wire
from streams.cli import screen, words
from streams.core import records as m
from streams.core import topics
from streams.core.names import Site, shown
from streams.core.topics import LogPartition
from streams.errors import InvalidName, WireError
from streams.kafka.reader import LogReader, Record
from streams.kafka.replay import replay
from streams.settings import Settings

_SPARE = 50
"""Read so many offsets more than wanted: a mirror's transaction markers take offsets and are no records."""
_GROWTH = 16


@dataclass(frozen=True, slots=True)
class TailedRecord:
    """A record, decoded or with the reason why not."""

    record: Record
    kind: str
    what: str
    fact: Any = None
    origin: m.Origin | None = None


def is_payload(topic: str) -> bool:
    try:
        return topics.split(topic)[1].startswith("chunks-to-")
    except InvalidName:
        return False


def tell(record: Record, here: Site) -> TailedRecord:
    """What a record read at `here` says; a refused one says why."""
    try:
        if is_payload(record.topic) and not any(name == wire.FINGERPRINT for name, _ in record.headers or ()):
            chunk = wire.decode_chunk(record.topic, record.key, record.value, record.headers, here)
            return TailedRecord(record, "payload", words.chunk_line(chunk.header), chunk.header, chunk.origin)
        heard = wire.decode(record.topic, record.key, record.value, record.headers, here)
    except WireError as error:
        return TailedRecord(record, "REFUSED", error.what)
    fact = _without_tickets(heard.message)
    return TailedRecord(record, type(fact).__name__, words.line(fact), fact, heard.origin)


def _without_tickets(fact: m.Message) -> m.Message:
    """Whoever has a ticket may fetch what it opens, or is let in by it: it is not shown."""
    match fact:
        case m.ChunksOffered():
            return replace(fact, doors=tuple(replace(door, ticket="***") for door in fact.doors))
        case m.UrlsOffered():
            urls = tuple(replace(one, url=one.url.partition("?")[0] + "?***" * ("?" in one.url)) for one in fact.urls)
            return replace(fact, urls=urls, token="***" * bool(fact.token))
        case m.ChunksRequested() if " " in fact.capability:
            return replace(fact, capability=f"{fact.capability.partition(' ')[0]} ***")
    return fact


def as_line(told: TailedRecord) -> str:
    """Time, place, key, kind, writer, meaning."""
    r, origin = told.record, told.origin
    key = shown((r.key or b"").decode("utf-8", "backslashreplace"), 200)
    writer = f"{origin.site}/{origin.writer}#{origin.seq}" if origin else "?"
    place = f"{r.topic}[{r.partition}]@{r.offset}"
    return f"{screen.moment(r.timestamp_ms)}  {place}  {key}  {told.kind}  {writer}  {told.what}"


def as_object(told: TailedRecord) -> dict[str, Any]:
    r = told.record
    found: dict[str, Any] = {
        "topic": r.topic,
        "partition": r.partition,
        "offset": r.offset,
        "time": screen.moment(r.timestamp_ms),
        "key": (r.key or b"").decode("utf-8", "backslashreplace"),
        "kind": told.kind,
        "origin": None if told.origin is None else screen.plain(told.origin),
    }
    if told.fact is None:
        return {**found, "refused": told.what}
    return {**found, "value": screen.plain(told.fact)}


def last(settings: Settings, site: Site, names: Sequence[str], most: int) -> list[Record]:
    """The newest `most` records of the topics at `site`, oldest first."""
    payload = any(is_payload(name) for name in names)
    with LogReader(settings, site) as reader:
        places = reader.partitions_of(names)
        begins, ends = reader.begin_offsets(places), reader.end_offsets(places)
    window = most + _SPARE
    while True:
        starts: dict[LogPartition, int] = {place: max(begins[place], ends[place] - window) for place in places}
        found: list[Record] = []
        for name in names:
            own = {place: offset for place, offset in starts.items() if place[0] == name}
            found += replay(settings, site, [name], start=own, large_records=payload)
        if len(found) >= most or all(starts[place] == begins[place] for place in places):
            return newest(found, most)
        window *= _GROWTH


def newest(records: Iterable[Record], most: int) -> list[Record]:
    """The `most` latest by time, oldest first; records of a partition stay in its order.

    A record is no newer than what stands behind it in its partition: one that a clock ahead has dated would else be
    the newest until its date has come, and hide what was written since.
    """
    placed: dict[LogPartition, list[Record]] = {}
    for record in records:
        placed.setdefault((record.topic, record.partition), []).append(record)
    dated: list[tuple[int, Record]] = []
    for of_place in placed.values():
        of_place.sort(key=lambda record: record.offset, reverse=True)
        times = accumulate((record.timestamp_ms for record in of_place), min)
        dated += zip(times, of_place, strict=True)
    dated.sort(key=lambda one: (one[0], one[1].topic, one[1].partition, one[1].offset))
    return [record for _, record in dated[max(0, len(dated) - most) :]]
