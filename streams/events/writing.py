"""The final file of an item of entries, written from its spool: Parquet, Arrow IPC, or ROOT (root_writing.py).

Not here: the final name (the caller renames the part), the spool's own file.

**The same entries give the same bytes**, whatever the order, the cuts and the repeats in which they came: so a seal
that is done again, or at another site, can be compared by adler32. Entries are put together in blocks of a number that
only the schema decides, a row group ends at the first block with which it is large enough, and no date or name of a
machine is written. (Other versions of the libraries may write other bytes: compare values then.)
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from streams.errors import StorageError
from streams.events.batches import ZSTD_LEVEL, Compression, fingerprint
from streams.events.root_writing import root_fault, write_root
from streams.events.spool import Spool
from streams.storage import oserrors
from streams.storage.checksums import ADLER32_EMPTY, adler32, adler32_hex

Kind = Literal["parquet", "arrow", "root"]

ROW_GROUP_BYTES = 32 * 1024 * 1024
"""Of Arrow's encoding: a row group is held in memory a few times over while it is written."""
ROW_GROUP_ENTRIES = 1 << 20
BLOCK_BYTES = 256 * 1024
"""What a block of entries should be: the grain of row groups."""
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which entries `[start, stop)` of which tree of which file the item is; written into the file."""

    lfn: str
    tree: str
    start: int
    stop: int

    def metadata(self, schema: pa.Schema) -> dict[str, str]:
        return {
            "transfer2go.columns": json.dumps(schema.names, ensure_ascii=False),
            "transfer2go.entries": f"{self.start}:{self.stop}",
            "transfer2go.lfn": self.lfn,
            "transfer2go.schema": fingerprint(schema),
            "transfer2go.tree": self.tree,
        }


@dataclass(frozen=True, slots=True)
class Sealed:
    """A whole file, durable under its part's name. `adler32`: 8 hex digits."""

    bytes: int
    adler32: str
    entries: int


def kind_fault(schema: pa.Schema, kind: Kind) -> str | None:
    """Why such a file cannot hold this schema, naming the column; None where it can (nulls are only seen later)."""
    return root_fault(schema) if kind == "root" else None


def seal(
    spool: Spool,
    kind: Kind,
    path: str,
    provenance: Provenance,
    *,
    schema: pa.Schema | None = None,
    compression: Compression = "zstd",
) -> Sealed:
    """Write entries `[0, stop - start)` of the spool to a new file at `path`, in entry order and flat memory.

    `schema` is needed for an item of no entries whose spool was told none. The file is synced; its name is the
    caller's to change and make durable. A file already there is written anew. StorageError: transient while entries
    are missing, permanent where the kind cannot hold a column (named), else of the disk; `PartLost` of the spool.
    """
    count = provenance.stop - provenance.start
    if not spool.whole(count):
        missing = spool.taken.missing(0, count)
        start, stop = missing.spans[0]
        raise StorageError(f"{missing.size} entries are not there yet, the first [{start}, {stop})", spool.path)
    told = spool.schema or schema
    if told is None:
        raise StorageError("no schema is known of an item without entries", spool.path, failure_class="permanent")
    fault = kind_fault(told, kind)
    if fault:
        raise StorageError(fault, path, "ask for parquet", failure_class="permanent")
    groups = row_groups(spool, told, count)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            bytes_, adler = _WRITERS[kind](Target(fd, path, told, provenance, compression), groups)
            _sync(fd, path)
        finally:
            os.close(fd)
    except OSError as error:
        raise oserrors.writing(error, path) from error
    except pa.ArrowException as error:
        what = f"cannot be written as {kind}: {str(error)[:200]}"
        raise StorageError(what, path, "ask for another kind", failure_class="permanent") from error
    return Sealed(bytes_, adler32_hex(adler), count)


