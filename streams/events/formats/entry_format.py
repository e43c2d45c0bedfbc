"""What a format of entries says of itself: its name, how a file of it is recognised, and how one is opened.

Such a description imports no library of its format: `open` does, at the first file that is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from streams.core.selections.entries import EventSelection
from streams.events.checked_file import CheckedFile
from streams.events.entries import Entries


@dataclass(frozen=True, slots=True)
class EntryFormat:
    """Files of a format with magic bytes are told by them alone, others by the end of their name."""

    name: str
    """For people."""
    ends: tuple[str, ...]
    """Ends of names that promise such a file, in lower case, without the dot."""
    open: Callable[[CheckedFile, EventSelection], Entries]
    """The entries of a file, which is closed with them. Raises what `open_entries` says."""
    begins: Callable[[bytes, CheckedFile], bool] | None = None
    """Whether the file is one, by its first bytes (`HEAD_BYTES` of packing.py, as far as there are); None: no magic."""
    options: tuple[str, ...] = ()
    """Of `TextFormat`, those that mean something here."""


def opened_by(module: str, name: str) -> Callable[[CheckedFile, EventSelection], Entries]:
    """What opens a file by a class of a module that is imported for the first one only, with the format's library."""

    def opened(file: CheckedFile, selection: EventSelection) -> Entries:
        entries: Entries = getattr(import_module(module), name)(file, selection)
        return entries

    return opened
