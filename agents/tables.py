"""The four Faust tables as `rows.Table`s: raw bytes, read by the key's own partition, put only inside a turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import faust

from agents import durable, rows
from agents.turn import intent_of, partition_of
from streams.errors import WireError


class FaustTable:
    """One table. Outside a turn only `get` and `scan` work; a put there is Faust's TypeError."""

    def __init__(self, app: faust.App, name: str, partitions: int, owner_of: Callable[[str], str]) -> None:
        self.partitions, self.owner_of = partitions, owner_of
        self.table = app.Table(
            name,
            partitions=partitions,
            key_type=bytes,
            value_type=bytes,
            options=durable.table_options(),
            help=f"{name} of this site",
        )

    def get(self, key: str) -> bytes | None:
        database = self._database(partition_of(self.owner_of(key), self.partitions))
        found: bytes | None = None if database is None else database.get(key.encode())
        return found

    def put(self, key: str, row: bytes) -> None:
        if len(row) > rows.ROW_BYTES_MAX:
            raise WireError(f"a row of {len(row):,} bytes, over {rows.ROW_BYTES_MAX:,}")
        self.table[key.encode()] = row

    def delete(self, key: str) -> None:
        if self.get(key) is not None:
            del self.table[key.encode()]

    def scan(self, partition: int) -> Iterator[tuple[str, bytes]]:
        """Every row of a partition this worker owns."""
        database = self._database(partition)
        if database is None:
            return
        for key, row in database.items():
            if not key.startswith(b"__faust"):
                yield key.decode(), row

    def _database(self, partition: int) -> Any:
        return self.table.data._dbs.get(partition)


def build(app: faust.App, partitions: int) -> dict[str, FaustTable]:
    """The tables, by the names that changelogs carry."""

    def itself(key: str) -> str:
        return key

    owners: dict[str, Callable[[str], str]] = {"waiting": intent_of}
    return {name: FaustTable(app, name, partitions, owners.get(name, itself)) for name in rows.NAMES}
