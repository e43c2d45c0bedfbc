"""The final file of an item of entries, written from its spool: which entries make a row group, and when.

Not here: the formats (final_files/), the final name (the caller renames the part), the spool's own file.

**The same entries give the same bytes**, whatever the order, the cuts and the repeats in which they came: so a seal
that is done again, or at another site, can be compared by adler32. Entries are put together in blocks of a number that
only the schema decides, a row group ends at the first block with which it is large enough, and no date or name of a
machine is written. (Other versions of the libraries may write other bytes: compare values then.) Since a row group
depends on nothing behind it, the file can grow while entries still arrive.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import dataclass

import pyarrow as pa

from streams.core.closing import Closing
from streams.errors import StorageError, permanent
from streams.events.batches import Compression
from streams.events.final_files import FORMATS
from streams.events.final_files.final_file import FinalFile
from streams.events.provenance import Provenance
from streams.events.sizes import Sizes
from streams.events.spool import Spool
from streams.storage import oserrors
from streams.storage.checksums import adler32_hex

ROW_GROUP_BYTES = 32 * 1024 * 1024
"""Of values: a row group is held in memory a few times over while it is written."""
ROW_GROUP_ENTRIES = 1 << 20
BLOCK_BYTES = 256 * 1024
"""What a block of entries should be: the grain of row groups."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A whole file, durable under its part's name. `adler32`: 8 hex digits."""

    bytes: int
    adler32: str
    entries: int


def kind_fault(schema: pa.Schema, kind: str) -> str | None:
    """Why such a file cannot hold this schema, naming the column; None where it can (nulls are only seen later)."""
    return FORMATS[kind].fault(schema)


class Sealing(Closing):
    """A final file that grows as its entries become whole, from the first one on.

    `schema` is needed for an item of no entries whose spool was told none. A file already there is written anew: what
    a crash leaves of it is never read. StorageError: transient while entries are missing, permanent where the kind
    cannot hold a column (named), else of the disk; `PartLost` of the spool. After any but the first, begin again.
    """

    def __init__(
        self,
        spool: Spool,
        kind: str,
        path: str,
        provenance: Provenance,
        *,
        schema: pa.Schema | None = None,
        compression: Compression = "zstd",
    ) -> None:
        self.path = path
        self.entries = 0
        """Read from the spool; written, or held for the next row group."""
        self._spool, self._kind, self._about, self._compression = spool, kind, provenance, compression
        self._schema = schema
        self._count = provenance.stop - provenance.start
        self._fd = -1
        self._file: FinalFile | None = None
        self._held = _Held(Sizes(pa.schema([])))
        self._over: StorageError | None = None

    def advance(self, most: int | None = None) -> int:
        """Write what can be written by now, of `most` entries more; how many entries are in.

        Costly: call it where a seal would be.
        """
        if self._over is not None:  # what a row group left undone, no later call makes good
            raise self._over
        schema = self._spool.schema or self._schema
        if schema is None:
            return 0
        try:
            file = self._file or self._open(schema)
            first, stop = next(iter(self._spool.taken.spans), (0, 0))
            stop = min(stop, self._count) if first == 0 else 0
            stop = stop if most is None else min(stop, self.entries + most)
            for batch in self._spool.read(self.entries, stop):
                self._held.add(batch)
                self.entries += batch.num_rows
                while (table := self._held.row_group(last=self.entries == self._count)) is not None:
                    file.write(table)
        except StorageError as error:
            self._over = error
            raise
        except (OSError, pa.ArrowException) as error:
            raise self._failed(error) from error
        return self.entries

    def finish(self) -> Sealed:
        """The rest, once the item is whole. The file is synced; its name is the caller's to change and make durable."""
        if not self._spool.whole(self._count):
            missing = self._spool.taken.missing(0, self._count)
            start, stop = missing.spans[0]
            what = f"{missing.size} entries are not there yet, the first [{start}, {stop})"
            raise StorageError(what, self._spool.path)
        self.advance()
        if self._file is None:
            raise permanent("no schema is known of an item without entries", self._spool.path)
        try:
            size, adler = self._file.close()
            self._file = None
        except (OSError, pa.ArrowException) as error:
            raise self._failed(error) from error
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise oserrors.syncing(error, self.path) from error
        finally:
            self.close()
        return Sealed(size, adler32_hex(adler), self._count)

    def close(self) -> None:
        """Let go of it, whole or not; the file stays for the caller to delete."""
        file, self._file = self._file, None
        if file is not None:
            file.abandon()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._over = self._over or StorageError("the sealing is over", self.path)
        self._held = _Held(Sizes(pa.schema([])))

    def _open(self, schema: pa.Schema) -> FinalFile:
        fault = kind_fault(schema, self._kind)
        if fault:
            raise permanent(fault, self.path, "ask for parquet")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o644)
        self._held = _Held(Sizes(schema))
        about = self._about
        self._file = FORMATS[self._kind].create(
            self._fd, self.path, schema, about.tree, about.metadata(schema), self._compression
        )
        return self._file

    def _failed(self, error: OSError | pa.ArrowException) -> StorageError:
        if isinstance(error, OSError):
            self._over = oserrors.writing(error, self.path)
        else:
            what = f"cannot be written as {self._kind}: {str(error)[:200]}"
            self._over = permanent(what, self.path, "ask for another kind")
        return self._over


class _Held:
    """Entries read and not written yet, as the slices they came in, from the start of a row group on."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._block_entries = block_entries(sizes.guessed_bytes)
        self._pieces: list[pa.RecordBatch] = []
        self._ends: list[int] = []
        self._measured = 0
        self._bytes = 0

    def add(self, piece: pa.RecordBatch) -> None:
        self._pieces.append(piece)
        self._ends.append((self._ends[-1] if self._ends else 0) + piece.num_rows)

    def row_group(self, *, last: bool) -> pa.Table | None:
        """The next row group, each column in one piece; None while it may still grow. `last`: nothing will follow."""
        entries = self._ends[-1] if self._ends else 0
        while self._measured < entries:
            stop = self._measured + self._block_entries
            if stop > entries:
                if not last:
                    return None
                stop = entries
            self._bytes += self._size(self._measured, stop)
            self._measured = stop
            if self._bytes >= ROW_GROUP_BYTES or stop >= ROW_GROUP_ENTRIES:
                return self._cut(stop)
        return self._cut(entries) if last and entries else None

    def _size(self, start: int, stop: int) -> int:
        size = 0
        at = bisect_right(self._ends, start)
        while start < stop:
            first, end = self._ends[at] - self._pieces[at].num_rows, min(stop, self._ends[at])
            size += self._sizes.of(self._pieces[at], start - first, end - first)
            start = end
            at += 1
        return size

    def _cut(self, stop: int) -> pa.Table:
        """Take `[0, stop)` out."""
        pieces, self._pieces, self._ends = self._pieces, [], []
        self._measured = self._bytes = 0
        taken, at = [], 0
        for piece in pieces:
            size = min(piece.num_rows, stop - at)
            if size:
                taken.append(piece.slice(0, size))
            if size < piece.num_rows:
                self.add(piece.slice(size))
            at += size
        # put together anew, even from one piece: a slice is encoded with bytes of its neighbours
        return pa.Table.from_batches([pa.concat_batches(taken)])


def block_entries(guessed_bytes: int) -> int:
    """Entries of a block, from the guessed size of one: a power of two."""
    wanted = max(1, BLOCK_BYTES // guessed_bytes)
    return int(min(1 << 16, max(64, 1 << (wanted.bit_length() - 1))))
