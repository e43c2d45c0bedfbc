"""EventStream: the entries of an intent, in order, while they are still on their way.

    with EventStream(intent, site="T2_B") as stream:      # asked for with to=["T2_B/zpeak"]
        for batch in stream:
            fill(batch.to_numpy()["M"])

A consumer is a destination of its intent, `SITE/NAME`, and keeps its place in the site's log: asking for the next batch
says that the one before is done, and half a second later the log knows. Killed, it goes on from there and may see the
last batches again, under the same numbers; none is left out. Who stores `batch.position` in one step with what it
made of the batch (`Checkpoint`) and gives it back as `position=` sees none twice.

It asks its source for no more than `ahead_bytes` beyond what was worked on: a slow reader slows its own source, and no
one else. One process a name: workers that share the entries are `transfer2go event work`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Self

from streams import waits
from streams.consuming.session import ReaderSession
from streams.core import records as m
from streams.core.closing import Closing
from streams.core.names import Destination, IntentId, Lfn, Site, Text, shown
from streams.core.readers.ordered import OrderedReader
from streams.core.readers.window import Came
from streams.core.selections.parts import entries_of
from streams.errors import Temporary, WireError
from streams.settings import Settings, load_settings

if TYPE_CHECKING:
    import pyarrow as pa

    from streams.events.entry_batch import EntryBatch

log = logging.getLogger(__name__)

AHEAD_BYTES = 32 * 1024 * 1024
COMMIT_S = 1.0
_LOOK_S = 0.5


class EventStream(Closing):
    """Iterate over it for `EntryBatch`es. Used by one thread; a context manager, or `close` it.

    `name` may be left out where the intent has one consumer at `site`. `position` (a batch's) overrides the log.
    `mixed_schemas`: files whose columns differ from the first's are read too, else they fail with a reason.
    Raises, while iterating: NotFound (no such intent or consumer), NeverWorks (refused), TransferFailed (cancelled),
    PartlyDone or TransferFailed at the end where files failed (`failed` lists them), Temporary after `timeout_s`
    without a batch, Transfer2goError once another process reads under its name.
    """

    def __init__(
        self,
        intent: str,
        name: str | None = None,
        *,
        site: str | None = None,
        settings: Settings | None = None,
        position: str | None = None,
        ahead_bytes: int = AHEAD_BYTES,
        timeout_s: float | None = None,
        mixed_schemas: bool = False,
    ) -> None:
        self.settings = load_settings(site=site) if settings is None else settings
        self.site: Site = self.settings.here if site is None else self.settings.entry(site).name
        self.intent = IntentId(intent)
        self._name, self._timeout_s, self._mixed = name, timeout_s, mixed_schemas
        self._position, self._ahead_bytes = position, ahead_bytes
        self._reader: OrderedReader | None = None
        self._session: ReaderSession | None = None
        self._schema: tuple[str, str] | None = None

    @property
    def failed(self) -> list[tuple[Lfn, m.Reason]]:
        """Files of which not all entries could be read, so far."""
        return [] if self._reader is None else self._reader.failed()

    @property
    def destination(self) -> Destination | None:
        """Its full name, once known."""
        return None if self._reader is None else self._reader.destination

    @property
    def away(self) -> str:
        """Why no news come at present, "" while they do."""
        return "" if self._session is None else self._session.away

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EntryBatch:
        session = self._session or self._open()
        assert self._reader is not None
        retry_ms = int(self.settings.policy.source_retry_s * 1000)
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        with session.news, waits.on("entries") as waiting:
            self._reader.worked()
            while True:
                session.check()
                if (batch := self._next_batch(self._reader)) is not None:
                    return batch
                if self._reader.over:
                    break
                wait_s = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
                if wait_s <= 0:
                    why = session.away or self._reader.waits_for(retry_ms)
                    raise Temporary(
                        f"no entries came within {self._timeout_s:g} s: {why}",
                        where=str(self._reader.destination),
                        next=f"see `transfer2go intent explain {self.intent}`",
                    )
                waiting.what = session.away or self._reader.waits_for(retry_ms)
                session.news.wait(wait_s)
        self._end(session, self._reader)
        raise StopIteration

    def commit(self) -> None:
        """Say in the log, now and acknowledged, that all batches handed out so far are done."""
        if self._session is not None and self._reader is not None:
            with self._session.news:
                self._reader.worked()
            self._session.commit()

    def close(self) -> None:
        """Leave. What was worked on before the batch handed out last is told; a later stream goes on behind it."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _open(self) -> ReaderSession:
        session = ReaderSession(self.settings, self.site, self.intent)
        try:
            session.recall()
            self._reader = OrderedReader(session.known, session.named(self._name), self._ahead_bytes, self._position)
            session.begin(self._reader)
        except BaseException:
            session.close()
            raise
        self._session = session
        return session

    def _next_batch(self, reader: OrderedReader) -> EntryBatch | None:
        """The next batch that can be handed out; items whose payload makes no sense fail."""
        from streams.events.batches import unpack
        from streams.events.entry_batch import EntryBatch

        while (found := reader.next()) is not None:
            row, came, start = found
            item = row.manifest.items[came.item]
            try:
                batch = unpack(came.payload)
                why = self._strange(batch, came, item.lfn)
            except WireError as error:
                why = str(error)
            if why is not None:
                reason = m.Reason(m.Scope.SOURCE, m.FailureClass.DATA_BAD, "read", Text(shown(why, 390)))
                reader.fail(row.id, came.item, reason)
                continue
            if not batch.num_rows:  # an item without entries: it has told its columns
                continue
            asked = entries_of(item.selection)
            base = (asked.start if asked is not None else 0) - row.manifest.line.starts[came.item]
            rows = batch.slice(start - came.start)
            return EntryBatch(str(item.lfn), base + start, base + came.stop, rows, reader.position())
        return None

    def _strange(self, batch: pa.RecordBatch, came: Came, lfn: Lfn) -> str | None:
        """Why a batch cannot stand behind those before it."""
        from streams.events.batches import fingerprint

        found = came.fingerprint or fingerprint(batch.schema)
        if self._schema is None:
            self._schema = (found, lfn)
        if not self._mixed and found != self._schema[0]:
            return f"its columns are not those of {self._schema[1]}"
        if batch.num_rows and batch.num_rows != came.stop - came.start:
            return f"a payload of {batch.num_rows} entries stands for {came.stop - came.start}"
        return None

    def _end(self, session: ReaderSession, reader: OrderedReader) -> None:
        """Everything is done: say so, acknowledged, before whoever iterates is told."""
        with session.news:
            reader.worked()
        session.commit()
        reader.check_end("not all could be read")
