"""One SHA-256 a table and partition, over rows folded from the journals that an auditor reads, by key.

Folded rows, not those of the audit's index: an index names things by numbers in the order in which it met them, and
keys its hashes by a secret. A folded row is canonical, and a function of the records alone, in whatever order topics
come and however often a mirror repeats them. So who reads the same records has the same digests:

    intents      as every site has them, without what a site's own destination reported: from any cluster
    replicas     of each file what sites said of it, by the partition of its dataset: from any cluster
    transfers    of one site, from its own cluster: no mirror copies what they are made of
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from typing import NamedTuple

from streams.auditing.catalogue_fold import CatalogueFold
from streams.auditing.table_fold import TableFold, place_of
from streams.core import topics
from streams.core.names import Site
from streams.core.topics import is_requests, partition_of, split
from streams.kafka.reader import Record
from streams.views import rows as views
from streams.views import scratch
from streams.worker.rows import OPEN


class TableDigest(NamedTuple):
    """`site`: whose transfers; "" of what every site has. `sha256` (hex) over so many rows."""

    table: str
    site: str
    partition: int
    rows: int
    sha256: str


class _Sums:
    """Of one table: a hash for each partition, over (key, row) in the order given."""

    def __init__(self, partitions: int) -> None:
        self._sums = [sha256() for _ in range(partitions)]
        self._rows = [0] * partitions

    def add(self, partition: int, key: bytes, row: bytes) -> None:
        self._sums[partition].update(b"%d:%b%d:%b" % (len(key), key, len(row), row))
        self._rows[partition] += 1

    def told(self, table: str, site: str) -> Iterator[TableDigest]:
        for partition, (rows, summed) in enumerate(zip(self._rows, self._sums, strict=True)):
            if rows:
                yield TableDigest(table, site, partition, rows, summed.hexdigest())


class TableDigests:
    """Hears records, each partition in its order. What they are folded into goes away with `opened`."""

    def __init__(self, opened: ExitStack, partitions: int) -> None:
        self._db = opened.enter_context(scratch.database())
        self._partitions = partitions
        self._intents = TableFold(self._db, None, partitions, prefix=b"i")
        self._transfers: dict[Site, TableFold] = {}
        self._replicas = CatalogueFold(opened.enter_context(scratch.database()))

    def hear(self, site: Site, record: Record) -> None:
        """The next record of a partition of a journal, read at a site's cluster."""
        writer, base = split(record.topic)
        if base in topics.OF_INTENTS:
            self._intents.hear(record, site)
        elif base == topics.REPLICAS:
            self._replicas.hear(record, site)
        elif writer is None and (base in (topics.TRANSFERS, topics.CHUNK_EVENTS) or is_requests(base)):
            if site not in self._transfers:
                self._transfers[site] = TableFold(self._db, site, self._partitions, prefix=f"t{site}\0".encode())
            self._transfers[site].hear(record, site)

    def told(self) -> list[TableDigest]:
        """Of each partition that has rows."""
        found = [*self._folded(self._intents, "intents", "")]
        for site, fold in sorted(self._transfers.items()):
            found += self._folded(fold, "transfers", site)
        self._replicas.write()
        sums = _Sums(self._partitions)
        for key, row in views.scan(self._replicas.db, views.FILE):
            lines: dict[int, list[bytes]] = {}
            for line in row.split(b"\n"):
                dataset = line.split(b"\t", 1)[0].decode()
                lines.setdefault(partition_of(dataset, self._partitions), []).append(line)
            for partition, some in sorted(lines.items()):
                sums.add(partition, key[len(views.FILE) :], b"\n".join(some))
        return [*found, *sums.told("replicas", "")]

    def _folded(self, fold: TableFold, table: str, site: str) -> Iterator[TableDigest]:
        sums = _Sums(self._partitions)
        for raw, row in fold.table(table):
            partition, key = place_of(raw)
            if not key.startswith(OPEN):  # what a site may owe is its own
                sums.add(partition, key.encode(), row)
        return sums.told(table, site)
