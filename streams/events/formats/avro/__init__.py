"""Avro container files: records in blocks. Not here: the project's own facts, which are Avro too (`streams.wire`)."""

from __future__ import annotations

from streams.core.selections.entries import EventSelection
from streams.events.checked_file import CheckedFile
from streams.events.entries import Entries
from streams.events.formats.entry_format import EntryFormat


def _begins(head: bytes, file: CheckedFile) -> bool:
    return head[:4] == b"Obj\x01"


def _open(file: CheckedFile, selection: EventSelection) -> Entries:
    from streams.events.formats.avro.entries import AvroEntries

    return AvroEntries(file, selection)


FORMAT = EntryFormat("Avro", ("avro",), _open, _begins)
