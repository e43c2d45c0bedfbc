"""The tables on RocksDB: rows by their own partition, keys in order, and whose fault it is when one fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.stores.rocksdb import RocksDBOptions
from faust.types import TP

from agents import changelogs, tables
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


class Store:
    """Faust's table, whose partitions are databases; the fact at hand lies in the partition of the key."""

    changelog_topic_name = "changelog"

    def __init__(self, databases: dict[int, Any]) -> None:
        self.data = SimpleNamespace(_dbs=databases, _db_for_partition=databases.__getitem__)
        self.data.set_persisted_offset = lambda place, offset: self.persisted.append((place, offset))
        self.persisted: list[tuple[TP, int]] = []

    def partition_for_key(self, key: bytes) -> int:
        return topics.partition_of(rows.owner_of(key.decode()), PARTITIONS)


class Changelogs:
    def __init__(self) -> None:
        self.puts: list[tuple[TP, bytes, bytes | None]] = []

    def put(self, place: TP, key: bytes, row: bytes | None, persisted: changelogs.Persisted) -> None:
        self.puts.append((place, key, row))
        persisted(place, len(self.puts))


@pytest.fixture
def table(tmp_path: Path) -> tables.FaustTable:
    """Of a worker that owns two partitions."""
    options = dict(tables.TABLE_OPTIONS)
    assert options.pop("driver") == "rocksdict"
    databases = {n: RocksDBOptions(**options, use_rocksdict=True).open(tmp_path / str(n)) for n in (PARTITION, OTHER)}
    store = Store(databases)
    app: Any = SimpleNamespace(Table=lambda *_, **__: store, producer=SimpleNamespace(changelogs=Changelogs()))
    return tables.FaustTable(app, "transfers", PARTITIONS, rows.owner_of)


class Broken:
    """A database on a disk that is gone."""

    def get(self, _key: bytes) -> bytes:
        raise Exception("IO error: No space left on device")

    def put(self, _key: bytes, _value: bytes) -> None:
        raise Exception("IO error: No space left on device")

    delete = get

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


def test_what_is_put_or_deleted_goes_to_the_changelog_of_its_partition(table: tables.FaustTable) -> None:
    table.put(x.MANIFEST, b"row")
    table.put(ELSEWHERE, b"other")
    table.delete(x.MANIFEST)
    table.delete(x.MANIFEST)
    mine, other = TP("changelog", PARTITION), TP("changelog", OTHER)
    assert table.app.producer.changelogs.puts == [
        (mine, x.MANIFEST.encode(), b"row"),
        (other, ELSEWHERE.encode(), b"other"),
        (mine, x.MANIFEST.encode(), None),
    ]
    assert table.table.persisted == [(mine, 1), (other, 2), (mine, 3)]
    del table.table.data._dbs[OTHER]
    table._persisted(other, 9)
    assert (other, 9) not in table.table.persisted, "a partition that went to another worker is not opened again"


def test_what_the_database_does_not_take_is_not_in_the_changelog(table: tables.FaustTable) -> None:
    table.table.data._dbs[PARTITION] = Broken()
    with pytest.raises(rows.TableFailed):
        table.put(x.MANIFEST, b"row")
    assert table.app.producer.changelogs.puts == []


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
