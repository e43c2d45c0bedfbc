"""The four Faust tables as `rows.Table`s: raw bytes, read by the key's own partition, put only inside a turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import faust
from faust.types import TP

from streams.core.topics import partition_of
from streams.errors import WireError
from streams.worker import rows
from streams.worker.turn import intent_of

TABLE_OPTIONS = {
    "driver": "rocksdict",
    "block_cache_size": 4 << 20,
    "write_buffer_size": 4 << 20,
    "max_write_buffer_number": 2,
    "max_open_files": 128,
}
"""RocksDB of one table: 16 MB of cache and two buffers of 4 MB at most, where the default cache is 2 GiB."""


class FaustTable:
    """One table. Outside a turn only `get` and `keys` work; a put there is Faust's TypeError.

    What is put goes into the database and to the changelogs (changelogs.py), past the layers that Faust has for it.
    """

    def __init__(self, app: faust.App, name: str, partitions: int, owner_of: Callable[[str], str]) -> None:
        self.app, self.partitions, self.owner_of = app, partitions, owner_of
        self._places: dict[int, TP] = {}
        self.table = app.Table(
            name,
            partitions=partitions,
            key_type=bytes,
            value_type=bytes,
            options=dict(TABLE_OPTIONS),  # Faust takes words out of it
            help=f"{name} of this site",
        )

    def get(self, key: str) -> bytes | None:
        with _environment("read"):
            database = self._database(partition_of(self.owner_of(key), self.partitions))
            found: bytes | None = None if database is None else database.get(key.encode())
            return found

    def put(self, key: str, row: bytes) -> None:
        if len(row) > rows.ROW_BYTES_MAX:
            raise WireError(f"a row of {len(row):,} bytes, over {rows.ROW_BYTES_MAX:,}")
        self._write(key, row)

    def delete(self, key: str) -> None:
        if self.get(key) is not None:
            self._write(key, None)

    def _write(self, key: str, row: bytes | None) -> None:
        with _environment("written"):
            raw = key.encode()
            partition = self.table.partition_for_key(raw)  # that of the fact at hand; none outside a turn
            database = self.table.data._db_for_partition(partition)
            if row is None:
                database.delete(raw)
            else:
                database.put(raw, row)
            place = self._places.get(partition)
            if place is None:
                place = self._places[partition] = TP(self.table.changelog_topic_name, partition)
            self.app.producer.changelogs.put(place, raw, row, self._persisted)

    def _persisted(self, place: TP, offset: int) -> None:
        """The database has what the changelog has up to an offset. One that went to another worker is not touched."""
        if self._database(place.partition) is not None:
            self.table.data.set_persisted_offset(place, offset)

    def keys(self, partition: int, prefix: str) -> Iterator[str]:
        """Keys of a partition this worker owns that begin so, in order; what is put meanwhile is not seen."""
        first = prefix.encode()
        with _environment("read"):
            database = self._database(partition)
            found: Iterator[bytes] = iter(()) if database is None else database.keys(from_key=first)
        while True:
            with _environment("read"):
                key = next(found, None)
            if key is None or not key.startswith(first):
                return
            yield key.decode()

    def _database(self, partition: int) -> Any:
        return self.table.data._dbs.get(partition)


@contextmanager
def _environment(what: str) -> Iterator[None]:
    """RocksDB's binding raises plain Exceptions: whatever comes out of a table's call is the environment's."""
    try:
        yield
    except Exception as error:
        raise rows.TableFailed(f"a table cannot be {what}: {type(error).__name__}: {error}") from error


def build(app: faust.App, partitions: int) -> dict[str, FaustTable]:
    """The tables, by the names that changelogs carry."""
    owners: dict[str, Callable[[str], str]] = {"waiting": intent_of}
    return {name: FaustTable(app, name, partitions, owners.get(name, rows.owner_of)) for name in rows.NAMES}
