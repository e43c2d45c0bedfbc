"""What a request for whole files and objects is answered with: bytes. Sending them is server.py's."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from contextlib import suppress

from streams.core.names import shown
from streams.core.records import ChunksRequested, RequestedItem
from streams.core.selections import parts
from streams.errors import StorageError, data_bad, permanent
from streams.planes.reasons import put_in_words
from streams.planes.source.server import ReadPiece
from streams.storage.endpoint import ReadableStorage, Reader

READERS_MAX = 32
KEYS_AHEAD = 16
KEY_AHEAD_BYTES = 1024 * 1024
TURN_BYTES = 1024 * 1024
"""Sent of one request before another has its turn: records of one partition in a row share a batch, in every hop."""


class FileBytes:
    """Used by one thread."""

    idle_s = 0.0
    readers_max = READERS_MAX

    def __init__(self, endpoint: ReadableStorage) -> None:
        self._endpoint = endpoint
        self._readers: OrderedDict[tuple[str, str, str], Reader] = OrderedDict()

    def turn_bytes(self, waiting: int) -> int:
        return TURN_BYTES

    def take(
        self, request: ChunksRequested, item: RequestedItem, offset: int, length: int, room_bytes: int
    ) -> ReadPiece:
        length = min(length, room_bytes)
        reader = self._reader(item)
        try:
            return ReadPiece(length, reader.pread(offset, length))
        except StorageError:  # a descriptor that failed once may be stale for ever
            self._readers.pop((item.lfn, item.version, item.selection)).close()
            raise

    def close(self) -> None:
        while self._readers:
            self._readers.popitem()[1].close()

    def _reader(self, item: RequestedItem) -> Reader:
        name = (item.lfn, item.version, item.selection)
        reader = self._readers.get(name)
        if reader is not None:
            self._readers.move_to_end(name)
        else:
            reader = self._open(item)
            if reader.stat.bytes != item.length:
                reader.close()
                what = f"the file has {reader.stat.bytes:,} bytes where {item.length:,} were registered"
                raise data_bad(what, item.lfn, "register it again")
            self._readers[name] = reader
            if len(self._readers) > self.readers_max:
                self._readers.popitem(last=False)[1].close()
        return reader

    def _open(self, item: RequestedItem) -> Reader:
        return self._endpoint.open_reader(item.lfn, item.version or None)


class FileKeys(FileBytes):
    """Files that are keys of stores: small ones are asked for while others are sent. For one thread."""

    readers_max = 4 * READERS_MAX

    def take(
        self, request: ChunksRequested, item: RequestedItem, offset: int, length: int, room_bytes: int
    ) -> ReadPiece:
        if not offset:
            at = bisect_right(request.items, item.start, key=lambda one: one.start)
            for later in request.items[at : at + KEYS_AHEAD]:
                if later.version and 0 < later.length <= KEY_AHEAD_BYTES:
                    with suppress(StorageError):  # said when its turn comes
                        self._reader(later).begin()
        taken = super().take(request, item, offset, length, room_bytes)
        if offset + taken.length == item.length:
            self._readers.pop((item.lfn, item.version, item.selection)).close()
        return taken


class FileObjects(FileBytes):
    """Objects of files, for one thread. What must be unpacked to be read is kept in `scratch`."""

    def __init__(self, endpoint: ReadableStorage, scratch: str) -> None:
        super().__init__(endpoint)
        self._scratch = scratch

    def _open(self, item: RequestedItem) -> Reader:
        try:
            from streams.objects.reading import open_object

            asked = parts.objects_of(item.selection)
            if asked is None or asked.one is None:
                raise permanent(f"{shown(item.selection, 60)!r} names no object")
            path, seen = self._endpoint.local_file(item.lfn, item.version)
            os.makedirs(self._scratch, exist_ok=True)
            return open_object(path, asked.one, version=seen, scratch=self._scratch)
        except Exception as error:
            raise put_in_words(error, item.lfn) from error
