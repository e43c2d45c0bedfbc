"""Whole topics read again: from the beginning (or a time) to the ends noted at the start, each partition in order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from confluent_kafka import Message

from streams import waits
from streams.core.topics import LogPartition
from streams.errors import Temporary
from streams.kafka.reader import LogReader, Record, record_of
from streams.settings import Settings

STALL_S = 15.0
"""A replay that hears nothing for so long, records or ends, says so: a live broker answers every 100 ms."""
_WAIT_S = 0.1

StartAt = Literal["beginning", "end"] | int | Mapping[LogPartition, int]
"""Where to begin: an int is a time (ms of the epoch), a mapping the next offset to read of each place."""


def replay(
    settings: Settings,
    site: str,
    topics: Iterable[str],
    *,
    partitions: Iterable[int] | None = None,
    start: StartAt = "beginning",
    large_records: bool = False,
) -> Iterator[Record]:
    """Every record of the topics (or of some partitions) that stood there when called, then stop.

    NotFound for a topic that does not exist; Temporary when the broker stays away. `large_records` for payload topics.
    """
    with LogReader(settings, site, large_records=large_records) as reader:
        places = _places(reader, topics, partitions)
        ends = reader.end_offsets(places)
        starts = _starts(reader, places, start, reader.begin_offsets(places))
        left = {p: end for p, end in ends.items() if starts[p] < end}
        names = {place[0] for place in left}
        what = next(iter(names)) if len(names) == 1 else f"{len(names)} topics"
        with waits.on(f"{what} of {site} to be read again") as wait:
            records = 0
            for batch in _to_ends(reader, starts, left):
                yield from map(record_of, batch)
                records += len(batch)
                wait.what = f"{what} of {site} to be read again ({records:,} records so far)"


def _to_ends(
    reader: LogReader, starts: Mapping[LogPartition, int], ends: dict[LogPartition, int]
) -> Iterator[list[Message]]:
    if not ends:
        return
    reader.assign({place: starts[place] for place in ends})
    heard = time.monotonic()
    while ends:
        events = reader.events(_WAIT_S)
        if events:
            good, done = _before_ends(events, ends)
            if good:
                yield good
            if ends and done:
                reader.drop(done)
            heard = time.monotonic()
        elif time.monotonic() - heard > STALL_S:
            (topic, partition), _ = next(iter(ends.items()))
            raise Temporary(
                f"nothing heard for {STALL_S:.0f} s while replaying {topic} [{partition}] and {len(ends) - 1} more",
                where=reader.where,
                next="is the broker up? see `transfer2go status`, then try again",
            )


def _before_ends(events: list[Message], ends: dict[LogPartition, int]) -> tuple[list[Message], list[LogPartition]]:
    """The records that stand before the ends, and the places that are done, which are removed from `ends`."""
    good: list[Message] = []
    done: list[LogPartition] = []
    for message in events:
        place: LogPartition = (message.topic(), message.partition())  # type: ignore[assignment]
        end = ends.get(place)
        if end is None:
            continue
        offset = message.offset() or 0
        if message.error() is None and offset < end:
            good.append(message)
            offset += 1
        if offset >= end:
            del ends[place]
            done.append(place)
    return good, done


def end_offsets(settings: Settings, site: str, topics: Iterable[str]) -> dict[LogPartition, int]:
    with LogReader(settings, site) as reader:
        return reader.end_offsets(_places(reader, topics, None))


def _places(reader: LogReader, topics: Iterable[str], partitions: Iterable[int] | None) -> list[LogPartition]:
    wanted = None if partitions is None else set(partitions)
    return [place for place in reader.partitions_of(topics) if wanted is None or place[1] in wanted]


def _starts(
    reader: LogReader, places: list[LogPartition], start: StartAt, begins: dict[LogPartition, int]
) -> dict[LogPartition, int]:
    if start == "beginning":
        return begins
    if start == "end":
        return reader.end_offsets(places)
    if isinstance(start, int):
        return reader.offsets_at(places, start)
    assert not isinstance(start, str)
    return {place: max(start.get(place, 0), begins[place]) for place in places}
