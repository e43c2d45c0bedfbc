"""CSV, and TSV: where rows end is lines.py, which types columns have columns.py. Only the file's name tells it."""

from __future__ import annotations

from streams.events.formats.entry_format import EntryFormat, opened_by

FORMAT = EntryFormat(
    "CSV",
    ("csv", "tsv"),
    opened_by("streams.events.formats.csv.entries", "CsvEntries"),
    options=("encoding", "quote", "separator"),
)
