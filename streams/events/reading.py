"""Opening a file for its entries: its format is told by its first bytes, or by its name where those say nothing.

with open_entries("events.root", EventSelection.parse("Events{Muon_*}")) as entries:
    for start, stop in entries.cuts(256 * 1024):
        batch = entries.read(start, stop)
"""

from __future__ import annotations

from collections.abc import Sequence

from streams.core.names import shown
from streams.core.selections.entries import EventSelection
from streams.errors import StorageError
from streams.events.checked_file import NOT_SUPPORTED, CheckedFile, unsupported
from streams.events.entries import Entries, path_kind
from streams.events.packing import HEAD_BYTES, other_packing_of, packing_of

_CSV = ("csv", "tsv")
_JSON = ("jsonl", "ndjson")


def open_entries(path: str, selection: EventSelection, *, version: str | None = None) -> Entries:
    """The entries of the file at `path`; with `version`, only that one (as `streams.storage` tells versions).

    Raises StorageError: permanent for what the file does not hold, data-bad for a file that is not what it seems.
    """
    file = CheckedFile(path, version)
    try:
        kind = _format(file)
        refuse_options(selection, kind.options, file.path)
        return kind(file, selection)
    except BaseException:
        file.close()
        raise


def _format(file: CheckedFile) -> type[Entries]:
    """By the first bytes; where they say nothing, by the name's end. Libraries are imported only as they are needed."""
    head, kind = file.pread(0, HEAD_BYTES), path_kind(file.path)
    magic = head[:4]
    if head[:5] == b"root\0":  # a number of its version follows, where CSV would have a column's name
        from streams.events.root import RootEntries

        return RootEntries
    if magic in (b"PAR1", b"PARE") and (kind not in _CSV or file.pread(file.bytes - 4, file.bytes) == magic):
        from streams.events.parquet import ParquetEntries

        return ParquetEntries
    if magic == b"Obj\x01":
        from streams.events.avro import AvroEntries

        return AvroEntries
    packing = packing_of(head) or other_packing_of(head)
    if packing is not None or magic == b"PK\x03\x04":
        as_what = f"compressed with {packing}" if packing else "a zip archive"
        what = f"{NOT_SUPPORTED}entries of a file that is {as_what}"
        raise unsupported(what, file.path, "unpack it first, or transfer the whole file")
    if kind in _CSV:
        from streams.events.csv_entries import CsvEntries

        return CsvEntries
    if kind in _JSON:
        from streams.events.json_entries import JsonLinesEntries

        return JsonLinesEntries
    known = {"root": "ROOT", "parquet": "Parquet", "avro": "Avro"}.get(kind)
    if known is None:
        what, then = "no format of entries is known for this file", "ROOT, Parquet, Avro, CSV and JSON lines are"
        raise StorageError(what, file.path, then, failure_class="permanent")
    seen = f"it begins with {shown(ascii(magic)[2:-1])!r}" if magic else "it is empty"
    raise StorageError(
        f"not a {known} file: {seen}", file.path, "fetch it again from its source", failure_class="data-bad"
    )


def refuse_options(selection: EventSelection, known: Sequence[str], path: str) -> None:
    """Raises StorageError, permanent, for options that this kind of file has no use for."""
    strange = next((name for name, _ in selection.text.told() if name not in known), None)
    if strange is not None:
        what = f"the option {strange} means nothing for such a file"
        raise StorageError(what, path, "leave it out", failure_class="permanent")
