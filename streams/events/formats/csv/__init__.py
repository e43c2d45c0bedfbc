"""CSV, and TSV: where rows end is lines.py, which types columns have columns.py. Only the file's name tells it."""

from __future__ import annotations

from streams.core.selections.entries import EventSelection
from streams.events.checked_file import CheckedFile
from streams.events.entries import Entries
from streams.events.formats.entry_format import EntryFormat


def _open(file: CheckedFile, selection: EventSelection) -> Entries:
    from streams.events.formats.csv.entries import CsvEntries

    return CsvEntries(file, selection)


FORMAT = EntryFormat("CSV", ("csv", "tsv"), _open, options=("encoding", "quote", "separator"))
