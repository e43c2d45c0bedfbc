"""How the views' RocksDB is laid out: keys, and rows of files and totals to bytes and back. No decision is here.

    f LFN                    row of a file: one line per (dataset, site, endpoint) that ever held it
    b DATASET#BLOCK \\0 LFN   empty: the listing of a block, in order
    t DATASET#BLOCK          totals of a block; likewise  d DATASET
    s SITE \\0 WRITER \\0 …    an announcement (sites.py)
    c, q, g, e, n, i …       chains of keeping and removals (keeping.py)
    o TOPIC \\0 PARTITION     next offset to read (view.py);  ! the stamps
    h, j, k, x …             intents (intent_rows.py)

Rows hold names without control characters only, so these can separate. Lines are sorted: two views that heard the same
facts hold equal bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from rocksdict import AccessType, BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch

T = TypeVar("T")
FILE, MEMBER, BLOCK, DATASET, SITE, OFFSET, STAMP = b"f", b"b", b"t", b"d", b"s", b"o", b"!stamp"
INTENTS_STAMP = b"!intents"

_AND = "\x1f"
ALL = ""
"""Key of a totals row's line over all sites: files known, each counted once."""


class Entry(NamedTuple):
    """A site's replica of a file in a dataset, at one of its endpoints. `block` without the dataset.

    `words`: those that stand; without one it is lost, and remembered. `taken`: those taken back, which say nothing when
    they are said again. Both sorted (core/keeping/words.py).
    """

    dataset: str
    site: str
    endpoint: str
    block: str
    bytes: int
    adler32: str
    version: str
    owner: str = ""
    words: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        return bool(self.words)


class Total(NamedTuple):
    files: int
    bytes: int

    def plus(self, files: int, size: int) -> Total:
        return Total(self.files + files, self.bytes + size)


NOTHING = Total(0, 0)
Totals = dict[str, Total]


def file_key(lfn: str) -> bytes:
    return FILE + lfn.encode()


def member_key(dataset: str, block: str, lfn: str) -> bytes:
    return b"b%b#%b\0%b" % (dataset.encode(), block.encode(), lfn.encode())


def block_key(dataset: str, block: str) -> bytes:
    return b"t%b#%b" % (dataset.encode(), block.encode())


def dataset_key(dataset: str) -> bytes:
    return DATASET + dataset.encode()


def offset_key(topic: str, partition: int) -> bytes:
    return b"o%b\0%d" % (topic.encode(), partition)


def pack_file(entries: Collection[Entry]) -> bytes:
    ordered = entries if len(entries) == 1 else sorted(entries)
    return "\n".join(
        f"{e.dataset}\t{e.site}\t{e.endpoint}\t{e.block}\t{e.bytes}\t{e.adler32}\t{e.version}\t{e.owner}"
        f"\t{_AND.join(e.words)}\t{_AND.join(e.taken)}"
        for e in ordered
    ).encode()


def unpack_file(row: bytes | None) -> tuple[Entry, ...]:
    if not row:
        return ()
    return tuple(
        Entry(dataset, site, endpoint, block, int(size), adler32, version, owner, _each(words), _each(taken))
        for dataset, site, endpoint, block, size, adler32, version, owner, words, taken in (
            line.split("\t") for line in row.decode().split("\n")
        )
    )


def _each(joined: str) -> tuple[str, ...]:
    return tuple(joined.split(_AND)) if joined else ()


def pack_totals(totals: Totals) -> bytes:
    return "\n".join(f"{site}\t{t.files}\t{t.bytes}" for site, t in sorted(totals.items()) if t.files).encode()


def unpack_totals(row: bytes | None) -> Totals:
    if not row:
        return {}
    lines = (line.split("\t") for line in row.decode().split("\n"))
    return {site: Total(int(files), int(size)) for site, files, size in lines}


def scan(db: Any, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Keys that start with `prefix`, from `start` on, with their rows.

    No upper bound is given to RocksDB: rocksdict lets it dangle once the ReadOptions are collected (a scan of seven
    keys then yielded two).
    """
    for key, row in db.items(from_key=start or prefix):
        if not key.startswith(prefix):
            return
        yield key, row


def write(db: Any, changed: Mapping[bytes, bytes | None]) -> None:
    """Put these rows, all or none; None deletes."""
    batch = WriteBatch(raw_mode=True)
    for key, row in changed.items():
        if row is None:
            batch.delete(key)
        else:
            batch.put(key, row)
    db.write(batch)


def options(*, secondary: bool = False) -> Options:
    """16 MB of cache, two write buffers of 8 MB. A secondary must keep its files open (RocksDB's rule)."""
    table = BlockBasedOptions()
    table.set_block_cache(Cache(16 << 20))
    table.set_cache_index_and_filter_blocks(True)
    table.set_bloom_filter(10, False)
    chosen = Options(raw_mode=True)
    chosen.create_if_missing(not secondary)
    chosen.set_block_based_table_factory(table)
    chosen.set_compression_type(DBCompressionType.lz4())
    chosen.set_write_buffer_size(8 << 20)
    chosen.set_max_write_buffer_number(2)
    chosen.set_max_open_files(-1 if secondary else 256)
    chosen.set_max_background_jobs(2)
    chosen.set_keep_log_file_num(2)
    chosen.set_max_total_wal_size(32 << 20)
    return chosen


def batched(many: Iterable[T], size: int) -> Iterator[list[T]]:
    """So many at a time, for one look-up of all."""
    ordered = iter(many)
    while some := list(islice(ordered, size)):
        yield some


def open_primary(path: str) -> Any:
    """The one writer of a view's directory; a second one is refused by RocksDB's lock."""
    return Rdict(path, options())


def open_secondary(path: str, scratch: str) -> Any:
    """A reader in another process; sees new writes after `try_catch_up_with_primary`."""
    return Rdict(path, options(secondary=True), access_type=AccessType.secondary(scratch))
