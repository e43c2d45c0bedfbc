"""The tables on RocksDB: rows by their own partition, keys in order, and whose fault it is when one fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.stores.rocksdb import RocksDBOptions

from agents import tables
from streams.core import topics
from streams.errors import WireError
from streams.worker import rows, turn
from tests.core import example as x
from tests.worker.rig import PARTITIONS

PARTITION = topics.partition_of(x.MANIFEST, PARTITIONS)
OTHER = (PARTITION + 1) % PARTITIONS
ELSEWHERE = next(
    one
    for one in (x.ManifestId.of(x.INTENT, 0, no) for no in range(99))
    if topics.partition_of(one, PARTITIONS) == OTHER
)


class Store(dict[bytes, bytes]):
    """Faust's table, whose partitions are databases."""

    def __init__(self, databases: dict[int, Any]) -> None:
        self.data = SimpleNamespace(_dbs=databases)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        of = rows.owner_of(key.decode())
        self.data._dbs[topics.partition_of(of, PARTITIONS)].put(key, value)

    def __delitem__(self, key: bytes) -> None:
        of = rows.owner_of(key.decode())
        self.data._dbs[topics.partition_of(of, PARTITIONS)].delete(key)


@pytest.fixture
def table(tmp_path: Path) -> tables.FaustTable:
    """Of a worker that owns two partitions."""
    options = dict(tables.TABLE_OPTIONS)
    assert options.pop("driver") == "rocksdict"
    databases = {n: RocksDBOptions(**options, use_rocksdict=True).open(tmp_path / str(n)) for n in (PARTITION, OTHER)}
    store = Store(databases)
    app: Any = SimpleNamespace(Table=lambda *_, **__: store)
    return tables.FaustTable(app, "transfers", PARTITIONS, rows.owner_of)


class Broken:
    """A database on a disk that is gone."""

    def get(self, _key: bytes) -> bytes:
        raise Exception("IO error: No space left on device")

    def put(self, _key: bytes, _value: bytes) -> None:
        raise Exception("IO error: No space left on device")

    def keys(self, *, from_key: bytes) -> Iterator[bytes]:
        yield from_key + b"one"
        raise Exception("Corruption: block checksum mismatch")


def test_a_row_is_read_from_its_own_partition(table: tables.FaustTable) -> None:
    table.put(x.MANIFEST, b"row")
    table.put(rows.open_key(x.MANIFEST), b"")
    assert table.get(x.MANIFEST) == b"row"
    assert table.get(rows.open_key(x.MANIFEST)) == b"", "an entry without content is there"
    assert table.get(ELSEWHERE) is None
    table.delete(x.MANIFEST)
    table.delete(x.MANIFEST)
    assert table.get(x.MANIFEST) is None
    table.table.data._dbs.clear()
    assert table.get(rows.open_key(x.MANIFEST)) is None, "not owned"
    assert list(table.keys(PARTITION, rows.OPEN)) == []


def test_keys_that_begin_so_come_in_order_as_they_were_at_the_first(table: tables.FaustTable) -> None:
    names = [x.ManifestId.of(x.INTENT, 0, no) for no in range(400)]
    mine = [name for name in names if topics.partition_of(name, PARTITIONS) == PARTITION]
    for name in mine[:-1]:
        table.put(name, b"row")
        table.put(rows.open_key(name), b"")
    for name in (name for name in names if topics.partition_of(name, PARTITIONS) == OTHER):
        table.put(rows.open_key(name), b"")
    found = table.keys(PARTITION, rows.OPEN)
    first = next(found)
    table.put(rows.open_key(mine[-1]), b"")
    table.delete(rows.open_key(mine[-2]))
    assert [first, *found] == sorted(map(rows.open_key, mine[:-1]))
    assert list(table.keys(PARTITION, "zzz")) == []


def test_what_a_database_raises_is_the_tables(table: tables.FaustTable) -> None:
    table.table.data._dbs[PARTITION] = Broken()
    with pytest.raises(rows.TableFailed, match=r"cannot be read.*No space left"):
        table.get(x.MANIFEST)
    with pytest.raises(rows.TableFailed, match=r"cannot be written.*No space left"):
        table.put(x.MANIFEST, b"row")
    with pytest.raises(rows.TableFailed, match="cannot be read"):
        table.delete(x.MANIFEST)
    found = table.keys(PARTITION, rows.OPEN)
    assert next(found) == "open/one"
    with pytest.raises(rows.TableFailed, match="checksum mismatch"):
        next(found)


def test_a_row_that_is_too_large_is_refused_and_no_fault_of_the_tables(table: tables.FaustTable) -> None:
    with pytest.raises(WireError, match="900,001 bytes"):
        table.put(x.MANIFEST, b"x" * (rows.ROW_BYTES_MAX + 1))
    assert table.get(x.MANIFEST) is None


def test_every_table_is_built_with_its_own_keys() -> None:
    app: Any = SimpleNamespace(Table=lambda *_, **__: Store({}))
    built = tables.build(app, PARTITIONS)
    assert tuple(built) == rows.NAMES
    assert built["waiting"].owner_of(turn.forget_key(x.INTENT)) == x.INTENT
    for name in ("intents", "transfers", "manifests"):
        assert built[name].owner_of(rows.open_key(x.MANIFEST)) == x.MANIFEST
