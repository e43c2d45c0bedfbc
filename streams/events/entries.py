"""Some entries of one file, exact and in pieces: what every format offers, whatever is behind it.

Entries are numbered as in the file: `read(start, stop)` means the same entries whatever the selection's range.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from streams.core.closing import Closing
from streams.core.names import shown
from streams.core.selections.entries import EventSelection, is_glob, matches, nearest, readable, unescaped
from streams.errors import data_bad, permanent
from streams.events.batches import fingerprint
from streams.events.checked_file import CheckedFile
from streams.events.cut_points import CutPoints, piece_of

WINDOW_BYTES = 32 << 20
"""Decoded together, and cut into payloads: small ones would pay the libraries' overhead per call."""

KEPT_BYTES = 128 << 20
"""Decoded pieces that reach beyond a window are kept up to this size together; others are decoded again."""
LARGE_WINDOW_BYTES = 96 << 20
"""Where the pieces (baskets, clusters) are too large to be kept, so that each is decoded less often."""

_ENTRIES_A_BYTE = 100_000  # more no compression makes of one byte
_ENTRIES_FEW = 1 << 20


class Entries(Closing, ABC):
    """Some columns of the entries `[start, stop)` of a tree, `entries` in number.

    `schema` has the columns in the file's order; `unreadable` tells, of columns left out, why. Used by one thread at
    a time. Everything that can be wrong with the file is a StorageError: data-bad for bytes that cannot be right,
    permanent for what it does not hold.
    """

    tree: str = ""

    def __init__(self, file: CheckedFile, selection: EventSelection) -> None:
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

    def _found(self, schema: pa.Schema, unreadable: Mapping[str, str], borders: CutPoints) -> None:
        """What every format finds when it opens a file; only then the rest of this class works."""
        self.schema = schema
        self.unreadable = dict(unreadable)
        self.start, self.stop = borders.start, borders.stop
        self._borders = borders
        if self.entries and not self.schema.names:
            raise permanent("it has entries but no columns", self.path)
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
            raise permanent(f"entries {start:,} to {stop:,} are not within {self.start:,} to {self.stop:,}", self.path)
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
                raise permanent(what, self.path, "ask for fewer columns")
            else:
                half = (begin + end) // 2
                waiting += [(half, end, batch.slice(half - begin)), (begin, half, batch.slice(0, half - begin))]

    def close(self) -> None:
        self._held = None
        self._file.close()

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
                raise data_bad(what, self.path, "leave it out") from error

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
            raise permanent(f"{what}, {named} has {entries:,}", self.path, f"end at {entries} or before")
        return asked.start, stop


def path_kind(path: str) -> str:
    """What the name's end promises."""
    return path.rpartition("/")[2].rpartition(".")[2].lower()


def without_tree(selection: EventSelection, path: str, kind: str) -> None:
    """Raises StorageError, permanent, where a tree is named of a `kind` of file that has none."""
    if selection.tree:
        raise permanent(
            f"{kind} has no trees, {shown(selection.tree)!r} is asked for", path, "leave the tree's name out"
        )


def chosen(selection: EventSelection, names: Sequence[str], path: str) -> list[str]:
    """The columns asked for, in the order of `names`. Raises StorageError, permanent, for one that is not there."""
    if not selection.columns:
        return list(names)
    exact = {unescaped(column) for column in selection.columns if not is_glob(column)}
    globs = [column for column in selection.columns if is_glob(column)]
    for name in sorted(exact.difference(names)):
        raise permanent(f"no column {shown(name)!r}{nearest(name, names)}", path, "name columns it has")
    found = set(exact)
    for glob in globs:
        matching = [name for name in names if matches(glob, name)]
        if not matching:
            stem = glob.strip("*")
            what = f"no column matches {shown(readable(glob))!r}{nearest(stem, names)}"
            raise permanent(what, path, "name columns it has")
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
        raise permanent(f"cannot read the column {shown(name)!r}: {why}{more}", path, then)
