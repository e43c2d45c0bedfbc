"""What a request for entries is answered with: batches cut at the file's borders. Sending them is server.py's.

The libraries behind `streams.events` are imported at the first request.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.core.names import Destination, shown
from streams.core.records import ChunksRequested, RequestedItem, Scope
from streams.core.selections import parts
from streams.errors import StorageError, data_bad, permanent
from streams.planes.reasons import put_in_words, reason_of
from streams.planes.source.open_files import OpenFileCache, open_item
from streams.planes.source.server import ReadPiece
from streams.storage.endpoint import ReadableStorage

if TYPE_CHECKING:
    from streams.events.batches import Compression
    from streams.events.entries import Entries

READERS_MAX = 2
"""Open at once: each holds some decoded 10 MB."""
IDLE_S = 5.0
TURN_BYTES = 1024 * 1024
LONG_TURN_BYTES = 64 << 20
"""While more transfers wait than readers are kept: each turn opens a file and decodes windows, so a request ends."""


@dataclass(slots=True)
class _Opened:
    """A file being read. `cut` is the one that entries were last sent of."""

    entries: Entries
    cuts: list[tuple[int, int]]
    schema_bytes: int
    fingerprint: str
    cut: int = 0

    def end_of(self, entry: int) -> int:
        """Where the cut ends that holds `entry`."""
        from streams.events.cut_points import piece_of

        if not self.cuts[self.cut][0] <= entry < self.cuts[self.cut][1]:
            self.cut = piece_of(self.cuts, entry)
        return self.cuts[self.cut][1]


class FileEntries:
    """Used by one thread."""

    idle_s = IDLE_S

    def __init__(
        self,
        endpoint: ReadableStorage,
        payload_bytes: int,
        codec: str,
        record_bytes_max: int,
        open_files: OpenFileCache,
    ) -> None:
        self._endpoint = endpoint
        self._payload_bytes = payload_bytes
        self._compression: Compression = "none" if codec == "none" else "zstd" if codec == "zstd" else "lz4"
        self._record_bytes_max = record_bytes_max
        self._open_files = open_files
        self._opened: OrderedDict[tuple[Destination, str, str, str], _Opened] = OrderedDict()

    def turn_bytes(self, waiting: int) -> int:
        return TURN_BYTES if waiting <= READERS_MAX else LONG_TURN_BYTES

    def take(
        self, request: ChunksRequested, item: RequestedItem, offset: int, length: int, room_bytes: int
    ) -> ReadPiece:
        """Raises StorageError only. A single entry over the cap is taken with its reason, and is not in the way."""
        try:
            return self._take(request.destination, item, offset, length)
        except StorageError:
            self._close(request.destination, item)
            raise
        except Exception as error:
            self._close(request.destination, item)
            raise put_in_words(error, item.lfn) from error

    def close(self) -> None:
        while self._opened:
            self._opened.popitem()[1].entries.close()

    def _take(self, destination: Destination, item: RequestedItem, offset: int, length: int) -> ReadPiece:
        from streams.events.batches import pack

        opened = self._open(destination, item)
        entries = opened.entries
        if not entries.entries:  # its one position stands for its schema
            return ReadPiece(1, pack(entries.read(entries.start, entries.start), self._compression), opened.fingerprint)
        begin = entries.start + offset
        end = min(begin + length, opened.end_of(begin))
        try:
            begin, end, batch = next(entries.pieces(begin, end, self._record_bytes_max - opened.schema_bytes))
        except StorageError as error:
            entries.read(begin, begin + 1)  # if this fails too, so does all that is asked of the item
            reason = reason_of(error, "read", Scope.SOURCE)  # else it is one large entry, not those behind it
            return ReadPiece(1, b"", reason=reason)
        return ReadPiece(end - begin, pack(batch, self._compression), opened.fingerprint)

    def _open(self, destination: Destination, item: RequestedItem) -> _Opened:
        name = (destination, item.lfn, item.version, item.selection)
        opened = self._opened.get(name)
        if opened is None:
            while len(self._opened) >= READERS_MAX:
                self._opened.popitem(last=False)[1].entries.close()
            opened = self._opened[name] = self._opened_now(item)
        self._opened.move_to_end(name)
        return opened

    def _opened_now(self, item: RequestedItem) -> _Opened:
        from streams.events.batches import pack

        selection = parts.entries_of(item.selection)
        if selection is None:
            raise permanent(f"{shown(item.selection, 60)!r} names no entries", item.lfn)
        entries = self._open_files.take(item.lfn, item.version, item.selection)
        entries = entries or open_item(self._endpoint, item.lfn, item.version, selection)
        try:
            if max(1, entries.entries) != item.length or (selection.stop is None and entries.entries):
                what = f"the selection has {entries.entries:,} entries where {item.length:,} were listed"
                raise data_bad(what, item.lfn, "ask for it again")
            schema_bytes = len(pack(entries.read(entries.start, entries.start), "none"))
            return _Opened(entries, entries.cuts(self._payload_bytes), schema_bytes, entries.fingerprint)
        except BaseException:
            entries.close()
            raise

    def _close(self, destination: Destination, item: RequestedItem) -> None:
        opened = self._opened.pop((destination, item.lfn, item.version, item.selection), None)
        if opened is not None:
            opened.entries.close()
