"""Who is alive, as announcements.py folds it, persisted with the view's batches. Agents read it; no clock here."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from streams.client.announcements import Announcements, LiveWriter
from streams.core.names import Site
from streams.core.records import Origin, SiteAnnounced
from streams.views import rows
from streams.wire.release import UNTOLD


class Sites(Announcements):
    """Written by the view's thread, read by any."""

    def __init__(self, db: Any) -> None:
        super().__init__()
        for _, row in rows.scan(db, rows.SITE):
            said = _unpack(row)
            self._known[said.key] = said

    def hear(self, fact: SiteAnnounced, origin: Origin, at_ms: int, release: int = UNTOLD) -> dict[bytes, bytes | None]:
        """Take an announcement; returns the rows to put (None: delete) in the same batch as its offset."""
        changes = self.take(fact, origin, at_ms, release)
        return {
            rows.SITE + "\0".join(key).encode(): None
            if said is None
            else json.dumps(asdict(said), separators=(",", ":")).encode()
            for key, said in changes.items()
        }


def _unpack(row: bytes) -> LiveWriter:
    fields = json.loads(row)
    fields["site"] = Site(fields["site"])
    fields["peers"] = tuple(Site(p) for p in fields["peers"])
    fields["endpoints"] = tuple(fields["endpoints"])
    return LiveWriter(**fields)
