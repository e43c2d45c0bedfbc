"""Final files as Arrow IPC: a record batch for each table."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streams.events.batches import Compression
from streams.events.final_files.final_file import FinalFile, FinalFormat
from streams.events.final_files.sink import Sink, metadata_in, stored_schema


class ArrowFile(FinalFile):
    def __init__(self, fd: int, schema: pa.Schema, compression: Compression) -> None:
        self._sink, self._schema = Sink(fd), schema
        options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
        self._writer = pa.ipc.new_file(self._sink, schema, options=options)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(pa.Table.from_arrays(table.columns, schema=self._schema))

    def close(self) -> tuple[int, int]:
        self._writer.close()
        self._sink.drain()
        return self._sink.bytes, self._sink.adler

    def abandon(self) -> None:
        self._sink.dead = True
        self._writer.close()


def _create(
    fd: int, path: str, schema: pa.Schema, tree: str, metadata: Mapping[str, str], compression: Compression
) -> FinalFile:
    return ArrowFile(fd, stored_schema(schema, metadata), compression)


def _metadata_of(path: str) -> dict[str, str]:
    with pa.memory_map(path) as mapped, pa.ipc.open_file(mapped) as reader:
        return metadata_in(reader.schema)


FORMAT = FinalFormat("arrow", b"ARROW1", _create, _metadata_of)
