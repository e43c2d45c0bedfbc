"""Records of journals through the gate into a ledger: what was read before is not read again.

Of a copy that the ledger knows its origin is enough; of a plan whose manifest has passed the gate, its head.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from streams import wire
from streams.auditing.origins import origin_of
from streams.core import records as m
from streams.core import topics
from streams.core.ledger import Ledger
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.trees import leaf_of
from streams.core.names import Site
from streams.errors import WireError
from streams.kafka.reader import Record
from streams.wire.release import release_of

MANIFESTS_MAX = 200_000
"""Manifests that are remembered: 170 bytes each. A plan of another one is read whole."""
_COLLECTED_EACH = 50_000
"""Objects made and not freed between two looks for circles of them; Python's own is 700."""


@contextmanager
def few_collections() -> Iterator[None]:
    """While records are entered: they are freed as they go, and a look at the parts of each finds no circle."""
    first, *others = gc.get_threshold()
    gc.set_threshold(max(first, _COLLECTED_EACH), *others)
    try:
        yield
    finally:
        gc.set_threshold(first, *others)


class Entrance:
    """Of one ledger. `manifests_max`: how many manifests it remembers."""

    def __init__(self, ledger: Ledger, manifests_max: int = MANIFESTS_MAX) -> None:
        self._ledger, self._legal = ledger, LegalManifests(manifests_max)

    def enter(self, place: LogPosition, record: Record) -> None:
        """The next record of its partition, at the site that `place` says."""
        ledger, headers = self._ledger, record.headers or ()
        leaf = leaf_of(record.key, record.value, headers)
        if "." in place.topic:
            known = origin_of(headers)
            if known is not None and ledger.copy(place, known, leaf):
                return
        try:
            heard = self._heard(place, record, headers)
        except WireError as error:
            speaks_for = None if error.speaks_for is None else Site(error.speaks_for)
            ledger.refuse(place, error.what, record.timestamp_ms, origin_of(headers), leaf, speaks_for)
        else:
            release = release_of(headers) if isinstance(heard.message, m.SiteAnnounced) else None
            content = ledger.content_of(record.value)
            ledger.hear(place, heard.origin, heard.message, content, leaf, record.timestamp_ms, release)

    def _heard(self, place: LogPosition, record: Record, headers: wire.Headers) -> wire.Heard | wire.HeardPlan:
        stands = place.topic, record.key, record.value, headers, place.site
        if place.topic == topics.TRANSFERS and (plan := wire.decode_plan(*stands, self._legal.has)) is not None:
            return plan
        heard = wire.decode_once(*stands)
        if isinstance(heard.message, m.ManifestWritten | m.TransferPlanned):
            assert record.value is not None
            if (body := wire.manifest_in(record.value)) is not None:
                self._legal.add(body)
        return heard


class LegalManifests:
    """Manifests that passed the gate, by a hash of their bytes: the last ones, `most` at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    def add(self, body: bytes) -> None:
        if len(self._new) >= self._most // 2:
            self._old, self._new = self._new, set()
        self._new.add(sha256(body).digest())

    def has(self, body: bytes) -> bool:
        known = sha256(body).digest()
        return known in self._new or known in self._old