def block_entries(schema: pa.Schema) -> int:
    """Entries of a block: a power of two that only the schema decides."""
    wanted = max(1, BLOCK_BYTES // max(1, sum(_guessed_bytes(field.type) for field in schema)))
    return int(min(1 << 16, max(64, 1 << (wanted.bit_length() - 1))))


def row_groups(spool: Spool, schema: pa.Schema, count: int) -> Iterator[pa.Table]:
    """The entries `[0, count)` in order, one contiguous table for each row group."""
    held: list[pa.RecordBatch] = []
    bytes_ = entries = 0
    for block in _blocks(spool, count, block_entries(schema)):
        held.append(block)
        # of a block that is encoded as if alone: slices, offsets and unused null bitmaps make no difference
        bytes_ += pa.ipc.get_record_batch_size(block)
        entries += block.num_rows
        if bytes_ >= ROW_GROUP_BYTES or entries >= ROW_GROUP_ENTRIES:
            yield _joined(held)
            held, bytes_, entries = [], 0, 0
    if held:
        yield _joined(held)


def _blocks(spool: Spool, count: int, entries: int) -> Iterator[pa.RecordBatch]:
    pieces: list[pa.RecordBatch] = []
    wanted = entries
    for batch in spool.read(0, count):
        at = 0
        while at < batch.num_rows:
            piece = batch.slice(at, wanted)
            pieces.append(piece)
            at += piece.num_rows
            wanted -= piece.num_rows
            if not wanted:
                yield pa.concat_batches(pieces)
                pieces, wanted = [], entries
    if pieces:
        yield pa.concat_batches(pieces)


def _joined(blocks: list[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(blocks).combine_chunks()


def _guessed_bytes(kind: pa.DataType) -> int:
    """Of a value: a list is taken to hold four."""
    types = pa.types
    if types.is_fixed_size_list(kind):
        return int(kind.list_size * _guessed_bytes(kind.value_type))
    if types.is_list(kind) or types.is_large_list(kind):
        return 4 + 4 * _guessed_bytes(kind.value_type)
    if kind.num_fields:
        return sum(_guessed_bytes(kind.field(at).type) for at in range(kind.num_fields))
    try:
        return int(kind.bit_width + 7) // 8
    except ValueError:
        return 16


class _Sink(io.RawIOBase):
    """A descriptor as a file that only grows, with its adler32.

    After a failure it takes everything and keeps nothing: the writers of Arrow want to end their file even then.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.bytes = 0
        self.adler = ADLER32_EMPTY
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.bytes

    def write(self, piece: Any, /) -> int:
        view = memoryview(piece).cast("B")
        size = len(view)
        self.bytes += size
        if self.error is None:
            self.adler = adler32(view, self.adler)
            try:
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError as error:
                self.error = error
                raise
        return size


@dataclass(frozen=True, slots=True)
class Target:
    """The open file of a seal, and what it is to hold."""

    fd: int
    path: str
    schema: pa.Schema
    provenance: Provenance
    compression: Compression

    def stored_schema(self) -> pa.Schema:
        """With its own metadata and ours, in an order that does not depend on who sent it."""
        metadata = dict(self.schema.metadata or {})
        ours = self.provenance.metadata(self.schema)
        metadata.update({key.encode(): value.encode() for key, value in ours.items()})
        fields = [
            field.with_metadata(dict(sorted(field.metadata.items()))) if field.metadata else field
            for field in self.schema
        ]
        return pa.schema(fields, dict(sorted(metadata.items())))


Writer = Callable[[Target, Iterator[pa.Table]], tuple[int, int]]


def _write_parquet(target: Target, groups: Iterator[pa.Table]) -> tuple[int, int]:
    stored = target.stored_schema()
    sink = _Sink(target.fd)
    with pq.ParquetWriter(
        sink,
        stored,
        compression=target.compression,
        compression_level=ZSTD_LEVEL if target.compression == "zstd" else None,
        use_dictionary=_worded(stored),
    ) as writer:
        for table in groups:
            writer.write_table(_renamed(table, stored), row_group_size=table.num_rows)
    return sink.bytes, sink.adler


def _write_arrow(target: Target, groups: Iterator[pa.Table]) -> tuple[int, int]:
    sink = _Sink(target.fd)
    stored = target.stored_schema()
    compression = None if target.compression == "none" else target.compression
    with pa.ipc.new_file(sink, stored, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for table in groups:
            writer.write_table(_renamed(table, stored))
    return sink.bytes, sink.adler


def _renamed(table: pa.Table, stored: pa.Schema) -> pa.Table:
    """The same columns under a schema that differs in metadata alone."""
    return pa.Table.from_arrays(table.columns, schema=stored)


def _write_root(target: Target, groups: Iterator[pa.Table]) -> tuple[int, int]:
    tree, metadata = target.provenance.tree, target.provenance.metadata(target.schema)
    write_root(target.fd, target.path, groups, target.schema, tree, metadata, target.compression)
    size, adler = 0, ADLER32_EMPTY
    while block := os.pread(target.fd, _READ_BYTES, size):  # it is not written front to back
        adler = adler32(block, adler)
        size += len(block)
    return size, adler


_WRITERS: Mapping[Kind, Writer] = {"parquet": _write_parquet, "arrow": _write_arrow, "root": _write_root}


def _worded(schema: pa.Schema) -> list[str]:
    """Columns of words: numbers rarely repeat enough for a dictionary, and trying costs most of the writing."""
    words = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return [field.name for field in schema if any(known(field.type) for known in words)]


def _sync(fd: int, path: str) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise oserrors.syncing(error, path) from error
