"""ROOT files: the entries of one tree, a TTree (ttree.py) or an RNTuple (rntuple.py)."""

from __future__ import annotations

from streams.core.selections.entries import EventSelection
from streams.events.checked_file import CheckedFile
from streams.events.entries import Entries
from streams.events.formats.entry_format import EntryFormat


def _begins(head: bytes, file: CheckedFile) -> bool:
    return head[:5] == b"root\0"  # a number of its version follows, where CSV would have a column's name


def _open(file: CheckedFile, selection: EventSelection) -> Entries:
    from streams.events.formats.root.entries import RootEntries

    return RootEntries(file, selection)


FORMAT = EntryFormat("ROOT", ("root",), _open, _begins)
