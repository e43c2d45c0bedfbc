"""How intents lie in the views' RocksDB: keys, and heads and cells to bytes and back. No decision is here.

    h INTENT                       head: what is known without single transfers
    j INTENT                       body: JSON of a TransferIntent, as big as what was asked for
    k INTENT \\0 KIND KEY           a cell of the fold: c waiting, z sized, y early, u failed, p reports,
                                   m reports of a removal
    x INDEX NAME \\0 TIME INTENT    empty: intents by all "a", word "w", requester "r", dataset "d", site "s"

TIME is what is left of 63 bits after the ms of asking, so that a scan meets the newest first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from streams.client.intent_snapshot import Cells, Early, Failed, Head, Side, Sized
from streams.core import records as m
from streams.core.chain import Chain, Link
from streams.core.intent import SiteAnswer
from streams.core.names import Destination, IntentId, Site, Text
from streams.core.ranges import Ranges
from streams.views import rows
from streams.wire import avro

HEAD, BODY, CELL, INDEX = b"h", b"j", b"k", b"x"
ALL, WORD, REQUESTER, DATASET, SITE = b"a", b"w", b"r", b"d", b"s"
OPEN = "open"
"""A word beside the outcomes: every intent that has not ended."""
_TIME_MAX = (1 << 63) - 1
_KEPT = [name for name in Head.__slots__ if name not in ("intent", "body", "decision")]
_DECIDED = [name for name in m.IntentDecided.__slots__ if name not in ("intent", "body")]
"""What a row holds of a head and of a decision, in this order; the others stand in its key and in the body's row."""

Rows = dict[bytes, bytes | None]
"""Rows not yet written; None deletes."""


class Pending:
    """What one fact changes, over what the batch has changed before it. Kept apart until its folding has succeeded."""

    def __init__(self, before: Rows) -> None:
        self.before = before
        self.new: Rows = {}

    def row(self, db: Any, key: bytes) -> bytes | None:
        for rows_ in (self.new, self.before):
            if key in rows_:
                return rows_[key]
        found: bytes | None = db.get(key)
        return found

    def under(self, prefix: bytes) -> Rows:
        return {key: row for rows_ in (self.before, self.new) for key, row in rows_.items() if key.startswith(prefix)}


def head_key(intent: str) -> bytes:
    return HEAD + intent.encode()


def body_key(intent: str) -> bytes:
    return BODY + intent.encode()


def index_prefix(index: bytes, name: str) -> bytes:
    return b"x%b%b\0" % (index, name.encode())


def index_place(asked_ms: int, intent: str) -> bytes:
    """The part of an index key behind its prefix: the same in every index, hence a cursor."""
    return (_TIME_MAX - asked_ms).to_bytes(8, "big") + intent.encode()


# heads


def pack_head(head: Head) -> bytes:
    decision = head.decision
    decided = None if decision is None else [getattr(decision, name) for name in _DECIDED]
    return _packed([decided, *(getattr(head, name) for name in _KEPT)])


def _packed(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=_listed).encode()


def _listed(thing: Any) -> object:
    """Ranges as their spans, a record as the list of its fields."""
    return thing.spans if isinstance(thing, Ranges) else [getattr(thing, name) for name in thing.__slots__]


def unpack_head(intent: IntentId, row: bytes, body: m.TransferIntent | None) -> Head:
    decided, chain, closed, asked_ms, last_ms, files, size, sides, open_, kept, datasets, answers = json.loads(row)
    decision = None
    if decided is not None and body is not None:
        no, verdict, source, source_no, priority, why = decided
        decision = m.IntentDecided(
            intent,
            no,
            m.Verdict(verdict),
            body,
            None if source is None else Site(source),
            source_no,
            priority,
            None if why is None else _reason(why),
        )
    return Head(
        intent,
        body,
        decision,
        Chain(*chain),
        closed,
        asked_ms,
        last_ms,
        files,
        size,
        tuple(
            Side(Destination(where), no, Ranges(map(tuple, spans)), *numbers) for where, no, spans, *numbers in sides
        ),
        open_,
        kept,
        tuple(datasets),
        tuple(SiteAnswer(Site(site), no, m.Answer(said), Text(by), Text(why)) for site, no, said, by, why in answers),
    )


def _reason(words: list[str]) -> m.Reason:
    scope, failure_class, phase, text = words
    return m.Reason(m.Scope(scope), m.FailureClass(failure_class), phase, Text(text))


V = TypeVar("V")


def _coded(cls: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """A record to a row and back: JSON of its fields by name."""
    write, read = avro.writer(cls), avro.reader(cls)
    return lambda value: _packed(write(value)), lambda row: read(json.loads(row))


pack_body, unpack_body = _coded(m.TransferIntent)


# cells


class CellRows(Generic[V]):
    """One kind of an intent's cells, over what is written and what will be with the next batch."""

    def __init__(
        self,
        db: Any,
        pending: Pending,
        prefix: bytes,
        pack: Callable[[V], bytes],
        unpack: Callable[[bytes], V],
    ) -> None:
        self._db, self._pending, self._prefix = db, pending, prefix
        self._pack, self._unpack = pack, unpack

    def __contains__(self, key: str) -> bool:
        return self._pending.row(self._db, self._prefix + key.encode()) is not None

    def get(self, key: str) -> V | None:
        row = self._pending.row(self._db, self._prefix + key.encode())
        return None if row is None else self._unpack(row)

    def put(self, key: str, value: V) -> None:
        self._pending.new[self._prefix + key.encode()] = self._pack(value)

    def delete(self, key: str) -> None:
        self._pending.new[self._prefix + key.encode()] = None

    def items(self) -> Iterator[tuple[str, V]]:
        found: Rows = dict(rows.scan(self._db, self._prefix))
        found |= self._pending.under(self._prefix)
        for key, row in sorted(found.items()):
            if row is not None:
                yield key[len(self._prefix) :].decode(), self._unpack(row)


def cells(db: Any, intent: str, pending: Pending | None = None) -> Cells:
    """The cells of one intent. What is put or deleted goes into `pending`."""
    over = pending or Pending({})

    def rows_of(kind: bytes, pack: Callable[[Any], bytes], unpack: Callable[[bytes], Any]) -> Any:
        return CellRows(db, over, b"k%b\0%b" % (intent.encode(), kind), pack, unpack)

    return Cells(
        rows_of(b"c", *_LINK),
        rows_of(b"z", *_SIZED),
        rows_of(b"y", *_EARLY),
        rows_of(b"u", _pack_failed, _unpack_failed),
        rows_of(b"p", *_REPORT),
        rows_of(b"m", *_REMOVAL),
    )


_LINK, _SIZED, _EARLY = _coded(Link), _coded(Sized), _coded(Early)
_REPORT, _REMOVAL = _coded(m.TransferReported), _coded(m.RemovalReported)
_write_group, _read_group = avro.writer(m.FailedItems), avro.reader(m.FailedItems)


def _pack_failed(failed: Failed) -> bytes:
    return _packed([failed.place, [_write_group(group) for group in failed.groups]])


def _unpack_failed(row: bytes) -> Failed:
    place, groups = json.loads(row)
    return Failed(tuple(_read_group(group) for group in groups), place)
