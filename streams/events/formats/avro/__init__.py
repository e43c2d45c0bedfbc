"""Avro container files: records in blocks. Not here: the project's own facts, which are Avro too (`streams.wire`)."""

from __future__ import annotations

from streams.events.checked_file import CheckedFile
from streams.events.formats.entry_format import EntryFormat, opened_by


def _begins(head: bytes, file: CheckedFile) -> bool:
    return head[:4] == b"Obj\x01"


FORMAT = EntryFormat("Avro", ("avro",), opened_by("streams.events.formats.avro.entries", "AvroEntries"), _begins)
