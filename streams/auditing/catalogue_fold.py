"""A catalogue folded from the journals of replicas as a view folds them, and a worker's view held against it.

A view's rows and the offsets behind them are written together: at whatever moment it is looked at, it is the fold of
the records before its own offsets. So it needs no rest to be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from streams import wire
from streams.auditing.table_comparing import Comparison, Fault, RowDifference, TableTally, merged
from streams.core.ledger.findings import LogPosition
from streams.core.names import Site
from streams.core.records import FilesHeld, FilesLost, word_of
from streams.core.topics import REPLICAS, LogPartition, partition_of, with_copies
from streams.errors import WireError
from streams.kafka.reader import Record
from streams.views import marks, rows
from streams.views.folding import Changes

TABLES: Mapping[str, bytes] = {
    "replicas": rows.FILE,
    "listings": rows.MEMBER,
    "block totals": rows.BLOCK,
    "dataset totals": rows.DATASET,
}
"""The tables of a catalogue, by how their keys begin."""
_LAST = b"~"
"""A key of the last record of a file or a dataset, which no view has."""
_FILES_MAX = 2_000
"""Files changed in memory before they are written."""


class CatalogueFold:
    """Hears records of replicas, each partition in its order; `db` is a database of views, and nothing else's."""

    def __init__(self, db: Any) -> None:
        self.db = db
        self._changes = Changes(db)

    def hear(self, record: Record, read_at: Site) -> None:
        """The next record of a partition, read at a site's cluster."""
        with suppress(WireError):  # the site's workers file it as a dead letter
            heard = wire.decode(record.topic, record.key, record.value, record.headers, read_at)
            match heard.message:
                case FilesHeld():
                    self._changes.hold(heard.message, word_of(heard.message, heard.origin))
                    names = [str(file.lfn) for file in heard.message.files]
                case FilesLost():
                    self._changes.lose(heard.message)
                    names = [str(lfn) for lfn in heard.message.lfns]
                case _:
                    return
            packed = f"{record.topic}\0{record.partition}\0{record.offset}".encode()
            for name in (*names, str(heard.message.dataset)):
                self._changes.extra[_LAST + name.encode()] = packed
        if self._changes.touched >= _FILES_MAX:
            self.write()

    def write(self) -> None:
        """All that was heard is in the database."""
        self._changes.write()
        self._changes = Changes(self.db)

    def last(self, name: str, site: Site) -> LogPosition | None:
        """The last record that spoke of a file or of a dataset."""
        packed = self.db.get(_LAST + name.encode())
        if packed is None:
            return None
        topic, partition, offset = packed.decode().split("\0")
        return LogPosition(site, topic, int(partition), int(offset))


def places_of(view: Any, peers: tuple[Site, ...], partitions: int) -> dict[LogPartition, int]:
    """How far a view has read the journals of replicas: the next offset of each partition."""
    found = {}
    for topic in with_copies([REPLICAS], peers):
        for partition in range(partitions):
            found[topic, partition] = marks.offset_of(view.get(rows.offset_key(topic, partition))) or 0
    return found


def compare_view(
    fold: CatalogueFold,
    view: Any,
    of: str,
    site: Site,
    partitions: int,
    read: Mapping[LogPartition, int],
    comparison: Comparison,
) -> None:
    """A view, as it stood when `read` was taken of it, against the fold of the records before these offsets."""
    for table, prefix in TABLES.items():
        tally = TableTally(site, table, of)
        comparison.tallies.append(tally)
        for key, wanted, row in merged(_rows(fold.db, prefix), _rows(view, prefix)):
            tally.compared += 1
            if wanted == row:
                continue
            name = key[len(prefix) :].decode(errors="replace")
            subject, partition = _subject(table, name, wanted or row or b"", partitions)
            heard = fold.last(subject, site)
            put = None
            if heard is not None:
                put = LogPosition(site, heard.topic, heard.partition, read.get((heard.topic, heard.partition), 0) - 1)
            fault = Fault.MISSING if row is None else Fault.UNEXPECTED if wanted is None else Fault.CHANGED
            shown = name.replace("\0", " ")
            comparison.differs(tally, RowDifference(site, table, partition, shown, fault, of, (), heard, put))


def _rows(db: Any, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    return rows.scan(db, prefix)


def _subject(table: str, name: str, row: bytes, partitions: int) -> tuple[str, int]:
    """The file or dataset whose last record made a row, and the partition that its dataset's facts stand in."""
    if table == "replicas":
        first = row.split(b"\t", 1)[0].decode(errors="replace")
        return name, partition_of(first, partitions)
    dataset = name.partition("#")[0]
    return (name.partition("\0")[2] if table == "listings" else dataset), partition_of(dataset, partitions)
