"""ROOT files: the entries of one tree, a TTree (ttree.py) or an RNTuple (rntuple.py)."""

from __future__ import annotations

from streams.events.checked_file import CheckedFile
from streams.events.formats.entry_format import EntryFormat, opened_by


def _begins(head: bytes, file: CheckedFile) -> bool:
    return head[:5] == b"root\0"  # a number of its version follows, where CSV would have a column's name


FORMAT = EntryFormat("ROOT", ("root",), opened_by("streams.events.formats.root.entries", "RootEntries"), _begins)
