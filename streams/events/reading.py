"""Entries of one file, exact and in pieces, whatever the format. Formats are modules of their own.

    with open_entries("events.root", EventSelection.parse("Events{Muon_*}")) as entries:
        for start, stop in entries.cuts(256 * 1024):
            batch = entries.read(start, stop)

Entries are numbered as in the file: `read(start, stop)` means the same entries whatever the selection's range.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import pyarrow as pa

from streams.core.asked import EventSelection, is_glob, matches, nearest, readable, unescaped
from streams.core.names import shown
from streams.errors import StorageError
from streams.events.batches import fingerprint
from streams.events.borders import Borders, piece_of
from streams.events.counted import NOT_SUPPORTED, CountedFile, unsupported
from streams.events.packing import HEAD_BYTES, other_packing_of, packing_of

WINDOW_BYTES = 32 << 20
"""Decoded together, and cut into payloads: small ones would pay the libraries' overhead per call."""

KEPT_BYTES = 128 << 20
"""Decoded pieces that reach beyond a window are kept up to this size together; others are decoded again."""
LARGE_WINDOW_BYTES = 96 << 20
"""Where the pieces (baskets, clusters) are too large to be kept, so that each is decoded less often."""

_ENTRIES_A_BYTE = 100_000  # more no compression makes of one byte
_ENTRIES_FEW = 1 << 20
_CSV = ("csv", "tsv")
_JSON = ("jsonl", "ndjson")


class Entries(ABC):
    """Some columns of the entries `[start, stop)` of a tree, `entries` in number.

    `schema` has the columns in the file's order; `unreadable` tells, of columns left out, why. Used by one thread at
    a time. Everything that can be wrong with the file is a StorageError: data-bad for bytes that cannot be right,
    permanent for what it does not hold.
    """

    tree: str = ""
    options: tuple[str, ...] = ()
    """Of `TextFormat`, those that mean something here."""

    def __init__(self, file: CountedFile, selection: EventSelection) -> None:
        self.path = file.path
        self.selection = selection
        self.start = 0
        self.stop = 0
        self.schema: pa.Schema = pa.schema([])
        self.unreadable: dict[str, str] = {}
        self.notes: list[str] = []
        """For people: what may not be meant as it is read."""
        self._file = file
        self._held: tuple[int, pa.RecordBatch] | None = None

    def _found(self, schema: pa.Schema, unreadable: Mapping[str, str], entries: int, borders: Borders) -> None:
        """What every format finds when it opens a file; only then the rest of this class works."""
        self.schema = schema
        self.unreadable = dict(unreadable)
        self.start, self.stop = borders.start, borders.stop
        self.file_entries = entries
        self._borders = borders
        if self.entries and not self.schema.names:
            raise StorageError("it has entries but no columns", self.path, failure_class="permanent")
        with self._file.guarded("cannot plan the reading"):
            window_bytes = WINDOW_BYTES if borders.widest_bytes <= KEPT_BYTES else LARGE_WINDOW_BYTES
            self._windows = borders.cuts(self.start, self.stop, window_bytes)

    @property
    def entries(self) -> int:
        return self.stop - self.start

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.schema.names)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.schema)

    @property
    def decoded_bytes(self) -> int:
        """Estimated bytes of all its entries once decoded, as `cuts` counts them."""
        return self._borders.bytes_between(self.start, self.stop)

    @property
    def bytes_read(self) -> int:
        """Bytes really read of the file so far, its table of contents included."""
        return self._file.bytes_read

    @property
    def version(self) -> str:
        """The version of the file that is being read, as `streams.storage` tells it."""
        return self._file.version

    def cuts(self, payload_bytes: int) -> list[tuple[int, int]]:
        """The whole range in order, in pieces of about `payload_bytes` decoded: a function of file and selection."""
        return [cut for window in self._windows for cut in self._borders.cuts(*window, payload_bytes)]

    def read(self, start: int, stop: int) -> pa.RecordBatch:
        """The entries `[start, stop)`, bit by bit as the file has them."""
        if not self.start <= start <= stop <= self.stop:
            what = f"entries {start:,} to {stop:,} are not within {self.start:,} to {self.stop:,}"
            raise StorageError(what, self.path, failure_class="permanent")
        pieces = []
        while start < stop:
            at = piece_of(self._windows, start)
            begin, end = self._windows[at]
            pieces.append(self._window(at).slice(start - begin, min(stop, end) - start))
            start = min(stop, end)
        if not pieces:
            return pa.RecordBatch.from_pylist([], schema=self.schema)
        return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)

    def pieces(self, start: int, stop: int, bytes_max: int) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """`[start, stop)` in batches of at most `bytes_max` as uncompressed Arrow IPC messages, halved where needed.

        Raises StorageError, permanent, for a single entry that is larger.
        """
        waiting = [(start, stop, self.read(start, stop))] if start < stop else []
        while waiting:
            begin, end, batch = waiting.pop()
            size = pa.ipc.get_record_batch_size(batch)
            if size <= bytes_max:
                yield begin, end, batch
            elif end - begin == 1:
                what = f"entry {begin:,} alone has {size:,} bytes, {bytes_max:,} at most can be sent"
                raise StorageError(what, self.path, "ask for fewer columns", failure_class="permanent")
            else:
                half = (begin + end) // 2
                waiting += [(half, end, batch.slice(half - begin)), (begin, half, batch.slice(0, half - begin))]

    def close(self) -> None:
        self._held = None
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _load(self, start: int, stop: int) -> Sequence[pa.Array]:
        """The columns of one window, in the schema's order. May raise anything: the caller puts it in words."""

    def _window(self, at: int) -> pa.RecordBatch:
        if self._held is not None and self._held[0] == at:
            return self._held[1]
        self._held = None
        start, stop = self._windows[at]
        with self._file.guarded(f"cannot read entries {start:,} to {stop:,}"):
            batch = pa.RecordBatch.from_arrays(list(self._load(start, stop)), schema=self.schema)
            if batch.num_rows != stop - start:
                raise ValueError(f"{batch.num_rows:,} entries came where {stop - start:,} are")
            self._check(batch)
        self._held = at, batch
        return batch

    def _check(self, batch: pa.RecordBatch) -> None:
        """Lists that lie inside their values, and text that is text: what the other site will check too."""
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                if "UTF8" not in str(error):
                    raise
                what = f"the column {shown(name)!r} holds text that is not UTF-8"
                raise StorageError(what, self.path, "leave it out", failure_class="data-bad") from error

    def _range(self, entries: int) -> tuple[int, int]:
        """The selection's range in a file of so many entries. Raises StorageError, permanent, beyond the end."""
        if entries > max(_ENTRIES_FEW, self._file.bytes * _ENTRIES_A_BYTE):
            raise ValueError(f"it claims {entries:,} entries in {self._file.bytes:,} bytes")
        asked = self.selection
        stop = entries if asked.stop is None else asked.stop
        if stop > entries or asked.start > stop:
            until = "" if asked.stop is None else f" to {stop:,}"
            what = f"entries {'from ' * (asked.stop is None)}{asked.start:,}{until} are asked for"
            named = f"the tree {shown(self.tree)!r}" if self.tree else "the file"
            raise StorageError(
                f"{what}, {named} has {entries:,}",
                self.path,
                f"end at {entries} or before",
                failure_class="permanent",
            )
        return asked.start, stop


