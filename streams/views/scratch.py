"""Views for a moment: a database in a directory of its own, folded from the log, thrown away; memory stays bounded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from streams.core.names import Site
from streams.errors import WireError
from streams.kafka.reader import Record
from streams.views import rows
from streams.views.intents import IntentChanges, Intents

_ROWS_MAX = 20_000


@contextmanager
def database() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="t2g-view-") as scratch:
        db = rows.open_primary(str(Path(scratch) / "view"))
        try:
            yield db
        finally:
            db.close()


@contextmanager
def intents(records: Iterator[Record], here: Site) -> Iterator[Intents]:
    """The intents of these records of `here`'s cluster; what the gate refuses is left out."""
    with database() as db:
        changes = IntentChanges(db)
        for record in records:
            where = (record.topic, record.partition, record.offset)
            with suppress(WireError):  # the site's workers file it as a dead letter
                changes.hear_record(where, (record.key, record.value, record.headers), here)
            if len(changes) > _ROWS_MAX:
                rows.write(db, changes.take())
        rows.write(db, changes.take())
        yield Intents(db)
