"""Parquet files: row groups are the pieces, and the footer (footer.py) tells what is in them."""

from __future__ import annotations

from streams.events.checked_file import CheckedFile
from streams.events.entries import path_kind
from streams.events.formats.entry_format import EntryFormat, opened_by

_MAGIC = (b"PAR1", b"PARE")
_TABLES_OF_TEXT = ("csv", "tsv")
"""Such a file may begin with a column of that name: it is Parquet if it ends like one too."""


def _begins(head: bytes, file: CheckedFile) -> bool:
    if head[:4] not in _MAGIC:
        return False
    return path_kind(file.path) not in _TABLES_OF_TEXT or file.pread(file.bytes - 4, file.bytes) == head[:4]


FORMAT = EntryFormat(
    "Parquet", ("parquet",), opened_by("streams.events.formats.parquet.entries", "ParquetEntries"), _begins
)
