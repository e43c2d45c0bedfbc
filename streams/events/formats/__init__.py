"""The formats of entries that can be read. A new one is a module here that describes itself, and its line below.

A format is a package where it has more than one idea to say: `entries` is what opens a file. `text` is what the formats
of lines share, and no format. Not here: what a format finds (entries.py), what is written (final_files/).
"""

from __future__ import annotations

from streams.events.formats import avro, csv, json_lines, parquet, root
from streams.events.formats.entry_format import EntryFormat

FORMATS: tuple[EntryFormat, ...] = (
    root.FORMAT,
    parquet.FORMAT,
    avro.FORMAT,
    csv.FORMAT,
    json_lines.FORMAT,
)
"""Those with magic bytes are asked in this order, and people are told of all in it."""
