"""Final files of entries as something tables are put into: Parquet, Arrow IPC, ROOT. Which tables is writing.py's.

No date, no name of a machine or a user is written: equal tables make equal files.
"""

from __future__ import annotations

import errno
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from streams.events.batches import ZSTD_LEVEL, Compression
from streams.events.root_writing import RootFile
from streams.storage import syscalls
from streams.storage.checksums import ADLER32_EMPTY, adler32

Kind = Literal["parquet", "arrow", "root"]
_READ_BYTES = 1 << 20
_WRITE_BYTES = 1 << 20


class FinalFile(ABC):
    """An open descriptor that becomes a file; the caller opens, syncs and closes it.

    Whatever the disk says is an OSError. After one, or for a file that is not wanted any more, `abandon`.
    """

    @abstractmethod
    def write(self, table: pa.Table) -> None:
        """A row group; its columns are in one piece each."""

    @abstractmethod
    def close(self) -> tuple[int, int]:
        """End the file: its bytes and their adler32."""

    @abstractmethod
    def abandon(self) -> None: ...


def final_file(
    kind: Kind, fd: int, path: str, schema: pa.Schema, tree: str, metadata: Mapping[str, str], compression: Compression
) -> FinalFile:
    """`path` is only for errors; `tree` only ROOT files name."""
    if kind == "root":
        return _Root(fd, path, schema, tree, metadata, compression)
    return (_Parquet if kind == "parquet" else _Arrow)(_Sink(fd), stored_schema(schema, metadata), compression)


def stored_schema(schema: pa.Schema, more: Mapping[str, str]) -> pa.Schema:
    """With its own metadata and more, in an order that does not depend on who sent it."""
    metadata = {**(schema.metadata or {}), **{key.encode(): value.encode() for key, value in more.items()}}
    fields = [field.with_metadata(_sorted(field.metadata)) if field.metadata else field for field in schema]
    return pa.schema(fields, _sorted(metadata))


class _Parquet(FinalFile):
    def __init__(self, sink: _Sink, schema: pa.Schema, compression: Compression) -> None:
        self._sink, self._schema = sink, schema
        self._writer = pq.ParquetWriter(
            sink,
            schema,
            compression=compression,
            compression_level=ZSTD_LEVEL if compression == "zstd" else None,
            use_dictionary=_worded(schema),
        )

    def write(self, table: pa.Table) -> None:
        renamed = pa.Table.from_arrays(table.columns, schema=self._schema)
        self._writer.write_table(renamed, row_group_size=table.num_rows)

    def close(self) -> tuple[int, int]:
        self._writer.close()
        self._sink.drain()
        return self._sink.bytes, self._sink.adler

    def abandon(self) -> None:
        self._sink.dead = True
        self._writer.close()


class _Arrow(FinalFile):
    def __init__(self, sink: _Sink, schema: pa.Schema, compression: Compression) -> None:
        self._sink, self._schema = sink, schema
        options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
        self._writer = pa.ipc.new_file(sink, schema, options=options)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(pa.Table.from_arrays(table.columns, schema=self._schema))

    def close(self) -> tuple[int, int]:
        self._writer.close()
        self._sink.drain()
        return self._sink.bytes, self._sink.adler

    def abandon(self) -> None:
        self._sink.dead = True
        self._writer.close()


class _Root(FinalFile):
    def __init__(
        self, fd: int, path: str, schema: pa.Schema, tree: str, metadata: Mapping[str, str], compression: Compression
    ) -> None:
        self._fd, self._metadata = fd, metadata
        self._file = RootFile(fd, path, schema, tree, compression)

    def write(self, table: pa.Table) -> None:
        self._file.write(table)

    def close(self) -> tuple[int, int]:
        self._file.close(self._metadata)
        size, adler = 0, ADLER32_EMPTY
        while block := os.pread(self._fd, _READ_BYTES, size):  # it is not written front to back
            adler = adler32(block, adler)
            size += len(block)
        return size, adler

    def abandon(self) -> None:
        self._file.abandon()


class _Sink(io.RawIOBase):
    """A descriptor as a file that only grows, with its adler32. `drain` at the end writes what is still held.

    It goes past the page cache in large writes: nobody reads a final file back at once, and new pages are what writing
    costs most. Once `dead`, it takes everything and keeps nothing: Arrow's writers want to end their file even then.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._held = bytearray()
        self._written = 0
        self._uncached = True
        self.bytes = 0
        self.adler = ADLER32_EMPTY
        self.dead = False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.bytes

    def write(self, piece: Any, /) -> int:
        view = memoryview(piece).cast("B")
        self.bytes += len(view)
        if not self.dead:
            self.adler = adler32(view, self.adler)
            self._held += view
            if len(self._held) >= _WRITE_BYTES:
                self.drain()
        return len(view)

    def drain(self) -> None:
        held, self._held = memoryview(self._held), bytearray()
        try:
            while held:
                written = self._pwrite(held)
                self._written += written
                held = held[written:]
        except OSError:
            self.dead = True
            raise

    def _pwrite(self, held: memoryview) -> int:
        if self._uncached:
            try:
                return syscalls.pwrite_uncached(self._fd, held, self._written)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise
                self._uncached = False
        return os.pwrite(self._fd, held, self._written)


def _worded(schema: pa.Schema) -> list[str]:
    """Columns of words: numbers rarely repeat enough for a dictionary, and trying costs most of the writing."""
    words = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return [field.name for field in schema if any(known(field.type) for known in words)]


def _sorted(metadata: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return dict(sorted(metadata.items()))
