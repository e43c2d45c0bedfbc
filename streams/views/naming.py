"""The names of items that failed, read from the journal where their manifest stands: the view keeps none of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from streams import wire
from streams.client.intent_snapshot import Snapshot, unnamed
from streams.core import records as m
from streams.core.topics import LogPartition
from streams.errors import Transfer2goError
from streams.kafka.reader import LogReader, record_of
from streams.settings import Settings

MANIFESTS_MAX = 64
"""Read for one answer; what failed in further manifests keeps its number for a name."""
ANSWER_S = 5.0


def named(settings: Settings, snapshot: Snapshot, places: Mapping[str, str]) -> Snapshot:
    """The snapshot with the LFNs of unfinished items, as far as they can be had in time. `places`: Intents.places."""
    if not snapshot.unfinished or not places:
        return snapshot
    until_s = time.monotonic() + ANSWER_S
    names: dict[str, str] = {}
    try:
        with LogReader(settings, settings.here) as reader:
            for topic, partition, offset in sorted({_parsed(place) for place in places.values()})[:MANIFESTS_MAX]:
                body = _body(settings, reader, (topic, partition), offset, until_s)
                if body is None:
                    break
                names.update((unnamed(body.manifest, no), str(item.lfn)) for no, item in enumerate(body.items))
    except Transfer2goError:
        pass  # numbers, then
    unfinished = tuple(replace(one, lfn=names.get(one.lfn, one.lfn)) for one in snapshot.unfinished)
    return replace(snapshot, unfinished=unfinished)


def _parsed(place: str) -> tuple[str, int, int]:
    topic, partition, offset = place.split(" ")
    return topic, int(partition), int(offset)


def _body(
    settings: Settings, reader: LogReader, where: LogPartition, offset: int, until_s: float
) -> m.ManifestWritten | None:
    reader.assign({where: offset})
    while time.monotonic() < until_s:
        for record in map(record_of, reader.batch(0.1)):
            if (record.topic, record.partition) == where and record.offset >= offset:
                heard = wire.decode(record.topic, record.key, record.value, record.headers, settings.here).message
                return heard if isinstance(heard, m.ManifestWritten) else None
    return None