def open_entries(path: str, selection: EventSelection, *, version: str | None = None) -> Entries:
    """The entries of the file at `path`; with `version`, only that one (as `streams.storage` tells versions).

    Raises StorageError: permanent for what the file does not hold, data-bad for a file that is not what it seems.
    """
    file = CountedFile(path, version)
    try:
        kind = _format(file)
        refuse_options(selection, kind.options, file.path)
        return kind(file, selection)
    except BaseException:
        file.close()
        raise


def _format(file: CountedFile) -> type[Entries]:
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


def path_kind(path: str) -> str:
    """What the name's end promises."""
    return path.rpartition("/")[2].rpartition(".")[2].lower()


def chosen(selection: EventSelection, names: Sequence[str], path: str) -> list[str]:
    """The columns asked for, in the order of `names`. Raises StorageError, permanent, for one that is not there."""
    if not selection.columns:
        return list(names)
    exact = {unescaped(column) for column in selection.columns if not is_glob(column)}
    globs = [column for column in selection.columns if is_glob(column)]
    for name in sorted(exact.difference(names)):
        raise StorageError(
            f"no column {shown(name)!r}{nearest(name, names)}", path, "name columns it has", failure_class="permanent"
        )
    found = set(exact)
    for glob in globs:
        matching = [name for name in names if matches(glob, name)]
        if not matching:
            stem = glob.strip("*")
            what = f"no column matches {shown(readable(glob))!r}{nearest(stem, names)}"
            raise StorageError(what, path, "name columns it has", failure_class="permanent")
        found.update(matching)
    return [name for name in names if name in found]


def refuse_unreadable(
    unreadable: Mapping[str, str], asked: EventSelection, path: str, fields: Sequence[pa.Field]
) -> None:
    """Raises StorageError, permanent, for unreadable columns, unless they may be left out and others remain."""
    if unreadable and (not asked.lenient or not fields):
        name, why = next(iter(unreadable.items()))
        more = f", and {len(unreadable) - 1:,} more" if len(unreadable) > 1 else ""
        then = "name other columns" if asked.lenient else "name other columns, or end the selection with ? to skip it"
        what = f"cannot read the column {shown(name)!r}: {why}{more}"
        raise StorageError(what, path, then, failure_class="permanent")
