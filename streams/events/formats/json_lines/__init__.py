"""JSON lines: what values need of a type is values.py, which numbers may be in danger numbers.py. Told by its name."""

from __future__ import annotations

from streams.core.selections.entries import EventSelection
from streams.events.checked_file import CheckedFile
from streams.events.entries import Entries
from streams.events.formats.entry_format import EntryFormat


def _open(file: CheckedFile, selection: EventSelection) -> Entries:
    from streams.events.formats.json_lines.entries import JsonLinesEntries

    return JsonLinesEntries(file, selection)


FORMAT = EntryFormat("JSON lines", ("jsonl", "ndjson"), _open, options=("encoding",))
