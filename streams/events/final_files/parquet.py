"""Final files as Parquet: a row group for each table."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from streams.events.batches import ZSTD_LEVEL, Compression
from streams.events.final_files.final_file import FinalFormat
from streams.events.final_files.sink import ArrowWritten, metadata_in


class ParquetFile(ArrowWritten):
    def __init__(
        self, fd: int, path: str, schema: pa.Schema, tree: str, metadata: Mapping[str, str], compression: Compression
    ) -> None:
        super().__init__(fd, schema, metadata)
        self._writer = pq.ParquetWriter(
            self._sink,
            self.schema,
            compression=compression,
            compression_level=ZSTD_LEVEL if compression == "zstd" else None,
            use_dictionary=_worded(schema),
        )

    def write(self, table: pa.Table) -> None:
        renamed = pa.Table.from_arrays(table.columns, schema=self.schema)
        self._writer.write_table(renamed, row_group_size=table.num_rows)


def _worded(schema: pa.Schema) -> list[str]:
    """Columns of words: numbers rarely repeat enough for a dictionary, and trying costs most of the writing."""
    words = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return [field.name for field in schema if any(known(field.type) for known in words)]


def _metadata_of(path: str) -> dict[str, str]:
    return metadata_in(pq.read_schema(path))


FORMAT = FinalFormat("parquet", b"PAR1", ParquetFile, _metadata_of)
