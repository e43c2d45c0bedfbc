"""One record of a journal through the gate into the ledger; a copy of one that it knows is not decoded again."""

from __future__ import annotations

from streams import wire
from streams.auditing.origins import origin_of
from streams.core import records as m
from streams.core.ledger import Ledger
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.trees import leaf_of
from streams.core.names import Site
from streams.errors import WireError
from streams.kafka.reader import Record
from streams.wire.release import release_of


def enter(ledger: Ledger, place: LogPosition, record: Record) -> None:
    """The next record of its partition, at the site that `place` says."""
    headers = record.headers or ()
    leaf = leaf_of(record.key, record.value, headers)
    if "." in place.topic:
        known = origin_of(headers)
        if known is not None and ledger.copy(place, known, leaf):
            return
    try:
        heard = wire.decode_once(place.topic, record.key, record.value, headers, place.site)
    except WireError as error:
        speaks_for = None if error.speaks_for is None else Site(error.speaks_for)
        ledger.refuse(place, error.what, record.timestamp_ms, origin_of(headers), leaf, speaks_for)
    else:
        release = release_of(headers) if isinstance(heard.message, m.SiteAnnounced) else None
        content = ledger.content_of(record.value)
        ledger.hear(place, heard.origin, heard.message, content, leaf, record.timestamp_ms, release)
