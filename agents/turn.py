"""One turn: fold a fact into its row and put the row. What it owes is asked afterwards, by clock.py.

    read ▸ fold ▸ put ▸ (the caller:) ask ▸ carry out ▸ acknowledge

A crash before the put: the fact is heard again. Between put and acknowledgement: it is heard again and changes nothing,
but the row is put all the same, since its changelog may have died with the worker. After it: what was owed is read off
the row by the next owner.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from agents import rows
from streams import wire
from streams.core import intent as intents
from streams.core import messages as m
from streams.core import topics
from streams.core import transfer as transfers
from streams.core.manifest import Manifest
from streams.core.names import IntentId, ManifestId, Site

EARLY_MAX = 4000
"""Names of early manifests noted for one intent, about 130 bytes each; what a mirror brings out of order is few."""
MANIFESTS_REMEMBERED = 16
"""Decoded manifests kept by a worker: about 1 MB each."""


@dataclass(frozen=True, slots=True)
class IntentTurn:
    row: intents.IntentRow
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class TransferTurn:
    row: transfers.TransferRow
    manifest: Manifest | None


class Turns:
    """Folds facts into the tables of one site."""

    def __init__(self, tables: rows.Tables, here: Site) -> None:
        self.tables = tables
        self.here = here
        self._manifests: OrderedDict[ManifestId, Manifest] = OrderedDict()

    def intent(self, msg: intents.IntentMessage) -> IntentTurn:
        """Folds one fact of an intent. `refused` says why it contradicts what is known: a dead letter."""
        table = self.tables.intents
        before = rows.intent_row(table.get(msg.intent))
        refused = intents.contradiction(before, msg)
        if refused is not None and before is not None:
            table.put(msg.intent, rows.encode(before))
            return IntentTurn(before, refused)
        if isinstance(msg, m.ManifestWritten):
            self._keep(before or intents.IntentRow(msg.intent), msg)
        row = self._advanced(intents.fold(before, msg))
        if self._finished(row) and not (before and self._finished(before)):
            # Before the put: a crash between the two has the fact heard again, on a row that is not finished.
            self._forget(row)
        table.put(msg.intent, rows.encode(row))
        return IntentTurn(row)

    def _keep(self, row: intents.IntentRow, msg: m.ManifestWritten) -> None:
        # Kept until the intent has ended, not only until its transfer answers: a row that fell back finds it again.
        counts, table = row.counts(msg), self.tables.waiting
        if row.ended or (counts is not intents.Counts.LATER and not row.concerns(self.here)):
            return
        if counts is intents.Counts.NOW:
            table.put(waiting_key(msg.manifest, msg.source), wire.encode(msg))
        elif counts is intents.Counts.LATER or self._counted(row, msg):
            key = early_key(msg) if counts is intents.Counts.LATER else waiting_key(msg.manifest, msg.source)
            known = table.get(key)
            # The first counts, and is put again: the changelog of its put may have died with a worker.
            table.put(key, wire.encode(msg) if known is None else known)
            if counts is intents.Counts.LATER:
                self._note_early(msg.intent, key)

    def _counted(self, row: intents.IntentRow, msg: m.ManifestWritten) -> bool:
        """Heard again after it, or a rival of its number, counted."""
        decided = row.decision
        current = decided is not None and (decided.source, decided.source_no) == (msg.source, msg.source_no)
        return current and msg.no < row.chain.next_no

    def _advanced(self, row: intents.IntentRow) -> intents.IntentRow:
        """The row after those waiting manifests that count now."""
        table = self.tables.waiting
        while row.decision is not None and row.decision.source is not None and not row.chain.last:
            key = waiting_key(row.next_manifest, row.decision.source)
            early = f"{key}@{row.chain.sha256}"
            raw = table.get(early)
            # Moved already, by a turn that ended before it put its row?
            found = raw if raw is not None else table.get(key)
            if found is None:
                return row
            msg = self._decoded(found)
            if row.counts(msg) is not intents.Counts.NOW:
                return row
            if row.concerns(self.here):
                table.put(key, found)
            else:
                table.delete(key)
            table.delete(early)
            if raw is not None:
                self._note_early(row.intent, early, waits=False)
            row = intents.fold(row, msg)
        return row

    def _decoded(self, raw: bytes) -> m.ManifestWritten:
        return wire.decode_value(m.ManifestWritten, raw)

    def _finished(self, row: intents.IntentRow) -> bool:
        return row.ended and not any(r.destination == self.here for r in row.reports)

    def _note_early(self, intent: IntentId, key: str, *, waits: bool = True) -> None:
        """What waits behind another is found again by its name only, and what follows a rival waits for ever."""
        table, noted = self.tables.waiting, early_names(intent)
        names = [name for name in _names(table.get(noted)) if name != key]
        if waits and len(names) < EARLY_MAX:
            names.append(key)
        if names:
            table.put(noted, "\n".join(names).encode())
        else:
            table.delete(noted)

    def _forget(self, row: intents.IntentRow) -> None:
        names = early_names(row.intent)
        if (early := self.tables.waiting.get(names)) is not None:
            for key in _names(early):
                self.tables.waiting.delete(key)
            self.tables.waiting.delete(names)
        if row.decision is None or row.decision.source is None or not row.concerns(self.here):
            return
        for no in range(row.chain.next_no):
            manifest = ManifestId.of(row.intent, row.chain.source_no, no)
            self.tables.waiting.delete(waiting_key(manifest, row.decision.source))

    def intent_row(self, intent: IntentId) -> intents.IntentRow | None:
        return rows.intent_row(self.tables.intents.get(intent))

    def transfer_row(self, manifest: ManifestId) -> transfers.TransferRow | None:
        return rows.transfer_row(self.tables.transfers.get(manifest))

    def waiting_body(self, manifest: ManifestId, source: Site) -> m.ManifestWritten | None:
        raw = self.tables.waiting.get(waiting_key(manifest, source))
        return None if raw is None else self._decoded(raw)

    def transfer(self, msg: transfers.TransferMessage) -> TransferTurn:
        """Folds one fact of a transfer."""
        table = self.tables.transfers
        row = rows.transfer_row(table.get(msg.manifest))
        closed = row is not None and row.state is transfers.State.CLOSED
        manifest = None if closed else self.manifest(msg.manifest)
        if isinstance(msg, m.TransferPlanned) and not closed:
            if manifest is None:
                manifest = self._remember(msg.manifest, Manifest(msg.body))
            self.tables.manifests.put(msg.manifest, wire.encode(manifest.body))
        row = transfers.fold(row, msg, manifest)
        if row.state is transfers.State.CLOSED and not closed:
            # Before the put, as above.
            self.tables.manifests.delete(msg.manifest)
            self._manifests.pop(msg.manifest, None)
        table.put(msg.manifest, rows.encode(row))
        return TransferTurn(row, manifest)

    def manifest(self, manifest: ManifestId) -> Manifest | None:
        """The stored manifest, decoded once."""
        known = self._manifests.get(manifest)
        if known is not None:
            self._manifests.move_to_end(manifest)
            return known
        raw = self.tables.manifests.get(manifest)
        return None if raw is None else self._remember(manifest, Manifest(self._decoded(raw)))

    def _remember(self, key: ManifestId, manifest: Manifest) -> Manifest:
        self._manifests[key] = manifest
        while len(self._manifests) > MANIFESTS_REMEMBERED:
            self._manifests.popitem(last=False)
        return manifest


def waiting_key(manifest: ManifestId, source: Site) -> str:
    """A manifest that counts, by the site that wrote it: a wrong writer must not keep the right one's place."""
    return f"{manifest}@{source}"


def early_key(msg: m.ManifestWritten) -> str:
    """A manifest whose decision or predecessor is not heard yet. It keeps the place behind its own predecessor only."""
    return f"{waiting_key(msg.manifest, msg.source)}@{msg.prev_sha256}"


def early_names(intent: IntentId) -> str:
    """Where the names of an intent's early manifests are noted, until it ends."""
    return f"{ManifestId.of(intent, 0, 0)}@@early"


def intent_of(key: str) -> IntentId:
    """Whose a key of the waiting table is: all of an intent lies in the intent's partition."""
    return ManifestId(key.partition("@")[0]).intent


def _names(raw: bytes | None) -> list[str]:
    return [] if not raw else raw.decode().split("\n")


def partition_of(intent_or_manifest: str, partitions: int) -> int:
    return topics.partition_of(intent_or_manifest, partitions)
