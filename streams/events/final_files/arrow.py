"""Final files as Arrow IPC: a record batch for each table."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streams.events.batches import Compression
from streams.events.final_files.final_file import FinalFormat
from streams.events.final_files.sink import ArrowWritten, metadata_in


class ArrowFile(ArrowWritten):
    def __init__(
        self, fd: int, path: str, schema: pa.Schema, tree: str, metadata: Mapping[str, str], compression: Compression
    ) -> None:
        super().__init__(fd, schema, metadata)
        options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
        self._writer = pa.ipc.new_file(self._sink, self.schema, options=options)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(pa.Table.from_arrays(table.columns, schema=self.schema))


def _metadata_of(path: str) -> dict[str, str]:
    with pa.memory_map(path) as mapped, pa.ipc.open_file(mapped) as reader:
        return metadata_in(reader.schema)


FORMAT = FinalFormat("arrow", b"ARROW1", ArrowFile, _metadata_of)
