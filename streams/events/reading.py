"""Opening a file for its entries: its format is told by its first bytes, or by its name where those say nothing.

with open_entries("events.root", EventSelection.parse("Events{Muon_*}")) as entries:
    for start, stop in entries.cuts(256 * 1024):
        batch = entries.read(start, stop)

Which formats there are, and how each is recognised, is theirs to say: `streams.events.formats`.
"""

from __future__ import annotations

from collections.abc import Sequence

from streams.core.names import shown
from streams.core.selections.entries import EventSelection
from streams.errors import data_bad, permanent
from streams.events import formats
from streams.events.checked_file import NOT_SUPPORTED, CheckedFile, unsupported
from streams.events.entries import Entries, path_kind
from streams.events.formats.entry_format import EntryFormat
from streams.events.packing import HEAD_BYTES, other_packing_of, packing_of


def open_entries(path: str, selection: EventSelection, *, version: str | None = None) -> Entries:
    """The entries of the file at `path`; with `version`, only that one (as `streams.storage` tells versions).

    Raises StorageError: permanent for what the file does not hold, data-bad for a file that is not what it seems.
    """
    file = CheckedFile(path, version)
    try:
        found = _format(file)
        refuse_options(selection, found.options, file.path)
        return found.open(file, selection)
    except BaseException:
        file.close()
        raise


def _format(file: CheckedFile) -> EntryFormat:
    """By the first bytes; where they say nothing, by the name's end."""
    head, end = file.pread(0, HEAD_BYTES), path_kind(file.path)
    for one in formats.FORMATS:
        if one.begins is not None and one.begins(head, file):
            return one
    magic = head[:4]
    packing = packing_of(head) or other_packing_of(head)
    if packing is not None or magic == b"PK\x03\x04":
        as_what = f"compressed with {packing}" if packing else "a zip archive"
        what = f"{NOT_SUPPORTED}entries of a file that is {as_what}"
        raise unsupported(what, file.path, "unpack it first, or transfer the whole file")
    promised = next((one for one in formats.FORMATS if end in one.ends), None)
    if promised is None:
        names = [one.name for one in formats.FORMATS]
        what, then = "no format of entries is known for this file", f"{', '.join(names[:-1])} and {names[-1]} are"
        raise permanent(what, file.path, then)
    if promised.begins is None:
        return promised
    seen = f"it begins with {shown(ascii(magic)[2:-1])!r}" if magic else "it is empty"
    raise data_bad(f"not a {promised.name} file: {seen}", file.path, "fetch it again from its source")


def refuse_options(selection: EventSelection, known: Sequence[str], path: str) -> None:
    """Raises StorageError, permanent, for options that this kind of file has no use for."""
    strange = next((name for name, _ in selection.text.told() if name not in known), None)
    if strange is not None:
        raise permanent(f"the option {strange} means nothing for such a file", path, "leave it out")
