"""Row codec and the four tables' names; what a table must offer. No Faust here: the simulation keeps rows in dicts.

A row is JSON of its dataclass: canonical (I8: byte-equal after a replay), readable in a changelog, no schema
registry of its own. When a row's fields change, `table_version` is bumped and journals are folded anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from streams import avro
from streams.core.intent import IntentRow
from streams.core.transfer import TransferRow

ROW_BYTES_MAX = 900_000
"""Faust dies on a put near 1 MB and commits past it."""

NAMES = ("intents", "waiting", "transfers", "manifests")


class Table(Protocol):
    """Rows of the partition at hand."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, row: bytes) -> None: ...

    def delete(self, key: str) -> None: ...


@dataclass(frozen=True)
class Tables:
    intents: Table
    waiting: Table
    transfers: Table
    manifests: Table


def encode(row: IntentRow | TransferRow) -> bytes:
    plain = avro.writer(IntentRow)(row) if isinstance(row, IntentRow) else avro.writer(TransferRow)(row)
    return json.dumps(plain, separators=(",", ":")).encode()


def intent_row(raw: bytes | None) -> IntentRow | None:
    row: IntentRow | None = None if raw is None else avro.reader(IntentRow)(json.loads(raw))
    return row


def transfer_row(raw: bytes | None) -> TransferRow | None:
    row: TransferRow | None = None if raw is None else avro.reader(TransferRow)(json.loads(raw))
    return row
