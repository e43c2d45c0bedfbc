"""JSON lines: what values need of a type is values.py, which numbers may be in danger numbers.py. Told by its name."""

from __future__ import annotations

from streams.events.formats.entry_format import EntryFormat, opened_by

FORMAT = EntryFormat(
    "JSON lines",
    ("jsonl", "ndjson"),
    opened_by("streams.events.formats.json_lines.entries", "JsonLinesEntries"),
    options=("encoding",),
)
