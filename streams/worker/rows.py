"""The four tables: their keys, row codecs, and what a table must offer. No Faust here: the simulation has dicts.

    intents      INTENT            row of an intent;          open/INTENT     it owes something, perhaps
    waiting      MANIFEST@SOURCE…  framed ManifestWritten of an intent that has not ended (turn.py)
    transfers    MANIFEST          row of a transfer;         open/MANIFEST   it is not closed, perhaps
    manifests    MANIFEST          framed ManifestWritten;    MANIFEST#index  its index, if it has many items

A row is JSON of its dataclass: canonical (I8: byte-equal after a replay), readable in a changelog, no schema
registry of its own. When a row's fields change, ROW_FORMAT (streams.settings) is raised: journals are folded anew.

The key of an open row stands once more under `open/`, so that waking reads no row that has ended. It is put before the
row and deleted after the row has ended, in the same table: what a crash leaves of a table is what was put up to some
moment, so an open row always has its entry, and an entry too many costs one look.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from streams.core.intent import IntentRow
from streams.core.manifest import Held, ManifestIndex
from streams.core.names import ManifestId
from streams.core.records import FailedItems, Unit
from streams.core.transfer import TransferRow
from streams.wire import avro

ROW_BYTES_MAX = 900_000
"""Faust dies on a put near 1 MB and commits past it."""

NAMES = ("intents", "waiting", "transfers", "manifests")
OPEN = "open/"
INDEX = "#index"


class TableFailed(Exception):
    """A table cannot be read or written: the environment's fault (a full disk), whatever record was at hand."""


class Table(Protocol):
    """Rows of the partition at hand. What is wrong with the store itself is a TableFailed."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, row: bytes) -> None: ...

    def delete(self, key: str) -> None: ...

    def keys(self, partition: int, prefix: str) -> Iterator[str]:
        """Keys of a partition that begin so, in order, as they were at the first of them."""
        ...


@dataclass(frozen=True)
class Tables:
    intents: Table
    waiting: Table
    transfers: Table
    manifests: Table


def open_key(key: str) -> str:
    return OPEN + key


def index_key(manifest: ManifestId) -> str:
    return manifest + INDEX


def owner_of(key: str) -> str:
    """The intent or manifest in whose partition a key of intents, transfers or manifests lies."""
    return key.removeprefix(OPEN).removesuffix(INDEX)


def encode(row: IntentRow | TransferRow) -> bytes:
    plain = avro.writer(IntentRow)(row) if isinstance(row, IntentRow) else avro.writer(TransferRow)(row)
    return json.dumps(plain, separators=(",", ":")).encode()


def intent_row(raw: bytes | None) -> IntentRow | None:
    row: IntentRow | None = None if raw is None else avro.reader(IntentRow)(json.loads(raw))
    return row


def transfer_row(raw: bytes | None) -> TransferRow | None:
    row: TransferRow | None = None if raw is None else avro.reader(TransferRow)(json.loads(raw))
    return row


def encode_index(index: ManifestIndex) -> bytes:
    plain: dict[str, Any] = {
        "unit": index.unit,
        "lengths": index.lengths.tolist(),
        "sizes": index.sizes.tolist(),
        "holders": [avro.writer(Held)(held) for held in index.holders],
        "unobtainable": [avro.writer(FailedItems)(group) for group in index.unobtainable],
        "sha256": index.sha256,
        "others": [avro.writer(Held)(held) for held in index.others],
    }
    return json.dumps(plain, separators=(",", ":")).encode()


def manifest_index(raw: bytes | None) -> ManifestIndex | None:
    if raw is None:
        return None
    plain = json.loads(raw)
    return ManifestIndex(
        Unit(plain["unit"]),
        array("q", plain["lengths"]),
        array("q", plain["sizes"]),
        tuple(avro.reader(Held)(held) for held in plain["holders"]),
        tuple(avro.reader(FailedItems)(group) for group in plain["unobtainable"]),
        plain["sha256"],
        tuple(avro.reader(Held)(held) for held in plain["others"]),
    )
